//! Which tokens and objects a `pkcs11:` URI names (RFC 7512, 2.3).

use std::sync::Arc;

use super::{Token, TokenInfo};
use crate::Keyrivet;
use crate::error::Result;
use crate::object::{Object, Part, Query};
use crate::uri::Pkcs11Uri;

/// What the PKCS#11 module says of itself, and of its slots (the slot of a token names its serial number).
const MANUFACTURER: &str = "Keyrivet";
const LIBRARY: &str = "Keyrivet TPM 2.0 token";
const SLOT: &str = "TPM 2.0, token ";

impl Keyrivet {
    /// The tokens that a URI names, in the order of their slots.
    pub fn tokens_named(&self, uri: &Pkcs11Uri) -> Result<Vec<Arc<Token>>> {
        if !names_library(uri) {
            return Ok(Vec::new());
        }
        let mut tokens = self.tokens()?;
        tokens.retain(|token| names_token(uri, &token.info()));
        Ok(tokens)
    }
}

impl Token {
    /// The objects with this part that a URI names, whatever its `type`.
    pub fn find_named(&self, uri: &Pkcs11Uri, part: Part) -> Result<Vec<Arc<Object>>> {
        let query = Query { part: Some(part), id: uri.id.clone(), label: uri.object.clone() };
        let mut found = self.find(&query)?;
        found.retain(|object| {
            object.attributes(part).is_some_and(|attributes| {
                is(&uri.object, &attributes.label) && uri.id.as_ref().is_none_or(|id| *id == attributes.id)
            })
        });
        Ok(found)
    }
}

fn is(wanted: &Option<String>, found: &str) -> bool {
    wanted.as_deref().is_none_or(|wanted| wanted == found)
}

fn names_library(uri: &Pkcs11Uri) -> bool {
    let number = |text: &str| text.parse().unwrap_or(0);
    let version = (number(env!("CARGO_PKG_VERSION_MAJOR")), number(env!("CARGO_PKG_VERSION_MINOR")));
    is(&uri.library_manufacturer, MANUFACTURER)
        && is(&uri.library_description, LIBRARY)
        && uri.library_version.is_none_or(|wanted| wanted == version)
}

fn names_token(uri: &Pkcs11Uri, info: &TokenInfo) -> bool {
    is(&uri.token, &info.label)
        && is(&uri.serial, &info.serial)
        && is(&uri.manufacturer, &info.manufacturer)
        && is(&uri.model, &info.model)
        && uri.slot_id.is_none_or(|slot| slot == u64::from(info.slot))
        && is(&uri.slot_manufacturer, MANUFACTURER)
        && is(&uri.slot_description, &format!("{SLOT}{}", info.serial))
}
