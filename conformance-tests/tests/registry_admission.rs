//! Who is let in, and the reason given to everybody else.

mod world;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyrivet_registry::rules::admission::Protocol;
use keyrivet_registry::store::DeviceChange;
use keyrivet_registry::{DeviceName, Proof, Refusal, Session};
use world::{World, tick};

on_both_databases!(
    a_token_of_each_algorithm_lets_its_device_in_until_it_expires,
    wrong_times_are_refused_with_by_how_much,
    wrong_claims_are_refused_by_name,
    a_number_tells_no_name,
    neither_no_algorithm_nor_the_public_key_as_a_secret_gets_in,
    only_the_devices_own_valid_keys_count,
    a_blocked_device_is_told_so_and_only_if_it_is_the_device,
    certificates_of_a_ca_of_the_registry_let_in_whom_they_name,
);

fn connect(world: &World, device: &DeviceName, token: &str) -> Result<Session, Refusal> {
    let id = device.to_string();
    world.fleet.authenticate(&id, Protocol::Mqtt, Proof::Token(token), "test", world.now)
}

#[track_caller]
fn refused(outcome: Result<Session, Refusal>, reason: &str) {
    let said = outcome.expect_err("should have been refused").to_string();
    assert!(said.contains(reason), "should have said '{reason}': {said}");
}

fn a_token_of_each_algorithm_lets_its_device_in_until_it_expires(world: &World) {
    let registry = world.registry("g", &[]);
    for (index, algorithm) in ["RS256", "PS256", "ES256", "ES384"].into_iter().enumerate() {
        let name = format!("device{index}");
        world.key(&name, algorithm);
        let device = world.device(&registry, &name, &[&format!("{name}.pub")], None);
        let session = connect(world, &device, &world.token(&name, algorithm, -5, 3600)).expect(algorithm);
        assert_eq!(session.expires.seconds(), world.now.seconds() + 3595);
        assert_eq!(session.device, device);
    }
}

