//! What goes wrong in the field: each says what happened and what to do, and nothing else is lost.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use conformance_tests::{Device, Output, Run as _, Token};
use openssl::pkey::PKey;
use openssl::provider::Provider;

#[test]
fn a_wrong_pin_is_refused_and_named_through_both_skins() {
    let device = Device::new();
    let token = Token::new(&device, "gateway", "123456");
    token.generate("EC:prime256v1", "ec", "01");
    let wrong = ["--token-label", "gateway", "--login", "--pin", "654321", "--list-objects"];
    let _ = device.pkcs11_tool(&wrong).fails_with("CKR_PIN_INCORRECT");
    device.write("gateway.pin", "654321");
    let _ = sign(&device, &token.uri("ec")).fails_with("PIN is wrong");
    device.write("gateway.pin", "123456");
    let _ = sign(&device, &token.uri("ec")).ok();
}

#[test]
fn after_too_many_wrong_pins_the_token_is_locked_and_the_keys_of_others_go_on_working() {
    let device = Device::new();
    let (gateway, sensor) = (Token::new(&device, "gateway", "123456"), Token::new(&device, "sensor", ""));
    gateway.generate("EC:prime256v1", "ec", "01");
    sensor.generate("EC:prime256v1", "ec", "01");
    let login = |pin| device.pkcs11_tool(&["--token-label", "gateway", "--login", "--pin", pin, "--list-objects"]);
    let mut refusals = Vec::new();
    while refusals.len() < 10 && !refusals.last().is_some_and(|said: &String| said.contains("CKR_PIN_LOCKED")) {
        refusals.push(login("654321").fails().stderr());
    }
    assert!(refusals.len() > 1 && refusals[0].contains("CKR_PIN_INCORRECT"), "{refusals:?}");
    let _ = login("123456").fails_with("CKR_PIN_LOCKED");
    let _ = sign(&device, &gateway.uri("ec")).fails_with("refuses PINs for now");
    let _ = sign(&device, &sensor.uri("ec")).ok();
    let _ = device.run(&["tpm2_dictionarylockout", "--clear-lockout"]).ok();
    let _ = login("123456").ok();
}

#[test]
fn without_a_tpm_everything_public_works_and_the_rest_says_where_it_looked() {
    let device = Device::new();
    let token = Token::new(&device, "sensor", "");
    token.generate("EC:prime256v1", "ec", "01");
    device.stop_tpm();
    let _ = device.pkcs11_tool(&["--list-slots"]).ok().silent().says("sensor");
    let _ = token.tool(&["--list-objects"]).ok().silent().says("Private Key");
    let _ = device.openssl(&["pkey", "-in", &token.uri("ec"), "-pubout"]).ok().silent();
    let _ = sign(&device, &token.uri("ec")).fails_with(&device.tcti());
    let mut command = device.command("pkcs11-tool");
    command.env("KEYRIVET_LOG", "error").args(["--module", &device.module(), "--token-label", "sensor"]);
    let _ = command.args(SIGN_BY_TOOL).run().fails_with("no TPM at");
    device.start_tpm();
    let _ = sign(&device, &token.uri("ec")).ok();
}

#[test]
fn a_store_that_may_only_be_read_can_be_used_and_says_so_when_it_is_written_to() {
    let device = Device::new();
    let token = Token::new(&device, "sensor", "");
    token.generate("EC:prime256v1", "ec", "01");
    for_each_path(&device.store(), &|path| {
        let mode = if path.is_dir() { 0o500 } else { 0o400 };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    });
    let module = device.module();
    let tool = |arguments: &[&str]| {
        let words = [&["--module", &module, "--token-label", "sensor"], arguments].concat();
        powerless(&device, "pkcs11-tool").env("KEYRIVET_LOG", "error").args(words).run()
    };
    let _ = tool(&["--list-objects"]).ok().says("Private Key");
    let _ = tool(&SIGN_BY_TOOL).ok();
    let _ = tool(&["--keypairgen", "--key-type", "EC:prime256v1", "--label", "second", "--id", "02"])
        .fails_with("may not write");
    let _ = tool(&["--delete-object", "--type", "privkey", "--id", "01"]).fails_with("may not write");
    let _ = tool(&["--list-objects"]).ok().says("Private Key");
    for_each_path(&device.store(), &|path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
    });
}

