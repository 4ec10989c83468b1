//! What the provider has on offer, and the state behind one instance of it.

use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, Ordering};

use keyrivet_core::Keyrivet;
use keyrivet_core::Result;
use keyrivet_core::config::Config;
use once_cell::race::OnceBox;

use crate::ffi::core::Core;
use crate::ffi::core_abi::*;
use crate::ffi::dispatch::Algorithm;
use crate::ffi::{asym_cipher, decoder, encoder, keyexch, keymgmt, rand, signature, store};

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
    // Without a lock, which a child that is forked meanwhile would find locked for ever.
    keyrivet: OnceBox<Keyrivet>,
    /// libssl has asked for groups: its handshakes may come here for their keys.
    serves_tls: AtomicBool,
}

impl Provider {
    /// An instance that has touched nothing yet.
    pub(crate) fn new(core: Core) -> Self {
        Self { core, keyrivet: OnceBox::new(), serves_tls: AtomicBool::new(false) }
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
        let config = Config::load_with(|key| self.core.parameter(key).filter(|value| !value.is_empty()))?;
        Ok(self.keyrivet.get_or_init(|| Box::new(Keyrivet::open(config))))
    }

    /// Remembers that libssl has asked for groups.
    pub(crate) fn note_tls(&self) {
        self.serves_tls.store(true, Ordering::Relaxed);
    }

    /// Whether a key on a curve without further wishes may be for a handshake; see `tls`.
    pub(crate) fn may_make_keys_for_tls(&self) -> bool {
        self.serves_tls.load(Ordering::Relaxed) && self.core.version() >= (3, 5)
    }

    /// Gives up whatever is held at the TPM.
    pub(crate) fn release(&self) {
        if let Some(keyrivet) = self.keyrivet.get() {
            keyrivet.release();
        }
    }
}

/// The algorithms of an operation for a core of this version, empty if there are none.
pub(crate) fn algorithms(operation: u32, core: (u32, u32)) -> &'static [Algorithm] {
    match operation {
        OSSL_OP_KEYMGMT => &KEYMGMT,
        // Before, some of the names were those of digests.
        OSSL_OP_SIGNATURE if core >= (3, 4) => &SIGNATURE,
        OSSL_OP_SIGNATURE => &SIGNATURE_BEFORE_3_4,
        OSSL_OP_ASYM_CIPHER => &ASYM_CIPHER,
        OSSL_OP_KEYEXCH => &KEYEXCH,
        OSSL_OP_RAND => &RAND,
        OSSL_OP_STORE => &STORE,
        OSSL_OP_DECODER => &DECODER,
        OSSL_OP_ENCODER => &ENCODER,
        _ => &[],
    }
}

const OURS: &CStr = c"provider=keyrivet";
const RSA_NAMES: &CStr = c"RSA:rsaEncryption:1.2.840.113549.1.1.1";
const RSA_PSS_NAMES: &CStr = c"RSA-PSS:RSASSA-PSS:1.2.840.113549.1.1.10";
const EC_NAMES: &CStr = c"EC:id-ecPublicKey:1.2.840.10045.2.1";

static KEYMGMT: [Algorithm; 4] = [
    Algorithm::new(RSA_NAMES, OURS, keymgmt::RSA, c"RSA keys in a TPM"),
    Algorithm::new(RSA_PSS_NAMES, OURS, keymgmt::RSA_PSS, c"RSA-PSS keys in a TPM"),
    Algorithm::new(EC_NAMES, OURS, keymgmt::EC, c"EC keys in a TPM"),
    Algorithm::END,
];

const RSA_SIGNATURE: Algorithm =
    Algorithm::new(RSA_NAMES, OURS, signature::table::<signature::Rsa>(), c"RSA signatures by a TPM");
const ECDSA_SIGNATURE: Algorithm =
    Algorithm::new(c"ECDSA", OURS, signature::table::<signature::Ecdsa>(), c"ECDSA signatures by a TPM");

static SIGNATURE_BEFORE_3_4: [Algorithm; 3] = [RSA_SIGNATURE, ECDSA_SIGNATURE, Algorithm::END];

/// With a hash of the place in `ffi::signature`'s list.
const fn rsa_with<const HASH: usize>(names: &'static CStr) -> Algorithm {
    Algorithm::new(names, OURS, signature::table::<signature::RsaWith<HASH>>(), c"RSA signatures by a TPM")
}

