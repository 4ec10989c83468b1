//! `OSSL_PARAM` arrays, read and written without trust in their sizes (OSSL_PARAM(3)).

use std::ffi::{CStr, c_void};
use std::marker::PhantomData;
use std::ptr;

use keyrivet_core::{Error, Result};
use zeroize::Zeroizing;

use super::core_abi::*;

/// `OSSL_PARAM_UNMODIFIED` of core.h.
const UNMODIFIED: usize = usize::MAX;

/// The type of a parameter's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A signed number.
    Integer,
    /// An unsigned number of any length.
    Unsigned,
    /// Text.
    Text,
    /// Bytes.
    Octets,
    /// A pointer to bytes that are ours.
    OctetsPointer,
}

impl Kind {
    const fn code(self) -> u32 {
        match self {
            Self::Integer => OSSL_PARAM_INTEGER,
            Self::Unsigned => OSSL_PARAM_UNSIGNED_INTEGER,
            Self::Text => OSSL_PARAM_UTF8_STRING,
            Self::Octets => OSSL_PARAM_OCTET_STRING,
            Self::OctetsPointer => OSSL_PARAM_OCTET_PTR,
        }
    }
}

/// One entry of a list of parameters that can be got or set.
#[repr(transparent)]
pub(crate) struct Descriptor(OSSL_PARAM);

// SAFETY: a constant description; the core only reads it.
unsafe impl Sync for Descriptor {}

impl Descriptor {
    /// The mark at the end of each list.
    pub(crate) const END: Self =
        Self(OSSL_PARAM { key: ptr::null(), data_type: 0, data: ptr::null_mut(), data_size: 0, return_size: 0 });

    /// The mark at the end of an array that is written.
    pub(super) const fn end() -> OSSL_PARAM {
        Self::END.0
    }

    /// A parameter of this name and type.
    pub(crate) const fn new(key: &'static CStr, kind: Kind) -> Self {
        Self(OSSL_PARAM {
            key: key.as_ptr(),
            data_type: kind.code(),
            data: ptr::null_mut(),
            data_size: 0,
            return_size: UNMODIFIED,
        })
    }
}

/// A list of descriptions as the core wants it.
pub(super) fn descriptors(list: &'static [Descriptor]) -> *const OSSL_PARAM {
    list.as_ptr().cast()
}

/// Parameters given to us.
pub(crate) struct Params<'a> {
    first: *const OSSL_PARAM,
    life: PhantomData<&'a OSSL_PARAM>,
}

impl<'a> Params<'a> {
    /// Wraps an array, which may be null.
    ///
    /// # Safety
    ///
    /// `first` is null or an array with its end mark that stays, with what it points at, for `'a`.
    pub(super) unsafe fn new(first: *const OSSL_PARAM) -> Self {
        Self { first, life: PhantomData }
    }

    /// The parameter of this name.
    pub(crate) fn get(&self, key: &CStr) -> Option<Param<'a>> {
        let mut next = self.first;
        if next.is_null() {
            return None;
        }
        // SAFETY: an array with its end mark by the contract of `new`; keys are C strings.
        unsafe {
            while !(*next).key.is_null() {
                if CStr::from_ptr((*next).key) == key {
                    return Some(Param(&*next));
                }
                next = next.add(1);
            }
        }
        None
    }
}

/// One parameter given to us.
pub(crate) struct Param<'a>(&'a OSSL_PARAM);

impl<'a> Param<'a> {
    fn wrong(&self, expected: &str) -> Error {
        // SAFETY: a parameter's key is a C string.
        let key = unsafe { CStr::from_ptr(self.0.key) };
        Error::Malformed { what: "parameter", reason: format!("{} is not {expected}", key.to_string_lossy()) }
    }

