//! Key management as OpenSSL calls it (provider-keymgmt(7)).

use std::ffi::{c_char, c_int, c_void};
use std::ptr;

use super::callback::{Callback, take_reference};
use super::core_abi::*;
use super::dispatch::{Dispatch, dispatch_table};
use super::guard::{guard, quiet};
use super::params::{Answers, Descriptor, Kind, Params, descriptors};
use super::provider::provider;
use super::{change, give, look, take};
use crate::generation::Generation;
use crate::key::{Family, Material, ProviderKey};

/// A type of keys, for functions that are told theirs by the table they are in.
pub(super) trait KeyType {
    /// It.
    const FAMILY: Family;
}

/// RSA keys.
pub(super) struct RsaKeys;

impl KeyType for RsaKeys {
    const FAMILY: Family = Family::Rsa;
}

/// RSA-PSS keys.
pub(super) struct RsaPssKeys;

impl KeyType for RsaPssKeys {
    const FAMILY: Family = Family::RsaPss;
}

/// EC keys.
pub(super) struct EcKeys;

impl KeyType for EcKeys {
    const FAMILY: Family = Family::Ec;
}

/// Key management of RSA keys.
pub(crate) const RSA: &[Dispatch] = table::<RsaKeys>();
/// Key management of RSA-PSS keys.
pub(crate) const RSA_PSS: &[Dispatch] = table::<RsaPssKeys>();
/// Key management of EC keys.
pub(crate) const EC: &[Dispatch] = table::<EcKeys>();

const fn table<T: KeyType>() -> &'static [Dispatch] {
    const {
        dispatch_table! {
            OSSL_FUNC_KEYMGMT_NEW: OSSL_FUNC_keymgmt_new_fn = new::<T>;
            OSSL_FUNC_KEYMGMT_FREE: OSSL_FUNC_keymgmt_free_fn = free;
            OSSL_FUNC_KEYMGMT_DUP: OSSL_FUNC_keymgmt_dup_fn = dup;
            OSSL_FUNC_KEYMGMT_GEN_INIT: OSSL_FUNC_keymgmt_gen_init_fn = gen_init::<T>;
            OSSL_FUNC_KEYMGMT_GEN_SET_TEMPLATE: OSSL_FUNC_keymgmt_gen_set_template_fn = gen_set_template;
            OSSL_FUNC_KEYMGMT_GEN_SET_PARAMS: OSSL_FUNC_keymgmt_gen_set_params_fn = gen_set_params;
            OSSL_FUNC_KEYMGMT_GEN_SETTABLE_PARAMS: OSSL_FUNC_keymgmt_gen_settable_params_fn = gen_settable_params::<T>;
            OSSL_FUNC_KEYMGMT_GEN: OSSL_FUNC_keymgmt_gen_fn = generate;
            OSSL_FUNC_KEYMGMT_GEN_CLEANUP: OSSL_FUNC_keymgmt_gen_cleanup_fn = gen_cleanup;
            OSSL_FUNC_KEYMGMT_LOAD: OSSL_FUNC_keymgmt_load_fn = load::<T>;
            OSSL_FUNC_KEYMGMT_GET_PARAMS: OSSL_FUNC_keymgmt_get_params_fn = get_params;
            OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS: OSSL_FUNC_keymgmt_gettable_params_fn = gettable_params::<T>;
            OSSL_FUNC_KEYMGMT_SET_PARAMS: OSSL_FUNC_keymgmt_set_params_fn = set_params;
            OSSL_FUNC_KEYMGMT_SETTABLE_PARAMS: OSSL_FUNC_keymgmt_settable_params_fn = settable_params::<T>;
            OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME: OSSL_FUNC_keymgmt_query_operation_name_fn = query_operation_name::<T>;
            OSSL_FUNC_KEYMGMT_HAS: OSSL_FUNC_keymgmt_has_fn = has;
            OSSL_FUNC_KEYMGMT_VALIDATE: OSSL_FUNC_keymgmt_validate_fn = validate;
            OSSL_FUNC_KEYMGMT_MATCH: OSSL_FUNC_keymgmt_match_fn = matches;
            OSSL_FUNC_KEYMGMT_IMPORT: OSSL_FUNC_keymgmt_import_fn = import;
            OSSL_FUNC_KEYMGMT_IMPORT_TYPES: OSSL_FUNC_keymgmt_import_types_fn = exchanged_types::<T>;
            OSSL_FUNC_KEYMGMT_EXPORT: OSSL_FUNC_keymgmt_export_fn = export;
            OSSL_FUNC_KEYMGMT_EXPORT_TYPES: OSSL_FUNC_keymgmt_export_types_fn = exchanged_types::<T>;
        }
    }
}

