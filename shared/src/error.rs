//! The one domain error. Each skin matches it without a wildcard, so a new variant does not compile
//! until the PKCS#11 module and the OpenSSL provider have both said what it means to them.

use std::fmt;
use std::path::PathBuf;

/// What every fallible call of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and (in its [`fmt::Display`]) what to do about it.
///
/// No variant carries a PIN, an authorisation value or any other secret.
#[derive(Debug)]
pub enum Error {
    /// The PIN or authorisation value is wrong.
    PinIncorrect,
    /// The TPM refuses PINs for now (dictionary-attack lockout).
    PinLocked,
    /// The PIN is longer or shorter than a token takes.
    PinLength,
    /// The token has no user PIN yet: the security officer has to set one, which may be empty.
    PinNotInitialized,
    /// The operation needs a login (or an authorisation value) that was not given.
    NotLoggedIn,
    /// A user PIN cannot become empty, or stop being empty, while keys exist.
    PinKindFixed,
    /// No TPM answers at the configured TCTI.
    TpmUnavailable {
        /// The TCTI string that was tried.
        tcti: String,
        /// What libtss2 or the system said.
        reason: String,
    },
    /// Another process held the TPM for longer than we are willing to wait.
    TpmBusy {
        /// Who holds it, as far as the system tells.
        holder: String,
    },
    /// The TPM is not the one the token was made with, or it was cleared since.
    TpmReplaced {
        /// What cannot be used any more: a token's label or a key file.
        what: String,
    },
    /// The TPM answered a command with an unexpected response code.
    Tpm {
        /// TPM 2.0 Part 3 name of the command.
        command: &'static str,
        /// The response code, as in TPM 2.0 Part 2, 6.6.
        code: u32,
    },
    /// A response of the TPM did not carry a valid HMAC: something between us and the TPM changed it.
    TpmResponseForged {
        /// TPM 2.0 Part 3 name of the command.
        command: &'static str,
    },
    /// The TPM has no room for another loaded key or session, also after what we could do about it.
    TpmOutOfMemory {
        /// TPM 2.0 Part 3 name of the command.
        command: &'static str,
        /// The response code, as in TPM 2.0 Part 2, 6.6.3.
        code: u32,
    },
    /// The TPM has no room for another persistent key.
    TpmFull,
    /// The storage root key cannot be made or used; the text says which command would help.
    StorageRootKey(String),
    /// The store, or one of its files, may not be written by this user.
    StoreReadOnly(PathBuf),
    /// Reading or writing the store failed.
    Store {
        /// The file or directory concerned.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// One file of the store cannot be understood. All the others go on working.
    ObjectCorrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no such object or key.
    NotFound(String),
    /// There is no such token, or not any more.
    TokenNotFound(String),
    /// The configuration is wrong.
    Config(String),
    /// Bytes from outside (a PEM, a URI, a template's value) are malformed.
    Malformed {
        /// What was being read.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// This key, token or TPM cannot do that.
    Unsupported(String),
    /// The data given has a length or a form that the scheme does not take.
    DataInvalid(String),
    /// The signature does not verify.
    SignatureInvalid,
    /// The ciphertext does not decrypt: its padding or length is wrong.
    EncryptedDataInvalid,
    /// The key's policy does not allow its use now; the text says why.
    PolicyFailed(String),
}

impl Error {
    pub(crate) fn malformed(what: &'static str, reason: impl fmt::Display) -> Self {
        Self::Malformed { what, reason: reason.to_string() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PinIncorrect => f.write_str("the PIN is wrong, or the key's authorisation value"),
            Self::PinLocked => f.write_str(
                "the TPM refuses PINs for now after too many wrong ones: wait for its recovery time, or run tpm2_dictionarylockout --clear-lockout",
            ),
            Self::PinLength => f.write_str("the PIN is too short or too long: 4 to 64 bytes, or empty for a user who needs none"),
            Self::PinNotInitialized => {
                f.write_str("the token has no user PIN yet: set one (or an empty one) as security officer, e.g. pkcs11-tool --init-pin")
            }
            Self::NotLoggedIn => f.write_str(
                "this needs a login: give the token's PIN, or the key's authorisation value; a URI may name a file with it, ?pin-source=file:FILE",
            ),
            Self::PinKindFixed => f.write_str(
                "a user PIN cannot become empty, or stop being empty, while the token has keys: make a new token instead",
            ),
            Self::TpmUnavailable { tcti, reason } => write!(
                f,
                "no TPM at '{tcti}': {reason}; check that it is there and that you may use it (a device: group tss), or set KEYRIVET_TCTI"
            ),
            Self::TpmBusy { holder } => write!(f, "the TPM stays in use by {holder}: try again, or end that process"),
            Self::TpmReplaced { what } => write!(
                f,
                "{what} belongs to another TPM, or this TPM was cleared since it was made: its keys are gone for good, make new ones"
            ),
            Self::Tpm { command, code } => write!(f, "TPM2_{command} failed with 0x{code:03x} (tpm2_rc_decode 0x{code:x} explains it)"),
            Self::TpmResponseForged { command } => {
                write!(f, "the response to TPM2_{command} was not authenticated by the TPM: something on the way changed it")
            }
            Self::TpmOutOfMemory { command, code } => write!(
                f,
                "TPM2_{command} failed with 0x{code:03x}: the TPM has no room, as other programs hold keys or sessions in it \
                 (tpm2_getcap handles-transient, handles-loaded-session); end them, or have everybody use a resource manager \
                 (/dev/tpmrm0)"
            ),
            Self::TpmFull => f.write_str(
                "the TPM has no room for another persistent key: remove one (tpm2_getcap handles-persistent lists them), or leave this one in its file",
            ),
            Self::StorageRootKey(what) => f.write_str(what),
            Self::StoreReadOnly(path) => write!(f, "may not write {}: check its owner and mode", path.display()),
            Self::Store { path, source } => write!(f, "{}: {source}", path.display()),
            Self::ObjectCorrupt { path, reason } => {
                write!(f, "{} is damaged ({reason}): restore it from a backup or remove it", path.display())
            }
            Self::NotFound(what) | Self::TokenNotFound(what) => write!(f, "{what} not found"),
            Self::Config(what) => write!(f, "configuration: {what}"),
            Self::Malformed { what, reason } => write!(f, "malformed {what}: {reason}"),
            Self::Unsupported(what) => write!(f, "not supported: {what}"),
            Self::DataInvalid(what) => write!(f, "data: {what}"),
            Self::SignatureInvalid => f.write_str("the signature does not verify"),
            Self::EncryptedDataInvalid => f.write_str("the data does not decrypt with this key and scheme"),
            Self::PolicyFailed(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store { source, .. } => Some(source),
            _ => None,
        }
    }
}
