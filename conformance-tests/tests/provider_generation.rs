//! Keys made by `openssl genpkey` as its options say, and what the provider's section of openssl.cnf says.

mod activation;

use activation::{ALL, Activation, plain_openssl};
use conformance_tests::{Device, Run as _, Token};

const MAKE_EC: &str = "genpkey -propquery provider=keyrivet -algorithm EC -pkeyopt group:P-256";

fn run(device: &Device, line: &str) -> conformance_tests::Output {
    Activation::DefaultFirst.openssl(device, line)
}

/// Runs tpm2-tools, and flushes what they leave.
fn tools(device: &Device, line: &str) {
    let _ = device.run(&line.split_whitespace().collect::<Vec<_>>()).ok();
    let _ = device.run(&["tpm2_flushcontext", "-t"]).ok();
}

/// `key.pem` requests a certificate for these commands.
fn requests_for(device: &Device, more: &str, commands: &[&str]) {
    let cost = device.cost_of(|| {
        let _ = run(device, &format!("req -new -key key.pem -subj /CN=x -out x.csr {more}")).ok().silent();
    });
    assert_eq!(cost, commands);
    let _ = plain_openssl(device, "req -in x.csr -noout -verify").ok().says("verify OK");
}

#[test]
fn every_size_and_curve_that_the_tpm_has_is_made() {
    let device = Device::new();
    for (algorithm, option, says) in [
        ("RSA", "rsa_keygen_bits:3072", "3072 bit"),
        ("RSA", "bits:2048", "2048 bit"),
        ("RSA", "rsa_keygen_pubexp:65537", "publicExponent: 65537"),
        ("EC", "ec_paramgen_curve:P-384", "NIST CURVE: P-384"),
        ("EC", "group:secp521r1", "NIST CURVE: P-521"),
    ] {
        device.new_key_file([algorithm, option], "key.pem");
        let _ = run(&device, "pkey -in key.pem -noout -text").ok().says(says).says("in the TPM");
        let _ = run(&device, "dgst -sha256 -sign key.pem -out s key.pem").ok().silent();
    }
    for (options, says) in [
        ("-algorithm RSA -pkeyopt rsa_keygen_pubexp:3", "65537"),
        ("-algorithm RSA -pkeyopt rsa_keygen_primes:3", "two primes"),
        ("-algorithm RSA -pkeyopt rsa_keygen_bits:70000", "70000 bits"),
        ("-algorithm RSA -pkeyopt rsa_keygen_bits:1024", "2048 is the least"),
        ("-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:1024", "2048 is the least"),
        ("-algorithm EC -pkeyopt group:P-256 -pkeyopt ec_param_enc:explicit", "explicit"),
        ("-algorithm EC", "without a curve"),
        ("-algorithm EC -pkeyopt group:P-256 -pkeyopt parent:0x123", "parent"),
        ("-algorithm EC -pkeyopt group:P-256 -pkeyopt parent:x", "a parent is a handle"),
        ("-algorithm EC -pkeyopt group:P-256 -pkeyopt pcrs:x", "names no PCRs"),
        ("-algorithm EC -pkeyopt group:P-256 -pkeyopt hexpolicy:00", "set pcrs too"),
        ("-algorithm EC -pkeyopt group:P-256 -pkeyopt uri:pkcs11:token=x -pkeyopt parent:owner", "its own parent"),
    ] {
        let refused = run(&device, &format!("genpkey -propquery provider=keyrivet {options} -out x.pem"));
        let _ = refused.fails_with(says);
    }
}

#[test]
fn keys_are_made_under_the_parent_that_is_named() {
    let device = Device::new();
    tools(
        &device,
        "tpm2_createprimary -Q -C o -G rsa -a fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt -c p.ctx",
    );
    tools(&device, "tpm2_evictcontrol -Q -C o -c p.ctx 0x81000007");
    let _ = run(&device, &format!("{MAKE_EC} -pkeyopt parent:0x81000007 -out key.pem")).ok();
    requests_for(&device, "", &["Load", "Sign", "FlushContext"]);
    for parent in ["owner", "null", "endorsement"] {
        let _ = run(&device, &format!("{MAKE_EC} -pkeyopt parent:{parent} -out key.pem")).ok();
        requests_for(&device, "", &["CreatePrimary", "Load", "FlushContext", "Sign", "FlushContext"]);
    }
    let text = plain_openssl(&device, "asn1parse -in key.pem").ok();
    let _ = text.says("4000000B");
}

