//! Many processes and one TPM without a resource manager: three transient slots, and everybody gets a turn.

mod tls_server;

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use conformance_tests::{Device, Hold, Run as _, Token};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectClass};
use cryptoki::session::UserType;
use cryptoki::types::AuthPin;
use tls_server::TlsServer;

#[test]
fn sixty_four_signers_at_once_all_succeed() {
    let device = Device::with_hold(Hold::Default);
    let (gateway, sensor) = (Token::new(&device, "gateway", "123456"), Token::new(&device, "sensor", ""));
    gateway.generate("EC:prime256v1", "ec", "01");
    sensor.generate("EC:prime256v1", "ec", "01");
    let signers: Vec<_> = (0..64)
        .map(|number| {
            let token = if number % 2 == 0 { &gateway } else { &sensor };
            token.start_signer("ec", "01", number)
        })
        .collect();
    for signer in signers {
        let output = signer.wait_with_output().expect("the signer ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(device.left_at_the_tpm(), "");
    println!("64 signers of two tokens, through module and provider, all succeeded");
}

#[test]
fn a_server_that_idles_holds_nothing_and_keeps_nobody_waiting() {
    let device = Device::with_hold(Hold::Default);
    let server = TlsServer::of_key_file(&device);
    let _ = server.handshake().ok();
    sleep(Duration::from_millis(300));
    assert_eq!(device.left_at_the_tpm(), "");
    let start = Instant::now();
    let _ = sign(&device, "server.pem", "signature").run().ok();
    assert!(start.elapsed() < Duration::from_secs(5), "it waited for {:?}", start.elapsed());
    let _ = server.handshake().ok();
}

#[test]
fn an_idle_process_lets_go_however_long_it_would_hold_a_tpm_of_its_own() {
    let device = Device::with_hold(Hold::Default);
    device.configure("hold_ms = 600000\npatience_ms = 20000\n");
    let server = TlsServer::of_key_file(&device);
    let _ = server.handshake().ok();
    let _ = sign(&device, "server.pem", "signature").run().ok();
    let _ = server.handshake().ok();
}

#[test]
fn servers_killed_while_they_hold_a_key_leave_nothing_that_stops_the_next() {
    let device = Device::new();
    for _ in 0..5 {
        let server = TlsServer::of_key_file(&device);
        let _ = server.handshake().ok();
        assert_ne!(device.left_at_the_tpm(), "", "it holds its key");
        let _ = device.run(&["kill", "-KILL", &server.process_id().to_string()]).ok();
        drop(server);
    }
    let _ = sign(&device, "server.pem", "signature").run().ok();
    assert_eq!(device.left_at_the_tpm(), "", "whoever comes next tidies up");
    let token = Token::new(&device, "gateway", "123456");
    token.generate("rsa:2048", "rsa", "01");
    let _ = sign(&device, &token.uri("rsa"), "signature").run().ok();
}

fn sign(device: &Device, key: &str, signature: &str) -> Command {
    let mut command = device.command("openssl");
    command.env("OPENSSL_CONF", device.openssl_conf());
    command.args(["dgst", "-sha256", "-sign", key, "-out", signature, "openssl.cnf"]);
    command
}

#[test]
fn what_somebody_else_flushed_is_loaded_again() {
    let device = Device::new();
    for (label, pin) in [("open", ""), ("locked", "1234")] {
        Token::new(&device, label, pin).generate("EC:prime256v1", "ec", "01");
    }
    device.enter();
    let module = Pkcs11::new(device.module()).unwrap();
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    for slot in module.get_slots_with_initialized_token().unwrap() {
        let session = module.open_rw_session(slot).unwrap();
        if module.get_token_info(slot).unwrap().login_required() {
            session.login(UserType::User, Some(&AuthPin::new("1234".into()))).unwrap();
        }
        let key = session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]).unwrap()[0];
        let sign = || session.sign(&Mechanism::Ecdsa, key, &[7; 32]).unwrap();
        // The third leaves key and, behind a PIN, session at the TPM.
        let _ = (sign(), sign(), sign());
        for flushed in [&["--transient-object"][..], &["--loaded-session"], &["--transient-object", "--loaded-session"]]
        {
            for kind in flushed {
                let _ = device.run(&["tpm2_flushcontext", kind]).ok();
            }
            let _ = (sign(), sign());
        }
    }
}
