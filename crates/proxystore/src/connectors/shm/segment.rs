//! Segments: files that hold one object after the other, so that their pages are never fresh.
//!
//! Page 0 is the header, the payload begins at page 1. The first object is written by `write`,
//! which is the fastest way to fill fresh pages; later ones through a mapping that is kept, whose
//! pages are already there, at the speed of a copy in memory.
//!
//! Order is everything. The owner recycles only what is free and, as an exclusive lock on a
//! description of its own proves, pinned by nobody. It bumps the generation before it lets go of
//! that lock; a reader that comes later finds another generation and goes away.

use std::io::IoSlice;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fd::OwnedFd;
use rustix::fs::{self, FallocateFlags, FlockOperation, OFlags};
use rustix::io::Errno;

use super::layout::{EXPIRY_AT, Header, LEN_AT, Name, State, TAG_AT, Tag};
use super::session::Session;
use super::sweep::{bury, unlock};
use super::sys::{Mapping, PAGE};
use crate::connectors::expiry::Expiry;

/// A segment this process owns.
#[derive(Debug)]
pub(super) struct Segment {
    owner: u64,
    pub(super) number: u64,
    pub(super) capacity: usize,
    map: Mapping,
    /// Up to where the file has pages.
    backed: AtomicUsize,
    /// Up to where the kept mapping has page table entries.
    mapped: AtomicUsize,
    /// The page table of the last allocation here, for the next one.
    spare: Mutex<Option<Mapping>>,
}

/// What came of trying to recycle a segment.
pub(super) enum Claim {
    /// It is ours to write.
    Taken(Claimed),
    /// Somebody still looks at its old bytes.
    Pinned,
    /// It was given back to the system.
    Gone,
}

/// The right to write a segment.
#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) file: OwnedFd,
    pub(super) generation: u64,
}

impl Segment {
    /// Makes an empty segment, in state writing.
    pub(super) fn create(
        session: &Session,
        owner: u64,
        number: u64,
        capacity: usize,
    ) -> rustix::io::Result<(Self, Claimed)> {
        let name = Name::Segment { owner, number, generation: 1 };
        let file = session.create(&name.file())?;
        let make = || {
            fs::ftruncate(&file, capacity as u64)?;
            let tag = Tag::new(1, State::Writing);
            let payload_at = PAGE as u64;
            let (size, expiry) = (capacity as u64, Expiry::NEVER);
            let header = Header { payload_at, tag, len: 0, capacity: size, expiry };
            write_all(&file, &[&header.encode()], 0)?;
            Mapping::shared_writable(&file, 0, capacity)
        };
        match make() {
            Ok(map) => {
                let (backed, mapped) = (AtomicUsize::new(PAGE), AtomicUsize::new(0));
                let spare = Mutex::default();
                let segment = Self { owner, number, capacity, map, backed, mapped, spare };
                Ok((segment, Claimed { file, generation: 1 }))
            }
            Err(errno) => {
                let _ = session.remove(&name.file());
                Err(errno)
            }
        }
    }

    fn tag(&self) -> Tag {
        Tag::from_word(self.map.word(TAG_AT).load(Ordering::Acquire))
    }

    pub(super) fn state(&self) -> State {
        self.tag().state
    }

