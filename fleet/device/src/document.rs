//! Manual pages and completion scripts, made from the command line's own description.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::failure::{Failure, Result};

/// The completion script of a shell.
pub(crate) fn completion(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "keyrivet", &mut script);
    script
}

/// The manual page of a command, or of all.
pub(crate) fn man(command: Option<&str>) -> Result<Vec<u8>> {
    let mut all = Cli::command();
    all.build();
    let page = match command {
        None => all,
        Some(name) => {
            let found = all.find_subcommand(name).filter(|_| name != "help").cloned();
            let found =
                found.ok_or_else(|| Failure::new(format!("there is no command '{name}': see keyrivet --help")))?;
            found.name(format!("keyrivet-{name}"))
        }
    };
    let mut text = Vec::new();
    let rendered = clap_mangen::Man::new(page).render(&mut text);
    rendered.map_err(|error| Failure::new(format!("the manual page: {error}")))?;
    Ok(text)
}
