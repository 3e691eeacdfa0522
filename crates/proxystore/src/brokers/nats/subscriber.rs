//! The end that receives: pulls in the background, and what they brought.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{Client, Message};
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::api::{join_group, sweep};
use super::link::{Closed, Link, Session, lost, passes, until};
use super::names::{Topic, plain};
use super::pull::{Inbox, Pull};
use crate::brokers::{Delivery, Guarantee, PATIENCE, SubscribeOptions, Subscriber, Tag, elsewhere};
use crate::error::{Error, Result};
use crate::fork::Inherited;

/// How long a look may take whose time is up before it began.
const LOOKS_WITHIN: Duration = Duration::from_secs(2);
/// How long `close` tries to give back what was not acknowledged.
const GIVES_BACK_WITHIN: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);
/// How long what was acknowledged stays, at least and usually.
const SWEEPS_AFTER: Duration = Duration::from_millis(500);

/// So many deliveries may be open without a look at their age.
const MANY: usize = 1024;

/// A subscriber over NATS.
#[derive(Debug)]
pub(super) struct NatsSubscriber {
    end: Inherited<End>,
    /// As it was given; NATS knows it by a name of its own.
    group: String,
}

struct End {
    link: Arc<Link>,
    closed: Closed,
    group: String,
    topics: Arc<[Topic]>,
    prefetch: usize,
    basket: Arc<Basket>,
}

/// What pulls put in, and receivers take out.
pub(super) struct Basket {
    state: Mutex<State>,
    changed: Notify,
    redeliver_after: Duration,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Held>,
    /// Delivered and not acknowledged, by tag.
    open: HashMap<Vec<u8>, Open>,
    deliveries: u64,
    /// With how many open ones it is time to look for those that are of no use.
    tidy_at: usize,
    /// One of each topic.
    feeds: Vec<Feed>,
    failure: Option<Error>,
    /// When pulls began to fail.
    since: Option<Instant>,
    is_closed: bool,
    /// Something was acknowledged that nobody swept yet.
    has_waste: bool,
}

/// A message that was delivered.
struct Open {
    /// The how-manieth it was.
    number: u64,
    at: Instant,
    /// A server that was started again may have gone back to an older state, in which the subject to
    /// answer to means another message: answers go to the server that sent the message, or nowhere.
    server: Arc<str>,
}

/// What is pulled of a topic.
#[derive(Default)]
struct Feed {
    stage: Stage,
    inbox: Option<Inbox>,
    /// The session in which the group was joined.
    joined: u64,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Idle,
    /// The server is asked what there is.
    Looks,
    /// The server tells when something comes.
    Waits,
}

struct Held {
    message: Message,
    at: Instant,
    server: Arc<str>,
}

impl NatsSubscriber {
    pub(super) fn new(link: Arc<Link>, topics: &[&str], options: SubscribeOptions) -> Result<Self> {
        let feeds = topics.iter().map(|_| Feed::default()).collect();
        let basket = Basket {
            state: Mutex::new(State { feeds, ..State::default() }),
            changed: Notify::new(),
            redeliver_after: options.redeliver_after,
        };
        let end = End {
            link,
            closed: Closed::new(),
            group: plain(&options.group),
            topics: topics.iter().map(|topic| Topic::new(topic)).collect(),
            prefetch: options.prefetch,
            basket: Arc::new(basket),
        };
        end.link.run("subscribe", &end.closed, end.join_all())?;
        Ok(Self { end: Inherited::new(end), group: options.group })
    }
}

impl Subscriber for NatsSubscriber {
    fn receive(&self, deadline: Option<Instant>) -> Result<Option<Delivery>> {
        const OPERATION: &str = "receive a message";
        let end = self.end.get().ok_or_else(|| elsewhere(OPERATION))?;
        end.link.run(OPERATION, &end.closed, end.receive(deadline))
    }

