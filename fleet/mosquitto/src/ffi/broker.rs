//! What the broker can be asked for, and one of its clients.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_int};
use std::marker::PhantomData;
use std::ptr::NonNull;

use super::abi;
use super::certificate;

/// The broker, during one of its callbacks. It cannot leave the thread: none of mosquitto's functions may be called
/// from another.
#[derive(Clone, Copy)]
pub(crate) struct Broker<'a> {
    /// What is to be written when the callback has done its work.
    log: &'a RefCell<Vec<(Level, String)>>,
    callback: PhantomData<*const ()>,
}

/// How grave a line of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Notice,
    Error,
}

impl Broker<'_> {
    /// Runs `work` with it, then writes what that has to say.
    ///
    /// # Safety
    ///
    /// The broker has called us, on its own thread, and waits for our return.
    pub(super) unsafe fn during_callback<T>(work: impl FnOnce(Broker<'_>) -> T) -> T {
        let log = RefCell::default();
        let result = work(Broker { log: &log, callback: PhantomData });
        for (level, text) in log.take() {
            write(level, &text);
        }
        result
    }

    /// Writes a line to the broker's log, at the end of the callback: where the log is a topic, too, the broker asks us at
    /// once who may read that, and by then we must have unlocked what we decide by.
    pub(crate) fn log(self, level: Level, text: &str) {
        self.log.borrow_mut().push((level, text.to_owned()));
    }

    /// Publishes a message: to one client, whether it has subscribed or not, or to all who have.
    ///
    /// It goes out when the broker has finished with what it does now.
    pub(crate) fn publish(self, client: Option<&CStr>, topic: &CStr, payload: &[u8], qos: u8) -> bool {
        let Ok(length) = c_int::try_from(payload.len()) else { return false };
        let client = client.map_or(std::ptr::null(), CStr::as_ptr);
        // SAFETY: both strings end with NUL, and `length` bytes of payload can be read; the broker copies all of them.
        let code = unsafe {
            abi::mosquitto_broker_publish_copy(
                client,
                topic.as_ptr(),
                length,
                payload.as_ptr().cast(),
                qos.into(),
                false,
                std::ptr::null_mut(),
            )
        };
        code == abi::ERR_SUCCESS
    }

    /// Closes the connection of a client; of MQTT 5 with reason 0x98, administrative action.
    ///
    /// The broker calls back from within: no lock of ours may be held.
    pub(crate) fn disconnect(self, client_id: &CStr) {
        // SAFETY: the string ends with NUL. Only the tick calls this, when the broker handles no client.
        let _ = unsafe { abi::mosquitto_kick_client_by_clientid(client_id.as_ptr(), false) };
    }
}

fn write(level: Level, text: &str) {
    let level = match level {
        Level::Notice => abi::LOG_NOTICE,
        Level::Error => abi::LOG_ERR,
    };
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let Ok(text) = CString::new(format!("keyrivet: {plain}")) else { return };
    // SAFETY: the format takes one string, which ends with NUL and lives until the call returns.
    unsafe { abi::mosquitto_log_printf(level, c"%s".as_ptr(), text.as_ptr()) };
}

/// A client of the broker, as long as a callback lasts.
#[derive(Clone, Copy)]
pub(crate) struct ClientRef<'a> {
    client: NonNull<abi::mosquitto>,
    callback: PhantomData<&'a ()>,
}

/// Which connection it is: two at a time never have the same, though one may get it after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ConnectionId(usize);

impl<'a> ClientRef<'a> {
    /// # Safety
    ///
    /// `client` is null, or a client that the broker keeps as long as `'a` lasts.
    pub(super) unsafe fn new(client: *mut abi::mosquitto) -> Option<Self> {
        NonNull::new(client).map(|client| Self { client, callback: PhantomData })
    }

    /// Which connection it is.
    pub(crate) fn connection(self) -> ConnectionId {
        ConnectionId(self.client.as_ptr() as usize)
    }

    /// Its client id; `None` of one that was never let in.
    pub(crate) fn id(self) -> Option<&'a CStr> {
        // SAFETY: the client is alive, and its id stays as it is during the callback.
        unsafe {
            let id = abi::mosquitto_client_id(self.client.as_ptr());
            if id.is_null() { None } else { Some(CStr::from_ptr(id)) }
        }
    }

    /// Whether it starts afresh, so that the broker forgets what it had subscribed to before.
    pub(crate) fn starts_clean(self) -> bool {
        // SAFETY: the client is alive.
        unsafe { abi::mosquitto_client_clean_session(self.client.as_ptr()) }
    }

    /// The certificate (DER) that it has shown in the TLS handshake; the broker has checked it by its `cafile`.
    pub(crate) fn certificate(self) -> Option<Vec<u8>> {
        // SAFETY: the client is alive. What comes back is null or an X509 that is ours to free.
        unsafe { certificate::take_der(abi::mosquitto_client_certificate(self.client.as_ptr())) }
    }
}
