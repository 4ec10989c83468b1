//! Secret keys, in the TPM and in memory: how they are made and used, AES in every mode against OpenSSL.

mod client;
mod raw;

use client::{Answer, Client, Start, Wanted, answer, generate, parts, secret};
use cryptoki::error::RvError;
use cryptoki::mechanism::vendor_defined::VendorDefinedMechanism;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, KeyType, ObjectHandle};
use cryptoki_sys::*;
use openssl::symm::{Cipher, Crypter, Mode};
use raw::call;

const IV: [u8; 16] = [0x5a; 16];
const BLOCK: usize = 16;

/// A mode of AES as the module and as OpenSSL know it.
struct AesMode {
    name: &'static str,
    wanted: fn(&'static CK_AES_CTR_PARAMS) -> Wanted<'static>,
    cipher: fn(usize) -> Cipher,
    /// Takes whole blocks only.
    whole: bool,
    pads: bool,
}

static COUNTER: CK_AES_CTR_PARAMS = CK_AES_CTR_PARAMS { ulCounterBits: 128, cb: IV };

fn by_size(bits: usize, ciphers: [fn() -> Cipher; 3]) -> Cipher {
    match bits {
        128 => ciphers[0](),
        192 => ciphers[1](),
        _ => ciphers[2](),
    }
}

const MODES: [AesMode; 6] = [
    AesMode {
        name: "ECB",
        wanted: |_| Mechanism::AesEcb.into(),
        cipher: |bits| by_size(bits, [Cipher::aes_128_ecb, Cipher::aes_192_ecb, Cipher::aes_256_ecb]),
        whole: true,
        pads: false,
    },
    AesMode {
        name: "CBC",
        wanted: |_| Mechanism::AesCbc(IV).into(),
        cipher: |bits| by_size(bits, [Cipher::aes_128_cbc, Cipher::aes_192_cbc, Cipher::aes_256_cbc]),
        whole: true,
        pads: false,
    },
    AesMode {
        name: "CBC-PAD",
        wanted: |_| Mechanism::AesCbcPad(IV).into(),
        cipher: |bits| by_size(bits, [Cipher::aes_128_cbc, Cipher::aes_192_cbc, Cipher::aes_256_cbc]),
        whole: false,
        pads: true,
    },
    AesMode {
        name: "CTR",
        wanted: |counter| {
            let known = VendorDefinedMechanism::new(MechanismType::AES_CTR, Some(counter));
            Mechanism::VendorDefined(known).into()
        },
        cipher: |bits| by_size(bits, [Cipher::aes_128_ctr, Cipher::aes_192_ctr, Cipher::aes_256_ctr]),
        whole: false,
        pads: false,
    },
    AesMode {
        name: "CFB128",
        wanted: |_| Wanted::number(CKM_AES_CFB128, Mechanism::AesCbc(IV)),
        cipher: |bits| by_size(bits, [Cipher::aes_128_cfb128, Cipher::aes_192_cfb128, Cipher::aes_256_cfb128]),
        whole: false,
        pads: false,
    },
    AesMode {
        name: "OFB",
        wanted: |_| Wanted::number(CKM_AES_OFB, Mechanism::AesCbc(IV)),
        cipher: |bits| by_size(bits, [Cipher::aes_128_ofb, Cipher::aes_192_ofb, Cipher::aes_256_ofb]),
        whole: false,
        pads: false,
    },
];

impl AesMode {
    fn wanted(&self) -> Wanted<'static> {
        (self.wanted)(&COUNTER)
    }

    fn openssl(&self, mode: Mode, key: &[u8], data: &[u8]) -> Vec<u8> {
        let cipher = (self.cipher)(key.len() * 8);
        let iv = (self.name != "ECB").then_some(&IV[..]);
        let mut crypter = Crypter::new(cipher, mode, key, iv).unwrap();
        crypter.pad(self.pads);
        let mut output = vec![0; data.len() + BLOCK];
        let count = crypter.update(data, &mut output).unwrap();
        let rest = crypter.finalize(&mut output[count..]).unwrap();
        output.truncate(count + rest);
        output
    }
}

