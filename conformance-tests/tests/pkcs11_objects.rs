//! Objects: what can be made, found, read, changed and destroyed, and with which attributes.

mod raw;

use std::ptr::null_mut;

use conformance_tests::{Device, SO_PIN, Token};
use cryptoki_sys::*;
use openssl::hash::{MessageDigest, hash};
use raw::{Given, PIN, Raw, call, flag, number};

const P384: &[u8] = &[6, 5, 0x2b, 0x81, 4, 0, 0x22];

/// A device with a token, and a session with it, logged in.
fn open() -> (Device, Raw, CK_SESSION_HANDLE) {
    let device = Device::new();
    let _ = Token::new(&device, "dev", "1234");
    let raw = Raw::initialised(&device);
    let session = raw.open(0);
    raw.login(session, CKU_USER, PIN).unwrap();
    (device, raw, session)
}

fn data(label: &[u8]) -> Vec<Given> {
    vec![(CKA_CLASS, number(CKO_DATA)), (CKA_LABEL, label.into()), (CKA_VALUE, b"value".into())]
}

fn rsa(raw: &Raw, session: CK_SESSION_HANDLE, bits: CK_ULONG, more: &[Given]) -> raw::Rv<(CK_ULONG, CK_ULONG)> {
    let public = [&[(CKA_MODULUS_BITS, number(bits))], more].concat();
    raw.generate(session, CKM_RSA_PKCS_KEY_PAIR_GEN, &public, &[])
}

/// A self-signed certificate, and what OpenSSL says its fields are.
fn certificate() -> openssl::x509::X509 {
    use openssl::{asn1::Asn1Time, ec::EcGroup, ec::EcKey, nid::Nid, pkey::PKey, x509::X509, x509::X509Name};
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    let mut name = X509Name::builder().unwrap();
    name.append_entry_by_text("CN", "device").unwrap();
    let name = name.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let serial = openssl::bn::BigNum::from_u32(0x1234_5678).unwrap().to_asn1_integer().unwrap();
    builder.set_serial_number(&serial).unwrap();
    builder.set_subject_name(&name).unwrap();
    builder.set_issuer_name(&name).unwrap();
    builder.set_pubkey(&key).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(30).unwrap()).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    builder.build()
}

#[test]
fn a_generated_key_tells_the_truth_about_itself() {
    let (_device, raw, session) = open();
    let (public, private) = raw.generate_ec(session, true);
    let read = |object, kind| raw.get(session, object, kind).unwrap();
    for (kind, value) in [
        (CKA_CLASS, number(CKO_PRIVATE_KEY)),
        (CKA_KEY_TYPE, number(CKK_EC)),
        (CKA_TOKEN, flag(true)),
        (CKA_PRIVATE, flag(true)),
        (CKA_SENSITIVE, flag(true)),
        (CKA_ALWAYS_SENSITIVE, flag(true)),
        (CKA_EXTRACTABLE, flag(false)),
        (CKA_NEVER_EXTRACTABLE, flag(true)),
        (CKA_LOCAL, flag(true)),
        (CKA_KEY_GEN_MECHANISM, number(CKM_EC_KEY_PAIR_GEN)),
        (CKA_SIGN, flag(true)),
        (CKA_DECRYPT, flag(false)),
        (CKA_DERIVE, flag(false)),
        (CKA_ALWAYS_AUTHENTICATE, flag(false)),
        (CKA_WRAP_WITH_TRUSTED, flag(false)),
        (CKA_ALLOWED_MECHANISMS, vec![]),
        (CKA_EC_PARAMS, raw::P256.to_vec()),
        (CKA_LABEL, vec![]),
        (CKA_START_DATE, vec![]),
    ] {
        assert_eq!(read(private, kind), value, "{kind:#x}");
    }
    let point = read(public, CKA_EC_POINT);
    assert_eq!((&point[..3], point.len()), (&[4, 65, 4][..], 67), "an OCTET STRING around 04 || x || y");
    let info = read(public, CKA_PUBLIC_KEY_INFO);
    assert_eq!(info, read(private, CKA_PUBLIC_KEY_INFO));
    let key = openssl::pkey::PKey::public_key_from_der(&info).unwrap();
    assert_eq!(key.bits(), 256);
    // NSS looks for the SHA-1 of the point.
    let id = hash(MessageDigest::sha1(), &point[2..]).unwrap().to_vec();
    assert_eq!((read(private, CKA_ID), read(public, CKA_ID)), (id.clone(), id));
    assert_ne!(read(private, CKA_UNIQUE_ID), read(public, CKA_UNIQUE_ID));
}

