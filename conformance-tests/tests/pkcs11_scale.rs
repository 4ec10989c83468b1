//! A store with many objects: what finding one of them costs. Times are printed, not asserted.

mod client;
mod raw;

use std::time::{Duration, Instant};

use conformance_tests::{Device, Token};
use cryptoki_sys::*;
use raw::{Raw, call, flag, number};

const NOTHING: [&str; 0] = [];
const ROUNDS: usize = 15;

/// Fills the token's directory with copies of the data object that is in it, each with a label and id of its own, and
/// has the index made.
fn fill(device: &Device, raw: &Raw, count: usize) {
    let session = raw.open(0);
    raw.login(session, CKU_USER, raw::PIN).unwrap();
    let create = |label: &str, id: &str| {
        let template = [
            (CKA_CLASS, number(CKO_DATA)),
            (CKA_TOKEN, flag(true)),
            (CKA_LABEL, label.into()),
            (CKA_APPLICATION, id.into()),
            (CKA_VALUE, b"some value".to_vec()),
        ];
        raw.create(session, &template).unwrap();
    };
    if count > 1 {
        create("label 00001", "");
        let (path, model) = client::stored(device).into_iter().find(|(name, _)| name.ends_with(".pem")).unwrap();
        let model = String::from_utf8(model).unwrap();
        let directory = std::path::Path::new(&path).parent().unwrap().to_owned();
        for number in 2..count {
            let text = model.replace("label 00001", &format!("label {number:05}"));
            std::fs::write(directory.join(format!("{number:032x}.pem")), text).unwrap();
        }
        std::fs::remove_file(directory.join("index")).unwrap();
    }
    create("the one", "");
    call!(raw, C_CloseSession(session)).unwrap();
}

/// How many times this process has called read(2) or the like.
fn reads() -> u64 {
    let text = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("syscr: ")).unwrap();
    line.parse().unwrap()
}

/// What a run of `work` takes, and how often it reads.
fn measure(mut work: impl FnMut()) -> (Duration, u64) {
    let mut runs: Vec<(Duration, u64)> = (0..ROUNDS)
        .map(|_| {
            let (start, before) = (Instant::now(), reads());
            work();
            (start.elapsed(), reads() - before)
        })
        .collect();
    runs.sort_unstable();
    runs[ROUNDS / 2]
}

fn initialise_and_find(raw: &Raw) {
    call!(raw, C_Initialize(std::ptr::null_mut())).unwrap();
    let session = raw.open_read_only(0);
    let one = [(CKA_CLASS, number(CKO_DATA)), (CKA_LABEL, b"the one".to_vec())];
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
    let find = measure(|| initialise_and_find(&raw));
    let list = measure(|| {
        call!(raw, C_Initialize(std::ptr::null_mut())).unwrap();
        let session = raw.open_read_only(0);
        assert_eq!(raw.find(session, &[(CKA_CLASS, number(CKO_DATA))]).len(), count);
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
