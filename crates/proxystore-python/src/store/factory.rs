//! The factory that fetches a target from a store, and how proxies travel by it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use proxystore::payload::Received;
use proxystore::reference::Wait;
use proxystore::{Buffer, Facts, Key, Reference, StoreConfig, trust};
use pyo3::exceptions::{PyException, PyTypeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple, PyType};

use super::pending::Pending;
use super::state::GetWish;
use super::{StoreBase, extension, future, overrides, registry};
use crate::connector::seconds;
use crate::error::IntoPython;
use crate::keys::Keys;
use crate::{codec, foreign, proxy, value};

/// Fetches an object from a store, which it finds or opens by its reference.
#[pyclass(name = "StoreFactory", module = "proxystore_rs._core", subclass, dict, weakref, frozen)]
pub(crate) struct StoreFactory {
    state: OnceLock<State>,
}

struct State {
    /// The store at hand, if it made this factory in this process.
    store: Option<Py<StoreBase>>,
    /// As it came, if it arrived: a signature is of its bytes.
    reference: Reference,
    /// The pickled settings of the store among the reference's extension.
    extension: Option<Vec<u8>>,
    /// Separate from the reference: taking ownership turns it off.
    evict: AtomicBool,
    deserializer: Option<Py<PyAny>>,
    /// Whether it came from elsewhere, so that it is checked before anything in it is unpickled.
    arrived: bool,
    pending: Mutex<Option<Arc<Pending>>>,
    /// Whether its producer is known to be one whom this process believes: itself, or one it checked.
    vouched: bool,
}

impl State {
    /// Refuses to go on with pickles that arrived in a reference, where only data is taken.
    fn check_arrived(&self, py: Python<'_>) -> PyResult<()> {
        if self.arrived && registry::takes_data_only(py, self.store.as_ref(), &self.reference)? {
            codec::check_reference(py, &self.reference, self.deserializer.is_some())?;
        }
        Ok(())
    }

    /// That of a reference that arrived.
    fn received(py: Python<'_>, reference: Reference) -> PyResult<Self> {
        // Now, while the reference is as it was signed, and before anything in it is unpickled.
        let vouched = trust::producers::are_required();
        if vouched {
            trust::producers::check(&reference).py(py)?;
        }
        if registry::takes_data_only(py, None, &reference)? {
            codec::check_reference(py, &reference, false)?;
        }
        let (extension, deserializer) = match &reference.extension {
            Some(extension) => extension::without(py, extension)?,
            None => (None, None),
        };
        Ok(Self {
            store: None,
            evict: AtomicBool::new(reference.evict),
            reference,
            extension,
            deserializer,
            arrived: true,
            pending: Mutex::new(None),
            vouched,
        })
    }

    fn decode(py: Python<'_>, bytes: &[u8]) -> PyResult<Self> {
        Self::received(py, Reference::decode(bytes).py(py)?)
    }

    /// The same, without what is being fetched.
    fn clone_ref(&self, py: Python<'_>) -> Self {
        Self {
            store: self.store.as_ref().map(|store| store.clone_ref(py)),
            reference: self.reference.clone(),
            extension: self.extension.clone(),
            evict: AtomicBool::new(self.evict.load(Ordering::Relaxed)),
            deserializer: self.deserializer.as_ref().map(|function| function.clone_ref(py)),
            arrived: self.arrived,
            pending: Mutex::new(None),
            vouched: self.vouched,
        }
    }

    /// Checks who made the reference, unless that is done.
    fn vouch(&self, py: Python<'_>) -> PyResult<()> {
        if self.vouched { Ok(()) } else { trust::producers::check(&self.reference).py(py) }
    }
}

impl StoreFactory {
    fn with(py: Python<'_>, state: State) -> PyResult<Bound<'_, Self>> {
        Bound::new(py, Self { state: OnceLock::from(state) })
    }

    /// A factory for what a reference to a store at hand names.
    pub(super) fn local<'py>(
        store: &Bound<'py, StoreBase>,
        mut reference: Reference,
        evict: bool,
        deserializer: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, Self>> {
        let py = store.py();
        reference.extension.clone_from(&store.get().state()?.extension);
        let state = State {
            store: Some(store.clone().unbind()),
            extension: reference.extension.clone(),
            reference,
            evict: AtomicBool::new(evict),
            deserializer: deserializer.map(|deserializer| deserializer.clone().unbind()),
            arrived: false,
            pending: Mutex::new(None),
            vouched: true,
        };
        Self::with(py, state)
    }

    /// `called` is for the metrics, which tell calls from calls of `resolve`.
    fn fetch<'py>(
        &self,
        py: Python<'py>,
        wait: Option<Wait>,
        called: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let store = self.get_store(py)?;
        let started = store.get().state()?.metrics.start();
        let object = self.fetch_from(py, &store, wait)?;
        if started.is_some() {
            let name = if wait.is_some() { "factory.polling_resolve" } else { "factory.resolve" };
            self.note(py, &store, name, started)?;
            if called {
                self.note(py, &store, "factory.call", started)?;
            }
        }
        Ok(object)
    }

