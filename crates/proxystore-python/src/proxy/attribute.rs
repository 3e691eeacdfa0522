//! Attributes: what is forwarded by name, and what the proxy answers itself.
//!
//! Everything goes to the target except `__class__` (a default may answer), the `__proxy_*` names,
//! what `pickle` and `copy` ask for, `to_text` (unless the target's class has one), and names that a subclass or `object.__setattr__` put on the
//! proxy. Some names are only ever probes by tools that look at every object they meet; an
//! unresolved proxy says no to those without resolving.
use std::ffi::c_int;
use std::ptr::null_mut;

use pyo3::ffi::{self, Py_ssize_t, PyObject, PyTypeObject};

use super::facts;
use super::fields::known_class;
use super::object::{Held, ProxyObject, held, proxy_type};
use super::python::{self, names};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Name {
    /// Forwarded.
    Target,
    /// `__class__`.
    Class,
    /// Found by ordinary lookup on the proxy.
    Own,
    /// Every class has its own, so a subclass having it says nothing about its instances.
    OfClass,
    /// Asked by tools in passing: never worth a resolve.
    Probe,
    /// `__array__`.
    Array,
    /// Refused, resolved or not.
    Hidden,
    /// `to_text`.
    Text,
}

/// The letters of a name, none if it has others than ASCII.
#[inline(always)]
unsafe fn ascii<'a>(name: *mut PyObject) -> &'a [u8] {
    if ffi::PyUnicode_IS_COMPACT_ASCII(name) == 0 {
        return b"";
    }
    let length = ffi::PyUnicode_GET_LENGTH(name).cast_unsigned();
    std::slice::from_raw_parts(ffi::PyUnicode_DATA(name).cast::<u8>(), length)
}

#[inline(always)]
unsafe fn classify(name: *mut PyObject) -> Name {
    if ffi::PyUnicode_Check(name) == 0 {
        return Name::Target;
    }
    let bytes = ascii(name);
    if bytes.len() < 7 || bytes[0] != b'_' {
        return if bytes == b"to_text" { Name::Text } else { Name::Target };
    }
    classify_private(bytes)
}

#[inline(never)]
fn classify_private(name: &[u8]) -> Name {
    if name[1] != b'_' {
        let probe =
            (name.starts_with(b"_repr_") && name.ends_with(b"_")) || name.starts_with(b"_ipython_");
        return if probe { Name::Probe } else { Name::Target };
    }
    match name {
        b"__class__" => Name::Class,
        b"__reduce__"
        | b"__reduce_ex__"
        | b"__copy__"
        | b"__deepcopy__"
        | b"__dask_tokenize__"
        | b"__torch_function__" => Name::Own,
        b"__module__"
        | b"__doc__"
        | b"__dict__"
        | b"__weakref__"
        | b"__annotations__"
        | b"__name__"
        | b"__qualname__"
        | b"__slots__"
        | b"__orig_bases__"
        | b"__parameters__"
        | b"__static_attributes__"
        | b"__firstlineno__"
        | b"__annotate__"
        | b"__annotate_func__"
        | b"__annotations_cache__"
        | b"__abstractmethods__" => Name::OfClass,
        b"__array__" => Name::Array,
        // The struct interface of arrays has no place for the unit of a datetime64.
        b"__array_struct__" => Name::Hidden,
        _ if name.starts_with(b"__proxy_") => Name::Own,
        _ if name.starts_with(b"__dask_") => Name::Probe,
        _ => Name::Target,
    }
}

/// Whether a subclass has the name ahead of the proxy type.
unsafe fn subclass_has(kind: *mut PyTypeObject, name: *mut PyObject) -> bool {
    kind != proxy_type() && class_has(kind, name, proxy_type())
}

/// Whether a class has the name, or inherits it from a class before `end`.
unsafe fn class_has(kind: *mut PyTypeObject, name: *mut PyObject, end: *mut PyTypeObject) -> bool {
    let order = (*kind).tp_mro;
    for i in 0..ffi::PyTuple_GET_SIZE(order) {
        let class = ffi::PyTuple_GET_ITEM(order, i).cast::<PyTypeObject>();
        if class == end {
            return false;
        }
        let dictionary = (*class).tp_dict;
        if !dictionary.is_null() && ffi::PyDict_Contains(dictionary, name) == 1 {
            return true;
        }
    }
    false
}

/// Whether the class of the target has the name, as far as that is known without resolving.
unsafe fn target_class_has(object: *mut PyObject, name: *mut PyObject) -> bool {
    let target = (*ProxyObject::of(object)).target;
    let class = if target.is_null() { known_class(object).cast() } else { ffi::Py_TYPE(target) };
    !class.is_null() && class_has(class, name, null_mut())
}

/// Whether `object.__setattr__` put the name on the proxy itself.
#[inline(always)]
unsafe fn instance_has(object: *mut PyObject, name: *mut PyObject) -> bool {
    let dictionary = (*ProxyObject::of(object)).dict;
    !dictionary.is_null() && ffi::PyDict_Contains(dictionary, name) == 1
}

/// The class a proxy shows: the remembered one while unresolved, else the target's.
pub(super) unsafe fn class_of(object: *mut PyObject) -> *mut PyObject {
    if (*ProxyObject::of(object)).target.is_null() {
        let class = known_class(object);
        if !class.is_null() {
            ffi::Py_INCREF(class);
            return class;
        }
    }
    let Some(target) = held(object) else {
        return null_mut();
    };
    ffi::PyObject_GetAttr(target.as_ptr(), names().class)
}

