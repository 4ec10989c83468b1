//! The key that a URI or file names, ready for use: its token opened, its authorisation given.

use std::path::Path;
use std::sync::Arc;

use keyrivet_core::config::Config;
use keyrivet_core::key::Key;
use keyrivet_core::object::Part;
use keyrivet_core::token::{Token, User, UserPin};
use keyrivet_core::tss2_pem::{self, Tss2Key};
use keyrivet_core::uri::{self, Authorisation, Pkcs11Uri, UriType};
use keyrivet_core::{Error, Keyrivet, pem};

use crate::failure::{Failure, Result};
use crate::pin;

/// More than any key file.
const LIMIT: u64 = 1 << 20;

/// The key that `name` names, a `pkcs11:` URI, `handle:0x81......` or a file.
pub(crate) fn open(name: &str, pin_file: Option<&Path>) -> Result<Key> {
    let keyrivet = Keyrivet::open(Config::load()?);
    if name.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("pkcs11:")) {
        return by_uri(&keyrivet, &Pkcs11Uri::parse(name)?, pin_file);
    }
    if let Some(rest) = name.strip_prefix("handle:") {
        return by_handle(&keyrivet, rest, pin_file);
    }
    let (label, der) = read(name)?;
    if label == uri::PEM_LABEL {
        let uri = Pkcs11Uri::from_file(&der)?;
        let uri =
            uri.ok_or_else(|| Failure::new(format!("{name}: there is no URI in its {} block", uri::PEM_LABEL)))?;
        return by_uri(&keyrivet, &uri, pin_file);
    }
    let mut key = keyrivet.key_from_tss2(&Tss2Key::from_der(&der)?)?;
    if let Some(token) = key.token() {
        log_in(token, None, pin_file)?;
    } else if key.needs_authorisation() {
        key.authorise(pin::find(pin_file, None, &format!("key file {name}"))?);
    }
    Ok(key)
}

/// The persistent key at a handle, behind which `?pass`, `?pin-source=` or `?pin-value=` may stand, as the provider takes them.
fn by_handle(keyrivet: &Keyrivet, text: &str, pin_file: Option<&Path>) -> Result<Key> {
    let (digits, query) = text.split_once('?').map_or((text, None), |(digits, query)| (digits, Some(query)));
    let handle = u32::from_str_radix(digits.trim_start_matches("0x"), 16).ok().filter(|handle| handle >> 24 == 0x81);
    // Never the query, which may hold a PIN.
    let handle =
        handle.ok_or_else(|| Failure::new(format!("'handle:{digits}' is not a handle like handle:0x81000002")))?;
    let authorisation = query
        .map_or(Ok(Some(Authorisation::None)), Authorisation::parse)?
        .ok_or_else(|| Failure::new("what follows the '?' of a handle is pass, pin-source=FILE or pin-value=PIN"))?;
    let mut key = keyrivet.key_from_handle(handle)?;
    let uri = match &authorisation {
        Authorisation::None if pin_file.is_none() => return Ok(key),
        Authorisation::None | Authorisation::Asked => None,
        Authorisation::Uri(uri) => Some(uri),
    };
    key.authorise(pin::find(pin_file, uri, &format!("the key 0x{handle:08x}"))?);
    Ok(key)
}

