//! Everything in one process: the module, SoftHSM, p11-kit's proxy over both, and the OpenSSL provider.

mod client;
mod raw;

use client::{Client, PIN};
use conformance_tests::{Device, Hold, Run as _, Token};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private, Public};
use openssl::provider::Provider;
use openssl::sign::{Signer, Verifier};

const MESSAGE: &[u8] = b"what is signed";
const ROUNDS: usize = 10;

/// One file of that name, wherever the distribution has put it.
fn library(directories: &[&str], name: &str) -> String {
    let paths = directories.iter().flat_map(|directory| {
        let inside = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let inside = inside.map(|entry| entry.path().join(name));
        inside.chain([std::path::Path::new(directory).join(name)]).collect::<Vec<_>>()
    });
    let found = paths.into_iter().find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is missing in {directories:?}")).display().to_string()
}

#[test]
fn the_module_softhsm_p11_kit_and_the_provider_share_a_process() {
    let device = Device::with_hold(Hold::Default);
    Token::new(&device, "dev", PIN).generate("EC:prime256v1", "ec", "01");
    Token::new(&device, "iot", "").generate("rsa:2048", "rsa", "02");
    device.new_key_file(["EC", "group:P-256"], "key.pem");
    let softhsm = library(&["/usr/lib", "/usr/lib/softhsm"], "libsofthsm2.so");
    std::fs::create_dir_all(device.path("soft")).unwrap();
    device.write("softhsm2.conf", format!("directories.tokendir = {}\n", device.path("soft").display()));
    device.set_variable("SOFTHSM2_CONF", &device.path("softhsm2.conf").display().to_string());
    let init = ["softhsm2-util", "--init-token", "--free", "--label", "soft", "--pin", PIN, "--so-pin", "12345678"];
    let _ = device.run(&init).ok();
    // What p11-kit reads is for this process alone.
    std::fs::create_dir_all(device.path("p11/pkcs11/modules")).unwrap();
    device.write("p11/pkcs11/pkcs11.conf", "user-config: only\n");
    device.write("p11/pkcs11/modules/keyrivet.module", format!("module: {}\n", device.module()));
    device.write("p11/pkcs11/modules/softhsm.module", format!("module: {softhsm}\n"));

    // p11-kit reads no personal configuration for root: the inner process is somebody else in name.
    let inner = std::env::current_exe().unwrap().display().to_string();
    let words = [inner.as_str(), "--exact", "inner", "--ignored", "--nocapture"];
    let root = device.run(&["id", "-u"]).ok().stdout().trim() == "0";
    let words = [if root { &["unshare", "--user", "--map-user=1000"][..] } else { &[] }, &words].concat();
    let mut command = device.command(words[0]);
    command.args(&words[1..]).env("XDG_CONFIG_HOME", device.path("p11")).env("SOFTHSM", softhsm);
    let _ = command.run().ok().says("all together");
    Client::assert_nothing_is_left_at_the_tpm(&device);
}

#[test]
#[ignore = "run by the test above, in an environment of its own"]
fn inner() {
    let ours = Pkcs11::new(std::env::var("PKCS11_MODULE_PATH").unwrap()).unwrap();
    let soft = Pkcs11::new(std::env::var("SOFTHSM").unwrap()).unwrap();
    let proxy = Pkcs11::new(library(&["/usr/lib"], "p11-kit-proxy.so")).unwrap();
    for module in [&ours, &soft, &proxy] {
        // p11-kit initialises what is initialised already, and takes that as it is.
        module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    }
    let _default = Provider::load(None, "default").unwrap();
    let _keyrivet = Provider::load(None, "keyrivet").unwrap();
    let file = PKey::private_key_from_pem(&std::fs::read("key.pem").unwrap()).unwrap();

    let mut sessions: Vec<Box<dyn Fn() + Send>> = vec![Box::new(move || sign_with_openssl(&file))];
    for label in ["dev", "iot"] {
        for module in [&ours, &proxy] {
            let session = open(module, label);
            sessions.push(Box::new(move || sign_with_stored_key(&session)));
        }
    }
    for module in [&soft, &proxy] {
        let session = open(module, "soft");
        sessions.push(Box::new(move || sign_with_new_key(&session)));
    }
    assert_eq!(sessions.len(), 7);
    // In turns, and then all at once.
    for _ in 0..3 {
        sessions.iter().for_each(|run| run());
    }
    std::thread::scope(|scope| {
        for run in sessions {
            scope.spawn(move || (0..ROUNDS).for_each(|_| run()));
        }
    });
    println!("all together");
}

fn open(module: &Pkcs11, label: &str) -> Session {
    let slots = module.get_slots_with_initialized_token().unwrap();
    let slot = slots.into_iter().find(|slot| module.get_token_info(*slot).unwrap().label() == label);
    let slot = slot.unwrap_or_else(|| panic!("token {label} is not seen"));
    let session = module.open_rw_session(slot).unwrap();
    if module.get_token_info(slot).unwrap().login_required() {
        // The proxy and the module below it are one application: the second login finds the first.
        let login = session.login(UserType::User, Some(&AuthPin::from(PIN)));
        assert!(matches!(client::answer(login), Ok(()) | Err(cryptoki::error::RvError::UserAlreadyLoggedIn)));
    }
    session
}

fn sign_with_openssl(key: &PKey<Private>) {
    let signature = Signer::new(MessageDigest::sha256(), key).unwrap().sign_oneshot_to_vec(MESSAGE).unwrap();
    let public = PKey::public_key_from_der(&key.public_key_to_der().unwrap()).unwrap();
    assert_verifies(&public, &signature);
}

fn sign_with_stored_key(session: &Session) {
    let key = session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]).unwrap()[0];
    let info = session.get_attributes(key, &[cryptoki::object::AttributeType::PublicKeyInfo]).unwrap();
    let [Attribute::PublicKeyInfo(info)] = &info[..] else { panic!("{info:?}") };
    let public = PKey::public_key_from_der(info).unwrap();
    if public.rsa().is_ok() {
        assert_verifies(&public, &session.sign(&Mechanism::Sha256RsaPkcs, key, MESSAGE).unwrap());
    } else {
        assert_verifies(&public, &raw::ecdsa_der(&session.sign(&Mechanism::EcdsaSha256, key, MESSAGE).unwrap()));
    }
}

fn sign_with_new_key(session: &Session) {
    let public = [Attribute::EcParams(raw::P256.to_vec()), Attribute::Verify(true)];
    let private = [Attribute::Sign(true), Attribute::Sensitive(true)];
    let (public, private) = session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private).unwrap();
    // SoftHSM only has the bare mechanism.
    let digest = openssl::sha::sha256(MESSAGE);
    let signature = session.sign(&Mechanism::Ecdsa, private, &digest).unwrap();
    session.verify(&Mechanism::Ecdsa, public, &digest, &signature).unwrap();
    session.destroy_object(private).unwrap();
    session.destroy_object(public).unwrap();
}

fn assert_verifies(key: &PKey<Public>, signature: &[u8]) {
    assert!(Verifier::new(MessageDigest::sha256(), key).unwrap().verify_oneshot(signature, MESSAGE).unwrap());
}
