//! A store with many objects, and many that were in it: what finding one of them costs, and what is left. Times are
//! printed, not asserted.

mod client;
mod forks;
mod raw;

use std::time::{Duration, Instant};

use conformance_tests::{Device, Token, memory_of};
use cryptoki_sys::*;
use forks::{Way, child};
use raw::{Raw, call, flag, number};

const NOTHING: [&str; 0] = [];
/// The `CKA_ID` that is looked for.
const THE_ONE: u32 = 0x7fff_0000;

/// Fills the token's directory with copies of one public key, each with a label and an id of its own, and has the index
/// made.
fn fill(device: &Device, raw: &Raw, count: usize) {
    let session = raw.open(0);
    raw.login(session, CKU_USER, raw::PIN).unwrap();
    let group = openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::X9_62_PRIME256V1).unwrap();
    let key = openssl::pkey::PKey::from_ec_key(openssl::ec::EcKey::generate(&group).unwrap()).unwrap();
    let spki = key.public_key_to_der().unwrap();
    let point = [&[4, 65], &spki[spki.len() - 65..]].concat();
    let create = |label: &str, id: u32| {
        let template = [
            (CKA_CLASS, number(CKO_PUBLIC_KEY)),
            (CKA_KEY_TYPE, number(CKK_EC)),
            (CKA_TOKEN, flag(true)),
            (CKA_LABEL, label.into()),
            (CKA_ID, id.to_be_bytes().to_vec()),
            (CKA_EC_PARAMS, raw::P256.to_vec()),
            (CKA_EC_POINT, point.clone()),
        ];
        raw.create(session, &template).unwrap();
    };
    if count > 1 {
        create("label 00001", 1);
        let (path, model) = client::stored(device).into_iter().find(|(name, _)| name.ends_with(".pem")).unwrap();
        let model = String::from_utf8(model).unwrap();
        let directory = std::path::Path::new(&path).parent().unwrap().to_owned();
        for number in 2..count {
            let text = model.replace("label 00001", &format!("label {number:05}"));
            let text = text.replace("00000001", &format!("{number:08x}"));
            std::fs::write(directory.join(format!("{number:032x}.pem")), text).unwrap();
        }
        std::fs::remove_file(directory.join("index")).unwrap();
    }
    create("the one", THE_ONE);
    call!(raw, C_CloseSession(session)).unwrap();
}

/// How many times this process has called read(2) or the like.
fn reads() -> u64 {
    let text = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("syscr: ")).unwrap();
    line.parse().unwrap()
}

/// What a run of `work` takes, and how often it reads: the median.
fn measure(rounds: usize, mut work: impl FnMut()) -> (Duration, u64) {
    let mut runs: Vec<(Duration, u64)> = (0..rounds)
        .map(|_| {
            let (start, before) = (Instant::now(), reads());
            work();
            (start.elapsed(), reads() - before)
        })
        .collect();
    runs.sort_unstable();
    runs[rounds / 2]
}

fn initialise_and_find(raw: &Raw) {
    call!(raw, C_Initialize(std::ptr::null_mut())).unwrap();
    let session = raw.open_read_only(0);
    let one = [(CKA_CLASS, number(CKO_PUBLIC_KEY)), (CKA_ID, THE_ONE.to_be_bytes().to_vec())];
    assert_eq!(raw.find(session, &one).len(), 1);
    call!(raw, C_Finalize(std::ptr::null_mut())).unwrap();
}

/// Time and reads of finding one, and of listing all, with so many objects in the store.
fn with_objects(count: usize) -> [(Duration, u64); 2] {
    let device = Device::new();
    let _ = Token::new(&device, "dev", client::PIN);
    let raw = Raw::initialised(&device);
    fill(&device, &raw, count);
    call!(raw, C_Finalize(std::ptr::null_mut())).unwrap();
    device.mark();
    let find = measure(15, || initialise_and_find(&raw));
    let list = measure(3, || {
        call!(raw, C_Initialize(std::ptr::null_mut())).unwrap();
        let session = raw.open_read_only(0);
        assert_eq!(raw.find(session, &[(CKA_CLASS, number(CKO_PUBLIC_KEY))]).len(), count);
        call!(raw, C_Finalize(std::ptr::null_mut())).unwrap();
    });
    assert_eq!(device.commands(), NOTHING);
    println!("{count} objects: found in {:?} with {} reads, listed in {:?} with {}", find.0, find.1, list.0, list.1);
    [find, list]
}

