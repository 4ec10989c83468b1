//! `keyrivet jwt`: tokens that the TPM signs, checked by PyJWT, which knows nothing of TPMs.

use conformance_tests::{Artefact, Device, Output, Token};

#[test]
fn each_algorithm_makes_a_token_that_pyjwt_takes_and_stdout_has_nothing_else() {
    let device = Device::new();
    let token = Token::new(&device, "gateway", "123456");
    for (kind, label, id) in
        [("rsa:2048", "rsa", "01"), ("EC:prime256v1", "p256", "02"), ("EC:secp384r1", "p384", "03")]
    {
        token.generate(kind, label, id);
    }
    for (label, asked, algorithm) in
        [("rsa", None, "RS256"), ("rsa", Some("ps256"), "PS256"), ("p256", None, "ES256"), ("p384", None, "ES384")]
    {
        let uri = token.uri(label);
        let public = ["pkey", "-in", &uri, "-pubout", "-out", "public.pem"];
        let _ = device.openssl(&public).ok();
        let mut words = vec!["jwt", "--key", &uri, "--aud", "my-project", "--exp", "20m", "--claim", "level:=3"];
        words.extend(asked.into_iter().flat_map(|asked| ["--alg", asked]));
        let output = device.keyrivet(&words).ok().silent();
        let text = output.stdout();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert_eq!(text.trim().split('.').count(), 3, "{text}");
        device.write("jwt", text.trim());
        let _ = verify(&device).ok().says(algorithm).says("'level': 3").says("lives 1200 s");
        device.write("jwt", text.trim().replace('.', "A."));
        let _ = verify(&device).fails();
    }
}

#[test]
fn a_key_file_a_wrapped_uri_and_a_handle_sign_too() {
    let device = Device::new();
    let token = Token::new(&device, "sensor", "");
    token.generate("EC:prime256v1", "ec", "01");
    device.new_key_file(["EC", "group:P-256"], "camera.pem");
    device.wrap_uri(&token.uri("ec"), "sensor.pem");
    // In one line each, as other tools write it.
    for file in ["camera", "sensor"] {
        let join =
            format!("sed -i ':all; N; $!b all; s/\\([^-]\\)\\n\\([^-]\\)/\\1\\2/g' {file}.pem && wc -l < {file}.pem");
        assert_eq!(device.run(&["sh", "-euc", &join]).ok().stdout().trim(), "3");
    }
    let create = ["tpm2_create", "-Q", "-C", "0x81000001", "-G", "ecc:ecdsa", "-u", "k.pub", "-r", "k.priv"];
    let _ = device.run(&create).ok();
    let load = ["tpm2_load", "-Q", "-C", "0x81000001", "-u", "k.pub", "-r", "k.priv", "-c", "k.ctx"];
    let _ = device.run(&load).ok();
    let _ = device.run(&["tpm2_evictcontrol", "-Q", "-c", "k.ctx", "0x81000002"]).ok();
    let _ = device.run(&["tpm2_readpublic", "-Q", "-c", "0x81000002", "-f", "pem", "-o", "handle.pub"]).ok();
    let _ = device.run(&["tpm2_flushcontext", "-t"]).ok();
    for (key, cost) in [("camera.pem", 3), ("sensor.pem", 3), ("handle:0x81000002", 2)] {
        match key {
            "handle:0x81000002" => device.write("public.pem", device.read("handle.pub")),
            file => drop(device.openssl(&["pkey", "-in", file, "-pubout", "-out", "public.pem"]).ok()),
        }
        device.mark();
        let output = device.keyrivet(&["jwt", "--key", key, "--aud", "my-project"]).ok().silent();
        assert_eq!(device.commands().len(), cost, "{key}: {:?}", device.commands());
        device.write("jwt", output.stdout().trim());
        let _ = verify(&device).ok().says("ES256").says("lives 3600 s");
    }
}

