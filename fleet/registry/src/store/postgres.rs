//! PostgreSQL, for fleets that several servers and brokers share. A lost connection is made anew.
//!
//! Whoever calls waits: a broker's one thread, perhaps. So there is a limit to each wait, whether the server keeps it, the
//! network, or, for a server that is stopped while its system goes on, we.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type};
use tokio_postgres::{Client, Config, NoTls, Statement};

use super::database::{Connection, Database, GivenUp, Row, Value};
use super::schema;
use crate::error::{Error, Result};

/// How long a server may work on a statement or wait for a lock, unless the operator has said for how long.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much later than its own limit a server's answer is given up.
const GRACE: Duration = Duration::from_secs(2);
/// How long to wait for a server's system to take a connection, and then for the server to greet.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// The advisory lock under which changes are numbered, and the one under which the schema is brought up to date.
const CHANGES_LOCK: i64 = 0x4b65_7972_6976_6574;
const SCHEMA_LOCK: i64 = CHANGES_LOCK + 1;

pub(super) struct Postgres {
    configuration: Config,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    link: Option<Link>,
    given_up: GivenUp,
}

struct Link {
    client: Client,
    statements: HashMap<String, Statement>,
    /// How long to wait for an answer.
    patience: Duration,
    /// An answer did not come: what is sent next would only wait behind it.
    lost: Option<Error>,
    /// What moves the bytes, while somebody waits.
    transport: JoinHandle<std::result::Result<(), tokio_postgres::Error>>,
    runtime: Runtime,
}

impl Postgres {
    pub(super) fn open(url: &str) -> Result<Self> {
        let mut configuration: Config = url.parse().map_err(failed)?;
        configuration.connect_timeout(CONNECT_PATIENCE).application_name("keyrivet");
        configuration.tcp_user_timeout(PATIENCE).keepalives_idle(PATIENCE).keepalives_interval(PATIENCE / 5);
        let this = Self { configuration, state: Mutex::default() };
        this.with_link(|link| {
            let rows = link.query("SHOW server_encoding", &[])?;
            let encoding = rows.first().map_or_else(|| Ok(String::new()), |row| row.text(0))?;
            if encoding != "UTF8" {
                let text =
                    format!("the database's encoding is {encoding}: make one with ENCODING 'UTF8' TEMPLATE template0");
                return Err(Error::Store(text));
            }
            // Others may be at it, and what is to be changed may be large.
            let patience = std::mem::replace(&mut link.patience, Duration::MAX);
            link.transaction(&mut |connection| {
                let _ = connection.execute("SET LOCAL statement_timeout = 0", &[])?;
                let _ = connection.execute("SET LOCAL lock_timeout = 0", &[])?;
                let _ = connection.query("SELECT pg_advisory_xact_lock($1)", &[SCHEMA_LOCK.into()])?;
                schema::migrate(connection, schema::Dialect::Postgres)
            })?;
            link.patience = patience;
            Ok(())
        })?;
        Ok(this)
    }

    fn with_link<T>(&self, work: impl FnOnce(&mut Link) -> Result<T>) -> Result<T> {
        let mut state = self.state.lock();
        state.given_up.check()?;
        let start = Instant::now();
        let known = state.link.take().filter(|link| !link.client.is_closed());
        let (done, lost) = match known.map_or_else(|| Link::connect(&self.configuration), Ok) {
            Ok(mut link) => {
                let done = work(&mut link);
                let lost = link.lost.clone();
                if lost.is_none() {
                    state.link = Some(link);
                }
                (done, lost)
            }
            Err(error) => (Err(error.clone()), Some(error)),
        };
        state.given_up.note(start, lost);
        done
    }
}

impl Drop for Postgres {
    /// Says goodbye: the logs of poolers complain of clients that break off.
    fn drop(&mut self) {
        if let Some(Link { client, transport, runtime, .. }) = self.state.get_mut().link.take() {
            drop(client);
            let _ = runtime.block_on(async { timeout(GRACE, transport).await });
        }
    }
}

