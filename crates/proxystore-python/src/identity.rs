//! By what key pair this process signs: the native half of `proxystore_rs.trust`.

use std::path::PathBuf;

use proxystore::seal::{self, Identity};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::IntoPython;

/// Seed and public key of a new identity, or of the one in a file.
#[pyfunction(name = "_make_identity")]
#[pyo3(signature = (path = None))]
pub(crate) fn make_identity(
    py: Python<'_>,
    path: Option<PathBuf>,
) -> PyResult<(Bound<'_, PyBytes>, Bound<'_, PyBytes>)> {
    let identity = match path {
        Some(path) => Identity::read(&path),
        None => Identity::generate(),
    };
    let identity = identity.py(py)?;
    Ok((PyBytes::new(py, identity.seed()), PyBytes::new(py, &identity.public_key())))
}

/// Chooses the identity of this process.
#[pyfunction(name = "_set_identity")]
pub(crate) fn set_identity(py: Python<'_>, seed: [u8; 32]) -> PyResult<()> {
    Identity::from_seed(seed).and_then(seal::set_identity).py(py)
}

/// The public key of this process.
#[pyfunction(name = "_public_key")]
pub(crate) fn public_key(py: Python<'_>) -> PyResult<Bound<'_, PyBytes>> {
    Ok(PyBytes::new(py, &seal::identity().py(py)?.public_key()))
}
