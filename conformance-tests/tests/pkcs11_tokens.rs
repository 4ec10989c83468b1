//! Tokens: how they are made, told apart, made anew; their PINs and what a wrong one leads to.

mod client;
mod raw;

use client::{Client, answer};
use conformance_tests::{Device, Hold, SO_PIN, Token};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::RvError;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::Attribute;
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use cryptoki_sys::*;
use raw::{Raw, call};

fn module(device: &Device) -> Pkcs11 {
    device.enter();
    let module = Pkcs11::new(device.module()).unwrap();
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    module
}

fn pin(text: &str) -> AuthPin {
    AuthPin::from(text)
}

/// Makes a token in the free slot, as any program may, and tells its slot.
fn make(module: &Pkcs11, label: &str, user_pin: Option<&str>) -> Slot {
    let free = *module.get_all_slots().unwrap().last().unwrap();
    assert!(!module.get_token_info(free).unwrap().token_initialized());
    module.init_token(free, &pin(SO_PIN), label).unwrap();
    if let Some(user_pin) = user_pin {
        let session = module.open_rw_session(free).unwrap();
        session.login(UserType::So, Some(&pin(SO_PIN))).unwrap();
        session.init_pin(&pin(user_pin)).unwrap();
    }
    free
}

fn login(session: &Session, user: UserType, text: &str) -> client::Answer<()> {
    answer(session.login(user, Some(&pin(text))))
}

#[test]
fn the_free_slot_makes_the_next_token_and_every_token_is_told_apart() {
    let device = Device::new();
    let module = module(&device);
    assert_eq!(module.get_all_slots().unwrap().len(), 1, "nothing but the free slot");
    let mut serials = Vec::new();
    for number in 0..5 {
        let slot = make(&module, &format!("token {number}"), Some(client::PIN));
        let info = module.get_token_info(slot).unwrap();
        assert_eq!(info.label(), format!("token {number}"));
        assert!(info.token_initialized() && info.user_pin_initialized() && info.login_required() && info.rng());
        for text in [info.label(), info.manufacturer_id(), info.model(), info.serial_number()] {
            assert!(!text.is_empty() && !text.contains('\0'), "{text:?}");
        }
        assert_eq!(info.serial_number().len(), 16);
        // The revision of the specification, as swtpm tells it: 1.38 or later.
        assert!(info.hardware_version().major() >= 1 && info.hardware_version().minor() >= 38);
        serials.push(info.serial_number().to_owned());
        assert_eq!(module.get_all_slots().unwrap().len(), number + 2);
        assert_eq!(module.get_slots_with_initialized_token().unwrap().len(), number + 1);
    }
    serials.sort_unstable();
    serials.dedup();
    assert_eq!(serials.len(), 5);
    let _ = device.pkcs11_tool(&["--list-slots"]).ok().says("token 0").says("token 4");
}

#[test]
fn an_object_is_seen_on_its_own_token_only() {
    let device = Device::new();
    let module = module(&device);
    let slots = ["one", "two"].map(|label| make(&module, label, Some(client::PIN)));
    let sessions = slots.map(|slot| module.open_rw_session(slot).unwrap());
    for session in &sessions {
        assert_eq!(login(session, UserType::User, client::PIN), Ok(()));
        let template = [Attribute::Token(true), Attribute::EcParams(raw::P256.to_vec())];
        session.generate_key_pair(&Mechanism::EccKeyPairGen, &template, &[Attribute::Token(true)]).unwrap();
    }
    for session in &sessions {
        assert_eq!(session.find_objects(&[Attribute::Token(true)]).unwrap().len(), 2);
    }
    // One may be logged in and the other not.
    sessions[0].logout().unwrap();
    assert_eq!(sessions[0].find_objects(&[Attribute::Private(true)]).unwrap().len(), 0);
    assert_eq!(sessions[1].find_objects(&[Attribute::Private(true)]).unwrap().len(), 1);
}

