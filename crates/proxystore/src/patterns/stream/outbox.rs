//! The part of a producer that knows no types: objects go into stores, events to the broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::event::{Body, Event, Message};
use super::metrics::{Count, StreamMetrics};
use super::window::{Bound, Entry, Window};
use crate::brokers::{Publisher, closed, patiently};
use crate::connectors::PutOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::payload::Framed;
use crate::reference::{Reference, Share};
use crate::store::Store;

/// How a producer sends; start from `OutboxOptions::default()`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OutboxOptions {
    /// Objects of at most so many bytes travel inside their event, and not through the store; 4096
    /// unless told, or what the store says if that is more. With a bound none does, nor do objects that
    /// consumers do not free.
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
            inline_bytes: 4096,
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
        let (ended, metrics) = (AtomicU64::new(0), StreamMetrics::default());
        Ok(Self { publisher, options, window, ended, metrics })
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
    /// [`ErrorKind::Full`] or [`ErrorKind::Timeout`] where there is no room within the bound, else
    /// what the channel fails with; nothing is left behind.
    pub fn refer(
        &self,
        store: &Store,
        payloads: &[Framed<'_>],
        evict: &[bool],
        deadline: Option<Instant>,
    ) -> Result<Vec<Reference>> {
        if !self.options.consumers.is_empty() && !store.connector().capabilities().deferred_keys {
            let cause =
                "its channel cannot tell which of several consumers are done with an object";
            return Err(Error::new(ErrorKind::Unsupported, "send an object", cause)
                .with("store", store.name())
                .with_hint("name no consumers, or use a store whose connector has deferred keys"));
        }
        let mut references = payloads
            .iter()
            .zip(evict)
            .map(|(framed, evict)| match self.window {
                None if *evict => store.refer_inline(framed, self.options.inline_bytes),
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
            window.admit(bytes, deadline, self.options.interrupt, &self.metrics)?;
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
    /// fails, the objects are taken back.
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
        let droppable = self.window.is_some();
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
        let ended = self.ended.load(Ordering::Acquire);
        let interrupt = || {
            if self.ended.load(Ordering::Acquire) != ended {
                return Err(closed("publish a message"));
            }
            self.options.interrupt.map_or(Ok(()), |interrupt| interrupt())
        };
        patiently(deadline, interrupt, |until| self.publisher.publish(topic, message, until))
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

    /// Ends waiting in other threads, and closes the publisher.
    ///
    /// # Errors
    /// What the broker fails with.
    pub fn close(&self) -> Result<()> {
        self.stop_waiting();
        self.publisher.close()
    }

    /// Ends waiting for room, and for the broker, that has begun in other threads.
    pub fn stop_waiting(&self) {
        self.ended.fetch_add(1, Ordering::AcqRel);
        if let Some(window) = &self.window {
            window.end_waiting();
        }
    }
}
