//! What is worth knowing of a Python object without fetching it.
//!
//! Only exact types are described: a subclass may have a length or a shape of its own making.

use std::borrow::Cow;

use proxystore::Facts;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyFrozenSet, PyList, PySet, PyString, PyTuple};

use crate::array::{Numpy, PLAIN};

/// Facts about an object that is about to be stored; nothing of most types.
pub(super) fn facts_of(object: &Bound<'_, PyAny>) -> Facts {
    let found = if is_sized_builtin(object) {
        object.len().map(Facts::of_len)
    } else if is_array(object) {
        array(object)
    } else {
        table(object)
    };
    found.unwrap_or_default() // facts are a courtesy: the object is stored all the same
}

fn is_sized_builtin(object: &Bound<'_, PyAny>) -> bool {
    object.is_exact_instance_of::<PyBytes>()
        || object.is_exact_instance_of::<PyString>()
        || object.is_exact_instance_of::<PyList>()
        || object.is_exact_instance_of::<PyDict>()
        || object.is_exact_instance_of::<PyTuple>()
        || object.is_exact_instance_of::<PySet>()
        || object.is_exact_instance_of::<PyFrozenSet>()
        || object.is_exact_instance_of::<PyByteArray>()
}

fn is_array(object: &Bound<'_, PyAny>) -> bool {
    matches!(Numpy::if_imported(object.py()), Ok(Some(numpy)) if object.get_type().is(&numpy.ndarray))
}

fn array(object: &Bound<'_, PyAny>) -> PyResult<Facts> {
    let py = object.py();
    let shape: Vec<u64> = object.getattr(intern!(py, "shape"))?.extract()?;
    Ok(Facts {
        len: shape.first().copied(),
        shape: Some(shape),
        dtype: dtype(&object.getattr(intern!(py, "dtype"))?)?,
        nbytes: Some(object.getattr(intern!(py, "nbytes"))?.extract()?),
        ..Facts::default()
    })
}

/// The type string of elements, if it says all there is to say: that of a record does not.
fn dtype(dtype: &Bound<'_, PyAny>) -> PyResult<Option<Cow<'static, str>>> {
    let text = dtype.getattr(intern!(dtype.py(), "str"))?.cast_into::<PyString>()?;
    let text = text.to_str()?;
    if let Some(plain) = PLAIN.iter().find(|plain| **plain == text) {
        return Ok(Some(Cow::Borrowed(plain)));
    }
    let class = dtype.py().import(intern!(dtype.py(), "numpy"))?.getattr("dtype")?;
    let same = class.call1((text,)).and_then(|other| other.eq(dtype)).unwrap_or(false);
    Ok(same.then(|| Cow::Owned(text.to_owned())))
}

/// Tables: module and name of the class, and what tells how many bytes one holds, where that is
/// cheap. By name: whoever has a table has imported its library.
const TABLES: [(&str, &str, Option<&str>); 5] = [
    ("pandas.core.frame", "DataFrame", None),
    ("pandas", "DataFrame", None),
    ("polars.dataframe.frame", "DataFrame", Some("estimated_size")),
    ("pyarrow.lib", "Table", Some("nbytes")),
    ("pyarrow.lib", "RecordBatch", Some("nbytes")),
];

fn table(object: &Bound<'_, PyAny>) -> PyResult<Facts> {
    let class = object.get_type();
    let (name, module) = (class.name()?, class.module()?);
    let known = TABLES.iter().find(|table| name == table.1 && module == table.0);
    let Some((_, _, measure)) = known else {
        return Ok(Facts::default());
    };
    let shape: Vec<u64> = object.getattr(intern!(object.py(), "shape"))?.extract()?;
    let nbytes = match measure {
        Some(measure) => {
            let bytes = object.getattr(*measure)?;
            if bytes.is_callable() { bytes.call0()? } else { bytes }.extract().ok()
        }
        None => None,
    };
    Ok(Facts { len: shape.first().copied(), shape: Some(shape), nbytes, ..Facts::default() })
}
