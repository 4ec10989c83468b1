//! Keeps forks and exchanges with the TPM apart.
//!
//! libtss2 opens the connection to a software TPM for each command, and that TPM serves one connection after the other: a
//! child that inherited one would keep everybody waiting, its own parent first. So a fork waits for the exchange that is
//! under way, be it our own reaper's, and exchanges wait for the fork. Over a TPM device, whose descriptor a child can close,
//! nobody waits.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread::sleep;
use std::time::{Duration, Instant};

static EXCHANGES: AtomicU32 = AtomicU32::new(0);
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Longest wait of a fork: it may happen in a signal handler, within an exchange.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_micros(50);

/// An exchange with the TPM, while it lasts.
pub(super) struct Exchange(());

impl Exchange {
    /// Begins one; where the process is about to fork, after that.
    pub(super) fn begin() -> Self {
        loop {
            EXCHANGES.fetch_add(1, SeqCst);
            if FORKS.load(SeqCst) == 0 {
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
pub(super) fn after_fork_in_child() {
    FORKS.store(0, SeqCst);
    EXCHANGES.store(0, SeqCst);
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
