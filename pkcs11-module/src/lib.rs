//! A PKCS#11 token whose private keys live in a TPM 2.0.
//!
//! `ffi` is the C side, by the chapters of the standard, and the only place with unsafe code. Below it everything is
//! safe: `module` is the library's state in this process, `slot` a slot and its token, `session` a session,
//! `operation` what runs in it, `object` finds and makes objects by the tables of `attribute` and `mechanism`.
//! "PKCS#11 3.2" in comments is the OASIS specification of that version.
#![deny(unsafe_code)]

mod asn1;
mod attribute;
mod error;
mod ffi;
mod key_pair;
mod mechanism;
mod module;
mod object;
mod operation;
mod session;
mod slot;
mod template;
