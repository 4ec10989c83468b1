//! Operations in and out of turn, by the table of functions: never begun, begun twice, ended, cancelled.

mod raw;
mod walk;

use cryptoki_sys::*;
use walk::{Effect, Function, VERIFY_SIGNATURE, function, open, working};

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
        // There is something to save then, but nothing that can be.
        let save = function.name == "C_GetOperationState";
        let refused = if save { CKR_STATE_UNSAVEABLE } else { CKR_OPERATION_NOT_INITIALIZED };
        assert_eq!(call.run(), Err(refused), "{}", function.name);
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
    for operation in all.into_iter().filter(|operation| *operation != VERIFY_SIGNATURE) {
        let mut call = begun();
        call.words[1] = operation as usize;
        assert_eq!(call.run(), Ok(()), "{operation:#x}");
        let named = if operation == CKF_VERIFY { CKF_VERIFY | VERIFY_SIGNATURE } else { operation };
        assert_eq!(world.active(call.session(), every), every & !named, "{operation:#x}");
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
        ("C_VerifySignature", "C_VerifySignatureUpdate"),
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
