//! What the core asks of libc directly: registrations, descriptors, signals, errno, and the silence of libtss2.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_void};
use std::io::ErrorKind;
use std::ops::{Deref, DerefMut};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use zeroize::Zeroize as _;

use crate::error::{Error, Result};

unsafe extern "C" {
    /// POSIX.1, XBD 8.1: the process's environment.
    static mut environ: *mut *mut c_char;
}

/// Has `function` called when the process exits by `exit` or by returning from `main`.
pub(crate) fn at_exit(function: extern "C" fn()) {
    // SAFETY: the function is static and the libraries are linked `-z nodelete`, so it is still there at exit.
    unsafe { libc::atexit(function) };
}

/// Has `before` called before each fork, and `parent` or `child` after it, on the thread that forks.
///
/// In the child only what is async-signal-safe is allowed: other threads of the parent may have held any lock.
pub(crate) fn at_fork(before: extern "C" fn(), parent: extern "C" fn(), child: extern "C" fn()) {
    // SAFETY: the functions are static and never unloaded; the child's keeps to async-signal-safe calls.
    unsafe { libc::pthread_atfork(Some(before), Some(parent), Some(child)) };
}

/// What tells this process from those that it descends from, whose memory it has. Their process ids come again some time, and
/// in other namespaces at once; these numbers do not.
///
/// It is kept in a page that the kernel gives to a forked child filled with zeros, however it was forked (Linux 4.14; for older
/// ones it is the process id). A child of `vfork` shares our memory: it counts as its parent until it executes a program.
pub(crate) fn process_number() -> u32 {
    static LAST: AtomicU32 = AtomicU32::new(0);
    let Some(kept) = page_wiped_on_fork() else { return std::process::id() };
    match kept.load(Ordering::SeqCst) {
        0 => {
            // Counted before it is kept, so that no child comes to count from less.
            let next = LAST.fetch_add(1, Ordering::SeqCst) + 1;
            kept.compare_exchange(0, next, Ordering::SeqCst, Ordering::SeqCst).map_or_else(|quicker| quicker, |_| next)
        }
        number => number,
    }
}

/// Never unmapped. No lock is taken: a fork in the middle leaves the child a page that nobody uses, at worst.
fn page_wiped_on_fork() -> Option<&'static AtomicU32> {
    static PAGE: AtomicPtr<AtomicU32> = AtomicPtr::new(null_mut());
    const LENGTH: usize = size_of::<AtomicU32>();
    let mut page = PAGE.load(Ordering::Acquire);
    if page.is_null() {
        let start = map(LENGTH).ok()?;
        // SAFETY: our mapping, of which nobody else knows.
        if unsafe { libc::madvise(start.as_ptr(), LENGTH, libc::MADV_WIPEONFORK) } != 0 {
            unmap(start, LENGTH);
            return None;
        }
        page = start.as_ptr().cast();
        if let Err(quicker) = PAGE.compare_exchange(null_mut(), page, Ordering::AcqRel, Ordering::Acquire) {
            unmap(start, LENGTH);
            page = quicker;
        }
    }
    // SAFETY: mapped for good, aligned to a page, initialised by the system.
    Some(unsafe { &*page })
}

/// Closes a descriptor of which no owner in this process will ever make use again.
///
/// Async-signal-safe; for the child side of a fork.
pub(crate) fn close_inherited(descriptor: i32) {
    // SAFETY: in a forked child nothing uses the parent's descriptors: see `process`.
    unsafe { libc::close(descriptor) };
}

/// Keeps a descriptor of libtss2 from programs that the host starts.
pub(crate) fn close_on_exec(descriptor: i32) {
    // SAFETY: sets a flag; a descriptor that is not open is an error without effect.
    unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
}

/// Waits until there is something to read, or the other end is gone: at most so many milliseconds, for ever if negative.
/// The host's signal handlers run meanwhile.
pub(crate) fn wait_readable(descriptor: i32, milliseconds: i32) -> bool {
    let deadline = u64::try_from(milliseconds).ok().map(|patience| Instant::now() + Duration::from_millis(patience));
    let mut poll = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
    let mut patience = milliseconds;
    loop {
        // SAFETY: one entry, which lives through the call.
        let ready = unsafe { libc::poll(&mut poll, 1, patience) };
        if ready >= 0 || std::io::Error::last_os_error().kind() != ErrorKind::Interrupted {
            // What is wrong with the descriptor, whoever reads from it is told.
            return ready != 0;
        }
        if let Some(deadline) = deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            patience = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
        }
    }
}

