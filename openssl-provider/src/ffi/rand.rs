//! Random numbers of the TPM as OpenSSL calls for them (provider-rand(7)): only where somebody asks for `TPM2-RNG`.

use std::ffi::{c_int, c_uchar, c_uint, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keyrivet_core::{Error, Result};
use zeroize::Zeroizing;

use super::core_abi::*;
use super::dispatch::{Dispatch, dispatch_table};
use super::guard::{guard, quiet};
use super::params::{Answers, Descriptor, Kind, Value, descriptors};
use super::provider::provider;
use super::{give, look, take};
use crate::provider::Provider;

/// The TPM's generator.
pub(crate) const TPM: &[Dispatch] = dispatch_table! {
    OSSL_FUNC_RAND_NEWCTX: OSSL_FUNC_rand_newctx_fn = newctx;
    OSSL_FUNC_RAND_FREECTX: OSSL_FUNC_rand_freectx_fn = freectx;
    OSSL_FUNC_RAND_INSTANTIATE: OSSL_FUNC_rand_instantiate_fn = instantiate;
    OSSL_FUNC_RAND_UNINSTANTIATE: OSSL_FUNC_rand_uninstantiate_fn = uninstantiate;
    OSSL_FUNC_RAND_GENERATE: OSSL_FUNC_rand_generate_fn = generate;
    OSSL_FUNC_RAND_GET_SEED: OSSL_FUNC_rand_get_seed_fn = get_seed;
    OSSL_FUNC_RAND_CLEAR_SEED: OSSL_FUNC_rand_clear_seed_fn = clear_seed;
    OSSL_FUNC_RAND_RESEED: OSSL_FUNC_rand_reseed_fn = reseed;
    OSSL_FUNC_RAND_ENABLE_LOCKING: OSSL_FUNC_rand_enable_locking_fn = enable_locking;
    OSSL_FUNC_RAND_LOCK: OSSL_FUNC_rand_lock_fn = lock;
    OSSL_FUNC_RAND_UNLOCK: OSSL_FUNC_rand_unlock_fn = unlock;
    OSSL_FUNC_RAND_GET_CTX_PARAMS: OSSL_FUNC_rand_get_ctx_params_fn = get_ctx_params;
    OSSL_FUNC_RAND_GETTABLE_CTX_PARAMS: OSSL_FUNC_rand_gettable_ctx_params_fn = gettable_ctx_params;
};

/// `EVP_RAND_STATE_*` of evp.h.
const UNINITIALISED: u64 = 0;
const READY: u64 = 1;
/// In bits: as much as any curve of ours has.
const STRENGTH: u32 = 256;
/// The most that is asked for at once.
const LARGEST: usize = 1 << 16;

/// The TPM has the generator's state; this knows whether it may be asked.
struct Rand {
    provider: Arc<Provider>,
    ready: AtomicBool,
}

impl Rand {
    fn require(&self, strength: u32, length: usize) -> Result<()> {
        if !self.ready.load(Ordering::Acquire) || strength > STRENGTH || length > LARGEST {
            return Err(Error::Unsupported("this much, from this generator in its state".into()));
        }
        Ok(())
    }
}

unsafe extern "C" fn newctx(
    provctx: *mut c_void,
    _parent: *mut c_void,
    _parent_calls: *const OSSL_DISPATCH,
) -> *mut c_void {
    quiet(ptr::null_mut(), || {
        // SAFETY: the core's instance.
        let provider = unsafe { provider(provctx) };
        give(Rand { provider, ready: AtomicBool::new(false) })
    })
}

unsafe extern "C" fn freectx(ctx: *mut c_void) {
    // SAFETY: a context of ours, freed once.
    quiet((), || drop(unsafe { take::<Rand>(ctx) }));
}

/// # Safety
///
/// `ctx` is null or from [`newctx`].
unsafe fn set_ready(ctx: *mut c_void, ready: bool) -> c_int {
    // SAFETY: by this function's own contract.
    let rand = unsafe { look::<Rand>(ctx) };
    rand.map_or(0, |rand| {
        rand.ready.store(ready, Ordering::Release);
        1
    })
}

unsafe extern "C" fn instantiate(
    ctx: *mut c_void,
    strength: c_uint,
    _prediction_resistance: c_int,
    _personalisation: *const c_uchar,
    _length: usize,
    _params: *const OSSL_PARAM,
) -> c_int {
    if strength > STRENGTH {
        return 0;
    }
    // SAFETY: a context of ours.
    unsafe { set_ready(ctx, true) }
}

unsafe extern "C" fn uninstantiate(ctx: *mut c_void) -> c_int {
    // SAFETY: a context of ours.
    unsafe { set_ready(ctx, false) }
}

unsafe extern "C" fn generate(
    ctx: *mut c_void,
    room: *mut c_uchar,
    length: usize,
    strength: c_uint,
    _prediction_resistance: c_int,
    _additional: *const c_uchar,
    _additional_length: usize,
) -> c_int {
    // SAFETY: a context of ours.
    let Some(rand) = (unsafe { look::<Rand>(ctx) }) else { return 0 };
    guard(rand.provider.core(), 0, || {
        rand.require(strength, length)?;
        if room.is_null() || length == 0 {
            return Ok(1);
        }
        // SAFETY: the caller's room has `length` writable bytes; zeros make them initialised.
        let buffer = unsafe {
            ptr::write_bytes(room, 0, length);
            std::slice::from_raw_parts_mut(room, length)
        };
        rand.provider.keyrivet()?.tpm_random(buffer)?;
        Ok(1)
    })
}

/// Entropy for a generator whose parent this is (`seed = TPM2-RNG` in openssl.cnf). What the TPM gives is as good as it is long.
unsafe extern "C" fn get_seed(
    ctx: *mut c_void,
    place: *mut *mut c_uchar,
    entropy: c_int,
    least: usize,
    most: usize,
    _prediction_resistance: c_int,
    _additional: *const c_uchar,
    _additional_length: usize,
) -> usize {
    // SAFETY: a context of ours.
    let Some(rand) = (unsafe { look::<Rand>(ctx) }) else { return 0 };
    guard(rand.provider.core(), 0, || {
        let length = usize::try_from(entropy).unwrap_or(0).div_ceil(8).max(least);
        rand.require(STRENGTH, length)?;
        if place.is_null() || length == 0 || length > most {
            return Err(Error::Unsupported("a seed of this length".into()));
        }
        let mut seed = Zeroizing::new(vec![0; length]);
        rand.provider.keyrivet()?.tpm_random(&mut seed)?;
        let seed = Box::into_raw(std::mem::take(&mut *seed).into_boxed_slice());
        // SAFETY: the caller's place for a pointer; `clear_seed` takes the memory back.
        unsafe { place.write(seed.cast()) };
        Ok(length)
    })
}

unsafe extern "C" fn clear_seed(_ctx: *mut c_void, seed: *mut c_uchar, length: usize) {
    quiet((), || {
        if !seed.is_null() {
            // SAFETY: a seed of `get_seed`'s with its length, given back once.
            drop(Zeroizing::new(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(seed, length)) }));
        }
    });
}

