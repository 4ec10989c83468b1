//! Gateways: when one may speak for a device.

use serde_json::Value;

use crate::limit::Limit;
use crate::name::DeviceId;
use crate::record::{AuthMethod, Device};
use crate::refusal::Refusal;
use crate::rules::token;
use crate::timestamp::Timestamp;

/// Checks that `gateway` is one, and answers how it authenticates its devices.
pub fn auth_method(gateway: &Device) -> Result<AuthMethod, Refusal> {
    gateway.gateway.ok_or_else(|| Refusal::NotAGateway { device: gateway.name.id.to_string() })
}

/// Whether `gateway` may attach `device`, given whether both are bound and what the attach message says.
pub fn check_attach(
    gateway: &Device,
    device: &Device,
    bound: bool,
    attached: usize,
    payload: &[u8],
    now: Timestamp,
) -> Result<(), Refusal> {
    let method = auth_method(gateway)?;
    let authorization = authorization(payload)?;
    check_binding(method, gateway, device, bound)?;
    if method.needs_token() {
        let token = authorization.ok_or_else(|| token_missing(gateway, device))?;
        let wrap = |refusal| Refusal::DeviceToken { device: device.name.id.to_string(), refusal: Box::new(refusal) };
        token::check(&token, device, now).map_err(wrap)?;
    }
    check_not_blocked(device)?;
    if !Limit::ATTACHED.allows(attached + 1) {
        return Err(Refusal::TooMany { limit: Limit::ATTACHED });
    }
    Ok(())
}

/// Whether `device`, whose own token is shown, may come through `gateway` (HTTP, `gateway_id`).
pub fn check_through(gateway: &Device, device: &Device, bound: bool) -> Result<(), Refusal> {
    let method = auth_method(gateway)?;
    check_not_blocked(gateway)?;
    check_binding(method, gateway, device, bound)
}

/// Whether `gateway`, whose own token is shown, may speak for `device` (HTTP, `delegated_device_id`). Where the device
/// must show a token, having attached it through MQTT counts.
pub fn check_delegated(gateway: &Device, device: &Device, bound: bool, attached: bool) -> Result<(), Refusal> {
    let method = auth_method(gateway)?;
    check_binding(method, gateway, device, bound)?;
    if method.needs_token() && !attached {
        return Err(token_missing(gateway, device));
    }
    check_not_blocked(device)
}

/// What is published to the gateway's `errors` topic when it cannot do something for a device.
pub fn error_message(refusal: &Refusal, device: &DeviceId, message_type: &str, topic: &str, packet_id: u16) -> String {
    let error_type = match (refusal, message_type) {
        (Refusal::GatewayDeviceUnknown { .. }, _) => refusal.gateway_error(),
        (_, "DETACH") => "GATEWAY_DETACHMENT_DEVICE_ERROR",
        _ => refusal.gateway_error(),
    };
    serde_json::json!({
        "error_type": error_type,
        "description": refusal.to_string(),
        "device_id": device.as_str(),
        "mqtt_message_info": { "message_type": message_type, "topic": topic, "packet_id": packet_id },
    })
    .to_string()
}

fn check_binding(method: AuthMethod, gateway: &Device, device: &Device, bound: bool) -> Result<(), Refusal> {
    if bound || !method.needs_binding() {
        return Ok(());
    }
    Err(Refusal::NotBound { gateway: gateway.name.id.to_string(), device: device.name.id.to_string() })
}

fn check_not_blocked(device: &Device) -> Result<(), Refusal> {
    if device.blocked { Err(Refusal::Blocked { device: device.name.id.to_string() }) } else { Ok(()) }
}

fn token_missing(gateway: &Device, device: &Device) -> Refusal {
    Refusal::DeviceTokenMissing { gateway: gateway.name.id.to_string(), device: device.name.id.to_string() }
}

/// `{"authorization":"JWT"}`, or nothing, or an object without it.
fn authorization(payload: &[u8]) -> Result<Option<String>, Refusal> {
    if payload.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let malformed = |why: &str| Refusal::AttachMalformed { why: why.to_owned() };
    let value: Value = serde_json::from_slice(payload).map_err(|_| malformed("it is not JSON"))?;
    let object = value.as_object().ok_or_else(|| malformed("it is not a JSON object"))?;
    match object.get("authorization") {
        None => Ok(None),
        Some(Value::String(token)) if token.is_empty() => Ok(None),
        Some(Value::String(token)) => Ok(Some(token.clone())),
        Some(_) => Err(malformed("authorization is not a string")),
    }
}
