//! `pkcs11:` URIs (RFC 7512).

use std::fmt;
use std::io::Read as _;
use std::path::Path;

use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// A parsed `pkcs11:` URI. Absent attributes match everything.
///
/// `module-*` are read over: they say which module an application should load, and whoever reads this one has loaded
/// ours.
#[derive(Clone, Default)]
pub struct Pkcs11Uri {
    /// `token`: the token's label.
    pub token: Option<String>,
    /// `serial`: the token's serial number.
    pub serial: Option<String>,
    /// `manufacturer`: the token's manufacturer.
    pub manufacturer: Option<String>,
    /// `model`: the token's model.
    pub model: Option<String>,
    /// `slot-id`.
    pub slot_id: Option<u64>,
    /// `slot-manufacturer`.
    pub slot_manufacturer: Option<String>,
    /// `slot-description`.
    pub slot_description: Option<String>,
    /// `library-manufacturer`.
    pub library_manufacturer: Option<String>,
    /// `library-description`.
    pub library_description: Option<String>,
    /// `library-version`: major, minor.
    pub library_version: Option<(u8, u8)>,
    /// `object`: `CKA_LABEL`.
    pub object: Option<String>,
    /// `id`: `CKA_ID`.
    pub id: Option<Vec<u8>>,
    /// `type`.
    pub kind: Option<UriType>,
    /// `pin-value`. Seen in argv: `pin-source` is better.
    pub pin_value: Option<Zeroizing<String>>,
    /// `pin-source`: a file that holds the PIN (`file:` scheme or a path).
    pub pin_source: Option<String>,
}

/// `type` of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UriType {
    /// `cert`.
    Certificate,
    /// `data`.
    Data,
    /// `private`.
    PrivateKey,
    /// `public`.
    PublicKey,
    /// `secret-key`.
    SecretKey,
}

/// The PEM label that pkcs11-provider gave to files with a URI where a key is expected.
pub const PEM_LABEL: &str = "PKCS#11 PROVIDER URI";
/// What such a file says first.
const FILE_VERSION: &[u8] = b"PKCS#11 Provider URI v1.0";

const SCHEME: &str = "pkcs11:";
const READ_OVER: [&str; 2] = ["module-name", "module-path"];
/// No PIN is longer; it keeps `pin-source=/dev/zero` from filling the memory.
const PIN_FILE_LIMIT: u64 = 4096;

/// Where the authorisation value of a key comes from that no `pkcs11:` URI names.
pub enum Authorisation {
    /// It is empty.
    None,
    /// The user is asked.
    Asked,
    /// Its `pin-source` or `pin-value` tells.
    Uri(Pkcs11Uri),
}

impl Authorisation {
    /// By what stands behind a `?`: `pass`, `pin-source=` or `pin-value=`, `None` if it is nothing of that.
    pub fn parse(query: &str) -> Result<Option<Self>> {
        Ok(match query {
            "pass" => Some(Self::Asked),
            _ if query.starts_with("pin-") => Some(Self::Uri(Pkcs11Uri::parse(&format!("pkcs11:?{query}"))?)),
            _ => None,
        })
    }
}

