//! `openssl s_server` with its key in the TPM: a process that lives on, and uses the key at each handshake.

#![allow(dead_code, reason = "each test file uses a part of it")]

use conformance_tests::{Device, Output, Run as _, Server, free_port};

pub(crate) struct TlsServer<'a> {
    device: &'a Device,
    port: String,
    process: Server,
}

impl<'a> TlsServer<'a> {
    /// Its key is in `server.pem`, which is made where there is none.
    pub(crate) fn of_key_file(device: &'a Device) -> Self {
        if !device.path("server.pem").exists() {
            device.new_key_file(["EC", "group:P-256"], "server.pem");
        }
        Self::start(device, "server.pem")
    }

    /// Its key is the one that `key` names, a file or a URI.
    pub(crate) fn start(device: &'a Device, key: &str) -> Self {
        if !device.path("server.crt").exists() {
            let own = ["req", "-x509", "-key", key, "-subj", "/CN=localhost", "-out", "server.crt"];
            let _ = device.openssl(&own).ok();
        }
        let port = free_port();
        let mut command = device.command("openssl");
        command.env("OPENSSL_CONF", device.openssl_conf());
        command.args(["s_server", "-accept", &port.to_string(), "-cert", "server.crt", "-key", key, "-www"]);
        let process = Server::start(&mut command, port, &device.path("server.log"));
        Self { device, port: port.to_string(), process }
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.process.process_id()
    }

    pub(crate) fn handshake(&self) -> Output {
        let url = format!("https://localhost:{}/", self.port);
        let mut client = self.device.command("curl");
        // It is not under test, and stands still at its start with the runtime of AddressSanitizer.
        client.env_remove("LD_PRELOAD").args(["-sS", "--max-time", "60", "--cacert", "server.crt", &url]).run()
    }
}