#[test]
fn an_rsa_key_has_the_numbers_that_were_asked_for() {
    let (_device, raw, session) = open();
    for bits in [2048, 3072] {
        let (public, private) = rsa(&raw, session, bits, &[(CKA_PUBLIC_EXPONENT, vec![1, 0, 1])]).unwrap();
        let modulus = raw.get(session, public, CKA_MODULUS).unwrap();
        assert_eq!(modulus.len() * 8, bits as usize);
        assert_eq!(raw.get(session, private, CKA_MODULUS).unwrap(), modulus);
        assert_eq!(raw.get(session, public, CKA_MODULUS_BITS).unwrap(), number(bits));
        assert_eq!(raw.get(session, private, CKA_PUBLIC_EXPONENT).unwrap(), [1, 0, 1]);
        for secret in [CKA_PRIVATE_EXPONENT, CKA_PRIME_1, CKA_PRIME_2, CKA_EXPONENT_1, CKA_EXPONENT_2, CKA_COEFFICIENT]
        {
            assert_eq!(raw.get(session, private, secret), Err(CKR_ATTRIBUTE_SENSITIVE));
        }
    }
}

#[test]
fn a_key_that_this_tpm_cannot_make_is_refused_by_its_reason() {
    let (_device, raw, session) = open();
    let ec =
        |public: &[Given], private: &[Given]| raw.generate(session, CKM_EC_KEY_PAIR_GEN, public, private).map(|_| ());
    let p256 = || (CKA_EC_PARAMS, raw::P256.to_vec());
    assert_eq!(rsa(&raw, session, 1000, &[]).map(|_| ()), Err(CKR_ATTRIBUTE_VALUE_INVALID));
    assert_eq!(rsa(&raw, session, 2048, &[(CKA_PUBLIC_EXPONENT, vec![3])]).map(|_| ()), Err(CKR_TEMPLATE_INCONSISTENT));
    assert_eq!(raw.generate(session, CKM_RSA_PKCS_KEY_PAIR_GEN, &[], &[]).map(|_| ()), Err(CKR_TEMPLATE_INCOMPLETE));
    assert_eq!(raw.generate(session, CKM_RSA_X_509, &[], &[]).map(|_| ()), Err(CKR_MECHANISM_INVALID));
    assert_eq!(ec(&[], &[]), Err(CKR_TEMPLATE_INCOMPLETE));
    assert_eq!(ec(&[(CKA_EC_PARAMS, vec![6, 3, 1, 2, 3])], &[]), Err(CKR_CURVE_NOT_SUPPORTED));
    assert_eq!(ec(&[p256(), (CKA_KEY_TYPE, number(CKK_RSA))], &[]), Err(CKR_TEMPLATE_INCONSISTENT));
    assert_eq!(ec(&[p256(), (CKA_CLASS, number(CKO_DATA))], &[]), Err(CKR_TEMPLATE_INCONSISTENT));
    assert_eq!(ec(&[p256()], &[(CKA_EXTRACTABLE, flag(true))]), Err(CKR_TEMPLATE_INCONSISTENT));
    assert_eq!(ec(&[p256()], &[(CKA_SENSITIVE, flag(false))]), Err(CKR_TEMPLATE_INCONSISTENT));
    assert_eq!(ec(&[p256()], &[(CKA_LOCAL, flag(true))]), Err(CKR_ATTRIBUTE_READ_ONLY));
    assert_eq!(ec(&[p256()], &[(CKA_DECRYPT, flag(true))]), Err(CKR_TEMPLATE_INCONSISTENT));
    assert_eq!(ec(&[p256()], &[(CKA_SIGN, flag(false))]), Err(CKR_TEMPLATE_INCONSISTENT));
    assert_eq!(ec(&[p256(), (CKA_EC_POINT, vec![4])], &[]), Err(CKR_ATTRIBUTE_READ_ONLY));
    assert_eq!(raw.find(session, &[]), [], "nothing was left behind");
    assert_eq!(ec(&[p256()], &[(CKA_EXTRACTABLE, flag(false)), (CKA_SENSITIVE, flag(true))]), Ok(()));
}