const fn ecdsa_with<const HASH: usize>(names: &'static CStr) -> Algorithm {
    Algorithm::new(names, OURS, signature::table::<signature::EcdsaWith<HASH>>(), c"ECDSA signatures by a TPM")
}

/// With the names that `default` has for the same.
static SIGNATURE: [Algorithm; 19] = [
    RSA_SIGNATURE,
    ECDSA_SIGNATURE,
    rsa_with::<0>(c"RSA-SHA2-224:RSA-SHA224:sha224WithRSAEncryption:1.2.840.113549.1.1.14"),
    rsa_with::<1>(c"RSA-SHA2-256:RSA-SHA256:sha256WithRSAEncryption:1.2.840.113549.1.1.11"),
    rsa_with::<2>(c"RSA-SHA2-384:RSA-SHA384:sha384WithRSAEncryption:1.2.840.113549.1.1.12"),
    rsa_with::<3>(c"RSA-SHA2-512:RSA-SHA512:sha512WithRSAEncryption:1.2.840.113549.1.1.13"),
    rsa_with::<4>(c"RSA-SHA3-224:id-rsassa-pkcs1-v1_5-with-sha3-224:2.16.840.1.101.3.4.3.13"),
    rsa_with::<5>(c"RSA-SHA3-256:id-rsassa-pkcs1-v1_5-with-sha3-256:2.16.840.1.101.3.4.3.14"),
    rsa_with::<6>(c"RSA-SHA3-384:id-rsassa-pkcs1-v1_5-with-sha3-384:2.16.840.1.101.3.4.3.15"),
    rsa_with::<7>(c"RSA-SHA3-512:id-rsassa-pkcs1-v1_5-with-sha3-512:2.16.840.1.101.3.4.3.16"),
    ecdsa_with::<0>(c"ECDSA-SHA2-224:ECDSA-SHA224:ecdsa-with-SHA224:1.2.840.10045.4.3.1"),
    ecdsa_with::<1>(c"ECDSA-SHA2-256:ECDSA-SHA256:ecdsa-with-SHA256:1.2.840.10045.4.3.2"),
    ecdsa_with::<2>(c"ECDSA-SHA2-384:ECDSA-SHA384:ecdsa-with-SHA384:1.2.840.10045.4.3.3"),
    ecdsa_with::<3>(c"ECDSA-SHA2-512:ECDSA-SHA512:ecdsa-with-SHA512:1.2.840.10045.4.3.4"),
    ecdsa_with::<4>(c"ECDSA-SHA3-224:ecdsa_with_SHA3-224:id-ecdsa-with-sha3-224:2.16.840.1.101.3.4.3.9"),
    ecdsa_with::<5>(c"ECDSA-SHA3-256:ecdsa_with_SHA3-256:id-ecdsa-with-sha3-256:2.16.840.1.101.3.4.3.10"),
    ecdsa_with::<6>(c"ECDSA-SHA3-384:ecdsa_with_SHA3-384:id-ecdsa-with-sha3-384:2.16.840.1.101.3.4.3.11"),
    ecdsa_with::<7>(c"ECDSA-SHA3-512:ecdsa_with_SHA3-512:id-ecdsa-with-sha3-512:2.16.840.1.101.3.4.3.12"),
    Algorithm::END,
];

static ASYM_CIPHER: [Algorithm; 2] =
    [Algorithm::new(RSA_NAMES, OURS, asym_cipher::RSA, c"RSA decryption by a TPM"), Algorithm::END];

static KEYEXCH: [Algorithm; 2] = [Algorithm::new(c"ECDH", OURS, keyexch::ECDH, c"ECDH by a TPM"), Algorithm::END];

/// Under a name of its own, so that nobody who asks for random numbers in general gets these.
static RAND: [Algorithm; 2] =
    [Algorithm::new(c"TPM2-RNG", OURS, rand::TPM, c"random numbers of a TPM"), Algorithm::END];

static STORE: [Algorithm; 4] = [
    Algorithm::new(c"pkcs11", OURS, store::ANY, c"tokens by pkcs11: URI"),
    Algorithm::new(c"handle", OURS, store::ANY, c"what is in the TPM for good"),
    Algorithm::new(c"object", OURS, store::ANY, c"files of tpm2-tools"),
    Algorithm::END,
];

