//! A key under generation: into a key file, or into the token that a `pkcs11:` URI names.

use std::sync::Arc;

use keyrivet_core::algorithm::{Curve, HashAlgorithm, KeyKind, KeySpec};
use keyrivet_core::key::Key;
use keyrivet_core::object::{Attributes, Object, Part, Query};
use keyrivet_core::public_key::PublicKey;
use keyrivet_core::token::{Token, User};
use keyrivet_core::uri::{Pkcs11Uri, UriType};
use keyrivet_core::{Error, Result};

use crate::ffi::core_abi::*;
use crate::ffi::params::{Descriptor, Kind, Params};
use crate::key::{Family, Material, ProviderKey};
use crate::provider::Provider;
use crate::store::tokens;
use crate::tls::{self, Ephemeral};

/// Our own parameter: where the key is to live.
const URI: &std::ffi::CStr = c"uri";
/// The one public exponent that every TPM has.
const EXPONENT: [u8; 3] = [1, 0, 1];

/// A key under generation.
pub(crate) struct Generation {
    provider: Arc<Provider>,
    family: Family,
    /// Only parameters (a curve) are wanted, no key.
    parameters_only: bool,
    bits: u16,
    curve: Option<Curve>,
    /// For one TLS handshake: never in the TPM.
    ephemeral: bool,
    uri: Option<Pkcs11Uri>,
}

impl Generation {
    /// Starts with the defaults.
    pub(crate) fn new(provider: Arc<Provider>, family: Family, selection: u32) -> Self {
        let parameters_only = selection & OSSL_KEYMGMT_SELECT_KEYPAIR == 0;
        Self { provider, family, parameters_only, bits: 2048, curve: None, ephemeral: false, uri: None }
    }

    /// The provider it belongs to.
    pub(crate) fn provider(&self) -> &Arc<Provider> {
        &self.provider
    }

