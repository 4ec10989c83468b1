//! A registry and a mosquitto that asks it, with keys, certificates and tokens of devices that have no TPM.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

pub mod client;

use std::cell::RefCell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use conformance_tests::{Artefact, Device, Output, Run as _, Server, free_port};
use keyrivet_registry::store::{AuditFilter, NewDevice};
use keyrivet_registry::{AuthMethod, Credential, DeviceName, Fleet, Registry, RegistryName, Timestamp};
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Name};

pub const PROJECT: &str = "my-project";
const PATIENCE: Duration = Duration::from_secs(10);

/// A registry `g` with its store in a device's folder, and a broker with the plugin.
pub struct World<'a> {
    pub device: &'a Device,
    pub fleet: Fleet,
    port: u16,
    broker: RefCell<Option<Server>>,
    configuration: RefCell<String>,
}

impl<'a> World<'a> {
    /// The broker listens in the clear. Clients that are no devices may do what the broker's own file allows: all.
    pub fn new(device: &'a Device) -> Self {
        Self::with(device, "")
    }

    /// With more lines in the broker's configuration.
    pub fn with(device: &'a Device, lines: &str) -> Self {
        Self::on(device, &device.path("registry.db").to_string_lossy(), lines)
    }

    /// With another database.
    pub fn on(device: &'a Device, store: &str, lines: &str) -> Self {
        let fleet = Fleet::open(store).expect("the store opens");
        let port = free_port();
        device.write("acl", "topic readwrite #\n");
        let configuration = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nacl_file acl\nuser root\nplugin {}\n\
             plugin_opt_store {store}\n{lines}\n",
            Artefact::MosquittoPlugin.path().display(),
        );
        let this = Self { device, fleet, port, broker: RefCell::default(), configuration: RefCell::new(configuration) };
        let _ = this.registry("g", &[]);
        this.start();
        this
    }

    /// From its next start on each of its listeners has settings of its own.
    pub fn per_listener(&self) {
        let mut configuration = self.configuration.borrow_mut();
        *configuration = format!("per_listener_settings true\n{configuration}");
    }

    pub fn start(&self) {
        self.device.write("mosquitto.conf", &*self.configuration.borrow());
        // Another version than the installed one, where the environment names it.
        let mosquitto = std::env::var("KEYRIVET_MOSQUITTO").unwrap_or_else(|_| "mosquitto".into());
        let mut command = self.device.command(&mosquitto);
        command.args(["-v", "-c", "mosquitto.conf"]);
        let log = format!("broker-{}.log", self.port);
        *self.broker.borrow_mut() = Some(Server::start(&mut command, self.port, &self.device.path(&log)));
    }

    /// As if the machine had lost it.
    pub fn kill(&self) {
        let id = self.broker.borrow().as_ref().expect("the broker runs").process_id().to_string();
        let _ = std::process::Command::new("kill").args(["-KILL", &id]).status();
        *self.broker.borrow_mut() = None;
    }

    pub fn stop(&self) {
        *self.broker.borrow_mut() = None;
    }

    pub fn process_id(&self) -> u32 {
        self.broker.borrow().as_ref().expect("the broker runs").process_id()
    }

    pub fn port(&self) -> String {
        self.port.to_string()
    }

    pub fn port_number(&self) -> u16 {
        self.port
    }

    /// What the broker has said since its last start.
    pub fn log(&self) -> String {
        self.broker.borrow().as_ref().map(Server::output).unwrap_or_default()
    }

    /// Waits until the broker has said this.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        wait_until(&format!("'{text}' in the broker's log"), || self.log().contains(text), || self.log());
    }

    /// A registry with these CA certificates (PEM).
    pub fn registry(&self, id: &str, cas: &[String]) -> RegistryName {
        let name = registry_name(id);
        let created = Timestamp::now();
        let new = Registry { name: name.clone(), ca_certificates: cas.to_vec(), mqtt: true, http: true, created };
        self.fleet.store().create_registry(&new).expect("the registry is new");
        name
    }

    /// A device of registry `g` with this public key.
    pub fn add(&self, id: &str, key: &Key) -> DeviceName {
        self.add_to("g", id, &[&key.public_pem()], None)
    }

    /// A gateway of registry `g`.
    pub fn add_gateway(&self, id: &str, key: &Key, method: AuthMethod) -> DeviceName {
        self.add_to("g", id, &[&key.public_pem()], Some(method))
    }

    pub fn add_to(&self, registry: &str, id: &str, keys: &[&str], gateway: Option<AuthMethod>) -> DeviceName {
        let credentials = keys.iter().map(|pem| Credential::parse(pem, None, None).expect("a key")).collect();
        let name = registry_name(registry).device(id).expect("a device's id");
        let new = NewDevice { name, gateway, credentials, blocked: false, metadata: Default::default() };
        self.fleet.store().create_device(&new, Timestamp::now()).expect("the device is new").name
    }

    /// mosquitto_pub, as this device and with this password.
    pub fn publish(&self, client_id: &str, password: &str, arguments: &[&str]) -> Output {
        let port = self.port();
        let who = ["-h", "127.0.0.1", "-p", &port, "-i", client_id, "-u", "unused", "-P", password];
        self.device.command("mosquitto_pub").args(who).args(arguments).run()
    }

    /// Connects, publishes an event with QoS 1 and leaves.
    pub fn connect(&self, client_id: &str, password: &str) -> Output {
        let id = client_id.rsplit('/').next().unwrap_or_default();
        self.publish(client_id, password, &["-q", "1", "-t", &format!("/devices/{id}/events"), "-m", "hello"])
    }

    /// Starts mosquitto_sub; what it prints goes to the file `name`. Returns when its subscriptions stand.
    pub fn subscribe(&self, name: &str, who: &[&str], topics: &[&str]) -> Subscriber<'_> {
        let port = self.port();
        let mut command = self.device.command("mosquitto_sub");
        let _ = command.args(["-h", "127.0.0.1", "-p", &port, "-d", "-v", "-q", "1"]).args(who);
        for topic in topics {
            let _ = command.args(["-t", topic]);
        }
        Subscriber::start(self.device, name, command)
    }

    /// A subscriber that is no device.
    pub fn listen(&self, topics: &[&str]) -> Subscriber<'_> {
        self.subscribe("listener", &["-i", "listener"], topics)
    }

    /// The reasons in the audit trail for refusing a device, oldest first.
    pub fn refusals(&self, name: &DeviceName) -> Vec<String> {
        let filter =
            AuditFilter { device: Some(name.id.to_string()), refused: true, limit: 1000, ..AuditFilter::default() };
        let rows = self.fleet.store().audit(&name.registry, &filter).expect("the audit trail can be read");
        rows.into_iter().map(|(_, row)| format!("{}: {}", row.action, row.reason)).collect()
    }

    /// Waits until the audit trail says this of a device.
    #[track_caller]
    pub fn wait_for_refusal(&self, name: &DeviceName, text: &str) {
        let said = || self.refusals(name).iter().any(|reason| reason.contains(text));
        wait_until(&format!("'{text}' in the audit trail"), said, || {
            format!("{:#?}\n{}", self.refusals(name), self.log())
        });
    }
}

