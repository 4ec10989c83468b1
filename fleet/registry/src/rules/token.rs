//! A device's token: a JWT (RFC 7519) that one of its keys signed, made for this project, and of the right age.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::credential::SignatureAlgorithm;
use crate::limit::{CLOCK_SKEW, TOKEN_LIFETIME};
use crate::record::Device;
use crate::refusal::{Refusal, shown};
use crate::timestamp::Timestamp;

/// Checks `token`, and answers when it expires.
pub fn check(token: &str, device: &Device, now: Timestamp) -> Result<Timestamp, Refusal> {
    let [header, claims, signature] = token.split('.').collect::<Vec<_>>()[..] else {
        return Err(malformed("it does not have three parts with a dot between them"));
    };
    let algorithm = algorithm(header)?;
    // What was signed is the text of both parts (RFC 7515, section 5.2).
    let signed = &token[..header.len() + 1 + claims.len()];
    check_signature(algorithm, signed, &decoded(signature, "its signature is")?, device, now)?;
    let claims = object(claims, "its claims are")?;
    check_claims(&claims, &device.name.registry.project, now)
}

/// What the header says, without believing it: it only chooses among the algorithms that are taken, before any key is
/// tried.
fn algorithm(header: &str) -> Result<SignatureAlgorithm, Refusal> {
    let header = object(header, "its header is")?;
    if header.contains_key("crit") {
        // RFC 7515, section 4.1.11: who does not know what is critical must refuse.
        return Err(malformed("its header asks for extensions (crit), and there are none"));
    }
    let name = header.get("alg").and_then(Value::as_str).ok_or_else(|| malformed("its header has no alg"))?;
    SignatureAlgorithm::parse(name).ok_or_else(|| Refusal::Algorithm { name: shown(name, 16) })
}

/// Whether one of the device's keys that may still be used made the signature.
fn check_signature(
    algorithm: SignatureAlgorithm,
    signed: &str,
    signature: &[u8],
    device: &Device,
    now: Timestamp,
) -> Result<(), Refusal> {
    let id = || device.name.id.to_string();
    if device.credentials.is_empty() {
        return Err(Refusal::NoCredential { device: id() });
    }
    let fitting: Vec<_> = device.credentials.iter().filter(|it| it.format.algorithms().contains(&algorithm)).collect();
    if fitting.is_empty() {
        let keys: Vec<_> = device.credentials.iter().map(|credential| credential.format.name()).collect();
        return Err(Refusal::AlgorithmUnfit { name: algorithm.name(), keys: keys.join(", ") });
    }
    let mut expired = None;
    for credential in &fitting {
        if credential.verifies(algorithm, signed.as_bytes(), signature) {
            if credential.is_valid_at(now) {
                return Ok(());
            }
            expired = credential.expires;
        }
    }
    Err(match expired {
        Some(at) => Refusal::CredentialExpired { at: at.to_string() },
        None => Refusal::Signature { device: id(), keys: fitting.len() },
    })
}

fn object(part: &str, it_is: &str) -> Result<Map<String, Value>, Refusal> {
    let json = decoded(part, it_is)?;
    serde_json::from_slice(&json).map_err(|_| malformed(&format!("{it_is} not a JSON object")))
}

fn decoded(part: &str, it_is: &str) -> Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed(&format!("{it_is} not base64url")))
}

fn malformed(why: &str) -> Refusal {
    Refusal::TokenMalformed { why: why.to_owned() }
}

fn check_claims(claims: &Map<String, Value>, project: &str, now: Timestamp) -> Result<Timestamp, Refusal> {
    let audience = claims.get("aud").ok_or(Refusal::Claim { name: "aud", why: "is missing: it is the project" })?;
    let audience = audience.as_str().ok_or(Refusal::Claim { name: "aud", why: "must be one string, the project" })?;
    if audience != project {
        return Err(Refusal::Audience { expected: project.to_owned(), found: shown(audience, 100) });
    }
    let (issued, expires) = (seconds(claims, "iat")?, seconds(claims, "exp")?);
    let now = now.seconds();
    if issued > now.saturating_add(CLOCK_SKEW) {
        return Err(Refusal::TokenFromFuture { by: issued.saturating_sub(now) });
    }
    let lifetime = expires.saturating_sub(issued);
    if lifetime <= 0 || lifetime > TOKEN_LIFETIME + CLOCK_SKEW {
        return Err(Refusal::TokenLifetime { seconds: lifetime });
    }
    if now >= expires {
        return Err(Refusal::TokenExpired { by: now.saturating_sub(expires) });
    }
    Ok(Timestamp::from_seconds(expires))
}

/// A NumericDate (RFC 7519, section 2): seconds, perhaps with a fraction.
fn seconds(claims: &Map<String, Value>, name: &'static str) -> Result<i64, Refusal> {
    let value = claims.get(name).ok_or(Refusal::Claim { name, why: "is missing" })?;
    let number = value.as_i64().or_else(|| {
        let float = value.as_f64().filter(|float| float.abs() < 1e15)?;
        #[allow(clippy::cast_possible_truncation, reason = "smaller than 2^53, so it fits")]
        Some(float.floor() as i64)
    });
    number.ok_or(Refusal::Claim { name, why: "must be a number of seconds" })
}
