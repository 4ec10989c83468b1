//! A software TPM (swtpm) as a child process on a Unix socket.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::program::see_off;
use crate::tpm_log::{Exchange, exchanges};

const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);
/// `sun_path` of unix(7), its final NUL included.
const LONGEST_SOCKET_PATH: usize = 108;

/// TPM2_Shutdown(TPM_SU_CLEAR); TPM 2.0 Part 3, 9.4.
const SHUTDOWN: [u8; 12] = [0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x45, 0, 0];
/// CMD_SHUTDOWN of swtpm's control channel (swtpm_ioctls(3)): the process ends by itself.
const END: [u8; 4] = [0, 0, 0, 3];

/// A running software TPM.
pub(crate) struct SoftwareTpm {
    process: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl SoftwareTpm {
    /// Starts one whose state is in `state` and whose data socket is `socket`; its log is continued, unless it is told
    /// to keep `quiet`.
    pub(crate) fn start(state: &Path, socket: &Path, log: &Path, quiet: bool) -> Self {
        let control = control_socket(socket);
        assert!(
            control.as_os_str().len() < LONGEST_SOCKET_PATH,
            "{} is too long for a Unix socket: choose a shorter TMPDIR",
            control.display()
        );
        std::fs::create_dir_all(state).expect("the TPM's state has a folder");
        let process = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .arg("--tpmstate")
            .arg(format!("dir={}", state.display()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", socket.display()))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}", control.display()))
            .arg("--log")
            .arg(format!("file={},level={}", log.display(), if quiet { 0 } else { 20 }))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("swtpm starts (Debian: apt-get install swtpm)");
        let mut this = Self { process, socket: socket.to_owned(), log: log.to_owned() };
        this.wait_for_answer();
        this
    }

    /// Its process id.
    pub(crate) fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Everything it was asked and answered from the byte `from` of its log on.
    pub(crate) fn exchanges(log: &Path, from: u64) -> Vec<Exchange> {
        let bytes = std::fs::read(log).unwrap_or_default();
        exchanges(&String::from_utf8_lossy(&bytes[usize::try_from(from).expect("a log fits in memory")..]))
    }

    /// Ends it as a machine that is switched off in good order: without TPM2_Shutdown it would count a used PIN as an
    /// attack at its next start.
    pub(crate) fn stop(mut self) {
        self.end();
    }

    /// Ends it as a machine whose plug is pulled.
    pub(crate) fn cut_power(mut self) {
        self.process.kill().expect("swtpm is running");
        self.process.wait().expect("swtpm is our child");
        self.remove_sockets();
    }

    fn wait_for_answer(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(&self.socket).is_err() {
            if let Ok(Some(status)) = self.process.try_wait() {
                panic!("swtpm ended at once ({status}); its log: {}", self.log.display());
            }
            assert!(Instant::now() < deadline, "swtpm does not answer at {}", self.socket.display());
            sleep(PAUSE);
        }
    }

    fn end(&mut self) {
        // A TPM that is gone already needs no farewell, and whatever went wrong here is ended by force below.
        let _ = ask(&self.socket, &SHUTDOWN);
        let _ = ask(&control_socket(&self.socket), &END);
        see_off(&mut self.process, PATIENCE);
        self.remove_sockets();
    }

    fn remove_sockets(&self) {
        for socket in [self.socket.clone(), control_socket(&self.socket)] {
            let _ = std::fs::remove_file(socket);
        }
    }
}

impl Drop for SoftwareTpm {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            self.end();
        }
    }
}

/// Where libtss2's swtpm TCTI expects the control channel.
fn control_socket(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".ctrl");
    path.into()
}

fn ask(socket: &Path, request: &[u8]) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    stream.read(&mut [0; 64]).map(|_| ())
}
