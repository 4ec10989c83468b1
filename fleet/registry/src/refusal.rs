//! Why the registry says no: one table of reasons, what each means to MQTT, HTTP and gateways, and what to do about it.

use std::fmt;

use crate::limit::Limit;
use crate::name::DeviceId;

/// A refusal, with everything needed to explain it. Never holds a token, nor any part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are what the sentences in Display say")]
pub enum Refusal {
    /// A client id or resource name that is none.
    NameMalformed { name: String, why: String },
    /// No such registry, or no such device in it.
    DeviceUnknown { name: String },
    /// The device is blocked.
    Blocked { device: String },
    /// The device was deleted, and another one with its name was made.
    DeviceMadeAnew { device: String },
    /// Whoever was asked answers for one registry, and this is a device of another.
    OtherRegistry { device: String, served: String },
    /// The registry does not take this protocol.
    ProtocolOff { protocol: &'static str },
    /// A broker asks about a client that it never let us judge, or before we could keep until when it may stay.
    NotConnected { device: String },
    /// Neither a password nor a certificate came.
    NoProof,
    /// The device has no credential that could be used.
    NoCredential { device: String },
    /// Every credential that would fit has expired.
    CredentialExpired { at: String },
    /// The password is not a JWT.
    TokenMalformed { why: String },
    /// The token's algorithm is not one that the registry takes.
    Algorithm { name: String },
    /// No key of the device takes this algorithm.
    AlgorithmUnfit { name: &'static str, keys: String },
    /// No key of the device made this signature.
    Signature { device: String, keys: usize },
    /// A claim that must be there is missing, or of the wrong type.
    Claim { name: &'static str, why: &'static str },
    /// The token was made for somebody else.
    Audience { expected: String, found: String },
    /// The token has expired.
    TokenExpired { by: i64 },
    /// The token comes from the future.
    TokenFromFuture { by: i64 },
    /// The token lives for too long.
    TokenLifetime { seconds: i64 },
    /// No CA of the registry signed the certificate.
    CertificateForeign { issuer: String },
    /// The registry has no CA, so that no certificate can be checked.
    NoCa,
    /// The certificate is not valid now, or cannot be used for this.
    CertificateUnfit { why: String },
    /// The certificate names another device, or none.
    CertificateName { device: String, names: String },
    /// A message was published with QoS 2.
    QosTwo,
    /// More bytes than the limit.
    TooLarge { limit: Limit, size: usize },
    /// A topic that no device may use in this way.
    Topic { topic: String, why: &'static str },
    /// The topic of a device that this client does not speak for.
    OtherDevice { own: String, other: String },
    /// The topic of a device that is not attached to this gateway.
    NotAttached { gateway: String, device: String },
    /// A device that is no gateway tried to do a gateway's work.
    NotAGateway { device: String },
    /// The device that a gateway names does not exist.
    GatewayDeviceUnknown { device: String },
    /// The device is not bound to the gateway, and must be.
    NotBound { gateway: String, device: String },
    /// The gateway's way to authenticate devices asks for the device's own token.
    DeviceTokenMissing { gateway: String, device: String },
    /// The device's token that a gateway presented was refused.
    DeviceToken { device: String, refusal: Box<Refusal> },
    /// The attach message is not what it should be.
    AttachMalformed { why: String },
    /// More than the limit.
    TooMany { limit: Limit },
    /// An acknowledgement or request about something that is not there.
    NoConfig { device: String },
    /// The store could not be asked.
    Unavailable { why: String },
}

/// What kind of a refusal it is: the rows of the table that maps them to each protocol's codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request makes no sense.
    Malformed,
    /// Whoever asks has not shown who it is.
    Unauthenticated,
    /// Whoever asks may not do that.
    Denied,
    /// What is asked about is not there.
    NotFound,
    /// Something must be done first.
    Precondition,
    /// A limit is reached.
    Limit,
    /// It may work later.
    Unavailable,
}

impl Kind {
    /// HTTP status, and the name that Google's error bodies use.
    pub fn http(self) -> (u16, &'static str) {
        match self {
            Self::Malformed => (400, "INVALID_ARGUMENT"),
            Self::Unauthenticated => (401, "UNAUTHENTICATED"),
            Self::Denied => (403, "PERMISSION_DENIED"),
            Self::NotFound => (404, "NOT_FOUND"),
            Self::Precondition => (400, "FAILED_PRECONDITION"),
            Self::Limit => (429, "RESOURCE_EXHAUSTED"),
            Self::Unavailable => (503, "UNAVAILABLE"),
        }
    }

    /// MQTT 5 reason code (section 2.4).
    pub fn mqtt5(self) -> u8 {
        match self {
            Self::Malformed => 0x99,
            Self::Unauthenticated => 0x86,
            Self::Denied | Self::NotFound | Self::Precondition => 0x87,
            Self::Limit => 0x97,
            Self::Unavailable => 0x88,
        }
    }
}

impl Refusal {
    /// Its kind, and a short name for metrics and audit rows. One row per reason.
    fn row(&self) -> (Kind, &'static str) {
        match self {
            Self::NameMalformed { .. } => (Kind::Malformed, "name-malformed"),
            Self::DeviceUnknown { .. } => (Kind::NotFound, "device-unknown"),
            Self::Blocked { .. } => (Kind::Denied, "device-blocked"),
            Self::DeviceMadeAnew { .. } => (Kind::Unauthenticated, "device-made-anew"),
            Self::OtherRegistry { .. } => (Kind::Denied, "other-registry"),
            Self::ProtocolOff { .. } => (Kind::Precondition, "protocol-off"),
            Self::NotConnected { .. } => (Kind::Unauthenticated, "not-connected"),
            Self::NoProof => (Kind::Unauthenticated, "no-proof"),
            Self::NoCredential { .. } => (Kind::Unauthenticated, "no-credential"),
            Self::CredentialExpired { .. } => (Kind::Unauthenticated, "credential-expired"),
            Self::TokenMalformed { .. } => (Kind::Unauthenticated, "token-malformed"),
            Self::Algorithm { .. } | Self::AlgorithmUnfit { .. } => (Kind::Unauthenticated, "algorithm"),
            Self::Signature { .. } => (Kind::Unauthenticated, "signature"),
            Self::Claim { .. } => (Kind::Unauthenticated, "claim"),
            Self::Audience { .. } => (Kind::Unauthenticated, "audience"),
            Self::TokenExpired { .. } => (Kind::Unauthenticated, "token-expired"),
            Self::TokenFromFuture { .. } => (Kind::Unauthenticated, "token-from-future"),
            Self::TokenLifetime { .. } => (Kind::Unauthenticated, "token-lifetime"),
            Self::CertificateForeign { .. } => (Kind::Unauthenticated, "certificate-foreign"),
            Self::NoCa => (Kind::Unauthenticated, "no-ca"),
            Self::CertificateUnfit { .. } => (Kind::Unauthenticated, "certificate-unfit"),
            Self::CertificateName { .. } => (Kind::Unauthenticated, "certificate-name"),
            Self::QosTwo => (Kind::Denied, "qos-2"),
            Self::TooLarge { .. } => (Kind::Malformed, "too-large"),
            Self::Topic { .. } => (Kind::Denied, "topic"),
            Self::OtherDevice { .. } => (Kind::Denied, "other-device"),
            Self::NotAttached { .. } => (Kind::Precondition, "not-attached"),
            Self::NotAGateway { .. } => (Kind::Denied, "not-a-gateway"),
            Self::GatewayDeviceUnknown { .. } => (Kind::NotFound, "gateway-device-unknown"),
            Self::NotBound { .. } => (Kind::Precondition, "not-bound"),
            Self::DeviceTokenMissing { .. } => (Kind::Precondition, "device-token-missing"),
            Self::DeviceToken { .. } => (Kind::Unauthenticated, "device-token"),
            Self::AttachMalformed { .. } => (Kind::Malformed, "attach-malformed"),
            Self::TooMany { .. } => (Kind::Limit, "too-many"),
            Self::NoConfig { .. } => (Kind::NotFound, "no-config"),
            Self::Unavailable { .. } => (Kind::Unavailable, "store-unavailable"),
        }
    }

    /// What kind of a refusal it is.
    pub fn kind(&self) -> Kind {
        self.row().0
    }

    /// A short, stable name for metrics and audit rows.
    pub fn code(&self) -> &'static str {
        self.row().1
    }

    /// Whether the broker closes the connection of a client that did this, as IoT Core did.
    ///
    /// `own` is the device that has the connection: a gateway keeps its own when a device of its is blocked.
    pub fn closes_connection(&self, own: &DeviceId) -> bool {
        match self {
            Self::QosTwo | Self::NotAGateway { .. } | Self::TokenExpired { .. } => true,
            Self::Blocked { device } => device == own.as_str(),
            _ => false,
        }
    }

    /// The same about a device by the name that it was asked for with, a number perhaps.
    #[must_use]
    pub(crate) fn about(mut self, id: &DeviceId) -> Self {
        if let Self::Signature { device, .. } | Self::NoCredential { device } = &mut self {
            id.as_str().clone_into(device);
        }
        self
    }

    /// What only the operator's log may say, besides the text that everybody gets.
    pub fn for_the_operator(&self) -> Option<&str> {
        if let Self::Unavailable { why } = self { Some(why) } else { None }
    }

    /// The `error_type` of the message on the gateway's `errors` topic, when attaching failed.
    pub fn gateway_error(&self) -> &'static str {
        match self {
            Self::GatewayDeviceUnknown { .. } => "GATEWAY_DEVICE_NOT_FOUND",
            _ => "GATEWAY_ATTACHMENT_ERROR",
        }
    }
}

