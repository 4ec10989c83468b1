//! An OpenSSL 3 provider whose private keys live in a TPM 2.0.
//!
//! One way through it: `ffi` receives OpenSSL's call and does all that is unsafe, a module of the same name beside it
//! does the work, and `keyrivet_core` has the keys. `provider` lists what is on offer.
#![deny(unsafe_code)]

mod algorithm_identifier;
mod asym_cipher;
mod certificate;
mod decoder;
mod encoder;
mod error;
mod ffi;
mod generation;
mod key;
mod keyexch;
mod pem;
mod provider;
mod rsa_settings;
mod signature;
mod store;
mod tls;
mod tpm_uri;
