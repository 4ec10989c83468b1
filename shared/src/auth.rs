//! PIN to TPM authorisation: the token secret, what is derived from it, and what a PIN must look like.

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize as _, Zeroizing};

use crate::error::{Error, Result};
use crate::ffi::LockedPage;
use crate::object::ObjectId;

/// Shortest and longest PIN, in bytes; a user PIN may also be empty.
pub const PIN_LENGTH: std::ops::RangeInclusive<usize> = 4..=64;

/// The random value that a token's keys are authorised with; the TPM releases it for a PIN. It lies in a page that is
/// neither swapped out nor dumped.
///
/// The secret, and what HKDF extracts of it, from which each use expands.
pub(crate) struct TokenSecret(LockedPage<64>);

const SECRET: usize = 32;

impl TokenSecret {
    /// A new one.
    pub(crate) fn random() -> Result<Self> {
        let mut secret = Zeroizing::new([0; SECRET]);
        crate::random::fill(&mut *secret)?;
        Self::new(&secret)
    }

    /// What the TPM unsealed; `None` if it has another length.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Option<Self>> {
        <&[u8; SECRET]>::try_from(bytes).ok().map(Self::new).transpose()
    }

    fn new(secret: &[u8; SECRET]) -> Result<Self> {
        let _wiped = StackWiped;
        let mut page = LockedPage::new()?;
        let (place, extract) = page.split_at_mut(SECRET);
        place.copy_from_slice(secret);
        let mut extracted = Hkdf::<Sha256>::extract(None, secret).0;
        extract.copy_from_slice(&extracted);
        extracted.zeroize();
        Ok(Self(page))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0[..SECRET]
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
        // It has the hash's length, as extraction gave it: this cannot fail.
        let hkdf = Hkdf::from_prk(&self.0[SECRET..]).unwrap_or_else(|_| Hkdf::new(None, self.as_bytes()));
        expand(&hkdf, &[purpose, id.as_bytes()])
    }
}

/// Overwrites what dead frames may have left of secrets on this thread's stack, when the scope ends: hashes and HMACs
/// work on copies of their keys there.
#[must_use]
pub(crate) struct StackWiped;

/// More than the calls below any user of [`StackWiped`] take, and little enough for a host's small stack.
const WIPED: usize = 16 * 1024;

impl Drop for StackWiped {
    #[inline(never)]
    fn drop(&mut self) {
        // Volatile writes: they are not optimised away, though nobody reads them. In words: each is one store.
        [0_u64; WIPED / size_of::<u64>()].zeroize();
        // Copying leaves what it copied in vector registers, which the dynamic linker saves on the stack when it resolves
        // the host's next call: copies of zeros take the same registers.
        for length in [16, 32, 64, 128] {
            let mut copy = [1_u8; 128];
            copy[..std::hint::black_box(length)].copy_from_slice(&std::hint::black_box([0; 128])[..length]);
            std::hint::black_box(&copy);
        }
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
