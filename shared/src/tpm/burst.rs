//! What is held for a burst of uses, and the thread that lets go of it some time after the last one.
//!
//! `models/` tries its threads in many orders; so it asks for locks and threads by the names of this crate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fair::FairMutex;
use super::thread::{self, JoinHandle};

/// A thing that one user at a time has, and that is kept for the next.
pub(super) struct Burst<C> {
    /// How long it is kept after a use.
    hold: Duration,
    /// Whoever calls ends the reaper's wait.
    held: FairMutex<Held<C>>,
}

struct Held<C> {
    thing: Option<C>,
    last_use: Option<Instant>,
    /// A reaper, also one that has let go already and only has to return: whoever comes next waits for that.
    reaper: Option<JoinHandle<()>>,
    /// Whether it still looks after the thing.
    reaping: bool,
    /// How often the burst was ended: a reaper of an earlier one ends, too, whatever others hold by then.
    ended: u64,
}

impl<C> Default for Held<C> {
    fn default() -> Self {
        Self { thing: None, last_use: None, reaper: None, reaping: false, ended: 0 }
    }
}

impl<C> Held<C> {
    /// Waits for a reaper that has let go: it has no more use for the lock, which is the caller's.
    fn see_reaper_off(&mut self) {
        if !self.reaping {
            if let Some(reaper) = self.reaper.take() {
                let _ = reaper.join();
            }
        }
    }
}

impl<C: Send + 'static> Burst<C> {
    pub(super) fn new(hold: Duration) -> Self {
        Self { hold, held: FairMutex::default() }
    }

    /// Runs `work` on what is held, if anything is; what it leaves is held from now on.
    pub(super) fn with<T>(self: &Arc<Self>, work: impl FnOnce(&mut Option<C>) -> T) -> T {
        let mut held = self.held.lock();
        let result = work(&mut held.thing);
        held.last_use = Some(Instant::now());
        if held.thing.is_some() && !held.reaping {
            held.see_reaper_off();
            let (this, ended) = (self.clone(), held.ended);
            held.reaper = thread::spawn(move || this.reap(ended));
            held.reaping = held.reaper.is_some();
            if !held.reaping {
                held.thing = None;
            }
        }
        result
    }

    /// Lets go of it now, and waits for the reaper's end.
    pub(super) fn end(&self) {
        let mut held = self.held.lock();
        held.thing = None;
        held.reaping = false;
        held.ended += 1;
        let reaper = held.reaper.take();
        self.held.call();
        drop(held);
        if let Some(reaper) = reaper {
            // It only waits for its turn of the lock that we just gave back.
            let _ = reaper.join();
        }
    }

    /// Lets go of it, unless somebody has it for longer than this.
    pub(super) fn end_within(&self, patience: Duration) {
        if let Some(mut held) = self.held.try_lock_for(patience) {
            held.thing = None;
            held.see_reaper_off();
        }
    }

    /// The reaper: waits until nothing was used for a while, lets go, ends.
    fn reap(&self, ended: u64) {
        let mut held = self.held.lock();
        while held.thing.is_some() && held.ended == ended {
            let deadline = held.last_use.unwrap_or_else(Instant::now) + self.hold;
            if Instant::now() >= deadline {
                held.thing = None;
            } else {
                held = held.wait_until(deadline);
            }
        }
        if held.ended == ended {
            held.reaping = false;
        }
    }
}
