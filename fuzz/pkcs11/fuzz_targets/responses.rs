//! What a TPM answers: recorded responses, with whatever an input makes of them.
#![no_main]

mod module;

use std::collections::HashMap;
use std::io::{IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use keyrivet_core::Keyrivet;
use keyrivet_core::algorithm::{
    CipherMode, Curve, Direction, EncryptionScheme, HashAlgorithm, KeyKind, KeySpec, SecretKind, SignatureScheme,
};
use keyrivet_core::config::Config;
use keyrivet_core::import::PrivateKey;
use keyrivet_core::key::Key;
use keyrivet_core::object::{Attributes, Object, Part, Query};
use keyrivet_core::policy::PcrPolicy;
use keyrivet_core::public_key::PublicKey;
use keyrivet_core::secret_key::{AES_BLOCK, SecretKey};
use keyrivet_core::token::{Token, User};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tempfile::TempDir;

#[derive(Arbitrary, Debug, Default)]
struct Input {
    job: u8,
    /// What the bus says in place of a greeting.
    bus: Option<Vec<u8>>,
    /// What becomes of each response, in their order; the rest are as recorded.
    harms: Vec<Harm>,
}

#[derive(Arbitrary, Clone, Debug)]
enum Harm {
    None,
    /// Another of the recorded ones for this command.
    Other(u8),
    Code(u32),
    Changed(Vec<(u16, u8)>),
    /// Its parameters, in place of the recorded ones, behind a true header.
    Parameters(Vec<u8>),
    Cut(u16),
    Bytes(Vec<u8>),
}

type Job = fn(&World) -> keyrivet_core::Result<()>;

const JOBS: [Job; 23] = [
    |world| world.key("01")?.sign(SignatureScheme::Ecdsa, &[7; 32]).map(drop),
    |world| world.key("02")?.sign(SignatureScheme::RsaPkcs1(HashAlgorithm::Sha256), &[7; 32]).map(drop),
    |world| world.key("02")?.decrypt(&EncryptionScheme::RsaPkcs1, &[7; 256]).map(drop),
    |world| {
        let key = world.key("01")?;
        match key.public_key().clone() {
            PublicKey::Ec { point, .. } => key.derive(&point).map(drop),
            PublicKey::Rsa { .. } => Ok(()),
        }
    },
    |world| world.generate(KeyKind::Ec(Curve::P256), None),
    |world| world.generate(KeyKind::Rsa { bits: 2048 }, None),
    |world| world.locked.login(User::User, b"1234"),
    |world| world.locked.set_pin(User::User, b"1234", b"12345"),
    |world| {
        let slot = world.keyrivet.free_slot(&world.keyrivet.tokens()?)?;
        let made = world.keyrivet.create_token(slot, "new", b"12345678")?;
        let _ = std::fs::remove_dir_all(world.store.join(&made.info().serial));
        Ok(())
    },
    |world| world.keyrivet.tpm_random(&mut [0; 100]),
    |world| world.keyrivet.nv_content(0x01c0_0002).map(drop),
    |world| world.keyrivet.persistent_handles().map(drop),
    |world| {
        let mut iv = vec![7; AES_BLOCK];
        world.secret_key("03")?.cipher(CipherMode::Cbc, Direction::Encrypt, &mut iv, &[7; 2 * AES_BLOCK]).map(drop)
    },
    // Longer than what a TPM takes at once.
    |world| {
        let mut iv = vec![7; AES_BLOCK];
        world.secret_key("03")?.cipher(CipherMode::Ctr, Direction::Decrypt, &mut iv, &[7; 2050]).map(drop)
    },
    |world| world.secret_key("06")?.mac(HashAlgorithm::Sha256, b"a message").map(drop),
    |world| world.secret_key("06")?.mac(HashAlgorithm::Sha256, &[7; 3000]).map(drop),
    |world| world.open.generate_secret(SecretKind::Aes, 16, None, Attributes::default()).map(drop),
    |world| world.open.import_secret(SecretKind::Generic, &[7; 40], Attributes::default()).map(drop),
    |world| world.open.import(&PrivateKey::ec(Curve::P256, &[7; 32])?, (true, false), Attributes::default()).map(drop),
    // Bound to PCRs: made so, and used.
    |world| world.generate(KeyKind::Ec(Curve::P256), Some(&PcrPolicy { pcrs: "sha256:0,7".parse()?, digest: None })),
    |world| world.key("07")?.sign(SignatureScheme::Ecdsa, &[7; 32]).map(drop),
    |world| {
        let (key, public) = (Attributes::default(), Attributes::default());
        let adopted = world.open.adopt(0x8101_0001, b"", key, public)?;
        world.open.key(&adopted)?.sign(SignatureScheme::Ecdsa, &[7; 32])?;
        world.open.adopt_certificate(0x01c0_0002, Attributes::default()).map(drop)
    },
    World::place,
];

fuzz_target!(|input: Input| {
    static WORLD: OnceLock<World> = OnceLock::new();
    let world = WORLD.get_or_init(|| {
        let world = World::new();
        // What was recorded fits what is asked. Where nonces are drawn no response does, and of several the first is given.
        let done = JOBS.iter().filter(|job| world.run(**job, Input::default()).is_ok()).count();
        assert!(done >= 12, "{done} jobs are done by what was recorded: run seeds/make");
        world
    });
    let job = JOBS[usize::from(input.job) % JOBS.len()];
    // What an error says must be sayable, too.
    let _ = world.run(job, input).map_err(|error| error.to_string());
});

struct World {
    keyrivet: Keyrivet,
    open: Arc<Token>,
    locked: Arc<Token>,
    store: PathBuf,
    tpm: Tpm,
    _folder: TempDir,
}

impl World {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let store = folder.path().join("store");
        module::copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds/store"), &store);
        let tpm = Tpm::new(&folder);
        module::enter(&folder, &store, "tabrmd:bus_type=session", "timeout_ms = 50\nhold_ms = 60000\n");
        let keyrivet = Keyrivet::open(Config::load().expect("our own file"));
        let tokens = keyrivet.tokens().expect("our own store");
        let labelled = |label: &str| tokens.iter().find(|token| token.info().label == label).expect("made so").clone();
        Self { open: labelled("open"), locked: labelled("locked"), keyrivet, store, tpm, _folder: folder }
    }

    fn run(&self, job: Job, input: Input) -> keyrivet_core::Result<()> {
        self.locked.logout();
        self.tpm.begin(input);
        let result = job(self);
        self.keyrivet.release();
        result
    }

    /// An object of the open token.
    fn object(&self, part: Part, label: &str) -> keyrivet_core::Result<Arc<Object>> {
        let query = Query { label: Some(label.into()), part: Some(part), ..Query::default() };
        let named = |object: &&Arc<Object>| object.attributes(part).is_some_and(|attributes| attributes.label == label);
        Ok(self.open.find(&query)?.iter().find(named).expect("made so").clone())
    }

    fn key(&self, label: &str) -> keyrivet_core::Result<Key> {
        self.open.key(&*self.object(Part::PrivateKey, label)?)
    }

    fn secret_key(&self, label: &str) -> keyrivet_core::Result<SecretKey> {
        self.open.secret_key(&*self.object(Part::SecretKey, label)?)
    }

    fn generate(&self, kind: KeyKind, policy: Option<&PcrPolicy>) -> keyrivet_core::Result<()> {
        let (private, public) = (Attributes::default(), Attributes::default());
        self.open.generate(KeySpec { kind, sign: true, decrypt: true }, policy, private, public).map(drop)
    }

    /// Puts a key into the TPM for good, uses it there, and destroys it.
    fn place(&self) -> keyrivet_core::Result<()> {
        let key = self.object(Part::PrivateKey, "01")?;
        let used = self.open.place(key.id).and_then(|()| self.key("01")?.sign(SignatureScheme::Ecdsa, &[7; 32]));
        let destroyed = used.and_then(|_| self.open.destroy(key.id, Part::PrivateKey));
        // For the next input, whatever became of it.
        self.open.insert(&key).expect("our own folder");
        destroyed
    }
}

