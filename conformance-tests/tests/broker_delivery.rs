//! What passes between devices and the registry's users: states, configurations, commands, events; each registry's by itself.

mod broker;

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use broker::{Key, Subscriber, World, client_id, wait_until};
use conformance_tests::{Artefact, Cluster, Device, Run as _, free_port};
use keyrivet_registry::{DeviceName, Event, Timestamp};
use serde_json::{Value, json};

#[test]
fn what_the_store_cannot_keep_now_is_not_acknowledged() {
    let device = Device::new();
    let world = World::new(&device);
    let key = Key::es256();
    let name = world.add("sensor", &key);
    let change =
        |sql: &str| rusqlite::Connection::open(device.path("registry.db")).unwrap().execute_batch(sql).unwrap();
    let publish = |seconds: &str| {
        let mut command = device.command("timeout");
        let id = client_id("sensor");
        command.args([
            seconds,
            "mosquitto_pub",
            "-h",
            "127.0.0.1",
            "-p",
            &world.port(),
            "-i",
            &id,
            "-u",
            "unused",
            "-d",
        ]);
        command.args(["-P", &key.token(), "-q", "1", "-t", "/devices/sensor/state", "-m", "warm"]).run()
    };
    change("ALTER TABLE states RENAME TO lost");
    let output = publish("3").fails();
    assert!(!output.stdout().contains("PUBACK"), "{}", output.stdout());
    world.wait_for_log("the registry's store does not answer");
    change("ALTER TABLE lost RENAME TO states");
    let _ = publish("10").ok().says("PUBACK");
    assert_eq!(world.fleet.store().states(&name).unwrap()[0].data, b"warm");
}

#[test]
fn events_wait_for_a_broker_that_is_up() {
    let device = Device::new();
    let world = World::new(&device);
    let name = world.add("sensor", &Key::es256());
    let event = |data: &[u8]| {
        let event = Event {
            device: name.clone(),
            gateway: None,
            subfolder: String::new(),
            at: Timestamp::now(),
            data: data.into(),
        };
        world.fleet.publish(&event).unwrap();
    };
    // A second broker for the same port fails after it has loaded its plugins.
    world.stop();
    event(b"early");
    let taken = std::net::TcpListener::bind(("127.0.0.1", world.port_number())).unwrap();
    let _ = device.command("mosquitto").args(["-c", "mosquitto.conf"]).run().fails();
    drop(taken);
    let waiting = world.fleet.store().take_events(10).unwrap();
    assert_eq!(waiting.iter().map(|event| &event.data[..]).collect::<Vec<_>>(), [b"early"]);
    // One that is up takes them all: more than at once, fewer than it queues for a subscriber (max_queued_messages).
    world.start();
    let listener = world.listen(&["registries/#"]);
    (0..700).for_each(|number| event(format!("late {number}").as_bytes()));
    wait_until("all events", || listener.output().matches(" late ").count() == 700, || listener.output());
}

#[test]
fn a_state_is_kept_and_published() {
    let device = Device::new();
    let world = World::new(&device);
    let key = Key::es256();
    let name = world.add("sensor", &key);
    let listener = world.listen(&["registries/g/devices/+/state"]);
    let words = ["-q", "1", "-t", "/devices/sensor/state", "-m", "warm"];
    let _ = world.publish(&client_id("sensor"), &key.token(), &words).ok();
    listener.wait_for("registries/g/devices/sensor/state warm");
    let states = world.fleet.store().states(&name).unwrap();
    assert_eq!(states.iter().map(|state| &state.data[..]).collect::<Vec<_>>(), [b"warm"]);
}

