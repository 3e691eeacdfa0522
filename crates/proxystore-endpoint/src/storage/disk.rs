//! Objects on disk: a file each, written aside and renamed when it is whole.
//!
//! `N.part` is being written, `N.spill` is of this run alone, `N.object` outlives it; `N` counts up with every
//! put, so that of two files of one id the later is told. Everything here blocks.

use std::fs::{self, DirBuilder, File};
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use proxystore::{Error, ErrorKind, Result};
use rustix::fs::FlockOperation;
use tracing::warn;

use super::format::{Head, LONGEST};
use super::room::Charge;
use crate::lock::{cannot_lock, locked};

const OPEN: &str = "open the objects of an endpoint";
const LOCK: &str = "lock";
const PART: &str = "part";

/// The directory of objects, which is this process's alone.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    /// For syncing, and holding on to.
    directory: File,
    sync: bool,
    lock: File,
}

/// An object that an earlier run left on purpose.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) number: u64,
    pub(super) head: Head,
}

/// How long a file is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// As long as this run: memory had no room for the object.
    Spill,
    /// Over restarts.
    Object,
}

impl Kind {
    fn extension(self) -> &'static str {
        match self {
            Self::Spill => "spill",
            Self::Object => "object",
        }
    }
}

impl Disk {
    /// The directory, made if need be and cleared of what other runs left, and the objects that they left on
    /// purpose, in the order in which they were put; and the highest number of a file, damaged ones among them.
    pub(super) fn open(path: &Path, sync: bool) -> Result<(Arc<Self>, Vec<Left>, u64)> {
        let failed = |error| Error::io(OPEN, error).with("directory", path.display());
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let mut options = File::options();
        let lock = options
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(LOCK))
            .map_err(failed)?;
        let exclusive = FlockOperation::NonBlockingLockExclusive;
        if !locked(&lock, exclusive).map_err(|error| cannot_lock(failed(error)))? {
            return Err(Error::new(ErrorKind::Config, OPEN, "another endpoint uses the directory")
                .with("directory", path.display())
                .with_hint("give each a `dir` of its own in section [storage]"));
        }
        let directory = File::open(path).map_err(failed)?;
        let disk = Self { path: path.to_owned(), directory, sync, lock };
        let (found, last) = disk.clear_up().map_err(failed)?;
        Ok((Arc::new(disk), found, last))
    }

    fn clear_up(&self) -> io::Result<(Vec<Left>, u64)> {
        let (mut found, mut last) = (Vec::new(), 0);
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let path = entry.path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            let (Some(number), Some(extension)) = (number_of(&path), extension) else { continue };
            last = last.max(number);
            if !entry.file_type()?.is_file() {
                continue;
            }
            if extension == PART || extension == Kind::Spill.extension() {
                fs::remove_file(&path)?;
            } else if extension == Kind::Object.extension() {
                match read_head(&path) {
                    Ok(head) => found.push(Left { number, head }),
                    Err(error) => warn!(
                        file = %path.display(), %error,
                        "an object is damaged and is left out; remove its file, or restore it and start again",
                    ),
                }
            }
        }
        found.sort_unstable_by_key(|left| left.number);
        Ok((found, last))
    }

    /// Lets another run have the directory.
    pub(super) fn release(&self) {
        let _ = rustix::fs::flock(&self.lock, FlockOperation::Unlock); // as the end of the process would
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn file(&self, number: u64, kind: Kind) -> PathBuf {
        self.path.join(format!("{number:016x}.{}", kind.extension()))
    }

    /// A file to be filled after a head of so many bytes.
    pub(super) fn create(self: &Arc<Self>, number: u64, head: u64) -> io::Result<Unfinished> {
        let path = self.path.join(format!("{number:016x}.{PART}"));
        let mut options = File::options();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&path)?;
        file.seek(SeekFrom::Start(head))?;
        Ok(Unfinished { disk: Arc::clone(self), number, file, path })
    }

    pub(super) fn sync_directory(&self) -> io::Result<()> {
        if self.sync { self.directory.sync_all() } else { Ok(()) }
    }
}

