//! Which devices are connected, and what each has subscribed to.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::hash::{BuildHasherDefault, Hasher};

use keyrivet_registry::rules::topic::{Channel, Topic};
use keyrivet_registry::{DeviceName, Limit, Refusal, Session};

use crate::ffi::broker::{ClientRef, ConnectionId};

/// Sessions that outlive their connection and are remembered, at most.
const REMEMBERED: usize = 100_000;

/// A device's connection.
pub(crate) struct Client {
    /// The client id as it was given; it names the connection to the broker.
    pub(crate) id: CString,
    pub(crate) session: Session,
    /// The topic of its own last event, and that on which others got it: most devices keep to one.
    pub(crate) last_event: Option<(CString, CString)>,
    subscriptions: Subscriptions,
    /// The broker keeps its session when the connection ends.
    durable: bool,
}

/// What a client has subscribed to, by filter.
type Subscriptions = HashMap<Box<str>, Subscription>;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Subscription {
    qos: u8,
    /// The version of the configuration that it has got.
    version: i64,
}

impl Client {
    /// With which quality a message on this topic goes to it; `None` if it has not subscribed, or may not read it.
    pub(crate) fn listens(&self, topic: &Topic<'_>) -> Option<u8> {
        let own = topic.device == self.session.device.id.as_str();
        let speaks_for = own || self.session.attached.contains(topic.device) || topic.channel == Channel::Errors;
        let all = matches!(topic.channel, Channel::Commands(_)).then_some(Channel::Commands("#"));
        let filters = [Some(topic.channel), all].into_iter().flatten();
        let filters = filters.map(|channel| Topic { device: topic.device, channel }.to_string());
        let fitting = filters.filter_map(|filter| self.subscriptions.get(filter.as_str()));
        fitting.map(|subscription| subscription.qos).max().filter(|_| speaks_for)
    }

    /// As [`Self::listens`] for a version of a configuration, which it gets once.
    pub(crate) fn awaits(&mut self, topic: &Topic<'_>, version: i64) -> Option<u8> {
        let qos = self.listens(topic)?;
        let subscription = self.subscriptions.get_mut(topic.to_string().as_str())?;
        (std::mem::replace(&mut subscription.version, version) != version).then_some(qos)
    }

    /// The devices whose configuration it has subscribed to.
    pub(crate) fn configs(&self) -> impl Iterator<Item = DeviceName> {
        self.subscriptions.keys().filter_map(|filter| match Topic::subscribed(filter) {
            Ok(Topic { device, channel: Channel::Config }) => self.session.device_named(device).ok(),
            _ => None,
        })
    }

    /// It subscribes, unless it has too many subscriptions already.
    pub(crate) fn subscribe(&mut self, filter: &str, qos: u8) -> Result<(), Refusal> {
        if !self.subscriptions.contains_key(filter) && self.subscriptions.len() == Limit::SUBSCRIPTIONS.most {
            return Err(Refusal::TooMany { limit: Limit::SUBSCRIPTIONS });
        }
        let _ = self.subscriptions.insert(filter.into(), Subscription { qos: qos.min(1), version: 0 });
        Ok(())
    }

    /// It ends a subscription.
    pub(crate) fn unsubscribe(&mut self, filter: &str) {
        let _ = self.subscriptions.remove(filter);
    }

    /// It does not speak for this device any more.
    pub(crate) fn forget(&mut self, device: &str) {
        let prefix = format!("/devices/{device}/");
        self.subscriptions.retain(|filter, _| !filter.starts_with(&prefix));
    }
}

/// Hashes a connection, which is asked for with every message: it is an address that the broker chose, so nobody can make
/// them collide.
#[derive(Default)]
struct ByAddress(u64);

