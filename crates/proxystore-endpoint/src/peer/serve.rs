//! The other direction: peers connect, and ask.

use std::sync::Arc;
use std::time::Duration;

use iroh::endpoint::{Connection, Incoming as IncomingConnection, RecvStream, SendStream};
use proxystore::wire::{Answer, EndpointId, Fault, Request};
use proxystore::{Error, ErrorKind, Result};
use tokio::sync::{AcquireError, SemaphorePermit, mpsc};
use tokio::time::{interval, timeout};
use tracing::{debug, info, warn};

use super::Peers;
use super::admission::{PROOF, Role, code};
use super::dial::Slot;
use super::link::Link;
use crate::body::Body;
use crate::frames::{Incoming, WHOLE, send_reply};
use crate::service::{Asker, Reply, Service};

/// How often connections are looked at: whether their path changed, whether somebody uses them.
const LOOK: Duration = Duration::from_secs(1);

impl Peers {
    /// Serves peers until the endpoint stops.
    pub async fn serve(self: Arc<Self>, service: Arc<Service>) {
        let Some(mut dialled) = self.take_dialled() else { return };
        let mut look = interval(LOOK);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                Some(link) = dialled.recv() => self.attend(link, &service),
                incoming = self.network.accept() => {
                    let Some(incoming) = incoming else { break };
                    self.let_in(incoming, &service);
                }
                _ = look.tick() => self.look_after().await,
            }
        }
    }

    fn take_dialled(&self) -> Option<mpsc::Receiver<Arc<Link>>> {
        super::dial::lock(&self.dialled_here).take()
    }

    /// Greets who connects, if not too many do.
    fn let_in(self: &Arc<Self>, incoming: IncomingConnection, service: &Arc<Service>) {
        let Ok(place) = Arc::clone(&self.strangers).try_acquire_owned() else {
            service.counters.refused_peers.add(1);
            warn!("refused a peer: too many connect at once");
            return incoming.refuse();
        };
        let (peers, service) = (Arc::clone(self), Arc::clone(service));
        self.tasks.spawn(async move {
            let greeted = timeout(peers.bounds.dial, peers.admit(incoming)).await;
            drop(place);
            match greeted {
                Ok(Ok(link)) => {
                    peers.slots.of(&link.peer).set(&link);
                    peers.attend(link, &service);
                }
                Ok(Err(error)) => {
                    service.counters.refused_peers.add(1);
                    warn!(%error, "refused a peer");
                }
                Err(_) => {
                    service.counters.refused_peers.add(1);
                    warn!("refused a peer: it did not greet in time");
                }
            }
        });
    }

    async fn admit(&self, incoming: IncomingConnection) -> Result<Arc<Link>> {
        const ADMIT: &str = "admit a peer";
        let failed = |error: String| Error::new(ErrorKind::Io, ADMIT, error);
        let connection: Connection = incoming.await.map_err(|error| failed(error.to_string()))?;
        let peer = EndpointId::from_bytes(*connection.remote_id().as_bytes());
        let of_peer = |error: String| failed(error).with("peer", peer);
        let (mut send, mut receive) =
            connection.accept_bi().await.map_err(|error| of_peer(error.to_string()))?;
        let mut proof = [0; PROOF];
        receive.read_exact(&mut proof).await.map_err(|error| of_peer(error.to_string()))?;
        let admission = self.admission();
        let Some(access) = admission.admits(&peer, Role::Dialler, &proof, &connection)? else {
            connection.close(code::REFUSED, b"you are no peer of this endpoint");
            return Err(Error::new(ErrorKind::Permission, ADMIT, "it is no peer of this endpoint")
                .with("id", peer)
                .with_hint(format!("if it should be, run `{}`", admission.command(&peer))));
        };
        let proof = admission.proof(Role::Listener, &connection)?;
        send.write_all(&proof).await.map_err(|error| of_peer(error.to_string()))?;
        let _ = send.finish(); // fails when the connection does, which shows soon enough
        let traffic = Arc::clone(&self.slots.of(&peer).traffic);
        let name = admission.name(&peer);
        let link = Link::new(connection, peer, name, access, admission, traffic);
        info!(peer = link.name, id = %peer, path = ?link.path(), "a peer connected");
        Ok(Arc::new(link))
    }

    /// Answers what a peer asks over a connection, until that ends or is not admitted any more.
    fn attend(self: &Arc<Self>, link: Arc<Link>, service: &Arc<Service>) {
        let (peers, service) = (Arc::clone(self), Arc::clone(service));
        self.tasks.spawn(async move {
            let mut admission = peers.admission.subscribe();
            admission.mark_changed(); // it may have changed since the greeting
            let mut look = interval(LOOK);
            loop {
                let next = tokio::select! {
                    biased;
                    Ok(()) = admission.changed() => {
                        let now = Arc::clone(&admission.borrow_and_update());
                        if let Some((code, why)) = now.ends(&link.admission, &link.peer, link.access) {
                            info!(peer = link.name, id = %link.peer, "it is not admitted any more, or otherwise");
                            link.close(code, why);
                        }
                        continue;
                    }
                    next = link.accept() => next,
                    _ = look.tick() => {
                        if link.idle() > peers.bounds.idle {
                            link.close(code::IDLE, "nobody used it");
                        }
                        continue;
                    }
                };
                let Some((send, receive)) = next else { break };
                let (peers, service) = (Arc::clone(&peers), Arc::clone(&service));
                let link = Arc::clone(&link);
                peers.tasks.clone().spawn(async move {
                    let work = link.work();
                    if let Err(error) = peers.exchange(&link, &service, send, receive).await {
                        debug!(peer = link.name, %error, "a request of a peer failed");
                    }
                    drop(work);
                });
            }
            debug!(peer = link.name, "the connection to a peer ended");
        });
    }

    /// One request and its answer.
    async fn exchange(
        &self,
        link: &Link,
        service: &Service,
        mut send: SendStream,
        receive: RecvStream,
    ) -> Result<()> {
        let patience = self.bounds.patience;
        let mut incoming = Incoming::new(receive, patience);
        let next = timeout(patience, incoming.request()).await;
        let Some((frame, request)) = next.map_err(|_elapsed| nothing(patience))?? else {
            return Ok(());
        };
        let slot = self.slots.of(&link.peer);
        let mut reply = match request {
            Err(error) => Answer::Failed(Fault::of(&error)).into(),
            Ok(request @ Request::Wait(..)) => tokio::select! {
                reply = self.answer_peer(link, service, request, Body::empty()) => reply,
                () = link.closed() => return Ok(()), // it waits anew over another connection
            },
            Ok(request) if frame.body <= WHOLE && !frame.in_pieces => {
                let body = incoming.whole(frame.body).await?;
                link.traffic.bytes_in.add(frame.body);
                service.counters.peer_bytes_in.add(frame.body);
                self.answer_peer(link, service, request, body.into()).await
            }
            Ok(request) => {
                // Given back before the answer, which may need a place itself: nobody waits for one while having one.
                match self.place(&slot).await {
                    Err(error) => Answer::Failed(Fault::of(&error)).into(),
                    Ok(_place) => {
                        link.traffic.bytes_in.add(frame.body);
                        service.counters.peer_bytes_in.add(frame.body);
                        let (sender, body) = Body::coming(frame.body);
                        let answer = self.answer_peer(link, service, request, body);
                        let fed = async {
                            let gone = sender.clone();
                            tokio::select! {
                                fed = incoming.feed(&frame, sender) => fed,
                                () = gone.closed() => Ok(()), // refused: the rest need not come
                            }
                        };
                        let (fed, reply) = tokio::join!(fed, answer);
                        fed?;
                        reply
                    }
                }
            }
        };
        let _place;
        if reply.body.len() > WHOLE {
            match self.place(&slot).await {
                Ok(place) => _place = place,
                Err(error) => reply = Answer::Failed(Fault::of(&error)).into(),
            }
        }
        link.traffic.bytes_out.add(reply.body.len());
        service.counters.peer_bytes_out.add(reply.body.len());
        send_reply(&mut send, frame.number, reply, patience).await?;
        let _ = send.finish(); // the peer went: it does not need the end
        Ok(())
    }

    /// A place for a long body: one of its peer's, so that others find one, then one of all.
    async fn place<'a>(&'a self, slot: &'a Slot) -> Result<[SemaphorePermit<'a>; 2]> {
        let within = self.bounds.patience / 2; // while who asks still listens
        let places = async {
            Ok::<_, AcquireError>([
                slot.transfers.acquire().await?,
                self.transfers.acquire().await?,
            ])
        };
        match timeout(within, places).await {
            Ok(Ok(places)) => Ok(places),
            _ => Err(Error::new(
                ErrorKind::Full,
                "answer a peer",
                "too many long objects are on their way",
            )
            .with("seconds", within.as_secs())
            .with_hint("try again, with fewer at once")),
        }
    }

    async fn answer_peer(
        &self,
        link: &Link,
        service: &Service,
        mut request: Request,
        body: Body,
    ) -> Reply {
        if let Request::Get { name, range: Some(range), .. } = &mut request
            && name.endpoint == self.id
        {
            // A peer asks for the first part before it knows how long the object is.
            if let Ok(Some(stat)) = service.storage.stat(&name.id, name.generation, false).await
                && range.start <= stat.size
            {
                range.end = range.end.min(stat.size);
            }
        }
        service.answer(Asker::Peer(link.access), request, body).await
    }

    /// Has better paths looked for where one was lost.
    async fn look_after(&self) {
        let mut lost = false;
        for (peer, slot) in self.slots.all() {
            let Some(link) = slot.link() else { continue };
            let path = link.path();
            let change = self.paths.changed(peer, path.as_ref().map(|path| path.direct));
            if let (Some(path), Some(was_direct)) = (&path, change) {
                info!(peer = link.name, path = path.kind(), via = path.via, "the path to a peer");
                lost |= was_direct && !path.direct;
            }
        }
        if lost {
            self.network.network_change().await;
        }
    }
}

fn nothing(patience: Duration) -> Error {
    Error::new(ErrorKind::Timeout, "answer a peer", "it opened a stream and asked nothing")
        .with("seconds", patience.as_secs())
}