    /// Tells the metrics of the store how long something took.
    fn note(
        &self,
        py: Python<'_>,
        store: &Bound<'_, StoreBase>,
        name: &str,
        started: Option<Instant>,
    ) -> PyResult<()> {
        let inner = store.get().state()?;
        if !inner.metrics.is_on() {
            return Ok(());
        }
        let face = inner.key_to_python(py, &self.state()?.reference.key)?;
        inner.metrics.time(py, name, &face, started)
    }

    fn fetch_from<'py>(
        &self,
        py: Python<'py>,
        store: &Bound<'py, StoreBase>,
        wait: Option<Wait>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let state = self.state()?;
        state.reference.check_complete().py(py)?;
        let inner = store.get().state()?;
        trust::sites::check(&state.reference.store).py(py)?; // the store's own may permit more
        let key = &state.reference.key;
        let deserializer = state.deserializer.as_ref().map(|deserializer| deserializer.bind(py));
        if let Some(payload) = &state.reference.inline {
            inner.store.permit().py(py)?;
            let received = Received::parse(Buffer::copy_of(payload)).py(py)?;
            return inner.decode(py, key, &received, deserializer);
        }
        let pending = state.pending.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut object = match pending.filter(Pending::is_ours) {
            Some(pending) => {
                let timeout = wait.and_then(|wait| wait.timeout);
                let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
                let Some(outcome) = pending.wait(py, deadline)? else {
                    // It goes on, for whoever asks next.
                    *state.pending.lock().unwrap_or_else(PoisonError::into_inner) = Some(pending);
                    return Err(future::timed_out(store, inner, key));
                };
                match outcome {
                    Ok(Some(received)) => Some(inner.decode(py, key, &received, deserializer)?),
                    Ok(None) => None,
                    Err(error) if wait.is_some() => {
                        return Err(future::failed(store, inner, key, error));
                    }
                    Err(error) => return Err(inner.with_readable_key(py, error, key)),
                }
            }
            None => get_through(store, inner, key, deserializer)?,
        };
        if let (None, Some(wait)) = (&object, wait) {
            future::wait(store, inner, key, wait)?;
            object = get_through(store, inner, key, deserializer)?;
        }
        let Some(object) = object else {
            return Err(missing(store, inner, key));
        };
        if state.evict.load(Ordering::Relaxed) {
            inner.evict(py, key)?;
        }
        Ok(object)
    }

    pub(super) fn reference(&self) -> PyResult<&Reference> {
        Ok(&self.state()?.reference)
    }

    fn state(&self) -> PyResult<&State> {
        self.state.get().ok_or_else(|| {
            PyTypeError::new_err("the factory is not set up: its __init__ must call super()'s")
        })
    }

    /// How a future's proxies wait, with another timeout if one is given.
    fn wait_at_most(&self, timeout: Option<f64>) -> PyResult<Option<Wait>> {
        let mut wait = self.state()?.reference.wait;
        if let (Some(wait), Some(timeout)) = (&mut wait, timeout) {
            wait.timeout = Some(seconds(if timeout < 0.0 { 0.0 } else { timeout })?);
        }
        Ok(wait)
    }

    /// The reference as it travels. `class` names the target's class, if known.
    fn sent(&self, py: Python<'_>, class: Option<String>) -> PyResult<Reference> {
        let state = self.state()?;
        if registry::takes_data_only(py, state.store.as_ref(), &state.reference)? {
            codec::check_reference(py, &state.reference, state.deserializer.is_some())?;
        }
        let mut reference = state.reference.clone();
        reference.evict = state.evict.load(Ordering::Relaxed);
        if reference.signature.is_none() {
            reference.class = class.or(reference.class);
        }
        if state.arrived {
            return Ok(reference); // whoever made it has signed it, or nobody has
        }
        if let Some(deserializer) = &state.deserializer {
            reference.extension =
                Some(extension::with(py, state.extension.as_deref(), deserializer)?);
        }
        if let Some(store) = &state.store {
            store.get().state()?.store.sign(&mut reference).py(py)?; // it was made here
        }
        Ok(reference)
    }
}

