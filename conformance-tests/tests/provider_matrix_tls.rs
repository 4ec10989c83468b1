//! TLS between OpenSSL with a key in the TPM and OpenSSL without us, with keys in a file, in a token and at a handle,
//! however the provider is activated: one signature for each handshake.

mod matrix;

use std::process::Command;

use conformance_tests::{Device, Hold, Server, free_port, say_hello};
use matrix::activation::plain_openssl;
use matrix::{EC, Kind, Matrix, RSA};

/// What the peer offers, and how OpenSSL 3.0 and later ones say that they got that.
type Offer = (&'static str, [&'static str; 2]);

const OF_RSA: [Offer; 4] = [
    ("-tls1_2 -sigalgs RSA+SHA256", ["RSA", "rsa_pkcs1_sha256"]),
    ("-tls1_2 -sigalgs RSA-PSS+SHA384", ["RSA-PSS", "rsa_pss_rsae_sha384"]),
    ("-tls1_3 -sigalgs RSA-PSS+SHA256", ["RSA-PSS", "rsa_pss_rsae_sha256"]),
    ("-tls1_3 -sigalgs RSA-PSS+SHA512", ["RSA-PSS", "rsa_pss_rsae_sha512"]),
];
const OF_EC: [Offer; 3] = [
    ("-tls1_2 -sigalgs ECDSA+SHA256", ["ECDSA", "ecdsa_secp256r1_sha256"]),
    ("-tls1_2 -sigalgs ECDSA+SHA512", ["ECDSA", "ecdsa_secp521r1_sha512"]),
    ("-tls1_3 -sigalgs ECDSA+SHA256", ["ECDSA", "ecdsa_secp256r1_sha256"]),
];

#[test]
fn servers_with_rsa_keys_are_believed_by_any_client() {
    servers(RSA, &OF_RSA);
}

#[test]
fn servers_with_ec_keys_are_believed_by_any_client() {
    servers(EC, &OF_EC);
}

#[test]
fn clients_with_rsa_keys_are_believed_by_any_server() {
    clients(RSA, &OF_RSA);
}

#[test]
fn clients_with_ec_keys_are_believed_by_any_server() {
    clients(EC, &OF_EC);
}

fn servers(kind: Kind, offers: &[Offer]) {
    let matrix = Matrix::new(kind, Hold::ToTheEnd);
    let device = &matrix.device;
    matrix.each(|key, activation| {
        // A server holds what it has at the TPM until it ends, so it is alone with the TPM.
        let port = free_port();
        let listen = key.put_into(&format!("s_server -accept 127.0.0.1:{port} -rev -cert KEY.crt -key KEY"));
        let server = Server::start(&mut activation.command(device, &listen), port, &device.path("server.log"));
        for (offer, taken) in offers {
            device.mark();
            let connect = format!("s_client -connect 127.0.0.1:{port} {offer} -verify_return_error -CAfile KEY.crt");
            let said = say_hello(&mut plain(device, &key.put_into(&connect)));
            let context = format!("{offer}: {activation:?}, {}: {said}\nserver: {}", key.reference, server.output());
            assert!(said.contains("Verify return code: 0 (ok)") && said.contains("olleh"), "{context}");
            assert!(tells(&said, taken), "{context}");
            let commands = device.commands();
            assert_eq!(commands.iter().filter(|name| *name == "Sign").count(), 1, "{commands:?} {context}");
        }
    });
}

fn clients(kind: Kind, offers: &[Offer]) {
    let matrix = Matrix::new(kind, Hold::ToTheEnd);
    let device = &matrix.device;
    let names = "-subj /CN=localhost -addext subjectAltName=DNS:localhost";
    let _ = plain_openssl(device, "genpkey -algorithm RSA -out server.key").ok();
    let _ = plain_openssl(device, &format!("req -x509 -new -key server.key {names} -out server.crt")).ok();
    for (offer, taken) in offers {
        // The server says for which signatures of clients it asks; its own is RSA.
        let offer = offer.replace("-sigalgs", "-client_sigalgs");
        matrix.each(|key, activation| {
            let port = free_port();
            let peers = key.put_into("-cert server.crt -key server.key -Verify 1 -verify_return_error -CAfile KEY.crt");
            let listen = format!("s_server -accept 127.0.0.1:{port} {offer} -rev {peers}");
            let server = Server::start(&mut plain(device, &listen), port, &device.path("server.log"));
            device.mark();
            let connect = format!("s_client -connect 127.0.0.1:{port} -CAfile server.crt -cert KEY.crt -key KEY");
            let said = say_hello(&mut activation.command(device, &key.put_into(&connect)));
            let context = format!("{offer}: {activation:?}, {}: {said}\nserver: {}", key.reference, server.output());
            assert!(said.contains("olleh"), "{context}");
            assert!(tells(&server.output(), taken), "{context}");
            let commands = device.commands();
            assert_eq!(commands.iter().filter(|name| *name == "Sign").count(), 1, "{commands:?} {context}");
        });
    }
}

/// Whether one side tells that the other signed so.
fn tells(said: &str, ways: &[&str; 2]) -> bool {
    ways.iter().any(|way| said.contains(&format!("ignature type: {way}\n")))
}

/// `openssl` without the provider.
fn plain(device: &Device, line: &str) -> Command {
    let mut command = device.command("openssl");
    command.args(line.split_whitespace());
    command
}
