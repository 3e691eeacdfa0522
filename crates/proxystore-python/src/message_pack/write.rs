//! Python objects as MessagePack documents, or the place in them that has no representation.

use std::fmt::Display;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple, PyType,
};
use rmp::encode as write;

use crate::array::Numpy;
use crate::error::raise;
use crate::proxy;

/// Objects nested deeper are refused; readers in Rust and Python take twice that.
const DEEPEST: usize = 512;

static FIELDS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The MessagePack document of an object.
pub(crate) fn encode(object: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let py = object.py();
    let mut writer = Writer { bytes: Vec::new(), open: Vec::new() };
    writer.write(object).map_err(|failure| match failure {
        Failure::Raised(error) => error,
        Failure::At { path, cause, remedy } => {
            let path: String = path.into_iter().rev().collect();
            let message =
                format!("cannot store the object as MessagePack: at obj{path}: {cause}; {remedy}");
            raise(py, "SerializationError", &message)
        }
    })?;
    Ok(writer.bytes)
}

/// Whether instances of a class are maps of the fields of a dataclass.
pub(super) fn is_dataclass(class: &Bound<'_, PyType>) -> PyResult<bool> {
    class.hasattr(intern!(class.py(), "__dataclass_fields__"))
}

pub(super) fn is_named_tuple(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(object.is_instance_of::<PyTuple>()
        && object.get_type().hasattr(intern!(object.py(), "_fields"))?)
}

/// The class that an object is read as, if that is another one than its own.
pub(crate) fn class_read<'py>(object: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyType>>> {
    let (py, class) = (object.py(), object.get_type());
    if proxy::is_proxy(object) || is_dataclass(&class)? || is_named_tuple(object)? {
        return Ok(None);
    }
    let read = if object.is_instance_of::<PyFloat>() {
        py.get_type::<PyFloat>()
    } else if object.is_instance_of::<PyList>() || object.is_instance_of::<PyTuple>() {
        py.get_type::<PyList>()
    } else if object.is_instance_of::<PyDict>() {
        py.get_type::<PyDict>()
    } else if object.is_instance_of::<PyBytes>() || object.is_instance_of::<PyByteArray>() {
        py.get_type::<PyBytes>()
    } else if object.is_instance_of::<PyString>() {
        py.get_type::<PyString>()
    } else if object.is_instance_of::<PyInt>() {
        py.get_type::<PyInt>()
    } else if let Some(numpy) = Numpy::if_imported(py)?
        && object.is_instance(numpy.generic.bind(py))?
        && is_number(object)?
    {
        object.call_method0(intern!(py, "item"))?.get_type()
    } else {
        return Ok(None);
    };
    Ok((!read.is(&class)).then_some(read))
}

/// Why an object cannot be written; `path` leads to it from the inside out.
enum Failure {
    At { path: Vec<String>, cause: String, remedy: &'static str },
    Raised(PyErr),
}

impl Failure {
    fn new(cause: impl Into<String>, remedy: &'static str) -> Self {
        Self::At { path: Vec::new(), cause: cause.into(), remedy }
    }

    fn inside(mut self, step: impl FnOnce() -> String) -> Self {
        if let Self::At { path, .. } = &mut self {
            path.push(step());
        }
        self
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Self::Raised(error)
    }
}

type Written = Result<(), Failure>;

struct Writer {
    bytes: Vec<u8>,
    /// Addresses of the containers around what is written, to notice one that contains itself.
    open: Vec<usize>,
}

/// A write into memory, which does not fail.
fn done<T, E: Display>(result: Result<T, E>) -> Written {
    result.map(drop).map_err(|error| Failure::new(error.to_string(), "report this"))
}

fn length(len: usize) -> Result<u32, Failure> {
    u32::try_from(len).map_err(|_| {
        Failure::new(format!("{len} items or bytes are too many"), "MessagePack ends at 4294967295")
    })
}

impl Writer {
    fn write(&mut self, object: &Bound<'_, PyAny>) -> Written {
        if object.is_none() {
            return done(write::write_nil(&mut self.bytes));
        }
        // Exact types first, for speed; dataclasses and named tuples before what they derive from.
        if let Ok(text) = object.cast_exact::<PyString>() {
            return self.text(text);
        }
        if let Ok(number) = object.cast_exact::<PyInt>() {
            return self.integer(number);
        }
        if object.is_exact_instance_of::<PyBool>() {
            return done(write::write_bool(&mut self.bytes, object.is_truthy()?));
        }
        if proxy::is_proxy(object) {
            return Err(Failure::new(
                "a proxy, whose target may be anything",
                "store extract(proxy), or send the proxy beside the object",
            ));
        }
        if is_dataclass(&object.get_type())? {
            return self.nested(object, |writer| writer.dataclass(object));
        }
        if is_named_tuple(object)? {
            return self.nested(object, |writer| writer.named_tuple(object));
        }
        self.builtin(object)
    }

