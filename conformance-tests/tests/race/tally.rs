//! How often threads did something, from which follows whether it may have come between two calls, or must have.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::raw::Rv;

/// How often something was begun, how often it was over, and how often it was done then.
#[derive(Default)]
pub(super) struct Tally {
    begun: AtomicUsize,
    over: AtomicUsize,
    done: AtomicUsize,
}

/// What a tally said at some time.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    begun: usize,
    over: usize,
}

impl Tally {
    pub(super) fn now(&self) -> Seen {
        // In this order: what is over was begun.
        let over = self.over.load(Ordering::SeqCst);
        Seen { begun: self.begun.load(Ordering::SeqCst), over }
    }

    /// Does it.
    pub(super) fn of<T>(&self, call: impl FnOnce() -> Rv<T>) -> Rv<T> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let answer = call();
        self.done.fetch_add(usize::from(answer.is_ok()), Ordering::SeqCst);
        self.over.fetch_add(1, Ordering::SeqCst);
        answer
    }

    /// Whether it may have happened since then: some of it was not over, or was begun later.
    pub(super) fn perhaps_since(&self, then: Seen) -> bool {
        self.begun.load(Ordering::SeqCst) > then.over
    }

    /// Whether some of it was begun later, and is done.
    pub(super) fn surely_since(&self, then: Seen) -> bool {
        self.done.load(Ordering::SeqCst) > then.begun
    }
}
