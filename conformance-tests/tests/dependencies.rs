//! What the two libraries bring into the programs that load them: no runtime, no database, no second libcrypto.

use std::process::Command;

use conformance_tests::Run as _;

/// Crates that only the fleet may use, and one that each library does use, to show that the list is read.
const FOREIGN: [&str; 10] = [
    "tokio",
    "axum",
    "hyper",
    "clap",
    "rusqlite",
    "libsqlite3-sys",
    "tokio-postgres",
    "aws-lc-sys",
    "ring",
    "openssl-sys",
];
const OWN: &str = "keyrivet-core";

#[test]
fn neither_library_depends_on_a_runtime_a_database_or_another_libcrypto() {
    for library in ["keyrivet-pkcs11", "keyrivet-provider"] {
        let words = ["tree", "--locked", "--package", library, "--edges", "normal,build", "--prefix", "none"];
        let tree = Command::new(env!("CARGO")).current_dir(env!("CARGO_MANIFEST_DIR")).args(words).run().ok().stdout();
        let crates: Vec<_> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
        assert!(crates.contains(&OWN), "{library}: {tree}");
        let found: Vec<_> = FOREIGN.iter().filter(|name| crates.contains(name)).collect();
        assert!(found.is_empty(), "{library} depends on {found:?}");
    }
}
