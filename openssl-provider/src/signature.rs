//! A signature or its verification under way.

use std::ffi::CString;
use std::sync::Arc;

use der::asn1::{Any, AnyRef, ObjectIdentifier};
use der::{Encode, Sequence};
use keyrivet_core::algorithm::{HashAlgorithm, SignatureScheme};
use keyrivet_core::key::Key;
use keyrivet_core::public_key::{
    PublicKey, ecdsa_signature_der_max_length, ecdsa_signature_from_der, ecdsa_signature_to_der,
};
use keyrivet_core::sign::{SignOperation, SignatureData};
use keyrivet_core::{Error, Result};

use crate::ffi::core_abi::*;
use crate::ffi::params::{Answers, Descriptor, Kind, Param, Params, Value};
use crate::key::{Family, ProviderKey, hash_by_name, hash_name};
use crate::provider::Provider;

/// What is done with the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Sign, in the TPM.
    Sign,
    /// Verify, in software.
    Verify,
}

/// How an RSA signature is padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Padding {
    Pkcs1,
    Pss,
}

/// How long the salt of a PSS signature is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Salt {
    /// As long as the digest.
    Digest,
    /// As long as the key allows.
    Max,
    /// Whatever is there when verifying; as long as the digest when signing.
    Auto,
    /// This many bytes.
    Length(usize),
}

/// A signature or verification: its key, its settings, and the data so far.
#[derive(Clone)]
pub(crate) struct Signature {
    provider: Arc<Provider>,
    family: Family,
    key: Option<(Purpose, ProviderKey)>,
    hash: Option<HashAlgorithm>,
    padding: Padding,
    salt: Salt,
    /// The message's data so far, of `digest_*`.
    running: Option<SignatureData>,
}

impl Signature {
    /// One with the defaults and without a key.
    pub(crate) fn new(provider: Arc<Provider>, family: Family) -> Self {
        Self { provider, family, key: None, hash: None, padding: Padding::Pkcs1, salt: Salt::Auto, running: None }
    }

    /// The provider it belongs to.
    pub(crate) fn provider(&self) -> &Arc<Provider> {
        &self.provider
    }

    /// Starts on a digest that the application makes. Without a key: again with the one of before.
    pub(crate) fn start(&mut self, purpose: Purpose, key: Option<&ProviderKey>, params: &Params<'_>) -> Result<()> {
        self.running = None;
        let key = match (key, &self.key) {
            (Some(key), _) => key.clone(),
            (None, Some((_, key))) => key.clone(),
            (None, None) => return Err(Error::Unsupported("a signature without a key".into())),
        };
        let usable = match purpose {
            Purpose::Sign => key.private_key().is_some(),
            Purpose::Verify => key.public_key().is_some(),
        };
        if key.family() != self.family || !usable {
            return Err(Error::Unsupported(
                "this operation with this key: its private or public part is needed".into(),
            ));
        }
        if purpose == Purpose::Sign && !key.private_key().is_some_and(Key::may_sign) {
            return Err(Error::Unsupported("signing with a key that the TPM does not let sign".into()));
        }
        self.key = Some((purpose, key));
        self.set(params)
    }

    /// Starts on a message, of which the digest is made here.
    pub(crate) fn start_message(
        &mut self,
        purpose: Purpose,
        digest: Option<&str>,
        key: Option<&ProviderKey>,
        params: &Params<'_>,
    ) -> Result<()> {
        if let Some(name) = digest.filter(|name| !name.is_empty()) {
            self.hash = Some(hash_by_name(name)?);
        }
        self.hash.get_or_insert(HashAlgorithm::Sha256);
        self.start(purpose, key, params)
    }

    /// Adds to the message.
    pub(crate) fn update(&mut self, data: &[u8]) -> Result<()> {
        if self.running.is_none() {
            let hash = self.hash.unwrap_or(HashAlgorithm::Sha256);
            self.refuse_old_hash(Some(hash))?;
            self.running = Some(SignatureData::message(self.scheme(hash)?, hash));
        }
        self.running.as_mut().map_or(Ok(()), |running| running.update(data))
    }

    /// Signs the message.
    pub(crate) fn finish(&mut self) -> Result<Vec<u8>> {
        self.update(b"")?;
        let data = self.running.take().ok_or_else(no_key)?;
        self.signed(data)
    }

