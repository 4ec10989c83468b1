//! `keyrivet jwt`: a JSON Web Token (RFC 7519) in compact form, signed by a key in the TPM.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyrivet_core::algorithm::{Curve, HashAlgorithm, SignatureScheme};
use keyrivet_core::public_key::PublicKey;
use keyrivet_core::sign::{SignOperation, SignatureData};
use serde_json::{Map, Value, json};

use crate::cli::{Algorithm, JwtRequest};
use crate::failure::{Failure, Result};
use crate::key;

/// Makes the token, and a line's end after it.
pub(crate) fn make(request: &JwtRequest) -> Result<Vec<u8>> {
    let mut claims = Map::new();
    for (name, value) in &request.claims {
        if claims.insert(name.clone(), value.clone()).is_some() {
            return Err(Failure::new(format!("the claim {name} is given twice")));
        }
    }
    let key = key::open(&request.key, request.pin_file.as_deref())?;
    let algorithm = choose(key.public_key(), request.alg)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| Failure::new("the clock is before 1970"))?;
    let (issued, expires) = (now.as_secs(), now.saturating_add(request.exp).as_secs());
    for (name, value) in [("aud", Value::from(&*request.aud)), ("iat", issued.into()), ("exp", expires.into())] {
        let _ = claims.insert(name.to_owned(), value);
    }
    let (name, hash, scheme) = algorithm.row();
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let mut token = format!("{}.{}", part(json!({"alg": name, "typ": "JWT"})), part(Value::Object(claims)));
    let mut signature = SignOperation::new(key, SignatureData::message(scheme, hash));
    signature.update(token.as_bytes())?;
    token.push('.');
    token.push_str(&URL_SAFE_NO_PAD.encode(signature.finish()?));
    token.push('\n');
    Ok(token.into_bytes())
}

impl Algorithm {
    /// Its name in the header, and how it signs (RFC 7518, 3.1).
    fn row(self) -> (&'static str, HashAlgorithm, SignatureScheme) {
        let hash = if self == Self::Es384 { HashAlgorithm::Sha384 } else { HashAlgorithm::Sha256 };
        match self {
            Self::Rs256 => ("RS256", hash, SignatureScheme::RsaPkcs1(hash)),
            Self::Ps256 => ("PS256", hash, SignatureScheme::RsaPss { hash, salt_length: hash.digest_length() }),
            Self::Es256 => ("ES256", hash, SignatureScheme::Ecdsa),
            Self::Es384 => ("ES384", hash, SignatureScheme::Ecdsa),
        }
    }
}

/// The algorithm for a key, which must be the one that is asked for.
fn choose(key: &PublicKey, wanted: Option<Algorithm>) -> Result<Algorithm> {
    let (kind, fitting): (_, &[_]) = match key {
        PublicKey::Rsa { .. } => ("an RSA key", &[Algorithm::Rs256, Algorithm::Ps256]),
        PublicKey::Ec { curve: Curve::P256, .. } => ("a P-256 key", &[Algorithm::Es256]),
        PublicKey::Ec { curve: Curve::P384, .. } => ("a P-384 key", &[Algorithm::Es384]),
        PublicKey::Ec { curve: Curve::P521, .. } => ("a P-521 key", &[]),
    };
    let names: Vec<_> = fitting.iter().map(|algorithm| algorithm.row().0).collect();
    match (fitting.first(), wanted) {
        (None, _) => Err(Failure::new(format!("this is {kind}, which no registry takes: use RSA, P-256 or P-384"))),
        (Some(first), None) => Ok(*first),
        (_, Some(wanted)) if fitting.contains(&wanted) => Ok(wanted),
        (_, Some(wanted)) => {
            Err(Failure::new(format!("this is {kind}: it signs {}, not {}", names.join(" or "), wanted.row().0)))
        }
    }
}
