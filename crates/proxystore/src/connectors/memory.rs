//! Objects in this process's own memory: `memory://NAME`.
//!
//! Channels are global to the process and told apart by name, so a connector opened from
//! `config()` finds the objects. They stay when connectors are closed, the last one too, until
//! they are evicted or expire, a connector is closed with `clear`, or the process ends. A process forked
//! from this one starts with the objects stored so far; after that each has its own.
#![expect(unsafe_code, reason = "registers handlers with pthread_atfork")]
#![expect(clippy::cast_possible_truncation, reason = "offsets into memory that exists")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64;

use super::expiry::Expiry;
use super::{
    Access, Capabilities, Connector, ConnectorConfig, GetOptions, PutOptions, checked_range,
    closed, known_options, wrong_length,
};
use crate::buffer::Buffer;
use crate::condition::Condition;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, check_id, unique_id};
use crate::payload::Parts;

const SCHEME: &str = "memory://";
const OPEN: &str = "open a memory connector";

/// Generation of objects stored under a key of their own; refills count on from the next.
const FIRST: u64 = 1;
static NEXT_GENERATION: AtomicU64 = AtomicU64::new(FIRST + 1);

/// A connector to a channel in this process's memory.
///
/// ```
/// use proxystore::connectors::memory::MemoryConnector;
/// use proxystore::connectors::{Connector, GetOptions, PutOptions};
/// use proxystore::payload::Parts;
///
/// let connector = MemoryConnector::new("demo")?;
/// let key = connector.put(&Parts::from(&b"hello"[..]), &PutOptions::default())?;
/// let bytes = connector.get(&key, &GetOptions::default())?.expect("just stored");
/// assert_eq!(&bytes[..], b"hello");
/// # Ok::<(), proxystore::Error>(())
/// ```
#[derive(Debug)]
pub struct MemoryConnector {
    channel: Arc<str>,
    closed: AtomicBool,
}

impl MemoryConnector {
    /// A connector to the channel `name`, which need not exist yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the name is not usable as one (see [`check_id`]).
    pub fn new(name: &str) -> Result<Self> {
        check_id(name)?;
        watch_forks();
        sweep();
        Ok(Self { channel: name.into(), closed: AtomicBool::new(false) })
    }

    /// A connector from its configuration: `memory://NAME`, no options.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for another URL or any option.
    pub fn open(config: &ConnectorConfig) -> Result<Self> {
        let name = config.url.strip_prefix(SCHEME).ok_or_else(|| {
            Error::new(ErrorKind::Config, OPEN, "the URL is not of the form memory://NAME")
                .with("url", &config.url)
        })?;
        known_options(OPEN, config, &[])?;
        Self::new(name)
    }

    fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(closed(operation, &self.config()));
        }
        Ok(())
    }

    /// The stored object, shared; nothing is copied under the lock.
    fn find(&self, key: &Key) -> Option<Buffer> {
        shard_of(key.id()).lock().find(&self.channel, key).map(|stored| stored.bytes.clone())
    }
}

impl Connector for MemoryConnector {
    fn put(&self, parts: &Parts<'_>, options: &PutOptions) -> Result<Key> {
        self.check_open("put object")?;
        let (id, generation): (Box<str>, u64) = match &options.key {
            None => (unique_id()?.into(), FIRST),
            Some(key) => {
                check_id(key.id())?;
                (key.id().into(), NEXT_GENERATION.fetch_add(1, Ordering::Relaxed))
            }
        };
        let bytes = parts.to_buffer().into_read_only();
        let key = Key::new(id.clone(), generation, bytes.len() as u64);
        let shard = shard_of(&id);
        let mut state = shard.lock();
        let objects = match state.channels.get_mut(&self.channel) {
            Some(objects) => objects,
            None => state.channels.entry(Arc::clone(&self.channel)).or_default(),
        };
        let expiry = Expiry::after(options.ttl);
        let replaced = objects.insert(id, Stored { generation, expiry, bytes });
        drop(state);
        shard.filled.notify_all();
        drop(replaced); // its memory is given back outside the lock
        sweep_at(expiry);
        sweep();
        Ok(key)
    }