fn wrong_times_are_refused_with_by_how_much(world: &World) {
    let registry = world.registry("g", &[]);
    world.key("dev", "ES256");
    let device = world.device(&registry, "dev", &["dev.pub"], None);
    let token = |begin, life| world.token("dev", "ES256", begin, life);
    refused(connect(world, &device, &token(-3600, 3000)), "the token expired 600 s ago");
    refused(connect(world, &device, &token(900, 3600)), "iat in the future by 900 s");
    refused(connect(world, &device, &token(0, 86400 + 601)), "exp is 87001 s after iat");
    refused(connect(world, &device, &token(0, 0)), "exp is 0 s after iat");
    let long_ago = format!(r#"{{"aud":"my-project","iat":{},"exp":{}}}"#, i64::MIN, i64::MIN + 60);
    refused(
        connect(world, &device, &world.signed("dev", "ES256", &long_ago)),
        "the token expired 9223372036854775807 s ago",
    );
    // The skew is tolerated, and a token may be used for as long as it lives.
    assert!(connect(world, &device, &token(599, 3600)).is_ok());
    assert!(connect(world, &device, &token(0, 86400 + 600)).is_ok());
    assert!(connect(world, &device, &token(-43200, 86400)).is_ok());
}

fn a_number_tells_no_name(world: &World) {
    let registry = world.registry("g", &[]);
    for key in ["dev", "stranger"] {
        world.key(key, "ES256");
    }
    let device = world.device(&registry, "secret-name", &["dev.pub"], None);
    let number = world.fleet.store().device(&device).unwrap().unwrap().number;
    let by_number = registry.device(&number.to_string()).unwrap();
    let foreign = world.token("stranger", "ES256", 0, 600);
    refused(connect(world, &by_number, &foreign), &format!("was not made by the key of device {number}"));
    let session = connect(world, &by_number, &world.token("dev", "ES256", 0, 600)).unwrap();
    assert_eq!(session.device, device);
}

fn wrong_claims_are_refused_by_name(world: &World) {
    let registry = world.registry("g", &[]);
    world.key("dev", "ES256");
    let device = world.device(&registry, "dev", &["dev.pub"], None);
    let now = world.now.seconds();
    let exp = now + 60;
    for (claims, reason) in [
        (
            format!(r#"{{"aud":"other","iat":{now},"exp":{exp}}}"#),
            "aud is 'other', but must be the project, 'my-project'",
        ),
        (format!(r#"{{"aud":["my-project"],"iat":{now},"exp":{exp}}}"#), "claim 'aud' must be one string"),
        (format!(r#"{{"iat":{now},"exp":{exp}}}"#), "claim 'aud' is missing"),
        (format!(r#"{{"aud":"my-project","exp":{exp}}}"#), "claim 'iat' is missing"),
        (format!(r#"{{"aud":"my-project","iat":{now}}}"#), "claim 'exp' is missing"),
        (format!(r#"{{"aud":"my-project","iat":"{now}","exp":{exp}}}"#), "claim 'iat' must be a number"),
        ("[]".to_owned(), "its claims are not a JSON object"),
    ] {
        refused(connect(world, &device, &world.signed("dev", "ES256", &claims)), reason);
    }
    let float = format!(r#"{{"aud":"my-project","iat":{now}.5,"exp":{exp}.9,"nbf":{}}}"#, now + 9999);
    assert!(
        connect(world, &device, &world.signed("dev", "ES256", &float)).is_ok(),
        "fractions are numbers, nbf is ignored"
    );
}

fn neither_no_algorithm_nor_the_public_key_as_a_secret_gets_in(world: &World) {
    let registry = world.registry("g", &[]);
    world.key("dev", "RS256");
    let device = world.device(&registry, "dev", &["dev.pub"], None);
    let claims = world.token("dev", "RS256", 0, 3600).split('.').nth(1).expect("claims").to_owned();
    for algorithm in ["none", "None", "NONE", "HS256", "HS512", "RS1", "EdDSA"] {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{algorithm}"}}"#));
        std::fs::write(world.path("unsigned"), format!("{header}.{claims}")).expect("a file");
        let public = world.read("dev.pub");
        let hex: String = public.bytes().map(|byte| format!("{byte:02x}")).collect();
        let hmac = ["dgst", "-sha256", "-mac", "HMAC", "-macopt", &format!("hexkey:{hex}"), "-binary", "unsigned"];
        let mac = URL_SAFE_NO_PAD.encode(world.openssl(&hmac));
        for signature in ["", &mac] {
            let token = format!("{header}.{claims}.{signature}");
            refused(connect(world, &device, &token), &format!("algorithm '{algorithm}' is not accepted"));
        }
    }
    let token = world.token("dev", "RS256", 0, 3600);
    for (token, reason) in [
        ("", "does not have three parts"),
        ("secret", "does not have three parts"),
        ("a.b.c", "its header is not"),
        (&format!("{}.e30.", URL_SAFE_NO_PAD.encode("[]")), "its header is not a JSON object"),
        (&format!("{}.e30.", URL_SAFE_NO_PAD.encode("{}")), "its header has no alg"),
        (
            &format!("{}.e30.", URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","crit":["exp"]}"#)),
            "its header asks for extensions (crit)",
        ),
        (&token.replacen('.', ".!", 1), "signature was not made by"),
        (&format!("{token}!"), "not base64url"),
    ] {
        refused(connect(world, &device, token), reason);
    }
}

fn only_the_devices_own_valid_keys_count(world: &World) {
    let (registry, other) = (world.registry("g", &[]), world.registry("other", &[]));
    for name in ["dev", "old", "stranger", "third", "fourth"] {
        world.key(name, "ES256");
    }
    world.key("rsa", "RS256");
    let device = world.device(&registry, "dev", &["dev.pub"], None);
    let token = |key| world.token(key, "ES256", 0, 3600);
    refused(connect(world, &device, &token("stranger")), "was not made by the key of device dev");
    refused(
        connect(world, &device, &world.token("rsa", "RS256", 0, 3600)),
        "signed with RS256, but the device's keys are ES256_PEM",
    );
    // The same device id in another registry, with another key: each lets in its own only.
    let twin = world.device(&other, "dev", &["stranger.pub"], None);
    refused(connect(world, &twin, &token("dev")), "was not made by the key");
    assert!(connect(world, &twin, &token("stranger")).is_ok());
    refused(connect(world, &registry.device("nobody").unwrap(), &token("dev")), "there is no device projects/");
    let elsewhere = world::registry_name("elsewhere").device("dev").unwrap();
    refused(connect(world, &elsewhere, &token("dev")), "there is no device projects/");
    let bare = world.device(&registry, "bare", &[], None);
    refused(connect(world, &bare, &token("dev")), "device bare has no credential");

    let add = |file: &str, expires| {
        let credential = keyrivet_registry::Credential::parse(&world.read(file), None, expires).unwrap();
        let change = DeviceChange { add_credential: Some(credential), ..DeviceChange::default() };
        world.fleet.store().update_device(&device, &change)
    };
    add("old.pub", Some(world.now.plus_seconds(-1))).unwrap();
    add("third.pub", None).unwrap();
    let refusal = add("fourth.pub", None).unwrap_err().to_string();
    assert_eq!(refusal, "the limit is reached: 3 credentials of a device");
    let _ = tick(&world.fleet, world.now);
    refused(connect(world, &device, &token("old")), "the device's credential expired at");
    refused(connect(world, &device, &token("stranger")), "by none of the 3 keys");
    assert!(connect(world, &device, &token("third")).is_ok());
}

fn a_blocked_device_is_told_so_and_only_if_it_is_the_device(world: &World) {
    let registry = world.registry("g", &[]);
    world.key("dev", "ES256");
    world.key("stranger", "ES256");
    let device = world.device(&registry, "dev", &["dev.pub"], None);
    let mut session = connect(world, &device, &world.token("dev", "ES256", 0, 3600)).unwrap();
    let blocked = |blocked| DeviceChange { blocked: Some(blocked), ..DeviceChange::default() };
    world.fleet.store().update_device(&device, &blocked(true)).unwrap();
    let _ = tick(&world.fleet, world.now);
    let refusal = world.fleet.check(&mut session, world.now).unwrap_err();
    assert!(refusal.closes_connection(&device.id) && refusal.to_string() == "device dev is blocked");
    refused(connect(world, &device, &world.token("dev", "ES256", 0, 3600)), "device dev is blocked");
    refused(connect(world, &device, &world.token("stranger", "ES256", 0, 3600)), "signature");
    world.fleet.store().update_device(&device, &blocked(false)).unwrap();
    let _ = tick(&world.fleet, world.now);
    assert!(connect(world, &device, &world.token("dev", "ES256", 0, 3600)).is_ok());
}

fn certificates_of_a_ca_of_the_registry_let_in_whom_they_name(world: &World) {
    world.ca("iot-ca");
    world.ca("other-ca");
    let registry = world.registry("g", &["iot-ca.crt"]);
    let bare = world.registry("bare", &[]);
    for (name, subject, ca, extensions) in [
        ("dev", "dev", "iot-ca", "extendedKeyUsage=clientAuth"),
        ("san", "whatever", "iot-ca", "subjectAltName=DNS:dev"),
        (
            "uri",
            "whatever",
            "iot-ca",
            "subjectAltName=URI:projects/my-project/locations/us-central1/registries/g/devices/dev",
        ),
        ("server", "dev", "iot-ca", "extendedKeyUsage=serverAuth"),
        ("nobody", "somebody", "iot-ca", "subjectAltName=DNS:device,DNS:xdev"),
        ("foreign", "dev", "other-ca", ""),
    ] {
        world.key(name, "ES256");
        world.certify(name, subject, ca, extensions);
    }
    let device = world.device(&registry, "dev", &["dev.crt"], None);
    let enter = |device: &DeviceName, certificate: &str, later: i64| {
        let chain = [world.der(certificate)];
        let now = keyrivet_registry::Timestamp::now().plus_seconds(later);
        world.fleet.authenticate(&device.to_string(), Protocol::Mqtt, Proof::Certificates(&chain), "test", now)
    };
    for certificate in ["dev.crt", "san.crt", "uri.crt"] {
        assert!(enter(&device, certificate, 0).is_ok(), "{certificate}");
    }
    refused(
        enter(&device, "foreign.crt", 0),
        "certificate not signed by a CA of this registry (its issuer is 'CN=other-ca')",
    );
    refused(enter(&device, "nobody.crt", 0), "is for 'somebody', 'device', 'xdev', not for device dev");
    refused(enter(&device, "server.crt", 0), "is not for TLS clients");
    refused(enter(&device, "dev.crt", 2 * 86400), "the certificate expired at");
    refused(enter(&device, "dev.crt", -86400), "the certificate is not valid before");
    let without = world.device(&bare, "dev", &["dev.pub"], None);
    refused(enter(&without, "dev.crt", 0), "this registry has no CA certificate");
}
