//! One typed configuration: environment over file over default; unknown keys are errors.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::error::{Error, Result};

/// Where the configuration file is looked for unless `KEYRIVET_CONFIG` names one.
pub const DEFAULT_FILE: &str = "/etc/keyrivet/keyrivet.toml";
/// The store of the system.
const SYSTEM_STORE: &str = "/var/lib/keyrivet";
const DEFAULT_TCTI: &str = "device:/dev/tpmrm0";

/// The configuration of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The TCTI string, passed to libtss2's loader unchanged, e.g. `device:/dev/tpmrm0`.
    pub tcti: String,
    /// The store's directory.
    pub store: PathBuf,
    /// Where the lock file of a TPM without resource manager lies; `None` for the usual places.
    pub lock_dir: Option<PathBuf>,
    /// How long connection, session and key stay held after the last use.
    pub hold: Duration,
    /// How long they stay held in all on a TPM without resource manager, so that other processes get their turn.
    pub hold_at_most: Duration,
}

/// The file's keys.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct File {
    tcti: Option<String>,
    store: Option<PathBuf>,
    lock_dir: Option<PathBuf>,
    hold_ms: Option<u64>,
    hold_at_most_ms: Option<u64>,
}

impl Config {
    /// Reads the file (`KEYRIVET_CONFIG`, else [`DEFAULT_FILE`] if it is there) and the environment.
    ///
    /// Errors: [`Error::Config`] for a named file that cannot be read, and for text in it that is not ours.
    pub fn load() -> Result<Self> {
        Self::from_sources(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_sources(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let file = match variable("KEYRIVET_CONFIG") {
            Some(path) => read(Path::new(&path))?,
            None if Path::new(DEFAULT_FILE).exists() => read(Path::new(DEFAULT_FILE))?,
            None => File::default(),
        };
        let tcti = variable("KEYRIVET_TCTI")
            .or(file.tcti)
            .or_else(|| variable("TPM2OPENSSL_TCTI"))
            .or_else(|| variable("TPM2TOOLS_TCTI"))
            .unwrap_or_else(|| DEFAULT_TCTI.into());
        let store = match variable("KEYRIVET_STORE").map(PathBuf::from).or(file.store) {
            Some(store) => store,
            None if Path::new(SYSTEM_STORE).is_dir() => SYSTEM_STORE.into(),
            None => user_store(&variable)?,
        };
        Ok(Self {
            tcti,
            store,
            lock_dir: file.lock_dir,
            hold: Duration::from_millis(file.hold_ms.unwrap_or(20)),
            hold_at_most: Duration::from_millis(file.hold_at_most_ms.unwrap_or(200)),
        })
    }
}

fn read(path: &Path) -> Result<File> {
    let wrong = |reason: &dyn std::fmt::Display| Error::Config(format!("{}: {reason}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    toml::from_str(&text).map_err(|error| wrong(&error))
}

fn user_store(variable: &impl Fn(&str) -> Option<String>) -> Result<PathBuf> {
    let data = variable("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".local/share")));
    data.map(|data| data.join("keyrivet")).ok_or_else(|| {
        Error::Config(format!("no place for keys: make {SYSTEM_STORE}, or set KEYRIVET_STORE to a directory"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str, variables: &[(&str, &str)]) -> Result<Config> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        Config::from_sources(|name| match name {
            "KEYRIVET_CONFIG" => Some(path.clone()),
            _ => variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()),
        })
    }

    #[test]
    fn environment_goes_before_file_and_file_before_default() {
        let text = "tcti = 'file'\nstore = '/s'\nhold_ms = 5\n";
        let config = with(text, &[("KEYRIVET_TCTI", "variable"), ("TPM2TOOLS_TCTI", "last")]).unwrap();
        assert_eq!((config.tcti.as_str(), config.store.as_path()), ("variable", Path::new("/s")));
        assert_eq!(config.hold, Duration::from_millis(5));
        assert_eq!(with(text, &[("TPM2TOOLS_TCTI", "last")]).unwrap().tcti, "file");
        assert_eq!(with("store = '/s'", &[("TPM2TOOLS_TCTI", "last")]).unwrap().tcti, "last");
        assert_eq!(with("store = '/s'", &[]).unwrap().tcti, DEFAULT_TCTI);
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let error = with("tctii = 'x'", &[]).unwrap_err().to_string();
        assert!(error.contains("tctii"), "{error}");
    }
}
