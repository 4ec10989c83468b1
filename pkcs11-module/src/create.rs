//! C_CreateObject: certificates, data and public keys as they are; private and secret keys by way of the TPM.

use cryptoki_sys::*;
use keyrivet_core::import::PrivateKey;
use keyrivet_core::object::{Attributes, Body, Object, ObjectId, Part};
use keyrivet_core::public_key::PublicKey;

use crate::attribute::{self, CREATE, DERIVE, Kinds};
use crate::draft::Draft;
use crate::error::{Error, Result};
use crate::mechanism::KeyType;
use crate::object::{check_new_object, data_body, key_usage};
use crate::secret::{NewSecret, Origin};
use crate::session::Session;
use crate::template::{self, Template};

impl Session {
    /// Makes an object (C_CreateObject).
    pub(crate) fn create(&self, template: &Template<'_>) -> Result<CK_OBJECT_HANDLE> {
        let of = kind_to_create(template)?;
        if of == attribute::SECRET {
            return self.create_secret(template);
        }
        let (verify, private) = (of & attribute::PUBLIC != 0, of & attribute::PRIVATE != 0);
        let defaults = Attributes { sign: verify || private, private, ..Attributes::default() };
        let mut draft = Draft::new(of, defaults);
        draft.write(template, CREATE)?;
        self.check_new(&draft)?;
        let (token_object, persistent) = (draft.token_object, draft.persistent);
        let object = self.made(draft)?;
        self.keep_made(&object, (token_object, persistent), template)
    }

    fn keep_made(&self, object: &Object, kept: (bool, bool), template: &Template<'_>) -> Result<CK_OBJECT_HANDLE> {
        let (token_object, persistent) = kept;
        let part = object.parts().next().ok_or(Error(CKR_GENERAL_ERROR))?;
        check_new_object(self.slot().token()?, object, part, template)?;
        self.keep(object, token_object)?;
        self.place(object, persistent)?;
        Ok(self.slot().handle(object, part))
    }

    /// Has the TPM take a private key that was wrapped as a PKCS#8 PrivateKeyInfo (PKCS#11 3.2, "Wrapping/unwrapping
    /// private keys").
    pub(crate) fn keep_unwrapped(&self, der: &[u8], template: &Template<'_>) -> Result<CK_OBJECT_HANDLE> {
        let of = kind_to_create(template)?;
        let mut draft = Draft::new(of, Attributes { sign: true, private: true, ..Attributes::default() });
        draft.write(template, DERIVE)?;
        self.check_new(&draft)?;
        let key = PrivateKey::from_pkcs8_der(der).map_err(|_| Error(CKR_WRAPPED_KEY_INVALID))?;
        if attribute::kind_of(Part::PrivateKey, Some(KeyType::of(key.public_key()))) != of {
            return Err(Error(CKR_WRAPPED_KEY_INVALID));
        }
        let kept = (draft.token_object, draft.persistent);
        let object = self.import(&key, draft.attributes)?;
        self.keep_made(&object, kept, template)
    }

    fn made(&self, draft: Draft) -> Result<Object> {
        if draft.of & attribute::PRIVATE != 0 {
            return self.import(&draft.private_key()?, draft.attributes);
        }
        let id = ObjectId::random()?;
        let body = match draft.of {
            attribute::DATA => {
                let value = draft.value.unwrap_or_default();
                data_body(self.slot().token()?, id, &value, draft.attributes)?
            }
            attribute::CERTIFICATE => {
                let der = draft.value.map(|value| value.to_vec()).unwrap_or_default();
                Body::Certificate { der, attributes: draft.attributes }
            }
            _ => {
                let public_key = draft.public_key()?;
                public_key.check()?;
                Body::PublicKey { public_key, local: false, attributes: draft.attributes }
            }
        };
        Ok(Object { id, body })
    }

    /// Has the TPM take a private key that was made outside.
    fn import(&self, key: &PrivateKey, mut attributes: Attributes) -> Result<Object> {
        let usage = key_usage(&attributes);
        if usage == (false, false) {
            return Err(Error(CKR_TEMPLATE_INCONSISTENT));
        }
        if !self.slot().is_open() {
            return Err(Error(CKR_USER_NOT_LOGGED_IN));
        }
        let token = self.slot().token()?;
        let info = token.info();
        match key.public_key() {
            PublicKey::Rsa { .. }
                if !info.rsa_bits.iter().any(|bits| usize::from(*bits) == key.public_key().bits()) =>
            {
                return Err(Error(CKR_ATTRIBUTE_VALUE_INVALID));
            }
            PublicKey::Ec { curve, .. } if !info.curves.contains(curve) => return Err(Error(CKR_CURVE_NOT_SUPPORTED)),
            _ => {}
        }
        if attributes.id.is_empty() {
            attributes.id = key.public_key().default_id();
        }
        Ok(token.import(key, usage, attributes)?)
    }

    fn create_secret(&self, template: &Template<'_>) -> Result<CK_OBJECT_HANDLE> {
        let incomplete = Error(CKR_TEMPLATE_INCOMPLETE);
        let key_type = template::number(template.get(CKA_KEY_TYPE).ok_or(incomplete)?)?;
        let kind = KeyType::secret(key_type).ok_or(Error(CKR_TEMPLATE_INCONSISTENT))?;
        let new = NewSecret::read(kind, template, CREATE, Origin::Outside)?;
        self.check_new(&new.draft)?;
        let value = new.draft.value.clone().ok_or(incomplete)?;
        self.keep_secret(new, value, template)
    }
}

/// The kind that C_CreateObject is asked for.
fn kind_to_create(template: &Template<'_>) -> Result<Kinds> {
    let incomplete = Error(CKR_TEMPLATE_INCOMPLETE);
    let key_type = || template::number(template.get(CKA_KEY_TYPE).ok_or(incomplete)?);
    match template::number(template.get(CKA_CLASS).ok_or(incomplete)?)? {
        CKO_DATA => Ok(attribute::DATA),
        CKO_CERTIFICATE => Ok(attribute::CERTIFICATE),
        CKO_PUBLIC_KEY => match key_type()? {
            CKK_RSA => Ok(attribute::PUBLIC_RSA),
            CKK_EC => Ok(attribute::PUBLIC_EC),
            _ => Err(Error(CKR_TEMPLATE_INCONSISTENT)),
        },
        CKO_PRIVATE_KEY => match key_type()? {
            CKK_RSA => Ok(attribute::PRIVATE_RSA),
            CKK_EC => Ok(attribute::PRIVATE_EC),
            _ => Err(Error(CKR_TEMPLATE_INCONSISTENT)),
        },
        CKO_SECRET_KEY => Ok(attribute::SECRET),
        // Classes of the standard that nobody makes here: "a template with an attribute that violates some token
        // specific requirement" ("Creating objects").
        CKO_HW_FEATURE
        | CKO_DOMAIN_PARAMETERS
        | CKO_MECHANISM
        | CKO_OTP_KEY
        | CKO_PROFILE
        | CKO_VALIDATION
        | CKO_TRUST => Err(Error(CKR_TEMPLATE_INCONSISTENT)),
        _ => Err(Error(CKR_ATTRIBUTE_VALUE_INVALID)),
    }
}
