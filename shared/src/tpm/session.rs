//! HMAC sessions: the cryptography of TPM 2.0 Part 1, chapters 11.4 and 19 to 21, in software.

use std::cell::LazyCell;

use aes::{Aes128, Aes256};
use cfb_mode::cipher::{AsyncStreamCipher as _, KeyIvInit as _};
use hmac::{Hmac, Mac as _};
use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::algorithm::{Curve, EncryptionScheme, HashAlgorithm};
use crate::error::{Error, Result};
use crate::public_area::PublicArea;
use crate::public_key::PublicKey;
use crate::random;

/// The hash of every session that we start.
pub(crate) const SESSION_HASH: HashAlgorithm = HashAlgorithm::Sha256;
/// Length of our nonces: the session hash's, the longest that a TPM must take.
const NONCE_LENGTH: usize = 32;

/// Bits of `TPMA_SESSION` (TPM 2.0 Part 2, 8.4).
pub(crate) mod session_attribute {
    /// The session stays after the command.
    pub(crate) const CONTINUE: u8 = 1;
    /// The first parameter of the command is encrypted.
    pub(crate) const DECRYPT: u8 = 1 << 5;
    /// The first parameter of the response is encrypted.
    pub(crate) const ENCRYPT: u8 = 1 << 6;
}

/// A started session. Never leaves its connection, and is thrown away after a response that does not verify.
pub(crate) struct Session {
    /// Its TPM handle.
    pub(crate) handle: u32,
    key: Zeroizing<Vec<u8>>,
    nonce_caller: [u8; NONCE_LENGTH],
    /// Ours for the next command, where there was time to draw it.
    next_nonce: Option<[u8; NONCE_LENGTH]>,
    nonce_tpm: Vec<u8>,
}

/// A secret shared with the TPM that holds a key, and its encrypted form: a session's salt, or an import's seed.
pub(crate) struct Salt {
    /// Derived at its first use: whoever needs the encrypted form first need not wait for that.
    value: LazyCell<Zeroizing<Vec<u8>>, Derivation>,
    /// The content of `encryptedSalt`, or of `inSymSeed`.
    pub(crate) encrypted: Vec<u8>,
}

/// What it knows is behind pointers, so that nothing is left where it is moved from, and is wiped when it is done.
type Derivation = Box<dyn FnOnce() -> Zeroizing<Vec<u8>>>;

/// What it is for, as the label of its derivation (Part 1, B.10 and C.6).
#[derive(Clone, Copy)]
pub(crate) enum SaltUse {
    Session,
    Import,
}

impl SaltUse {
    /// With its terminating zero.
    fn label(self) -> &'static [u8] {
        match self {
            Self::Session => b"SECRET\0",
            Self::Import => b"DUPLICATE\0",
        }
    }
}

impl Salt {
    /// A fresh secret that only the TPM holding the private part of `key` can read (Part 1, B.10.2 and C.6.1).
    pub(crate) fn new(key: &PublicArea, usage: SaltUse) -> Result<Self> {
        let random = &mut rsa::rand_core::OsRng;
        match key.public_key()? {
            rsa @ PublicKey::Rsa { .. } => Self::by_oaep(key.name_hash, rsa, usage),
            PublicKey::Ec { curve: Curve::P256, point } => {
                let other = p256::PublicKey::from_sec1_bytes(point).map_err(|_| unusable_key())?;
                let secret = Box::new(p256::ecdh::EphemeralSecret::random(random));
                let ours = secret.public_key().to_encoded_point(false);
                let z = move || Zeroizing::new(secret.diffie_hellman(&other).raw_secret_bytes().to_vec());
                Ok(Self::by_ecdh(key.name_hash, Curve::P256, z, [ours.as_bytes(), point], usage))
            }
            PublicKey::Ec { curve: Curve::P384, point } => {
                let other = p384::PublicKey::from_sec1_bytes(point).map_err(|_| unusable_key())?;
                let secret = Box::new(p384::ecdh::EphemeralSecret::random(random));
                let ours = secret.public_key().to_encoded_point(false);
                let z = move || Zeroizing::new(secret.diffie_hellman(&other).raw_secret_bytes().to_vec());
                Ok(Self::by_ecdh(key.name_hash, Curve::P384, z, [ours.as_bytes(), point], usage))
            }
            PublicKey::Ec { curve: Curve::P521, .. } => Err(unusable_key()),
        }
    }

