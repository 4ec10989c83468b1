//! A wire between Keyrivet and the software TPM on which a test does harm: threads that pass commands on, or do not.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::tpm_log::command_code;

/// What becomes of a command.
#[derive(Clone, Debug)]
pub enum Harm {
    /// None: it is passed on.
    None,
    /// The TPM never sees it; this response code comes back.
    Answer(u32),
    /// The TPM never sees it, and nothing comes back; over a socket, its end.
    Silence,
    /// The TPM is busy for so long, and does it then.
    Late(Duration),
    /// The TPM does it; these bytes come back.
    Bytes(Vec<u8>),
    /// The TPM does it; so many bytes of its response come back, with its header telling the whole length.
    Cut(usize),
    /// The TPM does it; its response comes back with one byte changed, counted from the end.
    Changed(usize),
    /// The TPM does what the first makes of it; what the second makes of its response comes back.
    Through(fn(&[u8]) -> Vec<u8>, fn(&[u8]) -> Vec<u8>),
}

/// The wire.
pub struct Wire {
    tcti: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// A command by its name, or any; how often; what becomes of it.
    harms: Mutex<Vec<(Option<u32>, usize, Harm)>>,
    /// How many more times as long as the TPM takes for a command it takes over this wire.
    delay: AtomicU32,
    /// The least that commands took, by their code and their response's length.
    least: Mutex<HashMap<([u8; 4], usize), Duration>>,
    harmed: AtomicU32,
}

impl Wire {
    /// A wire to the TPM at this socket, that ends in a socket of the same kind. It lives as long as the test's process.
    ///
    /// One connects for each command, so no harm lasts longer than that.
    pub(crate) fn to(socket: &Path, end: &Path) -> Self {
        let control = |socket: &Path| PathBuf::from(format!("{}.ctrl", socket.display()));
        let state = Arc::<State>::default();
        let shared = state.clone();
        listen(end, socket.to_owned(), move |mut client, socket| {
            let Some(command) = message(&mut client) else { return };
            if let Some(response) = shared.carry(&command, socket) {
                let _ = client.write_all(&response);
            }
        });
        listen(&control(end), control(socket), |mut client, socket| {
            let Ok(mut tpm) = UnixStream::connect(socket) else { return };
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = client.read(&mut buffer) {
                let sent = tpm.write_all(&buffer[..length]).and_then(|()| tpm.read(&mut buffer));
                if !sent.is_ok_and(|length| client.write_all(&buffer[..length]).is_ok()) {
                    break;
                }
            }
        });
        Self { tcti: format!("swtpm:path={}", end.display()), state }
    }

    /// A wire that ends in what passes for a TPM device. It lives as long as the test's process.
    pub(crate) fn as_device(socket: &Path) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("the system has pseudo terminals");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("a new terminal can be opened");
        let name = ptsname(&master, Vec::new()).expect("a terminal has a name");
        let terminal = name.into_string().expect("terminals have plain names");
        // Kept open, so that the terminal does not hang up when a client leaves.
        let ours = File::options().read(true).write(true).open(&terminal).expect("the terminal opens");
        let mut settings = tcgetattr(&ours).expect("a terminal has settings");
        settings.make_raw();
        tcsetattr(&ours, OptionalActions::Now, &settings).expect("a terminal can be raw");
        let state = Arc::<State>::default();
        let (socket, shared, mut wire) = (socket.to_owned(), state.clone(), File::from(master));
        std::thread::spawn(move || {
            let _open = ours;
            while let Some(command) = message(&mut wire) {
                if let Some(response) = shared.carry(&command, &socket) {
                    let _ = wire.write_all(&response);
                }
            }
        });
        Self { tcti: format!("device:{terminal}"), state }
    }

    /// The TCTI string by which the TPM is reached over this wire.
    pub fn tcti(&self) -> &str {
        &self.tcti
    }

    /// Does harm to the next commands of this name (`*` is any), so often.
    pub fn harm(&self, command: &str, times: usize, harm: Harm) {
        let command = (command != "*").then(|| command_code(command));
        self.state.harms().push((command, times, harm));
    }

    /// Does no more harm.
    pub fn heal(&self) {
        self.state.harms().clear();
        self.state.harmed.store(0, Ordering::Relaxed);
    }

    /// How many commands something became of since it was made or healed.
    pub fn harmed(&self) -> u32 {
        self.state.harmed.load(Ordering::Relaxed)
    }

    /// Has each command take so many times as long as the TPM takes.
    pub fn slow_down(&self, times: u32) {
        self.state.delay.store(times.saturating_sub(1), Ordering::Relaxed);
    }
}

