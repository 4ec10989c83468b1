//! Templates and attribute buffers: objects of every class are made, found, read, copied and changed by them.
#![no_main]

mod module;

use cryptoki_sys::*;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use module::{Entry, KINDS, Mechanism, Memory, call, world};

#[derive(Arbitrary, Debug)]
struct Input {
    locked: bool,
    /// What is to be made; the attributes come on top of it.
    base: u8,
    entries: Vec<Entry>,
    changes: Vec<Entry>,
    /// An object that is there.
    object: u8,
    mechanism: Mechanism,
    /// How much room there is for each attribute.
    rooms: Vec<u8>,
}

/// What a class cannot do without.
fn base(number: u8) -> Vec<Entry> {
    let number_of = |number: CK_ULONG| number.to_ne_bytes();
    let of = |class: CK_ULONG, more: &[(CK_ATTRIBUTE_TYPE, &[u8])]| {
        let class = Entry::of(CKA_CLASS, &number_of(class));
        [class].into_iter().chain(more.iter().map(|(kind, value)| Entry::of(*kind, value))).collect()
    };
    match number % 7 {
        0 => Vec::new(),
        1 => of(CKO_DATA, &[]),
        2 => of(CKO_CERTIFICATE, &[(CKA_CERTIFICATE_TYPE, &number_of(CKC_X_509)), (CKA_VALUE, CERTIFICATE)]),
        3 => of(CKO_PUBLIC_KEY, &[(CKA_KEY_TYPE, &number_of(CKK_RSA)), (CKA_PUBLIC_EXPONENT, &[1, 0, 1])]),
        4 => of(CKO_PUBLIC_KEY, &[(CKA_KEY_TYPE, &number_of(CKK_EC))]),
        5 => of(CKO_PRIVATE_KEY, &[(CKA_KEY_TYPE, &number_of(CKK_EC))]),
        _ => of(CKO_SECRET_KEY, &[(CKA_KEY_TYPE, &number_of(CKK_GENERIC_SECRET))]),
    }
}

const CERTIFICATE: &[u8] = include_bytes!("../seeds/certificate.der");

fuzz_target!(|input: Input| {
    let world = world();
    world.renew();
    let list = world.list;
    let session = world.open(CK_SLOT_ID::from(input.locked));
    let there = world.objects(session);
    let mut memory = Memory::default();
    let template: Vec<Entry> = base(input.base).into_iter().chain(input.entries.iter().cloned()).collect();
    let (attributes, count) = (memory.template(&template), template.len() as CK_ULONG);
    let (changes, change_count) = (memory.template(&input.changes), input.changes.len() as CK_ULONG);
    let never = |answer: CK_RV| assert!(answer != CKR_GENERAL_ERROR && answer != CKR_HOST_MEMORY, "{input:?}");

    let mut made = 0;
    never(call!(list, C_CreateObject(session, attributes, count, &mut made)));
    let mechanism = memory.mechanism(&input.mechanism);
    let (mut first, mut second) = (0, 0);
    never(call!(list, C_GenerateKey(session, mechanism, attributes, count, &mut first)));
    never(call!(
        list,
        C_GenerateKeyPair(session, mechanism, attributes, count, changes, change_count, &mut first, &mut second)
    ));
    let known = there.get(usize::from(input.object) % there.len().max(1)).copied();
    for object in [Some(made).filter(|made| *made != 0), known].into_iter().flatten() {
        read(&mut memory, session, object, &input.rooms);
        let mut copy = 0;
        never(call!(list, C_CopyObject(session, object, changes, change_count, &mut copy)));
        never(call!(list, C_SetAttributeValue(session, object, changes, change_count)));
        read(&mut memory, session, object, &[]);
    }
    if call!(list, C_FindObjectsInit(session, attributes, count)) == CKR_OK {
        let (mut found, mut many) = ([0; 8], 0);
        never(call!(list, C_FindObjects(session, found.as_mut_ptr(), 8, &mut many)));
        assert!(many <= 8);
        never(call!(list, C_FindObjectsFinal(session)));
    }
});

/// Reads every attribute: how long it is, then with that room it is given; and into the rooms that the input says.
fn read(memory: &mut Memory, session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE, rooms: &[u8]) {
    let list = world().list;
    let get = |wanted: &mut [CK_ATTRIBUTE]| {
        call!(list, C_GetAttributeValue(session, object, wanted.as_mut_ptr(), wanted.len() as CK_ULONG))
    };
    // All in one call: the file is looked at in each.
    let asked = |kind: &CK_ATTRIBUTE_TYPE| CK_ATTRIBUTE { type_: *kind, pValue: std::ptr::null_mut(), ulValueLen: 0 };
    let mut wanted: Vec<_> = KINDS.iter().map(asked).collect();
    let answer = get(&mut wanted);
    let there = |wanted: &CK_ATTRIBUTE| wanted.ulValueLen != CK_UNAVAILABLE_INFORMATION;
    assert_eq!(answer == CKR_OK, wanted.iter().all(there), "{answer:#x}");
    wanted.retain(there);
    let lengths: Vec<_> = wanted.iter().map(|wanted| wanted.ulValueLen).collect();
    for wanted in &mut wanted {
        wanted.pValue = memory.keep(vec![0_u8; wanted.ulValueLen as usize]).cast();
    }
    // Nothing is there of an object that is gone.
    if !wanted.is_empty() {
        assert_eq!(get(&mut wanted), CKR_OK);
    }
    assert!(wanted.iter().map(|wanted| wanted.ulValueLen).eq(lengths));
    let wanted = rooms.iter().zip(KINDS.iter().cycle()).map(|(room, kind)| CK_ATTRIBUTE {
        type_: *kind,
        pValue: memory.keep(vec![0_u8; usize::from(*room)]).cast(),
        ulValueLen: CK_ULONG::from(*room),
    });
    let wanted: Vec<_> = wanted.collect();
    let (count, wanted) = (wanted.len() as CK_ULONG, memory.keep(wanted));
    let answer = call!(list, C_GetAttributeValue(session, object, wanted, count));
    assert_ne!(answer, CKR_GENERAL_ERROR);
}
