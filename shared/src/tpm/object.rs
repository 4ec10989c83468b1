//! Objects at the TPM and how they come to be: the storage root key, sealed secrets, new and imported keys.

use tss_esapi::structures::Public;
use zeroize::Zeroizing;

use super::connection::Connection;
use super::sapi::{Auth, Created};
use super::session::session_attribute::{CONTINUE, DECRYPT, ENCRYPT};
use super::session::{Salt, SaltUse};
use super::{response, template};
use crate::algorithm::HashAlgorithm;
use crate::error::{Error, Result};
use crate::public_area::{PublicArea, object_attribute};
use crate::tss2_pem::Tss2Key;

/// The TCG's place for the storage root key (TPM 2.0 Provisioning Guidance, 7.8).
pub(crate) const SRK_HANDLE: u32 = 0x8100_0001;
/// `TPM_RH_OWNER`, in key files: the standard primary key of the owner hierarchy.
pub(crate) const OWNER: u32 = 0x4000_0001;
/// `TPM_RH_NULL`: the hierarchy whose authValue is empty, and whose keys last until the TPM restarts.
const NULL: u32 = 0x4000_0007;

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

    /// What sessions are salted to.
    pub(super) fn salt(&self) -> (u32, &PublicArea) {
        (SRK_HANDLE, &self.area)
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
    /// A hierarchy's standard primary key, made when it is needed.
    Primary {
        /// `TPM_RH_OWNER` and its likes.
        hierarchy: u32,
        /// The one of RSA, not of P-256.
        rsa: bool,
    },
}

impl Parent {
    /// `TPM_RH_OWNER`, `TPM_RH_NULL`, `TPM_RH_ENDORSEMENT`, `TPM_RH_PLATFORM` (TPM 2.0 Part 2, 7.4).
    const HIERARCHIES: [u32; 4] = [OWNER, NULL, 0x4000_000b, 0x4000_000c];

    pub(crate) fn from_handle(handle: u32, rsa: bool) -> Result<Self> {
        match handle {
            hierarchy if Self::HIERARCHIES.contains(&hierarchy) => Ok(Self::Primary { hierarchy, rsa }),
            0x8100_0000..=0x81ff_ffff => Ok(Self::Persistent(handle)),
            other => Err(Error::Unsupported(format!("keys under the parent 0x{other:x}"))),
        }
    }
}

/// A parent in the TPM.
pub(super) struct ReadyParent<'a> {
    pub(super) handle: u32,
    /// Known where sessions have to be salted to it.
    pub(super) area: Option<&'a PublicArea>,
    /// Its authValue; only with its public area if not empty.
    auth: &'a [u8],
}

/// The commands by which the owner makes the usual storage root key again.
fn storage_root_key_again() -> String {
    format!(
        "'tpm2_createprimary -C o -G ecc256 -c srk.ctx -a \
         \"fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt\"' and \
         'tpm2_evictcontrol -C o -c srk.ctx 0x{SRK_HANDLE:x}'"
    )
}

