//! The one table of mechanisms: what C_GetMechanismList and C_GetMechanismInfo tell, and what the others accept.

use cryptoki_sys::*;
use keyrivet_core::algorithm::{HashAlgorithm, SignatureScheme};
use keyrivet_core::public_key::PublicKey;
use keyrivet_core::sign::SignatureData;
use keyrivet_core::token::TokenInfo;

use crate::error::{Error, Result};

/// The mechanism an application asks for.
#[derive(Clone, Copy)]
pub(crate) struct Mechanism<'a> {
    /// `CKM_`.
    pub(crate) kind: CK_MECHANISM_TYPE,
    /// Its parameter; empty for none.
    pub(crate) parameter: &'a [u8],
}

/// The type of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyType {
    Rsa,
    Ec,
}

impl KeyType {
    /// The type of this key.
    pub(crate) fn of(key: &PublicKey) -> Self {
        match key {
            PublicKey::Rsa { .. } => Self::Rsa,
            PublicKey::Ec { .. } => Self::Ec,
        }
    }

    /// `CKK_`.
    pub(crate) fn number(self) -> CK_KEY_TYPE {
        match self {
            Self::Rsa => CKK_RSA,
            Self::Ec => CKK_EC,
        }
    }

    /// The mechanism that makes such keys.
    pub(crate) fn generation(self) -> CK_MECHANISM_TYPE {
        match self {
            Self::Rsa => CKM_RSA_PKCS_KEY_PAIR_GEN,
            Self::Ec => CKM_EC_KEY_PAIR_GEN,
        }
    }
}

/// Which private operation is meant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Sign,
    Verify,
}

