//! The topics of a device: `/devices/D/events`, `state`, `config`, `commands`, `errors`, `attach`, `detach`.

use std::fmt;

use crate::limit::Limit;
use crate::name::RegistryName;
use crate::refusal::{Refusal, shown};

/// A topic below `/devices/D/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic<'a> {
    /// Whose topic it is.
    pub device: &'a str,
    /// What it is for.
    pub channel: Channel<'a>,
}

/// What a topic is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel<'a> {
    /// Telemetry, up; the subfolder may be empty.
    Events(&'a str),
    /// The device's state, up.
    State,
    /// The device's configuration, down.
    Config,
    /// Commands, down; the subfolder may be empty, or `#`.
    Commands(&'a str),
    /// Errors about the devices of a gateway, down.
    Errors,
    /// A gateway begins to speak for the device.
    Attach,
    /// A gateway ends that.
    Detach,
}

impl<'a> Topic<'a> {
    /// Reads a topic that a message is published to.
    pub fn published(text: &'a str) -> Result<Self, Refusal> {
        let topic = Self::parse(text).ok_or_else(|| unknown(text))?;
        match topic.channel {
            Channel::Events(_) | Channel::State | Channel::Attach | Channel::Detach => Ok(topic),
            Channel::Config | Channel::Commands(_) | Channel::Errors => {
                Err(refused(text, "is for the registry to publish on, not for devices"))
            }
        }
    }

    /// Reads what is subscribed to: `config`, `errors`, `commands/#`, or a subfolder of `commands`.
    pub fn subscribed(text: &'a str) -> Result<Self, Refusal> {
        let topic = Self::parse(text).ok_or_else(|| {
            if text.contains(['#', '+']) {
                return refused(text, "has a wildcard: only /devices/D/commands/# may");
            }
            unknown(text)
        })?;
        match topic.channel {
            Channel::Config | Channel::Errors | Channel::Commands(_) => Ok(topic),
            _ => Err(refused(text, "cannot be subscribed to: config, commands/# and errors can")),
        }
    }

    /// Reads the topic of a message on its way to a device.
    pub fn received(text: &'a str) -> Result<Self, Refusal> {
        Self::subscribed(text)
    }

    /// Whether the text is a device's topic at all.
    pub fn is_claimed_by(text: impl AsRef<[u8]>) -> bool {
        text.as_ref().starts_with(b"/devices/")
    }

    /// How many bytes a message on it may have.
    pub fn limit(&self) -> Limit {
        match self.channel {
            Channel::Events(_) => Limit::EVENT,
            Channel::State => Limit::STATE,
            Channel::Config => Limit::CONFIG,
            Channel::Commands(_) => Limit::COMMAND,
            Channel::Errors | Channel::Attach | Channel::Detach => Limit::ATTACH,
        }
    }

    fn parse(text: &'a str) -> Option<Self> {
        // Byte by byte: half the work of searching in so short a text, and each message is asked about twice.
        let split = |text: &'a str| text.bytes().position(|byte| byte == b'/').map(|at| (&text[..at], &text[at + 1..]));
        let (device, rest) = split(text.strip_prefix("/devices/")?)?;
        let (name, below) = split(rest).map_or((rest, None), |(name, below)| (name, Some(below)));
        let subfolder = below.unwrap_or_default();
        let plain = |text: &str| !text.bytes().any(|byte| matches!(byte, b'#' | b'+' | 0));
        let fits = below != Some("") && Limit::SUBFOLDER.allows(subfolder.len());
        let channel = match name {
            "events" if fits && plain(subfolder) => Channel::Events(subfolder),
            "commands" if fits && (subfolder == "#" || plain(subfolder)) => Channel::Commands(subfolder),
            _ if below.is_some() => return None,
            "state" => Channel::State,
            "config" => Channel::Config,
            "errors" => Channel::Errors,
            "attach" => Channel::Attach,
            "detach" => Channel::Detach,
            _ => return None,
        };
        (!device.is_empty() && plain(device)).then_some(Self { device, channel })
    }
}

/// The topic on which others read what a device publishes: `registries/G/devices/D/events/...`.
pub fn qualified(registry: &RegistryName, topic: &str) -> String {
    let parts = ["registries/", &registry.registry, topic];
    // A byte more than that, for whoever makes a C string of it.
    let mut text = String::with_capacity(parts.iter().map(|part| part.len()).sum::<usize>() + 1);
    text.extend(parts);
    text
}

impl fmt::Display for Topic<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, subfolder) = match self.channel {
            Channel::Events(subfolder) => ("events", subfolder),
            Channel::State => ("state", ""),
            Channel::Config => ("config", ""),
            Channel::Commands(subfolder) => ("commands", subfolder),
            Channel::Errors => ("errors", ""),
            Channel::Attach => ("attach", ""),
            Channel::Detach => ("detach", ""),
        };
        let slash = if subfolder.is_empty() { "" } else { "/" };
        write!(f, "/devices/{}/{name}{slash}{subfolder}", self.device)
    }
}

fn unknown(text: &str) -> Refusal {
    refused(text, "is none of /devices/D/events[/SUBFOLDER], state, attach, detach, config, commands/#, errors")
}

fn refused(text: &str, why: &'static str) -> Refusal {
    Refusal::Topic { topic: shown(text, 300), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_and_written_alike() {
        for text in ["/devices/d/events", "/devices/d/events/a/b", "/devices/d/state", "/devices/d/attach"] {
            assert_eq!(Topic::published(text).unwrap().to_string(), text);
        }
        for text in ["/devices/d/config", "/devices/d/commands/#", "/devices/d/commands", "/devices/d/errors"] {
            assert_eq!(Topic::subscribed(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_a_device_must_not_publish_or_subscribe_is_refused_with_its_reason() {
        for (text, why) in [
            ("/devices/d/config", "for the registry to publish"),
            ("/devices/d/commands/x", "for the registry to publish"),
            ("/devices/d/errors", "for the registry to publish"),
            ("/devices/d/state/x", "is none of"),
            ("/devices/d/events/", "is none of"),
            ("/devices/d/events/+", "is none of"),
            ("/devices//events", "is none of"),
            ("/devices/d", "is none of"),
            ("devices/d/events", "is none of"),
            ("registries/g/devices/d/events", "is none of"),
            ("$SYS/broker", "is none of"),
        ] {
            let said = Topic::published(text).unwrap_err().to_string();
            assert!(said.contains(why), "{text}: {said}");
        }
        for text in ["#", "/devices/#", "/devices/+/config", "/devices/d/+", "/devices/d/#", "/devices/d/commands/+/#"]
        {
            let said = Topic::subscribed(text).unwrap_err().to_string();
            assert!(said.contains("has a wildcard"), "{text}: {said}");
        }
        assert!(Topic::subscribed("/devices/d/state").unwrap_err().to_string().contains("cannot be subscribed"));
    }
}
