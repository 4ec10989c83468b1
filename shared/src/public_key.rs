//! Public keys: their SubjectPublicKeyInfo, and verification in software.

use der::asn1::{Any, BitString, UintRef};
use der::{Decode, Encode, Sequence};
use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use rsa::rand_core::RngCore as _;
use rsa::traits::PublicKeyParts as _;
use rsa::{BigUint, Pkcs1v15Encrypt, RsaPublicKey};
use spki::{AlgorithmIdentifierOwned, ObjectIdentifier, SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef};
use zeroize::Zeroizing;

use crate::algorithm::{Curve, EncryptionScheme, HashAlgorithm, SignatureScheme};
use crate::error::{Error, Result};
use crate::rsa_padding;

pub use crate::rsa_padding::pkcs1_signature_data;

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");

/// The public part of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// An RSA key.
    Rsa {
        /// The modulus, big-endian, without leading zeros.
        modulus: Vec<u8>,
        /// The public exponent, big-endian, without leading zeros.
        exponent: Vec<u8>,
    },
    /// A key on a NIST curve.
    Ec {
        /// The curve.
        curve: Curve,
        /// The point, uncompressed (SEC 1, 2.3.3): `04 || x || y`.
        point: Vec<u8>,
    },
}

/// `RSAPublicKey` (RFC 8017, A.1.1).
#[derive(Sequence)]
struct RsaPublicKeyDer<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}

/// `ECDSA-Sig-Value` (RFC 3279, 2.2.3).
#[derive(Sequence)]
struct EcdsaSignatureDer<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

impl PublicKey {
    /// An RSA key; leading zeros of either number are dropped.
    pub fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self> {
        let (modulus, exponent) = (without_leading_zeros(modulus), without_leading_zeros(exponent));
        if modulus.len() < 64 || modulus.len() > 1024 || exponent.is_empty() || exponent.len() > 8 {
            return Err(Error::malformed("RSA public key", "sizes are out of range"));
        }
        Ok(Self::Rsa { modulus: modulus.to_vec(), exponent: exponent.to_vec() })
    }

