//! Waking those who wait: one number per session, which changes whenever there is news for somebody.
//!
//! It lies in a page that all processes of the session map. Everyone who waits says for which topics,
//! and is not woken for others, unless their hashes meet in one of a few bits.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Result;
use rustix::thread::futex;
use rustix::time::{ClockId, Timespec, clock_gettime};
use xxhash_rust::xxh3::xxh3_64;

use crate::connectors::shm::{Mapping, PAGE, Session};

/// Who waits looks this often in any case: whoever has news may be killed before it wakes anybody.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

const FILE: &str = "signal";

#[derive(Debug)]
pub(super) struct Signal(Mapping);

/// For what somebody waits, as bits.
#[derive(Debug, Clone, Copy)]
pub(super) struct News(NonZeroU32);

impl News {
    /// Anything at all.
    pub(super) const ANY: Self = Self(NonZeroU32::MAX);

    /// There is a message of a topic.
    pub(super) fn message(topic: &str) -> Self {
        Self(bit(xxh3_64(topic.as_bytes()) % 16))
    }

    /// There is room in a topic.
    pub(super) fn room(topic: &str) -> Self {
        Self(bit(16 + xxh3_64(topic.as_bytes()) % 16))
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

fn bit(number: u64) -> NonZeroU32 {
    NonZeroU32::new(1 << number).unwrap_or(NonZeroU32::MAX)
}

impl Signal {
    pub(super) fn open(session: &Session) -> Result<Self> {
        let file = session.open_or_create(FILE)?;
        // The page exists before it is mapped.
        fallocate(&file, FallocateFlags::empty(), 0, PAGE as u64)?;
        Mapping::shared_writable(&file, 0, PAGE).map(Self)
    }

    fn word(&self) -> &AtomicU32 {
        self.0.half_word(0)
    }

    /// The number as it is, to be had before one looks for what one may wait for.
    pub(super) fn now(&self) -> u32 {
        self.word().load(Ordering::SeqCst)
    }

    /// Waits for news since the number was `seen`, until the time is up or it is time to look again.
    pub(super) fn wait(&self, seen: u32, news: News, until: Option<Instant>) {
        let left =
            until.map_or(LOOK_AGAIN, |until| until.saturating_duration_since(Instant::now()));
        let now = clock_gettime(ClockId::Monotonic);
        let Some(end) =
            Timespec::try_from(left.min(LOOK_AGAIN)).ok().and_then(|left| now.checked_add(left))
        else {
            return;
        };
        // However it ends, the caller looks again.
        let _ = futex::wait_bitset(self.word(), futex::Flags::empty(), seen, Some(&end), news.0);
    }

    /// Wakes all who wait for any of this.
    pub(super) fn wake(&self, news: News) {
        self.word().fetch_add(1, Ordering::SeqCst);
        let all = i32::MAX as u32;
        let _ = futex::wake_bitset(self.word(), futex::Flags::empty(), all, news.0);
    }
}
