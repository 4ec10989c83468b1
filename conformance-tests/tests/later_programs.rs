//! What programs later than Debian 12's do besides. conformance-tests/debian13 runs these, on Debian 13.

use std::process::Command;

use conformance_tests::{Device, Hold, Output, Pki, Run as _, Server, Token, free_port, say_hello};

const PIN: &str = "123456";

#[test]
#[ignore = "curl 8.12 and later: conformance-tests/debian13 runs this"]
fn curl_takes_uris_with_key_type_prov() {
    let device = Device::with_hold(Hold::Default);
    let pki = Pki::new(&device);
    pki.issue_server("server");
    let (gateway, sensor) = (Token::new(&device, "gateway", PIN), Token::new(&device, "sensor", ""));
    gateway.generate("rsa:2048", "key", "01");
    sensor.generate("EC:prime256v1", "key", "01");
    let port = free_port();
    let listen = format!("s_server -www -accept 127.0.0.1:{port} -cert server.crt -key server.key -CAfile chain.crt");
    let mut server = device.command("openssl");
    server.args(listen.split(' ')).args(["-Verify", "2", "-verify_return_error"]);
    let _server = Server::start(&mut server, port, &device.path("server.log"));
    for (name, token) in [("gateway", &gateway), ("sensor", &sensor)] {
        token.certify(&pki, "key", name);
        let (certificate, url) = (format!("{name}.crt"), format!("https://localhost:{port}/"));
        device.mark();
        let mut curl = device.command("curl");
        curl.env("OPENSSL_CONF", device.openssl_conf()).args(["-sSf", "--cacert", "chain.crt", "--cert", &certificate]);
        // Without --engine, curl takes `pkcs11:` for pkcs11-provider.
        let key = ["--engine", "keyrivet", "--key-type", "PROV", "--key", &token.uri("key")];
        let _ = curl.args(key).arg(&url).run().ok().says("Client certificate");
        assert_eq!(device.commands().iter().filter(|name| *name == "Sign").count(), 1);
    }
}

#[test]
#[ignore = "pkcs11-provider: conformance-tests/debian13 runs this"]
fn pkcs11_provider_uses_the_module() {
    let bench = Bench::new();
    for (kind, label) in [("rsa:2048", "rsa"), ("EC:prime256v1", "ec")] {
        bench.token().generate(kind, label, if label == "ec" { "01" } else { "02" });
        let uri = bench.token().uri(label);
        bench.signs(&uri);
        let _ = bench.openssl(&format!("pkey -in {uri} -pubout -out key.pub")).ok();
        let _ = bench.openssl(&format!("dgst -sha256 -sign {uri} -out signature message")).ok();
        let _ = bench.plain("dgst -sha256 -verify key.pub -signature signature message").ok().says("Verified OK");
        let sign = "cms -sign -in message -signer x.crt -out message.cms -inkey";
        let _ = bench.openssl(&format!("{sign} {uri}")).ok();
        let _ = bench.plain("cms -verify -in message.cms -CAfile x.crt -purpose any").ok().says("a message");
        bench.serves(&uri);
    }
    let uri = bench.token().uri("rsa");
    let _ = bench.openssl(&format!("pkey -in {uri} -pubout -out key.pub")).ok();
    // Without rsa_mgf1_md, pkcs11-provider 1.0 asks for no MGF at all.
    let oaep = "-pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 -pkeyopt rsa_mgf1_md:sha256";
    let _ = bench.plain(&format!("pkeyutl -encrypt -pubin -inkey key.pub {oaep} -in message -out secret")).ok();
    let decrypt = format!("pkeyutl -decrypt -inkey {uri} {oaep} -in secret");
    let _ = bench.openssl(&decrypt).ok().says("a message");
    let listed = bench.openssl("storeutl -noout -text pkcs11:token=gateway;type=public").ok();
    let _ = listed.says("Total found: 2");
}

#[test]
#[ignore = "pkcs11-provider: conformance-tests/debian13 runs this"]
fn what_pkcs11_provider_makes_works_through_ours() {
    let bench = Bench::new();
    let uri = |label: &str| format!("pkcs11:token=gateway;object={label};type=private?pin-source=file:gateway.pin");
    let make = "genpkey -propquery provider=pkcs11 -algorithm RSA -pkeyopt rsa_keygen_bits:2048";
    let _ = bench.openssl(&format!("{make} -pkeyopt pkcs11_uri:{} -out made.pem", uri("made"))).ok();
    bench.token().generate("EC:prime256v1", "ec", "01");
    let _ = bench.openssl(&format!("pkey -in {} -out ec.pem", uri("ec"))).ok();
    for name in ["made.pem", "ec.pem"] {
        let file = String::from_utf8(bench.device.read(name)).unwrap();
        assert!(file.starts_with("-----BEGIN PKCS#11 PROVIDER URI-----"), "{file}");
        let request = ["req", "-new", "-key", name, "-passin", "pass:123456", "-subj", "/CN=x", "-out", "x.csr"];
        let _ = bench.device.openssl(&request).ok();
        let _ = bench.plain("req -in x.csr -noout -verify").ok().says("verify OK");
    }
}

/// A device with a token, and pkcs11-provider over our module.
struct Bench {
    device: Device,
}

impl Bench {
    fn new() -> Self {
        let device = Device::with_hold(Hold::Default);
        let _ = Token::new(&device, "gateway", PIN);
        device.write(
            "pkcs11.cnf",
            format!(
                "openssl_conf = init\n[init]\nproviders = providers\n[providers]\ndefault = default_provider\n\
                 pkcs11 = pkcs11_provider\n[default_provider]\nactivate = 1\n[pkcs11_provider]\nactivate = 1\n\
                 pkcs11-module-path = {}\npkcs11-module-cache-pins = cache\n\
                 pkcs11-module-encode-provider-uri-to-pem = true\n\
                 [req]\ndistinguished_name = name\n[name]\n",
                device.module()
            ),
        );
        device.write("message", "a message");
        Self { device }
    }

    fn token(&self) -> Token<'_> {
        Token::existing(&self.device, "gateway", PIN)
    }

    /// Requests a certificate, and makes one, `x.crt`.
    fn signs(&self, key: &str) {
        let _ = self.openssl(&format!("req -new -key {key} -subj /CN=x -out x.csr")).ok();
        let _ = self.plain("req -in x.csr -noout -verify").ok().says("verify OK");
        let own = format!("req -x509 -new -key {key} -subj /CN=localhost -addext subjectAltName=DNS:localhost");
        let _ = self.openssl(&format!("{own} -out x.crt")).ok();
    }

    /// A TLS server has the key.
    fn serves(&self, key: &str) {
        for version in ["-tls1_2", "-tls1_3"] {
            let port = free_port();
            let mut server = self.command(&format!("s_server -rev -accept 127.0.0.1:{port} -cert x.crt -key {key}"));
            let server = Server::start(&mut server, port, &self.device.path("server.log"));
            let connect = format!("s_client -connect 127.0.0.1:{port} -CAfile x.crt -verify_return_error {version}");
            let said = say_hello(self.device.command("openssl").args(connect.split(' ')));
            assert!(said.contains("olleh"), "{said}\n{}", server.output());
        }
    }

    fn openssl(&self, line: &str) -> Output {
        self.command(line).run()
    }

    fn command(&self, line: &str) -> Command {
        let mut command = self.device.command("openssl");
        command.env("OPENSSL_CONF", self.device.path("pkcs11.cnf")).args(line.split_whitespace());
        command
    }

    fn plain(&self, line: &str) -> Output {
        self.device.command("openssl").args(line.split_whitespace()).run()
    }
}
