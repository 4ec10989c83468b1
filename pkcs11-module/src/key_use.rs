//! Which key an operation may use: by its handle, its class, its attributes, its type, and who is logged in.

use cryptoki_sys::*;
use keyrivet_core::object::{Attributes, Part};

use crate::error::{Error, Result};
use crate::mechanism::{self, Work};
use crate::object::View;
use crate::session::Session;
use crate::template::wide;

/// Whether a key's attributes permit an operation, one of the `CKF_` flags of CK_MECHANISM_INFO. What keys of its class
/// never do has no attribute that could permit it.
fn permitted(operation: CK_FLAGS, part: Part, attributes: &Attributes) -> bool {
    use Part::{PrivateKey, PublicKey, SecretKey};
    match (operation, part) {
        (CKF_SIGN, PrivateKey | SecretKey) | (CKF_VERIFY, PublicKey) => attributes.sign,
        (CKF_VERIFY, SecretKey) => attributes.verify,
        (CKF_SIGN_RECOVER, PrivateKey) | (CKF_VERIFY_RECOVER, PublicKey) => attributes.sign_recover,
        (CKF_ENCRYPT, SecretKey) => attributes.encrypt,
        (CKF_DECRYPT, PrivateKey | SecretKey) | (CKF_ENCRYPT, PublicKey) => attributes.decrypt,
        (CKF_WRAP, SecretKey) => attributes.wrap,
        (CKF_UNWRAP, PrivateKey | SecretKey) | (CKF_WRAP, PublicKey) => attributes.unwrap,
        (CKF_DERIVE, PrivateKey) => attributes.derive,
        _ => false,
    }
}

impl Session {
    /// The key behind a handle; `invalid` is what the function answers if it is none.
    pub(crate) fn key(&self, handle: CK_OBJECT_HANDLE, invalid: CK_RV) -> Result<View> {
        let view = self.slot().view(handle).map_err(|error| match error {
            Error(CKR_OBJECT_HANDLE_INVALID) => Error(invalid),
            other => other,
        })?;
        match view.part {
            Part::PrivateKey | Part::PublicKey | Part::SecretKey => Ok(view),
            Part::Certificate | Part::Data => Err(Error(invalid)),
        }
    }

    /// A key for an operation by a mechanism, if its attributes and the login allow that; and what the mechanism does.
    pub(crate) fn usable_key(
        &self,
        handle: CK_OBJECT_HANDLE,
        operation: CK_FLAGS,
        kind: CK_MECHANISM_TYPE,
    ) -> Result<(View, Work)> {
        let work = mechanism::find(kind, self.slot().token_info().as_deref(), operation)?;
        let (invalid, inconsistent) = match operation {
            CKF_WRAP => (CKR_WRAPPING_KEY_HANDLE_INVALID, CKR_WRAPPING_KEY_TYPE_INCONSISTENT),
            CKF_UNWRAP => (CKR_UNWRAPPING_KEY_HANDLE_INVALID, CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT),
            _ => (CKR_KEY_HANDLE_INVALID, CKR_KEY_TYPE_INCONSISTENT),
        };
        let view = self.key(handle, invalid)?;
        // "This return value has a higher priority than CKR_KEY_FUNCTION_NOT_PERMITTED."
        if !work.takes(view.key_type()?) {
            return Err(Error(inconsistent));
        }
        let attributes = view.attributes()?;
        if !permitted(operation, view.part, attributes) {
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
