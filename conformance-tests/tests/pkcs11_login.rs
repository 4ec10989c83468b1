//! Who may do what in which session (PKCS#11 3.2, "Session management functions" and "Slot and token management").

mod raw;

use std::ptr::null_mut;

use conformance_tests::{Device, SO_PIN, Token};
use cryptoki_sys::*;
use raw::{PIN, Raw, call, flag, number};

const SO: &[u8] = SO_PIN.as_bytes();

fn device_with(pin: &str) -> Device {
    let device = Device::new();
    let _ = Token::new(&device, "dev", pin);
    device
}

#[test]
fn a_login_holds_for_every_session_with_the_token_and_ends_with_the_last() {
    let device = device_with("1234");
    let raw = Raw::initialised(&device);
    let (one, two) = (raw.open(0), raw.open_read_only(0));
    assert_eq!((raw.state(one), raw.state(two)), (CKS_RW_PUBLIC_SESSION, CKS_RO_PUBLIC_SESSION));
    raw.login(one, CKU_USER, PIN).unwrap();
    assert_eq!((raw.state(one), raw.state(two)), (CKS_RW_USER_FUNCTIONS, CKS_RO_USER_FUNCTIONS));
    assert_eq!(raw.login(two, CKU_USER, PIN), Err(CKR_USER_ALREADY_LOGGED_IN));
    assert_eq!(raw.login(two, CKU_SO, SO), Err(CKR_USER_ANOTHER_ALREADY_LOGGED_IN));
    call!(raw, C_Logout(two)).unwrap();
    assert_eq!(raw.state(one), CKS_RW_PUBLIC_SESSION);
    assert_eq!(call!(raw, C_Logout(one)), Err(CKR_USER_NOT_LOGGED_IN));
    raw.login(one, CKU_USER, PIN).unwrap();
    call!(raw, C_CloseSession(one)).unwrap();
    assert_eq!(raw.state(two), CKS_RO_USER_FUNCTIONS);
    call!(raw, C_CloseAllSessions(0)).unwrap();
    assert_eq!(call!(raw, C_CloseSession(two)), Err(CKR_SESSION_HANDLE_INVALID));
    assert_eq!(raw.state(raw.open(0)), CKS_RW_PUBLIC_SESSION);
}

#[test]
fn the_security_officer_and_read_only_sessions_exclude_each_other() {
    let device = device_with("1234");
    let raw = Raw::initialised(&device);
    let (writes, reads) = (raw.open(0), raw.open_read_only(0));
    assert_eq!(raw.login(writes, CKU_SO, SO), Err(CKR_SESSION_READ_ONLY_EXISTS));
    call!(raw, C_CloseSession(reads)).unwrap();
    raw.login(writes, CKU_SO, SO).unwrap();
    assert_eq!(raw.state(writes), CKS_RW_SO_FUNCTIONS);
    assert_eq!(raw.open_with(0, CKF_SERIAL_SESSION), Err(CKR_SESSION_READ_WRITE_SO_EXISTS));
    assert_eq!(raw.login(writes, CKU_USER, PIN), Err(CKR_USER_ANOTHER_ALREADY_LOGGED_IN));
    assert_eq!(raw.open_with(0, CKF_RW_SESSION), Err(CKR_SESSION_PARALLEL_NOT_SUPPORTED));
}

#[test]
fn a_login_is_refused_by_its_reason() {
    let device = device_with("1234");
    let raw = Raw::initialised(&device);
    let session = raw.open(0);
    assert_eq!(raw.login(session, CKU_USER, b"4321"), Err(CKR_PIN_INCORRECT));
    assert_eq!(raw.login(session, CKU_SO, PIN), Err(CKR_PIN_INCORRECT));
    assert_eq!(raw.login(session, 77, PIN), Err(CKR_USER_TYPE_INVALID));
    assert_eq!(raw.login(session, CKU_CONTEXT_SPECIFIC, PIN), Err(CKR_OPERATION_NOT_INITIALIZED));
    assert_eq!(raw.login(session + 1000, CKU_USER, PIN), Err(CKR_SESSION_HANDLE_INVALID));
    let (pin, name) = (PIN.as_ptr().cast_mut(), c"who".as_ptr().cast_mut().cast());
    assert_eq!(call!(raw, C_LoginUser(session, CKU_USER, pin, 4, name, 3)), Err(CKR_ARGUMENTS_BAD));
    call!(raw, C_LoginUser(session, CKU_USER, pin, 4, null_mut(), 0)).unwrap();
    assert_eq!(raw.state(session), CKS_RW_USER_FUNCTIONS);
}

