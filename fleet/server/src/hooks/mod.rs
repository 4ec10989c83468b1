//! The hooks of brokers that have no plugin of ours: each asks in its own words, all get the same rules' answers.

pub(crate) mod emqx;
pub(crate) mod go_auth;
pub(crate) mod rabbitmq;
pub(crate) mod vernemq;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use keyrivet_registry::rules::admission::Protocol;
use keyrivet_registry::rules::session::{Action, Session};
use keyrivet_registry::rules::topic::Channel;
use keyrivet_registry::store::Store;
use keyrivet_registry::{DeviceName, Proof, Refusal, RegistryName, Timestamp, shown};
use parking_lot::Mutex;
use serde_json::json;
use subtle::ConstantTimeEq as _;

use crate::documents;
use crate::serve::App;

/// A message of 256 KB in base64, and what stands around it.
const BODY: usize = 1024 * 1024;
/// Devices whose end is at hand, at most.
const AT_HAND: usize = 50_000;

/// Until when each device's token holds: brokers that cannot end a connection then ask about each message, and hear no. The
/// store knows it, for all servers and after a restart of each; here some are at hand, by the devices' numbers.
#[derive(Default)]
pub(crate) struct Ends(Mutex<HashMap<i64, Timestamp>>);

pub(crate) fn routes(app: Arc<App>) -> Router {
    let hooks = Router::new()
        .route("/hooks/emqx/authn", post(emqx::authn))
        .route("/hooks/emqx/authz", post(emqx::authz))
        .route("/hooks/emqx/message", post(emqx::message))
        .route("/hooks/vernemq", post(vernemq::hook))
        .route("/hooks/go-auth/getuser", post(go_auth::getuser))
        .route("/hooks/go-auth/superuser", post(go_auth::superuser))
        .route("/hooks/go-auth/aclcheck", post(go_auth::aclcheck))
        .route("/hooks/rabbitmq/user", post(rabbitmq::user))
        .route("/hooks/rabbitmq/vhost", post(rabbitmq::vhost))
        .route("/hooks/rabbitmq/resource", post(rabbitmq::resource))
        .route("/hooks/rabbitmq/topic", post(rabbitmq::topic))
        .layer(from_fn_with_state(Arc::clone(&app), check_secret))
        .layer(DefaultBodyLimit::max(BODY));
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(openapi))
        .merge(hooks)
        .with_state(app)
}

/// Hooks answer only who knows the secret, if there is one.
async fn check_secret(
    State(app): State<Arc<App>>,
    Query(query): Query<HashMap<String, String>>,
    request: Request,
    next: Next,
) -> Response {
    if let Some(secret) = &app.hook_secret {
        let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let shown = header.and_then(|value| value.strip_prefix("Bearer ")).or(query.get("secret").map(String::as_str));
        if !bool::from(shown.unwrap_or_default().as_bytes().ct_eq(secret.as_bytes())) {
            return (StatusCode::UNAUTHORIZED, "hooks must show the secret\n").into_response();
        }
    }
    next.run(request).await
}

/// Whether the store answers.
async fn health(State(app): State<Arc<App>>) -> Response {
    let work = |app: &App| app.fleet.store().ping().map(|()| app.fleet.store().kind());
    match crate::serve::blocking(&app, work).await {
        Ok(kind) => Json(json!({ "status": "ok", "store": kind })).into_response(),
        Err(error) => {
            tracing::error!("{error}");
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "store unavailable" }))).into_response()
        }
    }
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], app.metrics.text()).into_response()
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], documents::openapi()).into_response()
}

/// Lets a client in. `None`: it does not claim to be a device, so that it is somebody else's to judge.
fn connect(app: &App, via: &'static str, client_id: &str, password: Option<&str>) -> Option<Result<Session, Refusal>> {
    if !DeviceName::is_claimed_by(client_id) {
        return None;
    }
    let start = Instant::now();
    let proof = password.filter(|password| !password.is_empty()).map_or(Proof::Nothing, Proof::Token);
    let outcome = admit(app, via, client_id, proof);
    app.metrics.decided(via, "connect", outcome.as_ref().map(drop), start);
    if let Err(refusal) = &outcome {
        log(via, client_id, "connect", refusal);
    }
    Some(outcome)
}

fn admit(app: &App, via: &'static str, client_id: &str, proof: Proof<'_>) -> Result<Session, Refusal> {
    check_registry(app, via, client_id, "connect")?;
    let session = app.fleet.authenticate(client_id, Protocol::Mqtt, proof, via, Timestamp::now())?;
    // That it is connected nobody notes: no hook would tell when it no more is.
    app.ends.remember(app.fleet.store(), &session);
    Ok(session)
}

/// The one registry whose devices hooks take, if it is only one. A link makes it one, because topics carry none: devices of
/// two registries would share them.
fn served(app: &App) -> Option<&RegistryName> {
    app.only.as_ref().or_else(|| app.link.registry())
}

