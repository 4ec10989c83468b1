//! Warm signatures: P-256 and RSA-2048, by one thread and four, one process and four, straight and through tpm2-abrmd.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use conformance_tests::Hold;

use super::Bench;
use crate::contestants::{Contestant, KEYS, Route};
use crate::measure::{Lane, Processes, Slices, Threads, Worker, interleave_able};
use crate::report::{Better, Report, Row};

const THREADS: u32 = 4;
const PROCESSES: usize = 4;
/// So many signatures per thread are counted.
const COUNTED: u32 = 25;
/// What disturbs a machine lasts longer than this: it hits lanes that are so close to each other alike.
const SLICE: Duration = Duration::from_millis(50);

/// How many sign at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Crowd {
    Alone,
    Threads,
    Processes,
}

impl Crowd {
    fn title(self) -> &'static str {
        match self {
            Self::Alone => "",
            Self::Threads => ", 4 threads",
            Self::Processes => ", 4 processes",
        }
    }

    fn threads(self) -> u32 {
        if self == Self::Threads { THREADS } else { 1 }
    }

    fn processes(self) -> usize {
        if self == Self::Processes { PROCESSES } else { 1 }
    }
}

/// TPM commands per signature, of those that could do it.
type Commands = HashMap<(Contestant, Crowd), f64>;

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    for route in Route::QUICK {
        for (key, algorithm) in KEYS {
            let commands = count(bench, key, route);
            let measured = time(bench, key, route);
            tell(report, &format!("{algorithm}{}", route.title()), route, &commands, &measured);
        }
    }
}

fn count(bench: &Bench, key: &str, route: Route) -> Commands {
    let mut counted = Commands::new();
    for (crowd, hold) in [
        // So that the machine's speed does not decide how many bursts there are.
        (Crowd::Alone, Hold::ToTheEnd),
        (Crowd::Threads, Hold::ToTheEnd),
        // These take turns.
        (Crowd::Processes, Hold::Default),
    ] {
        bench.arena.count(hold);
        let _managers = bench.arena.open(route);
        for who in Contestant::SIGNERS {
            if let Ok(commands) = count_one(bench, who, key, route, crowd) {
                counted.insert((who, crowd), commands);
            }
        }
    }
    counted
}

fn count_one(bench: &Bench, who: Contestant, key: &str, route: Route, crowd: Crowd) -> Result<f64, String> {
    let (threads, several) = (crowd.threads(), crowd.processes() > 1);
    let start = || Worker::start(|| bench.arena.signer(who, key, route, threads, several));
    let mut workers = (0..crowd.processes()).map(|_| start()).collect::<Result<Vec<_>, _>>()?;
    for worker in &mut workers {
        worker.ask("warm")?;
    }
    bench.arena.device(who).mark();
    let line = format!("sign {COUNTED} {threads}");
    workers.iter_mut().try_for_each(|worker| worker.tell(&line))?;
    workers.iter().try_for_each(|worker| worker.answer().map(drop))?;
    let commands = bench.arena.device(who).commands().len();
    Ok(commands as f64 / f64::from(COUNTED * threads) / crowd.processes() as f64)
}

type Measured = Vec<(Contestant, Crowd, Slices)>;

fn time(bench: &Bench, key: &str, route: Route) -> Measured {
    bench.arena.time();
    let _managers = bench.arena.open(route);
    let mut measured = time_threads(bench, key, route);
    measured.extend(match route {
        Route::ResourceManager => time_processes(bench, key, route, 30, bench.slice()),
        // They wait for each other's turn, which may last some time.
        Route::Direct | Route::Slow | Route::SlowResourceManager => {
            time_processes(bench, key, route, 9, bench.slice() * 3)
        }
    });
    measured
}

/// One thread and four, of the same process.
fn time_threads(bench: &Bench, key: &str, route: Route) -> Measured {
    let start = |who| Worker::start(move || bench.arena.signer(who, key, route, THREADS, false)).map(RefCell::new);
    let started = Contestant::SIGNERS.map(|who| (who, start(who)));
    let crowds = [Crowd::Alone, Crowd::Threads];
    let lanes = started.iter().flat_map(|(who, worker)| crowds.map(|crowd| (*who, crowd, worker.as_ref())));
    let lanes = lanes.map(|(who, crowd, worker)| {
        let lane = worker.map(|worker| Threads { worker, count: crowd.threads() });
        (who, crowd, lane.map_err(Clone::clone))
    });
    run_lanes(lanes.collect(), bench.rounds(80), SLICE)
}

