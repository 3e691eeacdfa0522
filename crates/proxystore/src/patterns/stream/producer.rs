//! The end of a stream that sends objects.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::builder::{Batch, SendOptions, Settings, StreamProducerBuilder};
use super::event::{Body, Event, Message};
use super::flusher::Flusher;
use super::metrics::StreamMetrics;
use super::outbox::{Outbox, OutboxOptions};
use super::topic::{Pending, Topic};
use crate::brokers::{Publisher, closed};
use crate::codec::Encode;
use crate::error::{Error, ErrorKind, Result};
use crate::payload::Framed;
use crate::store::Store;

/// So long closing may wait for room and for the broker, where sending may wait for ever.
const FAREWELL: Duration = Duration::from_mins(1);

/// Sends objects to topics: the objects through a store, and events of them through a broker.
///
/// Objects of a topic arrive in the order in which they were sent. Every call may come from any
/// thread. What is buffered for a batch is sent when the producer is closed, or dropped.
///
/// ```
/// # fn main() -> proxystore::Result<()> {
/// use proxystore::Store;
/// use proxystore::brokers::{self, SubscribeOptions};
/// use proxystore::patterns::stream::{StreamConsumer, StreamProducer};
///
/// let broker = brokers::open("memory://stream-example")?;
/// let subscriber = broker.subscriber(&["frames"], &SubscribeOptions::default())?;
///
/// let store = Store::open("memory://stream-example")?;
/// let producer = StreamProducer::builder(broker.publisher()?).store(&store).build()?;
/// for number in 0..3 {
///     producer.send("frames", vec![f64::from(number); 1_000_000])?;
/// }
/// producer.close_topic("frames")?;
///
/// let consumer = StreamConsumer::new(subscriber);
/// let sums: Vec<f64> = consumer
///     .objects::<Vec<f64>>()
///     .map(|frame| Ok(frame?.iter().sum()))
///     .collect::<proxystore::Result<_>>()?;
/// assert_eq!(sums, [0.0, 1e6, 2e6]);
/// # Ok(()) }
/// ```
pub struct StreamProducer<T: Encode + Send + 'static> {
    inner: Arc<Inner<T>>,
}

struct Inner<T: Encode + Send + 'static> {
    outbox: Outbox,
    settings: Settings<T>,
    topics: Mutex<HashMap<String, Arc<Topic<T>>>>,
    /// Set before what is gathered is sent for a last time: nothing is gathered after that.
    is_closed: AtomicBool,
    flusher: Arc<Flusher>,
}

