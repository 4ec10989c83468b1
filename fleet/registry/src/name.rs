//! Names: `projects/P/locations/R/registries/G/devices/D`, which is also the MQTT client id.

use std::fmt;
use std::sync::Arc;

use crate::limit::Limit;
use crate::refusal::{Refusal, shown};

/// A registry: `projects/P/locations/R/registries/G`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegistryName {
    /// The project; also what a token's `aud` must be.
    pub project: Arc<str>,
    /// The region.
    pub location: Arc<str>,
    /// The registry's own id.
    pub registry: Arc<str>,
}

/// The id of a device within its registry, or the number that the registry gave it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(Arc<str>);

/// A device: `projects/P/locations/R/registries/G/devices/D`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceName {
    /// Its registry.
    pub registry: RegistryName,
    /// Its id there.
    pub id: DeviceId,
}

impl RegistryName {
    /// Checks the three ids.
    pub fn new(project: &str, location: &str, registry: &str) -> Result<Self, Refusal> {
        for (what, id) in [("project", project), ("location", location), ("registry", registry)] {
            check_id(what, id)?;
        }
        Ok(Self { project: project.into(), location: location.into(), registry: registry.into() })
    }

    /// Reads `projects/P/locations/R/registries/G`.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        match text.split('/').collect::<Vec<_>>()[..] {
            ["projects", project, "locations", location, "registries", registry] => {
                Self::new(project, location, registry)
            }
            _ => Err(malformed(text, "is not projects/P/locations/R/registries/G")),
        }
    }

    /// A device of this registry.
    pub fn device(&self, id: &str) -> Result<DeviceName, Refusal> {
        Ok(DeviceName { registry: self.clone(), id: DeviceId::parse(id)? })
    }
}

impl DeviceId {
    /// Checks an id: a letter, then letters, digits and `-._~%`; or digits only, a device's number.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        check_id("device", text)?;
        if !begins_with_letter(text) && !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(malformed(text, "does not begin with a letter"));
        }
        Ok(Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number, if it is one rather than an id.
    pub fn number(&self) -> Option<i64> {
        if self.begins_with_letter() { None } else { self.0.parse().ok() }
    }

    /// Whether it is an id rather than a number.
    pub(crate) fn begins_with_letter(&self) -> bool {
        begins_with_letter(&self.0)
    }
}

fn begins_with_letter(id: &str) -> bool {
    id.starts_with(|c: char| c.is_ascii_alphabetic())
}

impl std::borrow::Borrow<str> for DeviceId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl DeviceName {
    /// Whether a client id claims to be a device's: only then are the registry's rules meant for that client. As in [`Self::parse`],
    /// one leading `/` is passed over.
    pub fn is_claimed_by(client_id: impl AsRef<[u8]>) -> bool {
        let client_id = client_id.as_ref();
        client_id.strip_prefix(b"/").unwrap_or(client_id).starts_with(b"projects/")
    }

    /// Reads a client id or resource name. One leading `/` is passed over, as some clients send it.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let plain = text.strip_prefix('/').unwrap_or(text);
        match plain.split('/').collect::<Vec<_>>()[..] {
            ["projects", project, "locations", location, "registries", registry, "devices", device] => {
                RegistryName::new(project, location, registry)?.device(device)
            }
            _ => Err(malformed(text, "is not projects/P/locations/R/registries/G/devices/D")),
        }
    }

    /// Another device of the same registry.
    pub fn sibling(&self, id: DeviceId) -> Self {
        Self { registry: self.registry.clone(), id }
    }
}

impl fmt::Display for RegistryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = ["projects/", &self.project, "/locations/", &self.location, "/registries/", &self.registry];
        f.write_str(&parts.concat())
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/devices/{}", self.registry, self.id)
    }
}

/// What no id may hold: MQTT's separator and wildcards, white space, control characters, anything but ASCII.
fn check_id(what: &str, id: &str) -> Result<(), Refusal> {
    if id.is_empty() {
        return Err(malformed(id, &format!("is no {what} id: it is empty")));
    }
    if !Limit::ID.allows(id.len()) {
        return Err(malformed(
            &id.chars().take(32).collect::<String>(),
            &format!("... is a {what} id of more than 256 bytes"),
        ));
    }
    match id.chars().find(|&c| !c.is_ascii_alphanumeric() && !"-._~%:".contains(c)) {
        Some(c) => Err(malformed(id, &format!("is no {what} id: it holds {c:?}"))),
        None => Ok(()),
    }
}

/// The text is echoed into logs and answers, so only its beginning is, and no control character.
fn malformed(text: &str, why: &str) -> Refusal {
    let name = shown(text, 300);
    Refusal::NameMalformed { name, why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_is_read_and_written_alike() {
        let text = "projects/my-project/locations/us-central1/registries/g/devices/device2";
        let name = DeviceName::parse(text).unwrap();
        assert_eq!(name.to_string(), text);
        assert_eq!(DeviceName::parse(&format!("/{text}")).unwrap(), name);
        assert_eq!(RegistryName::parse(&name.registry.to_string()).unwrap(), name.registry);
    }

    #[test]
    fn malformed_client_ids_are_refused_with_their_fault() {
        let long = format!("projects/p/locations/r/registries/g/devices/d{}", "x".repeat(256));
        for (text, fault) in [
            ("", "is not projects/"),
            ("device2", "is not projects/"),
            ("projects/p/locations/r/registries/g/devices/", "it is empty"),
            ("projects/p/locations/r/registries/g/devices/a/b", "is not projects/"),
            ("projects/p/locations/r/registries/g/devices/a+", "it holds '+'"),
            ("projects/p/locations/r/registries/g/devices/#", "it holds '#'"),
            ("projects/p/locations/r/registries/../devices/a\nb", "it holds '\\n'"),
            ("projects/p/locations/r/registries/g/devices/1a", "does not begin with a letter"),
            ("projects/p/locations/r/registries/g/devices/äöü", "it holds 'ä'"),
            (&long, "more than 256 bytes"),
        ] {
            let said = DeviceName::parse(text).unwrap_err().to_string();
            assert!(said.contains(fault), "{text:?}: {said}");
        }
    }

    #[test]
    fn a_number_names_a_device_too() {
        let id = DeviceId::parse("2627306490721382").unwrap();
        assert_eq!(id.number(), Some(2_627_306_490_721_382));
        assert_eq!(DeviceId::parse("device2").unwrap().number(), None);
    }
}
