//! Functions for verifying signatures (PKCS#11 3.2, 5.15).

use cryptoki_sys::*;

use super::memory::{Output, bytes, mechanism};
use super::{guard, start};
use crate::module::module;
use crate::operation::{Data, VERIFY_SIGNATURE};

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_VerifyInit(
    session: CK_SESSION_HANDLE,
    wanted: CK_MECHANISM_PTR,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    // SAFETY: readable, if not NULL, as the standard has it.
    unsafe { start(session, wanted, CKF_VERIFY, |session, mechanism| session.start_verify(mechanism, key)) }
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
    // SAFETY: readable, if not NULL, as the standard has it.
    unsafe {
        start(session, wanted, CKF_VERIFY_RECOVER, |session, mechanism| session.start_verify_recover(mechanism, key))
    }
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
            // An invalid signature "will never return CKR_BUFFER_TOO_SMALL", and it is software, so that it can be
            // recovered to tell the length.
            let data = session.recover(signature)?;
            if output.fill_at_most(data.len(), || Ok(data))? {
                session.operations().cancel(CKF_VERIFY_RECOVER);
            }
            Ok(())
        })
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_VerifySignatureInit(
    session: CK_SESSION_HANDLE,
    wanted: CK_MECHANISM_PTR,
    key: CK_OBJECT_HANDLE,
    signature: CK_BYTE_PTR,
    signature_length: CK_ULONG,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        // SAFETY: readable, if not NULL, as the standard has it.
        match unsafe { mechanism(wanted) }? {
            Some(mechanism) => {
                // SAFETY: the signature is readable for its length, if not NULL, as the standard has it.
                let signature = unsafe { bytes(signature, signature_length) }?;
                session.start_verify_signature(mechanism, key, signature)
            }
            None => {
                session.operations().cancel(VERIFY_SIGNATURE);
                Ok(())
            }
        }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_VerifySignature(
    session: CK_SESSION_HANDLE,
    data: CK_BYTE_PTR,
    length: CK_ULONG,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        session.ending(VERIFY_SIGNATURE, || {
            // SAFETY: readable for its length, if not NULL, as the standard has it.
            session.verify_signature(Data::AllAtOnce(unsafe { bytes(data, length) }?))
        })
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_VerifySignatureUpdate(
    session: CK_SESSION_HANDLE,
    data: CK_BYTE_PTR,
    length: CK_ULONG,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        // SAFETY: readable for its length, if not NULL, as the standard has it.
        session.ending(VERIFY_SIGNATURE, || session.update_verify_signature(unsafe { bytes(data, length) }?))
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_VerifySignatureFinal(session: CK_SESSION_HANDLE) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        session.ending(VERIFY_SIGNATURE, || session.verify_signature(Data::GivenInParts))
    })
}
