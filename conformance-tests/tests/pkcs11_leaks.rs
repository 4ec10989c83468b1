//! Nothing is left at the TPM, whatever was done: three transient slots, no resource manager, nobody who cleans up.

mod client;
mod raw;

use client::{Client, Wanted};
use conformance_tests::{Device, Hold, Token, count};
use cryptoki::error::RvError;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, KeyType, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;

fn client(pin: &str) -> Client {
    let device = Device::with_hold(Hold::Default);
    let _ = Token::new(&device, "dev", pin);
    Client::of(device, pin)
}

/// Nothing is held for a process that is idle, but alive.
fn assert_idle(client: &Client) {
    Client::assert_nothing_is_left_at_the_tpm(&client.device);
}

#[test]
fn after_many_generations_nothing_is_left() {
    let client = client(client::PIN);
    for number in 0..count(40, 1000) {
        let token = number % 4 == 0;
        let (public, private) = client.ec(raw::P256, &[Attribute::Token(token)]);
        assert!(client.sign(&Mechanism::EcdsaSha256.into(), private, b"x").is_ok());
        client.session.destroy_object(public).unwrap();
        client.session.destroy_object(private).unwrap();
    }
    assert_idle(&client);
}

#[test]
fn a_hundred_keys_are_used_in_turns_by_one_process() {
    let client = client(client::PIN);
    let keys: Vec<_> = (0..100).map(|_| client.ec(raw::P256, &[])).collect();
    for _ in 0..count(2, 20) {
        for (public, private) in &keys {
            let signature = client.sign(&Mechanism::EcdsaSha256.into(), *private, b"x").unwrap();
            assert_eq!(client.verify(&Mechanism::EcdsaSha256.into(), *public, b"x", &signature), Ok(()));
        }
    }
    assert_idle(&client);
}

#[test]
fn many_signatures_with_a_second_session_open_all_work() {
    let client = client(client::PIN);
    let (_, private) = client.ec(raw::P256, &[]);
    let second = client.module.open_rw_session(client.slot()).unwrap();
    second.sign_init(&Mechanism::EcdsaSha256, private).unwrap();
    let signatures = count(2000, 65_600);
    client.device.mark();
    for _ in 0..signatures {
        client.sign(&Mechanism::Ecdsa.into(), private, &[7; 32]).unwrap();
    }
    // What began before all of them ends after them.
    second.sign_update(b"message").unwrap();
    second.sign_final().unwrap();
    if signatures < 10_000 {
        let commands = client.device.commands();
        let signs = commands.iter().filter(|name| *name == "Sign").count();
        assert_eq!(signs, signatures + 1);
        assert!(commands.len() < signs + signs / 2, "{} commands for {signs} signatures", commands.len());
    }
    assert_idle(&client);
}

#[test]
fn every_kind_of_use_leaves_nothing() {
    let client = client(client::PIN);
    let (public, rsa) = client.rsa_for_all(2048);
    let (_, ec) = client.ec(raw::P256, &[Attribute::Sign(true), Attribute::Derive(true)]);
    let usage = [Attribute::Encrypt(true), Attribute::Decrypt(true), Attribute::ValueLen(16.into())];
    let aes = client.session.generate_key(&Mechanism::AesKeyGen, &usage).unwrap();
    let usage = [Attribute::Sign(true), Attribute::ValueLen(32.into())];
    let hmac = client.session.generate_key(&Mechanism::GenericSecretKeyGen, &usage).unwrap();
    let encrypted = client.encrypt(&Mechanism::RsaPkcs.into(), public, b"secret").unwrap();
    for _ in 0..10 {
        client.decrypt(&Mechanism::RsaPkcs.into(), rsa, &encrypted).unwrap();
        client.sign(&Mechanism::EcdsaSha256.into(), ec, b"x").unwrap();
        client.sign(&Mechanism::Sha256Hmac.into(), hmac, &[1; 3000]).unwrap();
        client.encrypt(&Mechanism::AesCbc([0; 16]).into(), aes, &[1; 4096]).unwrap();
    }
    assert_idle(&client);
}

#[test]
fn what_fails_leaves_nothing_either() {
    let client = client(client::PIN);
    let (_, rsa) = client.rsa_for_all(2048);
    for _ in 0..5 {
        let refused = client.decrypt(&Mechanism::RsaX509.into(), rsa, &[0xff; 256]);
        assert_eq!(refused, Err(RvError::EncryptedDataInvalid));
    }
    client.session.logout().unwrap();
    client.session.login(UserType::User, Some(&AuthPin::from("wrong"))).unwrap_err();
    assert_idle(&client);
    client.session.login(UserType::User, Some(&AuthPin::from(client::PIN))).unwrap();
    // Operations that were begun and never ended.
    let (_, ec) = client.ec(raw::P256, &[]);
    for _ in 0..10 {
        let session = client.module.open_ro_session(client.slot()).unwrap();
        session.sign_init(&Mechanism::EcdsaSha256, ec).unwrap();
        session.sign_update(b"half of it").unwrap();
    }
    let usage = [Attribute::Encrypt(true), Attribute::ValueLen(16.into())];
    let aes = client.session.generate_key(&Mechanism::AesKeyGen, &usage).unwrap();
    client.start(client::Start::Encrypt, &Wanted::from(Mechanism::AesCbc([0; 16])), aes).unwrap();
    client.session.encrypt_update(&[1; 100]).unwrap();
    assert_idle(&client);
}

