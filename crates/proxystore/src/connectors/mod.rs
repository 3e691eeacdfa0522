//! Connectors: each moves bytes to and from one kind of channel.
//!
//! A connector knows keys and bytes, never user types. Every connector, and every wrapper around
//! one, keeps this contract; `testkit` has one test per line.
//!
//! 1. What was put is got back, byte for byte, at any size from 0 bytes on, however many parts.
//! 2. Every put without a key makes a key of its own.
//! 3. An absent key is `None` for `get`, `false` for `exists`, and no error for `evict`.
//! 4. After `evict` the object is absent; evicting again is no error; other objects stay.
//! 5. Bytes that `get` returns are private to the caller: writing to them never changes the
//!    stored object or anyone else's view. [`Access::ReadOnly`] memory cannot be written to.
//! 6. Bytes that `get` returned stay valid and unchanged after eviction, later puts and `close`.
//! 7. A stored object never changes: what the caller does to its own bytes after `put` is not seen.
//! 8. A reader never sees half an object, and a put that fails leaves nothing behind.
//! 9. An object whose stored bytes were cut short or lengthened is an error of kind `Corrupt`,
//!    never a shorter object. (Bytes altered in place are noticed in the head of a payload, which has
//!    a checksum, and not in its parts.)
//! 10. A range returns exactly those bytes; one that reaches past the end is an error of kind
//!     `Config`.
//! 11. `get_into` fills the caller's memory; a wrong length is an error of kind `Config`.
//! 12. A batch does what the single calls do, in order; an empty batch is fine.
//! 13. A key made by `new_key` is absent until `put` with [`PutOptions::key`] fills it. Filling it
//!     again makes a new generation: `latest` keys see the newer object, buffers of the older one
//!     stay as they are, and the older generation's key is absent: evicting it leaves the newer
//!     object alone, and no later filling brings it back.
//! 14. `wait` returns true as soon as the object is there, false when the time is up. It looks at
//!     least once, and `close` ends it with an error of kind `Closed`.
//! 15. A connector opened from `config()` reaches the same objects.
//! 16. After `close` every call is an error of kind `Closed`, and closing again is fine. Other
//!     connectors of the channel go on; `close` with `clear` removes the channel's objects.
//! 17. All calls may come from many threads at once.
//! 18. A key whose id is not usable as a name is refused with an error of kind `Config`.
//! 19. An object put with a time to live is absent when that has passed, for every process; `expire`
//!     gives it another, or none, and gives it to that generation alone. An expired object does not
//!     come back. Evicted, replaced and expired objects alike leave their readers' buffers alone.
//!     A channel that has no times to live says so with an error of kind `Unsupported`.

mod credentials;
#[cfg(feature = "endpoint")]
pub mod endpoint;
mod expiry;
pub mod file;
#[cfg(any(feature = "endpoint", feature = "redis"))]
mod given;
pub mod memory;
pub mod multi;
mod notify;
mod open;
pub(crate) mod percent;
#[cfg(feature = "redis")]
pub mod redis;
pub mod shm;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::buffer::Buffer;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::payload::Parts;

pub use credentials::without_credentials;
pub use open::open;
pub use value::Value;

