//! A lock that goes to whoever has waited longest. std's own goes to whoever comes first when it is free, and a thread that
//! uses the TPM all the time always does: others would wait for as long as it goes on.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::thread;
use crate::mutex::{Condvar, Mutex, MutexGuard};

/// The lock. Its state lies in itself, as [`crate::mutex`] has it.
#[derive(Default)]
pub(super) struct FairMutex<T> {
    /// Locked by whoever is admitted, and by nobody else.
    value: Mutex<T>,
    door: Mutex<Door>,
}

#[derive(Default)]
struct Door {
    /// Somebody is in. Nobody waits if not.
    busy: bool,
    queue: VecDeque<Arc<Waiter>>,
}

#[derive(Default)]
struct Waiter {
    admitted: Mutex<bool>,
    changed: Condvar,
}

impl Waiter {
    fn wait(&self) {
        let mut admitted = self.admitted.lock();
        while !*admitted {
            admitted = self.changed.wait(admitted);
        }
    }

    fn wait_until(&self, deadline: Instant) {
        let mut admitted = self.admitted.lock();
        while !*admitted && Instant::now() < deadline {
            admitted = self.changed.wait_until(admitted, deadline);
        }
    }
}

/// What is guarded, while it is locked.
pub(super) struct FairGuard<'a, T> {
    // Given back in this order.
    value: MutexGuard<'a, T>,
    _way_out: WayOut<'a>,
}

struct WayOut<'a>(&'a Mutex<Door>);

impl<T> FairMutex<T> {
    /// Waits for it.
    pub(super) fn lock(&self) -> FairGuard<'_, T> {
        let mut door = self.door.lock();
        if door.busy {
            let waiter = Arc::new(Waiter::default());
            door.queue.push_back(waiter.clone());
            drop(door);
            waiter.wait();
        } else {
            door.busy = true;
            drop(door);
        }
        self.admitted()
    }

    /// Waits for it, but not for ever; ahead of those who do.
    pub(super) fn try_lock_for(&self, patience: Duration) -> Option<FairGuard<'_, T>> {
        let deadline = Instant::now() + patience;
        let mut door = self.door.try_lock_for(patience)?;
        if !door.busy {
            door.busy = true;
            drop(door);
            return Some(self.admitted());
        }
        let waiter = Arc::new(Waiter::default());
        door.queue.push_front(waiter.clone());
        drop(door);
        waiter.wait_until(deadline);
        let mut door = self.door.lock();
        if let Some(place) = door.queue.iter().position(|other| Arc::ptr_eq(other, &waiter)) {
            door.queue.remove(place);
            return None;
        }
        drop(door);
        // Our turn has come, be it at the last moment.
        waiter.wait();
        Some(self.admitted())
    }

    fn admitted(&self) -> FairGuard<'_, T> {
        FairGuard { value: self.value.lock(), _way_out: WayOut(&self.door) }
    }
}

impl Drop for WayOut<'_> {
    fn drop(&mut self) {
        let mut door = self.0.lock();
        match door.queue.pop_front() {
            Some(next) => {
                drop(door);
                *next.admitted.lock() = true;
                next.changed.notify_all();
                // Where there is one processor for both, the next one gets the TPM to work while we see to our result.
                thread::yield_now();
            }
            None => door.busy = false,
        }
    }
}

impl<T> Deref for FairGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for FairGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::thread::{scope, sleep};

    #[test]
    fn threads_that_always_want_it_take_turns() {
        let lock = FairMutex::<u64>::default();
        let (together, counts) = (Barrier::new(4), [const { AtomicU64::new(0) }; 4]);
        scope(|scope| {
            for count in &counts {
                scope.spawn(|| {
                    together.wait();
                    loop {
                        let mut value = lock.lock();
                        if *value == 2000 {
                            break;
                        }
                        *value += 1;
                        sleep(Duration::from_micros(300));
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        let counts = counts.map(AtomicU64::into_inner);
        assert_eq!(counts.iter().sum::<u64>(), *lock.lock());
        let (least, most) = (*counts.iter().min().unwrap(), *counts.iter().max().unwrap());
        // Each starts when the system lets it.
        assert!(least * 2 >= most, "{counts:?}");
    }

    #[test]
    fn a_patient_try_comes_ahead_of_those_who_wait_without_end() {
        let (lock, tried) = (FairMutex::<u64>::default(), AtomicBool::new(false));
        scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !tried.load(Ordering::Relaxed) {
                        *lock.lock() += 1;
                        sleep(Duration::from_micros(300));
                    }
                });
            }
            for _ in 0..20 {
                assert!(lock.try_lock_for(Duration::from_secs(60)).is_some());
            }
            tried.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_panic_gives_it_back_and_a_patient_try_gives_up() {
        let lock = FairMutex::<u64>::default();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _held = lock.lock();
            assert!(lock.try_lock_for(Duration::from_millis(3)).is_none());
            // Raised without the panic hook, which would write to the test's standard error.
            std::panic::resume_unwind(Box::new("a bug"));
        }));
        assert!(panicked.is_err());
        *lock.lock() += 1;
        assert_eq!(lock.try_lock_for(Duration::ZERO).as_deref(), Some(&1));
    }
}
