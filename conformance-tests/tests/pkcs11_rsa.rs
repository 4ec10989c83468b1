//! RSA: every mechanism, against OpenSSL.

mod client;
mod raw;

use client::{Client, HASHES, Hash, Wanted};
use cryptoki::error::RvError;
use cryptoki::mechanism::rsa::{PkcsOaepParams, PkcsOaepSource, PkcsPssParams};
use cryptoki::mechanism::vendor_defined::VendorDefinedMechanism;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, KeyType, ObjectClass, ObjectHandle};
use cryptoki_sys::*;
use openssl::hash::MessageDigest;
use openssl::pkey::{HasPublic, PKey, Private};
use openssl::pkey_ctx::PkeyCtx;
use openssl::rsa::{Padding, Rsa};
use openssl::sign::{RsaPssSaltlen, Signer, Verifier};

const MESSAGE: &[u8] = b"what is signed, in more than one part";
const PARTS: [&[u8]; 3] = [b"what is signed, ", b"", b"in more than one part"];
const SHA1: &str = "sha1_signatures = true\n";

fn pkcs1(hash: &Hash) -> Wanted<'static> {
    match hash.name {
        "SHA1" => Mechanism::Sha1RsaPkcs.into(),
        "SHA224" => Mechanism::Sha224RsaPkcs.into(),
        "SHA256" => Mechanism::Sha256RsaPkcs.into(),
        "SHA384" => Mechanism::Sha384RsaPkcs.into(),
        _ => Mechanism::Sha512RsaPkcs.into(),
    }
}

fn pss_parameters(hash: &Hash, salt: usize) -> PkcsPssParams {
    PkcsPssParams { hash_alg: hash.kind, mgf: hash.mgf, s_len: (salt as CK_ULONG).into() }
}

fn pss(hash: &Hash, salt: usize) -> Wanted<'static> {
    let parameters = pss_parameters(hash, salt);
    match hash.name {
        "SHA1" => Mechanism::Sha1RsaPkcsPss(parameters).into(),
        "SHA224" => Wanted::number(CKM_SHA224_RSA_PKCS_PSS, Mechanism::RsaPkcsPss(parameters)),
        "SHA256" => Mechanism::Sha256RsaPkcsPss(parameters).into(),
        "SHA384" => Mechanism::Sha384RsaPkcsPss(parameters).into(),
        _ => Mechanism::Sha512RsaPkcsPss(parameters).into(),
    }
}

/// Whether OpenSSL takes it for a signature of the message; with a salt it is PSS.
fn verifies<T: HasPublic>(key: &PKey<T>, hash: &Hash, salt: Option<usize>, signature: &[u8]) -> bool {
    let mut verifier = Verifier::new((hash.digest)(), key).unwrap();
    if let Some(salt) = salt {
        verifier.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
        verifier.set_rsa_pss_saltlen(RsaPssSaltlen::custom(salt as i32)).unwrap();
        verifier.set_rsa_mgf1_md((hash.digest)()).unwrap();
    }
    verifier.verify_oneshot(signature, MESSAGE).unwrap()
}

/// A key of OpenSSL's, and its public half as an object.
fn foreign(client: &Client, bits: u32) -> (PKey<Private>, ObjectHandle) {
    let key = Rsa::generate(bits).unwrap();
    let template = [
        Attribute::Class(ObjectClass::PUBLIC_KEY),
        Attribute::KeyType(KeyType::RSA),
        Attribute::Modulus(key.n().to_vec()),
        Attribute::PublicExponent(key.e().to_vec()),
        Attribute::Verify(true),
        Attribute::VerifyRecover(true),
        Attribute::Encrypt(true),
    ];
    let object = client.session.create_object(&template).unwrap();
    (PKey::from_rsa(key).unwrap(), object)
}

