//! The application's memory: reading bytes, templates and mechanisms, and the "how long, too small, exact" of output.

use std::ptr::NonNull;

use cryptoki_sys::*;

use crate::error::{Error, Result};
use crate::mechanism::Mechanism;
use crate::parameter::Parameter;
use crate::template::Template;

const BAD: Error = Error(CKR_ARGUMENTS_BAD);

/// Bytes that the application gives; NULL is fine for none.
///
/// # Safety
/// `pointer`, if not NULL, is readable for `length` bytes, which do not change during the call.
pub(super) unsafe fn bytes<'a>(pointer: *const CK_BYTE, length: CK_ULONG) -> Result<&'a [u8]> {
    // SAFETY: the same promise.
    unsafe { array(pointer, length) }
}

/// An array that the application gives.
///
/// # Safety
/// `pointer`, if not NULL, is readable for `count` elements, which do not change during the call.
unsafe fn array<'a, T>(pointer: *const T, count: CK_ULONG) -> Result<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    let count = bounded::<T>(count)?;
    if pointer.is_null() || !pointer.is_aligned() {
        return Err(BAD);
    }
    // SAFETY: neither NULL nor misaligned, readable as promised, and no longer than an allocation can be.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count) })
}

/// An element count that an allocation of `T` can have.
fn bounded<T>(count: CK_ULONG) -> Result<usize> {
    let count = usize::try_from(count).map_err(|_| BAD)?;
    let size = count.checked_mul(size_of::<T>()).ok_or(BAD)?;
    if size > isize::MAX as usize { Err(BAD) } else { Ok(count) }
}

/// A template that the application gives.
///
/// # Safety
/// `pointer`, if not NULL, is readable for `count` attributes, and so is each value for the length beside it.
pub(super) unsafe fn template<'a>(pointer: *const CK_ATTRIBUTE, count: CK_ULONG) -> Result<Template<'a>> {
    // SAFETY: the same promise.
    let attributes = unsafe { array(pointer, count) }?;
    let mut values = Vec::with_capacity(attributes.len());
    for attribute in attributes {
        // SAFETY: promised for each value.
        let value = unsafe { bytes(attribute.pValue.cast(), attribute.ulValueLen) };
        values.push((attribute.type_, value.map_err(|_| Error(CKR_ATTRIBUTE_VALUE_INVALID))?));
    }
    Template::new(values)
}

/// A mechanism that the application gives; `None` for NULL, which cancels an operation.
///
/// # Safety
/// `pointer`, if not NULL, is readable, and so is its parameter for the length beside it.
pub(super) unsafe fn mechanism<'a>(pointer: *const CK_MECHANISM) -> Result<Option<Mechanism<'a>>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: readable, as promised; it need not be aligned.
    let mechanism = unsafe { pointer.read_unaligned() };
    // SAFETY: promised.
    let parameter = unsafe { parameter(&mechanism) }.map_err(|_| Error(CKR_MECHANISM_PARAM_INVALID))?;
    Ok(Some(Mechanism { kind: mechanism.mechanism, parameter }))
}

