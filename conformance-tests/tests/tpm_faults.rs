//! A TPM that is busy, full, locked, silent, or not to be trusted: a wire between it and the module does the harm.

mod raw;

use std::ptr::null_mut;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use conformance_tests::{Device, Harm, Hold, Token, Wire};
use cryptoki_sys::*;
use openssl::sha::sha256;
use raw::{PIN, Raw, Rv, Wanted, call, flag, number};

/// A token with a P-256 key, behind a wire on which nothing happens yet.
fn behind(wire: fn(&Device) -> Wire, pin: &str) -> (Device, Wire, Raw) {
    behind_with(wire, pin, "EC:prime256v1")
}

/// The like with a key of this type.
fn behind_with(wire: fn(&Device) -> Wire, pin: &str, key: &str) -> (Device, Wire, Raw) {
    let device = Device::new();
    let token = Token::new(&device, "dev", pin);
    token.generate(key, "key", "01");
    let wire = wire(&device);
    device.use_tcti(wire.tcti());
    device.configure("timeout_ms = 300\n");
    let raw = Raw::load(&device);
    (device, wire, raw)
}

/// As long a time limit as users have.
fn be_patient(device: &Device) {
    let config = String::from_utf8(device.read("keyrivet.toml")).unwrap();
    device.write("keyrivet.toml", config.replace("timeout_ms = 300", "timeout_ms = 60000"));
}

struct Signer<'a> {
    raw: &'a Raw,
    session: CK_SESSION_HANDLE,
}

impl<'a> Signer<'a> {
    /// From C_Initialize to the login.
    fn start(raw: &'a Raw) -> Self {
        call!(raw, C_Initialize(null_mut())).unwrap();
        Self { raw, session: raw.open(0) }
    }

    fn login(&self, pin: &[u8]) -> Rv<()> {
        self.raw.login(self.session, CKU_USER, pin)
    }

    fn sign(&self) -> Rv<()> {
        let [public, private] = [CKO_PUBLIC_KEY, CKO_PRIVATE_KEY]
            .map(|class| self.raw.find(self.session, &[(CKA_CLASS, number(class))]).first().copied());
        let (public, private) = public.zip(private).ok_or(CKR_OBJECT_HANDLE_INVALID)?;
        self.raw.sign_init(self.session, CKM_ECDSA_SHA256, private)?;
        let signature = self.raw.sign(self.session, b"message")?;
        self.raw.verify(self.session, CKM_ECDSA_SHA256, public, b"message", &signature)
    }

    fn end(self) {
        call!(self.raw, C_Finalize(null_mut())).unwrap();
    }
}

#[test]
fn a_tpm_that_asks_for_a_command_again_gets_it_again() {
    let (_device, wire, raw) = behind(Device::wire, "1234");
    let signer = Signer::start(&raw);
    for code in [0x922, 0x908, 0x90a] {
        for command in ["StartAuthSession", "Load", "Unseal", "Sign", "FlushContext"] {
            wire.harm(command, 3, Harm::Answer(code));
        }
        signer.login(PIN).unwrap();
        signer.sign().unwrap();
        wire.heal();
        call!(raw, C_Logout(signer.session)).unwrap();
    }
    // One that asks for ever is given up some time, and left alone in between.
    signer.login(PIN).unwrap();
    wire.heal();
    wire.harm("Sign", usize::MAX, Harm::Answer(0x922));
    let start = Instant::now();
    assert_eq!(signer.sign(), Err(CKR_DEVICE_ERROR));
    let (asked, taken) = (wire.harmed(), start.elapsed());
    assert!((10..=100).contains(&asked) && taken > asked * Duration::from_millis(10), "{asked} times in {taken:?}");
    println!("a TPM that says TPM_RC_RETRY for ever was asked {asked} times in {taken:?}");
    wire.heal();
    signer.sign().unwrap();
}

