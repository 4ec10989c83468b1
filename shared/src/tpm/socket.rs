//! Sockets: connected within a time limit, and written to without a signal.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{SendFlags, SocketAddrAny, SocketFlags, SocketType, connect as connect_socket, send, socket_with};

/// A stream to who listens at this address.
///
/// The time limit is the system's for sending, which holds for connecting, too: who has stopped takes some that connect, and
/// the next one would wait without end. What is left of it stays for sending.
pub(super) fn connect(address: &SocketAddrAny, patience: Duration) -> io::Result<OwnedFd> {
    let socket = socket_with(address.address_family(), SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        set_socket_timeout(&socket, Timeout::Send, Some(left.max(Duration::from_millis(1))))?;
        match connect_socket(&socket, address) {
            Ok(()) => return Ok(socket),
            Err(Errno::INTR) if !left.is_zero() => {}
            // Of a Unix socket; of any other, asked for the first time and again.
            Err(Errno::INTR | Errno::AGAIN | Errno::INPROGRESS | Errno::ALREADY) => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sends all of it. Where nobody listens any more that is an error; a write would raise SIGPIPE, in somebody else's process.
pub(super) fn send_all(socket: impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match send(&socket, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use rustix::net::{AddressFamily, SocketAddrUnix, bind, listen, socket};

    use super::*;

    #[test]
    fn who_does_not_take_connections_is_not_waited_for_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let address = SocketAddrUnix::new(&path).unwrap().into();
        let refused = connect(&address, Duration::from_secs(60)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NotFound);
        let listener = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        bind(&listener, &address).unwrap();
        listen(&listener, 1).unwrap();
        let mut taken = Vec::new();
        let error = loop {
            match connect(&address, Duration::from_millis(20)) {
                Ok(socket) => taken.push(socket),
                Err(error) => break error,
            }
        };
        assert!(!taken.is_empty());
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_stream_of_any_family_carries_what_is_sent() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap().into();
        let socket = connect(&address, Duration::from_secs(60)).unwrap();
        send_all(&socket, b"command").unwrap();
        drop(socket);
        let mut received = Vec::new();
        let _ = io::Read::read_to_end(&mut listener.accept().unwrap().0, &mut received).unwrap();
        assert_eq!(received, b"command");
    }
}