/// Moves bytes to and from one kind of channel. The module documentation is the contract.
///
/// Implementors write the first eight methods; the others have defaults that are correct on every
/// channel, and [`Capabilities`] says which the connector does better.
pub trait Connector: fmt::Debug + Send + Sync + 'static {
    /// Stores the parts, one after the other, as one object.
    fn put(&self, parts: &Parts<'_>, options: &PutOptions) -> Result<Key>;

    /// The bytes stored under a key, or `None`.
    fn get(&self, key: &Key, options: &GetOptions) -> Result<Option<Buffer>>;

    /// Whether there is an object under the key.
    fn exists(&self, key: &Key) -> Result<bool>;

    /// Removes the object under the key, if any.
    fn evict(&self, key: &Key) -> Result<()>;

    /// Makes a key to be filled later by `put` with [`PutOptions::key`].
    fn new_key(&self) -> Result<Key>;

    /// Releases the connector; with `clear`, removes the channel's objects too.
    fn close(&self, clear: bool) -> Result<()>;

    /// From which an equal connector can be opened anywhere.
    fn config(&self) -> ConnectorConfig;

    /// What this connector does natively.
    fn capabilities(&self) -> Capabilities;

    /// Waits until there is an object under the key; false when `deadline` passes first.
    ///
    /// The default asks again and again, at intervals that grow from 1 to 100 ms.
    fn wait(&self, key: &Key, deadline: Option<Instant>) -> Result<bool> {
        notify::poll_for(deadline, || self.exists(key))
    }

    /// Copies the bytes of `range` (all of them when `None`) into `target`, whose length must
    /// match; false when there is no such object.
    fn get_into(&self, key: &Key, range: Option<Range<u64>>, target: &mut [u8]) -> Result<bool> {
        let options = GetOptions { access: Access::ReadOnly, range, ..GetOptions::default() };
        let Some(bytes) = self.get(key, &options)? else {
            return Ok(false);
        };
        if bytes.len() != target.len() {
            return Err(wrong_length(key, bytes.len(), target.len()));
        }
        target.copy_from_slice(&bytes);
        Ok(true)
    }

    /// `put` for many objects, keys in the same order. When one fails, those before it are evicted.
    fn put_batch(&self, objects: &[Parts<'_>], options: &PutOptions) -> Result<Vec<Key>> {
        let mut keys = Vec::with_capacity(objects.len());
        for parts in objects {
            match self.put(parts, options) {
                Ok(key) => keys.push(key),
                Err(error) => {
                    for key in &keys {
                        let _ = self.evict(key); // the first error is the one to report
                    }
                    return Err(error);
                }
            }
        }
        Ok(keys)
    }

    /// `get` for many keys, in the same order.
    fn get_batch(&self, keys: &[Key], options: &GetOptions) -> Result<Vec<Option<Buffer>>> {
        keys.iter().map(|key| self.get(key, options)).collect()
    }

    /// Lets the objects vanish `ttl` from now, or only when evicted (`None`); absent ones, and those
    /// that expired, are passed over.
    fn expire(&self, keys: &[Key], ttl: Option<Duration>) -> Result<()> {
        let _ = (keys, ttl);
        Err(unsupported("give objects a time to live", &self.config()))
    }

    /// Memory inside the channel: putting a part that starts there copies nothing.
    ///
    /// The buffer starts on a page of its own. Once its bytes were put, they never change again:
    /// later writes through views of the buffer stay private to the writer.
    fn allocate(&self, len: usize) -> Result<Buffer> {
        let _ = len;
        Err(unsupported("allocate in the channel", &self.config()))
    }
}

/// What to do beside storing; start from `PutOptions::default()`.
#[derive(Debug, Clone, Default)]
pub struct PutOptions {
    /// Store under this key, made by `new_key`, instead of a key of its own.
    pub key: Option<Key>,
    /// Give up with an error of kind `Timeout` after this time. Channels that have nobody to wait
    /// for (`memory`, `shm`) store at once and do not look at it.
    pub deadline: Option<Instant>,
    /// The object vanishes this long after it was put, unless [`Connector::expire`] says otherwise;
    /// a hundred years are for ever. Channels without [`Capabilities::ttl`] refuse it.
    ///
    /// The channel's clock counts: the system's for `memory`, `file` and `shm`, so that setting it
    /// moves the end as well, and hosts that share files had better agree on the time.
    pub ttl: Option<Duration>,
    /// What the object is like, for connectors that choose among channels; others ignore it.
    pub tags: Tags,
}

/// Words that describe an object to the policies of a connector that chooses among channels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tags {
    /// All of these must be among those of the channel.
    pub subset: Vec<String>,
    /// These must contain all of those of the channel.
    pub superset: Vec<String>,
}

/// What to get and how; start from `GetOptions::default()`.
#[derive(Debug, Clone, Default)]
pub struct GetOptions {
    /// Whether the caller wants to write to the bytes.
    pub access: Access,
    /// Only these bytes of the object, counted from its first.
    pub range: Option<Range<u64>>,
    /// Give up with an error of kind `Timeout` after this time. `memory` and `shm` answer at once
    /// and do not look at it.
    pub deadline: Option<Instant>,
}

/// Whether the receiver of bytes wants to write to them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Writable memory of the caller's own; a copy, or pages copied where they are written.
    #[default]
    Private,
    /// Memory that may be shared with others and cannot be written to; the fastest there is.
    ReadOnly,
}

/// What a connector does natively, beyond what the contract asks of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a set of independent facts")]
pub struct Capabilities {
    /// `wait` is woken by an event instead of asking again and again.
    pub event_driven_wait: bool,
    /// A range is read without reading the rest.
    pub range_reads: bool,
    /// `get` maps the stored bytes instead of copying them.
    pub zero_copy_get: bool,
    /// `allocate` gives memory inside the channel.
    pub allocate: bool,
    /// `new_key` makes keys to be filled later.
    pub deferred_keys: bool,
    /// Objects can have a time to live.
    pub ttl: bool,
    /// Other processes on this host reach the objects.
    pub cross_process: bool,
    /// Objects outlive the process that stored them.
    pub survives_process: bool,
}

/// From which a connector can be opened anywhere: where the bytes live, and local settings.
///
/// The URL *identifies* the channel; `options` may differ between processes that use it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct ConnectorConfig {
    /// Scheme and place of the channel, such as `file:///scratch/run7`.
    pub url: String,
    /// Local settings by name.
    pub options: BTreeMap<String, Value>,
}

