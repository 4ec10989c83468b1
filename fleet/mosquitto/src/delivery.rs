//! What goes down to devices and out to subscribers: configurations, commands, errors, events, states.

use std::ffi::CString;

use keyrivet_registry::rules::gateway;
use keyrivet_registry::rules::topic::{Channel, Topic, qualified};
use keyrivet_registry::store::DELIVERED;
use keyrivet_registry::{Command, Config, DeviceId, DeviceName, Event, Refusal, RegistryName};

use crate::clients::{Client, Clients};
use crate::ffi::broker::Broker;
use crate::options::EventTopics;

/// The topic on which the registry's subscribers get what a device publishes on its own.
pub(crate) fn topic_up(topics: EventTopics, registry: &RegistryName, topic: &str) -> Option<CString> {
    let text = match topics {
        EventTopics::ByRegistry => qualified(registry, topic),
        EventTopics::ByProject => format!("{registry}{topic}"),
    };
    CString::new(text).ok()
}

/// Publishes an event that came by HTTP.
pub(crate) fn event(broker: Broker<'_>, topics: EventTopics, event: &Event) {
    let topic = Topic { device: event.device.id.as_str(), channel: Channel::Events(&event.subfolder) };
    if let Some(topic) = topic_up(topics, &event.device.registry, &topic.to_string()) {
        let _ = broker.publish(None, &topic, &event.data, 1);
    }
}

/// Gives a configuration to all who have subscribed to it.
pub(crate) fn config(broker: Broker<'_>, clients: &mut Clients, device: &DeviceName, config: &Config) {
    let topic = Topic { device: device.id.as_str(), channel: Channel::Config };
    let _ = publish_down(broker, clients, device, topic, &config.data, |client| client.awaits(&topic, config.version));
}

/// Gives a command to all who have subscribed; answers what became of it, if that is known here.
pub(crate) fn command(broker: Broker<'_>, clients: &mut Clients, command: &Command) -> Option<&'static str> {
    let topic = Topic { device: command.device.id.as_str(), channel: Channel::Commands(&command.subfolder) };
    match publish_down(broker, clients, &command.device, topic, &command.data, |client| client.listens(&topic)) {
        (_, delivered) if delivered > 0 => Some(DELIVERED),
        (connected, _) if connected => Some("the device is connected, but has not subscribed to its commands"),
        // Another broker of this registry may have the device.
        _ => None,
    }
}

/// Whether anybody is connected who has subscribed to the configuration of a device.
pub(crate) fn wants_config(clients: &mut Clients, device: &DeviceName) -> bool {
    let topic = Topic { device: device.id.as_str(), channel: Channel::Config };
    clients.near(device).into_iter().any(|near| clients.get(near).is_some_and(|near| near.listens(&topic).is_some()))
}

/// Tells a gateway on its `errors` topic, or the device's, what could not be done for a device.
pub(crate) fn error(broker: Broker<'_>, client: &Client, device: &str, refusal: &Refusal, kind: &str, topic: &str) {
    let Ok(id) = DeviceId::parse(device) else { return };
    // The broker does not tell the packet's identifier.
    let text = gateway::error_message(refusal, &id, kind, topic, 0);
    for of in [client.session.device.id.as_str(), device] {
        let topic = Topic { device: of, channel: Channel::Errors };
        if let (Some(qos), Ok(topic)) = (client.listens(&topic), CString::new(topic.to_string())) {
            let _ = broker.publish(Some(&client.id), &topic, text.as_bytes(), qos);
        }
    }
}

/// Whether the device itself, or a gateway that it is attached to, is connected; and to how many it was given.
fn publish_down(
    broker: Broker<'_>,
    clients: &mut Clients,
    device: &DeviceName,
    topic: Topic<'_>,
    payload: &[u8],
    wanted: impl Fn(&mut Client) -> Option<u8>,
) -> (bool, usize) {
    let Ok(text) = CString::new(topic.to_string()) else { return (false, 0) };
    let (mut connected, mut delivered) = (false, 0);
    for near in clients.near(device) {
        let Some(client) = clients.get(near) else { continue };
        connected |= client.session.device == *device || client.session.attached.contains(&device.id);
        if let Some(qos) = wanted(client)
            && broker.publish(Some(&client.id), &text, payload, qos)
        {
            delivered += 1;
        }
    }
    (connected, delivered)
}
