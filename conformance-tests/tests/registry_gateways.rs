//! What a device and a gateway may do once they are in, and the reason given for everything else.

mod world;

use keyrivet_registry::rules::admission::Protocol;
use keyrivet_registry::rules::gateway::error_message;
use keyrivet_registry::rules::session::Action;
use keyrivet_registry::store::{AuditFilter, DeviceChange};
use keyrivet_registry::{AuthMethod, Change, DeviceName, Proof, Refusal, Session};
use world::{World, tick};

on_both_databases!(
    a_device_uses_its_own_topics_and_no_others,
    what_a_client_makes_up_is_shown_short_and_plain,
    a_device_that_is_made_anew_is_another_one,
    a_gateway_attaches_as_its_method_says,
    a_stricter_method_ends_what_it_would_not_allow,
    what_a_gateway_asks_wrongly_is_refused_with_its_reason,
    attachments_survive_the_process_and_end_with_the_binding,
    the_http_bridge_speaks_for_whom_the_rules_allow,
    a_gateway_attaches_a_thousand_devices_and_no_more,
);

const PUBLISH: Action = Action::Publish { qos: 1, size: Some(3) };

fn connect(world: &World, device: &DeviceName, key: &str) -> Session {
    let token = world.token(key, "ES256", 0, 3600);
    let id = device.to_string();
    world.fleet.authenticate(&id, Protocol::Mqtt, Proof::Token(&token), "test", world.now).expect("let in")
}

/// A device with the key `dev`, and a gateway with the key `gw` that needs no token.
fn device_and_gateway(world: &World) -> (DeviceName, DeviceName) {
    let registry = world.registry("g", &[]);
    for key in ["dev", "gw"] {
        world.key(key, "ES256");
    }
    let device = world.device(&registry, "dev", &["dev.pub"], None);
    (device, world.device(&registry, "gateway", &["gw.pub"], Some(AuthMethod::AssociationOnly)))
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, Refusal>, reason: &str) -> Refusal {
    let refusal = outcome.expect_err("should have been refused");
    let said = refusal.to_string();
    assert!(said.contains(reason), "should have said '{reason}': {said}");
    refusal
}

fn a_device_uses_its_own_topics_and_no_others(world: &World) {
    let registry = world.registry("g", &[]);
    world.key("dev", "ES256");
    let device = world.device(&registry, "dev", &["dev.pub"], None);
    let mut session = connect(world, &device, "dev");
    let mut ask = |action, topic| world.fleet.authorise(&mut session, action, topic, "test", world.now).map(drop);
    for topic in ["/devices/dev/events", "/devices/dev/events/alarm/fire", "/devices/dev/state"] {
        ask(PUBLISH, topic).expect(topic);
    }
    for topic in
        ["/devices/dev/config", "/devices/dev/commands/#", "/devices/dev/commands/reboot", "/devices/dev/errors"]
    {
        ask(Action::Subscribe, topic).expect(topic);
    }
    let other = "device dev may not use the topics of device other";
    refused(ask(PUBLISH, "/devices/other/events"), other);
    refused(ask(Action::Subscribe, "/devices/other/config"), other);
    refused(ask(Action::Receive, "/devices/other/commands/x"), other);
    refused(ask(Action::Subscribe, "#"), "has a wildcard");
    refused(ask(PUBLISH, "/devices/dev/config"), "is for the registry to publish on");
    let event = Action::Publish { qos: 0, size: Some(256 * 1024 + 1) };
    refused(ask(event, "/devices/dev/events"), "262145 bytes are too many: an event has 262144 bytes at most");
    let state = Action::Publish { qos: 0, size: Some(64 * 1024 + 1) };
    refused(ask(state, "/devices/dev/state"), "65537 bytes are too many: a state has 65536 bytes at most");
    ask(Action::Publish { qos: 0, size: Some(256 * 1024) }, "/devices/dev/events").expect("the largest event");
    let two = refused(ask(Action::Publish { qos: 2, size: Some(3) }, "/devices/dev/events"), "QoS 2 is not supported");
    assert!(two.closes_connection(&device.id));
    let attach = refused(ask(PUBLISH, "/devices/other/attach"), "device dev is not a gateway");
    assert!(attach.closes_connection(&device.id));

    let late = world.now.plus_seconds(3601);
    let expired = world.fleet.authorise(&mut session, PUBLISH, "/devices/dev/events", "test", late).map(drop);
    assert!(refused(expired, "the token expired 1 s ago").closes_connection(&device.id));
    let _ = tick(&world.fleet, world.now);
    let rows = world
        .fleet
        .store()
        .audit(&registry, &keyrivet_registry::store::AuditFilter { refused: true, limit: 100, ..Default::default() });
    let reasons: Vec<_> = rows.expect("the audit trail").into_iter().map(|row| row.1.code).collect();
    assert_eq!(
        reasons,
        [
            "other-device",
            "other-device",
            "topic",
            "topic",
            "too-large",
            "too-large",
            "qos-2",
            "not-a-gateway",
            "token-expired"
        ]
    );
}

