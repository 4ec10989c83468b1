//! What the registry keeps, and what it refuses to keep.

mod world;

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use keyrivet_registry::rules::admission::Protocol;
use keyrivet_registry::store::{DELIVERED, DeviceChange, NewDevice, RegistryChange};
use keyrivet_registry::{AuthMethod, Change, Credential, CredentialFormat, Event, Fleet, Proof};
use world::{World, tick};

on_both_databases!(
    a_registry_with_a_ca_takes_only_certificates_that_it_signed,
    keys_that_are_none_are_refused,
    configurations_have_versions_and_ten_are_kept,
    states_and_events_are_kept_in_order,
    a_command_has_one_outcome,
    devices_are_listed_in_pages_and_deleted_with_all_they_had,
    another_process_learns_of_changes_at_its_next_tick,
    after_more_changes_than_are_kept_everything_is_looked_at_and_messages_are_told,
    a_flood_of_refusals_is_bounded_and_counted,
    what_a_client_makes_up_keeps_nothing_from_being_written_or_learnt,
    changes_of_one_device_at_once_are_all_kept,
    a_device_is_attached_to_one_gateway_at_a_time,
);

#[track_caller]
fn fails<T: std::fmt::Debug>(outcome: keyrivet_registry::Result<T>, reason: &str) {
    let said = outcome.expect_err("should have failed").to_string();
    assert!(said.contains(reason), "should have said '{reason}': {said}");
}

fn a_registry_with_a_ca_takes_only_certificates_that_it_signed(world: &World) {
    for ca in ["iot-ca", "other-ca"] {
        world.ca(ca);
    }
    for (name, ca) in [("dev", "iot-ca"), ("foreign", "other-ca")] {
        world.key(name, "RS256");
        world.certify(name, name, ca, "");
    }
    let registry = world.registry("g", &["iot-ca.crt"]);
    let store = world.fleet.store();
    let create = |id: &str, file: &str| {
        let credentials = vec![Credential::parse(&world.read(file), None, None).expect(file)];
        let name = registry.device(id).unwrap();
        let new = NewDevice { name, gateway: None, credentials, blocked: false, metadata: Default::default() };
        store.create_device(&new, world.now)
    };
    create("dev", "dev.crt").expect("signed by the registry's CA");
    fails(
        create("foreign", "foreign.crt"),
        "certificate not signed by a CA of this registry (its issuer is 'CN=other-ca')",
    );
    fails(create("bare", "dev.pub"), "a credential must be a certificate");
    fails(create("dev", "dev.crt"), "device dev exists already");
    fails(create("12345678901234567890", "dev.crt"), "must begin with a letter");
    let add = |file: &str| {
        let add_credential = Some(Credential::parse(&world.read(file), None, None).expect(file));
        store.update_device(&registry.device("dev").unwrap(), &DeviceChange { add_credential, ..Default::default() })
    };
    fails(add("foreign.crt"), "certificate not signed by a CA of this registry");
    let add_cas = |file: &str, count: usize| {
        let change = RegistryChange { add_cas: vec![world.read(file); count], ..RegistryChange::default() };
        store.update_registry(&registry, &change)
    };
    let _ = add_cas("other-ca.crt", 1).expect("a second CA");
    add("foreign.crt").expect("the second CA signed it");

    fails(add_cas("iot-ca.crt", 9), "the limit is reached: 10 CA certificates of a registry");
    fails(add_cas("dev.crt", 1), "is not the certificate of a CA");
    fails(add_cas("dev.pub", 1), "there is no PEM block 'CERTIFICATE'");
    let remove = RegistryChange { remove_ca: Some(2), ..RegistryChange::default() };
    fails(store.update_registry(&registry, &remove), "CA certificate 2 of registry g");
}