    /// `z` finds the shared secret of the two points, uncompressed: ours and the key's.
    fn by_ecdh(
        hash: HashAlgorithm,
        curve: Curve,
        z: impl FnOnce() -> Zeroizing<Vec<u8>> + 'static,
        points: [&[u8]; 2],
        usage: SaltUse,
    ) -> Self {
        let length = curve.coordinate_length();
        let [our_x, our_y, their_x] =
            [&points[0][1..=length], &points[0][1 + length..], &points[1][1..=length]].map(<[u8]>::to_vec);
        let size = (length as u16).to_be_bytes();
        let encrypted = [&size, &our_x[..], &size, &our_y].concat();
        let value = move || kdfe(hash, &z(), usage.label(), &our_x, &their_x, hash.digest_length());
        Self { value: LazyCell::new(Box::new(value)), encrypted }
    }

    fn by_oaep(hash: HashAlgorithm, key: &PublicKey, usage: SaltUse) -> Result<Self> {
        let mut value = Zeroizing::new(vec![0; hash.digest_length()]);
        random::fill(&mut value)?;
        let scheme = EncryptionScheme::RsaOaep { hash, mgf_hash: hash, label: usage.label().to_vec() };
        let encrypted = key.encrypt(&scheme, &value).map_err(|_| unusable_key())?;
        Ok(Self { value: LazyCell::new(Box::new(move || value)), encrypted })
    }

    /// The secret; found at the first call.
    pub(crate) fn value(&self) -> &[u8] {
        &self.value
    }

    /// Wraps a `TPMT_SENSITIVE` for `TPM2_Import` of the object called `name` (Part 1, 23.3, outer wrap): the content
    /// of the duplicate's `TPM2B_PRIVATE`. `parent` is the key that the seed was made for.
    pub(crate) fn wrap(&self, parent: &PublicArea, name: &[u8], sensitive: &[u8]) -> Result<Vec<u8>> {
        if parent.name_hash != HashAlgorithm::Sha256 {
            return Err(unusable_key());
        }
        let mut body = Zeroizing::new((sensitive.len() as u16).to_be_bytes().to_vec());
        body.extend_from_slice(sensitive);
        let iv = [0; 16];
        match parent.cipher_bits {
            128 => {
                let key = kdfa(self.value(), b"STORAGE", name, &[], 16);
                cfb_mode::Encryptor::<Aes128>::new(key.as_slice().into(), &iv.into()).encrypt(&mut body);
            }
            256 => {
                let key = kdfa(self.value(), b"STORAGE", name, &[], 32);
                cfb_mode::Encryptor::<Aes256>::new(key.as_slice().into(), &iv.into()).encrypt(&mut body);
            }
            _ => return Err(unusable_key()),
        }
        let mut integrity = hmac_sha256(&kdfa(self.value(), b"INTEGRITY", &[], &[], 32));
        integrity.update(&body);
        integrity.update(name);
        let integrity = integrity.finalize().into_bytes();
        Ok([&(integrity.len() as u16).to_be_bytes(), integrity.as_slice(), &body].concat())
    }
}

fn unusable_key() -> Error {
    Error::StorageRootKey(
        "the storage root key of this TPM is of a kind that sessions cannot be salted to, nor keys imported under"
            .into(),
    )
}

/// A nonce of ours, for `TPM2_StartAuthSession`.
pub(crate) fn nonce() -> Result<[u8; NONCE_LENGTH]> {
    let mut nonce = [0; NONCE_LENGTH];
    random::fill(&mut nonce)?;
    Ok(nonce)
}

