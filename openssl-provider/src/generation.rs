//! A key under generation: into a key file, or into the token that a `pkcs11:` URI names.

use std::ffi::CStr;
use std::sync::Arc;

use keyrivet_core::algorithm::{Curve, HashAlgorithm, KeyKind, KeySpec};
use keyrivet_core::key::Key;
use keyrivet_core::object::{Attributes, Object, Part, Query};
use keyrivet_core::policy::{PcrPolicy, PcrSelection};
use keyrivet_core::public_key::PublicKey;
use keyrivet_core::token::{Token, User};
use keyrivet_core::uri::{Pkcs11Uri, UriType};
use keyrivet_core::{Error, Result};
use zeroize::Zeroizing;

use crate::ffi::core_abi::*;
use crate::ffi::params::{Descriptor, Kind, Param, Params};
use crate::key::{Family, Material, ProviderKey, hash_by_name};
use crate::provider::Provider;
use crate::tls::{self, Ephemeral};
use crate::tpm_uri;

/// Our own parameters. Where the key is to live in a token ...
const URI: &CStr = c"uri";
/// ... or under which parent a key file's key is: a handle, or a hierarchy's name.
const PARENT: &CStr = c"parent";
/// The authValue of that parent, or of the hierarchy.
const PARENT_AUTH: &CStr = c"parent-auth";
/// The authValue of a key file's key.
const USER_AUTH: &CStr = c"user-auth";
/// PCRs to whose present values the key is bound, as in `sha256:0,7`.
const PCRS: &CStr = c"pcrs";
/// The digest of the PCR policy, where it is not that of the present values.
const POLICY: &CStr = c"policy";
/// Not 0: the key of a token stays in the TPM too.
const PERSISTENT: &CStr = c"persistent";
/// Hierarchies by name (TPM 2.0 Part 2, 7.4).
const HIERARCHIES: [(&str, u32); 4] =
    [("owner", 0x4000_0001), ("null", 0x4000_0007), ("endorsement", 0x4000_000b), ("platform", 0x4000_000c)];
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
    persistent: bool,
    file: FileWishes,
    pss: PssWishes,
}

/// What a key file's key is to be like.
#[derive(Default)]
struct FileWishes {
    parent: Option<u32>,
    parent_auth: Option<Zeroizing<Vec<u8>>>,
    user_auth: Zeroizing<Vec<u8>>,
    pcrs: Option<PcrSelection>,
    policy: Option<Vec<u8>>,
}

impl FileWishes {
    fn set(&mut self, params: &Params<'_>) -> Result<()> {
        let secret = |param: Param<'_>| param.octets().map(|octets| Zeroizing::new(octets.to_vec()));
        if let Some(parent) = params.get(PARENT) {
            self.parent = Some(parent_handle(&parent)?);
        }
        if let Some(auth) = params.get(PARENT_AUTH) {
            self.parent_auth = Some(secret(auth)?);
        }
        if let Some(auth) = params.get(USER_AUTH) {
            self.user_auth = secret(auth)?;
        }
        if let Some(pcrs) = params.get(PCRS) {
            self.pcrs = Some(pcrs.text()?.parse()?);
        }
        if let Some(policy) = params.get(POLICY) {
            self.policy = Some(policy.octets()?.to_vec());
        }
        Ok(())
    }

    fn is_default(&self) -> bool {
        let Self { parent, parent_auth, user_auth, pcrs, policy } = self;
        parent.is_none() && parent_auth.is_none() && user_auth.is_empty() && pcrs.is_none() && policy.is_none()
    }

    /// What a token decides by itself.
    fn names_what_tokens_decide(&self) -> bool {
        self.parent.is_some() || self.parent_auth.is_some() || !self.user_auth.is_empty()
    }

    fn policy(&self) -> Result<Option<PcrPolicy>> {
        match (&self.pcrs, &self.policy) {
            (Some(pcrs), digest) => Ok(Some(PcrPolicy { pcrs: pcrs.clone(), digest: digest.clone() })),
            (None, None) => Ok(None),
            (None, Some(_)) => {
                Err(Error::Unsupported("a policy digest without the PCRs it is of: set pcrs too".into()))
            }
        }
    }
}

