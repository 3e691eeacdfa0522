//! The tables that make the slots a type.
use std::ffi::{CStr, c_int, c_uint, c_void};
use std::mem::offset_of;
use std::ptr::{null, null_mut};

use pyo3::ffi::{
    self, METH_CLASS, METH_FASTCALL, METH_KEYWORDS, METH_NOARGS, METH_O, METH_VARARGS, PyGetSetDef,
    PyMemberDef, PyMethodDef, PyMethodDefPointer, PyType_Slot,
};
use pyo3::prelude::*;

use super::object::{self, ProxyObject};
use super::{
    arrays, attribute, awaiting, container, facts, fields, guard, methods, number, pickle, python,
    resolve, text,
};

const DOC: &CStr = c"Proxy(factory, *, cache_defaults=False, target=None)
--

A lazy, transparent stand-in for the object that `factory()` returns.

The factory is called once, when the proxy is first used; every operation is then forwarded to what
it returned, the target. Looking at a proxy with `repr`, pickling it and copying it do not resolve
it, and what is pickled is the factory, not the target.

    >>> from proxystore_rs.proxy import Proxy, is_resolved
    >>> p = Proxy(lambda: [1, 2, 3])
    >>> is_resolved(p)
    False
    >>> sum(p), isinstance(p, list), is_resolved(p)
    (6, True, True)
";

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a hundred bytes, in the type the specification wants"
)]
const SIZE: c_int = size_of::<ProxyObject>() as c_int;

#[expect(clippy::cast_possible_truncation, reason = "all four are low bits")]
const FLAGS: c_uint = (ffi::Py_TPFLAGS_DEFAULT
    | ffi::Py_TPFLAGS_BASETYPE
    | ffi::Py_TPFLAGS_HAVE_GC
    | ffi::Py_TPFLAGS_HAVE_VECTORCALL) as c_uint;

/// Creates the type, starts what it needs, and adds what Python sees of it to the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    resolve::start();
    guard::register(module)?;
    facts::register(module)?;
    // SAFETY: the tables describe functions of the signatures their slots call for, and are leaked,
    // as the interpreter keeps pointers into them.
    unsafe {
        python::names();
        let mut spec = ffi::PyType_Spec {
            name: c"proxystore_rs.proxy.Proxy".as_ptr(),
            basicsize: SIZE,
            itemsize: 0,
            flags: FLAGS,
            slots: slots().leak().as_mut_ptr(),
        };
        let created = ffi::PyType_FromSpec(&raw mut spec);
        let created = Bound::from_owned_ptr_or_err(py, created)?;
        // As methods, not slots: see `attribute::set_method`. Assigning updates the slot.
        let [set, delete] = attribute_methods();
        let kind = created.as_ptr().cast::<ffi::PyTypeObject>();
        for (name, definition) in [("__setattr__", set), ("__delattr__", delete)] {
            let method = ffi::PyDescr_NewMethod(kind, definition);
            created.setattr(name, Bound::from_owned_ptr_or_err(py, method)?)?;
        }
        (*kind).tp_vectorcall = Some(object::type_vectorcall);
        module.add("Proxy", &created)?;
        object::set_proxy_type(created.into_ptr().cast());

        let name = module.name()?;
        let function = ffi::PyCFunction_NewEx(
            leak(fast(c"_proxy", pickle::trampoline)),
            null_mut(),
            name.as_ptr(),
        );
        let function = Bound::from_owned_ptr_or_err(py, function)?;
        pickle::set_trampoline(&function);
        module.add("_proxy", function)?;
    }
    Ok(())
}

