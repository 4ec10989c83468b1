//! A key as OpenSSL's key management sees it: a private key in the TPM, or a public key on its own.

use std::ffi::{CStr, CString};
use std::sync::Arc;

use keyrivet_core::algorithm::{Curve, HashAlgorithm};
use keyrivet_core::key::Key;
use keyrivet_core::public_area::{FixedScheme, PublicArea};
use keyrivet_core::public_key::{PublicKey, ecdsa_signature_der_max_length};
use keyrivet_core::{Error, Result};

use crate::ffi::core_abi::*;
use crate::ffi::params::{Answers, Descriptor, Kind, ParamList, Params, Value};
use crate::provider::Provider;
use crate::tls::Ephemeral;

/// The digest taken where the application names none.
pub(crate) const DEFAULT_DIGEST: &CStr = c"SHA256";

/// The only mask generation function there is.
const MGF1: &str = "MGF1";

/// A type of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// RSA.
    Rsa,
    /// RSA for PSS signatures only.
    RsaPss,
    /// Elliptic curves.
    Ec,
}

impl Family {
    /// OpenSSL's name for it.
    pub(crate) fn name(self) -> &'static CStr {
        match self {
            Self::Rsa => c"RSA",
            Self::RsaPss => c"RSA-PSS",
            Self::Ec => c"EC",
        }
    }

    /// The type of a public key.
    pub(crate) fn of(public_key: &PublicKey) -> Self {
        match public_key {
            PublicKey::Rsa { .. } => Self::Rsa,
            PublicKey::Ec { .. } => Self::Ec,
        }
    }

    /// The type of a private key.
    pub(crate) fn of_area(area: &PublicArea) -> Result<Self> {
        Ok(match area.scheme {
            Some(FixedScheme::RsaPss(_)) => Self::RsaPss,
            _ => Self::of(area.public_key()?),
        })
    }

    /// The type of keys whose signature algorithm signs with these too.
    pub(crate) fn signs_as(self) -> Self {
        match self {
            Self::Rsa | Self::RsaPss => Self::Rsa,
            Self::Ec => Self::Ec,
        }
    }

    /// The name of an operation's implementation for these keys, where it is not that of the keys.
    pub(crate) fn operation_name(self, operation: u32) -> &'static CStr {
        match (self, operation) {
            (Self::Ec, OSSL_OP_SIGNATURE) => c"ECDSA",
            (Self::Ec, OSSL_OP_KEYEXCH) => c"ECDH",
            (Self::RsaPss, OSSL_OP_SIGNATURE) => c"RSA",
            _ => self.name(),
        }
    }

    /// What [`ProviderKey::answer`] knows.
    pub(crate) fn gettable(self) -> &'static [Descriptor] {
        static RSA: [Descriptor; 8] = [
            Descriptor::new(OSSL_PKEY_PARAM_BITS, Kind::Integer),
            Descriptor::new(OSSL_PKEY_PARAM_SECURITY_BITS, Kind::Integer),
            Descriptor::new(OSSL_PKEY_PARAM_MAX_SIZE, Kind::Integer),
            Descriptor::new(OSSL_PKEY_PARAM_DEFAULT_DIGEST, Kind::Text),
            Descriptor::new(OSSL_PKEY_PARAM_MANDATORY_DIGEST, Kind::Text),
            Descriptor::new(OSSL_PKEY_PARAM_RSA_N, Kind::Unsigned),
            Descriptor::new(OSSL_PKEY_PARAM_RSA_E, Kind::Unsigned),
            Descriptor::END,
        ];
        static EC: [Descriptor; 15] = [
            Descriptor::new(OSSL_PKEY_PARAM_BITS, Kind::Integer),
            Descriptor::new(OSSL_PKEY_PARAM_SECURITY_BITS, Kind::Integer),
            Descriptor::new(OSSL_PKEY_PARAM_MAX_SIZE, Kind::Integer),
            Descriptor::new(OSSL_PKEY_PARAM_DEFAULT_DIGEST, Kind::Text),
            Descriptor::new(OSSL_PKEY_PARAM_MANDATORY_DIGEST, Kind::Text),
            Descriptor::new(OSSL_PKEY_PARAM_GROUP_NAME, Kind::Text),
            Descriptor::new(OSSL_PKEY_PARAM_EC_FIELD_TYPE, Kind::Text),
            Descriptor::new(OSSL_PKEY_PARAM_EC_ENCODING, Kind::Text),
            Descriptor::new(OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT, Kind::Text),
            Descriptor::new(OSSL_PKEY_PARAM_EC_DECODED_FROM_EXPLICIT_PARAMS, Kind::Integer),
            Descriptor::new(OSSL_PKEY_PARAM_PUB_KEY, Kind::Octets),
            Descriptor::new(OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, Kind::Octets),
            Descriptor::new(OSSL_PKEY_PARAM_EC_PUB_X, Kind::Unsigned),
            Descriptor::new(OSSL_PKEY_PARAM_EC_PUB_Y, Kind::Unsigned),
            Descriptor::END,
        ];
        match self {
            Self::Rsa | Self::RsaPss => &RSA,
            Self::Ec => &EC,
        }
    }

    /// What [`ProviderKey::import`] takes and [`ProviderKey::export`] gives: the public key.
    pub(crate) fn exchanged(self) -> &'static [Descriptor] {
        static RSA: [Descriptor; 3] = [
            Descriptor::new(OSSL_PKEY_PARAM_RSA_N, Kind::Unsigned),
            Descriptor::new(OSSL_PKEY_PARAM_RSA_E, Kind::Unsigned),
            Descriptor::END,
        ];
        static RSA_PSS: [Descriptor; 7] = [
            Descriptor::new(OSSL_PKEY_PARAM_RSA_N, Kind::Unsigned),
            Descriptor::new(OSSL_PKEY_PARAM_RSA_E, Kind::Unsigned),
            Descriptor::new(OSSL_PKEY_PARAM_RSA_DIGEST, Kind::Text),
            Descriptor::new(OSSL_PKEY_PARAM_RSA_MASKGENFUNC, Kind::Text),
            Descriptor::new(OSSL_PKEY_PARAM_RSA_MGF1_DIGEST, Kind::Text),
            Descriptor::new(OSSL_PKEY_PARAM_RSA_PSS_SALTLEN, Kind::Integer),
            Descriptor::END,
        ];
        static EC: [Descriptor; 3] = [
            Descriptor::new(OSSL_PKEY_PARAM_GROUP_NAME, Kind::Text),
            Descriptor::new(OSSL_PKEY_PARAM_PUB_KEY, Kind::Octets),
            Descriptor::END,
        ];
        match self {
            Self::Rsa => &RSA,
            Self::RsaPss => &RSA_PSS,
            Self::Ec => &EC,
        }
    }
}

