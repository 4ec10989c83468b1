//! Adoption: keys and certificates that were in the TPM already become objects of a token.

mod client;
mod raw;

use client::{Client, answer, contains, stored};
use conformance_tests::{Device, Token};
use cryptoki::error::RvError;
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::elliptic_curve::{EcKdf, Ecdh1DeriveParams};
use cryptoki::object::{Attribute, KeyType, ObjectClass};
use cryptoki_sys::*;
use openssl::hash::MessageDigest;
use openssl::rsa::Padding;
use openssl::sign::Verifier;

const MESSAGE: &[u8] = b"what is signed";
const NOTHING: [&str; 0] = [];

/// Has tpm2-tools make a persistent key.
fn persist(device: &Device, algorithm: &str, usage: &str, handle: &str, auth: Option<&str>) {
    let attributes = format!("fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|{usage}");
    let create = ["tpm2_createprimary", "-Q", "-C", "o", "-G", algorithm, "-a", &attributes, "-c", "key.ctx"];
    let auth = auth.map_or(vec![], |auth| vec!["-p", auth]);
    let _ = device.run(&[&create[..], &auth].concat()).ok();
    let _ = device.run(&["tpm2_evictcontrol", "-Q", "-C", "o", "-c", "key.ctx", handle]).ok();
    let _ = device.run(&["tpm2_flushcontext", "-t"]).ok();
}

fn adopt(token: &str, handle: &str, more: &str) -> String {
    format!("[[adopt]]\ntoken = '{token}'\nhandle = {handle}\n{more}\n")
}

/// A certificate of a key in a file, and in an NV index that is longer.
fn certificate_in_nv(device: &Device, index: &str) -> Vec<u8> {
    let request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let output = ["-keyout", "ca.key", "-subj", "/O=Example/CN=IDevID", "-outform", "DER", "-out", "cert.der"];
    let _ = device.run(&[&request[..], &output].concat()).ok();
    let der = device.read("cert.der");
    let size = (der.len() + 40).to_string();
    let _ = device.run(&["tpm2_nvdefine", "-Q", "-C", "o", "-s", &size, "-a", NV_ATTRIBUTES, index]).ok();
    let _ = device.run(&["tpm2_nvwrite", "-Q", "-C", "o", "-i", "cert.der", index]).ok();
    der
}

const NV_ATTRIBUTES: &str = "ownerread|authread|ownerwrite|no_da";

#[test]
fn a_persistent_key_of_tpm2_tools_signs_as_a_token_object() {
    let device = Device::new();
    let _ = Token::new(&device, "dev", client::PIN);
    persist(&device, "ecc256:null", "sign|decrypt", "0x81010001", None);
    persist(&device, "rsa2048:null:null", "sign|decrypt", "0x81010002", None);
    device.configure(&adopt("dev", "0x81010001", "label = 'idevid'\nid = '0a'"));
    device.configure(&adopt("dev", "0x81010002", "label = 'rsa'"));
    let client = Client::of(device, client::PIN);
    let private =
        |label: &str| client.find_one(&[Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Label(label.into())]);
    let (ec, rsa) = (private("idevid"), private("rsa"));
    assert_eq!(client.get(ec, CKA_ID), Ok(vec![0x0a]));
    for (key, mechanism) in [(ec, Mechanism::EcdsaSha256), (rsa, Mechanism::Sha256RsaPkcs)] {
        assert!(client.flag(key, CKA_TOKEN) && client.flag(key, CKA_SENSITIVE) && !client.flag(key, CKA_EXTRACTABLE));
        let signature = client.sign(&mechanism.into(), key, MESSAGE).unwrap();
        let id = Attribute::Id(client.get(key, CKA_ID).unwrap());
        let public = client.find_one(&[Attribute::Class(ObjectClass::PUBLIC_KEY), id]);
        let signature = if key == ec { der(&signature) } else { signature };
        let openssl = client.openssl_key(public);
        assert_eq!(client.get(key, CKA_PUBLIC_KEY_INFO), client.get(public, CKA_PUBLIC_KEY_INFO));
        assert!(Verifier::new(MessageDigest::sha256(), &openssl).unwrap().verify_oneshot(&signature, MESSAGE).unwrap());
    }
    let key = client.openssl_key(rsa).rsa().unwrap();
    let mut encrypted = [0; 256];
    key.public_encrypt(b"a secret", &mut encrypted, Padding::PKCS1).unwrap();
    let clear = client.decrypt(&Mechanism::RsaPkcs.into(), rsa, &encrypted);
    assert_eq!(clear.as_deref(), Ok(&b"a secret"[..]));
    let group = openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::X9_62_PRIME256V1).unwrap();
    let peer = openssl::pkey::PKey::from_ec_key(openssl::ec::EcKey::generate(&group).unwrap()).unwrap();
    let spki = peer.public_key_to_der().unwrap();
    let parameters = Ecdh1DeriveParams::new(EcKdf::null(), &spki[spki.len() - 65..]);
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
    ];
    let secret = client.derive(&Mechanism::Ecdh1Derive(parameters).into(), ec, &template).unwrap();
    let mine = client.openssl_key(ec);
    let mut deriver = openssl::derive::Deriver::new(&peer).unwrap();
    deriver.set_peer(&mine).unwrap();
    assert_eq!(client.get(secret, CKA_VALUE), Ok(deriver.derive_to_vec().unwrap()));
}

