//! Many processes and users with one store: nobody sees half of anything, and what a killed writer leaves is whole.

mod forks;
mod raw;
mod writers;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::ptr::null_mut;

use conformance_tests::{Device, Hold, Run as _, SO_PIN, Token, count};
use cryptoki_sys::*;
use forks::{Way, child};
use raw::{Given, P256, PIN, Raw, call, flag, number};
use writers::{ANEW, Killer, after, labels, named, session, write_with_a_pin};

const WRITERS: usize = 8;
const READERS: usize = 8;

/// What an object of this name is to hold.
fn value(name: &str) -> Vec<u8> {
    name.bytes().cycle().take(3000).collect()
}

fn data(name: &str) -> [Given; 4] {
    [(CKA_CLASS, number(CKO_DATA)), (CKA_TOKEN, flag(true)), (CKA_LABEL, name.into()), (CKA_VALUE, value(name))]
}

#[test]
fn eight_writers_and_eight_readers_see_whole_objects_only() {
    let device = Device::with_hold(Hold::Default);
    let _token = Token::new(&device, "dev", "");
    let raw = Raw::initialised(&device);
    let keeper = raw.open(0);
    raw.create(keeper, &data("stays")).unwrap();
    let (_, key) = raw.generate_ec(keeper, true);
    let rounds = count(15, 150);
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            child(Way::Exit, || {
                let own = session(&raw);
                for round in 0..rounds {
                    forks::have_another_minute();
                    let (first, second) = (format!("{writer} {round}"), format!("{writer} {round} changed"));
                    let object = raw.create(own, &data(&first)).unwrap();
                    assert_eq!(raw.find(own, &named(&first)).len(), 1);
                    raw.set(own, object, &[(CKA_LABEL, second.clone().into())]).unwrap();
                    assert_eq!(raw.find(own, &named(&first)), []);
                    assert_eq!(raw.find(own, &named(&second)), [object]);
                    if round % 3 != 0 {
                        call!(raw, C_DestroyObject(own, object)).unwrap();
                        assert_eq!(raw.find(own, &named(&second)), []);
                    }
                }
            })
        })
        .collect();
    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            child(Way::Exit, || {
                let own = session(&raw);
                for _ in 0..rounds {
                    forks::have_another_minute();
                    // What nobody touches is always found, and by its name.
                    assert_eq!(raw.find(own, &named("stays")).len(), 1);
                    assert_eq!(raw.find(own, &[(CKA_CLASS, number(CKO_PRIVATE_KEY))]).len(), 1);
                    for object in raw.find(own, &[(CKA_CLASS, number(CKO_DATA))]) {
                        // It may be gone by now, or have its other name.
                        let (Ok(name), Ok(found)) = (raw.get(own, object, CKA_LABEL), raw.get(own, object, CKA_VALUE))
                        else {
                            continue;
                        };
                        let name = String::from_utf8(name).unwrap();
                        assert_eq!(found, value(name.trim_end_matches(" changed")));
                    }
                }
            })
        })
        .collect();
    writers.into_iter().chain(readers).for_each(forks::Child::join);
    let left = raw.find(keeper, &[(CKA_CLASS, number(CKO_DATA))]).len();
    assert_eq!(left, 1 + WRITERS * rounds.div_ceil(3));
    raw.sign_init(keeper, CKM_ECDSA, key).unwrap();
    raw.sign(keeper, &[7; 32]).unwrap();
    assert_tidy(&device, &raw, left + 1);
}

/// No half file, and an index that is right: look-ups find the same with and without it. (`raw` is on `device`.)
fn assert_tidy(device: &Device, raw: &Raw, objects: usize) {
    let directory = std::fs::read_dir(device.store()).unwrap().map(|entry| entry.unwrap().path());
    let directory = directory.into_iter().find(|path| path.is_dir()).unwrap();
    let names: Vec<_> =
        std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names.iter().filter(|name| name.ends_with(".pem")).count(), objects, "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with(".new-")), "{names:?}");
    let session = raw.open(0);
    let labels = || {
        let all = raw.find(session, &[]);
        let labels: Vec<_> =
            all.iter().map(|object| raw.get(session, *object, CKA_LABEL).unwrap_or_default()).collect();
        let found: Vec<_> = labels.iter().map(|label| raw.find(session, &[(CKA_LABEL, label.clone())]).len()).collect();
        let mut both: Vec<_> = labels.into_iter().zip(found).collect();
        both.sort();
        both
    };
    assert!(directory.join("index").exists());
    let indexed = labels();
    std::fs::remove_file(directory.join("index")).unwrap();
    assert_eq!(indexed, labels());
}

