//! Brokers of the library as Python classes.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use proxystore::ConnectorConfig;
use proxystore::brokers::zmq::ZmqBroker;
use proxystore::brokers::{self, Guarantee, PATIENCE, Sharing, SubscribeOptions, patiently, redis};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple};

use super::patience::{self, Lost};
use crate::buffer::View;
use crate::connector::seconds;
use crate::error::{IntoPython, raise};
use crate::value;

/// A broker of the library.
#[pyclass(name = "Broker", module = "proxystore_rs._core", frozen, weakref)]
pub(crate) struct Broker {
    url: String,
    inner: Arc<dyn brokers::Broker>,
}

#[pymethods]
impl Broker {
    #[new]
    #[pyo3(signature = (url, **options))]
    fn new(py: Python<'_>, url: String, options: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let inner = open(py, &url, options)?;
        Ok(Self { url, inner })
    }

    /// Where it is, without user and password.
    #[getter]
    fn url(&self) -> String {
        proxystore::connectors::without_credentials(&self.url).into_owned()
    }

    /// What it promises: `"at_least_once"` or `"at_most_once"`.
    #[getter]
    fn guarantee(&self) -> &'static str {
        match self.inner.traits().guarantee {
            Guarantee::AtLeastOnce => "at_least_once",
            Guarantee::AtMostOnce => "at_most_once",
        }
    }

    /// Who gets a message: `"broadcast"`, `"queue"` or `"groups"`.
    #[getter]
    fn sharing(&self) -> &'static str {
        match self.inner.traits().sharing {
            Sharing::Broadcast => "broadcast",
            Sharing::Queue => "queue",
            Sharing::Groups => "groups",
        }
    }

    /// Whether other processes can reach it.
    #[getter]
    fn cross_process(&self) -> bool {
        self.inner.traits().cross_process
    }

    /// A new end that publishes.
    fn publisher(&self, py: Python<'_>) -> PyResult<BrokerPublisher> {
        let publisher = py.detach(|| self.inner.publisher()).py(py)?;
        Ok(BrokerPublisher { inner: OnceLock::from(Arc::from(publisher)) })
    }

    /// A new end that receives.
    #[pyo3(signature = (topics, *, group = "proxystore", prefetch = 1, redeliver_after = 60.0))]
    fn subscriber(
        &self,
        py: Python<'_>,
        topics: &Bound<'_, PyAny>,
        group: &str,
        prefetch: usize,
        redeliver_after: f64,
    ) -> PyResult<BrokerSubscriber> {
        let topics = texts(topics)?;
        let mut options = SubscribeOptions::default();
        group.clone_into(&mut options.group);
        options.prefetch = prefetch;
        options.redeliver_after = seconds(redeliver_after)?;
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        let subscriber = py.detach(|| self.inner.subscriber(&topics, &options)).py(py)?;
        Ok(BrokerSubscriber { inner: OnceLock::from(Arc::from(subscriber)) })
    }

    fn __repr__(&self) -> String {
        format!("Broker({:?})", self.url())
    }
}

/// The broker of a URL; those of Redis have options, which are the connector's.
fn open(
    py: Python<'_>,
    url: &str,
    options: Option<&Bound<'_, PyDict>>,
) -> PyResult<Arc<dyn brokers::Broker>> {
    let Some(options) = options.filter(|options| !options.is_empty()) else {
        return py.detach(|| brokers::open(url)).py(py);
    };
    let options = value::settings(options)
        .ok_or_else(|| PyTypeError::new_err("options must be plain values"))?;
    let config = ConnectorConfig { url: url.to_owned(), options };
    match url.split(['+', ':']).next() {
        Some("list") => Ok(Arc::new(redis::ListBroker::open_with(&config).py(py)?)),
        Some("pubsub") => Ok(Arc::new(redis::PubSubBroker::open_with(&config).py(py)?)),
        Some("stream") => Ok(Arc::new(redis::StreamBroker::open_with(&config).py(py)?)),
        _ => Err(PyTypeError::new_err("only brokers of Redis have options")),
    }
}

/// One text, or several.
fn texts(given: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    if given.is_instance_of::<PyString>() {
        return Ok(vec![given.extract()?]);
    }
    let texts: Vec<String> =
        given.try_iter()?.map(|text| text?.extract()).collect::<PyResult<_>>()?;
    if texts.is_empty() {
        return Err(PyValueError::new_err("a subscriber needs a topic at least"));
    }
    Ok(texts)
}

/// The end of a broker that publishes.
#[pyclass(
    name = "BrokerPublisher",
    module = "proxystore_rs._core",
    subclass,
    dict,
    weakref,
    frozen
)]
pub(crate) struct BrokerPublisher {
    inner: OnceLock<Arc<dyn brokers::Publisher>>,
}

