//! A private key in the TPM, ready for use: what loads it and what authorises it.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::algorithm::{HashAlgorithm, SignatureScheme};
use crate::error::{Error, Result};
use crate::object::ObjectId;
use crate::public_area::{PublicArea, object_attribute};
use crate::public_key::{PublicKey, check_digest};
use crate::token::Token;
use crate::tpm::{self, Authority, Parent, Tpm, WrappedKey};
use crate::tss2_pem::Tss2Key;

/// A private key in the TPM. Cheap to clone; it is loaded at its first use.
#[derive(Clone)]
pub struct Key {
    tpm: Tpm,
    wrapped: Arc<Wrapped>,
    owner: Owner,
}

struct Wrapped {
    key: Tss2Key,
    parent: Parent,
    area: PublicArea,
}

/// Where the authorisation comes from.
#[derive(Clone)]
enum Owner {
    /// Nowhere: the authValue is empty.
    Nobody,
    /// The login of the key's token.
    Token(Arc<Token>, ObjectId),
    /// Whoever gives the value; `None` so far.
    Anybody(Option<Arc<Zeroizing<Vec<u8>>>>),
}

impl Key {
    pub(crate) fn of_token(tpm: Tpm, key: Tss2Key, token: Arc<Token>, id: ObjectId) -> Result<Self> {
        Ok(Self { tpm, wrapped: Wrapped::new(key)?, owner: Owner::Token(token, id) })
    }

    pub(crate) fn standalone(tpm: Tpm, key: Tss2Key) -> Result<Self> {
        let owner = if key.empty_auth { Owner::Nobody } else { Owner::Anybody(None) };
        Ok(Self { tpm, wrapped: Wrapped::new(key)?, owner })
    }

    /// Its public part.
    pub fn public_key(&self) -> &PublicKey {
        &self.wrapped.area.public_key
    }

    /// The key file's content.
    pub fn tss2(&self) -> &Tss2Key {
        &self.wrapped.key
    }

    /// The token it belongs to. Its login is needed unless [`Token::is_open`].
    pub fn token(&self) -> Option<&Arc<Token>> {
        match &self.owner {
            Owner::Token(token, _) => Some(token),
            Owner::Nobody | Owner::Anybody(_) => None,
        }
    }

    /// It needs an authorisation value of its own that was not given yet ([`Self::authorise`]).
    pub fn needs_authorisation(&self) -> bool {
        matches!(self.owner, Owner::Anybody(None))
    }

    /// Gives a key without token its authorisation value.
    pub fn authorise(&mut self, value: Zeroizing<Vec<u8>>) {
        if let Owner::Anybody(known) = &mut self.owner {
            *known = Some(Arc::new(value));
        }
    }

    /// The TPM lets it sign what it is given.
    pub fn may_sign(&self) -> bool {
        self.wrapped.area.has(object_attribute::SIGN) && !self.wrapped.area.has(object_attribute::RESTRICTED)
    }

    /// The TPM lets it decrypt (RSA) or derive (EC).
    pub fn may_decrypt(&self) -> bool {
        self.wrapped.area.has(object_attribute::DECRYPT) && !self.wrapped.area.has(object_attribute::RESTRICTED)
    }

    /// Signs a digest in the TPM. ECDSA signatures are `r || s`.
    ///
    /// Errors: [`Error::NotLoggedIn`], [`Error::Unsupported`], [`Error::TpmReplaced`] and those of the TPM.
    pub fn sign(&self, scheme: SignatureScheme, digest: &[u8]) -> Result<Vec<u8>> {
        if !self.may_sign() {
            return Err(Error::Unsupported("signatures by a key that was not made for them".into()));
        }
        match scheme {
            SignatureScheme::RsaPkcs1(hash) | SignatureScheme::RsaPss { hash, .. } => {
                check_digest(hash, digest)?;
                if hash == HashAlgorithm::Sha1 || hash.tpm_algorithm().is_none() {
                    return Err(Error::Unsupported(format!("signatures with {}", hash.name())));
                }
            }
            SignatureScheme::Ecdsa => {}
        }
        if let SignatureScheme::RsaPss { hash, salt_length } = scheme {
            if salt_length != hash.digest_length() {
                return Err(Error::Unsupported("a PSS salt of another length than the digest's".into()));
            }
        }
        let authority = self.authority()?;
        let key = WrappedKey {
            parent: self.wrapped.parent,
            public: &self.wrapped.key.public,
            private: &self.wrapped.key.private,
            area: &self.wrapped.area,
        };
        self.tpm.with(|connection| {
            let signed = connection.sign(&key, &authority, scheme, digest);
            signed.map_err(|error| self.diagnose(connection, error))
        })
    }

    fn authority(&self) -> Result<Authority> {
        Ok(match &self.owner {
            Owner::Nobody => Authority::Empty,
            Owner::Token(token, id) => token.key_auth(*id)?.map_or(Authority::Empty, Authority::Random),
            Owner::Anybody(Some(value)) => Authority::Chosen((**value).clone()),
            Owner::Anybody(None) => return Err(Error::NotLoggedIn),
        })
    }

    /// What a failed use means.
    fn diagnose(&self, connection: &mut tpm::Connection, error: Error) -> Error {
        match &self.owner {
            Owner::Token(token, id) => {
                let damaged =
                    |reason: &str| Error::ObjectCorrupt { path: token.object_path(*id), reason: reason.into() };
                if tpm::is_authorisation_failure(&error) {
                    return damaged("its authorisation is not this token's");
                }
                match token.srk() {
                    Ok(srk) => {
                        let what = format!("token '{}'", token.info().label);
                        connection.diagnose_load(&srk, error, &what, || damaged("the TPM cannot load it"))
                    }
                    Err(error) => error,
                }
            }
            Owner::Nobody | Owner::Anybody(_) if tpm::is_authorisation_failure(&error) => Error::PinIncorrect,
            Owner::Nobody | Owner::Anybody(_) if tpm::is_not_ours(&error) => {
                Error::TpmReplaced { what: "this key file".into() }
            }
            Owner::Nobody | Owner::Anybody(_) => error,
        }
    }
}

impl Wrapped {
    fn new(key: Tss2Key) -> Result<Arc<Self>> {
        let area = key.public_area()?;
        Ok(Arc::new(Self { parent: Parent::from_handle(key.parent)?, area, key }))
    }
}
