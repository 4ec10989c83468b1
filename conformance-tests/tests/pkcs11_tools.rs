//! A token's whole life with `pkcs11-tool` and `p11tool`, checked by `openssl`.

use conformance_tests::{Device, Run as _, SO_PIN, Token};

const PIN: &str = "1234";

/// Checks with OpenSSL that `signature` over the file `data` is by the public key with this id.
///
/// The key is read with `p11tool`: OpenSC 0.23 cannot write P-384 keys to a file.
fn openssl_verifies(device: &Device, id: &str, options: &[&str]) {
    let key = format!("pkcs11:id=%{id};type=public");
    let export =
        ["p11tool", "--provider", &device.module(), "--batch", "--export-pubkey", &key, "--outfile", "key.pem"];
    let _ = device.command(export[0]).env("GNUTLS_PIN", PIN).args(&export[1..]).run().ok();
    let verify = ["openssl", "dgst", "-verify", "key.pem", "-signature", "signature"];
    let _ = device.run(&[&verify[..], options, &["data"]].concat()).ok().says("Verified OK");
}

#[test]
fn a_token_is_made_used_and_emptied_with_pkcs11_tool() {
    let device = Device::new();
    let token = Token::new(&device, "dev", PIN);
    token.generate("EC:prime256v1", "ec", "01");
    token.generate("rsa:2048", "rsa", "02");
    let listed = token.tool(&["--list-objects"]).ok();
    let access = "sensitive, always sensitive, never extractable, local";
    let listed = listed.says("Private Key Object; EC").says("Private Key Object; RSA").says(access);
    assert_eq!(listed.stdout().matches("Public Key Object").count(), 2);
    for (part, id) in [("privkey", "01"), ("pubkey", "01"), ("privkey", "02"), ("pubkey", "02")] {
        let _ = token.tool(&["--delete-object", "--type", part, "--id", id]).ok();
    }
    assert_eq!(token.tool(&["--list-objects"]).ok().stdout(), "");
    assert!(std::fs::read_dir(device.store()).unwrap().count() > 0, "the token itself stays");
}

#[test]
fn every_signature_of_pkcs11_tool_verifies_with_openssl() {
    let device = Device::new();
    let token = Token::new(&device, "dev", PIN);
    token.generate("EC:prime256v1", "ec", "01");
    token.generate("EC:secp384r1", "ec384", "03");
    token.generate("rsa:2048", "rsa", "02");
    device.write("data", "what is signed");
    let sign = |id: &str, mechanism: &str| {
        let words = ["--sign", "--id", id, "--mechanism", mechanism, "--input-file", "data"];
        let output = ["--output-file", "signature", "--signature-format", "openssl"];
        let _ = token.tool(&[&words[..], &output].concat()).ok();
    };
    for hash in ["256", "384", "512"] {
        let digest = format!("-sha{hash}");
        for id in ["01", "03"] {
            sign(id, &format!("ECDSA-SHA{hash}"));
            openssl_verifies(&device, id, &[&digest]);
        }
        sign("02", &format!("SHA{hash}-RSA-PKCS"));
        openssl_verifies(&device, "02", &[&digest]);
        sign("02", &format!("SHA{hash}-RSA-PKCS-PSS"));
        let pss = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"];
        openssl_verifies(&device, "02", &[&[digest.as_str()][..], &pss].concat());
    }
}

#[test]
fn pkcs11_tool_verifies_without_a_login() {
    let device = Device::new();
    let token = Token::new(&device, "dev", PIN);
    token.generate("rsa:2048", "rsa", "02");
    device.write("data", "what is signed");
    device.write("other", "what is not");
    let sign = ["--sign", "--id", "02", "--mechanism", "SHA256-RSA-PKCS"];
    let _ = token.tool(&[&sign[..], &["--input-file", "data", "--output-file", "signature"]].concat()).ok();
    let verify = ["--token-label", "dev", "--verify", "--id", "02", "--mechanism", "SHA256-RSA-PKCS"];
    let of = |file| [&verify[..], &["--input-file", file, "--signature-file", "signature"]].concat();
    let _ = device.pkcs11_tool(&of("data")).ok().says("Signature is valid");
    let _ = device.pkcs11_tool(&of("other")).says("Invalid signature");
}

