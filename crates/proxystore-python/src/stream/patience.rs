//! Waiting for brokers in slices, so that Ctrl-C is noticed and other threads can end it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use proxystore::brokers::Publisher;
use proxystore::{Error, ErrorKind};
use pyo3::prelude::*;

use crate::connector::wait_interruptibly;
use crate::error::from_python;

/// Without a deadline, a broker that cannot be reached for so long is given up.
const UNREACHABLE: Duration = Duration::from_mins(1);
const FIRST_SLICE: Duration = Duration::from_millis(50);
const LAST_SLICE: Duration = Duration::from_millis(800);
const PUBLISH: &str = "publish a message";

/// A publisher of the library whose waits Ctrl-C ends, and [`stop_waiting`](Self::stop_waiting).
pub(super) struct PatientPublisher {
    inner: Arc<dyn Publisher>,
    stops: AtomicU64,
}

impl PatientPublisher {
    pub(super) fn new(inner: Arc<dyn Publisher>) -> Self {
        Self { inner, stops: AtomicU64::new(0) }
    }

    /// Ends the waits that began before.
    pub(super) fn stop_waiting(&self) {
        self.stops.fetch_add(1, Ordering::AcqRel);
    }
}

impl fmt::Debug for PatientPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Publisher for PatientPublisher {
    /// What fails at the end of a slice was not taken: it is published in the next one.
    fn publish(
        &self,
        topic: &str,
        message: &[u8],
        deadline: Option<Instant>,
    ) -> proxystore::Result<()> {
        let stops = self.stops.load(Ordering::Acquire);
        let started = Instant::now();
        let mut length = FIRST_SLICE;
        loop {
            let now = Instant::now();
            let slice = deadline.map_or(now + length, |deadline| deadline.min(now + length));
            let outcome = self.inner.publish(topic, message, Some(slice));
            let Err(error) = &outcome else { return outcome };
            let now = Instant::now();
            // An error that comes earlier is about something else, or a message before.
            let may_pass = now >= slice
                && match error.kind() {
                    ErrorKind::Timeout => true,
                    ErrorKind::Io => deadline.is_some() || now < started + UNREACHABLE,
                    _ => false,
                };
            if !may_pass || deadline.is_some_and(|deadline| deadline <= now) {
                return outcome;
            }
            check_signals(PUBLISH)?;
            if self.stops.load(Ordering::Acquire) != stops {
                return Err(Error::new(ErrorKind::Closed, PUBLISH, "it was closed meanwhile")
                    .with_hint("close producers after the last object was sent"));
            }
            length = LAST_SLICE.min(length * 2);
        }
    }

    fn flush(&self, deadline: Option<Instant>) -> proxystore::Result<()> {
        self.inner.flush(deadline)
    }

    fn close(&self) -> proxystore::Result<()> {
        self.stop_waiting();
        self.inner.close()
    }
}

/// Since when the broker of a subscriber of the library cannot be reached.
#[derive(Default)]
pub(super) struct Lost(Mutex<Option<Instant>>);

impl Lost {
    /// Waits for what the broker delivers; `None` when the time is up. A broker that cannot be reached
    /// may be back until then, or for a minute without a timeout, and if the wait `is_slice` of another.
    pub(super) fn receive<T: Send>(
        &self,
        py: Python<'_>,
        timeout: Option<f64>,
        is_slice: bool,
        receive: impl Fn(Instant) -> proxystore::Result<Option<T>> + Sync,
    ) -> PyResult<Option<T>> {
        let end = timeout
            .filter(|_| !is_slice)
            .and_then(|timeout| Duration::try_from_secs_f64(timeout.max(0.0)).ok())
            .and_then(|timeout| Instant::now().checked_add(timeout));
        wait(py, timeout, |until| {
            let outcome = receive(until);
            let mut lost = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if !matches!(&outcome, Err(error) if error.kind() == ErrorKind::Io) {
                *lost = None;
                return outcome;
            }
            let now = Instant::now();
            let since: Instant = *lost.get_or_insert(now);
            if until >= end.unwrap_or(since + UNREACHABLE) {
                *lost = None;
                return outcome;
            }
            drop(lost);
            thread::sleep(until.saturating_duration_since(now));
            Ok(None)
        })
    }
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
