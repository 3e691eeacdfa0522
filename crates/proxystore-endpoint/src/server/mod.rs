//! Clients of this site, over a Unix socket and TCP.

mod connection;
mod listen;
mod socket;

pub use connection::Door;
pub use listen::{Listeners, serve};
pub use socket::socket_path;
