//! RSA encryption, in software, and decryption, in the TPM.

use std::ffi::CStr;
use std::sync::Arc;

use keyrivet_core::algorithm::{EncryptionScheme, HashAlgorithm};
use keyrivet_core::key::Key;
use keyrivet_core::public_key::PublicKey;
use keyrivet_core::{Error, Result};
use zeroize::Zeroizing;

use crate::ffi::core_abi::*;
use crate::ffi::later_abi::OSSL_ASYM_CIPHER_PARAM_IMPLICIT_REJECTION;
use crate::ffi::params::{Answers, Descriptor, Kind, Param, Params, Value};
use crate::key::{Family, ProviderKey, hash_by_name, hash_name};
use crate::provider::Provider;

/// Which way it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// To the public key.
    Encrypt,
    /// With the private key.
    Decrypt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Padding {
    Pkcs1,
    /// PKCS#1 around the secret of TLS's RSA key exchange.
    Pkcs1Tls,
    Oaep,
    None,
}

/// Each padding with its number and its name; TLS's has none.
const PADDINGS: [(Padding, u32, &CStr); 4] = [
    (Padding::Pkcs1, RSA_PKCS1_PADDING, OSSL_PKEY_RSA_PAD_MODE_PKCSV15),
    (Padding::Oaep, RSA_PKCS1_OAEP_PADDING, OSSL_PKEY_RSA_PAD_MODE_OAEP),
    (Padding::None, RSA_NO_PADDING, OSSL_PKEY_RSA_PAD_MODE_NONE),
    (Padding::Pkcs1Tls, RSA_PKCS1_WITH_TLS_PADDING, c""),
];

/// Length of the secret in TLS's RSA key exchange (RFC 5246, 7.4.7.1).
const PREMASTER: usize = 48;

/// An encryption or decryption: its key and its settings.
#[derive(Clone)]
pub(crate) struct AsymCipher {
    provider: Arc<Provider>,
    key: Option<(Way, ProviderKey)>,
    padding: Padding,
    oaep_hash: HashAlgorithm,
    /// As the one above unless it is set.
    mgf_hash: Option<HashAlgorithm>,
    label: Vec<u8>,
    implicit_rejection: bool,
    /// TLS versions: what the client offered, and what was agreed on.
    client_version: u16,
    negotiated_version: u16,
}

impl AsymCipher {
    /// One with OpenSSL's defaults and without a key.
    pub(crate) fn new(provider: Arc<Provider>) -> Self {
        Self {
            provider,
            key: None,
            padding: Padding::Pkcs1,
            oaep_hash: HashAlgorithm::Sha1,
            mgf_hash: None,
            label: Vec::new(),
            implicit_rejection: true,
            client_version: 0,
            negotiated_version: 0,
        }
    }

    /// The provider it belongs to.
    pub(crate) fn provider(&self) -> &Arc<Provider> {
        &self.provider
    }

    /// Starts with a key; without one, again with the one of before.
    pub(crate) fn start(&mut self, way: Way, key: Option<&ProviderKey>, params: &Params<'_>) -> Result<()> {
        let key = match (key, self.key.take()) {
            (Some(key), _) => key.clone(),
            (None, Some((_, key))) => key,
            (None, None) => return Err(no_key()),
        };
        if key.family() != Family::Rsa {
            return Err(Error::Unsupported("encryption with a key that is not for it".into()));
        }
        match way {
            Way::Encrypt if key.public_key().is_none() => return Err(no_key()),
            Way::Decrypt if key.private_key().is_none() => {
                return Err(Error::Unsupported("decryption with a key that is not in the TPM".into()));
            }
            Way::Decrypt if !key.private_key().is_some_and(Key::may_decrypt) => {
                return Err(Error::Unsupported("decryption with a key that the TPM does not let decrypt".into()));
            }
            Way::Encrypt | Way::Decrypt => {}
        }
        self.key = Some((way, key));
        self.set(params)
    }

    /// The longest answer, in bytes.
    pub(crate) fn max_length(&self) -> Result<usize> {
        match (self.padding, &self.key) {
            (Padding::Pkcs1Tls, Some((Way::Decrypt, _))) => Ok(PREMASTER),
            _ => self.public_key().map(PublicKey::signature_length),
        }
    }

