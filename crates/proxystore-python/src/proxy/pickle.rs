//! What travels: the factory, and what an unresolved proxy knows of its target's class and hash.
//! Never the target, and never a resolve.
//!
//! A pickled proxy is a call of `proxystore_rs._core._proxy`. A type of factory that has a more
//! compact reference registers a [`Reducer`].
use std::ptr::null_mut;
use std::sync::OnceLock;

use pyo3::ffi::{self, Py_ssize_t, PyObject, PyTypeObject};
use pyo3::prelude::*;
use pyo3::types::PyType;

use super::fields::{set_default_class, set_default_hash};
use super::object::{self, Held, ProxyObject, allocate, proxy_type};
use super::python;

/// Gives the value of `__reduce__` for a proxy with this factory, or `None` for the ordinary one.
pub type Reducer =
    for<'py> fn(Python<'py>, &Bound<'py, PyAny>, &Bound<'py, PyAny>) -> PyResult<Option<Py<PyAny>>>;

static REDUCER: OnceLock<(Py<PyType>, Reducer)> = OnceLock::new();
static TRAMPOLINE: OnceLock<Py<PyAny>> = OnceLock::new();

/// Has proxies whose factory is of the type `kind`, or of a subclass, reduced by
/// `reducer(py, factory, proxy)`.
///
/// There is one such type, the native store factory; a second registration changes nothing and
/// returns false. The reducer must not resolve the proxy.
pub fn register_reducer(kind: &Bound<'_, PyType>, reducer: Reducer) -> bool {
    REDUCER.set((kind.clone().unbind(), reducer)).is_ok()
}

/// Keeps the function that unpickling calls.
pub(super) fn set_trampoline(function: &Bound<'_, PyAny>) {
    // A second initialisation of the module finds the first one's function, which does the same.
    let _ = TRAMPOLINE.set(function.clone().unbind());
}

/// `_proxy(factory, default_class=None, default_hash=None)`
pub(super) unsafe extern "C" fn trampoline(
    _module: *mut PyObject,
    arguments: *mut *mut PyObject,
    count: Py_ssize_t,
) -> *mut PyObject {
    if !(1..=3).contains(&count) {
        let message = c"_proxy takes 1 to 3 arguments, %zd given";
        return ffi::PyErr_Format(ffi::PyExc_TypeError, message.as_ptr(), count);
    }
    let Some(proxy) = Held::owned(allocate(proxy_type())) else {
        return null_mut();
    };
    let factory = *arguments;
    ffi::Py_INCREF(factory);
    (*ProxyObject::of(proxy.as_ptr())).factory = factory;
    if count > 1 && set_default_class(proxy.as_ptr(), *arguments.add(1), null_mut()) < 0 {
        return null_mut();
    }
    if count > 2 && set_default_hash(proxy.as_ptr(), *arguments.add(2), null_mut()) < 0 {
        return null_mut();
    }
    proxy.into_ptr()
}

/// `__reduce__`: the same for subclasses, which come back as plain proxies unless they override it.
pub(super) unsafe extern "C" fn reduce(object: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    let fields = ProxyObject::of(object);
    let factory = (*fields).factory;
    if factory.is_null() {
        ffi::PyErr_SetString(ffi::PyExc_AttributeError, c"__proxy_factory__".as_ptr());
        python::wrap_error(python::NOT_INITIALIZED);
        return null_mut();
    }
    if let Some((kind, reducer)) = REDUCER.get()
        && ffi::PyType_IsSubtype(ffi::Py_TYPE(factory), kind.as_ptr().cast::<PyTypeObject>()) != 0
        && let Some(reduced) =
            Python::try_attach(|py| custom(py, *reducer, factory, object)).unwrap_or(None)
    {
        return reduced;
    }
    let Some(trampoline) = TRAMPOLINE.get() else {
        ffi::PyErr_SetString(ffi::PyExc_SystemError, c"_core is not initialised".as_ptr());
        return null_mut();
    };
    let none = ffi::Py_None();
    let or_none = |field: *mut PyObject| if field.is_null() { none } else { field };
    // A class that came as a name leaves as a name: whoever receives it need not have it.
    let class = if (*fields).class_name.is_null() {
        or_none((*fields).default_class)
    } else {
        (*fields).class_name
    };
    let hash = if (*fields).portable_hash { or_none((*fields).default_hash) } else { none };
    let arguments = if hash != none {
        ffi::PyTuple_Pack(3, factory, class, hash)
    } else if class != none {
        ffi::PyTuple_Pack(2, factory, class)
    } else {
        ffi::PyTuple_Pack(1, factory)
    };
    let Some(arguments) = Held::owned(arguments) else {
        return null_mut();
    };
    ffi::PyTuple_Pack(2, trampoline.as_ptr(), arguments.as_ptr())
}

/// `None` for the ordinary value, else the reducer's, or null with an exception set.
unsafe fn custom(
    py: Python<'_>,
    reducer: Reducer,
    factory: *mut PyObject,
    object: *mut PyObject,
) -> Option<*mut PyObject> {
    let factory = Bound::from_borrowed_ptr(py, factory);
    let object = Bound::from_borrowed_ptr(py, object);
    match reducer(py, &factory, &object) {
        Ok(value) => value.map(Py::into_ptr),
        Err(error) => {
            error.restore(py);
            Some(null_mut())
        }
    }
}

/// `__reduce_ex__`: so that a subclass need override `__reduce__` only.
pub(super) unsafe extern "C" fn reduce_ex(
    object: *mut PyObject,
    _protocol: *mut PyObject,
) -> *mut PyObject {
    if ffi::Py_TYPE(object) == object::proxy_type() {
        return reduce(object, null_mut());
    }
    ffi::PyObject_CallMethodNoArgs(object, python::names().reduce)
}

/// Whether the hash means the same in every process: numbers, and tuples of them. Those of strings
/// are salted, and most others are made of addresses or strings.
pub(super) unsafe fn hash_is_portable(value: *mut PyObject, depth: u32) -> bool {
    if ffi::PyTuple_CheckExact(value) != 0 {
        return depth > 0
            && (0..ffi::PyTuple_Size(value))
                .all(|i| hash_is_portable(ffi::PyTuple_GetItem(value, i), depth - 1));
    }
    let kind = ffi::Py_TYPE(value);
    kind == &raw mut ffi::PyLong_Type
        || kind == &raw mut ffi::PyBool_Type
        || kind == &raw mut ffi::PyComplex_Type
        // The hash of a NaN is its address.
        || (kind == &raw mut ffi::PyFloat_Type && !ffi::PyFloat_AsDouble(value).is_nan())
}