#[test]
fn threads_with_keys_of_their_own_share_three_slots() {
    let client = client(client::PIN);
    let keys: Vec<_> = (0..8).map(|_| client.ec(raw::P256, &[])).collect();
    std::thread::scope(|scope| {
        for (public, private) in &keys {
            let session = client.module.open_ro_session(client.slot()).unwrap();
            scope.spawn(move || {
                for round in 0..count(10, 200) {
                    let data = format!("message {round}");
                    let signature = session.sign(&Mechanism::EcdsaSha256, *private, data.as_bytes()).unwrap();
                    session.verify(&Mechanism::EcdsaSha256, *public, data.as_bytes(), &signature).unwrap();
                }
            });
        }
    });
    assert_idle(&client);
    assert_eq!(client.session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]).unwrap().len(), 8);
}

#[test]
fn threads_with_every_kind_of_work_do_not_get_in_each_others_way() {
    let client = client(client::PIN);
    let (rsa_public, rsa) = client.rsa_for_all(2048);
    let (ec_public, ec) = client.ec(raw::P256, &[]);
    let key = |kind, usage: &[Attribute]| {
        let value = [0x37; 32];
        let template = [&client::secret(kind, &value)[..], &[Attribute::Token(true)], usage].concat();
        client.session.create_object(&template).unwrap()
    };
    let aes = key(KeyType::AES, &[Attribute::Encrypt(true)]);
    let hmac = key(KeyType::GENERIC_SECRET, &[Attribute::Sign(true)]);
    let data: Vec<u8> = (0..5000).map(|number| (number % 251) as u8).collect();
    let encrypted = openssl::symm::encrypt(openssl::symm::Cipher::aes_256_cbc(), &[0x37; 32], Some(&[0; 16]), &data);
    let encrypted = encrypted.unwrap();
    let hmac_key = openssl::pkey::PKey::hmac(&[0x37; 32]).unwrap();
    let mac = openssl::sign::Signer::new(openssl::hash::MessageDigest::sha256(), &hmac_key)
        .and_then(|mut signer| signer.sign_oneshot_to_vec(&data))
        .unwrap();
    let wrapped = client.encrypt(&Mechanism::RsaPkcs.into(), rsa_public, b"secret").unwrap();
    let work: [&(dyn Fn(&Session) + Sync); 4] = [
        // Longer than a TPM's buffer: several commands, and a sequence that takes a slot of the TPM.
        &|session| assert_eq!(session.encrypt(&Mechanism::AesCbcPad([0; 16]), aes, &data).unwrap(), encrypted),
        &|session| assert_eq!(session.sign(&Mechanism::Sha256Hmac, hmac, &data).unwrap(), mac),
        &|session| assert_eq!(session.decrypt(&Mechanism::RsaPkcs, rsa, &wrapped).unwrap(), b"secret"),
        &|session| {
            let signature = session.sign(&Mechanism::EcdsaSha256, ec, &data).unwrap();
            session.verify(&Mechanism::EcdsaSha256, ec_public, &data, &signature).unwrap();
        },
    ];
    std::thread::scope(|scope| {
        for run in work.iter().chain(&work) {
            let session = client.module.open_ro_session(client.slot()).unwrap();
            scope.spawn(move || (0..count(8, 200)).for_each(|_| run(&session)));
        }
    });
    assert_idle(&client);
}

#[test]
fn keys_work_on_after_the_tpm_was_switched_off_and_on() {
    let client = client(client::PIN);
    let (_, ec) = client.ec(raw::P256, &[Attribute::Token(true)]);
    let (_, rsa) = client.rsa_for_all(2048);
    let usage = [Attribute::Encrypt(true), Attribute::ValueLen(16.into())];
    let aes = client.session.generate_key(&Mechanism::AesKeyGen, &usage).unwrap();
    let ecb = || client.encrypt(&Mechanism::AesEcb.into(), aes, &[1; 16]);
    let before = ecb().unwrap();
    client.session.sign_init(&Mechanism::EcdsaSha256, ec).unwrap();
    client.session.sign_update(b"begun before").unwrap();
    client.device.restart_tpm(true);
    client.session.sign_final().unwrap();
    assert_eq!(ecb(), Ok(before.clone()));
    // In the middle of a burst, and without a farewell.
    client.sign(&Mechanism::Sha256RsaPkcs.into(), rsa, b"x").unwrap();
    client.device.cut_power();
    assert_eq!(ecb(), Err(RvError::DeviceRemoved));
    client.device.start_tpm();
    assert_eq!(ecb(), Ok(before));
    client.sign(&Mechanism::Sha256RsaPkcs.into(), rsa, b"x").unwrap();
    client.sign(&Mechanism::EcdsaSha256.into(), ec, b"x").unwrap();
    assert_idle(&client);
}
