//! The function lists of versions 2.40, 3.0 and 3.2, and the interfaces that hand them out.

use std::ffi::CStr;

use cryptoki_sys::*;

use super::decrypt::*;
use super::digest::*;
use super::dual::*;
use super::encrypt::*;
use super::general::*;
use super::key::*;
use super::object::*;
use super::random::*;
use super::session::*;
use super::sign::*;
use super::slot::*;
use super::unsupported::*;
use super::verify::*;

/// The newest version.
pub(super) const NEWEST: CK_VERSION = CK_VERSION { major: 3, minor: 2 };

/// Each list has the functions of the one before it, in the same order, and then its own. A name that is not in the
/// standard's list, or is missing here, does not compile.
macro_rules! function_lists {
    ([$($base:ident)*] [$($third:ident)*] [$($newest:ident)*]) => {
        pub(super) static LIST_2_40: CK_FUNCTION_LIST =
            CK_FUNCTION_LIST { version: CK_VERSION { major: 2, minor: 40 }, $($base: Some($base)),* };
        static LIST_3_0: CK_FUNCTION_LIST_3_0 = CK_FUNCTION_LIST_3_0 {
            version: CK_VERSION { major: 3, minor: 0 },
            $($base: Some($base),)* $($third: Some($third)),*
        };
        static LIST_3_2: CK_FUNCTION_LIST_3_2 = CK_FUNCTION_LIST_3_2 {
            version: NEWEST,
            $($base: Some($base),)* $($third: Some($third),)* $($newest: Some($newest)),*
        };
    };
}

function_lists! {
    [
        C_Initialize C_Finalize C_GetInfo C_GetFunctionList C_GetSlotList C_GetSlotInfo C_GetTokenInfo
        C_GetMechanismList C_GetMechanismInfo C_InitToken C_InitPIN C_SetPIN C_OpenSession C_CloseSession
        C_CloseAllSessions C_GetSessionInfo C_GetOperationState C_SetOperationState C_Login C_Logout C_CreateObject
        C_CopyObject C_DestroyObject C_GetObjectSize C_GetAttributeValue C_SetAttributeValue C_FindObjectsInit
        C_FindObjects C_FindObjectsFinal C_EncryptInit C_Encrypt C_EncryptUpdate C_EncryptFinal C_DecryptInit C_Decrypt
        C_DecryptUpdate C_DecryptFinal C_DigestInit C_Digest C_DigestUpdate C_DigestKey C_DigestFinal C_SignInit C_Sign
        C_SignUpdate C_SignFinal C_SignRecoverInit C_SignRecover C_VerifyInit C_Verify C_VerifyUpdate C_VerifyFinal
        C_VerifyRecoverInit C_VerifyRecover C_DigestEncryptUpdate C_DecryptDigestUpdate C_SignEncryptUpdate
        C_DecryptVerifyUpdate C_GenerateKey C_GenerateKeyPair C_WrapKey C_UnwrapKey C_DeriveKey C_SeedRandom
        C_GenerateRandom C_GetFunctionStatus C_CancelFunction C_WaitForSlotEvent
    ]
    [
        C_GetInterfaceList C_GetInterface C_LoginUser C_SessionCancel C_MessageEncryptInit C_EncryptMessage
        C_EncryptMessageBegin C_EncryptMessageNext C_MessageEncryptFinal C_MessageDecryptInit C_DecryptMessage
        C_DecryptMessageBegin C_DecryptMessageNext C_MessageDecryptFinal C_MessageSignInit C_SignMessage
        C_SignMessageBegin C_SignMessageNext C_MessageSignFinal C_MessageVerifyInit C_VerifyMessage
        C_VerifyMessageBegin C_VerifyMessageNext C_MessageVerifyFinal
    ]
    [
        C_EncapsulateKey C_DecapsulateKey C_VerifySignatureInit C_VerifySignature C_VerifySignatureUpdate
        C_VerifySignatureFinal C_GetSessionValidationFlags C_AsyncComplete C_AsyncGetID C_AsyncJoin
        C_WrapKeyAuthenticated C_UnwrapKeyAuthenticated
    ]
}

/// The name of the standard's own interfaces.
const NAME: &CStr = c"PKCS 11";

/// One interface.
pub(super) struct Interface(pub(super) CK_INTERFACE);

// SAFETY: its pointers are to statics, which nobody writes.
unsafe impl Sync for Interface {}

impl Interface {
    /// Without `CKF_INTERFACE_FORK_SAFE`, by which a child would have its parent's sessions: ours calls C_Initialize anew.
    const fn new(list: *const CK_VOID_PTR) -> Self {
        Self(CK_INTERFACE {
            pInterfaceName: NAME.as_ptr().cast_mut().cast(),
            pFunctionList: list.cast_mut().cast(),
            flags: 0,
        })
    }

    /// Whether its list has this version.
    pub(super) fn is_version(&self, wanted: &CK_VERSION) -> bool {
        // SAFETY: each of the three lists begins with its version.
        let version = unsafe { self.0.pFunctionList.cast::<CK_VERSION>().read() };
        (version.major, version.minor) == (wanted.major, wanted.minor)
    }
}

/// The newest is first: it is the default, and whoever reads an older version's fields of it finds them in place.
static INTERFACES: [Interface; 3] = [
    Interface::new((&raw const LIST_3_2).cast()),
    Interface::new((&raw const LIST_3_0).cast()),
    Interface::new((&raw const LIST_2_40).cast()),
];

/// Every interface, the default one first.
pub(super) fn all() -> &'static [Interface] {
    &INTERFACES
}

/// Whether an application that gives this name wants our interfaces; NULL is any name.
///
/// # Safety
/// `name`, if not NULL, ends with NUL.
pub(super) unsafe fn is_our_name(name: *const CK_UTF8CHAR) -> bool {
    // SAFETY: promised.
    name.is_null() || unsafe { CStr::from_ptr(name.cast()) } == NAME
}
