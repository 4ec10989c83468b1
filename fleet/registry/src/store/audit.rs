//! The audit trail, and when each device was last heard of: both are written in batches.

use std::sync::LazyLock;

use super::Store;
use super::database::{Connection, Row, Value};
use crate::error::Result;
use crate::journal::{AuditRow, Verdict};
use crate::name::{DeviceName, RegistryName};
use crate::record::Activity;

/// Rows of the audit trail that are kept.
const KEPT_ROWS: i64 = 1_000_000;
/// Rows that one statement writes: what a statement costs by itself is theirs together.
const ROWS_AT_ONCE: usize = 50;
/// What a row holds.
const COLUMNS: usize = 8;

/// What was noticed about a device.
#[derive(Clone, Debug, Default)]
pub struct Touch {
    /// Each of them: the newest moment, if there was one.
    pub activity: Activity,
}

/// Which rows of the audit trail to show.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Only of this device.
    pub device: Option<String>,
    /// Only refusals.
    pub refused: bool,
    /// Only rows after this number.
    pub after: i64,
    /// At most so many, the newest.
    pub limit: usize,
}

impl Store {
    /// Writes what has gathered, in one transaction.
    pub fn write_journal(&self, rows: &[AuditRow], touches: &[(DeviceName, Touch)]) -> Result<()> {
        if rows.is_empty() && touches.is_empty() {
            return Ok(());
        }
        self.write(|connection| {
            let [one, many] = &*INSERTIONS;
            let whole = rows.chunks_exact(ROWS_AT_ONCE);
            let rest = whole.remainder().chunks(1);
            for (sql, rows) in whole.map(|rows| (many, rows)).chain(rest.map(|row| (one, row))) {
                insert(connection, sql, rows)?;
            }
            for (name, touch) in touches {
                upsert(connection, name, &touch.activity)?;
            }
            if rows.is_empty() {
                return Ok(());
            }
            let sql = "DELETE FROM audit WHERE number <= (SELECT MAX(number) FROM audit) - $1";
            connection.execute(sql, &[KEPT_ROWS.into()]).map(drop)
        })
    }

    /// Rows of a registry's audit trail, oldest first, each with its number.
    pub fn audit(&self, registry: &RegistryName, filter: &AuditFilter) -> Result<Vec<(i64, AuditRow)>> {
        let sql = "SELECT number, at, registry, device, via, action, allowed, code, reason FROM audit \
                   WHERE registry = $1 AND ($2 = '' OR device = $2) AND (CAST($3 AS BIGINT) = 0 OR allowed = 0) AND number > $4 \
                   ORDER BY number DESC LIMIT $5";
        let values: [Value; 5] = [
            registry.to_string().into(),
            filter.device.clone().unwrap_or_default().into(),
            filter.refused.into(),
            filter.after.into(),
            filter.limit.into(),
        ];
        let mut rows =
            self.read(|connection| connection.query(sql, &values)?.iter().map(audit_row).collect::<Result<Vec<_>>>())?;
        rows.reverse();
        Ok(rows)
    }

    /// When a device was last heard of.
    pub fn activity(&self, number: i64) -> Result<Activity> {
        let sql = "SELECT seen, event, state, connected, disconnected, error_at, error FROM activity WHERE device = $1";
        self.read(|connection| {
            let rows = connection.query(sql, &[number.into()])?;
            rows.first().map_or(Ok(Activity::default()), activity)
        })
    }
}

/// The statements that write one row, and [`ROWS_AT_ONCE`]. With one for each number each would be prepared in vain.
static INSERTIONS: LazyLock<[String; 2]> = LazyLock::new(|| [1, ROWS_AT_ONCE].map(insertion));

fn insertion(rows: usize) -> String {
    let places = |row: usize| (1..=COLUMNS).map(|column| format!("${}", row * COLUMNS + column)).collect::<Vec<_>>();
    let rows: Vec<_> = (0..rows).map(|row| format!("({})", places(row).join(", "))).collect();
    let columns = "at, registry, device, via, action, allowed, code, reason";
    format!("INSERT INTO audit ({columns}) VALUES {}", rows.join(", "))
}

fn insert(connection: &mut dyn Connection, sql: &str, rows: &[AuditRow]) -> Result<()> {
    let columns = |row: &AuditRow| -> [Value; COLUMNS] {
        [
            row.at.into(),
            row.registry.as_str().into(),
            row.device.as_str().into(),
            row.via.as_str().into(),
            row.action.as_str().into(),
            (row.verdict == Verdict::Allowed).into(),
            row.code.as_str().into(),
            row.reason.as_str().into(),
        ]
    };
    let values: Vec<_> = rows.iter().flat_map(columns).collect();
    connection.execute(sql, &values).map(drop)
}

/// How a device's moments are written, by its id and by its number.
static UPSERTS: LazyLock<[String; 2]> = LazyLock::new(|| {
    ["id", "number"].map(|column| {
        format!(
            "INSERT INTO activity (device, seen, event, state, connected, disconnected, error_at, error) \
             SELECT number, $1, $2, $3, $4, $5, $6, $7 FROM devices WHERE registry = $8 AND {column} = $9 \
             ON CONFLICT (device) DO UPDATE SET \
             seen = COALESCE(excluded.seen, activity.seen), event = COALESCE(excluded.event, activity.event), \
             state = COALESCE(excluded.state, activity.state), \
             connected = COALESCE(excluded.connected, activity.connected), \
             disconnected = COALESCE(excluded.disconnected, activity.disconnected), \
             error_at = COALESCE(excluded.error_at, activity.error_at), \
             error = COALESCE(excluded.error, activity.error)"
        )
    })
});

/// Whom nobody knows leaves only audit rows.
fn upsert(connection: &mut dyn Connection, name: &DeviceName, touch: &Activity) -> Result<()> {
    let [by_id, by_number] = &*UPSERTS;
    let (sql, id) = match name.id.number() {
        Some(number) => (by_number, number.into()),
        None => (by_id, name.id.as_str().into()),
    };
    let values = [
        touch.seen.into(),
        touch.event.into(),
        touch.state.into(),
        touch.connected.into(),
        touch.disconnected.into(),
        touch.error_at.into(),
        touch.error.as_deref().into(),
        name.registry.to_string().into(),
        id,
    ];
    connection.execute(sql, &values).map(drop)
}

fn audit_row(row: &Row) -> Result<(i64, AuditRow)> {
    let audit = AuditRow {
        at: row.time(1)?,
        registry: row.text(2)?,
        device: row.text(3)?,
        via: row.text(4)?,
        action: row.text(5)?,
        verdict: if row.boolean(6)? { Verdict::Allowed } else { Verdict::Refused },
        code: row.text(7)?,
        reason: row.text(8)?,
    };
    Ok((row.integer(0)?, audit))
}

fn activity(row: &Row) -> Result<Activity> {
    Ok(Activity {
        seen: row.optional_time(0)?,
        event: row.optional_time(1)?,
        state: row.optional_time(2)?,
        connected: row.optional_time(3)?,
        disconnected: row.optional_time(4)?,
        error_at: row.optional_time(5)?,
        error: row.optional_text(6)?,
    })
}
