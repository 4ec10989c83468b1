//! The ABI between OpenSSL's core and a provider, generated from the headers of OpenSSL 3.0.
//!
//! `conformance-tests/tests/provider_abi.rs` compares it to the installed headers, and says how to make it anew.

/// Passed on, never looked into: on every architecture a `va_list` argument is passed like a pointer.
pub type va_list = *mut core::ffi::c_void;

pub const OSSL_PARAM_INTEGER: u32 = 1;
pub const OSSL_PARAM_UNSIGNED_INTEGER: u32 = 2;
pub const OSSL_PARAM_UTF8_STRING: u32 = 4;
pub const OSSL_PARAM_OCTET_STRING: u32 = 5;
pub const OSSL_PARAM_UTF8_PTR: u32 = 6;
pub const OSSL_PARAM_OCTET_PTR: u32 = 7;
pub const OSSL_FUNC_CORE_GET_PARAMS: u32 = 2;
pub const OSSL_FUNC_CORE_NEW_ERROR: u32 = 5;
pub const OSSL_FUNC_CORE_SET_ERROR_DEBUG: u32 = 6;
pub const OSSL_FUNC_CORE_VSET_ERROR: u32 = 7;
pub const OSSL_FUNC_BIO_READ_EX: u32 = 42;
pub const OSSL_FUNC_BIO_WRITE_EX: u32 = 43;
pub const OSSL_FUNC_BIO_GETS: u32 = 49;
pub const OSSL_FUNC_PROVIDER_TEARDOWN: u32 = 1024;
pub const OSSL_FUNC_PROVIDER_GETTABLE_PARAMS: u32 = 1025;
pub const OSSL_FUNC_PROVIDER_GET_PARAMS: u32 = 1026;
pub const OSSL_FUNC_PROVIDER_QUERY_OPERATION: u32 = 1027;
pub const OSSL_FUNC_PROVIDER_GET_REASON_STRINGS: u32 = 1029;
pub const OSSL_FUNC_PROVIDER_GET_CAPABILITIES: u32 = 1030;
pub const OSSL_OP_RAND: u32 = 5;
pub const OSSL_OP_KEYMGMT: u32 = 10;
pub const OSSL_OP_KEYEXCH: u32 = 11;
pub const OSSL_OP_SIGNATURE: u32 = 12;
pub const OSSL_OP_ASYM_CIPHER: u32 = 13;
pub const OSSL_OP_ENCODER: u32 = 20;
pub const OSSL_OP_DECODER: u32 = 21;
pub const OSSL_OP_STORE: u32 = 22;
pub const OSSL_FUNC_RAND_NEWCTX: u32 = 1;
pub const OSSL_FUNC_RAND_FREECTX: u32 = 2;
pub const OSSL_FUNC_RAND_INSTANTIATE: u32 = 3;
pub const OSSL_FUNC_RAND_UNINSTANTIATE: u32 = 4;
pub const OSSL_FUNC_RAND_GENERATE: u32 = 5;
pub const OSSL_FUNC_RAND_RESEED: u32 = 6;
pub const OSSL_FUNC_RAND_NONCE: u32 = 7;
pub const OSSL_FUNC_RAND_ENABLE_LOCKING: u32 = 8;
pub const OSSL_FUNC_RAND_LOCK: u32 = 9;
pub const OSSL_FUNC_RAND_UNLOCK: u32 = 10;
pub const OSSL_FUNC_RAND_GETTABLE_PARAMS: u32 = 11;
pub const OSSL_FUNC_RAND_GETTABLE_CTX_PARAMS: u32 = 12;
pub const OSSL_FUNC_RAND_SETTABLE_CTX_PARAMS: u32 = 13;
pub const OSSL_FUNC_RAND_GET_PARAMS: u32 = 14;
pub const OSSL_FUNC_RAND_GET_CTX_PARAMS: u32 = 15;
pub const OSSL_FUNC_RAND_SET_CTX_PARAMS: u32 = 16;
pub const OSSL_FUNC_RAND_VERIFY_ZEROIZATION: u32 = 17;
pub const OSSL_FUNC_RAND_GET_SEED: u32 = 18;
pub const OSSL_FUNC_RAND_CLEAR_SEED: u32 = 19;
pub const OSSL_KEYMGMT_SELECT_PRIVATE_KEY: u32 = 1;
pub const OSSL_KEYMGMT_SELECT_PUBLIC_KEY: u32 = 2;
pub const OSSL_KEYMGMT_SELECT_DOMAIN_PARAMETERS: u32 = 4;
pub const OSSL_KEYMGMT_SELECT_OTHER_PARAMETERS: u32 = 128;
pub const OSSL_KEYMGMT_SELECT_ALL_PARAMETERS: u32 = 132;
pub const OSSL_KEYMGMT_SELECT_KEYPAIR: u32 = 3;
pub const OSSL_KEYMGMT_SELECT_ALL: u32 = 135;
pub const OSSL_FUNC_KEYMGMT_NEW: u32 = 1;
pub const OSSL_FUNC_KEYMGMT_GEN_INIT: u32 = 2;
pub const OSSL_FUNC_KEYMGMT_GEN_SET_TEMPLATE: u32 = 3;
pub const OSSL_FUNC_KEYMGMT_GEN_SET_PARAMS: u32 = 4;
pub const OSSL_FUNC_KEYMGMT_GEN_SETTABLE_PARAMS: u32 = 5;
pub const OSSL_FUNC_KEYMGMT_GEN: u32 = 6;
pub const OSSL_FUNC_KEYMGMT_GEN_CLEANUP: u32 = 7;
pub const OSSL_FUNC_KEYMGMT_LOAD: u32 = 8;
pub const OSSL_FUNC_KEYMGMT_FREE: u32 = 10;
pub const OSSL_FUNC_KEYMGMT_GET_PARAMS: u32 = 11;
pub const OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS: u32 = 12;
pub const OSSL_FUNC_KEYMGMT_SET_PARAMS: u32 = 13;
pub const OSSL_FUNC_KEYMGMT_SETTABLE_PARAMS: u32 = 14;
pub const OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME: u32 = 20;
pub const OSSL_FUNC_KEYMGMT_HAS: u32 = 21;
pub const OSSL_FUNC_KEYMGMT_VALIDATE: u32 = 22;
pub const OSSL_FUNC_KEYMGMT_MATCH: u32 = 23;
pub const OSSL_FUNC_KEYMGMT_IMPORT: u32 = 40;
pub const OSSL_FUNC_KEYMGMT_IMPORT_TYPES: u32 = 41;
pub const OSSL_FUNC_KEYMGMT_EXPORT: u32 = 42;
pub const OSSL_FUNC_KEYMGMT_EXPORT_TYPES: u32 = 43;
pub const OSSL_FUNC_KEYMGMT_DUP: u32 = 44;
pub const OSSL_FUNC_KEYEXCH_NEWCTX: u32 = 1;
pub const OSSL_FUNC_KEYEXCH_INIT: u32 = 2;
pub const OSSL_FUNC_KEYEXCH_DERIVE: u32 = 3;
pub const OSSL_FUNC_KEYEXCH_SET_PEER: u32 = 4;
pub const OSSL_FUNC_KEYEXCH_FREECTX: u32 = 5;
pub const OSSL_FUNC_KEYEXCH_DUPCTX: u32 = 6;
pub const OSSL_FUNC_KEYEXCH_SET_CTX_PARAMS: u32 = 7;
pub const OSSL_FUNC_KEYEXCH_SETTABLE_CTX_PARAMS: u32 = 8;
pub const OSSL_FUNC_KEYEXCH_GET_CTX_PARAMS: u32 = 9;
pub const OSSL_FUNC_KEYEXCH_GETTABLE_CTX_PARAMS: u32 = 10;
pub const OSSL_FUNC_SIGNATURE_NEWCTX: u32 = 1;
pub const OSSL_FUNC_SIGNATURE_SIGN_INIT: u32 = 2;
pub const OSSL_FUNC_SIGNATURE_SIGN: u32 = 3;
pub const OSSL_FUNC_SIGNATURE_VERIFY_INIT: u32 = 4;
pub const OSSL_FUNC_SIGNATURE_VERIFY: u32 = 5;
pub const OSSL_FUNC_SIGNATURE_VERIFY_RECOVER_INIT: u32 = 6;
pub const OSSL_FUNC_SIGNATURE_VERIFY_RECOVER: u32 = 7;
pub const OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT: u32 = 8;
pub const OSSL_FUNC_SIGNATURE_DIGEST_SIGN_UPDATE: u32 = 9;
pub const OSSL_FUNC_SIGNATURE_DIGEST_SIGN_FINAL: u32 = 10;
pub const OSSL_FUNC_SIGNATURE_DIGEST_SIGN: u32 = 11;
pub const OSSL_FUNC_SIGNATURE_DIGEST_VERIFY_INIT: u32 = 12;
pub const OSSL_FUNC_SIGNATURE_DIGEST_VERIFY_UPDATE: u32 = 13;
pub const OSSL_FUNC_SIGNATURE_DIGEST_VERIFY_FINAL: u32 = 14;
pub const OSSL_FUNC_SIGNATURE_DIGEST_VERIFY: u32 = 15;
pub const OSSL_FUNC_SIGNATURE_FREECTX: u32 = 16;
pub const OSSL_FUNC_SIGNATURE_DUPCTX: u32 = 17;
pub const OSSL_FUNC_SIGNATURE_GET_CTX_PARAMS: u32 = 18;
pub const OSSL_FUNC_SIGNATURE_GETTABLE_CTX_PARAMS: u32 = 19;
pub const OSSL_FUNC_SIGNATURE_SET_CTX_PARAMS: u32 = 20;
pub const OSSL_FUNC_SIGNATURE_SETTABLE_CTX_PARAMS: u32 = 21;
pub const OSSL_FUNC_SIGNATURE_GET_CTX_MD_PARAMS: u32 = 22;
pub const OSSL_FUNC_SIGNATURE_GETTABLE_CTX_MD_PARAMS: u32 = 23;
pub const OSSL_FUNC_SIGNATURE_SET_CTX_MD_PARAMS: u32 = 24;
pub const OSSL_FUNC_SIGNATURE_SETTABLE_CTX_MD_PARAMS: u32 = 25;
pub const OSSL_FUNC_ASYM_CIPHER_NEWCTX: u32 = 1;
pub const OSSL_FUNC_ASYM_CIPHER_ENCRYPT_INIT: u32 = 2;
pub const OSSL_FUNC_ASYM_CIPHER_ENCRYPT: u32 = 3;
pub const OSSL_FUNC_ASYM_CIPHER_DECRYPT_INIT: u32 = 4;
pub const OSSL_FUNC_ASYM_CIPHER_DECRYPT: u32 = 5;
pub const OSSL_FUNC_ASYM_CIPHER_FREECTX: u32 = 6;
pub const OSSL_FUNC_ASYM_CIPHER_DUPCTX: u32 = 7;
pub const OSSL_FUNC_ASYM_CIPHER_GET_CTX_PARAMS: u32 = 8;
pub const OSSL_FUNC_ASYM_CIPHER_GETTABLE_CTX_PARAMS: u32 = 9;
pub const OSSL_FUNC_ASYM_CIPHER_SET_CTX_PARAMS: u32 = 10;
pub const OSSL_FUNC_ASYM_CIPHER_SETTABLE_CTX_PARAMS: u32 = 11;
pub const OSSL_FUNC_ENCODER_NEWCTX: u32 = 1;
pub const OSSL_FUNC_ENCODER_FREECTX: u32 = 2;
pub const OSSL_FUNC_ENCODER_GET_PARAMS: u32 = 3;
pub const OSSL_FUNC_ENCODER_GETTABLE_PARAMS: u32 = 4;
pub const OSSL_FUNC_ENCODER_SET_CTX_PARAMS: u32 = 5;
pub const OSSL_FUNC_ENCODER_SETTABLE_CTX_PARAMS: u32 = 6;
pub const OSSL_FUNC_ENCODER_DOES_SELECTION: u32 = 10;
pub const OSSL_FUNC_ENCODER_ENCODE: u32 = 11;
pub const OSSL_FUNC_ENCODER_IMPORT_OBJECT: u32 = 20;
pub const OSSL_FUNC_ENCODER_FREE_OBJECT: u32 = 21;
pub const OSSL_FUNC_DECODER_NEWCTX: u32 = 1;
pub const OSSL_FUNC_DECODER_FREECTX: u32 = 2;
pub const OSSL_FUNC_DECODER_GET_PARAMS: u32 = 3;
pub const OSSL_FUNC_DECODER_GETTABLE_PARAMS: u32 = 4;
pub const OSSL_FUNC_DECODER_SET_CTX_PARAMS: u32 = 5;
pub const OSSL_FUNC_DECODER_SETTABLE_CTX_PARAMS: u32 = 6;
pub const OSSL_FUNC_DECODER_DOES_SELECTION: u32 = 10;
pub const OSSL_FUNC_DECODER_DECODE: u32 = 11;
pub const OSSL_FUNC_DECODER_EXPORT_OBJECT: u32 = 20;
pub const OSSL_FUNC_STORE_OPEN: u32 = 1;
pub const OSSL_FUNC_STORE_ATTACH: u32 = 2;
pub const OSSL_FUNC_STORE_SETTABLE_CTX_PARAMS: u32 = 3;
pub const OSSL_FUNC_STORE_SET_CTX_PARAMS: u32 = 4;
pub const OSSL_FUNC_STORE_LOAD: u32 = 5;
pub const OSSL_FUNC_STORE_EOF: u32 = 6;
pub const OSSL_FUNC_STORE_CLOSE: u32 = 7;
pub const OSSL_FUNC_STORE_EXPORT_OBJECT: u32 = 8;
pub const OSSL_PROV_PARAM_CORE_VERSION: &::core::ffi::CStr = c"openssl-version";
pub const OSSL_PROV_PARAM_NAME: &::core::ffi::CStr = c"name";
pub const OSSL_PROV_PARAM_VERSION: &::core::ffi::CStr = c"version";
pub const OSSL_PROV_PARAM_BUILDINFO: &::core::ffi::CStr = c"buildinfo";
pub const OSSL_PROV_PARAM_STATUS: &::core::ffi::CStr = c"status";
pub const OSSL_OBJECT_PARAM_TYPE: &::core::ffi::CStr = c"type";
pub const OSSL_OBJECT_PARAM_DATA_TYPE: &::core::ffi::CStr = c"data-type";
pub const OSSL_OBJECT_PARAM_DATA_STRUCTURE: &::core::ffi::CStr = c"data-structure";
pub const OSSL_OBJECT_PARAM_REFERENCE: &::core::ffi::CStr = c"reference";
pub const OSSL_OBJECT_PARAM_DATA: &::core::ffi::CStr = c"data";
pub const OSSL_OBJECT_PARAM_DESC: &::core::ffi::CStr = c"desc";
pub const OSSL_KDF_NAME_X963KDF: &::core::ffi::CStr = c"X963KDF";
pub const OSSL_RAND_PARAM_STATE: &::core::ffi::CStr = c"state";
pub const OSSL_RAND_PARAM_STRENGTH: &::core::ffi::CStr = c"strength";
pub const OSSL_RAND_PARAM_MAX_REQUEST: &::core::ffi::CStr = c"max_request";
pub const OSSL_RAND_PARAM_TEST_ENTROPY: &::core::ffi::CStr = c"test_entropy";
pub const OSSL_RAND_PARAM_TEST_NONCE: &::core::ffi::CStr = c"test_nonce";
pub const OSSL_PKEY_PARAM_BITS: &::core::ffi::CStr = c"bits";
pub const OSSL_PKEY_PARAM_MAX_SIZE: &::core::ffi::CStr = c"max-size";
pub const OSSL_PKEY_PARAM_SECURITY_BITS: &::core::ffi::CStr = c"security-bits";
pub const OSSL_PKEY_PARAM_DEFAULT_DIGEST: &::core::ffi::CStr = c"default-digest";
pub const OSSL_PKEY_PARAM_MANDATORY_DIGEST: &::core::ffi::CStr = c"mandatory-digest";
pub const OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY: &::core::ffi::CStr = c"encoded-pub-key";
pub const OSSL_PKEY_PARAM_GROUP_NAME: &::core::ffi::CStr = c"group";
pub const OSSL_PKEY_PARAM_PUB_KEY: &::core::ffi::CStr = c"pub";
pub const OSSL_PKEY_PARAM_PRIV_KEY: &::core::ffi::CStr = c"priv";
pub const OSSL_PKEY_PARAM_EC_PUB_X: &::core::ffi::CStr = c"qx";
pub const OSSL_PKEY_PARAM_EC_PUB_Y: &::core::ffi::CStr = c"qy";
pub const OSSL_PKEY_PARAM_EC_FIELD_TYPE: &::core::ffi::CStr = c"field-type";
pub const OSSL_PKEY_PARAM_EC_DECODED_FROM_EXPLICIT_PARAMS: &::core::ffi::CStr = c"decoded-from-explicit";
pub const OSSL_PKEY_PARAM_USE_COFACTOR_ECDH: &::core::ffi::CStr = c"use-cofactor-flag";
pub const OSSL_PKEY_PARAM_RSA_N: &::core::ffi::CStr = c"n";
pub const OSSL_PKEY_PARAM_RSA_E: &::core::ffi::CStr = c"e";
pub const OSSL_PKEY_PARAM_RSA_D: &::core::ffi::CStr = c"d";
pub const OSSL_PKEY_RSA_PAD_MODE_NONE: &::core::ffi::CStr = c"none";
pub const OSSL_PKEY_RSA_PAD_MODE_PKCSV15: &::core::ffi::CStr = c"pkcs1";
pub const OSSL_PKEY_RSA_PAD_MODE_OAEP: &::core::ffi::CStr = c"oaep";
pub const OSSL_PKEY_RSA_PAD_MODE_X931: &::core::ffi::CStr = c"x931";
pub const OSSL_PKEY_RSA_PAD_MODE_PSS: &::core::ffi::CStr = c"pss";
pub const OSSL_PKEY_RSA_PSS_SALT_LEN_DIGEST: &::core::ffi::CStr = c"digest";
pub const OSSL_PKEY_RSA_PSS_SALT_LEN_MAX: &::core::ffi::CStr = c"max";
pub const OSSL_PKEY_RSA_PSS_SALT_LEN_AUTO: &::core::ffi::CStr = c"auto";
pub const OSSL_PKEY_PARAM_RSA_BITS: &::core::ffi::CStr = c"bits";
pub const OSSL_PKEY_PARAM_RSA_PRIMES: &::core::ffi::CStr = c"primes";
pub const OSSL_PKEY_PARAM_RSA_DIGEST: &::core::ffi::CStr = c"digest";
pub const OSSL_PKEY_PARAM_RSA_MASKGENFUNC: &::core::ffi::CStr = c"mgf";
pub const OSSL_PKEY_PARAM_RSA_MGF1_DIGEST: &::core::ffi::CStr = c"mgf1-digest";
pub const OSSL_PKEY_PARAM_RSA_PSS_SALTLEN: &::core::ffi::CStr = c"saltlen";
pub const OSSL_PKEY_PARAM_EC_ENCODING: &::core::ffi::CStr = c"encoding";
pub const OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT: &::core::ffi::CStr = c"point-format";
pub const OSSL_EXCHANGE_PARAM_PAD: &::core::ffi::CStr = c"pad";
pub const OSSL_EXCHANGE_PARAM_EC_ECDH_COFACTOR_MODE: &::core::ffi::CStr = c"ecdh-cofactor-mode";
pub const OSSL_EXCHANGE_PARAM_KDF_TYPE: &::core::ffi::CStr = c"kdf-type";
pub const OSSL_EXCHANGE_PARAM_KDF_DIGEST: &::core::ffi::CStr = c"kdf-digest";
pub const OSSL_EXCHANGE_PARAM_KDF_DIGEST_PROPS: &::core::ffi::CStr = c"kdf-digest-props";
pub const OSSL_EXCHANGE_PARAM_KDF_OUTLEN: &::core::ffi::CStr = c"kdf-outlen";
pub const OSSL_EXCHANGE_PARAM_KDF_UKM: &::core::ffi::CStr = c"kdf-ukm";
pub const OSSL_SIGNATURE_PARAM_ALGORITHM_ID: &::core::ffi::CStr = c"algorithm-id";
pub const OSSL_SIGNATURE_PARAM_PAD_MODE: &::core::ffi::CStr = c"pad-mode";
pub const OSSL_SIGNATURE_PARAM_DIGEST: &::core::ffi::CStr = c"digest";
pub const OSSL_SIGNATURE_PARAM_PROPERTIES: &::core::ffi::CStr = c"properties";
pub const OSSL_SIGNATURE_PARAM_PSS_SALTLEN: &::core::ffi::CStr = c"saltlen";
pub const OSSL_SIGNATURE_PARAM_MGF1_DIGEST: &::core::ffi::CStr = c"mgf1-digest";
pub const OSSL_SIGNATURE_PARAM_MGF1_PROPERTIES: &::core::ffi::CStr = c"mgf1-properties";
pub const OSSL_ASYM_CIPHER_PARAM_DIGEST: &::core::ffi::CStr = c"digest";
pub const OSSL_ASYM_CIPHER_PARAM_PROPERTIES: &::core::ffi::CStr = c"properties";
pub const OSSL_ASYM_CIPHER_PARAM_ENGINE: &::core::ffi::CStr = c"engine";
pub const OSSL_ASYM_CIPHER_PARAM_PAD_MODE: &::core::ffi::CStr = c"pad-mode";
pub const OSSL_ASYM_CIPHER_PARAM_MGF1_DIGEST: &::core::ffi::CStr = c"mgf1-digest";
pub const OSSL_ASYM_CIPHER_PARAM_MGF1_DIGEST_PROPS: &::core::ffi::CStr = c"mgf1-properties";
pub const OSSL_ASYM_CIPHER_PARAM_OAEP_DIGEST: &::core::ffi::CStr = c"digest";
pub const OSSL_ASYM_CIPHER_PARAM_OAEP_DIGEST_PROPS: &::core::ffi::CStr = c"digest-props";
pub const OSSL_ASYM_CIPHER_PARAM_OAEP_LABEL: &::core::ffi::CStr = c"oaep-label";
pub const OSSL_ASYM_CIPHER_PARAM_TLS_CLIENT_VERSION: &::core::ffi::CStr = c"tls-client-version";
pub const OSSL_ASYM_CIPHER_PARAM_TLS_NEGOTIATED_VERSION: &::core::ffi::CStr = c"tls-negotiated-version";
pub const OSSL_PASSPHRASE_PARAM_INFO: &::core::ffi::CStr = c"info";
pub const OSSL_CAPABILITY_TLS_GROUP_NAME: &::core::ffi::CStr = c"tls-group-name";
pub const OSSL_CAPABILITY_TLS_GROUP_NAME_INTERNAL: &::core::ffi::CStr = c"tls-group-name-internal";
pub const OSSL_CAPABILITY_TLS_GROUP_ID: &::core::ffi::CStr = c"tls-group-id";
pub const OSSL_CAPABILITY_TLS_GROUP_ALG: &::core::ffi::CStr = c"tls-group-alg";
pub const OSSL_CAPABILITY_TLS_GROUP_SECURITY_BITS: &::core::ffi::CStr = c"tls-group-sec-bits";
pub const OSSL_CAPABILITY_TLS_GROUP_IS_KEM: &::core::ffi::CStr = c"tls-group-is-kem";
pub const OSSL_CAPABILITY_TLS_GROUP_MIN_TLS: &::core::ffi::CStr = c"tls-min-tls";
pub const OSSL_CAPABILITY_TLS_GROUP_MAX_TLS: &::core::ffi::CStr = c"tls-max-tls";
pub const OSSL_CAPABILITY_TLS_GROUP_MIN_DTLS: &::core::ffi::CStr = c"tls-min-dtls";
pub const OSSL_CAPABILITY_TLS_GROUP_MAX_DTLS: &::core::ffi::CStr = c"tls-max-dtls";
pub const OSSL_STORE_PARAM_EXPECT: &::core::ffi::CStr = c"expect";
pub const OSSL_STORE_PARAM_SUBJECT: &::core::ffi::CStr = c"subject";
pub const OSSL_STORE_PARAM_ISSUER: &::core::ffi::CStr = c"name";
pub const OSSL_STORE_PARAM_SERIAL: &::core::ffi::CStr = c"serial";
pub const OSSL_STORE_PARAM_ALIAS: &::core::ffi::CStr = c"alias";
pub const OSSL_STORE_PARAM_PROPERTIES: &::core::ffi::CStr = c"properties";
pub const OSSL_OBJECT_UNKNOWN: u32 = 0;
pub const OSSL_OBJECT_NAME: u32 = 1;
pub const OSSL_OBJECT_PKEY: u32 = 2;
pub const OSSL_OBJECT_CERT: u32 = 3;
pub const OSSL_OBJECT_CRL: u32 = 4;
pub const TLS1_VERSION: u32 = 769;
pub const DTLS1_VERSION: u32 = 65279;
pub const RSA_PSS_SALTLEN_DIGEST: i32 = -1;
pub const RSA_PSS_SALTLEN_AUTO: i32 = -2;
pub const RSA_PSS_SALTLEN_MAX: i32 = -3;
pub const RSA_PKCS1_PADDING: u32 = 1;
pub const RSA_NO_PADDING: u32 = 3;
pub const RSA_PKCS1_OAEP_PADDING: u32 = 4;
pub const RSA_PKCS1_PSS_PADDING: u32 = 6;
pub const RSA_PKCS1_WITH_TLS_PADDING: u32 = 7;
pub const OSSL_STORE_INFO_NAME: u32 = 1;
pub const OSSL_STORE_INFO_PARAMS: u32 = 2;
pub const OSSL_STORE_INFO_PUBKEY: u32 = 3;
pub const OSSL_STORE_INFO_PKEY: u32 = 4;
pub const OSSL_STORE_INFO_CERT: u32 = 5;
pub const OSSL_STORE_INFO_CRL: u32 = 6;
pub type OSSL_DISPATCH = ossl_dispatch_st;
pub type OSSL_ITEM = ossl_item_st;
pub type OSSL_ALGORITHM = ossl_algorithm_st;
pub type OSSL_PARAM = ossl_param_st;
#[repr(C)]
#[derive(Copy, Clone)]
pub struct ossl_core_handle_st {
    _unused: [u8; 0],
}
pub type OSSL_CORE_HANDLE = ossl_core_handle_st;
#[repr(C)]
#[derive(Copy, Clone)]
pub struct ossl_core_bio_st {
    _unused: [u8; 0],
}
pub type OSSL_CORE_BIO = ossl_core_bio_st;
#[repr(C)]
#[derive(Copy, Clone)]
pub struct ossl_dispatch_st {
    pub function_id: core::ffi::c_int,
    pub function: ::core::option::Option<unsafe extern "C" fn()>,
}
#[repr(C)]
#[derive(Copy, Clone)]
pub struct ossl_item_st {
    pub id: core::ffi::c_uint,
    pub ptr: *mut core::ffi::c_void,
}
#[repr(C)]
#[derive(Copy, Clone)]
pub struct ossl_algorithm_st {
    pub algorithm_names: *const core::ffi::c_char,
    pub property_definition: *const core::ffi::c_char,
    pub implementation: *const OSSL_DISPATCH,
    pub algorithm_description: *const core::ffi::c_char,
}
#[repr(C)]
#[derive(Copy, Clone)]
pub struct ossl_param_st {
    pub key: *const core::ffi::c_char,
    pub data_type: core::ffi::c_uint,
    pub data: *mut core::ffi::c_void,
    pub data_size: usize,
    pub return_size: usize,
}
pub type OSSL_provider_init_fn = ::core::option::Option<
    unsafe extern "C" fn(
        handle: *const OSSL_CORE_HANDLE,
        in_: *const OSSL_DISPATCH,
        out: *mut *const OSSL_DISPATCH,
        provctx: *mut *mut core::ffi::c_void,
    ) -> core::ffi::c_int,