impl<T: Encode + Send + 'static> StreamProducer<T> {
    /// Starts a producer that publishes by `publisher`.
    pub fn builder(publisher: Box<dyn Publisher>) -> StreamProducerBuilder<T> {
        StreamProducerBuilder::new(publisher)
    }

    pub(super) fn with(
        publisher: Arc<dyn Publisher>,
        settings: Settings<T>,
        outbox: OutboxOptions,
    ) -> Result<Self> {
        let outbox = Outbox::new(publisher, outbox)?;
        let (topics, is_closed) = (Mutex::default(), AtomicBool::new(false));
        let inner = Inner { outbox, settings, topics, is_closed, flusher: Arc::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Sends an object to a topic.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] when the producer or the topic was closed, else what the store or the
    /// broker fails with, be it for a batch before that was due by age. The object is not sent then, nor
    /// later: send it again. What was gathered before it still waits for the next send or flush.
    pub fn send(&self, topic: &str, object: T) -> Result<()> {
        self.send_with(topic, object, SendOptions::default())
    }

    /// As [`send`](Self::send), with metadata, or without being freed by consumers.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_with(&self, topic: &str, object: T, options: SendOptions) -> Result<()> {
        let SendOptions { metadata, evict } = options;
        let inner = &self.inner;
        let (settings, deadline) = (&inner.settings, inner.outbox.deadline());
        let found = inner.topic(topic);
        let mut pending = found.hold(deadline, || {})?;
        if inner.is_closed.load(Ordering::Acquire) {
            return Err(closed("send an object").with("topic", topic));
        }
        if pending.ends > 0 {
            return Err(Error::new(ErrorKind::Closed, "send an object", "its topic was closed")
                .with("topic", topic)
                .with_hint("send before close_topic, or to another topic"));
        }
        if let Some(failure) = pending.failure.take() {
            return Err(failure);
        }
        if settings.filter.as_ref().is_some_and(|drop| drop(&metadata)) {
            inner.outbox.count_filtered();
            return Ok(());
        }
        let Batch { count, bytes, age } = settings.batch;
        let size = if bytes.is_some() { object.encode()?.frame()?.len() } else { 0 };
        let count = count.min(Message::MOST);
        let is_full = pending.objects.len() + 1 >= count
            || bytes.is_some_and(|bytes| pending.bytes + size >= bytes);
        if let (false, None, Some(age)) = (is_full, pending.due, age) {
            let due = Instant::now().checked_add(age);
            if let Some(due) = due {
                self.watch(topic, &mut pending, due)?;
            }
            pending.due = due;
        }
        pending.objects.push((object, metadata));
        pending.evict.push(evict);
        pending.bytes += size;
        if !is_full {
            return Ok(());
        }
        let sent = inner.flush(topic, &mut pending, deadline);
        if sent.is_err() {
            pending.objects.pop();
            pending.evict.pop();
            pending.bytes -= size;
        }
        sent
    }

    /// Sends what is gathered for a topic.
    ///
    /// # Errors
    /// As [`send`](Self::send); what could not be sent is still waiting.
    pub fn flush_topic(&self, topic: &str) -> Result<()> {
        let (found, deadline) = (self.inner.topic(topic), self.inner.outbox.deadline());
        let mut pending = found.hold(deadline, || {})?;
        self.inner.flush(topic, &mut pending, deadline)
    }

    /// Sends what is gathered for all topics, and waits until the broker has it.
    ///
    /// # Errors
    /// As [`flush_topic`](Self::flush_topic).
    pub fn flush(&self) -> Result<()> {
        for topic in self.inner.names() {
            self.flush_topic(&topic)?;
        }
        self.inner.outbox.publisher().flush(self.inner.outbox.deadline())
    }

    /// Sends what is gathered for a topic, and the end of the topic: consumers that got it go on no
    /// further, and nothing more can be sent there.
    ///
    /// # Errors
    /// As [`flush_topic`](Self::flush_topic).
    pub fn close_topic(&self, topic: &str) -> Result<()> {
        self.close_topic_for(topic, 1)
    }

    /// As [`close_topic`](Self::close_topic), with an end for each of so many consumers that share
    /// the topic's events, as those of one group do. Calling it again sends what is missing.
    ///
    /// # Errors
    /// As [`flush_topic`](Self::flush_topic).
    pub fn close_topic_for(&self, topic: &str, consumers: usize) -> Result<()> {
        let (found, deadline) = (self.inner.topic(topic), self.inner.outbox.deadline());
        let mut pending = found.hold(deadline, || {})?;
        self.inner.flush(topic, &mut pending, deadline)?;
        while pending.ends < consumers.max(1) {
            // By itself, or it would come again with objects that do.
            self.inner.outbox.publish(topic, None, vec![Event::new(Body::End)], deadline)?;
            pending.ends += 1;
        }
        drop(pending);
        self.inner.outbox.publisher().flush(self.inner.outbox.deadline())
    }

    /// Sends what is gathered for all topics, and closes the publisher. Waiting for room in other
    /// threads ends, and nothing more can be sent.
    ///
    /// # Errors
    /// As [`flush_topic`](Self::flush_topic); the publisher is closed all the same.
    pub fn close(&self) -> Result<()> {
        self.inner.is_closed.store(true, Ordering::Release);
        self.inner.outbox.stop_waiting();
        let flushed = self.inner.flush_all(FAREWELL);
        self.inner.flusher.stop();
        flushed.and(self.inner.outbox.close())
    }

    /// What was counted so far.
    pub fn metrics(&self) -> &StreamMetrics {
        self.inner.outbox.metrics()
    }

    /// Sees to it that what is gathered for a topic is sent at this time. Each topic has a thread for
    /// that while there is something: one that is full stops no other.
    fn watch(&self, topic: &str, pending: &mut Pending<T>, due: Instant) -> Result<()> {
        if pending.is_watched {
            return Ok(());
        }
        let (producer, flusher) = (Arc::downgrade(&self.inner), Arc::clone(&self.inner.flusher));
        let topic = topic.to_owned();
        thread::Builder::new()
            .name("proxystore-flush".to_owned())
            .spawn(move || flush_aged(&producer, &flusher, &topic, due))
            .map_err(|source| Error::io("send batches by age", source))?;
        pending.is_watched = true;
        Ok(())
    }
}

