//! Who is let in: a device that shows a token of one of its keys, or a certificate of one of the registry's CAs.

use crate::credential::Proof;
use crate::record::{Device, Registry};
use crate::refusal::Refusal;
use crate::rules::{certificate, token};
use crate::timestamp::Timestamp;

/// How a device comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// To a broker.
    Mqtt,
    /// To the HTTP bridge.
    Http,
}

/// Checks who it is, and answers until when that holds.
pub fn authenticate(
    registry: &Registry,
    device: &Device,
    protocol: Protocol,
    proof: Proof<'_>,
    now: Timestamp,
) -> Result<Timestamp, Refusal> {
    match protocol {
        Protocol::Mqtt if !registry.mqtt => return Err(Refusal::ProtocolOff { protocol: "MQTT" }),
        Protocol::Http if !registry.http => return Err(Refusal::ProtocolOff { protocol: "HTTP" }),
        Protocol::Mqtt | Protocol::Http => {}
    }
    let until = match proof {
        Proof::Token(token) => token::check(token, device, now)?,
        Proof::Certificates(chain) => {
            let until = certificate::check(chain, &device.name, &registry.ca_certificates, now)?;
            check_not_retired(chain, device, now)?;
            until
        }
        Proof::Nothing => return Err(Refusal::NoProof),
    };
    // Only who has shown that it is the device is told that it is blocked.
    if device.blocked {
        return Err(Refusal::Blocked { device: device.name.id.to_string() });
    }
    Ok(until)
}

/// A credential that has expired ends its key's other use too.
fn check_not_retired(chain: &[Vec<u8>], device: &Device, now: Timestamp) -> Result<(), Refusal> {
    let Some(own) = chain.first() else { return Err(Refusal::NoProof) };
    let key = certificate::public_key(own)?;
    let same = || device.credentials.iter().filter(|credential| *credential.spki == *key);
    match same().find_map(|credential| credential.expires) {
        Some(at) if !same().any(|credential| credential.is_valid_at(now)) => {
            Err(Refusal::CredentialExpired { at: at.to_string() })
        }
        _ => Ok(()),
    }
}
