//! Every function of the list, by its row of the table: when it works, what it does with NULL, with stale handles and
//! with buffers of every length.

mod raw;
mod walk;

use std::ptr::null_mut;

use conformance_tests::Device;
use cryptoki_sys::*;
use raw::{PIN, call};
use walk::{Argument, Effect, Function, Login, TABLE, Thing, When, World, function, open, working};

fn answer(function: &Function) -> raw::Rv<()> {
    if function.answer == CKR_OK { Ok(()) } else { Err(function.answer) }
}

/// What must run of a function's operations after an error.
fn after_error(function: &Function) -> CK_FLAGS {
    match function.effect {
        Effect::None | Effect::Begins => 0,
        Effect::Continues | Effect::Ends if function.error_ends => 0,
        Effect::Continues | Effect::Ends => function.operations,
    }
}

#[test]
fn the_table_has_every_function_of_the_list_once() {
    let device = Device::new();
    let raw = raw::Raw::load(&device);
    let first = std::mem::offset_of!(CK_FUNCTION_LIST_3_2, C_Initialize);
    let places: Vec<_> = (first..size_of_val(raw.list)).step_by(size_of::<usize>()).collect();
    assert_eq!(TABLE.iter().map(|function| function.offset).collect::<Vec<_>>(), places);
    for function in &TABLE {
        let words: usize = function.arguments.iter().map(|argument| argument.words()).sum();
        assert!(words <= walk::WORDS, "{}", function.name);
        assert!(function.after.iter().all(|name| walk::function(name).effect != Effect::Ends), "{}", function.name);
    }
}

#[test]
fn a_valid_call_answers_as_the_table_says_and_operations_begin_and_end_with_it() {
    let (_device, world) = open();
    for function in TABLE.iter().filter(|function| function.when != When::Itself) {
        let call = if function.works() { world.prepare(function) } else { world.prepare_alone(function) };
        assert_eq!(call.run(), answer(function), "{}", function.name);
        if !function.works() {
            continue;
        }
        let runs = match function.effect {
            Effect::Begins | Effect::Continues => function.operations,
            Effect::Ends | Effect::None => 0,
        };
        assert_eq!(world.active(call.session(), function.operations), runs, "{}", function.name);
    }
}

#[test]
fn no_function_works_before_initialise_or_after_finalise() {
    let (_device, mut world) = open();
    // Handles die with the library, so the calls are made while it is initialised.
    let calls: Vec<_> = TABLE
        .iter()
        .filter(|function| function.when != When::Itself)
        .map(|function| {
            let call = world.prepare_alone(function);
            (function, call.session(), call.words, call)
        })
        .collect();
    call!(world.raw, C_Finalize(null_mut())).unwrap();
    for (function, .., call) in &calls {
        let expected = match function.when {
            When::Anytime => answer(function),
            _ => Err(CKR_CRYPTOKI_NOT_INITIALIZED),
        };
        assert_eq!(call.run(), expected, "{}", function.name);
    }
    assert_eq!(call!(world.raw, C_Finalize(null_mut())), Err(CKR_CRYPTOKI_NOT_INITIALIZED));
    call!(world.raw, C_Initialize(null_mut())).unwrap();
    assert_eq!(call!(world.raw, C_Initialize(null_mut())), Err(CKR_CRYPTOKI_ALREADY_INITIALIZED));
    // And a session of the time before is none now.
    for (function, .., call) in calls.iter().filter(|(function, ..)| function.session().is_some()) {
        let expected =
            if function.when == When::Initialised { Err(CKR_SESSION_HANDLE_INVALID) } else { answer(function) };
        assert_eq!(call.run(), expected, "{}", function.name);
    }
    drop(calls);
    call!(world.raw, C_Finalize(null_mut())).unwrap();
    world.initialise_again();
    assert_eq!(world.prepare(function("C_Sign")).run(), Ok(()), "it works again");
}

#[test]
fn a_null_where_a_pointer_must_be_is_a_bad_argument() {
    let (_device, world) = open();
    let mut tried = 0;
    for function in working() {
        for (word, argument) in function.parts() {
            // A NULL mechanism cancels what a function would begin (PKCS#11 3.2, C_EncryptInit and its likes).
            if function.effect == Effect::Begins && matches!(argument, Argument::Mechanism(_)) {
                continue;
            }
            for null in argument.never_null() {
                let mut call = world.prepare(function);
                call.words[word + null] = 0;
                assert_eq!(call.run(), Err(CKR_ARGUMENTS_BAD), "{}, {argument:?}", function.name);
                let runs = world.active(call.session(), function.operations);
                assert_eq!(runs, after_error(function), "{}, {argument:?}", function.name);
                tried += 1;
            }
        }
    }
    assert!(tried > 80, "{tried}");
}

