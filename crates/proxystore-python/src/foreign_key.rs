//! Keys of connectors written in Python, as keys of the library.
//!
//! A named tuple of texts, integers and `None` becomes readable text: the path of its class and
//! its fields, `module:Class|sTEXT|i7|n`. Any other key becomes `#` and its pickle in hexadecimal.

use proxystore::Key;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyInt, PyList, PyString, PyTuple, PyType};

use crate::{trust, value};

static PICKLER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static BYTES_IO: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Paths of key classes and the classes themselves, both ways.
static CLASSES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();

/// The library's key for an object of `size` bytes under a connector's own key.
pub(crate) fn from_python(key: &Bound<'_, PyAny>, size: usize) -> PyResult<Key> {
    let id = match plain(key)? {
        Some(id) => id,
        None => pickled(key)?,
    };
    Ok(Key::new(id, 1, size as u64)) // its objects have no generations
}

/// Whether the key is a pickle, so that looking at it means to unpickle it.
pub(crate) fn is_pickled(key: &Key) -> bool {
    key.id().starts_with('#')
}

/// The key of the connector's own type.
pub(crate) fn to_python<'py>(py: Python<'py>, key: &Key) -> PyResult<Bound<'py, PyAny>> {
    if let Some(hex) = key.id().strip_prefix('#') {
        let digit = |c: u8| char::from(c).to_digit(16).unwrap_or_default() as u8; // below 16
        let pairs = hex.as_bytes().chunks_exact(2);
        let bytes: Vec<u8> = pairs.map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect();
        return trust::loads(py, &bytes);
    }
    let mut fields = key.id().split('|');
    let class = class_at(py, fields.next().unwrap_or_default())?;
    let items = PyList::empty(py);
    for field in fields {
        match field.split_at_checked(1) {
            Some(("s", text)) => items.append(text)?,
            Some(("i", number)) => items.append(number.parse::<i64>()?)?,
            _ => items.append(py.None())?,
        }
    }
    value::tuple_of(&class, &items.to_tuple())
}

fn plain(key: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
    let Ok(tuple) = key.cast::<PyTuple>() else { return Ok(None) };
    let Some(mut id) = path_of(&key.get_type())? else { return Ok(None) };
    for field in tuple {
        id.push('|');
        if let Ok(text) = field.cast_exact::<PyString>() {
            let Some(text) = text.to_str().ok().filter(|text| !text.contains('|')) else {
                return Ok(None);
            };
            id.push('s');
            id.push_str(text);
        } else if let Ok(number) = field.cast_exact::<PyInt>() {
            let Ok(number) = number.extract::<i64>() else { return Ok(None) };
            id.push('i');
            id.push_str(&number.to_string());
        } else if field.is_none() {
            id.push('n');
        } else {
            return Ok(None);
        }
    }
    Ok(Some(id))
}

fn pickled(key: &Bound<'_, PyAny>) -> PyResult<String> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    const PROTOCOL: i32 = 4; // the same from every version of Python
    let py = key.py();
    let file = BYTES_IO.import(py, "io", "BytesIO")?.call0()?;
    let pickler = PICKLER.import(py, "pickle", "Pickler")?.call1((&file, PROTOCOL))?;
    // Without a memo equal keys have equal pickles, whether or not they share their strings.
    pickler.setattr(intern!(py, "fast"), true)?;
    pickler.call_method1(intern!(py, "dump"), (key,))?;
    let pickled = file.call_method0(intern!(py, "getvalue"))?.cast_into::<PyBytes>()?;
    let mut id = String::with_capacity(1 + 2 * pickled.as_bytes().len());
    id.push('#');
    for byte in pickled.as_bytes() {
        id.push(char::from(HEX[usize::from(byte >> 4)]));
        id.push(char::from(HEX[usize::from(byte & 15)]));
    }
    Ok(id)
}

fn classes(py: Python<'_>) -> &Bound<'_, PyDict> {
    CLASSES.get_or_init(py, || PyDict::new(py).unbind()).bind(py)
}

/// The path of a named tuple's class; `None` for other classes and those no import finds.
fn path_of(class: &Bound<'_, PyType>) -> PyResult<Option<String>> {
    let py = class.py();
    if let Some(path) = classes(py).get_item(class)? {
        return path.extract();
    }
    let module = class.getattr(intern!(py, "__module__"))?.extract::<String>()?;
    let name = class.getattr(intern!(py, "__qualname__"))?.extract::<String>()?;
    let named = class.hasattr(intern!(py, "_fields"))? && !name.contains('<');
    let path = named.then(|| format!("{module}:{name}"));
    classes(py).set_item(class, &path)?;
    Ok(path)
}

fn class_at<'py>(py: Python<'py>, path: &str) -> PyResult<Bound<'py, PyAny>> {
    if let Some(class) = classes(py).get_item(path)? {
        return Ok(class);
    }
    let (module, name) = path.split_once(':').unwrap_or((path, ""));
    let class = trust::key_class(py, module, name)?;
    classes(py).set_item(path, &class)?;
    Ok(class)
}
