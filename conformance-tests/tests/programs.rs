//! Programs that take a key file: with one of the TPM they are servers and clients as with any other, in TLS with
//! OpenSSL without us as their peer.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;

use conformance_tests::{Device, Hold, Pki, Run as _, Server, Token, free_port, say_hello};

const PIN: &str = "123456";
/// Two key files: one holds a key, the other the URI of a key on a token with a PIN.
const FILES: [&str; 2] = ["key.pem", "wrapped.pem"];

#[test]
fn python_is_a_server_and_a_client() {
    let bench = Bench::new();
    bench.device.write("tls.py", include_str!("../programs/tls.py"));
    let python = |role: &str, port: u16, file: &str, pin: &[&str]| {
        let certificate = Bench::certificate(file, role);
        let mut command = bench.program("python3");
        command.args(["tls.py", role, &port.to_string(), &certificate, file]).args(pin);
        command
    };
    // The third asks for its PIN, which load_cert_chain() can be given.
    for (file, pin) in [(FILES[0], &[][..]), (FILES[1], &[]), ("asking.pem", &[PIN])] {
        let port = free_port();
        let server = python("server", port, file, pin);
        bench.is_believed_as_server(server, port);
        let (port, _server) = bench.peer();
        let mut client = python("client", port, file, pin);
        bench.signs_once(|| drop(client.run().ok().silent().says("olleh")));
    }
    let mut refused = python("client", 1, "asking.pem", &["wrong1"]);
    let _ = refused.run().fails_with("ssl.SSLError");
}

#[test]
fn curl_is_a_client() {
    let bench = Bench::new();
    for file in FILES {
        let (port, _server) = bench.peer_that_reports();
        let mut curl = bench.program("curl");
        let certificate = Bench::certificate(file, "client");
        let url = format!("https://localhost:{port}/");
        curl.args(["-sSf", "--cacert", "chain.crt", "--cert", &certificate, "--key", file, &url]);
        bench.signs_once(|| drop(curl.run().ok().says("CN=client")));
    }
    // In one file with the certificate.
    let (port, _server) = bench.peer_that_reports();
    bench.device.write("both.pem", [bench.device.read("key-client.crt"), bench.device.read("key.pem")].concat());
    let url = format!("https://localhost:{port}/");
    let mut curl = bench.program("curl");
    curl.args(["-sSf", "--cacert", "chain.crt", "--cert", "both.pem", &url]);
    bench.signs_once(|| drop(curl.run().ok().says("CN=client")));
}

#[test]
fn mosquitto_is_a_broker_and_a_client() {
    let bench = Bench::new();
    for file in FILES {
        let port = free_port();
        bench.device.write(
            "mosquitto.conf",
            format!(
                "listener {port} 127.0.0.1\ncafile chain.crt\ncertfile {}\nkeyfile {file}\nuser root\n\
                 require_certificate true\nuse_identity_as_username true\n",
                Bench::certificate(file, "server")
            ),
        );
        let mut broker = bench.program("mosquitto");
        broker.args(["-v", "-c", "mosquitto.conf"]);
        let broker = Server::start(&mut broker, port, &bench.device.path("mosquitto.log"));
        let publish = |mut client: Command, certificate: &str, key: &str| {
            client.args([
                "-h",
                "localhost",
                "-p",
                &port.to_string(),
                "--cafile",
                "chain.crt",
                "-t",
                "t",
                "-m",
                "hello",
            ]);
            let _ = client.args(["-q", "1", "--cert", certificate, "--key", key]).run().ok();
        };
        // A client without us first: the broker's signature is its own.
        let client = bench.device.command("mosquitto_pub");
        bench.signs_once(|| publish(client, "peer-client.crt", "peer.key"));
        bench.device.mark();
        publish(bench.program("mosquitto_pub"), &Bench::certificate(file, "client"), file);
        assert_eq!(bench.signatures(), 2);
        assert!(broker.output().contains("'client'"), "{}", broker.output());
    }
}

