//! Views: objects of which only those parts are read that are used.
//!
//! The native base opens an object when it is first looked at, and reads parts of it; what indices
//! mean is in the Python subclass.

use std::sync::OnceLock;

use proxystore::codec::{self, TableMeta};
use proxystore::payload::Received;
use proxystore::view::{LoadOptions, Selection, View};
use proxystore::{Access, Buffer, Error, ErrorKind, trust};
use pyo3::exceptions::PyTypeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PySlice, PyTuple};

use super::factory::{get_through, missing};
use super::state::PutWish;
use super::{State, StoreBase, StoreFactory, future, overrides};
use crate::buffer::PyStoredBytes;
use crate::codec::Codec;
use crate::error::{IntoPython, from_python};
use crate::pickle::{self, Decoding};
use crate::{array, proxy};

/// Base of the view class; constructed through the subclass.
#[pyclass(name = "ViewBase", module = "proxystore_rs._core", subclass, weakref, frozen)]
pub(crate) struct ViewBase {
    factory: Py<StoreFactory>,
    /// Has the target, perhaps, when the channel has the object no more.
    proxy: Option<Py<PyAny>>,
    /// That of the store which was asked for the view: the proxy's own may be less strict.
    codec: Codec,
    opened: OnceLock<View>,
}

impl ViewBase {
    fn view(&self, py: Python<'_>) -> PyResult<&View> {
        if let Some(view) = self.opened.get() {
            return Ok(view);
        }
        let view = self.open(py)?;
        Ok(self.opened.get_or_init(|| view)) // another thread may have been first
    }

    fn open(&self, py: Python<'_>) -> PyResult<View> {
        let factory = self.factory.get();
        let reference = factory.reference()?;
        reference.check_complete().py(py)?;
        let store = factory.get_store(py)?;
        let inner = store.get().state()?;
        trust::sites::check(&reference.store).py(py)?; // the store's own may permit more
        let key = &reference.key;
        if let Some(payload) = &reference.inline {
            inner.store.permit().py(py)?;
            return View::of(Received::parse(Buffer::copy_of(payload)).py(py)?).py(py);
        }
        if overrides(&store, intern!(py, "get"))? {
            // Objects come through a method of the user's, as they do when they are resolved.
            return match get_through(&store, inner, key, None)? {
                Some(object) => of_object(inner, &object),
                None => Err(missing(&store, inner, key)),
            };
        }
        let read = || {
            py.detach(|| inner.store.reader(key))
                .map_err(|error| inner.with_readable_key(py, error, key))
        };
        let mut reader = read()?;
        if let (None, Some(wait)) = (&reader, reference.wait) {
            future::wait(&store, inner, key, wait)?;
            reader = read()?;
        }
        let Some(reader) = reader else {
            let target =
                self.proxy.as_ref().and_then(|proxy| proxy::resolved_target(proxy.bind(py)));
            return match target.or_else(|| inner.cached(py, key)) {
                Some(object) => of_object(inner, &object),
                None => Err(missing(&store, inner, key)),
            };
        };
        if reader.head().codec() == codec::FAILURE
            && let Some(failure) = py.detach(|| inner.store.failure(key)).py(py)?
        {
            return Err(future::raised(py, &failure, inner.codec(py)?.max(self.codec)));
        }
        View::of_reader(reader).py(py)
    }

    fn failed(&self, py: Python<'_>, error: Error) -> PyErr {
        // Selections that do not fit are checked before; what is left is about the channel.
        let readable = || -> PyResult<PyErr> {
            let factory = self.factory.get();
            let store = factory.get_store(py)?;
            let (inner, key) = (store.get().state()?, &factory.reference()?.key);
            if error.kind() == ErrorKind::NotFound {
                return Ok(missing(&store, inner, key));
            }
            Ok(inner.with_readable_key(py, error, key))
        };
        readable().unwrap_or_else(|error| error)
    }
}

