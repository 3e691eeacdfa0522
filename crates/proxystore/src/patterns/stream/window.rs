//! Back-pressure: how many bytes of objects may wait for their consumers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::metrics::{Count, StreamMetrics};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::store::Store;

/// A bound for the objects that a producer stored and nobody has freed yet.
///
/// Whether an object is freed is asked of its channel, so the bound holds over any broker, and counts
/// what crashed consumers left too. It is that of one producer. Objects larger than the bound travel
/// alone; objects sent with `evict` off are not counted, as nobody frees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// Bytes of objects, as stored.
    pub bytes: u64,
    /// What happens to an object that does not fit.
    pub when_full: WhenFull,
}

/// What happens to an object that does not fit into the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// The producer waits until consumers have freed enough, or its timeout passes.
    Wait,
    /// The oldest objects are dropped; their events are passed over by consumers.
    DropOldest,
    /// Sending fails with an error of kind `Full`.
    Refuse,
}

/// Nobody tells a producer that an object was freed, so it looks, at intervals that grow.
const FIRST_LOOK: Duration = Duration::from_micros(200);
const LAST_LOOK: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct Window {
    bound: Bound,
    ledger: Mutex<Ledger>,
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Ledger {
    entries: VecDeque<Entry>,
    /// Of the entries, and of what is being stored.
    bytes: u64,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) store: Store,
    pub(super) key: Key,
    pub(super) bytes: u64,
    pub(super) shares: u32,
}

impl Entry {
    fn is_gone(&self) -> Result<bool> {
        Ok(!self.store.connector().exists(&self.key)?)
    }
}

impl Window {
    pub(super) fn new(bound: Bound) -> Self {
        Self { bound, ledger: Mutex::default(), closed: AtomicBool::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for so many bytes, which count from now on.
    pub(super) fn admit(
        &self,
        bytes: u64,
        deadline: Option<Instant>,
        interrupt: Option<fn() -> Result<()>>,
        metrics: &StreamMetrics,
    ) -> Result<()> {
        let fits = |ledger: &Ledger| {
            ledger.bytes == 0 || ledger.bytes.saturating_add(bytes) <= self.bound.bytes
        };
        let (mut started, mut pause) = (None, FIRST_LOOK);
        let admitted = loop {
            let mut ledger = self.lock();
            if fits(&ledger) {
                ledger.bytes += bytes;
                metrics.set(Count::InFlight, ledger.bytes);
                break Ok(());
            }
            // Looking takes a while, and others may send meanwhile what fits.
            let entries = std::mem::take(&mut ledger.entries);
            drop(ledger);
            let outcome = self.look(entries, bytes, metrics);
            if outcome.is_err() {
                break outcome.map(drop);
            }
            if outcome? {
                continue;
            }
            if self.closed.load(Ordering::Acquire) {
                break Err(crate::brokers::closed("send an object"));
            }
            let now = Instant::now();
            started.get_or_insert(now);
            match self.bound.when_full {
                WhenFull::Refuse => {
                    metrics.add(Count::Refused, 1);
                    break Err(self.full(ErrorKind::Full, bytes));
                }
                _ if deadline.is_some_and(|deadline| deadline <= now) => {
                    break Err(self.full(ErrorKind::Timeout, bytes));
                }
                _ => {}
            }
            if let Err(interrupted) = interrupt.map_or(Ok(()), |interrupt| interrupt()) {
                break Err(interrupted);
            }
            let left = deadline.map_or(pause, |deadline| deadline - now);
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(LAST_LOOK);
        };
        if let Some(started) = started {
            metrics.add_time(Count::Waited, started.elapsed());
        }
        admitted
    }

    /// Takes what is gone off the ledger, or drops what is oldest; whether anything changed.
    fn look(
        &self,
        mut entries: VecDeque<Entry>,
        bytes: u64,
        metrics: &StreamMetrics,
    ) -> Result<bool> {
        let (mut freed, mut failure) = (0, None);
        entries.retain(|entry| {
            if failure.is_some() || self.is_enough(freed, bytes) {
                return true;
            }
            let gone = entry.is_gone().unwrap_or_else(|error| {
                failure = Some(error);
                false
            });
            freed += if gone { entry.bytes } else { 0 };
            !gone
        });
        while self.bound.when_full == WhenFull::DropOldest
            && failure.is_none()
            && !self.is_enough(freed, bytes)
            && let Some(oldest) = entries.pop_front()
        {
            match oldest.store.evict_shared(&oldest.key, oldest.shares) {
                Ok(()) => {
                    freed += oldest.bytes;
                    metrics.add(Count::Dropped, 1);
                }
                Err(error) => {
                    failure = Some(error);
                    entries.push_front(oldest);
                }
            }
        }
        let mut ledger = self.lock();
        entries.append(&mut ledger.entries);
        ledger.entries = entries;
        ledger.bytes = ledger.bytes.saturating_sub(freed);
        metrics.set(Count::InFlight, ledger.bytes);
        failure.map_or(Ok(freed > 0), Err)
    }

    fn is_enough(&self, freed: u64, bytes: u64) -> bool {
        let in_flight = self.lock().bytes.saturating_sub(freed);
        in_flight == 0 || in_flight.saturating_add(bytes) <= self.bound.bytes
    }

    /// Remembers an object that was admitted and is stored now.
    pub(super) fn hold(&self, entry: Entry) {
        self.lock().entries.push_back(entry);
    }

    /// Takes back what was admitted and not stored.
    pub(super) fn cancel(&self, bytes: u64, metrics: &StreamMetrics) {
        let mut ledger = self.lock();
        ledger.bytes = ledger.bytes.saturating_sub(bytes);
        metrics.set(Count::InFlight, ledger.bytes);
    }

    /// Forgets an object that was held, and evicted since.
    pub(super) fn forget(&self, key: &Key, metrics: &StreamMetrics) {
        let mut ledger = self.lock();
        if let Some(at) = ledger.entries.iter().position(|entry| entry.key == *key) {
            let bytes = ledger.entries.remove(at).map_or(0, |entry| entry.bytes);
            ledger.bytes = ledger.bytes.saturating_sub(bytes);
            metrics.set(Count::InFlight, ledger.bytes);
        }
    }

    /// Ends waiting for room, now and later.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    fn full(&self, kind: ErrorKind, bytes: u64) -> Error {
        Error::new(kind, "send an object", "consumers have not freed enough of those before")
            .with("bytes", bytes)
            .with("in_flight", self.lock().bytes)
            .with("bound", self.bound.bytes)
            .with_hint("add consumers, raise the bound, wait longer, or let the oldest be dropped")
    }
}
