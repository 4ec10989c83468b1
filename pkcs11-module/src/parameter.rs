//! Parameters of mechanisms: what the structures of the standard say, as domain types.

use cryptoki_sys::*;
use keyrivet_core::algorithm::{CipherMode, EncryptionScheme, HashAlgorithm, SignatureScheme};
use keyrivet_core::secret_key::AES_BLOCK;

use crate::error::{Error, Result};
use crate::mechanism::HASHES;

/// The parameter of a mechanism, with what its pointers point to.
#[derive(Clone, Copy)]
pub(crate) enum Parameter<'a> {
    /// A structure without pointers, an IV, or nothing.
    Bytes(&'a [u8]),
    /// `CK_RSA_PKCS_OAEP_PARAMS`.
    Oaep { hash: CK_MECHANISM_TYPE, mgf: CK_RSA_PKCS_MGF_TYPE, source: CK_RSA_PKCS_OAEP_SOURCE_TYPE, label: &'a [u8] },
    /// `CK_ECDH1_DERIVE_PARAMS`.
    Ecdh { kdf: CK_EC_KDF_TYPE, shared: &'a [u8], public: &'a [u8] },
}

const INVALID: Error = Error(CKR_MECHANISM_PARAM_INVALID);

/// Longest salt of a PSS signature that is looked at.
const LONGEST_SALT: usize = 1024;

impl<'a> Parameter<'a> {
    fn bytes(self) -> Result<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Oaep { .. } | Self::Ecdh { .. } => Err(INVALID),
        }
    }

    /// Refuses a parameter where there is none.
    pub(crate) fn none(self) -> Result<()> {
        if self.bytes()?.is_empty() { Ok(()) } else { Err(INVALID) }
    }

    /// `CK_RSA_PKCS_PSS_PARAMS`, of a mechanism that makes the digest with `hash` itself. MGF1 has the same hash.
    pub(crate) fn pss(self, hash: Option<HashAlgorithm>) -> Result<SignatureScheme> {
        let [digest, mgf, salt] = numbers(self.bytes()?).ok_or(INVALID)?;
        let row = HASHES.iter().find(|row| (row.digest, row.mgf) == (digest, mgf)).ok_or(INVALID)?;
        let salt_length = usize::try_from(salt).ok().filter(|salt| *salt <= LONGEST_SALT).ok_or(INVALID)?;
        if hash.is_some_and(|hash| hash != row.hash) {
            return Err(INVALID);
        }
        Ok(SignatureScheme::RsaPss { hash: row.hash, salt_length })
    }

    /// `CK_RSA_PKCS_OAEP_PARAMS`.
    pub(crate) fn oaep(self) -> Result<EncryptionScheme> {
        let Self::Oaep { hash, mgf, source, label } = self else { return Err(INVALID) };
        let by = |matches: fn(&crate::mechanism::HashNumbers, CK_ULONG) -> bool, number| {
            HASHES.iter().find(|row| matches(row, number)).map(|row| row.hash).ok_or(INVALID)
        };
        // Some give 0 for "no label".
        if source != CKZ_DATA_SPECIFIED && !(source == 0 && label.is_empty()) {
            return Err(INVALID);
        }
        Ok(EncryptionScheme::RsaOaep {
            hash: by(|row, number| row.digest == number, hash)?,
            mgf_hash: by(|row, number| row.mgf == number, mgf)?,
            label: label.to_vec(),
        })
    }

    /// The initialisation vector of an AES mode, and how many blocks may follow it, where its counter ends some time.
    pub(crate) fn initial_vector(self, mode: CipherMode) -> Result<(Vec<u8>, Option<u128>)> {
        let bytes = self.bytes()?;
        match mode {
            CipherMode::Ecb => self.none().map(|()| (Vec::new(), None)),
            CipherMode::Cbc | CipherMode::Cfb | CipherMode::Ofb if bytes.len() == AES_BLOCK => {
                Ok((bytes.to_vec(), None))
            }
            CipherMode::Cbc | CipherMode::Cfb | CipherMode::Ofb => Err(INVALID),
            CipherMode::Ctr => {
                // `CK_AES_CTR_PARAMS`: the counter's bits, then the block.
                let (bits, block) = bytes.split_first_chunk().ok_or(INVALID)?;
                let block: [u8; AES_BLOCK] = block.try_into().map_err(|_| INVALID)?;
                let bits = CK_ULONG::from_ne_bytes(*bits);
                let counter = u128::from_be_bytes(block);
                let blocks = match bits {
                    // Its last value is used too; 2^128 blocks are more than anybody counts.
                    128 => (u128::MAX - counter).saturating_add(1),
                    1..128 => (1 << bits) - (counter & ((1 << bits) - 1)),
                    _ => return Err(INVALID),
                };
                Ok((block.to_vec(), Some(blocks)))
            }
        }
    }

    /// `CK_MAC_GENERAL_PARAMS`: the length of a MAC, of which there are `whole` bytes.
    pub(crate) fn mac_length(self, whole: usize) -> Result<usize> {
        let [length] = numbers(self.bytes()?).ok_or(INVALID)?;
        usize::try_from(length).ok().filter(|length| (1..=whole).contains(length)).ok_or(INVALID)
    }

    /// `CK_ECDH1_DERIVE_PARAMS`.
    pub(crate) fn ecdh(self) -> Result<Ecdh<'a>> {
        let Self::Ecdh { kdf, shared, public } = self else { return Err(INVALID) };
        let derivation = if kdf == CKD_NULL && shared.is_empty() {
            Derivation::None
        } else if let Some(row) = HASHES.iter().find(|row| row.x963 == kdf) {
            Derivation::X963(row.hash)
        } else if let Some(row) = HASHES.iter().find(|row| row.sp800 == kdf) {
            Derivation::Concat(row.hash)
        } else {
            return Err(INVALID);
        };
        Ok(Ecdh { derivation, shared, public })
    }
}

