//! Every limit of the registry, in one table: what, how much, and how it is called in a refusal.

/// A limit on what one device, gateway or registry may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What is limited.
    pub what: &'static str,
    /// How many, or how many bytes.
    pub most: usize,
}

const fn limit(what: &'static str, most: usize) -> Limit {
    Limit { what, most }
}

impl Limit {
    /// Bytes of one telemetry event.
    pub const EVENT: Self = limit("an event", 256 * 1024);
    /// Bytes of one state.
    pub const STATE: Self = limit("a state", 64 * 1024);
    /// Bytes of one configuration.
    pub const CONFIG: Self = limit("a configuration", 64 * 1024);
    /// Bytes of one command.
    pub const COMMAND: Self = limit("a command", 256 * 1024);
    /// Bytes of the message that attaches or detaches a device.
    pub const ATTACH: Self = limit("an attach message", 64 * 1024);
    /// Bytes of an id.
    pub const ID: Self = limit("an id", 256);
    /// Bytes of a subfolder below `events` or `commands`.
    pub const SUBFOLDER: Self = limit("a subfolder", 256);
    /// Credentials of one device.
    pub const CREDENTIALS: Self = limit("credentials of a device", 3);
    /// CA certificates of one registry.
    pub const CA_CERTIFICATES: Self = limit("CA certificates of a registry", 10);
    /// Devices attached to one gateway at a time.
    pub const ATTACHED: Self = limit("devices attached to a gateway", 1000);
    /// Subscriptions of one connection: three for each device that a gateway may attach, and some.
    pub const SUBSCRIPTIONS: Self = limit("subscriptions of a connection", 5000);
    /// Versions of a device's configuration that are kept.
    pub const CONFIG_VERSIONS: Self = limit("versions of a configuration", 10);
    /// States of a device that are kept.
    pub const STATES: Self = limit("states of a device", 10);
    /// Bytes of a device's metadata, keys and values together.
    pub const METADATA: Self = limit("metadata of a device", 256 * 1024);

    /// Whether so many, or so many bytes, are allowed.
    pub fn allows(self, count: usize) -> bool {
        count <= self.most
    }
}

/// How long a token may live, in seconds (the skew is added).
pub(crate) const TOKEN_LIFETIME: i64 = 24 * 3600;
/// By how much a device's clock may be wrong, in seconds.
pub(crate) const CLOCK_SKEW: i64 = 600;
/// Bits of an RSA key, at least.
pub(crate) const RSA_BITS: usize = 2048;
