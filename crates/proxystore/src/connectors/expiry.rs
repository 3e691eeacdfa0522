//! When objects vanish: a time of the system's clock, which all processes share.
//!
//! Setting the clock moves the end of what has a time to live by as much; objects without one are
//! not concerned, and the clock is not read for them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// A time to live of so long is none: not every file system can tell a time that far away.
const LONGEST: Duration = Duration::from_hours(24 * 365 * 100);

/// Milliseconds since 1970; 0 is never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Expiry(u64);

impl Expiry {
    pub(crate) const NEVER: Self = Self(0);

    /// The end of a time to live that begins now; never early, and past at once for none.
    pub(crate) fn after(ttl: Option<Duration>) -> Self {
        let Some(ttl) = ttl.filter(|ttl| *ttl < LONGEST) else {
            return Self::NEVER;
        };
        let end = since_1970() + ttl;
        let is_between = !ttl.is_zero() && !end.subsec_nanos().is_multiple_of(1_000_000);
        Self::at(millis(end) + u64::from(is_between))
    }

    /// So many milliseconds after 1970 began, which is taken for the first when it is 0.
    pub(crate) fn at(millis: u64) -> Self {
        Self(millis.max(1))
    }

    /// As it is stored: 0 for never.
    pub(crate) const fn from_word(word: u64) -> Self {
        Self(word)
    }

    pub(crate) const fn word(self) -> u64 {
        self.0
    }

    pub(crate) fn is_past(self) -> bool {
        self != Self::NEVER && self.0 <= millis(since_1970())
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Work that is done in passing: every ten seconds at most, and for a fiftieth of the time.
#[derive(Debug)]
pub(crate) struct InPassing {
    start: Instant,
    /// When the next is due, in milliseconds after the start.
    due: AtomicU64,
}

impl InPassing {
    const EVERY: Duration = Duration::from_secs(10);

    /// The first is due after the usual time.
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), due: AtomicU64::new(millis(Self::EVERY)) }
    }

    /// Makes the next one due.
    #[cfg(test)]
    pub(crate) fn hurry(&self) {
        self.due.store(0, Ordering::Relaxed);
    }

    /// Does the work if it is due and nobody else is at it.
    pub(crate) fn now_and_then(&self, work: impl FnOnce()) {
        let (due, begun) = (self.due.load(Ordering::Relaxed), self.start.elapsed());
        let order = Ordering::Relaxed;
        if millis(begun) < due || self.due.compare_exchange(due, u64::MAX, order, order).is_err() {
            return;
        }
        work();
        let done = self.start.elapsed();
        self.due.store(
            millis(done + Self::EVERY.max(done.saturating_sub(begun) * 50)),
            Ordering::Relaxed,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_ends_not_before_it_has_passed() {
        let before = since_1970();
        let expiry = Expiry::after(Some(Duration::from_millis(1)));
        assert!(expiry.word() > millis(before) && !Expiry::NEVER.is_past());
        while !expiry.is_past() {
            std::thread::yield_now();
        }
        assert!(since_1970() >= before + Duration::from_millis(1));
        assert!(Expiry::after(Some(Duration::ZERO)).is_past());
        assert!(Expiry::at(0).is_past());
        for endless in [None, Some(Duration::MAX)] {
            assert_eq!(Expiry::after(endless), Expiry::NEVER);
        }
    }

    #[test]
    fn work_in_passing_waits_for_its_turn() {
        let work = InPassing::new();
        let mut times = 0;
        work.now_and_then(|| times += 1);
        assert_eq!(times, 0);
        work.hurry();
        for _ in 0..3 {
            work.now_and_then(|| times += 1);
        }
        assert_eq!(times, 1);
    }
}