/// What an RSA-PSS key is limited to (RFC 4055, 3.3); MGF1 has the same hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PssLimits {
    /// The one hash.
    pub(crate) hash: HashAlgorithm,
    /// The shortest salt, in bytes.
    pub(crate) salt_length: usize,
}

/// What a key object holds.
#[derive(Clone)]
pub(crate) enum Material {
    /// Nothing yet.
    Empty,
    /// A curve without a point (OpenSSL's "domain parameters").
    Curve(Curve),
    /// A public key.
    Public(PublicKey),
    /// A private key in the TPM, with its public key.
    Private(Key),
    /// A key for one TLS handshake, in software.
    Ephemeral(Ephemeral),
}

/// A key object.
#[derive(Clone)]
pub(crate) struct ProviderKey {
    provider: Arc<Provider>,
    family: Family,
    material: Material,
    /// Of a public RSA-PSS key; those of a private key are in the TPM's public area.
    limits: Option<PssLimits>,
    /// It belongs to a TLS handshake, and so do the keys that are made after its model.
    ephemeral: bool,
}

impl ProviderKey {
    /// A key of this type.
    pub(crate) fn new(provider: Arc<Provider>, family: Family, material: Material) -> Self {
        let ephemeral = matches!(material, Material::Ephemeral(_));
        Self { provider, family, material, limits: None, ephemeral }
    }

    /// A curve for the keys of a TLS handshake.
    pub(crate) fn ephemeral_curve(provider: Arc<Provider>, curve: Curve) -> Self {
        Self { ephemeral: true, ..Self::new(provider, Family::Ec, Material::Curve(curve)) }
    }

    /// A key in the TPM.
    pub(crate) fn private(provider: Arc<Provider>, key: Key) -> Self {
        let family = match key.fixed_scheme() {
            Some(FixedScheme::RsaPss(_)) => Family::RsaPss,
            _ => Family::of(key.public_key()),
        };
        Self::new(provider, family, Material::Private(key))
    }

