//! What a group has done of a partition, and how that is kept at Kafka.
//!
//! Kafka keeps one number per group and partition, the offset before which all is done. What is
//! acknowledged out of order is told by the text that is kept with it: the offset up to which
//! messages were fetched, and those before it that are not acknowledged, `NEXT TRIED WAITING`. Of
//! both lists, as of `3-5,9`, numbers are relative to the kept offset; `TRIED` were delivered.

use std::collections::BTreeMap;
use std::time::Instant;

/// Kafka refuses texts of more than 4096 bytes.
const LONGEST: usize = 4000;
/// A text that tells of more messages is of another program.
const MOST: i64 = 1 << 20;

/// What a group has done of a partition.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    /// Messages from here on were not fetched yet.
    next: i64,
    /// Fetched and not acknowledged.
    pending: BTreeMap<i64, Pending>,
    /// There is something to be kept.
    pub(super) is_dirty: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pending {
    /// How often it was delivered.
    attempts: u32,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It has to be fetched again.
    Away,
    /// It is here and waits to be received.
    Waits,
    /// It was delivered, and should be acknowledged until then.
    Open(Instant),
}

impl Progress {
    /// What is kept at Kafka: an offset and its text, which is of another program if it is odd.
    pub(super) fn decode(offset: i64, text: &str) -> Self {
        Self::try_decode(offset, text).unwrap_or(Self { next: offset, ..Self::default() })
    }

    fn try_decode(offset: i64, text: &str) -> Option<Self> {
        let mut fields = text.split(' ');
        let next = offset.checked_add(fields.next()?.parse().ok().filter(|next| *next >= 0)?)?;
        let (mut pending, mut room) = (BTreeMap::new(), MOST);
        for attempts in [1, 0] {
            for range in fields.next()?.split(',').filter(|range| !range.is_empty()) {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let first = offset.checked_add(first.parse().ok()?)?;
                let last = offset.checked_add(last.parse().ok()?)?;
                if first < offset || last < first || last >= next || last - first >= room {
                    return None;
                }
                room -= last - first + 1;
                let entry = Pending { attempts, stage: Stage::Away };
                pending.extend((first..=last).map(|offset| (offset, entry)));
            }
        }
        Some(Self { next, pending, is_dirty: false })
    }

    /// What to keep. Of what is too much to say, the last is left out, and comes again.
    pub(super) fn encode(&self) -> (i64, String) {
        let offset = self.pending.keys().next().copied().unwrap_or(self.next);
        let mut next = self.next;
        loop {
            let list = |was_tried: bool| {
                let chosen = self.pending.range(..next);
                let chosen = chosen.filter(|(_, entry)| (entry.attempts > 0) == was_tried);
                ranges(chosen.map(|(at, _)| at - offset))
            };
            let text = format!("{} {} {}", next - offset, list(true), list(false));
            if text.len() <= LONGEST {
                return (offset, text);
            }
            let count = self.pending.range(..next).count();
            next = self.pending.keys().nth(count / 2).copied().unwrap_or(offset);
        }
    }

    /// Whether a fetched message is to be delivered.
    pub(super) fn admit(&mut self, offset: i64) -> bool {
        let entry = Pending { attempts: 0, stage: Stage::Waits };
        if offset >= self.next {
            self.next = offset + 1;
            self.pending.insert(offset, entry);
            return true;
        }
        match self.pending.get_mut(&offset) {
            Some(known) if known.stage == Stage::Away => {
                known.stage = Stage::Waits;
                true
            }
            _ => false, // acknowledged, or here
        }
    }

    /// Delivers a message that waits, to be acknowledged until then: the how-manieth time that is.
    pub(super) fn deliver(&mut self, offset: i64, until: Instant) -> Option<u32> {
        let entry = self.pending.get_mut(&offset).filter(|entry| entry.stage == Stage::Waits)?;
        entry.attempts += 1;
        entry.stage = Stage::Open(until);
        self.is_dirty = true;
        Some(entry.attempts)
    }

    pub(super) fn acknowledge(&mut self, offset: i64) {
        self.is_dirty |= self.pending.remove(&offset).is_some();
    }

    /// When the first of what was delivered should be acknowledged.
    pub(super) fn earliest(&self) -> Option<Instant> {
        let until = |entry: &Pending| match entry.stage {
            Stage::Open(until) => Some(until),
            Stage::Away | Stage::Waits => None,
        };
        self.pending.values().filter_map(until).min()
    }

