//! A broker in shared memory, for the processes of one host.
//!
//! `shm://NAME` is the session of the [connector](crate::connectors::shm) of that name: a directory that
//! lives as long as any process has an end of a broker, or a connector, open there. What killed processes
//! leave behind is removed when somebody opens either, or calls [`sweep`].
//!
//! - Each topic is a ring of bounded size in a file of its own. Every group of subscribers has a cursor in it,
//!   and what all groups have taken is overwritten. When a ring is full for the slowest group, `publish` waits.
//! - So every topic costs a file, as long as the session lives. A publisher has those of the 64 topics open that it
//!   published to last, a subscriber those of all its topics.
//! - A message is taken when it is received, once: what a subscriber had when it was killed is lost, and what
//!   was still in the ring is not. It is for the others of the group, or for who joins it next: a group keeps its
//!   place while nobody is in it.
//! - A group that nobody is in does not hold back publishers for ever: when the ring is full and another group has
//!   subscribers that live, it is forgotten. Who joins it later begins with the next message. When nobody lives at
//!   all, messages are kept, and publishers wait.
//! - What is published before the first group comes is kept for it, as far as there is room.
//! - Publishers and subscribers may be killed at any time. Locks of the kernel tell who lives, and which group has
//!   subscribers; the library makes up its mind about neither by process number, so containers may share the directory.
//! - A forked child goes on with the ends it inherited: it is one more publisher, or one more subscriber of the group.

mod handle;
mod layout;
mod lock;
mod ring;
mod signal;

#[cfg(feature = "testkit")]
pub(crate) use layout::fuzz;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use self::handle::Handle;
use self::layout::{Header, file_name, group_id};
use self::signal::{News, Signal};
use super::{
    Broker, Delivery, Guarantee, Publisher, Sharing, SubscribeOptions, Subscriber, Tag, Traits,
    check_subscription, check_topic, closed, full, is_past,
};
use crate::connectors::ConnectorConfig;
use crate::connectors::shm::{Session, Settings, check_file_system, io, sweep, sweep_one};
use crate::error::{Error, ErrorKind, Result};
use crate::fork::PerProcess;

const JOIN: &str = "join a shared-memory broker";
const PUBLISH: &str = "publish a message";
const RECEIVE: &str = "receive a message";

/// How long an end that is being made waits for a ring that another process has stopped in.
const PATIENCE: Duration = Duration::from_mins(1);

/// How many rings a publisher has open.
const MOST_OPEN: usize = 64;

/// Messages in shared memory, for all processes of this user on this host.
///
/// ```
/// # fn main() -> proxystore::Result<()> {
/// use proxystore::brokers::shm::ShmBroker;
/// use proxystore::brokers::{Broker, SubscribeOptions};
///
/// let broker = ShmBroker::new(&proxystore::key::unique_id()?)?;
/// let publisher = broker.publisher()?;
/// publisher.publish("greetings", b"hello", None)?;
/// let subscriber = broker.subscriber(&["greetings"], &SubscribeOptions::default())?;
/// assert_eq!(subscriber.receive(None)?.expect("no time to be up").message, b"hello");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct ShmBroker {
    settings: Arc<Place>,
}

/// Where a broker is.
#[derive(Debug, Clone)]
struct Place {
    root: PathBuf,
    name: String,
    capacity: u64,
}

impl ShmBroker {
    /// What a topic takes for its slowest group, unless the broker was told otherwise.
    pub const CAPACITY: u64 = 16 << 20;

    /// The broker of a session below `/dev/shm`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a name that cannot be one of a directory.
    pub fn new(name: &str) -> Result<Self> {
        Self::open(&format!("shm://{name}"))
    }

    /// The broker that `shm://NAME` or `shm://NAME?root=/path` names.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for another URL.
    pub fn open(url: &str) -> Result<Self> {
        let Settings { root, name, .. } = Settings::parse(&ConnectorConfig::new(url))?;
        Ok(Self { settings: Arc::new(Place { root, name, capacity: Self::CAPACITY }) })
    }

    /// The same broker, whose new topics take so many bytes for their slowest group, from 4096 to
    /// 4 GiB. Whoever uses a topic first decides.
    ///
    /// A message may have half of that, less 8 bytes. Memory is used as messages come, and given back, all
    /// but one MiB, when all are taken.
    pub fn with_capacity(self, bytes: u64) -> Self {
        Self { settings: Arc::new(Place { capacity: bytes, ..(*self.settings).clone() }) }
    }
}

