//! The thread that fetches for a subscriber, and keeps what it has done at Kafka.

use std::sync::{Arc, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::Offset;

use super::progress::Progress;
use super::subscriber::{Down, Shared};
use super::{PATIENCE, SLICE, error, settings, unreachable};
use crate::error::{ErrorKind, Result};

/// Progress is kept this often, and at once when partitions go to others.
const KEEP_EVERY: Duration = Duration::from_millis(20);
/// A receiver that takes longer than this has the partitions paused, for the group to go on.
const PAUSE_AFTER: Duration = Duration::from_millis(200);
/// How soon subscribers hear that another came or went.
const HEARTBEAT: Duration = Duration::from_millis(500);
const CHECK_EVERY: Duration = Duration::from_millis(500);
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

pub(super) struct Feeder {
    shared: Arc<Shared>,
    consumer: Arc<BaseConsumer<Group>>,
    has_left: Option<Instant>,
    is_paused: bool,
    full_since: Option<Instant>,
    checked: Instant,
}

/// What librdkafka tells of the group.
pub(super) struct Group(Arc<Shared>);

impl ClientContext for Group {
    fn error(&self, _error: KafkaError, reason: &str) {
        let (cause, since) = (reason.to_owned(), Instant::now());
        self.0.lock().down.get_or_insert(Down { cause, since, is_sure: false });
    }
}

impl ConsumerContext for Group {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(partitions) = rebalance {
            let_go(consumer, Some(partitions));
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Assign(partitions) = rebalance else { return };
        if partitions.count() == 0 {
            return;
        }
        let found = consumer.committed_offsets((*partitions).clone(), ANSWERS_WITHIN);
        let mut state = self.0.lock();
        let Ok(found) = found else {
            state.is_stale = true;
            return;
        };
        for element in found.elements() {
            if element.error().is_err() {
                state.is_stale = true; // to be asked again, and not to begin at the beginning
                continue;
            }
            let progress = match element.offset() {
                Offset::Offset(offset) => Progress::decode(offset, element.metadata()),
                _ => Progress::default(),
            };
            let place = (element.topic().to_owned(), element.partition());
            state.partitions.insert(place, progress);
        }
        state.down = None;
    }
}

impl Feeder {
    /// Joins the group; its topics are there when this returns.
    pub(super) fn new(shared: &Arc<Shared>, group: &str, session: Duration) -> Result<Self> {
        const OPERATION: &str = "subscribe";
        let failed = |cause: &KafkaError| error(OPERATION, &shared.servers, cause);
        let consumer: BaseConsumer<Group> = settings(&shared.servers)
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("session.timeout.ms", session.as_millis().to_string())
            .set("heartbeat.interval.ms", (session / 10).min(HEARTBEAT).as_millis().to_string())
            .set("fetch.wait.max.ms", "100")
            .create_with_context(Group(Arc::clone(shared)))
            .map_err(|cause| failed(&cause))?;
        let end = Instant::now() + PATIENCE;
        for topic in &shared.topics {
            loop {
                let found = consumer.fetch_metadata(Some(topic), ANSWERS_WITHIN);
                let is_there = found.as_ref().is_ok_and(|found| {
                    let mut topics = found.topics().iter();
                    topics.any(|topic| topic.error().is_none() && !topic.partitions().is_empty())
                });
                if is_there {
                    break;
                }
                if Instant::now() >= end {
                    let cause = found.err().map(|cause| cause.to_string());
                    let cause = cause.unwrap_or_else(|| format!("no topic {topic} is made"));
                    return Err(unreachable(OPERATION, &shared.servers, &cause));
                }
                std::thread::sleep(SLICE);
            }
        }
        let feeder = Self {
            shared: Arc::clone(shared),
            consumer: Arc::new(consumer),
            has_left: None,
            is_paused: false,
            full_since: None,
            checked: Instant::now(),
        };
        feeder.join().map_err(|cause| failed(&cause))?;
        Ok(feeder)
    }

    pub(super) fn consumer(&self) -> Weak<BaseConsumer<Group>> {
        Arc::downgrade(&self.consumer)
    }

    pub(super) fn run(self) {
        /// Also if something panics: nobody is to wait for ever.
        struct Over(Arc<Shared>);
        impl Drop for Over {
            fn drop(&mut self) {
                self.0.end();
            }
        }
        let over = Over(Arc::clone(&self.shared));
        let mut feeder = self;
        while !feeder.shared.lock().is_closed {
            feeder.step();
        }
        feeder.leave();
        drop(feeder); // tells the group
        drop(over);
    }

    fn step(&mut self) {
        self.mind_time();
        if let Some(left) = self.has_left {
            let is_asked = {
                let state = self.shared.lock();
                state.receivers > 0 || state.asked.is_some_and(|asked| asked >= left)
            };
            if !is_asked {
                let _ = self.consumer.poll(SLICE); // in which it leaves
                return;
            }
            if self.join().is_ok() {
                self.has_left = None;
            }
        }
        keep_now_and_then(&self.consumer);
        if self.shared.is_full() {
            if self.full_since.get_or_insert_with(Instant::now).elapsed() < PAUSE_AFTER {
                let state = self.shared.lock();
                drop(self.shared.wait(state, KEEP_EVERY));
                return;
            }
            self.pause(true);
        } else {
            self.full_since = None;
            self.pause(false);
        }
        match self.consumer.poll(KEEP_EVERY) {
            Some(Ok(message)) => {
                let payload = message.payload().unwrap_or_default();
                let (topic, partition) = (message.topic(), message.partition());
                self.shared.put(topic, partition, message.offset(), payload);
            }
            Some(Err(cause)) => {
                let failure = error("receive a message", &self.shared.servers, &cause);
                if failure.kind() == ErrorKind::Io {
                    self.consumer.context().error(cause.clone(), &cause.to_string());
                } else {
                    self.shared.fail(failure);
                }
            }
            None => {}
        }
        self.check();
    }

    /// Sees to what was not acknowledged in time.
    fn mind_time(&mut self) {
        let now = Instant::now();
        let mut state = self.shared.lock();
        let is_stale = std::mem::take(&mut state.is_stale);
        let is_overdue = state.is_overdue(now);
        if is_stale || (is_overdue && state.receivers == 0) {
            drop(state);
            self.leave();
            return;
        }
        if !is_overdue {
            return;
        }
        let again: Vec<_> = state.partitions.iter_mut().collect();
        let again = again.into_iter().filter_map(|((topic, partition), progress)| {
            Some((topic.clone(), *partition, progress.give_up_overdue(now)?))
        });
        let again: Vec<_> = again.collect();
        drop(state);
        for (topic, partition, offset) in again {
            let found =
                self.consumer.seek(&topic, partition, Offset::Offset(offset), ANSWERS_WITHIN);
            self.shared.lock().is_stale |= found.is_err();
        }
    }

    fn join(&self) -> std::result::Result<(), KafkaError> {
        let topics: Vec<&str> = self.shared.topics.iter().map(String::as_str).collect();
        self.consumer.subscribe(&topics)
    }

    /// Leaves the group, so that others get what is not acknowledged.
    fn leave(&mut self) {
        let_go(&self.consumer, None);
        self.consumer.unsubscribe();
        self.has_left = Some(Instant::now());
        (self.is_paused, self.full_since) = (false, None);
    }

    /// Has Kafka send nothing while nobody takes it; the consumer must be polled all the same.
    fn pause(&mut self, paused: bool) {
        if self.is_paused == paused {
            return;
        }
        let done = self.consumer.assignment().and_then(|partitions| {
            let consumer = &self.consumer;
            if paused { consumer.pause(&partitions) } else { consumer.resume(&partitions) }
        });
        if done.is_ok() {
            self.is_paused = paused;
        }
    }

    /// Whether brokers can be reached when there was trouble: librdkafka does not tell.
    fn check(&mut self) {
        let is_down = self.shared.lock().down.is_some();
        if is_down && self.checked.elapsed() >= CHECK_EVERY {
            let topic = self.shared.topics.first().map(String::as_str);
            let answers = self.consumer.fetch_metadata(topic, CHECK_EVERY).is_ok();
            let down = &mut self.shared.lock().down;
            *down = down.take().filter(|_| !answers).map(|down| Down { is_sure: true, ..down });
            self.checked = Instant::now();
        }
    }
}

/// Keeps what changed, unless that was done just now, or another thread keeps something.
pub(super) fn keep_now_and_then(consumer: &BaseConsumer<Group>) {
    let Group(shared) = &**consumer.context();
    let _turn = match shared.keeping.try_lock() {
        Ok(turn) => turn,
        Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
        Err(TryLockError::WouldBlock) => return,
    };
    if let Some(changes) = shared.changes(KEEP_EVERY) {
        keep(consumer, &changes, CommitMode::Async);
    }
}

/// Lets go of partitions, or of all, and keeps what was done of them.
fn let_go(consumer: &BaseConsumer<Group>, chosen: Option<&TopicPartitionList>) {
    let Group(shared) = &**consumer.context();
    let _turn = shared.keeping.lock().unwrap_or_else(PoisonError::into_inner);
    keep(consumer, &shared.release(chosen), CommitMode::Sync);
}

/// Keeps progress at Kafka. What fails is kept with what changes next, or comes again.
fn keep(consumer: &BaseConsumer<Group>, changes: &TopicPartitionList, mode: CommitMode) {
    if changes.count() > 0 {
        let _ = consumer.commit(changes, mode);
    }
}
