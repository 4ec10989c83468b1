//! The core, with shuttle's locks in place of its own for whoever asks it for locks.

pub use keyrivet_core::*;

pub mod mutex;
