//! Protocols that have no slot and go by method name: formatting, rounding, contexts, checks.
use std::ffi::{CStr, c_int};
use std::ptr::null_mut;

use pyo3::ffi::{self, PyObject};

use super::attribute::special;
use super::object::{Held, held};
use super::python;

macro_rules! without_argument {
    ($($method:ident => $forward:expr;)*) => {$(
        pub(super) unsafe extern "C" fn $method(
            object: *mut PyObject,
            _: *mut PyObject,
        ) -> *mut PyObject {
            let Some(target) = held(object) else { return null_mut() };
            let forward: unsafe fn(*mut PyObject) -> *mut PyObject = $forward;
            forward(target.as_ptr())
        }
    )*};
}

without_argument! {
    bytes => |target| ffi::PyObject_CallOneArg((&raw mut ffi::PyBytes_Type).cast(), target);
    complex => |target| ffi::PyObject_CallOneArg((&raw mut ffi::PyComplex_Type).cast(), target);
    reversed => |target| ffi::PyObject_CallOneArg((&raw mut ffi::PyReversed_Type).cast(), target);
    fspath => |target| ffi::PyOS_FSPath(target);
    dir => |target| ffi::PyObject_Dir(target);
    trunc => |target| python::call(&python::TRUNC, target);
    floor => |target| python::call(&python::FLOOR, target);
    ceil => |target| python::call(&python::CEIL, target);
    length_hint => |target| hint(target);
    enter => |target| begin(target, &SYNCHRONOUS);
    async_enter => |target| begin(target, &ASYNCHRONOUS);
}

/// What Dask tells equal arguments by: the factory, never the target.
pub(super) unsafe extern "C" fn dask_token(
    object: *mut PyObject,
    _: *mut PyObject,
) -> *mut PyObject {
    python::call(&python::DASK_TOKEN, object)
}

/// A view of the stored object, which is not resolved.
pub(super) unsafe extern "C" fn view(object: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    python::call(&python::VIEW, object)
}

unsafe fn hint(target: *mut PyObject) -> *mut PyObject {
    const NONE: isize = -2;
    match ffi::PyObject_LengthHint(target, NONE) {
        -1 => null_mut(),
        NONE => {
            ffi::Py_INCREF(ffi::Py_NotImplemented());
            ffi::Py_NotImplemented()
        }
        hint => ffi::PyLong_FromSsize_t(hint),
    }
}

struct Context {
    enter: &'static CStr,
    exit: &'static CStr,
    protocol: &'static CStr,
    half: &'static CStr,
}

const SYNCHRONOUS: Context = Context {
    enter: c"__enter__",
    exit: c"__exit__",
    protocol: c"'%.200s' object does not support the context manager protocol",
    half: c"'%.200s' object does not support the context manager protocol \
            (missed __exit__ method)",
};

const ASYNCHRONOUS: Context = Context {
    enter: c"__aenter__",
    exit: c"__aexit__",
    protocol: c"'%.200s' object does not support the asynchronous context manager protocol",
    half: c"'%.200s' object does not support the asynchronous context manager protocol \
            (missed __aexit__ method)",
};

/// Calls the target's `__enter__` as `with` would: both methods are looked up before.
unsafe fn begin(target: *mut PyObject, context: &Context) -> *mut PyObject {
    let name = (*ffi::Py_TYPE(target)).tp_name;
    let Some(enter) = special(target, context.enter) else {
        return ffi::PyErr_Format(ffi::PyExc_TypeError, context.protocol.as_ptr(), name);
    };
    if special(target, context.exit).is_none() {
        return ffi::PyErr_Format(ffi::PyExc_TypeError, context.half.as_ptr(), name);
    }
    ffi::PyObject_CallOneArg(enter.as_ptr(), target)
}

pub(super) unsafe extern "C" fn exit(
    object: *mut PyObject,
    arguments: *mut PyObject,
) -> *mut PyObject {
    end(object, arguments, SYNCHRONOUS.exit)
}

pub(super) unsafe extern "C" fn async_exit(
    object: *mut PyObject,
    arguments: *mut PyObject,
) -> *mut PyObject {
    end(object, arguments, ASYNCHRONOUS.exit)
}

unsafe fn end(object: *mut PyObject, arguments: *mut PyObject, name: &CStr) -> *mut PyObject {
    let Some(target) = held(object) else {
        return null_mut();
    };
    let Some(exit) = special(target.as_ptr(), name) else {
        return null_mut();
    };
    call_with_target(exit.as_ptr(), target.as_ptr(), arguments)
}

/// `function(target, *arguments)`
unsafe fn call_with_target(
    function: *mut PyObject,
    target: *mut PyObject,
    arguments: *mut PyObject,
) -> *mut PyObject {
    let Some(first) = Held::owned(ffi::PyTuple_Pack(1, target)) else {
        return null_mut();
    };
    let Some(all) = Held::owned(ffi::PySequence_Concat(first.as_ptr(), arguments)) else {
        return null_mut();
    };
    ffi::PyObject_CallObject(function, all.as_ptr())
}

pub(super) unsafe extern "C" fn round(
    object: *mut PyObject,
    arguments: *mut PyObject,
) -> *mut PyObject {
    let Some(target) = held(object) else {
        return null_mut();
    };
    let round = python::imported(&python::ROUND);
    if round.is_null() {
        return null_mut();
    }
    call_with_target(round, target.as_ptr(), arguments)
}

pub(super) unsafe extern "C" fn format(
    object: *mut PyObject,
    specification: *mut PyObject,
) -> *mut PyObject {
    let Some(target) = held(object) else {
        return null_mut();
    };
    ffi::PyObject_Format(target.as_ptr(), specification)
}

/// `isinstance(other, proxy)` where the target is a class.
pub(super) unsafe extern "C" fn instance_check(
    object: *mut PyObject,
    other: *mut PyObject,
) -> *mut PyObject {
    let Some(target) = held(object) else {
        return null_mut();
    };
    boolean(ffi::PyObject_IsInstance(other, target.as_ptr()))
}

/// `issubclass(other, proxy)` where the target is a class.
pub(super) unsafe extern "C" fn subclass_check(
    object: *mut PyObject,
    other: *mut PyObject,
) -> *mut PyObject {
    let Some(target) = held(object) else {
        return null_mut();
    };
    boolean(ffi::PyObject_IsSubclass(other, target.as_ptr()))
}

unsafe fn boolean(answer: c_int) -> *mut PyObject {
    if answer < 0 { null_mut() } else { ffi::PyBool_FromLong(answer.into()) }
}

/// `Proxy[T]`
pub(super) unsafe extern "C" fn class_getitem(
    class: *mut PyObject,
    parameters: *mut PyObject,
) -> *mut PyObject {
    ffi::Py_GenericAlias(class, parameters)
}
