//! Keys bound to PCRs: what has been booted decides whether they work.

use conformance_tests::{Device, Hold};

const DIGEST: &str = "16:sha256=0000000000000000000000000000000000000000000000000000000000000001";

#[test]
fn a_key_file_bound_to_pcrs_works_only_while_they_have_their_values() {
    for kind in [["RSA", "rsa_keygen_bits:2048"], ["EC", "group:P-256"]] {
        let device = Device::new();
        device.configure("pcrs = 'sha256:0,16'\n");
        device.new_key_file(kind, "key.pem");
        // What a key is bound to is in its file, not in the configuration.
        device.hold(Hold::ToTheEnd);
        let request = ["req", "-new", "-key", "key.pem", "-subj", "/CN=device", "-out", "device.csr"];
        let _ = device.openssl(&request).ok().silent();
        let _ = device.openssl(&["req", "-in", "device.csr", "-noout", "-verify"]).ok().says("verify OK");
        let tcti = device.tcti();
        let _ = device.run(&["tpm2_pcrextend", "-T", &tcti, DIGEST]).ok();
        let _ = device.openssl(&request).fails_with("the PCRs that this key is bound to have other values");
        let _ = device.run(&["tpm2_pcrreset", "-T", &tcti, "16"]).ok();
        let _ = device.openssl(&request).ok().silent();
    }
}
