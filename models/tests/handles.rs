//! The module's handles, sessions and logins, with threads in many orders: no deadlock, no handle twice, nothing left.

mod orders;

use std::path::Path;
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, OnceLock};

use cryptoki_sys::*;
use keyrivet_pkcs11 as _;
use orders::in_threads;
use tempfile::TempDir;

unsafe extern "C" {
    fn C_GetInterface(
        name: *const u8,
        version: *const CK_VERSION,
        interface: *mut *mut CK_INTERFACE,
        flags: CK_FLAGS,
    ) -> CK_RV;
}

macro_rules! call {
    ($name:ident($($argument:expr),* $(,)?)) => {{
        // SAFETY: the tests give what the function may be given.
        unsafe { list().$name.expect(stringify!($name))($($argument),*) }
    }};
}

/// The module's functions, over a store with two tokens, and no TPM.
fn list() -> &'static CK_FUNCTION_LIST_3_2 {
    static LIST: OnceLock<(TempDir, &CK_FUNCTION_LIST_3_2)> = OnceLock::new();
    LIST.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/pkcs11/seeds/store");
        for token in std::fs::read_dir(seeds).unwrap().map(|entry| entry.unwrap().path()) {
            let copy = folder.path().join(token.file_name().unwrap());
            std::fs::create_dir(&copy).unwrap();
            for file in std::fs::read_dir(token).unwrap().map(|entry| entry.unwrap().path()) {
                std::fs::copy(&file, copy.join(file.file_name().unwrap())).unwrap();
            }
        }
        // SAFETY: before there are threads.
        unsafe {
            std::env::set_var("KEYRIVET_STORE", folder.path());
            std::env::set_var("KEYRIVET_TCTI", "device:/nowhere/at/all");
        }
        let mut interface: *mut CK_INTERFACE = null_mut();
        // SAFETY: this is the function's type in the standard, and what it gives lasts.
        let list = unsafe {
            assert_eq!(C_GetInterface(null_mut(), null_mut(), &mut interface, 0), CKR_OK);
            &*(*interface).pFunctionList.cast::<CK_FUNCTION_LIST_3_2>()
        };
        (folder, list)
    })
    .1
}

fn try_open(slot: CK_SLOT_ID) -> Result<CK_SESSION_HANDLE, CK_RV> {
    let mut session = 0;
    match call!(C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, null_mut(), None, &mut session)) {
        CKR_OK => Ok(session),
        error => Err(error),
    }
}

fn find(session: CK_SESSION_HANDLE) -> Result<Vec<CK_OBJECT_HANDLE>, CK_RV> {
    let (mut found, mut count) = ([0; 64], 0);
    for answer in [
        call!(C_FindObjectsInit(session, null_mut(), 0)),
        call!(C_FindObjects(session, found.as_mut_ptr(), 64, &mut count)),
        call!(C_FindObjectsFinal(session)),
    ] {
        if answer != CKR_OK {
            return Err(answer);
        }
    }
    Ok(found[..count as usize].to_vec())
}

fn sessions(slot: CK_SLOT_ID) -> CK_ULONG {
    let mut info = CK_TOKEN_INFO::default();
    assert_eq!(call!(C_GetTokenInfo(slot, &mut info)), CKR_OK);
    info.ulSessionCount
}

fn in_many_orders(model: impl Fn() + Send + Sync + 'static) {
    list();
    let rounds = orders::rounds(300);
    let run = move || {
        assert_eq!(call!(C_Initialize(null_mut())), CKR_OK);
        model();
        call!(C_Finalize(null_mut()));
    };
    let mut config = shuttle::Config::new();
    // A thread here reads files, parses them, and speaks ASN.1.
    config.stack_size = 4 << 20;
    shuttle::Runner::new(shuttle::scheduler::RandomScheduler::new(rounds), config).run(run);
}

#[test]
fn sessions_of_threads_have_handles_of_their_own() {
    in_many_orders(|| {
        let opened = Arc::new(Mutex::new(Vec::new()));
        let all = opened.clone();
        in_threads(4, move |number| {
            let own = [0, 1].map(|slot| try_open(slot).unwrap());
            all.lock().unwrap().extend(own);
            if number % 2 == 0 {
                assert_eq!(call!(C_CloseSession(own[0])), CKR_OK);
                assert_eq!(call!(C_CloseSession(own[0])), CKR_SESSION_HANDLE_INVALID);
            }
        });
        let mut handles = opened.lock().unwrap().clone();
        handles.sort_unstable();
        handles.dedup();
        assert_eq!(handles.len(), 8);
        assert_eq!((sessions(0), sessions(1)), (2, 4));
    });
}

