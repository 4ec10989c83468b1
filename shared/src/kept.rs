//! Data that is kept until all of it is there, and may be secret.

use std::collections::TryReserveError;

use zeroize::Zeroizing;

/// Adds data. The place that gets too small is wiped, which a vector that grows by itself would not do.
///
/// Errors: there is no memory for it; what was kept is as it was then.
pub fn append(kept: &mut Zeroizing<Vec<u8>>, more: &[u8]) -> Result<(), TryReserveError> {
    if kept.capacity() - kept.len() < more.len() {
        let needed = kept.len().saturating_add(more.len()).max(2 * kept.len());
        let mut larger = Zeroizing::new(Vec::new());
        larger.try_reserve_exact(needed)?;
        larger.extend_from_slice(kept);
        *kept = larger;
    }
    kept.extend_from_slice(more);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_any_length_come_out_one_after_the_other() {
        let mut kept = Zeroizing::default();
        let parts: [&[u8]; 5] = [b"", b"a", b"", b"longer than twice", b"x"];
        for part in parts {
            append(&mut kept, part).unwrap();
        }
        assert_eq!(*kept, b"alonger than twicex");
    }
}
