//! Key management functions (PKCS#11 3.2, 5.18).

use cryptoki_sys::*;

use super::guard;
use super::memory::{Output, Place, bytes, mechanism, template};
use crate::error::{Error, Result};
use crate::mechanism::Mechanism;
use crate::module::module;

/// The mechanism of a function that cannot do without.
///
/// # Safety
/// As for [`mechanism`].
unsafe fn required<'a>(pointer: *const CK_MECHANISM) -> Result<Mechanism<'a>> {
    // SAFETY: promised.
    unsafe { mechanism(pointer) }?.ok_or(Error(CKR_ARGUMENTS_BAD))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_GenerateKey(
    session: CK_SESSION_HANDLE,
    wanted: CK_MECHANISM_PTR,
    attributes: CK_ATTRIBUTE_PTR,
    count: CK_ULONG,
    key: CK_OBJECT_HANDLE_PTR,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        // SAFETY: mechanism and template are readable, the handle writable, if not NULL, as the standard has it.
        let (mechanism, template, place) =
            unsafe { (required(wanted)?, template(attributes, count)?, Place::new(key)?) };
        place.set(session.generate_key(mechanism, &template)?);
        Ok(())
    })
}

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
            let mechanism = required(wanted)?;
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

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_WrapKey(
    session: CK_SESSION_HANDLE,
    wanted: CK_MECHANISM_PTR,
    wrapping_key: CK_OBJECT_HANDLE,
    key: CK_OBJECT_HANDLE,
    wrapped: CK_BYTE_PTR,
    wrapped_length: CK_ULONG_PTR,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        // SAFETY: the mechanism is readable, the wrapped key writable for its length, as the standard has it.
        let (mechanism, output) = unsafe { (required(wanted)?, Output::new(wrapped, wrapped_length)?) };
        let wrapping = session.wrapping(mechanism, wrapping_key, key)?;
        output.fill(wrapping.length(), || wrapping.finish())
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_UnwrapKey(
    session: CK_SESSION_HANDLE,
    wanted: CK_MECHANISM_PTR,
    unwrapping_key: CK_OBJECT_HANDLE,
    wrapped: CK_BYTE_PTR,
    wrapped_length: CK_ULONG,
    attributes: CK_ATTRIBUTE_PTR,
    count: CK_ULONG,
    key: CK_OBJECT_HANDLE_PTR,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        // SAFETY: mechanism, wrapped key and template are readable, the handle writable, as the standard has it.
        let (mechanism, wrapped, template, place) = unsafe {
            let wrapped = bytes(wrapped, wrapped_length)?;
            (required(wanted)?, wrapped, template(attributes, count)?, Place::new(key)?)
        };
        place.set(session.unwrap_key(mechanism, unwrapping_key, wrapped, &template)?);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_DeriveKey(
    session: CK_SESSION_HANDLE,
    wanted: CK_MECHANISM_PTR,
    base: CK_OBJECT_HANDLE,
    attributes: CK_ATTRIBUTE_PTR,
    count: CK_ULONG,
    key: CK_OBJECT_HANDLE_PTR,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        // SAFETY: mechanism and template are readable, the handle writable, if not NULL, as the standard has it.
        let (mechanism, template, place) =
            unsafe { (required(wanted)?, template(attributes, count)?, Place::new(key)?) };
        place.set(session.derive(mechanism, base, &template)?);
        Ok(())
    })
}
