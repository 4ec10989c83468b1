//! Secret keys: generated, derived, wrapped, unwrapped. Those of the token are in the TPM, those of a session that may be
//! seen in memory.

use cryptoki_sys::*;
use keyrivet_core::algorithm::{Direction, SecretKind};
use keyrivet_core::kdf;
use keyrivet_core::object::{Attributes, Body, Object, ObjectId, Part, SecretMaterial};
use keyrivet_core::public_key::PublicKey;
use keyrivet_core::secret_key::{AES_BLOCK, random_value};
use zeroize::Zeroizing;

use crate::asn1;
use crate::attribute::{self, DERIVE, GENERATE, Uses};
use crate::cipher::Cipher;
use crate::draft::Draft;
use crate::error::{Error, Result};
use crate::mechanism::{self, GENERATED_SECRETS, KeyType, Mechanism, Work};
use crate::object::check_new_object;
use crate::parameter::{Derivation, Ecdh};
use crate::session::Session;
use crate::template::{self, Template, flag};

/// Where a new secret comes from, which decides what can be said of its past.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Generated,
    /// From an application, in the clear or wrapped.
    Outside,
    /// From an agreement with a key that was always sensitive, and never extractable.
    Derived(bool, bool),
}

/// A secret key that a template asks for.
pub(crate) struct NewSecret {
    kind: SecretKind,
    origin: Origin,
    pub(crate) draft: Draft,
}

/// What is in the TPM cannot come out, whatever a template says. (That it is not "sensitive" means nothing then:
/// footnote 7 asks for both.)
pub(crate) fn require_unextractable(attributes: &Attributes) -> Result<()> {
    if attributes.extractable { Err(Error(CKR_TEMPLATE_INCONSISTENT)) } else { Ok(()) }
}

impl NewSecret {
    /// Reads the template. Without a word in it a key of the TPM is sensitive, and one in memory is not, as the standard
    /// has it ("Secret key objects").
    pub(crate) fn read(kind: SecretKind, template: &Template<'_>, uses: Uses, origin: Origin) -> Result<Self> {
        let says = |kind, default| template.get(kind).map_or(Ok(default), flag);
        let token_object = says(CKA_TOKEN, false)?;
        let in_tpm = token_object || origin == Origin::Generated;
        let ciphers = kind == SecretKind::Aes;
        let defaults = Attributes {
            private: true,
            sensitive: in_tpm,
            // "The CKA_EXTRACTABLE attribute is by default set to CK_TRUE" (C_UnwrapKey): where it can be. Of C_DeriveKey the
            // standard says nothing, and Java's KeyAgreement reads the value.
            extractable: uses == DERIVE && !token_object,
            encrypt: ciphers,
            decrypt: ciphers,
            sign: !ciphers,
            verify: !ciphers,
            ..Attributes::default()
        };
        let mut draft = Draft::new(attribute::SECRET, defaults);
        draft.write(template, uses)?;
        if draft.token_object {
            require_unextractable(&draft.attributes)?;
        }
        Ok(Self { kind, origin, draft })
    }

    fn token_object(&self) -> bool {
        self.draft.token_object
    }
}

