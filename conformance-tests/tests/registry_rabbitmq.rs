//! RabbitMQ of Debian, two nodes in a cluster: its MQTT clients are let in and refused by the registry's rules.

mod world;

use std::process::{Command, Stdio};
use std::time::Duration;

use conformance_tests::{Output, RabbitMq, Run as _};
use keyrivet_registry::store::DeviceChange;
use keyrivet_registry::{AuthMethod, DeviceName};
use world::{RegistryServer, World};

#[test]
#[ignore = "takes a minute: conformance-tests/test --long"]
fn a_cluster_of_rabbitmq_takes_devices_as_the_registry_says() {
    let world = World::sqlite();
    let registry = world.registry("g", &[]);
    for name in ["gw", "dev"] {
        world.key(name, "ES256");
    }
    let gateway = world.device(&registry, "mygateway", &["gw.pub"], Some(AuthMethod::AssociationOnly));
    let device = world.device(&registry, "device2", &["dev.pub"], None);
    // The server asks the broker, and the broker the server: the first's hooks must be there before the other starts.
    let first = RegistryServer::start(&world, &[]);
    let cluster = RabbitMq::start(&first.hook("/hooks/rabbitmq"));
    let _ = cluster
        .control(&["-q", "cluster_status", "--formatter", "json"])
        .ok()
        .says("krv1@localhost")
        .says("krv2@localhost");
    std::fs::write(world.path("guest"), "guest\n").expect("a file");
    let broker = format!("mqtt://127.0.0.1:{}", cluster.mqtt_port(1));
    let link = ["--link", "--broker", &broker, "--broker-user", "guest", "--broker-password-file", "guest"];
    let server = RegistryServer::start(&world, &link);
    let client = Client { world: &world, cluster: &cluster };
    std::thread::sleep(Duration::from_secs(2));

    // An event from one node to the other, also under the registry's name.
    let good = world.token("dev", "ES256", 0, 600);
    let all = client.listen(1, "dashboard", "guest", "guest", &["-t", "registries/g/#", "-C", "2"]);
    std::thread::sleep(Duration::from_secs(1));
    let event = ["-t", "/devices/device2/events/alarm", "-q", "1", "-m", "fire"];
    let _ = client.publish(0, &device, &good, &event).ok();
    let state = ["-t", "/devices/device2/state", "-q", "1", "-m", "on"];
    let _ = client.publish(0, &device, &good, &state).ok();

    // Refused: who it is, and what it does.
    let _ = client.publish(0, &device, &world.token("dev", "ES256", -700, 600), &event).fails();
    let _ = client.publish(1, &device, &world.token("dev", "ES256", 900, 600), &event).fails();
    let _ = client.publish(0, &device, &world.token("gw", "ES256", 0, 600), &event).fails();
    let _ = client.publish(0, &gateway, &good, &event).fails();
    let _ = client.publish(0, &device, "secret", &event).fails();
    let _ = client.publish(0, &device, &good, &["-t", "/devices/mygateway/events", "-q", "1", "-m", "x"]).fails();
    let _ = client.publish(0, &device, &good, &["-t", "/devices/device2/config", "-q", "1", "-m", "x"]).fails();
    let sub = ["-t", "#", "-C", "1", "-W", "3"];
    let _ = client.subscribe(0, &device, &good, &sub).fails();

    // A gateway that is not bound, then bound.
    let token = world.token("gw", "ES256", 0, 600);
    let attach = ["-t", "/devices/device2/attach", "-q", "1", "-m", "{}"];
    let _ = client.publish(0, &gateway, &token, &attach).fails();
    world.fleet.store().bind(&gateway, &device).expect("bound");
    first.wait_for_a_tick();
    let _ = client.publish(0, &gateway, &token, &attach).ok();
    let through = ["-t", "/devices/device2/events/through", "-q", "1", "-m", "gateway"];
    let _ = client.publish(0, &gateway, &token, &through).ok();
    let heard = all.wait_with_output().expect("mosquitto_sub ends").stdout;
    let heard = String::from_utf8_lossy(&heard);
    assert_eq!(
        heard,
        "registries/g/devices/device2/events/alarm fire\nregistries/g/devices/device2/events/through gateway\n"
    );
    assert_eq!(world.fleet.store().states(&device).expect("states")[0].data, b"on");

    // Down: the configuration on subscribing, then an update and a command.
    world.fleet.store().set_config(&device, b"slow", None, world.now).expect("a configuration");
    let topics =
        ["-t", "/devices/device2/config", "-t", "/devices/device2/commands/#", "-q", "1", "-C", "3", "-W", "20"];
    let down = client.listen(0, &device.to_string(), "unused", &good, &topics);
    std::thread::sleep(Duration::from_secs(2));
    let _ = server.command(&["config", "set", "--device", "device2", "--data", "fast"]).ok();
    server.wait_for_a_tick();
    let _ = server.command(&["command", "send", "--device", "device2", "--data", "now", "--subfolder", "reboot"]).ok();
    let heard = down.wait_with_output().expect("mosquitto_sub ends").stdout;
    let heard = String::from_utf8_lossy(&heard);
    let lines: Vec<_> = heard.lines().collect();
    assert_eq!(
        lines,
        ["/devices/device2/config slow", "/devices/device2/config fast", "/devices/device2/commands/reboot now"]
    );

    // Blocked: refused at once.
    let blocked = DeviceChange { blocked: Some(true), ..DeviceChange::default() };
    world.fleet.store().update_device(&device, &blocked).expect("blocked");
    first.wait_for_a_tick();
    let _ = client.publish(0, &device, &good, &event).fails();
    assert!(first.log().contains("device device2 is blocked"), "{}", first.log());
}

struct Client<'a> {
    world: &'a World,
    cluster: &'a RabbitMq,
}

impl Client<'_> {
    /// Through MQTT 3.1.1, where a publication that is refused ends the connection.
    fn publish(&self, node: usize, device: &DeviceName, token: &str, words: &[&str]) -> Output {
        self.command("mosquitto_pub", node, &device.to_string(), "unused", token).args(words).run()
    }

    fn subscribe(&self, node: usize, device: &DeviceName, token: &str, words: &[&str]) -> Output {
        self.command("mosquitto_sub", node, &device.to_string(), "unused", token).args(words).run()
    }

    fn listen(&self, node: usize, id: &str, user: &str, password: &str, words: &[&str]) -> std::process::Child {
        let mut command = self.command("mosquitto_sub", node, id, user, password);
        command.arg("-v").args(words).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("mosquitto_sub starts")
    }

    fn command(&self, program: &str, node: usize, id: &str, user: &str, password: &str) -> Command {
        let mut command = Command::new(program);
        let port = self.cluster.mqtt_port(node).to_string();
        command.current_dir(self.world.path("")).args([
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-i",
            id,
            "-u",
            user,
            "-P",
            password,
        ]);
        command
    }
}
