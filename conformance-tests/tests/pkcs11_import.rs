//! Keys made outside and brought in by C_CreateObject: usable, marked, and in the clear nowhere.

mod client;
mod raw;

use client::{Answer, CURVES, Client, HASHES, Wanted, answer, contains, secret, stored};
use conformance_tests::Device;
use cryptoki::error::RvError;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, KeyType, ObjectClass, ObjectHandle};
use cryptoki_sys::*;
use openssl::bn::BigNumRef;
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::{Padding, Rsa};
use openssl::sign::Verifier;

const MESSAGE: &[u8] = b"what is signed";

fn rsa_template(key: &Rsa<Private>) -> Vec<Attribute> {
    let bytes = |number: Option<&BigNumRef>| number.unwrap().to_vec();
    vec![
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::KeyType(KeyType::RSA),
        Attribute::Modulus(key.n().to_vec()),
        Attribute::PublicExponent(key.e().to_vec()),
        Attribute::PrivateExponent(key.d().to_vec()),
        Attribute::Prime1(bytes(key.p())),
        Attribute::Prime2(bytes(key.q())),
        Attribute::Exponent1(bytes(key.dmp1())),
        Attribute::Exponent2(bytes(key.dmq1())),
        Attribute::Coefficient(bytes(key.iqmp())),
    ]
}

fn ec_template(curve: &[u8], key: &EcKey<Private>) -> Vec<Attribute> {
    let length = (key.group().degree() as i32 + 7) / 8;
    vec![
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::KeyType(KeyType::EC),
        Attribute::EcParams(curve.to_vec()),
        Attribute::Value(key.private_key().to_vec_padded(length).unwrap()),
    ]
}

fn ec_key(nid: openssl::nid::Nid) -> EcKey<Private> {
    EcKey::generate(&EcGroup::from_curve_name(nid).unwrap()).unwrap()
}

fn create(client: &Client, template: &[Attribute], more: &[Attribute]) -> Answer<ObjectHandle> {
    answer(client.session.create_object(&[template, more].concat()))
}

#[test]
fn an_imported_rsa_key_signs_and_decrypts() {
    let client = Client::new(client::PIN);
    for (bits, token) in [(2048, true), (2048, false), (3072, true)] {
        let key = Rsa::generate(bits).unwrap();
        let usage = [Attribute::Token(token), Attribute::Sign(true), Attribute::Decrypt(true)];
        let object = create(&client, &rsa_template(&key), &usage).unwrap();
        let signature = client.sign(&Mechanism::Sha256RsaPkcs.into(), object, MESSAGE).unwrap();
        let pkey = PKey::from_rsa(key).unwrap();
        let mut verifier = Verifier::new(MessageDigest::sha256(), &pkey).unwrap();
        assert!(verifier.verify_oneshot(&signature, MESSAGE).unwrap(), "{bits} {token}");
        let rsa = pkey.rsa().unwrap();
        let mut encrypted = vec![0; rsa.size() as usize];
        rsa.public_encrypt(b"a secret", &mut encrypted, Padding::PKCS1).unwrap();
        let clear = client.decrypt(&Mechanism::RsaPkcs.into(), object, &encrypted);
        assert_eq!(clear.as_deref(), Ok(&b"a secret"[..]), "{bits} {token}");
        assert_eq!(client.get(object, CKA_PUBLIC_KEY_INFO), Ok(pkey.public_key_to_der().unwrap()));
        assert_eq!(client.get(object, CKA_MODULUS), Ok(rsa.n().to_vec()));
        assert_marked_as_imported(&client, object);
    }
}

#[test]
fn the_same_key_imported_twice_is_two_objects_that_are_used_in_turns() {
    let client = Client::new(client::PIN);
    let (rsa, ec) = (Rsa::generate(2048).unwrap(), ec_key(CURVES[0].1));
    let templates = [(rsa_template(&rsa), Mechanism::Sha256RsaPkcs), (ec_template(CURVES[0].0, &ec), Mechanism::Ecdsa)];
    for (template, mechanism) in templates {
        let objects = [true, false].map(|token| create(&client, &template, &[Attribute::Token(token)]).unwrap());
        let wanted = Wanted::from(mechanism);
        for object in [objects, objects, objects].concat() {
            // Same public area, another authValue.
            assert!(client.sign(&wanted, object, &[3; 32]).is_ok(), "{wanted:?}");
        }
    }
}

