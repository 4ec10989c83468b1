//! Says how the library is linked.
#![allow(clippy::print_stdout)]

fn main() {
    // Thread-local data of what is linked in may be torn down after the broker has closed its plugins.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    // A broker may have libraries of the same names: inside, only our own are meant.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-Bsymbolic");
    println!("cargo:rerun-if-changed=build.rs");
}