    /// Signs a digest that the application has made.
    pub(crate) fn sign(&self, digest: &[u8]) -> Result<Vec<u8>> {
        self.signed(self.prepared(digest)?)
    }

    /// Verifies the message.
    pub(crate) fn finish_verification(&mut self, signature: &[u8]) -> Result<()> {
        self.update(b"")?;
        let data = self.running.take().ok_or_else(no_key)?;
        self.verified(data, signature)
    }

    /// Verifies a digest that the application has made.
    pub(crate) fn verify(&self, signature: &[u8], digest: &[u8]) -> Result<()> {
        self.verified(self.prepared(digest)?, signature)
    }

    /// The longest signature, in bytes.
    pub(crate) fn max_length(&self) -> Result<usize> {
        Ok(match self.public_key()? {
            key @ PublicKey::Rsa { .. } => key.signature_length(),
            PublicKey::Ec { curve, .. } => ecdsa_signature_der_max_length(*curve),
        })
    }

    fn public_key(&self) -> Result<&PublicKey> {
        self.key.as_ref().and_then(|(_, key)| key.public_key()).ok_or_else(no_key)
    }

    fn signed(&self, data: SignatureData) -> Result<Vec<u8>> {
        let key = match &self.key {
            Some((Purpose::Sign, key)) => key.private_key().ok_or_else(no_key)?,
            _ => return Err(no_key()),
        };
        let signature = SignOperation::new(key.clone(), data).finish()?;
        match self.family {
            Family::Rsa => Ok(signature),
            Family::Ec => ecdsa_signature_to_der(&signature),
        }
    }

    fn verified(&self, data: SignatureData, signature: &[u8]) -> Result<()> {
        let key = self.public_key()?;
        if let PublicKey::Ec { curve, .. } = key {
            return data.verify(key, &ecdsa_signature_from_der(*curve, signature)?);
        }
        let (scheme, digest) = data.finish()?;
        match scheme {
            SignatureScheme::RsaPss { hash, .. } if self.salt == Salt::Auto => {
                let longest = max_salt(key, hash);
                let mut lengths = std::iter::once(hash.digest_length()).chain((0..=longest).rev());
                let any = lengths.any(|salt_length| {
                    key.verify(SignatureScheme::RsaPss { hash, salt_length }, &digest, signature).is_ok()
                });
                if any { Ok(()) } else { Err(Error::SignatureInvalid) }
            }
            _ => key.verify(scheme, &digest, signature),
        }
    }

    /// A digest that the application has made, with its scheme.
    fn prepared(&self, digest: &[u8]) -> Result<SignatureData> {
        self.refuse_old_hash(self.hash)?;
        let mut data = match (self.family, self.hash) {
            (Family::Ec, hash) => {
                if hash.is_some_and(|hash| hash.digest_length() != digest.len()) {
                    return Err(Error::DataInvalid("not as long as a digest of its hash".into()));
                }
                SignatureData::digest(SignatureScheme::Ecdsa)
            }
            (Family::Rsa, Some(hash)) => SignatureData::digest(self.scheme(hash)?),
            (Family::Rsa, None) if self.padding == Padding::Pss => {
                // pkeyutl without -pkeyopt digest: the length tells it.
                let hash = HashAlgorithm::from_digest_length(digest.len());
                let hash = hash.ok_or_else(|| Error::DataInvalid("not as long as any digest".into()))?;
                self.refuse_old_hash(Some(hash))?;
                SignatureData::digest(self.scheme(hash)?)
            }
            (Family::Rsa, None) => SignatureData::digest_info(),
        };
        data.update(digest)?;
        Ok(data)
    }

    /// SHA-1 is there to verify what was signed long ago.
    fn refuse_old_hash(&self, hash: Option<HashAlgorithm>) -> Result<()> {
        let signs = matches!(self.key, Some((Purpose::Sign, _)));
        if signs && hash == Some(HashAlgorithm::Sha1) {
            return Err(Error::Unsupported("signing with SHA-1: use SHA-256 or better".into()));
        }
        Ok(())
    }

    fn scheme(&self, hash: HashAlgorithm) -> Result<SignatureScheme> {
        Ok(match (self.family, self.padding) {
            (Family::Ec, _) => SignatureScheme::Ecdsa,
            (Family::Rsa, Padding::Pkcs1) => SignatureScheme::RsaPkcs1(hash),
            (Family::Rsa, Padding::Pss) => SignatureScheme::RsaPss { hash, salt_length: self.salt_length(hash)? },
        })
    }

