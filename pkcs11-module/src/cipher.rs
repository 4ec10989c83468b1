//! Encryption and decryption: RSA with its paddings, AES in its modes.

use cryptoki_sys::*;
use keyrivet_core::algorithm::{CipherMode, Direction, EncryptionScheme};
use keyrivet_core::kept::append;
use keyrivet_core::key::Key;
use keyrivet_core::object::Part;
use keyrivet_core::public_key::PublicKey;
use keyrivet_core::secret_key::{AES_BLOCK, SecretKey};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::mechanism::{Mechanism, Work};
use crate::object::View;
use crate::operation::Data;
use crate::parameter::Parameter;
use crate::session::Session;

/// An encryption or decryption under way.
#[derive(Clone)]
pub(crate) enum Cipher {
    Rsa(RsaCipher),
    Aes(AesCipher),
}

/// RSA works on all its data at once, which is kept until then.
#[derive(Clone)]
pub(crate) struct RsaCipher {
    key: RsaKey,
    scheme: EncryptionScheme,
    data: Zeroizing<Vec<u8>>,
}

#[derive(Clone)]
enum RsaKey {
    Public(PublicKey),
    Private(Key),
}

#[derive(Clone)]
pub(crate) struct AesCipher {
    key: SecretKey,
    mode: CipherMode,
    direction: Direction,
    iv: Vec<u8>,
    /// The data is padded to whole blocks (PKCS#7).
    padded: bool,
    /// What does not fill a block yet, or may be the padding.
    pending: Zeroizing<Vec<u8>>,
    /// How many blocks the counter still allows.
    blocks: Option<u128>,
}

impl Cipher {
    /// One of `direction` by this mechanism.
    pub(crate) fn new(view: &View, work: Work, parameter: Parameter<'_>, direction: Direction) -> Result<Self> {
        let scheme = match work {
            Work::RsaPkcs1(None) => parameter.none().map(|()| EncryptionScheme::RsaPkcs1)?,
            Work::RsaRaw => parameter.none().map(|()| EncryptionScheme::RsaRaw)?,
            Work::RsaOaep => parameter.oaep()?,
            Work::Aes(mode) => return AesCipher::new(view, mode, false, parameter, direction).map(Self::Aes),
            Work::AesCbcPad => return AesCipher::new(view, CipherMode::Cbc, true, parameter, direction).map(Self::Aes),
            _ => return Err(Error(CKR_MECHANISM_INVALID)),
        };
        let key = match view.part {
            Part::PrivateKey => RsaKey::Private(view.token.key(&view.object)?),
            _ => RsaKey::Public(view.object.public_key().ok_or(Error(CKR_KEY_TYPE_INCONSISTENT))?.clone()),
        };
        Ok(Self::Rsa(RsaCipher { key, scheme, data: Zeroizing::default() }))
    }

    /// How much comes out of [`Self::update`] with so much more data.
    fn update_length(&self, more: usize) -> usize {
        match self {
            Self::Rsa(_) => 0,
            Self::Aes(aes) => aes.update_length(more),
        }
    }

    fn update(&mut self, data: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        match self {
            Self::Rsa(rsa) => rsa.add(data).map(|()| Zeroizing::default()),
            Self::Aes(aes) => aes.update(data),
        }
    }

    /// The most that comes out of [`Self::finish`] with so much more data; of an encryption it is all that comes.
    pub(crate) fn last_length(&self, more: usize) -> usize {
        match self {
            Self::Rsa(rsa) => rsa.public_key().signature_length(),
            Self::Aes(aes) => aes.last_length(more),
        }
    }

    /// Ends it.
    pub(crate) fn finish(self, rest: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        match self {
            Self::Rsa(rsa) => rsa.finish(rest),
            Self::Aes(aes) => aes.finish(rest),
        }
    }
}

impl RsaCipher {
    fn public_key(&self) -> &PublicKey {
        match &self.key {
            RsaKey::Public(key) => key,
            RsaKey::Private(key) => key.public_key(),
        }
    }

