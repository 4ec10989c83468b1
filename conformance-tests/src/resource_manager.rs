//! The resource manager tpm2-abrmd in front of a device's TPM.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::device::Device;
use crate::program::{Run as _, see_off};

const TCTI: &str = "tabrmd:bus_type=session";
/// How long either may take to serve, on a machine with too much to do.
const PATIENCE: Duration = Duration::from_secs(20);

/// tpm2-abrmd on a D-Bus of its own; both end with it.
pub struct ResourceManager {
    bus: PathBuf,
    processes: [Child; 2],
}

impl ResourceManager {
    /// Starts both, and has everything that runs on the device from now on go through them.
    pub fn start(device: &Device) -> Self {
        Self::start_before(device, &device.tcti())
    }

    /// The same before a TPM that is reached by this TCTI string.
    pub fn start_before(device: &Device, tcti: &str) -> Self {
        let socket = device.path("dbus");
        let address = format!("unix:path={}", socket.display());
        let mut bus = device.command("dbus-daemon");
        let bus = start(bus.args(["--session", "--nofork", "--nopidfile", "--address", &address]));
        assert!(comes(PATIENCE, || UnixStream::connect(&socket).is_ok()), "the D-Bus does not answer");
        device.set_variable("DBUS_SESSION_BUS_ADDRESS", &address);
        device.use_tcti(TCTI);
        let manager = (0..3).find_map(|_| {
            let mut manager = device.command("tpm2-abrmd");
            manager.args(["--session", "--allow-root", &format!("--tcti={tcti}")]);
            let mut manager = start(&mut manager);
            let serves = || device.command("tpm2_getrandom").args(["-T", TCTI, "4"]).run().succeeded();
            if comes(PATIENCE, serves) {
                return Some(manager);
            }
            // About one of a thousand neither serves nor ends, in whatever it does before it has a client.
            eprintln!("tpm2-abrmd is started again: {}", threads_of(&manager));
            see_off(&mut manager, Duration::ZERO);
            None
        });
        Self { bus: socket, processes: [manager.expect("tpm2-abrmd answers"), bus] }
    }

    /// Its process id.
    pub fn process_id(&self) -> u32 {
        self.processes[0].id()
    }
}

impl Drop for ResourceManager {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = Command::new("kill").arg(process.id().to_string()).status();
            // One that does not get to its TPM does not end by itself either.
            see_off(process, Duration::from_secs(10));
        }
        let _ = std::fs::remove_file(&self.bus);
    }
}

fn start(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it is installed")
}

/// Whether it is so in time.
fn comes(patience: Duration, is_so: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !is_so() {
        if Instant::now() >= deadline {
            return false;
        }
        sleep(Duration::from_millis(20));
    }
    true
}

/// What each of its threads is called and waits for.
fn threads_of(process: &Child) -> String {
    let threads = std::fs::read_dir(format!("/proc/{}/task", process.id())).into_iter().flatten().flatten();
    let told = threads.map(|thread| {
        let read = |name| std::fs::read_to_string(thread.path().join(name)).unwrap_or_default();
        ["comm", "wchan", "syscall"].map(|name| read(name).trim().to_owned()).join(" ")
    });
    told.collect::<Vec<_>>().join("; ")
}
