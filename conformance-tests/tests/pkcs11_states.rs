//! What a session holds while something runs: two operations at once, saved states, searches, recovery, and keys that
//! want a login for each use.

mod raw;
mod walk;

use std::ptr::null_mut;

use cryptoki_sys::*;
use openssl::hash::{MessageDigest, hash};
use raw::{Given, PIN, Rv, Wanted, call, flag, number};
use walk::{Login, Thing, World, function, open};

const TEXT: &[u8] = b"what is two blocks of an AES key";

fn digest(data: &[u8]) -> Vec<u8> {
    hash(MessageDigest::sha256(), data).unwrap().to_vec()
}

/// Calls a function of the table in this session with its own arguments, and gives what comes out.
fn give(world: &World, session: CK_SESSION_HANDLE, name: &str) -> Rv<Vec<u8>> {
    let call = world.call(function(name), session);
    call.run()?;
    Ok(if call.function.output().is_some() { call.written() } else { Vec::new() })
}

/// The four functions with two operations: how each begins and ends, and whether its input or its output is the text
/// that the other operation takes.
const DUAL: [(&str, [&str; 2], [&str; 2]); 4] = [
    ("C_DigestEncryptUpdate", ["C_DigestInit", "C_EncryptInit"], ["C_DigestFinal", "C_EncryptFinal"]),
    ("C_DecryptDigestUpdate", ["C_DecryptInit", "C_DigestInit"], ["C_DecryptFinal", "C_DigestFinal"]),
    ("C_SignEncryptUpdate", ["C_SignInit", "C_EncryptInit"], ["C_SignFinal", "C_EncryptFinal"]),
    ("C_DecryptVerifyUpdate", ["C_DecryptInit", "C_VerifyInit"], ["C_DecryptFinal", ""]),
];

#[test]
fn two_operations_at_once_give_what_they_give_one_by_one() {
    let (_device, world) = open();
    for (name, begin, end) in DUAL {
        let call = world.prepare_alone(function(name));
        let session = call.session();
        for init in begin {
            give(&world, session, init).unwrap();
        }
        // Questions and a buffer that is too small pass nothing on to the other operation.
        let mut question = world.call(function(name), session);
        question.give_no_buffer();
        question.run().unwrap();
        question.give_room(question.told() - 1);
        assert_eq!(question.run(), Err(CKR_BUFFER_TOO_SMALL), "{name}");
        call.run().unwrap();
        let (first, out) = (call.written(), |name| give(&world, session, name).unwrap());
        // What each operation gives on its own, of the same data.
        let (alone, _owner) = alone(&world, &call);
        let (update, last) = if begin.contains(&"C_EncryptInit") {
            ("C_EncryptUpdate", "C_EncryptFinal")
        } else {
            ("C_DecryptUpdate", "C_DecryptFinal")
        };
        let encrypts = update == "C_EncryptUpdate";
        assert_eq!(first, through(&world, alone, update, &call), "{name}");
        let text = if encrypts { TEXT.to_vec() } else { first };
        for end in end.into_iter().filter(|end| !end.is_empty()) {
            let got = out(end);
            match end {
                "C_DigestFinal" => assert_eq!(got, digest(&text), "{name}"),
                "C_SignFinal" => assert_eq!(got, signature(&world, &text), "{name}"),
                _ => assert_eq!(got, give(&world, alone, last).unwrap(), "{name}"),
            }
        }
        if name == "C_DecryptVerifyUpdate" {
            let signature = signature(&world, &text);
            let (address, length) = (signature.as_ptr().cast_mut(), signature.len() as CK_ULONG);
            assert_eq!(call!(world.raw, C_VerifyFinal(session, address, length)), Ok(()));
        }
    }
}

/// A session in which the cipher of a dual function runs alone.
fn alone<'a>(world: &'a World, dual: &walk::Call<'_>) -> (CK_SESSION_HANDLE, walk::Call<'a>) {
    let encrypts = dual.function.after.contains(&"C_EncryptInit");
    let call = world.prepare(function(if encrypts { "C_EncryptInit" } else { "C_DecryptInit" }));
    call.run().unwrap();
    (call.session(), call)
}

/// What a function gives for the data of another call.
fn through(world: &World, session: CK_SESSION_HANDLE, name: &str, other: &walk::Call<'_>) -> Vec<u8> {
    let mut call = world.call(function(name), session);
    (call.words[1], call.words[2]) = (other.words[1], other.words[2]);
    call.run().unwrap();
    call.written()
}

