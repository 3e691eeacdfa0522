//! Connections to peers: one each, kept while it is of use, made anew when it broke. Whoever made it, both sides send
//! requests over it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use iroh::endpoint::{Connection, ConnectionError};
use iroh::{EndpointAddr, Watcher};
use proxystore::wire::{EndpointId, Fault};
use proxystore::{Error, ErrorKind, Result};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{debug, info};

use super::admission::{Admission, PROOF, Role, code};
use super::link::{Link, Traffic};
use super::network::ALPN;
use super::{Peers, TRANSFERS};
use crate::config::Access;

const DIAL: &str = "reach a peer";

/// How many peers are remembered that are not connected.
const REMEMBERED: usize = 4096;

/// How many requests at a peer may wait for objects at once: fewer than it answers, so that others get through.
pub(super) const WAITS: usize = 768;

/// How many connections with one peer there may be: those that newer ones replaced end once they are idle.
const CONNECTIONS: usize = 4;

/// The peers that were connected, or tried.
#[derive(Debug, Default)]
pub(super) struct Slots(Mutex<HashMap<EndpointId, Arc<Slot>>>);

/// One peer.
#[derive(Debug)]
pub(super) struct Slot {
    /// The last one is the newest.
    links: Mutex<VecDeque<Arc<Link>>>,
    pub(super) traffic: Arc<Traffic>,
    /// Held by who dials; when it failed last, and why.
    dialling: tokio::sync::Mutex<()>,
    failed: Mutex<Option<(Instant, Fault)>>,
    /// How many connections there were.
    count: AtomicU64,
    /// For requests that wait for its objects.
    pub(super) waits: Semaphore,
    /// For long bodies that it sends or is sent because it asked.
    pub(super) transfers: Semaphore,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            links: Mutex::default(),
            traffic: Arc::default(),
            dialling: tokio::sync::Mutex::default(),
            failed: Mutex::default(),
            count: AtomicU64::default(),
            waits: Semaphore::new(WAITS),
            transfers: Semaphore::new(TRANSFERS / 2),
        }
    }
}

impl Slots {
    pub(super) fn of(&self, peer: &EndpointId) -> Arc<Slot> {
        let mut slots = lock(&self.0);
        if slots.len() >= REMEMBERED && !slots.contains_key(peer) {
            slots.retain(|_, slot| slot.link().is_some());
        }
        Arc::clone(slots.entry(*peer).or_default())
    }

    pub(super) fn all(&self) -> Vec<(EndpointId, Arc<Slot>)> {
        lock(&self.0).iter().map(|(id, slot)| (*id, Arc::clone(slot))).collect()
    }
}

impl Slot {
    /// The connection, while it is open.
    pub(super) fn link(&self) -> Option<Arc<Link>> {
        lock(&self.links).back().filter(|link| link.is_open()).cloned()
    }

    /// The newest connection is the one to use: an older one may be to a process that is gone.
    pub(super) fn set(&self, link: &Arc<Link>) {
        let mut links = lock(&self.links);
        links.retain(|link| link.is_open());
        if links.len() >= CONNECTIONS
            && let Some(oldest) = links.pop_front()
        {
            oldest.close(code::IDLE, "there are newer connections");
        }
        links.push_back(Arc::clone(link));
        drop(links);
        *lock(&self.failed) = None;
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Which connection it is, counted.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Why it could not be reached, if that was so last.
    pub(super) fn failure(&self) -> Option<(Instant, Fault)> {
        lock(&self.failed).clone()
    }
}

impl Peers {
    /// The connection to a peer; made, if there is none. Those who need it at the same time share the attempt.
    pub(super) async fn link(&self, peer: &EndpointId) -> Result<Arc<Link>> {
        let slot = self.slots.of(peer);
        if let Some(link) = slot.link() {
            return Ok(link);
        }
        self.admission().check(peer)?;
        let asked = Instant::now();
        let _dialling = slot.dialling.lock().await;
        if let Some(link) = slot.link() {
            return Ok(link);
        }
        match slot.failure() {
            Some((when, fault)) if when >= asked => return Err(fault.into_error(DIAL)),
            _ => {}
        }
        match self.dial(peer, &slot).await {
            Ok(link) => {
                // Who asked may be gone at any await: then the connection is closed, or else served.
                let served = self.dialled.reserve().await;
                slot.set(&link);
                if let Ok(served) = served {
                    served.send(Arc::clone(&link));
                } // else nobody serves any more: stopping
                Ok(link)
            }
            Err(error) => {
                // The peer may have connected meanwhile.
                if let Some(link) = slot.link() {
                    return Ok(link);
                }
                *lock(&slot.failed) = Some((Instant::now(), Fault::of(&error)));
                Err(error)
            }
        }
    }

