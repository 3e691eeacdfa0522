//! What producers say of objects: MessagePack where that says it exactly, else a pickle.

use proxystore::patterns::stream::Metadata;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString};

use crate::codec::{Codec, refusal};
use crate::pickle::Decoding;
use crate::{message_pack, trust};

/// Nested deeper, it is pickled.
const DEEPEST: usize = 32;

/// The metadata of a dictionary.
pub(super) fn write(given: Option<&Bound<'_, PyDict>>, codec: Codec) -> PyResult<Metadata> {
    let Some(given) = given.filter(|given| !given.is_empty()) else {
        return Ok(Metadata::default());
    };
    let py = given.py();
    if is_exact(given, 0) {
        return Ok(Metadata::from_parts(message_pack::encode(given)?, Vec::new()));
    }
    if codec == Codec::Data {
        return Err(refusal(
            py,
            "the metadata of the object would have to be pickled",
            "Let it be a dictionary of texts to texts, numbers, bytes, lists and dictionaries",
        ));
    }
    let pickle = py.import(intern!(py, "pickle"))?;
    let pickled = pickle.call_method1(intern!(py, "dumps"), (given,))?.extract()?;
    Ok(Metadata::from_parts(Vec::new(), pickled))
}

/// The dictionary of metadata; `codec` is called if it is pickled.
pub(super) fn read<'py>(
    py: Python<'py>,
    metadata: &Metadata,
    codec: impl FnOnce() -> PyResult<Codec>,
) -> PyResult<Bound<'py, PyAny>> {
    let (map, foreign) = metadata.parts();
    if !foreign.is_empty() {
        if codec()? == Codec::Data {
            return Err(refusal(
                py,
                "the metadata of an event is a pickle",
                "Let its producer say it by texts, numbers, bytes, lists and dictionaries",
            ));
        }
        return trust::loads(py, foreign);
    }
    if map.is_empty() {
        return Ok(PyDict::new(py).into_any());
    }
    let how = Decoding {
        access: proxystore::Access::Private,
        deserializer: None,
        codec: Codec::Any,
        class: None,
    };
    message_pack::decode(py, map, &[], how)
}

/// Whether a value is read from MessagePack as what it is.
fn is_exact(value: &Bound<'_, PyAny>, depth: usize) -> bool {
    if depth > DEEPEST {
        return false;
    }
    if let Ok(text) = value.cast_exact::<PyString>() {
        return text.to_str().is_ok();
    }
    if let Ok(list) = value.cast_exact::<PyList>() {
        return list.iter().all(|item| is_exact(&item, depth + 1));
    }
    if let Ok(dict) = value.cast_exact::<PyDict>() {
        return dict.iter().all(|(name, value)| {
            name.is_exact_instance_of::<PyString>()
                && is_exact(&name, depth)
                && is_exact(&value, depth + 1)
        });
    }
    if value.is_exact_instance_of::<PyInt>() {
        return value.extract::<i64>().is_ok() || value.extract::<u64>().is_ok();
    }
    value.is_none()
        || value.is_exact_instance_of::<PyBool>()
        || value.is_exact_instance_of::<PyFloat>()
        || value.is_exact_instance_of::<PyBytes>()
}