#[derive(Clone, Copy)]
enum Work {
    GenerateKeyPair(KeyType),
    Digest(HashAlgorithm),
    /// With a hash the data is a message, else what was made of one.
    Signature(Scheme, Option<HashAlgorithm>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Pkcs1,
    Pss,
    Ecdsa,
}

impl Scheme {
    fn key_type(self) -> KeyType {
        match self {
            Self::Pkcs1 | Self::Pss => KeyType::Rsa,
            Self::Ecdsa => KeyType::Ec,
        }
    }
}

use HashAlgorithm::{Sha1, Sha224, Sha256, Sha384, Sha512};
use Work::{Digest, GenerateKeyPair, Signature};

const TABLE: [(CK_MECHANISM_TYPE, Work); 25] = [
    (CKM_RSA_PKCS_KEY_PAIR_GEN, GenerateKeyPair(KeyType::Rsa)),
    (CKM_RSA_PKCS, Signature(Scheme::Pkcs1, None)),
    (CKM_SHA1_RSA_PKCS, Signature(Scheme::Pkcs1, Some(Sha1))),
    (CKM_SHA224_RSA_PKCS, Signature(Scheme::Pkcs1, Some(Sha224))),
    (CKM_SHA256_RSA_PKCS, Signature(Scheme::Pkcs1, Some(Sha256))),
    (CKM_SHA384_RSA_PKCS, Signature(Scheme::Pkcs1, Some(Sha384))),
    (CKM_SHA512_RSA_PKCS, Signature(Scheme::Pkcs1, Some(Sha512))),
    (CKM_RSA_PKCS_PSS, Signature(Scheme::Pss, None)),
    (CKM_SHA1_RSA_PKCS_PSS, Signature(Scheme::Pss, Some(Sha1))),
    (CKM_SHA224_RSA_PKCS_PSS, Signature(Scheme::Pss, Some(Sha224))),
    (CKM_SHA256_RSA_PKCS_PSS, Signature(Scheme::Pss, Some(Sha256))),
    (CKM_SHA384_RSA_PKCS_PSS, Signature(Scheme::Pss, Some(Sha384))),
    (CKM_SHA512_RSA_PKCS_PSS, Signature(Scheme::Pss, Some(Sha512))),
    (CKM_EC_KEY_PAIR_GEN, GenerateKeyPair(KeyType::Ec)),
    (CKM_ECDSA, Signature(Scheme::Ecdsa, None)),
    (CKM_ECDSA_SHA1, Signature(Scheme::Ecdsa, Some(Sha1))),
    (CKM_ECDSA_SHA224, Signature(Scheme::Ecdsa, Some(Sha224))),
    (CKM_ECDSA_SHA256, Signature(Scheme::Ecdsa, Some(Sha256))),
    (CKM_ECDSA_SHA384, Signature(Scheme::Ecdsa, Some(Sha384))),
    (CKM_ECDSA_SHA512, Signature(Scheme::Ecdsa, Some(Sha512))),
    (CKM_SHA_1, Digest(Sha1)),
    (CKM_SHA224, Digest(Sha224)),
    (CKM_SHA256, Digest(Sha256)),
    (CKM_SHA384, Digest(Sha384)),
    (CKM_SHA512, Digest(Sha512)),
];

/// The row of a mechanism that this token has. The free slot's token can only make digests.
fn find(kind: CK_MECHANISM_TYPE, token: Option<&TokenInfo>) -> Result<Work> {
    let row = TABLE.iter().find(|(known, _)| *known == kind);
    row.map(|(_, work)| *work).filter(|work| offered(*work, token)).ok_or(Error(CKR_MECHANISM_INVALID))
}

fn offered(work: Work, token: Option<&TokenInfo>) -> bool {
    let has = |key_type| {
        token.is_some_and(|token| match key_type {
            KeyType::Rsa => !token.rsa_bits.is_empty(),
            KeyType::Ec => !token.curves.is_empty(),
        })
    };
    match work {
        Digest(_) => true,
        GenerateKeyPair(key_type) => has(key_type),
        Signature(scheme, _) => has(scheme.key_type()),
    }
}

/// Whether the TPM signs so. SHA-1 and SHA-224 are for verifying what others signed.
fn can_sign(scheme: Scheme, hash: Option<HashAlgorithm>, token: &TokenInfo) -> bool {
    match (scheme, hash) {
        (_, None) => true,
        (_, Some(Sha1 | Sha224)) => false,
        // The TPM is given a digest of its curve's length, whatever the hash: see `Curve::ecdsa_input`.
        (Scheme::Ecdsa, Some(_)) => true,
        (Scheme::Pkcs1 | Scheme::Pss, Some(hash)) => token.hashes.contains(&hash),
    }
}

/// Every mechanism of a token.
pub(crate) fn list(token: Option<&TokenInfo>) -> Vec<CK_MECHANISM_TYPE> {
    TABLE.iter().filter(|(_, work)| offered(*work, token)).map(|(kind, _)| *kind).collect()
}

/// What C_GetMechanismInfo tells. `CKF_HW`: the TPM does the private operation.
pub(crate) fn info(kind: CK_MECHANISM_TYPE, token: Option<&TokenInfo>) -> Result<CK_MECHANISM_INFO> {
    let work = find(kind, token)?;
    let (key_type, flags) = match (work, token) {
        (Digest(_), _) | (_, None) => (None, CKF_DIGEST),
        (GenerateKeyPair(key_type), _) => (Some(key_type), CKF_HW | CKF_GENERATE_KEY_PAIR),
        (Signature(scheme, hash), Some(token)) if can_sign(scheme, hash, token) => {
            (Some(scheme.key_type()), CKF_HW | CKF_SIGN | CKF_VERIFY)
        }
        (Signature(scheme, _), Some(_)) => (Some(scheme.key_type()), CKF_VERIFY),
    };
    let sizes: Vec<usize> = match (key_type, token) {
        (Some(KeyType::Rsa), Some(token)) => token.rsa_bits.iter().map(|bits| usize::from(*bits)).collect(),
        (Some(KeyType::Ec), Some(token)) => token.curves.iter().map(|curve| curve.bits()).collect(),
        _ => Vec::new(),
    };
    let curves = if key_type == Some(KeyType::Ec) { CKF_EC_F_P | CKF_EC_OID | CKF_EC_UNCOMPRESS } else { 0 };
    Ok(CK_MECHANISM_INFO {
        ulMinKeySize: sizes.iter().min().copied().unwrap_or(0) as CK_ULONG,
        ulMaxKeySize: sizes.iter().max().copied().unwrap_or(0) as CK_ULONG,
        flags: flags | curves,
    })
}

/// The hash of a digest mechanism.
pub(crate) fn digest(mechanism: Mechanism<'_>, token: Option<&TokenInfo>) -> Result<HashAlgorithm> {
    let Digest(hash) = find(mechanism.kind, token)? else { return Err(Error(CKR_MECHANISM_INVALID)) };
    without_parameter(mechanism)?;
    Ok(hash)
}

/// The type of key that a generation mechanism makes.
pub(crate) fn key_pair(mechanism: Mechanism<'_>, token: &TokenInfo) -> Result<KeyType> {
    let GenerateKeyPair(key_type) = find(mechanism.kind, Some(token))? else {
        return Err(Error(CKR_MECHANISM_INVALID));
    };
    without_parameter(mechanism)?;
    Ok(key_type)
}

/// The type of key that a signature mechanism takes, and an empty signature.
pub(crate) fn signature(
    mechanism: Mechanism<'_>,
    token: &TokenInfo,
    direction: Direction,
) -> Result<(KeyType, SignatureData)> {
    let Signature(scheme, hash) = find(mechanism.kind, Some(token))? else {
        return Err(Error(CKR_MECHANISM_INVALID));
    };
    if direction == Direction::Sign && !can_sign(scheme, hash, token) {
        return Err(Error(CKR_MECHANISM_INVALID));
    }
    let full = match (scheme, hash) {
        (Scheme::Pss, _) => pss_parameters(mechanism, hash, token, direction)?,
        (Scheme::Pkcs1, Some(hash)) => SignatureScheme::RsaPkcs1(hash),
        (Scheme::Ecdsa, _) => SignatureScheme::Ecdsa,
        (Scheme::Pkcs1, None) => {
            without_parameter(mechanism)?;
            return Ok((KeyType::Rsa, SignatureData::digest_info()));
        }
    };
    if scheme != Scheme::Pss {
        without_parameter(mechanism)?;
    }
    let data = hash.map_or_else(|| SignatureData::digest(full), |hash| SignatureData::message(full, hash));
    Ok((scheme.key_type(), data))
}

fn without_parameter(mechanism: Mechanism<'_>) -> Result<()> {
    if mechanism.parameter.is_empty() { Ok(()) } else { Err(Error(CKR_MECHANISM_PARAM_INVALID)) }
}

/// `CK_RSA_PKCS_PSS_PARAMS`. The TPM signs with a salt as long as the digest and MGF1 with the same hash.
fn pss_parameters(
    mechanism: Mechanism<'_>,
    hash: Option<HashAlgorithm>,
    token: &TokenInfo,
    direction: Direction,
) -> Result<SignatureScheme> {
    const PAIRS: [(CK_MECHANISM_TYPE, CK_RSA_PKCS_MGF_TYPE, HashAlgorithm); 5] = [
        (CKM_SHA_1, CKG_MGF1_SHA1, Sha1),
        (CKM_SHA224, CKG_MGF1_SHA224, Sha224),
        (CKM_SHA256, CKG_MGF1_SHA256, Sha256),
        (CKM_SHA384, CKG_MGF1_SHA384, Sha384),
        (CKM_SHA512, CKG_MGF1_SHA512, Sha512),
    ];
    let invalid = Error(CKR_MECHANISM_PARAM_INVALID);
    let [hash_number, mgf, salt] = numbers(mechanism.parameter).ok_or(invalid)?;
    let named = PAIRS.iter().find(|pair| (pair.0, pair.1) == (hash_number, mgf)).ok_or(invalid)?.2;
    if hash.is_some_and(|hash| hash != named) {
        return Err(invalid);
    }
    let salt_length = usize::try_from(salt).map_err(|_| invalid)?;
    let tpm_signs = can_sign(Scheme::Pss, Some(named), token) && salt_length == named.digest_length();
    if (direction == Direction::Sign && !tpm_signs) || salt_length > 1024 {
        return Err(invalid);
    }
    Ok(SignatureScheme::RsaPss { hash: named, salt_length })
}

/// The CK_ULONG fields of a C structure that has no others.
fn numbers<const N: usize>(bytes: &[u8]) -> Option<[CK_ULONG; N]> {
    let fields = bytes.chunks(size_of::<CK_ULONG>()).map(|field| field.try_into().ok().map(CK_ULONG::from_ne_bytes));
    fields.collect::<Option<Vec<_>>>()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use keyrivet_core::algorithm::Curve;
    use keyrivet_core::token::UserPin;

    use super::*;

    fn token() -> TokenInfo {
        TokenInfo {
            serial: "0123456789abcdef".into(),
            label: "test".into(),
            slot: 0,
            manufacturer: "IBM".into(),
            model: "SW TPM".into(),
            hardware_version: (2, 0),
            firmware_version: (0, 0),
            user_pin: UserPin::Set,
            rsa_bits: vec![2048, 3072],
            curves: vec![Curve::P256, Curve::P384],
            hashes: vec![Sha256, Sha384],
            aes_bits: Vec::new(),
            cipher_modes: Vec::new(),
            mac_hashes: Vec::new(),
            sha1_signatures: false,
        }
    }

    fn pss(hash: CK_MECHANISM_TYPE, mgf: CK_RSA_PKCS_MGF_TYPE, salt: CK_ULONG) -> Vec<u8> {
        [hash, mgf, salt].iter().flat_map(|number| number.to_ne_bytes()).collect()
    }

    #[test]
    fn every_mechanism_in_the_list_has_its_info() {
        let token = token();
        for kind in list(Some(&token)) {
            info(kind, Some(&token)).unwrap();
        }
        let mut kinds: Vec<_> = TABLE.iter().map(|row| row.0).collect();
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds.len(), TABLE.len());
    }

