//! A small C program that uses EVP only: it signs, decrypts and derives, in threads and in children.

mod matrix;

use conformance_tests::{Hold, Output, Run as _};
use matrix::activation::{ALL, Activation};
use matrix::{EC, Key, Kind, Matrix, RSA};

const SOURCE: &str = include_str!("../programs/evp.c");

#[test]
fn it_signs_decrypts_and_derives() {
    for (kind, jobs) in [(RSA, ["sign", "decrypt"]), (EC, ["sign", "derive"])] {
        let program = Program::new(kind, Hold::ToTheEnd);
        for job in jobs {
            program.each(|key, activation| {
                let (_, commands) = program.run(key, activation, job);
                let uses = commands.iter().filter(|name| ["Sign", "RSA_Decrypt", "ECDH_ZGen"].contains(&name.as_str()));
                assert_eq!(uses.count(), 1, "{job} {}: {commands:?}", key.reference);
            });
        }
    }
}

#[test]
fn it_verifies_a_chain_of_certificates_that_hold_the_key_itself() {
    for kind in [RSA, EC] {
        let program = Program::new(kind, Hold::ToTheEnd);
        program.each(|key, activation| {
            let (_, commands) = program.run(key, activation, "chain");
            assert_eq!(commands.iter().filter(|name| *name == "Sign").count(), 2, "{}: {commands:?}", key.reference);
        });
    }
}

#[test]
fn keys_that_are_used_once_are_given_to_nobody() {
    let program = Program::new(EC, Hold::ToTheEnd);
    program.each(|key, activation| {
        let _ = program.run(key, activation, "once");
    });
}

#[test]
fn four_threads_sign_with_one_key() {
    for kind in [RSA, EC] {
        let program = Program::new(kind, Hold::Default);
        program.each(|key, activation| {
            let (_, commands) = program.run(key, activation, "threads");
            assert_eq!(commands.iter().filter(|name| *name == "Sign").count(), 4 * 10, "{commands:?}");
        });
    }
}

#[test]
fn parent_and_three_children_sign_with_one_key_and_free_only_their_own() {
    let program = Program::new(EC, Hold::Default);
    program.each(|key, activation| {
        let (output, commands) = program.run(key, activation, "fork");
        assert_eq!(commands.iter().filter(|name| *name == "Sign").count(), 2 + 5 * 10, "{output}");
        assert!(program.matrix.device.attacks().is_empty(), "{commands:?}");
    });
}

// A process that has just signed still has a thread of ours, which waits; its child inherits everything but the thread.
#[test]
fn children_of_a_process_that_has_just_signed_sign_in_threads() {
    let program = Program::new(EC, Hold::Default);
    for key in program.matrix.keys() {
        let (output, commands) = program.run(key, Activation::DefaultFirst, "families");
        assert_eq!(commands.iter().filter(|name| *name == "Sign").count(), 10 * (1 + 4 * 10), "{output}");
        assert!(program.matrix.device.attacks().is_empty(), "{commands:?}");
    }
}

/// The program, and keys for it.
struct Program {
    matrix: Matrix,
}

impl Program {
    fn new(kind: Kind, hold: Hold) -> Self {
        let matrix = Matrix::new(kind, hold);
        matrix.device.write("evp.c", SOURCE);
        let _ =
            matrix.device.run(&["cc", "-Wall", "-Werror", "-o", "evp", "evp.c", "-lssl", "-lcrypto", "-pthread"]).ok();
        Self { matrix }
    }

    fn each(&self, mut check: impl FnMut(&Key, Activation)) {
        for key in self.matrix.keys() {
            for activation in ALL {
                check(key, activation);
            }
        }
    }

    /// Runs it; also, what it asked of the TPM.
    fn run(&self, key: &Key, activation: Activation, job: &str) -> (Output, Vec<String>) {
        let device = &self.matrix.device;
        device.mark();
        let mut command = device.command("./evp");
        let output = command.env("OPENSSL_CONF", activation.configuration(device)).args([&key.reference, job]).run();
        (output.ok().silent(), device.commands())
    }
}