    fn add(&mut self, data: &[u8]) -> Result<()> {
        if self.data.len() + data.len() > self.public_key().signature_length() {
            return Err(Error(match self.key {
                RsaKey::Public(_) => CKR_DATA_LEN_RANGE,
                RsaKey::Private(_) => CKR_ENCRYPTED_DATA_LEN_RANGE,
            }));
        }
        Ok(append(&mut self.data, data)?)
    }

    fn finish(mut self, rest: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        self.add(rest)?;
        match &self.key {
            RsaKey::Public(key) => {
                key.encrypt(&self.scheme, &self.data).map(Zeroizing::new).map_err(|error| match Error::from(error) {
                    Error(CKR_DATA_INVALID) => Error(CKR_DATA_LEN_RANGE),
                    other => other,
                })
            }
            RsaKey::Private(key) if self.data.len() != key.public_key().signature_length() => {
                Err(Error(CKR_ENCRYPTED_DATA_LEN_RANGE))
            }
            RsaKey::Private(key) => Ok(key.decrypt(&self.scheme, &self.data)?),
        }
    }
}

impl AesCipher {
    fn new(
        view: &View,
        mode: CipherMode,
        padded: bool,
        parameter: Parameter<'_>,
        direction: Direction,
    ) -> Result<Self> {
        let (iv, blocks) = parameter.initial_vector(mode)?;
        let key = view.token.secret_key(&view.object)?;
        Ok(Self { key, mode, direction, iv, padded, pending: Zeroizing::default(), blocks })
    }

    fn update_length(&self, more: usize) -> usize {
        let all = self.pending.len() + more;
        let ready = if self.padded && self.direction == Direction::Decrypt { all.saturating_sub(1) } else { all };
        ready - ready % AES_BLOCK
    }

    fn update(&mut self, data: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let ready = self.update_length(data.len());
        let mut block = Zeroizing::new(Vec::with_capacity(self.pending.len() + data.len()));
        block.extend_from_slice(&self.pending);
        block.extend_from_slice(data);
        self.pending = Zeroizing::new(block[ready..].to_vec());
        self.run(&block[..ready])
    }

    fn last_length(&self, more: usize) -> usize {
        let all = self.pending.len() + more;
        let padding = if self.padded && self.direction == Direction::Encrypt { AES_BLOCK - all % AES_BLOCK } else { 0 };
        all + padding
    }

    fn finish(mut self, rest: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let encrypts = self.direction == Direction::Encrypt;
        let mut data = Zeroizing::new(Vec::with_capacity(self.pending.len() + rest.len() + AES_BLOCK));
        data.extend_from_slice(&self.pending);
        data.extend_from_slice(rest);
        if self.padded && encrypts {
            let padding = AES_BLOCK - data.len() % AES_BLOCK;
            data.extend_from_slice(&[padding as u8; AES_BLOCK][..padding]);
        }
        if (self.mode.needs_whole_blocks() && data.len() % AES_BLOCK != 0) || (self.padded && data.is_empty()) {
            return Err(Error(if encrypts { CKR_DATA_LEN_RANGE } else { CKR_ENCRYPTED_DATA_LEN_RANGE }));
        }
        let mut output = self.run(&data)?;
        if self.padded && !encrypts {
            let length = without_padding(&output).ok_or(Error(CKR_ENCRYPTED_DATA_INVALID))?;
            output.truncate(length);
        }
        Ok(output)
    }

    fn run(&mut self, data: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        if let Some(left) = &mut self.blocks {
            // "If an attempt to encrypt/decrypt is made which will cause an overflow of the counter block's counter bits".
            *left = left.checked_sub(data.len().div_ceil(AES_BLOCK) as u128).ok_or(Error(CKR_DATA_LEN_RANGE))?;
        }
        Ok(self.key.cipher(self.mode, self.direction, &mut self.iv, data)?)
    }
}

