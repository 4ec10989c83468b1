//! What travels: configurations and commands down, states and events up.

use super::admin::{existing_device, locked_device};
use super::database::Row;
use super::devices::note;
use super::{Store, What};
use crate::error::{Error, Result};
use crate::limit::Limit;
use crate::name::{DeviceName, RegistryName};
use crate::record::{Command, Config, Event, State};
use crate::refusal::{Refusal, shown};
use crate::timestamp::Timestamp;

/// The outcome of a command that a device got; any other is the reason why it did not.
pub const DELIVERED: &str = "delivered";

/// Events of the HTTP bridge that wait for a broker, at most: the oldest go first.
const WAITING_EVENTS: i64 = 100_000;

impl Store {
    /// Sets a configuration, and answers its version. With `expected`, only if that is the newest one now.
    pub fn set_config(&self, name: &DeviceName, data: &[u8], expected: Option<i64>, now: Timestamp) -> Result<i64> {
        check_size(Limit::CONFIG, data)?;
        self.write(|connection| {
            // Two writers cannot take the same version.
            let device = locked_device(connection, name)?;
            let sql = "SELECT COALESCE(MAX(version), 0) FROM configs WHERE device = $1";
            let newest = connection.query(sql, &[device.number.into()])?.first().map_or(Ok(0), |row| row.integer(0))?;
            if let Some(expected) = expected.filter(|expected| *expected != newest) {
                let text = format!("the newest version is {newest}, not {expected}: look at it, then set it again");
                return Err(Error::Precondition(text));
            }
            let version = newest + 1;
            let sql = "INSERT INTO configs (device, version, updated, data) VALUES ($1, $2, $3, $4)";
            let _ = connection.execute(sql, &[device.number.into(), version.into(), now.into(), data.into()])?;
            let sql = "DELETE FROM configs WHERE device = $1 AND version <= $2";
            let oldest = version - i64::try_from(Limit::CONFIG_VERSIONS.most).unwrap_or(i64::MAX);
            let _ = connection.execute(sql, &[device.number.into(), oldest.into()])?;
            note(connection, &device.name, What::Config)?;
            Ok(version)
        })
    }

    /// The kept versions of a device's configuration, newest first.
    pub fn configs(&self, name: &DeviceName, limit: usize) -> Result<Vec<Config>> {
        let sql = "SELECT version, updated, acknowledged, data FROM configs WHERE device = $1 \
                   ORDER BY version DESC LIMIT $2";
        self.read(|connection| {
            let device = existing_device(connection, name)?;
            connection.query(sql, &[device.number.into(), limit.into()])?.iter().map(config).collect()
        })
    }

    /// Notes that a device has got a version of its configuration.
    pub fn acknowledge_config(&self, name: &DeviceName, version: i64, now: Timestamp) -> Result<()> {
        let sql = "UPDATE configs SET acknowledged = $1 WHERE device = $2 AND version = $3 AND acknowledged IS NULL";
        self.write(|connection| {
            let device = existing_device(connection, name)?;
            connection.execute(sql, &[now.into(), device.number.into(), version.into()]).map(drop)
        })
    }

    /// Keeps a state.
    pub fn put_state(&self, name: &DeviceName, data: &[u8], now: Timestamp) -> Result<()> {
        check_size(Limit::STATE, data)?;
        self.write(|connection| {
            let device = existing_device(connection, name)?;
            let sql = "INSERT INTO states (device, updated, data) VALUES ($1, $2, $3)";
            let _ = connection.execute(sql, &[device.number.into(), now.into(), data.into()])?;
            let sql = "DELETE FROM states WHERE device = $1 AND number NOT IN \
                       (SELECT number FROM states WHERE device = $1 ORDER BY number DESC LIMIT $2)";
            connection.execute(sql, &[device.number.into(), Limit::STATES.most.into()]).map(drop)
        })
    }

    /// The kept states of a device, newest first.
    pub fn states(&self, name: &DeviceName) -> Result<Vec<State>> {
        let sql = "SELECT updated, data FROM states WHERE device = $1 ORDER BY number DESC";
        self.read(|connection| {
            let device = existing_device(connection, name)?;
            let rows = connection.query(sql, &[device.number.into()])?;
            rows.iter().map(|row| Ok(State { updated: row.time(0)?, data: row.bytes(1)? })).collect()
        })
    }

    /// Sends a command on its way, and answers its number.
    pub fn send_command(&self, name: &DeviceName, subfolder: &str, data: &[u8], now: Timestamp) -> Result<i64> {
        check_size(Limit::COMMAND, data)?;
        check_subfolder(subfolder)?;
        self.write(|connection| {
            let device = existing_device(connection, name)?;
            let sql = "INSERT INTO commands (device, subfolder, data, sent) VALUES ($1, $2, $3, $4) RETURNING number";
            let values = [device.number.into(), subfolder.into(), data.into(), now.into()];
            let number = connection.query(sql, &values)?.first().map_or(Ok(0), |row| row.integer(0))?;
            // An hour is more than anybody waits for an outcome.
            let sql = "DELETE FROM commands WHERE sent < $1";
            let _ = connection.execute(sql, &[now.plus_seconds(-3600).into()])?;
            note(connection, &device.name, What::Command)?;
            Ok(number)
        })
    }

