//! Publishers and subscribers written in Python.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use proxystore::brokers::{DEFAULT_GROUP, Delivery, Guarantee, Publisher, Subscriber, Tag};
use proxystore::{Error, ErrorKind};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::{BrokerPublisher, BrokerSubscriber};
use crate::buffer::View;
use crate::error::from_python;

/// The library's own publisher, or one that calls `send_message` and `close`.
pub(super) fn publisher(publisher: &Bound<'_, PyAny>) -> PyResult<Arc<dyn Publisher>> {
    match publisher.cast::<BrokerPublisher>() {
        Ok(native) => Ok(Arc::clone(native.get().inner()?)),
        Err(_) => Ok(Arc::new(Foreign(publisher.clone().unbind()))),
    }
}

/// The library's own subscriber, or one that calls `next_message` and `close`.
pub(super) fn subscriber(subscriber: &Bound<'_, PyAny>) -> PyResult<Arc<dyn Subscriber>> {
    match subscriber.cast::<BrokerSubscriber>() {
        Ok(native) => Ok(Arc::clone(native.get().inner()?)),
        Err(_) => Ok(Arc::new(Foreign(subscriber.clone().unbind()))),
    }
}

struct Foreign(Py<PyAny>);

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("written in Python")
    }
}

impl Foreign {
    fn close(&self) -> proxystore::Result<()> {
        Python::attach(|py| self.0.call_method0(py, intern!(py, "close")))
            .map(drop)
            .map_err(|raised| from_python("close an end of a broker", raised))
    }
}

impl Publisher for Foreign {
    /// Knows no deadline, so that what it raises late is no reason to publish again: the error's kind
    /// says so.
    fn publish(
        &self,
        topic: &str,
        message: &[u8],
        _deadline: Option<Instant>,
    ) -> proxystore::Result<()> {
        Python::attach(|py| {
            let message = PyBytes::new(py, message);
            self.0.call_method1(py, intern!(py, "send_message"), (topic, message))
        })
        .map(drop)
        .map_err(|raised| {
            Error::new(ErrorKind::Failed, "publish a message", raised.to_string())
                .with_source(raised)
        })
    }

    fn flush(&self, _deadline: Option<Instant>) -> proxystore::Result<()> {
        Ok(()) // it has no such method: what it returned from is published
    }

    fn close(&self) -> proxystore::Result<()> {
        Foreign::close(self)
    }
}

impl Subscriber for Foreign {
    /// With a method `next_message_within(seconds)` it can stop waiting; else it waits as it does.
    fn receive(&self, deadline: Option<Instant>) -> proxystore::Result<Option<Delivery>> {
        let receive = |py: Python<'_>| -> PyResult<Option<Delivery>> {
            let subscriber = self.0.bind(py);
            let bounded = subscriber.getattr_opt(intern!(py, "next_message_within"))?;
            let message = match (bounded, deadline) {
                (Some(bounded), Some(deadline)) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    bounded.call1((left.as_secs_f64(),))?
                }
                _ => subscriber.call_method0(intern!(py, "next_message"))?,
            };
            if message.is_none() {
                return Ok(None);
            }
            let message = View::of(&message)?.bytes().to_vec();
            Ok(Some(Delivery { message, tag: Tag::default(), attempts: 1 }))
        };
        Python::attach(receive).map_err(|raised| from_python("receive a message", raised))
    }

    fn acknowledge(&self, _tags: &[Tag]) -> proxystore::Result<()> {
        Ok(())
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtMostOnce
    }

    fn group(&self) -> &str {
        DEFAULT_GROUP
    }

    fn close(&self) -> proxystore::Result<()> {
        Foreign::close(self)
    }
}
