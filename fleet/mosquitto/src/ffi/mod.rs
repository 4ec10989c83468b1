//! The boundary to the broker, and the only unsafe code: pointers come in here and leave as values. Panics end here.
#![allow(unsafe_code)]

pub(crate) mod abi;
pub(crate) mod broker;
mod certificate;
pub(crate) mod clock;
pub(crate) mod thread;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null;

use abi::{Callback, mosquitto_opt, mosquitto_plugin_id_t};
use broker::{Broker, ClientRef, Level};

use crate::answer::{Access, Answer, Message};
use crate::plugin::Plugin;

const _: abi::PluginVersion = mosquitto_plugin_version;
const _: abi::PluginInit = mosquitto_plugin_init;
const _: abi::PluginCleanup = mosquitto_plugin_cleanup;

/// Each event that is heard, and who hears it.
const CALLBACKS: [(c_int, Callback); 5] = [
    (abi::EVENT_BASIC_AUTH, basic_auth),
    (abi::EVENT_ACL_CHECK, acl_check),
    (abi::EVENT_MESSAGE, message),
    (abi::EVENT_TICK, tick),
    (abi::EVENT_DISCONNECT, disconnect),
];

/// Since 2.1 the broker says only this of a client that is gone whose session it keeps; older ones do not know the event.
const CALLBACK_OF_NEWER_BROKERS: (c_int, Callback) = (abi::EVENT_CLIENT_OFFLINE, disconnect);

/// What the broker keeps for us between its calls.
struct Loaded {
    identifier: *mut mosquitto_plugin_id_t,
    plugin: Plugin,
}

/// Says which version of the interface is spoken.
///
/// # Safety
///
/// `versions` are `count` numbers.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mosquitto_plugin_version(count: c_int, versions: *const c_int) -> c_int {
    let count = usize::try_from(count).unwrap_or(0);
    if versions.is_null() || count == 0 {
        return -1;
    }
    // SAFETY: by this function's contract.
    let versions = unsafe { std::slice::from_raw_parts(versions, count) };
    if versions.contains(&abi::PLUGIN_VERSION) { abi::PLUGIN_VERSION } else { -1 }
}

/// Opens the registry and asks for the events.
///
/// # Safety
///
/// As the interface says: the broker calls this once, with its options, and keeps what is written to `userdata`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mosquitto_plugin_init(
    identifier: *mut mosquitto_plugin_id_t,
    userdata: *mut *mut c_void,
    options: *mut mosquitto_opt,
    option_count: c_int,
) -> c_int {
    let begin = |broker: Broker<'_>| {
        // SAFETY: the options are as many as the broker says.
        let options = unsafe { pairs(options, option_count) };
        let plugin = match Plugin::open(&options) {
            Ok(plugin) => plugin,
            Err(why) => {
                broker.log(Level::Error, &why);
                return abi::ERR_INVAL;
            }
        };
        plugin.greet(broker);
        let loaded: *mut c_void = Box::into_raw(Box::new(Loaded { identifier, plugin })).cast();
        for (event, callback) in CALLBACKS {
            // SAFETY: the identifier is the broker's own; `loaded` lives until the callbacks are taken back.
            let code = unsafe { abi::mosquitto_callback_register(identifier, event, Some(callback), null(), loaded) };
            if code != abi::ERR_SUCCESS {
                broker.log(Level::Error, &format!("the broker does not offer event {event} (it answers {code})"));
                // SAFETY: nobody else has `loaded`, and every callback with it is taken back before it is freed.
                unsafe { unload(loaded) };
                return code;
            }
        }
        let (event, callback) = CALLBACK_OF_NEWER_BROKERS;
        // SAFETY: as for the others.
        let _ = unsafe { abi::mosquitto_callback_register(identifier, event, Some(callback), null(), loaded) };
        // SAFETY: the broker gave the place to write to.
        unsafe { *userdata = loaded };
        abi::ERR_SUCCESS
    };
    // SAFETY: the broker waits for this call.
    guard(abi::ERR_UNKNOWN, || unsafe { Broker::during_callback(begin) })
}

