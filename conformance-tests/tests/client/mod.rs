//! The `cryptoki` crate as the module's client, and what it has no names for by the function list beside it.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::time::{Duration, Instant};

use conformance_tests::{Device, Token};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Function, Pkcs11};
use cryptoki::error::{Error, Rv, RvError};
use cryptoki::mechanism::rsa::PkcsMgfType;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use cryptoki_sys::*;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Public};

use crate::raw::{Raw, call};

pub(crate) const PIN: &str = "1234";
const PATIENCE: Duration = Duration::from_secs(10);

/// What a call gave, or what it was refused with.
pub(crate) type Answer<T> = Result<T, RvError>;

/// A public and a private key.
pub(crate) type Pair = (ObjectHandle, ObjectHandle);

/// A device with a token, and a session with it in this process, logged in. In the order in which they must end.
pub(crate) struct Client {
    pub(crate) session: Session,
    pub(crate) module: Pkcs11,
    pub(crate) raw: Raw,
    pub(crate) device: Device,
}

impl Client {
    /// A token `dev` with this PIN.
    pub(crate) fn new(pin: &str) -> Self {
        Self::configured(pin, "")
    }

    /// A token `dev`, and these lines of configuration beside the usual ones.
    pub(crate) fn configured(pin: &str, lines: &str) -> Self {
        let device = Device::new();
        device.configure(lines);
        let _ = Token::new(&device, "dev", pin);
        Self::of(device, pin)
    }

    /// The device's first token.
    pub(crate) fn of(device: Device, pin: &str) -> Self {
        device.enter();
        let module = Pkcs11::new(device.module()).unwrap();
        module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
        let session = module.open_rw_session(module.get_slots_with_initialized_token().unwrap()[0]).unwrap();
        if !pin.is_empty() {
            session.login(UserType::User, Some(&AuthPin::from(pin))).unwrap();
        }
        Self { session, module, raw: Raw::load(&device), device }
    }

    pub(crate) fn slot(&self) -> Slot {
        self.session.get_session_info().unwrap().slot_id()
    }

    /// An RSA pair of the session.
    pub(crate) fn rsa(&self, bits: CK_ULONG, public: &[Attribute], private: &[Attribute]) -> Pair {
        let public = [&[Attribute::ModulusBits(bits.into())], public].concat();
        self.session.generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, private).unwrap()
    }

    /// An RSA pair of the session that signs and decrypts.
    pub(crate) fn rsa_for_all(&self, bits: CK_ULONG) -> Pair {
        let public = [Attribute::Verify(true), Attribute::Encrypt(true), Attribute::VerifyRecover(true)];
        let private = [Attribute::Sign(true), Attribute::Decrypt(true), Attribute::SignRecover(true)];
        self.rsa(bits, &public, &private)
    }

    /// An EC pair of the session; the curve by its object identifier in DER.
    pub(crate) fn ec(&self, curve: &[u8], private: &[Attribute]) -> Pair {
        let public = [Attribute::EcParams(curve.to_vec())];
        self.session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, private).unwrap()
    }

    /// An attribute, as bytes.
    pub(crate) fn get(&self, object: ObjectHandle, kind: CK_ATTRIBUTE_TYPE) -> Answer<Vec<u8>> {
        self.raw.get(self.session.handle(), object.handle(), kind).map_err(named)
    }

    pub(crate) fn flag(&self, object: ObjectHandle, kind: CK_ATTRIBUTE_TYPE) -> bool {
        self.get(object, kind).unwrap() == [CK_TRUE]
    }

    /// A key for OpenSSL, by the one attribute that both halves of a pair have.
    pub(crate) fn openssl_key(&self, key: ObjectHandle) -> PKey<Public> {
        PKey::public_key_from_der(&self.get(key, CKA_PUBLIC_KEY_INFO).unwrap()).unwrap()
    }

    pub(crate) fn find_one(&self, template: &[Attribute]) -> ObjectHandle {
        let found = self.session.find_objects(template).unwrap();
        assert_eq!(found.len(), 1, "{template:?}");
        found[0]
    }

    /// The kinds of mechanism that the token offers, also those that the client crate does not know.
    pub(crate) fn mechanisms(&self) -> Vec<CK_MECHANISM_TYPE> {
        let (slot, mut count) = (self.slot().id(), 0);
        call!(self.raw, C_GetMechanismList(slot, std::ptr::null_mut(), &mut count)).unwrap();
        let mut kinds = vec![0; count as usize];
        call!(self.raw, C_GetMechanismList(slot, kinds.as_mut_ptr(), &mut count)).unwrap();
        kinds
    }

    pub(crate) fn mechanism_info(&self, kind: CK_MECHANISM_TYPE) -> Answer<CK_MECHANISM_INFO> {
        let mut info = CK_MECHANISM_INFO::default();
        call!(self.raw, C_GetMechanismInfo(self.slot().id(), kind, &mut info)).map_err(named)?;
        Ok(info)
    }

    /// Waits for the TPM to be empty, as it is to be soon after the last use. Nobody is between who could clean up.
    pub(crate) fn assert_nothing_is_left_at_the_tpm(device: &Device) {
        let deadline = Instant::now() + PATIENCE;
        while !device.left_at_the_tpm().is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(device.left_at_the_tpm(), "");
    }
}

