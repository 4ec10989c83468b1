//! Tests of the table of mechanisms, and the matrix that the README shows of it.

use keyrivet_core::algorithm::{Curve, HashAlgorithm::*};
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
        aes_bits: vec![128, 256],
        cipher_modes: CipherMode::all().collect(),
        mac_hashes: vec![Sha1, Sha256, Sha384, Sha512],
        sha1_signatures: false,
    }
}

#[test]
fn every_mechanism_in_the_list_has_its_info_and_is_there_once() {
    let token = token();
    let mut kinds = list(Some(&token));
    for kind in &kinds {
        assert_ne!(info(*kind, Some(&token)).unwrap().flags, 0);
    }
    kinds.sort_unstable();
    let count = kinds.len();
    kinds.dedup();
    assert_eq!(kinds.len(), count);
}

#[test]
fn the_table_of_hashes_is_in_the_order_of_their_enum() {
    for (row, hash) in HASHES.iter().zip(HashAlgorithm::all()) {
        assert_eq!(row.hash, hash);
    }
    assert_eq!(HASHES.len(), HashAlgorithm::all().count());
}

#[test]
fn sha_1_signs_only_where_the_configuration_says_so() {
    let mut token = token();
    let flags = |kind, token: &TokenInfo| info(kind, Some(token)).unwrap().flags;
    assert_eq!(flags(CKM_SHA256_RSA_PKCS, &token), CKF_HW | CKF_SIGN | CKF_VERIFY);
    assert_eq!(flags(CKM_SHA1_RSA_PKCS, &token), CKF_VERIFY);
    assert_eq!(find(CKM_ECDSA_SHA1, Some(&token), CKF_SIGN), Err(Error(CKR_MECHANISM_INVALID)));
    token.sha1_signatures = true;
    assert_eq!(flags(CKM_SHA1_RSA_PKCS, &token), CKF_HW | CKF_SIGN | CKF_VERIFY);
    assert_eq!(find(CKM_ECDSA_SHA1, Some(&token), CKF_SIGN), Ok(Ecdsa(Some(Sha1))));
}

#[test]
fn what_the_tpm_lacks_is_not_offered() {
    let token = TokenInfo { rsa_bits: vec![], cipher_modes: vec![CipherMode::Cfb], mac_hashes: vec![], ..token() };
    let kinds = list(Some(&token));
    assert!(kinds.contains(&CKM_AES_CFB128) && kinds.contains(&CKM_ECDSA));
    for missing in [CKM_RSA_PKCS, CKM_RSA_PKCS_KEY_PAIR_GEN, CKM_AES_CBC_PAD, CKM_AES_CTR, CKM_SHA256_HMAC] {
        assert!(!kinds.contains(&missing), "{missing:#x}");
        assert_eq!(info(missing, Some(&token)).unwrap_err(), Error(CKR_MECHANISM_INVALID));
    }
}

#[test]
fn the_free_slot_offers_digests_only() {
    assert_eq!(list(None), HASHES.map(|row| row.digest));
    assert_eq!(info(CKM_ECDSA, None).unwrap_err(), Error(CKR_MECHANISM_INVALID));
}

/// The matrix in the README, between its two marks. `KEYRIVET_WRITE_README=1 cargo test -p keyrivet-pkcs11` writes it.
#[test]
fn the_readme_shows_this_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let readme = std::fs::read_to_string(path).unwrap();
    let (begin, end) = ("<!-- mechanisms: begin -->\n", "<!-- mechanisms: end -->");
    let (before, rest) = readme.split_once(begin).unwrap();
    let (shown, after) = rest.split_once(end).unwrap();
    if std::env::var_os("KEYRIVET_WRITE_README").is_some() {
        std::fs::write(path, [before, begin, &matrix(), end, after].concat()).unwrap();
        return;
    }
    assert_eq!(shown, matrix());
}