    fn salt_length(&self, hash: HashAlgorithm) -> Result<usize> {
        let length = match self.salt {
            Salt::Digest | Salt::Auto => hash.digest_length(),
            Salt::Max => max_salt(self.public_key()?, hash),
            Salt::Length(length) => length,
        };
        let signs = matches!(self.key, Some((Purpose::Sign, _)));
        if signs && length != hash.digest_length() {
            return Err(Error::Unsupported(format!(
                "PSS salts of {length} bytes: a TPM makes them as long as the digest, use pss_saltlen:digest"
            )));
        }
        Ok(length)
    }

    /// What [`Self::set`] takes and [`Self::answer`] knows (but for the algorithm identifier, which is only got).
    pub(crate) fn settable(family: Family) -> &'static [Descriptor] {
        static RSA: [Descriptor; 7] = [
            Descriptor::new(OSSL_SIGNATURE_PARAM_DIGEST, Kind::Text),
            Descriptor::new(OSSL_SIGNATURE_PARAM_PROPERTIES, Kind::Text),
            Descriptor::new(OSSL_SIGNATURE_PARAM_PAD_MODE, Kind::Text),
            Descriptor::new(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, Kind::Text),
            Descriptor::new(OSSL_SIGNATURE_PARAM_MGF1_DIGEST, Kind::Text),
            Descriptor::new(OSSL_SIGNATURE_PARAM_MGF1_PROPERTIES, Kind::Text),
            Descriptor::END,
        ];
        static EC: [Descriptor; 3] = [
            Descriptor::new(OSSL_SIGNATURE_PARAM_DIGEST, Kind::Text),
            Descriptor::new(OSSL_SIGNATURE_PARAM_PROPERTIES, Kind::Text),
            Descriptor::END,
        ];
        match family {
            Family::Rsa => &RSA,
            Family::Ec => &EC,
        }
    }

    /// What [`Self::answer`] knows.
    pub(crate) fn gettable(family: Family) -> &'static [Descriptor] {
        static RSA: [Descriptor; 6] = [
            Descriptor::new(OSSL_SIGNATURE_PARAM_ALGORITHM_ID, Kind::Octets),
            Descriptor::new(OSSL_SIGNATURE_PARAM_DIGEST, Kind::Text),
            Descriptor::new(OSSL_SIGNATURE_PARAM_PAD_MODE, Kind::Text),
            Descriptor::new(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, Kind::Text),
            Descriptor::new(OSSL_SIGNATURE_PARAM_MGF1_DIGEST, Kind::Text),
            Descriptor::END,
        ];
        static EC: [Descriptor; 3] = [
            Descriptor::new(OSSL_SIGNATURE_PARAM_ALGORITHM_ID, Kind::Octets),
            Descriptor::new(OSSL_SIGNATURE_PARAM_DIGEST, Kind::Text),
            Descriptor::END,
        ];
        match family {
            Family::Rsa => &RSA,
            Family::Ec => &EC,
        }
    }

    /// Takes settings.
    pub(crate) fn set(&mut self, params: &Params<'_>) -> Result<()> {
        if let Some(digest) = params.get(OSSL_SIGNATURE_PARAM_DIGEST) {
            let hash = hash_by_name(digest.text()?)?;
            if self.running.is_some() && self.hash != Some(hash) {
                return Err(Error::Unsupported("another digest after the first data".into()));
            }
            self.hash = Some(hash);
        }
        if self.family == Family::Ec {
            return Ok(());
        }
        if let Some(mode) = params.get(OSSL_SIGNATURE_PARAM_PAD_MODE) {
            self.padding = padding(&mode)?;
        }
        if let Some(salt) = params.get(OSSL_SIGNATURE_PARAM_PSS_SALTLEN) {
            self.salt = salt_setting(&salt)?;
        }
        if let Some(mgf1) = params.get(OSSL_SIGNATURE_PARAM_MGF1_DIGEST) {
            let mgf1 = hash_by_name(mgf1.text()?)?;
            if self.hash.is_some_and(|hash| hash != mgf1) {
                return Err(Error::Unsupported("another hash in MGF1 than for the message".into()));
            }
        }
        Ok(())
    }

    /// Answers questions about the settings.
    pub(crate) fn answer(&self, answers: &mut Answers<'_>) -> Result<()> {
        if let Some(hash) = self.hash {
            answers.answer(OSSL_SIGNATURE_PARAM_DIGEST, Value::Text(&hash_name(hash)))?;
            // Only what asks for it costs its making, and may fail for want of a salt length.
            if answers.asks(OSSL_SIGNATURE_PARAM_ALGORITHM_ID) {
                let identifier = self.algorithm_identifier(hash)?;
                answers.answer(OSSL_SIGNATURE_PARAM_ALGORITHM_ID, Value::Octets(&identifier))?;
            }
        }
        if self.family == Family::Ec {
            return Ok(());
        }
        if let Some(hash) = self.hash {
            answers.answer(OSSL_SIGNATURE_PARAM_MGF1_DIGEST, Value::Text(&hash_name(hash)))?;
        }
        let (name, number) = match self.padding {
            Padding::Pkcs1 => (OSSL_PKEY_RSA_PAD_MODE_PKCSV15, RSA_PKCS1_PADDING),
            Padding::Pss => (OSSL_PKEY_RSA_PAD_MODE_PSS, RSA_PKCS1_PSS_PADDING),
        };
        answers.answer_either(OSSL_SIGNATURE_PARAM_PAD_MODE, name, i64::from(number))?;
        let length;
        let (name, number) = match self.salt {
            Salt::Digest => (OSSL_PKEY_RSA_PSS_SALT_LEN_DIGEST, i64::from(RSA_PSS_SALTLEN_DIGEST)),
            Salt::Max => (OSSL_PKEY_RSA_PSS_SALT_LEN_MAX, i64::from(RSA_PSS_SALTLEN_MAX)),
            Salt::Auto => (OSSL_PKEY_RSA_PSS_SALT_LEN_AUTO, i64::from(RSA_PSS_SALTLEN_AUTO)),
            Salt::Length(bytes) => {
                length = CString::new(bytes.to_string()).unwrap_or_default();
                (length.as_c_str(), bytes as i64)
            }
        };
        answers.answer_either(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, name, number)
    }

    /// The DER `AlgorithmIdentifier` that certificates and requests carry.
    fn algorithm_identifier(&self, hash: HashAlgorithm) -> Result<Vec<u8>> {
        let oids = signature_oids(hash);
        let encoded = match (self.family, self.padding) {
            // RFC 5758, 3.2: no parameters.
            (Family::Ec, _) => AlgorithmIdentifier { oid: oids.ecdsa, parameters: None }.to_der(),
            // RFC 4055, 5: NULL parameters.
            (Family::Rsa, Padding::Pkcs1) => {
                AlgorithmIdentifier { oid: oids.rsa, parameters: Some(AnyRef::NULL.into()) }.to_der()
            }
            (Family::Rsa, Padding::Pss) => pss_identifier(hash, self.salt_length(hash)?),
        };
        encoded.map_err(|error| Error::Malformed { what: "AlgorithmIdentifier", reason: error.to_string() })
    }
}

