//! A token made with `pkcs11-tool`, for tests about what comes after.

use std::process::{Child, Command, Stdio};

use crate::device::Device;
use crate::program::{Output, Run as _};

/// The security officer's PIN of every [`Token`].
pub const SO_PIN: &str = "so-pin-87654321";

/// A token of a device.
pub struct Token<'a> {
    device: &'a Device,
    label: String,
    pin: String,
}

impl<'a> Token<'a> {
    /// Makes a token in the free slot. An empty PIN makes one that needs no login.
    pub fn new(device: &'a Device, label: &str, pin: &str) -> Self {
        let slots = device.pkcs11_tool(&["--list-slots"]).ok().stdout();
        let free =
            slots.lines().rev().find_map(|line| line.strip_prefix("Slot ")).expect("there is always a free slot");
        let slot = free.split(['(', ')']).nth(1).expect("pkcs11-tool tells slots as 'Slot 0 (0x0): ...'");
        let _ = device.pkcs11_tool(&["--init-token", "--slot", slot, "--label", label, "--so-pin", SO_PIN]).ok();
        let so = ["--login", "--login-type", "so", "--so-pin", SO_PIN];
        let init = ["--init-pin", "--token-label", label, "--new-pin", pin];
        let _ = device.pkcs11_tool(&[&init[..], &so[..]].concat()).ok();
        device.write(&format!("{label}.pin"), pin);
        Self::existing(device, label, pin)
    }

    /// One that an earlier [`Self::new`] made on this device.
    pub fn existing(device: &'a Device, label: &str, pin: &str) -> Self {
        Self { device, label: label.into(), pin: pin.into() }
    }

    /// `pkcs11-tool` on this token, logged in where it has a PIN.
    pub fn tool(&self, arguments: &[&str]) -> Output {
        self.tool_command(arguments).run()
    }

    fn tool_command(&self, arguments: &[&str]) -> Command {
        let mut words = vec!["--token-label", &self.label];
        if !self.pin.is_empty() {
            words.extend(["--login", "--pin", &self.pin]);
        }
        words.extend(arguments);
        self.device.pkcs11_tool_command(&words)
    }

    /// Starts one of many programs that sign once with the P-256 key of this label and id, through the module or the provider
    /// as its number says.
    pub fn start_signer(&self, label: &str, id: &str, number: usize) -> Child {
        let signature = format!("signature{number}");
        let mut command = if number % 4 < 2 {
            let key = ["--sign", "--mechanism", "ECDSA-SHA256", "--id", id];
            self.tool_command(&[&key[..], &["-i", "openssl.cnf", "-o", &signature]].concat())
        } else {
            let key = self.uri(label);
            self.device.openssl_command(&["dgst", "-sha256", "-sign", &key, "-out", &signature, "openssl.cnf"])
        };
        command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the signer starts")
    }

    /// Makes a key pair; `kind` as pkcs11-tool names it: `rsa:2048`, `EC:prime256v1`.
    pub fn generate(&self, kind: &str, label: &str, id: &str) {
        let _ = self.tool(&["--keypairgen", "--key-type", kind, "--label", label, "--id", id]).ok();
    }

    /// The URI of the private key with this label; a PIN is in a file that the URI names.
    pub fn uri(&self, label: &str) -> String {
        let key = format!("pkcs11:token={};object={label};type=private", self.label);
        if self.pin.is_empty() {
            return key;
        }
        format!("{key}?pin-source=file:{}", self.device.path(&format!("{}.pin", self.label)).display())
    }

    /// Requests a certificate for the key through the provider, has the IoT CA sign it, and leaves it in `NAME.crt`.
    pub fn certify(&self, pki: &crate::Pki<'_>, label: &str, name: &str) {
        let (csr, crt, uri) = (format!("{name}.csr"), format!("{name}.crt"), self.uri(label));
        let subject = format!("/O=Example/CN={name}");
        let names = format!("subjectAltName=DNS:{name}.example.com");
        let request = ["req", "-new", "-key", &uri, "-subj", &subject, "-addext", &names, "-out", &csr];
        let _ = self.device.openssl(&request).ok();
        pki.sign_device(&csr, &crt);
    }
}
