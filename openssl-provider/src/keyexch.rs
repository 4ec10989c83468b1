//! ECDH, in the TPM, and what becomes of the shared secret.

use std::ffi::CStr;
use std::sync::Arc;

use keyrivet_core::algorithm::HashAlgorithm;
use keyrivet_core::key::Key;
use keyrivet_core::public_key::PublicKey;
use keyrivet_core::{Error, Result, kdf};
use zeroize::Zeroizing;

use crate::ffi::core_abi::*;
use crate::ffi::params::{Answers, Descriptor, Kind, Params, Value};
use crate::key::{Family, Material, ProviderKey, hash_by_name, hash_name};
use crate::provider::Provider;

/// More than anybody derives, so that a length gone wrong does not fill the memory.
const LONGEST: usize = 1 << 16;

/// A key agreement: its key, the peer's, and its settings.
#[derive(Clone)]
pub(crate) struct KeyExchange {
    provider: Arc<Provider>,
    key: Option<ProviderKey>,
    /// The peer's point.
    peer: Option<Vec<u8>>,
    /// 0, 1, or -1 for what the key says. The cofactor of our curves is 1, so nothing depends on it.
    cofactor: i64,
    /// Derive by X9.63, rather than give the bare secret.
    x963: bool,
    hash: Option<HashAlgorithm>,
    length: usize,
    shared_info: Vec<u8>,
}

impl KeyExchange {
    /// One with OpenSSL's defaults and without keys.
    pub(crate) fn new(provider: Arc<Provider>) -> Self {
        Self {
            provider,
            key: None,
            peer: None,
            cofactor: -1,
            x963: false,
            hash: None,
            length: 0,
            shared_info: Vec::new(),
        }
    }

    /// The provider it belongs to.
    pub(crate) fn provider(&self) -> &Arc<Provider> {
        &self.provider
    }

    /// Starts with a key; without one, again with the one of before.
    pub(crate) fn start(&mut self, key: Option<&ProviderKey>, params: &Params<'_>) -> Result<()> {
        let key = key.or(self.key.as_ref()).ok_or_else(no_key)?.clone();
        let usable = match key.material() {
            Material::Private(key) => Key::may_decrypt(key),
            Material::Ephemeral(_) => true,
            Material::Empty | Material::Curve(_) | Material::Public(_) => false,
        };
        if key.family() != Family::Ec || !usable {
            return Err(Error::Unsupported("key agreement with a key that is not made for it".into()));
        }
        self.key = Some(key);
        self.peer = None;
        self.set(params)
    }

    /// Takes the peer's public key.
    pub(crate) fn set_peer(&mut self, peer: Option<&ProviderKey>) -> Result<()> {
        let own = self.key.as_ref().ok_or_else(no_key)?;
        match peer.and_then(ProviderKey::public_key) {
            Some(PublicKey::Ec { curve, point }) if own.curve() == Some(*curve) => {
                self.peer = Some(point.clone());
                Ok(())
            }
            _ => Err(Error::Unsupported("key agreement with a key on another curve".into())),
        }
    }

    /// Length of what is derived, in bytes.
    pub(crate) fn length(&self) -> Result<usize> {
        let curve = self.key.as_ref().and_then(ProviderKey::curve).ok_or_else(no_key)?;
        Ok(if self.x963 { self.length } else { curve.coordinate_length() })
    }

    /// Derives.
    pub(crate) fn derive(&self) -> Result<Zeroizing<Vec<u8>>> {
        let peer = self.peer.as_ref().ok_or_else(no_key)?;
        let secret = match self.key.as_ref().ok_or_else(no_key)?.material() {
            Material::Private(key) => key.derive(peer)?,
            Material::Ephemeral(key) => key.derive(peer)?,
            Material::Empty | Material::Curve(_) | Material::Public(_) => return Err(no_key()),
        };
        if !self.x963 {
            return Ok(secret);
        }
        let hash = self.hash.ok_or_else(|| Error::Unsupported("X9.63 without a digest: set kdf-digest".into()))?;
        Ok(kdf::x963(hash, &secret, &self.shared_info, self.length))
    }

