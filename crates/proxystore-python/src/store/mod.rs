//! The store as a Python class: the base of `proxystore_rs.store.Store`.
//!
//! Everything that moves, encodes or caches objects is here; what only arranges calls is in the
//! Python subclass.

mod factory;
mod metrics;
mod proxies;
mod registry;

use std::sync::{Arc, OnceLock};

use proxystore::connectors::{Connector, PutOptions};
use proxystore::payload::{Framed, Parts};
use proxystore::store::CacheLimits;
use proxystore::{Access, Key, Store};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

pub(crate) use factory::{StoreFactory, register_reducer, restore_factory, restore_proxy};
pub(crate) use registry::stores;

use crate::buffer::PyStoredBytes;
use crate::connector::{self, NativeConnector};
use crate::error::IntoPython;
use crate::foreign::{self, ForeignConnector};
use crate::pickle;
use metrics::Recorder;

/// Base of the store class; constructed through the subclass.
#[pyclass(name = "StoreBase", module = "proxystore_rs._core", subclass, dict, weakref, frozen)]
pub(crate) struct StoreBase {
    state: OnceLock<State>,
}

/// What `_setup` fills in.
pub(crate) struct State {
    pub(crate) store: Store,
    /// The connector as the user gave it.
    connector: Py<PyAny>,
    foreign: bool,
    serializer: Option<Py<PyAny>>,
    deserializer: Option<Py<PyAny>>,
    populate_target: bool,
    access: Access,
    metrics: Recorder,
    /// Pickled settings that only Python understands; travels in references.
    extension: Option<Vec<u8>>,
}

/// A cached object.
struct Cached(Py<PyAny>);

impl State {
    /// The library's key for a Python key.
    pub(crate) fn key(&self, key: &Bound<'_, PyAny>) -> PyResult<Key> {
        if self.foreign { foreign::key_of(key, 0) } else { connector::key_of(key) }
    }

    /// The Python face of a key.
    pub(crate) fn key_to_python<'py>(
        &self,
        py: Python<'py>,
        key: &Key,
    ) -> PyResult<Bound<'py, PyAny>> {
        if self.foreign {
            foreign::key_to_python(py, key)
        } else {
            connector::key_to_python(self.connector.bind(py), key)
        }
    }

    fn is_allocated(&self, bytes: &[u8]) -> bool {
        // Only the channel can tell; a part that merely looks like it is copied by the connector.
        const PAGE: usize = proxystore::payload::PAGE;
        self.store.connector().capabilities().allocate
            && bytes.len() >= PAGE
            && (bytes.as_ptr() as usize).is_multiple_of(PAGE)
    }

    fn encode(
        &self,
        object: &Bound<'_, PyAny>,
        serializer: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<pickle::Encoded> {
        let own = self.serializer.as_ref().map(|serializer| serializer.bind(object.py()));
        pickle::encode(object, serializer.or(own), &|bytes| self.is_allocated(bytes))
    }

    fn put(
        &self,
        object: &Bound<'_, PyAny>,
        serializer: Option<&Bound<'_, PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Key> {
        let py = object.py();
        let total = self.metrics.start();
        let encoded = self.encode(object, serializer)?;
        let serialized = self.metrics.start();
        let framed = encoded.payload(py)?.frame().py(py)?;
        let size = framed.len();
        let key = match options.filter(|options| !options.is_empty()) {
            Some(options) => self.put_with_options(py, &framed, options)?,
            None => py.detach(|| self.store.put_framed(&framed, &PutOptions::default())).py(py)?,
        };
        if self.metrics.is_on() {
            let face = self.key_to_python(py, &key)?;
            self.metrics.time_between(py, "store.put.serialize", &face, total, serialized)?;
            self.metrics.time(py, "store.put.connector", &face, serialized)?;
            self.metrics.time(py, "store.put", &face, total)?;
            self.metrics.attribute(py, "store.put.object_size", &face, size)?;
        }
        Ok(key)
    }

    /// Options that only the connector's own `put` understands.
    fn put_with_options(
        &self,
        py: Python<'_>,
        framed: &Framed<'_>,
        options: &Bound<'_, PyDict>,
    ) -> PyResult<Key> {
        if !self.foreign {
            return Err(PyTypeError::new_err(format!(
                "put() of {} takes no options, got {}",
                self.connector.bind(py).get_type().name()?,
                options.keys().repr()?
            )));
        }
        let bytes = foreign::joined(py, &framed.parts())?;
        let key = self.connector.bind(py).call_method("put", (bytes,), Some(options))?;
        foreign::key_of(&key, framed.len())
    }

    /// The object under a key, from the cache or the channel.
    pub(crate) fn get<'py>(
        &self,
        py: Python<'py>,
        key: &Key,
        deserializer: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let total = self.metrics.start();
        let cached = self.store.cache().get::<Cached>(key);
        if self.metrics.is_on() {
            let face = self.key_to_python(py, key)?;
            let hit = if cached.is_some() { "cache_hits" } else { "cache_misses" };
            self.metrics.counter(py, &format!("store.get.{hit}"), &face)?;
            if cached.is_some() {
                self.metrics.time(py, "store.get", &face, total)?;
            }
        }
        if let Some(cached) = cached {
            return Ok(Some(cached.0.bind(py).clone()));
        }
        let fetching = self.metrics.start();
        let received = py.detach(|| self.store.get_payload(key, self.access)).py(py)?;
        let Some(received) = received else { return Ok(None) };
        let fetched = self.metrics.start();
        let object = self.decode(py, key, &received, deserializer)?;
        if self.metrics.is_on() {
            let face = self.key_to_python(py, key)?;
            self.metrics.time_between(py, "store.get.connector", &face, fetching, fetched)?;
            self.metrics.time(py, "store.get.deserialize", &face, fetched)?;
            self.metrics.time(py, "store.get", &face, total)?;
            self.metrics.attribute(py, "store.get.object_size", &face, received.len())?;
        }
        Ok(Some(object))
    }

    /// Decodes what was fetched, and caches it.
    pub(crate) fn decode<'py>(
        &self,
        py: Python<'py>,
        key: &Key,
        received: &proxystore::payload::Received,
        deserializer: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let own = self.deserializer.as_ref().map(|deserializer| deserializer.bind(py));
        let object = pickle::decode(py, received, deserializer.or(own), self.access)
            .map_err(|error| self.describe(py, error, key, deserializer.or(own)))?;
        // A key without generation may mean a newer object tomorrow.
        if key.generation() != 0 {
            let cached = Arc::new(Cached(object.clone().unbind()));
            self.store.cache().insert(key.clone(), cached, received.len());
        }
        Ok(object)
    }

    /// Adds store and key to an error of decoding.
    fn describe(
        &self,
        py: Python<'_>,
        error: PyErr,
        key: &Key,
        deserializer: Option<&Bound<'_, PyAny>>,
    ) -> PyErr {
        let note = match deserializer {
            Some(deserializer) => format!(
                "Failed to deserialize object (deserializer={deserializer:?}, key={key}, store={})",
                self.store.name()
            ),
            None => format!("while decoding key={key} of store={}", self.store.name()),
        };
        let _ = error.value(py).call_method1(intern!(py, "add_note"), (note,));
        error
    }

    pub(crate) fn evict(&self, py: Python<'_>, key: &Key) -> PyResult<()> {
        let started = self.metrics.start();
        py.detach(|| self.store.evict(key)).py(py)?;
        if self.metrics.is_on() {
            let face = self.key_to_python(py, key)?;
            self.metrics.time(py, "store.evict", &face, started)?;
        }
        Ok(())
    }
}

