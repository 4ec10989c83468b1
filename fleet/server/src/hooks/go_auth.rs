//! mosquitto-go-auth's HTTP backend, with `response_mode json` and parameters as JSON or as a form.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use keyrivet_registry::rules::session::Action;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Shown, act, connect};
use crate::serve::{App, blocking};

/// What it sends to ask who a client is.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct User {
    #[serde(default)]
    pub(crate) password: String,
    pub(crate) clientid: String,
}

/// What it sends to ask what a client may do.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct Acl {
    pub(crate) clientid: String,
    pub(crate) topic: String,
    /// 1 read, 2 write, 3 both, 4 subscribe
    pub(crate) acc: Value,
}

#[utoipa::path(post, path = "/hooks/go-auth/getuser", request_body = User, tag = "hooks",
    responses((status = 200, description = "{\"ok\":true|false,\"error\":\"\"}")))]
pub(crate) async fn getuser(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Json<Value> {
    let Some(body) = parse::<User>(&headers, &body) else { return answer(Some("the request cannot be read".into())) };
    let work = move |app: &App| connect(app, "go-auth", &body.clientid, Some(&body.password));
    answer(match blocking(&app, work).await {
        None => Some("not a device".to_owned()),
        Some(Ok(_)) => None,
        Some(Err(refusal)) => Some(refusal.to_string()),
    })
}

/// No device is one.
#[utoipa::path(post, path = "/hooks/go-auth/superuser", tag = "hooks",
    responses((status = 200, description = "{\"ok\":false,\"error\":\"\"}")))]
pub(crate) async fn superuser() -> Json<Value> {
    answer(Some("no device is a superuser".to_owned()))
}

#[utoipa::path(post, path = "/hooks/go-auth/aclcheck", request_body = Acl, tag = "hooks",
    responses((status = 200, description = "{\"ok\":true|false,\"error\":\"\"}")))]
pub(crate) async fn aclcheck(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Json<Value> {
    let Some(body) = parse::<Acl>(&headers, &body) else { return answer(Some("the request cannot be read".into())) };
    let number = body.acc.as_u64().or_else(|| body.acc.as_str()?.parse().ok());
    let action = match number {
        Some(1) => Action::Receive,
        // mosquitto does not tell the plugin the QoS.
        Some(2 | 3) => Action::Publish { qos: 1, size: None },
        Some(4) => Action::Subscribe,
        _ => return answer(Some("acc is none of 1, 2, 3, 4".to_owned())),
    };
    let work = move |app: &App| act(app, "go-auth", &body.clientid, action, &body.topic, Shown::Topic);
    answer(match blocking(&app, work).await {
        None => Some("not a device".to_owned()),
        Some(Ok(())) => None,
        Some(Err(refusal)) => Some(refusal.to_string()),
    })
}

fn answer(error: Option<String>) -> Json<Value> {
    Json(json!({ "ok": error.is_none(), "error": error.unwrap_or_default() }))
}

fn parse<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Option<T> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if kind.starts_with("application/x-www-form-urlencoded") {
        return serde_urlencoded::from_bytes(body).ok();
    }
    serde_json::from_slice(body).ok()
}
