//! Templates: the public areas that we ask the TPM to make objects by.

use tss_esapi::attributes::ObjectAttributesBuilder;
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm, SymmetricMode};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::key_bits::{AesKeyBits, RsaKeyBits};
use tss_esapi::structures::{
    Digest, EccParameter, EccPoint, EccScheme, HashScheme, KeyDerivationFunctionScheme, KeyedHashScheme, Public,
    PublicBuilder, PublicEccParameters, PublicKeyRsa, PublicKeyedHashParameters, PublicRsaParameters, RsaExponent,
    RsaScheme, SymmetricCipherParameters, SymmetricDefinitionObject,
};

use crate::algorithm::{Curve, HashAlgorithm, KeyKind, KeySpec, SecretKind};
use crate::error::{Error, Result};
use crate::public_key::PublicKey;

fn wrong(error: tss_esapi::Error) -> Error {
    Error::malformed("template", error)
}

/// The storage primary key, with an empty unique field: TCG's templates for ECC P-256 and RSA-2048 (TPM 2.0
/// Provisioning Guidance, 7.5.1; draft-bottomley-tpm2-keys 3.1.5 for parents that are hierarchies).
pub(crate) fn storage_primary(rsa: bool) -> Result<Public> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(true)
        .with_decrypt(true)
        .build()
        .map_err(wrong)?;
    let builder =
        PublicBuilder::new().with_name_hashing_algorithm(HashingAlgorithm::Sha256).with_object_attributes(attributes);
    let cipher = SymmetricDefinitionObject::AES_128_CFB;
    match rsa {
        true => with_rsa(builder, cipher, RsaKeyBits::Rsa2048, PublicKeyRsa::default()),
        false => with_ec(builder, cipher, Curve::P256, EccPoint::default()),
    }
    .build()
    .map_err(wrong)
}

/// A sealed secret, protected by the TPM's dictionary-attack logic.
pub(crate) fn sealed() -> Result<Public> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_user_with_auth(true)
        .build()
        .map_err(wrong)?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::KeyedHash)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_keyed_hash_parameters(PublicKeyedHashParameters::new(KeyedHashScheme::Null))
        .with_keyed_hash_unique_identifier(Digest::default())
        .build()
        .map_err(wrong)
}

/// What all our keys have in common: authorised by the authValue, or by a policy where there is one; never counted by
/// the dictionary-attack logic.
fn for_use(origin: Origin, (sign, decrypt): (bool, bool), policy: Option<&[u8]>) -> Result<PublicBuilder> {
    let made = origin == Origin::Tpm;
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(made)
        .with_fixed_parent(made)
        .with_sensitive_data_origin(made)
        .with_user_with_auth(policy.is_none())
        .with_no_da(true)
        .with_sign_encrypt(sign)
        .with_decrypt(decrypt)
        .build()
        .map_err(wrong)?;
    let policy = Digest::try_from(policy.unwrap_or_default().to_vec()).map_err(wrong)?;
    Ok(PublicBuilder::new()
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_auth_policy(policy)
        .with_object_attributes(attributes))
}

/// Where a key's private part comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The TPM makes it, and it never leaves.
    Tpm,
    /// It was made outside.
    Outside,
}

/// A key pair to be made, bound to a policy where there is one. It takes any scheme.
pub(crate) fn key(spec: KeySpec, policy: Option<&[u8]>) -> Result<Public> {
    let builder = for_use(Origin::Tpm, (spec.sign, spec.decrypt), policy)?;
    let none = SymmetricDefinitionObject::Null;
    match spec.kind {
        KeyKind::Rsa { bits } => with_rsa(builder, none, rsa_bits(bits)?, PublicKeyRsa::default()),
        KeyKind::RsaPss { bits, hash } => {
            let bits = rsa_bits(bits)?;
            let scheme = RsaScheme::RsaPss(HashScheme::new(tpm_hash(hash)?));
            with_rsa(builder, none, bits, PublicKeyRsa::default()).with_rsa_parameters(PublicRsaParameters::new(
                none,
                scheme,
                bits,
                RsaExponent::default(),
            ))
        }
        KeyKind::Ec(curve) => with_ec(builder, none, curve, EccPoint::default()),
    }
    .build()
    .map_err(wrong)
}

/// The size of a new RSA key. There are TPMs that make shorter ones (NIST SP 800-131A allows them no more).
fn rsa_bits(bits: u16) -> Result<RsaKeyBits> {
    match bits {
        ..2048 => Err(Error::Unsupported(format!("RSA keys of {bits} bits: 2048 is the least that is safe"))),
        _ => RsaKeyBits::try_from(bits).map_err(wrong),
    }
}