#[test]
fn a_key_that_may_decrypt_signs_with_every_hash_and_every_salt() {
    let client = Client::configured(client::PIN, SHA1);
    for bits in [2048, 3072] {
        let (public, private) = client.rsa_for_all(bits);
        let key = client.openssl_key(public);
        let longest = |hash: &Hash| bits as usize / 8 - hash.length() - 2;
        for hash in HASHES {
            let mut cases = vec![(pkcs1(&hash), None)];
            let salts = [0, 20, hash.length(), longest(&hash)];
            cases.extend(salts.map(|salt| (pss(&hash, salt), Some(salt))));
            for (wanted, salt) in cases {
                let at_once = client.sign(&wanted, private, MESSAGE).unwrap();
                let in_parts = client.sign_in_parts(&wanted, private, &PARTS).unwrap();
                for signature in [at_once, in_parts] {
                    assert!(verifies(&key, &hash, salt, &signature), "{bits} {wanted:?}");
                    assert_eq!(client.verify(&wanted, public, MESSAGE, &signature), Ok(()), "{wanted:?}");
                    assert_eq!(client.verify_in_parts(&wanted, public, &PARTS, &signature), Ok(()), "{wanted:?}");
                }
            }
            let too_long = pss(&hash, longest(&hash) + 1);
            assert!(client.sign(&too_long, private, MESSAGE).is_err(), "{too_long:?}");
        }
    }
}

/// What the client crate has no names for: SHA-3 in all three paddings.
#[test]
fn a_key_that_may_decrypt_signs_and_decrypts_with_sha3_too() {
    let client = Client::new(client::PIN);
    let (public, private) = client.rsa_for_all(2048);
    let key = client.openssl_key(public);
    for (digest, hash, mgf, pkcs1, pss) in [
        (MessageDigest::sha3_224(), CKM_SHA3_224, CKG_MGF1_SHA3_224, CKM_SHA3_224_RSA_PKCS, CKM_SHA3_224_RSA_PKCS_PSS),
        (MessageDigest::sha3_256(), CKM_SHA3_256, CKG_MGF1_SHA3_256, CKM_SHA3_256_RSA_PKCS, CKM_SHA3_256_RSA_PKCS_PSS),
        (MessageDigest::sha3_384(), CKM_SHA3_384, CKG_MGF1_SHA3_384, CKM_SHA3_384_RSA_PKCS, CKM_SHA3_384_RSA_PKCS_PSS),
        (MessageDigest::sha3_512(), CKM_SHA3_512, CKG_MGF1_SHA3_512, CKM_SHA3_512_RSA_PKCS, CKM_SHA3_512_RSA_PKCS_PSS),
    ] {
        let signature = client.sign(&Wanted::plain(pkcs1), private, MESSAGE).unwrap();
        let mut verifier = Verifier::new(digest, &key).unwrap();
        assert!(verifier.verify_oneshot(&signature, MESSAGE).unwrap(), "{pkcs1:#x}");
        assert_eq!(client.verify(&Wanted::plain(pkcs1), public, MESSAGE, &signature), Ok(()));
        let parameters = CK_RSA_PKCS_PSS_PARAMS { hashAlg: hash, mgf, sLen: digest.size() as CK_ULONG };
        let known = VendorDefinedMechanism::new(MechanismType::RSA_PKCS_PSS, Some(&parameters));
        let wanted = Wanted::number(pss, Mechanism::VendorDefined(known));
        let signature = client.sign(&wanted, private, MESSAGE).unwrap();
        let mut verifier = Verifier::new(digest, &key).unwrap();
        verifier.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
        verifier.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).unwrap();
        assert!(verifier.verify_oneshot(&signature, MESSAGE).unwrap(), "{pss:#x}");
        let parameters = CK_RSA_PKCS_OAEP_PARAMS {
            hashAlg: hash,
            mgf,
            source: CKZ_DATA_SPECIFIED,
            pSourceData: std::ptr::null_mut(),
            ulSourceDataLen: 0,
        };
        let known = VendorDefinedMechanism::new(MechanismType::RSA_PKCS_OAEP, Some(&parameters));
        let md = openssl::md::Md::from_nid(digest.type_()).unwrap();
        let (mut encrypted, mut context) = (Vec::new(), PkeyCtx::new(&key).unwrap());
        context.encrypt_init().unwrap();
        context.set_rsa_padding(Padding::PKCS1_OAEP).unwrap();
        context.set_rsa_oaep_md(md).unwrap();
        context.set_rsa_mgf1_md(md).unwrap();
        context.encrypt_to_vec(MESSAGE, &mut encrypted).unwrap();
        let clear = client.decrypt(&Mechanism::VendorDefined(known).into(), private, &encrypted);
        assert_eq!(clear.as_deref(), Ok(MESSAGE), "{hash:#x}");
    }
}

