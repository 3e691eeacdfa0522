//! An object of a peer, or a range of it, in parts that are asked for at the same time and come in order.
//!
//! Several streams are faster than one on long paths, and a part that was lost with its connection is asked for again.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proxystore::wire::{Answer, Name, Request, Stat};
use proxystore::{Error, ErrorKind, Result};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::Peers;
use crate::body::Body;
use crate::service::Reply;

/// Length of a part, bytes.
pub(super) const PART: u64 = 1 << 20;

/// How fast a peer reads an object at least to find its hash, bytes per second.
const HASHED_PER_SECOND: u64 = 50 << 20;

const GET: &str = "get object of a peer";

type Pieces = VecDeque<Bytes>;

/// What a peer says when it is asked for the first part.
pub(super) enum Begun {
    /// There is an object, and these are its parts.
    Object(Box<Parts>),
    /// There is none, or it cannot be had: the reply says so.
    Other(Reply),
}

/// A part that is on its way, and its place among those that are asked for ahead.
type Coming = (AbortOnDropHandle<Result<Pieces>>, Option<OwnedSemaphorePermit>);

/// The parts of an object.
pub(super) struct Parts {
    peers: Arc<Peers>,
    /// With the generation that was found.
    name: Name,
    pub(super) stat: Stat,
    range: Range<u64>,
    /// Where the part begins that is asked for next.
    ahead: u64,
    coming: VecDeque<Coming>,
    /// Which connection it was when this began.
    connection: u64,
    /// Whether the hash is checked even if nothing went wrong.
    pub(super) distrust: bool,
    /// Of what came, where it is to be the whole object.
    hasher: Option<blake3::Hasher>,
}

impl Peers {
    /// Asks for the first part of an object, or of a range of it.
    pub(super) async fn begin(
        self: &Arc<Self>,
        name: &Name,
        range: Option<Range<u64>>,
    ) -> Result<Begun> {
        let start = range.as_ref().map_or(0, |range| range.start);
        let wanted = range.as_ref().map_or(u64::MAX, |range| range.end);
        if start > wanted {
            return Err(past_the_end());
        }
        let first = start..wanted.min(start.saturating_add(PART));
        let request = Request::Get { name: name.clone(), range: Some(first), shared: false };
        let reply = self.ask(&name.endpoint, &request, Body::empty()).await?;
        let Answer::Object { stat, .. } = reply.answer else { return Ok(Begun::Other(reply)) };
        let range = start..if range.is_some() { wanted } else { stat.size };
        if range.end > stat.size || start > stat.size {
            return Err(past_the_end());
        }
        let ahead = range.end.min(start.saturating_add(PART));
        if reply.body.len() != ahead - start {
            return Err(wrong_length());
        }
        let name = Name { generation: stat.generation, ..name.clone() };
        let whole = range == (0..stat.size);
        let mut parts = Parts {
            peers: Arc::clone(self),
            connection: self.slots.of(&name.endpoint).count(),
            hasher: whole.then(blake3::Hasher::new),
            coming: VecDeque::new(),
            distrust: false,
            name,
            stat,
            range,
            ahead,
        };
        parts.ask(start..ahead, Some(reply.body), None);
        Ok(Begun::Object(Box::new(parts)))
    }