/// The TPM sees to that itself.
unsafe extern "C" fn reseed(
    _ctx: *mut c_void,
    _prediction_resistance: c_int,
    _entropy: *const c_uchar,
    _entropy_length: usize,
    _additional: *const c_uchar,
    _additional_length: usize,
) -> c_int {
    1
}

/// The connection to the TPM has a lock of its own.
unsafe extern "C" fn enable_locking(_ctx: *mut c_void) -> c_int {
    1
}

unsafe extern "C" fn lock(_ctx: *mut c_void) -> c_int {
    1
}

unsafe extern "C" fn unlock(_ctx: *mut c_void) {}

unsafe extern "C" fn get_ctx_params(ctx: *mut c_void, params: *mut OSSL_PARAM) -> c_int {
    // SAFETY: a context of ours.
    let Some(rand) = (unsafe { look::<Rand>(ctx) }) else { return 0 };
    guard(rand.provider.core(), 0, || {
        let state = if rand.ready.load(Ordering::Acquire) { READY } else { UNINITIALISED };
        // SAFETY: an array of the core's for this call.
        let mut answers = unsafe { Answers::new(params) };
        answers.answer(OSSL_RAND_PARAM_STATE, Value::Number(state))?;
        answers.answer(OSSL_RAND_PARAM_STRENGTH, Value::Number(STRENGTH.into()))?;
        answers.answer(OSSL_RAND_PARAM_MAX_REQUEST, Value::Number(LARGEST as u64))?;
        Ok(1)
    })
}

unsafe extern "C" fn gettable_ctx_params(_ctx: *mut c_void, _provctx: *mut c_void) -> *const OSSL_PARAM {
    static GETTABLE: [Descriptor; 4] = [
        Descriptor::new(OSSL_RAND_PARAM_STATE, Kind::Integer),
        Descriptor::new(OSSL_RAND_PARAM_STRENGTH, Kind::Unsigned),
        Descriptor::new(OSSL_RAND_PARAM_MAX_REQUEST, Kind::Unsigned),
        Descriptor::END,
    ];
    descriptors(&GETTABLE)
}