    /// Encrypts, in software.
    pub(crate) fn encrypt(&self, clear: &[u8]) -> Result<Vec<u8>> {
        let key = self.public_key()?;
        if self.padding == Padding::None && clear.len() != key.signature_length() {
            return Err(Error::DataInvalid("without padding it has to be as long as the key".into()));
        }
        key.encrypt(&self.scheme()?, clear)
    }

    /// Decrypts, in the TPM.
    pub(crate) fn decrypt(&self, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        match &self.key {
            Some((Way::Decrypt, key)) => key.private_key().ok_or_else(no_key)?.decrypt(&self.scheme()?, ciphertext),
            Some((Way::Encrypt, _)) | None => Err(no_key()),
        }
    }

    fn public_key(&self) -> Result<&PublicKey> {
        self.key.as_ref().and_then(|(_, key)| key.public_key()).ok_or_else(no_key)
    }

    fn scheme(&self) -> Result<EncryptionScheme> {
        Ok(match self.padding {
            Padding::Pkcs1 if self.implicit_rejection => EncryptionScheme::RsaPkcs1Implicit,
            Padding::Pkcs1 => EncryptionScheme::RsaPkcs1,
            Padding::Pkcs1Tls if self.client_version == 0 => {
                return Err(Error::Unsupported("TLS's RSA key exchange without the client's version".into()));
            }
            Padding::Pkcs1Tls => EncryptionScheme::RsaPkcs1Tls {
                client: self.client_version,
                negotiated: Some(self.negotiated_version).filter(|version| *version != 0),
            },
            Padding::Oaep => EncryptionScheme::RsaOaep {
                hash: self.oaep_hash,
                mgf_hash: self.mgf_hash.unwrap_or(self.oaep_hash),
                label: self.label.clone(),
            },
            Padding::None => EncryptionScheme::RsaRaw,
        })
    }

