//! The one table of attributes: which object has which, who may give it when, how it is read and written.

use cryptoki_sys::*;
use keyrivet_core::algorithm::{Curve, HashAlgorithm};
use keyrivet_core::log::{self, Topic};
use keyrivet_core::object::{Attributes, Body, Part};
use keyrivet_core::public_key::PublicKey;
use zeroize::Zeroizing;

use crate::asn1::{self, CertificateFields};
use crate::draft::Draft;
use crate::error::{Error, Result};
use crate::mechanism::KeyType;
use crate::object::View;
use crate::template::{date, flag, flag_bytes, number, number_bytes, numbers, text, wide};

/// The kinds of objects, as bits; a row of the table holds for several.
pub(crate) type Kinds = u16;
pub(crate) const PRIVATE_RSA: Kinds = 1;
pub(crate) const PRIVATE_EC: Kinds = 1 << 1;
pub(crate) const PUBLIC_RSA: Kinds = 1 << 2;
pub(crate) const PUBLIC_EC: Kinds = 1 << 3;
pub(crate) const CERTIFICATE: Kinds = 1 << 4;
pub(crate) const DATA: Kinds = 1 << 5;
pub(crate) const SECRET: Kinds = 1 << 6;
pub(crate) const PROFILE: Kinds = 1 << 7;
pub(crate) const MECHANISM: Kinds = 1 << 8;
pub(crate) const PRIVATE: Kinds = PRIVATE_RSA | PRIVATE_EC;
pub(crate) const PUBLIC: Kinds = PUBLIC_RSA | PUBLIC_EC;
const PAIRS: Kinds = PRIVATE | PUBLIC;
const KEYS: Kinds = PAIRS | SECRET;
const ALL: Kinds = KEYS | CERTIFICATE | DATA | PROFILE | MECHANISM;

/// When an attribute may be given; the footnotes of PKCS#11 3.2, table 13 ("Common attributes"), turned into what is
/// allowed.
pub(crate) type Uses = u16;
/// To C_CreateObject (not footnote 2).
pub(crate) const CREATE: Uses = 1;
/// To C_GenerateKey and C_GenerateKeyPair (not footnote 4).
pub(crate) const GENERATE: Uses = 1 << 1;
/// To C_SetAttributeValue (footnote 8).
pub(crate) const CHANGE: Uses = 1 << 2;
/// To C_UnwrapKey and C_DeriveKey (not footnote 6).
pub(crate) const DERIVE: Uses = 1 << 3;
/// To C_CopyObject ("Copying objects").
pub(crate) const COPY: Uses = 1 << 4;
/// It must be given to C_CreateObject (footnote 1).
const NEED_CREATE: Uses = CREATE | 1 << 5;
/// It must be given to C_GenerateKey or C_GenerateKeyPair (footnote 3).
const NEED_GENERATE: Uses = GENERATE | 1 << 6;
/// Once CK_TRUE it stays so (footnote 11).
const STAYS_TRUE: Uses = 1 << 7;
/// Once CK_FALSE it stays so (footnote 12).
const STAYS_FALSE: Uses = 1 << 8;
const NEW: Uses = CREATE | GENERATE | DERIVE;
const ANY: Uses = NEW | CHANGE | COPY;
/// Never given, only read.
const READ: Uses = 0;

/// The vendor's own attributes: the upper half of the number says `KR`.
const VENDOR: CK_ATTRIBUTE_TYPE = CKA_VENDOR_DEFINED | 0x4b52_0000;
/// The PCRs that a private or secret key is bound to, as text: `sha256:0,7`. Given at generation, the key can be used
/// while they have the values that they have then.
pub(crate) const CKA_KEYRIVET_PCRS: CK_ATTRIBUTE_TYPE = VENDOR | 1;
/// The digest of the policy that a key is bound to. Given at generation beside [`CKA_KEYRIVET_PCRS`], it stands for the
/// values that the PCRs will have to have, instead of those they have then.
pub(crate) const CKA_KEYRIVET_POLICY: CK_ATTRIBUTE_TYPE = VENDOR | 2;
/// A private key of the token that is in the TPM for good: its signatures cost fewer commands, and one of the TPM's few
/// places.
pub(crate) const CKA_KEYRIVET_PERSISTENT: CK_ATTRIBUTE_TYPE = VENDOR | 3;

