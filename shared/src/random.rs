//! Random numbers: the system's, which the kernel seeds from the TPM too.

use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::process::PerProcess;

/// Fills `buffer`.
pub(crate) fn fill(buffer: &mut [u8]) -> Result<()> {
    getrandom::fill(buffer).map_err(|error| Error::Unsupported(format!("random numbers: {error}")))
}

/// A secret of this process alone, the same for as long as it runs.
pub(crate) fn of_this_process() -> Result<&'static [u8]> {
    static SECRET: PerProcess<Zeroizing<[u8; 32]>> = PerProcess::new();
    let mut fresh = Zeroizing::new([0; 32]);
    fill(&mut *fresh)?;
    Ok(SECRET.get_or_init(|| fresh).as_slice())
}