#[test]
fn a_token_is_made_anew_only_with_its_so_pin_and_without_sessions() {
    let device = Device::new();
    let module = module(&device);
    let slot = make(&module, "first", Some(client::PIN));
    let serial = module.get_token_info(slot).unwrap().serial_number().to_owned();
    let session = module.open_rw_session(slot).unwrap();
    login(&session, UserType::User, client::PIN).unwrap();
    let template = [Attribute::Token(true), Attribute::EcParams(raw::P256.to_vec())];
    session.generate_key_pair(&Mechanism::EccKeyPairGen, &template, &[Attribute::Token(true)]).unwrap();
    let again = |so_pin: &str| answer(module.init_token(slot, &pin(so_pin), "again"));
    assert_eq!(again(SO_PIN), Err(RvError::SessionExists));
    drop(session);
    assert_eq!(again("not the SO PIN"), Err(RvError::PinIncorrect));
    assert_eq!(module.get_token_info(slot).unwrap().label(), "first");
    assert_eq!(again(SO_PIN), Ok(()));
    let info = module.get_token_info(slot).unwrap();
    assert_eq!((info.label(), info.user_pin_initialized()), ("again", false));
    assert_eq!(info.serial_number(), serial);
    let session = module.open_rw_session(slot).unwrap();
    assert_eq!(session.find_objects(&[]).unwrap(), []);
    assert_eq!(login(&session, UserType::User, client::PIN), Err(RvError::UserPinNotInitialized));
    // The SO PIN is the one it was, and sets a new user PIN.
    assert_eq!(login(&session, UserType::So, SO_PIN), Ok(()));
    session.init_pin(&pin("5678")).unwrap();
    session.logout().unwrap();
    assert_eq!(login(&session, UserType::User, "5678"), Ok(()));
}

#[test]
fn a_store_that_is_away_for_a_moment_costs_no_session_and_no_token() {
    let device = Device::new();
    let module = module(&device);
    let slot = make(&module, "first", Some(client::PIN));
    let session = module.open_rw_session(slot).unwrap();
    login(&session, UserType::User, client::PIN).unwrap();
    let template = [Attribute::Token(false), Attribute::EcParams(raw::P256.to_vec())];
    let (_, key) = session.generate_key_pair(&Mechanism::EccKeyPairGen, &template, &[Attribute::Token(false)]).unwrap();
    let store = device.store();
    let token = std::fs::read_dir(&store).unwrap().flatten().find(|entry| entry.path().is_dir()).unwrap().path();
    for (place, instead) in [(&token, false), (&store, false), (&token, true), (&store, true)] {
        let away = device.path("away");
        std::fs::rename(place, &away).unwrap();
        if instead {
            std::fs::write(place, "no directory").unwrap();
        }
        let slots: Vec<_> = module.get_all_slots().unwrap().iter().map(Slot::id).collect();
        assert_eq!(slots, [slot.id(), slot.id() + 1], "{}", place.display());
        if instead {
            std::fs::remove_file(place).unwrap();
        }
        std::fs::rename(&away, place).unwrap();
        assert_eq!(module.get_all_slots().unwrap().len(), 2);
        let another = module.open_rw_session(slot).unwrap();
        assert!(answer(another.get_attributes(key, &[cryptoki::object::AttributeType::Sign])).is_ok());
        drop(another);
        assert_eq!(answer(module.init_token(slot, &pin(SO_PIN), "again")), Err(RvError::SessionExists));
        assert_eq!(answer(session.sign(&Mechanism::Ecdsa, key, &[7; 32])).map(|signature| signature.len()), Ok(64));
    }
}

