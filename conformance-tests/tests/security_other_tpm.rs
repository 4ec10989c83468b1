//! A disk without its TPM: neither a key file nor a whole store is of any use elsewhere, and both say why.

use conformance_tests::{Device, Token};

const ANOTHER_TPM: &str = "another TPM";

#[test]
fn a_key_file_does_not_sign_on_another_tpm_and_says_why() {
    let device = Device::new();
    // Once under a primary key of the owner hierarchy, once under a persistent storage root key.
    for persistent in [false, true] {
        if persistent {
            let _ = Token::new(&device, "makes-the-storage-root-key", "");
        }
        device.new_key_file(["EC", "group:P-256"], "key.pem");
        let _ = sign(&device, "key.pem").ok();
        device.swap_tpm();
        let _ = sign(&device, "key.pem").fails_with(ANOTHER_TPM);
        // Nor does it where the other TPM has a storage root key of its own.
        let _ = Token::new(&device, if persistent { "other" } else { "another" }, "");
        let _ = sign(&device, "key.pem").fails_with(ANOTHER_TPM);
        device.swap_tpm();
    }
}

#[test]
fn a_store_does_not_open_on_another_tpm_and_says_why_and_is_not_harmed() {
    let device = Device::new();
    let (gateway, sensor) = (Token::new(&device, "gateway", "123456"), Token::new(&device, "sensor", ""));
    gateway.generate("rsa:2048", "key", "01");
    sensor.generate("EC:prime256v1", "key", "01");
    device.swap_tpm();
    device.mark();
    let _ = device.pkcs11_tool(&["--list-slots"]).ok().silent().says("gateway").says("sensor");
    let _ = device.pkcs11_tool(&["--token-label", "sensor", "--list-objects"]).ok().says("Private Key");
    assert!(device.commands().is_empty(), "{:?}", device.commands());
    for token in [&gateway, &sensor] {
        let _ = sign(&device, &token.uri("key")).fails_with(ANOTHER_TPM);
    }
    let wrong_mechanism = ["--sign", "--id", "01", "--mechanism", "ECDSA", "-i", "openssl.cnf", "-o", "signature"];
    let _ = sensor.tool(&wrong_mechanism).fails();

    // A new token works beside those that lost their TPM.
    let fresh = Token::new(&device, "fresh", "");
    fresh.generate("EC:prime256v1", "key", "01");
    let _ = sign(&device, &fresh.uri("key")).ok();
    let _ = device.pkcs11_tool(&["--list-slots"]).ok().says("gateway").says("sensor").says("fresh");
}

#[test]
fn a_cleared_tpm_is_told_from_a_damaged_file() {
    let device = Device::new();
    let (gateway, sensor) = (Token::new(&device, "gateway", "123456"), Token::new(&device, "sensor", ""));
    gateway.generate("EC:prime256v1", "key", "01");
    sensor.generate("EC:prime256v1", "key", "01");
    device.new_key_file(["EC", "group:P-256"], "key.pem");
    let _ = device.run(&["tpm2_clear"]).ok();
    for key in [&gateway.uri("key"), &sensor.uri("key"), "key.pem"] {
        let _ = sign(&device, key).fails_with("was cleared since");
    }
    // Nor are new keys made under what is no longer there, or under another storage root key in its place.
    let another = ["--keypairgen", "--key-type", "EC:prime256v1", "--label", "late", "--id", "02"];
    let _ = sensor.tool(&another).fails_with("CKR_TOKEN_NOT_RECOGNIZED");
    Token::new(&device, "fresh", "").generate("EC:prime256v1", "key", "01");
    let _ = sensor.tool(&another).fails_with("CKR_TOKEN_NOT_RECOGNIZED");
    let _ = gateway.tool(&another).fails_with("CKR_TOKEN_NOT_RECOGNIZED");
}

#[test]
fn the_private_key_is_not_exported_by_anything() {
    let device = Device::new();
    let token = Token::new(&device, "gateway", "123456");
    token.generate("rsa:2048", "rsa", "01");
    device.new_key_file(["RSA", "rsa_keygen_bits:2048"], "key.pem");
    for key in ["key.pem", &token.uri("rsa")] {
        for form in [&["-traditional"][..], &["-outform", "DER"]] {
            let output = device.openssl(&[&["pkey", "-in", key, "-out", "stolen"][..], form].concat());
            // What comes out, if anything does, is the TPM's own wrapped form.
            let stolen = std::fs::read(device.path("stolen")).unwrap_or_default();
            assert!(openssl::pkey::PKey::private_key_from_pem(&stolen).is_err(), "{output}");
            assert!(openssl::pkey::PKey::private_key_from_der(&stolen).is_err(), "{output}");
        }
    }
    let _ = token.tool(&["--list-objects", "--type", "privkey"]).ok().says("never extractable");
}

fn sign(device: &Device, key: &str) -> conformance_tests::Output {
    device.openssl(&["dgst", "-sha256", "-sign", key, "-out", "signature", "openssl.cnf"])
}

#[test]
fn a_storage_root_key_that_was_only_removed_is_told_from_a_cleared_tpm() {
    let device = Device::new();
    let (gateway, sensor) = (Token::new(&device, "gateway", "123456"), Token::new(&device, "sensor", ""));
    gateway.generate("EC:prime256v1", "key", "01");
    sensor.generate("EC:prime256v1", "key", "01");
    device.new_key_file(["EC", "group:P-256"], "key.pem");
    let _ = device.run(&["tpm2_evictcontrol", "-Q", "-C", "o", "-c", "0x81000001"]).ok();
    for token in [&gateway, &sensor] {
        let _ = sign(&device, &token.uri("key")).fails_with("was removed from 0x81000001");
    }
    let absent = sign(&device, "key.pem").fails_with("nothing is at 0x81000001, where the parent of this key file was");
    let _ = absent.says_nothing_of("belongs to another TPM");
    // What the message says to do.
    let storage = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
    let make = ["tpm2_createprimary", "-Q", "-C", "o", "-G", "ecc256", "-c", "srk.ctx", "-a", storage];
    let _ = device.run(&make).ok();
    let _ = device.run(&["tpm2_evictcontrol", "-Q", "-C", "o", "-c", "srk.ctx", "0x81000001"]).ok();
    let _ = device.run(&["tpm2_flushcontext", "-t"]).ok();
    for token in [&gateway, &sensor] {
        let _ = sign(&device, &token.uri("key")).ok();
    }
    let _ = sign(&device, "key.pem").ok();
}
