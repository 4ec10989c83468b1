//! Every function of the list, by its row of the table: when it works, what it does with NULL, with stale handles and
//! with buffers of every length.

mod raw;
mod walk;

use std::ptr::null_mut;

use conformance_tests::Device;
use cryptoki_sys::*;
use raw::{PIN, call};
use walk::{Argument, Effect, Function, Login, TABLE, Thing, When, World, function};

fn open() -> (Device, World) {
    let device = Device::new();
    let world = World::new(&device);
    (device, world)
}

/// The functions that work between C_Initialize and C_Finalize.
fn working() -> impl Iterator<Item = &'static Function> {
    TABLE.iter().filter(|function| function.works())
}

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
    assert!(tried > 40, "{tried}");
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
    assert!(tried > 20, "{tried}");
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
            // Where only the result shows its length, more may be wanted (5.2).
            if room < needed && call.run() == Err(CKR_BUFFER_TOO_SMALL) {
                call.give_room(needed);
            }
            assert_eq!((call.run(), call.told()), (Ok(()), length), "{name}, {room}");
            assert!(call.untouched_behind(length), "{name}, {room}");
            gives(call.written());
        }
        tried += 1;
    }
    assert!(tried > 4, "{tried}");
}

#[test]
fn what_was_not_begun_cannot_go_on() {
    let (_device, world) = open();
    for function in working().filter(|function| matches!(function.effect, Effect::Continues | Effect::Ends)) {
        assert_eq!(world.prepare_alone(function).run(), Err(CKR_OPERATION_NOT_INITIALIZED), "{}", function.name);
        // Nor with any other operation begun.
        let call = world.prepare_alone(function);
        for other in working().filter(|other| other.effect == Effect::Begins) {
            if function.operations & other.operations == 0 {
                assert_eq!(world.call(other, call.session()).run(), Ok(()), "{} before {}", other.name, function.name);
            }
        }
        assert_eq!(call.run(), Err(CKR_OPERATION_NOT_INITIALIZED), "{}", function.name);
        // Nor with one of two.
        let both = function.after;
        if function.operations.count_ones() > 1 {
            for one in both {
                let call = world.prepare_alone(function);
                world.call(walk::function(one), call.session()).run().unwrap();
                assert_eq!(call.run(), Err(CKR_OPERATION_NOT_INITIALIZED), "{} after {one}", function.name);
            }
        }
    }
}

#[test]
fn what_ended_cannot_go_on() {
    let (_device, world) = open();
    for function in working().filter(|function| function.effect == Effect::Ends) {
        let call = world.prepare(function);
        assert_eq!(call.run(), Ok(()), "{}", function.name);
        for other in working() {
            let same = other.operations == function.operations;
            if same && matches!(other.effect, Effect::Continues | Effect::Ends) {
                let again = world.call(other, call.session()).run();
                assert_eq!(again, Err(CKR_OPERATION_NOT_INITIALIZED), "{} after {}", other.name, function.name);
            }
        }
    }
}

#[test]
fn what_runs_is_not_begun_again() {
    let (_device, world) = open();
    for function in working().filter(|function| function.effect == Effect::Begins) {
        let call = world.prepare(function);
        assert_eq!(call.run(), Ok(()), "{}", function.name);
        for _ in 0..2 {
            assert_eq!(call.run(), Err(CKR_OPERATION_ACTIVE), "{}", function.name);
        }
        // And goes on undisturbed.
        let ends = |end: &&Function| end.effect == Effect::Ends && end.operations == function.operations;
        let Some(end) = working().find(ends) else { continue };
        assert_eq!(world.call(end, call.session()).run(), Ok(()), "{} after {}", end.name, function.name);
    }
}

#[test]
fn a_null_mechanism_ends_what_a_function_begins() {
    let (_device, world) = open();
    for function in working().filter(|function| function.effect == Effect::Begins) {
        let Some(mechanism) = function.mechanism() else { continue };
        let mut call = world.prepare(function);
        assert_eq!(call.run(), Ok(()), "{}", function.name);
        let valid = std::mem::replace(&mut call.words[mechanism], 0);
        assert_eq!(call.run(), Ok(()), "{}", function.name);
        assert!(!world.is_active(call.session(), function.operations), "{}", function.name);
        call.words[mechanism] = valid;
        assert_eq!(call.run(), Ok(()), "{}", function.name);
    }
}

#[test]
fn cancelling_ends_what_is_named_and_nothing_else() {
    let (_device, world) = open();
    let all = working().filter(|function| function.effect == Effect::Begins).map(|function| function.operations);
    let all: Vec<_> = all.collect();
    let every = all.iter().fold(0, |some, operation| some | operation);
    let begun = || {
        let call = world.prepare(function("C_SessionCancel"));
        for begin in working().filter(|function| function.effect == Effect::Begins) {
            assert_eq!(world.call(begin, call.session()).run(), Ok(()), "{}", begin.name);
        }
        call
    };
    for operation in all {
        let mut call = begun();
        call.words[1] = operation as usize;
        assert_eq!(call.run(), Ok(()), "{operation:#x}");
        assert_eq!(world.active(call.session(), every), every & !operation, "{operation:#x}");
    }
    let mut call = begun();
    call.words[1] = 0;
    assert_eq!(call.run(), Ok(()));
    assert_eq!(world.active(call.session(), every), every, "no flag, no change");
    call.words[1] = CK_FLAGS::MAX as usize;
    assert_eq!(call.run(), Ok(()));
    assert_eq!(world.active(call.session(), every), 0);
}

#[test]
fn what_does_all_at_once_does_not_end_what_was_begun_in_parts() {
    let (_device, world) = open();
    for (whole, part) in [
        ("C_Digest", "C_DigestUpdate"),
        ("C_Sign", "C_SignUpdate"),
        ("C_Verify", "C_VerifyUpdate"),
        ("C_Encrypt", "C_EncryptUpdate"),
        ("C_Decrypt", "C_DecryptUpdate"),
    ] {
        let (whole, part) = (function(whole), function(part));
        if !whole.works() {
            continue;
        }
        let call = world.prepare(whole);
        assert_eq!(world.call(part, call.session()).run(), Ok(()));
        assert!(call.run().is_err(), "{} after {}", whole.name, part.name);
    }
}