#[test]
fn a_full_tpm_is_cleaned_up_and_a_locked_one_is_called_locked() {
    let (device, wire, raw) = behind(Device::wire, "1234");
    // OBJECT_MEMORY, SESSION_MEMORY, MEMORY, SESSION_HANDLES, OBJECT_HANDLES, CONTEXT_GAP.
    for code in [0x902, 0x903, 0x904, 0x905, 0x906, 0x901] {
        for command in ["StartAuthSession", "Load"] {
            let signer = Signer::start(&raw);
            wire.harm(command, 1, Harm::Answer(code));
            signer.login(PIN).unwrap_or_else(|error| panic!("{command} {code:#x}: {error:#x}"));
            signer.sign().unwrap();
            signer.end();
        }
    }
    // One that stays full is given up some time.
    let signer = Signer::start(&raw);
    wire.heal();
    wire.harm("Load", usize::MAX, Harm::Answer(0x902));
    assert_eq!(signer.login(PIN), Err(CKR_DEVICE_MEMORY));
    assert!((2..=10).contains(&wire.harmed()), "{} times", wire.harmed());
    println!("a TPM that says TPM_RC_OBJECT_MEMORY for ever was asked {} times", wire.harmed());
    wire.heal();
    wire.harm("Unseal", 1, Harm::Answer(0x921));
    assert_eq!(signer.login(PIN), Err(CKR_PIN_LOCKED));
    signer.login(PIN).unwrap();
    signer.sign().unwrap();
    assert_eq!(device.lockout_counter(), "0x0");
}

#[test]
fn a_tpm_that_stops_answering_is_not_waited_for_for_ever() {
    let (_device, wire, raw) = behind(Device::wire_as_device, "");
    let signer = Signer::start(&raw);
    for command in ["Load", "Sign", "FlushContext"] {
        wire.harm(command, 1, Harm::Silence);
        let silent = signer.sign();
        assert!(matches!(silent, Err(CKR_DEVICE_REMOVED) | Ok(())), "{command} {silent:x?}");
        signer.sign().unwrap();
    }
    wire.harm("*", usize::MAX, Harm::Silence);
    assert_eq!(signer.sign(), Err(CKR_DEVICE_REMOVED));
    signer.end();
}

/// It takes a few connections, and serves none.
#[test]
fn a_software_tpm_that_stands_still_is_not_waited_for_for_ever() {
    let device = Device::with_hold(Hold::Default);
    Token::new(&device, "dev", "1234").generate("EC:prime256v1", "key", "01");
    device.configure("timeout_ms = 500\n");
    let raw = Raw::load(&device);
    let tpm = device.tpm_process_id().to_string();
    let kill = |signal| drop(device.run(&["kill", "-s", signal, &tpm]).ok());
    let mut signer = Signer::start(&raw);
    signer.login(PIN).unwrap();
    signer.sign().unwrap();
    kill("STOP");
    for _ in 0..4 {
        assert_eq!(signer.sign(), Err(CKR_DEVICE_REMOVED));
    }
    signer.end();
    for _ in 0..4 {
        signer = Signer::start(&raw);
        assert_eq!(signer.login(PIN), Err(CKR_DEVICE_REMOVED));
        signer.end();
    }
    kill("CONT");
    signer = Signer::start(&raw);
    signer.login(PIN).unwrap();
    signer.sign().unwrap();
    signer.end();
    assert_eq!((device.lockout_counter().as_str(), device.left_at_the_tpm().as_str()), ("0x0", ""));
}

#[test]
fn a_tcti_of_libtss2_serves_as_well() {
    let device = Device::new();
    Token::new(&device, "dev", "1234").generate("EC:prime256v1", "key", "01");
    let tcti = device.tcti();
    device.use_tcti(&format!("libtss2-tcti-{}", tcti.replace("swtpm:", "swtpm.so.0:")));
    let raw = Raw::load(&device);
    let signer = Signer::start(&raw);
    signer.login(PIN).unwrap();
    signer.sign().unwrap();
    device.restart_tpm(true);
    signer.sign().unwrap();
    signer.end();
}

/// Longer than libtss2 waits for a device that it opens.
#[test]
fn a_device_opens_while_its_tpm_is_busy_with_others() {
    let (device, wire, raw) = behind(Device::wire_as_device, "");
    be_patient(&device);
    wire.harm("*", 1, Harm::Late(Duration::from_millis(1500)));
    let signer = Signer::start(&raw);
    signer.sign().unwrap();
    signer.end();
}

