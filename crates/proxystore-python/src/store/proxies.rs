//! Making proxies of stored objects.

use proxystore::{Facts, Reference};
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyString};

use super::describe::facts_of;
use super::{State, StoreBase, StoreFactory, overrides};
use crate::error::raise;
use crate::proxy;

/// What the keyword arguments of the proxy methods say.
pub(super) struct Wish<'a, 'py> {
    evict: bool,
    deserializer: Option<&'a Bound<'py, PyAny>>,
    populate_target: bool,
}

impl<'a, 'py> Wish<'a, 'py> {
    pub(super) fn new(
        state: &State,
        evict: bool,
        lifetime: Option<&Bound<'py, PyAny>>,
        deserializer: Option<&'a Bound<'py, PyAny>>,
        populate_target: Option<bool>,
    ) -> PyResult<Self> {
        if evict && lifetime.is_some() {
            return Err(PyValueError::new_err(
                "evict and lifetime are mutually exclusive: the object would be freed twice",
            ));
        }
        let populate_target = populate_target.unwrap_or(state.populate_target);
        Ok(Self { evict, deserializer, populate_target })
    }

    /// What is known of an object that is about to be stored: nothing if it may arrive as another.
    pub(super) fn facts(
        &self,
        store: &Bound<'py, StoreBase>,
        object: &Bound<'py, PyAny>,
        serializer: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Facts> {
        let (py, state) = (store.py(), store.get().state()?);
        let converted = [serializer, self.deserializer].iter().any(Option::is_some)
            || state.serializer.is_some()
            || state.deserializer.is_some()
            || overrides(store, intern!(py, "get"))?
            || overrides(store, intern!(py, "put"))?;
        // Keys of connectors written in Python name no generation, and their objects may change.
        let changes =
            state.keys.has_foreign() && state.store.connector().capabilities().deferred_keys;
        Ok(if converted || changes { Facts::default() } else { facts_of(object) })
    }
}

pub(super) fn is_nonproxiable(object: &Bound<'_, PyAny>) -> bool {
    object.is_none() || object.is_exact_instance_of::<PyBool>()
}

pub(super) fn nonproxiable(object: &Bound<'_, PyAny>) -> PyErr {
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

/// A proxy of what a reference names; it holds `object` already if that is wished.
pub(super) fn make<'py>(
    store: &Bound<'py, StoreBase>,
    reference: Reference,
    object: Option<&Bound<'py, PyAny>>,
    wish: &Wish<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = store.py();
    let elsewhere = reference.class.as_ref().map(|class| PyString::new(py, class).into_any());
    let factory = StoreFactory::local(store, reference, wish.evict, wish.deserializer)?;
    let target = object.filter(|_| wish.populate_target).cloned();
    // So that a scheduler which asks what this is does not make it resolve.
    let plain = |object: &&Bound<'_, _>| wish.deserializer.is_none() && !proxy::is_proxy(object);
    let class = object.filter(plain);
    let class = class.map(|object| elsewhere.unwrap_or_else(|| object.get_type().into_any()));
    proxy::new(py, factory.into_any(), class, target)
}
