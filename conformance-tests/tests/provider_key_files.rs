//! Key files that others wrote: importable keys, policies signed later, fields that nobody knows, damage.

mod activation;

use std::fmt::Write as _;

use activation::{ALL, Activation, plain_openssl};
use conformance_tests::{Device, Token};

/// Runs tpm2-tools, and flushes what they leave.
fn tools(device: &Device, line: &str) {
    let _ = device.run(&line.split_whitespace().collect::<Vec<_>>()).ok();
    let _ = device.run(&["tpm2_flushcontext", "-t"]).ok();
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Writes `key.pem` from what `openssl asn1parse -genconf` makes of this text.
fn write_key(device: &Device, asn1: &str) {
    device.write("key.asn1", format!("asn1 = SEQUENCE:key\n[key]\n{asn1}"));
    let _ = plain_openssl(device, "asn1parse -genconf key.asn1 -noout -out key.der").ok();
    let base64 = plain_openssl(device, "base64 -in key.der").ok().stdout();
    device.write("key.pem", format!("-----BEGIN TSS2 PRIVATE KEY-----\n{base64}-----END TSS2 PRIVATE KEY-----\n"));
}

const REQUEST: &str = "req -new -key key.pem -subj /CN=x -out x.csr";

fn requests(device: &Device) {
    for activation in ALL {
        let _ = activation.openssl(device, REQUEST).ok().silent();
        let _ = plain_openssl(device, "req -in x.csr -noout -verify").ok().says("verify OK");
    }
}

#[test]
fn importable_keys_are_imported_at_each_use() {
    for (kind, parent_kind) in [("ecc256", "ecc"), ("rsa2048", "rsa")] {
        let device = Device::new();
        let storage = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
        tools(&device, &format!("tpm2_createprimary -Q -C o -G {parent_kind} -a {storage} -c parent.ctx"));
        tools(&device, "tpm2_evictcontrol -Q -C o -c parent.ctx 0x81000007");
        // Somewhere else: a key that may be duplicated, wrapped to that parent.
        tools(&device, "tpm2_createprimary -Q -C n -G ecc -c elsewhere.ctx");
        tools(&device, "tpm2_startauthsession -S session");
        tools(&device, "tpm2_policycommandcode -S session -L policy TPM2_CC_Duplicate");
        tools(&device, "tpm2_flushcontext session");
        let create = format!("tpm2_create -Q -C elsewhere.ctx -G {kind} -L policy -u public -r private");
        tools(&device, &format!("{create} -a sensitivedataorigin|userwithauth|noda|sign|decrypt"));
        tools(&device, "tpm2_load -Q -C elsewhere.ctx -u public -r private -c key.ctx");
        tools(&device, "tpm2_startauthsession --policy-session -S session");
        tools(&device, "tpm2_policycommandcode -Q -S session TPM2_CC_Duplicate");
        tools(&device, "tpm2_duplicate -C 0x81000007 -c key.ctx -G null -p session:session -r duplicate -s seed");
        tools(&device, "tpm2_flushcontext session");
        for seed in [&device.read("seed")[..], &device.read("seed")[2..]] {
            write_key(
                &device,
                &format!(
                    "kind = OID:2.23.133.10.1.4\nempty = EXPLICIT:0,BOOLEAN:true\n\
                     secret = EXPLICIT:2,FORMAT:HEX,OCT:{}\nparent = INTEGER:0x81000007\n\
                     public = FORMAT:HEX,OCT:{}\nprivate = FORMAT:HEX,OCT:{}\n",
                    hex(seed),
                    hex(&device.read("public")),
                    hex(&device.read("duplicate"))
                ),
            );
            requests(&device);
            let cost = device.cost_of(|| {
                let _ = Activation::DefaultFirst.openssl(&device, REQUEST).ok();
            });
            assert_eq!(cost, ["Import", "Load", "Sign", "FlushContext"]);
        }
        // Written again, it is the same key.
        let _ = Activation::DefaultFirst.openssl(&device, "pkey -in key.pem -out copy.pem").ok().silent();
        device.write("key.pem", device.read("copy.pem"));
        requests(&device);
    }
}

#[test]
fn a_policy_that_was_signed_after_the_key_was_made_allows_its_use() {
    let device = Device::new();
    let _token = Token::new(&device, "any", "");
    let _ = plain_openssl(&device, "genpkey -algorithm RSA -out signer.key").ok();
    let _ = plain_openssl(&device, "pkey -in signer.key -pubout -out signer.pem").ok();
    tools(&device, "tpm2_loadexternal -Q -C o -G rsa -u signer.pem -c signer.ctx -n signer.name");
    tools(&device, "tpm2_readpublic -Q -c signer.ctx -o signer.public");
    tools(&device, "tpm2_startauthsession -S session");
    tools(&device, "tpm2_policyauthorize -Q -S session -L authorized.policy -n signer.name");
    tools(&device, "tpm2_flushcontext session");
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|noda|sign";
    let create = "tpm2_create -Q -C 0x81000001 -G ecc256 -L authorized.policy -u public -r private";
    tools(&device, &format!("{create} -a {attributes}"));
    // What is signed: PCR 16 as it is, and as it will be.
    let extend = "tpm2_pcrextend 16:sha256=0000000000000000000000000000000000000000000000000000000000000001";
    let mut alternatives = String::new();
    for name in ["now", "later"] {
        if name == "later" {
            tools(&device, extend);
        }
        tools(&device, "tpm2_startauthsession -S session");
        tools(&device, "tpm2_policypcr -Q -S session -l sha256:16 -L approved");
        tools(&device, "tpm2_flushcontext session");
        let _ = plain_openssl(&device, "dgst -sha256 -sign signer.key -out signature approved").ok();
        // TPM2B_PUBLIC, an empty TPM2B_DIGEST, TPMT_SIGNATURE: RSASSA, SHA-256.
        let signature = [&[0, 0x14, 0, 0x0b, 1, 0], &device.read("signature")[..]].concat();
        let authorization = [&device.read("signer.public")[..], &[0, 0], &signature].concat();
        let _ = write!(
            alternatives,
            "[{name}]\nname = EXPLICIT:0,UTF8:{name}\npolicy = EXPLICIT:1,SEQUENCE:{name}_steps\n\
             [{name}_steps]\npcr = SEQUENCE:{name}_pcr\nauthorize = SEQUENCE:{name}_authorize\n\
             [{name}_pcr]\ncommand = EXPLICIT:0,INTEGER:0x17f\n\
             parameters = EXPLICIT:1,FORMAT:HEX,OCT:000000000001000b03000001\n\
             [{name}_authorize]\ncommand = EXPLICIT:0,INTEGER:0x16a\nparameters = EXPLICIT:1,FORMAT:HEX,OCT:{}\n",
            hex(&authorization)
        );
    }
    tools(&device, "tpm2_pcrreset 16");
    write_key(
        &device,
        &format!(
            "kind = OID:2.23.133.10.1.3\nempty = EXPLICIT:0,BOOLEAN:true\n\
             alternatives = EXPLICIT:3,SEQUENCE:alternatives\nparent = INTEGER:0x81000001\n\
             public = FORMAT:HEX,OCT:{}\nprivate = FORMAT:HEX,OCT:{}\n\
             [alternatives]\nfirst = SEQUENCE:now\nsecond = SEQUENCE:later\n{alternatives}",
            hex(&device.read("public")),
            hex(&device.read("private"))
        ),
    );
    requests(&device);
    tools(&device, extend);
    requests(&device);
    tools(&device, extend);
    let _ = Activation::DefaultFirst.openssl(&device, REQUEST).fails_with("nobody has signed it");
    tools(&device, "tpm2_pcrreset 16");
    // Written again, it has all its policies.
    let _ = Activation::DefaultFirst.openssl(&device, "pkey -in key.pem -outform DER -out copy.der").ok().silent();
    assert_eq!(device.read("copy.der"), device.read("key.der"));
    requests(&device);
}

#[test]
fn unknown_fields_are_passed_over_and_damage_is_named() {
    let device = Device::new();
    let _token = Token::new(&device, "any", "");
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|sign";
    tools(&device, &format!("tpm2_create -Q -C 0x81000001 -G ecc256 -a {attributes} -u public -r private"));
    let (public, private) = (hex(&device.read("public")), hex(&device.read("private")));
    let key = |kind: &str, fields: &str, private: &str| {
        write_key(
            &device,
            &format!(
                "kind = OID:{kind}\nempty = EXPLICIT:0,BOOLEAN:true\n{fields}parent = INTEGER:0x81000001\n\
                 public = FORMAT:HEX,OCT:{public}\nprivate = FORMAT:HEX,OCT:{private}\n"
            ),
        );
    };
    let loadable = "2.23.133.10.1.3";
    key(loadable, "description = EXPLICIT:4,UTF8:a key\nrsa = EXPLICIT:5,BOOLEAN:false\n", &private);
    requests(&device);
    key(loadable, "later = EXPLICIT:9,UTF8:something new\n", &private);
    requests(&device);
    let refused = |says: &str| {
        device.mark();
        let _ = Activation::DefaultFirst.openssl(&device, REQUEST).fails_with(says);
        assert!(device.commands().is_empty(), "no TPM command for {says}");
    };
    key(loadable, "", "0009ffff");
    refused("its private part has a wrong length");
    key("2.23.133.10.1.4", "", &private);
    refused("an importable key has a secret");
    key("2.23.133.10.1.5", "", &private);
    refused("TPM key files of type 2.23.133.10.1.5");
    key(loadable, "policy = EXPLICIT:1,UTF8:x\n", &private);
    refused("malformed");
    key(loadable, "description = EXPLICIT:4,UTF8:a\nempty2 = EXPLICIT:1,UTF8:x\n", &private);
    refused("malformed");
    // A policy that needs what nobody has taught us.
    let steps = "policy = EXPLICIT:1,SEQUENCE:steps\n";
    key(
        loadable,
        steps,
        &format!(
            "{private}\n[steps]\none = SEQUENCE:step\n[step]\ncommand = EXPLICIT:0,INTEGER:0x151\nparameters = EXPLICIT:1,FORMAT:HEX,OCT:00"
        ),
    );
    let _ = Activation::DefaultFirst.openssl(&device, REQUEST).fails_with("policies with the TPM command 0x151");
}

#[test]
fn a_key_of_the_wrong_type_costs_nothing() {
    let device = Device::new();
    device.new_key_file(["EC", "group:P-256"], "key.pem");
    device.mark();
    for activation in ALL {
        let _ = activation.openssl(&device, "rsa -in key.pem -noout").fails();
        let _ = activation.openssl(&device, "x509 -in key.pem -noout").fails();
        let _ = activation.openssl(&device, "pkey -in key.pem -noout").ok();
        let _ = activation.openssl(&device, "ec -in key.pem -noout").ok();
    }
    assert!(device.commands().is_empty());
}

#[test]
fn public_keys_are_written_in_every_usual_form() {
    let device = Device::new();
    for (kind, command) in [(["EC", "group:P-384"], "ec"), (["RSA", "rsa_keygen_bits:2048"], "rsa")] {
        device.new_key_file(kind, "key.pem");
        for activation in ALL {
            let run = |line: &str| activation.openssl(&device, line).ok();
            let _ = run("pkey -in key.pem -pubout -outform DER -out spki.der");
            let _ = run(&format!("{command} -in key.pem -pubout -out spki.pem"));
            let from_der = plain_openssl(&device, "pkey -pubin -inform DER -in spki.der -pubout").ok().stdout();
            assert_eq!(from_der.as_bytes(), device.read("spki.pem"));
            if command == "rsa" {
                let _ = run("rsa -in key.pem -RSAPublicKey_out -out rsa.pem");
                let back = plain_openssl(&device, "rsa -RSAPublicKey_in -in rsa.pem -pubout").ok().stdout();
                assert_eq!(back, from_der);
            } else {
                let _ = run("ec -in key.pem -param_out -out params.pem");
                let _ = plain_openssl(&device, "ecparam -in params.pem -noout -text").ok().says("secp384r1");
            }
            let _ = run("pkey -in key.pem -text_pub -noout").says("Public-Key").says_nothing_of("in the TPM");
        }
    }
    let made = "genpkey -propquery provider=keyrivet -algorithm EC -pkeyopt group:P-256 -outform DER -out made.der";
    let _ = Activation::DefaultFirst.openssl(&device, made).ok();
    let _ = Activation::DefaultFirst.openssl(&device, "pkey -in made.der -noout -text").ok().says("in the TPM");
}

#[test]
fn lines_of_any_length_and_lengths_of_any_form_are_read() {
    let device = Device::new();
    let token = Token::new(&device, "gateway", "");
    token.generate("EC:prime256v1", "ec", "01");
    device.new_key_file(["EC", "group:P-256"], "key.pem");
    let text = String::from_utf8(device.read("key.pem")).unwrap();
    let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    let uri = token.uri("ec");
    let version = "PKCS#11 Provider URI v1.0";
    // As recipes write it by printf: each length in two bytes.
    let lengths = [version.len() + uri.len() + 8, version.len(), uri.len()].map(|length| (length as u16).to_be_bytes());
    let element = |tag: u8, length: [u8; 2], content: &[u8]| [&[tag, 0x82], &length[..], content].concat();
    let elements = [element(0x1a, lengths[1], version.as_bytes()), element(0x0c, lengths[2], uri.as_bytes())].concat();
    device.write("uri.der", element(0x30, lengths[0], &elements));
    let wrapped: String = plain_openssl(&device, "base64 -A -in uri.der").ok().stdout().split_whitespace().collect();
    for (label, body) in [("TSS2 PRIVATE KEY", &body), ("PKCS#11 PROVIDER URI", &wrapped)] {
        for width in [16, 60, 64, 76, 400, 5000] {
            let lines: Vec<_> = body.as_bytes().chunks(width).map(String::from_utf8_lossy).collect();
            device.write("key.pem", format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n")));
            requests(&device);
        }
    }
}
