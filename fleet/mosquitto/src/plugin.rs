//! The broker's questions, answered by the rules of the registry.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyrivet_registry::rules::admission::Protocol;
use keyrivet_registry::rules::session::Action;
use keyrivet_registry::rules::topic::{Channel, Topic};
use keyrivet_registry::{Change, DeviceName, Event, Fleet, Proof, Refusal, Session, Timestamp, shown};
use parking_lot::Mutex;

use crate::answer::{Access, Answer, Message};
use crate::clients::{Client, Clients};
use crate::delivery;
use crate::ffi::broker::{Broker, ClientRef, ConnectionId, Level};
use crate::ffi::clock;
use crate::keeper::{Keeper, News, full};
use crate::options::{EventTopics, Options};

/// By which way clients come, for the audit trail.
const VIA: &str = "mqtt";
/// How much of a name or topic a line of the log shows.
const SHOWN: usize = 300;
/// How often expired sessions are looked for, in microseconds.
const PATROL: u64 = 250_000;
/// How long after its start the broker must have called the tick.
const FIRST_TICK: Duration = Duration::from_secs(3);

/// The plugin of one broker, or of one of its listeners.
pub(crate) struct Plugin {
    fleet: Arc<Fleet>,
    events: EventTopics,
    started: Instant,
    state: Mutex<State>,
}

struct State {
    keeper: Keeper,
    clients: Clients,
    /// Connections to be ended at the next tick, and why.
    leaving: Vec<(ConnectionId, Refusal)>,
    /// Connections to be ended because their device has a newer one.
    replaced: Vec<ConnectionId>,
    last_patrol: Option<Timestamp>,
    /// Events that came by HTTP and that the last tick published: should the broker end now, it sends them to nobody.
    unsure: Vec<Event>,
    told_of_stranger: bool,
}

impl State {
    fn new(keeper: Keeper) -> Self {
        Self {
            keeper,
            clients: Clients::default(),
            leaving: Vec::new(),
            replaced: Vec::new(),
            last_patrol: None,
            unsure: Vec::new(),
            told_of_stranger: false,
        }
    }
}

impl Plugin {
    /// Opens the registry that the options name.
    pub(crate) fn open(options: &[(String, String)]) -> Result<Self, String> {
        let options = Options::read(options)?;
        let fleet = Arc::new(Fleet::open(&options.store).map_err(|error| error.to_string())?);
        let state = Mutex::new(State::new(Keeper::new(Arc::clone(&fleet))));
        Ok(Self { fleet, events: options.events, started: Instant::now(), state })
    }

    /// Says in the log that it is there.
    pub(crate) fn greet(&self, broker: Broker<'_>) {
        let (version, kind) = (env!("CARGO_PKG_VERSION"), self.fleet.store().kind());
        broker.log(Level::Notice, &format!("version {version}, registry in {kind}"));
    }

    /// Whether a client is let in.
    pub(crate) fn authenticate(&self, broker: Broker<'_>, client: ClientRef<'_>, password: Option<&[u8]>) -> Answer {
        let mut state = self.state.lock();
        state.clients.begin(client.connection());
        let id = client.id().unwrap_or(c"");
        let text = readable(id.to_bytes());
        let password = password.map(readable).filter(|password| !password.is_empty());
        if !DeviceName::is_claimed_by(id.to_bytes()) && !password.as_deref().is_some_and(looks_like_token) {
            let _ = state.clients.remove(client.connection());
            return Answer::NotOurs;
        }
        if state.last_patrol.is_none() && self.started.elapsed() > FIRST_TICK {
            let why = "this broker does not call its plugins' tick, as mosquitto before 2.0.12 with \
                       per_listener_settings true: nobody can be let in, set it to false";
            broker.log(Level::Error, why);
            return Answer::Denied;
        }
        let certificate: Vec<_> = if password.is_none() { client.certificate().into_iter().collect() } else { vec![] };
        let proof = match &password {
            Some(token) => Proof::Token(token),
            None if certificate.is_empty() => Proof::Nothing,
            None => Proof::Certificates(&certificate),
        };
        let now = Timestamp::now();
        match self.fleet.authenticate(&text, Protocol::Mqtt, proof, VIA, now) {
            Ok(session) => {
                self.fleet.connected(&session, now);
                let before = state.clients.admit(client, id, session);
                state.replaced.extend(before);
                Answer::Allowed
            }
            Err(refusal) => {
                let _ = state.clients.remove(client.connection());
                broker.log(Level::Notice, &format!("refused {}: {}", shown(&text, SHOWN), full(&refusal)));
                Answer::Denied
            }
        }
    }