    /// Refuses a key that nothing can be done with.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Rsa { modulus, exponent } => rsa_key(modulus, exponent).map(drop),
            Self::Ec { .. } => Ok(()),
        }
    }

    /// A key on `curve`; the point is checked to be on it. Takes compressed points too.
    pub fn ec(curve: Curve, point: &[u8]) -> Result<Self> {
        let wrong = |_| Error::malformed("EC public key", "not a point of its curve");
        let point = match curve {
            Curve::P256 => {
                p256::PublicKey::from_sec1_bytes(point).map_err(wrong)?.to_encoded_point(false).as_bytes().to_vec()
            }
            Curve::P384 => {
                p384::PublicKey::from_sec1_bytes(point).map_err(wrong)?.to_encoded_point(false).as_bytes().to_vec()
            }
            Curve::P521 => {
                p521::PublicKey::from_sec1_bytes(point).map_err(wrong)?.to_encoded_point(false).as_bytes().to_vec()
            }
        };
        Ok(Self::Ec { curve, point })
    }

    /// Reads a DER `SubjectPublicKeyInfo` (RFC 5280, 4.1).
    pub fn from_spki_der(der: &[u8]) -> Result<Self> {
        let malformed = |error: der::Error| Error::malformed("SubjectPublicKeyInfo", error);
        let info =
            SubjectPublicKeyInfoRef::from_der(der).map_err(|error| Error::malformed("SubjectPublicKeyInfo", error))?;
        let key = info.subject_public_key.raw_bytes();
        match info.algorithm.oid {
            RSA_ENCRYPTION => {
                let key = RsaPublicKeyDer::from_der(key).map_err(malformed)?;
                Self::rsa(key.modulus.as_bytes(), key.exponent.as_bytes())
            }
            EC_PUBLIC_KEY => {
                let curve = info.algorithm.parameters.and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
                let curve = curve.and_then(Curve::from_oid);
                let curve = curve.ok_or_else(|| Error::Unsupported("this elliptic curve".into()))?;
                Self::ec(curve, key)
            }
            other => Err(Error::Unsupported(format!("public keys of type {other}"))),
        }
    }

    /// The public key of a DER X.509 certificate.
    pub fn from_certificate_der(der: &[u8]) -> Result<Self> {
        let malformed = |error: der::Error| Error::malformed("certificate", error);
        let certificate = x509_cert::Certificate::from_der(der).map_err(malformed)?;
        Self::from_spki_der(&certificate.tbs_certificate.subject_public_key_info.to_der().map_err(malformed)?)
    }

    /// The DER of the subject's Name in a DER X.509 certificate.
    pub fn certificate_subject(der: &[u8]) -> Result<Vec<u8>> {
        let malformed = |error: der::Error| Error::malformed("certificate", error);
        let certificate = x509_cert::Certificate::from_der(der).map_err(malformed)?;
        certificate.tbs_certificate.subject.to_der().map_err(malformed)
    }

    /// The `CKA_ID` that NSS computes: the SHA-1 of the modulus or the point.
    pub fn default_id(&self) -> Vec<u8> {
        HashAlgorithm::Sha1.digest(match self {
            Self::Rsa { modulus, .. } => modulus,
            Self::Ec { point, .. } => point,
        })
    }

    /// The DER `SubjectPublicKeyInfo`.
    pub fn to_spki_der(&self) -> Result<Vec<u8>> {
        let malformed = |error: der::Error| Error::malformed("public key", error);
        let (oid, parameters, key) = match self {
            Self::Rsa { .. } => (RSA_ENCRYPTION, Any::null(), self.to_rsa_der()?),
            Self::Ec { curve, point } => (EC_PUBLIC_KEY, curve.oid().into(), point.clone()),
        };
        let info = SubjectPublicKeyInfoOwned {
            algorithm: AlgorithmIdentifierOwned { oid, parameters: Some(parameters) },
            subject_public_key: BitString::from_bytes(&key).map_err(malformed)?,
        };
        info.to_der().map_err(malformed)
    }

    /// The DER `RSAPublicKey` (RFC 8017, A.1.1) of an RSA key.
    pub fn to_rsa_der(&self) -> Result<Vec<u8>> {
        let Self::Rsa { modulus, exponent } = self else {
            return Err(Error::Unsupported("RSAPublicKey of a key that is not RSA".into()));
        };
        let number = |bytes| UintRef::new(bytes).map_err(|error| Error::malformed("public key", error));
        RsaPublicKeyDer { modulus: number(modulus)?, exponent: number(exponent)? }
            .to_der()
            .map_err(|error| Error::malformed("public key", error))
    }

    /// Size of the modulus or of the curve's field, in bits.
    pub fn bits(&self) -> usize {
        match self {
            Self::Rsa { modulus, .. } => {
                modulus.len() * 8 - modulus.first().map_or(0, |byte| byte.leading_zeros() as usize)
            }
            Self::Ec { curve, .. } => curve.bits(),
        }
    }

    /// Strength (SP 800-57 part 1, table 2), in bits.
    pub fn security_bits(&self) -> usize {
        match self {
            Self::Rsa { .. } => match self.bits() {
                ..2048 => 80,
                2048..3072 => 112,
                3072..7680 => 128,
                _ => 192,
            },
            Self::Ec { curve, .. } => curve.security_bits(),
        }
    }

    /// Length of a signature in bytes: the modulus, or `r || s`.
    pub fn signature_length(&self) -> usize {
        match self {
            Self::Rsa { modulus, .. } => modulus.len(),
            Self::Ec { curve, .. } => 2 * curve.coordinate_length(),
        }
    }

    /// Verifies `signature` over `digest`, in software.
    ///
    /// ECDSA signatures are `r || s`; see [`ecdsa_signature_from_der`].
    /// Errors: [`Error::SignatureInvalid`]; [`Error::DataInvalid`] for a digest of the wrong length.
    pub fn verify(&self, scheme: SignatureScheme, digest: &[u8], signature: &[u8]) -> Result<()> {
        let verified = match (self, scheme) {
            (Self::Rsa { .. }, SignatureScheme::RsaPkcs1(hash)) => {
                check_digest(hash, digest)?;
                let block = self.recover(signature)?;
                let info = [&hash.digest_info_prefix(), digest].concat();
                rsa_padding::pkcs1_signature_block(&info, block.len()).is_ok_and(|expected| expected == block)
            }
            (Self::Rsa { .. }, SignatureScheme::RsaPss { hash, salt_length }) => {
                self.pss_salt_length(hash, digest, signature)? == salt_length
            }
            (Self::Rsa { .. }, SignatureScheme::RsaPkcs1Data) => {
                let block = self.recover(signature)?;
                rsa_padding::pkcs1_signature_data(&block).is_ok_and(|data| data == digest)
            }
            (Self::Rsa { .. }, SignatureScheme::RsaRaw) => {
                without_leading_zeros(&self.recover(signature)?) == without_leading_zeros(digest)
            }
            (Self::Ec { curve, point }, SignatureScheme::Ecdsa) => {
                verify_ecdsa(*curve, point, &curve.ecdsa_input(digest)?, signature)
            }
            _ => return Err(Error::Unsupported("this signature scheme with this type of key".into())),
        };
        if verified { Ok(()) } else { Err(Error::SignatureInvalid) }
    }

    /// Verifies a PSS signature over `digest` with a salt of any length, and tells that length.
    ///
    /// Errors: those of [`Self::verify`].
    pub fn pss_salt_length(&self, hash: HashAlgorithm, digest: &[u8], signature: &[u8]) -> Result<usize> {
        check_digest(hash, digest)?;
        let block = self.recover(signature)?;
        rsa_padding::pss_salt_length(&block, hash, digest, self.bits()).ok_or(Error::SignatureInvalid)
    }

    /// The RSA public operation on a signature: the block that was signed, as long as the modulus.
    pub fn recover(&self, signature: &[u8]) -> Result<Vec<u8>> {
        let Self::Rsa { modulus, exponent } = self else {
            return Err(Error::Unsupported("recovery from signatures of a key that is not RSA".into()));
        };
        let key = rsa_key(modulus, exponent)?;
        if signature.len() != key.size() || BigUint::from_bytes_be(signature) >= *key.n() {
            return Err(Error::SignatureInvalid);
        }
        Ok(padded(&rsavp1(signature, exponent, modulus), key.size()))
    }

    /// Encrypts to this RSA key, in software.
    ///
    /// Errors: [`Error::DataInvalid`] for more than the key and the padding take.
    pub fn encrypt(&self, scheme: &EncryptionScheme, clear: &[u8]) -> Result<Vec<u8>> {
        let Self::Rsa { modulus, exponent } = self else {
            return Err(Error::Unsupported("encryption to a key that is not RSA".into()));
        };
        let key = rsa_key(modulus, exponent)?;
        let too_long = |_| Error::DataInvalid("more than this key encrypts at once".into());
        let random = &mut rsa::rand_core::OsRng;
        match scheme {
            EncryptionScheme::RsaPkcs1 | EncryptionScheme::RsaPkcs1Implicit | EncryptionScheme::RsaPkcs1Tls { .. } => {
                key.encrypt(random, Pkcs1v15Encrypt, clear).map_err(too_long)
            }
            EncryptionScheme::RsaOaep { hash, mgf_hash, label } => {
                let mut seed = Zeroizing::new(vec![0; hash.digest_length()]);
                random.try_fill_bytes(&mut seed).map_err(|error| Error::malformed("random numbers", error))?;
                let block = rsa_padding::oaep_block(clear, *hash, *mgf_hash, label, &seed, key.size())?;
                self.encrypt(&EncryptionScheme::RsaRaw, &block)
            }
            EncryptionScheme::RsaRaw => {
                let number = Zeroizing::new(BigUint::from_bytes_be(clear));
                if clear.len() > key.size() || *number >= *key.n() {
                    return Err(Error::DataInvalid("more than this key encrypts at once".into()));
                }
                let block = rsa::hazmat::rsa_encrypt(&key, &number).map_err(too_long)?;
                Ok(padded(&block.to_bytes_be(), key.size()))
            }
        }
    }
}

