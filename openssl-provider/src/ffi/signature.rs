//! Signatures as OpenSSL calls them (provider-signature(7)).

use std::ffi::{c_char, c_int, c_uchar, c_void};
use std::ptr;

use keyrivet_core::Result;
use keyrivet_core::algorithm::HashAlgorithm;

use super::core_abi::*;
use super::dispatch::{Dispatch, dispatch_table, text};
use super::guard::{guard, quiet};
use super::later_abi::*;
use super::output::Output;
use super::params::{Answers, Params, descriptors};
use super::provider::provider;
use super::{bytes, change, give, look, take};
use crate::key::{Family, ProviderKey};
use crate::signature::{Purpose, Signature, SignatureAlgorithm};

/// An algorithm, for functions that are told theirs by the table they are in.
pub(crate) trait Scheme {
    /// It.
    const ALGORITHM: SignatureAlgorithm;
}

/// RSA with any padding and hash.
pub(crate) struct Rsa;
/// ECDSA with any hash.
pub(crate) struct Ecdsa;
/// RSA with PKCS#1 padding and the hash of this place in [`HASHES`].
pub(crate) struct RsaWith<const HASH: usize>;
/// ECDSA with the hash of this place in [`HASHES`].
pub(crate) struct EcdsaWith<const HASH: usize>;

/// Hashes that algorithms have in their names.
const HASHES: [HashAlgorithm; 8] = [
    HashAlgorithm::Sha224,
    HashAlgorithm::Sha256,
    HashAlgorithm::Sha384,
    HashAlgorithm::Sha512,
    HashAlgorithm::Sha3_224,
    HashAlgorithm::Sha3_256,
    HashAlgorithm::Sha3_384,
    HashAlgorithm::Sha3_512,
];

impl Scheme for Rsa {
    const ALGORITHM: SignatureAlgorithm = SignatureAlgorithm { family: Family::Rsa, hash: None };
}

impl Scheme for Ecdsa {
    const ALGORITHM: SignatureAlgorithm = SignatureAlgorithm { family: Family::Ec, hash: None };
}

impl<const HASH: usize> Scheme for RsaWith<HASH> {
    const ALGORITHM: SignatureAlgorithm = SignatureAlgorithm { family: Family::Rsa, hash: Some(HASHES[HASH]) };
}

impl<const HASH: usize> Scheme for EcdsaWith<HASH> {
    const ALGORITHM: SignatureAlgorithm = SignatureAlgorithm { family: Family::Ec, hash: Some(HASHES[HASH]) };
}

