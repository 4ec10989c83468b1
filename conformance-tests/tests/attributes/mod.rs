//! The standard's tables of attributes (PKCS#11 3.2, chapter 4 and the key objects of chapter 6), with their footnotes.
#![allow(dead_code, reason = "each test file uses a part of it")]

use cryptoki_sys::*;

/// Kinds of objects, as bits.
pub(crate) type Kinds = u16;
pub(crate) const DATA: Kinds = 1;
pub(crate) const CERTIFICATE: Kinds = 1 << 1;
pub(crate) const RSA_PUBLIC: Kinds = 1 << 2;
pub(crate) const EC_PUBLIC: Kinds = 1 << 3;
pub(crate) const RSA_PRIVATE: Kinds = 1 << 4;
pub(crate) const EC_PRIVATE: Kinds = 1 << 5;
pub(crate) const AES: Kinds = 1 << 6;
pub(crate) const GENERIC: Kinds = 1 << 7;
const PUBLIC: Kinds = RSA_PUBLIC | EC_PUBLIC;
const PRIVATE: Kinds = RSA_PRIVATE | EC_PRIVATE;
const SECRET: Kinds = AES | GENERIC;
const KEY: Kinds = PUBLIC | PRIVATE | SECRET;
const STORED: Kinds = DATA | CERTIFICATE | KEY;

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Flag,
    Number,
    Text,
    Date,
    /// Any bytes.
    Bytes,
    /// Bytes that have a structure of their own.
    Structure,
    /// Numbers in a row.
    Numbers,
}

impl Form {
    /// Whether a value can be one of these.
    pub(crate) fn fits(self, value: &[u8]) -> bool {
        match self {
            Self::Flag => matches!(value, [0 | 1]),
            Self::Number => value.len() == size_of::<CK_ULONG>(),
            Self::Text => std::str::from_utf8(value).is_ok(),
            Self::Date => value.is_empty() || (value.len() == 8 && value.iter().all(u8::is_ascii_digit)),
            Self::Numbers => value.len().is_multiple_of(size_of::<CK_ULONG>()),
            Self::Bytes | Self::Structure => true,
        }
    }

    /// Values that cannot be one.
    pub(crate) fn misfits(self) -> Vec<Vec<u8>> {
        match self {
            Self::Flag => vec![vec![], vec![2], vec![1, 0], vec![0; 8]],
            Self::Number => vec![vec![], vec![0; 4], vec![0; 7], vec![0; 9]],
            Self::Text => vec![vec![0xff], b"half of \xc3".to_vec()],
            Self::Date => vec![b"2026".to_vec(), b"2026013x".to_vec(), b"202601311".to_vec()],
            Self::Numbers => vec![vec![1], vec![0; 9]],
            Self::Bytes | Self::Structure => vec![],
        }
    }
}

/// A row of the tables.
pub(crate) struct Attribute {
    pub(crate) kind: CK_ATTRIBUTE_TYPE,
    pub(crate) of: Kinds,
    pub(crate) form: Form,
    /// The numbers of table 13, "Common footnotes".
    notes: &'static [u8],
}

impl Attribute {
    pub(crate) fn has(&self, note: u8) -> bool {
        self.notes.contains(&note)
    }
}

const fn row(kind: CK_ATTRIBUTE_TYPE, of: Kinds, form: Form, notes: &'static [u8]) -> Attribute {
    Attribute { kind, of, form, notes }
}

use Form::{Bytes, Date, Flag, Number, Numbers, Structure, Text};

