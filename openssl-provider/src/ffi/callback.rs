//! The core's callbacks: to take an object from us, and to ask the user for a PIN.

use std::ffi::c_void;
use std::ptr;

use keyrivet_core::{Error, Result};
use zeroize::Zeroizing;

use super::core_abi::*;
use super::params::ParamList;
use crate::key::ProviderKey;

/// Takes parameters, or an object described by them.
pub(crate) struct Callback {
    function: OSSL_CALLBACK,
    argument: *mut c_void,
}

impl Callback {
    /// Wraps a callback.
    ///
    /// # Safety
    ///
    /// Both came together from the core, for a call that is still under way.
    pub(super) unsafe fn new(function: OSSL_CALLBACK, argument: *mut c_void) -> Self {
        Self { function, argument }
    }

    fn call(&self, params: &ParamList, more: Option<OSSL_PARAM>) -> bool {
        let Some(function) = self.function else { return false };
        // SAFETY: the array has its end mark, and what it points at outlives the call.
        params.lend(more, |array| unsafe { function(array, self.argument) } == 1)
    }

    /// Gives parameters; says whether they were taken.
    pub(crate) fn give(&self, params: &ParamList) -> bool {
        self.call(params, None)
    }

    /// Gives a key, by reference for `keymgmt_load` or `export_object`; says whether it was taken.
    pub(crate) fn give_key(&self, key: ProviderKey) -> bool {
        let data_type = key.family().name().to_string_lossy();
        let params = ParamList::default()
            .number(OSSL_OBJECT_PARAM_TYPE, OSSL_OBJECT_PKEY as i32)
            .text(OSSL_OBJECT_PARAM_DATA_TYPE, &data_type);
        let mut pointer = super::give(key);
        let reference = OSSL_PARAM {
            key: OSSL_OBJECT_PARAM_REFERENCE.as_ptr(),
            data_type: OSSL_PARAM_OCTET_STRING,
            data: ptr::from_mut(&mut pointer).cast(),
            data_size: size_of::<*mut c_void>(),
            return_size: usize::MAX,
        };
        let taken = self.call(&params, Some(reference));
        // Whoever keeps the key has put null into the reference (`take_reference`).
        // SAFETY: from `give` above, and taken back only here or there.
        drop(unsafe { super::take::<ProviderKey>(pointer) });
        taken
    }
}

/// Takes the key out of a reference made by [`Callback::give_key`].
///
/// # Safety
///
/// `reference` points at `size` writable bytes that [`Callback::give_key`] made, unless `size` is another than its.
pub(super) unsafe fn take_reference(reference: *const c_void, size: usize) -> Option<Box<ProviderKey>> {
    if reference.is_null() || size != size_of::<*mut c_void>() {
        return None;
    }
    let reference = reference.cast::<*mut c_void>().cast_mut();
    // SAFETY: a pointer variable of `give_key`, which waits for the callback to return and sees the null.
    unsafe {
        let pointer = reference.read_unaligned();
        reference.write_unaligned(ptr::null_mut());
        super::take(pointer)
    }
}

/// Looks at the key in a reference made by [`Callback::give_key`].
///
/// # Safety
///
/// As [`take_reference`].
pub(super) unsafe fn look_reference<'a>(reference: *const c_void, size: usize) -> Option<&'a ProviderKey> {
    if reference.is_null() || size != size_of::<*mut c_void>() {
        return None;
    }
    // SAFETY: a pointer variable of `give_key`.
    unsafe { super::look(reference.cast::<*mut c_void>().read_unaligned()) }
}

/// Asks the user, by whatever means the application has.
pub(crate) struct Passphrase {
    function: OSSL_PASSPHRASE_CALLBACK,
    argument: *mut c_void,
}

impl Passphrase {
    /// Longest answer taken.
    const MAX: usize = 1024;

    /// Wraps a callback.
    ///
    /// # Safety
    ///
    /// Both came together from the core, for a call that is still under way.
    pub(super) unsafe fn new(function: OSSL_PASSPHRASE_CALLBACK, argument: *mut c_void) -> Self {
        Self { function, argument }
    }

    /// Asks for the PIN of `what`.
    ///
    /// Errors: [`Error::NotLoggedIn`] where nobody answers.
    pub(crate) fn ask(&self, what: &str) -> Result<Zeroizing<Vec<u8>>> {
        let function = self.function.ok_or(Error::NotLoggedIn)?;
        let params = ParamList::default().text(OSSL_PASSPHRASE_PARAM_INFO, what);
        let mut answer = Zeroizing::new(vec![0_u8; Self::MAX]);
        let mut length = 0;
        // SAFETY: the buffer is as long as is said, and the parameters outlive the call.
        let answered = params.lend(None, |array| unsafe {
            function(answer.as_mut_ptr().cast(), answer.len(), &mut length, array, self.argument)
        });
        if answered != 1 || length > Self::MAX {
            return Err(Error::NotLoggedIn);
        }
        answer.truncate(length);
        Ok(answer)
    }
}
