//! Keys bound to PCRs through PKCS#11: what has been booted decides whether they work.

mod client;
mod raw;

use client::{Answer, Client, Wanted, answer};
use conformance_tests::{Device, Token};
use cryptoki::error::RvError;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki_sys::*;

/// What a PCR is extended with.
const DIGEST: [u8; 32] = [0xd1; 32];

// As keyrivet(7) has them.
const CKA_KEYRIVET_PCRS: CK_ATTRIBUTE_TYPE = CKA_VENDOR_DEFINED | 0x4b52_0001;
const CKA_KEYRIVET_POLICY: CK_ATTRIBUTE_TYPE = CKA_VENDOR_DEFINED | 0x4b52_0002;

fn extend(device: &Device) {
    let digest = format!("16:sha256={}", "d1".repeat(32));
    let _ = device.run(&["tpm2_pcrextend", &digest]).ok();
}

fn reset(device: &Device) {
    let _ = device.run(&["tpm2_pcrreset", "16"]).ok();
}

fn vendor(kind: CK_ATTRIBUTE_TYPE, value: &[u8]) -> Attribute {
    Attribute::VendorDefined((AttributeType::VendorDefined(kind), value.to_vec()))
}

/// What a key does.
type Run = Box<dyn Fn(&Client) -> Answer<Vec<u8>>>;

fn signing(wanted: fn() -> Wanted<'static>, key: ObjectHandle) -> Run {
    Box::new(move |client| client.sign(&wanted(), key, b"message"))
}

/// A key of each kind, and what it does.
fn uses(client: &Client, bound: &[Attribute]) -> Vec<(&'static str, Run)> {
    let (_, ec) = client.ec(raw::P256, bound);
    let (_, rsa) = client.rsa(2048, &[], &[bound, &[Attribute::Sign(true), Attribute::Decrypt(true)]].concat());
    let aes = [bound, &[Attribute::ValueLen(32.into()), Attribute::Encrypt(true)]].concat();
    let aes = client.session.generate_key(&Mechanism::AesKeyGen, &aes).unwrap();
    let hmac = [bound, &[Attribute::ValueLen(32.into()), Attribute::Sign(true)]].concat();
    let hmac = client.session.generate_key(&Mechanism::GenericSecretKeyGen, &hmac).unwrap();
    vec![
        ("EC signature", signing(|| Mechanism::EcdsaSha256.into(), ec)),
        ("RSA signature", signing(|| Mechanism::Sha256RsaPkcs.into(), rsa)),
        ("RSA operation", Box::new(move |client| client.decrypt(&Mechanism::RsaX509.into(), rsa, &[1; 256]))),
        ("AES", Box::new(move |client| client.encrypt(&Mechanism::AesEcb.into(), aes, &[1; 16]))),
        ("HMAC", signing(|| Mechanism::Sha256Hmac.into(), hmac)),
    ]
}

