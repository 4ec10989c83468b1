//! One token that threads log in to and out of, and whose sessions they close, while all use it; and what may be answered.

use std::collections::BTreeMap;
use std::sync::Mutex;

use conformance_tests::{Chances, SO_PIN};
use cryptoki_sys::*;
use openssl::ec::EcKey;
use openssl::ecdsa::EcdsaSig;
use openssl::pkey::Public;

use crate::raw::{Given, P256, PIN, Raw, Rv, call, ecdsa_der, flag, number};
use tally::{Seen, Tally};

mod tally;

/// How often each function gave each answer.
pub(crate) type Answers = BTreeMap<(&'static str, CK_RV), usize>;

/// The label of the key pair that nobody destroys.
pub(crate) const STAYS: &str = "stays";
/// The label of what threads store.
pub(crate) const STORED: &str = "stored";
/// How many they are. Each has a session at most.
pub(crate) const THREADS: u64 = 16;

/// A token, and what its threads have done.
pub(crate) struct Race<'a> {
    raw: &'a Raw,
    slot: CK_SLOT_ID,
    /// Of the key pair that nobody destroys.
    public: EcKey<Public>,
    logins: Tally,
    logouts: Tally,
    /// C_CloseSession, which logs out if it was the last session.
    closes: Tally,
    /// C_CloseAllSessions.
    closings: Tally,
    login: Mutex<LastLogin>,
}

/// What had been done at some time.
#[derive(Clone, Copy)]
struct Moment {
    logins: Seen,
    logouts: Seen,
    closes: Seen,
    closings: Seen,
}

/// How things were before a user's last login, and before the last logout, as far as they are over.
#[derive(Clone, Copy, Default)]
struct LastLogin {
    login: Option<Moment>,
    logout: Option<Moment>,
}

impl<'a> Race<'a> {
    /// On a token with [`PIN`].
    pub(crate) fn on(raw: &'a Raw, slot: CK_SLOT_ID) -> Self {
        let session = raw.open(slot);
        raw.login(session, CKU_USER, PIN).unwrap();
        let label = [(CKA_TOKEN, flag(true)), (CKA_LABEL, STAYS.into())];
        let public = [&label[..], &[(CKA_EC_PARAMS, P256.to_vec())]].concat();
        let (public, _) = raw.generate(session, CKM_EC_KEY_PAIR_GEN, &public, &label).unwrap();
        let public = raw.get(session, public, CKA_PUBLIC_KEY_INFO).unwrap();
        call!(raw, C_CloseSession(session)).unwrap();
        let [logins, logouts, closes, closings] = std::array::from_fn(|_| Tally::default());
        let (public, login) = (EcKey::public_key_from_der(&public).unwrap(), Mutex::default());
        Self { raw, slot, public, logins, logouts, closes, closings, login }
    }

    fn now(&self) -> Moment {
        Moment {
            logins: self.logins.now(),
            logouts: self.logouts.now(),
            closes: self.closes.now(),
            closings: self.closings.now(),
        }
    }

    fn last_login(&self) -> LastLogin {
        *self.login.lock().expect("no thread panics")
    }

    fn logged_in(&self, before: Moment) {
        self.login.lock().expect("no thread panics").login = Some(before);
    }

    fn logged_out(&self, before: Moment) {
        self.login.lock().expect("no thread panics").logout = Some(before);
    }

    /// Whether the user has been logged in ever since this was so.
    fn is_surely_in(&self, last: LastLogin) -> bool {
        last.login.is_some_and(|then| !self.perhaps_logged_out(then))
    }

    /// Whether nobody has been logged in ever since this was so.
    fn is_surely_out(&self, last: LastLogin) -> bool {
        last.logout.is_some_and(|then| !self.logins.perhaps_since(then.logins))
    }

    /// Whether a login that was there then may have ended.
    fn perhaps_logged_out(&self, since: Moment) -> bool {
        self.logouts.perhaps_since(since.logouts)
            || self.closes.perhaps_since(since.closes)
            || self.closings.perhaps_since(since.closings)
    }

    /// Whether a login that was there then has ended, and with it every handle of a private object.
    fn surely_logged_out(&self, since: Moment) -> bool {
        self.logouts.surely_since(since.logouts) || self.closings.surely_since(since.closings)
    }
}