/// What C_GetAttributeValue gives for one attribute.
/// Not `Debug`: it may be a secret.
pub(crate) enum Value {
    Bytes(Zeroizing<Vec<u8>>),
    /// It never leaves the TPM (footnote 7).
    Sensitive,
}

/// One row of the table.
pub(crate) struct Row {
    /// As the standard writes it.
    name: &'static str,
    kind: CK_ATTRIBUTE_TYPE,
    of: Kinds,
    uses: Uses,
    access: Access,
}

enum Access {
    Flag(fn(&Attributes) -> bool, fn(&mut Attributes, bool)),
    Text(fn(&Attributes) -> &str, fn(&mut Attributes, String)),
    Date(fn(&Attributes) -> &str, fn(&mut Attributes, String)),
    Bytes(fn(&Attributes) -> &[u8], fn(&mut Attributes, &[u8])),
    /// What the object is decides it. A value that is given must be the one that comes out.
    Derived(fn(&View) -> Result<Vec<u8>>),
    /// The same for a number, whose values have a form.
    DerivedNumber(fn(&View) -> Result<CK_ULONG>),
    /// A flag that is the same for all such objects.
    Fixed(bool),
    /// The object is made of it, in a way of its own.
    Made(fn(&View) -> Result<Vec<u8>>, fn(&mut Draft, &[u8]) -> Result<()>),
    /// A secret that is shown where the object lets it out, which no key in the TPM does.
    Secret(fn(&mut Draft, &[u8]) -> Result<()>),
    /// Taken, as the standard asks, and not kept.
    Ignored,
}

use Access::{Bytes, Date, Derived, DerivedNumber, Fixed, Flag, Ignored, Made, Secret, Text};

macro_rules! row {
    ($kind:ident, $of:expr, $uses:expr, $access:expr $(,)?) => {
        Row { name: stringify!($kind), kind: $kind, of: $of, uses: $uses, access: $access }
    };
}

