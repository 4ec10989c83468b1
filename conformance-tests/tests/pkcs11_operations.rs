//! Signatures, verifications and digests: against OpenSSL, in parts and at once, by several threads.

mod raw;

use std::ptr::null_mut;

use conformance_tests::{Device, Token};
use cryptoki_sys::*;
use openssl::hash::{MessageDigest, hash};
use openssl::pkey::{PKey, Public};
use openssl::sign::{RsaPssSaltlen, Verifier};
use raw::{PIN, Raw, call, flag, mechanism, number};

const MESSAGE: &[u8] = b"what is signed";

fn open(pin: &str) -> (Device, Raw, CK_SESSION_HANDLE) {
    let device = Device::new();
    let _ = Token::new(&device, "dev", pin);
    let raw = Raw::initialised(&device);
    let session = raw.open(0);
    raw.login(session, CKU_USER, pin.as_bytes()).unwrap();
    (device, raw, session)
}

fn rsa(raw: &Raw, session: CK_SESSION_HANDLE) -> (CK_OBJECT_HANDLE, CK_OBJECT_HANDLE) {
    raw.generate(session, CKM_RSA_PKCS_KEY_PAIR_GEN, &[(CKA_MODULUS_BITS, number(2048))], &[]).unwrap()
}

fn openssl_key(raw: &Raw, session: CK_SESSION_HANDLE, key: CK_OBJECT_HANDLE) -> PKey<Public> {
    PKey::public_key_from_der(&raw.get(session, key, CKA_PUBLIC_KEY_INFO).unwrap()).unwrap()
}

fn sign_in_parts(raw: &Raw, session: CK_SESSION_HANDLE, parts: &[&[u8]]) -> raw::Rv<Vec<u8>> {
    for part in parts {
        call!(raw, C_SignUpdate(session, part.as_ptr().cast_mut(), part.len() as CK_ULONG))?;
    }
    let (mut signature, mut length) = (vec![0; 512], 512);
    call!(raw, C_SignFinal(session, signature.as_mut_ptr(), &mut length))?;
    signature.truncate(length as usize);
    Ok(signature)
}

fn pss(kind: CK_MECHANISM_TYPE, parameters: &mut CK_RSA_PKCS_PSS_PARAMS) -> CK_MECHANISM {
    let length = size_of::<CK_RSA_PKCS_PSS_PARAMS>() as CK_ULONG;
    CK_MECHANISM { mechanism: kind, pParameter: std::ptr::from_mut(parameters).cast(), ulParameterLen: length }
}

#[test]
fn messages_are_hashed_and_signed_at_once_and_in_parts() {
    let (_device, raw, session) = open("1234");
    let rsa = rsa(&raw, session);
    let ec = raw.generate_ec(session, false);
    for (kind, (public, private), digest) in [
        (CKM_SHA256_RSA_PKCS, rsa, MessageDigest::sha256()),
        (CKM_SHA384_RSA_PKCS, rsa, MessageDigest::sha384()),
        (CKM_SHA512_RSA_PKCS, rsa, MessageDigest::sha512()),
        (CKM_ECDSA_SHA256, ec, MessageDigest::sha256()),
        (CKM_ECDSA_SHA384, ec, MessageDigest::sha384()),
        (CKM_ECDSA_SHA512, ec, MessageDigest::sha512()),
    ] {
        let key = openssl_key(&raw, session, public);
        raw.sign_init(session, kind, private).unwrap();
        let at_once = raw.sign(session, MESSAGE).unwrap();
        raw.sign_init(session, kind, private).unwrap();
        let in_parts = sign_in_parts(&raw, session, &[&MESSAGE[..5], b"", &MESSAGE[5..]]).unwrap();
        for signature in [at_once, in_parts] {
            raw.verify(session, kind, public, MESSAGE, &signature).unwrap();
            let signature = if public == ec.0 { raw::ecdsa_der(&signature) } else { signature };
            let mut verifier = Verifier::new(digest, &key).unwrap();
            assert!(verifier.verify_oneshot(&signature, MESSAGE).unwrap(), "{kind:#x}");
        }
    }
}

