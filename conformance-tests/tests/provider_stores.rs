//! What `openssl` finds by URI: tokens, persistent keys, NV indices, files of tpm2-tools.

mod activation;

use activation::{ALL, Activation, plain_openssl};
use conformance_tests::{Device, Run as _, Token};

const HANDLE: &str = "0x81010001";

/// Runs tpm2-tools.
fn tools(device: &Device, line: &str) {
    let _ = device.run(&line.split_whitespace().collect::<Vec<_>>()).ok();
    // Nothing keeps its objects apart from those of the next one.
    let _ = device.run(&["tpm2_flushcontext", "-t"]).ok();
}

/// Puts a key made by tpm2-tools at [`HANDLE`], and its serialised form in `key.object`.
fn persistent_key(device: &Device, kind: &str, auth: &str) {
    let auth = if auth.is_empty() { String::new() } else { format!("-p {auth}") };
    tools(device, "tpm2_createprimary -Q -C o -G ecc -c primary.ctx");
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|sign|decrypt";
    tools(
        device,
        &format!("tpm2_create -Q -C primary.ctx -G {kind} {auth} -a {attributes} -u key.public -r key.private"),
    );
    tools(device, "tpm2_load -Q -C primary.ctx -u key.public -r key.private -c key.context");
    tools(device, &format!("tpm2_evictcontrol -Q -C o -c key.context -o key.object {HANDLE}"));
}

#[test]
fn a_persistent_key_requests_a_certificate_for_two_commands() {
    for kind in ["rsa2048", "ecc256"] {
        let device = Device::new();
        persistent_key(&device, kind, "");
        for activation in ALL {
            let request = format!("req -new -key handle:{HANDLE} -subj /CN=x -out x.csr");
            let cost = device.cost_of(|| {
                let _ = activation.openssl(&device, &request).ok().silent();
            });
            assert_eq!(cost, ["ReadPublic", "Sign"], "{activation:?}");
            let _ = plain_openssl(&device, "req -in x.csr -noout -verify").ok().says("verify OK");
        }
        let upper = "req -new -key HANDLE:0X81010001?pin-value= -subj /CN=x -out x.csr";
        let _ = Activation::DefaultFirst.openssl(&device, upper).ok();
    }
}

#[test]
fn persistent_keys_do_what_other_keys_do() {
    let device = Device::new();
    persistent_key(&device, "rsa2048", "");
    let key = format!("handle:{HANDLE}");
    let run = |line: &str| Activation::KeyrivetFirst.openssl(&device, line);
    let _ = run(&format!("pkey -in {key} -pubout -out key.pub")).ok().silent();
    let _ = run(&format!("pkey -in {key} -noout -text")).ok().silent().says("in the TPM");
    device.write("clear", "a secret");
    let _ = plain_openssl(&device, "pkeyutl -encrypt -pubin -inkey key.pub -in clear -out c").ok();
    let _ = run(&format!("pkeyutl -decrypt -inkey {key} -in c -out d")).ok().silent();
    assert_eq!(device.read("d"), b"a secret");
    let _ = run(&format!("dgst -sha256 -sign {key} -out s clear")).ok().silent();
    // The public part alone, where that is all that is wanted.
    let _ = run(&format!("pkeyutl -encrypt -pubin -inkey {key} -in clear -out c")).ok().silent();
    let _ = plain_openssl(&device, "dgst -sha256 -verify key.pub -signature s clear").ok();
    let _ = run(&format!("pkey -in {key} -out copy.pem")).fails_with("in the TPM for good");
}

