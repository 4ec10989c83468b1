//! PIN to TPM authorisation: the token secret, what is derived from it, and what a PIN must look like.

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::error::{Error, Result};
use crate::object::ObjectId;

/// Shortest and longest PIN, in bytes; a user PIN may also be empty.
pub const PIN_LENGTH: std::ops::RangeInclusive<usize> = 4..=64;

/// The random value that a token's keys are authorised with; the TPM releases it for a PIN.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct TokenSecret([u8; 32]);

impl TokenSecret {
    /// A new one.
    pub(crate) fn random() -> Result<Self> {
        let mut secret = Self([0; 32]);
        crate::random::fill(&mut secret.0)?;
        Ok(secret)
    }

    /// What the TPM unsealed.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The authValue of the key in this object's file.
    pub(crate) fn key_auth(&self, id: ObjectId) -> Zeroizing<Vec<u8>> {
        self.derive(b"key authorisation", id)
    }

    /// The key that encrypts this private data object.
    pub(crate) fn data_key(&self, id: ObjectId) -> Zeroizing<Vec<u8>> {
        self.derive(b"data encryption", id)
    }

    fn derive(&self, purpose: &[u8], id: ObjectId) -> Zeroizing<Vec<u8>> {
        expand(&Hkdf::new(None, &self.0), &[purpose, id.as_bytes()])
    }
}

/// The authValue of a sealed token secret.
///
/// A fast derivation is enough: nobody can try PINs without the TPM, which counts them, and the value only ever
/// keys the HMAC of a salted session.
pub(crate) fn pin_auth(pin: &[u8], salt: &[u8]) -> Zeroizing<Vec<u8>> {
    expand(&Hkdf::new(Some(salt), pin), &[b"PIN"])
}

fn expand(hkdf: &Hkdf<Sha256>, info: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let mut derived = Zeroizing::new(vec![0; 32]);
    // 32 bytes are one block, far below what HKDF-SHA-256 gives (RFC 5869, 2.3): this cannot fail.
    let _ = hkdf.expand_multi_info(info, &mut derived);
    derived
}

/// Checks the length of a PIN that is to be set.
pub(crate) fn check_new_pin(pin: &[u8]) -> Result<()> {
    if PIN_LENGTH.contains(&pin.len()) { Ok(()) } else { Err(Error::PinLength) }
}

/// Refuses a PIN that cannot be right by its length alone, before the TPM would count it.
pub(crate) fn check_given_pin(pin: &[u8]) -> Result<()> {
    if PIN_LENGTH.contains(&pin.len()) { Ok(()) } else { Err(Error::PinIncorrect) }
}
