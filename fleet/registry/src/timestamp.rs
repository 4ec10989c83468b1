//! Points in time: microseconds since 1970, written as RFC 3339.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

use crate::error::{Error, Result};

const MICROS: i64 = 1_000_000;

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// This moment, by the system's clock.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    /// So many seconds after 1970 began.
    pub fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(MICROS))
    }

    /// So many microseconds after 1970 began: what the store keeps.
    pub fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Whole seconds since 1970 began.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(MICROS)
    }

    /// Microseconds since 1970 began.
    pub fn micros(self) -> i64 {
        self.0
    }

    /// This much later.
    #[must_use]
    pub fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(MICROS)))
    }

    /// Reads RFC 3339, as in `2026-11-24T15:00:00Z`.
    pub fn parse(text: &str) -> Result<Self> {
        let time = OffsetDateTime::parse(text, &Rfc3339)
            .map_err(|_| Error::Invalid(format!("'{text}' is not a time like 2026-11-24T15:00:00Z")))?;
        // What could not be written again is none either.
        let writable = time.checked_to_offset(UtcOffset::UTC).filter(|time| (0..=9999).contains(&time.year()));
        let micros = writable.and_then(|time| i64::try_from(time.unix_timestamp_nanos() / 1000).ok());
        micros.map(Self).ok_or_else(|| Error::Invalid(format!("'{text}' is out of range")))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1000).map_err(|_| fmt::Error)?;
        f.write_str(&time.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_as_it_is_read() {
        let text = "2026-11-24T15:00:00.25Z";
        assert_eq!(Timestamp::parse(text).unwrap().to_string(), text);
        assert_eq!(Timestamp::from_seconds(-1).seconds(), -1);
        assert!(Timestamp::parse("yesterday").is_err());
        for beyond in ["9999-12-31T23:59:59-05:00", "0000-01-01T00:00:00+01:00"] {
            assert!(Timestamp::parse(beyond).is_err(), "{beyond}");
        }
    }
}