fn slots() -> Vec<PyType_Slot> {
    let mut table = Vec::new();
    macro_rules! fill {
        ($($slot:ident: $function:expr,)*) => {
            $(table.push(PyType_Slot { slot: ffi::$slot, pfunc: $function as *mut c_void });)*
        };
    }
    fill! {
        Py_nb_add: number::add,
        Py_nb_subtract: number::subtract,
        Py_nb_multiply: number::multiply,
        Py_nb_matrix_multiply: number::matrix_multiply,
        Py_nb_true_divide: number::true_divide,
        Py_nb_floor_divide: number::floor_divide,
        Py_nb_remainder: number::remainder,
        Py_nb_divmod: number::divmod,
        Py_nb_power: number::power,
        Py_nb_lshift: number::left_shift,
        Py_nb_rshift: number::right_shift,
        Py_nb_and: number::and,
        Py_nb_xor: number::xor,
        Py_nb_or: number::or,
        Py_nb_negative: number::negative,
        Py_nb_positive: number::positive,
        Py_nb_absolute: number::absolute,
        Py_nb_invert: number::invert,
        Py_nb_bool: number::truth,
        Py_nb_int: number::int,
        Py_nb_float: number::float,
        Py_nb_index: number::index,
        Py_nb_inplace_add: number::in_place_add,
        Py_nb_inplace_subtract: number::in_place_subtract,
        Py_nb_inplace_multiply: number::in_place_multiply,
        Py_nb_inplace_matrix_multiply: number::in_place_matrix_multiply,
        Py_nb_inplace_true_divide: number::in_place_true_divide,
        Py_nb_inplace_floor_divide: number::in_place_floor_divide,
        Py_nb_inplace_remainder: number::in_place_remainder,
        Py_nb_inplace_power: number::in_place_power,
        Py_nb_inplace_lshift: number::in_place_left_shift,
        Py_nb_inplace_rshift: number::in_place_right_shift,
        Py_nb_inplace_and: number::in_place_and,
        Py_nb_inplace_xor: number::in_place_xor,
        Py_nb_inplace_or: number::in_place_or,
        Py_sq_concat: number::concat,
        Py_sq_inplace_concat: number::in_place_concat,
        Py_sq_length: container::length,
        Py_sq_item: container::item,
        Py_sq_contains: container::contains,
        Py_mp_length: container::length,
        Py_mp_subscript: container::subscript,
        Py_mp_ass_subscript: container::set_subscript,
        Py_tp_hash: container::hash,
        Py_tp_richcompare: container::compare,
        Py_tp_call: container::call,
        Py_tp_iter: container::iter,
        Py_tp_iternext: container::next,
        Py_tp_str: container::str,
        Py_bf_getbuffer: container::get_buffer,
        Py_am_await: awaiting::am_await,
        Py_am_aiter: awaiting::am_aiter,
        Py_am_anext: awaiting::am_anext,
        Py_am_send: awaiting::am_send,
        Py_tp_getattro: attribute::getattro,
        Py_tp_repr: fields::tp_repr,
        Py_tp_new: object::tp_new,
        Py_tp_init: object::tp_init,
        Py_tp_dealloc: object::tp_dealloc,
        Py_tp_traverse: object::tp_traverse,
        Py_tp_clear: object::tp_clear,
    }
    table.push(PyType_Slot {
        slot: ffi::Py_tp_doc,
        pfunc: DOC.as_ptr().cast_mut().cast::<c_void>(),
    });
    table.push(PyType_Slot {
        slot: ffi::Py_tp_methods,
        pfunc: methods().leak().as_mut_ptr().cast::<c_void>(),
    });
    table.push(PyType_Slot {
        slot: ffi::Py_tp_members,
        pfunc: members().leak().as_mut_ptr().cast::<c_void>(),
    });
    table.push(PyType_Slot {
        slot: ffi::Py_tp_getset,
        pfunc: properties().leak().as_mut_ptr().cast::<c_void>(),
    });
    table.push(PyType_Slot::default());
    table
}

