//! Every job of the `openssl` command, with keys in a file, in a token and at a handle, however the provider is activated.

mod matrix;

use conformance_tests::{Device, Hold};
use matrix::activation::{Activation, plain_openssl};
use matrix::{ACTIVATIONS, EC, Matrix, RSA};

const NO_MORE: &str = "";

#[test]
fn keys_request_certificates() {
    let script = "
        tpm: req -new -key KEY -subj /CN=device -addext subjectAltName=DNS:device -out device.csr
        plain: req -in device.csr -noout -verify => verify OK
        keyrivet: req -in device.csr -noout -verify => verify OK
        plain: req -in device.csr -noout -pubkey -out device.pub
        same: device.pub KEY.pub
        tpm: req -new -sha384 -key KEY -subj /CN=device -out device.csr
        plain: req -in device.csr -noout -verify => verify OK";
    let rsa = "
        plain: req -in device.csr -noout -text => sha384WithRSAEncryption
        tpm: req -new -key KEY -subj /CN=x -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest -out device.csr
        plain: req -in device.csr -noout -verify -text => rsassaPss";
    let ec = "
        plain: req -in device.csr -noout -text => ecdsa-with-SHA384";
    both_kinds(|_| {}, script, rsa, ec);
}

#[test]
fn keys_certify_themselves_and_others() {
    let script = "
        tpm: req -x509 -new -key KEY -subj /CN=root -days 2 -extensions authority -out root.crt
        plain: verify -CAfile root.crt root.crt => root.crt: OK
        keyrivet: verify -CAfile root.crt root.crt => root.crt: OK
        tpm: x509 -req -in leaf.csr -CA root.crt -CAkey KEY -CAcreateserial -days 1 -out leaf.crt
        plain: verify -CAfile root.crt leaf.crt => leaf.crt: OK
        keyrivet: verify -CAfile root.crt leaf.crt => leaf.crt: OK
        tpm: x509 -x509toreq -in root.crt -signkey KEY -out root.csr
        plain: req -in root.csr -noout -verify => verify OK
        tpm: x509 -req -in root.csr -signkey KEY -days 1 -out root.crt
        plain: verify -CAfile root.crt root.crt => root.crt: OK
        tpm: x509 -new -subj /CN=other -key KEY -days 1 -out other.crt
        plain: verify -CAfile other.crt other.crt => other.crt: OK";
    both_kinds(request_of_somebody_else, script, NO_MORE, NO_MORE);
}

#[test]
fn certification_authorities_sign_revoke_and_answer_for_their_certificates() {
    let script = "
        tpm: ca -batch -config ca.cnf -cert KEY.crt -keyfile KEY -in leaf.csr -out leaf.crt
        plain: verify -CAfile KEY.crt leaf.crt => leaf.crt: OK
        plain: ocsp -issuer KEY.crt -cert leaf.crt -reqout request.der
        tpm: ocsp -index index.txt -CA KEY.crt -rsigner KEY.crt -rkey KEY -reqin request.der -respout response.der
        plain: ocsp -reqin request.der -respin response.der -issuer KEY.crt -CAfile KEY.crt => Response verify OK
        keyrivet: ocsp -reqin request.der -respin response.der -issuer KEY.crt -CAfile KEY.crt => Response verify OK
        plain: ocsp -respin response.der -noverify -resp_text => Cert Status: good
        keyrivet: ca -batch -config ca.cnf -cert KEY.crt -keyfile KEY -revoke leaf.crt
        tpm: ca -batch -config ca.cnf -cert KEY.crt -keyfile KEY -gencrl -out root.crl
        plain: crl -in root.crl -CAfile KEY.crt -noout -text => verify OK
        keyrivet: crl -in root.crl -CAfile KEY.crt -noout -text => Serial Number: 01
        tpm: ocsp -index index.txt -CA KEY.crt -rsigner KEY.crt -rkey KEY -reqin request.der -respout response.der
        plain: ocsp -respin response.der -noverify -resp_text => Cert Status: revoked";
    for kind in [RSA, EC] {
        let matrix = Matrix::new(kind, Hold::ToTheEnd);
        request_of_somebody_else(&matrix.device);
        matrix.device.write(
            "ca.cnf",
            "[ca]\ndefault_ca = here\n[here]\ndatabase = index.txt\nserial = serial\ncrlnumber = crlnumber\n\
             new_certs_dir = .\ndefault_md = sha256\ndefault_days = 1\ndefault_crl_days = 1\npolicy = any\n\
             [any]\ncommonName = supplied\n",
        );
        matrix.each(|key, activation| {
            for (name, content) in [("index.txt", ""), ("serial", "01\n"), ("crlnumber", "01\n")] {
                matrix.device.write(name, content);
            }
            matrix.script(script, key, activation);
        });
    }
}

