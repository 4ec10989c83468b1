//! What runs in a session, one of each kind at a time, and when each of them ends; searches and digests.

use std::collections::VecDeque;

use cryptoki_sys::*;
use keyrivet_core::algorithm::{Digest, HashAlgorithm};
use keyrivet_core::object::Part;

use crate::cipher::Cipher;
use crate::error::{Error, Result};
use crate::mechanism::{self, Mechanism, Work};
use crate::session::Session;
use crate::signature::{Recovery, Signing, Verification};

/// An operation of one kind. Its state lies elsewhere, so that sessions in which nothing runs are small.
#[derive(Clone, Default)]
pub(crate) enum Operation<T> {
    /// None runs.
    #[default]
    Idle,
    /// Initialised; it may be done at once or in parts.
    Begun(Box<T>),
    /// Data was given in parts: only the `Final` function ends it.
    InParts(Box<T>),
}

impl<T> Operation<T> {
    /// Starts one, unless one runs.
    pub(crate) fn begin(&mut self, make: impl FnOnce() -> Result<T>) -> Result<()> {
        let Self::Idle = self else { return Err(Error(CKR_OPERATION_ACTIVE)) };
        *self = Self::Begun(Box::new(make()?));
        Ok(())
    }

    /// The one that runs.
    pub(crate) fn running(&self) -> Result<&T> {
        match self {
            Self::Idle => Err(Error(CKR_OPERATION_NOT_INITIALIZED)),
            Self::Begun(state) | Self::InParts(state) => Ok(state),
        }
    }

    /// The one that runs and was given no data yet: a function that does all at once cannot end what was begun in parts.
    pub(crate) fn untouched(&self) -> Result<&T> {
        match self {
            Self::Begun(state) => Ok(state),
            Self::Idle | Self::InParts(_) => Err(Error(CKR_OPERATION_NOT_INITIALIZED)),
        }
    }

    /// Adds to it; ends it if that fails.
    pub(crate) fn part<R>(&mut self, add: impl FnOnce(&mut T) -> Result<R>) -> Result<R> {
        let mut state = self.take()?;
        let result = add(&mut state)?;
        *self = Self::InParts(state);
        Ok(result)
    }

    /// Ends it, for a function that does all at once or for one that ends what was given in parts.
    pub(crate) fn finish(&mut self, data: Data<'_>) -> Result<T> {
        if let Data::AllAtOnce(_) = data {
            self.untouched()?;
        }
        self.end()
    }

    /// Ends it.
    pub(crate) fn end(&mut self) -> Result<T> {
        self.take().map(|state| *state)
    }

    fn take(&mut self) -> Result<Box<T>> {
        match std::mem::take(self) {
            Self::Idle => Err(Error(CKR_OPERATION_NOT_INITIALIZED)),
            Self::Begun(state) | Self::InParts(state) => Ok(state),
        }
    }

    fn is_active(&self) -> bool {
        !matches!(self, Self::Idle)
    }
}

/// Whether an operation is given all its data at once, or was given it in parts.
#[derive(Clone, Copy)]
pub(crate) enum Data<'a> {
    AllAtOnce(&'a [u8]),
    GivenInParts,
}

impl<'a> Data<'a> {
    /// What is still to be added.
    pub(crate) fn rest(self) -> &'a [u8] {
        match self {
            Self::AllAtOnce(data) => data,
            Self::GivenInParts => &[],
        }
    }
}

/// Everything that can run in a session.
#[derive(Default)]
pub(crate) struct Operations {
    find: Operation<VecDeque<CK_OBJECT_HANDLE>>,
    digest: Operation<(HashAlgorithm, Digest)>,
    pub(crate) sign: Operation<Signing>,
    pub(crate) sign_recover: Operation<Signing>,
    pub(crate) verify: Operation<Verification>,
    pub(crate) verify_recover: Operation<Recovery>,
    /// A verification whose signature was given first.
    pub(crate) verify_signature: Operation<(Verification, Vec<u8>)>,
    pub(crate) encrypt: Operation<Cipher>,
    pub(crate) decrypt: Operation<Cipher>,
    /// The operations, as `CKF_` flags in the order in which they began, whose key wants a login of its own first
    /// (`CKA_ALWAYS_AUTHENTICATE`).
    await_login: Vec<CK_FLAGS>,
}

/// The standard has no flag of its own for a verification whose signature was given first, and no other use for this.
pub(crate) const VERIFY_SIGNATURE: CK_FLAGS = 1 << 27;

impl Operations {
    /// Ends operations without a result, by their `CKF_` flags of CK_MECHANISM_INFO (C_SessionCancel).
    pub(crate) fn cancel(&mut self, kinds: CK_FLAGS) {
        fn end<T>(kinds: CK_FLAGS, kind: CK_FLAGS, operation: &mut Operation<T>) {
            if kinds & kind != 0 {
                *operation = Operation::Idle;
            }
        }
        end(kinds, CKF_FIND_OBJECTS, &mut self.find);
        end(kinds, CKF_DIGEST, &mut self.digest);
        end(kinds, CKF_SIGN, &mut self.sign);
        end(kinds, CKF_SIGN_RECOVER, &mut self.sign_recover);
        end(kinds, CKF_VERIFY, &mut self.verify);
        end(kinds, CKF_VERIFY_RECOVER, &mut self.verify_recover);
        end(kinds, CKF_VERIFY | VERIFY_SIGNATURE, &mut self.verify_signature);
        end(kinds, CKF_ENCRYPT, &mut self.encrypt);
        end(kinds, CKF_DECRYPT, &mut self.decrypt);
        self.await_login.retain(|kind| kind & kinds == 0);
    }

