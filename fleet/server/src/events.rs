//! `events`: what devices publish, one line each, as a client of the broker sees it.

use std::time::Duration;

use rumqttc::{AsyncClient, Event, Packet, QoS, SubscribeFilter};
use serde_json::json;
use tokio::time::timeout;

use crate::cli;
use crate::output::{self, Failure};

pub(crate) fn follow(scope: &cli::Scope, arguments: &cli::Events) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(listen(scope, arguments))
}

async fn listen(scope: &cli::Scope, arguments: &cli::Events) -> Result<(), Failure> {
    let mut options = arguments.broker.options(&format!("keyrivet-events-{}", std::process::id()))?;
    options.set_max_packet_size(300 * 1024, 1024);
    let (client, mut events) = AsyncClient::new(options, 8);
    let (registry, device) = (scope.registry.as_deref().unwrap_or("+"), arguments.device.as_deref().unwrap_or("+"));
    // As `plugin_opt_events` has them: by registry, or by project, region and registry.
    let topics = ["", "projects/+/locations/+/"].map(|before| {
        let topic = format!("{before}registries/{registry}/devices/{device}/events/#");
        SubscribeFilter::new(topic, QoS::AtLeastOnce)
    });
    client.subscribe_many(topics).await?;
    let patience = arguments.timeout.map_or(Duration::MAX, Duration::from_secs);
    let mut seen = 0;
    while arguments.follow || seen < arguments.count {
        let event = timeout(patience, next(&mut events)).await;
        let event = event.map_err(|_| Failure::from("no event came in time"))?;
        let message = event.map_err(|error| {
            let broker = &arguments.broker.broker;
            Failure::from(format!("the broker at {broker}: {error} (--broker and --broker-user tell where and who)"))
        })?;
        let text = match std::str::from_utf8(&message.payload) {
            Ok(text) => json!(text),
            Err(_) => json!({ "base64": base64(&message.payload) }),
        };
        output::line(&json!({ "topic": message.topic, "data": text }).to_string());
        seen += 1;
    }
    Ok(())
}

async fn next(events: &mut rumqttc::EventLoop) -> Result<rumqttc::Publish, rumqttc::ConnectionError> {
    loop {
        if let Event::Incoming(Packet::Publish(message)) = events.poll().await? {
            return Ok(message);
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
