//! Signatures, MACs and their verification, also with recovery of the data.

use cryptoki_sys::*;
use keyrivet_core::algorithm::{HashAlgorithm, SignatureScheme};
use keyrivet_core::kept::append;
use keyrivet_core::public_key::{self, PublicKey};
use keyrivet_core::secret_key::{RunningMac, SecretKey};
use keyrivet_core::sign::{SignOperation, SignatureData};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::mechanism::{Mechanism, Work};
use crate::object::View;
use crate::operation::Data;
use crate::parameter::Parameter;
use crate::session::Session;

/// A signature or MAC under way.
pub(crate) enum Signing {
    Key { operation: SignOperation, raw: Raw },
    Mac(Mac),
}

/// A verification under way.
pub(crate) enum Verification {
    Key { key: PublicKey, data: SignatureData, raw: Raw },
    Mac(Mac),
}

/// A verification that gives the signed data.
pub(crate) struct Recovery {
    key: PublicKey,
    /// The data lies in the padding of PKCS#1 v1.5.
    padded: bool,
}

/// A MAC under way.
pub(crate) struct Mac {
    length: usize,
    making: Making,
}

/// Where a MAC is made.
enum Making {
    Here(RunningMac),
    /// A TPM takes its data in one go, so it is kept until then.
    InTpm {
        key: SecretKey,
        hash: HashAlgorithm,
        data: Zeroizing<Vec<u8>>,
    },
}

/// What the data is, which decides how data that does not fit is called.
#[derive(Clone, Copy)]
pub(crate) enum Raw {
    /// A DigestInfo, or other data to be padded, and how much more of it there may be: what else is wrong with it is
    /// CKR_DATA_INVALID.
    Data { room: usize },
    /// A digest: only its length can be wrong.
    Digest,
}

impl Raw {
    /// What a mechanism with this key takes.
    fn new(work: Work, key: &PublicKey) -> Self {
        match work {
            // "k - 11" bytes (PKCS#11 3.2, "PKCS #1 v1.5 RSA").
            Work::RsaPkcs1(None) => Self::Data { room: key.signature_length().saturating_sub(11) },
            _ => Self::Digest,
        }
    }

    /// Takes note of more data.
    fn add(&mut self, more: usize) -> Result<()> {
        if let Self::Data { room } = self {
            *room = room.checked_sub(more).ok_or(Error(CKR_DATA_LEN_RANGE))?;
        }
        Ok(())
    }

    fn name(self, error: keyrivet_core::Error) -> Error {
        match (self, Error::from(error)) {
            (Self::Digest, Error(CKR_DATA_INVALID)) => Error(CKR_DATA_LEN_RANGE),
            // A hash that the TPM, or the core's policy, does not sign with.
            (Self::Data { .. }, Error(CKR_FUNCTION_NOT_SUPPORTED)) => Error(CKR_DATA_INVALID),
            (_, other) => other,
        }
    }
}

/// How a mechanism makes a signature of what it is given; `None` for a MAC.
struct Plan {
    /// `None` if the data will tell.
    scheme: Option<SignatureScheme>,
    data: SignatureData,
}

impl Plan {
    fn new(work: Work, parameter: Parameter<'_>) -> Result<Self> {
        let (scheme, hash) = match work {
            Work::RsaPkcs1(None) => {
                parameter.none()?;
                let data = SignatureData::digest_info();
                return Ok(Self { scheme: None, data });
            }
            Work::RsaPss(hash) => (parameter.pss(hash)?, hash),
            Work::RsaPkcs1(Some(hash)) => (SignatureScheme::RsaPkcs1(hash), Some(hash)),
            Work::RsaRaw => (SignatureScheme::RsaRaw, None),
            Work::Ecdsa(hash) => (SignatureScheme::Ecdsa, hash),
            _ => return Err(Error(CKR_MECHANISM_INVALID)),
        };
        if !matches!(work, Work::RsaPss(_)) {
            parameter.none()?;
        }
        let data = hash.map_or_else(|| SignatureData::digest(scheme), |hash| SignatureData::message(scheme, hash));
        Ok(Self { scheme: Some(scheme), data })
    }
}

impl Mac {
    /// One by this mechanism; `None` if it makes no MAC.
    fn new(view: &View, work: Work, parameter: Parameter<'_>) -> Result<Option<Self>> {
        let (hash, length) = match work {
            Work::Hmac(hash) => parameter.none().map(|()| (hash, hash.digest_length()))?,
            Work::HmacGeneral(hash) => (hash, parameter.mac_length(hash.digest_length())?),
            _ => return Ok(None),
        };
        let key = view.token.secret_key(&view.object)?;
        let making = match key.start_mac(hash)? {
            Some(running) => Making::Here(running),
            None => Making::InTpm { key, hash, data: Zeroizing::default() },
        };
        Ok(Some(Self { length, making }))
    }

