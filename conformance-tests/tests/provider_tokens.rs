//! Tokens through the provider: `pkcs11:` URIs, the PINs they need, and the tokens' own key files.

mod activation;

use std::path::PathBuf;

use activation::{ALL, Activation, plain_openssl};
use conformance_tests::{Device, Output, Token};

const PIN: &str = "123456";
const COLD: [&str; 3] = ["Load", "Sign", "FlushContext"];
const COLD_WITH_PIN: [&str; 7] = ["StartAuthSession", "Load", "Unseal", "FlushContext", "Load", "Sign", "FlushContext"];

#[test]
fn a_key_made_by_pkcs11_tool_signs_by_its_uri() {
    let device = Device::new();
    let token = Token::new(&device, "sensor", "");
    for (kind, label) in [("EC:prime256v1", "ec"), ("rsa:2048", "rsa")] {
        token.generate(kind, label, "01");
        for activation in ALL {
            let cost = device.cost_of(|| {
                let _ = request(&device, activation, &token.uri(label), "").ok().silent();
            });
            assert_eq!(cost, COLD, "{activation:?}");
            let _ = plain_openssl(&device, "req -in x.csr -noout -verify").ok().says("verify OK");
        }
        let _ = token.tool(&["--delete-object", "--type", "privkey", "--label", label]).ok();
    }
}

#[test]
fn a_pin_comes_from_the_uri_a_file_or_the_prompt() {
    let device = Device::new();
    let token = Token::new(&device, "gateway", PIN);
    token.generate("EC:prime256v1", "ec", "01");
    device.write("pin", format!("{PIN}\n"));
    let key = "pkcs11:token=gateway;object=ec;type=private";
    let file = device.path("pin").display().to_string();
    for activation in ALL {
        for (uri, prompt) in [
            (format!("{key}?pin-value={PIN}"), String::new()),
            (format!("{key};pin-value={PIN}"), String::new()),
            (format!("{key}?pin-source=file:{file}"), String::new()),
            (format!("{key}?pin-source={file}"), String::new()),
            (key.into(), format!("-passin pass:{PIN}")),
            (key.into(), format!("-passin file:{file}")),
        ] {
            let cost = device.cost_of(|| {
                let _ = request(&device, activation, &uri, &prompt).ok().silent();
            });
            assert_eq!(cost, COLD_WITH_PIN, "{uri} {prompt} {activation:?}");
        }
    }
}

#[test]
fn a_wrong_pin_is_refused_and_named_and_the_right_one_goes_on_working() {
    let device = Device::new();
    let token = Token::new(&device, "gateway", PIN);
    token.generate("EC:prime256v1", "ec", "01");
    for activation in ALL {
        let key = "pkcs11:token=gateway;object=ec";
        let _ = request(&device, activation, key, "-passin pass:654321").fails_with("the PIN is wrong");
        let _ = request(&device, activation, key, &format!("-passin pass:{PIN}")).ok();
        let _ = device.run(&["tpm2_dictionarylockout", "--clear-lockout"]).ok();
    }
}

#[test]
fn a_tokens_own_file_is_a_key_file_and_asks_for_the_tokens_pin() {
    let device = Device::new();
    let (gateway, sensor) = (Token::new(&device, "gateway", PIN), Token::new(&device, "sensor", ""));
    gateway.generate("EC:prime256v1", "locked", "01");
    sensor.generate("EC:prime256v1", "open", "01");
    for activation in ALL {
        let (locked, open) = (object_file(&device, "locked"), object_file(&device, "open"));
        let pin = format!("-passin pass:{PIN}");
        let cost = device.cost_of(|| {
            let _ = request(&device, activation, &locked, &pin).ok().silent();
        });
        assert_eq!(cost, COLD_WITH_PIN);
        let _ = request(&device, activation, &locked, "-passin pass:wrong1").fails_with("the PIN is wrong");
        let cost = device.cost_of(|| {
            let _ = request(&device, activation, &open, "").ok().silent();
        });
        assert_eq!(cost, COLD);
    }
}

#[test]
fn a_key_generated_by_openssl_into_a_token_is_listed_by_pkcs11_tool() {
    let device = Device::new();
    let token = Token::new(&device, "gateway", PIN);
    for (algorithm, option, label, listed) in
        [("EC", "group:P-384", "ec", "EC_POINT 384 bits"), ("RSA", "rsa_keygen_bits:2048", "rsa", "RSA 2048 bits")]
    {
        let uri = format!("uri:pkcs11:token=gateway;object={label};id=%0a?pin-value={PIN}");
        let generate = format!(
            "genpkey -propquery provider=keyrivet -algorithm {algorithm} -pkeyopt {option} -pkeyopt {uri} -out {label}.pem"
        );
        let _ = Activation::DefaultFirst.openssl(&device, &generate).ok();
        let objects = token.tool(&["--list-objects"]).ok().says(listed).says(label).says("0a");
        let _ = objects.says("sensitive, always sensitive, never extractable, local");
        // What genpkey wrote is the token's key, not a second one.
        let _ =
            request(&device, Activation::DefaultFirst, &format!("{label}.pem"), &format!("-passin pass:{PIN}")).ok();
        let _ = Activation::DefaultFirst.openssl(&device, &generate).fails_with("the token has one already");
        let _ = request(&device, Activation::DefaultFirst, &token.uri(label), "").ok();
        let _ = token.tool(&["--delete-object", "--type", "privkey", "--label", label]).ok();
    }
}