#[test]
fn pss_signatures_verify_with_openssl() {
    let (_device, raw, session) = open("1234");
    let (public, private) = rsa(&raw, session);
    let key = openssl_key(&raw, session, public);
    for (kind, hash_kind, mgf, digest) in [
        (CKM_SHA256_RSA_PKCS_PSS, CKM_SHA256, CKG_MGF1_SHA256, MessageDigest::sha256()),
        (CKM_SHA384_RSA_PKCS_PSS, CKM_SHA384, CKG_MGF1_SHA384, MessageDigest::sha384()),
        (CKM_SHA512_RSA_PKCS_PSS, CKM_SHA512, CKG_MGF1_SHA512, MessageDigest::sha512()),
    ] {
        let salt = digest.size() as CK_ULONG;
        let mut parameters = CK_RSA_PKCS_PSS_PARAMS { hashAlg: hash_kind, mgf, sLen: salt };
        call!(raw, C_SignInit(session, &mut pss(kind, &mut parameters), private)).unwrap();
        let of_message = raw.sign(session, MESSAGE).unwrap();
        call!(raw, C_SignInit(session, &mut pss(CKM_RSA_PKCS_PSS, &mut parameters), private)).unwrap();
        let of_digest = raw.sign(session, &hash(digest, MESSAGE).unwrap()).unwrap();
        for signature in [of_message, of_digest] {
            let mut verifier = Verifier::new(digest, &key).unwrap();
            verifier.set_rsa_padding(openssl::rsa::Padding::PKCS1_PSS).unwrap();
            verifier.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).unwrap();
            assert!(verifier.verify_oneshot(&signature, MESSAGE).unwrap(), "{kind:#x}");
        }
        let mut wrong = CK_RSA_PKCS_PSS_PARAMS { sLen: salt - 1, ..parameters };
        let refused = call!(raw, C_SignInit(session, &mut pss(kind, &mut wrong), private));
        assert_eq!(refused, Err(CKR_MECHANISM_PARAM_INVALID));
    }
}

#[test]
fn data_that_does_not_fit_the_mechanism_is_refused_by_its_reason() {
    let (_device, raw, session) = open("1234");
    let (_, private) = rsa(&raw, session);
    let (_, ec) = raw.generate_ec(session, false);
    let sign = |kind, key, data: &[u8]| {
        raw.sign_init(session, kind, key)?;
        raw.sign(session, data).map(|_| ())
    };
    assert_eq!(sign(CKM_RSA_PKCS, private, b"no DigestInfo"), Err(CKR_DATA_INVALID), "the key only signs");
    let sha1 = [&[0x30, 0x21, 0x30, 9, 6, 5, 0x2b, 0x0e, 3, 2, 0x1a, 5, 0, 4, 20][..], &[1; 20]].concat();
    assert_eq!(sign(CKM_RSA_PKCS, private, &sha1), Err(CKR_DATA_INVALID));
    assert_eq!(sign(CKM_ECDSA, ec, b""), Err(CKR_DATA_LEN_RANGE));
    assert_eq!(sign(CKM_ECDSA, private, b"x"), Err(CKR_KEY_TYPE_INCONSISTENT));
    assert_eq!(sign(CKM_SHA1_RSA_PKCS, private, b"x"), Err(CKR_MECHANISM_INVALID));
    assert_eq!(sign(CKM_SHA256, private, b"x"), Err(CKR_MECHANISM_INVALID));
    // Any length of digest will do for ECDSA: its leftmost bits count.
    for length in [20, 28, 32, 48, 64] {
        assert_eq!(sign(CKM_ECDSA, ec, &vec![3; length]), Ok(()), "{length}");
    }
}