unsafe extern "C" fn new<T: KeyType>(provctx: *mut c_void) -> *mut c_void {
    quiet(ptr::null_mut(), || {
        // SAFETY: the core's instance.
        let provider = unsafe { provider(provctx) };
        give(ProviderKey::new(provider, T::FAMILY, Material::Empty))
    })
}

unsafe extern "C" fn free(key: *mut c_void) {
    // SAFETY: a key of ours, freed once.
    quiet((), || drop(unsafe { take::<ProviderKey>(key) }));
}

unsafe extern "C" fn dup(key: *const c_void, selection: c_int) -> *mut c_void {
    quiet(ptr::null_mut(), || {
        // SAFETY: a key of ours.
        let key = unsafe { look::<ProviderKey>(key) };
        key.map_or(ptr::null_mut(), |key| give(key.duplicate(selection as u32)))
    })
}

unsafe extern "C" fn gen_init<T: KeyType>(
    provctx: *mut c_void,
    selection: c_int,
    params: *const OSSL_PARAM,
) -> *mut c_void {
    // SAFETY: the core's instance.
    let provider = unsafe { provider(provctx) };
    guard(provider.core(), ptr::null_mut(), || {
        let mut generation = Generation::new(provider.clone(), T::FAMILY, selection as u32);
        // SAFETY: parameters of the core's for this call.
        generation.set(&unsafe { Params::new(params) })?;
        Ok(give(generation))
    })
}

unsafe extern "C" fn gen_set_template(generation: *mut c_void, template: *mut c_void) -> c_int {
    // SAFETY: a generation and a key of ours.
    quiet(0, || match unsafe { (change::<Generation>(generation), look::<ProviderKey>(template)) } {
        (Some(generation), Some(template)) => generation.set_template(template).into(),
        _ => 0,
    })
}

unsafe extern "C" fn gen_set_params(generation: *mut c_void, params: *const OSSL_PARAM) -> c_int {
    // SAFETY: a generation of ours, which the core gives to one call at a time.
    let Some(generation) = (unsafe { change::<Generation>(generation) }) else { return 0 };
    let provider = generation.provider().clone();
    guard(provider.core(), 0, || {
        // SAFETY: parameters of the core's for this call.
        generation.set(&unsafe { Params::new(params) })?;
        Ok(1)
    })
}

unsafe extern "C" fn gen_settable_params<T: KeyType>(
    _generation: *mut c_void,
    _provctx: *mut c_void,
) -> *const OSSL_PARAM {
    descriptors(Generation::settable(T::FAMILY))
}

unsafe extern "C" fn generate(
    generation: *mut c_void,
    _progress: OSSL_CALLBACK,
    _argument: *mut c_void,
) -> *mut c_void {
    // SAFETY: a generation of ours.
    let Some(generation) = (unsafe { look::<Generation>(generation) }) else { return ptr::null_mut() };
    guard(generation.provider().core(), ptr::null_mut(), || Ok(give(generation.generate()?)))
}

unsafe extern "C" fn gen_cleanup(generation: *mut c_void) {
    // SAFETY: a generation of ours, freed once.
    quiet((), || drop(unsafe { take::<Generation>(generation) }));
}

unsafe extern "C" fn load<T: KeyType>(reference: *const c_void, size: usize) -> *mut c_void {
    quiet(ptr::null_mut(), || {
        // SAFETY: the core hands on a reference that a decoder or store of this provider made.
        match unsafe { take_reference(reference, size) } {
            Some(key) if key.family() == T::FAMILY => Box::into_raw(key).cast(),
            _ => ptr::null_mut(),
        }
    })
}

