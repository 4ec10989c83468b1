//! The plugin's copy of mosquitto's interface says what the installed headers say: a C compiler compares them.

use std::mem::{offset_of, size_of};

use conformance_tests::{Device, Run as _};

#[path = "../../fleet/mosquitto/src/ffi/abi.rs"]
#[allow(unsafe_code)]
mod abi;

/// A structure's size and its fields' places, as C's static assertions.
macro_rules! layout {
    ($text:expr, $kind:ident: $($field:ident),*) => {
        let name = stringify!($kind);
        $text.push_str(&format!("SAME(sizeof(struct {name}), {});\n", size_of::<abi::$kind>()));
        $($text.push_str(&format!(
            "SAME(offsetof(struct {name}, {}), {});\n", stringify!($field), offset_of!(abi::$kind, $field)
        ));)*
    };
}

#[test]
fn the_copy_of_the_plugin_interface_is_what_the_installed_headers_say() {
    let mut text = String::from(HEAD);
    layout!(text, mosquitto_opt: key, value);
    layout!(text, mosquitto_evt_acl_check: future, client, topic, payload, properties, access, payloadlen, qos, retain);
    layout!(text, mosquitto_evt_basic_auth: future, client, username, password);
    layout!(
        text,
        mosquitto_evt_message: future, client, topic, payload, properties, reason_string, payloadlen, qos, reason_code,
        retain
    );
    layout!(text, mosquitto_evt_disconnect: future, client, reason);
    for (name, value) in [
        ("MOSQ_PLUGIN_VERSION", abi::PLUGIN_VERSION),
        ("MOSQ_EVT_ACL_CHECK", abi::EVENT_ACL_CHECK),
        ("MOSQ_EVT_BASIC_AUTH", abi::EVENT_BASIC_AUTH),
        ("MOSQ_EVT_MESSAGE", abi::EVENT_MESSAGE),
        ("MOSQ_EVT_TICK", abi::EVENT_TICK),
        ("MOSQ_EVT_DISCONNECT", abi::EVENT_DISCONNECT),
        ("MOSQ_ACL_READ", abi::ACCESS_READ),
        ("MOSQ_ACL_WRITE", abi::ACCESS_WRITE),
        ("MOSQ_ACL_SUBSCRIBE", abi::ACCESS_SUBSCRIBE),
        ("MOSQ_ACL_UNSUBSCRIBE", abi::ACCESS_UNSUBSCRIBE),
        ("MOSQ_ERR_SUCCESS", abi::ERR_SUCCESS),
        ("MOSQ_ERR_INVAL", abi::ERR_INVAL),
        ("MOSQ_ERR_AUTH", abi::ERR_AUTH),
        ("MOSQ_ERR_ACL_DENIED", abi::ERR_ACL_DENIED),
        ("MOSQ_ERR_UNKNOWN", abi::ERR_UNKNOWN),
        ("MOSQ_ERR_PLUGIN_DEFER", abi::ERR_PLUGIN_DEFER),
        ("MOSQ_ERR_QOS_NOT_SUPPORTED", abi::ERR_QOS_NOT_SUPPORTED),
        ("MOSQ_LOG_NOTICE", abi::LOG_NOTICE),
        ("MOSQ_LOG_ERR", abi::LOG_ERR),
    ] {
        text.push_str(&format!("SAME({name}, {value});\n"));
    }
    let device = Device::new();
    let compile = |text: &str| {
        device.write("abi.c", text);
        device.command("cc").args(["-Wall", "-Werror", "-fsyntax-only", "abi.c"]).run()
    };
    let _ = compile(&text).ok();
    // The comparison notices a difference.
    let _ = compile(&text.replace("SAME(MOSQ_ERR_AUTH, 11)", "SAME(MOSQ_ERR_AUTH, 12)")).fails_with("MOSQ_ERR_AUTH");
}

/// The functions by their types as `abi.rs` has them, pointers to what is only passed on as they are in C.
const HEAD: &str = "\
#include <stddef.h>
#include <stdint.h>
#include <mosquitto.h>
#include <mosquitto_broker.h>
#include <mosquitto_plugin.h>
#define SAME(c, rust) _Static_assert((c) == (rust), #c)
typedef int (*callback)(int, void *, void *);
int (*const callback_register)(mosquitto_plugin_id_t *, int, callback, const void *, void *) = mosquitto_callback_register;
int (*const callback_unregister)(mosquitto_plugin_id_t *, int, callback, const void *) = mosquitto_callback_unregister;
void (*const log_printf)(int, const char *, ...) = mosquitto_log_printf;
const char *(*const client_id)(const struct mosquitto *) = mosquitto_client_id;
bool (*const client_clean_session)(const struct mosquitto *) = mosquitto_client_clean_session;
void *(*const client_certificate)(const struct mosquitto *) = mosquitto_client_certificate;
int (*const kick_client_by_clientid)(const char *, bool) = mosquitto_kick_client_by_clientid;
int (*const broker_publish_copy)(const char *, const char *, int, const void *, int, bool, mosquitto_property *) =
    mosquitto_broker_publish_copy;
int (*const plugin_version)(int, const int *) = mosquitto_plugin_version;
int (*const plugin_init)(mosquitto_plugin_id_t *, void **, struct mosquitto_opt *, int) = mosquitto_plugin_init;
int (*const plugin_cleanup)(void *, struct mosquitto_opt *, int) = mosquitto_plugin_cleanup;
";
