//! The objects that a `pkcs11:` URI names, one after the other.
//!
//! Certificates and public keys need no PIN; a private key's token is opened when the key is taken, not before.

use std::collections::VecDeque;
use std::sync::Arc;

use keyrivet_core::object::{Attributes, Body, Object, Part, Query};
use keyrivet_core::public_key::PublicKey;
use keyrivet_core::token::{Token, User, UserPin};
use keyrivet_core::uri::{Pkcs11Uri, UriType};
use keyrivet_core::{Error, Result};

use crate::ffi::callback::{Callback, Passphrase};
use crate::ffi::core_abi::*;
use crate::ffi::params::{Descriptor, Kind, ParamList, Params};
use crate::key::{Family, ProviderKey};
use crate::provider::Provider;

/// One thing to be loaded.
enum Entry {
    PrivateKey(Arc<Token>, Arc<Object>),
    PublicKey(PublicKey),
    Certificate(Vec<u8>),
}

impl Entry {
    /// What OpenSSL calls it (OSSL_STORE_INFO(3)).
    fn kind(&self) -> u32 {
        match self {
            Self::PrivateKey(..) => OSSL_STORE_INFO_PKEY,
            Self::PublicKey(_) => OSSL_STORE_INFO_PUBKEY,
            Self::Certificate(_) => OSSL_STORE_INFO_CERT,
        }
    }
}

/// An opened URI.
pub(crate) struct Store {
    provider: Arc<Provider>,
    uri: Pkcs11Uri,
    /// The only kind of object that is wanted.
    expected: Option<u32>,
    entries: VecDeque<Entry>,
}

impl Store {
    /// Finds what the URI names. Costs no TPM command and needs no PIN.
    pub(crate) fn open(provider: Arc<Provider>, uri: Pkcs11Uri) -> Result<Self> {
        let tokens = tokens(&provider, &uri)?;
        if tokens.is_empty() {
            return Err(Error::NotFound(format!("a token that matches the URI{}", described(uri.token.as_deref()))));
        }
        let mut entries = VecDeque::new();
        for part in [Part::PrivateKey, Part::PublicKey, Part::Certificate] {
            if !named_by_type(&uri, part) {
                continue;
            }
            for token in &tokens {
                entries.extend(objects(token, &uri, part)?.into_iter().filter_map(|object| entry(token, object, part)));
            }
        }
        if entries.is_empty() && (uri.object.is_some() || uri.id.is_some() || uri.kind.is_some()) {
            return Err(Error::NotFound(format!("an object that matches the URI{}", described(uri.object.as_deref()))));
        }
        Ok(Self { provider, uri, expected: None, entries })
    }

    /// The provider it belongs to.
    pub(crate) fn provider(&self) -> &Arc<Provider> {
        &self.provider
    }

