//! Keys on their way in and out: C_WrapKey and C_UnwrapKey, against OpenSSL.

mod client;
mod raw;

use client::{Client, answer, secret};
use cryptoki::error::RvError;
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::MechanismType;
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource};
use cryptoki::object::{Attribute, KeyType, ObjectClass, ObjectHandle};
use cryptoki_sys::*;
use openssl::pkey::PKey;
use openssl::rsa::{Padding, Rsa};
use openssl::symm::Cipher;

const VALUE: [u8; 32] = [0x6b; 32];
const IV: [u8; 16] = [3; 16];

fn oaep() -> Mechanism<'static> {
    let parameters = PkcsOaepParams::new(MechanismType::SHA1, PkcsMgfType::MGF1_SHA1, PkcsOaepSource::empty());
    Mechanism::RsaPkcsOaep(parameters)
}

fn readable() -> [Attribute; 2] {
    [Attribute::Sensitive(false), Attribute::Extractable(true)]
}

fn session_secret(client: &Client, more: &[Attribute]) -> ObjectHandle {
    let template = [&secret(KeyType::GENERIC_SECRET, &VALUE)[..], more].concat();
    client.session.create_object(&template).unwrap()
}

/// The template of a secret that comes out of a wrapping which tells its length.
fn unwrapped() -> Vec<Attribute> {
    [&[Attribute::Class(ObjectClass::SECRET_KEY), Attribute::KeyType(KeyType::GENERIC_SECRET)], &readable()[..]]
        .concat()
}

#[test]
fn a_secret_that_openssl_encrypted_is_unwrapped_by_an_rsa_key_in_the_tpm() {
    let client = Client::new(client::PIN);
    let usage = [Attribute::Decrypt(true), Attribute::Unwrap(true)];
    let (public, private) = client.rsa(2048, &[], &usage);
    let key = client.openssl_key(public).rsa().unwrap();
    for (mechanism, padding) in [(Mechanism::RsaPkcs, Padding::PKCS1), (oaep(), Padding::PKCS1_OAEP)] {
        let mut wrapped = [0; 256];
        key.public_encrypt(&VALUE, &mut wrapped, padding).unwrap();
        let object = client.session.unwrap_key(&mechanism, private, &wrapped, &unwrapped()).unwrap();
        assert_eq!(client.get(object, CKA_VALUE).as_deref(), Ok(&VALUE[..]));
        // "The new key will have the CKA_ALWAYS_SENSITIVE attribute set to CK_FALSE", and so on.
        for flag in [CKA_ALWAYS_SENSITIVE, CKA_NEVER_EXTRACTABLE, CKA_LOCAL] {
            assert!(!client.flag(object, flag), "{flag:#x}");
        }
        let aes =
            [Attribute::Class(ObjectClass::SECRET_KEY), Attribute::KeyType(KeyType::AES), Attribute::Encrypt(true)];
        let object = client.session.unwrap_key(&mechanism, private, &wrapped, &aes).unwrap();
        let expected = openssl::symm::encrypt(Cipher::aes_256_cbc(), &VALUE, Some(&IV), b"data").unwrap();
        assert_eq!(client.encrypt(&Mechanism::AesCbcPad(IV).into(), object, b"data"), Ok(expected));
        wrapped[100] ^= 1;
        let refused = answer(client.session.unwrap_key(&mechanism, private, &wrapped, &unwrapped()));
        assert_eq!(refused, Err(RvError::WrappedKeyInvalid), "{mechanism:?}");
        let refused = answer(client.session.unwrap_key(&mechanism, private, &wrapped[1..], &unwrapped()));
        assert_eq!(refused, Err(RvError::WrappedKeyLenRange), "{mechanism:?}");
    }
}

#[test]
fn a_secret_is_wrapped_for_an_rsa_key_of_openssl() {
    let client = Client::new(client::PIN);
    let key = Rsa::generate(2048).unwrap();
    let template = [
        Attribute::Class(ObjectClass::PUBLIC_KEY),
        Attribute::KeyType(KeyType::RSA),
        Attribute::Modulus(key.n().to_vec()),
        Attribute::PublicExponent(key.e().to_vec()),
        Attribute::Wrap(true),
    ];
    let wrapping = client.session.create_object(&template).unwrap();
    let wrapped_key = session_secret(&client, &[Attribute::Extractable(true)]);
    for (mechanism, padding) in [(Mechanism::RsaPkcs, Padding::PKCS1), (oaep(), Padding::PKCS1_OAEP)] {
        let wrapped = client.session.wrap_key(&mechanism, wrapping, wrapped_key).unwrap();
        let mut clear = vec![0; 256];
        let length = key.private_decrypt(&wrapped, &mut clear, padding).unwrap();
        assert_eq!(clear[..length], VALUE);
    }
}

