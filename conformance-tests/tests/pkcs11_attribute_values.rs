//! Attributes that tell the truth: of copies, of sizes, of dates; and the objects that tell about the token.

mod client;
mod raw;

use std::collections::HashSet;

use client::{Answer, Client, answer, named, secret};
use conformance_tests::{Device, Hold, Token};
use cryptoki::error::RvError;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, KeyType, ObjectClass, ObjectHandle};
use cryptoki_sys::*;
use openssl::hash::{MessageDigest, hash};
use raw::{call, flag, number};

fn size(client: &Client, object: ObjectHandle) -> Answer<CK_ULONG> {
    let mut size = 0;
    call!(client.raw, C_GetObjectSize(client.session.handle(), object.handle(), &mut size)).map_err(named)?;
    Ok(size)
}

fn copy(client: &Client, object: ObjectHandle, template: &[Attribute]) -> Answer<ObjectHandle> {
    answer(client.session.copy_object(object, template))
}

fn data(label: &str) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::DATA),
        Attribute::Label(label.into()),
        Attribute::Application(b"test".to_vec()),
        Attribute::Value(b"some value".to_vec()),
    ]
}

/// One object of every kind that the token makes.
fn one_of_each(client: &Client, token: bool) -> Vec<(&'static str, ObjectHandle)> {
    let keep = Attribute::Token(token);
    let create = |template: &[Attribute]| {
        client.session.create_object(&[template, std::slice::from_ref(&keep)].concat()).unwrap()
    };
    let length = |length: CK_ULONG| [Attribute::ValueLen(length.into()), keep.clone()];
    let (ec_public, ec) = client.ec(raw::P256, std::slice::from_ref(&keep));
    let (rsa_public, rsa) = client.rsa(2048, &[], std::slice::from_ref(&keep));
    vec![
        ("data", create(&data("data"))),
        ("EC public key", ec_public),
        ("EC private key", ec),
        ("RSA public key", rsa_public),
        ("RSA private key", rsa),
        ("AES key", client.session.generate_key(&Mechanism::AesKeyGen, &length(16)).unwrap()),
        ("secret", client.session.generate_key(&Mechanism::GenericSecretKeyGen, &length(32)).unwrap()),
        ("imported AES key", create(&secret(KeyType::AES, &[1; 16]))),
    ]
}

#[test]
fn every_object_has_a_name_of_its_own_a_size_and_a_copy() {
    let client = Client::new(client::PIN);
    let mut names = HashSet::new();
    for token in [true, false] {
        for (kind, object) in one_of_each(&client, token) {
            assert!(names.insert(client.get(object, CKA_UNIQUE_ID).unwrap()), "{kind}");
            let size = size(&client, object).unwrap();
            assert!((10..20_000).contains(&size), "{kind} {size}");
            let label = Attribute::Label(format!("copy of {kind}").into());
            let other = copy(&client, object, std::slice::from_ref(&label)).unwrap_or_else(|e| panic!("{kind}: {e}"));
            assert!(names.insert(client.get(other, CKA_UNIQUE_ID).unwrap()), "{kind}");
            assert_eq!(client.get(other, CKA_LABEL), Ok(format!("copy of {kind}").into_bytes()));
            for same in [CKA_CLASS, CKA_TOKEN, CKA_PRIVATE, CKA_KEY_TYPE, CKA_LOCAL, CKA_ALWAYS_SENSITIVE, CKA_VALUE] {
                assert_eq!(client.get(object, same), client.get(other, same), "{kind} {same:#x}");
            }
            let refused = client.session.update_attributes(other, &[Attribute::UniqueId(b"mine".to_vec())]);
            assert_eq!(answer(refused), Err(RvError::AttributeReadOnly), "{kind}");
            // A copy stands on its own.
            client.session.destroy_object(object).unwrap();
            assert_eq!(client.get(other, CKA_LABEL), Ok(format!("copy of {kind}").into_bytes()));
            client.session.destroy_object(other).unwrap();
            assert_eq!(client.get(other, CKA_LABEL), Err(RvError::ObjectHandleInvalid));
        }
    }
}