#[test]
fn a_pointer_for_later_versions_must_be_null() {
    let (_device, world) = open();
    for function in TABLE.iter().filter(|function| function.arguments.contains(&Argument::Reserved)) {
        let mut call = world.prepare(function);
        for (word, argument) in function.parts() {
            if argument == Argument::Reserved {
                call.words[word] = call.keep(vec![0usize]);
            }
        }
        assert_eq!(call.run(), Err(CKR_ARGUMENTS_BAD), "{}", function.name);
    }
    assert_eq!(world.prepare(function("C_GetInfo")).run(), Ok(()), "C_Finalize did nothing");
}

#[test]
fn no_data_needs_no_pointer() {
    let (_device, world) = open();
    for name in ["C_Digest", "C_DigestUpdate", "C_Sign", "C_SignUpdate", "C_VerifyUpdate", "C_SeedRandom"] {
        let mut call = world.prepare(function(name));
        (call.words[1], call.words[2]) = (0, 0);
        assert_eq!(call.run(), Ok(()), "{name}");
    }
    for name in ["C_FindObjectsInit", "C_SetAttributeValue", "C_GetAttributeValue"] {
        let mut call = world.prepare(function(name));
        let (word, _) = function(name).parts().last().unwrap();
        call.words[word + 1] = 0;
        assert_eq!(call.run(), Ok(()), "{name}");
    }
}

#[test]
fn a_session_that_is_none_is_told_before_anything_else() {
    let (_device, world) = open();
    for function in TABLE.iter().filter(|function| function.when == When::Initialised) {
        let Some(word) = function.session() else { continue };
        let mut call = world.prepare_alone(function);
        let closed = call.session();
        call!(world.raw, C_CloseSession(closed)).unwrap();
        let never = [0, CK_SESSION_HANDLE::MAX, closed + 1_000_000, closed];
        for session in never {
            call.words[word] = session as usize;
            assert_eq!(call.run(), Err(CKR_SESSION_HANDLE_INVALID), "{}, {session}", function.name);
        }
        // It goes before a NULL elsewhere (5.1.7, the priorities of errors).
        for (other, _) in function.parts().filter(|(other, _)| *other != word) {
            call.words[other] = 0;
        }
        assert_eq!(call.run(), Err(CKR_SESSION_HANDLE_INVALID), "{}", function.name);
    }
}

#[test]
fn sessions_that_all_end_at_once_are_no_sessions_any_more() {
    let (_device, world) = open();
    let calls: Vec<_> = TABLE
        .iter()
        .filter(|function| function.when == When::Initialised && function.session().is_some())
        .filter(|function| function.login == Login::User)
        .map(|function| world.prepare(function))
        .collect();
    call!(world.raw, C_CloseAllSessions(0)).unwrap();
    for call in calls {
        assert_eq!(call.run(), Err(CKR_SESSION_HANDLE_INVALID), "{}", call.function.name);
    }
}

#[test]
fn a_slot_that_is_none_is_told() {
    let (_device, world) = open();
    for function in working() {
        for (word, argument) in function.parts() {
            if !matches!(argument, Argument::Slot(_)) {
                continue;
            }
            for none in [usize::MAX, 4711] {
                let mut call = world.prepare(function);
                call.words[word] = none;
                assert_eq!(call.run(), Err(CKR_SLOT_ID_INVALID), "{}", function.name);
            }
        }
    }
}

#[test]
fn an_object_that_is_none_has_the_functions_own_code() {
    let (_device, world) = open();
    let mut tried = 0;
    for function in working() {
        for (word, argument) in function.parts() {
            let (code, thing) = match argument {
                Argument::Object(thing, code) => (code, Some(thing)),
                Argument::NoObject(code) => (code, None),
                _ => continue,
            };
            for none in stale(&world, function, thing) {
                let mut call = world.prepare(function);
                call.words[word] = none as usize;
                assert_eq!(call.run(), Err(code), "{}, {none}", function.name);
                let runs = world.active(call.session(), function.operations);
                assert_eq!(runs, after_error(function), "{}, {none}", function.name);
                tried += 1;
            }
        }
    }
    assert!(tried > 70, "{tried}");
}

/// Handles that no object has, or had; and that of an object that is no key, where a key is wanted.
fn stale(world: &World, function: &Function, thing: Option<Thing>) -> Vec<CK_OBJECT_HANDLE> {
    let destroyed = world.object(Thing::Scrap);
    call!(world.raw, C_DestroyObject(world.main(), destroyed)).unwrap();
    let never = [CK_OBJECT_HANDLE::MAX, destroyed + 1_000_000, destroyed];
    let mut handles = never.to_vec();
    match thing {
        // Here 0 is "no key is needed".
        None => handles.push(world.object(Thing::Data)),
        Some(Thing::Data | Thing::Scrap) => handles.push(0),
        Some(_) => handles.extend([0, world.object(Thing::Data)]),
    }
    assert!(function.when == When::Initialised);
    handles
}

