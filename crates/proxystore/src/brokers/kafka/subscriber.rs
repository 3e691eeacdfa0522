//! The end that receives: what the feeder fetched, and who waits for it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::BaseConsumer;
use rdkafka::topic_partition_list::Offset;

use super::feeder::{Feeder, Group, keep_now_and_then};
use super::names::topic_name;
use super::progress::Progress;
use super::{PATIENCE, unreachable};
use crate::brokers::{Delivery, Guarantee, SubscribeOptions, Subscriber, Tag, closed, elsewhere};
use crate::error::{Error, Result};
use crate::fork::Inherited;

/// How long `close` waits until the group knows.
const LEAVES_WITHIN: Duration = Duration::from_secs(5);

/// A subscriber over Kafka.
#[derive(Debug)]
pub(super) struct KafkaSubscriber {
    end: Inherited<End>,
    group: String,
}

struct End {
    shared: Arc<Shared>,
    /// The feeder's.
    consumer: Weak<BaseConsumer<Group>>,
}

/// What receivers and the feeder share.
pub(super) struct Shared {
    pub(super) servers: String,
    pub(super) topics: Vec<String>,
    pub(super) prefetch: usize,
    redeliver_after: Duration,
    state: Mutex<State>,
    changed: Condvar,
    /// Held from when progress is taken until it is on its way to Kafka, or older could overtake newer.
    /// Locked before `state`.
    pub(super) keeping: Mutex<()>,
}

#[derive(Default)]
pub(super) struct State {
    /// Of the partitions that are this subscriber's, by topic and number.
    pub(super) partitions: BTreeMap<(String, i32), Progress>,
    /// Nothing that was delivered should be acknowledged before that.
    earliest: Option<Instant>,
    /// Fetched and not delivered.
    basket: VecDeque<Fetched>,
    /// How many threads receive, and since when the last of them does.
    pub(super) receivers: usize,
    pub(super) asked: Option<Instant>,
    pub(super) is_closed: bool,
    /// The feeder has ended.
    is_over: bool,
    pub(super) down: Option<Down>,
    /// What is not better for trying again.
    pub(super) failure: Option<Error>,
    /// When progress was last kept.
    kept: Option<Instant>,
    /// What was kept of the group could not be read: it has to be joined again.
    pub(super) is_stale: bool,
}

/// Trouble with a connection.
pub(super) struct Down {
    pub(super) cause: String,
    pub(super) since: Instant,
    /// No broker answers; it is not just one connection of several.
    pub(super) is_sure: bool,
}

struct Fetched {
    topic: String,
    partition: i32,
    offset: i64,
    message: Vec<u8>,
}

impl KafkaSubscriber {
    pub(super) fn new(
        servers: &str,
        session: Duration,
        topics: &[&str],
        options: SubscribeOptions,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            servers: servers.to_owned(),
            topics: topics.iter().map(|topic| topic_name(topic)).collect(),
            prefetch: options.prefetch,
            redeliver_after: options.redeliver_after,
            state: Mutex::default(),
            changed: Condvar::new(),
            keeping: Mutex::default(),
        });
        let feeder = Feeder::new(&shared, &options.group, session)?;
        let consumer = feeder.consumer();
        let name = "proxystore-kafka".to_owned();
        let started = thread::Builder::new().name(name).spawn(move || feeder.run());
        started.map_err(|error| Error::io("start a thread for Kafka", error))?;
        Ok(Self { end: Inherited::new(End { shared, consumer }), group: options.group })
    }
}

impl Subscriber for KafkaSubscriber {
    fn receive(&self, deadline: Option<Instant>) -> Result<Option<Delivery>> {
        const OPERATION: &str = "receive a message";
        let End { shared, consumer } = self.end.get().ok_or_else(|| elsewhere(OPERATION))?;
        let mut state = shared.lock();
        state.receivers += 1;
        state.asked = Some(Instant::now());
        shared.changed.notify_all(); // the feeder may have left the group
        let received = loop {
            if state.is_closed {
                break Err(closed(OPERATION));
            }
            if let Some(delivery) = state.deliver(shared.redeliver_after) {
                break Ok(Some(delivery));
            }
            if let Some(failure) = state.failure.take() {
                break Err(failure);
            }
            let now = Instant::now();
            let down = state.down.as_ref().filter(|down| down.is_sure);
            let end = deadline.or_else(|| down.map(|down| down.since + PATIENCE));
            if end.is_some_and(|end| end <= now) {
                let failed = |down: &Down| unreachable(OPERATION, &shared.servers, &down.cause);
                break down.map_or(Ok(None), |down| Err(failed(down)));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(now));
            let time = left.unwrap_or(PATIENCE).min(Duration::from_secs(1));
            state = shared.wait(state, time);
        };
        state.receivers -= 1;
        drop(state);
        shared.changed.notify_all(); // there is room for another message
        if let Some(consumer) = consumer.upgrade() {
            keep_now_and_then(&consumer); // that it was delivered
        }
        received
    }

