//! When batches are due by age, and the thread that is told.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use crate::error::{Error, Result};

/// When the next batch is due, for the thread that sends those.
#[derive(Debug, Default)]
pub(super) struct Flusher {
    state: Mutex<FlusherState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct FlusherState {
    is_running: bool,
    stopped: bool,
    due: Option<Instant>,
}

impl Flusher {
    /// Sees to it that it wakes at this time, if not before.
    pub(super) fn note(&self, when: Instant) {
        let mut state = self.lock();
        state.due = Some(state.due.map_or(when, |due| due.min(when)));
    }

    fn lock(&self) -> MutexGuard<'_, FlusherState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `run` called in a thread of its own, once, and tells it of the time.
    pub(super) fn wake_at(
        self: &Arc<Self>,
        when: Instant,
        run: impl FnOnce(&Self) + Send + 'static,
    ) -> Result<()> {
        let mut state = self.lock();
        state.due = Some(state.due.map_or(when, |due| due.min(when)));
        if state.is_running || state.stopped {
            self.changed.notify_all();
            return Ok(());
        }
        let flusher = Arc::clone(self);
        thread::Builder::new()
            .name("proxystore-flush".to_owned())
            .spawn(move || run(&flusher))
            .map_err(|source| Error::io("send batches by age", source))?;
        state.is_running = true;
        Ok(())
    }

    /// Sleeps until something is due; false when there will be nothing more.
    pub(super) fn sleep(&self) -> bool {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            match state.due {
                _ if state.stopped => return false,
                Some(due) if due <= now => {
                    state.due = None;
                    return true;
                }
                Some(due) => {
                    let waited = self.changed.wait_timeout(state, due - now);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                None => {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }
}
