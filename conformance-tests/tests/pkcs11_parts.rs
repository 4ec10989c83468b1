//! The same data at once and in parts, for every kind of mechanism: what comes out, when, and what ends an operation.

mod raw;

use std::ptr::null_mut;

use conformance_tests::Device;
use cryptoki_sys::*;
use openssl::hash::{MessageDigest, hash};
use openssl::symm::{Cipher, Crypter, Mode};
use raw::{Given, P256, PIN, Raw, Rv, Wanted, call, flag, number};

const KEY: [u8; 16] = *b"the key of tests";
const IV: [u8; 16] = *b"what begins it :";

/// A token, and a session with it in which the user is logged in.
struct Bench {
    raw: Raw,
    session: CK_SESSION_HANDLE,
    _device: Device,
}

impl Bench {
    fn new() -> Self {
        let device = Device::new();
        let raw = Raw::initialised(&device);
        raw.make_token(0, "dev");
        let session = raw.open(0);
        raw.login(session, CKU_USER, PIN).unwrap();
        Self { raw, session, _device: device }
    }

    fn aes(&self) -> CK_OBJECT_HANDLE {
        self.secret(CKK_AES, &KEY, &[CKA_ENCRYPT, CKA_DECRYPT])
    }

    fn secret(&self, kind: CK_KEY_TYPE, value: &[u8], purposes: &[CK_ATTRIBUTE_TYPE]) -> CK_OBJECT_HANDLE {
        let mut template = vec![
            (CKA_CLASS, number(CKO_SECRET_KEY)),
            (CKA_KEY_TYPE, number(kind)),
            (CKA_TOKEN, flag(true)),
            (CKA_VALUE, value.to_vec()),
        ];
        template.extend(purposes.iter().map(|purpose| (*purpose, flag(true))));
        self.raw.create(self.session, &template).unwrap()
    }

    fn rsa(&self) -> (CK_OBJECT_HANDLE, CK_OBJECT_HANDLE) {
        let on = |kinds: [CK_ATTRIBUTE_TYPE; 3]| kinds.map(|kind| (kind, flag(true)));
        let public = [&on([CKA_VERIFY, CKA_ENCRYPT, CKA_VERIFY_RECOVER])[..], &[(CKA_MODULUS_BITS, number(2048))]];
        let private = on([CKA_SIGN, CKA_DECRYPT, CKA_SIGN_RECOVER]);
        self.raw.generate(self.session, CKM_RSA_PKCS_KEY_PAIR_GEN, &public.concat(), &private).unwrap()
    }

    fn ec(&self) -> (CK_OBJECT_HANDLE, CK_OBJECT_HANDLE) {
        self.raw.generate(self.session, CKM_EC_KEY_PAIR_GEN, &[(CKA_EC_PARAMS, P256.to_vec())], &[]).unwrap()
    }

    fn begin(&self, init: CK_C_SignInit, wanted: &Wanted, key: CK_OBJECT_HANDLE) -> Rv<()> {
        self.raw.begin(init, self.session, wanted, key)
    }

    fn at_once(&self, function: CK_C_Sign, data: &[u8]) -> Rv<Vec<u8>> {
        self.raw.through(function, self.session, data)
    }

    /// Each part, and then what is left.
    fn in_parts(&self, update: CK_C_EncryptUpdate, last: CK_C_SignFinal, parts: &[&[u8]]) -> Rv<Vec<Vec<u8>>> {
        let mut out = Vec::new();
        for part in parts {
            out.push(self.raw.through(update, self.session, part)?);
        }
        out.push(self.raw.last(last, self.session)?);
        Ok(out)
    }

    fn add(&self, update: CK_C_SignUpdate, part: &[u8]) -> Rv<()> {
        self.raw.add(update, self.session, part)
    }

    fn encrypt(&self, wanted: &Wanted, key: CK_OBJECT_HANDLE, data: &[u8]) -> Rv<Vec<u8>> {
        self.begin(self.raw.list.C_EncryptInit, wanted, key)?;
        self.at_once(self.raw.list.C_Encrypt, data)
    }

    fn decrypt(&self, wanted: &Wanted, key: CK_OBJECT_HANDLE, data: &[u8]) -> Rv<Vec<u8>> {
        self.begin(self.raw.list.C_DecryptInit, wanted, key)?;
        self.at_once(self.raw.list.C_Decrypt, data)
    }

