//! What a producer is told before it is made, and with each object.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::event::Metadata;
use super::outbox::OutboxOptions;
use super::producer::StreamProducer;
use super::window::Bound;
use crate::brokers::Publisher;
use crate::codec::Encode;
use crate::error::Result;
use crate::store::Store;

/// Whether an object, or its event, is dropped.
type Filter = Box<dyn Fn(&Metadata) -> bool + Send + Sync>;
type Aggregate<T> = Box<dyn Fn(&[(T, Metadata)]) -> Result<(T, Metadata)> + Send + Sync>;

/// How objects are gathered before they are stored and published together; a batch is sent as soon as
/// one of these is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// So many objects; 65535 are sent in any case.
    pub count: usize,
    /// Objects of so many bytes together, as stored.
    pub bytes: Option<usize>,
    /// So long after the first of them was sent.
    pub age: Option<Duration>,
}

impl Default for Batch {
    /// Every object by itself.
    fn default() -> Self {
        Self { count: 1, bytes: None, age: None }
    }
}

/// What to send with an object; start from `SendOptions::default()`.
#[derive(Debug, Clone)]
pub struct SendOptions {
    /// What consumers learn of it before they fetch it.
    pub metadata: Metadata,
    /// Consumers free the object when they are done with it. Without, it stays until somebody evicts
    /// it by its key, or its time to live passes.
    pub evict: bool,
}

impl Default for SendOptions {
    fn default() -> Self {
        Self { metadata: Metadata::default(), evict: true }
    }
}

/// Settings of a [`StreamProducer`] to be made.
pub struct StreamProducerBuilder<T> {
    publisher: Arc<dyn Publisher>,
    settings: Settings<T>,
    outbox: OutboxOptions,
}

/// What a producer does before it hands objects to its outbox.
pub(super) struct Settings<T> {
    pub(super) store: Option<Store>,
    pub(super) stores: HashMap<String, Option<Store>>,
    pub(super) batch: Batch,
    pub(super) filter: Option<Filter>,
    pub(super) aggregate: Option<Aggregate<T>>,
}

impl<T: Encode + Send + 'static> StreamProducerBuilder<T> {
    pub(super) fn new(publisher: Box<dyn Publisher>) -> Self {
        let settings = Settings {
            store: None,
            stores: HashMap::new(),
            batch: Batch::default(),
            filter: None,
            aggregate: None,
        };
        Self { publisher: Arc::from(publisher), settings, outbox: OutboxOptions::default() }
    }

    /// The store of the topics that have none of their own. Objects of topics without a store travel
    /// inside their events.
    #[must_use]
    pub fn store(mut self, store: &Store) -> Self {
        self.settings.store = Some(store.clone());
        self
    }

    /// The store of one topic; `None` for objects that travel inside their events.
    #[must_use]
    pub fn topic_store(mut self, topic: impl Into<String>, store: Option<&Store>) -> Self {
        self.settings.stores.insert(topic.into(), store.cloned());
        self
    }

    /// How objects are gathered before they are sent; each is sent by itself unless told.
    #[must_use]
    pub fn batch(mut self, batch: Batch) -> Self {
        self.settings.batch = batch;
        self
    }

    /// Drops objects for whose metadata the function says true, before they are stored.
    #[must_use]
    pub fn drop_if(mut self, drop: impl Fn(&Metadata) -> bool + Send + Sync + 'static) -> Self {
        self.settings.filter = Some(Box::new(drop));
        self
    }

    /// Makes one object of every batch. When that, or sending it, fails, it is made again of those that
    /// still wait, and those that came since.
    #[must_use]
    pub fn aggregate(
        mut self,
        aggregate: impl Fn(&[(T, Metadata)]) -> Result<(T, Metadata)> + Send + Sync + 'static,
    ) -> Self {
        self.settings.aggregate = Some(Box::new(aggregate));
        self
    }

    /// See [`OutboxOptions::inline_bytes`].
    #[must_use]
    pub fn inline_bytes(mut self, bytes: usize) -> Self {
        self.outbox.inline_bytes = bytes;
        self
    }

    /// See [`OutboxOptions::consumers`].
    #[must_use]
    pub fn consumers(mut self, groups: &[&str]) -> Self {
        self.outbox.consumers = groups.iter().map(|group| (*group).to_owned()).collect();
        self
    }

    /// See [`OutboxOptions::ttl`].
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.outbox.ttl = Some(ttl);
        self
    }

    /// How many bytes of objects may wait for their consumers.
    #[must_use]
    pub fn bound(mut self, bound: Bound) -> Self {
        self.outbox.bound = Some(bound);
        self
    }

    /// How long sending may wait for its turn, for room and for the broker; for ever unless told.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.outbox.timeout = Some(timeout);
        self
    }

    /// The producer.
    ///
    /// # Errors
    /// As [`Outbox::new`](super::Outbox::new).
    pub fn build(self) -> Result<StreamProducer<T>> {
        StreamProducer::with(self.publisher, self.settings, self.outbox)
    }
}

impl<T> fmt::Debug for StreamProducerBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamProducerBuilder")
            .field("outbox", &self.outbox)
            .finish_non_exhaustive()
    }
}
