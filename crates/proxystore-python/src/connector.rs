//! Native connectors as Python classes.
//!
//! `NativeConnector` is the base of the classes in `proxystore_rs.connectors`; it has all of the
//! connector protocol. Its subclasses only say how their arguments become a URL and options, and
//! which named tuple is the face of their keys.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use proxystore::connectors::{self, GetOptions, PutOptions, shm};
use proxystore::payload::Parts;
use proxystore::{Connector, ConnectorConfig, Key};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::buffer::{PyStoredBytes, View};
use crate::error::IntoPython;
use crate::keys::Keys;
use crate::multi::{self, GivenPart};
use crate::value;

/// A connector of the library. Not to be used directly: its subclasses name a channel.
#[pyclass(
    name = "NativeConnector",
    module = "proxystore_rs._core",
    subclass,
    dict,
    weakref,
    frozen
)]
pub(crate) struct NativeConnector {
    opened: OnceLock<(Arc<dyn Connector>, Arc<Keys>)>,
}

impl NativeConnector {
    fn opened(&self) -> PyResult<&(Arc<dyn Connector>, Arc<Keys>)> {
        self.opened.get().ok_or_else(|| {
            PyTypeError::new_err("the connector is not open: its __init__ must call super()'s")
        })
    }

    /// The connector itself.
    pub(crate) fn inner(&self) -> PyResult<&Arc<dyn Connector>> {
        Ok(&self.opened()?.0)
    }

    /// What its keys look like in Python.
    pub(crate) fn keys(&self) -> PyResult<&Arc<Keys>> {
        Ok(&self.opened()?.1)
    }
}

/// The class of a connector's keys.
fn key_class(connector: &Bound<'_, NativeConnector>) -> PyResult<Py<PyAny>> {
    Ok(connector.getattr(intern!(connector.py(), "_key_type"))?.unbind())
}

#[pymethods]
impl NativeConnector {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self { opened: OnceLock::new() }
    }

    /// Opens the channel of a URL; called once by the subclass's constructor.
    fn _open(slf: &Bound<'_, Self>, url: String, options: &Bound<'_, PyDict>) -> PyResult<()> {
        let py = slf.py();
        let options = value::settings(options)
            .ok_or_else(|| PyTypeError::new_err("options must be plain values"))?;
        let config = ConnectorConfig { url, options };
        let connector = py.detach(|| connectors::open(&config)).py(py)?;
        let keys = Keys::native(config.kind(), key_class(slf)?);
        let _ = slf.get().opened.set((connector, Arc::new(keys)));
        Ok(())
    }

    /// Makes one of several connectors; in place of `_open`.
    fn _open_parts<'py>(slf: &Bound<'py, Self>, parts: Vec<GivenPart<'py>>) -> PyResult<()> {
        let (connector, keys) = multi::open(key_class(slf)?, parts, slf.py())?;
        let _ = slf.get().opened.set((connector, Arc::new(keys)));
        Ok(())
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(slf: &Bound<'_, Self>, _exception: &Bound<'_, PyTuple>) -> PyResult<()> {
        slf.call_method0(intern!(slf.py(), "close")).map(drop)
    }

    /// The URL that identifies the channel.
    #[getter]
    fn url(&self) -> PyResult<String> {
        Ok(self.inner()?.config().url)
    }

    /// The options of an equal connector, as the library has them.
    #[getter]
    fn _options<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        value::dict(py, &self.inner()?.config().options)
    }

    /// Stores bytes under a new key, which is returned.
    ///
    /// `ttl` is in seconds; the tags are for connectors that choose among channels.
    #[pyo3(signature = (obj, **options))]
    fn put<'py>(
        slf: &Bound<'py, Self>,
        obj: &Bound<'py, PyAny>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        store(slf, obj, put_options(slf.as_any(), options)?)
    }

    /// `put` for many objects, keys in the same order.
    #[pyo3(signature = (objs, **options))]
    fn put_batch<'py>(
        slf: &Bound<'py, Self>,
        objs: &Bound<'py, PyAny>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let py = slf.py();
        let options = put_options(slf.as_any(), options)?;
        let views: Vec<View> =
            objs.try_iter()?.map(|object| View::of(&object?)).collect::<PyResult<_>>()?;
        let parts: Vec<Parts<'_>> = views.iter().map(|view| Parts::from(view.bytes())).collect();
        let (connector, faces) = slf.get().opened()?;
        let keys = py.detach(|| connector.put_batch(&parts, &options)).py(py)?;
        let list = PyList::empty(py);
        for key in keys {
            list.append(faces.face_of(py, &key)?)?;
        }
        Ok(list)
    }

    /// Makes a key now, to be filled by `set` later.
    #[pyo3(signature = (obj = None))]
    fn new_key<'py>(
        &self,
        py: Python<'py>,
        obj: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let _ = obj; // a hint that no channel here needs
        let (connector, keys) = self.opened()?;
        let key = py.detach(|| connector.new_key()).py(py)?;
        keys.face_of(py, &key)
    }

    /// Stores bytes under a key made by `new_key`.
    fn set(slf: &Bound<'_, Self>, key: &Bound<'_, PyAny>, obj: &Bound<'_, PyAny>) -> PyResult<()> {
        let options =
            PutOptions { key: Some(slf.get().keys()?.key_of(key)?), ..PutOptions::default() };
        store(slf, obj, options).map(drop)
    }

    /// The bytes under a key, or `None`: an object with the buffer protocol.
    fn get<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let (key, connector) = (self.keys()?.key_of(key)?, self.inner()?);
        let bytes = py.detach(|| connector.get(&key, &GetOptions::default())).py(py)?;
        bytes.map(|bytes| memory(py, bytes)).transpose()
    }

    /// `get` for many keys, in the same order.
    fn get_batch<'py>(
        &self,
        py: Python<'py>,
        keys: &Bound<'py, PyAny>,
    ) -> PyResult<Vec<Option<Bound<'py, PyAny>>>> {
        let (connector, faces) = self.opened()?;
        let keys = keys.try_iter()?.map(|key| faces.key_of(&key?));
        let keys: Vec<Key> = keys.collect::<PyResult<_>>()?;
        let found = py.detach(|| connector.get_batch(&keys, &GetOptions::default())).py(py)?;
        found.into_iter().map(|bytes| bytes.map(|bytes| memory(py, bytes)).transpose()).collect()
    }

    /// Whether there is an object under the key.
    fn exists(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let (key, connector) = (self.keys()?.key_of(key)?, self.inner()?);
        py.detach(|| connector.exists(&key)).py(py)
    }

    /// Removes the object under a key; absent is fine.
    fn evict(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<()> {
        let (key, connector) = (self.keys()?.key_of(key)?, self.inner()?);
        py.detach(|| connector.evict(&key)).py(py)
    }

    /// Lets objects vanish after `ttl` seconds from now, or only when evicted (`None`).
    #[pyo3(signature = (keys, ttl))]
    fn expire(&self, py: Python<'_>, keys: &Bound<'_, PyAny>, ttl: Option<f64>) -> PyResult<()> {
        let (connector, faces) = self.opened()?;
        let keys = keys.try_iter()?.map(|key| faces.key_of(&key?));
        let keys: Vec<Key> = keys.collect::<PyResult<_>>()?;
        let ttl = ttl.map(seconds).transpose()?;
        py.detach(|| connector.expire(&keys, ttl)).py(py)
    }

    /// Waits until there is an object under the key; false when `timeout` seconds pass first.
    #[pyo3(signature = (key, timeout = None))]
    fn wait(&self, py: Python<'_>, key: &Bound<'_, PyAny>, timeout: Option<f64>) -> PyResult<bool> {
        let (key, connector) = (self.keys()?.key_of(key)?, self.inner()?);
        wait_interruptibly(py, timeout, |deadline| connector.wait(&key, Some(deadline)))
    }

    /// Releases the connector; with `clear`, removes what was stored through it too.
    fn _close(&self, py: Python<'_>, clear: bool) -> PyResult<()> {
        let connector = self.inner()?;
        py.detach(|| connector.close(clear)).py(py)
    }
}