    /// What [`Self::set`] takes.
    pub(crate) fn settable(family: Family) -> &'static [Descriptor] {
        static RSA: [Descriptor; 5] = [
            Descriptor::new(OSSL_PKEY_PARAM_RSA_BITS, Kind::Unsigned),
            Descriptor::new(OSSL_PKEY_PARAM_RSA_PRIMES, Kind::Unsigned),
            Descriptor::new(OSSL_PKEY_PARAM_RSA_E, Kind::Unsigned),
            Descriptor::new(URI, Kind::Text),
            Descriptor::END,
        ];
        static EC: [Descriptor; 4] = [
            Descriptor::new(OSSL_PKEY_PARAM_GROUP_NAME, Kind::Text),
            Descriptor::new(OSSL_PKEY_PARAM_EC_ENCODING, Kind::Text),
            Descriptor::new(URI, Kind::Text),
            Descriptor::END,
        ];
        match family {
            Family::Rsa => &RSA,
            Family::Ec => &EC,
        }
    }

    /// Takes parameters.
    pub(crate) fn set(&mut self, params: &Params<'_>) -> Result<()> {
        let unsupported = |what: String| Err(Error::Unsupported(what));
        if let Some(uri) = params.get(URI) {
            self.uri = Some(Pkcs11Uri::parse(uri.text()?)?);
        }
        match self.family {
            Family::Rsa => {
                if let Some(bits) = params.get(OSSL_PKEY_PARAM_RSA_BITS) {
                    let bits = bits.integer()?;
                    let Ok(bits) = u16::try_from(bits) else { return unsupported(format!("RSA keys of {bits} bits")) };
                    self.bits = bits;
                }
                if let Some(primes) = params.get(OSSL_PKEY_PARAM_RSA_PRIMES) {
                    if primes.integer()? != 2 {
                        return unsupported("RSA keys of more than two primes".into());
                    }
                }
                if let Some(exponent) = params.get(OSSL_PKEY_PARAM_RSA_E) {
                    if exponent.big_number()? != EXPONENT {
                        return unsupported("RSA keys with an exponent other than 65537".into());
                    }
                }
            }
            Family::Ec => {
                if let Some(group) = params.get(OSSL_PKEY_PARAM_GROUP_NAME) {
                    let name = group.text()?;
                    let of_tls = tls::curve_of_group(name);
                    self.ephemeral = of_tls.is_some();
                    self.curve = of_tls.or_else(|| Curve::from_name(name));
                    if self.curve.is_none() {
                        return unsupported(format!("the curve {name}: TPMs have P-256, P-384 and P-521"));
                    }
                }
                if let Some(encoding) = params.get(OSSL_PKEY_PARAM_EC_ENCODING) {
                    if encoding.text()? != "named_curve" {
                        return unsupported("EC keys with explicit parameters".into());
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes the parameters of another key.
    ///
    /// Whoever makes a key after the model of another wants it to agree with that one on a secret, once (TLS, CMS).
    pub(crate) fn set_template(&mut self, template: &ProviderKey) -> bool {
        self.curve = template.curve().or(self.curve);
        self.ephemeral |= template.is_ephemeral() || template.public_key().is_some();
        template.family() == self.family
    }

    /// Makes the key.
    pub(crate) fn generate(&self) -> Result<ProviderKey> {
        let kind = match self.family {
            Family::Rsa => KeyKind::Rsa { bits: self.bits },
            Family::Ec => {
                let curve = self.curve.ok_or_else(|| {
                    Error::Unsupported("EC keys without a curve: give one, e.g. -pkeyopt group:P-256".into())
                })?;
                let material = match (self.parameters_only, self.ephemeral) {
                    (true, true) => return Ok(ProviderKey::ephemeral_curve(Arc::clone(&self.provider), curve)),
                    (true, false) => Some(Material::Curve(curve)),
                    (false, true) => Some(Material::Ephemeral(Ephemeral::generate(curve)?)),
                    (false, false) => None,
                };
                if let Some(material) = material {
                    return Ok(ProviderKey::new(Arc::clone(&self.provider), self.family, material));
                }
                KeyKind::Ec(curve)
            }
        };
        // What OpenSSL's own keys may do, so may these: sign, and decrypt or derive.
        let spec = KeySpec { kind, sign: true, decrypt: true };
        let key = match &self.uri {
            Some(uri) => generate_into(&one_token(&self.provider, uri)?, uri, spec)?,
            None => {
                let keyrivet = self.provider.keyrivet()?;
                keyrivet.key_from_tss2(&keyrivet.generate_tss2(spec, b"", None, None)?)?
            }
        };
        Ok(ProviderKey::private(Arc::clone(&self.provider), key))
    }
}

/// The token that the URI names, if it names exactly one.
fn one_token(provider: &Provider, uri: &Pkcs11Uri) -> Result<Arc<Token>> {
    let mut matching = tokens(provider, uri)?.into_iter();
    match (matching.next(), matching.next()) {
        (Some(token), None) => Ok(token),
        (Some(_), Some(_)) => Err(Error::Malformed {
            what: "pkcs11: URI",
            reason: "several tokens match it: name one by its label or its serial number".into(),
        }),
        (None, _) => Err(Error::NotFound("a token that matches the pkcs11: URI".into())),
    }
}

/// Makes a key in a token, with the label and id that the URI gives.
fn generate_into(token: &Arc<Token>, uri: &Pkcs11Uri, spec: KeySpec) -> Result<Key> {
    if !matches!(uri.kind, None | Some(UriType::PrivateKey)) {
        return Err(Error::Unsupported("generating anything but a private key".into()));
    }
    refuse_a_second(token, uri)?;
    if !token.is_open() {
        token.login(User::User, &uri.pin()?.ok_or(Error::NotLoggedIn)?)?;
    }
    let (private, public) = attributes(uri, spec);
    let mut object = token.generate(spec, None, private, public)?;
    if uri.id.is_none() {
        give_id(&mut object);
    }
    token.insert(&object)?;
    token.key(&object)
}

/// Two private keys under one name would leave it open which one the URI means.
fn refuse_a_second(token: &Token, uri: &Pkcs11Uri) -> Result<()> {
    if uri.object.is_none() && uri.id.is_none() {
        return Ok(());
    }
    let query = Query { part: Some(Part::PrivateKey), id: uri.id.clone(), label: uri.object.clone() };
    let twin = token.find(&query)?.into_iter().any(|object| {
        object.attributes(Part::PrivateKey).is_some_and(|attributes| {
            uri.object.as_ref().is_none_or(|label| *label == attributes.label)
                && uri.id.as_ref().is_none_or(|id| *id == attributes.id)
        })
    });
    if twin {
        return Err(Error::Unsupported(
            "a second private key under this name: the token has one already, give another object or id".into(),
        ));
    }
    Ok(())
}

fn attributes(uri: &Pkcs11Uri, spec: KeySpec) -> (Attributes, Attributes) {
    let rsa = matches!(spec.kind, KeyKind::Rsa { .. });
    let public = Attributes {
        label: uri.object.clone().unwrap_or_default(),
        id: uri.id.clone().unwrap_or_default(),
        sign: spec.sign,
        decrypt: spec.decrypt && rsa,
        ..Attributes::default()
    };
    let private = Attributes { private: true, derive: spec.decrypt && !rsa, ..public.clone() };
    (private, public)
}

/// The id that most programs give: the SHA-1 of the modulus or point, as NSS does.
fn give_id(object: &mut Object) {
    let id = match object.public_key() {
        Some(PublicKey::Rsa { modulus, .. }) => HashAlgorithm::Sha1.digest(modulus),
        Some(PublicKey::Ec { point, .. }) => HashAlgorithm::Sha1.digest(point),
        None => return,
    };
    for part in [Part::PrivateKey, Part::PublicKey] {
        if let Some(attributes) = object.attributes_mut(part) {
            attributes.id.clone_from(&id);
        }
    }
}
