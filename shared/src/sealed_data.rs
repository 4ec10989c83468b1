//! Private data objects at rest: AES-256-GCM under a key of the token's secret, bound to the object's id.

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::object::ObjectId;

const NONCE_LENGTH: usize = 12;

/// Encrypts: nonce, ciphertext, tag.
pub(crate) fn seal(key: &[u8], id: ObjectId, clear: &[u8]) -> Result<Vec<u8>> {
    let wrong = || Error::DataInvalid("too much for one object".into());
    let mut sealed = vec![0; NONCE_LENGTH];
    crate::random::fill(&mut sealed)?;
    let cipher = Aes256Gcm::new_from_slice(key).map_err(|_| wrong())?;
    let payload = Payload { msg: clear, aad: id.as_bytes() };
    let ciphertext = cipher.encrypt(Nonce::from_slice(&sealed), payload).map_err(|_| wrong())?;
    sealed.extend_from_slice(&ciphertext);
    Ok(sealed)
}

/// Decrypts; `None` if it was not sealed with this key for this object.
pub(crate) fn open(key: &[u8], id: ObjectId, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, ciphertext) = sealed.split_at_checked(NONCE_LENGTH)?;
    let cipher = Aes256Gcm::new_from_slice(key).ok()?;
    let payload = Payload { msg: ciphertext, aad: id.as_bytes() };
    cipher.decrypt(Nonce::from_slice(nonce), payload).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_opens_only_with_its_key_for_its_object_and_unchanged() {
        let (id, other) = (ObjectId::random().unwrap(), ObjectId::random().unwrap());
        let mut sealed = seal(&[1; 32], id, b"clear").unwrap();
        assert_eq!(open(&[1; 32], id, &sealed).unwrap().as_slice(), b"clear");
        assert!(open(&[2; 32], id, &sealed).is_none());
        assert!(open(&[1; 32], other, &sealed).is_none());
        sealed[14] ^= 1;
        assert!(open(&[1; 32], id, &sealed).is_none());
        assert!(open(&[1; 32], id, &sealed[..5]).is_none());
    }
}
