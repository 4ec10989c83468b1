//! The one table of mechanisms: what C_GetMechanismList and C_GetMechanismInfo tell, and what the others accept.

use cryptoki_sys::*;
use keyrivet_core::algorithm::{CipherMode, HashAlgorithm, SecretKind};
use keyrivet_core::public_key::PublicKey;
use keyrivet_core::token::TokenInfo;

use crate::error::{Error, Result};
use crate::parameter::Parameter;

/// The mechanism an application asks for.
#[derive(Clone, Copy)]
pub(crate) struct Mechanism<'a> {
    /// `CKM_`.
    pub(crate) kind: CK_MECHANISM_TYPE,
    /// Its parameter.
    pub(crate) parameter: Parameter<'a>,
}

/// The type of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyType {
    Rsa,
    Ec,
    Aes,
    Generic,
    Hmac(HashAlgorithm),
}

impl KeyType {
    /// The type of this key.
    pub(crate) fn of(key: &PublicKey) -> Self {
        match key {
            PublicKey::Rsa { .. } => Self::Rsa,
            PublicKey::Ec { .. } => Self::Ec,
        }
    }

    /// The type of a secret key.
    pub(crate) fn of_secret(kind: SecretKind) -> Self {
        match kind {
            SecretKind::Aes => Self::Aes,
            SecretKind::Generic => Self::Generic,
            SecretKind::Hmac(hash) => Self::Hmac(hash),
        }
    }

    /// The kind of secret key of this `CKK_`.
    pub(crate) fn secret(number: CK_KEY_TYPE) -> Option<SecretKind> {
        match number {
            CKK_AES => Some(SecretKind::Aes),
            CKK_GENERIC_SECRET => Some(SecretKind::Generic),
            _ => HASHES.iter().find(|row| row.hmac_key == number).map(|row| SecretKind::Hmac(row.hash)),
        }
    }

    /// `CKK_`.
    pub(crate) fn number(self) -> CK_KEY_TYPE {
        match self {
            Self::Rsa => CKK_RSA,
            Self::Ec => CKK_EC,
            Self::Aes => CKK_AES,
            Self::Generic => CKK_GENERIC_SECRET,
            Self::Hmac(hash) => numbers_of(hash).hmac_key,
        }
    }

    /// The mechanism that makes such keys.
    pub(crate) fn generation(self) -> CK_MECHANISM_TYPE {
        match self {
            Self::Rsa => CKM_RSA_PKCS_KEY_PAIR_GEN,
            Self::Ec => CKM_EC_KEY_PAIR_GEN,
            Self::Aes => CKM_AES_KEY_GEN,
            Self::Generic => CKM_GENERIC_SECRET_KEY_GEN,
            Self::Hmac(_) => CK_UNAVAILABLE_INFORMATION,
        }
    }
}

/// What a mechanism does. With a hash the data of a signature is a message, else what was made of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    GenerateKeyPair(KeyType),
    GenerateKey(KeyType),
    Digest(HashAlgorithm),
    /// The padding of PKCS#1 v1.5; without a hash for encryption too.
    RsaPkcs1(Option<HashAlgorithm>),
    RsaPss(Option<HashAlgorithm>),
    RsaOaep,
    /// The bare operation (X.509's).
    RsaRaw,
    Ecdsa(Option<HashAlgorithm>),
    Ecdh,
    Aes(CipherMode),
    /// CBC with the padding of PKCS#7.
    AesCbcPad,
    Hmac(HashAlgorithm),
    /// An HMAC cut to a length that the parameter gives.
    HmacGeneral(HashAlgorithm),
}

use Work::*;

impl Work {
    /// Whether it can be done with a key of this type.
    pub(crate) fn takes(self, key: KeyType) -> bool {
        match self {
            RsaPkcs1(_) | RsaPss(_) | RsaOaep | RsaRaw => key == KeyType::Rsa,
            Ecdsa(_) | Ecdh => key == KeyType::Ec,
            Aes(_) | AesCbcPad => key == KeyType::Aes,
            // "CKK_GENERIC_SECRET keys are useable by all HMAC mechanisms" (PKCS#11 3.2, HMAC mechanisms).
            Hmac(hash) | HmacGeneral(hash) => key == KeyType::Generic || key == KeyType::Hmac(hash),
            GenerateKeyPair(_) | GenerateKey(_) | Digest(_) => false,
        }
    }
}

