//! Elliptic curves: every signature and every derivation, against OpenSSL.

mod client;
mod raw;

use client::{CURVES, Client, HASHES, Wanted, answer, stored};
use cryptoki::error::RvError;
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::elliptic_curve::{EcKdf, Ecdh1DeriveParams};
use cryptoki::object::{Attribute, KeyType, ObjectClass, ObjectHandle};
use cryptoki_sys::*;
use openssl::bn::{BigNum, BigNumContext};
use openssl::derive::Deriver;
use openssl::ec::{EcGroup, EcKey, PointConversionForm};
use openssl::ecdsa::EcdsaSig;
use openssl::hash::{MessageDigest, hash};
use openssl::pkey::{PKey, Private, Public};

const MESSAGE: &[u8] = b"what is signed, in more than one part";
const PARTS: [&[u8]; 3] = [b"what is signed, ", b"", b"in more than one part"];
const OTHER_INFO: &[u8] = b"shared by both";

/// The mechanisms that hash, and what they hash with.
fn hashing() -> [(Wanted<'static>, MessageDigest); 9] {
    [
        (Mechanism::EcdsaSha1.into(), MessageDigest::sha1()),
        (Mechanism::EcdsaSha224.into(), MessageDigest::sha224()),
        (Mechanism::EcdsaSha256.into(), MessageDigest::sha256()),
        (Mechanism::EcdsaSha384.into(), MessageDigest::sha384()),
        (Mechanism::EcdsaSha512.into(), MessageDigest::sha512()),
        (Wanted::plain(CKM_ECDSA_SHA3_224), MessageDigest::sha3_224()),
        (Wanted::plain(CKM_ECDSA_SHA3_256), MessageDigest::sha3_256()),
        (Wanted::plain(CKM_ECDSA_SHA3_384), MessageDigest::sha3_384()),
        (Wanted::plain(CKM_ECDSA_SHA3_512), MessageDigest::sha3_512()),
    ]
}

/// `r || s` as OpenSSL's structure.
fn read(signature: &[u8]) -> EcdsaSig {
    let (r, s) = signature.split_at(signature.len() / 2);
    let number = |bytes| BigNum::from_slice(bytes).unwrap();
    EcdsaSig::from_private_components(number(r), number(s)).unwrap()
}

/// OpenSSL's signature as `r || s`.
fn write(signature: &EcdsaSig, length: i32) -> Vec<u8> {
    [signature.r().to_vec_padded(length).unwrap(), signature.s().to_vec_padded(length).unwrap()].concat()
}

fn verifies(key: &PKey<Public>, digest: &[u8], signature: &[u8]) -> bool {
    read(signature).verify(digest, &key.ec_key().unwrap()).unwrap()
}

/// A key of OpenSSL's, and its point as a raw octet string.
fn foreign(curve: openssl::nid::Nid) -> (PKey<Private>, Vec<u8>) {
    let group = EcGroup::from_curve_name(curve).unwrap();
    let key = EcKey::generate(&group).unwrap();
    let mut context = BigNumContext::new().unwrap();
    let point = key.public_key().to_bytes(&group, PointConversionForm::UNCOMPRESSED, &mut context).unwrap();
    (PKey::from_ec_key(key).unwrap(), point)
}

/// A key of the token's that derives, a foreign key's point, and what OpenSSL says that they agree on.
fn agreement(client: &Client, curve: &[u8], nid: openssl::nid::Nid) -> (ObjectHandle, Vec<u8>, Vec<u8>) {
    let (public, private) = client.ec(curve, &[Attribute::Sign(false), Attribute::Derive(true)]);
    let (peer, point) = foreign(nid);
    let key = client.openssl_key(public);
    let mut deriver = Deriver::new(&peer).unwrap();
    deriver.set_peer(&key).unwrap();
    (private, point, deriver.derive_to_vec().unwrap())
}

fn octet_string(bytes: &[u8]) -> Vec<u8> {
    let length = bytes.len() as u8;
    let head = if length < 128 { vec![4, length] } else { vec![4, 0x81, length] };
    [head, bytes.to_vec()].concat()
}

#[test]
fn every_signature_verifies_with_openssl() {
    let client = Client::configured(client::PIN, "sha1_signatures = true\n");
    for (curve, _) in CURVES {
        let (public, private) = client.ec(curve, &[]);
        let key = client.openssl_key(public);
        for (wanted, digest) in hashing() {
            let at_once = client.sign(&wanted, private, MESSAGE).unwrap();
            let in_parts = client.sign_in_parts(&wanted, private, &PARTS).unwrap();
            for signature in [at_once, in_parts] {
                assert_eq!(signature.len(), (key.bits() as usize).div_ceil(8) * 2);
                assert!(verifies(&key, &hash(digest, MESSAGE).unwrap(), &signature), "{wanted:?} {}", key.bits());
                assert_eq!(client.verify(&wanted, public, MESSAGE, &signature), Ok(()), "{wanted:?}");
                assert_eq!(client.verify_in_parts(&wanted, public, &PARTS, &signature), Ok(()), "{wanted:?}");
                let forged = client.verify(&wanted, public, b"another", &signature);
                assert_eq!(forged, Err(RvError::SignatureInvalid), "{wanted:?}");
            }
        }
        for length in [1, 20, 28, 32, 48, 64, 65, 66, 100] {
            let digest: Vec<u8> = (0..length).map(|byte| byte as u8 ^ 0xa5).collect();
            if key.bits() == 521 && length > 64 {
                // No hash of a TPM is as long as the number that it would have to sign.
                let refused = client.sign(&Mechanism::Ecdsa.into(), private, &digest);
                assert_eq!(refused, Err(RvError::DataLenRange), "{length}");
                continue;
            }
            let signature = client.sign(&Mechanism::Ecdsa.into(), private, &digest).unwrap();
            assert!(verifies(&key, &digest, &signature), "{length} {}", key.bits());
            assert_eq!(client.verify(&Mechanism::Ecdsa.into(), public, &digest, &signature), Ok(()));
        }
    }
}

#[test]
fn sha1_is_signed_only_where_the_configuration_says_so() {
    let client = Client::new(client::PIN);
    let (_, private) = client.ec(raw::P256, &[]);
    let refused = client.sign(&Mechanism::EcdsaSha1.into(), private, MESSAGE);
    assert_eq!(refused, Err(RvError::MechanismInvalid));
    assert_eq!(client.mechanism_info(CKM_ECDSA_SHA1).unwrap().flags & (CKF_SIGN | CKF_VERIFY), CKF_VERIFY);
}

#[test]
fn signatures_of_openssl_verify_and_forged_ones_do_not() {
    let client = Client::new(client::PIN);
    for (curve, nid) in CURVES {
        let (key, point) = foreign(nid);
        let object = public_object(&client, curve, &octet_string(&point));
        let length = (key.bits() as i32 + 7) / 8;
        for (wanted, digest) in hashing() {
            let signature = EcdsaSig::sign(&hash(digest, MESSAGE).unwrap(), &key.ec_key().unwrap()).unwrap();
            let mut signature = write(&signature, length);
            assert_eq!(client.verify(&wanted, object, MESSAGE, &signature), Ok(()), "{wanted:?}");
            signature[10] ^= 1;
            let forged = client.verify(&wanted, object, MESSAGE, &signature);
            assert_eq!(forged, Err(RvError::SignatureInvalid), "{wanted:?}");
            let short = client.verify(&wanted, object, MESSAGE, &signature[2..]);
            assert_eq!(short, Err(RvError::SignatureLenRange), "{wanted:?}");
        }
    }
}

#[test]
fn every_derivation_is_that_of_openssl() {
    let client = Client::new(client::PIN);
    for (curve, nid) in CURVES {
        let (private, point, z) = agreement(&client, curve, nid);
        for cofactor in [false, true] {
            for point in [point.clone(), octet_string(&point)] {
                let derive = |kdf, length| {
                    let wanted = ecdh(cofactor, Ecdh1DeriveParams::new(kdf, &point));
                    let key = client.derive(&wanted, private, &generic(length)).unwrap();
                    client.get(key, CKA_VALUE).unwrap()
                };
                // "The truncation removes bytes from the leading end of the secret value."
                for length in [1, 16, 32] {
                    assert_eq!(derive(EcKdf::null(), length), z[z.len() - length..]);
                }
                let whole = client.derive(
                    &ecdh(cofactor, Ecdh1DeriveParams::new(EcKdf::null(), &point)),
                    private,
                    &generic_whole(),
                );
                assert_eq!(client.get(whole.unwrap(), CKA_VALUE), Ok(z.clone()));
                for (kdf, name, digest) in kdfs() {
                    for length in [16, 32, 100] {
                        let expected = openssl_kdf(&client, name, digest, &z, length);
                        assert_eq!(derive(kdf, length), expected, "{name} {digest} {length}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_derived_aes_key_encrypts_as_the_peers_does() {
    let client = Client::new(client::PIN);
    let (curve, nid) = CURVES[0];
    let (private, point, z) = agreement(&client, curve, nid);
    for length in [16, 24, 32] {
        let template = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::ValueLen((length as CK_ULONG).into()),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
        ];
        let parameters = Ecdh1DeriveParams::new(EcKdf::sha256(OTHER_INFO), &point);
        let derived =
            answer(client.session.derive_key(&Mechanism::Ecdh1Derive(parameters), private, &template)).unwrap();
        let value = openssl_kdf(&client, "X963KDF", "SHA256", &z, length);
        let cipher = match length {
            16 => openssl::symm::Cipher::aes_128_cbc(),
            24 => openssl::symm::Cipher::aes_192_cbc(),
            _ => openssl::symm::Cipher::aes_256_cbc(),
        };
        let expected = openssl::symm::encrypt(cipher, &value, Some(&[7; 16]), MESSAGE).unwrap();
        let wanted = Wanted::from(Mechanism::AesCbcPad([7; 16]));
        assert_eq!(client.encrypt(&wanted, derived, MESSAGE), Ok(expected.clone()));
        assert_eq!(client.decrypt(&wanted, derived, &expected).as_deref(), Ok(MESSAGE));
    }
}

#[test]
fn a_derived_secret_is_as_secret_as_its_template_says_and_lives_in_memory_only() {
    let client = Client::new(client::PIN);
    let (curve, nid) = CURVES[0];
    let (_, private) = client.ec(curve, &[Attribute::Sign(false), Attribute::Derive(true)]);
    let (_, point) = foreign(nid);
    let parameters = Ecdh1DeriveParams::new(EcKdf::null(), &point);
    let derive = |more: &[Attribute]| {
        let template = [&generic(32)[..], more].concat();
        client.derive(&Mechanism::Ecdh1Derive(parameters).into(), private, &template)
    };
    for (sensitive, extractable) in [(false, true), (true, true), (true, false), (false, false)] {
        let more = [Attribute::Sensitive(sensitive), Attribute::Extractable(extractable)];
        let key = client.derive(
            &Mechanism::Ecdh1Derive(parameters).into(),
            private,
            &[&generic_without_access(32)[..], &more].concat(),
        );
        let key = key.unwrap();
        let readable = !sensitive && extractable;
        assert_eq!(client.get(key, CKA_VALUE).is_ok(), readable, "{sensitive} {extractable}");
        // The base key has always been sensitive and never extractable.
        assert_eq!(client.flag(key, CKA_ALWAYS_SENSITIVE), sensitive);
        assert_eq!(client.flag(key, CKA_NEVER_EXTRACTABLE), !extractable);
        assert!(!client.flag(key, CKA_LOCAL));
        assert_eq!(client.get(key, CKA_KEY_GEN_MECHANISM), Ok(raw::number(CK_UNAVAILABLE_INFORMATION)));
    }
    let before = stored(&client.device);
    derive(&[]).unwrap();
    assert!(stored(&client.device) == before, "no file was written");
    assert!(derive(&[Attribute::Token(true)]).is_err(), "derived secrets live in memory only");
}

/// The JDK's KeyAgreement gives its template these two and reads the value (P11ECDHKeyAgreement.engineGenerateSecret).
#[test]
fn the_value_of_a_derived_secret_is_read_unless_its_template_forbids_that() {
    let client = Client::new(client::PIN);
    let (curve, nid) = CURVES[0];
    let (private, point, z) = agreement(&client, curve, nid);
    let template = [Attribute::Class(ObjectClass::SECRET_KEY), Attribute::KeyType(KeyType::GENERIC_SECRET)];
    let derive = |more: &[Attribute]| {
        let wanted = ecdh(false, Ecdh1DeriveParams::new(EcKdf::null(), &point));
        client.derive(&wanted, private, &[&template[..], more].concat())
    };
    let secret = derive(&[]).unwrap();
    assert_eq!(client.get(secret, CKA_VALUE), Ok(z));
    assert!(client.flag(secret, CKA_EXTRACTABLE) && !client.flag(secret, CKA_NEVER_EXTRACTABLE));
    for forbidden in [Attribute::Sensitive(true), Attribute::Extractable(false)] {
        let secret = derive(&[forbidden]).unwrap();
        assert_eq!(client.get(secret, CKA_VALUE), Err(RvError::AttributeSensitive));
    }
    let stored = derive(&[Attribute::Token(true)]).unwrap();
    assert!(!client.flag(stored, CKA_EXTRACTABLE), "it is in the TPM");
}

#[test]
fn what_cannot_be_derived_is_refused_by_its_reason() {
    let client = Client::new(client::PIN);
    let (curve, nid) = CURVES[0];
    let (public, private) = client.ec(curve, &[Attribute::Sign(false), Attribute::Derive(true)]);
    let (_, signs) = client.ec(curve, &[]);
    let (_, point) = foreign(nid);
    let (_, of_other_curve) = foreign(CURVES[1].1);
    let mut off_curve = point.clone();
    off_curve[40] ^= 1;
    let derive = |key: ObjectHandle, kdf, point: &[u8], template: &[Attribute]| {
        client.derive(&Mechanism::Ecdh1Derive(Ecdh1DeriveParams::new(kdf, point)).into(), key, template).map(drop)
    };
    let null = EcKdf::null;
    assert_eq!(derive(signs, null(), &point, &generic(32)), Err(RvError::KeyFunctionNotPermitted));
    assert_eq!(derive(public, null(), &point, &generic(32)), Err(RvError::KeyFunctionNotPermitted));
    for wrong in [&off_curve[..], &of_other_curve, &point[1..], b"", &[0]] {
        assert_eq!(derive(private, null(), wrong, &generic(32)), Err(RvError::MechanismParamInvalid), "{wrong:02x?}");
    }
    assert_eq!(
        derive(private, null(), &point, &generic(33)),
        Err(RvError::AttributeValueInvalid),
        "there are 32 bytes"
    );
    let odd_aes =
        [Attribute::Class(ObjectClass::SECRET_KEY), Attribute::KeyType(KeyType::AES), Attribute::ValueLen(17.into())];
    assert!(derive(private, null(), &point, &odd_aes).is_err());
    let of_others = [&generic(32)[..], &[Attribute::Modulus(vec![1])]].concat();
    assert_eq!(derive(private, null(), &point, &of_others), Err(RvError::TemplateInconsistent));
    let length = [Attribute::KeyType(KeyType::GENERIC_SECRET)];
    assert_eq!(derive(private, EcKdf::sha256(b""), &point, &length), Err(RvError::TemplateIncomplete));
    assert_eq!(
        client.derive(&Wanted::plain(CKM_ECDH1_DERIVE), private, &generic(32)),
        Err(RvError::MechanismParamInvalid)
    );
}

#[test]
fn a_key_may_sign_and_derive() {
    let client = Client::new(client::PIN);
    let (curve, nid) = CURVES[1];
    let (public, private) = client.ec(curve, &[Attribute::Sign(true), Attribute::Derive(true)]);
    let (peer, point) = foreign(nid);
    let key = client.openssl_key(public);
    let mut deriver = Deriver::new(&peer).unwrap();
    deriver.set_peer(&key).unwrap();
    let wanted = ecdh(false, Ecdh1DeriveParams::new(EcKdf::null(), &point));
    let derived = client.derive(&wanted, private, &generic(48)).unwrap();
    assert_eq!(client.get(derived, CKA_VALUE), Ok(deriver.derive_to_vec().unwrap()));
    let signature = client.sign(&Mechanism::EcdsaSha384.into(), private, MESSAGE).unwrap();
    assert!(verifies(&key, &HASHES[3].of(MESSAGE), &signature));
}

fn ecdh(cofactor: bool, parameters: Ecdh1DeriveParams<'_>) -> Wanted<'_> {
    let known = Mechanism::Ecdh1Derive(parameters);
    if cofactor { Wanted::number(CKM_ECDH1_COFACTOR_DERIVE, known) } else { known.into() }
}

fn generic_without_access(length: usize) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::ValueLen((length as CK_ULONG).into()),
    ]
}

fn generic(length: usize) -> Vec<Attribute> {
    let readable = vec![Attribute::Sensitive(false), Attribute::Extractable(true)];
    [generic_without_access(length), readable].concat()
}

/// Without a length the whole secret is the key.
fn generic_whole() -> Vec<Attribute> {
    generic(0).into_iter().filter(|attribute| !matches!(attribute, Attribute::ValueLen(_))).collect()
}

fn public_object(client: &Client, curve: &[u8], point: &[u8]) -> ObjectHandle {
    let template = [
        Attribute::Class(ObjectClass::PUBLIC_KEY),
        Attribute::KeyType(KeyType::EC),
        Attribute::EcParams(curve.to_vec()),
        Attribute::EcPoint(point.to_vec()),
    ];
    client.session.create_object(&template).unwrap()
}

fn kdfs() -> [(EcKdf<'static>, &'static str, &'static str); 10] {
    [
        (EcKdf::sha1(OTHER_INFO), "X963KDF", "SHA1"),
        (EcKdf::sha224(OTHER_INFO), "X963KDF", "SHA224"),
        (EcKdf::sha256(OTHER_INFO), "X963KDF", "SHA256"),
        (EcKdf::sha384(OTHER_INFO), "X963KDF", "SHA384"),
        (EcKdf::sha512(OTHER_INFO), "X963KDF", "SHA512"),
        (EcKdf::sha1_sp800(OTHER_INFO), "SSKDF", "SHA1"),
        (EcKdf::sha224_sp800(OTHER_INFO), "SSKDF", "SHA224"),
        (EcKdf::sha256_sp800(OTHER_INFO), "SSKDF", "SHA256"),
        (EcKdf::sha384_sp800(OTHER_INFO), "SSKDF", "SHA384"),
        (EcKdf::sha512_sp800(OTHER_INFO), "SSKDF", "SHA512"),
    ]
}

/// What OpenSSL's own command derives.
fn openssl_kdf(client: &Client, name: &str, digest: &str, z: &[u8], length: usize) -> Vec<u8> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (length, digest) = (length.to_string(), format!("digest:{digest}"));
    let (z, info) = (format!("hexsecret:{}", hex(z)), format!("hexinfo:{}", hex(OTHER_INFO)));
    let words = ["openssl", "kdf", "-binary", "-keylen", &length, "-kdfopt", &digest, "-kdfopt", &z, "-kdfopt", &info];
    client.device.run(&[&words[..], &[name]].concat()).ok().bytes().to_vec()
}

#[test]
fn a_bare_point_is_understood_whatever_its_x_begins_with() {
    let client = Client::new("");
    let group = EcGroup::from_curve_name(openssl::nid::Nid::X9_62_PRIME256V1).unwrap();
    // 04 3f: the beginning of an OCTET STRING as long as the rest of it.
    let point = loop {
        let key = EcKey::generate(&group).unwrap();
        let mut context = BigNumContext::new().unwrap();
        let point = key.public_key().to_bytes(&group, PointConversionForm::UNCOMPRESSED, &mut context).unwrap();
        if point[1] == 0x3f {
            break point;
        }
    };
    let object = public_object(&client, raw::P256, &point);
    assert_eq!(client.get(object, CKA_EC_POINT).unwrap(), [&[4, 65][..], &point].concat());
}
