//! The certification authorities of the demo, for tests: a root CA and a subordinate IoT CA, with keys in files.

use std::fs::create_dir_all;

use crate::device::Device;

const ROOT_CA: &str = include_str!("../pki/root-ca.cnf");
const IOT_CA: &str = include_str!("../pki/iot-ca.cnf");

/// The certificate of the root CA, in the device's folder.
const ROOT: &str = "ca/root-ca/root-ca.crt";
/// The certificate of the IoT CA, in the device's folder.
const IOT: &str = "ca/iot-ca/iot-ca.crt";

/// A root CA and an IoT CA in `ca/` of a device's folder.
pub struct Pki<'a> {
    device: &'a Device,
}

impl<'a> Pki<'a> {
    /// Makes both.
    pub fn new(device: &'a Device) -> Self {
        let this = Self { device };
        for (name, configuration) in [("root-ca", ROOT_CA), ("iot-ca", IOT_CA)] {
            for part in ["private", "db", "issued"] {
                create_dir_all(device.path(&format!("ca/{name}/{part}"))).expect("the CA's folders are new");
            }
            device.write(&format!("ca/{name}/db/issued.txt"), "");
            device.write(&format!("ca/{name}.cnf"), configuration);
            let key = format!("ca/{name}/private/{name}.key");
            this.new_key(&key);
            let (conf, csr) = (format!("ca/{name}.cnf"), format!("ca/{name}.csr"));
            this.openssl(&["req", "-new", "-config", &conf, "-key", &key, "-out", &csr]);
        }
        let root = ["ca", "-batch", "-notext", "-config", "ca/root-ca.cnf"];
        let own = ["-selfsign", "-extensions", "root_ca_ext", "-in", "ca/root-ca.csr", "-out", ROOT];
        this.openssl(&[&root[..], &own[..]].concat());
        let iot = ["-extensions", "iot_ca_ext", "-in", "ca/iot-ca.csr", "-out", IOT];
        this.openssl(&[&root[..], &iot[..]].concat());
        device.write("chain.crt", [device.read(IOT), device.read(ROOT)].concat());
        this
    }

    /// Those that an earlier [`Self::new`] made on this device.
    pub fn existing(device: &'a Device) -> Self {
        Self { device }
    }

    /// The file with both certificates, IoT CA first: what peers are told to trust.
    pub fn chain(&self) -> &'static str {
        "chain.crt"
    }

    /// Signs the device's request `csr`, and checks the certificate `crt` that comes out.
    pub fn sign_device(&self, csr: &str, crt: &str) {
        self.sign("device_ext", csr, crt);
    }

    /// Signs a server's request `csr`, and checks the certificate `crt` that comes out.
    pub fn sign_server(&self, csr: &str, crt: &str) {
        self.sign("server_ext", csr, crt);
    }

    /// Makes a key file and a certificate for the server `localhost`: `NAME.key` and `NAME.crt`.
    pub fn issue_server(&self, name: &str) {
        let (key, csr, crt) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.crt"));
        self.new_key(&key);
        let names = "subjectAltName=DNS:localhost,IP:127.0.0.1";
        let subject = format!("/CN={name}");
        self.openssl(&["req", "-new", "-key", &key, "-subj", &subject, "-addext", names, "-out", &csr]);
        self.sign_server(&csr, &crt);
    }

    /// Makes a key file `NAME.key` with a certificate `NAME.crt` that nobody but itself vouches for.
    pub fn issue_stranger(&self, name: &str) {
        let (key, crt) = (format!("{name}.key"), format!("{name}.crt"));
        self.new_key(&key);
        self.openssl(&["req", "-x509", "-key", &key, "-subj", "/CN=stranger", "-days", "2", "-out", &crt]);
    }

    fn sign(&self, extensions: &str, csr: &str, crt: &str) {
        let ca = ["ca", "-batch", "-notext", "-config", "ca/iot-ca.cnf", "-extensions", extensions];
        self.openssl(&[&ca[..], &["-in", csr, "-out", crt][..]].concat());
        self.openssl(&["verify", "-CAfile", ROOT, "-untrusted", IOT, crt]);
    }

    fn new_key(&self, file: &str) {
        self.openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "group:P-256", "-out", file]);
    }

    /// Plain openssl: a CA knows nothing of our provider.
    fn openssl(&self, arguments: &[&str]) {
        let mut words = vec!["openssl"];
        words.extend(arguments);
        let _ = self.device.run(&words).ok();
    }
}
