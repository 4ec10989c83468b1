//! The TPM 2.0 commands that we use, over libtss2's TCTI loader and SAPI: all the unsafe of the TPM side.
//!
//! libtss2 marshals and moves bytes; authorisation is [`super::session`]'s. The order of the SAPI calls in
//! [`Sapi::command`] is part of memory safety: 3.x checks a response's bounds in `GetRspAuths`.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::mem::zeroed;
use std::os::fd::RawFd;
use std::ptr::{null, null_mut};
use std::time::Instant;

use tss_esapi::constants::tss::*;
use tss_esapi::structures::Public;
use tss_esapi::tss2_esys::*;
use zeroize::{Zeroize as _, Zeroizing};

use super::session::{self, SESSION_HASH, Salt, Session, session_attribute};
use crate::algorithm::{HashAlgorithm, SignatureScheme};
use crate::error::{Error, Result};
use crate::log::{self, Topic};

const TSS2_RC_SUCCESS: TSS2_RC = 0;
/// Longest wait for one command, in milliseconds: a slow TPM makes an RSA-4096 key in minutes.
const TIMEOUT: i32 = 300_000;
/// Response codes that ask for the command again (TPM 2.0 Part 2, 6.6.3): RETRY, YIELDED, TESTING.
const ASK_AGAIN: [u32; 3] = [0x922, 0x908, 0x90a];
/// How often a command is sent at most.
const ATTEMPTS: u32 = 50;

/// How a command is authorised.
pub(crate) enum Auth<'a> {
    /// It needs none.
    None,
    /// A password session with an empty authValue: there is nothing to hide.
    Empty,
    /// An HMAC session.
    Hmac {
        /// The session.
        session: &'a mut Session,
        /// The authValue of the first handle's object.
        value: &'a [u8],
        /// `TPMA_SESSION`.
        attributes: u8,
    },
}

/// A key or sealed object as `TPM2_Create` returns it.
pub(crate) struct Created {
    /// `TPM2B_PUBLIC`, marshalled.
    pub(crate) public: Vec<u8>,
    /// `TPM2B_PRIVATE`, marshalled.
    pub(crate) private: Vec<u8>,
    /// The Name of the parent that it was made under, as the TPM tells it.
    pub(crate) parent_name: Vec<u8>,
}

/// A connection to a TPM.
pub(crate) struct Sapi {
    tcti: *mut TSS2_TCTI_CONTEXT,
    /// The SAPI context: points into itself and holds authValues; never moved, wiped on drop.
    context: Box<[u128]>,
}

// SAFETY: libtss2's contexts have no affinity to a thread; `&mut self` keeps their use exclusive.
unsafe impl Send for Sapi {}

impl Drop for Sapi {
    fn drop(&mut self) {
        let context = self.context();
        // SAFETY: both contexts were initialised by `open` and are not used after this.
        unsafe {
            Tss2_Sys_Finalize(context);
            Tss2_TctiLdr_Finalize(&mut self.tcti);
        }
        self.context.zeroize();
    }
}

impl Sapi {
    /// Connects: `tcti` goes to libtss2's loader unchanged.
    pub(crate) fn open(tcti: &str) -> Result<Self, u32> {
        let name = CString::new(tcti).map_err(|_| TSS2_BASE_RC_BAD_VALUE)?;
        crate::ffi::silence_libtss2();
        let mut context = null_mut();
        // SAFETY: `name` ends with a zero byte; `context` receives a pointer that `Drop` gives back.
        check(unsafe { Tss2_TctiLdr_Initialize(name.as_ptr(), &mut context) })?;
        // SAFETY: a pure function.
        let size = unsafe { Tss2_Sys_GetContextSize(0) } as usize;
        let mut sapi = Self { tcti: context, context: vec![0_u128; size.div_ceil(16)].into_boxed_slice() };
        // The version whose layout the bindings have: TSS2_ABI_VERSION_CURRENT.
        let mut version = TSS2_ABI_VERSION { tssCreator: 1, tssFamily: 2, tssLevel: 1, tssVersion: 108 };
        // SAFETY: the context is zeroed, aligned to 16 bytes and at least as large as told.
        check(unsafe { Tss2_Sys_Initialize(sapi.context(), size as _, sapi.tcti, &mut version) })?;
        Ok(sapi)
    }

    fn context(&mut self) -> *mut TSS2_SYS_CONTEXT {
        self.context.as_mut_ptr().cast()
    }