fn import_aes(client: &Client, value: &[u8], token: bool) -> ObjectHandle {
    let usage = [Attribute::Token(token), Attribute::Encrypt(true), Attribute::Decrypt(true)];
    client.session.create_object(&[&secret(KeyType::AES, value)[..], &usage].concat()).unwrap()
}

#[test]
fn aes_of_a_known_key_is_that_of_openssl_in_the_tpm_and_in_memory() {
    let client = Client::new(client::PIN);
    let data: Vec<u8> = (0..4096).map(|number| (number * 7 % 251) as u8).collect();
    for (bits, token) in [(128, true), (256, true), (128, false), (192, false), (256, false)] {
        let value: Vec<u8> = (0..bits / 8).map(|byte| byte as u8 ^ 0x3c).collect();
        let key = import_aes(&client, &value, token);
        for mode in MODES {
            for length in [0, 16, 48, 1024, 4096, 1, 15, 17, 1023, 1025, 3000] {
                let (data, name) = (&data[..length], format!("{} {bits} {token} {length}", mode.name));
                if mode.whole && length % BLOCK != 0 {
                    let refused = client.encrypt(&mode.wanted(), key, data);
                    assert_eq!(refused, Err(RvError::DataLenRange), "{name}");
                    let refused = client.decrypt(&mode.wanted(), key, data);
                    assert_eq!(refused, Err(RvError::EncryptedDataLenRange), "{name}");
                    continue;
                }
                let expected = mode.openssl(Mode::Encrypt, &value, data);
                assert_eq!(client.encrypt(&mode.wanted(), key, data).as_ref(), Ok(&expected), "{name}");
                assert_eq!(client.decrypt(&mode.wanted(), key, &expected).as_deref(), Ok(data), "{name}");
                let in_parts = client.encrypt_in_parts(&mode.wanted(), key, &parts(data));
                assert_eq!(in_parts.as_ref(), Ok(&expected), "{name} in parts");
                let in_parts = client.decrypt_in_parts(&mode.wanted(), key, &parts(&expected));
                assert_eq!(in_parts.as_deref(), Ok(data), "{name} in parts");
            }
        }
    }
}

#[test]
fn a_generated_aes_key_never_leaves_the_tpm_and_works_in_every_mode() {
    let client = Client::new(client::PIN);
    for length in [16, 32] {
        for token in [true, false] {
            let usage = [Attribute::Token(token), Attribute::Encrypt(true), Attribute::Decrypt(true)];
            let key = generate(&client, Mechanism::AesKeyGen, length, &usage).unwrap();
            for (kind, expected) in [
                (CKA_LOCAL, true),
                (CKA_ALWAYS_SENSITIVE, true),
                (CKA_NEVER_EXTRACTABLE, true),
                (CKA_SENSITIVE, true),
                (CKA_EXTRACTABLE, false),
                (CKA_TOKEN, token),
            ] {
                assert_eq!(client.flag(key, kind), expected, "{kind:#x}");
            }
            assert_eq!(client.get(key, CKA_KEY_GEN_MECHANISM), Ok(raw::number(CKM_AES_KEY_GEN)));
            assert_eq!(client.get(key, CKA_VALUE_LEN), Ok(raw::number(length)));
            assert_eq!(client.get(key, CKA_VALUE), Err(RvError::AttributeSensitive));
            let clear = [0xc3; 40];
            for mode in MODES {
                let clear = if mode.whole { &clear[..32] } else { &clear[..] };
                let encrypted = client.encrypt(&mode.wanted(), key, clear).unwrap();
                assert_eq!(client.decrypt(&mode.wanted(), key, &encrypted).as_deref(), Ok(clear), "{}", mode.name);
                assert_eq!(encrypted[..BLOCK], first_block(&client, key, &mode, clear), "{}", mode.name);
            }
        }
    }
}