impl Session {
    /// Makes a secret key (C_GenerateKey): in the TPM, unless it is the session's and may be seen.
    pub(crate) fn generate_key(&self, mechanism: Mechanism<'_>, template: &Template<'_>) -> Result<CK_OBJECT_HANDLE> {
        let token = self.slot().token()?;
        let info = token.info();
        let kind = match mechanism::find(mechanism.kind, Some(&info), CKF_GENERATE)? {
            Work::GenerateKey(KeyType::Aes) => SecretKind::Aes,
            Work::GenerateKey(_) => SecretKind::Generic,
            _ => return Err(Error(CKR_MECHANISM_INVALID)),
        };
        mechanism.parameter.none()?;
        let new = NewSecret::read(kind, template, GENERATE, Origin::Generated)?;
        self.check_new(&new.draft)?;
        let length = new.draft.value_length.ok_or(Error(CKR_TEMPLATE_INCOMPLETE))?;
        let in_tpm = require_unextractable(&new.draft.attributes).is_ok();
        let possible = match kind {
            SecretKind::Aes => info.aes_bits.iter().any(|bits| usize::from(*bits) == 8 * length),
            _ => !in_tpm || GENERATED_SECRETS.contains(&length),
        };
        if !possible {
            return Err(Error(CKR_ATTRIBUTE_VALUE_INVALID));
        }
        if !self.slot().is_open() {
            return Err(Error(CKR_USER_NOT_LOGGED_IN));
        }
        let policy = new.draft.policy()?;
        if !in_tpm {
            if policy.is_some() {
                return Err(Error(CKR_TEMPLATE_INCONSISTENT));
            }
            return self.keep_secret(new, random_value(length)?, template);
        }
        let token_object = new.token_object();
        let attributes = Attributes { always_sensitive: new.draft.attributes.sensitive, ..new.draft.attributes };
        let object = token.generate_secret(kind, length, policy.as_ref(), attributes)?;
        self.keep_checked(&object, token_object, template)
    }

    /// Keeps a new secret: the token's in the TPM, the session's in memory.
    pub(crate) fn keep_secret(
        &self,
        new: NewSecret,
        value: Zeroizing<Vec<u8>>,
        template: &Template<'_>,
    ) -> Result<CK_OBJECT_HANDLE> {
        if new.kind == SecretKind::Aes && !matches!(value.len(), 16 | 24 | 32) {
            return Err(Error(CKR_ATTRIBUTE_VALUE_INVALID));
        }
        let NewSecret { kind, origin, draft } = new;
        let mut attributes = draft.attributes;
        if draft.token_object {
            if !self.slot().is_open() {
                return Err(Error(CKR_USER_NOT_LOGGED_IN));
            }
            let object = self.slot().token()?.import_secret(kind, &value, attributes)?;
            return self.keep_checked(&object, true, template);
        }
        let (always_sensitive, never_extractable) = match origin {
            Origin::Generated => (true, true),
            Origin::Outside => (false, false),
            Origin::Derived(always_sensitive, never_extractable) => (always_sensitive, never_extractable),
        };
        attributes.always_sensitive = always_sensitive && attributes.sensitive;
        attributes.never_extractable = never_extractable && !attributes.extractable;
        let secret = SecretMaterial::Memory { value, local: origin == Origin::Generated };
        let object = Object { id: ObjectId::random()?, body: Body::SecretKey { secret, kind, attributes } };
        self.keep_checked(&object, false, template)
    }

    fn keep_checked(&self, object: &Object, token_object: bool, template: &Template<'_>) -> Result<CK_OBJECT_HANDLE> {
        check_new_object(self.slot().token()?, object, Part::SecretKey, template)?;
        self.keep(object, token_object)?;
        Ok(self.slot().handle(object, Part::SecretKey))
    }

    /// Agrees on a key with another's public key (C_DeriveKey).
    pub(crate) fn derive(
        &self,
        mechanism: Mechanism<'_>,
        base: CK_OBJECT_HANDLE,
        template: &Template<'_>,
    ) -> Result<CK_OBJECT_HANDLE> {
        let (view, _) = self.usable_key(base, CKF_DERIVE, mechanism.kind)?;
        let parameter = mechanism.parameter.ecdh()?;
        // What the TPM made was always sensitive, and never extractable.
        let local = view.is_local()?;
        let new = NewSecret::read(secret_kind(template)?, template, DERIVE, Origin::Derived(local, local))?;
        self.check_new(&new.draft)?;
        let key = view.token.key(&view.object)?;
        let peer = point(key.public_key(), parameter.public)?;
        let z = key.derive(&peer).map_err(|error| match error {
            keyrivet_core::Error::Malformed { .. } => Error(CKR_MECHANISM_PARAM_INVALID),
            other => other.into(),
        })?;
        let value = derived(&z, &parameter, new.draft.value_length)?;
        self.keep_secret(new, value, template)
    }