impl Broker for ShmBroker {
    fn traits(&self) -> Traits {
        Traits { guarantee: Guarantee::AtMostOnce, sharing: Sharing::Groups, cross_process: true }
    }

    fn publisher(&self) -> Result<Box<dyn Publisher>> {
        Ok(Box::new(End::open(self, &[], "")?))
    }

    fn subscriber(
        &self,
        topics: &[&str],
        options: &SubscribeOptions,
    ) -> Result<Box<dyn Subscriber>> {
        let options = &check_subscription(topics, options)?;
        Ok(Box::new(End::open(self, topics, &options.group)?))
    }
}

/// One end, of either kind.
#[derive(Debug)]
struct End {
    place: Arc<Place>,
    topics: Vec<String>,
    group: String,
    closed: AtomicBool,
    /// With which topic to begin, so that each has its turn.
    turn: AtomicUsize,
    process: PerProcess<Mutex<Option<Arc<Attached>>>>,
}

/// What one process has of an end. Its fields are dropped in this order.
#[derive(Debug)]
struct Attached {
    joined: Vec<Joined>,
    rings: Mutex<Recent>,
    signal: Signal,
    session: Session,
    _last: Last,
}

/// The rings that were published to last.
#[derive(Debug, Default)]
struct Recent {
    rings: HashMap<String, (Arc<Handle>, u64)>,
    /// Counts how often any was used; with each ring, when it was.
    uses: u64,
}

impl Recent {
    fn get(&mut self, topic: &str, open: impl FnOnce() -> Result<Handle>) -> Result<Arc<Handle>> {
        self.uses += 1;
        if let Some((ring, used)) = self.rings.get_mut(topic) {
            *used = self.uses;
            return Ok(Arc::clone(ring));
        }
        if self.rings.len() >= MOST_OPEN {
            let oldest = self.rings.iter().min_by_key(|(_, (_, used))| *used);
            let oldest = oldest.map(|(topic, _)| topic.clone());
            oldest.and_then(|topic| self.rings.remove(&topic));
        }
        let ring = Arc::new(open()?);
        self.rings.insert(topic.to_owned(), (Arc::clone(&ring), self.uses));
        Ok(ring)
    }
}

/// A topic that an end has joined as a subscriber.
#[derive(Debug)]
struct Joined {
    ring: Handle,
    place: usize,
    news: News,
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.ring.leave(self.place);
    }
}

/// Removes the session when nobody is left.
#[derive(Debug)]
struct Last(Arc<Place>);

impl Drop for Last {
    fn drop(&mut self) {
        let _ = sweep_one(&self.0.root, &self.0.name); // or the next start does
    }
}

impl End {
    fn open(broker: &ShmBroker, topics: &[&str], group: &str) -> Result<Self> {
        let end = Self {
            place: Arc::clone(&broker.settings),
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            group: group.to_owned(),
            closed: AtomicBool::new(false),
            turn: AtomicUsize::new(0),
            process: PerProcess::new(Mutex::default),
        };
        // What cannot be swept today is swept another day; it must not keep anybody from working.
        let _ = sweep(Some(&end.place.root));
        end.attached(JOIN)?;
        Ok(end)
    }

    fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.is_closed() { Err(closed(operation)) } else { Ok(()) }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    fn attached(&self, operation: &'static str) -> Result<Arc<Attached>> {
        let mut place = self.process.get().lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at under the lock, or else a call could attach again after `close`.
        self.check_open(operation)?;
        if let Some(attached) = &*place {
            return Ok(Arc::clone(attached));
        }
        let attached = Arc::new(Attached::open(self)?);
        *place = Some(Arc::clone(&attached));
        Ok(attached)
    }

    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let attached = self.process.get().lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(attached) = attached {
            attached.signal.wake(News::ANY);
        }
    }

    /// Whether whoever waits until then, or for ever, is to give up.
    fn gives_up(&self, deadline: Option<Instant>) -> bool {
        self.is_closed() || is_past(deadline)
    }
}

impl Drop for End {
    fn drop(&mut self) {
        End::close(self);
    }
}