#[test]
fn to_open_a_device_costs_no_command() {
    let device = Device::new();
    Token::new(&device, "dev", "").generate("EC:prime256v1", "key", "01");
    device.write("data", "data");
    let sign = || {
        let ways =
            ["--token-label", "dev", "--id", "01", "--sign", "--mechanism", "ECDSA-SHA256", "-i", "data", "-o", "out"];
        let _ = device.pkcs11_tool(&ways).ok();
    };
    let by_socket = device.cost_of(sign);
    device.use_tcti(device.wire_as_device().tcti());
    assert_eq!(device.cost_of(sign), by_socket);
}

/// Every harm, at every command of a login and a signature.
#[test]
fn whatever_comes_back_from_the_tpm_costs_one_call_at_most() {
    let (device, wire, raw) = behind(Device::wire, "1234");
    let harms = [
        // FAILURE, AUTH_FAIL, nothing known, no code at all, and what is no response.
        Harm::Answer(0x101),
        Harm::Answer(0x98e),
        Harm::Answer(0xffff_ffff),
        Harm::Bytes(vec![0; 10]),
        Harm::Bytes([&[0x80, 0x02, 0, 0, 0, 100][..], &[0xff; 94]].concat()),
        Harm::Bytes([&[0x80, 0x02, 0, 0, 0, 64][..], &[0; 58]].concat()),
        Harm::Cut(9),
        Harm::Cut(14),
        Harm::Changed(0),
        Harm::Changed(40),
    ];
    for (number, harm) in harms.into_iter().enumerate() {
        // StartAuthSession, Load, Unseal, FlushContext, Load, Sign, FlushContext.
        for place in 0..7 {
            let signer = Signer::start(&raw);
            if place > 0 {
                wire.harm("*", place, Harm::None);
            }
            wire.harm("*", 1, harm.clone());
            for answer in [signer.login(PIN), signer.sign()] {
                // A panic would be a CKR_GENERAL_ERROR.
                assert!(answer != Err(CKR_GENERAL_ERROR), "{number} {place}");
            }
            wire.heal();
            let login = signer.login(PIN);
            assert!(matches!(login, Ok(()) | Err(CKR_USER_ALREADY_LOGGED_IN)), "{number} {place} {login:x?}");
            signer.sign().unwrap_or_else(|error| panic!("{number} {place} {error:#x}"));
            signer.end();
        }
        if number < 8 {
            assert_eq!(device.lockout_counter(), "0x0", "{number}");
        }
    }
    // Who changes a session's nonce on its way makes the HMACs that follow wrong, and the TPM counts those.
    assert_eq!(device.lockout_counter(), "0x1");
}

#[test]
fn a_response_that_the_tpm_did_not_authenticate_is_not_believed() {
    let (_device, wire, raw) = behind(Device::wire, "1234");
    let signer = Signer::start(&raw);
    signer.login(PIN).unwrap();
    signer.sign().unwrap();
    // The HMAC, the nonce before it, and the signature before that.
    for place in [0, 40, 90] {
        wire.harm("Sign", 1, Harm::Changed(place));
        assert_eq!(signer.sign(), Err(CKR_DEVICE_ERROR), "{place}");
        signer.sign().unwrap();
    }
}

#[test]
fn a_mac_that_takes_many_commands_is_authenticated_to_its_end() {
    let (_device, wire, raw) = behind(Device::wire, "1234");
    let signer = Signer::start(&raw);
    signer.login(PIN).unwrap();
    let template = [(CKA_VALUE_LEN, number(32)), (CKA_TOKEN, flag(true)), (CKA_SIGN, flag(true))];
    let key = raw.generate_secret(signer.session, CKM_GENERIC_SECRET_KEY_GEN, &template).unwrap();
    let mac = || {
        raw.sign_init(signer.session, CKM_SHA256_HMAC, key)?;
        raw.sign(signer.session, &[7; 3000])
    };
    let right = mac().unwrap();
    // Its HMAC, and what comes before its session: the MAC itself, of the last.
    for (command, place) in
        [("HMAC_Start", 0), ("SequenceUpdate", 0), ("SequenceComplete", 0), ("SequenceComplete", 90)]
    {
        wire.harm(command, 1, Harm::Changed(place));
        assert_eq!(mac(), Err(CKR_DEVICE_ERROR), "{command} {place}");
        assert_eq!(mac(), Ok(right.clone()), "{command} {place}");
    }
    for command in ["HMAC_Start", "SequenceUpdate", "SequenceComplete"] {
        wire.harm(command, 1, Harm::Answer(0x922));
        assert_eq!(mac(), Ok(right.clone()), "{command}");
    }
}

