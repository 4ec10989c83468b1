//! The HTTP bridge: publishEvent, setState and config, as IoT Core answered them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest as _, Path, Query, Request, State};
use axum::http::{HeaderMap, Uri, header};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyrivet_registry::rules::admission::Protocol;
use keyrivet_registry::{DeviceName, Event, Fleet, Kind, Proof, Session, Timestamp, shown};
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use crate::google::{self, ApiError};
use crate::serve::{App, blocking};

/// An event of 256 KB in base64, and the rest of the request.
const BODY: usize = 512 * 1024;
/// How long a device may take to send that.
const PATIENCE: Duration = Duration::from_secs(30);

type Answer = Result<Json<Value>, ApiError>;

pub(crate) fn routes(app: Arc<App>) -> Router {
    let device = "/v1/projects/{project}/locations/{location}/registries/{registry}/devices/{device}";
    Router::new()
        .route(device, post(call))
        .route(&format!("{device}/config"), get(config))
        .fallback(no_such_path)
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(app)
}

async fn no_such_path(uri: Uri) -> ApiError {
    let text = format!(
        "there is no {}: POST v1/DEVICE:publishEvent, POST v1/DEVICE:setState and GET v1/DEVICE/config are there, with \
         DEVICE as projects/P/locations/R/registries/G/devices/D",
        uri.path()
    );
    ApiError::new(Kind::NotFound, text, "path")
}

type Ids = Path<(String, String, String, String)>;

/// `DEVICE:publishEvent` and `DEVICE:setState`.
async fn call(
    State(app): State<Arc<App>>,
    Path((project, location, registry, device)): Ids,
    request: Request,
) -> Answer {
    let start = Instant::now();
    let (device, verb) = device.rsplit_once(':').unwrap_or((&device, ""));
    let name = format!("projects/{project}/locations/{location}/registries/{registry}/devices/{device}");
    let (verb, action): (_, &'static str) = match verb {
        "publishEvent" => (Verb::PublishEvent, "publishEvent"),
        "setState" => (Verb::SetState, "setState"),
        _ => return Err(no_such_path(request.uri().clone()).await),
    };
    let answer = perform(&app, name.clone(), verb, action, request).await;
    told(&app, &name, action, answer, start)
}

async fn perform(
    app: &Arc<App>,
    name: String,
    verb: Verb,
    action: &'static str,
    request: Request,
) -> Result<Value, ApiError> {
    // First who it is: a body takes memory.
    let token = bearer(request.headers())?;
    let session = blocking(app, move |app| authenticate(app, &name, token.as_deref(), action)).await?;
    let too_slow = |_| ApiError::too_slow(format!("the request's body took more than {} s", PATIENCE.as_secs()));
    let too_large = |_| ApiError::new(Kind::Malformed, format!("the request is larger than {BODY} bytes"), "too-large");
    let body = timeout(PATIENCE, Bytes::from_request(request, &())).await.map_err(too_slow)?.map_err(too_large)?;
    let work = move |app: &App| {
        let body = object(&body)?;
        match verb {
            Verb::PublishEvent => publish_event(&app.fleet, &session, &body),
            Verb::SetState => set_state(&app.fleet, &session, &body),
        }
    };
    blocking(app, work).await
}

#[derive(Clone, Copy)]
enum Verb {
    PublishEvent,
    SetState,
}

