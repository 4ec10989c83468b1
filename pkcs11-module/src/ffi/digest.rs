//! Message digesting functions (PKCS#11 3.2, 5.12).

use cryptoki_sys::*;

use super::memory::{Output, bytes};
use super::{guard, start};
use crate::module::module;
use crate::operation::Data;

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_DigestInit(session: CK_SESSION_HANDLE, wanted: CK_MECHANISM_PTR) -> CK_RV {
    // SAFETY: readable, if not NULL, as the standard has it.
    unsafe { start(session, wanted, CKF_DIGEST, |session, mechanism| session.start_digest(mechanism)) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_Digest(
    session: CK_SESSION_HANDLE,
    data: CK_BYTE_PTR,
    data_length: CK_ULONG,
    digest: CK_BYTE_PTR,
    digest_length: CK_ULONG_PTR,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        session.ending(CKF_DIGEST, || {
            // SAFETY: the data is readable for its length, and the digest writable for its own, as the standard has it.
            let (data, output) = unsafe { (bytes(data, data_length)?, Output::new(digest, digest_length)?) };
            output.fill(session.digest_length()?, || session.digest(Data::AllAtOnce(data)))
        })
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_DigestUpdate(
    session: CK_SESSION_HANDLE,
    data: CK_BYTE_PTR,
    length: CK_ULONG,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        // SAFETY: readable for its length, if not NULL, as the standard has it.
        session.ending(CKF_DIGEST, || session.update_digest(unsafe { bytes(data, length) }?))
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_DigestFinal(
    session: CK_SESSION_HANDLE,
    digest: CK_BYTE_PTR,
    digest_length: CK_ULONG_PTR,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        session.ending(CKF_DIGEST, || {
            // SAFETY: writable for its length, as the standard has it.
            let output = unsafe { Output::new(digest, digest_length) }?;
            output.fill(session.digest_length()?, || session.digest(Data::GivenInParts))
        })
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_DigestKey(session: CK_SESSION_HANDLE, key: CK_OBJECT_HANDLE) -> CK_RV {
    guard(|| {
        // Only C_DigestUpdate "which results in an error terminates the current digest operation".
        module()?.session(session)?.digest_key(key)
    })
}
