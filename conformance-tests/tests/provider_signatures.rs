//! Signatures of every padding through the provider, and keys that were made for one.

mod activation;

use std::time::Instant;

use activation::{ALL, Activation, plain_openssl};
use conformance_tests::{Device, Token};
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Padding;
use openssl::sign::Verifier;

const RSA: [&str; 2] = ["RSA", "rsa_keygen_bits:2048"];

#[test]
fn pss_salts_of_any_length_are_signed_and_labelled() {
    let device = device_with(RSA);
    for (digest, length, is) in [
        ("sha256", "20", "20"),
        ("sha256", "0", "0"),
        ("sha256", "max", "222"),
        ("sha512", "100", "100"),
        ("sha384", "digest", "48"),
        ("sha384", "auto", "48"),
        ("sha3-256", "digest", "32"),
    ] {
        let pss = format!("dgst -{digest} -sigopt rsa_padding_mode:pss");
        for activation in ALL {
            let sign = format!("{pss} -sigopt rsa_pss_saltlen:{length} -sign key.pem -out signature key.pem");
            let _ = activation.openssl(&device, &sign).ok().silent();
            for length in [is, "auto"] {
                let verify =
                    format!("{pss} -sigopt rsa_pss_saltlen:{length} -verify key.pub -signature signature key.pem");
                let _ = plain_openssl(&device, &verify).ok();
                let _ = activation.openssl(&device, &verify).ok();
            }
            let other = format!("{pss} -sigopt rsa_pss_saltlen:21 -verify key.pub -signature signature key.pem");
            let _ = plain_openssl(&device, &other).fails();
        }
    }
    let request = "req -new -key key.pem -subj /CN=x -sha256 -out x.csr -sigopt rsa_padding_mode:pss";
    let _ = Activation::KeyrivetFirst.openssl(&device, &format!("{request} -sigopt rsa_pss_saltlen:20")).ok();
    let text = plain_openssl(&device, "req -in x.csr -noout -verify -text").ok();
    let _ = text.says("verify OK").says("rsassaPss").says("Salt Length: 0x14");
    let long = "dgst -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:223 -sign key.pem -out s key.pem";
    let _ = Activation::DefaultFirst.openssl(&device, long).fails_with("the salt is too long for this key");
}

// The salt's length can be read from the signature: nothing has to be tried.
#[test]
fn a_wrong_pss_signature_is_refused_as_fast_as_a_good_one_is_accepted() {
    let device = device_with(RSA);
    let pss = "dgst -sha256 -sigopt rsa_padding_mode:pss";
    let _ = Activation::DefaultFirst.openssl(&device, &format!("{pss} -sign key.pem -out signature key.pub")).ok();
    let wrong = "openssl.cnf";
    device.enter();
    let _providers = ["keyrivet", "default"].map(|name| openssl::provider::Provider::load(None, name).unwrap());
    let key = PKey::public_key_from_pem(&device.read("key.pub")).unwrap();
    let signature = device.read("signature");
    let verify = |file: &str| {
        let (content, started) = (device.read(file), Instant::now());
        let mut verifier = Verifier::new(MessageDigest::sha256(), &key).unwrap();
        verifier.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
        assert_eq!(verifier.verify_oneshot(&signature, &content).is_ok_and(|good| good), file != wrong);
        started.elapsed()
    };
    // The shortest of some, for the machine may be busy.
    let shortest = |file| (0..10).map(|_| verify(file)).min().expect("there are some");
    let (good, bad) = (shortest("key.pub"), shortest(wrong));
    assert!(bad < 20 * good, "{good:?} {bad:?}");
}

#[test]
fn keys_with_exponents_that_we_cannot_use_are_left_to_other_providers() {
    let device = Device::new();
    let make =
        "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_keygen_pubexp:1099511627777 -out key.pem";
    let _ = plain_openssl(&device, make).ok();
    let _ = plain_openssl(&device, "pkey -in key.pem -pubout -out key.pub").ok();
    let _ = plain_openssl(&device, "req -x509 -new -key key.pem -subj /CN=x -days 2 -out key.crt").ok();
    let _ = plain_openssl(&device, "dgst -sha256 -sign key.pem -out signature key.pub").ok();
    device.write("data", "a secret");
    for activation in ALL {
        let run = |line: &str| activation.openssl(&device, line).ok();
        let _ = run("dgst -sha256 -verify key.pub -signature signature key.pub").says("Verified OK");
        let _ = run("verify -CAfile key.crt key.crt").says("OK");
        let _ = run("pkeyutl -encrypt -pubin -inkey key.pub -in data -out secret");
        let _ = plain_openssl(&device, "pkeyutl -decrypt -inkey key.pem -in secret").ok().says("a secret");
    }
}