#[test]
fn an_object_has_one_handle_for_all_threads_while_sessions_come_and_go() {
    in_many_orders(|| {
        let keeper = try_open(0).unwrap();
        let expected = find(keeper).unwrap();
        assert!(!expected.is_empty());
        in_threads(3, move |_| {
            let own = try_open(0).unwrap();
            assert_eq!(find(own).unwrap(), expected);
            assert_eq!(call!(C_CloseSession(own)), CKR_OK);
        });
        assert_eq!(sessions(0), 1);
    });
}

#[test]
fn closing_all_sessions_while_others_open_them_leaves_only_what_is_known() {
    in_many_orders(|| {
        in_threads(3, |number| {
            if number == 0 {
                assert_eq!(call!(C_CloseAllSessions(0)), CKR_OK);
                return;
            }
            let own = try_open(0).unwrap();
            let found = find(own);
            assert!(found.is_ok() || found == Err(CKR_SESSION_HANDLE_INVALID), "{found:x?}");
            let closed = call!(C_CloseSession(own));
            assert!(matches!(closed, CKR_OK | CKR_SESSION_HANDLE_INVALID), "{closed:#x}");
        });
        assert_eq!(sessions(0), 0, "a session that nobody has a handle of");
    });
}

#[test]
fn a_session_is_open_just_when_its_slot_counts_it_though_all_were_closed_when_it_was_opened() {
    in_many_orders(|| {
        let opened = Arc::new(Mutex::new(Vec::new()));
        let all = opened.clone();
        in_threads(4, move |number| {
            if number == 0 {
                assert_eq!(call!(C_CloseAllSessions(0)), CKR_OK);
                return;
            }
            let own = try_open(0).unwrap();
            all.lock().unwrap().push(own);
        });
        let is_open = |session: &&CK_SESSION_HANDLE| {
            let mut info = CK_SESSION_INFO::default();
            call!(C_GetSessionInfo(**session, &mut info)) == CKR_OK
        };
        let opened = opened.lock().unwrap();
        assert_eq!(opened.iter().filter(is_open).count() as CK_ULONG, sessions(0));
    });
}

#[test]
fn finalising_in_the_middle_of_anything_ends_it() {
    in_many_orders(|| {
        in_threads(3, |number| {
            if number == 0 {
                assert_eq!(call!(C_Finalize(null_mut())), CKR_OK);
                return;
            }
            // The last is what a search finds that was begun before.
            let gone = [
                CKR_CRYPTOKI_NOT_INITIALIZED,
                CKR_SESSION_HANDLE_INVALID,
                CKR_SLOT_ID_INVALID,
                CKR_OPERATION_NOT_INITIALIZED,
            ];
            match try_open(0) {
                Err(error) => assert!(gone.contains(&error), "{error:#x}"),
                Ok(own) => {
                    for answer in [find(own).err().unwrap_or(CKR_OK), call!(C_CloseSession(own))] {
                        assert!(answer == CKR_OK || gone.contains(&answer), "{answer:#x}");
                    }
                }
            }
        });
        assert_eq!(call!(C_Initialize(null_mut())), CKR_OK);
        assert_eq!(sessions(0), 0);
    });
}

#[test]
fn logins_of_threads_count_once_and_end_with_the_last_session() {
    // Without a TPM there is a login to the token without a PIN only.
    in_many_orders(|| {
        in_threads(3, |_| {
            let own = try_open(0).unwrap();
            let answer = call!(C_Login(own, CKU_USER, null_mut(), 0));
            assert!(matches!(answer, CKR_OK | CKR_USER_ALREADY_LOGGED_IN), "{answer:#x}");
            let answer = call!(C_Logout(own));
            assert!(matches!(answer, CKR_OK | CKR_USER_NOT_LOGGED_IN), "{answer:#x}");
            assert_eq!(call!(C_CloseSession(own)), CKR_OK);
        });
        let own = try_open(0).unwrap();
        assert_eq!(call!(C_Logout(own)), CKR_USER_NOT_LOGGED_IN);
    });
}