fn no_key() -> Error {
    Error::Unsupported("this operation before it is started with a key".into())
}

/// The longest salt (RFC 8017, 9.1.1 step 3).
fn max_salt(key: &PublicKey, hash: HashAlgorithm) -> usize {
    (key.bits() - 1).div_ceil(8).saturating_sub(hash.digest_length() + 2)
}

fn padding(mode: &Param<'_>) -> Result<Padding> {
    const PKCS1: i64 = RSA_PKCS1_PADDING as i64;
    const PSS: i64 = RSA_PKCS1_PSS_PADDING as i64;
    let unsupported =
        |what: &dyn std::fmt::Display| Err(Error::Unsupported(format!("RSA signatures with padding {what}")));
    if mode.is_text() {
        let name = mode.text()?;
        return match name {
            "pkcs1" => Ok(Padding::Pkcs1),
            "pss" => Ok(Padding::Pss),
            _ => unsupported(&name),
        };
    }
    match mode.integer()? {
        PKCS1 => Ok(Padding::Pkcs1),
        PSS => Ok(Padding::Pss),
        other => unsupported(&other),
    }
}

fn salt_setting(param: &Param<'_>) -> Result<Salt> {
    const DIGEST: i64 = RSA_PSS_SALTLEN_DIGEST as i64;
    const AUTO: i64 = RSA_PSS_SALTLEN_AUTO as i64;
    const MAX: i64 = RSA_PSS_SALTLEN_MAX as i64;
    /// `RSA_PSS_SALTLEN_AUTO_DIGEST_MAX`, of OpenSSL 3.1 and later.
    const AUTO_DIGEST_MAX: i64 = -4;
    let unsupported = || Error::Unsupported("this PSS salt length".into());
    let number = if param.is_text() {
        match param.text()? {
            "digest" => DIGEST,
            "max" => MAX,
            "auto" => AUTO,
            "auto-digestmax" => AUTO_DIGEST_MAX,
            number => number.parse().map_err(|_| unsupported())?,
        }
    } else {
        param.integer()?
    };
    match number {
        DIGEST => Ok(Salt::Digest),
        MAX => Ok(Salt::Max),
        AUTO | AUTO_DIGEST_MAX => Ok(Salt::Auto),
        length => usize::try_from(length).map(Salt::Length).map_err(|_| unsupported()),
    }
}