fn methods() -> Vec<PyMethodDef> {
    let plain =
        |name, function| method(name, PyMethodDefPointer { PyCFunction: function }, METH_NOARGS);
    let one = |name, function| method(name, PyMethodDefPointer { PyCFunction: function }, METH_O);
    let many =
        |name, function| method(name, PyMethodDefPointer { PyCFunction: function }, METH_VARARGS);
    let named = |name, function, flags| {
        let function = PyMethodDefPointer { PyCFunctionWithKeywords: function };
        method(name, function, METH_VARARGS | METH_KEYWORDS | flags)
    };
    let mut class_getitem = one(c"__class_getitem__", methods::class_getitem);
    class_getitem.ml_flags |= METH_CLASS;
    let mut to_text = named(c"to_text", text::to_text, 0);
    to_text.ml_doc = text::TO_TEXT.as_ptr();
    let mut from_text = one(c"from_text", text::from_text);
    from_text.ml_flags |= METH_CLASS;
    from_text.ml_doc = text::FROM_TEXT.as_ptr();
    vec![
        plain(c"__dask_tokenize__", methods::dask_token),
        plain(c"__bytes__", methods::bytes),
        plain(c"__complex__", methods::complex),
        plain(c"__reversed__", methods::reversed),
        plain(c"__fspath__", methods::fspath),
        plain(c"__dir__", methods::dir),
        plain(c"__trunc__", methods::trunc),
        plain(c"__floor__", methods::floor),
        plain(c"__ceil__", methods::ceil),
        plain(c"__length_hint__", methods::length_hint),
        plain(c"__enter__", methods::enter),
        plain(c"__aenter__", methods::async_enter),
        many(c"__exit__", methods::exit),
        many(c"__aexit__", methods::async_exit),
        many(c"__round__", methods::round),
        one(c"__format__", methods::format),
        one(c"__instancecheck__", methods::instance_check),
        one(c"__subclasscheck__", methods::subclass_check),
        class_getitem,
        named(c"__array_ufunc__", arrays::array_ufunc, 0),
        named(c"__array_function__", arrays::array_function, 0),
        named(c"__torch_function__", arrays::torch_function, METH_CLASS),
        to_text,
        from_text,
        // On the type alone: `p.view` is the target's.
        plain(c"view", methods::view),
        plain(c"__reduce__", pickle::reduce),
        one(c"__reduce_ex__", pickle::reduce_ex),
        PyMethodDef::zeroed(),
    ]
}

fn attribute_methods() -> [*mut PyMethodDef; 2] {
    let delete = PyMethodDefPointer { PyCFunction: attribute::delete_method };
    [
        leak(fast(c"__setattr__", attribute::set_method)),
        leak(method(c"__delattr__", delete, METH_O)),
    ]
}

fn members() -> Vec<PyMemberDef> {
    let member = |name: &'static CStr, type_code, offset: usize, flags| PyMemberDef {
        name: name.as_ptr(),
        type_code,
        offset: offset.cast_signed(),
        flags,
        doc: null(),
    };
    let object = |name, offset| member(name, ffi::Py_T_OBJECT_EX, offset, 0);
    let offset = |name, offset| member(name, ffi::Py_T_PYSSIZET, offset, ffi::Py_READONLY);
    vec![
        object(c"__proxy_target__", offset_of!(ProxyObject, target)),
        object(c"__proxy_factory__", offset_of!(ProxyObject, factory)),
        offset(c"__weaklistoffset__", offset_of!(ProxyObject, weak_references)),
        offset(c"__dictoffset__", offset_of!(ProxyObject, dict)),
        offset(c"__vectorcalloffset__", offset_of!(ProxyObject, vectorcall)),
        PyMemberDef::default(),
    ]
}

fn properties() -> Vec<PyGetSetDef> {
    let property = |name: &'static CStr, get: ffi::getter, set: Option<ffi::setter>| PyGetSetDef {
        name: name.as_ptr(),
        get: Some(get),
        set,
        doc: null(),
        closure: null_mut(),
    };
    vec![
        property(c"__proxy_wrapped__", fields::wrapped, Some(fields::set_wrapped)),
        property(c"__proxy_resolved__", fields::resolved, None),
        property(
            c"__proxy_default_class__",
            fields::default_class,
            Some(fields::set_default_class),
        ),
        property(c"__proxy_default_hash__", fields::default_hash, Some(fields::set_default_hash)),
        property(c"__class__", attribute::get_class, None),
        property(c"__dict__", ffi::PyObject_GenericGetDict, Some(ffi::PyObject_GenericSetDict)),
        PyGetSetDef::default(),
    ]
}

fn method(name: &'static CStr, ml_meth: PyMethodDefPointer, ml_flags: c_int) -> PyMethodDef {
    PyMethodDef { ml_name: name.as_ptr(), ml_meth, ml_flags, ml_doc: null() }
}

fn fast(name: &'static CStr, function: ffi::PyCFunctionFast) -> PyMethodDef {
    let function = PyMethodDefPointer { PyCFunctionFast: function };
    method(name, function, METH_FASTCALL)
}

fn leak(definition: PyMethodDef) -> *mut PyMethodDef {
    Box::leak(Box::new(definition))
}
