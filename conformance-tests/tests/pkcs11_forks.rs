//! The module in processes that fork: whatever a child does, and however it leaves, its parent goes on.

mod forks;
mod raw;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};

use conformance_tests::{Device, Hold, ResourceManager, Token, count};
use cryptoki_sys::*;
use forks::{WAYS, Way, assert_no_attack, child};
use raw::{PIN, Raw, Rv, call, number};

const MESSAGE: &[u8] = b"a message of two parts";

/// A device with a token that has a PIN and a key, behind a resource manager or not.
fn device(managed: bool) -> (Device, Option<ResourceManager>) {
    let device = Device::with_hold(Hold::Default);
    Token::new(&device, "dev", "1234").generate("EC:prime256v1", "ec", "01");
    let manager = managed.then(|| ResourceManager::start(&device));
    (device, manager)
}

/// A session of this process, logged in, and the pair.
#[derive(Clone, Copy)]
struct Signer<'a> {
    raw: &'a Raw,
    session: CK_SESSION_HANDLE,
    public: CK_OBJECT_HANDLE,
    private: CK_OBJECT_HANDLE,
}

impl<'a> Signer<'a> {
    fn new(raw: &'a Raw) -> Self {
        let session = raw.open(0);
        raw.login(session, CKU_USER, PIN).unwrap();
        let find = |class| raw.find(session, &[(CKA_CLASS, number(class))])[0];
        Self { raw, session, public: find(CKO_PUBLIC_KEY), private: find(CKO_PRIVATE_KEY) }
    }

    /// A child's: nothing of what it inherited is known, and it begins anew.
    fn of_child(inherited: &Signer<'a>) -> Self {
        let gone = Err(CKR_CRYPTOKI_NOT_INITIALIZED);
        assert_eq!(inherited.begin(), gone);
        assert_eq!(inherited.finish(), gone);
        call!(inherited.raw, C_Initialize(null_mut())).unwrap();
        assert_eq!(inherited.begin(), Err(CKR_SESSION_HANDLE_INVALID));
        Self::new(inherited.raw)
    }

    fn begin(&self) -> Rv<()> {
        self.raw.sign_init(self.session, CKM_ECDSA_SHA256, self.private)?;
        self.raw.add(self.raw.list.C_SignUpdate, self.session, &MESSAGE[..9])
    }

    fn finish(&self) -> Rv<()> {
        self.raw.add(self.raw.list.C_SignUpdate, self.session, &MESSAGE[9..])?;
        let signature = self.raw.last(self.raw.list.C_SignFinal, self.session)?;
        self.raw.verify(self.session, CKM_ECDSA_SHA256, self.public, MESSAGE, &signature)
    }

    fn sign(&self) {
        self.begin().and_then(|()| self.finish()).unwrap_or_else(|error| panic!("signing answers {error:#x}"));
    }

    /// Closes what it opened; logged out with that.
    fn close(self) {
        call!(self.raw, C_CloseSession(self.session)).unwrap();
    }
}

/// What a child does before it leaves.
type Deed = (&'static str, fn(&Signer<'_>));

const DEEDS: [Deed; 5] = [
    ("nothing", |_| {}),
    ("signs", |inherited| {
        let own = Signer::of_child(inherited);
        (0..3).for_each(|_| own.sign());
    }),
    ("is in the middle of a signature", |inherited| Signer::of_child(inherited).begin().unwrap()),
    ("closes and frees", |inherited| {
        let own = Signer::of_child(inherited);
        own.sign();
        call!(own.raw, C_Logout(own.session)).unwrap();
        call!(own.raw, C_CloseAllSessions(0)).unwrap();
    }),
    ("finalises", |inherited| {
        assert_eq!(call!(inherited.raw, C_Finalize(null_mut())), Err(CKR_CRYPTOKI_NOT_INITIALIZED));
        let own = Signer::of_child(inherited);
        own.sign();
        call!(own.raw, C_Finalize(null_mut())).unwrap();
    }),
];

