//! Objects: finding, reading, making, changing and destroying them.

use std::sync::Arc;

use cryptoki_sys::*;
use keyrivet_core::algorithm::Curve;
use keyrivet_core::object::{Attributes, Body, Object, ObjectId, Part, Query};
use keyrivet_core::public_area::object_attribute;
use keyrivet_core::public_key::PublicKey;
use keyrivet_core::token::{Token, User, UserPin};

use crate::asn1::{self, CertificateFields};
use crate::attribute::{self, CHANGE, CREATE, Kinds, Value};
use crate::error::{Error, Result};
use crate::mechanism::KeyType;
use crate::session::Session;
use crate::template::{self, Template};

/// One PKCS#11 object as it is now: a part of an object of the store, or of a session.
pub(crate) struct View {
    pub(crate) token: Arc<Token>,
    pub(crate) object: Arc<Object>,
    pub(crate) part: Part,
    pub(crate) session_object: bool,
}

impl View {
    /// Its attributes.
    pub(crate) fn attributes(&self) -> Result<&Attributes> {
        self.object.attributes(self.part).ok_or(Error(CKR_OBJECT_HANDLE_INVALID))
    }

    /// `CKA_CLASS`.
    pub(crate) fn class(&self) -> CK_OBJECT_CLASS {
        class_of(self.part)
    }

    /// `CKA_UNIQUE_ID`.
    pub(crate) fn unique_id(&self) -> String {
        let part = match self.part {
            Part::PrivateKey => "private",
            Part::PublicKey => "public",
            Part::SecretKey => "secret",
            Part::Certificate => "certificate",
            Part::Data => "data",
        };
        format!("{}-{part}", self.object.id)
    }

    /// Its kind, as the table of attributes has it.
    pub(crate) fn kinds(&self) -> Result<Kinds> {
        Ok(attribute::kind_of(self.part, self.object.public_key().map(KeyType::of)))
    }

