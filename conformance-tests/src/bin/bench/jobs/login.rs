//! A login and the logout after it, in a process that lives on.

use std::cell::RefCell;

use conformance_tests::Hold;

use super::Bench;
use crate::contestants::{Contestant, Route};
use crate::measure::{Threads, Worker, interleave_able};
use crate::report::{Better, Report, Row};

/// Where there is no PIN, nobody logs in.
const WITH_PIN: [Contestant; 2] = [Contestant::TokenWithPin, Contestant::Tpm2Pkcs11];
/// So many are counted.
const COUNTED: u32 = 25;

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    for route in Route::QUICK {
        let start = |who| {
            let (module, token, pin) = bench.arena.token(who);
            Worker::start(move || bench.arena.worker(who, route, &["logins", &module, token, pin])).map(RefCell::new)
        };
        bench.arena.count(Hold::ToTheEnd);
        let commands = {
            let _managers = bench.arena.open(route);
            WITH_PIN.map(|who| start(who).and_then(|worker| count(bench, who, &mut worker.borrow_mut())))
        };
        bench.arena.time();
        let _managers = bench.arena.open(route);
        let workers = WITH_PIN.map(start);
        let lane = |worker| Threads { worker, count: 1 };
        let lanes = workers.iter().map(|worker| worker.as_ref().map(lane).map_err(Clone::clone)).collect();
        let slices = interleave_able(lanes, bench.rounds(30), bench.slice());
        let mut row = Row::new(format!("log in and out{}", route.title()), "logins/s", Better::Higher);
        for ((who, slices), commands) in WITH_PIN.into_iter().zip(slices).zip(commands) {
            row.measured(who, slices.series(|slice| slice.value), commands.ok());
        }
        report.row(row);
    }
}

fn count(bench: &Bench, who: Contestant, worker: &mut Worker<'_>) -> Result<f64, String> {
    worker.ask("warm")?;
    bench.arena.device(who).mark();
    worker.ask(&format!("sign {COUNTED} 1"))?;
    Ok(bench.arena.device(who).commands().len() as f64 / f64::from(COUNTED))
}
