//! How long requests take, by kind.

use std::time::Duration;

use proxystore::wire::Request;

use crate::status::Count;

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "as the requests of the wire")]
pub enum Kind {
    Put,
    Get,
    Stat,
    Evict,
    Expire,
    Wait,
    Clear,
    Other,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::Put,
        Self::Get,
        Self::Stat,
        Self::Evict,
        Self::Expire,
        Self::Wait,
        Self::Clear,
        Self::Other,
    ];

    /// The kind of a request; `Other` where it is about no object.
    pub fn of(request: &Request) -> Self {
        match request {
            Request::Put { .. } => Self::Put,
            Request::Get { .. } => Self::Get,
            Request::Stat { .. } => Self::Stat,
            Request::Evict(..) => Self::Evict,
            Request::Expire(..) => Self::Expire,
            Request::Wait(..) => Self::Wait,
            Request::Clear { .. } => Self::Clear,
            Request::Hint(..)
            | Request::Ping(..)
            | Request::Status
            | Request::Stop
            | Request::Reload => Self::Other,
        }
    }

    /// What it is called in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Stat => "stat",
            Self::Evict => "evict",
            Self::Expire => "expire",
            Self::Wait => "wait",
            Self::Clear => "clear",
            Self::Other => "other",
        }
    }
}

/// Upper bounds of the buckets in microseconds: from memory on this host to the other side of the earth.
pub const BOUNDS: [u64; 13] = [
    10, 25, 100, 250, 1_000, 2_500, 10_000, 25_000, 100_000, 250_000, 1_000_000, 2_500_000,
    10_000_000,
];

/// How many requests took how long.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Of each bucket alone; the last is for those above all bounds.
    buckets: [Count; BOUNDS.len() + 1],
    nanoseconds: Count,
}

impl Histogram {
    fn record(&self, took: Duration) {
        let bucket = BOUNDS.partition_point(|bound| Duration::from_micros(*bound) < took);
        self.buckets[bucket].add(1);
        self.nanoseconds.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// How many there were up to each bound; last, how many in all.
    pub fn cumulative(&self) -> [u64; BOUNDS.len() + 1] {
        let mut sum = 0;
        std::array::from_fn(|bucket| {
            sum += self.buckets[bucket].get();
            sum
        })
    }

    /// How long they took together.
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.get())
    }
}

/// A histogram of each kind. Recording takes a few nanoseconds.
#[derive(Debug, Default)]
pub struct Latencies([Histogram; Kind::ALL.len()]);

impl Latencies {
    /// Counts a request.
    pub fn record(&self, kind: Kind, took: Duration) {
        self.0[kind as usize].record(took);
    }

    /// Each kind with what was counted of it.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, &Histogram)> {
        Kind::ALL.into_iter().zip(&self.0)
    }
}
