//! Key files through the provider: every job of the `openssl` command, however the provider is activated.

mod activation;

use activation::{ALL, Activation, plain_openssl};
use conformance_tests::{Device, Token};

const RSA: [&str; 2] = ["RSA", "rsa_keygen_bits:2048"];
const EC: [&str; 2] = ["EC", "group:P-256"];
const COLD: [&str; 3] = ["Load", "Sign", "FlushContext"];

#[test]
fn keys_request_certificates_however_the_provider_is_activated() {
    each_key_and_activation(|device, activation| {
        let request = "req -new -key key.pem -subj /CN=device -addext subjectAltName=DNS:device -out device.csr";
        let _ = activation.openssl(device, request).ok().silent();
        let _ = plain_openssl(device, "req -in device.csr -noout -verify").ok().says("verify OK");
        let _ = activation.openssl(device, "req -in device.csr -noout -verify").ok().says("verify OK");
    });
}

#[test]
fn keys_certify_themselves_and_others_however_the_provider_is_activated() {
    each_key_and_activation(|device, activation| {
        let run = |line: &str| activation.openssl(device, line);
        let root = "req -x509 -new -key key.pem -subj /CN=root -days 2 -extensions authority -out root.crt";
        let _ = run(root).ok().silent();
        let _ = plain_openssl(device, "genpkey -algorithm EC -pkeyopt group:P-384 -out leaf.key").ok();
        let _ = run("req -new -key leaf.key -subj /CN=leaf -out leaf.csr").ok().silent();
        let _ = run("x509 -req -in leaf.csr -CA root.crt -CAkey key.pem -CAcreateserial -days 1 -out leaf.crt").ok();
        let _ = run("verify -CAfile root.crt leaf.crt").ok().silent();
        let _ = plain_openssl(device, "verify -CAfile root.crt leaf.crt").ok().silent();
        let _ = run("cms -sign -in leaf.csr -signer root.crt -inkey key.pem -out leaf.cms").ok();
        let _ = plain_openssl(device, "cms -verify -in leaf.cms -CAfile root.crt -purpose any -out leaf.out").ok();
    });
}

#[test]
fn a_certification_authority_in_the_tpm_signs_revokes_and_lists() {
    each_key_and_activation(|device, activation| {
        let run = |line: &str| activation.openssl(device, line);
        let root = "req -x509 -new -key key.pem -subj /CN=root -days 2 -extensions authority -out root.crt";
        let _ = run(root).ok().silent();
        device.write(
            "ca.cnf",
            "[ca]\ndefault_ca = here\n[here]\ndatabase = index.txt\nserial = serial\ncrlnumber = crlnumber\n\
             new_certs_dir = .\ncertificate = root.crt\nprivate_key = key.pem\ndefault_md = sha256\n\
             default_days = 1\ndefault_crl_days = 1\npolicy = any\n[any]\ncommonName = supplied\n",
        );
        for (name, content) in [("index.txt", ""), ("serial", "01\n"), ("crlnumber", "01\n")] {
            device.write(name, content);
        }
        let _ = plain_openssl(device, "genpkey -algorithm EC -pkeyopt group:P-256 -out leaf.key").ok();
        let _ = plain_openssl(device, "req -new -key leaf.key -subj /CN=leaf -out leaf.csr").ok();
        let _ = run("ca -batch -config ca.cnf -in leaf.csr -out leaf.crt").ok();
        let _ = plain_openssl(device, "verify -CAfile root.crt leaf.crt").ok().silent();
        let _ = run("ca -batch -config ca.cnf -revoke leaf.crt").ok();
        let _ = run("ca -batch -config ca.cnf -gencrl -out root.crl").ok();
        let crl = plain_openssl(device, "crl -in root.crl -CAfile root.crt -noout -text").ok();
        let _ = crl.says("verify OK").says("Serial Number: 01");
    });
}

#[test]
fn keys_sign_messages_and_digests_however_the_provider_is_activated() {
    each_key_and_activation(|device, activation| {
        let run = |line: &str| activation.openssl(device, line);
        for digest in ["sha256", "sha384", "sha512"] {
            let _ = run(&format!("dgst -{digest} -sign key.pem -out signature key.pem")).ok().silent();
            let verify = format!("dgst -{digest} -verify key.pub -signature signature key.pem");
            let _ = plain_openssl(device, &verify).ok().says("Verified OK");
            let _ = run(&verify).ok().says("Verified OK");
        }
        let _ = plain_openssl(device, "dgst -sha256 -binary -out digest key.pem").ok();
        let _ = run("pkeyutl -sign -inkey key.pem -pkeyopt digest:sha256 -in digest -out signature").ok().silent();
        let verify = "pkeyutl -verify -pkeyopt digest:sha256 -in digest -sigfile signature";
        let _ = plain_openssl(device, &format!("{verify} -pubin -inkey key.pub")).ok();
        // With the TPM's own key object: its public part verifies, in software.
        device.mark();
        let _ = run(&format!("{verify} -inkey key.pem")).ok();
        assert!(device.commands().is_empty());
        device.write("digest", [7; 32]);
        let _ = run(&format!("{verify} -inkey key.pem")).fails();
    });
}