fn what_a_client_makes_up_is_shown_short_and_plain(world: &World) {
    let (device, gateway) = device_and_gateway(world);
    let made_up = format!("\n\u{1b}[31m{}", "x".repeat(60_000));
    for (device, key) in [(&device, "dev"), (&gateway, "gw")] {
        let mut session = connect(world, device, key);
        let topic = format!("/devices/{made_up}/events");
        let _ = refused(world.fleet.authorise(&mut session, PUBLISH, &topic, "test", world.now), "device");
        let _ = world.fleet.attach(&mut session, &made_up, b"", "test", world.now).unwrap_err();
    }
    let _ = tick(&world.fleet, world.now);
    let rows =
        world.fleet.store().audit(&device.registry, &AuditFilter { limit: 100, ..AuditFilter::default() }).unwrap();
    assert!(rows.iter().any(|(_, row)| row.reason.contains("\\n\\u{1b}[31mxxx")), "{rows:?}");
    for (_, row) in &rows {
        let text = format!("{}{}", row.action, row.reason);
        assert!(text.len() < 1000 && !text.chars().any(char::is_control), "{text:?}");
    }
}

fn a_device_that_is_made_anew_is_another_one(world: &World) {
    let registry = world.registry("g", &[]);
    for key in ["old", "new"] {
        world.key(key, "ES256");
    }
    let device = world.device(&registry, "dev", &["old.pub"], None);
    let mut session = connect(world, &device, "old");
    world.fleet.store().delete_device(&device).unwrap();
    let _ = world.device(&registry, "dev", &["new.pub"], None);
    let _ = tick(&world.fleet, world.now);
    let mut ask = |topic| world.fleet.authorise(&mut session, PUBLISH, topic, "test", world.now).map(drop);
    let _ = refused(ask("/devices/dev/events"), "device dev was deleted and made anew since it connected");
    assert!(
        world
            .fleet
            .authorise(&mut connect(world, &device, "new"), PUBLISH, "/devices/dev/events", "test", world.now)
            .is_ok()
    );
}

