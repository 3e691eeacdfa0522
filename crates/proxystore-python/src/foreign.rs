//! Connectors written in Python, as connectors of the library.
//!
//! Their keys are tuples of any kind, so a key's id is its pickle in hexadecimal. Their channel
//! is named by class and configuration.

use std::fmt;

use proxystore::connectors::{
    Access, Capabilities, Connector, ConnectorConfig, GetOptions, PutOptions, Value, checked_range,
    multi, refuse_ttl, unsupported,
};
use proxystore::payload::Parts;
use proxystore::{Buffer, Key, Result};
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use crate::buffer::View;
use crate::codec::{self, Codec};
use crate::error::from_python;
use crate::{foreign_key, trust, value};

/// Kind of the URLs of connectors written in Python.
pub(crate) const KIND: &str = "python";

/// Option that holds a pickled configuration, where it is not plain data.
pub(crate) const PICKLED: &str = "__pickled__";

/// A connector written in Python.
pub(crate) struct ForeignConnector {
    connector: Py<PyAny>,
    config: ConnectorConfig,
    cross_process: bool,
    deferred: bool,
}

impl ForeignConnector {
    pub(crate) fn new(connector: &Bound<'_, PyAny>) -> PyResult<Self> {
        let config = config_of(connector)?;
        // Unless a connector denies it, errors speak of eviction first.
        let cross_process = connector
            .getattr_opt(intern!(connector.py(), "cross_process"))?
            .is_none_or(|said| said.extract().unwrap_or(true));
        trust::know(&connector.get_type())?;
        let deferred = connector.hasattr(intern!(connector.py(), "new_key"))?;
        Ok(Self { connector: connector.clone().unbind(), config, cross_process, deferred })
    }

    /// Calls into Python; a library that outlives the interpreter gets an error.
    fn call<R>(
        &self,
        operation: &'static str,
        call: impl FnOnce(Python<'_>, &Bound<'_, PyAny>) -> PyResult<R>,
    ) -> Result<R> {
        Python::try_attach(|py| call(py, self.connector.bind(py)))
            .ok_or_else(|| proxystore::connectors::closed(operation, &self.config))?
            .map_err(|raised| from_python(operation, raised))
    }
}

impl fmt::Debug for ForeignConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ForeignConnector({})", self.config.url)
    }
}

fn pickle<'py>(py: Python<'py>, function: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import(intern!(py, "pickle"))?.getattr(function)
}

/// Class and configuration of a connector written in Python.
pub(crate) fn config_of(connector: &Bound<'_, PyAny>) -> PyResult<ConnectorConfig> {
    let py = connector.py();
    let class = connector.get_type();
    let module: String = class.getattr(intern!(py, "__module__"))?.extract()?;
    let name: String = class.getattr(intern!(py, "__qualname__"))?.extract()?;
    let config = connector.call_method0(intern!(py, "config"))?.cast_into::<PyDict>()?;
    let options = settings_of(&config)?;
    Ok(ConnectorConfig { url: format!("{KIND}:{module}.{name}"), options })
}

/// A configuration as options: themselves if they are plain values, else their pickle.
pub(crate) fn settings_of(config: &Bound<'_, PyDict>) -> PyResult<value::Settings> {
    if let Some(options) = value::settings(config) {
        return Ok(options);
    }
    let bytes = pickle(config.py(), "dumps")?.call1((config,))?.extract::<Vec<u8>>()?;
    Ok([(PICKLED.to_owned(), Value::Bytes(bytes))].into())
}

/// Whether both mean the same connectors written in Python: those have no URL of their own, so
/// their options identify them.
pub(crate) fn same_connectors(known: &ConnectorConfig, wanted: &ConnectorConfig) -> bool {
    match known.kind() {
        KIND => known == wanted,
        multi::KIND => match (multi::parts_of(known), multi::parts_of(wanted)) {
            (Ok(known), Ok(wanted)) => {
                let mut pairs = known.iter().zip(&wanted);
                pairs.all(|(known, wanted)| same_connectors(&known.channel, &wanted.channel))
            }
            _ => false,
        },
        _ => true,
    }
}

/// The configuration as the connector's class gave it.
pub(crate) fn options_of<'py>(
    py: Python<'py>,
    config: &ConnectorConfig,
) -> PyResult<Bound<'py, PyAny>> {
    match config.options.get(PICKLED) {
        Some(Value::Bytes(bytes)) if config.kind() == KIND => {
            if Codec::of_process(py)? == Codec::Data {
                return Err(codec::pickled_config(py));
            }
            trust::loads(py, bytes)
        }
        _ => Ok(value::dict(py, &config.options)?.into_any()),
    }
}