    /// Verifies a signature that is given before the data; at once where there is one part.
    fn verify_given(&self, wanted: &Wanted, key: CK_OBJECT_HANDLE, signature: &[u8], parts: &[&[u8]]) -> Rv<()> {
        let (raw, list) = (&self.raw, self.raw.list);
        let mut mechanism = wanted.mechanism();
        let (address, length) = (signature.as_ptr().cast_mut(), signature.len() as CK_ULONG);
        call!(raw, C_VerifySignatureInit(self.session, &mut mechanism, key, address, length))?;
        if let [data] = parts {
            return raw.add(list.C_VerifySignature, self.session, data);
        }
        for part in parts {
            raw.add(list.C_VerifySignatureUpdate, self.session, part)?;
        }
        call!(raw, C_VerifySignatureFinal(self.session))
    }

    fn is_over(&self, function: CK_C_Sign) -> bool {
        self.at_once(function, b"") == Err(CKR_OPERATION_NOT_INITIALIZED)
    }
}

/// Ways to cut data, the whole and single bytes among them.
fn cuts(data: &[u8]) -> Vec<Vec<&[u8]>> {
    let each = |length: usize| data.chunks(length).collect::<Vec<_>>();
    let mut cuts: Vec<_> = [1, 5, 15, 16, 17, 31, 32, 33].into_iter().map(each).collect();
    cuts.push(vec![data]);
    cuts.push(vec![b"", data, b""]);
    cuts
}

fn message(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 7 + length) as u8).collect()
}

struct BlockMode {
    wanted: Wanted,
    openssl: Cipher,
    /// It works on whole blocks only.
    blocks: bool,
    padded: bool,
}

fn modes() -> Vec<BlockMode> {
    let counter = [&number(64)[..], &IV].concat();
    let mode = |kind, parameter: &[u8], openssl, blocks| BlockMode {
        wanted: Wanted(kind, parameter.to_vec()),
        openssl,
        blocks,
        padded: kind == CKM_AES_CBC_PAD,
    };
    vec![
        mode(CKM_AES_ECB, &[], Cipher::aes_128_ecb(), true),
        mode(CKM_AES_CBC, &IV, Cipher::aes_128_cbc(), true),
        mode(CKM_AES_CBC_PAD, &IV, Cipher::aes_128_cbc(), false),
        mode(CKM_AES_CTR, &counter, Cipher::aes_128_ctr(), false),
        mode(CKM_AES_CFB128, &IV, Cipher::aes_128_cfb128(), false),
        mode(CKM_AES_OFB, &IV, Cipher::aes_128_ofb(), false),
    ]
}

fn openssl_encrypts(mode: &BlockMode, data: &[u8]) -> Vec<u8> {
    let mut crypter = Crypter::new(mode.openssl, Mode::Encrypt, &KEY, Some(&IV)).unwrap();
    crypter.pad(mode.padded);
    let mut out = vec![0; data.len() + 32];
    let mut length = crypter.update(data, &mut out).unwrap();
    length += crypter.finalize(&mut out[length..]).unwrap();
    out.truncate(length);
    out
}

#[test]
fn ciphers_give_in_parts_what_they_give_at_once_and_as_soon_as_it_can_be_computed() {
    let bench = Bench::new();
    let (aes, list) = (bench.aes(), bench.raw.list);
    for mode in modes() {
        let kind = mode.wanted.0;
        let lengths = if mode.blocks { vec![0, 16, 32, 80] } else { vec![0, 1, 15, 16, 17, 32, 70] };
        for length in lengths {
            let clear = message(length);
            let expected = openssl_encrypts(&mode, &clear);
            assert_eq!(bench.encrypt(&mode.wanted, aes, &clear).unwrap(), expected, "{kind:#x}, {length}");
            assert_eq!(bench.decrypt(&mode.wanted, aes, &expected).unwrap(), clear, "{kind:#x}, {length}");
            for parts in cuts(&clear) {
                bench.begin(list.C_EncryptInit, &mode.wanted, aes).unwrap();
                let out = bench.in_parts(list.C_EncryptUpdate, list.C_EncryptFinal, &parts).unwrap();
                assert_eq!(out.concat(), expected, "{kind:#x}, {length} in {} parts", parts.len());
                assert!(bench.is_over(list.C_Encrypt));
                check_pace(&mode, &parts, &out, false);
            }
            for parts in cuts(&expected) {
                bench.begin(list.C_DecryptInit, &mode.wanted, aes).unwrap();
                let out = bench.in_parts(list.C_DecryptUpdate, list.C_DecryptFinal, &parts).unwrap();
                assert_eq!(out.concat(), clear, "{kind:#x}, {length} in {} parts", parts.len());
                assert!(bench.is_over(list.C_Decrypt));
                check_pace(&mode, &parts, &out, mode.padded);
            }
        }
    }
}

