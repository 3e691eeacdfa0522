//! What an endpoint tells of itself: counters that are kept while it runs, and the whole picture as
//! `proxystore endpoint status` and the page show it.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::latency::Latencies;
use crate::storage::Usage;

/// A number that only grows, or that goes up and down.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Counts `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Counts `n` fewer.
    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is counted while the daemon runs.
#[derive(Debug, Default)]
pub struct Counters {
    /// Clients connected now.
    pub clients: Count,
    /// Clients that were refused: wrong token, no greeting, too many.
    pub refused_clients: Count,
    /// Requests answered, by clients and peers.
    pub requests: Count,
    /// Requests that failed.
    pub failures: Count,
    /// Bytes of objects that came from clients.
    pub bytes_in: Count,
    /// Bytes of objects that went to clients.
    pub bytes_out: Count,
    /// Bytes of objects that came from peers.
    pub peer_bytes_in: Count,
    /// Bytes of objects that went to peers.
    pub peer_bytes_out: Count,
    /// Peers that were refused.
    pub refused_peers: Count,
    /// How long requests took.
    pub latencies: Latencies,
}

/// The whole picture, at one moment.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// The endpoint's name on this site.
    pub name: String,
    /// Its public key.
    pub id: String,
    /// Its version.
    pub version: &'static str,
    /// The daemon's process.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime: u64,
    /// What is stored.
    pub storage: Usage,
    /// Clients connected now.
    pub clients: u64,
    /// Clients that were refused since the start.
    pub refused_clients: u64,
    /// Requests answered since the start.
    pub requests: u64,
    /// Requests that failed.
    pub failures: u64,
    /// Bytes of objects that came from clients.
    pub bytes_in: u64,
    /// Bytes of objects that went to clients.
    pub bytes_out: u64,
    /// Bytes of objects that came from peers.
    pub peer_bytes_in: u64,
    /// Bytes of objects that went to peers.
    pub peer_bytes_out: u64,
    /// Peers that were refused.
    pub refused_peers: u64,
    /// Where peers meet, if there is a relay.
    pub relay: Option<RelayStatus>,
    /// Peers that are known.
    pub peers: Vec<PeerStatus>,
}

/// The relay, as this endpoint sees it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RelayStatus {
    /// Its URL.
    pub url: String,
    /// Whether this endpoint is connected to it.
    pub connected: bool,
    /// Why not.
    pub problem: Option<String>,
}

/// A peer, as this endpoint sees it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PeerStatus {
    /// Its public key.
    pub id: String,
    /// What it is called here.
    pub name: String,
    /// `connected` or `idle`, else why it is not.
    pub state: String,
    /// `direct` or `relayed`; empty while there is no connection.
    pub path: String,
    /// The address or the relay.
    pub via: String,
    /// Microseconds there and back.
    pub round_trip_us: u64,
    /// Bytes of objects that came from it.
    pub bytes_in: u64,
    /// Bytes of objects that went to it.
    pub bytes_out: u64,
}
