//! The server beside a broker that has no plugin of ours.

mod world;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use conformance_tests::{Run as _, Server, free_port};
use keyrivet_registry::{DeviceName, Event};
use serde_json::json;
use world::{RegistryServer, World, registry_name};

on_both_databases!(events_taken_over_http_outlive_a_server_that_ends, the_link_leaves_other_registries_events_alone);

/// A mosquitto without plugin, on this port.
fn broker(world: &World, port: &str) -> Server {
    let mut mosquitto = Command::new("mosquitto");
    let path = std::env::var("PATH").unwrap_or_default();
    mosquitto.env("PATH", format!("{path}:/usr/sbin")).args(["-p", port]);
    Server::start(&mut mosquitto, port.parse().expect("a port"), &world.path("broker.log"))
}

/// A world with a device, and the port for its broker.
fn device_beside_a_broker() -> (World, DeviceName, String) {
    let world = World::sqlite();
    let device = world.device(&world.registry("g", &[]), "dev", &[], None);
    (world, device, free_port().to_string())
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

/// A way to the broker that can be cut.
struct Way {
    port: String,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Way {
    fn to(broker: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("127.0.0.1 has a free port");
        let port = listener.local_addr().expect("an address").port().to_string();
        let streams = Arc::<Mutex<Vec<TcpStream>>>::default();
        let (broker, kept) = (format!("127.0.0.1:{broker}"), Arc::clone(&streams));
        drop(std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect(&broker) else { continue };
                let copy = |stream: &TcpStream| stream.try_clone().expect("a stream can be shared");
                for (mut from, mut to) in [(copy(&near), copy(&far)), (copy(&far), copy(&near))] {
                    drop(std::thread::spawn(move || std::io::copy(&mut from, &mut to)));
                }
                kept.lock().expect("nobody panicked").extend([near, far]);
            }
        }));
        Self { port, streams }
    }

    fn cut(&self) {
        for stream in self.streams.lock().expect("nobody panicked").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
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

fn signal(name: &str, process: u32) {
    let _ = Command::new("kill").args(["-s", name, &process.to_string()]).run().ok();
}

/// An event, as the HTTP bridge keeps one.
fn keep(world: &World, device: &DeviceName, data: &str) {
    let (device, data) = (device.clone(), data.as_bytes().to_vec());
    let event = Event { device, gateway: None, subfolder: String::new(), at: world.now, data };
    world.fleet.publish(&event).expect("kept");
}

/// Reads what a client prints until each of these lines was there.
fn hear(client: &mut Child, lines: &[&str]) {
    let mut missing: BTreeSet<_> = lines.iter().map(|&line| line.to_owned()).collect();
    let mut heard = BufReader::new(client.stdout.take().expect("it has an output")).lines();
    while !missing.is_empty() {
        let line = heard.next().unwrap_or_else(|| panic!("{missing:?} did not come")).expect("text");
        let _ = missing.remove(&line);
    }
    let _ = client.kill();
    let _ = client.wait();
}

fn events_taken_over_http_outlive_a_server_that_ends(world: &World) {
    let registry = world.registry("g", &[]);
    world.key("dev", "ES256");
    let device = world.device(&registry, "dev", &["dev.pub"], None);
    let token = world.token("dev", "ES256", 0, 600);
    let port = free_port().to_string();
    let broker = broker(world, &port);
    for end in ["TERM", "KILL"] {
        let words = ["-t", "registries/g/#", "-W", "60", "-F", "%p"];
        let mut listener = client("mosquitto_sub", &port, "1", &words).spawn().expect("mosquitto_sub starts");
        std::thread::sleep(std::time::Duration::from_millis(300));
        let server = linked(world, &port);
        signal("STOP", broker.process_id());
        for data in ["MQ==", "Mg==", "Mw==", "NA==", "NQ=="] {
            let (code, answer) = server.post(&token, &format!("{device}:publishEvent"), &json!({ "binaryData": data }));
            assert_eq!(code, 200, "{answer}");
        }
        // The link has had time to send them into the broker's socket.
        std::thread::sleep(std::time::Duration::from_millis(600));
        signal(end, server.process.process_id());
        drop(server);
        signal("CONT", broker.process_id());
        let _server = linked(world, &port);
        hear(&mut listener, &["1", "2", "3", "4", "5"]);
        // The broker has acknowledged them, so that they are forgotten.
        while !world.fleet.store().waiting_events(&registry, 1).expect("events").is_empty() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

fn the_link_leaves_other_registries_events_alone(world: &World) {
    let (own, other) = (world.registry("g", &[]), world.registry("other", &[]));
    let (own, other) = (world.device(&own, "dev", &[], None), world.device(&other, "dev", &[], None));
    let port = free_port().to_string();
    let _broker = broker(world, &port);
    let words = ["-t", "registries/#", "-C", "1", "-W", "60", "-F", "%t %p"];
    let listener = client("mosquitto_sub", &port, "1", &words).spawn().expect("mosquitto_sub starts");
    let _server = linked(world, &port);
    keep(world, &other, "another registry's");
    keep(world, &own, "own");
    let heard = listener.wait_with_output().expect("mosquitto_sub ends").stdout;
    assert_eq!(String::from_utf8_lossy(&heard), "registries/g/devices/dev/events own\n");
    let waiting = world.fleet.store().waiting_events(&registry_name("other"), 10).expect("events");
    assert_eq!(waiting.iter().map(|it| &it.1.data[..]).collect::<Vec<_>>(), [b"another registry's"]);
}

#[test]
fn a_burst_of_events_from_both_sides_passes_the_link() {
    const EACH: usize = 500;
    let (world, device, port) = device_beside_a_broker();
    let _broker = broker(&world, &port);
    let all = (2 * EACH).to_string();
    let words = ["-t", "registries/g/#", "-C", &all, "-W", "60", "-F", "%p"];
    let listener = client("mosquitto_sub", &port, "1", &words).spawn().expect("mosquitto_sub starts");
    let server = linked(&world, &port);

    for number in 0..EACH {
        keep(&world, &device, &format!("http {number}"));
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
fn nothing_is_lost_when_the_way_to_the_broker_is_cut() {
    const EACH: usize = 400;
    let (world, device, port) = device_beside_a_broker();
    let _broker = broker(&world, &port);
    let way = Way::to(&port);
    let words = ["-t", "registries/g/#", "-W", "60", "-F", "%p"];
    let mut listener = client("mosquitto_sub", &port, "1", &words).spawn().expect("mosquitto_sub starts");
    let _server = linked(&world, &way.port);
    let lines = |way: &'static str| (0..EACH).map(move |number| format!("{way} {number}"));
    let wait = |milliseconds| std::thread::sleep(std::time::Duration::from_millis(milliseconds));
    std::thread::scope(|scope| {
        let mqtt = lines("mqtt").inspect(|_| wait(10));
        drop(scope.spawn(|| publish(&port, "1", "/devices/dev/events", mqtt)));
        drop(scope.spawn(|| {
            for pause in [300, 1100, 1050, 1200] {
                wait(pause);
                way.cut();
            }
        }));
        for line in lines("http") {
            wait(10);
            keep(&world, &device, &line);
        }
    });
    let all: Vec<_> = lines("mqtt").chain(lines("http")).collect();
    hear(&mut listener, &all.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn the_link_outlives_floods_messages_that_are_too_large_and_its_broker() {
    let (world, device, port) = device_beside_a_broker();
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
    // As an event it is too large, though not as a packet; the others are in any case.
    for size in [300 * 1024 - 30, 400 * 1024, 4_000_000] {
        publish(&port, "1", "/devices/dev/events", std::iter::once("x".repeat(size)));
    }
    publish(&port, "1", "/devices/dev/state", std::iter::once("after that".to_owned()));
    kept("after that");
    assert!(!server.log().contains("the link to the broker"), "{}", server.log());
    // The broker would send this one again for ever.
    publish(&port, "1", "/devices/dev/events", std::iter::once("x".repeat(5_000_000)));
    wait_for(&server, "linked to the broker", 2);
    publish(&port, "1", "/devices/dev/state", std::iter::once("after that, too".to_owned()));
    kept("after that, too");
    assert!(server.log().contains("let the broker refuse such messages"), "{}", server.log());
    drop(first);
    wait_for(&server, "the link to the broker", 2);
    let _second = broker(&world, &port);
    wait_for(&server, "linked to the broker", 3);
    publish(&port, "1", "/devices/dev/state", std::iter::once("again".to_owned()));
    kept("again");
}

#[test]
fn the_broker_keeps_what_comes_while_the_server_is_away() {
    let (world, device, port) = device_beside_a_broker();
    let broker = broker(&world, &port);
    let words = ["-t", "registries/g/#", "-C", "1", "-W", "60", "-F", "%p"];
    let listener = client("mosquitto_sub", &port, "1", &words).spawn().expect("mosquitto_sub starts");
    drop(linked(&world, &port));
    publish(&port, "1", "/devices/dev/state", std::iter::once("meanwhile".to_owned()));
    publish(&port, "1", "/devices/dev/events", std::iter::once("an event".to_owned()));
    let server = linked(&world, &port);
    let heard = listener.wait_with_output().expect("mosquitto_sub ends").stdout;
    assert_eq!(String::from_utf8_lossy(&heard), "an event\n", "{}", server.log());
    assert_eq!(world.fleet.store().states(&device).expect("states")[0].data, b"meanwhile");
    assert!(broker.output().contains(&format!("as keyrivet-server/{} (", device.registry)), "{}", broker.output());
}

#[test]
fn of_two_servers_with_a_link_each_says_that_it_is_thrown_out() {
    let world = World::sqlite();
    let _ = world.registry("g", &[]);
    let port = free_port().to_string();
    let _broker = broker(&world, &port);
    let first = linked(&world, &port);
    let address = format!("mqtt://127.0.0.1:{port}");
    let others = |id| RegistryServer::start(&world, &["--link", "--broker", &address, "--link-client-id", id]);
    let peaceful = others("another");
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(!first.log().contains("does another server"), "{}", first.log());
    drop(peaceful);
    let _second = others("keyrivet-server/projects/my-project/locations/us-central1/registries/g");
    wait_for(&first, "does another server have a link as keyrivet-server/projects/", 1);
}