/// What a parent's refusal of its authorisation means.
fn refused_by_parent(error: Error, handle: u32) -> Error {
    if !response::is_authorisation_failure(&error) {
        return error;
    }
    Error::StorageRootKey(format!(
        "the parent 0x{handle:08x} of this key has another authorisation value: name a file with it in keyrivet.toml \
         ([[parent]], handle, auth_file)"
    ))
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

fn owner_has_auth(error: Error) -> Error {
    match response::is_authorisation_failure(&error) {
        true => Error::StorageRootKey(format!(
            "this TPM's owner has set an authorisation value, which keys need that come into the TPM for good, or leave it: \
             name a file with it in keyrivet.toml ([[parent]], handle = 0x{OWNER:x}, auth_file)"
        )),
        false => error,
    }
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
        let (transient, public) = self
            .sapi
            .create_primary(OWNER, &mut Auth::Empty, &template::storage_primary(false)?)
            .map_err(|error| match response::is_authorisation_failure(&error) {
                true => advice("this TPM's owner has set an authorisation value"),
                false => error,
            })?;
        // Its Name counts in sessions only.
        let persisted = self.sapi.evict_control((transient, &[]), &mut Auth::Empty, SRK_HANDLE);
        match self.sapi.flush_after(transient, persisted) {
            Ok(()) => Srk::from_public(public),
            // Another process was faster.
            Err(_) => self.find_srk()?.ok_or_else(|| advice("it cannot be stored there")),
        }
    }

    /// The marshalled `TPM2B_PUBLIC` of a persistent key. Errors: [`Error::NotFound`].
    pub(crate) fn read_persistent(&mut self, handle: u32) -> Result<Vec<u8>> {
        self.sapi.read_public(handle).map_err(|error| match response::is_missing_handle(&error) {
            true => Error::NotFound(format!("a key at 0x{handle:08x}")),
            false => error,
        })
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
        match self.diagnose_srk(srk, what) {
            Ok(None) => damaged(),
            Ok(Some(wrong)) => wrong,
            Err(_) => error,
        }
    }

    /// What is wrong with the pinned `srk`'s handle: another key is there, or none; `None` if nothing is, by what the TPM says.
    fn diagnose_srk(&mut self, srk: &Srk, what: &str) -> Result<Option<Error>> {
        Ok(match self.find_srk()? {
            Some(found) if found.area.name == srk.area.name => None,
            Some(_) => Some(Error::TpmReplaced { what: what.into() }),
            None => Some(self.diagnose_absence(srk, what)),
        })
    }

    /// What it means that there is no storage root key any more: the TPM was cleared, or somebody has removed just that. Then it
    /// can be made again, unless it was made by another template than the usual one.
    fn diagnose_absence(&mut self, srk: &Srk, what: &str) -> Error {
        let template = template::storage_primary(false);
        match template.and_then(|template| self.create_parent(OWNER, &[], &template)) {
            Ok((handle, public)) => {
                let _ = self.sapi.flush_context(handle);
                if PublicArea::parse(&public).is_ok_and(|area| area.name == srk.area.name) {
                    return Error::StorageRootKey(format!(
                        "the storage root key of {what} was removed from 0x{SRK_HANDLE:x}: put it there again by {}",
                        storage_root_key_again()
                    ));
                }
            }
            Err(error) if response::is_transport_failure(&error) => return error,
            Err(_) => {}
        }
        Error::TpmReplaced { what: what.into() }
    }

    /// What a failed load of a key file means: nothing is where its parent was, or it belongs to another TPM. A key file knows no more
    /// of its parent than the handle.
    pub(crate) fn diagnose_key_file(&mut self, parent: Parent, error: Error) -> Error {
        if !response::is_not_ours(&error) {
            return error;
        }
        if let Parent::Persistent(handle) = parent {
            match self.read_persistent(handle) {
                Err(Error::NotFound(_)) => {
                    let how = match handle {
                        SRK_HANDLE => format!(" (the usual one by {})", storage_root_key_again()),
                        _ => String::new(),
                    };
                    return Error::StorageRootKey(format!(
                        "nothing is at 0x{handle:08x}, where the parent of this key file was: if somebody has removed it, the key works \
                         again once the same one is made there again{how}; if this is another TPM, or it was cleared since, the key is gone"
                    ));
                }
                Err(_) => return error,
                Ok(_) => {}
            }
        }
        Error::TpmReplaced { what: "this key file".into() }
    }

    /// What a failed creation under the pinned `srk` means: another TPM, or a storage root key that we cannot use.
    pub(crate) fn diagnose_create(&mut self, srk: &Srk, error: Error, what: &str) -> Error {
        let refused = response::is_authorisation_failure(&error);
        if !refused && !response::is_not_ours(&error) {
            return error;
        }
        match self.diagnose_srk(srk, what) {
            Ok(None) if refused => Error::StorageRootKey(format!(
                "the storage root key at 0x{SRK_HANDLE:x} has an authorisation value, which unattended use cannot give"
            )),
            Ok(Some(wrong)) => wrong,
            Ok(None) | Err(_) => error,
        }
    }

    /// Seals `secret` under `auth_value`; neither crosses the bus in the clear.
    pub(crate) fn seal(&mut self, srk: &Srk, auth_value: &[u8], secret: &[u8]) -> Result<Sealed> {
        self.flush_key()?;
        self.start_session(Some(srk.salt()))?;
        let template = template::sealed()?;
        let Created { public, private, .. } = self.authorised(&[], CONTINUE | DECRYPT, |sapi, auth| {
            sapi.create(srk.named(), auth, &template, auth_value, secret)
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
        self.start_session(Some(srk.salt()))?;
        let handle = self.sapi.load(srk.named(), &mut Auth::Empty, &sealed.public, &sealed.private)?;
        let name = sealed.name();
        let result =
            self.authorised(auth_value, CONTINUE | attributes, |sapi, auth| command(sapi, (handle, &name), auth));
        let result = result.map_err(|error| match response::is_authorisation_failure(&error) {
            true => Error::PinIncorrect,
            false => error,
        });
        self.sapi.flush_after(handle, result)
    }

    /// Makes an object under `parent`, by a template, with this authValue. The object is a key: the TPM makes it.
    pub(crate) fn create(
        &mut self,
        (parent, parent_auth): (Parent, &[u8]),
        template: &Public,
        auth_value: &[u8],
    ) -> Result<Created> {
        self.flush_key()?;
        self.with_parent(parent, parent_auth, !auth_value.is_empty(), |tpm, parent| {
            tpm.under(parent, DECRYPT, |sapi, named, auth| sapi.create(named, auth, template, auth_value, &[]))
        })
    }

    /// As [`Self::create`], under the pinned `srk`, and by a session salted to it: nobody else can have made the key that comes
    /// back. Without an authValue nothing that follows would use the session, which ends with the command.
    pub(crate) fn create_under_srk(&mut self, srk: &Srk, template: &Public, auth_value: &[u8]) -> Result<Created> {
        self.flush_key()?;
        // Another key there would refuse the session's HMAC, and might count that as a wrong PIN, which tokens without PIN never cost.
        if auth_value.is_empty() {
            self.require_srk(srk)?;
        }
        let stays = !auth_value.is_empty() || self.holds_session_salted_to(&srk.area);
        self.start_session(Some(srk.salt()))?;
        let attributes = if stays { CONTINUE | DECRYPT } else { DECRYPT };
        let created =
            self.authorised(&[], attributes, |sapi, auth| sapi.create(srk.named(), auth, template, auth_value, &[]))?;
        match created.parent_name == srk.area.name {
            true => Ok(created),
            false => Err(Error::TpmReplaced { what: "this token".into() }),
        }
    }

    fn require_srk(&mut self, srk: &Srk) -> Result<()> {
        self.diagnose_srk(srk, "this token")?.map_or(Ok(()), Err)
    }

    /// Takes an object made outside under `srk`: `sensitive` is its `TPMT_SENSITIVE`. Returns its `TPM2B_PRIVATE`.
    ///
    /// It crosses the bus encrypted to the pinned key, so another key at the handle can do nothing with it.
    pub(crate) fn import(&mut self, srk: &Srk, public: &[u8], sensitive: &[u8]) -> Result<Vec<u8>> {
        self.flush_key()?;
        let seed = Salt::new(&srk.area, SaltUse::Import)?;
        let name = PublicArea::parse(public)?.name;
        let duplicate = seed.wrap(&srk.area, &name, sensitive)?;
        self.sapi.import(srk.named(), &mut Auth::Empty, public, &duplicate, &seed.encrypted)
    }

    /// Whether the key called `name` is at a persistent handle.
    pub(crate) fn holds(&mut self, handle: u32, name: &[u8]) -> Result<bool> {
        match self.sapi.read_public(handle) {
            Ok(public) => Ok(PublicArea::parse(&public).is_ok_and(|area| area.name == name)),
            Err(error) if response::is_missing_handle(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Puts a wrapped key at a persistent handle. Says whether it is there now, or something else is. Errors: [`Error::TpmFull`].
    pub(crate) fn place(&mut self, srk: &Srk, key: &Tss2Key, handle: u32, owner: &[u8]) -> Result<bool> {
        self.flush_key()?;
        let name = key.public_area()?.name;
        let transient = self.sapi.load(srk.named(), &mut Auth::Empty, &key.public, &key.private)?;
        let placed = self.evict(srk, (transient, &name), handle, owner);
        match self.sapi.flush_after(transient, placed) {
            Ok(()) => Ok(true),
            // It may be this key: over a connection that broke, the first answer was lost.
            Err(error) if response::is_taken(&error) => self.holds(handle, &name),
            Err(error) if response::is_full(&error) => Err(Error::TpmFull),
            Err(error) if response::is_authorisation_failure(&error) => Err(owner_has_auth(error)),
            Err(error) => Err(error),
        }
    }

    /// Removes the key called `name` from a persistent handle, if it is there.
    pub(crate) fn displace(&mut self, srk: &Srk, handle: u32, name: &[u8], owner: &[u8]) -> Result<()> {
        if !self.holds(handle, name)? {
            return Ok(());
        }
        self.flush_key()?;
        self.evict(srk, (handle, name), handle, owner).map_err(owner_has_auth)
    }

    /// `TPM2_EvictControl`, authorised by the owner's authValue: by a session salted to the pinned `srk`, as with another key
    /// whoever has that could try authValues against the HMAC.
    fn evict(&mut self, srk: &Srk, object: (u32, &[u8]), persistent: u32, owner: &[u8]) -> Result<()> {
        if owner.is_empty() {
            return self.sapi.evict_control(object, &mut Auth::Empty, persistent);
        }
        self.require_srk(srk)?;
        self.start_session(Some(srk.salt()))?;
        self.authorised(owner, CONTINUE, |sapi, auth| sapi.evict_control(object, auth, persistent))
    }

    /// Does something under a parent; with its public area where that is `wanted`, or needed for its authValue.
    pub(super) fn with_parent<T>(
        &mut self,
        parent: Parent,
        auth: &[u8],
        wanted: bool,
        operation: impl FnOnce(&mut Self, &ReadyParent<'_>) -> Result<T>,
    ) -> Result<T> {
        match parent {
            Parent::Persistent(handle) if !wanted && auth.is_empty() => {
                operation(self, &ReadyParent { handle, area: None, auth })
            }
            Parent::Persistent(handle) => {
                let area = PublicArea::parse(&self.sapi.read_public(handle)?)?;
                operation(self, &ReadyParent { handle, area: Some(&area), auth })
            }
            Parent::Primary { hierarchy, rsa } => {
                let (handle, public) = self.create_parent(hierarchy, auth, &template::storage_primary(rsa)?)?;
                let result = match wanted {
                    true => PublicArea::parse(&public)
                        .and_then(|area| operation(self, &ReadyParent { handle, area: Some(&area), auth: &[] })),
                    false => operation(self, &ReadyParent { handle, area: None, auth: &[] }),
                };
                self.sapi.flush_after(handle, result)
            }
        }
    }

    fn create_parent(&mut self, hierarchy: u32, auth: &[u8], template: &Public) -> Result<(u32, Vec<u8>)> {
        let made = if auth.is_empty() {
            self.sapi.create_primary(hierarchy, &mut Auth::Empty, template)
        } else {
            self.salt_to_srk(true)?;
            self.authorised(auth, CONTINUE, |sapi, auth| sapi.create_primary(hierarchy, auth, template))
        };
        made.map_err(|error| refused_by_parent(error, hierarchy))
    }

    /// Runs a command on a parent, authorised by its authValue. `protected` are the session's attributes that keep
    /// parameters off the bus, where there is one.
    pub(super) fn under<T>(
        &mut self,
        parent: &ReadyParent<'_>,
        protected: u8,
        command: impl FnOnce(&mut super::sapi::Sapi, (u32, &[u8]), &mut Auth<'_>) -> Result<T>,
    ) -> Result<T> {
        let result = match parent.area {
            None => command(&mut self.sapi, (parent.handle, &[]), &mut Auth::Empty),
            Some(area) => {
                self.start_session(Some((parent.handle, area)))?;
                let named = (parent.handle, area.name.as_slice());
                self.authorised(parent.auth, CONTINUE | protected, |sapi, auth| command(sapi, named, auth))
            }
        };
        result.map_err(|error| refused_by_parent(error, parent.handle))
    }

    /// Does something with a key to salt sessions to: the storage root key, or, where there is none, one that is made for it.
    pub(super) fn with_salt_key<T>(
        &mut self,
        operation: impl FnOnce(&mut Self, (u32, &PublicArea)) -> Result<T>,
    ) -> Result<T> {
        if let Some(srk) = self.find_srk()? {
            return operation(self, srk.salt());
        }
        let (handle, public) = self.create_parent(NULL, &[], &template::storage_primary(false)?)?;
        let result = PublicArea::parse(&public).and_then(|area| operation(self, (handle, &area)));
        self.sapi.flush_after(handle, result)
    }

    pub(super) fn flush_key(&mut self) -> Result<()> {
        match self.key.take().and_then(|key| key.transient()).map(|handle| self.sapi.flush_context(handle)) {
            Some(Err(error)) if !response::is_gone(&error) => Err(error),
            _ => Ok(()),
        }
    }
}
