//! Until when a device is let in by brokers that ask about each message and tell nothing of the connection it comes from.

use super::Store;
use crate::error::Result;
use crate::timestamp::Timestamp;

impl Store {
    /// Notes that the device with this number was let in, until then.
    pub fn set_session_end(&self, device: i64, end: Timestamp) -> Result<()> {
        let sql = "INSERT INTO sessions (device, until) VALUES ($1, $2) \
                   ON CONFLICT (device) DO UPDATE SET until = excluded.until";
        self.write(|connection| connection.execute(sql, &[device.into(), end.into()]).map(drop))
    }

    /// Until when the device with this number was let in last, if it ever was.
    pub fn session_end(&self, device: i64) -> Result<Option<Timestamp>> {
        self.read(|connection| {
            let rows = connection.query("SELECT until FROM sessions WHERE device = $1", &[device.into()])?;
            rows.first().map(|row| row.time(0)).transpose()
        })
    }
}
