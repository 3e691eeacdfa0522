//! The part of a consumer that knows no types: events as they arrive, and receipts for them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use super::claim::Claim;
use super::event::{Body, Event, Message, Metadata};
use super::metrics::{Count, StreamMetrics};
use crate::brokers::{Delivery, Guarantee, Subscriber, Tag};
use crate::condition::Condition;
use crate::error::{Error, ErrorKind, Result};
use crate::fork;
use crate::reference::{Reference, Share};
use crate::store::StoreFactory;

/// Receives events, one by one.
///
/// [`StreamConsumer`](super::StreamConsumer) is made of it, and so are the consumers of other
/// languages.
#[derive(Debug)]
pub struct Inbox {
    subscriber: Arc<dyn Subscriber>,
    state: Mutex<State>,
    changed: Condition,
    metrics: Arc<StreamMetrics>,
    /// What it holds is not for a forked child.
    process: u64,
}

#[derive(Debug, Default)]
struct State {
    arrivals: VecDeque<Arrival>,
    /// Some thread is receiving; the others wait for what it brings.
    is_receiving: bool,
    closed: bool,
}

/// An event that arrived.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Its topic.
    pub topic: Arc<str>,
    /// What it tells of.
    pub body: Body,
    /// What its producer says of the object.
    pub metadata: Metadata,
    /// By which it is acknowledged.
    pub receipt: Receipt,
    /// The how-manieth delivery this is, from 1 on.
    pub attempts: u32,
    /// Its object may be gone for a good reason.
    doubtful: bool,
}

/// By which an event is acknowledged; copies are of the same event.
#[derive(Debug, Clone)]
pub struct Receipt(Arc<Open>);

#[derive(Debug)]
struct Open {
    message: Arc<OpenMessage>,
    claim: OnceLock<Arc<Claim>>,
    acknowledged: AtomicBool,
    process: u64,
}

/// A message some of whose events were not acknowledged.
#[derive(Debug)]
struct OpenMessage {
    subscriber: Arc<dyn Subscriber>,
    tag: Tag,
    left: AtomicUsize,
    metrics: Arc<StreamMetrics>,
}

impl Receipt {
    /// Says that the event was dealt with: its object is freed, if it was to be, and once this was
    /// said of all events of a batch, it is not delivered again. Saying it again is fine.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] in a forked child, as the event is its parent's; else what the channel
    /// or the broker fails with. It may be called again.
    pub fn acknowledge(&self) -> Result<()> {
        let open = &self.0;
        check_process(open.process, "acknowledge an event")?;
        if let Some(claim) = open.claim.get() {
            claim.acknowledged()?;
        }
        if open.acknowledged.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        open.message.count_down().inspect_err(|_| {
            open.message.left.fetch_add(1, Ordering::AcqRel);
            open.acknowledged.store(false, Ordering::Release);
        })
    }

    /// Whether it was acknowledged.
    pub fn is_acknowledged(&self) -> bool {
        self.0.acknowledged.load(Ordering::Acquire)
    }

    /// Who frees the object, if that is a matter of acknowledging.
    pub fn claim(&self) -> Option<&Arc<Claim>> {
        self.0.claim.get()
    }
}

impl Arrival {
    /// Leaves freeing the object to acknowledging, as it is anyhow where the broker delivers until
    /// then. It is a matter of proxies made from now on; whether anything changed.
    pub fn hold(&self) -> bool {
        let claim = &self.receipt.0.claim;
        match &self.body {
            Body::Object(reference) if reference.evict && reference.inline.is_none() => {
                claim.set(Arc::new(Claim::new((**reference).clone()))).is_ok()
            }
            _ => false,
        }
    }

    /// Whether this is another delivery of the same event. Of objects that nobody frees, and of those
    /// inside events, that is not known.
    pub fn repeats(&self, other: &Self) -> bool {
        match (&self.body, &other.body) {
            (Body::Object(one), Body::Object(two)) if self.attempts > 1 => {
                let is_same = one == two && self.topic == other.topic;
                is_same && self.metadata == other.metadata && one.evict && one.inline.is_none()
            }
            _ => false,
        }
    }

    /// Whether its object is gone for a good reason: it was dropped for want of room, or was dealt
    /// with before its event could be acknowledged. If that cannot be found out, whoever uses the
    /// object will be told.
    pub fn is_done(&self) -> bool {
        let Body::Object(reference) = &self.body else { return false };
        let Reference { key, share, evict, inline, .. } = &**reference;
        if !self.doubtful || inline.is_some() || !evict {
            return false;
        }
        let store = StoreFactory::from_reference((**reference).clone()).store();
        let looked = store.and_then(|store| match share {
            Some(share) if self.attempts > 1 => store.is_given_back(key, *share),
            _ => Ok(!store.connector().exists(key)?),
        });
        looked.unwrap_or(false)
    }
}

impl OpenMessage {
    fn count_down(&self) -> Result<()> {
        if self.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return Ok(());
        }
        self.subscriber.acknowledge(std::slice::from_ref(&self.tag))?;
        self.metrics.add(Count::Acknowledged, 1);
        Ok(())
    }
}

impl Inbox {
    /// An inbox behind a subscriber.
    pub fn new(subscriber: Arc<dyn Subscriber>) -> Self {
        Self {
            subscriber,
            state: Mutex::default(),
            changed: Condition::default(),
            metrics: Arc::default(),
            process: fork::generation(),
        }
    }

    /// What was counted so far.
    pub fn metrics(&self) -> &StreamMetrics {
        &self.metrics
    }

