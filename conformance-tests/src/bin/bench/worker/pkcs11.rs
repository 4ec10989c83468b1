//! A client of a PKCS#11 module, as C sees it.

use std::ptr::null_mut;
use std::time::Instant;

use cryptoki_sys::*;

use super::{Result, Signer, resident, say};

/// Calls a function of the module's list with these arguments.
macro_rules! call {
    ($module:expr, $name:ident($($argument:expr),* $(,)?)) => {{
        let function = $module.list.$name.ok_or(concat!("there is no ", stringify!($name)))?;
        // SAFETY: what it is given is what the standard asks for, with true lengths.
        match unsafe { function($($argument),*) } {
            CKR_OK => Ok(()),
            error => Err(format!("{}: 0x{error:x}", stringify!($name))),
        }
    }};
}

/// An initialised module.
struct Module {
    list: &'static CK_FUNCTION_LIST,
    // The list is in it.
    _library: libloading::Library,
}

impl Module {
    fn load(file: &str) -> Result<Self> {
        let mut list: *mut CK_FUNCTION_LIST = null_mut();
        // SAFETY: a PKCS#11 module, whose initialisers are not ours to judge; the function has its type in the
        // standard and is given a place for its result.
        unsafe {
            let library = libloading::Library::new(file).map_err(|error| error.to_string())?;
            let get: libloading::Symbol<'_, unsafe extern "C" fn(*mut *mut CK_FUNCTION_LIST) -> CK_RV> =
                library.get(b"C_GetFunctionList").map_err(|error| error.to_string())?;
            match get(&mut list) {
                CKR_OK => Ok(Self { list: &*list, _library: library }),
                error => Err(format!("C_GetFunctionList: 0x{error:x}")),
            }
        }
    }

    fn initialise(&self) -> Result<()> {
        let mut arguments = CK_C_INITIALIZE_ARGS { flags: CKF_OS_LOCKING_OK, ..Default::default() };
        call!(self, C_Initialize((&raw mut arguments).cast()))
    }

    /// The slot of the token with this label.
    fn slot(&self, label: &str) -> Result<CK_SLOT_ID> {
        let mut count = 0;
        call!(self, C_GetSlotList(CK_TRUE, null_mut(), &mut count))?;
        let mut slots = vec![0; count as usize];
        call!(self, C_GetSlotList(CK_TRUE, slots.as_mut_ptr(), &mut count))?;
        for slot in slots {
            let mut info = CK_TOKEN_INFO::default();
            call!(self, C_GetTokenInfo(slot, &mut info))?;
            // Padded with blanks, or by some with zeros.
            if String::from_utf8_lossy(&info.label).trim_end_matches([' ', '\0']) == label {
                return Ok(slot);
            }
        }
        Err(format!("there is no token '{label}'"))
    }

    fn open(&self, slot: CK_SLOT_ID) -> Result<CK_SESSION_HANDLE> {
        let mut session = 0;
        call!(self, C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, null_mut(), None, &mut session))?;
        Ok(session)
    }

    fn login(&self, session: CK_SESSION_HANDLE, pin: &str) -> Result<()> {
        if pin.is_empty() {
            return Ok(());
        }
        call!(self, C_Login(session, CKU_USER, pin.as_ptr().cast_mut(), pin.len() as CK_ULONG))
    }

    fn find(&self, session: CK_SESSION_HANDLE, label: &str) -> Result<CK_OBJECT_HANDLE> {
        let class = CKO_PRIVATE_KEY.to_ne_bytes();
        let attribute = |kind, value: &[u8]| CK_ATTRIBUTE {
            type_: kind,
            pValue: value.as_ptr().cast_mut().cast(),
            ulValueLen: value.len() as CK_ULONG,
        };
        let mut template = [attribute(CKA_CLASS, &class), attribute(CKA_LABEL, label.as_bytes())];
        let (mut key, mut count) = (0, 0);
        call!(self, C_FindObjectsInit(session, template.as_mut_ptr(), 2))?;
        call!(self, C_FindObjects(session, &mut key, 1, &mut count))?;
        call!(self, C_FindObjectsFinal(session))?;
        if count == 1 { Ok(key) } else { Err(format!("there is no private key '{label}'")) }
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // As orderly programs do: some modules leave objects at the TPM otherwise.
        let _: Result<()> = (|| call!(self, C_Finalize(null_mut())))();
    }
}

/// A logged-in client with a session for each of its threads.
pub(super) struct TokenClient {
    module: Module,
    key: CK_OBJECT_HANDLE,
    sessions: Vec<CK_SESSION_HANDLE>,
    mechanism: CK_MECHANISM_TYPE,
    data: Vec<u8>,
}

