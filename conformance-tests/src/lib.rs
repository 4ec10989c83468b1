//! What the tests stand on: a device with a software TPM and a store of its own, the programs that run on it, and
//! the commands that reached its TPM.
//!
//! A test starts with [`Device::new`], runs unmodified programs with [`Device::run`], and asks [`Device::commands`]
//! what that cost the TPM. Nothing is shared between tests, and all of it is gone when the device is dropped.

mod artefacts;
mod chances;
mod der;
mod device;
mod pki;
mod postgresql;
mod program;
mod rabbitmq;
mod resource_manager;
mod server;
mod software_tpm;
mod token;
mod tpm_log;
mod wire;

pub use artefacts::Artefact;
pub use chances::Chances;
pub use der::der_field;
pub use device::{Device, Hold};
pub use pki::Pki;
pub use postgresql::Cluster;
pub use program::{Output, Run, memory_of};
pub use rabbitmq::RabbitMq;
pub use resource_manager::ResourceManager;
pub use server::{Server, free_port, say_hello};
pub use token::{SO_PIN, Token};
pub use tpm_log::{Exchange, exchanges};
pub use wire::{Harm, Wire};

/// How often a test does what it does: `short`, but `long` where `KEYRIVET_LONG` says so, as `conformance-tests/test --long`
/// does. It is told among what the test prints.
pub fn count(short: usize, long: usize) -> usize {
    let count = if std::env::var_os("KEYRIVET_LONG").is_some() { long } else { short };
    println!("{count} ({short} by default, {long} in --long)");
    count
}