/// The functions that use a key by a mechanism: the word of its handle, the key, and what another type is called.
fn key_users() -> impl Iterator<Item = (&'static Function, usize, Thing, CK_RV)> {
    let uses = |function: &'static Function| {
        let key = function.parts().find_map(|(word, argument)| match argument {
            Argument::Object(thing, CKR_KEY_HANDLE_INVALID) => Some((word, thing, CKR_KEY_TYPE_INCONSISTENT)),
            Argument::Object(thing, CKR_WRAPPING_KEY_HANDLE_INVALID) => {
                Some((word, thing, CKR_WRAPPING_KEY_TYPE_INCONSISTENT))
            }
            Argument::Object(thing, CKR_UNWRAPPING_KEY_HANDLE_INVALID) => {
                Some((word, thing, CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT))
            }
            _ => None,
        });
        function.mechanism().and(key).map(|(word, thing, code)| (function, word, thing, code))
    };
    working().filter_map(uses)
}

#[test]
fn a_key_of_another_type_or_class_is_told_from_one_that_may_not() {
    let (_device, world) = open();
    let types = [(Thing::Rsa, Thing::RsaPublic), (Thing::Ec, Thing::EcPublic), (Thing::Aes, Thing::Aes)];
    let mut tried = 0;
    for (function, word, right, inconsistent) in key_users() {
        for (private, public) in types {
            for thing in [private, public].into_iter().filter(|thing| *thing != right) {
                let mut call = world.prepare(function);
                call.words[word] = world.object(thing) as usize;
                // A key without the attribute that a function wants cannot have it set either: "the fact that the key
                // MUST have a CKA_ENCRYPT attribute implies that the key cannot be a private key".
                let same_type = private == right || public == right;
                let code = if same_type { CKR_KEY_FUNCTION_NOT_PERMITTED } else { inconsistent };
                assert_eq!(call.run(), Err(code), "{} with {thing:?}", function.name);
                assert_eq!(world.active(call.session(), function.operations), 0, "{}", function.name);
                tried += 1;
            }
        }
    }
    assert!(tried >= 8 * 4, "{tried}");
}

#[test]
fn a_key_that_may_not_is_refused_by_every_function() {
    let (_device, world) = open();
    for (function, word, ..) in key_users() {
        let purpose = match function.name {
            "C_EncryptInit" => CKA_ENCRYPT,
            "C_DecryptInit" => CKA_DECRYPT,
            "C_SignInit" => CKA_SIGN,
            "C_SignRecoverInit" => CKA_SIGN_RECOVER,
            "C_VerifyInit" | "C_VerifySignatureInit" => CKA_VERIFY,
            "C_VerifyRecoverInit" => CKA_VERIFY_RECOVER,
            "C_WrapKey" => CKA_WRAP,
            "C_UnwrapKey" => CKA_UNWRAP,
            "C_DeriveKey" => CKA_DERIVE,
            other => panic!("what does a key need for {other}?"),
        };
        let call = world.prepare(function);
        let key = call.words[word] as CK_OBJECT_HANDLE;
        let allow = |on| world.raw.set(call.session(), key, &[(purpose, raw::flag(on))]);
        allow(false).unwrap();
        assert_eq!(call.run(), Err(CKR_KEY_FUNCTION_NOT_PERMITTED), "{}", function.name);
        allow(true).unwrap();
        assert_eq!(call.run(), Ok(()), "{}", function.name);
    }
}

