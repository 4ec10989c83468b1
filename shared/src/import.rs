//! Private keys made outside, on their way into the TPM.

use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use p256::pkcs8::PrivateKeyInfo;
use rsa::pkcs1;
use rsa::traits::{PrivateKeyParts as _, PublicKeyParts as _};
use rsa::{BigUint, RsaPrivateKey};
use zeroize::Zeroizing;

use crate::algorithm::{Curve, HashAlgorithm, SecretKind};
use crate::error::{Error, Result};
use crate::public_key::{PublicKey, padded, without_leading_zeros};
use crate::random;
use crate::tpm::{self, template};

/// A private key in the clear, for as long as its import takes.
pub struct PrivateKey {
    public_key: PublicKey,
    /// One prime factor (RSA) or the scalar (EC).
    secret: Zeroizing<Vec<u8>>,
}

impl PrivateKey {
    /// An RSA key of two primes, of which one is given. Its exponent is 65537.
    pub fn rsa(modulus: &[u8], exponent: &[u8], prime: &[u8]) -> Result<Self> {
        let public_key = PublicKey::rsa(modulus, exponent)?;
        let wrong = |reason: &str| Error::malformed("RSA private key", reason);
        let n = BigUint::from_bytes_be(modulus);
        let e = BigUint::from_bytes_be(exponent);
        if e != BigUint::from(65537_u32) {
            return Err(Error::Unsupported("RSA keys with another exponent than 65537".into()));
        }
        let p = Zeroizing::new(BigUint::from_bytes_be(prime));
        if *p <= BigUint::from(1_u32) || *p >= n || &n % &*p != BigUint::from(0_u32) {
            return Err(wrong("the prime does not divide the modulus"));
        }
        let q = &n / &*p;
        // Its private exponent follows; the crate checks that everything fits.
        let key = RsaPrivateKey::from_p_q((*p).clone(), q, e).map_err(|error| wrong(&error.to_string()))?;
        let length = key.size() / 2;
        if n.bits() % 16 != 0 || p.bits() > 8 * length {
            return Err(wrong("its primes are of different lengths"));
        }
        let prime = Zeroizing::new(p.to_bytes_be());
        Ok(Self { public_key, secret: Zeroizing::new(padded(&prime, length)) })
    }

    /// An RSA key of which the private exponent is given: the primes are found from that.
    pub fn rsa_from_exponents(modulus: &[u8], exponent: &[u8], private_exponent: &[u8]) -> Result<Self> {
        // The crate looks for primes before it looks at the numbers.
        let _ = PublicKey::rsa(modulus, exponent)?;
        let number = BigUint::from_bytes_be;
        let (n, d) = (number(modulus), Zeroizing::new(number(private_exponent)));
        if *d == BigUint::from(0_u32) || *d >= n {
            return Err(Error::malformed("RSA private key", "its private exponent is out of range"));
        }
        let found = RsaPrivateKey::from_components(n, number(exponent), (*d).clone(), Vec::new());
        let key = found.map_err(|error| Error::malformed("RSA private key", error))?;
        let prime = key.primes().first().ok_or_else(|| Error::malformed("RSA private key", "it has no primes"))?;
        Self::rsa(modulus, exponent, &Zeroizing::new(prime.to_bytes_be()))
    }

    /// One that comes as a PKCS#8 PrivateKeyInfo (RFC 5208): RSA (RFC 8017, A.1.2), or EC on a named curve (RFC 5915).
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self> {
        let wrong = |reason: &dyn std::fmt::Display| Error::malformed("PKCS#8 private key", reason);
        let info = PrivateKeyInfo::try_from(der).map_err(|error| wrong(&error))?;
        if info.algorithm.oid == pkcs1::ALGORITHM_OID {
            let key = pkcs1::RsaPrivateKey::try_from(info.private_key).map_err(|error| wrong(&error))?;
            return Self::rsa(key.modulus.as_bytes(), key.public_exponent.as_bytes(), key.prime1.as_bytes());
        }
        let curve = info.algorithm.parameters_oid().ok().and_then(Curve::from_oid);
        let curve = curve.ok_or_else(|| Error::Unsupported("PKCS#8 keys of this algorithm or curve".into()))?;
        let key = sec1::EcPrivateKey::try_from(info.private_key).map_err(|error| wrong(&error))?;
        Self::ec(curve, key.private_key)
    }

