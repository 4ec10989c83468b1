//! How an RSA signature is padded: what OpenSSL's parameters say of it.

use std::ffi::{CStr, CString};

use keyrivet_core::algorithm::HashAlgorithm;
use keyrivet_core::public_key::PublicKey;
use keyrivet_core::{Error, Result};

use crate::ffi::core_abi::*;
use crate::ffi::params::{Answers, Param, Params};
use crate::key::hash_by_name;

/// A padding of RSA signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Padding {
    Pkcs1,
    Pss,
    None,
}

/// Each padding with its number and its name.
const PADDINGS: [(Padding, u32, &CStr); 3] = [
    (Padding::Pkcs1, RSA_PKCS1_PADDING, OSSL_PKEY_RSA_PAD_MODE_PKCSV15),
    (Padding::Pss, RSA_PKCS1_PSS_PADDING, OSSL_PKEY_RSA_PAD_MODE_PSS),
    (Padding::None, RSA_NO_PADDING, OSSL_PKEY_RSA_PAD_MODE_NONE),
];

/// How long the salt of a PSS signature is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Salt {
    /// As long as the digest.
    Digest,
    /// As long as the key allows.
    Max,
    /// Whatever is there when verifying; as long as the digest when signing, which every TPM can do.
    Auto,
    /// This many bytes.
    Length(usize),
}

/// Padding, salt and the hash of MGF1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RsaSettings {
    pub(crate) padding: Padding,
    pub(crate) salt: Salt,
    /// As the message's unless it is set.
    pub(crate) mgf_hash: Option<HashAlgorithm>,
}

impl RsaSettings {
    /// OpenSSL's defaults.
    pub(crate) const DEFAULT: Self = Self { padding: Padding::Pkcs1, salt: Salt::Auto, mgf_hash: None };

    /// Takes settings.
    pub(crate) fn set(&mut self, params: &Params<'_>) -> Result<()> {
        if let Some(mode) = params.get(OSSL_SIGNATURE_PARAM_PAD_MODE) {
            self.padding = padding(&mode)?;
        }
        if let Some(length) = params.get(OSSL_SIGNATURE_PARAM_PSS_SALTLEN) {
            self.salt = salt(&length)?;
        }
        if let Some(hash) = params.get(OSSL_SIGNATURE_PARAM_MGF1_DIGEST) {
            self.mgf_hash = Some(hash_by_name(hash.text()?)?);
        }
        Ok(())
    }

    /// Answers questions about padding and salt.
    pub(crate) fn answer(&self, answers: &mut Answers<'_>) -> Result<()> {
        if let Some((_, number, name)) = PADDINGS.iter().find(|(padding, ..)| *padding == self.padding) {
            answers.answer_either(OSSL_SIGNATURE_PARAM_PAD_MODE, name, i64::from(*number))?;
        }
        let length;
        let (name, number) = match self.salt {
            Salt::Digest => (OSSL_PKEY_RSA_PSS_SALT_LEN_DIGEST, i64::from(RSA_PSS_SALTLEN_DIGEST)),
            Salt::Max => (OSSL_PKEY_RSA_PSS_SALT_LEN_MAX, i64::from(RSA_PSS_SALTLEN_MAX)),
            Salt::Auto => (OSSL_PKEY_RSA_PSS_SALT_LEN_AUTO, i64::from(RSA_PSS_SALTLEN_AUTO)),
            Salt::Length(bytes) => {
                length = CString::new(bytes.to_string()).unwrap_or_default();
                (length.as_c_str(), bytes as i64)
            }
        };
        answers.answer_either(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, name, number)
    }

    /// The salt's length in bytes, with this key and hash.
    pub(crate) fn salt_length(&self, key: &PublicKey, hash: HashAlgorithm) -> usize {
        match self.salt {
            Salt::Digest | Salt::Auto => hash.digest_length(),
            Salt::Max => max_salt(key, hash),
            Salt::Length(length) => length,
        }
    }
}

/// The longest salt (RFC 8017, 9.1.1 step 3).
fn max_salt(key: &PublicKey, hash: HashAlgorithm) -> usize {
    (key.bits() - 1).div_ceil(8).saturating_sub(hash.digest_length() + 2)
}

fn padding(mode: &Param<'_>) -> Result<Padding> {
    let (asked, found) = if mode.is_text() {
        let name = mode.text()?;
        (name.to_owned(), PADDINGS.iter().find(|(_, _, known)| known.to_bytes() == name.as_bytes()))
    } else {
        let number = mode.integer()?;
        (number.to_string(), PADDINGS.iter().find(|(_, known, _)| i64::from(*known) == number))
    };
    let found = found.map(|(padding, ..)| *padding);
    found.ok_or_else(|| Error::Unsupported(format!("RSA signatures with padding {asked}")))
}

fn salt(param: &Param<'_>) -> Result<Salt> {
    const DIGEST: i64 = RSA_PSS_SALTLEN_DIGEST as i64;
    const AUTO: i64 = RSA_PSS_SALTLEN_AUTO as i64;
    const MAX: i64 = RSA_PSS_SALTLEN_MAX as i64;
    /// `RSA_PSS_SALTLEN_AUTO_DIGEST_MAX`, of OpenSSL 3.1 and later.
    const AUTO_DIGEST_MAX: i64 = -4;
    let unsupported = || Error::Unsupported("this PSS salt length".into());
    let number = if param.is_text() {
        match param.text()? {
            "digest" => DIGEST,
            "max" => MAX,
            "auto" => AUTO,
            "auto-digestmax" => AUTO_DIGEST_MAX,
            number => number.parse().map_err(|_| unsupported())?,
        }
    } else {
        param.integer()?
    };
    match number {
        DIGEST => Ok(Salt::Digest),
        MAX => Ok(Salt::Max),
        AUTO | AUTO_DIGEST_MAX => Ok(Salt::Auto),
        length => usize::try_from(length).map(Salt::Length).map_err(|_| unsupported()),
    }
}