#[test]
fn certificates_and_public_keys_are_loaded_without_pin_and_without_the_tpm() {
    let device = Device::new();
    let token = Token::new(&device, "gateway", PIN);
    token.generate("EC:prime256v1", "ec", "01");
    let pin = format!("-passin pass:{PIN}");
    let root =
        format!("req -x509 -new -key pkcs11:token=gateway;object=ec {pin} -subj /CN=gateway -outform DER -out x.der");
    let _ = Activation::DefaultFirst.openssl(&device, &root).ok();
    let _ = token.tool(&["--write-object", "x.der", "--type", "cert", "--label", "ec", "--id", "01"]).ok();
    device.mark();
    for activation in ALL {
        let run = |line: &str| activation.openssl(&device, line);
        let _ = run("x509 -in pkcs11:token=gateway;object=ec -noout -subject -nameopt RFC2253")
            .ok()
            .silent()
            .says("CN=gateway");
        let _ = run("storeutl -noout -certs pkcs11:token=gateway").ok().silent().says("Total found: 1");
        let public = run("storeutl pkcs11:token=gateway;type=public").ok().silent().says("BEGIN PUBLIC KEY");
        let _ = public.says("Total found: 1");
        let _ = run("storeutl -noout pkcs11:token=gateway;type=cert").ok().silent().says("0: Certificate");
        let _ = run("pkey -pubin -in pkcs11:token=gateway;object=ec;type=public -noout -text").ok().says("Public-Key");
    }
    assert!(device.commands().is_empty());
    let _ = Activation::DefaultFirst
        .openssl(&device, &format!("storeutl -noout {pin} pkcs11:"))
        .ok()
        .says("Total found: 3");
}

#[test]
fn a_file_that_holds_a_uri_is_a_key_file() {
    let device = Device::new();
    let token = Token::new(&device, "sensor", "");
    token.generate("EC:prime256v1", "ec", "01");
    token.generate("rsa:2048", "rsa", "02");
    for label in ["ec", "rsa"] {
        device.wrap_uri(&format!("pkcs11:token=sensor;object={label};type=private"), "wrapped.pem");
        for activation in ALL {
            let cost = device.cost_of(|| {
                let _ = request(&device, activation, "wrapped.pem", "").ok().silent();
            });
            assert_eq!(cost, COLD);
            let _ = activation.openssl(&device, "pkey -in wrapped.pem -pubout").ok().silent().says("PUBLIC KEY");
        }
    }
    let gateway = Token::new(&device, "gateway", PIN);
    gateway.generate("EC:prime256v1", "ec", "01");
    device.wrap_uri("pkcs11:token=gateway;object=ec", "wrapped.pem");
    for activation in ALL {
        let _ = request(&device, activation, "wrapped.pem", &format!("-passin pass:{PIN}")).ok().silent();
        let _ = request(&device, activation, "wrapped.pem", "-passin pass:wrong1").fails_with("the PIN is wrong");
    }
    device.wrap_uri("pkcs11:token=nobody;object=ec", "wrapped.pem");
    let _ = request(&device, Activation::DefaultFirst, "wrapped.pem", "").fails_with("'nobody'");
    device.wrap_uri("pkcs11:token=%z", "wrapped.pem");
    let _ = request(&device, Activation::DefaultFirst, "wrapped.pem", "").fails_with("malformed PKCS#11 PROVIDER URI");
}

#[test]
fn a_uri_that_names_nothing_says_what_it_did_not_find() {
    let device = Device::new();
    let token = Token::new(&device, "sensor", "");
    token.generate("EC:prime256v1", "ec", "01");
    for activation in ALL {
        let _ = request(&device, activation, "pkcs11:token=gateway;object=ec", "").fails_with("'gateway'");
        let _ = request(&device, activation, "pkcs11:token=sensor;object=rsa", "").fails_with("'rsa'");
        let _ = request(&device, activation, "pkcs11:token=sensor;id=%02", "").fails_with("not found");
        let _ = request(&device, activation, "pkcs11:token=sensor;object=ec?pin-source=|id", "").ok();
    }
}

fn request(device: &Device, activation: Activation, key: &str, more: &str) -> Output {
    activation.openssl(device, &format!("req -new -key {key} -subj /CN=x -out x.csr {more}"))
}

/// The file of the object with this label in the store.
fn object_file(device: &Device, label: &str) -> String {
    let files = |folder: PathBuf| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let found = files(device.store()).filter(|path| path.is_dir()).flat_map(files).find(|path| {
        let content = std::fs::read_to_string(path).unwrap_or_default();
        path.extension().is_some_and(|extension| extension == "pem")
            && content.contains(&format!("label = \"{label}\""))
    });
    found.unwrap().to_str().unwrap().to_owned()
}
