//! A registry with many devices, on either database.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use conformance_tests::Cluster;
use keyrivet_registry::store::{NewDevice, Store};
use keyrivet_registry::{Credential, Registry, RegistryName, SignatureAlgorithm, Timestamp};
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::Signer;

const NAME: &str = "projects/bench/locations/eu/registries/bench";
/// Devices that are made in one transaction.
const BATCH: usize = 5000;

/// The registry.
pub(crate) struct Fleet {
    folder: tempfile::TempDir,
    url: String,
    /// How many devices it has.
    pub(crate) devices: usize,
    keys: BTreeMap<&'static str, PKey<Private>>,
    tokens: RefCell<BTreeMap<String, String>>,
    /// All tokens begin then, and end together: to a server of hooks a device that shows one after the other shows nothing new.
    begun: u64,
    _cluster: Option<Cluster>,
}

impl Fleet {
    /// With an SQLite database in a folder of its own.
    pub(crate) fn sqlite(devices: usize) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let url = folder.path().join("registry.db").display().to_string();
        Self::new(folder, url, None, devices)
    }

    /// With a PostgreSQL cluster of its own, which syncs to the disk as it does when nothing is said.
    pub(crate) fn postgresql(devices: usize) -> Result<Self, String> {
        let cluster = Cluster::start_with(&[]);
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        Self::new(folder, cluster.url(), Some(cluster), devices)
    }

    fn new(folder: tempfile::TempDir, url: String, cluster: Option<Cluster>, devices: usize) -> Result<Self, String> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("OpenSSL has P-256");
        let keys = BTreeMap::from([
            ("RS256", PKey::from_rsa(Rsa::generate(2048).expect("OpenSSL makes keys")).expect("a key")),
            ("ES256", PKey::from_ec_key(EcKey::generate(&group).expect("OpenSSL makes keys")).expect("a key")),
        ]);
        let begun = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
        let this = Self { folder, url, devices, keys, tokens: RefCell::default(), begun, _cluster: cluster };
        this.fill().map_err(|error| error.to_string())?;
        Ok(this)
    }

    /// All devices have both keys, so that two tokens serve all.
    fn fill(&self) -> keyrivet_registry::Result<()> {
        let store = Store::open(&self.url)?;
        let (name, now) = (RegistryName::parse(NAME)?, Timestamp::now());
        let (ca_certificates, mqtt, http) = (Vec::new(), true, true);
        store.create_registry(&Registry { name: name.clone(), ca_certificates, mqtt, http, created: now })?;
        let mut credentials = Vec::new();
        for key in self.keys.values() {
            let pem = key.public_key_to_pem().expect("OpenSSL writes what it made");
            credentials.push(Credential::parse(&String::from_utf8_lossy(&pem), None, None)?);
        }
        let all: Vec<_> = (0..self.devices).collect();
        for batch in all.chunks(BATCH) {
            let device = |index: &usize| -> keyrivet_registry::Result<NewDevice> {
                let (name, credentials) = (name.device(&id(*index))?, credentials.clone());
                Ok(NewDevice { name, gateway: None, credentials, blocked: false, metadata: BTreeMap::new() })
            };
            store.create_devices(&batch.iter().map(device).collect::<Result<Vec<_>, _>>()?, now)?;
        }
        Ok(())
    }

    /// The URL or path of its database.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// A folder for what belongs to it.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A device's client id.
    pub(crate) fn client_id(&self, index: usize) -> String {
        format!("{NAME}/devices/{}", id(index))
    }

    /// The topic of a device's events.
    pub(crate) fn events(&self, index: usize) -> String {
        format!("/devices/{}/events", id(index))
    }

    /// A token of any of its devices: the keys are the same, and the device is not in the token.
    pub(crate) fn token(&self, algorithm: &str) -> String {
        let mut tokens = self.tokens.borrow_mut();
        tokens.entry(algorithm.to_owned()).or_insert_with(|| self.sign(algorithm)).clone()
    }

    /// Checks the signature of such a token, as the registry does.
    pub(crate) fn verify(&self, algorithm: &str, times: usize) -> Result<(), String> {
        let pem = self.keys[algorithm].public_key_to_pem().expect("OpenSSL writes what it made");
        let credential = Credential::parse(&String::from_utf8_lossy(&pem), None, None);
        let credential = credential.map_err(|error| error.to_string())?;
        let (text, signature) = self.signed(algorithm);
        let algorithm = SignatureAlgorithm::parse(algorithm).ok_or("no such algorithm")?;
        let wrong = (0..times).any(|_| !credential.verifies(algorithm, text.as_bytes(), &signature));
        if wrong { Err("the signature is wrong".to_owned()) } else { Ok(()) }
    }

    fn sign(&self, algorithm: &str) -> String {
        let (text, signature) = self.signed(algorithm);
        format!("{text}.{}", base64url(&signature))
    }

    /// What is signed of a token, and its signature.
    fn signed(&self, algorithm: &str) -> (String, Vec<u8>) {
        let claims = format!(r#"{{"aud":"bench","iat":{},"exp":{}}}"#, self.begun, self.begun + 12 * 3600);
        let header = format!(r#"{{"alg":"{algorithm}","typ":"JWT"}}"#);
        let text = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
        let mut signer = Signer::new(MessageDigest::sha256(), &self.keys[algorithm]).expect("OpenSSL has SHA-256");
        let mut signature = signer.sign_oneshot_to_vec(text.as_bytes()).expect("the key is whole");
        if algorithm == "ES256" {
            let pair = EcdsaSig::from_der(&signature).expect("OpenSSL writes DER");
            let number = |number: &openssl::bn::BigNumRef| number.to_vec_padded(32).expect("P-256 has 32 bytes");
            signature = [number(pair.r()), number(pair.s())].concat();
        }
        (text, signature)
    }
}

fn id(index: usize) -> String {
    format!("d{index:06}")
}

fn base64url(bytes: &[u8]) -> String {
    openssl::base64::encode_block(bytes).replace('+', "-").replace('/', "_").replace('=', "")
}
