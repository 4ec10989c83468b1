//! The objects of a token and their attributes, as domain types.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use zeroize::Zeroizing;

use crate::algorithm::SecretKind;
use crate::error::{Error, Result};
use crate::public_area::{PublicArea, object_attribute};
use crate::public_key::PublicKey;
use crate::tss2_pem::Tss2Key;

/// What names an object's file and is mixed into its key's authorisation: 16 random bytes that never change.
///
/// Not `CKA_ID`, which applications choose and change.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId([u8; 16]);

impl ObjectId {
    /// A new one, from the system's random numbers.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; 16];
        crate::random::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// One that a digest of at least 16 bytes names.
    pub fn from_digest(digest: &[u8]) -> Self {
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(digest).for_each(|(byte, digest)| *byte = *digest);
        Self(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::hex::encode(&self.0))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ObjectId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bytes = crate::hex::decode(text).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| Error::malformed("object id", "not 32 hexadecimal digits"))
    }
}

/// The attributes an application may set on an object (PKCS#11 3.1, chapter 4), by their domain names.
///
/// Whatever the TPM itself guarantees of a key is not here: it is read from the key's public area.
/// Fields an object's class does not have keep their default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Attributes {
    /// `CKA_LABEL`.
    #[serde(with = "one_line")]
    pub label: String,
    /// `CKA_ID`.
    #[serde(with = "crate::hex::serde")]
    pub id: Vec<u8>,
    /// `CKA_PRIVATE`: not visible without a login.
    pub private: bool,
    /// `CKA_MODIFIABLE`.
    pub modifiable: bool,
    /// `CKA_COPYABLE`.
    pub copyable: bool,
    /// `CKA_DESTROYABLE`.
    pub destroyable: bool,
    /// `CKA_SUBJECT`, DER.
    #[serde(with = "crate::hex::serde")]
    pub subject: Vec<u8>,
    /// `CKA_START_DATE`, `YYYYMMDD` or empty.
    pub start_date: String,
    /// `CKA_END_DATE`, `YYYYMMDD` or empty.
    pub end_date: String,
    /// `CKA_TRUSTED`.
    pub trusted: bool,
    /// `CKA_SIGN`, or `CKA_VERIFY` on a public key. (A secret key has both, and likewise below.)
    pub sign: bool,
    /// `CKA_SIGN_RECOVER`, or `CKA_VERIFY_RECOVER` on a public key.
    pub sign_recover: bool,
    /// `CKA_DECRYPT`, or `CKA_ENCRYPT` on a public key.
    pub decrypt: bool,
    /// `CKA_UNWRAP`, or `CKA_WRAP` on a public key.
    pub unwrap: bool,
    /// `CKA_DERIVE`.
    pub derive: bool,
    /// `CKA_ENCRYPT` of a secret key.
    pub encrypt: bool,
    /// `CKA_VERIFY` of a secret key.
    pub verify: bool,
    /// `CKA_WRAP` of a secret key.
    pub wrap: bool,
    /// `CKA_SENSITIVE` of a secret key; of a private key always true.
    pub sensitive: bool,
    /// `CKA_EXTRACTABLE`; of a key in the TPM always false.
    pub extractable: bool,
    /// `CKA_ALWAYS_SENSITIVE` of a secret key; of one in the TPM only if the TPM says that it was made there.
    pub always_sensitive: bool,
    /// `CKA_NEVER_EXTRACTABLE` of a secret key in memory.
    pub never_extractable: bool,
    /// `CKA_WRAP_WITH_TRUSTED`.
    pub wrap_with_trusted: bool,
    /// `CKA_ALWAYS_AUTHENTICATE`.
    pub always_authenticate: bool,
    /// `CKA_ALLOWED_MECHANISMS`: `CK_MECHANISM_TYPE` values; empty allows all.
    pub allowed_mechanisms: Vec<u64>,
    /// `CKA_CERTIFICATE_CATEGORY`.
    pub certificate_category: u64,
    /// `CKA_APPLICATION` of a data object.
    #[serde(with = "one_line")]
    pub application: String,
    /// `CKA_OBJECT_ID` of a data object, DER.
    #[serde(with = "crate::hex::serde")]
    pub object_id: Vec<u8>,
}

impl Default for Attributes {
    fn default() -> Self {
        Self {
            label: String::new(),
            id: Vec::new(),
            private: false,
            modifiable: true,
            copyable: true,
            destroyable: true,
            subject: Vec::new(),
            start_date: String::new(),
            end_date: String::new(),
            trusted: false,
            sign: false,
            sign_recover: false,
            decrypt: false,
            unwrap: false,
            derive: false,
            encrypt: false,
            verify: false,
            wrap: false,
            sensitive: true,
            extractable: false,
            always_sensitive: false,
            never_extractable: false,
            wrap_with_trusted: false,
            always_authenticate: false,
            allowed_mechanisms: Vec::new(),
            certificate_category: 0,
            application: String::new(),
            object_id: Vec::new(),
        }
    }
}

