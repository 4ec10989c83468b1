//! Measuring: lanes that run in short slices one after the other, round by round, so that noise hits all alike.

use std::cell::RefCell;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::statistics::Series;

/// Between slices everybody gives back what they hold at the TPM for a burst.
const PAUSE: Duration = Duration::from_millis(30);
/// A worker that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(20);
const DIED: &str = "the process died";

/// One slice of one lane.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slice {
    /// What the row is about: operations per second, or milliseconds.
    pub(crate) value: f64,
    /// The median time of one operation, in microseconds, where the client tells: what disturbs a few does not show.
    pub(crate) time: f64,
    /// Processor time of the client per operation, in microseconds, where it tells.
    pub(crate) processor: f64,
    /// The slowest of several threads or processes, as a part of the fastest.
    pub(crate) fairness: f64,
}

/// What is measured in slices.
pub(crate) trait Lane {
    /// One slice, about as long as told.
    fn slice(&mut self, time: Duration) -> Result<Slice, String>;
}

/// Every slice of a lane, or why there are none.
pub(crate) struct Slices {
    pub(crate) slices: Result<Vec<Slice>, String>,
}

impl Slices {
    /// The values of one kind.
    pub(crate) fn series(&self, of: impl Fn(&Slice) -> f64) -> Result<Series, String> {
        self.slices.as_ref().map(|slices| Series(slices.iter().map(of).collect())).map_err(Clone::clone)
    }
}

/// Runs every lane once per round. The order turns, and is reversed in every other round, so that nobody always comes after the
/// same one. A lane that fails is out.
pub(crate) fn interleave(lanes: &mut [&mut dyn Lane], rounds: u32, time: Duration) -> Vec<Slices> {
    let mut measured: Vec<Slices> = lanes.iter().map(|_| Slices { slices: Ok(Vec::new()) }).collect();
    let count = lanes.len();
    for round in 0..rounds as usize {
        for place in 0..count {
            let place = if round % 2 == 0 { place } else { count - 1 - place };
            let place = (round + place) % count;
            let Ok(slices) = &mut measured[place].slices else { continue };
            match lanes[place].slice(time) {
                Ok(slice) => slices.push(slice),
                Err(error) => measured[place].slices = Err(error),
            }
            std::thread::sleep(PAUSE);
        }
    }
    measured
}

/// The same of lanes that may have failed before they began.
pub(crate) fn interleave_able<L: Lane>(mut lanes: Vec<Result<L, String>>, rounds: u32, time: Duration) -> Vec<Slices> {
    let able = lanes.iter_mut().filter_map(|lane| lane.as_mut().ok());
    let mut able: Vec<&mut dyn Lane> = able.map(|lane| lane as &mut dyn Lane).collect();
    let mut slices = interleave(&mut able, rounds, time).into_iter();
    let result = |lane: &Result<L, String>| match lane {
        Ok(_) => slices.next(),
        Err(error) => Some(Slices { slices: Err(error.clone()) }),
    };
    lanes.iter().map_while(result).collect()
}

/// A worker process, which does what it is told by lines.
pub(crate) struct Worker<'a> {
    command: Box<dyn Fn() -> Command + 'a>,
    process: Child,
    answers: Receiver<String>,
    greeting: String,
}

impl<'a> Worker<'a> {
    /// Starts it and waits until it is ready.
    pub(crate) fn start(command: impl Fn() -> Command + 'a) -> Result<Self, String> {
        let (process, answers) = spawn(command())?;
        let mut this = Self { command: Box::new(command), process, answers, greeting: String::new() };
        this.greeting = this.answer()?;
        Ok(this)
    }

    /// What it said when it was ready.
    pub(crate) fn greeting(&self) -> &str {
        &self.greeting
    }

    /// Gives it a line and waits for its answer.
    pub(crate) fn ask(&mut self, line: &str) -> Result<String, String> {
        self.tell(line)?;
        self.answer()
    }

    /// Gives it a line and does not wait.
    pub(crate) fn tell(&mut self, line: &str) -> Result<(), String> {
        let input = self.process.stdin.as_mut().ok_or("a worker has an input")?;
        writeln!(input, "{line}").map_err(|_| DIED.into())
    }

    /// Waits for its answer to a line.
    pub(crate) fn answer(&self) -> Result<String, String> {
        let line = self.answers.recv_timeout(PATIENCE).map_err(|error| match error {
            RecvTimeoutError::Timeout => "hangs",
            RecvTimeoutError::Disconnected => DIED,
        })?;
        line.strip_prefix("failed: ").map_or(Ok(line.clone()), |reason| Err(reason.into()))
    }

    /// Puts a new one in its place.
    fn restart(&mut self) -> Result<(), String> {
        self.end();
        (self.process, self.answers) = spawn((self.command)())?;
        self.answer().map(drop)
    }

