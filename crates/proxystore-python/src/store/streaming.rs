//! What streams need of stores: objects on their way into one, and proxies of those that came.

use std::sync::Arc;

use proxystore::patterns::stream::Claim;
use proxystore::payload::Framed;
use proxystore::store::Operation;
use proxystore::{Error, ErrorKind, Facts, Reference, Store};
use pyo3::prelude::*;

use super::factory::{self, StoreFactory};
use super::proxies::Wish;
use super::state::PutWish;
use super::{StoreBase, extension, registry};
use crate::codec::Codec;
use crate::error::{IntoPython, from_python};
use crate::pickle::{self, Encoded, Encoding};
use crate::value;

/// The stricter of the codecs of the store, if there is one, and of this process.
pub(crate) fn codec_of(py: Python<'_>, store: Option<&Bound<'_, StoreBase>>) -> PyResult<Codec> {
    match store {
        Some(store) => store.get().state()?.codec(py),
        None => Codec::of_process(py),
    }
}

/// The same for the store of a reference that arrived.
pub(crate) fn codec_of_reference(py: Python<'_>, reference: &Reference) -> PyResult<Codec> {
    let data_only = registry::takes_data_only(py, None, reference)?;
    Ok(if data_only { Codec::Data } else { Codec::Any })
}

/// An object as a store, or none, would have it.
pub(crate) fn encode(
    store: Option<&Bound<'_, StoreBase>>,
    object: &Bound<'_, PyAny>,
) -> PyResult<Encoded> {
    let Some(store) = store else {
        let codec = Codec::of_process(object.py())?;
        return pickle::encode(object, Encoding { serializer: None, codec });
    };
    let state = store.get().state()?;
    let started = state.metrics.start();
    let encoded = state.encode(object, &PutWish::default())?;
    state.record(Operation::Encode, started, 0);
    Ok(encoded)
}

/// The library's store of a Python store.
pub(crate) fn inner_of<'a>(store: &'a Bound<'_, StoreBase>) -> PyResult<&'a Store> {
    Ok(&store.get().state()?.store)
}

/// The reference to an object that was just stored, as it is sent: with what is known of the object,
/// and signed.
pub(crate) fn finish(
    store: &Bound<'_, StoreBase>,
    reference: Reference,
    object: &Bound<'_, PyAny>,
) -> PyResult<Reference> {
    let py = store.py();
    let state = store.get().state()?;
    let facts: Facts = Wish::new(state, false, None, None, None)?.facts(store, object, None)?;
    let elsewhere = state.class_elsewhere(object, &PutWish::default())?;
    let evict = reference.evict;
    let mut reference = reference.with_facts(facts.stored_now());
    reference.class = elsewhere;
    let class = value::class_name(&object.get_type());
    StoreFactory::local(store, reference, evict, None)?.get().sent(py, class)
}

/// Evicts what was stored for events that will not be published.
pub(crate) fn take_back(py: Python<'_>, store: &Store, references: &[Reference]) {
    py.detach(|| {
        for reference in references.iter().filter(|reference| reference.inline.is_none()) {
            let _ = store.evict(&reference.key); // the first error is the one to report
        }
    });
}

/// The size of an object as it is stored.
pub(crate) fn size_of(
    store: Option<&Bound<'_, StoreBase>>,
    object: &Bound<'_, PyAny>,
) -> PyResult<usize> {
    let py = object.py();
    let encoded = encode(store, object)?;
    let framed: Framed<'_> = encoded.payload(py)?.frame().py(py)?;
    Ok(framed.len())
}

/// The proxy of an object that came by a stream.
pub(crate) fn proxy_of_arrival<'py>(
    py: Python<'py>,
    reference: Reference,
    claim: Option<&Arc<Claim>>,
) -> PyResult<Bound<'py, PyAny>> {
    let claimed = claim.map(|claim| Arc::new(Claimed(Arc::clone(claim))));
    factory::arrived(py, reference, claimed)
}

/// The factory of a reference: what it names, and how it is freed.
pub(crate) fn factory_of(
    py: Python<'_>,
    reference: Reference,
) -> PyResult<Bound<'_, StoreFactory>> {
    factory::factory_of(py, reference)
}

/// The reference of a factory as it is sent.
pub(crate) fn reference_of(factory: &Bound<'_, StoreFactory>) -> PyResult<Reference> {
    factory.get().sent(factory.py(), None)
}

/// A claim, held by the factories of one proxy.
pub(super) struct Claimed(Arc<Claim>);

impl Claimed {
    pub(super) fn claim(&self) -> &Arc<Claim> {
        &self.0
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        // It may free the object, which takes a while; and a stopping interpreter is not asked.
        let dropped = Python::try_attach(|py| py.detach(|| self.0.dropped()));
        if dropped.is_none() {
            self.0.dropped();
        }
    }
}

/// Lets the library free objects through the stores that Python has opened, and opens stores in
/// Python: they know of serializers, and of connectors written in Python.
pub(crate) fn open_stores_in_python() {
    proxystore::store::registry::set_opener(|reference| {
        let opened = Python::try_attach(|py| open(py, reference));
        opened.unwrap_or_else(|| {
            Err(Error::new(ErrorKind::Closed, "open a store", "the interpreter is stopping"))
        })
    });
}

fn open(py: Python<'_>, reference: &Reference) -> proxystore::Result<Store> {
    let open = || {
        let settings = match &reference.extension {
            Some(settings) => extension::without(py, settings)?.0,
            None => None,
        };
        let store = registry::get_or_open(py, &reference.store, settings.as_deref())?;
        Ok(store.get().state()?.store.clone())
    };
    open().map_err(|raised: PyErr| from_python("open a store", raised))
}
