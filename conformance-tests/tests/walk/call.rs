//! A call of any function of the list, as the words that are given to it.

use std::any::Any;

use cryptoki_sys::*;

use crate::raw::{Given, Raw, Rv};
use crate::walk::function::{Argument, Function, WORDS};

/// Any function. By the calling conventions of the machines we run on, a function ignores the words that it does not
/// take.
type AnyFunction = unsafe extern "C" fn(usize, usize, usize, usize, usize, usize, usize, usize, usize, usize) -> CK_RV;

/// What stands behind every output, to see that nothing is written there.
const CANARY: u8 = 0xc5;
const CANARIES: usize = 64;

/// A function with its arguments, which can be spoilt before it is called.
pub(crate) struct Call<'a> {
    raw: &'a Raw,
    pub(crate) function: &'static Function,
    pub(crate) words: [usize; WORDS],
    next: usize,
    memory: Vec<Box<dyn Any>>,
    output: usize,
    length: usize,
    room: usize,
    /// Closed when it is dropped.
    session: Option<CK_SESSION_HANDLE>,
}

impl<'a> Call<'a> {
    pub(crate) fn new(raw: &'a Raw, function: &'static Function) -> Self {
        let words = [0; WORDS];
        Self { raw, function, words, next: 0, memory: Vec::new(), output: 0, length: 0, room: 0, session: None }
    }

    /// Closes this session at its end.
    pub(crate) fn with_session(mut self, session: CK_SESSION_HANDLE) -> Self {
        self.session = Some(session);
        self
    }

    /// The session it is made in.
    pub(crate) fn session(&self) -> CK_SESSION_HANDLE {
        self.function.session().map_or(0, |word| self.words[word] as CK_SESSION_HANDLE)
    }

    /// Adds a word.
    pub(crate) fn word(&mut self, word: usize) {
        self.words[self.next] = word;
        self.next += 1;
    }

    /// Keeps values in memory; their address.
    pub(crate) fn keep<T: 'static>(&mut self, mut values: Vec<T>) -> usize {
        // An empty vector's address is none.
        values.reserve(1);
        let address = values.as_mut_ptr() as usize;
        self.memory.push(Box::new(values));
        address
    }

    /// Adds bytes and their length.
    pub(crate) fn bytes(&mut self, bytes: Vec<u8>) {
        let length = bytes.len();
        let address = self.keep(bytes);
        self.word(address);
        self.word(length);
    }

    /// Adds a mechanism.
    pub(crate) fn mechanism(&mut self, kind: CK_MECHANISM_TYPE, parameter: Vec<u8>) {
        let length = parameter.len();
        let pointer = if length == 0 { 0 } else { self.keep(parameter) };
        let mechanism =
            CK_MECHANISM { mechanism: kind, pParameter: pointer as CK_VOID_PTR, ulParameterLen: length as CK_ULONG };
        let address = self.keep(vec![mechanism]);
        self.word(address);
    }

    /// Adds a template and its count.
    pub(crate) fn template(&mut self, template: &[Given]) {
        let mut attributes = Vec::new();
        for (kind, value) in template {
            let address = self.keep(value.clone());
            let (value, length) = (address as CK_VOID_PTR, value.len() as CK_ULONG);
            attributes.push(CK_ATTRIBUTE { type_: *kind, pValue: value, ulValueLen: length });
        }
        let (count, address) = (attributes.len(), self.keep(attributes));
        self.word(address);
        self.word(count);
    }

    /// Puts another template in place of the one at this word.
    pub(crate) fn set_template(&mut self, word: usize, template: &[Given]) {
        let next = std::mem::replace(&mut self.next, word);
        self.template(template);
        self.next = next;
    }

    /// Adds zeroed words.
    pub(crate) fn zeros(&mut self, count: usize) {
        let address = self.keep(vec![0usize; count]);
        self.word(address);
    }

    /// Adds an output with room for so many elements.
    pub(crate) fn output(&mut self, room: usize) {
        let at = self.next;
        self.next += 2;
        self.set_room(at, room);
    }

    /// Gives its output room for so many elements, behind which there are canaries.
    pub(crate) fn give_room(&mut self, room: usize) {
        self.set_room(self.output_word(), room);
    }

    /// Asks for the length only.
    pub(crate) fn give_no_buffer(&mut self) {
        let at = self.output_word();
        self.set_room(at, 0);
        self.words[at] = 0;
    }

    /// Says again how much room there is, after a call told how much it used.
    pub(crate) fn renew(&self) {
        if self.function.output().is_some() {
            // SAFETY: our own memory, which `memory` keeps.
            unsafe { (self.length as *mut CK_ULONG).write(self.room as CK_ULONG) };
        }
    }

    fn set_room(&mut self, at: usize, room: usize) {
        self.room = room;
        self.output = self.keep(vec![CANARY; room * self.unit() + CANARIES]);
        self.length = self.keep(vec![room as CK_ULONG]);
        (self.words[at], self.words[at + 1]) = (self.output, self.length);
    }

    fn output_word(&self) -> usize {
        self.function.output().expect("the function has output")
    }

    /// Bytes of an element of its output.
    fn unit(&self) -> usize {
        let list = self.function.arguments.iter().find_map(|argument| match argument {
            Argument::List(bytes) => Some(*bytes),
            _ => None,
        });
        list.unwrap_or(1)
    }

    /// Calls it.
    pub(crate) fn run(&self) -> Rv<()> {
        let list = std::ptr::from_ref(self.raw.list).cast::<u8>();
        let [a, b, c, d, e, f, g, h, i, j] = self.words;
        // SAFETY: the offset is that of a function pointer in the list, none of which is NULL; the words are what the
        // function may be given, NULL and stale handles included, with true lengths.
        let value = unsafe {
            let function = list.add(self.function.offset).cast::<AnyFunction>().read();
            function(a, b, c, d, e, f, g, h, i, j)
        };
        if value == CKR_OK { Ok(()) } else { Err(value) }
    }

    /// The length that was told.
    pub(crate) fn told(&self) -> usize {
        // SAFETY: our own memory, which `memory` keeps.
        unsafe { (self.length as *const CK_ULONG).read() as usize }
    }

    /// What was written: as many elements as the length says.
    pub(crate) fn written(&self) -> Vec<u8> {
        let told = self.told();
        assert!(told <= self.room, "{}: more than there is room for", self.function.name);
        self.buffer()[..told * self.unit()].to_vec()
    }

    /// Whether everything behind so many elements of the output is as it was.
    pub(crate) fn untouched_behind(&self, elements: usize) -> bool {
        self.buffer()[elements * self.unit()..].iter().all(|byte| *byte == CANARY)
    }

    fn buffer(&self) -> &[u8] {
        // SAFETY: our own memory of this size, which `memory` keeps, and nobody writes to while this is looked at.
        unsafe { std::slice::from_raw_parts(self.output as *const u8, self.room * self.unit() + CANARIES) }
    }

    /// The word at an address that a [`Argument::Value`] gave.
    pub(crate) fn value(&self, word: usize) -> CK_ULONG {
        // SAFETY: our own memory, which `memory` keeps.
        unsafe { (self.words[word] as *const CK_ULONG).read() }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.session {
            // It may be gone already.
            let _ = crate::raw::call!(self.raw, C_CloseSession(session));
        }
    }
}
