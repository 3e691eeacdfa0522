//! Proxies as one line of text.

use proxystore::Reference;
use pyo3::prelude::*;

use super::factory;
use crate::error::{IntoPython, raise};
use crate::proxy;

/// `Proxy.to_text(proxy, secret=False)`; never resolves.
#[pyfunction(name = "_to_text")]
#[pyo3(signature = (proxy, secret = false))]
pub(crate) fn text_from_proxy(proxy: &Bound<'_, PyAny>, secret: bool) -> PyResult<String> {
    let py = proxy.py();
    let factory = proxy::factory_of(proxy);
    let reference = match &factory {
        Some(factory) => factory::sent_by(factory, proxy)?,
        None => None,
    };
    let Some(reference) = reference else {
        let kind = match factory {
            Some(factory) => factory.get_type().qualname()?.to_string(),
            None => "none".to_owned(),
        };
        let message = format!(
            "failed to write a proxy as text: only the factories of stores have a text \
             [factory={kind}]; make the proxy by store.proxy(obj), or pickle it"
        );
        return Err(raise(py, "UnsupportedOperationError", &message));
    };
    if secret { reference.to_secret_text() } else { reference.to_text() }.py(py)
}

/// `Proxy.from_text(text)`; opens and fetches nothing.
#[pyfunction(name = "_from_text")]
pub(crate) fn proxy_from_text<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    factory::received(py, Reference::from_text(text).py(py)?)
}
