//! The server beside a broker that has no plugin of ours.

mod world;

use std::io::Write as _;
use std::process::{Command, Stdio};

use conformance_tests::{Server, free_port};
use keyrivet_registry::Event;
use world::{RegistryServer, World};

#[test]
fn a_burst_of_events_from_both_sides_passes_the_link() {
    const EACH: usize = 500;
    let world = World::sqlite();
    let registry = world.registry("g", &[]);
    let device = world.device(&registry, "dev", &[], None);
    let port = free_port().to_string();
    let mut mosquitto = Command::new("mosquitto");
    let path = std::env::var("PATH").unwrap_or_default();
    mosquitto.env("PATH", format!("{path}:/usr/sbin")).args(["-p", &port]);
    let _broker = Server::start(&mut mosquitto, port.parse().expect("a port"), &world.path("broker.log"));
    let client = |program: &str, words: &[&str]| {
        let mut command = Command::new(program);
        command.args(["-p", &port, "-q", "1"]).args(words).stdout(Stdio::piped());
        command
    };
    let all = (2 * EACH).to_string();
    let words = ["-t", "registries/g/#", "-C", &all, "-W", "60", "-F", "%p"];
    let listener = client("mosquitto_sub", &words).spawn().expect("mosquitto_sub starts");
    let server = RegistryServer::start(&world, &["--link", "--broker", &format!("mqtt://127.0.0.1:{port}")]);
    while !server.log().contains("linked to the broker") {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }

    for number in 0..EACH {
        let (device, data) = (device.clone(), format!("http {number}").into_bytes());
        let event = Event { device, gateway: None, subfolder: String::new(), at: world.now, data };
        world.fleet.publish(&event).expect("kept");
    }
    let mut publisher = client("mosquitto_pub", &["-t", "/devices/dev/events", "-l"]).stdin(Stdio::piped()).spawn();
    let publisher = publisher.as_mut().expect("mosquitto_pub starts");
    let mut input = publisher.stdin.take().expect("it has an input");
    for number in 0..EACH {
        writeln!(input, "mqtt {number}").expect("it reads");
    }
    drop(input);
    assert!(publisher.wait().expect("it ends").success());
    let heard = listener.wait_with_output().expect("mosquitto_sub ends").stdout;
    let heard = String::from_utf8_lossy(&heard);
    for way in ["http", "mqtt"] {
        for number in 0..EACH {
            let line = format!("{way} {number}");
            assert!(heard.lines().any(|heard| heard == line), "'{line}' is missing: {}", server.log());
        }
    }
}