/// A key made elsewhere.
fn secret(name: &str) -> [Given; 5] {
    let (class, kind) = (number(CKO_SECRET_KEY), number(CKK_AES));
    let label = (CKA_LABEL, name.into());
    [(CKA_CLASS, class), (CKA_KEY_TYPE, kind), (CKA_TOKEN, flag(true)), label, (CKA_VALUE, vec![7; 16])]
}

#[test]
fn writers_killed_at_random_leave_whole_keys_and_lose_none() {
    let device = Device::with_hold(Hold::Default);
    let _token = Token::new(&device, "dev", "");
    let raw = Raw::load(&device);
    let mut killer = Killer::soon_after(6);
    let mut reported = Vec::new();
    let rounds = count(100, 1000);
    for round in 0..rounds {
        reported.extend(killer.kill_amid(|tell| {
            let own = session(&raw);
            for number in 0.. {
                let name = format!("{round} {number}");
                let label = [(CKA_TOKEN, flag(true)), (CKA_LABEL, name.clone().into())];
                let public = [&label[..], &[(CKA_EC_PARAMS, P256.to_vec())]].concat();
                let (_, private) = raw.generate(own, CKM_EC_KEY_PAIR_GEN, &public, &label).unwrap();
                tell("made", &name);
                let secret = raw.create(own, &secret(&name)).unwrap();
                tell("imported", &name);
                if number % 2 == 1 {
                    raw.set(own, private, &[(CKA_ID, vec![9])]).unwrap();
                    tell("destroying", &name);
                    call!(raw, C_DestroyObject(own, secret)).unwrap();
                    tell("destroyed", &name);
                }
            }
        }));
    }
    // The next one finds everything in order, and puts in order what is not.
    let own = session(&raw);
    raw.generate_ec(own, true);
    let [private, public, secret] =
        [CKO_PRIVATE_KEY, CKO_PUBLIC_KEY, CKO_SECRET_KEY].map(|class| labels(&raw, own, class));
    assert_eq!(private, public, "no half of a pair without the other");
    let [made, imported, destroying, destroyed] =
        ["made", "imported", "destroying", "destroyed"].map(|word| after(&reported, word));
    let perhaps_there = &secret | &destroying;
    let lost: Vec<_> = made.difference(&private).chain(imported.difference(&perhaps_there)).collect();
    assert!(lost.is_empty(), "{lost:?}");
    let back: Vec<_> = secret.intersection(&destroyed).collect();
    assert!(back.is_empty(), "{back:?}");
    println!("{rounds} writers killed; {} key pairs reported, {} there", made.len(), private.len());
    println!("{} keys reported imported, {} destroyed, {} there", imported.len(), destroyed.len(), secret.len());
    // Of each killed writer at most one key that it could not report any more.
    assert!(private.len() <= made.len() + rounds && !made.is_empty());
    assert!(secret.len() <= imported.len() - destroyed.len() + rounds && !destroyed.is_empty());
    for key in raw.find(own, &[(CKA_CLASS, number(CKO_PRIVATE_KEY))]).into_iter().step_by(10) {
        raw.sign_init(own, CKM_ECDSA, key).unwrap();
        raw.sign(own, &[7; 32]).unwrap();
    }
    assert_tidy(&device, &raw, private.len() + secret.len() + 1);
    call!(raw, C_Finalize(null_mut())).unwrap();
    assert_eq!(device.left_at_the_tpm(), "");
}

