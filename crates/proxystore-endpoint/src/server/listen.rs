//! Where clients connect.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proxystore::{Error, Result};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::connection::{Door, attend};
use crate::service::Service;

const LISTEN: &str = "listen for clients";

/// The sockets of an endpoint.
#[derive(Debug)]
pub struct Listeners {
    unix: UnixListener,
    path: PathBuf,
    tcp: Option<TcpListener>,
}

impl Listeners {
    /// Listens at a Unix socket, which only this user reaches, and at an address.
    ///
    /// # Errors
    /// When one of them cannot be had.
    pub async fn open(path: &Path, tcp: Option<SocketAddr>) -> Result<Self> {
        let failed = |error| Error::io(LISTEN, error).with("socket", path.display());
        let _ = fs::remove_file(path); // of a daemon that was killed: the caller holds the endpoint's lock
        let unix = UnixListener::bind(path).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let tcp = match tcp {
            None => None,
            Some(address) => Some(TcpListener::bind(address).await.map_err(|error| {
                Error::io(LISTEN, error)
                    .with("address", address)
                    .with_hint("choose another `port` in section [clients], or 0 for any")
            })?),
        };
        Ok(Self { unix, path: path.to_owned(), tcp })
    }

    /// Where clients on other hosts connect.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|tcp| tcp.local_addr().ok())
    }
}

/// Serves clients until the service is told to stop; then finishes what was begun, within the patience with a
/// client.
pub async fn serve(listeners: Listeners, service: Arc<Service>, door: Arc<Door>) {
    let (tasks, over) = (TaskTracker::new(), CancellationToken::new());
    loop {
        let tcp = async {
            match &listeners.tcp {
                Some(tcp) => tcp.accept().await,
                None => std::future::pending().await,
            }
        };
        let failed = tokio::select! {
            () = service.stop.cancelled() => break,
            accepted = listeners.unix.accept() => match accepted {
                Ok((stream, _)) => {
                    let (read, write) = stream.into_split();
                    let client = attend(read, write, true, Arc::clone(&service), Arc::clone(&door));
                    tasks.spawn(over.clone().run_until_cancelled_owned(client));
                    continue;
                }
                Err(error) => error,
            },
            accepted = tcp => match accepted {
                Ok((stream, from)) => {
                    debug!(%from, "a client connected");
                    keep_alive(&stream);
                    let (read, write) = stream.into_split();
                    let client = attend(read, write, false, Arc::clone(&service), Arc::clone(&door));
                    tasks.spawn(over.clone().run_until_cancelled_owned(client));
                    continue;
                }
                Err(error) => error,
            },
        };
        // Out of descriptors, most likely: those who have one go on, and will give theirs back.
        warn!(%failed, "could not accept a client");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let _ = fs::remove_file(&listeners.path); // clients see at once that nobody is there
    drop(listeners);
    tasks.close();
    if timeout(door.patience, tasks.wait()).await.is_err() {
        warn!(clients = tasks.len(), "stopped in the middle of what clients take too long for");
        over.cancel();
        tasks.wait().await;
    }
}

/// Clients that vanish without a word are noticed within minutes; small answers leave at once.
fn keep_alive(stream: &TcpStream) {
    use rustix::net::sockopt;
    let _ = stream.set_nodelay(true); // slower without, but right
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, Duration::from_mins(1));
    let _ = sockopt::set_tcp_keepintvl(stream, Duration::from_secs(15));
    let _ = sockopt::set_tcp_keepcnt(stream, 4);
}
