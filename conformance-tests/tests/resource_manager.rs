//! Through the resource manager tpm2-abrmd, which virtualises the TPM's slots for every connection.

mod forks;
mod raw;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::ptr::null_mut;

use conformance_tests::{Device, Hold, ResourceManager, Token, count};
use cryptoki_sys::*;
use forks::{Child, Way, child};
use raw::{PIN, Raw, Rv, call, number};

#[test]
fn tokens_and_keys_work_through_a_resource_manager() {
    let device = Device::with_hold(Hold::Default);
    let _manager = ResourceManager::start(&device);
    let (gateway, sensor) = (Token::new(&device, "gateway", "123456"), Token::new(&device, "sensor", ""));
    gateway.generate("rsa:2048", "key", "01");
    sensor.generate("EC:prime256v1", "key", "01");
    device.new_key_file(["EC", "group:P-256"], "key.pem");
    for key in [gateway.uri("key"), sensor.uri("key"), "key.pem".into()] {
        let _ = device.openssl(&["dgst", "-sha256", "-sign", &key, "-out", "signature", "openssl.cnf"]).ok().silent();
        let public = device.openssl(&["pkey", "-in", &key, "-pubout", "-out", "public.pem"]).ok();
        let _ = public.silent();
        let verify = ["openssl", "dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", "openssl.cnf"];
        let _ = device.run(&verify).ok();
    }
}

/// It takes 27 connections at a time.
#[test]
fn sixty_four_signers_at_once_share_a_resource_manager() {
    let device = Device::with_hold(Hold::Default);
    let _manager = ResourceManager::start(&device);
    let token = Token::new(&device, "gateway", "123456");
    token.generate("EC:prime256v1", "key", "01");
    let signers: Vec<_> = (0..64).map(|number| token.start_signer("key", "01", number)).collect();
    for signer in signers {
        let output = signer.wait_with_output().expect("the signer ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    println!("64 signers, through module and provider, all succeeded");
}

#[test]
fn a_resource_manager_that_is_not_there_is_named() {
    let device = Device::with_hold(Hold::Default);
    let token = Token::new(&device, "gateway", "");
    token.generate("EC:prime256v1", "key", "01");
    let sign = || device.openssl(&["dgst", "-sha256", "-sign", &token.uri("key"), "-out", "signature", "openssl.cnf"]);
    let manager = ResourceManager::start(&device);
    let _ = sign().ok();
    // A bus without that manager; no bus.
    let nobody = "tabrmd:bus_name=nobody.at.all,bus_type=session";
    device.use_tcti(nobody);
    let _ = sign().fails_with("nobody.at.all was not provided").says(&format!("no TPM at '{nobody}'"));
    drop(manager);
    let _ = sign().fails_with("D-Bus at unix:path=");
}

/// A process that is logged in, has signed, and idles.
struct Idle {
    process: Child,
    wire: UnixStream,
}

impl Idle {
    fn start(raw: &Raw) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let process = child(Way::Exit, || {
            let signer = Signer::new(raw);
            signer.sign();
            (&theirs).write_all(&[1]).unwrap();
            forks::wait_as_long_as_it_takes();
            (&theirs).read_exact(&mut [0]).unwrap();
            forks::have_another_minute();
            signer.sign();
        });
        drop(theirs);
        (&ours).read_exact(&mut [0]).expect("it signs before it idles");
        Self { process, wire: ours }
    }

    /// Has it sign once more, and end.
    fn end(mut self) {
        self.wire.write_all(&[1]).unwrap();
        self.process.join();
    }
}

struct Signer<'a> {
    raw: &'a Raw,
    session: CK_SESSION_HANDLE,
    key: CK_OBJECT_HANDLE,
}

impl<'a> Signer<'a> {
    fn new(raw: &'a Raw) -> Self {
        call!(raw, C_Initialize(null_mut())).unwrap();
        let session = raw.open(0);
        raw.login(session, CKU_USER, PIN).unwrap();
        let key = raw.find(session, &[(CKA_CLASS, number(CKO_PRIVATE_KEY))])[0];
        Self { raw, session, key }
    }

    fn try_sign(&self) -> Rv<Vec<u8>> {
        self.raw.sign_init(self.session, CKM_ECDSA, self.key)?;
        self.raw.sign(self.session, &[7; 32])
    }

    fn sign(&self) {
        self.try_sign().unwrap();
    }
}

#[test]
fn seventy_processes_idle_logged_in_and_the_seventy_first_signs() {
    let device = Device::with_hold(Hold::Default);
    Token::new(&device, "dev", "1234").generate("EC:prime256v1", "key", "01");
    let _manager = ResourceManager::start(&device);
    let raw = Raw::load(&device);
    let idle: Vec<_> = (0..70).map(|_| Idle::start(&raw)).collect();
    let signer = Signer::new(&raw);
    (0..3).for_each(|_| signer.sign());
    println!("{} processes idle, another signs, they sign on", idle.len());
    idle.into_iter().for_each(Idle::end);
    signer.sign();
    forks::assert_no_attack(&device);
}

#[test]
fn a_resource_manager_that_is_started_again_is_not_noticed() {
    let device = Device::with_hold(Hold::Default);
    Token::new(&device, "dev", "1234").generate("EC:prime256v1", "key", "01");
    let mut manager = ResourceManager::start(&device);
    let raw = Raw::load(&device);
    let signer = Signer::new(&raw);
    for _ in 0..3 {
        signer.sign();
        drop(manager);
        assert!(signer.try_sign().is_err());
        manager = ResourceManager::start(&device);
        signer.sign();
    }
    drop(manager);
    forks::assert_no_attack(&device);
}

#[test]
fn a_tpm_that_stands_still_behind_a_resource_manager_is_not_waited_for_for_ever() {
    let device = Device::with_hold(Hold::Default);
    Token::new(&device, "dev", "1234").generate("EC:prime256v1", "key", "01");
    let _manager = ResourceManager::start(&device);
    device.configure("timeout_ms = 300\n");
    let raw = Raw::load(&device);
    let signer = Signer::new(&raw);
    let tpm = device.tpm_process_id().to_string();
    for _ in 0..3 {
        signer.sign();
        let _ = device.run(&["kill", "-STOP", &tpm]).ok();
        assert_eq!(signer.try_sign(), Err(CKR_DEVICE_REMOVED));
        let _ = device.run(&["kill", "-CONT", &tpm]).ok();
        signer.sign();
    }
    forks::assert_no_attack(&device);
}

#[test]
fn a_process_idles_logged_in_while_another_signs_again_and_again() {
    let device = Device::with_hold(Hold::Default);
    Token::new(&device, "dev", "1234").generate("EC:prime256v1", "key", "01");
    let _manager = ResourceManager::start(&device);
    let raw = Raw::load(&device);
    let idle = Idle::start(&raw);
    let signer = Signer::new(&raw);
    let signatures = count(1_000, 70_000);
    (0..signatures).for_each(|_| signer.sign());
    idle.end();
    signer.sign();
    println!("{signatures} signatures beside an idle process");
}
