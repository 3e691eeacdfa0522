//! Reports to the store's metrics object, if it has one.

use std::time::Instant;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;

/// Calls `add_time`, `add_attribute` and `add_counter`; without metrics, nothing.
pub(super) struct Recorder(Option<Py<PyAny>>);

impl Recorder {
    pub(super) fn new(metrics: Option<Py<PyAny>>) -> Self {
        Self(metrics)
    }

    pub(super) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn start(&self) -> Option<Instant> {
        self.0.as_ref().map(|_| Instant::now())
    }

    /// The time from `started` to now.
    pub(super) fn time(
        &self,
        py: Python<'_>,
        name: &str,
        key: &Bound<'_, PyAny>,
        started: Option<Instant>,
    ) -> PyResult<()> {
        self.time_between(py, name, key, started, self.start())
    }

    pub(super) fn time_between(
        &self,
        py: Python<'_>,
        name: &str,
        key: &Bound<'_, PyAny>,
        started: Option<Instant>,
        ended: Option<Instant>,
    ) -> PyResult<()> {
        let (Some(metrics), Some(started), Some(ended)) = (&self.0, started, ended) else {
            return Ok(());
        };
        let milliseconds = ended.duration_since(started).as_secs_f64() * 1e3;
        metrics.call_method1(py, intern!(py, "add_time"), (name, key, milliseconds)).map(drop)
    }

    pub(super) fn attribute(
        &self,
        py: Python<'_>,
        name: &str,
        key: &Bound<'_, PyAny>,
        value: usize,
    ) -> PyResult<()> {
        let Some(metrics) = &self.0 else {
            return Ok(());
        };
        metrics.call_method1(py, intern!(py, "add_attribute"), (name, key, value)).map(drop)
    }

    pub(super) fn counter(
        &self,
        py: Python<'_>,
        name: &str,
        key: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let Some(metrics) = &self.0 else {
            return Ok(());
        };
        metrics.call_method1(py, intern!(py, "add_counter"), (name, key, 1)).map(drop)
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.0)
    }
}
