//! What the module costs the TPM, exactly: nothing until a private key is used, and then the least that works.

use conformance_tests::{Device, Token};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;

const PIN: &str = "1234";
const NOTHING: [&str; 0] = [];

/// The module in this process, and a session with its only token.
fn session(device: &Device) -> (Pkcs11, Session) {
    device.enter();
    open(device)
}

fn open(device: &Device) -> (Pkcs11, Session) {
    let module = Pkcs11::new(device.module()).unwrap();
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    let slot = module.get_slots_with_initialized_token().unwrap()[0];
    let session = module.open_rw_session(slot).unwrap();
    (module, session)
}

fn sign(session: &Session, mechanism: &Mechanism<'_>, label: &str) {
    let private = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Label(label.into())];
    let key = session.find_objects(&private).unwrap()[0];
    let _ = session.sign(mechanism, key, &[7; 32]).unwrap();
}

#[test]
fn listing_slots_mechanisms_objects_and_certificates_costs_nothing() {
    let device = Device::new();
    let token = Token::new(&device, "dev", PIN);
    token.generate("EC:prime256v1", "ec", "01");
    token.generate("rsa:2048", "rsa", "02");
    for arguments in [&["--show-info"][..], &["--list-slots"], &["--list-mechanisms"], &["--list-objects"]] {
        let cost = device.cost_of(|| {
            let _ = device.pkcs11_tool(arguments).ok();
        });
        assert_eq!(cost, NOTHING, "{arguments:?}");
    }
    let read = ["--read-object", "--type", "pubkey", "--id", "02", "--output-file", "key.der"];
    let cost = device.cost_of(|| {
        let _ = device.pkcs11_tool(&read).ok();
    });
    assert_eq!(cost, NOTHING);
}

#[test]
fn a_cold_signature_without_a_pin_costs_three_commands() {
    let device = Device::new();
    let token = Token::new(&device, "iot", "");
    token.generate("EC:prime256v1", "ec", "01");
    token.generate("rsa:2048", "rsa", "02");
    device.write("data", "what is signed");
    for (id, mechanism) in [("01", "ECDSA-SHA256"), ("02", "SHA256-RSA-PKCS"), ("02", "SHA256-RSA-PKCS-PSS")] {
        let sign = ["--sign", "--id", id, "--mechanism", mechanism, "--input-file", "data", "--output-file", "s"];
        let cost = device.cost_of(|| {
            let _ = token.tool(&sign).ok();
        });
        assert_eq!(cost, ["Load", "Sign", "FlushContext"], "{mechanism}");
    }
}

#[test]
fn a_cold_signature_with_a_pin_costs_seven_commands() {
    let device = Device::new();
    let token = Token::new(&device, "dev", PIN);
    token.generate("EC:prime256v1", "ec", "01");
    device.write("data", "what is signed");
    let sign = ["--sign", "--id", "01", "--mechanism", "ECDSA-SHA256", "--input-file", "data", "--output-file", "s"];
    let cost = device.cost_of(|| {
        let _ = token.tool(&sign).ok();
    });
    let login = ["StartAuthSession", "Load", "Unseal", "FlushContext"];
    assert_eq!(cost, [&login[..], &["Load", "Sign", "FlushContext"]].concat());
}

#[test]
fn a_warm_signature_without_a_pin_costs_one_command() {
    let device = Device::new();
    Token::new(&device, "iot", "").generate("EC:prime256v1", "ec", "01");
    let (_module, session) = session(&device);
    sign(&session, &Mechanism::Ecdsa, "ec");
    assert_eq!(device.cost_of(|| sign(&session, &Mechanism::Ecdsa, "ec")), ["Sign"]);
    assert_eq!(device.cost_of(|| (0..20).for_each(|_| sign(&session, &Mechanism::Ecdsa, "ec"))), ["Sign"; 20]);
}

#[test]
fn a_warm_signature_with_a_pin_costs_one_command() {
    let device = Device::new();
    Token::new(&device, "dev", PIN).generate("rsa:2048", "rsa", "01");
    let (_module, session) = session(&device);
    session.login(UserType::User, Some(&AuthPin::from(PIN))).unwrap();
    // The first one ends the session that the login has opened, the second one opens one for the burst.
    let first = device.cost_of(|| sign(&session, &Mechanism::Sha256RsaPkcs, "rsa"));
    assert_eq!(first, ["Load", "Sign"]);
    let second = device.cost_of(|| sign(&session, &Mechanism::Sha256RsaPkcs, "rsa"));
    assert_eq!(second, ["StartAuthSession", "Sign"]);
    assert_eq!(device.cost_of(|| (0..20).for_each(|_| sign(&session, &Mechanism::Sha256RsaPkcs, "rsa"))), ["Sign"; 20]);
}

#[test]
fn nothing_stays_at_the_tpm_after_finalise() {
    let device = Device::new();
    Token::new(&device, "dev", PIN).generate("EC:prime256v1", "ec", "01");
    let (module, session) = session(&device);
    session.login(UserType::User, Some(&AuthPin::from(PIN))).unwrap();
    sign(&session, &Mechanism::Ecdsa, "ec");
    drop(session);
    module.finalize().unwrap();
    assert_eq!(device.left_at_the_tpm(), "");
}

#[test]
fn login_digests_and_verification_cost_what_they_must() {
    let device = Device::new();
    Token::new(&device, "dev", PIN).generate("EC:prime256v1", "ec", "01");
    let (_module, session) = session(&device);
    let cost = device.cost_of(|| session.login(UserType::User, Some(&AuthPin::from(PIN))).unwrap());
    assert!(cost.len() <= 4, "{cost:?}");
    let public = [Attribute::Class(ObjectClass::PUBLIC_KEY)];
    let key = session.find_objects(&public).unwrap()[0];
    let cost = device.cost_of(|| {
        session.verify(&Mechanism::Ecdsa, key, &[7; 32], &[1; 64]).unwrap_err();
        let _ = session.digest(&Mechanism::Sha256, b"data").unwrap();
        let _ = session.generate_random_vec(32).unwrap();
        session.seed_random(b"seed").unwrap();
    });
    assert_eq!(cost, NOTHING);
}

fn long_mac(pin: &str) {
    let device = Device::new();
    let _ = Token::new(&device, "dev", pin);
    let login = |session: &Session| {
        session.login(UserType::User, Some(&AuthPin::new(pin.to_owned().into_boxed_str()))).unwrap();
    };
    let (module, session) = session(&device);
    login(&session);
    let template = [Attribute::Token(true), Attribute::Sign(true), Attribute::ValueLen(32.into())];
    let _ = session.generate_key(&Mechanism::GenericSecretKeyGen, &template).unwrap();
    module.finalize().unwrap();
    let (module, session) = open(&device);
    login(&session);
    let key = session.find_objects(&[Attribute::Class(ObjectClass::SECRET_KEY)]).unwrap()[0];
    let cost = device.cost_of(|| {
        let _ = session.sign(&Mechanism::Sha256Hmac, key, &[7; 3000]).unwrap();
        module.finalize().unwrap();
    });
    assert_eq!(cost, ["Load", "HMAC_Start", "SequenceUpdate", "SequenceUpdate", "SequenceComplete", "FlushContext"]);
}

#[test]
fn a_long_mac_without_a_pin_costs_a_command_for_each_kilobyte() {
    long_mac("");
}

/// In the login's session, which ends with the last of them.
#[test]
fn a_long_mac_after_the_login_costs_the_same() {
    long_mac(PIN);
}
