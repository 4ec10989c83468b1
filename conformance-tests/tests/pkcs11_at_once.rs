//! Many threads at once in the module: C_Finalize in the middle of every function, and anything on several tokens.

mod raw;
mod walk;

use std::collections::BTreeMap;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use conformance_tests::{Chances, Device, Hold, count};
use cryptoki_sys::*;
use raw::{Given, P256, PIN, Raw, Rv, Wanted, call, flag, mechanism, number};
use walk::{Function, Login, TABLE, When, World, function};

const THREADS: usize = 8;
/// By their slots.
const TOKENS: [&str; 4] = ["one", "two", "three", "four"];

/// What a call may answer that C_Finalize overtook: that the library is gone, or, where it came through before that
/// was seen, that everything in it is.
const OVERTAKEN: [CK_RV; 8] = [
    CKR_CRYPTOKI_NOT_INITIALIZED,
    CKR_SESSION_HANDLE_INVALID,
    CKR_SLOT_ID_INVALID,
    CKR_OBJECT_HANDLE_INVALID,
    CKR_KEY_HANDLE_INVALID,
    CKR_WRAPPING_KEY_HANDLE_INVALID,
    CKR_UNWRAPPING_KEY_HANDLE_INVALID,
    CKR_USER_NOT_LOGGED_IN,
];

/// What a call may answer because another went before it in the same loop.
fn repeated(function: &Function) -> &'static [CK_RV] {
    match function.name {
        "C_CloseSession" => &[CKR_SESSION_HANDLE_INVALID],
        "C_DestroyObject" => &[CKR_OBJECT_HANDLE_INVALID],
        "C_Logout" => &[CKR_USER_NOT_LOGGED_IN],
        "C_Login" | "C_LoginUser" => &[CKR_USER_ALREADY_LOGGED_IN],
        "C_InitToken" => &[CKR_SESSION_EXISTS],
        // Where an operation ended before its turn, or was not begun.
        _ => &[CKR_OPERATION_NOT_INITIALIZED, CKR_OPERATION_ACTIVE],
    }
}

#[test]
fn finalise_in_the_middle_of_any_function_does_no_harm() {
    let device = Device::with_hold(Hold::Default);
    let mut world = World::new(&device);
    let mut answers = BTreeMap::<CK_RV, usize>::new();
    // A new token in each round would leave dozens of them.
    let functions =
        TABLE.iter().filter(|function| function.when == When::Initialised && function.name != "C_InitToken");
    for (round, function) in functions.enumerate() {
        // What it needs is made before the threads ask for it.
        drop(world.prepare(function));
        let (start, world_now) = (Barrier::new(THREADS + 1), &world);
        let seen = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..THREADS).map(|_| scope.spawn(|| until_finalised(world_now, function, &start))).collect();
            start.wait();
            std::thread::sleep(Duration::from_micros(round as u64 * 37 % 1500));
            call!(world_now.raw, C_Finalize(null_mut())).unwrap();
            threads.into_iter().map(|thread| thread.join().expect("no thread panics")).collect::<Vec<_>>()
        });
        for (name, answer) in seen.into_iter().flatten() {
            let row = walk::function(name);
            let expected = answer == row.answer || OVERTAKEN.contains(&answer) || repeated(row).contains(&answer);
            assert!(expected, "{name} answers {answer:#x}, while {} is called", function.name);
            *answers.entry(answer).or_default() += 1;
        }
        world.initialise_again();
    }
    assert!(answers[&CKR_OK] > 100 && answers[&CKR_CRYPTOKI_NOT_INITIALIZED] > 100, "{answers:x?}");
    world.log_in(Login::User);
    assert_eq!(world.prepare(function("C_Sign")).run(), Ok(()), "it works as ever");
    assert_eq!(world.raw.token_info(0).flags & (CKF_USER_PIN_COUNT_LOW | CKF_SO_PIN_COUNT_LOW), 0);
    call!(world.raw, C_Finalize(null_mut())).unwrap();
    assert_eq!(device.left_at_the_tpm(), "");
}

/// Calls a function, and what goes before it, over and over until the library is finalised; every answer.
fn until_finalised(world: &World, function: &'static Function, start: &Barrier) -> Vec<(&'static str, CK_RV)> {
    let last = world.prepare_alone(function);
    let mut calls: Vec<_> =
        function.after.iter().map(|name| world.call(walk::function(name), last.session())).collect();
    calls.push(last);
    let mut answers = Vec::new();
    start.wait();
    loop {
        for call in &calls {
            call.renew();
            let answer = call.run().err().unwrap_or(CKR_OK);
            answers.push((call.function.name, answer));
            if answer == CKR_CRYPTOKI_NOT_INITIALIZED {
                return answers;
            }
        }
    }
}

