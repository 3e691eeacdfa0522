//! Python objects as payloads: the one place where objects are encoded and decoded.
//!
//! `bytes`, `str`, plain NumPy arrays and tables use the language-neutral codecs; everything else is
//! pickled with protocol 5, whose out-of-band buffers become parts of their own, unless another
//! codec is asked for. Large memory is never copied to be encoded.

use proxystore::codec;
use proxystore::payload::{Bytes, Part, Payload, Received};
use proxystore::{Access, Buffer};
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};

use crate::array;
use crate::buffer::{PyStoredBytes, View, is_allocated, was_put};
use crate::codec::{Codec, refusal};
use crate::error::raise;
use crate::message_pack;
use crate::table;

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

/// Where the bytes of a part are.
pub(crate) enum Memory {
    Bytes(Py<PyBytes>),
    Text(Py<PyString>),
    View { view: View, allocated: bool },
    Pieces(Vec<View>),
}

impl Encoded {
    pub(crate) fn new(codec: u16, meta: Vec<u8>, parts: Vec<Memory>) -> Self {
        Self { codec, meta, parts }
    }

    pub(crate) fn one(codec: u16, meta: Vec<u8>, memory: Memory) -> Self {
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
                Memory::Pieces(views) => {
                    payload.push_pieces(views.iter().map(|view| view.bytes().into()));
                    continue;
                }
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
            if array::Numpy::if_imported(py)?
                .is_some_and(|numpy| object.get_type().is(&numpy.ndarray))
            {
                let options = PyDict::new(py);
                options.set_item(intern!(py, "write"), false)?;
                object.call_method(intern!(py, "setflags"), (), Some(&options))?;
            }
        }
        Ok(())
    }
}

/// How an object is encoded: by a serializer of the user's, else by a codec.
#[derive(Clone, Copy)]
pub(crate) struct Encoding<'a, 'py> {
    pub(crate) serializer: Option<&'a Bound<'py, PyAny>>,
    pub(crate) codec: Codec,
}

/// Encodes an object.
pub(crate) fn encode(object: &Bound<'_, PyAny>, how: Encoding<'_, '_>) -> PyResult<Encoded> {
    if let Some(serializer) = how.serializer {
        let made = serializer.call1((object,))?;
        let Ok(view) = View::of(&made) else {
            return Err(PyTypeError::new_err("Serializer must return a bytes-like object."));
        };
        let memory = Memory::View { view, allocated: false };
        return Ok(Encoded::one(codec::CUSTOM, Vec::new(), memory));
    }
    if how.codec == Codec::MessagePack {
        return encode_message_pack(object);
    }
    if let Ok(bytes) = object.cast_exact::<PyBytes>() {
        return Ok(Encoded::one(codec::RAW, Vec::new(), Memory::Bytes(bytes.clone().unbind())));
    }
    if let Ok(text) = object.cast_exact::<PyString>()
        && text.to_str().is_ok()
    {
        return Ok(Encoded::one(codec::UTF8, Vec::new(), Memory::Text(text.clone().unbind())));
    }
    let neutral = how.codec == Codec::Data;
    if let Some(encoded) = array::encode(object, neutral)? {
        return Ok(encoded);
    }
    if let Some(encoded) = table::encode(object, neutral)? {
        return Ok(encoded);
    }
    if neutral { encode_message_pack(object) } else { encode_pickle(object) }
}

fn encode_message_pack(object: &Bound<'_, PyAny>) -> PyResult<Encoded> {
    let document = message_pack::encode(object)?;
    let document = PyBytes::new(object.py(), &document).unbind();
    let meta = message_pack::class_of(object)?;
    Ok(Encoded::one(codec::MESSAGE_PACK, meta, Memory::Bytes(document)))
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

/// How an object is decoded.
#[derive(Clone, Copy)]
pub(crate) struct Decoding<'a, 'py> {
    pub(crate) access: Access,
    /// The user's own function, whatever codec wrote the object.
    pub(crate) deserializer: Option<&'a Bound<'py, PyAny>>,
    /// With [`Codec::Data`], pickles and the bytes of unknown serializers are refused.
    pub(crate) codec: Codec,
    /// What a MessagePack document stands for, instead of the class that its writer named.
    pub(crate) class: Option<&'a Bound<'py, PyAny>>,
}

/// Decodes an object.
pub(crate) fn decode<'py>(
    py: Python<'py>,
    received: &Received,
    how: Decoding<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let object = decode_as_stored(py, received, how)?;
    match how.class {
        Some(class) => message_pack::made(class, &object),
        None => Ok(object),
    }
}

fn decode_as_stored<'py>(
    py: Python<'py>,
    received: &Received,
    how: Decoding<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    if let Some(deserializer) = how.deserializer {
        return decode_custom(py, received, deserializer);
    }
    let corrupt = |what| raise(py, "CorruptObjectError", what);
    let part = |index| received.part(index).ok_or_else(|| corrupt("the object has no such part"));
    let writable = how.access == Access::Private;
    match received.codec() {
        codec::RAW => Ok(PyBytes::new(py, &part(0)?).into_any()),
        codec::UTF8 => {
            let text = part(0)?;
            let text = std::str::from_utf8(&text).map_err(|_| corrupt("the text is not UTF-8"))?;
            Ok(PyString::new(py, text).into_any())
        }
        codec::TABLE => table::decode(py, received, writable, how.codec == Codec::Data),
        codec::ARRAY => array::decode(py, received.meta(), part(0)?, writable),
        codec::MESSAGE_PACK => message_pack::decode(py, &part(0)?, received.meta(), how),
        codec::PICKLE if how.codec == Codec::Data => Err(refusal(
            py,
            "failed to decode object: it was stored as a Python pickle",
            "Store it with codec='data' or 'msgpack', or read it where codec='data' is not set if \
             you trust whoever can write to the channel",
        )),
        codec::CUSTOM if how.codec == Codec::Data => Err(refusal(
            py,
            "failed to decode object: it was stored by a custom serializer",
            "Pass the matching deserializer to this call, or to the store where it is made in this \
             process",
        )),
        codec::PICKLE => decode_pickle(py, received, part(0)?, writable),
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

pub(crate) fn undecodable(py: Python<'_>, serializer: &str, cause: PyErr) -> PyErr {
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
