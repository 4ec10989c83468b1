//! A TLS 1.3 client whose "signature" is a handshake: the server signs.

use std::net::{Ipv4Addr, TcpStream};

use openssl::ssl::{Ssl, SslContext, SslMethod, SslSessionCacheMode, SslVerifyMode, SslVersion};

use super::{Result, Signer};
use crate::machine;

/// Connects to a server on this machine, again and again, without resumption.
pub(super) struct HandshakeClient {
    port: u16,
    context: SslContext,
}

impl HandshakeClient {
    /// Argument: the port.
    pub(super) fn new(arguments: &[&str]) -> Result<Self> {
        let [port] = *arguments else { return Err("handshakes takes a port".into()) };
        machine::lower_priority();
        let context = || {
            let mut builder = SslContext::builder(SslMethod::tls_client())?;
            builder.set_min_proto_version(Some(SslVersion::TLS1_3))?;
            builder.set_session_cache_mode(SslSessionCacheMode::OFF);
            // The server's signature is checked all the same; whose key it is does not matter here.
            builder.set_verify(SslVerifyMode::NONE);
            Ok(builder.build())
        };
        let context = context().map_err(|error: openssl::error::ErrorStack| error.to_string())?;
        Ok(Self { port: port.parse().map_err(|_| "a port is a number")?, context })
    }
}

impl Signer for HandshakeClient {
    fn sign(&self, _thread: usize) -> Result<()> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).map_err(|error| error.to_string())?;
        let ssl = Ssl::new(&self.context).map_err(|error| error.to_string())?;
        ssl.connect(stream).map(drop).map_err(|error| error.to_string())
    }
}
