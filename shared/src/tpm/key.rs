//! Using keys at the TPM: loading, authorising, and what they do.

use zeroize::Zeroizing;

use super::connection::Connection;
use super::object::{Parent, Srk};
use super::response;
use super::sapi::{Auth, MAX_BUFFER, Sapi, SessionKind};
use super::session::session_attribute::{CONTINUE, DECRYPT, ENCRYPT};
use crate::algorithm::{CipherMode, Direction, HashAlgorithm, SignatureScheme};
use crate::error::{Error, Result};
use crate::policy::{PolicyStep, policy_command};
use crate::public_area::{FixedScheme, PublicArea};
use crate::public_key::PublicKey;
use crate::random;

/// What authorises the use of a key.
pub(crate) enum Authority {
    /// Its authValue is empty.
    Empty,
    /// A long random authValue, which no salt has to protect.
    Random(Zeroizing<Vec<u8>>),
    /// An authValue that somebody chose: the session is salted, to a key that is found in the TPM.
    Chosen(Zeroizing<Vec<u8>>),
    /// The same of a key that a token has adopted: the session is salted to the token's storage root key.
    Adopted(Zeroizing<Vec<u8>>, Srk),
}

impl Authority {
    fn value(&self) -> &[u8] {
        match self {
            Self::Empty => &[],
            Self::Random(value) | Self::Chosen(value) | Self::Adopted(value, _) => value,
        }
    }
}

/// A key to be used.
#[derive(Clone, Copy)]
pub(crate) struct UsableKey<'a> {
    pub(crate) place: Place<'a>,
    pub(crate) area: &'a PublicArea,
    /// What satisfies its policy, each by itself, tried in this order; empty for a key without one.
    pub(crate) policies: &'a [&'a [PolicyStep]],
}

/// Where a key is.
#[derive(Clone, Copy)]
pub(crate) enum Place<'a> {
    /// Outside, wrapped for its parent.
    Wrapped {
        parent: Parent,
        /// Of the parent; or, if that is a primary key, of its hierarchy.
        parent_auth: &'a [u8],
        /// `TPM2B_PUBLIC`, marshalled.
        public: &'a [u8],
        /// `TPM2B_PRIVATE`, marshalled.
        private: &'a [u8],
        /// With it the private part has to be imported first: the seed of an importable key.
        seed: Option<&'a [u8]>,
        /// The persistent handle at which it is too, unless somebody has removed it from there.
        placed: Option<u32>,
    },
    /// In the TPM for good.
    Persistent(u32),
    /// Saved by `TPM2_ContextSave`: a marshalled `TPMS_CONTEXT`.
    Saved(&'a [u8]),
}

impl Place<'_> {
    /// What tells keys apart that have the same public area: the same key imported twice has two authValues.
    fn private(&self) -> &[u8] {
        match self {
            Self::Wrapped { private, .. } => private,
            Self::Saved(context) => context,
            Self::Persistent(_) => &[],
        }
    }
}

/// The key that a connection keeps loaded.
pub(crate) struct LoadedKey {
    handle: u32,
    name: Vec<u8>,
    /// As it was given, wrapped.
    private: Vec<u8>,
}

impl LoadedKey {
    fn is(&self, key: &UsableKey<'_>) -> bool {
        self.name == key.area.name && self.private == key.place.private()
    }
}

impl LoadedKey {
    /// Its handle, if it must be flushed some time.
    pub(super) fn transient(&self) -> Option<u32> {
        Some(self.handle).filter(|handle| handle >> 24 == 0x80)
    }
}

