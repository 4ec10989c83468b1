//! Key objects inside a process: copies, comparison, checks, what they tell of themselves, decryption.

use std::ffi::{CStr, c_char, c_int};

use conformance_tests::Device;
use foreign_types::ForeignType as _;
use openssl::pkey::{PKey, Private};
use openssl::pkey_ctx::PkeyCtx;
use openssl::provider::Provider;
use openssl::rsa::Padding;
use openssl_sys::{EVP_PKEY, EVP_PKEY_CTX};

// <openssl/evp.h>; not in openssl-sys.
unsafe extern "C" {
    fn EVP_PKEY_dup(key: *mut EVP_PKEY) -> *mut EVP_PKEY;
    fn EVP_PKEY_get_int_param(key: *const EVP_PKEY, name: *const c_char, value: *mut c_int) -> c_int;
    fn EVP_PKEY_get_default_digest_name(key: *mut EVP_PKEY, name: *mut c_char, size: usize) -> c_int;
    fn EVP_PKEY_get_group_name(key: *const EVP_PKEY, name: *mut c_char, size: usize, length: *mut usize) -> c_int;
    fn EVP_PKEY_get1_encoded_public_key(key: *mut EVP_PKEY, point: *mut *mut u8) -> usize;
    fn EVP_PKEY_check(context: *mut EVP_PKEY_CTX) -> c_int;
    fn EVP_PKEY_public_check(context: *mut EVP_PKEY_CTX) -> c_int;
    fn EVP_PKEY_pairwise_check(context: *mut EVP_PKEY_CTX) -> c_int;
    fn EVP_PKEY_is_a(key: *const EVP_PKEY, name: *const c_char) -> c_int;
}

/// A device in whose process the providers are loaded, with a key.
fn with_key(kind: [&str; 2], check: impl Fn(&Device, &PKey<Private>)) {
    let device = Device::new();
    device.new_key_file(kind, "key.pem");
    device.enter();
    let _providers = ["default", "keyrivet"].map(|name| Provider::load(None, name).unwrap());
    let key = PKey::private_key_from_pem(&device.read("key.pem")).unwrap();
    check(&device, &key);
    assert_eq!(openssl::error::ErrorStack::get().errors().len(), 0, "success leaves no error behind");
}

fn number(key: &PKey<Private>, name: &CStr) -> c_int {
    let mut value = -1;
    // SAFETY: a key, a text that ends with a zero byte, and room for a number.
    assert_eq!(unsafe { EVP_PKEY_get_int_param(key.as_ptr(), name.as_ptr(), &mut value) }, 1, "{name:?}");
    value
}

fn default_digest(key: &PKey<Private>) -> (c_int, String) {
    let mut name = [0_u8; 32];
    // SAFETY: the buffer has the size told.
    let kind = unsafe { EVP_PKEY_get_default_digest_name(key.as_ptr(), name.as_mut_ptr().cast(), name.len()) };
    (kind, CStr::from_bytes_until_nul(&name).unwrap().to_str().unwrap().to_owned())
}

/// Copies equal the original and work on their own; the checks succeed. None of this asks the TPM.
fn copies_and_checks(device: &Device, key: &PKey<Private>) {
    device.mark();
    // SAFETY: the copy is ours.
    let copy = unsafe { PKey::<Private>::from_ptr(EVP_PKEY_dup(key.as_ptr())) };
    assert!(copy.public_eq(key));
    let public = PKey::public_key_from_der(&key.public_key_to_der().unwrap()).unwrap();
    assert!(copy.public_eq(&public) && public.public_eq(key));
    let context = PkeyCtx::new(&copy).unwrap();
    // SAFETY: a context of a key.
    unsafe {
        for check in [EVP_PKEY_check, EVP_PKEY_public_check, EVP_PKEY_pairwise_check] {
            assert_eq!(check(context.as_ptr()), 1, "{}", openssl::error::ErrorStack::get());
        }
    }
    assert!(device.commands().is_empty());
    let signs = |key: &PKey<Private>| {
        let mut signer = openssl::sign::Signer::new(openssl::hash::MessageDigest::sha384(), key).unwrap();
        let signature = signer.sign_oneshot_to_vec(b"message").unwrap();
        let mut verifier = openssl::sign::Verifier::new(openssl::hash::MessageDigest::sha384(), &public).unwrap();
        assert!(verifier.verify_oneshot(&signature, b"message").unwrap());
    };
    signs(key);
    signs(&copy);
    drop(copy);
    signs(key);
}

