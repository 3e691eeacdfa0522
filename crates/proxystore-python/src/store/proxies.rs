//! Making proxies of stored objects.

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyList};

use super::{State, StoreBase, StoreFactory, attach_to};
use crate::error::raise;
use crate::proxy;
use proxystore::Key;

/// What the keyword arguments of the proxy methods say.
struct Wish<'a, 'py> {
    evict: bool,
    lifetime: Option<&'a Bound<'py, PyAny>>,
    deserializer: Option<&'a Bound<'py, PyAny>>,
    populate_target: bool,
}

impl<'a, 'py> Wish<'a, 'py> {
    fn new(
        state: &State,
        evict: bool,
        lifetime: Option<&'a Bound<'py, PyAny>>,
        deserializer: Option<&'a Bound<'py, PyAny>>,
        populate_target: Option<bool>,
    ) -> PyResult<Self> {
        if evict && lifetime.is_some() {
            return Err(PyValueError::new_err(
                "evict and lifetime are mutually exclusive: the object would be freed twice",
            ));
        }
        let populate_target = populate_target.unwrap_or(state.populate_target);
        Ok(Self { evict, lifetime, deserializer, populate_target })
    }
}

fn is_nonproxiable(object: &Bound<'_, PyAny>) -> bool {
    object.is_none() || object.is_exact_instance_of::<PyBool>()
}

fn nonproxiable(object: &Bound<'_, PyAny>) -> PyErr {
    raise(
        object.py(),
        "NonProxiableTypeError",
        &format!(
            "Cannot proxy {object:?}: code that asks `x is {object:?}` or branches on it without \
             calling it cannot see through a proxy. Pass skip_nonproxiable=True to get the value \
             itself back."
        ),
    )
}

fn make<'py>(
    store: &Bound<'py, StoreBase>,
    key: Key,
    object: Option<&Bound<'py, PyAny>>,
    wish: &Wish<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = store.py();
    if wish.lifetime.is_some() {
        let face = store.get().state()?.key_to_python(py, &key)?;
        attach_to(store, wish.lifetime, &face)?;
    }
    let factory = StoreFactory::local(store, key, wish.evict, wish.deserializer)?;
    let target = object.filter(|_| wish.populate_target).cloned();
    proxy::new(py, factory.into_any(), None, target)
}

#[pymethods]
impl StoreBase {
    /// Stores an object and returns a proxy of it.
    #[expect(clippy::too_many_arguments, reason = "the keyword arguments of the public method")]
    #[pyo3(signature = (obj, *, evict = false, lifetime = None, serializer = None,
        deserializer = None, populate_target = None, skip_nonproxiable = false, **kwargs))]
    fn proxy<'py>(
        slf: &Bound<'py, Self>,
        obj: &Bound<'py, PyAny>,
        evict: bool,
        lifetime: Option<&Bound<'py, PyAny>>,
        serializer: Option<&Bound<'py, PyAny>>,
        deserializer: Option<&Bound<'py, PyAny>>,
        populate_target: Option<bool>,
        skip_nonproxiable: bool,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let state = slf.get().state()?;
        let wish = Wish::new(state, evict, lifetime, deserializer, populate_target)?;
        if is_nonproxiable(obj) {
            return if skip_nonproxiable { Ok(obj.clone()) } else { Err(nonproxiable(obj)) };
        }
        let started = state.metrics.start();
        let key = state.put(obj, serializer, kwargs)?;
        if state.metrics.is_on() {
            let face = state.key_to_python(slf.py(), &key)?;
            state.metrics.time(slf.py(), "store.proxy", &face, started)?;
        }
        make(slf, key, Some(obj), &wish)
    }

    /// Proxies of many objects, stored at once; positions are kept.
    #[expect(clippy::too_many_arguments, reason = "the keyword arguments of the public method")]
    #[pyo3(signature = (objs, *, evict = false, lifetime = None, serializer = None,
        deserializer = None, populate_target = None, skip_nonproxiable = false, **kwargs))]
    fn proxy_batch<'py>(
        slf: &Bound<'py, Self>,
        objs: &Bound<'py, PyAny>,
        evict: bool,
        lifetime: Option<&Bound<'py, PyAny>>,
        serializer: Option<&Bound<'py, PyAny>>,
        deserializer: Option<&Bound<'py, PyAny>>,
        populate_target: Option<bool>,
        skip_nonproxiable: bool,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let py = slf.py();
        let state = slf.get().state()?;
        let wish = Wish::new(state, evict, lifetime, deserializer, populate_target)?;
        let objects: Vec<Bound<'py, PyAny>> = objs.try_iter()?.collect::<PyResult<_>>()?;
        if let Some(object) = objects.iter().find(|object| is_nonproxiable(object))
            && !skip_nonproxiable
        {
            return Err(nonproxiable(object));
        }
        let stored = PyList::new(py, objects.iter().filter(|object| !is_nonproxiable(object)))?;
        // Through the public method, so that a subclass sees the batch.
        let options = match kwargs {
            Some(kwargs) => kwargs.copy()?,
            None => PyDict::new(py),
        };
        options.set_item(intern!(py, "serializer"), serializer)?;
        let keys = slf.call_method(intern!(py, "put_batch"), (stored,), Some(&options))?;
        let mut keys = keys.try_iter()?;
        let proxies = PyList::empty(py);
        for object in &objects {
            if is_nonproxiable(object) {
                proxies.append(object)?;
            } else if let Some(key) = keys.next() {
                proxies.append(make(slf, state.key(&key?)?, Some(object), &wish)?)?;
            }
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
        make(slf, state.key(key)?, None, &wish)
    }
}
