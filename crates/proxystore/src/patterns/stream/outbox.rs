//! The part of a producer that knows no types: objects go into stores, events to the broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::event::{Body, Event, Message};
use super::metrics::{Count, StreamMetrics};
use super::window::{Bound, Entry, WhenFull, Window};
use crate::brokers::{Publisher, closed, patiently};
use crate::connectors::PutOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::payload::Framed;
use crate::reference::{Reference, Share};
use crate::store::Store;

/// How many bytes of objects travel inside the events of a batch, unless a single one has more: a batch
/// is one message, and brokers take messages of 1 MB, or little more, unless told otherwise.
const INLINE_OF_A_BATCH: usize = 512 << 10;

/// How a producer sends; start from `OutboxOptions::default()`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OutboxOptions {
    /// Objects of at most so many bytes travel inside their event, and not through the store; 16384
    /// unless told, or what the store says if that is more; of a batch, 512 KiB together. With a bound none
    /// does, nor do objects that consumers do not free.
    pub inline_bytes: usize,
    /// The groups of consumers that objects are kept for: the last one to be done with an object
    /// frees it. None for whoever is the first.
    pub consumers: Vec<String>,
    /// Objects vanish after this time, whoever has not got them, on channels with a time to live.
    pub ttl: Option<Duration>,
    /// How many bytes of objects may wait for their consumers.
    pub bound: Option<Bound>,
    /// How long sending may wait for room and for the broker; for ever if `None`.
    pub timeout: Option<Duration>,
    /// Asked now and then while sending waits for room or for the broker; an error ends the wait.
    /// Bridges look after the signals of their language there.
    pub interrupt: Option<fn() -> Result<()>>,
}

impl Default for OutboxOptions {
    fn default() -> Self {
        Self {
            inline_bytes: 16 << 10,
            consumers: Vec::new(),
            ttl: None,
            bound: None,
            timeout: None,
            interrupt: None,
        }
    }
}

/// Puts objects into stores and publishes events of them.
///
/// [`StreamProducer`](super::StreamProducer) is made of it, and so are the producers of other
/// languages, whose objects come as framed payloads.
#[derive(Debug)]
pub struct Outbox {
    publisher: Arc<dyn Publisher>,
    options: OutboxOptions,
    window: Option<Window>,
    /// How often waiting was ended.
    ended: AtomicU64,
    is_closed: AtomicBool,
    metrics: StreamMetrics,
}

impl Outbox {
    /// An outbox in front of a publisher.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for more than [`Share::MOST`] consumers, or one that is named twice.
    pub fn new(publisher: Arc<dyn Publisher>, options: OutboxOptions) -> Result<Self> {
        let mut names = options.consumers.clone();
        names.sort_unstable();
        names.dedup();
        if names.len() != options.consumers.len() || names.len() > Share::MOST as usize {
            return Err(Error::new(
                ErrorKind::Config,
                "make a producer",
                "its consumers are named twice, or are too many",
            )
            .with_hint("name each group of consumers once, and at most 1024 of them"));
        }
        let window = options.bound.map(Window::new);
        let (ended, is_closed) = (AtomicU64::new(0), AtomicBool::new(false));
        let metrics = StreamMetrics::default();
        Ok(Self { publisher, options, window, ended, is_closed, metrics })
    }

    /// What was counted so far.
    pub fn metrics(&self) -> &StreamMetrics {
        &self.metrics
    }

    /// The publisher.
    pub fn publisher(&self) -> &Arc<dyn Publisher> {
        &self.publisher
    }

    /// When a call that begins now has to end.
    pub fn deadline(&self) -> Option<Instant> {
        self.options.timeout.and_then(|timeout| Instant::now().checked_add(timeout))
    }

