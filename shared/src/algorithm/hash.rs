//! The one table of hashes, and digests in software.

use der::asn1::ObjectIdentifier;
use sha2::digest::FixedOutputReset;
use sha2::digest::core_api::{Block, BlockSizeUser};

use super::oid;

/// A hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HashAlgorithm {
    /// SHA-1: for verifying old signatures; for making them only where the configuration says so.
    Sha1,
    /// SHA-224.
    Sha224,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
    /// SHA3-224.
    Sha3_224,
    /// SHA3-256.
    Sha3_256,
    /// SHA3-384.
    Sha3_384,
    /// SHA3-512.
    Sha3_512,
}

struct HashRow {
    algorithm: HashAlgorithm,
    name: &'static str,
    length: usize,
    oid: ObjectIdentifier,
    /// TPM_ALG_ID, 0 where TPM 2.0 has none (TCG Algorithm Registry).
    tpm: u16,
}

const fn hash(algorithm: HashAlgorithm, name: &'static str, length: usize, identifier: &str, tpm: u16) -> HashRow {
    HashRow { algorithm, name, length, oid: oid(identifier), tpm }
}

const HASHES: [HashRow; 9] = [
    hash(HashAlgorithm::Sha1, "SHA1", 20, "1.3.14.3.2.26", 0x0004),
    hash(HashAlgorithm::Sha224, "SHA2-224", 28, "2.16.840.1.101.3.4.2.4", 0),
    hash(HashAlgorithm::Sha256, "SHA2-256", 32, "2.16.840.1.101.3.4.2.1", 0x000b),
    hash(HashAlgorithm::Sha384, "SHA2-384", 48, "2.16.840.1.101.3.4.2.2", 0x000c),
    hash(HashAlgorithm::Sha512, "SHA2-512", 64, "2.16.840.1.101.3.4.2.3", 0x000d),
    hash(HashAlgorithm::Sha3_224, "SHA3-224", 28, "2.16.840.1.101.3.4.2.7", 0),
    hash(HashAlgorithm::Sha3_256, "SHA3-256", 32, "2.16.840.1.101.3.4.2.8", 0x0027),
    hash(HashAlgorithm::Sha3_384, "SHA3-384", 48, "2.16.840.1.101.3.4.2.9", 0x0028),
    hash(HashAlgorithm::Sha3_512, "SHA3-512", 64, "2.16.840.1.101.3.4.2.10", 0x0029),
];

/// Does something with the type that implements a hash.
macro_rules! with_hash {
    ($hash:expr, $type:ident => $do:expr) => {
        match $hash {
            $crate::algorithm::HashAlgorithm::Sha1 => {
                type $type = sha1::Sha1;
                $do
            }
            $crate::algorithm::HashAlgorithm::Sha224 => {
                type $type = sha2::Sha224;
                $do
            }
            $crate::algorithm::HashAlgorithm::Sha256 => {
                type $type = sha2::Sha256;
                $do
            }
            $crate::algorithm::HashAlgorithm::Sha384 => {
                type $type = sha2::Sha384;
                $do
            }
            $crate::algorithm::HashAlgorithm::Sha512 => {
                type $type = sha2::Sha512;
                $do
            }
            $crate::algorithm::HashAlgorithm::Sha3_224 => {
                type $type = sha3::Sha3_224;
                $do
            }
            $crate::algorithm::HashAlgorithm::Sha3_256 => {
                type $type = sha3::Sha3_256;
                $do
            }
            $crate::algorithm::HashAlgorithm::Sha3_384 => {
                type $type = sha3::Sha3_384;
                $do
            }
            $crate::algorithm::HashAlgorithm::Sha3_512 => {
                type $type = sha3::Sha3_512;
                $do
            }
        }
    };
}
pub(crate) use with_hash;

impl HashAlgorithm {
    /// Every hash, in the order of the table.
    pub fn all() -> impl Iterator<Item = Self> {
        HASHES.iter().map(|row| row.algorithm)
    }

