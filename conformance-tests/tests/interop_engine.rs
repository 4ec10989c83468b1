//! libp11's engine `pkcs11`, as Debian ships it, over our module.

use conformance_tests::{Device, Token};

const ENGINE: [&str; 4] = ["-engine", "pkcs11", "-keyform", "engine"];

#[test]
fn a_request_is_made_with_a_key_behind_a_pin() {
    let device = Device::new();
    let token = Token::new(&device, "gateway", "123456");
    token.generate("rsa:2048", "rsa", "01");
    request(&device, &token.uri("rsa"));
}

#[test]
fn a_request_is_made_with_a_key_without_a_pin() {
    let device = Device::new();
    let token = Token::new(&device, "sensor", "");
    token.generate("EC:prime256v1", "ec", "01");
    device.mark();
    request(&device, &token.uri("ec"));
    assert_eq!(device.commands(), ["Load", "Sign", "FlushContext"]);
}

#[test]
fn a_signature_by_the_engine_verifies_with_the_public_key_that_the_provider_tells() {
    let device = Device::new();
    let token = Token::new(&device, "gateway", "123456");
    token.generate("EC:secp384r1", "ec", "01");
    device.write("data", "to be signed");
    let uri = token.uri("ec");
    let sign = [&["dgst", "-sha384"][..], &ENGINE, &["-sign", &uri, "-out", "signature", "data"]].concat();
    let _ = device.run(&[&["openssl"][..], &sign].concat()).ok();
    let _ = device
        .openssl(&["pkey", "-pubin", "-in", &uri.replace("private", "public"), "-pubout", "-out", "public.pem"])
        .ok();
    let verify = ["openssl", "dgst", "-sha384", "-verify", "public.pem", "-signature", "signature", "data"];
    let _ = device.run(&verify).ok();
}

#[test]
fn a_wrong_pin_is_refused_and_named() {
    let device = Device::new();
    let token = Token::new(&device, "gateway", "123456");
    token.generate("EC:prime256v1", "ec", "01");
    device.write("gateway.pin", "654321");
    let uri = token.uri("ec");
    let words = [&["openssl", "req", "-new"][..], &ENGINE, &["-key", &uri, "-subj", "/CN=x", "-out", "x.csr"]].concat();
    let output = device.run(&words);
    // The engine of Debian 12 (libp11 0.4.12) crashes after a failed login, with any module.
    assert!(!output.succeeded(), "{output}");
    let _ = output.says("PIN incorrect");
}

fn request(device: &Device, uri: &str) {
    let words = [&["openssl", "req", "-new"][..], &ENGINE, &["-key", uri, "-subj", "/CN=x", "-out", "x.csr"]].concat();
    let _ = device.run(&words).ok();
    let _ = device.run(&["openssl", "req", "-in", "x.csr", "-noout", "-verify"]).ok();
}
