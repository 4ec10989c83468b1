//! A token's files: the first byte says which one is anything at all.
#![no_main]

use std::sync::{Mutex, OnceLock};

use keyrivet_core::Keyrivet;
use keyrivet_core::config::Config;
use keyrivet_core::object::Query;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

/// A token as it was made once, with one key.
const FILES: [(&str, &[u8]); 3] = [
    ("token.toml", include_bytes!("../seeds/token.toml")),
    ("aca9c2facf8d4e6f8899aabbccddeeff.pem", include_bytes!("../seeds/object.pem")),
    ("index", include_bytes!("../seeds/index")),
];
const SERIAL: &str = "aca9c2facf8d4e6f";

fuzz_target!(|data: &[u8]| {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| TempDir::new().expect("a folder")).path();
    static CHANGED: Mutex<Option<usize>> = Mutex::new(None);
    let Some((&which, content)) = data.split_first() else { return };
    let token = folder.join(SERIAL);
    let put = |number: usize, content: &[u8]| std::fs::write(token.join(FILES[number].0), content).expect("a file");
    let which = usize::from(which) % FILES.len();
    match CHANGED.lock().expect("nobody panics").replace(which) {
        None => {
            std::fs::create_dir(&token).expect("a folder");
            FILES.iter().enumerate().for_each(|(number, (_, usual))| put(number, usual));
        }
        Some(changed) if changed != which => put(changed, FILES[changed].1),
        Some(_) => {}
    }
    put(which, content);
    let host = |key: &str| match key {
        "tcti" => Some("/nowhere".to_owned()),
        "store" => Some(folder.display().to_string()),
        _ => None,
    };
    let keyrivet = Keyrivet::open(Config::load_with(host).expect("no file is read"));
    let tokens = keyrivet.tokens().unwrap_or_default();
    let _ = keyrivet.free_slot(&tokens);
    for token in tokens {
        let _ = token.info();
        for object in token.find(&Query::default()).into_iter().flatten() {
            let _ = object.public_key();
            let _ = token.key(&object);
        }
    }
});
