//! A connection to a peer: requests go out, each on a stream of its own, and answers come back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use iroh::TransportAddr;
use iroh::endpoint::{Connection, RecvStream, SendStream, VarInt};
use proxystore::wire::{Answer, EndpointId, Request};
use proxystore::{Error, ErrorKind, Result};
use tokio::time::timeout;

use super::admission::Admission;
use super::network;
use crate::body::Body;
use crate::config::Access;
use crate::frames::{Incoming, WHOLE, send_request};
use crate::service::Reply;
use crate::status::Count;

const ASK: &str = "ask a peer";

/// Bytes of objects that came from a peer and went to it, over all its connections.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) bytes_in: Count,
    pub(super) bytes_out: Count,
}

/// A connection to a peer that admits this endpoint and is admitted.
#[derive(Debug)]
pub(super) struct Link {
    connection: Connection,
    /// Who is at the other end.
    pub(super) peer: EndpointId,
    /// What it is called here.
    pub(super) name: String,
    /// What it may do here.
    pub(super) access: Access,
    /// By what it was admitted.
    pub(super) admission: Arc<Admission>,
    /// What came and went.
    pub(super) traffic: Arc<Traffic>,
    /// As many more holders as there are requests under way, in either direction.
    busy: Arc<()>,
    used: Mutex<Instant>,
}

/// How a peer is reached at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    /// Whether there is no relay between.
    pub(super) direct: bool,
    /// The address, or the relay.
    pub(super) via: String,
    /// There and back.
    pub(super) round_trip: Duration,
}

impl Path {
    /// `direct` or `relayed`.
    pub(super) fn kind(&self) -> &'static str {
        if self.direct { "direct" } else { "relayed" }
    }
}

impl Link {
    pub(super) fn new(
        connection: Connection,
        peer: EndpointId,
        name: String,
        access: Access,
        admission: Arc<Admission>,
        traffic: Arc<Traffic>,
    ) -> Self {
        network::open_up(&connection);
        let used = Mutex::new(Instant::now());
        Self { connection, peer, name, access, admission, traffic, busy: Arc::default(), used }
    }

    /// Whether requests may still get through.
    pub(super) fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// Ends when the connection does.
    pub(super) async fn closed(&self) {
        self.connection.closed().await;
    }

    /// Lets go of the connection, and says why.
    pub(super) fn close(&self, code: VarInt, reason: &str) {
        self.connection.close(code, reason.as_bytes());
    }

    /// To be held while a request is under way.
    pub(super) fn work(&self) -> Arc<()> {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        Arc::clone(&self.busy)
    }

    /// For how long there was no request, as far as it was looked at meanwhile.
    pub(super) fn idle(&self) -> Duration {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::strong_count(&self.busy) > 1 {
            *used = Instant::now();
        }
        used.elapsed()
    }

    /// The next request of the peer.
    pub(super) async fn accept(&self) -> Option<(SendStream, RecvStream)> {
        self.connection.accept_bi().await.ok()
    }

    /// The path that is used.
    pub(super) fn path(&self) -> Option<Path> {
        let paths = self.connection.paths();
        let path = paths.iter().find(iroh::endpoint::Path::is_selected)?;
        let via = match path.remote_addr() {
            TransportAddr::Ip(address) => address.to_string(),
            TransportAddr::Relay(url) => url.to_string(),
            other => format!("{other:?}"),
        };
        Some(Path { direct: path.is_ip(), via, round_trip: path.rtt() })
    }

    /// Sends a request and waits for its answer, which begins `within` this time after all of the request was
    /// sent. Neither side may be silent for longer than `patience` in the middle of a body.
    ///
    /// # Errors
    /// When the connection broke, or the peer is silent. What the peer says, errors too, is a reply.
    pub(super) async fn ask(
        &self,
        request: &Request,
        body: Body,
        patience: Duration,
        within: Duration,
    ) -> Result<Reply> {
        let work = self.work();
        let (mut send, receive) = timeout(patience, self.connection.open_bi())
            .await
            .map_err(|_elapsed| self.silent(patience))?
            .map_err(|error| self.broke(&error))?;
        let mut incoming = Incoming::new(receive, patience);
        self.traffic.bytes_out.add(body.len());
        let sending = async {
            send_request(&mut send, 0, request, body, patience).await?;
            let _ = send.finish(); // fails when the peer wants no more: its answer says why
            Ok(())
        };
        let answer = {
            let answering = incoming.answer();
            tokio::pin!(answering);
            tokio::select! {
                biased;
                answer = &mut answering => answer, // refused before it was all sent
                sent = sending => {
                    let patience = if sent.is_ok() { within } else { Duration::from_secs(1) };
                    match (timeout(patience, answering).await, sent) {
                        (Ok(answer), Ok(())) | (Ok(answer @ Ok(_)), Err(_)) => answer,
                        (_, Err(error)) => Err(error),
                        (Err(_), Ok(())) => Err(self.silent(within)),
                    }
                }
            }
        };
        let (frame, answer) = match (answer, self.connection.close_reason()) {
            (Ok(Some(answer)), _) => answer,
            (_, Some(reason)) => return Err(self.broke(&reason)),
            (Err(error), None) => return Err(error.with("peer", &self.name)),
            (Ok(None), None) => {
                return Err(Error::new(ErrorKind::Io, ASK, "it ended a stream without an answer")
                    .with("peer", &self.name)
                    .with_hint("try again; its log says why"));
            }
        };
        self.traffic.bytes_in.add(frame.body);
        if frame.body <= WHOLE && !frame.in_pieces {
            let whole = incoming.whole(frame.body).await;
            return Ok(Reply { answer, body: whole.map_err(|e| self.or_broke(e))?.into() });
        }
        let (sender, body) = Body::coming(frame.body);
        if matches!(answer, Answer::Object { .. }) {
            tokio::spawn(async move {
                let failed = sender.clone();
                tokio::select! {
                    fed = incoming.feed(&frame, sender) => if let Err(error) = fed {
                        let _ = failed.send(Err(error)).await; // nobody needs to listen
                    },
                    () = failed.closed() => {} // nobody wants the rest
                }
                drop(work);
            });
        }
        Ok(Reply { answer, body })
    }

    /// What is wrong when an exchange failed so: the connection, if it is closed.
    fn or_broke(&self, error: Error) -> Error {
        match self.connection.close_reason() {
            Some(reason) => self.broke(&reason),
            None => error.with("peer", &self.name),
        }
    }

    fn broke(&self, reason: &iroh::endpoint::ConnectionError) -> Error {
        Error::new(ErrorKind::Io, ASK, format!("the connection to it broke: {reason}"))
            .with("peer", &self.name)
            .with_hint("try again; if that does not help, see whether its endpoint runs")
    }

    fn silent(&self, patience: Duration) -> Error {
        Error::new(ErrorKind::Timeout, ASK, "it does not answer")
            .with("peer", &self.name)
            .with("seconds", patience.as_secs())
            .with_hint("try again; its endpoint may be overloaded")
    }
}