/// Operations, at once.
impl Client {
    pub(crate) fn sign(&self, wanted: &Wanted<'_>, key: ObjectHandle, data: &[u8]) -> Answer<Vec<u8>> {
        if let Some(known) = wanted.known() {
            return answer(self.session.sign(known, key, data));
        }
        self.start(Start::Sign, wanted, key)?;
        self.raw.sign(self.session.handle(), data).map_err(named)
    }

    pub(crate) fn verify(&self, wanted: &Wanted<'_>, key: ObjectHandle, data: &[u8], signature: &[u8]) -> Answer<()> {
        if let Some(known) = wanted.known() {
            return answer(self.session.verify(known, key, data, signature));
        }
        self.start(Start::Verify, wanted, key)?;
        let (data, count) = (data.as_ptr().cast_mut(), data.len() as CK_ULONG);
        let (signature, length) = (signature.as_ptr().cast_mut(), signature.len() as CK_ULONG);
        call!(self.raw, C_Verify(self.session.handle(), data, count, signature, length)).map_err(named)
    }

    pub(crate) fn encrypt(&self, wanted: &Wanted<'_>, key: ObjectHandle, data: &[u8]) -> Answer<Vec<u8>> {
        if let Some(known) = wanted.known() {
            return answer(self.session.encrypt(known, key, data));
        }
        self.start(Start::Encrypt, wanted, key)?;
        self.output(data, |session, data, count, output, length| {
            call!(self.raw, C_Encrypt(session, data, count, output, length))
        })
    }

    pub(crate) fn decrypt(&self, wanted: &Wanted<'_>, key: ObjectHandle, data: &[u8]) -> Answer<Vec<u8>> {
        if let Some(known) = wanted.known() {
            return answer(self.session.decrypt(known, key, data));
        }
        self.start(Start::Decrypt, wanted, key)?;
        self.output(data, |session, data, count, output, length| {
            call!(self.raw, C_Decrypt(session, data, count, output, length))
        })
    }

    pub(crate) fn sign_recover(&self, wanted: &Wanted<'_>, key: ObjectHandle, data: &[u8]) -> Answer<Vec<u8>> {
        self.start(Start::SignRecover, wanted, key)?;
        self.output(data, |session, data, count, output, length| {
            call!(self.raw, C_SignRecover(session, data, count, output, length))
        })
    }

    pub(crate) fn verify_recover(&self, wanted: &Wanted<'_>, key: ObjectHandle, signature: &[u8]) -> Answer<Vec<u8>> {
        self.start(Start::VerifyRecover, wanted, key)?;
        self.output(signature, |session, data, count, output, length| {
            call!(self.raw, C_VerifyRecover(session, data, count, output, length))
        })
    }

    pub(crate) fn digest(&self, kind: CK_MECHANISM_TYPE, data: &[u8]) -> Answer<Vec<u8>> {
        let session = self.session.handle();
        call!(self.raw, C_DigestInit(session, &mut crate::raw::mechanism(kind))).map_err(named)?;
        self.output(data, |session, data, count, output, length| {
            call!(self.raw, C_Digest(session, data, count, output, length))
        })
    }

    pub(crate) fn derive(
        &self,
        wanted: &Wanted<'_>,
        key: ObjectHandle,
        template: &[Attribute],
    ) -> Answer<ObjectHandle> {
        if let Some(known) = wanted.known() {
            return answer(self.session.derive_key(known, key, template));
        }
        let mut attributes: Vec<CK_ATTRIBUTE> = template.iter().map(Into::into).collect();
        let (session, count, mut object) = (self.session.handle(), attributes.len() as CK_ULONG, 0);
        let (mechanism, attributes) = (&mut wanted.mechanism(), attributes.as_mut_ptr());
        call!(self.raw, C_DeriveKey(session, mechanism, key.handle(), attributes, count, &mut object))
            .map_err(named)?;
        // SAFETY: this is a handle that the module has just given.
        Ok(unsafe { ObjectHandle::new_from_raw(object) })
    }

