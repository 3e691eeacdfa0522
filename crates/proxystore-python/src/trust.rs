//! What is believed of references: asked of `proxystore_rs.trust`, where the program says so.

use proxystore::connectors::multi;
use proxystore::trust::producers::{PublicKey, parse_key, require_producers};
use proxystore::{ConnectorConfig, StoreConfig, connectors};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyType};

use crate::error::IntoPython;
use crate::foreign;

static ADMIT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static KNOW: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static KEY_CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

const MODULE: &str = "proxystore_rs.trust";

/// Asks for permission to import the connectors written in Python that a configuration names.
pub(crate) fn admit(py: Python<'_>, config: &StoreConfig) -> PyResult<()> {
    let store = connectors::without_credentials(&config.name);
    admit_channel(py, &config.connector, &store)
}

fn admit_channel(py: Python<'_>, channel: &ConnectorConfig, store: &str) -> PyResult<()> {
    match channel.kind() {
        foreign::KIND => {
            let class = channel.url.split_once(':').map_or("", |(_, class)| class);
            ADMIT.import(py, MODULE, "_admit")?.call1((class, store)).map(drop)
        }
        multi::KIND => multi::parts_of(channel)
            .py(py)?
            .iter()
            .try_for_each(|part| admit_channel(py, &part.channel, store)),
        _ => Ok(()),
    }
}

/// Remembers the class of a connector that this process made.
pub(crate) fn know(class: &Bound<'_, PyType>) -> PyResult<()> {
    KNOW.import(class.py(), MODULE, "_know")?.call1((class,)).map(drop)
}

/// The class of a key, by its module and its name there.
pub(crate) fn key_class<'py>(
    py: Python<'py>,
    module: &str,
    name: &str,
) -> PyResult<Bound<'py, PyAny>> {
    KEY_CLASS.import(py, MODULE, "_key_class")?.call1((module, name))
}

/// What a pickle in a reference holds.
pub(crate) fn loads<'py>(py: Python<'py>, pickled: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    LOADS.import(py, MODULE, "_loads")?.call1((PyBytes::new(py, pickled),))
}

/// Resolves only references of these producers from now on, or of any.
#[pyfunction(name = "_require_producers")]
pub(crate) fn require(keys: Option<Vec<String>>) -> PyResult<()> {
    let parse = |text: &String| {
        parse_key(text).ok_or_else(|| {
            PyValueError::new_err(format!(
                "a public key is 64 hexadecimal digits, or 32 bytes, not {text:?}"
            ))
        })
    };
    let keys = keys.map(|keys| keys.iter().map(parse).collect::<PyResult<Vec<PublicKey>>>());
    require_producers(keys.transpose()?);
    Ok(())
}