    /// What [`Self::set`] takes.
    pub(crate) fn settable() -> &'static [Descriptor] {
        static SETTABLE: [Descriptor; 10] = [
            Descriptor::new(OSSL_ASYM_CIPHER_PARAM_PAD_MODE, Kind::Text),
            Descriptor::new(OSSL_ASYM_CIPHER_PARAM_OAEP_DIGEST, Kind::Text),
            Descriptor::new(OSSL_ASYM_CIPHER_PARAM_OAEP_DIGEST_PROPS, Kind::Text),
            Descriptor::new(OSSL_ASYM_CIPHER_PARAM_MGF1_DIGEST, Kind::Text),
            Descriptor::new(OSSL_ASYM_CIPHER_PARAM_MGF1_DIGEST_PROPS, Kind::Text),
            Descriptor::new(OSSL_ASYM_CIPHER_PARAM_OAEP_LABEL, Kind::Octets),
            Descriptor::new(OSSL_ASYM_CIPHER_PARAM_TLS_CLIENT_VERSION, Kind::Unsigned),
            Descriptor::new(OSSL_ASYM_CIPHER_PARAM_TLS_NEGOTIATED_VERSION, Kind::Unsigned),
            Descriptor::new(OSSL_ASYM_CIPHER_PARAM_IMPLICIT_REJECTION, Kind::Unsigned),
            Descriptor::END,
        ];
        &SETTABLE
    }

    /// What [`Self::answer`] knows.
    pub(crate) fn gettable() -> &'static [Descriptor] {
        static GETTABLE: [Descriptor; 8] = [
            Descriptor::new(OSSL_ASYM_CIPHER_PARAM_PAD_MODE, Kind::Text),
            Descriptor::new(OSSL_ASYM_CIPHER_PARAM_OAEP_DIGEST, Kind::Text),
            Descriptor::new(OSSL_ASYM_CIPHER_PARAM_MGF1_DIGEST, Kind::Text),
            Descriptor::new(OSSL_ASYM_CIPHER_PARAM_OAEP_LABEL, Kind::OctetsPointer),
            Descriptor::new(OSSL_ASYM_CIPHER_PARAM_TLS_CLIENT_VERSION, Kind::Unsigned),
            Descriptor::new(OSSL_ASYM_CIPHER_PARAM_TLS_NEGOTIATED_VERSION, Kind::Unsigned),
            Descriptor::new(OSSL_ASYM_CIPHER_PARAM_IMPLICIT_REJECTION, Kind::Unsigned),
            Descriptor::END,
        ];
        &GETTABLE
    }

    /// Takes settings.
    pub(crate) fn set(&mut self, params: &Params<'_>) -> Result<()> {
        if let Some(mode) = params.get(OSSL_ASYM_CIPHER_PARAM_PAD_MODE) {
            self.padding = padding(&mode)?;
        }
        if let Some(hash) = params.get(OSSL_ASYM_CIPHER_PARAM_OAEP_DIGEST) {
            self.oaep_hash = hash_by_name(hash.text()?)?;
        }
        if let Some(hash) = params.get(OSSL_ASYM_CIPHER_PARAM_MGF1_DIGEST) {
            self.mgf_hash = Some(hash_by_name(hash.text()?)?);
        }
        if let Some(label) = params.get(OSSL_ASYM_CIPHER_PARAM_OAEP_LABEL) {
            self.label = label.octets()?.to_vec();
        }
        if let Some(on) = params.get(OSSL_ASYM_CIPHER_PARAM_IMPLICIT_REJECTION) {
            self.implicit_rejection = on.integer()? != 0;
        }
        let version = |param: Param<'_>| {
            let number = param.integer()?;
            u16::try_from(number).map_err(|_| Error::DataInvalid(format!("{number} is no TLS version")))
        };
        if let Some(client) = params.get(OSSL_ASYM_CIPHER_PARAM_TLS_CLIENT_VERSION) {
            self.client_version = version(client)?;
        }
        if let Some(negotiated) = params.get(OSSL_ASYM_CIPHER_PARAM_TLS_NEGOTIATED_VERSION) {
            self.negotiated_version = version(negotiated)?;
        }
        Ok(())
    }

    /// Answers questions about the settings.
    pub(crate) fn answer(&self, answers: &mut Answers<'_>) -> Result<()> {
        if let Some((_, number, name)) = PADDINGS.iter().find(|(padding, ..)| *padding == self.padding) {
            answers.answer_either(OSSL_ASYM_CIPHER_PARAM_PAD_MODE, name, i64::from(*number))?;
        }
        answers.answer(OSSL_ASYM_CIPHER_PARAM_OAEP_DIGEST, Value::Text(&hash_name(self.oaep_hash)))?;
        let mgf_hash = hash_name(self.mgf_hash.unwrap_or(self.oaep_hash));
        answers.answer(OSSL_ASYM_CIPHER_PARAM_MGF1_DIGEST, Value::Text(&mgf_hash))?;
        answers.answer(OSSL_ASYM_CIPHER_PARAM_OAEP_LABEL, Value::Held(&self.label))?;
        answers.answer(OSSL_ASYM_CIPHER_PARAM_IMPLICIT_REJECTION, Value::Number(self.implicit_rejection.into()))?;
        answers.answer(OSSL_ASYM_CIPHER_PARAM_TLS_CLIENT_VERSION, Value::Number(self.client_version.into()))?;
        answers.answer(OSSL_ASYM_CIPHER_PARAM_TLS_NEGOTIATED_VERSION, Value::Number(self.negotiated_version.into()))
    }
}

fn no_key() -> Error {
    Error::Unsupported("this operation before it is started with a key".into())
}

fn padding(mode: &Param<'_>) -> Result<Padding> {
    let (asked, found) = if mode.is_text() {
        let name = mode.text()?;
        let named = |known: &CStr| !known.is_empty() && known.to_bytes() == name.as_bytes();
        (name.to_owned(), PADDINGS.iter().find(|(_, _, known)| named(known)))
    } else {
        let number = mode.integer()?;
        (number.to_string(), PADDINGS.iter().find(|(_, known, _)| i64::from(*known) == number))
    };
    let found = found.map(|(padding, ..)| *padding);
    found.ok_or_else(|| Error::Unsupported(format!("RSA encryption with padding {asked}")))
}
