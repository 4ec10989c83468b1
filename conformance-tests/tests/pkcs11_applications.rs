//! Programs that know nothing of TPMs: OpenSC's own tests, ssh, NSS, Java, Python.

use conformance_tests::{Device, Hold, Output, Run as _, Server, Token, free_port};

const PIN: &str = "1234";
const MESSAGE: &str = "what is signed";

/// OpenSC's tests sign SHA-1 digests and do not ask whether they may.
fn with_sha1() -> Device {
    let device = Device::new();
    device.configure("sha1_signatures = true\n");
    device
}

#[test]
fn pkcs11_tool_tests_a_token_with_rsa_and_ec_keys_and_finds_no_error() {
    for pin in [PIN, ""] {
        let device = with_sha1();
        let token = Token::new(&device, "dev", pin);
        let generate = ["--keypairgen", "--key-type", "rsa:2048", "--label", "rsa", "--id", "01"];
        let _ = token.tool(&[&generate[..], &["--usage-sign", "--usage-decrypt", "--usage-wrap"]].concat()).ok();
        token.generate("EC:prime256v1", "ec", "02");
        let tested = token.tool(&["--test"]).ok();
        for fine in [
            "all 4 digest functions seem to work",
            "all 4 signature functions seem to work",
            "RSA-X-509: OK",
            "SHA1-RSA-PKCS: OK",
            "SHA256-RSA-PKCS: OK",
            "No errors",
        ] {
            assert!(tested.stdout().contains(fine), "'{fine}' is missing: {tested}");
        }
        let decrypted = tested.stdout().split_once("Decryption").unwrap().1.to_owned();
        assert_eq!(decrypted.matches("OK").count(), 4, "PKCS#1, OAEP with and without label, bare: {tested}");
    }
}

#[test]
fn pkcs11_tool_tests_elliptic_curves_and_finds_no_error() {
    let device = with_sha1();
    let token = Token::new(&device, "dev", PIN);
    for curve in ["EC:prime256v1", "EC:secp384r1", "EC:secp521r1"] {
        let test = ["--session-rw", "--test-ec", "--key-type", curve, "--id", "06"];
        let _ = token.tool(&[&test[..], &["--usage-sign", "--usage-derive"]].concat()).ok().says("==> OK");
    }
    assert_eq!(token.tool(&["--list-objects"]).ok().stdout(), "", "it deletes what it makes");
}

#[test]
fn pkcs11_tool_initialises_the_module_in_a_forked_child() {
    let device = with_sha1();
    let token = Token::new(&device, "dev", PIN);
    token.generate("rsa:2048", "rsa", "01");
    let forked = token.tool(&["--test-fork"]).ok();
    let _ = forked.says("Calling C_Initialize in forked child process").says_nothing_of("error");
}

#[test]
fn pkcs11_tool_initialises_the_module_in_two_threads_at_once() {
    let device = with_sha1();
    let token = Token::new(&device, "dev", PIN);
    token.generate("rsa:2048", "rsa", "01");
    // The threads: C_Initialize with locking or without, C_GetInfo, C_GetSlotList, C_GetTokenInfo. The first thread
    // generates meanwhile, for it waits half a minute for threads that are not done when it is.
    let threads = ["--test-threads", "ILGISLT0", "--test-threads", "INSLT0GI"];
    let main = ["--keypairgen", "--key-type", "rsa:3072", "--label", "second", "--id", "02"];
    let output = token.tool(&[&threads[..], &main].concat()).ok();
    let returned = |text: &str| output.stderr().matches(text).count();
    assert_eq!(returned("returning rv = 0") + returned("returning rv:CKR_OK"), 2, "{output}");
    let _ = output.says_nothing_of("CKR_GENERAL_ERROR");
}