    /// A public key.
    pub(crate) fn public(provider: Arc<Provider>, public_key: PublicKey) -> Self {
        let family = Family::of(&public_key);
        Self::new(provider, family, Material::Public(public_key))
    }

    /// The provider it belongs to.
    pub(crate) fn provider(&self) -> &Arc<Provider> {
        &self.provider
    }

    /// Its type.
    pub(crate) fn family(&self) -> Family {
        self.family
    }

    /// Whether it belongs to a TLS handshake.
    pub(crate) fn is_ephemeral(&self) -> bool {
        self.ephemeral
    }

    /// What it holds.
    pub(crate) fn material(&self) -> &Material {
        &self.material
    }

    /// Its public key.
    pub(crate) fn public_key(&self) -> Option<&PublicKey> {
        match &self.material {
            Material::Empty | Material::Curve(_) => None,
            Material::Public(public_key) => Some(public_key),
            Material::Private(key) => Some(key.public_key()),
            Material::Ephemeral(key) => Some(key.public_key()),
        }
    }

    /// Its private key in the TPM.
    pub(crate) fn private_key(&self) -> Option<&Key> {
        match &self.material {
            Material::Private(key) => Some(key),
            Material::Empty | Material::Curve(_) | Material::Public(_) | Material::Ephemeral(_) => None,
        }
    }

    /// What an RSA-PSS key is limited to, if it is.
    pub(crate) fn pss_limits(&self) -> Option<PssLimits> {
        match self.private_key().and_then(Key::fixed_scheme) {
            // A TPM's salts are as long as the digest.
            Some(FixedScheme::RsaPss(hash)) => Some(PssLimits { hash, salt_length: hash.digest_length() }),
            _ => self.limits,
        }
    }

    /// The only hash that the key signs with, if it was made for one.
    pub(crate) fn mandatory_hash(&self) -> Option<HashAlgorithm> {
        match self.private_key().and_then(Key::fixed_scheme) {
            Some(FixedScheme::RsaPkcs1(hash)) => Some(hash),
            // The core has the curve's own hash serve for every digest.
            Some(FixedScheme::Ecdsa(hash)) => {
                Some(hash).filter(|hash| self.curve().map(Curve::ecdsa_hash) != Some(*hash))
            }
            _ => self.pss_limits().map(|limits| limits.hash),
        }
    }

    /// Its curve.
    pub(crate) fn curve(&self) -> Option<Curve> {
        match (&self.material, self.public_key()) {
            (Material::Curve(curve), _) | (_, Some(PublicKey::Ec { curve, .. })) => Some(*curve),
            _ => None,
        }
    }

    /// Whether it has its private part: in the TPM, or that of a handshake's key.
    fn is_private(&self) -> bool {
        matches!(self.material, Material::Private(_) | Material::Ephemeral(_))
    }

    /// Whether all the parts of a selection are there.
    pub(crate) fn has(&self, selection: u32) -> bool {
        let lacks = |part, there: bool| selection & part != 0 && !there;
        let parameters = self.family != Family::Ec || self.curve().is_some();
        !(lacks(OSSL_KEYMGMT_SELECT_PRIVATE_KEY, self.is_private())
            || lacks(OSSL_KEYMGMT_SELECT_PUBLIC_KEY, self.public_key().is_some())
            || lacks(OSSL_KEYMGMT_SELECT_DOMAIN_PARAMETERS, parameters))
    }

    /// Whether the parts of a selection are equal. Of private keys, their public keys are compared.
    pub(crate) fn matches(&self, other: &Self, selection: u32) -> bool {
        if self.family != other.family {
            return false;
        }
        let keys = selection & OSSL_KEYMGMT_SELECT_KEYPAIR == 0
            || self.public_key().is_some() && self.public_key() == other.public_key();
        let parameters = selection & OSSL_KEYMGMT_SELECT_DOMAIN_PARAMETERS == 0 || self.curve() == other.curve();
        keys && parameters
    }

    /// A copy of the parts of a selection.
    pub(crate) fn duplicate(&self, selection: u32) -> Self {
        let material = match self.public_key() {
            _ if self.is_private() && selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY != 0 => self.material.clone(),
            Some(public_key) if selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY != 0 => Material::Public(public_key.clone()),
            _ if selection & OSSL_KEYMGMT_SELECT_DOMAIN_PARAMETERS != 0 => {
                self.curve().map_or(Material::Empty, Material::Curve)
            }
            _ => Material::Empty,
        };
        Self { material, provider: Arc::clone(&self.provider), limits: self.pss_limits(), ..*self }
    }

