//! A token's keys: how they are made in the TPM or imported, and made ready for use.

use std::sync::Arc;

use tss_esapi::structures::Public;

use super::{DESCRIPTION, Token, UserPin};
use crate::algorithm::{KeySpec, SecretKind};
use crate::auth::StackWiped;
use crate::error::{Error, Result};
use crate::import::{Importable, PrivateKey};
use crate::key::{Key, KeyPlace, Owner, TpmKey};
use crate::object::{Attributes, Body, KeyMaterial, Object, ObjectId, SecretMaterial};
use crate::policy::PcrPolicy;
use crate::secret_key::SecretKey;
use crate::tpm::{self, Connection, Srk, template};
use crate::tss2_pem::Tss2Key;

/// Nothing made here is stored: [`Token::insert`] does that.
impl Token {
    /// Makes a key pair in the TPM, bound to PCRs where there is a policy, be it by configuration.
    pub fn generate(
        &self,
        spec: KeySpec,
        policy: Option<&PcrPolicy>,
        private: Attributes,
        public: Attributes,
    ) -> Result<Object> {
        let id = ObjectId::random()?;
        let key = self.create(id, policy, |policy| template::key(spec, policy))?;
        let public_key = key.public_key()?;
        let key = KeyMaterial::Wrapped(key);
        Ok(Object { id, body: Body::KeyPair { key, public_key, imported: false, private, public: Some(public) } })
    }

    /// Makes a secret key of `length` bytes in the TPM.
    ///
    /// The TPM makes AES keys of 16 and 32 bytes, other secrets of 32, 48 and 64.
    /// Errors: [`Error::Unsupported`] for other lengths.
    pub fn generate_secret(
        &self,
        kind: SecretKind,
        length: usize,
        policy: Option<&PcrPolicy>,
        attributes: Attributes,
    ) -> Result<Object> {
        let id = ObjectId::random()?;
        let key = self.create(id, policy, |policy| template::secret(kind, length, None, policy))?;
        let secret = SecretMaterial::Tpm { key, length, imported: false };
        Ok(Object { id, body: Body::SecretKey { secret, kind, attributes } })
    }

    /// Imports a private key, as one that signs, and one that decrypts or derives. It has no public key object.
    pub fn import(&self, key: &PrivateKey, usage: (bool, bool), private: Attributes) -> Result<Object> {
        let id = ObjectId::random()?;
        let wrapped = self.wrap(id, |auth, policy| key.wrapped(usage, auth, policy))?;
        let (public_key, key) = (key.public_key().clone(), KeyMaterial::Wrapped(wrapped));
        Ok(Object { id, body: Body::KeyPair { key, public_key, imported: true, private, public: None } })
    }

    /// Imports a secret key of at most 128 bytes.
    pub fn import_secret(&self, kind: SecretKind, value: &[u8], attributes: Attributes) -> Result<Object> {
        let id = ObjectId::random()?;
        let key = self.wrap(id, |auth, policy| Importable::secret(kind, value, auth, policy))?;
        let secret = SecretMaterial::Tpm { key, length: value.len(), imported: true };
        Ok(Object { id, body: Body::SecretKey { secret, kind, attributes } })
    }

    /// The private key of a key pair object of this token. Costs no TPM command, needs no login yet.
    pub fn key(self: &Arc<Self>, object: &Object) -> Result<Key> {
        match &object.body {
            Body::KeyPair { key, .. } => {
                let place = self.place_of(object, || KeyPlace::of(key))?;
                Key::of_token(self.tpm.clone(), key, place, self.clone(), object.id)
            }
            _ => Err(Error::Unsupported("an object without a private key".into())),
        }
    }