/// Functions "should always return as much output as can be computed from what has been passed in to them thus far"
/// (5.2): every whole block, but the last one of what may be padded.
fn check_pace(mode: &BlockMode, parts: &[&[u8]], out: &[Vec<u8>], holds_back: bool) {
    let (mut given, mut got) = (0, 0);
    for (part, written) in parts.iter().zip(out) {
        (given, got) = (given + part.len(), got + written.len());
        let ready = if holds_back { given.saturating_sub(1) } else { given };
        assert!(got >= ready / 16 * 16 && got <= given, "{:#x}: {got} of {given}", mode.wanted.0);
    }
}

#[test]
fn input_and_output_may_be_at_the_same_place() {
    let bench = Bench::new();
    let (aes, list) = (bench.aes(), bench.raw.list);
    for mode in modes() {
        let clear = message(64);
        let expected = openssl_encrypts(&mode, &clear);
        let in_place = |init, function: CK_C_Encrypt, data: &[u8]| {
            bench.begin(init, &mode.wanted, aes).unwrap();
            let mut place = [data, &[0; 32]].concat();
            let (address, mut room) = (place.as_mut_ptr(), place.len() as CK_ULONG);
            // SAFETY: the function may be given the same place twice; there is as much room as it is told.
            let value =
                unsafe { function.unwrap()(bench.session, address, data.len() as CK_ULONG, address, &mut room) };
            assert_eq!(value, CKR_OK, "{:#x}", mode.wanted.0);
            place.truncate(room as usize);
            place
        };
        assert_eq!(in_place(list.C_EncryptInit, list.C_Encrypt, &clear), expected, "{:#x}", mode.wanted.0);
        assert_eq!(in_place(list.C_DecryptInit, list.C_Decrypt, &expected), clear, "{:#x}", mode.wanted.0);
        let begun = in_place(list.C_EncryptInit, list.C_EncryptUpdate, &clear);
        assert!(expected.starts_with(&begun));
        let _ = bench.raw.last(list.C_EncryptFinal, bench.session).unwrap();
        let begun = in_place(list.C_DecryptInit, list.C_DecryptUpdate, &expected);
        assert!(clear.starts_with(&begun) && begun.len() >= 48);
        let _ = bench.raw.last(list.C_DecryptFinal, bench.session).unwrap();
    }
}

#[test]
fn data_of_a_length_that_a_cipher_does_not_take_ends_it() {
    let bench = Bench::new();
    let (aes, list) = (bench.aes(), bench.raw.list);
    let bad_ciphertext = [Err(CKR_ENCRYPTED_DATA_LEN_RANGE), Err(CKR_ENCRYPTED_DATA_INVALID)];
    for mode in modes() {
        if mode.blocks {
            assert_eq!(bench.encrypt(&mode.wanted, aes, &message(20)), Err(CKR_DATA_LEN_RANGE));
            assert!(bench.is_over(list.C_Encrypt));
            bench.begin(list.C_EncryptInit, &mode.wanted, aes).unwrap();
            let refused = bench.in_parts(list.C_EncryptUpdate, list.C_EncryptFinal, &[&message(20)]);
            assert_eq!(refused, Err(CKR_DATA_LEN_RANGE));
            assert!(bench.is_over(list.C_Encrypt));
        }
        if mode.blocks || mode.padded {
            let too_short = if mode.padded { vec![0, 15, 20] } else { vec![15, 20] };
            for length in too_short {
                let refused = bench.decrypt(&mode.wanted, aes, &message(length));
                assert!(bad_ciphertext.contains(&refused), "{:#x}, {length}: {refused:x?}", mode.wanted.0);
                assert!(bench.is_over(list.C_Decrypt));
                bench.begin(list.C_DecryptInit, &mode.wanted, aes).unwrap();
                let refused = bench.in_parts(list.C_DecryptUpdate, list.C_DecryptFinal, &[&message(length)]);
                assert!(refused.is_err_and(|error| bad_ciphertext.contains(&Err(error))), "{:#x}", mode.wanted.0);
                assert!(bench.is_over(list.C_Decrypt));
            }
        }
        if mode.padded {
            // Its last block is no padding.
            let unpadded = BlockMode { padded: false, ..mode };
            let encrypted = openssl_encrypts(&unpadded, &[0; 32]);
            assert_eq!(bench.decrypt(&unpadded.wanted, aes, &encrypted), Err(CKR_ENCRYPTED_DATA_INVALID));
            assert!(bench.is_over(list.C_Decrypt));
        }
    }
}

