//! Adoption: what is in the TPM already, by somebody else's hand, becomes an object of a token.

use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::Token;
use crate::algorithm::HashAlgorithm;
use crate::config::{self, Adopt};
use crate::error::{Error, Result};
use crate::log::{self, Topic};
use crate::object::{Attributes, Body, KeyMaterial, Object, ObjectId, PersistentKey};
use crate::public_area::{PublicArea, object_attribute};
use crate::public_key::PublicKey;
use crate::tpm;

/// How long what could not be adopted is left alone: each session that opens would ask for it.
const PAUSE: Duration = Duration::from_secs(30);

/// Whether a handle is one of an NV index (TPM 2.0 Part 2, 7.2).
fn is_nv(handle: u32) -> bool {
    handle >> 24 == 0x01
}

impl Token {
    /// A persistent key as a key pair; not stored. Its own authValue, if it has one, is kept under the token's secret.
    ///
    /// Errors: [`Error::NotFound`]; [`Error::Unsupported`] for an authValue on a token without a PIN.
    pub fn adopt(&self, handle: u32, auth: &[u8], private: Attributes, public: Attributes) -> Result<Object> {
        let sealed_auth = match auth {
            [] => None,
            auth => Some(self.seal_data(self.adopted_id(handle), auth)?),
        };
        let area = self.tpm.with(|tpm| tpm.read_persistent(handle))?;
        let public_key = PublicArea::parse(&area)?.public_key()?.clone();
        let key = KeyMaterial::Persistent(PersistentKey { handle, public: area, sealed_auth });
        // A copy would outlive this object's hold on the authValue.
        let private = Attributes { copyable: false, ..private };
        let body = Body::KeyPair { key, public_key, imported: false, private, public: Some(public) };
        Ok(Object { id: self.adopted_id(handle), body })
    }

    /// The certificate in an NV index as a certificate; not stored, and not to be modified.
    pub fn adopt_certificate(&self, index: u32, attributes: Attributes) -> Result<Object> {
        let der = self.tpm.with(|tpm| tpm::read_nv(tpm, index)).and_then(|content| certificate(&content))?;
        let subject = match attributes.subject.is_empty() {
            true => PublicKey::certificate_subject(&der)?,
            false => attributes.subject.clone(),
        };
        let attributes = Attributes { subject, modifiable: false, ..attributes };
        Ok(Object { id: self.adopted_id(index), body: Body::Certificate { der, attributes } })
    }

    /// Adopts what the configuration names and the token does not have yet.
    ///
    /// Costs nothing once done. What fails is logged, and tried again at the next login or after [`PAUSE`]: the token is none the
    /// worse for it.
    pub fn adopt_configured(&self) {
        let label = self.file.load().label.clone();
        for entry in self.tpm.config().adopt.iter().filter(|entry| entry.token == label) {
            let missing = matches!(self.directory.stamp(self.adopted_id(entry.handle)), Err(Error::NotFound(_)));
            let tried = self.not_adopted.get().lock().get(&entry.handle).is_some_and(|tried| tried.elapsed() < PAUSE);
            if !missing || tried {
                continue;
            }
            match self.adopt_entry(entry).and_then(|object| self.insert(&object)) {
                // Its authValue needs the token's secret: at the next login then.
                Ok(()) | Err(Error::NotLoggedIn) => {}
                Err(error) => {
                    log::write(Topic::Error, format_args!("0x{:08x} is not adopted: {error}", entry.handle));
                    self.not_adopted.get().lock().insert(entry.handle, Instant::now());
                }
            }
        }
    }

    fn adopt_entry(&self, entry: &Adopt) -> Result<Object> {
        let attributes = Attributes { label: entry.label.clone(), id: entry.id.clone(), ..Attributes::default() };
        let mut object = if is_nv(entry.handle) {
            self.adopt_certificate(entry.handle, attributes)?
        } else {
            let auth = match &entry.auth_file {
                Some(path) => config::auth_value(path)?,
                None => Zeroizing::default(),
            };
            let private = Attributes { private: true, ..attributes.clone() };
            self.adopt(entry.handle, &auth, private, attributes)?
        };
        allow_what_it_can(&mut object)?;
        Ok(object)
    }

    /// One object per handle, so that to look for it costs nothing.
    fn adopted_id(&self, handle: u32) -> ObjectId {
        let name = format!("adopted {} 0x{handle:08x}", self.file.load().serial);
        ObjectId::from_digest(&HashAlgorithm::Sha256.digest(name.as_bytes()))
    }
}

/// Usage by what the TPM lets the key do, and a `CKA_ID` that joins key and certificate.
fn allow_what_it_can(object: &mut Object) -> Result<()> {
    match &mut object.body {
        Body::KeyPair { key, public_key, private, public, .. } => {
            let area = key.public_area()?;
            let free = !area.has(object_attribute::RESTRICTED);
            let (sign, decrypt) =
                (free && area.has(object_attribute::SIGN), free && area.has(object_attribute::DECRYPT));
            let rsa = matches!(public_key, PublicKey::Rsa { .. });
            for attributes in std::iter::once(private).chain(public.as_mut()) {
                (attributes.sign, attributes.decrypt, attributes.derive) = (sign, decrypt && rsa, decrypt && !rsa);
                attributes.unwrap = attributes.decrypt;
                if attributes.id.is_empty() {
                    attributes.id = public_key.default_id();
                }
            }
        }
        Body::Certificate { der, attributes } if attributes.id.is_empty() => {
            attributes.id = PublicKey::from_certificate_der(der).map(|key| key.default_id()).unwrap_or_default();
        }
        _ => {}
    }
    Ok(())
}

/// The certificate at the start of an NV index, which may be longer.
pub(crate) fn certificate(content: &[u8]) -> Result<Vec<u8>> {
    use der::{Decode as _, Encode as _, Header, SliceReader};
    let wrong = |error: der::Error| Error::malformed("certificate in the TPM's NV", error);
    let header = SliceReader::new(content).and_then(|mut reader| Header::decode(&mut reader)).map_err(wrong)?;
    let length = header.encoded_len().and_then(|head| head + header.length).map_err(wrong)?;
    let der = usize::try_from(length).ok().and_then(|length| content.get(..length));
    let der = der.ok_or_else(|| Error::malformed("certificate in the TPM's NV", "it is cut short"))?;
    PublicKey::certificate_subject(der)?;
    Ok(der.to_vec())
}