/// The object identifiers of a hash's signatures.
struct SignatureOids {
    /// `shaXXXWithRSAEncryption` (RFC 8017, A.2.4).
    rsa: ObjectIdentifier,
    /// `ecdsa-with-SHAxxx` (RFC 5758, 3.2; RFC 3279, 2.2.3).
    ecdsa: ObjectIdentifier,
}

fn signature_oids(hash: HashAlgorithm) -> SignatureOids {
    let (rsa, ecdsa) = match hash {
        HashAlgorithm::Sha1 => ("1.2.840.113549.1.1.5", "1.2.840.10045.4.1"),
        HashAlgorithm::Sha224 => ("1.2.840.113549.1.1.14", "1.2.840.10045.4.3.1"),
        HashAlgorithm::Sha256 => ("1.2.840.113549.1.1.11", "1.2.840.10045.4.3.2"),
        HashAlgorithm::Sha384 => ("1.2.840.113549.1.1.12", "1.2.840.10045.4.3.3"),
        HashAlgorithm::Sha512 => ("1.2.840.113549.1.1.13", "1.2.840.10045.4.3.4"),
        HashAlgorithm::Sha3_224 => ("2.16.840.1.101.3.4.3.13", "2.16.840.1.101.3.4.3.9"),
        HashAlgorithm::Sha3_256 => ("2.16.840.1.101.3.4.3.14", "2.16.840.1.101.3.4.3.10"),
        HashAlgorithm::Sha3_384 => ("2.16.840.1.101.3.4.3.15", "2.16.840.1.101.3.4.3.11"),
        HashAlgorithm::Sha3_512 => ("2.16.840.1.101.3.4.3.16", "2.16.840.1.101.3.4.3.12"),
    };
    SignatureOids { rsa: ObjectIdentifier::new_unwrap(rsa), ecdsa: ObjectIdentifier::new_unwrap(ecdsa) }
}

/// `AlgorithmIdentifier` (RFC 5280, 4.1.1.2).
#[derive(Sequence)]
struct AlgorithmIdentifier {
    oid: ObjectIdentifier,
    #[asn1(optional = "true")]
    parameters: Option<Any>,
}

/// `RSASSA-PSS-params` (RFC 4055, 3.1), with nothing left to its defaults of SHA-1.
#[derive(Sequence)]
struct PssParameters {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    hash: AlgorithmIdentifier,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT")]
    mask: AlgorithmIdentifier,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT")]
    salt_length: u16,
}

fn pss_identifier(hash: HashAlgorithm, salt_length: usize) -> der::Result<Vec<u8>> {
    const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
    const MGF1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.8");
    let hash_identifier = || AlgorithmIdentifier { oid: hash.oid(), parameters: Some(AnyRef::NULL.into()) };
    let parameters = PssParameters {
        hash: hash_identifier(),
        mask: AlgorithmIdentifier { oid: MGF1, parameters: Some(Any::encode_from(&hash_identifier())?) },
        salt_length: u16::try_from(salt_length).unwrap_or(u16::MAX),
    };
    AlgorithmIdentifier { oid: RSASSA_PSS, parameters: Some(Any::encode_from(&parameters)?) }.to_der()
}
