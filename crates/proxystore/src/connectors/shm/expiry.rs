//! Times to live: the header of an object has its end, which any process may move.
//!
//! Nobody finds an expired object; its memory is freed by whoever sweeps the session: a process that
//! opens a connector, puts now and then, or runs out of room. A file tells whether there is anything
//! to look for, so that sessions without times to live pay nothing.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::Ordering;

use rustix::fd::OwnedFd;
use rustix::fs::{self, FlockOperation, OFlags};
use rustix::io::{Errno, Result};

use super::layout::{Header, Name, State, TAG_AT, Tag};
use super::links;
use super::read::read_header;
use super::session::Session;
use super::sweep::{file_names, unlock, was_freed};
use super::sys::{Mapping, PAGE};

/// The file that is there when objects have times to live.
const MARK: &str = "expiring";

/// Tells all who sweep from now on that there is something to look for.
pub(super) fn mark(session: &Session) -> Result<()> {
    match session.create(MARK) {
        Err(Errno::EXIST) => Ok(()),
        made => made.map(drop),
    }
}

/// Whether there may be something to look for in the session of a directory.
pub(super) fn is_marked(session: &Path) -> bool {
    session.join(MARK).exists()
}

/// Frees the expired objects of a session; says how many, and how many bytes they had.
pub(super) fn sweep(session: &Session) -> Result<(u64, u64)> {
    if !is_marked(&session.path) {
        return Ok((0, 0));
    }
    let (mut gone, mut bytes) = (HashSet::new(), 0);
    for file in file_names(&session.dir)? {
        let Some(Ok(opened)) = Name::of_file(&file).map(|_| session.open_file(&file, OFlags::RDWR))
        else {
            continue; // no object, or removed meanwhile
        };
        if !read_header(&opened)?.is_some_and(|header| header.expiry.is_past()) {
            continue;
        }
        // Whoever renews it holds the lock, and so does who reads it: then it is for the next sweep.
        if fs::flock(&opened, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        let freed = free(session, &file, &opened);
        unlock(&opened)?;
        let Some((name, size)) = freed? else {
            continue;
        };
        if matches!(name, Name::Segment { .. }) {
            was_freed(session, name, size)?;
        }
        gone.insert(name);
        bytes += size;
    }
    if !gone.is_empty() {
        remove_links(session, &gone)?;
    }
    Ok((gone.len() as u64, bytes))
}

/// Frees an object whose file is locked, if it is still there and expired.
fn free(session: &Session, file: &str, opened: &OwnedFd) -> Result<Option<(Name, u64)>> {
    let is_expired = |h: &Header| h.tag.state == State::Live && h.expiry.is_past();
    let Some(header) = read_header(opened)?.filter(is_expired) else {
        return Ok(None);
    };
    let name = match Name::of_file(file) {
        None => return Ok(None),
        Some(name @ Name::File { .. }) => {
            session.remove(file)?;
            name
        }
        Some(Name::Segment { owner, number, .. }) => {
            let page = Mapping::shared_writable(opened, 0, PAGE)?;
            let free = Tag::new(header.tag.generation, State::Free).word();
            let (live, order) = (header.tag.word(), Ordering::SeqCst);
            if page.word(TAG_AT).compare_exchange(live, free, order, order).is_err() {
                return Ok(None); // evicted meanwhile
            }
            Name::Segment { owner, number, generation: header.tag.generation }
        }
    };
    Ok(Some((name, header.capacity)))
}

/// Removes the links to objects that are gone.
fn remove_links(session: &Session, gone: &HashSet<Name>) -> Result<()> {
    let is_id = |name: &String| !name.starts_with('.');
    for id in file_names(&session.keys)?.into_iter().filter(is_id) {
        if let Ok(Some(link)) = links::read(session, &id)
            && gone.contains(&link.name)
        {
            links::remove(session, &id, link.generation)?;
        }
    }
    Ok(())
}
