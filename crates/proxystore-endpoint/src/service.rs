//! Answers one request, whoever asks: a client of this site, or a peer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proxystore::wire::{Answer, EndpointId, Fault, Name, Pong, Request, Stat};
use proxystore::{Error, ErrorKind, Key, Result};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::body::Body;
use crate::config::Access;
use crate::directory::Directory;
use crate::latency::Kind;
use crate::peer::Peers;
use crate::status::{Counters, Status};
use crate::storage::{Storage, Wanted};

/// The longest anybody waits in one request, milliseconds; who wants to wait longer asks again.
const LONGEST_WAIT: u64 = 3_600_000;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// A client of this site, who may do everything.
    Client,
    /// A peer, who may do what it was allowed, with the objects of this endpoint.
    Peer(Access),
}

/// What to answer: the head, and the bytes that go with it.
#[derive(Debug)]
pub struct Reply {
    /// The head.
    pub answer: Answer,
    /// The bytes.
    pub body: Body,
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self { answer, body: Body::empty() }
    }
}

/// What answers requests.
#[derive(Debug)]
pub struct Service {
    /// Who this endpoint is.
    pub id: EndpointId,
    /// What it is called on this site.
    pub name: String,
    /// Where it is told what to do.
    pub directory: Directory,
    /// Its objects.
    pub storage: Arc<Storage>,
    /// Other endpoints, if it has to do with any.
    pub peers: Option<Arc<Peers>>,
    /// What it counts.
    pub counters: Arc<Counters>,
    /// Cancelled when it is to stop.
    pub stop: CancellationToken,
    /// Since when it runs.
    pub started: Instant,
}

impl Service {
    /// Answers a request; errors become answers. `body` is what came with the request.
    pub async fn answer(&self, asker: Asker, request: Request, body: Body) -> Reply {
        let (kind, begun) = (Kind::of(&request), Instant::now());
        let result = self.try_answer(asker, request, body).await;
        self.counters.requests.add(1);
        self.counters.latencies.record(kind, begun.elapsed());
        match result {
            Ok(reply) => {
                if matches!(reply.answer, Answer::Failed(_)) {
                    self.counters.failures.add(1); // of a peer
                }
                reply
            }
            Err(error) => {
                self.counters.failures.add(1);
                Answer::Failed(Fault::of(&error)).into()
            }
        }
    }

    async fn try_answer(&self, asker: Asker, request: Request, body: Body) -> Result<Reply> {
        admit(asker, &request)?;
        let request = match request {
            Request::Wait(name, time) => Request::Wait(name, time.min(LONGEST_WAIT)),
            request => request,
        };
        match request.endpoint() {
            Some(endpoint) if *endpoint != self.id => self.ask_peer(asker, request, body).await,
            _ => self.answer_here(request, body).await,
        }
    }

    async fn ask_peer(&self, asker: Asker, request: Request, body: Body) -> Result<Reply> {
        if matches!(asker, Asker::Peer(_)) {
            return Err(Error::new(
                ErrorKind::Permission,
                "answer a peer",
                "the object is not here",
            )
            .with("asked", self.id)
            .with_hint("ask the endpoint that keeps it: peers do not pass requests on"));
        }
        let peers = self.peers.as_ref().ok_or_else(|| without_peers("ask a peer"))?;
        let peer = request.endpoint().copied();
        let reply = match request {
            Request::Put { name, ttl, shared: Some(shared) } => {
                let key = Key::new(shared.id, shared.generation, shared.size);
                let body = self.storage.take_shared(key).await?;
                peers.answer(Request::Put { name, ttl, shared: None }, body).await
            }
            Request::Wait(..) => tokio::select! {
                reply = peers.answer(request, body) => reply,
                () = self.stop.cancelled() => Err(stopping()),
            },
            request => peers.answer(request, body).await,
        }?;
        match (&reply.answer, peer) {
            // Passed on as it is, it would say that this endpoint is stopping.
            (Answer::Failed(fault), Some(peer)) if fault.kind() == ErrorKind::Closed => {
                Err(Error::new(ErrorKind::Io, "ask a peer", "the peer is stopping")
                    .with("peer", peer)
                    .with_hint("try again when it has started again"))
            }
            _ => Ok(reply),
        }
    }

