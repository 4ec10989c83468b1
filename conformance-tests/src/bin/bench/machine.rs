//! What keeps the machine's own ways out of the measurements.

/// Keeps other work on the machine out of the way, for this and every process that it starts, where it may.
pub(crate) fn raise_priority() {
    const NICE: libc::c_int = -15;
    // SAFETY: no pointers.
    let raised = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) } == 0;
    // With autogroups (sched(7)) niceness counts only within a session, and a session has one of its own.
    let grouped = std::fs::write("/proc/self/autogroup", NICE.to_string()).is_ok();
    if !raised || !grouped {
        eprintln!("other work on this machine disturbs what is measured: root may give this a higher priority");
    }
}

/// A TPM is a device with a processor of its own. So software TPMs get the first one, if there are several, and
/// everything else the others: otherwise a client's threads would take time from the TPM, and who shares a processor
/// with it would be luck.
pub(crate) fn leave_a_processor_to_tpms() {
    let processors = processors();
    if processors > 1 {
        set_affinity(0, 1..processors);
    }
}

/// Puts a software TPM where no client is.
pub(crate) fn place_tpm(process: u32) {
    if processors() > 1 {
        set_affinity(process, 0..1);
    }
}

/// How many there are in all; this process may have been kept from some.
fn processors() -> usize {
    // SAFETY: no pointers.
    let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(count).unwrap_or(1)
}

fn set_affinity(process: u32, processors: std::ops::Range<usize>) {
    // SAFETY: plain data with room for more processors than are set; a refusal leaves everything as it was.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        processors.for_each(|processor| libc::CPU_SET(processor, &mut set));
        libc::sched_setaffinity(process as libc::pid_t, size_of::<libc::cpu_set_t>(), &set);
    }
}