    fn acknowledge(&self, tags: &[Tag]) -> Result<()> {
        const OPERATION: &str = "acknowledge a message";
        let end = self.end.get().ok_or_else(|| elsewhere(OPERATION))?;
        end.link.run(OPERATION, &end.closed, end.acknowledge(tags))
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    fn group(&self) -> &str {
        &self.group
    }

    fn close(&self) -> Result<()> {
        if let Some(end) = self.end.get() {
            end.close();
        }
        Ok(())
    }
}

impl End {
    async fn join_all(&self) -> Result<()> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            match self.try_join_all().await {
                Err(error) if passes(&error) && Instant::now() < give_up => sleep(PAUSE).await,
                done => return done,
            }
        }
    }

    async fn try_join_all(&self) -> Result<()> {
        let session = self.link.session(None).await?;
        for (index, topic) in self.topics.iter().enumerate() {
            join_group(&session, topic, &self.group, self.basket.redeliver_after).await?;
            self.basket.lock().feeds[index].joined = session.id;
        }
        Ok(())
    }

    async fn receive(&self, deadline: Option<Instant>) -> Result<Option<Delivery>> {
        let reach = deadline.map(|deadline| deadline.max(Instant::now() + LOOKS_WITHIN));
        let mut has_looked = false;
        loop {
            let mut changed = pin!(self.basket.changed.notified());
            changed.as_mut().enable(); // before looking, or a change could be missed
            if let Some(delivery) = self.basket.take() {
                return Ok(Some(delivery));
            }
            if let Some((error, since)) = self.basket.take_failure() {
                if !passes(&error) || Instant::now() >= reach.unwrap_or(since + PATIENCE) {
                    return Err(error);
                }
                sleep(PAUSE).await;
            }
            let is_over = deadline.is_some_and(|deadline| deadline <= Instant::now());
            if is_over && has_looked {
                let is_late = reach.is_some_and(|reach| reach <= Instant::now());
                if is_late || !self.basket.is_looking() {
                    return Ok(None);
                }
            } else {
                has_looked = true;
                let began = Instant::now();
                if let Err(error) = self.pull(reach, !is_over).await {
                    self.basket.fail(error, began);
                    continue;
                }
            }
            let _ = until(if is_over { reach } else { deadline }, changed).await;
        }
    }

    /// Has the messages of all topics fetched for which this is not under way.
    async fn pull(&self, reach: Option<Instant>, waits: bool) -> Result<()> {
        let session = self.link.session(reach).await?;
        for (index, topic) in self.topics.iter().enumerate() {
            let Some(joined) = self.basket.joined_when_idle(index) else { continue };
            if joined != session.id {
                let wait = self.basket.redeliver_after;
                session.within(reach, join_group(&session, topic, &self.group, wait)).await?;
            }
            let looks = (self.prefetch > 1 || !waits).then_some(self.prefetch);
            if self.basket.begin(index, session.id, looks.is_some()) {
                let group = format!("{}.{}", topic.stream, self.group);
                let (session, basket) = (Arc::clone(&session), Arc::clone(&self.basket));
                tokio::spawn(Pull { session, basket, index, group, looks, waits }.run());
            }
        }
        Ok(())
    }

    async fn acknowledge(&self, tags: &[Tag]) -> Result<()> {
        let is_open = |tag: &&Tag| self.basket.lock().open.contains_key(&tag.0);
        if !tags.iter().any(|tag| is_open(&tag)) {
            return Ok(());
        }
        let session = self.link.session(None).await?;
        for subject in self.basket.to_answer(tags, &session.server) {
            let tag = subject.clone();
            let done = session.client.publish(subject, Bytes::from_static(b"+ACK")).await;
            done.map_err(|error| lost(&session.servers, error))?;
            self.basket.lock().open.remove(tag.as_bytes());
        }
        if !std::mem::replace(&mut self.basket.lock().has_waste, true) {
            let (basket, topics) = (Arc::clone(&self.basket), Arc::clone(&self.topics));
            tokio::spawn(async move {
                sleep(SWEEPS_AFTER).await;
                basket.sweep(&session, &topics).await;
            });
        }
        Ok(())
    }

    fn close(&self) {
        if !self.closed.close() {
            return;
        }
        let held = self.basket.close();
        let end = Instant::now() + GIVES_BACK_WITHIN;
        self.link.block_on(until(Some(end), async {
            let Ok(session) = self.link.session(Some(end)).await else { return };
            for (reply, _) in held.into_iter().filter(|(_, server)| *server == session.server) {
                give_back(&session.client, reply).await;
            }
            let _ = session.client.flush().await;
            self.basket.sweep(&session, &self.topics).await;
        }));
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.close();
    }
}