    /// An EC key; its point is computed.
    pub fn ec(curve: Curve, scalar: &[u8]) -> Result<Self> {
        let scalar = without_leading_zeros(scalar);
        let secret = Zeroizing::new(padded(scalar, curve.coordinate_length()));
        let wrong = |_| Error::malformed("EC private key", "not a scalar of its curve");
        let point = match curve {
            Curve::P256 => {
                p256::SecretKey::from_slice(&secret).map_err(wrong)?.public_key().to_encoded_point(false).to_bytes()
            }
            Curve::P384 => {
                p384::SecretKey::from_slice(&secret).map_err(wrong)?.public_key().to_encoded_point(false).to_bytes()
            }
            Curve::P521 => {
                p521::SecretKey::from_slice(&secret).map_err(wrong)?.public_key().to_encoded_point(false).to_bytes()
            }
        };
        Ok(Self { public_key: PublicKey::ec(curve, &point)?, secret })
    }

    /// Its public part.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// What `TPM2_Import` takes, as a key that signs, and one that decrypts or derives.
    /// `policy` is the digest of one that is to authorise it.
    pub(crate) fn wrapped(&self, usage: (bool, bool), auth_value: &[u8], policy: Option<&[u8]>) -> Result<Importable> {
        let public = tpm::public_bytes(template::imported_key(&self.public_key, usage, policy)?)?;
        Ok(Importable { public, sensitive: sensitive(&self.secret, auth_value, &[]) })
    }
}

/// An object ready to be imported.
pub(crate) struct Importable {
    /// `TPM2B_PUBLIC`, marshalled.
    pub(crate) public: Vec<u8>,
    /// `TPMT_SENSITIVE` without its type, which is the public area's.
    sensitive: Zeroizing<Vec<u8>>,
}

impl Importable {
    /// A secret key.
    pub(crate) fn secret(kind: SecretKind, value: &[u8], auth_value: &[u8], policy: Option<&[u8]>) -> Result<Self> {
        if value.is_empty() || value.len() > 128 {
            return Err(Error::Unsupported(format!("secret keys of {} bytes in a TPM", value.len())));
        }
        // The Name's hash makes the unique digest too (Part 1, 27.5.3.2).
        let hash = if value.len() > 64 { HashAlgorithm::Sha512 } else { HashAlgorithm::Sha256 };
        let mut seed = Zeroizing::new(vec![0; hash.digest_length()]);
        random::fill(&mut seed)?;
        let unique = hash.digest(&Zeroizing::new([seed.as_slice(), value].concat()));
        let public = tpm::public_bytes(template::secret(kind, value.len(), Some(&unique), policy)?)?;
        Ok(Self { public, sensitive: sensitive(value, auth_value, &seed) })
    }

    /// `TPMT_SENSITIVE`, marshalled (Part 2, 12.3.2.4).
    pub(crate) fn sensitive(&self) -> Zeroizing<Vec<u8>> {
        let kind = self.public.get(2..4).unwrap_or_default();
        Zeroizing::new([kind, &self.sensitive].concat())
    }
}

fn sensitive(value: &[u8], auth_value: &[u8], seed: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(6 + value.len() + auth_value.len() + seed.len()));
    for field in [auth_value, seed, value] {
        bytes.extend_from_slice(&(field.len() as u16).to_be_bytes());
        bytes.extend_from_slice(field);
    }
    bytes
}