/// The one private key that a URI names.
fn by_uri(keyrivet: &Keyrivet, uri: &Pkcs11Uri, pin_file: Option<&Path>) -> Result<Key> {
    if uri.kind.is_some_and(|kind| kind != UriType::PrivateKey) {
        return Err(Failure::new("the URI's type must be private: only a private key signs"));
    }
    let tokens = keyrivet.tokens_named(uri)?;
    if tokens.is_empty() {
        let labels: Vec<_> = keyrivet.tokens()?.iter().map(|token| token.info().label.clone()).collect();
        let store = format!("the store {}", keyrivet.config().store.display());
        return Err(missing("token", labels, &store, keyrivet.unreadable_tokens()));
    }
    let mut found = Vec::new();
    for token in &tokens {
        found.extend(token.find_named(uri, Part::PrivateKey)?.into_iter().map(|object| (token, object)));
    }
    match &found[..] {
        [(token, object)] => {
            log_in(token, Some(uri), pin_file)?;
            Ok(token.key(object)?)
        }
        [] => {
            let (mut labels, mut unreadable) = (Vec::new(), keyrivet.unreadable_tokens());
            for token in &tokens {
                unreadable.extend(token.unreadable_objects()?);
                let all = token.find_named(&Pkcs11Uri::default(), Part::PrivateKey)?;
                labels.extend(all.iter().filter_map(|key| Some(key.attributes(Part::PrivateKey)?.label.clone())));
            }
            Err(missing("private key", labels, "the token", unreadable))
        }
        several => {
            let names = several.iter().map(|(token, object)| {
                let attributes = object.attributes(Part::PrivateKey);
                let (label, id) =
                    attributes.map(|it| (it.label.clone(), keyrivet_core::hex::encode(&it.id))).unwrap_or_default();
                format!("token={};object={label};id={}", token.info().label, percent(&id))
            });
            let names: Vec<_> = names.collect();
            Err(Failure::new(format!("{} keys match the URI, say which one: {}", names.len(), names.join(", "))))
        }
    }
}

/// Hexadecimal digits as a URI writes bytes.
fn percent(hex: &str) -> String {
    hex.as_bytes().chunks(2).map(|pair| format!("%{}", String::from_utf8_lossy(pair))).collect()
}

/// Says what there is instead, and what may be it but cannot be read.
fn missing(what: &str, there: Vec<String>, place: &str, unreadable: Vec<Error>) -> Failure {
    let mut text = match &there[..] {
        [] => format!("no {what} matches the URI: there is none in {place}"),
        labels => format!("no {what} matches the URI: in {place} there is '{}'", labels.join("', '")),
    };
    for error in unreadable {
        text.push_str(&format!("\n{error}"));
    }
    Failure::new(text)
}

fn log_in(token: &Arc<Token>, uri: Option<&Pkcs11Uri>, pin_file: Option<&Path>) -> Result<()> {
    if token.is_open() {
        return Ok(());
    }
    let info = token.info();
    if info.user_pin == UserPin::NotInitialized {
        return Err(Error::PinNotInitialized.into());
    }
    let pin = pin::find(pin_file, uri, &format!("token {}", info.label))?;
    Ok(token.login(User::User, &pin)?)
}

/// The first key block of a PEM file.
fn read(name: &str) -> Result<(String, Vec<u8>)> {
    use std::io::Read as _;
    let failed = |reason: &dyn std::fmt::Display| Failure::new(format!("{name}: {reason}"));
    let mut text = String::new();
    let file = std::fs::File::open(name).map_err(|error| failed(&error))?;
    file.take(LIMIT).read_to_string(&mut text).map_err(|_| failed(&"not a key file in PEM"))?;
    for (start, _) in text.match_indices("-----BEGIN ") {
        let block = &text[start..];
        let label = block["-----BEGIN ".len()..].split("-----").next().unwrap_or_default();
        if label.ends_with("PRIVATE KEY") && label != tss2_pem::PEM_LABEL {
            return Err(failed(
                &"this key is not in a TPM. Whoever has its file can sign with it, 'openssl dgst -sign' for instance; \
                  'openssl genpkey -provider keyrivet' makes keys in the TPM",
            ));
        }
        if label != tss2_pem::PEM_LABEL && label != uri::PEM_LABEL {
            continue;
        }
        let end = format!("-----END {label}-----");
        let length = block.find(&end).ok_or_else(|| failed(&"its PEM block has no end"))? + end.len();
        let (_, der) = pem::decode(&block[..length]).map_err(|error| failed(&error))?;
        return Ok((label.to_owned(), der));
    }
    Err(failed(&"there is no PEM block TSS2 PRIVATE KEY or PKCS#11 PROVIDER URI in it"))
}
