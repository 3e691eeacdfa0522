//! NumPy arrays in the array codec, which every language reads.

use proxystore::Buffer;
use proxystore::codec::{self, Order};
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::buffer::{PyStoredBytes, View, is_allocated};
use crate::error::raise;
use crate::pickle::{Encoded, Memory, undecodable};

/// Types of the elements of arrays in the array codec. Any other may stand for addresses, which
/// must not be taken from what was received.
pub(crate) const PLAIN: [&str; 14] = [
    "|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8", "<c8",
    "<c16",
];

/// A NumPy array of plain numbers; `None` for what is none.
///
/// An array with gaps or of foreign byte order is left to pickle, which knows them all; with
/// `neutral` it is copied into what every language reads, and any other array is an error.
pub(crate) fn encode(object: &Bound<'_, PyAny>, neutral: bool) -> PyResult<Option<Encoded>> {
    let py = object.py();
    let Some(numpy) = Numpy::if_imported(py)? else {
        return Ok(None);
    };
    let ndarray = numpy.ndarray.bind(py);
    if !object.get_type().is(ndarray) {
        if neutral && object.is_instance(ndarray)? {
            let class = object.get_type().name()?;
            let remedy = "store numpy.asarray() of it, if that says it all";
            return Err(unsupported(py, &format!("an array of the class {class}"), remedy));
        }
        return Ok(None);
    }
    let own = object.getattr(intern!(py, "dtype"))?;
    let name = own.getattr(intern!(py, "str"))?.cast_into::<PyString>()?;
    let name = name.to_str()?;
    if PLAIN.contains(&name)
        && let Ok(view) = View::of(object)
    {
        return encode_view(view, name).map(Some);
    }
    if !neutral {
        return Ok(None);
    }
    let little = own.call_method1(intern!(py, "newbyteorder"), ("<",))?;
    let name = little.getattr(intern!(py, "str"))?.cast_into::<PyString>()?;
    let name = name.to_str()?;
    if !PLAIN.contains(&name) {
        let remedy = "store its fields, or what they stand for, as arrays of numbers or as lists";
        return Err(unsupported(py, &format!("an array of {own}"), remedy));
    }
    let options = PyDict::new(py);
    options.set_item(intern!(py, "order"), "C")?;
    let copy = object.call_method(intern!(py, "astype"), (little,), Some(&options))?;
    encode_view(View::of(&copy)?, name).map(Some)
}

fn encode_view(view: View, dtype: &str) -> PyResult<Encoded> {
    let (shape, order) = view.shape_and_order();
    let meta = codec::array_meta(dtype, &shape, order)
        .map_err(|e| PyValueError::new_err(e.to_string()))?;
    let allocated = is_allocated(view.bytes());
    Ok(Encoded::one(codec::ARRAY, meta, Memory::View { view, allocated }))
}

fn unsupported(py: Python<'_>, what: &str, remedy: &str) -> PyErr {
    let message = format!("codec='data' cannot store {what}: no other language reads it; {remedy}");
    raise(py, "SerializationError", &message)
}

/// What is needed of NumPy, once the program has imported it itself.
pub(crate) struct Numpy {
    pub(crate) ndarray: Py<PyAny>,
    /// Base of the classes of single values.
    pub(crate) generic: Py<PyAny>,
}

static NUMPY: PyOnceLock<Numpy> = PyOnceLock::new();

impl Numpy {
    pub(crate) fn get(py: Python<'_>) -> PyResult<&Self> {
        NUMPY.get_or_try_init(py, || {
            let numpy = py.import("numpy")?;
            let ndarray = numpy.getattr("ndarray")?.unbind();
            Ok(Self { ndarray, generic: numpy.getattr("generic")?.unbind() })
        })
    }

    pub(crate) fn if_imported(py: Python<'_>) -> PyResult<Option<&Self>> {
        if let Some(numpy) = NUMPY.get(py) {
            return Ok(Some(numpy));
        }
        let modules = py.import("sys")?.getattr("modules")?;
        match modules.get_item(intern!(py, "numpy")) {
            // A module that is only half imported lacks these classes.
            Ok(module) if module.hasattr(intern!(py, "generic"))? => Self::get(py).map(Some),
            _ => Ok(None),
        }
    }
}

/// The array of the array codec, on the memory it was received in.
pub(crate) fn decode<'py>(
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