#[test]
fn a_configuration_arrives_on_subscribing_and_within_a_second_of_being_set() {
    let device = Device::new();
    let world = World::new(&device);
    let key = Key::es256();
    let name = world.add("sensor", &key);
    let set = |text: &str| world.fleet.store().set_config(&name, text.as_bytes(), None, Timestamp::now()).unwrap();
    // The first version is empty, and made with the device.
    assert_eq!(set("rate=1"), 2);
    let sensor = device_subscriber(&world, "sensor", &name, &key, &["/devices/sensor/config"]);
    sensor.wait_for("/devices/sensor/config rate=1");
    for round in 3..6 {
        let (text, begin) = (format!("rate={round}"), Instant::now());
        assert_eq!(set(&text), round);
        sensor.wait_for(&format!("/devices/sensor/config {text}"));
        println!("a configuration took {:?}", begin.elapsed());
    }
    let newest = || world.fleet.store().configs(&name, 1).unwrap().remove(0);
    wait_until("the acknowledgement", || newest().acknowledged.is_some(), || format!("{:?}", newest()));
    // Once each, and nothing without a subscription.
    assert_eq!(sensor.output().matches("rate=").count(), 4, "{}", sensor.output());
}

#[test]
fn a_command_reaches_only_a_device_that_is_connected_and_has_subscribed() {
    let device = Device::new();
    let world = World::new(&device);
    let key = Key::es256();
    let (name, deaf) = (world.add("sensor", &key), world.add("deaf", &key));
    let send = |name: &DeviceName, folder: &str, text: &str| {
        world.fleet.store().send_command(name, folder, text.as_bytes(), Timestamp::now()).unwrap()
    };
    let outcome = |id| world.fleet.store().command_outcome(id).unwrap();
    let early = send(&name, "", "too early");
    let sensor = device_subscriber(&world, "sensor", &name, &key, &["/devices/sensor/commands/#"]);
    let _deaf = device_subscriber(&world, "deaf", &deaf, &key, &["/devices/deaf/config"]);
    let (plain, folder) = (send(&name, "", "blink"), send(&name, "lamp/red", "on"));
    sensor.wait_for("/devices/sensor/commands blink");
    sensor.wait_for("/devices/sensor/commands/lamp/red on");
    let unheard = send(&deaf, "", "hello?");
    for (id, is) in [
        (plain, "delivered"),
        (folder, "delivered"),
        (unheard, "the device is connected, but has not subscribed to its commands"),
    ] {
        wait_until("the outcome", || outcome(id).as_deref() == Some(is), || format!("{:?}", outcome(id)));
    }
    let text = sensor.output();
    assert_eq!((text.matches(" blink").count(), text.matches(" on\n").count()), (1, 1), "{text}");
    // Whoever sent it before it could be delivered is not told that it was, unless it came along within its few seconds.
    assert_eq!(text.contains("too early"), outcome(early).as_deref() == Some("delivered"), "{text}");
}

#[test]
fn an_event_that_came_by_http_is_published_too() {
    let device = Device::new();
    let world = World::new(&device);
    let name = world.add("sensor", &Key::es256());
    let listener = world.listen(&["registries/g/devices/#"]);
    let event = |text: &str| Event {
        device: name.clone(),
        gateway: None,
        subfolder: "by/http".into(),
        at: Timestamp::now(),
        data: text.into(),
    };
    for text in ["one", "two"] {
        world.fleet.store().put_event(&event(text)).unwrap();
        listener.wait_for(&format!("registries/g/devices/sensor/events/by/http {text}"));
    }
}