#[test]
fn a_certificate_and_data_are_stored_beside_the_key() {
    let device = Device::new();
    let token = Token::new(&device, "dev", PIN);
    token.generate("EC:prime256v1", "ec", "01");
    let request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let output = ["-keyout", "other.key", "-subj", "/CN=device", "-outform", "DER", "-out", "device.der"];
    let _ = device.run(&[&request[..], &output].concat()).ok();
    device.write("data", "a secret of the application");

    let _ = token.tool(&["--write-object", "device.der", "--type", "cert", "--id", "01", "--label", "ec"]).ok();
    let _ = token.tool(&["--write-object", "data", "--type", "data", "--label", "secret", "--private"]).ok();
    let anybody = |arguments: &[&str]| device.pkcs11_tool(&[&["--token-label", "dev"], arguments].concat());
    let _ = anybody(&["--list-objects"]).ok().says("CN=device").says_nothing_of("secret");
    let _ = anybody(&["--read-object", "--type", "cert", "--id", "01", "--output-file", "back.der"]).ok();
    assert_eq!(device.read("device.der"), device.read("back.der"));
    let secret = token.tool(&["--read-object", "--type", "data", "--label", "secret"]).ok();
    assert_eq!(secret.bytes(), device.read("data"));
    for entry in std::fs::read_dir(device.store()).unwrap().flatten() {
        for file in std::fs::read_dir(entry.path()).into_iter().flatten().flatten() {
            let content = std::fs::read(file.path()).unwrap_or_default();
            let found = content.windows(8).any(|window| window == b"a secret");
            assert!(!found, "{} holds the private data in the clear", file.path().display());
        }
    }
}

#[test]
fn a_label_and_an_id_are_changed() {
    let device = Device::new();
    let token = Token::new(&device, "dev", PIN);
    token.generate("EC:prime256v1", "ec", "01");
    let _ = token.tool(&["--set-id", "0a", "--type", "privkey", "--id", "01"]).ok();
    let listed = token.tool(&["--list-objects", "--type", "privkey"]).ok();
    let _ = listed.says("ID:         0a");
    let _ = token.tool(&["--list-objects", "--type", "pubkey"]).ok().says("ID:         01");
}

#[test]
fn a_wrong_pin_is_refused_and_named() {
    let device = Device::new();
    let _token = Token::new(&device, "dev", PIN);
    let with = |pin: &str| ["--token-label", "dev", "--login", "--pin", pin, "--list-objects"].map(String::from);
    let _ = device.pkcs11_tool(&with("4321")).fails_with("CKR_PIN_INCORRECT");
    let _ = device.pkcs11_tool(&with(PIN)).ok();
}

#[test]
fn pins_are_changed_by_their_owners() {
    let device = Device::new();
    let token = Token::new(&device, "dev", PIN);
    token.generate("EC:prime256v1", "ec", "01");
    let _ = token.tool(&["--change-pin", "--new-pin", "4321"]).ok();
    let login = |pin: &str| ["--token-label", "dev", "--login", "--pin", pin, "--list-objects"].map(String::from);
    let _ = device.pkcs11_tool(&login(PIN)).fails_with("CKR_PIN_INCORRECT");
    let _ = device.pkcs11_tool(&login("4321")).ok().says("Private Key Object");
    // The security officer sets a forgotten PIN anew, and changes their own.
    let so = ["--token-label", "dev", "--login", "--login-type", "so", "--so-pin"];
    let _ = device.pkcs11_tool(&[&so[..], &[SO_PIN, "--init-pin", "--new-pin", "5555"]].concat()).ok();
    let _ = device.pkcs11_tool(&login("5555")).ok().says("Private Key Object");
    let _ = device.pkcs11_tool(&[&so[..], &[SO_PIN, "--change-pin", "--new-pin", "new-so-pin"]].concat()).ok();
    let init = ["--init-pin", "--new-pin", "6666"];
    let _ = device.pkcs11_tool(&[&so[..], &[SO_PIN], &init].concat()).fails_with("CKR_PIN_INCORRECT");
    let _ = device.pkcs11_tool(&[&so[..], &["new-so-pin"], &init].concat()).ok();
}