#[test]
fn a_certificate_gives_its_fields_as_they_are_in_it() {
    let (_device, raw, session) = open();
    let certificate = certificate();
    let der = certificate.to_der().unwrap();
    let subject = certificate.subject_name().to_der().unwrap();
    let template = [
        (CKA_CLASS, number(CKO_CERTIFICATE)),
        (CKA_CERTIFICATE_TYPE, number(CKC_X_509)),
        (CKA_TOKEN, flag(true)),
        (CKA_SUBJECT, subject.clone()),
        (CKA_ID, vec![1]),
        (CKA_VALUE, der.clone()),
    ];
    let object = raw.create(session, &template).unwrap();
    for (kind, value) in [
        (CKA_VALUE, der.clone()),
        (CKA_SUBJECT, subject.clone()),
        (CKA_ISSUER, subject.clone()),
        (CKA_SERIAL_NUMBER, vec![2, 4, 0x12, 0x34, 0x56, 0x78]),
        (CKA_CHECK_VALUE, hash(MessageDigest::sha1(), &der).unwrap()[..3].to_vec()),
        (CKA_PUBLIC_KEY_INFO, certificate.public_key().unwrap().public_key_to_der().unwrap()),
        (CKA_CERTIFICATE_CATEGORY, number(CK_CERTIFICATE_CATEGORY_UNSPECIFIED)),
        (CKA_TRUSTED, flag(false)),
        (CKA_PRIVATE, flag(false)),
        (CKA_URL, vec![]),
        (CKA_NAME_HASH_ALGORITHM, number(CKM_SHA_1)),
    ] {
        assert_eq!(raw.get(session, object, kind).unwrap(), value, "{kind:#x}");
    }
    assert_eq!(
        raw.find(session, &[(CKA_ISSUER, subject), (CKA_SERIAL_NUMBER, vec![2, 4, 0x12, 0x34, 0x56, 0x78])]),
        [object]
    );
    let with = |index: usize, value: Vec<u8>| {
        let mut template = template.clone();
        template[index].1 = value;
        raw.create(session, &template)
    };
    assert_eq!(with(5, der[..der.len() - 1].to_vec()), Err(CKR_ATTRIBUTE_VALUE_INVALID));
    assert_eq!(with(1, number(CKC_WTLS)), Err(CKR_TEMPLATE_INCONSISTENT));
    assert_eq!(raw.create(session, &template[..5]), Err(CKR_TEMPLATE_INCOMPLETE));
    let trusted = [&template[..], &[(CKA_TRUSTED, flag(true))]].concat();
    assert_eq!(raw.create(session, &trusted), Err(CKR_ATTRIBUTE_READ_ONLY), "that is for the security officer");
    call!(raw, C_Logout(session)).unwrap();
    raw.login(session, CKU_SO, SO_PIN.as_bytes()).unwrap();
    let object = raw.create(session, &trusted).unwrap();
    assert_eq!(raw.get(session, object, CKA_TRUSTED).unwrap(), flag(true));
}