#[test]
fn a_copy_of_a_key_works_as_the_original_does() {
    let client = Client::new(client::PIN);
    for (token, to_token) in [(true, true), (false, false), (true, false), (false, true)] {
        let keep = [Attribute::Token(token)];
        let (public, private) = client.ec(raw::P256, &keep);
        let other = copy(&client, private, &[Attribute::Token(to_token)]).unwrap();
        assert_eq!(client.flag(other, CKA_TOKEN), to_token);
        client.session.destroy_object(private).unwrap();
        let signature = client.sign(&Mechanism::EcdsaSha256.into(), other, b"x").unwrap();
        assert_eq!(client.verify(&Mechanism::EcdsaSha256.into(), public, b"x", &signature), Ok(()));
        let usage = [Attribute::Token(token), Attribute::Encrypt(true)];
        let aes = [&[Attribute::ValueLen(16.into())], &usage[..]].concat();
        let aes = client.session.generate_key(&Mechanism::AesKeyGen, &aes).unwrap();
        let other = copy(&client, aes, &[Attribute::Token(to_token)]).unwrap();
        let ecb = || Mechanism::AesEcb.into();
        assert_eq!(client.encrypt(&ecb(), aes, &[7; 16]), client.encrypt(&ecb(), other, &[7; 16]));
    }
}

#[test]
fn a_copy_is_only_made_as_the_standard_allows() {
    let client = Client::new(client::PIN);
    let fixed = client.session.create_object(&[&data("x")[..], &[Attribute::Copyable(false)]].concat()).unwrap();
    assert_eq!(copy(&client, fixed, &[]), Err(RvError::ActionProhibited));
    let refused = client.session.update_attributes(fixed, &[Attribute::Copyable(true)]);
    assert!(answer(refused).is_err(), "once not copyable, never again");
    let free = client.session.create_object(&data("y")).unwrap();
    assert_eq!(copy(&client, free, &[Attribute::Modulus(vec![1])]), Err(RvError::TemplateInconsistent));
    assert_eq!(copy(&client, free, &[Attribute::UniqueId(vec![1])]), Err(RvError::AttributeReadOnly));
    assert_eq!(
        copy(&client, free, &[Attribute::Class(ObjectClass::PUBLIC_KEY)]).unwrap_err(),
        RvError::AttributeReadOnly
    );
    let open =
        [&secret(KeyType::GENERIC_SECRET, &[1; 20])[..], &[Attribute::Sensitive(false), Attribute::Extractable(true)]];
    let open = client.session.create_object(&open.concat()).unwrap();
    let closed = copy(&client, open, &[Attribute::Sensitive(true), Attribute::Extractable(false)]).unwrap();
    assert!(client.flag(closed, CKA_SENSITIVE) && !client.flag(closed, CKA_EXTRACTABLE));
    assert!(!client.flag(closed, CKA_NEVER_EXTRACTABLE) && !client.flag(closed, CKA_ALWAYS_SENSITIVE));
    assert!(copy(&client, closed, &[Attribute::Sensitive(false)]).is_err());
    assert!(copy(&client, closed, &[Attribute::Extractable(true)]).is_err());
    let read_only = client.module.open_ro_session(client.slot()).unwrap();
    let refused = answer(read_only.copy_object(free, &[Attribute::Token(true)]));
    assert_eq!(refused, Err(RvError::SessionReadOnly));
}

#[test]
fn a_secret_becomes_more_secret_and_never_less() {
    let client = Client::new(client::PIN);
    let open = [Attribute::Sensitive(false), Attribute::Extractable(true)];
    let key = [&secret(KeyType::GENERIC_SECRET, &[1; 20])[..], &open].concat();
    let key = client.session.create_object(&key).unwrap();
    let set = |attribute: Attribute| answer(client.session.update_attributes(key, &[attribute]));
    assert_eq!(client.get(key, CKA_VALUE), Ok(vec![1; 20]));
    assert_eq!(set(Attribute::Sensitive(true)), Ok(()));
    assert_eq!(client.get(key, CKA_VALUE), Err(RvError::AttributeSensitive));
    assert_eq!(set(Attribute::Extractable(false)), Ok(()));
    for less in [Attribute::Sensitive(false), Attribute::Extractable(true)] {
        assert!(set(less.clone()).is_err(), "{less:?}");
    }
    assert_eq!(client.get(key, CKA_VALUE), Err(RvError::AttributeSensitive));
}

#[test]
fn dates_are_kept_as_they_are_given_and_refused_where_they_are_none() {
    let client = Client::new(client::PIN);
    let session = client.session.handle();
    let with = |start: &[u8], end: &[u8]| {
        let dates = [(CKA_START_DATE, start.to_vec()), (CKA_END_DATE, end.to_vec())];
        let public = [(CKA_EC_PARAMS, raw::P256.to_vec())];
        client.raw.generate(session, CKM_EC_KEY_PAIR_GEN, &public, &dates).map(|pair| pair.1)
    };
    let key = with(b"20260101", b"20271231").unwrap();
    assert_eq!(client.raw.get(session, key, CKA_START_DATE).unwrap(), b"20260101");
    assert_eq!(client.raw.get(session, key, CKA_END_DATE).unwrap(), b"20271231");
    let key = with(b"", b"").unwrap();
    assert_eq!(client.raw.get(session, key, CKA_END_DATE).unwrap(), b"");
    for wrong in [&b"2026"[..], b"2026010x", b"20261301", b"20260132"] {
        assert_eq!(with(wrong, b""), Err(CKR_ATTRIBUTE_VALUE_INVALID), "{wrong:?}");
    }
}

