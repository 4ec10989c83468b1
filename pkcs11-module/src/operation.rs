//! What runs in a session: searches, digests, signatures, verifications, and when each of them ends.

use std::collections::VecDeque;

use cryptoki_sys::*;
use keyrivet_core::algorithm::{Digest, HashAlgorithm};
use keyrivet_core::object::Part;
use keyrivet_core::public_key::PublicKey;
use keyrivet_core::sign::{SignOperation, SignatureData};

use crate::error::{Error, Result};
use crate::mechanism::{self, Direction, KeyType, Mechanism};
use crate::object::View;
use crate::session::Session;
use crate::template::wide;

/// An operation of one kind.
#[derive(Default)]
enum Operation<T> {
    /// None runs.
    #[default]
    Idle,
    /// Initialised; it may be done at once or in parts.
    Begun(T),
    /// Data was given in parts: only the `Final` function ends it.
    InParts(T),
}

impl<T> Operation<T> {
    fn begin(&mut self, make: impl FnOnce() -> Result<T>) -> Result<()> {
        let Self::Idle = self else { return Err(Error(CKR_OPERATION_ACTIVE)) };
        *self = Self::Begun(make()?);
        Ok(())
    }

    fn running(&self) -> Result<&T> {
        match self {
            Self::Idle => Err(Error(CKR_OPERATION_NOT_INITIALIZED)),
            Self::Begun(state) | Self::InParts(state) => Ok(state),
        }
    }

    /// Adds to it.
    fn part(&mut self, add: impl FnOnce(&mut T) -> Result<()>) -> Result<()> {
        let mut state = self.end()?;
        add(&mut state)?;
        *self = Self::InParts(state);
        Ok(())
    }

    /// Ends it, for a function that does all at once: that cannot end what was begun in parts.
    fn whole(&mut self) -> Result<T> {
        match std::mem::take(self) {
            Self::Begun(state) => Ok(state),
            Self::Idle | Self::InParts(_) => Err(Error(CKR_OPERATION_NOT_INITIALIZED)),
        }
    }

    /// Ends it.
    fn end(&mut self) -> Result<T> {
        match std::mem::take(self) {
            Self::Idle => Err(Error(CKR_OPERATION_NOT_INITIALIZED)),
            Self::Begun(state) | Self::InParts(state) => Ok(state),
        }
    }
}

/// A verification under way.
struct Verification {
    key: PublicKey,
    data: SignatureData,
    raw: Raw,
}

/// A signature under way.
struct Signing {
    operation: SignOperation,
    raw: Raw,
}

/// What the data is, which decides how data that does not fit is called.
#[derive(Clone, Copy)]
enum Raw {
    /// A DigestInfo: wrong data is CKR_DATA_INVALID.
    DigestInfo,
    /// A digest: only its length can be wrong.
    Digest,
}

impl Raw {
    fn of(mechanism: Mechanism<'_>) -> Self {
        if mechanism.kind == CKM_RSA_PKCS { Self::DigestInfo } else { Self::Digest }
    }

    fn name(self, error: keyrivet_core::Error) -> Error {
        match (self, Error::from(error)) {
            (Self::Digest, Error(CKR_DATA_INVALID)) => Error(CKR_DATA_LEN_RANGE),
            // A hash that the TPM, or the core's policy, does not sign with.
            (Self::DigestInfo, Error(CKR_FUNCTION_NOT_SUPPORTED)) => Error(CKR_DATA_INVALID),
            (_, other) => other,
        }
    }
}

/// Everything that can run in a session; one of each kind at a time.
#[derive(Default)]
pub(crate) struct Operations {
    find: Operation<VecDeque<CK_OBJECT_HANDLE>>,
    digest: Operation<(HashAlgorithm, Digest)>,
    sign: Operation<Signing>,
    verify: Operation<Verification>,
}

