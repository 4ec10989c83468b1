//! From OpenSSL's X509, which the broker hands out, to DER. The broker's own libcrypto does it: it is looked up in the
//! process, so that one plugin serves every version.

use std::ffi::{CStr, c_int, c_uchar, c_void};
use std::ptr::null_mut;

type X509Free = unsafe extern "C" fn(*mut c_void);
/// `i2d_X509`: the length, or what is negative; writes at `*out` and moves it, unless `out` is null.
type X509ToDer = unsafe extern "C" fn(*const c_void, *mut *mut c_uchar) -> c_int;

/// The DER of `x509`, which is freed.
///
/// # Safety
///
/// `x509` is null, or an X509 of the process's libcrypto that belongs to the caller.
pub(super) unsafe fn take_der(x509: *mut c_void) -> Option<Vec<u8>> {
    if x509.is_null() {
        return None;
    }
    // SAFETY: libcrypto's functions of these names have had these types since 0.9; i2d_X509 writes as many bytes as it
    // has said before, and the X509 is freed once.
    unsafe {
        let to_der: X509ToDer = std::mem::transmute(look_up(c"i2d_X509")?);
        let free: X509Free = std::mem::transmute(look_up(c"X509_free")?);
        let der = usize::try_from(to_der(x509, null_mut())).ok().and_then(|length| {
            let mut der = vec![0; length];
            let mut end = der.as_mut_ptr();
            (usize::try_from(to_der(x509, &raw mut end)) == Ok(length)).then_some(der)
        });
        free(x509);
        der
    }
}

/// A function of the process; `None` where there is none of that name.
fn look_up(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name ends with NUL.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    if symbol.is_null() { None } else { Some(symbol) }
}