    fn bytes(&self) -> &'a [u8] {
        // SAFETY: a parameter given to us points at `data_size` readable bytes.
        unsafe { super::bytes(self.0.data.cast(), self.0.data_size) }
    }

    /// A number of at most 64 bits with its sign.
    pub(crate) fn integer(&self) -> Result<i64> {
        let number = self.big_endian()?;
        let wrong = || self.wrong("a number that fits");
        let negative = self.0.data_type == OSSL_PARAM_INTEGER && number.first().is_some_and(|&byte| byte & 0x80 != 0);
        let mut value: i64 = if negative { -1 } else { 0 };
        if number.len() > 8 {
            return Err(wrong());
        }
        for byte in number {
            value = value << 8 | i64::from(byte);
        }
        if !negative && value < 0 { Err(wrong()) } else { Ok(value) }
    }

    /// An unsigned number of any length, big-endian without leading zeros.
    pub(crate) fn big_number(&self) -> Result<Vec<u8>> {
        if self.0.data_type != OSSL_PARAM_UNSIGNED_INTEGER {
            return Err(self.wrong("an unsigned number"));
        }
        let number = self.big_endian()?;
        let zeros = number.iter().take_while(|&&byte| byte == 0).count();
        Ok(number[zeros..].to_vec())
    }

    /// The number's bytes, most significant first.
    fn big_endian(&self) -> Result<Vec<u8>> {
        if !matches!(self.0.data_type, OSSL_PARAM_INTEGER | OSSL_PARAM_UNSIGNED_INTEGER) {
            return Err(self.wrong("a number"));
        }
        let mut number = self.bytes().to_vec();
        if cfg!(target_endian = "little") {
            number.reverse();
        }
        Ok(number)
    }

    /// Whether it is text (rather than a number, where both are allowed).
    pub(crate) fn is_text(&self) -> bool {
        matches!(self.0.data_type, OSSL_PARAM_UTF8_STRING | OSSL_PARAM_UTF8_PTR)
    }

    /// Text.
    pub(crate) fn text(&self) -> Result<&'a str> {
        let bytes = match self.0.data_type {
            OSSL_PARAM_UTF8_STRING => self.bytes(),
            // SAFETY: such a parameter points at a pointer to a C string.
            OSSL_PARAM_UTF8_PTR if !self.0.data.is_null() => unsafe {
                let pointer = *self.0.data.cast::<*const std::ffi::c_char>();
                if pointer.is_null() { &[] } else { CStr::from_ptr(pointer).to_bytes() }
            },
            _ => return Err(self.wrong("text")),
        };
        // Its size may or may not count the NUL.
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        std::str::from_utf8(&bytes[..end]).map_err(|_| self.wrong("UTF-8"))
    }

    /// Bytes.
    pub(crate) fn octets(&self) -> Result<&'a [u8]> {
        if self.0.data_type == OSSL_PARAM_OCTET_STRING { Ok(self.bytes()) } else { Err(self.wrong("bytes")) }
    }
}

/// Parameters asked of us.
pub(crate) struct Answers<'a> {
    first: *mut OSSL_PARAM,
    life: PhantomData<&'a mut OSSL_PARAM>,
}

impl Answers<'_> {
    /// Wraps an array, which may be null.
    ///
    /// # Safety
    ///
    /// `first` is null or an array with its end mark that stays, with the buffers it points at, and is used by nobody
    /// else meanwhile.
    pub(super) unsafe fn new(first: *mut OSSL_PARAM) -> Self {
        Self { first, life: PhantomData }
    }

    /// Answers the parameter `key`, if it is asked.
    ///
    /// Errors where the buffer is too small or of another type; the needed size is told then.
    pub(crate) fn answer(&mut self, key: &CStr, value: Value<'_>) -> Result<()> {
        match self.find(key) {
            Some(param) => {
                put(param, value).ok_or_else(|| Error::DataInvalid(format!("no room for {}", key.to_string_lossy())))
            }
            None => Ok(()),
        }
    }

    /// Answers with text or a number, whichever is asked.
    pub(crate) fn answer_either(&mut self, key: &CStr, text: &CStr, number: i64) -> Result<()> {
        let numeric = self.find(key).is_some_and(|param| param.data_type == OSSL_PARAM_INTEGER);
        self.answer(key, if numeric { Value::Signed(number) } else { Value::Text(text) })
    }

    /// Whether the parameter `key` is asked.
    pub(crate) fn asks(&mut self, key: &CStr) -> bool {
        self.find(key).is_some()
    }

    fn find(&mut self, key: &CStr) -> Option<&mut OSSL_PARAM> {
        let mut next = self.first;
        if next.is_null() {
            return None;
        }
        // SAFETY: an array with its end mark by the contract of `new`; keys are C strings.
        unsafe {
            while !(*next).key.is_null() {
                if CStr::from_ptr((*next).key) == key {
                    return Some(&mut *next);
                }
                next = next.add(1);
            }
        }
        None
    }
}

