//! What the provider has on offer, and the state behind one instance of it.

use std::ffi::CStr;
use std::sync::OnceLock;

use keyrivet_core::Keyrivet;
use keyrivet_core::Result;
use keyrivet_core::config::Config;

use crate::ffi::core::Core;
use crate::ffi::core_abi::*;
use crate::ffi::dispatch::Algorithm;
use crate::ffi::{asym_cipher, decoder, encoder, keyexch, keymgmt, signature, store};

/// Its name, as `openssl list -providers` shows it.
pub(crate) const NAME: &CStr = c"Keyrivet: keys in a TPM 2.0";
/// Its version, from Cargo.toml.
pub(crate) const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => c"",
};

/// One instance of the provider: one for each library context it is loaded into.
pub(crate) struct Provider {
    core: Core,
    keyrivet: OnceLock<Keyrivet>,
}

impl Provider {
    /// An instance that has touched nothing yet.
    pub(crate) fn new(core: Core) -> Self {
        Self { core, keyrivet: OnceLock::new() }
    }

    /// The core it belongs to.
    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    /// The keys, opened at their first use.
    ///
    /// Not before: an error in our configuration must not keep every program from starting OpenSSL.
    pub(crate) fn keyrivet(&self) -> Result<&Keyrivet> {
        if let Some(keyrivet) = self.keyrivet.get() {
            return Ok(keyrivet);
        }
        let config = Config::load()?;
        Ok(self.keyrivet.get_or_init(|| Keyrivet::open(config)))
    }

    /// Gives up whatever is held at the TPM.
    pub(crate) fn release(&self) {
        if let Some(keyrivet) = self.keyrivet.get() {
            keyrivet.release();
        }
    }
}

/// The algorithms of an operation, empty if there are none.
pub(crate) fn algorithms(operation: u32) -> &'static [Algorithm] {
    match operation {
        OSSL_OP_KEYMGMT => &KEYMGMT,
        OSSL_OP_SIGNATURE => &SIGNATURE,
        OSSL_OP_ASYM_CIPHER => &ASYM_CIPHER,
        OSSL_OP_KEYEXCH => &KEYEXCH,
        OSSL_OP_STORE => &STORE,
        OSSL_OP_DECODER => &DECODER,
        OSSL_OP_ENCODER => &ENCODER,
        _ => &[],
    }
}

const OURS: &CStr = c"provider=keyrivet";
const RSA_NAMES: &CStr = c"RSA:rsaEncryption:1.2.840.113549.1.1.1";
const EC_NAMES: &CStr = c"EC:id-ecPublicKey:1.2.840.10045.2.1";

static KEYMGMT: [Algorithm; 3] = [
    Algorithm::new(RSA_NAMES, OURS, keymgmt::RSA, c"RSA keys in a TPM"),
    Algorithm::new(EC_NAMES, OURS, keymgmt::EC, c"EC keys in a TPM"),
    Algorithm::END,
];

static SIGNATURE: [Algorithm; 3] = [
    Algorithm::new(RSA_NAMES, OURS, signature::RSA, c"RSA signatures by a TPM"),
    Algorithm::new(c"ECDSA", OURS, signature::EC, c"ECDSA signatures by a TPM"),
    Algorithm::END,
];

static ASYM_CIPHER: [Algorithm; 2] =
    [Algorithm::new(RSA_NAMES, OURS, asym_cipher::RSA, c"RSA decryption by a TPM"), Algorithm::END];

static KEYEXCH: [Algorithm; 2] = [Algorithm::new(c"ECDH", OURS, keyexch::ECDH, c"ECDH by a TPM"), Algorithm::END];

static STORE: [Algorithm; 2] =
    [Algorithm::new(c"pkcs11", OURS, store::PKCS11, c"tokens by pkcs11: URI"), Algorithm::END];

const TSS2_DER: &CStr = c"provider=keyrivet,input=der,structure=TSS2";
const URI_DER: &CStr = c"provider=keyrivet,input=der,structure=pkcs11-uri";

static DECODER: [Algorithm; 6] = [
    Algorithm::new(c"DER", c"provider=keyrivet,input=pem", decoder::PEM, c"key files"),
    Algorithm::new(RSA_NAMES, TSS2_DER, decoder::TSS2_RSA, c"TSS2 key files"),
    Algorithm::new(EC_NAMES, TSS2_DER, decoder::TSS2_EC, c"TSS2 key files"),
    Algorithm::new(RSA_NAMES, URI_DER, decoder::URI_RSA, c"files that hold a pkcs11: URI"),
    Algorithm::new(EC_NAMES, URI_DER, decoder::URI_EC, c"files that hold a pkcs11: URI"),
    Algorithm::END,
];

const SPKI_DER: &CStr = c"provider=keyrivet,output=der,structure=SubjectPublicKeyInfo";
const SPKI_PEM: &CStr = c"provider=keyrivet,output=pem,structure=SubjectPublicKeyInfo";
const PRIVATE_DER: &CStr = c"provider=keyrivet,output=der,structure=PrivateKeyInfo";
const PRIVATE_PEM: &CStr = c"provider=keyrivet,output=pem,structure=PrivateKeyInfo";
const TEXT: &CStr = c"provider=keyrivet,output=text";

static ENCODER: [Algorithm; 13] = [
    Algorithm::new(RSA_NAMES, SPKI_DER, encoder::SPKI_DER, c"SubjectPublicKeyInfo"),
    Algorithm::new(RSA_NAMES, SPKI_PEM, encoder::SPKI_PEM, c"SubjectPublicKeyInfo"),
    Algorithm::new(EC_NAMES, SPKI_DER, encoder::SPKI_DER, c"SubjectPublicKeyInfo"),
    Algorithm::new(EC_NAMES, SPKI_PEM, encoder::SPKI_PEM, c"SubjectPublicKeyInfo"),
    Algorithm::new(RSA_NAMES, PRIVATE_DER, encoder::TSS2_DER, c"TSS2 key files"),
    Algorithm::new(RSA_NAMES, PRIVATE_PEM, encoder::TSS2_PEM, c"TSS2 key files"),
    Algorithm::new(EC_NAMES, PRIVATE_DER, encoder::TSS2_DER, c"TSS2 key files"),
    Algorithm::new(EC_NAMES, PRIVATE_PEM, encoder::TSS2_PEM, c"TSS2 key files"),
    Algorithm::new(RSA_NAMES, c"provider=keyrivet,output=der,structure=type-specific", encoder::RSA_DER, c"PKCS#1"),
    Algorithm::new(RSA_NAMES, c"provider=keyrivet,output=pem,structure=type-specific", encoder::RSA_PEM, c"PKCS#1"),
    Algorithm::new(RSA_NAMES, TEXT, encoder::TEXT, c"text"),
    Algorithm::new(EC_NAMES, TEXT, encoder::TEXT, c"text"),
    Algorithm::END,
];