    /// Takes a public key, or a curve. Private keys made elsewhere stay where they are: says no to them. Refuses public
    /// keys that nothing can be done with here, so that OpenSSL leaves them to other providers.
    pub(crate) fn import(&mut self, selection: u32, params: &Params<'_>) -> Result<bool> {
        self.material = match self.family {
            Family::Rsa | Family::RsaPss => {
                let (Some(modulus), Some(exponent), None) = (
                    params.get(OSSL_PKEY_PARAM_RSA_N),
                    params.get(OSSL_PKEY_PARAM_RSA_E),
                    params.get(OSSL_PKEY_PARAM_RSA_D),
                ) else {
                    return Ok(false);
                };
                if self.family == Family::RsaPss {
                    self.limits = imported_limits(params)?;
                }
                let key = PublicKey::rsa(&modulus.big_number()?, &exponent.big_number()?)?;
                key.check()?;
                Material::Public(key)
            }
            Family::Ec => {
                let (Some(group), None) =
                    (params.get(OSSL_PKEY_PARAM_GROUP_NAME), params.get(OSSL_PKEY_PARAM_PRIV_KEY))
                else {
                    return Ok(false);
                };
                let Some(curve) = Curve::from_name(group.text()?) else { return Ok(false) };
                match params.get(OSSL_PKEY_PARAM_PUB_KEY) {
                    Some(point) => Material::Public(PublicKey::ec(curve, point.octets()?)?),
                    None if selection & OSSL_KEYMGMT_SELECT_KEYPAIR == 0 => Material::Curve(curve),
                    None => return Ok(false),
                }
            }
        };
        Ok(true)
    }

    /// The key for another provider. `None` for everything that takes in a private key, also that of a handshake (see
    /// `tls`).
    ///
    /// That is no error: OpenSSL offers the whole key to the first provider of an operation before it comes to ours.
    pub(crate) fn export(&self, selection: u32) -> Option<ParamList> {
        if self.is_private() && selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY != 0 {
            return None;
        }
        let list = ParamList::default();
        match (self.public_key(), self.curve()) {
            (Some(PublicKey::Rsa { modulus, exponent }), _) => {
                let list = list.big_number(OSSL_PKEY_PARAM_RSA_N, modulus).big_number(OSSL_PKEY_PARAM_RSA_E, exponent);
                Some(match self.pss_limits().filter(|_| self.family == Family::RsaPss) {
                    Some(PssLimits { hash, salt_length }) => list
                        .text(OSSL_PKEY_PARAM_RSA_DIGEST, hash.name())
                        .text(OSSL_PKEY_PARAM_RSA_MASKGENFUNC, MGF1)
                        .text(OSSL_PKEY_PARAM_RSA_MGF1_DIGEST, hash.name())
                        .number(OSSL_PKEY_PARAM_RSA_PSS_SALTLEN, salt_length as i32),
                    None => list,
                })
            }
            (Some(PublicKey::Ec { curve, point }), _) => {
                let list = list.text(OSSL_PKEY_PARAM_GROUP_NAME, curve.name());
                let with_point = selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY != 0;
                Some(if with_point { list.octets(OSSL_PKEY_PARAM_PUB_KEY, point) } else { list })
            }
            (None, Some(curve)) => Some(list.text(OSSL_PKEY_PARAM_GROUP_NAME, curve.name())),
            (None, None) => None,
        }
    }

    /// Gives a key that has only a curve its point.
    pub(crate) fn set_point(&mut self, params: &Params<'_>) -> Result<()> {
        let Some(point) = params.get(OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY) else { return Ok(()) };
        match self.material {
            Material::Curve(curve) => self.material = Material::Public(PublicKey::ec(curve, point.octets()?)?),
            Material::Empty | Material::Public(_) | Material::Private(_) | Material::Ephemeral(_) => {
                return Err(Error::Unsupported("another public key for this key".into()));
            }
        }
        Ok(())
    }

