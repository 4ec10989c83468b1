//! `TSS2 PRIVATE KEY` files (draft-bottomley-tpm2-keys): the ASN.1 around a wrapped TPM key.

use der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef, Utf8StringRef};
use der::pem::LineEnding;
use der::{Encode, Reader, Sequence, SliceReader, Tag, Tagged as _};

use crate::error::{Error, Result};
use crate::pem;
use crate::policy::PolicyStep;
use crate::public_area::PublicArea;
use crate::public_key::PublicKey;

/// The PEM label.
pub const PEM_LABEL: &str = "TSS2 PRIVATE KEY";
/// `id-loadablekey`: a key that TPM2_Load takes as it is.
const LOADABLE_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.10.1.3");
/// `id-importablekey`: a key that TPM2_Import takes, wrapped to its parent somewhere else.
const IMPORTABLE_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.10.1.4");

/// TPM_RH_OWNER (Part 2, 7.4).
const OWNER: u32 = 0x4000_0001;

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
    /// The steps that satisfy its policy; empty for a key without one.
    pub policy: Vec<PolicyStep>,
    /// Other policies that satisfy the key's, each by itself, tried in this order and before [`Self::policy`].
    pub auth_policy: Vec<AuthPolicy>,
    /// Of an importable key: the content of `TPM2B_ENCRYPTED_SECRET` that TPM2_Import takes with it.
    pub secret: Option<Vec<u8>>,
    /// A parent that is a hierarchy stands for its RSA primary key, not the one of P-256.
    pub rsa_parent: bool,
}

/// A policy that somebody signed later than the key was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthPolicy {
    /// Its name, for humans.
    pub name: Option<String>,
    /// Its steps.
    pub steps: Vec<PolicyStep>,
}

/// `TPMKey` of the draft, section 3.1, to be written.
#[derive(Sequence)]
struct TpmKey<'a> {
    kind: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    empty_auth: Option<bool>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    policy: Option<Vec<TpmPolicy<'a>>>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", optional = "true")]
    secret: Option<OctetStringRef<'a>>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    auth_policy: Option<Vec<TpmAuthPolicy<'a>>>,
    #[asn1(context_specific = "4", tag_mode = "EXPLICIT", optional = "true")]
    description: Option<Utf8StringRef<'a>>,
    #[asn1(context_specific = "5", tag_mode = "EXPLICIT", optional = "true")]
    rsa_parent: Option<bool>,
    parent: u32,
    public: OctetStringRef<'a>,
    private: OctetStringRef<'a>,
}

/// `TPMPolicy` of the draft, section 3.1.2.
#[derive(Sequence)]
struct TpmPolicy<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    command: u32,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT")]
    parameters: OctetStringRef<'a>,
}

/// `TPMAuthPolicy` of the draft, section 3.1.4.
#[derive(Sequence)]
struct TpmAuthPolicy<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    name: Option<Utf8StringRef<'a>>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT")]
    policy: Vec<TpmPolicy<'a>>,
}

impl TpmPolicy<'_> {
    fn read(policy: &[Self]) -> Vec<PolicyStep> {
        let step = |step: &Self| PolicyStep { command: step.command, parameters: step.parameters.as_bytes().to_vec() };
        policy.iter().map(step).collect()
    }
}

impl<'a> TpmPolicy<'a> {
    fn of(steps: &'a [PolicyStep]) -> Result<Vec<Self>> {
        let step = |step: &'a PolicyStep| Ok(Self { command: step.command, parameters: bytes(&step.parameters)? });
        steps.iter().map(step).collect()
    }
}

fn bytes(bytes: &[u8]) -> Result<OctetStringRef<'_>> {
    OctetStringRef::new(bytes).map_err(malformed)
}

impl Tss2Key {
    /// Reads DER. Optional fields that we do not know are passed over.
    ///
    /// Errors: [`Error::Malformed`]; [`Error::Unsupported`] for sealed data and keys of types unknown.
    pub fn from_der(der: &[u8]) -> Result<Self> {
        let mut reader = SliceReader::new(der).map_err(malformed)?;
        let key = reader.sequence(Self::read).map_err(malformed)?;
        reader.finish(()).map_err(malformed)?;
        let (kind, key) = key;
        if kind != LOADABLE_KEY && kind != IMPORTABLE_KEY {
            return Err(Error::Unsupported(format!("TPM key files of type {kind}")));
        }
        if (kind == IMPORTABLE_KEY) != key.secret.is_some() {
            return Err(malformed("an importable key has a secret, and no other has"));
        }
        let length = key.private.split_first_chunk().map(|(size, rest)| (u16::from_be_bytes(*size), rest.len()));
        if length.is_none_or(|(told, found)| usize::from(told) != found) {
            return Err(malformed("its private part has a wrong length"));
        }
        key.public_area()?;
        Ok(key)
    }

