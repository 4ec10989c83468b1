//! What the core offers to a provider: its parameters, its error queue and its BIOs.

use std::ffi::{CString, c_char};
use std::panic::Location;
use std::ptr;

use keyrivet_core::kept::append;
use zeroize::Zeroizing;

use super::core_abi::*;
use super::dispatch::text;
use super::params::Descriptor;
use crate::error::Reason;

/// The functions of the core, and the handle by which it knows us.
pub(crate) struct Core {
    handle: *const OSSL_CORE_HANDLE,
    get_params: OSSL_FUNC_core_get_params_fn,
    new_error: OSSL_FUNC_core_new_error_fn,
    set_error_debug: OSSL_FUNC_core_set_error_debug_fn,
    vset_error: OSSL_FUNC_core_vset_error_fn,
    bio_read: OSSL_FUNC_BIO_read_ex_fn,
    bio_write: OSSL_FUNC_BIO_write_ex_fn,
    bio_gets: OSSL_FUNC_BIO_gets_fn,
}

// SAFETY: the handle is only ever passed back to the core, whose functions may be called from any thread.
unsafe impl Send for Core {}
// SAFETY: as above; nothing in it changes.
unsafe impl Sync for Core {}

/// Room for a `va_list` of any architecture. It is passed with formats that convert nothing, so nobody reads it.
#[repr(C, align(16))]
struct NoArguments([u8; 64]);

impl Core {
    /// Reads the core's table of functions.
    ///
    /// # Safety
    ///
    /// `table` is what the core gave to `OSSL_provider_init`, together with `handle`.
    pub(super) unsafe fn new(handle: *const OSSL_CORE_HANDLE, table: *const OSSL_DISPATCH) -> Self {
        // SAFETY: the table ends with the id 0 by contract; `core_dispatch.h` gives each id its function's type.
        unsafe {
            let find = |id: u32| {
                let mut next = table;
                while (*next).function_id != 0 {
                    if (*next).function_id == id as i32 {
                        return (*next).function;
                    }
                    next = next.add(1);
                }
                None
            };
            type Any = Option<unsafe extern "C" fn()>;
            Self {
                handle,
                get_params: std::mem::transmute::<Any, OSSL_FUNC_core_get_params_fn>(find(OSSL_FUNC_CORE_GET_PARAMS)),
                new_error: std::mem::transmute::<Any, OSSL_FUNC_core_new_error_fn>(find(OSSL_FUNC_CORE_NEW_ERROR)),
                set_error_debug: std::mem::transmute::<Any, OSSL_FUNC_core_set_error_debug_fn>(find(
                    OSSL_FUNC_CORE_SET_ERROR_DEBUG,
                )),
                vset_error: std::mem::transmute::<Any, OSSL_FUNC_core_vset_error_fn>(find(OSSL_FUNC_CORE_VSET_ERROR)),
                bio_read: std::mem::transmute::<Any, OSSL_FUNC_BIO_read_ex_fn>(find(OSSL_FUNC_BIO_READ_EX)),
                bio_write: std::mem::transmute::<Any, OSSL_FUNC_BIO_write_ex_fn>(find(OSSL_FUNC_BIO_WRITE_EX)),
                bio_gets: std::mem::transmute::<Any, OSSL_FUNC_BIO_gets_fn>(find(OSSL_FUNC_BIO_GETS)),
            }
        }
    }

