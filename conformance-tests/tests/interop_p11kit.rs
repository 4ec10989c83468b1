//! p11-kit finds the module by a module file, and with it everything that uses GnuTLS.

use std::process::Command;

use conformance_tests::{Device, Run as _, Token};

#[test]
fn a_module_file_is_enough_for_p11_kit_and_p11tool() {
    let device = Device::new();
    let token = Token::new(&device, "sensor", "");
    token.generate("EC:prime256v1", "ec", "01");
    std::fs::create_dir_all(device.path("p11/pkcs11/modules")).expect("the folder is new");
    // Other modules of this machine have things of their own to say.
    device.write("p11/pkcs11/pkcs11.conf", "user-config: only\n");
    device.write("p11/pkcs11/modules/keyrivet.module", format!("module: {}\n", device.module()));
    device.mark();
    let _ = as_user(&device, "p11-kit").arg("list-modules").run().ok().says("keyrivet:").says("token: sensor");
    let listing = as_user(&device, "p11tool").args(["--batch", "--list-all", "pkcs11:token=sensor"]).run().ok();
    let _ = listing.silent().says("object=ec").says("Type: Private key").says("CKA_NEVER_EXTRACTABLE");
    assert!(device.commands().is_empty(), "{:?}", device.commands());
}

#[test]
fn without_a_tpm_p11_kit_still_lists_and_says_nothing_on_standard_error() {
    let device = Device::new();
    let token = Token::new(&device, "sensor", "");
    token.generate("EC:prime256v1", "ec", "01");
    device.stop_tpm();
    let provider = format!("--provider={}", device.module());
    let listing = device.run(&["p11tool", &provider, "--batch", "--list-all", "pkcs11:token=sensor"]).ok();
    let _ = listing.silent().says("object=ec");
}

/// p11-kit reads no personal configuration for root: be somebody else in name.
fn as_user(device: &Device, program: &str) -> Command {
    let root = device.run(&["id", "-u"]).ok().stdout().trim() == "0";
    let mut command = if root { device.command("unshare") } else { device.command(program) };
    if root {
        command.args(["--user", "--map-user=1000", program]);
    }
    command.env("XDG_CONFIG_HOME", device.path("p11"));
    command
}
