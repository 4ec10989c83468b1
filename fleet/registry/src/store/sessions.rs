//! Until when a device is let in by brokers that ask about each message and tell nothing of the connection it comes from.

use super::Store;
use super::admin::existing_device;
use crate::error::Result;
use crate::name::DeviceName;
use crate::timestamp::Timestamp;

impl Store {
    /// Notes that a device was let in, until then.
    pub fn set_session_end(&self, name: &DeviceName, end: Timestamp) -> Result<()> {
        let sql = "INSERT INTO sessions (device, until) VALUES ($1, $2) \
                   ON CONFLICT (device) DO UPDATE SET until = excluded.until";
        self.write(|connection| {
            let device = existing_device(connection, name)?;
            connection.execute(sql, &[device.number.into(), end.into()]).map(drop)
        })
    }

    /// Until when a device was let in last, if it ever was.
    pub fn session_end(&self, name: &DeviceName) -> Result<Option<Timestamp>> {
        self.read(|connection| {
            let device = existing_device(connection, name)?;
            let rows = connection.query("SELECT until FROM sessions WHERE device = $1", &[device.number.into()])?;
            rows.first().map(|row| row.time(0)).transpose()
        })
    }
}
