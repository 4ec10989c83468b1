//! Where the functions of the table are called: two tokens, and an object of every kind.

use std::sync::Arc;

use conformance_tests::{Device, SO_PIN};
use cryptoki_sys::*;

use crate::raw::{Given, P256, PIN, Raw, Rv, call, flag, number};
use crate::walk::call::Call;
use crate::walk::function::{Argument, Data, Function, Login, Mechanism, Place, Template, Thing};
use crate::walk::table::{beginning, function};

/// An initialised library with a token, another one, and a session with the former.
pub(crate) struct World {
    pub(crate) raw: Arc<Raw>,
    slot: CK_SLOT_ID,
    other: CK_SLOT_ID,
    main: CK_SESSION_HANDLE,
}

/// A device and its world.
pub(crate) fn open() -> (Device, World) {
    let device = Device::new();
    let world = World::new(&device);
    (device, world)
}

impl World {
    /// With tokens in slots 0 and 1.
    pub(crate) fn new(device: &Device) -> Self {
        let raw = Arc::new(Raw::initialised(device));
        raw.make_token(0, "dev");
        raw.make_token(1, "other");
        // The next free slot is there from now on.
        assert_eq!(raw.slots(), [0, 1, 2]);
        Self::on(raw, 0, 1)
    }

    /// With tokens that are there, in these slots.
    pub(crate) fn on(raw: Arc<Raw>, slot: CK_SLOT_ID, other: CK_SLOT_ID) -> Self {
        let main = raw.open(slot);
        let world = Self { raw, slot, other, main };
        world.log_in(Login::User);
        world
    }

    /// Initialises the library again.
    pub(crate) fn initialise_again(&mut self) {
        call!(self.raw, C_Initialize(std::ptr::null_mut())).unwrap();
        self.main = self.raw.open(self.slot);
    }

    /// The session that session objects belong to.
    pub(crate) fn main(&self) -> CK_SESSION_HANDLE {
        self.main
    }

    /// Logs in whom a function needs.
    pub(crate) fn log_in(&self, login: Login) {
        let (wanted, user, pin) = match login {
            Login::User => (CKS_RW_USER_FUNCTIONS, CKU_USER, PIN),
            Login::SecurityOfficer => (CKS_RW_SO_FUNCTIONS, CKU_SO, SO_PIN.as_bytes()),
            Login::Nobody => (CKS_RW_PUBLIC_SESSION, CKU_USER, PIN),
        };
        let state = self.raw.state(self.main);
        if state == wanted {
            return;
        }
        if state != CKS_RW_PUBLIC_SESSION {
            call!(self.raw, C_Logout(self.main)).unwrap();
        }
        if login != Login::Nobody {
            self.raw.login(self.main, user, pin).unwrap();
        }
    }