fn signature(world: &World, text: &[u8]) -> Vec<u8> {
    let call = world.prepare(function("C_SignInit"));
    call.run().unwrap();
    world.raw.through(world.raw.list.C_Sign, call.session(), text).unwrap()
}

#[test]
fn cancelling_one_of_two_operations_leaves_the_other() {
    let (_device, world) = open();
    for (name, begin, _) in DUAL {
        let call = world.prepare(function(name));
        call.run().unwrap();
        let [one, other] = begin.map(|init| function(init).operations);
        call!(world.raw, C_SessionCancel(call.session(), one)).unwrap();
        assert_eq!(world.active(call.session(), one | other), other, "{name}");
        assert_eq!(call.run(), Err(CKR_OPERATION_NOT_INITIALIZED), "{name}");
    }
}

#[test]
fn a_saved_digest_goes_on_in_any_session_as_often_as_wanted() {
    let (_device, world) = open();
    let (raw, list) = (&world.raw, world.raw.list);
    let (first, second) = (raw.open(0), raw.open_read_only(0));
    let add = |session, part: &[u8]| raw.add(list.C_DigestUpdate, session, part).unwrap();
    let restore = |session, state: &[u8], keys: [CK_OBJECT_HANDLE; 2]| {
        let (address, length) = (state.as_ptr().cast_mut(), state.len() as CK_ULONG);
        call!(raw, C_SetOperationState(session, address, length, keys[0], keys[1]))
    };
    call!(raw, C_DigestInit(first, &mut raw::mechanism(CKM_SHA256))).unwrap();
    add(first, b"one, ");
    let state = raw.last(list.C_GetOperationState, first).unwrap();
    add(first, b"two");
    assert_eq!(raw.last(list.C_DigestFinal, first).unwrap(), digest(b"one, two"), "saving changes nothing");
    for (session, rest) in [(first, &b"and three"[..]), (second, b"or four"), (second, b"")] {
        restore(session, &state, [0, 0]).unwrap();
        add(session, rest);
        let whole = [b"one, ", rest].concat();
        assert_eq!(raw.last(list.C_DigestFinal, session).unwrap(), digest(&whole));
    }
    // What runs is cancelled, a search as well.
    raw.sign_init(first, CKM_SHA256_RSA_PKCS, world.object(Thing::Rsa)).unwrap();
    call!(raw, C_FindObjectsInit(first, null_mut(), 0)).unwrap();
    call!(raw, C_DigestInit(first, &mut raw::mechanism(CKM_SHA_1))).unwrap();
    restore(first, &state, [0, 0]).unwrap();
    assert_eq!(world.active(first, CKF_SIGN | CKF_FIND_OBJECTS | CKF_DIGEST), CKF_DIGEST);
    assert_eq!(raw.last(list.C_DigestFinal, first).unwrap(), digest(b"one, "));
    // A state that is none changes nothing.
    add_nothing(&world, first);
    let mut other = state.clone();
    other[0] ^= 1;
    for none in [&state[1..], &[&state[..], &[0]].concat(), &other, &[7; 1000], &[]] {
        assert_eq!(restore(first, none, [0, 0]), Err(CKR_SAVED_STATE_INVALID));
    }
    for keys in [[world.object(Thing::Aes), 0], [0, world.object(Thing::Rsa)], [4711, 4711]] {
        assert_eq!(restore(first, &state, keys), Err(CKR_KEY_NOT_NEEDED));
    }
    assert_eq!(raw.last(list.C_DigestFinal, first).unwrap(), digest(b"nothing"));
}

#[test]
fn a_digest_that_was_saved_before_it_got_data_may_still_be_made_at_once() {
    let (_device, world) = open();
    let (raw, list) = (&world.raw, world.raw.list);
    let session = raw.open(0);
    let restore = |state: &[u8]| {
        let (address, length) = (state.as_ptr().cast_mut(), state.len() as CK_ULONG);
        call!(raw, C_SetOperationState(session, address, length, 0, 0)).unwrap();
    };
    let begin = || call!(raw, C_DigestInit(session, &mut raw::mechanism(CKM_SHA256))).unwrap();
    begin();
    let untouched = raw.last(list.C_GetOperationState, session).unwrap();
    raw.add(list.C_DigestUpdate, session, b"some").unwrap();
    let in_parts = raw.last(list.C_GetOperationState, session).unwrap();
    restore(&untouched);
    assert_eq!(raw.through(list.C_Digest, session, b"all of it"), Ok(digest(b"all of it")));
    restore(&untouched);
    assert_eq!(raw.last(list.C_DigestFinal, session), Ok(digest(b"")));
    restore(&in_parts);
    assert_eq!(raw.through(list.C_Digest, session, b"all of it"), Err(CKR_OPERATION_NOT_INITIALIZED));
}

