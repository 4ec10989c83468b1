//! General-purpose functions (PKCS#11 3.2, 5.4).

use cryptoki_sys::*;

use super::guard;
use super::interfaces::{self, LIST_2_40};
use super::memory::{Output, Place, padded};
use crate::error::{Error, Result};
use crate::module::{self, module};

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_Initialize(arguments: CK_VOID_PTR) -> CK_RV {
    guard(|| {
        let arguments = arguments.cast::<CK_C_INITIALIZE_ARGS>();
        if !arguments.is_null() {
            // SAFETY: not NULL, so by the standard it points to such a structure; it need not be aligned.
            check_locking(&unsafe { arguments.read_unaligned() })?;
        }
        module::initialise()
    })
}

/// We lock with the system's own primitives, or not at all where the application promises not to need it; only an
/// application that forbids them and brings its own cannot be served.
fn check_locking(arguments: &CK_C_INITIALIZE_ARGS) -> Result<()> {
    let given = [
        arguments.CreateMutex.is_some(),
        arguments.DestroyMutex.is_some(),
        arguments.LockMutex.is_some(),
        arguments.UnlockMutex.is_some(),
    ];
    let all = given == [true; 4];
    if !arguments.pReserved.is_null() || (!all && given != [false; 4]) {
        return Err(Error(CKR_ARGUMENTS_BAD));
    }
    if all && arguments.flags & CKF_OS_LOCKING_OK == 0 {
        return Err(Error(CKR_CANT_LOCK));
    }
    Ok(())
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_Finalize(reserved: CK_VOID_PTR) -> CK_RV {
    guard(|| if reserved.is_null() { module::finalise() } else { Err(Error(CKR_ARGUMENTS_BAD)) })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_GetInfo(info: CK_INFO_PTR) -> CK_RV {
    guard(|| {
        module()?;
        // SAFETY: writable, if not NULL, as the standard has it.
        unsafe { Place::new(info) }?.set(CK_INFO {
            cryptokiVersion: interfaces::NEWEST,
            manufacturerID: padded("Keyrivet"),
            flags: 0,
            libraryDescription: padded("Keyrivet TPM 2.0 token"),
            libraryVersion: library_version(),
        });
        Ok(())
    })
}

/// This crate's own version.
pub(super) fn library_version() -> CK_VERSION {
    let part = |text: &str| text.parse().unwrap_or(0);
    CK_VERSION { major: part(env!("CARGO_PKG_VERSION_MAJOR")), minor: part(env!("CARGO_PKG_VERSION_MINOR")) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_GetFunctionList(list: CK_FUNCTION_LIST_PTR_PTR) -> CK_RV {
    guard(|| {
        // SAFETY: writable, if not NULL, as the standard has it.
        unsafe { Place::new(list) }?.set((&raw const LIST_2_40).cast_mut());
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_GetInterfaceList(list: CK_INTERFACE_PTR, count: CK_ULONG_PTR) -> CK_RV {
    guard(|| {
        // SAFETY: `list` has room for `*count` interfaces, as the standard has it.
        let output = unsafe { Output::new(list, count) }?;
        let all = interfaces::all();
        output.fill(all.len(), || Ok(all.iter().map(|interface| interface.0).collect::<Vec<_>>()))
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_GetInterface(
    name: CK_UTF8CHAR_PTR,
    version: CK_VERSION_PTR,
    interface: CK_INTERFACE_PTR_PTR,
    flags: CK_FLAGS,
) -> CK_RV {
    guard(|| {
        // SAFETY: `name`, if not NULL, ends with NUL, and `version`, if not NULL, is readable.
        let (name_fits, version) = unsafe { (interfaces::is_our_name(name), version.as_ref()) };
        // SAFETY: writable, if not NULL, as the standard has it.
        let place = unsafe { Place::new(interface) }?;
        let fits = |known: &&interfaces::Interface| {
            name_fits && flags & !known.0.flags == 0 && version.is_none_or(|wanted| known.is_version(wanted))
        };
        let found = interfaces::all().iter().find(fits).ok_or(Error(CKR_ARGUMENTS_BAD))?;
        place.set((&raw const found.0).cast_mut());
        Ok(())
    })
}
