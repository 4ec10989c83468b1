//! Every attribute of every kind of object, by the standard's tables: what is read, given, changed and copied, and by
//! which code it is refused.

mod attributes;
mod raw;

use std::collections::BTreeSet;

use attributes::{
    AES, Attribute, CERTIFICATE, DATA, EC_PRIVATE, EC_PUBLIC, GENERIC, Kinds, RSA_PRIVATE, RSA_PUBLIC, TABLE, may_have,
};
use conformance_tests::{Device, SO_PIN};
use cryptoki_sys::*;
use raw::{Given, P256, PIN, Raw, Rv, call, flag, number};

const NONE: CK_ULONG = CK_UNAVAILABLE_INFORMATION;
/// No standard has it, and neither has this token.
const UNKNOWN: CK_ATTRIBUTE_TYPE = CKA_VENDOR_DEFINED | 0x7fff_0001;

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

    /// Makes an object of a kind, with these attributes besides, by whichever function makes such objects.
    fn make(&self, kind: Kinds, more: &[Given]) -> Rv<CK_OBJECT_HANDLE> {
        match kind {
            RSA_PUBLIC | EC_PUBLIC => self.generate(kind, &generation(kind), more, &[]).map(|pair| pair.0),
            RSA_PRIVATE | EC_PRIVATE => self.generate(kind, &generation(kind), &[], more).map(|pair| pair.1),
            AES | GENERIC => self.generate_secret(kind, &generation(kind), more),
            _ => self.create(&creation(kind), more),
        }
    }

    fn create(&self, template: &[Given], more: &[Given]) -> Rv<CK_OBJECT_HANDLE> {
        self.raw.create(self.session, &with(template, more))
    }

    fn generate_secret(&self, kind: Kinds, template: &[Given], more: &[Given]) -> Rv<CK_OBJECT_HANDLE> {
        let mechanism = if kind == AES { CKM_AES_KEY_GEN } else { CKM_GENERIC_SECRET_KEY_GEN };
        self.raw.generate_secret(self.session, mechanism, &with(template, more))
    }

    /// A pair; `template` is for its public key.
    fn generate(
        &self,
        kind: Kinds,
        template: &[Given],
        public: &[Given],
        private: &[Given],
    ) -> Rv<(CK_ULONG, CK_ULONG)> {
        let rsa = kind & (RSA_PUBLIC | RSA_PRIVATE) != 0;
        let mechanism = if rsa { CKM_RSA_PKCS_KEY_PAIR_GEN } else { CKM_EC_KEY_PAIR_GEN };
        self.raw.generate(self.session, mechanism, &with(template, public), private)
    }

    fn get(&self, object: CK_OBJECT_HANDLE, kind: CK_ATTRIBUTE_TYPE) -> Rv<Vec<u8>> {
        self.raw.get(self.session, object, kind)
    }

    /// Reads attributes in one call: the answer, and each with its length.
    fn read(
        &self,
        object: CK_OBJECT_HANDLE,
        wanted: &mut [(CK_ATTRIBUTE_TYPE, Option<Vec<u8>>)],
    ) -> (Rv<()>, Vec<CK_ULONG>) {
        let attribute = |(kind, buffer): &mut (CK_ATTRIBUTE_TYPE, Option<Vec<u8>>)| {
            let (value, length) = buffer.as_mut().map_or((std::ptr::null_mut(), 4711), |buffer| {
                (buffer.as_mut_ptr().cast(), (buffer.len() - CANARIES) as CK_ULONG)
            });
            CK_ATTRIBUTE { type_: *kind, pValue: value, ulValueLen: length }
        };
        let mut template: Vec<_> = wanted.iter_mut().map(attribute).collect();
        let count = template.len() as CK_ULONG;
        let answer = call!(self.raw, C_GetAttributeValue(self.session, object, template.as_mut_ptr(), count));
        (answer, template.iter().map(|attribute| attribute.ulValueLen).collect())
    }
}

/// `template` with `more`, which goes before what is there.
fn with(template: &[Given], more: &[Given]) -> Vec<Given> {
    let kept = template.iter().filter(|(kind, _)| more.iter().all(|(other, _)| other != kind));
    kept.chain(more).cloned().collect()
}

