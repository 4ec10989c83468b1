//! A running signature: update, finish, its length. Digests are made in software.

use crate::algorithm::{Digest, HashAlgorithm, SignatureScheme};
use crate::error::{Error, Result};
use crate::public_key::PublicKey;

/// What the data given to a signature is.
#[derive(Clone)]
pub enum SignatureInput {
    /// A message, of which the digest is made as it comes.
    Message(Digest),
    /// The finished digest, or the `DigestInfo` that holds it.
    Prepared(Vec<u8>),
}

/// The data side of a signature or verification under way: everything but the key.
#[derive(Clone)]
pub struct SignatureData {
    scheme: PendingScheme,
    input: SignatureInput,
}

#[derive(Clone, Copy)]
enum PendingScheme {
    Known(SignatureScheme),
    /// `CKM_RSA_PKCS`: a `DigestInfo` that comes as data names the hash; any other data is padded as it is.
    FromDigestInfo,
}

/// Longest prepared input: a block as long as the longest modulus.
const MAX_PREPARED: usize = 1024;

impl SignatureData {
    /// A signature over a message, hashed with `hash` here.
    pub fn message(scheme: SignatureScheme, hash: HashAlgorithm) -> Self {
        Self { scheme: PendingScheme::Known(scheme), input: SignatureInput::Message(Digest::new(hash)) }
    }

    /// A signature over a digest that the caller has made.
    pub fn digest(scheme: SignatureScheme) -> Self {
        Self { scheme: PendingScheme::Known(scheme), input: SignatureInput::Prepared(Vec::new()) }
    }

    /// A PKCS#1 v1.5 signature over a `DigestInfo` that the caller has made (`CKM_RSA_PKCS`).
    pub fn digest_info() -> Self {
        Self { scheme: PendingScheme::FromDigestInfo, input: SignatureInput::Prepared(Vec::new()) }
    }

    /// The bare RSA operation on data that the caller has padded (`CKM_RSA_X_509`).
    pub fn raw() -> Self {
        Self::digest(SignatureScheme::RsaRaw)
    }

    /// Adds data.
    pub fn update(&mut self, data: &[u8]) -> Result<()> {
        match &mut self.input {
            SignatureInput::Message(digest) => digest.update(data),
            SignatureInput::Prepared(prepared) => {
                if prepared.len() + data.len() > MAX_PREPARED {
                    return Err(Error::DataInvalid("longer than any key can sign".into()));
                }
                prepared.extend_from_slice(data);
            }
        }
        Ok(())
    }

    /// The scheme and the digest to be signed.
    ///
    /// Errors: [`Error::DataInvalid`] where the data is no digest.
    pub fn finish(self) -> Result<(SignatureScheme, Vec<u8>)> {
        let data = match self.input {
            SignatureInput::Message(digest) => digest.finish(),
            SignatureInput::Prepared(prepared) => prepared,
        };
        match self.scheme {
            PendingScheme::Known(scheme) => {
                match scheme {
                    SignatureScheme::RsaPkcs1(hash) | SignatureScheme::RsaPss { hash, .. } => {
                        crate::public_key::check_digest(hash, &data)?;
                    }
                    SignatureScheme::Ecdsa if data.is_empty() => {
                        return Err(Error::DataInvalid("no digest was given".into()));
                    }
                    SignatureScheme::Ecdsa | SignatureScheme::RsaPkcs1Data | SignatureScheme::RsaRaw => {}
                }
                Ok((scheme, data))
            }
            PendingScheme::FromDigestInfo => match HashAlgorithm::from_digest_info(&data) {
                Some((hash, digest)) => Ok((SignatureScheme::RsaPkcs1(hash), digest.to_vec())),
                None => Ok((SignatureScheme::RsaPkcs1Data, data)),
            },
        }
    }

    /// Ends a verification: checks `signature` with `key`, in software.
    pub fn verify(self, key: &PublicKey, signature: &[u8]) -> Result<()> {
        let (scheme, digest) = self.finish()?;
        key.verify(scheme, &digest, signature)
    }
}

/// A signature by a key in the TPM, under way.
#[cfg(feature = "device")]
pub struct SignOperation {
    key: crate::key::Key,
    data: SignatureData,
}

#[cfg(feature = "device")]
impl SignOperation {
    /// Starts a signature of `data` by `key`. Costs no TPM command.
    pub fn new(key: crate::key::Key, data: SignatureData) -> Self {
        Self { key, data }
    }

    /// Adds data.
    pub fn update(&mut self, data: &[u8]) -> Result<()> {
        self.data.update(data)
    }

    /// Length of the signature in bytes; ECDSA's is `r || s`.
    pub fn signature_length(&self) -> usize {
        self.key.public_key().signature_length()
    }

    /// Signs, in the TPM. ECDSA signatures are `r || s`.
    pub fn finish(self) -> Result<Vec<u8>> {
        let (scheme, digest) = self.data.finish()?;
        self.key.sign(scheme, &digest)
    }
}
