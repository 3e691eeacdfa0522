//! The end of a stream that receives objects.

use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::claim::ClaimedFactory;
use super::event::{Body, Metadata};
use super::inbox::{Arrival, Inbox, Receipt};
use super::metrics::StreamMetrics;
use crate::brokers::Subscriber;
use crate::buffer::Buffer;
use crate::codec::Decode;
use crate::error::{Error, ErrorKind, Result};
use crate::payload::Received;
use crate::proxy::{Factory, Proxy};
use crate::store::StoreFactory;

/// Receives objects of a stream, as proxies: an object is fetched when it is first used.
///
/// What frees the objects that were sent to be freed:
/// - on brokers that deliver [at most once](crate::brokers::Guarantee), the first use of the proxy;
/// - on brokers that deliver at least once, [`Item::acknowledge`], which the iterators call for an
///   item when the next one is asked for. If the consumer is closed, killed or falls silent before,
///   the item is delivered again. A proxy that was sent elsewhere, or not used, before it was
///   acknowledged frees its object when it is used.
///
/// Every call may come from any thread; each event goes to one of them.
pub struct StreamConsumer {
    inbox: Inbox,
    filter: Option<Filter>,
    ends: usize,
    timeout: Option<Duration>,
}

type Filter = Box<dyn Fn(&Metadata) -> bool + Send + Sync>;

/// What comes next in a stream.
#[derive(Debug)]
pub enum Next<T: 'static> {
    /// An object.
    Item(Item<T>),
    /// A producer closed this topic.
    End(Arc<str>),
}

/// An object of a stream.
#[derive(Debug)]
pub struct Item<T: 'static> {
    /// Its topic.
    pub topic: Arc<str>,
    /// What its producer says of it.
    pub metadata: Metadata,
    /// The object, fetched when it is first used.
    pub proxy: Proxy<T>,
    /// By which it is acknowledged.
    pub receipt: Receipt,
    /// The how-manieth delivery this is, from 1 on.
    pub attempts: u32,
}

impl<T: 'static> Item<T> {
    /// As [`Receipt::acknowledge`].
    ///
    /// # Errors
    /// As [`Receipt::acknowledge`].
    pub fn acknowledge(&self) -> Result<()> {
        self.receipt.acknowledge()
    }

    /// A proxy to be sent to whoever works on the object and answers, upon which the item is
    /// acknowledged: unlike copies of [`proxy`](Self::proxy), it does not free the object, so that
    /// it is there when the work has to be done again. On brokers that deliver at most once it is
    /// such a copy.
    ///
    /// # Errors
    /// What the channel fails with.
    pub fn lend(&self) -> Result<Proxy<T>>
    where
        T: Decode + Send + Sync,
    {
        match self.receipt.claim() {
            Some(claim) => claim.lend().map(Proxy::from_reference),
            None => Ok(self.proxy.clone()),
        }
    }
}

impl StreamConsumer {
    /// A consumer of what a subscriber receives.
    pub fn new(subscriber: Box<dyn Subscriber>) -> Self {
        Self { inbox: Inbox::new(Arc::from(subscriber)), filter: None, ends: 1, timeout: None }
    }

    /// Passes over events for whose metadata the function says true; their objects are freed unread.
    #[must_use]
    pub fn drop_if(mut self, drop: impl Fn(&Metadata) -> bool + Send + Sync + 'static) -> Self {
        self.filter = Some(Box::new(drop));
        self
    }

    /// How many ends of topics end an iteration, 1 unless told: as many as there are topics, times
    /// the producers that close them.
    #[must_use]
    pub fn ends(mut self, ends: usize) -> Self {
        self.ends = ends;
        self
    }

