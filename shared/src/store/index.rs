//! The derived index of a token's objects: look-ups open only what may match, and read of the index only a few lines.
//!
//! Each PKCS#11 object has two lines, one under the digest of its `CKA_ID` and one under that of its label. All lines are
//! equally long, and sorted, so that a line is found by halving. The last one tells how many there are before it: an index
//! that was cut short is none. It is the last that a writer puts into the directory, so both have changed at the same
//! moment: if not, somebody else has put something there, a backup for instance, and it is none either.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use super::plain;
use crate::algorithm::HashAlgorithm;
use crate::error::Result;
use crate::hex;
use crate::object::{Object, ObjectId, Part, Query};

/// Its file, beside the objects.
pub(super) const FILE: &str = "index";

/// A line is `KEY OBJECT ORDER PART\n`: 16 digits of a digest, the object's name, 8 digits that tell in which order
/// objects were added, the part as a letter.
const LINE: usize = 16 + 1 + 32 + 1 + 8 + 1 + 1 + 1;
const KEY: std::ops::Range<usize> = 0..16;
const OBJECT: std::ops::Range<usize> = 17..49;
const ORDER: std::ops::Range<usize> = 50..58;
const PART: usize = 59;

type Line = [u8; LINE];

/// Longer than this it is none of ours: a quarter of a million objects.
const LONGEST: u64 = 64 << 20;

/// How far apart the times of one rename are, in nanoseconds: some file systems know seconds only.
const SAME_MOMENT: i128 = 1_000_000_000;

/// What the digest of a key begins with, so that an id never passes for a label.
const BY_ID: &[u8] = b"id ";
const BY_LABEL: &[u8] = b"label ";

fn key(kind: &[u8], value: &[u8]) -> String {
    hex::encode(&HashAlgorithm::Sha256.digest(&[kind, value].concat())[..8])
}

fn letter(part: Part) -> u8 {
    match part {
        Part::PrivateKey => b'k',
        Part::PublicKey => b'p',
        Part::SecretKey => b's',
        Part::Certificate => b'c',
        Part::Data => b'd',
    }
}

/// The line after `count` others. No key is like its own.
fn last_line(count: u64) -> Line {
    let mut line = [b'.'; LINE];
    line[OBJECT].copy_from_slice(format!("{count:032}").as_bytes());
    line[LINE - 1] = b'\n';
    line
}

fn nanoseconds(seconds: i64, rest: i64) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(rest)
}

/// The index as a reader has it.
pub(super) struct Index {
    file: File,
    count: u64,
}

impl Index {
    /// Opens it; `None` where there is none, or none of ours: readers scan then.
    pub(super) fn open(directory: &Path) -> Option<Self> {
        let (file, data) = plain::open(&directory.join(FILE)).ok()?;
        let length = data.len();
        let count = (length / LINE as u64).checked_sub(1)?;
        let this = Self { file, count };
        let whole = length % LINE as u64 == 0 && length <= LONGEST && this.line(count)? == last_line(count);
        let around = fs::metadata(directory).ok()?;
        let put_there = nanoseconds(data.ctime(), data.ctime_nsec());
        let apart = nanoseconds(around.mtime(), around.mtime_nsec()) - put_there;
        (whole && apart.abs() <= SAME_MOMENT).then_some(this)
    }

    fn line(&self, number: u64) -> Option<Line> {
        let mut line = [0; LINE];
        self.file.read_exact_at(&mut line, number * LINE as u64).ok()?;
        (line[LINE - 1] == b'\n').then_some(line)
    }

