//! The return values: what each error of the core means to a PKCS#11 application.

use std::collections::TryReserveError;
use std::io::ErrorKind;

use cryptoki_sys::*;
use keyrivet_core::log::{self, Topic};

/// What every fallible call of this crate returns.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// A `CKR_` value other than `CKR_OK`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Error(pub(crate) CK_RV);

impl From<keyrivet_core::Error> for Error {
    /// The nearest return value. The text goes to the log, for a number cannot say what to do.
    fn from(error: keyrivet_core::Error) -> Self {
        log::write(Topic::Error, format_args!("{error}"));
        Self(return_value(&error))
    }
}

impl From<TryReserveError> for Error {
    fn from(_: TryReserveError) -> Self {
        Self(CKR_HOST_MEMORY)
    }
}

/// Without `_`, so that a new error does not compile until it has its value here.
fn return_value(error: &keyrivet_core::Error) -> CK_RV {
    use keyrivet_core::Error as Core;
    match error {
        Core::PinIncorrect => CKR_PIN_INCORRECT,
        Core::PinLocked => CKR_PIN_LOCKED,
        Core::PinLength => CKR_PIN_LEN_RANGE,
        Core::PinNotInitialized => CKR_USER_PIN_NOT_INITIALIZED,
        Core::PinKindFixed => CKR_PIN_INVALID,
        Core::NotLoggedIn => CKR_USER_NOT_LOGGED_IN,
        Core::TpmUnavailable { .. } | Core::TokenNotFound(_) => CKR_DEVICE_REMOVED,
        Core::TpmReplaced { .. } => CKR_TOKEN_NOT_RECOGNIZED,
        Core::TpmBusy { .. }
        | Core::Tpm { .. }
        | Core::TpmResponseForged { .. }
        | Core::StorageRootKey(_)
        | Core::ObjectCorrupt { .. } => CKR_DEVICE_ERROR,
        Core::TpmFull | Core::TpmOutOfMemory { .. } => CKR_DEVICE_MEMORY,
        Core::StoreReadOnly(_) => CKR_TOKEN_WRITE_PROTECTED,
        Core::Store { source, .. } => match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => CKR_DEVICE_MEMORY,
            _ => CKR_DEVICE_ERROR,
        },
        Core::NotFound(_) => CKR_OBJECT_HANDLE_INVALID,
        Core::Config(_) => CKR_GENERAL_ERROR,
        Core::Malformed { .. } => CKR_ATTRIBUTE_VALUE_INVALID,
        Core::Unsupported(_) => CKR_FUNCTION_NOT_SUPPORTED,
        Core::DataInvalid(_) => CKR_DATA_INVALID,
        Core::SignatureInvalid => CKR_SIGNATURE_INVALID,
        Core::EncryptedDataInvalid => CKR_ENCRYPTED_DATA_INVALID,
        // The key is there and the user may use it; what the machine has booted forbids it.
        Core::PolicyFailed(_) => CKR_ACTION_PROHIBITED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_pin_and_a_locked_one_have_their_own_values() {
        assert_eq!(Error::from(keyrivet_core::Error::PinIncorrect), Error(CKR_PIN_INCORRECT));
        assert_eq!(Error::from(keyrivet_core::Error::PinLocked), Error(CKR_PIN_LOCKED));
    }

    #[test]
    fn a_full_disk_is_told_from_a_broken_one() {
        let with = |kind: ErrorKind| keyrivet_core::Error::Store { path: "/x".into(), source: kind.into() };
        assert_eq!(return_value(&with(ErrorKind::StorageFull)), CKR_DEVICE_MEMORY);
        assert_eq!(return_value(&with(ErrorKind::InvalidData)), CKR_DEVICE_ERROR);
    }
}