fn add_nothing(world: &World, session: CK_SESSION_HANDLE) {
    call!(world.raw, C_DigestInit(session, &mut raw::mechanism(CKM_SHA256))).unwrap();
    world.raw.add(world.raw.list.C_DigestUpdate, session, b"nothing").unwrap();
}

#[test]
fn a_state_that_cannot_be_saved_is_told_from_none() {
    let (_device, world) = open();
    let save = |session| world.raw.last(world.raw.list.C_GetOperationState, session);
    let session = world.raw.open(0);
    assert_eq!(save(session), Err(CKR_OPERATION_NOT_INITIALIZED));
    give(&world, session, "C_FindObjectsInit").unwrap();
    assert_eq!(save(session), Err(CKR_OPERATION_NOT_INITIALIZED), "a search is no state to save");
    for init in ["C_SignInit", "C_VerifyInit", "C_EncryptInit", "C_DecryptInit"] {
        let session = world.raw.open(0);
        give(&world, session, init).unwrap();
        assert_eq!(save(session), Err(CKR_STATE_UNSAVEABLE), "{init}");
        // Nor half of two operations.
        give(&world, session, "C_DigestInit").unwrap();
        assert_eq!(save(session), Err(CKR_STATE_UNSAVEABLE), "{init}");
        assert!(world.is_active(session, CKF_DIGEST) && world.is_active(session, function(init).operations));
    }
}

#[test]
fn a_state_belongs_to_its_token_and_its_library() {
    let (_device, mut world) = open();
    let state = world.output_of(function("C_GetOperationState"));
    let restore = |world: &World, slot| {
        let session = world.raw.open(slot);
        let (address, length) = (state.as_ptr().cast_mut(), state.len() as CK_ULONG);
        call!(world.raw, C_SetOperationState(session, address, length, 0, 0))
    };
    assert_eq!(restore(&world, 0), Ok(()));
    assert_eq!(restore(&world, 1), Err(CKR_SAVED_STATE_INVALID));
    call!(world.raw, C_Finalize(null_mut())).unwrap();
    world.initialise_again();
    assert_eq!(restore(&world, 0), Err(CKR_SAVED_STATE_INVALID));
}

#[test]
fn a_search_gives_each_object_once_in_steps_of_any_size() {
    let (_device, world) = open();
    let (raw, session) = (&world.raw, world.raw.open(0));
    let label: Given = (CKA_LABEL, b"one of seven".to_vec());
    let mut all: Vec<_> = (0..7)
        .map(|index| {
            raw.create(session, &[(CKA_CLASS, number(CKO_DATA)), (CKA_TOKEN, flag(index % 2 == 0)), label.clone()])
                .unwrap()
        })
        .collect();
    all.sort_unstable();
    let begin = || {
        let mut attribute = CK_ATTRIBUTE {
            type_: CKA_LABEL,
            pValue: label.1.as_ptr().cast_mut().cast(),
            ulValueLen: label.1.len() as CK_ULONG,
        };
        call!(raw, C_FindObjectsInit(session, &mut attribute, 1))
    };
    let next = |room: usize| {
        let (mut found, mut count) = (vec![0; room + 4], 99);
        call!(raw, C_FindObjects(session, found.as_mut_ptr(), room as CK_ULONG, &mut count))?;
        assert!(found[count as usize..].iter().all(|handle| *handle == 0), "written behind what was found");
        found.truncate(count as usize);
        Ok::<_, CK_RV>(found)
    };
    for step in [1, 2, 3, 6, 7, 8, 100] {
        begin().unwrap();
        assert_eq!(begin(), Err(CKR_OPERATION_ACTIVE));
        let mut found = Vec::new();
        loop {
            let some = next(step).unwrap();
            assert!(some.len() <= step);
            if some.is_empty() {
                break;
            }
            found.extend(some);
        }
        // It is not over by itself.
        assert_eq!(next(step), Ok(vec![]));
        call!(raw, C_FindObjectsFinal(session)).unwrap();
        assert_eq!(next(step), Err(CKR_OPERATION_NOT_INITIALIZED));
        assert_eq!(call!(raw, C_FindObjectsFinal(session)), Err(CKR_OPERATION_NOT_INITIALIZED));
        found.sort_unstable();
        assert_eq!(found, all);
    }
    // It may be ended early, and a step of no size is none.
    begin().unwrap();
    assert_eq!(next(0), Ok(vec![]));
    assert_eq!(next(2).unwrap().len(), 2);
    call!(raw, C_FindObjectsFinal(session)).unwrap();
    // An object that goes in the middle does no harm.
    begin().unwrap();
    let first = next(1).unwrap();
    let gone = *all.iter().find(|object| !first.contains(object)).unwrap();
    call!(raw, C_DestroyObject(session, gone)).unwrap();
    let rest = next(100).unwrap();
    assert!((5..=6).contains(&rest.len()));
    call!(raw, C_FindObjectsFinal(session)).unwrap();
    assert_eq!(raw.get(session, gone, CKA_LABEL), Err(CKR_OBJECT_HANDLE_INVALID));
}