impl<T: Encode + Send + 'static> Inner<T> {
    fn topic(&self, topic: &str) -> Arc<Topic<T>> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        match topics.get(topic) {
            Some(found) => Arc::clone(found),
            None => Arc::clone(topics.entry(topic.to_owned()).or_default()),
        }
    }

    fn names(&self) -> Vec<String> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// Sends what is gathered for all topics, for a last time.
    fn flush_all(&self, longest: Duration) -> Result<()> {
        let deadline = self.outbox.deadline().or(Instant::now().checked_add(longest));
        let flush = |topic: &String| {
            let found = self.topic(topic);
            // Who still sends is not to wait for anything.
            let mut pending = found.hold(deadline, || self.outbox.stop_waiting())?;
            self.flush(topic, &mut pending, deadline)
        };
        let outcomes: Vec<_> = self.names().iter().map(flush).collect();
        outcomes.into_iter().collect()
    }

    /// Sends what is gathered; on failure it is gathered still.
    fn flush(
        &self,
        topic: &str,
        pending: &mut Pending<T>,
        deadline: Option<Instant>,
    ) -> Result<()> {
        let gathered = &pending.objects[..];
        if gathered.is_empty() {
            return pending.failure.take().map_or(Ok(()), Err);
        }
        let whole;
        let (objects, evict) = if let Some(aggregate) = &self.settings.aggregate {
            whole = [aggregate(gathered)?];
            (&whole[..], &[pending.evict.contains(&true)][..])
        } else {
            (gathered, &pending.evict[..])
        };
        let payloads: Vec<Framed<'_>> =
            objects.iter().map(|(object, _)| object.encode()?.frame()).collect::<Result<_>>()?;
        let own = self.settings.stores.get(topic);
        let store = own.map_or(self.settings.store.as_ref(), Option::as_ref);
        let bodies: Vec<Body> = if let Some(store) = store {
            let references = self.outbox.refer(store, &payloads, evict, deadline)?;
            let with_facts = references.into_iter().zip(objects).map(|(reference, (object, _))| {
                Body::Object(Box::new(reference.with_facts(object.facts().stored_now())))
            });
            with_facts.collect()
        } else {
            let value = |framed: &Framed<'_>| Body::Value(Arc::from(&*framed.parts().to_buffer()));
            payloads.iter().map(value).collect()
        };
        let mut events: Vec<Event> = bodies
            .into_iter()
            .zip(objects)
            .map(|(body, (_, metadata))| Event { metadata: metadata.clone(), ..Event::new(body) })
            .collect();
        if let Err(error) = sign(store, &mut events) {
            self.outbox.take_back(store, &events);
            return Err(error);
        }
        self.outbox.publish(topic, store, events, deadline)?;
        pending.clear();
        Ok(())
    }
}

/// Signs the references of events, if their store does.
fn sign(store: Option<&Store>, events: &mut [Event]) -> Result<()> {
    let Some(store) = store else { return Ok(()) };
    events.iter_mut().try_for_each(|event| match &mut event.body {
        Body::Object(reference) => store.sign(reference),
        _ => Ok(()),
    })
}

// Not of `Inner`, which the thread that sends by age may hold too.
impl<T: Encode + Send + 'static> Drop for StreamProducer<T> {
    /// Errors are lost here; `close` reports them.
    fn drop(&mut self) {
        let inner = &self.inner;
        if inner.is_closed.swap(true, Ordering::AcqRel) {
            return;
        }
        inner.outbox.stop_waiting();
        let _ = inner.flush_all(FAREWELL / 10);
        inner.flusher.stop();
        let _ = inner.outbox.close();
    }
}

impl<T: Encode + Send + 'static> fmt::Debug for StreamProducer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamProducer").field("outbox", &self.inner.outbox).finish_non_exhaustive()
    }
}

/// Sends the batches of a topic when they are old enough, as long as some come.
fn flush_aged<T: Encode + Send + 'static>(
    producer: &Weak<Inner<T>>,
    flusher: &Flusher,
    name: &str,
    mut look: Instant,
) {
    while flusher.sleep_until(look) {
        let Some(inner) = producer.upgrade() else { return };
        let topic = inner.topic(name);
        let Ok(mut pending) = topic.hold(None, || {}) else { return };
        let age = inner.settings.batch.age.unwrap_or_default();
        look = match pending.due {
            Some(due) if due > Instant::now() => due,
            Some(due) => {
                let deadline = inner.outbox.deadline();
                if let Err(error) = inner.flush(name, &mut pending, deadline) {
                    // Whoever sends next hears of it; what is gathered is sent with that.
                    (pending.failure, pending.due) = (Some(error), None);
                }
                due + age // the next batch is no older by then
            }
            None => {
                pending.is_watched = false;
                return;
            }
        };
    }
}
