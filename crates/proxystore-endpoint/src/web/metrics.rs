//! The status of an endpoint as metrics.

use std::time::Duration;

use super::exposition::Exposition;
use crate::latency::{BOUNDS, Latencies};
use crate::status::{PeerStatus, Status};

/// How many peers have series of their own, so that many peers do not make many series.
pub const PEERS: usize = 100;

/// The metrics of a status.
pub fn text(status: &Status, latencies: &Latencies) -> String {
    let mut out = Exposition::new("proxystore_endpoint");
    let storage = &status.storage;

    out.family("info", "gauge", "Which endpoint this is.");
    let who = [("name", &*status.name), ("id", &status.id), ("version", status.version)];
    out.sample("info", &who, 1);
    out.single("uptime_seconds", "gauge", "Seconds since the start.", status.uptime);

    out.single("objects", "gauge", "Objects stored.", storage.objects);
    out.single("memory_bytes", "gauge", "Bytes of objects in memory.", storage.memory);
    out.single("memory_limit_bytes", "gauge", "Bytes memory may take.", storage.memory_limit);
    out.single("disk_bytes", "gauge", "Bytes of objects on disk.", storage.disk);
    out.single("disk_limit_bytes", "gauge", "Bytes the disk may take.", storage.disk_limit);
    out.single("waiting", "gauge", "Callers that wait for an object.", storage.waiting);

    out.single("clients", "gauge", "Clients connected.", status.clients);
    out.single("clients_refused_total", "counter", "Clients refused.", status.refused_clients);
    out.single("requests_total", "counter", "Requests answered.", status.requests);
    out.single("requests_failed_total", "counter", "Requests that failed.", status.failures);
    out.family("received_bytes_total", "counter", "Bytes of objects that came.");
    out.sample("received_bytes_total", &[("from", "clients")], status.bytes_in);
    out.sample("received_bytes_total", &[("from", "peers")], status.peer_bytes_in);
    out.family("sent_bytes_total", "counter", "Bytes of objects that went.");
    out.sample("sent_bytes_total", &[("to", "clients")], status.bytes_out);
    out.sample("sent_bytes_total", &[("to", "peers")], status.peer_bytes_out);

    if let Some(relay) = &status.relay {
        out.family("relay_connected", "gauge", "Whether the relay is reached.");
        out.sample("relay_connected", &[("url", &relay.url)], u64::from(relay.connected));
    }
    out.single("peers_refused_total", "counter", "Peers refused.", status.refused_peers);
    out.peers(&status.peers);
    out.latencies(latencies);
    out.into_text()
}

impl Exposition {
    fn peers(&mut self, peers: &[PeerStatus]) {
        self.family("peers", "gauge", "Peers known, by how they are reached.");
        for (path, value) in [("direct", "direct"), ("relayed", "relayed"), ("", "none")] {
            let count = peers.iter().filter(|peer| peer.path == path).count();
            self.sample("peers", &[("path", value)], count as u64);
        }
        let peers = &peers[..peers.len().min(PEERS)];
        if peers.is_empty() {
            return;
        }
        self.each(peers, "peer_connected", "gauge", "Whether there is a connection.", |peer| {
            u64::from(!peer.path.is_empty())
        });
        self.each(peers, "peer_direct", "gauge", "Whether it needs no relay.", |peer| {
            u64::from(peer.path == "direct")
        });
        self.each(peers, "peer_received_bytes_total", "counter", "Bytes from the peer.", |peer| {
            peer.bytes_in
        });
        self.each(peers, "peer_sent_bytes_total", "counter", "Bytes to the peer.", |peer| {
            peer.bytes_out
        });
        const ROUND_TRIP: &str = "peer_round_trip_seconds";
        self.family(ROUND_TRIP, "gauge", "Seconds to the peer and back.");
        for peer in peers.iter().filter(|peer| !peer.path.is_empty()) {
            self.seconds(ROUND_TRIP, &of(peer), Duration::from_micros(peer.round_trip_us));
        }
    }

    fn each(
        &mut self,
        peers: &[PeerStatus],
        name: &str,
        kind: &str,
        help: &str,
        value: impl Fn(&PeerStatus) -> u64,
    ) {
        self.family(name, kind, help);
        for peer in peers {
            self.sample(name, &of(peer), value(peer));
        }
    }

    fn latencies(&mut self, latencies: &Latencies) {
        const NAME: &str = "request_duration_seconds";
        self.family(NAME, "histogram", "Seconds until the answer began.");
        for (kind, histogram) in latencies.iter() {
            let kind = ("kind", kind.name());
            let counts = histogram.cumulative();
            for (bound, count) in BOUNDS.iter().zip(counts) {
                let bound = Duration::from_micros(*bound).as_secs_f64().to_string();
                self.sample(&format!("{NAME}_bucket"), &[kind, ("le", &bound)], count);
            }
            let all = counts[BOUNDS.len()];
            self.sample(&format!("{NAME}_bucket"), &[kind, ("le", "+Inf")], all);
            self.seconds(&format!("{NAME}_sum"), &[kind], histogram.total());
            self.sample(&format!("{NAME}_count"), &[kind], all);
        }
    }
}

fn of(peer: &PeerStatus) -> [(&str, &str); 2] {
    [("peer", &peer.id), ("name", &peer.name)]
}
