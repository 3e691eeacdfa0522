//! Starts an endpoint, and stops it again.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proxystore::connectors::endpoint::home::Card;
use proxystore::wire::{EndpointId, Welcome};
use proxystore::{Error, ErrorKind, Result};
use rustix::fs::FlockOperation;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::config::Config;
use crate::directory::Directory;
use crate::peer::{Bounds, Peers};
use crate::server::{Door, Listeners, serve};
use crate::service::Service;
use crate::status::Counters;
use crate::storage::Storage;

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
    let peers = if config.peers.enabled {
        Some(Peers::start(secret, &config, Arc::clone(&counters), Bounds::default()).await?)
    } else {
        None
    };
    let service = Arc::new(Service {
        id,
        name: config.name.clone(),
        storage: Arc::new(Storage::default()),
        peers: peers.clone(),
        counters,
        stop: stop.clone(),
        started: Instant::now(),
    });
    let listeners = Listeners::open(&directory.socket(), tcp_address(&config)?).await?;
    let card = Card {
        name: config.name.clone(),
        id: id.to_string(),
        uuid: id.uuid(),
        host: Some(host_name()),
        socket: Some(directory.socket()),
        tcp: listeners.tcp_address().map(|address| address.to_string()),
        relay: Some(config.relay.url.clone()).filter(|url| !url.is_empty()),
        web: None,
    };
    let door = Door {
        token: directory.token()?,
        welcome: Welcome {
            name: config.name.clone(),
            relay: card.relay.clone(),
            shared: None,
            shared_from: config.storage.shared_from,
            max_object: config.storage.max_object,
        },
        patience: Duration::from_secs(config.clients.patience.max(1)),
        places: Semaphore::new(config.clients.connections),
        transfers: Semaphore::new(TRANSFERS),
    };
    directory.write_card(&card)?;
    info!(name = config.name, %id, "the endpoint runs");
    ready(&card);
    let serving = peers.clone().map(|peers| tokio::spawn(peers.serve(Arc::clone(&service))));
    serve(listeners, Arc::clone(&service), Arc::new(door)).await;
    if let (Some(peers), Some(serving)) = (peers, serving) {
        peers.shutdown().await;
        let _ = serving.await; // it says nothing
    }
    service.storage.close().await?;
    directory.write_card(&Card { host: None, socket: None, tcp: None, web: None, ..card })?;
    info!("the endpoint stopped");
    Ok(())
}

/// Where clients on other hosts connect, if they may.
fn tcp_address(config: &Config) -> Result<Option<SocketAddr>> {
    let (host, port) = (config.clients.host.as_str(), config.clients.port);
    let host = match host {
        "" => return Ok(None),
        "ip" | "fqdn" => host_name(),
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

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The right to run an endpoint: a lock on its file of the process, which dies with the process.
#[derive(Debug)]
struct Lock(File);

impl Lock {
    fn take(directory: &Directory) -> Result<Self> {
        let path = directory.pid_file();
        let failed = |error| Error::io(START, error).with("file", path.display());
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder); // for the message alone
            return Err(Error::new(ErrorKind::Config, START, "it runs already")
                .with("process", holder.trim().replace('\n', " on "))
                .with("directory", directory.path().display())
                .with_hint("stop it first: `proxystore endpoint stop`"));
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
        writeln!(file, "{}\n{}", std::process::id(), host_name()).map_err(failed)?;
        Ok(Self(file))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.set_len(0); // nobody runs: the lock would say so too
    }
}