    fn end(&mut self) {
        drop(self.process.stdin.take());
        let deadline = Instant::now() + Duration::from_secs(2);
        while matches!(self.process.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.process.kill();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

fn spawn(mut command: Command) -> Result<(Child, Receiver<String>), String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut process = command.spawn().map_err(|error| error.to_string())?;
    let output = process.stdout.take().ok_or("a worker has an output")?;
    let (sender, answers) = channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        // Nobody listens any more when the worker was given up.
        lines.take_while(|line| sender.send(line.clone()).is_ok()).for_each(drop);
    });
    Ok((process, answers))
}

/// A worker's threads, which sign at the same time. Lanes of other numbers may share the worker.
pub(crate) struct Threads<'a, 'b> {
    pub(crate) worker: &'a RefCell<Worker<'b>>,
    pub(crate) count: u32,
}

impl Lane for Threads<'_, '_> {
    fn slice(&mut self, time: Duration) -> Result<Slice, String> {
        let mut worker = self.worker.borrow_mut();
        let answer = worker.ask(&format!("run {} {}", time.as_millis(), self.count));
        let answer = answer.inspect_err(|_| {
            // Whoever shares the dead one finds out by itself if there can be no other.
            let _ = worker.restart();
        })?;
        let ran = Ran::parse(&answer).ok_or(format!("said '{answer}'"))?;
        let fairness = fairness(&ran.counts);
        Ok(Slice { value: ran.rate(), time: ran.median, processor: ran.processor, fairness })
    }
}

/// Workers that share the TPM, from one moment to another: what they wait for each other counts.
pub(crate) struct Processes<'a, 'b> {
    pub(crate) workers: Vec<&'a RefCell<Worker<'b>>>,
}

impl Lane for Processes<'_, '_> {
    fn slice(&mut self, time: Duration) -> Result<Slice, String> {
        let line = format!("share {}", time.as_millis());
        self.workers.iter().try_for_each(|worker| worker.borrow_mut().tell(&line))?;
        let count = |worker: &&RefCell<Worker<'_>>| {
            let answer = worker.borrow().answer()?;
            let count = answer.strip_prefix("shared ").and_then(|count| count.parse().ok());
            count.ok_or(format!("said '{answer}'"))
        };
        let counts: Vec<f64> = self.workers.iter().map(count).collect::<Result<_, _>>()?;
        let value = counts.iter().sum::<f64>() / time.as_secs_f64();
        Ok(Slice { value, fairness: fairness(&counts), ..Slice::default() })
    }
}

fn fairness(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min) / values.iter().copied().fold(0.0, f64::max)
}

/// What a worker says of one stretch.
#[derive(Debug, PartialEq)]
struct Ran {
    /// Processor time per operation, in microseconds.
    processor: f64,
    /// The median time of one operation, in microseconds.
    median: f64,
    /// When the last one ended, in seconds.
    elapsed: f64,
    /// How many each thread finished.
    counts: Vec<f64>,
}

impl Ran {
    /// `ran PROCESSOR MEDIAN ELAPSED COUNT...`, the times in nanoseconds.
    fn parse(answer: &str) -> Option<Self> {
        let numbers: Option<Vec<f64>> = answer.strip_prefix("ran ")?.split(' ').map(|word| word.parse().ok()).collect();
        let [processor, median, elapsed, counts @ ..] = &numbers?[..] else { return None };
        let (processor, median, elapsed) = (processor / 1e3, median / 1e3, elapsed / 1e9);
        Some(Self { processor, median, elapsed, counts: counts.to_vec() })
    }

    /// Operations per second. What was begun and not finished neither counts nor takes time: a short slice holds few
    /// operations, and whether one more fits into it is luck.
    fn rate(&self) -> f64 {
        if self.elapsed > 0.0 { self.counts.iter().sum::<f64>() / self.elapsed } else { 0.0 }
    }
}

/// A program that is run from its start to its end; its value is that time in milliseconds.
pub(crate) struct Program<F: Fn() -> Command> {
    pub(crate) command: F,
}

impl<F: Fn() -> Command> Lane for Program<F> {
    /// Runs it once, however long that takes.
    fn slice(&mut self, _time: Duration) -> Result<Slice, String> {
        let mut command = (self.command)();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let start = Instant::now();
        let status = command.status().map_err(|error| error.to_string())?;
        let value = start.elapsed().as_secs_f64() * 1e3;
        if status.success() { Ok(Slice { value, ..Slice::default() }) } else { Err(status.to_string()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_says_is_read_back() {
        let ran = Ran::parse("ran 1500 2000 500000000 20 30").expect("four numbers and more");
        assert_eq!(ran, Ran { processor: 1.5, median: 2.0, elapsed: 0.5, counts: vec![20.0, 30.0] });
        assert_eq!(ran.rate(), 100.0);
        assert_eq!(Ran::parse("ran 0 0 0 0").map(|ran| ran.rate()), Some(0.0));
        assert_eq!(Ran::parse("ran 1500 2000"), None);
        assert_eq!(Ran::parse("ready"), None);
    }
}
