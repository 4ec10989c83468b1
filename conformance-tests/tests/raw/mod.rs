//! The module as C sees it: its function list, called without anything in between.
#![allow(dead_code, unused_imports, reason = "each test file uses a part of it")]

use std::ptr::{null, null_mut};

use conformance_tests::{Device, SO_PIN};
use cryptoki_sys::*;

/// The value of a call: what it gave, or its `CKR_`.
pub(crate) type Rv<T> = Result<T, CK_RV>;

pub(crate) const PIN: &[u8] = b"1234";

/// Calls a function of the list with these arguments.
macro_rules! call {
    ($raw:expr, $name:ident($($argument:expr),* $(,)?)) => {{
        let function = $raw.list.$name.expect(stringify!($name));
        // SAFETY: each test gives what the function may be given, NULL included, with true lengths.
        match unsafe { function($($argument),*) } {
            CKR_OK => Ok(()),
            error => Err(error),
        }
    }};
}

pub(crate) use call;

/// The loaded module.
pub(crate) struct Raw {
    pub(crate) list: &'static CK_FUNCTION_LIST_3_2,
    pub(crate) library: libloading::Library,
}

impl Raw {
    /// Loads it, for this device, and takes its default interface.
    pub(crate) fn load(device: &Device) -> Self {
        device.enter();
        // SAFETY: our own library, whose initialisers do nothing.
        let library = unsafe { libloading::Library::new(device.module()) }.expect("the module loads");
        let mut interface: *mut CK_INTERFACE = null_mut();
        // SAFETY: this is the function's type in the standard, and it is given a place for its result.
        let list = unsafe {
            let get: libloading::Symbol<
                '_,
                unsafe extern "C" fn(*const u8, *const CK_VERSION, *mut *mut CK_INTERFACE, CK_FLAGS) -> CK_RV,
            > = library.get(b"C_GetInterface").expect("it exports C_GetInterface");
            assert_eq!(get(null(), null(), &mut interface, 0), CKR_OK);
            &*(*interface).pFunctionList.cast::<CK_FUNCTION_LIST_3_2>()
        };
        assert_eq!((list.version.major, list.version.minor), (3, 2));
        Self { list, library }
    }

    /// Loads and initialises it.
    pub(crate) fn initialised(device: &Device) -> Self {
        let raw = Self::load(device);
        call!(raw, C_Initialize(null_mut())).unwrap();
        raw
    }

    pub(crate) fn open(&self, slot: CK_SLOT_ID) -> CK_SESSION_HANDLE {
        self.open_with(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION).unwrap()
    }

    pub(crate) fn open_read_only(&self, slot: CK_SLOT_ID) -> CK_SESSION_HANDLE {
        self.open_with(slot, CKF_SERIAL_SESSION).unwrap()
    }

    pub(crate) fn open_with(&self, slot: CK_SLOT_ID, flags: CK_FLAGS) -> Rv<CK_SESSION_HANDLE> {
        let mut session = 0;
        call!(self, C_OpenSession(slot, flags, null_mut(), None, &mut session))?;
        Ok(session)
    }

    pub(crate) fn login(&self, session: CK_SESSION_HANDLE, user: CK_USER_TYPE, pin: &[u8]) -> Rv<()> {
        call!(self, C_Login(session, user, pin.as_ptr().cast_mut(), pin.len() as CK_ULONG))
    }

    pub(crate) fn state(&self, session: CK_SESSION_HANDLE) -> CK_STATE {
        let mut info = CK_SESSION_INFO::default();
        call!(self, C_GetSessionInfo(session, &mut info)).unwrap();
        info.state
    }

    pub(crate) fn token_info(&self, slot: CK_SLOT_ID) -> CK_TOKEN_INFO {
        let mut info = CK_TOKEN_INFO::default();
        call!(self, C_GetTokenInfo(slot, &mut info)).unwrap();
        info
    }