#[test]
fn the_authorisation_value_of_a_persistent_key_is_asked_for_or_in_the_uri() {
    let device = Device::new();
    persistent_key(&device, "ecc256", "secret");
    device.write("value", "secret\n");
    let request = |uri: &str, more: &str| {
        let line = format!("req -new -key {uri} -subj /CN=x -out x.csr {more}");
        Activation::DefaultFirst.openssl(&device, &line)
    };
    for key in [format!("handle:{HANDLE}"), "object:key.object".into()] {
        let _ = request(&format!("{key}?pass"), "-passin pass:secret").ok().silent();
        let _ = request(&format!("{key}?pin-source=file:value"), "").ok().silent();
        let _ = request(&format!("{key}?pin-value=secret"), "").ok().silent();
        let _ = request(&format!("{key}?pass"), "-passin pass:wrong").fails_with("the PIN is wrong");
        let _ = request(&key, "").fails_with("needs a login");
    }
    let _ = request(&format!("handle:{HANDLE}?pas"), "").fails_with("pin-source");
}

#[test]
fn files_of_tpm2_tools_are_keys() {
    for kind in ["rsa2048", "ecc384"] {
        let device = Device::new();
        persistent_key(&device, kind, "");
        for file in ["key.object", "key.context"] {
            let request = format!("req -new -key object:{file} -subj /CN=x -out x.csr");
            for activation in ALL {
                let _ = activation.openssl(&device, &request).ok().silent();
                let _ = plain_openssl(&device, "req -in x.csr -noout -verify").ok().says("verify OK");
            }
        }
        device.write("empty", "");
        device.write("noise", [7; 200]);
        let key = device.read("key.context");
        device.write("cut", &key[..key.len() - 1]);
        for file in ["empty", "noise", "cut", "missing", ""] {
            let _ = Activation::DefaultFirst.openssl(&device, &format!("pkey -in object:{file} -noout")).fails();
        }
    }
}

#[test]
fn certificates_and_key_files_in_nv_indices_are_found() {
    let device = Device::new();
    device.new_key_file(["EC", "group:P-256"], "key.pem");
    let certify = "req -x509 -new -key key.pem -subj /CN=in-nv -days 2 -outform DER -out crt.der";
    let _ = Activation::DefaultFirst.openssl(&device, certify).ok();
    let _ = Activation::DefaultFirst.openssl(&device, "pkey -in key.pem -outform DER -out key.der").ok();
    for (index, file) in [("0x1800001", "crt.der"), ("0x1800002", "key.pem"), ("0x1800003", "key.der")] {
        // Longer than what is in it, as vendors have it.
        let size = device.read(file).len() + 7;
        tools(&device, &format!("tpm2_nvdefine -Q -C o -s {size} -a ownerread|ownerwrite|authread|authwrite {index}"));
        tools(&device, &format!("tpm2_nvwrite -Q -C o -i {file} {index}"));
    }
    for activation in ALL {
        let run = |line: &str| activation.openssl(&device, line);
        let _ = run("x509 -in handle:0x1800001 -noout -subject -nameopt RFC2253").ok().silent().says("CN=in-nv");
        let _ = run("storeutl -noout -certs handle:0x01800001").ok().says("Total found: 1");
        let _ = run("storeutl -noout -keys handle:0x01800001").says_nothing_of("0: ");
        for key in ["handle:0x1800002", "handle:0x01800003"] {
            let request = format!("req -new -key {key} -subj /CN=x -out x.csr");
            let _ = run(&request).ok().silent();
            let _ = plain_openssl(&device, "req -in x.csr -noout -verify").ok().says("verify OK");
        }
        let _ = run("x509 -in handle:0x1800009 -noout").fails();
    }
}

#[test]
fn the_list_of_persistent_keys_costs_one_command() {
    let device = Device::new();
    persistent_key(&device, "ecc256", "");
    let cost = device.cost_of(|| {
        let listed = Activation::DefaultFirst.openssl(&device, "storeutl handle:").ok();
        let _ = listed.says("Name: handle:0x81010001").says("Total found: 1");
    });
    assert_eq!(cost, ["GetCapability"]);
    let cost = device.cost_of(|| {
        let _ = Activation::DefaultFirst.openssl(&device, "storeutl -r -text -noout handle:").ok().says("in the TPM");
    });
    assert_eq!(cost, ["GetCapability", "ReadPublic"]);
    let _ =
        Activation::DefaultFirst.openssl(&device, "storeutl handle:0x40000001").fails_with("persistent keys are at");
    let _ = Activation::DefaultFirst.openssl(&device, "storeutl handle:x").fails_with("handle is no number");
    let _ = Activation::DefaultFirst.openssl(&device, "storeutl handle:0x81010009").says("not found");
}

