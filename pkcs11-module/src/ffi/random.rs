//! Random number generation functions (PKCS#11 3.2, 5.20).

use std::io::Write as _;

use cryptoki_sys::*;
use zeroize::Zeroizing;

use super::guard;
use super::memory::bytes;
use crate::error::Error;
use crate::module::module;

/// Mixes the seed into the system's generator, from which C_GenerateRandom takes; it cannot make that any weaker.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_SeedRandom(session: CK_SESSION_HANDLE, seed: CK_BYTE_PTR, length: CK_ULONG) -> CK_RV {
    guard(|| {
        module()?.session(session)?;
        // SAFETY: readable for its length, if not NULL, as the standard has it.
        let seed = unsafe { bytes(seed, length) }?;
        let device = std::fs::OpenOptions::new().write(true).open("/dev/urandom");
        device.and_then(|mut device| device.write_all(seed)).map_err(|_| Error(CKR_RANDOM_SEED_NOT_SUPPORTED))
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_GenerateRandom(
    session: CK_SESSION_HANDLE,
    random: CK_BYTE_PTR,
    length: CK_ULONG,
) -> CK_RV {
    guard(|| {
        let module = module()?;
        module.session(session)?;
        if random.is_null() {
            return Err(Error(CKR_ARGUMENTS_BAD));
        }
        let mut done = 0;
        while done < length {
            let mut block = Zeroizing::new([0; 4096]);
            let part = (length - done).min(4096) as usize;
            module.keyrivet().random(&mut block[..part])?;
            // SAFETY: writable for `length` bytes, as the standard has it, of which `done` are behind us.
            unsafe {
                std::ptr::copy_nonoverlapping(block.as_ptr(), random.add(done as usize), part);
            }
            done += part as CK_ULONG;
        }
        Ok(())
    })
}
