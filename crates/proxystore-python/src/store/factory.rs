//! The factory that fetches a target from a store, and how proxies travel by it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use proxystore::{Key, Reference, StoreConfig};
use pyo3::exceptions::{PyException, PyTypeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple, PyType};

use super::pending::Pending;
use super::{StoreBase, overrides, registry};
use crate::error::IntoPython;
use crate::{connector, foreign, foreign_key, proxy};

/// Fetches an object from a store, which it finds or opens by its reference.
#[pyclass(name = "StoreFactory", module = "proxystore_rs._core", subclass, dict, weakref, frozen)]
pub(crate) struct StoreFactory {
    state: OnceLock<State>,
}

struct State {
    /// The store at hand, if it made this factory in this process.
    store: Option<Py<StoreBase>>,
    reference: Reference,
    /// Separate from the reference: taking ownership turns it off.
    evict: AtomicBool,
    deserializer: Option<Py<PyAny>>,
    pending: Mutex<Option<Arc<Pending>>>,
}

impl StoreFactory {
    fn with(py: Python<'_>, state: State) -> PyResult<Bound<'_, Self>> {
        Bound::new(py, Self { state: OnceLock::from(state) })
    }

    /// A factory for an object of a store at hand.
    pub(super) fn local<'py>(
        store: &Bound<'py, StoreBase>,
        key: Key,
        evict: bool,
        deserializer: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, Self>> {
        let py = store.py();
        let made_by = store.get().state()?;
        let mut reference = Reference::new(Arc::clone(made_by.store.config()), key);
        reference.extension.clone_from(&made_by.extension);
        let state = State {
            store: Some(store.clone().unbind()),
            reference,
            evict: AtomicBool::new(evict),
            deserializer: deserializer.map(|deserializer| deserializer.clone().unbind()),
            pending: Mutex::new(None),
        };
        Self::with(py, state)
    }

    fn state(&self) -> PyResult<&State> {
        self.state.get().ok_or_else(|| {
            PyTypeError::new_err("the factory is not set up: its __init__ must call super()'s")
        })
    }

    /// The serialized reference. `class` names the target's class, if known.
    fn encode(&self, py: Python<'_>, class: Option<String>) -> PyResult<Vec<u8>> {
        let state = self.state()?;
        let mut reference = state.reference.clone();
        reference.evict = state.evict.load(Ordering::Relaxed);
        reference.class = class.or(reference.class);
        if let Some(deserializer) = &state.deserializer {
            reference.extension =
                Some(extension_with(py, reference.extension.as_deref(), deserializer)?);
        }
        reference.encode().py(py)
    }

    fn decode(py: Python<'_>, bytes: &[u8]) -> PyResult<State> {
        let mut reference = Reference::decode(bytes).py(py)?;
        let mut deserializer = None;
        if let Some(extension) = &reference.extension {
            let (rest, own) = extension_without(py, extension)?;
            reference.extension = rest;
            deserializer = own;
        }
        Ok(State {
            store: None,
            evict: AtomicBool::new(reference.evict),
            reference,
            deserializer,
            pending: Mutex::new(None),
        })
    }
}

const DESERIALIZER: &str = "proxy_deserializer";

/// The pickled settings of Python with a proxy's own deserializer among them.
fn extension_with(
    py: Python<'_>,
    extension: Option<&[u8]>,
    deserializer: &Py<PyAny>,
) -> PyResult<Vec<u8>> {
    let pickle = py.import(intern!(py, "pickle"))?;
    let settings = match extension {
        Some(bytes) => pickle.call_method1("loads", (PyBytes::new(py, bytes),))?.cast_into()?,
        None => PyDict::new(py),
    };
    settings.set_item(DESERIALIZER, deserializer)?;
    pickle.call_method1("dumps", (settings,))?.extract()
}

type Split = (Option<Vec<u8>>, Option<Py<PyAny>>);

fn extension_without(py: Python<'_>, extension: &[u8]) -> PyResult<Split> {
    let pickle = py.import(intern!(py, "pickle"))?;
    let settings: Bound<'_, PyDict> =
        pickle.call_method1("loads", (PyBytes::new(py, extension),))?.cast_into()?;
    let Some(deserializer) = settings.get_item(DESERIALIZER)? else {
        return Ok((Some(extension.to_vec()), None));
    };
    settings.del_item(DESERIALIZER)?;
    let rest = if settings.is_empty() {
        None
    } else {
        Some(pickle.call_method1("dumps", (settings,))?.extract()?)
    };
    Ok((rest, Some(deserializer.unbind())))
}

#[pymethods]
impl StoreFactory {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self { state: OnceLock::new() }
    }

