//! Administration: registries, devices, gateways and bindings are made, changed, listed and deleted.

use std::collections::BTreeMap;

use super::database::Connection;
use super::devices::{DEVICE, credentials_to_json, device, find_device, find_registry, lock, note, registry};
use super::{Store, What, note_change, to_json};
use crate::credential::Credential;
use crate::error::{Error, Result};
use crate::limit::Limit;
use crate::name::{DeviceName, RegistryName};
use crate::record::{AuthMethod, Device, Registry};
use crate::refusal::Refusal;
use crate::rules::certificate;
use crate::timestamp::Timestamp;

/// As IoT Core had it.
const SHORTEST_ID: usize = 3;

/// A device to be made.
#[derive(Clone, Debug)]
pub struct NewDevice {
    /// Its name.
    pub name: DeviceName,
    /// Set for a gateway.
    pub gateway: Option<AuthMethod>,
    /// Its keys.
    pub credentials: Vec<Credential>,
    /// Whether it begins locked out.
    pub blocked: bool,
    /// Whatever its owner wants to note.
    pub metadata: BTreeMap<String, String>,
}

/// What to change about a registry; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct RegistryChange {
    /// CA certificates more (PEM).
    pub add_cas: Vec<String>,
    /// The number of a CA certificate to remove, from 0.
    pub remove_ca: Option<usize>,
    /// Whether devices may come by MQTT.
    pub mqtt: Option<bool>,
    /// Whether devices may come by HTTP.
    pub http: Option<bool>,
}

/// What to change about a device; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct DeviceChange {
    /// Lock it out, or let it in again.
    pub blocked: Option<bool>,
    /// A key more.
    pub add_credential: Option<Credential>,
    /// The number of a key to remove, from 0.
    pub remove_credential: Option<usize>,
    /// All the metadata.
    pub metadata: Option<BTreeMap<String, String>>,
    /// For a gateway: how it authenticates its devices.
    pub auth_method: Option<AuthMethod>,
}

impl Store {
    /// Makes a registry.
    pub fn create_registry(&self, new: &Registry) -> Result<()> {
        check_ca_certificates(&new.ca_certificates)?;
        self.write(|connection| {
            let sql = "INSERT INTO registries (name, ca_certificates, mqtt, http, created) VALUES ($1, $2, $3, $4, $5) \
                       ON CONFLICT DO NOTHING";
            let name = new.name.to_string();
            let cas = serde_json::json!(new.ca_certificates).to_string();
            let values = [name.clone().into(), cas.into(), new.mqtt.into(), new.http.into(), new.created.into()];
            if connection.execute(sql, &values)? == 0 {
                return Err(Error::Exists(format!("registry {}", new.name.registry)));
            }
            note_change(connection, &name, None, What::Record)
        })
    }

    /// Changes a registry.
    pub fn update_registry(&self, name: &RegistryName, change: &RegistryChange) -> Result<Registry> {
        self.write(|connection| {
            let text = name.to_string();
            // Nobody else changes it until the transaction ends.
            let _ = connection.execute("UPDATE registries SET mqtt = mqtt WHERE name = $1", &[text.clone().into()])?;
            let mut registry = existing_registry(connection, name)?;
            if let Some(index) = change.remove_ca {
                if index >= registry.ca_certificates.len() {
                    return Err(Error::NotFound(format!("CA certificate {index} of registry {}", name.registry)));
                }
                registry.ca_certificates.remove(index);
            }
            registry.ca_certificates.extend(change.add_cas.iter().cloned());
            check_ca_certificates(&registry.ca_certificates)?;
            registry.mqtt = change.mqtt.unwrap_or(registry.mqtt);
            registry.http = change.http.unwrap_or(registry.http);
            let sql = "UPDATE registries SET ca_certificates = $1, mqtt = $2, http = $3 WHERE name = $4";
            let cas = serde_json::json!(registry.ca_certificates).to_string();
            let values = [cas.into(), registry.mqtt.into(), registry.http.into(), text.clone().into()];
            let _ = connection.execute(sql, &values)?;
            note_change(connection, &text, None, What::Record)?;
            Ok(registry)
        })
    }

    /// Deletes a registry, which must be empty.
    pub fn delete_registry(&self, name: &RegistryName) -> Result<()> {
        self.write(|connection| {
            let text = name.to_string();
            let devices =
                connection.query("SELECT 1 FROM devices WHERE registry = $1 LIMIT 1", &[text.clone().into()])?;
            if !devices.is_empty() {
                return Err(Error::Precondition(format!(
                    "registry {} still has devices: delete them first",
                    name.registry
                )));
            }
            if connection.execute("DELETE FROM registries WHERE name = $1", &[text.clone().into()])? == 0 {
                return Err(no_registry(name));
            }
            note_change(connection, &text, None, What::Record)
        })
    }

