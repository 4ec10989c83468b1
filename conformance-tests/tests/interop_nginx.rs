//! Mutual TLS between nginx and curl, the client's key in the TPM.

use conformance_tests::{Device, Hold, Output, Pki, Run as _, Server, Token, free_port};

const TLS_1_2: [&str; 3] = ["--tlsv1.2", "--tls-max", "1.2"];
const TLS_1_3: [&str; 1] = ["--tlsv1.3"];

#[test]
fn curl_is_let_in_with_a_key_file_through_the_provider() {
    let site = Site::new();
    for kind in [["EC", "group:P-256"], ["EC", "group:P-384"], ["RSA", "rsa_keygen_bits:2048"]] {
        let device = &site.device;
        device.new_key_file(kind, "camera.pem");
        let request = ["req", "-new", "-key", "camera.pem", "-subj", "/CN=camera", "-out", "camera.csr"];
        let _ = device.openssl(&request).ok();
        Pki::existing(device).sign_device("camera.csr", "camera.crt");
        for version in [&TLS_1_2[..], &TLS_1_3] {
            device.mark();
            let _ = site
                .curl_through_provider(version, &["--cert", "camera.crt", "--key", "camera.pem"])
                .ok()
                .says("CN=camera");
            assert_eq!(device.commands().iter().filter(|name| *name == "Sign").count(), 1, "{kind:?}");
        }
    }
}

#[test]
fn curl_is_let_in_with_a_uri_through_the_engine() {
    let site = Site::new();
    let (gateway, sensor) = (Token::new(&site.device, "gateway", "123456"), Token::new(&site.device, "sensor", ""));
    gateway.generate("rsa:2048", "key", "01");
    sensor.generate("EC:prime256v1", "key", "01");
    for (name, token) in [("gateway", &gateway), ("sensor", &sensor)] {
        token.certify(&Pki::existing(&site.device), "key", name);
        let (certificate, uri) = (format!("{name}.crt"), token.uri("key"));
        for version in [&TLS_1_2[..], &TLS_1_3] {
            let key = ["--cert", &certificate, "--engine", "pkcs11", "--key-type", "ENG", "--key", &uri];
            let _ = site.curl(version, &key).ok().says(&format!("CN={name}"));
        }
    }
}

#[test]
fn a_client_without_a_certificate_and_a_stranger_are_refused() {
    let site = Site::new();
    Pki::existing(&site.device).issue_stranger("stranger");
    for version in [&TLS_1_2[..], &TLS_1_3] {
        let _ = site.curl(version, &[]).fails();
        let _ = site.curl(version, &["--cert", "stranger.crt", "--key", "stranger.key"]).fails();
    }
}

struct Site {
    // Ended before the device, whose folder it uses.
    _server: Server,
    url: String,
    device: Device,
}

impl Site {
    /// A site that asks for certificates of the IoT CA.
    fn new() -> Self {
        let device = Device::with_hold(Hold::Default);
        let pki = Pki::new(&device);
        pki.issue_server("server");
        let (port, folder) = (free_port(), device.folder().display());
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary = temporary.map(|kind| format!("{kind}_temp_path {folder}/nginx-{kind};\n")).concat();
        let chain = pki.chain();
        device.write(
            "nginx.conf",
            format!(
                "daemon off;\npid {folder}/nginx.pid;\nerror_log stderr;\nuser root;\nevents {{}}\n\
                 http {{\naccess_log off;\n{temporary}\
                 server {{\nlisten 127.0.0.1:{port} ssl;\nssl_certificate {folder}/server.crt;\n\
                 ssl_certificate_key {folder}/server.key;\nssl_protocols TLSv1.2 TLSv1.3;\n\
                 ssl_client_certificate {folder}/{chain};\nssl_verify_client on;\nssl_verify_depth 2;\n\
                 location / {{ return 200 \"hello $ssl_client_s_dn over $ssl_protocol\"; }}\n}}\n}}\n"
            ),
        );
        let mut command = device.command("nginx");
        command.arg("-p").arg(device.folder()).args(["-e", "stderr", "-c", "nginx.conf"]);
        let server = Server::start(&mut command, port, &device.path("nginx.log"));
        Self { url: format!("https://localhost:{port}/"), _server: server, device }
    }

    fn curl(&self, version: &[&str], key: &[&str]) -> Output {
        self.device.command("curl").args(self.arguments(version, key)).run()
    }

    fn curl_through_provider(&self, version: &[&str], key: &[&str]) -> Output {
        let mut command = self.device.command("curl");
        command.env("OPENSSL_CONF", self.device.openssl_conf()).args(self.arguments(version, key)).run()
    }

    fn arguments<'a>(&'a self, version: &[&'a str], key: &[&'a str]) -> Vec<&'a str> {
        [&["-sSf", "--cacert", "chain.crt"][..], version, key, &[&self.url]].concat()
    }
}
