//! Says how the library is linked.
#![allow(clippy::print_stdout)]

fn main() {
    // The core's reaper thread and exit handlers run code of this library, so dlclose must not unmap it.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    // Our function lists name our own C_* functions, whatever other module the process has loaded globally.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-Bsymbolic");
    println!("cargo:rerun-if-changed=build.rs");
}
