//! A wrapper that counts what passes through it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::buffer::Buffer;
use crate::connectors::{Capabilities, Connector, ConnectorConfig, GetOptions, PutOptions};
use crate::error::Result;
use crate::key::Key;
use crate::payload::Parts;

/// Counts the calls to a connector and the bytes they move.
///
/// A batch counts as one call per object. Bytes count when the call succeeds; a mapped object
/// counts in full.
///
/// ```
/// use proxystore::connectors::memory::MemoryConnector;
/// use proxystore::connectors::{Connector, PutOptions};
/// use proxystore::payload::Parts;
/// use proxystore::testkit::Counting;
///
/// let connector = Counting::new(MemoryConnector::new("counted")?);
/// connector.put(&Parts::from(&[0; 100][..]), &PutOptions::default())?;
/// assert_eq!((connector.counts().puts, connector.counts().bytes_put), (1, 100));
/// # Ok::<(), proxystore::Error>(())
/// ```
#[derive(Debug)]
pub struct Counting<C> {
    connector: C,
    tally: Arc<Tally>,
}

/// What has passed through a [`Counting`] connector so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Objects put, batches included.
    pub puts: u64,
    /// Objects asked for: `get`, `get_batch` and `get_into`.
    pub gets: u64,
    /// Calls to `exists`.
    pub exists: u64,
    /// Calls to `evict`.
    pub evicts: u64,
    /// Calls to `wait`.
    pub waits: u64,
    /// Calls to `new_key`.
    pub new_keys: u64,
    /// Calls to `allocate`.
    pub allocates: u64,
    /// Objects passed to `expire`.
    pub expires: u64,
    /// Calls to `close`.
    pub closes: u64,
    /// Bytes stored.
    pub bytes_put: u64,
    /// Bytes received.
    pub bytes_got: u64,
}

#[derive(Debug, Default)]
struct Tally {
    puts: AtomicU64,
    gets: AtomicU64,
    exists: AtomicU64,
    evicts: AtomicU64,
    waits: AtomicU64,
    new_keys: AtomicU64,
    allocates: AtomicU64,
    expires: AtomicU64,
    closes: AtomicU64,
    bytes_put: AtomicU64,
    bytes_got: AtomicU64,
}

fn add(to: &AtomicU64, count: usize) {
    to.fetch_add(count as u64, Ordering::Relaxed);
}

impl<C> Counting<C> {
    /// Wraps a connector, counting from zero.
    pub fn new(connector: C) -> Self {
        Self { connector, tally: Arc::default() }
    }

    /// What has passed so far.
    pub fn counts(&self) -> Counts {
        self.counter()()
    }

    /// A function that tells what has passed so far, for when the connector is given away.
    pub fn counter(&self) -> impl Fn() -> Counts + Send + Sync + use<C> {
        let tally = Arc::clone(&self.tally);
        move || {
            let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
            Counts {
                puts: read(&tally.puts),
                gets: read(&tally.gets),
                exists: read(&tally.exists),
                evicts: read(&tally.evicts),
                waits: read(&tally.waits),
                new_keys: read(&tally.new_keys),
                allocates: read(&tally.allocates),
                expires: read(&tally.expires),
                closes: read(&tally.closes),
                bytes_put: read(&tally.bytes_put),
                bytes_got: read(&tally.bytes_got),
            }
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl<C: Connector> Connector for Counting<C> {
    fn put(&self, parts: &Parts<'_>, options: &PutOptions) -> Result<Key> {
        add(&self.tally.puts, 1);
        let key = self.connector.put(parts, options)?;
        add(&self.tally.bytes_put, parts.len());
        Ok(key)
    }

    fn get(&self, key: &Key, options: &GetOptions) -> Result<Option<Buffer>> {
        add(&self.tally.gets, 1);
        let bytes = self.connector.get(key, options)?;
        add(&self.tally.bytes_got, bytes.as_ref().map_or(0, |bytes| bytes.len()));
        Ok(bytes)
    }

    fn exists(&self, key: &Key) -> Result<bool> {
        add(&self.tally.exists, 1);
        self.connector.exists(key)
    }

    fn evict(&self, key: &Key) -> Result<()> {
        add(&self.tally.evicts, 1);
        self.connector.evict(key)
    }

    fn new_key(&self) -> Result<Key> {
        add(&self.tally.new_keys, 1);
        self.connector.new_key()
    }

    fn close(&self, clear: bool) -> Result<()> {
        add(&self.tally.closes, 1);
        self.connector.close(clear)
    }

    fn config(&self) -> ConnectorConfig {
        self.connector.config()
    }

    fn capabilities(&self) -> Capabilities {
        self.connector.capabilities()
    }

    fn wait(&self, key: &Key, deadline: Option<Instant>) -> Result<bool> {
        add(&self.tally.waits, 1);
        self.connector.wait(key, deadline)
    }

    fn get_into(&self, key: &Key, range: Option<Range<u64>>, target: &mut [u8]) -> Result<bool> {
        add(&self.tally.gets, 1);
        let found = self.connector.get_into(key, range, target)?;
        add(&self.tally.bytes_got, if found { target.len() } else { 0 });
        Ok(found)
    }

    fn put_batch(&self, objects: &[Parts<'_>], options: &PutOptions) -> Result<Vec<Key>> {
        add(&self.tally.puts, objects.len());
        let keys = self.connector.put_batch(objects, options)?;
        add(&self.tally.bytes_put, objects.iter().map(Parts::len).sum());
        Ok(keys)
    }

    fn get_batch(&self, keys: &[Key], options: &GetOptions) -> Result<Vec<Option<Buffer>>> {
        add(&self.tally.gets, keys.len());
        let found = self.connector.get_batch(keys, options)?;
        add(&self.tally.bytes_got, found.iter().flatten().map(|bytes| bytes.len()).sum());
        Ok(found)
    }

    fn expire(&self, keys: &[Key], ttl: Option<Duration>) -> Result<()> {
        add(&self.tally.expires, keys.len());
        self.connector.expire(keys, ttl)
    }

    fn allocate(&self, len: usize) -> Result<Buffer> {
        add(&self.tally.allocates, 1);
        self.connector.allocate(len)
    }
}
