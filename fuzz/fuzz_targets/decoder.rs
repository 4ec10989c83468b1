//! The provider's decoders, from PEM and DER to a key, as OpenSSL calls them.
#![no_main]

mod libcrypto;

use libcrypto::{EVP_PKEY_free, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for form in [None, Some(c"PEM"), Some(c"DER")] {
        // SAFETY: ours, or null, and freed once.
        unsafe { EVP_PKEY_free(decode(data, form)) };
    }
});
