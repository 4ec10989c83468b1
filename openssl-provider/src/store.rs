//! What a URI names, one object after the other: `pkcs11:` URIs here, `handle:` and `object:` in `tpm_uri`.
//!
//! Certificates and public keys need no PIN; a private key's token is opened when the key is taken, not before.

use std::collections::VecDeque;
use std::sync::Arc;

use keyrivet_core::object::{Body, Object, Part};
use keyrivet_core::public_key::PublicKey;
use keyrivet_core::token::{Token, User, UserPin};
use keyrivet_core::uri::{Pkcs11Uri, UriType};
use keyrivet_core::{Error, Result};

use crate::certificate;
use crate::ffi::callback::{Callback, Passphrase};
use crate::ffi::core_abi::*;
use crate::ffi::params::{Descriptor, Kind, ParamList, Params};
use crate::key::{Family, ProviderKey};
use crate::provider::Provider;
use crate::tpm_uri::{self, TpmObject};

/// One thing to be loaded.
enum Entry {
    PrivateKey(Arc<Token>, Arc<Object>),
    PublicKey(PublicKey),
    Certificate { der: Vec<u8>, label: String },
    Tpm(TpmObject),
}

/// What is asked for, among what the URI names.
#[derive(Default)]
struct Wish {
    /// The only kind of object that is wanted (`OSSL_STORE_INFO`).
    kind: Option<u32>,
    /// The DER of a certificate's subject.
    subject: Option<Vec<u8>>,
    /// The DER of a certificate's issuer.
    issuer: Option<Vec<u8>>,
    /// A certificate's serial number, big-endian.
    serial: Option<Vec<u8>>,
    /// A label.
    label: Option<String>,
}

impl Wish {
    /// Whether an object may be it, as far as can be told without the TPM.
    fn allows(&self, entry: &Entry) -> bool {
        let kind = |kind| self.kind.is_none_or(|wanted| wanted == kind);
        let named = |label: Option<&str>| self.label.is_none() || self.label.as_deref() == label;
        let searched = self.subject.is_some() || self.issuer.is_some() || self.serial.is_some();
        match entry {
            Entry::PrivateKey(_, object) => {
                let label = object.attributes(Part::PrivateKey).map(|attributes| attributes.label.as_str());
                kind(OSSL_STORE_INFO_PKEY) && !searched && named(label)
            }
            Entry::PublicKey(_) => kind(OSSL_STORE_INFO_PUBKEY) && !searched && self.label.is_none(),
            Entry::Certificate { der, label } => {
                kind(OSSL_STORE_INFO_CERT) && named(Some(label)) && self.allows_certificate(der)
            }
            // Names are told whatever is expected (OSSL_STORE_expect(3)).
            Entry::Tpm(TpmObject::Name(_)) => !searched && self.label.is_none(),
            Entry::Tpm(TpmObject::Key(..)) => {
                (kind(OSSL_STORE_INFO_PKEY) || kind(OSSL_STORE_INFO_PUBKEY)) && !searched && self.label.is_none()
            }
            Entry::Tpm(TpmObject::Nv(_)) => self.label.is_none(),
        }
    }

    fn allows_certificate(&self, der: &[u8]) -> bool {
        let is = |wanted: &Option<Vec<u8>>, found: fn(&[u8]) -> Option<Vec<u8>>| {
            wanted.is_none() || found(der).as_ref() == wanted.as_ref()
        };
        is(&self.subject, certificate::subject)
            && is(&self.issuer, certificate::issuer)
            && is(&self.serial, certificate::serial)
    }
}

/// An opened URI.
pub(crate) struct Store {
    provider: Arc<Provider>,
    /// Of a `pkcs11:` URI, for its PIN.
    uri: Option<Pkcs11Uri>,
    wish: Wish,
    entries: VecDeque<Entry>,
    /// The last object could not be loaded, which programs hear of only before the end.
    stumbled: bool,
}

impl Store {
    /// Opens a URI of any scheme of ours.
    pub(crate) fn open(provider: Arc<Provider>, uri: &str) -> Result<Self> {
        match tpm_uri::objects(&provider, uri)? {
            Some(objects) => {
                let entries = objects.into_iter().map(Entry::Tpm).collect();
                Ok(Self { provider, uri: None, wish: Wish::default(), entries, stumbled: false })
            }
            None => Self::open_pkcs11(provider, Pkcs11Uri::parse(uri)?),
        }
    }