unsafe extern "C" fn get_params(key: *mut c_void, params: *mut OSSL_PARAM) -> c_int {
    // SAFETY: a key of ours.
    let Some(key) = (unsafe { look::<ProviderKey>(key) }) else { return 0 };
    guard(key.provider().core(), 0, || {
        // SAFETY: an array of the core's for this call.
        key.answer(&mut unsafe { Answers::new(params) })?;
        Ok(1)
    })
}

unsafe extern "C" fn gettable_params<T: KeyType>(_provctx: *mut c_void) -> *const OSSL_PARAM {
    descriptors(T::FAMILY.gettable())
}

unsafe extern "C" fn set_params(key: *mut c_void, params: *const OSSL_PARAM) -> c_int {
    // SAFETY: a key of ours, which the core gives to one call at a time.
    let Some(key) = (unsafe { change::<ProviderKey>(key) }) else { return 0 };
    let provider = key.provider().clone();
    guard(provider.core(), 0, || {
        // SAFETY: parameters of the core's for this call.
        key.set_point(&unsafe { Params::new(params) })?;
        Ok(1)
    })
}

unsafe extern "C" fn settable_params<T: KeyType>(_provctx: *mut c_void) -> *const OSSL_PARAM {
    static EC: [Descriptor; 2] = [Descriptor::new(OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, Kind::Octets), Descriptor::END];
    static RSA: [Descriptor; 1] = [Descriptor::END];
    match T::FAMILY {
        Family::Rsa | Family::RsaPss => descriptors(&RSA),
        Family::Ec => descriptors(&EC),
    }
}

unsafe extern "C" fn query_operation_name<T: KeyType>(operation: c_int) -> *const c_char {
    T::FAMILY.operation_name(operation as u32).as_ptr()
}

unsafe extern "C" fn has(key: *const c_void, selection: c_int) -> c_int {
    // SAFETY: a key of ours.
    quiet(0, || unsafe { look::<ProviderKey>(key) }.is_some_and(|key| key.has(selection as u32)).into())
}

/// Points are checked when they come in, and private keys by the TPM that loads them: what is there is valid.
unsafe extern "C" fn validate(key: *const c_void, selection: c_int, _how: c_int) -> c_int {
    // SAFETY: the same contract.
    unsafe { has(key, selection) }
}

unsafe extern "C" fn matches(one: *const c_void, other: *const c_void, selection: c_int) -> c_int {
    // SAFETY: keys of ours.
    quiet(0, || match unsafe { (look::<ProviderKey>(one), look::<ProviderKey>(other)) } {
        (Some(one), Some(other)) => one.matches(other, selection as u32).into(),
        _ => 0,
    })
}

unsafe extern "C" fn import(key: *mut c_void, selection: c_int, params: *const OSSL_PARAM) -> c_int {
    quiet(0, || {
        // SAFETY: a key of ours, which the core gives to one call at a time; parameters for this call.
        let (key, params) = unsafe { (change::<ProviderKey>(key), Params::new(params)) };
        // No error is raised: OpenSSL offers keys to every provider, and goes on to the next when we say no.
        key.is_some_and(|key| key.import(selection as u32, &params).unwrap_or(false)).into()
    })
}

pub(super) unsafe extern "C" fn export(
    key: *mut c_void,
    selection: c_int,
    callback: OSSL_CALLBACK,
    argument: *mut c_void,
) -> c_int {
    quiet(0, || {
        // SAFETY: a key of ours; the callback is for this call.
        let (key, callback) = unsafe { (look::<ProviderKey>(key), Callback::new(callback, argument)) };
        key.and_then(|key| key.export(selection as u32)).is_some_and(|params| callback.give(&params)).into()
    })
}

unsafe extern "C" fn exchanged_types<T: KeyType>(selection: c_int) -> *const OSSL_PARAM {
    let exchanged = OSSL_KEYMGMT_SELECT_PUBLIC_KEY | OSSL_KEYMGMT_SELECT_ALL_PARAMETERS;
    if selection as u32 & exchanged == 0 {
        return ptr::null();
    }
    descriptors(T::FAMILY.exchanged())
}
