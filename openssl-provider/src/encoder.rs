//! Keys as files and as text: public keys in the usual forms, private keys as `TSS2 PRIVATE KEY`, as they are wrapped.

use std::fmt::Write as _;

use der::pem::LineEnding;
use keyrivet_core::algorithm::Curve;
use keyrivet_core::public_key::PublicKey;
use keyrivet_core::{Error, Result};

use crate::algorithm_identifier;
use crate::ffi::core::Bio;
use crate::ffi::core_abi::*;
use crate::key::{Family, ProviderKey, PssLimits};

/// A form that keys are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// `SubjectPublicKeyInfo`, DER.
    SpkiDer,
    /// `SubjectPublicKeyInfo`, PEM.
    SpkiPem,
    /// `RSAPublicKey`, DER.
    RsaDer,
    /// `RSAPublicKey`, PEM.
    RsaPem,
    /// A key file, DER.
    Tss2Der,
    /// A key file, PEM.
    Tss2Pem,
    /// For the human eye.
    Text,
}

impl Format {
    /// Whether it shows what a selection asks for.
    ///
    /// Selections come as ranges: one with the private key has the public key in it, and is no wish for a public form.
    pub(crate) fn shows(self, selection: u32) -> bool {
        let private = selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY != 0;
        let public = selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY != 0;
        match self {
            Self::SpkiDer | Self::SpkiPem | Self::RsaDer | Self::RsaPem => public && !private,
            Self::Tss2Der | Self::Tss2Pem => private,
            Self::Text => private || public,
        }
    }
}

/// Writes a key.
pub(crate) fn encode(format: Format, key: &ProviderKey, selection: u32, bio: &mut Bio<'_>) -> Result<()> {
    let content = match format {
        Format::SpkiDer => spki(key)?,
        Format::SpkiPem => pem("PUBLIC KEY", &spki(key)?)?,
        Format::RsaDer => public(key)?.to_rsa_der()?,
        Format::RsaPem => pem("RSA PUBLIC KEY", &public(key)?.to_rsa_der()?)?,
        Format::Tss2Der => private(key)?.to_der()?,
        Format::Tss2Pem => private(key)?.to_pem()?.into_bytes(),
        Format::Text => text(key, selection)?.into_bytes(),
    };
    if bio.write(&content) { Ok(()) } else { Err(Error::Unsupported("writing to this output".into())) }
}

fn public(key: &ProviderKey) -> Result<&PublicKey> {
    key.public_key().ok_or_else(|| Error::Unsupported("writing a key that has no public part".into()))
}

fn spki(key: &ProviderKey) -> Result<Vec<u8>> {
    let public_key = public(key)?;
    match key.family() {
        Family::RsaPss => algorithm_identifier::pss_public_key(public_key, key.pss_limits()),
        Family::Rsa | Family::Ec => public_key.to_spki_der(),
    }
}

fn private(key: &ProviderKey) -> Result<&keyrivet_core::tss2_pem::Tss2Key> {
    if key.is_ephemeral() {
        return Err(Error::Unsupported(
            "writing a key that was made for a handshake: to have one, name its parent".into(),
        ));
    }
    let key = key.private_key().ok_or_else(|| Error::Unsupported("writing a key that has no private part".into()))?;
    key.tss2().ok_or_else(|| Error::Unsupported("writing a key that is in the TPM for good to a file".into()))
}

fn pem(label: &'static str, content: &[u8]) -> Result<Vec<u8>> {
    der::pem::encode_string(label, LineEnding::LF, content)
        .map(String::into_bytes)
        .map_err(|error| Error::Malformed { what: "PEM", reason: error.to_string() })
}

/// What `openssl pkey -text` shows, in the form that it has for other keys.
fn text(key: &ProviderKey, selection: u32) -> Result<String> {
    let shows_private = selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY != 0 && key.private_key().is_some();
    let (title, place) = if shows_private { ("Private-Key", ", in the TPM") } else { ("Public-Key", "") };
    let public_key = public(key)?;
    let kind = if key.family() == Family::RsaPss { "RSA-PSS " } else { "" };
    let mut text = format!("{kind}{title}: ({} bit{place})\n", public_key.bits());
    match public_key {
        PublicKey::Rsa { modulus, exponent } => {
            let name = if shows_private { "modulus" } else { "Modulus" };
            // A leading zero shows that the number is positive, as OpenSSL prints it.
            let zero: &[u8] = if modulus.first().is_some_and(|&byte| byte >= 0x80) { &[0] } else { &[] };
            let _ = writeln!(text, "{name}:\n{}", hex_lines(&[zero, modulus].concat()));
            let exponent = exponent.iter().fold(0_u64, |value, &byte| value << 8 | u64::from(byte));
            let name = if shows_private { "publicExponent" } else { "Exponent" };
            let _ = writeln!(text, "{name}: {exponent} (0x{exponent:x})");
            if let Some(PssLimits { hash, salt_length }) = key.pss_limits() {
                let hash = hash.name();
                let _ = writeln!(text, "Hash Algorithm: {hash}\nMask Algorithm: MGF1 with {hash}");
                let _ = writeln!(text, "Minimum Salt Length: {salt_length}");
            }
        }
        PublicKey::Ec { curve, point } => {
            let nist = match curve {
                Curve::P256 => "P-256",
                Curve::P384 => "P-384",
                Curve::P521 => "P-521",
            };
            let _ = writeln!(text, "pub:\n{}\nASN1 OID: {}\nNIST CURVE: {nist}", hex_lines(point), curve.name());
        }
    }
    Ok(text)
}

/// Bytes in lines of fifteen, separated by colons.
fn hex_lines(bytes: &[u8]) -> String {
    let line = |bytes: &[u8]| {
        let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("    {}", digits.join(":"))
    };
    bytes.chunks(15).map(line).collect::<Vec<_>>().join(":\n")
}