#[test]
fn a_token_that_is_gone_is_called_so() {
    let device = Device::new();
    let module = module(&device);
    let slot = make(&module, "first", Some(client::PIN));
    let session = module.open_rw_session(slot).unwrap();
    let store = device.store();
    let token = std::fs::read_dir(&store).unwrap().flatten().find(|entry| entry.path().is_dir()).unwrap().path();
    let away = device.path("away");
    std::fs::rename(&token, &away).unwrap();
    assert_eq!(login(&session, UserType::User, client::PIN), Err(RvError::DeviceRemoved));
    assert_eq!(login(&session, UserType::So, SO_PIN), Err(RvError::DeviceRemoved));
    let changed = answer(session.set_pin(&pin(client::PIN), &pin("4321")));
    assert_eq!(changed, Err(RvError::DeviceRemoved));
    std::fs::rename(&away, &token).unwrap();
    assert_eq!(login(&session, UserType::User, client::PIN), Ok(()));
}

#[test]
fn a_pin_that_another_process_has_set_opens_the_token_at_once() {
    let device = Device::with_hold(Hold::Default);
    let module = module(&device);
    let slot = make(&module, "first", None);
    let session = module.open_ro_session(slot).unwrap();
    let so = ["--login", "--login-type", "so", "--so-pin", SO_PIN];
    let set = ["--token-label", "first", "--init-pin", "--new-pin", client::PIN];
    let _ = device.pkcs11_tool(&[&set[..], &so].concat()).ok();
    assert!(module.get_token_info(slot).unwrap().user_pin_initialized());
    assert_eq!(login(&session, UserType::User, client::PIN), Ok(()));
}

#[test]
fn pins_are_changed_by_their_owners_and_nobody_else() {
    let device = Device::new();
    let module = module(&device);
    let slot = make(&module, "dev", Some(client::PIN));
    let session = module.open_rw_session(slot).unwrap();
    assert_eq!(answer(session.init_pin(&pin("x1234"))), Err(RvError::UserNotLoggedIn));
    login(&session, UserType::User, client::PIN).unwrap();
    assert_eq!(answer(session.init_pin(&pin("x1234"))), Err(RvError::UserNotLoggedIn));
    let template = [Attribute::Token(true), Attribute::EcParams(raw::P256.to_vec())];
    session.generate_key_pair(&Mechanism::EccKeyPairGen, &template, &[Attribute::Token(true)]).unwrap();
    // A logout ends the handles of private objects.
    let sign = || {
        let key = session.find_objects(&[Attribute::Sign(true)]).unwrap()[0];
        session.sign(&Mechanism::EcdsaSha256, key, b"it works as before").unwrap()
    };
    assert_eq!(answer(session.set_pin(&pin("wrong"), &pin("4321"))), Err(RvError::PinIncorrect));
    session.set_pin(&pin(client::PIN), &pin("4321")).unwrap();
    session.logout().unwrap();
    assert_eq!(login(&session, UserType::User, client::PIN), Err(RvError::PinIncorrect));
    assert_eq!(login(&session, UserType::User, "4321"), Ok(()));
    sign();
    session.logout().unwrap();
    // Without a login C_SetPIN changes the user's PIN.
    session.set_pin(&pin("4321"), &pin("1111")).unwrap();
    login(&session, UserType::So, SO_PIN).unwrap();
    session.set_pin(&pin(SO_PIN), &pin("a new SO PIN")).unwrap();
    session.logout().unwrap();
    assert_eq!(login(&session, UserType::So, "a new SO PIN"), Ok(()));
    session.logout().unwrap();
    assert_eq!(login(&session, UserType::User, "1111"), Ok(()));
    sign();
}

#[test]
fn a_pin_may_be_any_text_of_the_lengths_that_are_told() {
    let device = Device::new();
    let module = module(&device);
    let slot = make(&module, "dev", Some(client::PIN));
    let info = module.get_token_info(slot).unwrap();
    let (shortest, longest) = (info.min_pin_length().max(1), info.max_pin_length());
    let session = module.open_rw_session(slot).unwrap();
    login(&session, UserType::So, SO_PIN).unwrap();
    for text in ["a".repeat(shortest), "z".repeat(longest), "Zürich, 北京 \u{1f511}".into()] {
        session.init_pin(&pin(&text)).unwrap();
        session.logout().unwrap();
        assert_eq!(login(&session, UserType::User, &text), Ok(()), "{text}");
        session.logout().unwrap();
        login(&session, UserType::So, SO_PIN).unwrap();
    }
    assert_eq!(answer(session.init_pin(&pin(&"z".repeat(longest + 1)))), Err(RvError::PinLenRange));
}