#[test]
fn a_public_key_of_another_device_verifies_and_is_not_local() {
    let (_device, raw, session) = open();
    let key = openssl::rsa::Rsa::generate(2048).unwrap();
    let template = [
        (CKA_CLASS, number(CKO_PUBLIC_KEY)),
        (CKA_KEY_TYPE, number(CKK_RSA)),
        (CKA_MODULUS, key.n().to_vec()),
        (CKA_PUBLIC_EXPONENT, key.e().to_vec()),
    ];
    let object = raw.create(session, &template).unwrap();
    assert_eq!(raw.get(session, object, CKA_LOCAL).unwrap(), flag(false));
    assert_eq!(raw.get(session, object, CKA_KEY_GEN_MECHANISM).unwrap(), number(CK_UNAVAILABLE_INFORMATION));
    let pkey = openssl::pkey::PKey::from_rsa(key).unwrap();
    for (kind, digest) in [(CKM_SHA1_RSA_PKCS, MessageDigest::sha1()), (CKM_SHA512_RSA_PKCS, MessageDigest::sha512())] {
        let mut signer = openssl::sign::Signer::new(digest, &pkey).unwrap();
        let mut signature = signer.sign_oneshot_to_vec(b"message").unwrap();
        assert_eq!(raw.verify(session, kind, object, b"message", &signature), Ok(()));
        assert_eq!(raw.verify(session, kind, object, b"another", &signature), Err(CKR_SIGNATURE_INVALID));
        signature.pop();
        assert_eq!(raw.verify(session, kind, object, b"message", &signature), Err(CKR_SIGNATURE_LEN_RANGE));
    }
    let point = [(CKA_CLASS, number(CKO_PUBLIC_KEY)), (CKA_KEY_TYPE, number(CKK_EC)), (CKA_EC_PARAMS, P384.to_vec())];
    let bad = [&point[..], &[(CKA_EC_POINT, [&[4, 97, 4][..], &[1; 96]].concat())]].concat();
    assert_eq!(raw.create(session, &bad), Err(CKR_ATTRIBUTE_VALUE_INVALID), "not on the curve");
}

#[test]
fn a_key_without_its_type_and_a_class_unheard_of_are_not_taken_in() {
    let (_device, raw, session) = open();
    for class in [CKO_PRIVATE_KEY, CKO_SECRET_KEY] {
        assert_eq!(raw.create(session, &[(CKA_CLASS, number(class))]), Err(CKR_TEMPLATE_INCOMPLETE));
    }
    assert_eq!(raw.create(session, &[(CKA_CLASS, number(CKO_PROFILE))]), Err(CKR_TEMPLATE_INCONSISTENT));
    assert_eq!(raw.create(session, &[(CKA_CLASS, number(0x7777))]), Err(CKR_ATTRIBUTE_VALUE_INVALID));
}

#[test]
fn a_search_matches_every_attribute_byte_for_byte() {
    let (_device, raw, session) = open();
    let one = raw.create(session, &[&data(b"one")[..], &[(CKA_TOKEN, flag(true))]].concat()).unwrap();
    let two = raw.create(session, &data(b"two")).unwrap();
    let secret =
        raw.create(session, &[&data(b"secret")[..], &[(CKA_TOKEN, flag(true)), (CKA_PRIVATE, flag(true))]].concat());
    let secret = secret.unwrap();
    let find = |template: &[Given]| {
        let mut found = raw.find(session, template);
        found.sort_unstable();
        found
    };
    let mut all = [one, two, secret];
    all.sort_unstable();
    assert_eq!(find(&[]), all);
    assert_eq!(find(&[(CKA_TOKEN, flag(false))]), [two]);
    assert_eq!(find(&[(CKA_LABEL, b"one".into())]), [one]);
    assert_eq!(find(&[(CKA_LABEL, b"on".into())]), []);
    assert_eq!(find(&[(CKA_VALUE, b"value".into())]), all);
    assert_eq!(find(&[(CKA_VALUE, b"value".into()), (CKA_PRIVATE, flag(true))]), [secret]);
    assert_eq!(find(&[(CKA_CLASS, number(CKO_CERTIFICATE))]), []);
    assert_eq!(find(&[(CKA_CLASS, number(CKO_SECRET_KEY))]), []);
    assert_eq!(find(&[(CKA_MODULUS, vec![1])]), []);
    let unique = raw.get(session, one, CKA_UNIQUE_ID).unwrap();
    assert_eq!(find(&[(CKA_UNIQUE_ID, unique)]), [one]);
}

#[test]
fn only_one_search_runs_in_a_session_at_a_time() {
    let (_device, raw, session) = open();
    for label in [b"1", b"2", b"3"] {
        raw.create(session, &data(label)).unwrap();
    }
    let (mut found, mut count) = ([0; 2], 0);
    assert_eq!(
        call!(raw, C_FindObjects(session, found.as_mut_ptr(), 2, &mut count)),
        Err(CKR_OPERATION_NOT_INITIALIZED)
    );
    assert_eq!(call!(raw, C_FindObjectsFinal(session)), Err(CKR_OPERATION_NOT_INITIALIZED));
    call!(raw, C_FindObjectsInit(session, null_mut(), 0)).unwrap();
    assert_eq!(call!(raw, C_FindObjectsInit(session, null_mut(), 0)), Err(CKR_OPERATION_ACTIVE));
    for expected in [2, 1, 0] {
        call!(raw, C_FindObjects(session, found.as_mut_ptr(), 2, &mut count)).unwrap();
        assert_eq!(count, expected);
    }
    call!(raw, C_SessionCancel(session, CKF_FIND_OBJECTS)).unwrap();
    call!(raw, C_FindObjectsInit(session, null_mut(), 0)).unwrap();
}

