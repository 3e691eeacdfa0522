//! Reading: find the file, pin it, check that it still holds the object, then copy or map.

use std::ops::Range;
use std::sync::atomic::Ordering;

use rustix::fd::OwnedFd;
use rustix::fs::{self, FlockOperation, OFlags};
use rustix::io::Errno;

use super::layout::{EXPIRY_AT, HEADER, Header, Name, State, TAG_AT, Tag};
use super::pin;
use super::session::{Session, io};
use super::sweep::unlock;
use super::sys::{Mapping, PAGE};
use super::views::Views;
use crate::buffer::Buffer;
use crate::connectors::expiry::Expiry;
use crate::connectors::{Access, checked_range, wrong_length};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;

const GET: &str = "get object";

/// Objects and ranges shorter than this are copied: that is faster than mapping and unmapping
/// them, and keeps no segment pinned.
pub(super) const COPIED_BELOW: usize = 64 * 1024;

/// The same for private memory, which is mapped anew each time: up to here, what the allocator has
/// at hand is quicker than fresh page tables and a fault a page.
const PRIVATE_COPIED_BELOW: usize = 128 * 1024;

/// An object, found and pinned for as long as this lives.
pub(super) struct Found {
    file: OwnedFd,
    name: Name,
    header: Header,
    file_size: u64,
}

/// The header of an object file; `None` when it has none (yet).
pub(super) fn read_header(file: &OwnedFd) -> rustix::io::Result<Option<Header>> {
    let mut bytes = [0; HEADER];
    let got = rustix::io::pread(file, &mut bytes[..], 0)?;
    Ok(if got == HEADER { Header::decode(&bytes) } else { None })
}

/// Finds and pins the object of a name; `None` when it is not there (any more).
pub(super) fn find(session: &Session, name: Name) -> rustix::io::Result<Option<Found>> {
    let Some(found) = find_with(session, name, OFlags::RDONLY)? else {
        return Ok(None);
    };
    if found.header.expiry.is_past() {
        found.unpin();
        return Ok(None);
    }
    Ok(Some(found))
}

/// The same, expired or not, and with these rights to the file.
fn find_with(session: &Session, name: Name, access: OFlags) -> rustix::io::Result<Option<Found>> {
    let file = match session.open_file(&name.file(), access) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let generation = match name {
        Name::File { .. } => 1,
        Name::Segment { generation, .. } => {
            if !pin_file(&file, generation)? {
                return Ok(None);
            }
            generation
        }
    };
    let expected = Tag::new(generation, State::Live);
    let header = read_header(&file)?;
    let file_size = u64::try_from(fs::fstat(&file)?.st_size).unwrap_or_default();
    match header {
        Some(header) if header.tag == expected => {
            let found = Found { file, name, header, file_size };
            if header.fits(file_size) { Ok(Some(found)) } else { Err(Errno::BADMSG) }
        }
        // The header of another version, or damage; a missing name has been told apart above.
        None => Err(Errno::BADMSG),
        Some(_) => Ok(None),
    }
}

/// Takes the shared lock that keeps a segment from being recycled.
fn pin_file(file: &OwnedFd, generation: u64) -> rustix::io::Result<bool> {
    match fs::flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => {
            // Somebody who recycles it, or who only looked whether that is possible, which takes
            // a few microseconds.
            let live = Some(Tag::new(generation, State::Live));
            if read_header(file)?.map(|header| header.tag) != live {
                return Ok(false);
            }
            fs::flock(file, FlockOperation::LockShared)?;
            Ok(true)
        }
        Err(errno) => Err(errno),
    }
}

/// Whether there is an object of this name.
pub(super) fn exists(session: &Session, name: Name) -> rustix::io::Result<bool> {
    let file = match session.open_file(&name.file(), OFlags::RDONLY) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(false),
        Err(errno) => return Err(errno),
    };
    let generation = match name {
        Name::File { .. } => 1,
        Name::Segment { generation, .. } => generation,
    };
    let live = Tag::new(generation, State::Live);
    Ok(read_header(&file)?.is_some_and(|header| header.tag == live && header.is_live()))
}

