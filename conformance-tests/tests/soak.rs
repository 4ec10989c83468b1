//! A soak: everything at once for a minute, or for as long as one likes, and nothing has grown.
//!
//!     KEYRIVET_SOAK_SECONDS=3600 cargo nextest run -p conformance-tests --test soak --run-ignored only --no-capture

mod forks;
mod raw;

use std::collections::BTreeSet;
use std::fmt;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::ptr::null_mut;
use std::thread::sleep;
use std::time::{Duration, Instant};

use conformance_tests::{Device, Hold, Token};
use cryptoki_sys::*;
use forks::{Child, Way, child};
use openssl::encrypt::{Decrypter, Encrypter};
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::provider::Provider;
use openssl::sign::{Signer, Verifier};
use raw::{PIN, Raw, Wanted, call, flag, number};
use rustix::process::{Signal, set_parent_process_death_signal};

/// By how much a process may be larger at the end than it was warm: what malloc keeps for later.
const SLACK_KIB: u64 = 3 * 1024;

fn duration() -> Duration {
    let wanted =
        std::env::var("KEYRIVET_SOAK_SECONDS").ok().map(|seconds| seconds.parse().expect("a number of seconds"));
    Duration::from_secs(wanted.unwrap_or(60))
}

#[test]
#[ignore = "as long as KEYRIVET_SOAK_SECONDS says"]
fn nothing_grows_while_everything_is_used() {
    let device = Device::with_hold(Hold::Default);
    for (label, pin) in [("locked", "1234"), ("open", "")] {
        let token = Token::new(&device, label, pin);
        token.generate("EC:prime256v1", "ec", "01");
        token.generate("rsa:2048", "rsa", "02");
        device.wrap_uri(&token.uri("ec"), &format!("{label}-ec.pem"));
        device.wrap_uri(&token.uri("rsa"), &format!("{label}-rsa.pem"));
    }
    device.new_key_file(["EC", "group:P-256"], "file.pem");
    // Its log would fill the disk.
    device.silence_tpm();
    device.enter();
    std::env::set_current_dir(device.folder()).unwrap();
    let workers = [
        Worker::start("module, token with PIN", || module(&device, 0, PIN)),
        Worker::start("module, token without", || module(&device, 1, b"")),
        Worker::start("provider", provider),
    ];
    let (start, whole) = (Instant::now(), duration());
    let mut tools = 0;
    let mut use_tools_until = |end: Duration| {
        while start.elapsed() < end {
            at_a_walk(|| tool(&device, tools));
            tools += 1;
        }
        tools
    };
    use_tools_until((whole / 5).min(Duration::from_secs(300)));
    let warm = Figures::take(&device, &workers);
    println!("warm, after {} s:\n{warm}", start.elapsed().as_secs());
    workers.iter().for_each(Worker::go_on);
    let tools = use_tools_until(whole);
    let end = Figures::take(&device, &workers);
    println!("at the end, after {} s and {tools} runs of tools:\n{end}", start.elapsed().as_secs());
    workers.into_iter().for_each(Worker::end);
    end.assert_no_more_than(&warm);
}

/// Does it, and rests for longer than that took: a soak is long, not hard.
fn at_a_walk(work: impl FnOnce()) {
    let start = Instant::now();
    work();
    sleep(start.elapsed() * 4);
}

/// A process that does things round by round.
struct Worker {
    name: &'static str,
    wire: UnixStream,
    process: Child,
}

