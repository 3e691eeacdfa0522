//! Python objects as payloads: the one place where objects are encoded and decoded.
//!
//! `bytes`, `str` and plain NumPy arrays use the language-neutral codecs; everything else is
//! pickled with protocol 5, whose out-of-band buffers become parts of their own. Large memory is
//! never copied to be encoded.

use proxystore::codec::{self, Order};
use proxystore::payload::{Bytes, Part, Payload, Received};
use proxystore::{Access, Buffer};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

use crate::buffer::{PyStoredBytes, View, is_allocated, was_put};
use crate::error::raise;

static DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

fn dumps(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    DUMPS.import(py, "pickle", "dumps")
}

fn loads(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    LOADS.import(py, "pickle", "loads")
}

/// What an object was encoded to; borrows the object's own memory until dropped.
pub(crate) struct Encoded {
    codec: u16,
    meta: Vec<u8>,
    parts: Vec<Memory>,
}

enum Memory {
    Bytes(Py<PyBytes>),
    Text(Py<PyString>),
    View { view: View, allocated: bool },
}

impl Encoded {
    fn one(codec: u16, meta: Vec<u8>, memory: Memory) -> Self {
        Self { codec, meta, parts: vec![memory] }
    }

    /// The payload, borrowing from this.
    pub(crate) fn payload<'a>(&'a self, py: Python<'a>) -> PyResult<Payload<'a>> {
        let mut payload = Payload::new(self.codec, &self.meta[..]);
        for memory in &self.parts {
            let (bytes, allocated) = match memory {
                Memory::Bytes(bytes) => (bytes.as_bytes(py), false),
                Memory::Text(text) => (text.bind(py).to_str()?.as_bytes(), false),
                Memory::View { view, allocated } => (view.bytes(), *allocated),
            };
            payload.push(Part { allocated, ..Bytes::Borrowed(bytes).into() });
        }
        Ok(payload)
    }
}

impl Encoded {
    /// Notes that the object was put: an array that lies in the channel can no longer be written
    /// to, since a stored object never changes.
    pub(crate) fn was_put(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = object.py();
        for memory in &self.parts {
            let Memory::View { view, allocated: true } = memory else { continue };
            was_put(view.bytes());
            if Numpy::if_imported(py)?.is_some_and(|numpy| object.get_type().is(&numpy.ndarray)) {
                let options = PyDict::new(py);
                options.set_item(intern!(py, "write"), false)?;
                object.call_method(intern!(py, "setflags"), (), Some(&options))?;
            }
        }
        Ok(())
    }
}

/// Encodes an object, with the user's serializer if there is one.
pub(crate) fn encode(
    object: &Bound<'_, PyAny>,
    serializer: Option<&Bound<'_, PyAny>>,
) -> PyResult<Encoded> {
    if let Some(serializer) = serializer {
        let made = serializer.call1((object,))?;
        let Ok(view) = View::of(&made) else {
            return Err(PyTypeError::new_err("Serializer must return a bytes-like object."));
        };
        let memory = Memory::View { view, allocated: false };
        return Ok(Encoded::one(codec::CUSTOM, Vec::new(), memory));
    }
    if let Ok(bytes) = object.cast_exact::<PyBytes>() {
        return Ok(Encoded::one(codec::RAW, Vec::new(), Memory::Bytes(bytes.clone().unbind())));
    }
    if let Ok(text) = object.cast_exact::<PyString>()
        && text.to_str().is_ok()
    {
        return Ok(Encoded::one(codec::UTF8, Vec::new(), Memory::Text(text.clone().unbind())));
    }
    if let Some(encoded) = encode_array(object)? {
        return Ok(encoded);
    }
    encode_pickle(object)
}

