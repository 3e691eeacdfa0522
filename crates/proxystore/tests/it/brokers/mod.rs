//! Brokers of every kind keep the contract, and what is special about each.

#[cfg(feature = "kafka")]
mod kafka;
mod memory;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "redis")]
mod redis;
mod shm;
#[cfg(any(feature = "kafka", feature = "nats"))]
mod steps;
#[cfg(feature = "zmq")]
mod zmq;