static TABLE: &[Row] = &[
    // Every object (PKCS#11 3.2, "Common attributes", "Storage objects").
    row!(CKA_CLASS, ALL, NEED_CREATE | GENERATE | DERIVE, DerivedNumber(|v| Ok(v.class()))),
    row!(CKA_UNIQUE_ID, ALL, READ, Derived(|v| Ok(v.unique_id().into_bytes()))),
    row!(
        CKA_TOKEN,
        ALL,
        NEW | COPY,
        Made(|v| Ok(flag_bytes(!v.session_object)), |d, v| flag(v).map(|on| d.token_object = on)),
    ),
    row!(CKA_PRIVATE, ALL, NEW | COPY, Flag(|a| a.private, |a, v| a.private = v)),
    row!(CKA_MODIFIABLE, ALL, NEW | COPY, Flag(|a| a.modifiable, |a, v| a.modifiable = v)),
    row!(CKA_COPYABLE, ALL, NEW | COPY | STAYS_FALSE, Flag(|a| a.copyable, |a, v| a.copyable = v)),
    row!(CKA_DESTROYABLE, ALL, NEW | COPY, Flag(|a| a.destroyable, |a, v| a.destroyable = v)),
    row!(CKA_LABEL, ALL, ANY, Text(|a| &a.label, |a, v| a.label = v)),
    // What the token itself shows.
    row!(CKA_PROFILE_ID, PROFILE, READ, DerivedNumber(|v| v.built_in_number())),
    row!(CKA_MECHANISM_TYPE, MECHANISM, READ, DerivedNumber(|v| v.built_in_number())),
    // Data.
    row!(CKA_APPLICATION, DATA, CREATE, Text(|a| &a.application, |a, v| a.application = v)),
    row!(CKA_OBJECT_ID, DATA, CREATE, Bytes(|a| &a.object_id, |a, v| a.object_id = v.into())),
    row!(CKA_VALUE, DATA, CREATE, Made(data_value, |d, v| d.set_value(v))),
    // Certificates.
    row!(CKA_VALUE, CERTIFICATE, NEED_CREATE, Made(certificate_value, |d, v| d.set_value(v))),
    row!(CKA_CERTIFICATE_TYPE, CERTIFICATE, NEED_CREATE, DerivedNumber(|_| Ok(CKC_X_509))),
    row!(CKA_SUBJECT, CERTIFICATE, NEED_CREATE, Bytes(|a| &a.subject, |a, v| a.subject = v.into())),
    row!(CKA_ID, CERTIFICATE, CREATE | CHANGE | COPY, Bytes(|a| &a.id, |a, v| a.id = v.into())),
    row!(CKA_ISSUER, CERTIFICATE, CREATE | CHANGE | COPY, Derived(|v| field(v, |f| f.issuer))),
    row!(CKA_SERIAL_NUMBER, CERTIFICATE, CREATE | CHANGE | COPY, Derived(|v| field(v, |f| f.serial_number))),
    row!(CKA_TRUSTED, CERTIFICATE | PUBLIC | SECRET, ANY, Flag(|a| a.trusted, |a, v| a.trusted = v)),
    row!(CKA_CERTIFICATE_CATEGORY, CERTIFICATE, CREATE, Made(category, set_category)),
    row!(CKA_CHECK_VALUE, CERTIFICATE, CREATE, Derived(check_value)),
    row!(CKA_START_DATE, CERTIFICATE, CREATE, Date(|a| &a.start_date, |a, v| a.start_date = v)),
    row!(CKA_END_DATE, CERTIFICATE, CREATE, Date(|a| &a.end_date, |a, v| a.end_date = v)),
    row!(CKA_PUBLIC_KEY_INFO, CERTIFICATE, CREATE, Derived(|v| field(v, |f| f.public_key_info))),
    row!(CKA_URL, CERTIFICATE, CREATE, Derived(|_| Ok(Vec::new()))),
    row!(CKA_HASH_OF_SUBJECT_PUBLIC_KEY, CERTIFICATE, CREATE, Derived(|_| Ok(Vec::new()))),
    row!(CKA_HASH_OF_ISSUER_PUBLIC_KEY, CERTIFICATE, CREATE, Derived(|_| Ok(Vec::new()))),
    row!(CKA_NAME_HASH_ALGORITHM, CERTIFICATE, CREATE, DerivedNumber(|_| Ok(CKM_SHA_1))),
    row!(CKA_JAVA_MIDP_SECURITY_DOMAIN, CERTIFICATE, CREATE, DerivedNumber(|_| Ok(CK_SECURITY_DOMAIN_UNSPECIFIED))),
    // Keys.
    row!(CKA_KEY_TYPE, KEYS, NEED_CREATE | GENERATE | DERIVE, DerivedNumber(|v| Ok(v.key_type()?.number()))),
    row!(CKA_ID, KEYS, ANY, Bytes(|a| &a.id, |a, v| a.id = v.into())),
    row!(CKA_START_DATE, KEYS, ANY, Date(|a| &a.start_date, |a, v| a.start_date = v)),
    row!(CKA_END_DATE, KEYS, ANY, Date(|a| &a.end_date, |a, v| a.end_date = v)),
    row!(CKA_DERIVE, KEYS, ANY, Flag(|a| a.derive, |a, v| a.derive = v)),
    row!(CKA_LOCAL, KEYS, READ, Derived(|v| v.is_local().map(flag_bytes))),
    row!(CKA_KEY_GEN_MECHANISM, KEYS, READ, DerivedNumber(generation_mechanism)),
    row!(CKA_ALLOWED_MECHANISMS, KEYS, NEW, Made(allowed_mechanisms, set_allowed_mechanisms)),
    row!(CKA_SUBJECT, PAIRS, ANY, Bytes(|a| &a.subject, |a, v| a.subject = v.into())),
    row!(CKA_PUBLIC_KEY_INFO, PUBLIC, CREATE, Derived(|v| Ok(public_key(v)?.to_spki_der()?))),
    row!(CKA_PUBLIC_KEY_INFO, PRIVATE, CREATE | CHANGE | COPY, Derived(|v| Ok(public_key(v)?.to_spki_der()?))),
    // Public keys.
    row!(CKA_ENCRYPT, PUBLIC, ANY, Flag(|a| a.decrypt, |a, v| a.decrypt = v)),
    row!(CKA_VERIFY, PUBLIC, ANY, Flag(|a| a.sign, |a, v| a.sign = v)),
    row!(CKA_VERIFY_RECOVER, PUBLIC, ANY, Flag(|a| a.sign_recover, |a, v| a.sign_recover = v)),
    row!(CKA_WRAP, PUBLIC, ANY, Flag(|a| a.unwrap, |a, v| a.unwrap = v)),
    row!(CKA_ENCAPSULATE, PUBLIC, ANY, Fixed(false)),
    // Private keys.
    row!(CKA_DECRYPT, PRIVATE | SECRET, ANY, Flag(|a| a.decrypt, |a, v| a.decrypt = v)),
    row!(CKA_SIGN, PRIVATE | SECRET, ANY, Flag(|a| a.sign, |a, v| a.sign = v)),
    row!(CKA_SIGN_RECOVER, PRIVATE, ANY, Flag(|a| a.sign_recover, |a, v| a.sign_recover = v)),
    row!(CKA_UNWRAP, PRIVATE | SECRET, ANY, Flag(|a| a.unwrap, |a, v| a.unwrap = v)),
    row!(CKA_DECAPSULATE, PRIVATE, ANY, Fixed(false)),
    row!(CKA_SENSITIVE, PRIVATE, ANY | STAYS_TRUE, Fixed(true)),
    row!(CKA_EXTRACTABLE, PRIVATE, ANY | STAYS_FALSE, Fixed(false)),
    row!(CKA_ALWAYS_SENSITIVE, PRIVATE, READ, Derived(|v| v.is_local().map(flag_bytes))),
    row!(CKA_NEVER_EXTRACTABLE, PRIVATE, READ, Derived(|v| v.is_local().map(flag_bytes))),
    row!(
        CKA_WRAP_WITH_TRUSTED,
        PRIVATE | SECRET,
        NEW | STAYS_TRUE,
        Flag(|a| a.wrap_with_trusted, |a, v| a.wrap_with_trusted = v),
    ),
    row!(CKA_ALWAYS_AUTHENTICATE, PRIVATE, NEW, Flag(|a| a.always_authenticate, |a, v| a.always_authenticate = v)),
    row!(CKA_KEYRIVET_PCRS, PRIVATE | SECRET, GENERATE, Made(pcrs, |d, v| d.set_pcrs(v))),
    row!(CKA_KEYRIVET_POLICY, PRIVATE | SECRET, GENERATE, Made(policy, |d, v| d.set_policy(v))),
    row!(
        CKA_KEYRIVET_PERSISTENT,
        PRIVATE,
        CREATE | GENERATE,
        Made(|v| Ok(flag_bytes(v.is_persistent())), |d, v| flag(v).map(|on| d.persistent = on)),
    ),
    // Secret keys (PKCS#11 3.2, "Secret key objects", "Generic secret key objects", "AES secret key objects").
    row!(CKA_ENCRYPT, SECRET, ANY, Flag(|a| a.encrypt, |a, v| a.encrypt = v)),
    row!(CKA_VERIFY, SECRET, ANY, Flag(|a| a.verify, |a, v| a.verify = v)),
    row!(CKA_WRAP, SECRET, ANY, Flag(|a| a.wrap, |a, v| a.wrap = v)),
    row!(CKA_SENSITIVE, SECRET, ANY | STAYS_TRUE, Flag(|a| a.sensitive, |a, v| a.sensitive = v)),
    row!(CKA_EXTRACTABLE, SECRET, ANY | STAYS_FALSE, Flag(|a| a.extractable, |a, v| a.extractable = v)),
    row!(CKA_ALWAYS_SENSITIVE, SECRET, READ, Derived(|v| v.was_always_sensitive().map(flag_bytes))),
    row!(CKA_NEVER_EXTRACTABLE, SECRET, READ, Derived(|v| v.was_never_extractable().map(flag_bytes))),
    row!(CKA_VALUE, SECRET, NEED_CREATE, Secret(|d, v| d.set_value(v))),
    row!(
        CKA_VALUE_LEN,
        SECRET,
        NEED_GENERATE | DERIVE,
        Made(|v| Ok(number_bytes(v.secret_length()? as CK_ULONG)), |d, v| d.set_value_length(v)),
    ),
    // "If the library does not support the attribute then it should ignore it."
    row!(CKA_CHECK_VALUE, SECRET, NEW, Ignored),
    // RSA (PKCS#11 3.2, "RSA public key objects", "RSA private key objects").
    row!(CKA_MODULUS, PUBLIC_RSA | PRIVATE_RSA, NEED_CREATE, Made(|v| rsa(v).map(|k| k.0), |d, v| d.set_modulus(v))),
    row!(
        CKA_MODULUS_BITS,
        PUBLIC_RSA,
        NEED_GENERATE,
        Made(modulus_bits, |d, v| number(v).map(|n| d.modulus_bits = Some(n))),
    ),
    row!(
        CKA_PUBLIC_EXPONENT,
        PUBLIC_RSA,
        NEED_CREATE | GENERATE,
        Made(|v| rsa(v).map(|k| k.1), |d, v| d.set_exponent(v)),
    ),
    row!(CKA_PUBLIC_EXPONENT, PRIVATE_RSA, NEED_CREATE, Made(|v| rsa(v).map(|k| k.1), |d, v| d.set_exponent(v))),
    row!(CKA_PRIVATE_EXPONENT, PRIVATE_RSA, NEED_CREATE, Secret(|d, v| d.set_value(v))),
    row!(CKA_PRIME_1, PRIVATE_RSA, CREATE, Secret(|d, v| d.set_prime(v))),
    // The others follow from the first.
    row!(CKA_PRIME_2, PRIVATE_RSA, CREATE, Secret(|_, _| Ok(()))),
    row!(CKA_EXPONENT_1, PRIVATE_RSA, CREATE, Secret(|_, _| Ok(()))),
    row!(CKA_EXPONENT_2, PRIVATE_RSA, CREATE, Secret(|_, _| Ok(()))),
    row!(CKA_COEFFICIENT, PRIVATE_RSA, CREATE, Secret(|_, _| Ok(()))),
    // EC (PKCS#11 3.2, "Elliptic curve public key objects", "Elliptic curve private key objects").
    row!(CKA_EC_PARAMS, PUBLIC_EC, NEED_CREATE | NEED_GENERATE, Made(|v| ec(v).map(|k| k.0), |d, v| d.set_curve(v))),
    row!(CKA_EC_PARAMS, PRIVATE_EC, NEED_CREATE, Made(|v| ec(v).map(|k| k.0), |d, v| d.set_curve(v))),
    row!(CKA_EC_POINT, PUBLIC_EC, NEED_CREATE, Made(|v| ec(v).map(|k| k.1), |d, v| d.set_point(v))),
    // Not in the standard's table; libp11 and others ask the private key for it where no public key object is left.
    row!(CKA_EC_POINT, PRIVATE_EC, CREATE, Made(|v| ec(v).map(|k| k.1), |d, v| d.set_point(v))),
    row!(CKA_VALUE, PRIVATE_EC, NEED_CREATE, Secret(|d, v| d.set_value(v))),
];

