//! One client: the greeting, then requests and answers in order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use proxystore::wire::greeting::{CHALLENGE, Challenge, HELLO, Hello, PROOF, Role, Token};
use proxystore::wire::{Answer, Fault, FrameHead, Request, Welcome, encode_answer};
use proxystore::{Error, ErrorKind, Result};
use tokio::io::AsyncRead;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::body::Body;
use crate::frames::{Incoming, Outlet, WHOLE, send_reply, write};
use crate::service::{Asker, Reply, Service};

/// How many requests of one client may be under way at once; it may send more, which wait.
const AT_ONCE: usize = 32;
/// Answers that are ready are sent together, up to about this many bytes.
const TOGETHER: usize = 256 << 10;
/// So much is kept for the next answers: as much as fits the longest that is sent in one piece.
const KEPT: usize = WHOLE as usize;

/// Who is let in, and what they are told.
#[derive(Debug)]
pub struct Door {
    /// The secret that clients prove to know.
    pub token: Token,
    /// What they are told first.
    pub welcome: Welcome,
    /// How long they may be silent in the middle of something.
    pub patience: Duration,
    /// As many as there may be at once.
    pub places: Semaphore,
    /// As many of them as those may have who came from another host and did not greet yet.
    pub strangers: Semaphore,
    /// As many long bodies as may be on their way at once that are not in memory as a whole, so that their pieces do
    /// not fill it.
    pub transfers: Semaphore,
}

impl Door {
    /// A place among the transfers, as long as it is kept.
    async fn transfer(&self) -> Result<SemaphorePermit<'_>> {
        const TRANSFER: &str = "transfer an object";
        match timeout(self.patience, self.transfers.acquire()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => {
                Err(Error::new(ErrorKind::Timeout, TRANSFER, "too many others are on their way")
                    .with("seconds", self.patience.as_secs())
                    .with_hint(
                        "try again; clients that take or send their objects slowly are in the way",
                    ))
            }
        }
    }
}

/// Attends to a client until it leaves or the daemon stops.
pub(super) async fn attend<R, W>(
    read: R,
    mut write: W,
    same_host: bool,
    service: Arc<Service>,
    door: Arc<Door>,
) where
    R: AsyncRead + Unpin + Send,
    W: Outlet,
{
    let place = door.places.try_acquire();
    let stranger = if same_host { Ok(None) } else { door.strangers.try_acquire().map(Some) };
    let (Ok(_place), Ok(stranger)) = (place, stranger) else {
        service.counters.refused_clients.add(1);
        info!("refused a client: there are too many");
        return;
    };
    let mut incoming = Incoming::new(read, door.patience);
    // The whole of it, so that nobody keeps a place by sending a byte now and then.
    let greeted =
        timeout(door.patience, greet(&mut incoming, &mut write, same_host, &service, &door)).await;
    let refused = match greeted {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("it did not greet in time".into()),
    };
    if let Some(reason) = refused {
        service.counters.refused_clients.add(1);
        info!(reason, "refused a client");
        return;
    }
    drop(stranger);
    service.counters.clients.add(1);
    let gone = CancellationToken::new();
    let _leaves = gone.clone().drop_guard();
    let client = Client {
        incoming,
        write,
        service: Arc::clone(&service),
        door: Arc::clone(&door),
        gone,
        pending: VecDeque::new(),
        out: Vec::new(),
    };
    if let Err(error) = client.serve().await {
        debug!(%error, "a client left");
    }
    service.counters.clients.sub(1);
}

