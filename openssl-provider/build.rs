//! Says how the library is linked.
#![allow(clippy::print_stdout)]

fn main() {
    // The core's reaper thread and exit handlers run code of this library, so dlclose must not unmap it.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rerun-if-changed=build.rs");
}
