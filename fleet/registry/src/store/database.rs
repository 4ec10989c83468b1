//! What both databases can do: statements with `$1`, `$2`, ... in the order of their first use, and rows of four types.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// A database that did not answer is left alone for so many times as long as that took: who waits for it is a broker.
const PAUSE: u32 = 5;
/// At most.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Until when nobody asks a database that has not answered, and why.
#[derive(Default)]
pub(super) struct GivenUp(Option<(Instant, Error)>);

impl GivenUp {
    /// Fails, as the last time, while it is left alone.
    pub(super) fn check(&self) -> Result<()> {
        match &self.0 {
            Some((until, why)) if Instant::now() < *until => Err(why.clone()),
            _ => Ok(()),
        }
    }

    /// What came of asking it, since `start`: why it did not answer, if it did not.
    pub(super) fn note(&mut self, start: Instant, lost: Option<Error>) {
        self.0 = lost.map(|why| (Instant::now() + (start.elapsed() * PAUSE).min(LONGEST_PAUSE), why));
    }
}

/// A database with transactions.
pub(super) trait Database: Send + Sync {
    /// Its name.
    fn kind(&self) -> &'static str;
    /// Runs `work` in one transaction; rolls back what failed.
    fn write(&self, work: &mut dyn FnMut(&mut dyn Connection) -> Result<()>) -> Result<()>;
    /// Runs `work` without a transaction.
    fn read(&self, work: &mut dyn FnMut(&mut dyn Connection) -> Result<()>) -> Result<()>;
}

/// A connection to it.
pub(super) trait Connection {
    /// Runs a statement, and answers how many rows it changed.
    fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64>;
    /// Runs a query.
    fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>>;
    /// Makes changes visible in the order of their numbers, until the transaction ends.
    fn serialise_changes(&mut self) -> Result<()>;
}

/// A value of a column or parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Integer(i64),
    Text(String),
    Bytes(Vec<u8>),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Integer(value.into())
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Integer(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<crate::Timestamp> for Value {
    fn from(value: crate::Timestamp) -> Self {
        Self::Integer(value.micros())
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(value.to_owned())
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A row of a query's answer.
#[derive(Debug)]
pub(super) struct Row(pub(super) Vec<Value>);

impl Row {
    pub(super) fn integer(&self, column: usize) -> Result<i64> {
        match self.0.get(column) {
            Some(Value::Integer(value)) => Ok(*value),
            other => Err(unexpected(column, "an integer", other)),
        }
    }

    pub(super) fn text(&self, column: usize) -> Result<String> {
        match self.0.get(column) {
            Some(Value::Text(value)) => Ok(value.clone()),
            other => Err(unexpected(column, "a text", other)),
        }
    }

    pub(super) fn bytes(&self, column: usize) -> Result<Vec<u8>> {
        match self.0.get(column) {
            Some(Value::Bytes(value)) => Ok(value.clone()),
            other => Err(unexpected(column, "bytes", other)),
        }
    }

    pub(super) fn boolean(&self, column: usize) -> Result<bool> {
        Ok(self.integer(column)? != 0)
    }

    pub(super) fn time(&self, column: usize) -> Result<crate::Timestamp> {
        self.integer(column).map(crate::Timestamp::from_micros)
    }

    pub(super) fn optional_text(&self, column: usize) -> Result<Option<String>> {
        if self.is_null(column) { Ok(None) } else { self.text(column).map(Some) }
    }

    pub(super) fn optional_time(&self, column: usize) -> Result<Option<crate::Timestamp>> {
        if self.is_null(column) { Ok(None) } else { self.time(column).map(Some) }
    }

    fn is_null(&self, column: usize) -> bool {
        self.0.get(column) == Some(&Value::Null)
    }
}

fn unexpected(column: usize, expected: &str, found: Option<&Value>) -> Error {
    // Only the type is said: the value could be anything.
    let found = match found {
        None => "nothing",
        Some(Value::Null) => "null",
        Some(Value::Integer(_)) => "an integer",
        Some(Value::Text(_)) => "a text",
        Some(Value::Bytes(_)) => "bytes",
    };
    Error::Store(format!("column {column} should hold {expected} and holds {found}"))
}
