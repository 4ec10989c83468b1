//! Locks between processes: files that hold nothing, and how long and for whom one waits.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// A lock's file; it is made with `mode`, whatever the umask, where it is missing.
///
/// A link is refused: in a directory that a group may write to, it could lead anywhere.
pub(crate) fn open(path: &Path, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(mode);
    let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let data = file.metadata()?;
    if data.is_file() && data.uid() == rustix::process::geteuid().as_raw() && data.mode() & 0o777 != mode {
        // The umask must not keep the group out.
        let _ = file.set_permissions(Permissions::from_mode(mode));
    }
    Ok(file)
}

/// Locks the file, or says who holds it when the deadline has come. Between two tries there are `pauses`, from the first,
/// then longer and longer, to the second.
pub(crate) fn wait_for(file: &File, deadline: Instant, pauses: [Duration; 2]) -> io::Result<()> {
    let [mut pause, longest] = pauses;
    loop {
        match try_lock(file) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < deadline => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(longest);
            }
            Err(Errno::WOULDBLOCK | Errno::INTR) => {
                return Err(io::Error::new(io::ErrorKind::WouldBlock, holder(file)));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Locks the file if nobody else has.
pub(crate) fn try_lock(file: &File) -> Result<(), Errno> {
    rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive)
}

/// Gives the lock back. Closing the file does it too, unless a child that just forked has it open.
pub(crate) fn unlock(file: &File) {
    let _ = rustix::fs::flock(file, FlockOperation::Unlock);
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