#[test]
fn a_token_with_an_empty_pin_needs_no_login_and_takes_no_other_pin() {
    let device = Device::new();
    let module = module(&device);
    let slot = make(&module, "iot", Some(""));
    let info = module.get_token_info(slot).unwrap();
    assert!(!info.login_required() && info.user_pin_initialized());
    let session = module.open_rw_session(slot).unwrap();
    let template = [Attribute::Token(true), Attribute::EcParams(raw::P256.to_vec())];
    let (_, key) = session.generate_key_pair(&Mechanism::EccKeyPairGen, &template, &[Attribute::Token(true)]).unwrap();
    session.sign(&Mechanism::EcdsaSha256, key, b"without a login").unwrap();
    let cost = device.cost_of(|| {
        for wrong in 0..10 {
            assert_eq!(login(&session, UserType::User, &format!("wrong {wrong}")), Err(RvError::PinIncorrect));
        }
    });
    assert_eq!(cost, [""; 0], "no wrong PIN comes near the lockout");
    let info = module.get_token_info(slot).unwrap();
    assert!(!info.user_pin_count_low() && !info.user_pin_locked());
    assert_eq!(login(&session, UserType::User, ""), Ok(()));
    session.sign(&Mechanism::EcdsaSha256, key, b"with one").unwrap();
}

#[test]
fn wrong_pins_raise_the_flags_one_after_the_other_and_lock() {
    let device = Device::new();
    let module = module(&device);
    // swtpm allows three failures.
    let slot = make(&module, "dev", Some(client::PIN));
    let session = module.open_rw_session(slot).unwrap();
    let flags = || {
        let info = module.get_token_info(slot).unwrap();
        (info.user_pin_count_low(), info.user_pin_final_try(), info.user_pin_locked())
    };
    assert_eq!(flags(), (false, false, false));
    assert_eq!(login(&session, UserType::User, "wrong"), Err(RvError::PinIncorrect));
    assert_eq!(flags(), (true, false, false));
    assert_eq!(login(&session, UserType::User, "wrong"), Err(RvError::PinIncorrect));
    assert_eq!(flags(), (true, true, false));
    let third = login(&session, UserType::User, "wrong");
    assert!(matches!(third, Err(RvError::PinIncorrect | RvError::PinLocked)), "{third:?}");
    assert!(flags().2);
    assert_eq!(login(&session, UserType::User, client::PIN), Err(RvError::PinLocked));
    // The TPM's owner ends the lockout.
    let _ = device.run(&["tpm2_dictionarylockout", "-c"]).ok();
    assert_eq!(login(&session, UserType::User, client::PIN), Ok(()));
    assert!(!flags().2);
}

#[test]
fn flags_are_read_from_the_tpm_after_a_failed_login_only() {
    let device = Device::new();
    let module = module(&device);
    let slot = make(&module, "dev", Some(client::PIN));
    let session = module.open_rw_session(slot).unwrap();
    let cost = device.cost_of(|| {
        login(&session, UserType::User, client::PIN).unwrap();
        module.get_token_info(slot).unwrap();
    });
    assert!(!cost.contains(&"GetCapability".to_owned()), "{cost:?}");
    session.logout().unwrap();
    let cost = device.cost_of(|| login(&session, UserType::User, "wrong").unwrap_err().to_string().clear());
    assert!(cost.contains(&"GetCapability".to_owned()), "{cost:?}");
    let cost = device.cost_of(|| drop(module.get_token_info(slot).unwrap()));
    assert_eq!(cost, [""; 0]);
}