/// A session, or a handle of a private object, that a thread has: how things were before and after it got it.
#[derive(Clone, Copy)]
struct Own {
    handle: CK_ULONG,
    before: Moment,
    after: Moment,
}

/// One of the threads.
pub(crate) struct Racer<'a> {
    race: &'a Race<'a>,
    chances: Chances,
    session: Option<Own>,
    read_only: bool,
    /// The private key that nobody destroys, as found once.
    key: Option<Own>,
    pub(crate) answers: Answers,
    pub(crate) signatures: usize,
    /// Keys stored and not destroyed.
    pub(crate) stored: usize,
}

impl<'a> Racer<'a> {
    pub(crate) fn new(race: &'a Race<'a>, thread: u64) -> Self {
        let chances = Chances::new(thread);
        let (answers, signatures, stored) = (Answers::new(), 0, 0);
        Self { race, chances, session: None, read_only: false, key: None, answers, signatures, stored }
    }

    /// Does anything.
    pub(crate) fn step(&mut self) {
        let chance = self.chances.next() % 100;
        if self.session.is_none() {
            return self.open();
        }
        match chance {
            0 => self.close(),
            1 => self.close_all(),
            2..4 => self.log_out(),
            4 => self.log_in_as_officer(),
            5..20 => self.log_in(),
            20..30 => self.look(),
            30..60 => self.sign(),
            60..80 => self.use_key_of_the_session(),
            _ => self.store_and_destroy(),
        }
    }

    /// Takes note of an answer, which is none but these.
    fn note<T>(&mut self, function: &'static str, answer: Rv<T>, expected: &[CK_RV]) -> Rv<T> {
        let value = *answer.as_ref().err().unwrap_or(&CKR_OK);
        assert!(expected.contains(&value), "{function} answers {value:#x}");
        *self.answers.entry((function, value)).or_default() += 1;
        answer
    }

    /// Calls a function in the session, which may also have been closed by others: then, and only then, it says so.
    fn call<T>(
        &mut self,
        function: &'static str,
        expected: &[CK_RV],
        call: impl FnOnce(&Raw, CK_SESSION_HANDLE) -> Rv<T>,
    ) -> Rv<T> {
        let own = self.session.ok_or(CKR_SESSION_HANDLE_INVALID)?;
        let surely_closed = self.race.closings.surely_since(own.after.closings);
        let answer = call(self.race.raw, own.handle);
        if let Err(CKR_SESSION_HANDLE_INVALID | CKR_SESSION_CLOSED) = answer {
            assert!(
                self.race.closings.perhaps_since(own.before.closings),
                "{function}: nobody has closed this session"
            );
            self.session = None;
            return self.note(function, answer, &[CKR_SESSION_HANDLE_INVALID, CKR_SESSION_CLOSED]);
        }
        assert!(!surely_closed, "{function} works in a session that was closed before");
        self.note(function, answer, expected)
    }

    /// Calls a function that needs a login, which has these answers if there is none. It gives them only if the login has
    /// perhaps ended since then; and is not done while nobody is logged in, though the standard would let what was begun
    /// before go on (C_Logout).
    fn call_logged_in<T>(
        &mut self,
        function: &'static str,
        since: Option<Moment>,
        refusals: &[CK_RV],
        call: impl FnOnce(&Raw, CK_SESSION_HANDLE) -> Rv<T>,
    ) -> Rv<T> {
        let last = self.race.last_login();
        let answer = self.call(function, &[&[CKR_OK], refusals].concat(), call);
        match answer {
            Ok(_) => assert!(!self.race.is_surely_out(last), "{function} works, though nobody is logged in"),
            // Of the session's end.
            Err(_) if self.session.is_none() => {}
            Err(error) => assert!(
                since.is_none_or(|then| self.race.perhaps_logged_out(then)),
                "{function} answers {error:#x}, though nobody has logged out"
            ),
        }
        answer
    }

    fn open(&mut self) {
        self.read_only = self.chances.next().is_multiple_of(4);
        let before = self.race.now();
        let write = if self.read_only { 0 } else { CKF_RW_SESSION };
        let answer = self.race.raw.open_with(self.race.slot, CKF_SERIAL_SESSION | write);
        // The security officer, who may be logged in, has read-write sessions only.
        let expected = &[CKR_OK, CKR_SESSION_READ_WRITE_SO_EXISTS][..1 + usize::from(self.read_only)];
        if let Ok(handle) = self.note("C_OpenSession", answer, expected) {
            self.session = Some(Own { handle, before, after: self.race.now() });
        }
    }