#[test]
fn writers_of_pins_and_persistent_keys_killed_at_random_leave_one_pin_and_no_orphan() {
    let device = Device::with_hold(Hold::Default);
    let mut pin = String::from_utf8(PIN.to_vec()).unwrap();
    let _ = ["dev", "anew"].map(|label| Token::new(&device, label, &pin));
    let raw = Raw::load(&device);
    let (mut killer, mut reported) = (Killer::soon_after(12), Vec::new());
    let (mut amid, mut set_unreported) = (BTreeMap::new(), 0);
    let rounds = count(80, 300);
    for round in 0..rounds {
        let reports = killer.kill_amid(|tell| write_with_a_pin(&raw, tell, round, &pin));
        let last = |word: &str| reports.iter().rev().find_map(|report| Some(report.strip_prefix(word)?.to_owned()));
        let (setting, set) = (last("setting "), last("set "));
        pin = set.clone().unwrap_or(pin);
        let unreported = setting.filter(|setting| set.as_ref() != Some(setting));
        if unreported.as_ref().is_some_and(|setting| is_set(&device, &raw, setting, &pin)) {
            set_unreported += 1;
            pin = unreported.unwrap_or(pin);
        }
        let latest = reports.last().and_then(|report| report.split(' ').next()).unwrap_or("before all that");
        *amid.entry(latest.to_owned()).or_insert(0) += 1;
        reported.extend(reports);
    }
    println!("{rounds} writers killed, after these last words: {amid:?}");
    println!("{} PINs set, and {set_unreported} of which that was not reported", after(&reported, "set").len());
    let [own, other] = [session(&raw), raw.open(ANEW)];
    raw.login(own, CKU_USER, pin.as_bytes()).unwrap();
    let halves = [CKO_PRIVATE_KEY, CKO_PUBLIC_KEY].map(|class| labels(&raw, own, class));
    let [made, destroying, destroyed] = ["made", "destroying", "destroyed"].map(|word| after(&reported, word));
    let back: Vec<_> = halves.iter().flat_map(|half| half & &destroyed).collect();
    assert!(back.is_empty(), "{back:?}");
    // Whatever is not as it was reported, was being destroyed.
    let placed = used_in_place(&device, &raw, own);
    let lost: Vec<_> = halves.iter().chain([&placed]).flat_map(|there| &(&made - &destroying) - there).collect();
    assert!(lost.is_empty(), "{lost:?}");
    let single = &(&halves[0] ^ &halves[1]) - &destroying;
    assert!(single.is_empty(), "{single:?}");
    if raw.token_info(ANEW).flags & CKF_USER_PIN_INITIALIZED != 0 {
        raw.login(other, CKU_USER, PIN).unwrap();
    }
    // The TPM has the places that files name, but for those in which their key is not.
    let (named, mut placed) = (places_in_files(&device), placed);
    placed.extend(used_in_place(&device, &raw, other));
    let mut expected: Vec<_> = placed.iter().map(|label| named[label].clone()).collect();
    expected.sort();
    assert_eq!(device.places(), expected, "{named:?} {placed:?}");
    println!(
        "{} persistent keys made, {} destroyed; {:?} there",
        made.len(),
        destroyed.len(),
        halves.map(|half| half.len())
    );
    println!("{} places named in files, {} of them with their key", named.len(), placed.len());
    // At the end nothing is left of either token's.
    for object in raw.find(own, &[]) {
        call!(raw, C_DestroyObject(own, object)).unwrap();
    }
    call!(raw, C_CloseSession(other)).unwrap();
    raw.make_token(ANEW, "anew");
    assert_eq!(device.places(), [""; 0]);
    call!(raw, C_Finalize(null_mut())).unwrap();
    assert_eq!(device.left_at_the_tpm(), "");
    assert_eq!(device.lockout_counter(), "0x0");
}

/// Whether a PIN is set whose change a writer could not report any more, or else the one before, and only one of them:
/// the other costs a try, which is the only one that was ever spent.
fn is_set(device: &Device, raw: &Raw, setting: &str, before: &str) -> bool {
    let own = session(raw);
    let opens = [setting, before].map(|pin| match raw.login(own, CKU_USER, pin.as_bytes()) {
        Ok(()) => call!(raw, C_Logout(own)).is_ok(),
        Err(error) => {
            assert_eq!(error, CKR_PIN_INCORRECT);
            false
        }
    });
    assert_ne!(opens[0], opens[1], "'{setting}' is set, or '{before}'");
    call!(raw, C_Finalize(null_mut())).unwrap();
    assert_eq!(device.lockout_counter(), "0x1");
    let _ = device.run(&["tpm2_dictionarylockout", "--clear-lockout"]).ok();
    opens[0]
}

