//! The shapes of Google's IoT API: resources as JSON, and errors.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use keyrivet_registry::{Activity, Config, Device, Kind, Refusal, Registry, State};
use serde_json::{Map, Value, json};

pub(crate) fn registry(registry: &Registry) -> Value {
    let state = |on: bool| if on { "ENABLED" } else { "DISABLED" };
    let credential =
        |pem: &String| json!({ "publicKeyCertificate": { "format": "X509_CERTIFICATE_PEM", "certificate": pem } });
    let credentials: Vec<_> = registry.ca_certificates.iter().map(credential).collect();
    json!({
        "id": &*registry.name.registry,
        "name": registry.name.to_string(),
        "credentials": credentials,
        "mqttConfig": { "mqttEnabledState": format!("MQTT_{}", state(registry.mqtt)) },
        "httpConfig": { "httpEnabledState": format!("HTTP_{}", state(registry.http)) },
    })
}

pub(crate) fn device(device: &Device, activity: &Activity, config: Option<&Config>, state: Option<&State>) -> Value {
    let credential = |it: &keyrivet_registry::Credential| {
        let mut json = json!({ "publicKey": { "format": it.format.name(), "key": &*it.pem } });
        if let Some(expires) = it.expires {
            json["expirationTime"] = json!(expires);
        }
        json
    };
    let mut json = json!({
        "id": device.name.id.as_str(),
        "name": device.name.to_string(),
        "numId": device.number.to_string(),
        "credentials": device.credentials.iter().map(credential).collect::<Vec<_>>(),
        "blocked": device.blocked,
        "online": activity.is_online(),
        "metadata": device.metadata,
        "gatewayConfig": match device.gateway {
            Some(method) => json!({ "gatewayType": "GATEWAY", "gatewayAuthMethod": method.name() }),
            None => json!({ "gatewayType": "NON_GATEWAY" }),
        },
    });
    for (name, time) in [
        ("lastHeartbeatTime", activity.seen),
        ("lastEventTime", activity.event),
        ("lastStateTime", activity.state),
        ("lastConfigAckTime", config.and_then(|config| config.acknowledged)),
        ("lastErrorTime", activity.error_at),
    ] {
        if let Some(time) = time {
            json[name] = json!(time);
        }
    }
    if let Some(error) = &activity.error {
        json["lastErrorStatus"] = json!({ "message": error });
    }
    if let Some(config) = config {
        json["config"] = self::config(config);
    }
    if let Some(state) = state {
        json["state"] = self::state(state);
    }
    json
}

pub(crate) fn config(config: &Config) -> Value {
    let mut json = json!({
        "version": config.version.to_string(),
        "cloudUpdateTime": config.updated,
        "binaryData": STANDARD.encode(&config.data),
    });
    if let Some(time) = config.acknowledged {
        json["deviceAckTime"] = json!(time);
    }
    json
}

pub(crate) fn state(state: &State) -> Value {
    json!({ "updateTime": state.updated, "binaryData": STANDARD.encode(&state.data) })
}

/// Bytes in any of the base64 alphabets, padded or not, as protobuf's JSON allows.
pub(crate) fn bytes(text: &str) -> Option<Vec<u8>> {
    [STANDARD, URL_SAFE, STANDARD_NO_PAD, URL_SAFE_NO_PAD].iter().find_map(|engine| engine.decode(text).ok())
}

/// A member of an object, by its JSON name or its protobuf name: clients send both.
pub(crate) fn member<'a>(object: &'a Map<String, Value>, camel: &str, snake: &str) -> Option<&'a Value> {
    object.get(camel).or_else(|| object.get(snake)).filter(|value| !value.is_null())
}

/// An answer that is an error, in Google's shape.
#[derive(Debug)]
pub(crate) struct ApiError {
    code: u16,
    status: &'static str,
    message: String,
    reason: &'static str,
}

impl ApiError {
    pub(crate) fn new(kind: Kind, message: impl Into<String>, reason: &'static str) -> Self {
        let (code, status) = kind.http();
        Self { code, status, message: message.into(), reason }
    }

    pub(crate) fn out_of_range(message: impl Into<String>) -> Self {
        Self { code: 400, status: "OUT_OF_RANGE", message: message.into(), reason: "version" }
    }

    pub(crate) fn too_slow(message: impl Into<String>) -> Self {
        Self { code: 408, status: "DEADLINE_EXCEEDED", message: message.into(), reason: "too-slow" }
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn reason(&self) -> &'static str {
        self.reason
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        if let Some(why) = refusal.for_the_operator() {
            tracing::error!("{why}");
        }
        // What the seed's author was told, followed by what he was not told.
        let message = match refusal.kind() {
            Kind::Precondition => format!("Precondition check failed: {refusal}"),
            _ => refusal.to_string(),
        };
        Self::new(refusal.kind(), message, refusal.code())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let code = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let info = json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": self.reason.to_ascii_uppercase().replace('-', "_"),
            "domain": "keyrivet",
        });
        let error = json!({
            "code": self.code, "message": self.message, "status": self.status, "details": [info],
        });
        (code, Json(json!({ "error": error }))).into_response()
    }
}
