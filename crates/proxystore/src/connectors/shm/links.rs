//! Links: where the object of a key that was made in advance lies.
//!
//! A link is a symbolic link that points nowhere: its text is the generation and the name of the
//! object. It is made and replaced in one step and read by one call. Links change under a lock,
//! except when there is none yet.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fd::OwnedFd;
use rustix::fs::{self, AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::{Errno, Result};

use super::layout::Name;
use super::session::Session;
use super::sweep::unlock;

const LINKS_LOCK: &str = "links";

/// The object of a key, and which of its generations that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) generation: u64,
    pub(super) name: Name,
}

/// The link of a key, if it was filled.
pub(super) fn read(session: &Session, id: &str) -> Result<Option<Link>> {
    let text = match fs::readlinkat(&session.keys, id, Vec::with_capacity(96)) {
        Ok(text) => text,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let link = text.to_str().ok().and_then(|text| {
        let (generation, name) = text.split_once('.')?;
        let generation = u64::from_str_radix(generation, 16).ok()?;
        Some(Link { generation, name: Name::parse(name)? })
    });
    link.map(Some).ok_or(Errno::BADMSG)
}

/// Links a key to an object; returns the generation, and the link that was there before.
pub(super) fn set(session: &Session, id: &str, name: Name) -> Result<(u64, Option<Link>)> {
    let generation = next_generation();
    match fs::symlinkat(format!("{generation:x}.{name}"), &session.keys, id) {
        Ok(()) => return Ok((generation, None)),
        Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    locked(session, || {
        let old = read(session, id)?;
        let generation = old.map_or(0, |old| old.generation + 1).max(generation);
        // No id begins with a dot, and under the lock there is one such name at a time.
        let hidden = ".next";
        match fs::unlinkat(&session.keys, hidden, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {} // left by a process that was killed
            Err(errno) => return Err(errno),
        }
        fs::symlinkat(format!("{generation:x}.{name}"), &session.keys, hidden)?;
        fs::renameat(&session.keys, hidden, &session.keys, id)?;
        Ok((generation, old))
    })
}

/// Removes the link of a key, of one generation or, with 0, of any; returns it.
pub(super) fn remove(session: &Session, id: &str, generation: u64) -> Result<Option<Link>> {
    if read(session, id)?.is_none() {
        return Ok(None);
    }
    locked(session, || {
        let link = read(session, id)?;
        let Some(link) = link.filter(|link| generation == 0 || link.generation == generation)
        else {
            return Ok(None);
        };
        fs::unlinkat(&session.keys, id, AtFlags::empty())?;
        Ok(Some(link))
    })
}

fn locked<T>(session: &Session, change: impl FnOnce() -> Result<T>) -> Result<T> {
    let lock: OwnedFd = {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
        fs::openat(&session.dir, LINKS_LOCK, flags, Mode::RUSR | Mode::WUSR)?
    };
    while let Err(errno) = fs::flock(&lock, FlockOperation::LockExclusive) {
        if errno != Errno::INTR {
            return Err(errno);
        }
    }
    let result = change();
    unlock(&lock)?;
    result
}

/// Generations must differ even after a link was removed, whoever makes them: time in
/// microseconds and ten bits that differ between processes.
fn next_generation() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let micros = u64::try_from(now.as_micros()).unwrap_or_default();
    let process = u64::from(std::process::id()) & 1023;
    let now = micros << 10 | process;
    // Later than the last one made here, with the same ten bits.
    let next = |last: u64| Some(if now > last { now } else { last + 1024 });
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    last.ok().and_then(next).unwrap_or(now)
}