#[test]
fn stunnel_is_a_server_and_a_client() {
    let bench = Bench::new();
    let stunnel = |service: &str| {
        let text = format!("foreground = yes\npid =\nsyslog = no\n[service]\n{service}");
        bench.device.write("stunnel.conf", text);
        let mut command = bench.program("stunnel4");
        command.arg(bench.device.path("stunnel.conf"));
        command
    };
    bench.device.write("answer.sh", "read word\necho \"$word\" | rev\n");
    for file in FILES {
        let port = free_port();
        let own = |role| format!("cert = {}\nkey = {file}\n", Bench::certificate(file, role));
        let answer = format!("exec = /bin/sh\nexecArgs = sh {}\n", bench.device.path("answer.sh").display());
        let server = stunnel(&format!("accept = 127.0.0.1:{port}\n{answer}{}", own("server")));
        bench.is_believed_as_server(server, port);
        let ((peer, _server), port) = (bench.peer(), free_port());
        let trust = "CAfile = chain.crt\nverifyChain = yes\ncheckHost = localhost\n";
        let ends = format!("client = yes\naccept = 127.0.0.1:{port}\nconnect = 127.0.0.1:{peer}\n");
        let mut client = stunnel(&format!("{ends}{trust}{}", own("client")));
        let client = Server::start(&mut client, port, &bench.device.path("stunnel.log"));
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.write_all(b"hello\n").unwrap();
        let mut answer = [0; 16];
        let length = stream.read(&mut answer).unwrap();
        assert_eq!(String::from_utf8_lossy(&answer[..length]).trim(), "olleh", "{}", client.output());
    }
}

/// Key files with certificates, and a peer.
struct Bench {
    device: Device,
}

impl Bench {
    fn new() -> Self {
        let device = Device::with_hold(Hold::Default);
        let token = Token::new(&device, "gateway", PIN);
        token.generate("rsa:2048", "tls", "01");
        let uri = "pkcs11:token=gateway;object=tls;type=private";
        device.wrap_uri(&format!("{uri}?pin-source=file:gateway.pin"), FILES[1]);
        device.wrap_uri(uri, "asking.pem");
        device.new_key_file(["EC", "group:P-256"], FILES[0]);
        let pki = Pki::new(&device);
        pki.issue_server("peer");
        let _ =
            device.run(&["openssl", "req", "-new", "-key", "peer.key", "-subj", "/CN=peer", "-out", "peer.csr"]).ok();
        pki.sign_device("peer.csr", "peer-client.crt");
        for file in FILES {
            for role in ["server", "client"] {
                let (csr, crt) = (format!("{role}.csr"), Self::certificate(file, role));
                let subject = format!("/CN={role}");
                let names = "subjectAltName=DNS:localhost";
                let request = ["req", "-new", "-key", file, "-subj", &subject, "-addext", names, "-out", &csr];
                let _ = device.openssl(&request).ok();
                if role == "server" { pki.sign_server(&csr, &crt) } else { pki.sign_device(&csr, &crt) }
            }
        }
        Self { device }
    }

    /// The certificate for a key file.
    fn certificate(file: &str, role: &str) -> String {
        let key = if file == FILES[0] { "key" } else { "token" };
        format!("{key}-{role}.crt")
    }

    /// A program that has the provider by configuration.
    fn program(&self, name: &str) -> Command {
        let mut command = self.device.command(name);
        command.env("OPENSSL_CONF", self.device.openssl_conf());
        command
    }

    /// A server without us, which wants a certificate of the client and says everything backwards.
    fn peer(&self) -> (u16, Server) {
        self.start_peer("-rev")
    }

    /// Another, which tells by HTTP what it knows of the client.
    fn peer_that_reports(&self) -> (u16, Server) {
        self.start_peer("-www")
    }

    fn start_peer(&self, way: &str) -> (u16, Server) {
        let port = free_port();
        let listen = format!("s_server {way} -accept 127.0.0.1:{port} -cert peer.crt -key peer.key");
        let mut command = self.device.command("openssl");
        command.args(listen.split(' ')).args(["-Verify", "2", "-verify_return_error", "-CAfile", "chain.crt"]);
        (port, Server::start(&mut command, port, &self.device.path("peer.log")))
    }

    /// Starts the server and talks to it.
    fn is_believed_as_server(&self, mut server: Command, port: u16) {
        let server = Server::start(&mut server, port, &self.device.path("server.log"));
        self.signs_once(|| {
            let connect = format!("s_client -connect 127.0.0.1:{port} -verify_hostname localhost -CAfile chain.crt");
            let mut client = self.device.command("openssl");
            let said = say_hello(client.args(connect.split(' ')).arg("-verify_return_error"));
            let believed = said.contains("Verify return code: 0 (ok)") && said.contains("olleh");
            assert!(believed, "{said}\nserver: {}", server.output());
        });
    }

    fn signs_once(&self, work: impl FnOnce()) {
        self.device.mark();
        work();
        assert_eq!(self.signatures(), 1);
    }

    fn signatures(&self) -> usize {
        self.device.commands().iter().filter(|name| *name == "Sign").count()
    }
}
