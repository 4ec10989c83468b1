//! The matrix that every job of the `openssl` command has to pass: where the key is, times how the provider is activated.
//!
//! A job is a script of command lines. A line that begins with `tpm:` runs with the provider and has to use the private
//! key in the TPM once; one with `keyrivet:` runs with the provider and must leave private keys in the TPM alone; one with
//! `plain:` runs without the provider, for verdicts that do not depend on it. What has to be said follows `=>`. `same:`
//! compares two files. In a line, `KEY` is the key, and `KEY.pub` and `KEY.crt` are files with its public key and a
//! certificate that it signed itself.

// Each file of tests uses its part of this.
#![allow(dead_code)]

#[path = "../activation/mod.rs"]
pub(crate) mod activation;

use activation::{Activation, plain_openssl};
use conformance_tests::{Device, Hold, Token};

/// RSA keys, as `genpkey`, `pkcs11-tool` and `tpm2_create` call them.
pub(crate) const RSA: Kind = Kind { genpkey: ["RSA", "rsa_keygen_bits:2048"], token: "rsa:2048", tpm2: "rsa2048" };
/// Keys on P-256.
pub(crate) const EC: Kind = Kind { genpkey: ["EC", "group:P-256"], token: "EC:prime256v1", tpm2: "ecc256" };

const PIN: &str = "123456";
/// How `openssl` can be told of the provider.
pub(crate) const ACTIVATIONS: [Activation; 4] =
    [Activation::DefaultFirst, Activation::KeyrivetFirst, Activation::Preferred, Activation::CommandLine];
/// What uses a private key.
const PRIVATE: [&str; 3] = ["Sign", "RSA_Decrypt", "ECDH_ZGen"];
/// What else there may be: digests, random numbers, other people's keys and short-lived ones do not belong into the TPM.
const AROUND: [&str; 5] = ["StartAuthSession", "Load", "Unseal", "FlushContext", "ReadPublic"];

/// A kind of key.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    genpkey: [&'static str; 2],
    token: &'static str,
    tpm2: &'static str,
}

/// A device with one kind of key, once in each place where a key may be.
pub(crate) struct Matrix {
    pub(crate) device: Device,
    keys: Vec<Key>,
}

/// A key, and what its files' names begin with.
pub(crate) struct Key {
    name: &'static str,
    /// What to tell programs that take a URI.
    pub(crate) reference: String,
    /// A file for programs that take nothing else.
    pub(crate) file: Option<&'static str>,
}

impl Matrix {
    /// Makes the keys, their public keys and certificates.
    pub(crate) fn new(kind: Kind, hold: Hold) -> Self {
        let device = Device::with_hold(hold);
        let token = Token::new(&device, "gateway", PIN);
        token.generate(kind.token, "key", "01");
        device.new_key_file(kind.genpkey, "key.pem");
        persist(&device, kind.tpm2);
        let uri = "pkcs11:token=gateway;object=key;type=private?pin-source=file:gateway.pin";
        device.wrap_uri(uri, "wrapped.pem");
        let keys = vec![
            Key { name: "file", reference: "key.pem".into(), file: Some("key.pem") },
            Key { name: "token", reference: uri.into(), file: Some("wrapped.pem") },
            Key { name: "handle", reference: HANDLE.into(), file: None },
        ];
        let this = Self { keys, device };
        for key in &this.keys {
            let run = |line: &str| Activation::DefaultFirst.openssl(&this.device, &key.put_into(line));
            let _ = run("pkey -in KEY -pubout -out KEY.pub").ok();
            let names = "-subj /CN=localhost -addext subjectAltName=DNS:localhost,email:key@localhost";
            let _ = run(&format!("req -x509 -new -key KEY {names} -days 2 -extensions authority -out KEY.crt")).ok();
        }
        this
    }

    /// The keys.
    pub(crate) fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Each key with each activation.
    pub(crate) fn each(&self, mut check: impl FnMut(&Key, Activation)) {
        for key in &self.keys {
            for activation in ACTIVATIONS {
                check(key, activation);
            }
        }
    }

    /// Runs the script in one case.
    #[track_caller]
    pub(crate) fn script(&self, script: &str, key: &Key, activation: Activation) {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (runs, line) = line.split_once(": ").expect("a line says first how it is run");
            let (line, says) = line.split_once(" => ").unwrap_or((line, ""));
            let line = key.put_into(line.trim());
            match runs {
                "tpm" => self.uses(1, &line, says, key, activation),
                "keyrivet" => self.uses(0, &line, says, key, activation),
                "plain" => drop(plain_openssl(&self.device, &line).ok().says(says)),
                "same" => {
                    let (one, other) = line.split_once(' ').expect("two files are compared");
                    let case = format!("{line}: {activation:?}, {}", key.reference);
                    assert!(self.device.read(one) == self.device.read(other), "{case}");
                }
                other => panic!("no way to run a line: {other}"),
            }
        }
    }

    /// Runs a line with the provider, which is to use the private key so many times.
    #[track_caller]
    fn uses(&self, times: usize, line: &str, says: &str, key: &Key, activation: Activation) {
        self.device.mark();
        let _ = activation.openssl(&self.device, line).ok().says(says);
        let commands = self.device.commands();
        let (used, around): (Vec<&str>, Vec<&str>) =
            commands.iter().map(String::as_str).partition(|command| PRIVATE.contains(command));
        let case = format!("{line}: {activation:?}, {}: {commands:?}", key.reference);
        assert_eq!(used.len(), times, "{case}");
        assert!(around.iter().all(|command| AROUND.contains(command)), "{case}");
    }
}

impl Key {
    /// The line with this key's names in it.
    pub(crate) fn put_into(&self, line: &str) -> String {
        let line = ["pub", "crt"]
            .iter()
            .fold(line.to_owned(), |line, kind| line.replace(&format!("KEY.{kind}"), &format!("{}.{kind}", self.name)));
        line.replace("KEY", &self.reference)
    }
}

/// Where the persistent key is.
const HANDLE: &str = "handle:0x81000100";

/// Makes a persistent key with tpm2-tools, as one that was there before us.
fn persist(device: &Device, kind: &str) {
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|sign|decrypt";
    let run = |line: String| device.run(&line.split_whitespace().collect::<Vec<_>>()).ok();
    let _ = run(format!("tpm2_create -Q -C 0x81000001 -G {kind} -a {attributes} -u made.pub -r made.priv"));
    let _ = run("tpm2_load -Q -C 0x81000001 -u made.pub -r made.priv -c made.ctx".into());
    let handle = HANDLE.trim_start_matches("handle:");
    let _ = run(format!("tpm2_evictcontrol -Q -C o -c made.ctx {handle}"));
    let _ = run("tpm2_flushcontext -t".into());
}
