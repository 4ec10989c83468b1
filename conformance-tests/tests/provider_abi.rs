//! The provider's copy of OpenSSL's core ABI says what the installed headers say.
//!
//! With `KEYRIVET_WRITE_ABI=1` in its environment this writes the copy anew. It needs libclang; without that it says
//! so and compares nothing.

use std::path::{Path, PathBuf};

const HEAD: &str = "\
//! The ABI between OpenSSL's core and a provider, generated from the headers of OpenSSL 3.0.
//!
//! `conformance-tests/tests/provider_abi.rs` compares it to the installed headers, and says how to make it anew.

/// Passed on, never looked into: on every architecture a `va_list` argument is passed like a pointer.
pub type va_list = *mut core::ffi::c_void;

";

fn provider(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../openssl-provider").join(file)
}

fn generated() -> String {
    let list = std::fs::read_to_string(provider("abi/allow-list")).unwrap();
    let items = list.split_whitespace().collect::<Vec<_>>().join("|");
    let bindings = bindgen::builder()
        .header(provider("abi/core.h").to_str().unwrap())
        .layout_tests(false)
        .generate_comments(false)
        .generate_cstr(true)
        .ctypes_prefix("core::ffi")
        .use_core()
        .derive_debug(false)
        .disable_header_comment()
        .allowlist_item(items)
        .blocklist_type(".*va_list.*")
        .generate()
        .unwrap();
    HEAD.to_owned() + &bindings.to_string().replace("*mut __va_list_tag", "va_list")
}

/// The text without what rustfmt may change.
fn bare(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && *c != ',').collect()
}

#[test]
fn the_copy_of_the_core_abi_is_what_the_installed_headers_say() {
    if std::panic::catch_unwind(bindgen::clang_version).is_err() {
        println!("skipped: no libclang (Debian: apt-get install libclang-dev)");
        return;
    }
    let (file, generated) = (provider("src/ffi/core_abi.rs"), generated());
    if std::env::var_os("KEYRIVET_WRITE_ABI").is_some() {
        std::fs::write(&file, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&file).unwrap();
    // Line by line first, for a message that can be read.
    let missing: Vec<_> = generated.lines().filter(|line| !bare(&committed).contains(&bare(line))).collect();
    assert!(missing.is_empty(), "not in the copy: {missing:#?}");
    assert_eq!(bare(&committed).len(), bare(&generated).len());
}
