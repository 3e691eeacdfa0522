//! The integration tests of the library: one binary, one module per topic.
#![expect(clippy::unwrap_used, reason = "in a test, a panic is the answer to a surprise")]

mod arrays;
mod attacks;
mod brokers;
mod conformance;
mod facts;
mod file;
mod future;
mod fuzz;
#[cfg(target_os = "linux")]
mod hammer;
mod lifetime;
mod memory;
mod multi;
mod multi_conformance;
mod old_bytes;
mod ownership;
mod payload;
#[cfg(any(feature = "kafka", feature = "nats", feature = "redis", feature = "zmq"))]
mod ports;
mod process;
#[cfg(feature = "redis")]
mod redis;
#[cfg(target_os = "linux")]
mod seal;
mod secrets;
#[cfg(feature = "redis")]
mod servers;
#[cfg(target_os = "linux")]
mod shm;
#[cfg(target_os = "linux")]
mod shm_conformance;
mod store;
mod stream;
mod stream_kills;
#[cfg(feature = "arrow")]
mod tables;
mod trust;
#[cfg(target_os = "linux")]
mod ttl;
mod views;
