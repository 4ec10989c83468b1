//! One token: its PINs, its objects, its keys.

mod adopt;
mod keys;
mod named;
mod pins;
mod placement;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use zeroize::Zeroizing;

use crate::algorithm::{CipherMode, Curve, HashAlgorithm};
use crate::error::{Error, Result};
use crate::key::KeyPlace;
use crate::log::{self, Topic};
use crate::mutex::Mutex;
use crate::object::{Object, ObjectId, Part, Query};
use crate::process::PerProcess;
use crate::store::{Stamp, TokenDirectory, TokenFile, UserSecret};
use crate::sweep;
use crate::tpm::{Srk, Tpm};

pub(crate) use adopt::certificate;
use pins::Login;

pub use crate::auth::PIN_LENGTH;
pub use crate::tpm::PinTries;

/// Longest label of a token, in bytes (PKCS#11 3.1, 3.2 `CK_TOKEN_INFO`).
pub const LABEL_LENGTH: usize = 32;

/// What the description of a token's key begins with; serial and object follow, with a slash between.
pub(crate) const DESCRIPTION: &str = "keyrivet:";

/// Who logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// The security officer.
    SecurityOfficer,
    /// The user.
    User,
}

/// The state of a token's user PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserPin {
    /// The security officer has set none yet.
    NotInitialized,
    /// Empty: the token needs no login.
    Empty,
    /// Set.
    Set,
}

/// What a token knows about itself, recorded when it was made.
#[derive(Clone, Debug)]
pub struct TokenInfo {
    /// 16 hexadecimal digits, unique.
    pub serial: String,
    /// Its label, at most [`LABEL_LENGTH`] bytes.
    pub label: String,
    /// Its slot.
    pub slot: u32,
    /// The TPM's manufacturer, e.g. `IBM`.
    pub manufacturer: String,
    /// The TPM's model (its vendor string), at most 16 characters.
    pub model: String,
    /// The TPM's specification revision: major and minor.
    pub hardware_version: (u8, u8),
    /// The TPM's firmware version: major and minor, at most 255 each.
    pub firmware_version: (u8, u8),
    /// The user PIN's state.
    pub user_pin: UserPin,
    /// RSA key sizes that the TPM offers, in bits.
    pub rsa_bits: Vec<u16>,
    /// Curves that the TPM offers.
    pub curves: Vec<Curve>,
    /// Hashes that the TPM can sign with.
    pub hashes: Vec<HashAlgorithm>,
    /// AES key sizes that the TPM offers, in bits.
    pub aes_bits: Vec<u16>,
    /// Modes in which it lets them be used.
    pub cipher_modes: Vec<CipherMode>,
    /// Hashes of which it makes HMACs.
    pub mac_hashes: Vec<HashAlgorithm>,
    /// SHA-1 digests may be signed, by configuration.
    pub sha1_signatures: bool,
}

/// One token: its PINs, its objects, its keys.
pub struct Token {
    tpm: Tpm,
    directory: TokenDirectory,
    file: ArcSwap<TokenFile>,
    /// What of it others may know.
    info: ArcSwap<TokenInfo>,
    /// Held while the token's file is read or written, and until `file` says what it said: nothing older comes after it.
    renewing: PerProcess<Mutex<()>>,
    /// Read without a lock, so that a forked child can always read it.
    login: ArcSwapOption<Login>,
    tries: ArcSwap<PinTries>,
    /// Objects as parsed from a version of their file.
    cache: PerProcess<Mutex<Cache>>,
    /// Handles that could not be adopted, and when that was tried.
    not_adopted: PerProcess<Mutex<HashMap<u32, Instant>>>,
}

type Cache = HashMap<ObjectId, Cached>;

struct Cached {
    stamp: Stamp,
    object: Arc<Object>,
    /// Where its private key is, once that was asked for.
    place: Option<Arc<KeyPlace>>,
}

impl TokenInfo {
    fn new(file: &TokenFile, tpm: &Tpm) -> Self {
        Self {
            serial: file.serial.clone(),
            label: file.label.clone(),
            slot: file.slot,
            manufacturer: file.manufacturer.clone(),
            model: file.model.clone(),
            hardware_version: file.hardware_version,
            firmware_version: file.firmware_version,
            user_pin: file.user_pin(),
            rsa_bits: file.rsa_bits.clone(),
            curves: file.curves.clone(),
            hashes: file.hashes.clone(),
            aes_bits: file.aes_bits.clone(),
            cipher_modes: file.cipher_modes.clone(),
            mac_hashes: file.mac_hashes.clone(),
            sha1_signatures: tpm.config().sha1_signatures,
        }
    }
}

impl Token {
    pub(crate) fn new(tpm: Tpm, directory: TokenDirectory, file: TokenFile) -> Self {
        Self {
            info: ArcSwap::from_pointee(TokenInfo::new(&file, &tpm)),
            tpm,
            directory,
            file: ArcSwap::from_pointee(file),
            renewing: PerProcess::new(),
            login: ArcSwapOption::empty(),
            tries: ArcSwap::from_pointee(PinTries::default()),
            cache: PerProcess::new(),
            not_adopted: PerProcess::new(),
        }
    }

