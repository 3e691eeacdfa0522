//! Accepts connections, and takes them as far as the relay's protocol: TLS, one request, upgrade.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::service::{Service, service_fn};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use iroh_relay::KeyCache;
use iroh_relay::http::RELAY_PROBE_PATH;
use iroh_relay::server::http_server::{BytesBody, Handlers, HyperError, RelayServiceWithNotify};
use iroh_relay::server::streams::MaybeTlsStream;
use iroh_relay::server::{ClientRateLimit, Metrics, RelayService};
use rustix::net::{Shutdown, shutdown};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::config::Limits;
use super::gate::{Gate, NUMBER, Place};

/// Public keys that are remembered as well formed.
const KEYS: usize = 4096;

/// The relay's TCP side.
pub(super) struct Front {
    gate: Arc<Gate>,
    service: RelayService,
    tls: TlsAcceptor,
    /// How long a connection may take until it has proven which endpoint it is.
    patience: Duration,
}

impl Front {
    pub(super) fn new(
        gate: &Arc<Gate>,
        tls: TlsAcceptor,
        limits: &Limits,
        metrics: &Arc<Metrics>,
    ) -> Arc<Self> {
        let rate = u32::try_from(limits.rate).unwrap_or(u32::MAX);
        let service = RelayService::new(
            handlers(),
            hyper::HeaderMap::new(),
            NonZeroU32::new(rate).map(ClientRateLimit::new),
            KeyCache::new(KEYS),
            Arc::<Gate>::clone(gate),
            Arc::clone(metrics),
        );
        let patience = Duration::from_secs(limits.patience.max(1));
        Arc::new(Self { gate: Arc::clone(gate), service, tls, patience })
    }

    /// Accepts until `stop` is cancelled, then ends every connection.
    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    let Some(place) = self.gate.arrive(address.ip()) else { continue };
                    let (front, stop) = (Arc::clone(&self), stop.clone());
                    tasks.spawn(async move {
                        tokio::select! {
                            () = stop.cancelled() => {}
                            () = front.welcome(stream, address.ip(), place) => {}
                        }
                    });
                }
                Err(error) => {
                    // Out of descriptors, mostly: others must leave first.
                    warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(listener);
        tasks.close();
        tasks.wait().await;
        self.service.shutdown().await;
    }

    /// Serves a connection until it is an endpoint's, is refused, or took too long.
    async fn welcome(&self, stream: TcpStream, address: IpAddr, mut place: Place) {
        // After the upgrade the relay's protocol has the stream, and waits for ever for a client that says nothing.
        let Ok(handle) = rustix::io::fcntl_dupfd_cloexec(&stream, 0) else { return };
        let number = HeaderValue::from(place.number);
        let work = async {
            let stream = self.tls.accept(stream).await.map_err(|error| error.to_string())?;
            let relay = RelayServiceWithNotify::new(self.service.clone(), Arc::new(Notify::new()));
            let upgrades = AtomicBool::new(false);
            let service = service_fn(|mut request: Request<Incoming>| {
                request.headers_mut().insert(NUMBER, number.clone());
                let (answer, upgrades) = (relay.call(request), &upgrades);
                async move {
                    let answer = answer.await.map_err(std::io::Error::other)?;
                    let upgrade = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
                    upgrades.store(upgrade, Ordering::Relaxed);
                    Ok::<_, std::io::Error>(answer)
                }
            });
            let upgraded = hyper::server::conn::http1::Builder::new()
                .keep_alive(false)
                .serve_connection(TokioIo::new(MaybeTlsStream::Tls(stream)), service)
                .with_upgrades();
            upgraded.await.map_err(|error| error.to_string())?;
            if upgrades.load(Ordering::Relaxed) {
                let _ = (&mut place.decided).await; // its sender is dropped then
            }
            Ok::<_, String>(())
        };
        match tokio::time::timeout(self.patience, work).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%address, %error, "a connection ended before it was a client"),
            Err(_) => {
                debug!(%address, "a connection took too long to say who it is");
                let _ = shutdown(&handle, Shutdown::Both); // it may be gone already
            }
        }
    }
}

/// What the relay answers to plain requests: endpoints measure distances by one of them.
fn handlers() -> Handlers {
    let mut handlers = Handlers::default();
    for (path, text) in
        [(RELAY_PROBE_PATH, ""), ("/", "This is a relay of ProxyStore.\n"), ("/healthz", "ok\n")]
    {
        handlers.insert(
            (Method::GET, path),
            Box::new(move |_, response| {
                let body: BytesBody = Box::new(text.to_owned());
                response
                    .status(StatusCode::OK)
                    .header("content-type", "text/plain; charset=utf-8")
                    .body(body)
                    .map_err(HyperError::from)
            }),
        );
    }
    handlers
}
