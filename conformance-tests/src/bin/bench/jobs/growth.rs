//! Growth with the number of sessions, and of threads that sign.

use std::cell::RefCell;
use std::time::Duration;

use super::Bench;
use crate::contestants::{Contestant, Route};
use crate::measure::{Lane, Threads, Worker, interleave};
use crate::report::{Better, Report, Row};
use crate::statistics::Series;

use Contestant::{Token, TokenWithPin, Tpm2Pkcs11};

const SESSIONS: [usize; 4] = [1, 100, 1_000, 10_000];
const THREADS: [u32; 5] = [1, 2, 4, 8, 16];

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    bench.arena.time();
    sessions(bench, report);
    threads(bench, report);
}

/// One more session, opened and closed, beside so many; and the memory that all of them take.
fn sessions(bench: &Bench, report: &mut Report) {
    let contestants = [Token, Tpm2Pkcs11];
    let rounds = bench.rounds(15);
    let mut measured = contestants.map(|_| Vec::new());
    for _ in 0..rounds {
        for (who, answers) in contestants.into_iter().zip(&mut measured) {
            answers.push(session_costs(bench, who));
            std::thread::sleep(Duration::from_millis(30));
        }
    }
    for (place, number) in SESSIONS.into_iter().enumerate() {
        let mut time = Row::new(format!("open and close a session beside {number}"), "µs", Better::Lower);
        let mut memory = Row::informative(format!("memory of {number} sessions"), "KiB");
        for (who, answers) in contestants.into_iter().zip(&measured) {
            let series = |of: fn(&(f64, f64)) -> f64| {
                let costs = |answer: &Result<Costs, String>| {
                    let costs = answer.as_ref().map_err(Clone::clone)?;
                    costs.get(place).map(of).ok_or_else(|| "no more sessions".into())
                };
                answers.iter().map(costs).collect::<Result<Vec<_>, String>>().map(Series)
            };
            time.measured(who, series(|(nanoseconds, _)| nanoseconds / 1e3), None);
            if number > 1 {
                memory.measured(who, series(|(_, bytes)| bytes / 1024.0), None);
            }
        }
        report.row(time);
        if number > 1 {
            report.row(memory);
        }
    }
}

/// Nanoseconds and bytes for each of [`SESSIONS`], as far as there are so many.
type Costs = Vec<(f64, f64)>;

fn session_costs(bench: &Bench, who: Contestant) -> Result<Costs, String> {
    let (module, token, _) = bench.arena.token(who);
    let numbers = SESSIONS.map(|number| number.to_string());
    let arguments = [&["sessions", &module, token], &numbers.each_ref().map(String::as_str)[..]].concat();
    let worker = Worker::start(|| bench.arena.worker(who, Route::Direct, &arguments))?;
    let pair = |word: &str| {
        let (nanoseconds, bytes) = word.split_once('/')?;
        Some((nanoseconds.parse().ok()?, bytes.parse().ok()?))
    };
    let said = worker.greeting();
    let costs = said.strip_prefix("ready ").and_then(|words| words.split(' ').map(pair).collect());
    costs.ok_or(format!("said '{said}'"))
}

/// Signatures per second by so many threads.
fn threads(bench: &Bench, report: &mut Report) {
    let most = THREADS.into_iter().max().unwrap_or(1);
    let contestants = [TokenWithPin, Token, Tpm2Pkcs11];
    let started = contestants.map(|who| {
        (who, Worker::start(move || bench.arena.signer(who, "ec", Route::Direct, most, false)).map(RefCell::new))
    });
    let mut lanes = Vec::new();
    for (who, worker) in &started {
        if let Ok(worker) = worker {
            lanes.extend(THREADS.map(|count| (*who, count, Threads { worker, count })));
        }
    }
    let mut running: Vec<&mut dyn Lane> = lanes.iter_mut().map(|(_, _, lane)| lane as &mut dyn Lane).collect();
    let slices = interleave(&mut running, bench.rounds(8), bench.slice() * 2);
    for number in THREADS {
        let mut rate = Row::new(format!("P-256 by {number} threads"), "signatures/s", Better::Higher);
        let mut fair = Row::new(format!("P-256 by {number} threads, slowest"), "of fastest", Better::Higher);
        for ((who, _, _), slices) in lanes.iter().zip(&slices).filter(|((_, count, _), _)| *count == number) {
            rate.measured(*who, slices.series(|slice| slice.value), None);
            fair.measured(*who, slices.series(|slice| slice.fairness), None);
        }
        report.row(rate);
        if number > 1 {
            report.row(fair);
        }
    }
}
