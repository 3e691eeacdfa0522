//! A condition variable that costs nothing to notify while nobody waits.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, MutexGuard, PoisonError};
use std::time::Instant;

/// That of the standard library makes a system call each time. Locks that are poisoned are as good as
/// any to whoever waits here.
#[derive(Debug, Default)]
pub(crate) struct Condition {
    changed: Condvar,
    /// Changes under the lock of what is waited for, so that whoever held it since sees it.
    waiting: AtomicUsize,
}

impl Condition {
    pub(crate) const fn new() -> Self {
        Self { changed: Condvar::new(), waiting: AtomicUsize::new(0) }
    }

    /// Waits for a change, and no longer than until then.
    pub(crate) fn wait<'a, T>(
        &self,
        state: MutexGuard<'a, T>,
        until: Option<Instant>,
    ) -> MutexGuard<'a, T> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let state = match until {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        state
    }

    /// Tells all that wait; what they wait for was changed under its lock, now or before.
    pub(crate) fn notify_all(&self) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.changed.notify_all();
        }
    }

    /// Tells one that waits; all wait for the same.
    pub(crate) fn notify_one(&self) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.changed.notify_one();
        }
    }
}