/// A mechanism's parameter, with what its own pointers point to.
///
/// # Safety
/// It is readable for its length, and what it points to for the lengths in it, none of which change during the call.
unsafe fn parameter<'a>(mechanism: &CK_MECHANISM) -> Result<Parameter<'a>> {
    // SAFETY: promised.
    let bytes = unsafe { self::bytes(mechanism.pParameter.cast(), mechanism.ulParameterLen) }?;
    match mechanism.mechanism {
        // What is not as long as its structure is no such parameter: the mechanism will say so.
        CKM_RSA_PKCS_OAEP if bytes.len() == size_of::<CK_RSA_PKCS_OAEP_PARAMS>() => {
            // SAFETY: any bytes of its size make such a structure, and what it points to is promised.
            unsafe {
                let given = bytes.as_ptr().cast::<CK_RSA_PKCS_OAEP_PARAMS>().read_unaligned();
                let label = self::bytes(given.pSourceData.cast(), given.ulSourceDataLen)?;
                Ok(Parameter::Oaep { hash: given.hashAlg, mgf: given.mgf, source: given.source, label })
            }
        }
        CKM_ECDH1_DERIVE | CKM_ECDH1_COFACTOR_DERIVE if bytes.len() == size_of::<CK_ECDH1_DERIVE_PARAMS>() => {
            // SAFETY: any bytes of its size make such a structure, and what it points to is promised.
            unsafe {
                let given = bytes.as_ptr().cast::<CK_ECDH1_DERIVE_PARAMS>().read_unaligned();
                let shared = self::bytes(given.pSharedData, given.ulSharedDataLen)?;
                let public = self::bytes(given.pPublicData, given.ulPublicDataLen)?;
                Ok(Parameter::Ecdh { kdf: given.kdf, shared, public })
            }
        }
        _ => Ok(Parameter::Bytes(bytes)),
    }
}

/// Attributes that the application wants to read, to be filled in.
///
/// # Safety
/// `pointer`, if not NULL, is writable for `count` attributes, which nothing else uses during the call.
pub(super) unsafe fn attributes_to_fill<'a>(
    pointer: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
) -> Result<&'a mut [CK_ATTRIBUTE]> {
    if count == 0 {
        return Ok(&mut []);
    }
    let count = bounded::<CK_ATTRIBUTE>(count)?;
    if pointer.is_null() || !pointer.is_aligned() {
        return Err(BAD);
    }
    // SAFETY: neither NULL nor misaligned, writable as promised, and no longer than an allocation can be.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer, count) })
}

/// Where one value goes.
pub(super) struct Place<T>(NonNull<T>);

impl<T> Place<T> {
    /// # Safety
    /// `pointer`, if not NULL, is writable until the call ends.
    pub(super) unsafe fn new(pointer: *mut T) -> Result<Self> {
        NonNull::new(pointer).map(Self).ok_or(BAD)
    }

    /// Writes it.
    pub(super) fn set(self, value: T) {
        // SAFETY: writable, as `new` was promised; it need not be aligned.
        unsafe { self.0.write_unaligned(value) };
    }
}

/// Where a result of variable length goes (PKCS#11 3.2, "Conventions for functions returning output").
pub(super) struct Output<T> {
    pointer: *mut T,
    length: NonNull<CK_ULONG>,
}

impl<T: Copy> Output<T> {
    /// # Safety
    /// `length`, if not NULL, is readable and writable; `pointer`, if not NULL, is writable for `*length` elements.
    /// Both until the call ends.
    pub(super) unsafe fn new(pointer: *mut T, length: *mut CK_ULONG) -> Result<Self> {
        Ok(Self { pointer, length: NonNull::new(length).ok_or(BAD)? })
    }

    /// Tells the length; and unless that was the question, has the result made and writes it, if it fits.
    pub(super) fn fill<R: AsRef<[T]>>(self, needed: usize, make: impl FnOnce() -> Result<R>) -> Result<()> {
        if !self.pointer.is_null() && self.room() < needed as CK_ULONG {
            self.tell(needed);
            return Err(Error(CKR_BUFFER_TOO_SMALL));
        }
        self.fill_at_most(needed, make).map(|_| ())
    }