#[test]
fn a_sign_only_rsa_key_is_imported_as_one() {
    let client = Client::new(client::PIN);
    let key = Rsa::generate(2048).unwrap();
    let object = create(&client, &rsa_template(&key), &[Attribute::Sign(true), Attribute::Decrypt(false)]).unwrap();
    assert!(client.sign(&Mechanism::Sha256RsaPkcs.into(), object, MESSAGE).is_ok());
    let refused = client.decrypt(&Mechanism::RsaPkcs.into(), object, &[1; 256]);
    assert_eq!(refused, Err(RvError::KeyFunctionNotPermitted));
}

#[test]
fn an_imported_ec_key_signs_and_derives() {
    let client = Client::new(client::PIN);
    for (index, (curve, nid)) in CURVES.into_iter().enumerate() {
        for token in [true, false] {
            let key = ec_key(nid);
            let usage = [Attribute::Token(token), Attribute::Sign(true), Attribute::Derive(true)];
            let object = create(&client, &ec_template(curve, &key), &usage).unwrap();
            let hash = HASHES[2 + index];
            let wanted = Wanted::from(Mechanism::Ecdsa);
            let signature = client.sign(&wanted, object, &hash.of(MESSAGE)).unwrap();
            let (r, s) = signature.split_at(signature.len() / 2);
            let number = |bytes| openssl::bn::BigNum::from_slice(bytes).unwrap();
            let signature = EcdsaSig::from_private_components(number(r), number(s)).unwrap();
            assert!(signature.verify(&hash.of(MESSAGE), &key).unwrap(), "{nid:?} {token}");
            let pkey = PKey::from_ec_key(key).unwrap();
            assert_eq!(client.get(object, CKA_PUBLIC_KEY_INFO), Ok(pkey.public_key_to_der().unwrap()));
            assert_marked_as_imported(&client, object);
        }
    }
}

fn assert_marked_as_imported(client: &Client, object: ObjectHandle) {
    for (kind, expected) in [
        (CKA_LOCAL, false),
        (CKA_ALWAYS_SENSITIVE, false),
        (CKA_NEVER_EXTRACTABLE, false),
        (CKA_SENSITIVE, true),
        (CKA_EXTRACTABLE, false),
    ] {
        assert_eq!(client.flag(object, kind), expected, "{kind:#x}");
    }
    assert_eq!(client.get(object, CKA_KEY_GEN_MECHANISM), Ok(raw::number(CK_UNAVAILABLE_INFORMATION)));
    for kind in [CKA_PRIVATE_EXPONENT, CKA_PRIME_1, CKA_COEFFICIENT, CKA_VALUE] {
        let refused = client.get(object, kind).unwrap_err();
        assert!(matches!(refused, RvError::AttributeSensitive | RvError::AttributeTypeInvalid), "{kind:#x}");
    }
}