#[test]
fn after_too_many_wrong_pins_the_flags_say_so() {
    let device = device_with("1234");
    let raw = Raw::initialised(&device);
    let session = raw.open(0);
    let mut refusals = Vec::new();
    while refusals.last() != Some(&Err(CKR_PIN_LOCKED)) && refusals.len() < 10 {
        refusals.push(raw.login(session, CKU_USER, b"4321"));
        let flags = raw.token_info(0).flags;
        assert_ne!(flags & (CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_LOCKED), 0);
    }
    assert_eq!(refusals[0], Err(CKR_PIN_INCORRECT));
    assert_eq!(refusals.last(), Some(&Err(CKR_PIN_LOCKED)));
    assert_ne!(raw.token_info(0).flags & CKF_USER_PIN_LOCKED, 0);
    assert_eq!(raw.login(session, CKU_USER, PIN), Err(CKR_PIN_LOCKED));
}

#[test]
fn a_new_token_waits_for_its_user_pin_which_only_the_security_officer_sets() {
    let device = Device::new();
    let raw = Raw::initialised(&device);
    assert_eq!(raw.slots(), [0]);
    assert_eq!(raw.open_with(0, CKF_SERIAL_SESSION), Err(CKR_TOKEN_NOT_RECOGNIZED));
    let (pin, length) = (SO.as_ptr().cast_mut(), SO.len() as CK_ULONG);
    let mut label = *b"made by C_InitToken             ";
    call!(raw, C_InitToken(0, pin, length, label.as_mut_ptr())).unwrap();
    let info = raw.token_info(0);
    assert_eq!(info.label, label);
    let flags =
        CKF_TOKEN_INITIALIZED | CKF_RNG | CKF_LOGIN_REQUIRED | CKF_DUAL_CRYPTO_OPERATIONS | CKF_RESTORE_KEY_NOT_NEEDED;
    assert_eq!(info.flags, flags);
    let session = raw.open(0);
    assert_eq!(call!(raw, C_InitToken(0, pin, length, label.as_mut_ptr())), Err(CKR_SESSION_EXISTS));
    assert_eq!(raw.login(session, CKU_USER, PIN), Err(CKR_USER_PIN_NOT_INITIALIZED));
    let init_pin = |pin: &[u8]| call!(raw, C_InitPIN(session, pin.as_ptr().cast_mut(), pin.len() as CK_ULONG));
    assert_eq!(init_pin(PIN), Err(CKR_USER_NOT_LOGGED_IN));
    raw.login(session, CKU_SO, SO).unwrap();
    assert_eq!(init_pin(b"123"), Err(CKR_PIN_LEN_RANGE));
    assert_eq!(init_pin(&[b'1'; 65]), Err(CKR_PIN_LEN_RANGE));
    init_pin(PIN).unwrap();
    call!(raw, C_Logout(session)).unwrap();
    raw.login(session, CKU_USER, PIN).unwrap();
    assert_eq!(raw.token_info(0).flags, flags | CKF_USER_PIN_INITIALIZED);
    assert_eq!(raw.slots(), [0, 1], "the free slot comes after it");
}

#[test]
fn a_pin_is_changed_in_a_session_that_writes_by_whoever_knows_it() {
    let device = device_with("1234");
    let raw = Raw::initialised(&device);
    let (writes, reads) = (raw.open(0), raw.open_read_only(0));
    let set_pin = |session, old: &[u8], new: &[u8]| {
        let (old, old_length) = (old.as_ptr().cast_mut(), old.len() as CK_ULONG);
        call!(raw, C_SetPIN(session, old, old_length, new.as_ptr().cast_mut(), new.len() as CK_ULONG))
    };
    assert_eq!(set_pin(reads, PIN, b"new-pin"), Err(CKR_SESSION_READ_ONLY));
    assert_eq!(set_pin(writes, PIN, b"new"), Err(CKR_PIN_LEN_RANGE));
    set_pin(writes, PIN, b"new-pin").unwrap();
    assert_eq!(set_pin(writes, PIN, b"new-pin"), Err(CKR_PIN_INCORRECT));
    raw.login(writes, CKU_USER, b"new-pin").unwrap();
    set_pin(writes, b"new-pin", PIN).unwrap();
    call!(raw, C_Logout(writes)).unwrap();
    call!(raw, C_CloseSession(reads)).unwrap();
    raw.login(writes, CKU_SO, SO).unwrap();
    set_pin(writes, SO, b"new-so-pin").unwrap();
    call!(raw, C_Logout(writes)).unwrap();
    assert_eq!(raw.login(writes, CKU_SO, SO), Err(CKR_PIN_INCORRECT));
    raw.login(writes, CKU_SO, b"new-so-pin").unwrap();
}

