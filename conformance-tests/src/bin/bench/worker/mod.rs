//! The process that is measured: one client of one contestant. It is told on its standard input what to do and when,
//! and answers each line with one line.

mod esys;
mod openssl;
mod pkcs11;
mod tls;

use std::io::{BufRead as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// What a client can fail with, in words.
pub(crate) type Result<T> = std::result::Result<T, String>;

/// How often each thread signs before its time counts: by then everything is loaded that will be.
const WARM_UP: u32 = 3;

/// A client that signs.
trait Signer: Sync {
    /// Gets ready after a pause in which others used the TPM.
    fn begin(&self) -> Result<()> {
        Ok(())
    }

    /// Signs, as one of the threads.
    fn sign(&self, thread: usize) -> Result<()>;

    /// Leaves the TPM to others.
    fn end(&self) {}
}

/// Runs the client that `arguments` name until its standard input ends.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.split_first() {
        Some((&"esys", rest)) => serve(&esys::RawLoop::new(rest)?),
        Some((&"pkcs11", rest)) => serve(&pkcs11::TokenClient::new(rest)?),
        Some((&"logins", rest)) => serve(&pkcs11::LoginClient::new(rest)?),
        Some((&"openssl", rest)) => serve(&openssl::KeyClient::new(rest)?),
        Some((&"handshakes", rest)) => serve(&tls::HandshakeClient::new(rest)?),
        Some((&"find", rest)) => pkcs11::time_find(rest),
        Some((&"sessions", rest)) => pkcs11::time_sessions(rest),
        Some((&"peak", rest)) => tell_peak(rest),
        _ => Err(format!("no such worker: {words:?}")),
    }
}

/// Runs a program and tells the most memory that it ever had resident, in KiB.
fn tell_peak(words: &[&str]) -> Result<()> {
    let (program, arguments) = words.split_first().ok_or("which program?")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().map_err(|error| error.to_string())?;
    let (mut status, process) = (0, child.id() as libc::pid_t);
    // SAFETY: our own child, of which nobody else asks the end; plain data, filled by the call.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::wait4(process, &mut status, 0, &mut usage);
        usage
    };
    if status != 0 {
        return Err(format!("{program} failed: {status}"));
    }
    say(&usage.ru_maxrss.to_string());
    Ok(())
}

/// Says something to who started us.
fn say(line: &str) {
    let mut output = std::io::stdout().lock();
    // Who does not listen any more has ended, and so does our input.
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
}

fn serve(signer: &dyn Signer) -> Result<()> {
    say("ready");
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| error.to_string())?;
        say(&obey(signer, &line)?);
    }
    Ok(())
}

fn obey(signer: &dyn Signer, line: &str) -> Result<String> {
    let words: Vec<&str> = line.split(' ').collect();
    let number = |text: &str| text.parse::<u32>().map_err(|error| format!("'{line}': {error}"));
    match words[..] {
        ["warm"] => {
            signer.begin()?;
            (0..WARM_UP).try_for_each(|_| signer.sign(0))?;
            Ok("warm".into())
        }
        ["sign", count, threads] => {
            let count = number(count)?;
            in_threads(number(threads)?, &|thread, _| (0..count).try_for_each(|_| signer.sign(thread)))?;
            Ok("signed".into())
        }
        ["run", milliseconds, threads] => {
            let time = Duration::from_millis(number(milliseconds)?.into());
            signer.begin()?;
            signer.sign(0)?;
            let ran = time_threads(signer, number(threads)?, time)?;
            signer.end();
            Ok(ran)
        }
        ["share", milliseconds] => {
            let deadline = Instant::now() + Duration::from_millis(number(milliseconds)?.into());
            signer.begin()?;
            let mut count = 0;
            while Instant::now() < deadline {
                signer.sign(0)?;
                // What was waited for beyond the time does not count.
                count += u32::from(Instant::now() < deadline);
            }
            signer.end();
            Ok(format!("shared {count}"))
        }
        ["end"] => {
            signer.end();
            Ok("ended".into())
        }
        _ => Err(format!("not understood: '{line}'")),
    }
}

/// One stretch of signing, its times in nanoseconds: the processor time of this process per signature, the median time of
/// one, when the last one ended that was within the time, and how many each thread finished by then.
fn time_threads(signer: &dyn Signer, threads: u32, time: Duration) -> Result<String> {
    let ran = in_threads(threads, &|thread, barrier| {
        let mut outcome = (0..WARM_UP).try_for_each(|_| signer.sign(thread));
        let mut each = Vec::with_capacity(1 << 16);
        // Also after a failure, or the others would wait for ever.
        barrier.wait();
        let (processor, start, mut last) = (processor_time(), Instant::now(), Duration::ZERO);
        while outcome.is_ok() && last < time {
            outcome = signer.sign(thread);
            let now = start.elapsed();
            each.push(now - last);
            last = now;
        }
        let processor = processor_time().saturating_sub(processor);
        // The last one came too late.
        each.pop();
        outcome.map(|()| (each, processor))
    })?;
    let elapsed = ran.iter().map(|(each, _)| each.iter().sum::<Duration>()).max().unwrap_or_default().as_nanos();
    let mut all: Vec<Duration> = ran.iter().flat_map(|(each, _)| each).copied().collect();
    all.sort_unstable();
    let processor = ran.iter().map(|(_, processor)| *processor).max().unwrap_or_default();
    let per_signature = processor.as_nanos() / (all.len() + threads as usize) as u128;
    let median = all.get(all.len() / 2).copied().unwrap_or_default().as_nanos();
    let counts = ran.iter().map(|(each, _)| format!(" {}", each.len()));
    Ok(format!("ran {per_signature} {median} {elapsed}{}", counts.collect::<String>()))
}

fn in_threads<T: Send>(threads: u32, work: &(dyn Fn(usize, &Barrier) -> Result<T> + Sync)) -> Result<Vec<T>> {
    let barrier = Barrier::new(threads as usize);
    std::thread::scope(|scope| {
        let barrier = &barrier;
        let started: Vec<_> = (0..threads as usize).map(|thread| scope.spawn(move || work(thread, barrier))).collect();
        started.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".into()))).collect()
    })
}

/// What this process has used of the processors so far.
fn processor_time() -> Duration {
    // SAFETY: plain data, filled by the call.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let duration = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    duration(usage.ru_utime) + duration(usage.ru_stime)
}

/// Memory of this process that is in use now, in bytes.
fn resident() -> Result<usize> {
    conformance_tests::memory_of(std::process::id()).map_err(|error| error.to_string())
}