    fn get(&self, key: &Key, options: &GetOptions) -> Result<Option<Buffer>> {
        self.check_open("get object")?;
        check_id(key.id())?;
        let Some(bytes) = self.find(key) else {
            return Ok(None);
        };
        let range = checked_range(key, options.range.as_ref(), bytes.len() as u64)?;
        let part = bytes.slice(range.start as usize..range.end as usize);
        Ok(Some(match options.access {
            Access::ReadOnly => part,
            Access::Private => Buffer::copy_of(&part),
        }))
    }

    fn exists(&self, key: &Key) -> Result<bool> {
        self.check_open("look for object")?;
        check_id(key.id())?;
        Ok(shard_of(key.id()).lock().find(&self.channel, key).is_some())
    }

    fn evict(&self, key: &Key) -> Result<()> {
        self.check_open("evict object")?;
        check_id(key.id())?;
        let mut state = shard_of(key.id()).lock();
        let mut removed = None;
        if let Some(objects) = state.channels.get_mut(&self.channel)
            && objects.get(key.id()).is_some_and(|stored| stored.is_meant(key))
        {
            removed = objects.remove(key.id());
        }
        drop(state);
        drop(removed); // its memory is given back outside the lock
        Ok(())
    }

    fn new_key(&self) -> Result<Key> {
        self.check_open("make a key")?;
        Key::unique()
    }

    fn close(&self, clear: bool) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        for shard in &SHARDS {
            let mut state = shard.lock();
            let removed = if clear { state.channels.remove(&self.channel) } else { None };
            drop(state);
            shard.filled.notify_all();
            drop(removed);
        }
        Ok(())
    }

    fn config(&self) -> ConnectorConfig {
        ConnectorConfig::new(format!("{SCHEME}{}", self.channel))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            event_driven_wait: true,
            range_reads: true,
            zero_copy_get: true,
            allocate: false,
            deferred_keys: true,
            ttl: true,
            cross_process: false,
            survives_process: false,
        }
    }

    fn wait(&self, key: &Key, deadline: Option<Instant>) -> Result<bool> {
        check_id(key.id())?;
        let shard = shard_of(key.id());
        let mut state = shard.lock();
        loop {
            self.check_open("wait for object")?;
            if state.find(&self.channel, key).is_some() {
                return Ok(true);
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(false);
            }
            state = shard.filled.wait(state, deadline);
        }
    }

    fn get_into(&self, key: &Key, range: Option<Range<u64>>, target: &mut [u8]) -> Result<bool> {
        self.check_open("get object")?;
        check_id(key.id())?;
        let Some(bytes) = self.find(key) else {
            return Ok(false);
        };
        let range = checked_range(key, range.as_ref(), bytes.len() as u64)?;
        let part = &bytes[range.start as usize..range.end as usize];
        if part.len() != target.len() {
            return Err(wrong_length(key, part.len(), target.len()));
        }
        target.copy_from_slice(part);
        Ok(true)
    }

    fn expire(&self, keys: &[Key], ttl: Option<Duration>) -> Result<()> {
        self.check_open("expire objects")?;
        keys.iter().try_for_each(|key| check_id(key.id()))?;
        let expiry = Expiry::after(ttl);
        for key in keys {
            let mut state = shard_of(key.id()).lock();
            let objects = state.channels.get_mut(&self.channel);
            if let Some(stored) = objects.and_then(|objects| objects.get_mut(key.id()))
                && stored.is_there(key)
            {
                stored.expiry = expiry;
            }
        }
        sweep_at(expiry);
        Ok(())
    }
}

/// Hash maps that can be made in a constant.
type Map<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

struct Stored {
    generation: u64,
    expiry: Expiry,
    bytes: Buffer,
}

impl Stored {
    fn is_meant(&self, key: &Key) -> bool {
        [0, self.generation].contains(&key.generation())
    }

    fn is_there(&self, key: &Key) -> bool {
        self.is_meant(key) && !self.expiry.is_past()
    }
}

/// A fixed share of all objects of the process, by id.
struct Shard {
    state: Mutex<State>,
    filled: Condition,
}

