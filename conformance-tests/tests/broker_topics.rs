//! What devices may publish and subscribe to, and what becomes of their messages.

mod broker;

use broker::client::Mqtt;
use broker::{Key, World, client_id};
use conformance_tests::{Device, Server, free_port, memory_of};
use keyrivet_registry::{AuthMethod, Timestamp};

#[test]
fn each_refused_topic_size_and_quality_is_explained() {
    let device = Device::new();
    let world = World::new(&device);
    let key = Key::es256();
    let name = world.add("sensor", &key);
    let _ = world.add("camera", &key);
    let (id, token) = (client_id("sensor"), key.token());
    device.write("large", vec![b'x'; 256 * 1024 + 1]);
    device.write("state", vec![b'x'; 64 * 1024 + 1]);
    for (topic, more, reason) in [
        ("/devices/camera/events", &["-m", "x"][..], "device sensor may not use the topics of device camera"),
        ("/devices/sensor/config", &["-m", "x"], "is for the registry to publish on, not for devices"),
        ("/devices/sensor/commands/x", &["-m", "x"], "is for the registry to publish on"),
        ("registries/g/devices/sensor/events", &["-m", "x"], "is none of /devices/D/events"),
        ("$SYS/broker/uptime", &["-m", "x"], ""),
        ("/devices/sensor/events", &["-f", "large"], "262145 bytes are too many: an event has 262144 bytes at most"),
        ("/devices/sensor/state", &["-f", "state"], "65537 bytes are too many: a state has 65536 bytes at most"),
        ("/devices/sensor/attach", &["-m", "{}"], "device sensor is not a gateway"),
    ] {
        // MQTT 5 tells the client that it may not: reason 135, not authorized.
        let words = [&["-V", "mqttv5", "-d", "-q", "1", "-t", topic], more].concat();
        let _ = world.publish(&id, &token, &words).says("RC:135");
        world.wait_for_log(reason);
        if !reason.is_empty() {
            world.wait_for_refusal(&name, reason);
        }
    }
    // QoS 2 ends the connection: reason 155, QoS not supported.
    let words = ["-V", "mqttv5", "-d", "-q", "2", "-t", "/devices/sensor/events", "-m", "x"];
    let _ = world.publish(&id, &token, &words).fails_with("DISCONNECT (155)");
    world.wait_for_refusal(&name, "QoS 2 is not supported: publish with QoS 0 or 1");
    // Who attaches without being a gateway is sent away besides.
    world.wait_for_log(&format!("disconnects {id}: device sensor is not a gateway"));
}

#[test]
fn subscriptions_to_anything_but_ones_own_are_refused() {
    let device = Device::new();
    let world = World::new(&device);
    let key = Key::es256();
    let name = world.add("sensor", &key);
    let _ = world.add("camera", &key);
    let token = key.token();
    let who = ["-V", "mqttv5", "-i", &client_id("sensor"), "-u", "unused", "-P", &token];
    for (topic, reason) in [
        ("/devices/camera/config", "device sensor may not use the topics of device camera"),
        ("/devices/+/config", "has a wildcard: only /devices/D/commands/# may"),
        ("#", "has a wildcard"),
        ("/devices/sensor/events", "cannot be subscribed to"),
        ("registries/g/devices/sensor/events", "is none of"),
        ("$share/all/devices/sensor/config", "is none of"),
    ] {
        let subscriber = world.subscribe("refused", &who, &[topic]);
        subscriber.wait_for("135");
        world.wait_for_refusal(&name, reason);
    }
}

#[test]
fn the_original_of_an_event_reaches_nobody_and_nothing_of_a_device_is_retained() {
    let device = Device::new();
    // With this setting mosquitto ends the connection of a client whose message a plugin denies.
    let world = World::with(&device, "max_queued_messages 0");
    let key = Key::es256();
    let _ = world.add("sensor", &key);
    let everything = world.listen(&["#", "/devices/#"]);
    let publish = |version: &str, qos: &str, message: &str| {
        let words = ["-V", version, "-q", qos, "-r", "-t", "/devices/sensor/events/alerts/fire", "-m", message];
        let _ = world.publish(&client_id("sensor"), &key.token(), &words).ok();
        everything.wait_for(&format!("registries/g/devices/sensor/events/alerts/fire {message}"));
    };
    let cases = ["311", "5"].into_iter().flat_map(|version| ["0", "1"].map(|qos| (version, qos)));
    let messages: Vec<_> = cases.map(|(version, qos)| (version, qos, format!("hot-{version}-{qos}"))).collect();
    for (version, qos, message) in &messages {
        publish(version, qos, message);
    }
    let lines: Vec<_> = everything.output().lines().filter(|line| line.contains(" hot")).map(str::to_owned).collect();
    assert_eq!(lines.len(), messages.len(), "{lines:?}");
    assert!(!world.log().contains("keyrivet: refused"), "{}", world.log());
    let later = world.subscribe("later", &["-i", "later"], &["#"]);
    publish("5", "1", "hottest");
    later.wait_for("hottest");
    assert!(!later.output().contains("hot-"), "{}", later.output());
}

