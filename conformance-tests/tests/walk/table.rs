//! The table: a row for each function of the 3.2 list, in its order.

use std::mem::offset_of;

use cryptoki_sys::*;

use crate::walk::function::{
    Argument::*, Data::*, Effect, Function, Login, Mechanism::*, Place, Template as T, Thing, When,
};

/// The row of a function.
pub(crate) fn function(name: &str) -> &'static Function {
    TABLE.iter().find(|function| function.name == name).expect("the table has every function")
}

/// The functions that work between C_Initialize and C_Finalize.
pub(crate) fn working() -> impl Iterator<Item = &'static Function> {
    TABLE.iter().filter(|function| function.works())
}

macro_rules! row {
    ($name:ident $arguments:expr) => {
        Function::new(stringify!($name), offset_of!(CK_FUNCTION_LIST_3_2, $name), &$arguments)
    };
}

const KEY: CK_RV = CKR_KEY_HANDLE_INVALID;
const OBJECT: CK_RV = CKR_OBJECT_HANDLE_INVALID;
const DUAL: [CK_FLAGS; 4] =
    [CKF_DIGEST | CKF_ENCRYPT, CKF_DECRYPT | CKF_DIGEST, CKF_SIGN | CKF_ENCRYPT, CKF_DECRYPT | CKF_VERIFY];
/// An operation that no flag of CK_MECHANISM_INFO names: CKF_VERIFY is for it too.
pub(crate) const VERIFY_SIGNATURE: CK_FLAGS = 1 << 30;
const WORD: usize = size_of::<CK_ULONG>();

