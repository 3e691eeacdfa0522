//! Back-pressure: how many bytes of objects may wait for their consumers.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::metrics::{Count, StreamMetrics};
use crate::error::{Error, ErrorKind, Result};
use crate::fork::PerProcess;
use crate::key::Key;
use crate::store::Store;

/// A bound for the objects that a producer stored and nobody has freed yet.
///
/// Whether an object is freed is asked of its channel, so the bound holds over any broker, and counts
/// what crashed consumers left too. It is that of one producer, in one process. Objects larger than the
/// bound travel alone; objects sent with `evict` off are not counted, as nobody frees them.
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

/// So many objects are looked at before the time is looked at again.
const LOOKS: usize = 32;

#[derive(Debug)]
pub(super) struct Window {
    bound: Bound,
    /// A forked child starts with nothing: what its parent sent is its parent's to look after.
    own: PerProcess<Own>,
}

#[derive(Debug, Default)]
struct Own {
    ledger: Mutex<Ledger>,
    /// Held while the channel is asked; who else waits for room learns from that.
    looking: Mutex<()>,
}

#[derive(Debug, Default)]
struct Ledger {
    /// Oldest first.
    entries: VecDeque<Entry>,
    /// Which of them to look at next.
    next: usize,
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
        Self { bound, own: PerProcess::new(Own::default) }
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.own.get().ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for so many bytes, which count from now on.
    pub(super) fn admit(
        &self,
        bytes: u64,
        deadline: Option<Instant>,
        interrupt: impl Fn() -> Result<()>,
        metrics: &StreamMetrics,
    ) -> Result<()> {
        let (mut started, mut pause, mut looked) = (None, FIRST_LOOK, 0);
        let admitted = loop {
            let mut ledger = self.lock();
            if self.fits(&ledger, bytes) {
                ledger.bytes += bytes;
                metrics.set(Count::InFlight, ledger.bytes);
                break Ok(());
            }
            let entries = ledger.entries.len();
            drop(ledger);
            match self.look(bytes, metrics) {
                Err(error) => break Err(error),
                Ok(true) => {
                    looked = 0;
                    continue;
                }
                Ok(false) => looked += LOOKS,
            }
            if let Err(interrupted) = interrupt() {
                break Err(interrupted);
            }
            let now = Instant::now();
            started.get_or_insert(now);
            if self.bound.when_full != WhenFull::Refuse
                && deadline.is_some_and(|deadline| deadline <= now)
            {
                break Err(self.full(ErrorKind::Timeout, bytes));
            }
            if looked < entries {
                continue; // there are more to look at
            }
            if self.bound.when_full == WhenFull::Refuse {
                metrics.add(Count::Refused, 1);
                break Err(self.full(ErrorKind::Full, bytes));
            }
            let left = deadline.map_or(pause, |deadline| deadline - now);
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(LAST_LOOK);
            looked = 0;
        };
        if let Some(started) = started {
            metrics.add_time(Count::Waited, started.elapsed());
        }
        admitted
    }

    fn fits(&self, ledger: &Ledger, bytes: u64) -> bool {
        ledger.bytes == 0 || ledger.bytes.saturating_add(bytes) <= self.bound.bytes
    }

    /// Looks at some objects, and takes off the ledger what is gone, or drops what is oldest; whether
    /// anything changed.
    fn look(&self, bytes: u64, metrics: &StreamMetrics) -> Result<bool> {
        let _alone = self.own.get().looking.lock().unwrap_or_else(PoisonError::into_inner);
        let drops = self.bound.when_full == WhenFull::DropOldest;
        let mut changed = false;
        for _ in 0..LOOKS {
            let mut ledger = self.lock();
            if self.fits(&ledger, bytes) {
                return Ok(true);
            }
            let at = if drops || ledger.next >= ledger.entries.len() { 0 } else { ledger.next };
            // Asking takes a while, and others may send meanwhile what fits.
            let Some(entry) = ledger.entries.remove(at) else { return Ok(changed) };
            drop(ledger);
            let outcome = entry.is_gone().and_then(|gone| {
                if drops && !gone {
                    entry.store.evict_shared(&entry.key, entry.shares)?;
                    metrics.add(Count::Dropped, 1);
                }
                Ok(gone || drops)
            });
            let mut ledger = self.lock();
            if let Ok(true) = outcome {
                ledger.bytes = ledger.bytes.saturating_sub(entry.bytes);
                ledger.next = at;
                metrics.set(Count::InFlight, ledger.bytes);
                changed = true;
            } else {
                let at = at.min(ledger.entries.len());
                ledger.entries.insert(at, entry);
                ledger.next = at + 1;
                outcome?;
            }
        }
        Ok(changed)
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

    fn full(&self, kind: ErrorKind, bytes: u64) -> Error {
        Error::new(kind, "send an object", "consumers have not freed enough of those before")
            .with("bytes", bytes)
            .with("in_flight", self.lock().bytes)
            .with("bound", self.bound.bytes)
            .with_hint("add consumers, raise the bound, wait longer, or let the oldest be dropped")
    }
}