#[test]
fn a_corrupt_object_file_loses_one_object_and_is_named() {
    let device = Device::new();
    let token = Token::new(&device, "sensor", "");
    token.generate("EC:prime256v1", "first", "01");
    token.generate("EC:prime256v1", "second", "02");
    let path = object_file(&device, "first");
    std::fs::write(&path, "label = 'first'\n-----BEGIN TSS2 PRIVATE KEY-----\nrubbish\n").unwrap();
    let mut command = device.command("pkcs11-tool");
    command.env("KEYRIVET_LOG", "error").args(["--module", &device.module(), "--token-label", "sensor"]);
    let listing = command.arg("--list-objects").run().ok().says("second").says("is damaged");
    let _ = listing.says(&path.file_name().unwrap().to_string_lossy());
    let _ = token.tool(&["--list-objects"]).ok().silent().says("second");
    let _ = sign(&device, &token.uri("second")).ok();
    let _ = sign(&device, &token.uri("first")).fails();
}

#[test]
fn an_unknown_configuration_key_is_named_and_breaks_nobody_elses_openssl() {
    let device = Device::new();
    device.write("keyrivet.toml", "lock_dirr = '/tmp'\n");
    device.write(
        "plain.key",
        device.run(&["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "group:P-256"]).ok().bytes(),
    );
    let _ = sign(&device, "plain.key").ok();
    let _ = sign(&device, "pkcs11:token=sensor;object=ec").fails_with("lock_dirr");
    let mut command = device.command("pkcs11-tool");
    command.env("KEYRIVET_LOG", "error").args(["--module", &device.module(), "--list-slots"]);
    assert!(command.run().stderr().contains("lock_dirr"));
}

#[test]
fn a_wrong_word_in_keyrivet_log_is_named_by_whoever_would_write() {
    let device = Device::new();
    Token::new(&device, "sensor", "").generate("EC:prime256v1", "ec", "01");
    for (words, said) in [("error, debug", "KEYRIVET_LOG: there is no 'debug'"), ("error,", ""), ("all", "")] {
        let mut command = device.command("pkcs11-tool");
        command.env("KEYRIVET_LOG", words).args(["--module", &device.module(), "--token-label", "sensor"]);
        let stderr = command.args(SIGN_BY_TOOL).run().ok().stderr();
        assert_eq!(stderr.contains("KEYRIVET_LOG"), !said.is_empty(), "{words}: {stderr}");
        assert!(stderr.contains(said), "{words}: {stderr}");
    }
}

#[test]
fn the_log_names_the_attribute_that_a_template_is_refused_for() {
    let device = Device::new();
    let _ = Token::new(&device, "sensor", "");
    let mut command = device.command("pkcs11-tool");
    command.env("KEYRIVET_LOG", "error").args(["--module", &device.module(), "--token-label", "sensor"]);
    command.args(["--keypairgen", "--key-type", "EC:prime256v1", "--label", "ec", "--extractable"]);
    let _ = command.run().fails_with("keyrivet: error: template: CKA_EXTRACTABLE (0x162): such objects do not have it");
}

#[test]
fn malformed_key_files_say_what_is_wrong_with_them() {
    let device = Device::new();
    device.enter();
    let _default = Provider::load(None, "default").expect("OpenSSL has its default provider");
    let _ours = Provider::load(None, "keyrivet").expect("our provider can be loaded");
    let (begin, end) = ("-----BEGIN TSS2 PRIVATE KEY-----\n", "-----END TSS2 PRIVATE KEY-----\n");
    for body in ["MIIB\n", "AAAAAAAA\n", "", "*not base64*\n"] {
        let pem = format!("{begin}{body}{end}");
        let errors = PKey::private_key_from_pem(pem.as_bytes()).expect_err("that is no key").to_string();
        assert!(errors.contains("malformed"), "{body:?}: {errors}");
    }
    // The openssl command drops what decoders say, and keeps only that nobody understood the file.
    device.write("cut.pem", format!("{begin}MIIB\n{end}"));
    let mut command = device.command("openssl");
    command.env("OPENSSL_CONF", device.openssl_conf()).env("KEYRIVET_LOG", "error").args(["pkey", "-in", "cut.pem"]);
    let _ = command.run().fails_with("malformed");
}

#[test]
fn malformed_uris_say_what_is_wrong_with_them() {
    let device = Device::new();
    for uri in ["pkcs11:token=%zz", "pkcs11:type=poem", "pkcs11:token=a;token=b", "pkcs11:nonsense"] {
        let _ = sign(&device, uri).fails_with("malformed");
    }
    let _ = sign(&device, "pkcs11:token=nobody;object=ec;type=private").fails();
}

const SIGN_BY_TOOL: [&str; 9] =
    ["--sign", "--id", "01", "--mechanism", "ECDSA-SHA256", "-i", "openssl.cnf", "-o", "signature"];

fn sign(device: &Device, key: &str) -> Output {
    device.openssl(&["dgst", "-sha256", "-sign", key, "-out", "signature", "openssl.cnf"])
}

/// The file of the object with this label in the store.
fn object_file(device: &Device, label: &str) -> PathBuf {
    let found = std::cell::RefCell::new(None);
    for_each_path(&device.store(), &|path| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if path.extension().is_some_and(|extension| extension == "pem")
            && text.contains(&format!("label = \"{label}\""))
        {
            found.replace(Some(path.to_owned()));
        }
    });
    found.into_inner().unwrap_or_else(|| panic!("no object '{label}' in the store"))
}

/// Files before the directory they are in, so that either may lose or win permissions.
fn for_each_path(path: &Path, work: &dyn Fn(&Path)) {
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        for_each_path(&entry.path(), work);
    }
    work(path);
}

