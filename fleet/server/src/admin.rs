//! The commands that make, change and show registries, devices, gateways, configurations and commands.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyrivet_registry::store::{AuditFilter, DELIVERED, DeviceChange, NewDevice, RegistryChange, Store};
use keyrivet_registry::{
    AuditRow, AuthMethod, Credential, CredentialFormat, DeviceName, Registry, RegistryName, Timestamp, Verdict,
};
use serde_json::json;

use crate::cli;
use crate::google;
use crate::output::{self, Failure};

/// How long to wait for a broker to say what became of a command.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long until a follower looks again.
const PAUSE: Duration = Duration::from_millis(300);
/// Devices that are listed at a time.
const PAGE: usize = 1000;

impl cli::Scope {
    fn open(&self) -> Result<Store, Failure> {
        Ok(Store::open(&self.store)?)
    }

    fn registry_of(&self, id: &str) -> Result<RegistryName, Failure> {
        Ok(RegistryName::new(&self.project, &self.region, id)?)
    }

    pub(crate) fn registry_name(&self) -> Result<RegistryName, Failure> {
        let id = self.registry.as_deref().ok_or("which registry? Say --registry, or set KEYRIVET_REGISTRY")?;
        self.registry_of(id)
    }

    fn device(&self, id: &str) -> Result<DeviceName, Failure> {
        Ok(self.registry_name()?.device(id)?)
    }
}

pub(crate) fn registry(scope: &cli::Scope, command: &cli::Registry) -> Result<(), Failure> {
    let store = scope.open()?;
    match command {
        cli::Registry::Create { id, cas, no_mqtt, no_http } => {
            let new = Registry {
                name: scope.registry_of(id)?,
                ca_certificates: cas.iter().map(|file| read_text(file)).collect::<Result<_, _>>()?,
                mqtt: !no_mqtt,
                http: !no_http,
                created: Timestamp::now(),
            };
            store.create_registry(&new)?;
            output::done(scope.format, &format!("Created registry {}.", new.name), &google::registry(&new));
        }
        cli::Registry::Update { id, add_cas, remove_ca, mqtt, http } => {
            let add_cas = add_cas.iter().map(|file| read_text(file)).collect::<Result<_, _>>()?;
            let change = RegistryChange { add_cas, remove_ca: *remove_ca, mqtt: *mqtt, http: *http };
            let registry = store.update_registry(&scope.registry_of(id)?, &change)?;
            output::done(scope.format, &format!("Updated registry {}.", registry.name), &google::registry(&registry));
        }
        cli::Registry::List => {
            let registries = store.registries(&scope.project, &scope.region)?;
            let row = |it: &Registry| {
                let state = |on: bool, name: &str| format!("{name}_{}", if on { "ENABLED" } else { "DISABLED" });
                let cas = it.ca_certificates.len().to_string();
                vec![
                    it.name.registry.to_string(),
                    it.name.location.to_string(),
                    state(it.mqtt, "MQTT"),
                    state(it.http, "HTTP"),
                    cas,
                ]
            };
            let rows: Vec<_> = registries.iter().map(row).collect();
            let json: Vec<_> = registries.iter().map(google::registry).collect();
            output::list(scope.format, &["ID", "LOCATION", "MQTT", "HTTP", "CAS"], &rows, &json);
        }
        cli::Registry::Describe { id } => {
            output::describe(scope.format, &google::registry(&existing(&store, &scope.registry_of(id)?)?));
        }
        cli::Registry::Delete { id } => {
            let name = scope.registry_of(id)?;
            store.delete_registry(&name)?;
            output::done(scope.format, &format!("Deleted registry {name}."), &json!({}));
        }
    }
    Ok(())
}

