//! The command line, in the words of `gcloud iot`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The fleet's registry: devices and gateways that authenticate with JWTs or certificates, on MQTT brokers and over HTTP.
#[derive(Parser)]
#[command(name = "keyrivet-server", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) scope: Scope,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which registry, where, and how to answer.
#[derive(Args)]
pub(crate) struct Scope {
    /// The registry's state: the file of an SQLite database, or postgres://USER@HOST/DATABASE (in the environment a
    /// password is not shown to everybody by ps)
    #[arg(long, global = true, env = "KEYRIVET_REGISTRY_STORE", hide_env_values = true)]
    #[arg(default_value = "/var/lib/keyrivet-server/registry.db")]
    pub(crate) store: String,
    /// The project: what a token's aud must be
    #[arg(long, global = true, env = "KEYRIVET_PROJECT", default_value = "keyrivet")]
    pub(crate) project: String,
    /// The region
    #[arg(long, global = true, alias = "location", env = "KEYRIVET_REGION", default_value = "local")]
    pub(crate) region: String,
    /// The registry
    #[arg(long, global = true, env = "KEYRIVET_REGISTRY")]
    pub(crate) registry: Option<String>,
    /// Tables for people, JSON for programs
    #[arg(long, global = true, value_enum, default_value = "table")]
    pub(crate) format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Registries and their CA certificates
    #[command(subcommand, visible_alias = "registries")]
    Registry(Registry),
    /// Devices and their credentials
    #[command(subcommand, visible_alias = "devices")]
    Device(Device),
    /// Gateways, and the devices bound to them
    #[command(subcommand, visible_alias = "gateways")]
    Gateway(Gateway),
    /// Configurations, which devices receive
    #[command(subcommand, visible_alias = "configs")]
    Config(Config),
    /// Commands to devices that are connected now
    #[command(subcommand, name = "command", visible_alias = "commands")]
    Send(Send),
    /// Who was let in or refused, and why
    Audit(Audit),
    /// The events that devices publish, from the broker: of all registries, unless --registry names one
    Events(Events),
    /// Run the HTTP bridge and the hooks for brokers
    Serve(Box<Serve>),
    /// Print the manual page, a shell's completion, or the OpenAPI description
    #[command(subcommand)]
    Document(Document),
}

#[derive(Subcommand)]
pub(crate) enum Registry {
    /// Make a registry
    Create {
        id: String,
        /// CA certificates: only devices whose certificate one of them signed are taken (at most 10)
        #[arg(long = "ca", alias = "public-key-path", value_name = "FILE")]
        cas: Vec<PathBuf>,
        /// Devices may not use MQTT
        #[arg(long)]
        no_mqtt: bool,
        /// Devices may not use HTTP
        #[arg(long)]
        no_http: bool,
    },
    /// Change a registry
    Update {
        id: String,
        /// Add a CA certificate
        #[arg(long = "add-ca", value_name = "FILE")]
        add_cas: Vec<PathBuf>,
        /// Remove the CA certificate with this number, from 0
        #[arg(long = "remove-ca", value_name = "N")]
        remove_ca: Option<usize>,
        /// Whether devices may use MQTT
        #[arg(long, value_name = "true|false")]
        mqtt: Option<bool>,
        /// Whether devices may use HTTP
        #[arg(long, value_name = "true|false")]
        http: Option<bool>,
    },
    /// List the registries of the project and region
    List,
    /// Show one
    Describe { id: String },
    /// Delete one, which must be empty
    Delete { id: String },
}

#[derive(Subcommand)]
pub(crate) enum Device {
    /// Make a device
    Create {
        id: String,
        /// FILE[,type=rs256|es256|rsa-pem|...][,expires=TIME]; path=FILE works too. At most 3
        #[arg(long = "public-key", value_name = "FILE,...")]
        keys: Vec<String>,
        /// Begin locked out
        #[arg(long)]
        blocked: bool,
        /// A note, as often as you like
        #[arg(long, value_name = "KEY=VALUE")]
        metadata: Vec<String>,
    },
    /// List the registry's devices
    List {
        /// Only those bound to this gateway
        #[arg(long)]
        gateway: Option<String>,
    },
    /// Show one, with its configuration, state and last error
    Describe { id: String },
    /// Change one
    Update {
        id: String,
        /// Lock it out; an open connection is closed
        #[arg(long, conflicts_with = "unblock")]
        block: bool,
        /// Let it in again
        #[arg(long)]
        unblock: bool,
        /// Replace its notes
        #[arg(long, value_name = "KEY=VALUE")]
        metadata: Vec<String>,
    },
    /// Add a credential
    AddKey {
        id: String,
        /// As in create
        #[arg(long = "public-key", value_name = "FILE,...")]
        key: String,
    },
    /// Remove a credential
    RemoveKey {
        id: String,
        /// Its number, from 0
        index: usize,
    },
    /// The states it reported, newest first
    States { id: String },
    /// Delete one
    Delete { id: String },
}

