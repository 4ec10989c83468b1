//! The audit trail, and when each device was last heard of: both are written in batches.

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
            for rows in rows.chunks(ROWS_AT_ONCE) {
                insert(connection, rows)?;
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

fn insert(connection: &mut dyn Connection, rows: &[AuditRow]) -> Result<()> {
    let columns = |row: &AuditRow| -> [Value; 8] {
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
    let mut sql = "INSERT INTO audit (at, registry, device, via, action, allowed, code, reason) VALUES".to_owned();
    for first in (1..=values.len()).step_by(8) {
        let places: Vec<_> = (first..first + 8).map(|place| format!("${place}")).collect();
        sql.push_str(&format!("{} ({})", if first > 1 { "," } else { "" }, places.join(", ")));
    }
    connection.execute(&sql, &values).map(drop)
}

/// Whom nobody knows leaves only audit rows.
fn upsert(connection: &mut dyn Connection, name: &DeviceName, touch: &Activity) -> Result<()> {
    let (column, id) = match name.id.number() {
        Some(number) => ("number", number.into()),
        None => ("id", name.id.as_str().into()),
    };
    let sql = format!(
        "INSERT INTO activity (device, seen, event, state, connected, disconnected, error_at, error) \
         SELECT number, $1, $2, $3, $4, $5, $6, $7 FROM devices WHERE registry = $8 AND {column} = $9 \
         ON CONFLICT (device) DO UPDATE SET \
         seen = COALESCE(excluded.seen, activity.seen), event = COALESCE(excluded.event, activity.event), \
         state = COALESCE(excluded.state, activity.state), \
         connected = COALESCE(excluded.connected, activity.connected), \
         disconnected = COALESCE(excluded.disconnected, activity.disconnected), \
         error_at = COALESCE(excluded.error_at, activity.error_at), \
         error = COALESCE(excluded.error, activity.error)"
    );
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
    connection.execute(&sql, &values).map(drop)
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
