//! The C side: every exported function, by the chapters of the standard. The only place with unsafe code.
//!
//! Each function reads what it is given into safe types, calls the safe side once, and writes what comes out. Nothing
//! it is given is trusted but the one thing C cannot tell: that a pointer that is not NULL points to as much memory
//! as the application says.
#![allow(unsafe_code)]

mod decrypt;
mod digest;
mod dual;
mod encrypt;
mod general;
mod interfaces;
mod key;
mod memory;
mod object;
mod random;
mod session;
mod sign;
mod slot;
mod unsupported;
mod verify;

use std::panic::{AssertUnwindSafe, catch_unwind};

use cryptoki_sys::*;

use crate::error::{Error, Result};
use crate::mechanism::Mechanism;
use crate::module::module;
use crate::session::Session;

/// The one boundary: runs a function's body, and lets no panic reach the application.
fn guard(body: impl FnOnce() -> Result<()>) -> CK_RV {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => CKR_OK,
        Ok(Err(Error(value))) => value,
        Err(panic) => {
            // Dropping it runs code we do not know, which might panic once more.
            std::mem::forget(panic);
            CKR_GENERAL_ERROR
        }
    }
}

/// Starts an operation of `kind` with what the application gives, or cancels the one that runs where it gives NULL
/// (PKCS#11 3.2, C_EncryptInit and its likes).
///
/// # Safety
/// `wanted`, if not NULL, is readable, and so is its parameter.
unsafe fn start(
    session: CK_SESSION_HANDLE,
    wanted: CK_MECHANISM_PTR,
    kind: CK_FLAGS,
    start: impl FnOnce(&Session, Mechanism<'_>) -> Result<()>,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        // SAFETY: promised.
        match unsafe { memory::mechanism(wanted) }? {
            Some(mechanism) => start(&session, mechanism),
            None => {
                session.operations().cancel(kind);
                Ok(())
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_stops_at_the_boundary() {
        assert_eq!(guard(|| Ok(())), CKR_OK);
        assert_eq!(guard(|| Err(Error(CKR_PIN_INCORRECT))), CKR_PIN_INCORRECT);
        // Raised without the panic hook, which would write to the test's standard error.
        assert_eq!(guard(|| std::panic::resume_unwind(Box::new("a bug"))), CKR_GENERAL_ERROR);
    }
}
