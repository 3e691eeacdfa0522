//! Clients of this site, over a Unix socket and TCP.

mod connection;
mod listen;

pub use connection::Door;
pub use listen::{Listeners, serve};
