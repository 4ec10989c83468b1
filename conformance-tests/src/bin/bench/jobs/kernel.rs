//! What reaches the TPM for one warm signature over the kernel's resource manager: Debian's kernel in a virtual machine,
//! counted in the log of its software TPM.

use std::path::Path;
use std::process::Command;

use conformance_tests::{Exchange, exchanges};

use super::Bench;
use crate::contestants::{COLUMNS, Contestant};
use crate::machine;
use crate::report::{Better, Report, Row};

/// What the virtual machine sends before each contestant.
const MARK: &str = "ReadClock";
/// The kernel's random number generator asks by itself.
const KERNELS_OWN: &str = "GetRandom";
/// What the guest's names have after the contestant's.
const PERSISTENT: &str = ", persistent";

/// Contestant, row, and the most commands that a signature may take.
const GOALS: [(&str, f64); 4] =
    [("token", 4.0), ("token, PIN", 6.0), ("token, persistent", 1.0), ("token, PIN, persistent", 3.0)];

pub(crate) fn run(_: &Bench, report: &mut Report) {
    let folder = tempfile::tempdir().expect("the system has room for a folder");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernel-vm");
    let libraries = std::env::current_exe().expect("a running program has a path");
    let mut command = Command::new(script);
    command.args(["--guest", "kernel-vm.count", "--keep"]).arg(folder.path()).args(libraries.parent());
    let output = machine::as_usual(|| command.output()).expect("bash is there");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let names = said.lines().filter_map(|line| line.trim().strip_prefix("counting ")).map(str::to_owned);
    let log = std::fs::read(folder.path().join("tpm.log")).expect("the virtual machine's TPM has a log");
    let exchanges = exchanges(&String::from_utf8_lossy(&log));
    let sent: Vec<_> = exchanges.iter().map(Exchange::name).filter(|name| name != KERNELS_OWN).collect();
    tell(report, &names.collect::<Vec<_>>(), &sent);
}

fn tell(report: &mut Report, names: &[String], sent: &[String]) {
    let mut row = Row::new("P-256 over the kernel's resource manager", "TPM commands", Better::Lower);
    let mut persistent = Row::new("the same, persistent keys", "TPM commands", Better::Lower);
    // The kernel has read the clock too, when it started.
    let mut stretches: Vec<&[String]> = sent.rsplit(|name| name == MARK).take(names.len()).collect();
    stretches.reverse();
    let mut counted = Vec::new();
    for (name, sent) in names.iter().zip(stretches) {
        let each = between_signatures(sent);
        let commands = each.as_ref().map_or(f64::NAN, |each| each.len() as f64);
        report.notes.push(match &each {
            Some(each) => format!("over the kernel's resource manager, {name}: {}", each.join(", ")),
            None => format!("over the kernel's resource manager, {name}: did not sign"),
        });
        let (who, row) = match name.strip_suffix(PERSISTENT) {
            Some(who) => (who, &mut persistent),
            None => (name.as_str(), &mut row),
        };
        if let Some(who) = COLUMNS.into_iter().find(|column: &Contestant| column.title() == who) {
            row.exact(who, each.map(|_| commands).ok_or_else(|| "did not sign".into()));
        }
        counted.push((name, commands));
    }
    for (name, limit) in GOALS {
        let commands = counted.iter().find(|(counted, _)| *counted == name).map_or(f64::NAN, |(_, commands)| *commands);
        let what = format!("commands at the TPM for a warm signature over the kernel's resource manager, {name}");
        report.goal(what, commands, Better::Lower, limit);
    }
    report.row(row);
    report.row(persistent);
}

/// What is sent from one signature to the next, where it has settled: in the middle of the last ten.
fn between_signatures(sent: &[String]) -> Option<Vec<String>> {
    let signatures: Vec<usize> = (0..sent.len()).filter(|&place| sent[place] == "Sign").collect();
    let last = signatures.len().checked_sub(10)?;
    let mut stretches: Vec<&[String]> =
        signatures[last..].windows(2).map(|pair| &sent[pair[0] + 1..=pair[1]]).collect();
    stretches.sort_by_key(|stretch| stretch.len());
    Some(stretches[stretches.len() / 2].to_vec())
}