#[test]
fn pkcs11_tool_makes_secret_keys_and_uses_them() {
    let device = Device::new();
    let token = Token::new(&device, "dev", PIN);
    for (kind, id, usage) in [("AES:32", "01", "--usage-decrypt"), ("GENERIC:64", "02", "--usage-sign")] {
        let _ = token.tool(&["--keygen", "--key-type", kind, "--label", kind, "--id", id, usage]).ok().says("local");
    }
    device.write("data", [0x3e; 48]);
    for mechanism in ["AES-ECB", "AES-CBC", "AES-CBC-PAD"] {
        let through = |operation: &str, from: &str, to: &str| {
            let words = [operation, "--mechanism", mechanism, "--id", "01", "--input-file", from, "--output-file", to];
            let _ = token.tool(&[&words[..], &["--iv", &"0a".repeat(16)]].concat()).ok();
        };
        through("--encrypt", "data", "encrypted");
        through("--decrypt", "encrypted", "clear");
        assert_eq!(device.read("clear"), device.read("data"), "{mechanism}");
        assert_ne!(device.read("encrypted")[..16], device.read("data")[..16], "{mechanism}");
    }
    let mac = ["--sign", "--mechanism", "SHA256-HMAC", "--id", "02", "--input-file", "data", "--output-file", "mac"];
    let _ = token.tool(&mac).ok();
    assert_eq!(device.read("mac").len(), 32);
    // A key that OpenSSL wrapped for the token becomes one of the token.
    let generate = ["--keypairgen", "--key-type", "rsa:2048", "--label", "rsa", "--id", "03"];
    let _ = token.tool(&[&generate[..], &["--usage-decrypt", "--usage-wrap"]].concat()).ok();
    let _ = token.tool(&["--read-object", "--type", "pubkey", "--id", "03", "--output-file", "rsa.der"]).ok();
    device.write("key", [0x1c; 16]);
    let wrap = ["openssl", "pkeyutl", "-encrypt", "-pubin", "-inkey", "rsa.der", "-keyform", "DER", "-in", "key"];
    let _ = device.run(&[&wrap[..], &["-out", "wrapped"]].concat()).ok();
    let unwrap = ["--unwrap", "--mechanism", "RSA-PKCS", "--id", "03", "--input-file", "wrapped", "--key-type", "AES:"];
    let _ = token.tool(&[&unwrap[..], &["--application-id", "04", "--application-label", "unwrapped"]].concat()).ok();
    let encrypt = ["--encrypt", "--mechanism", "AES-ECB", "--id", "04", "--input-file", "data", "--output-file", "e"];
    let _ = token.tool(&encrypt).ok();
    let openssl = ["openssl", "enc", "-aes-128-ecb", "-nopad", "-K", &"1c".repeat(16), "-in", "data"];
    assert_eq!(device.run(&openssl).ok().bytes(), device.read("e"));
}

#[test]
fn pkcs11_tool_agrees_on_a_secret_with_openssl() {
    let device = Device::new();
    let token = Token::new(&device, "dev", PIN);
    let generate = ["--keypairgen", "--key-type", "EC:prime256v1", "--label", "ec", "--id", "01", "--usage-derive"];
    let _ = token.tool(&generate).ok();
    let _ = device.run(&["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", "peer.pem"]).ok();
    let _ = device.run(&["openssl", "ec", "-in", "peer.pem", "-pubout", "-outform", "DER", "-out", "peer.der"]).ok();
    let derive = ["--derive", "--mechanism", "ECDH1-DERIVE", "--id", "01", "--input-file", "peer.der"];
    let _ = token.tool(&[&derive[..], &["--output-file", "shared"]].concat()).ok();
    device.set_variable("GNUTLS_PIN", PIN);
    let public = ["p11tool", "--provider", &device.module(), "--batch", "--export-pubkey", "--outfile", "mine.pem"];
    let _ = device.run(&[&public[..], &["pkcs11:token=dev;id=%01;type=public"]].concat()).ok();
    let theirs = device.run(&["openssl", "pkeyutl", "-derive", "-inkey", "peer.pem", "-peerkey", "mine.pem"]).ok();
    assert_eq!(theirs.bytes(), device.read("shared"));
}