/// The resource manager's end: a bus with a single service on it, and the TPM behind that.
struct Tpm {
    harms: Arc<Mutex<Harms>>,
}

/// What becomes of the bus's greeting, and of the TPM's responses.
#[derive(Default)]
struct Harms {
    bus: Option<Vec<u8>>,
    responses: std::vec::IntoIter<Harm>,
}

impl Tpm {
    fn new(folder: &TempDir) -> Self {
        let bus = folder.path().join("bus");
        let listener = UnixListener::bind(&bus).expect("a socket");
        // SAFETY: before the first input, and nobody else reads the environment.
        unsafe { std::env::set_var("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={}", bus.display())) };
        let (harms, recorded) = (Arc::new(Mutex::new(Harms::default())), Arc::new(Recorded::read()));
        let shared = harms.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                serve(client, &shared, &recorded);
            }
        });
        Self { harms }
    }

    /// Does these harms from now on.
    fn begin(&self, input: Input) {
        *self.harms.lock().expect("nobody panics") = Harms { bus: input.bus, responses: input.harms.into_iter() };
    }
}

/// A client of the bus, who makes two calls: for a name, and for a connection to the TPM.
fn serve(mut bus: UnixStream, harms: &Arc<Mutex<Harms>>, recorded: &Arc<Recorded>) -> Option<()> {
    for answer in ["OK 00\r\n", "AGREE_UNIX_FD\r\n"] {
        let mut line = Vec::new();
        // The client sends no more than this before the answer.
        while !line.ends_with(b"\r\n") {
            let mut part = [0; 64];
            match bus.read(&mut part).ok()? {
                0 => return None,
                length => line.extend(&part[..length]),
            }
        }
        bus.write_all(answer.as_bytes()).ok()?;
    }
    bus.read_exact(&mut [0; b"BEGIN\r\n".len()]).ok()?;
    call(&mut bus)?;
    if let Some(bytes) = harms.lock().expect("nobody panics").bus.take() {
        return bus.write_all(&bytes).ok();
    }
    // A return value for serial 1, without more; then one for serial 2, with a descriptor.
    bus.write_all(&reply(1, 0)).ok()?;
    call(&mut bus)?;
    let (mut ours, theirs) = UnixStream::pair().ok()?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [theirs.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(&bus, &[IoSlice::new(&reply(2, 1))], &mut control, SendFlags::NOSIGNAL).ok()?;
    let (harms, recorded) = (harms.clone(), recorded.clone());
    std::thread::spawn(move || {
        while let Some(command) = message(&mut ours) {
            let harm = harms.lock().expect("nobody panics").responses.next().unwrap_or(Harm::None);
            let cut = matches!(harm, Harm::Cut(_) | Harm::Bytes(_));
            if ours.write_all(&recorded.answer(&command, harm)).is_err() || cut {
                // Nobody waits for what is not sent.
                break;
            }
        }
    });
    Some(())
}

/// Reads a call, which has no body.
fn call(bus: &mut UnixStream) -> Option<()> {
    let mut head = [0; 16];
    bus.read_exact(&mut head).ok()?;
    let fields = u32::from_ne_bytes(head[12..].try_into().ok()?) as usize;
    bus.read_exact(&mut vec![0; fields.next_multiple_of(8)]).ok()
}

/// A method's return: fields REPLY_SERIAL and UNIX_FDS.
fn reply(serial: u32, descriptors: u32) -> Vec<u8> {
    let endianness = if cfg!(target_endian = "little") { b'l' } else { b'B' };
    let numbers = |numbers: &[u32]| numbers.iter().flat_map(|number| number.to_ne_bytes()).collect::<Vec<_>>();
    let field = |code: u8, value: u32| [vec![code, 1, b'u', 0], numbers(&[value])].concat();
    let fields = [field(5, serial), field(9, descriptors)].concat();
    [vec![endianness, 2, 0, 1], numbers(&[0, 9, fields.len() as u32]), fields].concat()
}

fn message(wire: &mut UnixStream) -> Option<Vec<u8>> {
    let mut message = vec![0; 10];
    wire.read_exact(&mut message).ok()?;
    let length = u32::from_be_bytes(message[2..6].try_into().ok()?) as usize;
    message.resize(length.clamp(10, 4096), 0);
    wire.read_exact(&mut message[10..]).ok()?;
    Some(message)
}

/// What a TPM answered, by the command's code, its parameters where they were recorded, and how it was authorised.
struct Recorded(HashMap<(Vec<u8>, &'static str), Vec<Vec<u8>>>);

impl Recorded {
    fn read() -> Self {
        let mut recorded = HashMap::<_, Vec<_>>::new();
        for line in include_str!("../seeds/exchanges").lines() {
            let [asked, kind, answer] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let bytes = |text| keyrivet_core::hex::decode(text).expect("hexadecimal");
            recorded.entry((bytes(asked), kind)).or_default().push(bytes(answer));
        }
        Self(recorded)
    }

    fn answer(&self, command: &[u8], harm: Harm) -> Vec<u8> {
        let kind = match command {
            [0x80, 0x01, ..] => "none",
            _ if command.windows(9).any(|window| window == [0x40, 0, 0, 9, 0, 0, 1, 0, 0]) => "password",
            _ => "hmac",
        };
        let known = [&command[6..], &command[6..10]].into_iter().find_map(|key| self.0.get(&(key.to_vec(), kind)));
        let nothing = vec![0x80, 0x01, 0, 0, 0, 10, 0, 0, 1, 1];
        let pick = |number: u8| known.map_or(nothing.clone(), |known| known[usize::from(number) % known.len()].clone());
        match harm {
            Harm::None => pick(0),
            Harm::Other(number) => pick(number),
            Harm::Code(number) => [&[0x80, 0x01, 0, 0, 0, 10], &number.to_be_bytes()[..]].concat(),
            Harm::Changed(changes) => changes.into_iter().fold(pick(0), |mut response, (place, value)| {
                let length = response.len();
                response[usize::from(place) % length] = value;
                response
            }),
            Harm::Parameters(parameters) => {
                let tag = pick(0)[..2].to_vec();
                [&tag[..], &(10 + parameters.len() as u32).to_be_bytes(), &[0; 4], &parameters].concat()
            }
            Harm::Cut(length) => {
                let response = pick(0);
                response[..usize::from(length).min(response.len())].to_vec()
            }
            Harm::Bytes(bytes) => bytes,
        }
    }
}
