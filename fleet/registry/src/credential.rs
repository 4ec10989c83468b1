//! A device's credentials: a public key or a certificate, its format, and until when it may be used.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA256, VerificationAlgorithm,
};
use x509_parser::oid_registry::{OID_EC_P256, OID_NIST_EC_P384, Oid};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::error::{Error, Result};
use crate::limit::RSA_BITS;
use crate::timestamp::Timestamp;

/// What a client shows to be let in.
#[derive(Clone, Copy)]
pub enum Proof<'a> {
    /// The password of the MQTT CONNECT, or the bearer token of an HTTP request: a JWT.
    Token(&'a str),
    /// The certificates that TLS has verified possession of, as DER: the client's own first.
    Certificates(&'a [Vec<u8>]),
    /// Nothing.
    Nothing,
}

/// What a token may be signed with (RFC 7518, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
}

use SignatureAlgorithm::{Es256, Es384, Ps256, Rs256};

/// Name, and how a signature is checked.
const ALGORITHMS: [(SignatureAlgorithm, &str, &dyn VerificationAlgorithm); 4] = [
    (Rs256, "RS256", &RSA_PKCS1_2048_8192_SHA256),
    (Es256, "ES256", &ECDSA_P256_SHA256_FIXED),
    (Ps256, "PS256", &RSA_PSS_2048_8192_SHA256),
    (Es384, "ES384", &ECDSA_P384_SHA384_FIXED),
];

impl SignatureAlgorithm {
    fn row(self) -> (SignatureAlgorithm, &'static str, &'static dyn VerificationAlgorithm) {
        ALGORITHMS[self as usize]
    }

    /// As a token's header names it.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The one of this name. Every other is refused, `none` and `HS256` among them.
    pub fn parse(name: &str) -> Option<Self> {
        ALGORITHMS.iter().find(|row| row.1 == name).map(|row| row.0)
    }
}

/// The formats of IoT Core, and P-384 besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialFormat {
    /// An RSA public key.
    RsaPem,
    /// A certificate with an RSA key.
    RsaX509Pem,
    /// A P-256 public key.
    Es256Pem,
    /// A certificate with a P-256 key.
    Es256X509Pem,
    /// A P-384 public key.
    Es384Pem,
    /// A certificate with a P-384 key.
    Es384X509Pem,
}

use CredentialFormat::{Es256Pem, Es256X509Pem, Es384Pem, Es384X509Pem, RsaPem, RsaX509Pem};

/// Name, the type that the seed's command line calls it, and the algorithms a token may be signed with.
const FORMATS: [(CredentialFormat, &str, &str, &[SignatureAlgorithm]); 6] = [
    (RsaPem, "RSA_PEM", "rsa-pem", &[Rs256, Ps256]),
    (RsaX509Pem, "RSA_X509_PEM", "rs256", &[Rs256, Ps256]),
    (Es256Pem, "ES256_PEM", "es256-pem", &[Es256]),
    (Es256X509Pem, "ES256_X509_PEM", "es256", &[Es256]),
    (Es384Pem, "ES384_PEM", "es384-pem", &[Es384]),
    (Es384X509Pem, "ES384_X509_PEM", "es384", &[Es384]),
];

impl CredentialFormat {
    fn row(self) -> (CredentialFormat, &'static str, &'static str, &'static [SignatureAlgorithm]) {
        FORMATS[self as usize]
    }

    /// As IoT Core's API writes it: `RSA_X509_PEM`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The algorithms that a token may be signed with.
    pub fn algorithms(self) -> &'static [SignatureAlgorithm] {
        self.row().3
    }

    /// Whether it is a certificate.
    pub fn is_certificate(self) -> bool {
        matches!(self, RsaX509Pem | Es256X509Pem | Es384X509Pem)
    }

    /// Reads IoT Core's name or gcloud's type.
    pub fn parse(text: &str) -> Result<Self> {
        let found = FORMATS.iter().find(|row| row.1 == text || row.2 == text.to_ascii_lowercase());
        found.map(|row| row.0).ok_or_else(|| {
            let names: Vec<_> = FORMATS.iter().flat_map(|row| [row.2, row.1]).collect();
            Error::Invalid(format!("'{text}' is no type of public key: {}", names.join(", ")))
        })
    }
}

impl fmt::Display for CredentialFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A public key that a device signs its tokens with.
#[derive(Clone)]
pub struct Credential {
    /// What it is.
    pub format: CredentialFormat,
    /// As it was given.
    pub pem: Arc<str>,
    /// After this it lets nobody in any more.
    pub expires: Option<Timestamp>,
    /// For each algorithm of its format: parsed once, as that costs as much as some verifications.
    keys: Arc<[(SignatureAlgorithm, ParsedPublicKey)]>,
    /// SubjectPublicKeyInfo, to know the key again in a certificate.
    pub(crate) spki: Arc<[u8]>,
}

