//! A PKCS#11 token whose private keys live in a TPM 2.0.
//!
//! `ffi` is the C side, by the chapters of the standard, and the only place with unsafe code. Below it everything is
//! safe: `module` is the library's state in this process, `slot` a slot and its token, `session` a session. `operation`,
//! `signature` and `cipher` are what runs in it, with keys by `key_use`. `object` finds and copies objects, which `create`,
//! `key_pair` and `secret` make by way of a `draft`. The tables are `attribute` and `mechanism`.
//! "PKCS#11 3.2" in comments is the OASIS specification of that version.
#![deny(unsafe_code)]

mod asn1;
mod attribute;
mod built_in;
mod cipher;
mod create;
mod draft;
mod error;
mod ffi;
mod key_pair;
mod key_use;
mod mechanism;
mod module;
mod object;
mod operation;
mod parameter;
mod secret;
mod session;
mod signature;
mod slot;
mod template;