impl Session {
    /// The session that `TPM2_StartAuthSession` answered with; never bound, salted where `salt` is given (Part 1, 19.6.8).
    pub(crate) fn new(handle: u32, nonce_caller: [u8; NONCE_LENGTH], nonce_tpm: Vec<u8>, salt: Option<&Salt>) -> Self {
        let key = match salt {
            Some(salt) => kdfa(salt.value(), b"ATH", &nonce_tpm, &nonce_caller, 32),
            None => Zeroizing::new(Vec::new()),
        };
        Self { handle, key, nonce_caller, next_nonce: None, nonce_tpm }
    }

    /// Begins a command: rolls our nonce, which is returned.
    pub(crate) fn roll(&mut self) -> Result<[u8; NONCE_LENGTH]> {
        self.nonce_caller = match self.next_nonce.take() {
            Some(nonce) => nonce,
            None => nonce()?,
        };
        Ok(self.nonce_caller)
    }

    /// Draws our nonce for the next command: while the TPM works on this one, that costs no time.
    pub(crate) fn draw_ahead(&mut self) {
        // What fails here fails again when the nonce is needed, where it can be told.
        self.next_nonce = nonce().ok();
    }

    /// Encrypts the first parameter of a command, without its size field (Part 1, 21.3).
    pub(crate) fn encrypt(&self, auth_value: &[u8], parameter: &mut [u8]) {
        let (key, iv) = self.cipher(auth_value, &self.nonce_caller, &self.nonce_tpm);
        cfb_mode::Encryptor::<Aes128>::new((&*key).into(), (&*iv).into()).encrypt(parameter);
    }

    /// Decrypts the first parameter of a response, after [`Self::accept`].
    pub(crate) fn decrypt(&self, auth_value: &[u8], parameter: &mut [u8]) {
        let (key, iv) = self.cipher(auth_value, &self.nonce_tpm, &self.nonce_caller);
        cfb_mode::Decryptor::<Aes128>::new((&*key).into(), (&*iv).into()).decrypt(parameter);
    }

    fn cipher(&self, auth_value: &[u8], newer: &[u8], older: &[u8]) -> (Zeroizing<[u8; 16]>, Zeroizing<[u8; 16]>) {
        let material = kdfa(&self.secret(auth_value), b"CFB", newer, older, 32);
        let (mut key, mut iv) = (Zeroizing::new([0; 16]), Zeroizing::new([0; 16]));
        key.copy_from_slice(&material[..16]);
        iv.copy_from_slice(&material[16..]);
        (key, iv)
    }

    fn secret(&self, auth_value: &[u8]) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([&self.key[..], without_trailing_zeros(auth_value)].concat())
    }

    /// The HMAC of a command (Part 1, 19.6.5).
    pub(crate) fn command_hmac(&self, auth_value: &[u8], cp_hash: &[u8], attributes: u8) -> Vec<u8> {
        self.hmac(auth_value, cp_hash, &self.nonce_caller, &self.nonce_tpm, attributes).finalize().into_bytes().to_vec()
    }

    /// Takes a response's nonce if its HMAC is right, and says whether it is.
    pub(crate) fn accept(
        &mut self,
        auth_value: &[u8],
        rp_hash: &[u8],
        nonce_tpm: &[u8],
        attributes: u8,
        hmac: &[u8],
    ) -> bool {
        let expected =
            self.hmac(auth_value, rp_hash, nonce_tpm, &self.nonce_caller, attributes).finalize().into_bytes();
        self.nonce_tpm = nonce_tpm.to_vec();
        expected.ct_eq(hmac).into()
    }

    fn hmac(&self, auth_value: &[u8], p_hash: &[u8], newer: &[u8], older: &[u8], attributes: u8) -> Hmac<Sha256> {
        let mut hmac = hmac_sha256(&self.secret(auth_value));
        for part in [p_hash, newer, older, &[attributes]] {
            hmac.update(part);
        }
        hmac
    }
}

