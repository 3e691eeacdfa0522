//! A broker in the memory of this process, for threads and tests.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{
    Broker, Delivery, Guarantee, Publisher, Sharing, SubscribeOptions, Subscriber, Tag, Traits,
    check_subscription, check_topic, closed, full,
};
use crate::condition::Condition;
use crate::error::{Error, ErrorKind, Result};
use crate::fork::PerProcess;

/// Messages in the memory of this process.
///
/// Brokers of one name are the same, within a process; they live as long as one of their ends.
/// Without a capacity a topic takes as many messages as memory has room for.
///
/// ```
/// # fn main() -> proxystore::Result<()> {
/// use proxystore::brokers::memory::MemoryBroker;
/// use proxystore::brokers::{Broker, SubscribeOptions};
///
/// let broker = MemoryBroker::new("broker-example");
/// let subscriber = broker.subscriber(&["greetings"], &SubscribeOptions::default())?;
/// broker.publisher()?.publish("greetings", b"hello", None)?;
/// let delivery = subscriber.receive(None)?.expect("no time to be up");
/// assert_eq!(delivery.message, b"hello");
/// subscriber.acknowledge(&[delivery.tag])?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct MemoryBroker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// A forked child starts with nothing, and takes no lock that it inherited.
    own: PerProcess<Own>,
    /// Messages that a topic takes for its slowest group; 0 for as many as come.
    capacity: usize,
}

#[derive(Debug, Default)]
struct Own {
    state: Mutex<State>,
    changed: Condition,
}

#[derive(Debug, Default)]
struct State {
    topics: HashMap<String, Topic>,
    /// Tags that were given out.
    tags: u64,
}

#[derive(Debug, Default)]
struct Topic {
    /// What was published before there was a group.
    early: VecDeque<Arc<[u8]>>,
    groups: BTreeMap<String, Group>,
}

#[derive(Debug, Default)]
struct Group {
    waiting: VecDeque<Waiting>,
    /// Delivered and not acknowledged, by tag, so in the order of delivery.
    open: BTreeMap<u64, Open>,
    /// When these are delivered again, soonest first.
    due: BTreeSet<(Instant, u64)>,
}

#[derive(Debug)]
struct Waiting {
    message: Arc<[u8]>,
    attempts: u32,
}

#[derive(Debug)]
struct Open {
    message: Arc<[u8]>,
    attempts: u32,
    subscriber: usize,
    until: Instant,
}

static BROKERS: PerProcess<Mutex<HashMap<String, std::sync::Weak<Shared>>>> =
    PerProcess::new(Mutex::default);

impl MemoryBroker {
    /// The broker of a name.
    pub fn new(name: &str) -> Self {
        let mut brokers = BROKERS.get().lock().unwrap_or_else(PoisonError::into_inner);
        brokers.retain(|_, shared| shared.strong_count() > 0);
        if let Some(shared) = brokers.get(name).and_then(std::sync::Weak::upgrade) {
            return Self { shared };
        }
        let shared = Arc::new(Shared::new(0));
        brokers.insert(name.to_owned(), Arc::downgrade(&shared));
        Self { shared }
    }

    /// The broker that `memory://NAME` names.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for another URL.
    pub fn open(url: &str) -> Result<Self> {
        match url.strip_prefix("memory://") {
            Some(name) if !name.is_empty() => Ok(Self::new(name)),
            _ => {
                Err(Error::new(ErrorKind::Config, "open a broker", "its URL is not memory://NAME")
                    .with("url", url))
            }
        }
    }

    /// A broker of its own, whose topics take so many messages, for their slowest group, and then
    /// make publishers wait.
    pub fn bounded(capacity: usize) -> Self {
        Self { shared: Arc::new(Shared::new(capacity)) }
    }
}

impl Broker for MemoryBroker {
    fn traits(&self) -> Traits {
        Traits { guarantee: Guarantee::AtLeastOnce, sharing: Sharing::Groups, cross_process: false }
    }

    fn publisher(&self) -> Result<Box<dyn Publisher>> {
        Ok(Box::new(End::new(&self.shared, Vec::new(), &SubscribeOptions::default())))
    }

    fn subscriber(
        &self,
        topics: &[&str],
        options: &SubscribeOptions,
    ) -> Result<Box<dyn Subscriber>> {
        let options = &check_subscription(topics, options)?;
        let mut state = self.shared.lock();
        for topic in topics {
            let topic = state.topics.entry((*topic).to_owned()).or_default();
            // The first group gets what came before it; later ones begin now.
            let early = std::mem::take(&mut topic.early).into_iter();
            let early = early.map(|message| Waiting { message, attempts: 0 });
            topic.groups.entry(options.group.clone()).or_default().waiting.extend(early);
        }
        drop(state);
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        Ok(Box::new(End::new(&self.shared, topics, options)))
    }
}

