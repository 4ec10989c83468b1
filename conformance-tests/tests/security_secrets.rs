//! No PIN, no authorisation value and no token secret crosses the bus to the TPM in the clear, lies in memory or is logged.
//!
//! The secrets are worked out here independently of Keyrivet: HKDF by OpenSSL, unsealing by tpm2-tools.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use conformance_tests::{Device, Harm, SO_PIN, Token};
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;

const FIRST_PIN: &str = "a very findable PIN";
const SECOND_PIN: &str = "another findable PIN";

#[test]
fn no_pin_and_no_secret_is_in_the_bytes_that_go_to_the_tpm_or_come_back() {
    let device = Device::new();
    let token = Token::new(&device, "gateway", FIRST_PIN);
    token.generate("rsa:2048", "rsa", "01");
    token.generate("EC:prime256v1", "ec", "02");
    device.write("data", "to be signed");
    let sign = ["--sign", "--id", "02", "--mechanism", "ECDSA-SHA256", "-i", "data", "-o", "signature"];
    let _ = token.tool(&sign).ok();
    let _ = device.openssl(&["dgst", "-sha256", "-sign", &token.uri("rsa"), "-out", "signature", "data"]).ok();
    let _ = token.tool(&["--change-pin", "--new-pin", SECOND_PIN]).ok();

    // Taken before the secrets are worked out, for that unseals in the clear.
    let bytes = device.tpm_bytes();
    let file = TokenFile::read(&device);
    assert!(found(&bytes, &file.sealed_private), "the search finds what is there");
    for pin in [FIRST_PIN, SECOND_PIN, SO_PIN] {
        assert!(!found(&bytes, pin.as_bytes()), "the PIN '{pin}' went over the bus");
        let value = file.pin_auth(pin);
        assert!(!found(&bytes, &value), "the authValue for the PIN '{pin}' went over the bus");
    }
    let secret = file.unseal(&device, SECOND_PIN);
    assert!(found(&device.tpm_bytes(), &secret), "the search finds a secret that does go over the bus");
    assert!(!found(&bytes, &secret), "the token secret went over the bus");
    let keys = file.key_auths(&secret);
    assert_eq!(keys.len(), 2);
    for value in keys {
        assert!(!found(&bytes, &value), "a key's authValue went over the bus");
    }
}

#[test]
fn no_secret_is_in_what_is_logged() {
    let device = Device::new();
    let token = Token::new(&device, "gateway", FIRST_PIN);
    device.set_variable("KEYRIVET_LOG", "all");
    token.generate("EC:prime256v1", "ec", "01");
    let sign = ["--sign", "--id", "01", "--mechanism", "ECDSA-SHA256", "-i", "openssl.cnf", "-o", "signature"];
    let wrong =
        device.pkcs11_tool(&[&["--token-label", "gateway", "--login", "--pin", SECOND_PIN], &sign[..]].concat());
    let said = [
        token.tool(&sign).ok().stderr(),
        device
            .openssl(&["dgst", "-sha256", "-sign", &token.uri("ec"), "-out", "signature", "openssl.cnf"])
            .ok()
            .stderr(),
        wrong.fails().stderr(),
        token.tool(&["--change-pin", "--new-pin", SECOND_PIN]).ok().stderr(),
    ];
    let said = said.concat();
    assert!(said.contains("keyrivet: tpm: Sign") && said.contains("was refused"), "{said}");
    let file = TokenFile::read(&device);
    let secret = file.unseal(&device, SECOND_PIN);
    let mut secrets = vec![secret.clone()];
    for pin in [FIRST_PIN, SECOND_PIN, SO_PIN] {
        secrets.extend([pin.as_bytes().to_vec(), file.pin_auth(pin)]);
    }
    secrets.extend(file.key_auths(&secret));
    for secret in secrets {
        for form in [String::from_utf8_lossy(&secret).into_owned(), hex(&secret), format!("{secret:?}")] {
            assert!(!said.to_lowercase().contains(&form.to_lowercase()), "{form} in {said}");
        }
    }
}

/// A program that logs in and signs, and says where it is. It wipes its own PIN, so that what is found is Keyrivet's.
const CLIENT: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>
#include <unistd.h>
typedef unsigned long UL;
typedef struct { UL type; void *value; UL length; } Attribute;
typedef struct { UL type; void *value; UL length; } Mechanism;
static char go;
static void at(char stage) { write(1, &stage, 1); read(0, &go, 1); }
int main(int count, char **words) {
    void *module = dlopen(words[1], RTLD_NOW);
#define F(name, ...) ((UL (*)(__VA_ARGS__))dlsym(module, #name))
    UL session, key, found, class = 3, length = 128;
    unsigned char pin[64], signature[128];
    Attribute wanted = { 0, &class, sizeof class };
    Mechanism ecdsa = { 0x1044, 0, 0 };
    UL failed = F(C_Initialize, void *)(0) | F(C_OpenSession, UL, UL, void *, void *, UL *)(0, 4, 0, 0, &session);
    int size = read(0, pin, sizeof pin);
    failed |= F(C_Login, UL, UL, void *, UL)(session, 1, pin, size);
    explicit_bzero(pin, sizeof pin);
    if (failed) return 1;
    at('i');
    failed |= F(C_FindObjectsInit, UL, Attribute *, UL)(session, &wanted, 1);
    failed |= F(C_FindObjects, UL, UL *, UL, UL *)(session, &key, 1, &found);
    failed |= F(C_SignInit, UL, Mechanism *, UL)(session, &ecdsa, key);
    failed |= F(C_Sign, UL, void *, UL, void *, UL *)(session, "message", 7, signature, &length);
    if (failed) return 1;
    at('s');
    failed |= F(C_Logout, UL)(session);
    at('o');
    return failed != 0;
}
"#;

