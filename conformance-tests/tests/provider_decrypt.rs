//! Decryption and key agreement in the TPM through the provider.

mod activation;

use activation::{ALL, Activation, plain_openssl};
use conformance_tests::{Device, Token};

const RSA: [&str; 2] = ["RSA", "rsa_keygen_bits:2048"];
const PADDINGS: [&str; 5] = [
    "rsa_padding_mode:pkcs1",
    "rsa_padding_mode:oaep",
    "rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256",
    "rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha384 -pkeyopt rsa_mgf1_md:sha1",
    "rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 -pkeyopt rsa_oaep_label:6c6162656c",
];

#[test]
fn a_key_file_decrypts_what_others_encrypt_with_every_padding() {
    let device = Device::new();
    device.new_key_file(RSA, "key.pem");
    decrypts_with_every_padding(&device, "key.pem");
}

#[test]
fn a_key_of_a_token_decrypts_with_every_padding() {
    for pin in ["", "123456"] {
        let device = Device::new();
        let token = Token::new(&device, "dev", pin);
        token.generate("rsa:2048", "rsa", "01");
        decrypts_with_every_padding(&device, &token.uri("rsa"));
    }
}

fn decrypts_with_every_padding(device: &Device, key: &str) {
    let _ = Activation::DefaultFirst.openssl(device, &format!("pkey -in {key} -pubout -out key.pub")).ok().silent();
    device.write("clear", "a secret message");
    for padding in PADDINGS {
        let options = format!("-pkeyopt {padding}");
        let _ =
            plain_openssl(device, &format!("pkeyutl -encrypt -pubin -inkey key.pub {options} -in clear -out c")).ok();
        for activation in ALL {
            let decrypt = format!("pkeyutl -decrypt -inkey {key} {options} -in c -out d");
            let cost = device.cost_of(|| {
                let _ = activation.openssl(device, &decrypt).ok().silent();
            });
            assert_eq!(device.read("d"), b"a secret message", "{padding}, {activation:?}");
            assert_eq!(cost.iter().filter(|name| *name == "RSA_Decrypt").count(), 1);
            device.write("d", "");
        }
    }
    // The bare operation takes blocks of the key's length.
    device.write("block", [&[0_u8][..], &[7; 255]].concat());
    let _ =
        plain_openssl(device, "pkeyutl -encrypt -pubin -inkey key.pub -pkeyopt rsa_padding_mode:none -in block -out c")
            .ok();
    let decrypt = format!("pkeyutl -decrypt -inkey {key} -pkeyopt rsa_padding_mode:none -in c -out d");
    let _ = Activation::Preferred.openssl(device, &decrypt).ok().silent();
    assert_eq!(device.read("d"), device.read("block"));
}

#[test]
fn encryption_to_a_key_in_the_tpm_needs_no_tpm() {
    let device = Device::new();
    device.new_key_file(RSA, "key.pem");
    device.write("clear", "a secret message");
    for padding in PADDINGS {
        device.mark();
        let encrypt = format!("pkeyutl -encrypt -inkey key.pem -pkeyopt {padding} -in clear -out c");
        let _ = Activation::KeyrivetFirst.openssl(&device, &encrypt).ok().silent();
        assert!(device.commands().is_empty());
        let decrypt = format!("pkeyutl -decrypt -inkey key.pem -pkeyopt {padding} -in c -out d");
        let _ = Activation::KeyrivetFirst.openssl(&device, &decrypt).ok().silent();
        assert_eq!(device.read("d"), b"a secret message", "{padding}");
    }
    let padding = "-pkeyopt rsa_padding_mode:none";
    let encrypt = format!("pkeyutl -encrypt -inkey key.pem {padding} -in clear -out c");
    let _ = Activation::KeyrivetFirst.openssl(&device, &encrypt).fails_with("as long as the key");
}