impl Operations {
    /// Ends operations without a result, by their `CKF_` flags of CK_MECHANISM_INFO (C_SessionCancel).
    pub(crate) fn cancel(&mut self, kinds: CK_FLAGS) {
        if kinds & CKF_FIND_OBJECTS != 0 {
            self.find = Operation::Idle;
        }
        if kinds & CKF_DIGEST != 0 {
            self.digest = Operation::Idle;
        }
        if kinds & CKF_SIGN != 0 {
            self.sign = Operation::Idle;
        }
        if kinds & CKF_VERIFY != 0 {
            self.verify = Operation::Idle;
        }
    }
}

/// Whether a signature mechanism is given all its data at once or in parts.
#[derive(Clone, Copy)]
pub(crate) enum Data<'a> {
    AllAtOnce(&'a [u8]),
    GivenInParts,
}

impl Session {
    /// Does the rest of an operation, and ends it if that fails: "always terminates the active operation, unless it
    /// returns CKR_BUFFER_TOO_SMALL or is a successful call to determine the length" (C_Sign, C_Digest).
    pub(crate) fn ending<T>(&self, kind: CK_FLAGS, rest: impl FnOnce() -> Result<T>) -> Result<T> {
        rest().inspect_err(|error| {
            if *error != Error(CKR_BUFFER_TOO_SMALL) {
                self.operations().cancel(kind);
            }
        })
    }

    /// Starts a search (C_FindObjectsInit).
    pub(crate) fn start_find(&self, search: impl FnOnce() -> Result<Vec<CK_OBJECT_HANDLE>>) -> Result<()> {
        // The store is read while the session is locked, so that a second search in it finds this one active.
        self.operations().find.begin(|| Ok(search()?.into()))
    }

    /// The next objects found.
    pub(crate) fn next_found(&self, at_most: usize) -> Result<Vec<CK_OBJECT_HANDLE>> {
        let mut operations = self.operations();
        let mut found = Vec::new();
        operations.find.part(|handles| {
            found = handles.drain(..at_most.min(handles.len())).collect();
            Ok(())
        })?;
        Ok(found)
    }

    /// Ends a search.
    pub(crate) fn end_find(&self) -> Result<()> {
        self.operations().find.end().map(|_| ())
    }

    /// Starts a digest.
    pub(crate) fn start_digest(&self, mechanism: Mechanism<'_>) -> Result<()> {
        let token = self.slot().token_info();
        self.operations().digest.begin(|| {
            let hash = mechanism::digest(mechanism, token.as_ref())?;
            Ok((hash, Digest::new(hash)))
        })
    }

    /// Length of the digest.
    pub(crate) fn digest_length(&self) -> Result<usize> {
        self.operations().digest.running().map(|(hash, _)| hash.digest_length())
    }

    /// Adds data to the digest.
    pub(crate) fn update_digest(&self, data: &[u8]) -> Result<()> {
        self.operations().digest.part(|(_, digest)| {
            digest.update(data);
            Ok(())
        })
    }

    /// Ends the digest.
    pub(crate) fn digest(&self, data: Data<'_>) -> Result<Vec<u8>> {
        let mut operations = self.operations();
        let (_, mut digest) = match data {
            Data::AllAtOnce(_) => operations.digest.whole()?,
            Data::GivenInParts => operations.digest.end()?,
        };
        if let Data::AllAtOnce(data) = data {
            digest.update(data);
        }
        Ok(digest.finish())
    }

    /// Starts a signature. Costs no TPM command.
    pub(crate) fn start_sign(&self, mechanism: Mechanism<'_>, key: CK_OBJECT_HANDLE) -> Result<()> {
        self.operations().sign.begin(|| {
            let view = self.signature_key(key, Part::PrivateKey, mechanism)?;
            let (key_type, data) = mechanism::signature(mechanism, &view.token.info(), Direction::Sign)?;
            check_key(&view, key_type)?;
            if !self.slot().is_open() {
                return Err(Error(CKR_USER_NOT_LOGGED_IN));
            }
            let key = view.token.key(&view.object)?;
            Ok(Signing { operation: SignOperation::new(key, data), raw: Raw::of(mechanism) })
        })
    }

