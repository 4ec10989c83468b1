//! Dual-function cryptographic functions (PKCS#11 3.2, 5.17): two operations of a session over the same data.

use cryptoki_sys::*;

use super::guard;
use super::memory::{Output, bytes};
use crate::error::Result;
use crate::module::module;
use crate::session::Session;

/// Runs one of the four: `both` is told the data and gives what comes out, of which `length` is known before.
///
/// # Safety
/// `data` is readable for its length, and `result` writable for its own.
unsafe fn dual<R: AsRef<[u8]>>(
    session: CK_SESSION_HANDLE,
    kinds: CK_FLAGS,
    (data, data_length): (CK_BYTE_PTR, CK_ULONG),
    (result, result_length): (CK_BYTE_PTR, CK_ULONG_PTR),
    length: impl FnOnce(&Session, usize) -> Result<usize>,
    both: impl FnOnce(&Session, &[u8]) -> Result<R>,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        session.ending(kinds, || {
            // SAFETY: promised.
            let (data, output) = unsafe { (bytes(data, data_length)?, Output::new(result, result_length)?) };
            output.fill(length(&session, data.len())?, || both(&session, data))
        })
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_DigestEncryptUpdate(
    session: CK_SESSION_HANDLE,
    part: CK_BYTE_PTR,
    part_length: CK_ULONG,
    encrypted: CK_BYTE_PTR,
    encrypted_length: CK_ULONG_PTR,
) -> CK_RV {
    let length = |session: &Session, more| session.digest_length().and_then(|_| session.encrypt_update_length(more));
    let both = |session: &Session, data: &[u8]| {
        session.update_digest(data)?;
        session.update_encrypt(data)
    };
    let (input, output) = ((part, part_length), (encrypted, encrypted_length));
    // SAFETY: both are as the standard has it.
    unsafe { dual(session, CKF_DIGEST | CKF_ENCRYPT, input, output, length, both) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_DecryptDigestUpdate(
    session: CK_SESSION_HANDLE,
    encrypted: CK_BYTE_PTR,
    encrypted_length: CK_ULONG,
    part: CK_BYTE_PTR,
    part_length: CK_ULONG_PTR,
) -> CK_RV {
    let length = |session: &Session, more| session.digest_length().and_then(|_| session.decrypt_update_length(more));
    let both = |session: &Session, data: &[u8]| {
        let clear = session.update_decrypt(data)?;
        session.update_digest(&clear)?;
        Ok(clear)
    };
    let (input, output) = ((encrypted, encrypted_length), (part, part_length));
    // SAFETY: both are as the standard has it.
    unsafe { dual(session, CKF_DIGEST | CKF_DECRYPT, input, output, length, both) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_SignEncryptUpdate(
    session: CK_SESSION_HANDLE,
    part: CK_BYTE_PTR,
    part_length: CK_ULONG,
    encrypted: CK_BYTE_PTR,
    encrypted_length: CK_ULONG_PTR,
) -> CK_RV {
    let length = |session: &Session, more| session.signature_length().and_then(|_| session.encrypt_update_length(more));
    let both = |session: &Session, data: &[u8]| {
        session.update_sign(data)?;
        session.update_encrypt(data)
    };
    let (input, output) = ((part, part_length), (encrypted, encrypted_length));
    // SAFETY: both are as the standard has it.
    unsafe { dual(session, CKF_SIGN | CKF_ENCRYPT, input, output, length, both) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_DecryptVerifyUpdate(
    session: CK_SESSION_HANDLE,
    encrypted: CK_BYTE_PTR,
    encrypted_length: CK_ULONG,
    part: CK_BYTE_PTR,
    part_length: CK_ULONG_PTR,
) -> CK_RV {
    let length = |session: &Session, more| session.is_verifying().and_then(|()| session.decrypt_update_length(more));
    let both = |session: &Session, data: &[u8]| {
        let clear = session.update_decrypt(data)?;
        session.update_verify(&clear)?;
        Ok(clear)
    };
    let (input, output) = ((encrypted, encrypted_length), (part, part_length));
    // SAFETY: both are as the standard has it.
    unsafe { dual(session, CKF_VERIFY | CKF_DECRYPT, input, output, length, both) }
}
