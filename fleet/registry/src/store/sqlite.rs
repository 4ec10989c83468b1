//! SQLite: one file in WAL mode, so that a broker's plugin, a server and commands can share it.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{OpenFlags, ToSql, params_from_iter};

use super::database::{Connection, Database, Row, Value};
use super::schema;
use crate::error::{Error, Result};

/// How long a writer waits for another one.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Sqlite {
    connection: Mutex<rusqlite::Connection>,
}

impl Sqlite {
    pub(super) fn open(path: &str) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        // SQLite gives its other files the mode of this one. If this cannot make it, SQLite says why.
        let file = Some(path).filter(|path| *path != ":memory:");
        let _ = file.map(|path| fs::OpenOptions::new().append(true).create(true).mode(0o640).open(path));
        let open = || -> rusqlite::Result<rusqlite::Connection> {
            let connection = rusqlite::Connection::open_with_flags(path, flags)?;
            connection.busy_timeout(PATIENCE)?;
            // FULL: what was acknowledged is there after a power cut too.
            connection.execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
                 PRAGMA cache_size = -16384; PRAGMA temp_store = MEMORY;",
            )?;
            Ok(connection)
        };
        let connection = open().map_err(|error| match Path::new(path).parent() {
            Some(folder) if !folder.as_os_str().is_empty() && !folder.exists() => {
                Error::Store(format!("there is no folder {}: make it, or name another file", folder.display()))
            }
            _ => Error::Store(format!("{path}: {error}")),
        })?;
        let this = Self { connection: Mutex::new(connection) };
        this.write(&mut |connection| schema::migrate(connection, schema::Dialect::Sqlite))?;
        Ok(this)
    }
}

impl Database for Sqlite {
    fn kind(&self) -> &'static str {
        "sqlite"
    }

    fn write(&self, work: &mut dyn FnMut(&mut dyn Connection) -> Result<()>) -> Result<()> {
        let mut connection = self.connection.lock();
        // IMMEDIATE: a transaction that begins by reading could not become a writer's without failing.
        connection.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
        let done = work(&mut *connection).and_then(|()| connection.execute_batch("COMMIT").map_err(failed));
        if done.is_err() {
            let _ = connection.execute_batch("ROLLBACK");
        }
        done
    }

    fn read(&self, work: &mut dyn FnMut(&mut dyn Connection) -> Result<()>) -> Result<()> {
        work(&mut *self.connection.lock())
    }
}

impl Connection for rusqlite::Connection {
    fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64> {
        let mut statement = self.prepare_cached(sql).map_err(failed)?;
        let rows = statement.execute(params_from_iter(parameters)).map_err(failed)?;
        Ok(rows as u64)
    }

    fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>> {
        let mut statement = self.prepare_cached(sql).map_err(failed)?;
        let columns = statement.column_count();
        let mut rows = statement.query(params_from_iter(parameters)).map_err(failed)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let value = |column| row.get_ref(column).map_err(failed).and_then(value);
            found.push(Row((0..columns).map(value).collect::<Result<_>>()?));
        }
        Ok(found)
    }

    fn serialise_changes(&mut self) -> Result<()> {
        // There is one writer at a time anyway.
        Ok(())
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(value) => ValueRef::Integer(*value),
            Self::Text(value) => ValueRef::Text(value.as_bytes()),
            Self::Bytes(value) => ValueRef::Blob(value),
        }))
    }
}

fn value(value: ValueRef<'_>) -> Result<Value> {
    Ok(match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(value) => Value::Integer(value),
        ValueRef::Text(value) => Value::Text(String::from_utf8_lossy(value).into_owned()),
        ValueRef::Blob(value) => Value::Bytes(value.to_owned()),
        ValueRef::Real(_) => return Err(Error::Store("a column holds a real number".to_owned())),
    })
}

fn failed(error: rusqlite::Error) -> Error {
    Error::Store(error.to_string())
}