    /// Whether every attribute of the template has the value there, byte for byte.
    fn matches(&self, template: &Template<'_>) -> Result<bool> {
        for (kind, value) in template.iter() {
            match attribute::read(self, kind)? {
                Some(Value::Bytes(actual)) if *actual == value => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// A key may be allowed only what its type, and its key in the TPM, can do.
    fn check_usage(&self) -> Result<()> {
        let Some(key) = self.object.public_key() else { return Ok(()) };
        let attributes = self.attributes()?;
        let (sign, decrypt) = key_usage(attributes);
        let by_type = match KeyType::of(key) {
            KeyType::Rsa => !attributes.derive,
            KeyType::Ec => !(attributes.decrypt || attributes.unwrap || attributes.sign_recover),
        };
        let by_tpm = match (&self.object.body, self.part) {
            (Body::KeyPair { key, .. }, Part::PrivateKey) => {
                let area = key.public_area()?;
                (!sign || area.has(object_attribute::SIGN)) && (!decrypt || area.has(object_attribute::DECRYPT))
            }
            _ => true,
        };
        if by_type && by_tpm { Ok(()) } else { Err(Error(CKR_TEMPLATE_INCONSISTENT)) }
    }
}

/// Whether a key's attributes ask for signing, and for decrypting or deriving.
pub(crate) fn key_usage(key: &Attributes) -> (bool, bool) {
    (key.sign || key.sign_recover, key.decrypt || key.unwrap || key.derive)
}

fn class_of(part: Part) -> CK_OBJECT_CLASS {
    match part {
        Part::PrivateKey => CKO_PRIVATE_KEY,
        Part::PublicKey => CKO_PUBLIC_KEY,
        Part::SecretKey => CKO_SECRET_KEY,
        Part::Certificate => CKO_CERTIFICATE,
        Part::Data => CKO_DATA,
    }
}

/// An object that a template is being written to.
pub(crate) struct Draft {
    pub(crate) of: Kinds,
    pub(crate) attributes: Attributes,
    pub(crate) token_object: bool,
    pub(crate) modulus_bits: Option<CK_ULONG>,
    pub(crate) curve: Option<Curve>,
    value: Option<Vec<u8>>,
    modulus: Option<Vec<u8>>,
    exponent: Option<Vec<u8>>,
    point: Option<Vec<u8>>,
}

impl Draft {
    /// One that starts with these attributes.
    pub(crate) fn new(of: Kinds, attributes: Attributes) -> Self {
        Self {
            of,
            attributes,
            token_object: false,
            modulus_bits: None,
            curve: None,
            value: None,
            modulus: None,
            exponent: None,
            point: None,
        }
    }

    /// Writes a whole template for a new object, and checks that nothing is missing in it.
    pub(crate) fn write(&mut self, template: &Template<'_>, uses: u8) -> Result<()> {
        for (kind, value) in template.iter() {
            attribute::write(self, kind, value, uses)?;
        }
        let complete = attribute::needed(self.of, uses).all(|kind| template.get(kind).is_some());
        if complete { Ok(()) } else { Err(Error(CKR_TEMPLATE_INCOMPLETE)) }
    }

    /// `CKA_VALUE` of data and certificates.
    pub(crate) fn set_value(&mut self, value: &[u8]) -> Result<()> {
        if self.of == attribute::CERTIFICATE {
            CertificateFields::read(value).map_err(|_| Error(CKR_ATTRIBUTE_VALUE_INVALID))?;
        }
        self.value = Some(value.to_vec());
        Ok(())
    }

    /// `CKA_MODULUS`.
    pub(crate) fn set_modulus(&mut self, value: &[u8]) -> Result<()> {
        self.modulus = Some(value.to_vec());
        Ok(())
    }

    /// `CKA_PUBLIC_EXPONENT`.
    pub(crate) fn set_exponent(&mut self, value: &[u8]) -> Result<()> {
        self.exponent = Some(value.to_vec());
        Ok(())
    }

    /// `CKA_EC_PARAMS`.
    pub(crate) fn set_curve(&mut self, value: &[u8]) -> Result<()> {
        let known = Curve::all().find(|curve| attribute::curve_parameters(*curve).is_ok_and(|oid| oid == value));
        self.curve = Some(known.ok_or(Error(CKR_CURVE_NOT_SUPPORTED))?);
        Ok(())
    }

    /// `CKA_EC_POINT`: an OCTET STRING; without its header, as some give it, a point is understood too.
    pub(crate) fn set_point(&mut self, value: &[u8]) -> Result<()> {
        self.point = Some(asn1::octet_string_content(value).unwrap_or(value).to_vec());
        Ok(())
    }

    /// The exponent that was asked for, if any was.
    pub(crate) fn exponent(&self) -> Option<&[u8]> {
        self.exponent.as_deref()
    }

    fn public_key(&self) -> Result<PublicKey> {
        let incomplete = Error(CKR_TEMPLATE_INCOMPLETE);
        if self.of == attribute::PUBLIC_RSA {
            let (modulus, exponent) = self.modulus.as_ref().zip(self.exponent.as_ref()).ok_or(incomplete)?;
            return Ok(PublicKey::rsa(modulus, exponent)?);
        }
        let (curve, point) = self.curve.zip(self.point.as_ref()).ok_or(incomplete)?;
        Ok(PublicKey::ec(curve, point)?)
    }

    /// The object, of which a private data object's value is encrypted.
    fn into_object(self, token: &Token) -> Result<Object> {
        let id = ObjectId::random()?;
        let body = match self.of {
            attribute::DATA => {
                let clear = zeroize::Zeroizing::new(self.value.unwrap_or_default());
                let private = self.attributes.private;
                let value = if private { token.seal_data(id, &clear)? } else { clear.to_vec() };
                Body::Data { value, attributes: self.attributes }
            }
            attribute::CERTIFICATE => {
                Body::Certificate { der: self.value.unwrap_or_default(), attributes: self.attributes }
            }
            _ => Body::PublicKey { public_key: self.public_key()?, attributes: self.attributes },
        };
        Ok(Object { id, body })
    }
}

impl Session {
    /// Every object that the session sees and that the template matches (C_FindObjectsInit).
    pub(crate) fn find(&self, template: &Template<'_>) -> Result<Vec<CK_OBJECT_HANDLE>> {
        let wanted = template.get(CKA_CLASS).map(template::number).transpose()?;
        let wanted = wanted.map(|class| PARTS.into_iter().find(|part| class_of(*part) == class));
        if wanted == Some(None) {
            // No object of ours is of this class.
            return Ok(Vec::new());
        }
        let part = wanted.flatten();
        let token = self.slot().token()?;
        let mut found = Vec::new();
        let places = [(false, self.stored(token, template, part)?), (true, self.slot().session_objects())];
        for (session_object, objects) in places {
            for object in objects {
                self.matching_parts(token, &object, session_object, template, &mut found)?;
            }
        }
        Ok(found)
    }

    /// What the store's index selects; nothing where only session objects are asked for.
    fn stored(&self, token: &Token, template: &Template<'_>, part: Option<Part>) -> Result<Vec<Arc<Object>>> {
        if template.get(CKA_TOKEN) == Some(&[CK_FALSE]) {
            return Ok(Vec::new());
        }
        let label = template.get(CKA_LABEL).map(template::text).transpose()?;
        Ok(token.find(&Query { part, id: template.get(CKA_ID).map(<[u8]>::to_vec), label })?)
    }

    fn matching_parts(
        &self,
        token: &Arc<Token>,
        object: &Arc<Object>,
        session_object: bool,
        template: &Template<'_>,
        found: &mut Vec<CK_OBJECT_HANDLE>,
    ) -> Result<()> {
        for part in object.parts() {
            let view = View { token: token.clone(), object: object.clone(), part, session_object };
            if view.attributes()?.private && !self.slot().is_open() {
                continue;
            }
            if view.matches(template)? {
                found.push(self.slot().handle(object, part));
            }
        }
        Ok(())
    }

    /// Makes an object (C_CreateObject): a certificate, data, or a public key.
    pub(crate) fn create(&self, template: &Template<'_>) -> Result<CK_OBJECT_HANDLE> {
        let of = kind_to_create(template)?;
        let verify = matches!(of, attribute::PUBLIC_RSA | attribute::PUBLIC_EC);
        let mut draft = Draft::new(of, Attributes { sign: verify, ..Attributes::default() });
        draft.write(template, CREATE)?;
        self.check_new(&draft)?;
        let token = self.slot().token()?;
        let token_object = draft.token_object;
        let object = draft.into_object(token)?;
        let part = object.parts().next().ok_or(Error(CKR_GENERAL_ERROR))?;
        check_new_object(token, &object, part, template)?;
        self.keep(&object, token_object)?;
        Ok(self.slot().handle(&object, part))
    }

    /// What a session and its login allow to make (PKCS#11 3.2, C_CreateObject).
    pub(crate) fn check_new(&self, draft: &Draft) -> Result<()> {
        if draft.token_object {
            self.require_read_write()?;
        }
        let token = self.slot().token()?;
        if draft.attributes.private && !self.slot().is_open() {
            return Err(Error(CKR_USER_NOT_LOGGED_IN));
        }
        // Without a PIN there is no secret to encrypt with, and "private" would be a false promise.
        let unprotected = draft.of == attribute::DATA && token.info().user_pin == UserPin::Empty;
        if draft.attributes.private && unprotected {
            return Err(Error(CKR_TEMPLATE_INCONSISTENT));
        }
        check_trusted(token, &draft.attributes)
    }

    /// Stores a new object, or keeps it with the session. Check it first: see [`check_new_object`].
    pub(crate) fn keep(&self, object: &Object, token_object: bool) -> Result<()> {
        if token_object {
            return Ok(self.slot().token()?.insert(object)?);
        }
        self.slot().keep_session_object(self.handle(), object.clone());
        Ok(())
    }

    /// An object, to read its attributes (C_GetAttributeValue).
    pub(crate) fn view(&self, handle: CK_OBJECT_HANDLE) -> Result<View> {
        self.slot().view(handle)
    }

    /// Changes attributes (C_SetAttributeValue), all or none.
    pub(crate) fn set_attributes(&self, handle: CK_OBJECT_HANDLE, template: &Template<'_>) -> Result<()> {
        let view = self.slot().view(handle)?;
        self.require_changeable(&view)?;
        if !view.attributes()?.modifiable {
            return Err(Error(CKR_ACTION_PROHIBITED));
        }
        let id = view.object.id;
        let changed = changed(&view, (*view.object).clone(), template)?;
        if view.session_object {
            self.slot().keep_session_object(self.handle(), changed);
            return Ok(());
        }
        // Under the store's lock the object is read again: another process may have changed it meanwhile.
        let mut outcome = Ok(());
        view.token.update(id, &mut |object| {
            match self::changed(&view, object.clone(), template) {
                Ok(changed) => *object = changed,
                // It is written back as it was.
                Err(error) => outcome = Err(error),
            }
            Ok(())
        })?;
        outcome
    }

    /// Destroys an object (C_DestroyObject).
    pub(crate) fn destroy(&self, handle: CK_OBJECT_HANDLE) -> Result<()> {
        let view = self.slot().view(handle)?;
        self.require_changeable(&view)?;
        if !view.attributes()?.destroyable {
            return Err(Error(CKR_ACTION_PROHIBITED));
        }
        if view.session_object {
            self.slot().destroy_session_object(view.object.id, view.part);
            return Ok(());
        }
        view.token.destroy(view.object.id, view.part)?;
        self.slot().forget_handle(view.object.id, view.part);
        Ok(())
    }

    /// "Only session objects can be modified during a read-only session."
    fn require_changeable(&self, view: &View) -> Result<()> {
        if view.session_object { Ok(()) } else { self.require_read_write() }
    }
}

const PARTS: [Part; 4] = [Part::PrivateKey, Part::PublicKey, Part::Certificate, Part::Data];

/// The kind that C_CreateObject is asked for.
fn kind_to_create(template: &Template<'_>) -> Result<Kinds> {
    let incomplete = Error(CKR_TEMPLATE_INCOMPLETE);
    match template::number(template.get(CKA_CLASS).ok_or(incomplete)?)? {
        CKO_DATA => Ok(attribute::DATA),
        CKO_CERTIFICATE => Ok(attribute::CERTIFICATE),
        CKO_PUBLIC_KEY => match template::number(template.get(CKA_KEY_TYPE).ok_or(incomplete)?)? {
            CKK_RSA => Ok(attribute::PUBLIC_RSA),
            CKK_EC => Ok(attribute::PUBLIC_EC),
            _ => Err(Error(CKR_TEMPLATE_INCONSISTENT)),
        },
        // Classes of the standard that this token does not make: "a template which violates some token specific
        // requirement" ("Creating objects").
        CKO_PRIVATE_KEY
        | CKO_SECRET_KEY
        | CKO_HW_FEATURE
        | CKO_DOMAIN_PARAMETERS
        | CKO_MECHANISM
        | CKO_OTP_KEY
        | CKO_PROFILE => Err(Error(CKR_TEMPLATE_INCONSISTENT)),
        _ => Err(Error(CKR_ATTRIBUTE_VALUE_INVALID)),
    }
}

/// Checks one part of a new object against the template that asked for it, before it is stored.
pub(crate) fn check_new_object(token: &Arc<Token>, object: &Object, part: Part, template: &Template<'_>) -> Result<()> {
    let object = Arc::new(object.clone());
    let view = View { token: token.clone(), object, part, session_object: false };
    check_given(&view, template)?;
    view.check_usage()
}

/// Checks what a template gave but the object decides.
fn check_given(view: &View, template: &Template<'_>) -> Result<()> {
    template.iter().try_for_each(|(kind, value)| attribute::check_derived(view, kind, value))
}

/// "Can only be set to CK_TRUE by the SO user" (footnote 10).
fn check_trusted(token: &Token, attributes: &Attributes) -> Result<()> {
    if attributes.trusted && token.logged_in() != Some(User::SecurityOfficer) {
        return Err(Error(CKR_ATTRIBUTE_READ_ONLY));
    }
    Ok(())
}

/// `object` with the template's values in the part that `view` shows.
fn changed(view: &View, mut object: Object, template: &Template<'_>) -> Result<Object> {
    let attributes = object.attributes_mut(view.part).ok_or(Error(CKR_OBJECT_HANDLE_INVALID))?;
    let was_trusted = attributes.trusted;
    let mut draft = Draft::new(view.kinds()?, attributes.clone());
    for (kind, value) in template.iter() {
        attribute::write(&mut draft, kind, value, CHANGE)?;
    }
    if !was_trusted {
        check_trusted(&view.token, &draft.attributes)?;
    }
    *attributes = draft.attributes;
    check_new_object(&view.token, &object, view.part, template)?;
    Ok(object)
}
