//! Key files: `TSS2 PRIVATE KEY`, and files that hold a `pkcs11:` URI where a key is expected.
//!
//! OpenSSL offers every file to every decoder. What is not ours is passed over without a word; what is ours and wrong
//! is an error. Reading a key file costs no TPM command.

use std::cell::Cell;
use std::sync::Arc;

use der::asn1::ObjectIdentifier;
use der::{Decode as _, SliceReader, Tag};
use keyrivet_core::tss2_pem::{self, Tss2Key};
use keyrivet_core::uri::{self, Pkcs11Uri};
use keyrivet_core::{Error, Result};

use crate::ffi::callback::{Callback, Passphrase};
use crate::ffi::core::Bio;
use crate::ffi::core_abi::*;
use crate::ffi::params::ParamList;
use crate::key::{Family, ProviderKey};
use crate::pem::Block;
use crate::provider::Provider;
use crate::store::{Store, open_token};

/// More than any key file of ours.
const LIMIT: usize = 1 << 16;
/// The arc of `TPMKey` types (draft-bottomley-tpm2-keys, 3.1).
const TPM_KEY_ARC: &str = "2.23.133.10.1.";

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Structure {
    /// A wrapped TPM key.
    Tss2,
    /// A `pkcs11:` URI.
    Uri,
}

/// The PEM labels that are ours, each with the structure name that our DER decoders have in their properties.
const LABELS: [(&str, &str, Structure); 2] =
    [(tss2_pem::PEM_LABEL, "TSS2", Structure::Tss2), (uri::PEM_LABEL, "pkcs11-uri", Structure::Uri)];

impl Structure {
    /// Whether a selection of OpenSSL's can be had from such a file.
    pub(crate) fn offers(self, selection: u32) -> bool {
        let wanted = match self {
            Self::Tss2 => OSSL_KEYMGMT_SELECT_PRIVATE_KEY,
            Self::Uri => OSSL_KEYMGMT_SELECT_KEYPAIR,
        };
        selection == 0 || selection & wanted != 0
    }

    /// Whether this is what the file's label says it is.
    fn check(self, content: &[u8]) -> Result<()> {
        match self {
            Self::Tss2 => Tss2Key::from_der(content).map(drop),
            Self::Uri => match Pkcs11Uri::from_file(content)? {
                Some(_) => Ok(()),
                None => Err(malformed(uri::PEM_LABEL, "it holds something else")),
            },
        }
    }
}

/// Reads a PEM block; gives its content on, if it is ours. Says whether OpenSSL is to go on.
pub(crate) fn decode_pem(bio: &mut Bio<'_>, taker: &Callback) -> Result<bool> {
    let Some(block) = Block::read(bio) else { return Ok(true) };
    let Some(&(label, name, structure)) = LABELS.iter().find(|(label, ..)| *label == block.label) else {
        return Ok(true);
    };
    let content = block.decode(label)?;
    // Here, because the decoders that follow pass over what they do not know without a word.
    structure.check(&content).map_err(|error| match error {
        Error::Malformed { reason, .. } => malformed(label, reason),
        error => error,
    })?;
    // Where it is said to be a key, OpenSSL's file store keeps the errors of those who fail to read it as one.
    let params = ParamList::default()
        .number(OSSL_OBJECT_PARAM_TYPE, OSSL_OBJECT_PKEY as i32)
        .octets(OSSL_OBJECT_PARAM_DATA, &content)
        .text(OSSL_OBJECT_PARAM_DATA_STRUCTURE, name);
    let outer = UNDER_PEM.replace(UnderPem::Yes(None));
    let taken = taker.give(&params);
    match UNDER_PEM.replace(outer) {
        UnderPem::Yes(Some(error)) if !taken => Err(error),
        UnderPem::Yes(_) | UnderPem::No => Ok(taken),
    }
}

/// Whether a decoder of DER works on what our own decoder of PEM found.
#[derive(Default)]
enum UnderPem {
    #[default]
    No,
    /// With the error that it failed with.
    Yes(Option<Error>),
}