/// The first block of a mode by the cipher alone (SP 800-38A, chapter 6).
fn first_block(client: &Client, key: ObjectHandle, mode: &AesMode, clear: &[u8]) -> Vec<u8> {
    let cipher = |block: &[u8]| client.encrypt(&Mechanism::AesEcb.into(), key, block).unwrap();
    let xor = |one: &[u8], other: &[u8]| one.iter().zip(other).map(|(one, other)| one ^ other).collect::<Vec<u8>>();
    match mode.name {
        "ECB" => cipher(&clear[..BLOCK]),
        "CBC" | "CBC-PAD" => cipher(&xor(&clear[..BLOCK], &IV)),
        _ => xor(&cipher(&IV), &clear[..BLOCK]),
    }
}

#[test]
fn a_counter_goes_on_over_its_bytes_and_stops_where_it_would_overflow() {
    const LOW_HALF: [u8; 16] = [0x11, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe];
    static HIGH: CK_AES_CTR_PARAMS = CK_AES_CTR_PARAMS { ulCounterBits: 128, cb: LOW_HALF };
    // "If ulCounterBits = 2 and the counter bits start as 1, then only 3 blocks of data can be processed."
    static TWO_BITS: CK_AES_CTR_PARAMS = CK_AES_CTR_PARAMS { ulCounterBits: 2, cb: [1; 16] };
    let client = Client::new(client::PIN);
    let (value, data) = ([9; 16], [0; 64]);
    for token in [true, false] {
        let key = import_aes(&client, &value, token);
        let two_bits = || (MODES[3].wanted)(&TWO_BITS);
        let expected = openssl::symm::encrypt(Cipher::aes_128_ctr(), &value, Some(&TWO_BITS.cb), &data[..48]).unwrap();
        assert_eq!(client.encrypt(&two_bits(), key, &data[..48]), Ok(expected));
        assert_eq!(client.encrypt(&two_bits(), key, &data[..49]), Err(RvError::DataLenRange));
        let overflow = client.encrypt_in_parts(&two_bits(), key, &[&data[..20], &data[..28], &data[..1]]);
        assert_eq!(overflow, Err(RvError::DataLenRange));
        let wanted = || (MODES[3].wanted)(&HIGH);
        let expected = openssl::symm::encrypt(Cipher::aes_128_ctr(), &value, Some(&HIGH.cb), &data).unwrap();
        assert_eq!(client.encrypt(&wanted(), key, &data).as_ref(), Ok(&expected));
        let parts = [&data[..5], &data[5..40], &data[40..]];
        assert_eq!(client.encrypt_in_parts(&wanted(), key, &parts), Ok(expected));
    }
}

#[test]
fn what_does_not_decrypt_is_refused_by_its_reason() {
    let client = Client::new(client::PIN);
    let key = import_aes(&client, &[1; 16], true);
    let [_, cbc, pad, ..] = MODES;
    let mut encrypted = client.encrypt(&cbc.wanted(), key, &[0x77; 32]).unwrap();
    assert_eq!(client.decrypt(&pad.wanted(), key, &encrypted), Err(RvError::EncryptedDataInvalid));
    encrypted.pop();
    assert_eq!(client.decrypt(&pad.wanted(), key, &encrypted), Err(RvError::EncryptedDataLenRange));
    assert_eq!(client.decrypt_in_parts(&pad.wanted(), key, &[&encrypted]), Err(RvError::EncryptedDataLenRange));
    assert_eq!(client.encrypt_in_parts(&cbc.wanted(), key, &[&[1; 17]]), Err(RvError::DataLenRange));
    for kind in [CKM_AES_CBC, CKM_AES_CBC_PAD, CKM_AES_CTR, CKM_AES_CFB128, CKM_AES_OFB] {
        assert_eq!(
            client.encrypt(&Wanted::plain(kind), key, &[1; 16]),
            Err(RvError::MechanismParamInvalid),
            "{kind:#x}"
        );
    }
    let short = Mechanism::VendorDefined(VendorDefinedMechanism::new(MechanismType::AES_CBC, Some(&[0u8; 15])));
    assert_eq!(client.encrypt(&short.into(), key, &[1; 16]), Err(RvError::MechanismParamInvalid));
}

