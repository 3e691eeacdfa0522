//! What the relay shows of itself: a page, the same as JSON, metrics, health.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use iroh_relay::server::Metrics;
use serde::Serialize;

use super::RelayInfo;
use super::gate::Gate;
use crate::web::{BASE_CSS, CSS, Exposition, HTML, METRICS, SCRIPT, TEXT, file, typed};

/// The whole picture, at one moment.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    version: &'static str,
    /// Seconds since the start.
    uptime: u64,
    #[serde(flatten)]
    info: RelayInfo,
    /// Whether everyone is admitted.
    open: bool,
    /// Endpoints that are connected, the first first.
    clients: Vec<ClientStatus>,
    /// Connections that have not said yet whose they are.
    arriving: usize,
    connection_limit: usize,
    refused: u64,
    /// The last refusals, newest first.
    refusals: Vec<RefusalStatus>,
    bytes_received: u64,
    bytes_sent: u64,
    /// Bytes that had to wait for the limit of their client.
    bytes_delayed: u64,
    packets_dropped: u64,
    /// How often an endpoint learned its address by UDP.
    address_lookups: u64,
}

#[derive(Debug, Serialize)]
struct ClientStatus {
    id: String,
    address: IpAddr,
    /// Seconds.
    connected: u64,
}

#[derive(Debug, Serialize)]
struct RefusalStatus {
    id: Option<String>,
    address: IpAddr,
    reason: String,
    /// Seconds since then.
    ago: u64,
}

/// What there is to show.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) started: Instant,
    pub(super) info: RelayInfo,
    pub(super) open: bool,
    pub(super) connection_limit: usize,
    pub(super) gate: Arc<Gate>,
    /// Of relaying, and of telling addresses where that is done.
    pub(super) metrics: Arc<Metrics>,
    pub(super) lookups: Option<Arc<Metrics>>,
}

impl Site {
    fn status(&self) -> Status {
        let picture = self.gate.picture();
        let clients = picture.clients.into_iter().map(|client| ClientStatus {
            id: client.id.to_string(),
            address: client.address,
            connected: client.since.elapsed().as_secs(),
        });
        let refusals = picture.refusals.into_iter().map(|refusal| RefusalStatus {
            id: refusal.id.map(|id| id.to_string()),
            address: refusal.address,
            reason: refusal.reason,
            ago: refusal.at.elapsed().as_secs(),
        });
        Status {
            version: env!("CARGO_PKG_VERSION"),
            uptime: self.started.elapsed().as_secs(),
            info: self.info.clone(),
            open: self.open,
            clients: clients.collect(),
            arriving: picture.arriving,
            connection_limit: self.connection_limit,
            refused: picture.refused,
            refusals: refusals.collect(),
            bytes_received: self.metrics.bytes_recv.get(),
            bytes_sent: self.metrics.bytes_sent.get(),
            bytes_delayed: self.metrics.bytes_rx_ratelimited_total.get(),
            packets_dropped: self.metrics.send_packets_dropped.get(),
            address_lookups: self.lookups.as_ref().map_or(0, |quic| quic.qad_connections.get()),
        }
    }

    pub(super) fn router(self) -> Router {
        Router::new()
            .route("/", file(HTML, include_str!("page/page.html")))
            .route("/base.css", file(CSS, BASE_CSS))
            .route("/page.css", file(CSS, include_str!("page/page.css")))
            .route("/page.js", file(SCRIPT, include_str!("page/page.js")))
            .route("/status.json", get(async |State(site): State<Arc<Self>>| Json(site.status())))
            .route(
                "/metrics",
                get(async |State(site): State<Arc<Self>>| typed(METRICS, metrics(&site.status()))),
            )
            .route("/health", file(TEXT, "ok\n"))
            .with_state(Arc::new(self))
    }
}

/// The status as metrics.
fn metrics(status: &Status) -> String {
    let mut out = Exposition::new("proxystore_relay");
    let clients = status.clients.len() as u64;
    for (name, kind, help, value) in [
        ("uptime_seconds", "gauge", "Seconds since the start.", status.uptime),
        ("clients", "gauge", "Endpoints connected.", clients),
        (
            "arriving",
            "gauge",
            "Connections that have not said whose they are.",
            status.arriving as u64,
        ),
        ("refused_total", "counter", "Connections refused.", status.refused),
        (
            "received_bytes_total",
            "counter",
            "Bytes that came to be relayed.",
            status.bytes_received,
        ),
        ("sent_bytes_total", "counter", "Bytes that were relayed.", status.bytes_sent),
        ("delayed_bytes_total", "counter", "Bytes that waited for a limit.", status.bytes_delayed),
        (
            "dropped_packets_total",
            "counter",
            "Packets whose receiver was gone.",
            status.packets_dropped,
        ),
        ("address_lookups_total", "counter", "Addresses told by UDP.", status.address_lookups),
        (
            "certificate_expires_seconds",
            "gauge",
            "When the certificate expires, in seconds since 1970.",
            u64::try_from(status.info.expires).unwrap_or(0),
        ),
    ] {
        out.single(name, kind, help, value);
    }
    out.into_text()
}