#[test]
fn rsa_keys_tell_of_themselves_and_are_copied() {
    with_key(["RSA", "rsa_keygen_bits:3072"], |device, key| {
        let facts = [c"bits", c"security-bits", c"max-size"].map(|name| number(key, name));
        assert_eq!(facts, [3072, 128, 384]);
        assert_eq!(default_digest(key), (1, "SHA256".into()));
        copies_and_checks(device, key);
    });
}

#[test]
fn ec_keys_tell_of_themselves_and_are_copied() {
    with_key(["EC", "group:P-521"], |device, key| {
        let facts = [c"bits", c"security-bits", c"max-size"].map(|name| number(key, name));
        assert_eq!(facts, [521, 256, 141]);
        assert_eq!(default_digest(key), (1, "SHA256".into()));
        let mut name = [0_u8; 32];
        let (mut length, mut point) = (0, std::ptr::null_mut());
        // SAFETY: the buffers have the sizes told; the point is OPENSSL_malloc'ed for us, and stays.
        let encoded = unsafe {
            assert_eq!(EVP_PKEY_get_group_name(key.as_ptr(), name.as_mut_ptr().cast(), name.len(), &mut length), 1);
            let size = EVP_PKEY_get1_encoded_public_key(key.as_ptr(), &mut point);
            std::slice::from_raw_parts(point, size).to_vec()
        };
        assert_eq!(&name[..length], b"secp521r1");
        assert_eq!((encoded.len(), encoded[0]), (133, 4));
        assert!(key.public_key_to_der().unwrap().ends_with(&encoded));
        copies_and_checks(device, key);
    });
}

#[test]
fn rsa_pss_keys_have_a_digest_that_is_mandatory() {
    with_key(["RSA-PSS", "rsa_pss_keygen_md:sha384"], |device, key| {
        assert_eq!(default_digest(key), (2, "SHA2-384".into()));
        // SAFETY: a key and a text that ends with a zero byte.
        unsafe {
            assert_eq!(EVP_PKEY_is_a(key.as_ptr(), c"RSA-PSS".as_ptr()), 1);
            assert_eq!(EVP_PKEY_is_a(key.as_ptr(), c"RSA".as_ptr()), 0);
        }
        copies_and_checks(device, key);
    });
}

#[test]
fn a_wrong_ciphertext_decrypts_to_the_same_message_each_time_in_a_process() {
    with_key(["RSA", "rsa_keygen_bits:2048"], |device, key| {
        let decrypted = |ciphertext: &[u8]| {
            let mut context = PkeyCtx::new(key).unwrap();
            context.decrypt_init().unwrap();
            context.set_rsa_padding(Padding::PKCS1).unwrap();
            let mut message = Vec::new();
            context.decrypt_to_vec(ciphertext, &mut message).unwrap();
            message
        };
        let public = PKey::public_key_from_der(&key.public_key_to_der().unwrap()).unwrap();
        let mut ciphertext = Vec::new();
        let mut context = PkeyCtx::new(&public).unwrap();
        context.encrypt_init().unwrap();
        context.encrypt_to_vec(b"a secret", &mut ciphertext).unwrap();
        assert_eq!(decrypted(&ciphertext), b"a secret");
        let wrong = |byte| [&[0], &[byte; 255][..]].concat();
        assert_eq!(decrypted(&wrong(7)), decrypted(&wrong(7)));
        assert_ne!(decrypted(&wrong(7)), decrypted(&wrong(8)));
        let commands = device.commands();
        assert_eq!(commands.iter().filter(|name| *name == "RSA_Decrypt").count(), 5);
    });
}