impl Worker {
    /// `work` makes, in the process, what does a round, which leaves no session open and nothing begun.
    fn start<R: FnMut(u64)>(name: &'static str, work: impl FnOnce() -> R) -> Self {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let process = child(Way::Exit, || {
            set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
            let mut round = work();
            for number in 0_u64.. {
                forks::have_another_minute();
                at_a_walk(|| round(number));
                theirs.set_nonblocking(true).unwrap();
                match theirs.read(&mut [0]) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    told => assert_eq!(told.unwrap(), 1),
                }
                theirs.set_nonblocking(false).unwrap();
                let told = [u64::from(std::process::id()), number + 1].map(u64::to_ne_bytes).concat();
                theirs.write_all(&told).unwrap();
                let mut end = [0];
                theirs.read_exact(&mut end).unwrap();
                if end == [1] {
                    break;
                }
            }
        });
        Self { name, wire: ours, process }
    }

    /// Has it rest; its process, and how many rounds it has done.
    fn rest(&self) -> (u64, u64) {
        (&self.wire).write_all(&[0]).unwrap();
        let mut told = [[0; 8]; 2];
        told.iter_mut().for_each(|part| (&self.wire).read_exact(part).expect("it goes on"));
        let [process, rounds] = told.map(u64::from_ne_bytes);
        (process, rounds)
    }

    fn go_on(&self) {
        (&self.wire).write_all(&[0]).unwrap();
    }

    fn end(self) {
        (&self.wire).write_all(&[1]).unwrap();
        self.process.join();
    }
}

/// Rounds of the module on one token.
fn module(device: &Device, slot: CK_SLOT_ID, pin: &'static [u8]) -> impl FnMut(u64) + use<> {
    let raw = Raw::initialised(device);
    move |round| {
        if round % 50 == 49 {
            call!(raw, C_Finalize(null_mut())).unwrap();
            call!(raw, C_Initialize(null_mut())).unwrap();
        }
        let session = raw.open(slot);
        if !pin.is_empty() {
            raw.login(session, CKU_USER, pin).unwrap();
        }
        sign(&raw, session, CKM_ECDSA, "ec");
        match round % 10 {
            0 | 5 => sign(&raw, session, CKM_RSA_PKCS, "rsa"),
            1 => new_pair(&raw, session, round % 20 == 1),
            2 => data_object(&raw, session, round, !pin.is_empty()),
            3 => cipher(&raw, session),
            4 => std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        let own = raw.open(slot);
                        (0..3).for_each(|_| sign(&raw, own, CKM_ECDSA, "ec"));
                        call!(raw, C_CloseSession(own)).unwrap();
                    });
                }
            }),
            6 => child([Way::Exit, Way::Kill][round as usize / 10 % 2], || {
                call!(raw, C_Initialize(null_mut())).unwrap();
                let own = raw.open(slot);
                if !pin.is_empty() {
                    raw.login(own, CKU_USER, pin).unwrap();
                }
                sign(&raw, own, CKM_ECDSA, "ec");
            })
            .join(),
            // An operation that is begun and left.
            7 => raw.sign_init(session, CKM_ECDSA, key(&raw, session, CKO_PRIVATE_KEY, "ec")).unwrap(),
            8 => assert_eq!(raw.get(session, 0x7fff_ffff, CKA_LABEL), Err(CKR_OBJECT_HANDLE_INVALID)),
            _ => (0..10).for_each(|_| sign(&raw, session, CKM_ECDSA, "ec")),
        }
        if !pin.is_empty() {
            call!(raw, C_Logout(session)).unwrap();
        }
        call!(raw, C_CloseSession(session)).unwrap();
    }
}

fn key(raw: &Raw, session: CK_SESSION_HANDLE, class: CK_OBJECT_CLASS, label: &str) -> CK_OBJECT_HANDLE {
    let found = raw.find(session, &[(CKA_CLASS, number(class)), (CKA_LABEL, label.into())]);
    assert_eq!(found.len(), 1, "{label}");
    found[0]
}

fn sign(raw: &Raw, session: CK_SESSION_HANDLE, kind: CK_MECHANISM_TYPE, label: &str) {
    let (private, public) = (key(raw, session, CKO_PRIVATE_KEY, label), key(raw, session, CKO_PUBLIC_KEY, label));
    raw.sign_init(session, kind, private).unwrap();
    let signature = raw.sign(session, &[7; 32]).unwrap();
    raw.verify(session, kind, public, &[7; 32], &signature).unwrap();
}