#[test]
fn cms_messages_are_signed_and_decrypted() {
    let script = "
        tpm: cms -sign -in message -signer KEY.crt -inkey KEY -out message.cms
        plain: cms -verify -in message.cms -CAfile KEY.crt -purpose any => a message
        keyrivet: cms -verify -in message.cms -CAfile KEY.crt -purpose any => a message
        tpm: cms -sign -binary -nodetach -md sha512 -outform DER -in message -signer KEY.crt -inkey KEY -out message.cms
        plain: cms -verify -inform DER -in message.cms -CAfile KEY.crt -purpose any => a message
        tpm: cms -sign -noattr -in message -signer KEY.crt -inkey KEY -out message.cms
        plain: cms -verify -in message.cms -CAfile KEY.crt -purpose any => a message
        plain: cms -encrypt -aes-256-cbc -in message -out message.cms KEY.crt
        tpm: cms -decrypt -in message.cms -recip KEY.crt -inkey KEY => a message
        keyrivet: cms -encrypt -aes-256-cbc -in message -out message.cms KEY.crt
        tpm: cms -decrypt -in message.cms -recip KEY.crt -inkey KEY => a message";
    let rsa = "
        tpm: cms -sign -in message -signer KEY.crt -inkey KEY -keyopt rsa_padding_mode:pss -out message.cms
        plain: cms -verify -in message.cms -CAfile KEY.crt -purpose any => a message
        plain: cms -encrypt -aes128 -in message -out message.cms -recip KEY.crt -keyopt rsa_padding_mode:oaep
        tpm: cms -decrypt -in message.cms -recip KEY.crt -inkey KEY => a message
        tpm: cms -decrypt -in message.cms -inkey KEY => a message";
    both_kinds(|_| {}, script, rsa, NO_MORE);
}

#[test]
fn smime_messages_are_signed_and_decrypted() {
    let script = "
        tpm: smime -sign -in message -signer KEY.crt -inkey KEY -out message.p7
        plain: smime -verify -in message.p7 -CAfile KEY.crt -purpose any => a message
        keyrivet: smime -verify -in message.p7 -CAfile KEY.crt -purpose any => a message";
    let rsa = "
        plain: smime -encrypt -aes256 -in message -out message.p7 KEY.crt
        tpm: smime -decrypt -in message.p7 -recip KEY.crt -inkey KEY => a message
        keyrivet: smime -encrypt -aes256 -in message -out message.p7 KEY.crt
        tpm: smime -decrypt -in message.p7 -recip KEY.crt -inkey KEY => a message";
    both_kinds(|_| {}, script, rsa, NO_MORE);
}

// ts takes the key from a file only.
#[test]
fn a_time_stamping_authority_answers() {
    let script = "
        tpm: req -x509 -new -key KEY -subj /CN=tsa -extensions stamper -config tsa.cnf -out tsa.crt
        plain: ts -query -data message -sha256 -cert -out request.tsq
        tpm: ts -reply -config tsa.cnf -queryfile request.tsq -signer tsa.crt -inkey FILE -out response.tsr
        plain: ts -verify -queryfile request.tsq -in response.tsr -CAfile tsa.crt => Verification: OK
        keyrivet: ts -verify -data message -in response.tsr -CAfile tsa.crt => Verification: OK";
    for kind in [RSA, EC] {
        let matrix = Matrix::new(kind, Hold::ToTheEnd);
        matrix.device.write("message", "a message");
        matrix.device.write(
            "tsa.cnf",
            "[req]\ndistinguished_name = name\n[name]\n[stamper]\nextendedKeyUsage = critical, timeStamping\n\
             [tsa]\ndefault_tsa = here\n[here]\nserial = tsa.serial\ndefault_policy = 1.2.3.4\n\
             digests = sha256\nsigner_digest = sha256\ness_cert_id_alg = sha256\n",
        );
        matrix.each(|key, activation| {
            if let Some(file) = key.file {
                matrix.script(&script.replace("FILE", file), key, activation);
            }
        });
    }
}

