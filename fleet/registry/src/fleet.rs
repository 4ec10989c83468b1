//! The registry at work: rules, store, cache and journal behind calls that a broker's plugin and a server both make.
//!
//! A call answers from memory where it can. About twice a second somebody calls [`Fleet::write`], which writes what has
//! gathered, and [`Fleet::learn`], before which a change made elsewhere is not seen.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::credential::Proof;
use crate::error::{Error, Result};
use crate::journal::Journal;
use crate::known::Known;
use crate::limit::{CLOCK_SKEW, Limit};
use crate::name::{DeviceId, DeviceName, RegistryName};
use crate::record::{Config, Device, Event, Registry};
use crate::refusal::{Refusal, shown};
use crate::rules::admission::{self, Protocol};
use crate::rules::gateway;
use crate::rules::session::{self, Action, Session};
use crate::rules::topic::{Channel, Topic};
use crate::store::{ChangeRow, Store, What};
use crate::timestamp::Timestamp;

/// The registry of one process.
pub struct Fleet {
    store: Store,
    journal: Journal,
    known: Known,
    /// One more with each change of a record: sessions of an older one are looked at again.
    generation: AtomicU64,
    seen: Mutex<Seen>,
}

/// What was learnt last.
struct Seen {
    change: i64,
    at: Timestamp,
}

/// What somebody changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Any registry or device may have changed: look at every session. Configurations and commands are told besides.
    Everything,
    /// This registry changed.
    Registry(RegistryName),
    /// This device was made, changed or deleted, or what it is bound or attached to.
    Device(DeviceName),
    /// This device has a new configuration.
    Config(DeviceName),
    /// A command waits for this device.
    Command(DeviceName),
}

impl Fleet {
    /// Opens the store that a URL or path names; see [`Store::open`].
    pub fn open(url: &str) -> Result<Self> {
        let store = Store::open(url)?;
        let seen = Seen { change: store.last_change()?, at: Timestamp::now() };
        Ok(Self {
            store,
            journal: Journal::default(),
            known: Known::default(),
            generation: AtomicU64::new(0),
            seen: Mutex::new(seen),
        })
    }

    /// The store itself, for administration.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Lets a client in, or says why not. `via` is how it came, for the audit trail: `mqtt`, `http`, `emqx`.
    pub fn authenticate(
        &self,
        client_id: &str,
        protocol: Protocol,
        proof: Proof<'_>,
        via: &str,
        now: Timestamp,
    ) -> Result<Session, Refusal> {
        let name = match DeviceName::parse(client_id) {
            Ok(name) => name,
            Err(refusal) => {
                self.journal.refused_nameless(client_id, via, "connect", &refusal, now);
                return Err(refusal);
            }
        };
        let outcome = self.admit(&name, protocol, proof, now);
        self.journal.decided(&name, via, "connect", outcome.as_ref().map(drop), now);
        let session = outcome?;
        self.journal.touch(&session.device, |touch| touch.activity.seen = Some(now));
        Ok(session)
    }

    fn admit(
        &self,
        name: &DeviceName,
        protocol: Protocol,
        proof: Proof<'_>,
        now: Timestamp,
    ) -> Result<Session, Refusal> {
        let generation = self.generation.load(Ordering::Acquire);
        let (registry, device) = self.look_up(name)?;
        let expires = admission::authenticate(&registry, &device, protocol, proof, now);
        // Who asks by a number learns no name by that.
        let expires = expires.map_err(|refusal| refusal.about(&name.id))?;
        self.session(&device, expires, generation)
    }

    /// The session of a client that a broker has authenticated with us before: for hooks, which come one by one.
    pub fn session_of(&self, client_id: &str) -> Result<Session, Refusal> {
        let name = DeviceName::parse(client_id)?;
        let generation = self.generation.load(Ordering::Acquire);
        let (registry, device) = self.look_up(&name)?;
        if device.blocked {
            return Err(Refusal::Blocked { device: device.name.id.to_string() });
        }
        if !registry.mqtt {
            return Err(Refusal::ProtocolOff { protocol: "MQTT" });
        }
        self.session(&device, Timestamp::from_micros(i64::MAX), generation)
    }