    fn row(self) -> &'static HashRow {
        // The table is in the order of the enum, which a test checks.
        &HASHES[self as usize]
    }

    /// Length of a digest, in bytes.
    pub fn digest_length(self) -> usize {
        self.row().length
    }

    /// The name OpenSSL prefers, e.g. `SHA2-256`.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Reads any usual spelling: `SHA256`, `SHA-256`, `SHA2-256`, `SHA3-256`, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        fn plain(text: &str) -> impl Iterator<Item = u8> {
            let sha2 = text.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("SHA2-"));
            let (start, rest) = if sha2 { ("SHA", &text[5..]) } else { ("", text) };
            start.bytes().chain(rest.bytes().filter(|&byte| byte != b'-')).map(|byte| byte.to_ascii_uppercase())
        }
        Self::all().find(|hash| plain(hash.name()).eq(plain(name)))
    }

    /// The hash whose digest has this length, SHA-1 included, SHA-2 before SHA-3.
    pub fn from_digest_length(length: usize) -> Option<Self> {
        Self::all().find(|hash| hash.digest_length() == length)
    }

    /// Its object identifier (RFC 5754, RFC 3279).
    pub fn oid(self) -> ObjectIdentifier {
        self.row().oid
    }

    /// The TPM's algorithm identifier, `None` where TPM 2.0 defines none.
    pub fn tpm_algorithm(self) -> Option<u16> {
        Some(self.row().tpm).filter(|&id| id != 0)
    }

    /// The DER prefix of `DigestInfo` (RFC 8017, 9.2 note 1); the digest follows it.
    pub fn digest_info_prefix(self) -> Vec<u8> {
        let oid = self.oid();
        let (oid, digest) = (oid.as_bytes(), self.digest_length());
        let algorithm = oid.len() + 4;
        let mut prefix = vec![0x30, (algorithm + digest + 4) as u8, 0x30, algorithm as u8, 0x06, oid.len() as u8];
        prefix.extend_from_slice(oid);
        prefix.extend_from_slice(&[0x05, 0x00, 0x04, digest as u8]);
        prefix
    }

    /// Splits a DER `DigestInfo` into its hash and digest.
    pub fn from_digest_info(digest_info: &[u8]) -> Option<(Self, &[u8])> {
        Self::all().find_map(|hash| {
            let digest = digest_info.strip_prefix(hash.digest_info_prefix().as_slice())?;
            (digest.len() == hash.digest_length()).then_some((hash, digest))
        })
    }

    /// The digest of `data`.
    pub fn digest(self, data: &[u8]) -> Vec<u8> {
        let mut running = Digest::new(self);
        running.update(data);
        running.finish()
    }
}

/// A digest under way, in software.
#[derive(Clone)]
pub struct Digest(Box<dyn Running>);

/// What is asked of every hash.
trait Running: Send + Sync {
    fn update(&mut self, data: &[u8]);
    /// Gives the digest and starts anew.
    fn finish(&mut self) -> Vec<u8>;
    /// Forgets what was added.
    fn wipe(&mut self);
    fn boxed_clone(&self) -> Box<dyn Running>;
}

impl<H: sha2::Digest + FixedOutputReset + BlockSizeUser + Clone + Send + Sync + 'static> Running for H {
    fn update(&mut self, data: &[u8]) {
        sha2::Digest::update(self, data);
    }

    fn finish(&mut self) -> Vec<u8> {
        self.finalize_reset().to_vec()
    }

    fn wipe(&mut self) {
        sha2::Digest::reset(self);
        // That leaves the last block where it was. A whole one would pass it by.
        let block = Block::<H>::default();
        let (first, rest) = block.split_at(1);
        sha2::Digest::update(self, first);
        sha2::Digest::update(self, rest);
        sha2::Digest::reset(self);
    }

    fn boxed_clone(&self) -> Box<dyn Running> {
        Box::new(self.clone())
    }
}

impl Clone for Box<dyn Running> {
    fn clone(&self) -> Self {
        (**self).boxed_clone()
    }
}

impl Digest {
    /// Starts a digest.
    pub fn new(hash: HashAlgorithm) -> Self {
        Self(with_hash!(hash, H => Box::new(H::default())))
    }

    /// Adds data.
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// The digest of everything added.
    pub fn finish(mut self) -> Vec<u8> {
        self.0.finish()
    }
}

/// What is hashed may be secret.
impl Drop for Digest {
    fn drop(&mut self) {
        self.0.wipe();
    }
}
