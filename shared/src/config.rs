//! One typed configuration: environment over file over default; unknown keys are errors.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use zeroize::Zeroizing;

use crate::environment::variable;
use crate::error::{Error, Result};
use crate::policy::PcrSelection;

/// Where the configuration file is looked for unless `KEYRIVET_CONFIG` names one.
pub const DEFAULT_FILE: &str = "/etc/keyrivet/keyrivet.toml";
/// The store of the system.
const SYSTEM_STORE: &str = "/var/lib/keyrivet";
const DEFAULT_TCTI: &str = "device:/dev/tpmrm0";

/// The configuration of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The TCTI string, e.g. `device:/dev/tpmrm0`: which TPM, and by which way to it.
    pub tcti: String,
    /// The store's directory.
    pub store: PathBuf,
    /// Where the lock file of a TPM without resource manager lies; `None` for the usual places.
    pub lock_dir: Option<PathBuf>,
    /// How long connection, session and key stay held after the last use.
    pub hold: Duration,
    /// How long they stay held in all on a TPM without resource manager, where other processes wait for their turn, and after
    /// the last use at most.
    pub hold_at_most: Duration,
    /// Longest wait for the TPM's answer to one command.
    pub timeout: Duration,
    /// Longest wait for another process: one that writes the store, or has its turn at a TPM without resource manager.
    pub patience: Duration,
    /// Sign SHA-1 digests too, for peers that know nothing better.
    pub sha1_signatures: bool,
    /// PCRs whose present values every new key is bound to.
    pub pcrs: Option<PcrSelection>,
    /// What is in the TPM already and is to be an object of a token.
    pub adopt: Vec<Adopt>,
    /// Parents of key files that have an authValue.
    pub parents: Vec<ParentAuth>,
}

/// The authValue of a parent of key files.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ParentAuth {
    /// A persistent key, or a hierarchy (0x40000001 owner).
    pub handle: u32,
    /// The file with its authValue.
    pub auth_file: PathBuf,
}

/// A persistent key or an NV certificate to be adopted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopt {
    /// Label of the token that adopts it.
    pub token: String,
    /// Handle of a persistent key (0x81......) or of an NV index with a certificate (0x01......).
    pub handle: u32,
    /// `CKA_LABEL` of the objects.
    pub label: String,
    /// `CKA_ID` of the objects; empty for the SHA-1 of the public key.
    pub id: Vec<u8>,
    /// The file with the key's authValue; `None` for an empty one.
    pub auth_file: Option<PathBuf>,
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
    timeout_ms: Option<u64>,
    patience_ms: Option<u64>,
    sha1_signatures: bool,
    pcrs: Option<String>,
    adopt: Vec<AdoptText>,
    parent: Vec<ParentAuth>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AdoptText {
    token: String,
    handle: u32,
    #[serde(default)]
    label: String,
    #[serde(default)]
    id: String,
    auth_file: Option<PathBuf>,
}

impl AdoptText {
    fn read(self) -> Result<Adopt> {
        let wrong = |what: &str| Error::Config(format!("adopt 0x{:08x}: {what}", self.handle));
        if !matches!(self.handle >> 24, 0x01 | 0x81) {
            return Err(wrong("a handle of a persistent key is 0x81......, of an NV index 0x01......"));
        }
        let id = crate::hex::decode(&self.id).ok_or_else(|| wrong("its id is not in hexadecimal"))?;
        Ok(Adopt { token: self.token, handle: self.handle, label: self.label, id, auth_file: self.auth_file })
    }
}

impl Config {
    /// Reads the file (`KEYRIVET_CONFIG`, else [`DEFAULT_FILE`] if it is there) and the environment.
    ///
    /// Errors: [`Error::Config`] for a file that is named or there and cannot be read, and for text in it that is not ours.
    pub fn load() -> Result<Self> {
        Self::load_with(|_| None)
    }

    /// As [`Self::load`], with values of the host's own configuration (openssl.cnf's) for the keys `tcti`, `store` and
    /// `config`, the file. The environment goes before them, they before the file.
    pub fn load_with(host: impl Fn(&str) -> Option<String>) -> Result<Self> {
        Self::from_sources(variable, host)
    }

    fn from_sources(variable: impl Fn(&str) -> Option<String>, host: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let file = match variable("KEYRIVET_CONFIG").or_else(|| host("config")) {
            Some(path) => read(Path::new(&path))?,
            None => read_if_there(Path::new(DEFAULT_FILE))?,
        };
        let tcti = variable("KEYRIVET_TCTI")
            .or_else(|| host("tcti"))
            .or(file.tcti)
            .or_else(|| variable("TPM2OPENSSL_TCTI"))
            .or_else(|| variable("TPM2TOOLS_TCTI"))
            .unwrap_or_else(|| DEFAULT_TCTI.into());
        let store = variable("KEYRIVET_STORE").or_else(|| host("store")).map(PathBuf::from).or(file.store);
        let store = match store {
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
            // A slow TPM makes an RSA-4096 key in minutes.
            timeout: Duration::from_millis(file.timeout_ms.unwrap_or(300_000)),
            patience: Duration::from_millis(file.patience_ms.unwrap_or(60_000)),
            sha1_signatures: file.sha1_signatures,
            pcrs: file.pcrs.map(|text| text.parse()).transpose()?,
            adopt: file.adopt.into_iter().map(AdoptText::read).collect::<Result<_>>()?,
            parents: file.parent,
        })
    }

    /// The authValue of a parent of key files, empty unless the configuration names a file with it.
    pub(crate) fn parent_auth(&self, handle: u32) -> Result<Zeroizing<Vec<u8>>> {
        let Some(entry) = self.parents.iter().find(|entry| entry.handle == handle) else {
            return Ok(Zeroizing::default());
        };
        auth_value(&entry.auth_file)
    }
}