/// As much of what somebody made up as a refusal or a line of a log can take: at most so many characters, no control character.
pub fn shown(text: &str, most: usize) -> String {
    text.chars().take(most).flat_map(char::escape_debug).collect()
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameMalformed { name, why } => write!(f, "'{name}' {why}"),
            Self::DeviceUnknown { name } => {
                write!(f, "there is no device {name}: create it, or check project, location, registry and id")
            }
            Self::Blocked { device } => write!(f, "device {device} is blocked"),
            Self::DeviceMadeAnew { device } => {
                write!(f, "device {device} was deleted and made anew since it connected: connect again")
            }
            Self::OtherRegistry { device, served } => write!(
                f,
                "{device} is not of {served}, the one registry that this server takes devices of (--link, \
                 --only-registry): let its broker ask a server of its own registry"
            ),
            Self::ProtocolOff { protocol } => write!(f, "this registry has {protocol} switched off"),
            Self::NotConnected { device } => {
                write!(f, "nobody has seen device {device} connect: it must connect again, with a token")
            }
            Self::NoProof => f.write_str("no JWT as password and no client certificate"),
            Self::NoCredential { device } => {
                write!(f, "device {device} has no credential: add its public key or certificate")
            }
            Self::CredentialExpired { at } => write!(f, "the device's credential expired at {at}"),
            Self::TokenMalformed { why } => write!(f, "the password is not a JWT: {why}"),
            Self::Algorithm { name } => {
                write!(f, "algorithm '{name}' is not accepted: sign with RS256, ES256, ES384 or PS256")
            }
            Self::AlgorithmUnfit { name, keys } => {
                write!(f, "the token is signed with {name}, but the device's keys are {keys}")
            }
            Self::Signature { device, keys: 1 } => {
                write!(f, "the token's signature was not made by the key of device {device}")
            }
            Self::Signature { device, keys } => {
                write!(f, "the token's signature was made by none of the {keys} keys of device {device}")
            }
            Self::Claim { name, why } => write!(f, "claim '{name}' {why}"),
            Self::Audience { expected, found } => write!(f, "aud is '{found}', but must be the project, '{expected}'"),
            Self::TokenExpired { by } => write!(f, "the token expired {by} s ago"),
            Self::TokenFromFuture { by } => {
                write!(f, "iat in the future by {by} s: set the device's clock (600 s are tolerated)")
            }
            Self::TokenLifetime { seconds } => {
                write!(f, "exp is {seconds} s after iat: a token may live for 24 h (86400 s) at most, and must live")
            }
            Self::CertificateForeign { issuer } => {
                write!(f, "certificate not signed by a CA of this registry (its issuer is '{issuer}')")
            }
            Self::NoCa => f.write_str("this registry has no CA certificate to check a client certificate against"),
            Self::CertificateUnfit { why } => write!(f, "the certificate {why}"),
            Self::CertificateName { device, names } => {
                write!(f, "the certificate is for {names}, not for device {device}")
            }
            Self::QosTwo => f.write_str("QoS 2 is not supported: publish with QoS 0 or 1"),
            Self::TooLarge { limit, size } => {
                write!(f, "{size} bytes are too many: {} has {} bytes at most", limit.what, limit.most)
            }
            Self::Topic { topic, why } => write!(f, "topic '{topic}' {why}"),
            Self::OtherDevice { own, other } => write!(f, "device {own} may not use the topics of device {other}"),
            Self::NotAttached { gateway, device } => {
                write!(
                    f,
                    "device {device} is not attached to gateway {gateway}: publish to /devices/{device}/attach first"
                )
            }
            Self::NotAGateway { device } => {
                write!(f, "device {device} is not a gateway: only gateways attach devices or speak for them")
            }
            Self::GatewayDeviceUnknown { device } => write!(f, "there is no device {device} in the gateway's registry"),
            Self::NotBound { gateway, device } => write!(
                f,
                "device not bound to gateway: run 'keyrivet-server gateway bind --gateway {gateway} --device {device}'"
            ),
            Self::DeviceTokenMissing { gateway, device } => write!(
                f,
                "gateway {gateway} must show a token of device {device} itself: attach it with \
                 {{\"authorization\":\"JWT\"}}, send the request with the device's own token and gateway_id, \
                 or make the gateway with --auth-method ASSOCIATION_ONLY"
            ),
            Self::DeviceToken { device, refusal } => write!(f, "the token of device {device}: {refusal}"),
            Self::AttachMalformed { why } => {
                write!(f, "the attach message is not {{\"authorization\":\"JWT\"}}: {why}")
            }
            Self::TooMany { limit } => write!(f, "the limit is reached: {} {}", limit.most, limit.what),
            Self::NoConfig { device } => write!(f, "device {device} has no such configuration"),
            Self::Unavailable { .. } => f.write_str("the registry's store does not answer: try again"),
        }
    }
}

impl std::error::Error for Refusal {}