#[test]
fn a_persistent_key_with_an_authorisation_value_needs_its_file_once() {
    let device = Device::new();
    let token = Token::new(&device, "dev", client::PIN);
    persist(&device, "ecc256:null", "sign", "0x81010001", Some("its-own-auth"));
    device.write("auth", "its-own-auth");
    let file = device.path("auth").display().to_string();
    device.configure(&adopt("dev", "0x81010001", &format!("label = 'idevid'\nid = '0a'\nauth_file = '{file}'")));
    device.write("data", MESSAGE);
    let sign = ["--sign", "--id", "0a", "--mechanism", "ECDSA-SHA256", "--input-file", "data", "--output-file", "s"];
    let sign = [&sign[..], &["--signature-format", "openssl"]].concat();
    device.set_variable("GNUTLS_PIN", client::PIN);
    let verify = || {
        // OpenSC 0.23 does not always manage to write a public key of a curve.
        let read = ["p11tool", "--provider", &device.module(), "--batch", "--export-pubkey", "--outfile", "key.pem"];
        let _ = device.run(&[&read[..], &["pkcs11:token=dev;id=%0a;type=public"]].concat()).ok();
        let verify = ["openssl", "dgst", "-sha256", "-verify", "key.pem", "-signature", "s", "data"];
        let _ = device.run(&verify).ok().says("Verified OK");
    };
    let _ = token.tool(&sign).ok();
    verify();
    // It is kept under the token's secret now, and not in the clear.
    std::fs::remove_file(device.path("auth")).unwrap();
    let _ = token.tool(&sign).ok();
    verify();
    for (name, content) in stored(&device) {
        assert!(!contains(&content, b"its-own-"), "{name}");
    }
    let bus = device.tpm_bytes();
    let sent = bus.windows(12).filter(|window| window == b"its-own-auth").count();
    assert!(sent <= 1, "only tpm2_createprimary has shown it: {sent}");
}

#[test]
fn the_authorisation_value_is_used_under_the_tokens_own_storage_root_key_only() {
    let device = Device::new();
    let _ = Token::new(&device, "dev", client::PIN);
    persist(&device, "ecc256:null", "sign", "0x81010001", Some("its-own-auth"));
    device.write("auth", "its-own-auth");
    let file = device.path("auth").display().to_string();
    device.configure(&adopt("dev", "0x81010001", &format!("auth_file = '{file}'")));
    let client = Client::of(device, client::PIN);
    let key = client.find_one(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]);
    let sign = || client.sign(&Mechanism::EcdsaSha256.into(), key, MESSAGE);
    let _ = sign().unwrap();
    // Another storage key takes the place of the one that the token was made under.
    let _ = client.device.run(&["tpm2_evictcontrol", "-Q", "-C", "o", "-c", "0x81000001"]).ok();
    persist(&client.device, "rsa2048:aes128cfb", "restricted|decrypt", "0x81000001", None);
    assert_eq!(sign(), Err(RvError::TokenNotRecognized));
}