#[test]
fn what_is_missing_or_wrong_is_said_with_what_to_do() {
    let device = Device::new();
    let token = Token::new(&device, "gateway", "123456");
    token.generate("rsa:2048", "rsa", "01");
    token.generate("EC:secp521r1", "p521", "02");
    let _ = device.run(&["openssl", "genrsa", "-out", "soft.pem", "2048"]).ok();
    device.write("wrong.pin", "000000");
    let uri = token.uri("rsa");
    for (words, said) in [
        (vec!["--key", "pkcs11:token=gatway"], "no token matches the URI: in the store"),
        (vec!["--key", "pkcs11:token=gatway"], "there is 'gateway'"),
        (vec!["--key", "pkcs11:token=gateway;object=rsq"], "in the token there is"),
        (vec!["--key", "pkcs11:token=gateway"], "2 keys match the URI, say which one: token=gateway;object="),
        (vec!["--key", "pkcs11:token=gateway;object=rsa"], "give --pin-file FILE, or ?pin-source=file:FILE in the URI"),
        (vec!["--key", "pkcs11:token=gateway;object=rsa", "--pin-file", "wrong.pin"], "the PIN is wrong"),
        (vec!["--key", "pkcs11:token=gateway;object=rsa", "--pin-file", "absent"], "absent: No such file"),
        (vec!["--key", "pkcs11:token=gateway;object=rsa;type=cert"], "the URI's type must be private"),
        (vec!["--key", "pkcs11:tokn=gateway"], "its attribute 'tokn' is unknown"),
        (vec!["--key", "soft.pem"], "this key is not in a TPM"),
        (vec!["--key", "wrong.pin"], "there is no PEM block TSS2 PRIVATE KEY"),
        (vec!["--key", "absent.pem"], "absent.pem: No such file"),
        (vec!["--key", "handle:81"], "is not a handle like"),
        (vec!["--key", &uri, "--alg", "ES256"], "this is an RSA key: it signs RS256 or PS256, not ES256"),
        (vec!["--key", &token.uri("p521")], "this is a P-521 key, which no registry takes"),
        (vec!["--key", &uri, "--claim", "a=1", "--claim", "a=2"], "the claim a is given twice"),
        (vec!["--key", &uri, "--claim", "exp=1"], "--exp"),
        (vec!["--key", &uri, "--exp", "1w"], "not a time like 90s"),
        (vec!["--aud", "x"], "--key"),
    ] {
        let words = [&["jwt", "--aud", "my-project"], &words[..]].concat();
        let words = if words.ends_with(&["x"]) { vec!["jwt", "--aud", "x"] } else { words };
        let output = device.keyrivet(&words).fails_with(said);
        assert_eq!(output.stdout(), "", "{output}");
    }
    device.write("right.pin", "123456\n");
    let bare = ["jwt", "--aud", "my-project", "--key", "pkcs11:token=gateway;object=rsa", "--pin-file", "right.pin"];
    let _ = device.keyrivet(&bare).ok();
}

#[test]
fn a_uri_names_the_same_key_with_and_without_the_index() {
    let device = Device::new();
    let token = Token::new(&device, "gateway", "");
    token.generate("rsa:2048", "a", "0a");
    token.generate("EC:prime256v1", "b", "0b");
    let jwt = |uri: &str| device.keyrivet(&["jwt", "--aud", "x", "--key", &format!("pkcs11:token=gateway;{uri}")]);
    for indexed in [true, false] {
        if !indexed {
            let _ = device.run(&["sh", "-c", "rm store/*/index"]).ok();
        }
        let _ = jwt("object=a").ok();
        let _ = jwt("object=b;id=%0b").ok();
        for wrong in ["object=c", "object=c;id=%0a", "object=a;id=%0b", "object=a;slot-description=other"] {
            let _ = jwt(wrong).fails_with("matches the URI");
        }
    }
}

#[test]
fn a_key_or_token_that_cannot_be_read_is_named_where_none_matches() {
    let device = Device::new();
    let token = Token::new(&device, "gateway", "");
    token.generate("EC:prime256v1", "ec", "01");
    let jwt = |uri: &str| device.keyrivet(&["jwt", "--aud", "x", "--key", uri]);
    let _ = jwt("pkcs11:token=gateway;object=ec").ok();
    let _ = device.run(&["sh", "-c", "for key in store/*/*.pem; do echo damage >$key; done"]).ok();
    let _ = jwt("pkcs11:token=gateway;object=ec").fails_with("matches the URI").says(".pem is damaged");
    let _ = device.run(&["sh", "-c", "echo damage >$(echo store/*/token.toml)"]).ok();
    let _ = jwt("pkcs11:token=gateway;object=ec").fails_with("no token matches").says("token.toml is damaged");
}

#[test]
fn a_handle_takes_its_authorisation_value_from_its_uri_or_a_file() {
    let device = Device::new();
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign";
    let create = ["tpm2_createprimary", "-Q", "-C", "o", "-G", "ecc256", "-p", "its-auth", "-a", attributes];
    let _ = device.run(&[&create[..], &["-c", "key.ctx"]].concat()).ok();
    let _ = device.run(&["tpm2_evictcontrol", "-Q", "-C", "o", "-c", "key.ctx", "0x81010001"]).ok();
    let _ = device.run(&["tpm2_flushcontext", "-t"]).ok();
    device.write("auth", "its-auth\n");
    let jwt = |key: &str, more: &[&str]| device.keyrivet(&[&["jwt", "--aud", "x", "--key", key], more].concat());
    device.mark();
    for source in ["pin-source=auth".to_owned(), "pin-value=its-auth".into()] {
        let _ = jwt(&format!("handle:0x81010001?{source}"), &[]).ok();
    }
    // As many slashes as may be.
    let file = format!("/{}", device.path("auth").display());
    let _ = jwt("handle:0x81010001", &["--pin-file", &file]).ok();
    assert!(device.attacks().is_empty(), "{:?}", device.attacks());
    let _ = jwt("handle:0x81010001?pass", &[]).fails_with("the PIN of the key 0x81010001 is needed");
    let _ = jwt("handle:0x81010001?pin-source=absent", &[]).fails_with("absent: No such file");
    let refused = jwt("handle:0x81010001?parole=its-auth", &[]).fails_with("what follows the '?'");
    let _ = refused.says_nothing_of("its-auth");
    assert!(device.attacks().is_empty(), "{:?}", device.attacks());
    let _ = jwt("handle:0x81010001", &[]).fails_with("this needs a login").says("?pin-source=");
}

