//! Slots of containers and callables: length, items, membership, iteration, comparison, hash,
//! calls and buffers.
use std::ffi::c_int;
use std::ptr::null_mut;

use pyo3::ffi::{self, Py_hash_t, Py_ssize_t, PyObject};

use super::facts;
use super::object::{Held, ProxyObject, held, operand};

pub(super) unsafe extern "C" fn length(object: *mut PyObject) -> Py_ssize_t {
    if (*ProxyObject::of(object)).target.is_null()
        && let Some(length) = facts::length(object)
    {
        return length;
    }
    held(object).map_or(-1, |target| ffi::PyObject_Size(target.as_ptr()))
}

pub(super) unsafe extern "C" fn subscript(
    object: *mut PyObject,
    key: *mut PyObject,
) -> *mut PyObject {
    let Some(target) = held(object) else {
        return null_mut();
    };
    ffi::PyObject_GetItem(target.as_ptr(), key)
}

/// Sets the item, or deletes it when `value` is null.
pub(super) unsafe extern "C" fn set_subscript(
    object: *mut PyObject,
    key: *mut PyObject,
    value: *mut PyObject,
) -> c_int {
    let Some(target) = held(object) else {
        return -1;
    };
    if value.is_null() {
        ffi::PyObject_DelItem(target.as_ptr(), key)
    } else {
        ffi::PyObject_SetItem(target.as_ptr(), key, value)
    }
}

/// C code that takes the proxy for a sequence ends here. A mapping with integer keys works too.
pub(super) unsafe extern "C" fn item(object: *mut PyObject, index: Py_ssize_t) -> *mut PyObject {
    let Some(target) = held(object) else {
        return null_mut();
    };
    let Some(index) = Held::owned(ffi::PyLong_FromSsize_t(index)) else {
        return null_mut();
    };
    ffi::PyObject_GetItem(target.as_ptr(), index.as_ptr())
}

pub(super) unsafe extern "C" fn contains(object: *mut PyObject, value: *mut PyObject) -> c_int {
    held(object).map_or(-1, |target| ffi::PySequence_Contains(target.as_ptr(), value))
}

pub(super) unsafe extern "C" fn iter(object: *mut PyObject) -> *mut PyObject {
    let Some(target) = held(object) else {
        return null_mut();
    };
    ffi::PyObject_GetIter(target.as_ptr())
}

/// Calls the slot itself, not `next`, so that the value of a `StopIteration` is kept.
pub(super) unsafe extern "C" fn next(object: *mut PyObject) -> *mut PyObject {
    let Some(target) = held(object) else {
        return null_mut();
    };
    let kind = ffi::Py_TYPE(target.as_ptr());
    if ffi::PyIter_Check(target.as_ptr()) != 0
        && let Some(next) = (*kind).tp_iternext
    {
        return next(target.as_ptr());
    }
    let message = c"'%.200s' object is not an iterator";
    ffi::PyErr_Format(ffi::PyExc_TypeError, message.as_ptr(), (*kind).tp_name)
}

/// The target's hash; the remembered one while unresolved.
pub(super) unsafe extern "C" fn hash(object: *mut PyObject) -> Py_hash_t {
    let fields = ProxyObject::of(object);
    let default = (*fields).default_hash;
    if (*fields).target.is_null() && !default.is_null() {
        return default_hash(default);
    }
    held(object).map_or(-1, |target| ffi::PyObject_Hash(target.as_ptr()))
}

unsafe fn default_hash(default: *mut PyObject) -> Py_hash_t {
    if ffi::PyExceptionInstance_Check(default) == 0 {
        return ffi::PyObject_Hash(default);
    }
    // Raises a copy: the instance itself would collect one traceback after another.
    let kind = ffi::Py_TYPE(default).cast::<PyObject>();
    if let Some(arguments) = Held::owned(ffi::PyObject_GetAttrString(default, c"args".as_ptr()))
        && let Some(copy) = Held::owned(ffi::PyObject_CallObject(kind, arguments.as_ptr()))
    {
        ffi::PyErr_SetObject(kind, copy.as_ptr());
    }
    -1
}

pub(super) unsafe extern "C" fn compare(
    left: *mut PyObject,
    right: *mut PyObject,
    operation: c_int,
) -> *mut PyObject {
    let Some(left) = operand(left) else {
        return null_mut();
    };
    let Some(right) = operand(right) else {
        return null_mut();
    };
    ffi::PyObject_RichCompare(left.as_ptr(), right.as_ptr(), operation)
}

pub(super) unsafe extern "C" fn call(
    object: *mut PyObject,
    arguments: *mut PyObject,
    keywords: *mut PyObject,
) -> *mut PyObject {
    let Some(target) = held(object) else {
        return null_mut();
    };
    ffi::PyObject_Call(target.as_ptr(), arguments, keywords)
}

pub(super) unsafe extern "C" fn vectorcall(
    object: *mut PyObject,
    arguments: *const *mut PyObject,
    count: usize,
    names: *mut PyObject,
) -> *mut PyObject {
    let Some(target) = held(object) else {
        return null_mut();
    };
    ffi::PyObject_Vectorcall(target.as_ptr(), arguments, count, names)
}

/// The view's exporter is the target, which therefore also gets its release.
pub(super) unsafe extern "C" fn get_buffer(
    object: *mut PyObject,
    view: *mut ffi::Py_buffer,
    flags: c_int,
) -> c_int {
    let Some(target) = held(object) else {
        (*view).obj = null_mut();
        return -1;
    };
    ffi::PyObject_GetBuffer(target.as_ptr(), view, flags)
}

pub(super) unsafe extern "C" fn str(object: *mut PyObject) -> *mut PyObject {
    let Some(target) = held(object) else {
        return null_mut();
    };
    ffi::PyObject_Str(target.as_ptr())
}