/// The row of an attribute for one kind of object; `None` if such objects have none.
fn find(kind: CK_ATTRIBUTE_TYPE, of: Kinds) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.kind == kind && row.of & of != 0)
}

/// Reads an attribute; `None` if the object has none of this type.
pub(crate) fn read(view: &View, kind: CK_ATTRIBUTE_TYPE) -> Result<Option<Value>> {
    match find(kind, view.kinds()?) {
        None | Some(Row { access: Ignored, .. }) => Ok(None),
        Some(row) => row.read(view).map(Some),
    }
}

/// Writes what a template gives to a draft: `uses` is one of [`CREATE`], [`GENERATE`], [`DERIVE`], [`CHANGE`], [`COPY`].
///
/// Attributes that the object itself decides are left for [`check_derived`].
pub(crate) fn write(draft: &mut Draft, kind: CK_ATTRIBUTE_TYPE, value: &[u8], uses: Uses) -> Result<()> {
    write_one(draft, kind, value, uses).inspect_err(|error| tell(kind, *error))
}

fn write_one(draft: &mut Draft, kind: CK_ATTRIBUTE_TYPE, value: &[u8], uses: Uses) -> Result<()> {
    let Some(row) = find(kind, draft.of) else {
        // "An attribute is valid if it is described in the Cryptoki specification": then it is one of other objects.
        let elsewhere = TABLE.iter().any(|row| row.kind == kind);
        return Err(Error(if elsewhere { CKR_TEMPLATE_INCONSISTENT } else { CKR_ATTRIBUTE_TYPE_INVALID }));
    };
    if row.uses & uses == 0 {
        return Err(Error(CKR_ATTRIBUTE_READ_ONLY));
    }
    match &row.access {
        Flag(get, set) => {
            let (was, is) = (get(&draft.attributes), flag(value)?);
            let fixed = if was { STAYS_TRUE } else { STAYS_FALSE };
            if uses & (CHANGE | COPY) != 0 && row.uses & fixed != 0 && was != is {
                return Err(Error(CKR_ATTRIBUTE_READ_ONLY));
            }
            set(&mut draft.attributes, is);
        }
        Text(_, set) => set(&mut draft.attributes, text(value)?),
        Date(_, set) => set(&mut draft.attributes, date(value)?),
        Bytes(_, set) => set(&mut draft.attributes, value),
        Made(_, set) | Secret(set) => set(draft, value)?,
        Fixed(is) => {
            if flag(value)? != *is {
                let stays = row.uses & if *is { STAYS_TRUE } else { STAYS_FALSE } != 0;
                let changes = uses & (CHANGE | COPY) != 0;
                return Err(Error(if changes && stays { CKR_ATTRIBUTE_READ_ONLY } else { CKR_TEMPLATE_INCONSISTENT }));
            }
        }
        DerivedNumber(_) => {
            number(value)?;
        }
        Derived(_) | Ignored => {}
    }
    Ok(())
}

