//! Brokers of every kind keep the contract, and what is special about each.

mod memory;
#[cfg(feature = "nats")]
mod nats;