    #[test]
    fn what_the_tpm_cannot_sign_is_offered_for_verification_only() {
        let token = token();
        let flags = |kind| info(kind, Some(&token)).unwrap().flags;
        assert_eq!(flags(CKM_SHA256_RSA_PKCS), CKF_HW | CKF_SIGN | CKF_VERIFY);
        assert_eq!(flags(CKM_SHA512_RSA_PKCS), CKF_VERIFY);
        assert_eq!(flags(CKM_SHA1_RSA_PKCS), CKF_VERIFY);
        assert_eq!(flags(CKM_SHA256), CKF_DIGEST);
    }

    #[test]
    fn the_free_slot_offers_digests_only() {
        assert_eq!(list(None), [CKM_SHA_1, CKM_SHA224, CKM_SHA256, CKM_SHA384, CKM_SHA512]);
        assert_eq!(info(CKM_ECDSA, None).unwrap_err(), Error(CKR_MECHANISM_INVALID));
    }

    #[test]
    fn pss_signs_with_the_salt_of_the_tpm_and_verifies_any() {
        let token = token();
        let with = |kind, parameter: &[u8], direction| {
            signature(Mechanism { kind, parameter }, &token, direction).map(|_| ()).map_err(|error| error.0)
        };
        let short_salt = pss(CKM_SHA256, CKG_MGF1_SHA256, 20);
        let good = pss(CKM_SHA256, CKG_MGF1_SHA256, 32);
        let other_mgf = pss(CKM_SHA256, CKG_MGF1_SHA1, 32);
        assert_eq!(with(CKM_RSA_PKCS_PSS, &good, Direction::Sign), Ok(()));
        assert_eq!(with(CKM_SHA256_RSA_PKCS_PSS, &good, Direction::Sign), Ok(()));
        assert_eq!(with(CKM_RSA_PKCS_PSS, &short_salt, Direction::Sign), Err(CKR_MECHANISM_PARAM_INVALID));
        assert_eq!(with(CKM_RSA_PKCS_PSS, &short_salt, Direction::Verify), Ok(()));
        assert_eq!(with(CKM_RSA_PKCS_PSS, &other_mgf, Direction::Verify), Err(CKR_MECHANISM_PARAM_INVALID));
        assert_eq!(with(CKM_SHA384_RSA_PKCS_PSS, &good, Direction::Sign), Err(CKR_MECHANISM_PARAM_INVALID));
        assert_eq!(with(CKM_RSA_PKCS_PSS, &good[1..], Direction::Sign), Err(CKR_MECHANISM_PARAM_INVALID));
        assert_eq!(with(CKM_RSA_PKCS_PSS, &[], Direction::Sign), Err(CKR_MECHANISM_PARAM_INVALID));
    }
}
