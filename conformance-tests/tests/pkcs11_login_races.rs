//! Threads that log in and out of one token, and close its sessions, amid each other's work.

mod race;
mod raw;

use std::ptr::null_mut;
use std::time::{Duration, Instant};

use conformance_tests::{Device, Hold, count};
use cryptoki_sys::*;
use race::{Answers, Race, Racer, STAYS, STORED};
use raw::{PIN, Raw, call, number};

/// Nobody has a token of his own here: whoever logs out or closes all sessions ends what others are at.
#[test]
fn sixteen_threads_log_in_and_out_and_close_all_sessions_amid_each_others_work() {
    let device = Device::with_hold(Hold::Default);
    let raw = &Raw::initialised(&device);
    raw.make_token(0, "dev");
    let race = &Race::on(raw, 0);
    let duration = Duration::from_secs(count(3, 60) as u64);
    let until = Instant::now() + duration;
    let racers: Vec<_> = std::thread::scope(|scope| {
        let work = |thread| {
            scope.spawn(move || {
                let mut racer = Racer::new(race, thread);
                while Instant::now() < until {
                    racer.step();
                }
                racer
            })
        };
        let threads: Vec<_> = (0..race::THREADS).map(work).collect();
        threads.into_iter().map(|thread| thread.join().expect("no thread panics")).collect()
    });
    let (mut answers, mut stored) = (Answers::new(), 0);
    for racer in &racers {
        stored += racer.stored;
        racer.answers.iter().for_each(|(answer, count)| *answers.entry(*answer).or_default() += count);
    }
    let signatures: Vec<_> = racers.iter().map(|racer| racer.signatures).collect();
    println!("{} calls in {duration:?}, {stored} keys left:", answers.values().sum::<usize>());
    answers.iter().for_each(|((function, answer), count)| println!("{function:30} {answer:#5x} {count:6}"));
    println!("signatures, all verified: {signatures:?}");
    assert!(signatures.iter().any(|count| *count > 0), "somebody gets to a signature");

    call!(raw, C_CloseAllSessions(0)).unwrap();
    let info = raw.token_info(0);
    assert_eq!((info.ulSessionCount, info.ulRwSessionCount), (0, 0));
    let session = raw.open(0);
    assert_eq!(raw.state(session), CKS_RW_PUBLIC_SESSION);
    raw.login(session, CKU_USER, PIN).unwrap();
    raw.sign_with_pair(session, STAYS.as_bytes());
    // What a thread could not destroy any more is there, and nothing else.
    let left = raw.find(session, &[(CKA_CLASS, number(CKO_SECRET_KEY)), (CKA_LABEL, STORED.into())]);
    assert_eq!(left.len(), stored);
    for key in left {
        call!(raw, C_DestroyObject(session, key)).unwrap();
    }
    assert_eq!(raw.find(session, &[]).len(), 2);
    call!(raw, C_Finalize(null_mut())).unwrap();
    assert_eq!(device.left_at_the_tpm(), "");
    assert_eq!(device.attacks(), [""; 0]);
    assert_eq!(device.lockout_counter(), "0x0");
}

#[test]
fn whoever_logs_in_while_the_sessions_are_closed_leaves_nobody_logged_in() {
    let device = Device::with_hold(Hold::Default);
    let raw = &Raw::initialised(&device);
    raw.make_token(0, "dev");
    let (rounds, mut logins) = (count(30, 300), 0);
    for round in 0..rounds {
        let sessions: &[_] = &[(); 4].map(|()| raw.open(0));
        logins += std::thread::scope(|scope| {
            let threads: Vec<_> =
                sessions.iter().map(|session| scope.spawn(|| log_in_and_out(raw, *session))).collect();
            // Two, each of which has closed them all when it is done.
            for _ in 0..2 {
                scope.spawn(move || {
                    std::thread::sleep(Duration::from_millis(round as u64 % 10));
                    call!(raw, C_CloseAllSessions(0)).unwrap();
                    for session in sessions {
                        let mut info = CK_SESSION_INFO::default();
                        let answer = call!(raw, C_GetSessionInfo(*session, &mut info));
                        assert_eq!(answer, Err(CKR_SESSION_HANDLE_INVALID), "in round {round}");
                    }
                });
            }
            threads.into_iter().map(|thread| thread.join().expect("no thread panics")).sum::<usize>()
        });
        assert_eq!(raw.token_info(0).ulSessionCount, 0);
        let session = raw.open(0);
        assert_eq!(raw.state(session), CKS_RW_PUBLIC_SESSION, "in round {round}");
        call!(raw, C_CloseSession(session)).unwrap();
    }
    call!(raw, C_Finalize(null_mut())).unwrap();
    println!("{logins} logins until all sessions were closed, {rounds} times");
}

/// In turns with others, until the session is closed; how often that was a login.
fn log_in_and_out(raw: &Raw, session: CK_SESSION_HANDLE) -> usize {
    let mut logins = 0;
    loop {
        let answer = match raw.login(session, CKU_USER, PIN) {
            Err(CKR_USER_ALREADY_LOGGED_IN) => call!(raw, C_Logout(session)),
            answer => answer.inspect(|()| logins += 1),
        };
        match answer {
            // Another thread may have logged out first.
            Ok(()) | Err(CKR_USER_NOT_LOGGED_IN) => {}
            Err(CKR_SESSION_HANDLE_INVALID) => return logins,
            Err(error) => panic!("{error:#x}"),
        }
    }
}