    fn change(&self, from: Tag, to: Tag) -> bool {
        let (from, to) = (from.word(), to.word());
        let word = self.map.word(TAG_AT);
        word.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn file(&self) -> String {
        Name::Segment { owner: self.owner, number: self.number, generation: 0 }.file()
    }

    /// Takes a free segment for writing, if nobody has a pin on it.
    pub(super) fn claim(&self, session: &Session) -> rustix::io::Result<Claim> {
        let free = self.tag();
        if free.state != State::Free {
            return Ok(if free.state == State::Dead { Claim::Gone } else { Claim::Pinned });
        }
        let file = match session.open_file(&self.file(), OFlags::RDWR) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(Claim::Gone),
            Err(errno) => return Err(errno),
        };
        match fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(Claim::Pinned),
            Err(errno) => return Err(errno),
        }
        let generation = free.generation + 1;
        let taken = self.change(free, Tag::new(generation, State::Writing));
        unlock(&file)?;
        Ok(if taken { Claim::Taken(Claimed { file, generation }) } else { Claim::Gone })
    }

    /// Makes sure that the file has pages up to `end`, so that writing them cannot fail.
    pub(super) fn back(&self, claimed: &Claimed, end: usize) -> rustix::io::Result<()> {
        let backed = self.backed.load(Ordering::Relaxed);
        if end > backed {
            let len = (end - backed) as u64;
            fs::fallocate(&claimed.file, FallocateFlags::empty(), backed as u64, len)?;
            self.backed.store(end, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Writes slices from page 1 on: with `write` where pages are missing, else in memory.
    pub(super) fn fill(&self, claimed: &Claimed, slices: &[&[u8]]) -> rustix::io::Result<()> {
        let end = PAGE + slices.iter().map(|slice| slice.len()).sum::<usize>();
        let mapped = self.mapped.load(Ordering::Relaxed);
        if end > self.backed.load(Ordering::Relaxed) {
            write_all(&claimed.file, slices, PAGE as u64)?;
            self.backed.store(end, Ordering::Relaxed);
            return Ok(());
        }
        if end > mapped {
            self.map.populate(mapped, end - mapped);
            self.mapped.store(end, Ordering::Relaxed);
        }
        self.map.write(PAGE, slices);
        Ok(())
    }

    /// Makes what was written an object.
    pub(super) fn publish(&self, generation: u64, len: usize, expiry: Expiry) -> Name {
        self.map.word(LEN_AT).store((len as u64).to_le(), Ordering::Relaxed);
        self.map.word(EXPIRY_AT).store(expiry.word().to_le(), Ordering::Relaxed);
        let live = Tag::new(generation, State::Live).word();
        self.map.word(TAG_AT).store(live, Ordering::SeqCst);
        Name::Segment { owner: self.owner, number: self.number, generation }
    }

    /// Gives up writing; the segment is free again.
    pub(super) fn abandon(&self, generation: u64) {
        self.change(Tag::new(generation, State::Writing), Tag::new(generation, State::Free));
    }

    /// Evicts the object of one generation; false when it is not there (any more).
    pub(super) fn evict(&self, generation: u64) -> bool {
        self.change(Tag::new(generation, State::Live), Tag::new(generation, State::Free))
    }

    /// Maps the bytes from `offset` on once more, to be handed out.
    pub(super) fn map_part(
        &self,
        claimed: &Claimed,
        offset: usize,
        len: usize,
    ) -> rustix::io::Result<Mapping> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(spare) = spare.filter(|spare| spare.len() == len) {
            return Ok(spare);
        }
        let part = Mapping::shared_writable(&claimed.file, offset as u64, len)?;
        part.populate(0, len);
        Ok(part)
    }

    /// Keeps a mapping made by `map_part` for the next time.
    pub(super) fn keep(&self, part: Mapping) {
        *self.spare.lock().unwrap_or_else(PoisonError::into_inner) = Some(part);
    }

    /// A description of the segment's file that pins it.
    pub(super) fn pinned(&self, session: &Session) -> rustix::io::Result<OwnedFd> {
        let file = session.open_file(&self.file(), OFlags::RDWR)?;
        fs::flock(&file, FlockOperation::LockShared)?;
        Ok(file)
    }

    /// Writes the page before an allocation.
    pub(super) fn write_head(&self, slices: &[&[u8]]) {
        self.map.write(PAGE, slices);
    }

    /// Removes the name of the segment; its memory stays for whoever maps it.
    pub(super) fn forget(&self, session: &Session) {
        let _ = session.remove(&self.file()); // at worst swept with the session
    }

    /// Gives the segment back to the system.
    pub(super) fn bury(&self, session: &Session) {
        let Ok(file) = session.open_file(&self.file(), OFlags::RDWR) else {
            return;
        };
        let alone = fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        let _ = bury(session, &file, &self.file(), alone); // at worst swept with the session
        let _ = unlock(&file);
    }
}

/// Writes slices one after the other; on tmpfs only a lack of space cuts a write short.
pub(super) fn write_all(
    file: &OwnedFd,
    slices: &[&[u8]],
    mut offset: u64,
) -> rustix::io::Result<()> {
    const AT_ONCE: usize = 1024;
    for slices in slices.chunks(AT_ONCE) {
        let mut list: Vec<_> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
        let mut rest = &mut list[..];
        IoSlice::advance_slices(&mut rest, 0); // leaves out empty ones at the front
        while !rest.is_empty() {
            match rustix::io::pwritev(file, rest, offset) {
                Ok(0) => return Err(Errno::NOSPC),
                Ok(written) => {
                    IoSlice::advance_slices(&mut rest, written);
                    offset += written as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}
