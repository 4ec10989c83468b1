//! The library's state in this process: from C_Initialize to C_Finalize, its slots and its sessions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cryptoki_sys::*;
use keyrivet_core::Keyrivet;
use keyrivet_core::config::Config;
use keyrivet_core::log::{self, Topic};
use keyrivet_core::mutex::{Mutex, RwLock};
use keyrivet_core::process::PerProcess;

use crate::error::{Error, Result};
use crate::session::Session;
use crate::slot::Slot;

/// A forked child finds an empty one: every call there answers CKR_CRYPTOKI_NOT_INITIALIZED until it calls
/// C_Initialize itself (PKCS#11 3.2, "Applications and processes").
static MODULE: PerProcess<RwLock<Option<Arc<Module>>>> = PerProcess::new();

/// Session and object handles are never used twice in a process, so a stale one cannot mean something else.
static LAST_HANDLE: AtomicUsize = AtomicUsize::new(0);

/// A handle that was not used before.
pub(crate) fn new_handle() -> CK_ULONG {
    (LAST_HANDLE.fetch_add(1, Ordering::Relaxed) + 1) as CK_ULONG
}

/// An initialised library.
pub(crate) struct Module {
    keyrivet: Keyrivet,
    slots: Mutex<Vec<Arc<Slot>>>,
    /// Held while the store is read, which may take its time, and until `slots` says what it said.
    listing: Mutex<()>,
    sessions: RwLock<BTreeMap<CK_SESSION_HANDLE, Arc<Session>>>,
}

/// Reads the configuration and lists the tokens. Costs no TPM command, and neither a missing store, nor a damaged
/// token, nor a missing TPM is an error here.
pub(crate) fn initialise() -> Result<()> {
    let mut state = MODULE.get().write();
    if state.is_some() {
        return Err(Error(CKR_CRYPTOKI_ALREADY_INITIALIZED));
    }
    let module = Module {
        keyrivet: Keyrivet::open(Config::load()?),
        slots: Mutex::new(Vec::new()),
        listing: Mutex::new(()),
        sessions: RwLock::new(BTreeMap::new()),
    };
    module.refresh_slots();
    *state = Some(Arc::new(module));
    Ok(())
}

/// Logs out, closes everything and gives back what is held at the TPM.
pub(crate) fn finalise() -> Result<()> {
    let module = MODULE.get().write().take().ok_or(Error(CKR_CRYPTOKI_NOT_INITIALIZED))?;
    module.sessions.write().clear();
    for slot in module.slots.lock().drain(..) {
        slot.forget_sessions();
    }
    module.keyrivet.release();
    Ok(())
}

/// The library, if it is initialised in this process.
pub(crate) fn module() -> Result<Arc<Module>> {
    MODULE.get().read().clone().ok_or(Error(CKR_CRYPTOKI_NOT_INITIALIZED))
}

impl Module {
    /// The core.
    pub(crate) fn keyrivet(&self) -> &Keyrivet {
        &self.keyrivet
    }

    /// Looks for tokens that came or went. The free slot, in which the next token can be made, is last.
    ///
    /// "The list of slots is static until C_GetSlotList is called with a NULL buffer" (PKCS#11 3.2, C_GetSlotList).
    pub(crate) fn refresh_slots(&self) {
        let _listing = self.listing.lock();
        let listed = self.keyrivet.tokens().and_then(|tokens| Ok((self.keyrivet.free_slot(&tokens)?, tokens)));
        let (free, tokens) = match listed {
            Ok(listed) => listed,
            // A store that cannot be read now has the tokens that it had; the core's error says why, and the module goes on.
            Err(error) => {
                log::write(Topic::Error, format_args!("{error}"));
                let mut slots = self.slots.lock();
                if slots.is_empty() {
                    slots.push(Arc::new(Slot::free(0)));
                }
                return;
            }
        };
        let mut slots = self.slots.lock();
        let mut current: Vec<_> = tokens
            .into_iter()
            .map(|token| {
                let known = slots.iter().find(|slot| slot.holds(&token));
                known.cloned().unwrap_or_else(|| Arc::new(Slot::with_token(token)))
            })
            .collect();
        // Nor does a token go that somebody has sessions with: found again later, it would be a second one.
        let in_use = |slot: &&Arc<Slot>| slot.session_count().all > 0;
        let missed = |slot: &&Arc<Slot>| !current.iter().any(|listed| listed.id() == slot.id());
        let kept: Vec<_> = slots.iter().filter(in_use).filter(missed).cloned().collect();
        current.extend(kept);
        current.sort_by_key(|slot| slot.id());
        let after_last = current.last().map_or(0, |last| last.id() + 1);
        current.push(Arc::new(Slot::free(after_last.max(free.into()))));
        *slots = current;
    }

