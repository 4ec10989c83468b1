//! Ephemeral keys: what keeps TLS handshakes out of the TPM where this provider is listed first, or preferred.
//!
//! libssl makes its ephemeral keys with whatever provider it finds first for `EC`, and takes the NIST groups from no
//! other. So we offer these groups, under internal names that only libssl passes on; keys made under such a name are
//! of software and live for one handshake. Where another provider comes first, libssl takes its groups and none of
//! this happens, but for one case: from OpenSSL 3.5 on libssl takes the groups of the first provider that is listed and
//! makes the keys with the one that the property query prefers. Where that is us, a key on a curve about which nothing
//! else is said is taken to be for a handshake, once libssl has asked for our groups; `parent` or `uri` says otherwise.
//!
//! Keys made after the model of a peer's public key, as CMS makes them, are of software too.
//!
//! The private part is given to nobody. Whoever comes by such a key unawares must not save it for one of the TPM, and key
//! agreement does not need it elsewhere: libcrypto comes back to the provider that made the key.

use std::sync::Arc;

use keyrivet_core::algorithm::Curve;
use keyrivet_core::public_key::PublicKey;
use keyrivet_core::{Error, Result};
use zeroize::Zeroizing;

use crate::ffi::core_abi::*;
use crate::ffi::params::ParamList;

/// The capability that lists groups (provider-base(7), "TLS-GROUP").
pub(crate) const GROUPS: &str = "TLS-GROUP";

struct Group {
    /// The names that applications use.
    names: &'static [&'static str],
    /// What libssl calls it towards the provider.
    internal: &'static str,
    curve: Curve,
    /// NamedGroup (RFC 8446, 4.2.7).
    id: i32,
}

const TABLE: [Group; 3] = [
    Group {
        names: &["secp256r1", "P-256", "prime256v1"],
        internal: "keyrivet-tls-secp256r1",
        curve: Curve::P256,
        id: 23,
    },
    Group { names: &["secp384r1", "P-384"], internal: "keyrivet-tls-secp384r1", curve: Curve::P384, id: 24 },
    Group { names: &["secp521r1", "P-521"], internal: "keyrivet-tls-secp521r1", curve: Curve::P521, id: 25 },
];

/// The groups as libssl wants them told.
pub(crate) fn groups() -> impl Iterator<Item = ParamList> {
    TABLE.iter().flat_map(|group| group.names.iter().map(|name| described(group, name)))
}

fn described(group: &Group, name: &str) -> ParamList {
    ParamList::default()
        .text(OSSL_CAPABILITY_TLS_GROUP_NAME, name)
        .text(OSSL_CAPABILITY_TLS_GROUP_NAME_INTERNAL, group.internal)
        .text(OSSL_CAPABILITY_TLS_GROUP_ALG, "EC")
        .number(OSSL_CAPABILITY_TLS_GROUP_ID, group.id)
        .number(OSSL_CAPABILITY_TLS_GROUP_SECURITY_BITS, group.curve.security_bits() as i32)
        .number(OSSL_CAPABILITY_TLS_GROUP_MIN_TLS, TLS1_VERSION as i32)
        .number(OSSL_CAPABILITY_TLS_GROUP_MAX_TLS, 0)
        .number(OSSL_CAPABILITY_TLS_GROUP_MIN_DTLS, DTLS1_VERSION as i32)
        .number(OSSL_CAPABILITY_TLS_GROUP_MAX_DTLS, 0)
}

/// The curve of a group, by the name that only libssl uses.
pub(crate) fn curve_of_group(internal: &str) -> Option<Curve> {
    TABLE.iter().find(|group| group.internal == internal).map(|group| group.curve)
}

/// A key for one handshake.
#[derive(Clone)]
pub(crate) struct Ephemeral {
    /// The private number, big-endian.
    secret: Arc<Zeroizing<Vec<u8>>>,
    public_key: PublicKey,
}

impl Ephemeral {
    /// Makes one, from the system's random numbers.
    pub(crate) fn generate(curve: Curve) -> Result<Self> {
        loop {
            let mut secret = Zeroizing::new(vec![0; curve.coordinate_length()]);
            getrandom::fill(&mut secret).map_err(|error| Error::Unsupported(format!("random numbers: {error}")))?;
            // P-521's top byte has one bit.
            secret[0] &= 0xff >> (8 * curve.coordinate_length() - curve.bits());
            // Numbers that are zero or not below the order are thrown away (FIPS 186-5, A.2.2).
            let point = match curve {
                Curve::P256 => p256::SecretKey::from_slice(&secret).ok().map(|key| key.public_key().to_sec1_bytes()),
                Curve::P384 => p384::SecretKey::from_slice(&secret).ok().map(|key| key.public_key().to_sec1_bytes()),
                Curve::P521 => p521::SecretKey::from_slice(&secret).ok().map(|key| key.public_key().to_sec1_bytes()),
            };
            if let Some(point) = point {
                return Ok(Self { secret: Arc::new(secret), public_key: PublicKey::ec(curve, &point)? });
            }
        }
    }

    /// The x coordinate shared with a peer's point on the same curve.
    pub(crate) fn derive(&self, peer: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let PublicKey::Ec { curve, .. } = self.public_key else { return Err(unfit()) };
        let secret = |bytes: &[u8]| Zeroizing::new(bytes.to_vec());
        Ok(match curve {
            Curve::P256 => {
                let key = p256::SecretKey::from_slice(&self.secret).map_err(|_| unfit())?;
                let peer = p256::PublicKey::from_sec1_bytes(peer).map_err(|_| unfit())?;
                secret(p256::ecdh::diffie_hellman(key.to_nonzero_scalar(), peer.as_affine()).raw_secret_bytes())
            }
            Curve::P384 => {
                let key = p384::SecretKey::from_slice(&self.secret).map_err(|_| unfit())?;
                let peer = p384::PublicKey::from_sec1_bytes(peer).map_err(|_| unfit())?;
                secret(p384::ecdh::diffie_hellman(key.to_nonzero_scalar(), peer.as_affine()).raw_secret_bytes())
            }
            Curve::P521 => {
                let key = p521::SecretKey::from_slice(&self.secret).map_err(|_| unfit())?;
                let peer = p521::PublicKey::from_sec1_bytes(peer).map_err(|_| unfit())?;
                secret(p521::ecdh::diffie_hellman(key.to_nonzero_scalar(), peer.as_affine()).raw_secret_bytes())
            }
        })
    }

    /// The public key.
    pub(crate) fn public_key(&self) -> &PublicKey {
        &self.public_key
    }
}

fn unfit() -> Error {
    Error::Unsupported("key agreement with a key on another curve".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_curve_has_ephemeral_keys_and_no_two_are_equal() {
        for curve in Curve::all() {
            let (one, other) = (Ephemeral::generate(curve).unwrap(), Ephemeral::generate(curve).unwrap());
            assert_ne!(one.secret, other.secret);
            assert!(matches!(one.public_key(), PublicKey::Ec { curve: its, .. } if *its == curve));
            let point = |key: &Ephemeral| match key.public_key() {
                PublicKey::Ec { point, .. } => point.clone(),
                PublicKey::Rsa { .. } => Vec::new(),
            };
            assert_eq!(one.derive(&point(&other)).unwrap(), other.derive(&point(&one)).unwrap());
            assert!(one.derive(&[4; 65]).is_err());
        }
    }
}
