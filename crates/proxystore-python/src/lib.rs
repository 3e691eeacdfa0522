//! The native module `proxystore_rs._core`.
//!
//! The only crate that knows Python: it turns Python objects into payloads and back, and holds the
//! transparent proxy, a type built on raw type slots.
use pyo3::prelude::*;

pub mod proxy;

/// The native module; the typed face is the package `proxystore_rs`.
#[pymodule(gil_used = true)]
mod _core {
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::proxy::register(module)
    }
}