/// Keeps libtss2 from writing to the host's standard error, unless its user has set `TSS2_LOG`; in a program with more rights
/// than its user, whatever that user has set: `TSS2_LOGFILE` names any file.
///
/// libtss2 takes its log level from the environment and from nowhere else. `setenv` may free the array that another
/// thread's `getenv` walks through, so we publish a longer copy and leave the old array as it is.
pub(crate) fn silence_libtss2() {
    const NAME: &CStr = c"TSS2_LOG";
    static QUIET: &CStr = c"TSS2_LOG=all+NONE";
    let believed = !is_privileged();
    // SAFETY: reads the environment's array, which ends with a null pointer, while nobody frees it: glibc does so only
    // in `setenv`, which a program with threads must not call; the new array is leaked, so it stays valid for ever.
    unsafe {
        if environ.is_null() || (believed && !libc::getenv(NAME.as_ptr()).is_null()) {
            return;
        }
        let (mut variables, mut quiet, mut loud) = (Vec::new(), false, false);
        let mut next = environ;
        while !(*next).is_null() {
            let variable = CStr::from_ptr(*next);
            if believed || !variable.to_bytes().starts_with(NAME.to_bytes()) {
                variables.push(*next);
            } else {
                (quiet, loud) = (quiet || variable == QUIET, loud || variable != QUIET);
            }
            next = next.add(1);
        }
        if quiet && !loud {
            return;
        }
        variables.push(QUIET.as_ptr().cast_mut());
        variables.push(std::ptr::null_mut());
        environ = Box::leak(variables.into_boxed_slice()).as_mut_ptr();
    }
}

/// Runs `work` with every signal blocked for this thread: a thread started in it inherits that.
pub(crate) fn with_signals_blocked<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: both sets are plain data that the calls fill; the old mask is put back.
    unsafe {
        let (mut all, mut old): (libc::sigset_t, libc::sigset_t) = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut old);
        let result = work();
        libc::pthread_sigmask(libc::SIG_SETMASK, &old, std::ptr::null_mut());
        result
    }
}

/// Whether this program runs with more rights than whoever started it.
pub(crate) fn is_privileged() -> bool {
    // SAFETY: a look at what the kernel handed over at the start.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Runs `work` and leaves `errno` as it was.
pub(crate) fn with_errno_kept<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: the address is this thread's own and valid for its life.
    let before = unsafe { *libc::__errno_location() };
    let result = work();
    // SAFETY: as above; `work` has run in this thread.
    unsafe { *libc::__errno_location() = before };
    result
}

/// Memory of pages of its own, filled with zeros, until [`unmap`].
fn map(length: usize) -> Result<NonNull<c_void>> {
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping wherever the system likes, which changes no other.
    let start = unsafe { libc::mmap(null_mut(), length, access, kind, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(Error::Store { path: "memory".into(), source: std::io::Error::last_os_error() });
    }
    NonNull::new(start).ok_or_else(|| Error::Unsupported("memory at address 0".into()))
}

/// Gives back what [`map`] gave, to which nothing refers any more.
fn unmap(start: NonNull<c_void>, length: usize) {
    // SAFETY: both callers own the mapping, and give it back once.
    unsafe { libc::munmap(start.as_ptr(), length) };
}

/// `N` bytes in memory of their own that is neither swapped out, as far as the system lets us lock it, nor part of a core
/// dump. Wiped when dropped.
pub(crate) struct LockedPage<const N: usize>(NonNull<[u8; N]>);

// SAFETY: it owns its memory, which `&self` only reads.
unsafe impl<const N: usize> Send for LockedPage<N> {}
// SAFETY: as above.
unsafe impl<const N: usize> Sync for LockedPage<N> {}

impl<const N: usize> LockedPage<N> {
    /// Zeros.
    pub(crate) fn new() -> Result<Self> {
        let start = map(N)?;
        // SAFETY: the two settings are for our new mapping alone.
        unsafe {
            libc::madvise(start.as_ptr(), N, libc::MADV_DONTDUMP);
            libc::mlock(start.as_ptr(), N);
        }
        Ok(Self(start.cast()))
    }
}

impl<const N: usize> Deref for LockedPage<N> {
    type Target = [u8; N];

    fn deref(&self) -> &[u8; N] {
        // SAFETY: mapped, aligned to a page, and initialised by the system, until `Drop`.
        unsafe { self.0.as_ref() }
    }
}

impl<const N: usize> DerefMut for LockedPage<N> {
    fn deref_mut(&mut self) -> &mut [u8; N] {
        // SAFETY: as in `deref`, and `&mut self` keeps others away.
        unsafe { self.0.as_mut() }
    }
}

impl<const N: usize> Drop for LockedPage<N> {
    fn drop(&mut self) {
        self.zeroize();
        unmap(self.0.cast(), N);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a forked child makes of this, up to 255.
    fn in_child(work: impl FnOnce() -> u32) -> u32 {
        // SAFETY: the child calls what takes no lock, and ends.
        match unsafe { libc::fork() } {
            0 => {
                let code = work();
                // SAFETY: never returns.
                unsafe { libc::_exit(code as i32) }
            }
            child => {
                let mut status = 0;
                // SAFETY: our own child, and a place for its status.
                unsafe { libc::waitpid(child, &mut status, 0) };
                libc::WEXITSTATUS(status) as u32
            }
        }
    }

    #[test]
    fn no_process_has_the_number_of_one_that_it_descends_from() {
        let ours = process_number();
        assert_eq!(process_number(), ours);
        assert_eq!(in_child(process_number), ours + 1);
        assert_eq!(in_child(|| in_child(process_number)), ours + 1, "its parent never asked");
        assert_eq!(in_child(|| process_number() + in_child(process_number)), 2 * ours + 3);
    }
}
