//! D-Bus messages, as far as one method call needs them: D-Bus specification, "Message Protocol".

use rustix::net::SocketAddrUnix;

/// Longer than this is no message that anybody sends us.
pub(super) const LONGEST: usize = 1 << 20;

const METHOD_CALL: u8 = 1;
const ERROR: u8 = 3;
const VERSION: u8 = 1;
const OUR_ENDIANNESS: u8 = if cfg!(target_endian = "little") { b'l' } else { b'B' };

/// Codes of header fields.
const FIELD_PATH: u8 = 1;
const FIELD_INTERFACE: u8 = 2;
const FIELD_MEMBER: u8 = 3;
const FIELD_REPLY_SERIAL: u8 = 5;
const FIELD_DESTINATION: u8 = 6;
const FIELD_UNIX_FDS: u8 = 9;

/// The Unix sockets of an address string, in their order.
pub(super) fn socket_addresses(address: &str) -> impl Iterator<Item = SocketAddrUnix> {
    address.split(';').filter_map(|address| {
        let settings = address.strip_prefix("unix:")?;
        settings.split(',').find_map(|setting| match setting.split_once('=')? {
            ("path", path) => SocketAddrUnix::new(unescaped(path)).ok(),
            ("abstract", name) => SocketAddrUnix::new_abstract_name(&unescaped(name)).ok(),
            _ => None,
        })
    })
}

fn unescaped(value: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(value).collect()
}

/// A call of a method without arguments.
pub(super) struct Call {
    fields: Vec<u8>,
}

impl Call {
    pub(super) fn new(destination: &str, path: &str, interface: &str, member: &str) -> Self {
        let mut this = Self { fields: Vec::new() };
        this.field(FIELD_PATH, b'o', path);
        this.field(FIELD_DESTINATION, b's', destination);
        this.field(FIELD_INTERFACE, b's', interface);
        this.field(FIELD_MEMBER, b's', member);
        this
    }

    /// A structure of a code and a variant with a text. The array that it is part of begins at a multiple of 8.
    fn field(&mut self, code: u8, kind: u8, text: &str) {
        align(&mut self.fields, 8);
        self.fields.extend([code, 1, kind, 0]);
        self.fields.extend((text.len() as u32).to_ne_bytes());
        self.fields.extend(text.as_bytes());
        self.fields.push(0);
    }

    pub(super) fn message(&self, serial: u32) -> Vec<u8> {
        let mut message = vec![OUR_ENDIANNESS, METHOD_CALL, 0, VERSION];
        for number in [0, serial, self.fields.len() as u32] {
            message.extend(number.to_ne_bytes());
        }
        message.extend(&self.fields);
        align(&mut message, 8);
        message
    }
}

fn align(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

/// What we want to know of a message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) reply_to: Option<u32>,
    /// Of an error, what it says.
    pub(super) error: Option<String>,
    /// How many descriptors came with it.
    pub(super) descriptors: usize,
}

