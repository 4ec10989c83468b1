//! `TPM2B_PUBLIC` as bytes: what a TPM guarantees of an object, read without any TPM library.

use crate::algorithm::{Curve, HashAlgorithm};
use crate::error::{Error, Result};
use crate::public_key::PublicKey;

/// Bits of `TPMA_OBJECT` (TPM 2.0 Part 2, 8.3).
pub mod object_attribute {
    /// The object cannot leave this TPM.
    pub const FIXED_TPM: u32 = 1 << 1;
    /// The object cannot be moved to another parent.
    pub const FIXED_PARENT: u32 = 1 << 4;
    /// The TPM made the private part.
    pub const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
    /// The authValue allows its use.
    pub const USER_WITH_AUTH: u32 = 1 << 6;
    /// Failed authorisations do not count towards the dictionary-attack lockout.
    pub const NO_DA: u32 = 1 << 10;
    /// The key works only on data of the TPM's own form.
    pub const RESTRICTED: u32 = 1 << 16;
    /// The private key may decrypt (RSA) or derive (EC).
    pub const DECRYPT: u32 = 1 << 17;
    /// The private key may sign.
    pub const SIGN: u32 = 1 << 18;
}

/// A parsed public area (TPM 2.0 Part 2, 12.2.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicArea {
    /// `TPMA_OBJECT`.
    pub attributes: u32,
    /// Digest of the policy that may use the object; empty for none.
    pub policy: Vec<u8>,
    /// What kind of object it is, with its public part.
    pub content: Content,
    /// The Name: nameAlg and the digest of the public area with it (Part 1, 16).
    pub name: Vec<u8>,
    /// Key size of the cipher that protects a storage key's children, in bits; 0 for other keys.
    pub cipher_bits: u16,
    /// The hash that makes the Name, and that key derivation for this key uses.
    pub name_hash: HashAlgorithm,
    /// The one scheme of an asymmetric key that was made for one.
    pub scheme: Option<FixedScheme>,
}

/// The scheme that a key is made for: the TPM refuses any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FixedScheme {
    /// RSASSA-PKCS1-v1_5.
    RsaPkcs1(HashAlgorithm),
    /// RSASSA-PSS.
    RsaPss(HashAlgorithm),
    /// ECDSA.
    Ecdsa(HashAlgorithm),
    /// Something else: its `TPM_ALG_ID`.
    Other(u16),
}

/// The kinds of TPM objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// An asymmetric key.
    Asymmetric(PublicKey),
    /// An AES key.
    Aes {
        /// Its size, in bits.
        bits: u16,
    },
    /// An HMAC key, or sealed data.
    KeyedHash,
}

const TPM_ALG_RSA: u16 = 0x0001;
const TPM_ALG_AES: u16 = 0x0006;
const TPM_ALG_KEYEDHASH: u16 = 0x0008;
const TPM_ALG_SYMCIPHER: u16 = 0x0025;
const TPM_ALG_ECC: u16 = 0x0023;
const TPM_ALG_NULL: u16 = 0x0010;
const TPM_ALG_RSASSA: u16 = 0x0014;
const TPM_ALG_RSAES: u16 = 0x0015;
const TPM_ALG_RSAPSS: u16 = 0x0016;
const TPM_ALG_ECDSA: u16 = 0x0018;
const TPM_ALG_ECDAA: u16 = 0x001a;

impl PublicArea {
    /// Reads a marshalled `TPM2B_PUBLIC`.
    pub fn parse(tpm2b_public: &[u8]) -> Result<Self> {
        let mut outer = Reader(tpm2b_public);
        let area = outer.sized()?;
        outer.end()?;
        let mut reader = Reader(area);
        let kind = reader.u16()?;
        let name_algorithm = reader.u16()?;
        let name_hash = HashAlgorithm::all()
            .find(|hash| hash.tpm_algorithm() == Some(name_algorithm))
            .ok_or_else(|| Error::Unsupported(format!("TPM object names by algorithm 0x{name_algorithm:04x}")))?;
        let attributes = reader.u32()?;
        let policy = reader.sized()?.to_vec();
        let mut cipher_bits = 0;
        let mut scheme = None;
        let content = match kind {
            TPM_ALG_RSA => Content::Asymmetric(reader.rsa(&mut cipher_bits, &mut scheme)?),
            TPM_ALG_ECC => Content::Asymmetric(reader.ecc(&mut cipher_bits, &mut scheme)?),
            TPM_ALG_SYMCIPHER => reader.symmetric_cipher()?,
            TPM_ALG_KEYEDHASH => reader.keyed_hash()?,
            other => return Err(Error::Unsupported(format!("TPM objects of type 0x{other:04x}"))),
        };
        reader.end()?;
        let name = [&name_algorithm.to_be_bytes()[..], &name_hash.digest(area)].concat();
        Ok(Self { attributes, policy, content, name, cipher_bits, name_hash, scheme })
    }

