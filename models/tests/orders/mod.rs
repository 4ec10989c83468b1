//! Threads in many orders, and how many orders those are.

use std::sync::Arc;

/// How many orders are tried: as many as usual, or as `SHUTTLE_ROUNDS` says.
pub(crate) fn rounds(usual: usize) -> usize {
    std::env::var("SHUTTLE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(usual)
}

/// Runs the work in so many of shuttle's threads at once, each by its number, and waits for all.
pub(crate) fn in_threads(count: usize, work: impl Fn(usize) + Send + Sync + 'static) {
    let work = Arc::new(work);
    let threads = (0..count).map(|number| {
        let work = work.clone();
        shuttle::thread::spawn(move || work(number))
    });
    threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
}