/// Writes what is still to be written, and closes the registry.
///
/// # Safety
///
/// `userdata` is what [`mosquitto_plugin_init`] gave, and is not used any more.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mosquitto_plugin_cleanup(
    userdata: *mut c_void,
    _options: *mut mosquitto_opt,
    _option_count: c_int,
) -> c_int {
    // SAFETY: by this function's contract.
    guard(abi::ERR_UNKNOWN, || unsafe {
        unload(userdata);
        abi::ERR_SUCCESS
    })
}

/// # Safety
///
/// `loaded` is null or comes from [`mosquitto_plugin_init`], and is not used any more.
unsafe fn unload(loaded: *mut c_void) {
    if loaded.is_null() {
        return;
    }
    // SAFETY: by this function's contract it is ours again.
    let loaded = unsafe { Box::from_raw(loaded.cast::<Loaded>()) };
    for (event, callback) in CALLBACKS.into_iter().chain([CALLBACK_OF_NEWER_BROKERS]) {
        // SAFETY: the identifier is the broker's; of what is not registered the broker only says so.
        let _ = unsafe { abi::mosquitto_callback_unregister(loaded.identifier, event, Some(callback), null()) };
    }
    // SAFETY: the broker waits for this call.
    unsafe { Broker::during_callback(|broker| loaded.plugin.close(broker)) };
}

unsafe extern "C" fn basic_auth(_event: c_int, data: *mut c_void, userdata: *mut c_void) -> c_int {
    guard(abi::ERR_AUTH, || {
        // SAFETY: for this event the broker gives this structure, its own client and our userdata, all of which stay
        // until we return; the password is null or ends with NUL.
        unsafe {
            let (Some(event), Some(loaded)) = (data.cast::<abi::mosquitto_evt_basic_auth>().as_ref(), look(userdata))
            else {
                return abi::ERR_AUTH;
            };
            let Some(client) = ClientRef::new(event.client) else { return abi::ERR_AUTH };
            let password = text(event.password).map(CStr::to_bytes);
            let answer = Broker::during_callback(|broker| loaded.plugin.authenticate(broker, client, password));
            code(answer, abi::ERR_AUTH)
        }
    })
}

unsafe extern "C" fn acl_check(_event: c_int, data: *mut c_void, userdata: *mut c_void) -> c_int {
    guard(abi::ERR_ACL_DENIED, || {
        // SAFETY: as for `basic_auth`; the topic ends with NUL.
        unsafe {
            let (Some(event), Some(loaded)) = (data.cast::<abi::mosquitto_evt_acl_check>().as_ref(), look(userdata))
            else {
                return abi::ERR_ACL_DENIED;
            };
            let access = match event.access {
                abi::ACCESS_READ => Access::Read,
                abi::ACCESS_WRITE => Access::Write { qos: event.qos, size: event.payloadlen as usize },
                abi::ACCESS_SUBSCRIBE => Access::Subscribe { qos: event.qos },
                abi::ACCESS_UNSUBSCRIBE => Access::Unsubscribe,
                _ => return abi::ERR_ACL_DENIED,
            };
            let (Some(client), Some(topic)) = (ClientRef::new(event.client), text(event.topic)) else {
                return abi::ERR_ACL_DENIED;
            };
            let answer = Broker::during_callback(|broker| loaded.plugin.check(broker, client, topic, access));
            code(answer, abi::ERR_ACL_DENIED)
        }
    })
}

unsafe extern "C" fn message(_event: c_int, data: *mut c_void, userdata: *mut c_void) -> c_int {
    guard(abi::ERR_ACL_DENIED, || {
        // SAFETY: as for `acl_check`; the payload has as many bytes as the structure says.
        unsafe {
            let (Some(event), Some(loaded)) = (data.cast::<abi::mosquitto_evt_message>().as_mut(), look(userdata))
            else {
                return abi::ERR_ACL_DENIED;
            };
            let (Some(client), Some(topic)) = (ClientRef::new(event.client), text(event.topic)) else {
                return abi::ERR_ACL_DENIED;
            };
            let payload = match event.payload.is_null() {
                true => &[][..],
                false => std::slice::from_raw_parts(event.payload.cast::<u8>(), event.payloadlen as usize),
            };
            let message = Message { topic, payload, qos: event.qos };
            let answer = Broker::during_callback(|broker| loaded.plugin.take(broker, client, &message));
            if answer == Answer::Taken {
                // What is left for the broker is an empty message on a topic that no wildcard matches, so that it has little to
                // look for and nobody to ask about. No token stays in its memory or file, and nothing is retained. The
                // broker frees the payload that is not there any more.
                // To deny the message would be cheaper, and an MQTT 3 client would not notice; but then the broker ends the
                // connection where max_queued_messages is 0.
                hide(event.topic);
                event.payload = std::ptr::null_mut();
                event.payloadlen = 0;
                event.retain = false;
            }
            code(answer, abi::ERR_ACL_DENIED)
        }
    })
}

