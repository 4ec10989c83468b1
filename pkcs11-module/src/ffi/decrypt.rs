//! Decryption functions (PKCS#11 3.2, 5.10).

use cryptoki_sys::*;

use super::memory::{Output, bytes};
use super::{guard, start};
use crate::module::module;
use crate::operation::Data;

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_DecryptInit(
    session: CK_SESSION_HANDLE,
    wanted: CK_MECHANISM_PTR,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    // SAFETY: readable, if not NULL, as the standard has it.
    unsafe { start(session, wanted, CKF_DECRYPT, |session, mechanism| session.start_decrypt(mechanism, key)) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_Decrypt(
    session: CK_SESSION_HANDLE,
    data: CK_BYTE_PTR,
    data_length: CK_ULONG,
    result: CK_BYTE_PTR,
    result_length: CK_ULONG_PTR,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        session.ending(CKF_DECRYPT, || {
            // SAFETY: the data is readable for its length, the result writable for its own, as the standard has it.
            let (data, output) = unsafe { (bytes(data, data_length)?, Output::new(result, result_length)?) };
            if output.fill_at_most(session.decrypt_length(data.len())?, || session.decrypt(Data::AllAtOnce(data)))? {
                session.operations().cancel(CKF_DECRYPT);
            }
            Ok(())
        })
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_DecryptUpdate(
    session: CK_SESSION_HANDLE,
    data: CK_BYTE_PTR,
    data_length: CK_ULONG,
    result: CK_BYTE_PTR,
    result_length: CK_ULONG_PTR,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        session.ending(CKF_DECRYPT, || {
            // SAFETY: the data is readable for its length, the result writable for its own, as the standard has it.
            let (data, output) = unsafe { (bytes(data, data_length)?, Output::new(result, result_length)?) };
            output.fill(session.decrypt_update_length(data.len())?, || session.update_decrypt(data))
        })
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_DecryptFinal(
    session: CK_SESSION_HANDLE,
    result: CK_BYTE_PTR,
    result_length: CK_ULONG_PTR,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        session.ending(CKF_DECRYPT, || {
            // SAFETY: writable for its length, as the standard has it.
            let output = unsafe { Output::new(result, result_length) }?;
            if output.fill_at_most(session.decrypt_length(0)?, || session.decrypt(Data::GivenInParts))? {
                session.operations().cancel(CKF_DECRYPT);
            }
            Ok(())
        })
    })
}