#[test]
fn session_objects_are_seen_by_every_session_and_go_with_the_one_that_made_them() {
    let (_device, raw, session) = open();
    let other = raw.open_read_only(0);
    let object = raw.create(other, &data(b"of the other")).unwrap();
    let (_, key) = raw.generate_ec(other, false);
    assert_eq!(raw.get(session, object, CKA_LABEL).unwrap(), b"of the other");
    raw.sign_init(session, CKM_ECDSA_SHA256, key).unwrap();
    assert_eq!(raw.sign(session, b"message").unwrap().len(), 64);
    call!(raw, C_CloseSession(other)).unwrap();
    assert_eq!(raw.get(session, object, CKA_LABEL), Err(CKR_OBJECT_HANDLE_INVALID));
    assert_eq!(raw.sign_init(session, CKM_ECDSA_SHA256, key), Err(CKR_KEY_HANDLE_INVALID));
    assert_eq!(raw.find(session, &[]), []);
}

#[test]
fn a_read_only_session_leaves_the_token_as_it_is() {
    let (_device, raw, session) = open();
    let object = raw.create(session, &[&data(b"kept")[..], &[(CKA_TOKEN, flag(true))]].concat()).unwrap();
    let reads = raw.open_read_only(0);
    let refused = Err(CKR_SESSION_READ_ONLY);
    assert_eq!(raw.create(reads, &[&data(b"x")[..], &[(CKA_TOKEN, flag(true))]].concat()).map(|_| ()), refused);
    assert_eq!(raw.set(reads, object, &[(CKA_LABEL, b"x".into())]), refused);
    assert_eq!(call!(raw, C_DestroyObject(reads, object)), refused);
    let p256 = [(CKA_TOKEN, flag(true)), (CKA_EC_PARAMS, raw::P256.to_vec())];
    assert_eq!(raw.generate(reads, CKM_EC_KEY_PAIR_GEN, &p256, &[]).map(|_| ()), refused);
    assert_eq!(raw.get(reads, object, CKA_LABEL).unwrap(), b"kept");
}

#[test]
fn attributes_change_all_together_or_not_at_all() {
    let (_device, raw, session) = open();
    for token in [true, false] {
        let (public, private) = raw.generate_ec(session, token);
        let set = |object, template: &[Given]| raw.set(session, object, template);
        set(private, &[(CKA_LABEL, b"new".into()), (CKA_ID, vec![7]), (CKA_START_DATE, b"20260101".into())]).unwrap();
        assert_eq!(raw.get(session, private, CKA_LABEL).unwrap(), b"new");
        assert_eq!(raw.get(session, private, CKA_START_DATE).unwrap(), b"20260101");
        assert_eq!(raw.get(session, public, CKA_LABEL).unwrap(), b"", "the other half has its own");
        let half = [(CKA_LABEL, b"other".to_vec()), (CKA_LOCAL, flag(false))];
        assert_eq!(set(private, &half), Err(CKR_ATTRIBUTE_READ_ONLY));
        assert_eq!(set(private, &[(CKA_SENSITIVE, flag(false))]), Err(CKR_ATTRIBUTE_READ_ONLY));
        assert_eq!(set(private, &[(CKA_DERIVE, flag(true))]), Err(CKR_TEMPLATE_INCONSISTENT), "the TPM's key cannot");
        assert_eq!(set(private, &[(CKA_TOKEN, flag(!token))]), Err(CKR_ATTRIBUTE_READ_ONLY));
        assert_eq!(raw.get(session, private, CKA_LABEL).unwrap(), b"new");
        set(private, &[(CKA_SIGN, flag(false))]).unwrap();
        assert_eq!(raw.sign_init(session, CKM_ECDSA, private), Err(CKR_KEY_FUNCTION_NOT_PERMITTED));
        set(private, &[(CKA_SIGN, flag(true))]).unwrap();
        raw.sign_init(session, CKM_ECDSA, private).unwrap();
        call!(raw, C_SignInit(session, null_mut(), 0)).unwrap();
    }
}