#[test]
fn a_key_that_only_signs_signs_what_its_tpm_can() {
    let client = Client::configured(client::PIN, SHA1);
    let (public, private) = client.rsa(2048, &[], &[]);
    let key = client.openssl_key(public);
    for hash in HASHES {
        // swtpm has no SHA-224, and its salt is always as long as the digest.
        for (wanted, salt, refused) in [
            (pkcs1(&hash), None, RvError::KeyFunctionNotPermitted),
            (pss(&hash, hash.length()), Some(hash.length()), RvError::MechanismParamInvalid),
        ] {
            let signature = client.sign(&wanted, private, MESSAGE);
            if hash.name == "SHA224" {
                assert_eq!(signature, Err(refused), "{wanted:?}");
            } else {
                assert!(verifies(&key, &hash, salt, &signature.unwrap()), "{wanted:?}");
            }
        }
        for salt in [0, hash.length() - 1, hash.length() + 1] {
            let refused = client.sign(&pss(&hash, salt), private, MESSAGE);
            assert_eq!(refused, Err(RvError::MechanismParamInvalid), "{} {salt}", hash.name);
        }
    }
}

#[test]
fn sha1_is_signed_only_where_the_configuration_says_so() {
    let client = Client::new(client::PIN);
    let (public, private) = client.rsa_for_all(2048);
    let sha1 = HASHES[0];
    for wanted in [pkcs1(&sha1), pss(&sha1, 20)] {
        assert_eq!(client.sign(&wanted, private, MESSAGE), Err(RvError::MechanismInvalid), "{wanted:?}");
        let info = client.mechanism_info(wanted.kind()).unwrap();
        assert_eq!(info.flags & (CKF_SIGN | CKF_VERIFY), CKF_VERIFY, "{wanted:?}");
        assert_eq!(client.verify(&wanted, public, MESSAGE, &[1; 256]), Err(RvError::SignatureInvalid));
    }
}

#[test]
fn a_digest_is_signed_as_it_is_given() {
    let client = Client::configured(client::PIN, SHA1);
    let (public, private) = client.rsa_for_all(2048);
    let (sign_only_public, sign_only) = client.rsa(2048, &[], &[]);
    for hash in HASHES {
        let digest = hash.of(MESSAGE);
        let info = digest_info(&hash, &digest);
        for (public, private) in [(public, private), (sign_only_public, sign_only)] {
            if private == sign_only && hash.name == "SHA224" {
                continue;
            }
            let key = client.openssl_key(public);
            let signature = client.sign(&Mechanism::RsaPkcs.into(), private, &info).unwrap();
            assert!(verifies(&key, &hash, None, &signature), "{}", hash.name);
            assert_eq!(client.verify(&Mechanism::RsaPkcs.into(), public, &info, &signature), Ok(()));
            let wanted = Mechanism::RsaPkcsPss(pss_parameters(&hash, hash.length())).into();
            let signature = client.sign(&wanted, private, &digest).unwrap();
            assert!(verifies(&key, &hash, Some(hash.length()), &signature), "{}", hash.name);
            assert_eq!(client.verify(&wanted, public, &digest, &signature), Ok(()));
            let short = client.sign(&wanted, private, &digest[1..]);
            assert_eq!(short, Err(RvError::DataLenRange), "{}", hash.name);
        }
    }
}

#[test]
fn any_data_is_signed_with_pkcs1_by_a_key_that_may_decrypt_and_no_other() {
    let client = Client::new(client::PIN);
    let (public, private) = client.rsa_for_all(2048);
    let (_, sign_only) = client.rsa(2048, &[], &[]);
    let key = client.openssl_key(public);
    let wanted = || Wanted::from(Mechanism::RsaPkcs);
    for data in [&b""[..], b"x", b"no DigestInfo at all", &[7; 36], &[0xff; 245]] {
        let signature = client.sign(&wanted(), private, data).unwrap();
        assert_eq!(recovered(&key, Padding::PKCS1, &signature), data);
        assert_eq!(client.verify(&wanted(), public, data, &signature), Ok(()));
        assert_eq!(client.sign_in_parts(&wanted(), private, &[data]), Ok(signature), "it has no randomness");
        assert!(client.sign(&wanted(), sign_only, data).is_err(), "{data:?}");
    }
    assert_eq!(client.sign(&wanted(), private, &[1; 246]), Err(RvError::DataLenRange));
}