fn keys_that_are_none_are_refused(world: &World) {
    world.key("rsa", "RS256");
    world.key("ec", "ES256");
    world.openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024", "-out", "short.key"]);
    world.openssl(&["pkey", "-in", "short.key", "-pubout", "-out", "short.pub"]);
    world.openssl(&["genpkey", "-algorithm", "ED25519", "-out", "ed.key"]);
    world.openssl(&["pkey", "-in", "ed.key", "-pubout", "-out", "ed.pub"]);
    let parse = |text: &str, format| Credential::parse(text, format, None);
    fails(parse(&world.read("rsa.key"), None), "this is a private key");
    fails(parse(&world.read("short.pub"), None), "an RSA key of 1024 bits is too short");
    fails(parse(&world.read("ed.pub"), None), "neither RSA nor EC");
    fails(parse("hello", None), "there is no PEM block");
    fails(parse(&world.read("rsa.pub"), Some(CredentialFormat::Es256Pem)), "this is RSA_PEM, not ES256_PEM");
    let format = |text| CredentialFormat::parse(text).map(CredentialFormat::name);
    assert_eq!(format("rs256").unwrap(), "RSA_X509_PEM");
    assert_eq!(format("ES256_PEM").unwrap(), "ES256_PEM");
    fails(format("hs256"), "'hs256' is no type of public key");
    let registry = world.registry("g", &[]);
    for (id, reason) in [("ab", "shorter than 3"), ("12345", "must begin with a letter")] {
        let name = registry.device(id).unwrap();
        let new = NewDevice { name, gateway: None, credentials: vec![], blocked: false, metadata: Default::default() };
        fails(world.fleet.store().create_device(&new, world.now), reason);
    }
}

fn configurations_have_versions_and_ten_are_kept(world: &World) {
    let registry = world.registry("g", &[]);
    let device = world.device(&registry, "dev", &[], None);
    let store = world.fleet.store();
    let first = world.fleet.deliver_config(&device, world.now).expect("a device has a first configuration");
    assert_eq!((first.version, first.data.as_slice()), (1, &b""[..]));
    for version in 2..=12 {
        assert_eq!(store.set_config(&device, format!("v{version}").as_bytes(), None, world.now).unwrap(), version);
    }
    let versions: Vec<_> = store.configs(&device, 100).unwrap().iter().map(|config| config.version).collect();
    assert_eq!(versions, [12, 11, 10, 9, 8, 7, 6, 5, 4, 3]);
    fails(store.set_config(&device, b"x", Some(11), world.now), "the newest version is 12, not 11");
    assert_eq!(store.set_config(&device, b"x", Some(12), world.now).unwrap(), 13);
    fails(store.set_config(&device, &[0; 65537], None, world.now), "65537 bytes are too many");
    assert_eq!(store.configs(&device, 1).unwrap()[0].acknowledged, None);
    assert_eq!(world.fleet.deliver_config(&device, world.now).unwrap().data, b"x");
    assert_eq!(store.configs(&device, 1).unwrap()[0].acknowledged, Some(world.now));
    fails(store.set_config(&registry.device("nobody").unwrap(), b"", None, world.now), "there is no device");
}

