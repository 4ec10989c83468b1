//! What the core's errors mean to OpenSSL: a reason code with its text; the error's own words follow as its data.

use std::ffi::CStr;

use keyrivet_core::Error;

use crate::ffi::dispatch::Item;

/// A reason code in OpenSSL's error queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Reason {
    /// The PIN is wrong.
    PinIncorrect = 1,
    /// The TPM refuses PINs.
    PinLocked,
    /// A PIN is needed, or cannot be what was given.
    PinNeeded,
    /// The TPM cannot be reached.
    TpmUnavailable,
    /// The key is another TPM's.
    TpmReplaced,
    /// The TPM refused a command.
    TpmFailed,
    /// The store of keys cannot be used.
    Store,
    /// There is no such token or object.
    NotFound,
    /// The configuration is wrong.
    Configuration,
    /// Input is malformed.
    Malformed,
    /// This cannot be done.
    Unsupported,
    /// The data to be signed does not fit.
    DataInvalid,
    /// The policy of the key forbids its use now.
    PolicyFailed,
    /// A signature does not verify.
    SignatureInvalid,
    /// A fault of ours.
    Internal,
}

const fn item(reason: Reason, text: &'static CStr) -> Item {
    Item::new(reason as u32, text)
}

/// Every reason with its text.
pub(crate) static REASONS: [Item; 16] = [
    item(Reason::PinIncorrect, c"wrong PIN"),
    item(Reason::PinLocked, c"PIN locked"),
    item(Reason::PinNeeded, c"PIN needed"),
    item(Reason::TpmUnavailable, c"TPM unavailable"),
    item(Reason::TpmReplaced, c"key of another TPM"),
    item(Reason::TpmFailed, c"TPM command failed"),
    item(Reason::Store, c"key store failed"),
    item(Reason::NotFound, c"not found"),
    item(Reason::Configuration, c"wrong configuration"),
    item(Reason::Malformed, c"malformed input"),
    item(Reason::Unsupported, c"not supported"),
    item(Reason::DataInvalid, c"invalid data"),
    item(Reason::PolicyFailed, c"the key's policy does not allow its use now"),
    item(Reason::SignatureInvalid, c"invalid signature"),
    item(Reason::Internal, c"internal error"),
    Item::END,
];

/// The reason code of an error.
pub(crate) fn reason(error: &Error) -> Reason {
    match error {
        Error::PinIncorrect => Reason::PinIncorrect,
        Error::PinLocked => Reason::PinLocked,
        Error::PinLength | Error::PinNotInitialized | Error::NotLoggedIn | Error::PinKindFixed => Reason::PinNeeded,
        Error::TpmUnavailable { .. } | Error::TpmBusy { .. } => Reason::TpmUnavailable,
        Error::TpmReplaced { .. } => Reason::TpmReplaced,
        Error::Tpm { .. }
        | Error::TpmResponseForged { .. }
        | Error::StorageRootKey(_)
        | Error::TpmOutOfMemory { .. }
        | Error::TpmFull => Reason::TpmFailed,
        Error::StoreReadOnly(_) | Error::Store { .. } | Error::ObjectCorrupt { .. } => Reason::Store,
        Error::NotFound(_) | Error::TokenNotFound(_) => Reason::NotFound,
        Error::Config(_) => Reason::Configuration,
        Error::Malformed { .. } => Reason::Malformed,
        Error::Unsupported(_) => Reason::Unsupported,
        Error::DataInvalid(_) | Error::EncryptedDataInvalid => Reason::DataInvalid,
        Error::PolicyFailed(_) => Reason::PolicyFailed,
        Error::SignatureInvalid => Reason::SignatureInvalid,
    }
}
