//! The integration tests of the library: one binary, one module per topic.

mod conformance;
#[cfg(target_os = "linux")]
mod shm;
#[cfg(target_os = "linux")]
mod shm_conformance;
mod store;
