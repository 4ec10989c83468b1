//! DER of algorithms: the identifiers that certificates and requests carry, and the public key of an RSA-PSS key.

use der::asn1::{Any, AnyRef, BitStringRef, ObjectIdentifier};
use der::{Encode, Sequence};
use keyrivet_core::algorithm::HashAlgorithm;
use keyrivet_core::public_key::PublicKey;
use keyrivet_core::{Error, Result};

use crate::key::PssLimits;

const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const MGF1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.8");

/// `AlgorithmIdentifier` (RFC 5280, 4.1.1.2).
#[derive(Sequence)]
struct AlgorithmIdentifier {
    oid: ObjectIdentifier,
    #[asn1(optional = "true")]
    parameters: Option<Any>,
}

/// `RSASSA-PSS-params` (RFC 4055, 3.1), with nothing left to its defaults of SHA-1.
#[derive(Sequence)]
struct PssParameters {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    hash: AlgorithmIdentifier,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT")]
    mask: AlgorithmIdentifier,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT")]
    salt_length: u16,
}

/// `SubjectPublicKeyInfo` (RFC 5280, 4.1).
#[derive(Sequence)]
struct SubjectPublicKeyInfo<'a> {
    algorithm: AlgorithmIdentifier,
    key: BitStringRef<'a>,
}

/// ECDSA's (RFC 5758, 3.2: no parameters).
pub(crate) fn ecdsa(hash: HashAlgorithm) -> Result<Vec<u8>> {
    AlgorithmIdentifier { oid: oids(hash).ecdsa, parameters: None }.to_der().map_err(malformed)
}

/// RSASSA-PKCS1-v1_5's (RFC 4055, 5: NULL parameters).
pub(crate) fn rsa_pkcs1(hash: HashAlgorithm) -> Result<Vec<u8>> {
    AlgorithmIdentifier { oid: oids(hash).rsa, parameters: Some(AnyRef::NULL.into()) }.to_der().map_err(malformed)
}

/// RSASSA-PSS's.
pub(crate) fn rsa_pss(hash: HashAlgorithm, salt_length: usize) -> Result<Vec<u8>> {
    pss(Some(PssLimits { hash, salt_length })).and_then(|identifier| identifier.to_der()).map_err(malformed)
}

/// The `SubjectPublicKeyInfo` of an RSA-PSS key, with its limits if it has some (RFC 4055, 3.1).
pub(crate) fn pss_public_key(key: &PublicKey, limits: Option<PssLimits>) -> Result<Vec<u8>> {
    let key = key.to_rsa_der()?;
    let info = || SubjectPublicKeyInfo { algorithm: pss(limits)?, key: BitStringRef::from_bytes(&key)? }.to_der();
    info().map_err(malformed)
}

fn pss(limits: Option<PssLimits>) -> der::Result<AlgorithmIdentifier> {
    let Some(PssLimits { hash, salt_length }) = limits else {
        return Ok(AlgorithmIdentifier { oid: RSASSA_PSS, parameters: None });
    };
    let hash_identifier = || AlgorithmIdentifier { oid: hash.oid(), parameters: Some(AnyRef::NULL.into()) };
    let parameters = PssParameters {
        hash: hash_identifier(),
        mask: AlgorithmIdentifier { oid: MGF1, parameters: Some(Any::encode_from(&hash_identifier())?) },
        salt_length: u16::try_from(salt_length).unwrap_or(u16::MAX),
    };
    Ok(AlgorithmIdentifier { oid: RSASSA_PSS, parameters: Some(Any::encode_from(&parameters)?) })
}

fn malformed(error: der::Error) -> Error {
    Error::Malformed { what: "AlgorithmIdentifier", reason: error.to_string() }
}

/// The object identifiers of a hash's signatures.
struct SignatureOids {
    /// `shaXXXWithRSAEncryption` (RFC 8017, A.2.4).
    rsa: ObjectIdentifier,
    /// `ecdsa-with-SHAxxx` (RFC 5758, 3.2; RFC 3279, 2.2.3).
    ecdsa: ObjectIdentifier,
}

fn oids(hash: HashAlgorithm) -> SignatureOids {
    let (rsa, ecdsa) = match hash {
        HashAlgorithm::Sha1 => ("1.2.840.113549.1.1.5", "1.2.840.10045.4.1"),
        HashAlgorithm::Sha224 => ("1.2.840.113549.1.1.14", "1.2.840.10045.4.3.1"),
        HashAlgorithm::Sha256 => ("1.2.840.113549.1.1.11", "1.2.840.10045.4.3.2"),
        HashAlgorithm::Sha384 => ("1.2.840.113549.1.1.12", "1.2.840.10045.4.3.3"),
        HashAlgorithm::Sha512 => ("1.2.840.113549.1.1.13", "1.2.840.10045.4.3.4"),
        HashAlgorithm::Sha3_224 => ("2.16.840.1.101.3.4.3.13", "2.16.840.1.101.3.4.3.9"),
        HashAlgorithm::Sha3_256 => ("2.16.840.1.101.3.4.3.14", "2.16.840.1.101.3.4.3.10"),
        HashAlgorithm::Sha3_384 => ("2.16.840.1.101.3.4.3.15", "2.16.840.1.101.3.4.3.11"),
        HashAlgorithm::Sha3_512 => ("2.16.840.1.101.3.4.3.16", "2.16.840.1.101.3.4.3.12"),
    };
    SignatureOids { rsa: ObjectIdentifier::new_unwrap(rsa), ecdsa: ObjectIdentifier::new_unwrap(ecdsa) }
}
