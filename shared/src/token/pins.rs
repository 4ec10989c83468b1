//! A token's PINs, and who is logged in.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::{Token, User, UserPin, check_label};
use crate::auth::{self, StackWiped, TokenSecret};
use crate::error::{Error, Result};
use crate::log::{self, Topic};
use crate::object::{ObjectId, Part, Query};
use crate::random;
use crate::store::{TokenFile, UserSecret};
use crate::tpm::{self, Connection, PinTries, Sealed, Srk};
use crate::tss2_pem::Tss2Key;

/// A login.
pub(super) struct Login {
    user: User,
    /// `None` where the user PIN is empty.
    secret: Option<TokenSecret>,
    /// The token's salt then: another means that the token was made anew since.
    salt: Vec<u8>,
}

impl Token {
    /// Logs in. With an empty user PIN an empty `pin` succeeds and any other is wrong, without the TPM.
    ///
    /// Errors: [`Error::PinIncorrect`], [`Error::PinLocked`], [`Error::PinNotInitialized`], [`Error::TpmReplaced`].
    pub fn login(&self, user: User, pin: &[u8]) -> Result<()> {
        let (secret, salt) = self.secret_by_pin(user, pin)?;
        self.login.store(Some(Arc::new(Login { user, secret, salt })));
        self.not_adopted.get().lock().clear();
        self.adopt_configured();
        Ok(())
    }

    /// Has the TPM check a PIN, and leaves the login as it is. Errors are those of [`Self::login`].
    pub fn check_pin(&self, user: User, pin: &[u8]) -> Result<()> {
        self.secret_by_pin(user, pin).map(drop)
    }

    /// The token secret, `None` where the user PIN is empty; and the token's salt.
    fn secret_by_pin(&self, user: User, pin: &[u8]) -> Result<(Option<TokenSecret>, Vec<u8>)> {
        let _wiped = StackWiped;
        let file = self.reread()?;
        let sealed = match (user, &file.user) {
            (User::SecurityOfficer, _) => &file.security_officer,
            (User::User, UserSecret::Set(sealed)) => sealed,
            (User::User, UserSecret::NotInitialized) => return Err(Error::PinNotInitialized),
            (User::User, UserSecret::Empty) if pin.is_empty() => return Ok((None, file.salt)),
            (User::User, UserSecret::Empty) => return Err(Error::PinIncorrect),
        };
        let secret = self.unseal(&file, &sealed.into(), pin)?;
        Ok((Some(secret), file.salt))
    }

    /// Forgets the login.
    pub fn logout(&self) {
        self.login.store(None);
    }

    /// Who is logged in, in this process.
    pub fn logged_in(&self) -> Option<User> {
        self.current_login().map(|login| login.user)
    }

    /// The login, unless another process made the token anew since: its secret opens nothing then.
    fn current_login(&self) -> Option<Arc<Login>> {
        self.login.load_full().filter(|login| login.salt == self.file.load().salt)
    }

    /// Whether private objects and keys can be used now: the user is logged in, or needs no login.
    pub fn is_open(&self) -> bool {
        self.file.load().user_pin() == UserPin::Empty || self.logged_in() == Some(User::User)
    }

    /// What failed logins told about the TPM's lockout.
    pub fn pin_tries(&self) -> PinTries {
        **self.tries.load()
    }

    /// Sets the user PIN, as logged-in security officer. An empty one makes a token without login.
    pub fn init_pin(&self, pin: &[u8]) -> Result<()> {
        let _wiped = StackWiped;
        let login = self.login.load_full().filter(|login| login.user == User::SecurityOfficer);
        let secret = login.as_ref().and_then(|login| login.secret.as_ref()).ok_or(Error::NotLoggedIn)?;
        if !pin.is_empty() {
            auth::check_new_pin(pin)?;
        }
        let _lock = self.directory.lock()?;
        let mut file = self.reread()?;
        self.require_current(&file, None)?;
        let turns = match file.user_pin() {
            UserPin::NotInitialized => false,
            UserPin::Empty => !pin.is_empty(),
            UserPin::Set => pin.is_empty(),
        };
        if turns && self.has_keys()? {
            return Err(Error::PinKindFixed);
        }
        let srk = Srk::from_public(file.srk.clone())?;
        file.user = if pin.is_empty() {
            if !srk.is_unattended() {
                return Err(Error::StorageRootKey(
                    "the storage root key of this TPM lacks noDA: power cuts could lock an unattended device out; \
                     set a user PIN, or make the storage root key anew with noDA"
                        .into(),
                ));
            }
            UserSecret::Empty
        } else {
            let value = auth::pin_auth(pin, &file.salt);
            UserSecret::Set(self.tpm.with(|tpm| tpm.seal(&srk, &value, secret.as_bytes()))?.into())
        };
        self.write(file)
    }