#[test]
fn login_answers_as_the_standard_says() {
    let device = Device::new();
    let _ = Token::new(&device, "dev", client::PIN);
    let raw = Raw::initialised(&device);
    let (session, other) = (raw.open(0), raw.open(0));
    let login = |user, pin: &str| raw.login(session, user, pin.as_bytes());
    assert_eq!(login(77, client::PIN), Err(CKR_USER_TYPE_INVALID));
    assert_eq!(login(CKU_CONTEXT_SPECIFIC, client::PIN), Err(CKR_OPERATION_NOT_INITIALIZED));
    assert_eq!(call!(raw, C_Logout(session)), Err(CKR_USER_NOT_LOGGED_IN));
    login(CKU_USER, client::PIN).unwrap();
    assert_eq!((raw.state(session), raw.state(other)), (CKS_RW_USER_FUNCTIONS, CKS_RW_USER_FUNCTIONS));
    assert_eq!(login(CKU_USER, client::PIN), Err(CKR_USER_ALREADY_LOGGED_IN));
    assert_eq!(login(CKU_SO, SO_PIN), Err(CKR_USER_ANOTHER_ALREADY_LOGGED_IN));
    call!(raw, C_Logout(other)).unwrap();
    let read_only = raw.open_read_only(0);
    assert_eq!(login(CKU_SO, SO_PIN), Err(CKR_SESSION_READ_ONLY_EXISTS));
    call!(raw, C_CloseSession(read_only)).unwrap();
    login(CKU_SO, SO_PIN).unwrap();
    assert_eq!(raw.state(other), CKS_RW_SO_FUNCTIONS);
    assert_eq!(raw.open_with(0, CKF_SERIAL_SESSION), Err(CKR_SESSION_READ_WRITE_SO_EXISTS));
    assert_eq!(raw.open_with(0, CKF_RW_SESSION), Err(CKR_SESSION_PARALLEL_NOT_SUPPORTED));
    // The last session takes the login with it.
    call!(raw, C_CloseAllSessions(0)).unwrap();
    assert_eq!(raw.state(raw.open(0)), CKS_RW_PUBLIC_SESSION);
}

#[test]
fn a_user_by_name_is_the_user_where_there_is_no_name() {
    let device = Device::new();
    let _ = Token::new(&device, "dev", client::PIN);
    let raw = Raw::initialised(&device);
    let session = raw.open(0);
    let pin = client::PIN.as_bytes();
    let login = |name: &[u8]| {
        let (name, length) = (name.as_ptr().cast_mut(), name.len() as CK_ULONG);
        call!(raw, C_LoginUser(session, CKU_USER, pin.as_ptr().cast_mut(), pin.len() as CK_ULONG, name, length))
    };
    // "If the token does not support user names": any name is one too many.
    assert!(login(b"somebody").is_err());
    assert_eq!(raw.state(session), CKS_RW_PUBLIC_SESSION);
    login(b"").unwrap();
    assert_eq!(raw.state(session), CKS_RW_USER_FUNCTIONS);
}