#[test]
fn an_object_may_forbid_changes_and_its_end() {
    let (_device, raw, session) = open();
    let fixed = [(CKA_MODIFIABLE, flag(false)), (CKA_DESTROYABLE, flag(false)), (CKA_TOKEN, flag(true))];
    let object = raw.create(session, &[&data(b"fixed")[..], &fixed].concat()).unwrap();
    assert_eq!(raw.set(session, object, &[(CKA_LABEL, b"x".into())]), Err(CKR_ACTION_PROHIBITED));
    assert_eq!(call!(raw, C_DestroyObject(session, object)), Err(CKR_ACTION_PROHIBITED));
}

#[test]
fn each_half_of_a_pair_is_destroyed_for_itself() {
    let (_device, raw, session) = open();
    for token in [true, false] {
        let (public, private) = raw.generate_ec(session, token);
        call!(raw, C_DestroyObject(session, public)).unwrap();
        assert_eq!(raw.get(session, public, CKA_ID), Err(CKR_OBJECT_HANDLE_INVALID));
        raw.sign_init(session, CKM_ECDSA, private).unwrap();
        assert_eq!(raw.sign(session, &[1; 32]).unwrap().len(), 64);
        let (public, private) = raw.generate_ec(session, token);
        call!(raw, C_DestroyObject(session, private)).unwrap();
        assert_eq!(raw.sign_init(session, CKM_ECDSA, private), Err(CKR_KEY_HANDLE_INVALID));
        assert_eq!(raw.get(session, public, CKA_KEY_TYPE).unwrap(), number(CKK_EC));
        assert_eq!(call!(raw, C_DestroyObject(session, private)), Err(CKR_OBJECT_HANDLE_INVALID));
    }
}

#[test]
fn one_half_may_be_the_tokens_and_the_other_the_sessions() {
    let (_device, raw, session) = open();
    for token_private in [true, false] {
        let public = [(CKA_TOKEN, flag(!token_private)), (CKA_EC_PARAMS, raw::P256.to_vec())];
        let private = [(CKA_TOKEN, flag(token_private))];
        let (public, private) = raw.generate(session, CKM_EC_KEY_PAIR_GEN, &public, &private).unwrap();
        assert_eq!(raw.get(session, private, CKA_TOKEN).unwrap(), flag(token_private));
        assert_eq!(raw.get(session, public, CKA_TOKEN).unwrap(), flag(!token_private));
        raw.sign_init(session, CKM_ECDSA, private).unwrap();
        let signature = raw.sign(session, &[1; 32]).unwrap();
        raw.verify(session, CKM_ECDSA, public, &[1; 32], &signature).unwrap();
    }
    let stored = raw.find(session, &[(CKA_TOKEN, flag(true))]);
    assert_eq!(stored.len(), 2);
}

/// libp11 gives all of these to each key pair that it generates, whatever its type (0.4.14 and later, p11_key.c).
#[test]
fn an_ec_pair_that_is_to_wrap_is_made_and_says_that_it_does_not() {
    let (_device, raw, session) = open();
    let wrap = |stored: bool| [(CKA_TOKEN, flag(stored)), (CKA_VERIFY, flag(true)), (CKA_WRAP, flag(true))];
    let unwrap = |stored: bool| {
        let access = [(CKA_PRIVATE, flag(true)), (CKA_SENSITIVE, flag(true)), (CKA_EXTRACTABLE, flag(false))];
        let usage = [(CKA_SIGN, flag(true)), (CKA_UNWRAP, flag(true)), (CKA_DERIVE, flag(true))];
        [&access[..], &usage, &[(CKA_TOKEN, flag(stored))]].concat()
    };
    let p256 = (CKA_EC_PARAMS, raw::P256.to_vec());
    for stored in [true, false] {
        let public = [&wrap(stored)[..], std::slice::from_ref(&p256)].concat();
        let (public, private) = raw.generate(session, CKM_EC_KEY_PAIR_GEN, &public, &unwrap(stored)).unwrap();
        assert_eq!(raw.get(session, public, CKA_WRAP), Ok(flag(false)));
        assert_eq!(raw.get(session, private, CKA_UNWRAP), Ok(flag(false)));
        assert_eq!(raw.get(session, private, CKA_DERIVE), Ok(flag(true)));
        raw.sign_init(session, CKM_ECDSA, private).unwrap();
        let signature = raw.sign(session, &[1; 32]).unwrap();
        raw.verify(session, CKM_ECDSA, public, &[1; 32], &signature).unwrap();
        // A key that is there is not changed into what it cannot be, and what only unwraps cannot be made.
        assert_eq!(raw.set(session, public, &[(CKA_WRAP, flag(true))]), Err(CKR_TEMPLATE_INCONSISTENT));
        assert_eq!(raw.set(session, private, &[(CKA_UNWRAP, flag(true))]), Err(CKR_TEMPLATE_INCONSISTENT));
    }
    let nothing_else = [(CKA_SIGN, flag(false)), (CKA_UNWRAP, flag(true))];
    let refused = raw.generate(session, CKM_EC_KEY_PAIR_GEN, &[p256], &nothing_else);
    assert_eq!(refused, Err(CKR_TEMPLATE_INCONSISTENT));
}