    fn builtin(&mut self, object: &Bound<'_, PyAny>) -> Written {
        if let Ok(number) = object.cast::<PyFloat>() {
            return done(write::write_f64(&mut self.bytes, number.extract()?));
        }
        if let Ok(list) = object.cast::<PyList>() {
            // A copy of the references: properties of what it holds may change the list.
            return self.nested(object, |writer| writer.items(&list.to_tuple()));
        }
        if let Ok(tuple) = object.cast::<PyTuple>() {
            return self.nested(object, |writer| writer.items(tuple));
        }
        if let Ok(dict) = object.cast::<PyDict>() {
            return self.nested(object, |writer| writer.map(dict));
        }
        if let Ok(bytes) = object.cast::<PyBytes>() {
            length(bytes.as_bytes().len())?;
            return done(write::write_bin(&mut self.bytes, bytes.as_bytes()));
        }
        if let Ok(bytes) = object.cast::<PyByteArray>() {
            length(bytes.len())?;
            return done(write::write_bin(&mut self.bytes, &bytes.to_vec()));
        }
        if let Ok(text) = object.cast::<PyString>() {
            return self.text(text);
        }
        if let Ok(number) = object.cast::<PyInt>() {
            return self.integer(number);
        }
        if let Some(numpy) = Numpy::if_imported(object.py())?
            && object.is_instance(numpy.generic.bind(object.py()))?
            && is_number(object)?
        {
            let item = object.call_method0(intern!(object.py(), "item"))?;
            if !item.is_instance(numpy.generic.bind(object.py()))? {
                return self.write(&item);
            }
        }
        Err(unsupported(object))
    }

    fn text(&mut self, text: &Bound<'_, PyString>) -> Written {
        let Ok(text) = text.to_str() else {
            return Err(Failure::new("text with lone surrogates", "encode it to bytes"));
        };
        length(text.len())?;
        done(write::write_str(&mut self.bytes, text))
    }

    fn integer(&mut self, number: &Bound<'_, PyInt>) -> Written {
        if let Ok(number) = number.extract::<u64>() {
            return done(write::write_uint(&mut self.bytes, number));
        }
        match number.extract::<i64>() {
            Ok(number) => done(write::write_sint(&mut self.bytes, number)),
            Err(_) => Err(Failure::new(
                "an integer of more than 64 bits",
                "store it as text or bytes, or use a float",
            )),
        }
    }

    /// Writes a container, unless it lies in itself or too deep.
    fn nested(
        &mut self,
        object: &Bound<'_, PyAny>,
        contents: impl FnOnce(&mut Self) -> Written,
    ) -> Written {
        let address = object.as_ptr() as usize;
        if self.open.contains(&address) {
            return Err(Failure::new("the object contains itself", "store a tree of objects"));
        }
        if self.open.len() == DEEPEST {
            let cause = format!("nested more than {DEEPEST} deep");
            return Err(Failure::new(cause, "store it in parts"));
        }
        self.open.push(address);
        let written = contents(self);
        self.open.pop();
        written
    }

    fn items(&mut self, items: &Bound<'_, PyTuple>) -> Written {
        done(write::write_array_len(&mut self.bytes, length(items.len())?))?;
        for (index, item) in items.iter().enumerate() {
            self.write(&item).map_err(|failure| failure.inside(|| format!("[{index}]")))?;
        }
        Ok(())
    }

