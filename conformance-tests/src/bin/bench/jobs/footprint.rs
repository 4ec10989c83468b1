//! Size of the libraries, what they link, and the memory of programs that use them.

use std::path::{Path, PathBuf};
use std::process::Command;

use conformance_tests::{Artefact, Run as _};

use super::Bench;
use super::cold::token_tool;
use crate::contestants::{Contestant, Route};
use crate::report::{Report, Row};

use Contestant::{Limit, Provider, Token, TokenWithPin, Tpm2Openssl, Tpm2Pkcs11};

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    bench.arena.time();
    libraries(bench, report);
    memory(bench, report);
}

fn libraries(bench: &Bench, report: &mut Report) {
    let mut size = Row::informative("the library's file", "KiB");
    let mut linked = Row::informative("libraries that it brings into a process", "files");
    let files: [(Contestant, PathBuf); 4] = [
        (Token, Artefact::Module.path()),
        (Provider, Artefact::Provider.path()),
        (Tpm2Pkcs11, bench.arena.token(Tpm2Pkcs11).0.into()),
        (Tpm2Openssl, bench.arena.provider_peer.path("modules/tpm2.so")),
    ];
    for (who, file) in &files {
        let bytes = std::fs::metadata(file).map(|data| data.len() as f64 / 1024.0).map_err(|error| error.to_string());
        size.exact(*who, bytes.map(f64::round));
        linked.exact(*who, count_linked(file));
        report.notes.push(format!("{} needs {}", who.title(), needed(file).join(", ")));
    }
    report.row(size);
    report.row(linked);
}

/// The libraries that a library names itself.
fn needed(file: &Path) -> Vec<String> {
    let output = Command::new("readelf").arg("-dW").arg(file).run().stdout();
    let lines = output.lines().filter(|line| line.contains("(NEEDED)"));
    lines.filter_map(|line| Some(line.split(['[', ']']).nth(1)?.to_owned())).collect()
}

/// All libraries that the dynamic linker loads with it, the C library and the linker among them.
fn count_linked(file: &Path) -> Result<f64, String> {
    let output = Command::new("ldd").arg(file).run();
    if output.succeeded() { Ok(output.stdout().lines().count() as f64) } else { Err(output.stderr()) }
}

fn memory(bench: &Bench, report: &mut Report) {
    let mut row = Row::informative("peak memory of pkcs11-tool --sign, against --list-slots", "KiB");
    let sign = ["--sign", "--id", "01", "--mechanism", "ECDSA", "-i", "digest"];
    for who in Contestant::MODULES {
        row.exact(who, peak(token_tool(bench, who, &sign)));
    }
    row.exact(Limit, peak(bench.arena.tool(Token, &["--list-slots"])));
    report.row(row);
    let mut row = Row::informative("peak memory of openssl dgst -sign, against software", "KiB");
    let sign = |mut command: Command, key: &str| {
        command.args(["dgst", "-sha256", "-out", "signature", "-sign", key, "data"]);
        peak(command)
    };
    row.exact(Limit, sign(bench.arena.ours.command("openssl"), "software-ec.pem"));
    for who in [Provider, Tpm2Openssl] {
        row.exact(who, sign(bench.arena.command(who, Route::Direct, "openssl"), "ec.pem"));
    }
    let uri = bench.arena.uri(TokenWithPin, "ec");
    row.exact(TokenWithPin, sign(bench.arena.command(TokenWithPin, Route::Direct, "openssl"), &uri));
    report.row(row);
}

/// The most memory that a program ever had resident, in KiB; the least of some runs.
///
/// A worker starts it: a process's peak begins with that of who starts it, which is more here.
fn peak(command: Command) -> Result<f64, String> {
    const RUNS: u32 = 5;
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut worker = Command::new(program);
    worker.args(["worker", "peak"]).arg(command.get_program()).args(command.get_args());
    worker.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    worker.current_dir(command.get_current_dir().ok_or("a device has a folder")?);
    let peaks = (0..RUNS).map(|_| {
        let output = worker.run();
        output.stdout().trim().parse::<f64>().map_err(|_| output.stderr())
    });
    peaks.collect::<Result<Vec<_>, _>>().map(|peaks| peaks.into_iter().fold(f64::INFINITY, f64::min))
}
