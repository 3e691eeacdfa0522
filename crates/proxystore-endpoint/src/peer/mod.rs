//! Other endpoints: who is admitted, how they are reached, and what is asked of them.
//!
//! - `network`: QUIC and the relay. `book`: where endpoints are. `admission`: who is a peer.
//! - `dial`, `link`: connections, and requests over them. `serve`: the other direction.
//! - `ask`: what clients of this site want of a peer, kind by kind. `get`, `parts`, `cache`: objects, fetched in parts,
//!   once for all who want them, and kept where that is allowed.
//! - `status`: how it all looks.

mod admission;
mod ask;
mod book;
mod cache;
mod dial;
mod get;
mod link;
mod network;
mod parts;
mod serve;
mod status;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use iroh::{Endpoint, SecretKey};
use proxystore::Result;
use proxystore::wire::EndpointId;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::status::Counters;

use admission::{Admission, code};
use book::Book;
use cache::Cache;
use dial::Slots;
use get::Flights;
use link::Link;
use status::Paths;

/// How many may connect at once without having said who they are.
const STRANGERS: usize = 64;
/// How many long bodies may go to peers that asked, or come from them, at once; one peer has half of that at most.
const TRANSFERS: usize = 128;
/// How many parts of objects of peers may be on their way, or wait for who wants them, beside one of each object:
/// fewer than one peer answers at once.
const AHEAD: usize = 48;
/// How many bytes of objects may be held while several fetch them at once, unless the copies that are kept may be more.
const SHARED: u64 = 64 << 20;

/// How long things take at most.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// To reach a peer, and to greet it.
    pub dial: Duration,
    /// For a peer to answer, and to go on in the middle of something.
    pub patience: Duration,
    /// For a peer to come back in the middle of an object.
    pub resume: Duration,
    /// For a connection to be of no use before it is closed.
    pub idle: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            dial: Duration::from_secs(10),
            patience: Duration::from_secs(30),
            resume: Duration::from_secs(30),
            idle: Duration::from_mins(5),
        }
    }
}

/// The exchange with other endpoints.
#[derive(Debug)]
pub struct Peers {
    id: EndpointId,
    network: Endpoint,
    relay: Option<String>,
    /// Who is a peer, as it was last read.
    admission: watch::Sender<Arc<Admission>>,
    book: Book,
    slots: Slots,
    paths: Paths,
    bounds: Bounds,
    counters: Arc<Counters>,
    strangers: Arc<Semaphore>,
    transfers: Semaphore,
    /// How many parts of an object are on their way at once, or so.
    streams: usize,
    /// For parts beside the next one of each object.
    ahead: Arc<Semaphore>,
    cache: Cache,
    flights: Flights,
    /// For objects that several fetch at once.
    room: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Connections that were made here, for who serves them.
    dialled: mpsc::Sender<Arc<Link>>,
    dialled_here: Mutex<Option<mpsc::Receiver<Arc<Link>>>>,
}

impl Peers {
    /// Opens the network. Peers can be asked from now on; they are answered by [`serve`](Self::serve).
    ///
    /// # Errors
    /// When the configuration makes no sense, and when the port cannot be had.
    pub async fn start(
        secret: SecretKey,
        config: &Config,
        counters: Arc<Counters>,
        bounds: Bounds,
    ) -> Result<Arc<Self>> {
        let id = EndpointId::from_bytes(*secret.public().as_bytes());
        let admission = Admission::new(config)?;
        let book = Book::new(config)?;
        let (dialled, dialled_here) = mpsc::channel(16);
        Ok(Arc::new(Self {
            id,
            network: network::open(secret, config).await?,
            relay: Some(config.relay.url.clone()).filter(|url| !url.is_empty()),
            admission: watch::Sender::new(Arc::new(admission)),
            book,
            slots: Slots::default(),
            paths: Paths::default(),
            bounds,
            counters,
            strangers: Arc::new(Semaphore::new(STRANGERS)),
            transfers: Semaphore::new(TRANSFERS),
            streams: config.peers.streams.clamp(1, 16),
            ahead: Arc::new(Semaphore::new(AHEAD)),
            cache: Cache::new(config.peers.cache),
            flights: Flights::default(),
            room: Arc::new(Semaphore::new((SHARED.max(config.peers.cache) / get::UNIT) as usize)),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            dialled,
            dialled_here: Mutex::new(Some(dialled_here)),
        }))
    }

    /// Where this endpoint is reached without a relay, as far as this host knows.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.network.bound_sockets()
    }

    /// Remembers by which relay an endpoint may be reached.
    ///
    /// # Errors
    /// When that is no URL.
    pub fn hint(&self, peer: EndpointId, relay: &str) -> Result<()> {
        self.book.hint(peer, relay)
    }

    /// Takes over who is a peer, and where peers are. Connections of those who are not admitted any more, or may
    /// do something else now, are closed.
    ///
    /// # Errors
    /// When that makes no sense: then all stays as it was.
    pub fn reload(&self, config: &Config) -> Result<()> {
        let admission = Admission::new(config)?;
        self.book.reload(config)?;
        self.admission.send_replace(Arc::new(admission));
        Ok(())
    }

    fn admission(&self) -> Arc<Admission> {
        Arc::clone(&self.admission.borrow())
    }

    /// Lets go of all peers, within a few seconds.
    pub async fn shutdown(&self) {
        const GOODBYE: Duration = Duration::from_secs(3);
        self.stop.cancel();
        for (_, slot) in self.slots.all() {
            if let Some(link) = slot.link() {
                link.close(code::STOPPING, "the endpoint is stopping");
            }
        }
        let _ = timeout(GOODBYE, self.network.close()).await; // those who did not hear it notice in seconds
        self.tasks.close();
        let _ = timeout(GOODBYE, self.tasks.wait()).await;
    }
}