/// A response of a password session whose first parameter, a TPM2B, has lost its last eight bytes.
fn cut_short(response: &[u8]) -> Vec<u8> {
    const LOST: usize = 8;
    // After tag, size and code comes the length of all parameters, and then that of the first.
    let length = |place: usize| usize::from(u16::from_be_bytes([response[place], response[place + 1]]));
    let (mut cut, end) = (response.to_vec(), 16 + length(14));
    cut.drain(end - LOST..end);
    for place in [4, 12, 14] {
        cut[place..place + 2].copy_from_slice(&((length(place) - LOST) as u16).to_be_bytes());
    }
    cut
}

#[test]
fn an_output_of_another_length_than_asked_for_is_none() {
    let (_device, wire, raw) = behind(Device::wire, "");
    let signer = Signer::start(&raw);
    let make = |kind, more: [CK_ATTRIBUTE_TYPE; 2]| {
        let template = [(CKA_VALUE_LEN, number(32)), (more[0], flag(true)), (more[1], flag(true))];
        let stored = [&template[..], &[(CKA_TOKEN, flag(true))]].concat();
        raw.generate_secret(signer.session, kind, &stored).unwrap()
    };
    let aes = make(CKM_AES_KEY_GEN, [CKA_ENCRYPT, CKA_DECRYPT]);
    let secret = make(CKM_GENERIC_SECRET_KEY_GEN, [CKA_SIGN, CKA_VERIFY]);
    let encrypt = || {
        raw.begin(
            raw.list.C_EncryptInit,
            signer.session,
            &Wanted(CKM_AES_CTR, [&number(128)[..], &[7; 16]].concat()),
            aes,
        )?;
        raw.through(raw.list.C_Encrypt, signer.session, &[7; 40])
    };
    let mac = |length: usize| {
        raw.sign_init(signer.session, CKM_SHA256_HMAC, secret)?;
        raw.sign(signer.session, &vec![7; length])
    };
    let (encrypted, short, long) = (encrypt().unwrap(), mac(10).unwrap(), mac(3000).unwrap());
    for (command, again, right) in [
        ("EncryptDecrypt2", &encrypt as &dyn Fn() -> Rv<Vec<u8>>, encrypted),
        ("HMAC", &|| mac(10), short),
        ("SequenceComplete", &|| mac(3000), long),
    ] {
        // Again over a new connection: the first may have been what broke.
        wire.harm(command, 2, Harm::Through(<[u8]>::to_vec, cut_short));
        assert_eq!(again(), Err(CKR_DEVICE_REMOVED), "{command}");
        assert_eq!(wire.harmed(), 2, "{command}");
        wire.heal();
        assert_eq!(again(), Ok(right), "{command}");
    }
    signer.end();
}

/// `TPM2_RSA_Decrypt` in place of `TPM2_Sign`, on the PSS block with the longest salt: what a TPM signs that chooses it so
/// (TPM 2.0 Part 1, B.7). By a key of 2048 bits, with SHA-256 and a password session.
fn with_the_longest_salt(sign: &[u8]) -> Vec<u8> {
    let length = |place: usize| usize::from(u16::from_be_bytes([sign[place], sign[place + 1]]));
    // After tag, size, code and handle comes the authorisation, with its size, and then the digest.
    let digest = 18 + length(16);
    let authorised = &sign[10..digest];
    let digest = &sign[digest + 2..digest + 2 + length(digest)];
    let salt = [7; 222];
    let hash = sha256(&[&[0; 8], digest, &salt].concat());
    let mask = (0..7_u32).flat_map(|counter| sha256(&[&hash[..], &counter.to_be_bytes()].concat()));
    let mut block: Vec<u8> = [1].into_iter().chain(salt).zip(mask).map(|(byte, mask)| byte ^ mask).collect();
    block[0] &= 0x7f;
    block.extend_from_slice(&hash);
    block.push(0xbc);
    // The block with its size, the scheme NULL, no label.
    message(&[0x80, 2], 0x159, &[authorised, &[1, 0], &block, &[0, 0x10, 0, 0]].concat())
}

