//! The one guard around every function that OpenSSL calls: panics stop here, errors go to OpenSSL's queue.

use std::panic::{AssertUnwindSafe, Location, catch_unwind};

use keyrivet_core::Result;
use keyrivet_core::process::with_errno_kept;

use super::core::Core;
use crate::error::{self, Reason};

/// Runs `body`; where it fails, raises its error and answers `failed`.
#[track_caller]
pub(super) fn guard<T: Copy>(core: &Core, failed: T, body: impl FnOnce() -> Result<T>) -> T {
    let place = Location::caller();
    with_errno_kept(|| {
        let raised = catch_unwind(AssertUnwindSafe(|| match body() {
            Ok(value) => value,
            Err(error) => {
                core.raise(error::reason(&error), &error.to_string(), place);
                failed
            }
        }));
        raised.unwrap_or_else(|_| {
            let tell = || core.raise(Reason::Internal, "a panic: please report it", place);
            let _ = catch_unwind(AssertUnwindSafe(tell));
            failed
        })
    })
}

/// Runs `body`, which has nowhere to raise an error; answers `failed` where it panics.
pub(super) fn quiet<T>(failed: T, body: impl FnOnce() -> T) -> T {
    with_errno_kept(|| catch_unwind(AssertUnwindSafe(body)).unwrap_or(failed))
}
