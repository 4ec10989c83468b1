//! What the registry keeps, in SQLite or PostgreSQL: the same statements on both.

mod admin;
mod audit;
mod database;
mod devices;
mod messages;
mod postgres;
mod schema;
mod sessions;
mod sqlite;

use std::collections::BTreeMap;

pub use admin::{DeviceChange, NewDevice, RegistryChange};
pub use audit::{AuditFilter, Touch};
pub use messages::DELIVERED;

use crate::error::{Error, Result};
use crate::timestamp::Timestamp;
use database::{Connection, Database};

/// The registry's state. One per process; its calls may come from any thread.
pub struct Store {
    database: Box<dyn Database>,
}

/// A row of the feed of changes: what whoever caches must forget.
#[derive(Clone, Debug)]
pub struct ChangeRow {
    /// Its number.
    pub seq: i64,
    /// The registry's name, always.
    pub registry: String,
    /// The device's id, unless all of the registry changed.
    pub device: Option<String>,
    /// What changed.
    pub what: What,
}

/// What changed about a device or registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It was made, changed or deleted; or bound, unbound, attached, detached.
    Record,
    /// It has a new configuration.
    Config,
    /// A command waits for it.
    Command,
}

const WHATS: [(What, &str); 3] = [(What::Record, "record"), (What::Config, "config"), (What::Command, "command")];

impl Store {
    /// Opens, and brings up to date, what a URL or path names: `postgres://...`, `postgresql://...` or
    /// `host=... dbname=...`; anything else is the file of an SQLite database.
    pub fn open(url: &str) -> Result<Self> {
        let is_postgres = ["postgres://", "postgresql://", "host="].iter().any(|prefix| url.starts_with(prefix));
        let database: Box<dyn Database> = if is_postgres {
            Box::new(postgres::Postgres::open(url)?)
        } else {
            Box::new(sqlite::Sqlite::open(url.strip_prefix("sqlite:").unwrap_or(url))?)
        };
        Ok(Self { database })
    }

    /// Which database it is.
    pub fn kind(&self) -> &'static str {
        self.database.kind()
    }

    /// Asks the database for nothing: whether it answers.
    pub fn ping(&self) -> Result<()> {
        self.read(|connection| connection.query("SELECT 1", &[]).map(drop))
    }

    /// Runs `work` in a transaction that writes.
    fn write<T>(&self, mut work: impl FnMut(&mut dyn Connection) -> Result<T>) -> Result<T> {
        let mut answer = None;
        self.database.write(&mut |connection| {
            answer = Some(work(connection)?);
            Ok(())
        })?;
        answer.ok_or_else(|| Error::Store("a transaction did not run".to_owned()))
    }

    /// Runs `work`, which only reads.
    fn read<T>(&self, mut work: impl FnMut(&mut dyn Connection) -> Result<T>) -> Result<T> {
        let mut answer = None;
        self.database.read(&mut |connection| {
            answer = Some(work(connection)?);
            Ok(())
        })?;
        answer.ok_or_else(|| Error::Store("a query did not run".to_owned()))
    }

    /// The number of the newest change.
    pub fn last_change(&self) -> Result<i64> {
        self.read(|connection| {
            let rows = connection.query("SELECT COALESCE(MAX(seq), 0) FROM changes", &[])?;
            rows.first().map_or(Ok(0), |row| row.integer(0))
        })
    }

    /// The changes after `seq`; `None` if some of them are forgotten already.
    pub fn changes_after(&self, seq: i64) -> Result<Option<Vec<ChangeRow>>> {
        let sql = "SELECT seq, registry, device, what FROM changes WHERE seq >= $1 ORDER BY seq";
        self.read(|connection| {
            let rows = connection.query(sql, &[seq.into()])?;
            let mut changes = rows.iter().map(change).collect::<Result<Vec<_>>>()?;
            // The row that was seen last stays as long as those after it are there.
            let gap = seq > 0 && changes.first().is_none_or(|first| first.seq != seq);
            changes.retain(|change| change.seq > seq);
            Ok(if gap { None } else { Some(changes) })
        })
    }

    /// What the feed would tell of configurations set since then (the first is made with the device), and of commands sent that
    /// wait still.
    pub fn messages_since(&self, since: Timestamp) -> Result<Vec<ChangeRow>> {
        let sql = "SELECT DISTINCT 0, registry, id, 'config' FROM configs JOIN devices ON device = devices.number \
                   WHERE updated >= $1 AND version > 1 \
                   UNION ALL SELECT DISTINCT 0, registry, id, 'command' FROM commands \
                   JOIN devices ON device = devices.number WHERE sent >= $1 AND outcome IS NULL";
        self.read(|connection| connection.query(sql, &[since.into()])?.iter().map(change).collect())
    }
}

fn change(row: &database::Row) -> Result<ChangeRow> {
    let what = row.text(3)?;
    let what = WHATS.iter().find(|known| known.1 == what).map_or(What::Record, |known| known.0);
    Ok(ChangeRow { seq: row.integer(0)?, registry: row.text(1)?, device: row.optional_text(2)?, what })
}

/// Notes a change for all who cache, in the transaction that makes it.
fn note_change(connection: &mut dyn Connection, registry: &str, device: Option<&str>, what: What) -> Result<()> {
    connection.serialise_changes()?;
    let name = WHATS[what as usize].1;
    let sql = "INSERT INTO changes (registry, device, what) VALUES ($1, $2, $3)";
    let _ = connection.execute(sql, &[registry.into(), device.into(), name.into()])?;
    let sql = "DELETE FROM changes WHERE seq < (SELECT MAX(seq) FROM changes) - 10000";
    connection.execute(sql, &[]).map(drop)
}

fn to_json(map: &BTreeMap<String, String>) -> String {
    serde_json::to_string(map).unwrap_or_else(|_| "{}".to_owned())
}
