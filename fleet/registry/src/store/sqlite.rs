//! SQLite: one file in WAL mode, so that a broker's plugin, a server and commands can share it.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{OpenFlags, ToSql, params_from_iter};

use super::database::{Connection, Database, GivenUp, Row, Value};
use super::schema;
use crate::error::{Error, Result};

/// How long a writer waits for another one.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whoever reads waits for no writer.
pub(super) struct Sqlite {
    writer: Mutex<Writer>,
    reader: Mutex<rusqlite::Connection>,
}

struct Writer {
    connection: rusqlite::Connection,
    given_up: GivenUp,
}

impl Sqlite {
    pub(super) fn open(path: &str) -> Result<Self> {
        // SQLite gives its other files the mode of this one. If this cannot make it, SQLite says why.
        let _ = fs::OpenOptions::new().append(true).create(true).mode(0o640).open(path);
        let mut writer = Writer { connection: connect(path)?, given_up: GivenUp::default() };
        writer.transaction(&mut |connection| schema::migrate(connection, schema::Dialect::Sqlite))?;
        Ok(Self { writer: Mutex::new(writer), reader: Mutex::new(connect(path)?) })
    }
}

fn connect(path: &str) -> Result<rusqlite::Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
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
    open().map_err(|error| match Path::new(path).parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.exists() => {
            Error::Store(format!("there is no folder {}: make it, or name another file", folder.display()))
        }
        _ => Error::Store(format!("{path}: {error}")),
    })
}

impl Writer {
    fn transaction(&mut self, work: &mut dyn FnMut(&mut dyn Connection) -> Result<()>) -> Result<()> {
        self.given_up.check()?;
        let start = Instant::now();
        // IMMEDIATE: a transaction that begins by reading could not become a writer's without failing.
        let begun = self.connection.execute_batch("BEGIN IMMEDIATE").map_err(failed);
        self.given_up.note(start, begun.clone().err());
        begun?;
        let done = work(&mut self.connection).and_then(|()| self.connection.execute_batch("COMMIT").map_err(failed));
        if done.is_err() {
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        done
    }
}

impl Database for Sqlite {
    fn kind(&self) -> &'static str {
        "sqlite"
    }

    fn write(&self, work: &mut dyn FnMut(&mut dyn Connection) -> Result<()>) -> Result<()> {
        self.writer.lock().transaction(work)
    }

    fn read(&self, work: &mut dyn FnMut(&mut dyn Connection) -> Result<()>) -> Result<()> {
        work(&mut *self.reader.lock())
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
