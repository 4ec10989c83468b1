//! A private key in the TPM, ready for use, and what it does. Where it is, and what loads and authorises it, is in `place`.

mod place;

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::algorithm::{EncryptionScheme, HashAlgorithm, SignatureScheme};
use crate::auth::StackWiped;
use crate::error::{Error, Result};
use crate::object::{KeyMaterial, ObjectId};
use crate::public_area::{FixedScheme, object_attribute};
use crate::public_key::{PublicKey, check_digest, padded};
use crate::token::Token;
use crate::tpm::{self, Authority, Tpm};
use crate::tss2_pem::Tss2Key;
use crate::{random, rsa_padding};

use place::Source;
pub(crate) use place::{KeyPlace, Owner, TpmKey};

/// A private key in the TPM. Cheap to clone; it is loaded at its first use.
#[derive(Clone)]
pub struct Key {
    tpm_key: TpmKey,
    public_key: Arc<PublicKey>,
}

impl Key {
    pub(crate) fn new(tpm_key: TpmKey) -> Result<Self> {
        let public_key = Arc::new(tpm_key.place.area.public_key()?.clone());
        Ok(Self { tpm_key, public_key })
    }

    /// A token's key in object `id`, which is at `place`.
    pub(crate) fn of_token(
        tpm: Tpm,
        key: &KeyMaterial,
        place: Arc<KeyPlace>,
        token: Arc<Token>,
        id: ObjectId,
    ) -> Result<Self> {
        let owner = match key {
            KeyMaterial::Wrapped(key) | KeyMaterial::Placed(key, _) => Owner::Token(token, key.owner(id)),
            KeyMaterial::Persistent(key) => Owner::Adopted(token, id, key.sealed_auth.clone().map(Arc::new)),
        };
        Self::new(TpmKey::new(tpm, place, owner))
    }

    /// Its public part.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The key file's content; `None` of a key that no file can hold.
    pub fn tss2(&self) -> Option<&Tss2Key> {
        match &self.tpm_key.place.source {
            Source::Wrapped { key, .. } => Some(key),
            Source::Persistent(_) | Source::Saved(_) => None,
        }
    }

    /// The handle of a key that is in the TPM for good.
    pub fn handle(&self) -> Option<u32> {
        match self.tpm_key.place.source {
            Source::Persistent(handle) => Some(handle),
            Source::Wrapped { .. } | Source::Saved(_) => None,
        }
    }

    /// The token it belongs to. Its login is needed unless [`Token::is_open`].
    pub fn token(&self) -> Option<&Arc<Token>> {
        self.tpm_key.token()
    }

    /// It needs an authorisation value of its own that was not given yet ([`Self::authorise`]).
    ///
    /// Of a persistent key only its use tells: it fails with [`Error::NotLoggedIn`] then.
    pub fn needs_authorisation(&self) -> bool {
        matches!(self.tpm_key.owner, Owner::Anybody(None))
    }

    /// Gives a key without token its authorisation value.
    pub fn authorise(&mut self, value: Zeroizing<Vec<u8>>) {
        if self.token().is_none() {
            let empty = value.is_empty();
            self.tpm_key.owner = if empty { Owner::Nobody } else { Owner::Anybody(Some(Arc::new(value))) };
        }
    }

    /// Gives the authValue of its parent, or of that one's hierarchy; the configuration may know it too.
    pub fn authorise_parent(&mut self, value: Zeroizing<Vec<u8>>) {
        self.tpm_key.parent_auth = Some(Arc::new(value));
    }

    /// The TPM lets it sign what it is given.
    pub fn may_sign(&self) -> bool {
        self.has(object_attribute::SIGN)
    }

    /// The TPM lets it decrypt (RSA) or derive (EC).
    pub fn may_decrypt(&self) -> bool {
        self.has(object_attribute::DECRYPT)
    }

    /// The one scheme that the TPM lets it be used with, if it was made for one.
    pub fn fixed_scheme(&self) -> Option<FixedScheme> {
        self.tpm_key.place.area.scheme
    }

