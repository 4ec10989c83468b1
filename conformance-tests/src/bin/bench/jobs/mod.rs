//! The jobs: what is measured, in the order of the table. Adding one is a module and a line here.

mod cold;
mod commands;
mod footprint;
mod growth;
mod kernel;
mod keys;
mod login;
mod registry;
mod sign;
mod tls;

use std::cell::LazyCell;
use std::time::Duration;

use crate::contestants::Arena;
use crate::report::Report;

/// One job.
pub(crate) struct Job {
    /// By which it is asked for.
    pub(crate) name: &'static str,
    /// What it measures.
    pub(crate) about: &'static str,
    /// Runs only when it is asked for by name.
    pub(crate) on_request: bool,
    run: fn(&Bench, &mut Report),
}

/// All jobs.
pub(crate) const JOBS: &[Job] = &[
    job("sign", "warm signatures: threads, processes, resource manager", sign::run),
    job("cold", "pkcs11-tool and openssl req from start to end", cold::run),
    job("login", "C_Login and C_Logout, again and again", login::run),
    job("commands", "what listing and making keys costs the TPM", commands::run),
    job("tls", "TLS 1.3 handshakes by nginx", tls::run),
    job("keys", "growth with the number of keys: 1 to 10,000", keys::run),
    job("growth", "growth with sessions and with threads", growth::run),
    job("footprint", "memory, the libraries' size, what they link", footprint::run),
    Job {
        name: "kernel",
        about: "commands at the TPM over the kernel's resource manager, in a virtual machine",
        on_request: true,
        run: kernel::run,
    },
    Job {
        name: "registry",
        about: "the registry: connections, messages and memory of a broker, answers to hooks",
        on_request: true,
        run: registry::run,
    },
];

const fn job(name: &'static str, about: &'static str, run: fn(&Bench, &mut Report)) -> Job {
    Job { name, about, on_request: false, run }
}

impl Job {
    /// Runs it.
    pub(crate) fn run(&self, bench: &Bench, report: &mut Report) {
        (self.run)(bench, report);
    }
}

/// What jobs are given.
pub(crate) struct Bench {
    /// Everybody's keys and TPMs; made when a job first asks for them.
    pub(crate) arena: LazyCell<Arena>,
    /// Two minutes for all, instead of some twenty.
    pub(crate) quick: bool,
}

impl Bench {
    /// How long one slice takes.
    pub(crate) fn slice(&self) -> Duration {
        Duration::from_millis(if self.quick { 60 } else { 200 })
    }

    /// How many rounds a row gets: `full` of them, or a few.
    pub(crate) fn rounds(&self, full: u32) -> u32 {
        if self.quick { (full / 8).max(2) } else { full }
    }
}
