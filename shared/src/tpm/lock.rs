//! The lock by which processes take turns at a TPM that has no resource manager.

use std::fs::{DirBuilder, File, Permissions};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::fork::ClosedInChild;
use crate::config::Config;
use crate::environment::variable;
use crate::error::{Error, Result};
use crate::flock;

/// Where the system's lock files lie.
const SYSTEM_DIRECTORY: &str = "/run/keyrivet";
/// Pauses between two looks whether it is our turn.
const PAUSES: [Duration; 2] = [Duration::from_micros(100), Duration::from_millis(2)];

/// Our turn at the TPM, until dropped.
///
/// Two files: the TPM's own, held during the turn, and a turnstile, held by the one who waits next. Whoever wants
/// another turn goes through the turnstile behind those who wait already.
///
/// During the turn there is a byte in the TPM's own file. Whoever finds one there comes after a process that was killed.
pub(crate) struct Turn {
    // A child that kept them would keep the lock after we are killed.
    _closed_in_child: [ClosedInChild; 2],
    turn: File,
    turnstile: File,
    /// Whether something may be left at the TPM that is nobody's any more.
    pub(super) untidy: bool,
}

impl Turn {
    /// Waits for our turn at the TPM.
    pub(crate) fn wait(config: &Config) -> Result<Self> {
        let name = crate::hex::encode(&crate::algorithm::HashAlgorithm::Sha256.digest(config.tcti.as_bytes())[..8]);
        let directory = directory_for(config.lock_dir.as_deref())?;
        let turn = open(&directory.join(format!("{name}.lock")))?;
        let turnstile = open(&directory.join(format!("{name}.next")))?;
        let closed_in_child = [&turn, &turnstile].map(|file| ClosedInChild::new(file.as_raw_fd()));
        let mut this = Self { _closed_in_child: closed_in_child, turn, turnstile, untidy: true };
        let deadline = Instant::now() + config.patience;
        wait_for(&this.turnstile, deadline)?;
        let taken = wait_for(&this.turn, deadline);
        flock::unlock(&this.turnstile);
        taken?;
        this.untidy = this.turn.metadata().is_ok_and(|data| data.len() > 0);
        // Without the byte, what we leave when we are killed stays until the TPM is full.
        let _ = this.turn.write_all_at(b"1", 0);
        Ok(this)
    }

    /// Whether another process waits for its turn.
    pub(crate) fn is_wanted(&self) -> bool {
        let free = flock::try_lock(&self.turnstile).is_ok();
        if free {
            flock::unlock(&self.turnstile);
        }
        !free
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.untidy {
            let _ = self.turn.set_len(0);
        }
        // Closing is not enough while a child that just forked still has the descriptor.
        flock::unlock(&self.turn);
    }
}

fn directory_for(configured: Option<&Path>) -> Result<PathBuf> {
    if let Some(directory) = configured {
        return Ok(directory.to_owned());
    }
    let system = Path::new(SYSTEM_DIRECTORY);
    if !system.is_dir() && rustix::process::geteuid().is_root() {
        make_system_directory(system);
    }
    if rustix::fs::access(system, rustix::fs::Access::WRITE_OK).is_ok() {
        return Ok(system.to_owned());
    }
    match variable("XDG_RUNTIME_DIR") {
        Some(directory) => Ok(directory.into()),
        None => Err(Error::Config(format!(
            "no place for the lock of a TPM without resource manager: make {SYSTEM_DIRECTORY} writable for group tss, \
             or set lock_dir in keyrivet.toml, or use /dev/tpmrm0"
        ))),
    }
}

/// Best effort: who uses the directory finds out whether it worked.
fn make_system_directory(path: &Path) {
    if DirBuilder::new().mode(0o770).create(path).is_ok() {
        // Sticky to the group that may use the TPM, whatever its number is here.
        let group = std::fs::read_to_string("/etc/group").ok().and_then(|groups| {
            groups.lines().find_map(|line| line.strip_prefix("tss:")?.split(':').nth(1)?.parse().ok())
        });
        let _ = std::os::unix::fs::chown(path, None, group);
        let _ = std::fs::set_permissions(path, Permissions::from_mode(0o2770));
    }
}

fn open(path: &Path) -> Result<File> {
    flock::open(path, 0o660).map_err(|source| Error::Store { path: path.to_owned(), source })
}

fn wait_for(file: &File, deadline: Instant) -> Result<()> {
    flock::wait_for(file, deadline, PAUSES).map_err(|error| Error::TpmBusy { holder: error.to_string() })
}