thread_local! {
    /// OpenSSL's file store calls one decoder from within the other, and drops the errors of the inner one: the outer
    /// one raises them.
    static UNDER_PEM: Cell<UnderPem> = Cell::default();
}

fn malformed(what: &'static str, reason: impl ToString) -> Error {
    Error::Malformed { what, reason: reason.to_string() }
}

/// Reads DER; gives on the key in it, if it is ours and of this type. Says whether OpenSSL is to go on.
pub(crate) fn decode_der(
    provider: &Arc<Provider>,
    wanted: (Structure, Family),
    bio: &mut Bio<'_>,
    selection: u32,
    (taker, passphrase): (&Callback, &Passphrase),
) -> Result<bool> {
    let Some(content) = bio.rest(LIMIT) else { return Ok(true) };
    match key(provider, wanted, &content, selection, passphrase) {
        Ok(key) => Ok(key.is_none_or(|key| taker.give_key(key))),
        Err(error) => match UNDER_PEM.take() {
            UnderPem::Yes(_) => {
                UNDER_PEM.set(UnderPem::Yes(Some(error)));
                Ok(false)
            }
            UnderPem::No => Err(error),
        },
    }
}

fn key(
    provider: &Arc<Provider>,
    (structure, family): (Structure, Family),
    content: &[u8],
    selection: u32,
    passphrase: &Passphrase,
) -> Result<Option<ProviderKey>> {
    match structure {
        Structure::Tss2 if is_tpm_key(content) => tss2_key(provider, family, content, passphrase),
        Structure::Tss2 => Ok(None),
        Structure::Uri => match Pkcs11Uri::from_file(content)? {
            Some(uri) => uri_key(provider, family, uri, selection, passphrase),
            None => Ok(None),
        },
    }
}

/// Whether DER says to be a `TPMKey`, well-formed or not.
///
/// Its first bytes tell, so that a damaged file of ours is called damaged, and not passed over as somebody else's.
pub(crate) fn is_tpm_key(der: &[u8]) -> bool {
    let mut reader = match SliceReader::new(der) {
        Ok(reader) => reader,
        Err(_) => return false,
    };
    let header = der::Header::decode(&mut reader).ok().filter(|header| header.tag == Tag::Sequence);
    let kind = header.and_then(|_| ObjectIdentifier::decode(&mut reader).ok());
    kind.is_some_and(|kind| kind.to_string().starts_with(TPM_KEY_ARC))
}

fn tss2_key(
    provider: &Arc<Provider>,
    family: Family,
    der: &[u8],
    passphrase: &Passphrase,
) -> Result<Option<ProviderKey>> {
    let file = Tss2Key::from_der(der)?;
    if Family::of_area(&file.public_area()?)? != family {
        return Ok(None);
    }
    key_of_file(provider, &file, passphrase).map(Some)
}

/// The key of a key file, with the authorisation that it needs. Costs no TPM command but a login's.
pub(crate) fn key_of_file(provider: &Arc<Provider>, file: &Tss2Key, passphrase: &Passphrase) -> Result<ProviderKey> {
    let mut key = provider.keyrivet()?.key_from_tss2(file)?;
    if let Some(token) = key.token() {
        open_token(token, None, passphrase)?;
    } else if key.needs_authorisation() {
        let value = passphrase.ask("TPM key")?;
        key.authorise(value);
    }
    Ok(ProviderKey::private(Arc::clone(provider), key))
}

fn uri_key(
    provider: &Arc<Provider>,
    family: Family,
    uri: Pkcs11Uri,
    selection: u32,
    passphrase: &Passphrase,
) -> Result<Option<ProviderKey>> {
    let private = selection == 0 || selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY != 0;
    let expected = if private { OSSL_STORE_INFO_PKEY } else { OSSL_STORE_INFO_PUBKEY };
    let mut store = Store::open_pkcs11(Arc::clone(provider), uri)?;
    store.expect(expected);
    store.first_key(family, passphrase)
}
