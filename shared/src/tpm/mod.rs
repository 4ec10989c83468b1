//! The TPM: one connection per process and TPM, held for a burst of uses. All its response codes end here.

mod burst;
mod capability;
mod connection;
mod dbus;
mod device;
mod fair;
mod fork;
mod key;
mod lock;
mod object;
mod response;
mod sapi;
mod session;
mod socket;
mod swtpm;
mod tabrmd;
pub(crate) mod template;
mod thread;

use std::sync::Arc;

use crate::algorithm::SignatureScheme;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::mutex::Mutex;
use crate::process::PerProcess;
use burst::Burst;

pub use capability::PinTries;
pub(crate) use capability::{persistent_handles, read_capabilities, read_lockout, read_nv, read_pcrs, read_random};
pub(crate) use connection::Connection;
pub(crate) use key::{Authority, Place, UsableKey};
pub(crate) use object::{OWNER, Parent, SRK_HANDLE, Sealed, Srk};
pub(crate) use response::{is_authorisation_failure, is_gone, is_missing_handle, is_not_ours, is_unknown_scheme};
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
    burst: Arc<Burst<Connection>>,
    /// Whether the TPM pads as it should, of schemes and lengths of keys in bits where that was seen.
    paddings: Mutex<Vec<((SignatureScheme, usize), bool)>>,
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
        let burst = Arc::new(Burst::new(connection::hold(&self.config)));
        let link = Arc::new(Link { config: self.config.clone(), burst, paddings: Mutex::default() });
        links.push(link.clone());
        link
    }

    /// Uses the TPM. What the use leaves held (connection, session, key) goes some milliseconds after the last use.
    ///
    /// `operation` runs once more, over a new connection, if the one that was held turns out to be broken, and not only silent.
    pub(crate) fn with<T>(&self, mut operation: impl FnMut(&mut Connection) -> Result<T>) -> Result<T> {
        let burst = &self.link().burst;
        let result = burst.with(|held| {
            *held = held.take().and_then(|connection| connection.continue_burst(&self.config));
            let fresh = held.is_none();
            let result = run(held, &self.config, burst, &mut operation);
            match &result {
                Err(error) if !fresh && response::is_transport_failure(error) && !response::is_silence(error) => {
                    run(held, &self.config, burst, &mut operation)
                }
                _ => result,
            }
        });
        result.map_err(|error| response::explain(error, &self.config))
    }

    /// Whether the TPM pads as this scheme should be, with keys of so many bits, if that was seen.
    pub(crate) fn pads(&self, scheme: SignatureScheme, bits: usize) -> Option<bool> {
        let link = self.link();
        let paddings = link.paddings.lock();
        paddings.iter().find(|(seen, _)| *seen == (scheme, bits)).map(|(_, well)| *well)
    }

    /// Remembers for the process whether it does.
    pub(crate) fn set_pads(&self, scheme: SignatureScheme, bits: usize, well: bool) {
        let link = self.link();
        let mut paddings = link.paddings.lock();
        paddings.retain(|(seen, _)| *seen != (scheme, bits));
        paddings.push(((scheme, bits), well));
    }

    /// Ends the burst now.
    pub(crate) fn release(&self) {
        self.link().burst.end();
    }
}

/// What a TCTI string says after a TCTI's name, and nothing where it says no more; `None` for every other TCTI.
fn settings<'a>(tcti: &'a str, name: &str) -> Option<&'a str> {
    match tcti.strip_prefix(name)? {
        "" => Some(""),
        rest => rest.strip_prefix(':'),
    }
}

fn run<T>(
    held: &mut Option<Connection>,
    config: &Config,
    burst: &Arc<Burst<Connection>>,
    operation: &mut impl FnMut(&mut Connection) -> Result<T>,
) -> Result<T> {
    let mut connection = match held.take() {
        Some(connection) => connection,
        None => {
            let mut connection = Connection::open(config)?;
            let burst = burst.clone();
            // Should there be no thread now, `with` asks for one again.
            connection.while_it_works(move || {
                let _ = burst.watch();
            });
            connection
        }
    };
    let result = connection.run(operation);
    match &result {
        // Nothing that passed over a broken connection can be trusted or flushed through it.
        Err(error) if response::is_transport_failure(error) => connection.abandon(),
        _ => *held = Some(connection),
    }
    result
}

/// Most programs leave without saying so.
extern "C" fn release_at_exit() {
    let patience = std::time::Duration::from_secs(2);
    let Some(links) = LINKS.get().try_lock_for(patience) else { return };
    for link in links.iter() {
        link.burst.end_within(patience);
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
