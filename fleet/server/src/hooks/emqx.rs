//! EMQX 5: HTTP authentication and authorisation; the body is what its templates make of `${clientid}` and the like.
//! Always 200: to EMQX any other status means that somebody else shall decide.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use keyrivet_registry::Refusal;
use keyrivet_registry::rules::session::Action;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Shown, act, connect};
use crate::google;
use crate::serve::{App, blocking};

/// What the authenticator sends.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct Authn {
    pub(crate) clientid: String,
    #[serde(default)]
    pub(crate) password: Option<String>,
}

/// What the authoriser sends.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct Authz {
    pub(crate) clientid: String,
    /// publish or subscribe
    pub(crate) action: String,
    pub(crate) topic: String,
    /// EMQX's templates make texts of numbers.
    #[serde(default)]
    pub(crate) qos: Option<Value>,
}

/// What a rule sends of each message on `/devices/+/attach`, `detach`, `state` and `events`: attaching with a token
/// needs the payload, which the authoriser does not get.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct Message {
    pub(crate) clientid: String,
    pub(crate) topic: String,
    /// In base64
    pub(crate) payload: String,
    #[serde(default)]
    pub(crate) qos: Option<Value>,
}

#[utoipa::path(post, path = "/hooks/emqx/authn", request_body = Authn, tag = "hooks",
    responses((status = 200, description = "{\"result\":\"allow|deny|ignore\",\"expire_at\":UNIX}")))]
pub(crate) async fn authn(State(app): State<Arc<App>>, Json(body): Json<Authn>) -> Json<Value> {
    let work = move |app: &App| connect(app, "emqx", &body.clientid, body.password.as_deref());
    Json(match blocking(&app, work).await {
        None => json!({ "result": "ignore" }),
        Some(Err(refusal)) => json!({ "result": "deny", "reason": refusal.to_string() }),
        // No acl, though EMQX would take one: it would not ask again, whatever becomes of the device.
        Some(Ok(session)) => {
            json!({ "result": "allow", "is_superuser": false, "expire_at": session.expires.seconds() })
        }
    })
}

#[utoipa::path(post, path = "/hooks/emqx/authz", request_body = Authz, tag = "hooks",
    responses((status = 200, description = "{\"result\":\"allow|deny|ignore\"}")))]
pub(crate) async fn authz(State(app): State<Arc<App>>, Json(body): Json<Authz>) -> Json<Value> {
    let action = match body.action.as_str() {
        "publish" => Action::Publish { qos: qos(body.qos.as_ref()), size: None },
        "subscribe" => Action::Subscribe,
        _ => return Json(json!({ "result": "deny", "reason": "action is neither publish nor subscribe" })),
    };
    // What needs the payload is left to the rule's message.
    let work = move |app: &App| act(app, "emqx", &body.clientid, action, &body.topic, Shown::TopicFirst);
    Json(verdict(blocking(&app, work).await))
}

#[utoipa::path(post, path = "/hooks/emqx/message", request_body = Message, tag = "hooks",
    responses((status = 200, description = "{\"result\":\"allow|deny|ignore\"}")))]
pub(crate) async fn message(State(app): State<Arc<App>>, Json(body): Json<Message>) -> Json<Value> {
    let Some(payload) = google::bytes(&body.payload) else {
        return Json(json!({ "result": "deny", "reason": "payload is not base64" }));
    };
    let action = Action::Publish { qos: qos(body.qos.as_ref()), size: Some(payload.len()) };
    let work = move |app: &App| act(app, "emqx", &body.clientid, action, &body.topic, Shown::AllAfterTopic(&payload));
    Json(verdict(blocking(&app, work).await))
}

fn verdict(outcome: Option<Result<(), Refusal>>) -> Value {
    match outcome {
        None => json!({ "result": "ignore" }),
        Some(Ok(())) => json!({ "result": "allow" }),
        Some(Err(refusal)) => json!({ "result": "deny", "reason": refusal.to_string() }),
    }
}

/// A number, or a text that is one; 1 where nothing is said.
fn qos(value: Option<&Value>) -> u8 {
    let number = match value {
        None | Some(Value::Null) => return 1,
        Some(Value::String(text)) => text.parse().ok(),
        Some(value) => value.as_u64(),
    };
    number.and_then(|number| u8::try_from(number).ok()).unwrap_or(2)
}
