//! Object management functions (PKCS#11 3.2, 5.7).

use cryptoki_sys::*;

use super::guard;
use super::memory::{Output, Place, attributes_to_fill, template};
use crate::attribute::{self, Value};
use crate::error::{Error, Result};
use crate::module::module;

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_CreateObject(
    session: CK_SESSION_HANDLE,
    attributes: CK_ATTRIBUTE_PTR,
    count: CK_ULONG,
    object: CK_OBJECT_HANDLE_PTR,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        // SAFETY: the template is readable and the handle writable, as the standard has it.
        let (place, template) = unsafe { (Place::new(object)?, template(attributes, count)?) };
        place.set(session.create(&template)?);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_CopyObject(
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    attributes: CK_ATTRIBUTE_PTR,
    count: CK_ULONG,
    copy: CK_OBJECT_HANDLE_PTR,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        // SAFETY: the template is readable and the handle writable, as the standard has it.
        let (place, template) = unsafe { (Place::new(copy)?, template(attributes, count)?) };
        place.set(session.copy(object, &template)?);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_GetObjectSize(
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    size: CK_ULONG_PTR,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        // SAFETY: writable, if not NULL, as the standard has it.
        let place = unsafe { Place::new(size) }?;
        place.set(attribute::size(&session.view(object)?)? as CK_ULONG);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_DestroyObject(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE) -> CK_RV {
    guard(|| module()?.session(session)?.destroy(object))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_GetAttributeValue(
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    attributes: CK_ATTRIBUTE_PTR,
    count: CK_ULONG,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        if attributes.is_null() {
            return Err(Error(CKR_ARGUMENTS_BAD));
        }
        // SAFETY: the template is writable, as the standard has it.
        let attributes = unsafe { attributes_to_fill(attributes, count) }?;
        let view = session.view(object)?;
        let mut outcome = Ok(());
        for attribute in attributes {
            let value = attribute::read(&view, attribute.type_);
            // SAFETY: each value is writable for the length beside it, as the standard has it.
            // "The call MUST nonetheless have processed every attribute in the template", whatever one of them gave.
            outcome = outcome.and(unsafe { fill(attribute, value) });
        }
        outcome
    })
}

/// Fills one attribute in, by the five cases of C_GetAttributeValue.
///
/// # Safety
/// `pValue`, if not NULL, is writable for `ulValueLen` bytes.
unsafe fn fill(attribute: &mut CK_ATTRIBUTE, value: Result<Option<Value>>) -> Result<()> {
    let room = std::mem::replace(&mut attribute.ulValueLen, CK_UNAVAILABLE_INFORMATION);
    let bytes = match value? {
        Some(Value::Bytes(bytes)) => bytes,
        Some(Value::Sensitive) => return Err(Error(CKR_ATTRIBUTE_SENSITIVE)),
        None => return Err(Error(CKR_ATTRIBUTE_TYPE_INVALID)),
    };
    let length = bytes.len() as CK_ULONG;
    if !attribute.pValue.is_null() {
        if room < length {
            return Err(Error(CKR_BUFFER_TOO_SMALL));
        }
        // SAFETY: there is room, as promised, and our own bytes do not overlap the application's memory.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), attribute.pValue.cast(), bytes.len()) };
    }
    attribute.ulValueLen = length;
    Ok(())
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_SetAttributeValue(
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    attributes: CK_ATTRIBUTE_PTR,
    count: CK_ULONG,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        if attributes.is_null() {
            return Err(Error(CKR_ARGUMENTS_BAD));
        }
        // SAFETY: the template is readable, as the standard has it.
        session.set_attributes(object, &unsafe { template(attributes, count) }?)
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_FindObjectsInit(
    session: CK_SESSION_HANDLE,
    attributes: CK_ATTRIBUTE_PTR,
    count: CK_ULONG,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        // SAFETY: the template is readable, as the standard has it.
        let template = unsafe { template(attributes, count) }?;
        session.start_find(|| session.find(&template))
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_FindObjects(
    session: CK_SESSION_HANDLE,
    objects: CK_OBJECT_HANDLE_PTR,
    at_most: CK_ULONG,
    count: CK_ULONG_PTR,
) -> CK_RV {
    guard(|| {
        let session = module()?.session(session)?;
        if objects.is_null() {
            return Err(Error(CKR_ARGUMENTS_BAD));
        }
        // SAFETY: writable, if not NULL, as the standard has it.
        let place = unsafe { Place::new(count) }?;
        let found = session.next_found(usize::try_from(at_most).unwrap_or(usize::MAX))?;
        let mut length = at_most;
        // SAFETY: `objects` has room for `at_most` handles, as the standard has it.
        unsafe { Output::new(objects, &mut length) }?.fill(found.len(), || Ok(found))?;
        place.set(length);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_FindObjectsFinal(session: CK_SESSION_HANDLE) -> CK_RV {
    guard(|| module()?.session(session)?.end_find())
}
