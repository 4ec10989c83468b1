//! The text of an object's file: its attributes as TOML, then its key, certificate or data as one PEM block.

use der::pem::LineEnding;
use serde::{Deserialize, Serialize};

use crate::algorithm::{HashAlgorithm, SecretKind};
use crate::error::{Error, Result};
use crate::object::{Attributes, Body, KeyMaterial, Object, ObjectId, PersistentKey, SecretMaterial};
use crate::public_key::PublicKey;
use crate::tss2_pem::{self, Tss2Key};

const PUBLIC_KEY_LABEL: &str = "PUBLIC KEY";
const CERTIFICATE_LABEL: &str = "CERTIFICATE";
const DATA_LABEL: &str = "KEYRIVET DATA";
/// A persistent key: `TPM2B_PUBLIC`.
const PERSISTENT_LABEL: &str = "TPM2 PUBLIC AREA";

/// The TOML part. The PEM block's label says what the object is.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Header {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    imported: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    local: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    persistent: Option<PersistentHeader>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<SecretHeader>,
    #[serde(skip_serializing_if = "Option::is_none")]
    private: Option<Attributes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public: Option<Attributes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<Attributes>,
}

/// Where a key is in the TPM for good; and of one that is nowhere else its own authValue, under the token's secret.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PersistentHeader {
    /// In hexadecimal, as tpm2-tools show it.
    handle: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    sealed_auth: String,
}

impl PersistentHeader {
    fn new(handle: u32, sealed_auth: String) -> Self {
        Self { handle: format!("0x{handle:08x}"), sealed_auth }
    }

    fn handle(&self) -> Result<u32> {
        let digits = self.handle.strip_prefix("0x").unwrap_or_default();
        u32::from_str_radix(digits, 16).map_err(|_| Error::malformed("object", "a persistent handle that is no number"))
    }
}

/// What a secret key is: `AES`, `generic`, or the hash of an HMAC; and its length in bytes.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretHeader {
    kind: String,
    length: usize,
}

const AES: &str = "AES";
const GENERIC: &str = "generic";

impl SecretHeader {
    fn new(kind: SecretKind, length: usize) -> Self {
        let kind = match kind {
            SecretKind::Aes => AES,
            SecretKind::Generic => GENERIC,
            SecretKind::Hmac(hash) => hash.name(),
        };
        Self { kind: kind.into(), length }
    }

    fn kind(&self) -> Result<SecretKind> {
        match self.kind.as_str() {
            AES => Ok(SecretKind::Aes),
            GENERIC => Ok(SecretKind::Generic),
            name => HashAlgorithm::from_name(name)
                .map(SecretKind::Hmac)
                .ok_or_else(|| Error::malformed("object", format_args!("unknown kind of secret {name}"))),
        }
    }
}

pub(super) fn to_text(object: &Object) -> Result<String> {
    let mut header = Header::default();
    let pem = match &object.body {
        Body::KeyPair { key, imported, private, public, .. } => {
            let (imported, private, public) = (*imported, Some(private.clone()), public.clone());
            header = Header { imported, private, public, ..Header::default() };
            match key {
                KeyMaterial::Wrapped(key) => key.to_pem()?,
                KeyMaterial::Placed(key, handle) => {
                    header.persistent = Some(PersistentHeader::new(*handle, String::new()));
                    key.to_pem()?
                }
                KeyMaterial::Persistent(key) => {
                    let sealed_auth = key.sealed_auth.as_deref().map(crate::hex::encode).unwrap_or_default();
                    header.persistent = Some(PersistentHeader::new(key.handle, sealed_auth));
                    pem(PERSISTENT_LABEL, &key.public)?
                }
            }
        }
        Body::SecretKey { secret: SecretMaterial::Tpm { key, length, imported }, kind, attributes } => {
            header.imported = *imported;
            header.secret = Some(SecretHeader::new(*kind, *length));
            header.object = Some(attributes.clone());
            key.to_pem()?
        }
        Body::SecretKey { secret: SecretMaterial::Memory { .. }, .. } => {
            return Err(Error::Unsupported("storing a secret key that is not in the TPM".into()));
        }
        Body::PublicKey { public_key, local, attributes } => {
            header.local = *local;
            header.object = Some(attributes.clone());
            pem(PUBLIC_KEY_LABEL, &public_key.to_spki_der()?)?
        }
        Body::Certificate { der, attributes } => {
            header.object = Some(attributes.clone());
            pem(CERTIFICATE_LABEL, der)?
        }
        Body::Data { value, attributes } => {
            header.object = Some(attributes.clone());
            pem(DATA_LABEL, value)?
        }
    };
    Ok(format!("{}\n{pem}", header_text(&header)?))
}

/// The header without what has its default value.
fn header_text(header: &Header) -> Result<String> {
    let wrong = |error| Error::malformed("attributes", error);
    let defaults = toml::Table::try_from(Attributes::default()).map_err(wrong)?;
    let mut table = toml::Table::try_from(header).map_err(wrong)?;
    for part in ["private", "public", "object"] {
        if let Some(toml::Value::Table(attributes)) = table.get_mut(part) {
            attributes.retain(|name, value| defaults.get(name) != Some(value));
        }
    }
    toml::to_string(&table).map_err(wrong)
}

