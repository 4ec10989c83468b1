//! A connection to the TPM and what it holds for a burst of uses: our turn, a session, a loaded key.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::device;
use super::fork;
use super::key::LoadedKey;
use super::lock::Turn;
use super::response;
use super::sapi::{Auth, Sapi, SessionKind};
use super::session::{Salt, SaltUse, Session, session_attribute};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::public_area::PublicArea;

/// A session is renewed after so many uses, long before any TPM's context gap ...
const SESSION_USES: u32 = 5_000;
/// ... and after this time.
const SESSION_AGE: Duration = Duration::from_secs(10);

/// `TPM2_CAP_HANDLES` and the first handles of its ranges (TPM 2.0 Part 2, 7.4).
const CAP_HANDLES: u32 = 1;
const LOADED_SESSIONS: u32 = 0x0200_0000;
const TRANSIENT_OBJECTS: u32 = 0x8000_0000;

/// A connection, from the first use of a burst until some milliseconds after the last.
pub(crate) struct Connection {
    pub(super) sapi: Sapi,
    pub(super) key: Option<LoadedKey>,
    session: Option<HeldSession>,
    /// HMAC-authorised uses of keys so far: the first ends its session, on the guess that it stays alone.
    pub(super) authorised_uses: u64,
    started: Instant,
    /// Set where no resource manager keeps processes apart. Dropped last: the TPM is clean by then.
    turn: Option<Turn>,
}

struct HeldSession {
    session: Session,
    /// The Name of the key that it is salted to.
    salted_to: Option<Vec<u8>>,
    uses: u32,
    started: Instant,
}

impl HeldSession {
    fn is_fresh(&self) -> bool {
        self.uses < SESSION_USES && self.started.elapsed() < SESSION_AGE
    }

    fn is_salted_to(&self, key: &PublicArea) -> bool {
        self.salted_to.as_ref() == Some(&key.name)
    }
}

impl Connection {
    /// Connects, after waiting for our turn where the TPM has no resource manager.
    pub(super) fn open(config: &Config) -> Result<Self> {
        let turn = match is_managed(&config.tcti) {
            true => None,
            false => Some(Turn::wait(config)?),
        };
        let sapi = Sapi::open(config)?;
        let mut this = Self { sapi, key: None, session: None, authorised_uses: 0, started: Instant::now(), turn };
        if this.turn.as_ref().is_some_and(|turn| turn.untidy) {
            let flushed = this.flush_everything();
            if let Some(turn) = &mut this.turn {
                turn.untidy = flushed.is_err();
            }
            match flushed {
                Err(error) if response::is_transport_failure(&error) => return Err(error),
                // What else goes wrong here goes wrong again in what we came for, which says so.
                _ => {}
            }
        }
        Ok(this)
    }

    /// Does this as soon as there is a command that the TPM works on.
    pub(super) fn while_it_works(&mut self, work: impl FnOnce() + Send + 'static) {
        self.sapi.meanwhile = Some(Box::new(work));
    }

    /// Goes on with the burst, unless it is old and another process waits for its turn.
    pub(super) fn continue_burst(mut self, config: &Config) -> Option<Self> {
        if let Some(turn) = &self.turn {
            if self.started.elapsed() >= config.hold_at_most {
                if turn.is_wanted() {
                    return None;
                }
                self.started = Instant::now();
            }
        }
        Some(self)
    }

    /// Runs an operation, and again where what is held is gone, or the TPM has no room: what killed processes left is flushed
    /// where nobody else does that, and over a resource manager others are waited for, who hold sessions for moments only.
    pub(super) fn run<T>(&mut self, operation: &mut impl FnMut(&mut Self) -> Result<T>) -> Result<T> {
        let held = self.holds_something();
        let mut result = operation(self);
        // A restart of the TPM, or somebody without a resource manager, has taken what was held.
        if held && result.as_ref().is_err_and(response::is_gone) {
            self.flush_held();
            result = operation(self);
        }
        for pause in [0, 10, 40, 160] {
            if !result.as_ref().is_err_and(response::is_out_of_memory) {
                break;
            }
            if self.turn.is_some() {
                self.flush_everything()?;
            } else {
                self.flush_held();
            }
            std::thread::sleep(Duration::from_millis(pause));
            result = operation(self);
        }
        result.map_err(|error| match error {
            Error::Tpm { command, code } if response::is_out_of_memory(&error) => {
                Error::TpmOutOfMemory { command, code }
            }
            other => other,
        })
    }

    /// Whether a key or a session is held.
    pub(crate) fn holds_something(&self) -> bool {
        self.key.is_some() || self.session.is_some()
    }

    /// Gives up without another word to the TPM.
    pub(super) fn abandon(mut self) {
        self.key = None;
        self.session = None;
        if let Some(turn) = &mut self.turn {
            turn.untidy = true;
        }
    }

