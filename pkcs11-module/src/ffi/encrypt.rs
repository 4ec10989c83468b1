//! Encryption functions (PKCS#11 3.2, 5.8).

use cryptoki_sys::*;

use super::memory::{Output, bytes};
use super::{guard, start};
use crate::module::module;
use crate::operation::Data;

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_EncryptInit(
    session: CK_SESSION_HANDLE,
    wanted: CK_MECHANISM_PTR,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    // SAFETY: readable, if not NULL, as the standard has it.
    unsafe { start(session, wanted, CKF_ENCRYPT, |session, mechanism| session.start_encrypt(mechanism, key)) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_Encrypt(
    session: CK_SESSION_HANDLE,
    data: CK_BYTE_PTR,
    data_length: CK_ULONG,
    result: CK_BYTE_PTR,
    result_length: CK_ULONG_PTR,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        session.ending(CKF_ENCRYPT, || {
            // SAFETY: the data is readable for its length, the result writable for its own, as the standard has it.
            let (data, output) = unsafe { (bytes(data, data_length)?, Output::new(result, result_length)?) };
            output.fill(session.encrypt_length(data.len())?, || session.encrypt(Data::AllAtOnce(data)))
        })
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_EncryptUpdate(
    session: CK_SESSION_HANDLE,
    data: CK_BYTE_PTR,
    data_length: CK_ULONG,
    result: CK_BYTE_PTR,
    result_length: CK_ULONG_PTR,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        session.ending(CKF_ENCRYPT, || {
            // SAFETY: the data is readable for its length, the result writable for its own, as the standard has it.
            let (data, output) = unsafe { (bytes(data, data_length)?, Output::new(result, result_length)?) };
            output.fill(session.encrypt_update_length(data.len())?, || session.update_encrypt(data))
        })
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_EncryptFinal(
    session: CK_SESSION_HANDLE,
    result: CK_BYTE_PTR,
    result_length: CK_ULONG_PTR,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        session.ending(CKF_ENCRYPT, || {
            // SAFETY: writable for its length, as the standard has it.
            let output = unsafe { Output::new(result, result_length) }?;
            output.fill(session.encrypt_length(0)?, || session.encrypt(Data::GivenInParts))
        })
    })
}