    /// How long iterators wait for an event, before they fail with an error of kind `Timeout`; for
    /// ever unless told.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// What comes next, which the caller acknowledges; `None` when the time is up.
    ///
    /// # Errors
    /// As [`Inbox::next`].
    pub fn next<T>(&self, timeout: Option<Duration>) -> Result<Option<Next<T>>>
    where
        T: Decode + Send + Sync + 'static,
    {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let Some(arrival) = self.inbox.next(deadline)? else { return Ok(None) };
            let Arrival { topic, body, metadata, receipt, attempts, .. } = arrival;
            if !matches!(body, Body::End)
                && self.filter.as_ref().is_some_and(|drop| drop(&metadata))
            {
                self.inbox.pass_over(&body, &receipt)?;
                continue;
            }
            let proxy = match body {
                Body::End => {
                    receipt.acknowledge()?;
                    return Ok(Some(Next::End(topic)));
                }
                Body::Value(payload) => Proxy::new(ValueFactory(payload)),
                Body::Object(reference) => match receipt.claim() {
                    Some(claim) => Proxy::new(ClaimedFactory::new(*reference, Arc::clone(claim))),
                    None => Proxy::new(StoreFactory::from_reference(*reference)),
                },
            };
            return Ok(Some(Next::Item(Item { topic, metadata, proxy, receipt, attempts })));
        }
    }

    /// The items until the end of the stream; each is acknowledged when the next one is asked for.
    pub fn iter<T: Decode + Send + Sync + 'static>(&self) -> Items<'_, T> {
        Items { consumer: self, before: None, ends: 0, failed: false, target: PhantomData }
    }

    /// The objects themselves until the end of the stream, fetched.
    pub fn objects<T>(&self) -> impl Iterator<Item = Result<T>> + use<'_, T>
    where
        T: Decode + Clone + Send + Sync + 'static,
    {
        self.iter::<T>().map(|item| item?.proxy.into_inner())
    }

    /// What was counted so far.
    pub fn metrics(&self) -> &StreamMetrics {
        self.inbox.metrics()
    }

    /// Gives back what was not acknowledged, where the broker takes it. Waiting in other threads ends
    /// with an error of kind `Closed`.
    ///
    /// # Errors
    /// What the broker fails with.
    pub fn close(&self) -> Result<()> {
        self.inbox.close()
    }
}

impl Drop for StreamConsumer {
    /// Errors are lost here; `close` reports them.
    fn drop(&mut self) {
        let _ = self.inbox.close();
    }
}

impl fmt::Debug for StreamConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamConsumer").field("inbox", &self.inbox).finish_non_exhaustive()
    }
}

/// The items of a stream until its end.
#[derive(Debug)]
pub struct Items<'a, T> {
    consumer: &'a StreamConsumer,
    before: Option<Receipt>,
    ends: usize,
    failed: bool,
    target: PhantomData<fn() -> T>,
}

impl<T: Decode + Send + Sync + 'static> Items<'_, T> {
    fn step(&mut self) -> Result<Option<Item<T>>> {
        if let Some(before) = self.before.take() {
            before.acknowledge()?;
        }
        while self.ends < self.consumer.ends {
            match self.consumer.next(self.consumer.timeout)? {
                Some(Next::Item(item)) => {
                    self.before = Some(item.receipt.clone());
                    return Ok(Some(item));
                }
                Some(Next::End(_)) => self.ends += 1,
                None => {
                    return Err(Error::new(
                        ErrorKind::Timeout,
                        "receive an event",
                        "none came in time",
                    )
                    .with_hint("see whether the producers run, or wait longer"));
                }
            }
        }
        Ok(None)
    }
}

impl<T: Decode + Send + Sync + 'static> Iterator for Items<'_, T> {
    type Item = Result<Item<T>>;

    fn next(&mut self) -> Option<Self::Item> {
        if mem::replace(&mut self.failed, true) {
            return None; // it failed, or panicked
        }
        let step = self.step();
        self.failed = step.is_err();
        step.transpose()
    }
}

/// Decodes an object that came inside its event, and is in no store.
struct ValueFactory(Arc<[u8]>);

impl<T: Decode + Send + Sync + 'static> Factory<T> for ValueFactory {
    fn resolve(&self) -> Result<Arc<T>> {
        T::decode(&Received::parse(Buffer::copy_of(&self.0))?).map(Arc::new)
    }
}
