//! Digests: all of them, of keys too, and their state taken from one session to another.

mod client;
mod raw;

use client::{Answer, Client, named, secret};
use cryptoki::error::RvError;
use cryptoki::object::{Attribute, KeyType, ObjectHandle};
use cryptoki_sys::*;
use openssl::hash::{MessageDigest, hash};
use raw::{call, mechanism};
use std::ptr::null_mut;

const KINDS: [(CK_MECHANISM_TYPE, fn() -> MessageDigest); 9] = [
    (CKM_SHA_1, MessageDigest::sha1),
    (CKM_SHA224, MessageDigest::sha224),
    (CKM_SHA256, MessageDigest::sha256),
    (CKM_SHA384, MessageDigest::sha384),
    (CKM_SHA512, MessageDigest::sha512),
    (CKM_SHA3_224, MessageDigest::sha3_224),
    (CKM_SHA3_256, MessageDigest::sha3_256),
    (CKM_SHA3_384, MessageDigest::sha3_384),
    (CKM_SHA3_512, MessageDigest::sha3_512),
];

fn begin(client: &Client, session: CK_SESSION_HANDLE, kind: CK_MECHANISM_TYPE) {
    call!(client.raw, C_DigestInit(session, &mut mechanism(kind))).unwrap();
}

fn update(client: &Client, session: CK_SESSION_HANDLE, data: &[u8]) {
    call!(client.raw, C_DigestUpdate(session, data.as_ptr().cast_mut(), data.len() as CK_ULONG)).unwrap();
}

fn finish(client: &Client, session: CK_SESSION_HANDLE) -> Vec<u8> {
    let (mut digest, mut length) = (vec![0; 64], 64);
    call!(client.raw, C_DigestFinal(session, digest.as_mut_ptr(), &mut length)).unwrap();
    digest.truncate(length as usize);
    digest
}

fn cancel(client: &Client, session: CK_SESSION_HANDLE) {
    // A refused part may have ended it.
    let _ = call!(client.raw, C_SessionCancel(session, CKF_DIGEST));
}

fn state(client: &Client, session: CK_SESSION_HANDLE) -> Answer<Vec<u8>> {
    let mut length = 0;
    call!(client.raw, C_GetOperationState(session, null_mut(), &mut length)).map_err(named)?;
    let mut state = vec![0; length as usize];
    call!(client.raw, C_GetOperationState(session, state.as_mut_ptr(), &mut length)).map_err(named)?;
    state.truncate(length as usize);
    Ok(state)
}

fn set_state(client: &Client, session: CK_SESSION_HANDLE, state: &[u8]) -> Answer<()> {
    let length = state.len() as CK_ULONG;
    call!(client.raw, C_SetOperationState(session, state.as_ptr().cast_mut(), length, 0, 0)).map_err(named)
}

#[test]
fn every_digest_is_that_of_openssl_at_once_and_in_parts() {
    let client = Client::new(client::PIN);
    let session = client.session.handle();
    let data: Vec<u8> = (0..1000).map(|number| (number % 255) as u8).collect();
    for (kind, digest) in KINDS {
        assert_eq!(client.mechanism_info(kind).unwrap().flags, CKF_DIGEST, "{kind:#x}");
        for data in [&data[..0], &data[..1], &data] {
            let expected = hash(digest(), data).unwrap().to_vec();
            assert_eq!(client.digest(kind, data), Ok(expected.clone()), "{kind:#x}");
            begin(&client, session, kind);
            data.chunks(77).for_each(|part| update(&client, session, part));
            assert_eq!(finish(&client, session), expected, "{kind:#x}");
        }
    }
}

#[test]
fn a_secret_in_memory_is_a_part_of_a_digest_and_one_in_the_tpm_is_not() {
    let client = Client::new(client::PIN);
    let session = client.session.handle();
    let digest_key = |key: ObjectHandle| call!(client.raw, C_DigestKey(session, key.handle())).map_err(named);
    let value = [0x42; 32];
    let key = client.session.create_object(&secret(KeyType::GENERIC_SECRET, &value)).unwrap();
    begin(&client, session, CKM_SHA256);
    update(&client, session, b"before");
    digest_key(key).unwrap();
    update(&client, session, b"after");
    let expected = hash(MessageDigest::sha256(), &[&b"before"[..], &value, b"after"].concat()).unwrap();
    assert_eq!(finish(&client, session), *expected);

    let stored = [&secret(KeyType::GENERIC_SECRET, &value)[..], &[Attribute::Token(true)]].concat();
    let stored = client.session.create_object(&stored).unwrap();
    begin(&client, session, CKM_SHA256);
    assert_eq!(digest_key(stored), Err(RvError::KeyIndigestible));
    cancel(&client, session);
    let (public, _) = client.ec(raw::P256, &[]);
    begin(&client, session, CKM_SHA256);
    assert!(matches!(digest_key(public), Err(RvError::KeyHandleInvalid | RvError::KeyIndigestible)));
    cancel(&client, session);
    assert_eq!(digest_key(key), Err(RvError::OperationNotInitialized));
}

#[test]
fn a_running_digest_is_taken_to_another_session_and_resumed_there() {
    let client = Client::new(client::PIN);
    let session = client.session.handle();
    let other = client.raw.open_read_only(client.slot().id());
    for (kind, digest) in KINDS {
        let expected = hash(digest(), b"one two three").unwrap().to_vec();
        begin(&client, session, kind);
        update(&client, session, b"one ");
        let saved = state(&client, session).unwrap();
        update(&client, session, b"two three");
        assert_eq!(finish(&client, session), expected, "{kind:#x}: to ask leaves it as it is");
        for session in [other, session] {
            set_state(&client, session, &saved).unwrap();
            update(&client, session, b"two ");
            // A state replaces what runs.
            set_state(&client, session, &saved).unwrap();
            update(&client, session, b"two three");
            assert_eq!(finish(&client, session), expected, "{kind:#x}");
        }
        for wrong in [&saved[1..], &saved[..saved.len() - 1], b"", &[0xff; 40]] {
            assert_eq!(set_state(&client, session, wrong), Err(RvError::SavedStateInvalid), "{kind:#x}");
        }
    }
    assert_eq!(state(&client, session), Err(RvError::OperationNotInitialized));
    begin(&client, session, CKM_SHA256);
    let (mut small, mut length) = ([0; 3], 3);
    let refused = call!(client.raw, C_GetOperationState(session, small.as_mut_ptr(), &mut length));
    assert_eq!(refused, Err(CKR_BUFFER_TOO_SMALL));
    assert!(length > 3);
}

#[test]
fn the_state_of_a_signature_stays_where_it_is() {
    let client = Client::new(client::PIN);
    let (_, private) = client.ec(raw::P256, &[]);
    let session = client.session.handle();
    client.raw.sign_init(session, CKM_ECDSA_SHA256, private.handle()).unwrap();
    assert_eq!(state(&client, session), Err(RvError::StateUnsaveable));
}
