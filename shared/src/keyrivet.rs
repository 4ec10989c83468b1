//! The facade: open, find tokens, make them, take and make key files.

use std::collections::HashMap;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::algorithm::KeySpec;
use crate::auth::{self, TokenSecret};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::key::{Key, KeyPlace, Owner, TpmKey};
use crate::log::{self, Topic};
use crate::mutex::Mutex;
use crate::object::KeyMaterial;
use crate::policy::PcrPolicy;
use crate::process::PerProcess;
use crate::random;
use crate::serialized::Serialized;
use crate::store::{Store, TokenFile, UserSecret};
use crate::token::{self, DESCRIPTION, Token, check_label};
use crate::tpm::{self, Parent, Tpm, template};
use crate::tss2_pem::Tss2Key;

/// As long as the hash by which keys of ours are named: the most that TPM2_Create takes.
const LONGEST_AUTH_VALUE: usize = 32;

/// A process's way to its tokens and its TPM. Cheap to clone; opening it touches neither.
#[derive(Clone)]
pub struct Keyrivet {
    shared: Arc<Shared>,
}

struct Shared {
    config: Arc<Config>,
    store: Store,
    tpm: Tpm,
    /// The tokens seen so far, so that each has one login state.
    tokens: PerProcess<Mutex<HashMap<String, Arc<Token>>>>,
}