#[test]
fn p11tool_brings_in_keys_that_openssl_made() {
    let device = Device::new();
    let token = Token::new(&device, "dev", PIN);
    let _ = device.run(&["openssl", "genrsa", "-out", "rsa.pem", "2048"]).ok();
    let _ = device.run(&["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", "ec.pem"]).ok();
    device.write("data", MESSAGE);
    for (name, id, mechanism) in [("rsa", "01", "SHA256-RSA-PKCS"), ("ec", "02", "ECDSA-SHA256")] {
        let (file, public) = (format!("{name}.pem"), format!("{name}.pub"));
        let mut command = device.command("p11tool");
        command.env("GNUTLS_PIN", PIN).args(["--provider", &device.module(), "--batch", "--login", "--write"]);
        let _ = command.args(["--load-privkey", &file, "--label", name, "--id", id, "pkcs11:token=dev"]).run().ok();
        let sign = ["--sign", "--id", id, "--mechanism", mechanism, "--input-file", "data"];
        let output = ["--output-file", "signature", "--signature-format", "openssl"];
        let _ = token.tool(&[&sign[..], &output].concat()).ok();
        let _ = device.run(&["openssl", "pkey", "-in", &file, "-pubout", "-out", &public]).ok();
        let verify = ["openssl", "dgst", "-sha256", "-verify", &public, "-signature", "signature", "data"];
        let _ = device.run(&verify).ok().says("Verified OK");
    }
}

#[test]
fn ssh_agent_holds_the_token_and_logs_in_again_and_again() {
    let device = Device::with_hold(Hold::Default);
    let token = Token::new(&device, "dev", PIN);
    token.generate("EC:prime256v1", "key", "01");
    let public = device.run(&["ssh-keygen", "-D", &device.module()]).ok().stdout();
    device.write("authorized_keys", &public);
    let _ = device.run(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "host_key"]).ok();
    device.write("ask", format!("#!/bin/sh\necho {PIN}\n"));
    let _ = device.run(&["chmod", "+x", "ask"]).ok();
    let server = Sshd::start(&device);
    let module = device.module();
    let mut agent = device.command("ssh-agent");
    agent.args(["-D", "-a", "agent.sock", "-P", &module]);
    let mut agent = agent.stdout(std::process::Stdio::null()).spawn().unwrap();
    while !device.path("agent.sock").exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    device.set_variable("SSH_AUTH_SOCK", &device.path("agent.sock").display().to_string());
    let mut add = device.command("ssh-add");
    add.env("SSH_ASKPASS", device.path("ask")).env("SSH_ASKPASS_REQUIRE", "force").args(["-s", &module]);
    let _ = add.run().ok().says("Card added");
    for _ in 0..2 {
        let _ = server.ssh_with(&device, &[]).ok().says("let in");
    }
    let _ = device.run(&["ssh-add", "-e", &module]).ok().says("Card removed");
    let _ = server.ssh_with(&device, &[]).fails_with("Permission denied");
    agent.kill().unwrap();
    agent.wait().unwrap();
}

#[test]
fn ssh_logs_in_with_a_key_of_the_token() {
    for (kind, name) in [("rsa:2048", "ssh-rsa "), ("EC:prime256v1", "ecdsa-sha2-nistp256 ")] {
        let device = Device::new();
        let token = Token::new(&device, "dev", PIN);
        token.generate(kind, "key", "01");
        let public = device.run(&["ssh-keygen", "-D", &device.module()]).ok().stdout();
        assert!(public.starts_with(name), "{public}");
        device.write("authorized_keys", &public);
        let _ = device.run(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "host_key"]).ok();
        let server = Sshd::start(&device);
        device.write("ask", format!("#!/bin/sh\necho {PIN}\n"));
        let _ = device.run(&["chmod", "+x", "ask"]).ok();
        device.mark();
        let _ = server.ssh(&device).ok().says("let in");
        let signed = device.commands().iter().filter(|command| *command == "Sign").count();
        assert!(signed >= 1, "the key in the TPM has signed: {:?}", device.commands());
        // A stranger, with the same client and another key.
        device.write("authorized_keys", "");
        let _ = server.ssh(&device).fails_with("Permission denied");
    }
}

/// An sshd on 127.0.0.1 that lets in whoever is in `authorized_keys`.
struct Sshd {
    port: u16,
    _server: Server,
}

