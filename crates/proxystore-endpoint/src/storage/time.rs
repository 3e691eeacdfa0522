//! When an object ends: by the steady clock while the daemon runs, by the clock of the world over restarts.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// A time to live of so long is none.
const LONGEST: Duration = Duration::from_hours(24 * 365 * 100);

/// An end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// By a clock that nobody sets: this one decides.
    pub(super) at: Instant,
    /// The same in milliseconds since 1970, to be written down.
    pub(super) since_1970: u64,
}

impl End {
    /// So much later; `None` where that is as good as never.
    pub(super) fn after(ttl: Duration) -> Option<Self> {
        let ttl = Some(ttl).filter(|ttl| *ttl < LONGEST)?;
        Some(Self { at: Instant::now() + ttl, since_1970: millis(since_1970() + ttl).max(1) })
    }

    /// What was written down: 0 for never.
    pub(super) fn read(since: u64) -> Option<Self> {
        let left = since.saturating_sub(millis(since_1970()));
        let at = Instant::now() + Duration::from_millis(left).min(LONGEST);
        (since != 0).then_some(Self { at, since_1970: since })
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
