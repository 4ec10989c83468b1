//! Programs that start, do one thing with a key, and end.

use std::process::Command;

use conformance_tests::{Hold, Run as _};

use super::Bench;
use crate::contestants::{Contestant, KEYS, Route};
use crate::measure::{Lane, Program, Slices, interleave};
use crate::report::{Better, Report, Row};
use crate::statistics::Series;

use Contestant::{Limit, Provider, Token, TokenWithPin, Tpm2Openssl, Tpm2Pkcs11};

/// What a contestant runs.
type Recipe<'a> = (Contestant, Box<dyn Fn() -> Command + 'a>);

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    list_slots(bench, report);
    sign(bench, report);
    request(bench, report);
}

/// What it costs to load a module and look at its slots.
fn list_slots(bench: &Bench, report: &mut Report) {
    let recipes = [Token, Tpm2Pkcs11].map(|who| recipe(who, move || bench.arena.tool(who, &["--list-slots"])));
    row(bench, report, "pkcs11-tool --list-slots", recipes.into());
}

/// `pkcs11-tool --sign`, beside what the same tool costs when it only lists slots.
fn sign(bench: &Bench, report: &mut Report) {
    for ((_, algorithm), (id, mechanism)) in KEYS.into_iter().zip([("01", "ECDSA"), ("02", "SHA256-RSA-PKCS")]) {
        let input = if mechanism == "ECDSA" { "digest" } else { "data" };
        let arguments = ["--sign", "--id", id, "--mechanism", mechanism, "-i", input];
        let recipes = Contestant::MODULES.map(|who| recipe(who, move || token_tool(bench, who, &arguments)));
        let list = recipe(Limit, || bench.arena.tool(Token, &["--list-slots"]));
        let name = format!("pkcs11-tool --sign {algorithm}, against --list-slots");
        let measured = row(bench, report, &name, recipes.into_iter().chain([list]).collect());
        for who in [TokenWithPin, Token] {
            report.goal(format!("{name}: {}", who.title()), ratio(&measured, who, Limit), Better::Lower, 2.0);
        }
        waiting(bench, report, algorithm, &arguments);
    }
}

/// How much of a signature from start to end the TPM takes, and its socket: no client is quicker.
fn waiting(bench: &Bench, report: &mut Report, algorithm: &str, arguments: &[&str]) {
    let mut row = Row::informative(format!("  of that, waiting for the TPM, {algorithm}"), "ms");
    for who in [TokenWithPin, Token] {
        let once = || {
            let output = token_tool(bench, who, arguments).env("KEYRIVET_LOG", "tpm").run();
            logged(&output.stderr()).ok_or_else(|| output.stderr())
        };
        let times: Result<Vec<f64>, String> = (0..bench.rounds(30)).map(|_| once()).collect();
        row.measured(who, times.map(Series), None);
    }
    report.row(row);
}

/// The sum of what `KEYRIVET_LOG=tpm` says, in milliseconds, if anything: `keyrivet: tpm: Sign 0x000 0.45 ms`.
fn logged(log: &str) -> Option<f64> {
    let time = |line: &str| line.strip_prefix("keyrivet: tpm: ")?.strip_suffix(" ms")?.rsplit(' ').next()?.parse().ok();
    log.lines().filter_map(time).reduce(|sum: f64, time| sum + time)
}

/// `openssl req -new`, beside what it costs with a key file in software.
fn request(bench: &Bench, report: &mut Report) {
    for (key, algorithm) in KEYS {
        let request = |who: Contestant, key: String| {
            recipe(who, move || {
                let mut command = bench.arena.command(who, Route::Direct, "openssl");
                command.args(["req", "-new", "-subj", "/CN=device", "-out", "request.csr", "-key", &key]);
                command
            })
        };
        let file = format!("{key}.pem");
        let name = format!("openssl req -new {algorithm} by file, against software");
        let software = recipe(Limit, || {
            let mut command = bench.arena.ours.command("openssl");
            command.args(["req", "-new", "-subj", "/CN=device", "-out", "request.csr", "-key"]);
            command.arg(format!("software-{key}.pem"));
            command
        });
        row(bench, report, &name, vec![software, request(Provider, file.clone()), request(Tpm2Openssl, file)]);
        let uris = [TokenWithPin, Token].map(|who| request(who, bench.arena.uri(who, key)));
        row(bench, report, &format!("openssl req -new {algorithm} by pkcs11: URI"), uris.into());
        let handle = format!("handle:{}", bench.arena.persistent(key));
        let handles = [request(Provider, handle.clone()), request(Tpm2Openssl, handle)];
        row(bench, report, &format!("openssl req -new {algorithm} by handle: URI"), handles.into());
    }
}

fn recipe<'a>(who: Contestant, command: impl Fn() -> Command + 'a) -> Recipe<'a> {
    (who, Box::new(command))
}

/// `pkcs11-tool` on a contestant's token, logged in where it has a PIN.
pub(super) fn token_tool(bench: &Bench, who: Contestant, arguments: &[&str]) -> Command {
    let (_, token, pin) = bench.arena.token(who);
    let mut command = bench.arena.tool(who, &["--token-label", token]);
    if !pin.is_empty() {
        command.args(["--login", "--pin", pin]);
    }
    command.args(arguments);
    command
}

type Measured = Vec<(Contestant, Slices)>;

fn row(bench: &Bench, report: &mut Report, name: &str, recipes: Vec<Recipe<'_>>) -> Measured {
    bench.arena.count(Hold::Default);
    let commands: Vec<_> = recipes.iter().map(|(who, command)| bench.arena.commands_of(*who, command())).collect();
    bench.arena.time();
    let mut programs: Vec<_> = recipes.iter().map(|(_, command)| Program { command }).collect();
    let mut lanes: Vec<&mut dyn Lane> = programs.iter_mut().map(|program| program as &mut dyn Lane).collect();
    let slices = interleave(&mut lanes, bench.rounds(100), bench.slice());
    let mut row = Row::new(name, "ms", Better::Lower);
    let measured: Measured = recipes.iter().map(|(who, _)| *who).zip(slices).collect();
    for ((who, slices), commands) in measured.iter().zip(commands) {
        row.measured(*who, slices.series(|slice| slice.value), commands.ok());
    }
    report.row(row);
    measured
}

fn ratio(measured: &Measured, ours: Contestant, to: Contestant) -> f64 {
    let series = |who| {
        let (_, slices) = measured.iter().find(|(other, _)| *other == who)?;
        slices.series(|slice| slice.value).ok()
    };
    series(ours).zip(series(to)).map_or(f64::NAN, |(ours, other)| ours.ratio_to(&other))
}