fn parent_handle(param: &Param<'_>) -> Result<u32> {
    let wrong =
        || Error::DataInvalid("a parent is a handle, as 0x81000001, or owner, endorsement, platform, null".into());
    if !param.is_text() {
        return u32::try_from(param.integer()?).map_err(|_| wrong());
    }
    let text = param.text()?;
    let named = HIERARCHIES.iter().find(|(name, _)| *name == text).map(|(_, handle)| *handle);
    named.or_else(|| tpm_uri::number(text)).ok_or_else(wrong)
}

/// What an RSA-PSS key is to be limited to.
struct PssWishes {
    hash: HashAlgorithm,
    mgf_hash: Option<HashAlgorithm>,
    salt_length: Option<i64>,
}

impl PssWishes {
    /// The hash that the key is made for, if a TPM can keep to the rest: it uses one hash, and salts of its length.
    fn checked_hash(&self) -> Result<HashAlgorithm> {
        if self.mgf_hash.is_some_and(|hash| hash != self.hash) {
            return Err(Error::Unsupported("RSA-PSS keys with another hash in MGF1 than for the message".into()));
        }
        match self.salt_length {
            Some(length) if usize::try_from(length) != Ok(self.hash.digest_length()) => {
                Err(Error::Unsupported(format!(
                    "RSA-PSS keys with salts of {length} bytes: a TPM makes them as long as the digest, {} bytes",
                    self.hash.digest_length()
                )))
            }
            _ => Ok(self.hash),
        }
    }
}

impl Generation {
    /// Starts with the defaults.
    pub(crate) fn new(provider: Arc<Provider>, family: Family, selection: u32) -> Self {
        let parameters_only = selection & OSSL_KEYMGMT_SELECT_KEYPAIR == 0;
        Self {
            provider,
            family,
            parameters_only,
            bits: 2048,
            curve: None,
            ephemeral: false,
            uri: None,
            persistent: false,
            file: FileWishes::default(),
            pss: PssWishes { hash: HashAlgorithm::Sha256, mgf_hash: None, salt_length: None },
        }
    }

    /// The provider it belongs to.
    pub(crate) fn provider(&self) -> &Arc<Provider> {
        &self.provider
    }