>;
pub type OSSL_CALLBACK = ::core::option::Option<
    unsafe extern "C" fn(params: *const OSSL_PARAM, arg: *mut core::ffi::c_void) -> core::ffi::c_int,
>;
pub type OSSL_INOUT_CALLBACK = ::core::option::Option<
    unsafe extern "C" fn(
        in_params: *const OSSL_PARAM,
        out_params: *mut OSSL_PARAM,
        arg: *mut core::ffi::c_void,
    ) -> core::ffi::c_int,
>;
pub type OSSL_PASSPHRASE_CALLBACK = ::core::option::Option<
    unsafe extern "C" fn(
        pass: *mut core::ffi::c_char,
        pass_size: usize,
        pass_len: *mut usize,
        params: *const OSSL_PARAM,
        arg: *mut core::ffi::c_void,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_core_get_params_fn = ::core::option::Option<
    unsafe extern "C" fn(prov: *const OSSL_CORE_HANDLE, params: *mut OSSL_PARAM) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_core_new_error_fn = ::core::option::Option<unsafe extern "C" fn(prov: *const OSSL_CORE_HANDLE)>;
pub type OSSL_FUNC_core_set_error_debug_fn = ::core::option::Option<
    unsafe extern "C" fn(
        prov: *const OSSL_CORE_HANDLE,
        file: *const core::ffi::c_char,
        line: core::ffi::c_int,
        func: *const core::ffi::c_char,
    ),
>;
pub type OSSL_FUNC_core_vset_error_fn = ::core::option::Option<
    unsafe extern "C" fn(
        prov: *const OSSL_CORE_HANDLE,
        reason: u32,
        fmt: *const core::ffi::c_char,
        args: va_list,
    ),
>;
pub type OSSL_FUNC_BIO_read_ex_fn = ::core::option::Option<
    unsafe extern "C" fn(
        bio: *mut OSSL_CORE_BIO,
        data: *mut core::ffi::c_void,
        data_len: usize,
        bytes_read: *mut usize,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_BIO_write_ex_fn = ::core::option::Option<
    unsafe extern "C" fn(
        bio: *mut OSSL_CORE_BIO,
        data: *const core::ffi::c_void,
        data_len: usize,
        written: *mut usize,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_BIO_gets_fn = ::core::option::Option<
    unsafe extern "C" fn(
        bio: *mut OSSL_CORE_BIO,
        buf: *mut core::ffi::c_char,
        size: core::ffi::c_int,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_provider_teardown_fn = ::core::option::Option<unsafe extern "C" fn(provctx: *mut core::ffi::c_void)>;
pub type OSSL_FUNC_provider_gettable_params_fn =
    ::core::option::Option<unsafe extern "C" fn(provctx: *mut core::ffi::c_void) -> *const OSSL_PARAM>;
pub type OSSL_FUNC_provider_get_params_fn = ::core::option::Option<
    unsafe extern "C" fn(provctx: *mut core::ffi::c_void, params: *mut OSSL_PARAM) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_provider_query_operation_fn = ::core::option::Option<
    unsafe extern "C" fn(
        provctx: *mut core::ffi::c_void,
        operation_id: core::ffi::c_int,
        no_store: *mut core::ffi::c_int,
    ) -> *const OSSL_ALGORITHM,
>;
pub type OSSL_FUNC_provider_get_reason_strings_fn =
    ::core::option::Option<unsafe extern "C" fn(provctx: *mut core::ffi::c_void) -> *const OSSL_ITEM>;
pub type OSSL_FUNC_provider_get_capabilities_fn = ::core::option::Option<
    unsafe extern "C" fn(
        provctx: *mut core::ffi::c_void,
        capability: *const core::ffi::c_char,
        cb: OSSL_CALLBACK,
        arg: *mut core::ffi::c_void,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_rand_newctx_fn = ::core::option::Option<
    unsafe extern "C" fn(
        provctx: *mut core::ffi::c_void,
        parent: *mut core::ffi::c_void,
        parent_calls: *const OSSL_DISPATCH,
    ) -> *mut core::ffi::c_void,
>;
pub type OSSL_FUNC_rand_freectx_fn = ::core::option::Option<unsafe extern "C" fn(vctx: *mut core::ffi::c_void)>;
pub type OSSL_FUNC_rand_instantiate_fn = ::core::option::Option<
    unsafe extern "C" fn(
        vdrbg: *mut core::ffi::c_void,
        strength: core::ffi::c_uint,
        prediction_resistance: core::ffi::c_int,
        pstr: *const core::ffi::c_uchar,
        pstr_len: usize,
        params: *const OSSL_PARAM,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_rand_uninstantiate_fn =
    ::core::option::Option<unsafe extern "C" fn(vdrbg: *mut core::ffi::c_void) -> core::ffi::c_int>;
pub type OSSL_FUNC_rand_generate_fn = ::core::option::Option<
    unsafe extern "C" fn(
        vctx: *mut core::ffi::c_void,
        out: *mut core::ffi::c_uchar,
        outlen: usize,
        strength: core::ffi::c_uint,
        prediction_resistance: core::ffi::c_int,
        addin: *const core::ffi::c_uchar,
        addin_len: usize,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_rand_reseed_fn = ::core::option::Option<
    unsafe extern "C" fn(
        vctx: *mut core::ffi::c_void,
        prediction_resistance: core::ffi::c_int,
        ent: *const core::ffi::c_uchar,
        ent_len: usize,
        addin: *const core::ffi::c_uchar,
        addin_len: usize,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_rand_nonce_fn = ::core::option::Option<
    unsafe extern "C" fn(
        vctx: *mut core::ffi::c_void,
        out: *mut core::ffi::c_uchar,
        strength: core::ffi::c_uint,
        min_noncelen: usize,
        max_noncelen: usize,
    ) -> usize,
>;
pub type OSSL_FUNC_rand_enable_locking_fn =
    ::core::option::Option<unsafe extern "C" fn(vctx: *mut core::ffi::c_void) -> core::ffi::c_int>;
pub type OSSL_FUNC_rand_lock_fn =
    ::core::option::Option<unsafe extern "C" fn(vctx: *mut core::ffi::c_void) -> core::ffi::c_int>;
pub type OSSL_FUNC_rand_unlock_fn = ::core::option::Option<unsafe extern "C" fn(vctx: *mut core::ffi::c_void)>;
pub type OSSL_FUNC_rand_gettable_params_fn =
    ::core::option::Option<unsafe extern "C" fn(provctx: *mut core::ffi::c_void) -> *const OSSL_PARAM>;
pub type OSSL_FUNC_rand_gettable_ctx_params_fn = ::core::option::Option<
    unsafe extern "C" fn(vctx: *mut core::ffi::c_void, provctx: *mut core::ffi::c_void) -> *const OSSL_PARAM,
>;
pub type OSSL_FUNC_rand_settable_ctx_params_fn = ::core::option::Option<
    unsafe extern "C" fn(vctx: *mut core::ffi::c_void, provctx: *mut core::ffi::c_void) -> *const OSSL_PARAM,
>;
pub type OSSL_FUNC_rand_get_params_fn =
    ::core::option::Option<unsafe extern "C" fn(params: *mut OSSL_PARAM) -> core::ffi::c_int>;
pub type OSSL_FUNC_rand_get_ctx_params_fn = ::core::option::Option<
    unsafe extern "C" fn(vctx: *mut core::ffi::c_void, params: *mut OSSL_PARAM) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_rand_set_ctx_params_fn = ::core::option::Option<
    unsafe extern "C" fn(vctx: *mut core::ffi::c_void, params: *const OSSL_PARAM) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_rand_set_callbacks_fn = ::core::option::Option<
    unsafe extern "C" fn(
        vctx: *mut core::ffi::c_void,
        get_entropy: OSSL_INOUT_CALLBACK,
        cleanup_entropy: OSSL_CALLBACK,
        get_nonce: OSSL_INOUT_CALLBACK,
        cleanup_nonce: OSSL_CALLBACK,
        arg: *mut core::ffi::c_void,
    ),
>;
pub type OSSL_FUNC_rand_verify_zeroization_fn =
    ::core::option::Option<unsafe extern "C" fn(vctx: *mut core::ffi::c_void) -> core::ffi::c_int>;
pub type OSSL_FUNC_rand_get_seed_fn = ::core::option::Option<
    unsafe extern "C" fn(
        vctx: *mut core::ffi::c_void,
        buffer: *mut *mut core::ffi::c_uchar,
        entropy: core::ffi::c_int,
        min_len: usize,
        max_len: usize,
        prediction_resistance: core::ffi::c_int,
        adin: *const core::ffi::c_uchar,
        adin_len: usize,
    ) -> usize,
>;
pub type OSSL_FUNC_rand_clear_seed_fn = ::core::option::Option<
    unsafe extern "C" fn(vctx: *mut core::ffi::c_void, buffer: *mut core::ffi::c_uchar, b_len: usize),
>;
pub type OSSL_FUNC_keymgmt_new_fn =
    ::core::option::Option<unsafe extern "C" fn(provctx: *mut core::ffi::c_void) -> *mut core::ffi::c_void>;
pub type OSSL_FUNC_keymgmt_gen_init_fn = ::core::option::Option<
    unsafe extern "C" fn(
        provctx: *mut core::ffi::c_void,
        selection: core::ffi::c_int,
        params: *const OSSL_PARAM,
    ) -> *mut core::ffi::c_void,
>;
pub type OSSL_FUNC_keymgmt_gen_set_template_fn = ::core::option::Option<
    unsafe extern "C" fn(genctx: *mut core::ffi::c_void, templ: *mut core::ffi::c_void) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_keymgmt_gen_set_params_fn = ::core::option::Option<
    unsafe extern "C" fn(genctx: *mut core::ffi::c_void, params: *const OSSL_PARAM) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_keymgmt_gen_settable_params_fn = ::core::option::Option<
    unsafe extern "C" fn(genctx: *mut core::ffi::c_void, provctx: *mut core::ffi::c_void) -> *const OSSL_PARAM,
>;
pub type OSSL_FUNC_keymgmt_gen_fn = ::core::option::Option<
    unsafe extern "C" fn(
        genctx: *mut core::ffi::c_void,
        cb: OSSL_CALLBACK,
        cbarg: *mut core::ffi::c_void,
    ) -> *mut core::ffi::c_void,
>;
pub type OSSL_FUNC_keymgmt_gen_cleanup_fn =
    ::core::option::Option<unsafe extern "C" fn(genctx: *mut core::ffi::c_void)>;
pub type OSSL_FUNC_keymgmt_load_fn = ::core::option::Option<
    unsafe extern "C" fn(reference: *const core::ffi::c_void, reference_sz: usize) -> *mut core::ffi::c_void,
>;
pub type OSSL_FUNC_keymgmt_free_fn = ::core::option::Option<unsafe extern "C" fn(keydata: *mut core::ffi::c_void)>;
pub type OSSL_FUNC_keymgmt_get_params_fn = ::core::option::Option<
    unsafe extern "C" fn(keydata: *mut core::ffi::c_void, params: *mut OSSL_PARAM) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_keymgmt_gettable_params_fn =
    ::core::option::Option<unsafe extern "C" fn(provctx: *mut core::ffi::c_void) -> *const OSSL_PARAM>;
pub type OSSL_FUNC_keymgmt_set_params_fn = ::core::option::Option<
    unsafe extern "C" fn(keydata: *mut core::ffi::c_void, params: *const OSSL_PARAM) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_keymgmt_settable_params_fn =
    ::core::option::Option<unsafe extern "C" fn(provctx: *mut core::ffi::c_void) -> *const OSSL_PARAM>;
pub type OSSL_FUNC_keymgmt_query_operation_name_fn =
    ::core::option::Option<unsafe extern "C" fn(operation_id: core::ffi::c_int) -> *const core::ffi::c_char>;
pub type OSSL_FUNC_keymgmt_has_fn = ::core::option::Option<
    unsafe extern "C" fn(keydata: *const core::ffi::c_void, selection: core::ffi::c_int) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_keymgmt_validate_fn = ::core::option::Option<
    unsafe extern "C" fn(
        keydata: *const core::ffi::c_void,
        selection: core::ffi::c_int,
        checktype: core::ffi::c_int,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_keymgmt_match_fn = ::core::option::Option<
    unsafe extern "C" fn(
        keydata1: *const core::ffi::c_void,
        keydata2: *const core::ffi::c_void,
        selection: core::ffi::c_int,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_keymgmt_import_fn = ::core::option::Option<
    unsafe extern "C" fn(
        keydata: *mut core::ffi::c_void,
        selection: core::ffi::c_int,
        params: *const OSSL_PARAM,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_keymgmt_import_types_fn =
    ::core::option::Option<unsafe extern "C" fn(selection: core::ffi::c_int) -> *const OSSL_PARAM>;
pub type OSSL_FUNC_keymgmt_export_fn = ::core::option::Option<
    unsafe extern "C" fn(
        keydata: *mut core::ffi::c_void,
        selection: core::ffi::c_int,
        param_cb: OSSL_CALLBACK,
        cbarg: *mut core::ffi::c_void,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_keymgmt_export_types_fn =
    ::core::option::Option<unsafe extern "C" fn(selection: core::ffi::c_int) -> *const OSSL_PARAM>;
pub type OSSL_FUNC_keymgmt_dup_fn = ::core::option::Option<
    unsafe extern "C" fn(keydata_from: *const core::ffi::c_void, selection: core::ffi::c_int) -> *mut core::ffi::c_void,
>;
pub type OSSL_FUNC_keyexch_newctx_fn =
    ::core::option::Option<unsafe extern "C" fn(provctx: *mut core::ffi::c_void) -> *mut core::ffi::c_void>;
pub type OSSL_FUNC_keyexch_init_fn = ::core::option::Option<
    unsafe extern "C" fn(
        ctx: *mut core::ffi::c_void,
        provkey: *mut core::ffi::c_void,
        params: *const OSSL_PARAM,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_keyexch_derive_fn = ::core::option::Option<
    unsafe extern "C" fn(
        ctx: *mut core::ffi::c_void,
        secret: *mut core::ffi::c_uchar,
        secretlen: *mut usize,
        outlen: usize,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_keyexch_set_peer_fn = ::core::option::Option<
    unsafe extern "C" fn(ctx: *mut core::ffi::c_void, provkey: *mut core::ffi::c_void) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_keyexch_freectx_fn = ::core::option::Option<unsafe extern "C" fn(ctx: *mut core::ffi::c_void)>;
pub type OSSL_FUNC_keyexch_dupctx_fn =
    ::core::option::Option<unsafe extern "C" fn(ctx: *mut core::ffi::c_void) -> *mut core::ffi::c_void>;
pub type OSSL_FUNC_keyexch_set_ctx_params_fn = ::core::option::Option<
    unsafe extern "C" fn(ctx: *mut core::ffi::c_void, params: *const OSSL_PARAM) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_keyexch_settable_ctx_params_fn = ::core::option::Option<
    unsafe extern "C" fn(ctx: *mut core::ffi::c_void, provctx: *mut core::ffi::c_void) -> *const OSSL_PARAM,
>;
pub type OSSL_FUNC_keyexch_get_ctx_params_fn = ::core::option::Option<
    unsafe extern "C" fn(ctx: *mut core::ffi::c_void, params: *mut OSSL_PARAM) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_keyexch_gettable_ctx_params_fn = ::core::option::Option<
    unsafe extern "C" fn(ctx: *mut core::ffi::c_void, provctx: *mut core::ffi::c_void) -> *const OSSL_PARAM,
>;
pub type OSSL_FUNC_signature_newctx_fn = ::core::option::Option<
    unsafe extern "C" fn(provctx: *mut core::ffi::c_void, propq: *const core::ffi::c_char) -> *mut core::ffi::c_void,
>;
pub type OSSL_FUNC_signature_sign_init_fn = ::core::option::Option<
    unsafe extern "C" fn(
        ctx: *mut core::ffi::c_void,
        provkey: *mut core::ffi::c_void,
        params: *const OSSL_PARAM,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_signature_sign_fn = ::core::option::Option<
    unsafe extern "C" fn(
        ctx: *mut core::ffi::c_void,
        sig: *mut core::ffi::c_uchar,
        siglen: *mut usize,
        sigsize: usize,
        tbs: *const core::ffi::c_uchar,
        tbslen: usize,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_signature_verify_init_fn = ::core::option::Option<
    unsafe extern "C" fn(
        ctx: *mut core::ffi::c_void,
        provkey: *mut core::ffi::c_void,
        params: *const OSSL_PARAM,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_signature_verify_fn = ::core::option::Option<
    unsafe extern "C" fn(
        ctx: *mut core::ffi::c_void,
        sig: *const core::ffi::c_uchar,
        siglen: usize,
        tbs: *const core::ffi::c_uchar,
        tbslen: usize,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_signature_verify_recover_init_fn = ::core::option::Option<
    unsafe extern "C" fn(
        ctx: *mut core::ffi::c_void,
        provkey: *mut core::ffi::c_void,
        params: *const OSSL_PARAM,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_signature_verify_recover_fn = ::core::option::Option<
    unsafe extern "C" fn(
        ctx: *mut core::ffi::c_void,
        rout: *mut core::ffi::c_uchar,
        routlen: *mut usize,
        routsize: usize,
        sig: *const core::ffi::c_uchar,
        siglen: usize,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_signature_digest_sign_init_fn = ::core::option::Option<
    unsafe extern "C" fn(
        ctx: *mut core::ffi::c_void,
        mdname: *const core::ffi::c_char,
        provkey: *mut core::ffi::c_void,
        params: *const OSSL_PARAM,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_signature_digest_sign_update_fn = ::core::option::Option<
    unsafe extern "C" fn(
        ctx: *mut core::ffi::c_void,
        data: *const core::ffi::c_uchar,
        datalen: usize,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_signature_digest_sign_final_fn = ::core::option::Option<
    unsafe extern "C" fn(
        ctx: *mut core::ffi::c_void,
        sig: *mut core::ffi::c_uchar,
        siglen: *mut usize,
        sigsize: usize,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_signature_digest_sign_fn = ::core::option::Option<
    unsafe extern "C" fn(
        ctx: *mut core::ffi::c_void,
        sigret: *mut core::ffi::c_uchar,
        siglen: *mut usize,
        sigsize: usize,
        tbs: *const core::ffi::c_uchar,
        tbslen: usize,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_signature_digest_verify_init_fn = ::core::option::Option<
    unsafe extern "C" fn(
        ctx: *mut core::ffi::c_void,
        mdname: *const core::ffi::c_char,
        provkey: *mut core::ffi::c_void,
        params: *const OSSL_PARAM,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_signature_digest_verify_update_fn = ::core::option::Option<
    unsafe extern "C" fn(
        ctx: *mut core::ffi::c_void,
        data: *const core::ffi::c_uchar,
        datalen: usize,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_signature_digest_verify_final_fn = ::core::option::Option<
    unsafe extern "C" fn(
        ctx: *mut core::ffi::c_void,
        sig: *const core::ffi::c_uchar,
        siglen: usize,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_signature_digest_verify_fn = ::core::option::Option<
    unsafe extern "C" fn(
        ctx: *mut core::ffi::c_void,
        sig: *const core::ffi::c_uchar,
        siglen: usize,
        tbs: *const core::ffi::c_uchar,
        tbslen: usize,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_signature_freectx_fn = ::core::option::Option<unsafe extern "C" fn(ctx: *mut core::ffi::c_void)>;
pub type OSSL_FUNC_signature_dupctx_fn =
    ::core::option::Option<unsafe extern "C" fn(ctx: *mut core::ffi::c_void) -> *mut core::ffi::c_void>;
pub type OSSL_FUNC_signature_get_ctx_params_fn = ::core::option::Option<
    unsafe extern "C" fn(ctx: *mut core::ffi::c_void, params: *mut OSSL_PARAM) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_signature_gettable_ctx_params_fn = ::core::option::Option<
    unsafe extern "C" fn(ctx: *mut core::ffi::c_void, provctx: *mut core::ffi::c_void) -> *const OSSL_PARAM,
>;
pub type OSSL_FUNC_signature_set_ctx_params_fn = ::core::option::Option<
    unsafe extern "C" fn(ctx: *mut core::ffi::c_void, params: *const OSSL_PARAM) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_signature_settable_ctx_params_fn = ::core::option::Option<
    unsafe extern "C" fn(ctx: *mut core::ffi::c_void, provctx: *mut core::ffi::c_void) -> *const OSSL_PARAM,
>;
pub type OSSL_FUNC_signature_get_ctx_md_params_fn = ::core::option::Option<
    unsafe extern "C" fn(ctx: *mut core::ffi::c_void, params: *mut OSSL_PARAM) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_signature_gettable_ctx_md_params_fn =
    ::core::option::Option<unsafe extern "C" fn(ctx: *mut core::ffi::c_void) -> *const OSSL_PARAM>;
pub type OSSL_FUNC_signature_set_ctx_md_params_fn = ::core::option::Option<
    unsafe extern "C" fn(ctx: *mut core::ffi::c_void, params: *const OSSL_PARAM) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_signature_settable_ctx_md_params_fn =
    ::core::option::Option<unsafe extern "C" fn(ctx: *mut core::ffi::c_void) -> *const OSSL_PARAM>;
pub type OSSL_FUNC_asym_cipher_newctx_fn =
    ::core::option::Option<unsafe extern "C" fn(provctx: *mut core::ffi::c_void) -> *mut core::ffi::c_void>;
pub type OSSL_FUNC_asym_cipher_encrypt_init_fn = ::core::option::Option<
    unsafe extern "C" fn(
        ctx: *mut core::ffi::c_void,
        provkey: *mut core::ffi::c_void,
        params: *const OSSL_PARAM,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_asym_cipher_encrypt_fn = ::core::option::Option<
    unsafe extern "C" fn(
        ctx: *mut core::ffi::c_void,
        out: *mut core::ffi::c_uchar,
        outlen: *mut usize,
        outsize: usize,
        in_: *const core::ffi::c_uchar,
        inlen: usize,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_asym_cipher_decrypt_init_fn = ::core::option::Option<
    unsafe extern "C" fn(
        ctx: *mut core::ffi::c_void,
        provkey: *mut core::ffi::c_void,
        params: *const OSSL_PARAM,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_asym_cipher_decrypt_fn = ::core::option::Option<
    unsafe extern "C" fn(
        ctx: *mut core::ffi::c_void,
        out: *mut core::ffi::c_uchar,
        outlen: *mut usize,
        outsize: usize,
        in_: *const core::ffi::c_uchar,
        inlen: usize,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_asym_cipher_freectx_fn = ::core::option::Option<unsafe extern "C" fn(ctx: *mut core::ffi::c_void)>;
pub type OSSL_FUNC_asym_cipher_dupctx_fn =
    ::core::option::Option<unsafe extern "C" fn(ctx: *mut core::ffi::c_void) -> *mut core::ffi::c_void>;
pub type OSSL_FUNC_asym_cipher_get_ctx_params_fn = ::core::option::Option<
    unsafe extern "C" fn(ctx: *mut core::ffi::c_void, params: *mut OSSL_PARAM) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_asym_cipher_gettable_ctx_params_fn = ::core::option::Option<
    unsafe extern "C" fn(ctx: *mut core::ffi::c_void, provctx: *mut core::ffi::c_void) -> *const OSSL_PARAM,
>;
pub type OSSL_FUNC_asym_cipher_set_ctx_params_fn = ::core::option::Option<
    unsafe extern "C" fn(ctx: *mut core::ffi::c_void, params: *const OSSL_PARAM) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_asym_cipher_settable_ctx_params_fn = ::core::option::Option<
    unsafe extern "C" fn(ctx: *mut core::ffi::c_void, provctx: *mut core::ffi::c_void) -> *const OSSL_PARAM,
>;
pub type OSSL_FUNC_encoder_newctx_fn =
    ::core::option::Option<unsafe extern "C" fn(provctx: *mut core::ffi::c_void) -> *mut core::ffi::c_void>;
pub type OSSL_FUNC_encoder_freectx_fn = ::core::option::Option<unsafe extern "C" fn(ctx: *mut core::ffi::c_void)>;
pub type OSSL_FUNC_encoder_get_params_fn =
    ::core::option::Option<unsafe extern "C" fn(params: *mut OSSL_PARAM) -> core::ffi::c_int>;
pub type OSSL_FUNC_encoder_gettable_params_fn =
    ::core::option::Option<unsafe extern "C" fn(provctx: *mut core::ffi::c_void) -> *const OSSL_PARAM>;
pub type OSSL_FUNC_encoder_set_ctx_params_fn = ::core::option::Option<
    unsafe extern "C" fn(ctx: *mut core::ffi::c_void, params: *const OSSL_PARAM) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_encoder_settable_ctx_params_fn =
    ::core::option::Option<unsafe extern "C" fn(provctx: *mut core::ffi::c_void) -> *const OSSL_PARAM>;
pub type OSSL_FUNC_encoder_does_selection_fn = ::core::option::Option<
    unsafe extern "C" fn(provctx: *mut core::ffi::c_void, selection: core::ffi::c_int) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_encoder_encode_fn = ::core::option::Option<
    unsafe extern "C" fn(
        ctx: *mut core::ffi::c_void,
        out: *mut OSSL_CORE_BIO,
        obj_raw: *const core::ffi::c_void,
        obj_abstract: *const OSSL_PARAM,
        selection: core::ffi::c_int,
        cb: OSSL_PASSPHRASE_CALLBACK,
        cbarg: *mut core::ffi::c_void,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_encoder_import_object_fn = ::core::option::Option<
    unsafe extern "C" fn(
        ctx: *mut core::ffi::c_void,
        selection: core::ffi::c_int,
        params: *const OSSL_PARAM,
    ) -> *mut core::ffi::c_void,
>;
pub type OSSL_FUNC_encoder_free_object_fn = ::core::option::Option<unsafe extern "C" fn(obj: *mut core::ffi::c_void)>;
pub type OSSL_FUNC_decoder_newctx_fn =
    ::core::option::Option<unsafe extern "C" fn(provctx: *mut core::ffi::c_void) -> *mut core::ffi::c_void>;
pub type OSSL_FUNC_decoder_freectx_fn = ::core::option::Option<unsafe extern "C" fn(ctx: *mut core::ffi::c_void)>;
pub type OSSL_FUNC_decoder_get_params_fn =
    ::core::option::Option<unsafe extern "C" fn(params: *mut OSSL_PARAM) -> core::ffi::c_int>;
pub type OSSL_FUNC_decoder_gettable_params_fn =
    ::core::option::Option<unsafe extern "C" fn(provctx: *mut core::ffi::c_void) -> *const OSSL_PARAM>;
pub type OSSL_FUNC_decoder_set_ctx_params_fn = ::core::option::Option<
    unsafe extern "C" fn(ctx: *mut core::ffi::c_void, params: *const OSSL_PARAM) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_decoder_settable_ctx_params_fn =
    ::core::option::Option<unsafe extern "C" fn(provctx: *mut core::ffi::c_void) -> *const OSSL_PARAM>;
pub type OSSL_FUNC_decoder_does_selection_fn = ::core::option::Option<
    unsafe extern "C" fn(provctx: *mut core::ffi::c_void, selection: core::ffi::c_int) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_decoder_decode_fn = ::core::option::Option<
    unsafe extern "C" fn(
        ctx: *mut core::ffi::c_void,
        in_: *mut OSSL_CORE_BIO,
        selection: core::ffi::c_int,
        data_cb: OSSL_CALLBACK,
        data_cbarg: *mut core::ffi::c_void,
        pw_cb: OSSL_PASSPHRASE_CALLBACK,
        pw_cbarg: *mut core::ffi::c_void,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_decoder_export_object_fn = ::core::option::Option<
    unsafe extern "C" fn(
        ctx: *mut core::ffi::c_void,
        objref: *const core::ffi::c_void,
        objref_sz: usize,
        export_cb: OSSL_CALLBACK,
        export_cbarg: *mut core::ffi::c_void,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_store_open_fn = ::core::option::Option<
    unsafe extern "C" fn(provctx: *mut core::ffi::c_void, uri: *const core::ffi::c_char) -> *mut core::ffi::c_void,
>;
pub type OSSL_FUNC_store_attach_fn = ::core::option::Option<
    unsafe extern "C" fn(provctx: *mut core::ffi::c_void, in_: *mut OSSL_CORE_BIO) -> *mut core::ffi::c_void,
>;
pub type OSSL_FUNC_store_settable_ctx_params_fn =
    ::core::option::Option<unsafe extern "C" fn(provctx: *mut core::ffi::c_void) -> *const OSSL_PARAM>;
pub type OSSL_FUNC_store_set_ctx_params_fn = ::core::option::Option<
    unsafe extern "C" fn(loaderctx: *mut core::ffi::c_void, params: *const OSSL_PARAM) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_store_load_fn = ::core::option::Option<
    unsafe extern "C" fn(
        loaderctx: *mut core::ffi::c_void,
        object_cb: OSSL_CALLBACK,
        object_cbarg: *mut core::ffi::c_void,
        pw_cb: OSSL_PASSPHRASE_CALLBACK,
        pw_cbarg: *mut core::ffi::c_void,
    ) -> core::ffi::c_int,
>;
pub type OSSL_FUNC_store_eof_fn =
    ::core::option::Option<unsafe extern "C" fn(loaderctx: *mut core::ffi::c_void) -> core::ffi::c_int>;
pub type OSSL_FUNC_store_close_fn =
    ::core::option::Option<unsafe extern "C" fn(loaderctx: *mut core::ffi::c_void) -> core::ffi::c_int>;
pub type OSSL_FUNC_store_export_object_fn = ::core::option::Option<
    unsafe extern "C" fn(
        loaderctx: *mut core::ffi::c_void,
        objref: *const core::ffi::c_void,
        objref_sz: usize,
        export_cb: OSSL_CALLBACK,
        export_cbarg: *mut core::ffi::c_void,
    ) -> core::ffi::c_int,
>;