impl Pkcs11Uri {
    /// Reads a URI.
    ///
    /// `pin-value` and `pin-source` are taken before the `?` as well as behind it: many programs' recipes write them so.
    pub fn parse(text: &str) -> Result<Self> {
        let scheme = text.get(..SCHEME.len()).filter(|scheme| scheme.eq_ignore_ascii_case(SCHEME));
        if scheme.is_none() {
            return Err(malformed("it does not begin with pkcs11:"));
        }
        let (path, query) = match text[SCHEME.len()..].split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (&text[SCHEME.len()..], None),
        };
        let mut uri = Self::default();
        for attribute in path.split(';').filter(|_| !path.is_empty()) {
            if let Some(unknown) = uri.take(attribute)? {
                // By RFC 7512 such an attribute matches nothing. Read over, a misspelt `token` would match every token.
                return Err(malformed(format_args!("its attribute '{unknown}' is unknown")));
            }
        }
        for attribute in query.into_iter().flat_map(|query| query.split('&')) {
            uri.take(attribute)?;
        }
        if uri.pin_value.is_some() && uri.pin_source.is_some() {
            return Err(malformed("it has both pin-value and pin-source"));
        }
        Ok(uri)
    }

    /// The URI in the bytes of such a file, SEQUENCE { VisibleString version, UTF8String uri }; `None` if it is something else.
    ///
    /// Recipes write it by hand, with lengths of more bytes than DER has.
    pub fn from_file(content: &[u8]) -> Result<Option<Self>> {
        const SEQUENCE: u8 = 0x30;
        const VISIBLE_STRING: u8 = 0x1a;
        const UTF8_STRING: u8 = 0x0c;
        let Some((SEQUENCE, content, &[])) = element(content) else { return Ok(None) };
        let Some((VISIBLE_STRING, FILE_VERSION, rest)) = element(content) else { return Ok(None) };
        match element(rest) {
            Some((UTF8_STRING, uri, &[])) => {
                Self::parse(std::str::from_utf8(uri).map_err(|_| malformed("it is not UTF-8"))?).map(Some)
            }
            _ => Err(malformed("its file does not hold one")),
        }
    }

    /// The PIN it gives: `pin-value`, or the first line of `pin-source`'s file.
    pub fn pin(&self) -> Result<Option<Zeroizing<Vec<u8>>>> {
        if let Some(pin) = &self.pin_value {
            return Ok(Some(Zeroizing::new(pin.as_bytes().to_vec())));
        }
        self.pin_source.as_deref().map(pin_by_source).transpose()
    }

    /// Takes one attribute; gives back its name if that is none of the standard's.
    fn take<'a>(&mut self, attribute: &'a str) -> Result<Option<&'a str>> {
        // An attribute without a value may be a PIN that lost its name: never show it.
        let (name, value) = attribute.split_once('=').ok_or_else(|| malformed("an attribute has no '='"))?;
        let named = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || !name.chars().all(named) {
            return Err(malformed("an attribute's name is none"));
        }
        let bytes = decoded(name, value)?;
        match name {
            "token" => set(&mut self.token, name, text(name, &bytes)?),
            "serial" => set(&mut self.serial, name, text(name, &bytes)?),
            "manufacturer" => set(&mut self.manufacturer, name, text(name, &bytes)?),
            "model" => set(&mut self.model, name, text(name, &bytes)?),
            "object" => set(&mut self.object, name, text(name, &bytes)?),
            "id" => set(&mut self.id, name, bytes.to_vec()),
            "slot-id" => {
                let number = text(name, &bytes)?.parse().map_err(|_| malformed("slot-id is not a number"))?;
                set(&mut self.slot_id, name, number)
            }
            "slot-manufacturer" => set(&mut self.slot_manufacturer, name, text(name, &bytes)?),
            "slot-description" => set(&mut self.slot_description, name, text(name, &bytes)?),
            "library-manufacturer" => set(&mut self.library_manufacturer, name, text(name, &bytes)?),
            "library-description" => set(&mut self.library_description, name, text(name, &bytes)?),
            "library-version" => set(&mut self.library_version, name, version(&text(name, &bytes)?)?),
            "type" => set(&mut self.kind, name, kind(&text(name, &bytes)?)?),
            "pin-value" => set(&mut self.pin_value, name, Zeroizing::new(text(name, &bytes)?)),
            "pin-source" => set(&mut self.pin_source, name, text(name, &bytes)?),
            name if READ_OVER.contains(&name) => Ok(()),
            unknown => return Ok(Some(unknown)),
        }?;
        Ok(None)
    }
}

/// Shows everything but the PIN.
impl fmt::Debug for Pkcs11Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pkcs11Uri")
            .field("token", &self.token)
            .field("serial", &self.serial)
            .field("manufacturer", &self.manufacturer)
            .field("model", &self.model)
            .field("slot_id", &self.slot_id)
            .field("slot_manufacturer", &self.slot_manufacturer)
            .field("slot_description", &self.slot_description)
            .field("library_manufacturer", &self.library_manufacturer)
            .field("library_description", &self.library_description)
            .field("library_version", &self.library_version)
            .field("object", &self.object)
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("pin_value", &self.pin_value.as_ref().map(|_| "..."))
            .field("pin_source", &self.pin_source)
            .finish()
    }
}

