//! Response codes (TPM 2.0 Part 2, 6.6; TSS 2.0 overview, 3.3): what they mean to us.

use crate::config::Config;
use crate::error::Error;

/// Where a code comes from: its third byte.
const LAYER: u32 = 0x00ff_0000;
const LAYER_TPM: u32 = 0;
/// A resource manager that answers in the TPM's stead.
const LAYER_RESOURCE_MANAGER_TPM: u32 = 0x000b_0000;

/// The TPM's own code, without position bits of parameter, handle or session for format-one codes.
fn tpm_code(error: &Error) -> Option<u32> {
    let code = error.response_code()?;
    if code & LAYER != LAYER_TPM && code & LAYER != LAYER_RESOURCE_MANAGER_TPM {
        return None;
    }
    let code = code & 0xffff;
    Some(if code & 0x080 != 0 { code & 0x0bf } else { code })
}

/// The connection itself failed: what was sent may or may not have been done.
pub(super) fn is_transport_failure(error: &Error) -> bool {
    matches!(error, Error::Tpm { .. } | Error::TpmUnavailable { .. }) && tpm_code(error).is_none()
}

/// Nothing came back in time: whoever asks again waits as long again.
pub(super) fn is_silence(error: &Error) -> bool {
    matches!(error, Error::Tpm { code, .. } if tpm_code(error).is_none() && code & 0xffff == 0x09)
}

/// The authValue was wrong: AUTH_FAIL, which counts towards lockout, or BAD_AUTH, which does not.
pub(crate) fn is_authorisation_failure(error: &Error) -> bool {
    matches!(tpm_code(error), Some(0x08e | 0x0a2))
}

/// LOCKOUT: the TPM refuses authorisations for now.
fn is_lockout(error: &Error) -> bool {
    tpm_code(error) == Some(0x921)
}

/// Nothing is at the handle: HANDLE, or a reserved handle of another kind (VALUE).
pub(crate) fn is_missing_handle(error: &Error) -> bool {
    matches!(tpm_code(error), Some(0x08b | 0x084))
}

/// What a handle stood for was flushed behind our back: REFERENCE_H0 and its likes for sessions.
pub(crate) fn is_gone(error: &Error) -> bool {
    matches!(tpm_code(error), Some(0x910..=0x91e)) || is_missing_handle(error)
}

/// A wrapped object is not this parent's, or is damaged: INTEGRITY, SENSITIVE, SIZE, BINDING, or no parent at all.
pub(crate) fn is_not_ours(error: &Error) -> bool {
    matches!(tpm_code(error), Some(0x09f | 0x0a5 | 0x095 | 0x08b))
}

/// A policy does not hold: POLICY_FAIL, PCR_CHANGED.
pub(super) fn is_policy_failure(error: &Error) -> bool {
    matches!(tpm_code(error), Some(0x09d | 0x128))
}

/// A signature does not verify: SIGNATURE.
pub(super) fn is_wrong_signature(error: &Error) -> bool {
    tpm_code(error) == Some(0x09b)
}

/// The TPM lacks a scheme, or the hash of one: SCHEME, HASH.
pub(crate) fn is_unknown_scheme(error: &Error) -> bool {
    matches!(tpm_code(error), Some(0x092 | 0x083))
}

/// A parameter has a value that does not fit: VALUE.
pub(super) fn is_wrong_value(error: &Error) -> bool {
    tpm_code(error) == Some(0x084)
}

/// No room for another object or session: CONTEXT_GAP, OBJECT_MEMORY, SESSION_MEMORY, MEMORY, SESSION_HANDLES,
/// OBJECT_HANDLES (Part 2, 6.6.3).
pub(super) fn is_out_of_memory(error: &Error) -> bool {
    matches!(tpm_code(error), Some(0x901..=0x906))
}

/// Something is at a persistent handle already: NV_DEFINED.
pub(super) fn is_taken(error: &Error) -> bool {
    tpm_code(error) == Some(0x14c)
}

/// No room for another persistent object: NV_SPACE.
pub(super) fn is_full(error: &Error) -> bool {
    tpm_code(error) == Some(0x14b)
}

/// Gives a failure of the connection its own error, which says where the TPM was looked for.
pub(super) fn explain(error: Error, config: &Config) -> Error {
    match error {
        Error::Tpm { code, .. } if tpm_code(&error).is_none() => unavailable(config, code),
        Error::Tpm { .. } if is_lockout(&error) => Error::PinLocked,
        other => other,
    }
}

/// The error for a TPM that cannot be reached.
pub(super) fn unavailable(config: &Config, code: u32) -> Error {
    // TSS 2.0 overview, table 2.
    let reason = match code & 0xffff {
        0x0a => "nothing listens there, or the connection broke".into(),
        0x05 | 0x0b => "libtss2 does not take this TCTI string".into(),
        0x15 => "libtss2 has no such TCTI, or its package (libtss2-tcti-...) is not installed".into(),
        0x08 | 0x09 => "it does not answer".into(),
        0x0e => "what it answers is no response to the command".into(),
        _ => format!("libtss2 says 0x{code:x}"),
    };
    Error::TpmUnavailable { tcti: config.tcti.clone(), reason }
}
