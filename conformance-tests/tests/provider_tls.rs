//! TLS with keys in the TPM, on both sides, however the provider is activated: one signature of the TPM for each side.

mod activation;

use std::process::Stdio;

use activation::{ALL, Activation};
use conformance_tests::{Device, Hold, Server, free_port, say_hello};

#[test]
fn tls_1_2_works_with_rsa_keys() {
    handshakes(["RSA", "rsa_keygen_bits:2048"], "-tls1_2");
}

#[test]
fn tls_1_2_works_with_ec_keys() {
    handshakes(["EC", "group:P-256"], "-tls1_2");
}

#[test]
fn tls_1_3_works_with_rsa_keys() {
    handshakes(["RSA", "rsa_keygen_bits:2048"], "-tls1_3");
}

#[test]
fn tls_1_3_works_with_ec_keys() {
    handshakes(["EC", "group:P-256"], "-tls1_3");
}

#[test]
fn tls_1_3_and_1_2_work_with_rsa_pss_keys() {
    for version in ["-tls1_2", "-tls1_3"] {
        handshakes(["RSA-PSS", "rsa_keygen_bits:2048"], version);
    }
}

#[test]
fn the_rsa_key_exchange_of_tls_1_2_decrypts_once_in_the_tpm() {
    let device = Device::with_hold(Hold::Default);
    device.new_key_file(["RSA", "rsa_keygen_bits:2048"], "key.pem");
    let names = "req -x509 -new -key key.pem -subj /CN=localhost -addext subjectAltName=DNS:localhost -out crt.pem";
    let _ = Activation::DefaultFirst.openssl(&device, names).ok();
    for activation in ALL {
        let (said, cost) = handshake(&device, activation, "-tls1_2 -cipher AES256-GCM-SHA384");
        assert!(said.contains("Verify return code: 0 (ok)") && said.contains("olleh"), "{activation:?}: {said}");
        for name in ["RSA_Decrypt", "Sign"] {
            assert_eq!(cost.iter().filter(|command| *command == name).count(), 1, "{activation:?} {cost:?}");
        }
    }
}

/// Handshakes with the same key and certificate on both sides; each group of ephemeral keys, each activation.
fn handshakes(kind: [&str; 2], version: &str) {
    let device = Device::with_hold(Hold::Default);
    device.new_key_file(kind, "key.pem");
    let names = "req -x509 -new -key key.pem -subj /CN=localhost -addext subjectAltName=DNS:localhost -out crt.pem";
    let _ = Activation::DefaultFirst.openssl(&device, names).ok();
    for activation in ALL {
        // TLS 1.2 takes the curve of a certificate's key from the same list (RFC 8422, 5.1.1).
        for groups in ["X25519:P-256", "P-256", "P-384:P-256", "P-521:P-256"] {
            let (said, cost) = handshake(&device, activation, &format!("{version} -groups {groups}"));
            let context = format!("{activation:?} {groups}: {said}");
            assert!(said.contains("Verify return code: 0 (ok)") && said.contains("olleh"), "{context}");
            assert_eq!(cost.iter().filter(|name| *name == "Sign").count(), 2, "{cost:?} {context}");
            // Nothing is made in the TPM for a handshake but the parent of the key.
            let known = ["CreatePrimary", "Load", "Sign", "FlushContext"];
            assert!(cost.iter().all(|name| known.contains(&name.as_str())), "{cost:?} {context}");
        }
    }
}

/// One connection; what the client printed, and what it all cost the TPM.
fn handshake(device: &Device, activation: Activation, options: &str) -> (String, Vec<String>) {
    let configuration = activation.configuration(device);
    let port = free_port();
    let peers = "-cert crt.pem -key key.pem -CAfile crt.pem";
    let mut server = device.command("openssl");
    server.env("OPENSSL_CONF", &configuration).stdin(Stdio::null());
    let listen = format!("s_server -accept 127.0.0.1:{port} -Verify 1 -verify_return_error -rev {peers}");
    let server = Server::start(server.args(listen.split_whitespace()), port, &device.path("server.log"));
    device.mark();
    let connect =
        format!("s_client -connect 127.0.0.1:{port} -verify_return_error -verify_hostname localhost {peers} {options}");
    let mut client = device.command("openssl");
    let said = say_hello(client.env("OPENSSL_CONF", &configuration).args(connect.split_whitespace()));
    let cost = device.commands();
    (format!("{said}\nserver: {}", server.output()), cost)
}

#[test]
fn every_name_of_a_group_that_programs_use_is_known() {
    let device = Device::new();
    for activation in ALL {
        for group in ["P-256", "secp256r1", "prime256v1", "P-384", "secp384r1", "P-521", "secp521r1", "X25519"] {
            // Nobody listens there: what is wrong with the group is said before.
            let refused =
                activation.openssl(&device, &format!("s_client -groups {group} -connect 127.0.0.1:1")).fails();
            assert!(refused.stderr().contains("onnect"), "{activation:?} {group}: {refused}");
        }
    }
}
