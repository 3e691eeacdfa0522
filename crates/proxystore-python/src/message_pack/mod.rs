//! MessagePack between Python and other languages.
//!
//! Dataclasses and named tuples are maps of their fields. The class of one that is an object by
//! itself is named in the payload's metadata, which other languages ignore.

mod read;
mod write;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::codec::Codec;
use crate::error::raise;
use crate::pickle::Decoding;
use crate::value;

pub(crate) use write::{class_read, encode};

static NAMED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static MADE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Where Python arranges values as instances of classes.
const CLASSES: &str = "proxystore_rs.store._classes";

/// The metadata for an object: `module:qualname` of a class that readers can look up, or nothing.
pub(crate) fn class_of(object: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let class = object.get_type();
    if !write::is_dataclass(&class)? && !write::is_named_tuple(object)? {
        return Ok(Vec::new());
    }
    Ok(value::class_name(&class).unwrap_or_default().into_bytes())
}

/// The object that a document stands for. Its class, if `meta` names one, is that of this process.
pub(crate) fn decode<'py>(
    py: Python<'py>,
    document: &[u8],
    meta: &[u8],
    how: Decoding<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let value = read::decode(py, document)?;
    if meta.is_empty() || how.class.is_some() {
        return Ok(value);
    }
    let class = std::str::from_utf8(meta)
        .map_err(|_| raise(py, "CorruptObjectError", "the name of the class is not UTF-8"))?;
    NAMED.import(py, CLASSES, "named")?.call1((class, value, how.codec == Codec::Data))
}

/// A value as an instance of the class, or of the annotation, that the caller asks for.
pub(crate) fn made<'py>(
    class: &Bound<'py, PyAny>,
    value: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    MADE.import(class.py(), CLASSES, "made")?.call1((class, value))
}