impl Sshd {
    fn start(device: &Device) -> Self {
        let port = free_port();
        let path = |name: &str| device.path(name).display().to_string();
        let configuration = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
             UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n",
            path("host_key"),
            path("authorized_keys")
        );
        device.write("sshd_config", configuration);
        // For root it separates privileges, and insists on an empty directory for it.
        let _ = std::fs::create_dir_all("/run/sshd");
        let mut command = device.command("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f", "sshd_config"]);
        Self { port, _server: Server::start(&mut command, port, &device.path("sshd.log")) }
    }

    fn ssh(&self, device: &Device) -> Output {
        self.ssh_with(device, &["-I", &device.module()])
    }

    fn ssh_with(&self, device: &Device, arguments: &[&str]) -> Output {
        let user = device.run(&["id", "-un"]).ok().stdout();
        let (port, to) = (self.port.to_string(), format!("{}@127.0.0.1", user.trim()));
        let mut command = device.command("ssh");
        command.env("SSH_ASKPASS", device.path("ask")).env("SSH_ASKPASS_REQUIRE", "force");
        for option in ["UserKnownHostsFile=known_hosts", "StrictHostKeyChecking=no", "IdentityFile=none"] {
            command.args(["-o", option]);
        }
        command.args(["-F", "/dev/null", "-p", &port]).args(arguments).args([&to, "echo", "let", "in"]).run()
    }
}

#[test]
fn nss_makes_keys_requests_certificates_and_signs_with_them() {
    let device = Device::new();
    let _ = Token::new(&device, "dev", PIN);
    std::fs::create_dir(device.path("nss")).unwrap();
    let nss =
        |program: &str, arguments: &[&str]| device.command(program).args(["-d", "sql:nss"]).args(arguments).run().ok();
    let _ = nss("certutil", &["-N", "--empty-password"]);
    let add = ["modutil", "-dbdir", "sql:nss", "-add", "keyrivet", "-libfile", &device.module(), "-force"];
    let _ = device.run(&add).ok().says("added to database");
    make_ca(&device);
    let _ = nss("certutil", &["-A", "-n", "ca", "-t", "CT,C,C", "-i", "ca.crt"]);
    device.write("data", MESSAGE);
    device.write("noise", [7; 64]);
    for (name, kind) in [("ec", ["-k", "ec", "-q", "nistp256"]), ("rsa", ["-k", "rsa", "-g", "2048"])] {
        let subject = format!("CN={name},O=Example");
        let request = ["-R", "-h", "dev", "-f", "dev.pin", "-z", "noise", "-s", &subject, "-o", "req.der"];
        let _ = nss("certutil", &[&request[..], &kind].concat());
        let _ = device.run(&["openssl", "req", "-inform", "DER", "-in", "req.der", "-out", "req.pem"]).ok();
        sign_request(&device, "req.pem", "cert.pem");
        // The certificate finds its key by the CKA_ID that NSS expects of keys.
        let add = ["-A", "-h", "dev", "-f", "dev.pin", "-n", name, "-t", ",,", "-i", "cert.pem"];
        let _ = nss("certutil", &add);
        let _ = nss("certutil", &["-L", "-h", "dev", "-f", "dev.pin"]).says(&format!("dev:{name}")).says("u,u,u");
        let (nickname, output) = (format!("dev:{name}"), format!("{name}.cms"));
        let sign = ["-S", "-N", &nickname, "-T", "-i", "data", "-o", &output, "-f", "dev.pin"];
        let _ = nss("cmsutil", &sign);
        let verify = ["openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", &output, "-content", "data"];
        let trust = ["-CAfile", "ca.crt", "-purpose", "any"];
        let _ = device.run(&[&verify[..], &trust].concat()).ok().says("Verification successful");
    }
    let listed = nss("certutil", &["-K", "-h", "dev", "-f", "dev.pin"]);
    assert_eq!(listed.stdout().lines().filter(|line| line.starts_with('<')).count(), 2, "{listed}");
}