/// Signs with every private key; the labels of those for which the TPM had to load nothing.
fn used_in_place(device: &Device, raw: &Raw, session: CK_SESSION_HANDLE) -> BTreeSet<String> {
    let in_place = |label: &String| {
        let [wanted] = named(label);
        let find = |class| raw.find(session, &[(CKA_CLASS, number(class)), wanted.clone()]);
        let mut signature = Vec::new();
        let commands = device.cost_of(|| {
            raw.sign_init(session, CKM_ECDSA, find(CKO_PRIVATE_KEY)[0]).unwrap();
            signature = raw.sign(session, &[7; 32]).unwrap();
        });
        for public in find(CKO_PUBLIC_KEY) {
            raw.verify(session, CKM_ECDSA, public, &[7; 32], &signature).unwrap();
        }
        !commands.iter().any(|command| command == "Load")
    };
    labels(raw, session, CKO_PRIVATE_KEY).into_iter().filter(in_place).collect()
}

/// The persistent handles that the store's files name, by their keys' labels.
fn places_in_files(device: &Device) -> BTreeMap<String, String> {
    let entries = |path: &Path| std::fs::read_dir(path).into_iter().flatten().map(|entry| entry.unwrap().path());
    let files = entries(&device.store()).flat_map(|token| entries(&token).collect::<Vec<_>>());
    let texts = files.filter_map(|file| String::from_utf8(std::fs::read(file).unwrap()).ok());
    texts
        .filter_map(|text| {
            let field =
                |name: &str| Some(text.lines().find_map(|line| line.strip_prefix(name))?.trim_matches('"').into());
            Some((field("label = ")?, field("handle = ")?))
        })
        .collect()
}

/// Users that nobody has, and a group that two of them share.
const ONE: u32 = 60_001;
const OTHER: u32 = 60_002;
const STRANGER: u32 = 60_003;
const GROUP: u32 = 60_010;

/// A device that several users share: its store and lock belong to the group, its TPM takes everybody.
struct Shared {
    device: Device,
}

impl Shared {
    /// `None` where we are not root and cannot be anybody else.
    fn new() -> Option<Self> {
        let device = Device::with_hold(Hold::Default);
        if device.run(&["id", "-u"]).ok().stdout().trim() != "0" {
            eprintln!("NOT TESTED: only root can be two users");
            return None;
        }
        // The build's directory may be closed to others.
        std::fs::copy(device.module(), device.path("module.so")).unwrap();
        let group = format!(":{GROUP}");
        let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(device.folder(), 0o755);
        for name in ["store", "lock"] {
            let _ = device.run(&["chown", &group, name]).ok();
            mode(&device.path(name), 0o2770);
        }
        for name in ["tpm.sock", "tpm.sock.ctrl"] {
            mode(&device.path(name), 0o666);
        }
        Some(Self { device })
    }

    fn tool(&self, user: u32, groups: &str, arguments: &[&str]) -> conformance_tests::Output {
        let mut command: Command = self.device.command("setpriv");
        let id = user.to_string();
        command.args(["--reuid", &id, "--regid", &id, groups, "--bounding-set=-all", "--inh-caps=-all"]);
        command.args(["sh", "-c", "umask 077; exec \"$@\"", "sh", "pkcs11-tool", "--module", "./module.so"]);
        command.env("KEYRIVET_LOG", "error").args(arguments).run()
    }

    fn member(&self, user: u32, arguments: &[&str]) -> conformance_tests::Output {
        self.tool(user, &format!("--groups={GROUP}"), arguments)
    }
}

const NEW: [&str; 9] =
    ["--token-label", "dev", "--keypairgen", "--key-type", "EC:prime256v1", "--label", "k", "--id", "01"];
const SIGN: [&str; 11] = [
    "--token-label",
    "dev",
    "--sign",
    "--id",
    "01",
    "--mechanism",
    "ECDSA-SHA256",
    "-i",
    "openssl.cnf",
    "-o",
    "/dev/null",
];

#[test]
fn two_users_of_a_group_share_tokens_and_a_stranger_sees_none() {
    let Some(shared) = Shared::new() else { return };
    // One makes the token, whatever its umask; both make keys, use and destroy each other's.
    let so = conformance_tests::SO_PIN;
    let _ = shared.member(ONE, &["--init-token", "--slot", "0", "--label", "dev", "--so-pin", so]).ok();
    let pin = ["--login", "--login-type", "so", "--so-pin", so, "--init-pin", "--token-label", "dev", "--new-pin", ""];
    let _ = shared.member(OTHER, &pin).ok();
    for (maker, user) in [(ONE, OTHER), (OTHER, ONE)] {
        let _ = shared.member(maker, &NEW).ok();
        let _ = shared.member(user, &SIGN).ok();
        let _ = shared.member(maker, &SIGN).ok();
        for kind in ["privkey", "pubkey"] {
            let _ =
                shared.member(user, &["--token-label", "dev", "--delete-object", "--type", kind, "--id", "01"]).ok();
        }
        let _ = shared.member(maker, &SIGN).fails();
    }
    // Root in between takes nothing from them.
    let _ = shared.device.pkcs11_tool(&NEW).ok();
    let _ = shared.member(ONE, &SIGN).ok();
    let _ = shared.member(OTHER, &["--token-label", "dev", "--delete-object", "--type", "privkey", "--id", "01"]).ok();
    let stranger = shared.tool(STRANGER, "--clear-groups", &["--list-slots"]).ok();
    let _ = stranger.says("Permission denied").says_nothing_of("dev");
}