    fn close(&mut self) {
        let race = self.race;
        let _ = self.call("C_CloseSession", &[CKR_OK], |raw, own| race.closes.of(|| call!(raw, C_CloseSession(own))));
        self.session = None;
    }

    fn close_all(&mut self) {
        let (race, before) = (self.race, self.race.now());
        let answer = race.closings.of(|| call!(race.raw, C_CloseAllSessions(race.slot)));
        race.logged_out(before);
        let _ = self.note("C_CloseAllSessions", answer, &[CKR_OK]);
    }

    fn log_in(&mut self) {
        let (race, before, last) = (self.race, self.race.now(), self.race.last_login());
        let expected = [CKR_OK, CKR_USER_ALREADY_LOGGED_IN, CKR_USER_ANOTHER_ALREADY_LOGGED_IN];
        let answer = self.call("C_Login", &expected, |raw, own| race.logins.of(|| raw.login(own, CKU_USER, PIN)));
        if answer.is_ok() {
            assert!(!race.is_surely_in(last), "C_Login works, though the user was logged in and nobody has logged out");
            race.logged_in(before);
        }
    }

    fn log_in_as_officer(&mut self) {
        let (race, pin) = (self.race, SO_PIN.as_bytes());
        let refusals =
            [CKR_USER_ALREADY_LOGGED_IN, CKR_USER_ANOTHER_ALREADY_LOGGED_IN, CKR_SESSION_READ_ONLY_EXISTS, CKR_OK];
        // It never works in a read-only session.
        let expected = &refusals[..4 - usize::from(self.read_only)];
        if self.call("C_Login (SO)", expected, |raw, own| race.logins.of(|| raw.login(own, CKU_SO, pin))).is_ok() {
            self.log_out();
        }
    }

    fn log_out(&mut self) {
        let (race, before) = (self.race, self.race.now());
        let expected = [CKR_OK, CKR_USER_NOT_LOGGED_IN];
        if self.call("C_Logout", &expected, |raw, own| race.logouts.of(|| call!(raw, C_Logout(own)))).is_ok() {
            race.logged_out(before);
        }
    }

    /// Session and token tell what there is.
    fn look(&mut self) {
        let (race, last) = (self.race, self.race.last_login());
        let mut info = CK_SESSION_INFO::default();
        let answer = self.call("C_GetSessionInfo", &[CKR_OK], |raw, own| call!(raw, C_GetSessionInfo(own, &mut info)));
        if answer.is_ok() {
            let [public, user] = match self.read_only {
                true => [CKS_RO_PUBLIC_SESSION, CKS_RO_USER_FUNCTIONS],
                false => [CKS_RW_PUBLIC_SESSION, CKS_RW_USER_FUNCTIONS],
            };
            let expected: &[_] = match (race.is_surely_in(last), race.is_surely_out(last)) {
                (true, _) => &[user],
                (_, true) => &[public],
                _ if self.read_only => &[public, user],
                _ => &[public, user, CKS_RW_SO_FUNCTIONS],
            };
            assert!(expected.contains(&info.state), "C_GetSessionInfo tells {}, not one of {expected:?}", info.state);
        }
        let info = race.raw.token_info(race.slot);
        let _ = self.note("C_GetTokenInfo", Ok(()), &[CKR_OK]);
        assert!(info.ulSessionCount <= THREADS as CK_ULONG && info.ulRwSessionCount <= info.ulSessionCount);
    }

    /// The private key that nobody destroys, be it one that was found earlier.
    fn key(&mut self) -> Option<Own> {
        if self.key.is_some() && !self.chances.next().is_multiple_of(4) {
            return self.key;
        }
        let (race, before, last) = (self.race, self.race.now(), self.race.last_login());
        let template = [(CKA_CLASS, number(CKO_PRIVATE_KEY)), (CKA_LABEL, STAYS.into())];
        let found = self.call("C_FindObjects", &[CKR_OK], |raw, own| raw.try_find(own, &template)).ok()?;
        let expected = usize::from(race.is_surely_in(last))..=usize::from(!race.is_surely_out(last));
        assert!(expected.contains(&found.len()), "C_FindObjects finds {} keys, not {expected:?}", found.len());
        self.key = found.first().map(|handle| Own { handle: *handle, before, after: race.now() });
        self.key
    }

