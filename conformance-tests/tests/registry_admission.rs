//! Who the broker lets in, and what it says to those whom it does not: in its log and in the audit trail.

mod fleet;

use conformance_tests::Device;
use fleet::{Key, PROJECT, World, base64url, client_id, now, unsigned};
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
        let _ = world.add(&id, &key);
        let _ = world.connect(&client_id(&id), &key.token()).ok();
        listener.wait_for(&format!("registries/g/devices/{id}/events hello"));
    }
    let _ = world.log();
}

#[test]
fn each_refused_token_is_explained_in_the_log_and_in_the_audit_trail() {
    let device = Device::new();
    let world = World::new(&device);
    let (key, other) = (Key::es256(), Key::es256());
    let rsa = Key::rs256();
    let name = world.add("sensor", &key);
    let by_rsa = world.add("by-rsa", &rsa);
    let claims = |aud: &str| format!(r#"{{"aud":"{aud}","iat":{},"exp":{}}}"#, now(), now() + 60);
    let none = format!("{}.", unsigned("none", &claims(PROJECT)));
    // The public key as the secret of an HMAC: what a verifier would take that believes the header.
    let hs256 = unsigned("HS256", &claims(PROJECT));
    let secret = PKey::hmac(rsa.public_pem().as_bytes()).unwrap();
    let mut signer = Signer::new(MessageDigest::sha256(), &secret).unwrap();
    let hs256 = format!("{hs256}.{}", base64url(&signer.sign_oneshot_to_vec(hs256.as_bytes()).unwrap()));
    for (name, token, reason) in [
        (&name, key.token_for(-3600, 1800), "the token expired 1800 s ago"),
        (&name, key.token_for(900, 1800), "iat in the future by 900 s"),
        (&name, key.token_for(0, 25 * 3600), "exp is 90000 s after iat"),
        (&name, key.signed(&claims("other-project")), "aud is 'other-project', but must be the project, 'my-project'"),
        (&name, other.token(), "the token's signature was not made by the key of device sensor"),
        (&name, rsa.token(), "the token is signed with RS256, but the device's keys are ES256_PEM"),
        (&name, none, "algorithm 'none' is not accepted"),
        (&by_rsa, hs256, "algorithm 'HS256' is not accepted"),
        (&name, "not-a-token".into(), "it does not have three parts"),
        (&name, key.signed("[]"), "its claims are not a JSON object"),
        (&name, key.signed(r#"{"aud":"my-project"}"#), "claim 'iat' is missing"),
    ] {
        let id = client_id(name.id.as_str());
        let _ = world.connect(&id, &token).fails_with("authori");
        world.wait_for_log(&format!("keyrivet: refused {id}: "));
        world.wait_for_log(reason);
        world.wait_for_refusal(name, reason);
        assert!(!world.log().contains(&token) || token == "not-a-token", "the token is in the log");
    }
    let _ = world.connect(&client_id("sensor"), &key.token()).ok();
}
