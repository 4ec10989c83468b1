//! Which session may do what, by the table of functions: read-only sessions, sessions without a login, and those of the
//! security officer (PKCS#11 3.2, chapters 5.6 and 5.7); and which key, by which mechanism.

mod raw;
mod walk;

use std::ptr::null_mut;

use conformance_tests::SO_PIN;
use cryptoki_sys::*;
use raw::{Given, PIN, Rv, call, flag};
use walk::{Argument, Call, Effect, Function, Login, Thing, World, function, open, working};

/// The functions that make an object, and the word of the template for it. (Of a pair it is the private key's.)
fn makers() -> impl Iterator<Item = (&'static Function, usize, walk::Template)> {
    let makes = |function: &'static Function| {
        let makes = function.effect == Effect::None && function.arguments.contains(&Argument::Value);
        let template = function.parts().filter_map(|(word, argument)| match argument {
            Argument::Template(template) => Some((word, template)),
            _ => None,
        });
        template.last().filter(|_| makes).map(|(word, template)| (function, word, template))
    };
    working().filter_map(makes)
}

/// A call of it in this session, for an object with these attributes besides.
fn making<'a>(
    world: &'a World,
    (function, word, template): (&'static Function, usize, walk::Template),
    session: CK_SESSION_HANDLE,
    more: &[Given],
) -> Call<'a> {
    let mut call = world.call(function, session);
    call.set_template(word, &[&world.template(template)[..], more].concat());
    call
}

#[test]
fn a_read_only_session_makes_and_changes_its_own_objects_only() {
    let (_device, world) = open();
    let session = world.raw.open_read_only(0);
    let mut count = 0;
    for maker in makers() {
        let name = maker.0.name;
        let of_token = making(&world, maker, session, &[(CKA_TOKEN, flag(true))]).run();
        assert_eq!(of_token, Err(CKR_SESSION_READ_ONLY), "{name}");
        assert_eq!(making(&world, maker, session, &[(CKA_TOKEN, flag(false))]).run(), Ok(()), "{name}");
        count += 1;
    }
    assert_eq!(count, 6, "C_CreateObject, C_CopyObject, C_GenerateKey, C_GenerateKeyPair, C_UnwrapKey, C_DeriveKey");
    for name in ["C_SetAttributeValue", "C_DestroyObject", "C_SetPIN"] {
        assert_eq!(world.call(function(name), session).run(), Err(CKR_SESSION_READ_ONLY), "{name}");
    }
    let own = world.raw.create(session, &world.template(walk::Template::Data)).unwrap();
    world.raw.set(session, own, &[(CKA_LABEL, b"x".to_vec())]).unwrap();
    call!(world.raw, C_DestroyObject(session, own)).unwrap();
    // Whatever makes nothing works as in any other session.
    for function in working().filter(|function| function.login == Login::User && function.session().is_some()) {
        let writes = ["C_SetAttributeValue", "C_DestroyObject", "C_SetPIN", "C_Logout", "C_CloseSession"];
        let makes = makers().any(|(maker, ..)| maker.name == function.name);
        if makes || writes.contains(&function.name) {
            continue;
        }
        let session = world.raw.open_read_only(0);
        world.do_before(function, session);
        let expected = if function.answer == CKR_OK { Ok(()) } else { Err(function.answer) };
        assert_eq!(world.call(function, session).run(), expected, "{}", function.name);
        call!(world.raw, C_CloseSession(session)).unwrap();
    }
}

#[test]
fn without_the_user_no_private_object_is_made_and_no_key_of_the_tpm_used() {
    let (_device, world) = open();
    // A key of whose public half anybody may make use.
    let (public, secret) = (world.object(Thing::RsaPublic), world.object(Thing::Rsa));
    for login in [Login::Nobody, Login::SecurityOfficer] {
        let session = world.raw.open(0);
        for name in ["C_CreateObject", "C_GenerateKey", "C_GenerateKeyPair"] {
            let maker = makers().find(|(function, ..)| function.name == name).unwrap();
            world.log_in(Login::User);
            let call = making(&world, maker, session, &[(CKA_PRIVATE, flag(true))]);
            world.log_in(login);
            assert_eq!(call.run(), Err(CKR_USER_NOT_LOGGED_IN), "{name}, {login:?}");
        }
        world.log_in(login);
        let begin = |name: &str, key: CK_OBJECT_HANDLE| -> Rv<()> {
            let mut call = Call::new(&world.raw, function(name));
            call.word(session as usize);
            call.mechanism(if name == "C_EncryptInit" { CKM_RSA_PKCS } else { CKM_SHA256_RSA_PKCS }, vec![]);
            call.word(key as usize);
            let done = call.run();
            call!(world.raw, C_SessionCancel(session, function(name).operations)).unwrap();
            done
        };
        assert_eq!(begin("C_SignInit", secret), Err(CKR_KEY_HANDLE_INVALID), "{login:?}: it is not seen");
        assert_eq!(begin("C_VerifyInit", public), Ok(()), "{login:?}");
        assert_eq!(begin("C_EncryptInit", public), Ok(()), "{login:?}");
        // Public objects are anybody's.
        let data = world.raw.create(session, &world.template(walk::Template::Data)).unwrap();
        world.raw.set(session, data, &[(CKA_LABEL, b"x".to_vec())]).unwrap();
        call!(world.raw, C_DestroyObject(session, data)).unwrap();
        for name in
            ["C_Digest", "C_DigestUpdate", "C_GenerateRandom", "C_SeedRandom", "C_FindObjects", "C_GetSessionInfo"]
        {
            world.do_before(function(name), session);
            assert_eq!(world.call(function(name), session).run(), Ok(()), "{name}, {login:?}");
            call!(world.raw, C_SessionCancel(session, CK_FLAGS::MAX)).unwrap();
        }
        call!(world.raw, C_CloseSession(session)).unwrap();
    }
    for login in [Login::Nobody, Login::User] {
        world.log_in(login);
        let init_pin = world.call(function("C_InitPIN"), world.main()).run();
        assert_eq!(init_pin, Err(CKR_USER_NOT_LOGGED_IN), "{login:?} sets no PIN for the user");
    }
}

#[test]
fn the_second_login_is_told_who_is_there() {
    let (_device, world) = open();
    for (present, same, other) in [
        (Login::User, (CKU_USER, PIN), (CKU_SO, SO_PIN.as_bytes())),
        (Login::SecurityOfficer, (CKU_SO, SO_PIN.as_bytes()), (CKU_USER, PIN)),
    ] {
        world.log_in(present);
        for name in ["C_Login", "C_LoginUser"] {
            for ((user, pin), code) in [(same, CKR_USER_ALREADY_LOGGED_IN), (other, CKR_USER_ANOTHER_ALREADY_LOGGED_IN)]
            {
                let mut call = world.call(function(name), world.main());
                call.words[1] = user as usize;
                (call.words[2], call.words[3]) = (call.keep(pin.to_vec()), pin.len());
                assert_eq!(call.run(), Err(code), "{name}, {present:?}");
            }
        }
    }
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