#[test]
fn ten_thousand_sessions_opened_at_once_have_handles_of_their_own() {
    const THREADS: usize = 16;
    const EACH: usize = 10_000 / THREADS;
    let device = Device::new();
    let raw = &Raw::initialised(&device);
    raw.make_token(0, "dev");
    let start = &Barrier::new(THREADS);
    let opened: Vec<_> = std::thread::scope(|scope| {
        let open = || {
            start.wait();
            (0..EACH).map(|_| raw.open(0)).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(open)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no thread panics")).collect()
    });
    let distinct: std::collections::BTreeSet<_> = opened.iter().collect();
    assert_eq!(distinct.len(), THREADS * EACH);
    assert_eq!(raw.token_info(0).ulSessionCount as usize, THREADS * EACH);
    std::thread::scope(|scope| {
        for own in opened.chunks(EACH) {
            scope.spawn(move || {
                for session in own {
                    assert_eq!(raw.state(*session), CKS_RW_PUBLIC_SESSION);
                    call!(raw, C_CloseSession(*session)).unwrap();
                }
            });
        }
    });
    assert_eq!(raw.token_info(0).ulSessionCount, 0);
}

#[test]
fn sixteen_threads_do_anything_on_four_tokens_and_each_sees_its_own() {
    let device = Device::with_hold(Hold::Default);
    let raw = Raw::initialised(&device);
    for (slot, label) in (0..).zip(TOKENS) {
        raw.make_token(slot, label);
        let session = raw.open(slot);
        raw.login(session, CKU_USER, PIN).unwrap();
        let (public, private) = raw.generate_ec(session, true);
        for key in [public, private] {
            raw.set(session, key, &[(CKA_LABEL, label.into())]).unwrap();
        }
        // The session stays open, and with it the login.
    }
    let duration = Duration::from_secs(count(3, 60) as u64);
    let stop = AtomicBool::new(false);
    let (raw, stop_now) = (&raw, &stop);
    // Also where this thread panics before it stops them.
    let until = Instant::now() + duration * 20;
    let done: Vec<_> = std::thread::scope(|scope| {
        let work = |thread: usize| scope.spawn(move || anything(raw, thread, stop_now, until));
        let threads: Vec<_> = (0..16).map(work).collect();
        std::thread::sleep(duration);
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().expect("no thread panics")).collect()
    });
    println!(
        "{} rounds by 16 threads on {} tokens in {duration:?}: {done:?}",
        done.iter().sum::<usize>(),
        TOKENS.len()
    );
    assert!(done.iter().all(|rounds| *rounds > 0), "each thread gets its turn: {done:?}");
    for slot in (0..).take(TOKENS.len()) {
        let session = raw.open(slot);
        let labels = [(CKA_TOKEN, flag(true))];
        assert_eq!(raw.find(session, &labels).len(), 2, "what a thread stored it has destroyed");
        assert_eq!(raw.find(session, &[(CKA_TOKEN, flag(false))]), [], "and what its sessions had is gone with them");
    }
    call!(raw, C_Finalize(null_mut())).unwrap();
    assert_eq!(device.left_at_the_tpm(), "");
}