/// One object of the store: one file.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its immutable name.
    pub id: ObjectId,
    /// What it is.
    pub body: Body,
}

/// What an object is.
#[derive(Clone, Debug)]
pub enum Body {
    /// A private key in the TPM, with the public key object beside it while that exists.
    KeyPair {
        /// The private key.
        key: KeyMaterial,
        /// The same key's public part.
        public_key: PublicKey,
        /// Made outside and imported: neither `CKA_LOCAL` nor `CKA_ALWAYS_SENSITIVE`.
        imported: bool,
        /// Attributes of the private key object.
        private: Attributes,
        /// Attributes of the public key object; `None` once that was destroyed.
        public: Option<Attributes>,
    },
    /// A public key on its own.
    PublicKey {
        /// The key.
        public_key: PublicKey,
        /// The half, or a copy of the half, of a pair made here. (A promise of no weight: a public key hides nothing.)
        local: bool,
        /// Its attributes.
        attributes: Attributes,
    },
    /// A secret key.
    SecretKey {
        /// The key.
        secret: SecretMaterial,
        /// What it is for.
        kind: SecretKind,
        /// Its attributes.
        attributes: Attributes,
    },
    /// An X.509 certificate.
    Certificate {
        /// The certificate, DER.
        der: Vec<u8>,
        /// Its attributes.
        attributes: Attributes,
    },
    /// Data of an application.
    Data {
        /// The data; of a private object encrypted under the token's secret.
        value: Vec<u8>,
        /// Its attributes.
        attributes: Attributes,
    },
}

/// Where a private key is.
#[derive(Clone, Debug)]
pub enum KeyMaterial {
    /// Wrapped by the TPM, to be loaded for each burst of uses.
    Wrapped(Tss2Key),
    /// The same, and besides in the TPM at this persistent handle: it need not be loaded as long as it is there.
    Placed(Tss2Key, u32),
    /// In the TPM for good: a key that was there before us, adopted.
    Persistent(PersistentKey),
}

/// A persistent key of the TPM.
#[derive(Clone, Debug)]
pub struct PersistentKey {
    /// Its handle, 0x81......
    pub handle: u32,
    /// `TPM2B_PUBLIC`, marshalled.
    pub public: Vec<u8>,
    /// Its own authValue, encrypted under the token's secret; `None` for an empty one.
    pub sealed_auth: Option<Vec<u8>>,
}

impl KeyMaterial {
    /// The TPM's public area of the key.
    pub fn public_area(&self) -> Result<PublicArea> {
        PublicArea::parse(match self {
            Self::Wrapped(key) | Self::Placed(key, _) => &key.public,
            Self::Persistent(key) => &key.public,
        })
    }

    /// The key file's content, of a key that is wrapped.
    pub fn tss2(&self) -> Option<&Tss2Key> {
        match self {
            Self::Wrapped(key) | Self::Placed(key, _) => Some(key),
            Self::Persistent(_) => None,
        }
    }
}

/// Where a secret key is.
#[derive(Clone, Debug)]
pub enum SecretMaterial {
    /// In the TPM, wrapped by it.
    Tpm {
        /// The wrapped key.
        key: Tss2Key,
        /// Its length in bytes.
        length: usize,
        /// Made outside and imported.
        imported: bool,
    },
    /// In memory, of a session object: never stored.
    Memory {
        /// The key.
        value: Zeroizing<Vec<u8>>,
        /// Made here, by the system's random numbers: `CKA_LOCAL`.
        local: bool,
    },
}

impl SecretMaterial {
    /// Its length in bytes.
    pub fn length(&self) -> usize {
        match self {
            Self::Tpm { length, .. } => *length,
            Self::Memory { value, .. } => value.len(),
        }
    }
}

/// One of the PKCS#11 objects that an [`Object`] stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// The private key of a pair.
    PrivateKey,
    /// The public key of a pair, or one on its own.
    PublicKey,
    /// The secret key.
    SecretKey,
    /// The certificate.
    Certificate,
    /// The data.
    Data,
}

impl Object {
    /// The PKCS#11 objects that this one stands for.
    pub fn parts(&self) -> impl Iterator<Item = Part> + use<> {
        let parts: &[Part] = match &self.body {
            Body::KeyPair { public: Some(_), .. } => &[Part::PrivateKey, Part::PublicKey],
            Body::KeyPair { public: None, .. } => &[Part::PrivateKey],
            Body::PublicKey { .. } => &[Part::PublicKey],
            Body::SecretKey { .. } => &[Part::SecretKey],
            Body::Certificate { .. } => &[Part::Certificate],
            Body::Data { .. } => &[Part::Data],
        };
        parts.iter().copied()
    }

    /// The attributes of one part, `None` if the object has no such part.
    pub fn attributes(&self, part: Part) -> Option<&Attributes> {
        match (&self.body, part) {
            (Body::KeyPair { private, .. }, Part::PrivateKey) => Some(private),
            (Body::KeyPair { public, .. }, Part::PublicKey) => public.as_ref(),
            (Body::PublicKey { attributes, .. }, Part::PublicKey)
            | (Body::SecretKey { attributes, .. }, Part::SecretKey)
            | (Body::Certificate { attributes, .. }, Part::Certificate)
            | (Body::Data { attributes, .. }, Part::Data) => Some(attributes),
            _ => None,
        }
    }