/// Mechanisms that do the same with other hashes are one row.
fn matrix() -> String {
    let everything = TokenInfo {
        rsa_bits: vec![2048, 3072, 4096],
        curves: Curve::all().collect(),
        sha1_signatures: true,
        ..token()
    };
    let mut text = "| mechanism | keys | operations | in the TPM |\n|---|---|---|---|\n".to_owned();
    for (names, kind) in ROWS {
        let work = all().find(|row| row.0 == *kind).unwrap().1;
        let flags = offered(work, Some(&everything));
        let operations: Vec<_> =
            OPERATIONS.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, name)| *name).collect();
        let private: Vec<_> = OPERATIONS
            .iter()
            .filter(|(flag, _)| {
                flags & flag & PRIVATE_OPERATIONS != 0
                    || matches!(work, Hmac(_) | HmacGeneral(_) | Aes(_) | AesCbcPad) && flags & flag != 0
            })
            .map(|(_, name)| *name)
            .collect();
        let private = if private.len() == operations.len() { "all".into() } else { private.join(", ") };
        let private = if private.is_empty() { "nothing".into() } else { private };
        text += &format!("| {names} | {} | {} | {private} |\n", keys(work), operations.join(", "));
    }
    text
}

fn keys(work: Work) -> &'static str {
    match work {
        GenerateKeyPair(KeyType::Rsa) | RsaPkcs1(_) | RsaPss(_) | RsaOaep | RsaRaw => "RSA 2048, 3072, 4096",
        GenerateKeyPair(_) | Ecdsa(_) | Ecdh => "P-256, P-384, P-521",
        GenerateKey(KeyType::Aes) | Aes(_) | AesCbcPad => "AES 128, 256",
        GenerateKey(_) => "generic, 32, 48 or 64 bytes",
        Hmac(_) | HmacGeneral(_) => "generic or HMAC, up to 128 bytes",
        Digest(_) => "",
    }
}

const OPERATIONS: [(CK_FLAGS, &str); 13] = [
    (CKF_GENERATE, "generate"),
    (CKF_GENERATE_KEY_PAIR, "generate"),
    (CKF_SIGN, "sign"),
    (CKF_VERIFY, "verify"),
    (CKF_SIGN_RECOVER, "sign-recover"),
    (CKF_VERIFY_RECOVER, "verify-recover"),
    (CKF_ENCRYPT, "encrypt"),
    (CKF_DECRYPT, "decrypt"),
    (CKF_WRAP, "wrap"),
    (CKF_UNWRAP, "unwrap"),
    (CKF_DERIVE, "derive"),
    (CKF_DIGEST, "digest"),
    (0, ""),
];

/// How the README names the mechanisms; one of each row stands for it.
const ROWS: &[(&str, CK_MECHANISM_TYPE)] = &[
    ("`CKM_RSA_PKCS_KEY_PAIR_GEN`", CKM_RSA_PKCS_KEY_PAIR_GEN),
    ("`CKM_RSA_PKCS`", CKM_RSA_PKCS),
    ("`CKM_SHA1_RSA_PKCS`, and with SHA-2 and SHA-3", CKM_SHA256_RSA_PKCS),
    ("`CKM_RSA_PKCS_PSS`", CKM_RSA_PKCS_PSS),
    ("`CKM_SHA1_RSA_PKCS_PSS`, and with SHA-2 and SHA-3", CKM_SHA256_RSA_PKCS_PSS),
    ("`CKM_RSA_PKCS_OAEP`", CKM_RSA_PKCS_OAEP),
    ("`CKM_RSA_X_509`", CKM_RSA_X_509),
    ("`CKM_EC_KEY_PAIR_GEN`", CKM_EC_KEY_PAIR_GEN),
    ("`CKM_ECDSA`", CKM_ECDSA),
    ("`CKM_ECDSA_SHA1`, and with SHA-2 and SHA-3", CKM_ECDSA_SHA256),
    ("`CKM_ECDH1_DERIVE`, `CKM_ECDH1_COFACTOR_DERIVE`", CKM_ECDH1_DERIVE),
    ("`CKM_AES_KEY_GEN`", CKM_AES_KEY_GEN),
    ("`CKM_AES_ECB`, `_CBC`, `_CBC_PAD`", CKM_AES_CBC),
    ("`CKM_AES_CTR`, `_CFB128`, `_OFB`", CKM_AES_CTR),
    ("`CKM_GENERIC_SECRET_KEY_GEN`", CKM_GENERIC_SECRET_KEY_GEN),
    ("`CKM_SHA_1_HMAC`, `_SHA256_`, `_SHA384_`, `_SHA512_`, and `_GENERAL`", CKM_SHA256_HMAC),
    ("`CKM_SHA_1`, SHA-2, SHA-3", CKM_SHA256),
];
