//! Metrics of stores for monitoring systems.

use proxystore::store::{INSTRUMENTS, Observation, observations, to_prometheus};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::StoreBase;

fn stores_of(stores: &[Bound<'_, StoreBase>]) -> PyResult<Vec<proxystore::Store>> {
    stores.iter().map(|store| Ok(store.get().state()?.store.clone())).collect()
}

/// The text for Prometheus.
#[pyfunction(name = "_to_prometheus")]
pub(crate) fn metrics_text(stores: Vec<Bound<'_, StoreBase>>) -> PyResult<String> {
    Ok(to_prometheus(&stores_of(&stores)?))
}

type Tuple<'py> = (&'static str, &'static str, Bound<'py, PyDict>, f64);

/// Name, unit, attributes and value of each counter.
#[pyfunction(name = "_observations")]
pub(crate) fn metrics_observations<'py>(
    py: Python<'py>,
    stores: Vec<Bound<'py, StoreBase>>,
) -> PyResult<Vec<Tuple<'py>>> {
    let tuple = |Observation { instrument, store, operation, value }: Observation| {
        let attributes = PyDict::new(py);
        attributes.set_item("store", store)?;
        if let Some(operation) = operation {
            attributes.set_item("operation", operation)?;
        }
        Ok((instrument.name, instrument.unit, attributes, value))
    };
    observations(&stores_of(&stores)?).into_iter().map(tuple).collect()
}

/// Name, unit and description of everything that is observed.
#[pyfunction(name = "_instruments")]
pub(crate) fn metrics_instruments() -> Vec<(&'static str, &'static str, &'static str)> {
    INSTRUMENTS.iter().map(|known| (known.name, known.unit, known.description)).collect()
}
