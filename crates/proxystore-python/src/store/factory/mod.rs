//! The factory that fetches a target from a store.

mod fetch;
mod travel;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use proxystore::reference::Wait;
use proxystore::{Facts, Reference, StoreConfig, trust};
use pyo3::exceptions::PyTypeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple, PyType};

use super::pending::Pending;
use super::streaming::Claimed;
use super::{StoreBase, future, registry};
use crate::connector::seconds;
use crate::error::IntoPython;
use crate::keys::Keys;
use crate::{codec, foreign, value};

pub(super) use fetch::{get_through, missing};
use travel::with_class;
pub(super) use travel::{arrived, factory_of, received, sent_by};
pub(crate) use travel::{register_with_proxies, restore_factory, restore_proxy};

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
    /// Of an object that came by a stream: who frees it, instead of whoever resolves first.
    claim: Option<Arc<Claimed>>,
}

impl State {
    /// Refuses pickles in the reference, where only data is taken.
    fn check_pickles(&self, py: Python<'_>) -> PyResult<()> {
        let data_only = || registry::takes_data_only(py, self.store.as_ref(), &self.reference);
        codec::check_reference(py, &self.reference, self.deserializer.is_some(), data_only)
    }

    /// The same for a reference that arrived.
    fn check_arrived(&self, py: Python<'_>) -> PyResult<()> {
        if self.arrived { self.check_pickles(py) } else { Ok(()) }
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
            claim: self.claim.clone(),
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
            claim: None,
        };
        Self::with(py, state)
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
            claim: None,
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
        let state = self.state()?;
        state.evict.store(evict, Ordering::Relaxed);
        if let (false, Some(claimed)) = (evict, &state.claim) {
            claimed.claim().sent(); // somebody else frees the object from now on
        }
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
        self.start_fetching(py)
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

/// Seconds to wait and seconds of the producer's lease.
pub(super) fn wait_of((timeout, lease): (Option<f64>, Option<f64>)) -> PyResult<Wait> {
    let timeout = timeout.map(seconds).transpose()?;
    Ok(Wait { timeout, lease: lease.map(seconds).transpose()? })
}