#[test]
fn what_cannot_be_written_is_said() {
    let device = Device::new();
    let keyrivet = Artefact::Command.path();
    let keyrivet = keyrivet.to_string_lossy();
    let to = |place: &str| device.run(&["sh", "-c", &format!("{keyrivet} man {place}")]);
    let _ = to(">/dev/full").fails_with("standard output: No space left");
    let _ = to("| true").silent();
}

#[test]
fn an_interrupt_at_the_prompt_leaves_the_terminal_as_it_was() {
    let device = Device::new();
    Token::new(&device, "gateway", "123456").generate("rsa:2048", "rsa", "01");
    let keyrivet = Artefact::Command.path();
    let script = "import os, pty, sys, termios
terminal, end = pty.openpty()
before = termios.tcgetattr(end)
pid = os.fork()
if pid == 0:
    os.setsid()
    os.close(os.open(os.ttyname(end), os.O_RDWR))
    os.dup2(end, 2)
    os.execv(sys.argv[1], [sys.argv[1], 'jwt', '--aud', 'my-project', '--key', 'pkcs11:token=gateway;object=rsa'])
seen = b''
while b'PIN of token gateway: ' not in seen:
    seen += os.read(terminal, 1000)
assert not termios.tcgetattr(end)[3] & termios.ECHO
os.write(terminal, b'123\\x03')
while b'cancelled' not in seen:
    seen += os.read(terminal, 1000)
assert termios.tcgetattr(end) == before
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))";
    let _ = device.run(&["python3", "-c", script, &keyrivet.to_string_lossy()]).fails();
}

#[test]
fn a_pin_is_asked_for_on_the_terminal_without_echo() {
    let device = Device::new();
    let token = Token::new(&device, "gateway", "123456");
    token.generate("rsa:2048", "rsa", "01");
    let keyrivet = Artefact::Command.path();
    let script = "import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], [sys.argv[1], 'jwt', '--aud', 'my-project', '--key', 'pkcs11:token=gateway;object=rsa'])
seen = b''
while b'PIN of token gateway: ' not in seen:
    seen += os.read(terminal, 1000)
os.write(terminal, b'123456\\n')
try:
    while True:
        seen += os.read(terminal, 1000)
except OSError:
    pass
print(seen.decode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))";
    let output = device.run(&["python3", "-c", script, &keyrivet.to_string_lossy()]).ok();
    let seen = output.stdout();
    assert!(!seen.contains("123456"), "{seen}");
    let token = seen.lines().rev().find(|line| !line.trim().is_empty()).expect("the token is the last line");
    assert_eq!(token.trim().split('.').count(), 3, "{seen}");
}

#[test]
fn the_manual_pages_and_completions_know_the_options() {
    let device = Device::new();
    let _ = device.keyrivet(&["--help"]).ok().says("jwt");
    let _ = device.keyrivet(&["jwt", "--help"]).ok().says("mosquitto_pub -h broker").says("pin-source");
    let _ = device.keyrivet(&["man"]).ok().says(".TH keyrivet 1");
    let _ = device.keyrivet(&["man", "jwt"]).ok().says(".TH keyrivet-jwt 1").says("pin\\-file");
    let _ = device.keyrivet(&["man", "bake"]).fails_with("there is no command 'bake'");
    for shell in ["bash", "zsh", "fish"] {
        let _ = device.keyrivet(&["completion", shell]).ok().says("pin-file");
    }
}

/// Checks the file `jwt` by the public key in `public.pem`, and prints what is in it.
fn verify(device: &Device) -> Output {
    let script = "import jwt; key = open('public.pem').read(); token = open('jwt').read()
claims = jwt.decode(token, key, algorithms=['RS256', 'PS256', 'ES256', 'ES384'], audience='my-project')
print(jwt.get_unverified_header(token), claims, 'lives', claims['exp'] - claims['iat'], 's')";
    device.run(&["python3", "-c", script])
}