/// Both sides prove that they know the token.
async fn greet<R, W>(
    incoming: &mut Incoming<R>,
    stream: &mut W,
    same_host: bool,
    service: &Service,
    door: &Door,
) -> Result<()>
where
    R: AsyncRead + Unpin,
    W: Outlet,
{
    let hello = Hello::decode(&incoming.array::<HELLO>().await?)?;
    let challenge = Challenge::to(&hello, service.id)?;
    let encoded: [u8; CHALLENGE] = challenge.encode();
    write(stream, &encoded, door.patience).await?;
    let proof = incoming.array::<PROOF>().await?;
    let known = door.token.accepts(&proof, Role::Client, &hello, &challenge);
    let (proof, answer) = if known {
        let mut welcome = door.welcome.clone();
        if !same_host {
            welcome.shared = None;
        }
        (door.token.proof(Role::Daemon, &hello, &challenge), Answer::Welcome(welcome))
    } else {
        ([0; PROOF], Answer::Failed(Fault::of(&wrong_token(service))))
    };
    let mut out = proof.to_vec();
    encode_answer(&mut out, 0, &answer, 0, false)?;
    write(stream, &out, door.patience).await?;
    if known { Ok(()) } else { Err(wrong_token(service)) }
}

fn wrong_token(service: &Service) -> Error {
    Error::new(ErrorKind::Permission, "greet", "the client does not know the endpoint's token")
        .with("endpoint", &service.name)
        .with_hint("give it the file `token` of the endpoint's directory")
}

/// A client that was let in.
struct Client<R, W> {
    incoming: Incoming<R>,
    write: W,
    service: Arc<Service>,
    door: Arc<Door>,
    /// Cancelled when it sends no more: then it waits for no objects either.
    gone: CancellationToken,
    /// Answers that are due, in order.
    pending: VecDeque<(u32, Due)>,
    /// Answers that were not sent yet.
    out: Vec<u8>,
}

enum Due {
    Ready(Reply),
    Coming(JoinHandle<Reply>),
}

/// What comes from a client.
enum Heard {
    Request(Option<(FrameHead, Result<Request>)>),
    /// Whether more may come.
    Ahead(bool),
}

impl<R, W> Client<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: Outlet,
{
    async fn serve(mut self) -> Result<()> {
        loop {
            // Ready answers wait for each other while more requests are there already, and are taken.
            let takes_more = self.incoming.has_frame() && self.pending.len() < AT_ONCE;
            if !takes_more || self.out.len() > TOGETHER {
                self.flush().await?;
            }
            let first_is_coming = matches!(self.pending.front(), Some((_, Due::Coming(_))));
            let is_full = self.pending.len() >= AT_ONCE;
            let is_between = !self.incoming.has_more();
            let (stop, has_gone) = (self.service.stop.clone(), self.gone.is_cancelled());
            let incoming = &mut self.incoming;
            let heard = async {
                Ok::<_, Error>(if is_full {
                    Heard::Ahead(incoming.ahead().await?) // only to notice that it goes: what it asks has to wait
                } else {
                    Heard::Request(incoming.request().await?)
                })
            };
            tokio::select! {
                biased;
                () = settle(&mut self.pending), if first_is_coming => self.drain().await?,
                heard = heard, if !(is_full && has_gone) => match heard? {
                    Heard::Request(Some((frame, request))) => {
                        self.take(frame, request).await?;
                        self.drain().await?;
                    }
                    Heard::Request(None) => {
                        self.gone.cancel();
                        return self.finish().await;
                    }
                    Heard::Ahead(true) => {}
                    Heard::Ahead(false) => self.gone.cancel(),
                },
                () = stop.cancelled(), if is_between => return self.finish().await,
            }
        }
    }

    /// Begins what a frame asks.
    async fn take(&mut self, frame: FrameHead, request: Result<Request>) -> Result<()> {
        let number = frame.number;
        if frame.body > WHOLE || frame.in_pieces {
            let reply = self.take_long(frame, request).await?;
            self.pending.push_back((number, Due::Ready(reply)));
            return Ok(());
        }
        let body = self.incoming.whole(frame.body).await?;
        self.service.counters.bytes_in.add(frame.body);
        let due = match request {
            Err(error) => Due::Ready(Answer::Failed(Fault::of(&error)).into()),
            Ok(request) if self.takes_time(&request) => {
                let (service, gone) = (Arc::clone(&self.service), self.gone.clone());
                let waits = matches!(request, Request::Wait(..));
                Due::Coming(tokio::spawn(async move {
                    tokio::select! {
                        reply = service.answer(Asker::Client, request, body.into()) => reply,
                        () = gone.cancelled(), if waits => Answer::Absent.into(),
                    }
                }))
            }
            Ok(request) => {
                Due::Ready(self.service.answer(Asker::Client, request, body.into()).await)
            }
        };
        self.pending.push_back((number, due));
        Ok(())
    }