/// A view of an object at hand.
fn of_object(inner: &State, object: &Bound<'_, PyAny>) -> PyResult<View> {
    let py = object.py();
    let encoded = inner.encode(object, &PutWish::default())?;
    let framed = encoded.payload(py)?.frame().py(py)?;
    View::of(Received::parse(framed.parts().to_buffer()).py(py)?).py(py)
}

fn check_signals(py: Python<'_>) -> PyResult<()> {
    py.check_signals()
}

/// Looks for signals between reads, which are made without the interpreter.
fn notice_signals(_: u64) -> proxystore::Result<()> {
    Python::attach(check_signals).map_err(|raised| from_python("read a part of an object", raised))
}

#[pymethods]
impl ViewBase {
    /// `source` is a proxy, or a key of `store`.
    #[new]
    fn new(store: Option<&Bound<'_, StoreBase>>, source: &Bound<'_, PyAny>) -> PyResult<Self> {
        let opened = OnceLock::new();
        let codec = match store {
            Some(store) => store.get().state()?.codec(source.py())?,
            None => Codec::Any,
        };
        if let Some(factory) = proxy::factory_of(source) {
            let Ok(factory) = factory.cast_into::<StoreFactory>() else {
                return Err(PyTypeError::new_err(
                    "this proxy is of no stored object, so there is nothing to read parts of: use the \
                     proxy itself",
                ));
            };
            let proxy = Some(source.clone().unbind());
            return Ok(Self { factory: factory.unbind(), proxy, codec, opened });
        }
        let Some(store) = store.filter(|_| !proxy::is_proxy(source)) else {
            let kind = source.get_type().name()?;
            return Err(PyTypeError::new_err(format!("a view is of a proxy, not of {kind}")));
        };
        let state = store.get().state()?;
        let reference = state.reference(state.key(source)?);
        let factory = StoreFactory::local(store, reference, false, None)?.unbind();
        Ok(Self { factory, proxy: None, codec, opened })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.factory)?;
        visit.call(&self.proxy)
    }

    #[getter]
    fn _factory(&self, py: Python<'_>) -> Py<StoreFactory> {
        self.factory.clone_ref(py)
    }

    /// Whether the head was read.
    #[getter]
    fn _is_open(&self) -> bool {
        self.opened.get().is_some()
    }

    /// What is stored: `array`, `bytes`, `text`, `table`, or the name of another codec.
    #[getter]
    fn _kind(&self, py: Python<'_>) -> PyResult<&'static str> {
        Ok(match self.view(py)?.codec() {
            codec::ARRAY => "array",
            codec::RAW => "bytes",
            codec::UTF8 => "text",
            codec::TABLE => "table",
            other => codec::name(other),
        })
    }

    /// Whether the writer of the object may be anybody.
    #[getter]
    fn _takes_data_only(&self, py: Python<'_>) -> PyResult<bool> {
        let store = self.factory.get().get_store(py)?;
        Ok(store.get().state()?.codec(py)?.max(self.codec) == Codec::Data)
    }

    /// Bytes of the object, without what describes it.
    #[getter]
    fn nbytes(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.view(py)?.nbytes())
    }

    /// Type string and shape of an array.
    #[getter]
    fn _layout<'py>(&self, py: Python<'py>) -> PyResult<(Option<&str>, Bound<'py, PyTuple>)> {
        let view = self.view(py)?;
        Ok((view.dtype(), PyTuple::new(py, view.shape())?))
    }

    /// What was stored, number of rows and names of the columns of a table.
    #[getter]
    fn _table(&self, py: Python<'_>) -> PyResult<(String, u64, Vec<String>)> {
        let meta = TableMeta::read(self.view(py)?.head().meta()).py(py)?;
        Ok((meta.kind, meta.rows, meta.columns))
    }

    /// Elements of an array: of each dimension a slice, or positions as 64-bit integers.
    fn _select<'py>(
        &self,
        py: Python<'py>,
        selections: Vec<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let view = self.view(py)?;
        let selections = selections.iter().zip(view.shape());
        let selections: Vec<_> =
            selections.map(|(wanted, len)| selection(wanted, *len)).collect::<PyResult<_>>()?;
        let selected = py
            .detach(|| view.select(&selections, &mut notice_signals))
            .map_err(|error| self.failed(py, error))?;
        let meta = codec::array_meta(&selected.dtype, &selected.shape, selected.order).py(py)?;
        array::decode(py, &meta, selected.bytes, true)
    }

    /// A range of raw bytes.
    fn _bytes<'py>(&self, py: Python<'py>, start: u64, stop: u64) -> PyResult<Bound<'py, PyBytes>> {
        let view = self.view(py)?;
        let len = usize::try_from(stop.saturating_sub(start))?;
        PyBytes::new_with(py, len, |target| {
            py.detach(|| view.read_into(0, start..stop, target, &mut notice_signals))
                .map_err(|error| self.failed(py, error))
        })
    }

    /// A part of the object, in private memory.
    fn _part(&self, py: Python<'_>, part: usize) -> PyResult<PyStoredBytes> {
        let view = self.view(py)?;
        let len = view.head().parts().get(part).map_or(0, |place| place.end - place.start);
        let mut bytes = Buffer::try_zeroed(len).py(py)?;
        let target = bytes.as_mut().unwrap_or_default(); // the sole holder of writable memory
        py.detach(|| view.read_into(part, 0..len, target, &mut notice_signals))
            .map_err(|error| self.failed(py, error))?;
        Ok(PyStoredBytes::new(bytes, true))
    }

    /// The whole object, read by `parallel` threads.
    fn _load<'py>(
        &self,
        py: Python<'py>,
        parallel: usize,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let view = self.view(py)?;
        let progress = progress.map(|progress| progress.clone().unbind());
        let (mut raised, mut told) = (None, None);
        let mut tell = |done: u64, total: u64| {
            let outcome = Python::attach(|py| {
                py.check_signals()?;
                match &progress {
                    Some(progress) if told.replace(done) != Some(done) => {
                        progress.call1(py, (done, total)).map(drop)
                    }
                    _ => Ok(()),
                }
            });
            raised = outcome.err();
            raised.is_none()
        };
        let loaded = py.detach(|| {
            let progress = Some(&mut tell as _);
            let options = LoadOptions { threads: parallel, progress, ..LoadOptions::default() };
            view.load_payload(Access::Private, options)
        });
        if let Some(raised) = raised {
            return Err(raised);
        }
        let received = loaded.map_err(|error| self.failed(py, error))?;
        let factory = self.factory.get();
        let store = factory.get_store(py)?;
        let deserializer = factory.deserializer(py)?;
        let state = store.get().state()?;
        let own_codec = state.codec(py)?;
        let codec = own_codec.max(self.codec);
        let deserializer = deserializer.as_ref().or(state.deserializer.as_ref());
        // Those of another store may have come in a reference.
        let deserializer = deserializer.filter(|_| codec == own_codec || codec < Codec::Data);
        let deserializer = deserializer.map(|function| function.bind(py));
        let how = Decoding { access: Access::Private, deserializer, codec, class: None };
        pickle::decode(py, &received, how)
    }
}

fn selection(wanted: &Bound<'_, PyAny>, len: u64) -> PyResult<Selection> {
    if let Ok(slice) = wanted.cast::<PySlice>() {
        let indices = slice.indices(isize::try_from(len)?)?;
        // Before the first position, where a slice that descends may end, is no position.
        let stop = Some(indices.stop as i64).filter(|stop| *stop >= 0);
        let (start, step) = (Some(indices.start.max(0) as i64), indices.step as i64);
        if indices.slicelength == 0 {
            return Ok(Selection::from(0..0));
        }
        return Ok(Selection::Slice { start, stop, step });
    }
    let positions = wanted.cast::<PyBytes>()?.as_bytes().as_chunks().0;
    Ok(Selection::Positions(positions.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()))
}