#[test]
fn no_secret_is_in_a_core_dump_during_a_login_after_it_or_after_logout() {
    let device = Device::new();
    let token = Token::new(&device, "gateway", FIRST_PIN);
    token.generate("EC:prime256v1", "ec", "01");
    device.write("client.c", CLIENT);
    let _ = device.run(&["cc", "-O1", "-w", "-o", "client", "client.c"]).ok();
    let wire = device.wire();
    device.use_tcti(wire.tcti());
    wire.harm("Unseal", 1, Harm::Late(Duration::from_secs(3)));
    let mut command = device.command("./client");
    let mut client = command.arg(device.module()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (client.stdin.take().unwrap(), client.stdout.take().unwrap());
    stdin.write_all(FIRST_PIN.as_bytes()).unwrap();
    while wire.harmed() == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let during = core_dump(&device, client.id());
    let mut dumps = Vec::new();
    for stage in ["i", "s", "o"] {
        let mut reached = [0];
        stdout.read_exact(&mut reached).expect("the client goes on");
        assert_eq!(reached, stage.as_bytes());
        dumps.push((stage, core_dump(&device, client.id()), Mapping::of_process(client.id())));
        stdin.write_all(b"g").unwrap();
    }
    assert!(client.wait().unwrap().success());

    let file = TokenFile::read(&device);
    let secret = file.unseal(&device, FIRST_PIN);
    let mut wanted = vec![
        ("PIN", FIRST_PIN.as_bytes().to_vec()),
        ("PIN's authValue", file.pin_auth(FIRST_PIN)),
        ("token secret", secret.clone()),
    ];
    let [key] = &file.key_auths(&secret)[..] else { panic!("one key") };
    wanted.push(("key's authValue", key.clone()));
    for (stage, dump, memory) in dumps {
        assert!(found(&dump, b"keyrivet"), "the dump at '{stage}' is of our client");
        for (name, value) in &wanted {
            assert!(!found(&dump, value), "the {name} is in the core dump at '{stage}'");
            // All memory, also what is left out of dumps.
            let holders: Vec<_> = memory.iter().filter(|mapping| found(&mapping.content, value)).collect();
            assert_eq!(holders.len(), usize::from(*name == "token secret" && stage != "o"), "the {name} at '{stage}'");
            for holder in holders {
                // Locked, and not for dumps (proc_pid_smaps(5)).
                assert!(holder.flags.contains(" lo ") && holder.flags.contains(" dd "), "{}", holder.flags);
            }
        }
    }
    // While C_Login waits for the TPM the client has the PIN, which shows that the search finds what is there.
    assert!(found(&during, FIRST_PIN.as_bytes()), "the client's own PIN");
    for (name, value) in &wanted[2..] {
        assert!(!found(&during, value), "the {name} is in the core dump during the login");
    }
    let derived = found(&during, &wanted[1].1);
    println!("{} secrets, four stages; {} in the dump during the login: {derived}", wanted.len(), wanted[1].0);
}

/// A stretch of a process's memory that it may write.
struct Mapping {
    content: Vec<u8>,
    flags: String,
}

impl Mapping {
    fn of_process(process: u32) -> Vec<Self> {
        let memory = File::open(format!("/proc/{process}/mem")).unwrap();
        let text = std::fs::read_to_string(format!("/proc/{process}/smaps")).unwrap();
        let (mut mappings, mut place) = (Vec::new(), None);
        for line in text.lines() {
            if let Some(flags) = line.strip_prefix("VmFlags:") {
                let Some((start, end)) = place.take() else { continue };
                let mut content = vec![0; end - start];
                memory.read_exact_at(&mut content, start as u64).unwrap();
                mappings.push(Self { content, flags: format!("{flags} ") });
            } else if let Some((range, "rw-p")) = line.split(' ').next().zip(line.split(' ').nth(1)) {
                let (start, end) = range.split_once('-').unwrap();
                let number = |text| usize::from_str_radix(text, 16).unwrap();
                place = Some((number(start), number(end)));
            }
        }
        assert!(mappings.iter().any(|mapping| found(&mapping.content, b"keyrivet")), "it is our client's");
        mappings
    }
}

/// A program that reads a key file, and says when it has.
const READER: &str = r#"
#include <openssl/pem.h>
#include <stdio.h>
#include <unistd.h>
int main(int count, char **words) {
    char go;
    FILE *file = fopen(words[1], "r");
    EVP_PKEY *key = PEM_read_PrivateKey(file, 0, 0, 0);
    if (key == 0) return 1;
    fclose(file);
    write(1, "r", 1);
    read(0, &go, 1);
    return 0;
}
"#;

// The file's base64 is another matter: it stays where libc reads files.
#[test]
fn the_pin_of_a_uri_file_is_in_no_core_dump_after_the_key_was_read() {
    const PIN: &str = "a-very-findable-PIN";
    let device = Device::new();
    let token = Token::new(&device, "gateway", PIN);
    token.generate("EC:prime256v1", "ec", "01");
    device.wrap_uri(&format!("pkcs11:token=gateway;object=ec;type=private?pin-value={PIN}"), "key.pem");
    device.write("reader.c", READER);
    let _ = device.run(&["cc", "-O1", "-w", "-o", "reader", "reader.c", "-lcrypto"]).ok();
    let mut command = device.command("./reader");
    command.env("OPENSSL_CONF", device.openssl_conf()).arg("key.pem");
    let mut reader = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    reader.stdout.as_mut().unwrap().read_exact(&mut [0]).expect("the key is read");
    let dump = core_dump(&device, reader.id());
    reader.stdin.take().unwrap().write_all(b"g").unwrap();
    assert!(reader.wait().unwrap().success());
    assert!(found(&dump, b"keyrivet"), "the dump is of our program");
    assert!(!found(&dump, PIN.as_bytes()), "the PIN is in the core dump");
}

/// The memory of a process.
fn core_dump(device: &Device, process: u32) -> Vec<u8> {
    let name = device.path("core");
    let _ = device.run(&["gcore", "-o", name.to_str().unwrap(), &process.to_string()]).ok();
    device.read(&format!("core.{process}"))
}

/// What a token's file says.
struct TokenFile {
    directory: PathBuf,
    salt: Vec<u8>,
    sealed_public: Vec<u8>,
    sealed_private: Vec<u8>,
}

impl TokenFile {
    /// That of the only token of the device.
    fn read(device: &Device) -> Self {
        let entries = std::fs::read_dir(device.store()).expect("the store is there").map(|entry| entry.unwrap().path());
        let directory = entries.into_iter().find(|path| path.join("token.toml").exists()).expect("there is a token");
        let text = std::fs::read_to_string(directory.join("token.toml")).unwrap();
        let (_, user) = text.split_once("[user]").expect("the user PIN is set");
        let (sealed_public, sealed_private) = (value(user, "public"), value(user, "private"));
        Self { salt: value(&text, "salt"), sealed_public, sealed_private, directory }
    }

    /// The token secret, by tpm2-tools.
    fn unseal(&self, device: &Device, pin: &str) -> Vec<u8> {
        device.write("sealed.pub", &self.sealed_public);
        device.write("sealed.priv", &self.sealed_private);
        let load = ["tpm2_load", "-C", "0x81000001", "-u", "sealed.pub", "-r", "sealed.priv", "-c", "sealed.ctx"];
        let _ = device.run(&load).ok();
        let value = hex(&self.pin_auth(pin));
        device.run(&["tpm2_unseal", "-c", "sealed.ctx", "-p", &format!("hex:{value}")]).ok().bytes().to_vec()
    }

    /// The authValue of the sealed token secret.
    fn pin_auth(&self, pin: &str) -> Vec<u8> {
        hkdf(&self.salt, pin.as_bytes(), b"PIN")
    }

    /// The authValue of each key.
    fn key_auths(&self, secret: &[u8]) -> Vec<Vec<u8>> {
        let auth = |id: &Vec<u8>| hkdf(&[0; 32], secret, &[b"key authorisation", &id[..]].concat());
        self.object_ids().iter().map(auth).collect()
    }

    fn object_ids(&self) -> Vec<Vec<u8>> {
        let entries = std::fs::read_dir(&self.directory).unwrap().map(|entry| entry.unwrap().file_name());
        let names = entries.filter_map(|name| Some(name.to_str()?.strip_suffix(".pem")?.to_owned()));
        names.map(|name| bytes(&name)).collect()
    }
}

/// HKDF with SHA-256 for one block (RFC 5869).
fn hkdf(salt: &[u8], secret: &[u8], info: &[u8]) -> Vec<u8> {
    let pseudorandom_key = hmac(salt, secret);
    hmac(&pseudorandom_key, &[info, &[1]].concat())
}

fn hmac(key: &[u8], data: &[u8]) -> Vec<u8> {
    let key = PKey::hmac(key).unwrap();
    Signer::new(MessageDigest::sha256(), &key).unwrap().sign_oneshot_to_vec(data).unwrap()
}

fn found(bytes: &[u8], wanted: &[u8]) -> bool {
    memchr::memmem::find(bytes, wanted).is_some()
}

/// The bytes that `name = "hexadecimal"` stands for.
fn value(text: &str, name: &str) -> Vec<u8> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix('='));
    bytes(line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().trim_matches('"'))
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digits = hexadecimal.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