fn without(template: &[Given], kind: CK_ATTRIBUTE_TYPE) -> Vec<Given> {
    template.iter().filter(|(other, _)| *other != kind).cloned().collect()
}

const CANARIES: usize = 16;
const CANARY: u8 = 0x5c;

/// A buffer of so many bytes, with canaries behind it.
fn buffer(room: usize) -> Option<Vec<u8>> {
    Some(vec![CANARY; room + CANARIES])
}

/// What C_CreateObject needs to be told.
fn creation(kind: Kinds) -> Vec<Given> {
    let class = |class, more: &[Given]| [&[(CKA_CLASS, number(class))][..], more].concat();
    let key = |of, kind, more: &[Given]| class(of, &[&[(CKA_KEY_TYPE, number(kind))][..], more].concat());
    match kind {
        DATA => class(CKO_DATA, &[(CKA_VALUE, b"value".to_vec())]),
        CERTIFICATE => {
            let certificate = certificate();
            let subject = certificate.subject_name().to_der().unwrap();
            let value = (CKA_VALUE, certificate.to_der().unwrap());
            class(CKO_CERTIFICATE, &[(CKA_CERTIFICATE_TYPE, number(CKC_X_509)), (CKA_SUBJECT, subject), value])
        }
        RSA_PUBLIC | RSA_PRIVATE => {
            let rsa = openssl::rsa::Rsa::generate(2048).unwrap();
            let public = [(CKA_MODULUS, rsa.n().to_vec()), (CKA_PUBLIC_EXPONENT, rsa.e().to_vec())];
            if kind == RSA_PUBLIC {
                return key(CKO_PUBLIC_KEY, CKK_RSA, &public);
            }
            let secret = [
                (CKA_PRIVATE_EXPONENT, rsa.d().to_vec()),
                (CKA_PRIME_1, rsa.p().unwrap().to_vec()),
                (CKA_PRIME_2, rsa.q().unwrap().to_vec()),
            ];
            key(CKO_PRIVATE_KEY, CKK_RSA, &[&public[..], &secret].concat())
        }
        EC_PUBLIC | EC_PRIVATE => {
            let curve = openssl::nid::Nid::X9_62_PRIME256V1;
            let group = openssl::ec::EcGroup::from_curve_name(curve).unwrap();
            let pair = openssl::ec::EcKey::generate(&group).unwrap();
            let parameters = (CKA_EC_PARAMS, P256.to_vec());
            if kind == EC_PRIVATE {
                let value = pair.private_key().to_vec_padded(32).unwrap();
                return key(CKO_PRIVATE_KEY, CKK_EC, &[parameters, (CKA_VALUE, value)]);
            }
            let mut context = openssl::bn::BigNumContext::new().unwrap();
            let form = openssl::ec::PointConversionForm::UNCOMPRESSED;
            let point = pair.public_key().to_bytes(&group, form, &mut context).unwrap();
            key(CKO_PUBLIC_KEY, CKK_EC, &[parameters, (CKA_EC_POINT, [&[4, 65][..], &point].concat())])
        }
        AES => key(CKO_SECRET_KEY, CKK_AES, &[(CKA_VALUE, vec![7; 16])]),
        GENERIC => key(CKO_SECRET_KEY, CKK_GENERIC_SECRET, &[(CKA_VALUE, vec![7; 20])]),
        _ => unreachable!("one kind"),
    }
}

/// What the functions that generate keys need to be told.
fn generation(kind: Kinds) -> Vec<Given> {
    match kind {
        RSA_PUBLIC | RSA_PRIVATE => vec![(CKA_MODULUS_BITS, number(2048))],
        EC_PUBLIC | EC_PRIVATE => vec![(CKA_EC_PARAMS, P256.to_vec())],
        AES => vec![(CKA_VALUE_LEN, number(16))],
        GENERIC => vec![(CKA_VALUE_LEN, number(32))],
        _ => unreachable!("one kind of key"),
    }
}