pub(crate) fn device(scope: &cli::Scope, command: &cli::Device) -> Result<(), Failure> {
    let store = scope.open()?;
    let changed = |id: &str, change: &DeviceChange| -> Result<(), Failure> {
        let device = store.update_device(&scope.device(id)?, change)?;
        let json = google::device(&device, &store.activity(device.number)?, None, None);
        output::done(scope.format, &format!("Updated {}.", device.name), &json);
        Ok(())
    };
    match command {
        cli::Device::Create { id, keys, blocked, metadata } => {
            create(scope, &store, id, None, keys, *blocked, parse_metadata(metadata)?)
        }
        cli::Device::List { gateway } => list(scope, &store, false, gateway.as_deref()),
        cli::Device::Describe { id } => {
            let name = scope.device(id)?;
            let device = store.device(&name)?.ok_or_else(|| format!("there is no device {name}"))?;
            let (config, state) = (store.configs(&name, 1)?, store.states(&name)?);
            let json = google::device(&device, &store.activity(device.number)?, config.first(), state.first());
            output::describe(scope.format, &json);
            Ok(())
        }
        cli::Device::Update { id, block, unblock, metadata } => {
            let blocked = (*block || *unblock).then_some(*block);
            let metadata = if metadata.is_empty() { None } else { Some(parse_metadata(metadata)?) };
            changed(id, &DeviceChange { blocked, metadata, ..DeviceChange::default() })
        }
        cli::Device::AddKey { id, key } => {
            changed(id, &DeviceChange { add_credential: Some(parse_key(key)?), ..DeviceChange::default() })
        }
        cli::Device::RemoveKey { id, index } => {
            changed(id, &DeviceChange { remove_credential: Some(*index), ..DeviceChange::default() })
        }
        cli::Device::States { id } => {
            let states = store.states(&scope.device(id)?)?;
            let rows: Vec<_> = states.iter().map(|it| vec![it.updated.to_string(), readable(&it.data)]).collect();
            let json: Vec<_> = states.iter().map(google::state).collect();
            output::list(scope.format, &["TIME", "DATA"], &rows, &json);
            Ok(())
        }
        cli::Device::Delete { id } => {
            let name = scope.device(id)?;
            store.delete_device(&name)?;
            output::done(scope.format, &format!("Deleted {name}."), &json!({}));
            Ok(())
        }
    }
}

pub(crate) fn gateway(scope: &cli::Scope, command: &cli::Gateway) -> Result<(), Failure> {
    let store = scope.open()?;
    match command {
        cli::Gateway::Create { id, auth_method, keys } => {
            create(scope, &store, id, Some(AuthMethod::parse(auth_method)?), keys, false, BTreeMap::new())
        }
        cli::Gateway::Update { id, auth_method } => {
            let auth_method = Some(AuthMethod::parse(auth_method)?);
            let device =
                store.update_device(&scope.device(id)?, &DeviceChange { auth_method, ..DeviceChange::default() })?;
            let json = google::device(&device, &store.activity(device.number)?, None, None);
            output::done(scope.format, &format!("Updated {}.", device.name), &json);
            Ok(())
        }
        cli::Gateway::List => list(scope, &store, true, None),
        cli::Gateway::ListBound { gateway } => list(scope, &store, false, Some(gateway)),
        cli::Gateway::Bind { gateway, device } => {
            store.bind(&scope.device(gateway)?, &scope.device(device)?)?;
            output::done(scope.format, &format!("Bound device {device} to gateway {gateway}."), &json!({}));
            Ok(())
        }
        cli::Gateway::Unbind { gateway, device } => {
            store.unbind(&scope.device(gateway)?, &scope.device(device)?)?;
            output::done(scope.format, &format!("Unbound device {device} from gateway {gateway}."), &json!({}));
            Ok(())
        }
    }
}

