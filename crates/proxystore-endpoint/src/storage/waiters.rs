//! Callers that wait for an object, woken when something is stored under its id and never otherwise.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Notify;

/// Waiters by id.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    by_id: HashMap<Arc<str>, Waiting>,
    count: u64,
}

#[derive(Debug, Default)]
struct Waiting {
    filled: Arc<Notify>,
    count: u64,
}

impl Waiters {
    /// One more for an id. Must [`leave`](Self::leave) again.
    pub(super) fn enter(&mut self, id: &Arc<str>) -> Arc<Notify> {
        self.count += 1;
        let waiting = self.by_id.entry(Arc::clone(id)).or_default();
        waiting.count += 1;
        Arc::clone(&waiting.filled)
    }

    pub(super) fn leave(&mut self, id: &str) {
        let Some(waiting) = self.by_id.get_mut(id) else { return };
        self.count -= 1;
        waiting.count -= 1;
        if waiting.count == 0 {
            self.by_id.remove(id);
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn wake(&self, id: &str) {
        if self.count > 0
            && let Some(waiting) = self.by_id.get(id)
        {
            waiting.filled.notify_waiters();
        }
    }

    pub(super) fn wake_all(&self) {
        self.by_id.values().for_each(|waiting| waiting.filled.notify_waiters());
    }
}
