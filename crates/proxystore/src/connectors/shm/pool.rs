//! The pool: which segments this process has, which of them are free, and how many may be.
//!
//! A put takes a free segment of a fitting size before it makes a new one. Segments this process
//! frees are listed; those that others freed are found by looking at a few headers each time,
//! oldest first, through the mappings that are kept anyway.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::layout::{HEADER, Header, Name, State, Tag};
use super::owner::Owner;
use super::read::COPIED_BELOW;
use super::segment::{Claim, Claimed, Segment, write_all};
use super::session::Session;
use super::sys::PAGE;
use crate::connectors::expiry::Expiry;
use crate::error::Result;

/// More segments than this are not kept: each costs a mapping, of which a process may have 65530.
const MOST_SEGMENTS: usize = 8192;
/// How many free segments a put tries, in case the first ones are pinned.
const ATTEMPTS: usize = 4;
/// How many headers a put looks at to find segments that others freed.
const PROBES: usize = 8;
/// Segments that have been free for so long are given back.
const IDLE: Duration = Duration::from_mins(1);

/// The segments one process owns in a session.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) session: Arc<Session>,
    pub(super) owner: Owner,
    next: AtomicU64,
    inner: Mutex<Inner>,
    generation: u64,
}

#[derive(Debug, Default)]
struct Inner {
    segments: HashMap<u64, Arc<Segment>>,
    classes: BTreeMap<usize, Class>,
}

/// Segments of one size.
#[derive(Debug, Default)]
struct Class {
    /// Known to be free, and since when; oldest first.
    free: VecDeque<(u64, Instant)>,
    /// All of them, in the order in which they are to be looked at.
    ring: VecDeque<u64>,
}

