//! Gateways: attaching and detaching devices, speaking for them, and what survives a broker that is killed.

mod broker;

use std::time::Duration;

use broker::client::Mqtt;
use broker::{Key, World, wait_until};
use conformance_tests::Device;
use keyrivet_registry::{AuthMethod, Timestamp};

#[test]
fn a_gateway_attaches_a_device_publishes_for_it_and_gets_what_is_sent_to_it() {
    let device = Device::new();
    let world = World::new(&device);
    let (key, sensor_key) = (Key::es256(), Key::rs256());
    let gateway = world.add_gateway("gateway", &key, AuthMethod::AssociationAndDeviceAuthToken);
    let sensor = world.add("sensor", &sensor_key);
    let store = world.fleet.store();
    store.bind(&gateway, &sensor).unwrap();
    let _ = store.set_config(&sensor, b"rate=1", None, Timestamp::now()).unwrap();
    let listener = world.listen(&["#", "/devices/#"]);
    let mut client = Mqtt::connect(&world, &gateway.to_string(), &key);
    client.subscribe("/devices/gateway/errors");
    client.attach("sensor", Some(&sensor_key.token()));
    client.publish("/devices/sensor/events", "through the gateway");
    listener.wait_for("registries/g/devices/sensor/events through the gateway");
    client.publish("/devices/sensor/state", "warm");
    client.subscribe("/devices/sensor/config");
    client.wait_for("/devices/sensor/config rate=1");
    client.subscribe("/devices/sensor/commands/#");
    let _ = store.send_command(&sensor, "lamp", b"on", Timestamp::now()).unwrap();
    client.wait_for("/devices/sensor/commands/lamp on");
    let _ = store.set_config(&sensor, b"rate=2", None, Timestamp::now()).unwrap();
    client.wait_for("/devices/sensor/config rate=2");
    assert_eq!(store.states(&sensor).unwrap()[0].data, b"warm");
    client.publish("/devices/sensor/detach", "");
    client.publish("/devices/sensor/events", "not any more");
    client.wait_for("device sensor is not attached to gateway gateway: publish to /devices/sensor/attach first");
    world.wait_for_refusal(&gateway, "device sensor is not attached to gateway gateway");
    let _ = store.set_config(&sensor, b"rate=3", None, Timestamp::now()).unwrap();
    client.publish("/devices/gateway/events", "its own");
    listener.wait_for("registries/g/devices/gateway/events its own");
    let text = listener.output();
    assert!(!text.contains("not any more") && !text.contains("attach"), "{text}");
    assert!(!text.contains(&sensor_key.token()[..20]), "{text}");
    assert!(!client.seen().contains("rate=3"), "{}", client.seen());
}

