//! What keeps the machine's own ways out of the measurements.

/// Has this process, and every one that it starts, come before other work on the machine, where it may: with ordinary
/// priorities, even high ones, each wake-up waits for somebody's time slice, and there are two in every TPM command.
pub(crate) fn raise_priority() {
    if !set_priority(2) {
        eprintln!("other work on this machine disturbs what is measured: root may give this a real-time priority");
    }
}

/// Lets all others that are measured come first: for a client that stands for many other machines.
pub(crate) fn lower_priority() {
    // With the usual priorities this one would put it before them.
    if scheduling() == libc::SCHED_RR {
        set_priority(1);
    }
}

/// Runs `work`, and what it starts, as any other program.
pub(crate) fn as_usual<T>(work: impl FnOnce() -> T) -> T {
    let (before, alone, usual) = (scheduling(), leaves_a_processor(), libc::sched_param { sched_priority: 0 });
    // SAFETY: the parameter lives through the call.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER, &usual) };
    set_affinity(0, 0..processors());
    let result = work();
    if before == libc::SCHED_RR {
        raise_priority();
    }
    if alone {
        leave_a_processor();
    }
    result
}

fn scheduling() -> libc::c_int {
    // SAFETY: no pointers.
    unsafe { libc::sched_getscheduler(0) }
}

fn set_priority(priority: libc::c_int) -> bool {
    let parameter = libc::sched_param { sched_priority: priority };
    // SAFETY: the parameter lives through the call.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &parameter) == 0 }
}

/// A TPM is a device with a processor of its own, as a broker's clients are machines of their own. So software TPMs and
/// brokers get the first processor, if there are several, and everything else the others: otherwise a client's threads
/// would take time from them, and who shares a processor with whom would be luck.
pub(crate) fn leave_a_processor() {
    let processors = processors();
    if processors > 1 {
        set_affinity(0, 1..processors);
    }
}

/// Runs `work` on the others, and goes on everywhere.
pub(crate) fn apart<T>(work: impl FnOnce() -> T) -> T {
    leave_a_processor();
    let result = work();
    set_affinity(0, 0..processors());
    result
}

/// Puts a software TPM, or the resource manager in front of it, where no client is.
pub(crate) fn place_tpm(process: u32) {
    if leaves_a_processor() {
        let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        let threads = threads.filter_map(|thread| thread.file_name().to_str()?.parse().ok());
        threads.for_each(|thread| set_affinity(thread, 0..1));
    }
}

/// Whether the first processor is not for this process.
fn leaves_a_processor() -> bool {
    // SAFETY: plain data, filled by the call.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) == 0 && !libc::CPU_ISSET(0, &set)
    }
}

/// How many there are in all; this process may have been kept from some.
fn processors() -> usize {
    // SAFETY: no pointers.
    let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(count).unwrap_or(1)
}

fn set_affinity(thread: u32, processors: std::ops::Range<usize>) {
    // SAFETY: plain data with room for more processors than are set; a refusal leaves everything as it was.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        processors.for_each(|processor| libc::CPU_SET(processor, &mut set));
        libc::sched_setaffinity(thread as libc::pid_t, size_of::<libc::cpu_set_t>(), &set);
    }
}
