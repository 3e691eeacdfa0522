//! The stores of this process, by name: a dict shared with `proxystore_rs.store`.

use proxystore::{Reference, StoreConfig};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use super::StoreBase;
use crate::codec::Codec;
use crate::error::{IntoPython, raise};
use crate::foreign;
use crate::trust;
use crate::value;

static STORES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();

/// The dict of registered stores. Protected by the interpreter, so that a fork finds it whole.
pub(crate) fn stores(py: Python<'_>) -> &Bound<'_, PyDict> {
    STORES.get_or_init(py, || PyDict::new(py).unbind()).bind(py)
}

/// A configuration as Python's `StoreConfig` takes it.
pub(super) fn config_to_python<'py>(
    py: Python<'py>,
    config: &StoreConfig,
    extension: Option<&[u8]>,
) -> PyResult<Bound<'py, PyTuple>> {
    trust::admit(py, config)?;
    let connector = &config.connector;
    let options = foreign::options_of(py, connector)?;
    let settings = value::dict(py, &config.settings)?;
    let extension = extension.map(|extension| PyBytes::new(py, extension));
    (&config.name, &connector.url, options, settings, extension).into_pyobject(py)
}

/// Whether the store of a reference takes nothing but data: this process does, or the store at hand,
/// or the one registered under its name, or the one that would be opened.
pub(super) fn takes_data_only(
    py: Python<'_>,
    store: Option<&Py<StoreBase>>,
    reference: &Reference,
) -> PyResult<bool> {
    let mut codec = Codec::of_process(py)?.max(Codec::among(&reference.store.settings)?);
    if let Some(store) = store {
        codec = codec.max(store.get().state()?.codec);
    }
    if let Some(store) = stores(py).get_item(&reference.store.name)?
        && let Ok(store) = store.cast::<StoreBase>()
    {
        codec = codec.max(store.get().state()?.codec);
    }
    Ok(codec == Codec::Data)
}

/// The registered store of a configuration, opened and registered if need be.
pub(super) fn get_or_open<'py>(
    py: Python<'py>,
    config: &StoreConfig,
    extension: Option<&[u8]>,
) -> PyResult<Bound<'py, StoreBase>> {
    if let Some(store) = stores(py).get_item(&config.name)? {
        let store = store.cast_into::<StoreBase>()?;
        let known = store.get().state()?.store.config();
        known.check_same(config).py(py)?;
        if !foreign::same_connectors(&known.connector, &config.connector) {
            return Err(raise(
                py,
                "StoreConfigError",
                &format!(
                    "failed to find the store of a proxy: a store of that name has another \
                     configuration [store={}]; give different stores different names",
                    config.name
                ),
            ));
        }
        return Ok(store);
    }
    let parts = config_to_python(py, config, extension)?;
    let module = py.import(intern!(py, "proxystore_rs.store.registry"))?;
    Ok(module.getattr(intern!(py, "_open"))?.call1(parts)?.cast_into::<StoreBase>()?)
}
