//! Writers of a store that are killed at random, and what they report until then.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::ptr::null_mut;
use std::thread::sleep;
use std::time::{Duration, Instant};

use conformance_tests::{Chances, SO_PIN};
use cryptoki_sys::*;

use crate::forks::{Way, child};
use crate::raw::{Given, P256, PERSISTENT, PIN, Raw, call, flag, number};

/// How many key pairs [`write_with_a_pin`] leaves: a TPM has few places.
const KEPT: usize = 3;
/// The slot of the token that it makes anew. The token of its other work is in slot 0.
pub(crate) const ANEW: CK_SLOT_ID = 1;

/// Kills writers, each at a time of its own.
pub(crate) struct Killer {
    /// It kills half of the writers soon after one of so many reports: amid what comes next, however short that is. The
    /// others at any time.
    reports: u8,
    chances: Chances,
    killed: usize,
    /// The least time that one of the first writers took to report so much: the machine may be slow.
    pace: Duration,
}

/// How a writer reports a word and a name.
pub(crate) type Tell<'a> = &'a dyn Fn(&str, &str);

impl Killer {
    pub(crate) fn soon_after(reports: u8) -> Self {
        Self { reports, chances: Chances::new(0), killed: 0, pace: Duration::MAX }
    }

    /// Starts a writer in a process of its own, and kills it; the lines that it has reported.
    pub(crate) fn kill_amid(&mut self, write: impl FnOnce(Tell<'_>)) -> Vec<String> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let writer = child(Way::Kill, || {
            // Each line at once, lest it ends early with its writer.
            write(&|word, name| (&theirs).write_all(format!("{word} {name}\n").as_bytes()).unwrap());
        });
        drop(theirs);
        let (mut reports, mut reported) = (BufReader::new(ours).lines().map_while(Result::ok), Vec::new());
        self.wait(|count| reported.extend(reports.by_ref().take(count)));
        writer.kill();
        reported.extend(reports);
        writer.join();
        reported
    }

    /// Waits until it is time to kill, and before that for as many reports as it says.
    fn wait(&mut self, mut reports: impl FnMut(usize)) {
        let [chance, which, ..] = self.chances.next().to_ne_bytes();
        self.killed += 1;
        if self.killed <= 3 {
            let started = Instant::now();
            reports(6);
            self.pace = self.pace.min(started.elapsed());
        } else if which.is_multiple_of(2) {
            reports((chance % self.reports).into());
            sleep(self.pace * chance.into() / 2048);
        } else {
            sleep(self.pace * chance.into() / 128);
        }
    }
}

/// The names that were reported after a word.
pub(crate) fn after(reported: &[String], word: &str) -> BTreeSet<String> {
    let names = reported.iter().filter_map(|report| report.strip_prefix(word)?.strip_prefix(' '));
    names.map(|name| name.to_owned()).collect()
}

/// A session of a process's own.
pub(crate) fn session(raw: &Raw) -> CK_SESSION_HANDLE {
    call!(raw, C_Initialize(null_mut())).unwrap();
    raw.open(0)
}

pub(crate) fn named(name: &str) -> [Given; 1] {
    [(CKA_LABEL, name.into())]
}

/// The labels of a class of objects.
pub(crate) fn labels(raw: &Raw, session: CK_SESSION_HANDLE, class: CK_OBJECT_CLASS) -> BTreeSet<String> {
    let found = raw.find(session, &[(CKA_CLASS, number(class))]);
    let labels = found.iter().map(|object| String::from_utf8(raw.get(session, *object, CKA_LABEL).unwrap()).unwrap());
    labels.filter(|label| !label.is_empty()).collect()
}

/// Makes and destroys persistent key pairs, changes the PIN, and makes the other token anew, over and over.
pub(crate) fn write_with_a_pin(raw: &Raw, tell: Tell<'_>, round: usize, pin: &str) {
    let (own, mut pin) = (session(raw), pin.to_owned());
    raw.login(own, CKU_USER, pin.as_bytes()).unwrap();
    // Of a pair that a writer was destroying, one half may be left.
    let mut names = &labels(raw, own, CKO_PRIVATE_KEY) | &labels(raw, own, CKO_PUBLIC_KEY);
    for number in round.. {
        while names.len() > KEPT {
            let name = names.pop_first().unwrap();
            tell("destroying", &name);
            let mut halves = raw.find(own, &named(&name));
            // One or the other first.
            halves.rotate_left(number % 2);
            for half in halves {
                call!(raw, C_DestroyObject(own, half)).unwrap();
            }
            tell("destroyed", &name);
        }
        let name = format!("{round} {number}");
        tell("making", &name);
        make_persistent(raw, own, &name);
        tell("made", &name);
        names.insert(name);
        let new = format!("pin {round} {number}");
        change_pin(raw, own, tell, [&pin, &new], number % 3 == 2);
        pin = new;
        if number % 3 == 0 {
            make_anew(raw, tell, &format!("anew {round} {number}"));
        }
    }
}

fn make_persistent(raw: &Raw, session: CK_SESSION_HANDLE, name: &str) {
    let label = [(CKA_TOKEN, flag(true)), (CKA_LABEL, name.into())];
    let public = [&label[..], &[(CKA_EC_PARAMS, P256.to_vec())]].concat();
    let private = [&label[..], &[(PERSISTENT, flag(true))]].concat();
    let _ = raw.generate(session, CKM_EC_KEY_PAIR_GEN, &public, &private).unwrap();
}

/// As the user, or as the officer whom the user asked.
fn change_pin(raw: &Raw, own: CK_SESSION_HANDLE, tell: Tell<'_>, [old, new]: [&str; 2], as_officer: bool) {
    let (given, length) = (new.as_ptr().cast_mut(), new.len() as CK_ULONG);
    if !as_officer {
        tell("setting", new);
        call!(raw, C_SetPIN(own, old.as_ptr().cast_mut(), old.len() as CK_ULONG, given, length)).unwrap();
        return tell("set", new);
    }
    call!(raw, C_Logout(own)).unwrap();
    raw.login(own, CKU_SO, SO_PIN.as_bytes()).unwrap();
    tell("setting", new);
    call!(raw, C_InitPIN(own, given, length)).unwrap();
    tell("set", new);
    call!(raw, C_Logout(own)).unwrap();
    raw.login(own, CKU_USER, new.as_bytes()).unwrap();
}

/// Makes the other token anew, which takes its keys out of the TPM, and a persistent key pair of it.
fn make_anew(raw: &Raw, tell: Tell<'_>, name: &str) {
    tell("remaking", name);
    raw.make_token(ANEW, "anew");
    let own = raw.open(ANEW);
    raw.login(own, CKU_USER, PIN).unwrap();
    make_persistent(raw, own, name);
    tell("remade", name);
    call!(raw, C_CloseSession(own)).unwrap();
}