    /// What it knows about itself, as last read from the store.
    pub fn info(&self) -> Arc<TokenInfo> {
        self.info.load_full()
    }

    /// Whether its TPM has this hash.
    pub(crate) fn has_hash(&self, hash: HashAlgorithm) -> bool {
        self.file.load().hashes.contains(&hash)
    }

    /// Takes what the store says now.
    pub(crate) fn reread(&self) -> Result<TokenFile> {
        let _renewing = self.renewing.get().lock();
        let file = self.directory.read_token()?;
        self.take(file.clone());
        Ok(file)
    }

    fn write(&self, file: TokenFile) -> Result<()> {
        let _renewing = self.renewing.get().lock();
        self.directory.write_token(&file)?;
        self.take(file);
        Ok(())
    }

    fn take(&self, file: TokenFile) {
        self.info.store(Arc::new(TokenInfo::new(&file, &self.tpm)));
        self.file.store(Arc::new(file));
    }

    fn damaged(&self, reason: &str) -> Error {
        Error::ObjectCorrupt { path: self.directory.path().to_owned(), reason: reason.into() }
    }

    pub(crate) fn srk(&self) -> Result<Srk> {
        Srk::from_public(self.file.load().srk.clone())
    }
}

/// Objects. PINs and login are in `pins`, how keys come to be in `keys`, what is adopted in `adopt`, persistent places in
/// `placement`.
impl Token {
    /// Every object that may match: a cheap pre-selection, to be compared in full by the caller.
    ///
    /// Costs no TPM command. Damaged files are left out, and logged.
    pub fn find(&self, query: &Query) -> Result<Vec<Arc<Object>>> {
        let readable = |id| match self.object(id) {
            Ok(object) => Some(object),
            // Gone since the index was read.
            Err(Error::NotFound(_)) => None,
            Err(error) => {
                log::write(Topic::Error, format_args!("{error}"));
                None
            }
        };
        Ok(self.directory.candidates(query)?.into_iter().filter_map(readable).collect())
    }

    /// What [`Self::find`] passed over, whatever it looked for: why each of these objects cannot be read.
    pub fn unreadable_objects(&self) -> Result<Vec<Error>> {
        let ids = self.directory.candidates(&Query::default())?;
        let errors = ids.into_iter().filter_map(|id| self.object(id).err());
        Ok(errors.filter(|error| !matches!(error, Error::NotFound(_))).collect())
    }

    /// One object, as it is in the store now.
    pub fn object(&self, id: ObjectId) -> Result<Arc<Object>> {
        let stamp = self.directory.stamp(id).inspect_err(|_| self.forget(id))?;
        if let Some(cached) = self.cache.get().lock().get(&id) {
            if cached.stamp == stamp {
                return Ok(cached.object.clone());
            }
        }
        let object = Arc::new(self.directory.read(id)?);
        let mut cache = self.cache.get().lock();
        let _ = sweep::before_growth(&mut cache, |id, _| self.holds(*id));
        cache.insert(id, Cached { stamp, object: object.clone(), place: None });
        Ok(object)
    }

    /// Whether an object is in the store, unless that cannot be seen.
    pub fn holds(&self, id: ObjectId) -> bool {
        !matches!(self.directory.stamp(id), Err(Error::NotFound(_)))
    }

    /// Keeps nothing of an object that is gone.
    fn forget(&self, id: ObjectId) {
        let _ = self.cache.get().lock().remove(&id);
    }

    /// Where the private key of an object is: what is worked out once for as long as the object stays as it is.
    pub(crate) fn place_of(&self, object: &Object, make: impl FnOnce() -> Result<KeyPlace>) -> Result<Arc<KeyPlace>> {
        let is_it = |cached: &Cached| std::ptr::eq(&*cached.object, object);
        let cached =
            self.cache.get().lock().get(&object.id).filter(|cached| is_it(cached)).and_then(|it| it.place.clone());
        if let Some(place) = cached {
            return Ok(place);
        }
        // Another process may have made the token anew, and this key after it: that is seen before a secret of before is tried
        // on the key, which the TPM would count.
        let _ = self.reread();
        let place = Arc::new(make()?);
        if let Some(cached) = self.cache.get().lock().get_mut(&object.id).filter(|cached| is_it(cached)) {
            cached.place = Some(place.clone());
        }
        Ok(place)
    }

    /// Stores a new object, durably.
    pub fn insert(&self, object: &Object) -> Result<()> {
        let _lock = self.directory.lock()?;
        self.require_current(&self.reread()?, object.wrapped_key())?;
        self.directory.write(object)
    }

