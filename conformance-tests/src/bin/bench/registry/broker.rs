//! A mosquitto with or without the plugin.

use std::io::{Error, Result};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use conformance_tests::{Artefact, free_port, memory_of};

use super::fleet::Fleet;

/// A running mosquitto.
pub(crate) struct Broker {
    process: Child,
    pub(crate) port: u16,
}

impl Broker {
    /// One that asks the registry, or one that lets everybody do everything.
    pub(crate) fn start(fleet: &Fleet, with_plugin: bool) -> Result<Self> {
        let (port, folder) = (free_port(), fleet.folder());
        let mut text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nlog_type error\nmax_queued_messages 0\n\
             set_tcp_nodelay true\n"
        );
        if with_plugin {
            let (plugin, acl) = (Artefact::MosquittoPlugin.path(), folder.join("acl"));
            std::fs::write(&acl, "topic read #\ntopic write /others/#\n")?;
            let (plugin, store, acl) = (plugin.display(), fleet.url(), acl.display());
            text.push_str(&format!("plugin {plugin}\nplugin_opt_store {store}\nacl_file {acl}\n"));
        }
        let file = folder.join(format!("mosquitto-{port}.conf"));
        std::fs::write(&file, text)?;
        // A processor of its own, where there are two: who is woken by its answers must not take its place.
        let mut command = Command::new("taskset");
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin")).args(["-c", "0", "mosquitto", "-c"]).arg(file);
        let mut this = Self { process: command.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?, port };
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > deadline || !matches!(this.process.try_wait(), Ok(None)) {
                return Err(Error::other("mosquitto does not listen"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        this.settle();
        Ok(this)
    }

    /// Processor time of all its threads so far, those that have ended included.
    pub(crate) fn processor(&self) -> Result<Duration> {
        let process = self.process.id().try_into().map_err(Error::other)?;
        let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
        // SAFETY: both are given a place for their result.
        let code = unsafe {
            match libc::clock_getcpuclockid(process, &mut clock) {
                0 if libc::clock_gettime(clock, &mut time) != 0 => return Err(Error::last_os_error()),
                code => code,
            }
        };
        if code != 0 {
            return Err(Error::from_raw_os_error(code));
        }
        Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
    }

    /// Resident memory in bytes.
    pub(crate) fn memory(&self) -> Result<usize> {
        memory_of(self.process.id())
    }

    /// Gives its threads time to write what they have gathered.
    pub(crate) fn settle(&self) {
        std::thread::sleep(Duration::from_millis(600));
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
