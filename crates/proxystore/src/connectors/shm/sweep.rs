//! Sweeping: removing what nobody holds, and giving back what is free.

use std::ffi::CStr;
use std::path::Path;
use std::sync::PoisonError;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, AtFlags, FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::expiry;
use super::layout::{Header, Name, State, TAG_AT, Tag};
use super::owner::{self, OWNER_PREFIX};
use super::read::read_header;
use super::session::{KEYS, LOCK, PERSIST, default_root, io, lock_session, user_directory};
use super::session::{Session, open_file};
use super::sys::PAGE;
use crate::error::Result;

const SWEEP: &str = "sweep shared memory";

/// What a [`sweep`] found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Sessions that nobody held, now removed.
    pub removed: Vec<String>,
    /// Sessions left alone because a process holds them.
    pub held: Vec<String>,
    /// Sessions left alone because they were opened with `persist`.
    pub persistent: Vec<String>,
    /// Objects removed with their sessions, and expired ones in the sessions left alone.
    pub objects: u64,
    /// Memory given back, in bytes.
    pub bytes: u64,
}

/// Removes every session of this user below `root` (`/dev/shm` by default) that no process holds
/// and that is not persistent: what crashed or finished programs left; in the other sessions,
/// objects that expired.
///
/// Opening a connector does the same; this function is for programs that clean up on purpose.
/// Whether a process is alive is told by the locks it holds, never by its number, so that
/// containers which share the directory do not sweep each other.
///
/// # Errors
/// When the directory cannot be read. Sessions that cannot be removed are skipped.
pub fn sweep(root: Option<&Path>) -> Result<SweepReport> {
    let root = root.map_or_else(default_root, Path::to_owned);
    let mut report = sweep_where(&root, |_| true)?;
    for name in report.held.iter().chain(&report.persistent) {
        let path = user_directory(&root).join(name);
        if expiry::is_marked(&path)
            && let Ok(Some(session)) = Session::join(&path, false)
        {
            let (objects, bytes) = expiry::sweep(&session).unwrap_or_default();
            report.objects += objects;
            report.bytes += bytes;
            drop(session);
            let _ = sweep_one(&root, name); // the last to leave meanwhile took us for a user
        }
    }
    Ok(report)
}

/// Removes one session if nobody holds it any more: what the last to leave does.
pub(crate) fn sweep_one(root: &Path, session: &str) -> Result<SweepReport> {
    sweep_where(root, |name| name == session)
}

fn sweep_where(root: &Path, wanted: impl Fn(&str) -> bool) -> Result<SweepReport> {
    let user = user_directory(root);
    let mut report = SweepReport::default();
    let at = |errno| io(SWEEP, errno).with("directory", user.display());
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let dir = match fs::open(&user, flags, Mode::empty()) {
        Ok(dir) => dir,
        Err(Errno::NOENT) => return Ok(report),
        Err(errno) => return Err(at(errno)),
    };
    for name in file_names(&dir).map_err(at)?.iter().filter(|name| wanted(name)) {
        if let Ok(session) = fs::openat(&dir, name, flags, Mode::empty()) {
            // A session that cannot be swept now will be found again by the next sweep.
            let _ = sweep_session(&dir, name, &session, &mut report);
        }
    }
    Ok(report)
}

fn sweep_session(
    parent: &OwnedFd,
    name: &str,
    session: &OwnedFd,
    report: &mut SweepReport,
) -> rustix::io::Result<()> {
    let lock = lock_session(session, FlockOperation::NonBlockingLockExclusive)?;
    if lock.is_none() {
        report.held.push(name.to_owned());
        return Ok(());
    }
    if fs::statat(session, PERSIST, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
        report.persistent.push(name.to_owned());
        return Ok(());
    }
    for file in file_names(session)? {
        if file == LOCK {
            continue;
        }
        if file == KEYS {
            remove_links(session)?;
            fs::unlinkat(session, KEYS, AtFlags::REMOVEDIR)?;
            continue;
        }
        if let Ok(stat) = fs::statat(session, &file, AtFlags::SYMLINK_NOFOLLOW) {
            report.bytes += u64::try_from(stat.st_blocks).unwrap_or_default() * 512;
        }
        report.objects += u64::from(is_live(session, &file));
        fs::unlinkat(session, &file, AtFlags::empty())?;
    }
    // Whoever opened the lock file meanwhile finds it replaced once we let go, and starts over.
    fs::unlinkat(session, LOCK, AtFlags::empty())?;
    match fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) => report.removed.push(name.to_owned()),
        Err(Errno::NOTEMPTY | Errno::EXIST) => {} // somebody has just begun to use it again
        Err(errno) => return Err(errno),
    }
    Ok(())
}

fn is_live(dir: &OwnedFd, file: &str) -> bool {
    Name::of_file(file).is_some() && header_of(dir, file).is_some_and(is_whole)
}

fn header_of(dir: &OwnedFd, file: &str) -> Option<(Header, u64)> {
    let opened = open_file(dir, file, OFlags::RDONLY).ok()?;
    let size = u64::try_from(fs::fstat(&opened).ok()?.st_size).ok()?;
    Some((read_header(&opened).ok().flatten()?, size))
}

fn is_whole((header, size): (Header, u64)) -> bool {
    header.tag.state == State::Live && header.fits(size)
}