#[test]
fn a_mechanism_that_is_none_or_does_something_else_is_invalid() {
    let (_device, world) = open();
    for function in working() {
        let Some(word) = function.mechanism() else { continue };
        // Nobody has it; one for something else; one with a parameter that is none of its own.
        for (kind, code) in [
            (CKM_VENDOR_DEFINED | 4711, CKR_MECHANISM_INVALID),
            (CKM_DES3_CBC_PAD, CKR_MECHANISM_INVALID),
            (CKM_GENERIC_SECRET_KEY_GEN, CKR_MECHANISM_PARAM_INVALID),
            (CKM_RSA_PKCS_KEY_PAIR_GEN, CKR_MECHANISM_PARAM_INVALID),
        ] {
            let mut call = world.prepare(function);
            let generates = matches!(
                (function.name, kind),
                ("C_GenerateKey", CKM_GENERIC_SECRET_KEY_GEN) | ("C_GenerateKeyPair", CKM_RSA_PKCS_KEY_PAIR_GEN)
            );
            let code = if generates { code } else { CKR_MECHANISM_INVALID };
            let parameter = call.keep(vec![0u8; 5]);
            // SAFETY: the call's own mechanism.
            let mechanism = unsafe { &mut *(call.words[word] as *mut CK_MECHANISM) };
            (mechanism.mechanism, mechanism.pParameter) = (kind, parameter as CK_VOID_PTR);
            mechanism.ulParameterLen = 5;
            assert_eq!(call.run(), Err(code), "{}, {kind:#x}", function.name);
        }
        // Its own, with a parameter that it has not, or that is too short.
        let mut call = world.prepare(function);
        let parameter = call.keep(vec![0u8; 5]);
        // SAFETY: the call's own mechanism.
        let mechanism = unsafe { &mut *(call.words[word] as *mut CK_MECHANISM) };
        (mechanism.pParameter, mechanism.ulParameterLen) = (parameter as CK_VOID_PTR, 5);
        assert_eq!(call.run(), Err(CKR_MECHANISM_PARAM_INVALID), "{}", function.name);
        assert_eq!(world.active(call.session(), function.operations), 0, "{}", function.name);
        // And one that says it has a parameter where none is.
        let call = world.prepare(function);
        // SAFETY: the call's own mechanism.
        let mechanism = unsafe { &mut *(call.words[word] as *mut CK_MECHANISM) };
        (mechanism.pParameter, mechanism.ulParameterLen) = (null_mut(), 16);
        assert_eq!(call.run(), Err(CKR_MECHANISM_PARAM_INVALID), "{}", function.name);
    }
}

#[test]
fn the_handle_of_a_private_object_ends_with_the_login() {
    let (_device, world) = open();
    for function in working() {
        for (word, argument) in function.parts() {
            let Argument::Object(Thing::Rsa | Thing::Ec | Thing::Aes | Thing::Secret, code) = argument else {
                continue;
            };
            // C_DigestKey's operation need not survive a logout.
            if function.effect != Effect::Begins && !function.after.is_empty() {
                continue;
            }
            let call = world.prepare(function);
            let stale = call.words[word];
            call!(world.raw, C_Logout(world.main())).unwrap();
            assert_eq!(call.run(), Err(code), "{}", function.name);
            // "Even if a user is later logged back into the token" (C_Logout).
            world.raw.login(world.main(), CKU_USER, PIN).unwrap();
            let mut call = world.prepare(function);
            assert_ne!(call.words[word], stale);
            call.words[word] = stale;
            assert_eq!(call.run(), Err(code), "{}", function.name);
        }
    }
}

#[test]
fn output_tells_its_length_and_needs_just_that_much_room() {
    let (_device, world) = open();
    let mut tried = 0;
    for function in working().filter(|function| function.output().is_some()) {
        let name = function.name;
        // Undisturbed.
        let call = world.prepare(function);
        assert_eq!(call.run(), Ok(()), "{name}");
        let (expected, length) = (call.written(), call.told());
        assert!(length > 0, "{name}");
        let (runs, gives) = (function.operations, |written: Vec<u8>| {
            assert!(!function.repeats || written == expected, "{name} gives something else after questions");
        });
        // How long?
        let mut call = world.prepare(function);
        call.give_no_buffer();
        assert_eq!(call.run(), Ok(()), "{name}");
        let needed = call.told();
        assert!(needed >= length && needed <= length + 16, "{name}: {needed} for {length}");
        assert_eq!(world.active(call.session(), runs), runs, "{name}");
        // Too small, by much and by one.
        for room in [0, length - 1] {
            call.give_room(room);
            assert_eq!(call.run(), Err(CKR_BUFFER_TOO_SMALL), "{name}, {room} for {length}");
            assert!(call.told() >= length, "{name}: {} for {length}", call.told());
            assert!(call.untouched_behind(room), "{name} writes behind {room}");
            assert_eq!(world.active(call.session(), runs), runs, "{name}");
        }
        // What was asked for, and then it is done.
        call.give_room(needed);
        assert_eq!((call.run(), call.told()), (Ok(()), length), "{name}");
        assert!(call.untouched_behind(length), "{name}");
        gives(call.written());
        let active = if function.effect == Effect::Ends { 0 } else { runs };
        assert_eq!(world.active(call.session(), runs), active, "{name}");
        // Exactly, at once; and more than enough.
        for room in [length, length + 33] {
            let mut call = world.prepare(function);
            call.give_room(room);
            let mut done = call.run();
            // Where only the result shows its length, more may be wanted (5.2).
            if room < needed && done == Err(CKR_BUFFER_TOO_SMALL) {
                call.give_room(needed);
                done = call.run();
            }
            assert_eq!((done, call.told()), (Ok(()), length), "{name}, {room}");
            assert!(call.untouched_behind(length), "{name}, {room}");
            gives(call.written());
        }
        tried += 1;
    }
    assert!(tried > 18, "{tried}");
}