    /// The subscriber.
    pub fn subscriber(&self) -> &Arc<dyn Subscriber> {
        &self.subscriber
    }

    /// Frees the object of an event that a filter dropped, and acknowledges it.
    ///
    /// # Errors
    /// What the channel or the broker fails with.
    pub fn pass_over(&self, body: &Body, receipt: &Receipt) -> Result<()> {
        check_process(self.process, "pass over an event")?;
        self.metrics.add(Count::Filtered, 1);
        match (body, receipt.claim()) {
            (_, Some(claim)) => claim.dropped(),
            (Body::Object(reference), None) if reference.inline.is_none() && reference.evict => {
                StoreFactory::from_reference((**reference).clone()).store()?.free(reference)?;
            }
            _ => {}
        }
        receipt.acknowledge()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next event; `None` when `deadline` passes first.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for a message that is no stream's, which does not come again; else what
    /// the broker or the channel fails with.
    pub fn next(&self, deadline: Option<Instant>) -> Result<Option<Arrival>> {
        check_process(self.process, "receive an event")?;
        loop {
            let mut state = self.lock();
            while state.arrivals.is_empty() && state.is_receiving {
                if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                    return Ok(None);
                }
                state = self.changed.wait(state, deadline);
            }
            if state.closed {
                return Err(crate::brokers::closed("receive an event"));
            }
            if let Some(arrival) = state.arrivals.pop_front() {
                drop(state);
                if arrival.is_done() {
                    self.metrics.add(Count::Skipped, 1);
                    if let Some(claim) = arrival.receipt.claim() {
                        claim.dropped(); // whoever dealt with it may have died while it freed it
                    }
                    arrival.receipt.acknowledge()?;
                    continue;
                }
                self.metrics.add(Count::Received, 1);
                return Ok(Some(arrival));
            }
            state.is_receiving = true;
            drop(state);
            let received = self.receive(deadline);
            let mut state = self.lock();
            state.is_receiving = false;
            let outcome = received.map(|arrivals| arrivals.map(|new| state.arrivals.extend(new)));
            drop(state);
            self.changed.notify_all();
            if outcome?.is_none() {
                return Ok(None);
            }
        }
    }

    /// The events of the next message that are to be dealt with.
    fn receive(&self, deadline: Option<Instant>) -> Result<Option<Vec<Arrival>>> {
        let Some(Delivery { message, tag, attempts }) = self.subscriber.receive(deadline)? else {
            return Ok(None);
        };
        self.metrics.add(Count::Messages, 1);
        self.metrics.add(Count::Repeated, u64::from(attempts > 1));
        let Message { topic, consumers, events } = match Message::decode(&message) {
            Ok(message) => message,
            Err(error) => {
                if error.kind() == ErrorKind::Corrupt {
                    self.subscriber.acknowledge(&[tag])?; // it would be no better the next time
                }
                return Err(error.with("bytes", message.len()));
            }
        };
        let number = consumers.iter().position(|group| group == self.subscriber.group());
        let of = consumers.len() as u32; // as many as a message may have
        let share = number.map(|number| Share { number: number as u32, of });
        let topic: Arc<str> = topic.into();
        let message = Arc::new(OpenMessage {
            subscriber: Arc::clone(&self.subscriber),
            tag,
            left: AtomicUsize::new(events.len()),
            metrics: Arc::clone(&self.metrics),
        });
        if events.is_empty() {
            message.left.store(1, Ordering::Release);
            message.count_down()?;
        }
        let mut arrivals = Vec::with_capacity(events.len());
        for mut event in events {
            if let Body::Object(reference) = &mut event.body {
                reference.share = share;
                // Not among those for whom it is kept: it is theirs to free.
                reference.evict &= of == 0 || share.is_some();
            }
            let (message, claim) = (Arc::clone(&message), OnceLock::new());
            let (acknowledged, process) = (AtomicBool::new(false), self.process);
            let receipt = Receipt(Arc::new(Open { message, claim, acknowledged, process }));
            let doubtful = event.droppable || attempts > 1;
            let (topic, Event { body, metadata, .. }) = (Arc::clone(&topic), event);
            let arrival = Arrival { topic, body, metadata, receipt, attempts, doubtful };
            if self.subscriber.guarantee() == Guarantee::AtLeastOnce {
                arrival.hold();
            }
            arrivals.push(arrival);
        }
        Ok(Some(arrivals))
    }

    /// Gives back what was not acknowledged, where the broker takes it, and ends waiting in other
    /// threads.
    ///
    /// # Errors
    /// What the broker fails with.
    pub fn close(&self) -> Result<()> {
        if self.process != fork::generation() {
            return Ok(()); // it is the parent's
        }
        let mut state = self.lock();
        state.closed = true;
        let left = std::mem::take(&mut state.arrivals);
        drop(state);
        self.changed.notify_all();
        if self.subscriber.guarantee() == Guarantee::AtMostOnce {
            // The rest of a batch comes to nobody.
            for Arrival { body, .. } in &left {
                if let Body::Object(reference) = body {
                    let _ = StoreFactory::from_reference((**reference).clone())
                        .store()
                        .and_then(|store| store.free(reference));
                }
            }
        }
        self.subscriber.close()
    }
}

/// Refuses what only the process that subscribed may do.
fn check_process(process: u64, operation: &'static str) -> Result<()> {
    if process == fork::generation() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unsupported, operation, "its process forked")
        .with_hint("make a consumer of its own in each process"))
}
