//! The link to a broker without our plugin, as one of its clients: configurations, commands and the HTTP bridge's
//! events go down it, states come up. One registry per link, because topics carry none.
//!
//! What came by HTTP stays in the store until this broker has it, and what the broker sends is not acknowledged before it
//! is dealt with: a server that ends, however it does, loses neither, and may send either twice.

mod outgoing;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use keyrivet_registry::rules::topic::{Channel, Topic, qualified};
use keyrivet_registry::store::DELIVERED;
use keyrivet_registry::{Change, DeviceName, Refusal, RegistryName, Timestamp};
use outgoing::{Publisher, Sent, Told};
use parking_lot::Mutex;
use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, Packet, Publish, QoS, StateError, SubscribeFilter,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::sleep;

use crate::cli;
use crate::output::Failure;
use crate::serve::{App, blocking};

/// How long until a lost broker, or a store that cannot take a state, is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long after a broker asked whether a device may subscribe the subscription stands.
const SUBSCRIBED: Duration = Duration::from_millis(300);
/// How often events that came by HTTP are fetched.
const FETCH: Duration = Duration::from_millis(200);
/// So many at once.
const BATCH: usize = 100;
/// Messages that wait to be dealt with, beyond which those of QoS 0 are passed over; of QoS 1 the broker itself sends only so many
/// before it waits for us.
const WAITING: usize = 1000;
/// A configuration, a command or an event, and its packet's head.
const PACKET: usize = 300 * 1024;
/// The broker may send larger ones, which are passed over; one that is larger than this ends the connection.
const LARGEST: usize = 4 * 1024 * 1024;
/// Who is cut off so soon after it came was perhaps thrown out by another with its client id.
const SOON: Duration = Duration::from_secs(10);
/// How long a command is worth delivering.
const COMMAND_LIFE: Duration = Duration::from_secs(60);

/// The link, or none.
pub(crate) struct Link(Option<Inner>);

struct Inner {
    registry: RegistryName,
    client: AsyncClient,
    publisher: Publisher,
    wishes: UnboundedSender<Wish>,
    /// There is a connection.
    up: AtomicBool,
    /// Which it is, or the next one will be: what came by another cannot be acknowledged any more.
    connection: AtomicU64,
    /// At the last connection the broker still knew what it owed us.
    resumed: AtomicBool,
    /// Messages that came and were not dealt with yet.
    waiting: AtomicUsize,
    /// Taken by the task that runs the link.
    parts: Mutex<Option<(EventLoop, UnboundedReceiver<Wish>)>>,
}

/// To publish something that waits for a device, after a while.
struct Wish {
    what: What,
    device: DeviceName,
    after: Duration,
}

#[derive(Clone, Copy)]
enum What {
    /// Its newest configuration.
    Config,
    /// Its commands.
    Commands,
}

impl Link {
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// With `client_id`, or the one that every server of this registry has: the broker keeps for it what comes while the server
    /// is away.
    pub(crate) fn new(broker: &cli::Broker, registry: RegistryName, client_id: Option<&str>) -> Result<Self, Failure> {
        let client_id = client_id.map_or_else(|| format!("keyrivet-server/{registry}"), str::to_owned);
        let mut options = broker.options(&client_id)?;
        options.set_clean_session(false);
        options.set_max_packet_size(LARGEST, PACKET);
        // A message is acknowledged when it is dealt with: until then the broker sends only so many.
        options.set_manual_acks(true);
        let (client, events) = AsyncClient::new(options, 64);
        let (wishes, received) = unbounded_channel();
        Ok(Self(Some(Inner {
            registry,
            publisher: Publisher::new(client.clone()),
            client,
            wishes,
            up: AtomicBool::new(false),
            connection: AtomicU64::new(0),
            resumed: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            parts: Mutex::new(Some((events, received))),
        })))
    }

    /// The registry whose link it is.
    pub(crate) fn registry(&self) -> Option<&RegistryName> {
        self.0.as_ref().map(|inner| &inner.registry)
    }

    /// Notes what has changed.
    pub(crate) fn learn(&self, changes: &[Change]) {
        let Some(inner) = &self.0 else { return };
        for change in changes {
            match change {
                Change::Config(device) => inner.wish(What::Config, device.clone(), Duration::ZERO),
                Change::Command(device) => inner.wish(What::Commands, device.clone(), Duration::ZERO),
                Change::Everything | Change::Registry(_) | Change::Device(_) => {}
            }
        }
    }