struct State {
    channels: Map<Arc<str>, Map<Box<str>, Stored>>,
}

static SHARDS: [Shard; 16] = [const { Shard::new() }; 16];

impl Shard {
    const fn new() -> Self {
        let channels = HashMap::with_hasher(BuildHasherDefault::new());
        Self { state: Mutex::new(State { channels }), filled: Condition::new() }
    }

    /// Panics cannot leave the maps half changed, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn find(&self, channel: &str, key: &Key) -> Option<&Stored> {
        let stored = self.channels.get(channel)?.get(key.id())?;
        stored.is_there(key).then_some(stored)
    }
}

fn shard_of(id: &str) -> &'static Shard {
    &SHARDS[(xxh3_64(id.as_bytes()) % SHARDS.len() as u64) as usize]
}

/// When the first of all objects expires, or one that was since evicted.
static FIRST_TO_GO: AtomicU64 = AtomicU64::new(Expiry::NEVER.word());

/// Makes sure that there is a sweep for an object that expires then.
fn sweep_at(expiry: Expiry) {
    if expiry == Expiry::NEVER {
        return;
    }
    let _ = FIRST_TO_GO.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |first| {
        let first = Expiry::from_word(first);
        (first == Expiry::NEVER || expiry < first).then_some(expiry.word())
    });
}

/// Gives back the memory of expired objects, at most once a second.
fn sweep() {
    let due = FIRST_TO_GO.load(Ordering::Acquire);
    let (never, order) = (Expiry::NEVER.word(), Ordering::AcqRel);
    if !Expiry::from_word(due).is_past()
        || FIRST_TO_GO.compare_exchange(due, never, order, Ordering::Relaxed).is_err()
    {
        return;
    }
    let in_a_second = Expiry::after(Some(Duration::from_secs(1)));
    for shard in &SHARDS {
        let mut state = shard.lock();
        let objects = state.channels.values_mut();
        let gone: Vec<_> = objects
            .flat_map(|objects| objects.extract_if(|_, stored| stored.expiry.is_past()))
            .collect();
        let left = state.channels.values().flat_map(HashMap::values).map(|stored| stored.expiry);
        let next = left.filter(|expiry| *expiry != Expiry::NEVER).min();
        drop(state);
        drop(gone); // their memory is given back outside the lock
        sweep_at(next.map_or(Expiry::NEVER, |next| next.max(in_a_second)));
    }
}

thread_local! {
    /// The locks of all shards, held by the forking thread while it forks.
    static HELD: RefCell<Vec<MutexGuard<'static, State>>> = const { RefCell::new(Vec::new()) };
}

/// Takes every lock around a fork, so that the child gets them free and the maps consistent.
fn watch_forks() {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    extern "C" fn before() {
        let _ = HELD.try_with(|held| held.borrow_mut().extend(SHARDS.iter().map(Shard::lock)));
    }
    extern "C" fn after() {
        let _ = HELD.try_with(|held| held.borrow_mut().clear());
    }
    if REGISTERED.swap(true, Ordering::AcqRel) {
        return;
    }
    // SAFETY: the handlers do not unwind, and in the child they only release locks that the one
    // surviving thread took itself. A failure (no memory) leaves forks as they were before.
    let _ = unsafe { libc::pthread_atfork(Some(before), Some(after), Some(after)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_expired_objects_is_given_back() {
        let connector = MemoryConnector::new("unit-test-of-ttl").unwrap();
        let options = PutOptions { ttl: Some(Duration::ZERO), ..PutOptions::default() };
        let keys: Vec<_> =
            (0..40).map(|_| connector.put(&b"x"[..].into(), &options).unwrap()).collect();
        let is_stored = |key: &Key| {
            let state = shard_of(key.id()).lock();
            state.channels.get("unit-test-of-ttl").is_some_and(|all| all.contains_key(key.id()))
        };
        let start = Instant::now();
        while keys.iter().any(is_stored) {
            assert!(start.elapsed() < Duration::from_secs(30), "never swept");
            std::thread::sleep(Duration::from_millis(10));
            MemoryConnector::new("another").unwrap();
        }
        connector.close(true).unwrap();
    }
}