/// A parameter's value.
#[derive(Clone, Copy)]
pub(crate) enum Value<'a> {
    /// A number.
    Number(u64),
    /// A number with its sign.
    Signed(i64),
    /// An unsigned number of any length, big-endian.
    BigNumber(&'a [u8]),
    /// Text.
    Text(&'a CStr),
    /// Text that never goes away: it may be told by pointer.
    Constant(&'static CStr),
    /// Bytes.
    Octets(&'a [u8]),
    /// Bytes that stay as long as the object that is asked: they may be told by pointer.
    Held(&'a [u8]),
}

fn put(param: &mut OSSL_PARAM, value: Value<'_>) -> Option<()> {
    match (value, param.data_type) {
        (Value::Signed(_), OSSL_PARAM_INTEGER) if param.data.is_null() => {
            param.return_size = size_of::<i32>();
            Some(())
        }
        (Value::Signed(number), OSSL_PARAM_INTEGER) => match param.data_size {
            4 => put_bytes(param, &i32::try_from(number).ok()?.to_ne_bytes()),
            8 => put_bytes(param, &number.to_ne_bytes()),
            _ => None,
        },
        (Value::Number(number), OSSL_PARAM_INTEGER | OSSL_PARAM_UNSIGNED_INTEGER) => {
            let number = number.to_be_bytes();
            let signed = param.data_type == OSSL_PARAM_INTEGER;
            let zeros = number.iter().take_while(|&&byte| byte == 0).count().min(number.len() - 1);
            let least = number.len() - zeros + usize::from(signed && number[zeros] & 0x80 != 0);
            put_number(param, &number[zeros..], least)
        }
        (Value::BigNumber(number), OSSL_PARAM_UNSIGNED_INTEGER) => put_number(param, number, number.len()),
        (Value::Text(text), OSSL_PARAM_UTF8_STRING) => {
            // The size told leaves the NUL out, and so may the buffer (OSSL_PARAM(3)).
            let content = text.to_bytes();
            put_bytes(param, content)?;
            if !param.data.is_null() && param.data_size > content.len() {
                // SAFETY: the buffer has `data_size` writable bytes, more than the content's.
                unsafe { param.data.cast::<u8>().add(content.len()).write(0) };
            }
            Some(())
        }
        (Value::Constant(text), OSSL_PARAM_UTF8_PTR) => {
            param.return_size = text.to_bytes().len();
            if !param.data.is_null() {
                // SAFETY: such a parameter points at room for a pointer; the text is constant.
                unsafe { param.data.cast::<*const std::ffi::c_char>().write(text.as_ptr()) };
            }
            Some(())
        }
        (Value::Constant(text), _) => put(param, Value::Text(text)),
        (Value::Held(octets), OSSL_PARAM_OCTET_PTR) => {
            param.return_size = octets.len();
            if !param.data.is_null() {
                let pointer = if octets.is_empty() { ptr::null() } else { octets.as_ptr() };
                // SAFETY: such a parameter points at room for a pointer; the bytes stay as OSSL_PARAM(3) asks.
                unsafe { param.data.cast::<*const u8>().write(pointer) };
            }
            Some(())
        }
        (Value::Held(octets), _) => put(param, Value::Octets(octets)),
        (Value::Octets(octets), OSSL_PARAM_OCTET_STRING) => put_bytes(param, octets),
        _ => None,
    }
}

/// Writes a number, most significant byte first, of which `least` bytes are needed, into a buffer of the host's order.
fn put_number(param: &mut OSSL_PARAM, number: &[u8], least: usize) -> Option<()> {
    if param.data.is_null() || param.data_size < least {
        param.return_size = least;
        return param.data.is_null().then_some(());
    }
    let mut padded = vec![0; param.data_size - number.len()];
    padded.extend_from_slice(number);
    if cfg!(target_endian = "little") {
        padded.reverse();
    }
    put_bytes(param, &padded)
}

fn put_bytes(param: &mut OSSL_PARAM, content: &[u8]) -> Option<()> {
    param.return_size = content.len();
    if param.data.is_null() {
        return Some(());
    }
    if param.data_size < content.len() {
        return None;
    }
    // SAFETY: the buffer has `data_size` writable bytes, and the content is ours.
    unsafe { ptr::copy_nonoverlapping(content.as_ptr(), param.data.cast::<u8>(), content.len()) };
    Some(())
}

/// Parameters that we give to a callback; they own their values.
#[derive(Default)]
pub(crate) struct ParamList {
    entries: Vec<(&'static CStr, Kind, Zeroizing<Vec<u8>>)>,
}

impl ParamList {
    /// Adds a signed number.
    pub(crate) fn number(mut self, key: &'static CStr, value: i32) -> Self {
        self.entries.push((key, Kind::Integer, value.to_ne_bytes().to_vec().into()));
        self
    }

    /// Adds an unsigned number, big-endian.
    pub(crate) fn big_number(mut self, key: &'static CStr, number: &[u8]) -> Self {
        let mut number = Zeroizing::new(number.to_vec());
        if cfg!(target_endian = "little") {
            number.reverse();
        }
        self.entries.push((key, Kind::Unsigned, number));
        self
    }

    /// Adds text.
    pub(crate) fn text(mut self, key: &'static CStr, text: &str) -> Self {
        let mut bytes = text.as_bytes().to_vec();
        // Readers of some versions expect the NUL behind the size that is told.
        bytes.push(0);
        self.entries.push((key, Kind::Text, bytes.into()));
        self
    }

    /// Adds bytes.
    pub(crate) fn octets(mut self, key: &'static CStr, octets: &[u8]) -> Self {
        self.entries.push((key, Kind::Octets, octets.to_vec().into()));
        self
    }

    /// Lends the array for the core, with `more` before its end mark.
    pub(super) fn lend<T>(&self, more: Option<OSSL_PARAM>, to: impl FnOnce(*const OSSL_PARAM) -> T) -> T {
        let entry = |(key, kind, value): &(&'static CStr, Kind, Zeroizing<Vec<u8>>)| OSSL_PARAM {
            key: key.as_ptr(),
            data_type: kind.code(),
            data: value.as_ptr().cast::<c_void>().cast_mut(),
            data_size: value.len() - usize::from(*kind == Kind::Text),
            return_size: UNMODIFIED,
        };
        let array: Vec<_> = self.entries.iter().map(entry).chain(more).chain([Descriptor::END.0]).collect();
        to(array.as_ptr())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn param(kind: u32, data: &mut [u8]) -> [OSSL_PARAM; 2] {
        let entry = OSSL_PARAM {
            key: c"key".as_ptr(),
            data_type: kind,
            data: data.as_mut_ptr().cast(),
            data_size: data.len(),
            return_size: UNMODIFIED,
        };
        [entry, Descriptor::END.0]
    }

    fn answered(kind: u32, data: &mut [u8], value: Value<'_>) -> (bool, usize) {
        let mut array = param(kind, data);
        // SAFETY: an array of two with its end mark, used by nobody else.
        let written = unsafe { Answers::new(array.as_mut_ptr()) }.answer(c"key", value).is_ok();
        (written, array[0].return_size)
    }

    fn read<T>(kind: u32, data: &mut [u8], how: impl Fn(Param<'_>) -> T) -> T {
        let array = param(kind, data);
        // SAFETY: an array of two with its end mark, which outlives its use.
        how(unsafe { Params::new(array.as_ptr()) }.get(c"key").unwrap())
    }

    #[test]
    fn numbers_of_every_size_are_read_with_their_sign() {
        assert_eq!(read(OSSL_PARAM_INTEGER, &mut (-2_i32).to_ne_bytes(), |p| p.integer().unwrap()), -2);
        assert_eq!(read(OSSL_PARAM_INTEGER, &mut 7_i64.to_ne_bytes(), |p| p.integer().unwrap()), 7);
        assert_eq!(read(OSSL_PARAM_UNSIGNED_INTEGER, &mut [0xff], |p| p.integer().unwrap()), 255);
        assert!(read(OSSL_PARAM_UNSIGNED_INTEGER, &mut [0xff; 8], |p| p.integer().is_err()));
        assert!(read(OSSL_PARAM_UNSIGNED_INTEGER, &mut [1; 9], |p| p.integer().is_err()));
        assert!(read(OSSL_PARAM_UTF8_STRING, &mut [b'1'], |p| p.integer().is_err()));
    }

    #[test]
    fn an_answer_that_does_not_fit_tells_the_size_it_needs() {
        let mut room = [0xaa; 4];
        assert_eq!(answered(OSSL_PARAM_OCTET_STRING, &mut room, Value::Octets(&[1; 5])), (false, 5));
        assert_eq!(answered(OSSL_PARAM_UNSIGNED_INTEGER, &mut room, Value::BigNumber(&[1; 5])), (false, 5));
        assert_eq!(answered(OSSL_PARAM_INTEGER, &mut room, Value::Number(0x8000_0000)), (false, 5));
        assert_eq!(room, [0xaa; 4]);
        assert_eq!(answered(OSSL_PARAM_INTEGER, &mut room, Value::Number(2048)), (true, 4));
        assert_eq!(i32::from_ne_bytes(room), 2048);
        assert_eq!(answered(OSSL_PARAM_UTF8_STRING, &mut room, Value::Text(c"EC")), (true, 2));
        assert_eq!(&room[..3], b"EC\0");
        assert!(!answered(OSSL_PARAM_UTF8_STRING, &mut room, Value::Number(1)).0);
    }

    #[test]
    fn big_numbers_go_through_in_the_order_of_the_host() {
        let mut room = [0; 6];
        assert_eq!(answered(OSSL_PARAM_UNSIGNED_INTEGER, &mut room, Value::BigNumber(&[1, 2, 3])), (true, 6));
        assert_eq!(read(OSSL_PARAM_UNSIGNED_INTEGER, &mut room, |p| p.big_number().unwrap()), [1, 2, 3]);
    }
}
