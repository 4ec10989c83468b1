//! What the user is told when something does not work: one sentence that says what to do.

use std::fmt;

/// What every fallible function of this command returns.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// Why it did not work.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<keyrivet_core::Error> for Failure {
    fn from(error: keyrivet_core::Error) -> Self {
        Self(error.to_string())
    }
}