#[test]
fn an_operation_ends_as_the_standard_says() {
    let (_device, raw, session) = open("1234");
    let (public, private) = raw.generate_ec(session, false);
    let not_begun = Err(CKR_OPERATION_NOT_INITIALIZED);
    assert_eq!(raw.sign(session, MESSAGE), Err(CKR_OPERATION_NOT_INITIALIZED));
    assert_eq!(sign_in_parts(&raw, session, &[]), Err(CKR_OPERATION_NOT_INITIALIZED));
    raw.sign_init(session, CKM_ECDSA_SHA256, private).unwrap();
    assert_eq!(raw.sign_init(session, CKM_ECDSA_SHA256, private), Err(CKR_OPERATION_ACTIVE));
    // A verification beside it is another kind.
    let mut wanted = mechanism(CKM_ECDSA_SHA256);
    call!(raw, C_VerifyInit(session, &mut wanted, public)).unwrap();
    let signature = sign_in_parts(&raw, session, &[MESSAGE]).unwrap();
    let part = |bytes: &[u8]| call!(raw, C_VerifyUpdate(session, bytes.as_ptr().cast_mut(), bytes.len() as CK_ULONG));
    part(&MESSAGE[..3]).unwrap();
    part(&MESSAGE[3..]).unwrap();
    call!(raw, C_VerifyFinal(session, signature.as_ptr().cast_mut(), 64)).unwrap();
    assert_eq!(part(MESSAGE), not_begun);
    // C_Sign cannot end what C_SignUpdate has begun.
    raw.sign_init(session, CKM_ECDSA_SHA256, private).unwrap();
    call!(raw, C_SignUpdate(session, MESSAGE.as_ptr().cast_mut(), 3)).unwrap();
    assert_eq!(raw.sign(session, MESSAGE), Err(CKR_OPERATION_NOT_INITIALIZED));
    raw.sign_init(session, CKM_ECDSA_SHA256, private).unwrap();
    // A wrong signature ends a verification, and cancelling ends anything.
    assert_eq!(raw.verify(session, CKM_ECDSA_SHA256, public, MESSAGE, &[1; 64]), Err(CKR_SIGNATURE_INVALID));
    assert_eq!(raw.verify(session, CKM_ECDSA_SHA256, public, MESSAGE, &[1; 63]), Err(CKR_SIGNATURE_LEN_RANGE));
    call!(raw, C_SessionCancel(session, CKF_SIGN | CKF_VERIFY | CKF_DIGEST)).unwrap();
    assert_eq!(raw.sign(session, MESSAGE), Err(CKR_OPERATION_NOT_INITIALIZED));
}

#[test]
fn keys_are_used_only_for_what_they_are() {
    let (_device, raw, session) = open("1234");
    let (public, private) = raw.generate_ec(session, false);
    assert_eq!(raw.sign_init(session, CKM_ECDSA, public), Err(CKR_KEY_FUNCTION_NOT_PERMITTED));
    let refused = raw.verify(session, CKM_ECDSA, private, &[1; 32], &[1; 64]);
    assert_eq!(refused, Err(CKR_KEY_FUNCTION_NOT_PERMITTED));
    assert_eq!(raw.sign_init(session, CKM_ECDSA, 0), Err(CKR_KEY_HANDLE_INVALID));
    let template = [(CKA_EC_PARAMS, raw::P256.to_vec())];
    let only = [(CKA_ALLOWED_MECHANISMS, number(CKM_ECDSA_SHA384)), (CKA_TOKEN, flag(true))];
    let (_, private) = raw.generate(session, CKM_EC_KEY_PAIR_GEN, &template, &only).unwrap();
    assert_eq!(raw.sign_init(session, CKM_ECDSA, private), Err(CKR_MECHANISM_INVALID));
    raw.sign_init(session, CKM_ECDSA_SHA384, private).unwrap();
}

#[test]
fn digests_are_those_of_openssl_and_need_no_login() {
    let device = Device::new();
    let _ = Token::new(&device, "dev", "1234");
    let raw = Raw::initialised(&device);
    let session = raw.open_read_only(0);
    for (kind, expected) in [
        (CKM_SHA_1, MessageDigest::sha1()),
        (CKM_SHA224, MessageDigest::sha224()),
        (CKM_SHA256, MessageDigest::sha256()),
        (CKM_SHA384, MessageDigest::sha384()),
        (CKM_SHA512, MessageDigest::sha512()),
    ] {
        let expected = hash(expected, MESSAGE).unwrap();
        let (mut digest, mut length) = ([0; 64], 64);
        let (data, count) = (MESSAGE.as_ptr().cast_mut(), MESSAGE.len() as CK_ULONG);
        call!(raw, C_DigestInit(session, &mut mechanism(kind))).unwrap();
        assert_eq!(call!(raw, C_DigestInit(session, &mut mechanism(kind))), Err(CKR_OPERATION_ACTIVE));
        call!(raw, C_Digest(session, data, count, null_mut(), &mut length)).unwrap();
        assert_eq!(length as usize, expected.len());
        call!(raw, C_Digest(session, data, count, digest.as_mut_ptr(), &mut length)).unwrap();
        assert_eq!(digest[..length as usize], *expected);
        call!(raw, C_DigestInit(session, &mut mechanism(kind))).unwrap();
        call!(raw, C_DigestUpdate(session, data, 4)).unwrap();
        call!(raw, C_DigestUpdate(session, data.wrapping_add(4), count - 4)).unwrap();
        (digest, length) = ([0; 64], 1);
        let refused = call!(raw, C_DigestFinal(session, digest.as_mut_ptr(), &mut length));
        assert_eq!(refused, Err(CKR_BUFFER_TOO_SMALL));
        call!(raw, C_DigestFinal(session, digest.as_mut_ptr(), &mut length)).unwrap();
        assert_eq!(digest[..length as usize], *expected);
    }
    let mut large = vec![0; 10_000];
    call!(raw, C_GenerateRandom(session, large.as_mut_ptr(), 10_000)).unwrap();
    assert!(large.chunks(16).all(|block| block.iter().any(|byte| *byte != 0)));
}