impl Database for Postgres {
    fn kind(&self) -> &'static str {
        "postgresql"
    }

    fn write(&self, work: &mut dyn FnMut(&mut dyn Connection) -> Result<()>) -> Result<()> {
        self.with_link(|link| link.transaction(work))
    }

    fn read(&self, work: &mut dyn FnMut(&mut dyn Connection) -> Result<()>) -> Result<()> {
        self.with_link(|link| work(link))
    }
}

impl Link {
    fn connect(configuration: &Config) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::Store(format!("no runtime for the connection: {error}")))?;
        let hosts = configuration.get_hosts().len().max(configuration.get_hostaddrs().len());
        let patience = CONNECT_PATIENCE * u32::try_from(hosts).unwrap_or(u32::MAX).saturating_add(1);
        let connected = runtime.block_on(async { timeout(patience, configuration.connect(NoTls)).await });
        let (client, connection) = match connected.map_err(|_| unanswered(patience)) {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => return Err(given_up(runtime, failed(error))),
            Err(error) => return Err(given_up(runtime, error)),
        };
        let transport = runtime.spawn(connection);
        let statements = HashMap::new();
        let mut this = Self { client, statements, patience: PATIENCE + GRACE, lost: None, transport, runtime };
        let options = configuration.get_options().unwrap_or_default();
        if options.contains("statement_timeout") {
            let sql = "SELECT setting::int8 FROM pg_settings WHERE name = 'statement_timeout'";
            let limit = this.query(sql, &[])?.first().map_or(Ok(0), |row| row.integer(0))?;
            let limit = u64::try_from(limit).ok().filter(|limit| *limit > 0).map(Duration::from_millis);
            this.patience = limit.map_or(Duration::MAX, |limit| limit.saturating_add(GRACE));
        } else {
            this.command(&format!("SET statement_timeout = {}", PATIENCE.as_millis()))?;
        }
        if !options.contains("lock_timeout") {
            this.command(&format!("SET lock_timeout = {}", PATIENCE.as_millis()))?;
        }
        Ok(this)
    }

    /// Asks the server for something, and waits for the answer.
    fn ask<T>(&mut self, question: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>) -> Result<T> {
        let answer = self.runtime.block_on(async { timeout(self.patience, question(&self.client)).await });
        answer.map_or_else(
            |_| {
                let why = unanswered(self.patience);
                self.lost = Some(why.clone());
                Err(why)
            },
            |answer| answer.map_err(failed),
        )
    }

    fn command(&mut self, sql: &str) -> Result<()> {
        self.ask(async |client| client.batch_execute(sql).await)
    }

    fn transaction(&mut self, work: &mut dyn FnMut(&mut dyn Connection) -> Result<()>) -> Result<()> {
        self.command("BEGIN")?;
        let done = work(self).and_then(|()| self.command("COMMIT"));
        if done.is_err() && self.lost.is_none() {
            let _ = self.command("ROLLBACK");
        }
        done
    }

    fn statement(&mut self, sql: &str) -> Result<Statement> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.ask(async |client| client.prepare(sql).await)?;
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

impl Connection for Link {
    fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64> {
        let statement = self.statement(sql)?;
        let parameters: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|value| value as _).collect();
        self.ask(async |client| client.execute(&statement, &parameters).await)
    }

    fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>> {
        let statement = self.statement(sql)?;
        let parameters: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|value| value as _).collect();
        let rows = self.ask(async |client| client.query(&statement, &parameters).await)?;
        let row = |row: &tokio_postgres::Row| {
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

    tokio_postgres::types::to_sql_checked!();
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

/// Leaves a look-up of a host's name that goes on to itself: to drop the runtime would wait for it.
fn given_up(runtime: Runtime, error: Error) -> Error {
    runtime.shutdown_background();
    error
}

fn unanswered(after: Duration) -> Error {
    Error::Store(format!("the server did not answer within {} s", after.as_secs_f32()))
}

fn failed(error: tokio_postgres::Error) -> Error {
    Error::Store(explained(&error))
}

/// The library's own text is "db error"; what the server said is in its source.
fn explained(error: &tokio_postgres::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