#[test]
fn java_makes_a_key_lists_it_and_requests_a_certificate() {
    let device = Device::new();
    if !device.run(&["sh", "-c", "command -v keytool"]).succeeded() {
        println!("NOT TESTED: there is no Java on this machine");
        return;
    }
    let _ = Token::new(&device, "dev", PIN);
    device.write("java.cfg", format!("name = keyrivet\nlibrary = {}\nslot = 0\n", device.module()));
    let keytool = |arguments: &[&str]| {
        let store = ["-keystore", "NONE", "-storetype", "PKCS11", "-storepass", PIN];
        let provider = ["-providerClass", "sun.security.pkcs11.SunPKCS11", "-providerArg", "java.cfg"];
        device.command("keytool").args(arguments).args(store).args(provider).run().ok()
    };
    for (alias, kind) in
        [("ec", ["-keyalg", "EC", "-groupname", "secp256r1"]), ("rsa", ["-keyalg", "RSA", "-keysize", "2048"])]
    {
        let _ = keytool(&[&["-genkeypair", "-alias", alias, "-dname", "CN=java,O=Example"], &kind[..]].concat());
        let request = keytool(&["-certreq", "-alias", alias]);
        device.write("java.csr", request.bytes());
        let _ = device.run(&["openssl", "req", "-in", "java.csr", "-noout", "-verify"]).ok().says("verify OK");
    }
    let _ = keytool(&["-list"]).says("contains 2 entries").says("PrivateKeyEntry");
}

#[test]
fn python_makes_keys_signs_and_decrypts() {
    let device = Device::new();
    let _ = Token::new(&device, "dev", PIN);
    device.write("client.py", PYTHON);
    let module = device.module();
    let _ = device.run(&["/usr/bin/python3", "client.py", &module, PIN]).ok().says("all is well");
    let _ = device.run(&["openssl", "pkey", "-pubin", "-inform", "DER", "-in", "key.der", "-out", "key.pem"]).ok();
    let verify = ["openssl", "dgst", "-sha256", "-verify", "key.pem", "-signature", "signature", "message"];
    let _ = device.run(&verify).ok().says("Verified OK");
}

const PYTHON: &str = r#"
import sys
from PyKCS11 import *
from PyKCS11.LowLevel import CKA_PUBLIC_KEY_INFO

library = PyKCS11Lib()
library.load(sys.argv[1])
session = library.openSession(library.getSlotList(tokenPresent=True)[0], CKF_SERIAL_SESSION | CKF_RW_SESSION)
session.login(sys.argv[2])
both = [(CKA_TOKEN, CK_TRUE), (CKA_LABEL, "python"), (CKA_ID, (0x33,))]
public = [(CKA_CLASS, CKO_PUBLIC_KEY), (CKA_MODULUS_BITS, 2048), (CKA_PUBLIC_EXPONENT, (1, 0, 1)), (CKA_ENCRYPT, CK_TRUE)]
private = [(CKA_CLASS, CKO_PRIVATE_KEY), (CKA_PRIVATE, CK_TRUE), (CKA_SIGN, CK_TRUE), (CKA_DECRYPT, CK_TRUE)]
public, private = session.generateKeyPair(public + both, private + both)

sha256 = Mechanism(CKM_SHA256_RSA_PKCS, None)
signature = bytes(session.sign(private, b"message", sha256))
assert session.verify(public, b"message", signature, sha256)
open("message", "wb").write(b"message")
open("signature", "wb").write(signature)
open("key.der", "wb").write(bytes(session.getAttributeValue(public, [CKA_PUBLIC_KEY_INFO])[0]))

oaep = RSAOAEPMechanism(CKM_SHA256, CKG_MGF1_SHA256)
assert bytes(session.decrypt(private, session.encrypt(public, b"secret", oaep), oaep)) == b"secret"
flags = session.getAttributeValue(private, [CKA_SENSITIVE, CKA_LOCAL, CKA_EXTRACTABLE])
assert flags == [True, True, False], flags
assert len(session.findObjects([(CKA_ID, (0x33,))])) == 2
print("all is well")
"#;

fn make_ca(device: &Device) {
    let request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let output = ["-keyout", "ca.key", "-subj", "/CN=Example CA", "-out", "ca.crt"];
    let _ = device.run(&[&request[..], &output].concat()).ok();
}

fn sign_request(device: &Device, request: &str, certificate: &str) {
    let sign = ["openssl", "x509", "-req", "-in", request, "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"];
    let _ = device.run(&[&sign[..], &["-days", "7", "-out", certificate]].concat()).ok();
}