/// Checks that a template gives no value to an attribute that the object decides otherwise.
pub(crate) fn check_derived(view: &View, kind: CK_ATTRIBUTE_TYPE, value: &[u8]) -> Result<()> {
    let actual = match find(kind, view.kinds()?).map(|row| &row.access) {
        Some(Derived(read)) => read(view)?,
        Some(DerivedNumber(read)) => number_bytes(read(view)?),
        _ => return Ok(()),
    };
    // Some give a serial number without its header.
    let same = actual == value || (kind == CKA_SERIAL_NUMBER && actual.get(2..) == Some(value));
    let mismatch = Error(match kind {
        // "If there is a mismatch, the command SHALL return CKR_ATTRIBUTE_VALUE_INVALID" ("Private key objects").
        CKA_PUBLIC_KEY_INFO => CKR_ATTRIBUTE_VALUE_INVALID,
        _ => CKR_TEMPLATE_INCONSISTENT,
    });
    if same { Ok(()) } else { Err(mismatch).inspect_err(|error| tell(kind, *error)) }
}

/// Tells the log which attribute it is that a template is refused for: the application learns only a number.
pub(crate) fn tell(kind: CK_ATTRIBUTE_TYPE, error: Error) {
    let why = match error.0 {
        CKR_ATTRIBUTE_TYPE_INVALID => "there is no such attribute here",
        CKR_ATTRIBUTE_READ_ONLY => "it cannot be given here, or not be changed so",
        CKR_TEMPLATE_INCOMPLETE => "it is missing",
        CKR_TEMPLATE_INCONSISTENT => "such objects do not have it, or not with this value",
        CKR_CURVE_NOT_SUPPORTED => "the curve is not one of P-256, P-384 and P-521",
        _ => "its value is malformed, or out of range",
    };
    let name = TABLE.iter().find(|row| row.kind == kind).map_or("an attribute", |row| row.name);
    log::write(Topic::Error, format_args!("template: {name} (0x{kind:x}): {why}"));
}

