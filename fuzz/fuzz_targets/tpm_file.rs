//! What TPMs and tpm2-tools write: public areas, serialised handles, saved contexts. None of it needs a TPM to be read.
#![no_main]

use std::sync::OnceLock;

use keyrivet_core::Keyrivet;
use keyrivet_core::config::Config;
use keyrivet_core::public_area::PublicArea;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    static KEYRIVET: OnceLock<Keyrivet> = OnceLock::new();
    let keyrivet = KEYRIVET.get_or_init(|| {
        let nowhere = |key: &str| Some(format!("/nowhere/{key}")).filter(|_| key != "config");
        Keyrivet::open(Config::load_with(nowhere).expect("no file is read"))
    });
    if let Ok(area) = PublicArea::parse(data) {
        let _ = area.public_key();
    }
    let _ = keyrivet.key_from_object_file(data);
});