    /// Asks a function that gives bytes for their length, and then for them.
    fn output(
        &self,
        data: &[u8],
        function: impl Fn(CK_SESSION_HANDLE, *mut u8, CK_ULONG, *mut u8, *mut CK_ULONG) -> crate::raw::Rv<()>,
    ) -> Answer<Vec<u8>> {
        let (session, count, mut length) = (self.session.handle(), data.len() as CK_ULONG, 0);
        let data = data.as_ptr().cast_mut();
        function(session, data, count, std::ptr::null_mut(), &mut length).map_err(named)?;
        let mut output = vec![0; length as usize];
        function(session, data, count, output.as_mut_ptr(), &mut length).map_err(named)?;
        output.truncate(length as usize);
        Ok(output)
    }

    /// The `C_...Init` of an operation with a key.
    pub(crate) fn start(&self, start: Start, wanted: &Wanted<'_>, key: ObjectHandle) -> Answer<()> {
        let (session, mechanism, key) = (self.session.handle(), &mut wanted.mechanism(), key.handle());
        match start {
            Start::Sign => call!(self.raw, C_SignInit(session, mechanism, key)),
            Start::SignRecover => call!(self.raw, C_SignRecoverInit(session, mechanism, key)),
            Start::Verify => call!(self.raw, C_VerifyInit(session, mechanism, key)),
            Start::VerifyRecover => call!(self.raw, C_VerifyRecoverInit(session, mechanism, key)),
            Start::Encrypt => call!(self.raw, C_EncryptInit(session, mechanism, key)),
            Start::Decrypt => call!(self.raw, C_DecryptInit(session, mechanism, key)),
        }
        .map_err(named)
    }
}

/// Operations, in parts.
impl Client {
    pub(crate) fn sign_in_parts(&self, wanted: &Wanted<'_>, key: ObjectHandle, parts: &[&[u8]]) -> Answer<Vec<u8>> {
        self.start(Start::Sign, wanted, key)?;
        parts.iter().try_for_each(|part| answer(self.session.sign_update(part)))?;
        answer(self.session.sign_final())
    }

    pub(crate) fn verify_in_parts(
        &self,
        wanted: &Wanted<'_>,
        key: ObjectHandle,
        parts: &[&[u8]],
        signature: &[u8],
    ) -> Answer<()> {
        self.start(Start::Verify, wanted, key)?;
        parts.iter().try_for_each(|part| answer(self.session.verify_update(part)))?;
        answer(self.session.verify_final(signature))
    }

    pub(crate) fn encrypt_in_parts(&self, wanted: &Wanted<'_>, key: ObjectHandle, parts: &[&[u8]]) -> Answer<Vec<u8>> {
        self.start(Start::Encrypt, wanted, key)?;
        let mut output = Vec::new();
        for part in parts {
            output.extend(answer(self.session.encrypt_update(part))?);
        }
        output.extend(answer(self.session.encrypt_final())?);
        Ok(output)
    }

    pub(crate) fn decrypt_in_parts(&self, wanted: &Wanted<'_>, key: ObjectHandle, parts: &[&[u8]]) -> Answer<Vec<u8>> {
        self.start(Start::Decrypt, wanted, key)?;
        let mut output = Vec::new();
        for part in parts {
            output.extend(answer(self.session.decrypt_update(part))?);
        }
        output.extend(answer(self.session.decrypt_final())?);
        Ok(output)
    }
}

/// Which operation starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Sign,
    SignRecover,
    Verify,
    VerifyRecover,
    Encrypt,
    Decrypt,
}

/// A mechanism, by the client crate's name where it has one.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    known: Mechanism<'a>,
    number: Option<CK_MECHANISM_TYPE>,
}

impl<'a> Wanted<'a> {
    /// One that the client crate has no name for, with the parameter of one that it has.
    pub(crate) fn number(number: CK_MECHANISM_TYPE, parameter_of: Mechanism<'a>) -> Self {
        Self { known: parameter_of, number: Some(number) }
    }

    /// One without parameter.
    pub(crate) fn plain(number: CK_MECHANISM_TYPE) -> Self {
        Self::number(number, Mechanism::RsaPkcs)
    }

    pub(crate) fn kind(&self) -> CK_MECHANISM_TYPE {
        self.mechanism().mechanism
    }