#[test]
fn two_registries_with_a_device_of_the_same_name_are_kept_apart() {
    let device = Device::new();
    let world = World::new(&device);
    let other = world.registry("h", &[]).device("dev1").unwrap();
    let (key, other_key) = (Key::es256(), Key::es256());
    let own = world.add("dev1", &key);
    let _ = world.add_to("h", "dev1", &[&other_key.public_pem()], None);
    let topics = ["/devices/dev1/config", "/devices/dev1/commands/#"];
    let first = device_subscriber(&world, "in-g", &own, &key, &topics);
    let second = device_subscriber(&world, "in-h", &other, &other_key, &topics);
    let store = world.fleet.store();
    for (name, text) in [(&own, "for-g"), (&other, "for-h")] {
        let _ = store.set_config(name, text.as_bytes(), None, Timestamp::now()).unwrap();
        let _ = store.send_command(name, "", format!("command-{text}").as_bytes(), Timestamp::now()).unwrap();
    }
    for (subscriber, own, foreign) in [(&first, "for-g", "for-h"), (&second, "for-h", "for-g")] {
        subscriber.wait_for(&format!("/devices/dev1/config {own}"));
        subscriber.wait_for(&format!("/devices/dev1/commands command-{own}"));
        assert!(!subscriber.output().contains(foreign), "{}", subscriber.output());
    }
    drop((first, second));
    let listener = world.listen(&["registries/g/devices/#"]);
    let words = ["-q", "1", "-t", "/devices/dev1/events", "-m"];
    let _ = world.publish(&other.to_string(), &other_key.token(), &[&words[..], &["from-h"]].concat()).ok();
    let _ = world.publish(&own.to_string(), &key.token(), &[&words[..], &["from-g"]].concat()).ok();
    listener.wait_for("registries/g/devices/dev1/events from-g");
    assert!(!listener.output().contains("from-h"), "{}", listener.output());
}

#[test]
fn registries_of_several_projects_can_have_topics_of_their_own() {
    let device = Device::new();
    let world = World::with(&device, "plugin_opt_events projects");
    let key = Key::es256();
    let name = world.add("sensor", &key);
    let listener = world.listen(&["projects/#"]);
    let (mut events, file) =
        start_events(&world, &device, "events", &["--registry", "g", "--count", "1", "--timeout", "20"]);
    let _ = world.connect(&name.to_string(), &key.token()).ok();
    listener.wait_for(&format!("{name}/events hello"));
    assert!(events.wait().expect("it ends").success());
    assert_eq!(json_lines(&file), [json!({ "topic": format!("{name}/events"), "data": "hello" })]);
}

#[test]
fn a_durable_session_gets_its_configuration_after_it_has_come_back() {
    let device = Device::new();
    let world = World::new(&device);
    let key = Key::es256();
    let name = world.add("sensor", &key);
    let token = key.token();
    let durable = ["-c", "-i", &client_id("sensor"), "-u", "unused", "-P", &token];
    let topics = ["/devices/sensor/config", "/devices/sensor/commands/#"];
    let mut sensor = world.subscribe("before", &durable, &topics);
    sensor.end();
    std::thread::sleep(Duration::from_millis(300));
    let again = world.subscribe("again", &durable, &topics);
    let _ = world.fleet.store().set_config(&name, b"rate=1", None, Timestamp::now()).unwrap();
    again.wait_for("/devices/sensor/config rate=1");
    assert_eq!(again.output().matches("rate=1").count(), 1, "{}", again.output());
}

#[test]
fn a_broker_that_reads_its_configuration_anew_forgets_no_subscription() {
    let device = Device::new();
    let world = World::new(&device);
    let key = Key::es256();
    let name = world.add("sensor", &key);
    let sensor = device_subscriber(&world, "sensor", &name, &key, &["/devices/sensor/config"]);
    let reload = ["kill", "-HUP", &world.process_id().to_string()];
    let _ = device.run(&reload).ok();
    world.wait_for_log("Reloading config");
    let _ = world.fleet.store().set_config(&name, b"rate=1", None, Timestamp::now()).unwrap();
    sensor.wait_for("/devices/sensor/config rate=1");
}

#[test]
fn the_same_broker_works_on_postgresql() {
    let device = Device::new();
    let cluster = Cluster::start();
    let world = World::on(&device, &cluster.url(), "");
    let key = Key::es256();
    let name = world.add("sensor", &key);
    let listener = world.listen(&["registries/g/devices/#"]);
    let sensor = device_subscriber(&world, "sensor", &name, &key, &["/devices/sensor/config"]);
    let begin = Instant::now();
    let _ = world.fleet.store().set_config(&name, b"rate=1", None, Timestamp::now()).unwrap();
    sensor.wait_for("/devices/sensor/config rate=1");
    println!("a configuration took {:?}", begin.elapsed());
    drop(sensor);
    let words = ["-q", "1", "-t", "/devices/sensor/state", "-m", "warm"];
    let _ = world.publish(&client_id("sensor"), &key.token(), &words).ok();
    listener.wait_for("registries/g/devices/sensor/state warm");
    assert_eq!(world.fleet.store().states(&name).unwrap()[0].data, b"warm");
    let _ = world.publish(&client_id("sensor"), &Key::es256().token(), &words).fails();
    world.wait_for_refusal(&name, "signature");
}

