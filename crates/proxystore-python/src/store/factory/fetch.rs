//! How a factory fetches its target.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use proxystore::payload::Received;
use proxystore::reference::Wait;
use proxystore::{Buffer, Key, trust};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::StoreFactory;
use crate::error::IntoPython;
use crate::store::pending::Pending;
use crate::store::state::GetWish;
use crate::store::{State, StoreBase, future, overrides};

impl StoreFactory {
    /// `called` is for the metrics, which tell calls from calls of `resolve`.
    pub(super) fn fetch<'py>(
        &self,
        py: Python<'py>,
        wait: Option<Wait>,
        called: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let store = self.get_store(py)?;
        let started = store.get().state()?.metrics.start();
        let object = self.fetch_from(py, &store, wait)?;
        if started.is_some() {
            let name = if wait.is_some() { "factory.polling_resolve" } else { "factory.resolve" };
            self.note(py, &store, name, started)?;
            if called {
                self.note(py, &store, "factory.call", started)?;
            }
        }
        Ok(object)
    }

    /// Tells the metrics of the store how long something took.
    pub(super) fn note(
        &self,
        py: Python<'_>,
        store: &Bound<'_, StoreBase>,
        name: &str,
        started: Option<Instant>,
    ) -> PyResult<()> {
        let inner = store.get().state()?;
        if !inner.metrics.is_on() {
            return Ok(());
        }
        let face = inner.key_to_python(py, &self.state()?.reference.key)?;
        inner.metrics.time(py, name, &face, started)
    }

    fn fetch_from<'py>(
        &self,
        py: Python<'py>,
        store: &Bound<'py, StoreBase>,
        wait: Option<Wait>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let state = self.state()?;
        state.reference.check_complete().py(py)?;
        let inner = store.get().state()?;
        trust::sites::check(&state.reference.store).py(py)?; // the store's own may permit more
        let key = &state.reference.key;
        let deserializer = state.deserializer.as_ref().map(|deserializer| deserializer.bind(py));
        if let Some(payload) = &state.reference.inline {
            inner.store.permit().py(py)?;
            let received = Received::parse(Buffer::copy_of(payload)).py(py)?;
            return inner.decode(py, key, &received, deserializer);
        }
        let pending = state.pending.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut object = match pending.filter(Pending::is_ours) {
            Some(pending) => {
                let timeout = wait.and_then(|wait| wait.timeout);
                let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
                let Some(outcome) = pending.wait(py, deadline)? else {
                    // It goes on, for whoever asks next.
                    *state.pending.lock().unwrap_or_else(PoisonError::into_inner) = Some(pending);
                    return Err(future::timed_out(store, inner, key));
                };
                match outcome {
                    Ok(Some(received)) => Some(inner.decode(py, key, &received, deserializer)?),
                    Ok(None) => None,
                    Err(error) if wait.is_some() => {
                        return Err(future::failed(store, inner, key, error));
                    }
                    Err(error) => return Err(inner.with_readable_key(py, error, key)),
                }
            }
            None => get_through(store, inner, key, deserializer)?,
        };
        if let (None, Some(wait)) = (&object, wait) {
            future::wait(store, inner, key, wait)?;
            object = get_through(store, inner, key, deserializer)?;
        }
        let Some(object) = object else {
            return Err(missing(store, inner, key));
        };
        if state.evict.load(Ordering::Relaxed) {
            match (&state.claim, state.reference.share) {
                (Some(claimed), _) => py.detach(|| claimed.claim().resolved()).py(py)?,
                (None, Some(share)) => py.detach(|| inner.store.give_back(key, share)).py(py)?,
                (None, None) => inner.evict(py, key)?,
            }
        }
        Ok(object)
    }

    /// Starts fetching in the background, unless that is of no use.
    pub(super) fn start_fetching(&self, py: Python<'_>) -> PyResult<()> {
        let state = self.state()?;
        trust::sites::check(&state.reference.store).py(py)?;
        let store = self.get_store(py)?;
        let inner = store.get().state()?;
        let (key, wait) = (state.reference.key.clone(), state.reference.wait);
        if state.reference.inline.is_some() || inner.store.cache().contains(&key) {
            return Ok(());
        }
        if inner.keys.has_foreign() && wait.is_some() {
            return Ok(()); // its thread could wait for ever, and the interpreter for the thread
        }
        if overrides(&store, intern!(py, "get"))? {
            return Ok(()); // objects come through a method of the user's, when they are used
        }
        let started = Arc::new(Pending::new());
        let mut pending = state.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.as_ref().is_some_and(Pending::is_ours) {
            return Ok(());
        }
        let inherited = pending.replace(Arc::clone(&started));
        drop(pending); // starting a thread may run other threads, which may ask for it
        drop(inherited);
        started.start(py, inner, key, wait)
    }
}

/// The object under a key, by the store's own `get` if a subclass has one.
pub(in crate::store) fn get_through<'py>(
    store: &Bound<'py, StoreBase>,
    inner: &State,
    key: &Key,
    deserializer: Option<&Bound<'py, PyAny>>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = store.py();
    if !overrides(store, intern!(py, "get"))? {
        return inner.get(py, key, &GetWish { deserializer, ..GetWish::default() });
    }
    let absent = inner.connector.bind(py); // an object that no store holds
    let options = PyDict::new(py);
    options.set_item(intern!(py, "deserializer"), deserializer)?;
    options.set_item(intern!(py, "default"), absent)?;
    let face = inner.key_to_python(py, key)?;
    let found = store.call_method(intern!(py, "get"), (face,), Some(&options))?;
    Ok((!found.is(absent)).then_some(found))
}

/// The error for an object that is not there.
pub(in crate::store) fn missing(store: &Bound<'_, StoreBase>, inner: &State, key: &Key) -> PyErr {
    let py = store.py();
    let make = || -> PyResult<PyErr> {
        let class = py
            .import(intern!(py, "proxystore_rs.store.exceptions"))?
            .getattr(intern!(py, "ProxyResolveMissingKeyError"))?;
        let key_face = inner.keys.face_without_seal(py, key)?;
        let name = inner.store.name();
        let error = class.call1((key_face, store.get_type(), name))?;
        if !inner.store.connector().capabilities().cross_process {
            let hint = inner.store.missing(key).hint().unwrap_or_default().to_owned();
            error.call_method1(intern!(py, "add_note"), (hint,))?;
        }
        Ok(PyErr::from_value(error))
    };
    make().unwrap_or_else(|error| error)
}
