//! `handle:` and `object:` URIs: what is in the TPM itself, or serialised by tpm2-tools.
//!
//! `handle:0x81......` is a persistent key, `handle:0x01......` an NV index with a certificate or a key file,
//! `handle:` alone the list of persistent keys, `object:FILE` a file of `tpm2_evictcontrol -o` or of `-c`.
//! An authValue is asked for after `?pass`, or taken from `?pin-source=FILE` and `?pin-value=...`.

use std::path::PathBuf;
use std::sync::Arc;

use keyrivet_core::key::Key;
use keyrivet_core::tss2_pem::Tss2Key;
use keyrivet_core::uri::Authorisation;
use keyrivet_core::{Error, Result};
use zeroize::Zeroizing;

use crate::decoder;
use crate::ffi::callback::Passphrase;
use crate::key::ProviderKey;
use crate::provider::Provider;

const HANDLE: &str = "handle:";
const OBJECT: &str = "object:";
/// More than tpm2-tools write of any object.
const FILE_LIMIT: u64 = 1 << 16;

/// Something that a URI names.
pub(crate) enum TpmObject {
    /// A URI to go on with.
    Name(String),
    /// A key.
    Key(KeyPlace, Authorisation),
    /// An NV index.
    Nv(u32),
}

/// Where a key is.
pub(crate) enum KeyPlace {
    /// In the TPM for good.
    Handle(u32),
    /// In the TPM or outside, as the file tells.
    File(PathBuf),
}

impl KeyPlace {
    /// The key. Costs a TPM command if it is named by its handle.
    pub(crate) fn key(
        &self,
        provider: &Provider,
        authorisation: &Authorisation,
        passphrase: &Passphrase,
    ) -> Result<Key> {
        let keyrivet = provider.keyrivet()?;
        let (mut key, name) = match self {
            Self::Handle(handle) => (keyrivet.key_from_handle(*handle)?, format!("TPM key 0x{handle:08x}")),
            Self::File(path) => {
                let content = read(path)?;
                (keyrivet.key_from_object_file(&content)?, format!("TPM key {}", path.display()))
            }
        };
        let value = match authorisation {
            Authorisation::None => None,
            Authorisation::Asked => Some(passphrase.ask(&name)?),
            Authorisation::Uri(uri) => uri.pin()?,
        };
        if let Some(value) = value {
            key.authorise(value);
        }
        Ok(key)
    }
}

/// What a URI of these schemes names; `None` for other schemes. Costs a TPM command only where it names no object.
pub(crate) fn objects(provider: &Provider, uri: &str) -> Result<Option<Vec<TpmObject>>> {
    if let Some(rest) = without_scheme(uri, OBJECT) {
        let (path, authorisation) = split(rest)?;
        if path.is_empty() {
            return Err(malformed("it names no file"));
        }
        return Ok(Some(vec![TpmObject::Key(KeyPlace::File(path.into()), authorisation)]));
    }
    let Some(rest) = without_scheme(uri, HANDLE) else { return Ok(None) };
    let (handle, authorisation) = split(rest)?;
    if handle.is_empty() {
        let handles = provider.keyrivet()?.persistent_handles()?;
        let name = |handle| TpmObject::Name(format!("{HANDLE}0x{handle:08x}"));
        return Ok(Some(handles.into_iter().map(name).collect()));
    }
    let handle = number(handle).ok_or_else(|| malformed("its handle is no number, as in handle:0x81000001"))?;
    match handle >> 24 {
        0x81 => Ok(Some(vec![TpmObject::Key(KeyPlace::Handle(handle), authorisation)])),
        0x01 => Ok(Some(vec![TpmObject::Nv(handle)])),
        _ => Err(Error::Unsupported(format!(
            "the handle 0x{handle:08x}: persistent keys are at 0x81......, NV indices at 0x01......"
        ))),
    }
}

/// The key whose key file is in an NV index; `None` if something else is there.
pub(crate) fn key_in_nv(
    provider: &Arc<Provider>,
    content: &[u8],
    passphrase: &Passphrase,
) -> Result<Option<ProviderKey>> {
    // What was not written is full of one or the other.
    let end = content.iter().rposition(|byte| !matches!(byte, 0 | 0xff)).map_or(0, |last| last + 1);
    let text = std::str::from_utf8(&content[..end]).ok();
    let file = match text.filter(|text| text.contains(keyrivet_core::tss2_pem::PEM_LABEL)) {
        Some(text) => Tss2Key::from_pem(text)?,
        None if decoder::is_tpm_key(content) => Tss2Key::from_der(whole(content))?,
        None => return Ok(None),
    };
    decoder::key_of_file(provider, &file, passphrase).map(Some)
}

/// The first DER element: an index may be longer than what is in it.
fn whole(content: &[u8]) -> &[u8] {
    use der::{Decode as _, Encode as _};
    let header = der::SliceReader::new(content).and_then(|mut reader| der::Header::decode(&mut reader));
    let length = header.and_then(|header| header.encoded_len()? + header.length);
    length.ok().and_then(|length| content.get(..usize::try_from(length).ok()?)).unwrap_or(content)
}

fn without_scheme<'a>(uri: &'a str, scheme: &str) -> Option<&'a str> {
    let found = uri.get(..scheme.len()).filter(|found| found.eq_ignore_ascii_case(scheme));
    found.and_then(|found| uri.get(found.len()..))
}

/// Splits off what tells where the authValue comes from.
fn split(rest: &str) -> Result<(&str, Authorisation)> {
    let Some((place, query)) = rest.rsplit_once('?') else { return Ok((rest, Authorisation::None)) };
    match Authorisation::parse(query)? {
        Some(authorisation) => Ok((place, authorisation)),
        None if rest.starts_with("0x") => Err(malformed("what follows '?' is not pass, pin-source or pin-value")),
        // A file may be called so.
        None => Ok((rest, Authorisation::None)),
    }
}

/// A number as handles are written, in hexadecimal or decimal.
pub(crate) fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn read(path: &std::path::Path) -> Result<Zeroizing<Vec<u8>>> {
    use std::io::Read as _;
    let failed = |source| Error::Store { path: path.into(), source };
    let mut content = Zeroizing::new(Vec::new());
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE_LIMIT).read_to_end(&mut content).map_err(failed)?;
    Ok(content)
}

fn malformed(reason: &str) -> Error {
    Error::Malformed { what: "handle: or object: URI", reason: reason.into() }
}