    fn update(&mut self, more: &[u8]) -> Result<()> {
        match &mut self.making {
            Making::Here(running) => {
                running.update(more);
                Ok(())
            }
            Making::InTpm { data, .. } => Ok(append(data, more)?),
        }
    }

    fn finish(self) -> Result<Vec<u8>> {
        let mut mac = match self.making {
            Making::Here(running) => running.finish(),
            Making::InTpm { key, hash, data } => key.mac(hash, &data)?,
        };
        mac.truncate(self.length);
        Ok(mac)
    }
}

impl Signing {
    fn new(view: &View, work: Work, parameter: Parameter<'_>) -> Result<Self> {
        if let Some(mac) = Mac::new(view, work, parameter)? {
            return Ok(Self::Mac(mac));
        }
        let plan = Plan::new(work, parameter)?;
        let key = view.token.key(&view.object)?;
        if plan.scheme.is_some_and(|scheme| !key.signs(scheme)) {
            // The bare RSA operation would be needed, which a TPM keeps from keys that only sign.
            let salt = matches!(work, Work::RsaPss(_));
            return Err(Error(if salt { CKR_MECHANISM_PARAM_INVALID } else { CKR_KEY_FUNCTION_NOT_PERMITTED }));
        }
        let raw = Raw::new(work, key.public_key());
        Ok(Self::Key { operation: SignOperation::new(key, plan.data), raw })
    }

    fn length(&self) -> usize {
        match self {
            Self::Key { operation, .. } => operation.signature_length(),
            Self::Mac(mac) => mac.length,
        }
    }

    fn update(&mut self, data: &[u8]) -> Result<()> {
        match self {
            Self::Key { operation, raw } => {
                raw.add(data.len())?;
                operation.update(data).map_err(|error| raw.name(error))
            }
            Self::Mac(mac) => mac.update(data),
        }
    }

    fn finish(mut self, rest: &[u8]) -> Result<Vec<u8>> {
        self.update(rest)?;
        match self {
            Self::Key { operation, raw } => operation.finish().map_err(|error| raw.name(error)),
            Self::Mac(mac) => mac.finish(),
        }
    }
}

impl Verification {
    fn new(view: &View, work: Work, parameter: Parameter<'_>) -> Result<Self> {
        if let Some(mac) = Mac::new(view, work, parameter)? {
            return Ok(Self::Mac(mac));
        }
        let plan = Plan::new(work, parameter)?;
        let key = view.object.public_key().ok_or(Error(CKR_KEY_TYPE_INCONSISTENT))?.clone();
        let raw = Raw::new(work, &key);
        Ok(Self::Key { key, data: plan.data, raw })
    }

    fn signature_length(&self) -> usize {
        match self {
            Self::Key { key, .. } => key.signature_length(),
            Self::Mac(mac) => mac.length,
        }
    }

    fn update(&mut self, more: &[u8]) -> Result<()> {
        match self {
            Self::Key { data, raw, .. } => {
                raw.add(more.len())?;
                data.update(more).map_err(|error| raw.name(error))
            }
            Self::Mac(mac) => mac.update(more),
        }
    }

    fn finish(mut self, rest: &[u8], signature: &[u8]) -> Result<()> {
        if signature.len() != self.signature_length() {
            return Err(Error(CKR_SIGNATURE_LEN_RANGE));
        }
        self.update(rest)?;
        match self {
            Self::Key { key, data, raw } => data.verify(&key, signature).map_err(|error| raw.name(error)),
            Self::Mac(mac) => {
                let expected = mac.finish()?;
                if bool::from(expected.ct_eq(signature)) { Ok(()) } else { Err(Error(CKR_SIGNATURE_INVALID)) }
            }
        }
    }
}

impl Session {
    /// Starts a signature or MAC. Costs no TPM command.
    pub(crate) fn start_sign(&self, mechanism: Mechanism<'_>, key: CK_OBJECT_HANDLE) -> Result<()> {
        let mut operations = self.operations();
        let mut authenticate = false;
        operations.sign.begin(|| self.signing(mechanism, key, CKF_SIGN, &mut authenticate))?;
        operations.set_await_login(CKF_SIGN, authenticate);
        Ok(())
    }

    /// Starts a signature from which its data can be recovered.
    pub(crate) fn start_sign_recover(&self, mechanism: Mechanism<'_>, key: CK_OBJECT_HANDLE) -> Result<()> {
        let mut operations = self.operations();
        let mut authenticate = false;
        operations.sign_recover.begin(|| self.signing(mechanism, key, CKF_SIGN_RECOVER, &mut authenticate))?;
        operations.set_await_login(CKF_SIGN_RECOVER, authenticate);
        Ok(())
    }

