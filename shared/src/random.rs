//! Random numbers: the system's, which the kernel seeds from the TPM too.

use crate::error::{Error, Result};

/// Fills `buffer`.
pub(crate) fn fill(buffer: &mut [u8]) -> Result<()> {
    getrandom::fill(buffer).map_err(|error| Error::Unsupported(format!("random numbers: {error}")))
}