/// Four processes.
fn time_processes(bench: &Bench, key: &str, route: Route, rounds: u32, slice: Duration) -> Measured {
    let start = |who| Worker::start(move || bench.arena.signer(who, key, route, 1, true)).map(RefCell::new);
    let started =
        Contestant::SIGNERS.map(|who| (who, (0..PROCESSES).map(|_| start(who)).collect::<Result<Vec<_>, _>>()));
    let lanes = started.iter().map(|(who, workers)| {
        let lane = workers.as_ref().map(|workers| Processes { workers: workers.iter().collect() });
        (*who, Crowd::Processes, lane.map_err(Clone::clone))
    });
    run_lanes(lanes.collect(), bench.rounds(rounds), slice)
}

fn run_lanes<L: Lane>(lanes: Vec<(Contestant, Crowd, Result<L, String>)>, rounds: u32, slice: Duration) -> Measured {
    let (names, lanes): (Vec<_>, Vec<_>) = lanes.into_iter().map(|(who, crowd, lane)| ((who, crowd), lane)).unzip();
    let slices = interleave_able(lanes, rounds, slice);
    names.into_iter().zip(slices).map(|((who, crowd), slices)| (who, crowd, slices)).collect()
}

fn tell(report: &mut Report, name: &str, route: Route, commands: &Commands, measured: &Measured) {
    let find = |who, crowd| {
        let found = measured.iter().find(|(other, its, _)| (*other, *its) == (who, crowd));
        found.map(|(_, _, slices)| slices)
    };
    for crowd in [Crowd::Alone, Crowd::Threads, Crowd::Processes] {
        let mut row = Row::new(format!("{name}{}", crowd.title()), "signatures/s", Better::Higher);
        for who in Contestant::SIGNERS {
            let Some(slices) = find(who, crowd) else { continue };
            row.measured(who, slices.series(|slice| slice.value), commands.get(&(who, crowd)).copied());
        }
        report.row(row);
    }
    let mut processor = Row::new(format!("{name}, client's processor"), "µs/signature", Better::Lower);
    let mut fairness = Row::new(format!("{name}, slowest of 4 threads"), "of fastest", Better::Higher);
    for who in Contestant::SIGNERS {
        let Some((alone, threads)) = find(who, Crowd::Alone).zip(find(who, Crowd::Threads)) else { continue };
        processor.measured(who, alone.series(|slice| slice.processor), None);
        fairness.measured(who, threads.series(|slice| slice.fairness), None);
    }
    report.row(processor);
    report.row(fairness);
    for who in Contestant::OURS {
        let series = |who, crowd| find(who, crowd)?.series(|slice| slice.value).ok();
        let ratio = |who, crowd, to, as_crowd| Some(series(who, crowd)?.ratio_to(&series(to, as_crowd)?));
        // By the median time of a signature, as whatever else runs on the machine hits some of them.
        let time = |who| find(who, Crowd::Alone)?.series(|slice| slice.time).ok();
        let limit = time(Contestant::Limit).zip(time(who)).map_or(f64::NAN, |(limit, ours)| limit.ratio_to(&ours));
        // A resource manager swaps a session as well as a key around each command: with a PIN there are more.
        if route == Route::Direct || who != Contestant::TokenWithPin {
            report.goal(format!("{name}: {} against the limit", who.title()), limit, Better::Higher, 0.95);
        }
        let threads = ratio(who, Crowd::Threads, who, Crowd::Alone).unwrap_or(f64::NAN);
        report.goal(format!("{name}: {}, 4 threads against 1", who.title()), threads, Better::Higher, 0.98);
        let fair = find(who, Crowd::Threads).and_then(|slices| slices.series(|slice| slice.fairness).ok());
        let fair = fair.map_or(f64::NAN, |series| series.median());
        report.goal(format!("{name}: {}, slowest of 4 threads", who.title()), fair, Better::Higher, 0.5);
    }
}