pub(crate) fn config(scope: &cli::Scope, command: &cli::Config) -> Result<(), Failure> {
    let store = scope.open()?;
    match command {
        cli::Config::Set { device, payload, version_to_update } => {
            let name = scope.device(device)?;
            let expected = version_to_update.filter(|version| *version != 0);
            let version = store.set_config(&name, &payload.bytes()?, expected, Timestamp::now())?;
            let json = json!({ "version": version.to_string() });
            output::done(scope.format, &format!("Set version {version} of the configuration of {device}."), &json);
        }
        cli::Config::List { device } => {
            let configs = store.configs(&scope.device(device)?, PAGE)?;
            let row = |it: &keyrivet_registry::Config| {
                let acknowledged = it.acknowledged.map_or_else(|| "-".to_owned(), |time| time.to_string());
                vec![it.version.to_string(), it.updated.to_string(), acknowledged, readable(&it.data)]
            };
            let rows: Vec<_> = configs.iter().map(row).collect();
            let json: Vec<_> = configs.iter().map(google::config).collect();
            output::list(scope.format, &["VERSION", "SET", "ACKNOWLEDGED", "DATA"], &rows, &json);
        }
    }
    Ok(())
}

pub(crate) fn command(scope: &cli::Scope, command: &cli::Send) -> Result<(), Failure> {
    let store = scope.open()?;
    let cli::Send::Send { device, payload, subfolder } = command;
    let id = store.send_command(&scope.device(device)?, subfolder, &payload.bytes()?, Timestamp::now())?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let outcome = store.command_outcome(id)?;
        match outcome.as_deref() {
            Some(DELIVERED) => {
                output::done(scope.format, &format!("Sent to {device}."), &json!({}));
                return Ok(());
            }
            Some(outcome) => return Err(format!("the command was not delivered: {outcome}").into()),
            None if Instant::now() < deadline => sleep(PAUSE / 3),
            None => {
                // Nobody may deliver it after we have said that nobody did.
                if store.finish_command(id, "given up")? {
                    let text = format!(
                        "the command was not delivered: no broker holds a connection of device {device} that is \
                         subscribed to /devices/{device}/commands/#"
                    );
                    return Err(text.into());
                }
            }
        }
    }
}

pub(crate) fn audit(scope: &cli::Scope, arguments: &cli::Audit) -> Result<(), Failure> {
    let store = scope.open()?;
    let registry = scope.registry_name()?;
    let mut filter =
        AuditFilter { device: arguments.device.clone(), refused: arguments.refused, after: 0, limit: arguments.limit };
    let mut limit = arguments.limit;
    loop {
        // What comes is told from what was there by the newest row, even if none is shown.
        filter.limit = limit.max(1);
        let mut rows = store.audit(&registry, &filter)?;
        filter.after = rows.last().map_or(filter.after, |row| row.0);
        drop(rows.drain(..rows.len().saturating_sub(limit)));
        limit = PAGE;
        if !arguments.follow {
            let table: Vec<_> = rows.iter().map(|row| audit_row(&row.1).to_vec()).collect();
            let json: Vec<_> = rows.iter().map(|row| audit_json(&row.1)).collect();
            output::list(scope.format, &["TIME", "DEVICE", "VIA", "ACTION", "", "REASON"], &table, &json);
            return Ok(());
        }
        for (_, row) in &rows {
            match scope.format {
                cli::Format::Table => output::line(&audit_row(row).join("  ")),
                cli::Format::Json => output::line(&audit_json(row).to_string()),
            }
        }
        sleep(PAUSE);
    }
}

impl cli::Payload {
    fn bytes(&self) -> Result<Vec<u8>, Failure> {
        match (&self.data, &self.file) {
            (Some(text), _) => Ok(text.clone().into_bytes()),
            (None, Some(file)) => std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()).into()),
            (None, None) => Ok(Vec::new()),
        }
    }
}

fn create(
    scope: &cli::Scope,
    store: &Store,
    id: &str,
    gateway: Option<AuthMethod>,
    keys: &[String],
    blocked: bool,
    metadata: BTreeMap<String, String>,
) -> Result<(), Failure> {
    let credentials = keys.iter().map(|key| parse_key(key)).collect::<Result<_, _>>()?;
    let new = NewDevice { name: scope.device(id)?, gateway, credentials, blocked, metadata };
    let device = store.create_device(&new, Timestamp::now())?;
    let json = google::device(&device, &store.activity(device.number)?, None, None);
    let what = if gateway.is_some() { "gateway" } else { "device" };
    output::done(scope.format, &format!("Created {what} {}.", device.name), &json);
    Ok(())
}

