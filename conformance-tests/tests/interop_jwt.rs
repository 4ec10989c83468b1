//! JWTs signed in the TPM, checked against the device's certificate by PyJWT, which knows nothing of TPMs.

use std::time::{SystemTime, UNIX_EPOCH};

use conformance_tests::{Device, Output, Pki, Run as _, Token};

#[test]
fn rs256_by_openssl_and_by_pkcs11_tool() {
    let device = Device::new();
    let (pki, token) = (Pki::new(&device), Token::new(&device, "gateway", "123456"));
    token.generate("rsa:2048", "rsa", "01");
    token.certify(&pki, "rsa", "gateway");
    let unsigned = unsigned(&device, "RS256");
    let _ = device.openssl(&["dgst", "-sha256", "-sign", &token.uri("rsa"), "-out", "signature", "unsigned"]).ok();
    let _ = verify(&device, "gateway", &unsigned, &device.read("signature")).ok().says("my-project");
    let mechanism = ["--sign", "--id", "01", "--mechanism", "SHA256-RSA-PKCS"];
    let files = ["--input-file", "unsigned", "--output-file", "signature"];
    let _ = token.tool(&[&mechanism[..], &files].concat()).ok();
    let _ = verify(&device, "gateway", &unsigned, &device.read("signature")).ok();
    let _ = verify(&device, "gateway", &unsigned.replace('.', "A."), &device.read("signature")).fails();
}

#[test]
fn es256_by_pkcs11_tool_needs_no_conversion_and_no_pin() {
    let device = Device::new();
    let (pki, token) = (Pki::new(&device), Token::new(&device, "sensor", ""));
    token.generate("EC:prime256v1", "ec", "01");
    token.certify(&pki, "ec", "sensor");
    let unsigned = unsigned(&device, "ES256");
    let mechanism = ["--sign", "--id", "01", "--mechanism", "ECDSA-SHA256"];
    let files = ["--input-file", "unsigned", "--output-file", "signature"];
    let _ = token.tool(&[&mechanism[..], &files].concat()).ok();
    let _ = verify(&device, "sensor", &unsigned, &device.read("signature")).ok();
}

/// Header and claims as Cloud IoT Core wanted them; also left in the file `unsigned`.
fn unsigned(device: &Device, algorithm: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
    let header = format!(r#"{{"alg":"{algorithm}","typ":"JWT"}}"#);
    let claims = format!(r#"{{"aud":"my-project","iat":{now},"exp":{}}}"#, now + 1200);
    let text = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
    device.write("unsigned", &text);
    text
}

fn verify(device: &Device, name: &str, unsigned: &str, signature: &[u8]) -> Output {
    device.write("jwt", format!("{unsigned}.{}", base64url(signature)));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/demo.d/verify-jwt");
    device.command(script).args([&format!("{name}.crt"), "my-project", "jwt"]).run()
}

fn base64url(bytes: &[u8]) -> String {
    openssl::base64::encode_block(bytes).replace('+', "-").replace('/', "_").replace('=', "")
}
