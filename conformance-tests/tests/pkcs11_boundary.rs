//! The C boundary: the function lists, NULL pointers, lengths, initialising, forking.

mod raw;

use std::ptr::null_mut;

use conformance_tests::{Device, Token};
use cryptoki_sys::*;
use raw::{Given, Raw, call, flag, number};

/// Functions that need no initialised library.
const FIRST: [usize; 5] = [0, 1, 3, 68, 69];
const C_INITIALIZE: usize = 0;
const C_FINALIZE: usize = 1;

/// Every function of the 3.2 list, in its order, as one that takes eight words. By the calling conventions of the
/// machines we run on a function ignores the words that it does not take.
fn walk(raw: &Raw) -> Vec<unsafe extern "C" fn(usize, usize, usize, usize, usize, usize, usize, usize) -> CK_RV> {
    let first = (&raw const raw.list.C_Initialize).cast();
    let count = (size_of::<CK_FUNCTION_LIST_3_2>() - size_of::<usize>()) / size_of::<usize>();
    // SAFETY: after its version the list is nothing but function pointers, none of them NULL.
    unsafe { std::slice::from_raw_parts(first, count) }.to_vec()
}

#[test]
fn every_function_is_there_and_refuses_to_work_before_initialise() {
    let device = Device::new();
    let raw = Raw::load(&device);
    let functions = walk(&raw);
    assert_eq!(functions.len(), 104);
    for (index, function) in functions.iter().enumerate().filter(|(index, _)| !FIRST.contains(index)) {
        // SAFETY: nothing but zeros and NULL.
        let value = unsafe { function(0, 0, 0, 0, 0, 0, 0, 0) };
        let legacy = value == CKR_FUNCTION_NOT_PARALLEL;
        assert!(value == CKR_CRYPTOKI_NOT_INITIALIZED || legacy, "function {index} answers {value:#x}");
    }
}

#[test]
fn no_function_crashes_or_works_with_nothing_but_nulls() {
    let device = Device::new();
    let _token = Token::new(&device, "dev", "1234");
    let raw = Raw::initialised(&device);
    let session = raw.open(0);
    for first in [0, session as usize, usize::MAX] {
        for (index, function) in walk(&raw).iter().enumerate().filter(|(index, _)| *index != C_FINALIZE) {
            if index == C_INITIALIZE && first != 0 {
                continue;
            }
            // The functions whose first argument is a pointer get NULL there.
            let pointer_first = [2, 3, 4, 67, 68, 69].contains(&index);
            let first = if pointer_first { 0 } else { first };
            // SAFETY: zeros and NULL, and a session handle or a number that is none.
            let _ = unsafe { function(first, 0, 0, 0, 0, 0, 0, 0) };
        }
    }
    assert_eq!(call!(raw, C_Initialize(null_mut())), Err(CKR_CRYPTOKI_ALREADY_INITIALIZED));
}

#[test]
fn an_impossible_length_is_refused_without_reading_a_byte() {
    let device = Device::new();
    let _token = Token::new(&device, "dev", "1234");
    let raw = Raw::initialised(&device);
    let session = raw.open(0);
    let mut byte = 0u8;
    for length in [CK_ULONG::MAX, CK_ULONG::MAX / 2 + 1] {
        assert_eq!(call!(raw, C_Login(session, CKU_USER, &mut byte, length)), Err(CKR_ARGUMENTS_BAD));
        assert_eq!(call!(raw, C_SeedRandom(session, &mut byte, length)), Err(CKR_ARGUMENTS_BAD));
        let mut attribute = CK_ATTRIBUTE { type_: CKA_LABEL, pValue: (&raw mut byte).cast(), ulValueLen: length };
        let refused = call!(raw, C_FindObjectsInit(session, &mut attribute, 1));
        assert_eq!(refused, Err(CKR_ATTRIBUTE_VALUE_INVALID));
        assert_eq!(call!(raw, C_FindObjectsInit(session, &mut attribute, length)), Err(CKR_ARGUMENTS_BAD));
    }
}