#[test]
fn pkeyutl_signs_verifies_decrypts_and_derives() {
    let both = "
        tpm: pkeyutl -sign -inkey KEY -pkeyopt digest:sha256 -in digest -out signature
        plain: pkeyutl -verify -pubin -inkey KEY.pub -pkeyopt digest:sha256 -in digest -sigfile signature
        keyrivet: pkeyutl -verify -inkey KEY -pkeyopt digest:sha256 -in digest -sigfile signature
        tpm: pkeyutl -sign -rawin -digest sha384 -inkey KEY -in message -out signature
        plain: pkeyutl -verify -rawin -digest sha384 -pubin -inkey KEY.pub -in message -sigfile signature
        tpm: pkeyutl -sign -inkey KEY -in digest -out signature
        plain: pkeyutl -verify -pubin -inkey KEY.pub -in digest -sigfile signature";
    let pss = "
        tpm: pkeyutl -sign PSS -pkeyopt rsa_pss_saltlen:digest -inkey KEY -in digest -out signature
        plain: pkeyutl -verify PSS -pkeyopt rsa_pss_saltlen:32 -pubin -inkey KEY.pub -in digest -sigfile signature
        tpm: pkeyutl -sign PSS -pkeyopt rsa_pss_saltlen:20 -inkey KEY -in digest -out signature
        plain: pkeyutl -verify PSS -pkeyopt rsa_pss_saltlen:20 -pubin -inkey KEY.pub -in digest -sigfile signature
        tpm: pkeyutl -sign PSS -pkeyopt rsa_pss_saltlen:max -inkey KEY -in digest -out signature
        plain: pkeyutl -verify PSS -pkeyopt rsa_pss_saltlen:max -pubin -inkey KEY.pub -in digest -sigfile signature
        keyrivet: pkeyutl -verify PSS -pkeyopt rsa_pss_saltlen:auto -inkey KEY -in digest -sigfile signature";
    let pss = pss.replace("PSS", "-pkeyopt digest:sha256 -pkeyopt rsa_padding_mode:pss");
    let decrypt = "
        plain: pkeyutl -encrypt -pubin -inkey KEY.pub -in message -out secret
        tpm: pkeyutl -decrypt -inkey KEY -in secret => a message
        keyrivet: pkeyutl -encrypt -inkey KEY -in message -out secret
        tpm: pkeyutl -decrypt -inkey KEY -in secret => a message
        plain: pkeyutl -encrypt OAEP -pubin -inkey KEY.pub -in message -out secret
        tpm: pkeyutl -decrypt OAEP -inkey KEY -in secret => a message
        keyrivet: pkeyutl -encrypt OAEP -inkey KEY -in message -out secret
        tpm: pkeyutl -decrypt OAEP -inkey KEY -in secret => a message
        plain: pkeyutl -encrypt OAEP LABEL -pubin -inkey KEY.pub -in message -out secret
        tpm: pkeyutl -decrypt OAEP LABEL -inkey KEY -in secret => a message";
    let decrypt = decrypt
        .replace("OAEP", "-pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256")
        .replace("LABEL", "-pkeyopt rsa_oaep_label:6c6162656c -pkeyopt rsa_mgf1_md:sha1");
    let derive = "
        tpm: pkeyutl -derive -inkey KEY -peerkey peer.pub -out ours
        plain: pkeyutl -derive -inkey peer.key -peerkey KEY.pub -out theirs
        same: ours theirs
        tpm: pkeyutl -derive KDF -inkey KEY -peerkey peer.pub -out ours
        plain: pkeyutl -derive KDF -inkey peer.key -peerkey KEY.pub -out theirs
        same: ours theirs
        tpm: pkeyutl -derive -pkeyopt ecdh_cofactor_mode:1 -inkey KEY -peerkey peer.pub -out ours
        plain: pkeyutl -derive -inkey peer.key -peerkey KEY.pub -out theirs
        same: ours theirs";
    let kdf = "-pkeyopt kdf-type:X963KDF -pkeyopt kdf-digest:SHA256 -pkeyopt kdf-outlen:48";
    let prepare = |device: &Device| {
        let run = |line| plain_openssl(device, line).ok();
        let _ = run("dgst -sha256 -binary -out digest message");
        let _ = run("genpkey -algorithm EC -pkeyopt group:P-256 -out peer.key");
        let _ = run("pkey -in peer.key -pubout -out peer.pub");
    };
    both_kinds(prepare, both, &(pss + &decrypt), &derive.replace("KDF ", &format!("{kdf} ")));
}