/// The attributes that a new object's template must give.
pub(crate) fn needed(of: Kinds, uses: Uses) -> impl Iterator<Item = CK_ATTRIBUTE_TYPE> {
    let needed = match uses {
        GENERATE => NEED_GENERATE,
        CREATE => NEED_CREATE,
        // Nothing is needed to change, copy, derive or unwrap: the function contributes it.
        _ => Uses::MAX,
    };
    TABLE.iter().filter(move |row| row.of & of != 0 && row.uses & needed == needed).map(|row| row.kind)
}

impl Row {
    fn read(&self, view: &View) -> Result<Value> {
        let bytes = match &self.access {
            Flag(get, _) => flag_bytes(get(view.attributes()?)),
            Text(get, _) | Date(get, _) => get(view.attributes()?).as_bytes().to_vec(),
            Bytes(get, _) => get(view.attributes()?).to_vec(),
            Derived(get) | Made(get, _) => get(view)?,
            Fixed(is) => flag_bytes(*is),
            DerivedNumber(get) => number_bytes(get(view)?),
            Secret(_) => return Ok(view.secret().map_or(Value::Sensitive, |value| Value::Bytes(value.clone()))),
            Ignored => Vec::new(),
        };
        Ok(Value::Bytes(Zeroizing::new(bytes)))
    }
}