/// A command on a key: it is given the key's handle and Name, and what authorises it.
type Command<'a, T> = &'a mut dyn FnMut(&mut Sapi, (u32, &[u8]), &mut Auth<'_>) -> Result<T>;

/// What keys do.
impl Connection {
    /// Signs a digest with a key.
    pub(crate) fn sign(
        &mut self,
        key: &UsableKey<'_>,
        authority: &Authority,
        scheme: SignatureScheme,
        digest: &[u8],
    ) -> Result<Vec<u8>> {
        let (hash, input, coordinate) = match (key.area.public_key()?, scheme) {
            (PublicKey::Ec { curve, .. }, SignatureScheme::Ecdsa) => {
                let hash = match key.area.scheme {
                    Some(FixedScheme::Ecdsa(hash)) => hash,
                    _ => curve.ecdsa_hash(),
                };
                let input = if hash == curve.ecdsa_hash() { curve.ecdsa_input(digest)? } else { digest.to_vec() };
                if input.len() != hash.digest_length() {
                    let only = format!("this digest by a key that was made for ECDSA with {} only", hash.name());
                    return Err(Error::Unsupported(only));
                }
                (hash, input, curve.coordinate_length())
            }
            (PublicKey::Rsa { .. }, SignatureScheme::RsaPkcs1(hash) | SignatureScheme::RsaPss { hash, .. }) => {
                (hash, digest.to_vec(), 0)
            }
            _ => return Err(Error::Unsupported("this signature scheme with this type of key".into())),
        };
        self.use_key(key, authority, 0, &mut |sapi, named, auth| {
            sapi.sign(named, auth, (scheme, hash), &input, coordinate)
        })
    }

    /// The bare RSA operation on a block as long as the modulus. Its result does not cross the bus in the clear if
    /// there is an authValue.
    pub(crate) fn rsa(
        &mut self,
        key: &UsableKey<'_>,
        authority: &Authority,
        block: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        self.use_key(key, authority, DECRYPT | ENCRYPT, &mut |sapi, named, auth| sapi.rsa_decrypt(named, auth, block))
    }

    /// The x coordinate that the key shares with another's point (`x`, `y`).
    pub(crate) fn ecdh(
        &mut self,
        key: &UsableKey<'_>,
        authority: &Authority,
        point: (&[u8], &[u8]),
    ) -> Result<Zeroizing<Vec<u8>>> {
        self.use_key(key, authority, ENCRYPT, &mut |sapi, named, auth| sapi.ecdh_z_gen(named, auth, point))
    }

    /// Data of any length through an AES key; `iv` becomes the one that goes on from there.
    pub(crate) fn cipher(
        &mut self,
        key: &UsableKey<'_>,
        authority: &Authority,
        how: (CipherMode, Direction),
        iv: &mut Vec<u8>,
        data: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        let mut output = Zeroizing::new(Vec::with_capacity(data.len()));
        for stretch in data.chunks(MAX_BUFFER) {
            let done = self.use_key(key, authority, DECRYPT | ENCRYPT, &mut |sapi, named, auth| {
                sapi.encrypt_decrypt(named, auth, how, iv, stretch)
            })?;
            output.extend_from_slice(&done);
        }
        Ok(output)
    }

    /// The HMAC of data of any length. Longer data goes through a sequence, which needs the key's slot.
    pub(crate) fn mac(
        &mut self,
        key: &UsableKey<'_>,
        authority: &Authority,
        hash: HashAlgorithm,
        data: &[u8],
    ) -> Result<Vec<u8>> {
        let (last, before) = match data.chunks(MAX_BUFFER).collect::<Vec<_>>().split_last() {
            None => (&[][..], Vec::new()),
            Some((last, before)) => (*last, before.to_vec()),
        };
        if before.is_empty() {
            return self.use_key(key, authority, 0, &mut |sapi, named, auth| sapi.hmac(named, auth, hash, last));
        }
        // With the key's authValue goes one for the sequence, or its commands would have no HMAC.
        let length = if authority.value().is_empty() { 0 } else { hash.digest_length() };
        let mut secret = Zeroizing::new(vec![0; length]);
        random::fill(&mut secret)?;
        // It is one use of the key, whose last command ends the session or does not.
        let goes_on = self.count_use();
        let sequence = self
            .use_key(key, authority, DECRYPT, &mut |sapi, named, auth| sapi.hmac_start(named, auth, hash, &secret))?;
        let mac = before
            .iter()
            .try_for_each(|part| {
                self.on_sequence(&secret, CONTINUE, |sapi, auth| sapi.sequence_update(sequence, auth, part))
            })
            .and_then(|()| {
                self.on_sequence(&secret, goes_on, |sapi, auth| sapi.sequence_complete(sequence, auth, hash, last))
            });
        if mac.is_err() {
            // It may be gone already: that is as good.
            let _ = self.sapi.flush_context(sequence);
        }
        mac
    }

    /// Runs a command on a sequence whose authValue is `secret`; `goes_on` is whether the session stays.
    fn on_sequence<T>(
        &mut self,
        secret: &[u8],
        goes_on: u8,
        command: impl FnOnce(&mut Sapi, &mut Auth<'_>) -> Result<T>,
    ) -> Result<T> {
        if secret.is_empty() {
            return command(&mut self.sapi, &mut Auth::Empty);
        }
        self.start_session(None)?;
        self.authorised(secret, goes_on, command)
    }
}

/// How they are loaded and authorised.
impl Connection {
    /// Runs a command on a key, which stays loaded for the next one. `protected` are the session's attributes that
    /// keep parameters off the bus.
    fn use_key<T>(
        &mut self,
        key: &UsableKey<'_>,
        authority: &Authority,
        protected: u8,
        command: Command<'_, T>,
    ) -> Result<T> {
        if !key.policies.is_empty() {
            return self.use_by_policy(key, authority, protected, command);
        }
        let salt = matches!(authority, Authority::Chosen(_));
        let handle = self.load_key(key, salt)?;
        let named = (handle, key.area.name.as_slice());
        let value = match authority {
            Authority::Empty => return command(&mut self.sapi, named, &mut Auth::Empty),
            Authority::Random(value) => {
                self.start_session(None)?;
                value
            }
            // `load_key` has salted the session.
            Authority::Chosen(value) => value,
            Authority::Adopted(value, srk) => {
                self.start_session(Some(srk.salt()))?;
                value
            }
        };
        let goes_on = self.count_use();
        self.authorised(value, protected | goes_on, |sapi, auth| command(sapi, named, auth))
    }

    /// Counts an authorised use; answers whether the session goes on after it ([`CONTINUE`] or 0).
    fn count_use(&mut self) -> u8 {
        self.authorised_uses += 1;
        if self.authorised_uses == 1 { 0 } else { CONTINUE }
    }

    /// Loads a key, unless it is the one that is loaded, or is there for good. With `salt`, a salted session is held
    /// after: salted to the parent, or where there is none that we know to the storage root key.
    fn load_key(&mut self, key: &UsableKey<'_>, salt: bool) -> Result<u32> {
        let loaded = self.key.as_ref().filter(|loaded| loaded.is(key)).map(|loaded| loaded.handle);
        match (key.place, loaded) {
            (Place::Persistent(handle), _) => {
                self.salt_to_srk(salt)?;
                Ok(handle)
            }
            (Place::Saved(_), Some(handle)) => {
                self.salt_to_srk(salt)?;
                Ok(handle)
            }
            (Place::Saved(saved), None) => {
                self.flush_key()?;
                self.salt_to_srk(salt)?;
                let handle = self.sapi.context_load(saved)?;
                Ok(self.keep(handle, key))
            }
            (Place::Wrapped { .. }, Some(handle)) if !salt || self.holds_salted_session() => Ok(handle),
            (Place::Wrapped { parent, parent_auth, .. }, Some(handle)) => {
                self.with_parent(parent, parent_auth, true, |tpm, parent| {
                    tpm.start_session(parent.area.map(|area| (parent.handle, area)))
                })?;
                Ok(handle)
            }
            (Place::Wrapped { placed: Some(handle), .. }, None) if self.holds(handle, &key.area.name)? => {
                self.flush_key()?;
                self.salt_to_srk(salt)?;
                Ok(self.keep(handle, key))
            }
            (Place::Wrapped { parent, parent_auth, public, private, seed, .. }, None) => {
                self.flush_key()?;
                let handle = self.with_parent(parent, parent_auth, salt, |tpm, parent| {
                    let Some(seed) = seed else {
                        return tpm.under(parent, 0, |sapi, named, auth| sapi.load(named, auth, public, private));
                    };
                    let duplicate = private.get(2..).unwrap_or_default();
                    let private =
                        tpm.under(parent, 0, |sapi, named, auth| sapi.import(named, auth, public, duplicate, seed))?;
                    tpm.under(parent, 0, |sapi, named, auth| sapi.load(named, auth, public, &private))
                })?;
                Ok(self.keep(handle, key))
            }
        }
    }

    fn keep(&mut self, handle: u32, key: &UsableKey<'_>) -> u32 {
        let (name, private) = (key.area.name.clone(), key.place.private().to_vec());
        self.key = Some(LoadedKey { handle, name, private });
        handle
    }

    pub(super) fn salt_to_srk(&mut self, salt: bool) -> Result<()> {
        if !salt || self.holds_salted_session() {
            return Ok(());
        }
        self.with_salt_key(|tpm, salt| tpm.start_session(Some(salt)))
    }

    /// Runs a command authorised by the first of the key's policies that holds.
    fn use_by_policy<T>(
        &mut self,
        key: &UsableKey<'_>,
        authority: &Authority,
        protected: u8,
        command: Command<'_, T>,
    ) -> Result<T> {
        let handle = self.load_key(key, false)?;
        let named = (handle, key.area.name.as_slice());
        let mut failed = Error::PolicyFailed("the key has no policy".into());
        for steps in key.policies {
            match self.use_by_steps(named, steps, authority, protected, command) {
                Err(error @ Error::PolicyFailed(_)) => failed = error,
                result => return result,
            }
        }
        Err(failed)
    }

    /// Runs a command authorised by a policy. Its session ends with it.
    fn use_by_steps<T>(
        &mut self,
        key: (u32, &[u8]),
        steps: &[PolicyStep],
        authority: &Authority,
        protected: u8,
        command: Command<'_, T>,
    ) -> Result<T> {
        let mut session = match authority {
            Authority::Chosen(_) => self.with_salt_key(|tpm, salt| tpm.new_session(SessionKind::Policy, Some(salt)))?,
            Authority::Adopted(_, srk) => self.new_session(SessionKind::Policy, Some(srk.salt()))?,
            Authority::Empty | Authority::Random(_) => self.new_session(SessionKind::Policy, None)?,
        };
        let asks =
            steps.iter().any(|step| matches!(step.command, policy_command::AUTH_VALUE | policy_command::PASSWORD));
        // Nothing is secret without an authValue, and there would be no key to encrypt with.
        let (value, protected) = if asks { (authority.value(), protected) } else { (&[][..], 0) };
        let protected = if value.is_empty() { 0 } else { protected };
        let handle_of_session = session.handle;
        let result = self.satisfy(handle_of_session, steps).and_then(|()| {
            let mut auth = Auth::Hmac { session: &mut session, value, attributes: protected };
            command(&mut self.sapi, key, &mut auth)
        });
        result.map_err(|error| {
            if !response::is_transport_failure(&error) {
                // It may be gone already: that is as good.
                let _ = self.sapi.flush_context(handle_of_session);
            }
            match response::is_policy_failure(&error) {
                true => Error::PolicyFailed(
                    "the key's policy does not allow this now: the PCRs do not have the values it was bound to".into(),
                ),
                false => error,
            }
        })
    }

    fn satisfy(&mut self, session: u32, policy: &[PolicyStep]) -> Result<()> {
        for step in policy {
            match step.command {
                policy_command::PCR => {
                    let (values, selection) = step.pcr_parameters()?;
                    self.sapi.policy_pcr(session, values, selection).map_err(
                        |error| match response::is_wrong_value(&error) {
                            true => Error::PolicyFailed(
                                "the PCRs that this key is bound to have other values now than when it was made".into(),
                            ),
                            false => error,
                        },
                    )?;
                }
                // The HMAC of the session proves the value as well as a password would, and does not show it.
                policy_command::AUTH_VALUE | policy_command::PASSWORD => self.sapi.policy_auth_value(session)?,
                policy_command::COMMAND_CODE => {
                    let code = step.parameters.as_slice().try_into().map(u32::from_be_bytes);
                    let code = code.map_err(|_| Error::malformed("TPM key file", "a command code has four bytes"))?;
                    self.sapi.policy_command_code(session, code)?;
                }
                policy_command::AUTHORIZE => self.policy_authorize(session, &step.parameters)?,
                other => {
                    return Err(Error::Unsupported(format!("policies with the TPM command 0x{other:x}")));
                }
            }
        }
        Ok(())
    }

    /// `TPM2_PolicyAuthorize`: the policy so far counts as the one that the key was made with, if the key named in the
    /// parameters has signed it (draft-bottomley-tpm2-keys, 3.1.2: `TPM2B_PUBLIC`, `TPM2B_DIGEST`, `TPMT_SIGNATURE`).
    fn policy_authorize(&mut self, session: u32, parameters: &[u8]) -> Result<()> {
        let cut = || Error::malformed("TPM key file", "an authorisation of its policy is cut short");
        let sized = |bytes: &[u8]| bytes.first_chunk().map(|size| 2 + usize::from(u16::from_be_bytes(*size)));
        let (public, rest) = sized(parameters).and_then(|end| parameters.split_at_checked(end)).ok_or_else(cut)?;
        let (reference, signature) = sized(rest).and_then(|end| rest.split_at_checked(end)).ok_or_else(cut)?;
        let area = PublicArea::parse(public)?;
        let approved = self.sapi.policy_get_digest(session)?;
        let digest = area.name_hash.digest(&[&approved, &reference[2..]].concat());
        let signer = self.sapi.load_external(public, super::object::OWNER)?;
        let ticket = self.sapi.verify_signature((signer, &area.name), &digest, signature);
        let ticket =
            self.sapi.flush_after(signer, ticket).map_err(|error| match response::is_wrong_signature(&error) {
                true => Error::PolicyFailed("the key's policy does not allow this now: nobody has signed it".into()),
                false => error,
            })?;
        self.sapi.policy_authorize(session, &approved, &reference[2..], &area.name, &ticket)
    }
}
