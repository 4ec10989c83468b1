//! Registries and devices as the rules want them, bindings, and what is attached to which gateway.

use std::collections::HashSet;

use super::database::{Connection, Row};
use super::{Store, What, note_change};
use crate::credential::Credential;
use crate::error::{Error, Result};
use crate::name::{DeviceId, DeviceName, RegistryName};
use crate::record::{AuthMethod, Device, Registry};
use crate::timestamp::Timestamp;

/// The columns of a device, in the order that [`device`] reads them.
pub(super) const DEVICE: &str = "number, registry, id, auth_method, credentials, blocked, metadata, created";

impl Store {
    /// A registry.
    pub fn registry(&self, name: &RegistryName) -> Result<Option<Registry>> {
        self.read(|connection| find_registry(connection, name))
    }

    /// A device, by its id or number.
    pub fn device(&self, name: &DeviceName) -> Result<Option<Device>> {
        self.read(|connection| find_device(connection, name))
    }

    /// Whether a device is bound to a gateway.
    pub fn is_bound(&self, gateway: i64, device: i64) -> Result<bool> {
        self.read(|connection| is_in(connection, "bindings", gateway, device))
    }

    /// Whether a device is attached to a gateway.
    pub fn is_attached(&self, gateway: i64, device: i64) -> Result<bool> {
        self.read(|connection| is_in(connection, "attachments", gateway, device))
    }

    /// The devices that are attached to a gateway and may still be: neither blocked, nor unbound where that matters.
    pub fn attached(&self, gateway: &Device) -> Result<HashSet<DeviceId>> {
        let sql = "SELECT d.id FROM attachments a JOIN devices d ON d.number = a.device \
                   WHERE a.gateway = $1 AND d.blocked = 0 AND (CAST($2 AS BIGINT) = 0 OR EXISTS \
                   (SELECT 1 FROM bindings b WHERE b.gateway = a.gateway AND b.device = a.device))";
        let needs_binding = gateway.gateway.is_some_and(AuthMethod::needs_binding);
        self.read(|connection| {
            let rows = connection.query(sql, &[gateway.number.into(), needs_binding.into()])?;
            rows.iter().map(|row| Ok(DeviceId::parse(&row.text(0)?)?)).collect()
        })
    }

    /// Notes that a gateway speaks for a device from now on. A device is attached to one gateway at a time.
    pub fn attach(&self, gateway: &Device, device: &Device, now: Timestamp) -> Result<()> {
        self.write(|connection| {
            lock(connection, device.number)?;
            let _ = connection.execute("DELETE FROM attachments WHERE device = $1", &[device.number.into()])?;
            let sql = "INSERT INTO attachments (gateway, device, since) VALUES ($1, $2, $3)";
            let _ = connection.execute(sql, &[gateway.number.into(), device.number.into(), now.into()])?;
            note(connection, &gateway.name, What::Record)
        })
    }

    /// Notes that a gateway does not speak for a device any more; answers whether it did.
    pub fn detach(&self, gateway: &Device, device: &Device) -> Result<bool> {
        let sql = "DELETE FROM attachments WHERE gateway = $1 AND device = $2";
        self.write(|connection| {
            let rows = connection.execute(sql, &[gateway.number.into(), device.number.into()])?;
            note(connection, &gateway.name, What::Record)?;
            Ok(rows > 0)
        })
    }
}

pub(super) fn find_registry(connection: &mut dyn Connection, name: &RegistryName) -> Result<Option<Registry>> {
    let sql = "SELECT name, ca_certificates, mqtt, http, created FROM registries WHERE name = $1";
    let rows = connection.query(sql, &[name.to_string().into()])?;
    rows.first().map(registry).transpose()
}

pub(super) fn find_device(connection: &mut dyn Connection, name: &DeviceName) -> Result<Option<Device>> {
    let registry = name.registry.to_string();
    let rows = match name.id.number() {
        Some(number) => {
            let sql = format!("SELECT {DEVICE} FROM devices WHERE registry = $1 AND number = $2");
            connection.query(&sql, &[registry.into(), number.into()])?
        }
        None => {
            let sql = format!("SELECT {DEVICE} FROM devices WHERE registry = $1 AND id = $2");
            connection.query(&sql, &[registry.into(), name.id.as_str().into()])?
        }
    };
    rows.first().map(device).transpose()
}

/// Until the transaction ends nobody else changes the device, nor whatever else is changed under this lock.
pub(super) fn lock(connection: &mut dyn Connection, device: i64) -> Result<()> {
    let sql = "UPDATE devices SET blocked = blocked WHERE number = $1";
    connection.execute(sql, &[device.into()]).map(drop)
}

pub(super) fn registry(row: &Row) -> Result<Registry> {
    Ok(Registry {
        name: RegistryName::parse(&row.text(0)?)?,
        ca_certificates: from_json(&row.text(1)?)?,
        mqtt: row.boolean(2)?,
        http: row.boolean(3)?,
        created: row.time(4)?,
    })
}

pub(super) fn device(row: &Row) -> Result<Device> {
    let registry = RegistryName::parse(&row.text(1)?)?;
    Ok(Device {
        number: row.integer(0)?,
        name: registry.device(&row.text(2)?)?,
        gateway: row.optional_text(3)?.as_deref().map(AuthMethod::parse).transpose()?,
        credentials: credentials_from_json(&row.text(4)?)?,
        blocked: row.boolean(5)?,
        metadata: from_json(&row.text(6)?)?,
        created: row.time(7)?,
    })
}

pub(super) fn note(connection: &mut dyn Connection, device: &DeviceName, what: What) -> Result<()> {
    note_change(connection, &device.registry.to_string(), Some(device.id.as_str()), what)
}

fn is_in(connection: &mut dyn Connection, table: &str, gateway: i64, device: i64) -> Result<bool> {
    let sql = format!("SELECT 1 FROM {table} WHERE gateway = $1 AND device = $2");
    Ok(!connection.query(&sql, &[gateway.into(), device.into()])?.is_empty())
}

/// A credential as it is stored.
#[derive(serde::Serialize, serde::Deserialize)]
struct Stored {
    pem: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<Timestamp>,
}

pub(super) fn credentials_to_json(credentials: &[Credential]) -> String {
    let stored = credentials.iter().map(|it| Stored { pem: it.pem.to_string(), expires: it.expires });
    serde_json::to_string(&stored.collect::<Vec<_>>()).unwrap_or_else(|_| "[]".to_owned())
}

fn credentials_from_json(text: &str) -> Result<Vec<Credential>> {
    let stored: Vec<Stored> = from_json(text)?;
    stored.iter().map(|it| Credential::parse(&it.pem, None, it.expires)).collect()
}

fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| Error::Store(format!("a column cannot be read: {error}")))
}
