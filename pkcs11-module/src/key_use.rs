//! Which key an operation may use: by its handle, its class, its attributes, its type, and who is logged in.

use cryptoki_sys::*;
use keyrivet_core::object::{Attributes, Part};

use crate::error::{Error, Result};
use crate::mechanism::{self, KeyType, Work};
use crate::object::View;
use crate::session::Session;
use crate::template::wide;

/// Whether a key's attributes permit an operation, one of the `CKF_` flags of CK_MECHANISM_INFO; `None` if keys of its
/// class do no such thing.
fn permitted(operation: CK_FLAGS, part: Part, attributes: &Attributes) -> Option<bool> {
    use Part::{PrivateKey, PublicKey, SecretKey};
    Some(match (operation, part) {
        (CKF_SIGN, PrivateKey | SecretKey) | (CKF_VERIFY, PublicKey) => attributes.sign,
        (CKF_VERIFY, SecretKey) => attributes.verify,
        (CKF_SIGN_RECOVER, PrivateKey) | (CKF_VERIFY_RECOVER, PublicKey) => attributes.sign_recover,
        (CKF_ENCRYPT, SecretKey) => attributes.encrypt,
        (CKF_DECRYPT, PrivateKey | SecretKey) | (CKF_ENCRYPT, PublicKey) => attributes.decrypt,
        (CKF_WRAP, SecretKey) => attributes.wrap,
        (CKF_UNWRAP, PrivateKey | SecretKey) | (CKF_WRAP, PublicKey) => attributes.unwrap,
        (CKF_DERIVE, PrivateKey) => attributes.derive,
        _ => return None,
    })
}

/// Refuses a key of another type.
pub(crate) fn require_type(view: &View, wanted: KeyType) -> Result<()> {
    if view.key_type()? == wanted { Ok(()) } else { Err(Error(CKR_KEY_TYPE_INCONSISTENT)) }
}

impl Session {
    /// The object behind a handle that should be a key's; `invalid` is what the function answers if it is none.
    pub(crate) fn key(&self, handle: CK_OBJECT_HANDLE, invalid: CK_RV) -> Result<View> {
        self.slot().view(handle).map_err(|error| match error {
            Error(CKR_OBJECT_HANDLE_INVALID) => Error(invalid),
            other => other,
        })
    }

    /// A key for an operation by a mechanism, if its attributes and the login allow that; and what the mechanism does.
    pub(crate) fn usable_key(
        &self,
        handle: CK_OBJECT_HANDLE,
        operation: CK_FLAGS,
        kind: CK_MECHANISM_TYPE,
    ) -> Result<(View, Work)> {
        let work = mechanism::find(kind, self.slot().token_info().as_ref(), operation)?;
        let invalid = match operation {
            CKF_WRAP => CKR_WRAPPING_KEY_HANDLE_INVALID,
            CKF_UNWRAP => CKR_UNWRAPPING_KEY_HANDLE_INVALID,
            _ => CKR_KEY_HANDLE_INVALID,
        };
        let view = self.key(handle, invalid)?;
        let attributes = view.attributes()?;
        if !permitted(operation, view.part, attributes).ok_or(Error(invalid))? {
            return Err(Error(CKR_KEY_FUNCTION_NOT_PERMITTED));
        }
        let allowed = &attributes.allowed_mechanisms;
        if !allowed.is_empty() && !allowed.contains(&wide(kind)) {
            return Err(Error(CKR_MECHANISM_INVALID));
        }
        if view.is_in_tpm() && !self.slot().is_open() {
            return Err(Error(CKR_USER_NOT_LOGGED_IN));
        }
        Ok((view, work))
    }
}
