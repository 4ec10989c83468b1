//! The store: one directory per token, one file per object, plain text. What is in a token's is in `directory`.
//!
//! Readers take no lock and need no write access. A writer holds the token's lock, writes a temporary file, syncs it,
//! renames it, and syncs the directory: at any moment each file is either the old one or the new one.

mod directory;
mod file;
mod index;
mod plain;
mod token_file;

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::flock;

pub(crate) use directory::{Stamp, TokenDirectory};
pub(crate) use token_file::{TokenFile, UserSecret};

const LOCK_FILE: &str = "lock";
/// What a temporary file's name begins with; leftovers of killed writers are swept by the next one.
const TEMPORARY: &str = ".new-";
/// Pauses between two looks whether another writer has ended.
const PAUSES: [Duration; 2] = [Duration::from_micros(200), Duration::from_millis(10)];

/// The directory that holds the tokens.
pub(crate) struct Store {
    root: PathBuf,
    /// Longest wait for another writer.
    patience: Duration,
}

/// A writer's lock, until dropped.
pub(crate) struct WriteLock(File);

impl Drop for WriteLock {
    fn drop(&mut self) {
        // Closing is not enough while a child that just forked still has the descriptor.
        flock::unlock(&self.0);
    }
}

impl Store {
    pub(crate) fn new(root: PathBuf, patience: Duration) -> Self {
        Self { root, patience }
    }

    /// The serial numbers of the tokens. A store that does not exist yet has none.
    pub(crate) fn serials(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(unreadable(&self.root))?,
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter(|name| name.len() == 16 && crate::hex::decode(name).is_some()).collect())
    }

    pub(crate) fn token(&self, serial: &str) -> TokenDirectory {
        TokenDirectory::new(self.root.join(serial), self.patience)
    }

    /// The lock for adding tokens; makes the store's directory where it is missing.
    pub(crate) fn lock(&self) -> Result<WriteLock> {
        if !self.root.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.root).map_err(failed(&self.root))?;
        }
        lock(&self.root, self.patience)
    }

    /// Adds a token's directory, whole or not at all. The caller holds the lock.
    pub(crate) fn add_token(&self, token: &TokenFile) -> Result<()> {
        let mode = fs::metadata(&self.root).map_err(failed(&self.root))?.mode() & 0o2070 | 0o700;
        sweep(&self.root);
        let new = self.root.join(format!("{TEMPORARY}{}", token.serial));
        DirBuilder::new().create(&new).map_err(failed(&new))?;
        // After the fact, so that the umask does not matter and the group bit is kept.
        fs::set_permissions(&new, Permissions::from_mode(mode)).map_err(failed(&new))?;
        let written = TokenDirectory::new(new.clone(), self.patience).write_token(token);
        let target = self.root.join(&token.serial);
        let renamed = written.and_then(|()| fs::rename(&new, &target).map_err(failed(&target)));
        if renamed.is_err() {
            let _ = fs::remove_dir_all(&new);
        }
        renamed.and_then(|()| sync(&self.root))
    }
}

/// Turns an error of reading `path` into ours.
fn unreadable(path: &Path) -> impl Fn(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| match source.kind() {
        ErrorKind::InvalidData => Error::ObjectCorrupt { path: path.clone(), reason: source.to_string() },
        _ => Error::Store { path: path.clone(), source },
    }
}

/// Turns an error of writing `path` into ours.
fn failed(path: &Path) -> impl Fn(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| match source.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Error::StoreReadOnly(path.clone()),
        _ => Error::Store { path: path.clone(), source },
    }
}

fn sync(directory: &Path) -> Result<()> {
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed(directory))
}

/// Removes what killed writers left. The caller holds the lock.
fn sweep(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(TEMPORARY)) {
            let path = entry.path();
            // A file; or a token's directory, half made.
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
        }
    }
}

fn lock(directory: &Path, patience: Duration) -> Result<WriteLock> {
    let path = directory.join(LOCK_FILE);
    let mode = fs::metadata(directory).map_err(failed(&path))?.mode() & 0o060 | 0o600;
    let file = flock::open(&path, mode).map_err(failed(&path))?;
    flock::wait_for(&file, Instant::now() + patience, PAUSES).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => {
            let source =
                std::io::Error::new(error.kind(), format!("stays locked by {error}: try again, or end that process"));
            Error::Store { path: path.clone(), source }
        }
        _ => failed(&path)(error),
    })?;
    Ok(WriteLock(file))
}
