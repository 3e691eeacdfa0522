//! The sending end of a stream, without what only arranges calls.

use std::time::Instant;

use proxystore::Reference;
use proxystore::patterns::stream::{
    Body, Bound as RoomBound, Event, Outbox, OutboxOptions, WhenFull,
};
use proxystore::payload::Framed;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::{brokers, foreign, metadata, patience};
use crate::connector::seconds;
use crate::error::IntoPython;
use crate::pickle::Encoded;
use crate::store::{StoreBase, streaming};

/// Stores objects and publishes events of them.
#[pyclass(name = "StreamOutbox", module = "proxystore_rs._core", frozen)]
pub(crate) struct StreamOutbox {
    inner: Outbox,
}

/// An object that is sent: itself, whether consumers free it, and what is said of it.
type Sent<'py> = (Bound<'py, PyAny>, bool, Option<Bound<'py, PyDict>>);

#[pymethods]
impl StreamOutbox {
    #[new]
    #[pyo3(signature = (publisher, *, inline_bytes, consumers, ttl, max_bytes, when_full, timeout))]
    fn new(
        publisher: &Bound<'_, PyAny>,
        inline_bytes: usize,
        consumers: Vec<String>,
        ttl: Option<f64>,
        max_bytes: Option<u64>,
        when_full: &str,
        timeout: Option<f64>,
    ) -> PyResult<Self> {
        let when_full = match when_full {
            "wait" => WhenFull::Wait,
            "drop_oldest" => WhenFull::DropOldest,
            "raise" => WhenFull::Refuse,
            other => {
                return Err(PyValueError::new_err(format!(
                    "when_full must be 'wait', 'drop_oldest' or 'raise', not {other:?}"
                )));
            }
        };
        let mut options = OutboxOptions::default();
        options.inline_bytes = inline_bytes;
        options.consumers = consumers;
        options.ttl = ttl.map(seconds).transpose()?;
        options.bound = max_bytes.map(|bytes| RoomBound { bytes, when_full });
        options.timeout = timeout.map(seconds).transpose()?;
        options.interrupt = Some(|| patience::check_signals("send an object"));
        let inner = Outbox::new(foreign::publisher(publisher)?, options).py(publisher.py())?;
        Ok(Self { inner })
    }

    /// Stores objects, and publishes their events together; with `end`, that of the topic too.
    /// `timeout` is in seconds, by default that of the outbox.
    #[pyo3(signature = (topic, store, objects, end, timeout = None))]
    fn send(
        &self,
        py: Python<'_>,
        topic: &str,
        store: Option<&Bound<'_, StoreBase>>,
        objects: Vec<Sent<'_>>,
        end: bool,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let deadline = self.deadline(timeout)?;
        let codec = streaming::codec_of(py, store)?;
        let said: Vec<_> = objects
            .iter()
            .map(|(_, _, said)| metadata::write(said.as_ref(), codec))
            .collect::<PyResult<_>>()?;
        let encoded: Vec<Encoded> = objects
            .iter()
            .map(|(object, ..)| streaming::encode(store, object))
            .collect::<PyResult<_>>()?;
        let framed: Vec<Framed<'_>> = encoded
            .iter()
            .map(|encoded| encoded.payload(py)?.frame().py(py))
            .collect::<PyResult<_>>()?;
        let bodies = match store {
            Some(store) => self.refer(store, &objects, &framed, deadline)?,
            None => framed
                .iter()
                .map(|framed| Body::Value((&*framed.parts().to_buffer()).into()))
                .collect(),
        };
        let mut events: Vec<Event> = bodies
            .into_iter()
            .zip(said)
            .map(|(body, metadata)| Event { metadata, ..Event::new(body) })
            .collect();
        events.extend(end.then(|| Event::new(Body::End)));
        let inner = store.map(streaming::inner_of).transpose()?;
        py.detach(|| self.inner.publish(topic, inner, events, deadline)).py(py)?;
        objects.iter().zip(&encoded).try_for_each(|((object, ..), encoded)| encoded.was_put(object))
    }

    /// Counts an object that a filter dropped.
    fn count_filtered(&self) {
        self.inner.count_filtered();
    }

    /// Waits until the broker has everything that was published.
    #[pyo3(signature = (timeout = None))]
    fn flush(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let now = Instant::now();
        let left = self.deadline(timeout)?.map(|end| end.saturating_duration_since(now));
        brokers::flush(py, &**self.inner.publisher(), left.map(|left| left.as_secs_f64()))
    }

    /// Ends waiting in other threads, for room and for the broker.
    fn stop_waiting(&self) {
        self.inner.stop_waiting();
    }

    /// Closes the publisher.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.inner.close()).py(py)
    }

    /// What was counted so far.
    fn metrics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        super::inbox::totals(py, self.inner.metrics())
    }

    /// The same in the text format of Prometheus.
    fn metrics_text(&self, name: &str) -> String {
        self.inner.metrics().to_prometheus(name)
    }
}

impl StreamOutbox {
    fn deadline(&self, timeout: Option<f64>) -> PyResult<Option<Instant>> {
        match timeout {
            Some(timeout) => Ok(Instant::now().checked_add(seconds(timeout)?)),
            None => Ok(self.inner.deadline()),
        }
    }

    /// Stores objects, or has them travel inside their references.
    fn refer(
        &self,
        store: &Bound<'_, StoreBase>,
        objects: &[Sent<'_>],
        framed: &[Framed<'_>],
        deadline: Option<Instant>,
    ) -> PyResult<Vec<Body>> {
        let (py, inner) = (store.py(), streaming::inner_of(store)?);
        let evict: Vec<bool> = objects.iter().map(|(_, evict, _)| *evict).collect();
        let references = py.detach(|| self.inner.refer(inner, framed, &evict, deadline)).py(py)?;
        let finished: PyResult<Vec<Reference>> = references
            .iter()
            .zip(objects)
            .map(|(reference, (object, ..))| streaming::finish(store, reference.clone(), object))
            .collect();
        match finished {
            Ok(finished) => {
                Ok(finished.into_iter().map(|one| Body::Object(Box::new(one))).collect())
            }
            Err(error) => {
                streaming::take_back(py, inner, &references);
                Err(error)
            }
        }
    }
}

/// The size of an object as it would be stored; raises what cannot be sent of it and its metadata.
#[pyfunction(name = "_stored_size")]
pub(crate) fn stored_size(
    store: Option<&Bound<'_, StoreBase>>,
    object: &Bound<'_, PyAny>,
    metadata: Option<&Bound<'_, PyDict>>,
) -> PyResult<usize> {
    metadata::write(metadata, streaming::codec_of(object.py(), store)?)?;
    streaming::size_of(store, object)
}