/// All parts as one `bytes`: what connectors written in Python take.
pub(crate) fn joined<'py>(py: Python<'py>, parts: &Parts<'_>) -> PyResult<Bound<'py, PyBytes>> {
    PyBytes::new_with(py, parts.len(), |target| {
        parts.copy_to(target);
        Ok(())
    })
}

/// Calls the connector's `put_batch`, with options that only it understands.
pub(crate) fn put_batch(
    connector: &Bound<'_, PyAny>,
    objects: &[Parts<'_>],
    options: Option<&Bound<'_, PyDict>>,
) -> PyResult<Vec<Key>> {
    let py = connector.py();
    let list = PyList::empty(py);
    for parts in objects {
        list.append(joined(py, parts)?)?;
    }
    let keys = connector.call_method(intern!(py, "put_batch"), (list,), options)?;
    let keys: Vec<_> = keys.try_iter()?.collect::<PyResult<_>>()?;
    if keys.len() != objects.len() {
        return Err(PyTypeError::new_err(format!(
            "put_batch() of {} must return a key for each of {} objects, not {} keys",
            connector.get_type().name()?,
            objects.len(),
            keys.len(),
        )));
    }
    keys.iter()
        .zip(objects)
        .map(|(key, parts)| foreign_key::from_python(key, parts.len()))
        .collect()
}

/// Memory of a Python object that lives as long as the buffer.
#[expect(unsafe_code, reason = "the view keeps the object's memory in place")]
fn adopt(object: &Bound<'_, PyAny>, access: Access) -> PyResult<Buffer> {
    let view = View::of(object)?;
    let bytes = view.bytes();
    if access == Access::Private {
        return Ok(Buffer::copy_of(bytes));
    }
    let Some(start) = std::ptr::NonNull::new(bytes.as_ptr().cast_mut()) else {
        return Ok(Buffer::zeroed(0));
    };
    let len = bytes.len();
    // SAFETY: the view holds the exporter, whose memory stays until the view is released.
    Ok(unsafe { Buffer::from_owner(start, len, false, std::sync::Arc::new(view)) })
}

impl Connector for ForeignConnector {
    fn put(&self, parts: &Parts<'_>, options: &PutOptions) -> Result<Key> {
        refuse_ttl(options, &self.config)?;
        self.call("put object", |py, connector| {
            let bytes = joined(py, parts)?;
            match &options.key {
                None => {
                    let key = connector.call_method1(intern!(py, "put"), (bytes,))?;
                    foreign_key::from_python(&key, parts.len())
                }
                Some(key) => {
                    let own = foreign_key::to_python(py, key)?;
                    connector.call_method1(intern!(py, "set"), (own, bytes))?;
                    Ok(key.clone())
                }
            }
        })
    }

    fn put_batch(&self, objects: &[Parts<'_>], options: &PutOptions) -> Result<Vec<Key>> {
        refuse_ttl(options, &self.config)?;
        self.call("put objects", |_, connector| put_batch(connector, objects, None))
    }

    fn get(&self, key: &Key, options: &GetOptions) -> Result<Option<Buffer>> {
        let bytes = self.call("get object", |py, connector| {
            let own = foreign_key::to_python(py, key)?;
            let bytes = connector.call_method1(intern!(py, "get"), (own,))?;
            if bytes.is_none() { Ok(None) } else { adopt(&bytes, options.access).map(Some) }
        })?;
        let Some(bytes) = bytes else { return Ok(None) };
        let range = checked_range(key, options.range.as_ref(), bytes.len() as u64)?;
        // lossless: within the buffer
        Ok(Some(bytes.slice(range.start as usize..range.end as usize)))
    }

    fn exists(&self, key: &Key) -> Result<bool> {
        self.call("look for object", |py, connector| {
            connector
                .call_method1(intern!(py, "exists"), (foreign_key::to_python(py, key)?,))?
                .is_truthy()
        })
    }

    fn evict(&self, key: &Key) -> Result<()> {
        self.call("evict object", |py, connector| {
            connector
                .call_method1(intern!(py, "evict"), (foreign_key::to_python(py, key)?,))
                .map(drop)
        })
    }

    fn new_key(&self) -> Result<Key> {
        if !self.deferred {
            return Err(unsupported("make a key", &self.config));
        }
        self.call("make a key", |py, connector| {
            foreign_key::from_python(&connector.call_method0(intern!(py, "new_key"))?, 0)
        })
    }

    fn close(&self, clear: bool) -> Result<()> {
        let _ = clear; // the bridge calls the connector's own close with the caller's arguments
        Ok(())
    }

    fn config(&self) -> ConnectorConfig {
        self.config.clone()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            event_driven_wait: false,
            range_reads: false,
            zero_copy_get: false,
            allocate: false,
            deferred_keys: self.deferred,
            ttl: false,
            cross_process: self.cross_process,
            survives_process: self.cross_process,
        }
    }
}
