//! The one table of hashes, curves and signature schemes, and what a key to be made is described by.

use der::asn1::ObjectIdentifier;

mod hash;

pub(crate) use hash::with_hash;
pub use hash::{Digest, HashAlgorithm};

const fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}

use crate::error::{Error, Result};

/// A NIST prime curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Curve {
    /// P-256, prime256v1, secp256r1.
    P256,
    /// P-384, secp384r1.
    P384,
    /// P-521, secp521r1.
    P521,
}

struct CurveRow {
    curve: Curve,
    names: &'static [&'static str],
    bits: usize,
    oid: ObjectIdentifier,
    /// TPM_ECC_CURVE.
    tpm: u16,
    security_bits: usize,
    /// The hash whose digest the TPM is given for ECDSA on this curve.
    hash: HashAlgorithm,
}

const CURVES: [CurveRow; 3] = [
    CurveRow {
        curve: Curve::P256,
        names: &["prime256v1", "P-256", "secp256r1"],
        bits: 256,
        oid: oid("1.2.840.10045.3.1.7"),
        tpm: 0x0003,
        security_bits: 128,
        hash: HashAlgorithm::Sha256,
    },
    CurveRow {
        curve: Curve::P384,
        names: &["secp384r1", "P-384"],
        bits: 384,
        oid: oid("1.3.132.0.34"),
        tpm: 0x0004,
        security_bits: 192,
        hash: HashAlgorithm::Sha384,
    },
    CurveRow {
        curve: Curve::P521,
        names: &["secp521r1", "P-521"],
        bits: 521,
        oid: oid("1.3.132.0.35"),
        tpm: 0x0005,
        security_bits: 256,
        hash: HashAlgorithm::Sha512,
    },
];

impl Curve {
    /// Every curve, in the order of the table.
    pub fn all() -> impl Iterator<Item = Self> {
        CURVES.iter().map(|row| row.curve)
    }

    fn row(self) -> &'static CurveRow {
        &CURVES[self as usize]
    }

    /// OpenSSL's group name, e.g. `prime256v1`.
    pub fn name(self) -> &'static str {
        self.row().names[0]
    }

    /// Reads any usual name: `prime256v1`, `P-256`, `secp256r1`, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        CURVES.iter().find(|row| row.names.iter().any(|known| known.eq_ignore_ascii_case(name))).map(|row| row.curve)
    }

    /// Size of the field, in bits.
    pub fn bits(self) -> usize {
        self.row().bits
    }

    /// Length of a coordinate, and of `r` and `s`, in bytes.
    pub fn coordinate_length(self) -> usize {
        self.bits().div_ceil(8)
    }

    /// Strength (SP 800-57 part 1, table 2), in bits.
    pub fn security_bits(self) -> usize {
        self.row().security_bits
    }

    /// Its object identifier (RFC 5480, 2.1.1.1).
    pub fn oid(self) -> ObjectIdentifier {
        self.row().oid
    }

    /// The curve with this object identifier.
    pub fn from_oid(oid: ObjectIdentifier) -> Option<Self> {
        CURVES.iter().find(|row| row.oid == oid).map(|row| row.curve)
    }

    /// `TPM_ECC_CURVE` (TCG Algorithm Registry).
    pub fn tpm_curve(self) -> u16 {
        self.row().tpm
    }

    /// The curve with this `TPM_ECC_CURVE`.
    pub fn from_tpm_curve(id: u16) -> Option<Self> {
        CURVES.iter().find(|row| row.tpm == id).map(|row| row.curve)
    }

    /// The hash that the TPM is told for every ECDSA signature on this curve; see [`Self::ecdsa_input`].
    pub fn ecdsa_hash(self) -> HashAlgorithm {
        self.row().hash
    }

    /// A digest of any length as the equal number in the length of [`Self::ecdsa_hash`].
    ///
    /// ECDSA uses the leftmost bits of the digest as a number (FIPS 186-5, 6.4.1), so cutting on the right and
    /// padding on the left changes nothing, and one TPM scheme per curve serves every hash.
    /// Errors: [`Error::DataInvalid`] for more than SHA-512 gives on P-521, whose number no hash of a TPM is long enough for.
    pub fn ecdsa_input(self, digest: &[u8]) -> Result<Vec<u8>> {
        let length = self.ecdsa_hash().digest_length();
        if digest.len() > length && self.bits() > 8 * length {
            return Err(Error::DataInvalid(format!("a TPM signs at most {length} bytes with this curve")));
        }
        let leftmost = &digest[..digest.len().min(length)];
        let mut input = vec![0; length - leftmost.len()];
        input.extend_from_slice(leftmost);
        Ok(input)
    }
}

