//! Counts and times of a store's operations.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[derive(Debug, Clone, Copy)]
pub(super) enum Operation {
    Put,
    Get,
    Exists,
    Evict,
    Wait,
    Expire,
    Allocate,
    CacheHit,
    Missing,
}

const NAMES: [&str; 9] =
    ["put", "get", "exists", "evict", "wait", "expire", "allocate", "cache_hit", "missing"];

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
    /// `put`, `get`, `exists`, `evict`, `wait`, `expire`, `allocate`, `cache_hit` or `missing`.
    pub name: &'static str,
    /// How often.
    pub count: u64,
    /// Time spent in the connector.
    pub total_time: Duration,
    /// Bytes moved, as stored.
    pub bytes: u64,
}

impl Metrics {
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
