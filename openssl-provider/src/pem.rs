//! One PEM block out of a stream (RFC 7468), and no line more: what follows it is the next reader's.

use keyrivet_core::{Error, Result, pem};
use zeroize::Zeroizing;

use crate::ffi::core::Bio;

/// How much text may stand before a block, and how long a block may be.
const LIMIT: usize = 1 << 20;
const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// A block as it stands in its file. It may hold a PIN.
pub(crate) struct Block {
    /// What it says to be.
    pub(crate) label: String,
    lines: Vec<Zeroizing<String>>,
    complete: bool,
}

impl Block {
    /// Reads the stream's next block, `None` if there is none.
    pub(crate) fn read(bio: &mut Bio<'_>) -> Option<Self> {
        let mut passed = 0;
        let (label, begin) = loop {
            let line = bio.line()?;
            passed += line.len();
            if passed > LIMIT {
                return None;
            }
            if let Some(label) = label(&line, BEGIN) {
                break (label, line);
            }
        };
        let mut block = Self { label, lines: vec![trimmed(&begin)], complete: false };
        let mut length = begin.len();
        while !block.complete && length < LIMIT {
            let Some(line) = bio.line() else { break };
            length += line.len();
            block.complete = self::label(&line, END).is_some();
            block.lines.push(trimmed(&line));
        }
        Some(block)
    }

    /// The bytes in the block.
    pub(crate) fn decode(&self, what: &'static str) -> Result<Zeroizing<Vec<u8>>> {
        let malformed = |reason: String| Error::Malformed { what, reason };
        if !self.complete {
            return Err(malformed("its PEM block has no end".into()));
        }
        let lines: Vec<&str> = self.lines.iter().map(|line| line.as_str()).collect();
        let text = Zeroizing::new(lines.join("\n"));
        let (label, content) = pem::decode(&text).map_err(|error| malformed(error.to_string()))?;
        let content = Zeroizing::new(content);
        if label == self.label { Ok(content) } else { Err(malformed("its PEM block's label is odd".into())) }
    }
}

/// The label of a line that begins or ends a block.
fn label(line: &[u8], with: &str) -> Option<String> {
    let line = std::str::from_utf8(line).ok()?.trim_end();
    Some(line.strip_prefix(with)?.strip_suffix(DASHES)?.to_owned())
}

fn trimmed(line: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(String::from_utf8_lossy(line).trim_end().to_owned())
}
