//! libcrypto with the provider built in, so that the fuzzer sees through it.
#![allow(dead_code)]

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{null, null_mut};
use std::sync::OnceLock;

#[allow(unused_imports)]
pub use openssl_sys::{BIO, BIO_free_all, BIO_new_mem_buf, EVP_PKEY, EVP_PKEY_CTX, EVP_PKEY_CTX_free, EVP_PKEY_free};
use openssl_sys::{OSSL_LIB_CTX, OSSL_LIB_CTX_new, OSSL_PROVIDER, OSSL_PROVIDER_load};

// Links the provider.
extern crate keyrivet as _;

/// <openssl/core.h>
#[repr(C)]
pub struct OsslParam {
    pub key: *const c_char,
    pub data_type: u32,
    pub data: *mut c_void,
    pub data_size: usize,
    pub return_size: usize,
}

type Init = unsafe extern "C" fn(*const c_void, *const c_void, *mut *const c_void, *mut *mut c_void) -> c_int;

unsafe extern "C" {
    fn OSSL_provider_init(
        handle: *const c_void,
        core: *const c_void,
        provider: *mut *const c_void,
        context: *mut *mut c_void,
    ) -> c_int;
    fn OSSL_PROVIDER_add_builtin(context: *mut OSSL_LIB_CTX, name: *const c_char, init: Init) -> c_int;
    fn OSSL_DECODER_CTX_new_for_pkey(
        key: *mut *mut EVP_PKEY,
        input: *const c_char,
        structure: *const c_char,
        kind: *const c_char,
        selection: c_int,
        context: *mut OSSL_LIB_CTX,
        properties: *const c_char,
    ) -> *mut c_void;
    fn OSSL_DECODER_from_bio(decoder: *mut c_void, bio: *mut BIO) -> c_int;
    fn EVP_PKEY_CTX_new_from_name(
        context: *mut OSSL_LIB_CTX,
        name: *const c_char,
        properties: *const c_char,
    ) -> *mut EVP_PKEY_CTX;
    fn EVP_PKEY_CTX_new_from_pkey(
        context: *mut OSSL_LIB_CTX,
        key: *mut EVP_PKEY,
        properties: *const c_char,
    ) -> *mut EVP_PKEY_CTX;
    pub fn EVP_PKEY_CTX_set_params(context: *mut EVP_PKEY_CTX, params: *const OsslParam) -> c_int;
    pub fn EVP_PKEY_CTX_get_params(context: *mut EVP_PKEY_CTX, params: *mut OsslParam) -> c_int;
    pub fn EVP_PKEY_get_params(key: *const EVP_PKEY, params: *mut OsslParam) -> c_int;
    pub fn EVP_PKEY_keygen_init(context: *mut EVP_PKEY_CTX) -> c_int;
    pub fn EVP_PKEY_sign_init(context: *mut EVP_PKEY_CTX) -> c_int;
    pub fn EVP_PKEY_verify_init(context: *mut EVP_PKEY_CTX) -> c_int;
    pub fn EVP_PKEY_decrypt_init(context: *mut EVP_PKEY_CTX) -> c_int;
    pub fn EVP_PKEY_encrypt_init(context: *mut EVP_PKEY_CTX) -> c_int;
    pub fn EVP_PKEY_derive_init(context: *mut EVP_PKEY_CTX) -> c_int;
    pub fn EVP_PKEY_fromdata_init(context: *mut EVP_PKEY_CTX) -> c_int;
    pub fn EVP_PKEY_fromdata(
        context: *mut EVP_PKEY_CTX,
        key: *mut *mut EVP_PKEY,
        selection: c_int,
        params: *const OsslParam,
    ) -> c_int;
    pub fn ERR_clear_error();
}

const OURS: &CStr = c"provider=keyrivet";

/// A library context with the provider and `default`.
fn context() -> *mut OSSL_LIB_CTX {
    static CONTEXT: OnceLock<usize> = OnceLock::new();
    let context = CONTEXT.get_or_init(|| {
        // SAFETY: a new context, which is never freed.
        unsafe {
            let context = OSSL_LIB_CTX_new();
            assert!(OSSL_PROVIDER_add_builtin(context, c"keyrivet".as_ptr(), OSSL_provider_init) == 1);
            let load = |name: &CStr| -> *mut OSSL_PROVIDER { OSSL_PROVIDER_load(context, name.as_ptr()) };
            assert!(!load(c"keyrivet").is_null() && !load(c"default").is_null());
            context as usize
        }
    });
    *context as *mut OSSL_LIB_CTX
}

/// Whatever key OpenSSL finds in a file of this form (`PEM` or `DER`).
pub fn decode(content: &[u8], form: Option<&'static CStr>) -> *mut EVP_PKEY {
    let decoder = decoder(form);
    // SAFETY: the stream reads bytes that outlive it and is freed once; the decoder and the place of its key last.
    unsafe {
        let bio = BIO_new_mem_buf(content.as_ptr().cast(), content.len() as c_int);
        OSSL_DECODER_from_bio(decoder.context, bio);
        BIO_free_all(bio);
        ERR_clear_error();
        std::mem::replace(&mut *decoder.key, null_mut())
    }
}

/// OpenSSL's, and where it leaves the key.
#[derive(Clone, Copy)]
struct Decoder {
    context: *mut c_void,
    key: *mut *mut EVP_PKEY,
}

/// The decoder for this form. To gather all that could be of use takes OpenSSL longer than any input.
fn decoder(form: Option<&'static CStr>) -> Decoder {
    thread_local!(static DECODERS: RefCell<Vec<(Option<&'static CStr>, Decoder)>> = RefCell::default());
    DECODERS.with_borrow_mut(|decoders| {
        if let Some((_, known)) = decoders.iter().find(|(known, _)| *known == form) {
            return *known;
        }
        let key = Box::into_raw(Box::new(null_mut()));
        let name = form.map_or(null(), CStr::as_ptr);
        // SAFETY: C strings, a valid context, and a place that lasts.
        let new = unsafe { OSSL_DECODER_CTX_new_for_pkey(key, name, null(), null(), 0, context(), null()) };
        assert!(!new.is_null());
        decoders.push((form, Decoder { context: new, key }));
        decoders[decoders.len() - 1].1
    })
}

/// A context for keys of this type.
pub fn for_type(name: &CStr) -> *mut EVP_PKEY_CTX {
    // SAFETY: C strings and a valid context.
    unsafe { EVP_PKEY_CTX_new_from_name(context(), name.as_ptr(), OURS.as_ptr()) }
}

/// A context for this key.
pub fn for_key(key: *mut EVP_PKEY) -> *mut EVP_PKEY_CTX {
    // SAFETY: the key is valid, and the context holds a reference of its own.
    unsafe { EVP_PKEY_CTX_new_from_pkey(context(), key, OURS.as_ptr()) }
}
