//! Messages between bytes and the parts that Python's event classes are made of.

use proxystore::Reference;
use proxystore::patterns::stream::{Body, Event, Message};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use super::{inbox, metadata};
use crate::codec::Codec;
use crate::error::IntoPython;
use crate::store::{StoreFactory, streaming};

/// A field, which other readers pass over, at the end of a message that stands for one event and not
/// for a batch.
const ALONE: [u8; 2] = [4, 0];

/// What an event tells of, by the names of the Python classes' fields.
const KEY: &str = "key";
const OBJECT: &str = "object";
const END: &str = "end";

/// An event: what it tells of, the factory or the object, and the metadata.
type Part<'py> = (String, Bound<'py, PyAny>, Option<Bound<'py, PyDict>>);

/// The bytes of a message of some events.
#[pyfunction(name = "_message_to_bytes")]
pub(crate) fn message_to_bytes<'py>(
    py: Python<'py>,
    topic: String,
    events: Vec<Part<'py>>,
    alone: bool,
) -> PyResult<Bound<'py, PyBytes>> {
    let codec = Codec::of_process(py)?;
    let events = events.into_iter().map(|(kind, object, said)| {
        let body = match kind.as_str() {
            KEY => {
                let factory = object.cast::<StoreFactory>()?;
                Body::Object(Box::new(streaming::reference_of(factory)?))
            }
            OBJECT => {
                let encoded = streaming::encode(None, &object)?;
                let framed = encoded.payload(py)?.frame().py(py)?;
                Body::Value((&*framed.parts().to_buffer()).into())
            }
            END => Body::End,
            other => return Err(PyValueError::new_err(format!("{other:?} is no kind of event"))),
        };
        Ok(Event { metadata: metadata::write(said.as_ref(), codec)?, ..Event::new(body) })
    });
    let events = events.collect::<PyResult<_>>()?;
    let mut bytes = Message { topic, consumers: Vec::new(), events }.encode().py(py)?;
    if alone {
        bytes.extend_from_slice(&ALONE);
    }
    Ok(PyBytes::new(py, &bytes))
}

type Parts<'py> = (String, Bound<'py, PyList>, bool);

/// The topic and the events of a message, and whether it stands for one event.
#[pyfunction(name = "_message_from_bytes")]
pub(crate) fn message_from_bytes<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Parts<'py>> {
    let message = Message::decode(bytes).py(py)?;
    let events = PyList::empty(py);
    for Event { body, metadata, .. } in message.events {
        let codec = match &body {
            Body::Object(reference) => streaming::codec_of_reference(py, reference),
            _ => Codec::of_process(py),
        };
        let metadata = metadata::read(py, &metadata, || codec)?;
        let (kind, object) = match body {
            Body::Object(reference) if reference.inline.is_some() => {
                (OBJECT, extracted(py, *reference)?)
            }
            Body::Object(reference) => (KEY, streaming::factory_of(py, *reference)?.into_any()),
            Body::Value(payload) => (OBJECT, inbox::decode(py, &payload)?),
            Body::End => (END, py.None().into_bound(py)),
        };
        events.append((kind, object, metadata))?;
    }
    // If what comes before the last two bytes is a message too, these are a field of its own.
    let alone = bytes.strip_suffix(&ALONE).is_some_and(|rest| Message::decode(rest).is_ok());
    Ok((message.topic, events, alone))
}

/// An object that travelled inside its reference.
fn extracted(py: Python<'_>, reference: Reference) -> PyResult<Bound<'_, PyAny>> {
    streaming::factory_of(py, reference)?.call0()
}