impl Attached {
    fn open(end: &End) -> Result<Self> {
        let place = &*end.place;
        let last = Last(Arc::clone(&end.place)); // outlives the session, also when something fails
        let session = Session::open(&place.root, &place.name, false)?;
        check_file_system(&place.root)?;
        let failed = |errno| io(JOIN, errno).with("directory", session.path.display());
        let signal = Signal::open(&session).map_err(failed)?;
        let until = Instant::now().checked_add(PATIENCE);
        let mut joined = Vec::new();
        for topic in &end.topics {
            let ring = Handle::open(&session, &file_name(topic)).map_err(failed)?;
            let locked = ring.lock(JOIN, place.capacity, || end.gives_up(until))?;
            end.check_open(JOIN)?;
            let mut locked = locked.ok_or_else(|| {
                Error::new(
                    ErrorKind::Timeout,
                    JOIN,
                    "another process has stopped while it used the topic",
                )
                .with("topic", topic)
                .with_hint("let it go on, or end it")
            })?;
            let place = locked.join(group_id(&end.group))?;
            drop(locked);
            joined.push(Joined { ring, place, news: News::message(topic) });
        }
        Ok(Self { joined, rings: Mutex::default(), signal, session, _last: last })
    }

    /// The ring of a topic to publish to.
    fn ring(&self, topic: &str) -> Result<Arc<Handle>> {
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        rings.get(topic, || {
            Handle::open(&self.session, &file_name(topic))
                .map_err(|errno| io(PUBLISH, errno).with("topic", topic))
        })
    }
}

impl Publisher for End {
    fn publish(&self, topic: &str, message: &[u8], deadline: Option<Instant>) -> Result<()> {
        check_topic(topic)?;
        let attached = self.attached(PUBLISH)?;
        let ring = attached.ring(topic)?;
        let len = message.len() as u64;
        loop {
            let seen = attached.signal.now();
            let locked = ring.lock(PUBLISH, self.place.capacity, || self.gives_up(deadline))?;
            self.check_open(PUBLISH)?;
            let Some(mut locked) = locked else {
                return Err(full(topic, "another process has stopped while it used the topic"));
            };
            check_size(&locked.header, topic, len)?;
            if locked.make_room(len)? {
                let is_awaited = locked.append(message)?;
                drop(locked);
                if is_awaited {
                    attached.signal.wake(News::message(topic));
                }
                return Ok(());
            }
            drop(locked);
            if is_past(deadline) {
                return Err(full(topic, "the topic is full"));
            }
            attached.signal.wait(seen, News::room(topic), deadline);
        }
    }

    fn flush(&self, _deadline: Option<Instant>) -> Result<()> {
        self.check_open("flush a publisher") // all that was published is in its ring
    }

    fn close(&self) -> Result<()> {
        End::close(self);
        Ok(())
    }
}

impl Subscriber for End {
    fn receive(&self, deadline: Option<Instant>) -> Result<Option<Delivery>> {
        let attached = self.attached(RECEIVE)?;
        let group = group_id(&self.group);
        let count = attached.joined.len();
        loop {
            let seen = attached.signal.now();
            let start = self.turn.fetch_add(1, Ordering::Relaxed);
            for turn in 0..count {
                let at = start.wrapping_add(turn) % count;
                let Joined { ring, place, .. } = &attached.joined[at];
                let locked = ring.lock(RECEIVE, self.place.capacity, || self.gives_up(deadline))?;
                self.check_open(RECEIVE)?;
                let Some(mut locked) = locked else {
                    continue;
                };
                let taken = locked.take(*place, group)?;
                drop(locked);
                if let Some((message, is_awaited)) = taken {
                    if is_awaited {
                        attached.signal.wake(News::room(&self.topics[at]));
                    }
                    return Ok(Some(Delivery { message, tag: Tag::default(), attempts: 1 }));
                }
            }
            self.check_open(RECEIVE)?;
            if is_past(deadline) {
                return Ok(None);
            }
            let news = attached.joined.iter().map(|joined| joined.news).reduce(News::or);
            attached.signal.wait(seen, news.unwrap_or(News::ANY), deadline);
        }
    }

    fn acknowledge(&self, _tags: &[Tag]) -> Result<()> {
        self.check_open("acknowledge a message")
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtMostOnce
    }

    fn group(&self) -> &str {
        &self.group
    }

    fn close(&self) -> Result<()> {
        End::close(self);
        Ok(())
    }
}

fn check_size(header: &Header, topic: &str, len: u64) -> Result<()> {
    if len <= header.largest() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Config,
        PUBLISH,
        "the message is larger than half of the topic's ring",
    )
    .with("topic", topic)
    .with("bytes", len)
    .with("largest", header.largest())
    .with_hint("store the object and publish its key, or give the broker a larger capacity"))
}