/// Seconds as a duration.
pub(crate) fn seconds(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        PyValueError::new_err(format!(
            "{seconds:?} is no length of time in seconds: give a number from 0 to 1e19, or None \
             where there shall be no end"
        ))
    })
}

/// The keyword arguments of a native connector's `put`.
pub(crate) fn put_options(
    connector: &Bound<'_, PyAny>,
    given: Option<&Bound<'_, PyDict>>,
) -> PyResult<PutOptions> {
    let mut options = PutOptions::default();
    let Some(given) = given else {
        return Ok(options);
    };
    for (name, value) in given {
        let texts = || value.try_iter()?.map(|tag| tag?.extract()).collect::<PyResult<_>>();
        match name.extract::<String>()?.as_str() {
            "ttl" => options.ttl = value.extract::<Option<f64>>()?.map(seconds).transpose()?,
            "subset_tags" => options.tags.subset = texts()?,
            "superset_tags" => options.tags.superset = texts()?,
            other => {
                return Err(PyTypeError::new_err(format!(
                    "{} takes no option {other:?} with an object; it takes ttl, subset_tags and \
                     superset_tags",
                    connector.get_type().name()?
                )));
            }
        }
    }
    Ok(options)
}

/// Waits in steps, short at first, so that Ctrl-C is noticed.
pub(crate) fn wait_interruptibly(
    py: Python<'_>,
    timeout: Option<f64>,
    wait: impl Fn(Instant) -> proxystore::Result<bool> + Sync,
) -> PyResult<bool> {
    const LONGEST: Duration = Duration::from_millis(400);
    let mut step = Duration::from_millis(50);
    let timeout = timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok());
    let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let pause = Instant::now() + step;
        let last = end.is_some_and(|end| end <= pause);
        let deadline = if last { end.unwrap_or(pause) } else { pause };
        if py.detach(|| wait(deadline)).py(py)? {
            return Ok(true);
        }
        if last {
            return Ok(false);
        }
        py.check_signals()?;
        step = LONGEST.min(step * 2);
    }
}

fn store<'py>(
    connector: &Bound<'py, NativeConnector>,
    object: &Bound<'py, PyAny>,
    options: PutOptions,
) -> PyResult<Bound<'py, PyAny>> {
    let py = connector.py();
    let view = View::of(object)?;
    let (inner, keys) = connector.get().opened()?;
    let key = py.detach(|| inner.put(&Parts::from(view.bytes()), &options)).py(py)?;
    keys.face_of(py, &key)
}

fn memory(py: Python<'_>, bytes: proxystore::Buffer) -> PyResult<Bound<'_, PyAny>> {
    Ok(Bound::new(py, PyStoredBytes::new(bytes, true))?.into_any())
}

type Report = (Vec<String>, Vec<String>, Vec<String>, u64, u64);

/// Removes the shared-memory sessions of this user that no process holds any more.
#[pyfunction]
#[pyo3(signature = (root = None))]
pub(crate) fn sweep_shared_memory(py: Python<'_>, root: Option<PathBuf>) -> PyResult<Report> {
    let report = py.detach(|| shm::sweep(root.as_deref())).py(py)?;
    Ok((report.removed, report.held, report.persistent, report.objects, report.bytes))
}
