//! What clients of this site want of a peer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proxystore::wire::{Answer, EndpointId, Name, Request, milliseconds};
use proxystore::{Error, ErrorKind, Result};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::Peers;
use super::dial::WAITS;
use super::status::pong;
use crate::body::Body;
use crate::service::Reply;

/// The longest a peer waits in one request, so that it is noticed when it has gone.
const LONG_POLL: Duration = Duration::from_mins(1);
/// The same where places for those who wait get scarce: they take turns.
const SHORT_POLL: Duration = Duration::from_secs(2);
/// The longest between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

impl Peers {
    /// Has a peer answer a request of a client.
    ///
    /// # Errors
    /// When it cannot be reached, or breaks off.
    pub async fn answer(self: &Arc<Self>, request: Request, body: Body) -> Result<Reply> {
        let Some(peer) = request.endpoint().copied() else {
            return Err(Error::new(ErrorKind::Unsupported, "ask a peer", "no peer is asked that"));
        };
        self.admission().check(&peer)?;
        match request {
            Request::Wait(name, time) => self.wait(name, Duration::from_millis(time)).await,
            Request::Ping(_) => self.ping(&peer).await,
            Request::Get { name, range, .. } => self.get(name, range).await,
            request => {
                self.forget(&request);
                let reply = self.ask(&peer, &request, body).await;
                self.forget(&request); // somebody may have fetched it meanwhile
                reply
            }
        }
    }

    /// Forgets copies of what this site itself changes at a peer.
    fn forget(&self, request: &Request) {
        match request {
            Request::Put { name, .. } | Request::Evict(name) | Request::Expire(name, _) => {
                self.cache.forget(name);
            }
            Request::Clear { endpoint, prefix } => self.cache.clear(endpoint, prefix),
            _ => {}
        }
    }

    /// Sends a request, and once more when its connection turns out to be broken.
    pub(super) async fn ask(
        &self,
        peer: &EndpointId,
        request: &Request,
        body: Body,
    ) -> Result<Reply> {
        self.ask_within(peer, request, body, self.bounds.patience).await
    }

    async fn ask_within(
        &self,
        peer: &EndpointId,
        request: &Request,
        body: Body,
        within: Duration,
    ) -> Result<Reply> {
        let again = body.again();
        let patience = self.bounds.patience;
        self.counters.peer_bytes_out.add(body.len());
        let link = self.link(peer).await?;
        let reply = match (link.ask(request, body, patience, within).await, again) {
            (Err(error), Some(body)) if !link.is_open() => {
                debug!(peer = link.name, %error, "asking a peer again");
                self.link(peer).await?.ask(request, body, patience, within).await
            }
            (reply, _) => reply,
        }?;
        self.counters.peer_bytes_in.add(reply.body.len());
        Ok(reply)
    }

    /// Asks until the peer is there again, for `time` at most.
    pub(super) async fn ask_until(
        &self,
        peer: &EndpointId,
        request: &Request,
        within: Duration,
        deadline: Instant,
    ) -> Result<Reply> {
        let mut pause = Duration::from_millis(50);
        loop {
            match self.ask_within(peer, request, Body::empty(), within).await {
                Err(error) if error.kind().is_retryable() && Instant::now() + pause < deadline => {
                    debug!(%error, "a peer is gone; trying on");
                    if timeout(pause, self.stop.cancelled()).await.is_ok() {
                        return Err(error);
                    }
                    pause = (pause * 2).min(PAUSE);
                }
                reply => return reply,
            }
        }
    }

    /// Waits for an object there: in steps, so that a connection that broke is noticed, and made again.
    async fn wait(&self, name: Name, time: Duration) -> Result<Reply> {
        let deadline = Instant::now() + time;
        self.link(&name.endpoint).await?; // who cannot be reached at all is not waited for
        let slot = self.slots.of(&name.endpoint);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(_place) = timeout(left, slot.waits.acquire()).await else {
                return Ok(Answer::Absent.into());
            };
            let scarce = slot.waits.available_permits() < WAITS / 2;
            let left = deadline.saturating_duration_since(Instant::now());
            let step = left.min(if scarce { SHORT_POLL } else { LONG_POLL });
            let request = Request::Wait(name.clone(), milliseconds(step));
            let within = step + self.bounds.patience;
            let reply = self.ask_until(&name.endpoint, &request, within, deadline).await?;
            let stopping =
                matches!(&reply.answer, Answer::Failed(fault) if fault.kind() == ErrorKind::Closed);
            if stopping && left > PAUSE {
                sleep(PAUSE).await; // it may be back before the time is over
            } else if !matches!(reply.answer, Answer::Absent) || left <= step {
                return Ok(reply);
            }
        }
    }

    async fn ping(&self, peer: &EndpointId) -> Result<Reply> {
        let link = self.link(peer).await?;
        let begun = Instant::now();
        let reply = self.ask(peer, &Request::Ping(*peer), Body::empty()).await?;
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        Ok(match reply.answer {
            Answer::Pong(_) => Answer::Pong(pong(link.path(), micros)).into(),
            _ => reply,
        })
    }
}
