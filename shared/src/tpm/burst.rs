//! What is held for a burst of uses, and the thread that lets go of it some time after the last one.
//!
//! `models/` tries its threads in many orders; so it asks for locks and threads by the names of this crate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fair::FairMutex;
use super::thread::{self, JoinHandle};
use crate::mutex::{Condvar, Mutex};

/// A thing that one user at a time has, and that is kept for the next.
pub(super) struct Burst<C> {
    /// How long it is kept after a use.
    hold: Duration,
    held: FairMutex<Held<C>>,
    /// Locked for moments, also by whoever has `held`; never the other way round.
    reaper: Mutex<Reaper>,
    /// Tells of more [`Reaper::ended`].
    called: Condvar,
}

struct Held<C> {
    thing: Option<C>,
    last_use: Option<Instant>,
}

#[derive(Default)]
struct Reaper {
    /// Also one that has let go already and only has to return: whoever comes next waits for that.
    thread: Option<JoinHandle<()>>,
    /// Whether it still looks after the thing.
    watches: bool,
    /// How often the burst was ended: a reaper of an earlier one ends, too, whatever others hold by then.
    ended: u64,
}

impl<C> Default for Held<C> {
    fn default() -> Self {
        Self { thing: None, last_use: None }
    }
}

impl Reaper {
    /// Waits for one that has let go: it has no more use for any lock, as the caller has what is held.
    fn see_off(&mut self) {
        if !self.watches {
            if let Some(thread) = self.thread.take() {
                let _ = thread.join();
            }
        }
    }
}

impl<C: Send + 'static> Burst<C> {
    pub(super) fn new(hold: Duration) -> Self {
        Self { hold, held: FairMutex::default(), reaper: Mutex::default(), called: Condvar::default() }
    }

    /// Runs `work` on what is held, if anything is; what it leaves is held from now on.
    pub(super) fn with<T>(self: &Arc<Self>, work: impl FnOnce(&mut Option<C>) -> T) -> T {
        let mut held = self.held.lock();
        let result = work(&mut held.thing);
        held.last_use = Some(Instant::now());
        if held.thing.is_some() && !self.watch() {
            held.thing = None;
        }
        result
    }

    /// Has the reaper look after what is held, or will be. To start that thread takes a part of a millisecond: the work of
    /// [`Self::with`] may do it where it would only wait, and nobody else. `false` if the system gives no thread.
    pub(super) fn watch(self: &Arc<Self>) -> bool {
        let mut reaper = self.reaper.lock();
        if !reaper.watches {
            reaper.see_off();
            let (this, ended) = (self.clone(), reaper.ended);
            reaper.thread = thread::spawn(move || this.reap(ended));
            reaper.watches = reaper.thread.is_some();
        }
        reaper.watches
    }

    /// Lets go of it now, and waits for the reaper's end.
    pub(super) fn end(&self) {
        let mut held = self.held.lock();
        let mut reaper = self.reaper.lock();
        reaper.watches = false;
        reaper.ended += 1;
        let thread = reaper.thread.take();
        drop(reaper);
        self.called.notify_all();
        // Letting go takes its time, in which the reaper returns.
        held.thing = None;
        drop(held);
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }

    /// Lets go of it, unless somebody has it for longer than this.
    pub(super) fn end_within(&self, patience: Duration) {
        if let Some(mut held) = self.held.try_lock_for(patience) {
            held.thing = None;
            self.reaper.lock().see_off();
        }
    }

    /// The reaper: waits until nothing was used for a while, lets go, ends.
    fn reap(&self, ended: u64) {
        let mut deadline = Instant::now() + self.hold;
        while self.goes_on_until(deadline, ended) {
            let mut held = self.held.lock();
            let mut reaper = self.reaper.lock();
            if reaper.ended != ended {
                return;
            }
            if let (Some(_), Some(last_use)) = (&held.thing, held.last_use) {
                deadline = last_use + self.hold;
                if Instant::now() < deadline {
                    continue;
                }
            }
            reaper.watches = false;
            drop(reaper);
            held.thing = None;
            return;
        }
    }

    /// Whether the burst is not ended before this time, which it waits for.
    fn goes_on_until(&self, deadline: Instant, ended: u64) -> bool {
        let mut reaper = self.reaper.lock();
        while reaper.ended == ended && Instant::now() < deadline {
            reaper = self.called.wait_until(reaper, deadline);
        }
        reaper.ended == ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_let_go_of_in_time_or_when_it_is_ended() {
        let (thing, burst) = (Arc::new(()), Arc::new(Burst::new(Duration::from_millis(5))));
        let start = Instant::now();
        burst.with(|held| *held = Some(thing.clone()));
        while Arc::strong_count(&thing) > 1 {
            std::thread::yield_now();
        }
        assert!(start.elapsed() >= Duration::from_millis(5));

        let burst = Arc::new(Burst::new(Duration::from_secs(3600)));
        burst.with(|held| {
            assert!(burst.watch());
            *held = Some(thing.clone());
        });
        assert_eq!(Arc::strong_count(&thing), 2);
        burst.end();
        assert_eq!((Arc::strong_count(&thing), Arc::strong_count(&burst)), (1, 1));
    }
}