    fn map(&mut self, dict: &Bound<'_, PyDict>) -> Written {
        let entries = dict.items(); // a copy, as above
        done(write::write_map_len(&mut self.bytes, length(entries.len())?))?;
        for entry in &entries {
            let (key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = entry.extract()?;
            let step = || format!("[{}]", shown(&key));
            let is_number = key.is_instance_of::<PyInt>() && !key.is_instance_of::<PyBool>();
            if !is_number && !key.is_instance_of::<PyString>() {
                let cause = format!("the key {} is neither str nor int", shown(&key));
                return Err(Failure::new(cause, "use such keys, or store a list of pairs"));
            }
            self.write(&key).map_err(|failure| failure.inside(step))?;
            self.write(&value).map_err(|failure| failure.inside(step))?;
        }
        Ok(())
    }

    fn dataclass(&mut self, object: &Bound<'_, PyAny>) -> Written {
        let py = object.py();
        let fields = FIELDS.import(py, "dataclasses", "fields")?.call1((object.get_type(),))?;
        let fields = fields.cast_into::<PyTuple>().map_err(PyErr::from)?;
        done(write::write_map_len(&mut self.bytes, length(fields.len())?))?;
        for field in &fields {
            let name = field.getattr(intern!(py, "name"))?;
            let name = name.cast_into::<PyString>().map_err(PyErr::from)?;
            self.field(&name, object.getattr_opt(&name)?)?;
        }
        Ok(())
    }

    fn named_tuple(&mut self, object: &Bound<'_, PyAny>) -> Written {
        let py = object.py();
        let names = object.get_type().getattr(intern!(py, "_fields"))?;
        let names = names.cast_into::<PyTuple>().map_err(PyErr::from)?;
        let items = object.cast::<PyTuple>().map_err(PyErr::from)?;
        if names.len() != items.len() {
            return Err(unsupported(object));
        }
        done(write::write_map_len(&mut self.bytes, length(names.len())?))?;
        for (name, item) in names.iter().zip(items.iter()) {
            self.field(&name.cast_into::<PyString>().map_err(PyErr::from)?, Some(item))?;
        }
        Ok(())
    }

    fn field(&mut self, name: &Bound<'_, PyString>, value: Option<Bound<'_, PyAny>>) -> Written {
        let step = || format!(".{name}");
        let Some(value) = value else {
            return Err(Failure::new("the field was never set", "set it").inside(step));
        };
        self.text(name)?;
        self.write(&value).map_err(|failure| failure.inside(step))
    }
}

/// Whether a value of NumPy is a truth value or a number, and no date or record.
fn is_number(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    let kind = value.getattr(intern!(value.py(), "dtype"))?.getattr(intern!(value.py(), "kind"))?;
    Ok("biuf".contains(&*kind.extract::<String>()?))
}

/// A key as an error shows it.
fn shown(key: &Bound<'_, PyAny>) -> String {
    const LONGEST: usize = 60;
    let text = key.repr().map_or_else(|_| "?".to_owned(), |text| text.to_string());
    if text.chars().count() <= LONGEST {
        return text;
    }
    text.chars().take(LONGEST).chain("...".chars()).collect()
}

fn unsupported(object: &Bound<'_, PyAny>) -> Failure {
    let class = object.get_type();
    let module = class.module().map(|name| name.to_string()).unwrap_or_default();
    let name = class.name().map_or_else(|_| "?".to_owned(), |name| name.to_string());
    let remedy = match (&*module, &*name) {
        ("numpy", "ndarray") => {
            "arrays are stored by themselves: put it, or a proxy of it, apart, or use its tolist()"
        }
        ("numpy", _) => "use a Python number or text in its place",
        ("datetime", _) => "use its isoformat(), or a number of seconds",
        ("builtins", "set" | "frozenset" | "range") => "use a list",
        ("builtins", "complex") => "use a pair of floats",
        ("builtins", "memoryview") => "use bytes",
        ("decimal" | "uuid" | "pathlib" | "pathlib._local" | "fractions", _) => "use its str()",
        _ => {
            "use None, bool, int, float, str, bytes, lists, tuples, dicts, dataclasses and named \
             tuples, or store it without codec="
        }
    };
    let module = if module == "builtins" { String::new() } else { format!("{module}.") };
    Failure::new(format!("a value of type {module}{name}"), remedy)
}
