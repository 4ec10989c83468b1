//! ECDH as OpenSSL calls it (provider-keyexch(7)).

use std::ffi::{c_int, c_uchar, c_void};
use std::ptr;

use keyrivet_core::Result;

use super::core_abi::*;
use super::dispatch::{Dispatch, dispatch_table};
use super::guard::{guard, quiet};
use super::output::Output;
use super::params::{Answers, Params, descriptors};
use super::provider::provider;
use super::{change, give, look, take};
use crate::key::ProviderKey;
use crate::keyexch::KeyExchange;

/// ECDH.
pub(crate) const ECDH: &[Dispatch] = dispatch_table! {
    OSSL_FUNC_KEYEXCH_NEWCTX: OSSL_FUNC_keyexch_newctx_fn = newctx;
    OSSL_FUNC_KEYEXCH_FREECTX: OSSL_FUNC_keyexch_freectx_fn = freectx;
    OSSL_FUNC_KEYEXCH_DUPCTX: OSSL_FUNC_keyexch_dupctx_fn = dupctx;
    OSSL_FUNC_KEYEXCH_INIT: OSSL_FUNC_keyexch_init_fn = init;
    OSSL_FUNC_KEYEXCH_SET_PEER: OSSL_FUNC_keyexch_set_peer_fn = set_peer;
    OSSL_FUNC_KEYEXCH_DERIVE: OSSL_FUNC_keyexch_derive_fn = derive;
    OSSL_FUNC_KEYEXCH_GET_CTX_PARAMS: OSSL_FUNC_keyexch_get_ctx_params_fn = get_ctx_params;
    OSSL_FUNC_KEYEXCH_GETTABLE_CTX_PARAMS: OSSL_FUNC_keyexch_gettable_ctx_params_fn = gettable_ctx_params;
    OSSL_FUNC_KEYEXCH_SET_CTX_PARAMS: OSSL_FUNC_keyexch_set_ctx_params_fn = set_ctx_params;
    OSSL_FUNC_KEYEXCH_SETTABLE_CTX_PARAMS: OSSL_FUNC_keyexch_settable_ctx_params_fn = settable_ctx_params;
};

/// Runs `body` on a context of ours.
///
/// # Safety
///
/// `ctx` is null or from [`newctx`] or [`dupctx`], given by the core to one call at a time.
#[track_caller]
unsafe fn with(ctx: *mut c_void, body: impl FnOnce(&mut KeyExchange) -> Result<()>) -> c_int {
    // SAFETY: by this function's own contract.
    let Some(exchange) = (unsafe { change::<KeyExchange>(ctx) }) else { return 0 };
    let provider = exchange.provider().clone();
    guard(provider.core(), 0, || body(exchange).map(|()| 1))
}

unsafe extern "C" fn newctx(provctx: *mut c_void) -> *mut c_void {
    // SAFETY: the core's instance.
    quiet(ptr::null_mut(), || give(KeyExchange::new(unsafe { provider(provctx) })))
}

unsafe extern "C" fn freectx(ctx: *mut c_void) {
    // SAFETY: a context of ours, freed once.
    quiet((), || drop(unsafe { take::<KeyExchange>(ctx) }));
}

unsafe extern "C" fn dupctx(ctx: *mut c_void) -> *mut c_void {
    quiet(ptr::null_mut(), || {
        // SAFETY: a context of ours.
        unsafe { look::<KeyExchange>(ctx) }.map_or(ptr::null_mut(), |exchange| give(exchange.clone()))
    })
}

unsafe extern "C" fn init(ctx: *mut c_void, key: *mut c_void, params: *const OSSL_PARAM) -> c_int {
    // SAFETY: a context and a key of ours; parameters for this call.
    unsafe { with(ctx, |exchange| exchange.start(look::<ProviderKey>(key), &Params::new(params))) }
}

unsafe extern "C" fn set_peer(ctx: *mut c_void, peer: *mut c_void) -> c_int {
    // SAFETY: a context and a key of ours.
    unsafe { with(ctx, |exchange| exchange.set_peer(look::<ProviderKey>(peer))) }
}

unsafe extern "C" fn derive(ctx: *mut c_void, room: *mut c_uchar, length: *mut usize, size: usize) -> c_int {
    // SAFETY: a context of ours; the caller's room for this call.
    unsafe {
        let output = Output::new(room, length, size);
        with(ctx, |exchange| output.put(exchange.length()?, || exchange.derive()))
    }
}

unsafe extern "C" fn get_ctx_params(ctx: *mut c_void, params: *mut OSSL_PARAM) -> c_int {
    // SAFETY: a context of ours; an array of the core's for this call.
    unsafe { with(ctx, |exchange| exchange.answer(&mut Answers::new(params))) }
}

unsafe extern "C" fn gettable_ctx_params(_ctx: *mut c_void, _provctx: *mut c_void) -> *const OSSL_PARAM {
    descriptors(KeyExchange::gettable())
}

unsafe extern "C" fn set_ctx_params(ctx: *mut c_void, params: *const OSSL_PARAM) -> c_int {
    // SAFETY: a context of ours; parameters of the core's for this call.
    unsafe { with(ctx, |exchange| exchange.set(&Params::new(params))) }
}

unsafe extern "C" fn settable_ctx_params(_ctx: *mut c_void, _provctx: *mut c_void) -> *const OSSL_PARAM {
    descriptors(KeyExchange::settable())
}
