//! The store as a Python class: the base of `proxystore_rs.store.Store`.
//!
//! Everything that moves, encodes or caches objects is here; what only arranges calls is in the
//! Python subclass.

mod describe;
mod export;
mod extension;
mod factory;
mod future;
mod lifetime;
mod metrics;
mod pending;
mod proxies;
mod registry;
mod state;
pub(crate) mod streaming;
mod text;
mod view;

use std::sync::OnceLock;

use proxystore::payload::Framed;
use proxystore::store::{CacheLimits, Operation};
use proxystore::{Access, Facts, Store};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};

pub(crate) use export::{metrics_instruments, metrics_observations, metrics_text};
pub(crate) use factory::{StoreFactory, register_with_proxies, restore_factory, restore_proxy};
pub(crate) use future::{Lease, copy_object, fail_future, failure_of, hold_lease, settle_future};
pub(crate) use registry::stores;
pub(crate) use text::{proxy_from_text, text_from_proxy};

use crate::buffer::PyStoredBytes;
use crate::codec::{self, Codec};
use crate::connector;
use crate::error::IntoPython;
use crate::keys::Keys;
use crate::multi;
use metrics::Recorder;
use proxies::{Wish, is_nonproxiable, make, nonproxiable};
pub(crate) use state::State;
use state::{GetWish, PutWish};
pub(crate) use view::ViewBase;

