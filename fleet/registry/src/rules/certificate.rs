//! Client certificates: signed by a CA of the registry, valid now, and made for this device.

use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::error::{Error, Result};
use crate::name::DeviceName;
use crate::refusal::Refusal;
use crate::timestamp::Timestamp;

/// Intermediate certificates between the device's and the registry's CA, at most.
const LONGEST_CHAIN: usize = 4;

/// Checks that a text is one CA certificate, and answers its subject.
pub fn check_ca(pem: &str) -> Result<String> {
    let der = der_of(pem)?;
    let certificate = parse(&der)?;
    if !certificate.is_ca() {
        return Err(Error::Invalid(format!("'{}' is not the certificate of a CA", certificate.subject())));
    }
    Ok(certificate.subject().to_string())
}

/// Whether one of the registry's CAs signed this certificate itself: what a credential must show when it is stored.
pub fn check_signed_by(der: &[u8], ca_certificates: &[String]) -> Result<(), Refusal> {
    let certificate = parse(der)?;
    if issuer_among(&certificate, ca_certificates) { Ok(()) } else { Err(foreign(&certificate)) }
}

/// Checks the certificates of a TLS client, its own first, and answers when its own ends.
pub fn check(
    chain: &[Vec<u8>],
    device: &DeviceName,
    ca_certificates: &[String],
    now: Timestamp,
) -> Result<Timestamp, Refusal> {
    if ca_certificates.is_empty() {
        return Err(Refusal::NoCa);
    }
    let chain = chain.iter().take(LONGEST_CHAIN + 1).map(|der| parse(der)).collect::<Result<Vec<_>, _>>()?;
    let own = chain.first().ok_or(Refusal::NoProof)?;
    check_names(own, device)?;
    check_use(own)?;
    for (index, certificate) in chain.iter().enumerate() {
        check_validity(certificate, now)?;
        if index > 0 && !certificate.is_ca() {
            return Err(Refusal::CertificateUnfit { why: format!("of '{}' is no CA's", certificate.subject()) });
        }
        if issuer_among(certificate, ca_certificates) {
            return Ok(Timestamp::from_seconds(own.validity().not_after.timestamp()));
        }
        match chain.get(index + 1) {
            Some(issuer) if signed(certificate, issuer) => {}
            _ => return Err(foreign(certificate)),
        }
    }
    Err(Refusal::NoProof)
}

/// The SubjectPublicKeyInfo in a certificate.
pub(crate) fn public_key(der: &[u8]) -> Result<Vec<u8>, Refusal> {
    Ok(parse(der)?.public_key().raw.to_vec())
}

/// The common name, a DNS name or a URI must name the device: by its id, or as a URI by its full name.
fn check_names(certificate: &X509Certificate<'_>, device: &DeviceName) -> Result<(), Refusal> {
    let id = device.id.as_str();
    let full = device.to_string();
    let mut names = Vec::new();
    let mut matches = false;
    for name in certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok()) {
        matches |= name == id || name == full;
        names.push(name.to_owned());
    }
    for extension in certificate.extensions() {
        let ParsedExtension::SubjectAlternativeName(alternative) = extension.parsed_extension() else { continue };
        for name in &alternative.general_names {
            let (GeneralName::DNSName(name) | GeneralName::URI(name)) = name else { continue };
            matches |= *name == id || *name == full || name.strip_suffix(&full).is_some_and(|rest| rest.ends_with('/'));
            names.push((*name).to_owned());
        }
    }
    if matches {
        return Ok(());
    }
    let names = if names.is_empty() { "nobody".to_owned() } else { format!("'{}'", names.join("', '")) };
    Err(Refusal::CertificateName { device: id.to_owned(), names })
}

/// Extended key usage, where there is any, must include TLS clients (RFC 5280, section 4.2.1.12).
fn check_use(certificate: &X509Certificate<'_>) -> Result<(), Refusal> {
    match certificate.extended_key_usage() {
        Ok(None) => Ok(()),
        Ok(Some(usage)) if usage.value.client_auth || usage.value.any => Ok(()),
        _ => Err(Refusal::CertificateUnfit { why: "is not for TLS clients (extended key usage)".to_owned() }),
    }
}

fn check_validity(certificate: &X509Certificate<'_>, now: Timestamp) -> Result<(), Refusal> {
    let validity = certificate.validity();
    let (begin, end) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    let unfit = |why: String| Err(Refusal::CertificateUnfit { why });
    if now.seconds() < begin {
        return unfit(format!("is not valid before {}", Timestamp::from_seconds(begin)));
    }
    if now.seconds() > end {
        return unfit(format!("expired at {}", Timestamp::from_seconds(end)));
    }
    Ok(())
}

fn issuer_among(certificate: &X509Certificate<'_>, ca_certificates: &[String]) -> bool {
    ca_certificates.iter().any(|pem| {
        let Ok(der) = der_of(pem) else { return false };
        X509Certificate::from_der(&der).is_ok_and(|(_, ca)| signed(certificate, &ca))
    })
}

fn signed(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    certificate.issuer().as_raw() == issuer.subject().as_raw()
        && certificate.verify_signature(Some(issuer.public_key())).is_ok()
}

fn foreign(certificate: &X509Certificate<'_>) -> Refusal {
    Refusal::CertificateForeign { issuer: certificate.issuer().to_string() }
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Refusal> {
    match X509Certificate::from_der(der) {
        Ok((_, certificate)) => Ok(certificate),
        Err(_) => Err(Refusal::CertificateUnfit { why: "cannot be read".to_owned() }),
    }
}

fn der_of(pem: &str) -> Result<Vec<u8>> {
    for block in Pem::iter_from_buffer(pem.as_bytes()) {
        let block = block.map_err(|error| Error::Invalid(format!("not a PEM file: {error}")))?;
        if block.label == "CERTIFICATE" {
            return Ok(block.contents);
        }
    }
    Err(Error::Invalid("there is no PEM block 'CERTIFICATE'".to_owned()))
}
