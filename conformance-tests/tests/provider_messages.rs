//! What OpenSSL 3.4 added to signatures: whole messages, and algorithms that have their hash in their name.
//!
//! With an older OpenSSL this says so and tests nothing; the Debian 13 run has a newer one.

use std::ffi::{CStr, CString, c_char, c_int, c_uchar, c_void};
use std::ptr;

use conformance_tests::Device;
use foreign_types::ForeignType as _;
use libloading::os::unix::Library;
use openssl::pkey::{PKey, Private};

type PkeyCtx = *mut openssl_sys::EVP_PKEY_CTX;
type Fetch = unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char) -> *mut c_void;
type Start = unsafe extern "C" fn(PkeyCtx, *mut c_void, *const c_void) -> c_int;
type Update = unsafe extern "C" fn(PkeyCtx, *const c_uchar, usize) -> c_int;
type SignFinal = unsafe extern "C" fn(PkeyCtx, *mut c_uchar, *mut usize) -> c_int;
type SetSignature = unsafe extern "C" fn(PkeyCtx, *const c_uchar, usize) -> c_int;
type VerifyFinal = unsafe extern "C" fn(PkeyCtx) -> c_int;
type FromPkey = unsafe extern "C" fn(*mut c_void, *mut openssl_sys::EVP_PKEY, *const c_char) -> PkeyCtx;

/// libcrypto's functions of OpenSSL 3.4.
struct Crypto(Library);

impl Crypto {
    fn get<F: Copy>(&self, name: &CStr) -> F {
        // SAFETY: the caller names the type that evp.h gives the function.
        unsafe { *self.0.get::<F>(name.to_bytes_with_nul()).unwrap() }
    }

    /// `None` where it is older.
    fn open() -> Option<Self> {
        let this = Self(Library::this());
        // SAFETY: only looked for.
        let there = unsafe { this.0.get::<Start>(b"EVP_PKEY_sign_message_init\0") }.is_ok();
        there.then_some(this)
    }
}

#[test]
fn messages_are_signed_and_verified_in_pieces_by_algorithms_with_a_hash_in_their_name() {
    // Links libcrypto, whatever else is used of it.
    openssl::init();
    let Some(crypto) = Crypto::open() else {
        println!("skipped: this OpenSSL is older than 3.4");
        return;
    };
    let device = Device::new();
    device.new_key_file(["EC", "group:P-256"], "ec.pem");
    device.new_key_file(["RSA", "rsa_keygen_bits:2048"], "rsa.pem");
    device.enter();
    let _providers = ["default", "keyrivet"].map(|name| openssl::provider::Provider::load(None, name).unwrap());
    for (file, algorithm, other) in [
        ("ec.pem", c"ECDSA-SHA2-256", c"ECDSA-SHA384"),
        ("ec.pem", c"ecdsa-with-SHA512", c"ECDSA-SHA3-256"),
        ("rsa.pem", c"RSA-SHA256", c"RSA-SHA512"),
        ("rsa.pem", c"sha384WithRSAEncryption", c"RSA-SHA3-384"),
    ] {
        let key = PKey::private_key_from_pem(&device.read(file)).unwrap();
        let public = PKey::public_key_from_der(&key.public_key_to_der().unwrap()).unwrap();
        let signature = sign(&crypto, &key, algorithm, &[b"a ", b"message"]);
        for properties in [c"provider=keyrivet", c"provider=default"] {
            // The private key leaves its provider for no other.
            let verified = |algorithm, parts: &[&[u8]]| match properties == c"provider=default" {
                true => verify(&crypto, &public, (algorithm, properties), parts, &signature),
                false => verify(&crypto, &key, (algorithm, properties), parts, &signature),
            };
            assert!(verified(algorithm, &[b"a mess", b"age"]), "{algorithm:?} {properties:?}");
            assert!(!verified(algorithm, &[b"a message."]));
            assert!(!verified(other, &[b"a message"]));
        }
    }
}