#[test]
fn a_key_that_always_authenticates_needs_its_pin_for_every_use() {
    let client = Client::new(client::PIN);
    let context = |text: &str| answer(client.session.login(UserType::ContextSpecific, Some(&pin(text))));
    for token in [true, false] {
        let private = [Attribute::AlwaysAuthenticate(true), Attribute::Token(token)];
        let (public, key) = client.ec(raw::P256, &private);
        assert!(client.flag(key, CKA_ALWAYS_AUTHENTICATE));
        let wanted = Mechanism::EcdsaSha256;
        let start = || client.session.sign_init(&wanted, key).unwrap();
        for _ in 0..2 {
            start();
            assert_eq!(answer(client.session.sign_update(b"message")), Err(RvError::UserNotLoggedIn));
            // Whatever became of it, the next one starts anew.
            let _ = call!(client.raw, C_SessionCancel(client.session.handle(), CKF_SIGN));
            start();
            assert_eq!(context("wrong"), Err(RvError::PinIncorrect));
            assert_eq!(context(client::PIN), Ok(()));
            client.session.sign_update(b"message").unwrap();
            let signature = client.session.sign_final().unwrap();
            client.session.verify(&wanted, public, b"message", &signature).unwrap();
            // The TPM's owner forgives the wrong one.
            let _ = client.device.run(&["tpm2_dictionarylockout", "-c"]).ok();
        }
        let plain = client.ec(raw::P256, &[]).1;
        client.session.sign_init(&wanted, plain).unwrap();
        assert_eq!(context(client::PIN), Err(RvError::OperationNotInitialized));
        client.session.sign_update(b"unaffected").unwrap();
        client.session.sign_final().unwrap();
        let (_, rsa) = client.rsa(2048, &[], &[&private[..], &[Attribute::Decrypt(true)]].concat());
        let encrypted = vec![1; 256];
        client.start(client::Start::Decrypt, &Mechanism::RsaX509.into(), rsa).unwrap();
        assert_eq!(context(client::PIN), Ok(()));
        let mut output = vec![0; 256];
        let mut length = 256;
        let (session, data) = (client.session.handle(), encrypted.as_ptr().cast_mut());
        call!(client.raw, C_Decrypt(session, data, 256, output.as_mut_ptr(), &mut length)).unwrap();
        assert_eq!(client.decrypt(&Mechanism::RsaX509.into(), rsa, &encrypted), Err(RvError::UserNotLoggedIn));
    }
}

#[test]
fn a_token_counts_its_sessions_and_tells_no_limit() {
    let device = Device::new();
    let module = module(&device);
    let slot = make(&module, "dev", Some(client::PIN));
    let counts = || {
        let info = module.get_token_info(slot).unwrap();
        (info.session_count(), info.rw_session_count())
    };
    assert_eq!(counts(), (Some(0), Some(0)));
    let first = module.open_rw_session(slot).unwrap();
    let second = module.open_ro_session(slot).unwrap();
    assert_eq!(counts(), (Some(2), Some(1)));
    drop(first);
    assert_eq!(counts(), (Some(1), Some(0)));
    drop(second);
    assert_eq!(counts(), (Some(0), Some(0)));
    let many: Vec<_> = (0..500).map(|_| module.open_ro_session(slot).unwrap()).collect();
    assert_eq!(counts(), (Some(500), Some(0)));
    drop(many);
}

#[test]
fn a_token_that_another_process_makes_is_seen_at_once() {
    let device = Device::with_hold(Hold::Default);
    let module = module(&device);
    make(&module, "first", Some(client::PIN));
    let second = Token::new(&device, "second", client::PIN);
    second.generate("EC:prime256v1", "ec", "01");
    let labels = || {
        let slots = module.get_slots_with_initialized_token().unwrap();
        slots.iter().map(|slot| module.get_token_info(*slot).unwrap().label().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(labels(), ["first", "second"]);
    let slot = module.get_slots_with_initialized_token().unwrap()[1];
    let session = module.open_rw_session(slot).unwrap();
    assert_eq!(login(&session, UserType::User, client::PIN), Ok(()));
    let key = session.find_objects(&[Attribute::Sign(true)]).unwrap()[0];
    session.sign(&Mechanism::EcdsaSha256, key, b"x").unwrap();
    assert!(module.get_slot_event().unwrap().is_none(), "slots do not come and go");
    // Made anew by another process: its objects are gone, and the login is worth nothing.
    let again = ["--init-token", "--slot", "1", "--label", "again", "--so-pin", SO_PIN];
    let _ = device.pkcs11_tool(&again).ok();
    assert_eq!(labels(), ["first", "again"]);
    assert_eq!(session.find_objects(&[]).unwrap(), []);
    let gone = answer(session.sign(&Mechanism::EcdsaSha256, key, b"x"));
    assert_eq!(gone, Err(RvError::KeyHandleInvalid));
}
