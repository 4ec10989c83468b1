//! The limit: a loop around `Esys_Sign` with a password session, the key loaded once. Nobody who goes through libtss2
//! can be faster.

use std::ffi::CString;
use std::ptr::null_mut;
use std::sync::Mutex;

use tss_esapi::constants::tss::*;
use tss_esapi::tss2_esys::*;

use super::{Result, Signer};

/// A key, over a connection of its own. Threads take turns, as the TPM would have them do anyway.
pub(super) struct RawLoop {
    key: KeySource,
    scheme: TPMI_ALG_SIG_SCHEME,
    connection: Mutex<Connection>,
}

enum KeySource {
    /// Files as `tpm2_create` writes them.
    Files(Box<(TPM2B_PUBLIC, TPM2B_PRIVATE)>),
    /// A persistent handle.
    Persistent(u32),
}

struct Connection {
    context: *mut ESYS_CONTEXT,
    key: ESYS_TR,
}

// SAFETY: ESYS contexts have no affinity to a thread; the mutex keeps their use exclusive.
unsafe impl Send for Connection {}

/// The storage root key, which is there since the first token was made.
const SRK: u32 = 0x8100_0001;

impl RawLoop {
    /// Arguments: TCTI, `ec` or `rsa`, then a persistent handle or the key's two files.
    pub(super) fn new(arguments: &[&str]) -> Result<Self> {
        let (tcti, algorithm, key) = match *arguments {
            [tcti, algorithm, public, private] => (tcti, algorithm, KeySource::read(public, private)?),
            [tcti, algorithm, handle] => {
                let handle = u32::from_str_radix(handle.trim_start_matches("0x"), 16);
                (tcti, algorithm, KeySource::Persistent(handle.map_err(|error| error.to_string())?))
            }
            _ => return Err("esys takes a TCTI, an algorithm and a key".into()),
        };
        let scheme = if algorithm == "ec" { TPM2_ALG_ECDSA } else { TPM2_ALG_RSASSA };
        let tcti = CString::new(tcti).map_err(|error| error.to_string())?;
        let (mut tcti_context, mut context) = (null_mut(), null_mut());
        // SAFETY: the name ends with a zero byte; both places receive pointers that stay to the end of the process.
        unsafe {
            check("Tss2_TctiLdr_Initialize", Tss2_TctiLdr_Initialize(tcti.as_ptr(), &mut tcti_context))?;
            check("Esys_Initialize", Esys_Initialize(&mut context, tcti_context, null_mut()))?;
        }
        Ok(Self { key, scheme, connection: Mutex::new(Connection { context, key: ESYS_TR_NONE }) })
    }
}

impl KeySource {
    fn read(public_file: &str, private_file: &str) -> Result<Self> {
        let read = |file: &str| std::fs::read(file).map_err(|error| format!("{file}: {error}"));
        let (public_bytes, private_bytes) = (read(public_file)?, read(private_file)?);
        // SAFETY: plain data; the buffers have the lengths told.
        unsafe {
            let (mut public, mut private): (TPM2B_PUBLIC, TPM2B_PRIVATE) = std::mem::zeroed();
            let (start, length) = (public_bytes.as_ptr(), public_bytes.len() as _);
            check(public_file, Tss2_MU_TPM2B_PUBLIC_Unmarshal(start, length, &mut 0, &mut public))?;
            let (start, length) = (private_bytes.as_ptr(), private_bytes.len() as _);
            check(private_file, Tss2_MU_TPM2B_PRIVATE_Unmarshal(start, length, &mut 0, &mut private))?;
            Ok(Self::Files(Box::new((public, private))))
        }
    }
}

impl Connection {
    fn open(&mut self, handle: u32) -> Result<ESYS_TR> {
        let mut object = ESYS_TR_NONE;
        // SAFETY: an initialised context, and a place for the result.
        let code = unsafe {
            Esys_TR_FromTPMPublic(self.context, handle, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &mut object)
        };
        check("Esys_TR_FromTPMPublic", code).map(|()| object)
    }

    fn load(&mut self, public: &TPM2B_PUBLIC, private: &TPM2B_PRIVATE) -> Result<ESYS_TR> {
        let (parent, mut key) = (self.open(SRK)?, ESYS_TR_NONE);
        let none = ESYS_TR_NONE;
        // SAFETY: an initialised context, structures that live through the call, and a place for the result.
        let code = unsafe { Esys_Load(self.context, parent, ESYS_TR_PASSWORD, none, none, private, public, &mut key) };
        check("Esys_Load", code).map(|()| key)
    }
}

impl Signer for RawLoop {
    fn begin(&self) -> Result<()> {
        let mut connection = self.connection.lock().map_err(|_| "a thread panicked")?;
        if connection.key == ESYS_TR_NONE {
            connection.key = match &self.key {
                KeySource::Files(files) => connection.load(&files.0, &files.1)?,
                KeySource::Persistent(handle) => connection.open(*handle)?,
            };
        }
        Ok(())
    }

    fn sign(&self, _thread: usize) -> Result<()> {
        // SAFETY: plain data, zero is empty.
        let (mut digest, mut scheme, mut ticket): (TPM2B_DIGEST, TPMT_SIG_SCHEME, TPMT_TK_HASHCHECK) =
            unsafe { std::mem::zeroed() };
        digest.size = 32;
        digest.buffer[..32].fill(7);
        scheme.scheme = self.scheme;
        scheme.details.any.hashAlg = TPM2_ALG_SHA256;
        ticket.tag = TPM2_ST_HASHCHECK;
        ticket.hierarchy = TPM2_RH_NULL;
        let connection = self.connection.lock().map_err(|_| "a thread panicked")?;
        let (Connection { context, key }, none) = (&*connection, ESYS_TR_NONE);
        let mut signature = null_mut();
        // SAFETY: an initialised context, structures that live through the call; what it gives is freed below.
        unsafe {
            let code =
                Esys_Sign(*context, *key, ESYS_TR_PASSWORD, none, none, &digest, &scheme, &ticket, &mut signature);
            Esys_Free(signature.cast());
            check("Esys_Sign", code)
        }
    }

    fn end(&self) {
        if let (KeySource::Files(_), Ok(mut connection)) = (&self.key, self.connection.lock()) {
            // SAFETY: an initialised context, and a key that was loaded in it.
            unsafe { Esys_FlushContext(connection.context, connection.key) };
            connection.key = ESYS_TR_NONE;
        }
    }
}

fn check(what: &str, code: TSS2_RC) -> Result<()> {
    if code == 0 { Ok(()) } else { Err(format!("{what}: 0x{code:x}")) }
}