/// What every algorithm of signatures can do.
pub(crate) const fn table<S: Scheme>() -> &'static [Dispatch] {
    const {
        dispatch_table! {
            OSSL_FUNC_SIGNATURE_NEWCTX: OSSL_FUNC_signature_newctx_fn = newctx::<S>;
            OSSL_FUNC_SIGNATURE_FREECTX: OSSL_FUNC_signature_freectx_fn = freectx;
            OSSL_FUNC_SIGNATURE_DUPCTX: OSSL_FUNC_signature_dupctx_fn = dupctx;
            OSSL_FUNC_SIGNATURE_SIGN_INIT: OSSL_FUNC_signature_sign_init_fn = sign_init;
            OSSL_FUNC_SIGNATURE_SIGN: OSSL_FUNC_signature_sign_fn = sign;
            OSSL_FUNC_SIGNATURE_VERIFY_INIT: OSSL_FUNC_signature_verify_init_fn = verify_init;
            OSSL_FUNC_SIGNATURE_VERIFY: OSSL_FUNC_signature_verify_fn = verify;
            OSSL_FUNC_SIGNATURE_SIGN_MESSAGE_INIT: OSSL_FUNC_signature_sign_message_init_fn = sign_message_init;
            OSSL_FUNC_SIGNATURE_SIGN_MESSAGE_UPDATE: OSSL_FUNC_signature_sign_message_update_fn = update;
            OSSL_FUNC_SIGNATURE_SIGN_MESSAGE_FINAL: OSSL_FUNC_signature_sign_message_final_fn = sign_final;
            OSSL_FUNC_SIGNATURE_VERIFY_MESSAGE_INIT: OSSL_FUNC_signature_verify_message_init_fn = verify_message_init;
            OSSL_FUNC_SIGNATURE_VERIFY_MESSAGE_UPDATE: OSSL_FUNC_signature_verify_message_update_fn = update;
            OSSL_FUNC_SIGNATURE_VERIFY_MESSAGE_FINAL: OSSL_FUNC_signature_verify_message_final_fn = verify_message_final;
            OSSL_FUNC_SIGNATURE_QUERY_KEY_TYPES: OSSL_FUNC_signature_query_key_types_fn = query_key_types::<S>;
            OSSL_FUNC_SIGNATURE_GET_CTX_PARAMS: OSSL_FUNC_signature_get_ctx_params_fn = get_ctx_params;
            OSSL_FUNC_SIGNATURE_GETTABLE_CTX_PARAMS: OSSL_FUNC_signature_gettable_ctx_params_fn = gettable_ctx_params::<S>;
            OSSL_FUNC_SIGNATURE_SET_CTX_PARAMS: OSSL_FUNC_signature_set_ctx_params_fn = set_ctx_params;
            OSSL_FUNC_SIGNATURE_SETTABLE_CTX_PARAMS: OSSL_FUNC_signature_settable_ctx_params_fn = settable_ctx_params::<S>;
            // What follows is asked of algorithms that are named as the type of their keys only.
            OSSL_FUNC_SIGNATURE_VERIFY_RECOVER_INIT: OSSL_FUNC_signature_verify_recover_init_fn = verify_recover_init;
            OSSL_FUNC_SIGNATURE_VERIFY_RECOVER: OSSL_FUNC_signature_verify_recover_fn = verify_recover;
            OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT: OSSL_FUNC_signature_digest_sign_init_fn = digest_sign_init;
            OSSL_FUNC_SIGNATURE_DIGEST_SIGN_UPDATE: OSSL_FUNC_signature_digest_sign_update_fn = update;
            OSSL_FUNC_SIGNATURE_DIGEST_SIGN_FINAL: OSSL_FUNC_signature_digest_sign_final_fn = sign_final;
            OSSL_FUNC_SIGNATURE_DIGEST_SIGN: OSSL_FUNC_signature_digest_sign_fn = sign;
            OSSL_FUNC_SIGNATURE_DIGEST_VERIFY_INIT: OSSL_FUNC_signature_digest_verify_init_fn = digest_verify_init;
            OSSL_FUNC_SIGNATURE_DIGEST_VERIFY_UPDATE: OSSL_FUNC_signature_digest_verify_update_fn = update;
            OSSL_FUNC_SIGNATURE_DIGEST_VERIFY_FINAL: OSSL_FUNC_signature_digest_verify_final_fn = digest_verify_final;
            OSSL_FUNC_SIGNATURE_DIGEST_VERIFY: OSSL_FUNC_signature_digest_verify_fn = verify;
        }
    }
}

/// Runs `body` on a context of ours.
///
/// # Safety
///
/// `ctx` is null or from [`newctx`] or [`dupctx`], given by the core to one call at a time.
#[track_caller]
unsafe fn with(ctx: *mut c_void, body: impl FnOnce(&mut Signature) -> Result<()>) -> c_int {
    // SAFETY: by this function's own contract.
    let Some(signature) = (unsafe { change::<Signature>(ctx) }) else { return 0 };
    let provider = signature.provider().clone();
    guard(provider.core(), 0, || body(signature).map(|()| 1))
}

