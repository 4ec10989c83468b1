//! Persistent keys of our own: a token's key that is in the TPM too, so that it need not be loaded for each burst of uses.

use super::Token;
use crate::error::{Error, Result};
use crate::object::{Body, KeyMaterial, Object, ObjectId};
use crate::tpm;

/// Where such keys are put: the first free handle from here (the owner's part of TCG's range, behind what its registry of
/// reserved handles assigns to storage keys).
const FIRST: u32 = 0x8100_8000;

impl Token {
    /// Puts a stored key pair's private key into the TPM for good, as a second home: its file stays as it is.
    ///
    /// A TPM has few such places. Errors: [`Error::TpmFull`]; [`Error::StorageRootKey`] if the owner has an authValue that the
    /// configuration does not know.
    pub fn place(&self, id: ObjectId) -> Result<()> {
        let _lock = self.directory.lock()?;
        let mut object = self.directory.read(id)?;
        let Body::KeyPair { key: KeyMaterial::Wrapped(wrapped), .. } = &object.body else {
            return Err(Error::Unsupported("a persistent place for what is no key of this token".into()));
        };
        let wrapped = wrapped.clone();
        let name = wrapped.public_area()?.name;
        let (srk, owner) = (self.srk()?, self.tpm.config().parent_auth(tpm::OWNER)?);
        let taken = self.tpm.with(tpm::persistent_handles)?;
        for handle in (FIRST..FIRST + 0x8000).filter(|handle| !taken.contains(handle)) {
            // The file first: killed in between, it names an empty place, which is as good as none.
            set_place(&mut object, KeyMaterial::Placed(wrapped.clone(), handle));
            self.directory.write(&object)?;
            match self.tpm.with(|tpm| tpm.place(&srk, &wrapped, handle, &owner)) {
                Ok(true) => return Ok(()),
                // Somebody else was faster.
                Ok(false) => {}
                // What failed may be done all the same, and only the TPM can tell. Until it does, the file names the place.
                Err(error) => match self.tpm.with(|tpm| tpm.holds(handle, &name)) {
                    Ok(true) => return Ok(()),
                    Ok(false) => {
                        set_place(&mut object, KeyMaterial::Wrapped(wrapped));
                        self.directory.write(&object)?;
                        return Err(error);
                    }
                    Err(_) => return Err(error),
                },
            }
        }
        Err(Error::TpmFull)
    }

    /// As [`Self::place`], of a key that was just stored: where that fails, its object is removed again.
    pub fn place_new(&self, key: &Object) -> Result<()> {
        self.place(key.id).or_else(|error| {
            key.parts().try_for_each(|part| self.destroy(key.id, part))?;
            Err(error)
        })
    }

    /// Frees the place of a key that is about to be destroyed.
    pub(super) fn displace(&self, object: &Object) -> Result<()> {
        match &object.body {
            Body::KeyPair { key: key @ KeyMaterial::Placed(_, handle), .. } => {
                let (srk, name) = (self.srk()?, key.public_area()?.name);
                let owner = self.tpm.config().parent_auth(tpm::OWNER)?;
                self.tpm.with(|tpm| tpm.displace(&srk, *handle, &name, &owner))
            }
            _ => Ok(()),
        }
    }
}

fn set_place(object: &mut Object, place: KeyMaterial) {
    if let Body::KeyPair { key, .. } = &mut object.body {
        *key = place;
    }
}