    /// A valid call in a session of its own, with everything done that comes before it.
    pub(crate) fn prepare(&self, function: &'static Function) -> Call<'_> {
        let call = self.prepare_alone(function);
        self.do_before(function, call.session());
        call
    }

    /// The same without what comes before it.
    pub(crate) fn prepare_alone(&self, function: &'static Function) -> Call<'_> {
        self.log_in(function.login);
        if function.session().is_none() {
            return self.call(function, 0);
        }
        let session = self.raw.open(self.slot);
        self.call(function, session).with_session(session)
    }

    /// Does what comes before a function.
    pub(crate) fn do_before(&self, function: &Function, session: CK_SESSION_HANDLE) {
        for name in function.after {
            let earlier = self::function(name);
            assert_eq!(self.call(earlier, session).run(), Ok(()), "{name} before {}", function.name);
        }
    }

    /// A valid call in this session, by itself.
    pub(crate) fn call(&self, function: &'static Function, session: CK_SESSION_HANDLE) -> Call<'_> {
        let mut call = Call::new(&self.raw, function);
        for argument in function.arguments {
            self.add(&mut call, *argument, session);
        }
        call
    }

    /// Whether an operation runs in a session.
    pub(crate) fn is_active(&self, session: CK_SESSION_HANDLE, operation: CK_FLAGS) -> bool {
        match self.call(beginning(operation), session).run() {
            Err(CKR_OPERATION_ACTIVE) => true,
            Ok(()) => {
                self.cancel(session, operation);
                false
            }
            other => panic!("{}: {other:x?}", beginning(operation).name),
        }
    }

    fn cancel(&self, session: CK_SESSION_HANDLE, operation: CK_FLAGS) {
        let begin = beginning(operation);
        if let Some(mechanism) = begin.mechanism() {
            let mut call = self.call(begin, session);
            call.words[mechanism] = 0;
            return call.run().unwrap();
        }
        call!(self.raw, C_SessionCancel(session, operation)).unwrap();
    }

    /// Which of these operations run in a session.
    pub(crate) fn active(&self, session: CK_SESSION_HANDLE, operations: CK_FLAGS) -> CK_FLAGS {
        let each = (0..CK_FLAGS::BITS).map(|bit| (1 as CK_FLAGS) << bit);
        let some = each.filter(|flag| operations & flag != 0);
        some.filter(|flag| self.is_active(session, *flag)).fold(0, |all, flag| all | flag)
    }

    fn add(&self, call: &mut Call<'_>, argument: Argument, session: CK_SESSION_HANDLE) {
        match argument {
            Argument::Session => call.word(session as usize),
            Argument::Slot(place) => call.word(self.slot(place) as usize),
            Argument::Object(thing, _) => call.word(self.object(thing) as usize),
            Argument::NoObject(_) | Argument::Optional | Argument::Reserved => call.word(0),
            Argument::Number(number) => call.word(number as usize),
            Argument::Bytes(data) => call.bytes(self.data(data)),
            Argument::Label => {
                let address = call.keep(vec![b'x'; 32]);
                call.word(address);
            }
            Argument::Mechanism(mechanism) => add_mechanism(call, mechanism),
            Argument::Template(template) => call.template(&self.template(template)),
            Argument::Wanted => call.template(&[(CKA_LABEL, vec![0; 40]), (CKA_CLASS, vec![0; 8])]),
            // The largest structure is CK_TOKEN_INFO.
            Argument::Value => call.zeros(64),
            Argument::Room(words) => {
                call.zeros(words);
                call.word(words);
            }
            Argument::Output | Argument::List(_) => call.output(4096),
        }
    }

    pub(crate) fn slot(&self, place: Place) -> CK_SLOT_ID {
        match place {
            Place::Token => self.slot,
            Place::Other => self.other,
            Place::Free => *self.raw.slots().last().expect("there is always a free slot"),
        }
    }

    fn data(&self, data: Data) -> Vec<u8> {
        match data {
            Data::Text => b"twenty bytes of text".to_vec(),
            Data::Blocks => b"what is two blocks of an AES key".to_vec(),
            Data::Pin => PIN.to_vec(),
            Data::SoPin => SO_PIN.as_bytes().to_vec(),
            Data::From(name) => self.output_of(function(name)),
        }
    }

    /// What a valid call gives.
    pub(crate) fn output_of(&self, function: &'static Function) -> Vec<u8> {
        if !function.works() {
            return b"nothing yet".to_vec();
        }
        let call = self.prepare(function);
        assert_eq!(call.run(), Ok(()), "{}", function.name);
        call.written()
    }

    /// The handle of an object, which is made if it is not there. A handle is not kept: a logout ends it.
    pub(crate) fn object(&self, thing: Thing) -> CK_OBJECT_HANDLE {
        let (class, label) = (class(thing), name(thing));
        let wanted = [(CKA_CLASS, number(class)), (CKA_LABEL, label.clone())];
        // A session of its own, as threads may look at once.
        let session = self.raw.open(self.slot);
        let found = self.raw.find(session, &wanted);
        call!(self.raw, C_CloseSession(session)).unwrap();
        if let Some(found) = found.first() {
            return *found;
        }
        if matches!(thing, Thing::Aes | Thing::Mac | Thing::Secret) && !function("C_GenerateKey").works() {
            return 0;
        }
        self.make(thing, label).unwrap_or_else(|error| panic!("{thing:?}: {error:#x}"))
    }

    fn make(&self, thing: Thing, label: Vec<u8>) -> Rv<CK_OBJECT_HANDLE> {
        let (raw, main) = (&self.raw, self.main);
        let stored = |more: &[Given]| [&[(CKA_TOKEN, flag(true)), (CKA_LABEL, label.clone())][..], more].concat();
        let on = |kinds: &[CK_ATTRIBUTE_TYPE]| kinds.iter().map(|kind| (*kind, flag(true))).collect::<Vec<_>>();
        match thing {
            Thing::Rsa | Thing::RsaPublic => {
                let mut public = on(&[CKA_VERIFY, CKA_ENCRYPT]);
                let mut private = on(&[CKA_SIGN, CKA_DECRYPT]);
                if function("C_SignRecover").works() {
                    public.extend(on(&[CKA_VERIFY_RECOVER, CKA_WRAP]));
                    private.extend(on(&[CKA_SIGN_RECOVER, CKA_UNWRAP]));
                }
                public.push((CKA_MODULUS_BITS, number(2048)));
                let pair = raw.generate(main, CKM_RSA_PKCS_KEY_PAIR_GEN, &stored(&public), &stored(&private))?;
                Ok(if thing == Thing::Rsa { pair.1 } else { pair.0 })
            }
            Thing::Ec | Thing::EcPublic => {
                let public = [(CKA_EC_PARAMS, P256.to_vec()), (CKA_DERIVE, flag(true))];
                let private = on(&[CKA_SIGN, CKA_DERIVE]);
                let pair = raw.generate(main, CKM_EC_KEY_PAIR_GEN, &stored(&public), &stored(&private))?;
                Ok(if thing == Thing::Ec { pair.1 } else { pair.0 })
            }
            Thing::Aes => {
                let more = [(CKA_VALUE_LEN, number(16)), (CKA_ENCRYPT, flag(true)), (CKA_DECRYPT, flag(true))];
                raw.generate_secret(main, CKM_AES_KEY_GEN, &stored(&more))
            }
            Thing::Mac => {
                let more = [(CKA_VALUE_LEN, number(32)), (CKA_SIGN, flag(true)), (CKA_VERIFY, flag(true))];
                raw.generate_secret(main, CKM_GENERIC_SECRET_KEY_GEN, &stored(&more))
            }
            Thing::Secret => {
                let secret = [
                    (CKA_CLASS, number(CKO_SECRET_KEY)),
                    (CKA_KEY_TYPE, number(CKK_GENERIC_SECRET)),
                    (CKA_LABEL, label),
                    (CKA_VALUE, b"a secret in memory".to_vec()),
                    (CKA_EXTRACTABLE, flag(true)),
                    (CKA_SENSITIVE, flag(false)),
                ];
                raw.create(main, &secret)
            }
            Thing::Data | Thing::Scrap => raw.create(main, &stored(&[(CKA_CLASS, number(CKO_DATA))])),
        }
    }

    pub(crate) fn template(&self, template: Template) -> Vec<Given> {
        match template {
            Template::Data => vec![(CKA_CLASS, number(CKO_DATA)), (CKA_VALUE, b"new".to_vec())],
            // The label it has, so that it is found again.
            Template::Label => vec![(CKA_LABEL, name(Thing::Data))],
            Template::AesKey => vec![(CKA_VALUE_LEN, number(16))],
            Template::EcPublic => vec![(CKA_EC_PARAMS, P256.to_vec())],
            Template::EcPrivate => vec![(CKA_LABEL, b"new".to_vec())],
            Template::Secret => vec![
                (CKA_CLASS, number(CKO_SECRET_KEY)),
                (CKA_KEY_TYPE, number(CKK_GENERIC_SECRET)),
                (CKA_LABEL, b"new".to_vec()),
            ],
        }
    }
}

fn class(thing: Thing) -> CK_OBJECT_CLASS {
    match thing {
        Thing::Rsa | Thing::Ec => CKO_PRIVATE_KEY,
        Thing::RsaPublic | Thing::EcPublic => CKO_PUBLIC_KEY,
        Thing::Aes | Thing::Mac | Thing::Secret => CKO_SECRET_KEY,
        Thing::Data | Thing::Scrap => CKO_DATA,
    }
}

/// Its label.
fn name(thing: Thing) -> Vec<u8> {
    match thing {
        Thing::RsaPublic => name(Thing::Rsa),
        Thing::EcPublic => name(Thing::Ec),
        other => format!("{other:?}").into_bytes(),
    }
}

fn add_mechanism(call: &mut Call<'_>, mechanism: Mechanism) {
    match mechanism {
        Mechanism::Sha256 => call.mechanism(CKM_SHA256, vec![]),
        Mechanism::RsaSha256 => call.mechanism(CKM_SHA256_RSA_PKCS, vec![]),
        Mechanism::RsaPkcs => call.mechanism(CKM_RSA_PKCS, vec![]),
        Mechanism::AesCbcPad => call.mechanism(CKM_AES_CBC_PAD, vec![7; 16]),
        Mechanism::AesKeyGen => call.mechanism(CKM_AES_KEY_GEN, vec![]),
        Mechanism::EcKeyPairGen => call.mechanism(CKM_EC_KEY_PAIR_GEN, vec![]),
        Mechanism::Ecdh => {
            let point = call.keep(GENERATOR.to_vec());
            let parameters = CK_ECDH1_DERIVE_PARAMS {
                kdf: CKD_NULL,
                ulSharedDataLen: 0,
                pSharedData: std::ptr::null_mut(),
                ulPublicDataLen: GENERATOR.len() as CK_ULONG,
                pPublicData: point as CK_BYTE_PTR,
            };
            let words = [
                parameters.kdf as usize,
                parameters.ulSharedDataLen as usize,
                parameters.pSharedData as usize,
                parameters.ulPublicDataLen as usize,
                parameters.pPublicData as usize,
            ];
            call.mechanism(CKM_ECDH1_DERIVE, words.iter().flat_map(|word| word.to_ne_bytes()).collect());
        }
    }
}

/// The generator of P-256: the public key that belongs to the private key 1.
pub(crate) const GENERATOR: [u8; 65] = [
    0x04, 0x6b, 0x17, 0xd1, 0xf2, 0xe1, 0x2c, 0x42, 0x47, 0xf8, 0xbc, 0xe6, 0xe5, 0x63, 0xa4, 0x40, 0xf2, 0x77, 0x03,
    0x7d, 0x81, 0x2d, 0xeb, 0x33, 0xa0, 0xf4, 0xa1, 0x39, 0x45, 0xd8, 0x98, 0xc2, 0x96, 0x4f, 0xe3, 0x42, 0xe2, 0xfe,
    0x1a, 0x7f, 0x9b, 0x8e, 0xe7, 0xeb, 0x4a, 0x7c, 0x0f, 0x9e, 0x16, 0x2b, 0xce, 0x33, 0x57, 0x6b, 0x31, 0x5e, 0xce,
    0xcb, 0xb6, 0x40, 0x68, 0x37, 0xbf, 0x51, 0xf5,
];