fn certificate() -> openssl::x509::X509 {
    use openssl::{asn1::Asn1Time, hash::MessageDigest, pkey::PKey, x509::X509, x509::X509Name};
    let key = PKey::from_rsa(openssl::rsa::Rsa::generate(2048).unwrap()).unwrap();
    let mut name = X509Name::builder().unwrap();
    name.append_entry_by_text("CN", "device").unwrap();
    let name = name.build();
    let mut builder = X509::builder().unwrap();
    builder.set_subject_name(&name).unwrap();
    builder.set_issuer_name(&name).unwrap();
    builder.set_pubkey(&key).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(30).unwrap()).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    builder.build()
}

const ALL: [Kinds; 8] = [DATA, CERTIFICATE, RSA_PUBLIC, EC_PUBLIC, RSA_PRIVATE, EC_PRIVATE, AES, GENERIC];
const KEYS: [Kinds; 6] = [RSA_PUBLIC, EC_PUBLIC, RSA_PRIVATE, EC_PRIVATE, AES, GENERIC];

/// The attributes that objects of a kind have.
fn of(kind: Kinds) -> impl Iterator<Item = &'static Attribute> {
    TABLE.iter().filter(move |attribute| attribute.of & kind != 0)
}

/// The types of attributes that only other objects have.
fn others(kind: Kinds) -> Vec<CK_ATTRIBUTE_TYPE> {
    let own: BTreeSet<_> = of(kind).map(|attribute| attribute.kind).collect();
    let all: BTreeSet<_> = TABLE.iter().map(|attribute| attribute.kind).collect();
    all.difference(&own).copied().filter(|other| !may_have(*other, kind)).collect()
}

#[test]
fn every_attribute_is_read_in_each_of_the_five_ways_and_keeps_back_no_other() {
    let bench = Bench::new();
    for kind in ALL {
        let object = bench.make(kind, &[]).unwrap();
        let own = of(kind).map(|attribute| (attribute.kind, attribute.has(7)));
        let wanted = own.chain(others(kind).into_iter().map(|other| (other, false)));
        let mut readable = 0;
        for (wanted, secret) in wanted {
            let what = format!("{wanted:#x} of {kind:#x}");
            let value = bench.get(object, wanted);
            match &value {
                Err(CKR_ATTRIBUTE_SENSITIVE) => assert!(secret, "{what}"),
                Err(CKR_ATTRIBUTE_TYPE_INVALID) => assert!(of(kind).all(|own| own.kind != wanted), "{what}"),
                Err(error) => panic!("{what}: {error:#x}"),
                Ok(value) => {
                    let own = of(kind).find(|own| own.kind == wanted).unwrap_or_else(|| panic!("{what} is another's"));
                    assert!(!secret, "{what} is secret");
                    assert!(own.form.fits(value), "{what}: {value:x?}");
                    readable += 1;
                }
            }
            // Question, exactly enough, more than enough, and too little; each between two that can be read.
            let length = value.as_ref().map_or(40, Vec::len);
            let tries = [None, buffer(length), buffer(length + 3), buffer(length.saturating_sub(1))];
            for (index, room) in tries.into_iter().enumerate() {
                let mut template = [(CKA_CLASS, buffer(8)), (wanted, room), (CKA_TOKEN, buffer(1)), (CKA_LABEL, None)];
                let (answer, lengths) = bench.read(object, &mut template);
                let too_small = index == 3 && length > 0;
                let expected = match &value {
                    Err(error) => Err(*error),
                    Ok(_) if too_small => Err(CKR_BUFFER_TOO_SMALL),
                    Ok(_) => Ok(()),
                };
                assert_eq!(answer, expected, "{what}, {index}");
                let told = if expected.is_ok() { length as CK_ULONG } else { NONE };
                assert_eq!(lengths, [8, told, 1, 0], "{what}, {index}");
                let [class, (_, got), token, _] = &template;
                assert_eq!(class.1.as_ref().unwrap()[..8], bench.get(object, CKA_CLASS).unwrap(), "{what}, {index}");
                assert_eq!(token.1.as_ref().unwrap()[..1], flag(false), "{what}, {index}");
                let Some(got) = got else { continue };
                let written = if expected.is_ok() { length } else { 0 };
                assert_eq!(got[..written], value.clone().unwrap_or_default()[..written], "{what}, {index}");
                assert!(got[written..].iter().all(|byte| *byte == CANARY), "{what}, {index}: written behind it");
            }
        }
        assert!(readable >= 8, "{kind:#x}: {readable}");
        assert_eq!(bench.get(object, UNKNOWN), Err(CKR_ATTRIBUTE_TYPE_INVALID));
    }
}

