//! Locks that a forked child can leave behind: std's, whose state lies in the lock itself.
//!
//! parking_lot keeps waiting threads in one table of the whole process. A child inherits that table as it is, with threads
//! in it that the child does not have, and new locks of the child's own would end up in it.

use std::ops::{Deref, DerefMut};
use std::sync::{self, PoisonError, RwLockReadGuard, RwLockWriteGuard, TryLockError};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A lock that does not mind panics: what it guards is made anew or checked after each failure.
#[derive(Debug, Default)]
pub struct Mutex<T>(sync::Mutex<T>);

/// The like for many readers or one writer.
#[derive(Debug, Default)]
pub struct RwLock<T>(sync::RwLock<T>);

/// What is guarded, while it is locked.
#[derive(Debug)]
pub struct MutexGuard<'a, T>(sync::MutexGuard<'a, T>);

/// What waits for a change of something guarded.
#[derive(Debug, Default)]
pub struct Condvar(sync::Condvar);

impl<T> Mutex<T> {
    /// A lock around this.
    pub const fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    /// Locks it, once nobody else holds it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Locks it within this time, or not.
    pub fn try_lock_for(&self, patience: Duration) -> Option<MutexGuard<'_, T>> {
        const PAUSE: Duration = Duration::from_millis(1);
        let deadline = Instant::now() + patience;
        loop {
            match self.0.try_lock() {
                Ok(guard) => return Some(MutexGuard(guard)),
                Err(TryLockError::Poisoned(poisoned)) => return Some(MutexGuard(poisoned.into_inner())),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(PAUSE),
                Err(TryLockError::WouldBlock) => return None,
            }
        }
    }
}

impl<T> RwLock<T> {
    /// A lock around this.
    pub const fn new(value: T) -> Self {
        Self(sync::RwLock::new(value))
    }

    /// Locks it for reading, once nobody writes.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks it for writing, once nobody else holds it.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Condvar {
    /// Waits until this time, or until it is told of a change, or for no reason.
    pub fn wait_until<'a, T>(&self, guard: MutexGuard<'a, T>, deadline: Instant) -> MutexGuard<'a, T> {
        let patience = deadline.saturating_duration_since(Instant::now());
        MutexGuard(self.0.wait_timeout(guard.0, patience).unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Wakes all that wait.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_held_is_given_up_after_a_while_and_taken_after_a_panic() {
        let lock = Mutex::new(1);
        let held = lock.lock();
        assert!(lock.try_lock_for(Duration::from_millis(3)).is_none());
        drop(held);
        std::thread::scope(|scope| {
            let panicking = scope.spawn(|| {
                let _held = lock.lock();
                // Raised without the panic hook, which would write to the test's standard error.
                std::panic::resume_unwind(Box::new("a bug"));
            });
            assert!(panicking.join().is_err());
        });
        assert_eq!(lock.try_lock_for(Duration::ZERO).as_deref(), Some(&1));
        assert_eq!(*lock.lock(), 1);
    }
}
