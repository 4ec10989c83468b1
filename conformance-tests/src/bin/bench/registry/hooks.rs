//! `keyrivet-server serve`, and clients that ask its hooks as EMQX does, each over a connection that stays.

use std::io::{BufRead as _, BufReader, Error, Read as _, Result, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use conformance_tests::{Artefact, Server, free_port};

use super::fleet::Fleet;

/// Connections that a broker asks over at the same time.
const CLIENTS: usize = 8;
/// Devices that are asked about in turn, so that small and large fleets are as well remembered.
const ASKED_ABOUT: usize = 1000;

/// A running server.
pub(crate) struct HookServer<'a> {
    fleet: &'a Fleet,
    port: u16,
    _process: Server,
}

/// What a broker asks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    /// Whether a device is let in, by a token of this algorithm.
    Connect(&'static str),
    /// Whether it may publish.
    Publish,
}

impl<'a> HookServer<'a> {
    pub(crate) fn start(fleet: &'a Fleet) -> std::result::Result<Self, String> {
        let (bridge, port) = (free_port(), free_port());
        let mut command = Command::new(Artefact::Server.path());
        command.env("KEYRIVET_REGISTRY_STORE", fleet.url()).args(["serve", "--listen"]);
        command.arg(format!("127.0.0.1:{bridge}")).arg("--hooks").arg(format!("127.0.0.1:{port}"));
        let log = fleet.folder().join(format!("server-{port}.log"));
        let this =
            Server::try_start(&mut command, port, &log).map(|process| Self { fleet, port, _process: process })?;
        // Who has not connected may not publish.
        let requests = this.requests(Question::Connect("ES256"));
        one_client(port, requests.iter()).map(|_| this).map_err(|error| error.to_string())
    }

    /// Answers per second.
    pub(crate) fn ask(&self, question: Question, time: Duration) -> Result<f64> {
        let requests = self.requests(question);
        let start = Instant::now();
        let counts = std::thread::scope(|scope| {
            let (port, requests) = (self.port, &requests);
            let turns = |first| {
                requests.iter().cycle().skip(first).step_by(CLIENTS).take_while(move |_| start.elapsed() < time)
            };
            let client = |first| scope.spawn(move || one_client(port, turns(first)));
            let clients: Vec<_> = (0..CLIENTS).map(client).collect();
            let joined = clients.into_iter().map(|client| client.join().expect("clients do not panic"));
            joined.sum::<Result<usize>>()
        });
        Ok(counts? as f64 / start.elapsed().as_secs_f64())
    }

    /// Spread over all devices, however many there are.
    fn requests(&self, question: Question) -> Vec<String> {
        let devices = ASKED_ABOUT.min(self.fleet.devices);
        let stride = self.fleet.devices / devices;
        (0..devices).map(|index| self.request(question, index * stride)).collect()
    }

    fn request(&self, question: Question, index: usize) -> String {
        let (id, topic) = (self.fleet.client_id(index), self.fleet.events(index));
        let (path, body) = match question {
            Question::Connect(algorithm) => {
                ("authn", serde_json::json!({ "clientid": id, "password": self.fleet.token(algorithm) }))
            }
            Question::Publish => {
                ("authz", serde_json::json!({ "clientid": id, "action": "publish", "topic": topic, "qos": 1 }))
            }
        };
        let body = body.to_string();
        format!(
            "POST /hooks/emqx/{path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n\
             {body}",
            body.len()
        )
    }
}

/// Asks all that; how many answers said yes, and an error if any did not.
fn one_client<'a>(port: u16, requests: impl Iterator<Item = &'a String>) -> Result<usize> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut count, mut line) = (0, String::new());
    for request in requests {
        stream.write_all(request.as_bytes())?;
        let mut length = 0;
        loop {
            line.clear();
            let _ = reader.read_line(&mut line)?;
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().map_err(Error::other)?;
            }
            if line == "\r\n" || line.is_empty() {
                break;
            }
        }
        let mut answer = vec![0; length];
        reader.read_exact(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        if !answer.contains(r#""result":"allow""#) {
            return Err(Error::other(format!("a hook says {answer:?}")));
        }
        count += 1;
    }
    Ok(count)
}
