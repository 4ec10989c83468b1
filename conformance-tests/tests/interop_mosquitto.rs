//! Mutual TLS between mosquitto's own broker and clients, the client's key in the TPM.

use conformance_tests::{Device, Hold, Output, Pki, Run as _, Server, Token, free_port};

#[test]
fn a_client_with_a_key_file_of_the_tpm_is_let_in_by_its_certificate() {
    let device = Device::with_hold(Hold::Default);
    let pki = Pki::new(&device);
    let broker = Broker::start(&device, &pki);
    for kind in [["EC", "group:P-256"], ["RSA", "rsa_keygen_bits:2048"]] {
        device.new_key_file(kind, "camera.pem");
        let request = ["req", "-new", "-key", "camera.pem", "-subj", "/CN=camera", "-out", "camera.csr"];
        let _ = device.openssl(&request).ok();
        pki.sign_device("camera.csr", "camera.crt");
        let key = ["--cert", "camera.crt", "--key", "camera.pem"];
        let _ = broker.publish_through_provider(&key).ok();
    }
    assert!(broker.server.output().contains("'camera'"), "{}", broker.server.output());
}

#[test]
fn a_client_with_a_uri_is_let_in_through_the_engine() {
    let device = Device::with_hold(Hold::Default);
    let pki = Pki::new(&device);
    let broker = Broker::start(&device, &pki);
    let (gateway, sensor) = (Token::new(&device, "gateway", "123456"), Token::new(&device, "sensor", ""));
    gateway.generate("rsa:2048", "rsa", "01");
    sensor.generate("EC:prime256v1", "ec", "01");
    gateway.certify(&pki, "rsa", "gateway");
    sensor.certify(&pki, "ec", "sensor");
    std::os::unix::fs::symlink("gateway.pin", device.path("pin")).expect("the PIN file has a short name too");
    // mosquitto opens --key as a file before it asks the engine, so a file of the URI's name must be there, and the
    // URI may hold no '/'.
    for (name, uri) in [
        ("gateway", "pkcs11:token=gateway;object=rsa?pin-source=file:pin"),
        ("sensor", "pkcs11:token=sensor;object=ec"),
    ] {
        device.write(uri, "");
        let certificate = format!("{name}.crt");
        let key = ["--cert", &certificate, "--tls-engine", "pkcs11", "--keyform", "engine", "--key", uri];
        let _ = broker.publish(&key).ok();
        assert!(broker.server.output().contains(&format!("'{name}'")), "{}", broker.server.output());
    }
}

#[test]
fn strangers_are_refused() {
    let device = Device::with_hold(Hold::Default);
    let pki = Pki::new(&device);
    let broker = Broker::start(&device, &pki);
    pki.issue_stranger("stranger");
    let _ = broker.publish(&[]).fails();
    let _ = broker.publish(&["--cert", "stranger.crt", "--key", "stranger.key"]).fails();
}

struct Broker<'a> {
    device: &'a Device,
    port: String,
    server: Server,
}

impl<'a> Broker<'a> {
    fn start(device: &'a Device, pki: &Pki<'_>) -> Self {
        pki.issue_server("server");
        let port = free_port();
        device.write(
            "mosquitto.conf",
            format!(
                "listener {port} 127.0.0.1\ncafile {}\ncertfile server.crt\nkeyfile server.key\n\
                 require_certificate true\nuse_identity_as_username true\nuser root\n",
                pki.chain()
            ),
        );
        let mut command = device.command("mosquitto");
        command.args(["-v", "-c", "mosquitto.conf"]);
        let server = Server::start(&mut command, port, &device.path("mosquitto.log"));
        Self { device, port: port.to_string(), server }
    }

    fn publish(&self, key: &[&str]) -> Output {
        self.device.command("mosquitto_pub").args(self.arguments(key)).run()
    }

    fn publish_through_provider(&self, key: &[&str]) -> Output {
        let mut command = self.device.command("mosquitto_pub");
        command.env("OPENSSL_CONF", self.device.openssl_conf()).args(self.arguments(key)).run()
    }

    fn arguments<'b>(&'b self, key: &[&'b str]) -> Vec<&'b str> {
        let mut words = vec!["-h", "localhost", "-p", &self.port, "--cafile", "chain.crt", "-q", "1"];
        words.extend(["-t", "greetings", "-m", "hello"]);
        words.extend(key);
        words
    }
}