impl Credential {
    /// Reads a public key or certificate in PEM. What is in it must be what `format` says; without a format, it says
    /// itself what it is.
    pub fn parse(pem: &str, format: Option<CredentialFormat>, expires: Option<Timestamp>) -> Result<Self> {
        let (block, is_certificate) = one_block(pem)?;
        let (keys, spki, found) = if is_certificate {
            let (_, certificate) = X509Certificate::from_der(&block.contents)
                .map_err(|error| Error::Invalid(format!("the certificate cannot be read: {error}")))?;
            keys_of(&certificate.tbs_certificate.subject_pki, true)?
        } else {
            let (_, spki) = SubjectPublicKeyInfo::from_der(&block.contents)
                .map_err(|error| Error::Invalid(format!("the public key cannot be read: {error}")))?;
            keys_of(&spki, false)?
        };
        if let Some(format) = format
            && format.algorithms() != found.algorithms()
        {
            return Err(Error::Invalid(format!("this is {found}, not {format}")));
        }
        Ok(Self { format: found, pem: pem.into(), expires, keys: keys.into(), spki: spki.into() })
    }

    /// Whether it may still be used at `now`.
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }

    /// Whether its key made this signature by this algorithm.
    pub fn verifies(&self, algorithm: SignatureAlgorithm, message: &[u8], signature: &[u8]) -> bool {
        let key = self.keys.iter().find(|(own, _)| *own == algorithm);
        key.is_some_and(|(_, key)| key.verify_sig(message, signature).is_ok())
    }

    /// The certificate's DER, if it is one.
    pub fn certificate(&self) -> Option<Vec<u8>> {
        self.format.is_certificate().then(|| one_block(&self.pem).ok().map(|(block, _)| block.contents)).flatten()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("format", &self.format).field("expires", &self.expires).finish()
    }
}

/// The first key or certificate of a PEM text (`openssl x509` puts text before it), and whether it is a certificate.
fn one_block(pem: &str) -> Result<(Pem, bool)> {
    for block in Pem::iter_from_buffer(pem.as_bytes()) {
        let block = block.map_err(|error| Error::Invalid(format!("not a PEM file: {error}")))?;
        match block.label.as_str() {
            "CERTIFICATE" => return Ok((block, true)),
            "PUBLIC KEY" => return Ok((block, false)),
            label if label.contains("PRIVATE KEY") => {
                return Err(Error::Invalid("this is a private key: the registry takes public keys only".to_owned()));
            }
            _ => {}
        }
    }
    Err(Error::Invalid("there is no PEM block 'PUBLIC KEY' or 'CERTIFICATE'".to_owned()))
}

type Keys = Vec<(SignatureAlgorithm, ParsedPublicKey)>;

fn keys_of(spki: &SubjectPublicKeyInfo<'_>, x509: bool) -> Result<(Keys, Vec<u8>, CredentialFormat)> {
    let format = match spki.parsed() {
        Ok(PublicKey::RSA(rsa)) if rsa.key_size() < RSA_BITS => {
            let bits = rsa.key_size();
            return Err(Error::Invalid(format!("an RSA key of {bits} bits is too short: {RSA_BITS} are needed")));
        }
        Ok(PublicKey::RSA(_)) if x509 => RsaX509Pem,
        Ok(PublicKey::RSA(_)) => RsaPem,
        Ok(PublicKey::EC(_)) => {
            let curve = spki.algorithm.parameters.as_ref().and_then(|any| Oid::try_from(any).ok());
            match curve {
                Some(curve) if curve == OID_EC_P256 && x509 => Es256X509Pem,
                Some(curve) if curve == OID_EC_P256 => Es256Pem,
                Some(curve) if curve == OID_NIST_EC_P384 && x509 => Es384X509Pem,
                Some(curve) if curve == OID_NIST_EC_P384 => Es384Pem,
                _ => return Err(Error::Invalid("an EC key must be on P-256 or P-384".to_owned())),
            }
        }
        _ => return Err(Error::Invalid("the key is neither RSA nor EC".to_owned())),
    };
    let key = |algorithm: &SignatureAlgorithm| -> Result<_> {
        let parsed = ParsedPublicKey::new(algorithm.row().2, &spki.subject_public_key.data);
        let parsed = parsed.map_err(|error| Error::Invalid(format!("the public key cannot be used: {error}")))?;
        Ok((*algorithm, parsed))
    };
    let keys = format.algorithms().iter().map(key).collect::<Result<_>>()?;
    Ok((keys, spki.raw.to_vec(), format))
}