#[test]
fn everything_can_be_asked_for_at_once() {
    let bench = Bench::new();
    for kind in ALL {
        let object = bench.make(kind, &[]).unwrap();
        let everything: BTreeSet<_> = TABLE.iter().map(|attribute| attribute.kind).collect();
        let mut template: Vec<_> = everything.iter().map(|kind| (*kind, buffer(2000))).collect();
        let (answer, lengths) = bench.read(object, &mut template);
        assert!([Err(CKR_ATTRIBUTE_SENSITIVE), Err(CKR_ATTRIBUTE_TYPE_INVALID)].contains(&answer), "{answer:x?}");
        for ((wanted, got), length) in template.iter().zip(lengths) {
            match bench.get(object, *wanted) {
                Ok(value) => assert_eq!(got.as_ref().unwrap()[..length as usize], value, "{wanted:#x} of {kind:#x}"),
                Err(_) => assert_eq!(length, NONE, "{wanted:#x} of {kind:#x}"),
            }
        }
    }
}

/// The kinds that C_CreateObject makes.
fn creatable(bench: &Bench) -> Vec<(Kinds, Vec<Given>)> {
    let all: Vec<_> = ALL.into_iter().map(|kind| (kind, creation(kind))).collect();
    let made = all.into_iter().filter(|(_, template)| bench.create(template, &[]).is_ok()).collect::<Vec<_>>();
    assert!(made.len() >= 4);
    made
}

#[test]
fn a_template_that_lacks_what_a_new_object_needs_is_incomplete() {
    let bench = Bench::new();
    for (kind, template) in creatable(&bench) {
        for attribute in of(kind).filter(|attribute| attribute.has(1)) {
            let refused = bench.create(&without(&template, attribute.kind), &[]);
            assert_eq!(refused, Err(CKR_TEMPLATE_INCOMPLETE), "{:#x} of {kind:#x}", attribute.kind);
        }
    }
    for kind in KEYS {
        for attribute in of(kind).filter(|attribute| attribute.has(3)) {
            let template = without(&generation(kind), attribute.kind);
            let refused = match kind {
                AES | GENERIC => bench.generate_secret(kind, &template, &[]),
                _ => bench.generate(kind, &template, &[], &[]).map(|pair| pair.0),
            };
            assert_eq!(refused, Err(CKR_TEMPLATE_INCOMPLETE), "{:#x} of {kind:#x}", attribute.kind);
        }
    }
}

#[test]
fn what_a_template_may_not_give_is_read_only() {
    let bench = Bench::new();
    for (kind, template) in creatable(&bench) {
        let object = bench.create(&template, &[]).unwrap();
        for attribute in of(kind).filter(|attribute| attribute.has(2)) {
            // Even the value that it will have.
            let value = bench.get(object, attribute.kind).unwrap();
            let refused = bench.create(&template, &[(attribute.kind, value)]);
            assert_eq!(refused, Err(CKR_ATTRIBUTE_READ_ONLY), "{:#x} of {kind:#x}", attribute.kind);
        }
    }
    for kind in KEYS {
        let object = bench.make(kind, &[]).unwrap();
        for attribute in of(kind).filter(|attribute| attribute.has(4)) {
            let value = bench.get(object, attribute.kind).unwrap_or(vec![7; 32]);
            let refused = bench.make(kind, &[(attribute.kind, value)]);
            assert_eq!(refused, Err(CKR_ATTRIBUTE_READ_ONLY), "{:#x} of {kind:#x}", attribute.kind);
        }
    }
}