#[test]
fn a_cipher_takes_no_other_parameter_than_its_own() {
    let bench = Bench::new();
    let (aes, list) = (bench.aes(), bench.raw.list);
    let refused = |kind, parameter: &[u8]| {
        let wanted = Wanted(kind, parameter.to_vec());
        for init in [list.C_EncryptInit, list.C_DecryptInit] {
            let refused = bench.begin(init, &wanted, aes);
            assert_eq!(refused, Err(CKR_MECHANISM_PARAM_INVALID), "{kind:#x}, {parameter:x?}");
        }
    };
    for kind in [CKM_AES_CBC, CKM_AES_CBC_PAD, CKM_AES_CFB128, CKM_AES_OFB] {
        for length in [0, 8, 15, 17, 32] {
            refused(kind, &IV.repeat(2)[..length]);
        }
    }
    refused(CKM_AES_ECB, &IV);
    for bits in [0, 129, CK_ULONG::MAX] {
        refused(CKM_AES_CTR, &[&number(bits)[..], &IV].concat());
    }
    refused(CKM_AES_CTR, &IV);
    refused(CKM_AES_CTR, &[]);
}

/// "If ulCounterBits = 2 and the counter bits start as 1 then only 3 blocks of data can be processed" (AES with counter).
#[test]
fn a_counter_does_not_begin_anew() {
    let bench = Bench::new();
    let (aes, list) = (bench.aes(), bench.raw.list);
    let mut block = [0; 16];
    block[15] = 1;
    let wanted = Wanted(CKM_AES_CTR, [&number(2)[..], &block].concat());
    assert_eq!(bench.encrypt(&wanted, aes, &message(48)).unwrap().len(), 48);
    assert_eq!(bench.encrypt(&wanted, aes, &message(49)), Err(CKR_DATA_LEN_RANGE));
    assert!(bench.is_over(list.C_Encrypt));
    bench.begin(list.C_EncryptInit, &wanted, aes).unwrap();
    let parts = [&message(40)[..], &message(8)];
    let out = bench.in_parts(list.C_EncryptUpdate, list.C_EncryptFinal, &parts).unwrap().concat();
    assert_eq!(out, bench.encrypt(&wanted, aes, &parts.concat()).unwrap());
    bench.begin(list.C_EncryptInit, &wanted, aes).unwrap();
    let refused = bench.in_parts(list.C_EncryptUpdate, list.C_EncryptFinal, &[&message(40), &message(9)]);
    assert_eq!(refused, Err(CKR_DATA_LEN_RANGE));
    assert!(bench.is_over(list.C_Encrypt));
}

#[test]
fn rsa_encrypts_at_once_what_is_not_too_long() {
    let bench = Bench::new();
    let ((public, private), list) = (bench.rsa(), bench.raw.list);
    let oaep = Wanted::words(CKM_RSA_PKCS_OAEP, &[CKM_SHA256, CKG_MGF1_SHA256, CKZ_DATA_SPECIFIED, 0, 0]);
    for (wanted, longest) in [(Wanted(CKM_RSA_PKCS, vec![]), 245), (oaep, 190)] {
        for length in [0, 1, longest] {
            let clear = message(length);
            let encrypted = bench.encrypt(&wanted, public, &clear).unwrap();
            assert_eq!(encrypted.len(), 256);
            assert_eq!(bench.decrypt(&wanted, private, &encrypted).unwrap(), clear, "{:#x}", wanted.0);
        }
        assert_eq!(bench.encrypt(&wanted, public, &message(longest + 1)), Err(CKR_DATA_LEN_RANGE), "{:#x}", wanted.0);
        assert!(bench.is_over(list.C_Encrypt));
        for length in [0, 255, 257] {
            let refused = bench.decrypt(&wanted, private, &message(length));
            assert_eq!(refused, Err(CKR_ENCRYPTED_DATA_LEN_RANGE), "{:#x}, {length}", wanted.0);
            assert!(bench.is_over(list.C_Decrypt));
        }
    }
}

