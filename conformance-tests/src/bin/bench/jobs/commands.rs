//! Jobs that are counted and not timed: what loading, listing and making keys costs the TPM.

use std::process::Command;

use conformance_tests::Hold;

use super::Bench;
use super::cold::token_tool;
use crate::contestants::{Contestant, KEYS, Route};
use crate::report::{Better, Report, Row};

use Contestant::{Provider, Tpm2Openssl};

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    bench.arena.count(Hold::Default);
    let count = |who, command: Command| bench.arena.commands_of(who, command);
    let mut listing = row("list objects");
    for who in Contestant::MODULES {
        listing.exact(who, count(who, bench.arena.tool(who, &["--list-objects"])));
    }
    report.row(listing);
    let kinds = [("EC:prime256v1", "EC", "group:P-256"), ("rsa:2048", "RSA", "rsa_keygen_bits:2048")];
    for ((_, algorithm), (kind, name, option)) in KEYS.into_iter().zip(kinds) {
        let mut row = row(&format!("make a {algorithm} key"));
        for who in Contestant::MODULES {
            let make = ["--keypairgen", "--key-type", kind, "--label", "new", "--id", "99"];
            row.exact(who, count(who, token_tool(bench, who, &make)));
        }
        for (who, provider) in [(Provider, "provider=keyrivet"), (Tpm2Openssl, "provider=tpm2")] {
            let mut command = bench.arena.command(who, Route::Direct, "openssl");
            command.args([
                "genpkey",
                "-propquery",
                provider,
                "-algorithm",
                name,
                "-pkeyopt",
                option,
                "-out",
                "new.pem",
            ]);
            row.exact(who, count(who, command));
        }
        report.row(row);
    }
}

fn row(name: &str) -> Row {
    Row::new(name, "TPM commands", Better::Lower)
}