#[test]
fn a_wrong_pkcs1_padding_decrypts_to_another_message_unless_an_error_is_asked_for() {
    let device = Device::new();
    device.new_key_file(RSA, "key.pem");
    let token = Token::new(&device, "dev", "123456");
    token.generate("rsa:2048", "rsa", "01");
    device.write("block", [&[0_u8, 1][..], &[7; 254]].concat());
    for key in ["key.pem", &token.uri("rsa")] {
        let _ = Activation::DefaultFirst.openssl(&device, &format!("pkey -in {key} -pubout -out key.pub")).ok();
        let encrypt = "pkeyutl -encrypt -pubin -inkey key.pub -pkeyopt rsa_padding_mode:none -in block -out c";
        let _ = plain_openssl(&device, encrypt).ok();
        let decrypt = format!("pkeyutl -decrypt -inkey {key} -in c -out d");
        let _ = Activation::DefaultFirst.openssl(&device, &decrypt).ok().silent();
        let another = device.read("d");
        assert_ne!(another, device.read("block"));
        // The same in each process, or the difference would tell.
        let _ = Activation::DefaultFirst.openssl(&device, &decrypt).ok().silent();
        assert_eq!(device.read("d"), another);
        let strict = format!("{decrypt} -pkeyopt implicit-rejection:0");
        let _ = Activation::DefaultFirst.openssl(&device, &strict).fails_with("does not decrypt");
        let oaep = format!("{decrypt} -pkeyopt rsa_padding_mode:oaep");
        let _ = Activation::DefaultFirst.openssl(&device, &oaep).fails_with("does not decrypt");
    }
}

#[test]
fn a_key_that_only_signs_refuses_to_decrypt() {
    let device = Device::new();
    let token = Token::new(&device, "dev", "");
    let _ = token.tool(&["--keypairgen", "--key-type", "rsa:2048", "--label", "rsa", "--usage-sign"]).ok();
    device.write("c", [7; 256]);
    let decrypt = format!("pkeyutl -decrypt -inkey {} -in c -out d", token.uri("rsa"));
    let refused = Activation::KeyrivetFirst.openssl(&device, &decrypt);
    let _ = refused.fails_with("a key that the TPM does not let decrypt");
}

#[test]
fn cms_and_smime_to_an_rsa_key_are_decrypted_in_the_tpm() {
    let device = Device::new();
    device.new_key_file(RSA, "key.pem");
    self_certified(&device);
    device.write("clear", "a secret message\r\n");
    for options in ["", "-keyopt rsa_padding_mode:oaep -keyopt rsa_oaep_md:sha256"] {
        let encrypt = format!("cms -encrypt -aes-256-cbc -in clear -out c -recip key.crt {options}");
        let _ = plain_openssl(&device, &encrypt).ok();
        for activation in ALL {
            let _ = activation.openssl(&device, "cms -decrypt -in c -inkey key.pem -recip key.crt -out d").ok();
            assert_eq!(device.read("d"), device.read("clear"));
            let _ = activation.openssl(&device, "cms -decrypt -in c -inkey key.pem -out d").ok();
        }
    }
    let _ = plain_openssl(&device, "smime -encrypt -aes256 -in clear -out c key.crt").ok();
    let _ = Activation::DefaultFirst.openssl(&device, "smime -decrypt -in c -inkey key.pem -recip key.crt -out d").ok();
    assert_eq!(device.read("d"), device.read("clear"));
}

#[test]
fn both_sides_of_a_key_agreement_derive_the_same_secret() {
    for curve in ["P-256", "P-384"] {
        let device = Device::new();
        device.new_key_file(["EC", &format!("group:{curve}")], "key.pem");
        let token = Token::new(&device, "dev", "123456");
        token.generate(if curve == "P-256" { "EC:prime256v1" } else { "EC:secp384r1" }, "ec", "01");
        let _ = plain_openssl(&device, &format!("genpkey -algorithm EC -pkeyopt group:{curve} -out peer.pem")).ok();
        let _ = plain_openssl(&device, "pkey -in peer.pem -pubout -out peer.pub").ok();
        for key in ["key.pem", &token.uri("ec")] {
            let public = format!("pkey -in {key} -pubout -out key.pub");
            let _ = Activation::DefaultFirst.openssl(&device, &public).ok().silent();
            for options in [
                "",
                "-pkeyopt ecdh_cofactor_mode:1",
                "-pkeyopt ecdh_cofactor_mode:0",
                "-pkeyopt ecdh_kdf_md:sha256 -pkeyopt kdf-type:X963KDF -pkeyopt kdf-outlen:77 -pkeyopt hexkdf-ukm:6162",
            ] {
                let theirs = format!("pkeyutl -derive -inkey peer.pem -peerkey key.pub {options} -out theirs");
                let _ = plain_openssl(&device, &theirs).ok().silent();
                for activation in ALL {
                    let ours = format!("pkeyutl -derive -inkey {key} -peerkey peer.pub {options} -out ours");
                    let _ = activation.openssl(&device, &ours).ok().silent();
                    assert_eq!(device.read("ours"), device.read("theirs"), "{key} {options} {activation:?}");
                    device.write("ours", "");
                }
            }
        }
    }
}