    /// Decrypts a key that somebody wrapped (C_UnwrapKey).
    pub(crate) fn unwrap_key(
        &self,
        mechanism: Mechanism<'_>,
        key: CK_OBJECT_HANDLE,
        wrapped: &[u8],
        template: &Template<'_>,
    ) -> Result<CK_OBJECT_HANDLE> {
        let (view, work) = self.usable_key(key, CKF_UNWRAP, mechanism.kind)?;
        let unwrapped = || {
            let cipher = Cipher::new(&view, work, mechanism.parameter, Direction::Decrypt)?;
            cipher.finish(wrapped).map_err(|error| match error {
                Error(CKR_ENCRYPTED_DATA_INVALID) => Error(CKR_WRAPPED_KEY_INVALID),
                Error(CKR_ENCRYPTED_DATA_LEN_RANGE) => Error(CKR_WRAPPED_KEY_LEN_RANGE),
                other => other,
            })
        };
        let class = template.get(CKA_CLASS).map(template::number).transpose()?;
        // Of the mechanisms here only this one wraps private keys.
        if class == Some(CKO_PRIVATE_KEY) && work == Work::AesCbcPad {
            return self.keep_unwrapped(&unwrapped()?, template);
        }
        let kind = secret_kind(template)?;
        let new = NewSecret::read(kind, template, DERIVE, Origin::Outside)?;
        self.check_new(&new.draft)?;
        // Bare blocks do not tell how many of their last bytes are padding, and no type of key has one length only.
        if matches!(work, Work::Aes(_)) && new.draft.value_length.is_none() {
            return Err(Error(CKR_TEMPLATE_INCOMPLETE));
        }
        let mut value = unwrapped()?;
        let wanted = new.draft.value_length.unwrap_or(value.len());
        // What was padded with zeros is cut, other mechanisms tell the length themselves.
        match work {
            Work::Aes(_) if wanted <= value.len() => value.truncate(wanted),
            _ if wanted == value.len() => {}
            _ => return Err(Error(CKR_WRAPPED_KEY_LEN_RANGE)),
        }
        let aes = kind == SecretKind::Aes;
        if value.is_empty() || value.len() > mechanism::LONGEST_SECRET || (aes && !matches!(value.len(), 16 | 24 | 32))
        {
            return Err(Error(CKR_WRAPPED_KEY_LEN_RANGE));
        }
        self.keep_secret(new, value, template)
    }

    /// Gets ready to encrypt a key for somebody (C_WrapKey). What is in the TPM never leaves it.
    pub(crate) fn wrapping(
        &self,
        mechanism: Mechanism<'_>,
        wrapping_key: CK_OBJECT_HANDLE,
        key: CK_OBJECT_HANDLE,
    ) -> Result<Wrapping> {
        let (wrapping, work) = self.usable_key(wrapping_key, CKF_WRAP, mechanism.kind)?;
        let view = self.key(key, CKR_KEY_HANDLE_INVALID)?;
        if !matches!(view.part, Part::PrivateKey | Part::SecretKey) {
            return Err(Error(CKR_KEY_HANDLE_INVALID));
        }
        let value = view.extractable().ok_or(Error(CKR_KEY_UNEXTRACTABLE))?;
        if view.attributes()?.wrap_with_trusted && !wrapping.attributes()?.trusted {
            return Err(Error(CKR_KEY_NOT_WRAPPABLE));
        }
        // "Padded on the trailing end with up to block size minus one null bytes" (AES-ECB, AES-CBC).
        let whole = if let Work::Aes(_) = work { value.len().next_multiple_of(AES_BLOCK) } else { value.len() };
        let mut block = Zeroizing::new(vec![0; whole]);
        block[..value.len()].copy_from_slice(value);
        let cipher = Cipher::new(&wrapping, work, mechanism.parameter, Direction::Encrypt)?;
        Ok(Wrapping { cipher, value: block })
    }
}

