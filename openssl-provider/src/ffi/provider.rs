//! The provider's entry, and what the core asks of it as a whole (provider-base(7)).

use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::Arc;

use super::callback::Callback;
use super::core::Core;
use super::core_abi::*;
use super::dispatch::{Dispatch, algorithms, dispatch_table, items, text};
use super::guard::{guard, quiet};
use super::params::{Answers, Descriptor, Kind, Value, descriptors};
use crate::error::REASONS;
use crate::provider::{self, NAME, Provider, VERSION};
use crate::tls;

static BASE: &[Dispatch] = dispatch_table! {
    OSSL_FUNC_PROVIDER_TEARDOWN: OSSL_FUNC_provider_teardown_fn = teardown;
    OSSL_FUNC_PROVIDER_GETTABLE_PARAMS: OSSL_FUNC_provider_gettable_params_fn = gettable_params;
    OSSL_FUNC_PROVIDER_GET_PARAMS: OSSL_FUNC_provider_get_params_fn = get_params;
    OSSL_FUNC_PROVIDER_QUERY_OPERATION: OSSL_FUNC_provider_query_operation_fn = query_operation;
    OSSL_FUNC_PROVIDER_GET_REASON_STRINGS: OSSL_FUNC_provider_get_reason_strings_fn = get_reason_strings;
    OSSL_FUNC_PROVIDER_GET_CAPABILITIES: OSSL_FUNC_provider_get_capabilities_fn = get_capabilities;
};

const _: OSSL_provider_init_fn = Some(OSSL_provider_init);

/// The library's one export: makes an instance of the provider. Touches neither the TPM nor any file.
///
/// # Safety
///
/// To be called by OpenSSL's core, as core.h says.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn OSSL_provider_init(
    handle: *const OSSL_CORE_HANDLE,
    core: *const OSSL_DISPATCH,
    out: *mut *const OSSL_DISPATCH,
    provctx: *mut *mut c_void,
) -> c_int {
    quiet(0, || {
        if core.is_null() || out.is_null() || provctx.is_null() {
            return 0;
        }
        // SAFETY: the core's table for this handle.
        let core = unsafe { Core::new(handle, core) };
        let provider = Arc::into_raw(Arc::new(Provider::new(core)));
        // SAFETY: checked for null; the core's room for our answers.
        unsafe {
            *provctx = provider.cast_mut().cast();
            *out = BASE.as_ptr().cast();
        }
        1
    })
}

/// The instance behind the core's `provctx`.
///
/// # Safety
///
/// `provctx` is what [`OSSL_provider_init`] gave, and was not torn down.
pub(super) unsafe fn provider(provctx: *mut c_void) -> Arc<Provider> {
    let provider = provctx.cast::<Provider>().cast_const();
    // SAFETY: made by `Arc::into_raw`, and the core's own count still holds it.
    unsafe {
        Arc::increment_strong_count(provider);
        Arc::from_raw(provider)
    }
}

unsafe extern "C" fn teardown(provctx: *mut c_void) {
    quiet((), || {
        // SAFETY: the last call for this instance takes back what `OSSL_provider_init` gave.
        let provider = unsafe { Arc::from_raw(provctx.cast::<Provider>().cast_const()) };
        provider.release();
    });
}

unsafe extern "C" fn gettable_params(_provctx: *mut c_void) -> *const OSSL_PARAM {
    static GETTABLE: [Descriptor; 5] = [
        Descriptor::new(OSSL_PROV_PARAM_NAME, Kind::Text),
        Descriptor::new(OSSL_PROV_PARAM_VERSION, Kind::Text),
        Descriptor::new(OSSL_PROV_PARAM_BUILDINFO, Kind::Text),
        Descriptor::new(OSSL_PROV_PARAM_STATUS, Kind::Integer),
        Descriptor::END,
    ];
    descriptors(&GETTABLE)
}

unsafe extern "C" fn get_params(provctx: *mut c_void, params: *mut OSSL_PARAM) -> c_int {
    // SAFETY: the core's instance.
    let provider = unsafe { provider(provctx) };
    guard(provider.core(), 0, || {
        // SAFETY: an array of the core's for this call.
        let mut answers = unsafe { Answers::new(params) };
        answers.answer(OSSL_PROV_PARAM_NAME, Value::Constant(NAME))?;
        answers.answer(OSSL_PROV_PARAM_VERSION, Value::Constant(VERSION))?;
        answers.answer(OSSL_PROV_PARAM_BUILDINFO, Value::Constant(VERSION))?;
        answers.answer(OSSL_PROV_PARAM_STATUS, Value::Number(1))?;
        Ok(1)
    })
}

unsafe extern "C" fn query_operation(
    provctx: *mut c_void,
    operation: c_int,
    no_store: *mut c_int,
) -> *const OSSL_ALGORITHM {
    // SAFETY: null, or the core's room for our answer.
    if let Some(no_store) = unsafe { no_store.as_mut() } {
        *no_store = 0;
    }
    quiet(ptr::null(), || {
        // SAFETY: the core's instance.
        let core = unsafe { provider(provctx) }.core().version();
        match provider::algorithms(operation as u32, core) {
            [] => ptr::null(),
            table => algorithms(table),
        }
    })
}

unsafe extern "C" fn get_reason_strings(_provctx: *mut c_void) -> *const OSSL_ITEM {
    items(&REASONS)
}

unsafe extern "C" fn get_capabilities(
    provctx: *mut c_void,
    capability: *const c_char,
    taker: OSSL_CALLBACK,
    argument: *mut c_void,
) -> c_int {
    quiet(0, || {
        // SAFETY: the core's text and callback for this call.
        let (capability, taker) = unsafe { (text(capability), Callback::new(taker, argument)) };
        let all_taken = match capability {
            Some(name) if name.eq_ignore_ascii_case(tls::GROUPS) => {
                // SAFETY: the core's instance.
                unsafe { provider(provctx) }.note_tls();
                tls::groups().all(|group| taker.give(&group))
            }
            _ => false,
        };
        all_taken.into()
    })
}
