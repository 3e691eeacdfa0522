//! How many bytes may be stored, and how many are: every byte that is kept has a [`Charge`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A bound in bytes.
#[derive(Debug)]
pub(super) struct Room {
    used: AtomicU64,
    limit: u64,
    /// Only [`take_last`](Self::take_last) comes closer to the limit than this.
    reserve: u64,
}

impl Room {
    pub(super) fn new(limit: u64, reserve: u64) -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), limit, reserve })
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn free(&self) -> u64 {
        (self.limit - self.reserve).saturating_sub(self.used())
    }

    /// Room for so many bytes, if there is.
    pub(super) fn take(self: &Arc<Self>, bytes: u64) -> Option<Charge> {
        let mut charge = Charge { room: Arc::clone(self), bytes: 0 };
        charge.grow(bytes).then_some(charge)
    }

    /// The same, where the reserve may be used too.
    pub(super) fn take_last(self: &Arc<Self>, bytes: u64) -> Option<Charge> {
        let mut charge = Charge { room: Arc::clone(self), bytes: 0 };
        charge.grow_to(bytes, self.limit).then_some(charge)
    }

    /// Charges what is there already, beyond the bound if need be.
    pub(super) fn insist(self: &Arc<Self>, bytes: u64) -> Charge {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Charge { room: Arc::clone(self), bytes }
    }
}

/// Bytes that are charged until this is dropped.
#[derive(Debug)]
pub(super) struct Charge {
    room: Arc<Room>,
    bytes: u64,
}

impl Charge {
    /// Takes more, if there is room.
    pub(super) fn grow(&mut self, bytes: u64) -> bool {
        self.grow_to(bytes, self.room.limit - self.room.reserve)
    }

    fn grow_to(&mut self, bytes: u64, limit: u64) -> bool {
        let more = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= limit);
        let grown = bytes == 0
            || self.room.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        if grown {
            self.bytes += bytes;
        }
        grown
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes in another of the same room.
    pub(super) fn merge(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.room, &other.room), "charges of one room");
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Parts with some of it.
    pub(super) fn split(&mut self, bytes: u64) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { room: Arc::clone(&self.room), bytes }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.room.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