/// Each function by its row of the table, in sessions of its own; what logs in and out, on a token that one thread at a time has.
#[test]
fn sixteen_threads_call_every_function_at_random_on_four_tokens() {
    let device = Device::with_hold(Hold::Default);
    let raw = Arc::new(Raw::initialised(&device));
    let labels = TOKENS.iter().chain(&["logins", "nobody's"]);
    (0..).zip(labels).for_each(|(slot, label)| raw.make_token(slot, label));
    let [logins, nobodys] = [TOKENS.len(), TOKENS.len() + 1].map(|slot| slot as CK_SLOT_ID);
    let worlds: Vec<_> = (0..logins).map(|slot| World::on(raw.clone(), slot, nobodys)).collect();
    let alone = Mutex::new(World::on(raw.clone(), logins, nobodys));
    // Each round would leave a token more.
    let functions: Vec<_> = walk::working().filter(|function| function.name != "C_InitToken").collect();
    let call_all = |world: &World| {
        for function in &functions {
            assert_eq!(answer_of(world, function), function.answer, "{}", function.name);
        }
        world.log_in(Login::User);
    };
    // Makes the objects, most of which stay: threads would make them more than once.
    worlds.iter().for_each(call_all);
    let duration = Duration::from_secs(count(3, 60) as u64);
    let until = Instant::now() + duration;
    let called: Vec<_> = std::thread::scope(|scope| {
        let work = |thread: u64| {
            let (worlds, alone, functions) = (&worlds, &alone, &functions);
            scope.spawn(move || {
                let (mut chances, mut called) = (Chances::new(thread), BTreeMap::<_, usize>::new());
                // Each function is somebody's first.
                let mut first = functions.iter().skip(thread as usize).step_by(16);
                loop {
                    let function = match first.next() {
                        Some(function) => function,
                        None if Instant::now() >= until => break,
                        None => functions[chances.next() as usize % functions.len()],
                    };
                    let answer = if function.login == Login::User && function.name != "C_Logout" {
                        answer_of(&worlds[chances.next() as usize % worlds.len()], function)
                    } else {
                        answer_of(&alone.lock().expect("no thread panics"), function)
                    };
                    // Another thread may have destroyed what it was to destroy.
                    let expected = [function.answer, CKR_OBJECT_HANDLE_INVALID];
                    let expected = &expected[..1 + usize::from(function.name == "C_DestroyObject")];
                    assert!(expected.contains(&answer), "{} answers {answer:#x}", function.name);
                    *called.entry(function.name).or_default() += 1;
                }
                called
            })
        };
        let threads: Vec<_> = (0..16).map(work).collect();
        threads.into_iter().map(|thread| thread.join().expect("no thread panics")).collect()
    });
    let all: std::collections::BTreeSet<_> = called.iter().flat_map(|called| called.keys()).collect();
    let calls: Vec<usize> = called.iter().map(|called| called.values().sum()).collect();
    println!(
        "{} calls of {} functions by 16 threads in {duration:?}: {calls:?}",
        calls.iter().sum::<usize>(),
        all.len()
    );
    assert_eq!(all.len(), functions.len(), "{all:?}");
    worlds.iter().for_each(call_all);
    for slot in 0..logins {
        assert_eq!(raw.token_info(slot).ulSessionCount, 1, "a session that nobody closed");
    }
    call!(raw, C_Finalize(null_mut())).unwrap();
    assert_eq!(device.left_at_the_tpm(), "");
}

/// What a function answers, in a session that is closed then, as is one that it opens. Copies stay: others may have found them.
fn answer_of(world: &World, function: &'static Function) -> CK_RV {
    let call = world.prepare(function);
    let answer = call.run();
    if function.name == "C_OpenSession" && answer.is_ok() {
        call!(world.raw, C_CloseSession(call.value(4))).unwrap();
    }
    answer.err().unwrap_or(CKR_OK)
}

/// One thread: sessions of its own, one thing after the other in an order of its own, each checked.
fn anything(raw: &Raw, thread: usize, stop: &AtomicBool, until: Instant) -> usize {
    let mut chances = Chances::new(thread as u64);
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) && Instant::now() < until {
        let chance = chances.next();
        let slot = chance % TOKENS.len() as u64;
        let label = TOKENS[slot as usize].as_bytes().to_vec();
        let session = raw.open(slot as CK_SLOT_ID);
        match chance / 3 % 8 {
            0 => raw.sign_with_pair(session, &label),
            1 => digest_in_parts(raw, session, chance),
            2 => store_and_destroy(raw, session, thread, true),
            3 => store_and_destroy(raw, session, thread, false),
            4 => key_of_the_session(raw, session),
            5 => cipher(raw, session, chance),
            6 => mac(raw, session, chance),
            _ => not_what_it_cannot(raw, session, slot as CK_SLOT_ID, &label),
        }
        call!(raw, C_CloseSession(session)).unwrap();
        assert_eq!(call!(raw, C_CloseSession(session)), Err(CKR_SESSION_HANDLE_INVALID));
        rounds += 1;
    }
    rounds
}

fn digest_in_parts(raw: &Raw, session: CK_SESSION_HANDLE, chance: u64) {
    let data: Vec<u8> = chance.to_ne_bytes().repeat(20);
    call!(raw, C_DigestInit(session, &mut mechanism(CKM_SHA256))).unwrap();
    for part in data.chunks(chance as usize % 70 + 1) {
        call!(raw, C_DigestUpdate(session, part.as_ptr().cast_mut(), part.len() as CK_ULONG)).unwrap();
    }
    let (mut digest, mut length) = ([0; 32], 32);
    call!(raw, C_DigestFinal(session, digest.as_mut_ptr(), &mut length)).unwrap();
    assert_eq!(digest[..], *openssl::hash::hash(openssl::hash::MessageDigest::sha256(), &data).unwrap());
}