#[pymethods]
impl StoreFactory {
    #[new]
    #[pyo3(
        signature = (*_args, **_kwargs),
        text_signature = "(key, store_config, *, evict=False, deserializer=None, wait=None)"
    )]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self { state: OnceLock::new() }
    }

    /// `store_config` is asked for its parts; what it is otherwise does not matter.
    #[pyo3(signature = (key, store_config, *, evict = false, deserializer = None, wait = None))]
    fn __init__(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        store_config: &Bound<'_, PyAny>,
        evict: bool,
        deserializer: Option<Py<PyAny>>,
        wait: Option<(Option<f64>, Option<f64>)>,
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
        let settings = value::settings(&settings)
            .ok_or_else(|| PyTypeError::new_err("the settings hold no plain values"))?;
        let options = foreign::settings_of(&options)?;
        let channel = proxystore::ConnectorConfig { url, options };
        let key = Keys::of_channel(py, &channel)?.key_of(key)?;
        let config = StoreConfig { name, connector: channel, settings };
        let mut reference = Reference::new(config, key);
        reference.extension.clone_from(&extension);
        reference.wait = wait.map(wait_of).transpose()?;
        let state = State {
            store: None,
            reference,
            extension,
            evict: AtomicBool::new(evict),
            deserializer,
            arrived: false,
            pending: Mutex::new(None),
            vouched: true,
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
        state.check_arrived(py)?;
        let key = &state.reference.key;
        match &state.store {
            Some(store) => store.get().state()?.key_to_python(py, key),
            None => Keys::of_channel(py, &state.reference.store.connector)?.face_of(py, key),
        }
    }

    /// From which the store can be opened.
    #[getter]
    fn store_config<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.state()?.check_arrived(py)?;
        let reference = &self.state()?.reference;
        let parts =
            registry::config_to_python(py, &reference.store, self.state()?.extension.as_deref())?;
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
    pub(super) fn deserializer(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        Ok(self.state()?.deserializer.as_ref().map(|deserializer| deserializer.clone_ref(py)))
    }

    /// The store, if it is open: the one at hand, else one registered under its name.
    #[getter(_open_store)]
    fn open_store<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let state = self.state()?;
        if let Some(store) = &state.store
            && !store.get().state()?.store.is_closed()
        {
            return Ok(Some(store.bind(py).clone().into_any()));
        }
        registry::stores(py).get_item(&state.reference.store.name)
    }

    /// The store: the one at hand, else found or opened by name and configuration.
    pub(super) fn get_store<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, StoreBase>> {
        let state = self.state()?;
        state.check_arrived(py)?;
        state.vouch(py)?;
        if let Some(store) = &state.store
            && !store.get().state()?.store.is_closed()
        {
            return Ok(store.bind(py).clone());
        }
        registry::get_or_open(py, &state.reference.store, state.extension.as_deref())
    }

    /// Fetches the object, and evicts it if that was asked for.
    fn resolve<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.fetch(py, self.state()?.reference.wait, false)
    }

    /// As `resolve`, waiting `timeout` seconds at most for the object of a future.
    #[pyo3(signature = (timeout))]
    fn _result<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        self.fetch(py, self.wait_at_most(timeout)?, false)
    }

    /// Waits `timeout` seconds at most until the future is set; fetches nothing.
    #[pyo3(signature = (timeout))]
    fn _until_set(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let wait = self.wait_at_most(timeout)?.unwrap_or_default();
        let store = self.get_store(py)?;
        future::wait(&store, store.get().state()?, &self.reference()?.key, wait)
    }

    /// How a future's proxies wait: seconds to wait, seconds of the producer's lease.
    #[getter]
    fn _wait(&self) -> PyResult<Option<(Option<f64>, Option<f64>)>> {
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
        Ok(self.state()?.reference.wait.map(|wait| (seconds(wait.timeout), seconds(wait.lease))))
    }

    /// A factory for whichever object is current under the key, which evicts nothing.
    fn _latest<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, Self>> {
        let mut state = self.state()?.clone_ref(py);
        state.reference.key = state.reference.key.to_latest();
        state.reference.facts = Facts::default(); // of the present generation
        state.reference.signature = None; // of the reference as it was
        state.evict = AtomicBool::new(false);
        Self::with(py, state)
    }

    /// The same factory with its store at hand.
    fn _at<'py>(
        slf: &Bound<'py, Self>,
        store: &Bound<'py, StoreBase>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let state = slf.get().state()?.clone_ref(slf.py());
        with_class(State { store: Some(store.clone().unbind()), ..state }, slf.get_type().as_any())
    }

    /// Whether the object travels inside the reference, so that there is nothing to free.
    #[getter]
    fn _is_inline(&self) -> PyResult<bool> {
        Ok(self.state()?.reference.inline.is_some())
    }

    fn __call__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        if slf.get_type().is(slf.py().get_type::<Self>()) {
            return slf.get().fetch(slf.py(), slf.get().state()?.reference.wait, true);
        }
        let (py, started) = (slf.py(), Instant::now());
        let object = slf.call_method0(intern!(py, "resolve"))?; // a subclass may have its own
        if let Some(store) = slf.get().open_store(py)?
            && let Ok(store) = store.cast::<StoreBase>()
        {
            slf.get().note(py, store, "factory.call", Some(started))?;
        }
        Ok(object)
    }

    /// Starts fetching in the background; `resolve` waits for it.
    fn resolve_async(&self, py: Python<'_>) -> PyResult<()> {
        let state = self.state()?;
        trust::sites::check(&state.reference.store).py(py)?;
        let store = self.get_store(py)?;
        let inner = store.get().state()?;
        let (key, wait) = (state.reference.key.clone(), state.reference.wait);
        if state.reference.inline.is_some() || inner.store.cache().contains(&key) {
            return Ok(());
        }
        if inner.keys.has_foreign() && wait.is_some() {
            return Ok(()); // its thread could wait for ever, and the interpreter for the thread
        }
        if overrides(&store, intern!(py, "get"))? {
            return Ok(()); // objects come through a method of the user's, when they are used
        }
        let started = Arc::new(Pending::new());
        let mut pending = state.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.as_ref().is_some_and(Pending::is_ours) {
            return Ok(());
        }
        let inherited = pending.replace(Arc::clone(&started));
        drop(pending); // starting a thread may run other threads, which may ask for it
        drop(inherited);
        started.start(py, inner, key, wait)
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let bytes = slf.get().sent(py, None)?.encode().py(py)?;
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
    #[pyo3(signature = (parameters, /))]
    fn __class_getitem__<'py>(
        class: &Bound<'py, PyType>,
        parameters: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let alias = class.py().import(intern!(class.py(), "types"))?;
        alias.getattr(intern!(class.py(), "GenericAlias"))?.call1((class, parameters))
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let Some(state) = self.state.get() else {
            return "StoreFactory(not set up)".to_owned();
        };
        let Reference { store, key, .. } = &state.reference;
        let keys = state.check_arrived(py).and_then(|()| Keys::of_channel(py, &store.connector));
        let key = keys.map_or_else(|_| key.to_string(), |keys| keys.text(py, key));
        format!("StoreFactory(store={}, key={key})", store.name)
    }
}

