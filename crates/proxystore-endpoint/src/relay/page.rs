//! What the relay shows of itself: a page, the same as JSON, metrics, health.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use iroh_relay::server::Metrics;
use proxystore::{Error, Result};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::RelayInfo;
use super::gate::Gate;

/// How long browsers may take to end when the relay does.
const GRACE: Duration = Duration::from_secs(2);
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

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

    fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/", get(async || typed("text/html; charset=utf-8", include_str!("page.html"))))
            .route("/status.json", get(async |State(site): State<Arc<Self>>| Json(site.status())))
            .route(
                "/metrics",
                get(async |State(site): State<Arc<Self>>| {
                    typed("text/plain; version=0.0.4; charset=utf-8", metrics(&site.status()))
                }),
            )
            .route("/health", get(async || typed("text/plain; charset=utf-8", "ok\n")))
            .layer(middleware::from_fn(guard))
            .with_state(self)
    }
}

fn typed(kind: &'static str, text: impl IntoResponse) -> Response {
    ([(CONTENT_TYPE, kind)], text).into_response()
}

/// Answers only who asks by an address or `localhost`: pages of others, whose name was made to point here, learn nothing.
async fn guard(request: Request, next: Next) -> Response {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let ours = host.is_some_and(|host| {
        let name = host
            .rsplit_once(':')
            .filter(|(_, port)| !port.ends_with(']'))
            .map_or(host, |(name, _)| name);
        name.eq_ignore_ascii_case("localhost")
            || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
    });
    let mut response = if ours {
        next.run(request).await
    } else {
        (StatusCode::MISDIRECTED_REQUEST, "ask by an address of this host\n").into_response()
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The status in the text format of Prometheus.
fn metrics(status: &Status) -> String {
    let mut text = String::new();
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
        let name = format!("proxystore_relay_{name}");
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"); // a String takes all
    }
    text
}

/// Listens where the page is to be.
pub(super) async fn listen(address: SocketAddr) -> Result<TcpListener> {
    if !address.ip().is_loopback() {
        warn!(%address, "whoever reaches this address sees who is connected: there is no password");
    }
    TcpListener::bind(address).await.map_err(|error| {
        Error::io("serve the relay's page", error).with("address", address).with_hint(
            "choose another address for `web`, with port 0 for any that is free, or \"\" for none",
        )
    })
}

/// Serves the page until `stop` is cancelled.
pub(super) async fn serve(listener: TcpListener, site: Site, stop: CancellationToken) {
    let router = Arc::new(site).router();
    let stopped = stop.clone();
    let serving = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    tokio::select! {
        _ = serving.into_future() => {} // it does not fail
        () = async { stopped.cancelled().await; tokio::time::sleep(GRACE).await } => {}
    }
}
