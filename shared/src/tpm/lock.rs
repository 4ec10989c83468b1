//! The lock by which processes take turns at a TPM that has no resource manager.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Where the system's lock files lie.
const SYSTEM_DIRECTORY: &str = "/run/keyrivet";
/// Longest wait for our turn.
const PATIENCE: Duration = Duration::from_secs(60);

/// Our turn at the TPM, until dropped.
///
/// Two files: the TPM's own, held during the turn, and a turnstile, held by the one who waits next. Whoever wants
/// another turn goes through the turnstile behind those who wait already.
pub(crate) struct Turn {
    turn: File,
    turnstile: File,
}

impl Turn {
    /// Waits for our turn at the TPM behind `tcti`.
    pub(crate) fn wait(directory: Option<&Path>, tcti: &str) -> Result<Self> {
        let name = crate::hex::encode(&crate::algorithm::HashAlgorithm::Sha256.digest(tcti.as_bytes())[..8]);
        let directory = directory_for(directory)?;
        let this = Self {
            turn: open(&directory.join(format!("{name}.lock")))?,
            turnstile: open(&directory.join(format!("{name}.next")))?,
        };
        let deadline = Instant::now() + PATIENCE;
        wait_for(&this.turnstile, deadline)?;
        let taken = wait_for(&this.turn, deadline);
        let _ = flock(&this.turnstile, FlockOperation::Unlock);
        taken.map(|()| this)
    }

    /// Whether another process waits for its turn.
    pub(crate) fn is_wanted(&self) -> bool {
        match flock(&self.turnstile, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                let _ = flock(&self.turnstile, FlockOperation::Unlock);
                false
            }
            Err(_) => true,
        }
    }

    /// Its descriptors, which a forked child must close, or the lock would outlive us.
    pub(crate) fn descriptors(&self) -> [RawFd; 2] {
        [self.turn.as_raw_fd(), self.turnstile.as_raw_fd()]
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Closing is not enough while a child that just forked still has the descriptor.
        let _ = flock(&self.turn, FlockOperation::Unlock);
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
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(directory) if !directory.is_empty() => Ok(directory.into()),
        _ => Err(Error::Config(format!(
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
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o660);
    let file = options.open(path).map_err(|source| Error::Store { path: path.to_owned(), source })?;
    if file.metadata().is_ok_and(|data| data.uid() == rustix::process::geteuid().as_raw()) {
        // The umask must not keep the group out.
        let _ = file.set_permissions(Permissions::from_mode(0o660));
    }
    Ok(file)
}

fn wait_for(file: &File, deadline: Instant) -> Result<()> {
    let mut pause = Duration::from_micros(100);
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < deadline => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(2));
            }
            Err(_) => return Err(Error::TpmBusy { holder: holder(file) }),
        }
    }
}

/// Who holds the lock, from `/proc/locks`.
fn holder(file: &File) -> String {
    let inode = file.metadata().map(|data| data.ino()).unwrap_or_default();
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let process = locks.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let held = fields.get(1) == Some(&"FLOCK") && fields.get(5)?.rsplit(':').next() == Some(&inode.to_string());
        held.then(|| fields.get(4).copied()).flatten()
    });
    match process {
        Some(process) => {
            let name = std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
            format!("process {process} ({})", name.trim())
        }
        None => "another process".into(),
    }
}
