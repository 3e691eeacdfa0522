//! Counts and times of a store's operations.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a store does and counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// Putting an object, or a batch of them, into the channel.
    Put,
    /// Getting one from the channel.
    Get,
    /// Looking whether one is in the channel.
    Exists,
    /// Removing one from the channel.
    Evict,
    /// Waiting for one.
    Wait,
    /// Giving a time to live.
    Expire,
    /// Getting memory of the channel.
    Allocate,
    /// Turning an object into a payload.
    Encode,
    /// Turning a payload into an object.
    Decode,
    /// Finding an object in the cache, so that it is not got.
    CacheHit,
    /// Getting an object that is not there.
    Missing,
}

const NAMES: [&str; 11] = [
    "put",
    "get",
    "exists",
    "evict",
    "wait",
    "expire",
    "allocate",
    "encode",
    "decode",
    "cache_hit",
    "missing",
];

/// What a store did so far. Counters only grow; they are exact under threads.
#[derive(Debug, Default)]
pub struct Metrics {
    operations: [Counters; NAMES.len()],
}

#[derive(Debug, Default)]
struct Counters {
    count: AtomicU64,
    nanoseconds: AtomicU64,
    bytes: AtomicU64,
}

/// Totals of one kind of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperationStats {
    /// The [`Operation`], as `put`, `get`, `exists`, `evict`, `wait`, `expire`, `allocate`,
    /// `encode`, `decode`, `cache_hit` or `missing`.
    pub name: &'static str,
    /// How often.
    pub count: u64,
    /// Time spent: in the connector, or in the codec.
    pub total_time: Duration,
    /// Bytes moved, as stored.
    pub bytes: u64,
}

impl Metrics {
    /// Counts one more operation, for bridges that do it themselves.
    pub fn record(&self, operation: Operation, time: Duration, bytes: usize) {
        self.add(operation, time);
        self.add_bytes(operation, bytes);
    }

    pub(super) fn add(&self, operation: Operation, time: Duration) {
        let counters = &self.operations[operation as usize];
        counters.count.fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        counters.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    pub(super) fn add_bytes(&self, operation: Operation, bytes: usize) {
        self.operations[operation as usize].bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Totals so far, one entry a kind of operation.
    pub fn totals(&self) -> impl Iterator<Item = OperationStats> {
        NAMES.iter().zip(&self.operations).map(|(name, counters)| OperationStats {
            name,
            count: counters.count.load(Ordering::Relaxed),
            total_time: Duration::from_nanos(counters.nanoseconds.load(Ordering::Relaxed)),
            bytes: counters.bytes.load(Ordering::Relaxed),
        })
    }
}
