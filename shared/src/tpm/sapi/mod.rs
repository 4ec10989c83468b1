//! The TPM 2.0 commands that we use, over libtss2's TCTI loader and SAPI: all the unsafe of the TPM side.
//!
//! Here is how a command is sent, authorised and authenticated; the commands are in the modules, by the chapters of
//! Part 3 of the specification.
//!
//! libtss2 marshals and moves bytes; authorisation is [`super::session`]'s. The order of the SAPI calls in
//! [`Sapi::command`] is part of memory safety: 3.x checks a response's bounds in `GetRspAuths`.
#![allow(unsafe_code)]

mod crypto;
mod object;
mod session;
mod state;
mod tcti;

pub(crate) use crypto::MAX_BUFFER;
pub(crate) use session::SessionKind;
pub(crate) use state::NvPublic;

use std::mem::zeroed;
use std::os::fd::RawFd;
use std::ptr::null;
use std::time::Instant;

use tss_esapi::constants::tss::*;
use tss_esapi::structures::Public;
use tss_esapi::tss2_esys::*;
use zeroize::{Zeroize as _, Zeroizing};

use super::device;
use super::fork::{ClosedInChild, Exchange};
use super::response;
use super::session::{self as hmac_session, Session, session_attribute};
use super::swtpm::SoftwareTpm;
use super::tabrmd::Manager;
use tcti::{Channel, Tcti};

use crate::algorithm::HashAlgorithm;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::log::{self, Topic};

const TSS2_RC_SUCCESS: TSS2_RC = 0;
/// As SAPI says it, of what it cannot unmarshal (TSS 2.0 overview, table 2).
const MALFORMED_RESPONSE: TSS2_RC = 8 << 16 | TSS2_BASE_RC_MALFORMED_RESPONSE;
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
    tcti: Option<Tcti>,
    /// The SAPI context: points into itself and holds authValues; never moved, wiped on drop.
    context: Box<[u128]>,
    /// Longest wait for one command, in milliseconds.
    timeout: i32,
    /// The descriptor behind the connection; `None` where there is one for each command, which a fork waits for.
    descriptor: Option<RawFd>,
    closed_in_child: Option<ClosedInChild>,
    /// Done once, as soon as the TPM works on a command: it costs no time then.
    pub(super) meanwhile: Option<Box<dyn FnOnce() + Send>>,
}

// SAFETY: libtss2's contexts have no affinity to a thread; `&mut self` keeps their use exclusive.
unsafe impl Send for Sapi {}

impl Drop for Sapi {
    fn drop(&mut self) {
        let _exchange = Exchange::begin();
        let context = self.context();
        // SAFETY: the context was initialised by `open` and is not used after this.
        unsafe { Tss2_Sys_Finalize(context) };
        self.closed_in_child = None;
        self.tcti = None;
        self.context.zeroize();
    }
}

impl Sapi {
    /// Connects: to a device, tpm2-abrmd and swtpm by ourselves; every other TCTI string goes to libtss2's loader unchanged.
    pub(crate) fn open(config: &Config) -> Result<Self> {
        crate::ffi::silence_libtss2();
        let unavailable = |reason| Error::TpmUnavailable { tcti: config.tcti.clone(), reason };
        // No fork from the opening on until the child knows what to close.
        let (tcti, _exchange) = if let Some(path) = device::path(&config.tcti) {
            let exchange = Exchange::begin();
            let device = device::open(path).map_err(|error| unavailable(error.to_string()))?;
            (Tcti::over(Channel::Device(device)), Some(exchange))
        } else if let Some(tpm) = SoftwareTpm::of(&config.tcti, config.timeout) {
            (Tcti::over(Channel::Software(tpm)), None)
        } else if let Some(manager) = Manager::of(&config.tcti) {
            let (socket, exchange) = manager.connect(config).map_err(unavailable)?;
            (Tcti::over(Channel::Socket(socket)), Some(exchange))
        } else {
            let exchange = Exchange::begin();
            (Tcti::load(&config.tcti).map_err(|code| response::unavailable(config, code))?, Some(exchange))
        };
        let timeout = i32::try_from(config.timeout.as_millis()).unwrap_or(i32::MAX);
        Self::over(tcti, timeout).map_err(|code| response::unavailable(config, code))
    }

    fn over(tcti: Tcti, timeout: i32) -> Result<Self, u32> {
        let connection = tcti.context();
        // SAFETY: a pure function.
        let size = unsafe { Tss2_Sys_GetContextSize(0) } as usize;
        let memory = vec![0_u128; size.div_ceil(16)].into_boxed_slice();
        let descriptor = tcti.descriptor();
        let closed_in_child = descriptor.map(|descriptor| {
            crate::ffi::close_on_exec(descriptor);
            ClosedInChild::new(descriptor)
        });
        let mut sapi =
            Self { tcti: Some(tcti), context: memory, timeout, descriptor, closed_in_child, meanwhile: None };
        // The version whose layout the bindings have: TSS2_ABI_VERSION_CURRENT.
        let mut version = TSS2_ABI_VERSION { tssCreator: 1, tssFamily: 2, tssLevel: 1, tssVersion: 108 };
        // SAFETY: the context is zeroed, aligned to 16 bytes and at least as large as told.
        check(unsafe { Tss2_Sys_Initialize(sapi.context(), size as _, connection, &mut version) })?;
        Ok(sapi)
    }

