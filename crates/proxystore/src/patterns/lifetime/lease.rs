//! Lifetimes that end at a time.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::{ContextLifetime, Lifetime, ended};
use crate::error::Result;
use crate::fork::PerProcess;
use crate::key::Key;
use crate::patterns::schedule::{self, Scheduled};
use crate::store::Store;

/// A lifetime that ends at a time, unless it is extended; dropping it ends it at once.
///
/// On channels with times to live the objects vanish then even if this process is gone, and from
/// the caches of this process too. On others they are evicted by this process.
///
/// ```
/// # fn main() -> proxystore::Result<()> {
/// use std::time::Duration;
/// use proxystore::Store;
/// use proxystore::patterns::{LeaseLifetime, Lifetime};
/// let store = Store::open("memory://lease-lifetime-example")?;
/// let lease = LeaseLifetime::new(Duration::from_secs(30));
/// let key = store.put_in(&lease, "for half a minute")?;
/// lease.extend(Duration::from_secs(30))?; // for a minute, that is
/// lease.end_in(Duration::ZERO)?;
/// assert!(lease.is_done() && !store.exists(&key)?);
/// # Ok(()) }
/// ```
pub struct LeaseLifetime {
    shared: Arc<Shared>,
}

struct Shared {
    scope: ContextLifetime,
    start: Instant,
    /// In milliseconds after the start.
    end: AtomicU64,
    /// Taken by all that change the end or the objects, so that every object has the same end.
    alarm: PerProcess<Mutex<Option<Scheduled>>>,
}

impl LeaseLifetime {
    /// A lifetime that ends after `ttl`, counted from now.
    pub fn new(ttl: Duration) -> Self {
        let shared = Shared {
            scope: ContextLifetime::new(),
            start: Instant::now(),
            end: AtomicU64::new(millis(ttl)),
            alarm: PerProcess::new(Mutex::default),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Lets it last longer by `more`.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) when it has ended already, else what the
    /// channel fails with; then the end stays where it was.
    pub fn extend(&self, more: Duration) -> Result<()> {
        self.shared.change_end(|end| end.saturating_add(millis(more)))
    }

    /// Lets it end `ttl` from now, be that later or sooner; zero ends it at once.
    ///
    /// # Errors
    /// As [`extend`](Self::extend).
    pub fn end_in(&self, ttl: Duration) -> Result<()> {
        if ttl.is_zero() {
            return self.close();
        }
        let end = self.shared.start.elapsed().saturating_add(ttl);
        self.shared.change_end(|_| millis(end))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Scheduled>> {
        self.alarm.get().lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left(&self) -> Duration {
        let end = Duration::from_millis(self.end.load(Ordering::Acquire));
        end.saturating_sub(self.start.elapsed())
    }

    fn is_done(&self) -> bool {
        self.scope.is_done() || self.left().is_zero()
    }

    fn change_end(self: &Arc<Self>, end: impl FnOnce(u64) -> u64) -> Result<()> {
        let mut alarm = self.lock();
        if self.is_done() {
            return Err(ended());
        }
        let before = self.end.load(Ordering::Acquire);
        self.end.store(end(before), Ordering::Release);
        self.scope
            .expire(self.left())
            .inspect_err(|_| self.end.store(before, Ordering::Release))?;
        if alarm.is_some() {
            *alarm = self.schedule()?;
        }
        Ok(())
    }

    /// Makes sure that this process ends it; `None` when that is too far away to matter.
    fn schedule(self: &Arc<Self>) -> Result<Option<Scheduled>> {
        let lifetime = Arc::downgrade(self);
        let when = Instant::now().checked_add(self.left());
        when.map(|when| schedule::at(when, move || end(&lifetime))).transpose()
    }

    fn add_key(self: &Arc<Self>, store: &Store, key: Key) -> Result<()> {
        let mut alarm = self.lock();
        if self.is_done() {
            return Err(ended());
        }
        if store.connector().capabilities().ttl {
            store.expire(std::slice::from_ref(&key), Some(self.left()))?;
        }
        if alarm.is_none() {
            *alarm = self.schedule()?; // with the first object of this process
        }
        self.scope.add_key(store, key)
    }
}

fn end(lifetime: &Weak<Shared>) {
    let Some(shared) = lifetime.upgrade() else {
        return;
    };
    let mut alarm = shared.lock();
    if !shared.is_done() {
        // Extended since. Without a thread for it the channel ends it, where it can.
        *alarm = shared.schedule().ok().flatten();
        return;
    }
    drop(alarm);
    let _ = shared.scope.close(); // nobody is there to be told
}

impl Lifetime for LeaseLifetime {
    fn add_key(&self, store: &Store, key: Key) -> Result<()> {
        self.shared.add_key(store, key)
    }

    fn close(&self) -> Result<()> {
        let alarm = self.shared.lock().take();
        drop(alarm); // cancels it, outside the lock
        self.shared.scope.close()
    }

    fn is_done(&self) -> bool {
        self.shared.is_done()
    }

    fn left(&self) -> Option<Duration> {
        Some(if self.is_done() { Duration::ZERO } else { self.shared.left() })
    }
}

impl Drop for LeaseLifetime {
    fn drop(&mut self) {
        let _ = self.close(); // nobody is there to be told; `close` tells
    }
}

impl fmt::Debug for LeaseLifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseLifetime({:?} left, {:?})", self.left(), self.shared.scope)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