    /// References to payloads: small ones hold them, and large ones are stored, all at once. `evict`
    /// says of each whether consumers free it.
    ///
    /// # Errors
    /// [`ErrorKind::Full`] or [`ErrorKind::Timeout`] where there is no room within the bound,
    /// [`ErrorKind::Closed`] after [`close`](Self::close), else what the channel fails with; nothing is
    /// left behind.
    pub fn refer(
        &self,
        store: &Store,
        payloads: &[Framed<'_>],
        evict: &[bool],
        deadline: Option<Instant>,
    ) -> Result<Vec<Reference>> {
        self.check_open("send an object")?;
        if !self.options.consumers.is_empty() && !store.connector().capabilities().deferred_keys {
            let cause =
                "its channel cannot tell which of several consumers are done with an object";
            return Err(Error::new(ErrorKind::Unsupported, "send an object", cause)
                .with("store", store.name())
                .with_hint("name no consumers, or use a store whose connector has deferred keys"));
        }
        let mut inside = 0;
        let mut references = payloads
            .iter()
            .zip(evict)
            .map(|(framed, evict)| match self.window {
                None if *evict && (inside == 0 || inside + framed.len() <= INLINE_OF_A_BATCH) => {
                    let reference = store.refer_inline(framed, self.options.inline_bytes)?;
                    inside += reference.as_ref().map_or(0, |_| framed.len());
                    Ok(reference)
                }
                // What is to stay must be in the store; and what is inside an event can neither be
                // dropped nor looked after.
                _ => Ok(None),
            })
            .collect::<Result<Vec<_>>>()?;
        let of = self.options.consumers.len() as u32; // at most Share::MOST
        let large: Vec<usize> =
            (0..references.len()).filter(|at| references[*at].is_none()).collect();
        let bytes_of = |at: usize| if evict[at] { payloads[at].len() as u64 } else { 0 };
        let bytes: u64 = large.iter().map(|at| bytes_of(*at)).sum();
        if let Some(window) = &self.window {
            window.admit(bytes, deadline, self.interrupt("send an object"), &self.metrics)?;
        }
        match self.store(store, payloads, &large, deadline) {
            Ok(stored) => {
                for (at, reference) in large.into_iter().zip(stored) {
                    if let (Some(window), true) = (&self.window, evict[at]) {
                        let (store, key) = (store.clone(), reference.key.clone());
                        window.hold(Entry { store, key, bytes: bytes_of(at), shares: of });
                    }
                    references[at] = Some(reference);
                }
            }
            Err(error) => {
                if let Some(window) = &self.window {
                    window.cancel(bytes, &self.metrics);
                }
                return Err(error);
            }
        }
        let referred = references.into_iter().flatten().zip(evict).map(|(mut reference, evict)| {
            reference.evict = *evict && reference.inline.is_none();
            reference
        });
        Ok(referred.collect())
    }

    fn store(
        &self,
        store: &Store,
        payloads: &[Framed<'_>],
        large: &[usize],
        deadline: Option<Instant>,
    ) -> Result<Vec<Reference>> {
        let options = PutOptions { ttl: self.options.ttl, deadline, ..PutOptions::default() };
        let refer = |key| Reference::new(Arc::clone(store.config()), key);
        let stored = match large {
            [] => Vec::new(),
            [at] => vec![refer(store.put_framed(&payloads[*at], &options)?)],
            _ => {
                let payloads = large.iter().map(|at| &payloads[*at]);
                store.put_framed_batch(payloads, &options)?.into_iter().map(refer).collect()
            }
        };
        let bytes: u64 = large.iter().map(|at| payloads[*at].len() as u64).sum();
        self.metrics.add(Count::StoredBytes, bytes);
        Ok(stored)
    }

    /// Publishes events of one topic together, whose objects are in `store`, if in any. When that
    /// fails, the objects are taken back. More than [`Message::MOST`] events become several messages,
    /// of which those before one that fails were published.
    ///
    /// # Errors
    /// What the broker fails with.
    pub fn publish(
        &self,
        topic: &str,
        store: Option<&Store>,
        mut events: Vec<Event>,
        deadline: Option<Instant>,
    ) -> Result<()> {
        loop {
            let rest = events.split_off(events.len().min(Message::MOST));
            let published = self.publish_message(topic, store, events, deadline);
            if published.is_err() {
                self.take_back(store, &rest);
            }
            if published.is_err() || rest.is_empty() {
                return published;
            }
            events = rest;
        }
    }

    fn publish_message(
        &self,
        topic: &str,
        store: Option<&Store>,
        mut events: Vec<Event>,
        deadline: Option<Instant>,
    ) -> Result<()> {
        let droppable =
            self.options.bound.is_some_and(|bound| bound.when_full == WhenFull::DropOldest);
        for event in &mut events {
            event.droppable = droppable && matches!(event.body, Body::Object(_));
        }
        let consumers = self.options.consumers.clone();
        let message = Message { topic: topic.to_owned(), consumers, events };
        let published = message
            .encode()
            .and_then(|bytes| self.publish_bytes(topic, &bytes, deadline))
            .map_err(|error| error.with("topic", topic));
        if published.is_err() {
            self.take_back(store, &message.events);
            return published;
        }
        let inline = message.events.iter().filter(|event| match &event.body {
            Body::Object(reference) => reference.inline.is_some(),
            Body::Value(_) => true,
            Body::End => false,
        });
        self.metrics.add(Count::Inline, inline.count() as u64);
        self.metrics.add(Count::Sent, message.events.len() as u64);
        self.metrics.add(Count::Messages, 1);
        Ok(())
    }

    /// Publishes a message; the wait for a broker that is full or away can be ended from outside.
    fn publish_bytes(&self, topic: &str, message: &[u8], deadline: Option<Instant>) -> Result<()> {
        self.check_open("publish a message")?;
        let interrupt = self.interrupt("publish a message");
        patiently(deadline, interrupt, |until| self.publisher.publish(topic, message, until))
    }

    fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.is_closed.load(Ordering::Acquire) { Err(closed(operation)) } else { Ok(()) }
    }

    /// What is asked while a wait that begins now goes on.
    fn interrupt(&self, operation: &'static str) -> impl Fn() -> Result<()> {
        let ended = self.ended.load(Ordering::Acquire);
        move || {
            self.check_open(operation)?;
            if self.ended.load(Ordering::Acquire) != ended {
                return Err(closed(operation));
            }
            self.options.interrupt.map_or(Ok(()), |interrupt| interrupt())
        }
    }

    /// Evicts the objects of events that were not published.
    pub fn take_back(&self, store: Option<&Store>, events: &[Event]) {
        for event in events {
            let Body::Object(reference) = &event.body else { continue };
            if reference.inline.is_some() {
                continue;
            }
            if let Some(store) = store {
                let _ = store.evict(&reference.key); // the first error is the one to report
            }
            if let Some(window) = &self.window {
                window.forget(&reference.key, &self.metrics);
            }
        }
    }

    /// Counts an object that a filter dropped.
    pub fn count_filtered(&self) {
        self.metrics.add(Count::Filtered, 1);
    }

    /// Closes the publisher. Waiting in other threads ends, and what begins later is refused.
    ///
    /// # Errors
    /// What the broker fails with.
    pub fn close(&self) -> Result<()> {
        self.is_closed.store(true, Ordering::Release);
        self.publisher.close()
    }

    /// Ends waiting for room, and for the broker, that has begun in other threads.
    pub fn stop_waiting(&self) {
        self.ended.fetch_add(1, Ordering::AcqRel);
    }
}