    /// Lets go of what was not acknowledged in time, if there is any; from where to fetch again, which is
    /// not behind anything that is still to be fetched.
    pub(super) fn give_up_overdue(&mut self, now: Instant) -> Option<i64> {
        let mut is_any = false;
        for entry in self.pending.values_mut().filter(|entry| entry.is_overdue(now)) {
            entry.stage = Stage::Away;
            is_any = true;
        }
        let mut away = self.pending.iter().filter(|(_, entry)| entry.stage == Stage::Away);
        away.next().map(|(offset, _)| *offset).filter(|_| is_any)
    }
}

impl Pending {
    fn is_overdue(&self, now: Instant) -> bool {
        matches!(self.stage, Stage::Open(until) if until <= now)
    }
}

/// Ascending numbers, as in `3-5,9`.
fn ranges(numbers: impl Iterator<Item = i64>) -> String {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let shown = ranges.iter().map(|(first, last)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    });
    shown.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn far() -> Instant {
        Instant::now() + std::time::Duration::from_hours(1)
    }

    #[test]
    fn what_is_kept_tells_what_was_acknowledged() {
        let mut first = Progress::decode(100, "");
        for offset in 100..110 {
            assert!(first.admit(offset));
        }
        for offset in 100..107 {
            assert_eq!(first.deliver(offset, far()), Some(1));
        }
        for offset in [100, 101, 104] {
            first.acknowledge(offset);
        }
        let (offset, text) = first.encode();
        assert_eq!((offset, &*text), (102, "8 0-1,3-4 5-7"));
        let mut second = Progress::decode(offset, &text);
        let admitted: Vec<i64> = (102..112).filter(|offset| second.admit(*offset)).collect();
        assert_eq!(admitted, [102, 103, 105, 106, 107, 108, 109, 110, 111]);
        let attempts = admitted.iter().map(|offset| second.deliver(*offset, far()).unwrap());
        assert_eq!(attempts.collect::<Vec<_>>(), [2, 2, 2, 2, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn texts_of_others_are_not_believed() {
        // Each range is bearable; together they are too much.
        let many = "9000000 0-999999,2000000-2999999 4000000-4999999";
        for text in ["", "x", "5", "5 1", "5 9 ", "5 -1 ", "5 3-x ", "5 3-1 ", "-1  ", many] {
            let plain = Progress { next: 7, ..Progress::default() };
            assert_eq!(Progress::decode(7, text), plain, "{text}");
        }
    }

    #[test]
    fn what_is_too_much_to_say_comes_again() {
        let mut first = Progress::default();
        for offset in 0..10_000 {
            first.admit(offset);
        }
        for offset in (1..10_000).step_by(2) {
            first.acknowledge(offset);
        }
        let (offset, text) = first.encode();
        assert!(offset == 0 && text.len() <= LONGEST, "{} bytes", text.len());
        let mut second = Progress::decode(offset, &text);
        assert!((0..10_000).step_by(2).all(|offset| second.admit(offset)), "nothing is lost");
        assert!(!second.admit(1), "what was said is believed");
    }

    #[test]
    fn what_is_overdue_is_fetched_again_and_counted() {
        let mut progress = Progress::default();
        let now = Instant::now();
        assert!(progress.admit(0) && progress.admit(1));
        assert_eq!((progress.deliver(0, far()), progress.deliver(1, now)), (Some(1), Some(1)));
        assert_eq!(progress.earliest(), Some(now));
        assert_eq!(progress.give_up_overdue(now), Some(1));
        assert!(!progress.admit(0) && progress.admit(1));
        assert_eq!(progress.deliver(1, far()), Some(2));
    }

    #[test]
    fn fetching_again_skips_nothing_that_is_away() {
        let mut progress = Progress::default();
        let now = Instant::now();
        let soon = now + std::time::Duration::from_secs(1);
        assert!(progress.admit(0) && progress.admit(1) && progress.admit(2));
        progress.deliver(0, now);
        progress.deliver(1, soon);
        assert_eq!(progress.give_up_overdue(now), Some(0));
        assert_eq!(progress.give_up_overdue(now), None, "nothing new is overdue");
        assert_eq!(progress.give_up_overdue(soon), Some(0), "it did not come yet");
        assert!(progress.admit(0) && progress.admit(1) && !progress.admit(2));
    }
}