    /// Answers questions about the key.
    pub(crate) fn answer(&self, answers: &mut Answers<'_>) -> Result<()> {
        if let Some(curve) = self.curve() {
            answers.answer(OSSL_PKEY_PARAM_GROUP_NAME, Value::Text(group_name(curve)))?;
            answers.answer(OSSL_PKEY_PARAM_EC_FIELD_TYPE, Value::Text(c"prime-field"))?;
            answers.answer(OSSL_PKEY_PARAM_EC_ENCODING, Value::Text(c"named_curve"))?;
            answers.answer(OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT, Value::Text(c"uncompressed"))?;
            // X509_verify_cert asks this of each key on a curve.
            answers.answer(OSSL_PKEY_PARAM_EC_DECODED_FROM_EXPLICIT_PARAMS, Value::Number(0))?;
            answers.answer(OSSL_PKEY_PARAM_BITS, Value::Number(curve.bits() as u64))?;
            answers.answer(OSSL_PKEY_PARAM_SECURITY_BITS, Value::Number(curve.security_bits() as u64))?;
            let size = ecdsa_signature_der_max_length(curve);
            answers.answer(OSSL_PKEY_PARAM_MAX_SIZE, Value::Number(size as u64))?;
        }
        match self.mandatory_hash() {
            Some(hash) => answers.answer(OSSL_PKEY_PARAM_MANDATORY_DIGEST, Value::Text(&hash_name(hash)))?,
            None => answers.answer(OSSL_PKEY_PARAM_DEFAULT_DIGEST, Value::Text(DEFAULT_DIGEST))?,
        }
        match self.public_key() {
            Some(public_key @ PublicKey::Rsa { modulus, exponent }) => {
                answers.answer(OSSL_PKEY_PARAM_BITS, Value::Number(public_key.bits() as u64))?;
                answers.answer(OSSL_PKEY_PARAM_SECURITY_BITS, Value::Number(public_key.security_bits() as u64))?;
                answers.answer(OSSL_PKEY_PARAM_MAX_SIZE, Value::Number(public_key.signature_length() as u64))?;
                answers.answer(OSSL_PKEY_PARAM_RSA_N, Value::BigNumber(modulus))?;
                answers.answer(OSSL_PKEY_PARAM_RSA_E, Value::BigNumber(exponent))
            }
            Some(PublicKey::Ec { point, .. }) => {
                // SEC 1, 2.3.3: 04, x, y.
                let coordinates = point.get(1..).unwrap_or_default();
                let (x, y) = coordinates.split_at(coordinates.len() / 2);
                answers.answer(OSSL_PKEY_PARAM_PUB_KEY, Value::Octets(point))?;
                answers.answer(OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, Value::Octets(point))?;
                answers.answer(OSSL_PKEY_PARAM_EC_PUB_X, Value::BigNumber(x))?;
                answers.answer(OSSL_PKEY_PARAM_EC_PUB_Y, Value::BigNumber(y))
            }
            None => Ok(()),
        }
    }
}

/// The limits of a public RSA-PSS key from elsewhere.
fn imported_limits(params: &Params<'_>) -> Result<Option<PssLimits>> {
    let Some(salt_length) = params.get(OSSL_PKEY_PARAM_RSA_PSS_SALTLEN) else { return Ok(None) };
    let salt_length =
        usize::try_from(salt_length.integer()?).map_err(|_| Error::DataInvalid("a salt length".into()))?;
    // What is left out is SHA-1 (RFC 4055, 3.1).
    let hash = |key| params.get(key).map_or(Ok(HashAlgorithm::Sha1), |name| hash_by_name(name.text()?));
    let hashes = (hash(OSSL_PKEY_PARAM_RSA_DIGEST)?, hash(OSSL_PKEY_PARAM_RSA_MGF1_DIGEST)?);
    match hashes {
        (hash, mgf_hash) if hash == mgf_hash => Ok(Some(PssLimits { hash, salt_length })),
        _ => Err(Error::Unsupported("RSA-PSS keys with another hash in MGF1".into())),
    }
}

/// The hash of this name. Errors: [`Error::Unsupported`].
pub(crate) fn hash_by_name(name: &str) -> Result<HashAlgorithm> {
    HashAlgorithm::from_name(name).ok_or_else(|| Error::Unsupported(format!("the digest {name}")))
}

/// The name that OpenSSL knows a hash by, as a C string.
pub(crate) fn hash_name(hash: HashAlgorithm) -> CString {
    CString::new(hash.name()).unwrap_or_default()
}

/// OpenSSL's name of a curve, as a C string.
fn group_name(curve: Curve) -> &'static CStr {
    match curve {
        Curve::P256 => c"prime256v1",
        Curve::P384 => c"secp384r1",
        Curve::P521 => c"secp521r1",
    }
}
