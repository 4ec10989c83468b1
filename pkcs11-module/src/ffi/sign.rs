//! Signing functions (PKCS#11 3.2, 5.13).

use cryptoki_sys::*;

use super::memory::{Output, bytes};
use super::{guard, start};
use crate::module::module;
use crate::operation::Data;

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_SignInit(
    session: CK_SESSION_HANDLE,
    wanted: CK_MECHANISM_PTR,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    // SAFETY: readable, if not NULL, as the standard has it.
    unsafe { start(session, wanted, CKF_SIGN, |session, mechanism| session.start_sign(mechanism, key)) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_Sign(
    session: CK_SESSION_HANDLE,
    data: CK_BYTE_PTR,
    data_length: CK_ULONG,
    signature: CK_BYTE_PTR,
    signature_length: CK_ULONG_PTR,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        session.ending(CKF_SIGN, || {
            // SAFETY: the data is readable for its length, the signature writable for its own, as the standard has it.
            let (data, output) = unsafe { (bytes(data, data_length)?, Output::new(signature, signature_length)?) };
            output.fill(session.signature_length()?, || session.sign(Data::AllAtOnce(data)))
        })
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_SignUpdate(session: CK_SESSION_HANDLE, data: CK_BYTE_PTR, length: CK_ULONG) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        // SAFETY: readable for its length, if not NULL, as the standard has it.
        session.ending(CKF_SIGN, || session.update_sign(unsafe { bytes(data, length) }?))
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_SignFinal(
    session: CK_SESSION_HANDLE,
    signature: CK_BYTE_PTR,
    signature_length: CK_ULONG_PTR,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        session.ending(CKF_SIGN, || {
            // SAFETY: writable for its length, as the standard has it.
            let output = unsafe { Output::new(signature, signature_length) }?;
            output.fill(session.signature_length()?, || session.sign(Data::GivenInParts))
        })
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_SignRecoverInit(
    session: CK_SESSION_HANDLE,
    wanted: CK_MECHANISM_PTR,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    // SAFETY: readable, if not NULL, as the standard has it.
    unsafe { start(session, wanted, CKF_SIGN_RECOVER, |session, mechanism| session.start_sign_recover(mechanism, key)) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_SignRecover(
    session: CK_SESSION_HANDLE,
    data: CK_BYTE_PTR,
    data_length: CK_ULONG,
    signature: CK_BYTE_PTR,
    signature_length: CK_ULONG_PTR,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        session.ending(CKF_SIGN_RECOVER, || {
            // SAFETY: the data is readable for its length, the signature writable for its own, as the standard has it.
            let (data, output) = unsafe { (bytes(data, data_length)?, Output::new(signature, signature_length)?) };
            output.fill(session.recoverable_length()?, || session.sign_recoverable(data))
        })
    })
}