/// The mechanisms that no hash names.
const TABLE: [(CK_MECHANISM_TYPE, Work); 17] = [
    (CKM_RSA_PKCS_KEY_PAIR_GEN, GenerateKeyPair(KeyType::Rsa)),
    (CKM_RSA_PKCS, RsaPkcs1(None)),
    (CKM_RSA_PKCS_PSS, RsaPss(None)),
    (CKM_RSA_PKCS_OAEP, RsaOaep),
    (CKM_RSA_X_509, RsaRaw),
    (CKM_EC_KEY_PAIR_GEN, GenerateKeyPair(KeyType::Ec)),
    (CKM_ECDSA, Ecdsa(None)),
    (CKM_ECDH1_DERIVE, Ecdh),
    // The cofactor of our curves is 1, so this is the same.
    (CKM_ECDH1_COFACTOR_DERIVE, Ecdh),
    (CKM_AES_KEY_GEN, GenerateKey(KeyType::Aes)),
    (CKM_AES_ECB, Aes(CipherMode::Ecb)),
    (CKM_AES_CBC, Aes(CipherMode::Cbc)),
    (CKM_AES_CBC_PAD, AesCbcPad),
    (CKM_AES_CTR, Aes(CipherMode::Ctr)),
    (CKM_AES_CFB128, Aes(CipherMode::Cfb)),
    (CKM_AES_OFB, Aes(CipherMode::Ofb)),
    (CKM_GENERIC_SECRET_KEY_GEN, GenerateKey(KeyType::Generic)),
];

/// The numbers that PKCS#11 has for a hash.
pub(crate) struct HashNumbers {
    pub(crate) hash: HashAlgorithm,
    pub(crate) digest: CK_MECHANISM_TYPE,
    pub(crate) mgf: CK_RSA_PKCS_MGF_TYPE,
    /// Key derivation by ANSI X9.63.
    pub(crate) x963: CK_EC_KDF_TYPE,
    /// Key derivation by SP 800-56A.
    pub(crate) sp800: CK_EC_KDF_TYPE,
    pkcs1: CK_MECHANISM_TYPE,
    pss: CK_MECHANISM_TYPE,
    ecdsa: CK_MECHANISM_TYPE,
    hmac: CK_MECHANISM_TYPE,
    hmac_general: CK_MECHANISM_TYPE,
    hmac_key: CK_KEY_TYPE,
}

/// A row of [`HASHES`], in the order of its fields.
macro_rules! hash_numbers {
    ($hash:ident: $digest:ident $mgf:ident $x963:ident $sp800:ident,
     $pkcs1:ident $pss:ident $ecdsa:ident, $hmac:ident $hmac_general:ident $hmac_key:ident) => {
        HashNumbers {
            hash: HashAlgorithm::$hash,
            digest: $digest,
            mgf: $mgf,
            x963: $x963,
            sp800: $sp800,
            pkcs1: $pkcs1,
            pss: $pss,
            ecdsa: $ecdsa,
            hmac: $hmac,
            hmac_general: $hmac_general,
            hmac_key: $hmac_key,
        }
    };
}

