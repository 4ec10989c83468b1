//! The provider inside a process: library contexts of its own, loaded, unloaded and loaded again, threads.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

use conformance_tests::{Device, Hold, Token};
use foreign_types::ForeignType as _;
use openssl::hash::MessageDigest;
use openssl::lib_ctx::LibCtx;
use openssl::pkey::{PKey, Private};
use openssl::provider::Provider;
use openssl::sign::{Signer, Verifier};

// <openssl/pem.h>; the openssl crate knows the default library context only.
unsafe extern "C" {
    fn PEM_read_bio_PrivateKey_ex(
        bio: *mut openssl_sys::BIO,
        key: *mut *mut openssl_sys::EVP_PKEY,
        callback: Option<unsafe extern "C" fn(*mut c_char, c_int, c_int, *mut c_void) -> c_int>,
        argument: *mut c_void,
        context: *mut openssl_sys::OSSL_LIB_CTX,
        properties: *const c_char,
    ) -> *mut openssl_sys::EVP_PKEY;
}

/// A library context with the provider in it.
struct Context {
    // Dropped in this order.
    _providers: [Provider; 2],
    context: LibCtx,
}

impl Context {
    fn new(names: [&str; 2]) -> Self {
        let context = LibCtx::new().unwrap();
        let providers = names.map(|name| Provider::load(Some(&context), name).unwrap());
        Self { _providers: providers, context }
    }

    /// A key file, read in this context.
    fn key(&self, device: &Device, properties: Option<&CStr>) -> PKey<Private> {
        let content = device.read("key.pem");
        let properties = properties.map_or(ptr::null(), CStr::as_ptr);
        let context = self.context.as_ptr();
        // SAFETY: the stream reads bytes that outlive it, and is freed once; the key's reference is ours.
        unsafe {
            let bio = openssl_sys::BIO_new_mem_buf(content.as_ptr().cast(), content.len() as c_int);
            let key = PEM_read_bio_PrivateKey_ex(bio, ptr::null_mut(), None, ptr::null_mut(), context, properties);
            openssl_sys::BIO_free_all(bio);
            assert!(!key.is_null(), "{}", openssl::error::ErrorStack::get());
            PKey::from_ptr(key)
        }
    }
}

fn device_with_key() -> Device {
    let device = Device::with_hold(Hold::Default);
    device.new_key_file(["EC", "group:P-256"], "key.pem");
    device.enter();
    device
}

fn signs(key: &PKey<Private>) {
    let mut signer = Signer::new(MessageDigest::sha256(), key).unwrap();
    let signature = signer.sign_oneshot_to_vec(b"message").unwrap();
    let mut verifier = Verifier::new(MessageDigest::sha256(), key).unwrap();
    assert!(verifier.verify_oneshot(&signature, b"message").unwrap());
    assert_eq!(openssl::error::ErrorStack::get().errors().len(), 0, "success leaves no error behind");
}

#[test]
fn it_is_unloaded_and_loaded_again() {
    let device = device_with_key();
    for names in [["default", "keyrivet"], ["keyrivet", "default"], ["default", "keyrivet"]] {
        let context = Context::new(names);
        let key = context.key(&device, None);
        signs(&key);
        // Either may go first.
        if names[0] == "keyrivet" {
            drop((context, key));
        } else {
            drop((key, context));
        }
    }
}

#[test]
fn contexts_side_by_side_do_not_disturb_each_other() {
    let device = device_with_key();
    let (one, other) = (Context::new(["default", "keyrivet"]), Context::new(["keyrivet", "default"]));
    let (first, second) = (one.key(&device, None), other.key(&device, Some(c"?provider=keyrivet")));
    signs(&first);
    signs(&second);
    drop((one, first));
    signs(&second);
}

#[test]
fn four_threads_sign_with_one_key() {
    let device = device_with_key();
    let context = Context::new(["default", "keyrivet"]);
    let key = context.key(&device, None);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..10).for_each(|_| signs(&key)));
        }
    });
    let signatures = device.commands().iter().filter(|name| *name == "Sign").count();
    assert_eq!(signatures, 40);
}

#[test]
fn parent_and_child_of_a_fork_both_sign_whoever_frees_its_key_first() {
    unsafe extern "C" {
        fn fork() -> c_int;
        fn waitpid(process: c_int, status: *mut c_int, options: c_int) -> c_int;
        fn exit(status: c_int) -> !;
        fn _exit(status: c_int) -> !;
    }
    let device = Device::with_hold(Hold::Default);
    Token::new(&device, "gateway", "123456").generate("EC:prime256v1", "ec", "01");
    device.write("pin", "123456");
    device.wrap_uri("pkcs11:token=gateway;object=ec;type=private?pin-source=file:pin", "key.pem");
    device.enter();
    std::env::set_current_dir(device.folder()).unwrap();
    let context = Context::new(["default", "keyrivet"]);
    let key = context.key(&device, None);
    signs(&key);
    for round in 0..12 {
        // SAFETY: the test has one thread of its own; the child leaves by one of the exits.
        let child = unsafe { fork() };
        if child == 0 {
            let signed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                signs(&key);
                signs(&key);
            }));
            let status = c_int::from(signed.is_err());
            // SAFETY: nobody uses the key after this in the child, which ends with its exit handlers or without.
            unsafe {
                if round % 3 != 0 {
                    drop(ptr::read(&key));
                }
                if round % 2 == 0 { exit(status) } else { _exit(status) }
            }
        }
        signs(&key);
        let mut status = -1;
        // SAFETY: our own child.
        assert_eq!(unsafe { waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0, "the child signs, round {round}");
        signs(&key);
    }
    // (What a child leaves by _exit is flushed by the next one who finds no room.)
    assert!(device.attacks().is_empty());
    assert_eq!(device.commands().iter().filter(|name| *name == "Sign").count(), 1 + 12 * 4);
}

#[test]
fn signatures_in_close_succession_cost_one_command_each() {
    let device = device_with_key();
    device.hold(Hold::ToTheEnd);
    let context = Context::new(["default", "keyrivet"]);
    let key = context.key(&device, None);
    signs(&key);
    let cost = device.cost_of(|| (0..10).for_each(|_| signs(&key)));
    assert_eq!(cost, ["Sign"; 10]);
}

#[test]
fn a_private_key_is_not_exported_and_its_public_part_is() {
    let device = device_with_key();
    let context = Context::new(["default", "keyrivet"]);
    let key = context.key(&device, None);
    assert!(key.ec_key().is_err());
    let public = PKey::public_key_from_der(&key.public_key_to_der().unwrap()).unwrap();
    assert!(key.public_eq(&public));
}
