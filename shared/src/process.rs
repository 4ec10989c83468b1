//! State stamped with its process id: a forked child never touches, and never drops, what it inherited.

use std::sync::OnceLock;

/// Runs `work` and leaves this thread's `errno` as it was, for hosts that look at it after OpenSSL has failed (Python's
/// `ssl` takes it for the reason).
pub fn with_errno_kept<T>(work: impl FnOnce() -> T) -> T {
    crate::ffi::with_errno_kept(work)
}

/// One value per process, made at first use.
///
/// After a fork the child finds none and makes its own. The parent's value stays in the child's memory, untouched
/// and never dropped: its locks may be held by threads that the child does not have, and its descriptors are the
/// parent's. Looking it up takes no lock.
pub struct PerProcess<T> {
    first: OnceLock<Box<Stamped<T>>>,
}

struct Stamped<T> {
    process: u32,
    /// `None` only while it is being dropped.
    value: Option<T>,
    /// The value of a descendant process that was forked after this one was made.
    next: OnceLock<Box<Stamped<T>>>,
}

impl<T> PerProcess<T> {
    /// Nothing yet, in any process.
    pub const fn new() -> Self {
        Self { first: OnceLock::new() }
    }

    /// This process's value; `make` makes it the first time.
    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        let process = crate::ffi::process_id();
        let mut make = Some(make);
        let mut slot = &self.first;
        loop {
            let stamped = slot.get_or_init(|| {
                let value = make.take().map(|make| make());
                Box::new(Stamped { process, value, next: OnceLock::new() })
            });
            match &stamped.value {
                Some(value) if stamped.process == process => return value,
                _ => slot = &stamped.next,
            }
        }
    }
}

impl<T: Default> PerProcess<T> {
    /// This process's value.
    pub fn get(&self) -> &T {
        self.get_or_init(T::default)
    }
}

impl<T> Default for PerProcess<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Drop for Stamped<T> {
    fn drop(&mut self) {
        if self.process != crate::ffi::process_id() {
            std::mem::forget(self.value.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errno_is_left_as_it_was() {
        let errno = || std::io::Error::last_os_error().raw_os_error();
        let before = errno();
        let within = with_errno_kept(|| {
            let _ = std::fs::File::open("/nowhere/at/all");
            errno()
        });
        assert_ne!(within, before);
        assert_eq!(errno(), before);
    }

    #[test]
    fn a_process_keeps_its_value() {
        let state = PerProcess::<Vec<u8>>::new();
        assert!(std::ptr::eq(state.get(), state.get()));
    }
}
