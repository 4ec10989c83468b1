//! Session management functions (PKCS#11 3.2, 5.6).

use cryptoki_sys::*;

use super::guard;
use super::memory::{Output, Place, bytes};
use crate::error::Error;
use crate::module::module;
use crate::operation::VERIFY_SIGNATURE;

/// Nothing ever happens in our tokens that a session would be told of, so its `Notify` is never called.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_OpenSession(
    slot: CK_SLOT_ID,
    flags: CK_FLAGS,
    _application: CK_VOID_PTR,
    _notify: CK_NOTIFY,
    session: CK_SESSION_HANDLE_PTR,
) -> CK_RV {
    guard(|| {
        let module = module()?;
        if flags & CKF_SERIAL_SESSION == 0 {
            return Err(Error(CKR_SESSION_PARALLEL_NOT_SUPPORTED));
        }
        if flags & CKF_ASYNC_SESSION != 0 {
            return Err(Error(CKR_SESSION_ASYNC_NOT_SUPPORTED));
        }
        // SAFETY: writable, if not NULL, as the standard has it.
        let place = unsafe { Place::new(session) }?;
        place.set(module.open_session(slot, flags & CKF_RW_SESSION != 0)?);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_CloseSession(session: CK_SESSION_HANDLE) -> CK_RV {
    guard(|| module()?.close_session(session))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_CloseAllSessions(slot: CK_SLOT_ID) -> CK_RV {
    guard(|| module()?.close_all_sessions(slot))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_GetSessionInfo(session: CK_SESSION_HANDLE, info: CK_SESSION_INFO_PTR) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        // SAFETY: writable, if not NULL, as the standard has it.
        let place = unsafe { Place::new(info) }?;
        place.set(session.info()?);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_GetOperationState(
    session: CK_SESSION_HANDLE,
    state: CK_BYTE_PTR,
    state_length: CK_ULONG_PTR,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        // SAFETY: writable for its length, as the standard has it.
        let output = unsafe { Output::new(state, state_length) }?;
        session.is_saveable()?;
        output.fill(SAVED_STATE, || session.save())
    })
}

/// Length of a saved state, which is a name.
const SAVED_STATE: usize = 16;

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_SetOperationState(
    session: CK_SESSION_HANDLE,
    state: CK_BYTE_PTR,
    state_length: CK_ULONG,
    encryption_key: CK_OBJECT_HANDLE,
    authentication_key: CK_OBJECT_HANDLE,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        if state.is_null() {
            return Err(Error(CKR_ARGUMENTS_BAD));
        }
        // SAFETY: readable for its length, as the standard has it.
        session.restore(unsafe { bytes(state, state_length) }?, [encryption_key, authentication_key])
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_SessionCancel(session: CK_SESSION_HANDLE, flags: CK_FLAGS) -> CK_RV {
    guard(|| {
        module()?.session(session)?.operations().cancel(flags & !VERIFY_SIGNATURE);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_Login(
    session: CK_SESSION_HANDLE,
    user: CK_USER_TYPE,
    pin: CK_UTF8CHAR_PTR,
    pin_length: CK_ULONG,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        // SAFETY: readable for its length, if not NULL, as the standard has it.
        session.login(user, unsafe { bytes(pin, pin_length) }?)
    })
}

/// Our tokens have one user, without a name: only an empty one logs in.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_LoginUser(
    session: CK_SESSION_HANDLE,
    user: CK_USER_TYPE,
    pin: CK_UTF8CHAR_PTR,
    pin_length: CK_ULONG,
    name: CK_UTF8CHAR_PTR,
    name_length: CK_ULONG,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        // SAFETY: readable for their lengths, if not NULL, as the standard has it.
        let (pin, name) = unsafe { (bytes(pin, pin_length)?, bytes(name, name_length)?) };
        if name.is_empty() { session.login(user, pin) } else { Err(Error(CKR_ARGUMENTS_BAD)) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_Logout(session: CK_SESSION_HANDLE) -> CK_RV {
    guard(|| module()?.session(session)?.logout())
}
