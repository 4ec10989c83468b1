//! The resource manager tpm2-abrmd in front of a device's TPM.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::device::Device;
use crate::program::{Run as _, see_off};

const TCTI: &str = "tabrmd:bus_type=session";

/// tpm2-abrmd on a D-Bus of its own; both end with it.
pub struct ResourceManager {
    bus: PathBuf,
    processes: [Child; 2],
}

impl ResourceManager {
    /// Starts both, and has everything that runs on the device from now on go through them.
    pub fn start(device: &Device) -> Self {
        let socket = device.path("dbus");
        let address = format!("unix:path={}", socket.display());
        let mut bus = device.command("dbus-daemon");
        let bus = start(bus.args(["--session", "--nofork", "--nopidfile", "--address", &address]));
        wait_until("the D-Bus", || socket.exists());
        let mut manager = device.command("tpm2-abrmd");
        manager.args(["--session", "--allow-root", &format!("--tcti={}", device.tcti())]);
        let manager = start(manager.env("DBUS_SESSION_BUS_ADDRESS", &address));
        let this = Self { bus: socket, processes: [manager, bus] };
        device.set_variable("DBUS_SESSION_BUS_ADDRESS", &address);
        device.use_tcti(TCTI);
        wait_until("tpm2-abrmd", || device.command("tpm2_getrandom").args(["-T", TCTI, "4"]).run().succeeded());
        this
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

fn wait_until(what: &str, ready: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !ready() {
        assert!(Instant::now() < deadline, "{what} does not answer");
        sleep(Duration::from_millis(20));
    }
}