    /// What the core has under this name for us: facts of its own, and the values in our section of openssl.cnf.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        let (get_params, name) = (self.get_params?, c_string(name));
        let mut value: *const c_char = ptr::null();
        let asked = OSSL_PARAM {
            key: name.as_ptr(),
            data_type: OSSL_PARAM_UTF8_PTR,
            data: ptr::from_mut(&mut value).cast(),
            data_size: size_of::<*const c_char>(),
            return_size: usize::MAX,
        };
        let mut array = [asked, Descriptor::end()];
        // SAFETY: an array with its end mark and room for a pointer; the core's text stays as long as this provider.
        unsafe {
            if get_params(self.handle, array.as_mut_ptr()) != 1 {
                return None;
            }
            text(value).map(str::to_owned)
        }
    }

    /// Its version: major, minor. (0, 0) if it does not tell.
    pub(crate) fn version(&self) -> (u32, u32) {
        let version = OSSL_PROV_PARAM_CORE_VERSION.to_str().ok().and_then(|name| self.parameter(name));
        let mut numbers = version.iter().flat_map(|text| text.split('.')).map_while(|number| number.parse().ok());
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    /// Puts an error into OpenSSL's queue.
    pub(crate) fn raise(&self, reason: Reason, text: &str, place: &Location<'_>) {
        let (Some(new_error), Some(set_error_debug), Some(vset_error)) =
            (self.new_error, self.set_error_debug, self.vset_error)
        else {
            return;
        };
        let file = c_string(place.file());
        // The text is the format, because a variadic list cannot be made here: no % may be left to convert anything.
        let format = c_string(&text.replace('%', "%%"));
        let mut arguments = NoArguments([0; 64]);
        // SAFETY: the core copies both texts; the format converts nothing, so the arguments are not looked at.
        unsafe {
            new_error(self.handle);
            set_error_debug(self.handle, file.as_ptr(), place.line() as i32, ptr::null());
            vset_error(self.handle, reason as u32, format.as_ptr(), ptr::from_mut(&mut arguments).cast());
        }
    }
}

/// The text up to its first NUL, if it has one.
pub(super) fn c_string(text: &str) -> CString {
    let end = text.find('\0').unwrap_or(text.len());
    CString::new(&text[..end]).unwrap_or_default()
}

/// A stream of the core's, to read from or write to.
pub(crate) struct Bio<'a> {
    core: &'a Core,
    bio: *mut OSSL_CORE_BIO,
}

impl<'a> Bio<'a> {
    /// Wraps a stream.
    ///
    /// # Safety
    ///
    /// `bio` came from the same core and is used by nobody else meanwhile.
    pub(super) unsafe fn new(core: &'a Core, bio: *mut OSSL_CORE_BIO) -> Self {
        Self { core, bio }
    }

    /// The next line with its end, or a piece of a very long one; `None` at the end.
    ///
    /// What is read may hold a PIN.
    pub(crate) fn line(&mut self) -> Option<Zeroizing<Vec<u8>>> {
        let gets = self.core.bio_gets?;
        let mut line = Zeroizing::new(vec![0_u8; 512]);
        // SAFETY: the buffer is as long as is said.
        let length = unsafe { gets(self.bio, line.as_mut_ptr().cast::<c_char>(), line.len() as i32) };
        let length = usize::try_from(length).ok().filter(|&length| length > 0 && length <= line.len())?;
        line.truncate(length);
        Some(line)
    }

    /// Everything up to the end, `None` if that is more than `limit` bytes.
    ///
    /// What is read may hold a PIN.
    pub(crate) fn rest(&mut self, limit: usize) -> Option<Zeroizing<Vec<u8>>> {
        let read = self.core.bio_read?;
        let mut content = Zeroizing::new(Vec::new());
        let mut piece = Zeroizing::new([0_u8; 4096]);
        loop {
            let mut length = 0;
            // SAFETY: the buffer is as long as is said, and the core writes no more than that.
            let more = unsafe { read(self.bio, piece.as_mut_ptr().cast(), piece.len(), &mut length) };
            if more != 1 || length == 0 {
                return Some(content);
            }
            append(&mut content, piece.get(..length)?).ok()?;
            if content.len() > limit {
                return None;
            }
        }
    }

    /// Writes all of `content`; says whether that succeeded.
    pub(crate) fn write(&mut self, mut content: &[u8]) -> bool {
        let Some(write) = self.core.bio_write else { return false };
        while !content.is_empty() {
            let mut length = 0;
            // SAFETY: the bytes are readable for the length that is said.
            let more = unsafe { write(self.bio, content.as_ptr().cast(), content.len(), &mut length) };
            match content.get(length..) {
                Some(rest) if more == 1 && length > 0 => content = rest,
                _ => return false,
            }
        }
        true
    }
}
