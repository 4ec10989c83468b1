//! A TPM that is switched off and on again, in good order or not, between any two calls; and one that is cleared.

mod raw;
mod walk;

use std::ptr::null_mut;

use conformance_tests::{Device, Hold, Token};
use cryptoki_sys::*;
use raw::{PIN, Raw, Rv, call, number};
use walk::{Effect, function, open, working};

/// The calls of a login and a signature, one by one.
struct Calls<'a> {
    raw: &'a Raw,
    pin: &'a [u8],
    session: CK_SESSION_HANDLE,
    private: CK_OBJECT_HANDLE,
}

const COUNT: usize = 7;

impl Calls<'_> {
    fn call(&mut self, number: usize) -> Rv<()> {
        let raw = self.raw;
        match number {
            0 => call!(raw, C_Initialize(null_mut())),
            1 => raw.open_with(0, CKF_SERIAL_SESSION | CKF_RW_SESSION).map(|session| self.session = session),
            2 => raw.login(self.session, CKU_USER, self.pin),
            3 => {
                let found = raw.find(self.session, &[(CKA_CLASS, raw::number(CKO_PRIVATE_KEY))]);
                found.first().map(|key| self.private = *key).ok_or(CKR_OBJECT_HANDLE_INVALID)
            }
            4 => raw.sign_init(self.session, CKM_ECDSA_SHA256, self.private),
            5 => raw.sign(self.session, b"message").map(drop),
            _ => raw.sign_init(self.session, CKM_ECDSA_SHA256, self.private).and_then(|()| {
                let signature = raw.sign(self.session, b"message")?;
                let public = raw.find(self.session, &[(CKA_CLASS, raw::number(CKO_PUBLIC_KEY))])[0];
                raw.verify(self.session, CKM_ECDSA_SHA256, public, b"message", &signature)
            }),
        }
    }
}

/// A TPM that lost its power with a PIN in use counts that, whatever anybody does.
fn restart_and_forget(device: &Device, orderly: bool) {
    device.restart_tpm(orderly);
    if !orderly {
        let _ = device.run(&["tpm2_dictionarylockout", "-c"]).ok();
    }
}

/// Restarts the TPM before each call once, and after the last.
fn restart_before_each(pin: &str, orderly: bool) {
    let device = Device::new();
    let token = Token::new(&device, "dev", pin);
    token.generate("EC:prime256v1", "ec", "01");
    let raw = Raw::load(&device);
    for place in 0..=COUNT {
        let mut calls = Calls { raw: &raw, pin: pin.as_bytes(), session: 0, private: 0 };
        for call in 0..COUNT {
            if call == place {
                // Without a PIN in use there is nothing to forget.
                if pin.is_empty() {
                    device.restart_tpm(orderly);
                } else {
                    restart_and_forget(&device, orderly);
                }
            }
            calls.call(call).unwrap_or_else(|error| panic!("{place} {call} {error:#x}"));
        }
        call!(raw, C_Finalize(null_mut())).unwrap();
    }
}

/// Calls every function by its row of the table, in turn with a restart before it and before each of the calls that come
/// before it.
fn restart_within_each_operation(orderly: bool) {
    let (device, world) = open();
    let mut restarts = 0;
    for last in working() {
        let output = (last.output().is_some() && last.repeats).then(|| world.output_of(last));
        for place in 0..=last.after.len() {
            let call = world.prepare_alone(last);
            for (index, name) in last.after.iter().enumerate() {
                if index == place {
                    restart_and_forget(&device, orderly);
                }
                let answer = world.call(function(name), call.session()).run();
                assert_eq!(answer, Ok(()), "{name} before {}, restart before call {place}", last.name);
            }
            if place == last.after.len() {
                restart_and_forget(&device, orderly);
            }
            let answer = if last.answer == CKR_OK { Ok(()) } else { Err(last.answer) };
            assert_eq!(call.run(), answer, "{}, restart before call {place}", last.name);
            if let Some(output) = &output {
                assert_eq!(&call.written(), output, "{}, restart before call {place}", last.name);
            }
            let runs = matches!(last.effect, Effect::Begins | Effect::Continues);
            let active = world.active(call.session(), last.operations);
            assert_eq!(active, if runs { last.operations } else { 0 }, "{}, restart before call {place}", last.name);
            restarts += 1;
        }
    }
    println!("{restarts} restarts, orderly: {orderly}");
}

#[test]
fn a_restart_of_the_tpm_within_any_operation_is_not_noticed() {
    restart_within_each_operation(true);
}

#[test]
fn a_power_cut_of_the_tpm_within_any_operation_is_not_noticed() {
    restart_within_each_operation(false);
}

#[test]
fn a_restart_of_the_tpm_between_any_two_calls_is_not_noticed_without_a_pin() {
    restart_before_each("", true);
}

#[test]
fn a_restart_of_the_tpm_between_any_two_calls_is_not_noticed_with_a_pin() {
    restart_before_each("1234", true);
}

#[test]
fn a_power_cut_of_the_tpm_between_any_two_calls_is_not_noticed_without_a_pin() {
    restart_before_each("", false);
}

#[test]
fn a_power_cut_of_the_tpm_between_any_two_calls_is_not_noticed_with_a_pin() {
    restart_before_each("1234", false);
}

#[test]
fn a_hundred_power_cuts_do_not_move_the_lockout_counter_of_an_unattended_device() {
    let device = Device::new();
    let token = Token::new(&device, "dev", "");
    token.generate("EC:prime256v1", "ec", "01");
    device.restart_tpm(true);
    let raw = Raw::initialised(&device);
    let mut calls = Calls { raw: &raw, pin: b"", session: 0, private: 0 };
    (1..5).for_each(|call| calls.call(call).unwrap());
    calls.call(5).unwrap();
    for _ in 0..100 {
        device.restart_tpm(false);
        calls.call(6).unwrap();
    }
    assert_eq!(device.lockout_counter(), "0x0");
    println!("100 power cuts, lockout counter 0");
}

#[test]
fn a_cleared_tpm_is_called_a_token_that_is_not_recognised_and_takes_nothing_else_with_it() {
    let device = Device::with_hold(Hold::Default);
    let token = Token::new(&device, "dev", "1234");
    token.generate("EC:prime256v1", "ec", "01");
    let raw = Raw::initialised(&device);
    let mut calls = Calls { raw: &raw, pin: PIN, session: 0, private: 0 };
    (1..6).for_each(|call| calls.call(call).unwrap());
    let _ = device.run(&["tpm2_clear"]).ok();
    assert_eq!(calls.call(6), Err(CKR_TOKEN_NOT_RECOGNIZED));
    // What needs no private key goes on, and the next token can be made beside it.
    let public = raw.find(calls.session, &[(CKA_CLASS, number(CKO_PUBLIC_KEY))]);
    assert_eq!(public.len(), 1);
    let other = Token::new(&device, "new", "1234");
    other.generate("EC:prime256v1", "ec", "01");
    assert_eq!(raw.slots(), [0, 1, 2]);
}
