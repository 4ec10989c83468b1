//! The provider in processes that fork: parent and child both sign with one key, whatever the child does to its own.

mod forks;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};

use conformance_tests::{Device, Hold, ResourceManager, Token, count};
use forks::{WAYS, Way, assert_no_attack, child};
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::provider::Provider;
use openssl::sign::{Signer, Verifier};

const MESSAGE: &[u8] = b"a message of two parts";

/// A device with a token that has a PIN and a key, behind a resource manager or not; the test's process runs on it.
fn device(managed: bool) -> (Device, Option<ResourceManager>) {
    let device = Device::with_hold(Hold::Default);
    Token::new(&device, "gateway", "123456").generate("EC:prime256v1", "ec", "01");
    device.write("pin", "123456");
    device.wrap_uri("pkcs11:token=gateway;object=ec;type=private?pin-source=file:pin", "key.pem");
    let manager = managed.then(|| ResourceManager::start(&device));
    device.enter();
    std::env::set_current_dir(device.folder()).unwrap();
    (device, manager)
}

/// The two providers; dropped, they are unloaded.
struct Providers(#[expect(dead_code, reason = "dropping them is what they are for")] [Provider; 2]);

impl Providers {
    fn load() -> Self {
        Self(["default", "keyrivet"].map(|name| Provider::load(None, name).unwrap()))
    }
}

fn key() -> PKey<Private> {
    PKey::private_key_from_pem(&std::fs::read("key.pem").unwrap()).unwrap()
}

/// Read by whoever has libcrypto look up an algorithm, written by whoever forks beside such threads: a child finds the
/// locks of libcrypto's that another thread held as they were, for ever. Ours it must be able to take all the same.
static LOOKING_UP: RwLock<()> = RwLock::new(());

fn begin(key: &PKey<Private>) -> Signer<'_> {
    let looking_up = LOOKING_UP.read().unwrap();
    let mut signer = Signer::new(MessageDigest::sha256(), key).unwrap();
    drop(looking_up);
    signer.update(&MESSAGE[..9]).unwrap();
    signer
}

fn finish(mut signer: Signer<'_>, key: &PKey<Private>) {
    signer.update(&MESSAGE[9..]).unwrap();
    let signature = signer.sign_to_vec().unwrap();
    let looking_up = LOOKING_UP.read().unwrap();
    let mut verifier = Verifier::new(MessageDigest::sha256(), key).unwrap();
    drop(looking_up);
    assert!(verifier.verify_oneshot(&signature, MESSAGE).unwrap());
    assert_eq!(openssl::error::ErrorStack::get().errors().len(), 0, "success leaves no error behind");
}

fn sign(key: &PKey<Private>) {
    finish(begin(key), key);
}

/// What a child does with what it inherited. It owns a copy of all of it, so it may free it.
type Deed = fn(Providers, Option<PKey<Private>>);

const DEEDS: [(&str, Deed); 6] = [
    ("nothing", |providers, key| std::mem::forget((providers, key))),
    ("signs", |providers, key| {
        let key = key.unwrap_or_else(self::key);
        (0..3).for_each(|_| sign(&key));
        std::mem::forget((providers, key));
    }),
    ("is in the middle of a signature", |providers, key| {
        let key = key.unwrap_or_else(self::key);
        sign(&key);
        std::mem::forget(begin(&key));
        std::mem::forget((providers, key));
    }),
    ("frees its key", |providers, key| {
        drop(key);
        std::mem::forget(providers);
    }),
    ("signs and frees everything", |providers, key| {
        let key = key.unwrap_or_else(self::key);
        sign(&key);
        drop(key);
        drop(providers);
    }),
    ("frees everything and begins anew", |providers, key| {
        drop(key);
        drop(providers);
        let _providers = Providers::load();
        sign(&self::key());
    }),
];