impl BrokerPublisher {
    pub(super) fn inner(&self) -> PyResult<&Arc<dyn brokers::Publisher>> {
        self.inner.get().ok_or_else(not_open)
    }
}

fn not_open() -> PyErr {
    PyTypeError::new_err("it is not open: get one of open_broker(url), or call super().__init__")
}

#[pymethods]
impl BrokerPublisher {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self { inner: OnceLock::new() }
    }

    /// Becomes an end of a broker; called once by a subclass's constructor.
    #[pyo3(signature = (url, **options))]
    fn _open(
        &self,
        py: Python<'_>,
        url: &str,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let broker = open(py, url, options)?;
        let publisher = py.detach(|| broker.publisher()).py(py)?;
        let _ = self.inner.set(Arc::from(publisher));
        Ok(())
    }

    /// Publishes bytes to a topic.
    fn send_message(
        &self,
        py: Python<'_>,
        topic: &str,
        message: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let (inner, view) = (self.inner()?, View::of(message)?);
        let check = || patience::check_signals("publish a message");
        let publish = |until| inner.publish(topic, view.bytes(), until);
        py.detach(|| patiently(None, check, publish)).py(py)
    }

    /// Waits until the broker has everything that was published.
    #[pyo3(signature = (timeout = None))]
    fn flush(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        flush(py, &**self.inner()?, timeout)
    }

    /// Flushes, and releases the publisher.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let inner = self.inner()?;
        py.detach(|| inner.close()).py(py)
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(slf: &Bound<'_, Self>, _exception: &Bound<'_, PyTuple>) -> PyResult<()> {
        slf.call_method0(intern!(slf.py(), "close")).map(drop)
    }
}

/// Flushes, and notices Ctrl-C; for a minute, unless told.
pub(super) fn flush(
    py: Python<'_>,
    publisher: &dyn brokers::Publisher,
    timeout: Option<f64>,
) -> PyResult<()> {
    let limit = timeout.map(seconds).transpose()?.unwrap_or(PATIENCE);
    let deadline = Instant::now().checked_add(limit);
    let check = || patience::check_signals("flush a publisher");
    py.detach(|| patiently(deadline, check, |until| publisher.flush(until))).py(py)
}

/// The end of a broker that receives.
#[pyclass(
    name = "BrokerSubscriber",
    module = "proxystore_rs._core",
    subclass,
    dict,
    weakref,
    frozen
)]
pub(crate) struct BrokerSubscriber {
    inner: OnceLock<Arc<dyn brokers::Subscriber>>,
}

impl BrokerSubscriber {
    pub(super) fn inner(&self) -> PyResult<&Arc<dyn brokers::Subscriber>> {
        self.inner.get().ok_or_else(not_open)
    }
}

#[pymethods]
impl BrokerSubscriber {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self { inner: OnceLock::new() }
    }

    /// Becomes an end of a broker; called once by a subclass's constructor.
    #[pyo3(signature = (url, topics, **options))]
    fn _open(
        &self,
        py: Python<'_>,
        url: &str,
        topics: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let topics = texts(topics)?;
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        let broker = open(py, url, options)?;
        let subscribe = || broker.subscriber(&topics, &SubscribeOptions::default());
        let _ = self.inner.set(Arc::from(py.detach(subscribe).py(py)?));
        Ok(())
    }

    /// The same for all topics of ZeroMQ.
    fn _open_all(&self, py: Python<'_>, url: &str) -> PyResult<()> {
        let subscribe = || ZmqBroker::open(url)?.subscriber_of_all();
        let _ = self.inner.set(Arc::from(py.detach(subscribe).py(py)?));
        Ok(())
    }

    /// The group it is of.
    #[getter]
    fn group(&self) -> PyResult<&str> {
        Ok(self.inner()?.group())
    }

    /// The bytes of the next message, which counts as dealt with.
    #[pyo3(signature = (timeout = None))]
    fn next_message<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let inner = self.inner()?;
        let found =
            Lost::default().receive(py, timeout, None, |until| inner.receive(Some(until)))?;
        let delivery = found.ok_or_else(|| late(py))?;
        py.detach(|| inner.acknowledge(&[delivery.tag])).py(py)?;
        Ok(PyBytes::new(py, &delivery.message))
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.call_method0(intern!(slf.py(), "next_message"))
    }

    /// Gives back what was not dealt with, and ends waiting in other threads.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let inner = self.inner()?;
        py.detach(|| inner.close()).py(py)
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(slf: &Bound<'_, Self>, _exception: &Bound<'_, PyTuple>) -> PyResult<()> {
        slf.call_method0(intern!(slf.py(), "close")).map(drop)
    }
}

/// The exception for a message that did not come in time.
fn late(py: Python<'_>) -> PyErr {
    let message = "failed to receive a message: none came in time; see whether the producers run, \
                   or wait longer";
    raise(py, "ChannelTimeoutError", message)
}
