//! `TSS2 PRIVATE KEY` files (draft-bottomley-tpm2-keys): the ASN.1 around a wrapped TPM key.

use der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef, Utf8StringRef};
use der::pem::LineEnding;
use der::{Decode, Encode, Sequence};

use crate::error::{Error, Result};
use crate::public_area::PublicArea;
use crate::public_key::PublicKey;

/// The PEM label.
pub const PEM_LABEL: &str = "TSS2 PRIVATE KEY";
/// `id-loadablekey`: a key that TPM2_Load takes as it is.
const LOADABLE_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.10.1.3");

/// A wrapped TPM key as its file holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tss2Key {
    /// Its authValue is empty.
    pub empty_auth: bool,
    /// Handle of the parent: persistent (0x81......), or a hierarchy (0x40000001 owner) whose standard primary key
    /// it is under.
    pub parent: u32,
    /// `TPM2B_PUBLIC`, marshalled.
    pub public: Vec<u8>,
    /// `TPM2B_PRIVATE`, marshalled: the private part, encrypted by the TPM.
    pub private: Vec<u8>,
    /// Free text; a key of a token that needs a login names both here.
    pub description: Option<String>,
}

/// `TPMKey` of the draft, section 3.1.
#[derive(Sequence)]
struct TpmKey<'a> {
    kind: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    empty_auth: Option<bool>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    policy: Option<AnyRef<'a>>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", optional = "true")]
    secret: Option<OctetStringRef<'a>>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    auth_policy: Option<AnyRef<'a>>,
    #[asn1(context_specific = "4", tag_mode = "EXPLICIT", optional = "true")]
    description: Option<Utf8StringRef<'a>>,
    #[asn1(context_specific = "5", tag_mode = "EXPLICIT", optional = "true")]
    rsa_parent: Option<bool>,
    parent: u32,
    public: OctetStringRef<'a>,
    private: OctetStringRef<'a>,
}

impl Tss2Key {
    /// Reads DER.
    ///
    /// Errors: [`Error::Malformed`]; [`Error::Unsupported`] for importable and sealed keys and keys with a policy.
    pub fn from_der(der: &[u8]) -> Result<Self> {
        let key = TpmKey::from_der(der).map_err(malformed)?;
        if key.kind != LOADABLE_KEY {
            return Err(Error::Unsupported(format!("TPM key files of type {}", key.kind)));
        }
        if key.policy.is_some() || key.auth_policy.is_some() || key.secret.is_some() {
            return Err(Error::Unsupported("TPM key files with a policy".into()));
        }
        if key.rsa_parent == Some(true) {
            return Err(Error::Unsupported("TPM key files under an RSA primary key".into()));
        }
        let key = Self {
            empty_auth: key.empty_auth.unwrap_or(false),
            parent: key.parent,
            public: key.public.as_bytes().to_vec(),
            private: key.private.as_bytes().to_vec(),
            description: key.description.map(|text| text.as_str().to_owned()),
        };
        let length = key.private.split_first_chunk().map(|(size, rest)| (u16::from_be_bytes(*size), rest.len()));
        if length.is_none_or(|(told, found)| usize::from(told) != found) {
            return Err(malformed("its private part has a wrong length"));
        }
        key.public_area()?;
        Ok(key)
    }

    /// Writes DER.
    pub fn to_der(&self) -> Result<Vec<u8>> {
        let key = TpmKey {
            kind: LOADABLE_KEY,
            empty_auth: self.empty_auth.then_some(true),
            policy: None,
            secret: None,
            auth_policy: None,
            description: self.description.as_deref().map(Utf8StringRef::new).transpose().map_err(malformed)?,
            rsa_parent: None,
            parent: self.parent,
            public: OctetStringRef::new(&self.public).map_err(malformed)?,
            private: OctetStringRef::new(&self.private).map_err(malformed)?,
        };
        key.to_der().map_err(malformed)
    }

    /// Reads the `TSS2 PRIVATE KEY` block of a file, whatever text stands before it.
    pub fn from_pem(text: &str) -> Result<Self> {
        let begin = pem_start(text).ok_or_else(|| malformed("no PEM block"))?;
        let (label, der) = der::pem::decode_vec(&text.as_bytes()[begin..]).map_err(malformed)?;
        if label != PEM_LABEL {
            return Err(malformed(format_args!("the PEM block is a {label}")));
        }
        Self::from_der(&der)
    }

    /// Writes the PEM block.
    pub fn to_pem(&self) -> Result<String> {
        der::pem::encode_string(PEM_LABEL, LineEnding::LF, &self.to_der()?).map_err(malformed)
    }

    /// The TPM's public area of the key.
    pub fn public_area(&self) -> Result<PublicArea> {
        PublicArea::parse(&self.public)
    }

    /// The public key, read from the TPM's public area.
    pub fn public_key(&self) -> Result<PublicKey> {
        Ok(self.public_area()?.public_key)
    }
}

/// Where the first PEM block of a text begins: at the start of a line.
pub(crate) fn pem_start(text: &str) -> Option<usize> {
    const BEGIN: &str = "-----BEGIN ";
    let later = || text.find(&format!("\n{BEGIN}")).map(|position| position + 1);
    if text.starts_with(BEGIN) { Some(0) } else { later() }
}

fn malformed(reason: impl std::fmt::Display) -> Error {
    Error::malformed("TPM key file", reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A public area as `tpm2_create -G ecc` makes it: P-256, sign, null schemes.
    fn key() -> Tss2Key {
        let generator = "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296\
                         4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";
        let point = crate::hex::decode(generator).unwrap();
        let mut area = crate::hex::decode("0023000b0004047200000010001000030010").unwrap();
        for coordinate in point.chunks(32) {
            area.extend_from_slice(&[0, 32]);
            area.extend_from_slice(coordinate);
        }
        let public = [&(area.len() as u16).to_be_bytes()[..], &area].concat();
        Tss2Key { empty_auth: true, parent: 0x8100_0001, public, private: vec![0, 2, 7, 7], description: None }
    }

    #[test]
    fn a_key_survives_its_file() {
        let mut key = key();
        assert_eq!(Tss2Key::from_pem(&key.to_pem().unwrap()).unwrap(), key);
        key.description = Some("keyrivet:0011223344556677/00".into());
        key.empty_auth = false;
        let text = format!("label = \"x\"\n\n{}", key.to_pem().unwrap());
        assert_eq!(Tss2Key::from_pem(&text).unwrap(), key);
        assert_eq!(key.public_key().unwrap().bits(), 256);
        assert_eq!(key.public_area().unwrap().name.len(), 34);
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let der = key().to_der().unwrap();
        for length in 0..der.len() {
            assert!(Tss2Key::from_der(&der[..length]).is_err());
        }
        let mut wrong = key();
        wrong.private = vec![0, 9, 1];
        assert!(Tss2Key::from_der(&wrong.to_der().unwrap()).is_err());
    }
}
