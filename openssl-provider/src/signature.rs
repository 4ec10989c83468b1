//! A signature or its verification under way.

use std::sync::Arc;

use keyrivet_core::algorithm::{HashAlgorithm, SignatureScheme};
use keyrivet_core::key::Key;
use keyrivet_core::public_key::{
    PublicKey, ecdsa_signature_der_max_length, ecdsa_signature_from_der, ecdsa_signature_to_der, pkcs1_signature_data,
};
use keyrivet_core::sign::{SignOperation, SignatureData};
use keyrivet_core::{Error, Result};

use crate::algorithm_identifier;
use crate::ffi::core_abi::*;
use crate::ffi::later_abi::OSSL_SIGNATURE_PARAM_SIGNATURE;
use crate::ffi::params::{Answers, Descriptor, Kind, Params, Value};
use crate::key::{Family, Material, ProviderKey, PssLimits, hash_by_name, hash_name};
use crate::provider::Provider;
use crate::rsa_settings::{Padding, RsaSettings, Salt};

/// What is done with the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Sign, in the TPM.
    Sign,
    /// Verify, in software.
    Verify,
    /// Show what was signed, in software.
    Recover,
}

/// An algorithm of signatures: a type of keys, and the hash where the algorithm's name has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SignatureAlgorithm {
    pub(crate) family: Family,
    pub(crate) hash: Option<HashAlgorithm>,
}

/// A signature or verification: its key, its settings, and the data so far.
#[derive(Clone)]
pub(crate) struct Signature {
    provider: Arc<Provider>,
    algorithm: SignatureAlgorithm,
    key: Option<(Purpose, ProviderKey)>,
    hash: Option<HashAlgorithm>,
    rsa: RsaSettings,
    /// Data that comes at once is the message, not its digest.
    takes_messages: bool,
    /// The message's data so far.
    running: Option<SignatureData>,
    /// What a message's verification is about, where that is told beforehand.
    expected: Option<Vec<u8>>,
}

impl Signature {
    /// One with the defaults and without a key.
    pub(crate) fn new(provider: Arc<Provider>, algorithm: SignatureAlgorithm) -> Self {
        Self {
            provider,
            algorithm,
            key: None,
            hash: algorithm.hash,
            rsa: RsaSettings::DEFAULT,
            takes_messages: false,
            running: None,
            expected: None,
        }
    }

    /// The provider it belongs to.
    pub(crate) fn provider(&self) -> &Arc<Provider> {
        &self.provider
    }