/// What `CKM_RSA_PKCS` takes for a SHA-256 digest before the digest itself (RFC 8017, 9.2, note 1).
const DIGEST_INFO: [u8; 19] =
    [0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20];

impl TokenClient {
    /// Arguments: module, token, PIN, key, how many threads there will be.
    pub(super) fn new(arguments: &[&str]) -> Result<Self> {
        let [file, token, pin, label, threads] = *arguments else {
            return Err("pkcs11 takes a module, token, PIN, key and a number of threads".into());
        };
        let module = Module::load(file)?;
        module.initialise()?;
        let slot = module.slot(token)?;
        let threads: u32 = threads.parse().map_err(|_| "a number of threads is a number")?;
        let sessions = (0..threads).map(|_| module.open(slot)).collect::<Result<Vec<_>>>()?;
        module.login(sessions[0], pin)?;
        let key = module.find(sessions[0], label)?;
        let (mechanism, data) = match label {
            "ec" => (CKM_ECDSA, vec![7; 32]),
            _ => (CKM_RSA_PKCS, [&DIGEST_INFO[..], &[7; 32]].concat()),
        };
        Ok(Self { module, key, sessions, mechanism, data })
    }
}

impl Signer for TokenClient {
    fn sign(&self, thread: usize) -> Result<()> {
        let session = self.sessions[thread];
        let mut mechanism = CK_MECHANISM { mechanism: self.mechanism, pParameter: null_mut(), ulParameterLen: 0 };
        let (mut signature, mut length) = ([0; 512], 512);
        let (data, count) = (self.data.as_ptr().cast_mut(), self.data.len() as CK_ULONG);
        call!(self.module, C_SignInit(session, &mut mechanism, self.key))?;
        call!(self.module, C_Sign(session, data, count, signature.as_mut_ptr(), &mut length))
    }
}

/// A client whose "signature" is a login and the logout after it.
pub(super) struct LoginClient {
    module: Module,
    session: CK_SESSION_HANDLE,
    pin: String,
}

impl LoginClient {
    /// Arguments: module, token, PIN.
    pub(super) fn new(arguments: &[&str]) -> Result<Self> {
        let [file, token, pin] = *arguments else { return Err("logins takes a module, token and PIN".into()) };
        let module = Module::load(file)?;
        module.initialise()?;
        let session = module.open(module.slot(token)?)?;
        Ok(Self { module, session, pin: pin.into() })
    }
}

impl Signer for LoginClient {
    fn sign(&self, _thread: usize) -> Result<()> {
        self.module.login(self.session, &self.pin)?;
        call!(self.module, C_Logout(self.session))
    }
}

/// Says how many nanoseconds it takes a new process from C_Initialize to a key. Arguments: module, token, PIN, key.
pub(super) fn time_find(arguments: &[&str]) -> Result<()> {
    let [file, token, pin, label] = *arguments else { return Err("find takes a module, token, PIN and key".into()) };
    let module = Module::load(file)?;
    let start = Instant::now();
    module.initialise()?;
    let session = module.open(module.slot(token)?)?;
    module.login(session, pin)?;
    let _ = module.find(session, label)?;
    say(&format!("ready {}", start.elapsed().as_nanos()));
    Ok(())
}

/// For each number of open sessions, says how many nanoseconds one more costs (opened and closed), and how many bytes
/// all of them, up to what the module has. Arguments: module, token, then the numbers, ascending.
pub(super) fn time_sessions(arguments: &[&str]) -> Result<()> {
    const TIMES: u32 = 5_000;
    let [file, token, ref numbers @ ..] = *arguments else { return Err("sessions takes a module and a token".into()) };
    let module = Module::load(file)?;
    module.initialise()?;
    let slot = module.slot(token)?;
    let mut sessions = vec![module.open(slot)?];
    let before = resident()?;
    let mut answer = String::from("ready");
    for number in numbers {
        let number: usize = number.parse().map_err(|_| "a number of sessions is a number")?;
        while sessions.len() < number {
            match module.open(slot) {
                Ok(session) => sessions.push(session),
                // As many as the module has.
                Err(_) if sessions.len() > 1 => {
                    say(&answer);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        let start = Instant::now();
        for _ in 0..TIMES {
            let session = module.open(slot)?;
            call!(module, C_CloseSession(session))?;
        }
        let each = start.elapsed() / TIMES;
        answer += &format!(" {}/{}", each.as_nanos(), resident()?.saturating_sub(before));
    }
    say(&answer);
    Ok(())
}