    /// Whether a client may do that with a topic.
    pub(crate) fn check(&self, broker: Broker<'_>, client: ClientRef<'_>, topic: &CStr, access: Access) -> Answer {
        let mut state = self.state.lock();
        let State { keeper, clients, leaving, told_of_stranger, .. } = &mut *state;
        // That is its will, which would go out as it is, past `take`.
        if matches!(access, Access::Write { .. }) && clients.is_taken_over(client.connection()) {
            return Answer::Denied;
        }
        let Some(device) = clients.find(client) else {
            let claimed = client.id().is_some_and(|id| DeviceName::is_claimed_by(id.to_bytes()));
            if claimed && !clients.has_left(client.connection()) && !*told_of_stranger {
                *told_of_stranger = true;
                let why = "a client with a device's name was let in without asking the registry, and may do nothing: \
                           switch use_identity_as_username and use_subject_as_username off";
                broker.log(Level::Error, why);
            }
            let theirs = claimed || Topic::is_claimed_by(topic.to_bytes());
            return if theirs { Answer::Denied } else { Answer::NotOurs };
        };
        let Ok(topic) = topic.to_str() else { return Answer::Denied };
        let (action, verb) = match access {
            Access::Read => (Action::Receive, "read"),
            Access::Write { qos, size } => (Action::Publish { qos, size: Some(size) }, "publish"),
            Access::Subscribe { .. } => (Action::Subscribe, "subscribe"),
            Access::Unsubscribe => {
                device.unsubscribe(topic);
                return Answer::Allowed;
            }
        };
        let now = clock::recent();
        let mut allowed = self.fleet.authorise(&mut device.session, action, topic, VIA, now);
        if let (Ok(_), Access::Subscribe { qos }) = (&allowed, access)
            && let Err(refusal) = device.subscribe(topic, qos)
        {
            self.fleet.refused(&device.session.device, VIA, verb, &refusal, now);
            allowed = Err(refusal);
        }
        match allowed {
            Ok(allowed) => {
                if let Access::Subscribe { .. } = access
                    && allowed.channel == Channel::Config
                    && let Ok(name) = device.session.device_named(allowed.device)
                {
                    keeper.fetch_config(name);
                }
                Answer::Allowed
            }
            Err(_) if access == Access::Read => Answer::Denied,
            Err(refusal) => {
                report(broker, device, &format!("{verb} {topic}"), &refusal);
                if let Refusal::NotAttached { device: id, .. } = &refusal {
                    delivery::error(broker, device, id, &refusal, &verb.to_uppercase(), topic);
                }
                if refusal == Refusal::QosTwo {
                    return Answer::DeniedQos;
                }
                leave(leaving, client, device, refusal)
            }
        }
    }

    /// Takes a message that [`Self::check`] has allowed.
    pub(crate) fn take(&self, broker: Broker<'_>, client: ClientRef<'_>, message: &Message<'_>) -> Answer {
        let mut state = self.state.lock();
        let State { clients, leaving, .. } = &mut *state;
        let Some(device) = clients.find(client) else { return Answer::Allowed };
        let Client { session, last_event, .. } = device;
        if let Some((_, up)) = last_event.as_ref().filter(|(last, _)| last.as_c_str() == message.topic) {
            self.fleet.note_event(session, clock::recent());
            let _ = broker.publish(None, up, message.payload, message.qos.min(1));
            return Answer::Taken;
        }
        let Ok(text) = message.topic.to_str() else { return Answer::Denied };
        let Ok(topic) = Topic::published(text) else { return Answer::Denied };
        match self.act(&mut device.session, topic, message.payload) {
            Ok(()) => {
                match topic.channel {
                    Channel::Attach => {}
                    Channel::Detach => device.forget(topic.device),
                    _ => self.publish_up(broker, device, topic, text, message),
                }
                Answer::Taken
            }
            Err((kind, refusal)) => {
                report(broker, device, &format!("publish {text}"), &refusal);
                delivery::error(broker, device, topic.device, &refusal, kind, text);
                leave(leaving, client, device, refusal)
            }
        }
    }

