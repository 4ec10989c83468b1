//! Any key in the TPM, asymmetric or secret: where it is, what loads it, what authorises it, what a failed use means.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::algorithm::{CipherMode, Direction, HashAlgorithm};
use crate::auth::StackWiped;
use crate::error::{Error, Result};
use crate::object::{KeyMaterial, ObjectId};
use crate::public_area::PublicArea;
use crate::token::Token;
use crate::tpm::{self, Authority, Parent, Place, Tpm, UsableKey};
use crate::tss2_pem::Tss2Key;

/// Any key in the TPM, asymmetric or secret.
#[derive(Clone)]
pub(crate) struct TpmKey {
    pub(super) tpm: Tpm,
    pub(super) place: Arc<KeyPlace>,
    pub(super) owner: Owner,
    /// The authValue of its parent, where it is not the one that the configuration knows.
    pub(super) parent_auth: Option<Arc<Zeroizing<Vec<u8>>>>,
}

/// Where a key is, and what the TPM says about it.
pub(crate) struct KeyPlace {
    pub(super) source: Source,
    pub(super) area: PublicArea,
}

pub(super) enum Source {
    Wrapped {
        parent: Parent,
        key: Tss2Key,
        /// Where it is in the TPM too.
        placed: Option<u32>,
    },
    Persistent(u32),
    /// A marshalled `TPMS_CONTEXT`.
    Saved(Vec<u8>),
}

/// Where the authorisation comes from.
#[derive(Clone)]
pub(crate) enum Owner {
    /// Nowhere: the authValue is empty.
    Nobody,
    /// The login of the key's token; the authValue is the one derived for this object.
    Token(Arc<Token>, ObjectId),
    /// The login of the key's token, which keeps the key's own authValue, if it has one, encrypted for this object.
    Adopted(Arc<Token>, ObjectId, Option<Arc<Vec<u8>>>),
    /// Whoever gives the value; `None` so far.
    Anybody(Option<Arc<Zeroizing<Vec<u8>>>>),
}

impl KeyPlace {
    pub(crate) fn wrapped(key: Tss2Key, placed: Option<u32>) -> Result<Self> {
        let area = key.public_area()?;
        let parent = Parent::from_handle(key.parent, key.rsa_parent)?;
        Ok(Self { source: Source::Wrapped { parent, key, placed }, area })
    }

    fn persistent(handle: u32, public: &[u8]) -> Result<Self> {
        Ok(Self { source: Source::Persistent(handle), area: PublicArea::parse(public)? })
    }

    /// That of a token's key.
    pub(crate) fn of(key: &KeyMaterial) -> Result<Self> {
        match key {
            KeyMaterial::Wrapped(key) => Self::wrapped(key.clone(), None),
            KeyMaterial::Placed(key, handle) => Self::wrapped(key.clone(), Some(*handle)),
            KeyMaterial::Persistent(key) => Self::persistent(key.handle, &key.public),
        }
    }
}

impl TpmKey {
    pub(crate) fn wrapped(tpm: Tpm, key: Tss2Key, owner: Owner) -> Result<Self> {
        Ok(Self::new(tpm, Arc::new(KeyPlace::wrapped(key, None)?), owner))
    }

    pub(crate) fn persistent(tpm: Tpm, handle: u32, public: &[u8], owner: Owner) -> Result<Self> {
        Ok(Self::new(tpm, Arc::new(KeyPlace::persistent(handle, public)?), owner))
    }

    pub(crate) fn saved(tpm: Tpm, context: Vec<u8>, public: &[u8], owner: Owner) -> Result<Self> {
        let place = KeyPlace { source: Source::Saved(context), area: PublicArea::parse(public)? };
        Ok(Self::new(tpm, Arc::new(place), owner))
    }

    pub(crate) fn new(tpm: Tpm, place: Arc<KeyPlace>, owner: Owner) -> Self {
        Self { tpm, place, owner, parent_auth: None }
    }

