//! Ports for servers that tests start.

use std::net::TcpListener;

/// A port that nobody listens on at the moment.
pub(crate) fn free_port() -> u16 {
    // Below the ports that the system gives to clients, or one of those may take it.
    for _ in 0..1000 {
        let mut random = [0; 2];
        getrandom::fill(&mut random).unwrap();
        let port = 20_000 + u16::from_le_bytes(random) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}
