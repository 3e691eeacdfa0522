//! Asynchronous slots: awaiting, asynchronous iteration, and the sending that tasks do.
use std::ptr::null_mut;

use pyo3::ffi::{self, PyObject, PySendResult};

use super::object::held;
use super::python;

pub(super) unsafe extern "C" fn am_await(object: *mut PyObject) -> *mut PyObject {
    let Some(target) = held(object) else {
        return null_mut();
    };
    let target = target.as_ptr();
    let kind = ffi::Py_TYPE(target);
    let slots = (*kind).tp_as_async;
    if !slots.is_null()
        && let Some(slot) = (*slots).am_await
    {
        return slot(target);
    }
    if ffi::PyGen_CheckExact(target) != 0 {
        // Awaitable if it was made by `types.coroutine`, which only the interpreter can tell.
        return python::call(&python::AWAIT_GENERATOR, target);
    }
    let message = c"object %.100s can't be used in 'await' expression";
    ffi::PyErr_Format(ffi::PyExc_TypeError, message.as_ptr(), (*kind).tp_name)
}

pub(super) unsafe extern "C" fn am_aiter(object: *mut PyObject) -> *mut PyObject {
    let Some(target) = held(object) else {
        return null_mut();
    };
    ffi::PyObject_GetAIter(target.as_ptr())
}

pub(super) unsafe extern "C" fn am_anext(object: *mut PyObject) -> *mut PyObject {
    let Some(target) = held(object) else {
        return null_mut();
    };
    let target = target.as_ptr();
    let kind = ffi::Py_TYPE(target);
    let slots = (*kind).tp_as_async;
    if !slots.is_null()
        && let Some(slot) = (*slots).am_anext
    {
        return slot(target);
    }
    let message = c"'%.200s' object is not an async iterator";
    ffi::PyErr_Format(ffi::PyExc_TypeError, message.as_ptr(), (*kind).tp_name)
}

/// Without this slot `asyncio` takes a proxy of a coroutine for a plain iterator.
pub(super) unsafe extern "C" fn am_send(
    object: *mut PyObject,
    value: *mut PyObject,
    result: *mut *mut PyObject,
) -> PySendResult {
    let Some(target) = held(object) else {
        *result = null_mut();
        return PySendResult::PYGEN_ERROR;
    };
    ffi::PyIter_Send(target.as_ptr(), value, result)
}
