//! What the TPM can do and how its lockout stands: `TPM2_GetCapability` and `TPM2_TestParms`.

use super::connection::Connection;
use crate::algorithm::{Curve, HashAlgorithm};
use crate::error::Result;

/// `TPM_CAP` (TPM 2.0 Part 2, 6.12).
const CAP_ALGS: u32 = 0;
const CAP_TPM_PROPERTIES: u32 = 6;
const CAP_ECC_CURVES: u32 = 8;

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
    Ok(Capabilities {
        manufacturer: text(property(PT_MANUFACTURER)).trim().into(),
        model: model.trim().into(),
        hardware_version: ((revision / 100) as u8, (revision % 100) as u8),
        firmware_version: ((firmware >> 16).min(255) as u8, (firmware & 0xffff).min(255) as u8),
        rsa_bits,
        curves: Curve::all().filter(|curve| curves.iter().any(|(id, _)| *id == curve.tpm_curve().into())).collect(),
        hashes: HashAlgorithm::all()
            .filter(|hash| {
                algorithms.iter().any(|(id, _)| hash.tpm_algorithm().is_some_and(|known| *id == known.into()))
            })
            .collect(),
    })
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
