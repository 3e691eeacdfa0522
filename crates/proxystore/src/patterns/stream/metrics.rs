//! What the ends of a stream count.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters of one end of a stream. They only grow, but for what is in flight.
#[derive(Debug, Default)]
pub struct StreamMetrics {
    counters: [AtomicU64; COUNTERS.len()],
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    Sent,
    Inline,
    Filtered,
    StoredBytes,
    Messages,
    Dropped,
    Refused,
    Waited,
    InFlight,
    Received,
    Acknowledged,
    Repeated,
    Skipped,
}

const COUNTERS: [(&str, &str); 13] = [
    ("sent", "Events published."),
    ("inline", "Objects that travelled inside their event."),
    ("filtered", "Objects or events that a filter dropped."),
    ("stored_bytes", "Bytes of objects put into stores."),
    ("messages", "Messages published or received: one a batch."),
    ("dropped", "Objects dropped unread to make room."),
    ("refused", "Objects refused for want of room."),
    ("waited_seconds", "Time spent waiting for room."),
    ("in_flight_bytes", "Bytes of objects that no consumer has freed yet, as far as is known."),
    ("received", "Events received."),
    ("acknowledged", "Messages acknowledged."),
    ("repeated", "Messages that were delivered again."),
    ("skipped", "Events of objects that were dropped, or were dealt with before."),
];

impl StreamMetrics {
    pub(super) fn add(&self, count: Count, value: u64) {
        self.counters[count as usize].fetch_add(value, Ordering::Relaxed);
    }

    pub(super) fn add_time(&self, count: Count, time: Duration) {
        self.add(count, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn set(&self, count: Count, value: u64) {
        self.counters[count as usize].store(value, Ordering::Relaxed);
    }

    /// Each counter's name and value; times are in seconds.
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
    pub fn totals(&self) -> impl Iterator<Item = (&'static str, f64)> {
        COUNTERS.iter().zip(&self.counters).map(|((name, _), counter)| {
            let value = counter.load(Ordering::Relaxed);
            let value = if name.ends_with("seconds") {
                Duration::from_nanos(value).as_secs_f64()
            } else {
                value as f64
            };
            (*name, value)
        })
    }

    /// One counter by its name, 0 for an unknown one.
    pub fn get(&self, name: &str) -> f64 {
        self.totals().find(|(found, _)| *found == name).map_or(0.0, |(_, value)| value)
    }

    /// In the text format of Prometheus, version 0.0.4, under the name of a stream.
    pub fn to_prometheus(&self, stream: &str) -> String {
        let stream = stream.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let mut text = String::new();
        for ((name, value), (_, help)) in self.totals().zip(COUNTERS) {
            let (kind, suffix) =
                if name == "in_flight_bytes" { ("gauge", "") } else { ("counter", "_total") };
            let name = format!("proxystore_stream_{name}{suffix}");
            // Writing to a text does not fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            let _ = writeln!(text, "{name}{{stream=\"{stream}\"}} {value}");
        }
        text
    }
}
