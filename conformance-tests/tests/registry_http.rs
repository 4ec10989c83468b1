//! The HTTP bridge, asked by curl as the seed asks it, and the server's commands.

mod world;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use conformance_tests::{Output, Run as _, Server, free_port};
use keyrivet_registry::{AuthMethod, DeviceName};
use serde_json::{Value, json};
use world::{RegistryServer, World};

on_both_databases!(
    the_bridge_takes_events_and_states_and_gives_configurations,
    both_calls_of_the_seed_succeed_and_its_failed_precondition_says_what_to_do,
    every_refusal_has_googles_shape_and_its_own_reason,
    the_commands_make_what_the_server_serves,
);

fn the_bridge_takes_events_and_states_and_gives_configurations(world: &World) {
    let (_, device) = fleet(world);
    let server = RegistryServer::start(world, &[]);
    let token = world.token("dev", "ES256", 0, 600);
    let post = |verb: &str, body: &Value| server.post(&token, &format!("{device}:{verb}"), body);
    assert_eq!(post("publishEvent", &json!({ "binaryData": "Zm9v", "subFolder": "a/b" })), (200, json!({})));
    assert_eq!(post("publishEvent", &json!({ "binary_data": "_-8" })), (200, json!({})), "the other base64 too");
    assert_eq!(post("setState", &json!({ "state": { "binaryData": "b24=" } })), (200, json!({})));
    let events = world.fleet.store().take_events(10).expect("events");
    let seen: Vec<_> = events.iter().map(|event| (event.subfolder.as_str(), event.data.as_slice())).collect();
    assert_eq!(seen, [("a/b", &b"foo"[..]), ("", &[0xff, 0xef])]);
    assert_eq!(world.fleet.store().states(&device).expect("states")[0].data, b"on");

    world.fleet.store().set_config(&device, b"fast", None, world.now).expect("a configuration");
    let get = |query: &str| server.get(&token, &format!("{device}/config{query}"));
    assert_eq!(get(""), (200, json!({ "version": "2", "binaryData": "ZmFzdA==" })));
    assert_eq!(get("?localVersion=1"), (200, json!({ "version": "2", "binaryData": "ZmFzdA==" })));
    assert_eq!(get("?local_version=2"), (200, json!({ "version": "2" })), "only what is newer is sent");
    let (code, error) = get("?localVersion=3");
    assert_eq!((code, &error["error"]["status"]), (400, &json!("OUT_OF_RANGE")));
    assert!(world.fleet.store().configs(&device, 1).expect("configs")[0].acknowledged.is_some());

    let health = server.plain(&server.hook("/health"));
    assert!(health.contains(r#""status":"ok""#), "{health}");
    let metrics = server.plain(&server.hook("/metrics"));
    assert!(
        metrics.contains(r#"keyrivet_decisions_total{action="publishEvent",reason="ok",via="http"} 2"#),
        "{metrics}"
    );
    let openapi: Value = serde_json::from_str(&server.plain(&server.hook("/openapi.json"))).expect("JSON");
    assert!(openapi["paths"]["/v1/{device}:publishEvent"]["post"].is_object() && openapi["openapi"] == "3.1.0");
}

fn both_calls_of_the_seed_succeed_and_its_failed_precondition_says_what_to_do(world: &World) {
    let (gateway, device) = fleet(world);
    let server = RegistryServer::start(world, &[]);
    let (own, gateways) = (world.token("dev", "ES256", 0, 600), world.token("gw", "ES256", 0, 600));
    let through = json!({ "gateway_info": { "gateway_id": "mygateway" }, "binary_data": "Zm9v" });
    let delegated = json!({ "gateway_info": { "delegated_device_id": "device2" }, "binary_data": "Zm9v" });
    let (code, answer) = server.post(&gateways, &format!("{gateway}:publishEvent"), &delegated);
    let error = &answer["error"];
    assert_eq!((code, &error["code"], &error["status"]), (400, &json!(400), &json!("FAILED_PRECONDITION")));
    let message = error["message"].as_str().expect("a message");
    assert!(message.starts_with("Precondition check failed: device not bound to gateway: run"), "{message}");
    // It says what to do, so do it.
    let command = message.split('\'').nth(1).expect("a command in quotes");
    let words: Vec<_> = command.split(' ').skip(1).collect();
    let _ = server.command(&words).ok().says("Bound device device2 to gateway mygateway.");
    assert_eq!(server.post(&gateways, &format!("{gateway}:publishEvent"), &delegated), (200, json!({})));
    assert_eq!(server.post(&own, &format!("{device}:publishEvent"), &through), (200, json!({})));
    let events = world.fleet.store().take_events(10).expect("events");
    assert_eq!(events[0].device, device, "the gateway published for the device");
    assert_eq!(events[0].gateway.as_deref(), Some("mygateway"));

    let _ =
        server.command(&["gateway", "update", "mygateway", "--auth-method", "association-and-device-auth-token"]).ok();
    server.wait_for_a_tick();
    let (code, answer) = server.post(&gateways, &format!("{gateway}:publishEvent"), &delegated);
    let message = answer["error"]["message"].as_str().expect("a message");
    assert!(code == 400 && message.contains("must show a token of device device2 itself"), "{message}");
    assert_eq!(server.post(&own, &format!("{device}:publishEvent"), &through), (200, json!({})));
}

fn every_refusal_has_googles_shape_and_its_own_reason(world: &World) {
    let (_, device) = fleet(world);
    let server = RegistryServer::start(world, &[]);
    let good = world.token("dev", "ES256", 0, 600);
    let event = json!({ "binaryData": "Zm9v" });
    let publish = format!("{device}:publishEvent");
    let large = json!({ "binaryData": "A".repeat(350_000) });
    let huge = json!({ "binaryData": "A".repeat(700_000) });
    let expired = world.token("dev", "ES256", -700, 600);
    let future = world.token("dev", "ES256", 900, 600);
    let long = world.token("dev", "ES256", 0, 100_000);
    let wrong = world.token("gw", "ES256", 0, 600);
    let nobody = publish.replace("device2", "nobody");
    for (token, path, body, code, status, reason) in [
        ("", &publish, &event, 401, "UNAUTHENTICATED", "no JWT as password"),
        (&expired, &publish, &event, 401, "UNAUTHENTICATED", "the token expired"),
        (&future, &publish, &event, 401, "UNAUTHENTICATED", "iat in the future by"),
        (&long, &publish, &event, 401, "UNAUTHENTICATED", "exp is 100000 s after iat"),
        (&wrong, &publish, &event, 401, "UNAUTHENTICATED", "signature was not made by the key of device device2"),
        (&good, &nobody, &event, 404, "NOT_FOUND", "there is no device"),
        (&good, &publish, &json!({ "binaryData": "!" }), 400, "INVALID_ARGUMENT", "binaryData is not base64"),
        (&good, &publish, &json!({}), 400, "INVALID_ARGUMENT", "binaryData is missing"),
        (&good, &publish, &json!([]), 400, "INVALID_ARGUMENT", "the request is not a JSON object"),
        (&good, &publish, &large, 400, "INVALID_ARGUMENT", "262500 bytes are too many: an event has 262144 bytes"),
        (&good, &publish, &huge, 400, "INVALID_ARGUMENT", "the request is larger than"),
        (
            &good,
            &publish,
            &json!({ "binaryData": "Zm9v", "subFolder": "#" }),
            403,
            "PERMISSION_DENIED",
            "is no subfolder",
        ),
        (
            &good,
            &publish.replace("publishEvent", "fly"),
            &event,
            404,
            "NOT_FOUND",
            "/devices/device2:fly: POST v1/DEVICE:",
        ),
        (&good, &format!("{device}x/y:setState"), &event, 404, "NOT_FOUND", "POST v1/DEVICE:publishEvent"),
        (&good, &publish.replace("/devices/", "/devices/%0a"), &event, 400, "INVALID_ARGUMENT", "it holds '\\n'"),
    ] {
        let (got, answer) = server.post(token, path, body);
        let error = &answer["error"];
        assert_eq!((got, &error["code"], &error["status"]), (code, &json!(code), &json!(status)), "{answer}");
        assert!(error["message"].as_str().is_some_and(|text| text.contains(reason)), "{reason}: {answer}");
        assert!(error["details"][0]["reason"].is_string(), "{answer}");
    }
    let _ = server.command(&["registry", "update", "g", "--http", "false"]).ok();
    server.wait_for_a_tick();
    let (code, answer) = server.post(&good, &publish, &event);
    assert!(
        code == 400 && answer["error"]["message"].as_str().expect("text").contains("HTTP switched off"),
        "{answer}"
    );
    // The log and the audit trail explain them too, and hold no token.
    server.wait_for_a_tick();
    let audit = server.command(&["audit", "--refused", "--limit", "100"]).ok().says("the token expired").stdout();
    let mut follow = world.server_command();
    let follow = follow.args(["audit", "--limit", "0", "--follow"]).stdout(Stdio::piped()).spawn();
    let follow = &mut follow.expect("the command starts");
    server.wait_for_a_tick();
    assert_eq!(server.post(&future, &publish, &event).0, 400);
    let mut line = String::new();
    let _ = BufReader::new(follow.stdout.take().expect("it has an output")).read_line(&mut line).expect("a line");
    let _ = follow.kill();
    let _ = follow.wait();
    assert!(line.contains("HTTP switched off"), "only what is new: {line}");
    for token in [&good, &expired, &wrong] {
        assert!(!audit.contains(&token[..40]) && !server.log().contains(&token[..40]), "{audit}");
    }
}

fn the_commands_make_what_the_server_serves(world: &World) {
    world.ca("iot-ca");
    world.ca("other-ca");
    for (name, ca) in [("dev", "iot-ca"), ("foreign", "other-ca"), ("gw", "iot-ca")] {
        world.key(name, "RS256");
        world.certify(name, name, ca, "");
    }
    let server = RegistryServer::start(world, &[]);
    let run = |line: &str| server.command(&line.split(' ').collect::<Vec<_>>());
    let _ = run("registry create g --ca iot-ca.crt").ok().says("Created registry projects/my-project");
    let _ = run("registry list").ok().says("MQTT_ENABLED");
    let _ = run("device create device2 --public-key dev.crt,type=rs256").ok().says("Created device");
    let _ = run("gateway create mygateway --auth-method association-and-device-auth-token").ok();
    let _ = run("gateway bind --gateway mygateway --device device2").ok();
    let list = run("device list").ok().says("NON_GATEWAY").says("ASSOCIATION_AND_DEVICE_AUTH_TOKEN").stdout();
    assert_eq!(list.lines().count(), 3, "{list}");
    let listed: Value = serde_json::from_str(&run("--format json device list").ok().stdout()).expect("JSON");
    assert_eq!(listed[0]["id"], "device2");
    assert_eq!(listed[0]["credentials"][0]["publicKey"]["format"], "RSA_X509_PEM");
    assert_eq!(listed[1]["gatewayConfig"]["gatewayAuthMethod"], "ASSOCIATION_AND_DEVICE_AUTH_TOKEN");
    let foreign = run("device create foreign --public-key foreign.crt,type=rs256");
    let _ = foreign.fails_with("certificate not signed by a CA of this registry");
    let _ = run("device create other --public-key dev.crt,type=es256")
        .fails_with("this is RSA_X509_PEM, not ES256_X509_PEM");
    let _ = run("device create other --public-key dev.key").fails_with("this is a private key");
    let _ = run("config set --device device2 --data fast").ok().says("Set version 2");
    let _ = run("config list --device device2").ok().says("fast");
    let _ = run("config set --device device2 --data x --version-to-update 1").fails_with("the newest version is 2");
    let _ = run("command send --device device2 --data x").fails_with("no broker holds a connection of device device2");
    let device = "projects/my-project/locations/us-central1/registries/g/devices/device2";
    let token = world.token("dev", "RS256", 0, 600);
    assert_eq!(server.post(&token, &format!("{device}:publishEvent"), &json!({ "binaryData": "" })).0, 200);
    let _ = run("device update device2 --block").ok();
    server.wait_for_a_tick();
    assert_eq!(server.post(&token, &format!("{device}:publishEvent"), &json!({ "binaryData": "" })).0, 403);
    server.wait_for_a_tick();
    let _ = run("device describe device2").ok().says("blocked: true").says("device device2 is blocked");
    let _ = run("device list").ok().says("blocked");
    let _ = run("device add-key device2 --public-key dev.crt,expires=2020-01-01T00:00:00Z").ok();
    let _ = run("device add-key device2 --public-key dev.crt").ok();
    let _ = run("device add-key device2 --public-key dev.crt").fails_with("3 credentials of a device");
    let _ = run("device remove-key device2 1").ok();
    let _ = run("gateway unbind --gateway mygateway --device device2").ok();
    let _ = run("device delete device2").ok();
    let _ = run("device describe device2").fails_with("there is no device");
}

#[test]
fn devices_reach_the_bridge_by_tls() {
    let world = World::sqlite();
    let (_, device) = fleet(&world);
    world.ca("web-ca");
    world.key("web", "ES256");
    world.certify("web", "web", "web-ca", "subjectAltName=IP:127.0.0.1");
    let server = RegistryServer::start(&world, &["--tls-certificate", "web.crt", "--tls-key", "web.key"]);
    let token = format!("Authorization: Bearer {}", world.token("dev", "ES256", 0, 600));
    let mut curl = Command::new("curl");
    curl.current_dir(world.path("")).args(["-sS", "--cacert", "web-ca.crt", "-H", &token]);
    let answer: Output = curl.arg(format!("https://{}/v1/{device}/config", server.bridge)).run();
    let _ = answer.ok().says(r#""version":"1""#);
}

/// A connection to the bridge, after these words; what is read from it is waited for a minute.
fn connection(server: &RegistryServer<'_>, words: &str) -> TcpStream {
    let mut stream = TcpStream::connect(&server.bridge).expect("the bridge listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time");
    stream.write_all(words.as_bytes()).expect("it reads");
    stream
}

/// What the bridge says until it closes the connection.
fn rest(mut stream: TcpStream) -> String {
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "it is not closed"),
    }
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn who_shows_no_credential_is_answered_before_the_body_is_read() {
    let world = World::sqlite();
    let (_, device) = fleet(&world);
    let server = RegistryServer::start(&world, &[]);
    let head = format!("POST /v1/{device}:publishEvent HTTP/1.1\r\nHost: x\r\nContent-Length: 400000\r\n");
    let wrong = format!("{head}Authorization: Bearer {}\r\n", world.token("gw", "ES256", 0, 600));
    for (head, why) in [(head, "no JWT as password"), (wrong, "signature was not made by the key of device device2")] {
        let start = Instant::now();
        let said = rest(connection(&server, &format!("{head}\r\nsome of it")));
        assert!(said.starts_with("HTTP/1.1 401 ") && said.contains(why), "{said}");
        assert!(start.elapsed() < Duration::from_secs(5), "it waited for the body");
    }
}

#[test]
fn connections_are_limited_in_number_and_time() {
    let world = World::sqlite();
    let (_, device) = fleet(&world);
    let server = RegistryServer::start(&world, &["--connections", "2"]);
    let token = world.token("dev", "ES256", 0, 600);
    let request =
        |verb: &str, more: &str| format!("{verb} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{more}\r\n");
    let silent = connection(&server, "");
    let get = request(&format!("GET /v1/{device}/config"), "");
    let mut idle = connection(&server, &get);
    let _ = idle.read(&mut [0; 4096]).expect("an answer");
    assert_eq!(rest(connection(&server, &get)), "", "there is no third place");
    let metrics = server.plain(&server.hook("/metrics"));
    assert!(metrics.contains("keyrivet_connections_refused_total 1\n"), "{metrics}");
    // One that says nothing, or nothing more, is closed.
    assert_eq!((rest(silent).as_str(), rest(idle).as_str()), ("", ""));
    assert_eq!(server.get(&token, &format!("{device}/config")).0, 200);
    // Who is known has time, but not for ever.
    let publish = request(&format!("POST /v1/{device}:publishEvent"), "Content-Length: 400000\r\n");
    let said = rest(connection(&server, &format!("{publish}some of it")));
    assert!(said.starts_with("HTTP/1.1 408 ") && said.contains("took more than 30 s"), "{said}");
}

#[test]
fn hooks_on_an_open_address_want_a_secret() {
    let world = World::sqlite();
    let _ = fleet(&world);
    let mut open = world.server_command();
    open.args(["serve", "--listen", "127.0.0.1:0", "--hooks", &format!("0.0.0.0:{}", free_port())]);
    let _ = open.run().fails_with("--hook-secret-file");
    std::fs::write(world.path("secret"), "correct horse battery\n").expect("a file");
    let server = RegistryServer::start(&world, &["--hook-secret-file", "secret"]);
    let ask = |secret: &str| server.plain(&format!("{} -d acc=1 {secret}", server.hook("/hooks/go-auth/superuser")));
    assert_eq!(ask(""), "hooks must show the secret\n");
    assert!(ask("-HAuthorization:Bearer\u{a0}wrong").starts_with("hooks must show"));
    let shown =
        server.plain(&format!("{}?secret=correct%20horse%20battery -d x=1", server.hook("/hooks/go-auth/superuser")));
    assert!(
        shown.starts_with(r#"{"error":"no device"#) && server.plain(&server.hook("/health")).contains("ok"),
        "{shown}"
    );
}

#[test]
fn a_store_that_is_away_is_said_and_comes_back() {
    let world = World::postgresql();
    let (_, device) = fleet(&world);
    let server: RegistryServer = RegistryServer::start(&world, &[]);
    let token = world.token("dev", "ES256", 0, 600);
    let ask = || server.get(&token, &format!("{device}/config"));
    assert_eq!(ask().0, 200);
    world.restart_database();
    // The old connection is gone; a new one is made within a request or two.
    let codes: Vec<_> = (0..5).map(|_| ask().0).collect();
    assert_eq!(codes.last(), Some(&200), "{codes:?}");
    assert!(codes.iter().all(|code| [200, 503].contains(code)), "{codes:?}");
    let _: &Server = &server.process;
}

/// A gateway `mygateway` and a device `device2`, not bound.
fn fleet(world: &World) -> (DeviceName, DeviceName) {
    let registry = world.registry("g", &[]);
    for name in ["gw", "dev"] {
        world.key(name, "ES256");
    }
    let gateway = world.device(&registry, "mygateway", &["gw.pub"], Some(AuthMethod::AssociationOnly));
    (gateway, world.device(&registry, "device2", &["dev.pub"], None))
}