impl Pool {
    pub(super) fn new(session: Arc<Session>, bound: u64) -> Result<Self> {
        let owner = Owner::register(&session, bound)?;
        let generation = crate::fork::generation();
        Ok(Self { session, owner, next: AtomicU64::new(1), inner: Mutex::default(), generation })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Stores the slices, `len` bytes in all, as a new object.
    pub(super) fn store(
        &self,
        slices: &[&[u8]],
        len: usize,
        expiry: Expiry,
    ) -> rustix::io::Result<Name> {
        if len < COPIED_BELOW || self.lock().segments.len() >= MOST_SEGMENTS {
            return self.store_file(slices, len, expiry);
        }
        let (segment, claimed) = self.take(PAGE + len)?;
        match segment.fill(&claimed, slices) {
            Ok(()) => Ok(segment.publish(claimed.generation, len, expiry)),
            Err(errno) => {
                self.discard(&segment);
                Err(errno)
            }
        }
    }

    /// An object in a file of its own. Small ones are written by one call, so there is nothing
    /// to recycle that would be worth a lock.
    fn store_file(&self, slices: &[&[u8]], len: usize, expiry: Expiry) -> rustix::io::Result<Name> {
        let name = Name::File { owner: self.owner.id, number: self.number() };
        let file = self.session.create(&name.file())?;
        let payload_at = if len < COPIED_BELOW { HEADER } else { PAGE };
        let tag = Tag::new(1, State::Live);
        let capacity = (payload_at + len) as u64;
        let (payload_starts, size) = (payload_at as u64, len as u64);
        let header = Header { payload_at: payload_starts, tag, len: size, capacity, expiry };
        let header = header.encode();
        let mut list = Vec::with_capacity(slices.len() + 2);
        list.push(&header[..]);
        if payload_at == PAGE {
            static GAP: [u8; PAGE - HEADER] = [0; PAGE - HEADER];
            list.push(&GAP);
        }
        list.extend_from_slice(slices);
        write_all(&file, &list, 0).inspect_err(|_| {
            let _ = self.session.remove(&name.file()); // the first error is the one to report
        })?;
        Ok(name)
    }

    /// A segment of at least `needed` bytes to write to, recycled if possible.
    pub(super) fn take(&self, needed: usize) -> rustix::io::Result<(Arc<Segment>, Claimed)> {
        let capacity = class_of(needed);
        if let Some(taken) = self.recycle(capacity)? {
            return Ok(taken);
        }
        let number = self.number();
        let (segment, claimed) = Segment::create(&self.session, self.owner.id, number, capacity)?;
        let segment = Arc::new(segment);
        let mut inner = self.lock();
        inner.segments.insert(number, Arc::clone(&segment));
        inner.classes.entry(capacity).or_default().ring.push_back(number);
        Ok((segment, claimed))
    }

    fn recycle(&self, capacity: usize) -> rustix::io::Result<Option<(Arc<Segment>, Claimed)>> {
        let mut inner = self.lock();
        let Inner { segments, classes } = &mut *inner;
        for (_, class) in classes.range_mut(capacity..=capacity + capacity / 8) {
            for _ in 0..ATTEMPTS.min(class.free.len()) {
                // The one freed last is the likeliest to be in the processor's cache.
                let Some((number, since)) = class.free.pop_back() else {
                    break;
                };
                let Some(segment) = segments.get(&number) else {
                    continue;
                };
                match segment.claim(&self.session)? {
                    Claim::Taken(claimed) => {
                        self.owner.page.taken(segment.capacity as u64);
                        return Ok(Some((Arc::clone(segment), claimed)));
                    }
                    Claim::Pinned if segment.state() == State::Free => {
                        class.free.push_front((number, since));
                    }
                    Claim::Pinned => {} // listed twice: found by a probe meanwhile
                    Claim::Gone => drop(segments.remove(&number)),
                }
            }
            for _ in 0..PROBES.min(class.ring.len()) {
                let Some(number) = class.ring.pop_front() else {
                    break;
                };
                let Some(segment) = segments.get(&number) else {
                    continue;
                };
                if segment.state() == State::Free
                    && let Claim::Taken(claimed) = segment.claim(&self.session)?
                {
                    class.ring.push_back(number);
                    self.owner.page.taken(segment.capacity as u64);
                    return Ok(Some((Arc::clone(segment), claimed)));
                }
                if segment.state() == State::Dead {
                    segments.remove(&number);
                } else {
                    class.ring.push_back(number);
                }
            }
        }
        Ok(None)
    }

    /// Evicts an object of ours; `None` when the segment is not known here.
    pub(super) fn evict(&self, number: u64, generation: u64) -> Option<()> {
        let mut inner = self.lock();
        let segment = Arc::clone(inner.segments.get(&number)?);
        if segment.evict(generation) {
            self.list_free(&mut inner, &segment);
        }
        Some(())
    }

    /// Takes back a segment that was not used after all.
    pub(super) fn put_back(&self, segment: &Segment, generation: u64) {
        segment.abandon(generation);
        self.list_free(&mut self.lock(), segment);
    }

    fn list_free(&self, inner: &mut Inner, segment: &Segment) {
        self.owner.page.freed(segment.capacity as u64);
        let class = inner.classes.entry(segment.capacity).or_default();
        class.free.push_back((segment.number, Instant::now()));
        self.trim(inner);
    }

    /// Gives back what is over the bound, largest first, and what has been idle for long.
    fn trim(&self, inner: &mut Inner) {
        let Inner { segments, classes } = inner;
        for class in classes.values_mut().rev() {
            while let Some((number, since)) = class.free.front().copied() {
                if !self.owner.page.is_over() && since.elapsed() < IDLE {
                    break;
                }
                class.free.pop_front();
                // Listed twice, it may be in use again.
                let free = |segment: &Arc<Segment>| segment.state() == State::Free;
                if segments.get(&number).is_some_and(free) {
                    self.bury(segments, number);
                }
            }
        }
    }

    fn bury(&self, segments: &mut HashMap<u64, Arc<Segment>>, number: u64) {
        if let Some(segment) = segments.remove(&number) {
            self.owner.page.taken(segment.capacity as u64);
            segment.bury(&self.session);
        }
    }

    /// Removes the name of a segment whose memory may be in use where no pin tells.
    pub(super) fn forget(&self, segment: &Segment) {
        self.lock().segments.remove(&segment.number);
        segment.forget(&self.session);
    }

    /// Removes a segment that could not be written.
    pub(super) fn discard(&self, segment: &Segment) {
        self.lock().segments.remove(&segment.number);
        segment.bury(&self.session);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.generation != crate::fork::generation() {
            return; // a copy in a forked child; everything belongs to the parent
        }
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        for segment in inner.segments.values() {
            match segment.state() {
                State::Free => segment.bury(&self.session),
                State::Writing => segment.forget(&self.session), // an allocation in use
                State::Live | State::Dead => {}
            }
        }
        self.owner.resign(&self.session);
    }
}

/// The size of segment for a need: eight sizes between two powers of two, so that objects of
/// about the same size share segments and at most an eighth stays unused.
fn class_of(needed: usize) -> usize {
    let step = (1_usize << (usize::BITS - 1 - needed.leading_zeros())) / 8;
    needed.next_multiple_of(step.max(PAGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_waste_at_most_an_eighth() {
        for needed in [PAGE + 1, 70_000, 1 << 20, (1 << 20) + 4096, 100_000_000, 5_000_000_000] {
            let class = class_of(needed);
            assert!(class >= needed && class.is_multiple_of(PAGE));
            assert!(class - needed <= (needed / 8).max(PAGE), "{needed} {class}");
        }
    }
}