/// The newest configuration.
async fn config(
    State(app): State<Arc<App>>,
    Path((project, location, registry, device)): Ids,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Answer {
    let start = Instant::now();
    let name = format!("projects/{project}/locations/{location}/registries/{registry}/devices/{device}");
    let token = bearer(&headers);
    let client = name.clone();
    let work = move |app: &App| -> Result<Value, ApiError> {
        let session = authenticate(app, &name, token?.as_deref(), "config")?;
        let find = |names: [&str; 2]| names.iter().find_map(|name| query.get(*name)).map(String::as_str);
        let gateway = find(["gatewayInfo.gatewayId", "gateway_info.gateway_id"]);
        let delegated = find(["gatewayInfo.delegatedDeviceId", "gateway_info.delegated_device_id"]);
        let local = find(["localVersion", "local_version"]).unwrap_or("0");
        let now = Timestamp::now();
        let device = app.fleet.speaks_for(&session, gateway, delegated, "config", now)?;
        let malformed = |_| ApiError::new(Kind::Malformed, format!("localVersion '{local}' is no number"), "version");
        let local: i64 = local.parse().map_err(malformed)?;
        get_config(&app.fleet, &device, local, now)
    };
    let answer = blocking(&app, work).await;
    told(&app, &client, "config", answer, start)
}

/// The answer, counted, and in the log if it is a no.
fn told(app: &App, client: &str, action: &'static str, answer: Result<Value, ApiError>, start: Instant) -> Answer {
    app.metrics.counted("http", action, answer.as_ref().map_or_else(ApiError::reason, |_| "ok"), start);
    if let Err(error) = &answer {
        tracing::warn!(via = "http", client = shown(client, 300), action, "refused: {}", shown(error.message(), 500));
    }
    answer.map(Json)
}

fn get_config(fleet: &Fleet, device: &DeviceName, local: i64, now: Timestamp) -> Result<Value, ApiError> {
    let config = fleet.deliver_config(device, now)?;
    if local > config.version {
        let text = format!("localVersion {local} is higher than the newest version, {}", config.version);
        return Err(ApiError::out_of_range(text));
    }
    let mut answer = json!({ "version": config.version.to_string() });
    if local < config.version {
        answer["binaryData"] = json!(STANDARD.encode(&config.data));
    }
    Ok(answer)
}

fn publish_event(fleet: &Fleet, session: &Session, body: &Map<String, Value>) -> Result<Value, ApiError> {
    let now = Timestamp::now();
    let device = speaks_for(fleet, session, body, "publishEvent", now)?;
    let data = binary_data(body)?;
    let subfolder = text(body, "subFolder", "sub_folder")?.unwrap_or_default();
    let gateway = (device != session.device).then(|| session.device.id.to_string());
    fleet.publish(&Event { device, gateway, subfolder, at: now, data })?;
    Ok(json!({}))
}

fn set_state(fleet: &Fleet, session: &Session, body: &Map<String, Value>) -> Result<Value, ApiError> {
    let now = Timestamp::now();
    let device = speaks_for(fleet, session, body, "setState", now)?;
    let state = body.get("state").and_then(Value::as_object);
    let state = state.ok_or_else(|| malformed("the request has no state: {\"state\":{\"binaryData\":\"...\"}}"))?;
    fleet.set_state(&device, &binary_data(state)?, now)?;
    Ok(json!({}))
}

/// Each request shows a token of its own.
fn authenticate(app: &App, name: &str, token: Option<&str>, action: &str) -> Result<Session, ApiError> {
    app.check_registry(app.only.as_ref(), name, "http", action)?;
    let proof = token.map_or(Proof::Nothing, Proof::Token);
    Ok(app.fleet.authenticate(name, Protocol::Http, proof, "http", Timestamp::now())?)
}

fn bearer(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim().to_owned())),
        _ => Err(ApiError::new(Kind::Unauthenticated, "the Authorization header is not 'Bearer JWT'", "no-proof")),
    }
}

fn speaks_for(
    fleet: &Fleet,
    session: &Session,
    body: &Map<String, Value>,
    action: &str,
    now: Timestamp,
) -> Result<DeviceName, ApiError> {
    let empty = Map::new();
    let info = match google::member(body, "gatewayInfo", "gateway_info") {
        None => &empty,
        Some(info) => info.as_object().ok_or_else(|| malformed("gatewayInfo is not an object"))?,
    };
    let gateway = text(info, "gatewayId", "gateway_id")?;
    let delegated = text(info, "delegatedDeviceId", "delegated_device_id")?;
    Ok(fleet.speaks_for(session, gateway.as_deref(), delegated.as_deref(), action, now)?)
}

fn object(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    let error = |error: serde_json::Error| malformed(&format!("the request is not a JSON object: {error}"));
    serde_json::from_slice(body).map_err(error)
}

fn text(object: &Map<String, Value>, camel: &str, snake: &str) -> Result<Option<String>, ApiError> {
    match google::member(object, camel, snake) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(malformed(&format!("{camel} is not a string"))),
    }
}

fn binary_data(object: &Map<String, Value>) -> Result<Vec<u8>, ApiError> {
    let text = text(object, "binaryData", "binary_data")?.ok_or_else(|| malformed("binaryData is missing"))?;
    google::bytes(&text).ok_or_else(|| malformed("binaryData is not base64"))
}

fn malformed(text: &str) -> ApiError {
    ApiError::new(Kind::Malformed, text, "request-malformed")
}
