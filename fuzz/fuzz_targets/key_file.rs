//! `TSS2 PRIVATE KEY` files: whatever is read is written and read again as the same.
#![no_main]

use keyrivet_core::tss2_pem::Tss2Key;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = std::str::from_utf8(data).ok().and_then(|text| Tss2Key::from_pem(text).ok());
    for key in text.into_iter().chain(Tss2Key::from_der(data)) {
        let _ = key.public_key();
        let again = Tss2Key::from_der(&key.to_der().expect("what was read can be written"));
        assert_eq!(again.expect("what was written can be read"), key);
        let again = Tss2Key::from_pem(&key.to_pem().expect("what was read can be written"));
        assert_eq!(again.expect("what was written can be read"), key);
    }
});