fn states_and_events_are_kept_in_order(world: &World) {
    let registry = world.registry("g", &[]);
    let device = world.device(&registry, "dev", &[], None);
    for number in 0..12_u8 {
        world.fleet.set_state(&device, &[number, 0, 255], world.now.plus_seconds(number.into())).unwrap();
        let event = Event {
            device: device.clone(),
            gateway: (number % 2 == 0).then(|| "gw1".to_owned()),
            subfolder: "a/b".to_owned(),
            at: world.now,
            data: vec![number],
        };
        world.fleet.publish(&event).unwrap();
    }
    let states = world.fleet.store().states(&device).unwrap();
    assert_eq!(states.iter().map(|state| state.data[0]).collect::<Vec<_>>(), [11, 10, 9, 8, 7, 6, 5, 4, 3, 2]);
    assert_eq!(states[0].updated, world.now.plus_seconds(11));
    let taken = |limit| world.fleet.store().take_events(limit).unwrap().iter().map(|it| it.data[0]).collect::<Vec<_>>();
    assert_eq!(taken(5), [0, 1, 2, 3, 4]);
    assert_eq!(taken(50), [5, 6, 7, 8, 9, 10, 11]);
    assert!(taken(50).is_empty(), "an event is taken once");
    let event = |subfolder: &str, size| Event {
        device: device.clone(),
        gateway: None,
        subfolder: subfolder.to_owned(),
        at: world.now,
        data: vec![0; size],
    };
    assert!(world.fleet.publish(&event("", 256 * 1024)).is_ok());
    assert!(world.fleet.publish(&event("", 256 * 1024 + 1)).unwrap_err().to_string().contains("too many"));
    for subfolder in ["#", "a/+/b", "/a", "a/", "a\nb"] {
        assert!(world.fleet.publish(&event(subfolder, 1)).unwrap_err().to_string().contains("is no subfolder"));
    }
    let _ = tick(&world.fleet, world.now);
    let number = world.fleet.store().device(&device).unwrap().unwrap().number;
    assert_eq!(world.fleet.store().activity(number).unwrap().state, Some(world.now.plus_seconds(11)));
    // By its number it is the same device, and what was known of it before stays known.
    let by_number = device.registry.device(&number.to_string()).unwrap();
    world.fleet.publish(&Event { device: by_number, at: world.now.plus_seconds(20), ..event("", 1) }).unwrap();
    let _ = tick(&world.fleet, world.now);
    let activity = world.fleet.store().activity(number).unwrap();
    assert_eq!(activity.event, Some(world.now.plus_seconds(20)));
    assert_eq!(activity.state, Some(world.now.plus_seconds(11)));
}

fn a_command_has_one_outcome(world: &World) {
    let registry = world.registry("g", &[]);
    let device = world.device(&registry, "dev", &[], None);
    let store = world.fleet.store();
    let _ = tick(&world.fleet, world.now);
    let id = store.send_command(&device, "reboot", b"now", world.now).unwrap();
    assert_eq!(tick(&world.fleet, world.now), [Change::Command(device.clone())]);
    let waiting = store.waiting_commands(&device, world.now.plus_seconds(-5)).unwrap();
    assert_eq!((waiting.len(), waiting[0].id, waiting[0].subfolder.as_str()), (1, id, "reboot"));
    assert_eq!(store.command_outcome(id).unwrap(), None);
    assert!(store.finish_command(id, DELIVERED).unwrap());
    assert!(!store.finish_command(id, "given up").unwrap(), "the first outcome stays");
    assert_eq!(store.command_outcome(id).unwrap().as_deref(), Some(DELIVERED));
    assert!(store.waiting_commands(&device, world.now.plus_seconds(-5)).unwrap().is_empty());
}

fn devices_are_listed_in_pages_and_deleted_with_all_they_had(world: &World) {
    let registry = world.registry("g", &[]);
    let store = world.fleet.store();
    for number in 0..25 {
        world.device(&registry, &format!("dev{number:02}"), &[], None);
    }
    let gateway = world.device(&registry, "gateway", &[], Some(AuthMethod::AssociationOnly));
    let bound = registry.device("dev03").unwrap();
    store.bind(&gateway, &bound).unwrap();
    store.bind(&gateway, &bound).expect("binding twice is binding once");
    let ids = |gateways, to: Option<&_>, after: &str, limit| -> Vec<String> {
        let devices = store.devices(&registry, gateways, to, after, limit).unwrap();
        devices.iter().map(|device| device.name.id.to_string()).collect()
    };
    assert_eq!(ids(false, None, "", 10).len(), 10);
    assert_eq!(ids(false, None, "dev09", 3), ["dev10", "dev11", "dev12"]);
    assert_eq!(ids(true, None, "", 100), ["gateway"]);
    assert_eq!(ids(false, Some(&gateway), "", 100), ["dev03"]);
    fails(store.delete_device(&gateway), "still has devices bound to it");
    fails(store.delete_registry(&registry), "still has devices");
    store.set_config(&bound, b"x", None, world.now).unwrap();
    store.put_state(&bound, b"x", world.now).unwrap();
    let by_number = store.device(&bound).unwrap().unwrap().number;
    assert_eq!(store.device(&registry.device(&by_number.to_string()).unwrap()).unwrap().unwrap().name, bound);
    store.delete_device(&bound).unwrap();
    assert!(store.device(&bound).unwrap().is_none());
    store.delete_device(&gateway).expect("nothing is bound to it any more");
    let again = world.device(&registry, "dev03", &[], None);
    assert_ne!(store.device(&again).unwrap().unwrap().number, by_number, "a number is never given twice");
    assert_eq!(store.configs(&again, 9).unwrap().len(), 1, "nothing is left of its namesake");
}