/// How a digest becomes a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureScheme {
    /// RSASSA-PKCS1-v1_5 (RFC 8017, 8.2) over a digest of this hash.
    RsaPkcs1(HashAlgorithm),
    /// The padding of RSASSA-PKCS1-v1_5 over any data, at most 11 bytes shorter than the modulus.
    RsaPkcs1Data,
    /// RSASSA-PSS (RFC 8017, 8.1), MGF1 with the same hash.
    RsaPss {
        /// The hash of the message and of MGF1.
        hash: HashAlgorithm,
        /// Salt length in bytes. The TPM's own is the hash's; others need a key that may decrypt.
        salt_length: usize,
    },
    /// The bare RSA operation (X.509's) over a number no longer than the modulus.
    RsaRaw,
    /// ECDSA (FIPS 186-5) over a digest of any hash; signatures are `r || s`.
    Ecdsa,
}

/// How a message becomes an RSA ciphertext.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EncryptionScheme {
    /// RSAES-PKCS1-v1_5 (RFC 8017, 7.2).
    RsaPkcs1,
    /// As [`Self::RsaPkcs1`], but a ciphertext with wrong padding decrypts, in constant time, to what looks like a
    /// message: nobody learns from it whether the padding was right (Bleichenbacher).
    RsaPkcs1Implicit,
    /// As [`Self::RsaPkcs1`], for the 48 bytes of TLS's RSA key exchange (RFC 5246, 7.4.7.1): whatever is wrong gives
    /// random ones, in constant time.
    RsaPkcs1Tls {
        /// The version that the client offered, which the secret begins with.
        client: u16,
        /// Another one that it may begin with, for old clients' sake.
        negotiated: Option<u16>,
    },
    /// RSAES-OAEP (RFC 8017, 7.1).
    RsaOaep {
        /// The hash of the label.
        hash: HashAlgorithm,
        /// The hash of MGF1.
        mgf_hash: HashAlgorithm,
        /// The label, mostly empty.
        label: Vec<u8>,
    },
    /// The bare RSA operation (X.509's).
    RsaRaw,
}

/// A mode of AES (SP 800-38A).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CipherMode {
    /// ECB: whole blocks, no IV.
    Ecb,
    /// CBC: whole blocks.
    Cbc,
    /// CTR: the whole IV counts, big-endian.
    Ctr,
    /// CFB with segments of a whole block (CFB128).
    Cfb,
    /// OFB.
    Ofb,
}

struct CipherRow {
    mode: CipherMode,
    name: &'static str,
    /// TPM_ALG_ID (TCG Algorithm Registry).
    tpm: u16,
}

const CIPHERS: [CipherRow; 5] = [
    CipherRow { mode: CipherMode::Ecb, name: "ECB", tpm: 0x0044 },
    CipherRow { mode: CipherMode::Cbc, name: "CBC", tpm: 0x0042 },
    CipherRow { mode: CipherMode::Ctr, name: "CTR", tpm: 0x0040 },
    CipherRow { mode: CipherMode::Cfb, name: "CFB", tpm: 0x0043 },
    CipherRow { mode: CipherMode::Ofb, name: "OFB", tpm: 0x0041 },
];

