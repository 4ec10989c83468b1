//! What we do with objects at the TPM: the storage root key, sealed secrets, keys.

use zeroize::Zeroizing;

use super::connection::Connection;
use super::sapi::{Auth, Created};
use super::session::session_attribute::{CONTINUE, DECRYPT, ENCRYPT};
use super::{response, template};
use crate::algorithm::{HashAlgorithm, KeySpec, SignatureScheme};
use crate::error::{Error, Result};
use crate::public_area::{PublicArea, object_attribute};
use crate::public_key::PublicKey;

/// The TCG's place for the storage root key (TPM 2.0 Provisioning Guidance, 7.8).
pub(crate) const SRK_HANDLE: u32 = 0x8100_0001;
/// `TPM_RH_OWNER`, in key files: the standard primary key of the owner hierarchy.
pub(crate) const OWNER: u32 = 0x4000_0001;

/// The storage root key, as pinned when a token was made.
#[derive(Clone)]
pub(crate) struct Srk {
    /// `TPM2B_PUBLIC`, marshalled.
    pub(crate) public: Vec<u8>,
    area: PublicArea,
}

impl Srk {
    pub(crate) fn from_public(public: Vec<u8>) -> Result<Self> {
        let area = PublicArea::parse(&public)?;
        let storage = object_attribute::RESTRICTED | object_attribute::DECRYPT | object_attribute::FIXED_TPM;
        if !area.has(storage) {
            return Err(Error::StorageRootKey(format!(
                "the object at 0x{SRK_HANDLE:x} is not a storage key of this TPM"
            )));
        }
        Ok(Self { public, area })
    }

    /// Failed authorisations of it never count, so that power cuts cannot lock an unattended device out.
    pub(crate) fn is_unattended(&self) -> bool {
        self.area.has(object_attribute::NO_DA)
    }

    fn named(&self) -> (u32, &[u8]) {
        (SRK_HANDLE, &self.area.name)
    }
}

/// The parent of a key in a key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parent {
    /// A persistent key.
    Persistent(u32),
    /// The owner hierarchy's standard primary key, made when it is needed.
    OwnerPrimary,
}

impl Parent {
    pub(crate) fn from_handle(handle: u32) -> Result<Self> {
        match handle {
            OWNER => Ok(Self::OwnerPrimary),
            0x8100_0000..=0x81ff_ffff => Ok(Self::Persistent(handle)),
            other => Err(Error::Unsupported(format!("keys under the parent 0x{other:x}"))),
        }
    }
}

/// A secret sealed in the TPM under an authValue.
#[derive(Clone)]
pub(crate) struct Sealed {
    /// `TPM2B_PUBLIC`, marshalled.
    pub(crate) public: Vec<u8>,
    /// `TPM2B_PRIVATE`, marshalled.
    pub(crate) private: Vec<u8>,
}

impl Sealed {
    /// The Name: sealed objects of ours are named by SHA-256.
    fn name(&self) -> Vec<u8> {
        let area = self.public.get(2..).unwrap_or_default();
        [&[0x00, 0x0b][..], &HashAlgorithm::Sha256.digest(area)].concat()
    }
}

/// What authorises the use of a key.
pub(crate) enum Authority {
    /// Its authValue is empty.
    Empty,
    /// A long random authValue, which no salt has to protect.
    Random(Zeroizing<Vec<u8>>),
    /// An authValue that somebody chose: the session is salted.
    Chosen(Zeroizing<Vec<u8>>),
}

/// The key that a connection keeps loaded.
pub(crate) struct LoadedKey {
    pub(super) handle: u32,
    name: Vec<u8>,
}

/// A wrapped key, to be loaded and used.
pub(crate) struct WrappedKey<'a> {
    pub(crate) parent: Parent,
    /// `TPM2B_PUBLIC`, marshalled.
    pub(crate) public: &'a [u8],
    /// `TPM2B_PRIVATE`, marshalled.
    pub(crate) private: &'a [u8],
    pub(crate) area: &'a PublicArea,
}

impl Connection {
    /// The storage root key at its handle; made there if it is absent.
    pub(crate) fn provide_srk(&mut self) -> Result<Srk> {
        if let Some(srk) = self.find_srk()? {
            return Ok(srk);
        }
        let advice = |what: &str| {
            Error::StorageRootKey(format!(
                "no storage root key at 0x{SRK_HANDLE:x}, and {what}: as its owner run \
                 'tpm2_createprimary -C o -P OWNERAUTH -G ecc256 -c srk.ctx -a \
                 \"fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt\"' and \
                 'tpm2_evictcontrol -C o -P OWNERAUTH -c srk.ctx 0x{SRK_HANDLE:x}'"
            ))
        };
        let (transient, public) = self.sapi.create_primary(template::storage_primary()?).map_err(|error| {
            match response::is_authorisation_failure(&error) {
                true => advice("this TPM's owner has set an authorisation value"),
                false => error,
            }
        })?;
        let persisted = self.sapi.evict_control(transient, SRK_HANDLE);
        self.sapi.flush_context(transient)?;
        match persisted {
            Ok(()) => Srk::from_public(public),
            // Another process was faster.
            Err(_) => self.find_srk()?.ok_or_else(|| advice("it cannot be stored there")),
        }
    }

