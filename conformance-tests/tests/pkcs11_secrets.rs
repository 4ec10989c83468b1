//! Secrets that come into being by C_DeriveKey and C_UnwrapKey, and leave by C_WrapKey: what their templates may say, and
//! by which code each thing that cannot be is refused.

mod attributes;
mod raw;

use attributes::{Form, GENERIC, TABLE};
use conformance_tests::Device;
use cryptoki_sys::*;
use raw::{Given, P256, PIN, Raw, Rv, Wanted, flag, number};

const UNKNOWN: CK_ATTRIBUTE_TYPE = CKA_VENDOR_DEFINED | 0x7fff_0001;

struct Bench {
    raw: Raw,
    session: CK_SESSION_HANDLE,
    point: Vec<u8>,
    _device: Device,
}

impl Bench {
    fn new() -> Self {
        let device = Device::new();
        let raw = Raw::initialised(&device);
        raw.make_token(0, "dev");
        let session = raw.open(0);
        raw.login(session, CKU_USER, PIN).unwrap();
        // Another's public key.
        let group = openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::X9_62_PRIME256V1).unwrap();
        let other = openssl::ec::EcKey::generate(&group).unwrap();
        let mut context = openssl::bn::BigNumContext::new().unwrap();
        let form = openssl::ec::PointConversionForm::UNCOMPRESSED;
        let point = other.public_key().to_bytes(&group, form, &mut context).unwrap();
        Self { raw, session, point, _device: device }
    }

    fn pair(&self, kind: CK_MECHANISM_TYPE, public: &[Given], private: &[CK_ATTRIBUTE_TYPE]) -> (CK_ULONG, CK_ULONG) {
        let private: Vec<_> = private.iter().map(|purpose| (*purpose, flag(true))).collect();
        self.raw.generate(self.session, kind, public, &private).unwrap()
    }

    fn ecdh(&self) -> Wanted {
        let point = self.point.as_ptr() as CK_ULONG;
        Wanted::words(CKM_ECDH1_DERIVE, &[CKD_NULL, 0, 0, self.point.len() as CK_ULONG, point])
    }

    fn secret(&self, kind: CK_KEY_TYPE, value: &[u8], more: &[Given]) -> CK_OBJECT_HANDLE {
        let template = [(CKA_CLASS, number(CKO_SECRET_KEY)), (CKA_KEY_TYPE, number(kind)), (CKA_VALUE, value.to_vec())];
        self.raw.create(self.session, &[&template[..], more].concat()).unwrap()
    }
}

fn generic() -> Vec<Given> {
    vec![(CKA_CLASS, number(CKO_SECRET_KEY)), (CKA_KEY_TYPE, number(CKK_GENERIC_SECRET))]
}

/// What may be seen.
fn open() -> [Given; 2] {
    [(CKA_EXTRACTABLE, flag(true)), (CKA_SENSITIVE, flag(false))]
}

/// Checks a function that makes a secret of a template.
fn check_templates(name: &str, make: &dyn Fn(&[Given]) -> Rv<CK_OBJECT_HANDLE>) {
    let with = |more: &[Given]| {
        let kept: Vec<_> =
            generic().into_iter().filter(|(kind, _)| more.iter().all(|(other, _)| other != kind)).collect();
        make(&[&kept[..], more].concat())
    };
    assert!(with(&[]).is_ok(), "{name}");
    for attribute in TABLE.iter().filter(|attribute| attribute.of & GENERIC != 0) {
        let what = format!("{name}: {:#x}", attribute.kind);
        if attribute.has(6) {
            let value = if attribute.form == Form::Number { number(1) } else { flag(true) };
            assert_eq!(with(&[(attribute.kind, value)]), Err(CKR_ATTRIBUTE_READ_ONLY), "{what}");
        }
        for misfit in attribute.form.misfits() {
            let refused = with(&[(attribute.kind, misfit)]);
            let read_only = attribute.has(6) && refused == Err(CKR_ATTRIBUTE_READ_ONLY);
            assert!(read_only || refused == Err(CKR_ATTRIBUTE_VALUE_INVALID), "{what}: {refused:x?}");
        }
    }
    assert_eq!(make(&generic()[..1]), Err(CKR_TEMPLATE_INCOMPLETE), "{name}: the key's type tells its length");
    assert_eq!(with(&[(UNKNOWN, vec![])]), Err(CKR_ATTRIBUTE_TYPE_INVALID), "{name}");
    assert_eq!(with(&[(CKA_MODULUS, vec![1])]), Err(CKR_TEMPLATE_INCONSISTENT), "{name}");
    assert_eq!(with(&[(CKA_CLASS, number(CKO_PRIVATE_KEY))]), Err(CKR_TEMPLATE_INCONSISTENT), "{name}");
    assert_eq!(with(&[(CKA_KEY_TYPE, number(CKK_RSA))]), Err(CKR_TEMPLATE_INCONSISTENT), "{name}");
}