fn store_and_destroy(raw: &Raw, session: CK_SESSION_HANDLE, thread: usize, stored: bool) {
    let label = format!("of thread {thread}").into_bytes();
    let own: [Given; 4] = [
        (CKA_CLASS, number(CKO_DATA)),
        (CKA_TOKEN, flag(stored)),
        (CKA_LABEL, label.clone()),
        (CKA_PRIVATE, flag(thread.is_multiple_of(2))),
    ];
    let object = raw.create(session, &own).unwrap();
    assert_eq!(raw.find(session, &own), [object]);
    raw.set(session, object, &[(CKA_LABEL, b"changed".to_vec())]).unwrap();
    assert_eq!(raw.get(session, object, CKA_LABEL).unwrap(), b"changed");
    assert_eq!(raw.find(session, &own), []);
    call!(raw, C_DestroyObject(session, object)).unwrap();
    assert_eq!(raw.get(session, object, CKA_LABEL), Err(CKR_OBJECT_HANDLE_INVALID));
}

fn key_of_the_session(raw: &Raw, session: CK_SESSION_HANDLE) {
    let (public, private) = raw.generate(session, CKM_EC_KEY_PAIR_GEN, &[(CKA_EC_PARAMS, P256.to_vec())], &[]).unwrap();
    raw.sign_init(session, CKM_ECDSA, private).unwrap();
    let signature = raw.sign(session, &[7; 32]).unwrap();
    raw.verify(session, CKM_ECDSA, public, &[7; 32], &signature).unwrap();
}

fn cipher(raw: &Raw, session: CK_SESSION_HANDLE, chance: u64) {
    let template = [(CKA_VALUE_LEN, number(16)), (CKA_ENCRYPT, flag(true)), (CKA_DECRYPT, flag(true))];
    let key = raw.generate_secret(session, CKM_AES_KEY_GEN, &template).unwrap();
    let (wanted, clear) = (Wanted(CKM_AES_CBC_PAD, vec![thread_byte(chance); 16]), chance.to_ne_bytes().repeat(5));
    raw.begin(raw.list.C_EncryptInit, session, &wanted, key).unwrap();
    let mut encrypted = raw.through(raw.list.C_EncryptUpdate, session, &clear).unwrap();
    encrypted.extend(raw.last(raw.list.C_EncryptFinal, session).unwrap());
    raw.begin(raw.list.C_DecryptInit, session, &wanted, key).unwrap();
    assert_eq!(raw.through(raw.list.C_Decrypt, session, &encrypted).unwrap(), clear);
}

fn mac(raw: &Raw, session: CK_SESSION_HANDLE, chance: u64) {
    let secret = vec![thread_byte(chance); 32];
    let template = [
        (CKA_CLASS, number(CKO_SECRET_KEY)),
        (CKA_KEY_TYPE, number(CKK_GENERIC_SECRET)),
        (CKA_VALUE, secret.clone()),
        (CKA_SIGN, flag(true)),
    ];
    let key = raw.create(session, &template).unwrap();
    raw.sign_init(session, CKM_SHA256_HMAC, key).unwrap();
    let openssl = openssl::pkey::PKey::hmac(&secret).unwrap();
    let mut signer = openssl::sign::Signer::new(openssl::hash::MessageDigest::sha256(), &openssl).unwrap();
    assert_eq!(raw.sign(session, b"data").unwrap(), signer.sign_oneshot_to_vec(b"data").unwrap());
}

fn thread_byte(chance: u64) -> u8 {
    chance.to_ne_bytes()[5]
}

fn not_what_it_cannot(raw: &Raw, session: CK_SESSION_HANDLE, slot: CK_SLOT_ID, label: &[u8]) {
    let not_begun: Rv<Vec<u8>> = Err(CKR_OPERATION_NOT_INITIALIZED);
    assert_eq!(raw.sign(session, b"x"), not_begun);
    assert_eq!(
        raw.sign_init(session, CKM_ECDSA, raw.only(session, CKO_PUBLIC_KEY, label)),
        Err(CKR_KEY_FUNCTION_NOT_PERMITTED)
    );
    assert_eq!(raw.login(session, CKU_USER, PIN), Err(CKR_USER_ALREADY_LOGGED_IN));
    let info = raw.token_info(slot);
    assert!(info.label.starts_with(label) && info.ulSessionCount >= 2);
    let other = raw.open_read_only(slot);
    assert_eq!(
        raw.create(other, &[(CKA_CLASS, number(CKO_DATA)), (CKA_TOKEN, flag(true))]),
        Err(CKR_SESSION_READ_ONLY)
    );
    call!(raw, C_CloseSession(other)).unwrap();
}