/// A number in `length` bytes, big-endian.
pub(crate) fn padded(number: &[u8], length: usize) -> Vec<u8> {
    let mut padded = vec![0; length.saturating_sub(number.len())];
    padded.extend_from_slice(number);
    padded
}

/// Checks that `digest` has the length of `hash`.
pub(crate) fn check_digest(hash: HashAlgorithm, digest: &[u8]) -> Result<()> {
    if digest.len() == hash.digest_length() {
        return Ok(());
    }
    Err(Error::DataInvalid(format!("{} takes {} bytes, not {}", hash.name(), hash.digest_length(), digest.len())))
}

/// `r || s` as the DER `ECDSA-Sig-Value` (RFC 3279, 2.2.3).
pub fn ecdsa_signature_to_der(signature: &[u8]) -> Result<Vec<u8>> {
    let malformed = |error: der::Error| Error::malformed("ECDSA signature", error);
    let (r, s) = signature.split_at(signature.len() / 2);
    let (r, s) = (without_leading_zeros(r), without_leading_zeros(s));
    EcdsaSignatureDer { r: UintRef::new(r).map_err(malformed)?, s: UintRef::new(s).map_err(malformed)? }
        .to_der()
        .map_err(malformed)
}

/// A DER `ECDSA-Sig-Value` as `r || s` for `curve`.
pub fn ecdsa_signature_from_der(curve: Curve, der: &[u8]) -> Result<Vec<u8>> {
    let value = EcdsaSignatureDer::from_der(der).map_err(|error| Error::malformed("ECDSA signature", error))?;
    let length = curve.coordinate_length();
    let mut signature = Vec::with_capacity(2 * length);
    for number in [value.r, value.s] {
        let bytes = number.as_bytes();
        if bytes.len() > length {
            return Err(Error::malformed("ECDSA signature", "a number is longer than the curve"));
        }
        signature.resize(signature.len() + length - bytes.len(), 0);
        signature.extend_from_slice(bytes);
    }
    Ok(signature)
}

