//! The way to a TPM: one of libtss2's TCTIs by its loader, or a socket of our own in the form of a TCTI (TSS 2.0 TCTI API).

use std::ffi::CString;
use std::io::{ErrorKind, Read as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::net::UnixStream;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use tss_esapi::tss2_esys::*;

use super::super::fork::Exchange;
use super::super::tabrmd::send_all;
use super::{TSS2_RC_SUCCESS, check};

/// TSS 2.0 overview, table 2: the layer of these codes.
const LAYER: TSS2_RC = 10 << 16;
const BAD_REFERENCE: TSS2_RC = LAYER | TSS2_BASE_RC_BAD_REFERENCE;
const BAD_SEQUENCE: TSS2_RC = LAYER | TSS2_BASE_RC_BAD_SEQUENCE;
const INSUFFICIENT_BUFFER: TSS2_RC = LAYER | TSS2_BASE_RC_INSUFFICIENT_BUFFER;
const IO_ERROR: TSS2_RC = LAYER | TSS2_BASE_RC_IO_ERROR;
const MALFORMED_RESPONSE: TSS2_RC = LAYER | TSS2_BASE_RC_MALFORMED_RESPONSE;
const NOT_IMPLEMENTED: TSS2_RC = LAYER | TSS2_BASE_RC_NOT_IMPLEMENTED;
const TRY_AGAIN: TSS2_RC = LAYER | TSS2_BASE_RC_TRY_AGAIN;

/// Tag, length and code of a response.
const HEADER: usize = 10;

/// A TCTI context, until dropped.
pub(super) enum Tcti {
    /// libtss2's.
    Loaded(*mut TSS2_TCTI_CONTEXT),
    /// Ours, on the heap: libtss2 keeps its address.
    Socket(*mut Socket),
}

impl Tcti {
    /// By a TCTI string, which goes to libtss2's loader unchanged.
    pub(super) fn load(name: &str) -> Result<Self, u32> {
        let asks = name.starts_with("device");
        let name = CString::new(name).map_err(|_| TSS2_BASE_RC_BAD_VALUE)?;
        let mut context = null_mut();
        let _exchange = Exchange::begin();
        // That of devices asks the TPM something, and gives up when a signal comes meanwhile: for these moments none does. Others
        // start processes, or wait for a network.
        // SAFETY: `name` ends with a zero byte; `context` receives a pointer that `Drop` gives back.
        let mut load = || unsafe { Tss2_TctiLdr_Initialize(name.as_ptr(), &mut context) };
        check(if asks { crate::ffi::with_signals_blocked(load) } else { load() })?;
        Ok(Self::Loaded(context))
    }

    /// Over a socket on which commands and responses go as they are.
    pub(super) fn over(stream: UnixStream) -> Self {
        let common = TSS2_TCTI_CONTEXT_COMMON_V1 {
            magic: u64::from_be_bytes(*b"keyrivet"),
            version: 1,
            transmit: Some(transmit),
            receive: Some(receive),
            finalize: None,
            cancel: None,
            getPollHandles: Some(get_poll_handles),
            setLocality: Some(set_locality),
        };
        Self::Socket(Box::into_raw(Box::new(Socket { common, stream, waiting: false, response: Vec::new() })))
    }

    /// The descriptor behind it, where it keeps one open and tells it.
    pub(super) fn descriptor(&self) -> Option<RawFd> {
        let context = self.context();
        // SAFETY: every TCTI context begins with the common part of version 1 (TSS 2.0 TCTI, 3.2.1).
        let poll_handles = unsafe { (*context.cast::<TSS2_TCTI_CONTEXT_COMMON_V1>()).getPollHandles }?;
        let mut handles = [pollfd { fd: -1, events: 0, revents: 0 }; 4];
        let mut count = handles.len() as _;
        // SAFETY: `handles` has room for `count` entries.
        let code = unsafe { poll_handles(context, handles.as_mut_ptr(), &mut count) };
        (code == TSS2_RC_SUCCESS && count == 1).then_some(handles[0].fd).filter(|&fd| fd > 2)
    }

    pub(super) fn context(&self) -> *mut TSS2_TCTI_CONTEXT {
        match self {
            Self::Loaded(context) => *context,
            Self::Socket(socket) => socket.cast(),
        }
    }
}

impl Drop for Tcti {
    fn drop(&mut self) {
        match self {
            // SAFETY: `load` initialised it, and nobody uses it any more.
            Self::Loaded(context) => unsafe { Tss2_TctiLdr_Finalize(context) },
            // SAFETY: `over` made it of a box, and nobody uses it any more.
            Self::Socket(socket) => drop(unsafe { Box::from_raw(*socket) }),
        }
    }
}

/// What is behind our contexts.
#[repr(C)]
pub(super) struct Socket {
    common: TSS2_TCTI_CONTEXT_COMMON_V1,
    stream: UnixStream,
    /// Whether a command was sent whose response was not taken yet.
    waiting: bool,
    /// As much of the response as has come.
    response: Vec<u8>,
}

impl Socket {
    fn transmit(&mut self, command: &[u8]) -> TSS2_RC {
        if self.waiting {
            return BAD_SEQUENCE;
        }
        if send_all(&self.stream, command).is_err() {
            return IO_ERROR;
        }
        self.waiting = true;
        TSS2_RC_SUCCESS
    }

    /// Reads the rest of the response. `None` is to wait as long as it takes.
    fn receive(&mut self, deadline: Option<Instant>) -> TSS2_RC {
        if !self.waiting {
            return BAD_SEQUENCE;
        }
        loop {
            let whole = match self.response.get(2..6) {
                Some(length) => length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)),
                None => HEADER,
            };
            if !(HEADER..=TPM2_MAX_RESPONSE_SIZE as usize).contains(&whole) {
                return MALFORMED_RESPONSE;
            }
            let missing = whole.max(HEADER).saturating_sub(self.response.len());
            if missing == 0 {
                return TSS2_RC_SUCCESS;
            }
            // A zero would be no limit.
            let patience =
                deadline.map(|end| end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)));
            let mut part = vec![0; missing];
            let read = self.stream.set_read_timeout(patience).and_then(|()| self.stream.read(&mut part));
            match read {
                Ok(0) => return IO_ERROR,
                Ok(length) => self.response.extend_from_slice(&part[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return TRY_AGAIN,
                Err(_) => return IO_ERROR,
            }
        }
    }
}