    /// Finds what a `pkcs11:` URI names. Costs no TPM command and needs no PIN.
    pub(crate) fn open_pkcs11(provider: Arc<Provider>, uri: Pkcs11Uri) -> Result<Self> {
        let tokens = provider.keyrivet()?.tokens_named(&uri)?;
        if tokens.is_empty() {
            return Err(Error::TokenNotFound(format!(
                "a token that matches the URI{}",
                described(uri.token.as_deref())
            )));
        }
        let mut entries = VecDeque::new();
        for part in [Part::PrivateKey, Part::PublicKey, Part::Certificate] {
            if !named_by_type(&uri, part) {
                continue;
            }
            for token in &tokens {
                entries
                    .extend(token.find_named(&uri, part)?.into_iter().filter_map(|object| entry(token, object, part)));
            }
        }
        if entries.is_empty() && (uri.object.is_some() || uri.id.is_some() || uri.kind.is_some()) {
            return Err(Error::NotFound(format!("an object that matches the URI{}", described(uri.object.as_deref()))));
        }
        Ok(Self { provider, uri: Some(uri), wish: Wish::default(), entries, stumbled: false })
    }

    /// The provider it belongs to.
    pub(crate) fn provider(&self) -> &Arc<Provider> {
        &self.provider
    }

    /// What [`Self::set`] takes.
    pub(crate) fn settable() -> &'static [Descriptor] {
        static SETTABLE: [Descriptor; 7] = [
            Descriptor::new(OSSL_STORE_PARAM_EXPECT, Kind::Integer),
            Descriptor::new(OSSL_STORE_PARAM_PROPERTIES, Kind::Text),
            Descriptor::new(OSSL_STORE_PARAM_SUBJECT, Kind::Octets),
            Descriptor::new(OSSL_STORE_PARAM_ISSUER, Kind::Octets),
            Descriptor::new(OSSL_STORE_PARAM_SERIAL, Kind::Unsigned),
            Descriptor::new(OSSL_STORE_PARAM_ALIAS, Kind::Text),
            Descriptor::END,
        ];
        &SETTABLE
    }

    /// Takes parameters.
    pub(crate) fn set(&mut self, params: &Params<'_>) -> Result<()> {
        let wish = &mut self.wish;
        if let Some(expected) = params.get(OSSL_STORE_PARAM_EXPECT) {
            let expected = expected.integer()?;
            // 0 stands for no expectation.
            wish.kind = u32::try_from(expected).ok().filter(|&expected| expected != 0);
        }
        if let Some(subject) = params.get(OSSL_STORE_PARAM_SUBJECT) {
            wish.subject = Some(subject.octets()?.to_vec());
        }
        if let Some(issuer) = params.get(OSSL_STORE_PARAM_ISSUER) {
            wish.issuer = Some(issuer.octets()?.to_vec());
        }
        if let Some(serial) = params.get(OSSL_STORE_PARAM_SERIAL) {
            wish.serial = Some(serial.big_number()?);
        }
        if let Some(label) = params.get(OSSL_STORE_PARAM_ALIAS) {
            wish.label = Some(label.text()?.to_owned());
        }
        Ok(())
    }

    /// Only objects of this kind from now on.
    pub(crate) fn expect(&mut self, kind: u32) {
        self.wish.kind = Some(kind);
    }

    fn next(&mut self) -> Option<Entry> {
        let wish = &self.wish;
        self.entries.retain(|entry| wish.allows(entry));
        self.entries.pop_front()
    }

    /// Whether nothing is left.
    pub(crate) fn is_at_end(&self) -> bool {
        !self.stumbled && !self.entries.iter().any(|entry| self.wish.allows(entry))
    }

    /// Gives the next object; says whether it was taken.
    pub(crate) fn load(&mut self, taker: &Callback, passphrase: &Passphrase) -> Result<bool> {
        let loaded = self.load_next(taker, passphrase);
        self.stumbled = loaded.is_err();
        loaded
    }

    fn load_next(&mut self, taker: &Callback, passphrase: &Passphrase) -> Result<bool> {
        match self.next() {
            Some(Entry::Certificate { der, .. }) => Ok(give_certificate(&der, taker)),
            Some(Entry::Tpm(TpmObject::Name(uri))) => {
                let params = ParamList::default()
                    .number(OSSL_OBJECT_PARAM_TYPE, OSSL_OBJECT_NAME as i32)
                    .text(OSSL_OBJECT_PARAM_DATA, &uri);
                Ok(taker.give(&params))
            }
            Some(Entry::Tpm(TpmObject::Nv(index))) => {
                let content = self.provider.keyrivet()?.nv_content(index)?;
                match tpm_uri::key_in_nv(&self.provider, &content, passphrase)? {
                    Some(key) => Ok(self.wish.subject.is_none() && taker.give_key(key)),
                    None => {
                        let der = self.provider.keyrivet()?.certificate_in(&content)?;
                        Ok(self.wish.allows_certificate(&der) && give_certificate(&der, taker))
                    }
                }
            }
            Some(entry) => {
                let token = if let Entry::PrivateKey(token, _) = &entry { Some(Arc::clone(token)) } else { None };
                let key = self.key(entry, passphrase).inspect_err(|_| self.give_up(token.as_ref()))?;
                Ok(key.is_some_and(|key| taker.give_key(key)))
            }
            None => Ok(false),
        }
    }

    /// Passes over the other keys of a token that could not be opened: to try a wrong PIN for each of them would use up the tries
    /// that the TPM allows.
    fn give_up(&mut self, token: Option<&Arc<Token>>) {
        let closed = token.filter(|token| !token.is_open());
        self.entries.retain(|entry| match (entry, closed) {
            (Entry::PrivateKey(token, _), Some(closed)) => !Arc::ptr_eq(token, closed),
            _ => true,
        });
    }

    /// The first key, if it is of this type.
    pub(crate) fn first_key(mut self, family: Family, passphrase: &Passphrase) -> Result<Option<ProviderKey>> {
        let entry = self.next().ok_or_else(|| {
            Error::NotFound("a key of the kind that is needed, among what the URI in the file names,".into())
        })?;
        let found = match &entry {
            Entry::PrivateKey(_, object) => family_of(object),
            Entry::PublicKey(public_key) => Some(Family::of(public_key)),
            Entry::Certificate { .. } => None,
            // Only the TPM knows; nobody is asked twice.
            Entry::Tpm(_) => None,
        };
        if found == Some(family) { self.key(entry, passphrase) } else { Ok(None) }
    }

    /// The key of an entry, its token opened where that is needed.
    fn key(&self, entry: Entry, passphrase: &Passphrase) -> Result<Option<ProviderKey>> {
        let provider = Arc::clone(&self.provider);
        match entry {
            Entry::PrivateKey(token, object) => {
                open_token(&token, self.uri.as_ref(), passphrase)?;
                Ok(Some(ProviderKey::private(provider, token.key(&object)?)))
            }
            Entry::PublicKey(public_key) => Ok(Some(ProviderKey::public(provider, public_key))),
            Entry::Tpm(TpmObject::Key(place, auth)) => {
                let key = place.key(&provider, &auth, passphrase)?;
                Ok(Some(match self.wish.kind {
                    Some(OSSL_STORE_INFO_PUBKEY) => ProviderKey::public(provider, key.public_key().clone()),
                    _ => ProviderKey::private(provider, key),
                }))
            }
            Entry::Certificate { .. } | Entry::Tpm(TpmObject::Name(_) | TpmObject::Nv(_)) => Ok(None),
        }
    }
}