#[test]
fn a_value_that_is_none_is_invalid_and_an_attribute_of_other_objects_inconsistent() {
    let bench = Bench::new();
    let creatable = creatable(&bench);
    let made = creatable.iter().map(|(kind, template)| (*kind, Some(template)));
    for (kind, template) in made.chain(KEYS.into_iter().map(|kind| (kind, None))) {
        let make = |more: &[Given]| match template {
            Some(template) => bench.create(template, more),
            None => bench.make(kind, more),
        };
        let forbidden = if template.is_some() { 2 } else { 4 };
        for attribute in of(kind) {
            for misfit in attribute.form.misfits() {
                let refused = make(&[(attribute.kind, misfit.clone())]).map(|_| ());
                let read_only = attribute.has(forbidden) && refused == Err(CKR_ATTRIBUTE_READ_ONLY);
                let invalid = refused == Err(CKR_ATTRIBUTE_VALUE_INVALID);
                assert!(read_only || invalid, "{:#x} of {kind:#x}, {misfit:x?}: {refused:x?}", attribute.kind);
            }
        }
        for other in others(kind) {
            let row = TABLE.iter().find(|row| row.kind == other).unwrap();
            let value = if row.form == attributes::Form::Number { number(1) } else { flag(true) };
            assert_eq!(make(&[(other, value)]), Err(CKR_TEMPLATE_INCONSISTENT), "{other:#x} of {kind:#x}");
        }
        assert_eq!(make(&[(UNKNOWN, vec![1])]), Err(CKR_ATTRIBUTE_TYPE_INVALID), "{kind:#x}");
    }
}

#[test]
fn only_what_may_be_changed_is_changed() {
    let bench = Bench::new();
    for kind in ALL {
        let object = bench.make(kind, &[]).unwrap();
        let set = |more: &[Given]| bench.raw.set(bench.session, object, more);
        for attribute in of(kind) {
            let what = format!("{:#x} of {kind:#x}", attribute.kind);
            let value = bench.get(object, attribute.kind).unwrap_or(vec![7; 32]);
            let given = [(attribute.kind, value.clone())];
            match () {
                // The standard does not say whether the security officer alone may change it, or anyone to false.
                () if attribute.has(10) => {}
                () if attribute.has(8) => assert_eq!(set(&given), Ok(()), "{what}"),
                // Once true it is read-only; before, a token may let it be set.
                () if attribute.has(11) => {}
                () => assert_eq!(set(&given), Err(CKR_ATTRIBUTE_READ_ONLY), "{what}"),
            }
            let fixed = (attribute.has(11) && value == flag(true)) || (attribute.has(12) && value == flag(false));
            if fixed {
                let other = flag(value == flag(false));
                assert_eq!(set(&[(attribute.kind, other)]), Err(CKR_ATTRIBUTE_READ_ONLY), "{what}");
            }
            for misfit in attribute.form.misfits() {
                let refused = set(&[(attribute.kind, misfit)]);
                let read_only = !attribute.has(8) && refused == Err(CKR_ATTRIBUTE_READ_ONLY);
                assert!(read_only || refused == Err(CKR_ATTRIBUTE_VALUE_INVALID), "{what}: {refused:x?}");
            }
        }
        for other in others(kind) {
            assert_eq!(set(&[(other, flag(true))]), Err(CKR_TEMPLATE_INCONSISTENT), "{other:#x} of {kind:#x}");
        }
        assert_eq!(set(&[(UNKNOWN, flag(true))]), Err(CKR_ATTRIBUTE_TYPE_INVALID));
        // All or nothing.
        let label = (CKA_LABEL, b"new".to_vec());
        for bad in [(UNKNOWN, vec![]), (CKA_CLASS, number(CKO_DATA)), (CKA_LABEL, b"newer".to_vec())] {
            assert!(set(&[label.clone(), bad]).is_err());
            assert_eq!(bench.get(object, CKA_LABEL).unwrap(), b"", "{kind:#x}");
        }
        set(&[label]).unwrap();
        assert_eq!(bench.get(object, CKA_LABEL).unwrap(), b"new", "{kind:#x}");
    }
}

#[test]
fn what_is_fixed_or_indestructible_or_not_to_be_copied_is_prohibited() {
    let bench = Bench::new();
    let label = [(CKA_LABEL, b"x".to_vec())];
    for kind in ALL {
        let object = bench.make(kind, &[(CKA_MODIFIABLE, flag(false))]).unwrap();
        assert_eq!(bench.raw.set(bench.session, object, &label), Err(CKR_ACTION_PROHIBITED), "{kind:#x}");
        let object = bench.make(kind, &[(CKA_DESTROYABLE, flag(false))]).unwrap();
        assert_eq!(call!(bench.raw, C_DestroyObject(bench.session, object)), Err(CKR_ACTION_PROHIBITED), "{kind:#x}");
        let object = bench.make(kind, &[(CKA_COPYABLE, flag(false))]).unwrap();
        assert_eq!(bench.raw.copy(bench.session, object, &[]), Err(CKR_ACTION_PROHIBITED), "{kind:#x}");
    }
}