    /// What [`Self::set`] takes.
    pub(crate) fn settable(family: Family) -> &'static [Descriptor] {
        static RSA: [Descriptor; 11] = [
            Descriptor::new(OSSL_PKEY_PARAM_RSA_BITS, Kind::Unsigned),
            Descriptor::new(OSSL_PKEY_PARAM_RSA_PRIMES, Kind::Unsigned),
            Descriptor::new(OSSL_PKEY_PARAM_RSA_E, Kind::Unsigned),
            Descriptor::new(URI, Kind::Text),
            Descriptor::new(PARENT, Kind::Text),
            Descriptor::new(PARENT_AUTH, Kind::Octets),
            Descriptor::new(USER_AUTH, Kind::Octets),
            Descriptor::new(PCRS, Kind::Text),
            Descriptor::new(POLICY, Kind::Octets),
            Descriptor::new(PERSISTENT, Kind::Unsigned),
            Descriptor::END,
        ];
        static EC: [Descriptor; 10] = [
            Descriptor::new(OSSL_PKEY_PARAM_GROUP_NAME, Kind::Text),
            Descriptor::new(OSSL_PKEY_PARAM_EC_ENCODING, Kind::Text),
            Descriptor::new(URI, Kind::Text),
            Descriptor::new(PARENT, Kind::Text),
            Descriptor::new(PARENT_AUTH, Kind::Octets),
            Descriptor::new(USER_AUTH, Kind::Octets),
            Descriptor::new(PCRS, Kind::Text),
            Descriptor::new(POLICY, Kind::Octets),
            Descriptor::new(PERSISTENT, Kind::Unsigned),
            Descriptor::END,
        ];
        static RSA_PSS: [Descriptor; 15] = [
            Descriptor::new(OSSL_PKEY_PARAM_RSA_BITS, Kind::Unsigned),
            Descriptor::new(OSSL_PKEY_PARAM_RSA_PRIMES, Kind::Unsigned),
            Descriptor::new(OSSL_PKEY_PARAM_RSA_E, Kind::Unsigned),
            Descriptor::new(OSSL_PKEY_PARAM_RSA_DIGEST, Kind::Text),
            Descriptor::new(OSSL_PKEY_PARAM_RSA_MASKGENFUNC, Kind::Text),
            Descriptor::new(OSSL_PKEY_PARAM_RSA_MGF1_DIGEST, Kind::Text),
            Descriptor::new(OSSL_PKEY_PARAM_RSA_PSS_SALTLEN, Kind::Integer),
            Descriptor::new(URI, Kind::Text),
            Descriptor::new(PARENT, Kind::Text),
            Descriptor::new(PARENT_AUTH, Kind::Octets),
            Descriptor::new(USER_AUTH, Kind::Octets),
            Descriptor::new(PCRS, Kind::Text),
            Descriptor::new(POLICY, Kind::Octets),
            Descriptor::new(PERSISTENT, Kind::Unsigned),
            Descriptor::END,
        ];
        match family {
            Family::Rsa => &RSA,
            Family::RsaPss => &RSA_PSS,
            Family::Ec => &EC,
        }
    }

    /// Takes parameters.
    pub(crate) fn set(&mut self, params: &Params<'_>) -> Result<()> {
        if let Some(uri) = params.get(URI) {
            self.uri = Some(Pkcs11Uri::parse(uri.text()?)?);
        }
        if let Some(persistent) = params.get(PERSISTENT) {
            self.persistent = persistent.integer()? != 0;
        }
        self.file.set(params)?;
        match self.family {
            Family::Rsa => self.set_rsa(params),
            Family::RsaPss => {
                self.set_rsa(params)?;
                self.set_pss(params)
            }
            Family::Ec => self.set_ec(params),
        }
    }

    fn set_rsa(&mut self, params: &Params<'_>) -> Result<()> {
        if let Some(bits) = params.get(OSSL_PKEY_PARAM_RSA_BITS) {
            let bits = bits.integer()?;
            self.bits = u16::try_from(bits).map_err(|_| Error::Unsupported(format!("RSA keys of {bits} bits")))?;
        }
        if let Some(primes) = params.get(OSSL_PKEY_PARAM_RSA_PRIMES) {
            if primes.integer()? != 2 {
                return Err(Error::Unsupported("RSA keys of more than two primes".into()));
            }
        }
        if let Some(exponent) = params.get(OSSL_PKEY_PARAM_RSA_E) {
            if exponent.big_number()? != EXPONENT {
                return Err(Error::Unsupported("RSA keys with an exponent other than 65537".into()));
            }
        }
        Ok(())
    }

    fn set_pss(&mut self, params: &Params<'_>) -> Result<()> {
        if let Some(hash) = params.get(OSSL_PKEY_PARAM_RSA_DIGEST) {
            self.pss.hash = hash_by_name(hash.text()?)?;
        }
        if let Some(hash) = params.get(OSSL_PKEY_PARAM_RSA_MGF1_DIGEST) {
            self.pss.mgf_hash = Some(hash_by_name(hash.text()?)?);
        }
        if let Some(length) = params.get(OSSL_PKEY_PARAM_RSA_PSS_SALTLEN) {
            self.pss.salt_length = Some(length.integer()?);
        }
        Ok(())
    }

    fn set_ec(&mut self, params: &Params<'_>) -> Result<()> {
        if let Some(group) = params.get(OSSL_PKEY_PARAM_GROUP_NAME) {
            let name = group.text()?;
            let of_tls = tls::curve_of_group(name);
            self.ephemeral = of_tls.is_some();
            let unknown = || Error::Unsupported(format!("the curve {name}: TPMs have P-256, P-384 and P-521"));
            self.curve = Some(of_tls.or_else(|| Curve::from_name(name)).ok_or_else(unknown)?);
        }
        if let Some(encoding) = params.get(OSSL_PKEY_PARAM_EC_ENCODING) {
            if encoding.text()? != "named_curve" {
                return Err(Error::Unsupported("EC keys with explicit parameters".into()));
            }
        }
        Ok(())
    }

    /// Takes the parameters of another key.
    ///
    /// Whoever makes a key after the model of somebody else's wants it to agree with that one on a secret, once (TLS, CMS).
    pub(crate) fn set_template(&mut self, template: &ProviderKey) -> bool {
        self.curve = template.curve().or(self.curve);
        let of_somebody_else = template.public_key().is_some() && template.private_key().is_none();
        self.ephemeral |= template.is_ephemeral() || of_somebody_else;
        template.family() == self.family
    }

    /// Makes the key.
    pub(crate) fn generate(&self) -> Result<ProviderKey> {
        let kind = match self.family {
            Family::Rsa => KeyKind::Rsa { bits: self.bits },
            Family::RsaPss => KeyKind::RsaPss { bits: self.bits, hash: self.pss.checked_hash()? },
            Family::Ec => {
                let curve = self.curve.ok_or_else(|| {
                    Error::Unsupported("EC keys without a curve: give one, e.g. -pkeyopt group:P-256".into())
                })?;
                let for_tls = self.provider.may_make_keys_for_tls() && self.uri.is_none() && self.file.is_default();
                let material = match (self.parameters_only, self.ephemeral || for_tls && !self.parameters_only) {
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
        let spec = KeySpec { kind, sign: true, decrypt: self.family != Family::RsaPss };
        let policy = self.file.policy()?;
        let key = match &self.uri {
            Some(_) if self.file.names_what_tokens_decide() => {
                return Err(Error::Unsupported(
                    "parent, parent-auth and user-auth of a key in a token: its own parent and PIN hold".into(),
                ));
            }
            Some(uri) => self.generate_into(&one_token(&self.provider, uri)?, uri, spec, policy.as_ref())?,
            None if self.persistent => {
                return Err(Error::Unsupported("persistent keys outside a token: give a uri, too".into()));
            }
            None => self.generate_file(spec, policy.as_ref())?,
        };
        Ok(ProviderKey::private(Arc::clone(&self.provider), key))
    }
}

impl Generation {
    /// Makes a key for a key file.
    fn generate_file(&self, spec: KeySpec, policy: Option<&PcrPolicy>) -> Result<Key> {
        let FileWishes { parent, parent_auth, user_auth, .. } = &self.file;
        let keyrivet = self.provider.keyrivet()?;
        let parent = (*parent, parent_auth.as_ref().map(|auth| auth.as_slice()));
        let mut key = keyrivet.key_from_tss2(&keyrivet.generate_tss2(spec, user_auth, parent, policy)?)?;
        if !user_auth.is_empty() {
            key.authorise(user_auth.clone());
        }
        if let Some(auth) = parent_auth {
            key.authorise_parent(auth.clone());
        }
        Ok(key)
    }

    /// Makes a key in a token, with the label and id that the URI gives.
    fn generate_into(
        &self,
        token: &Arc<Token>,
        uri: &Pkcs11Uri,
        spec: KeySpec,
        policy: Option<&PcrPolicy>,
    ) -> Result<Key> {
        if !matches!(uri.kind, None | Some(UriType::PrivateKey)) {
            return Err(Error::Unsupported("generating anything but a private key".into()));
        }
        refuse_a_second(token, uri)?;
        if !token.is_open() {
            token.login(User::User, &uri.pin()?.ok_or(Error::NotLoggedIn)?)?;
        }
        let (private, public) = attributes(uri, spec);
        let mut object = token.generate(spec, policy, private, public)?;
        if uri.id.is_none() {
            give_id(&mut object);
        }
        token.insert(&object)?;
        if self.persistent {
            token.place_new(&object)?;
        }
        token.key(&*token.object(object.id)?)
    }
}

/// The token that the URI names, if it names exactly one.
fn one_token(provider: &Provider, uri: &Pkcs11Uri) -> Result<Arc<Token>> {
    let mut matching = provider.keyrivet()?.tokens_named(uri)?.into_iter();
    match (matching.next(), matching.next()) {
        (Some(token), None) => Ok(token),
        (Some(_), Some(_)) => Err(Error::Malformed {
            what: "pkcs11: URI",
            reason: "several tokens match it: name one by its label or its serial number".into(),
        }),
        (None, _) => Err(Error::TokenNotFound("a token that matches the pkcs11: URI".into())),
    }
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
    let rsa = !matches!(spec.kind, KeyKind::Ec(_));
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