/// Every deed of a child, and every way to leave, at each stage of its parent.
fn whatever_a_child_does(managed: bool) {
    let (device, _manager) = device(managed);
    let raw = Raw::initialised(&device);
    device.mark();
    for (name, deed) in DEEDS {
        for way in WAYS {
            // After initialise; sessions are opened when the child is at it.
            let nobody = Signer { raw: &raw, session: 0, public: 0, private: 0 };
            let work = child(way, || deed(&nobody));
            let signer = Signer::new(&raw);
            signer.sign();
            work.join();
            // After the login, and in the middle of a signature.
            let work = child(way, || deed(&signer));
            signer.sign();
            work.join();
            signer.begin().unwrap();
            let work = child(way, || deed(&signer));
            signer.finish().unwrap_or_else(|error| panic!("{name}, {way:?}: {error:#x}"));
            signer.begin().unwrap();
            work.join();
            signer.finish().unwrap_or_else(|error| panic!("{name}, {way:?}: {error:#x}"));
            signer.close();
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
    let raw = Raw::initialised(&device);
    let signer = Signer::new(&raw);
    device.mark();
    let rounds = count(100, 1000);
    for round in 0..rounds {
        let work = child(WAYS[round % WAYS.len()], || Signer::of_child(&signer).sign());
        signer.sign();
        work.join();
        signer.sign();
    }
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    let work = child(Way::AtOnce, || {
        let own = Signer::of_child(&signer);
        for _ in 0..rounds {
            theirs.read_exact(&mut [0]).unwrap();
            own.sign();
            theirs.write_all(&[0]).unwrap();
        }
    });
    for _ in 0..rounds {
        signer.sign();
        ours.write_all(&[0]).unwrap();
        ours.read_exact(&mut [0]).unwrap();
    }
    work.join();
    println!("{rounds} children, and {rounds} turns of one");
    assert_no_attack(&device);
    assert!(device.commands().iter().filter(|name| *name == "Sign").count() == 5 * rounds);
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
    let raw = Raw::initialised(&device);
    let signer = Signer::new(&raw);
    device.mark();
    for round in 0..count(10, 100) {
        let way = |generation: usize| WAYS[(round + generation) % WAYS.len()];
        signer.begin().unwrap();
        let first = child(way(0), || {
            let own = Signer::of_child(&signer);
            own.begin().unwrap();
            let second = child(way(1), || {
                let own = Signer::of_child(&own);
                own.begin().unwrap();
                let third = child(way(2), || Signer::of_child(&own).sign());
                own.finish().unwrap();
                third.join();
                own.sign();
            });
            own.finish().unwrap();
            own.sign();
            second.join();
            own.sign();
        });
        signer.finish().unwrap();
        first.join();
        signer.sign();
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
    let raw = &Raw::initialised(&device);
    let signer = Signer::new(raw);
    let threads = |work: &(dyn Fn(&Signer<'_>) + Sync)| {
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let own = Signer { session: raw.open(0), ..signer };
                scope.spawn(move || {
                    work(&own);
                    own.close();
                });
            }
        });
    };
    device.mark();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            threads(&|own| {
                while !stop.load(Ordering::Relaxed) {
                    own.sign();
                }
            });
        });
        for round in 0..count(30, 300) {
            let work = child(WAYS[round % WAYS.len()], || {
                let child = Signer::of_child(&signer);
                std::thread::scope(|scope| {
                    for _ in 0..3 {
                        let own = Signer { session: raw.open(0), ..child };
                        scope.spawn(move || (0..3).for_each(|_| own.sign()));
                    }
                });
            });
            signer.sign();
            work.join();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_no_attack(&device);
}

#[test]
fn children_of_a_process_whose_threads_sign_sign_in_threads() {
    forks_while_threads_sign(false);
}

#[test]
fn children_of_a_process_whose_threads_sign_sign_in_threads_with_a_resource_manager() {
    forks_while_threads_sign(true);
}
