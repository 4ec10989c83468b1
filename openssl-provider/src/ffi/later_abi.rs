//! What the ABI gained after OpenSSL 3.0, of whose headers `core_abi` is made: an older core passes over it.

use std::ffi::{CStr, c_char, c_int, c_uchar, c_void};

use super::core_abi::OSSL_PARAM;

/// core_names.h, since OpenSSL 3.2.
pub(crate) const OSSL_ASYM_CIPHER_PARAM_IMPLICIT_REJECTION: &CStr = c"implicit-rejection";

/// core_names.h, since OpenSSL 3.4.
pub(crate) const OSSL_SIGNATURE_PARAM_SIGNATURE: &CStr = c"signature";

// core_dispatch.h, since OpenSSL 3.4 (provider-signature(7)).
pub(super) const OSSL_FUNC_SIGNATURE_QUERY_KEY_TYPES: u32 = 26;
pub(super) const OSSL_FUNC_SIGNATURE_SIGN_MESSAGE_INIT: u32 = 27;
pub(super) const OSSL_FUNC_SIGNATURE_SIGN_MESSAGE_UPDATE: u32 = 28;
pub(super) const OSSL_FUNC_SIGNATURE_SIGN_MESSAGE_FINAL: u32 = 29;
pub(super) const OSSL_FUNC_SIGNATURE_VERIFY_MESSAGE_INIT: u32 = 30;
pub(super) const OSSL_FUNC_SIGNATURE_VERIFY_MESSAGE_UPDATE: u32 = 31;
pub(super) const OSSL_FUNC_SIGNATURE_VERIFY_MESSAGE_FINAL: u32 = 32;

type Initialise = Option<unsafe extern "C" fn(*mut c_void, *mut c_void, *const OSSL_PARAM) -> c_int>;
type Update = Option<unsafe extern "C" fn(*mut c_void, *const c_uchar, usize) -> c_int>;

#[allow(non_camel_case_types)]
pub(super) type OSSL_FUNC_signature_query_key_types_fn = Option<unsafe extern "C" fn() -> *mut *const c_char>;
#[allow(non_camel_case_types)]
pub(super) type OSSL_FUNC_signature_sign_message_init_fn = Initialise;
#[allow(non_camel_case_types)]
pub(super) type OSSL_FUNC_signature_sign_message_update_fn = Update;
#[allow(non_camel_case_types)]
pub(super) type OSSL_FUNC_signature_sign_message_final_fn =
    Option<unsafe extern "C" fn(*mut c_void, *mut c_uchar, *mut usize, usize) -> c_int>;
#[allow(non_camel_case_types)]
pub(super) type OSSL_FUNC_signature_verify_message_init_fn = Initialise;
#[allow(non_camel_case_types)]
pub(super) type OSSL_FUNC_signature_verify_message_update_fn = Update;
#[allow(non_camel_case_types)]
pub(super) type OSSL_FUNC_signature_verify_message_final_fn = Option<unsafe extern "C" fn(*mut c_void) -> c_int>;
