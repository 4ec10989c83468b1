//! A client of OpenSSL's own interface, through whatever provider the configuration activates.

use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr::{null, null_mut};

use foreign_types::ForeignType as _;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer as Signature;

use super::{Result, Signer};

// <openssl/store.h>, which the openssl crate does not know.
unsafe extern "C" {
    fn OSSL_STORE_open(
        uri: *const c_char,
        method: *const c_void,
        data: *mut c_void,
        post: *const c_void,
        post_data: *mut c_void,
    ) -> *mut c_void;
    fn OSSL_STORE_eof(store: *mut c_void) -> c_int;
    fn OSSL_STORE_load(store: *mut c_void) -> *mut c_void;
    fn OSSL_STORE_INFO_get1_PKEY(info: *const c_void) -> *mut openssl_sys::EVP_PKEY;
    fn OSSL_STORE_INFO_free(info: *mut c_void);
    fn OSSL_STORE_close(store: *mut c_void) -> c_int;
}

/// A private key, as `openssl -key` takes it.
pub(super) struct KeyClient {
    key: PKey<Private>,
}

impl KeyClient {
    /// Argument: a file, or a URI.
    pub(super) fn new(arguments: &[&str]) -> Result<Self> {
        let [uri] = *arguments else { return Err("openssl takes a key".into()) };
        openssl::init();
        let name = CString::new(uri).map_err(|error| error.to_string())?;
        let mut key: *mut openssl_sys::EVP_PKEY = null_mut();
        // SAFETY: the URI ends with a zero byte; no callbacks; each thing is freed once, and the key's reference is ours.
        unsafe {
            let store = OSSL_STORE_open(name.as_ptr(), null(), null_mut(), null(), null_mut());
            while !store.is_null() && key.is_null() && OSSL_STORE_eof(store) == 0 {
                let info = OSSL_STORE_load(store);
                if !info.is_null() {
                    key = OSSL_STORE_INFO_get1_PKEY(info);
                    OSSL_STORE_INFO_free(info);
                }
            }
            OSSL_STORE_close(store);
            if key.is_null() {
                return Err(format!("{uri}: {}", openssl::error::ErrorStack::get()));
            }
            Ok(Self { key: PKey::from_ptr(key) })
        }
    }
}

impl Signer for KeyClient {
    fn sign(&self, _thread: usize) -> Result<()> {
        let sign = || {
            let mut signature = Signature::new(MessageDigest::sha256(), &self.key)?;
            signature.sign_oneshot_to_vec(&[7; 32])
        };
        sign().map(drop).map_err(|error| error.to_string())
    }
}