#[test]
fn a_key_files_authorisation_value_is_asked_for_and_protected() {
    let device = Device::new();
    let _token = Token::new(&device, "any", "");
    let _ = run(&device, &format!("{MAKE_EC} -pkeyopt user-auth:hunter2secret -out key.pem")).ok();
    requests_for(
        &device,
        "-passin pass:hunter2secret",
        &["ReadPublic", "StartAuthSession", "Load", "Sign", "FlushContext"],
    );
    let wrong = "req -new -key key.pem -subj /CN=x -out x.csr -passin pass:hunter3secret";
    let _ = run(&device, wrong).fails_with("the PIN is wrong");
    let bytes = device.tpm_bytes();
    assert!(!bytes.windows(13).any(|window| window == b"hunter2secret"), "the value crossed the bus");
}

#[test]
fn a_parents_authorisation_value_comes_with_the_option_or_from_the_configuration() {
    let device = Device::new();
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
    tools(&device, &format!("tpm2_createprimary -Q -C o -G ecc -p parentsecret -a {attributes} -c p.ctx"));
    tools(&device, "tpm2_evictcontrol -Q -C o -c p.ctx 0x81000007");
    let make = format!("{MAKE_EC} -pkeyopt parent:0x81000007 -out key.pem");
    let _ = run(&device, &make).fails_with("[[parent]]");
    let _ = run(&device, &format!("{make} -pkeyopt parent-auth:wrong")).fails_with("[[parent]]");
    let _ = run(&device, &format!("{make} -pkeyopt parent-auth:parentsecret")).ok();
    let request = "req -new -key key.pem -subj /CN=x -out x.csr";
    let _ = run(&device, request).fails_with("the parent 0x81000007 of this key has another authorisation value");
    device.write("parent.auth", "parentsecret");
    let plain = String::from_utf8(device.read("keyrivet.toml")).expect("text");
    let entry = |handle: &str| format!("[[parent]]\nhandle = {handle}\nauth_file = 'parent.auth'\n");
    device.write("keyrivet.toml", format!("{plain}{}", entry("0x81000007")));
    requests_for(&device, "", &["ReadPublic", "StartAuthSession", "Load", "Sign", "FlushContext", "FlushContext"]);
    let _ = run(&device, &make).ok();
    requests_for(&device, "", &["ReadPublic", "StartAuthSession", "Load", "Sign", "FlushContext", "FlushContext"]);
    // A hierarchy, whose primary key is made each time.
    tools(&device, "tpm2_changeauth -c o ownersecret");
    device.write("parent.auth", "ownersecret");
    device.write("keyrivet.toml", format!("{plain}{}", entry("0x40000001")));
    let _ = run(&device, &format!("{MAKE_EC} -pkeyopt parent:owner -out key.pem")).ok();
    let _ = run(&device, request).ok().silent();
    device.write("keyrivet.toml", &plain);
    let _ = run(&device, request).fails_with("the parent 0x40000001 of this key has another authorisation value");
    let _ =
        run(&device, &format!("{MAKE_EC} -pkeyopt parent:owner -pkeyopt parent-auth:ownersecret -out key.pem")).ok();
}

#[test]
fn keys_are_bound_to_pcrs_by_an_option() {
    let device = Device::new();
    let _token = Token::new(&device, "any", "123456");
    let extend = ["tpm2_pcrextend", "16:sha256=0000000000000000000000000000000000000000000000000000000000000001"];
    let uri = "pkcs11:token=any;object=bound?pin-value=123456";
    for (options, key) in [
        ("-pkeyopt pcrs:sha256:16".into(), "key.pem"),
        ("-pkeyopt pcrs:sha256:16 -pkeyopt user-auth:123456".into(), "key.pem"),
        (format!("-pkeyopt pcrs:sha256:16 -pkeyopt uri:{uri}"), uri),
    ] {
        let _ = run(&device, &format!("{MAKE_EC} {options} -out key.pem")).ok();
        let request = format!("req -new -key {key} -subj /CN=x -out x.csr -passin pass:123456");
        let _ = run(&device, &request).ok().silent();
        let _ = plain_openssl(&device, "req -in x.csr -noout -verify").ok().says("verify OK");
        let _ = device.run(&extend).ok();
        let _ = run(&device, &request).fails_with("the PCRs that this key is bound to have other values");
        let _ = device.run(&["tpm2_pcrreset", "16"]).ok();
        let _ = run(&device, &request).ok().silent();
    }
    // A digest of values to come: those after the extension.
    tools(&device, extend.join(" ").as_str());
    tools(&device, "tpm2_startauthsession -S session");
    tools(&device, "tpm2_policypcr -S session -l sha256:16 -L policy");
    tools(&device, "tpm2_flushcontext session");
    let _ = device.run(&["tpm2_pcrreset", "16"]).ok();
    let policy: String = device.read("policy").iter().map(|byte| format!("{byte:02x}")).collect();
    let _ = run(&device, &format!("{MAKE_EC} -pkeyopt pcrs:sha256:16 -pkeyopt hexpolicy:{policy} -out key.pem")).ok();
    let request = "req -new -key key.pem -subj /CN=x -out x.csr";
    let _ = run(&device, request).fails_with("policy does not allow");
    let _ = device.run(&extend).ok();
    let _ = run(&device, request).ok().silent();
}