#[test]
fn an_imported_secret_of_the_token_is_in_the_tpm_and_one_of_the_session_in_memory() {
    let client = Client::new(client::PIN);
    for (kind, value) in [(KeyType::AES, vec![0x51; 32]), (KeyType::GENERIC_SECRET, vec![0x52; 40])] {
        let stored = create(&client, &secret(kind, &value), &[Attribute::Token(true)]).unwrap();
        for (flag, expected) in [
            (CKA_LOCAL, false),
            (CKA_ALWAYS_SENSITIVE, false),
            (CKA_NEVER_EXTRACTABLE, false),
            (CKA_SENSITIVE, true),
            (CKA_EXTRACTABLE, false),
        ] {
            assert_eq!(client.flag(stored, flag), expected, "{flag:#x}");
        }
        assert_eq!(client.get(stored, CKA_VALUE), Err(RvError::AttributeSensitive));
        assert_eq!(client.get(stored, CKA_VALUE_LEN), Ok(raw::number(value.len() as CK_ULONG)));
        for (sensitive, extractable) in [(false, true), (true, true), (false, false), (true, false)] {
            let access = [Attribute::Sensitive(sensitive), Attribute::Extractable(extractable)];
            let kept = create(&client, &secret(kind, &value), &access).unwrap();
            let read = client.get(kept, CKA_VALUE);
            if !sensitive && extractable {
                assert_eq!(read.as_ref(), Ok(&value));
            } else {
                assert_eq!(read, Err(RvError::AttributeSensitive));
            }
            assert!(!client.flag(kept, CKA_LOCAL) && !client.flag(kept, CKA_ALWAYS_SENSITIVE));
            assert!(!client.flag(kept, CKA_NEVER_EXTRACTABLE));
            assert_eq!(client.get(kept, CKA_VALUE_LEN), Ok(raw::number(value.len() as CK_ULONG)));
        }
    }
}

#[test]
fn no_clear_key_is_in_the_store_or_on_the_bus() {
    let client = Client::new(client::PIN);
    let rsa = Rsa::generate(2048).unwrap();
    let ec = ec_key(openssl::nid::Nid::X9_62_PRIME256V1);
    let mut secrets = vec![
        ("an AES key", [0x9a, 0x1b, 0xf3, 0x44, 0x07, 0xd6, 0x88, 0x23].repeat(4)),
        ("a secret", [0x3d, 0xee, 0x71, 0x90, 0xab, 0x5c, 0x0f, 0xc2].repeat(5)),
        ("a scalar", ec.private_key().to_vec_padded(32).unwrap()),
    ];
    for (name, number) in [("d", Some(rsa.d())), ("p", rsa.p()), ("q", rsa.q()), ("1/q", rsa.iqmp())] {
        secrets.push((name, number.unwrap().to_vec()));
    }
    for (name, number) in [("d mod p", rsa.dmp1()), ("d mod q", rsa.dmq1())] {
        secrets.push((name, number.unwrap().to_vec()));
    }
    for token in [true, false] {
        let keep = [Attribute::Token(token)];
        create(&client, &rsa_template(&rsa), &[&keep[..], &[Attribute::Decrypt(true)]].concat()).unwrap();
        create(&client, &ec_template(CURVES[0].0, &ec), &keep).unwrap();
        create(&client, &secret(KeyType::AES, &secrets[0].1), &keep).unwrap();
        create(&client, &secret(KeyType::GENERIC_SECRET, &secrets[1].1), &keep).unwrap();
    }
    for object in client.session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]).unwrap() {
        let rsa = client.get(object, CKA_KEY_TYPE) == Ok(raw::number(CKK_RSA));
        let mechanism = if rsa { Mechanism::Sha256RsaPkcs } else { Mechanism::EcdsaSha256 };
        client.sign(&mechanism.into(), object, MESSAGE).unwrap();
    }
    let (bus, store) = (client.device.tpm_bytes(), in_every_form(&client.device));
    for (name, secret) in secrets {
        // Half of it would be too much already.
        let half = &secret[..secret.len() / 2];
        assert!(!contains(&bus, half), "{name} was on the bus");
        for (file, content) in &store {
            assert!(!contains(content, half), "{name} is in {file}");
        }
    }
}