    /// As [`Self::fill`], where only the result itself tells its length, which is at most `most`. Says whether the
    /// result was written: if not, the operation that made it is not over.
    pub(super) fn fill_at_most<R: AsRef<[T]>>(self, most: usize, make: impl FnOnce() -> Result<R>) -> Result<bool> {
        let room = self.room();
        self.tell(most);
        if self.pointer.is_null() {
            return Ok(false);
        }
        let result = make()?;
        let result = result.as_ref();
        if result.len() > most {
            return Err(Error(CKR_GENERAL_ERROR));
        }
        if room < result.len() as CK_ULONG {
            self.tell(result.len());
            return Err(Error(CKR_BUFFER_TOO_SMALL));
        }
        // SAFETY: writable for `room` elements, as `new` was promised, and the result has no more; it is our own
        // memory, so they do not overlap; bytes are copied, so that alignment does not matter.
        unsafe {
            let size = size_of_val(result);
            std::ptr::copy_nonoverlapping(result.as_ptr().cast::<u8>(), self.pointer.cast::<u8>(), size);
        }
        self.tell(result.len());
        Ok(true)
    }

    fn room(&self) -> CK_ULONG {
        // SAFETY: readable, as `new` was promised.
        unsafe { self.length.read_unaligned() }
    }

    fn tell(&self, length: usize) {
        // SAFETY: writable, as `new` was promised.
        unsafe { self.length.write_unaligned(length as CK_ULONG) };
    }
}

/// Text padded with blanks, never with NUL, as CK_INFO and its likes have it; cut between characters if too long.
pub(super) fn padded<const N: usize>(text: &str) -> [CK_UTF8CHAR; N] {
    let mut field = [b' '; N];
    let mut end = 0;
    for character in text.chars().filter(|character| *character != '\0') {
        let next = end + character.len_utf8();
        let Some(place) = field.get_mut(end..next) else { break };
        character.encode_utf8(place);
        end = next;
    }
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(buffer: Option<&mut [u8]>, room: CK_ULONG, result: &[u8]) -> (Result<()>, CK_ULONG) {
        let mut length = room;
        let pointer = buffer.map_or(std::ptr::null_mut(), <[u8]>::as_mut_ptr);
        // SAFETY: `room` is at most the buffer's length in all tests.
        let output = unsafe { Output::new(pointer, &mut length) }.unwrap();
        (output.fill(result.len(), || Ok(result.to_vec())), length)
    }

    #[test]
    fn the_needed_length_is_always_told() {
        let mut buffer = [0; 4];
        assert_eq!(fill(None, 0, b"abc"), (Ok(()), 3));
        assert_eq!(fill(Some(&mut buffer), 2, b"abc"), (Err(Error(CKR_BUFFER_TOO_SMALL)), 3));
        assert_eq!(fill(Some(&mut buffer), 3, b"abc"), (Ok(()), 3));
        assert_eq!(fill(Some(&mut buffer), 4, b"xyz"), (Ok(()), 3));
        assert_eq!(&buffer, b"xyz\0");
    }

    #[test]
    fn a_result_of_unknown_length_needs_only_its_own_room() {
        let fill = |room: CK_ULONG| {
            let (mut buffer, mut length) = ([0_u8; 4], room);
            // SAFETY: `room` is at most the buffer's length.
            let output = unsafe { Output::new(buffer.as_mut_ptr(), &mut length) }.unwrap();
            (output.fill_at_most(9, || Ok(b"abc")), length)
        };
        assert_eq!(fill(3), (Ok(true), 3));
        assert_eq!(fill(2), (Err(Error(CKR_BUFFER_TOO_SMALL)), 3));
    }

    #[test]
    fn impossible_lengths_and_nulls_are_bad_arguments() {
        // SAFETY: nothing is read of either.
        unsafe {
            assert_eq!(bytes(std::ptr::null(), 1), Err(BAD));
            assert_eq!(bytes(std::ptr::null(), 0), Ok(&[][..]));
            assert_eq!(bytes(NonNull::dangling().as_ptr(), CK_ULONG::MAX), Err(BAD));
        }
    }

    #[test]
    fn padding_cuts_between_characters() {
        assert_eq!(&padded::<5>("ab"), b"ab   ");
        assert_eq!(&padded::<3>("aß€"), "aß".as_bytes());
        assert_eq!(&padded::<4>("a\0b"), b"ab  ");
    }
}
