//! From a configuration to a connector.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Connector, ConnectorConfig, multi};
use crate::error::{Error, ErrorKind, Result};

type Opener = fn(&ConnectorConfig) -> Result<Arc<dyn Connector>>;

const BUILT_IN: &[(&str, Opener)] = &[
    ("memory", |config| Ok(Arc::new(super::memory::MemoryConnector::open(config)?))),
    ("file", |config| Ok(Arc::new(super::file::FileConnector::open(config)?))),
    ("shm", |config| Ok(Arc::new(super::shm::ShmConnector::open(config)?))),
    ("multi", |config| Ok(Arc::new(super::multi::MultiConnector::open(config)?))),
    #[cfg(feature = "endpoint")]
    ("endpoint", |config| Ok(Arc::new(super::endpoint::EndpointConnector::open(config)?))),
    #[cfg(feature = "redis")]
    ("redis", open_redis),
    #[cfg(feature = "redis")]
    ("rediss", open_redis),
    #[cfg(feature = "redis")]
    ("redis+unix", open_redis),
    #[cfg(feature = "redis")]
    ("redis+cluster", open_redis),
    #[cfg(feature = "redis")]
    ("rediss+cluster", open_redis),
];

#[cfg(feature = "redis")]
fn open_redis(config: &ConnectorConfig) -> Result<Arc<dyn Connector>> {
    Ok(Arc::new(super::redis::RedisConnector::open(config)?))
}

/// Opens the connector of a configuration.
///
/// # Errors
/// [`ErrorKind::Config`] for an unknown kind, else what opening the channel fails with.
pub fn open(config: &ConnectorConfig) -> Result<Arc<dyn Connector>> {
    let kind = config.kind();
    if let Some((_, opener)) = BUILT_IN.iter().find(|(name, _)| *name == kind) {
        return opener(config);
    }
    let known: Vec<_> = BUILT_IN.iter().map(|(name, _)| format!("{name}:")).collect();
    Err(Error::new(ErrorKind::Config, "open a channel", "its kind is unknown")
        .with("url", super::without_credentials(&config.url))
        .with_hint(format!("this build has {}", known.join(", "))))
}

/// Whether this build has channels of this kind.
pub(super) fn is_known(kind: &str) -> bool {
    BUILT_IN.iter().any(|(name, _)| *name == kind)
}

/// The URL as the connector of its kind writes it, where that may differ.
pub(super) fn identity(url: &str) -> Cow<'_, str> {
    #[cfg(feature = "redis")]
    if let Some(url) = super::redis::identity(url) {
        return url.into();
    }
    #[cfg(feature = "endpoint")]
    if let Some(url) = super::endpoint::identity(url) {
        return url.into();
    }
    if let Ok(mut parts) = multi::parts_of(&ConnectorConfig::new(url)) {
        for part in &mut parts {
            part.channel.url = identity(&part.channel.url).into_owned();
        }
        return multi::config_of(&parts).url.into();
    }
    url.into()
}
