//! A listener, and what its clients may take: only so many connections at once, and only so much time until they ask.

use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use axum_server::Handle;
use axum_server::accept::Accept;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use prometheus::IntCounter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::output::Failure;

/// How long a client may take to say what it asks, from its connection or its request before on.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who reaches a listener.
pub(crate) enum Clients {
    /// Anybody.
    Devices(Places),
    /// Brokers, whose connections last.
    Brokers,
}

/// The connections that there may be at once. One that finds no place is closed.
#[derive(Clone)]
pub(crate) struct Places {
    free: Arc<Semaphore>,
    refused: IntCounter,
}

impl Places {
    pub(crate) fn new(number: usize, refused: IntCounter) -> Self {
        Self { free: Arc::new(Semaphore::new(number.min(Semaphore::MAX_PERMITS))), refused }
    }
}

impl<I> Accept<I, Router> for Places {
    type Stream = I;
    type Service = Router;
    type Future = Ready<std::io::Result<(I, Router)>>;

    fn accept(&self, stream: I, routes: Router) -> Self::Future {
        ready(match Arc::clone(&self.free).try_acquire_owned() {
            // The connection has the place for as long as it has its routes.
            Ok(place) => Ok((stream, routes.layer(Extension::<Arc<OwnedSemaphorePermit>>(Arc::new(place))))),
            Err(_) => {
                self.refused.inc();
                Err(std::io::Error::other("as many connections as may be are there"))
            }
        })
    }
}

/// Answers until the handle says that it shall end.
pub(crate) async fn listen(
    address: SocketAddr,
    clients: Clients,
    tls: Option<RustlsConfig>,
    handle: Handle<SocketAddr>,
    routes: Router,
    what: &str,
) -> Result<(), Failure> {
    let failed = |error| Failure::from(format!("{what} on {address}: {error}"));
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
    tracing::info!("{what} on {}", listener.local_addr().map_err(failed)?);
    let mut server = axum_server::from_tcp(listener).map_err(failed)?.handle(handle).http1_only();
    let service = routes.into_make_service();
    match clients {
        Clients::Brokers => server.serve(service).await,
        Clients::Devices(places) => {
            let _ = server.http_builder().http1().header_read_timeout(PATIENCE);
            match tls {
                Some(tls) => server.acceptor(RustlsAcceptor::new(tls).acceptor(places)).serve(service).await,
                None => server.acceptor(places).serve(service).await,
            }
        }
    }
    .map_err(failed)
}

/// TLS for HTTP/1.1, which is all that is spoken here.
pub(crate) fn http1_only(config: &RustlsConfig) -> RustlsConfig {
    let mut inner = config.get_inner().as_ref().clone();
    inner.alpn_protocols = vec![b"http/1.1".to_vec()];
    RustlsConfig::from_config(Arc::new(inner))
}
