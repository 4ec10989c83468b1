//! State stamped with its process: a forked child never touches, and never drops, what it inherited.

use once_cell::race::OnceBox;

/// Runs `work` and leaves this thread's `errno` as it was, for hosts that look at it after OpenSSL has failed (Python's
/// `ssl` takes it for the reason).
pub fn with_errno_kept<T>(work: impl FnOnce() -> T) -> T {
    crate::ffi::with_errno_kept(work)
}

/// One value per process, made at first use.
///
/// After a fork the child finds none and makes its own. The parent's value stays in the child's memory, untouched
/// and never dropped: its locks may be held by threads that the child does not have, and its descriptors are the
/// parent's. Neither looking it up nor making it takes a lock, which a child forked meanwhile would find locked for ever: of
/// two threads that make one at the same time, the slower one's goes.
pub struct PerProcess<T> {
    first: OnceBox<Stamped<T>>,
}

struct Stamped<T> {
    process: u32,
    /// `None` only while it is being dropped.
    value: Option<T>,
    /// The value of a descendant process that was forked after this one was made.
    next: OnceBox<Stamped<T>>,
}

impl<T> PerProcess<T> {
    /// Nothing yet, in any process.
    pub const fn new() -> Self {
        Self { first: OnceBox::new() }
    }

    /// This process's value; `make` makes it the first time.
    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        let process = crate::ffi::process_number();
        let mut make = Some(make);
        let mut slot = &self.first;
        loop {
            let stamped = slot.get_or_init(|| {
                let value = make.take().map(|make| make());
                Box::new(Stamped { process, value, next: OnceBox::new() })
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
        if self.process != crate::ffi::process_number() {
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

    #[test]
    fn threads_that_make_it_at_once_have_the_same() {
        for _ in 0..100 {
            let (state, together) = (PerProcess::<Vec<u8>>::new(), std::sync::Barrier::new(4));
            let make = || {
                together.wait();
                std::ptr::from_ref(state.get()).addr()
            };
            let made =
                std::thread::scope(|scope| [(); 4].map(|()| scope.spawn(make)).map(|thread| thread.join().unwrap()));
            assert_eq!(made, [made[0]; 4]);
        }
    }
}
