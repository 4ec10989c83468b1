//! Templates: the public areas that we ask the TPM to make objects by.

use tss_esapi::attributes::ObjectAttributesBuilder;
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::structures::{
    Digest, EccPoint, EccScheme, KeyDerivationFunctionScheme, KeyedHashScheme, Public, PublicBuilder,
    PublicEccParameters, PublicKeyRsa, PublicKeyedHashParameters, PublicRsaParameters, RsaExponent, RsaScheme,
    SymmetricDefinitionObject,
};

use crate::algorithm::{Curve, KeyKind, KeySpec};
use crate::error::{Error, Result};

fn wrong(error: tss_esapi::Error) -> Error {
    Error::malformed("template", error)
}

/// The storage primary key: TCG's ECC P-256 template (TCG EK Credential Profile 2.x, template H-2's SRK twin;
/// draft-bottomley-tpm2-keys 3.1.5 for parents that are hierarchies), with an empty unique field.
pub(crate) fn storage_primary() -> Result<Public> {
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
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(PublicEccParameters::new(
            SymmetricDefinitionObject::AES_128_CFB,
            EccScheme::Null,
            EccCurve::NistP256,
            KeyDerivationFunctionScheme::Null,
        ))
        .with_ecc_unique_identifier(EccPoint::default())
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

/// A key for use: any scheme, authorised by its authValue, never counted by the dictionary-attack logic.
pub(crate) fn key(spec: KeySpec) -> Result<Public> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_sign_encrypt(spec.sign)
        .with_decrypt(spec.decrypt)
        .build()
        .map_err(wrong)?;
    let builder =
        PublicBuilder::new().with_name_hashing_algorithm(HashingAlgorithm::Sha256).with_object_attributes(attributes);
    let builder = match spec.kind {
        KeyKind::Rsa { bits } => builder
            .with_public_algorithm(PublicAlgorithm::Rsa)
            .with_rsa_parameters(PublicRsaParameters::new(
                SymmetricDefinitionObject::Null,
                RsaScheme::Null,
                RsaKeyBits::try_from(bits).map_err(wrong)?,
                RsaExponent::default(),
            ))
            .with_rsa_unique_identifier(PublicKeyRsa::default()),
        KeyKind::Ec(curve) => builder
            .with_public_algorithm(PublicAlgorithm::Ecc)
            .with_ecc_parameters(PublicEccParameters::new(
                SymmetricDefinitionObject::Null,
                EccScheme::Null,
                match curve {
                    Curve::P256 => EccCurve::NistP256,
                    Curve::P384 => EccCurve::NistP384,
                    Curve::P521 => EccCurve::NistP521,
                },
                KeyDerivationFunctionScheme::Null,
            ))
            .with_ecc_unique_identifier(EccPoint::default()),
    };
    builder.build().map_err(wrong)
}