fn hmac_sha256(key: &[u8]) -> Hmac<Sha256> {
    // Keys of any length are taken (RFC 2104): this cannot fail, and an empty key would only be refused by the TPM.
    Hmac::new_from_slice(key).unwrap_or_else(|_| Hmac::new(&Default::default()))
}

/// The authValue as HMAC keys take it (Part 1, 19.6.5 note).
fn without_trailing_zeros(value: &[u8]) -> &[u8] {
    let length = value.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    &value[..length]
}

/// cpHash (Part 1, 16.7): over the command code, the Names of the handles and the parameters.
pub(crate) fn cp_hash(command_code: u32, names: &[&[u8]], parameters: &[u8]) -> Vec<u8> {
    let mut hash = Sha256::new_with_prefix(command_code.to_be_bytes());
    names.iter().for_each(|name| hash.update(name));
    hash.chain_update(parameters).finalize().to_vec()
}

/// rpHash of a successful response (Part 1, 16.8).
pub(crate) fn rp_hash(command_code: u32, parameters: &[u8]) -> Vec<u8> {
    Sha256::new_with_prefix(0_u32.to_be_bytes())
        .chain_update(command_code.to_be_bytes())
        .chain_update(parameters)
        .finalize()
        .to_vec()
}

/// KDFa (Part 1, 11.4.10.2) with SHA-256: SP 800-108 in counter mode; `label` without its terminating zero, `length` in bytes.
fn kdfa(key: &[u8], label: &[u8], u: &[u8], v: &[u8], length: usize) -> Zeroizing<Vec<u8>> {
    let bits = (length as u32 * 8).to_be_bytes();
    let mut derived = Zeroizing::new(Vec::with_capacity(length.next_multiple_of(32)));
    let mut counter: u32 = 0;
    while derived.len() < length {
        counter += 1;
        let mut hmac = hmac_sha256(key);
        for part in [&counter.to_be_bytes(), label, &[0], u, v, &bits] {
            hmac.update(part);
        }
        derived.extend_from_slice(&hmac.finalize().into_bytes());
    }
    derived.truncate(length);
    derived
}