impl ConnectorConfig {
    /// A configuration without options.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), options: BTreeMap::new() }
    }

    /// The kind of channel: the part of the URL before the first colon.
    pub fn kind(&self) -> &str {
        self.url.split(':').next().unwrap_or_default()
    }

    /// Whether both lead to the same bytes.
    pub fn same_channel(&self, other: &Self) -> bool {
        self.url == other.url || open::identity(&self.url) == open::identity(&other.url)
    }
}

macro_rules! forward {
    ($($holder:ty),*) => {$(
        #[deny(clippy::missing_trait_methods)]
        impl<C: Connector + ?Sized> Connector for $holder {
            fn put(&self, parts: &Parts<'_>, options: &PutOptions) -> Result<Key> {
                (**self).put(parts, options)
            }
            fn get(&self, key: &Key, options: &GetOptions) -> Result<Option<Buffer>> {
                (**self).get(key, options)
            }
            fn exists(&self, key: &Key) -> Result<bool> {
                (**self).exists(key)
            }
            fn evict(&self, key: &Key) -> Result<()> {
                (**self).evict(key)
            }
            fn new_key(&self) -> Result<Key> {
                (**self).new_key()
            }
            fn close(&self, clear: bool) -> Result<()> {
                (**self).close(clear)
            }
            fn config(&self) -> ConnectorConfig {
                (**self).config()
            }
            fn capabilities(&self) -> Capabilities {
                (**self).capabilities()
            }
            fn wait(&self, key: &Key, deadline: Option<Instant>) -> Result<bool> {
                (**self).wait(key, deadline)
            }
            fn get_into(
                &self,
                key: &Key,
                range: Option<Range<u64>>,
                target: &mut [u8],
            ) -> Result<bool> {
                (**self).get_into(key, range, target)
            }
            fn put_batch(&self, objects: &[Parts<'_>], options: &PutOptions) -> Result<Vec<Key>> {
                (**self).put_batch(objects, options)
            }
            fn get_batch(&self, keys: &[Key], options: &GetOptions) -> Result<Vec<Option<Buffer>>> {
                (**self).get_batch(keys, options)
            }
            fn expire(&self, keys: &[Key], ttl: Option<Duration>) -> Result<()> {
                (**self).expire(keys, ttl)
            }
            fn allocate(&self, len: usize) -> Result<Buffer> {
                (**self).allocate(len)
            }
        }
    )*};
}
forward!(Arc<C>, Box<C>);

/// Refuses options the connector does not have, naming those it has.
///
/// # Errors
/// [`ErrorKind::Config`] naming the first unknown option.
pub fn known_options(
    operation: &'static str,
    config: &ConnectorConfig,
    known: &[&str],
) -> Result<()> {
    let Some(unknown) = config.options.keys().find(|name| !known.contains(&name.as_str())) else {
        return Ok(());
    };
    let hint = match known {
        [] => "this connector has no options".to_owned(),
        _ => format!("its options are: {}", known.join(", ")),
    };
    Err(Error::new(ErrorKind::Config, operation, "there is no such option")
        .with("option", format_args!("{unknown:?}"))
        .with("channel", without_credentials(&config.url))
        .with_hint(hint))
}

/// The error every connector gives after `close`.
pub fn closed(operation: &'static str, config: &ConnectorConfig) -> Error {
    Error::new(ErrorKind::Closed, operation, "the connector is closed")
        .with("channel", without_credentials(&config.url))
        .with_hint("open the store again, or close it only after its last use")
}

/// The error for an operation a channel does not have.
pub fn unsupported(operation: &'static str, config: &ConnectorConfig) -> Error {
    Error::new(ErrorKind::Unsupported, operation, "this channel cannot do that")
        .with("channel", without_credentials(&config.url))
}

/// The error for a time to live on a channel that has none.
///
/// # Errors
/// [`ErrorKind::Unsupported`] when `options` ask for one.
pub fn refuse_ttl(options: &PutOptions, config: &ConnectorConfig) -> Result<()> {
    if options.ttl.is_some() {
        return Err(unsupported("give an object a time to live", config));
    }
    Ok(())
}

/// The error for a destination that is not as long as the object.
pub fn wrong_length(key: &Key, object: usize, target: usize) -> Error {
    Error::new(ErrorKind::Config, "get object", "the destination has another length")
        .with("key", key)
        .with("object", object)
        .with("destination", target)
}

/// Checks a range against an object of `size` bytes; `None` means all of it.
pub fn checked_range(key: &Key, range: Option<&Range<u64>>, size: u64) -> Result<Range<u64>> {
    match range {
        None => Ok(0..size),
        Some(range) if range.start <= range.end && range.end <= size => Ok(range.clone()),
        Some(range) => Err(Error::new(
            ErrorKind::Config,
            "get part of an object",
            "the range reaches past the end",
        )
        .with("key", key)
        .with("range", format_args!("{}..{}", range.start, range.end))
        .with("size", size)),
    }
}