const TSS2_DER: &CStr = c"provider=keyrivet,input=der,structure=TSS2";
const URI_DER: &CStr = c"provider=keyrivet,input=der,structure=pkcs11-uri";

static DECODER: [Algorithm; 8] = [
    Algorithm::new(c"DER", c"provider=keyrivet,input=pem", decoder::PEM, c"key files"),
    Algorithm::new(RSA_NAMES, TSS2_DER, decoder::TSS2_RSA, c"TSS2 key files"),
    Algorithm::new(RSA_PSS_NAMES, TSS2_DER, decoder::TSS2_RSA_PSS, c"TSS2 key files"),
    Algorithm::new(EC_NAMES, TSS2_DER, decoder::TSS2_EC, c"TSS2 key files"),
    Algorithm::new(RSA_NAMES, URI_DER, decoder::URI_RSA, c"files that hold a pkcs11: URI"),
    Algorithm::new(RSA_PSS_NAMES, URI_DER, decoder::URI_RSA_PSS, c"files that hold a pkcs11: URI"),
    Algorithm::new(EC_NAMES, URI_DER, decoder::URI_EC, c"files that hold a pkcs11: URI"),
    Algorithm::END,
];

const SPKI_DER: &CStr = c"provider=keyrivet,output=der,structure=SubjectPublicKeyInfo";
const SPKI_PEM: &CStr = c"provider=keyrivet,output=pem,structure=SubjectPublicKeyInfo";
const PRIVATE_DER: &CStr = c"provider=keyrivet,output=der,structure=PrivateKeyInfo";
const PRIVATE_PEM: &CStr = c"provider=keyrivet,output=pem,structure=PrivateKeyInfo";
const TEXT: &CStr = c"provider=keyrivet,output=text";

static ENCODER: [Algorithm; 18] = [
    Algorithm::new(RSA_NAMES, SPKI_DER, encoder::SPKI_DER, c"SubjectPublicKeyInfo"),
    Algorithm::new(RSA_NAMES, SPKI_PEM, encoder::SPKI_PEM, c"SubjectPublicKeyInfo"),
    Algorithm::new(RSA_PSS_NAMES, SPKI_DER, encoder::SPKI_DER, c"SubjectPublicKeyInfo"),
    Algorithm::new(RSA_PSS_NAMES, SPKI_PEM, encoder::SPKI_PEM, c"SubjectPublicKeyInfo"),
    Algorithm::new(EC_NAMES, SPKI_DER, encoder::SPKI_DER, c"SubjectPublicKeyInfo"),
    Algorithm::new(EC_NAMES, SPKI_PEM, encoder::SPKI_PEM, c"SubjectPublicKeyInfo"),
    Algorithm::new(RSA_NAMES, PRIVATE_DER, encoder::TSS2_DER, c"TSS2 key files"),
    Algorithm::new(RSA_NAMES, PRIVATE_PEM, encoder::TSS2_PEM, c"TSS2 key files"),
    Algorithm::new(RSA_PSS_NAMES, PRIVATE_DER, encoder::TSS2_DER, c"TSS2 key files"),
    Algorithm::new(RSA_PSS_NAMES, PRIVATE_PEM, encoder::TSS2_PEM, c"TSS2 key files"),
    Algorithm::new(EC_NAMES, PRIVATE_DER, encoder::TSS2_DER, c"TSS2 key files"),
    Algorithm::new(EC_NAMES, PRIVATE_PEM, encoder::TSS2_PEM, c"TSS2 key files"),
    Algorithm::new(RSA_NAMES, c"provider=keyrivet,output=der,structure=type-specific", encoder::RSA_DER, c"PKCS#1"),
    Algorithm::new(RSA_NAMES, c"provider=keyrivet,output=pem,structure=type-specific", encoder::RSA_PEM, c"PKCS#1"),
    Algorithm::new(RSA_NAMES, TEXT, encoder::TEXT, c"text"),
    Algorithm::new(RSA_PSS_NAMES, TEXT, encoder::TEXT, c"text"),
    Algorithm::new(EC_NAMES, TEXT, encoder::TEXT, c"text"),
    Algorithm::END,
];
