//! What the TPM can do and how its lockout stands: `TPM2_GetCapability` and `TPM2_TestParms`.

use super::connection::Connection;
use super::object::OWNER;
use super::response;
use super::sapi::NvPublic;
use crate::algorithm::{CipherMode, Curve, HashAlgorithm};
use crate::error::{Error, Result};
use crate::policy::PcrSelection;

/// `TPM_CAP` (TPM 2.0 Part 2, 6.12).
const CAP_ALGS: u32 = 0;
const CAP_HANDLES: u32 = 1;
const CAP_COMMANDS: u32 = 2;
const CAP_TPM_PROPERTIES: u32 = 6;
const CAP_ECC_CURVES: u32 = 8;

/// Commands that not every TPM has (Part 2, 6.5.2).
const CC_HMAC: u32 = 0x155;
const CC_ENCRYPT_DECRYPT_2: u32 = 0x193;

/// The most values that `TPM2_PCR_Read` gives at once (`TPML_DIGEST`, Part 2, 10.9.5).
const MOST_PCRS: usize = 8;
/// The most that we read of an NV index at once: what every TPM gives.
const NV_STRETCH: u16 = 512;
/// The most random bytes that we ask for at once: a digest, which is what a TPM gives (Part 3, 16.1).
const RANDOM_STRETCH: u16 = 32;

/// `TPM_PT` (Part 2, 6.13).
const PT_FIXED: u32 = 0x100;
const PT_REVISION: u32 = PT_FIXED + 2;
const PT_MANUFACTURER: u32 = PT_FIXED + 5;
const PT_VENDOR_STRING_1: u32 = PT_FIXED + 6;
const PT_FIRMWARE_VERSION_1: u32 = PT_FIXED + 11;
const PT_PERMANENT: u32 = 0x200;
const PT_LOCKOUT_COUNTER: u32 = 0x20e;
const PT_MAX_AUTH_FAIL: u32 = 0x20f;
/// The bit of `TPMA_PERMANENT` that tells of the lockout.
const IN_LOCKOUT: u32 = 1 << 9;

/// What login attempts told this process about the TPM's lockout, last seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PinTries {
    /// Wrong PINs were counted.
    pub count_low: bool,
    /// One more wrong PIN locks.
    pub final_try: bool,
    /// The TPM refuses PINs.
    pub locked: bool,
}

/// What a token records of its TPM.
pub(crate) struct Capabilities {
    pub(crate) manufacturer: String,
    pub(crate) model: String,
    pub(crate) hardware_version: (u8, u8),
    pub(crate) firmware_version: (u8, u8),
    pub(crate) rsa_bits: Vec<u16>,
    pub(crate) curves: Vec<Curve>,
    pub(crate) hashes: Vec<HashAlgorithm>,
    pub(crate) aes_bits: Vec<u16>,
    pub(crate) cipher_modes: Vec<CipherMode>,
    pub(crate) mac_hashes: Vec<HashAlgorithm>,
}

/// Asks the TPM what it is and what it can do.
pub(crate) fn read_capabilities(connection: &mut Connection) -> Result<Capabilities> {
    let sapi = &mut connection.sapi;
    let properties = sapi.get_capability(CAP_TPM_PROPERTIES, PT_FIXED, 64)?;
    let property = |wanted| properties.iter().find(|(id, _)| *id == wanted).map_or(0, |(_, value)| *value);
    let model: String = (PT_VENDOR_STRING_1..PT_VENDOR_STRING_1 + 4).map(|id| text(property(id))).collect();
    let revision = property(PT_REVISION);
    let firmware = property(PT_FIRMWARE_VERSION_1);
    let algorithms = sapi.get_capability(CAP_ALGS, 0, 127)?;
    let curves = sapi.get_capability(CAP_ECC_CURVES, 0, 64)?;
    let mut rsa_bits = Vec::new();
    for bits in [2048, 3072, 4096] {
        if sapi.test_rsa(bits).is_ok() {
            rsa_bits.push(bits);
        }
    }
    let commands = sapi.get_capability(CAP_COMMANDS, 0, 254)?;
    let has_command = |wanted| commands.iter().any(|(command, _)| *command == wanted);
    let mut aes_bits = Vec::new();
    for bits in [128, 256] {
        if has_command(CC_ENCRYPT_DECRYPT_2) && sapi.test_aes(bits).is_ok() {
            aes_bits.push(bits);
        }
    }
    let has_algorithm = |wanted: u16| algorithms.iter().any(|(id, _)| *id == u32::from(wanted));
    let has_hash = |hash: &HashAlgorithm| hash.tpm_algorithm().is_some_and(has_algorithm);
    let hashes: Vec<_> = HashAlgorithm::all().filter(has_hash).collect();
    Ok(Capabilities {
        manufacturer: text(property(PT_MANUFACTURER)).trim().into(),
        model: model.trim().into(),
        hardware_version: ((revision / 100) as u8, (revision % 100) as u8),
        firmware_version: ((firmware >> 16).min(255) as u8, (firmware & 0xffff).min(255) as u8),
        rsa_bits,
        curves: Curve::all().filter(|curve| curves.iter().any(|(id, _)| *id == curve.tpm_curve().into())).collect(),
        cipher_modes: CipherMode::all()
            .filter(|mode| !aes_bits.is_empty() && has_algorithm(mode.tpm_algorithm()))
            .collect(),
        mac_hashes: if has_command(CC_HMAC) { hashes.clone() } else { Vec::new() },
        aes_bits,
        hashes,
    })
}