#[test]
fn digests_are_the_same_in_parts_and_begin_anew_each_time() {
    let bench = Bench::new();
    let list = bench.raw.list;
    let digests = [
        (CKM_SHA_1, MessageDigest::sha1()),
        (CKM_SHA224, MessageDigest::sha224()),
        (CKM_SHA256, MessageDigest::sha256()),
        (CKM_SHA384, MessageDigest::sha384()),
        (CKM_SHA512, MessageDigest::sha512()),
        (CKM_SHA3_224, MessageDigest::sha3_224()),
        (CKM_SHA3_256, MessageDigest::sha3_256()),
        (CKM_SHA3_384, MessageDigest::sha3_384()),
        (CKM_SHA3_512, MessageDigest::sha3_512()),
    ];
    for (kind, openssl) in digests {
        for length in [0, 1, 55, 56, 64, 127, 128, 144, 300] {
            let data = message(length);
            let expected = hash(openssl, &data).unwrap().to_vec();
            let begin = || call!(bench.raw, C_DigestInit(bench.session, &mut raw::mechanism(kind))).unwrap();
            begin();
            assert_eq!(bench.at_once(list.C_Digest, &data).unwrap(), expected, "{kind:#x}, {length}");
            for parts in cuts(&data) {
                begin();
                for part in parts {
                    bench.add(list.C_DigestUpdate, part).unwrap();
                }
                assert_eq!(bench.raw.last(list.C_DigestFinal, bench.session).unwrap(), expected, "{kind:#x}, {length}");
                assert!(bench.is_over(list.C_Digest));
            }
        }
    }
}

#[test]
fn a_key_is_digested_where_its_value_is_known() {
    let bench = Bench::new();
    let list = bench.raw.list;
    let template: [Given; 5] = [
        (CKA_CLASS, number(CKO_SECRET_KEY)),
        (CKA_KEY_TYPE, number(CKK_GENERIC_SECRET)),
        (CKA_VALUE, b"a secret".to_vec()),
        (CKA_EXTRACTABLE, flag(true)),
        (CKA_SENSITIVE, flag(false)),
    ];
    let secret = bench.raw.create(bench.session, &template).unwrap();
    call!(bench.raw, C_DigestInit(bench.session, &mut raw::mechanism(CKM_SHA256))).unwrap();
    bench.add(list.C_DigestUpdate, b"before ").unwrap();
    call!(bench.raw, C_DigestKey(bench.session, secret)).unwrap();
    // Neither a key in the TPM nor a public one can be, and the digest goes on without them.
    for key in [bench.aes(), bench.ec().0, bench.ec().1] {
        assert_eq!(call!(bench.raw, C_DigestKey(bench.session, key)), Err(CKR_KEY_INDIGESTIBLE));
    }
    bench.add(list.C_DigestUpdate, b" after").unwrap();
    let expected = hash(MessageDigest::sha256(), b"before a secret after").unwrap();
    assert_eq!(bench.raw.last(list.C_DigestFinal, bench.session).unwrap(), *expected);
}

/// Mechanisms with a private key, a public one, and whether they give the same each time.
fn signers(bench: &Bench) -> Vec<(Wanted, CK_OBJECT_HANDLE, CK_OBJECT_HANDLE, bool)> {
    let (rsa, ec) = (bench.rsa(), bench.ec());
    let mac = bench.secret(CKK_GENERIC_SECRET, b"a key for MACs, of 32 bytes, yes", &[CKA_SIGN, CKA_VERIFY]);
    let pss = |kind, hash, mgf, salt| Wanted::words(kind, &[hash, mgf, salt]);
    vec![
        (Wanted(CKM_SHA256_RSA_PKCS, vec![]), rsa.1, rsa.0, true),
        (Wanted(CKM_SHA512_RSA_PKCS, vec![]), rsa.1, rsa.0, true),
        (pss(CKM_SHA256_RSA_PKCS_PSS, CKM_SHA256, CKG_MGF1_SHA256, 32), rsa.1, rsa.0, false),
        (pss(CKM_SHA384_RSA_PKCS_PSS, CKM_SHA384, CKG_MGF1_SHA384, 20), rsa.1, rsa.0, false),
        (Wanted(CKM_ECDSA_SHA256, vec![]), ec.1, ec.0, false),
        (Wanted(CKM_ECDSA_SHA512, vec![]), ec.1, ec.0, false),
        (Wanted(CKM_ECDSA_SHA3_256, vec![]), ec.1, ec.0, false),
        (Wanted(CKM_SHA256_HMAC, vec![]), mac, mac, true),
        (Wanted(CKM_SHA512_HMAC, vec![]), mac, mac, true),
        (Wanted::words(CKM_SHA256_HMAC_GENERAL, &[11]), mac, mac, true),
    ]
}