    /// The commands that nobody has delivered or given up yet, of one device, not older than `since`.
    pub fn waiting_commands(&self, name: &DeviceName, since: Timestamp) -> Result<Vec<Command>> {
        let sql = "SELECT number, subfolder, data, sent FROM commands \
                   WHERE device = $1 AND outcome IS NULL AND sent >= $2 ORDER BY number";
        self.read(|connection| {
            let device = existing_device(connection, name)?;
            let rows = connection.query(sql, &[device.number.into(), since.into()])?;
            let command = |row: &Row| {
                Ok(Command {
                    id: row.integer(0)?,
                    device: device.name.clone(),
                    subfolder: row.text(1)?,
                    data: row.bytes(2)?,
                    sent: row.time(3)?,
                })
            };
            rows.iter().map(command).collect()
        })
    }

    /// Notes what became of a command; answers whether this was the first to say so.
    pub fn finish_command(&self, id: i64, outcome: &str) -> Result<bool> {
        let sql = "UPDATE commands SET outcome = $1 WHERE number = $2 AND outcome IS NULL";
        self.write(|connection| Ok(connection.execute(sql, &[outcome.into(), id.into()])? > 0))
    }

    /// What became of a command, if that is known.
    pub fn command_outcome(&self, id: i64) -> Result<Option<String>> {
        self.read(|connection| {
            let rows = connection.query("SELECT outcome FROM commands WHERE number = $1", &[id.into()])?;
            rows.first().map_or(Ok(None), |row| row.optional_text(0))
        })
    }

    /// Keeps an event that came by HTTP until a broker fetches it.
    pub fn put_event(&self, event: &Event) -> Result<()> {
        check_size(Limit::EVENT, &event.data)?;
        check_subfolder(&event.subfolder)?;
        self.write(|connection| {
            let sql = "INSERT INTO events (registry, device, gateway, subfolder, at, data) \
                       VALUES ($1, $2, $3, $4, $5, $6) RETURNING number";
            let values = [
                event.device.registry.to_string().into(),
                event.device.id.as_str().into(),
                event.gateway.as_deref().into(),
                event.subfolder.as_str().into(),
                event.at.into(),
                event.data.as_slice().into(),
            ];
            let number = connection.query(sql, &values)?.first().map_or(Ok(0), |row| row.integer(0))?;
            let sql = "DELETE FROM events WHERE number <= $1";
            connection.execute(sql, &[(number - WAITING_EVENTS).into()]).map(drop)
        })
    }

    /// Takes events of any registry that wait, oldest first: whoever takes one publishes it.
    pub fn take_events(&self, limit: usize) -> Result<Vec<Event>> {
        let waits = "SELECT 1 FROM events LIMIT 1";
        if self.read(|connection| connection.query(waits, &[]))?.is_empty() {
            return Ok(Vec::new());
        }
        let sql = "DELETE FROM events WHERE number IN (SELECT number FROM events ORDER BY number LIMIT $1) \
                   RETURNING number, registry, device, gateway, subfolder, at, data";
        let mut rows = self.write(|connection| connection.query(sql, &[limit.into()]))?;
        rows.sort_by_key(|row| row.integer(0).unwrap_or_default());
        rows.iter().map(event).collect()
    }

    /// The events of a registry that wait, oldest first, each with its number. They wait on until
    /// [`Self::forget_events`].
    pub fn waiting_events(&self, registry: &RegistryName, limit: usize) -> Result<Vec<(i64, Event)>> {
        let sql = "SELECT number, registry, device, gateway, subfolder, at, data FROM events \
                   WHERE registry = $1 ORDER BY number LIMIT $2";
        let rows = self.read(|connection| connection.query(sql, &[registry.to_string().into(), limit.into()]))?;
        rows.iter().map(|row| Ok((row.integer(0)?, event(row)?))).collect()
    }

    /// Forgets events, by their numbers, which a broker has.
    pub fn forget_events(&self, numbers: &[i64]) -> Result<()> {
        self.write(|connection| {
            for number in numbers {
                let _ = connection.execute("DELETE FROM events WHERE number = $1", &[(*number).into()])?;
            }
            Ok(())
        })
    }
}

fn event(row: &Row) -> Result<Event> {
    Ok(Event {
        device: RegistryName::parse(&row.text(1)?)?.device(&row.text(2)?)?,
        gateway: row.optional_text(3)?,
        subfolder: row.text(4)?,
        at: row.time(5)?,
        data: row.bytes(6)?,
    })
}

fn config(row: &Row) -> Result<Config> {
    Ok(Config {
        version: row.integer(0)?,
        updated: row.time(1)?,
        acknowledged: row.optional_time(2)?,
        data: row.bytes(3)?,
    })
}

fn check_size(limit: Limit, data: &[u8]) -> Result<(), Refusal> {
    if limit.allows(data.len()) { Ok(()) } else { Err(Refusal::TooLarge { limit, size: data.len() }) }
}

/// A subfolder becomes a part of a topic.
fn check_subfolder(subfolder: &str) -> Result<(), Refusal> {
    let is_plain = !subfolder.chars().any(|c| c == '#' || c == '+' || c.is_control());
    let fits = Limit::SUBFOLDER.allows(subfolder.len()) && !subfolder.starts_with('/') && !subfolder.ends_with('/');
    if is_plain && fits {
        return Ok(());
    }
    let topic = shown(subfolder, 100);
    Err(Refusal::Topic { topic, why: "is no subfolder: no wildcards, no / at its ends, 256 bytes at most" })
}
