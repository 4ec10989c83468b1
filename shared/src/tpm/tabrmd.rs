//! The resource manager tpm2-abrmd: asks it, over D-Bus, for a socket of our own, on which commands and responses go.
//!
//! libtss2's TCTI for it lives on GLib, whose threads a forked child does not have: no child of a process that has used it
//! ever gets an answer. Here is the little of D-Bus that takes no threads: one method call, whose reply carries the socket.

use std::io::{IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::io::retry_on_intr;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::dbus::{self, Call, Message};
use super::fork::Exchange;
use super::settings;
use super::socket::{connect, send_all};
use crate::config::Config;
use crate::environment::variable;

const NAME: &str = "com.intel.tss2.Tabrmd";
const PATH: &str = "/com/intel/tss2/Tabrmd/Tcti";
const INTERFACE: &str = "com.intel.tss2.TctiTabrmd";
const SYSTEM_BUS: &str = "unix:path=/run/dbus/system_bus_socket";
/// Longest wait for one answer on the bus; GLib's too.
const PATIENCE: Duration = Duration::from_secs(25);
/// What the manager says when it has as many connections as it takes.
const TRY_AGAIN: &str = "ry again later";
const PAUSE: Duration = Duration::from_millis(5);

/// Where the manager is: by TCTI strings such as `tabrmd` and `tabrmd:bus_type=session,bus_name=...`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Manager {
    name: String,
    address: String,
}

impl Manager {
    /// `None` for every other TCTI, and for a bus that is not behind a Unix socket.
    pub(super) fn of(tcti: &str) -> Option<Self> {
        Self::with(tcti, variable)
    }

    fn with(tcti: &str, variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let settings = settings(tcti, "tabrmd")?;
        let (mut name, mut session) = (NAME, false);
        for setting in settings.split(',').filter(|setting| !setting.is_empty()) {
            match setting.split_once('=')? {
                ("bus_name", value) => name = value,
                ("bus_type", "session") => session = true,
                ("bus_type", "system") => session = false,
                _ => return None,
            }
        }
        let address = match session {
            false => variable("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_else(|| SYSTEM_BUS.into()),
            true => variable("DBUS_SESSION_BUS_ADDRESS")
                .or_else(|| Some(format!("unix:path={}/bus", variable("XDG_RUNTIME_DIR")?)))?,
        };
        dbus::socket_addresses(&address).next()?;
        Some(Self { name: name.into(), address })
    }

    /// A connection to the TPM. While the manager has too many, waits for others to end.
    ///
    /// With the exchange it was made in: a child that is forked after that must know what to close.
    pub(super) fn connect(&self, config: &Config) -> Result<(UnixStream, Exchange), String> {
        let deadline = Instant::now() + config.patience;
        loop {
            match self.try_connect() {
                Err(error) if error.contains(TRY_AGAIN) && Instant::now() < deadline => std::thread::sleep(PAUSE),
                other => return other,
            }
        }
    }

    fn try_connect(&self) -> Result<(UnixStream, Exchange), String> {
        let exchange = Exchange::begin();
        let mut bus = Bus::open(&self.address)?;
        let mut hello = Call::new("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello");
        bus.call(&mut hello, 1)?;
        let mut create = Call::new(&self.name, PATH, INTERFACE, "CreateConnection");
        let socket = bus.call(&mut create, 2)?.into_iter().next();
        let socket = socket.map(UnixStream::from).ok_or("tpm2-abrmd's reply carries no socket")?;
        // The manager makes both ends for its own way of waiting.
        socket.set_nonblocking(false).map_err(|error| error.to_string())?;
        Ok((socket, exchange))
    }
}

/// A connection to a bus, for as long as a call takes.
struct Bus {
    socket: UnixStream,
    /// What was received and not used yet.
    received: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Bus {
    fn open(address: &str) -> Result<Self, String> {
        let mut error = None;
        let socket = dbus::socket_addresses(address)
            .find_map(|address| connect(&address.into(), PATIENCE).map_err(|failed| error = Some(failed)).ok());
        let failed = |error: std::io::Error| format!("D-Bus at {address}: {error}");
        let socket = socket.ok_or_else(|| error.map_or_else(|| format!("no D-Bus at {address}"), failed))?;
        let socket = UnixStream::from(socket);
        socket
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| socket.set_write_timeout(Some(PATIENCE)))
            .map_err(failed)?;
        let mut this = Self { socket, received: Vec::new(), descriptors: Vec::new() };
        this.introduce().map_err(failed)?;
        Ok(this)
    }

