//! Measures everything that Keyrivet promises about speed, beside the limit and its peers, in one run and one table.
//! `conformance-tests/bench` installs and builds what this needs, and starts it.

mod contestants;
mod jobs;
mod machine;
mod measure;
mod registry;
mod report;
mod statistics;
mod worker;

use std::cell::LazyCell;
use std::process::ExitCode;
use std::time::Instant;

use contestants::Arena;
use jobs::{Bench, JOBS, Job};
use report::Report;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("worker", rest)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return match worker::run(rest) {
            Ok(()) => ExitCode::SUCCESS,
            Err(reason) => {
                println!("failed: {}", reason.replace('\n', " "));
                ExitCode::FAILURE
            }
        };
    }
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        print!("{}", usage());
        return ExitCode::SUCCESS;
    }
    match Wanted::parse(&arguments) {
        Ok(wanted) => wanted.run(),
        Err(reason) => {
            eprintln!("{reason}\n{}", usage());
            ExitCode::from(2)
        }
    }
}

struct Wanted {
    jobs: Vec<&'static Job>,
    quick: bool,
    json: bool,
    strict: bool,
    polite: bool,
}

impl Wanted {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut this = Self { jobs: Vec::new(), quick: false, json: false, strict: false, polite: false };
        for argument in arguments {
            match argument.as_str() {
                "--quick" => this.quick = true,
                "--json" => this.json = true,
                "--strict" => this.strict = true,
                "--polite" => this.polite = true,
                name => {
                    this.jobs.push(JOBS.iter().find(|job| job.name == name).ok_or(format!("there is no job '{name}'"))?)
                }
            }
        }
        if this.jobs.is_empty() {
            this.jobs = JOBS.iter().filter(|job| !job.on_request).collect();
        }
        Ok(this)
    }

    fn run(&self) -> ExitCode {
        contestants::require_release_build();
        if !self.polite {
            machine::raise_priority();
            machine::leave_a_processor();
        }
        let start = Instant::now();
        let make_keys: fn() -> Arena = || {
            eprintln!("making keys ...");
            Arena::new()
        };
        let bench = Bench { arena: LazyCell::new(make_keys), quick: self.quick };
        let mut report = Report::default();
        for job in &self.jobs {
            eprintln!("{}: {} ...", job.name, job.about);
            job.run(&bench, &mut report);
        }
        report.compare_with_peers();
        report.notes.push(format!("Measured in {} s.", start.elapsed().as_secs()));
        if self.json {
            println!("{:#}", report.to_json());
        } else {
            print!("{}", report.to_text());
        }
        if self.strict && report.missed() > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

fn usage() -> String {
    let jobs = JOBS.iter().map(|job| {
        format!("  {:12}{}{}\n", job.name, job.about, if job.on_request { " (only when named)" } else { "" })
    });
    format!(
        "usage: conformance-tests/bench [--quick] [--json] [--strict] [--polite] [JOB...]\n\n  \
         --quick     two minutes, and rougher\n  \
         --json      every value, instead of the table\n  \
         --strict    fail if a goal is missed\n  \
         --polite    no real-time priority (which root gives it) and no processor kept for the TPMs\n\n\
         jobs (all, if none is named):\n{}",
        jobs.collect::<String>()
    )
}
