//! Encoders as OpenSSL calls them (provider-encoder(7)).

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;

use keyrivet_core::Error;

use super::core::Bio;
use super::core_abi::*;
use super::dispatch::{Dispatch, dispatch_table};
use super::guard::{guard, quiet};
use super::provider::provider;
use super::{give, look, take};
use crate::encoder::{Format, encode};
use crate::key::ProviderKey;
use crate::provider::Provider;

/// Writes [`Format::SpkiDer`].
pub(crate) const SPKI_DER: &[Dispatch] = table::<SpkiDer>();
/// Writes [`Format::SpkiPem`].
pub(crate) const SPKI_PEM: &[Dispatch] = table::<SpkiPem>();
/// Writes [`Format::RsaDer`].
pub(crate) const RSA_DER: &[Dispatch] = table::<RsaDer>();
/// Writes [`Format::RsaPem`].
pub(crate) const RSA_PEM: &[Dispatch] = table::<RsaPem>();
/// Writes [`Format::Tss2Der`].
pub(crate) const TSS2_DER: &[Dispatch] = table::<Tss2Der>();
/// Writes [`Format::Tss2Pem`].
pub(crate) const TSS2_PEM: &[Dispatch] = table::<Tss2Pem>();
/// Writes [`Format::Text`].
pub(crate) const TEXT: &[Dispatch] = table::<Text>();

/// What an encoder writes.
trait Output {
    const FORMAT: Format;
}

struct SpkiDer;
struct SpkiPem;
struct RsaDer;
struct RsaPem;
struct Tss2Der;
struct Tss2Pem;
struct Text;

impl Output for SpkiDer {
    const FORMAT: Format = Format::SpkiDer;
}

impl Output for SpkiPem {
    const FORMAT: Format = Format::SpkiPem;
}

impl Output for RsaDer {
    const FORMAT: Format = Format::RsaDer;
}

impl Output for RsaPem {
    const FORMAT: Format = Format::RsaPem;
}

impl Output for Tss2Der {
    const FORMAT: Format = Format::Tss2Der;
}

impl Output for Tss2Pem {
    const FORMAT: Format = Format::Tss2Pem;
}

impl Output for Text {
    const FORMAT: Format = Format::Text;
}

const fn table<O: Output>() -> &'static [Dispatch] {
    const {
        dispatch_table! {
            OSSL_FUNC_ENCODER_NEWCTX: OSSL_FUNC_encoder_newctx_fn = newctx;
            OSSL_FUNC_ENCODER_FREECTX: OSSL_FUNC_encoder_freectx_fn = freectx;
            OSSL_FUNC_ENCODER_DOES_SELECTION: OSSL_FUNC_encoder_does_selection_fn = does_selection::<O>;
            OSSL_FUNC_ENCODER_ENCODE: OSSL_FUNC_encoder_encode_fn = encode_key::<O>;
        }
    }
}

/// An encoder has no state but its provider.
type Context = Arc<Provider>;

unsafe extern "C" fn newctx(provctx: *mut c_void) -> *mut c_void {
    // SAFETY: the core's instance.
    quiet(ptr::null_mut(), || give::<Context>(unsafe { provider(provctx) }))
}

unsafe extern "C" fn freectx(ctx: *mut c_void) {
    // SAFETY: a context of ours, freed once.
    quiet((), || drop(unsafe { take::<Context>(ctx) }));
}

unsafe extern "C" fn does_selection<O: Output>(_provctx: *mut c_void, selection: c_int) -> c_int {
    O::FORMAT.shows(selection as u32).into()
}

unsafe extern "C" fn encode_key<O: Output>(
    ctx: *mut c_void,
    output: *mut OSSL_CORE_BIO,
    key: *const c_void,
    _abstract_key: *const OSSL_PARAM,
    selection: c_int,
    _passphrase: OSSL_PASSPHRASE_CALLBACK,
    _passphrase_argument: *mut c_void,
) -> c_int {
    // SAFETY: a context of ours.
    let Some(provider) = (unsafe { look::<Context>(ctx) }) else { return 0 };
    guard(provider.core(), 0, || {
        // SAFETY: a key of our key management (no other is imported here), and the core's stream for this call.
        let (key, mut bio) = unsafe { (look::<ProviderKey>(key), Bio::new(provider.core(), output)) };
        let key = key.ok_or_else(|| Error::Unsupported("writing the keys of other providers".into()))?;
        encode(O::FORMAT, key, selection as u32, &mut bio)?;
        Ok(1)
    })
}
