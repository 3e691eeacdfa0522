//! From a URL to a broker.

use std::sync::Arc;

use super::Broker;
use crate::connectors::without_credentials;
use crate::error::{Error, ErrorKind, Result};

type Opener = fn(&str) -> Result<Arc<dyn Broker>>;

/// By what stands before the first `+` or `:` of a URL, with how such a URL starts.
const BUILT_IN: &[(&str, &str, Opener)] = &[
    ("memory", "memory://", |url| Ok(Arc::new(super::memory::MemoryBroker::open(url)?))),
    ("shm", "shm://", |url| Ok(Arc::new(super::shm::ShmBroker::open(url)?))),
    #[cfg(feature = "redis")]
    ("list", "list+redis://", |url| Ok(Arc::new(super::redis::ListBroker::open(url)?))),
    #[cfg(feature = "redis")]
    ("pubsub", "pubsub+redis://", |url| Ok(Arc::new(super::redis::PubSubBroker::open(url)?))),
    #[cfg(feature = "redis")]
    ("stream", "stream+redis://", |url| Ok(Arc::new(super::redis::StreamBroker::open(url)?))),
    #[cfg(feature = "zmq")]
    ("zmq", "zmq+tcp://", |url| Ok(Arc::new(super::zmq::ZmqBroker::open(url)?))),
    #[cfg(feature = "kafka")]
    ("kafka", "kafka://", |url| Ok(Arc::new(super::kafka::KafkaBroker::open(url)?))),
    #[cfg(feature = "nats")]
    ("nats", "nats://", |url| Ok(Arc::new(super::nats::NatsBroker::open(url)?))),
    #[cfg(feature = "nats")]
    ("tls", "tls://", |url| Ok(Arc::new(super::nats::NatsBroker::open(url)?))),
];

/// The broker of a URL. Nothing is connected to before an end is made.
///
/// | URL | broker |
/// | --- | --- |
/// | `memory://NAME` | queues in the memory of this process |
/// | `shm://NAME` | rings in shared memory, for the processes of this user on this host |
/// | `list+redis://HOST:PORT/DATABASE` | lists of a Redis server: one subscriber gets a message |
/// | `pubsub+redis://HOST:PORT/DATABASE` | channels of a Redis server: all who listen get it |
/// | `stream+redis://HOST:PORT/DATABASE` | streams of a Redis server: groups, and at least once |
/// | `zmq+tcp://HOST:PORT` | ZeroMQ: publishers bind the port, subscribers connect to it (feature `zmq`) |
/// | `kafka://HOST:PORT,HOST:PORT` | Kafka (feature `kafka`) |
/// | `nats://HOST:PORT` | NATS JetStream (feature `nats`); `tls://` encrypts |
///
/// What follows the `+` of those with Redis is any URL of a single Redis server, `rediss://` and
/// `redis+unix://` too (feature `redis`).
///
/// # Errors
/// [`ErrorKind::Config`] for a URL that names no broker of this build.
pub fn open(url: &str) -> Result<Arc<dyn Broker>> {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    let kind = scheme.split('+').next().unwrap_or_default();
    if let Some((_, _, opener)) = BUILT_IN.iter().find(|(name, _, _)| *name == kind) {
        return opener(url);
    }
    let known: Vec<_> = BUILT_IN.iter().map(|(_, start, _)| *start).collect();
    Err(Error::new(ErrorKind::Config, "open a broker", "its kind is unknown")
        .with("url", without_credentials(url))
        .with_hint(format!("this build has {}", known.join(", "))))
}