/// A mosquitto_sub.
pub struct Subscriber<'a> {
    device: &'a Device,
    name: String,
    process: std::process::Child,
}

impl<'a> Subscriber<'a> {
    fn start(device: &'a Device, name: &str, mut command: std::process::Command) -> Self {
        let file = std::fs::File::create(device.path(name)).expect("the subscriber's output has a file");
        let copy = file.try_clone().expect("a file can be shared");
        // Lines at once, though it does not write to a terminal.
        let mut buffered = device.command("stdbuf");
        let words = command.get_args().map(std::ffi::OsStr::to_owned).collect::<Vec<_>>();
        let _ = buffered.arg("-oL").arg(command.get_program()).args(words);
        let process = buffered.stdin(std::process::Stdio::null()).stdout(file).stderr(copy).spawn();
        command.env_clear();
        let this = Self { device, name: name.into(), process: process.expect("mosquitto_sub starts") };
        this.wait_for("Subscribed");
        this
    }

    /// What it has printed so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&self.device.read(&self.name)).into_owned()
    }

    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        wait_until(&format!("'{text}' at the subscriber"), || self.output().contains(text), || self.output());
    }

    /// Ends it.
    pub fn end(&mut self) {
        let _ = std::process::Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

impl Drop for Subscriber<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool, there_is: impl FnOnce() -> String) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain for {what}; there is:\n{}", there_is());
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn registry_name(id: &str) -> RegistryName {
    RegistryName::new(PROJECT, "eu", id).expect("a registry's name")
}

