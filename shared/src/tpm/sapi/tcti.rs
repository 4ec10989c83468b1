//! The way to a TPM: one of libtss2's TCTIs by its loader, or a channel of our own in the form of a TCTI (TSS 2.0 TCTI API).

use std::ffi::CString;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::net::UnixStream;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use tss_esapi::tss2_esys::*;
use zeroize::Zeroize as _;

use super::super::socket::send_all;
use super::super::swtpm::SoftwareTpm;
use super::{TSS2_RC_SUCCESS, check};
use crate::log::{self, Topic};

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
const LONGEST: usize = TPM2_MAX_RESPONSE_SIZE as usize;

/// On which commands and responses go as they are.
pub(super) enum Channel {
    Socket(UnixStream),
    /// A character device of the kernel's, opened so that it does not block.
    Device(File),
    Software(SoftwareTpm),
}

/// A TCTI context, until dropped.
pub(super) enum Tcti {
    /// libtss2's.
    Loaded(*mut TSS2_TCTI_CONTEXT),
    /// Ours, on the heap: libtss2 keeps its address.
    Ours(*mut Line),
}

impl Tcti {
    /// By a TCTI string, which goes to libtss2's loader unchanged.
    pub(super) fn load(name: &str) -> Result<Self, u32> {
        let name = CString::new(name).map_err(|_| TSS2_BASE_RC_BAD_VALUE)?;
        let mut context = null_mut();
        // SAFETY: `name` ends with a zero byte; `context` receives a pointer that `Drop` gives back.
        check(unsafe { Tss2_TctiLdr_Initialize(name.as_ptr(), &mut context) })?;
        Ok(Self::Loaded(context))
    }

    /// Over a channel of our own.
    pub(super) fn over(channel: Channel) -> Self {
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
        let response = [0; LONGEST];
        Self::Ours(Box::into_raw(Box::new(Line { common, channel, waiting: false, response, received: 0 })))
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
            Self::Ours(line) => line.cast(),
        }
    }
}

impl Drop for Tcti {
    fn drop(&mut self) {
        match self {
            // SAFETY: `load` initialised it, and nobody uses it any more.
            Self::Loaded(context) => unsafe { Tss2_TctiLdr_Finalize(context) },
            // SAFETY: `over` made it of a box, and nobody uses it any more.
            Self::Ours(line) => drop(unsafe { Box::from_raw(*line) }),
        }
    }
}

impl Channel {
    /// `None` where there is one only while a command is under way.
    fn descriptor(&self) -> Option<RawFd> {
        match self {
            Self::Socket(socket) => Some(socket.as_raw_fd()),
            Self::Device(device) => Some(device.as_raw_fd()),
            Self::Software(tpm) => tpm.descriptor(),
        }
    }

    /// Sends a command: to a device in one piece, as the kernel wants it.
    fn send(&mut self, command: &[u8]) -> io::Result<()> {
        match self {
            Self::Socket(socket) => send_all(socket, command),
            Self::Device(device) => device.write_all(command),
            Self::Software(tpm) => tpm.send(command),
        }
    }

    /// As much as has come, and at least one byte. From a device that is all: old kernels forget what is not taken at once.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let received = match self {
            Self::Socket(socket) => socket.read(buffer),
            Self::Device(device) => device.read(buffer),
            Self::Software(tpm) => tpm.receive(buffer),
        };
        received.and_then(|length| if length == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(length) })
    }

    /// The command is done, or given up.
    fn finish(&mut self) {
        if let Self::Software(tpm) = self {
            tpm.disconnect();
        }
    }
}

/// What is behind our contexts.
#[repr(C)]
pub(super) struct Line {
    common: TSS2_TCTI_CONTEXT_COMMON_V1,
    channel: Channel,
    /// Whether a command was sent whose response was not taken yet.
    waiting: bool,
    response: [u8; LONGEST],
    /// How much of it has come.
    received: usize,
}

impl Line {
    fn transmit(&mut self, command: &[u8]) -> TSS2_RC {
        if self.waiting {
            return BAD_SEQUENCE;
        }
        if let Err(error) = self.channel.send(command) {
            self.channel.finish();
            return broken(&error);
        }
        self.waiting = true;
        TSS2_RC_SUCCESS
    }