#[test]
fn keys_are_used_only_for_what_they_are() {
    let client = Client::new(client::PIN);
    for token in [true, false] {
        let keep = Attribute::Token(token);
        let usage = [keep.clone(), Attribute::Encrypt(true), Attribute::Decrypt(false)];
        let aes = client.session.create_object(&[&secret(KeyType::AES, &[1; 16])[..], &usage].concat()).unwrap();
        let usage = [keep, Attribute::Sign(true), Attribute::Verify(false)];
        let generic = [&secret(KeyType::GENERIC_SECRET, &[1; 32])[..], &usage].concat();
        let generic = client.session.create_object(&generic).unwrap();
        let ecb = || Wanted::from(Mechanism::AesEcb);
        let hmac = || Wanted::from(Mechanism::Sha256Hmac);
        assert!(client.encrypt(&ecb(), aes, &[1; 16]).is_ok());
        assert_eq!(client.decrypt(&ecb(), aes, &[1; 16]), Err(RvError::KeyFunctionNotPermitted));
        // Neither its type nor its attributes allow it.
        let neither = [RvError::KeyTypeInconsistent, RvError::KeyFunctionNotPermitted];
        assert!(neither.contains(&client.sign(&hmac(), aes, b"x").unwrap_err()));
        assert!(neither.contains(&client.encrypt(&ecb(), generic, &[1; 16]).unwrap_err()));
        let mac = client.sign(&hmac(), generic, b"x").unwrap();
        assert_eq!(client.verify(&hmac(), generic, b"x", &mac), Err(RvError::KeyFunctionNotPermitted));
    }
}

#[test]
fn a_secret_that_cannot_be_made_is_refused_by_its_reason() {
    let client = Client::new(client::PIN);
    let range =
        |result: Answer<ObjectHandle>| matches!(result, Err(RvError::KeySizeRange | RvError::AttributeValueInvalid));
    assert!(range(generate(&client, Mechanism::AesKeyGen, 17, &[])));
    assert!(range(generate(&client, Mechanism::AesKeyGen, 0, &[])));
    assert!(range(generate(&client, Mechanism::GenericSecretKeyGen, 0, &[])));
    for mechanism in [Mechanism::AesKeyGen, Mechanism::GenericSecretKeyGen] {
        let incomplete = answer(client.session.generate_key(&mechanism, &[]));
        assert_eq!(incomplete, Err(RvError::TemplateIncomplete));
    }
    let given = generate(&client, Mechanism::AesKeyGen, 16, &[Attribute::Value(vec![1; 16])]);
    assert!(given.is_err(), "a value is not given to what is generated");
    let local = generate(&client, Mechanism::AesKeyGen, 16, &[Attribute::Local(true)]);
    assert_eq!(local, Err(RvError::AttributeReadOnly));
    let other = generate(&client, Mechanism::AesKeyGen, 16, &[Attribute::KeyType(KeyType::GENERIC_SECRET)]);
    assert_eq!(other, Err(RvError::TemplateInconsistent));
    assert_eq!(client.session.find_objects(&[]).unwrap(), [], "nothing was left behind");
}