#[test]
fn the_events_command_shows_what_devices_publish() {
    let device = Device::new();
    let world = World::new(&device);
    let key = Key::es256();
    for id in ["sensor", "camera"] {
        let _ = world.add(id, &key);
    }
    let _ = events(&device, &world.port(), &["--timeout", "1"]).run().fails_with("no event came in time");
    let nobody = free_port().to_string();
    let refused = events(&device, &nobody, &[]).run();
    let _ = refused.fails_with(&format!("the broker at mqtt://127.0.0.1:{nobody}")).fails_with("--broker");

    let (mut following, all) = start_events(&world, &device, "all", &["--follow"]);
    let (mut counted, one) =
        start_events(&world, &device, "one", &["--device", "camera", "--count", "1", "--timeout", "20"]);
    let publish = |id: &str, topic: &str, data: &str| {
        let words = ["-q", "1", "-t", topic, "-m", data];
        let _ = world.publish(&client_id(id), &key.token(), &words).ok();
    };
    publish("sensor", "/devices/sensor/events", "warm");
    publish("sensor", "/devices/sensor/state", "no event");
    publish("camera", "/devices/camera/events/night", "a \"dark\" picture");
    device.write("bytes", [0xff, 0x00]);
    let words = ["-q", "1", "-t", "/devices/sensor/events", "-f", "bytes"];
    let _ = world.publish(&client_id("sensor"), &key.token(), &words).ok();
    assert!(counted.wait().expect("it ends").success());
    let dark = json!({ "topic": "registries/g/devices/camera/events/night", "data": "a \"dark\" picture" });
    assert_eq!(json_lines(&one), std::slice::from_ref(&dark));
    let wanted = [
        json!({ "topic": "registries/g/devices/sensor/events", "data": "warm" }),
        dark,
        json!({ "topic": "registries/g/devices/sensor/events", "data": { "base64": "/wA=" } }),
    ];
    let seen = || std::fs::read_to_string(&all).unwrap();
    wait_until("all events", || seen().lines().count() >= wanted.len(), seen);
    assert_eq!(json_lines(&all), wanted);
    assert!(matches!(following.try_wait(), Ok(None)), "it does not follow any more");
    let _ = following.kill();
    let _ = following.wait();
}

fn device_subscriber<'a>(
    world: &'a World<'_>,
    file: &str,
    name: &DeviceName,
    key: &Key,
    topics: &[&str],
) -> Subscriber<'a> {
    let (id, token) = (name.to_string(), key.token());
    world.subscribe(file, &["-i", &id, "-u", "unused", "-P", &token], topics)
}

/// `keyrivet-server events`, of the broker at this port.
fn events(device: &Device, port: &str, more: &[&str]) -> Command {
    let mut command = device.command(&Artefact::Server.path().to_string_lossy());
    let _ = command.args(["events", "--broker", &format!("mqtt://127.0.0.1:{port}")]).args(more);
    command
}

/// Starts it, and waits until it has subscribed. What it says goes into a file.
fn start_events(world: &World<'_>, device: &Device, file: &str, more: &[&str]) -> (Child, PathBuf) {
    let file = device.path(file);
    let mut command = events(device, &world.port(), more);
    let process = command.stdout(std::fs::File::create(&file).unwrap()).spawn().expect("it starts");
    world.wait_for_log(&format!("Sending SUBACK to keyrivet-events-{}", process.id()));
    (process, file)
}

/// A value of JSON in each line of a file.
fn json_lines(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
}