    /// The descriptor behind the connection, where its TCTI keeps one open and tells it.
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        // SAFETY: every TCTI context begins with the common part of version 1 (TSS 2.0 TCTI, 3.2.1).
        let poll_handles = unsafe { (*self.tcti.cast::<TSS2_TCTI_CONTEXT_COMMON_V1>()).getPollHandles }?;
        let mut handles = [pollfd { fd: -1, events: 0, revents: 0 }; 4];
        let mut count = handles.len() as _;
        // SAFETY: `handles` has room for `count` entries.
        let code = unsafe { poll_handles(self.tcti, handles.as_mut_ptr(), &mut count) };
        (code == TSS2_RC_SUCCESS && count == 1).then_some(handles[0].fd).filter(|&fd| fd > 2)
    }

    /// Sends one command, as often as the TPM asks for it again, and authenticates the response.
    ///
    /// `names` are the Names of the command's handles. The closures only prepare and unmarshal.
    fn command<T>(
        &mut self,
        command: &'static str,
        names: &[&[u8]],
        auth: &mut Auth<'_>,
        prepare: impl Fn(*mut TSS2_SYS_CONTEXT) -> TSS2_RC,
        complete: impl FnOnce(*mut TSS2_SYS_CONTEXT) -> Result<T, u32>,
    ) -> Result<T> {
        let failed = |code| Error::Tpm { command, code };
        let context = self.context();
        let mut attempt = 0;
        loop {
            check(prepare(context)).map_err(failed)?;
            self.authorise(names, auth, failed)?;
            let start = Instant::now();
            // SAFETY: the command was prepared and authorised above, in this context.
            let code = unsafe {
                match Tss2_Sys_ExecuteAsync(context) {
                    TSS2_RC_SUCCESS => Tss2_Sys_ExecuteFinish(context, TIMEOUT),
                    code => code,
                }
            };
            log::write(
                Topic::Tpm,
                format_args!("{command} 0x{code:03x} {:.2} ms", start.elapsed().as_secs_f64() * 1e3),
            );
            attempt += 1;
            if ASK_AGAIN.contains(&code) && attempt < ATTEMPTS {
                std::thread::sleep(std::time::Duration::from_millis(u64::from(attempt.min(20)) - 1));
                continue;
            }
            check(code).map_err(failed)?;
            self.authenticate(command, auth)?;
            return complete(context).map_err(failed);
        }
    }

    /// Encrypts the first parameter where asked, and adds the authorisation area.
    fn authorise(&mut self, names: &[&[u8]], auth: &mut Auth<'_>, failed: impl Fn(u32) -> Error) -> Result<()> {
        let context = self.context();
        // SAFETY: plain data of libtss2, all zero is its empty value.
        let mut area: Zeroizing<AuthArea> = Zeroizing::new(AuthArea(unsafe { zeroed() }));
        area.0.count = 1;
        let ours = &mut area.0.auths[0];
        match auth {
            Auth::None => return Ok(()),
            Auth::Empty => {
                ours.sessionHandle = TPM2_RS_PW;
                ours.sessionAttributes = session_attribute::CONTINUE;
            }
            Auth::Hmac { session, value, attributes } => {
                let nonce = session.roll()?;
                if *attributes & session_attribute::DECRYPT != 0 {
                    let mut parameter = Zeroizing::new(parameter(context, Tss2_Sys_GetDecryptParam).map_err(&failed)?);
                    session.encrypt(value, &mut parameter);
                    // SAFETY: same length as libtss2 told; it copies.
                    check(unsafe { Tss2_Sys_SetDecryptParam(context, parameter.len() as _, parameter.as_ptr()) })
                        .map_err(&failed)?;
                }
                let parameters = parameter(context, Tss2_Sys_GetCpBuffer).map_err(&failed)?;
                let mut code = [0; 4];
                // SAFETY: the command code is 4 bytes, big-endian (TSS 2.0 SAPI, 5.3.2).
                check(unsafe { Tss2_Sys_GetCommandCode(context, code.as_mut_ptr()) }).map_err(&failed)?;
                let cp_hash = session::cp_hash(command_code(code), names, &parameters);
                ours.sessionHandle = session.handle;
                ours.sessionAttributes = *attributes;
                ours.nonce.size = fill(&mut ours.nonce.buffer, &nonce);
                ours.hmac.size = fill(&mut ours.hmac.buffer, &session.command_hmac(value, &cp_hash, *attributes));
            }
        }
        // SAFETY: `area` lives through the call; libtss2 copies.
        check(unsafe { Tss2_Sys_SetCmdAuths(context, &area.0) }).map_err(&failed)
    }

    /// Checks the response's HMAC and decrypts its first parameter.
    fn authenticate(&mut self, command: &'static str, auth: &mut Auth<'_>) -> Result<()> {
        let forged = |_| Error::TpmResponseForged { command };
        let Auth::Hmac { session, value, attributes } = auth else { return Ok(()) };
        let context = self.context();
        // SAFETY: plain data of libtss2; `count` tells how many it may fill.
        let mut area: TSS2L_SYS_AUTH_RESPONSE = unsafe { zeroed() };
        area.count = 1;
        // SAFETY: `area` has room for the one session the command had.
        check(unsafe { Tss2_Sys_GetRspAuths(context, &mut area) }).map_err(forged)?;
        let theirs = &area.auths[0];
        let nonce = bounded(&theirs.nonce.buffer, theirs.nonce.size);
        let hmac = bounded(&theirs.hmac.buffer, theirs.hmac.size);
        let parameters = parameter(context, Tss2_Sys_GetRpBuffer).map_err(forged)?;
        let mut code = [0; 4];
        // SAFETY: as in `authorise`.
        check(unsafe { Tss2_Sys_GetCommandCode(context, code.as_mut_ptr()) }).map_err(forged)?;
        let rp_hash = session::rp_hash(command_code(code), &parameters);
        if !session.accept(value, &rp_hash, nonce, theirs.sessionAttributes, hmac) {
            return Err(forged(0));
        }
        if *attributes & session_attribute::ENCRYPT != 0 {
            let mut parameter = Zeroizing::new(parameter(context, Tss2_Sys_GetEncryptParam).map_err(forged)?);
            session.decrypt(value, &mut parameter);
            // SAFETY: same length as libtss2 told; it copies.
            check(unsafe { Tss2_Sys_SetEncryptParam(context, parameter.len() as _, parameter.as_ptr()) })
                .map_err(forged)?;
        }
        Ok(())
    }
}