/// Tag and content of an ASN.1 element in BER with one byte of tag and a definite length, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

fn malformed(reason: impl fmt::Display) -> Error {
    Error::malformed("pkcs11: URI", reason)
}

/// Undoes the percent-encoding, of which half an escape is an error (RFC 3986, 2.1).
fn decoded(name: &str, value: &str) -> Result<Zeroizing<Vec<u8>>> {
    let escapes = value.split('%').skip(1);
    for escape in escapes {
        let digits = escape.as_bytes().get(..2);
        if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return Err(malformed(format_args!("in {name}, a '%' is not followed by two hexadecimal digits")));
        }
    }
    // Long enough from the start: what grows leaves a copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(value.len()));
    bytes.extend(percent_decode_str(value));
    Ok(bytes)
}

fn text(name: &str, bytes: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(bytes).map_err(|_| malformed(format_args!("{name} is not UTF-8")))?;
    Ok(text.to_owned())
}

fn set<T>(field: &mut Option<T>, name: &str, value: T) -> Result<()> {
    match field.replace(value) {
        Some(_) => Err(malformed(format_args!("{name} is there twice"))),
        None => Ok(()),
    }
}

/// `M.m`, or `M` for `M.0`.
fn version(text: &str) -> Result<(u8, u8)> {
    let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
    let number = |text: &str| text.parse().map_err(|_| malformed("library-version is no version"));
    Ok((number(major)?, number(minor)?))
}

fn kind(name: &str) -> Result<UriType> {
    match name {
        "cert" => Ok(UriType::Certificate),
        "data" => Ok(UriType::Data),
        "private" => Ok(UriType::PrivateKey),
        "public" => Ok(UriType::PublicKey),
        "secret-key" => Ok(UriType::SecretKey),
        _ => Err(malformed(format_args!("type is '{name}', not cert, data, private, public or secret-key"))),
    }
}

/// The PIN in a file that is named by its path or as `file:` URI (RFC 8089) of this machine.
fn pin_by_source(source: &str) -> Result<Zeroizing<Vec<u8>>> {
    if source.starts_with('|') {
        return Err(Error::Unsupported("a pin-source that is a command: give a file".into()));
    }
    let path = match source.strip_prefix("file:") {
        Some(path) => {
            let path = path.strip_prefix("//").map_or(path, |rest| rest.strip_prefix("localhost").unwrap_or(rest));
            if path.is_empty() {
                return Err(malformed("pin-source names no file"));
            }
            if source.starts_with("file://") && !path.starts_with('/') {
                return Err(Error::Unsupported(
                    "a pin-source on another machine: write file:/PATH or file:///PATH".into(),
                ));
            }
            path
        }
        None if source.split('/').next().is_some_and(|first| first.contains(':')) => {
            return Err(Error::Unsupported("a pin-source that is no file".into()));
        }
        None => source,
    };
    pin_in_file(Path::new(path))
}