impl Basket {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a message that came; gives it back when nobody will receive it.
    pub(super) async fn put(&self, session: &Session, message: Message) {
        let reply = {
            let mut state = self.lock();
            if !state.is_closed {
                let server = Arc::clone(&session.server);
                state.waiting.push_back(Held { message, at: Instant::now(), server });
                drop(state);
                self.changed.notify_waiters();
                return;
            }
            message.reply
        };
        if let Some(reply) = reply {
            give_back(&session.client, reply.to_string()).await;
        }
    }

    fn take(&self) -> Option<Delivery> {
        let mut state = self.lock();
        loop {
            let Held { message, at, server } = state.waiting.pop_front()?;
            // Those that waited for too long are with others by now.
            let Some(reply) = message.reply.filter(|_| at.elapsed() < self.redeliver_after) else {
                continue;
            };
            let tag = reply.as_bytes().to_vec();
            state.note(tag.clone(), at, server, self.redeliver_after);
            let attempts = attempts(&reply);
            return Some(Delivery { message: message.payload.into(), tag: Tag(tag), attempts });
        }
    }

    /// The subjects by which messages of this server are acknowledged; the others are forgotten, as
    /// they come again.
    fn to_answer(&self, tags: &[Tag], server: &Arc<str>) -> Vec<String> {
        let mut state = self.lock();
        let mut subjects = Vec::with_capacity(tags.len());
        for Tag(tag) in tags {
            match state.open.get(tag) {
                Some(open) if open.server == *server => {
                    subjects.extend(String::from_utf8(tag.clone()));
                }
                _ => drop(state.open.remove(tag)),
            }
        }
        subjects
    }

    /// Has the server remove what was acknowledged.
    async fn sweep(&self, session: &Session, topics: &[Topic]) {
        if !std::mem::take(&mut self.lock().has_waste) {
            return;
        }
        for topic in topics {
            match sweep(session, topic).await {
                Err(error) if !passes(&error) => self.fail(error, Instant::now()),
                _ => {} // what stays is swept with what is acknowledged next
            }
        }
    }

    /// Ends it; what is to be given back, in the order of delivery, and the server it is from.
    fn close(&self) -> Vec<(String, Arc<str>)> {
        let mut state = self.lock();
        state.is_closed = true;
        let mut open: Vec<_> = state.open.drain().collect();
        open.sort_unstable_by_key(|(_, open)| open.number);
        let open = open
            .into_iter()
            .map(|(tag, Open { at, server, .. })| (String::from_utf8(tag).ok(), at, server));
        let waiting = std::mem::take(&mut state.waiting).into_iter();
        let waiting = waiting.map(|Held { message, at, server }| {
            (message.reply.map(|reply| reply.to_string()), at, server)
        });
        let held = open.chain(waiting).filter(|(_, at, _)| at.elapsed() < self.redeliver_after);
        held.filter_map(|(reply, _, server)| Some((reply?, server))).collect()
    }

    fn fail(&self, error: Error, since: Instant) {
        let mut state = self.lock();
        state.failure = Some(error);
        state.since.get_or_insert(since);
    }