    async fn dial(&self, peer: &EndpointId, slot: &Slot) -> Result<Arc<Link>> {
        let ways = self.book.ways(peer).await?;
        let admission = self.admission();
        let name = admission.name(peer);
        debug!(peer = name, ?ways, "reaching a peer");
        let connecting = self.network.connect(ways.clone(), ALPN);
        let connection = match timeout(self.bounds.dial, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(self.unreachable(&name, &ways, &error.to_string())),
            Err(_) => return Err(self.unreachable(&name, &ways, "it did not answer in time")),
        };
        let access = timeout(self.bounds.dial, self.greet(peer, &name, &admission, &connection))
            .await
            .map_err(|_elapsed| self.unreachable(&name, &ways, "it did not greet in time"))??;
        let link = Link::new(connection, *peer, name, access, admission, Arc::clone(&slot.traffic));
        let link = Arc::new(link);
        info!(peer = link.name, id = %peer, path = ?link.path(), "connected to a peer");
        Ok(link)
    }

    /// Both sides say whether they know the secret, and each decides.
    async fn greet(
        &self,
        peer: &EndpointId,
        name: &str,
        admission: &Admission,
        connection: &Connection,
    ) -> Result<Access> {
        let failed = |error: String| self.refused(peer, name, connection, &error);
        let (mut send, mut receive) =
            connection.open_bi().await.map_err(|e| failed(e.to_string()))?;
        let proof = admission.proof(Role::Dialler, connection)?;
        send.write_all(&proof).await.map_err(|e| failed(e.to_string()))?;
        let _ = send.finish(); // fails when the connection does: the next line says so
        let mut proof = [0; PROOF];
        receive.read_exact(&mut proof).await.map_err(|e| failed(e.to_string()))?;
        if let Some(access) = admission.admits(peer, Role::Listener, &proof, connection)? {
            return Ok(access);
        }
        connection.close(code::REFUSED, b"you do not know our group secret");
        Err(Error::new(ErrorKind::Permission, "ask a peer", "it does not know our group secret")
            .with("peer", peer)
            .with_hint(format!(
                "give both the same `group_secret`, or run `{}`",
                admission.command(peer)
            )))
    }

    /// Why a greeting failed: the other side closed the connection because this one is no peer of it, mostly.
    fn refused(
        &self,
        peer: &EndpointId,
        name: &str,
        connection: &Connection,
        error: &str,
    ) -> Error {
        if let Some(ConnectionError::ApplicationClosed(closed)) = connection.close_reason()
            && closed.error_code == code::REFUSED
        {
            let own = self.id;
            return Error::new(ErrorKind::Permission, "ask a peer", "it does not admit us")
                .with("peer", name)
                .with("its id", peer)
                .with("our id", own)
                .with("it says", String::from_utf8_lossy(&closed.reason))
                .with_hint(format!(
                    "its operator has to run `proxystore endpoint trust NAME {own}` there, or to give \
                     both the same `group_secret`"
                ));
        }
        Error::new(ErrorKind::Io, DIAL, format!("the greeting failed: {error}"))
            .with("peer", name)
            .with_hint("try again")
    }

    /// What was tried, and what is most likely the matter.
    fn unreachable(&self, name: &str, ways: &EndpointAddr, reason: &str) -> Error {
        let addresses: Vec<String> = ways.ip_addrs().map(ToString::to_string).collect();
        let mut error = Error::new(ErrorKind::Io, DIAL, reason.to_owned()).with("peer", name);
        if !addresses.is_empty() {
            error = error.with("addresses", addresses.join(" "));
        }
        let relays: Vec<String> = ways.relay_urls().map(ToString::to_string).collect();
        if relays.is_empty() {
            return error.with_hint(
                "see whether its endpoint runs and whether UDP gets through to these addresses; set `url` in \
                 section [relay] on both sides to do without",
            );
        }
        let status = self.network.home_relay_status().get();
        let own = status.iter().find(|status| ways.relay_urls().any(|relay| relay == status.url()));
        error = error.with("relay", relays.join(" "));
        error.with_hint(match own {
            Some(status) if status.is_connected() => {
                "this endpoint reaches the relay; see whether the other one runs and is connected to the same relay \
                 (`proxystore endpoint status` there)"
                    .to_owned()
            }
            Some(status) => match (status.auth_denied_reason(), status.last_error()) {
                (Some(denied), _) => {
                    format!("the relay refuses this endpoint ({denied}); see `token` in section [relay]")
                }
                (None, Some(problem)) => {
                    format!("this endpoint does not reach the relay: {problem}")
                }
                (None, None) => "this endpoint does not reach the relay; see its URL and `fingerprint`".into(),
            },
            None => "see whether its endpoint runs and is connected to this relay".into(),
        })
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