    /// A client of `session` subscribes to this device's configuration: it gets it as soon as it can.
    pub(crate) fn wants_config(&self, session: &DeviceName, device: &str) {
        let Some(inner) = &self.0 else { return };
        if let Ok(device) = session.registry.device(device) {
            inner.wish(What::Config, device, SUBSCRIBED);
        }
    }

    /// Runs it, for as long as the server runs.
    pub(crate) async fn run(app: Arc<App>) {
        let Some((events, wishes)) = app.link.0.as_ref().and_then(|inner| inner.parts.lock().take()) else {
            return std::future::pending().await;
        };
        let (messages, received) = unbounded_channel();
        let (dealt, with) = unbounded_channel();
        tokio::join!(
            receive(&app, events, messages),
            digest(&app, received, dealt),
            acknowledge(&app, with),
            fulfil(&app, wishes),
            forward(&app)
        );
    }
}

impl Inner {
    fn wish(&self, what: What, device: DeviceName, after: Duration) {
        // The receiver lives as long as the server.
        if device.registry == self.registry {
            let _ = self.wishes.send(Wish { what, device, after });
        }
    }
}

impl cli::Broker {
    /// What the client library wants to know.
    pub(crate) fn options(&self, client_id: &str) -> Result<MqttOptions, Failure> {
        let place =
            self.broker.strip_prefix("mqtt://").ok_or_else(|| format!("'{}' is not mqtt://HOST:PORT", self.broker))?;
        let (host, port) = place.trim_end_matches('/').rsplit_once(':').unwrap_or((place, "1883"));
        let port = port.parse().map_err(|_| Failure::from(format!("'{port}' is no port")))?;
        let mut options = MqttOptions::new(client_id, host, port);
        if !self.broker_user.is_empty() {
            let password = match &self.broker_password_file {
                Some(file) => std::fs::read_to_string(file)
                    .map_err(|error| Failure::from(format!("{}: {error}", file.display())))?
                    .trim()
                    .to_owned(),
                None => String::new(),
            };
            options.set_credentials(&self.broker_user, password);
        }
        Ok(options)
    }
}

/// A message of the broker, and by which connection it came.
type Received = (u64, Publish);

/// What comes from the broker. Nothing is awaited here but that: what is published has to pass through the same loop.
async fn receive(app: &Arc<App>, mut events: EventLoop, messages: UnboundedSender<Received>) {
    let Some(inner) = &app.link.0 else { return };
    let mut sent = Sent::default();
    // What a connection took with it that nobody has acknowledged, and when.
    let mut unsent: Vec<(Instant, Publish)> = Vec::new();
    let mut since = Instant::now();
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) if events.mqtt_options.clean_session() => {
                // The session is forgotten now; the next one shall last again.
                events.mqtt_options.set_clean_session(false);
                events.network = None;
            }
            Ok(Event::Incoming(Packet::ConnAck(answer))) => {
                since = Instant::now();
                inner.resumed.store(answer.session_present, Ordering::Release);
                inner.up.store(true, Ordering::Release);
                let again = unsent.drain(..).filter_map(|(lost, message)| inner.once_more(lost, message)).collect();
                drop(tokio::spawn(begin(Arc::clone(app), again)));
            }
            Ok(event) => inner.hear(&mut sent, &messages, event),
            Err(error) => {
                let was_up = inner.up.swap(false, Ordering::AcqRel);
                tracing::warn!("the link to the broker: {error}");
                if is_too_large(&error) {
                    // The broker would send it again and again.
                    tracing::error!(
                        "a message has more than {LARGEST} bytes, and is forgotten with all that waits for this server: \
                         let the broker refuse such messages (packaging/brokers)"
                    );
                    events.mqtt_options.set_clean_session(true);
                } else if was_up && is_cut_off(&error) && since.elapsed() < SOON {
                    let client_id = events.mqtt_options.client_id();
                    tracing::warn!(
                        "does another server have a link as {client_id}? Each throws the other out: let one server of a \
                         registry have the link"
                    );
                }
                // What came before it was lost.
                for event in std::mem::take(&mut events.state.events) {
                    inner.hear(&mut sent, &messages, event);
                }
                let _ = inner.connection.fetch_add(1, Ordering::AcqRel);
                let lost = sent.lost(&inner.publisher, &mut events);
                unsent.extend(lost.into_iter().map(|message| (Instant::now(), message)));
                sleep(PAUSE).await;
            }
        }
    }
}

fn is_too_large(error: &ConnectionError) -> bool {
    use rumqttc::mqttbytes::Error::PayloadSizeLimitExceeded;
    matches!(error, ConnectionError::MqttState(StateError::Deserialization(PayloadSizeLimitExceeded { .. })))
}

