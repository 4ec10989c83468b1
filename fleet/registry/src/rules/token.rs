//! A device's token: a JWT (RFC 7519) that one of its keys signed, made for this project, and of the right age.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation};
use serde_json::{Map, Value};

use crate::limit::{CLOCK_SKEW, TOKEN_LIFETIME};
use crate::record::Device;
use crate::refusal::Refusal;
use crate::timestamp::Timestamp;

/// The algorithms taken. Every other one is refused by name before any key is tried, `none` and `HS256` among them.
const ALGORITHMS: [(&str, Algorithm); 4] = [
    ("RS256", Algorithm::RS256),
    ("ES256", Algorithm::ES256),
    ("PS256", Algorithm::PS256),
    ("ES384", Algorithm::ES384),
];

/// Checks `token`, and answers when it expires.
pub fn check(token: &str, device: &Device, now: Timestamp) -> Result<Timestamp, Refusal> {
    let (name, algorithm) = algorithm(token)?;
    let claims = verified_claims(token, name, algorithm, device, now)?;
    check_claims(&claims, &device.name.registry.project, now)
}

/// What the header says, without believing it: it only chooses among [`ALGORITHMS`].
fn algorithm(token: &str) -> Result<(&'static str, Algorithm), Refusal> {
    let malformed = |why: &str| Refusal::TokenMalformed { why: why.to_owned() };
    if token.split('.').count() != 3 {
        return Err(malformed("it does not have three parts with a dot between them"));
    }
    let header = token.split('.').next().unwrap_or_default();
    let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| malformed("its header is not base64url"))?;
    let header: Map<String, Value> =
        serde_json::from_slice(&header).map_err(|_| malformed("its header is not a JSON object"))?;
    let name = header.get("alg").and_then(Value::as_str).ok_or_else(|| malformed("its header has no alg"))?;
    let found = ALGORITHMS.iter().find(|row| row.0 == name);
    found.copied().ok_or_else(|| Refusal::Algorithm { name: name.chars().take(16).collect() })
}

fn verified_claims(
    token: &str,
    name: &'static str,
    algorithm: Algorithm,
    device: &Device,
    now: Timestamp,
) -> Result<Map<String, Value>, Refusal> {
    let id = || device.name.id.to_string();
    if device.credentials.is_empty() {
        return Err(Refusal::NoCredential { device: id() });
    }
    let fits = |credential: &&crate::Credential| credential.format.algorithms().contains(&algorithm);
    let fitting: Vec<_> = device.credentials.iter().filter(fits).collect();
    if fitting.is_empty() {
        let keys: Vec<_> = device.credentials.iter().map(|credential| credential.format.name()).collect();
        return Err(Refusal::AlgorithmUnfit { name, keys: keys.join(", ") });
    }
    let validation = signature_only(algorithm);
    let mut expired = None;
    for credential in &fitting {
        match jsonwebtoken::decode::<Map<String, Value>>(token, &credential.key, &validation) {
            Ok(_) if !credential.is_valid_at(now) => expired = credential.expires,
            Ok(data) => return Ok(data.claims),
            Err(error) => match error.kind() {
                ErrorKind::InvalidSignature | ErrorKind::InvalidEcdsaKey | ErrorKind::InvalidRsaKey(_) => {}
                ErrorKind::Base64(_) => return Err(malformed("a part of it is not base64url")),
                ErrorKind::Json(_) => return Err(malformed("its claims are not a JSON object")),
                _ => return Err(malformed("it cannot be read")),
            },
        }
    }
    Err(match expired {
        Some(at) => Refusal::CredentialExpired { at: at.to_string() },
        None => Refusal::Signature { device: id(), keys: fitting.len() },
    })
}

fn malformed(why: &str) -> Refusal {
    Refusal::TokenMalformed { why: why.to_owned() }
}

/// The library checks the signature; the claims are ours, because it knows neither `iat` nor a lifetime, and its
/// errors hold no figures to explain a refusal with.
fn signature_only(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

fn check_claims(claims: &Map<String, Value>, project: &str, now: Timestamp) -> Result<Timestamp, Refusal> {
    let audience = claims.get("aud").ok_or(Refusal::Claim { name: "aud", why: "is missing: it is the project" })?;
    let audience = audience.as_str().ok_or(Refusal::Claim { name: "aud", why: "must be one string, the project" })?;
    if audience != project {
        let found = audience.chars().take(100).collect();
        return Err(Refusal::Audience { expected: project.to_owned(), found });
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
        return Err(Refusal::TokenExpired { by: now - expires });
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