#[test]
fn what_no_key_agreement_can_be_is_refused_and_named() {
    let device = Device::new();
    device.new_key_file(["EC", "group:P-256"], "key.pem");
    let _ = plain_openssl(&device, "genpkey -algorithm EC -pkeyopt group:P-384 -out peer.pem").ok();
    let _ = plain_openssl(&device, "pkey -in peer.pem -pubout -out peer.pub").ok();
    let derive = "pkeyutl -derive -inkey key.pem -peerkey";
    let _ = Activation::KeyrivetFirst.openssl(&device, &format!("{derive} peer.pub -out ours")).fails();
    let _ = plain_openssl(&device, "genpkey -algorithm EC -pkeyopt group:P-256 -out peer.pem").ok();
    let _ = plain_openssl(&device, "pkey -in peer.pem -pubout -out peer.pub").ok();
    let hkdf = format!("{derive} peer.pub -pkeyopt kdf-type:HKDF -out ours");
    let _ = Activation::KeyrivetFirst.openssl(&device, &hkdf).fails_with("the key derivation HKDF");
    let token = Token::new(&device, "dev", "");
    let _ = token.tool(&["--keypairgen", "--key-type", "EC:prime256v1", "--label", "ec", "--usage-sign"]).ok();
    let signer = format!("pkeyutl -derive -inkey {} -peerkey peer.pub -out ours", token.uri("ec"));
    let _ = Activation::KeyrivetFirst.openssl(&device, &signer).fails_with("not made for it");
}

#[test]
fn cms_to_an_ec_key_is_decrypted_in_the_tpm_and_encrypted_without_it() {
    let device = Device::new();
    device.new_key_file(["EC", "group:P-256"], "key.pem");
    self_certified(&device);
    device.write("clear", "a secret message\r\n");
    for options in ["", "-keyopt ecdh_kdf_md:sha256", "-keyopt ecdh_cofactor_mode:1 -keyopt ecdh_kdf_md:sha384"] {
        for activation in ALL {
            let encrypt = format!("cms -encrypt -aes-256-cbc -in clear -out c -recip key.crt {options}");
            let cost = device.cost_of(|| {
                let _ = activation.openssl(&device, &encrypt).ok();
            });
            assert!(cost.is_empty(), "{activation:?}: {cost:?}");
            let cost = device.cost_of(|| {
                let _ = activation.openssl(&device, "cms -decrypt -in c -inkey key.pem -recip key.crt -out d").ok();
            });
            assert_eq!(device.read("d"), device.read("clear"));
            assert_eq!(cost, ["CreatePrimary", "Load", "FlushContext", "ECDH_ZGen", "FlushContext"]);
            device.write("d", "");
        }
    }
}

#[test]
fn a_pin_keeps_what_is_decrypted_and_derived_off_the_bus() {
    let device = Device::new();
    let token = Token::new(&device, "dev", "123456");
    token.generate("rsa:2048", "rsa", "01");
    token.generate("EC:prime256v1", "ec", "02");
    let _ =
        Activation::DefaultFirst.openssl(&device, &format!("pkey -in {} -pubout -out key.pub", token.uri("rsa"))).ok();
    device.write("clear", "a secret message");
    let _ = plain_openssl(&device, "pkeyutl -encrypt -pubin -inkey key.pub -in clear -out c").ok();
    let decrypt = format!("pkeyutl -decrypt -inkey {} -in c -out d", token.uri("rsa"));
    let _ = Activation::DefaultFirst.openssl(&device, &decrypt).ok();
    assert_eq!(device.read("d"), device.read("clear"));
    let _ = plain_openssl(&device, "genpkey -algorithm EC -pkeyopt group:P-256 -out peer.pem").ok();
    let _ = plain_openssl(&device, "pkey -in peer.pem -pubout -out peer.pub").ok();
    let derive = format!("pkeyutl -derive -inkey {} -peerkey peer.pub -out secret", token.uri("ec"));
    let _ = Activation::DefaultFirst.openssl(&device, &derive).ok();
    let on_the_bus = device.tpm_bytes();
    for secret in ["clear", "secret"] {
        let secret = device.read(secret);
        assert!(!on_the_bus.windows(secret.len()).any(|bytes| bytes == secret));
    }
}

/// Leaves the certificate of `key.pem`, by itself, in `key.crt`.
fn self_certified(device: &Device) {
    let certify = "req -x509 -new -key key.pem -subj /CN=x -days 2 -out key.crt";
    let _ = Activation::DefaultFirst.openssl(device, certify).ok();
}