fn check_registry(app: &App, via: &str, client_id: &str, action: &str) -> Result<(), Refusal> {
    app.check_registry(served(app), client_id, via, action)
}

/// What a hook shows of a message.
#[derive(Clone, Copy)]
enum Shown<'a> {
    /// Its payload.
    All(&'a [u8]),
    /// Not its payload, and no other hook does.
    Topic,
    /// Not its payload: another hook may come with that, for what needs it.
    TopicFirst,
    /// Its payload, after another hook has shown the topic.
    AllAfterTopic(&'a [u8]),
}

/// What a client may do with a topic; does it as well, as far as the message is shown.
fn act(
    app: &App,
    via: &'static str,
    client_id: &str,
    action: Action,
    topic: &str,
    shown: Shown<'_>,
) -> Option<Result<(), Refusal>> {
    if !DeviceName::is_claimed_by(client_id) {
        return None;
    }
    let start = Instant::now();
    let name = match action {
        Action::Publish { .. } => "publish",
        Action::Subscribe => "subscribe",
        Action::Receive => "receive",
    };
    let outcome =
        check_registry(app, via, client_id, name).and_then(|()| decide(app, via, client_id, action, topic, shown));
    app.metrics.decided(via, name, outcome.as_ref().copied(), start);
    if let Err(refusal) = &outcome {
        log(via, client_id, name, refusal);
    }
    Some(outcome)
}

fn decide(
    app: &App,
    via: &'static str,
    client_id: &str,
    action: Action,
    topic: &str,
    shown: Shown<'_>,
) -> Result<(), Refusal> {
    let now = Timestamp::now();
    let mut session = app.fleet.session_of(client_id)?;
    session.expires = app.ends.of(app.fleet.store(), &session, now)?;
    let topic = app.fleet.authorise(&mut session, action, topic, via, now)?;
    if !matches!(action, Action::Publish { .. }) {
        if action == Action::Subscribe && topic.channel == Channel::Config {
            app.link.wants_config(&session.device, topic.device);
        }
        return Ok(());
    }
    match (topic.channel, shown) {
        (Channel::Attach, Shown::All(payload) | Shown::AllAfterTopic(payload)) => {
            app.fleet.attach(&mut session, topic.device, payload, via, now)
        }
        (Channel::Attach, Shown::TopicFirst) if app.fleet.attaches_by_token(&session)? => Ok(()),
        // A gateway can attach what needs no token.
        (Channel::Attach, Shown::Topic | Shown::TopicFirst) => {
            app.fleet.attach(&mut session, topic.device, b"", via, now)
        }
        // The other hook has done that.
        (Channel::Detach, Shown::AllAfterTopic(_)) if !session.attached.contains(topic.device) => Ok(()),
        (Channel::Detach, _) => app.fleet.detach(&mut session, topic.device, via, now),
        (_, Shown::All(payload) | Shown::AllAfterTopic(payload)) => {
            app.fleet.published(&mut session, topic, payload, now)
        }
        (Channel::Events(_), Shown::Topic | Shown::TopicFirst) => app.fleet.published(&mut session, topic, b"", now),
        (_, Shown::Topic | Shown::TopicFirst) => Ok(()),
    }
}

fn log(via: &str, client_id: &str, action: &str, refusal: &Refusal) {
    let client_id = shown(client_id, 300);
    tracing::warn!(via, client_id, action, "refused: {refusal}");
    if let Some(why) = refusal.for_the_operator() {
        tracing::error!("{why}");
    }
}

impl Ends {
    fn remember(&self, store: &Store, session: &Session) {
        // Who comes again with the same token costs no write.
        if self.0.lock().get(&session.number) == Some(&session.expires) {
            return;
        }
        if let Err(error) = store.set_session_end(session.number, session.expires) {
            // It must connect again when it is asked about elsewhere, or after a restart.
            tracing::error!("the end of a token was not kept: {error}");
        }
        self.put_at_hand(session.number, session.expires);
    }

    fn of(&self, store: &Store, session: &Session, now: Timestamp) -> Result<Timestamp, Refusal> {
        let at_hand = self.0.lock().get(&session.number).copied();
        // One that is over may have begun anew at another server.
        if let Some(end) = at_hand.filter(|end| *end > now) {
            return Ok(end);
        }
        let end = store.session_end(session.number);
        let end = end.map_err(|error| Refusal::Unavailable { why: error.to_string() })?;
        let end = end.ok_or_else(|| Refusal::NotConnected { device: session.device.id.to_string() })?;
        self.put_at_hand(session.number, end);
        Ok(end)
    }

    fn put_at_hand(&self, device: i64, end: Timestamp) {
        let mut ends = self.0.lock();
        if ends.len() >= AT_HAND {
            ends.clear();
        }
        let _ = ends.insert(device, end);
    }
}
