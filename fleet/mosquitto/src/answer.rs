//! What the broker asks, and what it is answered.

use std::ffi::CStr;

/// What a client wants to do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// To be given a message.
    Read,
    /// To publish one.
    Write { qos: u8, size: usize },
    /// To subscribe.
    Subscribe { qos: u8 },
    /// To end a subscription.
    Unsubscribe,
}

/// A message that a client published.
pub(crate) struct Message<'a> {
    pub(crate) topic: &'a CStr,
    pub(crate) payload: &'a [u8],
    pub(crate) qos: u8,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Yes.
    Allowed,
    /// Yes; and the message is dealt with: nobody else needs it.
    Taken,
    /// No.
    Denied,
    /// No, because of the message's quality of service: the broker ends the connection.
    DeniedQos,
    /// It cannot be done now. The broker ends the connection without acknowledging the message, so that the client sends it
    /// again.
    Failed,
    /// That is for others to say: the broker's own files, another plugin.
    NotOurs,
}