/// The socket behind a context.
///
/// # Safety
///
/// The context is one of [`Tcti::over`], and nobody else uses it meanwhile.
unsafe fn socket<'a>(context: *mut TSS2_TCTI_CONTEXT) -> Option<&'a mut Socket> {
    // SAFETY: as the caller promises.
    unsafe { context.cast::<Socket>().as_mut() }
}

/// TCTI API, 3.2.5.1.
unsafe extern "C" fn transmit(context: *mut TSS2_TCTI_CONTEXT, size: size_t, command: *const u8) -> TSS2_RC {
    // SAFETY: SAPI calls with the context that it was initialised with, which `&mut Sapi` makes its own.
    match unsafe { socket(context) } {
        Some(socket) if !command.is_null() => {
            // SAFETY: SAPI gives a buffer of this size.
            socket.transmit(unsafe { std::slice::from_raw_parts(command, size as usize) })
        }
        _ => BAD_REFERENCE,
    }
}

/// TCTI API, 3.2.5.2. Without a buffer it tells the response's length.
unsafe extern "C" fn receive(
    context: *mut TSS2_TCTI_CONTEXT,
    size: *mut size_t,
    response: *mut u8,
    timeout: i32,
) -> TSS2_RC {
    // SAFETY: as in `transmit`; `size` is null or SAPI's.
    let (Some(socket), Some(size)) = (unsafe { socket(context) }, unsafe { size.as_mut() }) else {
        return BAD_REFERENCE;
    };
    let patience = u64::try_from(timeout).ok().map(Duration::from_millis);
    let code = socket.receive(patience.map(|patience| Instant::now() + patience));
    if code != TSS2_RC_SUCCESS {
        return code;
    }
    let room = std::mem::replace(size, socket.response.len() as size_t) as usize;
    if response.is_null() {
        return TSS2_RC_SUCCESS;
    }
    if room < socket.response.len() {
        return INSUFFICIENT_BUFFER;
    }
    // SAFETY: there is room for `room` bytes, which are enough, and they are not ours.
    unsafe { response.copy_from_nonoverlapping(socket.response.as_ptr(), socket.response.len()) };
    socket.waiting = false;
    zeroize::Zeroize::zeroize(&mut socket.response);
    TSS2_RC_SUCCESS
}

/// TCTI API, 3.2.5.5.
unsafe extern "C" fn get_poll_handles(
    context: *mut TSS2_TCTI_CONTEXT,
    handles: *mut TSS2_TCTI_POLL_HANDLE,
    count: *mut size_t,
) -> TSS2_RC {
    // SAFETY: as in `transmit`; `count` is null or the caller's.
    let (Some(socket), Some(count)) = (unsafe { socket(context) }, unsafe { count.as_mut() }) else {
        return BAD_REFERENCE;
    };
    let room = std::mem::replace(count, 1);
    // SAFETY: null, or the caller's, with as much room as it tells.
    match unsafe { handles.as_mut() } {
        None => TSS2_RC_SUCCESS,
        Some(_) if room < 1 => INSUFFICIENT_BUFFER,
        Some(handle) => {
            handle.fd = socket.stream.as_raw_fd();
            // POLLIN of poll(2), on every Linux.
            handle.events = 1;
            TSS2_RC_SUCCESS
        }
    }
}

/// TCTI API, 3.2.5.6: nobody asks for another one.
unsafe extern "C" fn set_locality(_context: *mut TSS2_TCTI_CONTEXT, _locality: u8) -> TSS2_RC {
    NOT_IMPLEMENTED
}