/// The longest DER `ECDSA-Sig-Value` on `curve`, in bytes.
pub fn ecdsa_signature_der_max_length(curve: Curve) -> usize {
    // Two INTEGERs of at most a coordinate and a zero byte, each with 2 bytes of header, in a SEQUENCE.
    let body = 2 * (curve.coordinate_length() + 1 + 2);
    body + if body < 128 { 2 } else { 3 }
}

fn rsa_key(modulus: &[u8], exponent: &[u8]) -> Result<RsaPublicKey> {
    RsaPublicKey::new_with_max_size(BigUint::from_bytes_be(modulus), BigUint::from_bytes_be(exponent), 8192)
        .map_err(|error| Error::malformed("RSA public key", error))
}

/// RSAVP1 (RFC 8017, 5.2.2). The `rsa` crate's exponentiation takes six times as long for the usual short exponents: it serves
/// secrets, too, and long exponents; its numbers alone take three times as long. Here all is public.
fn rsavp1(signature: &[u8], exponent: &[u8], modulus: &[u8]) -> Vec<u8> {
    let [signature, modulus] = [signature, modulus].map(num_bigint::BigUint::from_bytes_be);
    let bits = exponent.iter().flat_map(|byte| (0..8).rev().map(move |place| byte >> place & 1));
    let power = bits.fold(num_bigint::BigUint::from(1_u8), |power, bit| {
        let square = &power * &power % &modulus;
        if bit == 1 { square * &signature % &modulus } else { square }
    });
    power.to_bytes_be()
}

fn verify_ecdsa(curve: Curve, point: &[u8], input: &[u8], signature: &[u8]) -> bool {
    use p256::ecdsa::signature::hazmat::PrehashVerifier as _;

    match curve {
        Curve::P256 => p256::ecdsa::VerifyingKey::from_sec1_bytes(point).is_ok_and(|key| {
            p256::ecdsa::Signature::from_slice(signature).is_ok_and(|s| key.verify_prehash(input, &s).is_ok())
        }),
        Curve::P384 => p384::ecdsa::VerifyingKey::from_sec1_bytes(point).is_ok_and(|key| {
            p384::ecdsa::Signature::from_slice(signature).is_ok_and(|s| key.verify_prehash(input, &s).is_ok())
        }),
        Curve::P521 => p521::ecdsa::VerifyingKey::from_sec1_bytes(point).is_ok_and(|key| {
            p521::ecdsa::Signature::from_slice(signature).is_ok_and(|s| key.verify_prehash(input, &s).is_ok())
        }),
    }
}

pub(crate) fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    &bytes[zeros..]
}

/// The signatures under `tests/data` were made by `openssl dgst` over `abc`.
#[cfg(test)]
mod tests {
    use super::*;

    const RSA: &[u8] = include_bytes!("../tests/data/rsa2048.spki");
    const P256: &[u8] = include_bytes!("../tests/data/p256.spki");
    const P384: &[u8] = include_bytes!("../tests/data/p384.spki");
    const P521: &[u8] = include_bytes!("../tests/data/p521.spki");

    #[test]
    fn public_keys_survive_their_der() {
        for (der, bits) in [(RSA, 2048), (P256, 256), (P384, 384), (P521, 521)] {
            let key = PublicKey::from_spki_der(der).unwrap();
            assert_eq!((key.bits(), key.to_spki_der().unwrap().as_slice()), (bits, der));
            for length in 0..der.len() {
                assert!(PublicKey::from_spki_der(&der[..length]).is_err());
            }
        }
    }

    #[test]
    fn rsa_signatures_verify_and_changed_ones_do_not() {
        let key = PublicKey::from_spki_der(RSA).unwrap();
        let cases: [(SignatureScheme, HashAlgorithm, &[u8]); 2] = [
            (
                SignatureScheme::RsaPkcs1(HashAlgorithm::Sha256),
                HashAlgorithm::Sha256,
                include_bytes!("../tests/data/rsa2048.sha256"),
            ),
            (
                SignatureScheme::RsaPss { hash: HashAlgorithm::Sha384, salt_length: 20 },
                HashAlgorithm::Sha384,
                include_bytes!("../tests/data/rsa2048.pss-sha384-20"),
            ),
        ];
        for (scheme, hash, signature) in cases {
            let digest = hash.digest(b"abc");
            key.verify(scheme, &digest, signature).unwrap();
            assert!(matches!(key.verify(scheme, &hash.digest(b"abd"), signature), Err(Error::SignatureInvalid)));
            assert!(matches!(key.verify(scheme, &digest, &signature[1..]), Err(Error::SignatureInvalid)));
            assert!(matches!(key.verify(scheme, &digest[1..], signature), Err(Error::DataInvalid(_))));
        }
    }