    fn signing(
        &self,
        mechanism: Mechanism<'_>,
        key: CK_OBJECT_HANDLE,
        operation: CK_FLAGS,
        authenticate: &mut bool,
    ) -> Result<Signing> {
        let (view, work) = self.usable_key(key, operation, mechanism.kind)?;
        *authenticate = view.attributes()?.always_authenticate;
        Signing::new(&view, work, mechanism.parameter)
    }

    /// Length of the signature.
    pub(crate) fn signature_length(&self) -> Result<usize> {
        self.operations().sign.running().map(Signing::length)
    }

    /// Adds data to what will be signed.
    pub(crate) fn update_sign(&self, data: &[u8]) -> Result<()> {
        let mut operations = self.operations();
        operations.require_login(CKF_SIGN)?;
        operations.sign.part(|signing| signing.update(data))
    }

    /// Signs, in the TPM, while other calls in this session and others go on.
    pub(crate) fn sign(&self, data: Data<'_>) -> Result<Vec<u8>> {
        let mut operations = self.operations();
        operations.require_login(CKF_SIGN)?;
        let signing = operations.sign.finish(data)?;
        drop(operations);
        signing.finish(data.rest())
    }

    /// Length of the signature with recovery.
    pub(crate) fn recoverable_length(&self) -> Result<usize> {
        self.operations().sign_recover.running().map(Signing::length)
    }

    /// Signs with recovery.
    pub(crate) fn sign_recoverable(&self, data: &[u8]) -> Result<Vec<u8>> {
        let mut operations = self.operations();
        operations.require_login(CKF_SIGN_RECOVER)?;
        let signing = operations.sign_recover.end()?;
        drop(operations);
        signing.finish(data)
    }

    /// Starts a verification.
    pub(crate) fn start_verify(&self, mechanism: Mechanism<'_>, key: CK_OBJECT_HANDLE) -> Result<()> {
        self.operations().verify.begin(|| {
            let (view, work) = self.usable_key(key, CKF_VERIFY, mechanism.kind)?;
            Verification::new(&view, work, mechanism.parameter)
        })
    }

    /// Whether a verification runs.
    pub(crate) fn is_verifying(&self) -> Result<()> {
        self.operations().verify.running().map(|_| ())
    }

    /// Adds data to what will be verified.
    pub(crate) fn update_verify(&self, data: &[u8]) -> Result<()> {
        self.operations().verify.part(|verification| verification.update(data))
    }

    /// Verifies; a signature in software, a MAC where its key is.
    pub(crate) fn verify(&self, data: Data<'_>, signature: &[u8]) -> Result<()> {
        let verification = self.operations().verify.finish(data)?;
        verification.finish(data.rest(), signature)
    }

    /// Starts a verification of this signature.
    pub(crate) fn start_verify_signature(
        &self,
        mechanism: Mechanism<'_>,
        key: CK_OBJECT_HANDLE,
        signature: &[u8],
    ) -> Result<()> {
        self.operations().verify_signature.begin(|| {
            let (view, work) = self.usable_key(key, CKF_VERIFY, mechanism.kind)?;
            let verification = Verification::new(&view, work, mechanism.parameter)?;
            if signature.len() != verification.signature_length() {
                return Err(Error(CKR_SIGNATURE_LEN_RANGE));
            }
            Ok((verification, signature.to_vec()))
        })
    }

    /// Adds data to what will be verified.
    pub(crate) fn update_verify_signature(&self, data: &[u8]) -> Result<()> {
        self.operations().verify_signature.part(|(verification, _)| verification.update(data))
    }

    /// Verifies the signature that was given first.
    pub(crate) fn verify_signature(&self, data: Data<'_>) -> Result<()> {
        let (verification, signature) = self.operations().verify_signature.finish(data)?;
        verification.finish(data.rest(), &signature)
    }

    /// Starts a verification that gives the signed data.
    pub(crate) fn start_verify_recover(&self, mechanism: Mechanism<'_>, key: CK_OBJECT_HANDLE) -> Result<()> {
        self.operations().verify_recover.begin(|| {
            let (view, work) = self.usable_key(key, CKF_VERIFY_RECOVER, mechanism.kind)?;
            mechanism.parameter.none()?;
            let key = view.object.public_key().ok_or(Error(CKR_KEY_TYPE_INCONSISTENT))?.clone();
            Ok(Recovery { key, padded: work != Work::RsaRaw })
        })
    }

    /// What a signature was made of. The operation goes on.
    pub(crate) fn recover(&self, signature: &[u8]) -> Result<Vec<u8>> {
        let operations = self.operations();
        let Recovery { key, padded } = operations.verify_recover.running()?;
        if signature.len() != key.signature_length() {
            return Err(Error(CKR_SIGNATURE_LEN_RANGE));
        }
        let block = key.recover(signature)?;
        Ok(if *padded { public_key::pkcs1_signature_data(&block)?.to_vec() } else { block })
    }
}