    /// What [`Self::set`] takes.
    pub(crate) fn settable() -> &'static [Descriptor] {
        static SETTABLE: [Descriptor; 3] = [
            Descriptor::new(OSSL_STORE_PARAM_EXPECT, Kind::Integer),
            Descriptor::new(OSSL_STORE_PARAM_PROPERTIES, Kind::Text),
            Descriptor::END,
        ];
        &SETTABLE
    }

    /// Takes parameters.
    pub(crate) fn set(&mut self, params: &Params<'_>) -> Result<()> {
        if let Some(expected) = params.get(OSSL_STORE_PARAM_EXPECT) {
            let expected = expected.integer()?;
            // 0 stands for no expectation.
            self.expected = u32::try_from(expected).ok().filter(|&expected| expected != 0);
        }
        Ok(())
    }

    /// Only objects of this kind from now on.
    pub(crate) fn expect(&mut self, kind: u32) {
        self.expected = Some(kind);
    }

    fn skip_unexpected(&mut self) {
        if let Some(expected) = self.expected {
            self.entries.retain(|entry| entry.kind() == expected);
        }
    }

    /// Whether nothing is left.
    pub(crate) fn is_at_end(&self) -> bool {
        !self.entries.iter().any(|entry| self.expected.is_none_or(|expected| entry.kind() == expected))
    }

    /// Gives the next object; says whether it was taken.
    pub(crate) fn load(&mut self, taker: &Callback, passphrase: &Passphrase) -> Result<bool> {
        self.skip_unexpected();
        match self.entries.pop_front() {
            Some(Entry::Certificate(der)) => {
                let params = ParamList::default()
                    .number(OSSL_OBJECT_PARAM_TYPE, OSSL_OBJECT_CERT as i32)
                    .octets(OSSL_OBJECT_PARAM_DATA, &der);
                Ok(taker.give(&params))
            }
            Some(entry) => Ok(self.key(entry, passphrase)?.is_some_and(|key| taker.give_key(key))),
            None => Ok(false),
        }
    }

    /// The first key, if it is of this type.
    pub(crate) fn first_key(mut self, family: Family, passphrase: &Passphrase) -> Result<Option<ProviderKey>> {
        self.skip_unexpected();
        let entry = self.entries.into_iter().next().ok_or_else(|| {
            Error::NotFound("a key of the kind that is needed, among what the URI in the file names,".into())
        })?;
        let found = match &entry {
            Entry::PrivateKey(_, object) => object.public_key().map(Family::of),
            Entry::PublicKey(public_key) => Some(Family::of(public_key)),
            Entry::Certificate(_) => None,
        };
        self.entries = VecDeque::new();
        if found == Some(family) { self.key(entry, passphrase) } else { Ok(None) }
    }

    /// The key of an entry, its token opened where that is needed.
    fn key(&self, entry: Entry, passphrase: &Passphrase) -> Result<Option<ProviderKey>> {
        let provider = Arc::clone(&self.provider);
        match entry {
            Entry::PrivateKey(token, object) => {
                open_token(&token, Some(&self.uri), passphrase)?;
                Ok(Some(ProviderKey::private(provider, token.key(&object)?)))
            }
            Entry::PublicKey(public_key) => Ok(Some(ProviderKey::public(provider, public_key))),
            Entry::Certificate(_) => Ok(None),
        }
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

/// The tokens that a URI names.
pub(crate) fn tokens(provider: &Provider, uri: &Pkcs11Uri) -> Result<Vec<Arc<Token>>> {
    let mut tokens = provider.keyrivet()?.tokens()?;
    tokens.retain(|token| {
        let info = token.info();
        let text = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        text(&uri.token, &info.label)
            && text(&uri.serial, &info.serial)
            && text(&uri.manufacturer, &info.manufacturer)
            && text(&uri.model, &info.model)
            && uri.slot_id.is_none_or(|slot| slot == u64::from(info.slot))
    });
    Ok(tokens)
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

fn objects(token: &Token, uri: &Pkcs11Uri, part: Part) -> Result<Vec<Arc<Object>>> {
    let query = Query { part: Some(part), id: uri.id.clone(), label: uri.object.clone() };
    let mut found = token.find(&query)?;
    found.retain(|object| object.attributes(part).is_some_and(|attributes| named(uri, attributes)));
    Ok(found)
}

fn named(uri: &Pkcs11Uri, attributes: &Attributes) -> bool {
    uri.object.as_ref().is_none_or(|label| *label == attributes.label)
        && uri.id.as_ref().is_none_or(|id| *id == attributes.id)
}

fn entry(token: &Arc<Token>, object: Arc<Object>, part: Part) -> Option<Entry> {
    // Private objects other than keys are not told of without a login, which is not worth one here.
    let hidden = object.attributes(part).is_some_and(|attributes| attributes.private) && !token.is_open();
    match (part, &object.body) {
        (Part::PrivateKey, _) => Some(Entry::PrivateKey(Arc::clone(token), object)),
        (Part::PublicKey, _) if !hidden => object.public_key().cloned().map(Entry::PublicKey),
        (Part::Certificate, Body::Certificate { der, .. }) if !hidden => Some(Entry::Certificate(der.clone())),
        _ => None,
    }
}