fn new_pair(raw: &Raw, session: CK_SESSION_HANDLE, stored: bool) {
    let (public, private) = raw.generate_ec(session, stored);
    raw.sign_init(session, CKM_ECDSA, private).unwrap();
    let signature = raw.sign(session, &[7; 32]).unwrap();
    raw.verify(session, CKM_ECDSA, public, &[7; 32], &signature).unwrap();
    call!(raw, C_DestroyObject(session, private)).unwrap();
    call!(raw, C_DestroyObject(session, public)).unwrap();
}

fn data_object(raw: &Raw, session: CK_SESSION_HANDLE, round: u64, private: bool) {
    let label = format!("data {round}").into_bytes();
    let own =
        [(CKA_CLASS, number(CKO_DATA)), (CKA_TOKEN, flag(true)), (CKA_LABEL, label), (CKA_PRIVATE, flag(private))];
    let object = raw.create(session, &[&own[..], &[(CKA_VALUE, vec![9; 2000])]].concat()).unwrap();
    assert_eq!(raw.find(session, &own), [object]);
    assert_eq!(raw.get(session, object, CKA_VALUE).unwrap(), vec![9; 2000]);
    call!(raw, C_DestroyObject(session, object)).unwrap();
}

fn cipher(raw: &Raw, session: CK_SESSION_HANDLE) {
    let template = [(CKA_VALUE_LEN, number(16)), (CKA_ENCRYPT, flag(true)), (CKA_DECRYPT, flag(true))];
    let key = raw.generate_secret(session, CKM_AES_KEY_GEN, &template).unwrap();
    let wanted = Wanted(CKM_AES_CBC_PAD, vec![3; 16]);
    raw.begin(raw.list.C_EncryptInit, session, &wanted, key).unwrap();
    let encrypted = raw.through(raw.list.C_Encrypt, session, &[5; 5000]).unwrap();
    raw.begin(raw.list.C_DecryptInit, session, &wanted, key).unwrap();
    assert_eq!(raw.through(raw.list.C_Decrypt, session, &encrypted).unwrap(), [5; 5000]);
}

/// Rounds of the provider, on both tokens and a key file.
fn provider() -> impl FnMut(u64) {
    const KEYS: [&str; 5] = ["locked-ec.pem", "open-ec.pem", "file.pem", "locked-rsa.pem", "open-rsa.pem"];
    let load = || ["default", "keyrivet"].map(|name| Provider::load(None, name).unwrap());
    let mut providers = Some(load());
    move |round| {
        if round % 50 == 49 {
            drop(providers.take());
            providers = Some(load());
        }
        let file = KEYS[round as usize % KEYS.len()];
        let key = PKey::private_key_from_pem(&std::fs::read(file).unwrap()).unwrap();
        for _ in 0..round % 4 + 1 {
            let mut signer = Signer::new(MessageDigest::sha256(), &key).unwrap();
            let signature = signer.sign_oneshot_to_vec(b"message").unwrap();
            let mut verifier = Verifier::new(MessageDigest::sha256(), &key).unwrap();
            assert!(verifier.verify_oneshot(&signature, b"message").unwrap());
        }
        if file.contains("rsa") {
            decrypt(&key);
        }
        assert_eq!(openssl::error::ErrorStack::get().errors().len(), 0, "success leaves no error behind");
    }
}

fn decrypt(key: &PKey<Private>) {
    let encrypter = Encrypter::new(key).unwrap();
    let mut encrypted = vec![0; encrypter.encrypt_len(b"secret").unwrap()];
    let length = encrypter.encrypt(b"secret", &mut encrypted).unwrap();
    let decrypter = Decrypter::new(key).unwrap();
    let mut clear = vec![0; decrypter.decrypt_len(&encrypted[..length]).unwrap()];
    let length = decrypter.decrypt(&encrypted[..length], &mut clear).unwrap();
    assert_eq!(clear[..length], *b"secret");
}

