//! Threads that send batches by age sleep until these are due.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

/// Where they sleep, until their producer ends.
#[derive(Debug, Default)]
pub(super) struct Flusher {
    has_stopped: Mutex<bool>,
    changed: Condvar,
}

impl Flusher {
    /// Sleeps until then; false when there will be nothing more.
    pub(super) fn sleep_until(&self, due: Instant) -> bool {
        let has_stopped = self.has_stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let left = due.saturating_duration_since(Instant::now());
        let woken = self.changed.wait_timeout_while(has_stopped, left, |stopped| !*stopped);
        !*woken.unwrap_or_else(PoisonError::into_inner).0
    }

    pub(super) fn stop(&self) {
        *self.has_stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }
}
