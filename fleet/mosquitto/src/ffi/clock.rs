//! The time, for what is asked with every message.

use std::mem::MaybeUninit;

use keyrivet_registry::Timestamp;

/// The kernel's last tick, some milliseconds ago at most: a fourth of the price of [`Timestamp::now`].
pub(crate) fn recent() -> Timestamp {
    let mut time = MaybeUninit::uninit();
    // SAFETY: it fills the structure, unless it says that it has not.
    let time = unsafe {
        if libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, time.as_mut_ptr()) != 0 {
            return Timestamp::now();
        }
        time.assume_init()
    };
    Timestamp::from_micros(time.tv_sec as i64 * 1_000_000 + time.tv_nsec as i64 / 1_000)
}