#[test]
fn another_user_who_may_read_the_store_uses_its_keys_and_cannot_write() {
    let Some(shared) = Shared::new() else { return };
    let device = &shared.device;
    let token = Token::new(device, "dev", "");
    token.generate("EC:prime256v1", "k", "01");
    let _ = device.run(&["chmod", "-R", "g-w", "store"]).ok();
    let _ = shared.member(OTHER, &["--token-label", "dev", "--list-objects"]).ok().says("Private Key");
    let _ = shared.member(OTHER, &SIGN).ok();
    let _ = shared.member(OTHER, &NEW).fails_with("may not write");
    let remove = ["--token-label", "dev", "--delete-object", "--type", "privkey", "--id", "01"];
    let _ = shared.member(OTHER, &remove).fails_with("may not write");
    // While the owner writes, too.
    token.generate("EC:prime256v1", "second", "02");
    let _ = shared.member(OTHER, &["--token-label", "dev", "--list-objects"]).ok().says("second");
    let _ = shared.member(OTHER, &SIGN).ok();
}

/// What another process does as security officer.
fn as_officer(device: &Device, words: &[&str]) {
    let officer = ["--login", "--login-type", "so", "--so-pin", SO_PIN];
    let _ = device.pkcs11_tool(&[words, &officer].concat()).ok();
}

#[test]
fn a_key_is_not_made_for_a_pin_that_another_process_has_changed_the_kind_of() {
    let device = Device::with_hold(Hold::Default);
    let _token = Token::new(&device, "dev", "");
    let raw = Raw::initialised(&device);
    let session = raw.open(0);
    let make = || {
        let public = [(CKA_TOKEN, flag(true)), (CKA_EC_PARAMS, P256.to_vec())];
        raw.generate(session, CKM_EC_KEY_PAIR_GEN, &public, &[(CKA_TOKEN, flag(true))])
    };
    as_officer(&device, &["--init-pin", "--token-label", "dev", "--new-pin", "123456"]);
    assert_eq!(make(), Err(CKR_USER_NOT_LOGGED_IN));
    raw.login(session, CKU_USER, b"123456").unwrap();
    as_officer(&device, &["--init-pin", "--token-label", "dev", "--new-pin", ""]);
    // Nobody needs to log in now.
    let (_, private) = make().unwrap();
    raw.sign_init(session, CKM_ECDSA_SHA256, private).unwrap();
    assert!(raw.sign(session, b"message").is_ok());
}

#[test]
fn a_key_is_not_made_under_the_secret_of_a_token_that_was_made_anew() {
    let device = Device::with_hold(Hold::Default);
    let token = Token::new(&device, "dev", "123456");
    let raw = Raw::initialised(&device);
    let session = raw.open(0);
    raw.login(session, CKU_USER, b"123456").unwrap();
    let _ = device.pkcs11_tool(&["--init-token", "--slot", "0", "--label", "dev", "--so-pin", SO_PIN]).ok();
    as_officer(&device, &["--init-pin", "--token-label", "dev", "--new-pin", "123456"]);
    let public = [(CKA_TOKEN, flag(true)), (CKA_EC_PARAMS, P256.to_vec())];
    let make =
        || raw.generate(session, CKM_EC_KEY_PAIR_GEN, &public, &[(CKA_TOKEN, flag(true)), (CKA_LABEL, "k".into())]);
    assert_eq!(make(), Err(CKR_USER_NOT_LOGGED_IN));
    raw.login(session, CKU_USER, b"123456").unwrap();
    let _ = make().unwrap();
    // It is a key for everybody who knows the PIN.
    device.write("data", "message");
    let _ = token.tool(&["--sign", "-m", "ECDSA-SHA256", "--label", "k", "-i", "data", "-o", "signature"]).ok();
}
