//! The integration tests of the library: one binary, one module per topic.
#![expect(clippy::unwrap_used, reason = "in a test, a panic is the answer to a surprise")]

mod conformance;
mod file;
mod future;
#[cfg(target_os = "linux")]
mod hammer;
mod lifetime;
mod memory;
mod multi;
mod multi_conformance;
mod ownership;
mod payload;
mod process;
#[cfg(feature = "redis")]
mod redis;
#[cfg(target_os = "linux")]
mod seal;
#[cfg(feature = "redis")]
mod servers;
mod shm;
#[cfg(target_os = "linux")]
mod shm_conformance;
mod store;
#[cfg(target_os = "linux")]
mod ttl;