    /// Changes an object, under the store's lock.
    pub fn update(&self, id: ObjectId, change: &mut dyn FnMut(&mut Object) -> Result<()>) -> Result<()> {
        let _lock = self.directory.lock()?;
        let mut object = self.directory.read(id)?;
        change(&mut object)?;
        self.directory.write(&object)
    }

    /// Destroys one part of an object; its file goes with the last part.
    pub fn destroy(&self, id: ObjectId, part: Part) -> Result<()> {
        let _lock = self.directory.lock()?;
        let object = self.directory.read(id)?;
        if object.attributes(part).is_none() {
            return Err(Error::NotFound(format!("object {id}")));
        }
        if part == Part::PrivateKey {
            self.displace(&object)?;
        }
        match object.without(part) {
            Some(rest) => self.directory.write(&rest),
            None => self.directory.remove(id).inspect(|()| self.forget(id)),
        }
    }

    /// Encrypts the value of a private data object under the token's secret.
    ///
    /// Errors: [`Error::Unsupported`] on tokens without a PIN, which have no secret from anybody.
    pub fn seal_data(&self, id: ObjectId, clear: &[u8]) -> Result<Vec<u8>> {
        if self.reread()?.user_pin() == UserPin::Empty {
            return Err(Error::Unsupported(
                "private data, or a key's authorisation value, on a token without a PIN: use a token with one".into(),
            ));
        }
        self.with_secret(|secret| crate::sealed_data::seal(&secret.data_key(id), id, clear))?
    }

    /// Decrypts it.
    pub fn open_data(&self, id: ObjectId, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        if let Some(clear) = self.with_secret(|secret| crate::sealed_data::open(&secret.data_key(id), id, sealed))? {
            return Ok(clear);
        }
        self.require_current_login()?;
        Err(self.damaged(&format!("data object {id} does not decrypt")))
    }

    pub(crate) fn object_path(&self, id: ObjectId) -> std::path::PathBuf {
        self.directory.object_path(id)
    }

    fn has_keys(&self) -> Result<bool> {
        for part in [Part::PrivateKey, Part::SecretKey] {
            let found = self.find(&Query { part: Some(part), ..Query::default() })?;
            if found.iter().any(|object| object.attributes(part).is_some()) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl TokenFile {
    fn user_pin(&self) -> UserPin {
        match self.user {
            UserSecret::NotInitialized => UserPin::NotInitialized,
            UserSecret::Empty => UserPin::Empty,
            UserSecret::Set(_) => UserPin::Set,
        }
    }
}

/// Checks the length of a label that is to be set.
pub(crate) fn check_label(label: &str) -> Result<()> {
    if label.len() <= LABEL_LENGTH {
        Ok(())
    } else {
        Err(Error::DataInvalid(format!("a label has at most {LABEL_LENGTH} bytes")))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::Keyrivet;
    use crate::config::Config;

    /// A token of a store of its own, without a TPM; and its serial number.
    fn token() -> (tempfile::TempDir, Keyrivet, String) {
        let folder = tempfile::tempdir().unwrap();
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/pkcs11/seeds/store");
        let seed = std::fs::read_dir(seeds).unwrap().next().unwrap().unwrap();
        let serial = seed.file_name().into_string().unwrap();
        std::fs::create_dir(folder.path().join(&serial)).unwrap();
        std::fs::copy(seed.path().join("token.toml"), folder.path().join(&serial).join("token.toml")).unwrap();
        let store = folder.path().display().to_string();
        let config = Config::load_with(|key| (key == "store").then(|| store.clone())).unwrap();
        (folder, Keyrivet::open(config), serial)
    }

    #[test]
    fn what_one_thread_has_written_is_not_undone_by_what_others_had_read_before() {
        let (_folder, keyrivet, serial) = token();
        let token = keyrivet.token(&serial).unwrap();
        let done = AtomicBool::new(false);
        let mut undone = 0;
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        keyrivet.token(&serial).unwrap();
                    }
                });
            }
            for number in 0..50 {
                let label = number.to_string();
                token.write(TokenFile { label: label.clone(), ..(**token.file.load()).clone() }).unwrap();
                undone += (0..1000).filter(|_| token.info().label != label).count();
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(undone, 0);
    }

    #[test]
    fn a_token_whose_directory_is_gone_is_told_from_an_object_that_is() {
        let (folder, keyrivet, serial) = token();
        let token = keyrivet.token(&serial).unwrap();
        assert!(matches!(token.object(ObjectId::random().unwrap()), Err(Error::NotFound(_))));
        std::fs::remove_dir_all(folder.path().join(&serial)).unwrap();
        assert!(matches!(token.reread(), Err(Error::TokenNotFound(_))));
        assert!(matches!(token.directory.lock(), Err(Error::TokenNotFound(_))));
        assert!(matches!(token.find(&Query::default()), Err(Error::TokenNotFound(_))));
        assert!(matches!(keyrivet.token("0000000000000000"), Err(Error::TokenNotFound(_))));
    }
}