fn give_certificate(der: &[u8], taker: &Callback) -> bool {
    let params = ParamList::default()
        .number(OSSL_OBJECT_PARAM_TYPE, OSSL_OBJECT_CERT as i32)
        .octets(OSSL_OBJECT_PARAM_DATA, der);
    taker.give(&params)
}

/// The type of an object's private key.
fn family_of(object: &Object) -> Option<Family> {
    match &object.body {
        Body::KeyPair { key, .. } => Family::of_area(&key.public_area().ok()?).ok(),
        _ => None,
    }
}

/// Logs in to a token that needs it: with the PIN of the URI, or else with the one that the user is asked for.
pub(crate) fn open_token(token: &Token, uri: Option<&Pkcs11Uri>, passphrase: &Passphrase) -> Result<()> {
    if token.is_open() {
        return Ok(());
    }
    let info = token.info();
    if info.user_pin == UserPin::NotInitialized {
        return Err(Error::PinNotInitialized);
    }
    let pin = match uri.map(Pkcs11Uri::pin).transpose()?.flatten() {
        Some(pin) => pin,
        None => passphrase.ask(&format!("token {}", info.label))?,
    };
    token.login(User::User, &pin)
}

fn described(name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| format!(" ('{name}')"))
}

/// Whether the URI's `type` lets this part in.
fn named_by_type(uri: &Pkcs11Uri, part: Part) -> bool {
    let Some(kind) = uri.kind else { return true };
    match part {
        Part::PrivateKey => kind == UriType::PrivateKey,
        Part::PublicKey => kind == UriType::PublicKey,
        Part::SecretKey => kind == UriType::SecretKey,
        Part::Certificate => kind == UriType::Certificate,
        Part::Data => kind == UriType::Data,
    }
}

fn entry(token: &Arc<Token>, object: Arc<Object>, part: Part) -> Option<Entry> {
    // Private objects other than keys are not told of without a login, which is not worth one here.
    let hidden = object.attributes(part).is_some_and(|attributes| attributes.private) && !token.is_open();
    match (part, &object.body) {
        (Part::PrivateKey, _) => Some(Entry::PrivateKey(Arc::clone(token), object)),
        (Part::PublicKey, _) if !hidden => object.public_key().cloned().map(Entry::PublicKey),
        (Part::Certificate, Body::Certificate { der, attributes }) if !hidden => {
            Some(Entry::Certificate { der: der.clone(), label: attributes.label.clone() })
        }
        _ => None,
    }
}