#[test]
fn dgst_signs_and_verifies() {
    let each = "
        tpm: dgst -HASH -sign KEY -out signature message
        plain: dgst -HASH -verify KEY.pub -signature signature message => Verified OK
        keyrivet: dgst -HASH -verify KEY.pub -signature signature message => Verified OK
        keyrivet: dgst -HASH -prverify KEY -signature signature message => Verified OK";
    let pss = "
        tpm: dgst -HASH PSS -sigopt rsa_pss_saltlen:digest -sign KEY -out signature message
        plain: dgst -HASH PSS -verify KEY.pub -signature signature message => Verified OK
        tpm: dgst -HASH PSS -sign KEY -out signature message
        plain: dgst -HASH PSS -verify KEY.pub -signature signature message => Verified OK";
    let pss = pss.replace("PSS", "-sigopt rsa_padding_mode:pss");
    let with =
        |script: &str, hashes: &[&str]| hashes.iter().map(|hash| script.replace("HASH", hash)).collect::<String>();
    let hashes = ["sha256", "sha384", "sha512", "sha3-256"];
    both_kinds(|_| {}, &with(each, &hashes[..3]), &with(&pss, &hashes[..2]), &with(each, &hashes[3..]));
}

#[test]
fn keys_are_shown_and_stores_listed_without_using_a_key() {
    let script = "
        keyrivet: pkey -in KEY -pubout -out key.pub
        same: key.pub KEY.pub
        keyrivet: pkey -in KEY -noout -text => in the TPM
        keyrivet: pkey -in KEY -noout -check
        keyrivet: pkey -in KEY -noout -text_pub => Public-Key
        keyrivet: pkey -in KEY -pubout -outform DER -out key.der
        plain: pkey -pubin -inform DER -in key.der -pubout -out key.pub
        same: key.pub KEY.pub
        keyrivet: storeutl -noout KEY => Total found: 1
        keyrivet: storeutl -noout -keys KEY => 0: Pkey";
    both_kinds(|_| {}, script, NO_MORE, NO_MORE);
}

#[test]
fn keys_are_made_in_the_tpm_where_that_is_asked_for() {
    let device = Device::new();
    device.write("message", "a message");
    for activation in ACTIVATIONS {
        let by_itself = activation != Activation::DefaultFirst;
        let (ask, commands) = if by_itself { ("", 1) } else { ("-propquery provider=keyrivet", 0) };
        for make in [
            "genpkey ASK -algorithm EC -pkeyopt group:P-256 -out made.pem",
            "genpkey ASK -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out made.pem",
            "genpkey ASK -algorithm RSA -out made.pem",
            "genpkey ASK -algorithm EC -pkeyopt group:prime256v1 -outform DER -out made.pem",
            "req ASK -newkey ec -pkeyopt group:P-256 -noenc -keyout made.pem -subj /CN=x -out x.csr",
        ] {
            let created = |line: &str| {
                device.mark();
                let _ = activation.openssl(&device, line).ok();
                device.commands().iter().filter(|command| *command == "Create").count()
            };
            assert_eq!(created(&make.replace("ASK", "")), commands, "{activation:?}: {make}");
            assert_eq!(created(&make.replace("ASK", ask)), 1, "{activation:?}: {make}");
            let run = |line| activation.openssl(&device, line).ok();
            let _ = run("dgst -sha256 -sign made.pem -out signature message");
            let _ = run("pkey -in made.pem -pubout -out made.pub");
            let verify = "dgst -sha256 -verify made.pub -signature signature message";
            let _ = plain_openssl(&device, verify).ok().says("Verified OK");
            let _ = plain_openssl(&device, "pkey -in made.pem").fails();
        }
    }
}

/// Runs scripts with keys of both kinds, each followed by one for this kind only.
fn both_kinds(prepare: impl Fn(&Device), both: &str, only_rsa: &str, only_ec: &str) {
    for (kind, more) in [(RSA, only_rsa), (EC, only_ec)] {
        let matrix = Matrix::new(kind, Hold::ToTheEnd);
        matrix.device.write("message", "a message");
        prepare(&matrix.device);
        matrix.each(|key, activation| matrix.script(&format!("{both}\n{more}"), key, activation));
    }
}

/// A request for a certificate, `leaf.csr`, made without us.
fn request_of_somebody_else(device: &Device) {
    let _ = plain_openssl(device, "genpkey -algorithm EC -pkeyopt group:P-384 -out leaf.key").ok();
    let _ = plain_openssl(device, "req -new -key leaf.key -subj /CN=leaf -out leaf.csr").ok();
}