#[test]
fn a_certificate_in_nv_is_a_certificate_object_that_nobody_changes() {
    let device = Device::new();
    let token = Token::new(&device, "dev", client::PIN);
    let der = certificate_in_nv(&device, "0x1500001");
    device.configure(&adopt("dev", "0x01500001", "label = 'idevid'\nid = '0a'"));
    let _ = token.tool(&["--list-objects"]).ok();
    // Anybody sees it then, and it costs nothing.
    let cost = device.cost_of(|| {
        let read = ["--token-label", "dev", "--read-object", "--type", "cert", "--id", "0a", "--output-file", "back"];
        let _ = device.pkcs11_tool(&read).ok();
    });
    assert_eq!(cost, NOTHING);
    assert_eq!(device.read("back"), der);
    let client = Client::of(device, client::PIN);
    let object = client.find_one(&[Attribute::Class(ObjectClass::CERTIFICATE)]);
    assert_eq!(client.get(object, CKA_VALUE), Ok(der));
    assert_eq!(client.get(object, CKA_LABEL), Ok(b"idevid".to_vec()));
    assert!(!client.flag(object, CKA_MODIFIABLE));
    let changed = client.session.update_attributes(object, &[Attribute::Label(b"x".to_vec())]);
    assert_eq!(answer(changed), Err(RvError::ActionProhibited));
}

#[test]
fn key_and_certificate_are_joined_by_the_id_that_they_get_without_one() {
    let device = Device::new();
    let _ = Token::new(&device, "dev", client::PIN);
    persist(&device, "ecc256:null", "sign", "0x81010001", None);
    device.configure(&adopt("dev", "0x81010001", ""));
    device.configure(&adopt("dev", "0x01500001", ""));
    certificate_in_nv(&device, "0x1500001");
    let client = Client::of(device, client::PIN);
    let certificate = client.find_one(&[Attribute::Class(ObjectClass::CERTIFICATE)]);
    let x509 = openssl::x509::X509::from_der(&client.get(certificate, CKA_VALUE).unwrap()).unwrap();
    for (object, key) in [(certificate, x509.public_key().unwrap()), {
        let private = client.find_one(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]);
        (private, client.openssl_key(private))
    }] {
        let spki = key.public_key_to_der().unwrap();
        let id = openssl::hash::hash(MessageDigest::sha1(), &spki[spki.len() - 65..]).unwrap();
        assert_eq!(client.get(object, CKA_ID), Ok(id.to_vec()));
    }
}

#[test]
fn what_is_adopted_is_listed_for_nothing_and_signs_with_one_command() {
    let device = Device::new();
    let token = Token::new(&device, "iot", "");
    persist(&device, "ecc256:null", "sign", "0x81010001", None);
    device.configure(&adopt("iot", "0x81010001", "id = '0a'"));
    let _ = token.tool(&["--list-objects"]).ok().says("Private Key Object");
    let cost = device.cost_of(|| {
        let _ = token.tool(&["--list-objects"]).ok().says("Private Key Object");
    });
    assert_eq!(cost, NOTHING);
    device.write("data", MESSAGE);
    let sign = ["--sign", "--id", "0a", "--mechanism", "ECDSA-SHA256", "--input-file", "data", "--output-file", "s"];
    let cost = device.cost_of(|| {
        let _ = token.tool(&sign).ok();
    });
    assert_eq!(cost, ["Sign"]);
}

#[test]
fn to_destroy_what_was_adopted_leaves_the_tpms_key_alone() {
    let device = Device::new();
    let _ = Token::new(&device, "dev", client::PIN);
    persist(&device, "ecc256:null", "sign", "0x81010001", None);
    device.configure(&adopt("dev", "0x81010001", "id = '0a'"));
    let client = Client::of(device, client::PIN);
    for object in client.session.find_objects(&[Attribute::Id(vec![0x0a])]).unwrap() {
        client.session.destroy_object(object).unwrap();
    }
    let _ = client.device.run(&["tpm2_getcap", "handles-persistent"]).ok().says("0x81010001");
}