    /// One part, also when the connection breaks in the middle: then what is missing of it is asked for again.
    async fn part(
        &self,
        name: &Name,
        stat: &Stat,
        range: Range<u64>,
        first: Option<Body>,
    ) -> Result<Pieces> {
        let first_pause = Duration::from_millis(50);
        let (mut pieces, mut at) = (Pieces::new(), range.start);
        // Until when the peer may come back, once it was lost; time that brought bytes does not count.
        let (mut deadline, mut pause) = (None, first_pause);
        let by = || Instant::now() + self.bounds.resume;
        let mut body = first;
        loop {
            let failed = if let Some(mut body) = body.take() {
                loop {
                    match body.next().await {
                        None => return Ok(pieces),
                        Some(Err(error)) => break error,
                        Some(Ok(piece)) => {
                            at += piece.len() as u64;
                            pieces.push_back(piece);
                            (deadline, pause) = (None, first_pause);
                        }
                    }
                }
            } else {
                let rest = Some(at..range.end);
                let request = Request::Get { name: name.clone(), range: rest, shared: false };
                let (patience, until) = (self.bounds.patience, deadline.unwrap_or_else(by));
                let reply = self.ask_until(&name.endpoint, &request, patience, until).await?;
                match reply.answer {
                    Answer::Object { stat: found, .. }
                        if (found.generation, found.size) == (stat.generation, stat.size) =>
                    {
                        if reply.body.len() != range.end - at {
                            return Err(wrong_length());
                        }
                        body = Some(reply.body);
                        continue;
                    }
                    Answer::Failed(fault) => fault.into_error(GET),
                    _ => return Err(changed()),
                }
            };
            // A peer that is stopping may be back soon.
            let passing = failed.kind().is_retryable() || failed.kind() == ErrorKind::Closed;
            let until = *deadline.get_or_insert_with(by);
            if !passing || Instant::now() + pause > until || self.stop.is_cancelled() {
                return Err(failed);
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }
}

impl Parts {
    /// How many bytes all parts have.
    pub(super) fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// With the generation that was found.
    pub(super) fn name(&self) -> &Name {
        &self.name
    }

    fn ask(&mut self, range: Range<u64>, first: Option<Body>, place: Option<OwnedSemaphorePermit>) {
        let (peers, name, stat) = (Arc::clone(&self.peers), self.name.clone(), self.stat);
        let part = async move { peers.part(&name, &stat, range, first).await };
        self.coming.push_back((AbortOnDropHandle::new(self.peers.tasks.spawn(part)), place));
    }

    /// The next part; `None` after the last. The last one is only given when the whole is what the peer says it is,
    /// if there is a reason to doubt it.
    pub(super) async fn next(&mut self) -> Option<Result<Pieces>> {
        // Twice as many as streams, so that none of them waits for its next request.
        while self.ahead < self.range.end && self.coming.len() < self.peers.streams * 2 {
            let place = Arc::clone(&self.peers.ahead).try_acquire_owned().ok();
            if place.is_none() && !self.coming.is_empty() {
                break;
            }
            let end = self.range.end.min(self.ahead + PART);
            self.ask(self.ahead..end, None, place);
            self.ahead = end;
        }
        let (part, _place) = self.coming.pop_front()?;
        let part = part.await.unwrap_or_else(|stopped| {
            Err(Error::new(ErrorKind::Closed, GET, "the endpoint is stopping").with_source(stopped))
        });
        let Ok(pieces) = part else { return Some(part) };
        if let Some(hasher) = &mut self.hasher {
            for piece in &pieces {
                hasher.update(piece);
            }
        }
        if self.coming.is_empty() && self.ahead == self.range.end {
            return Some(self.check().await.map(|()| pieces));
        }
        Some(Ok(pieces))
    }

    /// Compares the hash of what came with what the peer says: where it said so already, where the
    /// connection is another than in the beginning, and where it is kept.
    async fn check(&self) -> Result<()> {
        let Some(hasher) = &self.hasher else { return Ok(()) };
        let resumed = self.peers.slots.of(&self.name.endpoint).count() != self.connection;
        let expected = match self.stat.hash {
            Some(hash) => hash,
            None if !resumed && !self.distrust => return Ok(()),
            None => {
                let request = Request::Stat { name: self.name.clone(), hash: true };
                let time = Duration::from_secs(self.stat.size / HASHED_PER_SECOND);
                let (patience, peer) = (self.peers.bounds.patience + time, &self.name.endpoint);
                let deadline = Instant::now() + self.peers.bounds.resume;
                match self.peers.ask_until(peer, &request, patience, deadline).await?.answer {
                    Answer::Stat(Stat { hash: Some(hash), .. }) => hash,
                    // It does not know: then there is nothing to compare.
                    Answer::Stat(_) => return Ok(()),
                    Answer::Failed(fault) => return Err(fault.into_error(GET)),
                    _ => return Err(changed()),
                }
            }
        };
        if *hasher.finalize().as_bytes() == expected {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Corrupt, GET, "what arrived is not what the peer has")
            .with("peer", self.peers.admission().name(&self.name.endpoint))
            .with("object", &self.name.id)
            .with_hint("get it again; if that does not help, see the peer's disk"))
    }
}

fn past_the_end() -> Error {
    Error::new(ErrorKind::Config, "get part of an object", "the range reaches past the end")
}

fn wrong_length() -> Error {
    Error::new(
        ErrorKind::Corrupt,
        GET,
        "the peer sent another number of bytes than it was asked for",
    )
}

fn changed() -> Error {
    Error::new(ErrorKind::Io, GET, "it was replaced or evicted in the middle")
        .with_hint("get it again")
}