    /// Flushes all transient objects and sessions of the TPM. It is our turn, so they are ours or nobody's.
    fn flush_everything(&mut self) -> Result<()> {
        (self.key, self.session) = (None, None);
        for range in [LOADED_SESSIONS, TRANSIENT_OBJECTS] {
            for (handle, _) in self.sapi.get_capability(CAP_HANDLES, range, 254)? {
                self.sapi.flush_context(handle)?;
            }
        }
        Ok(())
    }

    /// Flushes what is held. What cannot be, a resource manager flushes, or who has the next turn.
    fn flush_held(&mut self) {
        let key = self.key.take().and_then(|key| key.transient());
        let session = self.session.take().map(|held| held.session.handle);
        for handle in key.into_iter().chain(session) {
            let flushed = self.sapi.flush_context(handle);
            if let Some(turn) = &mut self.turn {
                turn.untidy |= flushed.is_err_and(|error| response::is_transport_failure(&error));
            }
        }
    }

    /// Whether a session salted to this key is held.
    pub(super) fn holds_session_salted_to(&self, key: &PublicArea) -> bool {
        self.session.as_ref().is_some_and(|held| held.is_salted_to(key) && held.is_fresh())
    }

    /// Starts a session unless a fitting one is held: salted to this key, if `salt` names one, with its handle.
    pub(super) fn start_session(&mut self, salt: Option<(u32, &PublicArea)>) -> Result<()> {
        if let Some(held) = self.session.take() {
            if salt.is_none_or(|(_, key)| held.is_salted_to(key)) && held.is_fresh() {
                self.session = Some(held);
                return Ok(());
            }
            // If it is gone already, so much the better; if the connection is, the next command says so.
            let _ = self.sapi.flush_context(held.session.handle);
        }
        let session = self.new_session(SessionKind::Hmac, salt)?;
        let salted_to = salt.map(|(_, key)| key.name.clone());
        self.session = Some(HeldSession { session, salted_to, uses: 0, started: Instant::now() });
        Ok(())
    }

    /// Whether a session is held that is good for secrets, if it does not matter to which key it is salted.
    pub(super) fn holds_salted_session(&self) -> bool {
        self.session.as_ref().is_some_and(|held| held.salted_to.is_some() && held.is_fresh())
    }

    /// Starts a session that nobody holds.
    pub(super) fn new_session(&mut self, kind: SessionKind, salt: Option<(u32, &PublicArea)>) -> Result<Session> {
        let salt = salt.map(|(handle, key)| Ok::<_, Error>((handle, Salt::new(key, SaltUse::Session)?))).transpose()?;
        self.sapi.start_auth_session(kind, salt.as_ref().map(|(handle, salt)| (*handle, salt)))
    }

    /// Runs one command authorised by `value` in the held session, which [`Self::start_session`] started.
    ///
    /// Without [`session_attribute::CONTINUE`] the session ends with the command; after a failure it is thrown away.
    pub(super) fn authorised<T>(
        &mut self,
        value: &[u8],
        attributes: u8,
        command: impl FnOnce(&mut Sapi, &mut Auth<'_>) -> Result<T>,
    ) -> Result<T> {
        let Some(mut held) = self.session.take() else {
            return Err(Error::NotLoggedIn);
        };
        held.uses += 1;
        let result = command(&mut self.sapi, &mut Auth::Hmac { session: &mut held.session, value, attributes });
        match &result {
            Ok(_) if attributes & session_attribute::CONTINUE != 0 => self.session = Some(held),
            Ok(_) => {}
            Err(error) if response::is_transport_failure(error) => {}
            // The session may be gone already: that is as good.
            Err(_) => drop(self.sapi.flush_context(held.session.handle)),
        }
        result
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Nothing to begin any more, at the end.
        self.sapi.meanwhile = None;
        self.flush_held();
    }
}

/// How long what is held is kept after its last use. Where no resource manager gives others what they need it keeps them
/// waiting, as a use does.
pub(super) fn hold(config: &Config) -> Duration {
    if is_managed(&config.tcti) { config.hold } else { config.hold.min(config.hold_at_most) }
}

/// Whether a resource manager stands between us and the TPM.
fn is_managed(tcti: &str) -> bool {
    let by_kernel = device::path(tcti).is_some_and(|path| path.starts_with("/dev/tpmrm"));
    by_kernel || tcti == "tabrmd" || tcti.starts_with("tabrmd:")
}

/// Registers what must happen at exit and at forks, once per process image. To do it twice, in a child that was forked
/// meanwhile, does no harm; to wait for a thread that it does not have would.
pub(super) fn register_process_hooks(at_exit: extern "C" fn()) {
    static DONE: AtomicBool = AtomicBool::new(false);
    if !DONE.load(Ordering::Acquire) {
        crate::ffi::at_exit(at_exit);
        crate::ffi::at_fork(fork::before_fork, fork::after_fork_in_parent, fork::after_fork_in_child);
        DONE.store(true, Ordering::Release);
    }
}