    pub(crate) fn slots(&self) -> Vec<CK_SLOT_ID> {
        let mut count = 0;
        call!(self, C_GetSlotList(CK_TRUE, null_mut(), &mut count)).unwrap();
        let mut slots = vec![0; count as usize];
        call!(self, C_GetSlotList(CK_TRUE, slots.as_mut_ptr(), &mut count)).unwrap();
        slots
    }

    /// Makes a token in this slot, by the functions for it, with [`PIN`].
    pub(crate) fn make_token(&self, slot: CK_SLOT_ID, label: &str) {
        // A slot comes into being when the list is asked for.
        let _ = self.slots();
        let mut padded = format!("{label:32}").into_bytes();
        let (so_pin, length) = (SO_PIN.as_ptr().cast_mut(), SO_PIN.len() as CK_ULONG);
        call!(self, C_InitToken(slot, so_pin, length, padded.as_mut_ptr())).unwrap();
        let session = self.open(slot);
        self.login(session, CKU_SO, SO_PIN.as_bytes()).unwrap();
        call!(self, C_InitPIN(session, PIN.as_ptr().cast_mut(), PIN.len() as CK_ULONG)).unwrap();
        call!(self, C_CloseSession(session)).unwrap();
    }

    /// The only object of this class with this label.
    pub(crate) fn only(&self, session: CK_SESSION_HANDLE, class: CK_OBJECT_CLASS, label: &[u8]) -> CK_OBJECT_HANDLE {
        let found = self.find(session, &[(CKA_CLASS, number(class)), (CKA_LABEL, label.to_vec())]);
        assert_eq!(found.len(), 1, "a token has its own key and no other's");
        found[0]
    }

    /// Signs with the P-256 key pair of this label, and verifies that, and that nothing else is signed.
    pub(crate) fn sign_with_pair(&self, session: CK_SESSION_HANDLE, label: &[u8]) {
        let [private, public] = [CKO_PRIVATE_KEY, CKO_PUBLIC_KEY].map(|class| self.only(session, class, label));
        self.sign_init(session, CKM_ECDSA, private).unwrap();
        let digest = [label[0]; 32];
        let signature = self.sign(session, &digest).unwrap();
        self.verify(session, CKM_ECDSA, public, &digest, &signature).unwrap();
        let other = [label[0] ^ 1; 32];
        assert_eq!(self.verify(session, CKM_ECDSA, public, &other, &signature), Err(CKR_SIGNATURE_INVALID));
    }

    pub(crate) fn find(&self, session: CK_SESSION_HANDLE, template: &[Given]) -> Vec<CK_OBJECT_HANDLE> {
        self.try_find(session, template).unwrap()
    }

    pub(crate) fn try_find(&self, session: CK_SESSION_HANDLE, template: &[Given]) -> Rv<Vec<CK_OBJECT_HANDLE>> {
        let mut attributes = attributes(template);
        call!(self, C_FindObjectsInit(session, attributes.as_mut_ptr(), attributes.len() as CK_ULONG))?;
        let (mut found, mut buffer, mut count) = (Vec::new(), [0; 3], 1);
        while count > 0 {
            call!(self, C_FindObjects(session, buffer.as_mut_ptr(), 3, &mut count))?;
            found.extend_from_slice(&buffer[..count as usize]);
        }
        call!(self, C_FindObjectsFinal(session))?;
        Ok(found)
    }

    pub(crate) fn create(&self, session: CK_SESSION_HANDLE, template: &[Given]) -> Rv<CK_OBJECT_HANDLE> {
        let (mut attributes, mut object) = (attributes(template), 0);
        let count = attributes.len() as CK_ULONG;
        call!(self, C_CreateObject(session, attributes.as_mut_ptr(), count, &mut object))?;
        Ok(object)
    }

    pub(crate) fn set(&self, session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE, template: &[Given]) -> Rv<()> {
        let mut attributes = attributes(template);
        call!(self, C_SetAttributeValue(session, object, attributes.as_mut_ptr(), attributes.len() as CK_ULONG))
    }

