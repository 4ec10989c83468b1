//! RSA encryption and decryption as OpenSSL calls them (provider-asym_cipher(7)).

use std::ffi::{c_int, c_uchar, c_void};
use std::ptr;

use keyrivet_core::Result;

use super::core_abi::*;
use super::dispatch::{Dispatch, dispatch_table};
use super::guard::{guard, quiet};
use super::output::Output;
use super::params::{Answers, Params, descriptors};
use super::provider::provider;
use super::{bytes, change, give, look, take};
use crate::asym_cipher::{AsymCipher, Way};
use crate::key::ProviderKey;

/// RSA.
pub(crate) const RSA: &[Dispatch] = dispatch_table! {
    OSSL_FUNC_ASYM_CIPHER_NEWCTX: OSSL_FUNC_asym_cipher_newctx_fn = newctx;
    OSSL_FUNC_ASYM_CIPHER_FREECTX: OSSL_FUNC_asym_cipher_freectx_fn = freectx;
    OSSL_FUNC_ASYM_CIPHER_DUPCTX: OSSL_FUNC_asym_cipher_dupctx_fn = dupctx;
    OSSL_FUNC_ASYM_CIPHER_ENCRYPT_INIT: OSSL_FUNC_asym_cipher_encrypt_init_fn = encrypt_init;
    OSSL_FUNC_ASYM_CIPHER_ENCRYPT: OSSL_FUNC_asym_cipher_encrypt_fn = encrypt;
    OSSL_FUNC_ASYM_CIPHER_DECRYPT_INIT: OSSL_FUNC_asym_cipher_decrypt_init_fn = decrypt_init;
    OSSL_FUNC_ASYM_CIPHER_DECRYPT: OSSL_FUNC_asym_cipher_decrypt_fn = decrypt;
    OSSL_FUNC_ASYM_CIPHER_GET_CTX_PARAMS: OSSL_FUNC_asym_cipher_get_ctx_params_fn = get_ctx_params;
    OSSL_FUNC_ASYM_CIPHER_GETTABLE_CTX_PARAMS: OSSL_FUNC_asym_cipher_gettable_ctx_params_fn = gettable_ctx_params;
    OSSL_FUNC_ASYM_CIPHER_SET_CTX_PARAMS: OSSL_FUNC_asym_cipher_set_ctx_params_fn = set_ctx_params;
    OSSL_FUNC_ASYM_CIPHER_SETTABLE_CTX_PARAMS: OSSL_FUNC_asym_cipher_settable_ctx_params_fn = settable_ctx_params;
};

/// Runs `body` on a context of ours.
///
/// # Safety
///
/// `ctx` is null or from [`newctx`] or [`dupctx`], given by the core to one call at a time.
#[track_caller]
unsafe fn with(ctx: *mut c_void, body: impl FnOnce(&mut AsymCipher) -> Result<()>) -> c_int {
    // SAFETY: by this function's own contract.
    let Some(cipher) = (unsafe { change::<AsymCipher>(ctx) }) else { return 0 };
    let provider = cipher.provider().clone();
    guard(provider.core(), 0, || body(cipher).map(|()| 1))
}

unsafe extern "C" fn newctx(provctx: *mut c_void) -> *mut c_void {
    // SAFETY: the core's instance.
    quiet(ptr::null_mut(), || give(AsymCipher::new(unsafe { provider(provctx) })))
}

unsafe extern "C" fn freectx(ctx: *mut c_void) {
    // SAFETY: a context of ours, freed once.
    quiet((), || drop(unsafe { take::<AsymCipher>(ctx) }));
}

unsafe extern "C" fn dupctx(ctx: *mut c_void) -> *mut c_void {
    quiet(ptr::null_mut(), || {
        // SAFETY: a context of ours.
        unsafe { look::<AsymCipher>(ctx) }.map_or(ptr::null_mut(), |cipher| give(cipher.clone()))
    })
}

unsafe extern "C" fn encrypt_init(ctx: *mut c_void, key: *mut c_void, params: *const OSSL_PARAM) -> c_int {
    // SAFETY: a context and a key of ours; parameters for this call.
    unsafe { with(ctx, |cipher| cipher.start(Way::Encrypt, look::<ProviderKey>(key), &Params::new(params))) }
}

unsafe extern "C" fn decrypt_init(ctx: *mut c_void, key: *mut c_void, params: *const OSSL_PARAM) -> c_int {
    // SAFETY: a context and a key of ours; parameters for this call.
    unsafe { with(ctx, |cipher| cipher.start(Way::Decrypt, look::<ProviderKey>(key), &Params::new(params))) }
}

unsafe extern "C" fn encrypt(
    ctx: *mut c_void,
    room: *mut c_uchar,
    length: *mut usize,
    size: usize,
    data: *const c_uchar,
    data_length: usize,
) -> c_int {
    // SAFETY: a context of ours; data and room of the caller's for this call.
    unsafe {
        let output = Output::new(room, length, size);
        with(ctx, |cipher| output.put(cipher.max_length()?, || cipher.encrypt(bytes(data, data_length))))
    }
}

unsafe extern "C" fn decrypt(
    ctx: *mut c_void,
    room: *mut c_uchar,
    length: *mut usize,
    size: usize,
    data: *const c_uchar,
    data_length: usize,
) -> c_int {
    // SAFETY: a context of ours; data and room of the caller's for this call.
    unsafe {
        let output = Output::new(room, length, size);
        with(ctx, |cipher| output.put(cipher.max_length()?, || cipher.decrypt(bytes(data, data_length))))
    }
}

unsafe extern "C" fn get_ctx_params(ctx: *mut c_void, params: *mut OSSL_PARAM) -> c_int {
    // SAFETY: a context of ours; an array of the core's for this call.
    unsafe { with(ctx, |cipher| cipher.answer(&mut Answers::new(params))) }
}

unsafe extern "C" fn gettable_ctx_params(_ctx: *mut c_void, _provctx: *mut c_void) -> *const OSSL_PARAM {
    descriptors(AsymCipher::gettable())
}

unsafe extern "C" fn set_ctx_params(ctx: *mut c_void, params: *const OSSL_PARAM) -> c_int {
    // SAFETY: a context of ours; parameters of the core's for this call.
    unsafe { with(ctx, |cipher| cipher.set(&Params::new(params))) }
}

unsafe extern "C" fn settable_ctx_params(_ctx: *mut c_void, _provctx: *mut c_void) -> *const OSSL_PARAM {
    descriptors(AsymCipher::settable())
}
