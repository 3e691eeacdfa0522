//! Owners: each process recycles the segments it made, and a lock tells whether it lives.
//!
//! The owner's file is locked for as long as the process lives and has one page: how many bytes
//! of its segments are free, and how many may be. Others that evict its objects keep the account,
//! so that the bound holds even when the owner itself never comes by again.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fd::OwnedFd;
use rustix::fs::{self, FlockOperation, OFlags};
use rustix::io::Errno;

use super::session::Session;
use super::sweep::unlock;
use super::sys::{Mapping, PAGE};
use crate::error::Result;

pub(super) const OWNER_PREFIX: &str = "own-";

/// This process as the owner of segments in a session.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) id: u64,
    pub(super) page: Page,
    lock: OwnedFd,
}

impl Owner {
    pub(super) fn register(session: &Session, bound: u64) -> Result<Self> {
        const REGISTER: &str = "register with a shared-memory session";
        let unique = crate::key::unique_id()?;
        let id = u64::from_str_radix(&unique[..16], 16).unwrap_or_default();
        let hidden = format!("new-{unique}");
        let register = || {
            let lock = session.create(&hidden)?;
            // The page exists before it is mapped; it is locked before anybody can find it.
            fs::fallocate(&lock, fs::FallocateFlags::empty(), 0, PAGE as u64)?;
            fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
            let page = Page(Mapping::shared_writable(&lock, 0, PAGE)?);
            page.bound().store(bound, Ordering::Relaxed);
            fs::renameat(&session.dir, &hidden, &session.dir, file(id))?;
            Ok(Self { id, page, lock })
        };
        register().map_err(|errno| {
            let _ = session.remove(&hidden);
            super::session::io(REGISTER, errno).with("directory", session.path.display())
        })
    }

    /// From here on its segments have no owner.
    pub(super) fn resign(&self, session: &Session) {
        let _ = session.remove(&file(self.id)); // at worst it is taken for dead, which is right
        let _ = unlock(&self.lock);
    }
}

/// The shared account of an owner's free segments.
#[derive(Debug)]
pub(super) struct Page(Mapping);

impl Page {
    /// The page of another owner; `None` when it is gone.
    pub(super) fn open(session: &Session, owner: u64) -> Option<Self> {
        Self::of_file(&session.open_file(&file(owner), OFlags::RDWR).ok()?)
    }

    fn of_file(opened: &OwnedFd) -> Option<Self> {
        Mapping::shared_writable(opened, 0, PAGE).ok().map(Self)
    }

    fn free(&self) -> &AtomicU64 {
        self.0.word(0)
    }

    fn bound(&self) -> &AtomicU64 {
        self.0.word(8)
    }

    /// Counts a segment that became free.
    pub(super) fn freed(&self, bytes: u64) {
        self.free().fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts a segment that is in use again, or gone.
    pub(super) fn taken(&self, bytes: u64) {
        let less = |free: u64| Some(free.saturating_sub(bytes));
        let _ = self.free().fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Whether more is free than may be kept.
    pub(super) fn is_over(&self) -> bool {
        self.free().load(Ordering::Relaxed) > self.bound().load(Ordering::Relaxed)
    }
}

/// Another owner, whose file and page are kept open: who evicts one of its objects mostly evicts
/// more of them.
#[derive(Debug)]
pub(super) struct Neighbour {
    id: u64,
    file: OwnedFd,
    pub(super) page: Page,
}

impl Neighbour {
    /// The one that `kept` holds if it is this owner, else opened anew; `None` when its process is
    /// gone.
    pub(super) fn living<'a>(
        kept: &'a mut Option<Self>,
        session: &Session,
        id: u64,
    ) -> Option<&'a Self> {
        if kept.as_ref().is_none_or(|known| known.id != id) {
            *kept = Self::open(session, id);
        }
        *kept = kept.take().filter(|known| is_locked(&known.file));
        kept.as_ref()
    }

    fn open(session: &Session, id: u64) -> Option<Self> {
        let file = session.open_file(&file(id), OFlags::RDWR).ok()?;
        let page = Page::of_file(&file)?;
        Some(Self { id, file, page })
    }
}

/// The file of an owner.
pub(super) fn file(owner: u64) -> String {
    format!("{OWNER_PREFIX}{owner:016x}")
}

/// Whether a process still holds the lock of this owner.
pub(super) fn is_alive(session: &Session, owner: u64) -> bool {
    let Ok(opened) = session.open_file(&file(owner), OFlags::RDONLY) else {
        return false;
    };
    is_locked(&opened)
}

fn is_locked(opened: &OwnedFd) -> bool {
    let locked = fs::flock(opened, FlockOperation::NonBlockingLockShared);
    if locked.is_ok() {
        let _ = unlock(opened);
    }
    locked == Err(Errno::WOULDBLOCK)
}
