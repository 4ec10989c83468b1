//! The fixture itself: what the other tests take for granted.

use conformance_tests::{Device, Pki};

#[test]
fn a_new_device_has_a_tpm_that_answers_and_commands_are_told_by_name() {
    let device = Device::new();
    let _ = device.run(&["tpm2_getrandom", "8", "--hex"]).ok();
    assert_eq!(device.commands().last().map(String::as_str), Some("GetRandom"));
    device.mark();
    assert!(device.commands().is_empty());
}

#[test]
fn two_devices_have_two_tpms_and_a_swapped_tpm_is_another_one() {
    let (one, other) = (Device::new(), Device::new());
    let primary = |device: &Device| {
        device.run(&["tpm2_createprimary", "-Q", "-g", "sha256", "-o", "p.pem", "-f", "pem", "-c", "p.ctx"]).ok()
    };
    let public = |device: &Device| {
        let _ = primary(device);
        let _ = device.run(&["tpm2_flushcontext", "-t"]).ok();
        device.read("p.pem")
    };
    let first = public(&one);
    assert_ne!(first, public(&other));
    one.stop_tpm();
    let _ = one.run(&["tpm2_getrandom", "8"]).fails();
    one.start_tpm();
    assert_eq!(first, public(&one));
    one.swap_tpm();
    assert_ne!(first, public(&one));
}

#[test]
fn stopping_a_device_in_good_order_says_so_to_its_tpm() {
    let device = Device::new();
    device.stop_tpm();
    assert_eq!(device.commands(), ["Shutdown"]);
}

#[test]
fn the_certification_authorities_sign_a_server() {
    let device = Device::new();
    let pki = Pki::new(&device);
    pki.issue_server("server");
    let text = device.run(&["openssl", "x509", "-in", "server.crt", "-noout", "-text"]).ok();
    let _ = text.says("DNS:localhost").says("CA:FALSE").says("TLS Web Server Authentication");
}