    /// `store_config` is asked for its parts; what it is otherwise does not matter.
    #[pyo3(signature = (key, store_config, *, evict = false, deserializer = None))]
    fn __init__(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        store_config: &Bound<'_, PyAny>,
        evict: bool,
        deserializer: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let Some(native) = store_config.getattr_opt(intern!(py, "_native"))? else {
            return Err(PyTypeError::new_err(format!(
                "store_config must be a StoreConfig, such as store.config(), not {}",
                store_config.get_type().name()?
            )));
        };
        let (name, url, options, settings, extension): (
            String,
            String,
            Bound<'_, PyDict>,
            Bound<'_, PyDict>,
            Option<Vec<u8>>,
        ) = native.call0()?.extract()?;
        let plain = |dict| {
            crate::value::settings(dict)
                .ok_or_else(|| PyTypeError::new_err("the configuration holds no plain values"))
        };
        let channel = proxystore::ConnectorConfig { url, options: plain(&options)? };
        let foreign = channel.kind() == foreign::KIND;
        let key = if foreign { foreign_key::from_python(key, 0) } else { connector::key_of(key) }?;
        let config = StoreConfig { name, connector: channel, settings: plain(&settings)? };
        let mut reference = Reference::new(config, key);
        reference.extension = extension;
        let state = State {
            store: None,
            reference,
            evict: AtomicBool::new(evict),
            deserializer,
            pending: Mutex::new(None),
        };
        let _ = self.state.set(state); // calling __init__ again changes nothing
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(state) = self.state.get() else {
            return Ok(());
        };
        visit.call(&state.store)?;
        visit.call(&state.deserializer)
    }