fn encode_pickle(object: &Bound<'_, PyAny>) -> PyResult<Encoded> {
    let py = object.py();
    let buffers = PyList::empty(py);
    let options = PyDict::new(py);
    options.set_item(intern!(py, "protocol"), 5)?;
    options.set_item(intern!(py, "buffer_callback"), buffers.getattr(intern!(py, "append"))?)?;
    let stream = match dumps(py)?.call((object,), Some(&options)) {
        Ok(stream) => stream,
        Err(error) => {
            buffers.call_method0(intern!(py, "clear"))?;
            cloudpickle(object, &options, error)?
        }
    };
    let mut parts = Vec::with_capacity(1 + buffers.len());
    parts.push(Memory::Bytes(stream.cast_into::<PyBytes>()?.unbind()));
    for buffer in &buffers {
        let view = View::of(&buffer.call_method0(intern!(py, "raw"))?)?;
        let allocated = is_allocated(view.bytes());
        parts.push(Memory::View { view, allocated });
    }
    Ok(Encoded { codec: codec::PICKLE, meta: Vec::new(), parts })
}

/// The second try: cloudpickle, if installed, knows lambdas and classes of the main program.
fn cloudpickle<'py>(
    object: &Bound<'py, PyAny>,
    options: &Bound<'py, PyDict>,
    error: PyErr,
) -> PyResult<Bound<'py, PyAny>> {
    let py = object.py();
    let second = py
        .import("cloudpickle")
        .and_then(|module| module.getattr("dumps"))
        .and_then(|dumps| dumps.call((object,), Some(options)));
    let cause = match second {
        Ok(stream) => return Ok(stream),
        Err(second) if second.is_instance_of::<pyo3::exceptions::PyImportError>(py) => error,
        Err(second) => second,
    };
    if !cause.is_instance_of::<pyo3::exceptions::PyException>(py) {
        return Err(cause); // KeyboardInterrupt and the like
    }
    let message = format!(
        "Object of type {} is not supported: it cannot be pickled ({}). Pass a serializer, or \
         store a picklable part of it.",
        object.get_type(),
        cause.value(py),
    );
    let raised = raise(py, "SerializationError", &message);
    raised.set_cause(py, Some(cause));
    Err(raised)
}

/// Types of the elements of arrays in the array codec. Any other may stand for addresses, which
/// must not be taken from what was received.
const PLAIN: [&str; 14] = [
    "|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8", "<c8",
    "<c16",
];

/// A NumPy array of plain numbers without gaps, in the array codec.
fn encode_array(object: &Bound<'_, PyAny>) -> PyResult<Option<Encoded>> {
    let py = object.py();
    let Some(numpy) = Numpy::if_imported(py)? else {
        return Ok(None);
    };
    if !object.get_type().is(numpy.ndarray.bind(py)) {
        return Ok(None);
    }
    let dtype = object.getattr(intern!(py, "dtype"))?.getattr(intern!(py, "str"))?;
    let dtype = dtype.cast_into::<PyString>()?;
    let dtype = dtype.to_str()?;
    if !PLAIN.contains(&dtype) {
        return Ok(None); // records, objects, dates, other byte orders: pickle knows them all
    }
    let Ok(view) = View::of(object) else {
        return Ok(None);
    }; // it has gaps
    let (shape, order) = view.shape_and_order();
    let meta = codec::array_meta(dtype, &shape, order)
        .map_err(|e| PyValueError::new_err(e.to_string()))?;
    let allocated = is_allocated(view.bytes());
    Ok(Some(Encoded::one(codec::ARRAY, meta, Memory::View { view, allocated })))
}

/// What is needed of NumPy, once the program has imported it itself.
struct Numpy {
    ndarray: Py<PyAny>,
}

static NUMPY: PyOnceLock<Numpy> = PyOnceLock::new();

impl Numpy {
    fn get(py: Python<'_>) -> PyResult<&Self> {
        NUMPY.get_or_try_init(py, || {
            Ok(Self { ndarray: py.import("numpy")?.getattr("ndarray")?.unbind() })
        })
    }

    fn if_imported(py: Python<'_>) -> PyResult<Option<&Self>> {
        if let Some(numpy) = NUMPY.get(py) {
            return Ok(Some(numpy));
        }
        let modules = py.import("sys")?.getattr("modules")?;
        match modules.get_item(intern!(py, "numpy")) {
            // A module that is only half imported has no ndarray yet.
            Ok(module) if module.hasattr(intern!(py, "ndarray"))? => Self::get(py).map(Some),
            _ => Ok(None),
        }
    }
}

