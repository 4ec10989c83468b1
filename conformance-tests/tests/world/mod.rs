//! A registry with CAs, devices and tokens made by the openssl command, on either database.

#![allow(dead_code, reason = "each test uses a part of it")]

/// Makes two tests of each function: one with an SQLite database, one with PostgreSQL.
#[macro_export]
macro_rules! on_both_databases {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[test]
            fn $name() {
                super::$name(&super::world::World::sqlite());
            })+
        }
        mod postgresql {
            $(#[test]
            fn $name() {
                super::$name(&super::world::World::postgresql());
            })+
        }
    };
}

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use conformance_tests::{Artefact, Cluster, Output, Run as _, Server, free_port};
use keyrivet_registry::store::NewDevice;
use keyrivet_registry::{AuthMethod, Change, Credential, DeviceName, Fleet, Registry, RegistryName, Timestamp};
use serde_json::Value;

pub(crate) const PROJECT: &str = "my-project";

/// A folder with keys and certificates, and a registry `g`.
pub(crate) struct World {
    folder: tempfile::TempDir,
    pub(crate) url: String,
    cluster: RefCell<Option<Cluster>>,
    pub(crate) fleet: Fleet,
    pub(crate) now: Timestamp,
    serial: Cell<u32>,
}

impl World {
    /// With an SQLite database in the folder.
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = folder.path().join("registry.db").display().to_string();
        Self::on(url, folder, None)
    }

    /// With a PostgreSQL cluster of its own.
    pub(crate) fn postgresql() -> Self {
        let cluster = Cluster::start();
        Self::on(cluster.url(), tempfile::tempdir().expect("a temporary folder"), Some(cluster))
    }

    fn on(url: String, folder: tempfile::TempDir, cluster: Option<Cluster>) -> Self {
        let fleet = Fleet::open(&url).expect("the store opens");
        Self { folder, url, cluster: RefCell::new(cluster), fleet, now: Timestamp::now(), serial: Cell::new(1) }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect(name)
    }

    /// A registry whose CA certificates are in these files.
    pub(crate) fn registry(&self, id: &str, cas: &[&str]) -> RegistryName {
        let name = registry_name(id);
        let ca_certificates = cas.iter().map(|ca| self.read(ca)).collect();
        let new = Registry { name: name.clone(), ca_certificates, mqtt: true, http: true, created: self.now };
        self.fleet.store().create_registry(&new).expect("the registry is new");
        name
    }

    /// A device with these public keys or certificates (files), or a gateway.
    pub(crate) fn device(
        &self,
        registry: &RegistryName,
        id: &str,
        keys: &[&str],
        gateway: Option<AuthMethod>,
    ) -> DeviceName {
        let credentials =
            keys.iter().map(|file| Credential::parse(&self.read(file), None, None).expect(file)).collect();
        let name = registry.device(id).expect("a device id");
        let new = NewDevice { name, gateway, credentials, blocked: false, metadata: Default::default() };
        self.fleet.store().create_device(&new, self.now).expect("the device is new").name
    }

    /// A private key `NAME.key`, its public key `NAME.pub`. RSA for RS256 and PS256, else the curve.
    pub(crate) fn key(&self, name: &str, algorithm: &str) {
        let (key, public) = (format!("{name}.key"), format!("{name}.pub"));
        let option = match algorithm {
            "ES256" => "group:P-256",
            "ES384" => "group:P-384",
            _ => "rsa_keygen_bits:2048",
        };
        let kind = if algorithm.starts_with("ES") { "EC" } else { "RSA" };
        self.openssl(&["genpkey", "-algorithm", kind, "-pkeyopt", option, "-out", &key]);
        self.openssl(&["pkey", "-in", &key, "-pubout", "-out", &public]);
    }

    /// A CA: `NAME.key`, `NAME.crt`.
    pub(crate) fn ca(&self, name: &str) {
        self.key(name, "ES256");
        let (key, crt, subject) = (format!("{name}.key"), format!("{name}.crt"), format!("/CN={name}"));
        self.openssl(&["req", "-x509", "-key", &key, "-subj", &subject, "-days", "2", "-out", &crt]);
    }

    /// A certificate `NAME.crt` for `NAME.key`, signed by `ca`, with these lines of an extension section.
    pub(crate) fn certify(&self, name: &str, subject: &str, ca: &str, extensions: &str) {
        let file = |suffix: &str| format!("{name}.{suffix}");
        let (ca_crt, ca_key) = (format!("{ca}.crt"), format!("{ca}.key"));
        std::fs::write(self.path("ext"), extensions).expect("a file");
        self.serial.set(self.serial.get() + 1);
        let serial = self.serial.get().to_string();
        let subject = format!("/CN={subject}");
        self.openssl(&["req", "-new", "-key", &file("key"), "-subj", &subject, "-out", &file("csr")]);
        let sign = ["x509", "-req", "-in", &file("csr"), "-CA", &ca_crt, "-CAkey", &ca_key, "-set_serial", &serial];
        self.openssl(&[&sign[..], &["-days", "1", "-extfile", "ext", "-out", &file("crt")]].concat());
    }

    /// DER of a certificate.
    pub(crate) fn der(&self, name: &str) -> Vec<u8> {
        self.openssl(&["x509", "-in", name, "-outform", "DER"])
    }

    /// A token with the usual claims, of `life` seconds from `now + begin` on.
    pub(crate) fn token(&self, key: &str, algorithm: &str, begin: i64, life: i64) -> String {
        let issued = self.now.seconds() + begin;
        self.signed(key, algorithm, &format!(r#"{{"aud":"{PROJECT}","iat":{issued},"exp":{}}}"#, issued + life))
    }

    /// A token with these claims.
    pub(crate) fn signed(&self, key: &str, algorithm: &str, claims: &str) -> String {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{algorithm}","typ":"JWT"}}"#));
        let unsigned = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
        std::fs::write(self.path("unsigned"), &unsigned).expect("a file");
        let key = format!("{key}.key");
        let signature = match algorithm {
            "RS256" => self.openssl(&["dgst", "-sha256", "-sign", &key, "unsigned"]),
            "PS256" => {
                let padding = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32"];
                self.openssl(&[&["dgst", "-sha256", "-sign", &key], &padding[..], &["unsigned"]].concat())
            }
            "ES256" => raw_ecdsa(&self.openssl(&["dgst", "-sha256", "-sign", &key, "unsigned"]), 32),
            "ES384" => raw_ecdsa(&self.openssl(&["dgst", "-sha384", "-sign", &key, "unsigned"]), 48),
            other => panic!("no such algorithm: {other}"),
        };
        format!("{unsigned}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The server's program with this world's registry, in its folder.
    pub(crate) fn server_command(&self) -> Command {
        let mut command = Command::new(Artefact::Server.path());
        command.current_dir(self.folder.path()).env("KEYRIVET_REGISTRY_STORE", &self.url);
        command.env("KEYRIVET_PROJECT", PROJECT).env("KEYRIVET_REGION", "us-central1").env("KEYRIVET_REGISTRY", "g");
        command
    }

    /// Restarts PostgreSQL.
    pub(crate) fn restart_database(&self) {
        self.cluster.borrow_mut().as_mut().expect("there is a cluster").restart();
    }

    /// Stops PostgreSQL where it is, or lets it go on.
    pub(crate) fn freeze_database(&self, frozen: bool) {
        self.cluster.borrow().as_ref().expect("there is a cluster").freeze(frozen);
    }

    /// Runs statements in the database, past the registry.
    pub(crate) fn sql(&self, statements: &str) {
        match &*self.cluster.borrow() {
            Some(cluster) => cluster.sql(statements),
            None => rusqlite::Connection::open(&self.url).unwrap().execute_batch(statements).unwrap(),
        }
    }

    pub(crate) fn openssl(&self, arguments: &[&str]) -> Vec<u8> {
        openssl(self.folder.path(), arguments)
    }
}

/// `keyrivet-server serve` on a world's registry.
pub(crate) struct RegistryServer<'a> {
    world: &'a World,
    pub(crate) process: Server,
    /// Where the bridge listens.
    pub(crate) bridge: String,
    hooks: String,
}

impl<'a> RegistryServer<'a> {
    pub(crate) fn start(world: &'a World, options: &[&str]) -> Self {
        let address = || format!("127.0.0.1:{}", free_port());
        let (bridge, hooks) = (address(), address());
        let mut command = world.server_command();
        command.args(["serve", "--listen", &bridge, "--hooks", &hooks]).args(options);
        let port = hooks.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
        let process = Server::start(&mut command, port, &world.path("server.log"));
        Self { world, process, bridge, hooks }
    }

    /// The address of a hook.
    pub(crate) fn hook(&self, path: &str) -> String {
        format!("http://{}{path}", self.hooks)
    }

    /// A command of the same program, on the same store.
    pub(crate) fn command(&self, words: &[&str]) -> Output {
        self.world.server_command().args(words).run()
    }

    /// POSTs as the seed does, and answers status and body.
    pub(crate) fn post(&self, token: &str, path: &str, body: &Value) -> (u16, Value) {
        std::fs::write(self.world.path("body"), body.to_string()).expect("a file");
        self.curl(token, path, &["-X", "POST", "-H", "content-type: application/json", "--data", "@body"])
    }

    pub(crate) fn get(&self, token: &str, path: &str) -> (u16, Value) {
        self.curl(token, path, &["-H", "cache-control: no-cache"])
    }

    fn curl(&self, token: &str, path: &str, options: &[&str]) -> (u16, Value) {
        let mut curl = Command::new("curl");
        curl.current_dir(self.world.path("")).args(["-sS", "-w", "\n%{http_code}"]).args(options);
        if !token.is_empty() {
            curl.args(["-H", &format!("Authorization: Bearer {token}")]);
        }
        let text = curl.arg(format!("http://{}/v1/{path}", self.bridge)).run().ok().stdout();
        let (body, code) = text.rsplit_once('\n').expect("curl writes the status last");
        (code.parse().expect("a status"), serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {text}")))
    }

    /// POSTs JSON to a hook with this header besides, and answers the JSON.
    pub(crate) fn ask(&self, path: &str, header: &str, body: &Value) -> Value {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-f", "-H", "content-type: application/json", "-H", header]);
        let text = curl.args(["--data", &body.to_string(), &self.hook(path)]).run().ok().stdout();
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}"))
    }

    /// POSTs a form to a hook, and answers the text.
    pub(crate) fn form(&self, path: &str, fields: &[(&str, &str)]) -> String {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-f"]);
        for (name, value) in fields {
            curl.args(["--data-urlencode", &format!("{name}={value}")]);
        }
        curl.arg(self.hook(path)).run().ok().stdout()
    }

    /// What curl prints when it is given these words.
    pub(crate) fn plain(&self, words: &str) -> String {
        Command::new("curl").arg("-sS").args(words.split(' ').filter(|word| !word.is_empty())).run().ok().stdout()
    }

    /// Until the server has learnt of what was changed, and written what it knows: two of its ticks.
    pub(crate) fn wait_for_a_tick(&self) {
        std::thread::sleep(std::time::Duration::from_millis(1200));
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        self.process.output()
    }
}

/// What a server or broker does about twice a second: the journal is written, changes are learnt.
pub(crate) fn tick(fleet: &Fleet, now: Timestamp) -> Vec<Change> {
    fleet.write(now).expect("the journal is written");
    fleet.learn().expect("changes are learnt")
}

pub(crate) fn registry_name(id: &str) -> RegistryName {
    RegistryName::new(PROJECT, "us-central1", id).expect("a registry id")
}

fn openssl(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").current_dir(folder).args(arguments).stdin(Stdio::null()).output();
    let output = output.expect("openssl starts");
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// DER's two integers as two numbers of `size` bytes (RFC 7518, section 3.4).
fn raw_ecdsa(der: &[u8], size: usize) -> Vec<u8> {
    let mut raw = Vec::new();
    let mut rest = &der[2..];
    for _ in 0..2 {
        let length = usize::from(rest[1]);
        let number = &rest[2..2 + length];
        let number = number.strip_prefix(&[0]).unwrap_or(number);
        raw.resize(raw.len() + size - number.len(), 0);
        raw.extend_from_slice(number);
        rest = &rest[2 + length..];
    }
    raw
}