/// KDFe (Part 1, 11.4.10.3): SP 800-56A; `label` with its terminating zero, `length` in bytes.
fn kdfe(
    hash: HashAlgorithm,
    z: &[u8],
    label: &[u8],
    party_u: &[u8],
    party_v: &[u8],
    length: usize,
) -> Zeroizing<Vec<u8>> {
    let mut derived = Zeroizing::new(Vec::new());
    let mut counter: u32 = 0;
    while derived.len() < length {
        counter += 1;
        let input = Zeroizing::new([&counter.to_be_bytes(), z, label, party_u, party_v].concat());
        derived.extend_from_slice(&Zeroizing::new(hash.digest(&input)));
    }
    derived.truncate(length);
    derived
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(range: std::ops::Range<u8>) -> Vec<u8> {
        range.collect()
    }

    fn hex(text: &str) -> Vec<u8> {
        crate::hex::decode(text).unwrap()
    }

    /// The self-test vector of the TCG's specification, Part 4 (`KdfTestData.h`).
    #[test]
    fn kdfa_gives_the_specifications_own_vector() {
        let key = hex("271fa08bbdc5060ec3dfa928ff9b73123a12da0c");
        let (u, v) = (hex("ce244f395dca7391"), hex("da504031ddf12e83"));
        let derived = kdfa(&key, b"KDFSELFTESTLABEL", &u, &v, 20);
        assert_eq!(*derived, hex("bb0259e1c8ba607e6a2cd704b69a902e9ade84c4"));
    }

    /// The specification has no vector of more than one block: this one is `openssl kdf KBKDF`'s, the same function.
    #[test]
    fn kdfa_of_two_blocks_is_sp_800_108_in_counter_mode() {
        let derived = kdfa(&bytes(0..32), b"ATH", &bytes(32..64), &bytes(64..96), 48);
        let expected = "5264108a7066babeadc6f658da1c8adac4c52cfbbf6f53ca811ff2\
                        7b27a0a6077f9200cfed7cf1c77b2b449e38f672e7";
        assert_eq!(*derived, hex(expected));
    }

    /// The specification has no vector: this one is `openssl kdf SSKDF`'s, the same function.
    #[test]
    fn kdfe_is_the_single_step_kdf_of_sp_800_56c() {
        let derived = kdfe(HashAlgorithm::Sha256, &bytes(0..32), b"SECRET\0", &bytes(32..64), &bytes(64..96), 48);
        let expected = "62cf85ca3599cd915a71a6330c3885f986918e12037ba2e39578f7\
                        2686417cdbf11851ed7959e6a0f0f4c71659e53867";
        assert_eq!(*derived, hex(expected));
    }

    fn session() -> Session {
        let mut caller = [0; NONCE_LENGTH];
        caller.copy_from_slice(&bytes(32..64));
        Session {
            handle: 1,
            key: Zeroizing::new(bytes(0..32)),
            nonce_caller: caller,
            next_nonce: None,
            nonce_tpm: bytes(64..96),
        }
    }

    /// Part 1, 16.7, 16.8 and 19.6.5, put together by another implementation of SHA-256 and HMAC (Python's).
    #[test]
    fn hashes_and_hmacs_of_command_and_response_are_the_specifications() {
        let name = [&[0, 0x0b][..], &[0x11; 32]].concat();
        let cp_hash = cp_hash(0x15e, &[&name], &[0xaa, 0xbb]);
        assert_eq!(cp_hash, hex("bc34fbd0021e8f8cb54cf4e1c1f180dd40d1ae84a7c30cc0a11cc48a18d7d7b3"));
        let rp_hash = rp_hash(0x15e, &[0xaa, 0xbb]);
        assert_eq!(rp_hash, hex("181ece9ab3703386e758e85e4f2b9b643296fc821ab099cca02c388ed3e05fde"));
        let mut session = session();
        // An authValue's trailing zeros do not count.
        let hmac = session.command_hmac(b"auth\0\0", &cp_hash, 0x41);
        assert_eq!(hmac, hex("0f1d7bda0b4a2ea0a719d64200ea377447b6a1b01cb9ad09a292c01c8787b8ee"));
        let hmac = hex("67fadd02f5466a29d02994afd768db9193334dba68de2a96e0e00d9beee21765");
        assert!(session.accept(b"auth", &rp_hash, &bytes(64..96), 0x41, &hmac));
    }

    #[test]
    fn a_changed_response_is_not_accepted() {
        let right = hex("67fadd02f5466a29d02994afd768db9193334dba68de2a96e0e00d9beee21765");
        let rp_hash = rp_hash(0x15e, &[0xaa, 0xbb]);
        for byte in 0..right.len() {
            let mut wrong = right.clone();
            wrong[byte] ^= 1;
            assert!(!session().accept(b"auth", &rp_hash, &bytes(64..96), 0x41, &wrong));
        }
        assert!(!session().accept(b"auth", &rp_hash, &bytes(64..96), 0x41, &right[..31]));
        assert!(!session().accept(b"auth", &rp_hash, &bytes(65..97), 0x41, &right));
        assert!(!session().accept(b"auth", &rp_hash, &bytes(64..96), 0x01, &right));
    }

    #[test]
    fn a_parameter_survives_encryption_both_ways() {
        let mut session = session();
        let mut parameter = b"a parameter of some length".to_vec();
        session.encrypt(b"auth", &mut parameter);
        assert_ne!(parameter, b"a parameter of some length");
        // Seen from the other side, newer and older nonces change places.
        let (caller, tpm) = (session.nonce_caller, session.nonce_tpm.clone());
        session.nonce_caller.copy_from_slice(&tpm);
        session.nonce_tpm = caller.to_vec();
        session.decrypt(b"auth", &mut parameter);
        assert_eq!(parameter, b"a parameter of some length");
    }
}