#[test]
fn a_tokens_content_is_listed_and_searched_without_the_tpm() {
    let device = Device::new();
    let token = Token::new(&device, "dev", "");
    for (label, id) in [("one", "01"), ("two", "02")] {
        token.generate("EC:prime256v1", label, id);
        let certify = format!(
            "req -x509 -new -key {} -subj /CN={label} -set_serial 0x7{id} -outform DER -out {label}.crt",
            token.uri(label)
        );
        let _ = Activation::DefaultFirst.openssl(&device, &certify).ok();
        let _ = token
            .tool(&["--write-object", &format!("{label}.crt"), "--type", "cert", "--label", label, "--id", id])
            .ok();
    }
    device.mark();
    for activation in ALL {
        let list = |options: &str| activation.openssl(&device, &format!("storeutl -noout {options} pkcs11:token=dev"));
        let _ = list("").ok().silent().says("Total found: 6");
        let _ = list("-certs").ok().says("Total found: 2");
        let _ = list("-keys").ok().says("Total found: 2");
        let _ = list("-certs -subject /CN=two").ok().says("Total found: 1");
        let _ = list("-subject /CN=two").ok().says("Total found: 1");
        let _ = list("-subject /CN=three").ok().says_nothing_of("0: ");
        let _ = list("-issuer /CN=one -serial 0x701").ok().says("Total found: 1");
        let _ = list("-issuer /CN=one -serial 0x702").ok().says_nothing_of("0: ");
        let _ = list("-certs -alias one").ok().says("Total found: 1");
        let text = activation.openssl(&device, "storeutl -noout -text -certs -subject /CN=two pkcs11:token=dev").ok();
        let _ = text.says("Subject: CN=two").says_nothing_of("CN=one");
        for one in ["pkcs11:token=dev;object=two;type=cert", "pkcs11:token=dev;id=%02;type=cert"] {
            let _ = activation
                .openssl(&device, &format!("x509 -in {one} -noout -subject -nameopt RFC2253"))
                .ok()
                .silent()
                .says("CN=two");
        }
    }
    assert!(device.commands().is_empty());
}

#[test]
fn every_attribute_that_names_library_slot_and_token_has_to_be_right() {
    let device = Device::new();
    let token = Token::new(&device, "dev", "");
    token.generate("EC:prime256v1", "ec", "01");
    let info = device.pkcs11_tool(&["--show-info"]).ok().stdout();
    let slots = device.pkcs11_tool(&["--list-slots"]).ok().stdout();
    let after = |text: &str, title: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(title)).expect(title);
        line.trim_start()[title.len()..].trim_start_matches([' ', ':']).to_owned()
    };
    let library = after(&info, "Library");
    let (description, version) = library.split_once(" (ver ").expect("pkcs11-tool tells the version");
    let slot = slots.lines().find(|line| line.starts_with("Slot 0")).expect("the first slot");
    let attributes = [
        ("library-manufacturer", after(&info, "Manufacturer")),
        ("library-description", description.into()),
        ("library-version", version.trim_end_matches(')').into()),
        ("slot-manufacturer", after(&info, "Manufacturer")),
        ("slot-description", slot.split_once(": ").expect("a description").1.into()),
        ("slot-id", "0".into()),
        ("token", "dev".into()),
        ("serial", after(&slots, "serial num")),
        ("manufacturer", after(&slots, "token manufacturer")),
        ("model", after(&slots, "token model")),
        ("object", "ec".into()),
        ("id", "%01".into()),
        ("type", "private".into()),
    ];
    let uri = |of: &[(&str, String)]| {
        let parts: Vec<_> = of.iter().map(|(name, value)| format!("{name}={}", value.replace(' ', "%20"))).collect();
        format!("pkcs11:{}", parts.join(";"))
    };
    let sign =
        |uri: &str| Activation::DefaultFirst.openssl(&device, &format!("dgst -sha256 -sign {uri} -out s openssl.cnf"));
    let _ = sign(&uri(&attributes)).ok().silent();
    for place in 0..attributes.len() {
        let mut one = attributes.clone();
        one[place].1 = match one[place].0 {
            "type" => "cert".into(),
            "slot-id" | "library-version" => "77".into(),
            _ => format!("{}x", one[place].1),
        };
        let _ = sign(&uri(&one)).fails();
    }
}

