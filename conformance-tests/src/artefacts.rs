//! Where cargo put the libraries and programs under test.

use std::path::PathBuf;

/// One of the libraries and programs under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Artefact {
    /// `libkeyrivet_pkcs11.so`, the PKCS#11 module.
    Module,
    /// `libkeyrivet.so`, the OpenSSL provider; it is installed as `keyrivet.so`.
    Provider,
    /// `keyrivet-server`, the fleet's registry.
    Server,
}

impl Artefact {
    /// Its file, as built together with the running test.
    ///
    /// # Panics
    ///
    /// When it was not built.
    pub fn path(self) -> PathBuf {
        let name = match self {
            Self::Module => "libkeyrivet_pkcs11.so",
            Self::Provider => "libkeyrivet.so",
            Self::Server => "keyrivet-server",
        };
        let path = build_directory().join(name);
        assert!(
            path.exists(),
            "{} is missing: build first with 'cargo build --workspace', or let conformance-tests/test do it all",
            path.display()
        );
        path
    }
}

/// The profile's directory in cargo's target directory: that of the running test, which lies in its `deps`.
fn build_directory() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let deps = test.parent().expect("a test lies in a directory");
    deps.parent().expect("cargo puts tests into target/PROFILE/deps").to_owned()
}
