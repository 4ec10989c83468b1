//! The ways to have the provider activated: each of them has to do.

// Each file of tests uses its part of this.
#![allow(dead_code)]

use std::process::Command;

use conformance_tests::{Device, Output, Run as _};

/// How `openssl` comes to the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// By a configuration that lists `default` first.
    DefaultFirst,
    /// By a configuration that lists it first.
    KeyrivetFirst,
    /// By a configuration with the property query `?provider=keyrivet` besides.
    Preferred,
    /// By options of the command, that property query among them.
    CommandLine,
}

/// Those that any program can be told.
pub(crate) const ALL: [Activation; 3] = [Activation::DefaultFirst, Activation::KeyrivetFirst, Activation::Preferred];

const OPTIONS: [&str; 6] = ["-provider", "keyrivet", "-provider", "default", "-propquery", "?provider=keyrivet"];

const PROVIDERS: &str = "
[keyrivet_provider]
activate = 1

[default_provider]
activate = 1

[req]
distinguished_name = name

[name]

[authority]
basicConstraints = critical, CA:TRUE
subjectKeyIdentifier = hash
";

impl Activation {
    /// Writes the configuration; its file name.
    pub(crate) fn configuration(self, device: &Device) -> String {
        let (default, keyrivet) = ("default = default_provider\n", "keyrivet = keyrivet_provider\n");
        let (init, order) = match self {
            Self::DefaultFirst => ("", [default, keyrivet]),
            Self::KeyrivetFirst => ("", [keyrivet, default]),
            Self::Preferred => ("alg_section = algorithms\n", [default, keyrivet]),
            Self::CommandLine => ("", ["", ""]),
        };
        let preference = "[algorithms]\ndefault_properties = ?provider=keyrivet\n";
        let text = format!(
            "openssl_conf = init\n[init]\nproviders = providers\n{init}[providers]\n{}{preference}{PROVIDERS}",
            order.concat()
        );
        let name = format!("{self:?}.cnf");
        device.write(&name, text);
        device.path(&name).to_str().unwrap().to_owned()
    }

    /// Runs `openssl` so; the words of a command line are separated by blanks.
    pub(crate) fn openssl(self, device: &Device, line: &str) -> Output {
        self.command(device, line).run()
    }

    /// `openssl` as it is run so.
    pub(crate) fn command(self, device: &Device, line: &str) -> Command {
        let (job, arguments) = line.split_once(' ').unwrap_or((line, ""));
        let mut command = device.command("openssl");
        command.env("OPENSSL_CONF", self.configuration(device)).arg(job);
        if self == Self::CommandLine {
            command.args(OPTIONS);
        }
        command.args(arguments.split_whitespace());
        command
    }
}

/// Runs `openssl` without the provider.
pub(crate) fn plain_openssl(device: &Device, line: &str) -> Output {
    device.command("openssl").args(line.split_whitespace()).run()
}
