//! PostgreSQL, for fleets that several servers and brokers share. A lost connection is made anew.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use postgres::types::private::BytesMut;
use postgres::types::{FromSql, IsNull, ToSql, Type};
use postgres::{Client, NoTls, Statement};

use super::database::{Connection, Database, Row, Value};
use super::schema;
use crate::error::{Error, Result};

/// How long to wait for an answer of a server; it keeps that itself, or the network does. One that is stopped and whose system goes
/// on for it holds us: the library has no time limit of its own.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait for a server's system to take a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// A server that did not let us connect is left alone for so many times as long as that took: who waits for it is a broker.
const PAUSE: u32 = 5;
/// The advisory lock under which changes are numbered, and the one under which the schema is brought up to date.
const CHANGES_LOCK: i64 = 0x4b65_7972_6976_6574;
const SCHEMA_LOCK: i64 = CHANGES_LOCK + 1;

pub(super) struct Postgres {
    configuration: postgres::Config,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    link: Option<Link>,
    /// Until when nobody tries to connect, and why.
    given_up: Option<(Instant, String)>,
}

struct Link {
    client: Client,
    statements: HashMap<String, Statement>,
}

impl Postgres {
    pub(super) fn open(url: &str) -> Result<Self> {
        let mut configuration: postgres::Config =
            url.parse().map_err(|error: postgres::Error| Error::Store(explained(&error)))?;
        configuration.connect_timeout(CONNECT_PATIENCE).application_name("keyrivet");
        // A broker waits for the answers: a server that is lost must not stop it for long.
        configuration.tcp_user_timeout(PATIENCE).keepalives_idle(PATIENCE).keepalives_interval(PATIENCE / 5);
        let this = Self { configuration, state: Mutex::default() };
        this.write(&mut |connection| {
            let rows = connection.query("SHOW server_encoding", &[])?;
            let encoding = rows.first().map_or_else(|| Ok(String::new()), |row| row.text(0))?;
            if encoding != "UTF8" {
                let text =
                    format!("the database's encoding is {encoding}: make one with ENCODING 'UTF8' TEMPLATE template0");
                return Err(Error::Store(text));
            }
            // Others may be at it, and what is to be changed may be large.
            let _ = connection.execute("SET LOCAL statement_timeout = 0", &[])?;
            let _ = connection.execute("SET LOCAL lock_timeout = 0", &[])?;
            let _ = connection.query("SELECT pg_advisory_xact_lock($1)", &[SCHEMA_LOCK.into()])?;
            schema::migrate(connection, schema::Dialect::Postgres)
        })?;
        Ok(this)
    }

    fn with_link<T>(&self, work: impl FnOnce(&mut Link) -> Result<T>) -> Result<T> {
        let mut state = self.state.lock();
        let State { link, given_up } = &mut *state;
        if link.as_ref().is_none_or(|link| link.client.is_closed()) {
            let start = Instant::now();
            if let Some((until, why)) = given_up
                && start < *until
            {
                return Err(Error::Store(why.clone()));
            }
            *link = match self.connect() {
                Ok(link) => Some(link),
                Err(error) => {
                    let why = explained(&error);
                    *given_up = Some((Instant::now() + start.elapsed() * PAUSE, why.clone()));
                    return Err(Error::Store(why));
                }
            };
        }
        match link {
            Some(link) => work(link),
            None => Err(Error::Store("there is no connection".to_owned())),
        }
    }

    fn connect(&self) -> std::result::Result<Link, postgres::Error> {
        let mut client = self.configuration.connect(NoTls)?;
        // Nor a lock that somebody keeps, unless the operator has said for how long.
        if !self.configuration.get_options().is_some_and(|options| options.contains("_timeout")) {
            let patience = PATIENCE.as_millis();
            client.batch_execute(&format!("SET statement_timeout = {patience}; SET lock_timeout = {patience}"))?;
        }
        Ok(Link { client, statements: HashMap::new() })
    }
}

impl Database for Postgres {
    fn kind(&self) -> &'static str {
        "postgresql"
    }

    fn write(&self, work: &mut dyn FnMut(&mut dyn Connection) -> Result<()>) -> Result<()> {
        self.with_link(|link| {
            link.client.batch_execute("BEGIN").map_err(failed)?;
            let done = work(link).and_then(|()| link.client.batch_execute("COMMIT").map_err(failed));
            if done.is_err() {
                let _ = link.client.batch_execute("ROLLBACK");
            }
            done
        })
    }

    fn read(&self, work: &mut dyn FnMut(&mut dyn Connection) -> Result<()>) -> Result<()> {
        self.with_link(|link| work(link))
    }
}

impl Link {
    fn statement(&mut self, sql: &str) -> Result<Statement> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).map_err(failed)?;
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

impl Connection for Link {
    fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64> {
        let statement = self.statement(sql)?;
        let parameters: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|value| value as _).collect();
        self.client.execute(&statement, &parameters).map_err(failed)
    }

    fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>> {
        let statement = self.statement(sql)?;
        let parameters: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|value| value as _).collect();
        let rows = self.client.query(&statement, &parameters).map_err(failed)?;
        let row = |row: &postgres::Row| {
            (0..row.len()).map(|column| row.try_get(column).map_err(failed)).collect::<Result<_>>().map(Row)
        };
        rows.iter().map(row).collect()
    }

    fn serialise_changes(&mut self) -> Result<()> {
        self.query("SELECT pg_advisory_xact_lock($1)", &[CHANGES_LOCK.into()]).map(drop)
    }
}

impl ToSql for Value {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> std::result::Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Integer(value) => value.to_sql(ty, out),
            // PostgreSQL's texts have no NUL, and one that a client made up must not keep the others from being written.
            Self::Text(value) if value.contains('\0') => value.replace('\0', "\u{fffd}").to_sql(ty, out),
            Self::Text(value) => value.to_sql(ty, out),
            Self::Bytes(value) => value.to_sql(ty, out),
        }
    }

    fn accepts(ty: &Type) -> bool {
        [Type::INT8, Type::TEXT, Type::BYTEA].contains(ty)
    }

    postgres::types::to_sql_checked!();
}

impl FromSql<'_> for Value {
    fn from_sql(ty: &Type, raw: &[u8]) -> std::result::Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(match *ty {
            Type::INT4 => Self::Integer(i32::from_sql(ty, raw)?.into()),
            Type::INT8 => Self::Integer(i64::from_sql(ty, raw)?),
            Type::BYTEA => Self::Bytes(raw.to_owned()),
            // What a function without an answer answers.
            Type::VOID => Self::Null,
            _ => Self::Text(String::from_sql(ty, raw)?),
        })
    }

    fn from_sql_null(_: &Type) -> std::result::Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self::Null)
    }

    fn accepts(ty: &Type) -> bool {
        [Type::INT4, Type::INT8, Type::TEXT, Type::BYTEA, Type::VOID].contains(ty)
    }
}

fn failed(error: postgres::Error) -> Error {
    Error::Store(explained(&error))
}

/// The library's own text is "db error"; what the server said is in its source.
fn explained(error: &postgres::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
