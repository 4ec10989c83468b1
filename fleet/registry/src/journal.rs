//! What happened, gathered in memory until the next tick writes it: no message waits for a disk because of its trace.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::error::Result;
use crate::name::DeviceName;
use crate::refusal::{Refusal, shown};
use crate::store::{Store, Touch};
use crate::timestamp::Timestamp;

/// Rows that wait at most: beyond it refusals are counted, not written, so that a flood cannot fill the memory.
const WAITING_ROWS: usize = 10_000;
/// Devices that are let in, or leave, and wait to be noted at most: many more than a broker has.
const WAITING_DEVICES: usize = 1_000_000;

/// Whether something was allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was.
    Allowed,
    /// It was not.
    Refused,
}

/// A row of the audit trail. It never holds a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// When.
    pub at: Timestamp,
    /// In which registry; empty where the name could not be read.
    pub registry: String,
    /// Which device, or what was given for one.
    pub device: String,
    /// By which way it came: `mqtt`, `http`, `emqx`, ...
    pub via: String,
    /// What was asked for.
    pub action: String,
    /// Whether it was allowed.
    pub verdict: Verdict,
    /// The reason's short name, or `ok`.
    pub code: String,
    /// The reason.
    pub reason: String,
}

#[derive(Default)]
struct Waiting {
    rows: Vec<AuditRow>,
    touches: HashMap<DeviceName, Touch>,
    lost: u64,
}

/// What waits to be written.
#[derive(Default)]
pub(crate) struct Journal {
    waiting: Mutex<Waiting>,
}

impl Journal {
    /// Notes a decision about a device.
    pub(crate) fn decided(
        &self,
        device: &DeviceName,
        via: &str,
        action: &str,
        outcome: Result<(), &Refusal>,
        now: Timestamp,
    ) {
        self.push(row(device.registry.to_string(), device.id.as_str(), via, action, outcome, now));
        if let Err(refusal) = outcome {
            // Somebody may make up as many names as he likes.
            self.touch_within(WAITING_ROWS, device, |touch| {
                touch.activity.error_at = Some(now);
                touch.activity.error = Some(refusal.to_string());
            });
        }
    }

    /// Notes the refusal of somebody whose name could not be read.
    pub(crate) fn refused_nameless(&self, given: &str, via: &str, action: &str, refusal: &Refusal, now: Timestamp) {
        self.push(row(String::new(), &shown(given, 300), via, action, Err(refusal), now));
    }

    /// Notes when a device that was let in was heard of.
    pub(crate) fn touch(&self, device: &DeviceName, change: impl FnOnce(&mut Touch)) {
        self.touch_within(WAITING_DEVICES, device, change);
    }

    fn touch_within(&self, most: usize, device: &DeviceName, change: impl FnOnce(&mut Touch)) {
        let mut waiting = self.waiting.lock();
        if let Some(touch) = waiting.touches.get_mut(device) {
            change(touch);
        } else if waiting.touches.len() < most {
            change(waiting.touches.entry(device.clone()).or_default());
        }
    }

    /// Writes what waits. What could not be written waits on.
    pub(crate) fn flush(&self, store: &Store, now: Timestamp) -> Result<()> {
        let mut taken = std::mem::take(&mut *self.waiting.lock());
        let count = taken.rows.len();
        if taken.lost > 0 {
            let mut lost = row(String::new(), "", "registry", "audit", Ok(()), now);
            lost.reason = format!("{} rows were not written: too many at once", taken.lost);
            taken.rows.push(lost);
        }
        let touches: Vec<_> = taken.touches.into_iter().collect();
        let done = store.write_journal(&taken.rows, &touches);
        if done.is_err() {
            let mut waiting = self.waiting.lock();
            for (device, older) in touches {
                waiting.touches.entry(device).or_default().activity.complete(older.activity);
            }
            taken.rows.truncate(count);
            let newer = std::mem::replace(&mut waiting.rows, taken.rows);
            let room = WAITING_ROWS.saturating_sub(count);
            waiting.lost += taken.lost + newer.len().saturating_sub(room) as u64;
            waiting.rows.extend(newer.into_iter().take(room));
        }
        done
    }

    fn push(&self, row: AuditRow) {
        let mut waiting = self.waiting.lock();
        if waiting.rows.len() < WAITING_ROWS { waiting.rows.push(row) } else { waiting.lost += 1 }
    }
}

fn row(
    registry: String,
    device: &str,
    via: &str,
    action: &str,
    outcome: Result<(), &Refusal>,
    at: Timestamp,
) -> AuditRow {
    let (verdict, code, reason) = match outcome {
        Ok(()) => (Verdict::Allowed, "ok", String::new()),
        Err(refusal) => (Verdict::Refused, refusal.code(), refusal.to_string()),
    };
    AuditRow {
        at,
        registry,
        device: device.to_owned(),
        via: via.to_owned(),
        action: action.to_owned(),
        verdict,
        code: code.to_owned(),
        reason,
    }
}
