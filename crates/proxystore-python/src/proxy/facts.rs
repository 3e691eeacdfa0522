//! What an unresolved proxy answers from the facts that came with its reference.
//!
//! Facts are looked at only when the target is not here. Whatever they do not say, and whatever
//! cannot be said here (a `dtype` without `NumPy`), is the target's to answer: the proxy resolves.
use std::ffi::c_int;
use std::fmt::Write;
use std::sync::OnceLock;

use proxystore::Facts;
use pyo3::ffi::{self, Py_ssize_t, PyObject};
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple, PyType};

use super::object::{Held, ProxyObject};
use super::{fields, is_proxy, python, resolved_target};

/// Where a factory of the registered type keeps its facts.
pub(super) type Reader = for<'a> fn(&'a Bound<'_, PyAny>) -> Option<&'a Facts>;

static READER: OnceLock<(Py<PyType>, Reader)> = OnceLock::new();

/// Has proxies whose factory is of exactly the type `kind` answer from what `reader` finds.
///
/// A factory of a subclass may produce something else. A second registration changes nothing.
pub fn register_facts(kind: &Bound<'_, PyType>, reader: Reader) -> bool {
    READER.set((kind.clone().unbind(), reader)).is_ok()
}

/// What `answer` makes of the facts about the target of a proxy, if there are any.
unsafe fn ask<R>(
    object: *mut PyObject,
    answer: impl FnOnce(Python<'_>, &Facts) -> Option<R>,
) -> Option<R> {
    let factory = (*ProxyObject::of(object)).factory;
    let (kind, reader) = READER.get()?;
    if factory.is_null() || ffi::Py_TYPE(factory).cast() != kind.as_ptr() {
        return None;
    }
    let factory = Held::borrowed(factory);
    Python::try_attach(|py| {
        let factory = Bound::from_borrowed_ptr(py, factory.as_ptr());
        answer(py, reader(&factory)?)
    })?
}

/// `len(p)`
#[cold]
pub(super) unsafe fn length(object: *mut PyObject) -> Option<Py_ssize_t> {
    ask(object, |_, facts| Py_ssize_t::try_from(facts.len?).ok())
}

/// `bool(p)`: of containers, which have a length and no shape.
#[cold]
pub(super) unsafe fn truth(object: *mut PyObject) -> Option<c_int> {
    ask(object, |_, facts| match facts {
        Facts { len: Some(len), shape: None, .. } => Some(c_int::from(*len != 0)),
        _ => None,
    })
}

/// `p.NAME`, as a new reference.
#[cold]
pub(super) unsafe fn attribute(object: *mut PyObject, name: &[u8]) -> Option<*mut PyObject> {
    if !matches!(name, b"shape" | b"dtype" | b"ndim" | b"size" | b"nbytes") {
        return None;
    }
    ask(object, |py, facts| {
        let shape = facts.shape.as_deref()?;
        if name == b"shape" {
            return PyTuple::new(py, shape).ok().map(Bound::into_ptr);
        }
        let dtype = facts.dtype.as_deref()?; // else it is a table, whose attributes vary
        let number = match name {
            b"dtype" => return dtype_of(py, dtype),
            b"ndim" => shape.len() as u64,
            b"size" => shape.iter().try_fold(1_u64, |size, side| size.checked_mul(*side))?,
            _ => facts.nbytes?,
        };
        number.into_pyobject(py).ok().map(|number| number.into_any().into_ptr())
    })
}

/// A `numpy.dtype`, if the program has imported `NumPy`.
unsafe fn dtype_of(py: Python<'_>, text: &str) -> Option<*mut PyObject> {
    // Type strings as NumPy writes them; it reads much more than these, and some of it is large.
    let plain = |c: char| c.is_ascii_alphanumeric() || "<>|=[]".contains(c);
    if text.len() > 32 || !text.chars().all(plain) {
        return None;
    }
    let class = python::loaded_class(PyString::intern(py, "numpy:dtype").as_ptr());
    let class = Bound::from_owned_ptr_or_opt(py, class)?;
    class.call1((text,)).ok().map(Bound::into_ptr)
}

/// ` of numpy.ndarray (2, 3) <f4`, for `repr`; empty when there is nothing to tell.
pub(super) unsafe fn summary(object: *mut PyObject) -> String {
    let told = ask(object, |py, facts| {
        if facts.len.is_none() && facts.shape.is_none() {
            return None;
        }
        let mut text = " of ".to_owned();
        text.push_str(known_class_name(py, object).as_deref().unwrap_or("object"));
        let _ = match (&facts.shape, facts.len) {
            (Some(shape), _) => PyTuple::new(py, shape).map(|shape| write!(text, " {shape}")),
            (None, Some(len)) => Ok(write!(text, " with len {len}")),
            (None, None) => Ok(Ok(())),
        };
        if let Some(dtype) = &facts.dtype {
            let _ = write!(text, " {dtype}");
        }
        Some(text)
    });
    told.unwrap_or_default()
}

/// The class that the proxy shows while it is unresolved, as people write it: `numpy.ndarray`.
unsafe fn known_class_name(py: Python<'_>, object: *mut PyObject) -> Option<String> {
    let fields = ProxyObject::of(object);
    if let Some(name) = Bound::from_borrowed_ptr_or_opt(py, (*fields).class_name) {
        let name: String = name.extract().ok()?;
        let name = name.replacen(':', ".", 1);
        return Some(name.strip_prefix("builtins.").map(ToOwned::to_owned).unwrap_or(name));
    }
    let class = Bound::from_borrowed_ptr_or_opt(py, fields::known_class(object))?;
    class_name(class.cast().ok()?)
}

fn class_name(class: &Bound<'_, PyType>) -> Option<String> {
    class.fully_qualified_name().ok().map(|name| name.to_string())
}

type Told<'py> = (
    Option<String>,
    Option<u64>,
    Option<Bound<'py, PyTuple>>,
    Option<String>,
    Option<u64>,
    Option<u64>,
    Option<String>,
);

/// Class, length, shape, dtype, bytes, milliseconds since 1970 and host; `None` for whatever has no
/// place for facts. Never resolves.
#[pyfunction]
fn _facts<'py>(object: &Bound<'py, PyAny>) -> PyResult<Option<Told<'py>>> {
    if !is_proxy(object) {
        return Ok(None);
    }
    // SAFETY: the object is a proxy, and alive.
    let facts = unsafe { ask(object.as_ptr(), |_, facts| Some(facts.clone())) };
    let Some(facts) = facts else { return Ok(None) };
    let class = match resolved_target(object) {
        Some(target) => class_name(&target.get_type()),
        // SAFETY: as above.
        None => unsafe { known_class_name(object.py(), object.as_ptr()) },
    };
    let shape = facts.shape.map(|shape| PyTuple::new(object.py(), shape)).transpose()?;
    let text = |text: std::borrow::Cow<'static, str>| text.into_owned();
    Ok(Some((
        class,
        facts.len,
        shape,
        facts.dtype.map(text),
        facts.nbytes,
        facts.created,
        facts.origin.map(text),
    )))
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(_facts, module)?)
}
