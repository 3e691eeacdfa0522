//! Brokers: each carries the messages of streams over one kind of channel.
//!
//! A broker knows topics and messages, never user types: what a message says is the stream's affair
//! ([`patterns::stream`](crate::patterns::stream)). Every broker keeps this contract;
//! `testkit::brokers` tests it line by line.
//!
//! 1. What is published arrives, byte for byte, at any size from 0 bytes up to what the broker takes;
//!    a larger message is refused by `publish` with an error of kind `Config`.
//! 2. Messages of one publisher to one topic arrive in the order they were published, except what is
//!    delivered again.
//! 3. A subscriber gets the messages of its topics and of no other.
//! 4. `receive` returns as soon as there is a message, and `None` when its time is up. It looks at
//!    least once.
//! 5. When `flush` returns, the broker has everything that was published before: the publisher may
//!    be killed, and what it published arrives.
//! 6. Subscribers share the messages of a topic as [`Traits::sharing`] says.
//! 7. On brokers that deliver [at least once](Guarantee::AtLeastOnce), what is published before the
//!    first subscriber comes waits for it.
//! 8. On these, what a subscriber did not acknowledge is delivered to its group again, once it was
//!    closed, or [`SubscribeOptions::redeliver_after`] its delivery; `attempts` tells. What it
//!    acknowledged is not.
//! 9. After `close` every call is an error of kind `Closed`, and closing again is fine; `close` ends
//!    a `receive` or `publish` that another thread waits in.
//! 10. All calls may come from many threads at once.
//! 11. A topic that is empty, longer than 200 bytes, or has control characters is refused with an
//!     error of kind `Config`, as are subscriptions to no topic, or of a group without a name. All other
//!     topics are usable, whatever the broker's own names may be made of.
//! 12. A broker that cannot be reached is tried again until the time is up, and no longer; the error
//!     says which it is. One that comes back is used again without the caller's help.

#[cfg(feature = "kafka")]
pub mod kafka;
pub mod memory;
#[cfg(feature = "nats")]
pub mod nats;
mod open;
mod patience;
#[cfg(feature = "redis")]
pub mod redis;
pub mod shm;
#[cfg(feature = "zmq")]
pub mod zmq;

use std::fmt;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};

pub use open::open;
pub use patience::{PATIENCE, patiently};

/// The group of subscribers that name none.
pub const DEFAULT_GROUP: &str = "proxystore";

const LONGEST_TOPIC: usize = 200;

/// Nobody needs to fetch more ahead.
const MOST_PREFETCHED: usize = 1 << 16;

/// Nobody waits for longer, and clocks can bear it.
const LONGEST_REDELIVERY: Duration = Duration::from_hours(10 * 365 * 24);

/// A place where messages are published and delivered. The module documentation is the contract.
pub trait Broker: fmt::Debug + Send + Sync + 'static {
    /// What this kind of broker promises.
    fn traits(&self) -> Traits;

    /// A new end that publishes, to any topic.
    fn publisher(&self) -> Result<Box<dyn Publisher>>;

    /// A new end that receives what is published to some topics.
    fn subscriber(
        &self,
        topics: &[&str],
        options: &SubscribeOptions,
    ) -> Result<Box<dyn Subscriber>>;
}

/// The end of a broker that publishes.
pub trait Publisher: fmt::Debug + Send + Sync + 'static {
    /// Publishes a message. It is on its way when this returns, and with the broker when a later
    /// [`flush`](Self::flush) returns; a broker that is full makes it wait until `deadline`.
    fn publish(&self, topic: &str, message: &[u8], deadline: Option<Instant>) -> Result<()>;

    /// Waits until the broker has everything that was published.
    fn flush(&self, deadline: Option<Instant>) -> Result<()>;

    /// Flushes, for a few seconds at most, and releases the publisher.
    fn close(&self) -> Result<()>;
}

/// The end of a broker that receives.
pub trait Subscriber: fmt::Debug + Send + Sync + 'static {
    /// The next message; `None` when `deadline` passes first.
    fn receive(&self, deadline: Option<Instant>) -> Result<Option<Delivery>>;

    /// Says that messages were dealt with, so that they are not delivered again. Does nothing on
    /// brokers that deliver at most once. Acknowledging again is fine.
    fn acknowledge(&self, tags: &[Tag]) -> Result<()>;

    /// What its broker promises.
    fn guarantee(&self) -> Guarantee;

    /// The group it is of, whether or not the broker has groups.
    fn group(&self) -> &str;

    /// Gives back what was not acknowledged, where the broker takes it, and releases the subscriber.
    fn close(&self) -> Result<()>;
}

