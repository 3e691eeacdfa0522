//! The receiving end of a stream, without what only arranges calls.

use proxystore::brokers::Guarantee;
use proxystore::patterns::stream::{Arrival, Body, Inbox, StreamMetrics};
use proxystore::payload::Received;
use proxystore::{Access, Buffer};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::patience::{self, Lost};
use super::{BrokerSubscriber, foreign, metadata};
use crate::codec::Codec;
use crate::error::IntoPython;
use crate::pickle::{self, Decoding};
use crate::store::streaming;

/// Receives events, one by one.
#[pyclass(name = "StreamInbox", module = "proxystore_rs._core", frozen)]
pub(crate) struct StreamInbox {
    inner: Inbox,
    /// Of a subscriber of the library; others know themselves when to give up.
    lost: Option<Lost>,
}

#[pymethods]
impl StreamInbox {
    #[new]
    fn new(subscriber: &Bound<'_, PyAny>) -> PyResult<Self> {
        let lost = subscriber.is_instance_of::<BrokerSubscriber>().then(Lost::default);
        Ok(Self { inner: Inbox::new(foreign::subscriber(subscriber)?), lost })
    }

    /// The next event; `None` when `timeout` seconds pass first, or those of the `slice` of them that
    /// is waited now.
    #[pyo3(signature = (timeout, slice = None))]
    fn next(
        &self,
        py: Python<'_>,
        timeout: Option<f64>,
        slice: Option<f64>,
    ) -> PyResult<Option<StreamArrival>> {
        let next = |until| self.inner.next(Some(until));
        let found = match &self.lost {
            Some(lost) => lost.receive(py, timeout, slice, next)?,
            None => patience::wait(py, patience::shorter(timeout, slice), next)?,
        };
        Ok(found.map(|arrival| StreamArrival { arrival }))
    }

    /// Whether what is not acknowledged is delivered again.
    #[getter]
    fn delivers_again(&self) -> bool {
        self.inner.subscriber().guarantee() == Guarantee::AtLeastOnce
    }

    /// Frees the object of an event that a filter dropped, and acknowledges it.
    fn pass_over(&self, py: Python<'_>, arrival: &Bound<'_, StreamArrival>) -> PyResult<()> {
        let Arrival { body, receipt, .. } = &arrival.get().arrival;
        py.detach(|| self.inner.pass_over(body, receipt)).py(py)
    }

    /// Gives back what was not acknowledged, and ends waiting in other threads.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.inner.close()).py(py)
    }

    /// What was counted so far.
    fn metrics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        totals(py, self.inner.metrics())
    }

    /// The same in the text format of Prometheus.
    fn metrics_text(&self, name: &str) -> String {
        self.inner.metrics().to_prometheus(name)
    }
}

/// Counters by their names.
pub(super) fn totals<'py>(
    py: Python<'py>,
    metrics: &StreamMetrics,
) -> PyResult<Bound<'py, PyDict>> {
    let totals = PyDict::new(py);
    for (name, value) in metrics.totals() {
        totals.set_item(name, value)?;
    }
    Ok(totals)
}

/// An event that arrived.
#[pyclass(name = "StreamArrival", module = "proxystore_rs._core", frozen)]
pub(crate) struct StreamArrival {
    arrival: Arrival,
}

#[pymethods]
impl StreamArrival {
    /// The topic.
    #[getter]
    fn topic(&self) -> &str {
        &self.arrival.topic
    }

    /// Whether it is the end of the topic.
    #[getter]
    fn is_end(&self) -> bool {
        matches!(self.arrival.body, Body::End)
    }

    /// The how-manieth delivery this is.
    #[getter]
    fn attempts(&self) -> u32 {
        self.arrival.attempts
    }

    /// Name of the store of the object, if it is of one.
    #[getter]
    fn store_name(&self) -> Option<&str> {
        match &self.arrival.body {
            Body::Object(reference) => Some(&reference.store.name),
            _ => None,
        }
    }

    /// What the producer says of the object: a new dictionary each time.
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        metadata::read(py, &self.arrival.metadata, || match &self.arrival.body {
            Body::Object(reference) => streaming::codec_of_reference(py, reference),
            _ => Codec::of_process(py),
        })
    }

    /// The proxy of the object, or the object itself if it is of no store.
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match &self.arrival.body {
            Body::Object(reference) => {
                let claim = self.arrival.receipt.claim();
                streaming::proxy_of_arrival(py, (**reference).clone(), claim)
            }
            Body::Value(payload) => decode(py, payload),
            Body::End => Ok(py.None().into_bound(py)),
        }
    }

    /// As `value`, for whoever works on the object until the event is acknowledged: a new proxy each
    /// time, which does not free the object.
    fn lend<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let Some(claim) = self.arrival.receipt.claim() else { return self.value(py) };
        let reference = py.detach(|| claim.lend()).py(py)?;
        streaming::proxy_of_arrival(py, reference, None)
    }

    /// Leaves freeing the object to acknowledging, whatever the broker; whether `value` is another
    /// proxy from now on.
    fn hold(&self) -> bool {
        self.arrival.hold()
    }

    /// Whether this is another delivery of the same event, if that is known.
    fn repeats(&self, other: &Bound<'_, Self>) -> bool {
        self.arrival.repeats(&other.get().arrival)
    }

    /// Whether its object is gone because the event was dealt with, or its object dropped.
    fn is_done(&self, py: Python<'_>) -> bool {
        py.detach(|| self.arrival.is_done())
    }

    /// Says that the event was dealt with.
    fn acknowledge(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.arrival.receipt.acknowledge()).py(py)
    }

    /// Whether that was said.
    #[getter]
    fn is_acknowledged(&self) -> bool {
        self.arrival.receipt.is_acknowledged()
    }
}

/// An object that travelled inside its event, and is of no store.
pub(super) fn decode<'py>(py: Python<'py>, payload: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let received = Received::parse(Buffer::copy_of(payload)).py(py)?;
    let codec = Codec::of_process(py)?;
    let how = Decoding { access: Access::Private, deserializer: None, codec, class: None };
    pickle::decode(py, &received, how)
}
