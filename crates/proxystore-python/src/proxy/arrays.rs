//! The dispatch protocols of `NumPy` and `PyTorch`.
//!
//! A library that finds one of these methods on the type of an argument hands the whole call over;
//! it is made again with every proxy replaced by its target, so that the result is what the targets
//! would have given.
use std::ptr::null_mut;

use pyo3::ffi::{self, PyObject};

use super::object::{Held, is_proxy, target};

/// How deep proxies are looked for in the tuples, lists and dicts of an argument.
const DEPTH: u32 = 4;

/// `__array_ufunc__(ufunc, method, *inputs, **kwargs)`
pub(super) unsafe extern "C" fn array_ufunc(
    _object: *mut PyObject,
    arguments: *mut PyObject,
    keywords: *mut PyObject,
) -> *mut PyObject {
    let count = ffi::PyTuple_Size(arguments);
    if count < 2 {
        return missing(c"__array_ufunc__");
    }
    let method = ffi::PyObject_GetAttr(
        ffi::PyTuple_GetItem(arguments, 0),
        ffi::PyTuple_GetItem(arguments, 1),
    );
    let Some(method) = Held::owned(method) else {
        return null_mut();
    };
    let Some(inputs) = Held::owned(ffi::PyTuple_GetSlice(arguments, 2, count)) else {
        return null_mut();
    };
    call_unwrapped(method.as_ptr(), inputs.as_ptr(), keywords)
}

/// `__array_function__(func, types, args, kwargs)`
pub(super) unsafe extern "C" fn array_function(
    _object: *mut PyObject,
    arguments: *mut PyObject,
    _keywords: *mut PyObject,
) -> *mut PyObject {
    if ffi::PyTuple_Size(arguments) != 4 {
        return missing(c"__array_function__");
    }
    call_unwrapped(
        ffi::PyTuple_GetItem(arguments, 0),
        ffi::PyTuple_GetItem(arguments, 2),
        ffi::PyTuple_GetItem(arguments, 3),
    )
}

/// `__torch_function__(func, types, args=(), kwargs=None)`, a class method
pub(super) unsafe extern "C" fn torch_function(
    _class: *mut PyObject,
    arguments: *mut PyObject,
    _keywords: *mut PyObject,
) -> *mut PyObject {
    let count = ffi::PyTuple_Size(arguments);
    if count < 2 {
        return missing(c"__torch_function__");
    }
    let function = ffi::PyTuple_GetItem(arguments, 0);
    let optional = |i| {
        if i < count { ffi::PyTuple_GetItem(arguments, i) } else { null_mut() }
    };
    let keywords = optional(3);
    let keywords = if keywords == ffi::Py_None() { null_mut() } else { keywords };
    if count > 2 {
        return call_unwrapped(function, optional(2), keywords);
    }
    let Some(none) = Held::owned(ffi::PyTuple_New(0)) else {
        return null_mut();
    };
    call_unwrapped(function, none.as_ptr(), keywords)
}

unsafe fn missing(name: &std::ffi::CStr) -> *mut PyObject {
    let message = c"%s: arguments are missing";
    ffi::PyErr_Format(ffi::PyExc_TypeError, message.as_ptr(), name.as_ptr())
}

unsafe fn call_unwrapped(
    function: *mut PyObject,
    arguments: *mut PyObject,
    keywords: *mut PyObject,
) -> *mut PyObject {
    // Only libraries call this, with a tuple and a dict; but anybody can.
    if ffi::PyTuple_Check(arguments) == 0
        || (!keywords.is_null() && ffi::PyDict_Check(keywords) == 0)
    {
        let message = c"arguments must be a tuple, and keyword arguments a dict";
        ffi::PyErr_SetString(ffi::PyExc_TypeError, message.as_ptr());
        return null_mut();
    }
    let Some(arguments) = unwrapped(arguments, DEPTH) else {
        return null_mut();
    };
    if keywords.is_null() {
        return ffi::PyObject_CallObject(function, arguments.as_ptr());
    }
    let Some(keywords) = unwrapped(keywords, DEPTH) else {
        return null_mut();
    };
    ffi::PyObject_Call(function, arguments.as_ptr(), keywords.as_ptr())
}

/// The object with its proxies replaced: itself when it holds none, a copy of the tuple, list or
/// dict when it does.
unsafe fn unwrapped(object: *mut PyObject, depth: u32) -> Option<Held> {
    if is_proxy(object) {
        return Held::owned(target(object));
    }
    if depth == 0 || !holds_proxy(object, depth) {
        ffi::Py_INCREF(object);
        return Held::owned(object);
    }
    if ffi::PyTuple_CheckExact(object) != 0 {
        let count = ffi::PyTuple_Size(object);
        let copy = Held::owned(ffi::PyTuple_New(count))?;
        for i in 0..count {
            let item = unwrapped(ffi::PyTuple_GetItem(object, i), depth - 1)?;
            ffi::PyTuple_SetItem(copy.as_ptr(), i, item.into_ptr());
        }
        return Some(copy);
    }
    if ffi::PyList_CheckExact(object) != 0 {
        // A factory may run any code, so the copy comes first and is nobody else's.
        let copy = Held::owned(ffi::PyList_GetSlice(object, 0, isize::MAX))?;
        for i in 0..ffi::PyList_Size(copy.as_ptr()) {
            let item = unwrapped(ffi::PyList_GetItem(copy.as_ptr(), i), depth - 1)?;
            ffi::PyList_SetItem(copy.as_ptr(), i, item.into_ptr());
        }
        return Some(copy);
    }
    let source = Held::owned(ffi::PyDict_Copy(object))?;
    let copy = Held::owned(ffi::PyDict_Copy(object))?;
    let (mut position, mut key, mut value) = (0, null_mut(), null_mut());
    while ffi::PyDict_Next(source.as_ptr(), &raw mut position, &raw mut key, &raw mut value) != 0 {
        let value = unwrapped(value, depth - 1)?;
        if ffi::PyDict_SetItem(copy.as_ptr(), key, value.as_ptr()) < 0 {
            return None;
        }
    }
    Some(copy)
}

/// Whether there is a proxy in an exact tuple, list or dict. Runs no foreign code.
unsafe fn holds_proxy(object: *mut PyObject, depth: u32) -> bool {
    let within = |item| is_proxy(item) || (depth > 1 && holds_proxy(item, depth - 1));
    if ffi::PyTuple_CheckExact(object) != 0 {
        (0..ffi::PyTuple_Size(object)).any(|i| within(ffi::PyTuple_GetItem(object, i)))
    } else if ffi::PyList_CheckExact(object) != 0 {
        (0..ffi::PyList_Size(object)).any(|i| within(ffi::PyList_GetItem(object, i)))
    } else if ffi::PyDict_CheckExact(object) != 0 {
        let (mut position, mut key, mut value) = (0, null_mut(), null_mut());
        while ffi::PyDict_Next(object, &raw mut position, &raw mut key, &raw mut value) != 0 {
            if within(value) {
                return true;
            }
        }
        false
    } else {
        false
    }
}
