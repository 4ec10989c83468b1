//! Functions for verifying signatures (PKCS#11 3.2, 5.15).

use cryptoki_sys::*;

use super::guard;
use super::memory::{Output, bytes, mechanism};
use crate::module::module;
use crate::operation::Data;

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_VerifyInit(
    session: CK_SESSION_HANDLE,
    wanted: CK_MECHANISM_PTR,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        // SAFETY: readable, if not NULL, as the standard has it.
        match unsafe { mechanism(wanted) }? {
            Some(mechanism) => session.start_verify(mechanism, key),
            None => {
                session.operations().cancel(CKF_VERIFY);
                Ok(())
            }
        }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_Verify(
    session: CK_SESSION_HANDLE,
    data: CK_BYTE_PTR,
    data_length: CK_ULONG,
    signature: CK_BYTE_PTR,
    signature_length: CK_ULONG,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        session.ending(CKF_VERIFY, || {
            // SAFETY: both are readable for their lengths, if not NULL, as the standard has it.
            let (data, signature) = unsafe { (bytes(data, data_length)?, bytes(signature, signature_length)?) };
            session.verify(Data::AllAtOnce(data), signature)
        })
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_VerifyUpdate(
    session: CK_SESSION_HANDLE,
    data: CK_BYTE_PTR,
    length: CK_ULONG,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        // SAFETY: readable for its length, if not NULL, as the standard has it.
        session.ending(CKF_VERIFY, || session.update_verify(unsafe { bytes(data, length) }?))
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_VerifyFinal(
    session: CK_SESSION_HANDLE,
    signature: CK_BYTE_PTR,
    signature_length: CK_ULONG,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        session.ending(CKF_VERIFY, || {
            // SAFETY: readable for its length, if not NULL, as the standard has it.
            let signature = unsafe { bytes(signature, signature_length) }?;
            session.verify(Data::GivenInParts, signature)
        })
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_VerifyRecoverInit(
    session: CK_SESSION_HANDLE,
    wanted: CK_MECHANISM_PTR,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        // SAFETY: readable, if not NULL, as the standard has it.
        match unsafe { mechanism(wanted) }? {
            Some(mechanism) => session.start_verify_recover(mechanism, key),
            None => {
                session.operations().cancel(CKF_VERIFY_RECOVER);
                Ok(())
            }
        }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_VerifyRecover(
    session: CK_SESSION_HANDLE,
    signature: CK_BYTE_PTR,
    signature_length: CK_ULONG,
    data: CK_BYTE_PTR,
    data_length: CK_ULONG_PTR,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        session.ending(CKF_VERIFY_RECOVER, || {
            // SAFETY: the signature is readable for its length, the data writable for its own, as the standard has it.
            let (signature, output) = unsafe { (bytes(signature, signature_length)?, Output::new(data, data_length)?) };
            if output.fill_at_most(session.recovered_length()?, || session.recover(signature))? {
                session.operations().cancel(CKF_VERIFY_RECOVER);
            }
            Ok(())
        })
    })
}
