//! Keeps forks and exchanges with the TPM apart.
//!
//! The connection to a software TPM is opened for each command, and that TPM serves one connection after the other: a child
//! that inherited one would keep everybody waiting, its own parent first. So a fork waits for the exchange that is under way,
//! be it our own reaper's, and exchanges wait for the fork. Over a TPM device, whose descriptor a child can close, a fork
//! waits for no command: only for a device that is being opened or closed.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::Relaxed, Ordering::SeqCst};
use std::thread::sleep;
use std::time::{Duration, Instant};

static EXCHANGES: AtomicU32 = AtomicU32::new(0);
static FORKS: AtomicU32 = AtomicU32::new(0);
/// Descriptors that a forked child closes: what it inherits of our connections would hold our lock and our objects.
static INHERITABLE: [AtomicI32; 24] = [const { AtomicI32::new(-1) }; 24];

/// Longest wait of a fork, which may happen in a signal handler, within an exchange; and for one, of which a handler of the
/// host's may use the TPM.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_micros(50);

/// An exchange with the TPM, while it lasts.
pub(super) struct Exchange(());

impl Exchange {
    /// Begins one; where the process is about to fork, after that.
    pub(super) fn begin() -> Self {
        let mut deadline = None;
        loop {
            EXCHANGES.fetch_add(1, SeqCst);
            if FORKS.load(SeqCst) == 0 || Instant::now() >= *deadline.get_or_insert_with(|| Instant::now() + PATIENCE) {
                return Self(());
            }
            end_exchange();
            sleep(PAUSE);
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        end_exchange();
    }
}

/// One less, but not less than none: a child that was forked within an exchange counts anew.
fn end_exchange() {
    let _ = EXCHANGES.fetch_update(SeqCst, SeqCst, |count| count.checked_sub(1));
}

pub(super) extern "C" fn before_fork() {
    FORKS.fetch_add(1, SeqCst);
    let deadline = Instant::now() + PATIENCE;
    while EXCHANGES.load(SeqCst) != 0 && Instant::now() < deadline {
        sleep(PAUSE);
    }
}

pub(super) extern "C" fn after_fork_in_parent() {
    FORKS.fetch_sub(1, SeqCst);
}

/// Only this thread is left.
pub(super) extern "C" fn after_fork_in_child() {
    FORKS.store(0, SeqCst);
    EXCHANGES.store(0, SeqCst);
    for slot in &INHERITABLE {
        let descriptor = slot.swap(-1, Relaxed);
        if descriptor >= 0 {
            crate::ffi::close_inherited(descriptor);
        }
    }
}

/// A descriptor that a forked child closes, for as long as this is kept. To be dropped before the descriptor is closed, or a
/// child would close what has its number next.
pub(super) struct ClosedInChild(RawFd);

impl ClosedInChild {
    /// Takes note of it. With no place left the child keeps the descriptor, which costs patience, not correctness.
    pub(super) fn new(descriptor: RawFd) -> Self {
        let _ = INHERITABLE.iter().find(|slot| slot.compare_exchange(-1, descriptor, Relaxed, Relaxed).is_ok());
        Self(descriptor)
    }
}

impl Drop for ClosedInChild {
    fn drop(&mut self) {
        let _ = INHERITABLE.iter().find(|slot| slot.compare_exchange(self.0, -1, Relaxed, Relaxed).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_and_an_exchange_wait_for_each_other() {
        let exchange = Exchange::begin();
        let fork = std::thread::spawn(|| before_fork());
        sleep(Duration::from_millis(2));
        assert!(!fork.is_finished());
        drop(exchange);
        fork.join().unwrap();
        let exchange = std::thread::spawn(|| drop(Exchange::begin()));
        sleep(Duration::from_millis(2));
        assert!(!exchange.is_finished());
        after_fork_in_parent();
        exchange.join().unwrap();
        assert_eq!((EXCHANGES.load(SeqCst), FORKS.load(SeqCst)), (0, 0));
    }
}
