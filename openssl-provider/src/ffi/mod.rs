//! The boundary to OpenSSL, and the only unsafe code: pointers come in here and leave as values.
#![allow(unsafe_code)]

pub(crate) mod asym_cipher;
pub(crate) mod callback;
pub(crate) mod core;
#[allow(dead_code, missing_docs, non_camel_case_types, unreachable_pub)]
#[rustfmt::skip]
pub(crate) mod core_abi;
pub(crate) mod decoder;
pub(crate) mod dispatch;
pub(crate) mod encoder;
mod guard;
pub(crate) mod keyexch;
pub(crate) mod keymgmt;
pub(crate) mod later_abi;
mod output;
pub(crate) mod params;
mod provider;
pub(crate) mod rand;
pub(crate) mod signature;
pub(crate) mod store;

use std::ffi::c_void;

/// Hands a value to OpenSSL, which gives it back to the type's own `free`.
fn give<T>(value: T) -> *mut c_void {
    Box::into_raw(Box::new(value)).cast()
}

/// Takes back what [`give`] gave, to be dropped.
///
/// # Safety
///
/// `pointer` is null or comes from [`give`] with the same `T`, and was not taken back before.
unsafe fn take<T>(pointer: *mut c_void) -> Option<Box<T>> {
    // SAFETY: as this function's own contract says.
    (!pointer.is_null()).then(|| unsafe { Box::from_raw(pointer.cast()) })
}

/// Looks at what [`give`] gave.
///
/// # Safety
///
/// `pointer` is null or comes from [`give`] with the same `T`; nobody changes the value meanwhile.
unsafe fn look<'a, T>(pointer: *const c_void) -> Option<&'a T> {
    // SAFETY: as this function's own contract says.
    unsafe { pointer.cast::<T>().as_ref() }
}

/// Changes what [`give`] gave.
///
/// # Safety
///
/// `pointer` is null or comes from [`give`] with the same `T`; nobody else looks at the value meanwhile.
unsafe fn change<'a, T>(pointer: *mut c_void) -> Option<&'a mut T> {
    // SAFETY: as this function's own contract says.
    unsafe { pointer.cast::<T>().as_mut() }
}

/// `length` bytes at `pointer`, which may be null if there are none.
///
/// # Safety
///
/// The bytes stay readable and unchanged for `'a`.
unsafe fn bytes<'a>(pointer: *const u8, length: usize) -> &'a [u8] {
    if pointer.is_null() || length == 0 {
        return &[];
    }
    // SAFETY: not null, and readable by this function's own contract.
    unsafe { std::slice::from_raw_parts(pointer, length) }
}