    async fn answer_here(&self, request: Request, body: Body) -> Result<Reply> {
        Ok(match request {
            Request::Put { name: Name { id, generation, .. }, ttl, shared } => {
                let ttl = ttl.map(Duration::from_millis);
                match shared {
                    None => self.storage.put(&id, generation, ttl, body).await?,
                    Some(shared) => {
                        let key = Key::new(shared.id, shared.generation, shared.size);
                        self.storage.put_shared(&id, generation, ttl, key).await?;
                    }
                }
                Answer::Done.into()
            }
            Request::Get { name: Name { id, generation, .. }, range, shared } => {
                match self.storage.get(&id, generation, &Wanted { range, shared }).await? {
                    None => Answer::Absent.into(),
                    Some(found) => Reply {
                        answer: Answer::Object { stat: found.stat, shared: found.shared },
                        body: found.body,
                    },
                }
            }
            Request::Stat { name: Name { id, generation, .. }, hash } => {
                stated(self.storage.stat(&id, generation, hash).await?)
            }
            Request::Evict(Name { id, generation, .. }) => {
                self.storage.evict(&id, generation).await?;
                Answer::Done.into()
            }
            Request::Expire(Name { id, generation, .. }, ttl) => {
                self.storage.expire(&id, generation, ttl.map(Duration::from_millis)).await?;
                Answer::Done.into()
            }
            Request::Wait(Name { id, generation, .. }, time) => {
                let deadline = tokio::time::Instant::now() + Duration::from_millis(time);
                tokio::select! {
                    found = self.storage.wait(&id, generation, deadline) => stated(found?),
                    () = self.stop.cancelled() => return Err(stopping()),
                }
            }
            Request::Clear { prefix, .. } => {
                self.storage.clear(&prefix).await?;
                Answer::Done.into()
            }
            Request::Hint(endpoint, relay) => {
                if let Some(peers) = &self.peers {
                    peers.hint(endpoint, &relay)?;
                }
                Answer::Done.into()
            }
            Request::Ping(_) => {
                Answer::Pong(Pong { path: "local".into(), ..Pong::default() }).into()
            }
            Request::Status => {
                let json = serde_json::to_vec(&self.status()).map_err(|source| {
                    Error::new(ErrorKind::Encode, "tell the status", "it has no form")
                        .with_source(source)
                })?;
                let stat = Stat { size: json.len() as u64, ..Stat::default() };
                Reply {
                    answer: Answer::Object { stat, shared: None },
                    body: Bytes::from(json).into(),
                }
            }
            Request::Stop => {
                self.stop.cancel();
                Answer::Done.into()
            }
            Request::Reload => {
                self.reload()?;
                Answer::Done.into()
            }
        })
    }

    /// Reads again who is a peer. The rest of the configuration counts from the next start.
    fn reload(&self) -> Result<()> {
        let peers = self.peers.as_ref().ok_or_else(|| without_peers("read who is a peer"))?;
        peers.reload(&self.directory.config()?)?;
        info!("read again who is a peer");
        Ok(())
    }

    /// The whole picture.
    pub fn status(&self) -> Status {
        let counters = &self.counters;
        let (relay, peers) = self.peers.as_ref().map(|peers| peers.status()).unwrap_or_default();
        Status {
            name: self.name.clone(),
            id: self.id.to_string(),
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            uptime: self.started.elapsed().as_secs(),
            storage: self.storage.usage(),
            clients: counters.clients.get(),
            refused_clients: counters.refused_clients.get(),
            requests: counters.requests.get(),
            failures: counters.failures.get(),
            bytes_in: counters.bytes_in.get(),
            bytes_out: counters.bytes_out.get(),
            peer_bytes_in: counters.peer_bytes_in.get(),
            peer_bytes_out: counters.peer_bytes_out.get(),
            refused_peers: counters.refused_peers.get(),
            relay,
            peers,
        }
    }
}

fn without_peers(operation: &'static str) -> Error {
    Error::new(ErrorKind::Unsupported, operation, "this endpoint has no peers")
        .with_hint("set `enabled = true` in section [peers] of its config.toml, and start it again")
}

fn stated(stat: Option<Stat>) -> Reply {
    stat.map_or(Answer::Absent, Answer::Stat).into()
}

fn stopping() -> Error {
    Error::new(ErrorKind::Closed, "wait for object", "the endpoint is stopping")
        .with_hint("wait again when it has started again")
}

/// Refuses what a peer may not ask.
fn admit(asker: Asker, request: &Request) -> Result<()> {
    let Asker::Peer(access) = asker else { return Ok(()) };
    let refused = match request {
        Request::Hint(..) | Request::Status | Request::Stop | Request::Reload => {
            "only its own clients may ask an endpoint that"
        }
        Request::Put { shared: Some(_), .. } => "a peer has no shared memory here",
        Request::Put { .. } | Request::Evict(_) | Request::Expire(..) | Request::Clear { .. }
            if access == Access::Read =>
        {
            "this peer may only read"
        }
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::Permission, "answer a peer", refused)
        .with_hint("`proxystore endpoint trust` there says what a peer may do"))
}