fn another_process_learns_of_changes_at_its_next_tick(world: &World) {
    let registry = world.registry("g", &[]);
    for name in ["dev", "new"] {
        world.key(name, "ES256");
    }
    let device = world.device(&registry, "dev", &["dev.pub"], None);
    let other = Fleet::open(&world.url).expect("the store opens twice");
    let connect = |key: &str| {
        let token = world.token(key, "ES256", 0, 600);
        other.authenticate(&device.to_string(), Protocol::Mqtt, Proof::Token(&token), "test", world.now).is_ok()
    };
    assert!(connect("dev") && !connect("new"));
    let add_credential = Some(Credential::parse(&world.read("new.pub"), None, None).unwrap());
    let store = world.fleet.store();
    store
        .update_device(&device, &DeviceChange { add_credential, remove_credential: Some(0), ..Default::default() })
        .unwrap();
    store.set_config(&device, b"x", None, world.now).unwrap();
    let changes = tick(&other, world.now);
    assert_eq!(changes, [Change::Device(device.clone()), Change::Config(device.clone())]);
    assert!(!connect("dev") && connect("new"));
    assert!(tick(&other, world.now).is_empty());
    let _ =
        store.update_registry(&registry, &RegistryChange { mqtt: Some(false), ..RegistryChange::default() }).unwrap();
    let _ = tick(&other, world.now);
    assert!(!connect("new"));
    // Whoever slept through more changes than are remembered forgets all it knew.
    for number in 0..3 {
        world.device(&registry, &format!("more{number}"), &[], None);
    }
    assert!(store.changes_after(1).unwrap().is_some());
    assert!(store.changes_after(i64::MAX - 1).unwrap().is_none());
}

fn after_more_changes_than_are_kept_everything_is_looked_at_and_messages_are_told(world: &World) {
    let registry = world.registry("g", &[]);
    let [device, other, _quiet] = ["dev", "other", "quiet"].map(|id| world.device(&registry, id, &[], None));
    let store = world.fleet.store();
    let _ = tick(&world.fleet, world.now);
    let _ = store.set_config(&device, b"x", None, world.now).unwrap();
    let _ = store.set_config(&device, b"y", None, world.now).unwrap();
    let done = store.send_command(&device, "", b"1", world.now).unwrap();
    let _ = store.finish_command(done, DELIVERED).unwrap();
    let _ = store.send_command(&other, "", b"2", world.now).unwrap();
    let _ = store.set_config(&other, b"old", None, world.now.plus_seconds(-3600)).unwrap();
    world.sql("DELETE FROM changes WHERE seq < (SELECT MAX(seq) FROM changes)");
    let changes = tick(&world.fleet, world.now);
    assert_eq!(changes, [Change::Everything, Change::Config(device), Change::Command(other)]);
    assert!(tick(&world.fleet, world.now).is_empty());
}

