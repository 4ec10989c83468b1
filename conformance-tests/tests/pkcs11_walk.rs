//! Every function of the list, by its row of the table: when it works, what it does with NULL, with stale handles and
//! with buffers of every length.

mod raw;
mod walk;

use std::ptr::null_mut;

use conformance_tests::{Device, Hold};
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
fn nothing_works_with_two_things_wrong_and_nothing_breaks() {
    let (_device, world) = open();
    for function in working().filter(|function| function.when == When::Initialised) {
        // Words that may not be as they are spoilt here.
        let needed = |(word, argument): (usize, Argument)| {
            let handle = matches!(argument, Argument::Session | Argument::Object(..) | Argument::Slot(_));
            let pointers = argument.never_null().iter().map(move |null| (word + null, 0));
            pointers.chain(handle.then_some((word, usize::MAX)))
        };
        let cancels = |word| function.effect == Effect::Begins && function.mechanism() == Some(word);
        let spoilt: Vec<_> = function.parts().flat_map(needed).filter(|(word, _)| !cancels(*word)).collect();
        for (index, one) in spoilt.iter().enumerate() {
            for other in &spoilt[..index] {
                let mut call = world.prepare(function);
                for (word, value) in [one, other] {
                    call.words[*word] = *value;
                }
                assert!(call.run().is_err(), "{} with words {} and {} spoilt", function.name, one.0, other.0);
            }
        }
    }
    assert_eq!(world.prepare(function("C_Sign")).run(), Ok(()));
}

#[test]
fn random_bytes_fill_what_is_asked_for_and_no_more() {
    let (_device, world) = open();
    for length in [0, 1, 7, 31, 4095, 4096, 4097, 10_000] {
        let mut call = world.prepare(function("C_GenerateRandom"));
        let mut buffer = vec![0xc5_u8; length + 64];
        (call.words[1], call.words[2]) = (buffer.as_mut_ptr() as usize, length);
        assert_eq!(call.run(), Ok(()), "{length}");
        let (filled, behind) = buffer.split_at(length);
        assert!(behind.iter().all(|byte| *byte == 0xc5), "{length}");
        assert!(length < 31 || filled.iter().any(|byte| *byte != 0xc5), "{length}");
    }
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
fn a_length_that_no_memory_has_is_refused_before_a_byte_is_read() {
    let (_device, world) = open();
    for function in working() {
        for (word, argument) in function.parts() {
            if !matches!(argument, Argument::Bytes(_) | Argument::Template(_) | Argument::Wanted) {
                continue;
            }
            for length in [usize::MAX, usize::MAX / 2 + 1, isize::MAX as usize] {
                let mut call = world.prepare(function);
                call.words[word + 1] = length;
                // The largest length of bytes that memory could have is no lie that anybody could see through.
                if matches!(argument, Argument::Bytes(_)) && length == isize::MAX as usize {
                    continue;
                }
                assert_eq!(call.run(), Err(CKR_ARGUMENTS_BAD), "{}, {length:#x}", function.name);
            }
        }
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
    // An object of a session that is closed.
    let session = world.raw.open(0);
    let closed = world.raw.create(session, &[(CKA_CLASS, raw::number(CKO_DATA))]).unwrap();
    call!(world.raw, C_CloseSession(session)).unwrap();
    let never = [CK_OBJECT_HANDLE::MAX, destroyed + 1_000_000, destroyed, closed];
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

#[test]
fn an_object_that_another_process_destroyed_is_none() {
    // They take turns at the TPM.
    let device = Device::with_hold(Hold::Default);
    let world = World::new(&device);
    for function in working().filter(|function| function.after.is_empty()) {
        for (word, argument) in function.parts() {
            let Argument::Object(thing, code) = argument else { continue };
            // What is the session's no other process sees.
            if thing == Thing::Secret {
                continue;
            }
            let call = world.prepare(function);
            let kind = match thing {
                Thing::Rsa | Thing::Ec => "privkey",
                Thing::RsaPublic | Thing::EcPublic => "pubkey",
                Thing::Aes | Thing::Mac => "secrkey",
                Thing::Data | Thing::Scrap | Thing::Secret => "data",
            };
            let label = world.raw.get(world.main(), call.words[word] as CK_OBJECT_HANDLE, CKA_LABEL).unwrap();
            let label = String::from_utf8(label).unwrap();
            let tool = ["--token-label", "dev", "--login", "--pin", "1234", "--delete-object", "--type", kind];
            let _ = device.pkcs11_tool(&[&tool[..], &["--label", &label]].concat()).ok();
            assert_eq!(call.run(), Err(code), "{}", function.name);
            // The other half goes as well, so that the next function finds a pair again.
            for rest in world.raw.find(world.main(), &[(CKA_LABEL, label.into_bytes())]) {
                call!(world.raw, C_DestroyObject(world.main(), rest)).unwrap();
            }
        }
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