    /// Changes the PIN of `user`.
    pub fn set_pin(&self, user: User, old: &[u8], new: &[u8]) -> Result<()> {
        let _wiped = StackWiped;
        let _lock = self.directory.lock()?;
        let mut file = self.reread()?;
        let sealed: Sealed = match (user, &file.user) {
            (User::SecurityOfficer, _) => (&file.security_officer).into(),
            (User::User, UserSecret::Set(sealed)) => sealed.into(),
            (User::User, UserSecret::NotInitialized) => return Err(Error::PinNotInitialized),
            (User::User, UserSecret::Empty) if !old.is_empty() => return Err(Error::PinIncorrect),
            (User::User, UserSecret::Empty) if new.is_empty() => return Ok(()),
            (User::User, UserSecret::Empty) => return Err(Error::PinKindFixed),
        };
        auth::check_given_pin(old)?;
        auth::check_new_pin(new)?;
        let srk = Srk::from_public(file.srk.clone())?;
        let (old, new) = (auth::pin_auth(old, &file.salt), auth::pin_auth(new, &file.salt));
        let resealed = self.with_pin(&file, |tpm| tpm.reseal(&srk, &sealed, &old, &new))?;
        match user {
            User::SecurityOfficer => file.security_officer = resealed.into(),
            User::User => file.user = UserSecret::Set(resealed.into()),
        }
        self.write(file)
    }

    /// Makes the token anew: needs the SO PIN, destroys every object, forgets the user PIN.
    pub fn reinitialise(&self, so_pin: &[u8], label: &str) -> Result<()> {
        let _wiped = StackWiped;
        check_label(label)?;
        let _lock = self.directory.lock()?;
        let mut file = self.reread()?;
        drop(self.unseal(&file, &(&file.security_officer).into(), so_pin)?);
        let secret = TokenSecret::random()?;
        let srk = Srk::from_public(file.srk.clone())?;
        random::fill(&mut file.salt)?;
        let value = auth::pin_auth(so_pin, &file.salt);
        let sealed = self.tpm.with(|tpm| tpm.seal(&srk, &value, secret.as_bytes()))?;
        for object in self.find(&Query { part: Some(Part::PrivateKey), ..Query::default() })? {
            self.displace(&object)?;
        }
        self.directory.clear()?;
        self.cache.get().lock().clear();
        self.logout();
        file.label = label.into();
        file.security_officer = sealed.into();
        file.user = UserSecret::NotInitialized;
        self.write(file)
    }

    fn unseal(&self, file: &TokenFile, sealed: &Sealed, pin: &[u8]) -> Result<TokenSecret> {
        auth::check_given_pin(pin)?;
        let srk = Srk::from_public(file.srk.clone())?;
        let value = auth::pin_auth(pin, &file.salt);
        let secret = self.with_pin(file, |tpm| {
            tpm.unseal(&srk, sealed, &value).map_err(|error| {
                let what = format!("token '{}'", file.label);
                tpm.diagnose_load(&srk, error, &what, || self.damaged("its sealed secret does not load"))
            })
        })?;
        TokenSecret::from_bytes(&secret)?.ok_or_else(|| self.damaged("its sealed secret has a wrong length"))
    }

    /// Runs what takes a PIN, and learns from a failure how the TPM's lockout stands.
    fn with_pin<T>(&self, file: &TokenFile, mut operation: impl FnMut(&mut Connection) -> Result<T>) -> Result<T> {
        let tpm = &self.tpm;
        let result = tpm.with(&mut operation);
        let tries = match &result {
            // The TPM counts wrong PINs until its recovery time, whatever right ones come between.
            Ok(_) => PinTries { locked: false, ..self.pin_tries() },
            Err(Error::PinIncorrect | Error::PinLocked) => tpm.with(tpm::read_lockout)?,
            Err(_) => return result,
        };
        self.tries.store(Arc::new(tries));
        if result.is_err() {
            log::write(Topic::Error, format_args!("a PIN of token '{}' was refused", file.label));
        }
        result
    }

    /// The authValue of this token's key in object `id`; `None` where it is empty.
    pub(crate) fn key_auth(&self, id: ObjectId) -> Result<Option<Zeroizing<Vec<u8>>>> {
        if self.file.load().user_pin() == UserPin::Empty {
            return Ok(None);
        }
        self.with_secret(|secret| secret.key_auth(id)).map(Some)
    }

    pub(super) fn with_secret<T>(&self, operation: impl FnOnce(&TokenSecret) -> T) -> Result<T> {
        let _wiped = StackWiped;
        let login = self.current_login().filter(|login| login.user == User::User);
        login.as_ref().and_then(|login| login.secret.as_ref()).map(operation).ok_or(Error::NotLoggedIn)
    }

    /// As [`Self::require_current`], by what the store says now.
    pub(crate) fn require_current_login(&self) -> Result<()> {
        self.require_current(&self.reread()?, None)
    }

    /// Refuses what was made before another process made the token anew, or gave it a PIN of the other kind: nobody could use
    /// it. `file` is what the store says now.
    pub(super) fn require_current(&self, file: &TokenFile, key: Option<&Tss2Key>) -> Result<()> {
        let of_before = self.login.load().as_ref().is_some_and(|login| login.salt != file.salt);
        if of_before || key.is_some_and(|key| key.empty_auth != (file.user_pin() == UserPin::Empty)) {
            self.logout();
            return Err(Error::NotLoggedIn);
        }
        Ok(())
    }
}
