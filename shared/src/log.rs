//! What we tell about ourselves: nothing, unless `KEYRIVET_LOG` asks, and then on standard error.

use std::fmt;
use std::io::Write as _;
use std::sync::OnceLock;

/// A kind of message, as `KEYRIVET_LOG` names it; several are separated by commas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// `error`: each error, with what to do about it, where the interface has only a number for it.
    Error,
    /// `tpm`: the name of each TPM command, its response code and its time.
    Tpm,
}

struct Topics {
    error: bool,
    tpm: bool,
}

fn topics() -> &'static Topics {
    static TOPICS: OnceLock<Topics> = OnceLock::new();
    TOPICS.get_or_init(|| {
        let wanted = std::env::var("KEYRIVET_LOG").unwrap_or_default();
        let has = |name| wanted.split(',').any(|word| word.trim() == name || word.trim() == "all");
        Topics { error: has("error"), tpm: has("tpm") }
    })
}

/// Whether messages of this kind are wanted.
pub fn enabled(topic: Topic) -> bool {
    match topic {
        Topic::Error => topics().error,
        Topic::Tpm => topics().tpm,
    }
}

/// Writes a message, if its kind is wanted. Never give it a secret.
pub fn write(topic: Topic, message: fmt::Arguments<'_>) {
    if enabled(topic) {
        let name = match topic {
            Topic::Error => "error",
            Topic::Tpm => "tpm",
        };
        // One write, so that lines of several threads and processes stay whole; a closed stderr is no reason to fail.
        let line = format!("keyrivet: {name}: {message}\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}