unsafe extern "C" fn newctx<S: Scheme>(provctx: *mut c_void, _properties: *const c_char) -> *mut c_void {
    // SAFETY: the core's instance.
    quiet(ptr::null_mut(), || give(Signature::new(unsafe { provider(provctx) }, S::ALGORITHM)))
}

unsafe extern "C" fn freectx(ctx: *mut c_void) {
    // SAFETY: a context of ours, freed once.
    quiet((), || drop(unsafe { take::<Signature>(ctx) }));
}

unsafe extern "C" fn dupctx(ctx: *mut c_void) -> *mut c_void {
    quiet(ptr::null_mut(), || {
        // SAFETY: a context of ours.
        unsafe { look::<Signature>(ctx) }.map_or(ptr::null_mut(), |signature| give(signature.clone()))
    })
}

/// # Safety
///
/// As [`with`]; `key` is null or a key of ours, `params` null or an array for this call.
unsafe fn start(ctx: *mut c_void, purpose: Purpose, key: *mut c_void, params: *const OSSL_PARAM) -> c_int {
    // SAFETY: by this function's own contract.
    unsafe { with(ctx, |signature| signature.start(purpose, look::<ProviderKey>(key), &Params::new(params))) }
}

/// # Safety
///
/// As [`start`]; `digest` is null or a C string.
unsafe fn start_message(
    ctx: *mut c_void,
    purpose: Purpose,
    digest: *const c_char,
    key: *mut c_void,
    params: *const OSSL_PARAM,
) -> c_int {
    // SAFETY: by this function's own contract.
    unsafe {
        with(ctx, |signature| {
            signature.start_message(purpose, text(digest), look::<ProviderKey>(key), &Params::new(params))
        })
    }
}

unsafe extern "C" fn sign_init(ctx: *mut c_void, key: *mut c_void, params: *const OSSL_PARAM) -> c_int {
    // SAFETY: given by the core as the contract says.
    unsafe { start(ctx, Purpose::Sign, key, params) }
}

unsafe extern "C" fn verify_init(ctx: *mut c_void, key: *mut c_void, params: *const OSSL_PARAM) -> c_int {
    // SAFETY: given by the core as the contract says.
    unsafe { start(ctx, Purpose::Verify, key, params) }
}

unsafe extern "C" fn verify_recover_init(ctx: *mut c_void, key: *mut c_void, params: *const OSSL_PARAM) -> c_int {
    // SAFETY: given by the core as the contract says.
    unsafe { start(ctx, Purpose::Recover, key, params) }
}

unsafe extern "C" fn sign_message_init(ctx: *mut c_void, key: *mut c_void, params: *const OSSL_PARAM) -> c_int {
    // SAFETY: given by the core as the contract says.
    unsafe { start_message(ctx, Purpose::Sign, ptr::null(), key, params) }
}

unsafe extern "C" fn verify_message_init(ctx: *mut c_void, key: *mut c_void, params: *const OSSL_PARAM) -> c_int {
    // SAFETY: given by the core as the contract says.
    unsafe { start_message(ctx, Purpose::Verify, ptr::null(), key, params) }
}

unsafe extern "C" fn digest_sign_init(
    ctx: *mut c_void,
    digest: *const c_char,
    key: *mut c_void,
    params: *const OSSL_PARAM,
) -> c_int {
    // SAFETY: given by the core as the contract says.
    unsafe { start_message(ctx, Purpose::Sign, digest, key, params) }
}

unsafe extern "C" fn digest_verify_init(
    ctx: *mut c_void,
    digest: *const c_char,
    key: *mut c_void,
    params: *const OSSL_PARAM,
) -> c_int {
    // SAFETY: given by the core as the contract says.
    unsafe { start_message(ctx, Purpose::Verify, digest, key, params) }
}

unsafe extern "C" fn sign(
    ctx: *mut c_void,
    room: *mut c_uchar,
    length: *mut usize,
    size: usize,
    data: *const c_uchar,
    data_length: usize,
) -> c_int {
    // SAFETY: the caller's room for this call.
    let output = unsafe { Output::new(room, length, size) };
    // SAFETY: a context of ours; data of the caller's for this call.
    unsafe { with(ctx, |signature| output.put(signature.max_length()?, || signature.sign(bytes(data, data_length)))) }
}