#[test]
fn an_import_that_contradicts_itself_is_refused_by_its_reason() {
    let client = Client::new(client::PIN);
    let (key, other) = (Rsa::generate(2048).unwrap(), Rsa::generate(2048).unwrap());
    let template = rsa_template(&key);
    let without = |kind: &str| -> Vec<Attribute> {
        let named = |attribute: &Attribute| format!("{attribute:?}").split('(').next() == Some(kind);
        template.iter().filter(|attribute| !named(attribute)).cloned().collect()
    };
    let refused = |template: &[Attribute], more: &[Attribute]| create(&client, template, more).unwrap_err();
    assert_eq!(refused(&without("KeyType"), &[]), RvError::TemplateIncomplete);
    assert_eq!(refused(&without("Modulus"), &[]), RvError::TemplateIncomplete);
    let without_secret = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::KeyType(KeyType::RSA)];
    let without_secret = [&without_secret[..], &[Attribute::Modulus(key.n().to_vec())]].concat();
    assert_eq!(refused(&without_secret, &[]), RvError::TemplateIncomplete);
    for (kind, wrong) in [
        ("Prime1", Attribute::Prime1(other.p().unwrap().to_vec())),
        ("Modulus", Attribute::Modulus(other.n().to_vec())),
        ("PublicExponent", Attribute::PublicExponent(vec![3])),
    ] {
        let refused = refused(&without(kind), &[wrong]);
        assert!(matches!(refused, RvError::AttributeValueInvalid | RvError::TemplateInconsistent), "{kind}: {refused}");
    }
    let info = PKey::from_rsa(other).unwrap().public_key_to_der().unwrap();
    let refused_info = refused(&template, &[Attribute::PublicKeyInfo(info)]);
    assert_eq!(refused_info, RvError::AttributeValueInvalid, "\"If there is a mismatch\"");
    assert_eq!(refused(&template, &[Attribute::Local(true)]), RvError::AttributeReadOnly);
    assert_eq!(refused(&template, &[Attribute::AlwaysSensitive(true)]), RvError::AttributeReadOnly);
    assert_eq!(refused(&template, &[Attribute::EcParams(vec![5, 0])]), RvError::TemplateInconsistent);
    assert_eq!(refused(&template, &[Attribute::Sensitive(false)]), RvError::TemplateInconsistent);
    assert_eq!(refused(&template, &[Attribute::Extractable(true)]), RvError::TemplateInconsistent);
    let exponents = |n: &[u8], d: &[u8]| {
        let class = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::KeyType(KeyType::RSA)];
        let numbers = [Attribute::Modulus(n.to_vec()), Attribute::PublicExponent(vec![1, 0, 1])];
        [&class[..], &numbers, &[Attribute::PrivateExponent(d.to_vec())]].concat()
    };
    let n = key.n().to_vec();
    for (n, d) in [(&[][..], &[0][..]), (&[0], &[1]), (&[5], &[0]), (&n, &[0]), (&n, &n), (&[0; 256], &[1])] {
        assert_eq!(refused(&exponents(n, d), &[]), RvError::AttributeValueInvalid, "{n:?} {d:?}");
    }
    let small = Rsa::generate(1024).unwrap();
    assert!(create(&client, &rsa_template(&small), &[]).is_err());
    let ec = ec_key(CURVES[0].1);
    let other_curve = ec_template(CURVES[1].0, &ec);
    let zero = [&ec_template(CURVES[0].0, &ec)[..3], &[Attribute::Value(vec![0; 32])]].concat();
    let too_large = [&ec_template(CURVES[0].0, &ec)[..3], &[Attribute::Value(vec![0xff; 32])]].concat();
    for wrong in [zero, too_large] {
        assert_eq!(refused(&wrong, &[]), RvError::AttributeValueInvalid);
    }
    // A short scalar is one with zeros before it, on any curve.
    assert!(create(&client, &other_curve, &[]).is_ok());
    for length in [0, 15, 17, 33] {
        let refused = refused(&secret(KeyType::AES, &vec![1; length]), &[]);
        assert!(matches!(refused, RvError::AttributeValueInvalid | RvError::KeySizeRange), "{length}");
    }
    let read_only = client.module.open_ro_session(client.slot()).unwrap();
    let refused = read_only.create_object(&[&template[..], &[Attribute::Token(true)]].concat());
    assert_eq!(answer(refused), Err(RvError::SessionReadOnly));
    assert_eq!(client.session.find_objects(&[]).unwrap().len(), 1, "nothing else was made");
    let verifying = |modulus: &[u8], exponent: &[u8]| {
        let class = [Attribute::Class(ObjectClass::PUBLIC_KEY), Attribute::KeyType(KeyType::RSA)];
        [&class[..], &[Attribute::Modulus(modulus.to_vec()), Attribute::PublicExponent(exponent.to_vec())]].concat()
    };
    let even = [&n[..n.len() - 1], &[n[n.len() - 1] & 0xfe]].concat();
    for (modulus, exponent) in [(&even[..], &[1, 0, 1][..]), (&n, &[1]), (&n, &[2]), (&n, &[0xff; 8])] {
        let refused = create(&client, &verifying(modulus, exponent), &[]).unwrap_err();
        assert_eq!(refused, RvError::AttributeValueInvalid, "{exponent:?}");
    }
    let long =
        [&ec_template(CURVES[0].0, &ec)[..3], &[Attribute::Value([&[0], &ec.private_key().to_vec()[..]].concat())]];
    assert!(create(&client, &long.concat(), &[]).is_ok(), "zeros before a scalar do not count");
}

