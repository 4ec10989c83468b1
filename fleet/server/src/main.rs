//! `keyrivet-server`: the registry's commands, and the server that answers devices and brokers.

#![forbid(unsafe_code)]

mod admin;
mod bridge;
mod cli;
mod documents;
mod events;
mod google;
mod hooks;
mod link;
mod listen;
mod metrics;
mod output;
mod serve;

use std::process::ExitCode;

use clap::Parser as _;
use cli::{Cli, Command};
use output::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::complain(&failure);
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    match &cli.command {
        Command::Registry(command) => admin::registry(&cli.scope, command),
        Command::Device(command) => admin::device(&cli.scope, command),
        Command::Gateway(command) => admin::gateway(&cli.scope, command),
        Command::Config(command) => admin::config(&cli.scope, command),
        Command::Send(command) => admin::command(&cli.scope, command),
        Command::Audit(arguments) => admin::audit(&cli.scope, arguments),
        Command::Events(arguments) => events::follow(&cli.scope, arguments),
        Command::Serve(arguments) => serve::run(&cli.scope, arguments),
        Command::Document(which) => documents::print(which),
    }
}
