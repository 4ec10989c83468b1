//! What we tell about ourselves: nothing, unless `KEYRIVET_LOG` asks, and then on standard error.

use std::fmt;
use std::io::Write as _;

use once_cell::race::OnceBox;

use crate::environment::variable;

/// A kind of message, as `KEYRIVET_LOG` names it; several are separated by commas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// `error`: each error, with what to do about it, where the interface has only a number for it.
    Error,
    /// `tpm`: the name of each TPM command, its response code and its time.
    Tpm,
}

/// Each by its name.
const TOPICS: [(Topic, &str); 2] = [(Topic::Error, "error"), (Topic::Tpm, "tpm")];
/// The word for all of them.
const ALL: &str = "all";

/// Which of [`TOPICS`] are wanted.
fn wanted() -> &'static [bool; TOPICS.len()] {
    static WANTED: OnceBox<[bool; TOPICS.len()]> = OnceBox::new();
    WANTED.get_or_init(|| {
        let text = variable("KEYRIVET_LOG").unwrap_or_default();
        let words: Vec<_> = text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
        let known = |word: &str| word == ALL || TOPICS.iter().any(|(_, name)| *name == word);
        // Whoever set it looks for messages, and would take their absence for a good sign.
        if let Some(word) = words.iter().find(|word| !known(word)) {
            let names = TOPICS.map(|(_, name)| name).join(", ");
            print(format_args!("KEYRIVET_LOG: there is no '{word}': it can be {names} or {ALL}"));
        }
        Box::new(TOPICS.map(|(_, name)| words.iter().any(|word| *word == name || *word == ALL)))
    })
}

/// Whether messages of this kind are wanted.
pub fn enabled(topic: Topic) -> bool {
    wanted()[topic as usize]
}

/// Writes a message, if its kind is wanted. Never give it a secret.
pub fn write(topic: Topic, message: fmt::Arguments<'_>) {
    if enabled(topic) {
        print(format_args!("{}: {message}", TOPICS[topic as usize].1));
    }
}

fn print(message: fmt::Arguments<'_>) {
    // One write, so that lines of several threads and processes stay whole; a closed stderr is no reason to fail.
    let line = format!("keyrivet: {message}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}