#[test]
fn a_token_with_an_empty_pin_is_always_open_but_to_its_security_officer() {
    let device = device_with("");
    let raw = Raw::initialised(&device);
    let session = raw.open(0);
    assert_eq!(raw.state(session), CKS_RW_USER_FUNCTIONS);
    assert_eq!(raw.token_info(0).flags & CKF_LOGIN_REQUIRED, 0);
    let (_, private) = raw.generate_ec(session, true);
    assert_eq!(raw.login(session, CKU_USER, PIN), Err(CKR_PIN_INCORRECT));
    raw.login(session, CKU_USER, b"").unwrap();
    assert_eq!(raw.login(session, CKU_USER, b""), Err(CKR_USER_ALREADY_LOGGED_IN));
    call!(raw, C_Logout(session)).unwrap();
    assert_eq!(raw.find(session, &[(CKA_CLASS, number(CKO_PRIVATE_KEY))]), [private]);
    raw.login(session, CKU_SO, SO).unwrap();
    assert_eq!(raw.state(session), CKS_RW_SO_FUNCTIONS);
    assert_eq!(raw.find(session, &[(CKA_CLASS, number(CKO_PRIVATE_KEY))]), []);
    assert_eq!(raw.get(session, private, CKA_ID), Err(CKR_OBJECT_HANDLE_INVALID));
    // With a key there it cannot get a PIN any more: the key's own authorisation is empty for good.
    assert_eq!(call!(raw, C_InitPIN(session, PIN.as_ptr().cast_mut(), 4)), Err(CKR_PIN_INVALID));
}

#[test]
fn private_objects_are_seen_after_login_only_and_their_handles_end_with_it() {
    let device = device_with("1234");
    let raw = Raw::initialised(&device);
    let session = raw.open(0);
    raw.login(session, CKU_USER, PIN).unwrap();
    let (public, private) = raw.generate_ec(session, true);
    let (_, of_session) = raw.generate_ec(session, false);
    assert_eq!(raw.find(session, &[(CKA_CLASS, number(CKO_PRIVATE_KEY))]).len(), 2);
    call!(raw, C_Logout(session)).unwrap();
    assert_eq!(raw.find(session, &[(CKA_PRIVATE, flag(true))]), []);
    assert_eq!(raw.find(session, &[(CKA_CLASS, number(CKO_PUBLIC_KEY)), (CKA_TOKEN, flag(true))]), [public]);
    raw.login(session, CKU_USER, PIN).unwrap();
    // "Even if a user is later logged back into the token, those handles remain invalid" (C_Logout).
    assert_eq!(raw.get(session, private, CKA_ID), Err(CKR_OBJECT_HANDLE_INVALID));
    assert_eq!(raw.get(session, of_session, CKA_ID), Err(CKR_OBJECT_HANDLE_INVALID));
    let found = raw.find(session, &[(CKA_CLASS, number(CKO_PRIVATE_KEY))]);
    assert_eq!(found.len(), 1, "the session's key is gone, the token's is not");
    assert_ne!(found[0], private);
}

#[test]
fn without_a_login_no_private_key_is_made() {
    let device = device_with("1234");
    let raw = Raw::initialised(&device);
    let session = raw.open(0);
    let public = [(CKA_EC_PARAMS, raw::P256.to_vec())];
    for private in [&[][..], &[(CKA_PRIVATE, flag(false))]] {
        let refused = raw.generate(session, CKM_EC_KEY_PAIR_GEN, &public, private);
        assert_eq!(refused, Err(CKR_USER_NOT_LOGGED_IN));
    }
    let secret = [(CKA_CLASS, number(CKO_DATA)), (CKA_PRIVATE, flag(true))];
    assert_eq!(raw.create(session, &secret), Err(CKR_USER_NOT_LOGGED_IN));
}

#[test]
fn of_a_sessions_pair_the_public_half_outlives_the_logout() {
    let device = device_with("1234");
    let raw = Raw::initialised(&device);
    let session = raw.open(0);
    raw.login(session, CKU_USER, PIN).unwrap();
    let (public, private) = raw.generate_ec(session, false);
    call!(raw, C_Logout(session)).unwrap();
    assert_eq!(raw.get(session, public, CKA_PRIVATE), Ok(flag(false)));
    assert_eq!(raw.get(session, private, CKA_PRIVATE), Err(CKR_OBJECT_HANDLE_INVALID));
    assert_eq!(raw.find(session, &[(CKA_CLASS, number(CKO_PUBLIC_KEY))]), [public]);
}
