//! HMACs with every hash, by keys in the TPM and in memory, against OpenSSL.

mod client;
mod raw;

use client::{Client, HASHES, Wanted, answer, generate, parts, secret};
use cryptoki::error::RvError;
use cryptoki::mechanism::vendor_defined::VendorDefinedMechanism;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, KeyType};
use cryptoki_sys::*;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn hmac(name: &str) -> Option<Wanted<'static>> {
    match name {
        "SHA1" => Some(Mechanism::Sha1Hmac.into()),
        "SHA256" => Some(Mechanism::Sha256Hmac.into()),
        "SHA384" => Some(Mechanism::Sha384Hmac.into()),
        "SHA512" => Some(Mechanism::Sha512Hmac.into()),
        _ => None,
    }
}

fn hmac_general<'a>(name: &str, length: &'a CK_ULONG) -> Wanted<'a> {
    let kind = match name {
        "SHA1" => CKM_SHA_1_HMAC_GENERAL,
        "SHA256" => CKM_SHA256_HMAC_GENERAL,
        "SHA384" => CKM_SHA384_HMAC_GENERAL,
        _ => CKM_SHA512_HMAC_GENERAL,
    };
    let known = VendorDefinedMechanism::new(MechanismType::SHA256_HMAC, Some(length));
    Wanted::number(kind, Mechanism::VendorDefined(known))
}

#[test]
fn an_hmac_of_a_known_key_is_that_of_openssl_in_the_tpm_and_in_memory() {
    let client = Client::new(client::PIN);
    let data: Vec<u8> = (0..3000).map(|number| (number % 253) as u8).collect();
    for token in [true, false] {
        for length in [1, 20, 32, 64, 100] {
            let value = vec![0x1d; length];
            let usage = [Attribute::Token(token), Attribute::Sign(true), Attribute::Verify(true)];
            let key = client.session.create_object(&[&secret(KeyType::GENERIC_SECRET, &value)[..], &usage].concat());
            let key = key.unwrap();
            for hash in HASHES {
                let Some(wanted) = hmac(hash.name) else { continue };
                for data in [&data[..0], &data[..10], &data] {
                    let name = format!("{} {token} {length} {}", hash.name, data.len());
                    let pkey = PKey::hmac(&value).unwrap();
                    let mut signer = Signer::new((hash.digest)(), &pkey).unwrap();
                    let expected = signer.sign_oneshot_to_vec(data).unwrap();
                    assert_eq!(client.sign(&wanted, key, data).as_ref(), Ok(&expected), "{name}");
                    assert_eq!(client.sign_in_parts(&wanted, key, &parts(data)).as_ref(), Ok(&expected), "{name}");
                    assert_eq!(client.verify(&wanted, key, data, &expected), Ok(()), "{name}");
                    assert_eq!(client.verify_in_parts(&wanted, key, &parts(data), &expected), Ok(()), "{name}");
                    let forged = client.verify(&wanted, key, b"another", &expected);
                    assert_eq!(forged, Err(RvError::SignatureInvalid), "{name}");
                    let short = client.verify(&wanted, key, data, &expected[1..]);
                    assert_eq!(short, Err(RvError::SignatureLenRange), "{name}");
                    for length in [1, 10, hash.length() as CK_ULONG] {
                        let general = hmac_general(hash.name, &length);
                        let (cut, name) = (&expected[..length as usize], format!("{name} {length}"));
                        assert_eq!(client.sign(&general, key, data).as_deref(), Ok(cut), "{name}");
                        assert_eq!(client.verify(&general, key, data, cut), Ok(()), "{name}");
                    }
                }
                for length in [0, hash.length() as CK_ULONG + 1] {
                    let refused = client.sign(&hmac_general(hash.name, &length), key, b"x");
                    assert_eq!(refused, Err(RvError::MechanismParamInvalid), "{} {length}", hash.name);
                }
            }
        }
    }
}