    /// The public key of an asymmetric key.
    pub fn public_key(&self) -> Result<&PublicKey> {
        match &self.content {
            Content::Asymmetric(key) => Ok(key),
            Content::Aes { .. } | Content::KeyedHash => Err(Error::Unsupported("a secret key in a key's place".into())),
        }
    }

    /// Whether all these bits of `TPMA_OBJECT` are set.
    pub fn has(&self, bits: u32) -> bool {
        self.attributes & bits == bits
    }
}

/// Bytes being read, big-endian, with bounds.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(length).ok_or_else(|| wrong("it ends too early"))?;
        self.0 = tail;
        Ok(head)
    }

    fn u16(&mut self) -> Result<u16> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from(self.u16()?) << 16 | u32::from(self.u16()?))
    }

    fn sized(&mut self) -> Result<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }

    fn end(&self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(wrong("bytes follow its end")) }
    }

    /// `TPMT_SYM_DEF_OBJECT`: the size of its key, in bits.
    fn symmetric(&mut self) -> Result<u16> {
        if self.u16()? == TPM_ALG_NULL {
            return Ok(0);
        }
        let bits = self.u16()?;
        let _mode = self.u16()?;
        Ok(bits)
    }

    /// `TPMS_SYMCIPHER_PARMS` and the unique digest (Part 2, 12.2.3.2).
    fn symmetric_cipher(&mut self) -> Result<Content> {
        let algorithm = self.u16()?;
        if algorithm != TPM_ALG_AES {
            return Err(Error::Unsupported(format!("TPM ciphers of type 0x{algorithm:04x}")));
        }
        let bits = self.u16()?;
        let _mode = self.u16()?;
        self.sized()?;
        Ok(Content::Aes { bits })
    }

    /// `TPMS_KEYEDHASH_PARMS` and the unique digest (Part 2, 12.2.3.3).
    fn keyed_hash(&mut self) -> Result<Content> {
        const TPM_ALG_XOR: u16 = 0x000a;
        let scheme = self.u16()?;
        if scheme != TPM_ALG_NULL {
            self.take(if scheme == TPM_ALG_XOR { 4 } else { 2 })?;
        }
        self.sized()?;
        Ok(Content::KeyedHash)
    }

    /// A scheme with its hash: `TPMT_RSA_SCHEME`, `TPMT_ECC_SCHEME`, `TPMT_KDF_SCHEME`.
    fn scheme(&mut self) -> Result<Option<FixedScheme>> {
        let scheme = self.u16()?;
        match scheme {
            TPM_ALG_NULL => return Ok(None),
            TPM_ALG_RSAES => return Ok(Some(FixedScheme::Other(scheme))),
            _ => {}
        }
        let hash = self.u16()?;
        if scheme == TPM_ALG_ECDAA {
            self.take(2)?;
        }
        let hash = HashAlgorithm::all().find(|known| known.tpm_algorithm() == Some(hash));
        Ok(Some(match (scheme, hash) {
            (TPM_ALG_RSASSA, Some(hash)) => FixedScheme::RsaPkcs1(hash),
            (TPM_ALG_RSAPSS, Some(hash)) => FixedScheme::RsaPss(hash),
            (TPM_ALG_ECDSA, Some(hash)) => FixedScheme::Ecdsa(hash),
            _ => FixedScheme::Other(scheme),
        }))
    }

    /// `TPMS_RSA_PARMS` and the modulus (Part 2, 12.2.3.5).
    fn rsa(&mut self, cipher_bits: &mut u16, scheme: &mut Option<FixedScheme>) -> Result<PublicKey> {
        *cipher_bits = self.symmetric()?;
        *scheme = self.scheme()?;
        self.u16()?;
        let exponent = match self.u32()? {
            0 => 65537,
            other => other,
        };
        PublicKey::rsa(self.sized()?, &exponent.to_be_bytes())
    }

    /// `TPMS_ECC_PARMS` and the point (Part 2, 12.2.3.6).
    fn ecc(&mut self, cipher_bits: &mut u16, scheme: &mut Option<FixedScheme>) -> Result<PublicKey> {
        *cipher_bits = self.symmetric()?;
        *scheme = self.scheme()?;
        let id = self.u16()?;
        let curve = Curve::from_tpm_curve(id).ok_or_else(|| Error::Unsupported(format!("TPM curve 0x{id:04x}")))?;
        self.scheme()?;
        let mut point = vec![4];
        for coordinate in [self.sized()?, self.sized()?] {
            let padding = curve.coordinate_length().checked_sub(coordinate.len());
            let padding = padding.ok_or_else(|| wrong("a coordinate is longer than its curve"))?;
            point.resize(point.len() + padding, 0);
            point.extend_from_slice(coordinate);
        }
        PublicKey::ec(curve, &point)
    }
}

fn wrong(reason: &str) -> Error {
    Error::malformed("TPM public area", reason)
}
