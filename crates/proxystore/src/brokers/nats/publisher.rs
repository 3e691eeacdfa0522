//! The end that publishes: a window of messages that the server has not confirmed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{HeaderMap, Message, StatusCode};
use bytes::Bytes;
use futures_util::{StreamExt, TryFutureExt};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::api::{Answer, Nothing, open_topic, parse};
use super::link::{Closed, Link, Session, lost, passes, until};
use super::names::Topic;
use crate::brokers::{PATIENCE, Publisher, check_topic, elsewhere, full};
use crate::error::{Error, ErrorKind, Result};
use crate::fork::Inherited;
use crate::key::unique_id;

/// How many messages, and how many bytes, may be unconfirmed.
const WINDOW: usize = 256;
const WINDOW_BYTES: usize = 16 << 20;
/// What the header of a message takes of the server's limit.
const HEADER: usize = 128;
const PAUSE: Duration = Duration::from_millis(20);
/// How long `close` tries to flush.
const FLUSHES_WITHIN: Duration = Duration::from_secs(5);

/// A publisher over NATS.
#[derive(Debug)]
pub(super) struct NatsPublisher(Inherited<End>);

struct End {
    link: Arc<Link>,
    closed: Closed,
    window: Mutex<Window>,
}

struct Window {
    /// The publisher's, in the ids of its messages: who sends one again says that it is the same.
    name: String,
    next: u64,
    /// In the order they were published; their numbers follow each other.
    sent: VecDeque<Sent>,
    bytes: usize,
    open: Option<Open>,
}

struct Sent {
    topic: Arc<Topic>,
    message: Bytes,
    number: u64,
    stage: Stage,
}

#[derive(PartialEq, Eq)]
enum Stage {
    Waits,
    OnItsWay,
    Confirmed,
}

/// What is there as long as a session is.
struct Open {
    session: Arc<Session>,
    inbox: String,
    answers: async_nats::Subscriber,
    topics: HashSet<String>,
    /// Of topics that are not open yet. This goes on while nobody waits for it, as the connection does.
    opening: HashMap<String, JoinHandle<Result<()>>>,
}

impl NatsPublisher {
    pub(super) fn new(link: Arc<Link>) -> Result<Self> {
        let name = unique_id()?;
        let window = Window { name, next: 0, sent: VecDeque::new(), bytes: 0, open: None };
        let end = End { link, closed: Closed::new(), window: Mutex::new(window) };
        Ok(Self(Inherited::new(end)))
    }
}

impl Publisher for NatsPublisher {
    fn publish(&self, topic: &str, message: &[u8], deadline: Option<Instant>) -> Result<()> {
        const OPERATION: &str = "publish a message";
        check_topic(topic)?;
        let end = self.0.get().ok_or_else(|| elsewhere(OPERATION))?;
        end.link.run(OPERATION, &end.closed, async {
            let Some(mut window) = until(deadline, end.window.lock()).await else {
                return Err(behind(topic));
            };
            window.publish(&end.link, topic, message, deadline).await
        })
    }

    fn flush(&self, deadline: Option<Instant>) -> Result<()> {
        const OPERATION: &str = "flush a publisher";
        let end = self.0.get().ok_or_else(|| elsewhere(OPERATION))?;
        end.link.run(OPERATION, &end.closed, end.flush(deadline))
    }

    fn close(&self) -> Result<()> {
        match self.0.get() {
            Some(end) => end.close(),
            None => Ok(()),
        }
    }
}

impl End {
    async fn flush(&self, deadline: Option<Instant>) -> Result<()> {
        match until(deadline, self.window.lock()).await {
            Some(mut window) => window.settle(&self.link, 0, usize::MAX, deadline).await,
            None => Err(behind("")),
        }
    }

    fn close(&self) -> Result<()> {
        if !self.closed.close() {
            return Ok(());
        }
        self.link.block_on(async {
            let done = self.flush(Some(Instant::now() + FLUSHES_WITHIN)).await;
            let mut window = self.window.lock().await;
            window.sent.clear();
            window.open = None;
            done
        })
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let _ = self.close(); // who wants to know flushes or closes
    }
}

impl Window {
    async fn publish(
        &mut self,
        link: &Link,
        topic: &str,
        message: &[u8],
        deadline: Option<Instant>,
    ) -> Result<()> {
        let (topic, message) = (Arc::new(Topic::new(topic)), Bytes::copy_from_slice(message));
        let room = WINDOW_BYTES.saturating_sub(message.len());
        self.settle(link, WINDOW - 1, room, deadline).await?;
        let give_up = deadline.unwrap_or_else(|| Instant::now() + PATIENCE);
        let number = self.next;
        loop {
            match self.send(&topic, &message, number, deadline).await {
                Ok(()) => break,
                Err(error) if passes(&error) && Instant::now() < give_up => sleep(PAUSE).await,
                Err(error) => return Err(error),
            }
            self.settle(link, WINDOW - 1, room, deadline).await?;
        }
        self.next += 1;
        self.bytes += message.len();
        self.sent.push_back(Sent { topic, message, number, stage: Stage::OnItsWay });
        Ok(())
    }