    fn check_fixed_scheme(&self, scheme: SignatureScheme) -> Result<()> {
        let only = match (self.fixed_scheme(), scheme) {
            (None, _) | (Some(FixedScheme::Ecdsa(_)), SignatureScheme::Ecdsa) => return Ok(()),
            (Some(FixedScheme::RsaPkcs1(fixed)), SignatureScheme::RsaPkcs1(hash)) if fixed == hash => return Ok(()),
            (Some(FixedScheme::RsaPss(fixed)), SignatureScheme::RsaPss { hash, .. }) if fixed == hash => return Ok(()),
            (Some(FixedScheme::RsaPkcs1(hash)), _) => format!("PKCS#1 with {}", hash.name()),
            (Some(FixedScheme::RsaPss(hash)), _) => format!("PSS with {}", hash.name()),
            (Some(FixedScheme::Ecdsa(hash)), _) => format!("ECDSA with {}", hash.name()),
            (Some(FixedScheme::Other(id)), _) => format!("the TPM's algorithm 0x{id:04x}"),
        };
        Err(Error::Unsupported(format!("this signature by a key that was made for {only} only")))
    }

    fn has(&self, usage: u32) -> bool {
        let area = &self.tpm_key.place.area;
        area.has(usage) && !area.has(object_attribute::RESTRICTED)
    }

    /// Signs a digest in the TPM, or of [`SignatureScheme::RsaPkcs1Data`] and [`SignatureScheme::RsaRaw`] the data itself.
    /// ECDSA signatures are `r || s`.
    ///
    /// What `TPM2_Sign` cannot do, or does otherwise, is padded here and goes through the bare RSA operation, if the key may
    /// decrypt.
    /// Errors: [`Error::NotLoggedIn`], [`Error::Unsupported`], [`Error::TpmReplaced`], [`Error::PolicyFailed`] and those
    /// of the TPM.
    pub fn sign(&self, scheme: SignatureScheme, digest: &[u8]) -> Result<Vec<u8>> {
        if let SignatureScheme::RsaPkcs1(hash) | SignatureScheme::RsaPss { hash, .. } = scheme {
            check_digest(hash, digest)?;
            if hash == HashAlgorithm::Sha1 && !self.tpm_key.tpm.config().sha1_signatures {
                return Err(Error::Unsupported("SHA-1 signatures (sha1_signatures = true allows them)".into()));
            }
        }
        if !self.may_sign() {
            return Err(Error::Unsupported("signatures by a key that was not made for them".into()));
        }
        self.check_fixed_scheme(scheme)?;
        let by_tpm = match scheme == SignatureScheme::Ecdsa || self.is_padded_by_tpm(scheme) {
            true => self.padded_by_tpm(scheme, digest)?,
            false => None,
        };
        let signature = match by_tpm {
            Some(signature) => signature,
            None => std::mem::take(&mut *self.rsa(&self.padded_here(scheme, digest)?)?),
        };
        // Nothing but the result tells that another key was put at a persistent handle.
        if let Some(handle) = self.handle() {
            let verified = self.public_key.verify(scheme, digest, &signature);
            verified.map_err(|_| Error::TpmReplaced { what: format!("the key at 0x{handle:08x}") })?;
        }
        Ok(signature)
    }

    /// By `TPM2_Sign`; `None` if the TPM's padding turns out not to be what was asked for.
    ///
    /// A TPM may salt PSS with as many bytes as fit (TPM 2.0 Part 1, B.7), where TLS 1.3 and others want the digest's length,
    /// and it may lack a hash that nobody has asked about. Both show at the first signature.
    fn padded_by_tpm(&self, scheme: SignatureScheme, digest: &[u8]) -> Result<Option<Vec<u8>>> {
        let signed = self.tpm_key.use_with(|tpm, key, authority| tpm.sign(key, authority, scheme, digest));
        let seen = match (&signed, scheme) {
            (Ok(signature), SignatureScheme::RsaPss { hash, salt_length }) if self.pads(scheme) != Some(true) => {
                self.public_key.pss_salt_length(hash, digest, signature).ok().map(|length| length == salt_length)
            }
            (Err(error), _) if scheme != SignatureScheme::Ecdsa && tpm::is_unknown_scheme(error) => Some(false),
            _ => None,
        };
        if let Some(well) = seen {
            self.tpm_key.tpm.set_pads(scheme, self.public_key.bits(), well);
        }
        if seen == Some(false) { Ok(None) } else { signed.map(Some) }
    }