pub(crate) const HASHES: [HashNumbers; 9] = [
    hash_numbers!(Sha1: CKM_SHA_1 CKG_MGF1_SHA1 CKD_SHA1_KDF CKD_SHA1_KDF_SP800,
        CKM_SHA1_RSA_PKCS CKM_SHA1_RSA_PKCS_PSS CKM_ECDSA_SHA1,
        CKM_SHA_1_HMAC CKM_SHA_1_HMAC_GENERAL CKK_SHA_1_HMAC),
    hash_numbers!(Sha224: CKM_SHA224 CKG_MGF1_SHA224 CKD_SHA224_KDF CKD_SHA224_KDF_SP800,
        CKM_SHA224_RSA_PKCS CKM_SHA224_RSA_PKCS_PSS CKM_ECDSA_SHA224,
        CKM_SHA224_HMAC CKM_SHA224_HMAC_GENERAL CKK_SHA224_HMAC),
    hash_numbers!(Sha256: CKM_SHA256 CKG_MGF1_SHA256 CKD_SHA256_KDF CKD_SHA256_KDF_SP800,
        CKM_SHA256_RSA_PKCS CKM_SHA256_RSA_PKCS_PSS CKM_ECDSA_SHA256,
        CKM_SHA256_HMAC CKM_SHA256_HMAC_GENERAL CKK_SHA256_HMAC),
    hash_numbers!(Sha384: CKM_SHA384 CKG_MGF1_SHA384 CKD_SHA384_KDF CKD_SHA384_KDF_SP800,
        CKM_SHA384_RSA_PKCS CKM_SHA384_RSA_PKCS_PSS CKM_ECDSA_SHA384,
        CKM_SHA384_HMAC CKM_SHA384_HMAC_GENERAL CKK_SHA384_HMAC),
    hash_numbers!(Sha512: CKM_SHA512 CKG_MGF1_SHA512 CKD_SHA512_KDF CKD_SHA512_KDF_SP800,
        CKM_SHA512_RSA_PKCS CKM_SHA512_RSA_PKCS_PSS CKM_ECDSA_SHA512,
        CKM_SHA512_HMAC CKM_SHA512_HMAC_GENERAL CKK_SHA512_HMAC),
    hash_numbers!(Sha3_224: CKM_SHA3_224 CKG_MGF1_SHA3_224 CKD_SHA3_224_KDF CKD_SHA3_224_KDF_SP800,
        CKM_SHA3_224_RSA_PKCS CKM_SHA3_224_RSA_PKCS_PSS CKM_ECDSA_SHA3_224,
        CKM_SHA3_224_HMAC CKM_SHA3_224_HMAC_GENERAL CKK_SHA3_224_HMAC),
    hash_numbers!(Sha3_256: CKM_SHA3_256 CKG_MGF1_SHA3_256 CKD_SHA3_256_KDF CKD_SHA3_256_KDF_SP800,
        CKM_SHA3_256_RSA_PKCS CKM_SHA3_256_RSA_PKCS_PSS CKM_ECDSA_SHA3_256,
        CKM_SHA3_256_HMAC CKM_SHA3_256_HMAC_GENERAL CKK_SHA3_256_HMAC),
    hash_numbers!(Sha3_384: CKM_SHA3_384 CKG_MGF1_SHA3_384 CKD_SHA3_384_KDF CKD_SHA3_384_KDF_SP800,
        CKM_SHA3_384_RSA_PKCS CKM_SHA3_384_RSA_PKCS_PSS CKM_ECDSA_SHA3_384,
        CKM_SHA3_384_HMAC CKM_SHA3_384_HMAC_GENERAL CKK_SHA3_384_HMAC),
    hash_numbers!(Sha3_512: CKM_SHA3_512 CKG_MGF1_SHA3_512 CKD_SHA3_512_KDF CKD_SHA3_512_KDF_SP800,
        CKM_SHA3_512_RSA_PKCS CKM_SHA3_512_RSA_PKCS_PSS CKM_ECDSA_SHA3_512,
        CKM_SHA3_512_HMAC CKM_SHA3_512_HMAC_GENERAL CKK_SHA3_512_HMAC),
];

fn numbers_of(hash: HashAlgorithm) -> &'static HashNumbers {
    // In the order of the enum, which a test checks.
    &HASHES[hash as usize]
}

/// Every mechanism there is, each once.
fn all() -> impl Iterator<Item = (CK_MECHANISM_TYPE, Work)> {
    let by_hash = |row: &HashNumbers| {
        let hash = row.hash;
        [
            (row.digest, Digest(hash)),
            (row.pkcs1, RsaPkcs1(Some(hash))),
            (row.pss, RsaPss(Some(hash))),
            (row.ecdsa, Ecdsa(Some(hash))),
            (row.hmac, Hmac(hash)),
            (row.hmac_general, HmacGeneral(hash)),
        ]
    };
    TABLE.into_iter().chain(HASHES.iter().flat_map(by_hash))
}

/// The operations that need a key in the TPM; a mechanism with one of them carries `CKF_HW`.
const PRIVATE_OPERATIONS: CK_FLAGS =
    CKF_SIGN | CKF_SIGN_RECOVER | CKF_DECRYPT | CKF_UNWRAP | CKF_DERIVE | CKF_GENERATE | CKF_GENERATE_KEY_PAIR;

const SIGNATURE: CK_FLAGS = CKF_SIGN | CKF_VERIFY;
const RECOVERY: CK_FLAGS = CKF_SIGN_RECOVER | CKF_VERIFY_RECOVER;
const ENCRYPTION: CK_FLAGS = CKF_ENCRYPT | CKF_DECRYPT;
const WRAPPING: CK_FLAGS = CKF_WRAP | CKF_UNWRAP;

