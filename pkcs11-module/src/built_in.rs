//! What a token shows of itself as objects: the profiles it conforms to, and its mechanisms.

use cryptoki_sys::*;
use keyrivet_core::algorithm::HashAlgorithm;
use keyrivet_core::object::{Attributes, Body, Object, ObjectId};
use keyrivet_core::token::TokenInfo;

use crate::mechanism;

/// An object that nobody made and nobody can change (PKCS#11 3.2, "Mechanism objects", "Profile objects").
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum BuiltIn {
    Profile(CK_PROFILE_ID),
    Mechanism(CK_MECHANISM_TYPE),
}

/// The profiles (PKCS#11 Profiles 3.2, "Base Profiles") whose functions and objects are all here.
const PROFILES: [CK_PROFILE_ID; 3] = [CKP_BASELINE_PROVIDER, CKP_EXTENDED_PROVIDER, CKP_AUTHENTICATION_TOKEN];

impl BuiltIn {
    /// Those of a class. Only who asks for the class gets them: to others, who list all, they would be noise.
    pub(crate) fn of_class(class: CK_OBJECT_CLASS, token: &TokenInfo) -> Vec<Self> {
        match class {
            CKO_PROFILE => PROFILES.map(Self::Profile).into(),
            CKO_MECHANISM => mechanism::list(Some(token)).into_iter().map(Self::Mechanism).collect(),
            _ => Vec::new(),
        }
    }

    /// `CKA_CLASS`.
    pub(crate) fn class(self) -> CK_OBJECT_CLASS {
        match self {
            Self::Profile(_) => CKO_PROFILE,
            Self::Mechanism(_) => CKO_MECHANISM,
        }
    }

    /// `CKA_PROFILE_ID` or `CKA_MECHANISM_TYPE`.
    pub(crate) fn number(self) -> CK_ULONG {
        match self {
            Self::Profile(number) | Self::Mechanism(number) => number,
        }
    }

    /// An object with the attributes that every object has.
    pub(crate) fn object(self) -> Object {
        let name = format!("built-in {} {}", self.class(), self.number());
        let attributes = Attributes { modifiable: false, copyable: false, destroyable: false, ..Attributes::default() };
        Object {
            id: ObjectId::from_digest(&HashAlgorithm::Sha256.digest(name.as_bytes())),
            body: Body::Data { value: Vec::new(), attributes },
        }
    }
}
