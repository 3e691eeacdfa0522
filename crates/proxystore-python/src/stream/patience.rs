//! Waiting for brokers in slices, so that Ctrl-C is noticed and other threads can end it.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use proxystore::brokers::PATIENCE;
use proxystore::{Error, ErrorKind};
use pyo3::prelude::*;

use crate::connector::wait_interruptibly;
use crate::error::from_python;

/// Since when the broker of a subscriber of the library cannot be reached.
#[derive(Default)]
pub(super) struct Lost(Mutex<Option<Instant>>);

impl Lost {
    /// Waits for what the broker delivers, for `slice` seconds of the `timeout` at most; `None` when
    /// they are up. A broker that cannot be reached may be back until the timeout is over, or for a
    /// minute without one.
    pub(super) fn receive<T: Send>(
        &self,
        py: Python<'_>,
        timeout: Option<f64>,
        slice: Option<f64>,
        receive: impl Fn(Instant) -> proxystore::Result<Option<T>> + Sync,
    ) -> PyResult<Option<T>> {
        let end = timeout
            .and_then(|timeout| Duration::try_from_secs_f64(timeout.max(0.0)).ok())
            .and_then(|timeout| Instant::now().checked_add(timeout));
        wait(py, shorter(timeout, slice), |until| {
            let outcome = receive(until);
            let mut lost = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if !matches!(&outcome, Err(error) if error.kind() == ErrorKind::Io) {
                *lost = None;
                return outcome;
            }
            let now = Instant::now();
            let since: Instant = *lost.get_or_insert(now);
            if until >= end.unwrap_or(since + PATIENCE) {
                *lost = None;
                return outcome;
            }
            drop(lost);
            thread::sleep(until.saturating_duration_since(now));
            Ok(None)
        })
    }
}

/// The shorter of two waits, `None` for one without end.
pub(super) fn shorter(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    one.into_iter().chain(other).reduce(f64::min)
}

/// Waits in steps for what comes; `None` when the time is up.
pub(super) fn wait<T: Send>(
    py: Python<'_>,
    timeout: Option<f64>,
    receive: impl Fn(Instant) -> proxystore::Result<Option<T>> + Sync,
) -> PyResult<Option<T>> {
    let found = Mutex::new(None);
    wait_interruptibly(py, timeout, |until| {
        let received = receive(until)?;
        let came = received.is_some();
        *found.lock().unwrap_or_else(PoisonError::into_inner) = received;
        Ok(came)
    })?;
    Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Raises what Ctrl-C raises, if it was pressed.
pub(super) fn check_signals(operation: &'static str) -> proxystore::Result<()> {
    Python::try_attach(|py| py.check_signals().map_err(|raised| from_python(operation, raised)))
        .unwrap_or_else(|| {
            Err(Error::new(ErrorKind::Closed, operation, "the interpreter is stopping"))
        })
}
