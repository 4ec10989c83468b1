//! The module over a store of its own and without a TPM: whatever does not need one works.
#![allow(dead_code, unused_imports, reason = "each target uses a part of it")]

use std::any::Any;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::sync::OnceLock;

use cryptoki_sys::*;
use keyrivet_pkcs11 as _;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use tempfile::TempDir;

unsafe extern "C" {
    fn C_GetInterface(
        name: *const u8,
        version: *const CK_VERSION,
        interface: *mut *mut CK_INTERFACE,
        flags: CK_FLAGS,
    ) -> CK_RV;
}

/// Calls a function of the list; its answer.
macro_rules! call {
    ($list:expr, $name:ident($($argument:expr),* $(,)?)) => {{
        // SAFETY: each target gives what the function may be given, with true lengths.
        unsafe { $list.$name.expect(stringify!($name))($($argument),*) }
    }};
}

pub(crate) use call;

/// A store as it was made, and the module for it.
pub(crate) struct World {
    pub(crate) list: &'static CK_FUNCTION_LIST_3_2,
    store: PathBuf,
    files: BTreeSet<PathBuf>,
    _folder: TempDir,
}

/// The world, made at first use.
pub(crate) fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let folder = TempDir::new().expect("a folder");
        let store = folder.path().join("store");
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds/store"), &store);
        enter(&folder, &store, "device:/nowhere/at/all", "");
        let mut interface: *mut CK_INTERFACE = null_mut();
        // SAFETY: this is the function's type in the standard, and what it gives lasts.
        let list = unsafe {
            assert_eq!(C_GetInterface(null_mut(), null_mut(), &mut interface, 0), CKR_OK);
            &*(*interface).pFunctionList.cast::<CK_FUNCTION_LIST_3_2>()
        };
        let files = files(&store).collect();
        World { list, store, files, _folder: folder }
    })
}

/// Makes this process one with this store and this TPM.
pub(crate) fn enter(folder: &TempDir, store: &Path, tcti: &str, settings: &str) {
    let config = folder.path().join("keyrivet.toml");
    let text = format!("lock_dir = '{}'\npatience_ms = 100\n{settings}", folder.path().display());
    std::fs::write(&config, text).expect("a file");
    for (name, value) in [("STORE", store.as_os_str()), ("CONFIG", config.as_os_str()), ("TCTI", tcti.as_ref())] {
        // SAFETY: before the first input, and the targets have no threads that read the environment.
        unsafe { std::env::set_var(format!("KEYRIVET_{name}"), value) };
    }
}

pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).expect("a file of it"));
        std::fs::create_dir_all(target.parent().expect("a folder's file")).expect("a folder");
        std::fs::copy(file, target).expect("a file");
    }
}

/// Every file in a folder of folders.
fn files(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries(folder).flat_map(move |inner| entries(&inner).collect::<Vec<_>>())
}

impl World {
    /// Ends what the last input began, and removes what it made.
    pub(crate) fn renew(&self) {
        // Whether or not it is initialised now.
        call!(self.list, C_Initialize(null_mut()));
        for slot in [0, 1] {
            assert_eq!(call!(self.list, C_CloseAllSessions(slot)), CKR_OK);
        }
        for file in files(&self.store).filter(|file| !self.files.contains(file)) {
            // What is there in place of the seeds' own is a changed object: those go on.
            let _ = std::fs::remove_file(file);
        }
    }

    pub(crate) fn open(&self, slot: CK_SLOT_ID) -> CK_SESSION_HANDLE {
        let mut session = 0;
        let flags = CKF_SERIAL_SESSION | CKF_RW_SESSION;
        assert_eq!(call!(self.list, C_OpenSession(slot, flags, null_mut(), None, &mut session)), CKR_OK);
        session
    }

    /// Every object of the token.
    pub(crate) fn objects(&self, session: CK_SESSION_HANDLE) -> Vec<CK_OBJECT_HANDLE> {
        let (mut found, mut count) = ([0; 64], 0);
        assert_eq!(call!(self.list, C_FindObjectsInit(session, null_mut(), 0)), CKR_OK);
        assert_eq!(call!(self.list, C_FindObjects(session, found.as_mut_ptr(), 64, &mut count)), CKR_OK);
        assert_eq!(call!(self.list, C_FindObjectsFinal(session)), CKR_OK);
        found[..count as usize].to_vec()
    }
}