/// A program for which file permissions count, for root too.
fn powerless(device: &Device, program: &str) -> std::process::Command {
    if device.run(&["id", "-u"]).ok().stdout().trim() != "0" {
        return device.command(program);
    }
    let mut command = device.command("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all", program]);
    command
}

#[test]
fn a_program_with_more_rights_than_its_user_does_not_believe_the_environment() {
    let device = Device::new();
    if device.run(&["id", "-u"]).ok().stdout().trim() != "0" {
        eprintln!("NOT TESTED: only root can give a program more rights");
        return;
    }
    let _ = Token::new(&device, "the-systems", "");
    let (system, users) = (device.store(), device.path("users"));
    std::fs::rename(&system, device.path("system")).unwrap();
    let _ = Token::new(&device, "the-users-own", "");
    std::fs::rename(&system, &users).unwrap();
    // An /etc with our configuration in it, for this program alone.
    let script = r#"
        cp -a /etc etc && mkdir -p etc/keyrivet && mount --bind etc /etc
        printf "lock_dir = '%s/lock'\nstore = '%s/system'\ntcti = '%s'\n" "$PWD" "$PWD" "$KEYRIVET_TCTI" > /etc/keyrivet/keyrivet.toml
        cp "$(command -v pkcs11-tool)" tool && chmod 4755 tool && chmod 755 .
        export KEYRIVET_STORE="$PWD/users" KEYRIVET_LOG=all TSS2_LOG=all+trace TSS2_LOGFILE="$PWD/written-as-root"
        "$@" ./tool --module "$PKCS11_MODULE_PATH" --list-slots
        "$@" ./tool --module "$PKCS11_MODULE_PATH" --slot-index 0 --keypairgen --key-type EC:prime256v1
    "#;
    let run = |by: &[&str]| {
        let mut command = device.command("unshare");
        command.args(["--mount", "sh", "-euc", script, "sh"]).args(by).run()
    };
    let privileged = run(&["setpriv", "--reuid=65534", "--clear-groups"]).ok();
    let _ = privileged.says("the-systems").says_nothing_of("the-users-own").says_nothing_of("keyrivet:");
    assert!(!device.path("written-as-root").exists());
    // By whose rights it runs anyhow, it is as any other.
    let _ = run(&["env"]).ok().says("the-users-own").says_nothing_of("the-systems");
    assert!(device.path("written-as-root").exists());
}
