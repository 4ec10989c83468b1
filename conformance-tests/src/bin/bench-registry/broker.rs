//! A broker with or without the plugin, and the registry that it asks.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{Error, Result};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use conformance_tests::free_port;
use keyrivet_registry::store::{NewDevice, Store};
use keyrivet_registry::{Credential, Registry, RegistryName, Timestamp};
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::Signer;

const PREFIX: &str = "projects/bench/locations/eu/registries/bench";

/// A registry with devices of either algorithm, all with one key.
pub(crate) struct Fleet {
    folder: tempfile::TempDir,
    keys: BTreeMap<&'static str, PKey<Private>>,
    tokens: RefCell<BTreeMap<String, String>>,
}

impl Fleet {
    pub(crate) fn new(devices: usize) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("P-256");
        let keys = BTreeMap::from([
            ("RS256", PKey::from_rsa(Rsa::generate(2048).expect("an RSA key")).expect("a key")),
            ("ES256", PKey::from_ec_key(EcKey::generate(&group).expect("an EC key")).expect("a key")),
        ]);
        let this = Self { folder, keys, tokens: RefCell::default() };
        this.fill(devices).expect("the registry takes the devices");
        this
    }

    fn fill(&self, devices: usize) -> keyrivet_registry::Result<()> {
        let store = Store::open(&self.store())?;
        let (name, now) = (RegistryName::parse(PREFIX)?, Timestamp::now());
        let ca_certificates = Vec::new();
        store.create_registry(&Registry {
            name: name.clone(),
            ca_certificates,
            mqtt: true,
            http: true,
            created: now,
        })?;
        for (algorithm, key) in &self.keys {
            let pem = key.public_key_to_pem().expect("a public key");
            let credential = Credential::parse(&String::from_utf8_lossy(&pem), None, None)?;
            for index in 0..devices {
                let name = name.device(&id(algorithm, index))?;
                let credentials = vec![credential.clone()];
                let new = NewDevice { name, gateway: None, credentials, blocked: false, metadata: BTreeMap::new() };
                let _ = store.create_device(&new, now)?;
            }
        }
        Ok(())
    }

    fn store(&self) -> String {
        self.folder.path().join("registry.db").display().to_string()
    }

    /// A device's client id.
    pub(crate) fn device(&self, algorithm: &str, index: usize) -> String {
        format!("{PREFIX}/devices/{}", id(algorithm, index))
    }

    /// A token of any of its devices: the key is the same, and the device is not in the token.
    pub(crate) fn token(&self, algorithm: &str) -> String {
        let mut tokens = self.tokens.borrow_mut();
        tokens.entry(algorithm.to_owned()).or_insert_with(|| self.sign(algorithm)).clone()
    }

    fn sign(&self, algorithm: &str) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
        let claims = format!(r#"{{"aud":"bench","iat":{now},"exp":{}}}"#, now + 3600);
        let header = format!(r#"{{"alg":"{algorithm}","typ":"JWT"}}"#);
        let text = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
        let mut signer = Signer::new(MessageDigest::sha256(), &self.keys[algorithm]).expect("a signer");
        let mut signature = signer.sign_oneshot_to_vec(text.as_bytes()).expect("a signature");
        if algorithm == "ES256" {
            let pair = EcdsaSig::from_der(&signature).expect("a signature");
            let number = |number: &openssl::bn::BigNumRef| number.to_vec_padded(32).expect("32 bytes");
            signature = [number(pair.r()), number(pair.s())].concat();
        }
        format!("{text}.{}", base64url(&signature))
    }
}

fn id(algorithm: &str, index: usize) -> String {
    format!("{}-{index}", algorithm.to_lowercase())
}

fn base64url(bytes: &[u8]) -> String {
    openssl::base64::encode_block(bytes).replace('+', "-").replace('/', "_").replace('=', "")
}

/// A running mosquitto.
pub(crate) struct Broker {
    process: Child,
    pub(crate) port: u16,
}

impl Broker {
    pub(crate) fn start(fleet: &Fleet, plugin: Option<&Path>) -> Result<Self> {
        let port = free_port();
        let folder = fleet.folder.path();
        std::fs::write(folder.join("acl"), "topic read #\n")?;
        let mut text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nlog_type error\nmax_queued_messages 0\n\
             set_tcp_nodelay true\n"
        );
        if let Some(plugin) = plugin {
            let (plugin, acl) = (plugin.canonicalize()?, folder.join("acl"));
            let lines = format!(
                "plugin {}\nplugin_opt_store {}\nacl_file {}\n",
                plugin.display(),
                fleet.store(),
                acl.display()
            );
            text.push_str(&lines);
        }
        let file = folder.join(format!("mosquitto-{port}.conf"));
        std::fs::write(&file, text)?;
        // A processor of its own, where there are two: who is woken by its answers must not take its place.
        let mut command = Command::new("taskset");
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env("PATH", format!("{path}:/usr/sbin"))
            .args(["-c", "0", "mosquitto", "-c"])
            .arg(file)
            .stdin(Stdio::null());
        let process = command.spawn()?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > deadline {
                return Err(Error::other("mosquitto does not listen"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let this = Self { process, port };
        this.settle();
        Ok(this)
    }

    /// Processor time of all its threads so far.
    pub(crate) fn processor(&self) -> Result<Duration> {
        let mut nanoseconds = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            nanoseconds += text.split(' ').next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Resident memory in bytes.
    pub(crate) fn memory(&self) -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.process.id()))?;
        let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
        pages.map(|pages| pages * 4096).ok_or_else(|| Error::other("statm cannot be read"))
    }

    /// Gives its threads time to write what they have gathered.
    pub(crate) fn settle(&self) {
        std::thread::sleep(Duration::from_millis(600));
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
