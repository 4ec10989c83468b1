//! RabbitMQ's `rabbitmq_auth_backend_http`: forms to four addresses, answers `allow` or `deny`.
//!
//! The user name says nothing (IoT Core ignored it), so every address goes by the client id, which RabbitMQ's MQTT
//! plugin sends along. Topics come as AMQP routing keys.

use std::sync::Arc;

use axum::Form;
use axum::extract::State;
use keyrivet_registry::DeviceName;
use keyrivet_registry::rules::session::Action;
use serde::Deserialize;

use super::{Shown, act, check_registry, connect, served};
use crate::serve::{App, blocking};

/// What RabbitMQ sends, of all its addresses.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct Question {
    #[serde(default)]
    pub(crate) password: String,
    #[serde(default)]
    pub(crate) client_id: String,
    #[serde(default, rename = "variable_map.client_id")]
    pub(crate) variable_client_id: String,
    #[serde(default)]
    pub(crate) resource: String,
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) permission: String,
    #[serde(default)]
    pub(crate) routing_key: String,
}

impl Question {
    fn client_id(&self) -> &str {
        if self.client_id.is_empty() { &self.variable_client_id } else { &self.client_id }
    }
}

#[utoipa::path(post, path = "/hooks/rabbitmq/user", tag = "hooks",
    request_body(content = Question, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, description = "allow or deny")))]
pub(crate) async fn user(State(app): State<Arc<App>>, Form(body): Form<Question>) -> &'static str {
    let work = move |app: &App| connect(app, "rabbitmq", body.client_id(), Some(&body.password));
    verdict(matches!(blocking(&app, work).await, Some(Ok(_))))
}

/// Which virtual host a listener leads to is the broker's own set-up: one registry each, which a server may be limited to.
#[utoipa::path(post, path = "/hooks/rabbitmq/vhost", tag = "hooks",
    request_body(content = Question, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, description = "allow or deny")))]
pub(crate) async fn vhost(State(app): State<Arc<App>>, Form(body): Form<Question>) -> &'static str {
    verdict(check_registry(&app, "rabbitmq", body.client_id(), "vhost").is_ok())
}

/// A device needs the queues of its own subscriptions, and the exchange that topics go through.
#[utoipa::path(post, path = "/hooks/rabbitmq/resource", tag = "hooks",
    request_body(content = Question, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, description = "allow or deny")))]
pub(crate) async fn resource(State(app): State<Arc<App>>, Form(body): Form<Question>) -> &'static str {
    let devices = served(&app).map_or_else(|| "projects/".to_owned(), |registry| format!("{registry}/devices/"));
    verdict(match body.resource.as_str() {
        "queue" => body
            .name
            .strip_prefix("mqtt-subscription-")
            .is_some_and(|client_id| client_id.strip_prefix('/').unwrap_or(client_id).starts_with(&devices)),
        "exchange" => body.name == "amq.topic" && body.permission != "configure",
        _ => false,
    })
}

#[utoipa::path(post, path = "/hooks/rabbitmq/topic", tag = "hooks",
    request_body(content = Question, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, description = "allow or deny")))]
pub(crate) async fn topic(State(app): State<Arc<App>>, Form(body): Form<Question>) -> &'static str {
    let action = match body.permission.as_str() {
        "write" => Action::Publish { qos: 1, size: None },
        "read" => Action::Subscribe,
        _ => return verdict(false),
    };
    let client_id = body.client_id().to_owned();
    let topic = topic_of(&body.routing_key, &client_id);
    let work = move |app: &App| act(app, "rabbitmq", &client_id, action, &topic, Shown::Topic);
    verdict(matches!(blocking(&app, work).await, Some(Ok(()))))
}

/// RabbitMQ writes `.` for MQTT's `/`, and `*` for `+`, so that a dot within a device's own id is told from a separator
/// only by knowing the id.
fn topic_of(routing_key: &str, client_id: &str) -> String {
    let plain = || routing_key.replace('.', "/").replace('*', "+");
    let Ok(name) = DeviceName::parse(client_id) else { return plain() };
    let own = name.id.as_str();
    match routing_key.strip_prefix(".devices.").and_then(|rest| rest.strip_prefix(own)) {
        Some(rest) if rest.starts_with('.') => format!("/devices/{own}{}", rest.replace('.', "/").replace('*', "+")),
        _ => plain(),
    }
}

fn verdict(allowed: bool) -> &'static str {
    if allowed { "allow" } else { "deny" }
}