    fn take_failure(&self) -> Option<(Error, Instant)> {
        let mut state = self.lock();
        state.failure.take().zip(state.since)
    }

    fn is_looking(&self) -> bool {
        self.lock().feeds.iter().any(|feed| feed.stage == Stage::Looks)
    }

    fn joined_when_idle(&self, index: usize) -> Option<u64> {
        let state = self.lock();
        let feed = &state.feeds[index];
        (feed.stage == Stage::Idle).then_some(feed.joined)
    }

    /// Begins a pull; not if one has begun.
    fn begin(&self, index: usize, session: u64, looks: bool) -> bool {
        let feed = &mut self.lock().feeds[index];
        let is_idle = feed.stage == Stage::Idle;
        if is_idle {
            feed.joined = session;
            feed.stage = if looks { Stage::Looks } else { Stage::Waits };
        }
        is_idle
    }

    /// Where answers to the last pull arrived, for the next.
    pub(super) fn inbox(&self, index: usize) -> Option<Inbox> {
        self.lock().feeds[index].inbox.take()
    }

    /// The server said what there is.
    pub(super) fn looked(&self, index: usize) {
        self.lock().feeds[index].stage = Stage::Waits;
        self.changed.notify_waiters();
    }

    /// A pull has ended.
    pub(super) fn ended(&self, index: usize, pulled: Result<Inbox>) {
        let mut state = self.lock();
        state.feeds[index].stage = Stage::Idle;
        match pulled {
            Ok(inbox) => {
                state.feeds[index].inbox = Some(inbox);
                state.since = None;
            }
            Err(error) => {
                state.feeds[index].joined = 0; // the group may be gone
                state.failure = Some(error);
                state.since.get_or_insert_with(Instant::now);
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }
}

impl State {
    /// Notes a delivery; forgets, now and then, those that were made again since, by another tag.
    fn note(&mut self, tag: Vec<u8>, at: Instant, server: Arc<str>, redeliver_after: Duration) {
        if self.open.len() >= self.tidy_at {
            // What is acknowledged late may still spare somebody its delivery.
            self.open.retain(|_, open| open.at.elapsed() / 2 < redeliver_after);
            self.tidy_at = MANY.max(self.open.len() * 2);
        }
        self.deliveries += 1;
        self.open.insert(tag, Open { number: self.deliveries, at, server });
    }
}

/// Says that a message is for another subscriber; what gets lost comes again in time.
async fn give_back(client: &Client, reply: String) {
    let _ = client.publish(reply, Bytes::from_static(b"-NAK")).await;
}

/// The how-manieth delivery it is: a part of the subject by which it is acknowledged, which has a
/// domain and an account in front of the stream on some servers.
fn attempts(reply: &str) -> u32 {
    let parts: Vec<&str> = reply.split('.').collect();
    let place = if parts.len() > 9 { 6 } else { 4 };
    parts.get(place).and_then(|count| count.parse().ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliveries_are_counted_by_servers_of_any_age() {
        assert_eq!(attempts("$JS.ACK.topic.group.3.10.9.1700000000.4"), 3);
        assert_eq!(attempts("$JS.ACK._.hash.topic.group.3.10.9.1700000000.4.token"), 3);
    }

    #[test]
    fn deliveries_that_nobody_acknowledges_are_forgotten_when_they_were_made_again() {
        let server: Arc<str> = "server".into();
        for (redeliver_after, most) in [(Duration::ZERO, MANY), (Duration::MAX, 10 * MANY)] {
            let mut state = State::default();
            for number in 0..10 * MANY {
                let tag = number.to_le_bytes().to_vec();
                state.note(tag, Instant::now(), Arc::clone(&server), redeliver_after);
            }
            let count = state.open.len();
            assert!(
                count <= most && count > most - MANY,
                "{count} of {most} for {redeliver_after:?}"
            );
        }
    }
}