#[test]
fn keys_show_their_public_part_without_the_tpm() {
    each_key_and_activation(|device, activation| {
        device.mark();
        let text = activation.openssl(device, "pkey -in key.pem -noout -text").ok().silent();
        let _ = text.says("in the TPM");
        let public = activation.openssl(device, "pkey -in key.pem -pubout").ok().silent();
        assert_eq!(public.bytes(), device.read("key.pub"));
        let _ = activation.openssl(device, "pkey -in key.pem -check -noout").ok();
        assert!(device.commands().is_empty());
    });
}

#[test]
fn the_same_works_with_the_provider_named_on_the_command_line() {
    let device = Device::new();
    for order in ["-provider keyrivet -provider default", "-provider default -provider keyrivet"] {
        let preference = "-propquery provider=keyrivet -algorithm EC -pkeyopt group:P-256";
        let _ = plain_openssl(&device, &format!("genpkey {order} {preference} -out key.pem")).ok();
        assert!(device.read("key.pem").starts_with(b"-----BEGIN TSS2 PRIVATE KEY-----\n"));
        let _ = plain_openssl(&device, &format!("req {order} -new -key key.pem -subj /CN=x -out x.csr")).ok().silent();
        let _ = plain_openssl(&device, "req -in x.csr -noout -verify").ok();
    }
}

#[test]
fn a_key_file_is_read_behind_other_text_and_among_other_pem_blocks() {
    let device = Device::new();
    device.new_key_file(EC, "key.pem");
    let _ = device.openssl(&["req", "-x509", "-new", "-key", "key.pem", "-subj", "/CN=x", "-out", "x.crt"]).ok();
    let key = device.read("key.pem");
    let certificate = device.read("x.crt");
    for parts in [[b"Some text\n\n".as_slice(), &key, &certificate], [&certificate, &key, b"\n"]] {
        device.write("both.pem", parts.concat());
        for activation in ALL {
            let request = "req -new -key both.pem -subj /CN=x -out x.csr";
            let _ = activation.openssl(&device, request).ok().silent();
            let _ = activation
                .openssl(&device, "x509 -in both.pem -noout -subject -nameopt RFC2253")
                .ok()
                .silent()
                .says("CN=x");
        }
    }
}

#[test]
fn a_key_file_in_der_works_too() {
    let device = Device::new();
    device.new_key_file(RSA, "key.pem");
    let _ = device.openssl(&["pkey", "-in", "key.pem", "-outform", "DER", "-out", "key.der"]).ok();
    for activation in ALL {
        let _ = activation.openssl(&device, "dgst -sha256 -sign key.der -out signature key.pem").ok().silent();
    }
}

#[test]
fn pss_signatures_have_a_salt_as_long_as_the_digest_and_are_labelled_so() {
    let device = Device::new();
    device.new_key_file(RSA, "key.pem");
    let _ = device.openssl(&["pkey", "-in", "key.pem", "-pubout", "-out", "key.pub"]).ok();
    for activation in ALL {
        let pss = "dgst -sha384 -sigopt rsa_padding_mode:pss";
        for length in ["digest", "auto", "48"] {
            let sign = format!("{pss} -sigopt rsa_pss_saltlen:{length} -sign key.pem -out signature key.pem");
            let _ = activation.openssl(&device, &sign).ok().silent();
            let verify = format!("{pss} -sigopt rsa_pss_saltlen:48 -verify key.pub -signature signature key.pem");
            let _ = plain_openssl(&device, &verify).ok();
        }
        let request = "req -new -key key.pem -subj /CN=x -sha256 -out x.csr -sigopt rsa_padding_mode:pss";
        let _ = activation.openssl(&device, &format!("{request} -sigopt rsa_pss_saltlen:32")).ok();
        let text = plain_openssl(&device, "req -in x.csr -noout -verify -text").ok();
        let _ = text.says("verify OK").says("rsassaPss").says("Salt Length: 0x20");
    }
}

