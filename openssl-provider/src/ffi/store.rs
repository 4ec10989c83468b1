//! The store of our URIs as OpenSSL calls it (provider-storemgmt(7)).

use std::ffi::{c_char, c_int, c_void};
use std::ptr;

use keyrivet_core::Error;

use super::callback::{Callback, Passphrase};
use super::core_abi::*;
use super::decoder::export_reference;
use super::dispatch::{Dispatch, dispatch_table, text};
use super::guard::{guard, quiet};
use super::params::{Params, descriptors};
use super::provider::provider;
use super::{change, give, look, take};
use crate::store::Store;

/// Loads what a URI of any scheme of ours names.
pub(crate) const ANY: &[Dispatch] = dispatch_table! {
    OSSL_FUNC_STORE_OPEN: OSSL_FUNC_store_open_fn = open;
    OSSL_FUNC_STORE_SETTABLE_CTX_PARAMS: OSSL_FUNC_store_settable_ctx_params_fn = settable_ctx_params;
    OSSL_FUNC_STORE_SET_CTX_PARAMS: OSSL_FUNC_store_set_ctx_params_fn = set_ctx_params;
    OSSL_FUNC_STORE_LOAD: OSSL_FUNC_store_load_fn = load;
    OSSL_FUNC_STORE_EOF: OSSL_FUNC_store_eof_fn = eof;
    OSSL_FUNC_STORE_CLOSE: OSSL_FUNC_store_close_fn = close;
    OSSL_FUNC_STORE_EXPORT_OBJECT: OSSL_FUNC_store_export_object_fn = export_object;
};

unsafe extern "C" fn open(provctx: *mut c_void, uri: *const c_char) -> *mut c_void {
    // SAFETY: the core's instance.
    let provider = unsafe { provider(provctx) };
    guard(provider.core(), ptr::null_mut(), || {
        // SAFETY: the core's text for this call.
        let uri = unsafe { text(uri) };
        let uri = uri.ok_or_else(|| Error::Malformed { what: "URI", reason: "it is not UTF-8".into() })?;
        Ok(give(Store::open(provider.clone(), uri)?))
    })
}

unsafe extern "C" fn settable_ctx_params(_provctx: *mut c_void) -> *const OSSL_PARAM {
    descriptors(Store::settable())
}

unsafe extern "C" fn set_ctx_params(store: *mut c_void, params: *const OSSL_PARAM) -> c_int {
    // SAFETY: a store of ours, which the core gives to one call at a time.
    let Some(store) = (unsafe { change::<Store>(store) }) else { return 0 };
    let provider = store.provider().clone();
    guard(provider.core(), 0, || {
        // SAFETY: parameters of the core's for this call.
        store.set(&unsafe { Params::new(params) })?;
        Ok(1)
    })
}

unsafe extern "C" fn load(
    store: *mut c_void,
    taker: OSSL_CALLBACK,
    taker_argument: *mut c_void,
    passphrase: OSSL_PASSPHRASE_CALLBACK,
    passphrase_argument: *mut c_void,
) -> c_int {
    // SAFETY: a store of ours, which the core gives to one call at a time.
    let Some(store) = (unsafe { change::<Store>(store) }) else { return 0 };
    let provider = store.provider().clone();
    guard(provider.core(), 0, || {
        // SAFETY: callbacks of the core's for this call.
        let (taker, passphrase) =
            unsafe { (Callback::new(taker, taker_argument), Passphrase::new(passphrase, passphrase_argument)) };
        store.load(&taker, &passphrase).map(c_int::from)
    })
}

unsafe extern "C" fn eof(store: *mut c_void) -> c_int {
    // SAFETY: a store of ours.
    quiet(1, || unsafe { look::<Store>(store) }.is_none_or(Store::is_at_end).into())
}

unsafe extern "C" fn close(store: *mut c_void) -> c_int {
    // SAFETY: a store of ours, closed once.
    quiet((), || drop(unsafe { take::<Store>(store) }));
    1
}

unsafe extern "C" fn export_object(
    _store: *mut c_void,
    reference: *const c_void,
    size: usize,
    callback: OSSL_CALLBACK,
    argument: *mut c_void,
) -> c_int {
    // SAFETY: a reference that a decoder or store of this provider made; a callback for this call.
    unsafe { export_reference(reference, size, callback, argument) }
}
