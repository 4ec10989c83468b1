//! Slot and token management functions (PKCS#11 3.2, 5.5).

use cryptoki_sys::*;
use keyrivet_core::token::{PIN_LENGTH, PinTries, TokenInfo, UserPin};

use super::general::library_version;
use super::guard;
use super::memory::{Output, Place, bytes, padded};
use crate::error::Error;
use crate::mechanism;
use crate::module::module;
use crate::slot::Slot;

/// Every slot has a token (the last one a token that waits for C_InitToken), so `token_present` changes nothing.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_GetSlotList(
    _token_present: CK_BBOOL,
    list: CK_SLOT_ID_PTR,
    count: CK_ULONG_PTR,
) -> CK_RV {
    guard(|| {
        let module = module()?;
        // SAFETY: `list` has room for `*count` numbers, as the standard has it.
        let output = unsafe { Output::new(list, count) }?;
        if list.is_null() {
            module.refresh_slots();
        }
        let ids = module.slot_ids();
        output.fill(ids.len(), || Ok(ids))
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_GetSlotInfo(slot: CK_SLOT_ID, info: CK_SLOT_INFO_PTR) -> CK_RV {
    guard(|| {
        let slot = module()?.slot(slot)?;
        let description = match slot.token_info() {
            Some(token) => format!("TPM 2.0, token {}", token.serial),
            None => "TPM 2.0, free for a new token".to_owned(),
        };
        // SAFETY: writable, if not NULL, as the standard has it.
        unsafe { Place::new(info) }?.set(CK_SLOT_INFO {
            slotDescription: padded(&description),
            manufacturerID: padded("Keyrivet"),
            flags: CKF_TOKEN_PRESENT | CKF_HW_SLOT,
            hardwareVersion: library_version(),
            firmwareVersion: library_version(),
        });
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_GetTokenInfo(slot: CK_SLOT_ID, info: CK_TOKEN_INFO_PTR) -> CK_RV {
    guard(|| {
        let module = module()?;
        let slot = module.slot(slot)?;
        // SAFETY: writable, if not NULL, as the standard has it.
        let place = unsafe { Place::new(info) }?;
        if let Some(token) = slot.token_info() {
            // As it is in the store now: another process may have set its PIN. If that cannot be read, as it was.
            let _ = module.keyrivet().token(&token.serial);
        }
        place.set(slot.token_info().map_or_else(free_token, |token| token_info(&slot, &token)));
        Ok(())
    })
}

/// The token that C_InitToken would make.
fn free_token() -> CK_TOKEN_INFO {
    CK_TOKEN_INFO {
        label: padded(""),
        manufacturerID: padded("Keyrivet"),
        model: padded("new token"),
        serialNumber: padded(""),
        flags: CKF_RNG | CKF_LOGIN_REQUIRED,
        ulMaxSessionCount: CK_EFFECTIVELY_INFINITE,
        ulSessionCount: 0,
        ulMaxRwSessionCount: CK_EFFECTIVELY_INFINITE,
        ulRwSessionCount: 0,
        ulMaxPinLen: MAX_PIN,
        ulMinPinLen: MIN_PIN,
        ulTotalPublicMemory: CK_UNAVAILABLE_INFORMATION,
        ulFreePublicMemory: CK_UNAVAILABLE_INFORMATION,
        ulTotalPrivateMemory: CK_UNAVAILABLE_INFORMATION,
        ulFreePrivateMemory: CK_UNAVAILABLE_INFORMATION,
        hardwareVersion: CK_VERSION::default(),
        firmwareVersion: CK_VERSION::default(),
        // CKF_CLOCK_ON_TOKEN is not set, so this means nothing.
        utcTime: padded(""),
    }
}

/// Shortest and longest PIN; a user's may also be empty.
const MIN_PIN: CK_ULONG = *PIN_LENGTH.start() as CK_ULONG;
const MAX_PIN: CK_ULONG = *PIN_LENGTH.end() as CK_ULONG;

fn token_info(slot: &Slot, token: &TokenInfo) -> CK_TOKEN_INFO {
    let count = slot.session_count();
    let tries = slot.token().map(|token| token.pin_tries()).unwrap_or_default();
    let version = |(major, minor)| CK_VERSION { major, minor };
    CK_TOKEN_INFO {
        label: padded(&token.label),
        manufacturerID: padded(&token.manufacturer),
        model: padded(&token.model),
        serialNumber: padded(&token.serial),
        flags: token_flags(token.user_pin, tries),
        ulSessionCount: count.all as CK_ULONG,
        ulRwSessionCount: count.read_write as CK_ULONG,
        ulMinPinLen: if token.user_pin == UserPin::Set { MIN_PIN } else { 0 },
        hardwareVersion: version(token.hardware_version),
        firmwareVersion: version(token.firmware_version),
        ..free_token()
    }
}

/// The TPM counts wrong PINs of the user and the security officer together.
fn token_flags(user_pin: UserPin, tries: PinTries) -> CK_FLAGS {
    let pin = match user_pin {
        UserPin::NotInitialized => CKF_LOGIN_REQUIRED,
        UserPin::Empty => CKF_USER_PIN_INITIALIZED,
        UserPin::Set => CKF_LOGIN_REQUIRED | CKF_USER_PIN_INITIALIZED,
    };
    let user = user_pin == UserPin::Set;
    let when = |told: bool, of_so: CK_FLAGS, of_user: CK_FLAGS| match (told, user) {
        (false, _) => 0,
        (true, false) => of_so,
        (true, true) => of_so | of_user,
    };
    CKF_TOKEN_INITIALIZED
        | CKF_RNG
        | CKF_DUAL_CRYPTO_OPERATIONS
        // What can be saved, digests, needs no key.
        | CKF_RESTORE_KEY_NOT_NEEDED
        | pin
        | when(tries.count_low, CKF_SO_PIN_COUNT_LOW, CKF_USER_PIN_COUNT_LOW)
        | when(tries.final_try, CKF_SO_PIN_FINAL_TRY, CKF_USER_PIN_FINAL_TRY)
        | when(tries.locked, CKF_SO_PIN_LOCKED, CKF_USER_PIN_LOCKED)
}

/// Tokens come and go only when C_GetSlotList looks for them, so there is never an event to tell.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_WaitForSlotEvent(
    flags: CK_FLAGS,
    slot: CK_SLOT_ID_PTR,
    reserved: CK_VOID_PTR,
) -> CK_RV {
    guard(|| {
        module()?;
        if slot.is_null() || !reserved.is_null() {
            return Err(Error(CKR_ARGUMENTS_BAD));
        }
        Err(Error(if flags & CKF_DONT_BLOCK != 0 { CKR_NO_EVENT } else { CKR_FUNCTION_NOT_SUPPORTED }))
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_GetMechanismList(
    slot: CK_SLOT_ID,
    list: CK_MECHANISM_TYPE_PTR,
    count: CK_ULONG_PTR,
) -> CK_RV {
    guard(|| {
        let slot = module()?.slot(slot)?;
        // SAFETY: `list` has room for `*count` mechanisms, as the standard has it.
        let output = unsafe { Output::new(list, count) }?;
        let kinds = mechanism::list(slot.token_info().as_deref());
        output.fill(kinds.len(), || Ok(kinds))
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_GetMechanismInfo(
    slot: CK_SLOT_ID,
    kind: CK_MECHANISM_TYPE,
    info: CK_MECHANISM_INFO_PTR,
) -> CK_RV {
    guard(|| {
        let slot = module()?.slot(slot)?;
        // SAFETY: writable, if not NULL, as the standard has it.
        let place = unsafe { Place::new(info) }?;
        place.set(mechanism::info(kind, slot.token_info().as_deref())?);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_InitToken(
    slot: CK_SLOT_ID,
    pin: CK_UTF8CHAR_PTR,
    pin_length: CK_ULONG,
    label: CK_UTF8CHAR_PTR,
) -> CK_RV {
    guard(|| {
        let module = module()?;
        if label.is_null() {
            return Err(Error(CKR_ARGUMENTS_BAD));
        }
        // SAFETY: the PIN is readable for its length, the label for 32 bytes, as the standard has it.
        let (pin, label) = unsafe { (bytes(pin, pin_length)?, bytes(label, 32)?) };
        let label = std::str::from_utf8(label).map_err(|_| Error(CKR_ARGUMENTS_BAD))?;
        module.init_token(slot, pin, label.trim_end_matches([' ', '\0']))
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_InitPIN(
    session: CK_SESSION_HANDLE,
    pin: CK_UTF8CHAR_PTR,
    pin_length: CK_ULONG,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        // SAFETY: readable for its length, if not NULL, as the standard has it.
        session.init_pin(unsafe { bytes(pin, pin_length) }?)
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_SetPIN(
    session: CK_SESSION_HANDLE,
    old: CK_UTF8CHAR_PTR,
    old_length: CK_ULONG,
    new: CK_UTF8CHAR_PTR,
    new_length: CK_ULONG,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        // SAFETY: readable for their lengths, if not NULL, as the standard has it.
        let (old, new) = unsafe { (bytes(old, old_length)?, bytes(new, new_length)?) };
        session.set_pin(old, new)
    })
}