/// What a token offers of a mechanism, as `CKF_` flags; none for what its TPM lacks. `None` is the token that waits for
/// C_InitToken in the free slot: it makes digests.
fn offered(work: Work, token: Option<&TokenInfo>) -> CK_FLAGS {
    if let Digest(_) = work {
        return CKF_DIGEST;
    }
    let Some(token) = token else { return 0 };
    let has = match work {
        Digest(_) => true,
        GenerateKeyPair(KeyType::Rsa) | RsaPkcs1(_) | RsaPss(_) | RsaOaep | RsaRaw => !token.rsa_bits.is_empty(),
        GenerateKeyPair(_) | Ecdsa(_) | Ecdh => !token.curves.is_empty(),
        GenerateKey(KeyType::Aes) => !token.aes_bits.is_empty(),
        Aes(mode) => token.cipher_modes.contains(&mode),
        AesCbcPad => token.cipher_modes.contains(&CipherMode::Cbc),
        GenerateKey(_) => !token.mac_hashes.is_empty(),
        Hmac(hash) | HmacGeneral(hash) => token.mac_hashes.contains(&hash),
    };
    if !has {
        return 0;
    }
    // SHA-1 is for verifying what others signed, unless the configuration says otherwise.
    let signs = |hash| hash != HashAlgorithm::Sha1 || token.sha1_signatures;
    match work {
        GenerateKeyPair(_) => CKF_GENERATE_KEY_PAIR,
        GenerateKey(_) => CKF_GENERATE,
        Digest(_) => CKF_DIGEST,
        RsaPkcs1(Some(hash)) | RsaPss(Some(hash)) | Ecdsa(Some(hash)) if !signs(hash) => CKF_VERIFY,
        RsaPkcs1(None) => SIGNATURE | RECOVERY | ENCRYPTION | WRAPPING,
        RsaPkcs1(Some(_)) | RsaPss(_) | Ecdsa(_) | Hmac(_) | HmacGeneral(_) => SIGNATURE,
        RsaOaep => ENCRYPTION | WRAPPING,
        RsaRaw => SIGNATURE | RECOVERY | ENCRYPTION,
        Ecdh => CKF_DERIVE,
        Aes(CipherMode::Ecb | CipherMode::Cbc) | AesCbcPad => ENCRYPTION | WRAPPING,
        Aes(CipherMode::Ctr | CipherMode::Cfb | CipherMode::Ofb) => ENCRYPTION,
    }
}

/// Every mechanism of a token.
pub(crate) fn list(token: Option<&TokenInfo>) -> Vec<CK_MECHANISM_TYPE> {
    all().filter(|(_, work)| offered(*work, token) != 0).map(|(kind, _)| kind).collect()
}

/// What C_GetMechanismInfo tells. `CKF_HW`: the TPM does the private operation.
pub(crate) fn info(kind: CK_MECHANISM_TYPE, token: Option<&TokenInfo>) -> Result<CK_MECHANISM_INFO> {
    let (_, work) = all().find(|row| row.0 == kind).ok_or(Error(CKR_MECHANISM_INVALID))?;
    let flags = offered(work, token);
    if flags == 0 {
        return Err(Error(CKR_MECHANISM_INVALID));
    }
    let hardware = if flags & PRIVATE_OPERATIONS != 0 { CKF_HW } else { 0 };
    let curves = match work {
        GenerateKeyPair(KeyType::Ec) | Ecdsa(_) | Ecdh => CKF_EC_F_P | CKF_EC_OID | CKF_EC_UNCOMPRESS,
        _ => 0,
    };
    let sizes = token.map(|token| sizes(work, token)).unwrap_or_default();
    Ok(CK_MECHANISM_INFO {
        ulMinKeySize: sizes.iter().min().copied().unwrap_or(0) as CK_ULONG,
        ulMaxKeySize: sizes.iter().max().copied().unwrap_or(0) as CK_ULONG,
        flags: flags | hardware | curves,
    })
}

/// The key sizes of a mechanism, in the unit that the standard has for it: bits, but bytes for AES and HMAC.
fn sizes(work: Work, token: &TokenInfo) -> Vec<usize> {
    match work {
        GenerateKeyPair(KeyType::Rsa) | RsaPkcs1(_) | RsaPss(_) | RsaOaep | RsaRaw => {
            token.rsa_bits.iter().map(|bits| usize::from(*bits)).collect()
        }
        GenerateKeyPair(_) | Ecdsa(_) | Ecdh => token.curves.iter().map(|curve| curve.bits()).collect(),
        GenerateKey(KeyType::Aes) | Aes(_) | AesCbcPad => {
            token.aes_bits.iter().map(|bits| usize::from(*bits / 8)).collect()
        }
        GenerateKey(_) => GENERATED_SECRETS.iter().map(|length| length * 8).collect(),
        Hmac(_) | HmacGeneral(_) => vec![1, LONGEST_SECRET],
        Digest(_) => Vec::new(),
    }
}

/// The lengths of generic secrets that a TPM makes, in bytes.
pub(crate) const GENERATED_SECRETS: [usize; 3] = [32, 48, 64];
/// The longest secret that a TPM takes, in bytes.
pub(crate) const LONGEST_SECRET: usize = 128;

/// What a mechanism does for `operation`, one of the `CKF_` flags of CK_MECHANISM_INFO, on this token.
pub(crate) fn find(kind: CK_MECHANISM_TYPE, token: Option<&TokenInfo>, operation: CK_FLAGS) -> Result<Work> {
    let row = all().find(|row| row.0 == kind && offered(row.1, token) & operation != 0);
    row.map(|(_, work)| work).ok_or(Error(CKR_MECHANISM_INVALID))
}

#[cfg(test)]
#[path = "mechanism_tests.rs"]
mod tests;
