//! What a client that was let in may do: publish and subscribe on its own topics, and on those it is attached to.

use std::collections::HashSet;

use crate::limit::Limit;
use crate::name::{DeviceId, DeviceName};
use crate::refusal::{Refusal, shown};
use crate::rules::topic::{Channel, Topic};
use crate::timestamp::Timestamp;

/// A device that was let in. Whoever holds the connection keeps it: a plugin by its client, a hook by the client's id.
#[derive(Clone, Debug)]
pub struct Session {
    /// Who it is.
    pub device: DeviceName,
    /// The number that the device was made with: another one of the same name is another device.
    pub number: i64,
    /// Whether it is a gateway.
    pub is_gateway: bool,
    /// When what it showed ends: the broker closes the connection then.
    pub expires: Timestamp,
    /// The devices that this gateway speaks for now.
    pub attached: HashSet<DeviceId>,
    /// In which second an event of the device itself was last noted.
    pub(crate) event_noted: i64,
    /// The state of the registry that this was last compared with.
    pub(crate) generation: u64,
}

impl Session {
    /// The full name of the device with this id in the session's registry. Costs little for those it speaks for.
    pub fn device_named(&self, id: &str) -> Result<DeviceName, Refusal> {
        if id == self.device.id.as_str() {
            return Ok(self.device.clone());
        }
        let id = self.attached.get(id).cloned().map_or_else(|| DeviceId::parse(id), Ok)?;
        Ok(self.device.sibling(id))
    }
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// To publish so many bytes with this QoS.
    Publish {
        /// 0, 1 or 2.
        qos: u8,
        /// Bytes of the payload; `None` where a broker does not tell.
        size: Option<usize>,
    },
    /// To subscribe.
    Subscribe,
    /// To be given a message.
    Receive,
}

/// Whether the client may do that, and what the topic is.
pub fn authorise<'a>(session: &Session, action: Action, topic: &'a str) -> Result<Topic<'a>, Refusal> {
    let topic = match action {
        Action::Publish { qos: 2.., .. } => return Err(Refusal::QosTwo),
        Action::Publish { .. } => Topic::published(topic)?,
        Action::Subscribe => Topic::subscribed(topic)?,
        Action::Receive => Topic::received(topic)?,
    };
    if matches!(topic.channel, Channel::Attach | Channel::Detach) {
        check_control(session, topic)?;
    } else {
        check_speaks_for(session, topic)?;
    }
    match action {
        Action::Publish { size: Some(size), .. } if !topic.limit().allows(size) => {
            Err(Refusal::TooLarge { limit: topic.limit(), size })
        }
        _ => Ok(topic),
    }
}

/// Attaching and detaching: for gateways only. Whether this device may be attached is decided with the message.
fn check_control(session: &Session, topic: Topic<'_>) -> Result<(), Refusal> {
    if !session.is_gateway {
        return Err(Refusal::NotAGateway { device: session.device.id.to_string() });
    }
    DeviceId::parse(topic.device).map(drop)
}

fn check_speaks_for(session: &Session, topic: Topic<'_>) -> Result<(), Refusal> {
    let own = session.device.id.as_str();
    if topic.device == own {
        return Ok(());
    }
    if !session.is_gateway {
        return Err(Refusal::OtherDevice { own: own.to_owned(), other: shown(topic.device, Limit::ID.most) });
    }
    // A gateway subscribes to a device's errors before it attaches it, to learn why that failed.
    if topic.channel == Channel::Errors || session.attached.contains(topic.device) {
        return Ok(());
    }
    Err(Refusal::NotAttached { gateway: own.to_owned(), device: shown(topic.device, Limit::ID.most) })
}