pub fn client_id(device: &str) -> String {
    format!("{}/devices/{device}", registry_name("g"))
}

pub fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    i64::try_from(now.as_secs()).expect("a time of our days")
}

/// A private key in memory.
#[derive(Clone)]
pub struct Key {
    pub key: PKey<Private>,
    pub algorithm: &'static str,
}

impl Key {
    pub fn es256() -> Self {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        Self { key: PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap(), algorithm: "ES256" }
    }

    pub fn rs256() -> Self {
        let key = openssl::rsa::Rsa::generate(2048).unwrap();
        Self { key: PKey::from_rsa(key).unwrap(), algorithm: "RS256" }
    }

    pub fn public_pem(&self) -> String {
        String::from_utf8(self.key.public_key_to_pem().unwrap()).unwrap()
    }

    pub fn private_pem(&self) -> String {
        String::from_utf8(self.key.private_key_to_pem_pkcs8().unwrap()).unwrap()
    }

    /// A token for the project, from now on for an hour.
    pub fn token(&self) -> String {
        self.token_for(0, 3600)
    }

    /// A token from `begin` seconds from now on, for `life` seconds.
    pub fn token_for(&self, begin: i64, life: i64) -> String {
        let issued = now() + begin;
        self.signed(&format!(r#"{{"aud":"{PROJECT}","iat":{issued},"exp":{}}}"#, issued + life))
    }

    pub fn signed(&self, claims: &str) -> String {
        let unsigned = unsigned(self.algorithm, claims);
        let mut signer = Signer::new(MessageDigest::sha256(), &self.key).unwrap();
        let signature = signer.sign_oneshot_to_vec(unsigned.as_bytes()).unwrap();
        let signature = match self.algorithm {
            "ES256" => {
                let pair = EcdsaSig::from_der(&signature).unwrap();
                [pair.r().to_vec_padded(32).unwrap(), pair.s().to_vec_padded(32).unwrap()].concat()
            }
            _ => signature,
        };
        format!("{unsigned}.{}", base64url(&signature))
    }

    /// A certificate with these names, signed by `ca` (a certificate and its key), or by itself.
    pub fn certificate(&self, common_name: &str, dns: &[&str], ca: Option<(&X509, &Key)>) -> X509 {
        let mut name = X509Name::builder().unwrap();
        name.append_entry_by_text("CN", common_name).unwrap();
        let name = name.build();
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        let serial = BigNum::from_u32(u32::from(rand())).unwrap();
        builder.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
        builder.set_subject_name(&name).unwrap();
        builder.set_issuer_name(ca.map_or(&*name, |(ca, _)| ca.subject_name())).unwrap();
        builder.set_pubkey(&self.key).unwrap();
        builder.set_not_before(&Asn1Time::from_unix(now() - 60).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::days_from_now(2).unwrap()).unwrap();
        if ca.is_none() {
            builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
        }
        if !dns.is_empty() {
            let mut names = SubjectAlternativeName::new();
            for dns in dns {
                let _ = names.dns(dns);
            }
            let names = names.build(&builder.x509v3_context(None, None)).unwrap();
            builder.append_extension(names).unwrap();
        }
        builder.sign(ca.map_or(&self.key, |(_, key)| &key.key), MessageDigest::sha256()).unwrap();
        builder.build()
    }
}

fn rand() -> u16 {
    let mut bytes = [0; 2];
    openssl::rand::rand_bytes(&mut bytes).unwrap();
    u16::from_be_bytes(bytes)
}

pub fn pem(certificate: &X509) -> String {
    String::from_utf8(certificate.to_pem().unwrap()).unwrap()
}

pub fn unsigned(algorithm: &str, claims: &str) -> String {
    format!(
        "{}.{}",
        base64url(format!(r#"{{"alg":"{algorithm}","typ":"JWT"}}"#).as_bytes()),
        base64url(claims.as_bytes())
    )
}

pub fn base64url(bytes: &[u8]) -> String {
    openssl::base64::encode_block(bytes).replace('+', "-").replace('/', "_").replace('=', "")
}