    /// The storage root key at its handle, if there is one.
    pub(crate) fn find_srk(&mut self) -> Result<Option<Srk>> {
        match self.sapi.read_public(SRK_HANDLE) {
            Ok(public) => Srk::from_public(public).map(Some),
            Err(error) if response::is_missing_handle(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What a failed load under the pinned `srk` means: another TPM, or a damaged file.
    pub(crate) fn diagnose_load(
        &mut self,
        srk: &Srk,
        error: Error,
        what: &str,
        damaged: impl FnOnce() -> Error,
    ) -> Error {
        if !response::is_not_ours(&error) {
            return error;
        }
        match self.find_srk() {
            Ok(Some(found)) if found.area.name == srk.area.name => damaged(),
            _ => Error::TpmReplaced { what: what.into() },
        }
    }

    /// What a failed creation under the pinned `srk` means: another TPM, or a storage root key that we cannot use.
    pub(crate) fn diagnose_create(&mut self, srk: &Srk, error: Error, what: &str) -> Error {
        let refused = response::is_authorisation_failure(&error) || response::is_not_ours(&error);
        if !refused {
            return error;
        }
        match self.find_srk() {
            Ok(Some(found)) if found.area.name == srk.area.name => Error::StorageRootKey(format!(
                "the storage root key at 0x{SRK_HANDLE:x} has an authorisation value, which unattended use cannot give"
            )),
            _ => Error::TpmReplaced { what: what.into() },
        }
    }

    /// Seals `secret` under `auth_value`; neither crosses the bus in the clear.
    pub(crate) fn seal(&mut self, srk: &Srk, auth_value: &[u8], secret: &[u8]) -> Result<Sealed> {
        self.flush_key()?;
        self.start_session(Some((SRK_HANDLE, &srk.area)))?;
        let template = template::sealed()?;
        let Created { public, private, .. } = self.authorised(&[], CONTINUE | DECRYPT, |sapi, auth| {
            sapi.create(srk.named(), auth, template, auth_value, secret)
        })?;
        Ok(Sealed { public, private })
    }

    /// Releases a sealed secret. Errors: [`Error::PinIncorrect`].
    pub(crate) fn unseal(&mut self, srk: &Srk, sealed: &Sealed, auth_value: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        self.with_sealed(srk, sealed, auth_value, ENCRYPT, |sapi, item, auth| sapi.unseal(item, auth))
    }

    /// Seals the same secret under another authValue: no other copy of the old one is revoked by it.
    pub(crate) fn reseal(&mut self, srk: &Srk, sealed: &Sealed, old: &[u8], new: &[u8]) -> Result<Sealed> {
        let private = self.with_sealed(srk, sealed, old, DECRYPT, |sapi, item, auth| {
            sapi.object_change_auth(item, srk.named(), auth, new)
        })?;
        Ok(Sealed { public: sealed.public.clone(), private })
    }

    fn with_sealed<T>(
        &mut self,
        srk: &Srk,
        sealed: &Sealed,
        auth_value: &[u8],
        attributes: u8,
        command: impl FnOnce(&mut super::sapi::Sapi, (u32, &[u8]), &mut Auth<'_>) -> Result<T>,
    ) -> Result<T> {
        self.flush_key()?;
        self.start_session(Some((SRK_HANDLE, &srk.area)))?;
        let handle = self.sapi.load(SRK_HANDLE, &sealed.public, &sealed.private)?;
        let name = sealed.name();
        let result =
            self.authorised(auth_value, CONTINUE | attributes, |sapi, auth| command(sapi, (handle, &name), auth));
        let result = result.map_err(|error| match response::is_authorisation_failure(&error) {
            true => Error::PinIncorrect,
            false => error,
        });
        self.sapi.flush_context(handle)?;
        result
    }

    /// Makes a key under `srk` whose authValue is `auth_value`.
    pub(crate) fn create_key(&mut self, srk: &Srk, spec: KeySpec, auth_value: &[u8]) -> Result<Created> {
        self.flush_key()?;
        let template = template::key(spec)?;
        let created = if auth_value.is_empty() {
            self.sapi.create(srk.named(), &mut Auth::Empty, template, &[], &[])?
        } else {
            self.start_session(Some((SRK_HANDLE, &srk.area)))?;
            self.authorised(&[], CONTINUE | DECRYPT, |sapi, auth| {
                sapi.create(srk.named(), auth, template, auth_value, &[])
            })?
        };
        // A password session would not notice another key at the handle; the TPM tells under which it made this one.
        match created.parent_name == srk.area.name {
            true => Ok(created),
            false => Err(Error::TpmReplaced { what: "this token".into() }),
        }
    }

    /// Makes a key under the owner hierarchy's standard primary key, which goes again.
    pub(crate) fn create_key_under_primary(&mut self, spec: KeySpec, auth_value: &[u8]) -> Result<Created> {
        self.flush_key()?;
        let template = template::key(spec)?;
        let (primary, public) = self.sapi.create_primary(template::storage_primary()?)?;
        let result = PublicArea::parse(&public).and_then(|area| {
            if auth_value.is_empty() {
                return self.sapi.create((primary, &area.name), &mut Auth::Empty, template, &[], &[]);
            }
            self.start_session(Some((primary, &area)))?;
            self.authorised(&[], CONTINUE | DECRYPT, |sapi, auth| {
                sapi.create((primary, &area.name), auth, template, auth_value, &[])
            })
        });
        self.sapi.flush_context(primary)?;
        result
    }

    /// Signs a digest with a key, which stays loaded for the next signature.
    pub(crate) fn sign(
        &mut self,
        key: &WrappedKey<'_>,
        authority: &Authority,
        scheme: SignatureScheme,
        digest: &[u8],
    ) -> Result<Vec<u8>> {
        let held = self.key.is_some();
        match self.sign_once(key, authority, scheme, digest) {
            // Without a resource manager anybody can flush what we hold.
            Err(error) if held && response::is_gone(&error) => {
                self.key = None;
                self.sign_once(key, authority, scheme, digest)
            }
            result => result,
        }
    }

    fn sign_once(
        &mut self,
        key: &WrappedKey<'_>,
        authority: &Authority,
        scheme: SignatureScheme,
        digest: &[u8],
    ) -> Result<Vec<u8>> {
        let handle = self.load_key(key, matches!(authority, Authority::Chosen(_)))?;
        let named = (handle, key.area.name.as_slice());
        let (hash, input, coordinate) = match (&key.area.public_key, scheme) {
            (PublicKey::Ec { curve, .. }, SignatureScheme::Ecdsa) => {
                (curve.ecdsa_hash(), curve.ecdsa_input(digest), curve.coordinate_length())
            }
            (PublicKey::Rsa { .. }, SignatureScheme::RsaPkcs1(hash) | SignatureScheme::RsaPss { hash, .. }) => {
                (hash, digest.to_vec(), 0)
            }
            _ => return Err(Error::Unsupported("this signature scheme with this type of key".into())),
        };
        let value = match authority {
            Authority::Empty => {
                return self.sapi.sign(named, &mut Auth::Empty, (scheme, hash), &input, coordinate);
            }
            Authority::Random(value) => {
                self.start_session(None)?;
                value
            }
            // `load_key` has salted the session.
            Authority::Chosen(value) => value,
        };
        self.authorised_signatures += 1;
        let attributes = if self.authorised_signatures == 1 { 0 } else { CONTINUE };
        self.authorised(value, attributes, |sapi, auth| sapi.sign(named, auth, (scheme, hash), &input, coordinate))
    }

    /// Loads a key, unless it is the one that is loaded. With `salt`, a session salted to its parent is held after.
    fn load_key(&mut self, key: &WrappedKey<'_>, salt: bool) -> Result<u32> {
        if let Some(loaded) = self.key.as_ref().filter(|loaded| loaded.name == key.area.name) {
            let handle = loaded.handle;
            if salt {
                self.salt_to_parent(key.parent)?;
            }
            return Ok(handle);
        }
        self.flush_key()?;
        let handle = match key.parent {
            Parent::Persistent(parent) => {
                if salt {
                    self.salt_to_parent(key.parent)?;
                }
                self.sapi.load(parent, key.public, key.private)?
            }
            Parent::OwnerPrimary => {
                let (primary, public) = self.sapi.create_primary(template::storage_primary()?)?;
                let salted = match salt {
                    true => PublicArea::parse(&public).and_then(|area| self.start_session(Some((primary, &area)))),
                    false => Ok(()),
                };
                let loaded = salted.and_then(|()| self.sapi.load(primary, key.public, key.private));
                self.sapi.flush_context(primary)?;
                loaded?
            }
        };
        self.key = Some(LoadedKey { handle, name: key.area.name.clone() });
        Ok(handle)
    }

    fn salt_to_parent(&mut self, parent: Parent) -> Result<()> {
        match parent {
            Parent::Persistent(handle) => {
                let area = PublicArea::parse(&self.sapi.read_public(handle)?)?;
                self.start_session(Some((handle, &area)))
            }
            Parent::OwnerPrimary => {
                let (primary, public) = self.sapi.create_primary(template::storage_primary()?)?;
                let started = PublicArea::parse(&public).and_then(|area| self.start_session(Some((primary, &area))));
                self.sapi.flush_context(primary)?;
                started
            }
        }
    }

    fn flush_key(&mut self) -> Result<()> {
        match self.key.take().map(|key| self.sapi.flush_context(key.handle)) {
            Some(Err(error)) if !response::is_gone(&error) => Err(error),
            _ => Ok(()),
        }
    }
}