#[test]
fn the_prompt_for_a_pin_names_the_token() {
    let device = Device::new();
    let token = Token::new(&device, "gateway-7", "123456");
    token.generate("EC:prime256v1", "ec", "01");
    let line = "openssl dgst -sha256 -sign 'pkcs11:token=gateway-7;object=ec;type=private' -out s openssl.cnf";
    // A terminal of its own, for the prompt.
    let mut command = device.command("script");
    command.env("OPENSSL_CONF", device.openssl_conf()).args(["-qec", line, "log"]);
    let output = command.run_with_input(b"123456\n").ok();
    let _ = output.says("gateway-7");
    let _ = Activation::DefaultFirst
        .openssl(&device, "pkey -in pkcs11:token=gateway-7;object=ec;type=public -pubin -pubout -out key.pub")
        .ok();
    let _ = plain_openssl(&device, "dgst -sha256 -verify key.pub -signature s openssl.cnf").ok();
}

#[test]
fn a_wrong_pin_is_tried_once_however_many_keys_the_uri_names() {
    let device = Device::new();
    let token = Token::new(&device, "gateway", "123456");
    for (label, id) in [("a", "01"), ("b", "02"), ("c", "03")] {
        token.generate("EC:prime256v1", label, id);
    }
    device.write("gateway.pin", "654321");
    let uri = format!("pkcs11:token=gateway;type=private?pin-source=file:{}", device.path("gateway.pin").display());
    for activation in ALL {
        device.mark();
        let _ = activation.openssl(&device, &format!("storeutl {uri}")).fails_with("PIN is wrong");
        assert_eq!(device.attacks(), ["Unseal!98e"], "{activation:?}");
        let _ = device.run(&["tpm2_dictionarylockout", "-c"]).ok();
    }
    // What needs no PIN comes all the same.
    let uri = uri.replace(";type=private", "");
    let _ = Activation::DefaultFirst.openssl(&device, &format!("storeutl {uri}")).fails().says("Total found: 3");
}

#[test]
fn a_certificate_in_nv_with_an_authorisation_value_of_its_own_costs_no_try() {
    let device = Device::new();
    let request =
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -subj /CN=x -outform DER";
    let _ = plain_openssl(&device, &format!("{request} -out cert.der")).ok();
    let size = device.read("cert.der").len();
    tools(&device, &format!("tpm2_nvdefine -Q -C o -s {size} -a ownerread|authread|ownerwrite -p secret 0x1c00010"));
    tools(&device, "tpm2_nvwrite -Q -C o -i cert.der 0x1c00010");
    device.mark();
    let _ = Activation::DefaultFirst.openssl(&device, "storeutl handle:0x01c00010").ok().says("0: Certificate");
    assert!(device.attacks().is_empty(), "{:?}", device.attacks());
}

#[test]
fn an_authorisation_value_is_never_used_without_a_salt() {
    let device = Device::new();
    persistent_key(&device, "ecc256", "secret");
    // No token was made, so there is no storage root key either.
    let cost = device.cost_of(|| {
        let sign = format!("dgst -sha256 -sign handle:{HANDLE}?pin-value=secret -out s openssl.cnf");
        let _ = Activation::DefaultFirst.openssl(&device, &sign).ok();
    });
    let started = cost.iter().position(|name| name == "StartAuthSession").expect("there is a session");
    assert_eq!(cost[started - 1], "CreatePrimary", "{cost:?}");
}
