//! Growth with the number of keys: from C_Initialize to a key, and a cold signature, in stores of 1 to 10,000 keys.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use conformance_tests::Run as _;

use super::Bench;
use crate::contestants::{Contestant, Route};
use crate::measure::{Lane, Program, Slice, Worker, interleave};
use crate::report::{Better, Report, Row};
use crate::statistics::Series;

use Contestant::{Token, Tpm2Pkcs11};

const NUMBERS: [usize; 4] = [1, 100, 1_000, 10_000];
/// What the slowest may take of the fastest's time (`NUMBERS`' last two).
const GOALS: [(usize, f64); 2] = [(1_000, 1.2), (10_000, 2.0)];

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    bench.arena.time();
    let stores: Vec<_> =
        NUMBERS.iter().map(|&number| (number, fill_ours(bench, number), fill_peer(bench, number))).collect();
    let mut found = Vec::new();
    for (number, ours, peer) in &stores {
        found.push((*number, Token, Find { command: Box::new(move || find(bench, Token, ours)) }));
        found.push((*number, Tpm2Pkcs11, Find { command: Box::new(move || find(bench, Tpm2Pkcs11, peer)) }));
    }
    let found = curve(bench, report, "C_Initialize and find", found);
    let mut signed = Vec::new();
    for (number, ours, peer) in &stores {
        signed.push((
            *number,
            Token,
            Program { command: Box::new(move || sign(bench, Token, ours)) as Box<dyn Fn() -> _> },
        ));
        signed.push((*number, Tpm2Pkcs11, Program { command: Box::new(move || sign(bench, Tpm2Pkcs11, peer)) }));
    }
    let signed = curve(bench, report, "pkcs11-tool --sign", signed);
    for (what, measured) in [("C_Initialize and find", &found), ("pkcs11-tool --sign", &signed)] {
        let ours =
            |number| measured.iter().find(|(its, who, _)| (*its, *who) == (number, Token)).map(|(_, _, series)| series);
        for (number, limit) in GOALS {
            let value = ours(number).zip(ours(1)).map_or(f64::NAN, |(many, one)| many.ratio_to(one));
            report.goal(format!("{what} with {number} keys, against 1"), value, Better::Lower, limit);
        }
    }
}

/// A worker that finds a key and ends.
struct Find<'a> {
    command: Box<dyn Fn() -> Command + 'a>,
}

impl Lane for Find<'_> {
    fn slice(&mut self, _time: Duration) -> Result<Slice, String> {
        let said = Worker::start(&self.command)?.greeting().to_owned();
        let nanoseconds: Option<f64> = said.strip_prefix("ready ").and_then(|number| number.parse().ok());
        let value = nanoseconds.ok_or(format!("said '{said}'"))? / 1e6;
        Ok(Slice { value, ..Slice::default() })
    }
}

fn curve<L: Lane>(
    bench: &Bench,
    report: &mut Report,
    name: &str,
    mut lanes: Vec<(usize, Contestant, L)>,
) -> Vec<(usize, Contestant, Series)> {
    let mut running: Vec<&mut dyn Lane> = lanes.iter_mut().map(|(_, _, lane)| lane as &mut dyn Lane).collect();
    let slices = interleave(&mut running, bench.rounds(15), bench.slice());
    let mut all = Vec::new();
    for number in NUMBERS {
        let mut row = Row::new(format!("{name}, {number} keys"), "ms", Better::Lower);
        for ((_, who, _), slices) in lanes.iter().zip(&slices).filter(|((its, _, _), _)| *its == number) {
            let series = slices.series(|slice| slice.value);
            all.extend(series.clone().ok().map(|series| (number, *who, series)));
            row.measured(*who, series, None);
        }
        report.row(row);
    }
    all
}

fn find(bench: &Bench, who: Contestant, store: &Path) -> Command {
    let (module, token, pin) = bench.arena.token(who);
    on_store(bench.arena.worker(who, Route::Direct, &["find", &module, token, pin, "ec"]), store)
}

fn sign(bench: &Bench, who: Contestant, store: &Path) -> Command {
    let arguments = ["--sign", "--id", "01", "--mechanism", "ECDSA", "-i", "digest"];
    on_store(super::cold::token_tool(bench, who, &arguments), store)
}

fn on_store(mut command: Command, store: &Path) -> Command {
    command.env("KEYRIVET_STORE", store).env("TPM2_PKCS11_STORE", store);
    command
}

/// A store with the token without a PIN, and so many keys: copies of the one, under other names.
fn fill_ours(bench: &Bench, number: usize) -> PathBuf {
    let device = &bench.arena.ours;
    let store = device.path(&format!("store-{number}"));
    let tokens = fs::read_dir(device.store()).expect("the store is there").flatten().map(|entry| entry.path());
    let is_open = |token: &PathBuf| {
        fs::read_to_string(token.join("token.toml")).is_ok_and(|text| text.contains("label = \"open\""))
    };
    let from = tokens.into_iter().find(is_open).expect("there is a token without a PIN");
    let to = store.join(from.file_name().expect("a token's directory has a name"));
    fs::create_dir_all(&to).expect("the device's folder is writable");
    let files = fs::read_dir(&from).expect("the token is there").flatten().map(|entry| entry.path());
    let is_key = |file: &PathBuf| fs::read_to_string(file).is_ok_and(|text| text.contains("label = \"ec\""));
    let key = files.into_iter().find(is_key).expect("the token has a P-256 key");
    fs::copy(from.join("token.toml"), to.join("token.toml")).expect("a token can be copied");
    fs::copy(&key, to.join(key.file_name().expect("a file has a name"))).expect("a key can be copied");
    let text = fs::read_to_string(&key).expect("a key is text");
    for number in 1..number {
        let copy =
            text.replace("\"ec\"", &format!("\"key-{number:05}\"")).replace("\"01\"", &format!("\"{number:08x}\""));
        fs::write(to.join(format!("{number:032x}.pem")), copy).expect("a key can be written");
    }
    // Any write makes the index.
    let write = ["--write-object", "data", "--type", "data", "--label", "data", "--token-label", "open"];
    let _ = on_store(bench.arena.tool(Token, &write), &store).run().ok();
    store
}

/// The same for the peer: a copy of its database, with as many copies of the key's row.
fn fill_peer(bench: &Bench, number: usize) -> PathBuf {
    let device = &bench.arena.module_peer;
    let store = device.path(&format!("peer-{number}"));
    fs::create_dir_all(&store).expect("the device's folder is writable");
    let database = store.join("tpm2_pkcs11.sqlite3");
    fs::copy(device.path("peer/tpm2_pkcs11.sqlite3"), &database).expect("a database can be copied");
    let (label, id) = (hex(b"ec"), hex(&[1]));
    let sql = format!(
        "DELETE FROM tobjects WHERE attrs NOT LIKE '%\"{label}\"%';\n\
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) INSERT INTO tobjects (tokid, attrs) \
         SELECT tokid, replace(replace(attrs, '\"{label}\"', '\"' || hex(printf('key-%05d', i)) || '\"'), '\"{id}\"', \
         '\"' || printf('%08x', i) || '\"') FROM n, (SELECT * FROM tobjects) WHERE {number} > 1;\n",
        number.saturating_sub(1).max(1),
    );
    let _ = device.command("sqlite3").arg(&database).run_with_input(sql.as_bytes()).ok();
    store
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
