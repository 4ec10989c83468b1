//! What the registry knows: a registry, a device or gateway, its configuration and state.

use std::collections::BTreeMap;
use std::fmt;

use crate::credential::Credential;
use crate::error::{Error, Result};
use crate::name::{DeviceName, RegistryName};
use crate::timestamp::Timestamp;

/// A registry.
#[derive(Clone, Debug)]
pub struct Registry {
    /// Its name.
    pub name: RegistryName,
    /// CA certificates as PEM. When there are any, only certificates that one of them signed are credentials.
    pub ca_certificates: Vec<String>,
    /// Whether devices may use MQTT.
    pub mqtt: bool,
    /// Whether devices may use HTTP.
    pub http: bool,
    /// When it was made.
    pub created: Timestamp,
}

/// How a gateway shows that its devices are who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// The device is bound to the gateway.
    AssociationOnly,
    /// The device's own token.
    DeviceAuthTokenOnly,
    /// Both.
    AssociationAndDeviceAuthToken,
}

const AUTH_METHODS: [(AuthMethod, &str); 3] = [
    (AuthMethod::AssociationOnly, "ASSOCIATION_ONLY"),
    (AuthMethod::DeviceAuthTokenOnly, "DEVICE_AUTH_TOKEN_ONLY"),
    (AuthMethod::AssociationAndDeviceAuthToken, "ASSOCIATION_AND_DEVICE_AUTH_TOKEN"),
];

impl AuthMethod {
    /// As the API writes it.
    pub fn name(self) -> &'static str {
        AUTH_METHODS[self as usize].1
    }

    /// Reads `ASSOCIATION_ONLY` or `association-only`.
    pub fn parse(text: &str) -> Result<Self> {
        let plain = text.to_ascii_uppercase().replace('-', "_");
        let found = AUTH_METHODS.iter().find(|row| row.1 == plain);
        found
            .map(|row| row.0)
            .ok_or_else(|| Error::Invalid(format!("'{text}' is none of {}", AUTH_METHODS.map(|row| row.1).join(", "))))
    }

    /// Whether a device must be bound.
    pub fn needs_binding(self) -> bool {
        self != Self::DeviceAuthTokenOnly
    }

    /// Whether a device must show a token of its own.
    pub fn needs_token(self) -> bool {
        self != Self::AssociationOnly
    }
}

impl fmt::Display for AuthMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A device; a gateway is one too.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its name.
    pub name: DeviceName,
    /// The number that the registry gave it.
    pub number: i64,
    /// Set for a gateway.
    pub gateway: Option<AuthMethod>,
    /// Its keys.
    pub credentials: Vec<Credential>,
    /// Whether it is locked out.
    pub blocked: bool,
    /// Whatever its owner wants to note.
    pub metadata: BTreeMap<String, String>,
    /// When it was made.
    pub created: Timestamp,
}

/// When a device was last heard of, and what went wrong last.
#[derive(Clone, Debug, Default)]
pub struct Activity {
    /// Its last connection or request.
    pub seen: Option<Timestamp>,
    /// Its last event.
    pub event: Option<Timestamp>,
    /// Its last state.
    pub state: Option<Timestamp>,
    /// When a broker last let it in; see `disconnected`.
    pub connected: Option<Timestamp>,
    /// When a broker last lost it.
    pub disconnected: Option<Timestamp>,
    /// When it was last refused.
    pub error_at: Option<Timestamp>,
    /// Why.
    pub error: Option<String>,
}

impl Activity {
    /// Takes over what it does not know from an older one.
    pub(crate) fn complete(&mut self, older: Self) {
        self.seen = self.seen.or(older.seen);
        self.event = self.event.or(older.event);
        self.state = self.state.or(older.state);
        self.connected = self.connected.or(older.connected);
        self.disconnected = self.disconnected.or(older.disconnected);
        self.error_at = self.error_at.or(older.error_at);
        self.error = self.error.take().or(older.error);
    }

    /// Whether a broker holds a connection of it, as far as brokers have told.
    pub fn is_online(&self) -> bool {
        self.connected.is_some() && self.connected > self.disconnected
    }
}

/// A version of a device's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// From 1, one more with each change.
    pub version: i64,
    /// When it was set.
    pub updated: Timestamp,
    /// When the device acknowledged it, or fetched it.
    pub acknowledged: Option<Timestamp>,
    /// The bytes.
    pub data: Vec<u8>,
}

/// A state that a device reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// When.
    pub updated: Timestamp,
    /// The bytes.
    pub data: Vec<u8>,
}

/// A command on its way to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Its number in the store.
    pub id: i64,
    /// To whom.
    pub device: DeviceName,
    /// Below `commands`; may be empty.
    pub subfolder: String,
    /// The bytes.
    pub data: Vec<u8>,
    /// When it was sent.
    pub sent: Timestamp,
}

/// An event that a device published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whose it is.
    pub device: DeviceName,
    /// The gateway that spoke for it, if one did.
    pub gateway: Option<String>,
    /// Below `events`; may be empty.
    pub subfolder: String,
    /// When it came.
    pub at: Timestamp,
    /// The bytes.
    pub data: Vec<u8>,
}