#[test]
fn raw_rsa_is_the_number_that_openssl_computes() {
    let client = Client::new(client::PIN);
    let (public, private) = client.rsa_for_all(2048);
    let key = client.openssl_key(public);
    let wanted = || Wanted::from(Mechanism::RsaX509);
    for data in [&[1][..], b"short data", &[[0].as_slice(), &[0xab; 255]].concat(), &[0x12; 256]] {
        let padded = [&vec![0; 256 - data.len()], data].concat();
        let signature = client.sign(&wanted(), private, data).unwrap();
        assert_eq!(recovered(&key, Padding::NONE, &signature), padded);
        assert_eq!(client.verify(&wanted(), public, data, &signature), Ok(()));
        let encrypted = client.encrypt(&wanted(), public, data).unwrap();
        assert_eq!(encrypted, openssl_encrypts(&key, Padding::NONE, &padded));
        assert_eq!(client.decrypt(&wanted(), private, &encrypted), Ok(padded));
    }
    for too_large in [vec![0xff; 256], vec![1; 257]] {
        let refused = [client.sign(&wanted(), private, &too_large), client.encrypt(&wanted(), public, &too_large)];
        for refused in refused {
            assert!(matches!(refused, Err(RvError::DataInvalid | RvError::DataLenRange)), "{refused:?}");
        }
    }
}

#[test]
fn signed_data_is_recovered() {
    let client = Client::new(client::PIN);
    let (public, private) = client.rsa_for_all(2048);
    let key = client.openssl_key(public);
    for (mechanism, padding, data, expected) in [
        (Mechanism::RsaPkcs, Padding::PKCS1, &b"recover this"[..], b"recover this".to_vec()),
        (Mechanism::RsaX509, Padding::NONE, &[3; 256], vec![3; 256]),
    ] {
        let wanted = Wanted::from(mechanism);
        let signature = client.sign_recover(&wanted, private, data).unwrap();
        assert_eq!(recovered(&key, padding, &signature), expected);
        assert_eq!(client.verify_recover(&wanted, public, &signature), Ok(expected));
        assert_eq!(client.verify_recover(&wanted, public, &signature[1..]), Err(RvError::SignatureLenRange));
    }
    let wanted = Wanted::from(Mechanism::RsaPkcs);
    assert_eq!(client.verify_recover(&wanted, public, &[1; 256]), Err(RvError::SignatureInvalid));
    let (public, private) = client.rsa(2048, &[], &[]);
    assert_eq!(client.sign_recover(&wanted, private, b"x"), Err(RvError::KeyFunctionNotPermitted));
    assert_eq!(client.verify_recover(&wanted, public, &[1; 256]), Err(RvError::KeyFunctionNotPermitted));
}

#[test]
fn signatures_of_openssl_verify_and_forged_ones_do_not() {
    let client = Client::new(client::PIN);
    for bits in [2048, 3072, 4096] {
        let (key, object) = foreign(&client, bits);
        for hash in HASHES {
            for salt in [None, Some(0), Some(hash.length()), Some(100)] {
                let mut signer = Signer::new((hash.digest)(), &key).unwrap();
                if let Some(salt) = salt {
                    signer.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
                    signer.set_rsa_pss_saltlen(RsaPssSaltlen::custom(salt as i32)).unwrap();
                }
                let mut signature = signer.sign_oneshot_to_vec(MESSAGE).unwrap();
                let wanted = salt.map_or_else(|| pkcs1(&hash), |salt| pss(&hash, salt));
                assert_eq!(client.verify(&wanted, object, MESSAGE, &signature), Ok(()), "{bits} {wanted:?}");
                signature[40] ^= 1;
                let forged = client.verify(&wanted, object, MESSAGE, &signature);
                assert_eq!(forged, Err(RvError::SignatureInvalid), "{bits} {wanted:?}");
            }
        }
    }
}

