//! Objects: finding, reading, changing, copying and destroying them.

use std::sync::Arc;

use cryptoki_sys::*;
use keyrivet_core::object::{Attributes, Body, KeyMaterial, Object, ObjectId, Part, Query, SecretMaterial};
use keyrivet_core::public_area::object_attribute;
use keyrivet_core::token::{Token, User, UserPin};
use keyrivet_core::tss2_pem::Tss2Key;
use zeroize::Zeroizing;

use crate::attribute::{self, CHANGE, COPY, Kinds, Value};
use crate::built_in::BuiltIn;
use crate::draft::Draft;
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
    /// It stands for something of the token itself, of which `object` has the attributes common to all objects.
    pub(crate) built_in: Option<BuiltIn>,
}

const MISSING: Error = Error(CKR_GENERAL_ERROR);

impl View {
    /// Its attributes.
    pub(crate) fn attributes(&self) -> Result<&Attributes> {
        self.object.attributes(self.part).ok_or(Error(CKR_OBJECT_HANDLE_INVALID))
    }

    /// `CKA_CLASS`.
    pub(crate) fn class(&self) -> CK_OBJECT_CLASS {
        self.built_in.map_or(class_of(self.part), BuiltIn::class)
    }

    /// The number of a profile or a mechanism.
    pub(crate) fn built_in_number(&self) -> Result<CK_ULONG> {
        self.built_in.map(|built_in| built_in.number()).ok_or(MISSING)
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
        Ok(match self.built_in {
            Some(BuiltIn::Profile(_)) => attribute::PROFILE,
            Some(BuiltIn::Mechanism(_)) => attribute::MECHANISM,
            None => attribute::kind_of(self.part, self.object.public_key().map(KeyType::of)),
        })
    }

    /// The type of a key.
    pub(crate) fn key_type(&self) -> Result<KeyType> {
        match (&self.object.body, self.object.public_key()) {
            (Body::SecretKey { kind, .. }, _) => Ok(KeyType::of_secret(*kind)),
            (_, Some(key)) => Ok(KeyType::of(key)),
            _ => Err(Error(CKR_KEY_TYPE_INCONSISTENT)),
        }
    }

    /// The value of a secret key, where it may be seen (footnote 7).
    pub(crate) fn secret(&self) -> Option<&Zeroizing<Vec<u8>>> {
        match &self.object.body {
            Body::SecretKey { secret: SecretMaterial::Memory { value, .. }, attributes, .. } => {
                (attributes.extractable && !attributes.sensitive).then_some(value)
            }
            _ => None,
        }
    }

    /// The value of a secret key that may be wrapped.
    pub(crate) fn extractable(&self) -> Option<&Zeroizing<Vec<u8>>> {
        match &self.object.body {
            Body::SecretKey { secret: SecretMaterial::Memory { value, .. }, attributes, .. } => {
                attributes.extractable.then_some(value)
            }
            _ => None,
        }
    }

    /// Length of a secret key, in bytes.
    pub(crate) fn secret_length(&self) -> Result<usize> {
        match &self.object.body {
            Body::SecretKey { secret, .. } => Ok(secret.length()),
            _ => Err(MISSING),
        }
    }

    /// The key that the TPM has wrapped, if this is one.
    pub(crate) fn wrapped(&self) -> Option<&Tss2Key> {
        match &self.object.body {
            Body::KeyPair { key, .. } => key.tss2(),
            Body::SecretKey { secret: SecretMaterial::Tpm { key, .. }, .. } => Some(key),
            _ => None,
        }
    }

    /// Whether it is a private key that is in the TPM for good.
    pub(crate) fn is_persistent(&self) -> bool {
        matches!(self.object.body, Body::KeyPair { key: KeyMaterial::Placed(..) | KeyMaterial::Persistent(_), .. })
    }

    /// Whether its use is the TPM's work.
    pub(crate) fn is_in_tpm(&self) -> bool {
        match &self.object.body {
            Body::KeyPair { .. } => self.part == Part::PrivateKey,
            Body::SecretKey { secret: SecretMaterial::Tpm { .. }, .. } => true,
            _ => false,
        }
    }

    /// `CKA_LOCAL`.
    pub(crate) fn is_local(&self) -> Result<bool> {
        Ok(self.object.is_local()?)
    }

    /// `CKA_ALWAYS_SENSITIVE` of a secret key.
    pub(crate) fn was_always_sensitive(&self) -> Result<bool> {
        let was = self.attributes()?.always_sensitive;
        if self.is_in_tpm() { Ok(was && self.is_local()?) } else { Ok(was) }
    }

