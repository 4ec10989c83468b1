//! Decoders as OpenSSL calls them (provider-decoder(7)).

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;

use super::callback::{Callback, Passphrase, look_reference};
use super::core::Bio;
use super::core_abi::*;
use super::dispatch::{Dispatch, dispatch_table};
use super::guard::{guard, quiet};
use super::provider::provider;
use super::{give, look, take};
use crate::decoder::{Structure, decode_der, decode_pem};
use crate::key::Family;
use crate::provider::Provider;

/// Reads PEM blocks.
pub(crate) const PEM: &[Dispatch] = dispatch_table! {
    OSSL_FUNC_DECODER_NEWCTX: OSSL_FUNC_decoder_newctx_fn = newctx;
    OSSL_FUNC_DECODER_FREECTX: OSSL_FUNC_decoder_freectx_fn = freectx;
    OSSL_FUNC_DECODER_DECODE: OSSL_FUNC_decoder_decode_fn = pem;
};
/// Reads RSA keys from key files.
pub(crate) const TSS2_RSA: &[Dispatch] = table::<Tss2Rsa>();
/// Reads RSA-PSS keys from key files.
pub(crate) const TSS2_RSA_PSS: &[Dispatch] = table::<Tss2RsaPss>();
/// Reads EC keys from key files.
pub(crate) const TSS2_EC: &[Dispatch] = table::<Tss2Ec>();
/// Reads files with a URI that names an RSA key.
pub(crate) const URI_RSA: &[Dispatch] = table::<UriRsa>();
/// Reads files with a URI that names an RSA-PSS key.
pub(crate) const URI_RSA_PSS: &[Dispatch] = table::<UriRsaPss>();
/// Reads files with a URI that names an EC key.
pub(crate) const URI_EC: &[Dispatch] = table::<UriEc>();

/// What a decoder of DER looks for.
trait Input {
    const STRUCTURE: Structure;
    const FAMILY: Family;
}

struct Tss2Rsa;
struct Tss2RsaPss;
struct Tss2Ec;
struct UriRsa;
struct UriRsaPss;
struct UriEc;

impl Input for Tss2Rsa {
    const STRUCTURE: Structure = Structure::Tss2;
    const FAMILY: Family = Family::Rsa;
}

impl Input for Tss2RsaPss {
    const STRUCTURE: Structure = Structure::Tss2;
    const FAMILY: Family = Family::RsaPss;
}

impl Input for Tss2Ec {
    const STRUCTURE: Structure = Structure::Tss2;
    const FAMILY: Family = Family::Ec;
}

impl Input for UriRsa {
    const STRUCTURE: Structure = Structure::Uri;
    const FAMILY: Family = Family::Rsa;
}

impl Input for UriRsaPss {
    const STRUCTURE: Structure = Structure::Uri;
    const FAMILY: Family = Family::RsaPss;
}

impl Input for UriEc {
    const STRUCTURE: Structure = Structure::Uri;
    const FAMILY: Family = Family::Ec;
}

const fn table<I: Input>() -> &'static [Dispatch] {
    const {
        dispatch_table! {
            OSSL_FUNC_DECODER_NEWCTX: OSSL_FUNC_decoder_newctx_fn = newctx;
            OSSL_FUNC_DECODER_FREECTX: OSSL_FUNC_decoder_freectx_fn = freectx;
            OSSL_FUNC_DECODER_DOES_SELECTION: OSSL_FUNC_decoder_does_selection_fn = does_selection::<I>;
            OSSL_FUNC_DECODER_DECODE: OSSL_FUNC_decoder_decode_fn = der::<I>;
            OSSL_FUNC_DECODER_EXPORT_OBJECT: OSSL_FUNC_decoder_export_object_fn = export_object;
        }
    }
}

/// A decoder has no state but its provider.
type Context = Arc<Provider>;

unsafe extern "C" fn newctx(provctx: *mut c_void) -> *mut c_void {
    // SAFETY: the core's instance.
    quiet(ptr::null_mut(), || give::<Context>(unsafe { provider(provctx) }))
}

unsafe extern "C" fn freectx(ctx: *mut c_void) {
    // SAFETY: a context of ours, freed once.
    quiet((), || drop(unsafe { take::<Context>(ctx) }));
}

unsafe extern "C" fn does_selection<I: Input>(_provctx: *mut c_void, selection: c_int) -> c_int {
    I::STRUCTURE.offers(selection as u32).into()
}

unsafe extern "C" fn pem(
    ctx: *mut c_void,
    input: *mut OSSL_CORE_BIO,
    _selection: c_int,
    taker: OSSL_CALLBACK,
    taker_argument: *mut c_void,
    _passphrase: OSSL_PASSPHRASE_CALLBACK,
    _passphrase_argument: *mut c_void,
) -> c_int {
    // SAFETY: a context of ours.
    let Some(provider) = (unsafe { look::<Context>(ctx) }) else { return 0 };
    guard(provider.core(), 0, || {
        // SAFETY: stream and callback of the core's for this call.
        let (mut bio, taker) = unsafe { (Bio::new(provider.core(), input), Callback::new(taker, taker_argument)) };
        decode_pem(&mut bio, &taker).map(c_int::from)
    })
}

unsafe extern "C" fn der<I: Input>(
    ctx: *mut c_void,
    input: *mut OSSL_CORE_BIO,
    selection: c_int,
    taker: OSSL_CALLBACK,
    taker_argument: *mut c_void,
    passphrase: OSSL_PASSPHRASE_CALLBACK,
    passphrase_argument: *mut c_void,
) -> c_int {
    // SAFETY: a context of ours.
    let Some(provider) = (unsafe { look::<Context>(ctx) }) else { return 0 };
    guard(provider.core(), 0, || {
        // SAFETY: stream and callbacks of the core's for this call.
        let (mut bio, taker, passphrase) = unsafe {
            (
                Bio::new(provider.core(), input),
                Callback::new(taker, taker_argument),
                Passphrase::new(passphrase, passphrase_argument),
            )
        };
        let wanted = (I::STRUCTURE, I::FAMILY);
        decode_der(provider, wanted, &mut bio, selection as u32, (&taker, &passphrase)).map(c_int::from)
    })
}

unsafe extern "C" fn export_object(
    _ctx: *mut c_void,
    reference: *const c_void,
    size: usize,
    callback: OSSL_CALLBACK,
    argument: *mut c_void,
) -> c_int {
    // SAFETY: a reference that a decoder or store of this provider made; a callback for this call.
    unsafe { export_reference(reference, size, callback, argument) }
}

/// Exports what can be exported of the key in a reference.
///
/// # Safety
///
/// As `look_reference` for the reference, and as `Callback::new` for the callback.
pub(super) unsafe fn export_reference(
    reference: *const c_void,
    size: usize,
    callback: OSSL_CALLBACK,
    argument: *mut c_void,
) -> c_int {
    quiet(0, || {
        // SAFETY: by this function's own contract.
        let (key, callback) = unsafe { (look_reference(reference, size), Callback::new(callback, argument)) };
        let params = key.and_then(|key| key.export(OSSL_KEYMGMT_SELECT_ALL));
        params.is_some_and(|params| callback.give(&params)).into()
    })
}
