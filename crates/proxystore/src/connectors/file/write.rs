//! From bytes to a published file: written aside under a lock, then renamed.

use std::fs::{self, File};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{CWD, FlockOperation, RenameFlags};
use rustix::io::Errno;

use super::expiry;
use super::format::{self, Trailer};
use super::place::{Place, WRITING};
use super::read::trailer_of;
use crate::connectors::expiry::Expiry;
use crate::key::unique_id;
use crate::payload::Parts;

/// From this size on, space is set aside before the first byte is written.
const ALLOCATE_FROM: u64 = 1 << 20;
/// How long a lock is waited for. Only a child forked from a writer that was killed while it
/// published can hold one this long, and then order between fillings is all that is lost.
const PATIENCE: Duration = Duration::from_secs(2);
/// On a network file system a lock may hold on one host only; age is asked as well there.
const DEAD_AFTER: Duration = Duration::from_hours(24);

/// An object on its way. Dropped before it is published, it leaves nothing behind.
///
/// The lock on it proves that its writer lives: it goes with the process, however that ends.
#[derive(Debug)]
pub(super) struct Draft {
    file: File,
    path: PathBuf,
    trailer: Trailer,
    expiry: Expiry,
    published: bool,
}

impl Draft {
    /// An empty draft in the directory, which is made again if somebody removed it.
    pub(super) fn create(place: &Place, expiry: Expiry) -> io::Result<Self> {
        let directory = place.path.join(WRITING);
        for _ in 0..100 {
            let id = unique_id().map_err(io::Error::other)?;
            let path = directory.join(id);
            let file = match File::options().write(true).create_new(true).open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    make_writing_directory(place, &directory)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            // A cleaner that comes between creation and lock takes the lock itself and removes
            // the file: then it is tried again under another name.
            let taken = try_lock(&file) == Locked::ByAnother;
            if !taken && file.metadata()?.nlink() > 0 {
                let trailer = Trailer { len: 0, generation: 0 };
                return Ok(Self { file, path, trailer, expiry, published: false });
            }
        }
        Err(io::Error::other("the directory of unfinished objects is removed again and again"))
    }

    /// Writes the object and its trailer.
    pub(super) fn write(
        &mut self,
        parts: &Parts<'_>,
        generation: u64,
        deadline: Option<Instant>,
        is_local: bool,
    ) -> io::Result<()> {
        self.trailer = Trailer { len: parts.len() as u64, generation };
        let total = self.trailer.len + format::LEN as u64;
        if total >= ALLOCATE_FROM {
            allocate(&self.file, total)?;
        }
        let trailer = self.trailer.to_bytes();
        let mut slices = parts.io_slices();
        slices.push(IoSlice::new(&trailer));
        let mut rest = &mut slices[..];
        while !rest.is_empty() {
            match self.file.write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        if is_local {
            return Ok(());
        }
        // A network file system may find out only now that the disk is full.
        self.file.sync_data()
    }

    /// Gives the file its expiry: last of all, for writing to it changes the time.
    fn stamp(&self) -> io::Result<()> {
        if self.expiry == Expiry::NEVER { Ok(()) } else { expiry::set(&self.file, self.expiry) }
    }

    /// Publishes under an id that nothing else has.
    pub(super) fn publish(mut self, target: &Path) -> io::Result<()> {
        self.stamp()?;
        fs::rename(&self.path, target)?;
        self.published = true;
        Ok(())
    }

    /// Publishes in place of what is there, if anything, and returns the generation.
    pub(super) fn publish_next(mut self, target: &Path) -> io::Result<u64> {
        self.stamp()?;
        loop {
            let Some(current) = Current::lock(target)? else {
                match rename_to_nothing(&self.path, target) {
                    Err(Errno::EXIST) => continue, // another filled it meanwhile
                    outcome => outcome?,
                }
                break;
            };
            let older = current.generation();
            if older >= self.trailer.generation {
                self.trailer.generation = older + 1;
                self.file.write_all_at(&self.trailer.to_bytes(), self.trailer.len)?;
                self.stamp()?;
            }
            fs::rename(&self.path, target)?;
            break;
        }
        self.published = true;
        Ok(self.trailer.generation)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.published {
            let _ = fs::remove_file(&self.path); // the error that led here is the one to report
        }
        unlock(&self.file);
    }
}

/// The published file of an id, locked: it is not replaced and not removed by its generation.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) file: File,
}

impl Current {
    /// The file that is there, or `None`.
    pub(super) fn lock(target: &Path) -> io::Result<Option<Self>> {
        loop {
            // Network file systems lock only what is open for writing.
            let opened = match File::options().read(true).write(true).open(target) {
                Err(error) if is_refused(&error) => File::open(target),
                opened => opened,
            };
            let file = match opened {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            lock_patiently(&file);
            let current = Self { file };
            let (held, there) = (current.file.metadata()?, fs::metadata(target));
            match there {
                Ok(there) if (there.dev(), there.ino()) == (held.dev(), held.ino()) => {
                    return Ok(Some(current));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
                Ok(_) => {} // replaced while the lock was waited for
            }
        }
    }

    /// Its generation; 0 when it cannot be told.
    pub(super) fn generation(&self) -> u64 {
        match trailer_of(&self.file) {
            Ok(Ok(trailer)) => trailer.generation,
            _ => 0,
        }
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        unlock(&self.file);
    }
}

fn is_refused(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// Like the directory itself, so that all who may store there may write there.
fn make_writing_directory(place: &Place, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(&place.path)?;
    match fs::create_dir(directory) {
        Ok(()) => {
            let mode = fs::metadata(&place.path)?.permissions().mode() & 0o7777;
            fs::set_permissions(directory, fs::Permissions::from_mode(mode))
        }
        // Removed with the directory since, or made by another: the next attempt tells.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Sets space aside, where the file system can.
#[cfg(target_os = "linux")]
fn allocate(file: &File, len: u64) -> io::Result<()> {
    loop {
        match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, len) {
            Err(Errno::INTR) => {}
            Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => return Err(error.into()),
            _ => return Ok(()),
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn allocate(_file: &File, _len: u64) -> io::Result<()> {
    Ok(())
}

/// Renames unless there is something already.
fn rename_to_nothing(from: &Path, to: &Path) -> rustix::io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system can look and rename in one step.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => rustix::fs::rename(from, to),
        outcome => outcome,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Locked {
    Here,
    ByAnother,
    /// The file system has no locks.
    Never,
}

fn try_lock(file: &File) -> Locked {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Locked::Here,
        Err(Errno::WOULDBLOCK | Errno::INTR) => Locked::ByAnother,
        Err(_) => Locked::Never,
    }
}

fn lock_patiently(file: &File) {
    let start = Instant::now();
    let mut pause = Duration::from_micros(20);
    while try_lock(file) == Locked::ByAnother && start.elapsed() < PATIENCE {
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

/// Releases the lock itself: a forked child may hold the same open file for as long as it lives.
fn unlock(file: &File) {
    let _ = rustix::fs::flock(file, FlockOperation::Unlock); // never held where this fails
}

/// Whether the writer of an unfinished file is gone; if so, its lock is held from now on.
pub(super) fn is_dead(file: &File, is_local: bool) -> bool {
    let is_old = || {
        let modified = file.metadata().and_then(|about| about.modified());
        let age = modified.map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
        age.is_ok_and(|age| age > DEAD_AFTER)
    };
    (is_local || is_old()) && try_lock(file) == Locked::Here
}
