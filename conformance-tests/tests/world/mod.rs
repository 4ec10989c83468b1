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

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use conformance_tests::Cluster;
use keyrivet_registry::store::NewDevice;
use keyrivet_registry::{AuthMethod, Credential, DeviceName, Fleet, Registry, RegistryName, Timestamp};

pub(crate) const PROJECT: &str = "my-project";

/// A folder with keys and certificates, and a registry `g`.
pub(crate) struct World {
    folder: tempfile::TempDir,
    pub(crate) url: String,
    cluster: Option<Cluster>,
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
        Self { folder, url, cluster, fleet, now: Timestamp::now(), serial: Cell::new(1) }
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

    pub(crate) fn openssl(&self, arguments: &[&str]) -> Vec<u8> {
        openssl(self.folder.path(), arguments)
    }
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