/// What comes back as `TPM2_Sign`'s response: the scheme RSAPSS and SHA-256 before the signature.
fn as_signature(decrypted: &[u8]) -> Vec<u8> {
    let [size, more] = [&decrypted[10..14], &decrypted[14..]];
    let size = u32::from_be_bytes(size.try_into().unwrap()) + 4;
    message(&[0x80, 2], 0, &[&size.to_be_bytes()[..], &[0, 0x16, 0, 0x0b], more].concat())
}

fn message(tag: &[u8], code: u32, content: &[u8]) -> Vec<u8> {
    let size = u32::try_from(10 + content.len()).unwrap();
    [tag, &size.to_be_bytes(), &code.to_be_bytes(), content].concat()
}

#[test]
fn what_the_tpm_pads_otherwise_or_lacks_the_hash_for_is_padded_by_us() {
    let (device, wire, raw) = behind_with(Device::wire, "", "rsa:2048");
    let signer = Signer::start(&raw);
    let private = raw.find(signer.session, &[(CKA_CLASS, number(CKO_PRIVATE_KEY))])[0];
    let public = raw.find(signer.session, &[(CKA_CLASS, number(CKO_PUBLIC_KEY))])[0];
    let signs = |wanted: &Wanted| {
        device.mark();
        raw.begin(raw.list.C_SignInit, signer.session, wanted, private).unwrap();
        let signature = raw.sign(signer.session, b"message").unwrap();
        raw.begin(raw.list.C_VerifyInit, signer.session, wanted, public).unwrap();
        raw.check(raw.list.C_Verify, signer.session, b"message", &signature).unwrap();
        device.commands()
    };
    let pss = |mechanism, hash, mgf, salt| Wanted::words(mechanism, &[hash, mgf, salt]);
    let sha256 = pss(CKM_SHA256_RSA_PKCS_PSS, CKM_SHA256, CKG_MGF1_SHA256, 32);
    let sha384 = pss(CKM_SHA384_RSA_PKCS_PSS, CKM_SHA384, CKG_MGF1_SHA384, 48);
    let sha512 = Wanted::words(CKM_SHA512_RSA_PKCS, &[]);
    // The first is the wire's.
    wire.harm("Sign", 1, Harm::Through(with_the_longest_salt, as_signature));
    assert_eq!(signs(&sha256), ["Load", "RSA_Decrypt", "RSA_Decrypt"]);
    assert_eq!(signs(&sha256), ["RSA_Decrypt"]);
    assert_eq!(signs(&sha384), ["Sign"]);
    // HASH, of the second parameter.
    wire.harm("Sign", 1, Harm::Answer(0x2c3));
    assert_eq!(signs(&sha512), ["RSA_Decrypt"]);
    assert_eq!(signs(&sha512), ["RSA_Decrypt"]);
    signer.end();
}

/// The host's handlers run while the TPM works.
#[test]
fn signals_disturb_no_command() {
    extern "C" fn nothing(_: libc::c_int) {}
    let (device, wire, raw) = behind(Device::wire_as_device, "");
    be_patient(&device);
    wire.slow_down(5);
    let signer = Signer::start(&raw);
    // SAFETY: the handler does nothing, and the thread that it interrupts lives until the other has ended.
    let this = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        libc::sigaction(libc::SIGUSR1, &action, null_mut());
        libc::pthread_self()
    };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                // SAFETY: as above.
                unsafe { libc::pthread_kill(this, libc::SIGUSR1) };
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        let signed: Vec<_> = (0..10).map(|_| signer.sign()).collect();
        done.store(true, Relaxed);
        assert_eq!(signed, [Ok(()); 10]);
    });
    signer.end();
}