#[test]
fn a_search_for_what_cannot_be_finds_nothing_or_is_refused() {
    let (_device, world) = open();
    let (raw, session) = (&world.raw, world.raw.open(0));
    let _ = world.object(Thing::Data);
    for template in [
        vec![(CKA_VENDOR_DEFINED | 0x7fff_0001, vec![1])],
        vec![(CKA_CLASS, number(CKO_OTP_KEY))],
        vec![(CKA_CLASS, number(CKO_DATA)), (CKA_MODULUS, vec![1])],
        vec![(CKA_TOKEN, vec![1, 1])],
        vec![(CKA_LABEL, vec![0xff])],
        vec![(CKA_CLASS, vec![1])],
        vec![(CKA_UNIQUE_ID, b"no object's".to_vec())],
    ] {
        let found = raw.try_find(session, &template);
        let refused = [Err(CKR_ATTRIBUTE_TYPE_INVALID), Err(CKR_ATTRIBUTE_VALUE_INVALID)];
        assert!(found == Ok(vec![]) || refused.contains(&found), "{template:x?}: {found:x?}");
        assert!(!world.is_active(session, CKF_FIND_OBJECTS));
    }
    for thing in [Thing::Data, Thing::Rsa, Thing::RsaPublic, Thing::Aes, Thing::Secret] {
        let object = world.object(thing);
        let unique = raw.get(session, object, CKA_UNIQUE_ID).unwrap();
        assert_eq!(raw.find(session, &[(CKA_UNIQUE_ID, unique)]), [object], "{thing:?}");
    }
}

#[test]
fn what_was_signed_is_recovered_and_a_bad_signature_goes_before_a_small_buffer() {
    let (_device, world) = open();
    let (raw, list, session) = (&world.raw, world.raw.list, world.raw.open(0));
    let (private, public) = (world.object(Thing::Rsa), world.object(Thing::RsaPublic));
    let padded = Wanted(CKM_RSA_PKCS, vec![]);
    let begin = |init, key| raw.begin(init, session, &padded, key).unwrap();
    for length in [0, 1, 20, 245] {
        let data = vec![7; length];
        begin(list.C_SignRecoverInit, private);
        let signature = raw.through(list.C_SignRecover, session, &data).unwrap();
        begin(list.C_VerifyRecoverInit, public);
        assert_eq!(raw.through(list.C_VerifyRecover, session, &signature).unwrap(), data, "{length}");
        // It is a plain signature of the same data too.
        assert_eq!(raw.verify(session, CKM_RSA_PKCS, public, &data, &signature), Ok(()), "{length}");
        let mut wrong = signature.clone();
        wrong[200] ^= 1;
        for (bad, code) in [(&wrong[..], CKR_SIGNATURE_INVALID), (&signature[1..], CKR_SIGNATURE_LEN_RANGE)] {
            for room in [0, length] {
                begin(list.C_VerifyRecoverInit, public);
                let (mut out, mut told) = (vec![0; length + 1], room as CK_ULONG);
                let (address, count) = (bad.as_ptr().cast_mut(), bad.len() as CK_ULONG);
                let refused = call!(raw, C_VerifyRecover(session, address, count, out.as_mut_ptr(), &mut told));
                assert_eq!(refused, Err(code), "{length}, {room}");
                assert!(!world.is_active(session, CKF_VERIFY_RECOVER));
            }
        }
    }
    begin(list.C_SignRecoverInit, private);
    assert_eq!(raw.through(list.C_SignRecover, session, &[7; 246]), Err(CKR_DATA_LEN_RANGE));
    assert!(!world.is_active(session, CKF_SIGN_RECOVER));
}