#[test]
fn random_numbers_come_from_the_tpm_only_where_it_is_asked_for() {
    let device = Device::new();
    for activation in ALL {
        let cost = device.cost_of(|| {
            let _ = activation.openssl(&device, "rand -hex 100").ok().silent();
        });
        assert!(cost.is_empty(), "{activation:?}");
    }
    let configuration = Activation::DefaultFirst.configuration(&device);
    let text = std::fs::read_to_string(&configuration).expect("it was written a moment ago");
    let random = "[random]\nrandom = TPM2-RNG\nproperties = provider=keyrivet\n";
    device.write("random.cnf", text.replacen("[init]\n", "[init]\nrandom = random\n", 1) + random);
    let rand = || device.command("openssl").env("OPENSSL_CONF", "random.cnf").args(["rand", "-hex", "100"]).run().ok();
    let cost = device.cost_of(|| assert_ne!(rand().stdout(), rand().stdout()));
    assert!(cost.len() >= 8 && cost.iter().all(|name| name == "GetRandom"), "{cost:?}");
    let sent = device.tpm_bytes();
    let shown = rand().stdout();
    let bytes: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&shown[2 * at..2 * at + 2], 16).expect("hex")).collect();
    assert!(!sent.windows(8).any(|window| window == &bytes[..8]));
}

#[test]
fn tcti_store_and_configuration_may_stand_in_openssl_cnf() {
    let device = Device::new();
    let token = Token::new(&device, "dev", "");
    token.generate("EC:prime256v1", "ec", "01");
    let configuration = Activation::DefaultFirst.configuration(&device);
    let text = std::fs::read_to_string(&configuration).expect("it was written a moment ago");
    let with = |lines: &str| {
        let section = format!("[keyrivet_provider]\n{lines}");
        device.write("own.cnf", text.replacen("[keyrivet_provider]\n", &section, 1));
        let mut command = device.command("openssl");
        for name in ["KEYRIVET_TCTI", "KEYRIVET_STORE", "KEYRIVET_CONFIG", "TPM2TOOLS_TCTI"] {
            command.env_remove(name);
        }
        command.env("OPENSSL_CONF", "own.cnf");
        command.args(["dgst", "-sha256", "-sign", &token.uri("ec"), "-out", "s", "own.cnf"]).run()
    };
    let (tcti, store) = (format!("tcti = {}\n", device.tcti()), format!("store = {}\n", device.store().display()));
    let config = format!("config = {}\n", device.path("keyrivet.toml").display());
    let _ = with(&[&tcti[..], &store, &config].concat()).ok().silent();
    device.write("whole.toml", format!("tcti = '{}'\nstore = '{}'\n", device.tcti(), device.store().display()));
    let _ = with(&format!("config = {}\n", device.path("whole.toml").display())).ok().silent();
    let _ = with(&[&store[..], &config, "tcti = swtpm:path=/nowhere\n"].concat()).fails_with("/nowhere");
    let _ = with(&[&tcti[..], &config, "store = /nowhere\n"].concat()).fails();
    let _ = with("config = /nowhere.toml\n").fails_with("/nowhere.toml");
}