#[test]
fn each_message_goes_out_on_its_own_topic_whatever_the_one_before_it_was() {
    let device = Device::new();
    let world = World::new(&device);
    let key = Key::es256();
    let gateway = world.add_gateway("gateway", &key, AuthMethod::AssociationOnly);
    let sensor = world.add("sensor", &key);
    world.fleet.store().bind(&gateway, &sensor).unwrap();
    let listener = world.listen(&["registries/#"]);
    let mut client = Mqtt::connect(&world, &gateway.to_string(), &key);
    client.attach("sensor", None);
    let own = ["events", "events", "events/a", "events/a", "state", "events/a", "state", "state", "events"];
    let topics = own.into_iter().flat_map(|below| [("gateway", below), ("sensor", below), ("gateway", below)]);
    let topics: Vec<_> = topics.map(|(id, below)| format!("/devices/{id}/{below}")).collect();
    for (number, topic) in topics.iter().enumerate() {
        client.publish(topic, &number.to_string());
    }
    let expected = |(number, topic)| format!("registries/g{topic} {number}");
    let expected: Vec<_> = topics.iter().enumerate().map(expected).collect();
    listener.wait_for(expected.last().unwrap());
    let seen = listener.output();
    assert_eq!(seen.lines().filter(|line| line.starts_with("registries/")).collect::<Vec<_>>(), expected);
    assert_eq!(world.fleet.store().states(&sensor).unwrap()[0].data, b"22");
}

#[test]
fn a_log_that_is_a_topic_too_stops_nothing() {
    let device = Device::new();
    let world = World::with(&device, "log_dest topic\nlog_dest stderr");
    device.write("acl", "topic readwrite #\ntopic read $SYS/#\n");
    world.stop();
    world.start();
    let key = Key::es256();
    let _ = world.add("sensor", &key);
    let log = world.listen(&["$SYS/broker/log/#"]);
    let listener = world.subscribe("events", &["-i", "events"], &["registries/#"]);
    let _ = world.publish(&client_id("sensor"), "eyJ.no.token", &["-t", "x", "-m", "x"]).fails_with("not authorised");
    log.wait_for("keyrivet: refused");
    let _ = world.publish(&client_id("sensor"), &key.token(), &["-q", "1", "-t", "/devices/other/events", "-m", "x"]);
    log.wait_for("device sensor may not use the topics of device other");
    let _ = world.connect(&client_id("sensor"), &key.token()).ok();
    listener.wait_for("registries/g/devices/sensor/events hello");
}

#[test]
fn one_connection_subscribes_no_more_than_it_may_and_a_repetition_costs_one_fetch() {
    let device = Device::new();
    let world = World::new(&device);
    let key = Key::es256();
    let name = world.add("sensor", &key);
    let _ = world.fleet.store().set_config(&name, &[b'x'; 60_000], None, Timestamp::now()).unwrap();
    let mut client = Mqtt::connect(&world, &name.to_string(), &key);
    client.subscribe("/devices/sensor/config");
    client.wait_for("xxx");
    let before = memory_of(world.process_id()).unwrap();
    client.subscribe_all(std::iter::repeat_n("/devices/sensor/config".to_owned(), 30_000));
    let more = memory_of(world.process_id()).unwrap().saturating_sub(before);
    assert!(more < 50_000_000, "{more} bytes more");
    client.subscribe_all((0..6000).map(|number| format!("/devices/sensor/commands/{number}")));
    world.wait_for_refusal(&name, "the limit is reached: 5000 subscriptions of a connection");
    client.publish("/devices/sensor/state", "goes on");
}

#[test]
fn a_bridge_of_everything_carries_an_event_once() {
    let device = Device::new();
    // The broker asks nobody about what a bridge may read.
    let beyond = free_port().to_string();
    let mut other = device.command("mosquitto");
    let _other = Server::start(other.args(["-p", &beyond]), beyond.parse().unwrap(), &device.path("beyond.log"));
    let bridge = format!("connection beyond\naddress 127.0.0.1:{beyond}\ntopic # out 1\nnotifications false");
    let world = World::with(&device, &bridge);
    let key = Key::es256();
    let _ = world.add("sensor", &key);
    let listener = world.subscribe("listener", &["-p", &beyond, "-F", "message %t %p"], &["#"]);
    world.wait_for_log("CONNACK");
    for message in ["first", "second"] {
        let words = ["-q", "1", "-t", "/devices/sensor/events", "-m", message];
        let _ = world.publish(&client_id("sensor"), &key.token(), &words).ok();
        listener.wait_for(&format!("message registries/g/devices/sensor/events {message}"));
    }
    // A will goes past the plugin's hands: when another connection takes over, too, it stays where it is.
    let token = key.token();
    let topics = ["/devices/sensor/config"];
    let will = ["--will-topic", "/devices/sensor/events", "--will-payload", "will", "--will-retain"];
    let who = ["-i", &client_id("sensor"), "-u", "unused", "-P", &token];
    let first = world.subscribe("first", &[&who[..], &will].concat(), &topics);
    let second = world.subscribe("second", &who, &topics);
    world.wait_for_log("already connected, closing old connection");
    drop((first, second));
    let words = ["-q", "1", "-t", "/devices/sensor/events", "-m", "last"];
    let _ = world.publish(&client_id("sensor"), &token, &words).ok();
    listener.wait_for("message registries/g/devices/sensor/events last");
    let output = listener.output();
    assert_eq!(output.lines().filter(|line| line.starts_with("message ")).count(), 3, "{output}");
}