    fn sign(&mut self) {
        if let Some(key) = self.key() {
            self.sign_with(key, &self.race.public.clone());
        }
    }

    fn sign_with(&mut self, key: Own, public: &EcKey<Public>) {
        let (race, before) = (self.race, self.race.now());
        let stale = race.surely_logged_out(key.after);
        let refusals = [CKR_KEY_HANDLE_INVALID, CKR_USER_NOT_LOGGED_IN];
        let begin = |raw: &Raw, own| raw.sign_init(own, CKM_ECDSA, key.handle);
        if self.call_logged_in("C_SignInit", Some(key.before), &refusals, begin).is_err() {
            self.key = None;
            return;
        }
        assert!(!stale, "C_SignInit takes a private key's handle from before a logout");
        let digest = self.chances.next().to_ne_bytes().repeat(4);
        let refusals = [CKR_USER_NOT_LOGGED_IN, CKR_OPERATION_NOT_INITIALIZED];
        if let Ok(signature) = self.call_logged_in("C_Sign", Some(before), &refusals, |raw, own| raw.sign(own, &digest))
        {
            let signature = EcdsaSig::from_der(&ecdsa_der(&signature)).unwrap();
            assert!(signature.verify(&digest, public).unwrap(), "what is signed verifies");
            self.signatures += 1;
        }
    }

    fn use_key_of_the_session(&mut self) {
        let (race, before) = (self.race, self.race.now());
        let login = race.last_login().login;
        let template = [(CKA_EC_PARAMS, P256.to_vec())];
        let generate = |raw: &Raw, own| raw.generate(own, CKM_EC_KEY_PAIR_GEN, &template, &[]);
        let pair = self.call_logged_in("C_GenerateKeyPair", login, &[CKR_USER_NOT_LOGGED_IN], generate);
        let Ok((public, private)) = pair else { return };
        let key = Own { handle: private, before, after: race.now() };
        // The public half is there for as long as the session.
        let expected = [CKR_OK, CKR_OBJECT_HANDLE_INVALID];
        let read = |raw: &Raw, own| raw.get(own, public, CKA_PUBLIC_KEY_INFO);
        match self.call("C_GetAttributeValue (public)", &expected, read) {
            Ok(public) => self.sign_with(key, &EcKey::public_key_from_der(&public).unwrap()),
            Err(_) => assert!(race.closings.perhaps_since(before.closings), "half of a pair is gone"),
        }
        let destroy = |raw: &Raw, own| call!(raw, C_DestroyObject(own, private));
        let _ = self.call_logged_in("C_DestroyObject", Some(before), &[CKR_OBJECT_HANDLE_INVALID], destroy);
    }

    fn store_and_destroy(&mut self) {
        let (race, before) = (self.race, self.race.now());
        let login = race.last_login().login;
        let template: [Given; 3] = [(CKA_TOKEN, flag(true)), (CKA_LABEL, STORED.into()), (CKA_VALUE_LEN, number(16))];
        let generate = |raw: &Raw, own| raw.generate_secret(own, CKM_AES_KEY_GEN, &template);
        if self.read_only {
            let _ = self.call("C_GenerateKey (R/O)", &[CKR_SESSION_READ_ONLY], generate);
            return;
        }
        let made = self.call_logged_in("C_GenerateKey", login, &[CKR_USER_NOT_LOGGED_IN], generate);
        let Ok(key) = made else { return };
        self.stored += 1;
        let invalid = [CKR_OBJECT_HANDLE_INVALID];
        let id = self.chances.next().to_ne_bytes().to_vec();
        let set = |raw: &Raw, own| raw.set(own, key, &[(CKA_ID, id.clone())]);
        if self.call_logged_in("C_SetAttributeValue", Some(before), &invalid, set).is_ok() {
            let read = |raw: &Raw, own| raw.get(own, key, CKA_ID);
            let found = self.call_logged_in("C_GetAttributeValue", Some(before), &invalid, read);
            assert!(found.is_err() || found == Ok(id), "what is set is read");
        }
        let destroy = |raw: &Raw, own| call!(raw, C_DestroyObject(own, key));
        if self.call_logged_in("C_DestroyObject", Some(before), &invalid, destroy).is_ok() {
            self.stored -= 1;
        }
    }
}
