//! A proxy's own deserializer among the settings that only Python understands, as they travel.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::trust;

const DESERIALIZER: &str = "proxy_deserializer";

/// The pickled settings of Python with a proxy's own deserializer among them.
pub(super) fn with(
    py: Python<'_>,
    extension: Option<&[u8]>,
    deserializer: &Py<PyAny>,
) -> PyResult<Vec<u8>> {
    let pickle = py.import(intern!(py, "pickle"))?;
    let settings = match extension {
        Some(bytes) => trust::loads(py, bytes)?.cast_into()?,
        None => PyDict::new(py),
    };
    settings.set_item(DESERIALIZER, deserializer)?;
    pickle.call_method1("dumps", (settings,))?.extract()
}

pub(super) type Split = (Option<Vec<u8>>, Option<Py<PyAny>>);

/// The settings without a proxy's own deserializer, and that.
pub(super) fn without(py: Python<'_>, extension: &[u8]) -> PyResult<Split> {
    let pickle = py.import(intern!(py, "pickle"))?;
    let settings: Bound<'_, PyDict> = trust::loads(py, extension)?.cast_into()?;
    let Some(deserializer) = settings.get_item(DESERIALIZER)? else {
        return Ok((Some(extension.to_vec()), None));
    };
    settings.del_item(DESERIALIZER)?;
    let rest = if settings.is_empty() {
        None
    } else {
        Some(pickle.call_method1("dumps", (settings,))?.extract()?)
    };
    Ok((rest, Some(deserializer.unbind())))
}
