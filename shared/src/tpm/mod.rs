//! The TPM: one connection per process and TPM, held for a burst of uses. All its response codes end here.

mod capability;
mod connection;
mod dbus;
mod fork;
mod key;
mod lock;
mod object;
mod response;
mod sapi;
mod session;
mod tabrmd;
pub(crate) mod template;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::mutex::{Condvar, Mutex};
use crate::process::PerProcess;

pub use capability::PinTries;
pub(crate) use capability::{persistent_handles, read_capabilities, read_lockout, read_nv, read_pcrs, read_random};
pub(crate) use connection::Connection;
pub(crate) use key::{Authority, Place, UsableKey};
pub(crate) use object::{OWNER, Parent, SRK_HANDLE, Sealed, Srk};
pub(crate) use response::{is_authorisation_failure, is_missing_handle, is_not_ours};
pub(crate) use sapi::public_bytes;

/// The links of this process: one per TPM, however many modules' instances use it.
static LINKS: PerProcess<Mutex<Vec<Arc<Link>>>> = PerProcess::new();

/// A TPM, by its configuration. Making one does nothing; each use finds this process's link.
#[derive(Clone)]
pub(crate) struct Tpm {
    config: Arc<Config>,
}

/// What a process has of one TPM.
struct Link {
    config: Arc<Config>,
    held: Mutex<Held>,
    /// Tells the reaper to end now.
    wake: Condvar,
}

#[derive(Default)]
struct Held {
    connection: Option<Connection>,
    last_use: Option<Instant>,
    reaper: Option<JoinHandle<()>>,
}

impl Tpm {
    pub(crate) fn new(config: Arc<Config>) -> Self {
        Self { config }
    }

    /// The configuration it was opened with.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    fn link(&self) -> Arc<Link> {
        let mut links = LINKS.get().lock();
        if let Some(link) = links.iter().find(|link| link.config == self.config) {
            return link.clone();
        }
        if links.is_empty() {
            connection::register_process_hooks(release_at_exit);
        }
        let link =
            Arc::new(Link { config: self.config.clone(), held: Mutex::new(Held::default()), wake: Condvar::default() });
        links.push(link.clone());
        link
    }

    /// Uses the TPM. What the use leaves held (connection, session, key) goes some milliseconds after the last use.
    ///
    /// `operation` runs once more, over a new connection, if the one that was held turns out to be broken.
    pub(crate) fn with<T>(&self, mut operation: impl FnMut(&mut Connection) -> Result<T>) -> Result<T> {
        let link = self.link();
        let mut held = link.held.lock();
        if let Some(connection) = held.connection.take() {
            held.connection = connection.continue_burst(&self.config);
        }
        let fresh = held.connection.is_none();
        let mut result = held.run(&self.config, &mut operation);
        if !fresh && result.as_ref().is_err_and(response::is_transport_failure) {
            result = held.run(&self.config, &mut operation);
        }
        held.last_use = Some(Instant::now());
        if held.connection.is_some() && held.reaper.is_none() {
            held.reaper = connection::spawn_quietly({
                let link = link.clone();
                move || link.reap()
            });
            if held.reaper.is_none() {
                held.connection = None;
            }
        }
        result.map_err(|error| response::explain(error, &self.config))
    }

    /// Ends the burst now.
    pub(crate) fn release(&self) {
        let link = self.link();
        let mut held = link.held.lock();
        held.connection = None;
        let reaper = held.reaper.take();
        link.wake.notify_all();
        drop(held);
        if let Some(reaper) = reaper {
            // It only waits for the lock that we just gave back.
            let _ = reaper.join();
        }
    }
}

impl Held {
    fn run<T>(&mut self, config: &Config, operation: &mut impl FnMut(&mut Connection) -> Result<T>) -> Result<T> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(config)?,
        };
        let result = connection.run(operation);
        match &result {
            // Nothing that passed over a broken connection can be trusted or flushed through it.
            Err(error) if response::is_transport_failure(error) => connection.abandon(),
            _ => self.connection = Some(connection),
        }
        result
    }
}

impl Link {
    /// The reaper: waits until nothing was used for a while, releases everything, ends.
    fn reap(&self) {
        let mut held = self.held.lock();
        while held.connection.is_some() {
            let last_use = held.last_use.unwrap_or_else(Instant::now);
            let deadline = last_use + self.config.hold;
            if Instant::now() >= deadline {
                held.connection = None;
            } else {
                held = self.wake.wait_until(held, deadline);
            }
        }
        // `release` takes the handle to join us; otherwise nobody will.
        held.reaper = None;
    }
}

/// Most programs leave without saying so.
extern "C" fn release_at_exit() {
    let patience = std::time::Duration::from_secs(2);
    let Some(links) = LINKS.get().try_lock_for(patience) else { return };
    for link in links.iter() {
        if let Some(mut held) = link.held.try_lock_for(patience) {
            held.connection = None;
        }
    }
}

impl Error {
    /// The TPM's response code, if this is one.
    pub(crate) fn response_code(&self) -> Option<u32> {
        match self {
            Self::Tpm { code, .. } => Some(*code),
            _ => None,
        }
    }
}