    /// As [`Self::attributes`], to change them.
    pub fn attributes_mut(&mut self, part: Part) -> Option<&mut Attributes> {
        match (&mut self.body, part) {
            (Body::KeyPair { private, .. }, Part::PrivateKey) => Some(private),
            (Body::KeyPair { public, .. }, Part::PublicKey) => public.as_mut(),
            (Body::PublicKey { attributes, .. }, Part::PublicKey)
            | (Body::SecretKey { attributes, .. }, Part::SecretKey)
            | (Body::Certificate { attributes, .. }, Part::Certificate)
            | (Body::Data { attributes, .. }, Part::Data) => Some(attributes),
            _ => None,
        }
    }

    /// The public key of a key pair or public key object.
    pub fn public_key(&self) -> Option<&PublicKey> {
        match &self.body {
            Body::KeyPair { public_key, .. } | Body::PublicKey { public_key, .. } => Some(public_key),
            Body::SecretKey { .. } | Body::Certificate { .. } | Body::Data { .. } => None,
        }
    }

    /// Whether its key was made here. Of a key in the TPM its public area tells: it was made in this TPM, which has never
    /// let it out.
    pub fn is_local(&self) -> Result<bool> {
        let area = match &self.body {
            Body::KeyPair { key, imported: false, .. } => key.public_area()?,
            Body::SecretKey { secret: SecretMaterial::Tpm { key, imported: false, .. }, .. } => key.public_area()?,
            Body::SecretKey { secret: SecretMaterial::Memory { local, .. }, .. } | Body::PublicKey { local, .. } => {
                return Ok(*local);
            }
            _ => return Ok(false),
        };
        Ok(area.has(object_attribute::SENSITIVE_DATA_ORIGIN | object_attribute::FIXED_TPM))
    }

    /// The key file of a key that is the token's own.
    pub(crate) fn wrapped_key(&self) -> Option<&Tss2Key> {
        match &self.body {
            Body::KeyPair { key: KeyMaterial::Wrapped(key) | KeyMaterial::Placed(key, _), .. }
            | Body::SecretKey { secret: SecretMaterial::Tpm { key, .. }, .. } => Some(key),
            _ => None,
        }
    }

    /// The object without one of its parts; `None` when nothing is left.
    ///
    /// A pair that loses its private key stays as a public key object, and the other way round.
    pub fn without(self, part: Part) -> Option<Self> {
        let local = self.is_local().unwrap_or(false);
        let body = match (self.body, part) {
            (Body::KeyPair { public_key, public: Some(attributes), .. }, Part::PrivateKey) => {
                Body::PublicKey { public_key, local, attributes }
            }
            (Body::KeyPair { key, public_key, imported, private, .. }, Part::PublicKey) => {
                Body::KeyPair { key, public_key, imported, private, public: None }
            }
            _ => return None,
        };
        Some(Self { id: self.id, body })
    }
}

/// What to look for; `None` matches all.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Objects with this part.
    pub part: Option<Part>,
    /// `CKA_ID`.
    pub id: Option<Vec<u8>>,
    /// `CKA_LABEL`.
    pub label: Option<String>,
}

/// Text without control characters in serialised files, where a line of its own could pass for a PEM block.
mod one_line {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
        let escaped = |c: char| match c.is_control() || c == '\\' {
            true => c.escape_default().to_string(),
            false => c.to_string(),
        };
        serializer.serialize_str(&text.chars().map(escaped).collect::<String>())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        let text = String::deserialize(deserializer)?;
        unescape(&text).ok_or_else(|| D::Error::custom("a backslash that escapes nothing"))
    }

    fn unescape(text: &str) -> Option<String> {
        let mut parts = text.split('\\');
        let mut plain = parts.next()?.to_owned();
        while let Some(part) = parts.next() {
            let mut rest = part.chars();
            match rest.next() {
                // Two backslashes: what follows the second is plain.
                None => {
                    plain.push('\\');
                    plain.push_str(parts.next()?);
                    continue;
                }
                Some('n') => plain.push('\n'),
                Some('r') => plain.push('\r'),
                Some('t') => plain.push('\t'),
                Some('u') => {
                    let (digits, after) = rest.as_str().strip_prefix('{')?.split_once('}')?;
                    plain.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
                    rest = after.chars();
                }
                Some(_) => return None,
            }
            plain.push_str(rest.as_str());
        }
        Some(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_memory_is_not_shown() {
        let secret = SecretMaterial::Memory { value: Zeroizing::new(vec![0xa7; 16]), local: true };
        let shown = format!("{secret:?} {secret:#x?}");
        assert!(shown.contains("Memory") && !shown.contains("167") && !shown.contains("a7"), "{shown}");
    }
}