/// Certificates have footnotes of their own, and say in words what may be changed: that is footnote 8 here, and a
/// footnote that asks for a value is footnote 1. Templates in attributes, validation flags and the CRC are left out:
/// a token need not have them.
pub(crate) static TABLE: &[Attribute] = &[
    row(CKA_CLASS, STORED, Number, &[1]),
    row(CKA_UNIQUE_ID, STORED, Text, &[2, 4, 6]),
    row(CKA_TOKEN, STORED, Flag, &[]),
    row(CKA_PRIVATE, STORED, Flag, &[]),
    row(CKA_MODIFIABLE, STORED, Flag, &[]),
    row(CKA_COPYABLE, STORED, Flag, &[]),
    row(CKA_DESTROYABLE, STORED, Flag, &[]),
    row(CKA_LABEL, STORED, Text, &[8]),
    row(CKA_APPLICATION, DATA, Text, &[]),
    row(CKA_OBJECT_ID, DATA, Bytes, &[]),
    row(CKA_VALUE, DATA, Bytes, &[]),
    row(CKA_CERTIFICATE_TYPE, CERTIFICATE, Number, &[1]),
    row(CKA_CERTIFICATE_CATEGORY, CERTIFICATE, Number, &[]),
    row(CKA_CHECK_VALUE, CERTIFICATE, Structure, &[]),
    row(CKA_START_DATE, CERTIFICATE, Date, &[]),
    row(CKA_END_DATE, CERTIFICATE, Date, &[]),
    row(CKA_PUBLIC_KEY_INFO, CERTIFICATE, Structure, &[]),
    row(CKA_TRUSTED, CERTIFICATE | PUBLIC, Flag, &[10]),
    row(CKA_SUBJECT, CERTIFICATE, Bytes, &[1]),
    row(CKA_ID, CERTIFICATE, Bytes, &[8]),
    row(CKA_ISSUER, CERTIFICATE, Structure, &[8]),
    row(CKA_SERIAL_NUMBER, CERTIFICATE, Structure, &[8]),
    row(CKA_VALUE, CERTIFICATE, Structure, &[1]),
    row(CKA_URL, CERTIFICATE, Structure, &[]),
    row(CKA_HASH_OF_SUBJECT_PUBLIC_KEY, CERTIFICATE, Structure, &[]),
    row(CKA_HASH_OF_ISSUER_PUBLIC_KEY, CERTIFICATE, Structure, &[]),
    row(CKA_NAME_HASH_ALGORITHM, CERTIFICATE, Number, &[]),
    row(CKA_JAVA_MIDP_SECURITY_DOMAIN, CERTIFICATE, Number, &[]),
    row(CKA_KEY_TYPE, KEY, Number, &[1, 5]),
    row(CKA_ID, KEY, Bytes, &[8]),
    row(CKA_START_DATE, KEY, Date, &[8]),
    row(CKA_END_DATE, KEY, Date, &[8]),
    row(CKA_DERIVE, KEY, Flag, &[8]),
    row(CKA_LOCAL, KEY, Flag, &[2, 4, 6]),
    row(CKA_KEY_GEN_MECHANISM, KEY, Number, &[2, 4, 6]),
    row(CKA_ALLOWED_MECHANISMS, KEY, Numbers, &[]),
    row(CKA_SUBJECT, PUBLIC | PRIVATE, Bytes, &[8]),
    row(CKA_PUBLIC_KEY_INFO, PUBLIC, Structure, &[]),
    row(CKA_PUBLIC_KEY_INFO, PRIVATE, Structure, &[8]),
    row(CKA_ENCRYPT, PUBLIC | SECRET, Flag, &[8]),
    row(CKA_DECRYPT, PRIVATE | SECRET, Flag, &[8]),
    row(CKA_SIGN, PRIVATE | SECRET, Flag, &[8]),
    row(CKA_VERIFY, PUBLIC | SECRET, Flag, &[8]),
    row(CKA_SIGN_RECOVER, PRIVATE, Flag, &[8]),
    row(CKA_VERIFY_RECOVER, PUBLIC, Flag, &[8]),
    row(CKA_WRAP, PUBLIC | SECRET, Flag, &[8]),
    row(CKA_UNWRAP, PRIVATE | SECRET, Flag, &[8]),
    row(CKA_ENCAPSULATE, PUBLIC, Flag, &[8]),
    row(CKA_DECAPSULATE, PRIVATE, Flag, &[8]),
    row(CKA_SENSITIVE, PRIVATE | SECRET, Flag, &[8, 11]),
    row(CKA_EXTRACTABLE, PRIVATE | SECRET, Flag, &[8, 12]),
    row(CKA_ALWAYS_SENSITIVE, PRIVATE | SECRET, Flag, &[2, 4, 6]),
    row(CKA_NEVER_EXTRACTABLE, PRIVATE | SECRET, Flag, &[2, 4, 6]),
    row(CKA_WRAP_WITH_TRUSTED, PRIVATE | SECRET, Flag, &[11]),
    row(CKA_ALWAYS_AUTHENTICATE, PRIVATE, Flag, &[]),
    row(CKA_MODULUS, RSA_PUBLIC, Structure, &[1, 4]),
    row(CKA_MODULUS_BITS, RSA_PUBLIC, Number, &[2, 3]),
    row(CKA_PUBLIC_EXPONENT, RSA_PUBLIC, Structure, &[1]),
    row(CKA_MODULUS, RSA_PRIVATE, Structure, &[1, 4, 6]),
    row(CKA_PUBLIC_EXPONENT, RSA_PRIVATE, Structure, &[1, 4, 6]),
    row(CKA_PRIVATE_EXPONENT, RSA_PRIVATE, Structure, &[1, 4, 6, 7]),
    row(CKA_PRIME_1, RSA_PRIVATE, Structure, &[4, 6, 7]),
    row(CKA_PRIME_2, RSA_PRIVATE, Structure, &[4, 6, 7]),
    row(CKA_EXPONENT_1, RSA_PRIVATE, Structure, &[4, 6, 7]),
    row(CKA_EXPONENT_2, RSA_PRIVATE, Structure, &[4, 6, 7]),
    row(CKA_COEFFICIENT, RSA_PRIVATE, Structure, &[4, 6, 7]),
    row(CKA_EC_PARAMS, EC_PUBLIC, Structure, &[1, 3]),
    row(CKA_EC_POINT, EC_PUBLIC, Structure, &[1, 4]),
    row(CKA_EC_PARAMS, EC_PRIVATE, Structure, &[1, 4, 6]),
    row(CKA_VALUE, EC_PRIVATE, Structure, &[1, 4, 6, 7]),
    row(CKA_VALUE, SECRET, Structure, &[1, 4, 6, 7]),
    row(CKA_VALUE_LEN, SECRET, Number, &[2, 3]),
];

/// What the standard does not give an object of this kind, but one may have all the same: libp11 and others ask a
/// private EC key for its point.
pub(crate) fn may_have(kind: CK_ATTRIBUTE_TYPE, of: Kinds) -> bool {
    kind == CKA_EC_POINT && of == EC_PRIVATE
        || kind == CKA_CHECK_VALUE && of & SECRET != 0
        || kind == CKA_TRUSTED && of & SECRET != 0
}