/// An attribute.
#[derive(Arbitrary, Clone, Debug)]
pub(crate) struct Entry {
    kind: u8,
    value: Value,
    /// The value is missing, whatever its length.
    null: bool,
}

#[derive(Arbitrary, Clone, Debug)]
enum Value {
    Flag(bool),
    /// One of the numbers below.
    Known(u8),
    Number(CK_ULONG),
    /// One of the structures below.
    Structure(u8),
    Bytes(Vec<u8>),
}

pub(crate) const KINDS: [CK_ATTRIBUTE_TYPE; 68] = [
    CKA_CLASS,
    CKA_TOKEN,
    CKA_PRIVATE,
    CKA_LABEL,
    CKA_UNIQUE_ID,
    CKA_APPLICATION,
    CKA_VALUE,
    CKA_OBJECT_ID,
    CKA_CERTIFICATE_TYPE,
    CKA_ISSUER,
    CKA_SERIAL_NUMBER,
    CKA_TRUSTED,
    CKA_CERTIFICATE_CATEGORY,
    CKA_URL,
    CKA_JAVA_MIDP_SECURITY_DOMAIN,
    CKA_HASH_OF_SUBJECT_PUBLIC_KEY,
    CKA_HASH_OF_ISSUER_PUBLIC_KEY,
    CKA_NAME_HASH_ALGORITHM,
    CKA_CHECK_VALUE,
    CKA_KEY_TYPE,
    CKA_SUBJECT,
    CKA_ID,
    CKA_SENSITIVE,
    CKA_ENCRYPT,
    CKA_DECRYPT,
    CKA_WRAP,
    CKA_UNWRAP,
    CKA_SIGN,
    CKA_SIGN_RECOVER,
    CKA_VERIFY,
    CKA_VERIFY_RECOVER,
    CKA_DERIVE,
    CKA_START_DATE,
    CKA_END_DATE,
    CKA_MODULUS,
    CKA_MODULUS_BITS,
    CKA_PUBLIC_EXPONENT,
    CKA_PRIVATE_EXPONENT,
    CKA_PRIME_1,
    CKA_PRIME_2,
    CKA_EXPONENT_1,
    CKA_EXPONENT_2,
    CKA_COEFFICIENT,
    CKA_PUBLIC_KEY_INFO,
    CKA_VALUE_LEN,
    CKA_EXTRACTABLE,
    CKA_LOCAL,
    CKA_NEVER_EXTRACTABLE,
    CKA_ALWAYS_SENSITIVE,
    CKA_KEY_GEN_MECHANISM,
    CKA_MODIFIABLE,
    CKA_COPYABLE,
    CKA_DESTROYABLE,
    CKA_EC_PARAMS,
    CKA_EC_POINT,
    CKA_ALWAYS_AUTHENTICATE,
    CKA_WRAP_WITH_TRUSTED,
    CKA_WRAP_TEMPLATE,
    CKA_UNWRAP_TEMPLATE,
    CKA_ALLOWED_MECHANISMS,
    CKA_MECHANISM_TYPE,
    CKA_PROFILE_ID,
    CKA_ENCAPSULATE,
    CKA_DECAPSULATE,
    CKA_VENDOR_DEFINED,
    CKA_VENDOR_DEFINED | 1,
    CKA_VENDOR_DEFINED | 2,
    CK_ULONG::MAX,
];

const NUMBERS: [CK_ULONG; 18] = [
    CKO_DATA,
    CKO_CERTIFICATE,
    CKO_PUBLIC_KEY,
    CKO_PRIVATE_KEY,
    CKO_SECRET_KEY,
    CKO_HW_FEATURE,
    CKO_MECHANISM,
    CKK_EC,
    CKK_AES,
    CKK_GENERIC_SECRET,
    CKK_SHA256_HMAC,
    CKC_WTLS,
    16,
    32,
    2048,
    CKM_SHA256,
    CKM_SHA_1,
    CK_ULONG::MAX,
];