#[test]
fn cms_messages_are_signed_with_pss_and_say_so() {
    let device = device_with(RSA);
    let certify = "req -x509 -new -key key.pem -subj /CN=x -days 2 -out key.crt";
    let _ = Activation::DefaultFirst.openssl(&device, certify).ok();
    for options in ["", "-keyopt rsa_pss_saltlen:20", "-keyopt rsa_pss_saltlen:max"] {
        for activation in ALL {
            let sign = "cms -sign -in key.pub -signer key.crt -inkey key.pem -out signed -keyopt rsa_padding_mode:pss";
            let _ = activation.openssl(&device, &format!("{sign} {options}")).ok();
            let _ = plain_openssl(&device, "cms -verify -in signed -CAfile key.crt -purpose any -out out").ok();
        }
    }
}

#[test]
fn a_key_that_only_signs_takes_salts_of_the_digests_length_and_no_other_padding() {
    let device = Device::new();
    let token = Token::new(&device, "dev", "");
    let _ = token.tool(&["--keypairgen", "--key-type", "rsa:2048", "--label", "rsa", "--usage-sign"]).ok();
    device.write("data", [7; 32]);
    let (sign, uri) = ("dgst -sha256 -out signature -sigopt rsa_padding_mode:pss", token.uri("rsa"));
    for activation in ALL {
        let _ = activation.openssl(&device, &format!("{sign} -sign {uri} data")).ok().silent();
        let other = format!("{sign} -sigopt rsa_pss_saltlen:max -sign {uri} data");
        let _ = activation.openssl(&device, &other).fails_with("use pss_saltlen:digest");
        let bare = format!("pkeyutl -sign -inkey {uri} -in data -out signature");
        let _ = activation.openssl(&device, &bare).fails_with("by a key that only signs");
    }
}

#[test]
fn data_of_any_kind_is_signed_bare_or_in_pkcs1_padding_and_recovered() {
    let device = device_with(RSA);
    device.write("data", "not a digest");
    device.write("block", [&[0_u8, 1][..], &[7; 254]].concat());
    for activation in ALL {
        let run = |line: &str| activation.openssl(&device, line);
        // pkeyutl signs nothing longer than a digest, rsautl does.
        for (file, sign) in [("data", "pkeyutl -sign"), ("block", "rsautl -sign -raw")] {
            let _ = run(&format!("{sign} -inkey key.pem -in {file} -out s")).ok();
            let padding = if file == "block" { "-pkeyopt rsa_padding_mode:none" } else { "" };
            for key in ["-inkey key.pem", "-pubin -inkey key.pub"] {
                let recover = format!("pkeyutl -verifyrecover {key} {padding} -in s -out recovered");
                let _ = run(&recover).ok().silent();
                assert_eq!(device.read("recovered"), device.read(file));
            }
            let recover = format!("pkeyutl -verifyrecover -pubin -inkey key.pub {padding} -in s -out recovered");
            let _ = plain_openssl(&device, &recover).ok();
            assert_eq!(device.read("recovered"), device.read(file));
        }
        let _ = run("pkeyutl -verify -inkey key.pem -in data -sigfile s").fails();
        let none = "-pkeyopt rsa_padding_mode:none -in data -out s";
        let _ = run(&format!("pkeyutl -sign -inkey key.pem {none}")).fails_with("as long as the key");
        let _ = plain_openssl(&device, "dgst -sha256 -binary -out digest key.pub").ok();
        let _ = run("pkeyutl -sign -inkey key.pem -pkeyopt digest:sha256 -in digest -out s").ok();
        let recover = "pkeyutl -verifyrecover -inkey key.pem -pkeyopt digest:sha256 -in s -out recovered";
        let _ = run(recover).ok();
        assert_eq!(device.read("recovered"), device.read("digest"));
        let _ = run("pkeyutl -verifyrecover -inkey key.pem -pkeyopt digest:sha384 -in s -out recovered").fails();
    }
}