#[test]
fn what_cannot_be_is_refused_before_the_tpm_is_asked() {
    let (device, raw, session) = open();
    let public = [(CKA_EC_PARAMS, raw::P256.to_vec())];
    let cost = device.cost_of(|| {
        for wrong in [(CKA_EXTRACTABLE, flag(true)), (CKA_SENSITIVE, flag(false)), (CKA_DECRYPT, flag(true))] {
            let refused = raw.generate(session, CKM_EC_KEY_PAIR_GEN, &public, std::slice::from_ref(&wrong));
            assert_eq!(refused, Err(CKR_TEMPLATE_INCONSISTENT), "{wrong:?}");
        }
    });
    assert_eq!(cost, [""; 0]);
}

#[test]
fn an_object_that_is_not_what_it_says_spoils_no_search_and_no_other_attribute() {
    let (device, raw, session) = open();
    let der = certificate().to_der().unwrap();
    let subject = [0x30, 0];
    for label in [b"cert", b"some"] {
        let template = [
            (CKA_CLASS, number(CKO_CERTIFICATE)),
            (CKA_CERTIFICATE_TYPE, number(CKC_X_509)),
            (CKA_TOKEN, flag(true)),
            (CKA_VALUE, der.clone()),
            (CKA_SUBJECT, subject.to_vec()),
            (CKA_LABEL, label.to_vec()),
        ];
        raw.create(session, &template).unwrap();
    }
    // One of the two becomes something else.
    let script = "f=$(grep -l CERTIFICATE store/*/*.pem | head -n 1)
        sed -i '/BEGIN CERTIFICATE/,/END CERTIFICATE/c -----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----' \"$f\"";
    let _ = device.run(&["sh", "-euc", script]).ok();
    let class = (CKA_CLASS, number(CKO_CERTIFICATE));
    let all = raw.find(session, std::slice::from_ref(&class));
    let (whole, bad): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|object| raw.get(session, *object, CKA_SERIAL_NUMBER).is_ok());
    assert_eq!((whole.len(), bad.len()), (1, 1));
    let serial = raw.get(session, whole[0], CKA_SERIAL_NUMBER).unwrap();
    assert_eq!(raw.find(session, &[class, (CKA_SERIAL_NUMBER, serial)]), whole);
    let mut label = [0_u8; 8];
    let mut attributes = [
        CK_ATTRIBUTE { type_: CKA_SERIAL_NUMBER, pValue: null_mut(), ulValueLen: 0 },
        CK_ATTRIBUTE { type_: CKA_LABEL, pValue: label.as_mut_ptr().cast(), ulValueLen: label.len() as CK_ULONG },
    ];
    assert!(call!(raw, C_GetAttributeValue(session, bad[0], attributes.as_mut_ptr(), 2)).is_err());
    assert_eq!((attributes[0].ulValueLen, attributes[1].ulValueLen), (CK_UNAVAILABLE_INFORMATION, 4));
    assert!([b"cert", b"some"].contains(&label.first_chunk().unwrap()), "{label:?}");
}
