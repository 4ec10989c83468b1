//! What tells certificates apart, read from their DER (RFC 5280, 4.1).

use der::{AnyRef, Decode, Encode as _, Reader as _, SliceReader, Tag, TagNumber, Tagged as _};

/// Places in `TBSCertificate`, its version left out.
const SERIAL: usize = 0;
const ISSUER: usize = 2;
const SUBJECT: usize = 4;

/// The DER of the subject's Name.
pub(crate) fn subject(certificate: &[u8]) -> Option<Vec<u8>> {
    element(certificate, SUBJECT)?.to_der().ok()
}

/// The DER of the issuer's Name.
pub(crate) fn issuer(certificate: &[u8]) -> Option<Vec<u8>> {
    element(certificate, ISSUER)?.to_der().ok()
}

/// The serial number, big-endian without leading zeros.
pub(crate) fn serial(certificate: &[u8]) -> Option<Vec<u8>> {
    let number = element(certificate, SERIAL)?.value();
    let zeros = number.iter().take_while(|&&byte| byte == 0).count();
    Some(number[zeros..].to_vec())
}

fn element(certificate: &[u8], place: usize) -> Option<AnyRef<'_>> {
    let mut reader = inside(AnyRef::from_der(certificate).ok()?)?;
    let mut fields = inside(AnyRef::decode(&mut reader).ok()?)?;
    let version = Tag::ContextSpecific { constructed: true, number: TagNumber::N0 };
    let mut next = AnyRef::decode(&mut fields).ok()?;
    if next.tag() == version {
        next = AnyRef::decode(&mut fields).ok()?;
    }
    for _ in 0..place {
        next = AnyRef::decode(&mut fields).ok()?;
    }
    (!fields.is_finished()).then_some(next)
}

fn inside(sequence: AnyRef<'_>) -> Option<SliceReader<'_>> {
    if sequence.tag() == Tag::Sequence { SliceReader::new(sequence.value()).ok() } else { None }
}