    /// Every slot, in the order of their numbers.
    pub(crate) fn slot_ids(&self) -> Vec<CK_SLOT_ID> {
        self.slots.lock().iter().map(|slot| slot.id()).collect()
    }

    /// One slot.
    pub(crate) fn slot(&self, id: CK_SLOT_ID) -> Result<Arc<Slot>> {
        let slots = self.slots.lock();
        slots.iter().find(|slot| slot.id() == id).cloned().ok_or(Error(CKR_SLOT_ID_INVALID))
    }

    /// Makes a token in a free slot, or an existing one anew (C_InitToken).
    pub(crate) fn init_token(&self, id: CK_SLOT_ID, so_pin: &[u8], label: &str) -> Result<()> {
        let slot = self.slot(id)?;
        if slot.token().is_ok() {
            return slot.reinitialise(so_pin, label);
        }
        let number = u32::try_from(id).map_err(|_| Error(CKR_SLOT_ID_INVALID))?;
        let _listing = self.listing.lock();
        let token = self.keyrivet.create_token(number, label, so_pin).map_err(|error| match error {
            // Another process made a token in this slot since it was listed.
            keyrivet_core::Error::NotFound(_) => Error(CKR_SLOT_ID_INVALID),
            other => other.into(),
        })?;
        let made = Arc::new(Slot::with_token(token));
        let mut slots = self.slots.lock();
        match slots.iter_mut().find(|slot| slot.id() == made.id()) {
            Some(place) => *place = made,
            None => slots.push(made),
        }
        Ok(())
    }

    /// Opens a session.
    pub(crate) fn open_session(&self, slot: CK_SLOT_ID, read_write: bool) -> Result<CK_SESSION_HANDLE> {
        let session = Arc::new(Session::open(self.slot(slot)?, read_write)?);
        let handle = session.handle();
        let mut sessions = self.sessions.write();
        // Another thread may have closed all sessions since the slot took note of it.
        if session.slot().has_session(handle) {
            sessions.insert(handle, session);
        }
        Ok(handle)
    }

    /// A session.
    pub(crate) fn session(&self, handle: CK_SESSION_HANDLE) -> Result<Arc<Session>> {
        self.sessions.read().get(&handle).cloned().ok_or(Error(CKR_SESSION_HANDLE_INVALID))
    }

    /// Closes a session.
    pub(crate) fn close_session(&self, handle: CK_SESSION_HANDLE) -> Result<()> {
        let session = self.sessions.write().remove(&handle).ok_or(Error(CKR_SESSION_HANDLE_INVALID))?;
        session.close();
        Ok(())
    }

    /// Closes every session with one slot.
    pub(crate) fn close_all_sessions(&self, slot: CK_SLOT_ID) -> Result<()> {
        // The slot first, as it waits for a login under way: other slots' sessions go on meanwhile.
        self.slot(slot)?.forget_sessions();
        // Also those that another thread, which closes them all, is about to remove.
        self.sessions
            .write()
            .retain(|handle, session| session.slot().id() != slot || session.slot().has_session(*handle));
        Ok(())
    }
}
