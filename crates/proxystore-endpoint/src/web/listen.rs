//! Connections of browsers and collectors, bounded in number and time.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use proxystore::{Error, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::guard::guarded;
use crate::lock::host_name;

/// How many may be connected at once; who comes later is sent away.
const PLACES: usize = 64;
/// How long a request may take to come, and a connection may be silent.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection lives; browsers open another.
const LIFE: Duration = Duration::from_mins(10);
/// How long an answer may take to leave when the connection is to end.
const GRACE: Duration = Duration::from_secs(1);
/// The longest head of a request.
const HEAD: usize = 16 << 10;

/// Where metrics, health and a page are served.
#[derive(Debug)]
pub struct Web {
    listener: TcpListener,
    address: SocketAddr,
}

impl Web {
    /// Listens at an address.
    ///
    /// # Errors
    /// When it cannot be had.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let failed = |error: io::Error| {
            Error::io("serve metrics and the page", error).with("address", address).with_hint(
                "write another into config.toml (`address` in section [web] of an endpoint, `web` of a relay), with port 0 for \
                 any that is free, or \"\" for none",
            )
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        if !address.ip().is_loopback() {
            warn!(%address, "whoever reaches this address sees status and metrics: there is no password");
        }
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `end` is cancelled. Only who asks by an address of this host, or its name, is answered.
    pub async fn serve(self, router: Router, end: CancellationToken) {
        let router = guarded(router, [host_name()].into());
        let places = Arc::new(Semaphore::new(PLACES));
        let tasks = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = end.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "could not accept a connection to the page");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                debug!("sent a connection to the page away: there are too many");
                continue;
            };
            let (router, end) = (router.clone(), end.clone());
            tasks.spawn(async move {
                attend(stream, router, end).await;
                drop(place);
            });
        }
        tasks.close();
        tasks.wait().await;
    }
}

async fn attend(stream: TcpStream, router: Router, end: CancellationToken) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                debug!(%error, "a connection to the page ended early");
            }
            return;
        }
        () = end.cancelled() => {}
        () = sleep(LIFE) => {}
    }
    connection.as_mut().graceful_shutdown();
    if timeout(GRACE, connection).await.is_err() {
        debug!("gave up a connection to the page that took no answer");
    }
}