    fn context(&mut self) -> *mut TSS2_SYS_CONTEXT {
        self.context.as_mut_ptr().cast()
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
        self.command_while(command, names, auth, prepare, || (), complete)
    }

    /// As [`Self::command`]; `meanwhile` is done while the TPM works, once or more often.
    fn command_while<T>(
        &mut self,
        command: &'static str,
        names: &[&[u8]],
        auth: &mut Auth<'_>,
        prepare: impl Fn(*mut TSS2_SYS_CONTEXT) -> TSS2_RC,
        meanwhile: impl Fn(),
        complete: impl FnOnce(*mut TSS2_SYS_CONTEXT) -> Result<T, u32>,
    ) -> Result<T> {
        let failed = |code| Error::Tpm { command, code };
        let context = self.context();
        let mut attempt = 0;
        loop {
            check(prepare(context)).map_err(failed)?;
            self.authorise(names, auth, failed)?;
            let start = Instant::now();
            let exchange = self.descriptor.is_none().then(Exchange::begin);
            // SAFETY: the command was prepared and authorised above, in this context.
            let mut code = unsafe { Tss2_Sys_ExecuteAsync(context) };
            if code == TSS2_RC_SUCCESS {
                if let Auth::Hmac { session, .. } = auth {
                    session.draw_ahead();
                }
                meanwhile();
                if let Some(more) = self.meanwhile.take() {
                    more();
                }
                // libtss2 gives up when a signal comes while it waits.
                let answered =
                    self.descriptor.is_none_or(|descriptor| crate::ffi::wait_readable(descriptor, self.timeout));
                // SAFETY: the command was sent above.
                code = unsafe { Tss2_Sys_ExecuteFinish(context, if answered { self.timeout } else { 0 }) };
            }
            drop(exchange);
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
            let secret = self.authenticate(command, auth)?;
            let result = complete(context).map_err(failed);
            self.wipe(secret);
            return result;
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
                let cp_hash = hmac_session::cp_hash(command_code(code), names, &parameters);
                ours.sessionHandle = session.handle;
                ours.sessionAttributes = *attributes;
                ours.nonce.size = fill(&mut ours.nonce.buffer, &nonce);
                ours.hmac.size = fill(&mut ours.hmac.buffer, &session.command_hmac(value, &cp_hash, *attributes));
            }
        }
        // SAFETY: `area` lives through the call; libtss2 copies.
        check(unsafe { Tss2_Sys_SetCmdAuths(context, &area.0) }).map_err(&failed)
    }

    /// Overwrites a stretch of the context that holds a secret in the clear: it stays until the connection ends.
    fn wipe(&mut self, (offset, length): (usize, usize)) {
        let bytes = self.context.len() * 16;
        if length > 0 && offset.checked_add(length).is_some_and(|end| end <= bytes) {
            // SAFETY: inside the context, which is ours, and which libtss2 uses only when it is called.
            unsafe { std::slice::from_raw_parts_mut(self.context.as_mut_ptr().cast::<u8>().add(offset), length) }
                .zeroize();
        }
    }

    /// Checks the response's HMAC and decrypts its first parameter. Returns where that is in the context, and its length.
    fn authenticate(&mut self, command: &'static str, auth: &mut Auth<'_>) -> Result<(usize, usize)> {
        let forged = |_| Error::TpmResponseForged { command };
        let Auth::Hmac { session, value, attributes } = auth else { return Ok((0, 0)) };
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
        let rp_hash = hmac_session::rp_hash(command_code(code), &parameters);
        if !session.accept(value, &rp_hash, nonce, theirs.sessionAttributes, hmac) {
            return Err(forged(0));
        }
        if *attributes & session_attribute::ENCRYPT == 0 {
            return Ok((0, 0));
        }
        let mut parameter = Zeroizing::new(parameter(context, Tss2_Sys_GetEncryptParam).map_err(forged)?);
        session.decrypt(value, &mut parameter);
        // SAFETY: same length as libtss2 told; it copies.
        check(unsafe { Tss2_Sys_SetEncryptParam(context, parameter.len() as _, parameter.as_ptr()) })
            .map_err(forged)?;
        let (mut size, mut start) = (0, null());
        // SAFETY: the context is initialised and the getter only reads it.
        check(unsafe { Tss2_Sys_GetEncryptParam(context, &mut size, &mut start) }).map_err(forged)?;
        Ok(((start as usize).wrapping_sub(context as usize), size as usize))
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
        return Err(MALFORMED_RESPONSE);
    }
    // SAFETY: libtss2 told where `size` bytes of its context are, and `size` is bounded by its buffer's length.
    Ok(unsafe { std::slice::from_raw_parts(start, size as usize) }.to_vec())
}

/// The marshalled form of a template or public area.
pub(crate) fn public_bytes(public: Public) -> Result<Vec<u8>> {
    let wrong = |error: &dyn std::fmt::Display| Error::malformed("template", error);
    let public = TPM2B_PUBLIC::try_from(public).map_err(|error| wrong(&error))?;
    marshal_public(&public).map_err(|code| wrong(&format_args!("libtss2 says 0x{code:x}")))
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