#[test]
fn what_openssl_encrypts_is_decrypted() {
    let client = Client::new(client::PIN);
    for bits in [2048, 3072] {
        let (public, private) = client.rsa_for_all(bits);
        let key = client.openssl_key(public);
        let room = bits as usize / 8 - 11;
        for data in [&b""[..], b"a secret", &vec![0; room], &vec![0xff; room]] {
            let wanted = Wanted::from(Mechanism::RsaPkcs);
            let encrypted = openssl_encrypts(&key, Padding::PKCS1, data);
            assert_eq!(client.decrypt(&wanted, private, &encrypted).as_deref(), Ok(data));
            let encrypted = client.encrypt(&wanted, public, data).unwrap();
            assert_eq!(client.decrypt(&wanted, private, &encrypted).as_deref(), Ok(data));
        }
        assert_eq!(client.encrypt(&Mechanism::RsaPkcs.into(), public, &vec![1; room + 1]), Err(RvError::DataLenRange));
    }
}

#[test]
fn oaep_works_with_every_hash_every_mask_and_a_label() {
    let client = Client::new(client::PIN);
    let (public, private) = client.rsa_for_all(2048);
    let key = client.openssl_key(public);
    let (foreign, foreign_object) = foreign(&client, 2048);
    for hash in HASHES {
        for mask in HASHES {
            for label in [None, Some(&b"a label"[..])] {
                let wanted = oaep(&hash, &mask, label);
                let mut encrypted = Vec::new();
                let mut context = PkeyCtx::new(&key).unwrap();
                context.encrypt_init().unwrap();
                set_oaep(&mut context, &hash, &mask, label);
                context.encrypt_to_vec(MESSAGE, &mut encrypted).unwrap();
                assert_eq!(client.decrypt(&wanted, private, &encrypted).as_deref(), Ok(MESSAGE), "{wanted:?}");

                let encrypted = client.encrypt(&wanted, foreign_object, MESSAGE).unwrap();
                let mut clear = Vec::new();
                let mut context = PkeyCtx::new(&foreign).unwrap();
                context.decrypt_init().unwrap();
                set_oaep(&mut context, &hash, &mask, label);
                context.decrypt_to_vec(&encrypted, &mut clear).unwrap();
                assert_eq!(clear, MESSAGE, "{wanted:?}");
            }
        }
    }
    let encrypted = client.encrypt(&oaep(&HASHES[2], &HASHES[2], Some(b"one")), public, MESSAGE).unwrap();
    let other = client.decrypt(&oaep(&HASHES[2], &HASHES[2], Some(b"other")), private, &encrypted);
    assert_eq!(other, Err(RvError::EncryptedDataInvalid), "the label is a part of it");
    let longest = 256 - 2 * 32 - 2;
    let sha256 = || oaep(&HASHES[2], &HASHES[2], None);
    assert!(client.encrypt(&sha256(), public, &vec![1; longest]).is_ok());
    assert_eq!(client.encrypt(&sha256(), public, &vec![1; longest + 1]), Err(RvError::DataLenRange));
}

#[test]
fn what_does_not_decrypt_is_refused_by_its_reason() {
    let client = Client::new(client::PIN);
    let (public, private) = client.rsa_for_all(2048);
    let (_, sign_only) = client.rsa(2048, &[], &[]);
    let decrypt = |mechanism: Mechanism<'_>, key, data: &[u8]| client.decrypt(&mechanism.into(), key, data);
    assert_eq!(decrypt(Mechanism::RsaPkcs, private, &[1; 255]), Err(RvError::EncryptedDataLenRange));
    assert_eq!(decrypt(Mechanism::RsaX509, private, &[1; 257]), Err(RvError::EncryptedDataLenRange));
    assert_eq!(decrypt(Mechanism::RsaX509, private, &[0xff; 256]), Err(RvError::EncryptedDataInvalid));
    assert_eq!(decrypt(Mechanism::RsaPkcs, sign_only, &[1; 256]), Err(RvError::KeyFunctionNotPermitted));
    assert_eq!(decrypt(Mechanism::RsaPkcs, public, &[1; 256]), Err(RvError::KeyFunctionNotPermitted));
    let number = || Wanted::plain(CKM_RSA_PKCS_OAEP);
    assert_eq!(client.decrypt(&number(), private, &[1; 256]), Err(RvError::MechanismParamInvalid));
}