#[test]
fn what_is_not_allowed_is_refused_and_named() {
    let device = Device::new();
    device.new_key_file(RSA, "rsa.pem");
    device.new_key_file(EC, "ec.pem");
    let openssl = |line: &str| Activation::KeyrivetFirst.openssl(&device, line);
    let _ = openssl("dgst -sha1 -sign ec.pem -out signature ec.pem").fails_with("SHA-1");
    let _ = openssl("dgst -md5 -sign rsa.pem -out signature ec.pem").fails_with("md5");
    let _ = openssl("pkeyutl -sign -inkey rsa.pem -in ec.pem -out signature").fails();
    let _ = openssl("genpkey -algorithm EC -pkeyopt group:secp256k1 -out x.pem").fails_with("P-256, P-384 and P-521");
    let _ = openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_pubexp:3 -out x.pem").fails_with("65537");
    let _ = openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1234 -out x.pem").fails();
}

#[test]
fn loading_the_provider_costs_the_tpm_nothing() {
    let device = Device::new();
    for activation in ALL {
        let _ = activation.openssl(&device, "list -providers").ok().silent().says("Keyrivet");
        let _ = activation.openssl(&device, "dgst -sha256 openssl.cnf").ok().silent();
        let _ = activation.openssl(&device, "rand -hex 8").ok().silent();
        let _ = activation.openssl(&device, "list -signature-algorithms").ok().silent();
    }
    assert!(device.commands().is_empty());
}

#[test]
fn a_request_costs_three_commands_under_the_storage_root_key() {
    let device = Device::new();
    // Making a token makes the storage root key persistent.
    let _token = Token::new(&device, "any", "");
    for kind in [RSA, EC] {
        device.new_key_file(kind, "key.pem");
        for activation in ALL {
            let cost = device.cost_of(|| {
                let _ = activation.openssl(&device, "req -new -key key.pem -subj /CN=x -out x.csr").ok().silent();
            });
            assert_eq!(cost, COLD, "{activation:?}");
        }
    }
}

#[test]
fn a_request_costs_five_commands_where_the_parent_is_made_afresh() {
    let device = Device::new();
    for kind in [RSA, EC] {
        device.new_key_file(kind, "key.pem");
        for activation in ALL {
            let cost = device.cost_of(|| {
                let _ = activation.openssl(&device, "req -new -key key.pem -subj /CN=x -out x.csr").ok().silent();
            });
            assert_eq!(cost, ["CreatePrimary", "Load", "FlushContext", "Sign", "FlushContext"], "{activation:?}");
        }
    }
}

#[test]
fn a_key_file_made_elsewhere_asks_for_its_authorisation_value() {
    let device = Device::new();
    // Making a token makes the storage root key persistent.
    let _token = Token::new(&device, "any", "");
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|sign";
    let create = ["tpm2_create", "-Q", "-C", "0x81000001", "-G", "ecc256:ecdsa-sha256:null", "-p", "secret"];
    let _ = device.run(&[&create[..], &["-a", attributes, "-u", "key.public", "-r", "key.private"]].concat()).ok();
    let _ = device.run(&["tpm2_flushcontext", "-t"]).ok();
    let hex = |file| device.read(file).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let asn1 = format!(
        "asn1 = SEQUENCE:key\n[key]\nkind = OID:2.23.133.10.1.3\nparent = INTEGER:0x81000001\n\
         public = FORMAT:HEX,OCT:{}\nprivate = FORMAT:HEX,OCT:{}\n",
        hex("key.public"),
        hex("key.private")
    );
    device.write("key.asn1", asn1);
    let _ = plain_openssl(&device, "asn1parse -genconf key.asn1 -noout -out key.der").ok();
    let base64 = plain_openssl(&device, "base64 -in key.der").ok().stdout();
    device.write("key.pem", format!("-----BEGIN TSS2 PRIVATE KEY-----\n{base64}-----END TSS2 PRIVATE KEY-----\n"));
    for activation in ALL {
        let request = "req -new -key key.pem -subj /CN=x -out x.csr -passin";
        let _ = activation.openssl(&device, &format!("{request} pass:secret")).ok().silent();
        let _ = plain_openssl(&device, "req -in x.csr -noout -verify").ok();
        let _ = activation.openssl(&device, &format!("{request} pass:wrong")).fails_with("the PIN is wrong");
    }
}

/// Runs `check` with an RSA and an EC key file, `key.pem`, and each activation; `key.pub` is its public key.
fn each_key_and_activation(check: impl Fn(&Device, Activation)) {
    for kind in [RSA, EC] {
        let device = Device::new();
        device.new_key_file(kind, "key.pem");
        let _ = device.openssl(&["pkey", "-in", "key.pem", "-pubout", "-out", "key.pub"]).ok();
        for activation in ALL {
            check(&device, activation);
        }
    }
}