    /// The fields of the sequence.
    fn read<'a>(reader: &mut der::NestedReader<'_, SliceReader<'a>>) -> der::Result<(ObjectIdentifier, Self)> {
        let kind = reader.decode()?;
        let mut key = Self {
            empty_auth: false,
            parent: 0,
            public: Vec::new(),
            private: Vec::new(),
            description: None,
            policy: Vec::new(),
            auth_policy: Vec::new(),
            secret: None,
            rsa_parent: false,
        };
        let mut last = None;
        while let Tag::ContextSpecific { number, constructed: true } = reader.peek_tag()? {
            if last.is_some_and(|last| last >= number) {
                return Err(reader.error(der::ErrorKind::SetOrdering));
            }
            last = Some(number);
            let field: AnyRef<'a> = reader.decode()?;
            let mut content = SliceReader::new(field.value())?;
            match number.value() {
                0 => key.empty_auth = boolean(&mut content)?,
                1 => key.policy = TpmPolicy::read(&content.decode::<Vec<TpmPolicy<'a>>>()?),
                2 => key.secret = Some(without_size(content.decode::<OctetStringRef<'a>>()?.as_bytes()).to_vec()),
                3 => {
                    let alternatives: Vec<TpmAuthPolicy<'a>> = content.decode()?;
                    let read = |one: &TpmAuthPolicy<'_>| AuthPolicy {
                        name: one.name.as_ref().map(|name| name.as_str().to_owned()),
                        steps: TpmPolicy::read(&one.policy),
                    };
                    key.auth_policy = alternatives.iter().map(read).collect();
                }
                4 => key.description = Some(content.decode::<Utf8StringRef<'a>>()?.as_str().to_owned()),
                5 => key.rsa_parent = boolean(&mut content)?,
                _ => content.decode::<AnyRef<'a>>().map(drop)?,
            }
            content.finish(())?;
        }
        key.parent = parent(reader)?;
        key.public = reader.decode::<OctetStringRef<'a>>()?.as_bytes().to_vec();
        key.private = reader.decode::<OctetStringRef<'a>>()?.as_bytes().to_vec();
        Ok((kind, key))
    }

    /// Writes DER.
    pub fn to_der(&self) -> Result<Vec<u8>> {
        let mut alternatives = Vec::new();
        for one in &self.auth_policy {
            let name = one.name.as_deref().map(Utf8StringRef::new).transpose().map_err(malformed)?;
            alternatives.push(TpmAuthPolicy { name, policy: TpmPolicy::of(&one.steps)? });
        }
        let key = TpmKey {
            kind: if self.secret.is_some() { IMPORTABLE_KEY } else { LOADABLE_KEY },
            empty_auth: self.empty_auth.then_some(true),
            policy: Some(TpmPolicy::of(&self.policy)?).filter(|steps| !steps.is_empty()),
            auth_policy: Some(alternatives).filter(|alternatives| !alternatives.is_empty()),
            secret: self.secret.as_deref().map(bytes).transpose()?,
            description: self.description.as_deref().map(Utf8StringRef::new).transpose().map_err(malformed)?,
            rsa_parent: self.rsa_parent.then_some(true),
            parent: self.parent,
            public: bytes(&self.public)?,
            private: bytes(&self.private)?,
        };
        key.to_der().map_err(malformed)
    }

    /// Reads the `TSS2 PRIVATE KEY` block of a file, whatever text stands before it.
    pub fn from_pem(text: &str) -> Result<Self> {
        let begin = pem_start(text).ok_or_else(|| malformed("no PEM block"))?;
        let (label, der) = pem::decode(&text[begin..])?;
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
        Ok(self.public_area()?.public_key()?.clone())
    }
}

/// A secret without the size of its `TPM2B_ENCRYPTED_SECRET`, which some write and some do not.
///
/// An RSA parent's secret is as long as its modulus and has no size in it by itself; an ECC parent's begins with the
/// size of a coordinate.
fn without_size(secret: &[u8]) -> &[u8] {
    match secret.split_first_chunk() {
        Some((size, rest)) if usize::from(u16::from_be_bytes(*size)) == rest.len() && secret.len() % 128 != 0 => rest,
        _ => secret,
    }
}

/// A BOOLEAN of BER, X.690 8.2.2: tpm2-openssl and tpm2-tss-engine write TRUE as 1, where DER has 255.
fn boolean<'a>(reader: &mut impl Reader<'a>) -> der::Result<bool> {
    let field: AnyRef<'a> = reader.decode()?;
    match (field.tag(), field.value()) {
        (Tag::Boolean, [value]) => Ok(*value != 0),
        (Tag::Boolean, _) => Err(reader.error(der::ErrorKind::Length { tag: Tag::Boolean })),
        (tag, _) => Err(tag.unexpected_error(Some(Tag::Boolean))),
    }
}

/// The parent's handle. Old files of tpm2-tss-engine have 0 for the owner hierarchy, and those that it writes on a 32-bit
/// machine have a negative number for a persistent handle.
fn parent<'a>(reader: &mut impl Reader<'a>) -> der::Result<u32> {
    let field: AnyRef<'a> = reader.decode()?;
    let handle = match (field.tag(), field.value()) {
        (Tag::Integer, &[a, b, c, d]) => u32::from_be_bytes([a, b, c, d]),
        _ => field.decode_as()?,
    };
    Ok(if handle == 0 { OWNER } else { handle })
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
        Tss2Key {
            empty_auth: true,
            parent: 0x8100_0001,
            public,
            private: vec![0, 2, 7, 7],
            description: None,
            policy: Vec::new(),
            auth_policy: Vec::new(),
            secret: None,
            rsa_parent: false,
        }
    }

    #[test]
    fn a_key_survives_its_file() {
        let mut key = key();
        assert_eq!(Tss2Key::from_pem(&key.to_pem().unwrap()).unwrap(), key);
        key.description = Some("keyrivet:0011223344556677/00".into());
        key.empty_auth = false;
        let text = format!("label = \"x\"\n\n{}and more\n", key.to_pem().unwrap());
        assert_eq!(Tss2Key::from_pem(&text).unwrap(), key);
        let (first, rest) = text.split_once("KEY-----\n").unwrap();
        let in_one_line = format!("{first}KEY-----\n{}", rest.replacen('\n', "", 2));
        assert_eq!(Tss2Key::from_pem(&in_one_line).unwrap(), key);
        key.policy = vec![PolicyStep { command: 0x17f, parameters: vec![1, 2] }, PolicyStep::auth_value()];
        (key.secret, key.rsa_parent) = (Some(vec![5; 70]), true);
        let named = |name: Option<&str>| AuthPolicy { name: name.map(str::to_owned), steps: key.policy.clone() };
        key.auth_policy = vec![named(Some("after the update")), named(None)];
        assert_eq!(Tss2Key::from_der(&key.to_der().unwrap()).unwrap(), key);
        assert_eq!(key.public_key().unwrap().bits(), 256);
        assert_eq!(key.public_area().unwrap().name.len(), 34);
    }

    #[test]
    fn an_unknown_field_is_passed_over_and_a_malformed_or_misplaced_one_is_not() {
        let der = key().to_der().unwrap();
        // Before the INTEGER of the parent: 02 05 00 81 00 00 01.
        let place = der.windows(4).position(|bytes| bytes == [2, 5, 0, 0x81]).unwrap();
        let with = |field: &[u8]| {
            let mut changed = der.clone();
            changed.splice(place..place, field.iter().copied());
            let header = changed.iter().position(|byte| *byte == 6).unwrap();
            changed[header - 1] += field.len() as u8;
            Tss2Key::from_der(&changed)
        };
        assert_eq!(with(&[0xa7, 2, 5, 0]).unwrap(), key());
        assert_eq!(with(&[0xa3, 2, 0x30, 0]).unwrap(), key());
        assert!(with(&[0xa7, 2, 5, 1]).is_err());
        assert!(with(&[0xa5, 3, 2, 1, 0xff]).is_err());
        assert!(with(&[0xa5, 4, 1, 2, 0xff, 0xff]).is_err());
        assert!(with(&[0xa0, 3, 1, 1, 0xff]).is_err());
    }

    #[test]
    fn what_other_programs_write_besides_der_is_read() {
        let der = key().to_der().unwrap();
        let changed = |from: &[u8], to: &[u8]| {
            let place = der.windows(from.len()).position(|bytes| bytes == from).unwrap();
            let mut changed = der.clone();
            changed.splice(place..place + from.len(), to.iter().copied());
            let header = changed.iter().position(|byte| *byte == 6).unwrap();
            changed[header - 1] = (changed.len() - header) as u8;
            Tss2Key::from_der(&changed).unwrap()
        };
        assert_eq!(changed(&[0xa0, 3, 1, 1, 0xff], &[0xa0, 3, 1, 1, 1]), key());
        assert_eq!(changed(&[2, 5, 0, 0x81, 0, 0, 1], &[2, 4, 0x81, 0, 0, 1]), key());
        assert_eq!(changed(&[2, 5, 0, 0x81, 0, 0, 1], &[2, 1, 0]).parent, OWNER);
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