    /// The secret key of an object of this token. Costs no TPM command, needs no login yet.
    pub fn secret_key(self: &Arc<Self>, object: &Object) -> Result<SecretKey> {
        match &object.body {
            Body::SecretKey { secret: SecretMaterial::Tpm { key, .. }, .. } => {
                let owner = Owner::Token(self.clone(), key.owner(object.id));
                let place = self.place_of(object, || KeyPlace::wrapped(key.clone(), None))?;
                Ok(SecretKey::in_tpm(TpmKey::new(self.tpm.clone(), place, owner)))
            }
            Body::SecretKey { secret: SecretMaterial::Memory { value, .. }, .. } => {
                Ok(SecretKey::in_memory(value.clone()))
            }
            _ => Err(Error::Unsupported("an object without a secret key".into())),
        }
    }

    /// The authValue of a new key; empty where there is no PIN.
    fn require_key_auth(&self, id: ObjectId) -> Result<zeroize::Zeroizing<Vec<u8>>> {
        if self.reread()?.user_pin() == UserPin::NotInitialized {
            return Err(Error::PinNotInitialized);
        }
        Ok(self.key_auth(id)?.unwrap_or_default())
    }

    /// Makes a key in the TPM.
    fn create(
        &self,
        id: ObjectId,
        policy: Option<&PcrPolicy>,
        template: impl Fn(Option<&[u8]>) -> Result<Public>,
    ) -> Result<Tss2Key> {
        self.bring_in(id, policy, |tpm, srk, auth, policy| {
            let created = tpm.create_under_srk(srk, &template(policy)?, auth)?;
            Ok((created.public, created.private))
        })
    }

    /// Imports what `key` makes for an authValue and the digest of a policy.
    fn wrap(&self, id: ObjectId, key: impl Fn(&[u8], Option<&[u8]>) -> Result<Importable>) -> Result<Tss2Key> {
        let _wiped = StackWiped;
        self.bring_in(id, None, |tpm, srk, auth, policy| {
            let key = key(auth, policy)?;
            let private = tpm.import(srk, &key.public, &key.sensitive())?;
            Ok((key.public, private))
        })
    }

    /// Has `make` make a key under the token's storage root key: for its authValue, and for the digest of the policy that it is
    /// bound to, be it by configuration. It answers public and private part.
    fn bring_in(
        &self,
        id: ObjectId,
        policy: Option<&PcrPolicy>,
        make: impl Fn(&mut Connection, &Srk, &[u8], Option<&[u8]>) -> Result<(Vec<u8>, Vec<u8>)>,
    ) -> Result<Tss2Key> {
        let auth = self.require_key_auth(id)?;
        let srk = self.srk()?;
        let by_configuration = self.tpm.config().pcrs.clone().map(|pcrs| PcrPolicy { pcrs, digest: None });
        let policy = policy.or(by_configuration.as_ref());
        let ((public, private), steps) = self.tpm.with(|tpm| {
            let (steps, digest) = policy.map(|policy| policy.steps(tpm, !auth.is_empty())).transpose()?.unzip();
            let what = format!("token '{}'", self.file.load().label);
            let made = make(tpm, &srk, &auth, digest.as_deref());
            Ok((made.map_err(|error| tpm.diagnose_create(&srk, error, &what))?, steps.unwrap_or_default()))
        })?;
        Ok(Tss2Key { policy: steps, ..self.key_file(id, public, private) })
    }

    fn key_file(&self, id: ObjectId, public: Vec<u8>, private: Vec<u8>) -> Tss2Key {
        let file = self.file.load();
        let description = (file.user_pin() == UserPin::Set).then(|| format!("{DESCRIPTION}{}/{id}", file.serial));
        Tss2Key {
            empty_auth: description.is_none(),
            parent: tpm::SRK_HANDLE,
            public,
            private,
            description,
            policy: Vec::new(),
            auth_policy: Vec::new(),
            secret: None,
            rsa_parent: false,
        }
    }
}

impl Tss2Key {
    /// The object for which the authValue was derived, if it is not `id`: a copy keeps the original's.
    pub(crate) fn owner(&self, id: ObjectId) -> ObjectId {
        let named = self.description.as_deref().and_then(|text| text.strip_prefix(DESCRIPTION)?.split_once('/'));
        named.and_then(|(_, object)| object.parse().ok()).unwrap_or(id)
    }
}