/// The number in the name of a file of ours. Files of others are left alone: somebody may have them in the same
/// directory.
fn number_of(path: &Path) -> Option<u64> {
    let stem = path.file_stem()?.to_str()?;
    let number = u64::from_str_radix(stem, 16).ok()?;
    (format!("{number:016x}") == stem).then_some(number)
}

fn read_head(path: &Path) -> io::Result<Head> {
    let file = File::open(path)?;
    let mut bytes = [0; LONGEST];
    let mut len = 0;
    while len < LONGEST {
        match file.read_at(&mut bytes[len..], len as u64)? {
            0 => break,
            read => len += read,
        }
    }
    Head::decode(&bytes[..len], file.metadata()?.len())
        .map_err(|message| io::Error::new(io::ErrorKind::InvalidData, message))
}

/// A file on its way. Dropped before it is finished, it leaves nothing behind.
#[derive(Debug)]
pub(super) struct Unfinished {
    disk: Arc<Disk>,
    number: u64,
    file: File,
    path: PathBuf,
}

impl Unfinished {
    /// Appends.
    pub(super) fn write(&mut self, pieces: &[Bytes]) -> io::Result<()> {
        let mut slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut rest = &mut slices[..];
        IoSlice::advance_slices(&mut rest, 0); // leaves out what is empty
        while !rest.is_empty() {
            // The system takes no more slices than this at once.
            let most = rest.len().min(1024);
            match self.file.write_vectored(&rest[..most]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes it an object's file. `charge` stands for its bytes.
    pub(super) fn finish(self, head: &Head, kind: Kind, charge: Charge) -> io::Result<OnDisk> {
        self.file.write_all_at(&head.encode(), 0)?;
        let persists = kind == Kind::Object;
        if persists && self.disk.sync {
            self.file.sync_data()?;
        }
        let (number, disk) = (self.number, Arc::clone(&self.disk));
        fs::rename(&self.path, disk.file(number, kind))?;
        let removed = AtomicBool::new(false);
        let done = OnDisk { disk, number, kind, removed, _charge: charge };
        if persists {
            done.disk.sync_directory()?;
        }
        Ok(done)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path); // renamed where it was finished
    }
}

/// The file of an object. It goes with its last holder, unless it is [left](Self::leave).
#[derive(Debug)]
pub(super) struct OnDisk {
    disk: Arc<Disk>,
    number: u64,
    kind: Kind,
    /// Nothing more to remove.
    removed: AtomicBool,
    _charge: Charge,
}

impl OnDisk {
    /// What an earlier run left.
    pub(super) fn found(disk: &Arc<Disk>, number: u64, charge: Charge) -> Self {
        let (disk, removed) = (Arc::clone(disk), AtomicBool::new(false));
        Self { disk, number, kind: Kind::Object, removed, _charge: charge }
    }

    /// Whether it is there after a restart.
    pub(super) fn persists(&self) -> bool {
        self.kind == Kind::Object
    }

    pub(super) fn path(&self) -> PathBuf {
        self.disk.file(self.number, self.kind)
    }

    /// Its bytes from now on, also when it is removed; `None` when it was.
    pub(super) fn open(&self) -> io::Result<Option<File>> {
        match File::open(self.path()) {
            Ok(file) => Ok(Some(file)),
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && self.removed.load(Ordering::Acquire) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes the head again, which says when the object expires.
    pub(super) fn rewrite(&self, head: &Head) -> io::Result<()> {
        let file = match File::options().write(true).open(self.path()) {
            Ok(file) => file,
            Err(_) if self.removed.load(Ordering::Acquire) => return Ok(()),
            Err(error) => return Err(error),
        };
        file.write_all_at(&head.encode(), 0)?; // within one block: all of it or nothing
        if self.disk.sync { file.sync_data() } else { Ok(()) }
    }

    /// Removes it now; for good once its directory is synced.
    pub(super) fn remove(&self) -> io::Result<()> {
        if self.removed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        match fs::remove_file(self.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Leaves it for the next run.
    pub(super) fn leave(&self) {
        self.removed.store(true, Ordering::Release);
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        let _ = self.remove(); // or the next start does
    }
}

/// `len` bytes of a file.
pub(super) fn read(file: &File, at: u64, len: usize) -> io::Result<Bytes> {
    let mut bytes = BytesMut::zeroed(len);
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes.freeze())
}