/// The object under a key, by the store's own `get` if a subclass has one.
pub(super) fn get_through<'py>(
    store: &Bound<'py, StoreBase>,
    inner: &super::State,
    key: &Key,
    deserializer: Option<&Bound<'py, PyAny>>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = store.py();
    if !overrides(store, intern!(py, "get"))? {
        return inner.get(py, key, &GetWish { deserializer, ..GetWish::default() });
    }
    let absent = inner.connector.bind(py); // an object that no store holds
    let options = PyDict::new(py);
    options.set_item(intern!(py, "deserializer"), deserializer)?;
    options.set_item(intern!(py, "default"), absent)?;
    let face = inner.key_to_python(py, key)?;
    let found = store.call_method(intern!(py, "get"), (face,), Some(&options))?;
    Ok((!found.is(absent)).then_some(found))
}

/// Seconds to wait and seconds of the producer's lease.
pub(super) fn wait_of((timeout, lease): (Option<f64>, Option<f64>)) -> PyResult<Wait> {
    let timeout = timeout.map(seconds).transpose()?;
    Ok(Wait { timeout, lease: lease.map(seconds).transpose()? })
}

/// The error for an object that is not there.
pub(super) fn missing(store: &Bound<'_, StoreBase>, inner: &super::State, key: &Key) -> PyErr {
    let py = store.py();
    let make = || -> PyResult<PyErr> {
        let class = py
            .import(intern!(py, "proxystore_rs.store.exceptions"))?
            .getattr(intern!(py, "ProxyResolveMissingKeyError"))?;
        let key_face = inner.keys.face_without_seal(py, key)?;
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

/// The reference by which a proxy of a factory travels; `None` if that is of a class of the user's.
pub(super) fn sent_by(
    factory: &Bound<'_, PyAny>,
    proxy: &Bound<'_, PyAny>,
) -> PyResult<Option<Reference>> {
    let (py, kind) = (factory.py(), factory.get_type());
    if !kind.is(py.get_type::<StoreFactory>()) && !kind.is(polling(py)?) {
        return Ok(None);
    }
    let class = match proxy::resolved_target(proxy) {
        Some(target) => value::class_name(&target.get_type()),
        None => proxy::known_class(proxy).as_ref().and_then(value::class_name),
    };
    factory.cast::<StoreFactory>()?.get().sent(py, class).map(Some)
}

/// Tells the proxy type how proxies of stores are pickled, by reference, and where their facts are.
pub(crate) fn register_with_proxies(py: Python<'_>) {
    proxy::register_facts(&py.get_type::<StoreFactory>(), |factory| {
        let state = factory.cast::<StoreFactory>().ok()?.get().state.get()?;
        Some(&state.reference.facts)
    });
    proxy::register_reducer(&py.get_type::<StoreFactory>(), |py, factory, proxy| {
        let Some(reference) = sent_by(factory, proxy)? else {
            return Ok(None); // a class of the user's: it travels as it is
        };
        let bytes = reference.encode().py(py)?;
        let rebuild = RESTORE.import(py, "proxystore_rs._core", "_restore")?;
        let reduced = (rebuild, (PyBytes::new(py, &bytes),)).into_pyobject(py)?;
        Ok(Some(reduced.into_any().unbind()))
    });
}

static RESTORE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static POLLING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The class of the factories of futures.
fn polling(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    POLLING.import(py, "proxystore_rs.store.factory", "PollingStoreFactory")
}

/// The proxy of a reference. One that cannot be read gives a proxy that says why when it is used: an
/// error while unpickling would end the process of a pool that was sent it, and with it the pool.
#[pyfunction(name = "_restore")]
pub(crate) fn restore_proxy<'py>(py: Python<'py>, reference: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let state = match State::decode(py, reference) {
        Ok(state) => state,
        Err(error) if error.is_instance_of::<PyException>(py) => {
            let module = py.import(intern!(py, "proxystore_rs.store.factory"))?;
            let class = module.getattr(intern!(py, "UnreadableReference"))?;
            return proxy::new(py, class.call1((PyBytes::new(py, reference),))?, None, None);
        }
        Err(error) => return Err(error),
    };
    proxy_of(py, state)
}

/// The proxy of a reference that was read; nothing is opened or fetched.
pub(super) fn received(py: Python<'_>, reference: Reference) -> PyResult<Bound<'_, PyAny>> {
    proxy_of(py, State::received(py, reference)?)
}

fn proxy_of(py: Python<'_>, state: State) -> PyResult<Bound<'_, PyAny>> {
    let Reference { class, facts, .. } = &state.reference;
    // An array that a Rust program stored is one of NumPy's here.
    let class = class.as_deref().or(facts.dtype.is_some().then_some("numpy:ndarray"));
    let class = class.map(|class| PyString::new(py, class).into_any());
    let factory = if state.reference.wait.is_some() {
        with_class(state, polling(py)?)?
    } else {
        StoreFactory::with(py, state)?.into_any()
    };
    proxy::new(py, factory, class, None)
}

fn with_class<'py>(state: State, class: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let factory = class.call_method1(intern!(class.py(), "__new__"), (class,))?;
    let factory = factory.cast_into::<StoreFactory>()?;
    let _ = factory.get().state.set(state); // new by construction
    Ok(factory.into_any())
}

/// The factory of a reference.
#[pyfunction(name = "_factory")]
pub(crate) fn restore_factory<'py>(
    py: Python<'py>,
    reference: &[u8],
    class: &Bound<'py, PyType>,
) -> PyResult<Bound<'py, PyAny>> {
    with_class(State::decode(py, reference)?, class.as_any())
}
