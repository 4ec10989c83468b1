//! TLS 1.3 handshakes by nginx, whose key is in the TPM. Where the TPM is the bottleneck, the limit is what it signs: over a
//! resource manager by one that is not as quick as software, and RSA-2048 by a quick one, too. A TPM without resource manager
//! waits for the worker whose turn it is, which has half a millisecond of its own to do for each handshake: little of what an
//! RSA-2048 signature takes on a slow one, but a tenth of a P-256 signature there.

use std::cell::RefCell;

use conformance_tests::{Device, Hold, Run as _, Server, free_port};

use super::Bench;
use crate::contestants::{Contestant, KEYS, Route};
use crate::measure::{Lane, Threads, Worker, interleave};
use crate::report::{Better, Report, Row};

use Contestant::{Limit, Provider, Token, TokenWithPin, Tpm2Openssl};

const SERVERS: [Contestant; 4] = [TokenWithPin, Token, Provider, Tpm2Openssl];
/// Clients that connect at the same time.
const CLIENTS: u32 = 4;
/// So many handshakes by each are counted.
const COUNTED: u32 = 10;

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    for (key, algorithm) in KEYS {
        for route in [Route::Direct, Route::ResourceManager, Route::Slow, Route::SlowResourceManager] {
            let name = format!("TLS 1.3 by nginx, {algorithm}{}, against raw signatures", route.title());
            handshakes(bench, report, &name, key, route);
        }
    }
}

fn handshakes(bench: &Bench, report: &mut Report, name: &str, key: &str, route: Route) {
    bench.arena.count(Hold::Default);
    let managers = bench.arena.open(route);
    let commands = SERVERS.map(|who| (who, count(bench, who, key, route)));
    drop(managers);
    bench.arena.time();
    let _managers = bench.arena.open(route);
    let mut row = Row::new(name, "handshakes/s", Better::Higher);
    let raw = Worker::start(|| bench.arena.signer(Limit, key, route, 1, false)).map(RefCell::new);
    let sites = SERVERS.map(|who| (who, Site::start(bench, who, key, route)));
    let clients = sites.each_ref().map(|(who, site)| {
        let client = site.as_ref().map_err(Clone::clone).and_then(|site| site.client(bench, *who));
        (*who, client.map(RefCell::new))
    });
    let mut lanes = Vec::new();
    for (who, worker, count) in [(Limit, &raw, 1)].into_iter().chain(clients.iter().map(|(who, c)| (*who, c, CLIENTS)))
    {
        match worker {
            Ok(worker) => lanes.push((who, Threads { worker, count })),
            Err(error) => row.measured(who, Err(error.clone()), None),
        }
    }
    let mut running: Vec<&mut dyn Lane> = lanes.iter_mut().map(|(_, lane)| lane as &mut dyn Lane).collect();
    let slices = interleave(&mut running, bench.rounds(16), bench.slice() * 2);
    let measured: Vec<_> =
        lanes.iter().zip(&slices).map(|((who, _), slices)| (*who, slices.series(|slice| slice.value))).collect();
    if route == Route::SlowResourceManager || (key == "rsa" && route != Route::Direct) {
        let find = |who| measured.iter().find(|(other, _)| *other == who).and_then(|(_, series)| series.as_ref().ok());
        for who in Contestant::OURS {
            // A resource manager swaps a session, too, around each command: six commands against the limit's four, and the
            // signature by P-256 is not the longest of them.
            if who == TokenWithPin && key == "ec" {
                continue;
            }
            let ratio = find(who).zip(find(Limit)).map_or(f64::NAN, |(series, limit)| series.ratio_to(limit));
            report.goal(format!("{name}: {}", who.title()), ratio, Better::Higher, 0.9);
        }
    }
    for (who, series) in measured {
        let counted = commands.iter().find(|(other, _)| *other == who).and_then(|(_, count)| count.clone().ok());
        row.measured(who, series, counted);
    }
    report.row(row);
}

/// TPM commands per handshake, each a burst's.
fn count(bench: &Bench, who: Contestant, key: &str, route: Route) -> Result<f64, String> {
    let site = Site::start(bench, who, key, route)?;
    let mut client = site.client(bench, who)?;
    client.ask("warm")?;
    bench.arena.device(who).mark();
    client.ask(&format!("sign {COUNTED} {CLIENTS}"))?;
    Ok(bench.arena.device(who).commands().len() as f64 / f64::from(COUNTED * CLIENTS))
}

/// nginx with two workers.
struct Site {
    port: u16,
    _server: Server,
}

impl Site {
    fn start(bench: &Bench, who: Contestant, key: &str, route: Route) -> Result<Self, String> {
        let (device, port) = (bench.arena.device(who), free_port());
        let name = format!("{}-{key}", who.title().replace([',', ' '], ""));
        let file = match who {
            Provider | Tpm2Openssl => format!("{key}.pem"),
            _ => {
                let file = format!("{name}.pem");
                device.wrap_uri(&bench.arena.uri(who, key), &file);
                file
            }
        };
        let mut certify = bench.arena.command(who, route, "openssl");
        certify.args(["req", "-x509", "-days", "2", "-subj", "/CN=localhost", "-key", &file, "-out"]);
        let certified = certify.arg(format!("{name}.crt")).run();
        if !certified.succeeded() {
            return Err(certified.stderr());
        }
        write_configuration(device, &name, &file, port);
        let mut command = bench.arena.command(who, route, "nginx");
        command.arg("-p").arg(device.folder()).args(["-e", "stderr", "-c", &format!("{name}.conf")]);
        let server = Server::try_start(&mut command, port, &device.path(&format!("{name}.log")))?;
        Ok(Self { port, _server: server })
    }

    fn client<'a>(&self, bench: &'a Bench, who: Contestant) -> Result<Worker<'a>, String> {
        let port = self.port.to_string();
        Worker::start(move || {
            let mut command = bench.arena.worker(who, Route::Direct, &["handshakes", &port]);
            // The client's OpenSSL knows nothing of providers.
            command.env_remove("OPENSSL_CONF");
            command
        })
    }
}

fn write_configuration(device: &Device, name: &str, key: &str, port: u16) {
    let folder = device.folder().display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary = temporary.map(|kind| format!("{kind}_temp_path {folder}/nginx-{kind};\n")).concat();
    // nginx takes every other variable away from its workers.
    let variables = [
        "OPENSSL_CONF",
        "OPENSSL_MODULES",
        "KEYRIVET_TCTI",
        "KEYRIVET_STORE",
        "KEYRIVET_CONFIG",
        "DBUS_SESSION_BUS_ADDRESS",
        "TPM2OPENSSL_TCTI",
    ];
    let variables = variables.map(|variable| format!("env {variable};\n")).concat();
    device.write(
        &format!("{name}.conf"),
        format!(
            "daemon off;\npid {folder}/{name}.pid;\nerror_log stderr;\nuser root;\nworker_processes 2;\n{variables}\
             events {{}}\nhttp {{\naccess_log off;\n{temporary}server {{\nlisten 127.0.0.1:{port} ssl;\n\
             ssl_certificate {folder}/{name}.crt;\nssl_certificate_key {folder}/{key};\nssl_protocols TLSv1.3;\n\
             ssl_session_tickets off;\nssl_session_cache off;\nlocation / {{ return 200 hello; }}\n}}\n}}\n"
        ),
    );
}