    /// The key of the object, of the connector's own type.
    #[getter]
    fn key<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let state = self.state()?;
        let key = &state.reference.key;
        if let Some(store) = &state.store {
            return store.get().state()?.key_to_python(py, key);
        }
        if state.reference.store.connector.kind() == foreign::KIND {
            return foreign_key::to_python(py, key);
        }
        // Only the class is needed, so that looking at a key opens no store.
        let connector = self.store_config(py)?.getattr(intern!(py, "connector"))?;
        let class = connector.call_method0(intern!(py, "get_connector_type"))?;
        connector::key_to_python(&class, key)
    }

    /// From which the store can be opened.
    #[getter]
    fn store_config<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let reference = &self.state()?.reference;
        let parts =
            registry::config_to_python(py, &reference.store, reference.extension.as_deref())?;
        let module = py.import(intern!(py, "proxystore_rs.store.config"))?;
        module.getattr("StoreConfig")?.call_method1(intern!(py, "_from_native"), parts)
    }

    /// Whether the object is evicted when it is resolved.
    #[getter]
    fn get_evict(&self) -> PyResult<bool> {
        Ok(self.state()?.evict.load(Ordering::Relaxed))
    }

    #[setter]
    fn set_evict(&self, evict: bool) -> PyResult<()> {
        self.state()?.evict.store(evict, Ordering::Relaxed);
        Ok(())
    }

    /// The deserializer of this proxy alone, if it has one.
    #[getter]
    fn deserializer(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        Ok(self.state()?.deserializer.as_ref().map(|deserializer| deserializer.clone_ref(py)))
    }

    /// The store: the one at hand, else found or opened by name and configuration.
    fn get_store<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, StoreBase>> {
        let state = self.state()?;
        if let Some(store) = &state.store
            && !store.get().state()?.store.is_closed()
        {
            return Ok(store.bind(py).clone());
        }
        registry::get_or_open(py, &state.reference.store, state.reference.extension.as_deref())
    }

    /// Fetches the object, and evicts it if that was asked for.
    fn resolve<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let state = self.state()?;
        let store = self.get_store(py)?;
        let inner = store.get().state()?;
        let key = &state.reference.key;
        let deserializer = state.deserializer.as_ref().map(|deserializer| deserializer.bind(py));
        let pending = state.pending.lock().unwrap_or_else(PoisonError::into_inner).take();
        let object = match pending.filter(Pending::is_ours) {
            Some(pending) => {
                match pending.wait(py)?.map_err(|error| inner.with_readable_key(py, error, key))? {
                    Some(received) => Some(inner.decode(py, key, &received, deserializer)?),
                    None => None,
                }
            }
            None if overrides(&store, intern!(py, "get"))? => {
                let absent = inner.connector.bind(py); // an object that no store holds
                let options = PyDict::new(py);
                options.set_item(intern!(py, "deserializer"), deserializer)?;
                options.set_item(intern!(py, "default"), absent)?;
                let face = inner.key_to_python(py, key)?;
                let found = store.call_method(intern!(py, "get"), (face,), Some(&options))?;
                (!found.is(absent)).then_some(found)
            }
            None => inner.get(py, key, deserializer)?,
        };
        let Some(object) = object else {
            return Err(missing(&store, inner, key));
        };
        if state.evict.load(Ordering::Relaxed) {
            inner.evict(py, key)?;
        }
        Ok(object)
    }

    fn __call__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        if slf.get_type().is(slf.py().get_type::<Self>()) {
            return slf.get().resolve(slf.py());
        }
        slf.call_method0(intern!(slf.py(), "resolve")) // a subclass may have its own
    }

    /// Starts fetching in the background; `resolve` waits for it.
    fn resolve_async(&self, py: Python<'_>) -> PyResult<()> {
        let state = self.state()?;
        let store = self.get_store(py)?;
        let inner = store.get().state()?;
        let key = state.reference.key.clone();
        if inner.store.cache().contains(&key) {
            return Ok(());
        }
        let started = Arc::new(Pending::new());
        let mut pending = state.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.as_ref().is_some_and(Pending::is_ours) {
            return Ok(());
        }
        let inherited = pending.replace(Arc::clone(&started));
        drop(pending); // starting a thread may run other threads, which may ask for it
        drop(inherited);
        started.start(py, inner, key)
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let bytes = slf.get().encode(py, None)?;
        let rebuild = py.import(intern!(py, "proxystore_rs._core"))?.getattr("_factory")?;
        let arguments = (PyBytes::new(py, &bytes), slf.get_type());
        let own = slf.getattr(intern!(py, "__dict__"))?; // attributes of a subclass
        if own.is_truthy()? {
            return Ok((rebuild, arguments, own).into_pyobject(py)?.into_any());
        }
        Ok((rebuild, arguments).into_pyobject(py)?.into_any())
    }

    /// `StoreFactory[ConnectorT, T]`: parameters are for type checkers alone.
    #[classmethod]
    fn __class_getitem__<'py>(
        class: &Bound<'py, PyType>,
        parameters: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let alias = class.py().import(intern!(class.py(), "types"))?;
        alias.getattr(intern!(class.py(), "GenericAlias"))?.call1((class, parameters))
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let Some(State { reference: Reference { store, key, .. }, .. }) = self.state.get() else {
            return "StoreFactory(not set up)".to_owned();
        };
        if store.connector.kind() == foreign::KIND
            && let Ok(key) = foreign_key::to_python(py, key)
        {
            return format!("StoreFactory(store={}, key={key})", store.name);
        }
        format!("StoreFactory(store={}, key={key})", store.name)
    }
}

