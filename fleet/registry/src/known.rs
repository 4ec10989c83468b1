//! Registries and devices as the store had them when they were asked for last: most questions need no database.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::error::Result;
use crate::fleet::Change;
use crate::name::{DeviceName, RegistryName};
use crate::record::{Device, Registry};

/// Devices that are kept, at most. A record with two keys takes about 5 KB.
const DEVICES: usize = 50_000;

type Table<K, V> = RwLock<HashMap<K, Arc<V>>>;

/// What is known.
#[derive(Default)]
pub(crate) struct Known {
    registries: Table<RegistryName, Registry>,
    devices: Table<DeviceName, Device>,
    /// How often something was to be forgotten: what was read from the store before that is not kept.
    forgotten: AtomicU64,
}

impl Known {
    /// A registry; `read` asks the store.
    pub(crate) fn registry(
        &self,
        name: &RegistryName,
        read: impl FnOnce() -> Result<Option<Registry>>,
    ) -> Result<Option<Arc<Registry>>> {
        self.look_up(&self.registries, usize::MAX, name, read)
    }

    /// A device; `read` asks the store.
    pub(crate) fn device(
        &self,
        name: &DeviceName,
        read: impl FnOnce() -> Result<Option<Device>>,
    ) -> Result<Option<Arc<Device>>> {
        self.look_up(&self.devices, DEVICES, name, read)
    }

    fn look_up<K: Clone + Eq + Hash, V>(
        &self,
        table: &Table<K, V>,
        most: usize,
        name: &K,
        read: impl FnOnce() -> Result<Option<V>>,
    ) -> Result<Option<Arc<V>>> {
        if let Some(known) = table.read().get(name) {
            return Ok(Some(Arc::clone(known)));
        }
        let forgotten = self.forgotten.load(Ordering::Acquire);
        let Some(found) = read()?.map(Arc::new) else { return Ok(None) };
        let mut table = table.write();
        if table.len() >= most {
            table.clear();
        }
        if self.forgotten.load(Ordering::Acquire) == forgotten {
            let _ = table.insert(name.clone(), Arc::clone(&found));
        }
        Ok(Some(found))
    }

    /// Forgets what is not so any more; answers whether a record was changed. However many changes there are, those who look
    /// things up wait once.
    pub(crate) fn forget(&self, changes: &[Change]) -> bool {
        let _ = self.forgotten.fetch_add(1, Ordering::AcqRel);
        if changes.contains(&Change::Everything) {
            self.registries.write().clear();
            self.devices.write().clear();
            return true;
        }
        let (mut registries, mut devices) = (HashSet::new(), HashSet::new());
        for change in changes {
            let _ = match change {
                Change::Registry(name) => registries.insert(name),
                Change::Device(name) => devices.insert(name),
                Change::Everything | Change::Config(_) | Change::Command(_) => false,
            };
        }
        if registries.is_empty() && devices.is_empty() {
            return false;
        }
        self.registries.write().retain(|name, _| !registries.contains(name));
        // One may be known by its number too.
        let stays = |name: &DeviceName| !devices.contains(name) && !registries.contains(&name.registry);
        self.devices.write().retain(|name, known| stays(name) && stays(&known.name));
        true
    }
}
