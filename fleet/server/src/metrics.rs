//! What Prometheus reads: decisions by way, action and reason; how long they took.

use std::time::Instant;

use keyrivet_registry::Refusal;
use prometheus::{Encoder as _, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, TextEncoder};

/// The server's counters.
pub(crate) struct Metrics {
    registry: prometheus::Registry,
    decisions: IntCounterVec,
    seconds: HistogramVec,
    /// Times that the store could not be written.
    pub(crate) store_failures: IntCounter,
    /// Connections of devices for which there was no place.
    pub(crate) connections_refused: IntCounter,
}

/// From 20 microseconds on: a cached key, a look-up, a busy store.
const BUCKETS: [f64; 8] = [0.000_02, 0.000_1, 0.000_5, 0.002, 0.01, 0.05, 0.2, 1.0];

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = prometheus::Registry::new();
        let decisions = Opts::new("keyrivet_decisions_total", "Decisions about devices, by reason (ok: allowed)");
        let decisions = IntCounterVec::new(decisions, &["via", "action", "reason"])?;
        let seconds = HistogramOpts::new("keyrivet_decision_seconds", "How long a decision took");
        let seconds = HistogramVec::new(seconds.buckets(BUCKETS.to_vec()), &["via", "action"])?;
        let failures = "Times that the registry's store could not be read or written in the background";
        let store_failures = IntCounter::new("keyrivet_store_failures_total", failures)?;
        let refused = "Connections to the HTTP bridge that were closed at once, because --connections were there";
        let connections_refused = IntCounter::new("keyrivet_connections_refused_total", refused)?;
        registry.register(Box::new(connections_refused.clone()))?;
        registry.register(Box::new(decisions.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(store_failures.clone()))?;
        Ok(Self { registry, decisions, seconds, store_failures, connections_refused })
    }

    /// Counts a decision that began at `start`.
    pub(crate) fn decided(&self, via: &str, action: &str, outcome: Result<(), &Refusal>, start: Instant) {
        self.counted(via, action, outcome.map_or_else(Refusal::code, |()| "ok"), start);
    }

    /// Counts a decision by its reason's short name.
    pub(crate) fn counted(&self, via: &str, action: &str, reason: &str, start: Instant) {
        self.decisions.with_label_values(&[via, action, reason]).inc();
        self.seconds.with_label_values(&[via, action]).observe(start.elapsed().as_secs_f64());
    }

    /// All of it, in Prometheus' text format.
    pub(crate) fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        // Writing to memory does not fail; an empty answer would tell, if it did.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        text
    }
}
