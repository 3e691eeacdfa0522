//! Several channels as one: parts that are native, written in Python, or dormant.

use std::sync::Arc;

use proxystore::connectors::multi::{
    MultiConnector, Part, PartConfig, Policy, config_of, parts_of,
};
use proxystore::{Connector, ConnectorConfig};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::connector::NativeConnector;
use crate::error::IntoPython;
use crate::foreign::{self, ForeignConnector};
use crate::keys::Keys;
use crate::value;

/// Name, connector or channel, policy, and why nothing is put there from here, if so.
pub(crate) type GivenPart<'py> =
    (String, Option<Bound<'py, PyAny>>, Option<Channel<'py>>, Bound<'py, PyDict>, Option<String>);

/// URL and options.
type Channel<'py> = (String, Bound<'py, PyDict>);

/// Name, URL and options of the channel, and policy of a part.
type PartFace<'py> = (String, String, Bound<'py, PyDict>, Bound<'py, PyDict>);

/// A connector of these parts, and what its keys look like.
pub(crate) fn open<'py>(
    class: Py<PyAny>,
    given: Vec<GivenPart<'py>>,
    py: Python<'py>,
) -> PyResult<(Arc<dyn Connector>, Keys)> {
    let mut parts = Vec::new();
    let mut keys = Vec::new();
    for (name, connector, channel, policy, off) in given {
        let (connector, channel, own_keys) = match (connector, channel) {
            (Some(connector), _) => {
                let (inner, keys) = inner_of(&connector)?;
                let channel = inner.config();
                (Some(inner), channel, keys)
            }
            (None, Some((url, options))) => {
                let channel = ConnectorConfig { url, options: foreign::settings_of(&options)? };
                let keys = Keys::of_channel(py, &channel)?.into();
                (None, channel, keys)
            }
            (None, None) => return Err(PyTypeError::new_err("a part needs a connector")),
        };
        keys.push((name.clone(), own_keys));
        let config = PartConfig { name, channel, policy: policy_of(py, &policy)? };
        parts.push(Part { config, connector, off });
    }
    let connector = MultiConnector::of(parts).py(py)?;
    Ok((Arc::new(connector), Keys::Multi { class, parts: keys }))
}

/// The library's connector behind one of Python, and what its keys look like.
pub(crate) fn inner_of(connector: &Bound<'_, PyAny>) -> PyResult<(Arc<dyn Connector>, Arc<Keys>)> {
    if let Ok(native) = connector.cast::<NativeConnector>() {
        return Ok((Arc::clone(native.get().inner()?), Arc::clone(native.get().keys()?)));
    }
    Ok((Arc::new(ForeignConnector::new(connector)?), Arc::new(Keys::Foreign)))
}

fn policy_of(py: Python<'_>, policy: &Bound<'_, PyDict>) -> PyResult<Policy> {
    let settings = value::settings(policy).ok_or_else(|| {
        PyTypeError::new_err(format!("a policy holds numbers, texts and lists, not {policy}"))
    })?;
    Policy::from_settings(&settings).py(py)
}

/// URL and options of the channel that these parts make.
#[pyfunction]
pub(crate) fn multi_config<'py>(
    py: Python<'py>,
    parts: Vec<PartFace<'py>>,
) -> PyResult<Channel<'py>> {
    let part = |(name, url, options, policy): PartFace<'py>| {
        let channel = ConnectorConfig { url, options: foreign::settings_of(&options)? };
        Ok(PartConfig { name, channel, policy: policy_of(py, &policy)? })
    };
    let parts: Vec<_> = parts.into_iter().map(part).collect::<PyResult<_>>()?;
    let config = config_of(&parts);
    let options = value::dict(py, &config.options)?;
    Ok((config.url, options))
}

/// The parts of a channel; nothing is opened.
#[pyfunction]
pub(crate) fn multi_parts<'py>(
    py: Python<'py>,
    url: String,
    options: &Bound<'py, PyDict>,
) -> PyResult<Vec<PartFace<'py>>> {
    let parts =
        parts_of(&ConnectorConfig { url, options: foreign::settings_of(options)? }).py(py)?;
    let part = |PartConfig { name, channel, policy }: PartConfig| {
        let options = foreign::options_of(py, &channel)?.cast_into()?;
        Ok((name, channel.url, options, value::dict(py, &policy.to_settings())?))
    };
    parts.into_iter().map(part).collect()
}