    /// Says who we are (D-Bus specification, "Authentication Protocol"); the socket vouches for us.
    fn introduce(&mut self) -> std::io::Result<()> {
        let user = crate::hex::encode(rustix::process::geteuid().as_raw().to_string().as_bytes());
        for (line, answer) in [(format!("\0AUTH EXTERNAL {user}\r\n"), "OK"), ("NEGOTIATE_UNIX_FD\r\n".into(), "AGREE")]
        {
            send_all(&self.socket, line.as_bytes())?;
            let mut said = Vec::new();
            while !said.ends_with(b"\r\n") && said.len() < 1000 {
                let mut byte = [0];
                self.socket.read_exact(&mut byte)?;
                said.push(byte[0]);
            }
            if !said.starts_with(answer.as_bytes()) {
                return Err(std::io::Error::other(String::from_utf8_lossy(&said).trim().to_owned()));
            }
        }
        send_all(&self.socket, b"BEGIN\r\n")
    }

    /// Calls a method; the descriptors that its reply carries.
    fn call(&mut self, call: &mut Call, serial: u32) -> Result<Vec<OwnedFd>, String> {
        let failed = |error: std::io::Error| format!("D-Bus: {error}");
        send_all(&self.socket, &call.message(serial)).map_err(failed)?;
        loop {
            let message = self.message().map_err(failed)?;
            let descriptors = self.descriptors.drain(..message.descriptors.min(self.descriptors.len())).collect();
            match message {
                Message { reply_to: Some(to), error: None, .. } if to == serial => return Ok(descriptors),
                Message { reply_to: Some(to), error: Some(error), .. } if to == serial => return Err(error),
                // A signal, such as that we have a name now.
                _ => {}
            }
        }
    }

    fn message(&mut self) -> std::io::Result<Message> {
        loop {
            match dbus::parse(&self.received) {
                Some((message, length)) => {
                    self.received.drain(..length);
                    return Ok(message);
                }
                None if self.received.len() > dbus::LONGEST => {
                    return Err(std::io::Error::other("what came is no message"));
                }
                None => self.receive()?,
            }
        }
    }

    fn receive(&mut self) -> std::io::Result<()> {
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received =
            retry_on_intr(|| recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags))?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        if received.bytes == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.received.extend_from_slice(&bytes[..received.bytes]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(tcti: &str) -> Option<(String, String)> {
        let variable = |name: &str| match name {
            "DBUS_SESSION_BUS_ADDRESS" => Some("unix:abstract=/tmp/x,guid=1".to_owned()),
            _ => None,
        };
        Manager::with(tcti, variable).map(|manager| (manager.name, manager.address))
    }

    #[test]
    fn the_tcti_string_says_which_manager_on_which_bus() {
        let (system, session) = (SYSTEM_BUS.to_owned(), "unix:abstract=/tmp/x,guid=1".to_owned());
        assert_eq!(manager("tabrmd"), Some((NAME.into(), system.clone())));
        assert_eq!(manager("tabrmd:"), Some((NAME.into(), system.clone())));
        assert_eq!(manager("tabrmd:bus_type=session"), Some((NAME.into(), session)));
        assert_eq!(manager("tabrmd:bus_name=com.x,bus_type=system"), Some(("com.x".into(), system)));
        for other in ["tabrmdx", "device:/dev/tpmrm0", "tabrmd:bus_type=none", "tabrmd:what=ever", "swtpm:path=/x"] {
            assert_eq!(manager(other), None, "{other}");
        }
        let tcp = |name: &str| (name == "DBUS_SYSTEM_BUS_ADDRESS").then(|| "tcp:host=localhost,port=1".to_owned());
        assert_eq!(Manager::with("tabrmd", tcp), None);
    }
}
