//! From a URL to a broker.

use std::sync::Arc;

use super::Broker;
use crate::connectors::without_credentials;
use crate::error::{Error, ErrorKind, Result};

type Opener = fn(&str) -> Result<Arc<dyn Broker>>;

const BUILT_IN: &[(&str, Opener)] = &[
    ("memory", |url| Ok(Arc::new(super::memory::MemoryBroker::open(url)?))),
    #[cfg(feature = "kafka")]
    ("kafka", |url| Ok(Arc::new(super::kafka::KafkaBroker::open(url)?))),
    #[cfg(feature = "nats")]
    ("nats", |url| Ok(Arc::new(super::nats::NatsBroker::open(url)?))),
    #[cfg(feature = "nats")]
    ("tls", |url| Ok(Arc::new(super::nats::NatsBroker::open(url)?))),
];

/// The broker of a URL. Nothing is connected to before an end is made.
///
/// | URL | broker |
/// | --- | --- |
/// | `memory://NAME` | queues in the memory of this process |
/// | `kafka://HOST:PORT,HOST:PORT` | Kafka (feature `kafka`) |
/// | `nats://HOST:PORT` | NATS JetStream (feature `nats`); `tls://` encrypts |
///
/// # Errors
/// [`ErrorKind::Config`] for a URL that names no broker of this build.
pub fn open(url: &str) -> Result<Arc<dyn Broker>> {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    if let Some((_, opener)) = BUILT_IN.iter().find(|(name, _)| *name == scheme) {
        return opener(url);
    }
    let known: Vec<_> = BUILT_IN.iter().map(|(name, _)| format!("{name}://")).collect();
    Err(Error::new(ErrorKind::Config, "open a broker", "its kind is unknown")
        .with("url", without_credentials(url))
        .with_hint(format!("this build has {}", known.join(", "))))
}
