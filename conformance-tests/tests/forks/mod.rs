//! Children of a test's own process, and the ways in which they leave.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use conformance_tests::Device;
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions, kill_process, setrlimit, waitpid};

/// How a child leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// By `exit`, with its exit handlers.
    Exit,
    /// By `_exit`, without.
    AtOnce,
    Abort,
    Kill,
    Segfault,
}

pub(crate) const WAYS: [Way; 5] = [Way::Exit, Way::AtOnce, Way::Abort, Way::Kill, Way::Segfault];

unsafe extern "C" {
    fn fork() -> i32;
    fn exit(status: i32) -> !;
    fn _exit(status: i32) -> !;
    fn alarm(seconds: u32) -> u32;
}

/// A child that is to be waited for.
#[must_use = "its parent has to wait for it"]
pub(crate) struct Child(Pid, Way);

/// Forks; the child does `work`, and leaves in its way only if that went well. One that hangs is ended.
pub(crate) fn child(way: Way, work: impl FnOnce()) -> Child {
    // SAFETY: the child is a copy of this thread, and never returns from here.
    let process = unsafe { fork() };
    if let Some(process) = Pid::from_raw(process) {
        assert!(process.as_raw_nonzero().get() > 0, "the system gives a process");
        return Child(process, way);
    }
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    have_another_minute();
    if catch_unwind(AssertUnwindSafe(work)).is_err() {
        // SAFETY: ends the process.
        unsafe { _exit(101) };
    }
    let signal = match way {
        // SAFETY: ends the process.
        Way::Exit => unsafe { exit(0) },
        // SAFETY: ends the process.
        Way::AtOnce => unsafe { _exit(0) },
        Way::Abort => std::process::abort(),
        Way::Kill => Signal::KILL,
        Way::Segfault => Signal::SEGV,
    };
    // The first one may go to a handler, which takes itself out.
    loop {
        let _ = kill_process(rustix::process::getpid(), signal);
    }
}

/// Called by a child that goes on: it has not hung.
pub(crate) fn have_another_minute() {
    // SAFETY: a number of seconds.
    unsafe { alarm(60) };
}

/// Called by a child that waits for its parent, whose end it would hear of.
pub(crate) fn wait_as_long_as_it_takes() {
    // SAFETY: no seconds: no alarm.
    unsafe { alarm(0) };
}

impl Child {
    /// Kills it, whatever it is at.
    pub(crate) fn kill(&self) {
        kill_process(self.0, Signal::KILL).unwrap();
    }

    /// Waits for its end, which must be the one that was meant.
    pub(crate) fn join(self) {
        let Self(process, way) = self;
        let (_, status) = waitpid(Some(process), WaitOptions::empty()).unwrap().unwrap();
        let signal = match way {
            Way::Exit | Way::AtOnce => None,
            Way::Abort => Some(Signal::ABORT),
            Way::Kill => Some(Signal::KILL),
            Way::Segfault => Some(Signal::SEGV),
        };
        let left = (status.exit_status(), status.terminating_signal());
        let meant = (if signal.is_none() { Some(0) } else { None }, signal.map(Signal::as_raw));
        assert_eq!(left, meant, "a child does its work and leaves by {way:?}");
    }
}

/// Nothing that the TPM takes for an attack has happened.
pub(crate) fn assert_no_attack(device: &Device) {
    assert_eq!(device.attacks(), [""; 0]);
    assert_eq!(device.lockout_counter(), "0x0");
}