fn a_flood_of_refusals_is_bounded_and_counted(world: &World) {
    let registry = world.registry("g", &[]);
    let id = registry.device("nobody").unwrap().to_string();
    for _ in 0..10_050 {
        let _ = world.fleet.authenticate(&id, Protocol::Mqtt, Proof::Token("secret"), "test", world.now);
    }
    let _ = tick(&world.fleet, world.now);
    let all = keyrivet_registry::store::AuditFilter { limit: 20_000, ..Default::default() };
    let rows = world.fleet.store().audit(&registry, &all).unwrap();
    assert_eq!(rows.len(), 10_000);
    assert!(rows.iter().all(|row| !format!("{row:?}").contains("secret")));
}

fn what_a_client_makes_up_keeps_nothing_from_being_written_or_learnt(world: &World) {
    let registry = world.registry("g", &[]);
    world.key("dev", "ES256");
    let device = world.device(&registry, "dev", &["dev.pub"], None);
    let connect = |token: &str| {
        world.fleet.authenticate(&device.to_string(), Protocol::Mqtt, Proof::Token(token), "test", world.now)
    };
    let session = connect(&world.token("dev", "ES256", 0, 600)).expect("let in");
    let _ = tick(&world.fleet, world.now);
    // {"alg":"\u0000"}, for which nobody needs a key; and a NUL in what the rules do not look at.
    let refusal = connect("eyJhbGciOiJcdTAwMDAifQ.e30.AA").unwrap_err();
    assert!(!refusal.to_string().contains('\0'), "{refusal}");
    world.fleet.refused(&session.device, "test", "a\0b", &refusal, world.now);
    let blocked = DeviceChange { blocked: Some(true), ..Default::default() };
    world.fleet.store().update_device(&device, &blocked).unwrap();
    assert_eq!(tick(&world.fleet, world.now), [Change::Device(device.clone())]);
    let all = keyrivet_registry::store::AuditFilter { limit: 10, ..Default::default() };
    let rows = world.fleet.store().audit(&registry, &all).unwrap();
    assert_eq!(rows.len(), 3, "{rows:?}");
}

fn changes_of_one_device_at_once_are_all_kept(world: &World) {
    let registry = world.registry("g", &[]);
    let device = world.device(&registry, "dev", &[], None);
    let other = Fleet::open(&world.url).expect("the same store");
    for round in 0..50 {
        let change = |fleet: &Fleet, change: DeviceChange| fleet.store().update_device(&device, &change).unwrap();
        change(&world.fleet, DeviceChange { blocked: Some(false), ..Default::default() });
        let metadata = [("round".to_owned(), round.to_string())].into();
        std::thread::scope(|scope| {
            scope.spawn(|| change(&other, DeviceChange { metadata: Some(metadata), ..Default::default() }));
            change(&world.fleet, DeviceChange { blocked: Some(true), ..Default::default() });
        });
        let device = world.fleet.store().device(&device).unwrap().unwrap();
        assert!(device.blocked && device.metadata["round"] == round.to_string(), "round {round}: {device:?}");
    }
}

fn a_device_is_attached_to_one_gateway_at_a_time(world: &World) {
    let registry = world.registry("g", &[]);
    let store = world.fleet.store();
    let made = |id: &str, gateway| {
        let name = world.device(&registry, id, &[], gateway);
        store.device(&name).unwrap().unwrap()
    };
    let device = made("dev", None);
    let gateways = ["gw1", "gw2"].map(|id| made(id, Some(AuthMethod::DeviceAuthTokenOnly)));
    let (other, now) = (Fleet::open(&world.url).expect("the same store"), world.now);
    for round in 0..50 {
        std::thread::scope(|scope| {
            scope.spawn(|| other.store().attach(&gateways[0], &device, now).unwrap());
            store.attach(&gateways[1], &device, now).unwrap();
        });
        let attached = gateways.iter().filter(|gateway| !store.attached(gateway).unwrap().is_empty()).count();
        assert_eq!(attached, 1, "round {round}");
        for gateway in &gateways {
            let _ = store.detach(gateway, &device).unwrap();
        }
    }
}

