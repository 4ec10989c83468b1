//! Where cargo put the libraries and programs under test.

use std::path::PathBuf;

/// One of the libraries and programs under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Artefact {
    /// `libkeyrivet_pkcs11.so`, the PKCS#11 module.
    Module,
    /// `libkeyrivet.so`, the OpenSSL provider; it is installed as `keyrivet.so`.
    Provider,
    /// `keyrivet`, the device's command.
    Command,
    /// `libkeyrivet_mosquitto.so`, the broker's plugin.
    MosquittoPlugin,
    /// `keyrivet-server`, the fleet's registry.
    Server,
}

impl Artefact {
    /// Its file, as built together with the running test or benchmark.
    ///
    /// # Panics
    ///
    /// When it was not built.
    pub fn path(self) -> PathBuf {
        let name = match self {
            Self::Module => "libkeyrivet_pkcs11.so",
            Self::Provider => "libkeyrivet.so",
            Self::Command => "keyrivet",
            Self::MosquittoPlugin => "libkeyrivet_mosquitto.so",
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

/// The profile's directory in cargo's target directory: a running test lies in its `deps`, the benchmark in itself. Or where
/// the libraries were built in another way (`conformance-tests/sanitize`).
fn build_directory() -> PathBuf {
    if let Some(directory) = std::env::var_os("KEYRIVET_LIBRARIES") {
        return directory.into();
    }
    let program = std::env::current_exe().expect("a running program has a path");
    let mut directory = program.parent().expect("a program lies in a directory");
    if directory.ends_with("deps") {
        directory = directory.parent().expect("cargo puts tests into target/PROFILE/deps");
    }
    directory.to_owned()
}