/// How a key is agreed on.
pub(crate) struct Ecdh<'a> {
    pub(crate) derivation: Derivation,
    /// What both sides mix in.
    pub(crate) shared: &'a [u8],
    /// The other side's point, bare or in an OCTET STRING.
    pub(crate) public: &'a [u8],
}

/// What becomes of an ECDH secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Derivation {
    /// Nothing: it is the key.
    None,
    /// ANSI X9.63.
    X963(HashAlgorithm),
    /// The one-step derivation of SP 800-56A.
    Concat(HashAlgorithm),
}

/// The CK_ULONG fields of a C structure that has no others.
fn numbers<const N: usize>(bytes: &[u8]) -> Option<[CK_ULONG; N]> {
    let fields = bytes.chunks(size_of::<CK_ULONG>()).map(|field| field.try_into().ok().map(CK_ULONG::from_ne_bytes));
    fields.collect::<Option<Vec<_>>>()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(numbers: &[CK_ULONG]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
    }

    #[test]
    fn pss_parameters_name_one_hash_twice_and_a_salt() {
        let read = |bytes: &[u8], hash| Parameter::Bytes(bytes).pss(hash);
        let good = fields(&[CKM_SHA256, CKG_MGF1_SHA256, 20]);
        let scheme = SignatureScheme::RsaPss { hash: HashAlgorithm::Sha256, salt_length: 20 };
        assert_eq!(read(&good, None), Ok(scheme));
        assert_eq!(read(&good, Some(HashAlgorithm::Sha256)), Ok(scheme));
        assert_eq!(read(&good, Some(HashAlgorithm::Sha384)), Err(INVALID));
        assert_eq!(read(&fields(&[CKM_SHA256, CKG_MGF1_SHA1, 32]), None), Err(INVALID));
        assert_eq!(read(&fields(&[CKM_SHA256, CKG_MGF1_SHA256, CK_ULONG::MAX]), None), Err(INVALID));
        assert_eq!(read(&good[1..], None), Err(INVALID));
        assert_eq!(read(&[], None), Err(INVALID));
    }

    #[test]
    fn a_counter_of_few_bits_ends_after_its_last_value() {
        let with = |bits: CK_ULONG, last: u8| {
            let mut block = [7; 16];
            block[15] = last;
            Parameter::Bytes(&[&bits.to_ne_bytes()[..], &block].concat()).initial_vector(CipherMode::Ctr)
        };
        // The standard's own example: two bits that start at 1.
        assert_eq!(with(2, 1).unwrap().1, Some(3));
        assert_eq!(with(8, 0xff).unwrap().1, Some(1));
        assert_eq!(with(0, 0).unwrap_err(), INVALID);
        assert_eq!(with(129, 0).unwrap_err(), INVALID);
        assert!(with(128, 0).unwrap().1.is_some_and(|blocks| blocks > 1 << 100));
    }

    #[test]
    fn an_oaep_parameter_may_have_two_hashes_and_a_label() {
        let with = |hash, mgf, source, label| Parameter::Oaep { hash, mgf, source, label }.oaep();
        let scheme = EncryptionScheme::RsaOaep {
            hash: HashAlgorithm::Sha256,
            mgf_hash: HashAlgorithm::Sha1,
            label: b"label".to_vec(),
        };
        assert_eq!(with(CKM_SHA256, CKG_MGF1_SHA1, CKZ_DATA_SPECIFIED, b"label"), Ok(scheme));
        assert_eq!(with(CKM_SHA256, CKG_MGF1_SHA1, 0, b"label"), Err(INVALID));
        assert_eq!(with(CKM_ECDSA, CKG_MGF1_SHA1, CKZ_DATA_SPECIFIED, b""), Err(INVALID));
        assert!(with(CKM_SHA_1, CKG_MGF1_SHA1, 0, b"").is_ok());
    }
}