const MISSING: Error = Error(CKR_GENERAL_ERROR);

fn public_key(view: &View) -> Result<&PublicKey> {
    view.object.public_key().ok_or(MISSING)
}

/// Modulus and exponent.
fn rsa(view: &View) -> Result<(Vec<u8>, Vec<u8>)> {
    match public_key(view)? {
        PublicKey::Rsa { modulus, exponent } => Ok((modulus.clone(), exponent.clone())),
        PublicKey::Ec { .. } => Err(MISSING),
    }
}

fn modulus_bits(view: &View) -> Result<Vec<u8>> {
    Ok(number_bytes(public_key(view)?.bits() as CK_ULONG))
}

/// The curve's object identifier, and the point in an OCTET STRING.
fn ec(view: &View) -> Result<(Vec<u8>, Vec<u8>)> {
    match public_key(view)? {
        PublicKey::Ec { curve, point } => {
            Ok((curve_parameters(*curve)?, asn1::octet_string(point).map_err(|_| MISSING)?))
        }
        PublicKey::Rsa { .. } => Err(MISSING),
    }
}

/// `CKA_EC_PARAMS` of a curve: the namedCurve choice of RFC 5480's ECParameters.
pub(crate) fn curve_parameters(curve: Curve) -> Result<Vec<u8>> {
    use der::Encode as _;
    curve.oid().to_der().map_err(|_| MISSING)
}

fn generation_mechanism(view: &View) -> Result<CK_ULONG> {
    Ok(if view.is_local()? { view.key_type()?.generation() } else { CK_UNAVAILABLE_INFORMATION })
}

fn pcrs(view: &View) -> Result<Vec<u8>> {
    let key = view.wrapped();
    let pcrs = key.and_then(|key| key.policy.iter().find_map(|step| step.pcrs()));
    Ok(pcrs.map_or(String::new(), |pcrs| pcrs.to_string()).into_bytes())
}

fn policy(view: &View) -> Result<Vec<u8>> {
    Ok(view.wrapped().map(|key| key.public_area()).transpose()?.map_or(Vec::new(), |area| area.policy))
}

/// The space that an object's attributes take, in bytes (C_GetObjectSize).
pub(crate) fn size(view: &View) -> Result<usize> {
    let of = view.kinds()?;
    let mut size = 0;
    for row in TABLE.iter().filter(|row| row.of & of != 0) {
        if let Value::Bytes(bytes) = row.read(view)? {
            size += bytes.len();
        }
    }
    Ok(size)
}

fn allowed_mechanisms(view: &View) -> Result<Vec<u8>> {
    Ok(view.attributes()?.allowed_mechanisms.iter().flat_map(|kind| number_bytes(*kind as CK_ULONG)).collect())
}