#[test]
fn what_is_not_there_or_not_ours_to_use_hinders_nothing_else() {
    let device = Device::new();
    let token = Token::new(&device, "dev", client::PIN);
    persist(&device, "ecc256:null", "sign", "0x81010001", None);
    let _ = device.run(&["tpm2_nvdefine", "-Q", "-C", "o", "-s", "8", "-a", NV_ATTRIBUTES, "0x1500002"]).ok();
    for (token, handle) in [
        ("dev", "0x81010009"),
        ("dev", "0x01500009"),
        // No certificate is in it, and it was never written.
        ("dev", "0x01500002"),
        ("another", "0x81010001"),
    ] {
        device.configure(&adopt(token, handle, ""));
    }
    device.configure(&adopt("dev", "0x81010001", "id = '0a'"));
    let listed = token.tool(&["--list-objects"]).ok();
    assert_eq!(listed.stdout().matches("Key Object").count(), 2, "{listed}");
    assert_eq!(listed.stdout().matches("Certificate Object").count(), 0, "{listed}");
}

fn der(signature: &[u8]) -> Vec<u8> {
    let number = |bytes| openssl::bn::BigNum::from_slice(bytes).unwrap();
    let (r, s) = signature.split_at(signature.len() / 2);
    openssl::ecdsa::EcdsaSig::from_private_components(number(r), number(s)).unwrap().to_der().unwrap()
}

#[test]
fn what_cannot_be_adopted_is_asked_for_once_and_again_after_a_login() {
    let device = Device::new();
    let _ = Token::new(&device, "dev", client::PIN);
    device.configure(&adopt("dev", "0x81010009", ""));
    let client = Client::of(device, client::PIN);
    let open = || drop(client.module.open_rw_session(client.slot()).unwrap());
    assert_eq!(client.device.cost_of(open), NOTHING);
    client.session.logout().unwrap();
    persist(&client.device, "ecc256:null", "sign", "0x81010009", None);
    client.session.login(cryptoki::session::UserType::User, Some(&client::PIN.into())).unwrap();
    assert_eq!(client.session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]).unwrap().len(), 1);
}

#[test]
fn a_wrong_authorisation_value_is_told_from_damage() {
    let device = Device::new();
    let token = Token::new(&device, "dev", client::PIN);
    persist(&device, "ecc256:null", "sign", "0x81010001", Some("its-own-auth"));
    device.write("auth", "another");
    let file = device.path("auth").display().to_string();
    device.configure(&adopt("dev", "0x81010001", &format!("label = 'x'\nid = '0a'\nauth_file = '{file}'")));
    device.write("data", MESSAGE);
    let sign = ["--sign", "--id", "0a", "--mechanism", "ECDSA-SHA256", "--input-file", "data", "--output-file", "s"];
    device.set_variable("KEYRIVET_LOG", "error");
    let refused = token.tool(&sign).fails_with("has another authorisation value than auth_file had");
    let path = refused.stderr();
    let path = path.split_whitespace().find(|word| word.ends_with(".pem")).expect("the file is named");
    // An editor's newline is none of it.
    device.write("auth", "its-own-auth\n");
    std::fs::remove_file(path).unwrap();
    let _ = token.tool(&sign).ok();
}

/// What only its own authValue may read cannot be tried without spending what the TPM counts for everybody's PINs.
#[test]
fn an_nv_index_of_which_wrong_tries_count_is_not_tried() {
    let device = Device::new();
    let _ = Token::new(&device, "dev", client::PIN);
    let attributes = ["-s", "64", "-a", "authread|ownerwrite", "-p", "its own", "0x1500003"];
    let _ = device.run(&[&["tpm2_nvdefine", "-Q", "-C", "o"], &attributes[..]].concat()).ok();
    let _ = device.run(&["tpm2_nvwrite", "-Q", "-C", "o", "-i", "/etc/hostname", "0x1500003"]).ok();
    device.configure(&adopt("dev", "0x1500003", "label = 'its own'"));
    device.mark();
    let client = Client::of(device, client::PIN);
    assert_eq!(client.session.find_objects(&[Attribute::Class(ObjectClass::CERTIFICATE)]).unwrap(), []);
    assert_eq!(client.device.attacks(), Vec::<String>::new());
    assert!(
        client.device.commands().iter().any(|command| command == "NV_ReadPublic"),
        "{:?}",
        client.device.commands()
    );
}
