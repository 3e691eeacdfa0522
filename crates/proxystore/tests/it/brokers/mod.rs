//! Brokers of every kind keep the contract, and what is special about each.

mod memory;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "redis")]
mod redis;
mod shm;
#[cfg(feature = "zmq")]
mod zmq;