/// The parameter that a mechanism needs to start, in memory that outlives the test.
fn parameter(kind: CK_MECHANISM_TYPE) -> Vec<u8> {
    let pss = |hash: CK_MECHANISM_TYPE, mgf: CK_RSA_PKCS_MGF_TYPE| [number(hash), number(mgf), number(20)].concat();
    match kind {
        CKM_RSA_PKCS_PSS | CKM_SHA256_RSA_PKCS_PSS => pss(CKM_SHA256, CKG_MGF1_SHA256),
        CKM_SHA1_RSA_PKCS_PSS => pss(CKM_SHA_1, CKG_MGF1_SHA1),
        CKM_SHA224_RSA_PKCS_PSS => pss(CKM_SHA224, CKG_MGF1_SHA224),
        CKM_SHA384_RSA_PKCS_PSS => pss(CKM_SHA384, CKG_MGF1_SHA384),
        CKM_SHA512_RSA_PKCS_PSS => pss(CKM_SHA512, CKG_MGF1_SHA512),
        CKM_SHA3_224_RSA_PKCS_PSS => pss(CKM_SHA3_224, CKG_MGF1_SHA3_224),
        CKM_SHA3_256_RSA_PKCS_PSS => pss(CKM_SHA3_256, CKG_MGF1_SHA3_256),
        CKM_SHA3_384_RSA_PKCS_PSS => pss(CKM_SHA3_384, CKG_MGF1_SHA3_384),
        CKM_SHA3_512_RSA_PKCS_PSS => pss(CKM_SHA3_512, CKG_MGF1_SHA3_512),
        CKM_RSA_PKCS_OAEP => {
            [number(CKM_SHA_1), number(CKG_MGF1_SHA1), number(CKZ_DATA_SPECIFIED), number(0), number(0)].concat()
        }
        CKM_AES_CBC | CKM_AES_CBC_PAD | CKM_AES_CFB128 | CKM_AES_OFB => vec![7; 16],
        CKM_AES_CTR => [number(128), vec![7; 16]].concat(),
        CKM_SHA_1_HMAC_GENERAL | CKM_SHA256_HMAC_GENERAL | CKM_SHA384_HMAC_GENERAL | CKM_SHA512_HMAC_GENERAL => {
            number(8)
        }
        _ => Vec::new(),
    }
}