/// The message that `bytes` begin with, and its length; `None` while it is not whole.
pub(super) fn parse(bytes: &[u8]) -> Option<(Message, usize)> {
    let mut reader = Reader { bytes, at: 0 };
    let [endianness, kind, _, _] = reader.array()?;
    if endianness != OUR_ENDIANNESS {
        // From a machine that is not this one. It can only be passed over, if its end were known: give up.
        return None;
    }
    let body = reader.number()? as usize;
    let _serial = reader.number()?;
    let fields = reader.number()? as usize;
    let end_of_fields = reader.at.checked_add(fields)?;
    let start_of_body = end_of_fields.checked_next_multiple_of(8)?;
    let end = start_of_body.checked_add(body)?;
    if end > bytes.len() {
        return None;
    }
    let mut message = Message::default();
    let mut header = Reader { bytes: &bytes[..end_of_fields], at: reader.at };
    while header.at < end_of_fields {
        header.align(8);
        let Some([code]) = header.array() else { break };
        match (code, header.value()) {
            (FIELD_REPLY_SERIAL, Some(Value::Number(serial))) => message.reply_to = Some(serial),
            (FIELD_UNIX_FDS, Some(Value::Number(count))) => message.descriptors = count as usize,
            (_, Some(_)) => {}
            (_, None) => break,
        }
    }
    if kind == ERROR {
        let text = Reader { bytes: &bytes[..end], at: start_of_body }.text();
        message.error = Some(text.unwrap_or_else(|| "an error without a text".into()));
    }
    Some((message, end))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

enum Value {
    Number(u32),
    Other,
}

impl Reader<'_> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = self.bytes.get(self.at..self.at.checked_add(N)?)?;
        self.at += N;
        bytes.try_into().ok()
    }

    fn number(&mut self) -> Option<u32> {
        self.align(4);
        self.array().map(u32::from_ne_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = self.number()? as usize;
        let end = self.at.checked_add(length)?;
        let text = String::from_utf8_lossy(self.bytes.get(self.at..end)?).into_owned();
        self.at = end.checked_add(1)?;
        Some(text)
    }

    /// A variant of the types that header fields have.
    fn value(&mut self) -> Option<Value> {
        let [1, kind, 0] = self.array()? else { return None };
        match kind {
            b'u' => self.number().map(Value::Number),
            b's' | b'o' => self.text().map(|_| Value::Other),
            b'g' => {
                let [length] = self.array()?;
                self.at += usize::from(length) + 1;
                Some(Value::Other)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reply as the bus passes it on: fields reply serial, sender, signature and descriptors; a body.
    fn reply(kind: u8) -> Vec<u8> {
        let mut call = Call { fields: Vec::new() };
        call.fields.extend([FIELD_REPLY_SERIAL, 1, b'u', 0]);
        call.fields.extend(7_u32.to_ne_bytes());
        call.field(7, b's', ":1.5");
        align(&mut call.fields, 8);
        call.fields.extend([8, 1, b'g', 0, 1, b's', 0]);
        align(&mut call.fields, 8);
        call.fields.extend([FIELD_UNIX_FDS, 1, b'u', 0]);
        call.fields.extend(1_u32.to_ne_bytes());
        let mut message = call.message(3);
        message[1] = kind;
        let text = "no such thing";
        message.extend((text.len() as u32).to_ne_bytes());
        message.extend(text.bytes().chain([0]));
        let body = (4 + text.len() + 1) as u32;
        message[4..8].copy_from_slice(&body.to_ne_bytes());
        message
    }

    #[test]
    fn replies_and_errors_are_understood_when_they_are_whole() {
        let whole = reply(2);
        let expected = Message { reply_to: Some(7), error: None, descriptors: 1 };
        assert_eq!(parse(&whole), Some((expected, whole.len())));
        assert_eq!(parse(&reply(ERROR)).unwrap().0.error.as_deref(), Some("no such thing"));
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), None);
        }
        // Whatever else comes is passed over, without a panic.
        for place in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = whole.clone();
                damaged[place] = value;
                let _ = parse(&damaged);
            }
        }
    }

    #[test]
    fn a_call_is_laid_out_as_the_specification_says() {
        let message = Call::new("d", "/p", "i", "m").message(1);
        assert_eq!(message.len() % 8, 0);
        assert_eq!(message[12..16], (message.len() as u32 - 16 - 6).to_ne_bytes());
        assert_eq!(&message[16..24], [1, 1, b'o', 0].iter().copied().chain(2_u32.to_ne_bytes()).collect::<Vec<_>>());
    }

    #[test]
    fn addresses_of_sockets_are_found_and_others_are_not() {
        let names = |address: &str| {
            let found = socket_addresses(address).map(|found| match found.path() {
                Some(path) => path.to_string_lossy().into_owned(),
                None => format!("@{}", String::from_utf8_lossy(found.abstract_name().unwrap())),
            });
            found.collect::<Vec<_>>()
        };
        assert_eq!(names("unix:path=/run/a%20b,guid=1;tcp:host=x;unix:abstract=c"), ["/run/a b", "@c"]);
        assert!(names("tcp:host=x,port=1;autolaunch:;nonsense").is_empty());
    }
}
