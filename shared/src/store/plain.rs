//! Reads files of the store, whatever somebody has put in their places.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The longest file of an object or a token.
pub(super) const LONGEST: u64 = 4 << 20;

const NOT_PLAIN: &str = "it is not a plain file";

/// Opens a plain file. A pipe does not keep us waiting, and a link leads nowhere.
pub(super) fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(path).map_err(|error| match error.raw_os_error() {
        // A link; a socket.
        Some(libc::ELOOP | libc::ENXIO) => strange(NOT_PLAIN),
        _ => error,
    })?;
    let data = file.metadata()?;
    if data.is_file() { Ok((file, data)) } else { Err(strange(NOT_PLAIN)) }
}

/// Reads a text file. [`io::ErrorKind::InvalidData`] says that what is there is none of ours.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let (file, data) = open(path)?;
    if data.len() > LONGEST {
        return Err(strange(&format!("it is longer than {LONGEST} bytes")));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(data.len()).unwrap_or_default());
    // It may grow while it is read.
    file.take(LONGEST).read_to_end(&mut bytes)?;
    String::from_utf8(bytes).map_err(|_| strange("it is not text"))
}

fn strange(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_plain_files_of_text_are_read_and_nothing_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        std::fs::write(place("text"), "text").unwrap();
        assert_eq!(read(&place("text")).unwrap(), "text");
        std::fs::write(place("binary"), b"\xff\xfe").unwrap();
        File::create(place("huge")).unwrap().set_len(100 << 20).unwrap();
        std::fs::create_dir(place("directory")).unwrap();
        symlink(place("text"), place("link")).unwrap();
        symlink("/dev/zero", place("endless")).unwrap();
        symlink("loop", place("loop")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, place("pipe"), rustix::fs::Mode::RUSR).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(place("socket")).unwrap();
        for name in ["binary", "huge", "directory", "link", "endless", "loop", "pipe", "socket"] {
            assert_eq!(read(&place(name)).unwrap_err().kind(), io::ErrorKind::InvalidData, "{name}");
        }
        assert_eq!(read(&place("nothing")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