/// A key about to be wrapped.
pub(crate) struct Wrapping {
    cipher: Cipher,
    value: Zeroizing<Vec<u8>>,
}

impl Wrapping {
    /// Length of the result.
    pub(crate) fn length(&self) -> usize {
        self.cipher.last_length(self.value.len())
    }

    /// The result.
    pub(crate) fn finish(self) -> Result<Zeroizing<Vec<u8>>> {
        self.cipher.finish(&self.value).map_err(|error| match error {
            Error(CKR_DATA_LEN_RANGE) => Error(CKR_KEY_SIZE_RANGE),
            other => other,
        })
    }
}

/// The kind of secret key that a template of C_DeriveKey or C_UnwrapKey asks for.
fn secret_kind(template: &Template<'_>) -> Result<SecretKind> {
    let inconsistent = Error(CKR_TEMPLATE_INCONSISTENT);
    if template.get(CKA_CLASS).map_or(Ok(CKO_SECRET_KEY), template::number)? != CKO_SECRET_KEY {
        return Err(inconsistent);
    }
    let key_type = template::number(template.get(CKA_KEY_TYPE).ok_or(Error(CKR_TEMPLATE_INCOMPLETE))?)?;
    KeyType::secret(key_type).ok_or(inconsistent)
}

/// The other side's point, which may be wrapped in an OCTET STRING (PKCS#11 3.2, CK_ECDH1_DERIVE_PARAMS).
fn point(own: &PublicKey, given: &[u8]) -> Result<Vec<u8>> {
    let PublicKey::Ec { curve, .. } = own else { return Err(Error(CKR_KEY_TYPE_INCONSISTENT)) };
    let bare = given.len() == 1 + 2 * curve.coordinate_length();
    let point = if bare { Some(given) } else { asn1::octet_string_content(given).ok() };
    Ok(point.ok_or(Error(CKR_MECHANISM_PARAM_INVALID))?.to_vec())
}

/// The key that comes of a shared secret. "The truncation removes bytes from the leading end of the secret value."
fn derived(z: &[u8], parameter: &Ecdh<'_>, length: Option<usize>) -> Result<Zeroizing<Vec<u8>>> {
    let incomplete = Error(CKR_TEMPLATE_INCOMPLETE);
    match parameter.derivation {
        Derivation::None => {
            let start = z.len().checked_sub(length.unwrap_or(z.len())).ok_or(Error(CKR_ATTRIBUTE_VALUE_INVALID))?;
            Ok(Zeroizing::new(z[start..].to_vec()))
        }
        Derivation::X963(hash) => Ok(kdf::x963(hash, z, parameter.shared, length.ok_or(incomplete)?)),
        Derivation::Concat(hash) => Ok(kdf::concat(hash, z, parameter.shared, length.ok_or(incomplete)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_secret_is_cut_at_its_front_and_a_derived_one_has_the_length_asked_for() {
        let z = [1, 2, 3, 4];
        let with = |derivation, length| {
            derived(&z, &Ecdh { derivation, shared: b"", public: b"" }, length).map(|value| value.to_vec())
        };
        assert_eq!(with(Derivation::None, None), Ok(vec![1, 2, 3, 4]));
        assert_eq!(with(Derivation::None, Some(2)), Ok(vec![3, 4]));
        assert_eq!(with(Derivation::None, Some(5)), Err(Error(CKR_ATTRIBUTE_VALUE_INVALID)));
        let hash = keyrivet_core::algorithm::HashAlgorithm::Sha256;
        assert_eq!(with(Derivation::X963(hash), Some(40)).map(|value| value.len()), Ok(40));
        assert_eq!(with(Derivation::X963(hash), None), Err(Error(CKR_TEMPLATE_INCOMPLETE)));
    }
}
