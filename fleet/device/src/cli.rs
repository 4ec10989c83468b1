//! The command line: what there is to be asked for, and how each of it is explained.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use serde_json::Value;

/// A device's work with keys that its TPM keeps.
///
/// TPM and store are those of the PKCS#11 module and the OpenSSL provider: keyrivet.toml(5) names them.
#[derive(Parser)]
#[command(name = "keyrivet", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    Jwt(JwtRequest),
    /// Print a shell's completion script
    ///
    /// For bash: keyrivet completion bash >/usr/share/bash-completion/completions/keyrivet
    Completion {
        /// The shell
        shell: Shell,
    },
    /// Print a manual page (roff)
    ///
    /// For all of them: keyrivet man >keyrivet.1; keyrivet man jwt >keyrivet-jwt.1
    Man {
        /// The command; without it, the page about all of them
        command: Option<String>,
    },
}

/// Print a token (JWT) that the TPM signs: the password of an MQTT client, or the bearer of an HTTP request
///
/// The token goes to standard output, and nothing else does.
#[derive(Args)]
#[command(after_help = JWT_EXAMPLES, after_long_help = JWT_EXAMPLES)]
pub(crate) struct JwtRequest {
    /// The key: a pkcs11: URI, a key file, or handle:0x81......
    ///
    /// A file holds a TSS2 PRIVATE KEY, or a pkcs11: URI under the label PKCS#11 PROVIDER URI. A token's PIN is taken
    /// from --pin-file, else from the URI's pin-source, else asked for on the terminal. A handle may be followed by
    /// ?pin-source=FILE or ?pass, where its key has an authorisation value.
    #[arg(long, value_name = "URI|FILE")]
    pub(crate) key: String,

    /// For whom the token is: a registry wants its project's name
    #[arg(long, value_name = "AUDIENCE")]
    pub(crate) aud: String,

    /// How long it is valid from now on: 90s, 20m, 1h, 1d
    ///
    /// Registries in IoT Core's style take 24 hours at most, and end the connection when the token expires.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration)]
    pub(crate) exp: Duration,

    /// How it is signed; by default as the key suggests: RS256, ES256 (P-256) or ES384 (P-384)
    #[arg(long, value_enum, ignore_case = true)]
    pub(crate) alg: Option<Algorithm>,

    /// A claim more: name=text, or name:=JSON for numbers, lists and the like. May be given several times
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = claim)]
    pub(crate) claims: Vec<(String, Value)>,

    /// The file whose first line is the PIN of the key's token, or the authorisation value of its file
    #[arg(long, value_name = "FILE")]
    pub(crate) pin_file: Option<PathBuf>,
}

const JWT_EXAMPLES: &str = "\
Examples:
  mosquitto_pub -h broker -p 8883 --cafile ca.crt -u unused \\
      -i projects/my-project/locations/eu/registries/r/devices/sensor \\
      -P \"$(keyrivet jwt --key device.pem --aud my-project)\" \\
      -q 1 -t /devices/sensor/events -m hello

  keyrivet jwt --key 'pkcs11:token=gateway;object=rsa?pin-source=file:/etc/gateway.pin' \\
      --aud my-project --exp 20m --claim role=gateway --claim 'level:=3'";

/// An algorithm of JWS (RFC 7518, 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub(crate) enum Algorithm {
    /// RSA, PKCS#1 v1.5
    Rs256,
    /// RSA, PSS
    Ps256,
    /// P-256
    Es256,
    /// P-384
    Es384,
}

/// The claims that have options of their own.
const OWN_CLAIMS: [(&str, &str); 3] = [
    ("aud", "give it with --aud"),
    ("exp", "give the time from now on with --exp"),
    ("iat", "it is the time of signing"),
];

fn claim(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("there is no '=': write name=text or name:=JSON")?;
    let (name, value) = match name.strip_suffix(':') {
        Some(name) => (name, serde_json::from_str(value).map_err(|error| format!("'{value}' is not JSON: {error}"))?),
        None => (name, Value::from(value)),
    };
    if name.is_empty() {
        return Err("the claim has no name".to_owned());
    }
    match OWN_CLAIMS.iter().find(|(own, _)| *own == name) {
        Some((_, instead)) => Err(format!("the claim {name} is not for --claim: {instead}")),
        None => Ok((name.to_owned(), value)),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is not a time like 90s, 20m, 1h or 1d");
    let (number, unit) = text.split_at(text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).len());
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err(wrong()),
    };
    match number.checked_mul(unit) {
        Some(0) => Err("the token would never be valid".to_owned()),
        Some(seconds) if seconds <= 100 * 366 * 24 * 3600 => Ok(Duration::from_secs(seconds)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_have_units() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("20m", 1200), ("1h", 3600), ("2d", 172_800)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "h", "0s", "-1h", "1.5h", "1w", "99999999999999999999s", "18446744073709551615d", "200000d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn claims_are_text_unless_they_are_said_to_be_json() {
        assert_eq!(claim("level=3"), Ok(("level".into(), Value::from("3"))));
        assert_eq!(claim("level:=3"), Ok(("level".into(), Value::from(3))));
        assert_eq!(claim("a=b=c"), Ok(("a".into(), Value::from("b=c"))));
        for (text, why) in [("level", "no '='"), ("=3", "no name"), ("a:=x", "not JSON"), ("aud=x", "--aud")] {
            assert!(claim(text).unwrap_err().contains(why), "{text}");
        }
    }
}