unsafe extern "C" fn tick(_event: c_int, _data: *mut c_void, userdata: *mut c_void) -> c_int {
    guard(abi::ERR_SUCCESS, || {
        // SAFETY: our userdata, which stays until we return.
        unsafe {
            if let Some(loaded) = look(userdata) {
                Broker::during_callback(|broker| loaded.plugin.tick(broker));
            }
        }
        abi::ERR_SUCCESS
    })
}

unsafe extern "C" fn disconnect(_event: c_int, data: *mut c_void, userdata: *mut c_void) -> c_int {
    guard(abi::ERR_SUCCESS, || {
        // SAFETY: as for `basic_auth`.
        unsafe {
            if let (Some(event), Some(loaded)) = (data.cast::<abi::mosquitto_evt_disconnect>().as_ref(), look(userdata))
                && let Some(client) = ClientRef::new(event.client)
            {
                loaded.plugin.gone(client);
            }
        }
        abi::ERR_SUCCESS
    })
}

/// Makes a topic one that `#` does not match (MQTT 5, 4.7.2), in its own memory: whether the broker or the plugin frees a topic
/// that was replaced depends on the broker's version.
///
/// # Safety
///
/// `topic` ends with NUL, may be written to, and nobody reads it meanwhile.
unsafe fn hide(topic: *mut c_char) {
    let hidden = c"$".to_bytes_with_nul();
    // SAFETY: by this function's contract; a topic that is not empty has room.
    unsafe {
        if CStr::from_ptr(topic).count_bytes() >= 1 {
            std::ptr::copy_nonoverlapping(hidden.as_ptr().cast(), topic, hidden.len());
        }
    }
}

/// Runs `body`; answers `failed` where it panics.
fn guard(failed: c_int, body: impl FnOnce() -> c_int) -> c_int {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(failed)
}

/// The broker's code for an answer; `denied` is the event's own for a no.
fn code(answer: Answer, denied: c_int) -> c_int {
    match answer {
        Answer::Allowed | Answer::Taken => abi::ERR_SUCCESS,
        Answer::Denied => denied,
        Answer::DeniedQos => abi::ERR_QOS_NOT_SUPPORTED,
        Answer::Failed => abi::ERR_UNKNOWN,
        Answer::NotOurs => abi::ERR_PLUGIN_DEFER,
    }
}

/// # Safety
///
/// `userdata` is null or what [`mosquitto_plugin_init`] gave, and stays for `'a`.
unsafe fn look<'a>(userdata: *mut c_void) -> Option<&'a Loaded> {
    // SAFETY: by this function's contract. Nobody has it as mutable: the plugin locks what it changes.
    unsafe { userdata.cast::<Loaded>().as_ref() }
}

/// # Safety
///
/// `text` is null or ends with NUL, and stays for `'a`.
unsafe fn text<'a>(text: *const c_char) -> Option<&'a CStr> {
    // SAFETY: by this function's contract.
    if text.is_null() { None } else { Some(unsafe { CStr::from_ptr(text) }) }
}

/// # Safety
///
/// `options` are `count` pairs of strings that end with NUL.
unsafe fn pairs(options: *mut mosquitto_opt, count: c_int) -> Vec<(String, String)> {
    let count = usize::try_from(count).unwrap_or(0);
    if options.is_null() || count == 0 {
        return Vec::new();
    }
    // SAFETY: by this function's contract.
    let options = unsafe { std::slice::from_raw_parts(options, count) };
    let string = |pointer: *mut c_char| {
        // SAFETY: by this function's contract.
        unsafe { text(pointer) }.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
    };
    options.iter().map(|option| (string(option.key), string(option.value))).collect()
}