#[test]
fn a_key_does_only_what_its_allowed_mechanisms_name() {
    let client = Client::new(client::PIN);
    let only = [Attribute::AllowedMechanisms(vec![MechanismType::SHA256_RSA_PKCS, MechanismType::RSA_PKCS_OAEP])];
    let usage = [&only[..], &[Attribute::Decrypt(true)]].concat();
    for token in [true, false] {
        let (_, private) = client.rsa(2048, &[], &[&usage[..], &[Attribute::Token(token)]].concat());
        assert!(client.sign(&Mechanism::Sha256RsaPkcs.into(), private, b"x").is_ok());
        for other in [Mechanism::Sha384RsaPkcs, Mechanism::RsaPkcs, Mechanism::RsaX509] {
            assert_eq!(client.sign(&other.into(), private, b"x"), Err(RvError::MechanismInvalid));
        }
        assert_eq!(client.decrypt(&Mechanism::RsaPkcs.into(), private, &[1; 256]), Err(RvError::MechanismInvalid));
        let told = client.get(private, CKA_ALLOWED_MECHANISMS).unwrap();
        assert_eq!(told, [number(CKM_SHA256_RSA_PKCS), number(CKM_RSA_PKCS_OAEP)].concat());
    }
    let only = [Attribute::AllowedMechanisms(vec![MechanismType::AES_ECB]), Attribute::Encrypt(true)];
    let aes =
        client.session.generate_key(&Mechanism::AesKeyGen, &[&[Attribute::ValueLen(16.into())], &only[..]].concat());
    let aes = aes.unwrap();
    assert!(client.encrypt(&Mechanism::AesEcb.into(), aes, &[1; 16]).is_ok());
    assert_eq!(client.encrypt(&Mechanism::AesCbc([0; 16]).into(), aes, &[1; 16]), Err(RvError::MechanismInvalid));
}

#[test]
fn the_id_that_nobody_gave_is_what_nss_computes() {
    let client = Client::new(client::PIN);
    let (public, private) = client.rsa(2048, &[], &[]);
    let expected = hash(MessageDigest::sha1(), &client.get(public, CKA_MODULUS).unwrap()).unwrap().to_vec();
    assert_eq!([client.get(public, CKA_ID), client.get(private, CKA_ID)], [Ok(expected.clone()), Ok(expected)]);
    let (public, private) = client.ec(raw::P256, &[]);
    let point = client.get(public, CKA_EC_POINT).unwrap();
    let expected = hash(MessageDigest::sha1(), &point[2..]).unwrap().to_vec();
    assert_eq!([client.get(public, CKA_ID), client.get(private, CKA_ID)], [Ok(expected.clone()), Ok(expected)]);
}

#[test]
fn the_public_key_is_told_by_both_halves() {
    let client = Client::new(client::PIN);
    for (public, private) in [client.rsa(2048, &[], &[]), client.ec(raw::P256, &[])] {
        let info = client.get(public, CKA_PUBLIC_KEY_INFO).unwrap();
        assert_eq!(client.get(private, CKA_PUBLIC_KEY_INFO), Ok(info.clone()));
        assert!(openssl::pkey::PKey::public_key_from_der(&info).is_ok());
    }
}

#[test]
fn mechanism_objects_name_every_mechanism_of_the_token() {
    let client = Client::new(client::PIN);
    let session = client.session.handle();
    let objects = client.raw.find(session, &[(CKA_CLASS, number(CKO_MECHANISM))]);
    let mut told: Vec<CK_ULONG> = objects.iter().map(|object| ulong(&client, *object, CKA_MECHANISM_TYPE)).collect();
    let mut listed = client.mechanisms();
    told.sort_unstable();
    listed.sort_unstable();
    assert_eq!(told, listed);
    let one = [(CKA_CLASS, number(CKO_MECHANISM)), (CKA_MECHANISM_TYPE, number(CKM_ECDSA))];
    let one = client.raw.find(session, &one);
    assert_eq!(one.len(), 1);
    assert_eq!(client.raw.get(session, one[0], CKA_TOKEN).unwrap(), flag(true));
    assert_eq!(client.raw.get(session, one[0], CKA_PRIVATE).unwrap(), flag(false));
    assert!(client.raw.set(session, one[0], &[(CKA_LABEL, b"x".to_vec())]).is_err());
    assert_eq!(call!(client.raw, C_DestroyObject(session, one[0])), Err(CKR_ACTION_PROHIBITED));
}