#[test]
fn the_three_interfaces_are_found_by_name_version_and_flags() {
    let device = Device::new();
    let raw = Raw::load(&device);
    let mut count = 0;
    call!(raw, C_GetInterfaceList(null_mut(), &mut count)).unwrap();
    assert_eq!(count, 3);
    let mut interfaces = [CK_INTERFACE::default(); 3];
    let mut too_few = 2;
    let refused = call!(raw, C_GetInterfaceList(interfaces.as_mut_ptr(), &mut too_few));
    assert_eq!((refused, too_few), (Err(CKR_BUFFER_TOO_SMALL), 3));
    call!(raw, C_GetInterfaceList(interfaces.as_mut_ptr(), &mut count)).unwrap();
    let find = |name: &std::ffi::CStr, version: Option<(u8, u8)>, flags| {
        let mut version = version.map(|(major, minor)| CK_VERSION { major, minor });
        let version = version.as_mut().map_or(null_mut(), std::ptr::from_mut);
        let mut found: *mut CK_INTERFACE = null_mut();
        call!(raw, C_GetInterface(name.as_ptr().cast_mut().cast(), version, &mut found, flags))?;
        // SAFETY: a successful call gives an interface, whose list begins with its version.
        let version = unsafe { (*found).pFunctionList.cast::<CK_VERSION>().read() };
        Ok((version.major, version.minor))
    };
    for version in [(2, 40), (3, 0), (3, 2)] {
        assert_eq!(find(c"PKCS 11", Some(version), 0), Ok(version));
    }
    assert_eq!(find(c"PKCS 11", None, 0), Ok((3, 2)));
    assert_eq!(find(c"PKCS 11", None, CKF_INTERFACE_FORK_SAFE), Err(CKR_ARGUMENTS_BAD));
    assert_eq!(find(c"PKCS 11", Some((3, 1)), 0), Err(CKR_ARGUMENTS_BAD));
    assert_eq!(find(c"Vendor other", None, 0), Err(CKR_ARGUMENTS_BAD));
    assert_eq!(find(c"PKCS 11", None, 1 << 20), Err(CKR_ARGUMENTS_BAD));
    let mut old: *mut CK_FUNCTION_LIST = null_mut();
    call!(raw, C_GetFunctionList(&mut old)).unwrap();
    // SAFETY: a successful call gives a list.
    assert_eq!(unsafe { ((*old).version.major, (*old).version.minor) }, (2, 40));
}

#[test]
fn initialise_checks_how_it_may_lock() {
    unsafe extern "C" fn create(_: *mut *mut std::ffi::c_void) -> CK_RV {
        CKR_OK
    }
    unsafe extern "C" fn other(_: *mut std::ffi::c_void) -> CK_RV {
        CKR_OK
    }
    let device = Device::new();
    let raw = Raw::load(&device);
    let initialise = |mut arguments: CK_C_INITIALIZE_ARGS| {
        let outcome = call!(raw, C_Initialize((&raw mut arguments).cast()));
        if outcome.is_ok() {
            call!(raw, C_Finalize(null_mut())).unwrap();
        }
        outcome
    };
    let own = CK_C_INITIALIZE_ARGS {
        CreateMutex: Some(create),
        DestroyMutex: Some(other),
        LockMutex: Some(other),
        UnlockMutex: Some(other),
        flags: 0,
        pReserved: null_mut(),
    };
    let none = CK_C_INITIALIZE_ARGS::default();
    assert_eq!(initialise(none), Ok(()));
    assert_eq!(initialise(CK_C_INITIALIZE_ARGS { flags: CKF_OS_LOCKING_OK, ..none }), Ok(()));
    // What p11-kit, GnuTLS and NSS give.
    let usual = CKF_OS_LOCKING_OK | CKF_LIBRARY_CANT_CREATE_OS_THREADS;
    assert_eq!(initialise(CK_C_INITIALIZE_ARGS { flags: usual, ..none }), Ok(()));
    assert_eq!(initialise(own), Err(CKR_CANT_LOCK));
    assert_eq!(initialise(CK_C_INITIALIZE_ARGS { flags: CKF_OS_LOCKING_OK, ..own }), Ok(()));
    assert_eq!(initialise(CK_C_INITIALIZE_ARGS { LockMutex: None, ..own }), Err(CKR_ARGUMENTS_BAD));
    let reserved = (&raw const device).cast_mut().cast();
    assert_eq!(initialise(CK_C_INITIALIZE_ARGS { pReserved: reserved, ..none }), Err(CKR_ARGUMENTS_BAD));
}

#[test]
fn the_module_is_initialised_once_and_forgets_all_at_finalise() {
    let device = Device::new();
    let _token = Token::new(&device, "dev", "1234");
    let raw = Raw::initialised(&device);
    assert_eq!(call!(raw, C_Initialize(null_mut())), Err(CKR_CRYPTOKI_ALREADY_INITIALIZED));
    let session = raw.open(0);
    raw.login(session, CKU_USER, raw::PIN).unwrap();
    call!(raw, C_Finalize(null_mut())).unwrap();
    assert_eq!(call!(raw, C_Finalize(null_mut())), Err(CKR_CRYPTOKI_NOT_INITIALIZED));
    call!(raw, C_Initialize(null_mut())).unwrap();
    assert_eq!(call!(raw, C_CloseSession(session)), Err(CKR_SESSION_HANDLE_INVALID));
    assert_eq!(raw.state(raw.open(0)), CKS_RW_PUBLIC_SESSION);
}

