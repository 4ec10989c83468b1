//! Keys that are in the TPM for good, beside their files: what they save, and what becomes of them.

mod raw;

use std::ptr::null_mut;

use conformance_tests::{Device, Harm, ResourceManager, SO_PIN, Token, Wire};
use cryptoki_sys::*;
use raw::{P256, PERSISTENT, Raw, Rv, call, flag, number};

fn generate(raw: &Raw, session: CK_SESSION_HANDLE, token: bool) -> Rv<(CK_OBJECT_HANDLE, CK_OBJECT_HANDLE)> {
    let public = [(CKA_TOKEN, flag(token)), (CKA_EC_PARAMS, P256.to_vec())];
    raw.generate(session, CKM_EC_KEY_PAIR_GEN, &public, &[(CKA_TOKEN, flag(token)), (PERSISTENT, flag(true))])
}

fn sign(raw: &Raw, session: CK_SESSION_HANDLE, (public, private): (CK_OBJECT_HANDLE, CK_OBJECT_HANDLE)) {
    raw.sign_init(session, CKM_ECDSA_SHA256, private).unwrap();
    let signature = raw.sign(session, b"message").unwrap();
    raw.verify(session, CKM_ECDSA_SHA256, public, b"message", &signature).unwrap();
}

/// Forgets everything that is held at the TPM and known of it.
fn start_anew(raw: &Raw, pin: &str) -> CK_SESSION_HANDLE {
    call!(raw, C_Finalize(null_mut())).unwrap();
    call!(raw, C_Initialize(null_mut())).unwrap();
    let session = raw.open(0);
    raw.login(session, CKU_USER, pin.as_bytes()).unwrap();
    session
}

fn pair(raw: &Raw, session: CK_SESSION_HANDLE) -> (CK_OBJECT_HANDLE, CK_OBJECT_HANDLE) {
    let of = |class| raw.find(session, &[(CKA_CLASS, number(class))])[0];
    (of(CKO_PUBLIC_KEY), of(CKO_PRIVATE_KEY))
}

fn open(pin: &str) -> (Device, Raw, CK_SESSION_HANDLE) {
    let device = Device::new();
    let _ = Token::new(&device, "dev", pin);
    let raw = Raw::initialised(&device);
    let session = raw.open(0);
    raw.login(session, CKU_USER, pin.as_bytes()).unwrap();
    (device, raw, session)
}

#[test]
fn a_persistent_key_is_used_where_it_is_and_leaves_with_its_object() {
    let (device, raw, session) = open("");
    let made = generate(&raw, session, true).unwrap();
    assert_eq!(raw.get(session, made.1, PERSISTENT), Ok(flag(true)));
    assert_eq!(device.places(), ["0x81008000"]);
    let session = start_anew(&raw, "");
    let keys = pair(&raw, session);
    assert_eq!(device.cost_of(|| sign(&raw, session, keys)), ["ReadPublic", "Sign"]);
    assert_eq!(device.cost_of(|| sign(&raw, session, keys)), ["Sign"]);
    call!(raw, C_DestroyObject(session, keys.1)).unwrap();
    assert!(device.places().is_empty());
}

#[test]
fn with_a_pin_its_session_is_all_that_is_added() {
    let (device, raw, session) = open("1234");
    let _ = generate(&raw, session, true).unwrap();
    let session = start_anew(&raw, "1234");
    let keys = pair(&raw, session);
    // The login's session goes on.
    assert_eq!(device.cost_of(|| sign(&raw, session, keys)), ["ReadPublic", "Sign"]);
    assert_eq!(device.cost_of(|| sign(&raw, session, keys)), ["StartAuthSession", "Sign"]);
    assert_eq!(device.cost_of(|| sign(&raw, session, keys)), ["Sign"]);
}

#[test]
fn what_somebody_removes_or_replaces_in_the_tpm_is_loaded_from_its_file_again() {
    let (device, raw, session) = open("");
    let keys = generate(&raw, session, true).unwrap();
    let _ = device.run(&["tpm2_evictcontrol", "-C", "o", "-c", "0x81008000"]).ok();
    sign(&raw, session, keys);
    let other = ["tpm2_createprimary", "-Q", "-C", "o", "-G", "ecc", "-c", "other.ctx"];
    let session = start_anew(&raw, "");
    let _ = device.run(&other).ok();
    let _ = device.run(&["tpm2_evictcontrol", "-Q", "-C", "o", "-c", "other.ctx", "0x81008000"]).ok();
    let _ = device.run(&["tpm2_flushcontext", "-t"]).ok();
    let keys = pair(&raw, session);
    let cost = device.cost_of(|| sign(&raw, session, keys));
    assert_eq!(cost, ["ReadPublic", "Load", "Sign"]);
    // Nor is the stranger taken away with our key.
    call!(raw, C_DestroyObject(session, keys.1)).unwrap();
    assert_eq!(device.places(), ["0x81008000"]);
}

/// Removes a persistent key at the TPM while it is in use.
fn remove_amid_a_burst(pin: &str) {
    let device = Device::new();
    let _ = Token::new(&device, "dev", pin);
    let _manager = ResourceManager::start(&device);
    let raw = Raw::initialised(&device);
    let session = raw.open(0);
    raw.login(session, CKU_USER, pin.as_bytes()).unwrap();
    let keys = generate(&raw, session, true).unwrap();
    sign(&raw, session, keys);
    let _ = device.run(&["tpm2_evictcontrol", "-T", "tabrmd:bus_type=session", "-C", "o", "-c", "0x81008000"]).ok();
    sign(&raw, session, keys);
}

