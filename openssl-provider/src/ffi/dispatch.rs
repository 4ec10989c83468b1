//! Tables of functions and algorithms in the form that the core reads.

use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use super::core_abi::{OSSL_ALGORITHM, OSSL_DISPATCH, OSSL_ITEM};

/// One function of a dispatch table; made by [`dispatch_table`].
#[repr(transparent)]
pub(crate) struct Dispatch(pub(super) OSSL_DISPATCH);

// SAFETY: a number and a pointer to a function, never changed.
unsafe impl Sync for Dispatch {}

/// A dispatch table, closed by its end mark.
///
/// Each function is first assigned to a constant of its own type from `core_dispatch.h`, so one with a wrong signature
/// does not compile.
macro_rules! dispatch_table {
    ($($id:ident: $type:ident = $function:expr;)*) => {
        &[
            $($crate::ffi::dispatch::Dispatch($crate::ffi::core_abi::OSSL_DISPATCH {
                function_id: $id as std::ffi::c_int,
                function: {
                    let function: $type = Some($function);
                    // SAFETY: both are pointers to functions; the core casts it back to the type that belongs to the id.
                    unsafe {
                        std::mem::transmute::<$type, Option<unsafe extern "C" fn()>>(function)
                    }
                },
            }),)*
            $crate::ffi::dispatch::Dispatch($crate::ffi::core_abi::OSSL_DISPATCH { function_id: 0, function: None }),
        ]
    };
}
pub(super) use dispatch_table;

/// One algorithm on offer.
#[repr(transparent)]
pub(crate) struct Algorithm(OSSL_ALGORITHM);

// SAFETY: pointers to constants, never changed.
unsafe impl Sync for Algorithm {}

impl Algorithm {
    /// The mark at the end of each table.
    pub(crate) const END: Self = Self(OSSL_ALGORITHM {
        algorithm_names: ptr::null(),
        property_definition: ptr::null(),
        implementation: ptr::null(),
        algorithm_description: ptr::null(),
    });

    /// An algorithm with its names (separated by colons), its properties and its functions.
    pub(crate) const fn new(
        names: &'static CStr,
        properties: &'static CStr,
        functions: &'static [Dispatch],
        description: &'static CStr,
    ) -> Self {
        Self(OSSL_ALGORITHM {
            algorithm_names: names.as_ptr(),
            property_definition: properties.as_ptr(),
            implementation: functions.as_ptr().cast(),
            algorithm_description: description.as_ptr(),
        })
    }
}

/// A table of algorithms as the core wants it.
pub(super) fn algorithms(table: &'static [Algorithm]) -> *const OSSL_ALGORITHM {
    table.as_ptr().cast()
}

/// A number with its text.
#[repr(transparent)]
pub(crate) struct Item(OSSL_ITEM);

// SAFETY: a number and a pointer to a constant text, never changed.
unsafe impl Sync for Item {}

impl Item {
    /// The mark at the end of each table.
    pub(crate) const END: Self = Self(OSSL_ITEM { id: 0, ptr: ptr::null_mut() });

    /// A number with its text.
    pub(crate) const fn new(id: u32, text: &'static CStr) -> Self {
        Self(OSSL_ITEM { id, ptr: text.as_ptr().cast::<c_void>().cast_mut() })
    }
}

/// A table of items as the core wants it.
pub(super) fn items(table: &'static [Item]) -> *const OSSL_ITEM {
    table.as_ptr().cast()
}

/// The text of a C string that the core gave, `None` if it is null or not UTF-8.
///
/// # Safety
///
/// `text` is null or a C string that stays for `'a`.
pub(super) unsafe fn text<'a>(text: *const c_char) -> Option<&'a str> {
    // SAFETY: not null here, and a C string by this function's own contract.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })?.to_str().ok()
}