fn pem(label: &str, der: &[u8]) -> Result<String> {
    der::pem::encode_string(label, LineEnding::LF, der).map_err(|error| Error::malformed("PEM block", error))
}

/// Label and content of a PEM block. Only data may be empty; the decoder takes an empty block for a damaged one.
fn from_pem(text: &str) -> Result<(&str, Vec<u8>)> {
    if text.trim_end() == pem(DATA_LABEL, &[])?.trim_end() {
        return Ok((DATA_LABEL, Vec::new()));
    }
    der::pem::decode_vec(text.as_bytes()).map_err(|error| Error::malformed("PEM block", error))
}

pub(super) fn parse(id: ObjectId, text: &str) -> Result<Object> {
    let begin = tss2_pem::pem_start(text).ok_or_else(|| Error::malformed("object", "it has no PEM block"))?;
    let (header, pem) = text.split_at(begin);
    let header: Header = toml::from_str(header).map_err(|error| Error::malformed("object", error.message()))?;
    let (label, der) = from_pem(pem)?;
    let attributes = header.object.unwrap_or_default();
    let body = match label {
        tss2_pem::PEM_LABEL => {
            let key = Tss2Key::from_der(&der)?;
            match header.secret {
                Some(secret) => Body::SecretKey {
                    kind: secret.kind()?,
                    secret: SecretMaterial::Tpm { key, length: secret.length, imported: header.imported },
                    attributes,
                },
                None => Body::KeyPair {
                    public_key: key.public_key()?,
                    key: match header.persistent {
                        Some(place) => KeyMaterial::Placed(key, place.handle()?),
                        None => KeyMaterial::Wrapped(key),
                    },
                    imported: header.imported,
                    private: header.private.unwrap_or_default(),
                    public: header.public,
                },
            }
        }
        PERSISTENT_LABEL => {
            let wrong = || Error::malformed("object", "a persistent key without its handle");
            let text = header.persistent.ok_or_else(wrong)?;
            let handle = text.handle()?;
            let sealed_auth = Some(crate::hex::decode(&text.sealed_auth).ok_or_else(wrong)?);
            let sealed_auth = sealed_auth.filter(|sealed| !sealed.is_empty());
            let key = KeyMaterial::Persistent(PersistentKey { handle, public: der, sealed_auth });
            Body::KeyPair {
                public_key: key.public_area()?.public_key()?.clone(),
                key,
                imported: header.imported,
                private: header.private.unwrap_or_default(),
                public: header.public,
            }
        }
        PUBLIC_KEY_LABEL => {
            Body::PublicKey { public_key: PublicKey::from_spki_der(&der)?, local: header.local, attributes }
        }
        CERTIFICATE_LABEL => Body::Certificate { der, attributes },
        DATA_LABEL => Body::Data { value: der, attributes },
        other => return Err(Error::malformed("object", format_args!("its PEM block is a {other}"))),
    };
    Ok(Object { id, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(label: &str) -> Object {
        let attributes = Attributes { label: label.into(), id: vec![1, 2], modifiable: false, ..Attributes::default() };
        Object { id: ObjectId::random().unwrap(), body: Body::Data { value: b"value".to_vec(), attributes } }
    }

    #[test]
    fn an_object_survives_its_file_whatever_its_label() {
        for label in
            ["", "plain", "two\nlines", "x\n-----BEGIN CERTIFICATE-----\nAAAA\n", "'''\"\\ \u{0} ü", "\\", "\\\\n\\"]
        {
            let before = object(label);
            let text = to_text(&before).unwrap();
            let after = parse(before.id, &text).unwrap();
            let Body::Data { value, attributes } = after.body else { panic!("{text}") };
            assert_eq!((value.as_slice(), attributes.label.as_str()), (&b"value"[..], label));
            assert_eq!(attributes.id, [1, 2]);
            assert!(!attributes.modifiable && attributes.copyable);
        }
    }

    #[test]
    fn data_may_be_empty() {
        let Object { id, body: Body::Data { attributes, .. } } = object("x") else { panic!("it is data") };
        let before = Object { id, body: Body::Data { value: Vec::new(), attributes } };
        let after = parse(id, &to_text(&before).unwrap()).unwrap();
        assert!(matches!(after.body, Body::Data { value, .. } if value.is_empty()));
    }

    #[test]
    fn only_what_differs_from_the_default_is_written() {
        let text = to_text(&object("x")).unwrap();
        assert!(text.starts_with("[object]\nid = \"0102\"\nlabel = \"x\"\nmodifiable = false\n\n-----BEGIN"), "{text}");
    }

    #[test]
    fn damaged_text_is_refused() {
        let object = object("x");
        let text = to_text(&object).unwrap();
        for length in 0..text.len() - 1 {
            assert!(parse(object.id, &text[..length]).is_err(), "{}", &text[..length]);
        }
        assert!(parse(object.id, &format!("unknown = 1\n{text}")).is_err());
    }
}