    fn known(&self) -> Option<&Mechanism<'a>> {
        self.number.is_none().then_some(&self.known)
    }

    fn mechanism(&self) -> CK_MECHANISM {
        let known = CK_MECHANISM::from(&self.known);
        CK_MECHANISM { mechanism: self.number.unwrap_or(known.mechanism), ..known }
    }
}

impl<'a> From<Mechanism<'a>> for Wanted<'a> {
    fn from(known: Mechanism<'a>) -> Self {
        Self { known, number: None }
    }
}

/// What a call of the client crate was refused with.
pub(crate) fn answer<T>(result: cryptoki::error::Result<T>) -> Answer<T> {
    result.map_err(|error| match error {
        Error::Pkcs11(refused, _) => refused,
        other => panic!("{other}"),
    })
}

/// A `CKR_` by its name.
pub(crate) fn named(value: CK_RV) -> RvError {
    answer(Rv::from(value).into_result(Function::GetInfo)).unwrap_err()
}

/// Every file of the store, and what is in it.
pub(crate) fn stored(device: &Device) -> Vec<(String, Vec<u8>)> {
    let tokens = std::fs::read_dir(device.store()).unwrap().flatten().filter(|entry| entry.path().is_dir());
    let files = tokens.flat_map(|token| std::fs::read_dir(token.path()).unwrap().flatten());
    let mut files: Vec<_> = files.map(|file| file.path()).filter(|path| path.is_file()).collect();
    files.sort();
    files.iter().map(|path| (path.display().to_string(), std::fs::read(path).unwrap())).collect()
}

pub(crate) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// The template of an AES or generic secret key of the session whose value is known.
pub(crate) fn secret(kind: cryptoki::object::KeyType, value: &[u8]) -> Vec<Attribute> {
    let value = Attribute::Value(value.to_vec());
    vec![Attribute::Class(ObjectClass::SECRET_KEY), Attribute::KeyType(kind), value]
}

/// A hash under its names in PKCS#11 and in OpenSSL.
#[derive(Clone, Copy)]
pub(crate) struct Hash {
    pub(crate) name: &'static str,
    pub(crate) kind: MechanismType,
    pub(crate) mgf: PkcsMgfType,
    pub(crate) digest: fn() -> MessageDigest,
}

impl Hash {
    pub(crate) fn length(&self) -> usize {
        (self.digest)().size()
    }

    pub(crate) fn of(&self, data: &[u8]) -> Vec<u8> {
        openssl::hash::hash((self.digest)(), data).unwrap().to_vec()
    }
}

const fn hash(name: &'static str, kind: MechanismType, mgf: PkcsMgfType, digest: fn() -> MessageDigest) -> Hash {
    Hash { name, kind, mgf, digest }
}

pub(crate) const HASHES: [Hash; 5] = [
    hash("SHA1", MechanismType::SHA1, PkcsMgfType::MGF1_SHA1, MessageDigest::sha1),
    hash("SHA224", MechanismType::SHA224, PkcsMgfType::MGF1_SHA224, MessageDigest::sha224),
    hash("SHA256", MechanismType::SHA256, PkcsMgfType::MGF1_SHA256, MessageDigest::sha256),
    hash("SHA384", MechanismType::SHA384, PkcsMgfType::MGF1_SHA384, MessageDigest::sha384),
    hash("SHA512", MechanismType::SHA512, PkcsMgfType::MGF1_SHA512, MessageDigest::sha512),
];

/// The curves by their object identifiers in DER, and as OpenSSL knows them.
pub(crate) const CURVES: [(&[u8], Nid); 3] = [
    (crate::raw::P256, Nid::X9_62_PRIME256V1),
    (&[6, 5, 0x2b, 0x81, 4, 0, 0x22], Nid::SECP384R1),
    (&[6, 5, 0x2b, 0x81, 4, 0, 0x23], Nid::SECP521R1),
];

/// Generates a secret key of so many bytes.
pub(crate) fn generate(
    client: &Client,
    mechanism: Mechanism<'_>,
    length: CK_ULONG,
    more: &[Attribute],
) -> Answer<ObjectHandle> {
    let template = [&[Attribute::ValueLen(length.into())], more].concat();
    answer(client.session.generate_key(&mechanism, &template))
}

/// `data` cut into parts of some lengths, over and over.
pub(crate) fn parts(data: &[u8]) -> Vec<&[u8]> {
    let (mut rest, mut found) = (data, Vec::new());
    for length in [1, 0, 15, 16, 17, 31, 64, 2000].into_iter().cycle() {
        let (part, after) = rest.split_at(rest.len().min(length));
        found.push(part);
        rest = after;
        if rest.is_empty() {
            return found;
        }
    }
    found
}