/// The error for an object that is not there.
fn missing(store: &Bound<'_, StoreBase>, inner: &super::State, key: &Key) -> PyErr {
    let py = store.py();
    let make = || -> PyResult<PyErr> {
        let class = py
            .import(intern!(py, "proxystore_rs.store.exceptions"))?
            .getattr(intern!(py, "ProxyResolveMissingKeyError"))?;
        let key_face = inner.key_to_python(py, key)?;
        let name = inner.store.name();
        let error = class.call1((key_face, store.get_type(), name))?;
        if !inner.store.connector().capabilities().cross_process {
            let hint = inner.store.missing(key).hint().unwrap_or_default().to_owned();
            error.call_method1(intern!(py, "add_note"), (hint,))?;
        }
        Ok(PyErr::from_value(error))
    };
    make().unwrap_or_else(|error| error)
}

/// A class as references name it; `None` when no other process could find it.
fn class_name(class: &Bound<'_, PyType>) -> Option<String> {
    let module = class.getattr(intern!(class.py(), "__module__")).ok()?;
    let name = class.getattr(intern!(class.py(), "__qualname__")).ok()?;
    let name = name.extract::<String>().ok()?;
    let module = module.extract::<String>().ok()?;
    (!name.contains('<')).then(|| format!("{module}:{name}"))
}

/// Tells the proxy type how proxies of stores are pickled: by reference.
pub(crate) fn register_reducer(py: Python<'_>) {
    proxy::register_reducer(&py.get_type::<StoreFactory>(), |py, factory, proxy| {
        let factory = factory.cast::<StoreFactory>()?;
        let class = match proxy::resolved_target(proxy) {
            Some(target) => class_name(&target.get_type()),
            None => proxy::known_class(proxy).as_ref().and_then(class_name),
        };
        let bytes = factory.get().encode(py, class)?;
        let rebuild = RESTORE.import(py, "proxystore_rs._core", "_restore")?;
        let reduced = (rebuild, (PyBytes::new(py, &bytes),)).into_pyobject(py)?;
        Ok(Some(reduced.into_any().unbind()))
    });
}

static RESTORE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The proxy of a reference. One that cannot be read gives a proxy that says why when it is used: an
/// error while unpickling would end the process of a pool that was sent it, and with it the pool.
#[pyfunction(name = "_restore")]
pub(crate) fn restore_proxy<'py>(py: Python<'py>, reference: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let state = match StoreFactory::decode(py, reference) {
        Ok(state) => state,
        Err(error) if error.is_instance_of::<PyException>(py) => {
            let module = py.import(intern!(py, "proxystore_rs.store.factory"))?;
            let class = module.getattr(intern!(py, "UnreadableReference"))?;
            return proxy::new(py, class.call1((PyBytes::new(py, reference),))?, None, None);
        }
        Err(error) => return Err(error),
    };
    let class = state.reference.class.as_ref().map(|class| PyString::new(py, class).into_any());
    proxy::new(py, StoreFactory::with(py, state)?.into_any(), class, None)
}

/// The factory of a reference.
#[pyfunction(name = "_factory")]
pub(crate) fn restore_factory<'py>(
    py: Python<'py>,
    reference: &[u8],
    class: &Bound<'py, PyType>,
) -> PyResult<Bound<'py, PyAny>> {
    let state = StoreFactory::decode(py, reference)?;
    let factory = class.call_method1(intern!(py, "__new__"), (class,))?;
    let factory = factory.cast_into::<StoreFactory>()?;
    let _ = factory.get().state.set(state); // new by construction
    Ok(factory.into_any())
}
