//! The plug is pulled while keys are in use, which a TPM cannot tell from an attack.

use conformance_tests::{Device, Token};

/// More than a fresh swtpm allows before it locks.
const CUTS: usize = 6;

#[test]
fn power_cuts_never_bring_an_unattended_device_closer_to_lockout() {
    let device = Device::new();
    let token = Token::new(&device, "sensor", "");
    token.generate("EC:prime256v1", "ec", "01");
    device.new_key_file(["EC", "group:P-256"], "key.pem");
    // Making the token took the SO PIN, which the TPM guards: only after an orderly stop is that forgotten.
    device.restart_tpm(true);
    for _ in 0..CUTS {
        for key in [&token.uri("ec"), "key.pem"] {
            let sign = ["dgst", "-sha256", "-sign", key, "-out", "signature", "openssl.cnf"];
            let _ = device.openssl(&sign).ok();
        }
        device.restart_tpm(false);
    }
    assert_eq!(device.lockout_counter(), "0x0");
}
