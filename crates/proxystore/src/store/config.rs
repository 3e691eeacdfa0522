//! From what a store can be opened, anywhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::connectors::{Connector, ConnectorConfig, Value, without_credentials};
use crate::error::{Error, ErrorKind, Result};
use crate::payload::Compression;
use crate::store::protection::{CHECKSUMS, COMPRESSION, SEAL, SIGNED};
use crate::store::{CacheLimits, SealMode, Store};
use crate::trust::sites::SITES;

const CACHE_ENTRIES: &str = "cache_entries";
const CACHE_BYTES: &str = "cache_bytes";
const METRICS: &str = "metrics";
const INLINE_BYTES: &str = "inline_bytes";

/// Name, channel and local settings of a store.
///
/// Name and channel are the store's identity; the settings may differ between the processes that
/// use it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoreConfig {
    /// The name under which a process registers it.
    pub name: String,
    /// How to reach the bytes.
    pub connector: ConnectorConfig,
    /// Local settings that differ from the defaults.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, Value>,
}

impl StoreConfig {
    /// A configuration with default settings.
    pub fn new(name: impl Into<String>, connector: ConnectorConfig) -> Self {
        Self { name: name.into(), connector, settings: BTreeMap::new() }
    }

    /// How much the cache may hold.
    pub fn cache_limits(&self) -> CacheLimits {
        let default = CacheLimits::default();
        CacheLimits {
            entries: self.size(CACHE_ENTRIES, default.entries),
            bytes: self.size(CACHE_BYTES, default.bytes),
        }
    }

    /// Payloads up to this size travel in references instead of the channel.
    pub fn inline_bytes(&self) -> usize {
        self.size(INLINE_BYTES, 0)
    }

    fn size(&self, name: &str, default: usize) -> usize {
        match self.settings.get(name) {
            Some(Value::Int(size)) => usize::try_from(*size).unwrap_or(default),
            _ => default,
        }
    }

    /// Whether operations are counted and timed.
    pub fn has_metrics(&self) -> bool {
        self.settings.get(METRICS) == Some(&Value::Bool(true))
    }

    /// Checks that `other` means the same store.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming both channels.
    pub fn check_same(&self, other: &Self) -> Result<()> {
        if self.connector.same_channel(&other.connector) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Config,
            "find the store of a proxy",
            "a store of that name uses another channel",
        )
        .with("store", &self.name)
        .with("open channel", without_credentials(&self.connector.url))
        .with("wanted channel", without_credentials(&other.connector.url))
        .with_hint("give stores on different channels different names"))
    }
}

/// Builds a store; from [`Store::builder`].
#[derive(Debug)]
pub struct StoreBuilder {
    config: StoreConfig,
    connector: Arc<dyn Connector>,
}

impl StoreBuilder {
    pub(super) fn new(name: String, connector: Arc<dyn Connector>) -> Self {
        Self { config: StoreConfig::new(name, connector.config()), connector }
    }

    /// How much the cache may hold; `entries: 0` turns it off.
    #[must_use]
    pub fn cache(self, limits: CacheLimits) -> Self {
        let default = CacheLimits::default();
        self.size(CACHE_ENTRIES, limits.entries, default.entries).size(
            CACHE_BYTES,
            limits.bytes,
            default.bytes,
        )
    }

    /// Proxied objects whose payload (with its head of 80 bytes and more) is at most `bytes` long
    /// travel in their references: no channel, nothing to evict. 0 turns it off.
    #[must_use]
    pub fn inline_bytes(self, bytes: usize) -> Self {
        self.size(INLINE_BYTES, bytes, 0)
    }

    fn size(self, name: &str, value: usize, default: usize) -> Self {
        let number = Value::Int(i64::try_from(value).unwrap_or(i64::MAX));
        self.setting(name, (value != default).then_some(number))
    }

    /// Whether stored parts have checksums, by which damage is noticed when they are read. By default
    /// they have on channels whose bytes are copied out of them: there it costs little.
    #[must_use]
    pub fn checksums(self, on: bool) -> Self {
        self.setting(CHECKSUMS, Some(Value::Bool(on)))
    }

    /// Compresses objects that become smaller by it, for slow channels (feature `compress`).
    #[must_use]
    pub fn compression(self, how: Option<Compression>) -> Self {
        self.setting(COMPRESSION, how.map(|how| Value::Text(how.to_string())))
    }

    /// Seals objects: whoever operates the channel can neither read nor forge them (feature `seal`).
    ///
    /// ```
    /// # #[cfg(feature = "seal")] fn main() -> proxystore::Result<()> {
    /// use std::sync::Arc;
    /// use proxystore::connectors::{Connector, GetOptions, memory::MemoryConnector};
    /// use proxystore::store::{SealMode, Store};
    ///
    /// let channel = Arc::new(MemoryConnector::new("sealed-example")?);
    /// let store = Store::builder("sealed", channel.clone()).seal(Some(SealMode::Sealed)).build();
    /// let key = store.put("for your eyes only")?;
    /// assert_eq!(store.get::<String>(&key)?.as_deref(), Some("for your eyes only"));
    ///
    /// let stored = channel.get(&key, &GetOptions::default())?.expect("just stored");
    /// assert!(!stored.windows(4).any(|bytes| bytes == b"eyes"));
    /// # Ok(()) }
    /// # #[cfg(not(feature = "seal"))] fn main() {}
    /// ```
    #[must_use]
    pub fn seal(self, mode: Option<SealMode>) -> Self {
        self.setting(
            SEAL,
            mode.map(|mode| match mode {
                SealMode::Sealed => Value::Bool(true),
                SealMode::Signed => Value::Text(SIGNED.to_owned()),
            }),
        )
    }

    fn setting(mut self, name: &str, value: Option<Value>) -> Self {
        match value {
            Some(value) => self.config.settings.insert(name.to_owned(), value),
            None => self.config.settings.remove(name),
        };
        self
    }

    /// Counts and times operations.
    #[must_use]
    pub fn metrics(self, on: bool) -> Self {
        self.setting(METRICS, on.then_some(Value::Bool(true)))
    }

    /// Objects may be resolved only where the name of the host or of the site (the environment
    /// variable `PROXYSTORE_SITE`) matches one of these patterns; see [`trust`](crate::trust).
    ///
    /// `*` stands for any text and `?` for one character; case does not count. An empty list permits
    /// no place. The policy travels in references.
    ///
    /// ```
    /// # fn main() -> proxystore::Result<()> {
    /// use std::sync::Arc;
    /// use proxystore::connectors::memory::MemoryConnector;
    /// use proxystore::{ErrorKind, Store};
    /// let connector = Arc::new(MemoryConnector::new("elsewhere")?);
    /// let store = Store::builder("elsewhere", connector).sites(["*.site-far-away"]).build();
    /// let key = store.put("secret")?;
    /// assert_eq!(store.get::<String>(&key).unwrap_err().kind(), ErrorKind::Forbidden);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn sites<T: Into<String>>(self, patterns: impl IntoIterator<Item = T>) -> Self {
        let patterns = patterns.into_iter().map(|pattern| Value::Text(pattern.into()));
        self.setting(SITES, Some(Value::List(patterns.collect())))
    }

    /// Adds local settings of a bridge to another language; they travel in references.
    #[must_use]
    pub fn settings(mut self, settings: BTreeMap<String, Value>) -> Self {
        self.config.settings.extend(settings);
        self
    }

    /// The store; register it to be found by proxies.
    pub fn build(self) -> Store {
        Store::assemble(self.config, self.connector)
    }
}
