//! The fleet's registry: which devices there are, what each may do, and why it may not.
//!
//! [`rules`] decides, on values alone: no clock, no file, no network. [`store`] keeps what the rules decide on, in
//! SQLite or PostgreSQL. [`Fleet`] joins both for whoever asks: a broker's plugin on its one thread, a server on many.
//!
//! The semantics are those of the retired Google Cloud IoT Core, so that its clients need only another host name;
//! unlike it, every refusal says why ([`Refusal`]).

#![forbid(unsafe_code)]

mod credential;
mod error;
mod fleet;
mod journal;
mod known;
mod limit;
mod name;
mod record;
mod refusal;
pub mod rules;
pub mod store;
mod timestamp;

pub use credential::{Credential, CredentialFormat, Proof, SignatureAlgorithm};
pub use error::{Error, Result};
pub use fleet::{Change, Fleet};
pub use journal::{AuditRow, Verdict};
pub use limit::Limit;
pub use name::{DeviceId, DeviceName, RegistryName};
pub use record::{Activity, AuthMethod, Command, Config, Device, Event, Registry, State};
pub use refusal::{Kind, Refusal, shown};
pub use rules::session::Session;
pub use timestamp::Timestamp;
