//! The least of an MQTT 3.1.1 client: a load must cost less than what it loads.

use std::io::{Error, ErrorKind, Read as _, Result, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// A connection.
pub(crate) struct Client {
    stream: TcpStream,
}

impl Client {
    /// CONNECT, and CONNACK that says yes.
    pub(crate) fn connect(port: u16, id: &str, password: &str) -> Result<Self> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let credentials = !password.is_empty();
        let mut body = b"\x00\x04MQTT\x04".to_vec();
        body.push(if credentials { 0xc2 } else { 0x02 });
        body.extend([0, 0]);
        string(&mut body, id);
        if credentials {
            string(&mut body, "unused");
            string(&mut body, password);
        }
        stream.write_all(&packet(0x10, &body))?;
        let answer: [u8; 4] = read_awake(&mut stream)?;
        if answer != [0x20, 2, 0, 0] {
            return Err(Error::other(format!("{id} is not let in: {answer:?}")));
        }
        Ok(Self { stream })
    }

    /// SUBSCRIBE with QoS 0, and SUBACK.
    pub(crate) fn subscribe(&mut self, filter: &str) -> Result<()> {
        let mut body = vec![0, 1];
        string(&mut body, filter);
        body.push(0);
        self.stream.write_all(&packet(0x82, &body))?;
        let mut answer = [0; 5];
        self.stream.read_exact(&mut answer)
    }

    /// Messages with QoS 1, `window` of them at a time, all acknowledged before the next ones, until the time is over.
    /// Answers how many.
    pub(crate) fn publish(&mut self, topic: &str, window: usize, time: Duration) -> Result<usize> {
        let mut messages = Vec::new();
        for identifier in 1..=window {
            let mut body = Vec::new();
            string(&mut body, topic);
            body.extend((identifier as u16).to_be_bytes());
            body.extend([b'x'; 100]);
            messages.extend(packet(0x32, &body));
        }
        let mut answers = vec![0; 4 * window];
        let (start, mut count) = (Instant::now(), 0);
        while start.elapsed() < time {
            self.stream.write_all(&messages)?;
            self.stream.read_exact(&mut answers)?;
            count += window;
        }
        Ok(count)
    }

    /// Counts what arrives, on a thread of its own.
    pub(crate) fn count_in_background(self) -> Received {
        let messages = Arc::new(AtomicUsize::new(0));
        let (count, mut stream) = (Arc::clone(&messages), self.stream);
        std::thread::spawn(move || {
            let mut buffer = Vec::new();
            let mut chunk = [0; 65536];
            while let Ok(length) = stream.read(&mut chunk) {
                if length == 0 {
                    return;
                }
                buffer.extend_from_slice(&chunk[..length]);
                let (mut start, mut seen) = (0, 0);
                while let Some(end) = end_of_packet(&buffer[start..]) {
                    (start, seen) = (start + end, seen + 1);
                }
                buffer.drain(..start);
                count.fetch_add(seen, Ordering::Relaxed);
            }
        });
        Received(messages)
    }
}

/// Reads without sleeping: to wake somebody on the same machine is the broker's work, and takes as long as a good part
/// of a connection. A device elsewhere is woken there.
fn read_awake<const LENGTH: usize>(stream: &mut TcpStream) -> Result<[u8; LENGTH]> {
    let (mut bytes, mut filled, deadline) = ([0; LENGTH], 0, Instant::now() + PATIENCE);
    stream.set_nonblocking(true)?;
    while filled < LENGTH {
        match stream.read(&mut bytes[filled..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => filled += length,
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                // A microsecond or so in which the broker has the processor to itself, should both be threads of one.
                (0..64).for_each(|_| std::hint::spin_loop());
            }
            Err(error) => return Err(error),
        }
    }
    stream.set_nonblocking(false)?;
    Ok(bytes)
}

/// How many messages have arrived.
pub(crate) struct Received(Arc<AtomicUsize>);

impl Received {
    pub(crate) fn messages(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn wait_for(&self, count: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.messages() < count {
            if Instant::now() > deadline {
                return Err(Error::other(format!("{} of {count} messages arrived", self.messages())));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }
}

fn string(to: &mut Vec<u8>, text: &str) {
    to.extend((text.len() as u16).to_be_bytes());
    to.extend(text.as_bytes());
}

/// A fixed header with the remaining length (section 2.2.3), and the rest.
fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![kind];
    let mut length = body.len();
    loop {
        let more = length >> 7;
        packet.push((length & 0x7f) as u8 | if more > 0 { 0x80 } else { 0 });
        length = more;
        if length == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

/// Where the first packet ends, if all of it is there.
fn end_of_packet(bytes: &[u8]) -> Option<usize> {
    let mut length = 0;
    for place in 0..4 {
        let byte = *bytes.get(1 + place)?;
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            let end = 2 + place + length;
            return (bytes.len() >= end).then_some(end);
        }
    }
    None
}