const STRUCTURES: [&[u8]; 6] = [
    // P-256 and P-384, by name; an empty OCTET STRING; 65537; a date; a name.
    &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7],
    &[6, 5, 0x2b, 0x81, 4, 0, 0x22],
    &[4, 0],
    &[1, 0, 1],
    b"20300131",
    &[0x30, 0x0f, 0x31, 0x0d, 0x30, 0x0b, 6, 3, 0x55, 4, 3, 0x0c, 4, b't', b'e', b's', b't'],
];

impl Entry {
    pub(crate) fn of(kind: CK_ATTRIBUTE_TYPE, value: &[u8]) -> Self {
        let kind = KINDS.iter().position(|known| *known == kind).expect("a kind above") as u8;
        Self { kind, value: Value::Bytes(value.to_vec()), null: false }
    }

    pub(crate) fn kind(&self) -> CK_ATTRIBUTE_TYPE {
        KINDS[usize::from(self.kind) % KINDS.len()]
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        match &self.value {
            Value::Flag(on) => vec![u8::from(*on)],
            Value::Known(number) => NUMBERS[usize::from(*number) % NUMBERS.len()].to_ne_bytes().to_vec(),
            Value::Number(number) => number.to_ne_bytes().to_vec(),
            Value::Structure(number) => STRUCTURES[usize::from(*number) % STRUCTURES.len()].to_vec(),
            Value::Bytes(bytes) => bytes.clone(),
        }
    }
}

/// A mechanism.
#[derive(Arbitrary, Clone, Debug)]
pub(crate) struct Mechanism {
    kind: u8,
    parameter: Parameter,
}

#[derive(Arbitrary, Clone, Debug)]
enum Parameter {
    None,
    Bytes(Vec<u8>),
    Number(u16),
    Pss { hash: u8, mgf: u8, salt: u16 },
    Oaep { hash: u8, mgf: u8, source: u8, label: Vec<u8>, null: bool },
    Ecdh { kdf: u8, shared: Vec<u8>, public: Vec<u8>, null: bool },
    Counter { bits: u8, block: [u8; 16] },
}

const MECHANISMS: [CK_MECHANISM_TYPE; 50] = [
    CKM_RSA_PKCS_KEY_PAIR_GEN,
    CKM_RSA_PKCS,
    CKM_RSA_X_509,
    CKM_RSA_PKCS_OAEP,
    CKM_RSA_PKCS_PSS,
    CKM_SHA1_RSA_PKCS,
    CKM_SHA256_RSA_PKCS,
    CKM_SHA384_RSA_PKCS,
    CKM_SHA512_RSA_PKCS,
    CKM_SHA3_256_RSA_PKCS,
    CKM_SHA1_RSA_PKCS_PSS,
    CKM_SHA256_RSA_PKCS_PSS,
    CKM_SHA384_RSA_PKCS_PSS,
    CKM_SHA512_RSA_PKCS_PSS,
    CKM_EC_KEY_PAIR_GEN,
    CKM_ECDSA,
    CKM_ECDSA_SHA1,
    CKM_ECDSA_SHA256,
    CKM_ECDSA_SHA384,
    CKM_ECDSA_SHA512,
    CKM_ECDSA_SHA3_256,
    CKM_ECDH1_DERIVE,
    CKM_ECDH1_COFACTOR_DERIVE,
    CKM_AES_KEY_GEN,
    CKM_AES_ECB,
    CKM_AES_CBC,
    CKM_AES_CBC_PAD,
    CKM_AES_CTR,
    CKM_AES_CFB128,
    CKM_AES_OFB,
    CKM_AES_GCM,
    CKM_GENERIC_SECRET_KEY_GEN,
    CKM_SHA_1,
    CKM_SHA224,
    CKM_SHA256,
    CKM_SHA384,
    CKM_SHA512,
    CKM_SHA3_224,
    CKM_SHA3_256,
    CKM_SHA3_512,
    CKM_SHA_1_HMAC,
    CKM_SHA256_HMAC,
    CKM_SHA384_HMAC,
    CKM_SHA512_HMAC,
    CKM_SHA3_256_HMAC,
    CKM_SHA_1_HMAC_GENERAL,
    CKM_SHA256_HMAC_GENERAL,
    CKM_SHA512_HMAC_GENERAL,
    CKM_VENDOR_DEFINED,
    CK_ULONG::MAX,
];