    /// `CKA_NEVER_EXTRACTABLE` of a secret key.
    pub(crate) fn was_never_extractable(&self) -> Result<bool> {
        if self.is_in_tpm() { self.is_local() } else { Ok(self.attributes()?.never_extractable) }
    }

    /// Whether every attribute of the template has the value there, byte for byte.
    fn matches(&self, template: &Template<'_>) -> bool {
        template.iter().all(|(kind, value)| match attribute::read(self, kind) {
            Ok(Some(Value::Bytes(actual))) => *actual == value,
            // One object of which something cannot be read must not keep the others from being found.
            Ok(_) | Err(_) => false,
        })
    }

    /// A key pair may be allowed only what its type, and its key in the TPM, can do. (Secret keys have more flags than
    /// mechanisms, and applications set them all.)
    fn check_usage(&self) -> Result<()> {
        let attributes = self.attributes()?;
        check_usage(self.kinds()?, attributes)?;
        let (sign, decrypt) = key_usage(attributes);
        let by_tpm = match (&self.object.body, self.part) {
            (Body::KeyPair { key, .. }, Part::PrivateKey) => {
                let area = key.public_area()?;
                (!sign || area.has(object_attribute::SIGN)) && (!decrypt || area.has(object_attribute::DECRYPT))
            }
            _ => true,
        };
        if by_tpm { Ok(()) } else { Err(Error(CKR_TEMPLATE_INCONSISTENT)) }
    }
}

