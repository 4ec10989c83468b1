//! The hooks in the exact words of each broker: what it sends, and what it must be answered.

mod world;

use conformance_tests::free_port;
use keyrivet_registry::{AuthMethod, DeviceName, Timestamp};
use serde_json::json;
use world::{RegistryServer, World};

on_both_databases!(
    emqx_is_answered_allow_deny_or_ignore,
    vernemq_is_answered_ok_or_an_error,
    go_auth_is_answered_in_json,
    rabbitmq_is_answered_allow_or_deny,
    one_registrys_server_refuses_the_devices_of_others,
    the_end_of_a_token_outlives_the_server,
    a_registry_without_mqtt_is_refused_at_each_message,
);

const JSON: &str = "accept: application/json";

fn emqx_is_answered_allow_deny_or_ignore(world: &World) {
    let (gateway, device) = fleet(world);
    let server = RegistryServer::start(world, &[]);
    let authn = |id: &str, password: &str| {
        server.ask("/hooks/emqx/authn", JSON, &json!({ "clientid": id, "username": "unused", "password": password }))
    };
    let id = device.to_string();
    let answer = authn(&id, &world.token("dev", "ES256", 0, 600));
    assert_eq!((&answer["result"], &answer["expire_at"]), (&json!("allow"), &json!(world.now.seconds() + 600)));
    assert_eq!(answer["acl"], json!(null), "with rules it would not ask again");
    let denied = authn(&id, &world.token("dev", "ES256", -700, 600));
    assert_eq!(denied["result"], "deny");
    assert!(denied["reason"].as_str().is_some_and(|text| text.contains("the token expired")), "{denied}");
    assert_eq!(authn(&id, "")["result"], "deny");
    assert_eq!(authn("dashboard", "secret")["result"], "ignore", "no device: somebody else's to judge");
    assert_eq!(authn(&gateway.to_string(), &world.token("gw", "ES256", 0, 600))["result"], "allow");

    let authz = |id: &str, action: &str, topic: &str, qos: &str| {
        let body = json!({ "clientid": id, "username": "unused", "action": action, "topic": topic, "qos": qos });
        server.ask("/hooks/emqx/authz", JSON, &body)["result"].as_str().expect("a result").to_owned()
    };
    assert_eq!(authz(&id, "publish", "/devices/device2/events/x", "1"), "allow");
    assert_eq!(authz(&id, "subscribe", "/devices/device2/commands/#", "1"), "allow");
    assert_eq!(authz(&id, "publish", "/devices/device2/events", "2"), "deny");
    assert_eq!(authz(&id, "publish", "/devices/mygateway/events", "1"), "deny");
    assert_eq!(authz(&id, "subscribe", "#", "0"), "deny");
    assert_eq!(authz("dashboard", "subscribe", "#", "0"), "ignore");

    // Attaching with a token needs the message, which a rule sends.
    let gateway = gateway.to_string();
    assert_eq!(authz(&gateway, "publish", "/devices/device2/events", "1"), "deny");
    let payload = format!(r#"{{"authorization":"{}"}}"#, world.token("dev", "ES256", 0, 600));
    // Whether it may come is asked before, and nothing done yet: the gateway needs the device's token.
    assert_eq!(authz(&gateway, "publish", "/devices/device2/attach", "1"), "allow");
    assert_eq!(authz(&id, "publish", "/devices/mygateway/attach", "1"), "deny");
    // One that needs none attaches without the rule.
    let plain = world.device(&device.registry, "plain", &["gw.pub"], Some(AuthMethod::AssociationOnly));
    let other = world.device(&device.registry, "other", &[], None);
    world.fleet.store().bind(&plain, &other).expect("bound");
    let plain = plain.to_string();
    assert_eq!(authn(&plain, &world.token("gw", "ES256", 0, 600))["result"], "allow");
    for (what, answer) in [("attach", "allow"), ("events", "allow"), ("detach", "allow"), ("events", "deny")] {
        assert_eq!(authz(&plain, "publish", &format!("/devices/other/{what}"), "1"), answer, "{what}");
    }
    let message = |topic: &str, payload: &str| {
        let body = json!({ "clientid": gateway, "topic": topic, "payload": base64(payload), "qos": 1 });
        server.ask("/hooks/emqx/message", JSON, &body)
    };
    assert!(
        message("/devices/device2/attach", "{}")["reason"].as_str().expect("a reason").contains("must show a token")
    );
    assert_eq!(message("/devices/device2/attach", &payload)["result"], "allow");
    assert_eq!(authz(&gateway, "publish", "/devices/device2/events", "1"), "allow");
    assert_eq!(message("/devices/device2/state", "on")["result"], "allow");
    assert_eq!(world.fleet.store().states(&device).expect("states")[0].data, b"on");
    // Both hooks are told of that.
    assert_eq!(authz(&gateway, "publish", "/devices/device2/detach", "1"), "allow");
    assert_eq!(message("/devices/device2/detach", "")["result"], "allow");
    assert_eq!(authz(&gateway, "publish", "/devices/device2/events", "1"), "deny");
    let _ = server.command(&["device", "update", "device2", "--block"]).ok();
    server.wait_for_a_tick();
    assert_eq!(authz(&id, "publish", "/devices/device2/events/x", "1"), "deny");
}

fn vernemq_is_answered_ok_or_an_error(world: &World) {
    let (gateway, device) = fleet(world);
    let server = RegistryServer::start(world, &[]);
    let hook = |name: &str, body| server.ask("/hooks/vernemq", &format!("vernemq-hook: {name}"), &body);
    let (ok, no, next) =
        (json!({ "result": "ok" }), json!({ "result": { "error": "not_allowed" } }), json!({ "result": "next" }));
    let register = |id: &DeviceName, password: &str| {
        json!({ "peer_addr": "127.0.0.1", "peer_port": 8888, "username": "unused", "password": password, "mountpoint": "",
            "client_id": id.to_string(), "clean_session": false })
    };
    let good = world.token("dev", "ES256", 0, 600);
    assert_eq!(hook("auth_on_register", register(&device, &good)), ok);
    assert_eq!(hook("auth_on_register", register(&device, "secret")), no);
    let five = hook("auth_on_register_m5", register(&device, &world.token("gw", "ES256", 0, 600)));
    assert_eq!(five["result"]["error"]["reason_code"], "bad_username_or_password");
    assert!(five["result"]["error"]["reason_string"].as_str().is_some_and(|text| text.contains("signature")), "{five}");
    assert_eq!(hook("auth_on_register", json!({ "client_id": "dashboard", "username": "me", "password": "x" })), next);
    let publish = |id: &DeviceName, topic: &str, payload: &str, qos: u8| {
        json!({ "username": "unused", "client_id": id.to_string(), "mountpoint": "", "qos": qos, "topic": topic,
            "payload": base64(payload), "retain": false })
    };
    assert_eq!(hook("auth_on_publish", publish(&device, "/devices/device2/state", "on", 1)), ok);
    assert_eq!(world.fleet.store().states(&device).expect("states")[0].data, b"on");
    assert_eq!(hook("auth_on_publish", publish(&device, "/devices/device2/events", "x", 2)), no);
    assert_eq!(hook("auth_on_publish", publish(&device, "/devices/device2/state", &"x".repeat(65537), 1)), no);
    assert_eq!(hook("auth_on_publish", publish(&gateway, "/devices/device2/events", "x", 1)), no);
    assert_eq!(hook("auth_on_register", register(&gateway, &world.token("gw", "ES256", 0, 600))), ok);
    let attach = format!(r#"{{"authorization":"{good}"}}"#);
    assert_eq!(hook("auth_on_publish", publish(&gateway, "/devices/device2/attach", "{}", 1)), no);
    assert_eq!(hook("auth_on_publish", publish(&gateway, "/devices/device2/attach", &attach, 1)), ok);
    assert_eq!(hook("auth_on_publish", publish(&gateway, "/devices/device2/events", "x", 1)), ok);
    let subscribe = |topics: &[&str]| {
        let topics: Vec<_> = topics.iter().map(|topic| json!({ "topic": topic, "qos": 1 })).collect();
        json!({ "client_id": device.to_string(), "mountpoint": "", "username": "unused", "topics": topics })
    };
    assert_eq!(hook("auth_on_subscribe", subscribe(&["/devices/device2/config", "/devices/device2/commands/#"])), ok);
    assert_eq!(hook("auth_on_subscribe", subscribe(&["/devices/device2/config", "#"])), no, "one refuses all");
}

fn go_auth_is_answered_in_json(world: &World) {
    let (_, device) = fleet(world);
    let server = RegistryServer::start(world, &[]);
    let id = device.to_string();
    let token = world.token("dev", "ES256", 0, 600);
    let user = json!({ "username": "unused", "password": token, "clientid": id });
    assert_eq!(server.ask("/hooks/go-auth/getuser", JSON, &user), json!({ "ok": true, "error": "" }));
    let wrong = json!({ "username": "unused", "password": "secret", "clientid": id });
    let answer = server.ask("/hooks/go-auth/getuser", JSON, &wrong);
    assert!(
        answer["ok"] == false && answer["error"].as_str().is_some_and(|text| text.contains("is not a JWT")),
        "{answer}"
    );
    assert_eq!(server.ask("/hooks/go-auth/superuser", JSON, &json!({ "username": "unused" }))["ok"], false);
    let acl = |topic: &str, acc: u8| {
        let body = json!({ "username": "unused", "clientid": id, "topic": topic, "acc": acc });
        server.ask("/hooks/go-auth/aclcheck", JSON, &body)["ok"] == true
    };
    assert!(
        acl("/devices/device2/events", 2) && acl("/devices/device2/config", 4) && acl("/devices/device2/commands/x", 1)
    );
    assert!(!acl("/devices/other/events", 2) && !acl("#", 4) && !acl("/devices/device2/state", 1) && !acl("x", 9));
    let form = [("username", "unused"), ("password", token.as_str()), ("clientid", id.as_str())];
    assert_eq!(server.form("/hooks/go-auth/getuser", &form), r#"{"error":"","ok":true}"#);
}

fn rabbitmq_is_answered_allow_or_deny(world: &World) {
    let (_, device) = fleet(world);
    let server = RegistryServer::start(world, &[]);
    let id = device.to_string();
    let ask = |path: &str, fields: &[(&str, &str)]| server.form(&format!("/hooks/rabbitmq/{path}"), fields);
    let user = |password: &str, id: &str| {
        ask("user", &[("username", "unused"), ("password", password), ("vhost", "/"), ("client_id", id)])
    };
    assert_eq!(user(&world.token("dev", "ES256", 0, 600), &id), "allow");
    assert_eq!(user(&world.token("gw", "ES256", 0, 600), &id), "deny");
    assert_eq!(user("guest", "dashboard"), "deny", "RabbitMQ asks its next backend then");
    // Some clients send a slash before it.
    let slash = format!("/{id}");
    assert_eq!(user(&world.token("dev", "ES256", 0, 600), &slash), "allow");
    let queue = [("resource", "queue"), ("name", &format!("mqtt-subscription-{slash}qos1")), ("permission", "write")];
    assert_eq!(ask("resource", &queue), "allow");
    let events = [
        ("resource", "topic"),
        ("permission", "write"),
        ("routing_key", ".devices.device2.events"),
        ("client_id", &slash),
    ];
    assert_eq!(ask("topic", &events), "allow");
    // No hook would tell that it is gone.
    server.wait_for_a_tick();
    let described = server.command(&["--format", "json", "device", "describe", "device2"]).ok().stdout();
    let described: serde_json::Value = serde_json::from_str(&described).expect("JSON");
    assert!(described["online"] == false && described["lastHeartbeatTime"].is_string(), "{described}");
    let topic = |permission: &str, key: &str| {
        let fields = [
            ("username", "unused"),
            ("vhost", "/"),
            ("resource", "topic"),
            ("name", "amq.topic"),
            ("permission", permission),
            ("routing_key", key),
            ("variable_map.client_id", id.as_str()),
        ];
        ask("topic", &fields)
    };
    assert_eq!(topic("write", ".devices.device2.events.a"), "allow");
    assert_eq!(topic("read", ".devices.device2.config"), "allow");
    assert_eq!(topic("read", ".devices.device2.commands.#"), "allow");
    assert_eq!(topic("write", ".devices.other.events"), "deny");
    assert_eq!(topic("write", ".devices.device2.config"), "deny");
    assert_eq!(topic("read", "#"), "deny");
    // A token that ends while its client is connected: RabbitMQ keeps the connection, but it can do nothing any more.
    assert_eq!(
        user(
            &world.token(
                "dev",
                "ES256",
                -600,
                603 + keyrivet_registry::Timestamp::now().seconds() - world.now.seconds()
            ),
            &id
        ),
        "allow"
    );
    assert_eq!(topic("write", ".devices.device2.events"), "allow");
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(topic("write", ".devices.device2.events"), "deny");
}

fn one_registrys_server_refuses_the_devices_of_others(world: &World) {
    let (_, own) = fleet(world);
    let other = world.device(&world.registry("other", &[]), "device2", &["dev.pub"], None);
    let token = world.token("dev", "ES256", 0, 600);
    // A broker that is not there makes no difference to hooks.
    let broker = format!("mqtt://127.0.0.1:{}", free_port());
    for (options, http) in [(&["--link", "--broker", &broker][..], 200), (&["--only-registry"], 403)] {
        let server = RegistryServer::start(world, options);
        let authn = |id: &DeviceName| {
            let body = json!({ "clientid": id.to_string(), "username": "unused", "password": token });
            server.ask("/hooks/emqx/authn", JSON, &body)
        };
        let state = |id: &DeviceName| {
            let body =
                json!({ "clientid": id.to_string(), "topic": "/devices/device2/state", "payload": base64("on") });
            server.ask("/hooks/emqx/message", JSON, &body)["result"].clone()
        };
        assert_eq!((&authn(&own)["result"], state(&own)), (&json!("allow"), json!("allow")));
        let answer = authn(&other);
        let reason = answer["reason"].as_str().expect("a reason");
        let served = format!("{other} is not of {}, the one registry that this server takes devices of", own.registry);
        assert!(answer["result"] == "deny" && reason.starts_with(&served), "{answer}");
        assert_eq!(state(&other), "deny", "its topics are those of the other's namesake");
        assert!(world.fleet.store().states(&other).expect("states").is_empty());
        let ask = |path: &str, fields: &[(&str, &str)]| server.form(&format!("/hooks/rabbitmq/{path}"), fields);
        for (id, answer) in [(own.to_string(), "allow"), (other.to_string(), "deny")] {
            let queue = format!("mqtt-subscription-{id}qos1");
            assert_eq!(ask("vhost", &[("vhost", "/"), ("client_id", &id)]), answer);
            assert_eq!(ask("resource", &[("resource", "queue"), ("name", &queue), ("permission", "write")]), answer);
        }
        let event = json!({ "binaryData": "" });
        assert_eq!(server.post(&token, &format!("{own}:publishEvent"), &event).0, 200);
        assert_eq!(server.post(&token, &format!("{other}:publishEvent"), &event).0, http);
        server.wait_for_a_tick();
        let _ = server.command(&["--registry", "other", "audit", "--refused"]).ok().says("is not of");
    }
}

fn the_end_of_a_token_outlives_the_server(world: &World) {
    let (_, device) = fleet(world);
    let stranger = world.device(&device.registry, "stranger", &[], None).to_string();
    let id = device.to_string();
    let user = |server: &RegistryServer<'_>, end: i64| {
        let life = end - world.now.seconds() + 600;
        let token = world.token("dev", "ES256", -600, life);
        server.form("/hooks/rabbitmq/user", &[("username", "unused"), ("password", &token), ("client_id", &id)])
    };
    let publish = |server: &RegistryServer<'_>, id: &str, device: &str| {
        let key = format!(".devices.{device}.events");
        let fields = [("resource", "topic"), ("permission", "write"), ("routing_key", &key), ("client_id", id)];
        server.form("/hooks/rabbitmq/topic", &fields)
    };
    let first = RegistryServer::start(world, &[]);
    let end = Timestamp::now().seconds() + 6;
    assert_eq!(user(&first, end), "allow");
    assert_eq!(publish(&first, &id, "device2"), "allow");
    assert_eq!(publish(&first, &stranger, "stranger"), "deny");
    assert!(first.log().contains("nobody has seen device stranger connect: it must connect again"), "{}", first.log());
    drop(first);
    let (second, third) = (RegistryServer::start(world, &[]), RegistryServer::start(world, &[]));
    assert_eq!(publish(&second, &id, "device2"), "allow", "a restart is nothing to a device");
    while Timestamp::now().seconds() <= end {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(publish(&second, &id, "device2"), "deny");
    // It connects again at another server.
    assert_eq!(user(&third, end + 600), "allow");
    assert_eq!(publish(&second, &id, "device2"), "allow");
    // One that is made anew is another device.
    world.fleet.store().delete_device(&device).expect("deleted");
    let _ = world.device(&device.registry, "device2", &["dev.pub"], None);
    second.wait_for_a_tick();
    assert_eq!((publish(&second, &id, "device2"), publish(&third, &id, "device2")), ("deny".into(), "deny".into()));
    // A store that takes nothing keeps nobody out where it has connected.
    world.sql("DROP TABLE sessions");
    assert_eq!(user(&third, end + 600), "allow");
    assert_eq!(publish(&third, &id, "device2"), "allow");
}

fn a_registry_without_mqtt_is_refused_at_each_message(world: &World) {
    let (_, device) = fleet(world);
    let server = RegistryServer::start(world, &[]);
    let id = device.to_string();
    let body = json!({ "clientid": id, "password": world.token("dev", "ES256", 0, 600) });
    assert_eq!(server.ask("/hooks/emqx/authn", JSON, &body)["result"], "allow");
    let publish = || {
        let body = json!({ "clientid": id, "action": "publish", "topic": "/devices/device2/events", "qos": 1 });
        server.ask("/hooks/emqx/authz", JSON, &body)
    };
    assert_eq!(publish(), json!({ "result": "allow" }));
    let _ = server.command(&["registry", "update", "g", "--mqtt", "false"]).ok();
    server.wait_for_a_tick();
    assert_eq!(publish(), json!({ "result": "deny", "reason": "this registry has MQTT switched off" }));
}

/// A gateway `mygateway` with a device `device2` bound to it, which must show its own token too.
fn fleet(world: &World) -> (DeviceName, DeviceName) {
    let registry = world.registry("g", &[]);
    for name in ["gw", "dev"] {
        world.key(name, "ES256");
    }
    let method = AuthMethod::AssociationAndDeviceAuthToken;
    let gateway = world.device(&registry, "mygateway", &["gw.pub"], Some(method));
    let device = world.device(&registry, "device2", &["dev.pub"], None);
    world.fleet.store().bind(&gateway, &device).expect("bound");
    (gateway, device)
}

fn base64(text: &str) -> String {
    openssl::base64::encode_block(text.as_bytes())
}