    fn session(&self, device: &Device, expires: Timestamp, generation: u64) -> Result<Session, Refusal> {
        let attached = match device.gateway {
            Some(_) => self.store.attached(device).map_err(unavailable)?,
            None => HashSet::new(),
        };
        let is_gateway = device.gateway.is_some();
        let Device { name, number, .. } = device.clone();
        Ok(Session { device: name, number, is_gateway, expires, attached, event_noted: 0, generation })
    }

    /// Whether a session still holds: not expired, and the device neither blocked nor gone. Its refusal is the reason
    /// to close the connection with.
    pub fn check(&self, session: &mut Session, now: Timestamp) -> Result<(), Refusal> {
        if now >= session.expires {
            return Err(Refusal::TokenExpired { by: now.seconds().saturating_sub(session.expires.seconds()) });
        }
        let generation = self.generation.load(Ordering::Acquire);
        if session.generation == generation {
            return Ok(());
        }
        let (registry, device) = self.look_up(&session.device)?;
        if device.blocked {
            return Err(Refusal::Blocked { device: device.name.id.to_string() });
        }
        if !registry.mqtt {
            return Err(Refusal::ProtocolOff { protocol: "MQTT" });
        }
        if device.number != session.number {
            return Err(Refusal::DeviceMadeAnew { device: device.name.id.to_string() });
        }
        *session = self.session(&device, session.expires, generation)?;
        Ok(())
    }

