//! The server: two listeners, one for devices and one for brokers; and a tick that keeps the registry up to date.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use keyrivet_registry::{DeviceName, Fleet, Refusal, RegistryName, Timestamp};
use tokio::time::{MissedTickBehavior, interval};
use tracing_subscriber::EnvFilter;

use crate::hooks::Ends;
use crate::link::Link;
use crate::listen::{self, Clients, Places, listen};
use crate::metrics::Metrics;
use crate::output::Failure;
use crate::{bridge, cli, hooks};

/// How often what has gathered is written, and changes are learnt: within the second that is promised.
const TICK: Duration = Duration::from_millis(500);
/// How long open requests may take when the server ends.
const GRACE: Duration = Duration::from_secs(5);

/// What every request needs.
pub(crate) struct App {
    pub(crate) fleet: Fleet,
    pub(crate) metrics: Metrics,
    pub(crate) ends: Ends,
    pub(crate) hook_secret: Option<String>,
    pub(crate) link: Link,
    /// The one registry whose devices are taken, if it is only one.
    pub(crate) only: Option<RegistryName>,
}

impl App {
    /// Refuses devices of any other registry than the one that is served, if it is only one.
    pub(crate) fn check_registry(
        &self,
        served: Option<&RegistryName>,
        device: &str,
        via: &str,
        action: &str,
    ) -> Result<(), Refusal> {
        // What is no name is refused by the rules.
        let (Some(served), Ok(name)) = (served, DeviceName::parse(device)) else { return Ok(()) };
        if name.registry == *served {
            return Ok(());
        }
        let refusal = Refusal::OtherRegistry { device: name.to_string(), served: served.to_string() };
        self.fleet.refused(&name, via, action, &refusal, Timestamp::now());
        Err(refusal)
    }
}

/// Runs until the process is told to end.
pub(crate) fn run(scope: &cli::Scope, arguments: &cli::Serve) -> Result<(), Failure> {
    let filter = EnvFilter::try_from_env("KEYRIVET_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let hook_secret = arguments.hook_secret_file.as_deref().map(secret).transpose()?;
    if hook_secret.is_none() && !arguments.hooks.ip().is_loopback() {
        let text =
            "hooks on an address that others reach need --hook-secret-file: who may ask them may speak for any device";
        return Err(text.into());
    }
    // The database's client blocks, so that it is opened before there is a runtime around it.
    let fleet = Fleet::open(&scope.store)?;
    let link = if arguments.link {
        Link::new(&arguments.broker, scope.registry_name()?, arguments.link_client_id.as_deref())?
    } else {
        Link::none()
    };
    let only = arguments.only_registry.then(|| scope.registry_name()).transpose()?;
    let app = Arc::new(App { fleet, metrics: Metrics::new()?, ends: Ends::default(), hook_secret, link, only });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(serve(&app, arguments));
    // A runtime that is dropped waits for nothing; the journal is written here, where blocking is allowed.
    drop(runtime);
    app.fleet.write(Timestamp::now())?;
    done
}

async fn serve(app: &Arc<App>, arguments: &cli::Serve) -> Result<(), Failure> {
    let tls = match (&arguments.tls_certificate, &arguments.tls_key) {
        (Some(certificate), Some(key)) => {
            Some(listen::http1_only(&RustlsConfig::from_pem_file(certificate, key).await?))
        }
        _ => None,
    };
    let handle = Handle::new();
    let ticks = tokio::spawn(tick(Arc::clone(app)));
    let link = tokio::spawn(Link::run(Arc::clone(app)));
    let stop = tokio::spawn(stop(handle.clone()));
    let devices = Clients::Devices(Places::new(arguments.connections, app.metrics.connections_refused.clone()));
    let routes = bridge::routes(Arc::clone(app));
    let bridge = listen(arguments.listen, devices, tls, handle.clone(), routes, "HTTP bridge");
    let hooks = listen(arguments.hooks, Clients::Brokers, None, handle, hooks::routes(Arc::clone(app)), "hooks");
    let done = tokio::try_join!(bridge, hooks);
    for task in [ticks, link, stop] {
        task.abort();
    }
    done.map(drop)
}

/// Waits for SIGTERM or SIGINT, then lets open requests end.
async fn stop(handle: Handle<SocketAddr>) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    handle.graceful_shutdown(Some(GRACE));
}

async fn tick(app: Arc<App>) {
    let mut interval = interval(TICK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let _ = interval.tick().await;
        let (written, learnt) = blocking(&app, |app| (app.fleet.write(Timestamp::now()), app.fleet.learn())).await;
        // Where both failed, they did for one reason.
        if let Err(error) = learnt.map(|changes| app.link.learn(&changes)).and(written) {
            app.metrics.store_failures.inc();
            tracing::error!("{error}");
        }
    }
}

/// Runs what may wait for the store where waiting holds nobody up.
pub(crate) async fn blocking<T: Send + 'static>(app: &Arc<App>, work: impl FnOnce(&App) -> T + Send + 'static) -> T {
    let app = Arc::clone(app);
    match tokio::task::spawn_blocking(move || work(&app)).await {
        Ok(answer) => answer,
        // A panic goes on to the request that caused it; a task that was cancelled belongs to a server that ends.
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => std::future::pending().await,
    }
}

fn secret(file: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| Failure::from(format!("{}: {error}", file.display())))?;
    let text = text.trim();
    if text.len() < 16 {
        return Err(format!("{}: a secret has 16 characters at least", file.display()).into());
    }
    Ok(text.to_owned())
}