    /// Publishes for the registry's subscribers what a device has published.
    fn publish_up(&self, broker: Broker<'_>, device: &mut Client, topic: Topic<'_>, text: &str, message: &Message<'_>) {
        let DeviceName { registry, id } = &device.session.device;
        let Some(up) = delivery::topic_up(self.events, registry, text) else { return };
        let _ = broker.publish(None, &up, message.payload, message.qos.min(1));
        if matches!(topic.channel, Channel::Events(_)) && topic.device == id.as_str() {
            device.last_event = Some((message.topic.to_owned(), up));
        }
    }

    /// Does what a message asks for; a refusal comes with what the message was, in IoT Core's words.
    fn act(&self, session: &mut Session, topic: Topic<'_>, payload: &[u8]) -> Result<(), (&'static str, Refusal)> {
        let now = Timestamp::now();
        match topic.channel {
            Channel::Attach => self.fleet.attach(session, topic.device, payload, VIA, now).map_err(|it| ("ATTACH", it)),
            Channel::Detach => self.fleet.detach(session, topic.device, VIA, now).map_err(|it| ("DETACH", it)),
            _ => self.fleet.published(session, topic, payload, now).map_err(|it| ("PUBLISH", it)),
        }
    }

    /// The broker has a moment.
    pub(crate) fn tick(&self, broker: Broker<'_>) {
        let now = clock::recent();
        let mut state = self.state.lock();
        let news = state.keeper.turn(now);
        state.clients.forget_taken_over();
        state.unsure.clear();
        // However the clock is set meanwhile.
        let due = state.last_patrol.is_none_or(|last| last.micros().abs_diff(now.micros()) >= PATROL);
        // The broker calls this each time it has done something.
        if !due && news.is_empty() && state.leaving.is_empty() && state.replaced.is_empty() {
            return;
        }
        for news in news {
            self.hear(broker, &mut state, news, now);
        }
        if due {
            state.last_patrol = Some(now);
            Self::patrol(&mut state, now);
        }
        let farewells = self.farewells(broker, &mut state, now);
        // The broker calls back for each.
        drop(state);
        for id in farewells {
            broker.disconnect(&id);
        }
    }

    /// A client has gone.
    pub(crate) fn gone(&self, client: ClientRef<'_>) {
        if let Some(session) = self.state.lock().clients.remove(client.connection()) {
            self.fleet.disconnected(&session, Timestamp::now());
        }
    }

    /// The broker ends.
    pub(crate) fn close(self, broker: Broker<'_>) {
        let now = Timestamp::now();
        let State { keeper, mut clients, unsure, .. } = self.state.into_inner();
        for (_, client) in clients.all() {
            self.fleet.disconnected(&client.session, now);
        }
        let untold = keeper.stop();
        let untold =
            untold.into_iter().filter_map(|news| if let News::Event(event) = news { Some(event) } else { None });
        let events = unsure.into_iter().chain(untold).map(|event| self.fleet.store().put_event(&event));
        let done = events.fold(Ok(()), Result::and).and(self.fleet.write(now));
        if let Err(error) = done {
            broker.log(Level::Error, &format!("not everything could be written: {error}"));
        }
    }

    fn hear(&self, broker: Broker<'_>, state: &mut State, news: News, now: Timestamp) {
        match news {
            News::Changed(Change::Everything) => {
                self.review(state, now, |_| true);
                let wanted: HashSet<_> = state.clients.all().flat_map(|(_, client)| client.configs()).collect();
                wanted.into_iter().for_each(|device| state.keeper.fetch_config(device));
            }
            News::Changed(Change::Registry(name)) => {
                self.review(state, now, |device| device.registry == name);
            }
            News::Changed(Change::Device(name)) => {
                let near = state.clients.near(&name);
                self.review_these(state, now, near);
            }
            News::Changed(Change::Config(name)) => {
                if delivery::wants_config(&mut state.clients, &name) {
                    state.keeper.fetch_config(name);
                }
            }
            // The keeper fetches commands without being asked.
            News::Changed(Change::Command(_)) => {}
            News::Config(device, config) => delivery::config(broker, &mut state.clients, &device, &config),
            News::Command(command) => {
                if let Some(outcome) = delivery::command(broker, &mut state.clients, &command) {
                    state.keeper.command_done(command.id, outcome);
                }
            }
            News::Event(event) => {
                delivery::event(broker, self.events, &event);
                state.unsure.push(event);
            }
            News::Store(Ok(())) => broker.log(Level::Notice, "the registry's store answers again"),
            News::Store(Err(why)) => broker.log(Level::Error, &why),
        }
    }