    /// All registries of a project's region.
    pub fn registries(&self, project: &str, location: &str) -> Result<Vec<Registry>> {
        // A range instead of LIKE, which would take an underscore for a wildcard.
        let (from, to) = prefix_range(&format!("projects/{project}/locations/{location}/registries/"));
        let sql = "SELECT name, ca_certificates, mqtt, http, created FROM registries \
                   WHERE name >= $1 AND name < $2 ORDER BY name";
        self.read(|connection| {
            connection.query(sql, &[from.clone().into(), to.clone().into()])?.iter().map(registry).collect()
        })
    }

    /// Makes a device or gateway.
    pub fn create_device(&self, new: &NewDevice, now: Timestamp) -> Result<Device> {
        self.write(|connection| create(connection, new, now))
    }

    /// Makes all of them, or none if one is refused.
    pub fn create_devices(&self, all: &[NewDevice], now: Timestamp) -> Result<()> {
        self.write(|connection| all.iter().try_for_each(|new| create(connection, new, now).map(drop)))
    }

    /// Changes a device.
    pub fn update_device(&self, name: &DeviceName, change: &DeviceChange) -> Result<Device> {
        self.write(|connection| {
            let registry = existing_registry(connection, &name.registry)?;
            let mut device = locked_device(connection, name)?;
            if let Some(index) = change.remove_credential {
                if index >= device.credentials.len() {
                    return Err(Error::NotFound(format!("credential {index} of device {}", name.id)));
                }
                device.credentials.remove(index);
            }
            if let Some(credential) = &change.add_credential {
                device.credentials.push(credential.clone());
                check_credentials(&registry, &device.credentials)?;
            }
            if let Some(metadata) = &change.metadata {
                check_metadata(metadata)?;
                device.metadata.clone_from(metadata);
            }
            device.blocked = change.blocked.unwrap_or(device.blocked);
            if let Some(method) = change.auth_method {
                if device.gateway.is_none() {
                    return Err(Refusal::NotAGateway { device: name.id.to_string() }.into());
                }
                // What was attached without a token stays no longer than that is allowed.
                if method.needs_token() && !device.gateway.is_some_and(AuthMethod::needs_token) {
                    let sql = "DELETE FROM attachments WHERE gateway = $1";
                    let _ = connection.execute(sql, &[device.number.into()])?;
                }
                device.gateway = Some(method);
            }
            let sql =
                "UPDATE devices SET credentials = $1, blocked = $2, metadata = $3, auth_method = $4 WHERE number = $5";
            let values = [
                credentials_to_json(&device.credentials).into(),
                device.blocked.into(),
                to_json(&device.metadata).into(),
                device.gateway.map(AuthMethod::name).into(),
                device.number.into(),
            ];
            let _ = connection.execute(sql, &values)?;
            note(connection, &device.name, What::Record)?;
            Ok(device)
        })
    }

    /// Deletes a device. A gateway must have no device bound to it.
    pub fn delete_device(&self, name: &DeviceName) -> Result<()> {
        self.write(|connection| {
            let device = existing_device(connection, name)?;
            let bound = connection.query("SELECT 1 FROM bindings WHERE gateway = $1", &[device.number.into()])?;
            if !bound.is_empty() {
                return Err(Error::Precondition(format!(
                    "gateway {} still has devices bound to it: unbind them first",
                    name.id
                )));
            }
            let _ = connection.execute("DELETE FROM devices WHERE number = $1", &[device.number.into()])?;
            note(connection, &device.name, What::Record)
        })
    }