#[test]
fn the_template_of_a_derived_secret_is_checked_wholly() {
    let bench = Bench::new();
    let (_, base) = bench.pair(CKM_EC_KEY_PAIR_GEN, &[(CKA_EC_PARAMS, P256.to_vec())], &[CKA_DERIVE]);
    let derive = |template: &[Given]| bench.raw.derive(bench.session, &bench.ecdh(), base, template);
    check_templates("C_DeriveKey", &derive);
    let key = derive(&[&generic()[..], &open()].concat()).unwrap();
    for (kind, value) in [
        (CKA_LOCAL, flag(false)),
        (CKA_KEY_GEN_MECHANISM, number(CK_UNAVAILABLE_INFORMATION)),
        (CKA_ALWAYS_SENSITIVE, flag(false)),
        (CKA_NEVER_EXTRACTABLE, flag(false)),
        (CKA_VALUE_LEN, number(32)),
        (CKA_TOKEN, flag(false)),
    ] {
        assert_eq!(bench.raw.get(bench.session, key, kind), Ok(value), "{kind:#x}");
    }
    // "Sensitive" once said is not taken back, and the value is seen no more.
    assert_eq!(bench.raw.get(bench.session, key, CKA_VALUE).unwrap().len(), 32);
    bench.raw.set(bench.session, key, &[(CKA_SENSITIVE, flag(true))]).unwrap();
    assert_eq!(bench.raw.get(bench.session, key, CKA_VALUE), Err(CKR_ATTRIBUTE_SENSITIVE));
    let refused = bench.raw.set(bench.session, key, &[(CKA_SENSITIVE, flag(false))]);
    assert_eq!(refused, Err(CKR_ATTRIBUTE_READ_ONLY));
}

#[test]
fn a_point_that_is_none_and_a_length_that_cannot_be_are_refused() {
    let bench = Bench::new();
    let (_, base) = bench.pair(CKM_EC_KEY_PAIR_GEN, &[(CKA_EC_PARAMS, P256.to_vec())], &[CKA_DERIVE]);
    let mut off_curve = bench.point.clone();
    off_curve[64] ^= 1;
    for point in [&off_curve[..], &bench.point[1..], &bench.point[..64], &[4; 65], &[0], &[]] {
        let (length, address) = (point.len() as CK_ULONG, point.as_ptr() as CK_ULONG);
        let wanted = Wanted::words(CKM_ECDH1_DERIVE, &[CKD_NULL, 0, 0, length, address]);
        let refused = bench.raw.derive(bench.session, &wanted, base, &generic());
        let codes = [Err(CKR_MECHANISM_PARAM_INVALID), Err(CKR_PUBLIC_KEY_INVALID)];
        assert!(codes.contains(&refused), "{point:x?}: {refused:x?}");
    }
    let length = bench.point.len() as CK_ULONG;
    for words in [
        // NULL where the point should be, an unknown derivation, shared data where there is none to share.
        [CKD_NULL, 0, 0, length, 0],
        [4711, 0, 0, length, bench.point.as_ptr() as CK_ULONG],
        [CKD_SHA256_KDF, 5, 0, length, bench.point.as_ptr() as CK_ULONG],
        [CKD_NULL, 5, bench.point.as_ptr() as CK_ULONG, length, bench.point.as_ptr() as CK_ULONG],
        [CKD_NULL, 0, 0, CK_ULONG::MAX, bench.point.as_ptr() as CK_ULONG],
    ] {
        let wanted = Wanted::words(CKM_ECDH1_DERIVE, &words);
        let refused = bench.raw.derive(bench.session, &wanted, base, &generic());
        assert_eq!(refused, Err(CKR_MECHANISM_PARAM_INVALID), "{words:x?}");
    }
    for length in [0, 33, 10_000] {
        let template = [&generic()[..], &[(CKA_VALUE_LEN, number(length))]].concat();
        let refused = bench.raw.derive(bench.session, &bench.ecdh(), base, &template);
        let codes = [Err(CKR_ATTRIBUTE_VALUE_INVALID), Err(CKR_TEMPLATE_INCONSISTENT), Err(CKR_KEY_SIZE_RANGE)];
        assert!(codes.contains(&refused), "{length}: {refused:x?}");
    }
}