/// The broker ended the connection.
fn is_cut_off(error: &ConnectionError) -> bool {
    matches!(error, ConnectionError::MqttState(StateError::ConnectionAborted | StateError::Io(_)))
}

impl Inner {
    fn hear(&self, sent: &mut Sent, messages: &UnboundedSender<Received>, event: Event) {
        sent.follow(&self.publisher, &event);
        match event {
            Event::Incoming(Packet::SubAck(_)) => tracing::info!("linked to the broker"),
            Event::Incoming(Packet::Publish(mut message)) => {
                if message.payload.len() > PACKET {
                    tracing::warn!("a message was passed over: it has {} bytes", message.payload.len());
                    // It is acknowledged in its turn.
                    (message.topic, message.payload) = Default::default();
                }
                if message.qos == QoS::AtMostOnce && self.waiting.load(Ordering::Relaxed) >= WAITING {
                    return tracing::warn!("a message of QoS 0 was passed over: {WAITING} wait already");
                }
                let _ = self.waiting.fetch_add(1, Ordering::Relaxed);
                // The receiver lives as long as the server.
                let _ = messages.send((self.connection.load(Ordering::Acquire), message));
            }
            _ => {}
        }
    }

    /// What is to be sent again of what a connection took with it: not what has grown old meanwhile.
    fn once_more(&self, lost: Instant, message: Publish) -> Option<Publish> {
        let Ok(topic) = Topic::received(&message.topic) else { return Some(message) };
        match topic.channel {
            // There may be a newer one.
            Channel::Config => {
                if let Ok(device) = self.registry.device(topic.device) {
                    self.wish(What::Config, device, Duration::ZERO);
                }
                None
            }
            Channel::Commands(_) if lost.elapsed() >= COMMAND_LIFE => None,
            _ => Some(message),
        }
    }
}

/// Subscribes, and sends what the connection before could not.
async fn begin(app: Arc<App>, unsent: Vec<Publish>) {
    let Some(inner) = &app.link.0 else { return };
    let topics = ["/devices/+/state", "/devices/+/events/#"];
    let _ = inner.client.subscribe_many(topics.map(|it| SubscribeFilter::new(it.into(), QoS::AtLeastOnce))).await;
    for message in unsent {
        drop(inner.publisher.publish(message.topic, message.qos, message.payload).await);
    }
}

/// A message of the broker that is dealt with, or will be as soon as the broker has what became of it.
type Dealt = (u64, Publish, Option<Told>);

/// Takes one message after the other.
async fn digest(app: &Arc<App>, mut messages: UnboundedReceiver<Received>, dealt: UnboundedSender<Dealt>) {
    let Some(inner) = &app.link.0 else { return };
    while let Some((connection, message)) = messages.recv().await {
        let told = take(app, inner, &message).await;
        let _ = inner.waiting.fetch_sub(1, Ordering::Relaxed);
        // The receiver lives as long as the server.
        let _ = dealt.send((connection, message, told));
    }
}

/// Acknowledges what is dealt with, in the order in which it came (MQTT 3.1.1, section 4.6).
async fn acknowledge(app: &Arc<App>, mut dealt: UnboundedReceiver<Dealt>) {
    let Some(inner) = &app.link.0 else { return };
    while let Some((connection, message, mut told)) = dealt.recv().await {
        while let Some(it) = told.take() {
            if it.await.is_ok() || message.qos == QoS::AtMostOnce {
                break;
            }
            // What became of it was lost with a connection. The broker sends it again, unless it has lost the session, too.
            while !inner.up.load(Ordering::Acquire) {
                sleep(FETCH).await;
            }
            if !inner.resumed.load(Ordering::Acquire) {
                told = take(app, inner, &message).await;
            }
        }
        if connection == inner.connection.load(Ordering::Acquire) {
            let _ = inner.client.ack(&message).await;
        }
    }
}

/// A state is kept, an event is published again under its registry's name.
async fn take(app: &Arc<App>, inner: &Inner, message: &Publish) -> Option<Told> {
    let registry = &inner.registry;
    let topic = Topic::published(&message.topic).ok()?;
    let device = registry.device(topic.device).ok()?;
    if !topic.limit().allows(message.payload.len()) {
        tracing::warn!("a message of {device} was passed over: it has {} bytes", message.payload.len());
        return None;
    }
    match topic.channel {
        Channel::State => {
            keep_state(app, &device, message).await;
            None
        }
        Channel::Events(_) => {
            let topic = qualified(registry, &topic.to_string());
            Some(inner.publisher.publish(topic, message.qos, message.payload.clone()).await)
        }
        _ => None,
    }
}