    /// Looks again at the sessions of some devices.
    fn review(&self, state: &mut State, now: Timestamp, concerned: impl Fn(&DeviceName) -> bool) {
        let all = state.clients.all().filter(|(_, client)| concerned(&client.session.device));
        let these: Vec<_> = all.map(|(connection, _)| connection).collect();
        self.review_these(state, now, these);
    }

    fn review_these(&self, state: &mut State, now: Timestamp, connections: Vec<ConnectionId>) {
        for connection in connections {
            let Some(client) = state.clients.get(connection) else { continue };
            match self.fleet.check(&mut client.session, now) {
                // It is better to keep whom one knows while the store cannot be asked.
                Ok(()) | Err(Refusal::Unavailable { .. }) => {}
                Err(refusal) => state.leaving.push((connection, refusal)),
            }
        }
    }

    /// Finds sessions that have expired.
    fn patrol(state: &mut State, now: Timestamp) {
        let State { clients, leaving, .. } = state;
        for (connection, client) in clients.all() {
            if now >= client.session.expires {
                let by = now.seconds().saturating_sub(client.session.expires.seconds());
                leaving.push((connection, Refusal::TokenExpired { by }));
            }
        }
    }

    /// Says goodbye to those who leave; answers their client ids, for the broker.
    fn farewells(&self, broker: Broker<'_>, state: &mut State, now: Timestamp) -> Vec<CString> {
        let State { clients, leaving, replaced, .. } = state;
        let mut ids = Vec::new();
        for (connection, refusal) in leaving.drain(..) {
            // It may have gone by itself, or be told already for another reason.
            let Some(client) = clients.get(connection).filter(|client| !ids.contains(&client.id)) else { continue };
            let text = client.id.to_string_lossy();
            broker.log(Level::Notice, &format!("disconnects {}: {}", shown(&text, SHOWN), full(&refusal)));
            self.fleet.refused(&client.session.device, VIA, "disconnect", &refusal, now);
            ids.push(client.id.clone());
        }
        for connection in replaced.drain(..) {
            let Some(client) = clients.get(connection).filter(|client| !ids.contains(&client.id)) else { continue };
            let text = client.id.to_string_lossy();
            broker.log(Level::Notice, &format!("disconnects {}: the device has connected anew", shown(&text, SHOWN)));
            ids.push(client.id.clone());
        }
        ids
    }
}

/// Bytes as text, as [`String::from_utf8_lossy`]; quicker where nothing is lost, which with a token counts.
fn readable(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// Whether a password was meant for the registry, whatever the client id: a JWT's header begins with `{"`.
fn looks_like_token(password: &str) -> bool {
    password.starts_with("eyJ") && password.split('.').count() == 3
}

/// The answer to a refusal: the broker closes the connection now, soon or not at all.
fn leave(
    leaving: &mut Vec<(ConnectionId, Refusal)>,
    client: ClientRef<'_>,
    device: &Client,
    refusal: Refusal,
) -> Answer {
    if let Refusal::Unavailable { .. } = refusal {
        return Answer::Failed;
    }
    if refusal.closes_connection(&device.session.device.id) {
        leaving.push((client.connection(), refusal));
    }
    Answer::Denied
}

fn report(broker: Broker<'_>, client: &Client, action: &str, refusal: &Refusal) {
    let id = client.id.to_string_lossy();
    broker.log(Level::Notice, &format!("refused {}: {}: {}", shown(&id, SHOWN), shown(action, SHOWN), full(refusal)));
}