#[test]
fn rsa_pss_keys_are_made_certified_and_used_for_pss_only() {
    let device = device_with(["RSA-PSS", "rsa_pss_keygen_md:sha384"]);
    let text = Activation::DefaultFirst.openssl(&device, "pkey -in key.pem -noout -text").ok().silent();
    let _ = text.says("RSA-PSS Private-Key: (2048 bit, in the TPM)").says("Minimum Salt Length: 48");
    let _ = plain_openssl(&device, "pkey -pubin -in key.pub -noout -text").ok().says("SHA2-384");
    for activation in ALL {
        let run = |line: &str| activation.openssl(&device, line);
        // No digest is named: the key has one.
        let _ = run("req -x509 -new -key key.pem -subj /CN=x -days 2 -out key.crt").ok();
        let text = plain_openssl(&device, "x509 -in key.crt -noout -text").ok();
        let _ = text.says("Public Key Algorithm: rsassaPss").says("Hash Algorithm: sha384").says("Salt Length: 0x30");
        let _ = plain_openssl(&device, "verify -CAfile key.crt key.crt").ok();
        let _ = run("verify -CAfile key.crt key.crt").ok();
        let _ = run("dgst -sha384 -sign key.pem -out s key.pub").ok().silent();
        let _ = plain_openssl(&device, "dgst -sha384 -verify key.pub -signature s key.pub").ok();
        let _ = run("dgst -sha384 -verify key.pub -signature s key.pub").ok();
        let _ =
            run("cms -sign -in key.pub -signer key.crt -inkey key.pem -out signed -keyopt rsa_padding_mode:pss").ok();
        let _ = plain_openssl(&device, "cms -verify -in signed -CAfile key.crt -purpose any -out out").ok();
        let _ = run("dgst -sha256 -sign key.pem -out s key.pub").fails_with("for another hash");
        let pkcs1 = "dgst -sha384 -sigopt rsa_padding_mode:pkcs1 -sign key.pem -out s key.pub";
        let _ = run(pkcs1).fails_with("another padding than PSS");
        let short = "dgst -sha384 -sigopt rsa_pss_saltlen:20 -sign key.pem -out s key.pub";
        let _ = run(short).fails_with("use pss_saltlen:digest");
        device.write("c", [1; 256]);
        let _ = run("pkeyutl -decrypt -inkey key.pem -in c -out d").fails();
    }
    for (option, says) in [
        ("rsa_pss_keygen_saltlen:20", "a TPM makes them as long as the digest"),
        ("rsa_pss_keygen_mgf1_md:sha512", "another hash in MGF1"),
        ("rsa_pss_keygen_md:sha224", "SHA2-224 only"),
    ] {
        let make = format!("genpkey -algorithm RSA-PSS -pkeyopt {option} -out x.pem");
        let _ = Activation::KeyrivetFirst.openssl(&device, &make).fails_with(says);
    }
}

#[test]
fn rsa_pss_keys_of_a_token_work_by_uri() {
    let device = Device::new();
    let token = Token::new(&device, "dev", "123456");
    let uri = token.uri("pss").replace(";type=private", "");
    let make = format!("genpkey -propquery provider=keyrivet -algorithm RSA-PSS -pkeyopt uri:{uri} -out key.pem");
    let _ = Activation::DefaultFirst.openssl(&device, &make).ok();
    for activation in ALL {
        for key in [&uri, "key.pem"] {
            let sign = format!("req -x509 -new -key {key} -subj /CN=x -days 2 -out key.crt -passin pass:123456");
            let _ = activation.openssl(&device, &sign).ok();
            let _ = plain_openssl(&device, "x509 -in key.crt -noout -text").ok().says("Key Algorithm: rsassaPss");
            let _ = plain_openssl(&device, "verify -CAfile key.crt key.crt").ok();
        }
    }
}

#[test]
fn keys_that_tpm2_tools_made_for_one_scheme_sign_with_it() {
    let device = Device::new();
    let _token = Token::new(&device, "any", "");
    let key = |kind: &str, handle: &str| {
        let run = |line: &str| {
            let _ = device.run(&line.split_whitespace().collect::<Vec<_>>()).ok();
        };
        let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|sign";
        run(&format!("tpm2_create -Q -C 0x81000001 -G {kind} -a {attributes} -u key.public -r key.private"));
        run("tpm2_load -Q -C 0x81000001 -u key.public -r key.private -c key.ctx");
        run(&format!("tpm2_evictcontrol -Q -C o -c key.ctx {handle}"));
        run("tpm2_flushcontext -t");
    };
    key("rsa2048:rsassa-sha384:null", "0x81010001");
    key("ecc384:ecdsa-sha256:null", "0x81010002");
    device.write("data", "data");
    for (handle, good, bad) in [("0x81010001", "sha384", "sha256"), ("0x81010002", "sha256", "sha384")] {
        let run = |line: &str| Activation::DefaultFirst.openssl(&device, line);
        let _ = run(&format!("pkey -in handle:{handle} -pubout -out key.pub")).ok();
        let _ = run(&format!("dgst -{good} -sign handle:{handle} -out s data")).ok().silent();
        let _ = plain_openssl(&device, &format!("dgst -{good} -verify key.pub -signature s data")).ok();
        let _ = run(&format!("dgst -{bad} -sign handle:{handle} -out s data")).fails_with("for another hash");
        // Without -md, the key's own.
        let _ = run(&format!("req -x509 -new -key handle:{handle} -subj /CN=x -out key.crt")).ok();
        let _ = plain_openssl(&device, "verify -CAfile key.crt key.crt").ok();
    }
}

/// A device with a key file, `key.pem`, and its public key, `key.pub`.
fn device_with(kind: [&str; 2]) -> Device {
    let device = Device::new();
    device.new_key_file(kind, "key.pem");
    let _ = Activation::DefaultFirst.openssl(&device, "pkey -in key.pem -pubout -out key.pub").ok().silent();
    device
}