/// The authValue in a file. A newline at its end, which most editors leave there, is none of it.
pub(crate) fn auth_value(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let mut value =
        std::fs::read(path).map(Zeroizing::new).map_err(|source| Error::Store { path: path.to_owned(), source })?;
    if value.ends_with(b"\n") {
        value.pop();
    }
    Ok(value)
}

fn read(path: &Path) -> Result<File> {
    let wrong = |reason: &dyn std::fmt::Display| Error::Config(format!("{}: {reason}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    toml::from_str(&text).map_err(|error| wrong(&error))
}

/// A file whose directory may not be searched counts as there: nobody can tell what it says.
fn read_if_there(path: &Path) -> Result<File> {
    match path.try_exists() {
        Ok(false) => Ok(File::default()),
        Ok(true) | Err(_) => read(path),
    }
}

fn user_store(variable: &impl Fn(&str) -> Option<String>) -> Result<PathBuf> {
    let data = variable("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".local/share")));
    data.map(|data| data.join("keyrivet")).ok_or_else(|| {
        Error::Config(format!(
            "no place for keys: make {SYSTEM_STORE}, or set KEYRIVET_STORE to a directory (store in {DEFAULT_FILE}, where a program \
             with more rights than its user does not read the environment)"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str, variables: &[(&str, &str)]) -> Result<Config> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        let given =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Config::from_sources(
            |name| match name {
                "KEYRIVET_CONFIG" => Some(path.clone()),
                _ => given(name),
            },
            given,
        )
    }

    #[test]
    fn environment_goes_before_file_and_file_before_default() {
        let text = "tcti = 'file'\nstore = '/s'\nhold_ms = 5\n";
        let config = with(text, &[("KEYRIVET_TCTI", "variable"), ("TPM2TOOLS_TCTI", "last")]).unwrap();
        assert_eq!((config.tcti.as_str(), config.store.as_path()), ("variable", Path::new("/s")));
        assert_eq!(config.hold, Duration::from_millis(5));
        assert_eq!(with(text, &[("tcti", "host"), ("KEYRIVET_TCTI", "variable")]).unwrap().tcti, "variable");
        assert_eq!(with(text, &[("tcti", "host")]).unwrap().tcti, "host");
        assert_eq!(with(text, &[("TPM2TOOLS_TCTI", "last")]).unwrap().tcti, "file");
        assert_eq!(with("store = '/s'", &[("TPM2TOOLS_TCTI", "last")]).unwrap().tcti, "last");
        assert_eq!(with("store = '/s'", &[]).unwrap().tcti, DEFAULT_TCTI);
    }

    #[test]
    fn what_is_to_be_adopted_and_bound_is_read() {
        let text =
            "sha1_signatures = true\npcrs = 'sha256:0,7'\n[[adopt]]\ntoken = 't'\nhandle = 0x81010001\nid = '01'\n";
        let config = with(text, &[("KEYRIVET_STORE", "/s")]).unwrap();
        assert!(config.sha1_signatures);
        assert_eq!(config.pcrs.unwrap().to_string(), "sha256:0,7");
        assert_eq!((config.adopt[0].handle, config.adopt[0].id.as_slice()), (0x8101_0001, &[1][..]));
        let parent = "[[parent]]\nhandle = 0x81000002\nauth_file = '/f'\n";
        let config = with(parent, &[("KEYRIVET_STORE", "/s")]).unwrap();
        assert_eq!((config.parents[0].handle, config.parents[0].auth_file.as_path()), (0x8100_0002, Path::new("/f")));
        assert!(config.parent_auth(0x8100_0003).unwrap().is_empty());
        assert!(config.parent_auth(0x8100_0002).is_err());
        for wrong in ["pcrs = 'x'", "[[adopt]]\ntoken = 't'\nhandle = 5", "[[adopt]]\ntoken = 't'"] {
            assert!(with(wrong, &[("KEYRIVET_STORE", "/s")]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_default_file_may_be_missing_but_not_unreadable() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read_if_there(&folder.path().join("absent")).is_ok());
        std::fs::write(folder.path().join("file"), "").unwrap();
        // Root may search any directory, but a file is none.
        let error = read_if_there(&folder.path().join("file/keyrivet.toml")).map(drop).unwrap_err().to_string();
        assert!(error.contains("file/keyrivet.toml: Not a directory"), "{error}");
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let error = with("tctii = 'x'", &[]).unwrap_err().to_string();
        assert!(error.contains("tctii"), "{error}");
    }
}