    /// Notes whether an operation that begins wants a login of its own.
    pub(crate) fn set_await_login(&mut self, kind: CK_FLAGS, wanted: bool) {
        self.await_login.retain(|known| *known != kind);
        if wanted {
            self.await_login.push(kind);
        }
    }

    /// Refuses an operation that still waits for its login.
    pub(crate) fn require_login(&self, kind: CK_FLAGS) -> Result<()> {
        if self.await_login.contains(&kind) { Err(Error(CKR_USER_NOT_LOGGED_IN)) } else { Ok(()) }
    }

    /// Whether an operation waits for its login.
    pub(crate) fn awaits_login(&self) -> bool {
        !self.await_login.is_empty()
    }

    /// The login of the operation that began last was there: it is for that one alone.
    pub(crate) fn log_in(&mut self) {
        let _ = self.await_login.pop();
    }

    /// Whether an operation runs whose key cannot be saved with it.
    fn has_key(&self) -> bool {
        self.sign.is_active()
            || self.verify.is_active()
            || self.verify_signature.is_active()
            || self.encrypt.is_active()
            || self.decrypt.is_active()
    }
}

impl Session {
    /// Does the rest of an operation, and ends it if that fails: "always terminates the active operation, unless it
    /// returns CKR_BUFFER_TOO_SMALL or is a successful call to determine the length" (C_Sign, C_Digest).
    pub(crate) fn ending<T>(&self, kind: CK_FLAGS, rest: impl FnOnce() -> Result<T>) -> Result<T> {
        rest().inspect_err(|error| {
            if *error != Error(CKR_BUFFER_TOO_SMALL) {
                self.operations().cancel(kind);
            }
        })
    }

    /// Starts a search (C_FindObjectsInit).
    pub(crate) fn start_find(&self, search: impl FnOnce() -> Result<Vec<CK_OBJECT_HANDLE>>) -> Result<()> {
        // The store is read while the session is locked, so that a second search in it finds this one active.
        self.operations().find.begin(|| Ok(search()?.into()))
    }

    /// The next objects found.
    pub(crate) fn next_found(&self, at_most: usize) -> Result<Vec<CK_OBJECT_HANDLE>> {
        self.operations().find.part(|handles| Ok(handles.drain(..at_most.min(handles.len())).collect()))
    }

    /// Ends a search.
    pub(crate) fn end_find(&self) -> Result<()> {
        self.operations().find.end().map(|_| ())
    }

    /// Starts a digest.
    pub(crate) fn start_digest(&self, mechanism: Mechanism<'_>) -> Result<()> {
        let token = self.slot().token_info();
        self.operations().digest.begin(|| {
            let Work::Digest(hash) = mechanism::find(mechanism.kind, token.as_deref(), CKF_DIGEST)? else {
                return Err(Error(CKR_MECHANISM_INVALID));
            };
            mechanism.parameter.none()?;
            Ok((hash, Digest::new(hash)))
        })
    }

    /// Length of the digest.
    pub(crate) fn digest_length(&self) -> Result<usize> {
        self.operations().digest.running().map(|(hash, _)| hash.digest_length())
    }

    /// Adds data to the digest.
    pub(crate) fn update_digest(&self, data: &[u8]) -> Result<()> {
        self.operations().digest.part(|(_, digest)| {
            digest.update(data);
            Ok(())
        })
    }

    /// Adds the value of a secret key to the digest (C_DigestKey).
    pub(crate) fn digest_key(&self, key: CK_OBJECT_HANDLE) -> Result<()> {
        self.operations().digest.running()?;
        let view = self.key(key, CKR_KEY_HANDLE_INVALID)?;
        if view.part != Part::SecretKey {
            return Err(Error(CKR_KEY_INDIGESTIBLE));
        }
        let key = view.token.secret_key(&view.object)?;
        self.update_digest(key.value().ok_or(Error(CKR_KEY_INDIGESTIBLE))?)
    }

    /// Ends the digest.
    pub(crate) fn digest(&self, data: Data<'_>) -> Result<Vec<u8>> {
        let (_, mut digest) = self.operations().digest.finish(data)?;
        digest.update(data.rest());
        Ok(digest.finish())
    }

    /// Saves the digest that runs, under a name that only this process can resolve (C_GetOperationState).
    pub(crate) fn save(&self) -> Result<Vec<u8>> {
        let operations = self.operations();
        if operations.has_key() {
            return Err(Error(CKR_STATE_UNSAVEABLE));
        }
        operations.digest.running()?;
        self.slot().save_digest(operations.digest.clone())
    }

    /// Whether there is something to save.
    pub(crate) fn is_saveable(&self) -> Result<()> {
        let operations = self.operations();
        if operations.has_key() {
            return Err(Error(CKR_STATE_UNSAVEABLE));
        }
        operations.digest.running().map(|_| ())
    }

    /// Goes on with a saved digest, whatever ran (C_SetOperationState).
    pub(crate) fn restore(&self, name: &[u8], keys: [CK_OBJECT_HANDLE; 2]) -> Result<()> {
        let saved = self.slot().saved_digest(name)?;
        if keys != [CK_INVALID_HANDLE; 2] {
            return Err(Error(CKR_KEY_NOT_NEEDED));
        }
        let mut operations = self.operations();
        // "Even if that session has active cryptographic or object search operations": those are cancelled.
        operations.cancel(CK_FLAGS::MAX);
        operations.digest = saved;
        Ok(())
    }
}
