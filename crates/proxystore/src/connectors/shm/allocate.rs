//! Allocations: memory inside a segment, handed out to be filled and later put without a copy.
//!
//! The memory lies at page 2 of a segment; page 1 is left for what a put writes before it. When
//! it is put, the producer's pages are mapped again in place, privately: later writes through any
//! old view stay with the producer. A view that a forked child inherited cannot be remapped from
//! here, so memory that was there during a fork is copied when it is put, and never recycled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::layout::Name;
use super::pin;
use super::pool::Pool;
use super::segment::Segment;
use super::sys::{Mapping, PAGE};
use crate::buffer::Buffer;
use crate::connectors::expiry::Expiry;
use crate::fork;

/// The allocations of this process, by address.
#[derive(Debug, Default)]
pub(super) struct Allocations {
    table: Mutex<HashMap<usize, Weak<Allocation>>>,
}

#[derive(Debug)]
struct Allocation {
    data: Mapping,
    len: usize,
    /// The segment and its generation, until they are published.
    segment: Mutex<Option<(Arc<Segment>, u64)>>,
    pool: Weak<Pool>,
    generation: u64,
    forks: u64,
}

/// What a buffer owns: alone, so that it can be written to, while the table has weak references.
struct Holder {
    _allocation: Arc<Allocation>,
}

impl Allocations {
    /// `len` bytes in a segment; zeros where the segment is new, else old bytes of this user.
    pub(super) fn allocate(&self, pool: &Arc<Pool>, len: usize) -> rustix::io::Result<Buffer> {
        let (generation, forks) = (fork::generation(), fork::count());
        let pages = len.max(1).next_multiple_of(PAGE);
        let (segment, claimed) = pool.take(2 * PAGE + pages)?;
        let data = segment
            .back(&claimed, 2 * PAGE + pages)
            .and_then(|()| segment.map_part(&claimed, 2 * PAGE, pages))
            .inspect_err(|_| pool.discard(&segment))?;
        let allocation = Arc::new(Allocation {
            data,
            len,
            segment: Mutex::new(Some((segment, claimed.generation))),
            pool: Arc::downgrade(pool),
            generation,
            forks,
        });
        let address = allocation.data.at(0).addr().get();
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.len() >= 64 && table.len().is_power_of_two() {
            table.retain(|_, allocation| allocation.strong_count() > 0);
        }
        table.insert(address, Arc::downgrade(&allocation));
        let holder = Arc::new(Holder { _allocation: Arc::clone(&allocation) });
        Ok(pin::allocation(&allocation.data, len, holder))
    }

    /// Publishes the allocation that the last slice is, if the others fill exactly the page
    /// before it; `None` when the slices have to be copied.
    pub(super) fn publish(
        &self,
        pool: &Pool,
        slices: &[&[u8]],
        len: usize,
        expiry: Expiry,
    ) -> Option<Name> {
        let (last, head) = slices.split_last()?;
        if len - last.len() != PAGE {
            return None;
        }
        let allocation = {
            let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
            table.get(&last.as_ptr().addr())?.upgrade()?
        };
        if last.len() > allocation.len {
            return None;
        }
        allocation.publish(pool, head, len, expiry)
    }
}

impl Allocation {
    fn was_forked(&self) -> bool {
        fork::generation() != self.generation || fork::count() != self.forks
    }

    fn publish(&self, pool: &Pool, head: &[&[u8]], len: usize, expiry: Expiry) -> Option<Name> {
        let mut place = self.segment.lock().unwrap_or_else(PoisonError::into_inner);
        if self.was_forked() {
            return None;
        }
        let (segment, generation) = place.take()?;
        segment.write_head(head);
        // Unmapping a page table page by page would take as long as a small copy. Where it cannot
        // be moved, so be it.
        let moved = self.data.move_tables();
        let remapped = segment
            .pinned(&pool.session)
            .and_then(|file| self.data.make_private(&file, 2 * PAGE as u64));
        if remapped.is_err() {
            *place = Some((segment, generation));
            return None; // no memory for another mapping; a copy may still succeed
        }
        if self.was_forked() {
            // While it was remapped, that is: a child may still share it.
            pool.forget(&segment);
            return None;
        }
        if let Ok(moved) = moved {
            segment.keep(moved);
        }
        Some(segment.publish(generation, len, expiry))
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if self.generation != fork::generation() {
            return; // a copy in a forked child; the segment belongs to the parent
        }
        let place = self.segment.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some((segment, generation)) = place.take() else {
            return;
        };
        match self.pool.upgrade() {
            Some(pool) if fork::count() == self.forks => pool.put_back(&segment, generation),
            Some(pool) => pool.forget(&segment),
            None => {} // the pool has removed its name
        }
    }
}
