//! Any functions of the PKCS#11 list, in any order, with arguments that a C program could give.
#![no_main]

mod module;
mod walk;

use cryptoki_sys::*;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use module::{Entry, KINDS, Mechanism, Memory, World, world};
use walk::function::{Argument, Function, WORDS};
use walk::table::TABLE;

/// A call.
#[derive(Arbitrary, Debug)]
struct Step {
    function: u8,
    session: u8,
    slot: u8,
    objects: [u8; 2],
    /// Which of its words are NULL.
    nulls: u16,
    number: Option<u32>,
    room: u16,
    bytes: [Vec<u8>; 2],
    mechanism: Mechanism,
    templates: [Vec<Entry>; 2],
    wanted: Vec<(u8, u8)>,
}

/// By the calling conventions of the machines we run on, a function ignores the words that it does not take.
type AnyFunction = unsafe extern "C" fn(usize, usize, usize, usize, usize, usize, usize, usize, usize, usize) -> CK_RV;

fuzz_target!(|steps: Vec<Step>| {
    let world = world();
    world.renew();
    let mut state = State::new(world);
    for step in steps.iter().take(40) {
        state.run(step);
    }
});

/// The handles that there are, or were.
struct State {
    world: &'static World,
    sessions: Vec<CK_SESSION_HANDLE>,
    objects: Vec<CK_OBJECT_HANDLE>,
}

impl State {
    fn new(world: &'static World) -> Self {
        let sessions = vec![world.open(0), world.open(0), world.open(1)];
        let objects = [world.objects(sessions[0]), world.objects(sessions[2])].concat();
        Self { world, sessions, objects }
    }

    fn run(&mut self, step: &Step) {
        let function = &TABLE[usize::from(step.function) % TABLE.len()];
        let (mut memory, mut words, mut values) = (Memory::default(), [0; WORDS], Vec::new());
        let (mut bytes, mut templates, mut objects) = (step.bytes.iter(), step.templates.iter(), step.objects.iter());
        for (place, argument) in function.parts() {
            let given: [usize; 2] = match argument {
                Argument::Session => [pick(&self.sessions, step.session), 0],
                Argument::Slot(_) => [usize::from(step.slot % 4), 0],
                Argument::Object(..) | Argument::NoObject(_) => {
                    [pick(&self.objects, *objects.next().unwrap_or(&step.session)), 0]
                }
                // It would wait for ever.
                Argument::Number(usual) if function.name == "C_WaitForSlotEvent" => [usual as usize, 0],
                Argument::Number(usual) => [step.number.map_or(usual as usize, |number| number as usize), 0],
                Argument::Bytes(_) => {
                    let bytes = bytes.next().cloned().unwrap_or_default();
                    let length = bytes.len();
                    [memory.keep(bytes) as usize, length]
                }
                Argument::Label => [memory.keep(vec![step.slot; 32]) as usize, 0],
                Argument::Mechanism(_) => [memory.mechanism(&step.mechanism) as usize, 0],
                Argument::Template(_) => {
                    let template = templates.next().map_or(&[][..], Vec::as_slice);
                    [memory.template(template) as usize, template.len()]
                }
                Argument::Wanted => {
                    let wanted = step.wanted.iter().map(|(kind, room)| CK_ATTRIBUTE {
                        type_: KINDS[usize::from(*kind) % KINDS.len()],
                        pValue: match room {
                            255 => std::ptr::null_mut(),
                            _ => memory.keep(vec![0_u8; usize::from(*room)]).cast(),
                        },
                        ulValueLen: CK_ULONG::from(*room),
                    });
                    let wanted: Vec<_> = wanted.collect();
                    [memory.keep(wanted) as usize, step.wanted.len()]
                }
                Argument::Value => {
                    let value = memory.keep(vec![0_u64; 64]);
                    values.push(value);
                    [value as usize, 0]
                }
                Argument::Room(count) => [memory.keep(vec![0_u64; count]) as usize, count],
                Argument::Output => output(&mut memory, step, 1),
                Argument::List(size) => output(&mut memory, step, size),
                Argument::Optional | Argument::Reserved => [0, 0],
            };
            for (offset, word) in given.into_iter().take(argument.words()).enumerate() {
                let nullable = argument.never_null().contains(&offset) || matches!(argument, Argument::Output);
                words[place + offset] = if nullable && step.nulls >> (place + offset) & 1 != 0 { 0 } else { word };
            }
        }
        let answer = self.call(function, words);
        assert!(answer != CKR_GENERAL_ERROR && answer != CKR_HOST_MEMORY, "{} panics: {step:?}", function.name);
        if answer == CKR_OK {
            for value in values {
                // SAFETY: made above.
                let [handle, ..] = unsafe { memory.kept(value, 1) }[..] else { continue };
                match function.name {
                    "C_OpenSession" => self.sessions.push(handle),
                    _ => self.objects.push(handle),
                }
            }
        }
    }

    fn call(&self, function: &Function, words: [usize; WORDS]) -> CK_RV {
        // SAFETY: the table says where the function is and what it takes, of which `words` has true pointers; a list's
        // entries are pointers to functions.
        unsafe {
            let list = std::ptr::from_ref(self.world.list).cast::<u8>();
            let entry = list.add(function.offset).cast::<Option<AnyFunction>>().read();
            let [a, b, c, d, e, f, g, h, i, j] = words;
            entry.expect("a whole list")(a, b, c, d, e, f, g, h, i, j)
        }
    }
}

/// Room for a result, as the step says.
fn output(memory: &mut Memory, step: &Step, size: usize) -> [usize; 2] {
    let room = usize::from(step.room % 1024);
    let length = memory.keep(vec![room as CK_ULONG]);
    [memory.keep(vec![0_u8; room * size]) as usize, length as usize]
}

fn pick(handles: &[CK_ULONG], number: u8) -> usize {
    match number {
        255 => usize::MAX,
        254 => 0,
        _ if handles.is_empty() => 1,
        _ => handles[usize::from(number) % handles.len()] as usize,
    }
}