/// The commands (TPM 2.0 Part 3), in the order of its chapters.
impl Sapi {
    /// An HMAC session of SHA-256 and AES-128-CFB, unbound, salted to the key at `salt_key` where there is a salt.
    pub(crate) fn start_auth_session(&mut self, salt: Option<(u32, &Salt)>) -> Result<Session> {
        let nonce = session::nonce()?;
        // SAFETY: plain data, zero is empty.
        let (mut caller, mut secret, mut symmetric): (TPM2B_NONCE, TPM2B_ENCRYPTED_SECRET, TPMT_SYM_DEF) =
            unsafe { (zeroed(), zeroed(), zeroed()) };
        caller.size = fill(&mut caller.buffer, &nonce);
        if let Some((_, salt)) = salt {
            secret.size = fill(&mut secret.secret, &salt.encrypted);
        }
        symmetric.algorithm = TPM2_ALG_AES;
        symmetric.keyBits.aes = 128;
        symmetric.mode.aes = TPM2_ALG_CFB;
        let key = salt.map_or(TPM2_RH_NULL, |(handle, _)| handle);
        let (handle, nonce_tpm) = self.command(
            "StartAuthSession",
            &[],
            &mut Auth::None,
            // SAFETY: the structures live through the call; libtss2 copies.
            |context| unsafe {
                Tss2_Sys_StartAuthSession_Prepare(
                    context,
                    key,
                    TPM2_RH_NULL,
                    &caller,
                    &secret,
                    TPM2_SE_HMAC,
                    &symmetric,
                    tpm_hash(SESSION_HASH),
                )
            },
            |context| {
                let mut handle = 0;
                // SAFETY: plain data, filled by the call.
                let nonce = unsafe {
                    let mut nonce: TPM2B_NONCE = zeroed();
                    check(Tss2_Sys_StartAuthSession_Complete(context, &mut handle, &mut nonce))?;
                    nonce
                };
                Ok((handle, bounded(&nonce.buffer, nonce.size).to_vec()))
            },
        )?;
        Ok(Session::new(handle, nonce, nonce_tpm, salt.map(|(_, salt)| salt)))
    }