/// While the process may take no more than this besides, an HMAC of more is made in memory, and by the TPM it is refused.
#[test]
fn a_long_hmac_takes_no_memory_where_its_key_is_in_memory_and_is_else_refused_where_there_is_none() {
    const ROOM: u64 = 64 << 20;
    let client = Client::new(client::PIN);
    let value = [0x1d; 32];
    let usage = [Attribute::Sign(true), Attribute::Verify(true)];
    let import = |stored| {
        let template = [&secret(KeyType::GENERIC_SECRET, &value)[..], &usage, &[Attribute::Token(stored)]].concat();
        client.session.create_object(&template).unwrap()
    };
    let (in_memory, in_tpm) = (import(false), import(true));
    let wanted = Wanted::from(Mechanism::Sha256Hmac);
    let part = vec![0x33; 4 << 20];
    let parts = vec![&part[..]; 32];
    let pkey = PKey::hmac(&value).unwrap();
    let mut signer = Signer::new(openssl::hash::MessageDigest::sha256(), &pkey).unwrap();
    parts.iter().for_each(|part| signer.update(part).unwrap());
    let expected = signer.sign_to_vec().unwrap();

    let unlimited = getrlimit(Resource::As);
    let limit = Rlimit { current: Some(address_space() + ROOM), ..unlimited };
    setrlimit(Resource::As, limit).unwrap();
    let made = client.sign_in_parts(&wanted, in_memory, &parts);
    let verified = client.verify_in_parts(&wanted, in_memory, &parts, &expected);
    let refused = client.sign_in_parts(&wanted, in_tpm, &parts);
    setrlimit(Resource::As, unlimited).unwrap();
    assert_eq!((made, verified), (Ok(expected), Ok(())));
    assert_eq!(refused, Err(RvError::HostMemory));
    assert!(client.sign(&wanted, in_tpm, b"message").is_ok(), "the refused one is over");
}

/// How many bytes of addresses this process has.
fn address_space() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    size.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn a_generated_secret_makes_hmacs_in_the_tpm() {
    let client = Client::new(client::PIN);
    for length in [32, 48, 64] {
        for token in [true, false] {
            let usage = [Attribute::Token(token), Attribute::Sign(true), Attribute::Verify(true)];
            let key = generate(&client, Mechanism::GenericSecretKeyGen, length, &usage).unwrap();
            let other = generate(&client, Mechanism::GenericSecretKeyGen, length, &usage).unwrap();
            assert_eq!(client.get(key, CKA_KEY_GEN_MECHANISM), Ok(raw::number(CKM_GENERIC_SECRET_KEY_GEN)));
            assert_eq!(client.get(key, CKA_VALUE_LEN), Ok(raw::number(length)));
            assert_eq!(client.get(key, CKA_VALUE), Err(RvError::AttributeSensitive));
            assert!(client.flag(key, CKA_LOCAL) && client.flag(key, CKA_NEVER_EXTRACTABLE));
            for wanted in HASHES.iter().filter_map(|hash| hmac(hash.name)) {
                let mac = client.sign(&wanted, key, b"message").unwrap();
                assert_eq!(client.verify(&wanted, key, b"message", &mac), Ok(()), "{wanted:?}");
                assert_eq!(client.verify(&wanted, other, b"message", &mac), Err(RvError::SignatureInvalid));
            }
        }
    }
}

#[test]
fn a_key_for_one_hash_makes_no_hmac_with_another() {
    let client = Client::new(client::PIN);
    let value = [0x1e; 32];
    for token in [true, false] {
        let usage = [Attribute::Token(token), Attribute::Sign(true)];
        let key = [&secret(KeyType::SHA256_HMAC, &value)[..], &usage].concat();
        let key = client.session.create_object(&key).unwrap();
        assert_eq!(client.get(key, CKA_KEY_TYPE), Ok(raw::number(CKK_SHA256_HMAC)));
        let pkey = PKey::hmac(&value).unwrap();
        let mut signer = Signer::new(openssl::hash::MessageDigest::sha256(), &pkey).unwrap();
        let expected = signer.sign_oneshot_to_vec(b"message").unwrap();
        assert_eq!(client.sign(&Mechanism::Sha256Hmac.into(), key, b"message"), Ok(expected));
        assert_eq!(client.sign(&Mechanism::Sha512Hmac.into(), key, b"x"), Err(RvError::KeyTypeInconsistent));
    }
    let long = answer(client.session.create_object(&secret(KeyType::GENERIC_SECRET, &[1; 129])));
    assert_eq!(long, Err(RvError::AttributeValueInvalid), "longer than a TPM takes");
}