/// PKCS#11 3.2, "Dual-function cryptographic functions".
#[test]
fn two_operations_run_at_once_over_the_same_data() {
    let client = Client::new(client::PIN);
    let session = client.session.handle();
    let value = [0x71; 32];
    let aes = import_aes(&client, &value, true);
    let usage = [Attribute::Sign(true), Attribute::Verify(true)];
    let hmac_key = [&secret(KeyType::GENERIC_SECRET, &value)[..], &usage].concat();
    let hmac_key = client.session.create_object(&hmac_key).unwrap();
    let cbc = || MODES[2].wanted();
    let hmac = || Wanted::from(Mechanism::Sha256Hmac);
    let data: Vec<u8> = (0..200).map(|number| number as u8).collect();
    let encrypted = MODES[2].openssl(Mode::Encrypt, &value, &data);
    let digest = openssl::sha::sha256(&data).to_vec();
    let mac = client.sign(&hmac(), hmac_key, &data).unwrap();
    /// Runs a function over data in parts, and gives what it gave.
    macro_rules! over {
        ($data:expr, $name:ident) => {{
            let mut output = Vec::new();
            for part in $data.chunks(48) {
                let (mut given, mut length) = (vec![0; 256], 256);
                let count = part.len() as CK_ULONG;
                let (part, place) = (part.as_ptr().cast_mut(), given.as_mut_ptr());
                call!(client.raw, $name(session, part, count, place, &mut length)).unwrap();
                output.extend_from_slice(&given[..length as usize]);
            }
            output
        }};
    }
    let digest_started = || call!(client.raw, C_DigestInit(session, &mut raw::mechanism(CKM_SHA256))).unwrap();

    digest_started();
    client.start(Start::Encrypt, &cbc(), aes).unwrap();
    let mut output = over!(data, C_DigestEncryptUpdate);
    output.extend(client.session.encrypt_final().unwrap());
    assert_eq!((output, client.session.digest_final().unwrap()), (encrypted.clone(), digest.clone()));

    digest_started();
    client.start(Start::Decrypt, &cbc(), aes).unwrap();
    let mut output = over!(encrypted, C_DecryptDigestUpdate);
    let last = client.session.decrypt_final().unwrap();
    client.session.digest_update(&last).unwrap();
    output.extend(last);
    assert_eq!((output, client.session.digest_final().unwrap()), (data.clone(), digest));

    client.start(Start::Sign, &hmac(), hmac_key).unwrap();
    client.start(Start::Encrypt, &cbc(), aes).unwrap();
    let mut output = over!(data, C_SignEncryptUpdate);
    output.extend(client.session.encrypt_final().unwrap());
    assert_eq!((output, client.session.sign_final().unwrap()), (encrypted.clone(), mac.clone()));

    client.start(Start::Verify, &hmac(), hmac_key).unwrap();
    client.start(Start::Decrypt, &cbc(), aes).unwrap();
    let mut output = over!(encrypted, C_DecryptVerifyUpdate);
    let last = client.session.decrypt_final().unwrap();
    client.session.verify_update(&last).unwrap();
    output.extend(last);
    assert_eq!(output, data);
    client.session.verify_final(&mac).unwrap();
}

#[test]
fn a_session_makes_and_uses_public_secrets_without_a_login() {
    let client = Client::new(client::PIN);
    let imported = import_aes(&client, &[5; 16], true);
    client.session.logout().unwrap();
    let public = [&secret(KeyType::AES, &[5; 16])[..], &[Attribute::Private(false), Attribute::Encrypt(true)]].concat();
    let public = client.session.create_object(&public).unwrap();
    let expected = openssl::symm::encrypt(Cipher::aes_128_cbc(), &[5; 16], Some(&IV), b"data").unwrap();
    assert_eq!(client.encrypt(&Mechanism::AesCbcPad(IV).into(), public, b"data"), Ok(expected));
    let private = [&secret(KeyType::AES, &[5; 16])[..], &[Attribute::Private(true)]].concat();
    assert_eq!(answer(client.session.create_object(&private)), Err(RvError::UserNotLoggedIn));
    let generated = generate(&client, Mechanism::AesKeyGen, 16, &[Attribute::Token(true)]);
    assert_eq!(generated, Err(RvError::UserNotLoggedIn));
    let gone = client.encrypt(&Mechanism::AesEcb.into(), imported, &[1; 16]);
    assert_eq!(gone, Err(RvError::KeyHandleInvalid), "a private object is not even seen");
}
