//! A condition variable that costs nothing to notify while nobody waits.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, MutexGuard, PoisonError};
use std::time::Instant;

/// That of the standard library makes a system call for every message.
#[derive(Debug, Default)]
pub(super) struct Signal {
    changed: Condvar,
    /// Changes under the lock of what is waited for, so that whoever held it since sees it.
    waiting: AtomicUsize,
}

impl Signal {
    /// Waits for a change, and no longer than until then.
    pub(super) fn wait<'a, T>(
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
    pub(super) fn notify(&self) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.changed.notify_all();
        }
    }
}
