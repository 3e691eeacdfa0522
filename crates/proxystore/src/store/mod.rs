//! Stores: a connector and codecs under a name, with a cache and metrics.

mod cache;
mod config;
mod export;
mod factory;
mod metrics;
mod payloads;
mod protection;
mod reader;
pub mod registry;
mod share;
mod waiting;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use cache::{Cache, CacheLimits};
pub use config::{StoreBuilder, StoreConfig};
pub use export::{INSTRUMENTS, Instrument, Observation, observations, to_prometheus};
pub use factory::StoreFactory;
pub use metrics::{Metrics, Operation, OperationStats};
use protection::Protection;
pub use protection::{SealMode, Wrapped};
pub use reader::ObjectReader;
pub use waiting::Waiting;
pub(crate) use waiting::lease_record;

use crate::buffer::Buffer;
use crate::codec::{Array, ArrayMut, Decode, Element, Encode, Failure};
use crate::connectors::{Connector, PutOptions, without_credentials};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::payload::{Framed, Payload};
use crate::proxy::{Locked, Proxy};
use crate::reference::Reference;
use crate::seal::Seal;
use crate::trust::sites;

/// A place for objects: puts them into a channel and hands out keys and proxies.
///
/// Clones are handles of one store. The *name* and the channel identify it; a proxy that arrives
/// in another process finds or opens the store by both.
///
/// ```
/// # fn main() -> proxystore::Result<()> {
/// use proxystore::Store;
/// let store = Store::open("memory://store-example")?;
/// let key = store.put("hello")?;
/// assert_eq!(store.get::<String>(&key)?.as_deref(), Some("hello"));
/// store.evict(&key)?;
/// assert!(!store.exists(&key)?);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Arc<StoreConfig>,
    connector: Arc<dyn Connector>,
    cache: Cache,
    metrics: Option<Metrics>,
    inline_bytes: usize,
    protection: Protection,
    forbidden: bool,
    closed: AtomicBool,
}

impl Store {
    /// The store of a channel, opened if this process has not yet, named after its URL.
    ///
    /// | URL | channel |
    /// | --- | --- |
    /// | `memory://NAME` | memory of this process |
    /// | `file:///DIR` | files in a directory |
    /// | `shm://NAME` | shared memory of this host |
    /// | `multi:NAME=URL;NAME=URL` | several of these |
    /// | `redis://HOST:PORT/DATABASE` | a Redis server (feature `redis`; `rediss://` for TLS) |
    /// | `redis+unix:///PATH` | the same through its socket |
    /// | `redis+cluster://HOST:PORT,HOST:PORT` | a Redis cluster |
    ///
    /// User and password in a URL are used, and are no part of the name.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a URL that names no channel, and what opening it fails with.
    pub fn open(url: &str) -> Result<Self> {
        let connector = crate::connectors::ConnectorConfig::new(url);
        let name = crate::connectors::without_credentials(url);
        registry::get_or_open(&StoreConfig::new(name, connector))
    }

    /// Starts a store with a connector and settings of its own.
    ///
    /// It is not registered: proxies resolve through it in this process only after
    /// [`registry::register`], and otherwise through another store of the same configuration.
    pub fn builder(name: impl Into<String>, connector: Arc<dyn Connector>) -> StoreBuilder {
        StoreBuilder::new(name.into(), connector)
    }

    fn assemble(config: StoreConfig, connector: Arc<dyn Connector>) -> Self {
        let cache = Cache::new(config.cache_limits());
        let metrics = config.has_metrics().then(Metrics::default);
        let inline_bytes = config.inline_bytes();
        let protection = Protection::new(&config, connector.capabilities());
        let forbidden = sites::check(&config).is_err();
        let closed = AtomicBool::new(false);
        let config = Arc::new(config);
        let inner = Inner {
            config,
            connector,
            cache,
            metrics,
            inline_bytes,
            protection,
            forbidden,
            closed,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.inner.config.name
    }

    /// From which the store can be opened anywhere.
    pub fn config(&self) -> &Arc<StoreConfig> {
        &self.inner.config
    }

    /// Checks that this process may resolve the store's objects: see
    /// [`StoreBuilder::sites`]. Whatever reads objects does that itself.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] naming this site and the allowed ones.
    pub fn permit(&self) -> Result<()> {
        if self.inner.forbidden { sites::check(&self.inner.config) } else { Ok(()) }
    }

    /// The connector.
    pub fn connector(&self) -> &Arc<dyn Connector> {
        &self.inner.connector
    }

    /// The cache of decoded objects.
    pub fn cache(&self) -> &Cache {
        &self.inner.cache
    }

    /// Counts and times of operations, when the store was built with metrics.
    pub fn metrics(&self) -> Option<&Metrics> {
        self.inner.metrics.as_ref()
    }

    // # Objects

    /// Stores an object and returns its key.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`] when the object has no representation, else what the channel fails
    /// with; nothing is left behind.
    pub fn put<T: Encode + ?Sized>(&self, object: &T) -> Result<Key> {
        self.put_with(object, &PutOptions::default())
    }

    /// As [`put`](Self::put), under a key made before, with a time to live, or with tags.
    ///
    /// # Errors
    /// As [`put`](Self::put); [`ErrorKind::Unsupported`] for what the channel does not have.
    pub fn put_with<T: Encode + ?Sized>(&self, object: &T, options: &PutOptions) -> Result<Key> {
        self.put_payload(self.encode(object)?, options)
    }

    /// Stores many objects at once; all or none.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn put_batch<T: Encode>(&self, objects: &[T]) -> Result<Vec<Key>> {
        let framed: Vec<Framed<'_>> =
            objects.iter().map(|object| self.encode(object)?.frame()).collect::<Result<_>>()?;
        self.put_framed_batch(&framed, &PutOptions::default())
    }