    /// Length of the signature.
    pub(crate) fn signature_length(&self) -> Result<usize> {
        self.operations().sign.running().map(|signing| signing.operation.signature_length())
    }

    /// Adds data to what will be signed.
    pub(crate) fn update_sign(&self, data: &[u8]) -> Result<()> {
        self.operations().sign.part(|signing| {
            let raw = signing.raw;
            signing.operation.update(data).map_err(|error| raw.name(error))
        })
    }

    /// Signs, in the TPM, while other calls in this session and others go on.
    pub(crate) fn sign(&self, data: Data<'_>) -> Result<Vec<u8>> {
        let Signing { mut operation, raw } = match data {
            Data::AllAtOnce(_) => self.operations().sign.whole()?,
            Data::GivenInParts => self.operations().sign.end()?,
        };
        if let Data::AllAtOnce(data) = data {
            operation.update(data).map_err(|error| raw.name(error))?;
        }
        operation.finish().map_err(|error| raw.name(error))
    }

    /// Starts a verification.
    pub(crate) fn start_verify(&self, mechanism: Mechanism<'_>, key: CK_OBJECT_HANDLE) -> Result<()> {
        self.operations().verify.begin(|| {
            let view = self.signature_key(key, Part::PublicKey, mechanism)?;
            let (key_type, data) = mechanism::signature(mechanism, &view.token.info(), Direction::Verify)?;
            let key = check_key(&view, key_type)?.clone();
            Ok(Verification { key, data, raw: Raw::of(mechanism) })
        })
    }

    /// Adds data to what will be verified.
    pub(crate) fn update_verify(&self, data: &[u8]) -> Result<()> {
        self.operations().verify.part(|verification| {
            let raw = verification.raw;
            verification.data.update(data).map_err(|error| raw.name(error))
        })
    }

    /// Verifies, in software.
    pub(crate) fn verify(&self, data: Data<'_>, signature: &[u8]) -> Result<()> {
        let Verification { key, data: mut verified, raw } = match data {
            Data::AllAtOnce(_) => self.operations().verify.whole()?,
            Data::GivenInParts => self.operations().verify.end()?,
        };
        if signature.len() != key.signature_length() {
            return Err(Error(CKR_SIGNATURE_LEN_RANGE));
        }
        if let Data::AllAtOnce(data) = data {
            verified.update(data).map_err(|error| raw.name(error))?;
        }
        verified.verify(&key, signature).map_err(|error| raw.name(error))
    }

    /// The key for a signature, if its attributes allow that.
    fn signature_key(&self, key: CK_OBJECT_HANDLE, part: Part, mechanism: Mechanism<'_>) -> Result<View> {
        let view = self.slot().view(key).map_err(|error| match error {
            Error(CKR_OBJECT_HANDLE_INVALID) => Error(CKR_KEY_HANDLE_INVALID),
            other => other,
        })?;
        if view.part != part {
            return Err(Error(CKR_KEY_HANDLE_INVALID));
        }
        let attributes = view.attributes()?;
        if !attributes.sign {
            return Err(Error(CKR_KEY_FUNCTION_NOT_PERMITTED));
        }
        let allowed = &attributes.allowed_mechanisms;
        if !allowed.is_empty() && !allowed.contains(&wide(mechanism.kind)) {
            return Err(Error(CKR_MECHANISM_INVALID));
        }
        Ok(view)
    }
}

fn check_key(view: &View, key_type: KeyType) -> Result<&PublicKey> {
    let key = view.object.public_key().ok_or(Error(CKR_KEY_HANDLE_INVALID))?;
    if KeyType::of(key) == key_type { Ok(key) } else { Err(Error(CKR_KEY_TYPE_INCONSISTENT)) }
}