#[test]
fn the_sizes_that_are_told_are_those_that_can_be_made() {
    let client = Client::new(client::PIN);
    let info = client.mechanism_info(CKM_RSA_PKCS_KEY_PAIR_GEN).unwrap();
    for bits in [1024, 2048, 3072, 4096] {
        let public = [Attribute::ModulusBits(bits.into())];
        let made = client.session.generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, &[]);
        let offered = (info.ulMinKeySize..=info.ulMaxKeySize).contains(&bits);
        match client::answer(made) {
            Ok((public, private)) => {
                assert!(offered, "{bits}");
                let signature = client.sign(&Mechanism::Sha256RsaPkcs.into(), private, MESSAGE).unwrap();
                assert!(verifies(&client.openssl_key(public), &HASHES[2], None, &signature), "{bits}");
            }
            Err(refused) => assert_eq!((refused, offered), (RvError::AttributeValueInvalid, false), "{bits}"),
        }
    }
}

/// The mechanisms of a token without a PIN are the same, and its keys work without a login.
#[test]
fn a_token_without_a_pin_decrypts_and_pads_too() {
    let client = Client::new("");
    let (public, private) = client.rsa_for_all(2048);
    let key = client.openssl_key(public);
    let encrypted = openssl_encrypts(&key, Padding::PKCS1, b"a secret");
    assert_eq!(client.decrypt(&Mechanism::RsaPkcs.into(), private, &encrypted).as_deref(), Ok(&b"a secret"[..]));
    let signature = client.sign(&pss(&HASHES[1], 20), private, MESSAGE).unwrap();
    assert!(verifies(&key, &HASHES[1], Some(20), &signature));
}

fn oaep<'a>(hash: &Hash, mask: &Hash, label: Option<&'a [u8]>) -> Wanted<'a> {
    let source = label.map_or(PkcsOaepSource::empty(), PkcsOaepSource::data_specified);
    Mechanism::RsaPkcsOaep(PkcsOaepParams::new(hash.kind, mask.mgf, source)).into()
}

fn set_oaep<T>(context: &mut PkeyCtx<T>, hash: &Hash, mask: &Hash, label: Option<&[u8]>) {
    context.set_rsa_padding(Padding::PKCS1_OAEP).unwrap();
    context.set_rsa_oaep_md(md(hash)).unwrap();
    context.set_rsa_mgf1_md(md(mask)).unwrap();
    if let Some(label) = label {
        context.set_rsa_oaep_label(label).unwrap();
    }
}

fn md(hash: &Hash) -> &'static openssl::md::MdRef {
    openssl::md::Md::from_nid((hash.digest)().type_()).unwrap()
}

/// What OpenSSL makes of a signature with the public key.
fn recovered<T: HasPublic>(key: &PKey<T>, padding: Padding, signature: &[u8]) -> Vec<u8> {
    let rsa = key.rsa().unwrap();
    let mut output = vec![0; rsa.size() as usize];
    let length = rsa.public_decrypt(signature, &mut output, padding).unwrap();
    output.truncate(length);
    output
}

fn openssl_encrypts<T: HasPublic>(key: &PKey<T>, padding: Padding, data: &[u8]) -> Vec<u8> {
    let rsa = key.rsa().unwrap();
    let mut output = vec![0; rsa.size() as usize];
    rsa.public_encrypt(data, &mut output, padding).unwrap();
    output
}

/// DigestInfo of RFC 8017, 9.2.
fn digest_info(hash: &Hash, digest: &[u8]) -> Vec<u8> {
    let oid: &[u8] = match hash.name {
        "SHA1" => &[6, 5, 0x2b, 0x0e, 3, 2, 0x1a],
        "SHA224" => &[6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 4],
        "SHA256" => &[6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1],
        "SHA384" => &[6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2],
        _ => &[6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3],
    };
    let (oid_length, digest_length) = (oid.len() as u8, digest.len() as u8);
    let head = [0x30, oid_length + digest_length + 6, 0x30, oid_length + 2];
    [&head, oid, &[5, 0, 4, digest_length], digest].concat()
}
