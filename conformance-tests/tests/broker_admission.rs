//! Who the broker lets in, for how long, and what it says to those whom it does not: in its log and the audit trail.

mod broker;

use std::time::Duration;

use broker::client::Mqtt;
use broker::{Key, PROJECT, World, base64url, client_id, now, pem, unsigned, wait_until};
use conformance_tests::{Device, free_port};
use keyrivet_registry::store::DeviceChange;
use keyrivet_registry::{Credential, Timestamp};
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;

#[test]
fn a_device_is_let_in_by_its_token_and_its_events_reach_subscribers() {
    let device = Device::new();
    let world = World::new(&device);
    let listener = world.listen(&["registries/g/devices/#"]);
    for key in [Key::rs256(), Key::es256()] {
        let id = format!("sensor-{}", key.algorithm);
        let name = world.add(&id, &key);
        let _ = world.connect(&client_id(&id), &key.token()).ok();
        listener.wait_for(&format!("registries/g/devices/{id}/events hello"));
        let number = world.fleet.store().device(&name).unwrap().unwrap().number;
        let seen = || world.fleet.store().activity(number).unwrap().event.is_some();
        wait_until("its last event in the registry", seen, || world.log());
    }
}

#[test]
fn each_refused_token_is_explained_in_the_log_and_in_the_audit_trail() {
    let device = Device::new();
    let world = World::new(&device);
    let (key, other, rsa) = (Key::es256(), Key::es256(), Key::rs256());
    let (name, by_rsa) = (world.add("sensor", &key), world.add("by-rsa", &rsa));
    let claims = |aud: &str| format!(r#"{{"aud":"{aud}","iat":{},"exp":{}}}"#, now(), now() + 60);
    // The public key as the secret of an HMAC: a verifier would take it that believes the header.
    let hs256 = || {
        let text = unsigned("HS256", &claims(PROJECT));
        let secret = PKey::hmac(rsa.public_pem().as_bytes()).unwrap();
        let mut signer = Signer::new(MessageDigest::sha256(), &secret).unwrap();
        format!("{text}.{}", base64url(&signer.sign_oneshot_to_vec(text.as_bytes()).unwrap()))
    };
    type Token<'a> = Box<dyn Fn() -> String + 'a>;
    let cases: Vec<(_, Token<'_>, _)> = vec![
        (&name, Box::new(|| key.token_for(-3605, 1800)), "the token expired 18"),
        (&name, Box::new(|| key.token_for(909, 1800)), "iat in the future by 90"),
        (&name, Box::new(|| key.token_for(0, 25 * 3600)), "exp is 90000 s after iat"),
        (&name, Box::new(|| key.signed(&claims("other"))), "aud is 'other', but must be the project, 'my-project'"),
        (&name, Box::new(|| other.token()), "the token's signature was not made by the key of device sensor"),
        (&name, Box::new(|| rsa.token()), "the token is signed with RS256, but the device's keys are ES256_PEM"),
        (&name, Box::new(|| format!("{}.", unsigned("none", &claims(PROJECT)))), "algorithm 'none' is not accepted"),
        (&by_rsa, Box::new(hs256), "algorithm 'HS256' is not accepted"),
        (&name, Box::new(|| "not a token".into()), "it does not have three parts"),
        (&name, Box::new(|| key.signed("[]")), "its claims are not a JSON object"),
        (&name, Box::new(|| key.signed(r#"{"aud":"my-project"}"#)), "claim 'iat' is missing"),
    ];
    for (name, token, reason) in cases {
        let (id, token) = (client_id(name.id.as_str()), token());
        let _ = world.connect(&id, &token).fails_with("authori");
        world.wait_for_log(&format!("keyrivet: refused {id}: "));
        world.wait_for_log(reason);
        world.wait_for_refusal(name, reason);
        assert!(!world.log().contains(&token), "the token is in the log");
    }
    let _ = world.connect(&client_id("sensor"), &key.token()).ok();
}

#[test]
fn strangers_blocked_devices_malformed_names_and_expired_credentials_are_refused_with_their_reason() {
    let device = Device::new();
    let world = World::new(&device);
    let _ = world.registry("h", &[]);
    let key = Key::es256();
    let other = world.add_to("h", "sensor", &[&Key::es256().public_pem()], None);
    let (sensor, blocked) = (world.add("sensor", &key), world.add("blocked", &key));
    let block = DeviceChange { blocked: Some(true), ..DeviceChange::default() };
    let _ = world.fleet.store().update_device(&blocked, &block).unwrap();
    let past = Timestamp::now().plus_seconds(-60);
    let expired = world.add_to("g", "expired", &[], None);
    let credential = Some(Credential::parse(&key.public_pem(), None, Some(past)).unwrap());
    let change = DeviceChange { add_credential: credential, ..DeviceChange::default() };
    let _ = world.fleet.store().update_device(&expired, &change).unwrap();
    for (id, reason) in [
        (other.to_string(), "the token's signature was not made by the key of device sensor"),
        (blocked.to_string(), "device blocked is blocked"),
        (expired.to_string(), "the device's credential expired at"),
        (client_id("nobody"), "there is no device projects/my-project/locations/eu/registries/g/devices/nobody"),
        (
            "projects/my-project/registries/g/devices/sensor".into(),
            "is not projects/P/locations/R/registries/G/devices/D",
        ),
        (client_id("a+b"), "it holds '+'"),
        (client_id(&"x".repeat(300)), "is a device id of more than 256 bytes"),
        ("sensor".into(), "'sensor' is not projects/P/locations/R/registries/G/devices/D"),
    ] {
        let _ = world.publish(&id, &key.token(), &["-t", "/devices/sensor/events", "-m", "x"]).fails_with("authori");
        world.wait_for_log(reason);
    }
    world.wait_for_refusal(&other, "signature");
    world.wait_for_refusal(&blocked, "is blocked");
    world.wait_for_refusal(&expired, "expired at");
    // Without a password there is nothing to be judged.
    let port = world.port();
    let bare = ["mosquitto_pub", "-h", "127.0.0.1", "-p", &port, "-i", &sensor.to_string(), "-t", "t", "-m", "x"];
    let _ = device.run(&bare).fails_with("authori");
    world.wait_for_log("no JWT as password and no client certificate");
    assert!(
        world.refusals(&sensor).iter().any(|reason| reason.contains("no JWT")) || {
            world.wait_for_refusal(&sensor, "no JWT");
            true
        }
    );
}

#[test]
fn a_client_certificate_of_the_registrys_ca_stands_for_a_token() {
    let device = Device::new();
    let (ca_key, stranger_key, key) = (Key::es256(), Key::es256(), Key::es256());
    let (ca, stranger) = (ca_key.certificate("iot-ca", &[], None), stranger_key.certificate("stranger", &[], None));
    let server = Key::es256();
    // The broker trusts both CAs; the registry only one.
    device.write("cas.crt", pem(&ca) + &pem(&stranger));
    device.write("server.crt", pem(&server.certificate("localhost", &["localhost"], Some((&ca, &ca_key)))));
    device.write("server.key", server.private_pem());
    let port = free_port().to_string();
    let lines = format!(
        "listener {port} 127.0.0.1\ncafile cas.crt\ncertfile server.crt\nkeyfile server.key\nrequire_certificate true\n"
    );
    let world = World::with(&device, &lines);
    let registry = world.registry("with-ca", &[pem(&ca)]);
    let sensor = registry.device("sensor").unwrap();
    let certificate = key.certificate("sensor", &[], Some((&ca, &ca_key)));
    let _ = world.add_to("with-ca", "sensor", &[&pem(&certificate)], None);
    let listener = world.listen(&["registries/with-ca/devices/#"]);
    device.write("device.key", key.private_pem());
    let publish = |certificate: &openssl::x509::X509, id: &str| {
        device.write("device.crt", pem(certificate));
        let topic = format!("/devices/{}/events", id.rsplit('/').next().unwrap());
        let tls =
            ["-h", "localhost", "-p", &port, "--cafile", "cas.crt", "--cert", "device.crt", "--key", "device.key"];
        let rest = ["-i", id, "-q", "1", "-t", &topic, "-m", "by certificate"];
        device.run(&[&["mosquitto_pub"], &tls[..], &rest].concat())
    };
    let id = sensor.to_string();
    let _ = publish(&certificate, &id).ok();
    listener.wait_for("registries/with-ca/devices/sensor/events by certificate");
    let by_san = key.certificate("whatever", &["sensor"], Some((&ca, &ca_key)));
    let _ = publish(&by_san, &id).ok();
    for (certificate, id, reason) in [
        (
            key.certificate("camera", &[], Some((&ca, &ca_key))),
            id.clone(),
            "the certificate is for 'camera', not for device sensor",
        ),
        (
            key.certificate("sensor", &[], Some((&stranger, &stranger_key))),
            id.clone(),
            "certificate not signed by a CA of this registry",
        ),
        (certificate.clone(), client_id("sensor"), "there is no device"),
    ] {
        let _ = publish(&certificate, &id).fails_with("authori");
        world.wait_for_log(reason);
    }
    world.wait_for_refusal(&sensor, "not signed by a CA");
}

#[test]
fn a_connection_ends_when_its_token_does_and_within_a_second_when_the_device_is_blocked_or_deleted() {
    let device = Device::new();
    let world = World::new(&device);
    let key = Key::es256();
    let (short, blocked, deleted) = (world.add("short", &key), world.add("blocked", &key), world.add("deleted", &key));
    let subscribe = |name: &str, token: &str| {
        let topic = format!("/devices/{name}/config");
        let who = ["-V", "mqttv5", "-i", &client_id(name), "-u", "unused", "-P", token];
        world.subscribe(name, &who, &[&topic])
    };
    let begun = now();
    let first = subscribe("short", &key.token_for(0, 3));
    let (second, third) = (subscribe("blocked", &key.token()), subscribe("deleted", &key.token()));
    first.wait_for("DISCONNECT (152)");
    assert!(now() >= begun + 3, "it was ended too early");
    world.wait_for_log(&format!("disconnects {short}: the token expired 0 s ago"));
    world.wait_for_refusal(&short, "disconnect: the token expired");
    let block = DeviceChange { blocked: Some(true), ..DeviceChange::default() };
    let _ = world.fleet.store().update_device(&blocked, &block).unwrap();
    second.wait_for("DISCONNECT");
    world.wait_for_log(&format!("disconnects {blocked}: device blocked is blocked"));
    world.fleet.store().delete_device(&deleted).unwrap();
    third.wait_for("DISCONNECT");
    world.wait_for_log(&format!("disconnects {deleted}: there is no device"));
}

#[test]
fn a_device_has_one_connection_under_whichever_of_its_names() {
    let device = Device::new();
    let world = World::new(&device);
    let key = Key::es256();
    let name = world.add("sensor", &key);
    let number = world.fleet.store().device(&name).unwrap().unwrap().number.to_string();
    let online = |is: bool| {
        let activity = |number| world.fleet.store().activity(number).unwrap();
        let number = number.parse().unwrap();
        wait_until("the registry to know", || activity(number).is_online() == is, || format!("{:?}", activity(number)));
    };
    let mut first = Mqtt::connect(&world, &client_id("sensor"), &key);
    online(true);
    let mut second = Mqtt::connect(&world, &client_id("sensor"), &key);
    first.wait_for_end();
    std::thread::sleep(Duration::from_millis(600));
    online(true);
    // By its number it is the same device, though the broker sees another client.
    let third = Mqtt::connect(&world, &client_id(&number), &key);
    second.wait_for_end();
    world.wait_for_log("the device has connected anew");
    std::thread::sleep(Duration::from_millis(600));
    online(true);
    drop(third);
    online(false);
}

#[test]
fn clients_that_are_no_devices_are_left_to_the_brokers_own_files() {
    let device = Device::new();
    let world = World::new(&device);
    let port = world.port();
    let publish = |topic: &str| {
        let words = ["mosquitto_pub", "-V", "mqttv5", "-d", "-h", "127.0.0.1", "-p", &port, "-i", "backend", "-q", "1"];
        device.run(&[&words[..], &["-t", topic, "-m", "x"]].concat())
    };
    let _ = publish("anything/else").ok().says("RC:16");
    // A device's topics are not for others, whatever the broker's own file says.
    let _ = publish("/devices/sensor/config").says("RC:135");
}

#[test]
fn what_no_honest_client_sends_is_refused_and_the_broker_goes_on() {
    let device = Device::new();
    let world = World::new(&device);
    let key = Key::es256();
    let _ = world.add("sensor", &key);
    let id = client_id("sensor");
    let long = format!("eyJ{}.e30.AA", "A".repeat(60_000));
    let deep = format!("{}.{}.AA", base64url(&b"[".repeat(20_000)), base64url(&b"[".repeat(20_000)));
    for password in [long.as_bytes(), deep.as_bytes(), b"\xff\xfe.\xff.\xff", b"..", b".", b"eyJ..", &[b'.'; 65_535]] {
        assert_ne!(raw_connect(&world, &id, password), Some(0));
        assert_ne!(raw_connect(&world, "projects/", password), Some(0));
    }
    assert_eq!(raw_connect(&world, &id, key.token().as_bytes()), Some(0));
    let _ = world.connect(&id, &key.token()).ok();
}

#[test]
fn a_broker_that_cannot_tick_lets_nobody_in_and_says_what_to_change() {
    let device = Device::new();
    let world = World::with(&device, "");
    world.stop();
    world.per_listener();
    world.start();
    let key = Key::es256();
    let _ = world.add("sensor", &key);
    std::thread::sleep(Duration::from_millis(3100));
    let output = world.connect(&client_id("sensor"), &key.token());
    // Later versions tick there too.
    if output.succeeded() {
        assert!(!world.log().contains("mosquitto version 2.0.11 starting"), "{}", world.log());
    } else {
        world.wait_for_log("per_listener_settings true: nobody can be let in, set it to false");
    }
}

/// CONNECT of MQTT 3.1.1 with any bytes as password: the code of CONNACK, `None` if there is none.
fn raw_connect(world: &World<'_>, id: &str, password: &[u8]) -> Option<u8> {
    use std::io::{Read as _, Write as _};
    let mut body = b"\x00\x04MQTT\x04\xc2\x00\x00".to_vec();
    for field in [id.as_bytes(), b"unused", password] {
        body.extend(u16::try_from(field.len()).unwrap().to_be_bytes());
        body.extend(field);
    }
    let length = body.len();
    // The remaining length in three bytes (section 2.2.3).
    let mut packet = vec![0x10, (length & 0x7f) as u8 | 0x80, (length >> 7 & 0x7f) as u8 | 0x80, (length >> 14) as u8];
    packet.extend(body);
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", world.port_number())).unwrap();
    stream.write_all(&packet).unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).ok().map(|()| answer[3])
}