#[test]
fn a_key_of_a_token_stays_in_the_tpm_where_that_is_asked_for() {
    let device = Device::new();
    let token = Token::new(&device, "dev", "");
    let into = format!("-pkeyopt uri:{} -pkeyopt persistent:1", token.uri("ec"));
    let _ = run(&device, &format!("{MAKE_EC} {into} -out key.pem")).ok();
    let _ = device.run(&["tpm2_getcap", "handles-persistent"]).ok().says("0x81008000");
    let request = format!("req -new -key {} -subj /CN=x -out x.csr", token.uri("ec"));
    let cost = device.cost_of(|| drop(run(&device, &request).ok().silent()));
    assert_eq!(cost, ["ReadPublic", "Sign"]);
    let _ = run(&device, &format!("{MAKE_EC} -pkeyopt persistent:1 -out other.pem")).fails_with("give a uri");
}

#[test]
fn a_key_after_the_model_of_one_in_the_tpm_is_one_in_the_tpm() {
    let device = Device::new();
    // This program makes a key, and then another after its model.
    let made = Activation::KeyrivetFirst.openssl(&device, "ecparam -name prime256v1 -genkey -noout -out key.pem").ok();
    let _ = made.silent();
    assert!(String::from_utf8_lossy(&device.read("key.pem")).starts_with("-----BEGIN TSS2 PRIVATE KEY-----"));
    let _ = Activation::KeyrivetFirst.openssl(&device, "req -new -key key.pem -subj /CN=x -out x.csr").ok();
    let _ = plain_openssl(&device, "req -in x.csr -noout -verify").ok().says("verify OK");
}

#[test]
fn the_tpm_seeds_other_generators_where_that_is_asked_for() {
    let device = Device::new();
    let configuration = Activation::DefaultFirst.configuration(&device);
    let text = std::fs::read_to_string(&configuration).expect("it was written a moment ago");
    let random = "[random]\nseed = TPM2-RNG\nseed_properties = provider=keyrivet\n";
    device.write("seed.cnf", text.replacen("[init]\n", "[init]\nrandom = random\n", 1) + random);
    let rand = || device.command("openssl").env("OPENSSL_CONF", "seed.cnf").args(["rand", "-hex", "100"]).run().ok();
    let cost = device.cost_of(|| assert_ne!(rand().stdout(), rand().stdout()));
    assert!(cost.len() >= 2 && cost.iter().all(|name| name == "GetRandom"), "{cost:?}");
}

#[test]
fn a_storage_root_key_that_the_lockout_covers_is_no_parent_of_unattended_keys() {
    let device = Device::new();
    // What tpm2-tools make without a word about noda.
    tools(&device, "tpm2_createprimary -Q -C o -G ecc256 -c srk.ctx");
    tools(&device, "tpm2_evictcontrol -Q -C o -c srk.ctx 0x81000001");
    let _ = run(&device, &format!("{MAKE_EC} -out key.pem")).ok();
    device.mark();
    let long = format!("{MAKE_EC} -pkeyopt user-auth:{} -out long.pem", "x".repeat(33));
    let _ = run(&device, &long).fails_with("at most 32 bytes");
    assert!(device.attacks().is_empty());
    for _ in 0..3 {
        let _ = run(&device, "dgst -sha256 -sign key.pem -out s openssl.cnf").ok();
        device.restart_tpm(false);
    }
    assert_eq!(device.lockout_counter(), "0x0");
    // An owner who keeps the hierarchy to himself has to say which it shall be.
    let _ = device.run(&["tpm2_changeauth", "-c", "o", "owner-auth"]).ok();
    let _ = run(&device, &format!("{MAKE_EC} -out key.pem")).fails_with("-pkeyopt parent:0x81000001");
    let _ = run(&device, &format!("{MAKE_EC} -pkeyopt parent:0x81000001 -out key.pem")).ok();
    let _ = run(&device, "dgst -sha256 -sign key.pem -out s openssl.cnf").ok();
}

#[test]
fn a_storage_root_key_with_an_authorisation_value_is_named() {
    let device = Device::new();
    let storage = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
    tools(&device, &format!("tpm2_createprimary -Q -C o -G ecc256 -a {storage} -p secret -c srk.ctx"));
    tools(&device, "tpm2_evictcontrol -Q -C o -c srk.ctx 0x81000001");
    let said = "the storage root key at 0x81000001 has an authorisation value";
    let _ = run(&device, &format!("{MAKE_EC} -out key.pem")).fails_with(said);
    let mut command = device.command("pkcs11-tool");
    command.env("KEYRIVET_LOG", "error").args(["--module", &device.module(), "--init-token", "--slot-index", "0"]);
    let _ = command.args(["--label", "x", "--so-pin", "12345678"]).run().fails_with(said);
}
