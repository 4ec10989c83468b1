//! Threads of ours in a process of somebody else's.

pub(super) use std::thread::{JoinHandle, yield_now};

/// A thread that takes none of the host's signals; `None` if the system gives no thread.
pub(super) fn spawn(work: impl FnOnce() + Send + 'static) -> Option<JoinHandle<()>> {
    crate::ffi::with_signals_blocked(|| {
        std::thread::Builder::new().name("keyrivet".into()).stack_size(128 * 1024).spawn(work).ok()
    })
}