    /// What [`Self::set`] takes.
    pub(crate) fn settable() -> &'static [Descriptor] {
        static SETTABLE: [Descriptor; 7] = [
            Descriptor::new(OSSL_EXCHANGE_PARAM_EC_ECDH_COFACTOR_MODE, Kind::Integer),
            Descriptor::new(OSSL_EXCHANGE_PARAM_KDF_TYPE, Kind::Text),
            Descriptor::new(OSSL_EXCHANGE_PARAM_KDF_DIGEST, Kind::Text),
            Descriptor::new(OSSL_EXCHANGE_PARAM_KDF_DIGEST_PROPS, Kind::Text),
            Descriptor::new(OSSL_EXCHANGE_PARAM_KDF_OUTLEN, Kind::Unsigned),
            Descriptor::new(OSSL_EXCHANGE_PARAM_KDF_UKM, Kind::Octets),
            Descriptor::END,
        ];
        &SETTABLE
    }

    /// What [`Self::answer`] knows.
    pub(crate) fn gettable() -> &'static [Descriptor] {
        static GETTABLE: [Descriptor; 6] = [
            Descriptor::new(OSSL_EXCHANGE_PARAM_EC_ECDH_COFACTOR_MODE, Kind::Integer),
            Descriptor::new(OSSL_EXCHANGE_PARAM_KDF_TYPE, Kind::Text),
            Descriptor::new(OSSL_EXCHANGE_PARAM_KDF_DIGEST, Kind::Text),
            Descriptor::new(OSSL_EXCHANGE_PARAM_KDF_OUTLEN, Kind::Unsigned),
            Descriptor::new(OSSL_EXCHANGE_PARAM_KDF_UKM, Kind::OctetsPointer),
            Descriptor::END,
        ];
        &GETTABLE
    }

    /// Takes settings.
    pub(crate) fn set(&mut self, params: &Params<'_>) -> Result<()> {
        if let Some(mode) = params.get(OSSL_EXCHANGE_PARAM_EC_ECDH_COFACTOR_MODE) {
            self.cofactor = match mode.integer()? {
                mode @ -1..=1 => mode,
                other => return Err(Error::Unsupported(format!("the ECDH cofactor mode {other}"))),
            };
        }
        if let Some(kind) = params.get(OSSL_EXCHANGE_PARAM_KDF_TYPE) {
            self.x963 = match kind.text()? {
                "" => false,
                name if name.as_bytes() == OSSL_KDF_NAME_X963KDF.to_bytes() => true,
                other => return Err(Error::Unsupported(format!("the key derivation {other} after ECDH"))),
            };
        }
        if let Some(hash) = params.get(OSSL_EXCHANGE_PARAM_KDF_DIGEST) {
            self.hash = Some(hash_by_name(hash.text()?)?);
        }
        if let Some(length) = params.get(OSSL_EXCHANGE_PARAM_KDF_OUTLEN) {
            let length = usize::try_from(length.integer()?).ok().filter(|length| *length <= LONGEST);
            self.length = length.ok_or_else(|| Error::DataInvalid("so many bytes are not derived".into()))?;
        }
        if let Some(info) = params.get(OSSL_EXCHANGE_PARAM_KDF_UKM) {
            self.shared_info = info.octets()?.to_vec();
        }
        Ok(())
    }

    /// Answers questions about the settings.
    pub(crate) fn answer(&self, answers: &mut Answers<'_>) -> Result<()> {
        answers.answer(OSSL_EXCHANGE_PARAM_EC_ECDH_COFACTOR_MODE, Value::Signed(self.cofactor))?;
        let kind: &CStr = if self.x963 { OSSL_KDF_NAME_X963KDF } else { c"" };
        answers.answer(OSSL_EXCHANGE_PARAM_KDF_TYPE, Value::Text(kind))?;
        let hash = self.hash.map(hash_name).unwrap_or_default();
        answers.answer(OSSL_EXCHANGE_PARAM_KDF_DIGEST, Value::Text(&hash))?;
        answers.answer(OSSL_EXCHANGE_PARAM_KDF_OUTLEN, Value::Number(self.length as u64))?;
        answers.answer(OSSL_EXCHANGE_PARAM_KDF_UKM, Value::Held(&self.shared_info))
    }
}

fn no_key() -> Error {
    Error::Unsupported("key agreement before both keys are there".into())
}