impl StoreBase {
    pub(crate) fn state(&self) -> PyResult<&State> {
        self.state.get().ok_or_else(|| {
            PyTypeError::new_err("the store is not set up: its __init__ must call super()'s")
        })
    }
}

#[pymethods]
impl StoreBase {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self { state: OnceLock::new() }
    }

    #[expect(clippy::too_many_arguments, reason = "the arguments of the public constructor")]
    fn _setup(
        &self,
        py: Python<'_>,
        name: String,
        connector: Bound<'_, PyAny>,
        serializer: Option<Py<PyAny>>,
        deserializer: Option<Py<PyAny>>,
        cache_entries: isize,
        cache_bytes: usize,
        metrics: Option<Py<PyAny>>,
        populate_target: bool,
        read_only: bool,
        settings: &Bound<'_, PyDict>,
        extension: Option<Vec<u8>>,
    ) -> PyResult<()> {
        let entries = usize::try_from(cache_entries).map_err(|_| {
            PyValueError::new_err(format!("Cache size must be non-negative, got {cache_entries}"))
        })?;
        let native = connector.cast::<NativeConnector>().ok();
        let inner: Arc<dyn Connector> = match native {
            Some(native) => Arc::clone(native.get().inner()?),
            None => Arc::new(ForeignConnector::new(&connector)?),
        };
        let settings = crate::value::settings(settings)
            .ok_or_else(|| PyTypeError::new_err("settings must be plain values"))?;
        let store = Store::builder(name, inner)
            .cache(CacheLimits { entries, bytes: cache_bytes })
            .settings(settings)
            .build();
        let foreign = native.is_none();
        let access = if read_only { Access::ReadOnly } else { Access::Private };
        let state = State {
            store,
            connector: connector.unbind(),
            foreign,
            serializer,
            deserializer,
            populate_target,
            access,
            metrics: Recorder::new(metrics),
            extension,
        };
        self.state.set(state).map_err(|_| PyTypeError::new_err("the store is set up already"))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // The state is set once and read without the interpreter's help.
        let Some(state) = self.state.get() else { return Ok(()) };
        visit.call(&state.connector)?;
        visit.call(&state.serializer)?;
        visit.call(&state.deserializer)?;
        state.metrics.traverse(&visit)
    }

    /// The name.
    #[getter]
    fn name(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.state()?.store.name().to_owned())
    }

    /// The connector.
    #[getter]
    fn connector(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self.state()?.connector.clone_ref(py))
    }

    /// What identifies the channel: a URL.
    #[getter]
    fn _channel(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.state()?.store.config().connector.url.clone())
    }

    /// Stores an object and returns its key.
    #[pyo3(signature = (obj, *, lifetime = None, serializer = None, **kwargs))]
    fn put<'py>(
        slf: &Bound<'py, Self>,
        obj: &Bound<'py, PyAny>,
        lifetime: Option<&Bound<'py, PyAny>>,
        serializer: Option<&Bound<'py, PyAny>>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let state = slf.get().state()?;
        let key = state.put(obj, serializer, kwargs)?;
        let key = state.key_to_python(slf.py(), &key)?;
        attach_to(slf, lifetime, &key)?;
        Ok(key)
    }

    /// Stores many objects at once; all or none.
    #[pyo3(signature = (objs, *, lifetime = None, serializer = None, **kwargs))]
    fn put_batch<'py>(
        slf: &Bound<'py, Self>,
        objs: &Bound<'py, PyAny>,
        lifetime: Option<&Bound<'py, PyAny>>,
        serializer: Option<&Bound<'py, PyAny>>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let py = slf.py();
        let state = slf.get().state()?;
        let faces = PyList::empty(py);
        if let Some(kwargs) = kwargs.filter(|kwargs| !kwargs.is_empty()) {
            for object in objs.try_iter()? {
                let key = state.put(&object?, serializer, Some(kwargs))?;
                faces.append(state.key_to_python(py, &key)?)?;
            }
        } else {
            let total = state.metrics.start();
            let encoded: Vec<_> = objs
                .try_iter()?
                .map(|object| state.encode(&object?, serializer))
                .collect::<PyResult<_>>()?;
            let framed: Vec<Framed<'_>> = encoded
                .iter()
                .map(|encoded| encoded.payload(py)?.frame().py(py))
                .collect::<PyResult<_>>()?;
            let sizes: usize = framed.iter().map(Framed::len).sum();
            let serialized = state.metrics.start();
            let parts: Vec<Parts<'_>> = framed.iter().map(Framed::parts).collect();
            let options = PutOptions::default();
            for key in py.detach(|| state.store.connector().put_batch(&parts, &options)).py(py)? {
                faces.append(state.key_to_python(py, &key)?)?;
            }
            if state.metrics.is_on() {
                let keys = faces.to_tuple().into_any();
                let name = "store.put_batch.serialize";
                state.metrics.time_between(py, name, &keys, total, serialized)?;
                state.metrics.time(py, "store.put_batch.connector", &keys, serialized)?;
                state.metrics.time(py, "store.put_batch", &keys, total)?;
                state.metrics.attribute(py, "store.put_batch.object_sizes", &keys, sizes)?;
            }
        }
        for key in &faces {
            attach_to(slf, lifetime, &key)?;
        }
        Ok(faces)
    }

    /// The object under a key, else `default`.
    #[pyo3(signature = (key, *, deserializer = None, default = None))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        deserializer: Option<&Bound<'py, PyAny>>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let state = self.state()?;
        Ok(state.get(py, &state.key(key)?, deserializer)?.or(default))
    }

    /// Whether there is an object under the key, in the cache or in the channel.
    fn exists(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let state = self.state()?;
        let inner = state.key(key)?;
        let started = state.metrics.start();
        let exists = py.detach(|| state.store.exists(&inner)).py(py)?;
        state.metrics.time(py, "store.exists", key, started)?;
        Ok(exists)
    }

    /// Whether the object of a key is in this process's cache.
    fn is_cached(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let state = self.state()?;
        Ok(state.store.cache().contains(&state.key(key)?))
    }

    /// Removes an object from the channel and the cache; absent is fine.
    fn evict(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<()> {
        let state = self.state()?;
        state.evict(py, &state.key(key)?)
    }

    /// Writable memory of the channel for `nbytes`, or ordinary memory where it has none.
    fn _allocate<'py>(&self, py: Python<'py>, nbytes: usize) -> PyResult<Bound<'py, PyAny>> {
        let state = self.state()?;
        let memory = py.detach(|| state.store.allocate(nbytes)).py(py)?;
        Ok(Bound::new(py, PyStoredBytes::new(memory, true))?.into_any())
    }

    /// Marks the store closed and drops what it cached; the caller closes the connector first.
    fn _closed(&self, py: Python<'_>) -> PyResult<()> {
        let state = self.state()?;
        py.detach(|| state.store.close(false)).py(py)
    }

    /// Name, URL, options, settings and extension: from which the store can be opened anywhere.
    fn _parts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let state = self.state()?;
        registry::config_to_python(py, state.store.config(), state.extension.as_deref())
    }
}

/// Attaches a key to a lifetime, if there is one.
fn attach_to(
    store: &Bound<'_, StoreBase>,
    lifetime: Option<&Bound<'_, PyAny>>,
    key: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let Some(lifetime) = lifetime else { return Ok(()) };
    let options = PyDict::new(store.py());
    options.set_item(intern!(store.py(), "store"), store)?;
    lifetime.call_method(intern!(store.py(), "add_key"), (key,), Some(&options)).map(drop)
}