    /// Makes an object under `parent`: from the template, with `auth_value`; `sealed` is its data, empty for a key.
    pub(crate) fn create(
        &mut self,
        parent: (u32, &[u8]),
        auth: &mut Auth<'_>,
        template: Public,
        auth_value: &[u8],
        sealed: &[u8],
    ) -> Result<Created> {
        let template = TPM2B_PUBLIC::try_from(template).map_err(|error| Error::malformed("template", error))?;
        let sensitive = Sensitive::new(auth_value, sealed);
        // SAFETY: plain data, zero is empty.
        let (outside, pcrs): (TPM2B_DATA, TPML_PCR_SELECTION) = unsafe { (zeroed(), zeroed()) };
        self.command(
            "Create",
            &[parent.1],
            auth,
            // SAFETY: the structures live through the call; libtss2 copies.
            |context| unsafe { Tss2_Sys_Create_Prepare(context, parent.0, &*sensitive.0, &template, &outside, &pcrs) },
            // SAFETY: plain data, filled by the call; null for what is not wanted.
            |context| unsafe {
                let (mut private, mut public): (TPM2B_PRIVATE, TPM2B_PUBLIC) = zeroed();
                let mut data: TPM2B_CREATION_DATA = zeroed();
                check(Tss2_Sys_Create_Complete(context, &mut private, &mut public, &mut data, null_mut(), null_mut()))?;
                let parent = &data.creationData.parentName;
                Ok(Created {
                    public: marshal_public(&public)?,
                    private: sized(&private.buffer, private.size),
                    parent_name: bounded(&parent.name, parent.size).to_vec(),
                })
            },
        )
    }

    /// Loads an object under `parent`, whose authValue is empty; returns its handle.
    pub(crate) fn load(&mut self, parent: u32, public: &[u8], private: &[u8]) -> Result<u32> {
        let public = unmarshal_public(public)?;
        // SAFETY: plain data, zero is empty.
        let mut blob: TPM2B_PRIVATE = unsafe { zeroed() };
        let content = private.get(2..).unwrap_or_default();
        if content.len() > blob.buffer.len() {
            return Err(Error::malformed("TPM key", "its private part is too long"));
        }
        blob.size = fill(&mut blob.buffer, content);
        self.command(
            "Load",
            &[],
            &mut Auth::Empty,
            // SAFETY: the structures live through the call; libtss2 copies.
            |context| unsafe { Tss2_Sys_Load_Prepare(context, parent, &blob, &public) },
            |context| {
                let mut handle = 0;
                // SAFETY: plain data, filled by the call.
                check(unsafe { Tss2_Sys_Load_Complete(context, &mut handle, &mut zeroed()) })?;
                Ok(handle)
            },
        )
    }

    /// The marshalled `TPM2B_PUBLIC` of a loaded or persistent object.
    pub(crate) fn read_public(&mut self, handle: u32) -> Result<Vec<u8>> {
        self.command(
            "ReadPublic",
            &[],
            &mut Auth::None,
            // SAFETY: no pointers besides the context.
            |context| unsafe { Tss2_Sys_ReadPublic_Prepare(context, handle) },
            // SAFETY: plain data, filled by the call; null for what is not wanted.
            |context| unsafe {
                let mut public: TPM2B_PUBLIC = zeroed();
                check(Tss2_Sys_ReadPublic_Complete(context, &mut public, null_mut(), null_mut()))?;
                marshal_public(&public)
            },
        )
    }

    /// The data sealed in the object at `item`.
    pub(crate) fn unseal(&mut self, item: (u32, &[u8]), auth: &mut Auth<'_>) -> Result<Zeroizing<Vec<u8>>> {
        self.command(
            "Unseal",
            &[item.1],
            auth,
            // SAFETY: no pointers besides the context.
            |context| unsafe { Tss2_Sys_Unseal_Prepare(context, item.0) },
            |context| {
                // SAFETY: plain data, filled by the call.
                let mut data: TPM2B_SENSITIVE_DATA = unsafe { zeroed() };
                // SAFETY: as above.
                let code = unsafe { Tss2_Sys_Unseal_Complete(context, &mut data) };
                let value = Zeroizing::new(bounded(&data.buffer, data.size).to_vec());
                data.buffer.zeroize();
                check(code).map(|()| value)
            },
        )
    }

