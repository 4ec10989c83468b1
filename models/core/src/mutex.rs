//! The core's locks, over shuttle's: at each of them another thread may go on.

use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

pub use shuttle::sync::{RwLockReadGuard, RwLockWriteGuard};

#[derive(Debug, Default)]
pub struct Mutex<T>(shuttle::sync::Mutex<T>);
#[derive(Debug, Default)]
pub struct RwLock<T>(shuttle::sync::RwLock<T>);
#[derive(Debug)]
pub struct MutexGuard<'a, T>(shuttle::sync::MutexGuard<'a, T>);
#[derive(Debug, Default)]
pub struct Condvar(shuttle::sync::Condvar);

impl<T> Mutex<T> {
    pub const fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(self.0.lock().unwrap())
    }

    pub fn try_lock_for(&self, _patience: Duration) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().ok().map(MutexGuard)
    }
}

impl<T> RwLock<T> {
    pub const fn new(value: T) -> Self {
        Self(shuttle::sync::RwLock::new(value))
    }

    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap()
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap()
    }
}

impl Condvar {
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        MutexGuard(self.0.wait(guard.0).unwrap())
    }

    /// No time passes in a model: who waits here is called, or the model ends with somebody waiting. What a time that is up
    /// does is for the tests beside the locks.
    pub fn wait_until<'a, T>(&self, guard: MutexGuard<'a, T>, _deadline: Instant) -> MutexGuard<'a, T> {
        MutexGuard(self.0.wait_timeout(guard.0, Duration::from_millis(1)).unwrap().0)
    }

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