/// Serves whoever connects to a socket, one after another.
fn listen(end: &Path, socket: PathBuf, serve: impl Fn(UnixStream, &Path) + Send + Sync + 'static) {
    let listener = UnixListener::bind(end).expect("the wire's end is new");
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (serve, socket) = (serve.clone(), socket.clone());
            std::thread::spawn(move || serve(client, &socket));
        }
    });
}

impl State {
    fn harms(&self) -> MutexGuard<'_, Vec<(Option<u32>, usize, Harm)>> {
        self.harms.lock().expect("no thread panics here")
    }

    /// Passes a command on, or does harm to it; `None` if nothing comes back.
    fn carry(&self, command: &[u8], socket: &Path) -> Option<Vec<u8>> {
        let start = Instant::now();
        let response = answer(command, self.next_harm(command), socket);
        std::thread::sleep(
            self.pace(command, response.as_deref(), start.elapsed()) * self.delay.load(Ordering::Relaxed),
        );
        response
    }

    /// What such a command takes where nothing else is to be done: a slow TPM does not wait for this machine's processors.
    fn pace(&self, command: &[u8], response: Option<&[u8]>, taken: Duration) -> Duration {
        let code = command[6..10].try_into().expect("four bytes");
        let mut paces = self.least.lock().expect("no thread panics here");
        let least = paces.entry((code, response.map_or(0, <[u8]>::len))).or_insert(taken);
        *least = taken.min(*least);
        *least
    }

    fn next_harm(&self, command: &[u8]) -> Option<Harm> {
        let code = u32::from_be_bytes(command[6..10].try_into().expect("four bytes"));
        let mut harms = self.harms();
        let place = harms.iter().position(|(command, _, _)| command.is_none_or(|command| command == code))?;
        self.harmed.fetch_add(1, Ordering::Relaxed);
        let (_, times, harm) = &mut harms[place];
        *times -= 1;
        let (over, harm) = (*times == 0, harm.clone());
        if over {
            harms.remove(place);
        }
        Some(harm)
    }
}

fn answer(command: &[u8], harm: Option<Harm>, socket: &Path) -> Option<Vec<u8>> {
    let ask = |command: &[u8]| {
        let mut tpm = UnixStream::connect(socket).ok()?;
        tpm.write_all(command).ok()?;
        message(&mut tpm)
    };
    let from_tpm = || ask(command);
    match harm {
        None | Some(Harm::None) => from_tpm(),
        Some(Harm::Silence) => None,
        Some(Harm::Late(time)) => {
            std::thread::sleep(time);
            from_tpm()
        }
        Some(Harm::Answer(code)) => Some([&[0x80, 0x01, 0, 0, 0, 10], &code.to_be_bytes()[..]].concat()),
        Some(Harm::Bytes(bytes)) => from_tpm().map(|_| bytes),
        Some(Harm::Cut(length)) => from_tpm().map(|response| response[..length.min(response.len())].to_vec()),
        Some(Harm::Through(command_of, response_of)) => {
            ask(&command_of(command)).map(|response| response_of(&response))
        }
        Some(Harm::Changed(place)) => from_tpm().map(|mut response| {
            let index = response.len().saturating_sub(1 + place);
            response[index] ^= 1;
            response
        }),
    }
}

/// A whole command or response: its header tells its length.
fn message(stream: &mut impl Read) -> Option<Vec<u8>> {
    let mut message = vec![0; 10];
    stream.read_exact(&mut message).ok()?;
    let length = u32::from_be_bytes(message[2..6].try_into().ok()?) as usize;
    message.resize(length.max(10), 0);
    stream.read_exact(&mut message[10..]).ok()?;
    Some(message)
}