    pub(crate) fn copy(
        &self,
        session: CK_SESSION_HANDLE,
        object: CK_OBJECT_HANDLE,
        template: &[Given],
    ) -> Rv<CK_OBJECT_HANDLE> {
        let (mut attributes, mut copy) = (attributes(template), 0);
        let count = attributes.len() as CK_ULONG;
        call!(self, C_CopyObject(session, object, attributes.as_mut_ptr(), count, &mut copy))?;
        Ok(copy)
    }

    /// One attribute, by the usual two calls.
    pub(crate) fn get(
        &self,
        session: CK_SESSION_HANDLE,
        object: CK_OBJECT_HANDLE,
        kind: CK_ATTRIBUTE_TYPE,
    ) -> Rv<Vec<u8>> {
        let mut attribute = CK_ATTRIBUTE { type_: kind, pValue: null_mut(), ulValueLen: 0 };
        call!(self, C_GetAttributeValue(session, object, &mut attribute, 1))?;
        let mut value = vec![0; attribute.ulValueLen as usize];
        attribute.pValue = value.as_mut_ptr().cast();
        call!(self, C_GetAttributeValue(session, object, &mut attribute, 1))?;
        Ok(value)
    }

    /// Public and private key.
    pub(crate) fn generate(
        &self,
        session: CK_SESSION_HANDLE,
        kind: CK_MECHANISM_TYPE,
        public: &[Given],
        private: &[Given],
    ) -> Rv<(CK_OBJECT_HANDLE, CK_OBJECT_HANDLE)> {
        let (mut mechanism, mut public, mut private) = (mechanism(kind), attributes(public), attributes(private));
        let (mut public_key, mut private_key) = (0, 0);
        let (public_count, private_count) = (public.len() as CK_ULONG, private.len() as CK_ULONG);
        let (public, private) = (public.as_mut_ptr(), private.as_mut_ptr());
        let (first, second) = (&mut public_key, &mut private_key);
        call!(
            self,
            C_GenerateKeyPair(session, &mut mechanism, public, public_count, private, private_count, first, second)
        )?;
        Ok((public_key, private_key))
    }

    /// A secret key.
    pub(crate) fn generate_secret(
        &self,
        session: CK_SESSION_HANDLE,
        kind: CK_MECHANISM_TYPE,
        template: &[Given],
    ) -> Rv<CK_OBJECT_HANDLE> {
        let (mut mechanism, mut template, mut key) = (mechanism(kind), attributes(template), 0);
        let count = template.len() as CK_ULONG;
        call!(self, C_GenerateKey(session, &mut mechanism, template.as_mut_ptr(), count, &mut key))?;
        Ok(key)
    }

    /// A key by C_DeriveKey.
    pub(crate) fn derive(
        &self,
        session: CK_SESSION_HANDLE,
        wanted: &Wanted,
        base: CK_OBJECT_HANDLE,
        template: &[Given],
    ) -> Rv<CK_OBJECT_HANDLE> {
        let (mut mechanism, mut template, mut key) = (wanted.mechanism(), attributes(template), 0);
        let count = template.len() as CK_ULONG;
        call!(self, C_DeriveKey(session, &mut mechanism, base, template.as_mut_ptr(), count, &mut key))?;
        Ok(key)
    }

    /// What C_WrapKey makes of a key.
    pub(crate) fn wrap(
        &self,
        session: CK_SESSION_HANDLE,
        wanted: &Wanted,
        by: CK_OBJECT_HANDLE,
        key: CK_OBJECT_HANDLE,
    ) -> Rv<Vec<u8>> {
        let (mut mechanism, mut wrapped, mut length) = (wanted.mechanism(), vec![0; 600], 600);
        call!(self, C_WrapKey(session, &mut mechanism, by, key, wrapped.as_mut_ptr(), &mut length))?;
        wrapped.truncate(length as usize);
        Ok(wrapped)
    }

