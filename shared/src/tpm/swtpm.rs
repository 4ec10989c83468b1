//! The software TPM swtpm. It serves one connection after the other, so that there is one for each command.
//!
//! libtss2's TCTI for it waits without end: for its control channel, which it has set the locality at each opening, and for
//! each response. We leave that channel alone.

use std::io;
use std::net::ToSocketAddrs as _;
use std::num::NonZeroU16;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::time::Duration;

use rustix::net::{RecvFlags, SocketAddrAny, SocketAddrUnix, recv};

use super::fork::ClosedInChild;
use super::settings;
use super::socket::{connect, send_all};

/// What a TCTI string that does not say it means.
const HOST: &str = "localhost";
const PORT: u16 = 2321;

/// Where it is, and the connection for the command under way.
pub(super) struct SoftwareTpm {
    addresses: Vec<SocketAddrAny>,
    patience: Duration,
    connection: Option<Connection>,
}

struct Connection {
    // A fork waits for a command, but not for a long one.
    _closed_in_child: ClosedInChild,
    socket: OwnedFd,
}

impl SoftwareTpm {
    /// By TCTI strings such as `swtpm:path=/run/tpm/socket` and `swtpm:host=127.0.0.1,port=2321`; `None` for every other TCTI.
    /// It is not asked whether it is there.
    pub(super) fn of(tcti: &str, patience: Duration) -> Option<Self> {
        Some(Self { addresses: addresses(tcti)?, patience, connection: None })
    }

    /// The connection's descriptor, while there is one.
    pub(super) fn descriptor(&self) -> Option<RawFd> {
        self.connection.as_ref().map(|connection| connection.socket.as_raw_fd())
    }

    /// Connects, and sends a command.
    pub(super) fn send(&mut self, command: &[u8]) -> io::Result<()> {
        let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in &self.addresses {
            match connect(address, self.patience) {
                Ok(socket) => {
                    let closed_in_child = ClosedInChild::new(socket.as_raw_fd());
                    let connection = self.connection.insert(Connection { _closed_in_child: closed_in_child, socket });
                    return send_all(&connection.socket, command);
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// As much of the response as has come.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let connection = self.connection.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        Ok(recv(&connection.socket, buffer, RecvFlags::empty())?.0)
    }

    /// Makes room for the next one who connects.
    pub(super) fn disconnect(&mut self) {
        self.connection = None;
    }
}

fn addresses(tcti: &str) -> Option<Vec<SocketAddrAny>> {
    let settings = settings(tcti, "swtpm")?;
    let (mut host, mut port, mut path) = (HOST, PORT, None);
    for setting in settings.split(',').filter(|setting| !setting.is_empty()) {
        match setting.split_once('=')? {
            ("host", value) => host = value,
            ("port", value) => port = value.parse::<NonZeroU16>().ok()?.get(),
            ("path", value) => path = Some(value),
            _ => return None,
        }
    }
    match path {
        Some(path) => Some(vec![SocketAddrUnix::new(path).ok()?.into()]),
        None => {
            Some((host, port).to_socket_addrs().map_or_else(|_| Vec::new(), |found| found.map(Into::into).collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tcti_string_says_which_socket() {
        let unix = |path: &str| SocketAddrAny::from(SocketAddrUnix::new(path).unwrap());
        let internet = |address: &str| SocketAddrAny::from(address.parse::<std::net::SocketAddr>().unwrap());
        assert_eq!(addresses("swtpm:path=/run/x"), Some(vec![unix("/run/x")]));
        assert_eq!(addresses("swtpm:host=127.0.0.1,port=7"), Some(vec![internet("127.0.0.1:7")]));
        assert_eq!(addresses("swtpm:port=7,host=::1"), Some(vec![internet("[::1]:7")]));
        for default in ["swtpm", "swtpm:"] {
            assert!(addresses(default).unwrap().contains(&internet("127.0.0.1:2321")), "{default}");
        }
        // For libtss2 to say what it thinks of them.
        for other in [
            "swtpms",
            "mssim",
            "tabrmd",
            "device:/dev/tpm0",
            "swtpm:port=x",
            "swtpm:port=0",
            "swtpm:what=ever",
            "swtpm:path",
        ] {
            assert_eq!(addresses(other), None, "{other}");
        }
    }
}
