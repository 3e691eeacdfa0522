//! A proxy as a line of text. What the text says is the business of the store factories.
use std::ffi::CStr;
use std::ptr::null_mut;

use pyo3::ffi::{self, PyObject};

use super::object::Held;
use super::python;

pub(super) const TO_TEXT: &CStr = c"to_text($self, /, secret=False)
--

The proxy as one line of text, from which `Proxy.from_text` makes an equal one anywhere.

Works for proxies of stores and futures, and resolves nothing. The text holds no secret: neither
what opens a sealed object nor the channel's user and password. With `secret=True` it holds all
that the proxy has: who has that text can read the object.

Where the class of the target has a `to_text` of its own, that is `proxy.to_text()`, and this is
`Proxy.to_text(proxy)`.
";

pub(super) const FROM_TEXT: &CStr = c"from_text($type, text, /)
--

The proxy that a text of `to_text` stands for; nothing is opened or fetched.

A text is to be trusted like a pickle: it names the store to open, and may hold pickled functions.
";

/// `to_text(secret=False)`
pub(super) unsafe extern "C" fn to_text(
    object: *mut PyObject,
    arguments: *mut PyObject,
    keywords: *mut PyObject,
) -> *mut PyObject {
    let function = python::imported(&python::TO_TEXT);
    let Some(first) = Held::owned(ffi::PyTuple_Pack(1, object)) else {
        return null_mut();
    };
    let Some(all) = Held::owned(ffi::PySequence_Concat(first.as_ptr(), arguments)) else {
        return null_mut();
    };
    if function.is_null() { function } else { ffi::PyObject_Call(function, all.as_ptr(), keywords) }
}

/// `Proxy.from_text(text)`: a plain proxy, also when a subclass is asked, as by pickling.
pub(super) unsafe extern "C" fn from_text(
    _class: *mut PyObject,
    text: *mut PyObject,
) -> *mut PyObject {
    python::call(&python::FROM_TEXT, text)
}