const HASHES: [CK_ULONG; 6] = [CKM_SHA_1, CKM_SHA256, CKM_SHA384, CKM_SHA512, CKM_SHA3_256, 0];
/// Mask generation functions, in the order of the hashes.
const MGFS: [CK_ULONG; 6] = [1, 2, 3, 4, 7, 0];
/// Key derivation functions, and one that there is not.
const KDFS: [CK_ULONG; 6] = [CKD_NULL, 2, 6, 7, 8, 99];

fn of(list: &[CK_ULONG], number: u8) -> CK_ULONG {
    list[usize::from(number) % list.len()]
}

/// Memory that is lent to a call: each value has exactly as much as it is told.
#[derive(Default)]
pub(crate) struct Memory(Vec<Box<dyn Any>>);

impl Memory {
    /// The address of these values; never NULL.
    pub(crate) fn keep<T: 'static>(&mut self, values: Vec<T>) -> *mut T {
        let mut values = values.into_boxed_slice();
        let address = values.as_mut_ptr();
        self.0.push(Box::new(values));
        address
    }

    /// The values as the call left them.
    ///
    /// # Safety
    /// The address is one that [`Self::keep`] gave for so many values.
    pub(crate) unsafe fn kept<T: Copy>(&self, address: *const T, count: usize) -> Vec<T> {
        // SAFETY: as promised; it lives as long as we.
        unsafe { std::slice::from_raw_parts(address, count) }.to_vec()
    }

    fn bytes(&mut self, bytes: &[u8], null: bool) -> (*mut u8, CK_ULONG) {
        let address = self.keep(bytes.to_vec());
        (if null { null_mut() } else { address }, bytes.len() as CK_ULONG)
    }

    /// Attributes with their values.
    pub(crate) fn template(&mut self, entries: &[Entry]) -> *mut CK_ATTRIBUTE {
        let attributes = entries.iter().map(|entry| {
            let (value, length) = self.bytes(&entry.bytes(), entry.null);
            CK_ATTRIBUTE { type_: entry.kind(), pValue: value.cast(), ulValueLen: length }
        });
        let attributes: Vec<_> = attributes.collect();
        self.keep(attributes)
    }

    pub(crate) fn mechanism(&mut self, mechanism: &Mechanism) -> *mut CK_MECHANISM {
        let kind = of(&MECHANISMS, mechanism.kind);
        let words = |words: &[CK_ULONG]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>();
        let mut bytes = match &mechanism.parameter {
            Parameter::None => Vec::new(),
            Parameter::Bytes(bytes) => bytes.clone(),
            Parameter::Number(number) => words(&[CK_ULONG::from(*number)]),
            Parameter::Pss { hash, mgf, salt } => words(&[of(&HASHES, *hash), of(&MGFS, *mgf), CK_ULONG::from(*salt)]),
            Parameter::Counter { bits, block } => [&words(&[CK_ULONG::from(*bits)])[..], block].concat(),
            Parameter::Oaep { hash, mgf, source, label, null } => {
                let (label, length) = self.bytes(label, *null);
                let (hash, mgf) = (of(&HASHES, *hash), of(&MGFS, *mgf));
                words(&[hash, mgf, CK_ULONG::from(source % 3), label as CK_ULONG, length])
            }
            Parameter::Ecdh { kdf, shared, public, null } => {
                let ((shared, shared_length), (public, length)) =
                    (self.bytes(shared, *null), self.bytes(public, *null));
                words(&[of(&KDFS, *kdf), shared_length, shared as CK_ULONG, length, public as CK_ULONG])
            }
        };
        // Pointers in a parameter are true, or there is none of its length.
        let pointers = match kind {
            CKM_RSA_PKCS_OAEP => matches!(mechanism.parameter, Parameter::Oaep { .. }),
            CKM_ECDH1_DERIVE | CKM_ECDH1_COFACTOR_DERIVE => matches!(mechanism.parameter, Parameter::Ecdh { .. }),
            _ => true,
        };
        if !pointers && bytes.len() == 5 * size_of::<CK_ULONG>() {
            bytes.pop();
        }
        let length = bytes.len() as CK_ULONG;
        let parameter = if length == 0 { null_mut() } else { self.keep(bytes) };
        self.keep(vec![CK_MECHANISM { mechanism: kind, pParameter: parameter.cast(), ulParameterLen: length }])
    }
}