/// Decodes an object, with the user's deserializer if there is one.
pub(crate) fn decode<'py>(
    py: Python<'py>,
    received: &Received,
    deserializer: Option<&Bound<'py, PyAny>>,
    access: Access,
) -> PyResult<Bound<'py, PyAny>> {
    if let Some(deserializer) = deserializer {
        return decode_custom(py, received, deserializer);
    }
    let corrupt = |what| raise(py, "CorruptObjectError", what);
    let part = |index| received.part(index).ok_or_else(|| corrupt("the object has no such part"));
    let writable = access == Access::Private;
    match received.codec() {
        codec::RAW => Ok(PyBytes::new(py, &part(0)?).into_any()),
        codec::UTF8 => {
            let text = part(0)?;
            let text = std::str::from_utf8(&text).map_err(|_| corrupt("the text is not UTF-8"))?;
            Ok(PyString::new(py, text).into_any())
        }
        codec::ARRAY => decode_array(py, received.meta(), part(0)?, writable),
        codec::PICKLE => decode_pickle(py, received, part(0)?, writable),
        codec::MESSAGE_PACK => crate::message_pack::decode(py, &part(0)?),
        codec::CUSTOM => Err(raise(
            py,
            "SerializationError",
            "the object was stored with a custom serializer: pass the matching deserializer to \
             the store or to this call",
        )),
        other => Err(raise(
            py,
            "IncompatibleVersionError",
            &format!(
                "failed to decode object: codec {other} is unknown; upgrade proxystore_rs to the \
                 version that wrote the object"
            ),
        )),
    }
}

fn decode_pickle<'py>(
    py: Python<'py>,
    received: &Received,
    stream: Buffer,
    writable: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let stream = PyBytes::new(py, &stream);
    if received.part_count() == 1 {
        return loads(py)?.call1((stream,)).map_err(|error| undecodable(py, "pickle", error));
    }
    let buffers = PyList::empty(py);
    for part in (1..received.part_count()).filter_map(|index| received.part(index)) {
        buffers.append(Bound::new(py, PyStoredBytes::new(part, writable))?)?;
    }
    let options = PyDict::new(py);
    options.set_item(intern!(py, "buffers"), buffers)?;
    loads(py)?.call((stream,), Some(&options)).map_err(|error| undecodable(py, "pickle", error))
}

pub(crate) fn decode_array<'py>(
    py: Python<'py>,
    meta: &[u8],
    elements: Buffer,
    writable: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let (dtype, shape, order) =
        codec::read_array_meta(meta).map_err(|error| crate::error::to_python(py, error))?;
    if !PLAIN.contains(&&*dtype) {
        let message = format!(
            "failed to decode array: elements of type {dtype:?} are unknown; upgrade \
             proxystore_rs to the version that wrote the object"
        );
        return Err(raise(py, "IncompatibleVersionError", &message));
    }
    let shape = PyTuple::new(py, shape)?;
    let memory = Bound::new(py, PyStoredBytes::new(elements, writable))?;
    let order = if order == Order::F { "F" } else { "C" };
    // ndarray(shape, dtype, buffer, offset, strides, order)
    let ndarray = Numpy::get(py)?.ndarray.bind(py);
    ndarray
        .call1((shape, dtype, memory, 0, py.None(), order))
        .map_err(|error| undecodable(py, "array", error))
}

fn decode_custom<'py>(
    py: Python<'py>,
    received: &Received,
    deserializer: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let bytes = match received.part(0) {
        Some(part) => PyBytes::new(py, &part),
        None => PyBytes::new(py, b""),
    };
    deserializer.call1((bytes,)).map_err(|error| undecodable(py, "custom", error))
}

fn undecodable(py: Python<'_>, serializer: &str, cause: PyErr) -> PyErr {
    if !cause.is_instance_of::<pyo3::exceptions::PyException>(py) {
        return cause; // KeyboardInterrupt and the like
    }
    let message = format!(
        "Failed to deserialize object using the {serializer} serializer: {}",
        cause.value(py)
    );
    let raised = raise(py, "SerializationError", &message);
    raised.set_cause(py, Some(cause));
    raised
}