impl Hasher for ByAddress {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // The golden ratio spreads it upwards; the table's place is in the lower bits.
        let spread = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = spread ^ (spread >> 32);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// All connections of devices.
#[derive(Default)]
pub(crate) struct Clients {
    connections: HashMap<ConnectionId, Client, BuildHasherDefault<ByAddress>>,
    /// The newest connection of each device.
    newest: HashMap<DeviceName, ConnectionId>,
    gateways: HashSet<ConnectionId, BuildHasherDefault<ByAddress>>,
    /// Connections that the broker is about to end for another one with the same client id.
    taken_over: Vec<ConnectionId>,
    /// Connections of devices that have ended: a will of theirs may still be asked about.
    left: HashSet<ConnectionId, BuildHasherDefault<ByAddress>>,
    /// By client id: the subscriptions of durable sessions without connection.
    remembered: HashMap<CString, Subscriptions>,
}

impl Clients {
    /// A device was let in. Answers the connection that it had before, under another client id: the broker itself ends
    /// only one with the same.
    pub(crate) fn admit(&mut self, client: ClientRef<'_>, id: &CStr, session: Session) -> Option<ConnectionId> {
        let connection = client.connection();
        let durable = !client.starts_clean();
        // After a reload of its configuration the broker asks again about those who are connected.
        let known = self.connections.remove(&connection).filter(|known| *known.id == *id);
        let remembered = self.remembered.remove(id);
        let subscriptions = match known {
            Some(known) => known.subscriptions,
            None if durable => remembered.unwrap_or_else(|| self.inherited(id).unwrap_or_else(|| presumed(&session))),
            None => Subscriptions::new(),
        };
        if session.is_gateway {
            let _ = self.gateways.insert(connection);
        } else {
            let _ = self.gateways.remove(&connection);
        }
        let before = self.newest.insert(session.device.clone(), connection);
        let client = Client { id: id.to_owned(), session, last_event: None, subscriptions, durable };
        let _ = self.connections.insert(connection, client);
        let before = before.filter(|before| *before != connection)?;
        if self.connections.get(&before)?.id.as_c_str() == id {
            self.taken_over.push(before);
            return None;
        }
        Some(before)
    }

    /// Whether the broker is ending this connection for a newer one.
    pub(crate) fn is_taken_over(&self, connection: ConnectionId) -> bool {
        self.taken_over.contains(&connection)
    }

    /// Somebody has this connection now.
    pub(crate) fn begin(&mut self, connection: ConnectionId) {
        let _ = self.left.remove(&connection);
    }

    /// Whether a device had this connection until it ended.
    pub(crate) fn has_left(&self, connection: ConnectionId) -> bool {
        self.left.contains(&connection)
    }

    /// The broker has ended what it meant to end.
    pub(crate) fn forget_taken_over(&mut self) {
        self.taken_over.clear();
    }

    /// The subscriptions of a connection with the same client id, which the broker is about to end.
    fn inherited(&self, id: &CStr) -> Option<Subscriptions> {
        let name = DeviceName::parse(id.to_str().ok()?).ok()?;
        let before = self.connections.get(self.newest.get(&name)?)?;
        (*before.id == *id).then(|| before.subscriptions.clone())
    }

    /// A connection is not a device's, or not any more. Answers its session if it was the device's newest.
    pub(crate) fn remove(&mut self, connection: ConnectionId) -> Option<Session> {
        let client = self.connections.remove(&connection)?;
        let _ = self.gateways.remove(&connection);
        if self.left.len() < REMEMBERED {
            let _ = self.left.insert(connection);
        }
        if client.durable && self.remembered.len() < REMEMBERED {
            let _ = self.remembered.insert(client.id, client.subscriptions);
        }
        if self.newest.get(&client.session.device) != Some(&connection) {
            return None;
        }
        let _ = self.newest.remove(&client.session.device);
        Some(client.session)
    }

    /// The device behind a client of the broker, if it is one.
    pub(crate) fn find(&mut self, client: ClientRef<'_>) -> Option<&mut Client> {
        let known = self.connections.get_mut(&client.connection())?;
        (client.id()? == known.id.as_c_str()).then_some(known)
    }

    /// A connection.
    pub(crate) fn get(&mut self, connection: ConnectionId) -> Option<&mut Client> {
        self.connections.get_mut(&connection)
    }

    /// Every connection.
    pub(crate) fn all(&mut self) -> impl Iterator<Item = (ConnectionId, &mut Client)> {
        self.connections.iter_mut().map(|(connection, client)| (*connection, client))
    }

    /// The connections that may speak for a device: its own, and those of gateways of its registry.
    pub(crate) fn near(&self, device: &DeviceName) -> Vec<ConnectionId> {
        let gateways = self.gateways.iter().copied().filter(|gateway| {
            let session = self.connections.get(gateway).map(|client| &client.session);
            session.is_some_and(|session| session.device != *device && session.device.registry == device.registry)
        });
        self.newest.get(device).copied().into_iter().chain(gateways).collect()
    }
}

/// What a durable session that the broker has kept over its restart can have subscribed to: nobody tells what it has.
fn presumed(session: &Session) -> Subscriptions {
    let own = |channel| {
        let topic = Topic { device: session.device.id.as_str(), channel };
        (topic.to_string().into(), Subscription { qos: 1, version: 0 })
    };
    [Channel::Config, Channel::Commands("#")].map(own).into()
}
