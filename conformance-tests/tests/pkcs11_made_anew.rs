//! Tokens that another process makes anew while somebody is logged in.

mod forks;
mod raw;

use conformance_tests::{Device, Hold, Token};
use cryptoki_sys::*;
use forks::{Way, child};
use raw::{Raw, Rv, call, flag, number};

/// Logs in, has another process make the token anew, and uses it: that is refused before it costs a try.
fn use_of_before_is_refused(first_use: impl Fn(&Raw, CK_SESSION_HANDLE) -> Rv<()>) {
    let device = Device::with_hold(Hold::Default);
    let _ = Token::new(&device, "dev", "1234");
    let raw = Raw::initialised(&device);
    let session = raw.open(0);
    raw.login(session, CKU_USER, raw::PIN).unwrap();
    raw.generate_ec(session, true);
    child(Way::Exit, || {
        call!(raw, C_Initialize(std::ptr::null_mut())).unwrap();
        raw.make_token(0, "dev");
        let session = raw.open(0);
        raw.login(session, CKU_USER, raw::PIN).unwrap();
        raw.generate_ec(session, true);
        let template = [(CKA_VALUE_LEN, number(32)), (CKA_TOKEN, flag(true)), (CKA_SIGN, flag(true))];
        raw.generate_secret(session, CKM_GENERIC_SECRET_KEY_GEN, &template).unwrap();
        let data = [(CKA_CLASS, number(CKO_DATA)), (CKA_TOKEN, flag(true)), (CKA_PRIVATE, flag(true))];
        raw.create(session, &[&data[..], &[(CKA_VALUE, b"private".to_vec())]].concat()).unwrap();
    })
    .join();
    device.mark();
    assert_eq!(first_use(&raw, session), Err(CKR_USER_NOT_LOGGED_IN));
    assert_eq!(raw.state(session), CKS_RW_PUBLIC_SESSION);
    assert!(device.attacks().is_empty(), "{:?}", device.attacks());
    raw.login(session, CKU_USER, raw::PIN).unwrap();
    assert_eq!(first_use(&raw, session), Ok(()));
}

#[test]
fn a_key_of_a_token_that_another_process_made_anew_signs_after_a_new_login() {
    use_of_before_is_refused(|raw, session| {
        let key = raw.find(session, &[(CKA_CLASS, number(CKO_PRIVATE_KEY))])[0];
        raw.sign_init(session, CKM_ECDSA, key)?;
        raw.sign(session, &[7; 32]).map(drop)
    });
}

#[test]
fn a_secret_key_of_a_token_that_another_process_made_anew_is_used_after_a_new_login() {
    use_of_before_is_refused(|raw, session| {
        let key = raw.find(session, &[(CKA_CLASS, number(CKO_SECRET_KEY))])[0];
        raw.sign_init(session, CKM_SHA256_HMAC, key)?;
        raw.sign(session, b"message").map(drop)
    });
}

#[test]
fn private_data_of_a_token_that_another_process_made_anew_are_read_after_a_new_login() {
    use_of_before_is_refused(|raw, session| {
        let data = raw.find(session, &[(CKA_CLASS, number(CKO_DATA))])[0];
        assert_eq!(raw.get(session, data, CKA_VALUE)?, b"private");
        Ok(())
    });
}

#[test]
fn a_session_key_of_a_token_that_another_process_made_anew_is_made_after_a_new_login() {
    use_of_before_is_refused(|raw, session| {
        let template = [(CKA_VALUE_LEN, number(32)), (CKA_TOKEN, flag(false))];
        raw.generate_secret(session, CKM_GENERIC_SECRET_KEY_GEN, &template).map(drop)
    });
}