    /// The devices of a registry: all, only gateways, or only those bound to `gateway`; in pages by id.
    pub fn devices(
        &self,
        registry: &RegistryName,
        gateways: bool,
        bound_to: Option<&DeviceName>,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Device>> {
        self.read(|connection| {
            let _ = existing_registry(connection, registry)?;
            let gateway = bound_to.map(|name| existing_device(connection, name)).transpose()?;
            let sql = format!(
                "SELECT {DEVICE} FROM devices WHERE registry = $1 AND id > $2 \
                 AND (CAST($3 AS BIGINT) = 0 OR auth_method IS NOT NULL) \
                 AND (CAST($4 AS BIGINT) = 0 OR number IN (SELECT device FROM bindings WHERE gateway = $5)) ORDER BY id LIMIT $6"
            );
            let number = gateway.as_ref().map_or(0, |gateway| gateway.number);
            let values = [
                registry.to_string().into(),
                after.into(),
                gateways.into(),
                gateway.is_some().into(),
                number.into(),
                limit.into(),
            ];
            connection.query(&sql, &values)?.iter().map(device).collect()
        })
    }

    /// Binds a device to a gateway of its registry.
    pub fn bind(&self, gateway: &DeviceName, device: &DeviceName) -> Result<()> {
        self.write(|connection| {
            let (gateway, device) = (existing_device(connection, gateway)?, existing_device(connection, device)?);
            if gateway.gateway.is_none() {
                return Err(Refusal::NotAGateway { device: gateway.name.id.to_string() }.into());
            }
            if device.gateway.is_some() {
                return Err(Error::Precondition(format!("{} is a gateway itself", device.name.id)));
            }
            let sql = "INSERT INTO bindings (gateway, device) VALUES ($1, $2) ON CONFLICT DO NOTHING";
            let _ = connection.execute(sql, &[gateway.number.into(), device.number.into()])?;
            note(connection, &gateway.name, What::Record)
        })
    }

    /// Ends a binding; the device is detached too.
    pub fn unbind(&self, gateway: &DeviceName, device: &DeviceName) -> Result<()> {
        self.write(|connection| {
            let (gateway, device) = (existing_device(connection, gateway)?, existing_device(connection, device)?);
            let numbers = [gateway.number.into(), device.number.into()];
            if connection.execute("DELETE FROM bindings WHERE gateway = $1 AND device = $2", &numbers)? == 0 {
                let text = format!("binding of device {} to gateway {}", device.name.id, gateway.name.id);
                return Err(Error::NotFound(text));
            }
            let _ = connection.execute("DELETE FROM attachments WHERE gateway = $1 AND device = $2", &numbers)?;
            note(connection, &gateway.name, What::Record)
        })
    }
}

fn create(connection: &mut dyn Connection, new: &NewDevice, now: Timestamp) -> Result<Device> {
    if !new.name.id.begins_with_letter() {
        return Err(Error::Invalid(format!("device id '{}' must begin with a letter", new.name.id)));
    }
    if new.name.id.as_str().len() < SHORTEST_ID {
        return Err(Error::Invalid(format!("device id '{}' is shorter than 3 characters", new.name.id)));
    }
    let registry = existing_registry(connection, &new.name.registry)?;
    check_credentials(&registry, &new.credentials)?;
    check_metadata(&new.metadata)?;
    let sql = "INSERT INTO devices (registry, id, auth_method, credentials, blocked, metadata, created) \
               VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING number";
    let values = [
        new.name.registry.to_string().into(),
        new.name.id.as_str().into(),
        new.gateway.map(AuthMethod::name).into(),
        credentials_to_json(&new.credentials).into(),
        new.blocked.into(),
        to_json(&new.metadata).into(),
        now.into(),
    ];
    let rows = connection.query(sql, &values)?;
    let exists = || Error::Exists(format!("device {}", new.name.id));
    let number = rows.first().ok_or_else(exists)?.integer(0)?;
    let sql = "INSERT INTO configs (device, version, updated, data) VALUES ($1, 1, $2, $3)";
    let _ = connection.execute(sql, &[number.into(), now.into(), (&b""[..]).into()])?;
    note(connection, &new.name, What::Record)?;
    let NewDevice { name, gateway, credentials, blocked, metadata } = new.clone();
    Ok(Device { name, number, gateway, credentials, blocked, metadata, created: now })
}

pub(super) fn existing_registry(connection: &mut dyn Connection, name: &RegistryName) -> Result<Registry> {
    find_registry(connection, name)?.ok_or_else(|| no_registry(name))
}

pub(super) fn existing_device(connection: &mut dyn Connection, name: &DeviceName) -> Result<Device> {
    find_device(connection, name)?.ok_or_else(|| Refusal::DeviceUnknown { name: name.to_string() }.into())
}

/// The device, which nobody else changes until the transaction ends.
pub(super) fn locked_device(connection: &mut dyn Connection, name: &DeviceName) -> Result<Device> {
    let number = existing_device(connection, name)?.number;
    lock(connection, number)?;
    // PostgreSQL shows each statement what others have done by then.
    existing_device(connection, name)
}

fn no_registry(name: &RegistryName) -> Error {
    Error::NotFound(format!("registry {name}: create it, or check project, region and id"))
}

fn check_ca_certificates(pems: &[String]) -> Result<()> {
    if !Limit::CA_CERTIFICATES.allows(pems.len()) {
        return Err(Refusal::TooMany { limit: Limit::CA_CERTIFICATES }.into());
    }
    pems.iter().try_for_each(|pem| certificate::check_ca(pem).map(drop))
}

/// The seed's promise: where the registry has CAs, only devices that one of them vouches for get in.
fn check_credentials(registry: &Registry, credentials: &[Credential]) -> Result<()> {
    if !Limit::CREDENTIALS.allows(credentials.len()) {
        return Err(Refusal::TooMany { limit: Limit::CREDENTIALS }.into());
    }
    if registry.ca_certificates.is_empty() {
        return Ok(());
    }
    for credential in credentials {
        let Some(der) = credential.certificate() else {
            return Err(Error::Precondition(format!(
                "registry {} has CA certificates, so a credential must be a certificate that one of them signed, \
                 not a bare public key",
                registry.name.registry
            )));
        };
        certificate::check_signed_by(&der, &registry.ca_certificates)?;
    }
    Ok(())
}

fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<()> {
    let size = metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    if Limit::METADATA.allows(size) {
        return Ok(());
    }
    Err(Refusal::TooLarge { limit: Limit::METADATA, size }.into())
}

/// All texts that begin with `prefix`, which ends with a `/`.
fn prefix_range(prefix: &str) -> (String, String) {
    (prefix.to_owned(), format!("{}0", prefix.trim_end_matches('/')))
}