    /// Whether the client may do that, and what the topic is. A refusal whose
    /// [`closes_connection`](Refusal::closes_connection) is true ends the connection.
    pub fn authorise<'a>(
        &self,
        session: &mut Session,
        action: Action,
        topic: &'a str,
        via: &str,
        now: Timestamp,
    ) -> Result<Topic<'a>, Refusal> {
        let outcome = self.check(session, now).and_then(|()| session::authorise(session, action, topic));
        let verb = match action {
            Action::Publish { .. } => "publish",
            Action::Subscribe => "subscribe",
            // Brokers ask this for each message and each subscriber: a no is nobody's fault.
            Action::Receive => return outcome,
        };
        if let Err(refusal) = &outcome {
            self.journal.decided(&session.device, via, verb, Err(refusal), now);
        }
        outcome
    }

    /// Takes what a client published on a topic that [`Self::authorise`] allowed: keeps a state, notes an event.
    /// Attaching and detaching have calls of their own.
    pub fn published(
        &self,
        session: &mut Session,
        topic: Topic<'_>,
        payload: &[u8],
        now: Timestamp,
    ) -> Result<(), Refusal> {
        match topic.channel {
            Channel::State => self.set_state(&session.device_named(topic.device)?, payload, now)?,
            Channel::Events(_) if topic.device != session.device.id.as_str() => {
                self.touch_event(&session.device_named(topic.device)?, now);
            }
            Channel::Events(_) => self.note_event(session, now),
            _ => {}
        }
        Ok(())
    }

    /// Notes an event of the client itself: what [`Self::published`] does with one.
    pub fn note_event(&self, session: &mut Session, now: Timestamp) {
        // Once a second is often enough to know when it was last heard of.
        if session.event_noted != now.seconds() {
            session.event_noted = now.seconds();
            self.touch_event(&session.device, now);
        }
    }

    fn touch_event(&self, device: &DeviceName, now: Timestamp) {
        self.journal.touch(device, |touch| touch.activity.event = Some(now));
    }

    /// Keeps a state.
    pub fn set_state(&self, device: &DeviceName, data: &[u8], now: Timestamp) -> Result<(), Refusal> {
        self.store.put_state(device, data, now).map_err(refused)?;
        self.journal.touch(device, |touch| touch.activity.state = Some(now));
        Ok(())
    }

    /// Keeps an event that did not come through a broker until one fetches it ([`Store::take_events`]).
    pub fn publish(&self, event: &Event) -> Result<(), Refusal> {
        self.store.put_event(event).map_err(refused)?;
        self.touch_event(&event.device, event.at);
        Ok(())
    }

    /// A gateway attaches a device; `payload` is that of its message.
    pub fn attach(
        &self,
        session: &mut Session,
        device: &str,
        payload: &[u8],
        via: &str,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let outcome = self.attach_device(session, device, payload, now);
        let action = format!("attach {}", shown(device, Limit::ID.most));
        self.journal.decided(&session.device, via, &action, outcome.as_ref().copied(), now);
        outcome
    }

    fn attach_device(&self, session: &mut Session, id: &str, payload: &[u8], now: Timestamp) -> Result<(), Refusal> {
        self.check(session, now)?;
        let (_, gateway) = self.look_up(&session.device)?;
        let _ = gateway::auth_method(&gateway)?;
        let device = self.device_of_gateway(&gateway, id)?;
        let bound = self.store.is_bound(gateway.number, device.number).map_err(unavailable)?;
        let others = session.attached.len() - usize::from(session.attached.contains(&device.name.id));
        gateway::check_attach(&gateway, &device, bound, others, payload, now)?;
        if session.attached.contains(&device.name.id) {
            return Ok(());
        }
        self.store.attach(&gateway, &device, now).map_err(unavailable)?;
        let _ = session.attached.insert(device.name.id.clone());
        self.journal.touch(&device.name, |touch| touch.activity.seen = Some(now));
        Ok(())
    }

    /// Whether this gateway needs a device's token to attach it.
    pub fn attaches_by_token(&self, session: &Session) -> Result<bool, Refusal> {
        let (_, gateway) = self.look_up(&session.device)?;
        Ok(gateway::auth_method(&gateway)?.needs_token())
    }

    /// A gateway detaches a device.
    pub fn detach(&self, session: &mut Session, device: &str, via: &str, now: Timestamp) -> Result<(), Refusal> {
        let outcome = self.detach_device(session, device, now);
        let action = format!("detach {}", shown(device, Limit::ID.most));
        self.journal.decided(&session.device, via, &action, outcome.as_ref().copied(), now);
        outcome
    }

    fn detach_device(&self, session: &mut Session, id: &str, now: Timestamp) -> Result<(), Refusal> {
        self.check(session, now)?;
        let (_, gateway) = self.look_up(&session.device)?;
        let _ = gateway::auth_method(&gateway)?;
        let device = self.device_of_gateway(&gateway, id)?;
        let _ = session.attached.remove(&device.name.id);
        if self.store.detach(&gateway, &device).map_err(unavailable)? {
            return Ok(());
        }
        Err(Refusal::NotAttached { gateway: gateway.name.id.to_string(), device: device.name.id.to_string() })
    }

    /// For whom a request of the HTTP bridge speaks: the device itself, the device through `gateway_id`, or a gateway
    /// for `delegated`. `session` is whose token came with it.
    pub fn speaks_for(
        &self,
        session: &Session,
        gateway_id: Option<&str>,
        delegated: Option<&str>,
        action: &str,
        now: Timestamp,
    ) -> Result<DeviceName, Refusal> {
        let outcome = self.resolve(session, gateway_id, delegated);
        if let Err(refusal) = &outcome {
            self.journal.decided(&session.device, "http", action, Err(refusal), now);
        }
        outcome
    }

    fn resolve(
        &self,
        session: &Session,
        gateway_id: Option<&str>,
        delegated: Option<&str>,
    ) -> Result<DeviceName, Refusal> {
        let (_, own) = self.look_up(&session.device)?;
        match (gateway_id, delegated) {
            (None, None) => Ok(own.name.clone()),
            (Some(gateway), None) if gateway == own.name.id.as_str() => {
                gateway::auth_method(&own)?;
                Ok(own.name.clone())
            }
            (Some(gateway), None) => {
                let gateway = self.device_of_gateway(&own, gateway)?;
                let bound = self.store.is_bound(gateway.number, own.number).map_err(unavailable)?;
                gateway::check_through(&gateway, &own, bound)?;
                Ok(own.name.clone())
            }
            (None, Some(device)) => {
                let _ = gateway::auth_method(&own)?;
                let device = self.device_of_gateway(&own, device)?;
                let bound = self.store.is_bound(own.number, device.number).map_err(unavailable)?;
                let attached = self.store.is_attached(own.number, device.number).map_err(unavailable)?;
                gateway::check_delegated(&own, &device, bound, attached)?;
                Ok(device.name.clone())
            }
            (Some(_), Some(_)) => Err(Refusal::NameMalformed {
                name: "gatewayInfo".to_owned(),
                why: "has both gatewayId and delegatedDeviceId: a request has one of them".to_owned(),
            }),
        }
    }

    /// The newest configuration of a device, and notes that it was fetched or delivered.
    pub fn deliver_config(&self, device: &DeviceName, now: Timestamp) -> Result<Config, Refusal> {
        let newest = self.store.configs(device, 1).map_err(refused)?.into_iter().next();
        let config = newest.ok_or_else(|| Refusal::NoConfig { device: device.id.to_string() })?;
        if config.acknowledged.is_none() {
            self.store.acknowledge_config(device, config.version, now).map_err(refused)?;
        }
        Ok(config)
    }

    /// Notes that a broker holds a connection of this device.
    pub fn connected(&self, session: &Session, now: Timestamp) {
        self.journal.touch(&session.device, |touch| touch.activity.connected = Some(now));
    }

    /// Notes that a broker lost the connection of this device.
    pub fn disconnected(&self, session: &Session, now: Timestamp) {
        self.journal.touch(&session.device, |touch| touch.activity.disconnected = Some(now));
    }

    /// Writes a refusal that the rules were not asked for, for instance of a connection that has to end.
    pub fn refused(&self, device: &DeviceName, via: &str, action: &str, refusal: &Refusal, now: Timestamp) {
        self.journal.decided(device, via, action, Err(refusal), now);
    }

    /// Writes what has gathered. What cannot be written waits on.
    pub fn write(&self, now: Timestamp) -> Result<()> {
        self.journal.flush(&self.store, now)
    }

    /// Learns what others changed, which holds from now on, and tells it once.
    pub fn learn(&self) -> Result<Vec<Change>> {
        let now = Timestamp::now();
        let mut seen = self.seen.lock();
        let newest = self.store.last_change()?;
        if newest == seen.change {
            seen.at = now;
            return Ok(Vec::new());
        }
        let (newest, changes) = match self.store.changes_after(seen.change)? {
            Some(rows) => (rows.last().map_or(newest, |last| last.seq), rows.iter().filter_map(change).collect()),
            None => {
                // By the clocks of others.
                let rows = self.store.messages_since(seen.at.plus_seconds(-CLOCK_SKEW))?;
                let changes = [Change::Everything].into_iter().chain(rows.iter().filter_map(change));
                (newest, changes.collect::<Vec<_>>())
            }
        };
        *seen = Seen { change: newest, at: now };
        if self.known.forget(&changes) {
            let _ = self.generation.fetch_add(1, Ordering::AcqRel);
        }
        Ok(changes)
    }

    fn look_up(&self, name: &DeviceName) -> Result<(Arc<Registry>, Arc<Device>), Refusal> {
        let unknown = || Refusal::DeviceUnknown { name: name.to_string() };
        let registry = self.known.registry(&name.registry, || self.store.registry(&name.registry));
        let registry = registry.map_err(unavailable)?.ok_or_else(unknown)?;
        let device = self.known.device(name, || self.store.device(name));
        Ok((registry, device.map_err(unavailable)?.ok_or_else(unknown)?))
    }

    /// A device that stands in the same registry as `own`.
    fn device_of_gateway(&self, own: &Device, id: &str) -> Result<Arc<Device>, Refusal> {
        let unknown = || Refusal::GatewayDeviceUnknown { device: shown(id, 64) };
        let name = own.name.sibling(DeviceId::parse(id).map_err(|_| unknown())?);
        match self.look_up(&name) {
            Ok((_, device)) => Ok(device),
            Err(Refusal::DeviceUnknown { .. }) => Err(unknown()),
            Err(other) => Err(other),
        }
    }
}

/// What a row of the feed tells.
fn change(row: &ChangeRow) -> Option<Change> {
    let registry = RegistryName::parse(&row.registry).ok()?;
    let Some(device) = &row.device else { return Some(Change::Registry(registry)) };
    let name = registry.device(device).ok()?;
    Some(match row.what {
        What::Record => Change::Device(name),
        What::Config => Change::Config(name),
        What::Command => Change::Command(name),
    })
}

/// Whoever asks learns only that it did not work; the reason is the operator's.
fn unavailable(error: Error) -> Refusal {
    Refusal::Unavailable { why: error.to_string() }
}

fn refused(error: Error) -> Refusal {
    match error {
        Error::Refused(refusal) => refusal,
        other => unavailable(other),
    }
}