#[test]
fn aes_wraps_and_unwraps_as_openssl_encrypts() {
    let client = Client::new(client::PIN);
    let usage = [Attribute::Wrap(true), Attribute::Unwrap(true)];
    for token in [true, false] {
        let value = [0x44; 16];
        let wrapping = [&secret(KeyType::AES, &value)[..], &usage, &[Attribute::Token(token)]].concat();
        let wrapping = client.session.create_object(&wrapping).unwrap();
        let wrapped_key = session_secret(&client, &[Attribute::Extractable(true)]);
        let mechanism = Mechanism::AesCbcPad(IV);
        let wrapped = client.session.wrap_key(&mechanism, wrapping, wrapped_key).unwrap();
        let expected = openssl::symm::encrypt(Cipher::aes_128_cbc(), &value, Some(&IV), &VALUE).unwrap();
        assert_eq!(wrapped, expected);
        let back = client.session.unwrap_key(&mechanism, wrapping, &wrapped, &unwrapped()).unwrap();
        assert_eq!(client.get(back, CKA_VALUE).as_deref(), Ok(&VALUE[..]));
    }
}

#[test]
fn a_private_key_is_unwrapped_into_the_tpm() {
    let client = Client::new(client::PIN);
    let value = [0x45; 32];
    let aes = [&secret(KeyType::AES, &value)[..], &[Attribute::Unwrap(true)]].concat();
    let unwrapping = client.session.create_object(&aes).unwrap();
    let curve = openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::X9_62_PRIME256V1).unwrap();
    let ec = PKey::from_ec_key(openssl::ec::EcKey::generate(&curve).unwrap()).unwrap();
    let rsa = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let unwrap = |key_type, clear: &[u8]| {
        let wrapped = openssl::symm::encrypt(Cipher::aes_256_cbc(), &value, Some(&IV), clear).unwrap();
        let class = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::KeyType(key_type), Attribute::Token(true)];
        answer(client.session.unwrap_key(&Mechanism::AesCbcPad(IV), unwrapping, &wrapped, &class))
    };
    for (key, key_type, other, mechanism) in [
        (rsa, KeyType::RSA, KeyType::EC, Mechanism::Sha256RsaPkcs),
        (ec, KeyType::EC, KeyType::RSA, Mechanism::EcdsaSha256),
    ] {
        let clear = key.private_key_to_pkcs8().unwrap();
        let object = unwrap(key_type, &clear).unwrap();
        let signature = client.session.sign(&mechanism, object, b"message").unwrap();
        let signature = if key_type == KeyType::EC { raw::ecdsa_der(&signature) } else { signature };
        let mut verifier = openssl::sign::Verifier::new(openssl::hash::MessageDigest::sha256(), &key).unwrap();
        assert!(verifier.verify_oneshot(&signature, b"message").unwrap(), "{key_type}");
        for untrue in [CKA_LOCAL, CKA_ALWAYS_SENSITIVE, CKA_NEVER_EXTRACTABLE, CKA_EXTRACTABLE] {
            assert_eq!(client.get(object, untrue), Ok(vec![0]), "{key_type} {untrue:#x}");
        }
        assert_eq!(unwrap(other, &clear), Err(RvError::WrappedKeyInvalid), "{key_type}");
        assert_eq!(unwrap(key_type, &clear[..clear.len() - 1]), Err(RvError::WrappedKeyInvalid), "{key_type}");
    }
}

