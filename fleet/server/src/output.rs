//! What the commands print: tables for people, JSON for programs, and one line when something went wrong.

#![allow(clippy::print_stderr, reason = "this is a command")]

use std::fmt;
use std::io::Write as _;

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use crate::cli::Format;

/// Why a command ends.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl<T: fmt::Display> From<T> for Failure {
    fn from(error: T) -> Self {
        Self(error.to_string())
    }
}

pub(crate) fn complain(failure: &Failure) {
    eprintln!("keyrivet-server: {}", failure.0);
}

/// A list: a table with these columns, or the JSON of its rows.
pub(crate) fn list(format: Format, columns: &[&str], rows: &[Vec<String>], json: &[Value]) {
    match format {
        Format::Table => {
            let mut table = Table::new();
            table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
            table.set_header(columns).add_rows(rows);
            line(&table.trim_fmt());
        }
        Format::Json => line(&pretty(&Value::Array(json.to_vec()))),
    }
}

/// One thing: its JSON, or what it says as `name: value` lines.
pub(crate) fn describe(format: Format, json: &Value) {
    match format {
        Format::Table => lines(json, ""),
        Format::Json => line(&pretty(json)),
    }
}

/// A sentence that says what was done; in JSON the thing itself.
pub(crate) fn done(format: Format, sentence: &str, json: &Value) {
    match format {
        Format::Table => line(sentence),
        Format::Json => line(&pretty(json)),
    }
}

/// A line, as it is. Whoever reads may have had enough, which is no failure.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

fn lines(json: &Value, indent: &str) {
    let Some(object) = json.as_object() else { return };
    for (name, value) in object {
        match value {
            Value::Object(_) => {
                line(&format!("{indent}{name}:"));
                lines(value, &format!("{indent}  "));
            }
            Value::Array(values) => {
                for (index, value) in values.iter().enumerate() {
                    line(&format!("{indent}{name} {index}:"));
                    lines(value, &format!("{indent}  "));
                }
            }
            Value::String(text) => {
                line(&format!("{indent}{name}: {}", text.trim_end().replace('\n', &format!("\n{indent}  "))))
            }
            other => line(&format!("{indent}{name}: {other}")),
        }
    }
}

fn pretty(json: &Value) -> String {
    serde_json::to_string_pretty(json).unwrap_or_default()
}