#[test]
fn profile_objects_name_the_profiles_that_are_true() {
    let client = Client::new(client::PIN);
    let session = client.session.handle();
    let objects = client.raw.find(session, &[(CKA_CLASS, number(CKO_PROFILE))]);
    let told: Vec<CK_ULONG> = objects.iter().map(|object| ulong(&client, *object, CKA_PROFILE_ID)).collect();
    assert!(told.contains(&CKP_BASELINE_PROVIDER), "{told:?}");
    for profile in &told {
        let known =
            [CKP_BASELINE_PROVIDER, CKP_EXTENDED_PROVIDER, CKP_AUTHENTICATION_TOKEN, CKP_PUBLIC_CERTIFICATES_TOKEN];
        assert!(known.contains(profile), "{profile}");
    }
    // They cost nothing and need no login: a client asks for them before anything else.
    client.session.logout().unwrap();
    client.device.mark();
    assert_eq!(client.raw.find(session, &[(CKA_CLASS, number(CKO_PROFILE))]).len(), told.len());
    assert_eq!(client.device.commands(), [""; 0]);
}

fn ulong(client: &Client, object: CK_OBJECT_HANDLE, kind: CK_ATTRIBUTE_TYPE) -> CK_ULONG {
    let bytes = client.raw.get(client.session.handle(), object, kind).unwrap();
    CK_ULONG::from_ne_bytes(bytes.try_into().unwrap())
}

#[test]
fn what_is_advertised_works() {
    let client = Client::configured(client::PIN, "sha1_signatures = true\n");
    let kinds = client.mechanisms();
    let unique: HashSet<_> = kinds.iter().collect();
    assert_eq!(unique.len(), kinds.len());
    for kind in kinds {
        let info = client.mechanism_info(kind).unwrap();
        assert!(info.ulMinKeySize <= info.ulMaxKeySize, "{kind:#x}");
        let does = info.flags & !(CKF_HW | CKF_EC_F_P | CKF_EC_OID | CKF_EC_NAMEDCURVE | CKF_EC_UNCOMPRESS);
        assert_ne!(does, 0, "{kind:#x} does nothing");
    }
    assert_eq!(client.mechanism_info(CKM_DES3_CBC).map(drop), Err(RvError::MechanismInvalid));
}

#[test]
fn a_search_tells_nothing_of_what_is_sensitive() {
    let client = Client::new(client::PIN);
    let value = vec![0x2f; 16];
    let create =
        |more: &[Attribute]| client.session.create_object(&[&secret(KeyType::AES, &value)[..], more].concat()).unwrap();
    let open = create(&[Attribute::Sensitive(false), Attribute::Extractable(true)]);
    create(&[Attribute::Sensitive(true), Attribute::Extractable(true)]);
    create(&[Attribute::Sensitive(false), Attribute::Extractable(false)]);
    create(&[Attribute::Token(true)]);
    assert_eq!(client.session.find_objects(&[Attribute::Value(value)]).unwrap(), [open]);
    assert_eq!(client.session.find_objects(&[Attribute::ValueLen(16.into())]).unwrap().len(), 4);
}

#[test]
fn what_another_process_does_is_seen_at_once() {
    let device = Device::with_hold(Hold::Default);
    let _ = Token::new(&device, "dev", client::PIN);
    let client = Client::of(device, client::PIN);
    let tool = |arguments: &[&str]| {
        let login = ["--token-label", "dev", "--login", "--pin", client::PIN];
        let _ = client.device.pkcs11_tool(&[&login[..], arguments].concat()).ok();
    };
    tool(&["--keypairgen", "--key-type", "EC:prime256v1", "--label", "theirs", "--id", "0a"]);
    let private = client.find_one(&[Attribute::Sign(true), Attribute::Label(b"theirs".to_vec())]);
    assert!(client.sign(&Mechanism::EcdsaSha256.into(), private, b"x").is_ok());
    tool(&["--set-id", "0b", "--type", "privkey", "--id", "0a"]);
    assert_eq!(client.get(private, CKA_ID), Ok(vec![0x0b]));
    assert_eq!(client.find_one(&[Attribute::Id(vec![0x0b])]), private, "it is the same object");
    tool(&["--delete-object", "--type", "privkey", "--id", "0b"]);
    assert_eq!(client.get(private, CKA_ID), Err(RvError::ObjectHandleInvalid));
    let gone = client.sign(&Mechanism::EcdsaSha256.into(), private, b"x");
    assert_eq!(gone, Err(RvError::KeyHandleInvalid));
    tool(&["--delete-object", "--type", "pubkey", "--id", "0a"]);
    assert_eq!(client.session.find_objects(&[Attribute::Token(true), Attribute::Id(vec![0x0a])]).unwrap(), []);
}