    /// A key by C_UnwrapKey.
    pub(crate) fn unwrap(
        &self,
        session: CK_SESSION_HANDLE,
        wanted: &Wanted,
        by: CK_OBJECT_HANDLE,
        wrapped: &[u8],
        template: &[Given],
    ) -> Rv<CK_OBJECT_HANDLE> {
        let (mut mechanism, mut template, mut key) = (wanted.mechanism(), attributes(template), 0);
        let (pointer, length, count) =
            (wrapped.as_ptr().cast_mut(), wrapped.len() as CK_ULONG, template.len() as CK_ULONG);
        call!(self, C_UnwrapKey(session, &mut mechanism, by, pointer, length, template.as_mut_ptr(), count, &mut key))?;
        Ok(key)
    }

    /// A P-256 pair of the token, or of the session.
    pub(crate) fn generate_ec(&self, session: CK_SESSION_HANDLE, token: bool) -> (CK_OBJECT_HANDLE, CK_OBJECT_HANDLE) {
        let public = [(CKA_TOKEN, flag(token)), (CKA_EC_PARAMS, P256.to_vec())];
        self.generate(session, CKM_EC_KEY_PAIR_GEN, &public, &[(CKA_TOKEN, flag(token))]).unwrap()
    }

    pub(crate) fn sign_init(
        &self,
        session: CK_SESSION_HANDLE,
        kind: CK_MECHANISM_TYPE,
        key: CK_OBJECT_HANDLE,
    ) -> Rv<()> {
        call!(self, C_SignInit(session, &mut mechanism(kind), key))
    }

    pub(crate) fn sign(&self, session: CK_SESSION_HANDLE, data: &[u8]) -> Rv<Vec<u8>> {
        let (mut signature, mut length) = (vec![0; 512], 512);
        let (data, count) = (data.as_ptr().cast_mut(), data.len() as CK_ULONG);
        call!(self, C_Sign(session, data, count, signature.as_mut_ptr(), &mut length))?;
        signature.truncate(length as usize);
        Ok(signature)
    }

    /// Begins an operation.
    pub(crate) fn begin(
        &self,
        init: CK_C_SignInit,
        session: CK_SESSION_HANDLE,
        wanted: &Wanted,
        key: CK_OBJECT_HANDLE,
    ) -> Rv<()> {
        let mut mechanism = wanted.mechanism();
        // SAFETY: a function of the list; the mechanism is valid.
        answer(unsafe { init.unwrap()(session, &mut mechanism, key) })
    }

    /// Calls a function that makes one thing of another: C_Sign, C_EncryptUpdate and their likes.
    pub(crate) fn through(&self, function: CK_C_Sign, session: CK_SESSION_HANDLE, data: &[u8]) -> Rv<Vec<u8>> {
        let mut out = vec![0; data.len() + 512];
        let (mut length, count) = (out.len() as CK_ULONG, data.len() as CK_ULONG);
        let data = data.as_ptr().cast_mut();
        // SAFETY: a function of the list; both have the lengths that it is told.
        answer(unsafe { function.unwrap()(session, data, count, out.as_mut_ptr(), &mut length) })?;
        out.truncate(length as usize);
        Ok(out)
    }

    /// Calls a function that takes a part and gives nothing: C_SignUpdate and its likes.
    pub(crate) fn add(&self, function: CK_C_SignUpdate, session: CK_SESSION_HANDLE, part: &[u8]) -> Rv<()> {
        // SAFETY: a function of the list; the part has the length that it is told.
        answer(unsafe { function.unwrap()(session, part.as_ptr().cast_mut(), part.len() as CK_ULONG) })
    }

    /// Calls a function that gives what is left: C_SignFinal and its likes.
    pub(crate) fn last(&self, function: CK_C_SignFinal, session: CK_SESSION_HANDLE) -> Rv<Vec<u8>> {
        let (mut out, mut length) = (vec![0; 512], 512);
        // SAFETY: a function of the list; there is the room that it is told.
        answer(unsafe { function.unwrap()(session, out.as_mut_ptr(), &mut length) })?;
        out.truncate(length as usize);
        Ok(out)
    }