/// Clears up after owners that died in a session which lives on: removes what they were writing
/// or had free, keeps their objects.
pub(super) fn clear_up(session: &Session) -> rustix::io::Result<()> {
    let files = file_names(&session.dir)?;
    let owner_of = |file: &str| u64::from_str_radix(file.strip_prefix(OWNER_PREFIX)?, 16).ok();
    let mut dead = Vec::new();
    for owner in files.iter().filter_map(|file| owner_of(file)) {
        if !owner::is_alive(session, owner) {
            dead.push(owner);
        }
    }
    if dead.is_empty() {
        return Ok(()); // the usual case; looks into no object
    }
    for file in &files {
        let Some(name) = Name::of_file(file).filter(|name| dead.contains(&name.owner())) else {
            continue;
        };
        if header_of(&session.dir, file).is_some_and(is_whole) {
            continue;
        }
        match name {
            Name::File { .. } => drop(session.remove(file)),
            Name::Segment { .. } => drop(give_back(session, file, false)),
        }
    }
    for owner in dead {
        let _ = session.remove(&owner::file(owner));
    }
    Ok(())
}

/// What follows when a segment was freed by another than its owner.
pub(super) fn was_freed(session: &Session, name: Name, size: u64) -> rustix::io::Result<()> {
    let is_over = {
        let mut kept = session.neighbour.lock().unwrap_or_else(PoisonError::into_inner);
        owner::Neighbour::living(&mut kept, session, name.owner()).map(|owner| {
            owner.page.freed(size);
            owner.page.is_over()
        })
    };
    match is_over {
        Some(false) => Ok(()),
        Some(true) => give_back(session, &name.file(), true),
        None => give_back(session, &name.file(), false), // nobody is left to recycle it
    }
}

/// Gives every free segment of the session back to the system, whoever owns it.
pub(super) fn reclaim(session: &Session) -> rustix::io::Result<()> {
    clear_up(session)?;
    expiry::sweep(session)?;
    for file in file_names(&session.dir)? {
        if file.starts_with("s-") {
            let _ = give_back(session, &file, true); // the others may still make room
        }
    }
    Ok(())
}

/// Removes a segment that is free (or, with `only_free` unset, whatever it is), and its pages at
/// once unless somebody still reads them.
pub(super) fn give_back(session: &Session, file: &str, only_free: bool) -> rustix::io::Result<()> {
    let opened = session.open_file(file, OFlags::RDWR)?;
    let is_free = || Ok(read_header(&opened)?.is_some_and(|h| h.tag.state == State::Free));
    if only_free && !is_free()? {
        return Ok(());
    }
    let alone = fs::flock(&opened, FlockOperation::NonBlockingLockExclusive).is_ok();
    // Without the lock its owner could be about to recycle it.
    if only_free && !(alone && is_free()?) {
        return unlock(&opened);
    }
    let freed = read_header(&opened)?.filter(|header| header.tag.state == State::Free);
    bury(session, &opened, file, alone)?;
    if let (Some(_), Some(name)) = (freed, Name::of_file(file)) {
        let size = u64::try_from(fs::fstat(&opened)?.st_size).unwrap_or_default();
        owner::Page::open(session, name.owner()).inspect(|page| page.taken(size));
    }
    unlock(&opened)
}

/// Marks a segment dead, gives its pages back if nobody reads them, and removes its name. Kept
/// mappings of others would otherwise hold on to the memory.
pub(super) fn bury(
    session: &Session,
    opened: &OwnedFd,
    file: &str,
    alone: bool,
) -> rustix::io::Result<()> {
    rustix::io::pwrite(opened, &Tag::new(0, State::Dead).bytes(), TAG_AT as u64)?;
    if alone {
        let size = u64::try_from(fs::fstat(opened)?.st_size).unwrap_or_default();
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if size > PAGE as u64 {
            let _ = fs::fallocate(opened, mode, PAGE as u64, size - PAGE as u64); // a kindness
        }
    }
    session.remove(file)
}

/// Removes all objects of a session that others may be using.
pub(super) fn clear(session: &Session) -> rustix::io::Result<()> {
    remove_links(&session.dir)?;
    for file in file_names(&session.dir)? {
        match Name::of_file(&file) {
            Some(Name::File { .. }) => drop(session.remove(&file)),
            Some(Name::Segment { owner, .. }) => {
                let Ok(opened) = session.open_file(&file, OFlags::RDWR) else {
                    continue;
                };
                // While we hold a pin, its owner does not begin to write.
                if fs::flock(&opened, FlockOperation::NonBlockingLockShared).is_err() {
                    continue;
                }
                let state = read_header(&opened)?.map(|header| header.tag.state);
                let busy = !matches!(state, Some(State::Live | State::Free));
                if !busy || !owner::is_alive(session, owner) {
                    bury(session, &opened, &file, false)?;
                }
                unlock(&opened)?;
            }
            None => {}
        }
    }
    Ok(())
}

fn remove_links(session: &OwnedFd) -> rustix::io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let keys = match fs::openat(session, KEYS, flags, Mode::empty()) {
        Ok(keys) => keys,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    for link in file_names(&keys)? {
        match fs::unlinkat(&keys, &link, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Lets go of a lock even if a child forked meanwhile has the description too.
pub(super) fn unlock(file: impl AsFd) -> rustix::io::Result<()> {
    fs::flock(file, FlockOperation::Unlock)
}

pub(super) fn file_names(dir: &OwnedFd) -> rustix::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name: &CStr = entry.file_name();
        // All names of ours are ASCII.
        if let Some(name) = name.to_str().ok().filter(|name| !matches!(*name, "." | "..")) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}
