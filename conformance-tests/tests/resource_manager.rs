//! Through the resource manager tpm2-abrmd, which virtualises the TPM's slots for every connection.

use std::process::Stdio;

use conformance_tests::{Device, Hold, ResourceManager, Token};

#[test]
fn tokens_and_keys_work_through_a_resource_manager() {
    let device = Device::with_hold(Hold::Default);
    let _manager = ResourceManager::start(&device);
    let (gateway, sensor) = (Token::new(&device, "gateway", "123456"), Token::new(&device, "sensor", ""));
    gateway.generate("rsa:2048", "key", "01");
    sensor.generate("EC:prime256v1", "key", "01");
    device.new_key_file(["EC", "group:P-256"], "key.pem");
    for key in [gateway.uri("key"), sensor.uri("key"), "key.pem".into()] {
        let _ = device.openssl(&["dgst", "-sha256", "-sign", &key, "-out", "signature", "openssl.cnf"]).ok().silent();
        let public = device.openssl(&["pkey", "-in", &key, "-pubout", "-out", "public.pem"]).ok();
        let _ = public.silent();
        let verify = ["openssl", "dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", "openssl.cnf"];
        let _ = device.run(&verify).ok();
    }
}

#[test]
fn four_signers_at_once_share_a_resource_manager() {
    let device = Device::with_hold(Hold::Default);
    let _manager = ResourceManager::start(&device);
    let token = Token::new(&device, "gateway", "123456");
    token.generate("EC:prime256v1", "key", "01");
    let signers: Vec<_> = (0..4)
        .map(|number| {
            let mut command = device.command("openssl");
            command.env("OPENSSL_CONF", device.openssl_conf()).stderr(Stdio::piped());
            let name = format!("signature{number}");
            command.args(["dgst", "-sha256", "-sign", &token.uri("key"), "-out", &name, "openssl.cnf"]);
            command.spawn().expect("the signer starts")
        })
        .collect();
    for signer in signers {
        let output = signer.wait_with_output().expect("the signer ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