pub(super) unsafe extern "C" fn get_class(
    object: *mut PyObject,
    _: *mut std::ffi::c_void,
) -> *mut PyObject {
    class_of(object)
}

unsafe fn absent(name: *mut PyObject) -> *mut PyObject {
    ffi::PyErr_SetObject(ffi::PyExc_AttributeError, name);
    null_mut()
}

unsafe fn get_from_target(object: *mut PyObject, name: *mut PyObject) -> *mut PyObject {
    if (*ProxyObject::of(object)).target.is_null()
        && ffi::PyUnicode_Check(name) != 0
        && let Some(known) = facts::attribute(object, ascii(name))
    {
        return known;
    }
    let Some(target) = held(object) else {
        return null_mut();
    };
    ffi::PyObject_GetAttr(target.as_ptr(), name)
}

pub(super) unsafe extern "C" fn getattro(
    object: *mut PyObject,
    name: *mut PyObject,
) -> *mut PyObject {
    let kind = ffi::Py_TYPE(object);
    if name == names().class && kind == proxy_type() {
        return class_of(object);
    }
    match classify(name) {
        Name::Class => {
            return if subclass_has(kind, name) {
                ffi::PyObject_GenericGetAttr(object, name)
            } else {
                class_of(object)
            };
        }
        Name::Own => return ffi::PyObject_GenericGetAttr(object, name),
        Name::OfClass => return get_from_target(object, name),
        Name::Hidden => return absent(name),
        Name::Text if !target_class_has(object, name) => {
            return ffi::PyObject_GenericGetAttr(object, name);
        }
        Name::Array if !subclass_has(kind, name) => return array_method(object, name),
        Name::Probe if (*ProxyObject::of(object)).target.is_null() && !subclass_has(kind, name) => {
            return absent(name);
        }
        Name::Target | Name::Array | Name::Probe | Name::Text => {}
    }
    if instance_has(object, name) {
        return ffi::PyObject_GenericGetAttr(object, name);
    }
    if kind != proxy_type() {
        if subclass_has(kind, name) {
            return ffi::PyObject_GenericGetAttr(object, name);
        }
        if subclass_has(kind, names().getattr) {
            // The interpreter calls the subclass's `__getattr__` next.
            return absent(name);
        }
    }
    get_from_target(object, name)
}

/// `NumPy` takes a proxy of a scalar, a string or a dict for an object unless it is told how to make
/// an array of it.
unsafe fn array_method(object: *mut PyObject, name: *mut PyObject) -> *mut PyObject {
    let Some(target) = held(object) else {
        return null_mut();
    };
    let target = target.as_ptr();
    let kind = ffi::Py_TYPE(target);
    let plain = [
        &raw mut ffi::PyLong_Type,
        &raw mut ffi::PyFloat_Type,
        &raw mut ffi::PyBool_Type,
        &raw mut ffi::PyComplex_Type,
        &raw mut ffi::PyUnicode_Type,
        &raw mut ffi::PyDict_Type,
    ];
    if plain.contains(&kind) || target == ffi::Py_None() {
        let (partial, as_array) =
            (python::imported(&python::PARTIAL), python::imported(&python::AS_ARRAY));
        if partial.is_null() || as_array.is_null() {
            return null_mut();
        }
        let end = null_mut::<PyObject>();
        return ffi::PyObject_CallFunctionObjArgs(partial, as_array, target, end);
    }
    ffi::PyObject_GetAttr(target, name)
}

/// Sets the attribute, or deletes it when `value` is null.
pub(super) unsafe extern "C" fn setattro(
    object: *mut PyObject,
    name: *mut PyObject,
    value: *mut PyObject,
) -> c_int {
    let kind = classify(name);
    let own = match kind {
        Name::Own => true,
        Name::OfClass => false,
        _ => subclass_has(ffi::Py_TYPE(object), name),
    };
    if own {
        return ffi::PyObject_GenericSetAttr(object, name, value);
    }
    if ffi::PyUnicode_Check(name) != 0 && ffi::PyUnicode_Compare(name, names().orig_class) == 0 {
        // `Proxy[T](factory)` marks what it made; the mark is not for the target.
        absent(name);
        return -1;
    }
    let Some(target) = held(object) else {
        return -1;
    };
    ffi::PyObject_SetAttr(target.as_ptr(), name, value)
}

/// `__setattr__` as an ordinary method. With a C slot `object.__setattr__(proxy, ...)` would be
/// refused.
pub(super) unsafe extern "C" fn set_method(
    object: *mut PyObject,
    arguments: *mut *mut PyObject,
    count: Py_ssize_t,
) -> *mut PyObject {
    if count != 2 {
        let message = c"__setattr__ takes 2 arguments, %zd given";
        return ffi::PyErr_Format(ffi::PyExc_TypeError, message.as_ptr(), count);
    }
    if setattro(object, *arguments, *arguments.add(1)) < 0 { null_mut() } else { none() }
}

/// `__delattr__` as an ordinary method, for the same reason.
pub(super) unsafe extern "C" fn delete_method(
    object: *mut PyObject,
    name: *mut PyObject,
) -> *mut PyObject {
    if setattro(object, name, null_mut()) < 0 { null_mut() } else { none() }
}

unsafe fn none() -> *mut PyObject {
    ffi::Py_INCREF(ffi::Py_None());
    ffi::Py_None()
}

/// The attribute `name` of the type of the object: what `with` and `async with` look up.
pub(super) unsafe fn special(object: *mut PyObject, name: &std::ffi::CStr) -> Option<Held> {
    let kind = ffi::Py_TYPE(object).cast::<PyObject>();
    Held::owned(ffi::PyObject_GetAttrString(kind, name.as_ptr()))
}
