//! What describes the program: its manual page, its completions, its OpenAPI description.

use clap::CommandFactory as _;
use utoipa::OpenApi as _;

use crate::cli::{Cli, Document};
use crate::hooks;
use crate::output::{self, Failure};

/// A request or answer of the bridge, for its description only: the bridge reads JSON as loosely as IoT Core did.
mod shape {
    #![allow(dead_code, missing_docs, reason = "these are read by utoipa, not by code")]

    #[derive(utoipa::ToSchema)]
    pub(super) struct GatewayInfo {
        gateway_id: Option<String>,
        delegated_device_id: Option<String>,
    }
    #[derive(utoipa::ToSchema)]
    pub(super) struct PublishEvent {
        binary_data: String,
        sub_folder: Option<String>,
        gateway_info: Option<GatewayInfo>,
    }
    #[derive(utoipa::ToSchema)]
    pub(super) struct State {
        binary_data: String,
    }
    #[derive(utoipa::ToSchema)]
    pub(super) struct SetState {
        state: State,
        gateway_info: Option<GatewayInfo>,
    }
    #[derive(utoipa::ToSchema)]
    pub(super) struct Config {
        version: String,
        binary_data: Option<String>,
    }
    #[derive(utoipa::ToSchema)]
    pub(super) struct Error {
        error: Status,
    }
    #[derive(utoipa::ToSchema)]
    pub(super) struct Status {
        code: u16,
        message: String,
        status: String,
        details: Vec<Info>,
    }
    #[derive(utoipa::ToSchema)]
    pub(super) struct Info {
        reason: String,
        domain: String,
    }

    #[utoipa::path(post, path = "/v1/{device}:publishEvent", request_body = PublishEvent, tag = "bridge",
        params(("device" = String, Path, description = "projects/P/locations/R/registries/G/devices/D")),
        responses((status = 200), (status = "4XX", body = Error), (status = 503, body = Error)))]
    pub(super) fn publish_event() {}
    #[utoipa::path(post, path = "/v1/{device}:setState", request_body = SetState, tag = "bridge",
        params(("device" = String, Path, description = "projects/P/locations/R/registries/G/devices/D")),
        responses((status = 200), (status = "4XX", body = Error), (status = 503, body = Error)))]
    pub(super) fn set_state() {}
    #[utoipa::path(get, path = "/v1/{device}/config", tag = "bridge",
        params(("device" = String, Path, description = "projects/P/locations/R/registries/G/devices/D"),
            ("localVersion" = Option<i64>, Query), ("gatewayInfo.gatewayId" = Option<String>, Query),
            ("gatewayInfo.delegatedDeviceId" = Option<String>, Query)),
        responses((status = 200, body = Config), (status = "4XX", body = Error), (status = 503, body = Error)))]
    pub(super) fn config() {}
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Keyrivet registry",
        description = "The HTTP bridge for devices (tag bridge; each request shows \
        Authorization: Bearer JWT) and the hooks for MQTT brokers (tag hooks)."
    ),
    paths(
        shape::publish_event,
        shape::set_state,
        shape::config,
        hooks::emqx::authn,
        hooks::emqx::authz,
        hooks::emqx::message,
        hooks::vernemq::hook,
        hooks::go_auth::getuser,
        hooks::go_auth::superuser,
        hooks::go_auth::aclcheck,
        hooks::rabbitmq::user,
        hooks::rabbitmq::vhost,
        hooks::rabbitmq::resource,
        hooks::rabbitmq::topic,
    )
)]
struct Description;

/// The command that a manual page is wanted of, under its name there: `keyrivet-server-device-create`.
fn page(words: &[String]) -> Result<clap::Command, Failure> {
    let mut command = Cli::command();
    command.build();
    for word in words {
        let found = command.find_subcommand(word).filter(|found| found.get_name() != "help").cloned();
        let name = command.get_name().to_owned();
        let found = found.ok_or_else(|| format!("{name} has no command '{word}': see keyrivet-server --help"))?;
        let full = format!("{name}-{}", found.get_name());
        command = found.name(full);
    }
    Ok(command)
}

/// The OpenAPI description, as JSON.
pub(crate) fn openapi() -> String {
    Description::openapi().to_pretty_json().unwrap_or_default()
}

/// Prints one of them.
pub(crate) fn print(which: &Document) -> Result<(), Failure> {
    let mut text = Vec::new();
    match which {
        Document::Man { command } => clap_mangen::Man::new(page(command)?).render(&mut text)?,
        Document::Completion { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "keyrivet-server", &mut text);
        }
        Document::Openapi => text = openapi().into_bytes(),
    }
    output::line(String::from_utf8_lossy(&text).trim_end());
    Ok(())
}