    /// Sends what waits, and waits until no more than so many messages and bytes are unconfirmed.
    async fn settle(
        &mut self,
        link: &Link,
        count: usize,
        bytes: usize,
        deadline: Option<Instant>,
    ) -> Result<()> {
        if count == 0 && self.sent.is_empty() {
            return Ok(());
        }
        let give_up = deadline.unwrap_or_else(|| Instant::now() + PATIENCE);
        loop {
            match self.try_settle(link, count, bytes, deadline).await {
                Err(error) if passes(&error) && Instant::now() < give_up => sleep(PAUSE).await,
                done => return done,
            }
        }
    }

    async fn try_settle(
        &mut self,
        link: &Link,
        count: usize,
        bytes: usize,
        deadline: Option<Instant>,
    ) -> Result<()> {
        self.attach(link, deadline).await?;
        while let Some(index) = self.sent.iter().position(|sent| sent.stage == Stage::Waits) {
            let Sent { topic, message, number, .. } = &self.sent[index];
            let (topic, message, number) = (Arc::clone(topic), message.clone(), *number);
            self.send(&topic, &message, number, deadline).await?;
            self.sent[index].stage = Stage::OnItsWay;
        }
        while self.sent.len() > count || (self.bytes > bytes && !self.sent.is_empty()) {
            let Some(open) = &mut self.open else { break };
            match until(deadline, open.answers.next()).await {
                Some(Some(answer)) => self.confirm(&answer)?,
                Some(None) => {
                    let servers = open.session.servers.clone();
                    self.open = None;
                    return Err(lost(&servers, "the connection broke"));
                }
                None => return Err(behind(&self.sent[0].topic.name)),
            }
        }
        Ok(())
    }

    /// Gets the session; with a new one, all that is unconfirmed is sent again.
    async fn attach(&mut self, link: &Link, deadline: Option<Instant>) -> Result<()> {
        let session = link.session(deadline).await?;
        if self.open.as_ref().is_some_and(|open| open.session.id == session.id) {
            return Ok(());
        }
        let inbox = session.client.new_inbox();
        let answers = session.client.subscribe(format!("{inbox}.*")).await;
        let answers = answers.map_err(|error| lost(&session.servers, error))?;
        let (topics, opening) = (HashSet::new(), HashMap::new());
        self.open = Some(Open { session, inbox, answers, topics, opening });
        for sent in self.sent.iter_mut().filter(|sent| sent.stage == Stage::OnItsWay) {
            sent.stage = Stage::Waits;
        }
        Ok(())
    }

    async fn send(
        &mut self,
        topic: &Arc<Topic>,
        message: &Bytes,
        number: u64,
        deadline: Option<Instant>,
    ) -> Result<()> {
        let Some(Open { session, inbox, topics, opening, .. }) = &mut self.open else {
            return Err(lost("", "the connection broke"));
        };
        let limit = session.client.max_payload();
        if message.len() + HEADER > limit {
            return Err(too_large(topic, message.len(), limit));
        }
        if !topics.contains(&topic.name) {
            let name = &topic.name;
            let work = opening.entry(name.clone()).or_insert_with(|| {
                let (session, topic) = (Arc::clone(session), Arc::clone(topic));
                tokio::spawn(async move { open_topic(&session, &topic).await })
            });
            let opened = session.within(deadline, async { Ok(work.await) }).await?;
            opening.remove(name);
            opened.map_err(|error| lost(&session.servers, error))??;
            topics.insert(name.clone());
        }
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", format!("{}-{number}", self.name));
        let (subject, reply) = (topic.subject.clone(), format!("{inbox}.{number}"));
        let client = &session.client;
        let sent = client.publish_with_reply_and_headers(subject, reply, headers, message.clone());
        let sent = sent.map_err(|error| lost(&session.servers, error));
        session.within(deadline, sent).await // there may be too much to send before it
    }

    /// Takes what the server says of a message.
    fn confirm(&mut self, answer: &Message) -> Result<()> {
        let number = answer.subject.rsplit('.').next().and_then(|number| number.parse().ok());
        let first = self.sent.front().map_or(0, |sent| sent.number);
        let index = number.and_then(|number: u64| number.checked_sub(first));
        let Some(sent) = index.and_then(|index| self.sent.get_mut(usize::try_from(index).ok()?))
        else {
            return Ok(()); // confirmed before
        };
        if answer.status == Some(StatusCode::NO_RESPONDERS) {
            // The stream is gone, or not back yet. All is sent again, with answers to another inbox:
            // what came after this message has one like it on its way.
            let servers = self.open.take().map(|open| open.session.servers.clone());
            let cause = "nobody takes messages of the topic";
            return Err(lost(&servers.unwrap_or_default(), cause));
        }
        sent.stage = Stage::Confirmed;
        let name = sent.topic.name.clone();
        while self.sent.front().is_some_and(|sent| sent.stage == Stage::Confirmed) {
            let sent = self.sent.pop_front();
            self.bytes -= sent.map_or(0, |sent| sent.message.len());
        }
        let refused = |error: Error| error.with("topic", name);
        parse::<Nothing>(&answer.payload).and_then(Answer::content).map(drop).map_err(refused)
    }
}

fn too_large(topic: &Topic, size: usize, limit: usize) -> Error {
    let cause = "the message is larger than the server takes";
    Error::new(ErrorKind::Config, "publish a message", cause)
        .with("topic", &topic.name)
        .with("size", size)
        .with("limit", limit - HEADER)
        .with_hint(
            "lower the size from which objects go to the store instead, or raise max_payload at \
             the server",
        )
}

fn behind(topic: &str) -> Error {
    full(topic, "the server has not confirmed what was published before")
}