#[test]
fn every_advertised_mechanism_starts_what_it_is_said_to_do_and_nothing_else() {
    let (_device, raw, session) = open("1234");
    let both = [(CKA_DECRYPT, flag(true)), (CKA_SIGN, flag(true)), (CKA_SIGN_RECOVER, flag(true))];
    let public = [(CKA_MODULUS_BITS, number(2048)), (CKA_ENCRYPT, flag(true)), (CKA_VERIFY_RECOVER, flag(true))];
    let rsa = raw.generate(session, CKM_RSA_PKCS_KEY_PAIR_GEN, &public, &both).unwrap();
    let ec = raw.generate_ec(session, false);
    let secret = |kind, key_type, length| {
        let class = [(CKA_CLASS, number(CKO_SECRET_KEY)), (CKA_KEY_TYPE, number(key_type))];
        let key = raw.create(session, &[&class[..], &[(CKA_VALUE, vec![5; length])]].concat()).unwrap();
        (kind, (key, key))
    };
    let [aes, generic] = [secret(CKM_AES_KEY_GEN, CKK_AES, 16), secret(CKM_SHA256_HMAC, CKK_GENERIC_SECRET, 20)];
    let mut count = 0;
    call!(raw, C_GetMechanismList(0, null_mut(), &mut count)).unwrap();
    let mut kinds = vec![0; count as usize];
    call!(raw, C_GetMechanismList(0, kinds.as_mut_ptr(), &mut count)).unwrap();
    let mut started = 0;
    for kind in kinds {
        let mut info = CK_MECHANISM_INFO::default();
        call!(raw, C_GetMechanismInfo(0, kind, &mut info)).unwrap();
        let name = [CKM_SHA_1_HMAC, CKM_SHA256_HMAC, CKM_SHA384_HMAC, CKM_SHA512_HMAC];
        let (public, private) = match kind {
            _ if info.flags & CKF_EC_F_P != 0 => ec,
            CKM_AES_KEY_GEN..=CKM_AES_CTR | CKM_AES_CFB128 | CKM_AES_OFB => aes.1,
            _ if name.contains(&kind) || name.contains(&kind.wrapping_sub(1)) => generic.1,
            _ => rsa,
        };
        let mut parameter = parameter(kind);
        let mut wanted = mechanism(kind);
        (wanted.pParameter, wanted.ulParameterLen) = (parameter.as_mut_ptr().cast(), parameter.len() as CK_ULONG);
        if parameter.is_empty() {
            wanted.pParameter = null_mut();
        }
        let mut check = |flag: CK_FLAGS, answer: raw::Rv<()>| {
            let expected = if info.flags & flag != 0 { Ok(()) } else { Err(CKR_MECHANISM_INVALID) };
            assert_eq!(answer, expected, "{kind:#x}, flag {flag:#x}");
            started += u32::from(answer.is_ok());
            call!(raw, C_SessionCancel(session, flag)).unwrap();
        };
        check(CKF_SIGN, call!(raw, C_SignInit(session, &mut wanted, private)));
        check(CKF_VERIFY, call!(raw, C_VerifyInit(session, &mut wanted, public)));
        check(CKF_SIGN_RECOVER, call!(raw, C_SignRecoverInit(session, &mut wanted, private)));
        check(CKF_VERIFY_RECOVER, call!(raw, C_VerifyRecoverInit(session, &mut wanted, public)));
        check(CKF_ENCRYPT, call!(raw, C_EncryptInit(session, &mut wanted, public)));
        check(CKF_DECRYPT, call!(raw, C_DecryptInit(session, &mut wanted, private)));
        check(CKF_DIGEST, call!(raw, C_DigestInit(session, &mut wanted)));
        let private = CKF_SIGN | CKF_DECRYPT | CKF_DERIVE | CKF_GENERATE | CKF_GENERATE_KEY_PAIR;
        assert_eq!(info.flags & private != 0, info.flags & CKF_HW != 0, "{kind:#x}");
    }
    assert!(started > 90, "{started}");
}

#[test]
fn threads_sign_with_sessions_of_their_own() {
    let (_device, raw, session) = open("1234");
    let (public, private) = raw.generate_ec(session, true);
    let handles = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let own = raw.open_read_only(0);
                    handles.lock().unwrap().push(own);
                    raw.sign_init(own, CKM_ECDSA, private).unwrap();
                    let signature = raw.sign(own, &[9; 32]).unwrap();
                    raw.verify(own, CKM_ECDSA, public, &[9; 32], &signature).unwrap();
                    call!(raw, C_CloseSession(own)).unwrap();
                }
            });
        }
    });
    let mut handles = handles.into_inner().unwrap();
    handles.sort_unstable();
    handles.dedup();
    assert_eq!(handles.len(), 40, "no handle was given twice");
}

#[test]
fn a_rust_client_works_with_two_tokens_at_once() {
    use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
    use cryptoki::mechanism::Mechanism;
    use cryptoki::object::Attribute;
    use cryptoki::session::UserType;
    use cryptoki::types::AuthPin;

    let device = Device::new();
    let (_with_pin, _without) = (Token::new(&device, "dev", "1234"), Token::new(&device, "iot", ""));
    device.enter();
    let module = Pkcs11::new(device.module()).unwrap();
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    let slots = module.get_slots_with_initialized_token().unwrap();
    assert_eq!(slots.len(), 2);
    for slot in slots {
        let session = module.open_rw_session(slot).unwrap();
        if module.get_token_info(slot).unwrap().login_required() {
            session.login(UserType::User, Some(&AuthPin::from(String::from_utf8_lossy(PIN).into_owned()))).unwrap();
        }
        let public = [Attribute::Token(true), Attribute::EcParams(raw::P256.to_vec()), Attribute::Verify(true)];
        let private = [Attribute::Token(true), Attribute::Sensitive(true), Attribute::Sign(true)];
        let (public, private) = session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private).unwrap();
        let signature = session.sign(&Mechanism::EcdsaSha256, private, MESSAGE).unwrap();
        session.verify(&Mechanism::EcdsaSha256, public, MESSAGE, &signature).unwrap();
        session.verify(&Mechanism::EcdsaSha256, public, b"another", &signature).unwrap_err();
        session.destroy_object(private).unwrap();
    }
}
