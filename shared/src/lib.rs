//! TPM 2.0 keys, their store and their PINs: the safe core under the PKCS#11 module and the OpenSSL provider.
//!
//! Start at [`Keyrivet`]. Without the default feature `device` only what needs no TPM is here.

#![deny(unsafe_code)]

pub mod algorithm;
pub mod error;
pub mod hex;
pub mod kdf;
pub mod pem;
pub mod policy;
pub mod public_area;
pub mod public_key;
#[cfg_attr(not(feature = "device"), allow(dead_code, reason = "what only private keys need"))]
mod rsa_padding;
pub mod sign;
pub mod tss2_pem;
pub mod uri;

#[cfg(feature = "device")]
mod auth;
#[cfg(feature = "device")]
pub mod config;
#[cfg(feature = "device")]
mod environment;
#[cfg(feature = "device")]
mod ffi;
#[cfg(feature = "device")]
mod flock;
#[cfg(feature = "device")]
pub mod import;
#[cfg(feature = "device")]
pub mod kept;
#[cfg(feature = "device")]
pub mod key;
#[cfg(feature = "device")]
mod keyrivet;
#[cfg(feature = "device")]
pub mod log;
#[cfg(feature = "device")]
pub mod mutex;
#[cfg(feature = "device")]
pub mod object;
#[cfg(feature = "device")]
pub mod process;
#[cfg(feature = "device")]
mod random;
#[cfg(feature = "device")]
mod sealed_data;
#[cfg(feature = "device")]
pub mod secret_key;
#[cfg(feature = "device")]
mod serialized;
#[cfg(feature = "device")]
mod store;
#[cfg(feature = "device")]
pub mod sweep;
#[cfg(feature = "device")]
pub mod token;
#[cfg(feature = "device")]
mod tpm;

pub use error::{Error, Result};
#[cfg(feature = "device")]
pub use keyrivet::Keyrivet;