pub(crate) static TABLE: [Function; 104] = [
    // General (PKCS#11 3.2, 5.4).
    row!(C_Initialize[Optional]).when(When::Itself),
    row!(C_Finalize[Reserved]).when(When::Itself),
    row!(C_GetInfo[Value]),
    row!(C_GetFunctionList[Value]).when(When::Anytime),
    // Slots and tokens (5.5).
    row!(C_GetSlotList[Number(1), List(WORD)]),
    row!(C_GetSlotInfo[Slot(Place::Token), Value]),
    row!(C_GetTokenInfo[Slot(Place::Token), Value]),
    row!(C_GetMechanismList[Slot(Place::Token), List(WORD)]),
    row!(C_GetMechanismInfo[Slot(Place::Token), Number(CKM_SHA256), Value]),
    row!(C_InitToken[Slot(Place::Free), Bytes(SoPin), Label]),
    row!(C_InitPIN[Session, Bytes(Pin)]).logged_in(Login::SecurityOfficer),
    row!(C_SetPIN[Session, Bytes(Pin), Bytes(Pin)]),
    // Sessions (5.6).
    row!(C_OpenSession[Slot(Place::Token), Number(CKF_SERIAL_SESSION), Optional, Optional, Value]),
    row!(C_CloseSession[Session]),
    row!(C_CloseAllSessions[Slot(Place::Other)]),
    row!(C_GetSessionInfo[Session, Value]),
    row!(C_GetOperationState[Session, Output])
        .continues(CKF_DIGEST, &["C_DigestInit", "C_DigestUpdate"])
        .error_keeps()
        .random(),
    row!(C_SetOperationState[
        Session,
        Bytes(From("C_GetOperationState")),
        NoObject(CKR_KEY_NOT_NEEDED),
        NoObject(CKR_KEY_NOT_NEEDED)
    ]),
    row!(C_Login[Session, Number(CKU_USER), Bytes(Pin)]).logged_in(Login::Nobody),
    row!(C_Logout[Session]),
    // Objects (5.7).
    row!(C_CreateObject[Session, Template(T::Data), Value]),
    row!(C_CopyObject[Session, Object(Thing::Data, OBJECT), Template(T::Label), Value]),
    row!(C_DestroyObject[Session, Object(Thing::Scrap, OBJECT)]),
    row!(C_GetObjectSize[Session, Object(Thing::Data, OBJECT), Value]),
    row!(C_GetAttributeValue[Session, Object(Thing::Data, OBJECT), Wanted]),
    row!(C_SetAttributeValue[Session, Object(Thing::Data, OBJECT), Template(T::Label)]),
    row!(C_FindObjectsInit[Session, Template(T::Data)]).begins(CKF_FIND_OBJECTS),
    row!(C_FindObjects[Session, Room(4), Value]).continues(CKF_FIND_OBJECTS, &["C_FindObjectsInit"]).error_keeps(),
    row!(C_FindObjectsFinal[Session]).ends(CKF_FIND_OBJECTS, &["C_FindObjectsInit"]),
    // Encryption and decryption (5.8, 5.10).
    row!(C_EncryptInit[Session, Mechanism(AesCbcPad), Object(Thing::Aes, KEY)]).begins(CKF_ENCRYPT),
    row!(C_Encrypt[Session, Bytes(Text), Output]).ends(CKF_ENCRYPT, &["C_EncryptInit"]),
    row!(C_EncryptUpdate[Session, Bytes(Blocks), Output]).continues(CKF_ENCRYPT, &["C_EncryptInit"]),
    row!(C_EncryptFinal[Session, Output]).ends(CKF_ENCRYPT, &["C_EncryptInit", "C_EncryptUpdate"]),
    row!(C_DecryptInit[Session, Mechanism(AesCbcPad), Object(Thing::Aes, KEY)]).begins(CKF_DECRYPT),
    row!(C_Decrypt[Session, Bytes(From("C_Encrypt")), Output]).ends(CKF_DECRYPT, &["C_DecryptInit"]),
    row!(C_DecryptUpdate[Session, Bytes(From("C_Encrypt")), Output]).continues(CKF_DECRYPT, &["C_DecryptInit"]),
    row!(C_DecryptFinal[Session, Output]).ends(CKF_DECRYPT, &["C_DecryptInit", "C_DecryptUpdate"]),
    // Digests (5.12).
    row!(C_DigestInit[Session, Mechanism(Sha256)]).begins(CKF_DIGEST),
    row!(C_Digest[Session, Bytes(Text), Output]).ends(CKF_DIGEST, &["C_DigestInit"]),
    row!(C_DigestUpdate[Session, Bytes(Text)]).continues(CKF_DIGEST, &["C_DigestInit"]),
    row!(C_DigestKey[Session, Object(Thing::Secret, KEY)]).continues(CKF_DIGEST, &["C_DigestInit"]).error_keeps(),
    row!(C_DigestFinal[Session, Output]).ends(CKF_DIGEST, &["C_DigestInit", "C_DigestUpdate"]),
    // Signatures (5.13).
    row!(C_SignInit[Session, Mechanism(RsaSha256), Object(Thing::Rsa, KEY)]).begins(CKF_SIGN),
    row!(C_Sign[Session, Bytes(Text), Output]).ends(CKF_SIGN, &["C_SignInit"]),
    row!(C_SignUpdate[Session, Bytes(Blocks)]).continues(CKF_SIGN, &["C_SignInit"]),
    row!(C_SignFinal[Session, Output]).ends(CKF_SIGN, &["C_SignInit", "C_SignUpdate"]),
    row!(C_SignRecoverInit[Session, Mechanism(RsaPkcs), Object(Thing::Rsa, KEY)]).begins(CKF_SIGN_RECOVER),
    row!(C_SignRecover[Session, Bytes(Text), Output]).ends(CKF_SIGN_RECOVER, &["C_SignRecoverInit"]),
    // Verification (5.15).
    row!(C_VerifyInit[Session, Mechanism(RsaSha256), Object(Thing::RsaPublic, KEY)]).begins(CKF_VERIFY),
    row!(C_Verify[Session, Bytes(Text), Bytes(From("C_Sign"))]).ends(CKF_VERIFY, &["C_VerifyInit"]),
    row!(C_VerifyUpdate[Session, Bytes(Blocks)]).continues(CKF_VERIFY, &["C_VerifyInit"]),
    row!(C_VerifyFinal[Session, Bytes(From("C_SignFinal"))]).ends(CKF_VERIFY, &["C_VerifyInit", "C_VerifyUpdate"]),
    row!(C_VerifyRecoverInit[Session, Mechanism(RsaPkcs), Object(Thing::RsaPublic, KEY)]).begins(CKF_VERIFY_RECOVER),
    row!(C_VerifyRecover[Session, Bytes(From("C_SignRecover")), Output])
        .ends(CKF_VERIFY_RECOVER, &["C_VerifyRecoverInit"]),
    // Two at once (5.17).
    row!(C_DigestEncryptUpdate[Session, Bytes(Blocks), Output]).continues(DUAL[0], &["C_DigestInit", "C_EncryptInit"]),
    row!(C_DecryptDigestUpdate[Session, Bytes(From("C_Encrypt")), Output])
        .continues(DUAL[1], &["C_DecryptInit", "C_DigestInit"]),
    row!(C_SignEncryptUpdate[Session, Bytes(Blocks), Output]).continues(DUAL[2], &["C_SignInit", "C_EncryptInit"]),
    row!(C_DecryptVerifyUpdate[Session, Bytes(From("C_Encrypt")), Output])
        .continues(DUAL[3], &["C_DecryptInit", "C_VerifyInit"]),
    // Keys (5.18).
    row!(C_GenerateKey[Session, Mechanism(AesKeyGen), Template(T::AesKey), Value]),
    row!(C_GenerateKeyPair[
        Session,
        Mechanism(EcKeyPairGen),
        Template(T::EcPublic),
        Template(T::EcPrivate),
        Value,
        Value
    ]),
    row!(C_WrapKey[
        Session,
        Mechanism(RsaPkcs),
        Object(Thing::RsaPublic, CKR_WRAPPING_KEY_HANDLE_INVALID),
        Object(Thing::Secret, KEY),
        Output
    ])
    .random(),
    row!(C_UnwrapKey[
        Session,
        Mechanism(RsaPkcs),
        Object(Thing::Rsa, CKR_UNWRAPPING_KEY_HANDLE_INVALID),
        Bytes(From("C_WrapKey")),
        Template(T::Secret),
        Value
    ]),
    row!(C_DeriveKey[Session, Mechanism(Ecdh), Object(Thing::Ec, KEY), Template(T::Secret), Value]),
    // Random numbers (5.20), and what is left of parallel functions (5.21).
    row!(C_SeedRandom[Session, Bytes(Text)]),
    row!(C_GenerateRandom[Session, Room(4)]),
    row!(C_GetFunctionStatus[Session]).answers(CKR_FUNCTION_NOT_PARALLEL).when(When::Anytime),
    row!(C_CancelFunction[Session]).answers(CKR_FUNCTION_NOT_PARALLEL).when(When::Anytime),
    row!(C_WaitForSlotEvent[Number(CKF_DONT_BLOCK), Value, Reserved]).answers(CKR_NO_EVENT),
    // Since 3.0.
    row!(C_GetInterfaceList[List(size_of::<CK_INTERFACE>())]).when(When::Anytime),
    row!(C_GetInterface[Optional, Optional, Value, Number(0)]).when(When::Anytime),
    row!(C_LoginUser[Session, Number(CKU_USER), Bytes(Pin), Optional, Number(0)]).logged_in(Login::Nobody),
    row!(C_SessionCancel[Session, Number(CKF_DIGEST)]),
    row!(C_MessageEncryptInit[Session, Mechanism(AesCbcPad), Object(Thing::Aes, KEY)])
        .begins(CKF_MESSAGE_ENCRYPT)
        .unsupported(),
    row!(C_EncryptMessage[Session, Bytes(Text), Bytes(Text), Bytes(Text), Output]).unsupported(),
    row!(C_EncryptMessageBegin[Session, Bytes(Text), Bytes(Text)]).unsupported(),
    row!(C_EncryptMessageNext[Session, Bytes(Text), Bytes(Text), Output, Number(0)]).unsupported(),
    row!(C_MessageEncryptFinal[Session]).unsupported(),
    row!(C_MessageDecryptInit[Session, Mechanism(AesCbcPad), Object(Thing::Aes, KEY)])
        .begins(CKF_MESSAGE_DECRYPT)
        .unsupported(),
    row!(C_DecryptMessage[Session, Bytes(Text), Bytes(Text), Bytes(Text), Output]).unsupported(),
    row!(C_DecryptMessageBegin[Session, Bytes(Text), Bytes(Text)]).unsupported(),
    row!(C_DecryptMessageNext[Session, Bytes(Text), Bytes(Text), Output, Number(0)]).unsupported(),
    row!(C_MessageDecryptFinal[Session]).unsupported(),
    row!(C_MessageSignInit[Session, Mechanism(RsaSha256), Object(Thing::Rsa, KEY)])
        .begins(CKF_MESSAGE_SIGN)
        .unsupported(),
    row!(C_SignMessage[Session, Optional, Number(0), Bytes(Text), Output]).unsupported(),
    row!(C_SignMessageBegin[Session, Optional, Number(0)]).unsupported(),
    row!(C_SignMessageNext[Session, Optional, Number(0), Bytes(Text), Output]).unsupported(),
    row!(C_MessageSignFinal[Session]).unsupported(),
    row!(C_MessageVerifyInit[Session, Mechanism(RsaSha256), Object(Thing::RsaPublic, KEY)])
        .begins(CKF_MESSAGE_VERIFY)
        .unsupported(),
    row!(C_VerifyMessage[Session, Optional, Number(0), Bytes(Text), Bytes(From("C_Sign"))]).unsupported(),
    row!(C_VerifyMessageBegin[Session, Optional, Number(0)]).unsupported(),
    row!(C_VerifyMessageNext[Session, Optional, Number(0), Bytes(Text), Bytes(From("C_Sign"))]).unsupported(),
    row!(C_MessageVerifyFinal[Session]).unsupported(),
    // Since 3.2.
    row!(C_EncapsulateKey[
        Session,
        Mechanism(Ecdh),
        Object(Thing::EcPublic, KEY),
        Template(T::Secret),
        Output,
        Value
    ])
    .unsupported(),
    row!(C_DecapsulateKey[Session, Mechanism(Ecdh), Object(Thing::Ec, KEY), Template(T::Secret), Bytes(Text), Value])
        .unsupported(),
    row!(C_VerifySignatureInit[
        Session,
        Mechanism(RsaSha256),
        Object(Thing::RsaPublic, KEY),
        Bytes(From("C_Sign"))
    ])
    .begins(VERIFY_SIGNATURE),
    row!(C_VerifySignature[Session, Bytes(Text)]).ends(VERIFY_SIGNATURE, &["C_VerifySignatureInit"]),
    row!(C_VerifySignatureUpdate[Session, Bytes(Text)]).continues(VERIFY_SIGNATURE, &["C_VerifySignatureInit"]),
    row!(C_VerifySignatureFinal[Session]).ends(VERIFY_SIGNATURE, &["C_VerifySignatureInit", "C_VerifySignatureUpdate"]),
    row!(C_GetSessionValidationFlags[Session, Number(CKS_LAST_VALIDATION_OK), Value]).unsupported(),
    row!(C_AsyncComplete[Session, Label, Value]).unsupported(),
    row!(C_AsyncGetID[Session, Label, Value]).unsupported(),
    row!(C_AsyncJoin[Session, Label, Number(0), Room(4)]).unsupported(),
    row!(C_WrapKeyAuthenticated[
        Session,
        Mechanism(RsaPkcs),
        Object(Thing::RsaPublic, CKR_WRAPPING_KEY_HANDLE_INVALID),
        Object(Thing::Secret, KEY),
        Bytes(Text),
        Output
    ])
    .unsupported(),
    row!(C_UnwrapKeyAuthenticated[
        Session,
        Mechanism(RsaPkcs),
        Object(Thing::Rsa, CKR_UNWRAPPING_KEY_HANDLE_INVALID),
        Bytes(Text),
        Template(T::Secret),
        Bytes(Text),
        Value
    ])
    .unsupported(),
];

/// The function that begins an operation.
pub(crate) fn beginning(operation: CK_FLAGS) -> &'static Function {
    let begins = |function: &&Function| function.effect == Effect::Begins && function.operations == operation;
    TABLE.iter().find(begins).expect("every operation has a beginning")
}