    /// Objects that may match, each once, in the order in which they were added; `None` if it cannot be read.
    pub(super) fn select(&self, query: &Query) -> Option<Vec<ObjectId>> {
        let by_id = query.id.as_ref().map(|id| key(BY_ID, id));
        let wanted = by_id.or_else(|| query.label.as_ref().map(|label| key(BY_LABEL, label.as_bytes())));
        let lines = match wanted {
            Some(key) => self.under(key.as_bytes())?,
            None => self.lines()?.0,
        };
        let part = query.part.map(letter);
        let fits = |line: &&Line| part.is_none_or(|part| line[PART] == part);
        let mut found: Vec<_> = lines.iter().filter(fits).map(|line| (&line[ORDER], &line[OBJECT])).collect();
        found.sort_unstable();
        found.dedup();
        found.into_iter().map(|(_, object)| std::str::from_utf8(object).ok()?.parse().ok()).collect()
    }

    /// The lines under one key.
    fn under(&self, key: &[u8]) -> Option<Vec<Line>> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.line(middle)?[KEY] < *key { low = middle + 1 } else { high = middle }
        }
        let mut lines = Vec::new();
        while low < self.count {
            let line = self.line(low)?;
            if line[KEY] != *key {
                break;
            }
            lines.push(line);
            low += 1;
        }
        Some(lines)
    }

    /// All of it, to be changed.
    pub(super) fn lines(&self) -> Option<Lines> {
        let mut bytes = vec![0; usize::try_from(self.count).ok()?.checked_mul(LINE)?];
        self.file.read_exact_at(&mut bytes, 0).ok()?;
        let lines: Option<Vec<Line>> = bytes.chunks_exact(LINE).map(|line| line.try_into().ok()).collect();
        lines.filter(|lines| lines.iter().all(|line| line[LINE - 1] == b'\n')).map(Lines)
    }
}

/// The index as a writer has it.
#[derive(Default)]
pub(super) struct Lines(Vec<Line>);

impl Lines {
    /// Puts an object's lines in the place of those it had.
    pub(super) fn put(&mut self, object: &Object) {
        let id = object.id.to_string();
        let place = self.0.iter().find(|line| line[OBJECT] == *id.as_bytes()).map(|line| line[ORDER].to_vec());
        self.drop(object.id);
        let order = match place {
            Some(order) => String::from_utf8_lossy(&order).into_owned(),
            None => self.next(),
        };
        self.push(object, &order);
    }

    /// Adds the lines of objects that have none.
    pub(super) fn extend(&mut self, objects: impl Iterator<Item = Object>) {
        for (order, object) in (0_u32..).zip(objects) {
            self.push(&object, &format!("{order:08x}"));
        }
    }

    fn next(&self) -> String {
        let last = self.0.iter().map(|line| &line[ORDER]).max();
        let last = last.and_then(|order| u32::from_str_radix(std::str::from_utf8(order).ok()?, 16).ok());
        format!("{:08x}", last.map_or(0, |last| last.saturating_add(1)))
    }

    fn push(&mut self, object: &Object, order: &str) {
        for part in object.parts() {
            let Some(attributes) = object.attributes(part) else { continue };
            for key in [key(BY_ID, &attributes.id), key(BY_LABEL, attributes.label.as_bytes())] {
                let text = format!("{key} {} {order} {}\n", object.id, char::from(letter(part)));
                self.0.extend(Line::try_from(text.as_bytes()));
            }
        }
    }

    /// Removes an object's lines.
    pub(super) fn drop(&mut self, id: ObjectId) {
        let id = id.to_string();
        self.0.retain(|line| line[OBJECT] != *id.as_bytes());
    }

    /// The file's content.
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        self.0.sort_unstable();
        let last = last_line(self.0.len() as u64);
        self.0.push(last);
        self.0.concat()
    }
}

/// Removes the index: while it is not there, it cannot be wrong. Nor can a directory in its place, which nobody reads.
pub(super) fn unlink(directory: &Path) -> Result<()> {
    let path = directory.join(FILE);
    match fs::remove_file(&path) {
        Err(error) if error.kind() == ErrorKind::IsADirectory => Ok(()),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(super::failed(&path)(error)),
        _ => Ok(()),
    }
}