fn assert_bound(client: &Client, uses: &[(&'static str, Run)]) {
    for _ in 0..2 {
        for (name, run) in uses {
            assert_eq!(run(client).map(drop), Ok(()), "{name}");
        }
        extend(&client.device);
        for (name, run) in uses {
            assert_eq!(run(client), Err(RvError::ActionProhibited), "{name}");
        }
        reset(&client.device);
    }
}

#[test]
fn keys_bound_by_configuration_work_while_the_pcrs_have_their_values() {
    let client = Client::configured(client::PIN, "pcrs = 'sha256:16'\n");
    assert_bound(&client, &uses(&client, &[Attribute::Token(true)]));
    assert_bound(&client, &uses(&client, &[]));
}

#[test]
fn imported_keys_are_bound_by_configuration_too() {
    import_bound(client::PIN);
}

#[test]
fn imported_keys_without_pin_are_bound_by_configuration_too() {
    import_bound("");
}

fn import_bound(pin: &str) {
    let client = Client::configured(pin, "pcrs = 'sha256:16'\n");
    let generated = openssl::ec::EcKey::generate(
        &openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::X9_62_PRIME256V1).unwrap(),
    );
    let scalar = generated.unwrap().private_key().to_vec_padded(32).unwrap();
    let private = [
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::KeyType(KeyType::EC),
        Attribute::EcParams(raw::P256.to_vec()),
        Attribute::Value(scalar),
        Attribute::Sign(true),
    ];
    let token = [Attribute::Token(true)];
    let ec = client.session.create_object(&[&private[..], &token].concat()).unwrap();
    let hmac = [&client::secret(KeyType::GENERIC_SECRET, &[7; 32])[..], &token, &[Attribute::Sign(true)]].concat();
    let hmac = client.session.create_object(&hmac).unwrap();
    let uses: [(&str, Run); 2] = [
        ("EC signature", signing(|| Mechanism::EcdsaSha256.into(), ec)),
        ("HMAC", signing(|| Mechanism::Sha256Hmac.into(), hmac)),
    ];
    assert_bound(&client, &uses);
}

#[test]
fn keys_bound_by_an_attribute_work_while_the_pcrs_have_their_values() {
    let client = Client::new(client::PIN);
    let bound = [vendor(CKA_KEYRIVET_PCRS, b"sha256:0,16"), Attribute::Token(true)];
    let (_, key) = client.ec(raw::P256, &bound);
    assert_eq!(client.get(key, CKA_KEYRIVET_PCRS), Ok(b"sha256:0,16".to_vec()));
    assert_bound(&client, &uses(&client, &bound));
    let (_, free) = client.ec(raw::P256, &[]);
    extend(&client.device);
    assert!(client.sign(&Mechanism::EcdsaSha256.into(), free, b"x").is_ok(), "others are as they were");
}

#[test]
fn keys_without_pin_are_bound_too() {
    let client = Client::new("");
    assert_bound(&client, &uses(&client, &[vendor(CKA_KEYRIVET_PCRS, b"sha256:16"), Attribute::Token(true)]));
}

#[test]
fn a_key_is_bound_to_values_that_the_pcrs_will_have_only_later() {
    let client = Client::new(client::PIN);
    let later = openssl::sha::sha256(&[[0; 32], DIGEST].concat());
    client.device.write("later", later);
    let run = |words: &[&str]| {
        let _ = client.device.run(words).ok();
    };
    run(&["tpm2_startauthsession", "-Q", "-S", "trial"]);
    run(&["tpm2_policypcr", "-Q", "-S", "trial", "-l", "sha256:16", "-f", "later", "-L", "policy"]);
    run(&["tpm2_policyauthvalue", "-Q", "-S", "trial", "-L", "policy"]);
    run(&["tpm2_flushcontext", "trial"]);
    let bound = [vendor(CKA_KEYRIVET_PCRS, b"sha256:16"), vendor(CKA_KEYRIVET_POLICY, &client.device.read("policy"))];
    let (_, key) = client.ec(raw::P256, &bound);
    assert_eq!(client.get(key, CKA_KEYRIVET_POLICY), Ok(client.device.read("policy")));
    let sign = || client.sign(&Mechanism::EcdsaSha256.into(), key, b"x").map(drop);
    assert_eq!(sign(), Err(RvError::ActionProhibited));
    extend(&client.device);
    assert_eq!(sign(), Ok(()));
    reset(&client.device);
    assert_eq!(sign(), Err(RvError::ActionProhibited));
}

#[test]
fn what_a_key_cannot_be_bound_to_is_refused_by_its_reason() {
    let client = Client::new(client::PIN);
    let generate = |bound: &[Attribute]| {
        let public = [Attribute::EcParams(raw::P256.to_vec())];
        answer(client.session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, bound)).map(drop)
    };
    for wrong in ["", "sha256", "sha256:24", "md5:1", "sha256:x"] {
        let wrong_pcrs = generate(&[vendor(CKA_KEYRIVET_PCRS, wrong.as_bytes())]);
        assert_eq!(wrong_pcrs, Err(RvError::AttributeValueInvalid), "{wrong}");
    }
    let short = [vendor(CKA_KEYRIVET_PCRS, b"sha256:16"), vendor(CKA_KEYRIVET_POLICY, &[1; 31])];
    assert_eq!(generate(&short), Err(RvError::AttributeValueInvalid));
    assert_eq!(generate(&[vendor(CKA_KEYRIVET_POLICY, &[1; 32])]), Err(RvError::TemplateIncomplete));
    let (_, free) = client.ec(raw::P256, &[]);
    let later = client.session.update_attributes(free, &[vendor(CKA_KEYRIVET_PCRS, b"sha256:16")]);
    assert_eq!(answer(later), Err(RvError::AttributeReadOnly), "a key is bound when it is made, or never");
}

#[test]
fn what_a_key_is_bound_to_is_in_its_file_and_not_in_the_configuration() {
    let device = Device::new();
    let token = Token::new(&device, "dev", client::PIN);
    token.generate("EC:prime256v1", "free", "01");
    device.configure("pcrs = 'sha256:16'\n");
    token.generate("EC:prime256v1", "bound", "02");
    extend(&device);
    let client = Client::of(device, client::PIN);
    let sign = |id: u8| {
        let key = client.find_one(&[Attribute::Sign(true), Attribute::Id(vec![id])]);
        client.sign(&Mechanism::EcdsaSha256.into(), key, b"x").map(drop)
    };
    assert_eq!(sign(1), Ok(()));
    assert_eq!(sign(2), Err(RvError::ActionProhibited));
    // A wrong PCR is no wrong PIN: nothing comes nearer to the lockout.
    assert_eq!(client.device.lockout_counter(), "0x0");
}