/// Handles of all persistent objects.
pub(crate) fn persistent_handles(connection: &mut Connection) -> Result<Vec<u32>> {
    let handles = connection.sapi.get_capability(CAP_HANDLES, 0x8100_0000, 254)?;
    Ok(handles.into_iter().map(|(handle, _)| handle).filter(|handle| handle >> 24 == 0x81).collect())
}

/// The digest over the values that PCRs have now (Part 3, 23.7).
pub(crate) fn read_pcrs(connection: &mut Connection, selection: &PcrSelection) -> Result<Vec<u8>> {
    let mut values = Vec::new();
    for part in selection.parts(MOST_PCRS) {
        let read = connection.sapi.pcr_read(&part.to_bytes())?;
        if read.len() != part.count() {
            return Err(Error::Unsupported(format!("PCRs {part}: this TPM does not have them")));
        }
        values.extend(read);
    }
    Ok(HashAlgorithm::Sha256.digest(&values.concat()))
}

/// The content of an NV index that anybody may read, or the owner with an empty authValue.
pub(crate) fn read_nv(connection: &mut Connection, index: u32) -> Result<Vec<u8>> {
    let sapi = &mut connection.sapi;
    let NvPublic { size, by_owner, by_itself } =
        sapi.nv_read_public(index).map_err(|error| match response::is_missing_handle(&error) {
            true => Error::NotFound(format!("an NV index 0x{index:08x}")),
            false => error,
        })?;
    let mut content = Vec::with_capacity(size.into());
    // The owner may have an authValue, of which wrong ones are not counted; those of an index are, unless it says otherwise.
    let unreadable = || {
        Error::Unsupported(format!(
            "reading the NV index 0x{index:08x} without an authorisation value: a wrong try would count (make it with \
             authread and no_da, or with ownerread where the owner has no authorisation value)"
        ))
    };
    let mut authority = match (by_owner, by_itself) {
        (true, _) => OWNER,
        (false, true) => index,
        (false, false) => return Err(unreadable()),
    };
    while content.len() < size.into() {
        let offset = content.len() as u16;
        let length = (size - offset).min(NV_STRETCH);
        match sapi.nv_read(authority, index, length, offset) {
            Ok(part) if part.is_empty() => return Err(Error::malformed("NV index", "it is shorter than it says")),
            Ok(part) => content.extend_from_slice(&part),
            Err(error) if authority == OWNER && response::is_authorisation_failure(&error) => {
                authority = if by_itself { index } else { return Err(unreadable()) };
            }
            Err(error) => return Err(error),
        }
    }
    Ok(content)
}

/// Fills `buffer` with random bytes of the TPM.
pub(crate) fn read_random(connection: &mut Connection, buffer: &mut [u8]) -> Result<()> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let random = connection.sapi.get_random(rest.len().min(usize::from(RANDOM_STRETCH)) as u16)?;
        let length = random.len().min(rest.len());
        if length == 0 {
            return Err(Error::malformed("random numbers of the TPM", "it gives none"));
        }
        rest[..length].copy_from_slice(&random[..length]);
        filled += length;
    }
    Ok(())
}

/// How the TPM's lockout stands.
pub(crate) fn read_lockout(connection: &mut Connection) -> Result<PinTries> {
    let properties = connection.sapi.get_capability(CAP_TPM_PROPERTIES, PT_PERMANENT, 32)?;
    let property = |wanted| properties.iter().find(|(id, _)| *id == wanted).map_or(0, |(_, value)| *value);
    let (count, limit) = (property(PT_LOCKOUT_COUNTER), property(PT_MAX_AUTH_FAIL));
    let locked = property(PT_PERMANENT) & IN_LOCKOUT != 0;
    Ok(PinTries { count_low: count > 0, final_try: !locked && count + 1 >= limit && limit > 0, locked })
}

/// Four characters of a property, without the NULs that pad it.
fn text(value: u32) -> String {
    value
        .to_be_bytes()
        .iter()
        .filter(|byte| byte.is_ascii_graphic() || **byte == b' ')
        .map(|&byte| char::from(byte))
        .collect()
}