    /// The object under a key, `None` when there is none. Decoded objects are cached.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`] when another type was stored, [`ErrorKind::Corrupt`] when the
    /// bytes are damaged, else what the channel fails with.
    pub fn get<T: Decode + Clone + Send + Sync + 'static>(&self, key: &Key) -> Result<Option<T>> {
        Ok(self.get_shared(key)?.map(Arc::unwrap_or_clone))
    }

    /// As [`get`](Self::get), sharing the object with the cache.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_shared<T>(&self, key: &Key) -> Result<Option<Arc<T>>>
    where
        T: Decode + Send + Sync + 'static,
    {
        self.permit()?;
        // A key without generation may mean a newer object tomorrow.
        let cachable = key.generation() != 0;
        if cachable && let Some(object) = self.inner.cache.get::<T>(key) {
            self.count(Operation::CacheHit);
            return Ok(Some(object));
        }
        let Some(received) = self.get_payload(key, T::ACCESS)? else {
            return Ok(None);
        };
        if let Some(failure) = Failure::of(&received)? {
            return Err(self.about(failure.to_error(), key));
        }
        let decoded = self.measured(Operation::Decode, || T::decode(&received));
        let object = Arc::new(decoded.map_err(|error| self.about(error, key))?);
        if cachable {
            self.inner.cache.insert(key.clone(), Arc::clone(&object), received.len());
        }
        Ok(Some(object))
    }

    /// Whether there is an object under the key, in the channel or in the cache.
    ///
    /// # Errors
    /// What the channel fails with.
    pub fn exists(&self, key: &Key) -> Result<bool> {
        Ok(self.inner.cache.contains(key)
            || self.timed(Operation::Exists, 0, |connector| connector.exists(key))?)
    }

    /// Makes a key to be filled later by [`put_with`](Self::put_with).
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] on channels without deferred keys.
    pub fn new_key(&self) -> Result<Key> {
        let key = self.inner.connector.new_key()?;
        let seal = self.inner.protection.seal.map(|_| Seal::fresh()).transpose()?;
        Ok(key.sealed(seal))
    }

    /// Waits until there is an object under the key; false when `timeout` passes first.
    ///
    /// # Errors
    /// What the channel fails with.
    pub fn wait(&self, key: &Key, timeout: Option<Duration>) -> Result<bool> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.timed(Operation::Wait, 0, |connector| connector.wait(key, deadline))
    }

    /// Removes an object from the channel and the cache; absent ones are fine.
    ///
    /// # Errors
    /// What the channel fails with.
    pub fn evict(&self, key: &Key) -> Result<()> {
        self.inner.cache.remove(key);
        self.timed(Operation::Evict, 0, |connector| connector.evict(key))
    }

    /// Lets objects vanish `ttl` from now, or only when evicted (`None`); absent ones are fine.
    ///
    /// They vanish from the channel; a decoded copy in a process's cache stays until it is evicted
    /// there.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] on channels without [`ttl`](crate::connectors::Capabilities::ttl).
    pub fn expire(&self, keys: &[Key], ttl: Option<Duration>) -> Result<()> {
        self.timed(Operation::Expire, 0, |connector| connector.expire(keys, ttl))
    }

    /// An array to fill in memory of the channel; storing it copies nothing.
    ///
    /// On channels without such memory it is ordinary memory, and storing it copies.
    ///
    /// # Errors
    /// [`ErrorKind::Full`] when the channel has no room, [`ErrorKind::Config`] for a shape that
    /// is too large.
    pub fn empty<T: Element>(&self, shape: &[usize]) -> Result<ArrayMut<T>> {
        ArrayMut::new(shape, |len| self.allocate(len))
    }

    /// Writable memory of the channel, or ordinary memory where the channel has none.
    ///
    /// # Errors
    /// [`ErrorKind::Full`] when the channel has no room.
    pub fn allocate(&self, len: usize) -> Result<Buffer> {
        if self.inner.connector.capabilities().allocate {
            return self.timed(Operation::Allocate, len, |connector| connector.allocate(len));
        }
        Ok(Buffer::zeroed(len))
    }

    // # Proxies

    /// Stores an object and returns a proxy of it, which already holds it for local use.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn proxy<T>(&self, object: T) -> Result<Proxy<T>>
    where
        T: Encode + Decode + Send + Sync + 'static,
    {
        let reference = self.refer(&object.encode()?.frame()?, &PutOptions::default())?;
        let reference = reference.with_facts(object.facts().stored_now());
        Ok(Proxy::with_target(StoreFactory::of(self, reference), Arc::new(object)))
    }

    /// Stores an array made by [`empty`](Self::empty) and returns a proxy of it: no copy.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn proxy_array<T: Element>(&self, array: ArrayMut<T>) -> Result<Proxy<Array<T>>> {
        let factory = self.factory_for(self.put(&array)?, &array);
        Ok(Proxy::with_target(factory, Arc::new(Array::from(array))))
    }

    /// As [`proxy`](Self::proxy) for many objects, stored at once.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn proxy_batch<T>(&self, objects: Vec<T>) -> Result<Vec<Proxy<T>>>
    where
        T: Encode + Decode + Send + Sync + 'static,
    {
        let keys = self.put_batch(&objects)?;
        let proxies = keys.into_iter().zip(objects).map(|(key, object)| {
            Proxy::with_target(self.factory_for(key, &object), Arc::new(object))
        });
        Ok(proxies.collect())
    }

    /// A proxy of what is stored under a key; nothing is fetched.
    pub fn proxy_from_key<T>(&self, key: &Key) -> Proxy<T>
    where
        T: Decode + Send + Sync + 'static,
    {
        Proxy::new(StoreFactory::new(self, key.clone()))
    }

    /// As [`proxy`](Self::proxy), but the object is evicted when the proxy is first resolved.
    ///
    /// The returned proxy is unresolved, so that exactly one of its copies gets the object.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn proxy_evicting<T>(&self, object: &T) -> Result<Proxy<T>>
    where
        T: Encode + Decode + Send + Sync + 'static,
    {
        Ok(Proxy::new(self.factory_for(self.put(object)?, object).evicting()))
    }

    /// As [`proxy`](Self::proxy), locked so that it is not resolved by accident.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn locked_proxy<T>(&self, object: T) -> Result<Locked<T>>
    where
        T: Encode + Decode + Send + Sync + 'static,
    {
        self.proxy(object).map(Locked::new)
    }

    /// A factory for an object that was just stored under this key.
    fn factory_for<T: Encode>(&self, key: Key, object: &T) -> StoreFactory {
        let reference = Reference::new(Arc::clone(self.config()), key);
        StoreFactory::of(self, reference.with_facts(object.facts().stored_now()))
    }

    /// The error for a proxy whose object is not there, with the likely reason.
    pub fn missing(&self, key: &Key) -> Error {
        self.about(
            Error::new(ErrorKind::NotFound, "resolve a proxy", "no object is stored under its key"),
            key,
        )
        .with("channel", without_credentials(&self.inner.config.connector.url))
        .with_hint(self.likely_reason())
    }

    fn likely_reason(&self) -> &'static str {
        if self.inner.connector.capabilities().cross_process {
            "it was evicted (by an evicting proxy resolved before, by its lifetime, or by hand), \
             or its store was cleared"
        } else {
            "it was evicted, or it lives in the memory of another process: use shm:// or file:// \
             to share objects between processes"
        }
    }

    /// Closes the connector and takes the store out of the registry; with `clear`, what was
    /// stored is removed too. Closing again is fine.
    ///
    /// # Errors
    /// What the channel fails with.
    pub fn close(&self, clear: bool) -> Result<()> {
        registry::unregister(self);
        if self.inner.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.inner.cache.clear();
        self.inner.connector.close(clear)
    }

    /// Whether [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.inner.closed.load(Ordering::Acquire)
    }

    /// Whether both are handles of one store.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    fn about(&self, error: Error, key: &Key) -> Error {
        error.with("store", self.name()).with("key", key)
    }

    fn encode<'a, T: Encode + ?Sized>(&self, object: &'a T) -> Result<Payload<'a>> {
        self.measured(Operation::Encode, || object.encode())
    }

    fn measured<R>(&self, operation: Operation, call: impl FnOnce() -> R) -> R {
        let Some(metrics) = &self.inner.metrics else {
            return call();
        };
        let started = Instant::now();
        let result = call();
        metrics.add(operation, started.elapsed());
        result
    }

    fn count(&self, operation: Operation) {
        if let Some(metrics) = &self.inner.metrics {
            metrics.add(operation, Duration::ZERO);
        }
    }

    fn timed<R>(
        &self,
        operation: Operation,
        bytes: usize,
        call: impl FnOnce(&dyn Connector) -> Result<R>,
    ) -> Result<R> {
        let result = self.measured(operation, || call(&*self.inner.connector));
        if let (Some(metrics), Ok(_)) = (&self.inner.metrics, &result) {
            metrics.add_bytes(operation, bytes);
        }
        result.map_err(|error| error.with("store", self.name()))
    }
}