    /// Whether it can make signatures of this scheme: the TPM's own, or by the bare RSA operation.
    pub fn signs(&self, scheme: SignatureScheme) -> bool {
        match (&*self.public_key, scheme) {
            (PublicKey::Ec { .. }, _) => scheme == SignatureScheme::Ecdsa,
            (PublicKey::Rsa { .. }, SignatureScheme::Ecdsa) => false,
            (PublicKey::Rsa { .. }, _) => self.is_padded_by_tpm(scheme) || self.takes_blocks(),
        }
    }

    /// Whether the TPM pads as this scheme should be, with a key of this length, if that was seen.
    fn pads(&self, scheme: SignatureScheme) -> Option<bool> {
        self.tpm_key.tpm.pads(scheme, self.public_key.bits())
    }

    /// Whether the bare RSA operation is open to it.
    fn takes_blocks(&self) -> bool {
        self.may_decrypt() && self.fixed_scheme().is_none()
    }

    fn is_padded_by_tpm(&self, scheme: SignatureScheme) -> bool {
        let hash = match scheme {
            SignatureScheme::RsaPkcs1(hash) => hash,
            SignatureScheme::RsaPss { hash, salt_length } if salt_length == hash.digest_length() => hash,
            _ => return false,
        };
        // Which hashes a TPM has, a token knows; those that every scheme of the specification may name are SHA-1 and SHA-2.
        matches!(hash.tpm_algorithm(), Some(0x0004..=0x000d))
            && self.token().is_none_or(|token| token.has_hash(hash))
            && self.pads(scheme) != Some(false)
    }

    /// The block for the bare RSA operation, where `TPM2_Sign` does not make it.
    fn padded_here(&self, scheme: SignatureScheme, data: &[u8]) -> Result<Vec<u8>> {
        let other_type = || Error::Unsupported("this signature scheme with this type of key".into());
        let PublicKey::Rsa { modulus, .. } = &*self.public_key else { return Err(other_type()) };
        if !self.takes_blocks() {
            return Err(Error::Unsupported(
                "this padding by a key that only signs: the TPM makes others with keys that may decrypt too".into(),
            ));
        }
        let length = modulus.len();
        match scheme {
            SignatureScheme::RsaPkcs1(hash) => {
                let info = [&hash.digest_info_prefix(), data].concat();
                rsa_padding::pkcs1_signature_block(&info, length)
            }
            SignatureScheme::RsaPkcs1Data => rsa_padding::pkcs1_signature_block(data, length),
            SignatureScheme::RsaPss { hash, salt_length } => {
                let mut salt = vec![0; salt_length];
                random::fill(&mut salt)?;
                rsa_padding::pss_block(hash, data, &salt, self.public_key.bits())
            }
            SignatureScheme::RsaRaw => self.whole_block(data),
            SignatureScheme::Ecdsa => Err(other_type()),
        }
    }

    /// A number below the modulus, in a block of its length.
    fn whole_block(&self, number: &[u8]) -> Result<Vec<u8>> {
        let PublicKey::Rsa { modulus, .. } = &*self.public_key else { return Ok(number.to_vec()) };
        let block = padded(number, modulus.len());
        if block.len() > modulus.len() || block >= *modulus {
            return Err(Error::DataInvalid("a number that is not below the key's modulus".into()));
        }
        Ok(block)
    }

