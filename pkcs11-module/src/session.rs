//! A session: opening and closing it, logging in, PINs, and what runs in it.

use std::sync::Arc;

use cryptoki_sys::*;
use keyrivet_core::mutex::{Mutex, MutexGuard};
use keyrivet_core::token::User;

use crate::error::{Error, Result};
use crate::operation::Operations;
use crate::slot::Slot;

/// A session with a token.
pub(crate) struct Session {
    handle: CK_SESSION_HANDLE,
    slot: Arc<Slot>,
    read_write: bool,
    operations: Mutex<Operations>,
}

impl Session {
    /// Opens one.
    pub(crate) fn open(slot: Arc<Slot>, read_write: bool) -> Result<Self> {
        let handle = slot.open_session(read_write)?;
        // What the configuration names in the TPM becomes the token's; that costs nothing once it is.
        slot.token()?.adopt_configured();
        Ok(Self { handle, slot, read_write, operations: Mutex::default() })
    }

    /// Closes it; its session objects are gone then.
    pub(crate) fn close(&self) {
        self.slot.close_session(self.handle);
    }

    /// Its handle.
    pub(crate) fn handle(&self) -> CK_SESSION_HANDLE {
        self.handle
    }

    /// Its slot.
    pub(crate) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    /// What runs in it. Hold this no longer than looking at it takes, and never while the TPM works.
    pub(crate) fn operations(&self) -> MutexGuard<'_, Operations> {
        self.operations.lock()
    }

    /// What C_GetSessionInfo tells.
    pub(crate) fn info(&self) -> Result<CK_SESSION_INFO> {
        let write = if self.read_write { CKF_RW_SESSION } else { 0 };
        Ok(CK_SESSION_INFO {
            slotID: self.slot.id(),
            state: self.state()?,
            flags: CKF_SERIAL_SESSION | write,
            ulDeviceError: 0,
        })
    }

    /// A token that needs no login is always in the user's state.
    fn state(&self) -> Result<CK_STATE> {
        let user = match self.slot.token()?.logged_in() {
            None if self.slot.is_open() => Some(User::User),
            other => other,
        };
        Ok(match (user, self.read_write) {
            (Some(User::SecurityOfficer), _) => CKS_RW_SO_FUNCTIONS,
            (Some(User::User), true) => CKS_RW_USER_FUNCTIONS,
            (Some(User::User), false) => CKS_RO_USER_FUNCTIONS,
            (None, true) => CKS_RW_PUBLIC_SESSION,
            (None, false) => CKS_RO_PUBLIC_SESSION,
        })
    }

    /// Logs in (PKCS#11 3.2, C_Login).
    pub(crate) fn login(&self, user: CK_USER_TYPE, pin: &[u8]) -> Result<()> {
        match user {
            CKU_USER => self.slot.login(self.handle, User::User, pin),
            CKU_SO => self.slot.login(self.handle, User::SecurityOfficer, pin),
            CKU_CONTEXT_SPECIFIC => self.login_for_operation(pin),
            _ => Err(Error(CKR_USER_TYPE_INVALID)),
        }
    }

    /// The login that a key with CKA_ALWAYS_AUTHENTICATE wants for each operation ("Private key objects").
    fn login_for_operation(&self, pin: &[u8]) -> Result<()> {
        if !self.operations().awaits_login() {
            return Err(Error(CKR_OPERATION_NOT_INITIALIZED));
        }
        self.slot.token()?.check_pin(User::User, pin).inspect_err(|error| {
            // "CKR_PIN_LOCKED ... also logs the user out from the token" ("Private key objects").
            if matches!(error, keyrivet_core::Error::PinLocked) {
                let _ = self.logout();
            }
        })?;
        self.operations().log_in();
        Ok(())
    }

    /// Logs out.
    pub(crate) fn logout(&self) -> Result<()> {
        self.slot.logout(self.handle)
    }

    /// Sets the user's PIN, as security officer.
    pub(crate) fn init_pin(&self, pin: &[u8]) -> Result<()> {
        let _login = self.slot.hold_login(self.handle)?;
        if self.state()? != CKS_RW_SO_FUNCTIONS {
            return Err(Error(CKR_USER_NOT_LOGGED_IN));
        }
        Ok(self.slot.token()?.init_pin(pin)?)
    }

    /// Changes the PIN of whoever is logged in, or else the user's.
    pub(crate) fn set_pin(&self, old: &[u8], new: &[u8]) -> Result<()> {
        self.require_read_write()?;
        let _login = self.slot.hold_login(self.handle)?;
        let token = self.slot.token()?;
        Ok(token.set_pin(token.logged_in().unwrap_or(User::User), old, new)?)
    }

    /// Refuses a read-only session.
    pub(crate) fn require_read_write(&self) -> Result<()> {
        if self.read_write { Ok(()) } else { Err(Error(CKR_SESSION_READ_ONLY)) }
    }
}
