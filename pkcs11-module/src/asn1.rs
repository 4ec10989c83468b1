//! The little DER that attributes need: a certificate's fields, and the OCTET STRING around an EC point.

use der::asn1::{AnyRef, OctetStringRef};
use der::{Decode as _, Encode as _, Header, Reader, SliceReader, Tag, TagNumber};

/// The fields of an X.509 certificate that are PKCS#11 attributes, as the very bytes of the certificate.
///
/// Only its outer structure is read (RFC 5280, 4.1), so that a certificate with an odd extension is still an object.
pub(crate) struct CertificateFields<'a> {
    /// The serial number, an INTEGER with its header.
    pub(crate) serial_number: &'a [u8],
    /// The issuer's Name.
    pub(crate) issuer: &'a [u8],
    /// The SubjectPublicKeyInfo.
    pub(crate) public_key_info: &'a [u8],
}

impl<'a> CertificateFields<'a> {
    /// Reads them.
    pub(crate) fn read(certificate: &'a [u8]) -> der::Result<Self> {
        AnyRef::from_der(certificate)?;
        let mut outer = SliceReader::new(certificate)?;
        enter_sequence(&mut outer)?;
        let body = outer.tlv_bytes()?;
        let mut body = SliceReader::new(body)?;
        enter_sequence(&mut body)?;
        let version = Tag::ContextSpecific { constructed: true, number: TagNumber::N0 };
        if body.peek_tag()? == version {
            body.tlv_bytes()?;
        }
        let serial_number = body.tlv_bytes()?;
        let _signature_algorithm = body.tlv_bytes()?;
        let issuer = body.tlv_bytes()?;
        let _validity = body.tlv_bytes()?;
        let _subject = body.tlv_bytes()?;
        let public_key_info = body.tlv_bytes()?;
        Ok(Self { serial_number, issuer, public_key_info })
    }
}

/// The DER of an OCTET STRING.
pub(crate) fn octet_string(content: &[u8]) -> der::Result<Vec<u8>> {
    OctetStringRef::new(content)?.to_der()
}

/// The content of an OCTET STRING.
pub(crate) fn octet_string_content(der: &[u8]) -> der::Result<&[u8]> {
    Ok(OctetStringRef::from_der(der)?.as_bytes())
}

/// Goes inside a SEQUENCE.
fn enter_sequence<'a>(reader: &mut impl Reader<'a>) -> der::Result<()> {
    let header = Header::decode(reader)?;
    header.tag.assert_eq(Tag::Sequence)?;
    Ok(())
}
