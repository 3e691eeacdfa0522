//! Futures: setting, failing and waiting, and the leases of futures and owners.

use std::time::{Duration, Instant};

use proxystore::codec::{Encode, Failure};
use proxystore::reference::Wait;
use proxystore::store::Waiting;
use proxystore::{Error, ErrorKind, Key, patterns};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::state::PutWish;
use super::{State, StoreBase, StoreFactory};
use crate::codec::Codec;
use crate::connector::seconds;
use crate::error::{IntoPython, raise, to_python};

/// Python looks after signals in its main thread alone, and there this often.
const STEP: Duration = Duration::from_millis(250);

/// Waits for the object of a future; Ctrl-C is noticed.
pub(super) fn wait(
    store: &Bound<'_, StoreBase>,
    inner: &State,
    key: &Key,
    wait: Wait,
) -> PyResult<()> {
    let py = store.py();
    let mut waiting = Waiting::new(&inner.store, key, wait);
    loop {
        match py.detach(|| waiting.step(Some(Instant::now() + STEP))) {
            Ok(true) => return Ok(()),
            Ok(false) => py.check_signals()?,
            Err(error) => return Err(failed(store, inner, key, error)),
        }
    }
}

/// The exception for a wait that failed.
pub(super) fn failed(
    store: &Bound<'_, StoreBase>,
    inner: &State,
    key: &Key,
    error: Error,
) -> PyErr {
    if error.kind() == ErrorKind::Timeout {
        return timed_out(store, inner, key);
    }
    inner.with_readable_key(store.py(), error, key)
}

/// The exception for a result that did not come in time.
pub(super) fn timed_out(store: &Bound<'_, StoreBase>, inner: &State, key: &Key) -> PyErr {
    let py = store.py();
    let make = || -> PyResult<PyErr> {
        let class = py.import("proxystore_rs.exceptions")?.getattr("FutureTimeoutError")?;
        let key = inner.keys.face_without_seal(py, key)?;
        let error = class.call1((key, store.get_type(), inner.store.name()))?;
        Ok(PyErr::from_value(error))
    };
    make().unwrap_or_else(|error| error)
}

/// The exception that a failure stands for: the producer's own, if it can be rebuilt here.
pub(super) fn raised(py: Python<'_>, failure: &Failure, codec: Codec) -> PyErr {
    if let Some(pickled) = &failure.exception
        && codec != Codec::Data
    {
        let rebuilt = py
            .import("pickle")
            .and_then(|pickle| pickle.call_method1("loads", (PyBytes::new(py, pickled),)));
        match rebuilt {
            Ok(exception) => return PyErr::from_value(exception),
            Err(error) if !error.is_instance_of::<pyo3::exceptions::PyException>(py) => {
                return error;
            }
            Err(_) => {} // of a class that is unknown here: its text has to do
        }
    }
    to_python(py, failure.to_error())
}

/// Stores the result of a future, or a new object in place of the one under a factory's key.
#[pyfunction(name = "_settle", signature = (store, factory, object, serializer, codec = None))]
pub(crate) fn settle_future(
    store: &Bound<'_, StoreBase>,
    factory: &Bound<'_, StoreFactory>,
    object: &Bound<'_, PyAny>,
    serializer: Option<&Bound<'_, PyAny>>,
    codec: Option<&str>,
) -> PyResult<()> {
    let inner = store.get().state()?;
    inner.set(factory.get().reference()?, object, &PutWish::new(serializer, codec)?)
}

/// Stores a failure in place of a future's result.
#[pyfunction(name = "_fail")]
pub(crate) fn fail_future(
    store: &Bound<'_, StoreBase>,
    factory: &Bound<'_, StoreFactory>,
    failure: Option<(String, String, Option<Vec<u8>>)>,
) -> PyResult<()> {
    let py = store.py();
    let failure = match failure {
        None => Failure::cancelled(),
        Some((name, message, exception)) => Failure { exception, ..Failure::new(name, message) },
    };
    let reference = factory.get().reference()?;
    let inner = store.get().state()?;
    py.detach(|| inner.store.settle_framed(reference, &failure.encode()?.frame()?)).py(py)
}

/// The failure stored under a factory's key: whether it was cancelled, and the exception.
#[pyfunction(name = "_failure")]
pub(crate) fn failure_of<'py>(
    store: &Bound<'py, StoreBase>,
    factory: &Bound<'py, StoreFactory>,
) -> PyResult<Option<(bool, Bound<'py, PyAny>)>> {
    let py = store.py();
    let key = &factory.get().reference()?.key;
    let inner = store.get().state()?;
    let failure = py.detach(|| inner.store.failure(key)).py(py)?;
    let codec = inner.codec(py)?;
    Ok(failure.map(|failure| {
        (failure.cancelled, raised(py, &failure, codec).into_value(py).into_bound(py).into_any())
    }))
}

/// Keeps something alive as long as it lives.
#[pyclass(name = "Lease", module = "proxystore_rs._core", frozen)]
pub(crate) struct Lease {
    _lease: patterns::Lease,
}

/// Renews the object of a factory, or with `record` the record that says that its future may still
/// be set.
#[pyfunction(name = "_hold_lease")]
pub(crate) fn hold_lease(
    store: &Bound<'_, StoreBase>,
    factory: &Bound<'_, StoreFactory>,
    ttl: f64,
    record: bool,
) -> PyResult<Lease> {
    let py = store.py();
    let inner = store.get().state()?;
    if !inner.store.connector().capabilities().ttl {
        let connector = inner.connector.bind(py).get_type().name()?;
        let message = format!(
            "a lease needs a channel whose objects can have a time to live, which {connector} has \
             not; use a memory, file, shared-memory or Redis connector"
        );
        return Err(raise(py, "UnsupportedOperationError", &message));
    }
    let key = &factory.get().reference()?.key;
    let ttl = seconds(ttl)?;
    let lease = py.detach(|| {
        if record {
            inner.store.hold_future(key, ttl)
        } else {
            patterns::Lease::new(&inner.store, [key.clone()], ttl)
        }
    });
    Ok(Lease { _lease: lease.py(py)? })
}

/// Copies the stored bytes under a factory's key to a key of their own.
#[pyfunction(name = "_copy")]
pub(crate) fn copy_object<'py>(
    store: &Bound<'py, StoreBase>,
    factory: &Bound<'py, StoreFactory>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = store.py();
    let inner = store.get().state()?;
    let key = &factory.get().reference()?.key;
    let copied = py.detach(|| inner.store.copy(key)).py(py)?;
    match copied {
        Some(key) => inner.key_to_python(py, &key),
        None => Err(to_python(py, inner.store.missing(key))),
    }
}
