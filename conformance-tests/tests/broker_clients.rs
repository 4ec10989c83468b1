//! Clients that know nothing of Keyrivet: a program by paho in the style of IoT Core's clients, and rumqttc with MQTT 5.

mod broker;

use std::process::Stdio;
use std::time::Duration;

use broker::{Key, World, client_id, pem, wait_until};
use conformance_tests::{Artefact, Device, Server, free_port};
use keyrivet_registry::Timestamp;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::{Client, MqttOptions};

/// What such programs do: TLS to the bridge, a long client id, `unused` as user name, a token that a library signs;
/// configuration with QoS 1, commands with QoS 0; state and telemetry with QoS 1.
const IOT_CORE_CLIENT: &str = r#"
import datetime, ssl, sys, time
import jwt, paho.mqtt.client as mqtt

port, device, key_file, algorithm = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
project, region, registry = 'my-project', 'eu', 'g'

def token():
    now = datetime.datetime.now(datetime.timezone.utc)
    claims = {'iat': now, 'exp': now + datetime.timedelta(minutes=20), 'aud': project}
    return jwt.encode(claims, open(key_file).read(), algorithm=algorithm)

done = []
def on_connect(client, userdata, flags, code):
    print('connected:', mqtt.connack_string(code), flush=True)
    client.subscribe('/devices/%s/config' % device, qos=1)
    client.subscribe('/devices/%s/commands/#' % device, qos=0)
def on_message(client, userdata, message):
    print('got', message.topic, message.payload.decode(), flush=True)
    if message.payload == b'stop':
        done.append(True)
def on_publish(client, userdata, mid):
    print('acknowledged', mid, flush=True)

# paho 2 wants to be told that the program was written for paho 1.
version = [mqtt.CallbackAPIVersion.VERSION1] if hasattr(mqtt, 'CallbackAPIVersion') else []
name = 'projects/%s/locations/%s/registries/%s/devices/%s' % (project, region, registry, device)
client = mqtt.Client(*version, client_id=name)
client.username_pw_set(username='unused', password=token())
client.tls_set(ca_certs='ca.crt', tls_version=ssl.PROTOCOL_TLSv1_2)
client.on_connect, client.on_message, client.on_publish = on_connect, on_message, on_publish
client.connect('localhost', port)
client.loop_start()
client.publish('/devices/%s/state' % device, 'booted', qos=1).wait_for_publish()
for number in range(3):
    client.publish('/devices/%s/events' % device, 'reading %d' % number, qos=1).wait_for_publish()
end = time.time() + 20
while not done and time.time() < end:
    time.sleep(0.05)
client.disconnect()
sys.exit(0 if done else 1)
"#;

#[test]
fn a_program_written_for_iot_core_needs_only_another_host_name() {
    let device = Device::new();
    let server = Key::es256();
    let (certificate, port) = (server.certificate("localhost", &["localhost"], None), free_port());
    device.write("ca.crt", pem(&certificate));
    device.write("server.key", server.private_pem());
    let lines = format!("listener {port} 127.0.0.1\ncertfile ca.crt\nkeyfile server.key\n");
    let world = World::with(&device, &lines);
    for key in [Key::rs256(), Key::es256()] {
        let id = format!("device-{}", key.algorithm);
        let name = world.add(&id, &key);
        device.write("device.pem", key.private_pem());
        let store = world.fleet.store();
        let _ = store.set_config(&name, b"rate=1", None, Timestamp::now()).unwrap();
        let listener = world.subscribe(&format!("listener-{id}"), &["-i", "listener"], &["registries/g/devices/#"]);
        let file = std::fs::File::create(device.path("program.log")).unwrap();
        let mut command = device.command("python3");
        let arguments = ["-c", IOT_CORE_CLIENT, &port.to_string(), &id, "device.pem", key.algorithm];
        let command = command.args(arguments).stdin(Stdio::null()).stderr(file.try_clone().unwrap()).stdout(file);
        let mut program = command.spawn().expect("python3 starts");
        let said = || String::from_utf8_lossy(&device.read("program.log")).into_owned();
        let wait_for = |text: &str| {
            wait_until(text, || said().contains(text), || format!("{}\n{}", said(), world.log()));
        };
        wait_for("connected: Connection Accepted.");
        wait_for(&format!("got /devices/{id}/config rate=1"));
        listener.wait_for(&format!("registries/g/devices/{id}/events reading 2"));
        assert_eq!(store.states(&name).unwrap()[0].data, b"booted");
        let _ = store.send_command(&name, "lamp", b"on", Timestamp::now()).unwrap();
        wait_for(&format!("got /devices/{id}/commands/lamp on"));
        let _ = store.send_command(&name, "", b"stop", Timestamp::now()).unwrap();
        assert!(program.wait().unwrap().success(), "{}", said());
    }
}

