//! Settings between Python and the library.

use std::collections::BTreeMap;

use proxystore::connectors::Value;
use pyo3::IntoPyObjectExt;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple, PyType};

/// Named settings, such as the options of a connector.
pub(crate) type Settings = BTreeMap<String, Value>;

/// A Python value as a setting; `None` when it has no plain representation.
pub(crate) fn from_python(value: &Bound<'_, PyAny>) -> Option<Value> {
    if value.is_exact_instance_of::<PyBool>() {
        return value.extract().ok().map(Value::Bool);
    }
    if value.is_exact_instance_of::<PyInt>() {
        return value.extract().ok().map(Value::Int);
    }
    if value.is_exact_instance_of::<PyFloat>() {
        return value.extract().ok().map(Value::Float);
    }
    if value.is_exact_instance_of::<PyString>() {
        return value.extract().ok().map(Value::Text);
    }
    if value.is_exact_instance_of::<PyBytes>() {
        return value.extract().ok().map(Value::Bytes);
    }
    if let Ok(list) = value.cast_exact::<PyList>() {
        return list.iter().map(|item| from_python(&item)).collect::<Option<_>>().map(Value::List);
    }
    if let Ok(dict) = value.cast_exact::<PyDict>() {
        return settings(dict).map(Value::Map);
    }
    None
}

/// A dict of plain values as settings; `None` when something in it is not plain.
pub(crate) fn settings(dict: &Bound<'_, PyDict>) -> Option<Settings> {
    dict.iter()
        .map(|(name, value)| Some((name.extract::<String>().ok()?, from_python(&value)?)))
        .collect()
}

/// A setting as a Python value.
pub(crate) fn to_python<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    match value {
        Value::Bool(value) => value.into_bound_py_any(py),
        Value::Int(value) => value.into_bound_py_any(py),
        Value::Float(value) => value.into_bound_py_any(py),
        Value::Text(value) => value.into_bound_py_any(py),
        Value::Bytes(value) => Ok(PyBytes::new(py, value).into_any()),
        Value::List(values) => {
            let items = values.iter().map(|value| to_python(py, value));
            let list = PyList::empty(py);
            for item in items {
                list.append(item?)?;
            }
            Ok(list.into_any())
        }
        Value::Map(values) => Ok(dict(py, values)?.into_any()),
    }
}

/// Settings as a dict.
pub(crate) fn dict<'py>(py: Python<'py>, settings: &Settings) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, value) in settings {
        dict.set_item(name, to_python(py, value)?)?;
    }
    Ok(dict)
}

/// An instance of a subclass of `tuple`, such as a named tuple, without running its constructor.
pub(crate) fn tuple_of<'py>(
    class: &Bound<'py, PyAny>,
    items: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = class.py();
    py.get_type::<PyTuple>().call_method1(pyo3::intern!(py, "__new__"), (class, items))
}

/// A class as `module:qualname`; `None` when no other process could find it.
pub(crate) fn class_name(class: &Bound<'_, PyType>) -> Option<String> {
    let module = class.getattr(intern!(class.py(), "__module__")).ok()?;
    let name = class.getattr(intern!(class.py(), "__qualname__")).ok()?;
    let name = name.extract::<String>().ok()?;
    let module = module.extract::<String>().ok()?;
    (!name.contains('<')).then(|| format!("{module}:{name}"))
}
