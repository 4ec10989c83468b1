//! Generating key pairs in the TPM.

use cryptoki_sys::*;
use keyrivet_core::algorithm::{KeyKind, KeySpec};
use keyrivet_core::object::{Attributes, Body, Object, ObjectId, Part};
use keyrivet_core::token::TokenInfo;

use crate::attribute::{self, GENERATE};
use crate::draft::Draft;
use crate::error::{Error, Result};
use crate::mechanism::{self, KeyType, Mechanism, Work};
use crate::object::{check_new_object, key_usage};
use crate::session::Session;
use crate::template::Template;

/// The handles of a new pair.
pub(crate) struct KeyPair {
    pub(crate) public: CK_OBJECT_HANDLE,
    pub(crate) private: CK_OBJECT_HANDLE,
}

impl Session {
    /// Makes a key pair (C_GenerateKeyPair): both objects, or neither.
    pub(crate) fn generate_key_pair(
        &self,
        mechanism: Mechanism<'_>,
        public_template: &Template<'_>,
        private_template: &Template<'_>,
    ) -> Result<KeyPair> {
        let token = self.slot().token()?;
        let info = token.info();
        let Work::GenerateKeyPair(key_type) = mechanism::find(mechanism.kind, Some(&info), CKF_GENERATE_KEY_PAIR)?
        else {
            return Err(Error(CKR_MECHANISM_INVALID));
        };
        mechanism.parameter.none()?;
        let public = draft(Part::PublicKey, key_type, public_template)?;
        let private = draft(Part::PrivateKey, key_type, private_template)?;
        self.check_new(&public)?;
        self.check_new(&private)?;
        let spec = key_spec(key_type, &public, &private, &info)?;
        if !self.slot().is_open() {
            return Err(Error(CKR_USER_NOT_LOGGED_IN));
        }
        let (stored, persistent) = ((private.token_object, public.token_object), private.persistent);
        let policy = private.policy()?;
        let mut pair = token.generate(spec, policy.as_ref(), private.attributes, public.attributes)?;
        default_id(&mut pair);
        check_new_object(token, &pair, Part::PrivateKey, private_template)?;
        check_new_object(token, &pair, Part::PublicKey, public_template)?;
        self.keep_pair(pair, stored, persistent)
    }

    /// Keeps a pair as one object, or as two where one is the token's and the other the session's.
    fn keep_pair(&self, pair: Object, stored: (bool, bool), persistent: bool) -> Result<KeyPair> {
        let handles = |private: &Object, public: &Object| KeyPair {
            private: self.slot().handle(private, Part::PrivateKey),
            public: self.slot().handle(public, Part::PublicKey),
        };
        let (private_stored, public_stored) = stored;
        if private_stored == public_stored {
            self.keep(&pair, private_stored)?;
            self.place(&pair, persistent)?;
            return Ok(handles(&pair, &pair));
        }
        let gone = Error(CKR_GENERAL_ERROR);
        let mut public = pair.clone().without(Part::PrivateKey).ok_or(gone)?;
        public.id = ObjectId::random()?;
        let private = pair.without(Part::PublicKey).ok_or(gone)?;
        // The store's may fail, so it goes first; the session's cannot.
        for (object, stored) in [(&private, private_stored), (&public, public_stored)] {
            if stored {
                self.keep(object, true)?;
            }
        }
        self.place(&private, persistent)?;
        self.keep(if private_stored { &public } else { &private }, false)?;
        Ok(handles(&private, &public))
    }
}

/// Reads one of the two templates. Without a word about usage a key signs; a private key is private.
fn draft(part: Part, key_type: KeyType, template: &Template<'_>) -> Result<Draft> {
    let defaults = Attributes { sign: true, private: part == Part::PrivateKey, ..Attributes::default() };
    let mut draft = Draft::new(attribute::kind_of(part, Some(key_type)), defaults);
    draft.write(template, GENERATE)?;
    Ok(draft)
}

/// What the TPM is to make.
fn key_spec(key_type: KeyType, public: &Draft, private: &Draft, info: &TokenInfo) -> Result<KeySpec> {
    let kind = match key_type {
        KeyType::Rsa => {
            let bits = public.modulus_bits.and_then(|bits| u16::try_from(bits).ok());
            let bits = bits.filter(|bits| info.rsa_bits.contains(bits)).ok_or(Error(CKR_ATTRIBUTE_VALUE_INVALID))?;
            // The TPM's default exponent is the only one that every TPM has. This code "shall be returned if the
            // implementation cannot use the supplied exponent value" (PKCS#11 3.2, "PKCS #1 RSA key pair generation").
            if public.exponent().is_some_and(|exponent| !is_65537(exponent)) {
                return Err(Error(CKR_TEMPLATE_INCONSISTENT));
            }
            KeyKind::Rsa { bits }
        }
        _ => {
            let curve = public.curve.filter(|curve| info.curves.contains(curve));
            KeyKind::Ec(curve.ok_or(Error(CKR_CURVE_NOT_SUPPORTED))?)
        }
    };
    let (sign, decrypt) = key_usage(&private.attributes);
    if !sign && !decrypt {
        return Err(Error(CKR_TEMPLATE_INCONSISTENT));
    }
    Ok(KeySpec { kind, sign, decrypt })
}

fn is_65537(exponent: &[u8]) -> bool {
    let zeros = exponent.iter().take_while(|byte| **byte == 0).count();
    exponent[zeros..] == [1, 0, 1]
}

/// Without a `CKA_ID` both get the one that NSS would compute: the SHA-1 of the modulus or the point.
fn default_id(pair: &mut Object) {
    let Body::KeyPair { public_key, private, public, .. } = &mut pair.body else { return };
    let given = public.as_ref().map(|public| public.id.clone()).filter(|id| !id.is_empty());
    if private.id.is_empty() {
        private.id = given.unwrap_or_else(|| public_key.default_id());
    }
    if let Some(public) = public.as_mut().filter(|public| public.id.is_empty()) {
        public.id = private.id.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exponent_is_recognised_with_leading_zeros() {
        assert!(is_65537(&[1, 0, 1]));
        assert!(is_65537(&[0, 1, 0, 1]));
        assert!(!is_65537(&[3]));
        assert!(!is_65537(&[]));
    }
}
