//! The rules, on values alone: the same answers for a broker's plugin, an HTTP bridge and the hooks of other brokers.

pub mod admission;
pub mod certificate;
pub mod gateway;
pub mod session;
pub mod token;
pub mod topic;