#[test]
fn a_secret_is_wrapped_and_unwrapped_again_and_its_template_is_checked_wholly() {
    let bench = Bench::new();
    let (raw, session) = (&bench.raw, bench.session);
    let public = [(CKA_MODULUS_BITS, number(2048)), (CKA_WRAP, flag(true))];
    let rsa = bench.pair(CKM_RSA_PKCS_KEY_PAIR_GEN, &public, &[CKA_UNWRAP]);
    let both = [(CKA_WRAP, flag(true)), (CKA_UNWRAP, flag(true))];
    let aes = bench.secret(CKK_AES, &[7; 16], &both);
    let value = b"a secret of twenty-odd".to_vec();
    let secret = bench.secret(CKK_GENERIC_SECRET, &value, &open());
    let oaep = Wanted::words(CKM_RSA_PKCS_OAEP, &[CKM_SHA256, CKG_MGF1_SHA256, CKZ_DATA_SPECIFIED, 0, 0]);
    let cbc = |kind| Wanted(kind, vec![9; 16]);
    for (wanted, by, with, tells_length) in [
        (Wanted(CKM_RSA_PKCS, vec![]), rsa.0, rsa.1, true),
        (oaep, rsa.0, rsa.1, true),
        (cbc(CKM_AES_CBC_PAD), aes, aes, true),
        (cbc(CKM_AES_CBC), aes, aes, false),
        (Wanted(CKM_AES_ECB, vec![]), aes, aes, false),
    ] {
        let kind = wanted.0;
        let wrapped = raw.wrap(session, &wanted, by, secret).unwrap();
        let length = (CKA_VALUE_LEN, number(value.len() as CK_ULONG));
        let unwrap = |more: &[Given]| raw.unwrap(session, &wanted, with, &wrapped, &[&generic()[..], more].concat());
        let key = unwrap(&[&open()[..], std::slice::from_ref(&length)].concat()).unwrap();
        assert_eq!(raw.get(session, key, CKA_VALUE), Ok(value.clone()), "{kind:#x}");
        for (attribute, value) in [
            (CKA_LOCAL, flag(false)),
            (CKA_ALWAYS_SENSITIVE, flag(false)),
            (CKA_NEVER_EXTRACTABLE, flag(false)),
            (CKA_EXTRACTABLE, flag(true)),
        ] {
            assert_eq!(raw.get(session, key, attribute), Ok(value), "{attribute:#x}");
        }
        // Zeros that fill a block hide the length, which must be told then, and be right.
        let untold = unwrap(&[]).map(|_| ());
        assert_eq!(untold, if tells_length { Ok(()) } else { Err(CKR_TEMPLATE_INCOMPLETE) }, "{kind:#x}");
        assert_eq!(unwrap(&[(CKA_VALUE_LEN, number(40))]), Err(CKR_WRAPPED_KEY_LEN_RANGE), "{kind:#x}");
        if tells_length {
            assert_eq!(unwrap(&[(CKA_VALUE_LEN, number(21))]), Err(CKR_WRAPPED_KEY_LEN_RANGE), "{kind:#x}");
            check_templates("C_UnwrapKey", &|template| raw.unwrap(session, &wanted, with, &wrapped, template));
        }
        for bad in [&wrapped[1..], &[&wrapped[..], &[0]].concat(), &[]] {
            let refused =
                raw.unwrap(session, &wanted, with, bad, &[&generic()[..], std::slice::from_ref(&length)].concat());
            assert_eq!(refused, Err(CKR_WRAPPED_KEY_LEN_RANGE), "{kind:#x}, {} bytes", bad.len());
        }
        let as_aes = [(CKA_CLASS, number(CKO_SECRET_KEY)), (CKA_KEY_TYPE, number(CKK_AES))];
        if tells_length {
            let refused = raw.unwrap(session, &wanted, with, &wrapped, &as_aes);
            assert_eq!(refused, Err(CKR_WRAPPED_KEY_LEN_RANGE), "{kind:#x}: no AES key has 22 bytes");
        }
    }
}