#[test]
fn what_cannot_be_attached_is_explained_on_the_errors_topic_in_the_log_and_in_the_audit_trail() {
    let device = Device::new();
    let world = World::new(&device);
    let (key, sensor_key) = (Key::es256(), Key::es256());
    let gateway = world.add_gateway("gateway", &key, AuthMethod::AssociationAndDeviceAuthToken);
    let (bound, free) = (world.add("bound", &sensor_key), world.add("free", &sensor_key));
    world.fleet.store().bind(&gateway, &bound).unwrap();
    let mut client = Mqtt::connect(&world, &gateway.to_string(), &key);
    client.subscribe("/devices/gateway/errors");
    let token = sensor_key.token();
    for (id, payload, kind, reason) in [
        (
            "free",
            format!(r#"{{"authorization":"{token}"}}"#),
            "GATEWAY_ATTACHMENT_ERROR",
            "device not bound to gateway: run 'keyrivet-server gateway bind --gateway gateway --device free'",
        ),
        ("bound", "{}".into(), "GATEWAY_ATTACHMENT_ERROR", "gateway gateway must show a token of device bound itself"),
        ("bound", "{not json".into(), "GATEWAY_ATTACHMENT_ERROR", "the attach message is not"),
        ("bound", r#"{"authorization":7}"#.into(), "GATEWAY_ATTACHMENT_ERROR", "authorization is not a string"),
        (
            "bound",
            format!(r#"{{"authorization":"{}"}}"#, Key::es256().token()),
            "GATEWAY_ATTACHMENT_ERROR",
            "the token of device bound: the token's signature was not made by the key of device bound",
        ),
        ("nobody", "{}".into(), "GATEWAY_DEVICE_NOT_FOUND", "there is no device nobody in the gateway's registry"),
    ] {
        client.publish(&format!("/devices/{id}/attach"), &payload);
        let error: serde_json::Value =
            serde_json::from_str(&client.wait_for_message("/devices/gateway/errors", reason_start(reason)))
                .expect("the error is JSON");
        assert_eq!(error["error_type"], kind, "{error}");
        assert_eq!(error["device_id"], id, "{error}");
        assert_eq!(error["mqtt_message_info"]["message_type"], "ATTACH", "{error}");
        assert_eq!(error["mqtt_message_info"]["topic"], format!("/devices/{id}/attach"), "{error}");
        assert!(error["description"].as_str().unwrap().contains(reason), "{error}");
        world.wait_for_log(reason);
        world.wait_for_refusal(&gateway, reason);
    }
    client.publish("/devices/bound/detach", "");
    let _ = client.wait_for_message("/devices/gateway/errors", "GATEWAY_DETACHMENT_DEVICE_ERROR");
    assert!(!world.log().contains(&token), "the token is in the log");
    let _ = free;
}

#[test]
fn association_only_needs_no_token_and_token_only_no_binding() {
    let device = Device::new();
    let world = World::new(&device);
    let (key, sensor_key) = (Key::es256(), Key::es256());
    let by_association = world.add_gateway("by-association", &key, AuthMethod::AssociationOnly);
    let by_token = world.add_gateway("by-token", &key, AuthMethod::DeviceAuthTokenOnly);
    let sensor = world.add("sensor", &sensor_key);
    let listener = world.listen(&["registries/g/devices/sensor/#"]);
    world.fleet.store().bind(&by_association, &sensor).unwrap();
    let mut client = Mqtt::connect(&world, &by_association.to_string(), &key);
    client.attach("sensor", None);
    client.publish("/devices/sensor/events", "by association");
    listener.wait_for("by association");
    let mut client = Mqtt::connect(&world, &by_token.to_string(), &key);
    client.attach("sensor", Some(&sensor_key.token()));
    client.publish("/devices/sensor/events", "by token");
    listener.wait_for("by token");
    // Unbinding ends what needed the binding.
    let mut client = Mqtt::connect(&world, &by_association.to_string(), &key);
    client.attach("sensor", None);
    world.fleet.store().unbind(&by_association, &sensor).unwrap();
    std::thread::sleep(Duration::from_millis(700));
    client.publish("/devices/sensor/events", "unbound");
    world.wait_for_refusal(&by_association, "device sensor is not attached to gateway by-association");
    assert!(!listener.output().contains("unbound"), "{}", listener.output());
}

#[test]
fn a_broker_that_is_killed_loses_neither_attachments_nor_what_was_stored() {
    let device = Device::new();
    let world = World::new(&device);
    let (key, sensor_key) = (Key::es256(), Key::es256());
    let gateway = world.add_gateway("gateway", &key, AuthMethod::AssociationAndDeviceAuthToken);
    let sensor = world.add("sensor", &sensor_key);
    let store = world.fleet.store();
    store.bind(&gateway, &sensor).unwrap();
    let _ = store.set_config(&sensor, b"rate=1", None, Timestamp::now()).unwrap();
    let mut client = Mqtt::connect(&world, &gateway.to_string(), &key);
    client.attach("sensor", Some(&sensor_key.token()));
    for round in 0..20 {
        client.publish("/devices/sensor/state", &format!("state {round}"));
        // The message was acknowledged: the state is in the store.
        client.flush();
    }
    world.kill();
    assert_eq!(store.states(&sensor).unwrap()[0].data, b"state 19");
    let numbers = [&gateway, &sensor].map(|name| store.device(name).unwrap().unwrap().number);
    assert!(store.is_attached(numbers[0], numbers[1]).unwrap());
    world.start();
    let listener = world.listen(&["registries/g/devices/sensor/#"]);
    let mut client = Mqtt::connect(&world, &gateway.to_string(), &key);
    client.publish("/devices/sensor/events", "without attaching again");
    listener.wait_for("without attaching again");
    client.subscribe("/devices/sensor/config");
    client.wait_for("/devices/sensor/config rate=1");
}

/// The beginning of a reason, which JSON does not escape.
fn reason_start(reason: &str) -> &str {
    reason.split(['\'', '"', '{']).next().unwrap_or(reason)
}

#[test]
fn a_device_belongs_to_the_gateway_that_attached_it_last() {
    let device = Device::new();
    let world = World::new(&device);
    let (key, sensor_key) = (Key::es256(), Key::es256());
    let first = world.add_gateway("first", &key, AuthMethod::DeviceAuthTokenOnly);
    let second = world.add_gateway("second", &key, AuthMethod::DeviceAuthTokenOnly);
    let _ = world.add("sensor", &sensor_key);
    let listener = world.listen(&["registries/g/devices/sensor/#"]);
    let (mut one, mut two) =
        (Mqtt::connect(&world, &first.to_string(), &key), Mqtt::connect(&world, &second.to_string(), &key));
    one.attach("sensor", Some(&sensor_key.token()));
    one.publish("/devices/sensor/events", "from the first");
    listener.wait_for("from the first");
    two.attach("sensor", Some(&sensor_key.token()));
    two.publish("/devices/sensor/events", "from the second");
    listener.wait_for("from the second");
    let mut refused = false;
    wait_until(
        "the first to be refused",
        || {
            one.publish("/devices/sensor/events", "again");
            refused |= world.refusals(&first).iter().any(|reason| reason.contains("is not attached"));
            refused
        },
        || world.log(),
    );
}