    fn acknowledge(&self, tags: &[Tag]) -> Result<()> {
        const OPERATION: &str = "acknowledge a message";
        let End { shared, consumer } = self.end.get().ok_or_else(|| elsewhere(OPERATION))?;
        let mut state = shared.lock();
        if state.is_closed {
            return Err(closed(OPERATION));
        }
        for (topic, partition, offset) in tags.iter().filter_map(Tag::place) {
            // Partitions of others by now are theirs: they deliver the message again.
            if let Some(progress) = state.partitions.get_mut(&(topic.to_owned(), partition)) {
                progress.acknowledge(offset);
            }
        }
        drop(state);
        if let Some(consumer) = consumer.upgrade() {
            keep_now_and_then(&consumer);
        }
        Ok(())
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
    fn close(&self) {
        let Self { shared, .. } = self;
        let end = Instant::now() + LEAVES_WITHIN;
        let mut state = shared.lock();
        state.is_closed = true;
        shared.changed.notify_all();
        while !state.is_over && Instant::now() < end {
            state = shared.wait(state, end.saturating_duration_since(Instant::now()));
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        time: Duration,
    ) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Takes a fetched message, if it is to be delivered.
    pub(super) fn put(&self, topic: &str, partition: i32, offset: i64, message: &[u8]) {
        let mut state = self.lock();
        let topic = topic.to_owned();
        state.down = None;
        let key = (topic, partition);
        if state.partitions.get_mut(&key).is_some_and(|progress| progress.admit(offset)) {
            let message = message.to_vec();
            state.basket.push_back(Fetched { topic: key.0, partition, offset, message });
            self.changed.notify_all();
        }
    }

    /// Has a receiver fail.
    pub(super) fn fail(&self, failure: Error) {
        self.lock().failure = Some(failure);
        self.changed.notify_all();
    }

    pub(super) fn is_full(&self) -> bool {
        self.lock().basket.len() >= self.prefetch
    }

    /// What is to be kept of partitions that changed; not if it was asked for less than so long ago.
    pub(super) fn changes(&self, every: Duration) -> Option<TopicPartitionList> {
        let mut state = self.lock();
        if state.kept.is_some_and(|kept| kept.elapsed() < every) {
            return None;
        }
        let mut list = TopicPartitionList::new();
        for ((topic, partition), progress) in &mut state.partitions {
            if std::mem::take(&mut progress.is_dirty) {
                add(&mut list, topic, *partition, progress);
            }
        }
        if list.count() > 0 {
            state.kept = Some(Instant::now());
        }
        Some(list)
    }

    /// Lets go of partitions, or of all; what is to be kept of them.
    pub(super) fn release(&self, chosen: Option<&TopicPartitionList>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        let mut state = self.lock();
        let is_chosen = |(topic, partition): &(String, i32)| {
            chosen.is_none_or(|chosen| chosen.find_partition(topic, *partition).is_some())
        };
        state.partitions.retain(|place, progress| {
            if is_chosen(place) {
                add(&mut list, &place.0, place.1, progress);
            }
            !is_chosen(place)
        });
        let State { basket, partitions, .. } = &mut *state;
        basket.retain(|held| partitions.contains_key(&(held.topic.clone(), held.partition)));
        list
    }

    /// The feeder has ended.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        (state.is_closed, state.is_over) = (true, true);
        drop(state);
        self.changed.notify_all();
    }
}

impl State {
    /// Whether something was not acknowledged in time. All is looked at when it can be so, no more often.
    pub(super) fn is_overdue(&mut self, now: Instant) -> bool {
        if self.earliest.is_none_or(|earliest| earliest > now) {
            return false;
        }
        self.earliest = self.partitions.values().filter_map(Progress::earliest).min();
        self.earliest.is_some_and(|earliest| earliest <= now)
    }

    fn deliver(&mut self, redeliver_after: Duration) -> Option<Delivery> {
        loop {
            let Fetched { topic, partition, offset, message } = self.basket.pop_front()?;
            let tag = Tag(format!("{partition}/{offset}/{topic}").into_bytes());
            let until = Instant::now() + redeliver_after;
            let progress = self.partitions.get_mut(&(topic, partition));
            // It may have been acknowledged since, by who got it earlier.
            if let Some(attempts) = progress.and_then(|found| found.deliver(offset, until)) {
                self.earliest = Some(self.earliest.map_or(until, |earliest| earliest.min(until)));
                return Some(Delivery { message, tag, attempts });
            }
        }
    }
}

impl Tag {
    /// Topic, partition and offset.
    fn place(&self) -> Option<(&str, i32, i64)> {
        let mut parts = std::str::from_utf8(&self.0).ok()?.splitn(3, '/');
        let (partition, offset) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some((parts.next()?, partition, offset))
    }
}

fn add(list: &mut TopicPartitionList, topic: &str, partition: i32, progress: &Progress) {
    let (offset, text) = progress.encode();
    let mut element = list.add_partition(topic, partition);
    // An offset is never refused.
    if element.set_offset(Offset::Offset(offset)).is_ok() {
        element.set_metadata(text);
    }
}