#[test]
fn an_imported_key_of_the_token_works_in_other_processes() {
    let device = Device::new();
    let token = conformance_tests::Token::new(&device, "dev", client::PIN);
    let _ = device.run(&["openssl", "genrsa", "-traditional", "-out", "rsa.pem", "2048"]).ok();
    let _ =
        device.run(&["openssl", "rsa", "-in", "rsa.pem", "-traditional", "-outform", "DER", "-out", "rsa.der"]).ok();
    let _ = device.run(&["openssl", "rsa", "-in", "rsa.pem", "-pubout", "-out", "rsa.pub"]).ok();
    let _ = device.run(&["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", "ec.pem"]).ok();
    let _ = device.run(&["openssl", "ec", "-in", "ec.pem", "-outform", "DER", "-out", "ec.der"]).ok();
    let _ = device.run(&["openssl", "ec", "-in", "ec.pem", "-pubout", "-out", "ec.pub"]).ok();
    device.write("data", MESSAGE);
    for (name, id, mechanism) in [("rsa", "01", "SHA256-RSA-PKCS"), ("ec", "02", "ECDSA-SHA256")] {
        let file = format!("{name}.der");
        let import = ["--write-object", &file, "--type", "privkey", "--id", id, "--label", name];
        let _ = token.tool(&[&import[..], &["--usage-sign"]].concat()).ok();
        let sign = ["--sign", "--id", id, "--mechanism", mechanism, "--input-file", "data"];
        let output = ["--output-file", "signature", "--signature-format", "openssl"];
        let _ = token.tool(&[&sign[..], &output].concat()).ok();
        let key = format!("{name}.pub");
        let verify = ["openssl", "dgst", "-sha256", "-verify", &key, "-signature", "signature", "data"];
        let _ = device.run(&verify).ok().says("Verified OK");
    }
    let listed = token.tool(&["--list-objects", "--type", "privkey"]).ok();
    let _ = listed.says("Access:     sensitive").says_nothing_of("local").says_nothing_of("always sensitive");
}

/// The store's files as they are, as what they say in hexadecimal, and as what their PEM blocks hold.
fn in_every_form(device: &Device) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for (name, content) in stored(device) {
        let text = String::from_utf8_lossy(&content).into_owned();
        let lines = text.lines().filter(|line| !line.starts_with("-----") && !line.contains(" = "));
        let base64: String = lines.collect();
        found.push((format!("{name} (PEM)"), openssl::base64::decode_block(&base64).unwrap_or_default()));
        found.push((format!("{name} (hexadecimal)"), from_hex(&text)));
        found.push((name, content));
    }
    found
}

/// Every run of hexadecimal digits, as bytes.
fn from_hex(text: &str) -> Vec<u8> {
    let runs = text.split(|c: char| !c.is_ascii_hexdigit());
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    runs.flat_map(|run| run.as_bytes().chunks_exact(2).filter_map(pair).collect::<Vec<_>>()).collect()
}
