//! A program that lives on with a key of the provider's, while its TPM is restarted, busy, full, silent, or answers what is
//! no answer.

mod tls_server;

use conformance_tests::{Device, Harm, Token, Wire};
use tls_server::TlsServer;

/// A P-256 key in a file and one of a token with PIN, each on a device of its own, and what names it.
fn each_key(test: impl Fn(&Device, &str)) {
    let device = Device::new();
    device.new_key_file(["EC", "group:P-256"], "server.pem");
    test(&device, "server.pem");
    let device = Device::new();
    let token = Token::new(&device, "gateway", "123456");
    token.generate("EC:prime256v1", "ec", "01");
    test(&device, &token.uri("ec"));
}

/// A server behind a wire on which nothing happens yet.
fn behind<'a>(wire: &Wire, device: &'a Device, key: &str) -> TlsServer<'a> {
    device.use_tcti(wire.tcti());
    let server = TlsServer::start(device, key);
    let _ = server.handshake().ok();
    server
}

fn restarts_are_not_noticed(orderly: bool) {
    each_key(|device, key| {
        let server = TlsServer::start(device, key);
        let _ = server.handshake().ok();
        for _ in 0..5 {
            device.restart_tpm(orderly);
            // A TPM that lost its power with a PIN in use counts that, whatever we do: forget it here.
            if !orderly && key != "server.pem" {
                let _ = device.run(&["tpm2_dictionarylockout", "-c"]).ok();
            }
            let _ = server.handshake().ok();
        }
        assert_eq!(device.lockout_counter(), "0x0");
    });
}

#[test]
fn a_restart_of_the_tpm_is_not_noticed() {
    restarts_are_not_noticed(true);
}

#[test]
fn a_power_cut_of_the_tpm_is_not_noticed() {
    restarts_are_not_noticed(false);
}

#[test]
fn a_busy_or_full_tpm_is_not_noticed() {
    each_key(|device, key| {
        let wire = device.wire();
        let server = behind(&wire, device, key);
        // RETRY, YIELDED, TESTING.
        for code in [0x922, 0x908, 0x90a] {
            wire.harm("*", 3, Harm::Answer(code));
            let _ = server.handshake().ok();
        }
        // OBJECT_MEMORY, SESSION_MEMORY, MEMORY, SESSION_HANDLES, OBJECT_HANDLES, CONTEXT_GAP, at the commands that load.
        for code in [0x902, 0x903, 0x904, 0x905, 0x906, 0x901] {
            device.restart_tpm(true);
            for command in ["StartAuthSession", "Load"] {
                wire.harm(command, 1, Harm::Answer(code));
            }
            let _ = server.handshake().ok();
            wire.heal();
        }
        assert_eq!(device.lockout_counter(), "0x0");
    });
}

#[test]
fn what_is_no_answer_costs_one_handshake_at_most() {
    let harms = [
        // FAILURE, nothing known, no code at all, and what is no response.
        Harm::Answer(0x101),
        Harm::Answer(0xffff_ffff),
        Harm::Bytes(vec![0; 10]),
        Harm::Bytes([&[0x80, 0x02, 0, 0, 0, 100][..], &[0xff; 94]].concat()),
        Harm::Cut(9),
        Harm::Cut(14),
        Harm::Changed(0),
    ];
    each_key(|device, key| {
        let wire = device.wire();
        let server = behind(&wire, device, key);
        let mut failed = 0;
        for harm in &harms {
            wire.harm("*", 1, harm.clone());
            failed += u32::from(!server.handshake().succeeded());
            wire.heal();
            let _ = server.handshake().ok();
        }
        println!("{key}: {failed} of {} handshakes failed, no other", harms.len());
    });
}

#[test]
fn a_silent_tpm_is_not_waited_for_for_ever() {
    each_key(|device, key| {
        let wire = device.wire_as_device();
        device.configure("timeout_ms = 300\n");
        let server = behind(&wire, device, key);
        wire.harm("Sign", usize::MAX, Harm::Silence);
        assert!(!server.handshake().succeeded());
        wire.heal();
        let _ = server.handshake().ok();
        assert_eq!(device.lockout_counter(), "0x0");
    });
}