#[test]
fn what_is_trusted_is_so_by_the_security_officer_and_a_certificate_stays_as_it_is_then() {
    let bench = Bench::new();
    let trusted = [(CKA_TRUSTED, flag(true)), (CKA_TOKEN, flag(true))];
    for kind in [CERTIFICATE, RSA_PUBLIC] {
        assert_eq!(bench.create(&creation(kind), &trusted), Err(CKR_ATTRIBUTE_READ_ONLY), "{kind:#x}");
        let object = bench.make(kind, &[(CKA_TOKEN, flag(true))]).unwrap();
        let set = |more: Given| bench.raw.set(bench.session, object, &[more]);
        assert_eq!(set((CKA_TRUSTED, flag(true))), Err(CKR_ATTRIBUTE_READ_ONLY), "{kind:#x}");
        call!(bench.raw, C_Logout(bench.session)).unwrap();
        bench.raw.login(bench.session, CKU_SO, SO_PIN.as_bytes()).unwrap();
        assert_eq!(set((CKA_TRUSTED, flag(true))), Ok(()), "{kind:#x}");
        call!(bench.raw, C_Logout(bench.session)).unwrap();
        bench.raw.login(bench.session, CKU_USER, PIN).unwrap();
        assert_eq!(bench.get(object, CKA_TRUSTED), Ok(flag(true)));
        let changed = if kind == CERTIFICATE { Err(CKR_ACTION_PROHIBITED) } else { Ok(()) };
        assert_eq!(set((CKA_LABEL, b"x".to_vec())), changed, "{kind:#x}");
        assert_eq!(bench.raw.copy(bench.session, object, &[]), Err(CKR_ATTRIBUTE_READ_ONLY), "{kind:#x}");
    }
}

#[test]
fn a_copy_differs_in_nothing_but_its_unique_id_and_what_was_asked_for() {
    let bench = Bench::new();
    for kind in ALL {
        let object = bench.make(kind, &[]).unwrap();
        let copy = |more: &[Given]| bench.raw.copy(bench.session, object, more);
        let same = match copy(&[]) {
            // "A particular token might not actually support" it: for keys that only their TPM object can be.
            Err(CKR_ACTION_PROHIBITED) if kind & (RSA_PRIVATE | EC_PRIVATE | AES | GENERIC) != 0 => continue,
            other => other.unwrap(),
        };
        for attribute in of(kind) {
            let (before, after) = (bench.get(object, attribute.kind), bench.get(same, attribute.kind));
            assert_eq!(before == after, attribute.kind != CKA_UNIQUE_ID, "{:#x} of {kind:#x}", attribute.kind);
        }
        let other =
            copy(&[(CKA_LABEL, b"copy".to_vec()), (CKA_TOKEN, flag(true)), (CKA_MODIFIABLE, flag(false))]).unwrap();
        assert_eq!(bench.get(other, CKA_LABEL).unwrap(), b"copy");
        assert_eq!((bench.get(other, CKA_TOKEN), bench.get(other, CKA_MODIFIABLE)), (Ok(flag(true)), Ok(flag(false))));
        assert_eq!((bench.get(object, CKA_LABEL), bench.get(object, CKA_TOKEN)), (Ok(vec![]), Ok(flag(false))));
        for attribute in of(kind).filter(|attribute| attribute.has(2) || attribute.kind == CKA_CLASS) {
            let given = bench.get(object, attribute.kind).unwrap();
            assert_eq!(copy(&[(attribute.kind, given)]), Err(CKR_ATTRIBUTE_READ_ONLY), "{:#x}", attribute.kind);
        }
        assert_eq!(copy(&[(UNKNOWN, vec![])]), Err(CKR_ATTRIBUTE_TYPE_INVALID), "{kind:#x}");
        assert_eq!(copy(&[(CKA_LABEL, vec![0xff])]), Err(CKR_ATTRIBUTE_VALUE_INVALID), "{kind:#x}");
    }
}