/// Base of the store class; constructed through the subclass.
#[pyclass(name = "StoreBase", module = "proxystore_rs._core", subclass, dict, weakref, frozen)]
pub(crate) struct StoreBase {
    state: OnceLock<State>,
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
        let (inner, keys) = multi::inner_of(&connector)?;
        let settings = crate::value::settings(settings)
            .ok_or_else(|| PyTypeError::new_err("settings must be plain values"))?;
        let store = Store::builder(name, inner)
            .cache(CacheLimits { entries, bytes: cache_bytes })
            .settings(settings)
            .build();
        let codec = Codec::among(&store.config().settings)?;
        if codec.max(Codec::of_process(connector.py())?) == Codec::Data {
            codec::check_config(connector.py(), store.config())?;
        }
        let access = if read_only { Access::ReadOnly } else { Access::Private };
        let state = State {
            store,
            connector: connector.unbind(),
            foreign: matches!(*keys, Keys::Foreign),
            keys,
            serializer,
            deserializer,
            populate_target,
            access,
            codec,
            metrics: Recorder::new(metrics),
            extension,
        };
        self.state.set(state).map_err(|_| PyTypeError::new_err("the store is set up already"))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // The state is set once and read without the interpreter's help.
        let Some(state) = self.state.get() else {
            return Ok(());
        };
        visit.call(&state.connector)?;
        visit.call(&state.serializer)?;
        visit.call(&state.deserializer)?;
        state.metrics.traverse(&visit)
    }

    /// The name.
    #[getter]
    fn name(&self) -> PyResult<String> {
        Ok(self.state()?.store.name().to_owned())
    }

    /// The connector.
    #[getter]
    fn connector(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self.state()?.connector.clone_ref(py))
    }

    /// What identifies the channel: a URL.
    #[getter]
    fn _channel(&self) -> PyResult<String> {
        Ok(self.state()?.store.config().connector.url.clone())
    }

    /// Stores an object and returns its key.
    #[pyo3(signature = (obj, *, lifetime = None, serializer = None, codec = None, **kwargs))]
    fn put<'py>(
        slf: &Bound<'py, Self>,
        obj: &Bound<'py, PyAny>,
        lifetime: Option<&Bound<'py, PyAny>>,
        serializer: Option<&Bound<'py, PyAny>>,
        codec: Option<&str>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let state = slf.get().state()?;
        let options = lifetime::options(slf, lifetime, kwargs)?;
        let key = state.put(obj, &PutWish::new(serializer, codec)?, options.as_ref())?;
        let key = state.key_to_python(slf.py(), &key)?;
        lifetime::attach(slf, lifetime, &PyTuple::new(slf.py(), [&key])?, true)?;
        Ok(key)
    }

    /// Makes a key of an object that does not exist yet.
    fn _new_key<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let state = self.state()?;
        let key = py.detach(|| state.store.new_key()).py(py)?;
        state.key_to_python(py, &key)
    }

    /// Stores many objects at once; all or none.
    #[pyo3(signature = (objs, *, lifetime = None, serializer = None, codec = None, **kwargs))]
    fn put_batch<'py>(
        slf: &Bound<'py, Self>,
        objs: &Bound<'py, PyAny>,
        lifetime: Option<&Bound<'py, PyAny>>,
        serializer: Option<&Bound<'py, PyAny>>,
        codec: Option<&str>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let py = slf.py();
        let state = slf.get().state()?;
        let faces = PyList::empty(py);
        let total = state.metrics.start();
        let objects: Vec<_> = objs.try_iter()?.collect::<PyResult<_>>()?;
        let wish = PutWish::new(serializer, codec)?;
        let encoded: Vec<_> =
            objects.iter().map(|object| state.encode(object, &wish)).collect::<PyResult<_>>()?;
        let framed: Vec<Framed<'_>> = encoded
            .iter()
            .map(|encoded| encoded.payload(py)?.frame().py(py))
            .collect::<PyResult<_>>()?;
        let serialized = state.metrics.start();
        state.record(Operation::Encode, total, 0);
        let options = lifetime::options(slf, lifetime, kwargs)?;
        for key in state.put_batch(py, &framed, options.as_ref())? {
            faces.append(state.key_to_python(py, &key)?)?;
        }
        for (object, encoded) in objects.iter().zip(&encoded) {
            encoded.was_put(object)?;
        }
        if state.metrics.is_on() {
            let sizes: usize = framed.iter().map(Framed::len).sum();
            let keys = faces.to_tuple().into_any();
            let name = "store.put_batch.serialize";
            state.metrics.time_between(py, name, &keys, total, serialized)?;
            state.metrics.time(py, "store.put_batch.connector", &keys, serialized)?;
            state.metrics.time(py, "store.put_batch", &keys, total)?;
            state.metrics.attribute(py, "store.put_batch.object_sizes", &keys, sizes)?;
        }
        lifetime::attach(slf, lifetime, &faces.to_tuple(), true)?;
        Ok(faces)
    }

    /// The object under a key, else `default`.
    #[pyo3(signature = (key, *, deserializer = None, default = None, codec = None, r#type = None))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        deserializer: Option<&Bound<'py, PyAny>>,
        default: Option<Bound<'py, PyAny>>,
        codec: Option<&str>,
        r#type: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let state = self.state()?;
        let wish = GetWish { deserializer, codec: Codec::named(codec)?, class: r#type };
        Ok(state.get(py, &state.key(key)?, &wish)?.or(default))
    }

    /// Whether there is an object under the key, in the cache or in the channel.
    fn exists(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let state = self.state()?;
        let inner = state.key(key)?;
        let started = state.metrics.start();
        let asks = state.metrics.is_on() && !state.store.cache().contains(&inner);
        let exists = py.detach(|| state.store.exists(&inner)).py(py)?;
        if asks {
            state.metrics.time(py, "store.exists.connector", key, started)?;
        }
        state.metrics.time(py, "store.exists", key, started)?;
        Ok(exists)
    }

    /// Whether the object of a key is in this process's cache.
    fn is_cached(&self, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let state = self.state()?;
        Ok(state.store.cache().contains(&state.key(key)?))
    }

    /// The cached object of a key, else `default`.
    fn _cache_get<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        default: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let state = self.state()?;
        state.store.permit().py(py)?;
        Ok(state.cached(py, &state.key(key)?).unwrap_or(default))
    }

    /// Caches an object that counts as `bytes`.
    fn _cache_set(
        &self,
        key: &Bound<'_, PyAny>,
        object: &Bound<'_, PyAny>,
        bytes: usize,
    ) -> PyResult<()> {
        let state = self.state()?;
        state.keep(&state.key(key)?, object, bytes);
        Ok(())
    }

    /// Drops an object from the cache alone.
    fn _cache_evict(&self, key: &Bound<'_, PyAny>) -> PyResult<()> {
        let state = self.state()?;
        state.store.cache().remove(&state.key(key)?);
        Ok(())
    }

    /// Removes an object from the channel and the cache; absent is fine.
    fn evict(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<()> {
        let state = self.state()?;
        state.evict(py, &state.key(key)?)
    }

    /// Lets objects vanish after `ttl` seconds from now, or only when evicted (`None`).
    #[pyo3(signature = (keys, ttl))]
    fn expire(&self, py: Python<'_>, keys: &Bound<'_, PyAny>, ttl: Option<f64>) -> PyResult<()> {
        let state = self.state()?;
        let keys: Vec<_> = keys.try_iter()?.map(|key| state.key(&key?)).collect::<PyResult<_>>()?;
        let ttl = ttl.map(connector::seconds).transpose()?;
        py.detach(|| state.store.expire(&keys, ttl)).py(py)
    }

    /// Stores an object and returns a proxy of it.
    #[expect(clippy::too_many_arguments, reason = "the keyword arguments of the public method")]
    #[pyo3(signature = (obj, *, evict = false, lifetime = None, serializer = None,
        deserializer = None, populate_target = None, skip_nonproxiable = false, codec = None, **kwargs))]
    fn proxy<'py>(
        slf: &Bound<'py, Self>,
        obj: &Bound<'py, PyAny>,
        evict: bool,
        lifetime: Option<&Bound<'py, PyAny>>,
        serializer: Option<&Bound<'py, PyAny>>,
        deserializer: Option<&Bound<'py, PyAny>>,
        populate_target: Option<bool>,
        skip_nonproxiable: bool,
        codec: Option<&str>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let state = slf.get().state()?;
        let wish = Wish::new(state, evict, lifetime, deserializer, populate_target)?;
        if is_nonproxiable(obj) {
            return if skip_nonproxiable { Ok(obj.clone()) } else { Err(nonproxiable(obj)) };
        }
        let started = state.metrics.start();
        let options = lifetime::options(slf, lifetime, kwargs)?;
        let (facts, put) = (wish.facts(slf, obj, serializer)?, PutWish::new(serializer, codec)?);
        let class = state.class_elsewhere(obj, &put)?;
        let reference = if overrides(slf, intern!(slf.py(), "put"))? {
            let options = match options {
                Some(options) => options.copy()?,
                None => PyDict::new(slf.py()),
            };
            options.set_item(intern!(slf.py(), "serializer"), serializer)?;
            if let Some(codec) = codec {
                options.set_item(intern!(slf.py(), codec::SETTING), codec)?;
            }
            let key = slf.call_method(intern!(slf.py(), "put"), (obj,), Some(&options))?;
            state.reference(state.key(&key)?)
        } else {
            state.refer(obj, &put, options.as_ref())?
        };
        let mut reference = reference.with_facts(facts.stored_now());
        reference.class = class;
        if state.metrics.is_on() {
            let face = state.key_to_python(slf.py(), &reference.key)?;
            state.metrics.time(slf.py(), "store.proxy", &face, started)?;
        }
        if lifetime.is_some() && reference.inline.is_none() {
            let key = state.key_to_python(slf.py(), &reference.key)?;
            lifetime::attach(slf, lifetime, &PyTuple::new(slf.py(), [key])?, true)?;
        }
        make(slf, reference, Some(obj), &wish)
    }

    /// Proxies of many objects, stored at once; positions are kept.
    #[expect(clippy::too_many_arguments, reason = "the keyword arguments of the public method")]
    #[pyo3(signature = (objs, *, evict = false, lifetime = None, serializer = None,
        deserializer = None, populate_target = None, skip_nonproxiable = false, codec = None, **kwargs))]
    fn proxy_batch<'py>(
        slf: &Bound<'py, Self>,
        objs: &Bound<'py, PyAny>,
        evict: bool,
        lifetime: Option<&Bound<'py, PyAny>>,
        serializer: Option<&Bound<'py, PyAny>>,
        deserializer: Option<&Bound<'py, PyAny>>,
        populate_target: Option<bool>,
        skip_nonproxiable: bool,
        codec: Option<&str>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let py = slf.py();
        let state = slf.get().state()?;
        let wish = Wish::new(state, evict, lifetime, deserializer, populate_target)?;
        let started = state.metrics.start();
        let objects: Vec<Bound<'py, PyAny>> = objs.try_iter()?.collect::<PyResult<_>>()?;
        if let Some(object) = objects.iter().find(|object| is_nonproxiable(object))
            && !skip_nonproxiable
        {
            return Err(nonproxiable(object));
        }
        let stored = PyList::new(py, objects.iter().filter(|object| !is_nonproxiable(object)))?;
        let put = PutWish::new(serializer, codec)?;
        let known = stored.iter().map(|object| {
            Ok((wish.facts(slf, &object, serializer)?, state.class_elsewhere(&object, &put)?))
        });
        let known: Vec<(Facts, Option<String>)> = known.collect::<PyResult<_>>()?;
        // Through the public method, so that a subclass sees the batch.
        let options = match kwargs {
            Some(kwargs) => kwargs.copy()?,
            None => PyDict::new(py),
        };
        options.set_item(intern!(py, "serializer"), serializer)?;
        if let Some(codec) = codec {
            options.set_item(intern!(py, codec::SETTING), codec)?;
        }
        if lifetime.is_some() {
            options.set_item(intern!(py, "lifetime"), lifetime)?;
        }
        let keys = slf.call_method(intern!(py, "put_batch"), (stored,), Some(&options))?;
        let faces: Vec<_> = keys.try_iter()?.collect::<PyResult<_>>()?;
        let mut keys = faces.iter().zip(known);
        let proxies = PyList::empty(py);
        for object in &objects {
            if is_nonproxiable(object) {
                proxies.append(object)?;
            } else if let Some((key, (facts, class))) = keys.next() {
                let mut reference = state.reference(state.key(key)?).with_facts(facts.stored_now());
                reference.class = class;
                proxies.append(make(slf, reference, Some(object), &wish)?)?;
            }
        }
        if state.metrics.is_on() {
            let keys = PyTuple::new(py, faces)?.into_any();
            state.metrics.time(py, "store.proxy_batch", &keys, started)?;
        }
        Ok(proxies)
    }

    /// A proxy of what is stored under a key; nothing is fetched.
    #[pyo3(signature = (key, *, evict = false, lifetime = None, deserializer = None))]
    fn proxy_from_key<'py>(
        slf: &Bound<'py, Self>,
        key: &Bound<'py, PyAny>,
        evict: bool,
        lifetime: Option<&Bound<'py, PyAny>>,
        deserializer: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let state = slf.get().state()?;
        let wish = Wish::new(state, evict, lifetime, deserializer, None)?;
        lifetime::attach(slf, lifetime, &PyTuple::new(slf.py(), [key])?, false)?;
        make(slf, state.reference(state.key(key)?), None, &wish)
    }

    /// Writable memory of the channel for `nbytes`, or ordinary memory where it has none.
    fn _allocate<'py>(&self, py: Python<'py>, nbytes: usize) -> PyResult<Bound<'py, PyAny>> {
        let state = self.state()?;
        let memory = py.detach(|| state.store.allocate(nbytes)).py(py)?;
        let allocates = state.store.connector().capabilities().allocate;
        let memory = if allocates {
            PyStoredBytes::allocated(memory)
        } else {
            PyStoredBytes::new(memory, true)
        };
        Ok(Bound::new(py, memory)?.into_any())
    }

    /// Marks the store closed and drops what it cached; the caller closes the connector first.
    fn _closed(&self, py: Python<'_>) -> PyResult<()> {
        let state = self.state()?;
        py.detach(|| state.store.close(false)).py(py)
    }
}

/// Whether the store is of a subclass with a method of its own in place of this one.
fn overrides(store: &Bound<'_, StoreBase>, method: &Bound<'_, PyString>) -> PyResult<bool> {
    let base = store.py().get_type::<StoreBase>();
    Ok(!store.get_type().getattr(method)?.is(&base.getattr(method)?))
}
