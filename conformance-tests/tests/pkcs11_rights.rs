//! Which session may do what, by the table of functions: read-only sessions, sessions without a login, and those of the
//! security officer (PKCS#11 3.2, chapters 5.6 and 5.7).

mod raw;
mod walk;

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