#[test]
fn one_object_among_ten_thousand_is_found_with_a_dozen_reads_more() {
    let mut reads: Vec<i64> = Vec::new();
    for count in ["1", "1000", "10000"] {
        let inner = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "inner", "--ignored", "--nocapture"])
            .env("OBJECTS", count)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&inner.stdout).into_owned();
        assert!(inner.status.success(), "{text}\n{}", String::from_utf8_lossy(&inner.stderr));
        print!("{}", text.lines().filter(|line| line.contains(" objects: ")).collect::<String>() + "\n");
        let words: Vec<&str> = text.lines().find_map(|line| line.split_once(" with ")).unwrap().1.split(' ').collect();
        reads.push(words[0].parse().unwrap());
    }
    // The index is halved until the one is found: a read for each doubling, and not one more.
    for (doublings, reads_more) in [(10, reads[1] - reads[0]), (14, reads[2] - reads[0])] {
        assert!(reads_more <= doublings, "{reads:?}");
    }
}

#[test]
#[ignore = "run by the test above, in a process of its own for each size"]
fn inner() {
    with_objects(std::env::var("OBJECTS").unwrap().parse().unwrap());
}

/// Bytes of the objects that come and go.
const SIZE: usize = 60_000;

/// An object of the token that was made and read.
fn large_object(raw: &Raw, session: CK_SESSION_HANDLE) -> CK_OBJECT_HANDLE {
    let template = [(CKA_CLASS, number(CKO_DATA)), (CKA_TOKEN, flag(true)), (CKA_VALUE, vec![7; SIZE])];
    let object = raw.create(session, &template).unwrap();
    assert_eq!(raw.get(session, object, CKA_VALUE).map(|value| value.len()), Ok(SIZE));
    object
}

#[test]
fn objects_that_are_gone_take_no_memory() {
    let device = Device::new();
    let _ = Token::new(&device, "dev", "");
    let raw = Raw::initialised(&device);
    let session = raw.open(0);
    let after = |rounds: usize| {
        for _ in 0..rounds {
            let object = large_object(&raw, session);
            call!(raw, C_DestroyObject(session, object)).unwrap();
        }
        memory_of(std::process::id()).unwrap()
    };
    let (before, rounds) = (after(50), 300);
    let more = after(rounds).saturating_sub(before);
    assert!(more < rounds * SIZE / 4, "{more} bytes more");
}

#[test]
fn objects_that_another_process_destroys_take_no_memory() {
    const MANY: usize = 60;
    let device = Device::new();
    let _ = Token::new(&device, "dev", "");
    let raw = Raw::initialised(&device);
    let session = raw.open(0);
    let round = || {
        for _ in 0..MANY {
            let _ = large_object(&raw, session);
        }
        let other = child(Way::AtOnce, || {
            call!(raw, C_Initialize(std::ptr::null_mut())).unwrap();
            let session = raw.open(0);
            for object in raw.find(session, &[(CKA_CLASS, number(CKO_DATA))]) {
                call!(raw, C_DestroyObject(session, object)).unwrap();
            }
        });
        other.join();
        assert_eq!(raw.find(session, &[(CKA_CLASS, number(CKO_DATA))]), []);
        memory_of(std::process::id()).unwrap()
    };
    let (warm, rounds) = (3, 9);
    let memory: Vec<_> = (0..warm + rounds).map(|_| round()).collect();
    let more = memory[warm + rounds - 1].saturating_sub(memory[warm - 1]);
    assert!(more < rounds * MANY * SIZE / 4, "{more} bytes more");
}
