//! NumPy arrays in the array codec, which every language reads.

use proxystore::Buffer;
use proxystore::codec::{self, Order};
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyTuple};

use crate::buffer::{PyStoredBytes, View, is_allocated};
use crate::error::raise;
use crate::pickle::{Encoded, Memory, undecodable};

/// Types of the elements of arrays in the array codec. Any other may stand for addresses, which
/// must not be taken from what was received.
const PLAIN: [&str; 14] = [
    "|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8", "<c8",
    "<c16",
];

/// A NumPy array of plain numbers without gaps, in the array codec.
pub(crate) fn encode(object: &Bound<'_, PyAny>) -> PyResult<Option<Encoded>> {
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
pub(crate) struct Numpy {
    pub(crate) ndarray: Py<PyAny>,
}

static NUMPY: PyOnceLock<Numpy> = PyOnceLock::new();

impl Numpy {
    pub(crate) fn get(py: Python<'_>) -> PyResult<&Self> {
        NUMPY.get_or_try_init(py, || {
            Ok(Self { ndarray: py.import("numpy")?.getattr("ndarray")?.unbind() })
        })
    }

    pub(crate) fn if_imported(py: Python<'_>) -> PyResult<Option<&Self>> {
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