fn a_stricter_method_ends_what_it_would_not_allow(world: &World) {
    let (device, gateway) = device_and_gateway(world);
    let store = world.fleet.store();
    store.bind(&gateway, &device).unwrap();
    let mut session = connect(world, &gateway, "gw");
    let method = |method| DeviceChange { auth_method: Some(method), ..DeviceChange::default() };
    let publish = |session: &mut Session| {
        let _ = tick(&world.fleet, world.now);
        world.fleet.authorise(session, PUBLISH, "/devices/dev/events", "test", world.now).map(drop)
    };
    world.fleet.attach(&mut session, "dev", b"", "test", world.now).unwrap();
    publish(&mut session).unwrap();
    let _ = store.update_device(&gateway, &method(AuthMethod::DeviceAuthTokenOnly)).unwrap();
    let _ = refused(publish(&mut session), "device dev is not attached to gateway gateway");
    let token = format!(r#"{{"authorization":"{}"}}"#, world.token("dev", "ES256", 0, 600));
    world.fleet.attach(&mut session, "dev", token.as_bytes(), "test", world.now).unwrap();
    // Who has shown the device's token stays.
    let _ = store.update_device(&gateway, &method(AuthMethod::AssociationAndDeviceAuthToken)).unwrap();
    publish(&mut session).unwrap();
}

fn a_gateway_attaches_as_its_method_says(world: &World) {
    let registry = world.registry("g", &[]);
    for name in ["gw", "dev", "stranger"] {
        world.key(name, "ES256");
    }
    let device = world.device(&registry, "dev", &["dev.pub"], None);
    let message = |key: &str| format!(r#"{{"authorization":"{}"}}"#, world.token(key, "ES256", 0, 600)).into_bytes();
    let (good, bad) = (message("dev"), message("stranger"));
    for (method, unbound_without, unbound_with, bound_without) in [
        (AuthMethod::AssociationOnly, "not bound to gateway", "not bound to gateway", ""),
        (AuthMethod::DeviceAuthTokenOnly, "must show a token of device dev", "", "must show a token of device dev"),
        (
            AuthMethod::AssociationAndDeviceAuthToken,
            "not bound to gateway",
            "not bound to gateway",
            "must show a token of device dev",
        ),
    ] {
        let id = format!("gw{}", method as u8);
        let gateway = world.device(&registry, &id, &["gw.pub"], Some(method));
        let attach = |payload: &[u8]| {
            let mut session = connect(world, &gateway, "gw");
            world.fleet.attach(&mut session, "dev", payload, "test", world.now)?;
            world.fleet.authorise(&mut session, PUBLISH, "/devices/dev/events/x", "test", world.now)?;
            world.fleet.authorise(&mut session, Action::Subscribe, "/devices/dev/config", "test", world.now)?;
            world.fleet.detach(&mut session, "dev", "test", world.now)?;
            refused(
                world.fleet.authorise(&mut session, PUBLISH, "/devices/dev/events", "test", world.now),
                "device dev is not attached to gateway",
            );
            Ok(())
        };
        let check = |payload: &[u8], reason: &str| match reason {
            "" => attach(payload).expect("attached"),
            reason => drop(refused(attach(payload), reason)),
        };
        check(b"", unbound_without);
        check(&good, unbound_with);
        world.fleet.store().bind(&gateway, &device).expect("bound");
        let _ = tick(&world.fleet, world.now);
        check(b"{}", bound_without);
        check(&good, "");
        if method.needs_token() {
            check(&bad, "the token of device dev: the token's signature was not made by the key of device dev");
        }
    }
}

fn what_a_gateway_asks_wrongly_is_refused_with_its_reason(world: &World) {
    let registry = world.registry("g", &[]);
    world.key("gw", "ES256");
    let gateway = world.device(&registry, "gateway", &["gw.pub"], Some(AuthMethod::AssociationOnly));
    let device = world.device(&registry, "dev", &[], None);
    world.fleet.store().bind(&gateway, &device).expect("bound");
    let mut session = connect(world, &gateway, "gw");
    let mut attach =
        |id: &str, payload: &str| world.fleet.attach(&mut session, id, payload.as_bytes(), "test", world.now);
    for (payload, why) in [
        ("{", "it is not JSON"),
        ("[]", "it is not a JSON object"),
        ("jwt", "it is not JSON"),
        (r#"{"authorization":1}"#, "authorization is not a string"),
    ] {
        let refusal = refused(attach("dev", payload), why);
        assert_eq!(refusal.gateway_error(), "GATEWAY_ATTACHMENT_ERROR");
    }
    let unknown = refused(attach("nobody", ""), "there is no device nobody in the gateway's registry");
    let json = error_message(&unknown, &registry.device("nobody").unwrap().id, "ATTACH", "/devices/nobody/attach", 7);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["error_type"], "GATEWAY_DEVICE_NOT_FOUND");
    assert_eq!(json["device_id"], "nobody");
    assert_eq!(json["mqtt_message_info"]["topic"], "/devices/nobody/attach");
    assert_eq!(json["mqtt_message_info"]["packet_id"], 7);
    refused(attach("../x", ""), "there is no device ../x");
    let blocked = DeviceChange { blocked: Some(true), ..DeviceChange::default() };
    world.fleet.store().update_device(&device, &blocked).expect("blocked");
    let _ = tick(&world.fleet, world.now);
    // The gateway stays: it has other devices.
    assert!(!refused(attach("dev", ""), "device dev is blocked").closes_connection(&gateway.id));
    refused(world.fleet.detach(&mut session, "dev", "test", world.now), "is not attached to gateway gateway");

    world.key("dev2", "ES256");
    let plain = world.device(&registry, "dev2", &["dev2.pub"], None);
    let mut plain_session = connect(world, &plain, "dev2");
    let attach = world.fleet.attach(&mut plain_session, "dev", b"", "test", world.now);
    assert!(refused(attach, "device dev2 is not a gateway").closes_connection(&plain.id));
    let error = world.fleet.store().bind(&plain, &device).expect_err("no gateway").to_string();
    assert!(error.contains("device dev2 is not a gateway"), "{error}");
}

fn attachments_survive_the_process_and_end_with_the_binding(world: &World) {
    let registry = world.registry("g", &[]);
    world.key("gw", "ES256");
    let gateway = world.device(&registry, "gateway", &["gw.pub"], Some(AuthMethod::AssociationOnly));
    let device = world.device(&registry, "dev", &[], None);
    world.fleet.store().bind(&gateway, &device).expect("bound");
    let mut session = connect(world, &gateway, "gw");
    world.fleet.attach(&mut session, "dev", b"", "test", world.now).expect("attached");

    // Another process on the same store, as after a crash of the broker.
    let again = keyrivet_registry::Fleet::open(&world.url).expect("the store opens");
    let token = world.token("gw", "ES256", 0, 3600);
    let id = gateway.to_string();
    let mut later = again.authenticate(&id, Protocol::Mqtt, Proof::Token(&token), "test", world.now).expect("let in");
    again.authorise(&mut later, PUBLISH, "/devices/dev/events", "test", world.now).expect("still attached");
    world.fleet.store().unbind(&gateway, &device).expect("unbound");
    let changes = tick(&again, world.now);
    assert!(changes.contains(&Change::Device(gateway)), "{changes:?}");
    refused(again.authorise(&mut later, PUBLISH, "/devices/dev/events", "test", world.now), "is not attached");
}

fn the_http_bridge_speaks_for_whom_the_rules_allow(world: &World) {
    let registry = world.registry("g", &[]);
    for name in ["gw", "dev"] {
        world.key(name, "ES256");
    }
    let device = world.device(&registry, "dev", &["dev.pub"], None);
    let own = connect(world, &device, "dev");
    let speaks = |session: &Session, gateway: Option<&str>, delegated: Option<&str>| {
        world.fleet.speaks_for(session, gateway, delegated, "publishEvent", world.now)
    };
    assert_eq!(speaks(&own, None, None), Ok(device.clone()));
    refused(speaks(&own, Some("nobody"), None), "there is no device nobody");
    refused(speaks(&own, Some("dev"), None), "device dev is not a gateway");
    refused(speaks(&own, None, Some("dev")), "device dev is not a gateway");
    refused(speaks(&own, Some("a"), Some("b")), "has both gatewayId and delegatedDeviceId");
    let both = AuthMethod::AssociationAndDeviceAuthToken;
    for (method, through, delegated) in [
        (AuthMethod::AssociationOnly, "", ""),
        (AuthMethod::DeviceAuthTokenOnly, "", "must show a token of device dev"),
        (both, "", "must show a token of device dev"),
    ] {
        let id = format!("gw{}", method as u8);
        let gateway = world.device(&registry, &id, &["gw.pub"], Some(method));
        let mut session = connect(world, &gateway, "gw");
        if method.needs_binding() {
            refused(speaks(&own, Some(&id), None), "run 'keyrivet-server gateway bind --gateway gw");
            refused(speaks(&session, None, Some("dev")), "run 'keyrivet-server gateway bind --gateway gw");
            world.fleet.store().bind(&gateway, &device).expect("bound");
        }
        assert_eq!((speaks(&own, Some(&id), None), through), (Ok(device.clone()), ""));
        match delegated {
            "" => assert_eq!(speaks(&session, None, Some("dev")), Ok(device.clone())),
            reason => drop(refused(speaks(&session, None, Some("dev")), reason)),
        }
        if method == both {
            // A device that the gateway has attached with its token has shown it.
            let message = format!(r#"{{"authorization":"{}"}}"#, world.token("dev", "ES256", 0, 600));
            world.fleet.attach(&mut session, "dev", message.as_bytes(), "test", world.now).expect("attached");
            assert_eq!(speaks(&session, None, Some("dev")), Ok(device.clone()));
        }
    }
}

fn a_gateway_attaches_a_thousand_devices_and_no_more(world: &World) {
    let registry = world.registry("g", &[]);
    world.key("gw", "ES256");
    let gateway = world.device(&registry, "gateway", &["gw.pub"], Some(AuthMethod::AssociationOnly));
    let last = world.device(&registry, "last", &[], None);
    world.fleet.store().bind(&gateway, &last).expect("bound");
    let mut session = connect(world, &gateway, "gw");
    // What 1,000 attach messages would leave behind; the store itself is tried by the others.
    session.attached = (0..1000).map(|number| registry.device(&format!("d{number}")).unwrap().id).collect();
    let attach = world.fleet.attach(&mut session, "last", b"", "test", world.now);
    refused(attach, "the limit is reached: 1000 devices attached to a gateway");
    let _ = session.attached.remove("d0");
    world.fleet.attach(&mut session, "last", b"", "test", world.now).expect("there is room");
}