#[test]
fn a_journal_that_cannot_be_written_keeps_nobody_from_learning_and_stays_bounded() {
    let world = World::postgresql();
    let registry = world.registry("g", &[]);
    let device = world.device(&registry, "dev", &[], None);
    let _ = tick(&world.fleet, world.now);
    let flood = || {
        for _ in 0..10_050 {
            let refused = Proof::Token("secret");
            let _ = world.fleet.authenticate(&device.to_string(), Protocol::Mqtt, refused, "test", world.now);
        }
    };
    world.sql("ALTER TABLE audit RENAME TO away");
    for _ in 0..2 {
        flood();
        fails(world.fleet.write(world.now), "audit");
    }
    let blocked = DeviceChange { blocked: Some(true), ..Default::default() };
    world.fleet.store().update_device(&device, &blocked).unwrap();
    assert_eq!(world.fleet.learn().unwrap(), [Change::Device(device.clone())]);
    world.sql("ALTER TABLE away RENAME TO audit");
    world.fleet.write(world.now).unwrap();
    let all = keyrivet_registry::store::AuditFilter { limit: 50_000, ..Default::default() };
    assert_eq!(world.fleet.store().audit(&registry, &all).unwrap().len(), 10_000);
    let activity = world.fleet.store().activity(world.fleet.store().device(&device).unwrap().unwrap().number).unwrap();
    assert_eq!(activity.error_at, Some(world.now));
}

#[test]
fn a_database_that_stops_holds_nobody_for_ever() {
    let world = World::postgresql();
    // Its limit for a statement is ours for an answer, and two seconds.
    let fleet = Fleet::open(&format!("{} options='-c statement_timeout=100'", world.url)).unwrap();
    world.freeze_database(true);
    fails(fleet.store().ping(), "the server did not answer within 2.1 s");
    // It is left alone now: to connect would fail otherwise.
    fails(fleet.store().ping(), "the server did not answer within 2.1 s");
    fails(Fleet::open(&world.url).map(drop), "the server did not answer within 6 s");
    world.freeze_database(false);
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(error) = fleet.store().ping() {
        assert!(Instant::now() < deadline, "{error}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn who_reads_waits_for_no_writer_and_who_writes_waits_for_one_that_does_not_end_once() {
    let world = World::sqlite();
    let registry = world.registry("g", &[]);
    let device = world.device(&registry, "dev", &[], None);
    let store = world.fleet.store();
    let mut other = rusqlite::Connection::open(&world.url).unwrap();
    let held = other.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| store.put_state(&device, b"warm", world.now));
        // It comes to wait.
        std::thread::sleep(Duration::from_millis(500));
        for _ in 0..100 {
            assert!(store.device(&device).unwrap().is_some());
        }
        assert!(!writer.is_finished());
        fails(writer.join().unwrap(), "database is locked");
    });
    let start = Instant::now();
    fails(store.put_state(&device, b"warm", world.now), "database is locked");
    assert!(start.elapsed() < Duration::from_secs(5), "asked again at once");
    drop(held);
    // Another one has not given up.
    Fleet::open(&world.url).unwrap().store().put_state(&device, b"warm", world.now).unwrap();
}

#[test]
fn the_files_of_sqlite_are_for_its_user_and_group_alone() {
    let world = World::sqlite();
    let mode = |path: &str| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for file in [world.url.clone(), format!("{}-wal", world.url), format!("{}-shm", world.url)] {
        assert_eq!(mode(&file), 0o640, "{file}");
    }
}

#[test]
fn a_database_that_cannot_hold_every_text_is_refused() {
    let world = World::postgresql();
    world.sql("CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    let other = world.url.replace("dbname=postgres", "dbname=latin");
    fails(Fleet::open(&other).map(drop), "the database's encoding is LATIN1: make one with ENCODING 'UTF8'");
}