/// What a kind of broker promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traits {
    /// Whether what is lost on the way comes again.
    pub guarantee: Guarantee,
    /// Who gets a message when several subscribe.
    pub sharing: Sharing,
    /// Other processes can reach it.
    pub cross_process: bool,
}

/// Whether what is lost on the way comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarantee {
    /// A message is delivered once, or is lost when its subscriber dies.
    AtMostOnce,
    /// A message is delivered until it is acknowledged.
    AtLeastOnce,
}

/// Who gets a message when several subscribe to its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Everyone who subscribes at the time it is published.
    Broadcast,
    /// One of all subscribers.
    Queue,
    /// One subscriber of each [group](SubscribeOptions::group).
    Groups,
}

/// How to subscribe; start from `SubscribeOptions::default()`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SubscribeOptions {
    /// Subscribers of one group share the messages; every group gets them all. It must not be empty;
    /// otherwise, brokers without groups do not look at it.
    pub group: String,
    /// How many messages may be fetched before they are asked for: more are faster, and fewer share
    /// the work more evenly. Where messages are delivered at most once, those of a killed subscriber
    /// are lost; where at least once, those that wait here for longer than `redeliver_after` go to
    /// another subscriber.
    pub prefetch: usize,
    /// After this time, a message that was not acknowledged is delivered to another subscriber. It
    /// runs from the delivery, or from when the message was fetched where that is earlier (see
    /// `prefetch`): it has to do for all messages that may wait in front of one. More than ten years
    /// are ten years.
    pub redeliver_after: Duration,
}

impl Default for SubscribeOptions {
    fn default() -> Self {
        Self {
            group: DEFAULT_GROUP.to_owned(),
            prefetch: 1,
            redeliver_after: Duration::from_mins(1),
        }
    }
}

/// A message as it is delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// What was published.
    pub message: Vec<u8>,
    /// By which it is acknowledged.
    pub tag: Tag,
    /// The how-manieth delivery this is, from 1 on; brokers that cannot count say 2 for any that is
    /// not the first.
    pub attempts: u32,
}

/// What a subscriber knows a delivery by; empty on brokers without acknowledgement.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Tag(pub Vec<u8>);

/// Refuses what no broker takes for a topic.
pub(crate) fn check_topic(topic: &str) -> Result<()> {
    let cause = match topic {
        "" => "the topic has no name",
        _ if topic.len() > LONGEST_TOPIC => "the topic's name is longer than 200 bytes",
        _ if topic.contains(char::is_control) => "the topic's name has control characters",
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::Config, "use a topic", cause)
        .with("topic", format_args!("{topic:?}"))
        .with_hint("name topics by 1 to 200 bytes of plain text"))
}

/// Refuses what no broker can subscribe to; the options, cut to what brokers and clocks can bear.
pub(crate) fn check_subscription(
    topics: &[&str],
    options: &SubscribeOptions,
) -> Result<SubscribeOptions> {
    topics.iter().try_for_each(|topic| check_topic(topic))?;
    let wrong = |cause, hint| {
        Err(Error::new(ErrorKind::Config, "subscribe to topics", cause).with_hint(hint))
    };
    if topics.is_empty() {
        return wrong("there are no topics", "name one at least");
    }
    if options.group.is_empty() {
        return wrong("the group has no name", "name it, or leave the default");
    }
    Ok(SubscribeOptions {
        group: options.group.clone(),
        prefetch: options.prefetch.clamp(1, MOST_PREFETCHED),
        redeliver_after: options.redeliver_after.min(LONGEST_REDELIVERY),
    })
}

/// Whether the time is up.
pub(crate) fn is_past(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| deadline <= Instant::now())
}

/// The error of an end that was closed.
pub(crate) fn closed(operation: &'static str) -> Error {
    Error::new(ErrorKind::Closed, operation, "it was closed")
        .with_hint("make another one of the broker")
}

/// The error of an end that another process made.
#[cfg(any(feature = "kafka", feature = "nats"))]
pub(crate) fn elsewhere(operation: &'static str) -> Error {
    Error::new(ErrorKind::Unsupported, operation, "it was made before this process was forked")
        .with_hint("make another one of the broker in this process")
}

/// The error of a full broker whose time is up.
pub(crate) fn full(topic: &str, cause: &'static str) -> Error {
    Error::new(ErrorKind::Timeout, "publish a message", cause)
        .with("topic", topic)
        .with_hint("its subscribers are slower than its publishers: add some, or wait longer")
}
