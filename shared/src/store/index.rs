//! The derived index of a token's objects: a line per PKCS#11 object, so that look-ups open only what may match.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::error::Result;
use crate::hex;
use crate::object::{Object, ObjectId, Part, Query};

/// Its file, beside the objects.
pub(super) const FILE: &str = "index";

/// The index's text; `None` where there is none, and readers scan.
pub(super) fn read(directory: &Path) -> Option<String> {
    fs::read_to_string(directory.join(FILE)).ok()
}

pub(super) fn unlink(directory: &Path) -> Result<()> {
    let path = directory.join(FILE);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(super::failed(&path)(error)),
        _ => Ok(()),
    }
}

/// Adds an object's lines in the place of those it had.
pub(super) fn put(lines: &mut String, object: &Object) {
    drop(lines, object.id);
    for part in object.parts() {
        if let Some(attributes) = object.attributes(part) {
            let (id, label) = (hex::encode(&attributes.id), hex::encode(attributes.label.as_bytes()));
            lines.push_str(&format!("{} {} {id}, {label},\n", object.id, letter(part)));
        }
    }
}

/// Removes an object's lines.
pub(super) fn drop(lines: &mut String, id: ObjectId) {
    let prefix = id.to_string();
    if lines.contains(&prefix) {
        *lines = lines.lines().filter(|line| !line.starts_with(&prefix)).flat_map(|line| [line, "\n"]).collect();
    }
}

/// The objects of which a line matches the query, each once, in the order of the index.
pub(super) fn select(lines: &str, query: &Query) -> Vec<ObjectId> {
    let part = query.part.map(letter);
    let id = query.id.as_ref().map(|id| format!("{},", hex::encode(id)));
    let label = query.label.as_ref().map(|label| format!("{},", hex::encode(label.as_bytes())));
    let mut found: Vec<ObjectId> = Vec::new();
    for line in lines.lines() {
        let mut fields = line.split(' ');
        let Some(object) = fields.next() else { continue };
        let matches = fields.next().is_some_and(|field| part.is_none_or(|part| field == part))
            && fields.next().is_some_and(|field| id.as_ref().is_none_or(|id| field == id))
            && fields.next().is_some_and(|field| label.as_ref().is_none_or(|label| field == label));
        if matches {
            if let Ok(object) = object.parse() {
                if found.last() != Some(&object) {
                    found.push(object);
                }
            }
        }
    }
    found
}

fn letter(part: Part) -> &'static str {
    match part {
        Part::PrivateKey => "private",
        Part::PublicKey => "public",
        Part::SecretKey => "secret",
        Part::Certificate => "certificate",
        Part::Data => "data",
    }
}
