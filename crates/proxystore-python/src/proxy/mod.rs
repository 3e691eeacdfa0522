//! The transparent proxy: a Python type that stands for an object which is fetched on first use.
//!
//! A proxy holds a factory. The first operation that needs the target calls the factory, once, and
//! every operation is then forwarded to what it returned. The type is built from raw type slots,
//! so that nothing it forwards runs interpreted code, and every slot a Python object can have is
//! filled. Each submodule is one part of that:
//!
//! - [`object`]: the struct, its construction, its garbage collection
//! - [`fields`]: the `__proxy_*__` names
//! - [`facts`]: what an unresolved proxy answers from its reference
//! - [`resolve`]: one factory call for all threads, through forks, signals and cycles
//! - [`guard`]: a resolve that is not wanted is an error with a stack
//! - [`number`], [`container`], [`awaiting`], [`methods`]: what is forwarded through slots
//! - [`attribute`]: what is forwarded by name, and what the proxy answers itself
//! - [`arrays`]: the dispatch protocols of `NumPy` and `PyTorch`, which unwrap their arguments
//! - [`pickle`]: what travels: the factory, a class, a hash; never the target
//! - [`text`]: a proxy as a line of text, and back
//! - [`spec`]: the tables that make these functions a type
//!
//! # Safety
//!
//! One invariant covers the `unsafe` code here. The functions are slots: only the interpreter calls
//! them, attached to the thread, with live borrowed arguments of the types the slot promises, and
//! `self` is always an instance of the proxy type. A slot holds a strong reference to whatever it
//! forwards to while it does (see [`object::Held`]), because the forwarded call may run any code,
//! also code that replaces the target of the same proxy.
#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    clippy::undocumented_unsafe_blocks,
    clippy::missing_safety_doc,
    clippy::inline_always,
    reason = "type slots are C functions whose one invariant is stated above; a call each would cost \
              as much as what they forward"
)]

mod arrays;
mod attribute;
mod awaiting;
mod container;
mod facts;
mod fields;
mod guard;
mod methods;
mod number;
mod object;
mod pickle;
mod python;
mod resolve;
mod spec;
mod text;

use pyo3::prelude::*;
use pyo3::{ffi, types::PyType};

pub use facts::register_facts;
use object::ProxyObject;
pub use pickle::{Reducer, register_reducer};
pub(crate) use spec::register;

/// A new proxy of exactly the type `Proxy`, without parsing arguments.
///
/// `default_class` is a type, or a string `"module:qualname"` that names one; it answers
/// `__class__` while the proxy is unresolved. A `target` makes the proxy resolved from the start.
pub fn new<'py>(
    py: Python<'py>,
    factory: Bound<'py, PyAny>,
    default_class: Option<Bound<'py, PyAny>>,
    target: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: the thread is attached, and the pointers are owned by the arguments.
    unsafe {
        let proxy = object::allocate(object::proxy_type());
        let proxy = Bound::from_owned_ptr_or_err(py, proxy)?;
        let fields = ProxyObject::of(proxy.as_ptr());
        (*fields).factory = factory.into_ptr();
        if let Some(target) = target {
            (*fields).target = target.into_ptr();
        }
        if let Some(class) = default_class
            && fields::set_default_class(proxy.as_ptr(), class.as_ptr(), std::ptr::null_mut()) < 0
        {
            return Err(PyErr::fetch(py));
        }
        Ok(proxy)
    }
}

/// Whether the object is a proxy, or of a subclass. Never resolves.
pub fn is_proxy(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: the reference is live and the thread attached.
    unsafe { object::is_proxy(object.as_ptr()) }
}

/// The target, if the object is a proxy that is resolved. Never resolves.
pub fn resolved_target<'py>(object: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    field(object, |fields| fields.target)
}

/// The class an unresolved proxy shows, if the object is one that knows it. Never resolves.
pub fn known_class<'py>(object: &Bound<'py, PyAny>) -> Option<Bound<'py, PyType>> {
    if !is_proxy(object) {
        return None;
    }
    // SAFETY: the object is a proxy; the class is borrowed from it.
    let class = unsafe {
        Bound::from_borrowed_ptr_or_opt(object.py(), fields::known_class(object.as_ptr()))
    };
    class?.cast_into().ok()
}

/// The factory, if the object is a proxy and has one. Never resolves.
pub fn factory_of<'py>(object: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    field(object, |fields| fields.factory)
}

/// The target of a proxy, resolving it if need be; any other object as it is.
pub fn unwrap<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    if !is_proxy(object) {
        return Ok(object.clone());
    }
    // SAFETY: the object is a proxy; the call returns a new reference or sets an exception.
    unsafe { Bound::from_owned_ptr_or_err(object.py(), object::target(object.as_ptr())) }
}

/// The type `Proxy`.
pub fn proxy_type(py: Python<'_>) -> Bound<'_, PyType> {
    // SAFETY: the type is created with the module and never freed.
    unsafe {
        Bound::from_borrowed_ptr(py, object::proxy_type().cast()).cast_into_unchecked::<PyType>()
    }
}

fn field<'py>(
    object: &Bound<'py, PyAny>,
    read: impl Fn(&ProxyObject) -> *mut ffi::PyObject,
) -> Option<Bound<'py, PyAny>> {
    if !is_proxy(object) {
        return None;
    }
    // SAFETY: the object is a proxy, so its fields are null or live objects.
    unsafe {
        let pointer = read(&*ProxyObject::of(object.as_ptr()));
        Bound::from_borrowed_ptr_or_opt(object.py(), pointer)
    }
}
