//! How factories and their proxies travel: as references.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use proxystore::{Reference, trust};
use pyo3::exceptions::PyException;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyString, PyType};

use super::{State, StoreFactory};
use crate::error::IntoPython;
use crate::store::streaming::Claimed;
use crate::store::{extension, registry};
use crate::{codec, proxy, value};

impl State {
    /// That of a reference that arrived.
    fn received(py: Python<'_>, reference: Reference) -> PyResult<Self> {
        // Now, while the reference is as it was signed, and before anything in it is unpickled.
        let vouched = trust::producers::are_required();
        if vouched {
            trust::producers::check(&reference).py(py)?;
        }
        let data_only = || registry::takes_data_only(py, None, &reference);
        codec::check_reference(py, &reference, false, data_only)?;
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
            claim: None,
        })
    }

    fn decode(py: Python<'_>, bytes: &[u8]) -> PyResult<Self> {
        Self::received(py, Reference::decode(bytes).py(py)?)
    }
}

impl StoreFactory {
    /// The reference as it travels. `class` names the target's class, if known.
    pub(in crate::store) fn sent(
        &self,
        py: Python<'_>,
        class: Option<String>,
    ) -> PyResult<Reference> {
        let state = self.state()?;
        state.check_pickles(py)?;
        let mut reference = state.reference.clone();
        reference.evict = state.evict.load(Ordering::Relaxed);
        if reference.signature.is_none() {
            // What came without goes on without: that it is an array, its facts say.
            let implied = state.arrived && reference.facts.dtype.is_some();
            // The one noted is that of what arrives, which a codec may make another.
            reference.class = reference.class.or(class.filter(|_| !implied));
        }
        if let Some(claimed) = &state.claim {
            claimed.claim().sent();
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

/// The reference by which a proxy of a factory travels; `None` if that is of a class of the user's.
pub(in crate::store) fn sent_by(
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
        // The first use of an evicting proxy takes the object away, and asking for facts is a use.
        (!state.evict.load(Ordering::Relaxed)).then_some(&state.reference.facts)
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
pub(in crate::store) fn received(
    py: Python<'_>,
    reference: Reference,
) -> PyResult<Bound<'_, PyAny>> {
    proxy_of(py, State::received(py, reference)?)
}

/// The proxy of a reference that came by a stream.
pub(in crate::store) fn arrived(
    py: Python<'_>,
    reference: Reference,
    claim: Option<Arc<Claimed>>,
) -> PyResult<Bound<'_, PyAny>> {
    proxy_of(py, State { claim, ..State::received(py, reference)? })
}

/// The factory of a reference that came by a stream.
pub(in crate::store) fn factory_of(
    py: Python<'_>,
    reference: Reference,
) -> PyResult<Bound<'_, StoreFactory>> {
    StoreFactory::with(py, State::received(py, reference)?)
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

pub(super) fn with_class<'py>(
    state: State,
    class: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
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
