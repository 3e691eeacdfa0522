//! The native module `proxystore_rs._core`.
//!
//! The only crate that knows Python: it turns Python objects into payloads and back, and holds the
//! transparent proxy, a type built on raw type slots.
#![allow(
    clippy::needless_pass_by_value,
    clippy::map_err_ignore,
    reason = "arguments arrive from Python by value; a conversion error says less than ours"
)]

mod array;
mod buffer;
mod codec;
mod connector;
mod error;
mod foreign;
mod foreign_key;
mod identity;
mod keys;
mod message_pack;
mod multi;
mod pickle;
pub mod proxy;
mod store;
mod stream;
mod table;
mod trust;
mod value;

use pyo3::prelude::*;

/// The native module; the typed face is the package `proxystore_rs`.
#[pymodule(gil_used = true)]
mod _core {
    use super::{PyModule, PyResult};
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::buffer::PyStoredBytes;
    #[pymodule_export]
    use crate::codec::takes_data_only;
    #[pymodule_export]
    use crate::connector::{NativeConnector, sweep_shared_memory};
    #[pymodule_export]
    use crate::identity::{make_identity, public_key, set_identity};
    #[pymodule_export]
    use crate::multi::{multi_config, multi_parts};
    #[pymodule_export]
    use crate::store::{
        Lease, StoreBase, StoreFactory, ViewBase, copy_object, fail_future, failure_of, hold_lease,
        metrics_instruments, metrics_observations, metrics_text, proxy_from_text, restore_factory,
        restore_proxy, settle_future, text_from_proxy,
    };

    #[pymodule_export]
    use crate::stream::{
        Broker, BrokerPublisher, BrokerSubscriber, StreamArrival, StreamInbox, StreamOutbox,
        message_from_bytes, message_to_bytes, stored_size,
    };
    #[pymodule_export]
    use crate::trust::require;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::proxy::register(module)?;
        crate::store::register_with_proxies(module.py());
        crate::store::streaming::open_stores_in_python();
        module.add("stores", crate::store::stores(module.py()))
    }
}