    /// Reads the rest of the response. `None` is to wait as long as it takes.
    fn receive(&mut self, deadline: Option<Instant>) -> TSS2_RC {
        if !self.waiting {
            return BAD_SEQUENCE;
        }
        let code = self.receive_all(deadline);
        self.channel.finish();
        code
    }

    fn receive_all(&mut self, deadline: Option<Instant>) -> TSS2_RC {
        loop {
            let length = self.response[2..6].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            if self.received >= HEADER {
                if !(HEADER.max(self.received)..=LONGEST).contains(&length) {
                    return MALFORMED_RESPONSE;
                }
                if length == self.received {
                    return TSS2_RC_SUCCESS;
                }
            }
            let patience = deadline.map_or(-1, |end| {
                let left = end.saturating_duration_since(Instant::now());
                i32::try_from(left.as_millis()).unwrap_or(i32::MAX)
            });
            match self.channel.descriptor() {
                Some(descriptor) if crate::ffi::wait_readable(descriptor, patience) => {}
                Some(_) => return TRY_AGAIN,
                None => return BAD_SEQUENCE,
            }
            match self.channel.receive(&mut self.response[self.received..]) {
                Ok(length) => self.received += length,
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(error) => return broken(&error),
            }
        }
    }

    /// Forgets the response, for the next command.
    fn clear(&mut self) {
        self.response[..self.received].zeroize();
        (self.waiting, self.received) = (false, 0);
    }
}

/// libtss2 has one code for all that can go wrong with a connection, but for who does not answer.
fn broken(error: &io::Error) -> TSS2_RC {
    log::write(Topic::Tpm, format_args!("the connection: {error}"));
    if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) { TRY_AGAIN } else { IO_ERROR }
}

/// What is behind a context of ours.
///
/// # Safety
///
/// The context is one of [`Tcti::over`], and nobody else uses it meanwhile.
unsafe fn line<'a>(context: *mut TSS2_TCTI_CONTEXT) -> Option<&'a mut Line> {
    // SAFETY: as the caller promises.
    unsafe { context.cast::<Line>().as_mut() }
}

/// TCTI API, 3.2.5.1.
unsafe extern "C" fn transmit(context: *mut TSS2_TCTI_CONTEXT, size: size_t, command: *const u8) -> TSS2_RC {
    // SAFETY: SAPI calls with the context that it was initialised with, which `&mut Sapi` makes its own.
    match unsafe { line(context) } {
        Some(line) if !command.is_null() => {
            // SAFETY: SAPI gives a buffer of this size.
            line.transmit(unsafe { std::slice::from_raw_parts(command, size as usize) })
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
    let (Some(line), Some(size)) = (unsafe { line(context) }, unsafe { size.as_mut() }) else {
        return BAD_REFERENCE;
    };
    let patience = u64::try_from(timeout).ok().map(Duration::from_millis);
    let code = line.receive(patience.map(|patience| Instant::now() + patience));
    if code != TSS2_RC_SUCCESS {
        return code;
    }
    let room = std::mem::replace(size, line.received as size_t) as usize;
    if response.is_null() {
        return TSS2_RC_SUCCESS;
    }
    if room < line.received {
        return INSUFFICIENT_BUFFER;
    }
    // SAFETY: there is room for `room` bytes, which are enough, and they are not ours.
    unsafe { response.copy_from_nonoverlapping(line.response.as_ptr(), line.received) };
    line.clear();
    TSS2_RC_SUCCESS
}

/// TCTI API, 3.2.5.5.
unsafe extern "C" fn get_poll_handles(
    context: *mut TSS2_TCTI_CONTEXT,
    handles: *mut TSS2_TCTI_POLL_HANDLE,
    count: *mut size_t,
) -> TSS2_RC {
    // SAFETY: as in `transmit`; `count` is null or the caller's.
    let (Some(line), Some(count)) = (unsafe { line(context) }, unsafe { count.as_mut() }) else {
        return BAD_REFERENCE;
    };
    let Some(descriptor) = line.channel.descriptor() else { return NOT_IMPLEMENTED };
    let room = std::mem::replace(count, 1);
    // SAFETY: null, or the caller's, with as much room as it tells.
    match unsafe { handles.as_mut() } {
        None => TSS2_RC_SUCCESS,
        Some(_) if room < 1 => INSUFFICIENT_BUFFER,
        Some(handle) => {
            handle.fd = descriptor;
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