#[derive(Subcommand)]
pub(crate) enum Gateway {
    /// Make a gateway
    Create {
        id: String,
        /// ASSOCIATION_ONLY, DEVICE_AUTH_TOKEN_ONLY or ASSOCIATION_AND_DEVICE_AUTH_TOKEN
        #[arg(long, default_value = "ASSOCIATION_ONLY")]
        auth_method: String,
        /// As for a device
        #[arg(long = "public-key", value_name = "FILE,...")]
        keys: Vec<String>,
    },
    /// Change how a gateway authenticates its devices
    Update {
        id: String,
        #[arg(long)]
        auth_method: String,
    },
    /// List the registry's gateways
    List,
    /// List the devices bound to a gateway
    ListBound {
        #[arg(long)]
        gateway: String,
    },
    /// Bind a device to a gateway
    Bind {
        #[arg(long)]
        gateway: String,
        #[arg(long)]
        device: String,
    },
    /// End that
    Unbind {
        #[arg(long)]
        gateway: String,
        #[arg(long)]
        device: String,
    },
}

#[derive(Args)]
pub(crate) struct Payload {
    /// The bytes, as text
    #[arg(long, required_unless_present = "file", conflicts_with = "file")]
    pub(crate) data: Option<String>,
    /// The bytes, from a file
    #[arg(long)]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum Config {
    /// Set a new version
    Set {
        #[arg(long)]
        device: String,
        #[command(flatten)]
        payload: Payload,
        /// Only if this is the newest version now
        #[arg(long)]
        version_to_update: Option<i64>,
    },
    /// The kept versions, newest first
    List {
        #[arg(long)]
        device: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum Send {
    /// Send a command, and say what became of it
    Send {
        #[arg(long)]
        device: String,
        #[command(flatten)]
        payload: Payload,
        /// Below commands
        #[arg(long, default_value = "")]
        subfolder: String,
    },
}

#[derive(Args)]
pub(crate) struct Audit {
    /// Only of this device
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// Only refusals
    #[arg(long)]
    pub(crate) refused: bool,
    /// At most so many, the newest
    #[arg(long, default_value_t = 50)]
    pub(crate) limit: usize,
    /// Also those to come
    #[arg(long)]
    pub(crate) follow: bool,
}

#[derive(Args)]
pub(crate) struct Broker {
    /// Where: mqtt://HOST:PORT
    #[arg(long, env = "KEYRIVET_BROKER", default_value = "mqtt://127.0.0.1:1883")]
    pub(crate) broker: String,
    /// The broker's user for this program
    #[arg(long, env = "KEYRIVET_BROKER_USER", default_value = "")]
    pub(crate) broker_user: String,
    /// A file with its password
    #[arg(long, value_name = "FILE")]
    pub(crate) broker_password_file: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Events {
    #[command(flatten)]
    pub(crate) broker: Broker,
    /// Only of this device
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// Go on until interrupted; otherwise end after --count events
    #[arg(long)]
    pub(crate) follow: bool,
    /// End after so many events
    #[arg(long, default_value_t = 1)]
    pub(crate) count: u64,
    /// Wait for each event at most so many seconds
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u64>,
}

#[derive(Args)]
pub(crate) struct Serve {
    /// Where devices reach the HTTP bridge
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// Where brokers reach their hooks, with /health, /metrics and /openapi.json
    #[arg(long, default_value = "127.0.0.1:8081")]
    pub(crate) hooks: SocketAddr,
    /// A file with a secret that hooks must show, as Authorization: Bearer or ?secret=; without one the hooks listen on
    /// a loopback address only
    #[arg(long, value_name = "FILE")]
    pub(crate) hook_secret_file: Option<PathBuf>,
    /// The bridge's certificates, as PEM: TLS for devices
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub(crate) tls_key: Option<PathBuf>,
    /// So many connections of devices at once; one more is closed
    #[arg(long, default_value_t = 800, value_name = "NUMBER")]
    pub(crate) connections: usize,
    /// Keep a link to a broker without the mosquitto plugin: configurations, commands and states pass through it, for
    /// the one registry of --registry
    #[arg(long)]
    pub(crate) link: bool,
    /// The link's client id, by which the broker knows what it keeps for this server while it is away; otherwise
    /// keyrivet-server/ and the registry's full name
    #[arg(long, value_name = "ID", requires = "link")]
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) link_client_id: Option<String>,
    #[command(flatten)]
    pub(crate) broker: Broker,
    /// Take the devices of --registry only, by hooks and by HTTP. With --link hooks do so anyhow: topics carry no
    /// registry, so that one broker is for one registry
    #[arg(long)]
    pub(crate) only_registry: bool,
}

#[derive(Subcommand)]
pub(crate) enum Document {
    /// The manual page, for man(1): of the program, or of a command, as in `document man device create`
    Man { command: Vec<String> },
    /// A shell's completion
    Completion { shell: clap_complete::Shell },
    /// What the HTTP bridge and the hooks take and answer
    Openapi,
}
