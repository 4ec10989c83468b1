//! Where a PIN comes from: a file, the key's URI, or whoever sits at the terminal.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;

use keyrivet_core::uri::{self, Pkcs11Uri};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::failure::{Failure, Result};

/// No PIN is longer.
const LONGEST: usize = 4096;

/// The PIN in the file, else that of the URI, else the one typed for `what`.
pub(crate) fn find(file: Option<&Path>, uri: Option<&Pkcs11Uri>, what: &str) -> Result<Zeroizing<Vec<u8>>> {
    if let Some(path) = file {
        return Ok(uri::pin_in_file(path)?);
    }
    match uri.map(Pkcs11Uri::pin).transpose()?.flatten() {
        Some(pin) => Ok(pin),
        None => ask(what),
    }
}

fn ask(what: &str) -> Result<Zeroizing<Vec<u8>>> {
    let nobody = |_| {
        Failure::new(format!(
            "the PIN of {what} is needed, and there is no terminal to ask for it: \
             give --pin-file FILE, or ?pin-source=file:FILE in the URI"
        ))
    };
    let mut terminal = File::options().read(true).write(true).open("/dev/tty").map_err(nobody)?;
    let quiet = Quiet::begin(terminal.try_clone().map_err(nobody)?).map_err(|error| nobody(error.into()))?;
    let failed = |error| Failure::new(format!("the terminal: {error}"));
    write!(terminal, "PIN of {what}: ").map_err(failed)?;
    let mut pin = Zeroizing::new(Vec::with_capacity(LONGEST));
    let mut byte = [0];
    let cancelled = loop {
        if terminal.read(&mut byte).map_err(failed)? == 0 {
            break false;
        }
        match byte[0] {
            b'\n' | b'\r' => break false,
            INTERRUPT | QUIT => break true,
            END_OF_FILE if pin.is_empty() => break true,
            // A character, of which UTF-8 has several bytes.
            BACKSPACE | DELETE => while pin.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            KILL_LINE => pin.clear(),
            typed if typed >= b' ' && pin.len() < LONGEST => pin.push(typed),
            _ => {}
        }
    };
    drop(quiet);
    let _ = terminal.write_all(b"\n");
    if cancelled {
        return Err(Failure::new("cancelled"));
    }
    if pin.is_empty() { Err(Failure::new("no PIN was typed")) } else { Ok(pin) }
}

/// What a terminal sends for ^C, ^\, ^D, ^U and the two keys that take the last character back.
const INTERRUPT: u8 = 0x03;
const QUIT: u8 = 0x1c;
const END_OF_FILE: u8 = 0x04;
const KILL_LINE: u8 = 0x15;
const BACKSPACE: u8 = 0x08;
const DELETE: u8 = 0x7f;

/// The terminal without its echo, until this is dropped. Its keys come one by one, ^C too: a signal would end us with the
/// terminal as it is.
struct Quiet {
    terminal: File,
    before: Termios,
}

impl Quiet {
    fn begin(terminal: File) -> rustix::io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
        quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&terminal, OptionalActions::Flush, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Flush, &self.before);
    }
}
