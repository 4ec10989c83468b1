//! `pkcs11:` URIs (RFC 7512).
#![no_main]

use keyrivet_core::uri::Pkcs11Uri;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = Pkcs11Uri::parse(text);
});