    /// Gives the object at `object`, under `parent`, a new authValue; returns its new `TPM2B_PRIVATE`.
    pub(crate) fn object_change_auth(
        &mut self,
        object: (u32, &[u8]),
        parent: (u32, &[u8]),
        auth: &mut Auth<'_>,
        new_auth: &[u8],
    ) -> Result<Vec<u8>> {
        let new_auth = Sensitive::new(new_auth, &[]);
        self.command(
            "ObjectChangeAuth",
            &[object.1, parent.1],
            auth,
            // SAFETY: the structure lives through the call; libtss2 copies.
            |context| unsafe {
                Tss2_Sys_ObjectChangeAuth_Prepare(context, object.0, parent.0, &new_auth.0.sensitive.userAuth)
            },
            // SAFETY: plain data, filled by the call.
            |context| unsafe {
                let mut private: TPM2B_PRIVATE = zeroed();
                check(Tss2_Sys_ObjectChangeAuth_Complete(context, &mut private))?;
                Ok(sized(&private.buffer, private.size))
            },
        )
    }

    /// Signs a digest. ECDSA signatures are `r || s`, each `coordinate` bytes long.
    pub(crate) fn sign(
        &mut self,
        key: (u32, &[u8]),
        auth: &mut Auth<'_>,
        (scheme, hash): (SignatureScheme, HashAlgorithm),
        digest: &[u8],
        coordinate: usize,
    ) -> Result<Vec<u8>> {
        // SAFETY: plain data, zero is empty.
        let (mut input, mut tpm_scheme, mut ticket): (TPM2B_DIGEST, TPMT_SIG_SCHEME, TPMT_TK_HASHCHECK) =
            unsafe { zeroed() };
        if digest.len() > input.buffer.len() {
            return Err(Error::DataInvalid("longer than any digest".into()));
        }
        input.size = fill(&mut input.buffer, digest);
        tpm_scheme.scheme = match scheme {
            SignatureScheme::RsaPkcs1(_) => TPM2_ALG_RSASSA,
            SignatureScheme::RsaPss { .. } => TPM2_ALG_RSAPSS,
            SignatureScheme::Ecdsa => TPM2_ALG_ECDSA,
        };
        tpm_scheme.details.any.hashAlg = tpm_hash(hash);
        ticket.tag = TPM2_ST_HASHCHECK;
        ticket.hierarchy = TPM2_RH_NULL;
        self.command(
            "Sign",
            &[key.1],
            auth,
            // SAFETY: the structures live through the call; libtss2 copies.
            |context| unsafe { Tss2_Sys_Sign_Prepare(context, key.0, &input, &tpm_scheme, &ticket) },
            // SAFETY: plain data, filled by the call; `sigAlg` tells which member of the union that was.
            |context| unsafe {
                let mut signature: TPMT_SIGNATURE = zeroed();
                check(Tss2_Sys_Sign_Complete(context, &mut signature))?;
                match signature.sigAlg {
                    TPM2_ALG_RSASSA | TPM2_ALG_RSAPSS => {
                        let rsa = signature.signature.rsassa.sig;
                        Ok(bounded(&rsa.buffer, rsa.size).to_vec())
                    }
                    TPM2_ALG_ECDSA => {
                        let ecdsa = signature.signature.ecdsa;
                        let r = bounded(&ecdsa.signatureR.buffer, ecdsa.signatureR.size);
                        let s = bounded(&ecdsa.signatureS.buffer, ecdsa.signatureS.size);
                        Ok([padded(r, coordinate), padded(s, coordinate)].concat())
                    }
                    _ => Err(TSS2_BASE_RC_MALFORMED_RESPONSE),
                }
            },
        )
    }

    /// Makes a primary key of the owner hierarchy, whose authValue is empty; returns its handle and public area.
    pub(crate) fn create_primary(&mut self, template: Public) -> Result<(u32, Vec<u8>)> {
        let template = TPM2B_PUBLIC::try_from(template).map_err(|error| Error::malformed("template", error))?;
        let sensitive = Sensitive::new(&[], &[]);
        // SAFETY: plain data, zero is empty.
        let (outside, pcrs): (TPM2B_DATA, TPML_PCR_SELECTION) = unsafe { (zeroed(), zeroed()) };
        self.command(
            "CreatePrimary",
            &[],
            &mut Auth::Empty,
            // SAFETY: the structures live through the call; libtss2 copies.
            |context| unsafe {
                Tss2_Sys_CreatePrimary_Prepare(context, TPM2_RH_OWNER, &*sensitive.0, &template, &outside, &pcrs)
            },
            // SAFETY: plain data, filled by the call; null for what is not wanted.
            |context| unsafe {
                let (mut handle, mut public): (u32, TPM2B_PUBLIC) = (0, zeroed());
                check(Tss2_Sys_CreatePrimary_Complete(
                    context,
                    &mut handle,
                    &mut public,
                    null_mut(),
                    null_mut(),
                    null_mut(),
                    null_mut(),
                ))?;
                Ok((handle, marshal_public(&public)?))
            },
        )
    }