    /// Whether later requests should not wait until this one is answered.
    fn takes_time(&self, request: &Request) -> bool {
        matches!(request, Request::Wait(..))
            || request.endpoint().is_some_and(|id| *id != self.service.id)
    }

    /// Passes a long body on while it comes.
    async fn take_long(&mut self, frame: FrameHead, request: Result<Request>) -> Result<Reply> {
        // What is ready is not kept from a client that sends for long.
        self.flush().await?;
        let (sender, body) = Body::coming(frame.body);
        let service = Arc::clone(&self.service);
        let count = |bytes| service.counters.bytes_in.add(bytes); // what came, not what is promised
        let door = Arc::clone(&self.door);
        let transfer = door.transfer().await;
        let begun = transfer.and_then(|place| Ok((place, with_long_body(request?)?)));
        let (_place, request) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                drop(body);
                self.incoming.feed_counted(&frame, sender, count).await?;
                return Ok(Answer::Failed(Fault::of(&error)).into());
            }
        };
        let answer = self.service.answer(Asker::Client, request, body);
        let (fed, reply) = tokio::join!(self.incoming.feed_counted(&frame, sender, count), answer);
        fed?;
        Ok(reply)
    }

    /// Writes the answers that are ready, up to the first that is not.
    async fn drain(&mut self) -> Result<()> {
        while let Some((_, Due::Ready(_))) = self.pending.front() {
            let Some((number, Due::Ready(reply))) = self.pending.pop_front() else { break };
            if reply.body.is_held() && reply.body.len() <= WHOLE {
                let Reply { answer, body: mut pieces } = reply;
                self.service.counters.bytes_out.add(pieces.len());
                encode_answer(&mut self.out, number, &answer, pieces.len(), false)?;
                while let Some(piece) = pieces.next().await {
                    self.out.extend_from_slice(&piece?);
                }
            } else {
                self.flush().await?;
                let place = if reply.body.is_held() {
                    Ok(None)
                } else {
                    self.door.transfer().await.map(Some)
                };
                let (_place, reply) = match place {
                    Ok(place) => (place, reply),
                    Err(error) => (None, Answer::Failed(Fault::of(&error)).into()),
                };
                self.service.counters.bytes_out.add(reply.body.len());
                send_reply(&mut self.write, number, reply, self.door.patience).await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        if !self.out.is_empty() {
            write(&mut self.write, &self.out, self.door.patience).await?;
            self.out.clear();
            self.out.shrink_to(KEPT);
        }
        Ok(())
    }

    /// Answers what is under way, and lets the client go.
    async fn finish(mut self) -> Result<()> {
        while !self.pending.is_empty() {
            settle(&mut self.pending).await;
            self.drain().await?;
        }
        self.flush().await
    }
}

/// A request that came with a long body, if that is one it has a use for. Others would keep it on its way.
fn with_long_body(request: Request) -> Result<Request> {
    match request {
        Request::Put { .. } => Ok(request),
        _ => Err(Error::new(ErrorKind::Corrupt, "read a request", "it has no use for a body")),
    }
}

/// Waits until the first answer that is due is ready.
async fn settle(pending: &mut VecDeque<(u32, Due)>) {
    let Some((_, due)) = pending.front_mut() else { return };
    if let Due::Coming(task) = due {
        let reply = task.await.unwrap_or_else(|_| {
            let error = Error::new(ErrorKind::Io, "answer a request", "the endpoint failed at it")
                .with_hint("its log says why");
            Answer::Failed(Fault::of(&error)).into()
        });
        *due = Due::Ready(reply);
    }
}
