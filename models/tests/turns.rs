//! How threads of a process take the TPM from each other, in many orders: one at a time, first come first served, no deadlock.
#![allow(dead_code, reason = "the mounted source is used in part")]

mod mutex {
    pub(crate) use keyrivet_core::mutex::*;
}

/// The core's threads, by shuttle.
mod thread {
    pub(super) use shuttle::thread::{JoinHandle, yield_now};

    pub(super) fn spawn(work: impl FnOnce() + Send + 'static) -> Option<JoinHandle<()>> {
        Some(shuttle::thread::spawn(work))
    }
}

#[path = "../../shared/src/tpm/burst.rs"]
mod burst;
#[path = "../../shared/src/tpm/fair.rs"]
mod fair;
mod orders;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use burst::Burst;
use fair::FairMutex;
use orders::in_threads;

fn in_many_orders(model: impl Fn() + Send + Sync + 'static) {
    shuttle::check_random(model, orders::rounds(2000));
}

#[test]
fn one_at_a_time_has_it_and_everybody_gets_it() {
    in_many_orders(|| {
        let (lock, inside) = (Arc::new(FairMutex::<usize>::default()), Arc::new(AtomicUsize::new(0)));
        let shared = (lock.clone(), inside.clone());
        in_threads(4, move |_| {
            for _ in 0..3 {
                let mut held = shared.0.lock();
                assert_eq!(shared.1.fetch_add(1, SeqCst), 0, "two at once");
                shuttle::thread::yield_now();
                *held += 1;
                shared.1.fetch_sub(1, SeqCst);
            }
        });
        assert_eq!(*lock.lock(), 12);
    });
}

#[test]
fn a_patient_try_gets_it_or_leaves_it_as_it_was() {
    in_many_orders(|| {
        let lock = Arc::new(FairMutex::<usize>::default());
        let shared = lock.clone();
        let got = Arc::new(AtomicUsize::new(0));
        let counted = got.clone();
        in_threads(3, move |number| {
            if number > 0 {
                *shared.lock() += 1;
            } else if let Some(mut held) = shared.try_lock_for(Duration::ZERO) {
                *held += 1;
                counted.fetch_add(1, SeqCst);
            }
        });
        assert_eq!(*lock.lock(), 2 + got.load(SeqCst));
    });
}

/// How many connections there are, and were.
#[derive(Default)]
struct Count {
    open: AtomicUsize,
    ever: AtomicUsize,
}

/// What is held: one at a time.
struct Connection(Arc<Count>);

impl Connection {
    fn open(count: &Arc<Count>) -> Self {
        assert_eq!(count.open.fetch_add(1, SeqCst), 0, "two connections at once");
        count.ever.fetch_add(1, SeqCst);
        Self(count.clone())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Flushing takes a while, in which others want to connect.
        shuttle::thread::yield_now();
        self.0.open.fetch_sub(1, SeqCst);
    }
}

/// Threads that use it, some of which end it; the reaper comes at once or never by itself.
fn users(hold: Duration, ends: impl Fn(usize) -> bool + Send + Sync + Copy + 'static) {
    in_many_orders(move || {
        let (burst, count) = (Arc::new(Burst::new(hold)), Arc::new(Count::default()));
        let shared = (burst.clone(), count.clone());
        in_threads(3, move |number| {
            let (burst, count) = &shared;
            for round in 0..2 {
                burst.with(|held| {
                    let connection = held.take().unwrap_or_else(|| Connection::open(count));
                    // One of them has it watched before it is held.
                    assert!(number != 1 || burst.watch());
                    shuttle::thread::yield_now();
                    // One of them finds its connection broken.
                    if (number, round) == (2, 0) { drop(connection) } else { *held = Some(connection) }
                });
                if ends(number) {
                    burst.end();
                }
            }
        });
        burst.end();
        assert_eq!(count.open.load(SeqCst), 0);
        assert!((1..=6).contains(&count.ever.load(SeqCst)));
        // And after its end it begins anew.
        burst.with(|held| {
            assert!(held.is_none());
            *held = Some(Connection::open(&count));
        });
        burst.end();
        assert_eq!(count.open.load(SeqCst), 0);
        assert_eq!(Arc::strong_count(&burst), 1, "a reaper that has not ended");
    });
}

#[test]
fn users_and_a_reaper_that_comes_at_once() {
    users(Duration::ZERO, |_| false);
}

#[test]
fn users_of_whom_one_ends_it_and_a_reaper_that_comes_at_once() {
    users(Duration::ZERO, |number| number == 0);
}

#[test]
fn users_while_the_reaper_waits() {
    users(Duration::from_secs(3600), |_| false);
}

/// Whoever ends it does not wait for those who go on with it.
#[test]
fn users_of_whom_one_ends_it_while_the_reaper_waits() {
    users(Duration::from_secs(3600), |number| number == 0);
}

#[test]
fn users_of_whom_all_end_it_while_the_reaper_waits() {
    users(Duration::from_secs(3600), |_| true);
}