#[test]
fn a_key_that_wants_a_login_for_each_use_waits_for_it() {
    let (_device, world) = open();
    let (raw, list, session) = (&world.raw, world.raw.list, world.raw.open(0));
    let each_time = [(CKA_ALWAYS_AUTHENTICATE, flag(true)), (CKA_SIGN, flag(true)), (CKA_DECRYPT, flag(true))];
    let public = [(CKA_MODULUS_BITS, number(2048)), (CKA_ENCRYPT, flag(true))];
    let (public, private) = raw.generate(session, CKM_RSA_PKCS_KEY_PAIR_GEN, &public, &each_time).unwrap();
    let padded = Wanted(CKM_RSA_PKCS, vec![]);
    raw.begin(list.C_EncryptInit, session, &padded, public).unwrap();
    let encrypted = raw.through(list.C_Encrypt, session, b"clear").unwrap();
    let again = |pin: &[u8]| raw.login(session, CKU_CONTEXT_SPECIFIC, pin);
    for (init, use_it, data) in
        [(list.C_SignInit, list.C_Sign, &b"clear"[..]), (list.C_DecryptInit, list.C_Decrypt, &encrypted)]
    {
        assert_eq!(again(PIN), Err(CKR_OPERATION_NOT_INITIALIZED), "nothing waits");
        // The user is logged in, and yet not for this.
        raw.begin(init, session, &padded, private).unwrap();
        assert_eq!(raw.through(use_it, session, data), Err(CKR_USER_NOT_LOGGED_IN));
        let _ = call!(raw, C_SessionCancel(session, CKF_SIGN | CKF_DECRYPT));
        for _ in 0..2 {
            raw.begin(init, session, &padded, private).unwrap();
            again(PIN).unwrap();
            raw.through(use_it, session, data).unwrap();
            // Once only.
            raw.begin(init, session, &padded, private).unwrap();
            assert_eq!(raw.through(use_it, session, data), Err(CKR_USER_NOT_LOGGED_IN));
            let _ = call!(raw, C_SessionCancel(session, CKF_SIGN | CKF_DECRYPT));
        }
        // A wrong PIN: "a behaviour as if C_Login had not been called", and the session stays logged in.
        raw.begin(init, session, &padded, private).unwrap();
        assert_eq!(again(b"4321"), Err(CKR_PIN_INCORRECT));
        assert_eq!(raw.through(use_it, session, data), Err(CKR_USER_NOT_LOGGED_IN));
        let _ = call!(raw, C_SessionCancel(session, CKF_SIGN | CKF_DECRYPT));
        assert_eq!(raw.state(session), CKS_RW_USER_FUNCTIONS);
        // Another session's operation is not this one's.
        let other = raw.open(0);
        raw.begin(init, session, &padded, private).unwrap();
        assert_eq!(raw.login(other, CKU_CONTEXT_SPECIFIC, PIN), Err(CKR_OPERATION_NOT_INITIALIZED));
        call!(raw, C_CloseSession(other)).unwrap();
        again(PIN).unwrap();
        raw.through(use_it, session, data).unwrap();
    }
    // Each operation has a login of its own: this one is for the one that began last.
    raw.begin(list.C_SignInit, session, &padded, private).unwrap();
    raw.begin(list.C_DecryptInit, session, &padded, private).unwrap();
    again(PIN).unwrap();
    assert_eq!(raw.through(list.C_Sign, session, b"clear"), Err(CKR_USER_NOT_LOGGED_IN));
    assert_eq!(raw.through(list.C_Decrypt, session, &encrypted), Ok(b"clear".to_vec()));
    // A flag of the standard's that has nothing to do with it ends no operation.
    raw.begin(list.C_SignInit, session, &padded, private).unwrap();
    let _ = call!(raw, C_SessionCancel(session, CKF_DECAPSULATE | CKF_ENCAPSULATE));
    again(PIN).unwrap();
    raw.through(list.C_Sign, session, b"clear").unwrap();
    let not_private = [&each_time[..], &[(CKA_PRIVATE, flag(false))]].concat();
    let public = [(CKA_MODULUS_BITS, number(2048))];
    let refused = raw.generate(session, CKM_RSA_PKCS_KEY_PAIR_GEN, &public, &not_private);
    assert_eq!(refused, Err(CKR_TEMPLATE_INCONSISTENT), "only with CKA_PRIVATE");
    world.log_in(Login::User);
}