    /// Makes the object at `transient` persistent at `persistent`, by the owner, whose authValue is empty.
    pub(crate) fn evict_control(&mut self, transient: u32, persistent: u32) -> Result<()> {
        self.command(
            "EvictControl",
            &[],
            &mut Auth::Empty,
            // SAFETY: no pointers besides the context.
            |context| unsafe { Tss2_Sys_EvictControl_Prepare(context, TPM2_RH_OWNER, transient, persistent) },
            // SAFETY: as above.
            |context| check(unsafe { Tss2_Sys_EvictControl_Complete(context) }),
        )
    }

    /// Flushes a transient object or a session.
    pub(crate) fn flush_context(&mut self, handle: u32) -> Result<()> {
        self.command(
            "FlushContext",
            &[],
            &mut Auth::None,
            // SAFETY: no pointers besides the context.
            |context| unsafe { Tss2_Sys_FlushContext_Prepare(context, handle) },
            // SAFETY: as above.
            |context| check(unsafe { Tss2_Sys_FlushContext_Complete(context) }),
        )
    }

    /// Whether the TPM can make RSA keys of this size.
    pub(crate) fn test_rsa(&mut self, bits: u16) -> Result<()> {
        // SAFETY: plain data; the members set are those of an RSA key.
        let parameters = unsafe {
            let mut parameters: TPMT_PUBLIC_PARMS = zeroed();
            parameters.type_ = TPM2_ALG_RSA;
            parameters.parameters.rsaDetail.symmetric.algorithm = TPM2_ALG_NULL;
            parameters.parameters.rsaDetail.scheme.scheme = TPM2_ALG_NULL;
            parameters.parameters.rsaDetail.keyBits = bits;
            parameters
        };
        self.command(
            "TestParms",
            &[],
            &mut Auth::None,
            // SAFETY: the structure lives through the call; libtss2 copies.
            |context| unsafe { Tss2_Sys_TestParms_Prepare(context, &parameters) },
            // SAFETY: no pointers besides the context.
            |context| check(unsafe { Tss2_Sys_TestParms_Complete(context) }),
        )
    }

    /// One page of a capability that is a list of numbers, as (number, value) pairs; value is 0 where there is none.
    pub(crate) fn get_capability(&mut self, capability: u32, first: u32, count: u32) -> Result<Vec<(u32, u32)>> {
        self.command(
            "GetCapability",
            &[],
            &mut Auth::None,
            // SAFETY: no pointers besides the context.
            |context| unsafe { Tss2_Sys_GetCapability_Prepare(context, capability, first, count) },
            // SAFETY: plain data, filled by the call; `capability` tells which member of the union that was.
            |context| unsafe {
                let (mut more, mut data): (TPMI_YES_NO, TPMS_CAPABILITY_DATA) = zeroed();
                check(Tss2_Sys_GetCapability_Complete(context, &mut more, &mut data))?;
                let list = &data.data;
                Ok(match data.capability {
                    TPM2_CAP_ALGS => {
                        let list = &list.algorithms;
                        list.algProperties
                            .iter()
                            .take(list.count as _)
                            .map(|a| (a.alg.into(), a.algProperties))
                            .collect()
                    }
                    TPM2_CAP_HANDLES => {
                        list.handles.handle.iter().take(list.handles.count as _).map(|&h| (h, 0)).collect()
                    }
                    TPM2_CAP_TPM_PROPERTIES => {
                        let list = &list.tpmProperties;
                        list.tpmProperty.iter().take(list.count as _).map(|p| (p.property, p.value)).collect()
                    }
                    TPM2_CAP_ECC_CURVES => list
                        .eccCurves
                        .eccCurves
                        .iter()
                        .take(list.eccCurves.count as _)
                        .map(|&c| (c.into(), 0))
                        .collect(),
                    _ => return Err(TSS2_BASE_RC_MALFORMED_RESPONSE),
                })
            },
        )
    }
}

fn check(code: TSS2_RC) -> Result<(), u32> {
    if code == TSS2_RC_SUCCESS { Ok(()) } else { Err(code) }
}