impl Keyrivet {
    /// Opens the store and the TPM that `config` names, without touching either.
    pub fn open(config: Config) -> Self {
        let config = Arc::new(config);
        let (store, tpm) = (Store::new(config.store.clone(), config.patience), Tpm::new(config.clone()));
        Self { shared: Arc::new(Shared { config, store, tpm, tokens: PerProcess::new() }) }
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    pub(crate) fn tpm(&self) -> &Tpm {
        &self.shared.tpm
    }

    /// Every token of the store, in the order of their slots. Costs no TPM command.
    ///
    /// A token is the same `Arc` each time, with its one login state. Damaged tokens are left out, and logged.
    pub fn tokens(&self) -> Result<Vec<Arc<Token>>> {
        let mut tokens: Vec<_> =
            self.shared.store.serials()?.iter().filter_map(|serial| self.readable(serial)).collect();
        tokens.sort_by_key(|token| (token.info().slot, token.info().serial.clone()));
        Ok(tokens)
    }

    /// What [`Self::tokens`] passed over: why each of these tokens cannot be read.
    pub fn unreadable_tokens(&self) -> Vec<Error> {
        let serials = self.shared.store.serials().unwrap_or_default();
        serials.iter().filter_map(|serial| self.token(serial).err()).collect()
    }

    fn readable(&self, serial: &str) -> Option<Arc<Token>> {
        self.token(serial).map_err(|error| log::write(Topic::Error, format_args!("{error}"))).ok()
    }

    /// The token with this serial number, as it is in the store now.
    pub fn token(&self, serial: &str) -> Result<Arc<Token>> {
        let serial = serial.to_ascii_lowercase();
        if serial.len() != 16 || crate::hex::decode(&serial).is_none() {
            return Err(Error::TokenNotFound(format!("token {serial}")));
        }
        let mut tokens = self.shared.tokens.get().lock();
        if let Some(token) = tokens.get(&serial).cloned() {
            drop(tokens);
            token.reread()?;
            return Ok(token);
        }
        let directory = self.shared.store.token(&serial);
        let file = directory.read_token()?;
        let token = Arc::new(Token::new(self.tpm().clone(), directory, file));
        tokens.insert(serial, token.clone());
        drop(tokens);
        // Nobody logs in to a token without a PIN.
        if token.is_open() {
            token.adopt_configured();
        }
        Ok(token)
    }

    /// The slot that the next new token takes: one more than the last of [`Self::tokens`].
    pub fn free_slot(&self, tokens: &[Arc<Token>]) -> Result<u32> {
        let after_last = tokens.last().map_or(0, |token| token.info().slot.saturating_add(1));
        // Slots are dense, so counting covers damaged tokens, whose slots cannot be read.
        let count = u32::try_from(self.shared.store.serials()?.len()).unwrap_or(u32::MAX);
        Ok(after_last.max(count))
    }

    /// Makes a token in the free slot; its user PIN is to be set by [`Token::init_pin`]. `label` has at most
    /// [`LABEL_LENGTH`](crate::token::LABEL_LENGTH) bytes.
    ///
    /// Provides the storage root key where the TPM has none yet.
    /// Errors: [`Error::NotFound`] if `slot` is not the free one, or not any more.
    pub fn create_token(&self, slot: u32, label: &str, so_pin: &[u8]) -> Result<Arc<Token>> {
        check_label(label)?;
        auth::check_new_pin(so_pin)?;
        let _wiped = auth::StackWiped;
        self.require_free(slot)?;
        let (mut serial, mut salt) = ([0; 8], vec![0; 16]);
        random::fill(&mut serial)?;
        random::fill(&mut salt)?;
        let secret = TokenSecret::random()?;
        let pin = auth::pin_auth(so_pin, &salt);
        let (srk, capabilities, sealed) = self.tpm().with(|connection| {
            let srk = connection.provide_srk()?;
            let capabilities = tpm::read_capabilities(connection)?;
            let sealed = connection
                .seal(&srk, &pin, secret.as_bytes())
                .map_err(|error| connection.diagnose_create(&srk, error, "this token"))?;
            Ok((srk, capabilities, sealed))
        })?;
        let _lock = self.shared.store.lock()?;
        self.require_free(slot)?;
        let file = TokenFile {
            serial: crate::hex::encode(&serial),
            label: label.into(),
            slot,
            manufacturer: capabilities.manufacturer,
            model: capabilities.model,
            hardware_version: capabilities.hardware_version,
            firmware_version: capabilities.firmware_version,
            rsa_bits: capabilities.rsa_bits,
            curves: capabilities.curves,
            hashes: capabilities.hashes,
            aes_bits: capabilities.aes_bits,
            cipher_modes: capabilities.cipher_modes,
            mac_hashes: capabilities.mac_hashes,
            srk: srk.public,
            salt,
            security_officer: sealed.into(),
            user: UserSecret::NotInitialized,
        };
        self.shared.store.add_token(&file)?;
        self.token(&file.serial)
    }

    fn require_free(&self, slot: u32) -> Result<()> {
        match self.free_slot(&self.tokens()?)? {
            free if free == slot => Ok(()),
            free => Err(Error::NotFound(format!("a free slot {slot} (it is {free} now)"))),
        }
    }

    /// A key from a key file. Costs no TPM command: it is loaded at its first use.
    ///
    /// The file of a token with a PIN names its token: the key then needs that token's login ([`Key::token`]).
    pub fn key_from_tss2(&self, key: &Tss2Key) -> Result<Key> {
        match key.description.as_deref().and_then(|text| text.strip_prefix(DESCRIPTION)) {
            Some(owner) if !key.empty_auth => {
                let (serial, object) = owner.split_once('/').unwrap_or((owner, ""));
                let token = self.token(serial).map_err(|error| match error {
                    Error::TokenNotFound(_) => {
                        Error::TokenNotFound(format!("token {serial}, which this key file belongs to,"))
                    }
                    other => other,
                })?;
                let material = KeyMaterial::Wrapped(key.clone());
                let place = Arc::new(KeyPlace::of(&material)?);
                Key::of_token(self.tpm().clone(), &material, place, token, object.parse()?)
            }
            _ => {
                let owner = if key.empty_auth { Owner::Nobody } else { Owner::Anybody(None) };
                Key::new(TpmKey::wrapped(self.tpm().clone(), key.clone(), owner)?)
            }
        }
    }

    /// A persistent key. Costs one TPM command, which reads its public area.
    ///
    /// Its authValue is taken to be empty until [`Key::authorise`] gives another.
    pub fn key_from_handle(&self, handle: u32) -> Result<Key> {
        let public = self.tpm().with(|tpm| tpm.read_persistent(handle))?;
        Key::new(TpmKey::persistent(self.tpm().clone(), handle, &public, Owner::Nobody)?)
    }

    /// A key from what tpm2-tools write: a serialised handle (`tpm2_evictcontrol -o`) or a saved context (`-c`).
    pub fn key_from_object_file(&self, file: &[u8]) -> Result<Key> {
        let tpm = self.tpm().clone();
        Key::new(match Serialized::parse(file)? {
            Serialized::Handle(handle, public) => TpmKey::persistent(tpm, handle, &public, Owner::Nobody)?,
            Serialized::Context(context, public) => TpmKey::saved(tpm, context, &public, Owner::Nobody)?,
        })
    }

    /// What is in an NV index that anybody, or the owner without authValue, may read.
    pub fn nv_content(&self, index: u32) -> Result<Vec<u8>> {
        self.tpm().with(|tpm| tpm::read_nv(tpm, index))
    }

    /// The DER of the certificate at the start of an NV index's content, which may be longer.
    pub fn certificate_in(&self, nv_content: &[u8]) -> Result<Vec<u8>> {
        token::certificate(nv_content)
    }

    /// Handles of the TPM's persistent objects.
    pub fn persistent_handles(&self) -> Result<Vec<u32>> {
        self.tpm().with(tpm::persistent_handles)
    }

    /// Makes a key for a key file, with this authorisation value (empty for none): under the parent that is named, else
    /// under the storage root key where there is one that the TPM's lockout spares (noDA), else under the standard primary key
    /// of the owner hierarchy.
    ///
    /// `parent` is a persistent handle or a hierarchy, with its authValue; the configuration may know that too.
    pub fn generate_tss2(
        &self,
        spec: KeySpec,
        authorisation: &[u8],
        parent: (Option<u32>, Option<&[u8]>),
        policy: Option<&PcrPolicy>,
    ) -> Result<Tss2Key> {
        let by_configuration = self.config().pcrs.clone().map(|pcrs| PcrPolicy { pcrs, digest: None });
        let policy = policy.or(by_configuration.as_ref());
        let has_value = !authorisation.is_empty();
        if authorisation.len() > LONGEST_AUTH_VALUE {
            return Err(Error::DataInvalid(format!("an authorisation value has at most {LONGEST_AUTH_VALUE} bytes")));
        }
        let (parent, parent_auth) = parent;
        let (parent, created, steps) = self.tpm().with(|tpm| {
            let (steps, digest) = policy.map(|policy| policy.steps(tpm, has_value)).transpose()?.unzip();
            let template = template::key(spec, digest.as_deref())?;
            let under = |tpm: &mut tpm::Connection, parent: u32| {
                let auth = match parent_auth {
                    Some(auth) => Zeroizing::new(auth.to_vec()),
                    None => self.config().parent_auth(parent)?,
                };
                let place = (Parent::from_handle(parent, false)?, auth.as_slice());
                Ok((parent, tpm.create(place, &template, authorisation)?))
            };
            let (parent, created) = match parent {
                Some(parent) => under(tpm, parent)?,
                None => match tpm.find_srk()? {
                    Some(_) if parent_auth.is_some() || !self.config().parent_auth(tpm::SRK_HANDLE)?.is_empty() => {
                        under(tpm, tpm::SRK_HANDLE)?
                    }
                    Some(srk) if srk.is_unattended() => {
                        let created = tpm
                            .create_under_srk(&srk, &template, authorisation)
                            .map_err(|error| tpm.diagnose_create(&srk, error, "this key"))?;
                        (tpm::SRK_HANDLE, created)
                    }
                    // Each power cut would count as a wrong try where the TPM counts those of the parent.
                    Some(_) => under(tpm, tpm::OWNER).map_err(|error| match error {
                        Error::StorageRootKey(reason) => Error::StorageRootKey(format!(
                            "{reason}; or make the key under 0x81000001 (-pkeyopt parent:0x81000001), which lacks noDA: each power cut \
                             counts as a wrong PIN then"
                        )),
                        other => other,
                    })?,
                    None => under(tpm, tpm::OWNER)?,
                },
            };
            Ok((parent, created, steps))
        })?;
        Ok(Tss2Key {
            empty_auth: !has_value,
            parent,
            public: created.public,
            private: created.private,
            description: None,
            policy: steps.unwrap_or_default(),
            auth_policy: Vec::new(),
            secret: None,
            rsa_parent: false,
        })
    }

    /// Fills `buffer` with random bytes of the system's generator, which the kernel seeds from the TPM too.
    pub fn random(&self, buffer: &mut [u8]) -> Result<()> {
        random::fill(buffer)
    }

    /// Fills `buffer` with the TPM's random bytes, to which the system's are added: neither the bus nor a weak generator
    /// on one side gives them away.
    pub fn tpm_random(&self, buffer: &mut [u8]) -> Result<()> {
        self.tpm().with(|tpm| tpm::read_random(tpm, buffer))?;
        let mut more = Zeroizing::new(vec![0; buffer.len()]);
        random::fill(&mut more)?;
        buffer.iter_mut().zip(more.iter()).for_each(|(byte, more)| *byte ^= more);
        Ok(())
    }

    /// Ends the burst: flushes and closes what is held at the TPM now, rather than some milliseconds later.
    pub fn release(&self) {
        self.tpm().release();
    }
}
