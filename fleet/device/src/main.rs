//! `keyrivet`, the command of a device: what its keys in the TPM are asked for.

#![forbid(unsafe_code)]

mod cli;
mod document;
mod failure;
mod jwt;
mod key;
mod pin;

use std::fmt::Display;
use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};
use failure::Result;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(output) => match write(&output) {
            Ok(()) => ExitCode::SUCCESS,
            // Whoever stopped reading wants no explanation.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::FAILURE,
            Err(error) => explain(&format!("standard output: {error}")),
        },
        Err(failure) => explain(&failure),
    }
}

fn write(output: &[u8]) -> std::io::Result<()> {
    let mut stdout = std::io::stdout();
    stdout.write_all(output)?;
    stdout.flush()
}

fn explain(failure: &dyn Display) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "keyrivet: {failure}");
    ExitCode::FAILURE
}

/// Does what was asked for, and answers what belongs on the standard output.
fn run(cli: Cli) -> Result<Vec<u8>> {
    match cli.command {
        Command::Jwt(request) => jwt::make(&request),
        Command::Completion { shell } => Ok(document::completion(shell)),
        Command::Man { command } => document::man(command.as_deref()),
    }
}
