//! The server beside a broker that has no plugin of ours.

mod world;

use std::io::Write as _;
use std::process::{Command, Stdio};

use conformance_tests::{Server, free_port};
use keyrivet_registry::Event;
use world::{RegistryServer, World};

/// A mosquitto without plugin, on this port.
fn broker(world: &World, port: &str) -> Server {
    let mut mosquitto = Command::new("mosquitto");
    let path = std::env::var("PATH").unwrap_or_default();
    mosquitto.env("PATH", format!("{path}:/usr/sbin")).args(["-p", port]);
    Server::start(&mut mosquitto, port.parse().expect("a port"), &world.path("broker.log"))
}

/// The server, once it has subscribed.
fn linked<'a>(world: &'a World, port: &str) -> RegistryServer<'a> {
    let server = RegistryServer::start(world, &["--link", "--broker", &format!("mqtt://127.0.0.1:{port}")]);
    wait_for(&server, "linked to the broker", 1);
    server
}

fn wait_for(server: &RegistryServer<'_>, line: &str, times: usize) {
    while server.log().matches(line).count() < times {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// One of mosquitto's clients.
fn client(program: &str, port: &str, qos: &str, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(["-p", port, "-q", qos]).args(words).stdout(Stdio::piped());
    command
}

/// Publishes each line by itself.
fn publish(port: &str, qos: &str, topic: &str, lines: impl Iterator<Item = String>) {
    let mut publisher = client("mosquitto_pub", port, qos, &["-t", topic, "-l"]).stdin(Stdio::piped()).spawn();
    let publisher = publisher.as_mut().expect("mosquitto_pub starts");
    let mut input = publisher.stdin.take().expect("it has an input");
    for line in lines {
        writeln!(input, "{line}").expect("it reads");
    }
    drop(input);
    assert!(publisher.wait().expect("it ends").success());
}

#[test]
fn a_burst_of_events_from_both_sides_passes_the_link() {
    const EACH: usize = 500;
    let world = World::sqlite();
    let registry = world.registry("g", &[]);
    let device = world.device(&registry, "dev", &[], None);
    let port = free_port().to_string();
    let _broker = broker(&world, &port);
    let all = (2 * EACH).to_string();
    let words = ["-t", "registries/g/#", "-C", &all, "-W", "60", "-F", "%p"];
    let listener = client("mosquitto_sub", &port, "1", &words).spawn().expect("mosquitto_sub starts");
    let server = linked(&world, &port);

    for number in 0..EACH {
        let (device, data) = (device.clone(), format!("http {number}").into_bytes());
        let event = Event { device, gateway: None, subfolder: String::new(), at: world.now, data };
        world.fleet.publish(&event).expect("kept");
    }
    publish(&port, "1", "/devices/dev/events", (0..EACH).map(|number| format!("mqtt {number}")));
    let heard = listener.wait_with_output().expect("mosquitto_sub ends").stdout;
    let heard = String::from_utf8_lossy(&heard);
    for way in ["http", "mqtt"] {
        for number in 0..EACH {
            let line = format!("{way} {number}");
            assert!(heard.lines().any(|heard| heard == line), "'{line}' is missing: {}", server.log());
        }
    }
}

#[test]
fn the_link_outlives_floods_messages_that_are_too_large_and_its_broker() {
    let world = World::sqlite();
    let registry = world.registry("g", &[]);
    let device = world.device(&registry, "dev", &[], None);
    let port = free_port().to_string();
    let first = broker(&world, &port);
    let server = linked(&world, &port);
    let kept = |state: &str| {
        let newest =
            || world.fleet.store().states(&device).expect("states").into_iter().next().map(|newest| newest.data);
        while newest().as_deref() != Some(state.as_bytes()) {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    // Many more than may wait here, and than the broker has under way.
    publish(&port, "0", "/devices/dev/events", (0..5000).map(|number| number.to_string()));
    publish(&port, "1", "/devices/dev/state", (0..50).map(|number| format!("state {number}")));
    kept("state 49");
    // As an event it is too large, though not as a packet; under the registry's name it would be.
    let large = "x".repeat(300 * 1024 - 30);
    publish(&port, "1", "/devices/dev/events", std::iter::once(large));
    publish(&port, "1", "/devices/dev/state", std::iter::once("after that".to_owned()));
    kept("after that");
    assert!(!server.log().contains("the link to the broker"), "{}", server.log());
    drop(first);
    wait_for(&server, "the link to the broker", 1);
    let _second = broker(&world, &port);
    wait_for(&server, "linked to the broker", 2);
    publish(&port, "1", "/devices/dev/state", std::iter::once("again".to_owned()));
    kept("again");
}