unsafe extern "C" fn verify(
    ctx: *mut c_void,
    signature: *const c_uchar,
    length: usize,
    data: *const c_uchar,
    data_length: usize,
) -> c_int {
    // SAFETY: a context of ours; data of the caller's for this call.
    unsafe { with(ctx, |state| state.verify(bytes(signature, length), bytes(data, data_length))) }
}

unsafe extern "C" fn update(ctx: *mut c_void, data: *const c_uchar, length: usize) -> c_int {
    // SAFETY: a context of ours; data of the caller's for this call.
    unsafe { with(ctx, |signature| signature.update(bytes(data, length))) }
}

unsafe extern "C" fn sign_final(ctx: *mut c_void, room: *mut c_uchar, length: *mut usize, size: usize) -> c_int {
    // SAFETY: the caller's room for this call.
    let output = unsafe { Output::new(room, length, size) };
    // SAFETY: a context of ours.
    unsafe { with(ctx, |signature| output.put(signature.max_length()?, || signature.finish())) }
}

unsafe extern "C" fn digest_verify_final(ctx: *mut c_void, signature: *const c_uchar, length: usize) -> c_int {
    // SAFETY: a context of ours; data of the caller's for this call.
    unsafe { with(ctx, |state| state.finish_verification(bytes(signature, length))) }
}

unsafe extern "C" fn verify_message_final(ctx: *mut c_void) -> c_int {
    // SAFETY: a context of ours.
    unsafe { with(ctx, Signature::finish_expected) }
}

unsafe extern "C" fn verify_recover(
    ctx: *mut c_void,
    room: *mut c_uchar,
    length: *mut usize,
    size: usize,
    signature: *const c_uchar,
    signature_length: usize,
) -> c_int {
    // SAFETY: a context of ours; signature and room of the caller's for this call.
    unsafe {
        let output = Output::new(room, length, size);
        with(ctx, |state| output.put(state.max_length()?, || state.recover(bytes(signature, signature_length))))
    }
}

unsafe extern "C" fn query_key_types<S: Scheme>() -> *mut *const c_char {
    struct Names([*const c_char; 2]);
    // SAFETY: pointers to constants, never changed.
    unsafe impl Sync for Names {}
    static RSA: Names = Names([c"RSA".as_ptr(), ptr::null()]);
    static EC: Names = Names([c"EC".as_ptr(), ptr::null()]);
    let names = match S::ALGORITHM.family {
        Family::Rsa | Family::RsaPss => &RSA,
        Family::Ec => &EC,
    };
    // The core only reads them.
    names.0.as_ptr().cast_mut()
}

unsafe extern "C" fn get_ctx_params(ctx: *mut c_void, params: *mut OSSL_PARAM) -> c_int {
    // SAFETY: a context of ours; an array of the core's for this call.
    unsafe { with(ctx, |signature| signature.answer(&mut Answers::new(params))) }
}

unsafe extern "C" fn gettable_ctx_params<S: Scheme>(_ctx: *mut c_void, _provctx: *mut c_void) -> *const OSSL_PARAM {
    descriptors(Signature::gettable(S::ALGORITHM))
}

unsafe extern "C" fn set_ctx_params(ctx: *mut c_void, params: *const OSSL_PARAM) -> c_int {
    // SAFETY: a context of ours; parameters of the core's for this call.
    unsafe { with(ctx, |signature| signature.set(&Params::new(params))) }
}

unsafe extern "C" fn settable_ctx_params<S: Scheme>(_ctx: *mut c_void, _provctx: *mut c_void) -> *const OSSL_PARAM {
    descriptors(Signature::settable(S::ALGORITHM))
}
