//! The `__proxy_*__` names that compute something, and `repr`, which shows them.
use std::ffi::{c_int, c_void};
use std::mem::replace;
use std::ptr::null_mut;

use pyo3::ffi::{self, PyObject};

use super::facts;
use super::object::{Held, ProxyObject, set_target, target};
use super::python;

pub(super) unsafe extern "C" fn wrapped(object: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    target(object)
}

/// Presets the target; deleting goes back to unresolved.
pub(super) unsafe extern "C" fn set_wrapped(
    object: *mut PyObject,
    value: *mut PyObject,
    _: *mut c_void,
) -> c_int {
    ffi::Py_XINCREF(value);
    set_target(object, value);
    0
}

pub(super) unsafe extern "C" fn resolved(object: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    ffi::PyBool_FromLong((!(*ProxyObject::of(object)).target.is_null()).into())
}

/// The default class if it is known here: a name is looked up among the loaded modules only.
pub(super) unsafe fn known_class(object: *mut PyObject) -> *mut PyObject {
    let fields = ProxyObject::of(object);
    if (*fields).default_class.is_null() && !(*fields).class_name.is_null() {
        let found = python::loaded_class((*fields).class_name);
        let old = replace(&mut (*fields).default_class, found);
        ffi::Py_XDECREF(old);
    }
    (*fields).default_class
}

pub(super) unsafe extern "C" fn default_class(
    object: *mut PyObject,
    _: *mut c_void,
) -> *mut PyObject {
    let class = known_class(object);
    let class = if class.is_null() { ffi::Py_None() } else { class };
    ffi::Py_INCREF(class);
    class
}

pub(super) unsafe extern "C" fn set_default_class(
    object: *mut PyObject,
    value: *mut PyObject,
    _: *mut c_void,
) -> c_int {
    let fields = ProxyObject::of(object);
    let (mut class, mut name) = (null_mut(), null_mut());
    if !value.is_null() && value != ffi::Py_None() {
        ffi::Py_INCREF(value);
        *(if ffi::PyUnicode_Check(value) != 0 { &mut name } else { &mut class }) = value;
    }
    let old =
        [replace(&mut (*fields).default_class, class), replace(&mut (*fields).class_name, name)];
    for reference in old {
        ffi::Py_XDECREF(reference);
    }
    0
}

pub(super) unsafe extern "C" fn default_hash(
    object: *mut PyObject,
    _: *mut c_void,
) -> *mut PyObject {
    let hash = (*ProxyObject::of(object)).default_hash;
    let hash = if hash.is_null() { ffi::Py_None() } else { hash };
    ffi::Py_INCREF(hash);
    hash
}

/// A hash that is set by hand is taken to mean the same everywhere.
pub(super) unsafe extern "C" fn set_default_hash(
    object: *mut PyObject,
    value: *mut PyObject,
    _: *mut c_void,
) -> c_int {
    let fields = ProxyObject::of(object);
    let value = if value == ffi::Py_None() { null_mut() } else { value };
    if !value.is_null()
        && ffi::PyLong_Check(value) == 0
        && ffi::PyExceptionInstance_Check(value) == 0
    {
        let message = c"__proxy_default_hash__ must be None, an int or an exception";
        ffi::PyErr_SetString(ffi::PyExc_TypeError, message.as_ptr());
        return -1;
    }
    ffi::Py_XINCREF(value);
    (*fields).portable_hash = true;
    let old = replace(&mut (*fields).default_hash, value);
    ffi::Py_XDECREF(old);
    0
}

pub(super) unsafe extern "C" fn tp_repr(object: *mut PyObject) -> *mut PyObject {
    let fields = ProxyObject::of(object);
    let kind = ffi::Py_TYPE(object);
    let Some(name) = Held::owned(ffi::PyObject_GetAttrString(kind.cast(), c"__name__".as_ptr()))
    else {
        return null_mut();
    };
    let factory = (*fields).factory;
    let factory = if factory.is_null() {
        Held::owned(ffi::PyUnicode_FromString(c"<missing>".as_ptr()))
    } else {
        let factory = Held::borrowed(factory);
        Held::owned(ffi::PyObject_Repr(factory.as_ptr()))
    };
    let Some(factory) = factory else {
        return null_mut();
    };
    let target = (*fields).target;
    if target.is_null() {
        let known = facts::summary(object);
        let known =
            ffi::PyUnicode_FromStringAndSize(known.as_ptr().cast(), known.len().cast_signed());
        let Some(known) = Held::owned(known) else {
            return null_mut();
        };
        let form = c"<%U at %p%U with factory %U>";
        return ffi::PyUnicode_FromFormat(
            form.as_ptr(),
            name.as_ptr(),
            object,
            known.as_ptr(),
            factory.as_ptr(),
        );
    }
    let target = Held::borrowed(target);
    let form = c"<%U at %p wrapping %R at %p with factory %U>";
    ffi::PyUnicode_FromFormat(
        form.as_ptr(),
        name.as_ptr(),
        object,
        target.as_ptr(),
        target.as_ptr(),
        factory.as_ptr(),
    )
}
