//! Fetching in the background.

use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use proxystore::payload::Received;
use proxystore::reference::Wait;
use proxystore::store::Waiting;
use proxystore::{Access, Key, Store, fork};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict};

use super::State;
use crate::error::from_python;

/// A fetch in the background.
pub(super) struct Pending {
    /// The process whose thread fetches: in a forked child that thread does not exist.
    process: u64,
    outcome: Mutex<Option<proxystore::Result<Option<Received>>>>,
    done: Condvar,
}

impl Pending {
    pub(super) fn new() -> Self {
        Self { process: fork::generation(), outcome: Mutex::new(None), done: Condvar::new() }
    }

    pub(super) fn is_ours(self: &Arc<Self>) -> bool {
        self.process == fork::generation()
    }

    /// Starts to fetch.
    pub(super) fn start(
        self: &Arc<Self>,
        py: Python<'_>,
        inner: &State,
        key: Key,
        wait: Option<Wait>,
    ) -> PyResult<()> {
        let (fetch, store, access) = (Arc::downgrade(self), inner.store.clone(), inner.access);
        let fetch = move || {
            let outcome = fetch_while_wanted(&fetch, &store, &key, wait, access);
            if let Some(fetch) = fetch.upgrade() {
                fetch.finish(outcome);
            }
        };
        let started = if inner.keys.has_foreign() {
            start_python_thread(py, fetch)
        } else {
            let thread = std::thread::Builder::new().name(FETCH_THREAD.to_owned());
            thread.spawn(fetch).map(drop).map_err(PyErr::from)
        };
        started.inspect_err(|error| {
            self.finish(Err(from_python("resolve in the background", error.clone_ref(py))));
        })
    }

    fn finish(&self, outcome: proxystore::Result<Option<Received>>) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.done.notify_all();
    }

    /// The outcome, `None` when there is none by the deadline; Ctrl-C is noticed while waiting.
    pub(super) fn wait(
        &self,
        py: Python<'_>,
        deadline: Option<Instant>,
    ) -> PyResult<Option<proxystore::Result<Option<Received>>>> {
        loop {
            let is_late = deadline.is_some_and(|deadline| deadline <= Instant::now());
            let outcome = py.detach(|| {
                let guard = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
                let left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
                let timeout = left.map_or(STEP, |left| left.min(STEP));
                let empty = |outcome: &mut Option<_>| outcome.is_none();
                match self.done.wait_timeout_while(guard, timeout, empty) {
                    Ok((mut guard, _)) => guard.take(),
                    Err(poisoned) => poisoned.into_inner().0.take(),
                }
            });
            if outcome.is_some() || is_late {
                return Ok(outcome);
            }
            py.check_signals()?;
        }
    }
}

/// Waits for the object and fetches it, or gives up when nobody is left who would take it.
fn fetch_while_wanted(
    fetch: &Weak<Pending>,
    store: &Store,
    key: &Key,
    wait: Option<Wait>,
    access: Access,
) -> proxystore::Result<Option<Received>> {
    if let Some(wait) = wait {
        let mut waiting = Waiting::new(store, key, wait);
        while !waiting.step(Instant::now().checked_add(LOOK_UP))? {
            if fetch.strong_count() == 0 {
                return Ok(None);
            }
        }
    }
    store.get_payload(key, access)
}

/// How often Python's main thread looks after signals while it waits.
const STEP: Duration = Duration::from_millis(50);

/// How often a thread that waits for a future looks whether anybody else does.
const LOOK_UP: Duration = Duration::from_millis(500);

const FETCH_THREAD: &str = "proxystore-fetch";

/// Runs `fetch`, which calls a connector written in Python. The interpreter waits at exit for the
/// threads it knows of; any other that is in Python code by then would end the process.
fn start_python_thread(py: Python<'_>, fetch: impl Fn() + Send + Sync + 'static) -> PyResult<()> {
    let target = PyCFunction::new_closure(py, None, None, move |_, _| fetch())?;
    let options = PyDict::new(py);
    options.set_item(intern!(py, "target"), target)?;
    options.set_item(intern!(py, "name"), FETCH_THREAD)?;
    options.set_item(intern!(py, "daemon"), false)?;
    let thread = py.import(intern!(py, "threading"))?.getattr(intern!(py, "Thread"))?;
    thread.call((), Some(&options))?.call_method0(intern!(py, "start")).map(drop)
}