/// A program from the cold.
fn tool(device: &Device, round: usize) {
    let (locked, open) = (Token::existing(device, "locked", "1234"), Token::existing(device, "open", ""));
    let token = if round.is_multiple_of(2) { &locked } else { &open };
    let sign = ["--sign", "--id", "01", "--mechanism", "ECDSA-SHA256", "-i", "openssl.cnf", "-o", "signature"];
    match round % 8 {
        0 | 1 => drop(token.tool(&sign).ok()),
        2 | 3 => {
            let key = token.uri("rsa");
            let _ = device.openssl(&["dgst", "-sha256", "-sign", &key, "-out", "signature", "openssl.cnf"]).ok();
        }
        4 => device.new_key_file(["EC", "group:P-256"], "new.pem"),
        5 => drop(token.tool(&["--list-objects"]).ok()),
        _ => {
            token.generate("EC:prime256v1", "new", "77");
            for kind in ["privkey", "pubkey"] {
                let _ = token.tool(&["--delete-object", "--type", kind, "--id", "77"]).ok();
            }
        }
    }
}

/// What could grow.
struct Figures {
    processes: Vec<Process>,
    /// Every file of the store.
    files: BTreeSet<String>,
    /// Handles at the TPM, and its lockout counter.
    tpm: String,
}

struct Process {
    name: &'static str,
    rounds: u64,
    anonymous_kib: u64,
    resident_kib: u64,
    descriptors: usize,
    threads: u64,
}

impl Figures {
    /// Takes them while the workers rest, as they do from now on.
    fn take(device: &Device, workers: &[Worker]) -> Self {
        let resting: Vec<_> = workers.iter().map(|worker| (worker.name, worker.rest())).collect();
        // Until nothing is held any more.
        sleep(Duration::from_millis(500));
        let processes = resting.into_iter().map(|(name, (process, rounds))| Process::read(name, process, rounds));
        let folders = std::fs::read_dir(device.store()).unwrap().map(|entry| entry.unwrap().path());
        let files = folders.flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten());
        let kinds = ["transient", "loaded-session", "saved-session", "persistent"];
        let mut tpm = kinds.map(|kind| device.run(&["tpm2_getcap", &format!("handles-{kind}")]).ok().stdout()).concat();
        let state = device.run(&["tpm2_getcap", "properties-variable"]).ok().stdout();
        tpm.extend(state.lines().filter(|line| line.contains("LOCKOUT_COUNTER")));
        Self {
            processes: processes.collect(),
            files: files.map(|entry| entry.unwrap().path().display().to_string()).collect(),
            tpm,
        }
    }

    fn assert_no_more_than(&self, before: &Self) {
        for (now, before) in self.processes.iter().zip(&before.processes) {
            let name = now.name;
            assert!(now.rounds > before.rounds, "{name} stood still");
            assert!(now.anonymous_kib <= before.anonymous_kib + SLACK_KIB, "{name} grew");
            assert_eq!((now.descriptors, now.threads), (before.descriptors, before.threads), "{name}");
        }
        assert_eq!(self.files, before.files);
        assert_eq!(self.tpm, before.tpm);
        // The storage root key, and no other handle.
        assert_eq!(self.tpm.matches("0x8").count(), 1, "{}", self.tpm);
    }
}

impl Process {
    fn read(name: &'static str, process: u64, rounds: u64) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("as proc(5) has it");
            line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
        };
        Self {
            name,
            rounds,
            anonymous_kib: value("RssAnon:"),
            resident_kib: value("VmRSS:"),
            descriptors: std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count(),
            threads: value("Threads:"),
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Process { name, rounds, anonymous_kib, resident_kib, descriptors, threads } in &self.processes {
            writeln!(
                f,
                "    {name:24} {rounds:7} rounds, {anonymous_kib:6} KiB of its own, {resident_kib:6} KiB resident, \
                 {descriptors} descriptors, {threads} thread(s)"
            )?;
        }
        write!(
            f,
            "    {} files; at the TPM: {}",
            self.files.len(),
            self.tpm.split_whitespace().collect::<Vec<_>>().join(" ")
        )
    }
}