#[test]
fn a_token_is_made_anew_only_with_its_so_pin_and_is_empty_then() {
    let device = Device::new();
    let token = Token::new(&device, "dev", PIN);
    token.generate("EC:prime256v1", "ec", "01");
    let again = |pin: &str| ["--init-token", "--slot", "0", "--label", "again", "--so-pin", pin].map(String::from);
    let _ = device.pkcs11_tool(&again("wrong-so-pin")).fails_with("CKR_PIN_INCORRECT");
    let _ = token.tool(&["--list-objects"]).ok().says("Private Key Object");
    let _ = device.pkcs11_tool(&again(SO_PIN)).ok();
    let _ = device.pkcs11_tool(&["--token-label", "again", "--list-objects"]).ok().says_nothing_of("Object");
    let _ = device.pkcs11_tool(&["--list-slots"]).ok().says_nothing_of("PIN initialized").says("again");
}

#[test]
fn a_token_with_an_empty_pin_needs_no_login() {
    let device = Device::new();
    let token = Token::new(&device, "iot", "");
    token.generate("EC:prime256v1", "ec", "01");
    let _ = device.pkcs11_tool(&["--list-slots"]).ok().says_nothing_of("login required");
    device.write("data", "what is signed");
    let sign = ["--sign", "--id", "01", "--mechanism", "ECDSA-SHA256", "--input-file", "data"];
    let output = ["--output-file", "signature", "--signature-format", "openssl"];
    let _ = token.tool(&[&sign[..], &output].concat()).ok();
    openssl_verifies(&device, "01", &["-sha256"]);
    // Whoever asks for a PIN all the same may give an empty one, and no other.
    let login = |pin: &str| ["--token-label", "iot", "--login", "--pin", pin, "--list-objects"].map(String::from);
    let _ = device.pkcs11_tool(&login("1234")).fails_with("CKR_PIN_INCORRECT");
}

#[test]
fn p11tool_makes_and_uses_a_token() {
    let device = Device::new();
    let p11tool = |arguments: &[&str]| {
        let mut command = device.command("p11tool");
        command.envs([("GNUTLS_PIN", PIN), ("GNUTLS_SO_PIN", SO_PIN)]);
        command.args(["--provider", &device.module(), "--batch"]).args(arguments).run()
    };
    let token = "pkcs11:token=gnu";
    let _ = p11tool(&["--initialize", "--label", "gnu", "pkcs11:model=new%20token"]).ok();
    let _ = p11tool(&["--initialize-pin", token]).ok();
    let _ = p11tool(&["--list-tokens"]).ok().says("Requires login").says("token=gnu");
    let generate = |kind: &[&str], label: &str| {
        let _ = p11tool(&[&["--login"], kind, &["--label", label, "--outfile", label, token]].concat()).ok();
        let private = format!("{token};object={label};type=private");
        let _ =
            p11tool(&["--login", "--test-sign", &private]).ok().says("Verifying against public key in the token... ok");
    };
    generate(&["--generate-privkey=rsa", "--bits", "2048"], "rsa");
    generate(&["--generate-privkey=ecdsa", "--curve", "secp256r1"], "ec");
    let request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "k", "-subj", "/CN=x"];
    let _ = device.run(&[&request[..], &["-out", "x.crt"]].concat()).ok();
    let _ = p11tool(&["--login", "--write", "--load-certificate", "x.crt", "--label", "crt", token]).ok();
    let listed = p11tool(&["--login", "--list-all", token]).ok();
    let _ = listed.says("CKA_NEVER_EXTRACTABLE; CKA_SENSITIVE").says("Type: X.509 Certificate (RSA-2048)");
    let _ = p11tool(&["--login", "--delete", &format!("{token};object=crt;type=cert")]).ok();
    let _ = p11tool(&["--list-all-certs", token]).says_nothing_of("crt");
}

#[test]
fn ssh_keygen_lists_the_public_keys_without_a_pin() {
    let device = Device::new();
    let token = Token::new(&device, "dev", PIN);
    token.generate("EC:prime256v1", "ec", "01");
    token.generate("rsa:2048", "rsa", "02");
    let _ = device.run(&["ssh-keygen", "-D", &device.module()]).ok().says("ecdsa-sha2-nistp256 ").says("ssh-rsa ");
}

#[test]
fn pkcs11_tool_finds_digests_and_random_numbers_in_order() {
    let device = Device::new();
    let token = Token::new(&device, "dev", PIN);
    let _ = token.tool(&["--test"]).ok().says("all 4 digest functions seem to work").says("seems to be OK");
    let random = token.tool(&["--generate-random", "32"]).ok();
    assert_eq!(random.bytes().len(), 32);
}