/// The PIN in a file: its first line.
pub fn pin_in_file(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let failed = |source| Error::Store { path: path.into(), source };
    let mut pin = Zeroizing::new(Vec::with_capacity(PIN_FILE_LIMIT as usize));
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(PIN_FILE_LIMIT).read_to_end(&mut pin).map_err(failed)?;
    let end = pin.iter().position(|&byte| byte == b'\n').unwrap_or(pin.len());
    pin.truncate(end);
    if pin.last() == Some(&b'\r') {
        pin.pop();
    }
    Ok(pin)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Pkcs11Uri::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn every_attribute_is_read() {
        let uri = Pkcs11Uri::parse(
            "pkcs11:token=My%20token;serial=00ff;manufacturer=IBM;model=SW%20%20TPM;slot-id=3;object=k%C3%A9y;\
             id=%01%FFa;type=private;library-version=3;library-manufacturer=M;library-description=D;\
             slot-manufacturer=S;slot-description=%20T?pin-value=1%3B2&module-path=/x&x-vendor=1",
        );
        let uri = uri.unwrap();
        assert_eq!(uri.token.as_deref(), Some("My token"));
        assert_eq!(uri.serial.as_deref(), Some("00ff"));
        assert_eq!(uri.manufacturer.as_deref(), Some("IBM"));
        assert_eq!(uri.model.as_deref(), Some("SW  TPM"));
        assert_eq!(uri.slot_id, Some(3));
        assert_eq!(uri.library_version, Some((3, 0)));
        assert_eq!(uri.library_manufacturer.as_deref(), Some("M"));
        assert_eq!(uri.library_description.as_deref(), Some("D"));
        assert_eq!(uri.slot_manufacturer.as_deref(), Some("S"));
        assert_eq!(uri.slot_description.as_deref(), Some(" T"));
        assert_eq!(uri.object.as_deref(), Some("kéy"));
        assert_eq!(uri.id.as_deref(), Some(&[1, 255, b'a'][..]));
        assert_eq!(uri.kind, Some(UriType::PrivateKey));
        assert_eq!(uri.pin().unwrap().unwrap().as_slice(), b"1;2");
    }

    #[test]
    fn an_empty_uri_names_everything() {
        let uri = Pkcs11Uri::parse("PKCS11:").unwrap();
        assert!(uri.token.is_none() && uri.kind.is_none() && uri.pin().unwrap().is_none());
    }

    #[test]
    fn a_pin_is_taken_before_the_question_mark_too() {
        let uri = Pkcs11Uri::parse("pkcs11:token=dev;pin-value=1234").unwrap();
        assert_eq!(uri.pin().unwrap().unwrap().as_slice(), b"1234");
    }

    #[test]
    fn what_is_malformed_is_refused_and_named() {
        assert!(refusal("pkcs12:token=x").contains("pkcs11:"));
        assert!(refusal("pkc").contains("pkcs11:"));
        assert!(refusal("pkcs11:token=%2").contains("token"));
        assert!(refusal("pkcs11:id=%0g").contains("id"));
        assert!(refusal("pkcs11:token=%ff").contains("UTF-8"));
        assert!(refusal("pkcs11:token=a;token=b").contains("twice"));
        assert!(refusal("pkcs11:type=key").contains("'key'"));
        assert!(refusal("pkcs11:slot-id=-1").contains("slot-id"));
        assert!(refusal("pkcs11:library-version=1.x").contains("library-version"));
        assert!(refusal("pkcs11:token=a;").contains('='));
        assert!(refusal("pkcs11:to ken=a").contains("name"));
        assert!(refusal("pkcs11:tokn=a").contains("'tokn'"));
        assert!(refusal("pkcs11:?pin-value=1&pin-source=/x").contains("both"));
    }

    #[test]
    fn no_pin_is_ever_shown() {
        let uri = Pkcs11Uri::parse("pkcs11:token=dev?pin-value=hunter2").unwrap();
        assert!(!format!("{uri:?}").contains("hunter2"));
        for text in ["pkcs11:?pin-value=hunter2%", "pkcs11:hunter2", "pkcs11:?pin-value=hunter2&pin-value=hunter2"] {
            assert!(!refusal(text).contains("hunter2"));
        }
    }

    #[test]
    fn a_pin_source_is_the_first_line_of_a_file_and_never_a_command() {
        let path = std::env::temp_dir().join(format!("keyrivet-uri-{}", std::process::id()));
        std::fs::write(&path, "12 34\r\nsecond line\n").unwrap();
        let plain = path.to_str().unwrap().to_owned();
        for source in
            [plain.clone(), format!("file:{plain}"), format!("file://{plain}"), format!("file://localhost{plain}")]
        {
            let uri = Pkcs11Uri::parse(&format!("pkcs11:?pin-source={source}")).unwrap();
            assert_eq!(uri.pin().unwrap().unwrap().as_slice(), b"12 34", "{source}");
        }
        std::fs::remove_file(&path).unwrap();
        for source in ["|cat%20/etc/passwd", "https://example.org/pin", "file:", plain.as_str()] {
            assert!(Pkcs11Uri::parse(&format!("pkcs11:?pin-source={source}")).unwrap().pin().is_err(), "{source}");
        }
        let elsewhere = Pkcs11Uri::parse("pkcs11:?pin-source=file://etc/pin").unwrap().pin().unwrap_err().to_string();
        assert!(elsewhere.contains("on another machine"), "{elsewhere}");
    }
}