#[test]
fn what_may_not_leave_is_not_wrapped() {
    let client = Client::new(client::PIN);
    let wrapping =
        client.session.create_object(&[&secret(KeyType::AES, &[1; 16])[..], &[Attribute::Wrap(true)]].concat());
    let wrapping = wrapping.unwrap();
    let plain = client.session.create_object(&secret(KeyType::AES, &[2; 16])).unwrap();
    let fixed = session_secret(&client, &[Attribute::Extractable(false)]);
    let free = session_secret(&client, &[Attribute::Extractable(true)]);
    let (_, private) = client.ec(raw::P256, &[]);
    let in_tpm = client.session.generate_key(&Mechanism::AesKeyGen, &[Attribute::ValueLen(16.into())]).unwrap();
    let wrap = |wrapping, key| answer(client.session.wrap_key(&Mechanism::AesCbcPad(IV), wrapping, key));
    for unextractable in [fixed, private, in_tpm] {
        assert_eq!(wrap(wrapping, unextractable), Err(RvError::KeyUnextractable));
    }
    assert_eq!(wrap(plain, free), Err(RvError::KeyFunctionNotPermitted));
    let trusted_only = session_secret(&client, &[Attribute::Extractable(true), Attribute::WrapWithTrusted(true)]);
    assert_eq!(wrap(wrapping, trusted_only), Err(RvError::KeyNotWrappable), "the wrapping key is not trusted");
    assert!(wrap(wrapping, free).is_ok());
}

#[test]
fn a_key_is_unwrapped_straight_into_the_tpm() {
    let client = Client::new(client::PIN);
    let (public, private) = client.rsa(2048, &[], &[Attribute::Decrypt(true), Attribute::Unwrap(true)]);
    let key = client.openssl_key(public).rsa().unwrap();
    let mut wrapped = [0; 256];
    key.public_encrypt(&VALUE, &mut wrapped, Padding::PKCS1_OAEP).unwrap();
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Token(true),
        Attribute::Encrypt(true),
    ];
    let object = client.session.unwrap_key(&oaep(), private, &wrapped, &template).unwrap();
    assert!(client.flag(object, CKA_TOKEN) && client.flag(object, CKA_SENSITIVE));
    assert!(!client.flag(object, CKA_LOCAL) && !client.flag(object, CKA_EXTRACTABLE));
    assert_eq!(client.get(object, CKA_VALUE), Err(RvError::AttributeSensitive));
    let expected = openssl::symm::encrypt(Cipher::aes_256_cbc(), &VALUE, Some(&IV), b"data").unwrap();
    assert_eq!(client.encrypt(&Mechanism::AesCbcPad(IV).into(), object, b"data"), Ok(expected));
    let bus = client.device.tpm_bytes();
    assert!(!client::contains(&bus, &VALUE[..16]), "not even here it is on the bus in the clear");
    for (name, content) in client::stored(&client.device) {
        assert!(!client::contains(&content, &VALUE[..16]), "{name}");
    }
}

#[test]
fn blocks_are_filled_with_zeros_that_the_template_cuts_off() {
    let client = Client::new(client::PIN);
    let value = [0x46; 16];
    let usage = [Attribute::Wrap(true), Attribute::Unwrap(true)];
    let wrapping = client.session.create_object(&[&secret(KeyType::AES, &value)[..], &usage].concat()).unwrap();
    let short = [&secret(KeyType::GENERIC_SECRET, &[9; 20])[..], &readable()].concat();
    let short = client.session.create_object(&short).unwrap();
    for (mechanism, cipher, iv) in [
        (Mechanism::AesEcb, Cipher::aes_128_ecb(), None),
        (Mechanism::AesCbc(IV), Cipher::aes_128_cbc(), Some(&IV[..])),
    ] {
        let wrapped = client.session.wrap_key(&mechanism, wrapping, short).unwrap();
        let padded = [&[9; 20][..], &[0; 12]].concat();
        let mut crypter = openssl::symm::Crypter::new(cipher, openssl::symm::Mode::Encrypt, &value, iv).unwrap();
        crypter.pad(false);
        let mut expected = vec![0; 48];
        let count = crypter.update(&padded, &mut expected).unwrap();
        assert_eq!(wrapped, expected[..count], "{mechanism:?}");
        let unwrap = |length: Option<CK_ULONG>| {
            let length: Vec<Attribute> = length.map(|length| Attribute::ValueLen(length.into())).into_iter().collect();
            let template = [&unwrapped()[..], &length].concat();
            answer(client.session.unwrap_key(&mechanism, wrapping, &wrapped, &template))
        };
        assert_eq!(client.get(unwrap(Some(20)).unwrap(), CKA_VALUE), Ok(vec![9; 20]));
        assert_eq!(unwrap(Some(33)), Err(RvError::WrappedKeyLenRange));
        // "When neither the key type of the unwrapped key nor the unwrapping mechanism unambiguously determine the
        // length."
        assert_eq!(unwrap(None), Err(RvError::TemplateIncomplete), "{mechanism:?}");
    }
}