fn set_allowed_mechanisms(draft: &mut Draft, value: &[u8]) -> Result<()> {
    draft.attributes.allowed_mechanisms = numbers(value)?.into_iter().map(wide).collect();
    Ok(())
}

fn category(view: &View) -> Result<Vec<u8>> {
    Ok(number_bytes(view.attributes()?.certificate_category as CK_ULONG))
}

fn set_category(draft: &mut Draft, value: &[u8]) -> Result<()> {
    let category = number(value)?;
    if category > CK_CERTIFICATE_CATEGORY_OTHER_ENTITY {
        return Err(Error(CKR_ATTRIBUTE_VALUE_INVALID));
    }
    draft.attributes.certificate_category = wide(category);
    Ok(())
}

fn certificate_value(view: &View) -> Result<Vec<u8>> {
    match &view.object.body {
        Body::Certificate { der, .. } => Ok(der.clone()),
        _ => Err(MISSING),
    }
}

fn field(view: &View, choose: fn(CertificateFields<'_>) -> &[u8]) -> Result<Vec<u8>> {
    let der = certificate_value(view)?;
    CertificateFields::read(&der).map(|fields| choose(fields).to_vec()).map_err(|_| MISSING)
}

/// "The first three bytes of the SHA-1 hash of the certificate object's CKA_VALUE."
fn check_value(view: &View) -> Result<Vec<u8>> {
    let mut digest = HashAlgorithm::Sha1.digest(&certificate_value(view)?);
    digest.truncate(3);
    Ok(digest)
}

fn data_value(view: &View) -> Result<Vec<u8>> {
    match &view.object.body {
        Body::Data { value, attributes } if attributes.private => {
            Ok(std::mem::take(&mut *view.token.open_data(view.object.id, value)?))
        }
        Body::Data { value, .. } => Ok(value.clone()),
        _ => Err(MISSING),
    }
}

/// The kind of an object's part.
pub(crate) fn kind_of(part: Part, key_type: Option<KeyType>) -> Kinds {
    match (part, key_type) {
        (Part::PrivateKey, Some(KeyType::Rsa)) => PRIVATE_RSA,
        (Part::PrivateKey, Some(KeyType::Ec)) => PRIVATE_EC,
        (Part::PublicKey, Some(KeyType::Rsa)) => PUBLIC_RSA,
        (Part::PublicKey, Some(KeyType::Ec)) => PUBLIC_EC,
        (Part::PrivateKey | Part::PublicKey, _) => 0,
        (Part::SecretKey, _) => SECRET,
        (Part::Certificate, _) => CERTIFICATE,
        (Part::Data, _) => DATA,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_kind_of_object_has_an_attribute_twice() {
        for (index, row) in TABLE.iter().enumerate() {
            let twice = TABLE[..index].iter().find(|other| other.kind == row.kind && other.of & row.of != 0);
            assert!(twice.is_none(), "attribute {:#x}", row.kind);
        }
    }

    #[test]
    fn what_the_standard_requires_is_required() {
        let of = |kinds, uses| needed(kinds, uses).collect::<Vec<_>>();
        assert_eq!(of(PUBLIC_RSA, GENERATE), [CKA_MODULUS_BITS]);
        assert_eq!(of(PUBLIC_EC, GENERATE), [CKA_EC_PARAMS]);
        assert_eq!(of(PRIVATE_RSA, GENERATE), [0; 0]);
        assert_eq!(of(CERTIFICATE, CREATE), [CKA_CLASS, CKA_VALUE, CKA_CERTIFICATE_TYPE, CKA_SUBJECT]);
        assert_eq!(of(DATA, CREATE), [CKA_CLASS]);
        assert_eq!(of(SECRET, GENERATE), [CKA_VALUE_LEN]);
        assert_eq!(of(SECRET, CREATE), [CKA_CLASS, CKA_KEY_TYPE, CKA_VALUE]);
        let private = [CKA_CLASS, CKA_KEY_TYPE, CKA_MODULUS, CKA_PUBLIC_EXPONENT, CKA_PRIVATE_EXPONENT];
        assert_eq!(of(PRIVATE_RSA, CREATE), private);
        assert_eq!(of(SECRET, DERIVE), [0; 0]);
    }
}