fn context<T>(crypto: &Crypto, key: &PKey<T>, properties: &CStr) -> PkeyCtx {
    // SAFETY: the key outlives the context, which `finish` frees.
    unsafe { crypto.get::<FromPkey>(c"EVP_PKEY_CTX_new_from_pkey")(ptr::null_mut(), key.as_ptr(), properties.as_ptr()) }
}

fn algorithm(crypto: &Crypto, name: &CStr, properties: &CStr) -> *mut c_void {
    // SAFETY: texts that end with a zero byte.
    let found =
        unsafe { crypto.get::<Fetch>(c"EVP_SIGNATURE_fetch")(ptr::null_mut(), name.as_ptr(), properties.as_ptr()) };
    assert!(!found.is_null(), "{name:?}: {}", openssl::error::ErrorStack::get());
    found
}

fn sign(crypto: &Crypto, key: &PKey<Private>, name: &CStr, parts: &[&[u8]]) -> Vec<u8> {
    let ours = c"provider=keyrivet";
    let (context, algorithm) = (context(crypto, key, ours), algorithm(crypto, name, ours));
    let mut signature = vec![0; 600];
    let mut length = signature.len();
    // SAFETY: a context and an algorithm of libcrypto's; the buffer has the length told.
    unsafe {
        let started = crypto.get::<Start>(c"EVP_PKEY_sign_message_init")(context, algorithm, ptr::null());
        assert_eq!(started, 1, "{name:?}: {}", openssl::error::ErrorStack::get());
        for part in parts {
            assert_eq!(crypto.get::<Update>(c"EVP_PKEY_sign_message_update")(context, part.as_ptr(), part.len()), 1);
        }
        let done =
            crypto.get::<SignFinal>(c"EVP_PKEY_sign_message_final")(context, signature.as_mut_ptr(), &mut length);
        assert_eq!(done, 1, "{}", openssl::error::ErrorStack::get());
        openssl_sys::EVP_PKEY_CTX_free(context);
    }
    signature.truncate(length);
    signature
}

fn verify<T>(
    crypto: &Crypto,
    key: &PKey<T>,
    (name, properties): (&CStr, &CStr),
    parts: &[&[u8]],
    signature: &[u8],
) -> bool {
    let (context, algorithm) = (context(crypto, key, properties), algorithm(crypto, name, properties));
    // SAFETY: a context and an algorithm of libcrypto's.
    let verified = unsafe {
        let started = crypto.get::<Start>(c"EVP_PKEY_verify_message_init")(context, algorithm, ptr::null());
        assert_eq!(started, 1, "{name:?} {properties:?}: {}", openssl::error::ErrorStack::get());
        let told =
            crypto.get::<SetSignature>(c"EVP_PKEY_CTX_set_signature")(context, signature.as_ptr(), signature.len());
        assert_eq!(told, 1);
        for part in parts {
            assert_eq!(crypto.get::<Update>(c"EVP_PKEY_verify_message_update")(context, part.as_ptr(), part.len()), 1);
        }
        let verified = crypto.get::<VerifyFinal>(c"EVP_PKEY_verify_message_final")(context);
        openssl_sys::EVP_PKEY_CTX_free(context);
        verified
    };
    let _ = openssl::error::ErrorStack::get();
    verified == 1
}

#[test]
fn every_name_of_an_algorithm_is_known() {
    openssl::init();
    if Crypto::open().is_none() {
        println!("skipped: this OpenSSL is older than 3.4");
        return;
    }
    let device = Device::new();
    let listed = device.openssl(&["list", "-signature-algorithms"]).ok().stdout();
    for family in ["RSA", "ECDSA"] {
        for hash in ["SHA2-224", "SHA2-256", "SHA2-384", "SHA2-512", "SHA3-224", "SHA3-256", "SHA3-384", "SHA3-512"] {
            let name = CString::new(format!("{family}-{hash}")).unwrap();
            let ours = |line: &&str| line.contains("@ keyrivet") && line.contains(name.to_str().unwrap());
            assert_eq!(listed.lines().filter(ours).count(), 1, "{name:?} in {listed}");
        }
    }
}
