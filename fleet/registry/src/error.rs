//! What administration and the store can answer instead of doing their work.

use crate::refusal::Refusal;

/// What every fallible call of this crate returns, but for the rules, which return [`Refusal`]s.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A rule forbids it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no such registry, device, gateway or version.
    #[error("there is no {0}")]
    NotFound(String),
    /// There already is one of that name.
    #[error("{0} exists already")]
    Exists(String),
    /// An argument is wrong.
    #[error("{0}")]
    Invalid(String),
    /// Things are not in the state that this needs; the text says what to do first.
    #[error("{0}")]
    Precondition(String),
    /// The store cannot be opened, read or written.
    #[error("the registry's store: {0}")]
    Store(String),
}