    /// Uses the key at the TPM.
    pub(super) fn use_with<T>(
        &self,
        mut operation: impl FnMut(&mut tpm::Connection, &UsableKey<'_>, &Authority) -> Result<T>,
    ) -> Result<T> {
        let authority = self.authority()?;
        let parent_auth = self.parent_auth()?;
        let _wiped = (!matches!(authority, Authority::Empty)).then(|| StackWiped);
        let (place, policies) = match &self.place.source {
            Source::Wrapped { parent, key, placed } => {
                let (seed, placed, parent_auth) = (key.secret.as_deref(), *placed, parent_auth.as_slice());
                let (public, private) = (key.public.as_slice(), key.private.as_slice());
                let place = Place::Wrapped { parent: *parent, parent_auth, public, private, seed, placed };
                let alternatives = key.auth_policy.iter().map(|alternative| alternative.steps.as_slice());
                let steps = Some(key.policy.as_slice()).filter(|steps| !steps.is_empty());
                (place, alternatives.chain(steps).collect())
            }
            Source::Persistent(handle) => (Place::Persistent(*handle), Vec::new()),
            Source::Saved(context) => (Place::Saved(context), Vec::new()),
        };
        let key = UsableKey { place, area: &self.place.area, policies: &policies };
        let mut first = true;
        self.tpm.with(|connection| {
            // What is gone while it was held is looked for once more before that means anything.
            let once_more = std::mem::take(&mut first) && connection.holds_something();
            let result = operation(connection, &key, &authority);
            result.map_err(|error| match once_more && tpm::is_gone(&error) {
                true => error,
                false => self.diagnose(connection, error),
            })
        })
    }

    fn parent_auth(&self) -> Result<Zeroizing<Vec<u8>>> {
        match (&self.parent_auth, &self.place.source) {
            (Some(value), _) => Ok((**value).clone()),
            (None, Source::Wrapped { key, .. }) => self.tpm.config().parent_auth(key.parent),
            (None, Source::Persistent(_) | Source::Saved(_)) => Ok(Zeroizing::default()),
        }
    }

    pub(super) fn authority(&self) -> Result<Authority> {
        Ok(match &self.owner {
            Owner::Nobody | Owner::Adopted(_, _, None) => Authority::Empty,
            Owner::Token(token, id) => token.key_auth(*id)?.map_or(Authority::Empty, Authority::Random),
            Owner::Adopted(token, id, Some(sealed)) => Authority::Adopted(token.open_data(*id, sealed)?, token.srk()?),
            Owner::Anybody(Some(value)) => Authority::Chosen((**value).clone()),
            Owner::Anybody(None) => return Err(Error::NotLoggedIn),
        })
    }

    /// What a failed use means.
    fn diagnose(&self, connection: &mut tpm::Connection, error: Error) -> Error {
        let refused = tpm::is_authorisation_failure(&error);
        match (&self.owner, &self.place.source) {
            (_, Source::Persistent(handle)) if tpm::is_missing_handle(&error) => {
                Error::TpmReplaced { what: format!("the key at 0x{handle:08x}") }
            }
            (Owner::Token(token, id) | Owner::Adopted(token, id, _), _) => {
                let damaged =
                    |reason: &str| Error::ObjectCorrupt { path: token.object_path(*id), reason: reason.into() };
                if refused {
                    if let Err(error) = token.require_current_login() {
                        return error;
                    }
                    return damaged(match self.owner {
                        Owner::Adopted(..) => {
                            "the key in the TPM has another authorisation value than auth_file had when it was adopted; correct that \
                             file, and remove this one to have it adopted anew"
                        }
                        _ => "its authorisation is not the one that this token knows",
                    });
                }
                match token.srk() {
                    Ok(srk) => {
                        let what = format!("token '{}'", token.info().label);
                        connection.diagnose_load(&srk, error, &what, || damaged("the TPM cannot load it"))
                    }
                    Err(error) => error,
                }
            }
            (Owner::Nobody, Source::Persistent(_) | Source::Saved(_)) if refused => Error::NotLoggedIn,
            (Owner::Nobody | Owner::Anybody(_), _) if refused => Error::PinIncorrect,
            (Owner::Nobody | Owner::Anybody(_), Source::Wrapped { parent, .. }) => {
                connection.diagnose_key_file(*parent, error)
            }
            (Owner::Nobody | Owner::Anybody(_), _) if tpm::is_not_ours(&error) => {
                Error::TpmReplaced { what: "this key file".into() }
            }
            (Owner::Nobody | Owner::Anybody(_), _) => error,
        }
    }

    pub(crate) fn cipher(
        &self,
        how: (CipherMode, Direction),
        iv: &mut Vec<u8>,
        data: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        self.use_with(|tpm, key, authority| {
            // A second try starts where the first did.
            let mut next = iv.clone();
            let output = tpm.cipher(key, authority, how, &mut next, data)?;
            *iv = next;
            Ok(output)
        })
    }

    pub(crate) fn mac(&self, hash: HashAlgorithm, data: &[u8]) -> Result<Vec<u8>> {
        self.use_with(|tpm, key, authority| tpm.mac(key, authority, hash, data))
    }

    pub(super) fn token(&self) -> Option<&Arc<Token>> {
        match &self.owner {
            Owner::Token(token, _) | Owner::Adopted(token, ..) => Some(token),
            Owner::Nobody | Owner::Anybody(_) => None,
        }
    }
}