    /// Decrypts in the TPM. Padding is taken off here, in constant time.
    ///
    /// Errors: [`Error::EncryptedDataInvalid`] besides those of [`Self::sign`].
    pub fn decrypt(&self, scheme: &EncryptionScheme, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let PublicKey::Rsa { modulus, .. } = &*self.public_key else {
            return Err(Error::Unsupported("decryption by a key that is not RSA".into()));
        };
        if !self.may_decrypt() {
            return Err(Error::Unsupported("decryption by a key that was not made for it".into()));
        }
        // The TPM would take off the padding by itself.
        if let Some(fixed) = self.fixed_scheme() {
            return Err(Error::Unsupported(format!(
                "decryption by a key that was made for one scheme only ({fixed:?})"
            )));
        }
        if ciphertext.len() != modulus.len() || ciphertext >= modulus.as_slice() {
            return Err(Error::EncryptedDataInvalid);
        }
        let block = self.rsa(ciphertext)?;
        match scheme {
            EncryptionScheme::RsaPkcs1 => rsa_padding::pkcs1_message(&block),
            EncryptionScheme::RsaPkcs1Implicit => {
                Ok(rsa_padding::pkcs1_message_or_another(&block, &self.rejection_secret()?, ciphertext))
            }
            EncryptionScheme::RsaPkcs1Tls { client, negotiated } => {
                let mut other = Zeroizing::new([0; rsa_padding::PREMASTER]);
                random::fill(&mut *other)?;
                rsa_padding::tls_premaster_or_another(&block, *client, *negotiated, &other)
            }
            EncryptionScheme::RsaOaep { hash, mgf_hash, label } => {
                rsa_padding::oaep_message(&block, *hash, *mgf_hash, label)
            }
            EncryptionScheme::RsaRaw => Ok(block),
        }
    }

    /// What makes the message in place of one that is wrongly padded: the same in every process that uses the key, or who can
    /// ask two of them would learn from the difference that it was wrong; and nothing that those who only send
    /// ciphertexts know.
    fn rejection_secret(&self) -> Result<Zeroizing<Vec<u8>>> {
        let _wiped = StackWiped;
        match &self.tpm_key.place.source {
            Source::Wrapped { key, .. } => Ok(rejection_secret(&key.private, &self.tpm_key.authority()?)),
            Source::Persistent(_) | Source::Saved(_) => Ok(Zeroizing::new(random::of_this_process()?.to_vec())),
        }
    }

    fn rsa(&self, block: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        self.tpm_key.use_with(|tpm, key, authority| tpm.rsa(key, authority, block))
    }

    /// ECDH in the TPM: the x coordinate shared with `peer`, a point (SEC 1, 2.3.3) on the same curve; as long as the
    /// curve's coordinates.
    ///
    /// The cofactor of our curves is 1, so ECDH with cofactor is the same.
    pub fn derive(&self, peer: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let PublicKey::Ec { curve, .. } = &*self.public_key else {
            return Err(Error::Unsupported("key agreement by a key that is not EC".into()));
        };
        if !self.may_decrypt() {
            return Err(Error::Unsupported("key agreement by a key that was not made for it".into()));
        }
        let PublicKey::Ec { point, .. } = PublicKey::ec(*curve, peer)? else {
            return Err(Error::malformed("EC public key", "not a point"));
        };
        let coordinates = point[1..].split_at(curve.coordinate_length());
        self.tpm_key.use_with(|tpm, key, authority| tpm.ecdh(key, authority, coordinates))
    }
}

/// Of a key that has an authValue which nobody can guess, also who has read the store does not know it. An authValue that
/// somebody chose is not in it: it could be tried against the messages that come out.
fn rejection_secret(private: &[u8], authority: &Authority) -> Zeroizing<Vec<u8>> {
    let auth: &[u8] = if let Authority::Random(value) = authority { value } else { &[] };
    let known_to_users = Zeroizing::new([private, auth].concat());
    Zeroizing::new(HashAlgorithm::Sha256.digest(&known_to_users))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_secret_is_not_what_a_store_tells_and_tells_no_pin() {
        let secret = |authority| rejection_secret(b"private part", &authority);
        let random = |byte| Authority::Random(Zeroizing::new(vec![byte; 32]));
        let chosen = |pin: &[u8]| Authority::Chosen(Zeroizing::new(pin.to_vec()));
        assert_eq!(secret(random(1)), secret(random(1)));
        assert_ne!(secret(random(1)), secret(random(2)));
        assert_ne!(secret(random(1)), secret(Authority::Empty));
        assert_eq!(secret(chosen(b"1234")), secret(chosen(b"5678")));
        assert_ne!(secret(Authority::Empty), rejection_secret(b"another's", &Authority::Empty));
    }
}