/// Lets the object of a name vanish then; `None` when it is not there (any more).
///
/// Who sweeps wants the lock for itself, so that it looks either before this or after.
pub(super) fn renew(
    session: &Session,
    name: Name,
    expiry: Expiry,
) -> rustix::io::Result<Option<()>> {
    let Some(found) = find_with(session, name, OFlags::RDWR)? else {
        return Ok(None);
    };
    if matches!(name, Name::File { .. }) {
        fs::flock(&found.file, FlockOperation::LockShared)?;
    }
    let live = read_header(&found.file)?.is_some_and(|header| header.is_live());
    if live {
        let page = Mapping::shared_writable(&found.file, 0, PAGE)?;
        page.word(EXPIRY_AT).store(expiry.word().to_le(), Ordering::Release);
    }
    unlock(&found.file)?;
    Ok(live.then_some(()))
}

/// Frees a segment of another process: live becomes free. True when it did.
///
/// The pin makes the two steps one: its owner cannot begin to recycle in between.
pub(super) fn release(session: &Session, name: Name) -> rustix::io::Result<Option<u64>> {
    let found = match find_with(session, name, OFlags::RDWR) {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let free = Tag::new(found.header.tag.generation, State::Free).bytes();
    rustix::io::pwrite(&found.file, &free, TAG_AT as u64)?;
    unlock(&found.file)?;
    Ok(Some(found.file_size))
}

/// What a failed [`find`] means to the caller.
pub(super) fn error(key: &Key, errno: Errno) -> Error {
    if errno == Errno::BADMSG {
        return Error::new(ErrorKind::Corrupt, GET, "the object is damaged or cut short")
            .with("key", key)
            .with_hint("something altered the files of the session; store the object again");
    }
    io(GET, errno).with("key", key)
}

impl Found {
    /// The bytes of a range, copied or mapped, whichever is faster.
    pub(super) fn get(
        self,
        key: &Key,
        range: Option<&Range<u64>>,
        access: Access,
        session: &Session,
        views: &Views,
    ) -> Result<Buffer> {
        let range = checked_range(key, range, self.header.len)?;
        let start = self.header.payload_at + range.start;
        let len = usize::try_from(range.end - range.start)
            .map_err(|source| Error::io(GET, std::io::Error::other(source)))?;
        let failed = |errno| io(GET, errno).with("key", key);
        let copied_below =
            if access == Access::Private { PRIVATE_COPIED_BELOW } else { COPIED_BELOW };
        if len < copied_below {
            let mut copy = Buffer::zeroed(len);
            if let Some(target) = copy.as_mut() {
                self.read(start, target).map_err(failed)?;
            }
            self.unpin();
            return Ok(if access == Access::ReadOnly { copy.into_read_only() } else { copy });
        }
        match (access, self.name) {
            (Access::Private, _) => pin::private(&self.file, start, len),
            (Access::ReadOnly, Name::File { .. }) => pin::shared(&self.file, start, len),
            (Access::ReadOnly, Name::Segment { .. }) => {
                match views.of(session, self.name, self.file_size) {
                    Ok(view) => pin::view(&self.file, view, start, len),
                    // Evicted and given back since it was found; the file at hand still has it.
                    Err(Errno::NOENT) => pin::shared(&self.file, start, len),
                    Err(errno) => Err(errno),
                }
            }
        }
        .map_err(failed)
    }

    /// Fills `target` with the bytes of a range.
    pub(super) fn get_into(
        self,
        key: &Key,
        range: Option<&Range<u64>>,
        target: &mut [u8],
    ) -> Result<()> {
        let range = checked_range(key, range, self.header.len)?;
        let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        if len != target.len() {
            return Err(wrong_length(key, len, target.len()));
        }
        let start = self.header.payload_at + range.start;
        self.read(start, target).map_err(|errno| io(GET, errno).with("key", key))?;
        self.unpin();
        Ok(())
    }

    fn read(&self, mut start: u64, mut target: &mut [u8]) -> rustix::io::Result<()> {
        while !target.is_empty() {
            match rustix::io::pread(&self.file, &mut *target, start) {
                Ok(0) => return Err(Errno::BADMSG),
                Ok(got) => {
                    target = &mut target[got..];
                    start += got as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Lets go at once, even if a child forked meanwhile has the description too.
    fn unpin(self) {
        if matches!(self.name, Name::Segment { .. }) {
            let _ = unlock(&self.file); // closing follows and does the same
        }
    }
}
