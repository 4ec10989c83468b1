//! VerneMQ webhooks: one address, and the header `vernemq-hook` says what is asked.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use keyrivet_registry::rules::session::Action;
use keyrivet_registry::{DeviceName, Refusal};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Shown, act, connect};
use crate::google;
use crate::serve::{App, blocking};

/// What VerneMQ sends, of all its hooks.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct Hook {
    pub(crate) client_id: String,
    #[serde(default)]
    pub(crate) password: Option<String>,
    #[serde(default)]
    pub(crate) qos: u8,
    #[serde(default)]
    pub(crate) topic: String,
    /// In base64
    #[serde(default)]
    pub(crate) payload: String,
    #[serde(default)]
    pub(crate) topics: Vec<Subscription>,
}

/// One of the topics that a client subscribes to.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct Subscription {
    pub(crate) topic: String,
}

#[utoipa::path(post, path = "/hooks/vernemq", request_body = Hook, tag = "hooks",
    params(("vernemq-hook" = String, Header, description = "auth_on_register, auth_on_publish, auth_on_subscribe")),
    responses((status = 200, description = "{\"result\":\"ok|next\"} or {\"result\":{\"error\":\"not_allowed\"}}")))]
pub(crate) async fn hook(State(app): State<Arc<App>>, headers: HeaderMap, Json(body): Json<Hook>) -> Json<Value> {
    let name = headers.get("vernemq-hook").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let is_mqtt5 = name.ends_with("_m5");
    let work = move |app: &App| match name.strip_suffix("_m5").unwrap_or(&name) {
        "auth_on_register" => {
            connect(app, "vernemq", &body.client_id, body.password.as_deref()).map(|outcome| outcome.map(drop))
        }
        "auth_on_publish" => publish(app, &body),
        "auth_on_subscribe" => body
            .topics
            .iter()
            .find_map(|it| {
                // One that is refused refuses all.
                act(app, "vernemq", &body.client_id, Action::Subscribe, &it.topic, Shown::Topic).filter(Result::is_err)
            })
            .or_else(|| DeviceName::is_claimed_by(&body.client_id).then_some(Ok(()))),
        _ => None,
    };
    Json(match blocking(&app, work).await {
        None => json!({ "result": "next" }),
        Some(Ok(())) => json!({ "result": "ok" }),
        Some(Err(refusal)) => refused(&refusal, is_mqtt5),
    })
}

fn publish(app: &App, body: &Hook) -> Option<Result<(), Refusal>> {
    let malformed = || Refusal::AttachMalformed { why: "the hook's payload is not base64".to_owned() };
    let Some(payload) = google::bytes(&body.payload) else { return Some(Err(malformed())) };
    let action = Action::Publish { qos: body.qos, size: Some(payload.len()) };
    act(app, "vernemq", &body.client_id, action, &body.topic, Shown::All(&payload))
}

/// In MQTT 5 the client hears the reason.
fn refused(refusal: &Refusal, is_mqtt5: bool) -> Value {
    let mut answer = json!({ "result": { "error": "not_allowed" } });
    if is_mqtt5 {
        let code = match refusal.kind().mqtt5() {
            0x86 => "bad_username_or_password",
            0x97 => "quota_exceeded",
            _ => "not_authorized",
        };
        answer["result"]["error"] = json!({ "reason_code": code, "reason_string": refusal.to_string() });
    }
    answer
}
