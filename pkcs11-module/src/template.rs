//! Templates: the attributes an application gives, and the values in them.

use cryptoki_sys::*;

use crate::error::{Error, Result};

/// A template as the application gave it, each attribute once.
pub(crate) struct Template<'a>(Vec<(CK_ATTRIBUTE_TYPE, &'a [u8])>);

impl<'a> Template<'a> {
    /// Takes its attributes.
    ///
    /// The same value twice counts as once, two values are CKR_TEMPLATE_INCONSISTENT (PKCS#11 3.2, "Creating objects").
    pub(crate) fn new(attributes: impl IntoIterator<Item = (CK_ATTRIBUTE_TYPE, &'a [u8])>) -> Result<Self> {
        let mut template = Self(Vec::new());
        for (kind, value) in attributes {
            match template.get(kind) {
                None => template.0.push((kind, value)),
                Some(known) if known == value => {}
                Some(_) => return Err(Error(CKR_TEMPLATE_INCONSISTENT)),
            }
        }
        Ok(template)
    }

    /// The value of one attribute.
    pub(crate) fn get(&self, kind: CK_ATTRIBUTE_TYPE) -> Option<&'a [u8]> {
        self.0.iter().find(|(known, _)| *known == kind).map(|(_, value)| *value)
    }

    /// Every attribute.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (CK_ATTRIBUTE_TYPE, &'a [u8])> + '_ {
        self.0.iter().copied()
    }
}

const INVALID: Error = Error(CKR_ATTRIBUTE_VALUE_INVALID);

/// A CK_BBOOL.
pub(crate) fn flag(value: &[u8]) -> Result<bool> {
    match value {
        [CK_FALSE] => Ok(false),
        [CK_TRUE] => Ok(true),
        _ => Err(INVALID),
    }
}

/// A CK_ULONG.
pub(crate) fn number(value: &[u8]) -> Result<CK_ULONG> {
    Ok(CK_ULONG::from_ne_bytes(value.try_into().map_err(|_| INVALID)?))
}

/// An array of CK_ULONG.
pub(crate) fn numbers(value: &[u8]) -> Result<Vec<CK_ULONG>> {
    value.chunks(size_of::<CK_ULONG>()).map(number).collect()
}

/// An RFC 2279 string.
pub(crate) fn text(value: &[u8]) -> Result<String> {
    String::from_utf8(value.to_vec()).map_err(|_| INVALID)
}

/// A CK_DATE, or nothing for "no date".
pub(crate) fn date(value: &[u8]) -> Result<String> {
    let text = text(value)?;
    let within = |range: std::ops::Range<usize>, last| (1..=last).contains(&text[range].parse().unwrap_or(0));
    let is_date = || value.iter().all(u8::is_ascii_digit) && within(4..6, 12) && within(6..8, 31);
    if value.is_empty() || (value.len() == 8 && is_date()) { Ok(text) } else { Err(INVALID) }
}

/// A CK_ULONG as the core stores it: on every machine the same.
#[allow(clippy::unnecessary_cast, reason = "CK_ULONG has 32 bits on some machines")]
pub(crate) fn wide(number: CK_ULONG) -> u64 {
    number as u64
}

/// The bytes of a CK_BBOOL.
pub(crate) fn flag_bytes(value: bool) -> Vec<u8> {
    vec![CK_BBOOL::from(value)]
}

/// The bytes of a CK_ULONG.
pub(crate) fn number_bytes(value: CK_ULONG) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_attribute_may_not_have_two_values() {
        let value = |bytes: &'static [u8]| (CKA_LABEL, bytes);
        assert!(Template::new([value(b"a"), value(b"a")]).is_ok());
        assert_eq!(Template::new([value(b"a"), value(b"b")]).err(), Some(Error(CKR_TEMPLATE_INCONSISTENT)));
    }

    #[test]
    fn values_of_a_wrong_length_are_refused() {
        assert_eq!(flag(&[]), Err(INVALID));
        assert_eq!(flag(&[2]), Err(INVALID));
        assert_eq!(number(&[1, 2, 3]), Err(INVALID));
        for wrong in [&b"2026"[..], b"2026013x", b"20261301", b"20260100", "2026\u{e9}31".as_bytes()] {
            assert_eq!(date(wrong), Err(INVALID), "{wrong:?}");
        }
        assert_eq!(date(b"20260131").as_deref(), Ok("20260131"));
        assert_eq!(date(b"").as_deref(), Ok(""));
        assert_eq!(text(&[0xff]), Err(INVALID));
    }
}