#[test]
fn a_slot_list_tells_its_length_and_fills_a_buffer_that_is_large_enough() {
    let device = Device::new();
    let (_first, _second) = (Token::new(&device, "one", "1234"), Token::new(&device, "two", ""));
    let raw = Raw::initialised(&device);
    assert_eq!(raw.slots(), [0, 1, 2]);
    let (mut slots, mut count) = ([9; 4], 2);
    let refused = call!(raw, C_GetSlotList(CK_TRUE, slots.as_mut_ptr(), &mut count));
    assert_eq!((refused, count), (Err(CKR_BUFFER_TOO_SMALL), 3));
    count = 4;
    call!(raw, C_GetSlotList(CK_TRUE, slots.as_mut_ptr(), &mut count)).unwrap();
    assert_eq!((slots, count), ([0, 1, 2, 9], 3));
    let (mut list, mut count) = ([0; 3], 3);
    let refused = call!(raw, C_GetMechanismList(0, list.as_mut_ptr(), &mut count));
    assert_eq!(refused, Err(CKR_BUFFER_TOO_SMALL));
    assert!(count > 3);
    assert_eq!(call!(raw, C_GetTokenInfo(7, &mut CK_TOKEN_INFO::default())), Err(CKR_SLOT_ID_INVALID));
}

#[test]
fn token_texts_are_padded_with_blanks() {
    let device = Device::new();
    let _token = Token::new(&device, "gerät", "1234");
    let raw = Raw::initialised(&device);
    for slot in raw.slots() {
        let info = raw.token_info(slot);
        for text in [&info.label[..], &info.manufacturerID, &info.model, &info.serialNumber, &info.utcTime] {
            assert!(!text.contains(&0), "{text:?}");
        }
    }
    assert!(raw.token_info(0).label.starts_with("gerät ".as_bytes()));
    assert_eq!(raw.token_info(1).flags & CKF_TOKEN_INITIALIZED, 0);
}

#[test]
fn an_attribute_that_cannot_be_read_does_not_keep_back_the_others() {
    let device = Device::new();
    let _token = Token::new(&device, "dev", "1234");
    let raw = Raw::initialised(&device);
    let session = raw.open(0);
    raw.login(session, CKU_USER, raw::PIN).unwrap();
    let (_, private) = raw.generate_ec(session, false);
    let mut buffers = [[0u8; 80]; 4];
    let [sensitive, unknown, small, fine] = &mut buffers;
    let attribute = |kind, value: &mut [u8], length: usize| CK_ATTRIBUTE {
        type_: kind,
        pValue: value.as_mut_ptr().cast(),
        ulValueLen: length as CK_ULONG,
    };
    let mut template = [
        attribute(CKA_VALUE, sensitive, 80),
        attribute(CKA_VENDOR_DEFINED | 1, unknown, 80),
        attribute(CKA_EC_POINT, small, 10),
        attribute(CKA_EC_PARAMS, fine, 80),
        CK_ATTRIBUTE { type_: CKA_ID, pValue: null_mut(), ulValueLen: 0 },
    ];
    let outcome = call!(raw, C_GetAttributeValue(session, private, template.as_mut_ptr(), 5));
    let possible = [CKR_ATTRIBUTE_SENSITIVE, CKR_ATTRIBUTE_TYPE_INVALID, CKR_BUFFER_TOO_SMALL];
    assert!(outcome.is_err_and(|value| possible.contains(&value)));
    let lengths = template.map(|attribute| attribute.ulValueLen);
    let none = CK_UNAVAILABLE_INFORMATION;
    assert_eq!(lengths, [none, none, none, raw::P256.len() as CK_ULONG, 20]);
    assert_eq!(&fine[..raw::P256.len()], raw::P256);
    assert_eq!(sensitive, &[0; 80]);
    assert_eq!(raw.get(session, private, CKA_VALUE), Err(CKR_ATTRIBUTE_SENSITIVE));
    assert_eq!(raw.get(session, private, CKA_MODULUS), Err(CKR_ATTRIBUTE_TYPE_INVALID));
}