impl CipherMode {
    /// Every mode, in the order of the table.
    pub fn all() -> impl Iterator<Item = Self> {
        CIPHERS.iter().map(|row| row.mode)
    }

    /// Its name, e.g. `CBC`.
    pub fn name(self) -> &'static str {
        CIPHERS[self as usize].name
    }

    /// The mode of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::all().find(|mode| mode.name() == name)
    }

    /// The TPM's algorithm identifier.
    pub fn tpm_algorithm(self) -> u16 {
        CIPHERS[self as usize].tpm
    }

    /// It takes whole blocks only.
    pub fn needs_whole_blocks(self) -> bool {
        matches!(self, Self::Ecb | Self::Cbc)
    }
}

/// Which way a cipher goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Clear to cipher.
    Encrypt,
    /// Cipher to clear.
    Decrypt,
}

/// What a secret key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKind {
    /// AES.
    Aes,
    /// A generic secret, which any HMAC takes.
    Generic,
    /// An HMAC of this hash.
    Hmac(HashAlgorithm),
}

/// A key to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// Its type and size.
    pub kind: KeyKind,
    /// May sign.
    pub sign: bool,
    /// May decrypt (RSA) or derive (EC).
    pub decrypt: bool,
}

/// A key's type and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA with exponent 65537.
    Rsa {
        /// Size of the modulus, in bits.
        bits: u16,
    },
    /// RSA with exponent 65537, for signatures with RSASSA-PSS and this hash only.
    RsaPss {
        /// Size of the modulus, in bits.
        bits: u16,
        /// The hash.
        hash: HashAlgorithm,
    },
    /// EC.
    Ec(Curve),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_in_the_order_of_their_enums() {
        for (index, hash) in HashAlgorithm::all().enumerate() {
            assert_eq!(hash as usize, index);
            assert_eq!(hash.digest(b"abc").len(), hash.digest_length());
        }
        for (index, curve) in Curve::all().enumerate() {
            assert_eq!(curve as usize, index);
        }
        for (index, mode) in CipherMode::all().enumerate() {
            assert_eq!(mode as usize, index);
            assert_eq!(CipherMode::from_name(mode.name()), Some(mode));
        }
    }

    #[test]
    fn digest_info_is_split_into_hash_and_digest() {
        for hash in HashAlgorithm::all() {
            let digest = hash.digest(b"x");
            let info = [hash.digest_info_prefix(), digest.clone()].concat();
            assert_eq!(HashAlgorithm::from_digest_info(&info), Some((hash, digest.as_slice())));
            assert_eq!(HashAlgorithm::from_digest_info(&info[..info.len() - 1]), None);
        }
        let sha256 = [0x30, 0x31, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 0x20];
        assert_eq!(HashAlgorithm::Sha256.digest_info_prefix(), sha256);
    }

    #[test]
    fn names_are_read_in_every_usual_spelling() {
        for name in ["sha256", "SHA-256", "SHA2-256"] {
            assert_eq!(HashAlgorithm::from_name(name), Some(HashAlgorithm::Sha256));
        }
        assert_eq!(HashAlgorithm::from_name("SHA-1"), Some(HashAlgorithm::Sha1));
        assert_eq!(HashAlgorithm::from_name("sha3-512"), Some(HashAlgorithm::Sha3_512));
        assert_eq!(HashAlgorithm::from_name("MD5"), None);
        assert_eq!(Curve::from_name("p-384"), Some(Curve::P384));
    }

    #[test]
    fn ecdsa_input_keeps_the_number() {
        assert_eq!(Curve::P256.ecdsa_input(&[7; 20]).unwrap()[..12], [0; 12]);
        assert_eq!(Curve::P256.ecdsa_input(&[7; 64]).unwrap(), vec![7; 32]);
        assert_eq!(Curve::P521.ecdsa_input(&[7; 64]).unwrap(), vec![7; 64]);
        assert!(Curve::P521.ecdsa_input(&[7; 65]).is_err());
    }
}
