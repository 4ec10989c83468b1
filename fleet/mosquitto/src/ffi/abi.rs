//! The part of mosquitto's plugin interface (version 5) that is used here, written by hand after `mosquitto_broker.h`
//! and `mosquitto_plugin.h`.
//!
//! `conformance-tests/tests/mosquitto_abi.rs` has a C compiler compare it to the installed headers.
#![allow(missing_docs, non_camel_case_types, unreachable_pub, dead_code)]

use std::ffi::{c_char, c_int, c_void};

pub const PLUGIN_VERSION: c_int = 5;

pub const EVENT_ACL_CHECK: c_int = 2;
pub const EVENT_BASIC_AUTH: c_int = 3;
pub const EVENT_MESSAGE: c_int = 7;
pub const EVENT_TICK: c_int = 9;
pub const EVENT_DISCONNECT: c_int = 10;
/// Its structure is that of `EVENT_DISCONNECT`.
pub const EVENT_CLIENT_OFFLINE: c_int = 28;

pub const ACCESS_READ: c_int = 1;
pub const ACCESS_WRITE: c_int = 2;
pub const ACCESS_SUBSCRIBE: c_int = 4;
pub const ACCESS_UNSUBSCRIBE: c_int = 8;

pub const ERR_SUCCESS: c_int = 0;
pub const ERR_INVAL: c_int = 3;
pub const ERR_AUTH: c_int = 11;
pub const ERR_ACL_DENIED: c_int = 12;
pub const ERR_UNKNOWN: c_int = 13;
pub const ERR_PLUGIN_DEFER: c_int = 17;
pub const ERR_QOS_NOT_SUPPORTED: c_int = 24;

pub const LOG_NOTICE: c_int = 2;
pub const LOG_ERR: c_int = 8;

/// A client; only the broker knows what is in it.
#[repr(C)]
pub struct mosquitto {
    private: [u8; 0],
}

/// A plugin's identity; only the broker knows what is in it.
#[repr(C)]
pub struct mosquitto_plugin_id_t {
    private: [u8; 0],
}

/// A list of MQTT 5 properties; only the broker knows what is in it.
#[repr(C)]
pub struct mosquitto_property {
    private: [u8; 0],
}

#[repr(C)]
pub struct mosquitto_opt {
    pub key: *mut c_char,
    pub value: *mut c_char,
}

#[repr(C)]
pub struct mosquitto_evt_acl_check {
    pub future: *mut c_void,
    pub client: *mut mosquitto,
    pub topic: *const c_char,
    pub payload: *const c_void,
    pub properties: *mut mosquitto_property,
    pub access: c_int,
    pub payloadlen: u32,
    pub qos: u8,
    pub retain: bool,
    pub future2: [*mut c_void; 4],
}

#[repr(C)]
pub struct mosquitto_evt_basic_auth {
    pub future: *mut c_void,
    pub client: *mut mosquitto,
    pub username: *mut c_char,
    pub password: *mut c_char,
    pub future2: [*mut c_void; 4],
}

#[repr(C)]
pub struct mosquitto_evt_message {
    pub future: *mut c_void,
    pub client: *mut mosquitto,
    pub topic: *mut c_char,
    pub payload: *mut c_void,
    pub properties: *mut mosquitto_property,
    pub reason_string: *mut c_char,
    pub payloadlen: u32,
    pub qos: u8,
    pub reason_code: u8,
    pub retain: bool,
    pub future2: [*mut c_void; 4],
}

#[repr(C)]
pub struct mosquitto_evt_disconnect {
    pub future: *mut c_void,
    pub client: *mut mosquitto,
    pub reason: c_int,
    pub future2: [*mut c_void; 4],
}

pub type Callback = unsafe extern "C" fn(c_int, *mut c_void, *mut c_void) -> c_int;

// What a plugin exports: the definitions are checked against these types.
pub type PluginVersion = unsafe extern "C" fn(c_int, *const c_int) -> c_int;
pub type PluginInit =
    unsafe extern "C" fn(*mut mosquitto_plugin_id_t, *mut *mut c_void, *mut mosquitto_opt, c_int) -> c_int;
pub type PluginCleanup = unsafe extern "C" fn(*mut c_void, *mut mosquitto_opt, c_int) -> c_int;

unsafe extern "C" {
    pub fn mosquitto_callback_register(
        identifier: *mut mosquitto_plugin_id_t,
        event: c_int,
        cb_func: Option<Callback>,
        event_data: *const c_void,
        userdata: *mut c_void,
    ) -> c_int;
    pub fn mosquitto_callback_unregister(
        identifier: *mut mosquitto_plugin_id_t,
        event: c_int,
        cb_func: Option<Callback>,
        event_data: *const c_void,
    ) -> c_int;
    pub fn mosquitto_log_printf(level: c_int, fmt: *const c_char, ...);
    pub fn mosquitto_client_id(client: *const mosquitto) -> *const c_char;
    pub fn mosquitto_client_clean_session(client: *const mosquitto) -> bool;
    pub fn mosquitto_client_certificate(client: *const mosquitto) -> *mut c_void;
    pub fn mosquitto_kick_client_by_clientid(clientid: *const c_char, with_will: bool) -> c_int;
    pub fn mosquitto_broker_publish_copy(
        clientid: *const c_char,
        topic: *const c_char,
        payloadlen: c_int,
        payload: *const c_void,
        qos: c_int,
        retain: bool,
        properties: *mut mosquitto_property,
    ) -> c_int;
}