/// The device believes that its state is kept: what cannot be kept now is kept later.
async fn keep_state(app: &Arc<App>, device: &DeviceName, message: &Publish) {
    loop {
        let (device, payload) = (device.clone(), message.payload.clone());
        let work = move |app: &App| app.fleet.set_state(&device, &payload, Timestamp::now());
        let Err(refusal) = blocking(app, work).await else { return };
        tracing::warn!("a state was not kept: {refusal}");
        if !matches!(refusal, Refusal::Unavailable { .. }) {
            return;
        }
        sleep(PAUSE).await;
    }
}

async fn fulfil(app: &Arc<App>, mut wishes: UnboundedReceiver<Wish>) {
    while let Some(wish) = wishes.recv().await {
        if wish.after.is_zero() {
            grant(app, wish).await;
        } else {
            let app = Arc::clone(app);
            drop(tokio::spawn(async move {
                sleep(wish.after).await;
                grant(&app, wish).await;
            }));
        }
    }
}

async fn grant(app: &Arc<App>, Wish { what, device, .. }: Wish) {
    match what {
        What::Config => send_config(app, device).await,
        What::Commands => send_commands(app, device).await,
    }
}

async fn send_config(app: &Arc<App>, device: DeviceName) {
    let Some(inner) = &app.link.0 else { return };
    let topic = format!("/devices/{}/config", device.id);
    let name = device.clone();
    match blocking(app, move |app| app.fleet.store().configs(&name, 1)).await {
        Ok(configs) => {
            if let Some(config) = configs.into_iter().next() {
                drop(inner.publisher.publish(topic, QoS::AtLeastOnce, config.data).await);
            }
        }
        Err(error) => {
            tracing::warn!("the configuration of {device}: {error}");
            inner.wish(What::Config, device, PAUSE);
        }
    }
}

/// The broker takes a command; whether a device is subscribed it does not say.
async fn send_commands(app: &Arc<App>, device: DeviceName) {
    let Some(inner) = &app.link.0 else { return };
    let name = device.clone();
    let since = Timestamp::now().plus_seconds(-(COMMAND_LIFE.as_secs() as i64));
    let commands = match blocking(app, move |app| app.fleet.store().waiting_commands(&name, since)).await {
        Ok(commands) => commands,
        Err(keyrivet_registry::Error::Refused(Refusal::DeviceUnknown { .. })) => return,
        Err(error) => {
            tracing::warn!("the commands of {device}: {error}");
            return inner.wish(What::Commands, device, PAUSE);
        }
    };
    for command in commands {
        let (id, topic) =
            (command.id, Topic { device: device.id.as_str(), channel: Channel::Commands(&command.subfolder) });
        let first = blocking(app, move |app| app.fleet.store().finish_command(id, DELIVERED)).await;
        match first {
            Ok(true) => {
                drop(inner.publisher.publish(topic.to_string(), QoS::AtLeastOnce, command.data).await);
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!("a command of {device}: {error}");
                return inner.wish(What::Commands, device, PAUSE);
            }
        }
    }
}

/// Events that came by HTTP: some at once, and the next when the broker has them, or has lost the connection.
async fn forward(app: &Arc<App>) {
    let Some(inner) = &app.link.0 else { return };
    loop {
        match forward_some(app, inner).await {
            Ok(BATCH) => {}
            Ok(_) => sleep(FETCH).await,
            Err(error) => {
                tracing::warn!("events: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Answers how many the broker took.
async fn forward_some(app: &Arc<App>, inner: &Inner) -> keyrivet_registry::Result<usize> {
    if !inner.up.load(Ordering::Acquire) {
        return Ok(0);
    }
    let registry = inner.registry.clone();
    let events = blocking(app, move |app| app.fleet.store().waiting_events(&registry, BATCH)).await?;
    let mut sent = Vec::with_capacity(events.len());
    for (number, event) in events {
        let topic = Topic { device: event.device.id.as_str(), channel: Channel::Events(&event.subfolder) };
        let topic = qualified(&event.device.registry, &topic.to_string());
        sent.push((number, inner.publisher.publish(topic, QoS::AtLeastOnce, event.data).await));
    }
    let mut taken = Vec::with_capacity(sent.len());
    for (number, told) in sent {
        if told.await.is_ok() {
            taken.push(number);
        }
    }
    let count = taken.len();
    if count > 0 {
        blocking(app, move |app| app.fleet.store().forget_events(&taken)).await?;
    }
    Ok(count)
}
