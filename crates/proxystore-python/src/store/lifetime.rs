//! Stores and lifetimes: an object that is put for a lifetime ends with it, whatever happens.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::StoreBase;

/// The options of a put for a lifetime.
///
/// Where the channel knows times to live, the object has that of the lifetime from the start: if the
/// process is killed between the put and `attach`, nobody else would free it.
pub(super) fn options<'py>(
    store: &Bound<'py, StoreBase>,
    lifetime: Option<&Bound<'py, PyAny>>,
    given: Option<&Bound<'py, PyDict>>,
) -> PyResult<Option<Bound<'py, PyDict>>> {
    let py = store.py();
    let knows_ttl = || {
        let state = store.get().state()?;
        Ok::<_, PyErr>(state.store.connector().capabilities().ttl)
    };
    if let Some(lifetime) = lifetime
        && let Some(seconds_left) = lifetime.getattr_opt(intern!(py, "_seconds_left"))?
        && let left = seconds_left.call0()?
        && !left.is_none()
        && knows_ttl()?
    {
        let options = given.map_or_else(|| Ok(PyDict::new(py)), PyDictMethods::copy)?;
        options.set_item(intern!(py, "ttl"), left)?;
        return Ok(Some(options));
    }
    Ok(given.cloned())
}

/// Attaches keys to a lifetime, if there is one.
///
/// When it refuses keys that `were_put` for it, because it ended meanwhile, they are evicted: nobody
/// else knows them.
pub(super) fn attach<'py>(
    store: &Bound<'py, StoreBase>,
    lifetime: Option<&Bound<'py, PyAny>>,
    keys: &Bound<'py, PyTuple>,
    were_put: bool,
) -> PyResult<()> {
    let Some(lifetime) = lifetime else {
        return Ok(());
    };
    let py = store.py();
    let options = PyDict::new(py);
    options.set_item(intern!(py, "store"), store)?;
    let Err(error) = lifetime.call_method(intern!(py, "add_key"), keys, Some(&options)) else {
        return Ok(());
    };
    if were_put {
        for key in keys {
            // The first error is the one to report.
            let _ = store.call_method1(intern!(py, "evict"), (key,));
        }
    }
    Err(error)
}
