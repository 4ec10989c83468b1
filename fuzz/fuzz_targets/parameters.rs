//! `OSSL_PARAM` arrays of every shape that OSSL_PARAM(3) allows, for each operation of the provider.
#![no_main]

mod libcrypto;

use std::ffi::{CStr, c_int, c_void};
use std::ptr::{null, null_mut};
use std::sync::OnceLock;

use libcrypto::*;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

/// Key files of a TPM that is gone: whatever needs none works with them.
const FILES: [&[u8]; 2] = [include_bytes!("../seeds/ec.pem"), include_bytes!("../seeds/rsa.pem")];

/// Names that the provider knows (core_names.h), and one that it does not.
const NAMES: [&CStr; 52] = [
    c"bits",
    c"security-bits",
    c"max-size",
    c"group",
    c"encoding",
    c"point-format",
    c"pub",
    c"priv",
    c"encoded-pub-key",
    c"qx",
    c"qy",
    c"n",
    c"e",
    c"d",
    c"primes",
    c"pubexp",
    c"digest",
    c"properties",
    c"mgf1-digest",
    c"mgf1-properties",
    c"saltlen",
    c"pad-mode",
    c"oaep-label",
    c"tls-client-version",
    c"tls-negotiated-version",
    c"implicit-rejection",
    c"default-digest",
    c"mandatory-digest",
    c"algorithm-id",
    c"ecdh-cofactor-mode",
    c"kdf-type",
    c"kdf-digest",
    c"kdf-digest-props",
    c"kdf-outlen",
    c"kdf-ukm",
    c"use-cofactor-flag",
    c"cofactor",
    c"p",
    c"a",
    c"b",
    c"generator",
    c"order",
    c"uri",
    c"parent",
    c"user-auth",
    c"parent-auth",
    c"policy",
    c"pcrs",
    c"digest-check",
    c"nonce-type",
    c"signature",
    c"nobody-knows-this",
];

/// Kinds of core.h: integer, unsigned, real, text, octets, pointers to text and octets, and one that there is not.
const KINDS: [u32; 8] = [1, 2, 3, 4, 5, 6, 7, 99];
const POINTERS: [u32; 2] = [6, 7];

#[derive(Arbitrary, Debug)]
struct Entry {
    name: u8,
    kind: u8,
    /// Null where a size is asked, or nothing is told.
    null: bool,
    value: Vec<u8>,
}

#[derive(Arbitrary, Debug)]
struct Input {
    operation: u8,
    rsa: bool,
    entries: Vec<Entry>,
}

fuzz_target!(|input: Input| {
    // SAFETY: `with_params` gives arrays as OSSL_PARAM(3) describes them; contexts are freed once.
    unsafe { run(input) }
});

unsafe fn run(mut input: Input) {
    let key = keys()[usize::from(input.rsa)];
    let name = if input.rsa { c"RSA" } else { c"EC" };
    let begin: [unsafe extern "C" fn(*mut EVP_PKEY_CTX) -> c_int; 5] =
        [EVP_PKEY_sign_init, EVP_PKEY_verify_init, EVP_PKEY_decrypt_init, EVP_PKEY_encrypt_init, EVP_PKEY_derive_init];
    let operation = usize::from(input.operation) % 10;
    let (null_mut_context, params) = (null_mut(), &mut input.entries);
    // SAFETY: as the caller says.
    unsafe {
        let context = match operation {
            0..5 => for_key(key),
            5 | 8 => for_type(name),
            6 | 9 => for_type(c"RSA-PSS"),
            _ => null_mut_context,
        };
        match operation {
            0..5 => {
                if begin[operation](context) == 1 {
                    with_params(params, |params| EVP_PKEY_CTX_set_params(context, params));
                    with_params(params, |params| EVP_PKEY_CTX_get_params(context, params));
                }
            }
            5 | 6 => {
                if EVP_PKEY_keygen_init(context) == 1 {
                    with_params(params, |params| EVP_PKEY_CTX_set_params(context, params));
                }
            }
            7 => drop(with_params(params, |params| EVP_PKEY_get_params(key, params))),
            _ => {
                if EVP_PKEY_fromdata_init(context) == 1 {
                    for selection in [0x86, 0x87] {
                        let mut made = null_mut();
                        with_params(params, |params| EVP_PKEY_fromdata(context, &mut made, selection, params));
                        with_params(
                            params,
                            |params| {
                                if made.is_null() { 0 } else { EVP_PKEY_get_params(made, params) }
                            },
                        );
                        EVP_PKEY_free(made);
                    }
                }
            }
        }
        EVP_PKEY_CTX_free(context);
        ERR_clear_error();
    }
}

/// The keys of the two files.
fn keys() -> &'static [*mut EVP_PKEY; 2] {
    static KEYS: OnceLock<[usize; 2]> = OnceLock::new();
    let keys = KEYS.get_or_init(|| {
        FILES.map(|file| {
            let key = decode(file, None);
            assert!(!key.is_null(), "a key file is decoded without a TPM");
            key as usize
        })
    });
    // SAFETY: an address is as large as a pointer; the keys are never freed.
    unsafe { &*std::ptr::from_ref(keys).cast() }
}

/// Lends the entries as an array; each value has exactly the memory that it tells.
fn with_params(entries: &mut [Entry], to: impl FnOnce(*mut OsslParam) -> c_int) -> c_int {
    // Where pointers are asked, they are put here.
    let mut pointers: Vec<*const c_void> = vec![null(); entries.len()];
    let mut params: Vec<OsslParam> = entries
        .iter_mut()
        .zip(&mut pointers)
        .map(|(entry, pointer)| {
            let data_type = KINDS[usize::from(entry.kind) % KINDS.len()];
            let (data, data_size) = match entry.null {
                true => (null_mut(), 0),
                false if POINTERS.contains(&data_type) => (std::ptr::from_mut(pointer).cast(), 0),
                false => (entry.value.as_mut_ptr().cast(), entry.value.len()),
            };
            let key = NAMES[usize::from(entry.name) % NAMES.len()].as_ptr();
            OsslParam { key, data_type, data, data_size, return_size: usize::MAX }
        })
        .collect();
    params.push(OsslParam { key: null(), data_type: 0, data: null_mut(), data_size: 0, return_size: 0 });
    to(params.as_mut_ptr())
}