/// The length of a block without its padding of PKCS#7; `None` if that is wrong.
fn without_padding(output: &[u8]) -> Option<usize> {
    let padding = usize::from(*output.last()?);
    let length = output.len().checked_sub(padding).filter(|_| (1..=AES_BLOCK).contains(&padding))?;
    // All of it is looked at, whatever it says.
    let wrong = output[length..].iter().fold(0, |wrong, byte| wrong | (byte ^ padding as u8));
    (wrong == 0).then_some(length)
}

impl Session {
    /// Starts an encryption.
    pub(crate) fn start_encrypt(&self, mechanism: Mechanism<'_>, key: CK_OBJECT_HANDLE) -> Result<()> {
        self.operations().encrypt.begin(|| {
            let (view, work) = self.usable_key(key, CKF_ENCRYPT, mechanism.kind)?;
            Cipher::new(&view, work, mechanism.parameter, Direction::Encrypt)
        })
    }

    /// Starts a decryption. Costs no TPM command.
    pub(crate) fn start_decrypt(&self, mechanism: Mechanism<'_>, key: CK_OBJECT_HANDLE) -> Result<()> {
        let mut operations = self.operations();
        let mut authenticate = false;
        operations.decrypt.begin(|| {
            let (view, work) = self.usable_key(key, CKF_DECRYPT, mechanism.kind)?;
            authenticate = view.attributes()?.always_authenticate;
            Cipher::new(&view, work, mechanism.parameter, Direction::Decrypt)
        })?;
        operations.set_await_login(CKF_DECRYPT, authenticate);
        Ok(())
    }

    /// How much [`Self::update_encrypt`] gives for so much data.
    pub(crate) fn encrypt_update_length(&self, more: usize) -> Result<usize> {
        self.operations().encrypt.running().map(|cipher| cipher.update_length(more))
    }

    /// How much [`Self::encrypt`] gives for so much data.
    pub(crate) fn encrypt_length(&self, more: usize) -> Result<usize> {
        self.operations().encrypt.running().map(|cipher| cipher.last_length(more))
    }

    /// Encrypts a part.
    pub(crate) fn update_encrypt(&self, data: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        self.operations().encrypt.part(|cipher| cipher.update(data))
    }

    /// Ends an encryption.
    pub(crate) fn encrypt(&self, data: Data<'_>) -> Result<Zeroizing<Vec<u8>>> {
        let cipher = self.operations().encrypt.finish(data)?;
        cipher.finish(data.rest())
    }

    /// How much [`Self::update_decrypt`] gives for so much data.
    pub(crate) fn decrypt_update_length(&self, more: usize) -> Result<usize> {
        self.operations().decrypt.running().map(|cipher| cipher.update_length(more))
    }

    /// The most that [`Self::decrypt`] gives for so much data.
    pub(crate) fn decrypt_length(&self, more: usize) -> Result<usize> {
        self.operations().decrypt.running().map(|cipher| cipher.last_length(more))
    }

    /// Decrypts a part.
    pub(crate) fn update_decrypt(&self, data: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let mut operations = self.operations();
        operations.require_login(CKF_DECRYPT)?;
        operations.decrypt.part(|cipher| cipher.update(data))
    }

    /// Decrypts the rest. The operation goes on: only its result tells whether that fits the application's buffer.
    pub(crate) fn decrypt(&self, data: Data<'_>) -> Result<Zeroizing<Vec<u8>>> {
        let operations = self.operations();
        operations.require_login(CKF_DECRYPT)?;
        let cipher = match data {
            Data::AllAtOnce(_) => operations.decrypt.untouched()?.clone(),
            Data::GivenInParts => operations.decrypt.running()?.clone(),
        };
        drop(operations);
        cipher.finish(data.rest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_taken_off_only_if_it_is_whole() {
        let mut block = [5; 16];
        block[..11].fill(1);
        assert_eq!(without_padding(&block), Some(11));
        assert_eq!(without_padding(&[16; 32]), Some(16));
        block[12] = 4;
        assert_eq!(without_padding(&block), None);
        assert_eq!(without_padding(&[0; 16]), None);
        assert_eq!(without_padding(&[17; 32]), None);
        assert_eq!(without_padding(&[]), None);
    }
}