    /// Calls C_Verify.
    pub(crate) fn check(&self, function: CK_C_Verify, session: CK_SESSION_HANDLE, data: &[u8], by: &[u8]) -> Rv<()> {
        let (data, count) = (data.as_ptr().cast_mut(), data.len() as CK_ULONG);
        // SAFETY: a function of the list; both have the lengths that it is told.
        answer(unsafe { function.unwrap()(session, data, count, by.as_ptr().cast_mut(), by.len() as CK_ULONG) })
    }

    pub(crate) fn verify(
        &self,
        session: CK_SESSION_HANDLE,
        kind: CK_MECHANISM_TYPE,
        key: CK_OBJECT_HANDLE,
        data: &[u8],
        signature: &[u8],
    ) -> Rv<()> {
        call!(self, C_VerifyInit(session, &mut mechanism(kind), key))?;
        let (data, count) = (data.as_ptr().cast_mut(), data.len() as CK_ULONG);
        call!(self, C_Verify(session, data, count, signature.as_ptr().cast_mut(), signature.len() as CK_ULONG))
    }
}

/// A mechanism and its parameter.
pub(crate) struct Wanted(pub(crate) CK_MECHANISM_TYPE, pub(crate) Vec<u8>);

impl Wanted {
    /// One whose parameter is a structure of words.
    pub(crate) fn words(kind: CK_MECHANISM_TYPE, words: &[CK_ULONG]) -> Self {
        Self(kind, words.iter().flat_map(|word| word.to_ne_bytes()).collect())
    }

    /// As C has it; it points to this one.
    pub(crate) fn mechanism(&self) -> CK_MECHANISM {
        let (length, pointer) = (self.1.len() as CK_ULONG, self.1.as_ptr().cast_mut().cast());
        let parameter = if length == 0 { null_mut() } else { pointer };
        CK_MECHANISM { mechanism: self.0, pParameter: parameter, ulParameterLen: length }
    }
}

fn answer(value: CK_RV) -> Rv<()> {
    if value == CKR_OK { Ok(()) } else { Err(value) }
}

/// Keyrivet's attribute for keys that stay in the TPM.
pub(crate) const PERSISTENT: CK_ATTRIBUTE_TYPE = CKA_VENDOR_DEFINED | 0x4b52_0003;

/// The object identifiers of the curves, in DER.
pub(crate) const P256: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];

/// A mechanism without parameter.
pub(crate) fn mechanism(kind: CK_MECHANISM_TYPE) -> CK_MECHANISM {
    CK_MECHANISM { mechanism: kind, pParameter: null_mut(), ulParameterLen: 0 }
}

/// An attribute that is given.
pub(crate) type Given = (CK_ATTRIBUTE_TYPE, Vec<u8>);

pub(crate) fn flag(on: bool) -> Vec<u8> {
    vec![u8::from(on)]
}

pub(crate) fn number(value: CK_ULONG) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}

fn attributes(template: &[Given]) -> Vec<CK_ATTRIBUTE> {
    let attribute = |(kind, value): &Given| CK_ATTRIBUTE {
        type_: *kind,
        pValue: value.as_ptr().cast_mut().cast(),
        ulValueLen: value.len() as CK_ULONG,
    };
    template.iter().map(attribute).collect()
}

/// `r || s` as OpenSSL takes it, in DER.
pub(crate) fn ecdsa_der(signature: &[u8]) -> Vec<u8> {
    let number = |bytes| openssl::bn::BigNum::from_slice(bytes).unwrap();
    let (r, s) = signature.split_at(signature.len() / 2);
    openssl::ecdsa::EcdsaSig::from_private_components(number(r), number(s)).unwrap().to_der().unwrap()
}
