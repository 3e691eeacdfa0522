//! What the slots need from Python: interned names, the exceptions, and a few helpers that are
//! imported when they are first needed.
use std::ffi::CStr;
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;

use super::object::Held;

pub(super) const FAILED: &str = "The factory of this proxy raised an error while resolving the \
     target object. See the full stack trace for the direct cause of this exception.";
pub(super) const NOT_INITIALIZED: &str = "Proxy is not initialized: __proxy_factory__ is missing.";

/// Interned strings, compared by address first.
pub(super) struct Names {
    pub(super) class: *mut PyObject,
    pub(super) reduce: *mut PyObject,
    pub(super) getattr: *mut PyObject,
    pub(super) orig_class: *mut PyObject,
}

// SAFETY: interned strings are immutable and live for ever; only attached threads touch them.
unsafe impl Send for Names {}
// SAFETY: as above.
unsafe impl Sync for Names {}

static NAMES: OnceLock<Names> = OnceLock::new();

#[inline(always)]
pub(super) fn names() -> &'static Names {
    NAMES.get_or_init(|| {
        let intern = |name: &CStr| unsafe { ffi::PyUnicode_InternFromString(name.as_ptr()) };
        Names {
            class: intern(c"__class__"),
            reduce: intern(c"__reduce__"),
            getattr: intern(c"__getattr__"),
            orig_class: intern(c"__orig_class__"),
        }
    })
}

/// An object of a Python module, imported on first use and kept for ever.
pub(super) struct Import {
    module: &'static CStr,
    name: &'static CStr,
    found: AtomicPtr<PyObject>,
}

impl Import {
    const fn new(module: &'static CStr, name: &'static CStr) -> Self {
        Self { module, name, found: AtomicPtr::new(null_mut()) }
    }
}

pub(super) static RESOLVE_ERROR: Import = Import::new(c"proxystore_rs.proxy", c"ProxyResolveError");
pub(super) static TO_TEXT: Import = Import::new(c"proxystore_rs._core", c"_to_text");
pub(super) static FROM_TEXT: Import = Import::new(c"proxystore_rs._core", c"_from_text");
pub(super) static CHECK_GUARD: Import = Import::new(c"proxystore_rs.proxy", c"_check_guard");
pub(super) static AWAIT_GENERATOR: Import =
    Import::new(c"proxystore_rs.proxy", c"_await_generator");
pub(super) static AS_ARRAY: Import = Import::new(c"proxystore_rs.proxy", c"_as_array");
pub(super) static DASK_TOKEN: Import = Import::new(c"proxystore_rs.proxy", c"_dask_token");
pub(super) static VIEW: Import = Import::new(c"proxystore_rs.store.view", c"view");
pub(super) static PARTIAL: Import = Import::new(c"functools", c"partial");
pub(super) static TRUNC: Import = Import::new(c"math", c"trunc");
pub(super) static FLOOR: Import = Import::new(c"math", c"floor");
pub(super) static CEIL: Import = Import::new(c"math", c"ceil");
pub(super) static ROUND: Import = Import::new(c"builtins", c"round");

/// A borrowed reference, or null with an exception set.
pub(super) unsafe fn imported(import: &Import) -> *mut PyObject {
    let found = import.found.load(Relaxed);
    if !found.is_null() {
        return found;
    }
    let Some(module) = Held::owned(ffi::PyImport_ImportModule(import.module.as_ptr())) else {
        return null_mut();
    };
    let found = ffi::PyObject_GetAttrString(module.as_ptr(), import.name.as_ptr());
    import.found.store(found, Relaxed);
    found
}

/// Calls an imported function with one argument.
pub(super) unsafe fn call(import: &Import, argument: *mut PyObject) -> *mut PyObject {
    let function = imported(import);
    if function.is_null() { function } else { ffi::PyObject_CallOneArg(function, argument) }
}

/// The current exception as an object, cleared; null when there was none.
pub(super) unsafe fn take_exception() -> *mut PyObject {
    // Not `assume_attached`: PyO3 defers drops it believes to happen while detached.
    Python::try_attach(|py| PyErr::take(py).map_or(null_mut(), |e| e.into_value(py).into_ptr()))
        .unwrap_or(null_mut())
}

/// Replaces the current exception by a `ProxyResolveError` that it is the cause of.
pub(super) unsafe fn wrap_error(message: &str) {
    Python::try_attach(|py| {
        let Some(cause) = PyErr::take(py) else { return };
        // Misuse of the proxy itself, which is no failure to produce the target.
        if cause.get_type(py).hasattr(pyo3::intern!(py, "_passes_through_proxies")).unwrap_or(false)
        {
            return cause.restore(py);
        }
        let class = imported(&RESOLVE_ERROR);
        if class.is_null() {
            // Late in the interpreter's life there is nothing to import: the cause has to do.
            drop(PyErr::take(py));
            return cause.restore(py);
        }
        let class = Bound::from_borrowed_ptr(py, class);
        match class.call1((message, cause.value(py))) {
            Ok(error) => {
                let error = PyErr::from_value(error);
                error.set_cause(py, Some(cause));
                error.restore(py);
            }
            Err(error) => error.restore(py),
        }
    });
}

/// The class named `module:qualname` if its module is loaded, as a new reference, else null.
///
/// Looks into the modules' and classes' own dictionaries, so that no import hook, module
/// `__getattr__` or metaclass runs.
pub(super) unsafe fn loaded_class(name: *mut PyObject) -> *mut PyObject {
    let mut length = 0;
    let bytes = ffi::PyUnicode_AsUTF8AndSize(name, &raw mut length);
    if bytes.is_null() {
        ffi::PyErr_Clear();
        return null_mut();
    }
    let name = std::slice::from_raw_parts(bytes.cast::<u8>(), length.cast_unsigned());
    let Some((module, qualname)) =
        std::str::from_utf8(name).ok().and_then(|name| name.split_once(':'))
    else {
        return null_mut();
    };
    let modules = ffi::PySys_GetObject(c"modules".as_ptr());
    let mut found = lookup(modules, module);
    for part in qualname.split('.') {
        if found.is_null() {
            return null_mut();
        }
        let dictionary = if ffi::PyModule_Check(found) != 0 {
            ffi::PyModule_GetDict(found)
        } else if ffi::PyType_Check(found) != 0 {
            (*found.cast::<ffi::PyTypeObject>()).tp_dict
        } else {
            null_mut()
        };
        found = lookup(dictionary, part);
    }
    if found.is_null() || ffi::PyType_Check(found) == 0 {
        return null_mut();
    }
    ffi::Py_INCREF(found);
    found
}

/// A borrowed value of a real dictionary, or null without an exception.
unsafe fn lookup(dictionary: *mut PyObject, key: &str) -> *mut PyObject {
    if dictionary.is_null() || ffi::PyDict_Check(dictionary) == 0 {
        return null_mut();
    }
    let key = ffi::PyUnicode_FromStringAndSize(key.as_ptr().cast(), key.len().cast_signed());
    let Some(key) = Held::owned(key) else {
        ffi::PyErr_Clear();
        return null_mut();
    };
    let found = ffi::PyDict_GetItemWithError(dictionary, key.as_ptr());
    if found.is_null() {
        ffi::PyErr_Clear();
    }
    found
}