    #[test]
    fn a_pss_signature_verifies_whatever_its_salts_length_and_tells_it() {
        let (key, hash) = (PublicKey::from_spki_der(RSA).unwrap(), HashAlgorithm::Sha384);
        let signature: &[u8] = include_bytes!("../tests/data/rsa2048.pss-sha384-20");
        let length = |text, signature| key.pss_salt_length(hash, &hash.digest(text), signature);
        assert_eq!(length(b"abc", signature).unwrap(), 20);
        assert!(matches!(length(b"abd", signature), Err(Error::SignatureInvalid)));
        assert!(matches!(length(b"abc", &[1; 256]), Err(Error::SignatureInvalid)));
        let pkcs1 = include_bytes!("../tests/data/rsa2048.sha256");
        assert!(matches!(length(b"abc", pkcs1), Err(Error::SignatureInvalid)));
        assert!(matches!(key.pss_salt_length(hash, &[7; 32], signature), Err(Error::DataInvalid(_))));
        let verify =
            |salt_length| key.verify(SignatureScheme::RsaPss { hash, salt_length }, &hash.digest(b"abc"), signature);
        verify(20).unwrap();
        for other in [0, 19, 21, 48, usize::MAX] {
            assert!(matches!(verify(other), Err(Error::SignatureInvalid)), "{other}");
        }
    }

    #[test]
    fn what_is_recovered_is_what_the_rsa_crate_makes_of_it() {
        let PublicKey::Rsa { modulus, .. } = PublicKey::from_spki_der(RSA).unwrap() else { panic!("not RSA") };
        for exponent in [&[3][..], &[1, 0, 1], &[0x0f, 0xff, 0xff, 0xff]] {
            let key = PublicKey::Rsa { modulus: modulus.clone(), exponent: exponent.to_vec() };
            let theirs = rsa_key(&modulus, exponent).unwrap();
            let mut last = modulus.clone();
            *last.last_mut().unwrap() -= 1;
            for number in [vec![0; 256], padded(&[1], 256), [&[0][..], &[0xa5; 255]].concat(), last] {
                let expected = rsa::hazmat::rsa_encrypt(&theirs, &BigUint::from_bytes_be(&number)).unwrap();
                assert_eq!(key.recover(&number).unwrap(), padded(&expected.to_bytes_be(), 256));
            }
            assert!(key.recover(&modulus).is_err() && key.recover(&modulus[1..]).is_err());
        }
    }

    #[test]
    fn ecdsa_signatures_verify_with_digests_shorter_and_longer_than_the_curve() {
        let cases: [(&[u8], HashAlgorithm, &[u8]); 5] = [
            (P256, HashAlgorithm::Sha256, include_bytes!("../tests/data/p256.sha256")),
            (P256, HashAlgorithm::Sha512, include_bytes!("../tests/data/p256.sha512")),
            (P384, HashAlgorithm::Sha1, include_bytes!("../tests/data/p384.sha1")),
            (P384, HashAlgorithm::Sha256, include_bytes!("../tests/data/p384.sha256")),
            (P521, HashAlgorithm::Sha256, include_bytes!("../tests/data/p521.sha256")),
        ];
        for (spki, hash, der) in cases {
            let key = PublicKey::from_spki_der(spki).unwrap();
            let PublicKey::Ec { curve, .. } = key else { panic!("not EC") };
            let signature = ecdsa_signature_from_der(curve, der).unwrap();
            key.verify(SignatureScheme::Ecdsa, &hash.digest(b"abc"), &signature).unwrap();
            assert!(key.verify(SignatureScheme::Ecdsa, &hash.digest(b"abd"), &signature).is_err());
            assert_eq!(ecdsa_signature_to_der(&signature).unwrap(), der);
            assert!(der.len() <= ecdsa_signature_der_max_length(curve));
        }
    }

    #[test]
    fn a_point_off_its_curve_is_refused() {
        let mut der = P256.to_vec();
        *der.last_mut().unwrap() ^= 1;
        assert!(PublicKey::from_spki_der(&der).is_err());
    }
}
