//! The text of a token's own file: what it is, which TPM it belongs to, its sealed secret.

use serde::{Deserialize, Serialize};

use crate::algorithm::{CipherMode, Curve, HashAlgorithm};
use crate::tpm::Sealed;

/// A token's file.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenFile {
    pub(crate) serial: String,
    pub(crate) label: String,
    pub(crate) slot: u32,
    pub(crate) manufacturer: String,
    pub(crate) model: String,
    pub(crate) hardware_version: (u8, u8),
    pub(crate) firmware_version: (u8, u8),
    pub(crate) rsa_bits: Vec<u16>,
    #[serde(with = "curves")]
    pub(crate) curves: Vec<Curve>,
    #[serde(with = "hashes")]
    pub(crate) hashes: Vec<HashAlgorithm>,
    #[serde(default)]
    pub(crate) aes_bits: Vec<u16>,
    #[serde(default, with = "cipher_modes")]
    pub(crate) cipher_modes: Vec<CipherMode>,
    #[serde(default, with = "hashes")]
    pub(crate) mac_hashes: Vec<HashAlgorithm>,
    /// `TPM2B_PUBLIC` of the storage root key, as it was when the token was made.
    #[serde(with = "crate::hex::serde")]
    pub(crate) srk: Vec<u8>,
    /// Mixed into what PINs become.
    #[serde(with = "crate::hex::serde")]
    pub(crate) salt: Vec<u8>,
    /// The token secret under the SO PIN.
    pub(crate) security_officer: SealedText,
    /// The token secret under the user PIN.
    pub(crate) user: UserSecret,
}

/// How the user gets at the token secret.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "pin")]
pub(crate) enum UserSecret {
    /// Not yet.
    NotInitialized,
    /// No need: the user PIN is empty, and so are the authValues of the keys.
    Empty,
    /// With a PIN.
    Set(SealedText),
}

/// A sealed secret in hexadecimal.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct SealedText {
    #[serde(with = "crate::hex::serde")]
    public: Vec<u8>,
    #[serde(with = "crate::hex::serde")]
    private: Vec<u8>,
}

impl From<Sealed> for SealedText {
    fn from(sealed: Sealed) -> Self {
        Self { public: sealed.public, private: sealed.private }
    }
}

impl From<&SealedText> for Sealed {
    fn from(text: &SealedText) -> Self {
        Self { public: text.public.clone(), private: text.private.clone() }
    }
}

impl TokenFile {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    pub(super) fn to_text(&self) -> Result<String, String> {
        toml::to_string(self).map_err(|error| error.to_string())
    }
}

/// Algorithms are written by their names.
macro_rules! named {
    ($module:ident, $type:ty) => {
        mod $module {
            use serde::de::Error as _;
            use serde::{Deserialize as _, Deserializer, Serializer};

            use super::*;

            pub(super) fn serialize<S: Serializer>(values: &[$type], serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq(values.iter().map(|value| value.name()))
            }

            pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<$type>, D::Error> {
                let names = Vec::<String>::deserialize(deserializer)?;
                let value = |name: &String| {
                    <$type>::from_name(name).ok_or_else(|| D::Error::custom(format!("unknown algorithm {name}")))
                };
                names.iter().map(value).collect()
            }
        }
    };
}
named!(curves, Curve);
named!(hashes, HashAlgorithm);
named!(cipher_modes, CipherMode);
