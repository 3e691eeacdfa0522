//! Starts an endpoint, and stops it again.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proxystore::connectors::endpoint::home::Card;
use proxystore::wire::{EndpointId, Welcome};
use proxystore::{Error, ErrorKind, Result};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::config::Config;
use crate::directory::Directory;
use crate::lock::{Lock, host_name};
use crate::memory;
use crate::peer::{Bounds, Peers};
use crate::server::{Door, Listeners, serve, socket_path};
use crate::service::Service;
use crate::status::Counters;
use crate::storage::Storage;
use crate::web::{self, Web};

const START: &str = "start an endpoint";

/// How many long bodies may be on their way at once.
const TRANSFERS: usize = 128;

/// Runs the endpoint of a directory until `stop` is cancelled. `ready` is called once clients can connect.
///
/// # Errors
/// When it runs already, and when something that it needs cannot be had.
pub async fn run(
    directory: &Directory,
    stop: CancellationToken,
    ready: impl FnOnce(&Card),
) -> Result<()> {
    let config = directory.config()?;
    let _lock = Lock::take(directory)?;
    let secret = directory.identity()?;
    let id = EndpointId::from_bytes(*secret.public().as_bytes());
    let counters = Arc::new(Counters::default());
    let session = format!("endpoint-{}", id.short());
    let storage =
        Storage::open(&config.storage, &directory.objects(), Some(session.as_str())).await?;
    let shared = storage.session().map(|session| format!("shm://{session}"));
    let peers = if config.peers.enabled {
        Some(Peers::start(secret, &config, Arc::clone(&counters), Bounds::default()).await?)
    } else {
        None
    };
    let service = Arc::new(Service {
        id,
        name: config.name.clone(),
        directory: directory.clone(),
        storage: Arc::new(storage),
        peers: peers.clone(),
        counters,
        stop: stop.clone(),
        started: Instant::now(),
    });
    let socket = socket_path(directory, &id)?;
    let listeners = Listeners::open(&socket, tcp_address(&config)?).await?;
    let web = match config.web.address {
        Some(address) => Some(Web::open(address).await?),
        None => None,
    };
    let card = Card {
        name: config.name.clone(),
        id: id.to_string(),
        uuid: id.uuid(),
        host: Some(host_name()),
        socket: Some(socket),
        tcp: listeners.tcp_address().map(|address| address.to_string()),
        relay: Some(config.relay.url.clone()).filter(|url| !url.is_empty()),
        web: web.as_ref().map(|web| web.address().to_string()),
    };
    let places = config.clients.connections.min(open_files() / 2);
    let door = Door {
        token: directory.token()?,
        welcome: Welcome {
            name: config.name.clone(),
            relay: card.relay.clone(),
            shared,
            shared_from: config.storage.shared_from,
            max_object: config.storage.max_object,
        },
        patience: Duration::from_secs(config.clients.patience.max(1)),
        places: Semaphore::new(places),
        strangers: Semaphore::new(places.div_ceil(2)),
        transfers: Semaphore::new(TRANSFERS),
    };
    directory.write_card(&card)?;
    info!(name = config.name, %id, "the endpoint runs");
    ready(&card);
    let serving = peers.clone().map(|peers| tokio::spawn(peers.serve(Arc::clone(&service))));
    let web_ends = CancellationToken::new();
    let web =
        web.map(|web| tokio::spawn(web.serve(web::site(Arc::clone(&service)), web_ends.clone())));
    tokio::select! {
        () = serve(listeners, Arc::clone(&service), Arc::new(door)) => {}
        () = memory::give_back(&service.storage) => {} // which never ends
    }
    if let (Some(peers), Some(serving)) = (peers, serving) {
        peers.shutdown().await;
        let _ = serving.await; // it says nothing
    }
    let closed = service.storage.close().await;
    web_ends.cancel(); // it says until now that the endpoint is stopping
    if let Some(web) = web {
        let _ = web.await; // a panic in it is in the log
    }
    closed?;
    directory.write_card(&Card { host: None, socket: None, tcp: None, web: None, ..card })?;
    info!("the endpoint stopped");
    Ok(())
}

/// How many files this process may have open. Clients take half of them at most: objects are in files too.
fn open_files() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(1 << 20).min(1 << 20)
}

/// This host's address on the way to the world. Its name often stands for a loopback address, which no other host
/// reaches. Nothing is sent: connecting a UDP socket only asks the routes.
fn routed_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
}

/// Where clients on other hosts connect, if they may.
fn tcp_address(config: &Config) -> Result<Option<SocketAddr>> {
    let (host, port) = (config.clients.host.as_str(), config.clients.port);
    let host = match host {
        "" => return Ok(None),
        "ip" => routed_address().map_or_else(host_name, |ip| ip.to_string()),
        "fqdn" => host_name(),
        host => host.to_owned(),
    };
    let failed = |message: String| {
        Error::new(ErrorKind::Config, START, message).with("host", &host).with_hint(
            "set `host` in section [clients] to an address of this machine, or to \"\" for none",
        )
    };
    let mut found =
        (host.as_str(), port).to_socket_addrs().map_err(|error| failed(error.to_string()))?;
    found.next().map(Some).ok_or_else(|| failed("it has no address".into()))
}