#[test]
fn a_signature_tells_its_length_and_survives_a_buffer_that_is_too_small() {
    let device = Device::new();
    let _token = Token::new(&device, "dev", "1234");
    let raw = Raw::initialised(&device);
    let session = raw.open(0);
    raw.login(session, CKU_USER, raw::PIN).unwrap();
    let (public, private) = raw.generate_ec(session, false);
    raw.sign_init(session, CKM_ECDSA, private).unwrap();
    let (mut data, mut signature, mut length) = ([5; 32], [0; 80], 0);
    call!(raw, C_Sign(session, data.as_mut_ptr(), 32, null_mut(), &mut length)).unwrap();
    assert_eq!(length, 64);
    length = 63;
    let refused = call!(raw, C_Sign(session, data.as_mut_ptr(), 32, signature.as_mut_ptr(), &mut length));
    assert_eq!((refused, length), (Err(CKR_BUFFER_TOO_SMALL), 64));
    length = 80;
    call!(raw, C_Sign(session, data.as_mut_ptr(), 32, signature.as_mut_ptr(), &mut length)).unwrap();
    assert_eq!((length, &signature[64..]), (64, &[0; 16][..]));
    raw.verify(session, CKM_ECDSA, public, &data, &signature[..64]).unwrap();
    // It has ended, and a bad argument would have ended it too.
    assert_eq!(raw.sign(session, &data), Err(CKR_OPERATION_NOT_INITIALIZED));
    raw.sign_init(session, CKM_ECDSA, private).unwrap();
    let bad = call!(raw, C_Sign(session, null_mut(), 32, signature.as_mut_ptr(), &mut length));
    assert_eq!(bad, Err(CKR_ARGUMENTS_BAD));
    assert_eq!(raw.sign(session, &data), Err(CKR_OPERATION_NOT_INITIALIZED));
}

#[test]
fn a_forked_child_is_told_to_initialise_and_costs_its_parent_nothing() {
    unsafe extern "C" {
        fn fork() -> i32;
        fn waitpid(process: i32, status: *mut i32, options: i32) -> i32;
        fn _exit(status: i32) -> !;
    }
    let device = Device::new();
    let _token = Token::new(&device, "dev", "1234");
    let raw = Raw::initialised(&device);
    let session = raw.open(0);
    raw.login(session, CKU_USER, raw::PIN).unwrap();
    let (public, private) = raw.generate_ec(session, false);
    let signs = || {
        raw.sign_init(session, CKM_ECDSA, private)?;
        let signature = raw.sign(session, &[5; 32])?;
        raw.verify(session, CKM_ECDSA, public, &[5; 32], &signature)
    };
    signs().unwrap();
    device.mark();
    for _ in 0..3 {
        // SAFETY: the test has one thread of its own; the child leaves by _exit.
        let child = unsafe { fork() };
        if child == 0 {
            let told = signs() == Err(CKR_CRYPTOKI_NOT_INITIALIZED)
                && call!(raw, C_CloseSession(session)) == Err(CKR_CRYPTOKI_NOT_INITIALIZED)
                && call!(raw, C_Initialize(null_mut())).is_ok()
                && call!(raw, C_CloseSession(session)) == Err(CKR_SESSION_HANDLE_INVALID)
                && raw.open_with(0, CKF_SERIAL_SESSION).is_ok()
                && call!(raw, C_Finalize(null_mut())).is_ok();
            // SAFETY: ends the child at once.
            unsafe { _exit(i32::from(!told)) };
        }
        signs().unwrap();
        let mut status = -1;
        // SAFETY: our own child.
        assert_eq!(unsafe { waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0, "the child's calls went as they should");
        signs().unwrap();
    }
    assert_eq!(raw.token_info(0).flags & CKF_USER_PIN_COUNT_LOW, 0);
    let refused: Vec<_> = device.commands().into_iter().filter(|command| command.contains('!')).collect();
    assert!(refused.is_empty(), "{refused:?}");
}

#[test]
fn a_template_gives_each_attribute_once() {
    let device = Device::new();
    let _token = Token::new(&device, "dev", "1234");
    let raw = Raw::initialised(&device);
    let session = raw.open(0);
    let data: [Given; 3] = [(CKA_CLASS, number(CKO_DATA)), (CKA_LABEL, b"a".into()), (CKA_VALUE, b"x".into())];
    let with = |more: Given| raw.create(session, &[&data[..], &[more]].concat()).map(|_| ());
    assert_eq!(with((CKA_LABEL, b"a".into())), Ok(()));
    assert_eq!(with((CKA_LABEL, b"b".into())), Err(CKR_TEMPLATE_INCONSISTENT));
    assert_eq!(with((CKA_UNIQUE_ID, b"b".into())), Err(CKR_ATTRIBUTE_READ_ONLY));
    assert_eq!(with((CKA_VENDOR_DEFINED | 5, b"b".into())), Err(CKR_ATTRIBUTE_TYPE_INVALID));
    assert_eq!(with((CKA_SIGN, flag(true))), Err(CKR_TEMPLATE_INCONSISTENT));
    assert_eq!(with((CKA_TOKEN, vec![])), Err(CKR_ATTRIBUTE_VALUE_INVALID));
    assert_eq!(raw.create(session, &data[1..]), Err(CKR_TEMPLATE_INCOMPLETE));
}