#[test]
fn what_may_not_leave_is_not_wrapped() {
    let bench = Bench::new();
    let (raw, session) = (&bench.raw, bench.session);
    let public = [(CKA_MODULUS_BITS, number(2048)), (CKA_WRAP, flag(true))];
    let rsa = bench.pair(CKM_RSA_PKCS_KEY_PAIR_GEN, &public, &[CKA_UNWRAP]);
    let pkcs1 = Wanted(CKM_RSA_PKCS, vec![]);
    let wrap = |key| raw.wrap(session, &pkcs1, rsa.0, key);
    let in_tpm = raw.generate_secret(session, CKM_AES_KEY_GEN, &[(CKA_VALUE_LEN, number(16))]).unwrap();
    let hidden = bench.secret(CKK_GENERIC_SECRET, b"hidden", &[(CKA_EXTRACTABLE, flag(false))]);
    for key in [in_tpm, hidden, rsa.1] {
        assert_eq!(wrap(key), Err(CKR_KEY_UNEXTRACTABLE));
    }
    let data = raw.create(session, &[(CKA_CLASS, number(CKO_DATA))]).unwrap();
    for key in [data, 0, 4711] {
        assert_eq!(wrap(key), Err(CKR_KEY_HANDLE_INVALID));
    }
    // Sensitive, but it may leave wrapped; not for this key, though.
    let sensitive = [(CKA_EXTRACTABLE, flag(true)), (CKA_SENSITIVE, flag(true))];
    let secret = bench.secret(CKK_GENERIC_SECRET, b"sensitive", &sensitive);
    assert_eq!(raw.get(session, secret, CKA_VALUE), Err(CKR_ATTRIBUTE_SENSITIVE));
    assert_eq!(wrap(secret).map(|wrapped| wrapped.len()), Ok(256));
    let trusting = [&sensitive[..], &[(CKA_WRAP_WITH_TRUSTED, flag(true))]].concat();
    let secret = bench.secret(CKK_GENERIC_SECRET, b"for the trusted", &trusting);
    assert_eq!(wrap(secret), Err(CKR_KEY_NOT_WRAPPABLE));
    // Longer than the padding takes.
    let short = Wanted::words(CKM_RSA_PKCS_OAEP, &[CKM_SHA512, CKG_MGF1_SHA512, CKZ_DATA_SPECIFIED, 0, 0]);
    let long = bench.secret(CKK_GENERIC_SECRET, &[5; 127], &open());
    assert_eq!(raw.wrap(session, &short, rsa.0, long), Err(CKR_KEY_SIZE_RANGE));
    // Once it may not leave, it never may.
    raw.set(session, long, &[(CKA_EXTRACTABLE, flag(false))]).unwrap();
    assert_eq!(wrap(long), Err(CKR_KEY_UNEXTRACTABLE));
    assert_eq!(raw.set(session, long, &[(CKA_EXTRACTABLE, flag(true))]), Err(CKR_ATTRIBUTE_READ_ONLY));
    assert_eq!(raw.get(session, long, CKA_VALUE), Err(CKR_ATTRIBUTE_SENSITIVE));
}
