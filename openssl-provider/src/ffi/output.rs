//! OpenSSL's way to return bytes: the longest length where there is no room, else the bytes and their length.

use std::ffi::c_uchar;
use std::ptr;

use keyrivet_core::{Error, Result};

/// The caller's room for an answer.
pub(super) struct Output {
    room: *mut c_uchar,
    length: *mut usize,
    size: usize,
}

impl Output {
    /// Wraps what the core gave.
    ///
    /// # Safety
    ///
    /// `room` is null or has `size` writable bytes, and `length` is null or may be written, both until the last use.
    pub(super) unsafe fn new(room: *mut c_uchar, length: *mut usize, size: usize) -> Self {
        Self { room, length, size }
    }

    /// Tells `longest`, or returns what is made if there is room for that much.
    pub(super) fn put<T: AsRef<[u8]>>(&self, longest: usize, make: impl FnOnce() -> Result<T>) -> Result<()> {
        let tell = |length: usize| {
            // SAFETY: null, or the caller's room for the length.
            if let Some(told) = unsafe { self.length.as_mut() } {
                *told = length;
            }
        };
        if self.room.is_null() {
            tell(longest);
            return Ok(());
        }
        // Before the work: an answer that finds no room would cost the TPM's time for nothing.
        if self.size < longest {
            return Err(Error::DataInvalid(format!(
                "the answer takes {longest} bytes, there is room for {}",
                self.size
            )));
        }
        let content = make()?;
        let content = content.as_ref();
        if self.size < content.len() {
            return Err(Error::DataInvalid("the answer is longer than expected".into()));
        }
        tell(content.len());
        // SAFETY: the caller's room has `size` bytes, no fewer than the content.
        unsafe { ptr::copy_nonoverlapping(content.as_ptr(), self.room, content.len()) };
        Ok(())
    }
}