#[test]
fn the_configuration_for_mosquitto_that_is_shipped_serves_devices_and_backends() {
    let device = Device::new();
    let world = World::new(&device);
    world.stop();
    let (ca_key, server, key) = (Key::es256(), Key::es256(), Key::es256());
    let ca = ca_key.certificate("iot-ca", &[], None);
    let registry = world.registry("with-ca", &[pem(&ca)]);
    let certificate = pem(&key.certificate("sensor", &[], Some((&ca, &ca_key))));
    let sensor = world.add_to("with-ca", "sensor", &[&certificate], None);
    let server_certificate = server.certificate("localhost", &["localhost"], Some((&ca, &ca_key)));
    for (file, content) in [
        ("iot-ca.crt", pem(&ca)),
        ("server.crt", pem(&server_certificate)),
        ("server.key", server.private_pem()),
        ("device.crt", certificate),
        ("device.key", key.private_pem()),
        ("acl", "user backend\ntopic read registries/#\n".into()),
    ] {
        device.write(file, content);
    }
    let _ = device.run(&["mosquitto_passwd", "-c", "-b", "passwd", "backend", "secret"]).ok();
    let shipped = include_str!("../../packaging/brokers/mosquitto.conf");
    let [tokens, certificates, inner] = [8883, 8884, 1883].map(|usual| (usual.to_string(), free_port().to_string()));
    let plugin = Artefact::MosquittoPlugin.path().display().to_string();
    let mut text = shipped.replace("/usr/lib/libkeyrivet_mosquitto.so", &plugin);
    for folder in
        ["/var/lib/keyrivet-server/", "/etc/mosquitto/ca_certificates/", "/etc/mosquitto/certs/", "/etc/mosquitto/"]
    {
        text = text.replace(folder, "");
    }
    for (usual, free) in [&tokens, &certificates, &inner] {
        text = text.replace(&format!("listener {usual}"), &format!("listener {free}"));
    }
    device.write("shipped.conf", text + "user root\n");
    let mut broker = device.command("mosquitto");
    let port = inner.1.parse().unwrap();
    let _broker = Server::start(broker.args(["-v", "-c", "shipped.conf"]), port, &device.path("shipped.log"));
    let backend = ["-p", &inner.1, "-u", "backend", "-P", "secret"];
    let listener = world.subscribe("backend", &backend, &[&format!("registries/{}/#", registry.registry)]);
    let publish = |port: &str, who: &[&str], message: &str| {
        let words =
            ["mosquitto_pub", "-h", "localhost", "-p", port, "--cafile", "iot-ca.crt", "-i", &sensor.to_string()];
        let rest = ["-q", "1", "-t", "/devices/sensor/events", "-m", message];
        let _ = device.run(&[&words[..], who, &rest].concat()).ok();
        listener.wait_for(&format!("registries/with-ca/devices/sensor/events {message}"));
    };
    publish(&tokens.1, &["-u", "unused", "-P", &key.token()], "by token");
    publish(&certificates.1, &["--cert", "device.crt", "--key", "device.key"], "by certificate");
    let nobody = ["mosquitto_pub", "-h", "127.0.0.1", "-p", &inner.1, "-t", "registries/with-ca/devices/sensor/events"];
    let _ = device.run(&[&nobody[..], &["-m", "x"]].concat()).fails_with("not authorised");
}

#[test]
fn mqtt_5_tells_its_clients_by_reason_codes() {
    let device = Device::new();
    let world = World::new(&device);
    let (key, stranger) = (Key::es256(), Key::es256());
    let _ = world.add("sensor", &key);
    let connect = |token: String| {
        let mut options = MqttOptions::new(client_id("sensor"), "127.0.0.1", world.port_number());
        let _ = options.set_credentials("unused", token).set_keep_alive(Duration::from_secs(30));
        Client::new(options, 10)
    };
    // Until the connection ends: everything that came, and why it ended.
    let story = |mut connection: rumqttc::v5::Connection| {
        let mut text = String::new();
        loop {
            match connection.recv_timeout(Duration::from_secs(10)) {
                Ok(Ok(event)) => text.push_str(&format!("{event:?}\n")),
                Ok(Err(error)) => return format!("{text}{error:?}"),
                Err(_) => panic!("the connection goes on:\n{text}"),
            }
        }
    };
    let told = story(connect(stranger.token()).1);
    assert!(told.contains("ConnectionRefused(NotAuthorized)"), "{told}");
    let (client, connection) = connect(key.token_for(0, 2));
    client.publish("/devices/other/events", QoS::AtLeastOnce, false, "x").unwrap();
    client.subscribe("/devices/other/config", QoS::AtLeastOnce).unwrap();
    let told = story(connection);
    // PUBACK and SUBACK. The reason in DISCONNECT is seen by mosquitto_sub in `broker_admission`: rumqttc reads the
    // connection's end first.
    assert!(told.contains("reason: NotAuthorized"), "{told}");
    assert!(told.contains("return_codes: [NotAuthorized]"), "{told}");
    world.wait_for_log("the token expired");
}