/// An authorisation area that is wiped.
struct AuthArea(TSS2L_SYS_AUTH_COMMAND);

impl zeroize::Zeroize for AuthArea {
    fn zeroize(&mut self) {
        self.0.auths.iter_mut().for_each(|auth| auth.hmac.buffer.zeroize());
    }
}

/// `TPM2B_SENSITIVE_CREATE`, wiped on drop.
struct Sensitive(Box<TPM2B_SENSITIVE_CREATE>);

impl Sensitive {
    fn new(auth_value: &[u8], data: &[u8]) -> Self {
        // SAFETY: plain data, zero is empty.
        let mut sensitive: Box<TPM2B_SENSITIVE_CREATE> = Box::new(unsafe { zeroed() });
        sensitive.sensitive.userAuth.size = fill(&mut sensitive.sensitive.userAuth.buffer, auth_value);
        sensitive.sensitive.data.size = fill(&mut sensitive.sensitive.data.buffer, data);
        Self(sensitive)
    }
}

impl Drop for Sensitive {
    fn drop(&mut self) {
        self.0.sensitive.userAuth.buffer.zeroize();
        self.0.sensitive.data.buffer.zeroize();
    }
}

/// Copies `content` into one of libtss2's fixed buffers, as far as it fits; returns the length.
fn fill(buffer: &mut [u8], content: &[u8]) -> u16 {
    let length = content.len().min(buffer.len());
    buffer[..length].copy_from_slice(&content[..length]);
    length as u16
}

/// The used part of one of libtss2's fixed buffers.
fn bounded(buffer: &[u8], size: u16) -> &[u8] {
    &buffer[..buffer.len().min(size.into())]
}

/// As [`bounded`], with its size before it: marshalled as a TPM2B.
fn sized(buffer: &[u8], size: u16) -> Vec<u8> {
    let content = bounded(buffer, size);
    [&(content.len() as u16).to_be_bytes()[..], content].concat()
}

fn padded(number: &[u8], length: usize) -> Vec<u8> {
    let mut padded = vec![0; length.saturating_sub(number.len())];
    padded.extend_from_slice(number);
    padded
}

fn command_code(big_endian: [u8; 4]) -> u32 {
    u32::from_be_bytes(big_endian)
}

fn tpm_hash(hash: HashAlgorithm) -> u16 {
    hash.tpm_algorithm().unwrap_or(TPM2_ALG_NULL)
}

/// A stretch of bytes inside the SAPI context, copied.
fn parameter(
    context: *mut TSS2_SYS_CONTEXT,
    get: unsafe extern "C" fn(*mut TSS2_SYS_CONTEXT, *mut size_t, *mut *const u8) -> TSS2_RC,
) -> Result<Vec<u8>, u32> {
    let (mut size, mut start) = (0, null());
    // SAFETY: the context is initialised and the getters only read it.
    check(unsafe { get(context, &mut size, &mut start) })?;
    if start.is_null() || size as usize > TPM2_MAX_COMMAND_SIZE as usize {
        return Err(TSS2_BASE_RC_MALFORMED_RESPONSE);
    }
    // SAFETY: libtss2 told where `size` bytes of its context are, and `size` is bounded by its buffer's length.
    Ok(unsafe { std::slice::from_raw_parts(start, size as usize) }.to_vec())
}

fn marshal_public(public: &TPM2B_PUBLIC) -> Result<Vec<u8>, u32> {
    let mut buffer = vec![0; size_of::<TPM2B_PUBLIC>()];
    let mut offset = 0;
    // SAFETY: the buffer has the length told.
    check(unsafe { Tss2_MU_TPM2B_PUBLIC_Marshal(public, buffer.as_mut_ptr(), buffer.len() as _, &mut offset) })?;
    buffer.truncate(offset as usize);
    Ok(buffer)
}

fn unmarshal_public(bytes: &[u8]) -> Result<TPM2B_PUBLIC> {
    // SAFETY: plain data; the buffer has the length told.
    unsafe {
        let mut public: TPM2B_PUBLIC = zeroed();
        check(Tss2_MU_TPM2B_PUBLIC_Unmarshal(bytes.as_ptr(), bytes.len() as _, &mut 0, &mut public))
            .map_err(|code| Error::malformed("TPM public area", format_args!("libtss2 says 0x{code:x}")))?;
        Ok(public)
    }
}