#[test]
fn signatures_and_macs_are_made_and_verified_at_once_and_in_parts() {
    let bench = Bench::new();
    let list = bench.raw.list;
    let verify = |signature: &[u8]| {
        let (address, length) = (signature.as_ptr().cast_mut(), signature.len() as CK_ULONG);
        call!(bench.raw, C_VerifyFinal(bench.session, address, length))
    };
    for (wanted, private, public, repeats) in signers(&bench) {
        let kind = wanted.0;
        let data = message(100);
        bench.begin(list.C_SignInit, &wanted, private).unwrap();
        let at_once = bench.at_once(list.C_Sign, &data).unwrap();
        let mut signatures = vec![at_once.clone()];
        for parts in [&cuts(&data)[4], &cuts(&data)[9]] {
            bench.begin(list.C_SignInit, &wanted, private).unwrap();
            for part in parts {
                bench.add(list.C_SignUpdate, part).unwrap();
            }
            signatures.push(bench.raw.last(list.C_SignFinal, bench.session).unwrap());
            assert!(bench.is_over(list.C_Sign));
        }
        for signature in &signatures {
            assert!(!repeats || *signature == at_once, "{kind:#x}");
            for parts in [&cuts(&data)[2], &cuts(&data)[8]] {
                bench.begin(list.C_VerifyInit, &wanted, public).unwrap();
                for part in parts {
                    bench.add(list.C_VerifyUpdate, part).unwrap();
                }
                assert_eq!(verify(signature), Ok(()), "{kind:#x}");
                assert_eq!(verify(signature), Err(CKR_OPERATION_NOT_INITIALIZED));
            }
        }
        for parts in cuts(&data) {
            assert_eq!(bench.verify_given(&wanted, public, &at_once, &parts), Ok(()), "{kind:#x}");
        }
        // Another message, another signature, one that is too short or too long: each ends it.
        let mut wrong = at_once.clone();
        wrong[3] ^= 1;
        let longer = [&at_once[..], &[0]].concat();
        let (less, more) = (&data[1..], [&data[..], &[0]].concat());
        for (data, signature, code) in [
            (less, &at_once[..], CKR_SIGNATURE_INVALID),
            (&more, &at_once, CKR_SIGNATURE_INVALID),
            (&data, &wrong, CKR_SIGNATURE_INVALID),
            (&data, &at_once[1..], CKR_SIGNATURE_LEN_RANGE),
            (&data, &longer, CKR_SIGNATURE_LEN_RANGE),
            (&data, &[], CKR_SIGNATURE_LEN_RANGE),
        ] {
            bench.begin(list.C_VerifyInit, &wanted, public).unwrap();
            bench.add(list.C_VerifyUpdate, data).unwrap();
            assert_eq!(verify(signature), Err(code), "{kind:#x}");
            assert_eq!(verify(signature), Err(CKR_OPERATION_NOT_INITIALIZED));
            bench.begin(list.C_VerifyInit, &wanted, public).unwrap();
            let refused = bench.raw.check(list.C_Verify, bench.session, data, signature);
            assert_eq!(refused, Err(code), "{kind:#x}");
            let again = bench.raw.check(list.C_Verify, bench.session, data, signature);
            assert_eq!(again, Err(CKR_OPERATION_NOT_INITIALIZED));
            assert_eq!(bench.verify_given(&wanted, public, signature, &[data]), Err(code), "{kind:#x}");
        }
    }
    assert_eq!(call!(bench.raw, C_VerifyInit(bench.session, null_mut(), 0)), Ok(()));
}