/// A key pair made outside.
pub(crate) fn imported_key(key: &PublicKey, usage: (bool, bool), policy: Option<&[u8]>) -> Result<Public> {
    let builder = for_use(Origin::Outside, usage, policy)?;
    let none = SymmetricDefinitionObject::Null;
    match key {
        PublicKey::Rsa { modulus, .. } => {
            let bits = u16::try_from(key.bits()).ok().and_then(|bits| RsaKeyBits::try_from(bits).ok());
            let bits = bits.ok_or_else(|| Error::Unsupported(format!("RSA keys of {} bits in a TPM", key.bits())))?;
            with_rsa(builder, none, bits, PublicKeyRsa::try_from(modulus.clone()).map_err(wrong)?)
        }
        PublicKey::Ec { curve, point } => {
            let (x, y) = point[1..].split_at(curve.coordinate_length());
            let coordinate = |bytes: &[u8]| EccParameter::try_from(bytes.to_vec()).map_err(wrong);
            with_ec(builder, none, *curve, EccPoint::new(coordinate(x)?, coordinate(y)?))
        }
    }
    .build()
    .map_err(wrong)
}

/// A secret key of `length` bytes. Of one made outside, `unique` is the digest of its seed and value.
///
/// The TPM makes AES keys of 16, 24 and 32 bytes, and secrets as long as the digest that makes the object's Name.
pub(crate) fn secret(kind: SecretKind, length: usize, unique: Option<&[u8]>, policy: Option<&[u8]>) -> Result<Public> {
    let origin = if unique.is_some() { Origin::Outside } else { Origin::Tpm };
    let builder = for_use(origin, (true, true), policy)?;
    let unique = Digest::try_from(unique.unwrap_or_default().to_vec()).map_err(wrong)?;
    let unsupported = || Error::Unsupported(format!("secret keys of {length} bytes made by a TPM"));
    if kind == SecretKind::Aes {
        let bits = u16::try_from(length * 8).ok().and_then(|bits| AesKeyBits::try_from(bits).ok());
        let cipher =
            SymmetricDefinitionObject::Aes { key_bits: bits.ok_or_else(unsupported)?, mode: SymmetricMode::Null };
        return builder
            .with_public_algorithm(PublicAlgorithm::SymCipher)
            .with_symmetric_cipher_parameters(SymmetricCipherParameters::new(cipher))
            .with_symmetric_cipher_unique_identifier(unique)
            .build()
            .map_err(wrong);
    }
    let name_hash = match (origin, length) {
        (Origin::Tpm, 32) => HashingAlgorithm::Sha256,
        (Origin::Tpm, 48) => HashingAlgorithm::Sha384,
        (Origin::Tpm, 64) => HashingAlgorithm::Sha512,
        (Origin::Tpm, _) => return Err(unsupported()),
        // A value may be as long as a block of the Name's hash.
        (Origin::Outside, ..=64) => HashingAlgorithm::Sha256,
        (Origin::Outside, _) => HashingAlgorithm::Sha512,
    };
    builder
        .with_name_hashing_algorithm(name_hash)
        .with_public_algorithm(PublicAlgorithm::KeyedHash)
        .with_keyed_hash_parameters(PublicKeyedHashParameters::new(KeyedHashScheme::Null))
        .with_keyed_hash_unique_identifier(unique)
        .build()
        .map_err(wrong)
}

fn tpm_hash(hash: HashAlgorithm) -> Result<HashingAlgorithm> {
    match hash {
        HashAlgorithm::Sha256 => Ok(HashingAlgorithm::Sha256),
        HashAlgorithm::Sha384 => Ok(HashingAlgorithm::Sha384),
        HashAlgorithm::Sha512 => Ok(HashingAlgorithm::Sha512),
        other => Err(Error::Unsupported(format!("keys of a TPM for signatures with {} only", other.name()))),
    }
}

fn with_rsa(
    builder: PublicBuilder,
    cipher: SymmetricDefinitionObject,
    bits: RsaKeyBits,
    modulus: PublicKeyRsa,
) -> PublicBuilder {
    builder
        .with_public_algorithm(PublicAlgorithm::Rsa)
        .with_rsa_parameters(PublicRsaParameters::new(cipher, RsaScheme::Null, bits, RsaExponent::default()))
        .with_rsa_unique_identifier(modulus)
}

fn with_ec(builder: PublicBuilder, cipher: SymmetricDefinitionObject, curve: Curve, point: EccPoint) -> PublicBuilder {
    let curve = match curve {
        Curve::P256 => EccCurve::NistP256,
        Curve::P384 => EccCurve::NistP384,
        Curve::P521 => EccCurve::NistP521,
    };
    let kdf = KeyDerivationFunctionScheme::Null;
    builder
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_ecc_parameters(PublicEccParameters::new(cipher, EccScheme::Null, curve, kdf))
        .with_ecc_unique_identifier(point)
}
