//! Key files that others have made work as they are: those of tpm2-openssl and tpm2-tss-engine, and the URIs in PEM of
//! pkcs11-provider.

mod activation;

use activation::{ALL, plain_openssl};
use conformance_tests::{Device, Run as _, Token, der_field};

#[test]
fn key_files_of_tpm2_openssl_sign_and_decrypt() {
    let device = Device::new();
    let kinds = [
        "-algorithm EC -pkeyopt group:P-256",
        "-algorithm EC -pkeyopt group:P-384",
        "-algorithm RSA -pkeyopt bits:2048",
        "-algorithm EC -pkeyopt group:P-256 -pkeyopt user-auth:secret",
        "-algorithm RSA -pkeyopt user-auth:secret",
    ];
    for kind in kinds {
        tpm2_openssl(&device, &format!("genpkey -provider tpm2 {kind} -out key.pem"));
        signs(&device, "key.pem");
        if kind.contains("RSA") {
            decrypts(&device, "key.pem");
        }
    }
    // Making a token makes the storage root key persistent.
    let _token = Token::new(&device, "any", "");
    tpm2_openssl(&device, "genpkey -provider tpm2 -algorithm RSA -pkeyopt parent:0x81000001 -out key.pem");
    signs(&device, "key.pem");
}

#[test]
fn key_files_of_ours_sign_through_tpm2_openssl() {
    let device = Device::new();
    device.write("message", "a message");
    for parent in ["owner hierarchy", "storage root key"] {
        for kind in [["EC", "group:P-256"], ["RSA", "rsa_keygen_bits:2048"]] {
            device.new_key_file(kind, "key.pem");
            let providers = "-provider tpm2 -provider default -propquery ?provider=tpm2";
            tpm2_openssl(&device, &format!("dgst {providers} -sha256 -sign key.pem -out signature message"));
            let _ = device.openssl(&["pkey", "-in", "key.pem", "-pubout", "-out", "key.pub"]).ok();
            let verify = "dgst -sha256 -verify key.pub -signature signature message";
            let _ = plain_openssl(&device, verify).ok().says("Verified OK");
        }
        if parent == "owner hierarchy" {
            let _ = Token::new(&device, "any", "");
        }
    }
}

// Made as `tpm2tss-genkey` makes them, which is in no Debian: TRUE is 1, not 255; the parent is the owner hierarchy's P-256
// key, in old files by the number 0, or a persistent key, from a 32-bit machine as a negative number.
#[test]
fn key_files_of_tpm2_tss_engine_sign() {
    let device = Device::new();
    let run = |line: &str| drop(device.run(&line.split_whitespace().collect::<Vec<_>>()).ok());
    let storage = "restricted|decrypt|fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda";
    run(&format!("tpm2_createprimary -Q -C o -G ecc256:aes128cfb -a {storage} -c primary.ctx"));
    run("tpm2_evictcontrol -Q -C o -c primary.ctx 0x81000001");
    run("tpm2_flushcontext -t");
    let usage = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign|decrypt";
    for (kind, authorisation) in [("ecc256", ""), ("rsa2048", ""), ("ecc384", "-p secret")] {
        let create = format!("tpm2_create -Q -C 0x81000001 -G {kind} -a {usage} {authorisation}");
        run(&format!("{create} -u key.public -r key.private"));
        let empty = if authorisation.is_empty() { [1, 1, 1] } else { [1, 1, 0] };
        for parent in [&[2, 4, 0x40, 0, 0, 1][..], &[2, 1, 0], &[2, 5, 0, 0x81, 0, 0, 1], &[2, 4, 0x81, 0, 0, 1]] {
            let fields = [
                // 2.23.133.10.1.3
                vec![6, 6, 0x67, 0x81, 5, 10, 1, 3],
                der_field(0xa0, &empty),
                parent.to_vec(),
                der_field(4, &device.read("key.public")),
                der_field(4, &device.read("key.private")),
            ];
            device.write("key.der", der_field(0x30, &fields.concat()));
            let base64 = plain_openssl(&device, "base64 -in key.der").ok().stdout();
            let pem = format!("-----BEGIN TSS2 PRIVATE KEY-----\n{base64}-----END TSS2 PRIVATE KEY-----\n");
            device.write("key.pem", pem);
            signs(&device, "key.pem");
        }
    }
}

// With every attribute that its own tools put into them.
#[test]
fn files_of_pkcs11_provider_sign() {
    let device = Device::new();
    let token = Token::new(&device, "gateway", "123456");
    token.generate("EC:prime256v1", "ec", "01");
    token.generate("rsa:2048", "rsa", "02");
    let listed = device.command("p11tool").args(["--provider", &device.module(), "--list-token-urls"]).run().ok();
    let listed = listed.stdout();
    let url = listed.lines().find(|line| line.contains("token=gateway")).expect("p11tool lists the token");
    assert!(["model=", "manufacturer=", "serial="].iter().all(|attribute| url.contains(attribute)), "{url}");
    device.write("pin", "123456");
    for (id, label) in [("%01", "ec"), ("%02", "rsa")] {
        let key = format!("{url};id={id};object={label};type=private");
        for uri in [format!("{key}?pin-value=123456"), format!("{key}?pin-source=file:pin")] {
            device.wrap_uri(&uri, "key.pem");
            signs(&device, "key.pem");
        }
    }
}

/// Requests a certificate with the key, however the provider is activated; what it asks for is `secret`.
fn signs(device: &Device, key: &str) {
    for activation in ALL {
        let request = format!("req -new -key {key} -subj /CN=x -passin pass:secret -out x.csr");
        let _ = activation.openssl(device, &request).ok().silent();
        let _ = plain_openssl(device, "req -in x.csr -noout -verify").ok().says("verify OK");
    }
}

fn decrypts(device: &Device, key: &str) {
    device.write("message", "a message");
    for activation in ALL {
        let run = |line: &str| activation.openssl(device, line).ok();
        let _ = run(&format!("pkey -in {key} -passin pass:secret -pubout -out key.pub"));
        let _ = plain_openssl(device, "pkeyutl -encrypt -pubin -inkey key.pub -in message -out secret").ok();
        let _ = run(&format!("pkeyutl -decrypt -inkey {key} -passin pass:secret -in secret")).says("a message");
    }
}

/// `openssl` with tpm2-openssl.
fn tpm2_openssl(device: &Device, line: &str) {
    let mut command = device.command("openssl");
    command.env("TPM2OPENSSL_TCTI", device.tcti()).args(line.split_whitespace());
    let _ = command.run().ok();
}
