//! The configuration file.
#![no_main]

use std::sync::OnceLock;

use keyrivet_core::config::Config;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

fuzz_target!(|text: &str| {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let file = FOLDER.get_or_init(|| TempDir::new().expect("a folder")).path().join("keyrivet.toml");
    std::fs::write(&file, text).expect("a file");
    let _ = Config::load_with(|key| (key == "config").then(|| file.display().to_string()));
});