fn list(scope: &cli::Scope, store: &Store, gateways: bool, bound_to: Option<&str>) -> Result<(), Failure> {
    let registry = scope.registry_name()?;
    let bound_to = bound_to.map(|id| scope.device(id)).transpose()?;
    let (mut rows, mut json, mut after) = (Vec::new(), Vec::new(), String::new());
    loop {
        let page = store.devices(&registry, gateways, bound_to.as_ref(), &after, PAGE)?;
        for device in &page {
            let activity = store.activity(device.number)?;
            let online = if device.blocked {
                "blocked".to_owned()
            } else if activity.is_online() {
                "online".to_owned()
            } else {
                activity.seen.map_or_else(|| "never seen".to_owned(), |seen| format!("seen {seen}"))
            };
            rows.push(vec![
                device.name.id.to_string(),
                device.number.to_string(),
                if device.gateway.is_some() { "GATEWAY" } else { "NON_GATEWAY" }.to_owned(),
                device.gateway.map_or("-", AuthMethod::name).to_owned(),
                online,
            ]);
            json.push(google::device(device, &activity, None, None));
        }
        match page.last() {
            Some(last) if page.len() == PAGE => last.name.id.as_str().clone_into(&mut after),
            _ => break,
        }
    }
    output::list(scope.format, &["ID", "NUM_ID", "GATEWAY_TYPE", "AUTH_METHOD", "STATUS"], &rows, &json);
    Ok(())
}

fn existing(store: &Store, name: &RegistryName) -> Result<Registry, Failure> {
    Ok(store.registry(name)?.ok_or_else(|| format!("there is no registry {name}"))?)
}

/// `FILE,type=rs256,expires=2027-01-01T00:00:00Z`, the file also as `path=FILE`.
fn parse_key(text: &str) -> Result<Credential, Failure> {
    let (mut path, mut format, mut expires) = (None, None, None);
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("path", value)) => path = Some(value),
            Some(("type", value)) => format = Some(CredentialFormat::parse(value)?),
            Some(("expires" | "expiration-time", value)) => expires = Some(Timestamp::parse(value)?),
            _ if path.is_none() => path = Some(part),
            _ => return Err(format!("'{part}' in '{text}' is none of path=, type=, expires=").into()),
        }
    }
    let pem = read_text(Path::new(path.ok_or_else(|| format!("'{text}' names no file"))?))?;
    Credential::parse(&pem, format, expires).map_err(|error| format!("{}: {error}", path.unwrap_or_default()).into())
}

fn parse_metadata(pairs: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let pair = |text: &String| match text.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(Failure::from(format!("'{text}' is not KEY=VALUE"))),
    };
    pairs.iter().map(pair).collect()
}

fn read_text(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()).into())
}

/// Text as it is, anything else in base64; shortened.
fn readable(data: &[u8]) -> String {
    let text = match std::str::from_utf8(data) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => format!("base64:{}", STANDARD.encode(data)),
    };
    if text.chars().count() <= 60 { text } else { text.chars().take(57).chain("...".chars()).collect() }
}

fn audit_row(row: &AuditRow) -> [String; 6] {
    let verdict = if row.verdict == Verdict::Allowed { "allowed" } else { "REFUSED" };
    let time = row.at.to_string();
    [time, row.device.clone(), row.via.clone(), row.action.clone(), verdict.to_owned(), row.reason.clone()]
}

fn audit_json(row: &AuditRow) -> serde_json::Value {
    json!({
        "time": row.at, "registry": row.registry, "device": row.device, "via": row.via, "action": row.action,
        "allowed": row.verdict == Verdict::Allowed, "code": row.code, "reason": row.reason,
    })
}