/// As [`View::check_usage`], as far as it needs no key: whoever asks for the impossible does not wait for the TPM first.
fn check_usage(of: Kinds, attributes: &Attributes) -> Result<()> {
    let by_type = match of {
        of if of & (attribute::PUBLIC_RSA | attribute::PRIVATE_RSA) != 0 => !attributes.derive,
        of if of & (attribute::PUBLIC_EC | attribute::PRIVATE_EC) != 0 => {
            !(attributes.decrypt || attributes.unwrap || attributes.sign_recover)
        }
        _ => true,
    };
    // A login of its own needs an operation that waits for it, which these two are not.
    // And it "may only be set to CK_TRUE when CKA_PRIVATE is also CK_TRUE" ("Private key objects").
    let can_ask = attributes.private && !attributes.derive && !attributes.unwrap;
    let by_login = !attributes.always_authenticate || can_ask;
    if by_type && by_login { Ok(()) } else { Err(Error(CKR_TEMPLATE_INCONSISTENT)) }
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

impl Session {
    /// Every object that the session sees and that the template matches (C_FindObjectsInit).
    pub(crate) fn find(&self, template: &Template<'_>) -> Result<Vec<CK_OBJECT_HANDLE>> {
        let token = self.slot().token()?;
        let class = template.get(CKA_CLASS).map(template::number).transpose()?;
        let part = class.map(|class| PARTS.into_iter().find(|part| class_of(*part) == class));
        if let (Some(class), Some(None)) = (class, part) {
            return self.find_built_in(token, class, template);
        }
        let mut found = Vec::new();
        let places = [(false, self.stored(token, template, part.flatten())?), (true, self.slot().session_objects())];
        for (session_object, objects) in places {
            for object in objects {
                self.matching_parts(token, &object, session_object, template, &mut found)?;
            }
        }
        Ok(found)
    }

    fn find_built_in(
        &self,
        token: &Arc<Token>,
        class: CK_OBJECT_CLASS,
        template: &Template<'_>,
    ) -> Result<Vec<CK_OBJECT_HANDLE>> {
        let mut found = Vec::new();
        for built_in in BuiltIn::of_class(class, &token.info()) {
            let view = self.slot().built_in(token, built_in);
            if view.matches(template) {
                found.push(self.slot().handle_of_built_in(built_in, view.object.id));
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
            let view = View { token: token.clone(), object: object.clone(), part, session_object, built_in: None };
            if view.attributes()?.private && !self.slot().is_open() {
                continue;
            }
            if view.matches(template) {
                found.push(self.slot().handle(object, part));
            }
        }
        Ok(())
    }

    /// What a session and its login allow to make (PKCS#11 3.2, C_CreateObject).
    pub(crate) fn check_new(&self, draft: &Draft) -> Result<()> {
        if draft.token_object {
            self.require_read_write()?;
        } else if draft.persistent {
            return Err(Error(CKR_TEMPLATE_INCONSISTENT));
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
        check_usage(draft.of, &draft.attributes)?;
        check_trusted(token, &draft.attributes)
    }

    /// Stores a new object, or keeps it with the session. Check it first: see [`check_new_object`].
    pub(crate) fn keep(&self, object: &Object, token_object: bool) -> Result<()> {
        if token_object {
            return Ok(self.slot().token()?.insert(object)?);
        }
        self.slot().keep_session_object(self.handle(), object.clone())
    }

    /// Puts a private key that was just stored into the TPM for good, where a template asked for that: or there is none.
    pub(crate) fn place(&self, key: &Object, persistent: bool) -> Result<()> {
        if persistent {
            self.slot().token()?.place_new(key)?;
        }
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
        let Attributes { modifiable, trusted, .. } = view.attributes()?;
        // "Trusted certificates cannot be modified" (PKCS#11 3.2, "Certificate objects").
        if !modifiable || (view.part == Part::Certificate && *trusted) {
            return Err(Error(CKR_ACTION_PROHIBITED));
        }
        let id = view.object.id;
        if view.session_object {
            return self.slot().change_session_object(id, |object| changed(&view, object, template));
        }
        // What is refused anyhow needs no lock.
        drop(changed(&view, (*view.object).clone(), template)?);
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

    /// Copies an object, with the template's values (C_CopyObject).
    pub(crate) fn copy(&self, handle: CK_OBJECT_HANDLE, template: &Template<'_>) -> Result<CK_OBJECT_HANDLE> {
        let view = self.slot().view(handle)?;
        if !view.attributes()?.copyable {
            return Err(Error(CKR_ACTION_PROHIBITED));
        }
        let mut draft = Draft::new(view.kinds()?, view.attributes()?.clone());
        draft.token_object = !view.session_object;
        draft.write(template, COPY)?;
        self.check_new(&draft)?;
        let token_object = draft.token_object;
        let copy = copied(&view, draft)?;
        check_new_object(&view.token, &copy, view.part, template)?;
        self.keep(&copy, token_object)?;
        Ok(self.slot().handle(&copy, view.part))
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

const PARTS: [Part; 5] = [Part::PrivateKey, Part::PublicKey, Part::SecretKey, Part::Certificate, Part::Data];

/// Checks one part of a new object against the template that asked for it, before it is stored.
pub(crate) fn check_new_object(token: &Arc<Token>, object: &Object, part: Part, template: &Template<'_>) -> Result<()> {
    let object = Arc::new(object.clone());
    let view = View { token: token.clone(), object, part, session_object: false, built_in: None };
    check_given(&view, template)?;
    view.check_usage()
}

/// A new object like the part that `view` shows, with the draft's attributes.
///
/// A copy of a key in the TPM is the same wrapped key once more: its authValue is the original's.
fn copied(view: &View, draft: Draft) -> Result<Object> {
    let Draft { attributes, token_object, .. } = draft;
    let id = ObjectId::random()?;
    let body = match view.object.body.clone() {
        Body::KeyPair { public_key, .. } | Body::PublicKey { public_key, .. } if view.part == Part::PublicKey => {
            Body::PublicKey { public_key, local: view.is_local()?, attributes }
        }
        // Only the original is at its place in the TPM.
        Body::KeyPair {
            key: KeyMaterial::Wrapped(key) | KeyMaterial::Placed(key, _), public_key, imported, ..
        } => {
            let key = KeyMaterial::Wrapped(key);
            Body::KeyPair { key, public_key, imported, private: attributes, public: None }
        }
        Body::KeyPair { key: KeyMaterial::Persistent(_), .. } => return Err(Error(CKR_ACTION_PROHIBITED)),
        Body::SecretKey { secret: SecretMaterial::Memory { value, .. }, kind, .. } if token_object => {
            crate::secret::require_unextractable(&attributes)?;
            return Ok(view.token.import_secret(kind, &value, attributes)?);
        }
        Body::SecretKey { secret, kind, .. } => Body::SecretKey { secret, kind, attributes },
        Body::Certificate { der, .. } => Body::Certificate { der, attributes },
        Body::Data { value, attributes: before } => {
            let clear = match before.private {
                true => view.token.open_data(view.object.id, &value)?,
                false => Zeroizing::new(value),
            };
            data_body(&view.token, id, &clear, attributes)?
        }
        Body::PublicKey { .. } => return Err(MISSING),
    };
    Ok(Object { id, body })
}

/// A data object, of which a private one is encrypted.
pub(crate) fn data_body(token: &Token, id: ObjectId, clear: &[u8], attributes: Attributes) -> Result<Body> {
    let value = if attributes.private { token.seal_data(id, clear)? } else { clear.to_vec() };
    Ok(Body::Data { value, attributes })
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