fn whatever_a_child_does(managed: bool) {
    let (device, _manager) = device(managed);
    device.mark();
    for (name, deed) in DEEDS {
        for way in WAYS {
            let mut providers = Some(Providers::load());
            // A child gets what its copy of the variables holds, and the parent keeps its own.
            let mut child =
                |key: &mut Option<PKey<Private>>| child(way, || deed(providers.take().unwrap(), key.take()));
            // After initialise.
            let work = child(&mut None);
            let mut key = Some(self::key());
            work.join();
            // After the login, and in the middle of a signature.
            sign(key.as_ref().unwrap());
            let work = child(&mut key);
            sign(key.as_ref().unwrap());
            work.join();
            // The signature holds a reference, which the child's copy has too.
            let own = key.clone().unwrap();
            let signer = begin(&own);
            let work = child(&mut key);
            finish(signer, &own);
            let signer = begin(&own);
            work.join();
            finish(signer, &own);
            println!("{name}, {way:?}");
        }
    }
    assert_no_attack(&device);
}

#[test]
fn whatever_a_child_does_its_parent_goes_on() {
    whatever_a_child_does(false);
}

#[test]
fn whatever_a_child_does_its_parent_goes_on_with_a_resource_manager() {
    whatever_a_child_does(true);
}

/// Child after child, and each side's turn again and again.
fn in_turns(managed: bool) {
    let (device, _manager) = device(managed);
    let _providers = Providers::load();
    let key = key();
    sign(&key);
    device.mark();
    let rounds = count(100, 1000);
    for round in 0..rounds {
        let work = child(WAYS[round % WAYS.len()], || sign(&key));
        sign(&key);
        work.join();
        sign(&key);
    }
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    let work = child(Way::AtOnce, || {
        for _ in 0..rounds {
            theirs.read_exact(&mut [0]).unwrap();
            sign(&key);
            theirs.write_all(&[0]).unwrap();
        }
    });
    for _ in 0..rounds {
        sign(&key);
        ours.write_all(&[0]).unwrap();
        ours.read_exact(&mut [0]).unwrap();
    }
    work.join();
    println!("{rounds} children, and {rounds} turns of one");
    assert_no_attack(&device);
    assert_eq!(device.commands().iter().filter(|name| *name == "Sign").count(), 5 * rounds);
}

#[test]
fn parent_and_child_sign_in_turns() {
    in_turns(false);
}

#[test]
fn parent_and_child_sign_in_turns_with_a_resource_manager() {
    in_turns(true);
}

fn three_generations(managed: bool) {
    let (device, _manager) = device(managed);
    let _providers = Providers::load();
    let key = key();
    sign(&key);
    device.mark();
    for round in 0..count(10, 100) {
        let way = |generation: usize| WAYS[(round + generation) % WAYS.len()];
        let signer = begin(&key);
        let first = child(way(0), || {
            sign(&key);
            let signer = begin(&key);
            let second = child(way(1), || {
                let signer = begin(&key);
                let third = child(way(2), || sign(&key));
                finish(signer, &key);
                third.join();
                sign(&key);
            });
            finish(signer, &key);
            second.join();
            sign(&key);
        });
        finish(signer, &key);
        first.join();
        sign(&key);
    }
    assert_no_attack(&device);
}

#[test]
fn three_generations_sign() {
    three_generations(false);
}

#[test]
fn three_generations_sign_with_a_resource_manager() {
    three_generations(true);
}

/// Other threads are in the middle of anything when a process forks; the child has threads of its own.
fn forks_while_threads_sign(managed: bool) {
    let (device, _manager) = device(managed);
    let _providers = Providers::load();
    let key = &key();
    device.mark();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    sign(key);
                }
            });
        }
        let _end = SetOnDrop(&stop);
        for round in 0..count(30, 300) {
            let nobody_looks_up = LOOKING_UP.write().unwrap();
            let work = child(WAYS[round % WAYS.len()], move || {
                drop(nobody_looks_up);
                std::thread::scope(|scope| {
                    for _ in 0..3 {
                        scope.spawn(|| (0..3).for_each(|_| sign(key)));
                    }
                });
            });
            sign(key);
            work.join();
        }
    });
    assert_no_attack(&device);
}

/// Threads end, too, where the one that they work beside panics.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn children_of_a_process_whose_threads_sign_sign_in_threads() {
    forks_while_threads_sign(false);
}

#[test]
fn children_of_a_process_whose_threads_sign_sign_in_threads_with_a_resource_manager() {
    forks_while_threads_sign(true);
}
