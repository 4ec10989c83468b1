//! Programs, run to their end, and what they said.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{fmt, io};

/// Waits for the end of a process that was told to end, and ends it by force when that takes too long.
pub(crate) fn see_off(process: &mut Child, patience: Duration) {
    let deadline = Instant::now() + patience;
    while matches!(process.try_wait(), Ok(None)) && Instant::now() < deadline {
        sleep(Duration::from_millis(2));
    }
    let _ = process.kill();
    let _ = process.wait();
}

/// Runs a program to its end.
pub trait Run {
    /// Runs it with nothing on its standard input.
    fn run(&mut self) -> Output;
    /// Runs it with `input` on its standard input.
    fn run_with_input(&mut self, input: &[u8]) -> Output;
}

impl Run for Command {
    fn run(&mut self) -> Output {
        self.run_with_input(b"")
    }

    fn run_with_input(&mut self, input: &[u8]) -> Output {
        use std::io::Write as _;
        let line = command_line(self);
        self.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.spawn().unwrap_or_else(|error| panic!("{line}: {error}"));
        if let Some(mut stdin) = child.stdin.take() {
            // A program may end without reading what it is offered.
            let _ = stdin.write_all(input);
        }
        let output = child.wait_with_output().unwrap_or_else(|error| panic!("{line}: {error}"));
        Output { line, status: output.status, stdout: output.stdout, stderr: output.stderr }
    }
}

/// Resident bytes of a process.
pub fn memory_of(process: u32) -> io::Result<usize> {
    let text = std::fs::read_to_string(format!("/proc/{process}/statm"))?;
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.map(|pages| pages * 4096).ok_or_else(|| io::Error::other("statm cannot be read"))
}

/// What a program left behind.
#[derive(Clone, Debug)]
#[must_use = "say whether the program should have succeeded: ok() or fails()"]
pub struct Output {
    line: String,
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Output {
    /// Panics unless the program succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.status.success(), "should have succeeded:\n{self}");
        self
    }

    /// Panics unless the program failed, by itself and not by a signal.
    #[track_caller]
    pub fn fails(self) -> Self {
        assert!(self.status.code().is_some_and(|code| code != 0), "should have failed:\n{self}");
        self
    }

    /// Panics unless the program failed and said `text`.
    #[track_caller]
    pub fn fails_with(self, text: &str) -> Self {
        let this = self.fails();
        assert!(this.said(text), "should have said '{text}':\n{this}");
        this
    }

    /// Panics unless the program said `text` on its standard output or error.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.said(text), "should have said '{text}':\n{self}");
        self
    }

    /// Panics if the program said `text`.
    #[track_caller]
    pub fn says_nothing_of(self, text: &str) -> Self {
        assert!(!self.said(text), "should not have said '{text}':\n{self}");
        self
    }

    /// Panics if anything was written on the standard error.
    #[track_caller]
    pub fn silent(self) -> Self {
        assert!(self.stderr.is_empty(), "should have been silent on standard error:\n{self}");
        self
    }

    /// Whether the program succeeded.
    pub fn succeeded(&self) -> bool {
        self.status.success()
    }

    /// The standard output's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.stdout
    }

    /// The standard output as text.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The standard error as text.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    fn said(&self, text: &str) -> bool {
        self.stdout().contains(text) || self.stderr().contains(text)
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "$ {}\n({})", self.line, self.status)?;
        writeln!(f, "--- standard output\n{}\n--- standard error\n{}", self.stdout(), self.stderr())
    }
}

/// The command as one could type it, with the variables that were set for it.
fn command_line(command: &Command) -> String {
    let quoted = |text: &std::ffi::OsStr| {
        let text = text.to_string_lossy();
        let plain = |c: char| c.is_alphanumeric() || "-_./=:,@+%".contains(c);
        if !text.is_empty() && text.chars().all(plain) { text.into_owned() } else { format!("'{text}'") }
    };
    let variables = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let variables = variables.map(|(name, value)| format!("{}={}", name.to_string_lossy(), quoted(value)));
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(quoted);
    variables.chain(words).collect::<Vec<_>>().join(" ")
}