    /// Starts on a digest that the application makes. Without a key: again with the one of before.
    pub(crate) fn start(&mut self, purpose: Purpose, key: Option<&ProviderKey>, params: &Params<'_>) -> Result<()> {
        (self.running, self.expected, self.takes_messages) = (None, None, false);
        let key = match (key, &self.key) {
            (Some(key), _) => key.clone(),
            (None, Some((_, key))) => key.clone(),
            (None, None) => return Err(Error::Unsupported("a signature without a key".into())),
        };
        let usable = match purpose {
            Purpose::Sign => key.private_key().is_some(),
            Purpose::Verify | Purpose::Recover => key.public_key().is_some(),
        };
        if purpose == Purpose::Sign && matches!(key.material(), Material::Ephemeral(_)) {
            return Err(Error::Unsupported(
                "signing with a key that was made for a handshake: one that signs is made with a parent or a uri"
                    .into(),
            ));
        }
        if key.family().signs_as() != self.algorithm.family || !usable {
            return Err(Error::Unsupported(
                "this operation with this key: its private or public part is needed".into(),
            ));
        }
        if purpose == Purpose::Sign && !key.private_key().is_some_and(Key::may_sign) {
            return Err(Error::Unsupported("signing with a key that the TPM does not let sign".into()));
        }
        self.rsa = RsaSettings::DEFAULT;
        if key.family() == Family::RsaPss {
            self.rsa.padding = Padding::Pss;
            self.hash = key.pss_limits().map(|limits| limits.hash).or(self.hash);
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
        let digest = digest.filter(|name| !name.is_empty()).map(hash_by_name).transpose()?;
        // Before the key, whose limits may say otherwise.
        self.hash = digest.or(self.hash);
        self.start(purpose, key, params)?;
        self.takes_messages = true;
        let hash = *self.hash.get_or_insert(HashAlgorithm::Sha256);
        // Now, so that libssl, which asks by this, can agree on another.
        self.refuse_old_hash(Some(hash))?;
        match digest {
            Some(digest) if digest != hash => Err(self.wrong_hash(digest)),
            _ => self.check_limits(),
        }
    }

    /// Adds to the message.
    pub(crate) fn update(&mut self, data: &[u8]) -> Result<()> {
        if self.running.is_none() {
            let hash = self.hash.unwrap_or(HashAlgorithm::Sha256);
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

    /// Signs a digest that the application has made, or a message.
    pub(crate) fn sign(&mut self, data: &[u8]) -> Result<Vec<u8>> {
        if self.takes_messages {
            self.update(data)?;
            return self.finish();
        }
        self.signed(self.prepared(data)?)
    }

    /// Verifies the message.
    pub(crate) fn finish_verification(&mut self, signature: &[u8]) -> Result<()> {
        self.update(b"")?;
        let data = self.running.take().ok_or_else(no_key)?;
        self.verified(data, signature)
    }

    /// Verifies the message by the signature that was told beforehand.
    pub(crate) fn finish_expected(&mut self) -> Result<()> {
        let expected = self.expected.clone();
        self.finish_verification(&expected.ok_or_else(|| Error::Unsupported("no signature to verify".into()))?)
    }

    /// Verifies a digest that the application has made, or a message.
    pub(crate) fn verify(&mut self, signature: &[u8], data: &[u8]) -> Result<()> {
        if self.takes_messages {
            self.update(data)?;
            return self.finish_verification(signature);
        }
        self.verified(self.prepared(data)?, signature)
    }

    /// What was signed: the digest if the hash is known, else everything behind the padding.
    pub(crate) fn recover(&self, signature: &[u8]) -> Result<Vec<u8>> {
        let block = self.public_key()?.recover(signature)?;
        match (self.rsa.padding, self.hash) {
            (Padding::None, _) => Ok(block),
            (Padding::Pss, _) => Err(Error::Unsupported("recovery from a PSS signature".into())),
            (Padding::Pkcs1, None) => pkcs1_signature_data(&block).map(<[u8]>::to_vec),
            (Padding::Pkcs1, Some(hash)) => {
                let found = HashAlgorithm::from_digest_info(pkcs1_signature_data(&block)?);
                let digest = found.filter(|(known, _)| *known == hash).map(|(_, digest)| digest.to_vec());
                digest.ok_or(Error::SignatureInvalid)
            }
        }
    }

    /// The longest signature, in bytes; or what is recovered from it.
    pub(crate) fn max_length(&self) -> Result<usize> {
        Ok(match self.public_key()? {
            key @ PublicKey::Rsa { .. } => key.signature_length(),
            PublicKey::Ec { curve, .. } => ecdsa_signature_der_max_length(*curve),
        })
    }

    fn public_key(&self) -> Result<&PublicKey> {
        self.key.as_ref().and_then(|(_, key)| key.public_key()).ok_or_else(no_key)
    }

    fn signs(&self) -> bool {
        matches!(self.key, Some((Purpose::Sign, _)))
    }

    fn signed(&self, data: SignatureData) -> Result<Vec<u8>> {
        let key = match &self.key {
            Some((Purpose::Sign, key)) => key.private_key().ok_or_else(no_key)?,
            _ => return Err(no_key()),
        };
        let signature = SignOperation::new(key.clone(), data).finish()?;
        match self.public_key()? {
            PublicKey::Rsa { .. } => Ok(signature),
            PublicKey::Ec { .. } => ecdsa_signature_to_der(&signature),
        }
    }

    fn verified(&self, data: SignatureData, signature: &[u8]) -> Result<()> {
        let key = self.public_key()?;
        if let PublicKey::Ec { curve, .. } = key {
            return data.verify(key, &ecdsa_signature_from_der(*curve, signature)?);
        }
        let (scheme, digest) = data.finish()?;
        match scheme {
            SignatureScheme::RsaPss { hash, .. } if self.rsa.salt == Salt::Auto => {
                let least = self.limits().map_or(0, |limits| limits.salt_length);
                let long_enough = key.pss_salt_length(hash, &digest, signature)? >= least;
                if long_enough { Ok(()) } else { Err(Error::SignatureInvalid) }
            }
            _ => key.verify(scheme, &digest, signature),
        }
    }

    /// A digest that the application has made, with its scheme.
    fn prepared(&self, digest: &[u8]) -> Result<SignatureData> {
        let mut data = match (self.algorithm.family, self.hash, self.rsa.padding) {
            (Family::Ec, hash, _) => {
                if hash.is_some_and(|hash| hash.digest_length() != digest.len()) {
                    return Err(Error::DataInvalid("not as long as a digest of its hash".into()));
                }
                self.refuse_old_hash(hash)?;
                SignatureData::digest(SignatureScheme::Ecdsa)
            }
            (_, Some(hash), _) => SignatureData::digest(self.scheme(hash)?),
            (_, None, Padding::Pss) => {
                // pkeyutl without -pkeyopt digest: the length tells it.
                let hash = HashAlgorithm::from_digest_length(digest.len());
                let hash = hash.ok_or_else(|| Error::DataInvalid("not as long as any digest".into()))?;
                SignatureData::digest(self.scheme(hash)?)
            }
            (_, None, Padding::Pkcs1) => SignatureData::digest_info(),
            (_, None, Padding::None) if digest.len() != self.public_key()?.signature_length() => {
                return Err(Error::DataInvalid("without padding it has to be as long as the key".into()));
            }
            (_, None, Padding::None) => SignatureData::raw(),
        };
        data.update(digest)?;
        Ok(data)
    }

    /// SHA-1 is there to verify what was signed long ago.
    fn refuse_old_hash(&self, hash: Option<HashAlgorithm>) -> Result<()> {
        if self.signs() && hash == Some(HashAlgorithm::Sha1) && !self.provider.keyrivet()?.config().sha1_signatures {
            return Err(Error::Unsupported(
                "signing with SHA-1: use SHA-256 or better (sha1_signatures = true allows it)".into(),
            ));
        }
        Ok(())
    }

    fn scheme(&self, hash: HashAlgorithm) -> Result<SignatureScheme> {
        self.refuse_old_hash(Some(hash))?;
        Ok(match (self.algorithm.family, self.rsa.padding) {
            (Family::Ec, _) => SignatureScheme::Ecdsa,
            (_, Padding::Pkcs1) => SignatureScheme::RsaPkcs1(hash),
            (_, Padding::Pss) => SignatureScheme::RsaPss { hash, salt_length: self.salt_length(hash)? },
            (_, Padding::None) => return Err(Error::Unsupported("a digest without padding".into())),
        })
    }

    fn salt_length(&self, hash: HashAlgorithm) -> Result<usize> {
        if self.rsa.mgf_hash.is_some_and(|mgf_hash| mgf_hash != hash) {
            return Err(Error::Unsupported("another hash in MGF1 than for the message".into()));
        }
        let length = self.rsa.salt_length(self.public_key()?, hash);
        let signer = self.key.as_ref().filter(|_| self.signs()).and_then(|(_, key)| key.private_key());
        if signer.is_some_and(|key| !key.may_decrypt()) && length != hash.digest_length() {
            return Err(Error::Unsupported(format!(
                "PSS salts of {length} bytes by a key that only signs: a TPM makes them as long as the digest, \
                 use pss_saltlen:digest"
            )));
        }
        match self.limits() {
            Some(limits) if length < limits.salt_length => {
                Err(Error::Unsupported(format!("a salt shorter than the key asks for, {} bytes", limits.salt_length)))
            }
            _ => Ok(length),
        }
    }

    fn limits(&self) -> Option<PssLimits> {
        self.key.as_ref().and_then(|(_, key)| key.pss_limits())
    }

    /// Whether the settings are what the key was made for.
    fn check_limits(&self) -> Result<()> {
        let Some((_, key)) = &self.key else { return Ok(()) };
        if key.family() == Family::RsaPss && self.rsa.padding != Padding::Pss {
            return Err(Error::Unsupported("another padding than PSS with a key of type RSA-PSS".into()));
        }
        match (key.mandatory_hash(), self.hash) {
            (Some(only), Some(hash)) if only != hash => Err(self.wrong_hash(hash)),
            _ => Ok(()),
        }
    }

    fn wrong_hash(&self, hash: HashAlgorithm) -> Error {
        Error::Unsupported(format!("{} with a key or algorithm that is for another hash", hash.name()))
    }

    /// What [`Self::set`] takes and [`Self::answer`] knows (but for the algorithm identifier, which is only got).
    pub(crate) fn settable(algorithm: SignatureAlgorithm) -> &'static [Descriptor] {
        static RSA: [Descriptor; 8] = [
            Descriptor::new(OSSL_SIGNATURE_PARAM_DIGEST, Kind::Text),
            Descriptor::new(OSSL_SIGNATURE_PARAM_PROPERTIES, Kind::Text),
            Descriptor::new(OSSL_SIGNATURE_PARAM_PAD_MODE, Kind::Text),
            Descriptor::new(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, Kind::Text),
            Descriptor::new(OSSL_SIGNATURE_PARAM_MGF1_DIGEST, Kind::Text),
            Descriptor::new(OSSL_SIGNATURE_PARAM_MGF1_PROPERTIES, Kind::Text),
            Descriptor::new(OSSL_SIGNATURE_PARAM_SIGNATURE, Kind::Octets),
            Descriptor::END,
        ];
        static EC: [Descriptor; 4] = [
            Descriptor::new(OSSL_SIGNATURE_PARAM_DIGEST, Kind::Text),
            Descriptor::new(OSSL_SIGNATURE_PARAM_PROPERTIES, Kind::Text),
            Descriptor::new(OSSL_SIGNATURE_PARAM_SIGNATURE, Kind::Octets),
            Descriptor::END,
        ];
        static FIXED: [Descriptor; 2] =
            [Descriptor::new(OSSL_SIGNATURE_PARAM_SIGNATURE, Kind::Octets), Descriptor::END];
        match algorithm {
            SignatureAlgorithm { hash: Some(_), .. } => &FIXED,
            SignatureAlgorithm { family: Family::Rsa | Family::RsaPss, .. } => &RSA,
            SignatureAlgorithm { family: Family::Ec, .. } => &EC,
        }
    }

    /// What [`Self::answer`] knows.
    pub(crate) fn gettable(algorithm: SignatureAlgorithm) -> &'static [Descriptor] {
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
        match algorithm.family {
            Family::Rsa | Family::RsaPss => &RSA,
            Family::Ec => &EC,
        }
    }

    /// Takes settings.
    pub(crate) fn set(&mut self, params: &Params<'_>) -> Result<()> {
        if let Some(signature) = params.get(OSSL_SIGNATURE_PARAM_SIGNATURE) {
            self.expected = Some(signature.octets()?.to_vec());
        }
        if self.algorithm.hash.is_some() {
            return self.check_limits();
        }
        if let Some(digest) = params.get(OSSL_SIGNATURE_PARAM_DIGEST) {
            let hash = hash_by_name(digest.text()?)?;
            if self.running.is_some() && self.hash != Some(hash) {
                return Err(Error::Unsupported("another digest after the first data".into()));
            }
            self.hash = Some(hash);
        }
        if self.algorithm.family != Family::Ec {
            self.rsa.set(params)?;
        }
        self.check_limits()
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
        if self.algorithm.family == Family::Ec {
            return Ok(());
        }
        if let Some(hash) = self.rsa.mgf_hash.or(self.hash) {
            answers.answer(OSSL_SIGNATURE_PARAM_MGF1_DIGEST, Value::Text(&hash_name(hash)))?;
        }
        let told = match self.rsa.salt {
            // Who asks a signer writes it into the signature's parameters, where OpenSSL would take it for the longest.
            Salt::Auto if self.signs() => RsaSettings { salt: Salt::Digest, ..self.rsa },
            _ => self.rsa,
        };
        told.answer(answers)
    }

    fn algorithm_identifier(&self, hash: HashAlgorithm) -> Result<Vec<u8>> {
        match (self.algorithm.family, self.rsa.padding) {
            (Family::Ec, _) => algorithm_identifier::ecdsa(hash),
            (_, Padding::Pkcs1) => algorithm_identifier::rsa_pkcs1(hash),
            (_, Padding::Pss) => algorithm_identifier::rsa_pss(hash, self.salt_length(hash)?),
            (_, Padding::None) => Err(Error::Unsupported("an identifier of signatures without padding".into())),
        }
    }
}

fn no_key() -> Error {
    Error::Unsupported("this operation before it is started with a key".into())
}
