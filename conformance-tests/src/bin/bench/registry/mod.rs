//! What the registry's measurements stand on: registries with many devices, brokers, a server with hooks, and clients
//! that cost less than what they load.

pub(crate) mod broker;
pub(crate) mod fleet;
pub(crate) mod hooks;
pub(crate) mod mqtt;
