//! Key management functions (PKCS#11 3.2, 5.18).

use cryptoki_sys::*;

use super::guard;
use super::memory::{Place, mechanism, template};
use crate::error::Error;
use crate::module::module;

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_GenerateKeyPair(
    session: CK_SESSION_HANDLE,
    wanted: CK_MECHANISM_PTR,
    public_attributes: CK_ATTRIBUTE_PTR,
    public_count: CK_ULONG,
    private_attributes: CK_ATTRIBUTE_PTR,
    private_count: CK_ULONG,
    public_key: CK_OBJECT_HANDLE_PTR,
    private_key: CK_OBJECT_HANDLE_PTR,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        // SAFETY: the mechanism and both templates are readable, as the standard has it.
        let (mechanism, public, private) = unsafe {
            let mechanism = mechanism(wanted)?.ok_or(Error(CKR_ARGUMENTS_BAD))?;
            (mechanism, template(public_attributes, public_count)?, template(private_attributes, private_count)?)
        };
        // SAFETY: both are writable, if not NULL, as the standard has it.
        let (public_place, private_place) = unsafe { (Place::new(public_key)?, Place::new(private_key)?) };
        let pair = session.generate_key_pair(mechanism, &public, &private)?;
        public_place.set(pair.public);
        private_place.set(pair.private);
        Ok(())
    })
}
