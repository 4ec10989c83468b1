//! nginx with its own key in the TPM: no request is lost when a worker is killed, at a reload, or at an upgrade.

use std::time::{Duration, Instant};

use conformance_tests::{Device, Hold, Pki, ResourceManager, Run as _, Token, free_port};

/// Of each phase, by each of two clients.
const REQUESTS: usize = 25;
const PIN: &str = "123456";

#[test]
fn nginx_serves_every_request_with_a_key_file() {
    let device = Device::with_hold(Hold::Default);
    device.new_key_file(["RSA", "rsa_keygen_bits:2048"], "server.pem");
    serves_every_request(&device);
}

// A process that has talked to tpm2-abrmd cannot have its children do so: GLib's D-Bus does not survive a fork. nginx itself
// must therefore not need the TPM, as it would to log in.
#[test]
fn nginx_serves_every_request_through_a_resource_manager() {
    let device = Device::with_hold(Hold::Default);
    let _manager = ResourceManager::start(&device);
    device.new_key_file(["EC", "group:P-256"], "server.pem");
    serves_every_request(&device);
}

#[test]
fn nginx_serves_every_request_with_a_key_on_a_token_with_a_pin() {
    let device = Device::with_hold(Hold::Default);
    Token::new(&device, "gateway", PIN).generate("EC:prime256v1", "tls", "01");
    let pin = device.path("gateway.pin");
    let uri = format!("pkcs11:token=gateway;object=tls;type=private?pin-source=file:{}", pin.display());
    device.wrap_uri(&uri, "server.pem");
    serves_every_request(&device);
}

fn serves_every_request(device: &Device) {
    let nginx = Nginx::start(device);
    device.mark();
    nginx.serves(|| {});
    let workers = nginx.workers();
    assert_eq!(workers.len(), 2);
    signal("KILL", &workers[0]);
    nginx.serves(|| {});
    let workers = nginx.workers();
    nginx.serves(|| signal("HUP", &nginx.master()));
    wait_until("the reload", || workers.iter().all(|worker| !is_running(worker)));
    let old = nginx.master();
    nginx.serves(|| {
        signal("USR2", &old);
        wait_until("the new nginx", || nginx.device.path("nginx.pid.oldbin").exists() && nginx.is_started());
        signal("QUIT", &old);
    });
    wait_until("the old nginx's end", || !is_running(&old));
    assert_ne!(nginx.master(), old);
    let commands = device.commands();
    assert_eq!(commands.iter().filter(|name| *name == "Sign").count(), 4 * 2 * REQUESTS);
    assert!(device.attacks().is_empty(), "{commands:?}");
}

/// A server with two workers, in the background: as a child it would ignore the signal to upgrade.
struct Nginx<'a> {
    device: &'a Device,
    port: u16,
}

impl<'a> Nginx<'a> {
    fn start(device: &'a Device) -> Self {
        let pki = Pki::new(device);
        let request = "req -new -key server.pem -subj /CN=server -addext subjectAltName=DNS:localhost -out server.csr";
        let _ = device.openssl(&request.split(' ').collect::<Vec<_>>()).ok();
        pki.sign_server("server.csr", "server.crt");
        let (port, folder) = (free_port(), device.folder().display());
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary = temporary.map(|kind| format!("{kind}_temp_path {folder}/nginx-{kind};\n")).concat();
        // nginx takes every other variable away from workers, and from an upgraded nginx.
        let variables = [
            "OPENSSL_CONF",
            "OPENSSL_MODULES",
            "KEYRIVET_TCTI",
            "KEYRIVET_STORE",
            "KEYRIVET_CONFIG",
            "DBUS_SESSION_BUS_ADDRESS",
        ];
        let variables = variables.map(|name| format!("env {name};\n")).concat();
        device.write(
            "nginx.conf",
            format!(
                "pid {folder}/nginx.pid;\nerror_log {folder}/nginx.log;\nuser root;\nworker_processes 2;\n{variables}\
                 events {{}}\n\
                 http {{\naccess_log off;\n{temporary}\
                 server {{\nlisten 127.0.0.1:{port} ssl;\nssl_certificate {folder}/server.crt;\n\
                 ssl_certificate_key {folder}/server.pem;\nssl_protocols TLSv1.2 TLSv1.3;\n\
                 ssl_session_tickets off;\n\
                 location / {{ return 200 \"hello over $ssl_protocol\\n\"; }}\n}}\n}}\n"
            ),
        );
        let mut command = device.command("/usr/sbin/nginx");
        command.env("OPENSSL_CONF", device.openssl_conf()).arg("-p").arg(device.folder()).args(["-c", "nginx.conf"]);
        let _ = command.run().ok();
        let this = Self { device, port };
        wait_until("nginx", || this.is_started());
        this
    }

    /// Two clients ask again and again while `happening` happens, and always get an answer.
    fn serves(&self, happening: impl FnOnce()) {
        let url = format!("https://localhost:{}/[1-{REQUESTS}]", self.port);
        let clients = ["1.2", "1.3"].map(|version| {
            let mut curl = self.device.command("curl");
            // A handshake for each request.
            curl.args(["-sS", "--fail-early", "--no-sessionid", "-H", "Connection: close"]);
            curl.args(["--tls-max", version, "--cacert", "chain.crt", &url]);
            curl
        });
        std::thread::scope(|scope| {
            let clients = clients.map(|mut client| scope.spawn(move || client.run()));
            happening();
            for client in clients {
                let output = client.join().expect("the client ends").ok();
                assert_eq!(output.stdout().matches("hello over TLSv1").count(), REQUESTS, "{output}");
            }
        });
    }

    fn master(&self) -> String {
        self.pid("nginx.pid").expect("nginx tells its process id")
    }

    fn pid(&self, file: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.device.path(file)).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    fn is_started(&self) -> bool {
        self.pid("nginx.pid").is_some_and(|master| children(&master).len() == 2)
    }

    fn workers(&self) -> Vec<String> {
        // One that was killed is replaced at once, but not before.
        wait_until("two workers", || self.is_started());
        children(&self.master())
    }
}

impl Drop for Nginx<'_> {
    fn drop(&mut self) {
        let masters = ["nginx.pid", "nginx.pid.oldbin"].map(|file| self.pid(file));
        for master in masters.into_iter().flatten() {
            signal("TERM", &master);
            wait_until("nginx's end", || !is_running(&master));
        }
        if std::thread::panicking() {
            eprintln!("nginx: {}", std::fs::read_to_string(self.device.path("nginx.log")).unwrap_or_default());
        }
    }
}

/// The process ids of a process's children.
fn children(process: &str) -> Vec<String> {
    let list = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    list.split_whitespace().map(str::to_owned).collect()
}

fn is_running(process: &str) -> bool {
    std::path::Path::new(&format!("/proc/{process}")).exists()
}

fn signal(name: &str, process: &str) {
    let _ = std::process::Command::new("kill").args(["-s", name, process]).run().ok();
}

fn wait_until(what: &str, ready: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !ready() {
        assert!(Instant::now() < deadline, "{what} does not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}
