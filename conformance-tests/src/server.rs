//! Servers (mosquitto, nginx) as child processes on 127.0.0.1, and a word with them.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::program::see_off;

const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);

/// A port of 127.0.0.1 that nobody listens on, nor is about to: each test's process has some of its own, below those that the
/// system gives to clients.
pub fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const EACH: u32 = 40;
    const PROCESSES: u32 = 550;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let place = std::process::id() % PROCESSES * EACH + GIVEN.fetch_add(1, Ordering::Relaxed) % EACH;
        let port = FIRST + u16::try_from(place).expect("there are fewer ports");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Runs a client that sends on what it reads, to a server that sends it back in reverse (`openssl s_server -rev`); what
/// the client printed until it had the answer, or else ended.
pub fn say_hello(client: &mut Command) -> String {
    let mut process = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let process = process.as_mut().expect("the client starts");
    // The client ends with its input, so that is left open until the answer is there.
    let mut input = process.stdin.take().expect("the client has an input");
    let _ = input.write_all(b"hello\n");
    let (mut printed, mut buffer) = (Vec::new(), [0; 4096]);
    let output = process.stdout.as_mut().expect("the client has an output");
    while !String::from_utf8_lossy(&printed).contains("olleh") {
        match output.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(length) => printed.extend_from_slice(&buffer[..length]),
        }
    }
    drop(input);
    let _ = output.read_to_end(&mut printed);
    let _ = process.stderr.as_mut().expect("the client has an error output").read_to_end(&mut printed);
    let _ = process.wait();
    String::from_utf8_lossy(&printed).into_owned()
}

/// A server that is ended, by its process id, when this is dropped.
pub struct Server {
    process: Child,
    output: PathBuf,
}

impl Server {
    /// Starts `command`, which must stay in the foreground, and waits until `port` takes connections. What it prints
    /// goes to the file `output`.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub fn start(command: &mut Command, port: u16, output: &Path) -> Self {
        Self::try_start(command, port, output).unwrap_or_else(|error| panic!("{error}"))
    }

    /// As [`Self::start`], for a server that may well not.
    pub fn try_start(command: &mut Command, port: u16, output: &Path) -> Result<Self, String> {
        let file = std::fs::File::create(output).expect("the server's output has a file");
        let copy = file.try_clone().expect("a file can be shared");
        let process = command.stdin(Stdio::null()).stdout(file).stderr(copy).spawn();
        let mut this = Self { process: process.map_err(|error| error.to_string())?, output: output.to_owned() };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let ended = !matches!(this.process.try_wait(), Ok(None));
            if ended || Instant::now() > deadline {
                return Err(format!("the server does not listen:\n{}", this.output()));
            }
            sleep(PAUSE);
        }
        Ok(this)
    }

    /// What it has printed so far.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// Its process id.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The standard library only knows SIGKILL, which would leave nginx's workers behind.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        see_off(&mut self.process, PATIENCE);
    }
}