impl Shared {
    fn new(capacity: usize) -> Self {
        Self { own: PerProcess::new(Own::default), capacity }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.own.get().state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One end, of either kind.
#[derive(Debug)]
struct End {
    shared: Arc<Shared>,
    topics: Vec<String>,
    group: String,
    redeliver_after: Duration,
    /// With which topic to begin, so that each has its turn.
    turn: AtomicUsize,
    closed: AtomicBool,
}

impl End {
    fn new(shared: &Arc<Shared>, topics: Vec<String>, options: &SubscribeOptions) -> Self {
        Self {
            shared: Arc::clone(shared),
            topics,
            group: options.group.clone(),
            redeliver_after: options.redeliver_after,
            turn: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        }
    }

    /// What this end is known by while it exists.
    fn id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Checked under the lock, or a waiter could miss it.
    fn check_open(&self, operation: &'static str) -> Result<()> {
        let is_closed = self.closed.load(Ordering::Relaxed);
        if is_closed { Err(closed(operation)) } else { Ok(()) }
    }

    fn close(&self) {
        let mut state = self.shared.lock();
        self.closed.store(true, Ordering::Relaxed);
        let id = self.id();
        for topic in &self.topics {
            let topic = state.topics.get_mut(topic);
            if let Some(group) = topic.and_then(|topic| topic.groups.get_mut(&self.group)) {
                let is_ours = |(_, open): &(_, &Open)| open.subscriber == id;
                let ours = group.open.iter().filter(is_ours).map(|(tag, _)| *tag).collect();
                group.give_back(ours);
            }
        }
        drop(state);
        self.shared.own.get().changed.notify_all();
    }
}

impl Drop for End {
    fn drop(&mut self) {
        End::close(self);
    }
}

impl Group {
    /// Puts these deliveries in front of what waits, in their order.
    fn give_back(&mut self, mut tags: Vec<u64>) {
        tags.sort_unstable();
        for tag in tags.into_iter().rev() {
            if let Some(Open { message, attempts, .. }) = self.close(tag) {
                self.waiting.push_front(Waiting { message, attempts });
            }
        }
    }

    /// Gives back what was not acknowledged in time.
    fn give_back_due(&mut self, now: Instant) {
        let due = self.due.range(..=(now, u64::MAX)).map(|(_, tag)| *tag).collect();
        self.give_back(due);
    }

    /// Takes a delivery off the open ones.
    fn close(&mut self, tag: u64) -> Option<Open> {
        let open = self.open.remove(&tag)?;
        self.due.remove(&(open.until, tag));
        Some(open)
    }

    fn len(&self) -> usize {
        self.waiting.len() + self.open.len()
    }
}

impl Publisher for End {
    fn publish(&self, topic: &str, message: &[u8], deadline: Option<Instant>) -> Result<()> {
        check_topic(topic)?;
        let message: Arc<[u8]> = Arc::from(message); // the lock is not held over a copy
        let mut state = self.shared.lock();
        loop {
            self.check_open("publish a message")?;
            let found = match state.topics.get_mut(topic) {
                Some(found) => found,
                None => state.topics.entry(topic.to_owned()).or_default(),
            };
            let slowest = found.groups.values().map(Group::len).max().unwrap_or(found.early.len());
            if self.shared.capacity == 0 || slowest < self.shared.capacity {
                if found.groups.is_empty() {
                    found.early.push_back(message);
                } else {
                    for group in found.groups.values_mut() {
                        let message = Arc::clone(&message);
                        group.waiting.push_back(Waiting { message, attempts: 0 });
                    }
                }
                break;
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Err(full(topic, "the topic is full"));
            }
            state = self.shared.own.get().changed.wait(state, deadline);
        }
        drop(state);
        self.shared.own.get().changed.notify_all();
        Ok(())
    }

    fn flush(&self, _deadline: Option<Instant>) -> Result<()> {
        self.check_open("flush a publisher")
    }

    fn close(&self) -> Result<()> {
        End::close(self);
        Ok(())
    }
}

impl Subscriber for End {
    fn receive(&self, deadline: Option<Instant>) -> Result<Option<Delivery>> {
        let start = self.turn.fetch_add(1, Ordering::Relaxed) % self.topics.len().max(1);
        let mut guard = self.shared.lock();
        loop {
            self.check_open("receive a message")?;
            let (now, mut wake) = (Instant::now(), deadline);
            let state = &mut *guard;
            for topic in self.topics[start..].iter().chain(&self.topics[..start]) {
                let topic = state.topics.get_mut(topic);
                let Some(group) = topic.and_then(|topic| topic.groups.get_mut(&self.group)) else {
                    continue;
                };
                group.give_back_due(now);
                if let Some(Waiting { message, attempts }) = group.waiting.pop_front() {
                    state.tags += 1;
                    let (tag, attempts) = (state.tags, attempts + 1);
                    let until = now + self.redeliver_after;
                    let delivered = Arc::clone(&message);
                    let open = Open { message, attempts, subscriber: self.id(), until };
                    group.open.insert(tag, open);
                    group.due.insert((until, tag));
                    let tag = Tag(tag.to_le_bytes().to_vec());
                    drop(guard);
                    return Ok(Some(Delivery { message: delivered.to_vec(), tag, attempts }));
                }
                let due = group.due.first().map(|(until, _)| *until);
                wake = match (wake, due) {
                    (Some(wake), Some(due)) => Some(wake.min(due)),
                    (wake, due) => wake.or(due),
                };
            }
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Ok(None);
            }
            guard = self.shared.own.get().changed.wait(guard, wake);
        }
    }

    fn acknowledge(&self, tags: &[Tag]) -> Result<()> {
        let mut state = self.shared.lock();
        self.check_open("acknowledge a message")?;
        for topic in &self.topics {
            let topic = state.topics.get_mut(topic);
            if let Some(group) = topic.and_then(|topic| topic.groups.get_mut(&self.group)) {
                for tag in tags {
                    if let Ok(tag) = <[u8; 8]>::try_from(&*tag.0) {
                        group.close(u64::from_le_bytes(tag));
                    }
                }
            }
        }
        drop(state);
        self.shared.own.get().changed.notify_all(); // there may be room again
        Ok(())
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    fn group(&self) -> &str {
        &self.group
    }

    fn close(&self) -> Result<()> {
        End::close(self);
        Ok(())
    }
}