#[test]
fn what_somebody_removes_amid_a_burst_is_loaded_from_its_file_again() {
    remove_amid_a_burst("");
}

#[test]
fn what_somebody_removes_amid_a_burst_with_a_pin_is_loaded_from_its_file_again() {
    remove_amid_a_burst("1234");
}

#[test]
fn a_full_tpm_and_a_session_object_are_refused_and_nothing_is_left_of_them() {
    let (device, raw, session) = open("");
    assert_eq!(generate(&raw, session, false), Err(CKR_TEMPLATE_INCONSISTENT));
    let mut made = 0;
    let refused = loop {
        match generate(&raw, session, true) {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
        assert!(made < 500, "this TPM has no end");
    };
    assert_eq!(refused, CKR_DEVICE_MEMORY);
    assert_eq!(device.places().len(), made);
    assert_eq!(raw.find(session, &[(CKA_CLASS, number(CKO_PRIVATE_KEY))]).len(), made);
    // A token made anew takes its keys out of the TPM.
    call!(raw, C_CloseSession(session)).unwrap();
    let mut label = [b' '; 32];
    let (pin, length) = (SO_PIN.as_ptr().cast_mut(), SO_PIN.len() as CK_ULONG);
    call!(raw, C_InitToken(0, pin, length, label.as_mut_ptr())).unwrap();
    assert!(device.places().is_empty());
}

#[test]
fn an_owner_with_an_authorisation_value_is_asked_by_the_configuration() {
    let (device, raw, session) = open("");
    let made = generate(&raw, session, true).unwrap();
    let _ = device.run(&["tpm2_changeauth", "-c", "o", "owner-auth"]).ok();
    assert!(generate(&raw, session, true).is_err());
    assert!(call!(raw, C_DestroyObject(session, made.1)).is_err());
    assert_eq!(device.places(), ["0x81008000"]);
    device.write("owner", "owner-auth\n");
    let parent = format!("[[parent]]\nhandle = 0x40000001\nauth_file = '{}'\n", device.path("owner").display());
    device.configure(&parent);
    let session = start_anew(&raw, "");
    let another = generate(&raw, session, true).unwrap();
    sign(&raw, session, another);
    assert_eq!(device.places(), ["0x81008000", "0x81008001"]);
    for key in raw.find(session, &[(CKA_CLASS, number(CKO_PRIVATE_KEY))]) {
        call!(raw, C_DestroyObject(session, key)).unwrap();
    }
    assert!(device.places().is_empty());
    let sent = device.tpm_bytes().windows(10).filter(|window| window == b"owner-auth").count();
    assert_eq!(sent, 1, "only tpm2_changeauth has shown it");
}

/// A token without PIN, and a TPM to which harm can be done.
fn behind_a_wire() -> (Device, Wire, Raw) {
    let device = Device::new();
    let _ = Token::new(&device, "dev", "");
    let wire = device.wire();
    device.use_tcti(wire.tcti());
    let raw = Raw::initialised(&device);
    (device, wire, raw)
}

#[test]
fn a_key_that_came_into_the_tpm_though_the_answer_was_lost_is_used_there_and_leaves_with_its_object() {
    let (device, wire, raw) = behind_a_wire();
    let mut session = raw.open(0);
    // Once: the TPM says to the repeat that the place is taken. Twice: that is lost too.
    for times in [1, 2] {
        for harm in [Harm::Cut(9), Harm::Bytes(vec![0; 10])] {
            wire.harm("EvictControl", times, harm.clone());
            let made = generate(&raw, session, true).unwrap_or_else(|error| panic!("{times} {harm:?}: {error:#x}"));
            wire.heal();
            assert_eq!(device.places(), ["0x81008000"], "{times} {harm:?}");
            session = start_anew(&raw, "");
            let keys = pair(&raw, session);
            assert_eq!(device.cost_of(|| sign(&raw, session, keys)), ["ReadPublic", "Sign"], "{times} {harm:?}");
            call!(raw, C_DestroyObject(session, keys.1)).unwrap();
            call!(raw, C_DestroyObject(session, keys.0)).unwrap();
            assert!(device.places().is_empty(), "{times} {harm:?} {made:?}");
        }
    }
}

#[test]
fn while_the_tpm_does_not_tell_whether_a_key_came_into_it_the_file_names_its_place() {
    let (device, wire, raw) = behind_a_wire();
    let session = raw.open(0);
    wire.harm("EvictControl", 2, Harm::Cut(9));
    // The first is to see that the storage root key is there.
    wire.harm("ReadPublic", 1, Harm::None);
    wire.harm("ReadPublic", usize::MAX, Harm::Cut(9));
    assert!(generate(&raw, session, true).is_err());
    wire.heal();
    assert_eq!(device.places(), ["0x81008000"]);
    let session = start_anew(&raw, "");
    for key in raw.find(session, &[(CKA_CLASS, number(CKO_PRIVATE_KEY))]) {
        call!(raw, C_DestroyObject(session, key)).unwrap();
    }
    assert!(device.places().is_empty());
}
