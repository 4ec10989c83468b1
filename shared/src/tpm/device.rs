//! The kernel's TPM devices: `/dev/tpmrm0`, whose resource manager keeps programs apart, and `/dev/tpm0` without one.
//!
//! libtss2's TCTI for them asks the TPM for random numbers at each opening, to see how the kernel answers, and gives up after
//! a second: where the kernel does not get to the question for so long, as on a machine with too much to do, it can open
//! nothing. We ask nothing.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;

use super::settings;

/// What a TCTI string that names no device means.
const DEFAULT: &str = "/dev/tpmrm0";

/// The device that a TCTI string names, such as `device:/dev/tpm0`; `None` for every other TCTI.
pub(super) fn path(tcti: &str) -> Option<&str> {
    match settings(tcti, "device")? {
        "" => Some(DEFAULT),
        path => Some(path),
    }
}

/// Opens a device. Sending to it returns at once (Linux 4.20), so that the wait for the response can end.
///
/// # Errors
///
/// What the system says: there is no such device, it may not be used, or it is somebody else's (`/dev/tpm0`).
pub(super) fn open(path: &str) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tcti_string_says_which_device() {
        assert_eq!(path("device:/dev/tpm1"), Some("/dev/tpm1"));
        for default in ["device", "device:", "device:/dev/tpmrm0"] {
            assert_eq!(path(default), Some("/dev/tpmrm0"));
        }
        for other in ["devices", "tabrmd", "swtpm:path=/x", "libtss2-tcti-device.so.0:/dev/tpm0", ""] {
            assert_eq!(path(other), None);
        }
    }
}
